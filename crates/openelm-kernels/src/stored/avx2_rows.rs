//! Quantised rows in AVX2 and AVX-VNNI: 32 weights at a time by products of bytes, with the scales of 256.
//!
//! What must stay true: a token's products are the same to the bit whatever tokens stand beside it; no sum of a pair leaves 16 bits. Levels
//! of 4 to 6 bits reach 63, signed ones of 8 bits 128, activations 127.

use std::arch::x86_64::*;

use super::avx2_blocks::Blocks256;
#[cfg(test)]
use super::dot256::LongFours;
use super::dot256::{Dot256, Fours, Pairs};
use super::layout::with_type;
use super::prepared::{BLOCK, LANES, STEP};
use super::rows::{Part, ahead};
use crate::Isa;

/// See [`multiply_rows`](super::multiply_rows).
///
/// # Safety
/// Needs AVX2, FMA and F16C, and what `isa` says; `part.out` has room.
pub(super) unsafe fn multiply(isa: Isa, part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        if isa != Isa::AvxVnni {
            return with_type!(part.matrix.dtype, avx2_blocks::B => pairs::<B>(part), else ());
        }
        #[cfg(test)]
        if !is_x86_feature_detected!("avxvnni") {
            return with_type!(part.matrix.dtype, avx2_blocks::B => long_fours::<B>(part), else ());
        }
        with_type!(part.matrix.dtype, avx2_blocks::B => fours::<B>(part), else ())
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pairs<B: Blocks256>(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe { all::<B, Pairs>(part) }
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn fours<B: Blocks256>(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe { all::<B, Fours>(part) }
}

#[cfg(test)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vl,avx512vnni")]
unsafe fn long_fours<B: Blocks256>(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe { all::<B, LongFours>(part) }
}

#[inline(always)]
unsafe fn all<B: Blocks256, D: Dot256>(part: &Part<'_>) {
    macro_rules! by_tokens {
        ($($tokens:literal)*) => {
            match part.x.tokens {
                $($tokens => for row in 0..part.count {
                    part.look_up_pages(row, 1);
                    // SAFETY: the caller's promise.
                    unsafe {
                        for (token, total) in totals::<B, D, $tokens>(part, row).into_iter().enumerate() {
                            *part.out.add(token * part.stride + row) = sum_of(total);
                        }
                    }
                },)*
                _ => {}
            }
        };
    }
    if part.x.tokens > 1 {
        by_tokens!(2 3 4 5 6 7 8);
        return;
    }
    let mut row = 0;
    while row + EIGHT <= part.count {
        part.look_up_pages(row, EIGHT);
        // SAFETY: the caller's promise.
        unsafe {
            let mut eight = [_mm256_setzero_ps(); EIGHT];
            for (at, total) in eight.iter_mut().enumerate() {
                [*total] = totals::<B, D, 1>(part, row + at);
            }
            _mm256_storeu_ps(part.out.add(row), sums_of(&eight));
        }
        row += EIGHT;
    }
    for row in row..part.count {
        // SAFETY: the caller's promise.
        unsafe { *part.out.add(row) = sum_of(totals::<B, D, 1>(part, row)[0]) };
    }
}

/// Rows whose sums are made of their lanes at once.
pub(super) const EIGHT: usize = 8;

/// The sums of the lanes of each of eight registers.
///
/// # Safety
/// Needs AVX2.
#[inline(always)]
pub(super) unsafe fn sums_of(rows: &[__m256; EIGHT]) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (_mm256_hadd_ps(rows[0], rows[1]), _mm256_hadd_ps(rows[2], rows[3]));
        let (c, d) = (_mm256_hadd_ps(rows[4], rows[5]), _mm256_hadd_ps(rows[6], rows[7]));
        let (low, high) = (_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        // Each half of a register has a share of four rows' sums.
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
    }
}

/// The sum of the lanes of one register, added in the order of [`sums_of`].
///
/// # Safety
/// Needs AVX2.
#[inline(always)]
pub(super) unsafe fn sum_of(lanes: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let pairs = _mm256_hadd_ps(lanes, lanes);
        let fours = _mm256_hadd_ps(pairs, pairs);
        _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(fours), _mm256_extractf128_ps::<1>(fours)))
    }
}

