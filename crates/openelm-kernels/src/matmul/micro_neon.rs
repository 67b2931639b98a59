//! The innermost product in NEON: 12 rows × 8 columns of sums are 24 of the 32 registers, for f32 as for bf16.

use std::arch::aarch64::*;
use std::arch::asm;

use super::micro::{Tile, by_rows};
use crate::simd::prefetch;

pub(super) const HEIGHT: usize = 12;
pub(super) const WIDTH: usize = 8;

by_rows!(
    /// f32 units.
    ///
    /// # Safety
    /// Needs `rows` from 1 to 12 and a tile whose pointers reach as far as its sizes say.
    singles, body_singles, 1 2 3 4 5 6 7 8 9 10 11 12);
by_rows!(
    /// Units of two bf16 values, by twos.
    ///
    /// # Safety
    /// As [`singles`], and Arm's bf16 instructions.
    quads, body_quads, 1 2 3 4 5 6 7 8 9 10 11 12);

/// Asks for what the sums are added to after the loop: by then it has come closer.
#[inline(always)]
unsafe fn fetch<const ROWS: usize>(tile: &Tile) {
    if !tile.from.is_null() {
        for row in 0..ROWS {
            prefetch(tile.from.wrapping_add(row * tile.from_stride).cast());
        }
    }
}

/// Stores 8 sums of a row, with what they are added to.
#[inline(always)]
unsafe fn store(tile: &Tile, row: usize, mut sums: [float32x4_t; 2]) {
    // SAFETY: the row lies in the tile.
    unsafe {
        let to = tile.to.add(row * tile.to_stride);
        if !tile.from.is_null() {
            let from = tile.from.add(row * tile.from_stride);
            sums = [vaddq_f32(sums[0], vld1q_f32(from)), vaddq_f32(sums[1], vld1q_f32(from.add(4)))];
        }
        vst1q_f32(to, sums[0]);
        vst1q_f32(to.add(4), sums[1]);
    }
}

/// One lane in all four: with a multiply-add behind it, one instruction.
#[inline(always)]
unsafe fn lane(v: float32x4_t, index: usize) -> float32x4_t {
    // SAFETY: the caller has NEON.
    unsafe {
        match index {
            0 => vdupq_laneq_f32::<0>(v),
            1 => vdupq_laneq_f32::<1>(v),
            2 => vdupq_laneq_f32::<2>(v),
            _ => vdupq_laneq_f32::<3>(v),
        }
    }
}

// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "neon")]
unsafe fn body_singles<const ROWS: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise; a packed tile has 12 rows in every unit.
    unsafe {
        fetch::<ROWS>(tile);
        let mut sums = [[vdupq_n_f32(0.0); 2]; ROWS];
        let mut left = tile.left.cast::<f32>();
        let mut right = tile.right.cast::<f32>();
        for _ in 0..tile.units {
            let r = [vld1q_f32(right), vld1q_f32(right.add(4))];
            let mut four = r[0];
            for row in 0..ROWS {
                let l = if PACKED {
                    if row % 4 == 0 {
                        four = vld1q_f32(left.add(row));
                    }
                    lane(four, row % 4)
                } else {
                    vdupq_n_f32(*left.add(row * tile.left_stride))
                };
                sums[row] = [vfmaq_f32(sums[row][0], r[0], l), vfmaq_f32(sums[row][1], r[1], l)];
            }
            left = left.add(if PACKED { HEIGHT } else { 1 });
            right = right.add(WIDTH);
        }
        for row in 0..ROWS {
            store(tile, row, sums[row]);
        }
    }
}

/// Adds the products of two rows and eight columns of four bf16 values each. Sums stand as [row 0 column 0, row 0 column 1, row 1 column 0,
/// row 1 column 1] for every two columns. The rows are loaded inside: outside, the compiler was seen to load all of them first, and to move
/// sums between registers and memory for want of room.
///
/// # Safety
/// Needs Arm's bf16 instructions. Packed, the rows stand side by side at `first`, else at `first` and `second`.
#[inline(always)]
unsafe fn multiply_rows<const PACKED: bool>(
    [mut a, mut b, mut c, mut d]: [float32x4_t; 4],
    first: *const u32,
    second: *const u32,
    right: &[uint32x4_t; 4],
) -> [float32x4_t; 4] {
    macro_rules! products {
        ($($load:literal),*; $($second:tt)*) => {
            asm!(
                $($load,)*
                "bfmmla {a:v}.4s, {rows:v}.8h, {r0:v}.8h",
                "bfmmla {b:v}.4s, {rows:v}.8h, {r1:v}.8h",
                "bfmmla {c:v}.4s, {rows:v}.8h, {r2:v}.8h",
                "bfmmla {d:v}.4s, {rows:v}.8h, {r3:v}.8h",
                a = inout(vreg) a, b = inout(vreg) b, c = inout(vreg) c, d = inout(vreg) d, rows = out(vreg) _, first = in(reg) first,
                r0 = in(vreg) right[0], r1 = in(vreg) right[1], r2 = in(vreg) right[2], r3 = in(vreg) right[3], $($second)*
                options(pure, readonly, nostack, preserves_flags)
            )
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        if PACKED {
            products!("ldr {rows:q}, [{first}]";);
        } else {
            products!("ldr {rows:d}, [{first}]", "ld1 {{{rows:v}.d}}[1], [{second}]"; second = in(reg) second,);
        }
    }
    [a, b, c, d]
}

#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "neon,bf16")]
unsafe fn body_quads<const ROWS: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise; a packed tile has 12 rows in every two units, and plain rows have an even number of units.
    unsafe {
        fetch::<ROWS>(tile);
        // [pair of rows][pair of columns]
        let mut sums = [[vdupq_n_f32(0.0); WIDTH / 2]; HEIGHT / 2];
        let (mut left, mut right) = (tile.left, tile.right);
        for _ in 0..tile.units / 2 {
            let r = [vld1q_u32(right), vld1q_u32(right.add(4)), vld1q_u32(right.add(8)), vld1q_u32(right.add(12))];
            for pair in 0..ROWS.div_ceil(2) {
                let (first, second) = if PACKED {
                    (left.add(4 * pair), left)
                } else {
                    // Of an odd number of rows the last stands for its missing neighbour, whose sums go nowhere.
                    (left.add(2 * pair * tile.left_stride), left.add((2 * pair + 1).min(ROWS - 1) * tile.left_stride))
                };
                sums[pair] = multiply_rows::<PACKED>(sums[pair], first, second, &r);
            }
            left = left.add(if PACKED { 2 * HEIGHT } else { 2 });
            right = right.add(2 * WIDTH);
        }
        for pair in 0..ROWS.div_ceil(2) {
            let s = [0, 1, 2, 3].map(|column| vreinterpretq_f64_f32(sums[pair][column]));
            let even = [vzip1q_f64(s[0], s[1]), vzip1q_f64(s[2], s[3])];
            store(tile, 2 * pair, even.map(|v| vreinterpretq_f32_f64(v)));
            if 2 * pair + 1 < ROWS {
                let odd = [vzip2q_f64(s[0], s[1]), vzip2q_f64(s[2], s[3])];
                store(tile, 2 * pair + 1, odd.map(|v| vreinterpretq_f32_f64(v)));
            }
        }
    }
}
