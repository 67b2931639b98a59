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
        Self::of_words(rows.map(|rows| (rows, SIDE)))
    }

    /// Tiles of these numbers of rows and of words of each row, at most 16 both. One without rows cannot be used.
    pub(crate) fn of_words(tiles: [(usize, usize); COUNT]) -> Self {
        let mut shapes = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (tile, (rows, words)) in tiles.into_iter().enumerate().filter(|(_, (rows, _))| *rows > 0) {
            debug_assert!(rows <= SIDE && (1..=SIDE).contains(&words), "{rows} rows of {words} words in a tile");
            shapes.row_bytes[tile] = (words * ROW / SIDE) as u16;
            shapes.rows[tile] = rows as u8;
        }
        shapes
    }
}

/// A thread's tile registers. Strides are bytes from one row to the next.
///
/// # Safety
/// Methods need the instructions, [`configure`](Self::configure) before all others, tiles below 8 that have rows, and pointers valid for
/// the rows of the tile, as wide as their shape says.
pub(crate) trait Tiles: Default {
    /// Sets the shapes, and all tiles to 0.
    unsafe fn configure(&mut self, shapes: &Shapes);
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize);
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize);
    unsafe fn zero<const TILE: usize>(&mut self);
    /// SUM [m, n] (f32) += LEFT [m, 16 pairs] · RIGHT [16 pairs, n], pairs of bf16.
    unsafe fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
    /// SUM [m, n] (i32) += LEFT [m, k fours] · RIGHT [k fours, n], fours of bytes: signed on the left, unsigned on the right. Sums wrap.
    unsafe fn multiply_bytes<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
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

    /// Shapes of a product of bytes: rows, words of the inner dimension, columns.
    const BYTE_SHAPES: [[usize; 3]; 7] =
        [[1, 1, 1], [2, 8, SIDE], [15, 7, 16], [SIDE, 8, SIDE], [3, SIDE, 5], [SIDE, SIDE, SIDE], [9, 2, 15]];

    /// Operands of a product of bytes: left [rows, 4 · words], right [words, columns, 4] and sums [rows, columns].
    struct Bytes {
        shape: [usize; 3],
        left: Vec<i8>,
        right: Vec<u8>,
        sums: Vec<i32>,
    }

    impl Bytes {
        /// Any bytes, of which every second is an extreme one, and sums that often leave the range.
        fn any(shape: [usize; 3], seed: u64) -> Self {
            let [rows, words, columns] = shape;
            let bits =
                |count: usize, seed: u64| values(count, seed, true).into_iter().map(|value| value.to_bits().wrapping_mul(0x9e37_79b1) >> 7);
            let left = bits(4 * rows * words, seed).map(|bits| [bits as i8, -128, bits as i8, 127][bits as usize >> 8 & 3]).collect();
            let right = bits(4 * words * columns, seed + 1).map(|bits| [bits as u8, 255, bits as u8, 0][bits as usize >> 8 & 3]).collect();
            let sums = bits(rows * columns, seed + 2).map(|bits| [bits as i32, i32::MIN + 9, i32::MAX - 9, 0][bits as usize & 3]).collect();
            Self { shape, left, right, sums }
        }

        /// Multiplies once onto the sums and once onto zeros, and gives both.
        unsafe fn probe<T: Tiles>(&self) -> [Vec<i32>; 2] {
            let [rows, words, columns] = self.shape;
            let mut tiles = T::default();
            let mut out = [vec![0; rows * columns], vec![1; rows * columns]];
            let stride = 4 * columns;
            // SAFETY: the caller has the instructions; every vector has its tile's shape.
            unsafe {
                let sum = (rows, columns);
                tiles.configure(&Shapes::of_words([sum, sum, (rows, words), (words, columns), (0, 0), (0, 0), (0, 0), (0, 0)]));
                tiles.load::<0>(self.sums.as_ptr().cast(), stride);
                tiles.load::<1>(self.sums.as_ptr().cast(), stride);
                tiles.load::<2>(self.left.as_ptr().cast(), 4 * words);
                tiles.load::<3>(self.right.as_ptr(), stride);
                tiles.zero::<1>();
                tiles.multiply_bytes::<0, 2, 3>();
                tiles.multiply_bytes::<1, 2, 3>();
                tiles.store::<0>(out[0].as_mut_ptr().cast(), stride);
                tiles.store::<1>(out[1].as_mut_ptr().cast(), stride);
                tiles.release();
            }
            out
        }

        fn expected(&self) -> [Vec<i32>; 2] {
            let [rows, words, columns] = self.shape;
            let product = |row: usize, column: usize| {
                let left = &self.left[4 * words * row..][..4 * words];
                let terms = left
                    .iter()
                    .enumerate()
                    .map(|(k, left)| i64::from(*left) * i64::from(self.right[k / 4 * 4 * columns + 4 * column + k % 4]));
                terms.sum::<i64>()
            };
            let products: Vec<_> = (0..rows * columns).map(|at| product(at / columns, at % columns)).collect();
            let sums = products.iter().zip(&self.sums).map(|(product, sum)| (i64::from(*sum) + product) as i32).collect();
            [sums, products.into_iter().map(|product| product as i32).collect()]
        }
    }

    #[test]
    fn the_model_multiplies_bytes() {
        for (seed, shape) in BYTE_SHAPES.into_iter().enumerate() {
            let mut bytes = Bytes::any(shape, seed as u64);
            // SAFETY: the model needs no instructions.
            assert_eq!(unsafe { bytes.probe::<Model>() }, bytes.expected(), "{shape:?}");
            for extreme in [-128, 127] {
                bytes.left.fill(extreme);
                bytes.right.fill(255);
                let product = i32::from(extreme) * 255 * 4 * shape[1] as i32;
                // SAFETY: as above.
                let [onto_sums, products] = unsafe { bytes.probe::<Model>() };
                assert!(products.iter().all(|found| *found == product), "{shape:?}");
                assert!(onto_sums.iter().zip(&bytes.sums).all(|(found, sum)| *found == sum.wrapping_add(product)), "{shape:?}");
            }
        }
    }

    #[test]
    fn the_instructions_multiply_bytes_as_the_model_does() {
        if !is_available() {
            println!("tiles: none here, not tested");
            return;
        }
        for (seed, shape) in BYTE_SHAPES.into_iter().cycle().take(70).enumerate() {
            let bytes = Bytes::any(shape, 3 * seed as u64);
            // SAFETY: the instructions are available.
            let (found, expected) = unsafe { (bytes.probe::<Hardware>(), bytes.probe::<Model>()) };
            assert_eq!(found, expected, "{shape:?}, {seed}");
        }
        println!("tiles: instructions and model agree on bytes");
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
