//! The product of activations in 8 bits with quantised weights in AVX-VNNI: AVX-512's in registers half as wide.
//!
//! What must stay true: levels are unsigned. Where they have signs elsewhere, they stand above a zero of 128.

use std::arch::x86_64::*;

use super::avx2_bytes::add_run;
use super::avx2_steps::StepSums;
use super::byte_product::{Panel, Side, WIDTH};
#[cfg(test)]
use super::dot256::LongFours;
use super::dot256::{Dot256, Fours, pinned};
use super::prepared::BLOCK;
use crate::simd::held_back;

/// Rows of a tile: with two registers of columns, products take 12 of the 16 registers.
pub(super) const HEIGHT: usize = 6;

/// Adds the products of a tile of tokens and a panel to `to`, whose rows are [`STRIP`] apart. With `RUNS` scales for every 32 weights, and
/// a zero level that all weights share unless there are `OFFSETS`.
///
/// # Safety
/// Needs AVX-VNNI and FMA; both sides hold the panel's blocks.
pub(super) unsafe fn tile_product<const ROWS: usize, const RUNS: usize, const OFFSETS: bool>(side: &Side, panel: &Panel, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(test)]
        if !is_x86_feature_detected!("avxvnni") {
            return long_fours::<ROWS, RUNS, OFFSETS>(side, panel, to);
        }
        fours::<ROWS, RUNS, OFFSETS>(side, panel, to);
    }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn fours<const ROWS: usize, const RUNS: usize, const OFFSETS: bool>(side: &Side, panel: &Panel, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { body::<Fours, ROWS, RUNS, OFFSETS>(side, panel, to) }
}

#[cfg(test)]
#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512vnni")]
unsafe fn long_fours<const ROWS: usize, const RUNS: usize, const OFFSETS: bool>(side: &Side, panel: &Panel, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { body::<LongFours, ROWS, RUNS, OFFSETS>(side, panel, to) }
}

// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn body<D: Dot256, const ROWS: usize, const RUNS: usize, const OFFSETS: bool>(side: &Side, panel: &Panel, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = panel.zero.unwrap_or(0);
        let mut sums = StepSums::<ROWS>::zero();
        // Known to the compiler, the sums would be moved between registers and memory in every block.
        let sums = std::hint::black_box(&mut sums);
        for part in (0..WIDTH).step_by(16) {
            let (mut levels, mut x) = (panel.levels.add(part), side.levels);
            for run in 0..panel.blocks * RUNS {
                let mut products = [[_mm256_setzero_si256(); 2]; ROWS];
                if !OFFSETS {
                    // Levels stand above a common zero: its share is taken away at once.
                    for row in 0..ROWS {
                        products[row] = [_mm256_set1_epi32(-zero * *side.totals.add(row * side.per_row * RUNS + run)); 2];
                    }
                }
                for _ in 0..BLOCK / RUNS / 4 {
                    let weights = [_mm256_loadu_si256(levels.cast()), _mm256_loadu_si256(levels.add(8).cast())];
                    for row in 0..ROWS {
                        let four = _mm256_set1_epi32(x.add(row * side.columns).cast::<i32>().read_unaligned());
                        for half in 0..2 {
                            products[row][half] = pinned(D::add(products[row][half], weights[half], four));
                        }
                    }
                    (levels, x) = held_back(levels.add(WIDTH), x.add(4));
                }
                add_run::<ROWS, RUNS, OFFSETS>(&products, side, panel, run, part, sums, to.add(part));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openelm_formats::{DType, encode_f32};

    use crate::{Cpu, Isa, StoredMatrix, StoredRows, Threads, stored_linear};

    #[test]
    fn products_by_fours_are_products_in_pairs() {
        let Ok(fours) = Cpu::new(Isa::AvxVnni, Threads::new(1).unwrap()) else { return };
        let pairs = Cpu::new(Isa::Avx2, Threads::new(1).unwrap()).unwrap();
        // Now and then a block of equal size, whose levels are the greatest, of one sign or of both.
        let value = |i: usize| match i / 32 % 4 {
            0 => 0.7,
            1 => -0.7 + 1.4 * (i % 2) as f32,
            _ => ((i * i % 1013) as f32 * 0.013).sin() * (1.0 + (i / 32 % 7) as f32) * 0.05 + 0.003,
        };
        for dtype in DType::QUANTISED {
            for (tokens, rows, columns) in [(1, 9, 288), (3, 5, 96), (8, 3, 544), (9, 33, 96), (17, 70, 512), (13, 31, 1056)] {
                let columns = usize::next_multiple_of(columns, dtype.block_len());
                let weights: Vec<f32> = (0..rows * columns).map(value).collect();
                let bytes = encode_f32(&weights, dtype).unwrap();
                let stored = StoredRows::from(StoredMatrix::new(dtype, &bytes, rows, columns).unwrap());
                let x: Vec<f32> = (0..tokens * columns).map(|i| value(3 * i + 64)).collect();
                let [by_fours, in_pairs] = [&fours, &pairs].map(|cpu| {
                    let mut y = vec![f32::NAN; tokens * rows];
                    stored_linear(cpu, &x, &stored, &mut y).unwrap();
                    y
                });
                // Levels of 8 bits with a minimum stand above another zero in each, where there are many tokens.
                let bound = if dtype == DType::Affine8 && tokens > 8 { 3e-6 } else { 0.0 };
                let largest = in_pairs.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                for (i, (by_fours, in_pairs)) in by_fours.iter().zip(&in_pairs).enumerate() {
                    let apart = (by_fours - in_pairs).abs();
                    assert!(apart <= bound * largest, "{dtype} {tokens}x{rows}x{columns}, {i}: {by_fours} {in_pairs}");
                }
            }
        }
        println!("avx-vnni: products by fours and in pairs agree");
    }
}
