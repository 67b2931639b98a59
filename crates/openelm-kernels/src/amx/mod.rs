//! Intel's tile registers (AMX): eight matrices of at most 16 rows of 64 bytes, and their products.
//!
//! Kernels are written over [`Tiles`], so that tests run them everywhere on a model of the registers ([`model`]) that is exact to the bit;
//! [`hardware`] holds the instructions themselves.
//!
//! What must stay true: whoever configures tiles releases them in the same function, with nothing between that could panic or leave the
//! thread.

mod hardware;
#[cfg(test)]
mod model;
#[cfg(test)]
mod operations;

pub(crate) use hardware::{Hardware, is_available};
#[cfg(test)]
pub(crate) use model::Model;

/// Rows of a tile, and words of 4 bytes of each.
pub(crate) const SIDE: usize = 16;
/// Bytes of a tile's row.
const ROW: usize = 4 * SIDE;
const COUNT: usize = 8;

/// The shape of every tile, as the instruction reads it from memory (palette 1).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Tiles of these numbers of rows (at most 16), each of 16 words. One without rows cannot be used.
    pub(crate) fn new(rows: [usize; COUNT]) -> Self {
        let mut shapes = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (tile, rows) in rows.into_iter().enumerate().filter(|(_, rows)| *rows > 0) {
            debug_assert!(rows <= SIDE, "{rows} rows in a tile");
            shapes.row_bytes[tile] = ROW as u16;
            shapes.rows[tile] = rows as u8;
        }
        shapes
    }
}

/// A thread's tile registers. Strides are bytes from one row to the next.
///
/// # Safety
/// Methods need the instructions, [`configure`](Self::configure) before all others, tiles below 8 that have rows, and pointers valid for
/// the rows of the tile, 64 bytes each.
pub(crate) trait Tiles: Default {
    /// Sets the shapes, and all tiles to 0.
    unsafe fn configure(&mut self, shapes: &Shapes);
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize);
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize);
    /// SUM [m, n] (f32) += LEFT [m, 16 pairs] · RIGHT [16 pairs, n], pairs of bf16.
    unsafe fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
    /// Gives the registers back, so that the system need not save them any more.
    unsafe fn release(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads three tiles, multiplies twice and gives the sums.
    unsafe fn probe<T: Tiles>(rows: usize, left: &[u16], right: &[u16], sums: &[f32]) -> Vec<u32> {
        let mut tiles = T::default();
        let mut out = vec![0_u32; rows * SIDE];
        let stride = 2 * left.len() / rows;
        // SAFETY: the caller has the instructions; every slice holds what is loaded.
        unsafe {
            tiles.configure(&Shapes::new([rows, rows, SIDE, 0, 0, 0, 0, 0]));
            tiles.load::<0>(sums.as_ptr().cast(), ROW);
            tiles.load::<1>(left.as_ptr().cast(), stride);
            tiles.load::<2>(right.as_ptr().cast(), ROW);
            tiles.multiply::<0, 1, 2>();
            tiles.multiply::<0, 1, 2>();
            tiles.store::<0>(out.as_mut_ptr().cast(), ROW);
            tiles.release();
        }
        out
    }

    /// Bit patterns that a product may meet: ordinary values, very small and large ones, denormals, zeros, infinities.
    fn values(count: usize, seed: u64, wild: bool) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let bits = (state >> 32) as u32;
                let ordinary = f32::from_bits(bits & 0x807f_ffff | (120 + (bits >> 24 & 7)) << 23);
                match state & 15 {
                    0 if wild => f32::from_bits(bits & 0x807f_ffff),
                    1 if wild => f32::from_bits(bits & 0x80ff_ffff | 0x2000_0000),
                    2 if wild => f32::from_bits(bits & 0x83ff_ffff | 0x5e00_0000),
                    3 if wild && state & 0xff0 == 0 => f32::INFINITY,
                    4 => 0.0,
                    _ => ordinary,
                }
            })
            .collect()
    }

    fn halves(values: &[f32]) -> Vec<u16> {
        values.iter().map(|value| (value.to_bits() >> 16) as u16).collect()
    }

    #[test]
    fn the_model_multiplies() {
        for rows in [1, 2, 15, 16] {
            let left = halves(&values(rows * 2 * SIDE, rows as u64, false));
            let right = halves(&values(SIDE * 2 * SIDE, 77, false));
            let sums = values(rows * SIDE, 5, false);
            // SAFETY: the model needs no instructions.
            let found = unsafe { probe::<Model>(rows, &left, &right, &sums) };
            let widen = |half: u16| f64::from(crate::simd::widen_half(half));
            for row in 0..rows {
                for column in 0..SIDE {
                    let product = |k: usize| {
                        let pair = 2 * SIDE * (k / 2) + 2 * column + k % 2;
                        widen(left[2 * SIDE * row + k]) * widen(right[pair])
                    };
                    let sum = f64::from(sums[row * SIDE + column]);
                    let expected = sum + 2.0 * (0..2 * SIDE).map(product).sum::<f64>();
                    let found = f64::from(f32::from_bits(found[row * SIDE + column]));
                    // A sum is rounded at each of its terms.
                    let terms = sum.abs() + 2.0 * (0..2 * SIDE).map(|k| product(k).abs()).sum::<f64>();
                    let bound = 2.0 * SIDE as f64 * f64::from(f32::EPSILON) * terms;
                    assert!(terms > 1.0 && (found - expected).abs() <= bound, "{rows}: {row} {column}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn the_model_treats_denormals_as_zero() {
        let tiny = f32::from_bits(0x0000_ffff);
        let (left, right) = (vec![0x0001_u16; 2 * SIDE], vec![0x7f00_u16; 2 * SIDE * SIDE]);
        // SAFETY: the model needs no instructions.
        let found = unsafe { probe::<Model>(1, &left, &right, &[tiny; SIDE]) };
        assert_eq!(found, [0; SIDE]);
        // A product that is too small for f32 is nothing, even where many of them would add up to something.
        let left = vec![0x1fff_u16; 2 * SIDE];
        // SAFETY: as above.
        let found = unsafe { probe::<Model>(1, &left, &vec![0x1fff_u16; 2 * SIDE * SIDE], &[1e-37; SIDE]) };
        assert_eq!(found, [1e-37_f32.to_bits(); SIDE]);
    }

    #[test]
    fn the_instructions_do_what_the_model_does() {
        if !is_available() {
            println!("tiles: none here, not tested");
            return;
        }
        for seed in 0..200 {
            let rows = 1 + seed % SIDE;
            let wild = seed % 2 == 1;
            // Rows lie apart now and then.
            let stride = 2 * SIDE + seed % 3 * 2;
            let left = halves(&values(rows * stride, seed as u64, wild));
            let right = halves(&values(SIDE * 2 * SIDE, 1000 + seed as u64, wild));
            let sums = values(rows * SIDE, 2000 + seed as u64, wild);
            // SAFETY: the instructions are available.
            let (found, expected) = unsafe { (probe::<Hardware>(rows, &left, &right, &sums), probe::<Model>(rows, &left, &right, &sums)) };
            for (i, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                // Which NaN comes of two infinities is left open.
                let nan = |bits: u32| f32::from_bits(bits).is_nan();
                assert!(found == expected || nan(found) && nan(expected), "{seed}, {i}: {found:08x} {expected:08x}");
            }
        }
        println!("tiles: instructions and model agree");
    }
}
