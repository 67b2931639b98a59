//! The product of activations in 8 bits with quantised weights in AMX tiles. Every block of 32 columns has a scale, so each is a product of
//! its own, two by two tiles of whole sums, which AVX-512 scales and adds to the others.
//!
//! Both sides are loaded from where they stand: activations 32 bytes a row, levels from the panel that dot products of bytes read, whose
//! rows [group of 4] are a tile's.
//!
//! What must stay true: sums are those of AVX-512's dot products to the bit. Whole sums are exact, and the operations behind them are the
//! same in the same order.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::avx512_steps::{finish, offsets_of};
use super::byte_product::{Panel, STRIP, Side, WIDTH};
use super::prepared::{BLOCK, STEP};
use crate::amx::{Hardware, SIDE, Shapes, Tiles};

/// Rows of a product.
pub(super) const HEIGHT: usize = 2 * SIDE;
/// Groups of 4 of a block: words of a left tile's rows, and rows of a right tile.
const GROUPS: usize = BLOCK / 4;
const WORD: usize = 4;

/// A block's whole sums.
#[repr(C, align(64))]
struct Products([[i32; WIDTH]; HEIGHT]);

/// Sums of 8 blocks, whose activations share a scale, without it.
#[repr(C, align(64))]
struct Steps([[f32; WIDTH]; HEIGHT]);

/// Adds the products of `rows` tokens with a panel to `to`, whose rows are [`STRIP`] apart. In tests the registers are the model's where
/// the processor has none.
///
/// # Safety
/// Needs AMX and AVX-512, 1 to 32 rows, at least one block, and pointers that reach as far as these say.
pub(super) unsafe fn tile_product(rows: usize, side: &Side, panel: &Panel, to: *mut f32) {
    debug_assert!((1..=HEIGHT).contains(&rows) && panel.blocks > 0, "{rows} rows, {} blocks in a tile", panel.blocks);
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(test)]
        if !crate::amx::is_available() {
            return by_shape::<crate::amx::Model>(rows, side, panel, to);
        }
        by_shape::<Hardware>(rows, side, panel, to);
    }
}

#[inline(always)]
unsafe fn by_shape<T: Tiles>(rows: usize, side: &Side, panel: &Panel, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match (rows > SIDE, panel.zero) {
            (false, Some(zero)) => body::<T, false, false>(rows, side, panel, zero, to),
            (false, None) => body::<T, false, true>(rows, side, panel, 0, to),
            (true, Some(zero)) => body::<T, true, false>(rows, side, panel, zero, to),
            (true, None) => body::<T, true, true>(rows, side, panel, 0, to),
        }
    }
}

/// Tiles 0 to 3 hold the sums, 4 and 5 the upper and lower activations, 6 and 7 the first and last columns' levels. Without `LOWER` rows
/// their tiles are not configured.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn body<T: Tiles, const LOWER: bool, const OFFSETS: bool>(rows: usize, side: &Side, panel: &Panel, zero: i32, to: *mut f32) {
    let mut tiles = T::default();
    let upper = rows.min(SIDE);
    let lower = rows - upper;
    let (sums, left, right) = ([(upper, SIDE), (lower, SIDE)], [(upper, GROUPS), (lower, GROUPS)], (GROUPS, SIDE));
    // A block's tiles are on their way while the last one's sums are scaled.
    let mut products = MaybeUninit::<[Products; 2]>::uninit();
    let products: *mut Products = products.as_mut_ptr().cast();
    let mut steps = MaybeUninit::<Steps>::uninit();
    let steps: *mut f32 = steps.as_mut_ptr().cast();
    // SAFETY: the caller's promise. The sums of `rows` tokens are written before they are read.
    unsafe {
        tiles.configure(&Shapes::of_words([sums[0], sums[0], sums[1], sums[1], left[0], left[1], right, right]));
        multiply::<T, LOWER>(&mut tiles, side, panel, 0, products);
        for block in 0..panel.blocks {
            if block + 1 < panel.blocks {
                multiply::<T, LOWER>(&mut tiles, side, panel, block + 1, products.add((block + 1) % 2));
            }
            let products = products.add(block % 2).cast();
            if OFFSETS && panel.steps {
                scale_step(rows, side, panel, block, products, steps, to);
            } else {
                scale::<OFFSETS>(rows, side, panel, zero, block, products, to);
            }
        }
        tiles.release();
    }
}

/// Stores the whole sums of one block.
#[inline(always)]
unsafe fn multiply<T: Tiles, const LOWER: bool>(tiles: &mut T, side: &Side, panel: &Panel, block: usize, to: *mut Products) {
    // SAFETY: the caller's promise.
    unsafe {
        let (left, stride) = (side.levels.add(block * BLOCK).cast::<u8>(), side.columns);
        let right = panel.levels.add(block * GROUPS * WIDTH);
        let to = to.cast::<i32>();
        tiles.load::<6>(right.cast(), WORD * WIDTH);
        tiles.load::<4>(left, stride);
        tiles.load::<7>(right.add(SIDE).cast(), WORD * WIDTH);
        tiles.zero::<0>();
        tiles.multiply_bytes::<0, 4, 6>();
        tiles.zero::<1>();
        tiles.multiply_bytes::<1, 4, 7>();
        if LOWER {
            tiles.load::<5>(left.add(SIDE * stride), stride);
            tiles.zero::<2>();
            tiles.multiply_bytes::<2, 5, 6>();
            tiles.zero::<3>();
            tiles.multiply_bytes::<3, 5, 7>();
        }
        tiles.store::<0>(to.cast(), WORD * WIDTH);
        tiles.store::<1>(to.add(SIDE).cast(), WORD * WIDTH);
        if LOWER {
            tiles.store::<2>(to.add(SIDE * WIDTH).cast(), WORD * WIDTH);
            tiles.store::<3>(to.add(SIDE * WIDTH + SIDE).cast(), WORD * WIDTH);
        }
    }
}

