//! The innermost product in AVX2: 6 rows × 2 registers of sums of the 16 there are.

use std::arch::x86_64::*;

use super::micro::{Tile, by_rows};

pub(super) const HEIGHT: usize = 6;
pub(super) const WIDTH: usize = 16;

by_rows!(
    /// f32 units.
    ///
    /// # Safety
    /// Needs AVX2 and FMA, `rows` from 1 to 6 and a tile whose pointers reach as far as its sizes say.
    singles, body, 1 2 3 4 5 6);

#[target_feature(enable = "avx2,fma")]
unsafe fn body<const ROWS: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        let mut left = tile.left.cast::<f32>();
        let mut right = tile.right.cast::<f32>();
        for _ in 0..tile.units {
            let r = [_mm256_loadu_ps(right), _mm256_loadu_ps(right.add(8))];
            for (row, sum) in sums.iter_mut().enumerate() {
                let l = _mm256_broadcast_ss(&*left.add(if PACKED { row } else { row * tile.left_stride }));
                *sum = [_mm256_fmadd_ps(l, r[0], sum[0]), _mm256_fmadd_ps(l, r[1], sum[1])];
            }
            left = left.add(if PACKED { HEIGHT } else { 1 });
            right = right.add(WIDTH);
        }
        for (row, mut sum) in sums.into_iter().enumerate() {
            let to = tile.to.add(row * tile.to_stride);
            if !tile.from.is_null() {
                let from = tile.from.add(row * tile.from_stride);
                sum = [_mm256_add_ps(sum[0], _mm256_loadu_ps(from)), _mm256_add_ps(sum[1], _mm256_loadu_ps(from.add(8)))];
            }
            _mm256_storeu_ps(to, sum[0]);
            _mm256_storeu_ps(to.add(8), sum[1]);
        }
    }
}
