//! The product of activations in 8 bits with quantised weights in NEON: unpacking and the innermost product. Levels are signed, so that
//! only types with minima have offsets.

use std::arch::aarch64::*;
use std::arch::asm;

use super::byte_product::{STRIP, Side, WIDTH};
use super::layout::CHUNK;
use super::neon_blocks::Blocks;

/// Rows of a tile: with 8 columns, sums and products take 16 of the 32 registers.
pub(super) const HEIGHT: usize = 4;

/// One row's levels in order, and its scales and offsets, [`STRIP`] apart.
///
/// # Safety
/// The row has `begin + inner` columns, both multiples of 32; the targets have room.
#[target_feature(enable = "neon")]
pub(super) unsafe fn unpack_row<B: Blocks>(bytes: *const u8, begin: usize, inner: usize, to: *mut u8, scales: *mut f32, offsets: *mut f32) {
    let first = begin / CHUNK;
    // SAFETY: the caller's promise.
    unsafe {
        let mut head = B::head(bytes.add(first / B::CHUNKS * B::BYTES));
        for number in 0..inner / CHUNK {
            let index = (first + number) % B::CHUNKS;
            let at = bytes.add((first + number) / B::CHUNKS * B::BYTES);
            if index == 0 {
                head = B::head(at);
            }
            let chunk = B::chunk(at, &head, index);
            vst1q_s8(to.add(number * CHUNK).cast(), chunk.levels[0]);
            vst1q_s8(to.add(number * CHUNK + 16).cast(), chunk.levels[1]);
            *scales.add(number * STRIP) = chunk.scale;
            *offsets.add(number * STRIP) = chunk.offset;
        }
    }
}

/// Adds products of four bytes of each of 8 columns with the `GROUP`-th four of a row.
#[inline(always)]
unsafe fn dot<const GROUP: usize>([mut a, mut b]: [int32x4_t; 2], columns: [int8x16_t; 2], row: int8x16_t) -> [int32x4_t; 2] {
    // SAFETY: the caller has the instruction.
    unsafe {
        asm!(
            "sdot {a:v}.4s, {first:v}.16b, {row:v}.4b[{group}]",
            "sdot {b:v}.4s, {second:v}.16b, {row:v}.4b[{group}]",
            a = inout(vreg) a, b = inout(vreg) b, first = in(vreg) columns[0], second = in(vreg) columns[1], row = in(vreg) row,
            group = const GROUP,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    [a, b]
}

/// Adds the products of a tile of tokens and a panel to `to`, whose rows are [`STRIP`] apart.
///
/// # Safety
/// Needs dot products of bytes; both sides hold `blocks` blocks.
// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn tile_product<const ROWS: usize, const OFFSETS: bool>(
    side: &Side,
    blocks: usize,
    levels: *const u32,
    scales: *const f32,
    offsets: *const f32,
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for column in (0..WIDTH).step_by(8) {
            let to = to.add(column);
            let mut sums = [[vdupq_n_f32(0.0); 2]; ROWS];
            for row in 0..ROWS {
                sums[row] = [vld1q_f32(to.add(row * STRIP)), vld1q_f32(to.add(row * STRIP + 4))];
            }
            for block in 0..blocks {
                let mut products = [[vdupq_n_s32(0); 2]; ROWS];
                for half in 0..2 {
                    let mut rows = [vdupq_n_s8(0); ROWS];
                    for row in 0..ROWS {
                        rows[row] = vld1q_s8(side.levels.add(row * side.columns + block * CHUNK + 16 * half));
                    }
                    let at = levels.add((block * CHUNK / 4 + 4 * half) * WIDTH + column);
                    macro_rules! group {
                        ($($group:literal)*) => {$(
                            let four = at.add($group * WIDTH).cast();
                            let weights = [vld1q_s8(four), vld1q_s8(four.add(16))];
                            for row in 0..ROWS {
                                products[row] = dot::<$group>(products[row], weights, rows[row]);
                            }
                        )*};
                    }
                    group!(0 1 2 3);
                }
                for half in 0..2 {
                    let at = block * STRIP + column + 4 * half;
                    let scale = vld1q_f32(scales.add(at));
                    for row in 0..ROWS {
                        let factor = vmulq_n_f32(scale, *side.scales.add(row * side.per_row + block));
                        sums[row][half] = vfmaq_f32(sums[row][half], vcvtq_f32_s32(products[row][half]), factor);
                        if OFFSETS {
                            let own = *side.sums.add(row * side.per_row + block);
                            sums[row][half] = vfmaq_n_f32(sums[row][half], vld1q_f32(offsets.add(at)), own);
                        }
                    }
                }
            }
            for row in 0..ROWS {
                vst1q_f32(to.add(row * STRIP), sums[row][0]);
                vst1q_f32(to.add(row * STRIP + 4), sums[row][1]);
            }
        }
    }
}
