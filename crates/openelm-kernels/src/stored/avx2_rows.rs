//! Quantised rows in AVX2: 32 weights at a time, widened to 16 bits.

use std::arch::x86_64::*;

use super::layout::{CHUNK, Chunk, Layout};
use super::rows::Part;

/// See [`multiply_rows`](super::multiply_rows).
///
/// # Safety
/// Needs AVX2 and FMA; `part.out` has room.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply<L: Layout>(part: &Part<'_>) {
    let x = part.x;
    let (whole, chunks) = (x.whole(), x.columns / CHUNK);
    for row in 0..part.count {
        let bytes = part.matrix.row(part.first + row);
        let mut totals = [_mm256_setzero_ps(); super::MOST_TOKENS];
        for at in 0..chunks {
            let Chunk { levels, scales, offsets } = L::chunk(&bytes[at / L::CHUNKS * L::BYTES..][..L::BYTES], at % L::CHUNKS);
            // SAFETY: a chunk has 32 levels, a token 32 levels, 8 scales and 8 sums for each chunk.
            unsafe {
                let low = _mm256_cvtepu8_epi16(_mm_loadu_si128(levels.as_ptr().cast()));
                let high = _mm256_cvtepu8_epi16(_mm_loadu_si128(levels.as_ptr().add(16).cast()));
                let halves = |pair: [f32; 2]| _mm256_set_m128(_mm_set1_ps(pair[1]), _mm_set1_ps(pair[0]));
                let (scales, offsets) = (halves(scales), halves(offsets));
                for (token, total) in totals.iter_mut().enumerate().take(x.tokens) {
                    let from = token * whole + at * CHUNK;
                    let levels = x.levels.as_ptr().add(from);
                    let x_low = _mm256_cvtepi8_epi16(_mm_loadu_si128(levels.cast()));
                    let x_high = _mm256_cvtepi8_epi16(_mm_loadu_si128(levels.add(16).cast()));
                    // Lanes of two products each; pairs of lanes are added crosswise, so that 4 lanes belong to each half.
                    let products = _mm256_hadd_epi32(_mm256_madd_epi16(low, x_low), _mm256_madd_epi16(high, x_high));
                    let products = _mm256_cvtepi32_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(products));
                    let x_scales = _mm256_loadu_ps(x.scales.as_ptr().add(from / 4));
                    let x_sums = _mm256_loadu_ps(x.sums.as_ptr().add(from / 4));
                    *total = _mm256_fmadd_ps(_mm256_mul_ps(scales, x_scales), products, *total);
                    *total = _mm256_fmadd_ps(offsets, x_sums, *total);
                }
            }
        }
        for (token, total) in totals.iter().enumerate().take(x.tokens) {
            let four = _mm_add_ps(_mm256_castps256_ps128(*total), _mm256_extractf128_ps::<1>(*total));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            let one = _mm_add_ss(two, _mm_movehdup_ps(two));
            // SAFETY: the caller's promise.
            unsafe { *part.out.add(token * part.stride + row) = _mm_cvtss_f32(one) };
        }
    }
}
