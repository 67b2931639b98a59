//! Quantised rows in AVX-512 with dot products of bytes: 64 weights at a time, with the scales of 256.
//!
//! What must stay true: a token's products are the same to the bit whatever tokens stand beside it.

use std::arch::x86_64::*;

use super::avx2_rows::{EIGHT, sum_of, sums_of};
use super::avx512_blocks::Blocks512;
use super::layout::with_type;
use super::prepared::{BLOCK, LANES, STEP};
use super::rows::{Part, ahead, by_tokens};

/// See [`multiply_rows`](super::multiply_rows).
///
/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and VNNI; `part.out` has room.
pub(super) unsafe fn multiply(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe { with_type!(part.matrix.dtype, avx512_blocks::B => all::<B>(part), else ()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn all<B: Blocks512>(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        if part.x.tokens > 1 {
            return by_tokens!(part, together::<B>);
        }
        let mut row = 0;
        while row + EIGHT <= part.count {
            part.look_up_pages(row, EIGHT);
            eight::<B>(part, row);
            row += EIGHT;
        }
        for row in row..part.count {
            together::<B, 1, 1>(part, row);
        }
    }
}

/// Eight rows times one token, one row after the other: one stream of memory is what processors fetch best.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn eight<B: Blocks512>(part: &Part<'_>, first: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut halves = [_mm256_setzero_ps(); EIGHT];
        for (row, half) in halves.iter_mut().enumerate() {
            let [[total]] = totals::<B, 1, 1>(part, first + row);
            *half = halved(total);
        }
        _mm256_storeu_ps(part.out.add(first), sums_of(&halves));
    }
}

/// Lanes 0 to 7 plus lanes 8 to 15.
///
/// # Safety
/// Needs AVX-512.
#[inline(always)]
unsafe fn halved(lanes: __m512) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes)) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn together<B: Blocks512, const ROWS: usize, const TOKENS: usize>(part: &Part<'_>, first: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for (row, totals) in totals::<B, ROWS, TOKENS>(part, first).into_iter().enumerate() {
            for (token, total) in totals.into_iter().enumerate() {
                *part.out.add(token * part.stride + first + row) = sum_of(halved(total));
            }
        }
    }
}

/// The products of some rows, the sum of each still in 16 lanes.
///
/// # Safety
/// As [`multiply`].
// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn totals<B: Blocks512, const ROWS: usize, const TOKENS: usize>(part: &Part<'_>, first: usize) -> [[__m512; TOKENS]; ROWS] {
    let (matrix, x) = (part.matrix, part.x);
    // SAFETY: rows lie in the matrix; a token has `whole` levels, and the factors of every step.
    unsafe {
        let row_bytes = matrix.row_bytes;
        let start = matrix.bytes.as_ptr().add((part.first + first) * row_bytes);
        let step_bytes = STEP / B::WEIGHTS * B::BYTES;
        let (levels, lanes, per_token) = (x.levels.as_ptr(), x.lanes.as_ptr(), x.lanes_per_token());
        let input = Input { levels, whole: x.whole(), lanes, per_token, ahead: ahead(row_bytes, ROWS) };
        let mut sums = Sums { totals: [[_mm512_setzero_ps(); TOKENS]; ROWS], offsets: [[_mm512_setzero_ps(); TOKENS]; ROWS] };
        for step in 0..x.columns / STEP {
            add_step::<B, ROWS, TOKENS>(start.add(step * step_bytes), row_bytes, step, STEP / BLOCK, &input, &mut sums);
        }
        let rest = x.columns % STEP / BLOCK;
        if rest > 0 {
            let step = x.columns / STEP;
            add_step::<B, ROWS, TOKENS>(start.add(step * step_bytes), row_bytes, step, rest, &input, &mut sums);
        }
        // Where scales stand in the lower lanes, what they were multiplied with is no offset.
        let mask = if B::FINE { 0xffff } else { 0xff00 };
        for row in 0..ROWS {
            for token in 0..TOKENS {
                let offsets = _mm512_maskz_mul_ps(mask, sums.offsets[row][token], _mm512_set1_ps(B::OFFSET));
                sums.totals[row][token] = _mm512_add_ps(sums.totals[row][token], offsets);
            }
        }
        sums.totals
    }
}

/// Where the tokens' levels and factors are, and how far ahead weights are asked for.
struct Input {
    levels: *const i8,
    whole: usize,
    lanes: *const f32,
    per_token: usize,
    ahead: usize,
}

struct Sums<const ROWS: usize, const TOKENS: usize> {
    totals: [[__m512; TOKENS]; ROWS],
    offsets: [[__m512; TOKENS]; ROWS],
}

/// Adds the products of a step, whose blocks are `blocks` of 8, in rows that begin at `at` and `row_bytes` further on.
///
/// # Safety
/// As [`multiply`].
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_step<B: Blocks512, const ROWS: usize, const TOKENS: usize>(
    at: *const u8,
    row_bytes: usize,
    step: usize,
    blocks: usize,
    input: &Input,
    sums: &mut Sums<ROWS, TOKENS>,
) {
    // SAFETY: the caller's promise; of an odd number of blocks the last one stands alone.
    unsafe {
        for row in 0..ROWS {
            let at = at.add(row * row_bytes);
            for line in 0..(STEP / B::WEIGHTS * B::BYTES).div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(input.ahead + 64 * line).cast());
            }
            let weights = B::lanes(at, blocks);
            let mut factors = [_mm512_setzero_ps(); TOKENS];
            for token in 0..TOKENS {
                let lanes = input.lanes.add(token * input.per_token + step * LANES);
                let (scales, shifts) = match B::FINE {
                    true => (_mm512_loadu_ps(lanes.add(16)), _mm512_loadu_ps(lanes.add(32))),
                    false => (_mm512_loadu_ps(lanes), _mm512_loadu_ps(lanes)),
                };
                factors[token] = _mm512_mul_ps(weights, scales);
                sums.offsets[row][token] = _mm512_fmadd_ps(weights, shifts, sums.offsets[row][token]);
            }
            let head = B::head::<false>(at);
            for index in 0..STEP / 64 {
                if 2 * index >= blocks {
                    break;
                }
                // Small blocks come two by two, each pair with a place of its own.
                let (at, index_in) = if B::WEIGHTS == 64 { (at.add(index * B::BYTES), 0) } else { (at, index) };
                let levels = match 2 * index + 1 == blocks {
                    true => B::chunk::<true>(at, head, index_in).levels,
                    false => B::chunk::<false>(at, head, index_in).levels,
                };
                let places = places::<B>(index);
                for token in 0..TOKENS {
                    let x = _mm512_loadu_si512(input.levels.add(token * input.whole + step * STEP + index * 64).cast());
                    let products = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), levels, x));
                    let factors = _mm512_permutexvar_ps(places, factors[token]);
                    sums.totals[row][token] = _mm512_fmadd_ps(factors, products, sums.totals[row][token]);
                }
            }
        }
    }
}

/// For each 4 of the `index`-th 64 weights the lane of their scale.
///
/// # Safety
/// Needs AVX-512.
#[inline(always)]
unsafe fn places<B: Blocks512>(index: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let (spread, first) = match B::FINE {
            true => (_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0), 4 * index),
            false => (_mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0), 2 * index),
        };
        _mm512_add_epi32(spread, _mm512_set1_epi32(first as i32))
    }
}
