//! The innermost product in AMX tiles: two by two tiles of sums, from two tiles of the left side and two of the right, so that
//! each loaded tile takes part in two products.
//!
//! The left side lies in rows of 16 units, as a tile holds it: a packed tile is [16 units][HEIGHT][unit]. The right side is the panel of
//! every other kernel, [unit][WIDTH], whose rows are a tile's rows.

use super::micro::Tile;
use crate::amx::{Hardware, SIDE, Shapes, Tiles};

pub(super) const HEIGHT: usize = 2 * SIDE;
pub(super) const WIDTH: usize = 2 * SIDE;
const WORD: usize = 4;

/// Units of two bf16 values. Sums begin with what they are added to.
///
/// The function that it gives needs AMX and AVX-512, `rows` from 1 to 32 and a tile whose pointers reach as far as its sizes say. In
/// tests the registers are the model's where the processor has none.
pub(super) fn pairs() -> unsafe fn(usize, &Tile) {
    #[cfg(test)]
    if !crate::amx::is_available() {
        return product::<crate::amx::Model>;
    }
    product::<Hardware>
}

/// Products of whole tiles of zeros, `count` rounded down to a multiple of 4.
///
/// # Safety
/// Needs AMX.
pub(crate) unsafe fn products(count: usize) {
    let mut tiles = Hardware;
    // SAFETY: the caller's promise.
    unsafe {
        tiles.configure(&Shapes::new([SIDE; 8]));
        for _ in 0..count / 4 {
            multiply::<_, true>(&mut tiles);
        }
        tiles.release();
    }
}

unsafe fn product<T: Tiles>(rows: usize, tile: &Tile) {
    debug_assert!((1..=HEIGHT).contains(&rows), "{rows} rows in a tile");
    // SAFETY: the caller's promise.
    unsafe { if rows > SIDE { body::<T, true>(rows, tile) } else { body::<T, false>(rows, tile) } }
}

/// Tiles 0 to 3 hold the sums, 4 and 5 the left side's upper and lower rows, 6 and 7 the right side's first and last columns. Without
/// `LOWER` rows their tiles are not configured.
unsafe fn body<T: Tiles, const LOWER: bool>(rows: usize, tile: &Tile) {
    let mut tiles = T::default();
    let upper = rows.min(SIDE);
    let lower = rows - upper;
    let (step, stride) = if tile.left_stride == 0 { (HEIGHT * SIDE, SIDE) } else { (SIDE, tile.left_stride) };
    let rest = tile.units % SIDE;
    // SAFETY: the caller's promise.
    unsafe {
        tiles.configure(&Shapes::new([upper, upper, lower, lower, upper, lower, SIDE, SIDE]));
        if !tile.from.is_null() {
            let (from, stride) = (tile.from, tile.from_stride);
            tiles.load::<0>(from.cast(), WORD * stride);
            tiles.load::<1>(from.add(SIDE).cast(), WORD * stride);
            if LOWER {
                tiles.load::<2>(from.add(SIDE * stride).cast(), WORD * stride);
                tiles.load::<3>(from.add(SIDE * stride + SIDE).cast(), WORD * stride);
            }
        }
        let (mut left, mut right) = (tile.left, tile.right);
        for _ in 0..tile.units / SIDE {
            load::<T, LOWER>(&mut tiles, left, stride, right);
            multiply::<T, LOWER>(&mut tiles);
            left = left.add(step);
            right = right.add(SIDE * WIDTH);
        }
        if rest > 0 {
            let stride = if tile.left_stride == 0 { rest } else { stride };
            let padded = Padded::new(left, rows, stride, right, rest);
            load::<T, LOWER>(&mut tiles, padded.left.as_ptr().cast(), SIDE, padded.right.as_ptr().cast());
            multiply::<T, LOWER>(&mut tiles);
        }
        let (to, stride) = (tile.to, tile.to_stride);
        tiles.store::<0>(to.cast(), WORD * stride);
        tiles.store::<1>(to.add(SIDE).cast(), WORD * stride);
        if LOWER {
            tiles.store::<2>(to.add(SIDE * stride).cast(), WORD * stride);
            tiles.store::<3>(to.add(SIDE * stride + SIDE).cast(), WORD * stride);
        }
        tiles.release();
    }
}

