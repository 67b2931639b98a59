//! What every kind of export is asked: the element type.

use openelm_formats::DType;

/// Element type of the written weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportDtype {
    F32,
    F16,
    Bf16,
}

/// From this many parameters on, weights are written as bf16 unless asked otherwise: 4 bytes a parameter would be more than most
/// engines load.
const LARGE: usize = 2_000_000_000;

impl ExportDtype {
    /// The type for a model of this many parameters where nobody has asked for one: f32, and bf16 for the size of OpenELM-3B and more.
    pub fn for_size(parameters: usize) -> Self {
        if parameters >= LARGE { Self::Bf16 } else { Self::F32 }
    }

    pub(crate) fn stored(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// PyTorch's name.
    pub(crate) fn torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}
