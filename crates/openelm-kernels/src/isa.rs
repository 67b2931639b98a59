//! Instruction sets: which one the processor has, and which one the environment asks for.
//!
//! What must stay true: asking for an instruction set that the processor lacks is an error, never a slower choice.

use std::str::FromStr;

use crate::KernelError;

/// An instruction set that the kernels have a body for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Ordinary code, vectorised by the compiler for the architecture's baseline.
    Plain,
    /// AVX2 with FMA and F16C, 8 lanes.
    Avx2,
    /// The same with dot products of bytes (AVX-VNNI).
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL, 16 lanes.
    Avx512,
    /// The same with dot products of bytes (VNNI).
    Avx512Vnni,
    /// The same with dot products of bf16 pairs.
    Avx512Bf16,
    /// The same with products of tiles of bf16 and of bytes (AMX), for matrix products of bf16 and of many tokens with quantised weights.
    /// Tested under emulation, never timed.
    Amx,
    /// Arm's NEON, which every processor of 64 bits has, 4 registers for 16 lanes.
    Neon,
    /// The same with dot products of bytes.
    NeonDot,
    /// The same with matrix products of bf16.
    NeonBf16,
}

const ALL: [Isa; 10] =
    [Isa::Plain, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vnni, Isa::Avx512Bf16, Isa::Amx, Isa::Neon, Isa::NeonDot, Isa::NeonBf16];

impl Isa {
    /// The name used in `OPENELM_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonDot => "neondot",
            Self::NeonBf16 => "neonbf16",
        }
    }

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Plain => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonBf16 => Self::NeonDot.is_available() && std::arch::is_aarch64_feature_detected!("bf16"),
            #[cfg(not(target_arch = "aarch64"))]
            Self::NeonDot | Self::NeonBf16 => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && has_dot_products(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Self::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Bf16.is_available() && crate::amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Avx512Vnni | Self::Avx512Bf16 | Self::Amx => false,
        }
    }

    /// Whether it is one of x86 with AVX2.
    pub(crate) fn has_avx2(self) -> bool {
        matches!(self, Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Avx512Vnni | Self::Avx512Bf16 | Self::Amx)
    }

    /// Whether it is AVX2, with or without dot products of bytes, and no more.
    pub(crate) fn is_avx2(self) -> bool {
        matches!(self, Self::Avx2 | Self::AvxVnni)
    }

    /// Whether it has AVX-512, of any kind.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512(self) -> bool {
        self == Self::Avx512 || self.has_avx512_vnni()
    }

    /// Whether it has AVX-512 with dot products of bytes.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512_vnni(self) -> bool {
        self == Self::Avx512Vnni || self.has_avx512_bf16()
    }

    /// Whether it has AVX-512 with dot products of bf16 pairs and of bytes.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512_bf16(self) -> bool {
        matches!(self, Self::Avx512Bf16 | Self::Amx)
    }

    /// Every instruction set that this processor can run, slowest first.
    pub fn available() -> Vec<Self> {
        ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The fastest one.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Plain)
    }

    /// The one named by `OPENELM_ISA`, or the fastest.
    ///
    /// # Errors
    /// When the variable names none, or one that this processor lacks.
    pub fn from_env() -> Result<Self, KernelError> {
        match std::env::var("OPENELM_ISA") {
            Ok(name) => name.parse::<Self>()?.require(),
            Err(_) => Ok(Self::detect()),
        }
    }

    /// Itself, when this processor can run it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn require(self) -> Result<Self, KernelError> {
        if self.is_available() {
            return Ok(self);
        }
        let names: Vec<_> = Self::available().into_iter().map(Self::name).collect();
        Err(KernelError::MissingIsa { name: self.name(), available: names.join(", ") })
    }
}

/// Whether AVX-VNNI's bodies run: in tests, by AVX-512's spelling of the same instruction where the processor has that alone.
#[cfg(target_arch = "x86_64")]
fn has_dot_products() -> bool {
    let long = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni");
    is_x86_feature_detected!("avxvnni") || cfg!(test) && long
}

impl FromStr for Isa {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| KernelError::UnknownIsa { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for isa in ALL {
            assert_eq!(isa.name().parse::<Isa>(), Ok(isa));
        }
        assert!("sse9".parse::<Isa>().unwrap_err().to_string().contains("avx512bf16"));
    }

    #[test]
    fn a_missing_instruction_set_is_an_error() {
        let missing = if cfg!(target_arch = "aarch64") { Isa::Avx2 } else { Isa::Neon };
        assert!(matches!(missing.require(), Err(KernelError::MissingIsa { .. })));
        assert!(Isa::detect().require().is_ok());
    }
}