/// Loads 16 units of both sides, the left one's rows `stride` units apart.
#[inline(always)]
unsafe fn load<T: Tiles, const LOWER: bool>(tiles: &mut T, left: *const u32, stride: usize, right: *const u32) {
    // SAFETY: the caller's promise.
    unsafe {
        tiles.load::<6>(right.cast(), WORD * WIDTH);
        tiles.load::<4>(left.cast(), WORD * stride);
        tiles.load::<7>(right.add(SIDE).cast(), WORD * WIDTH);
        if LOWER {
            tiles.load::<5>(left.add(SIDE * stride).cast(), WORD * stride);
        }
    }
}

#[inline(always)]
unsafe fn multiply<T: Tiles, const LOWER: bool>(tiles: &mut T) {
    // SAFETY: the caller's promise.
    unsafe {
        tiles.multiply::<0, 4, 6>();
        tiles.multiply::<1, 4, 7>();
        if LOWER {
            tiles.multiply::<2, 5, 6>();
            tiles.multiply::<3, 5, 7>();
        }
    }
}

/// The last units of both sides where they do not fill a tile, with zeros behind them.
#[repr(align(64))]
struct Padded {
    left: [[u32; SIDE]; HEIGHT],
    right: [[u32; WIDTH]; SIDE],
}

