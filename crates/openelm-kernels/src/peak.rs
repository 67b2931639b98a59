//! The machine's limits, measured: multiply-adds in registers alone, and bytes to and from memory.

use std::time::Instant;

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use crate::matmul::micro_amx;
use crate::simd::{Simd, prefetch, simd_fn};
use crate::threads::Parts;
use crate::{Cpu, Isa, Precision};

const ROUNDS: usize = 400_000;
const CHAINS: usize = 24;
/// Chains of 16 lanes that the 16 registers of AVX2, and of plain code, hold.
const FEW_CHAINS: usize = 7;

/// Floating-point operations a second (a multiply-add counts two) that all threads reach together without memory:
/// the best of `repeats` runs.
pub fn multiply_add_rate(cpu: &Cpu, precision: Precision, repeats: usize) -> f64 {
    // Multiply-adds of one step of a chain: of 16 lanes, but on Arm of one register, since no more chains than registers fit.
    let step = match (cpu.isa, precision) {
        (Isa::Amx, Precision::Bf16) => 16 * 16 * 32,
        (Isa::Avx512Bf16, Precision::Bf16) => 32,
        (Isa::NeonBf16, Precision::Bf16) => 16,
        (Isa::Neon | Isa::NeonDot | Isa::NeonBf16, _) => 4,
        _ => 16,
    };
    let few = cpu.isa == Isa::Plain || cpu.isa.is_avx2();
    let chains = if few { FEW_CHAINS } else { CHAINS };
    let operations = 2 * step * chains * ROUNDS * cpu.threads.count();
    let seconds = best(repeats, || {
        cpu.threads.for_each(cpu.threads.count(), |_| {
            // SAFETY: the instruction set is available.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if precision == Precision::Bf16 && cpu.isa.has_avx512_bf16() {
                    if cpu.isa == Isa::Amx {
                        return micro_amx::products(CHAINS * ROUNDS);
                    }
                    std::hint::black_box(pair_chains());
                    return;
                }
                #[cfg(target_arch = "aarch64")]
                if cpu.isa != Isa::Plain {
                    std::hint::black_box(if step == 16 { neon_bf16_chains() } else { neon_chains() });
                    return;
                }
                std::hint::black_box(if few { few_chains(cpu.isa) } else { many_chains(cpu.isa) });
            }
        });
    });
    operations as f64 / seconds
}

/// Bytes a second read and written by y += x over arrays of `len` f32 each, which should exceed the caches.
pub fn memory_bandwidth(cpu: &Cpu, len: usize, repeats: usize) -> f64 {
    let x = vec![1.0f32; len];
    let mut y = vec![0.0f32; len];
    let seconds = best(repeats, || {
        let y = Parts::new(&mut y);
        cpu.threads.for_runs(len, 1 << 16, |start, count| {
            // SAFETY: the instruction set is available; runs do not overlap.
            unsafe { add(cpu.isa, &x[start..start + count], y.part(start, count)) };
        });
    });
    (3 * 4 * len) as f64 / seconds
}

/// Bytes a second that all threads read together from an array of `len` f32, which should exceed the caches.
pub fn read_bandwidth(cpu: &Cpu, len: usize, repeats: usize) -> f64 {
    let values = vec![1.0f32; len];
    let seconds = best(repeats, || {
        cpu.threads.for_runs(len, len.div_ceil(4 * cpu.threads.count()), |start, count| {
            // SAFETY: the instruction set is available.
            std::hint::black_box(unsafe { total(cpu.isa, &values[start..start + count]) });
        });
    });
    (4 * len) as f64 / seconds
}

fn best(repeats: usize, mut run: impl FnMut()) -> f64 {
    (0..repeats.max(1))
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// f32 values that reading asks for memory ahead.
const AHEAD: usize = 1024;

simd_fn! {
    /// The sum, in as many chains as hide the additions' latency.
    fn total<S>(values: &[f32]) -> f32 {
        let mut sums = [S::splat(0.0); 8];
        for part in values.chunks_exact(128) {
            for line in 0..8 {
                prefetch(part.as_ptr().wrapping_add(AHEAD + 16 * line).cast());
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::add(*sum, S::load(part.as_ptr().add(16 * i)));
            }
        }
        sums.iter().map(|sum| S::sum(*sum)).sum()
    }
}

simd_fn! {
    fn many_chains<S>() -> f32 {
        chains::<S, CHAINS>()
    }
}

simd_fn! {
    fn few_chains<S>() -> f32 {
        chains::<S, FEW_CHAINS>()
    }
}

/// Independent chains of multiply-adds.
///
/// # Safety
/// The instruction set is available.
#[inline(always)]
unsafe fn chains<S: Simd, const N: usize>() -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let x = S::splat(std::hint::black_box(1.0));
        let mut sums = [S::splat(0.0); N];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = S::fma(x, x, *sum);
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += S::sum(sum);
        }
        total
    }
}

simd_fn! {
    fn add<S>(x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(16).zip(y.chunks_exact_mut(16)) {
            S::store(y.as_mut_ptr(), S::add(S::load(y.as_ptr()), S::load(x.as_ptr())));
        }
    }
}

/// # Safety
/// Needs AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pair_chains() -> f32 {
    // SAFETY: both types are 64 bytes of plain data.
    let x = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(std::hint::black_box(0x3f80_3f80))) };
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, x, x);
        }
    }
    let mut total = _mm512_setzero_ps();
    for sum in sums {
        total = _mm512_add_ps(total, sum);
    }
    _mm512_reduce_add_ps(total)
}

/// # Safety
/// None but NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon_chains() -> f32 {
    let x = vdupq_n_f32(std::hint::black_box(1.0));
    let mut sums = [vdupq_n_f32(0.0); CHAINS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = vfmaq_f32(*sum, x, x);
        }
    }
    sums.into_iter().map(|sum| vaddvq_f32(sum)).sum()
}

/// # Safety
/// Needs Arm's bf16 instructions.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,bf16")]
unsafe fn neon_bf16_chains() -> f32 {
    let x = vdupq_n_u32(std::hint::black_box(0x3f80_3f80));
    let mut sums = [vdupq_n_f32(0.0); CHAINS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            // SAFETY: the caller has the instruction.
            unsafe {
                std::arch::asm!(
                    "bfmmla {sum:v}.4s, {x:v}.8h, {x:v}.8h",
                    sum = inout(vreg) *sum, x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
    }
    sums.into_iter().map(|sum| vaddvq_f32(sum)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;

    #[test]
    fn every_instruction_set_is_measured() {
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, Threads::new(1).unwrap()).unwrap();
            for precision in [Precision::F32, Precision::Bf16] {
                let rate = multiply_add_rate(&cpu, precision, 1);
                assert!(rate.is_finite() && rate > 0.0, "{isa:?} {precision:?}: {rate}");
            }
            let read = read_bandwidth(&cpu, 1 << 14, 1);
            assert!(read.is_finite() && read > 0.0, "{isa:?}: {read}");
        }
    }
}