/// Adds one block's whole sums, scaled, to the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn scale<const OFFSETS: bool>(rows: usize, side: &Side, panel: &Panel, zero: i32, block: usize, products: *const i32, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let halves = |from: *const f32| [0, 16].map(|half| _mm512_loadu_ps(from.add(block * STRIP + half)));
        let scales = halves(panel.scales);
        let offsets = if OFFSETS { halves(panel.offsets) } else { [_mm512_setzero_ps(); 2] };
        for row in 0..rows {
            let at = row * side.per_row + block;
            let own = _mm512_set1_ps(*side.scales.add(at));
            for half in 0..2 {
                let mut products = _mm512_load_si512(products.add(row * WIDTH + 16 * half).cast());
                if !OFFSETS {
                    // Levels stand above a common zero: its share is taken away.
                    products = _mm512_sub_epi32(products, _mm512_set1_epi32(zero * *side.totals.add(at)));
                }
                let to = to.add(row * STRIP + 16 * half);
                let factor = _mm512_mul_ps(scales[half], own);
                let mut sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), factor, _mm512_loadu_ps(to));
                if OFFSETS {
                    sum = _mm512_fmadd_ps(offsets[half], _mm512_set1_ps(*side.sums.add(at)), sum);
                }
                _mm512_storeu_ps(to, sum);
            }
        }
    }
}

/// Adds one block's whole sums, with the scales of the weights, to those of its 8 in `sums`; behind the last of them these are added to the
/// others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn scale_step(rows: usize, side: &Side, panel: &Panel, block: usize, products: *const i32, sums: *mut f32, to: *mut f32) {
    let (step, index) = (block / (STEP / BLOCK), block % (STEP / BLOCK));
    // SAFETY: the caller's promise; the first block of 8 writes what the others read.
    unsafe {
        for half in 0..2 {
            let scale = _mm512_loadu_ps(panel.scales.add(block * STRIP + 16 * half));
            let offsets = offsets_of(panel.offsets, step).add(16 * half);
            for row in 0..rows {
                let at = row * WIDTH + 16 * half;
                let before = if index == 0 { _mm512_setzero_ps() } else { _mm512_load_ps(sums.add(at)) };
                let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(products.add(at).cast())), scale, before);
                match index + 1 < STEP / BLOCK {
                    true => _mm512_store_ps(sums.add(at), sum),
                    false => finish::<true>(sum, side, row, step, offsets, to.add(row * STRIP + 16 * half)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openelm_formats::{DType, encode_f32};

    use crate::{Cpu, Isa, StoredMatrix, StoredRows, Threads, stored_linear};

    /// Values of every size; now and then a block of equal size, whose levels are the greatest, of one sign or of both.
    fn value(i: usize) -> f32 {
        let (block, odd) = (i / 32, (i * i).is_multiple_of(3));
        match block % 5 {
            0 => 0.7,
            1 => -0.7,
            2 if odd => -0.3,
            2 => 0.3,
            _ => ((i * i % 1013) as f32 * 0.013).sin() * (1.0 + (block % 7) as f32) * 0.05 + 0.003,
        }
    }

    fn check(threads: usize, shapes: &[(usize, usize, usize)]) {
        let Some(tiles) = Cpu::with_tiles(threads) else { return };
        let dots = Cpu::new(Isa::Avx512Bf16, Threads::new(threads).unwrap()).unwrap();
        let types = DType::QUANTISED.into_iter().filter(|dtype| *dtype != DType::Q6_K).collect::<Vec<_>>();
        for (index, &dtype) in types.iter().enumerate() {
            // A second part of its own type, and of another.
            for second in [dtype, types[(index + 1) % types.len()]] {
                for &(tokens, rows, columns) in shapes {
                    let columns = columns.next_multiple_of(dtype.block_len().max(second.block_len()));
                    let values: Vec<f32> = (0..rows * columns).map(value).collect();
                    let split = rows / 3;
                    let (above, below) = values.split_at(split * columns);
                    let (above, below) = (encode_f32(above, dtype).unwrap(), encode_f32(below, second).unwrap());
                    let above = StoredMatrix::new(dtype, &above, split, columns).unwrap();
                    let below = StoredMatrix::new(second, &below, rows - split, columns).unwrap();
                    let stored = StoredRows::new(above, Some(below)).unwrap();
                    let x: Vec<f32> = (0..tokens * columns).map(|i| value(3 * i + 64)).collect();
                    let [on_tiles, elsewhere] = [&tiles, &dots].map(|cpu| {
                        let mut y = vec![f32::NAN; tokens * rows];
                        stored_linear(cpu, &x, &stored, &mut y).unwrap();
                        y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    });
                    assert!(on_tiles == elsewhere, "{dtype} and {second}, {tokens}x{rows}x{columns}");
                }
            }
        }
    }

    #[test]
    fn tiles_of_bytes_give_what_dot_products_give() {
        check(1, &[(9, 33, 96), (16, 5, 544), (17, 70, 512), (33, 31, 1056)]);
        println!("tiles: products of bytes and dot products agree");
    }

    #[test]
    fn tiles_of_bytes_give_what_dot_products_give_on_threads() {
        check(2, &[(31, 130, 32), (32, 34, 2048), (64, 65, 640), (75, 97, 1280)]);
    }
}
