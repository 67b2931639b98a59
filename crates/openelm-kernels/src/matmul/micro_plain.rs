//! The innermost product in ordinary code. The compiler turns the fixed-size rows into SSE2 or NEON registers: 4 rows × 8
//! columns are 8 of them on either.

use super::micro::{Tile, by_rows};

pub(super) const HEIGHT: usize = 4;
pub(super) const WIDTH: usize = 8;

by_rows!(
    /// f32 units.
    ///
    /// # Safety
    /// Needs `rows` from 1 to 4 and a tile whose pointers reach as far as its sizes say.
    singles, body, 1 2 3 4);

unsafe fn body<const ROWS: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[0.0f32; WIDTH]; ROWS];
        let mut left = tile.left.cast::<f32>();
        let mut right = tile.right.cast::<f32>();
        for _ in 0..tile.units {
            let r = right.cast::<[f32; WIDTH]>().read_unaligned();
            for (row, sum) in sums.iter_mut().enumerate() {
                let l = *left.add(if PACKED { row } else { row * tile.left_stride });
                for (sum, r) in sum.iter_mut().zip(r) {
                    // On x86's baseline mul_add is a library call; on Arm it is an instruction.
                    *sum = if cfg!(target_arch = "aarch64") { l.mul_add(r, *sum) } else { l * r + *sum };
                }
            }
            left = left.add(if PACKED { HEIGHT } else { 1 });
            right = right.add(WIDTH);
        }
        for (row, sum) in sums.iter().enumerate() {
            for (column, sum) in sum.iter().enumerate() {
                let from = if tile.from.is_null() { 0.0 } else { *tile.from.add(row * tile.from_stride + column) };
                *tile.to.add(row * tile.to_stride + column) = sum + from;
            }
        }
    }
}