impl Padded {
    /// # Safety
    /// `left` holds `rows` rows of `units`, `stride` apart, and `right` as many rows of a panel.
    unsafe fn new(left: *const u32, rows: usize, stride: usize, right: *const u32, units: usize) -> Self {
        let mut padded = Self { left: [[0; SIDE]; HEIGHT], right: [[0; WIDTH]; SIDE] };
        // SAFETY: the caller's promise.
        unsafe {
            for (row, to) in padded.left.iter_mut().enumerate().take(rows) {
                std::ptr::copy_nonoverlapping(left.add(row * stride), to.as_mut_ptr(), units);
            }
            std::ptr::copy_nonoverlapping(right, padded.right.as_mut_ptr().cast(), units * WIDTH);
        }
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx::Model;
    use crate::matmul::micro::{Order, Unit};
    use crate::matmul::pack::Packing;
    use crate::simd::{Source, widen_half};
    use crate::{Cpu, Isa, Matrix, Precision, Weights, linear_backward_input, linear_backward_weights, linear_forward};

    /// Whole numbers from -8 to 8 in bf16: products and sums of them are exact in f32.
    fn whole(count: usize, seed: usize) -> Vec<u16> {
        (0..count).map(|i| ((((i * 7 + seed) * 31 + i * i) % 17) as f32 - 8.0).to_bits() >> 16).map(|bits| bits as u16).collect()
    }

    /// left [rows, inner] · right [WIDTH, inner] plus `from`.
    fn expected(left: &[u16], right: &[u16], from: Option<&[f32]>, rows: usize, inner: usize) -> Vec<f32> {
        let mut sums = from.map_or_else(|| vec![0.0; rows * WIDTH], <[f32]>::to_vec);
        for row in 0..rows {
            for column in 0..WIDTH {
                let pairs = left[row * inner..][..inner].iter().zip(&right[column * inner..][..inner]);
                sums[row * WIDTH + column] += pairs.map(|(l, r)| widen_half(*l) * widen_half(*r)).sum::<f32>();
            }
        }
        sums
    }

    #[test]
    fn every_shape_on_the_model() {
        for rows in [1, 2, 15, 16, 17, 31, 32] {
            for inner in [1, 2, 31, 32, 33, 34, 63, 64, 95, 250] {
                let (left, right) = (whole(rows * inner, rows), whole(WIDTH * inner, 100));
                let units = inner.div_ceil(2);
                let (source, width, lanes) = (Source::Bf16(left.as_ptr()), HEIGHT, rows);
                let side = Packing { unit: Unit::Pair, source, stride: inner, lanes, inner, width, order: Order::Lanes };
                let panel = Packing { source: Source::Bf16(right.as_ptr()), lanes: WIDTH, order: Order::Units, ..side };
                let (mut packed, mut panels) = (vec![u32::MAX; units * HEIGHT], vec![u32::MAX; units * WIDTH]);
                // Rows as attention has them: of whole units, some way apart, what lies behind them no number.
                let stride = units + 3;
                let mut plain = vec![u32::MAX; rows * stride];
                for row in 0..rows {
                    for (i, half) in left[row * inner..][..inner].iter().enumerate() {
                        let word = &mut plain[row * stride + i / 2];
                        *word = if i % 2 == 0 { u32::from(*half) } else { *word | u32::from(*half) << 16 };
                    }
                }
                let from: Vec<f32> = (0..rows * WIDTH).map(|i| (i % 1000) as f32).collect();
                // SAFETY: sources and targets have the sizes that the packing and the tile name; the model needs no instructions.
                unsafe {
                    side.rows(Isa::Plain, packed.as_mut_ptr());
                    panel.rows(Isa::Plain, panels.as_mut_ptr());
                    for from in [None, Some(&from[..])] {
                        let expected = expected(&left, &right, from, rows, inner);
                        for (left, left_stride) in [(packed.as_ptr(), 0), (plain.as_ptr(), stride)] {
                            let mut to = vec![f32::NAN; rows * WIDTH];
                            let pointer = from.map_or(std::ptr::null(), <[f32]>::as_ptr);
                            let (right, from, from_stride) = (panels.as_ptr(), pointer, WIDTH);
                            let tile = Tile { units, left, left_stride, right, from, from_stride, to: to.as_mut_ptr(), to_stride: WIDTH };
                            product::<Model>(rows, &tile);
                            assert_eq!(to, expected, "{rows} rows of {inner}, {left_stride}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn packing_in_registers_is_packing_one_by_one() {
        if !Isa::Avx512Bf16.is_available() {
            return;
        }
        for (lanes, inner) in [(1, 1), (5, 33), (16, 32), (33, 70), (64, 31), (70, 256)] {
            let halves = whole(lanes * inner, 3);
            let floats: Vec<f32> = halves.iter().map(|half| widen_half(*half) + 0.003).collect();
            for source in [Source::Bf16(halves.as_ptr()), Source::F32(floats.as_ptr())] {
                let mut results = Vec::new();
                for isa in [Isa::Plain, Isa::Avx512Bf16] {
                    for columns in [false, true] {
                        let stride = if columns { lanes } else { inner };
                        let (unit, order) = (Unit::Pair, Order::Lanes);
                        let packing = Packing { unit, source, stride, lanes, inner, width: HEIGHT, order };
                        let mut to = vec![u32::MAX; inner.div_ceil(2) * lanes.next_multiple_of(HEIGHT)];
                        // SAFETY: source and target have the sizes that the packing names.
                        unsafe { if columns { packing.columns(isa, to.as_mut_ptr()) } else { packing.rows(isa, to.as_mut_ptr()) } }
                        results.push(to);
                    }
                }
                assert_eq!((&results[0], &results[1]), (&results[2], &results[3]), "{lanes} {inner}");
            }
        }
    }

    #[test]
    fn linear_layers_are_exact() {
        check_layers(1);
    }

    #[test]
    fn linear_layers_are_exact_on_threads() {
        (2..=3).for_each(check_layers);
    }

    fn check_layers(threads: usize) {
        for (m, n, k) in [(1, 1, 1), (5, 33, 7), (13, 70, 31), (32, 64, 64), (37, 129, 513), (530, 40, 19), (1100, 35, 67)] {
            let (x, w, dy) = (whole(m * k, 1), whole(n * k, 2), whole(m * n, 3));
            let residual: Vec<f32> = (0..m * n).map(|i| (i % 100) as f32).collect();
            let at = |values: &[u16], i: usize| widen_half(values[i]);
            let mut all = [residual.clone(), vec![0.0; m * k], vec![1.0; n * k]];
            for i in 0..m {
                for o in 0..n {
                    for j in 0..k {
                        all[0][i * n + o] += at(&x, i * k + j) * at(&w, o * k + j);
                        all[1][i * k + j] += at(&dy, i * n + o) * at(&w, o * k + j);
                        all[2][o * k + j] += at(&dy, i * n + o) * at(&x, i * k + j);
                    }
                }
            }
            let Some(cpu) = Cpu::with_tiles(threads) else { return };
            let bf16 = Precision::Bf16;
            let [xm, wm, dym] = [(&x, m, k), (&w, n, k), (&dy, m, n)].map(|(v, rows, columns)| Matrix::bf16(v, rows, columns).unwrap());
            let (mut y, mut dx, mut dw) = (vec![f32::NAN; m * n], vec![f32::NAN; m * k], vec![1.0; n * k]);
            linear_forward(&cpu, bf16, xm, Weights::Plain(wm), Some(&residual), &mut y).unwrap();
            linear_backward_input(&cpu, bf16, dym, Weights::Plain(wm), &mut dx).unwrap();
            linear_backward_weights(&cpu, bf16, dym, xm, true, &mut dw).unwrap();
            assert!([y, dx, dw] == all, "{m} {n} {k}, {threads} threads");
        }
    }
}
