//! Quantised rows in AVX-512 with dot products of bytes: 64 weights at a time.

use std::arch::x86_64::*;

use super::avx512_blocks::Blocks512;
use super::layout::with_type;
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
    unsafe { by_tokens!(part, together::<B>) }
}

// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn together<B: Blocks512, const ROWS: usize, const TOKENS: usize>(part: &Part<'_>, first: usize) {
    let (matrix, x) = (part.matrix, part.x);
    let whole = x.whole();
    // SAFETY: rows lie in the matrix; a token has `whole` levels, and a scale and a sum for every 4 of them.
    unsafe {
        let row_bytes = matrix.row_bytes;
        let start = matrix.bytes.as_ptr().add((part.first + first) * row_bytes);
        let ahead = ahead(row_bytes, ROWS);
        // Two chains of sums for each, so that neither waits for the other.
        let mut totals = [[_mm512_setzero_ps(); TOKENS]; ROWS];
        let mut offsets = [[_mm512_setzero_ps(); TOKENS]; ROWS];
        let steps = x.columns / B::WEIGHTS;
        let (levels, scales, sums) = (x.levels.as_ptr(), x.scales.as_ptr(), x.sums.as_ptr());
        for step in 0..steps {
            let mut heads = [B::head::<false>(start.add(step * B::BYTES)); ROWS];
            for row in 0..ROWS {
                let at = start.add(row * row_bytes + step * B::BYTES);
                for line in 0..B::BYTES.div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead + 64 * line).cast());
                }
                if row > 0 {
                    heads[row] = B::head::<false>(at);
                }
            }
            for index in 0..B::WEIGHTS / 64 {
                let from = step * B::WEIGHTS + index * 64;
                for row in 0..ROWS {
                    let chunk = B::chunk::<false>(start.add(row * row_bytes + step * B::BYTES), heads[row], index);
                    for token in 0..TOKENS {
                        let at = token * whole + from;
                        let levels = _mm512_loadu_si512(levels.add(at).cast());
                        let products = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), chunk.levels, levels));
                        let factors = _mm512_mul_ps(chunk.scales, _mm512_loadu_ps(scales.add(at / 4)));
                        totals[row][token] = _mm512_fmadd_ps(factors, products, totals[row][token]);
                        offsets[row][token] = _mm512_fmadd_ps(chunk.offsets, _mm512_loadu_ps(sums.add(at / 4)), offsets[row][token]);
                    }
                }
            }
        }
        let done = steps * B::WEIGHTS;
        if done < x.columns {
            // Half a step: one block of 32.
            for row in 0..ROWS {
                let at = start.add(row * row_bytes + steps * B::BYTES);
                let chunk = B::chunk::<true>(at, B::head::<true>(at), 0);
                // The second half has neither scale nor offset.
                let shifts = _mm512_maskz_mov_ps(0x00ff, chunk.offsets);
                for token in 0..TOKENS {
                    let at = token * whole + done;
                    let levels = _mm512_loadu_si512(levels.add(at).cast());
                    let products = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), chunk.levels, levels));
                    let factors = _mm512_mul_ps(chunk.scales, _mm512_loadu_ps(scales.add(at / 4)));
                    totals[row][token] = _mm512_fmadd_ps(factors, products, totals[row][token]);
                    offsets[row][token] = _mm512_fmadd_ps(shifts, _mm512_loadu_ps(sums.add(at / 4)), offsets[row][token]);
                }
            }
        }
        for row in 0..ROWS {
            for token in 0..TOKENS {
                let total = _mm512_add_ps(totals[row][token], offsets[row][token]);
                *part.out.add(token * part.stride + first + row) = _mm512_reduce_add_ps(total);
            }
        }
    }
}
