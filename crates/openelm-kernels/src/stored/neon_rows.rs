//! Quantised rows in NEON, 32 weights at a time: by dot products of bytes where the processor has them, else by products of 16 bits.

use std::arch::aarch64::*;
use std::arch::asm;

use super::layout::{CHUNK, with_type};
use super::neon_blocks::{Blocks, Chunk};
use super::rows::{Part, ahead, by_tokens};
use crate::Isa;
use crate::simd::prefetch;

/// See [`multiply_rows`](super::multiply_rows).
///
/// # Safety
/// The instruction set, one of Arm's, is available; `part.out` has room.
pub(super) unsafe fn multiply(isa: Isa, part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match isa {
            Isa::Neon => with_type!(part.matrix.dtype, neon_blocks::B => wide::<B>(part), else ()),
            _ => with_type!(part.matrix.dtype, neon_blocks::B => dot::<B>(part), else ()),
        }
    }
}

/// Products of 16 signed bytes each, added by fours or in another order to four sums.
trait Dot {
    unsafe fn dot(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

struct Wide;
impl Dot for Wide {
    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // Activations lie in -127..=127: two products of bytes fit 16 bits.
        // SAFETY: the caller has NEON.
        unsafe { vpadalq_s16(sums, vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b)) }
    }
}

/// Arm's instruction.
struct Sdot;
impl Dot for Sdot {
    #[inline(always)]
    unsafe fn dot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the caller has the instruction.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
                sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }
}

#[target_feature(enable = "neon")]
unsafe fn wide<B: Blocks>(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe { by_tokens!(part, together::<B, Wide>) }
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn dot<B: Blocks>(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe { by_tokens!(part, together::<B, Sdot>) }
}

// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn together<B: Blocks, D: Dot, const ROWS: usize, const TOKENS: usize>(part: &Part<'_>, first: usize) {
    let (matrix, x) = (part.matrix, part.x);
    let whole = x.whole();
    // SAFETY: rows lie in the matrix; a token has `whole` levels, and a scale and a sum for every 4 of them.
    unsafe {
        let row_bytes = matrix.row_bytes;
        let start = matrix.bytes.as_ptr().add((part.first + first) * row_bytes);
        let ahead = ahead(row_bytes, ROWS);
        let zero = vdupq_n_f32(0.0);
        // Two chains of sums for each, so that neither waits for the other.
        let mut totals = [[zero; TOKENS]; ROWS];
        let mut offsets = [[zero; TOKENS]; ROWS];
        let (levels, scales, sums) = (x.levels.as_ptr(), x.scales.as_ptr(), x.sums.as_ptr());
        for block in 0..x.columns / (CHUNK * B::CHUNKS) {
            let mut heads = [B::head(start.add(block * B::BYTES)); ROWS];
            for row in 0..ROWS {
                let at = start.add(row * row_bytes + block * B::BYTES);
                for line in 0..B::BYTES.div_ceil(64) {
                    prefetch(at.wrapping_add(ahead + 64 * line));
                }
                if row > 0 {
                    heads[row] = B::head(at);
                }
            }
            for index in 0..B::CHUNKS {
                let from = (block * B::CHUNKS + index) * CHUNK;
                for row in 0..ROWS {
                    let at = start.add(row * row_bytes + block * B::BYTES);
                    let Chunk { levels: weights, parts, scale, offset } = B::chunk(at, &heads[row], index);
                    for token in 0..TOKENS {
                        let at = token * whole + from;
                        let (low, high) = (vld1q_s8(levels.add(at)), vld1q_s8(levels.add(at + 16)));
                        let products = D::dot(vdupq_n_s32(0), weights[0], low);
                        let products = if B::PARTS {
                            let second = D::dot(vdupq_n_s32(0), weights[1], high);
                            vmlaq_n_s32(vmulq_n_s32(products, parts[0]), second, parts[1])
                        } else {
                            D::dot(products, weights[1], high)
                        };
                        let products = vcvtq_f32_s32(products);
                        // All 32 activations have the scale of the first.
                        totals[row][token] = vfmaq_n_f32(totals[row][token], products, scale * *scales.add(at / 4));
                        if B::OFFSETS {
                            let sum = vaddq_f32(vld1q_f32(sums.add(at / 4)), vld1q_f32(sums.add(at / 4 + 4)));
                            offsets[row][token] = vfmaq_n_f32(offsets[row][token], sum, offset);
                        } else {
                            // The chains change places from chunk to chunk.
                            (totals[row][token], offsets[row][token]) = (offsets[row][token], totals[row][token]);
                        }
                    }
                }
            }
        }
        for row in 0..ROWS {
            for token in 0..TOKENS {
                *part.out.add(token * part.stride + first + row) = vaddvq_f32(vaddq_f32(totals[row][token], offsets[row][token]));
            }
        }
    }
}
