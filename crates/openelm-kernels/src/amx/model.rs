//! The tile registers in ordinary code, after the operation sections of Intel's manual (volume 2: LDTILECFG, TILELOADD, TILESTORED,
//! TILEZERO, TDPBF16PS, TDPBSUD). Where the processor would raise a fault the model panics.

use super::{COUNT, ROW, SIDE, Shapes, Tiles};
use crate::simd::widen_half;

#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Rows, and bytes of each; 0 for what is not configured.
    shapes: [(usize, usize); COUNT],
    tiles: [[[u32; SIDE]; SIDE]; COUNT],
}

impl Model {
    fn shape(&self, tile: usize) -> (usize, usize) {
        let (rows, bytes) = self.shapes[tile];
        assert!(rows > 0 && bytes > 0, "tile {tile} is not configured");
        (rows, bytes)
    }

    /// Rows, words of the inner dimension and columns of a product.
    fn product<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&self) -> (usize, usize, usize) {
        let ((rows, bytes), (left_rows, left_bytes), (right_rows, right_bytes)) = (self.shape(SUM), self.shape(LEFT), self.shape(RIGHT));
        assert!(SUM != LEFT && SUM != RIGHT && LEFT != RIGHT, "three tiles take part");
        assert!(left_rows == rows && right_bytes == bytes && right_rows == left_bytes / 4, "shapes of a product of tiles");
        (rows, right_rows, bytes / 4)
    }
}

/// Denormals count as 0, as operands and as results.
fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

fn pair(word: u32) -> [f32; 2] {
    [word as u16, (word >> 16) as u16].map(|half| flush(widen_half(half)))
}

impl Tiles for Model {
    unsafe fn configure(&mut self, shapes: &Shapes) {
        assert_eq!(std::ptr::from_ref(shapes).align_offset(64), 0);
        assert_eq!((shapes.palette, shapes.start_row, shapes.reserved), (1, 0, [0; 14]));
        *self = Self::default();
        for tile in 0..16 {
            let (rows, bytes) = (usize::from(shapes.rows[tile]), usize::from(shapes.row_bytes[tile]));
            assert!(rows <= SIDE && bytes <= ROW && (rows == 0) == (bytes == 0), "tile {tile} has {rows} rows of {bytes} bytes");
            assert!(tile < COUNT || rows == 0, "there is no tile {tile}");
            if rows > 0 {
                self.shapes[tile] = (rows, bytes);
            }
        }
    }

    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        let (rows, bytes) = self.shape(TILE);
        self.tiles[TILE] = [[0; SIDE]; SIDE];
        for (row, words) in self.tiles[TILE].iter_mut().enumerate().take(rows) {
            // SAFETY: the caller's promise; a row of a tile has room for 64 bytes.
            unsafe { std::ptr::copy_nonoverlapping(from.add(row * stride), words.as_mut_ptr().cast(), bytes) };
        }
    }

    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
        let (rows, bytes) = self.shape(TILE);
        for (row, words) in self.tiles[TILE].iter().enumerate().take(rows) {
            // SAFETY: the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(words.as_ptr().cast(), to.add(row * stride), bytes) };
        }
    }

    unsafe fn zero<const TILE: usize>(&mut self) {
        self.shape(TILE);
        self.tiles[TILE] = [[0; SIDE]; SIDE];
    }

    unsafe fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let (rows, inner, columns) = self.product::<SUM, LEFT, RIGHT>();
        for row in 0..rows {
            // The first and the second values of the pairs have sums of their own, each with one rounding a product.
            let mut sums = [[0.0_f32; 2]; SIDE];
            for k in 0..inner {
                let left = pair(self.tiles[LEFT][row][k]);
                for (sums, right) in sums.iter_mut().zip(self.tiles[RIGHT][k]).take(columns) {
                    let right = pair(right);
                    for half in 0..2 {
                        sums[half] = flush(left[half].mul_add(right[half], sums[half]));
                    }
                }
            }
            for (to, [first, second]) in self.tiles[SUM][row].iter_mut().zip(sums).take(columns) {
                *to = flush(flush(f32::from_bits(*to)) + flush(first + second)).to_bits();
            }
        }
    }

    unsafe fn multiply_bytes<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let (rows, inner, columns) = self.product::<SUM, LEFT, RIGHT>();
        for row in 0..rows {
            for k in 0..inner {
                let left = self.tiles[LEFT][row][k].to_le_bytes().map(|level| i32::from(level as i8));
                let right = self.tiles[RIGHT][k];
                for (sum, right) in self.tiles[SUM][row].iter_mut().zip(right).take(columns) {
                    let products = left.into_iter().zip(right.to_le_bytes()).map(|(left, right)| left * i32::from(right));
                    *sum = sum.wrapping_add_signed(products.sum());
                }
            }
        }
    }

    unsafe fn release(&mut self) {
        *self = Self::default();
    }
}
