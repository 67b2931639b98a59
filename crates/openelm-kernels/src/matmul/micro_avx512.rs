//! The innermost product in AVX-512: 12 rows × 2 registers of sums leave 8 registers for operands.

use std::arch::x86_64::*;

use super::micro::{Tile, by_rows};

pub(super) const HEIGHT: usize = 12;
pub(super) const WIDTH: usize = 32;

by_rows!(
    /// f32 units.
    ///
    /// # Safety
    /// Needs AVX-512, `rows` from 1 to 12 and a tile whose pointers reach as far as its sizes say.
    singles, body_singles, 1 2 3 4 5 6 7 8 9 10 11 12);
by_rows!(
    /// Units of two bf16 values.
    ///
    /// # Safety
    /// As [`singles`], and AVX512-BF16.
    pairs, body_pairs, 1 2 3 4 5 6 7 8 9 10 11 12);

macro_rules! body {
    ($name:ident, $features:literal, |$sum:ident, $left:ident, $right:ident| $multiply:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const ROWS: usize, const PACKED: bool>(tile: &Tile) {
            // SAFETY: the caller's promise.
            unsafe {
                if !tile.from.is_null() {
                    // The sums are added to memory after the loop: by then it has come closer.
                    for row in 0..ROWS {
                        let from = tile.from.add(row * tile.from_stride);
                        _mm_prefetch::<_MM_HINT_T0>(from.cast());
                        _mm_prefetch::<_MM_HINT_T0>(from.add(16).cast());
                    }
                }
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                let mut left = tile.left;
                let mut right = tile.right;
                for _ in 0..tile.units {
                    let r = [_mm512_loadu_si512(right.cast()), _mm512_loadu_si512(right.add(16).cast())];
                    for row in 0..ROWS {
                        let at = if PACKED { row } else { row * tile.left_stride };
                        let $left = _mm512_set1_epi32(*left.add(at) as i32);
                        for half in 0..2 {
                            let ($sum, $right) = (sums[row][half], r[half]);
                            sums[row][half] = $multiply;
                        }
                    }
                    left = left.add(if PACKED { HEIGHT } else { 1 });
                    right = right.add(WIDTH);
                }
                for row in 0..ROWS {
                    let to = tile.to.add(row * tile.to_stride);
                    let mut sum = sums[row];
                    if !tile.from.is_null() {
                        let from = tile.from.add(row * tile.from_stride);
                        sum = [_mm512_add_ps(sum[0], _mm512_loadu_ps(from)), _mm512_add_ps(sum[1], _mm512_loadu_ps(from.add(16)))];
                    }
                    _mm512_storeu_ps(to, sum[0]);
                    _mm512_storeu_ps(to.add(16), sum[1]);
                }
            }
        }
    };
}

body!(body_singles, "avx512f,avx512bw,avx512dq,avx512vl", |sum, left, right| {
    _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right), sum)
});
body!(body_pairs, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", |sum, left, right| {
    _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512i, __m512bh>(left), std::mem::transmute::<__m512i, __m512bh>(right))
});