/// The products of a row, the sum of each still in 8 lanes.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn totals<B: Blocks256, D: Dot256, const TOKENS: usize>(part: &Part<'_>, row: usize) -> [__m256; TOKENS] {
    let (matrix, x) = (part.matrix, part.x);
    // SAFETY: the row lies in the matrix.
    unsafe {
        let start = matrix.bytes.as_ptr().add((part.first + row) * matrix.row_bytes);
        let mut sums = Sums { totals: [_mm256_setzero_ps(); TOKENS], offsets: [_mm256_setzero_ps(); TOKENS] };
        let ahead = ahead(matrix.row_bytes, 1);
        for step in 0..x.columns / STEP {
            let at = start.add(step * B::BYTES);
            for line in 0..B::BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead + 64 * line).cast());
            }
            add_step::<B, D, TOKENS>(part, at, step, STEP / BLOCK, &mut sums);
        }
        let rest = x.columns % STEP / BLOCK;
        if rest > 0 {
            let step = x.columns / STEP;
            add_step::<B, D, TOKENS>(part, start.add(step * B::BYTES), step, rest, &mut sums);
        }
        for (total, offset) in sums.totals.iter_mut().zip(sums.offsets) {
            *total = _mm256_fmadd_ps(offset, _mm256_set1_ps(B::OFFSET), *total);
        }
        sums.totals
    }
}

struct Sums<const TOKENS: usize> {
    totals: [__m256; TOKENS],
    offsets: [__m256; TOKENS],
}

/// Adds the products of a step, whose blocks are `blocks` of 8.
///
/// # Safety
/// As [`multiply`]; `at` holds the blocks.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_step<B: Blocks256, D: Dot256, const TOKENS: usize>(
    part: &Part<'_>,
    at: *const u8,
    step: usize,
    blocks: usize,
    sums: &mut Sums<TOKENS>,
) {
    let x = part.x;
    let (whole, per_token) = (x.whole(), x.lanes_per_token());
    // SAFETY: the caller's promise; a token has `whole` levels, and the factors of every step.
    unsafe {
        let weights = B::lanes(at, blocks);
        let mut factors = [[_mm256_setzero_ps(); 2]; TOKENS];
        for token in 0..TOKENS {
            let lanes = x.lanes.as_ptr().add(token * per_token + step * LANES);
            if B::FINE {
                for half in 0..2 {
                    factors[token][half] = _mm256_mul_ps(weights[half], _mm256_loadu_ps(lanes.add(16 + 8 * half)));
                    let shifts = _mm256_loadu_ps(lanes.add(32 + 8 * half));
                    sums.offsets[token] = _mm256_fmadd_ps(weights[half], shifts, sums.offsets[token]);
                }
            } else {
                factors[token][0] = _mm256_mul_ps(weights[0], _mm256_loadu_ps(lanes));
                if B::OFFSET != 0.0 {
                    sums.offsets[token] = _mm256_fmadd_ps(weights[1], _mm256_loadu_ps(lanes.add(8)), sums.offsets[token]);
                }
            }
        }
        for index in 0..STEP / BLOCK {
            if index >= blocks {
                break;
            }
            let levels = B::levels(at, index);
            let (places, half) = match B::FINE {
                true => {
                    let first = (2 * index % 8) as i32;
                    (_mm256_set_epi32(first + 1, first + 1, first + 1, first + 1, first, first, first, first), index / 4)
                }
                false => (_mm256_set1_epi32(index as i32), 0),
            };
            for token in 0..TOKENS {
                let x = _mm256_loadu_si256(x.levels.as_ptr().add(token * whole + step * STEP + index * BLOCK).cast());
                let products = match B::SIGNED {
                    true => D::add(_mm256_setzero_si256(), _mm256_abs_epi8(levels), _mm256_sign_epi8(x, levels)),
                    false => D::add(_mm256_setzero_si256(), levels, x),
                };
                let products = _mm256_cvtepi32_ps(products);
                let factor = _mm256_permutevar8x32_ps(factors[token][half], places);
                sums.totals[token] = _mm256_fmadd_ps(factor, products, sums.totals[token]);
            }
        }
    }
}
