//! The product of activations in 8 bits with quantised weights in AVX2: unpacking and the innermost product.
//!
//! What must stay true: no sum of pairs leaves 16 bits, whatever a file says: levels of 4, 5 and 6 bits are added 8, 4 and 2 pairs deep. Signed
//! ones of 8 bits (128 · 127 twice) could not be added at all: they are multiplied in 16 bits.

use std::arch::x86_64::*;

use openelm_formats::DType;

use super::avx2_blocks::Blocks256;
use super::avx2_steps::StepSums;
use super::avx512_steps::{offsets_of, unpack_minima};
use super::byte_product::{Panel, STRIP, Side, WIDTH};
use super::dot256::pinned;
use super::matrix::StoredRows;
use super::prepared::{BLOCK, STEP};
use crate::simd::held_back;

/// Rows of a tile: with two registers of columns, sums of pairs and products take 12 of the 16 registers.
pub(super) const HEIGHT: usize = 3;
/// The same in 16 bits, where there are no sums of pairs.
pub(super) const WIDE_HEIGHT: usize = 6;

/// How many products of pairs may be added in 16 bits: 1 where levels are signed, and are multiplied in 16 bits.
pub(super) fn depth(rows: &StoredRows<'_>) -> usize {
    let of = |dtype| match dtype {
        DType::Q4_0 | DType::Q4_1 | DType::Q4_K | DType::Affine4 => 8,
        DType::Q5_0 | DType::Q5_1 | DType::Q5_K => 4,
        DType::Q6_K => 2,
        _ => 1,
    };
    of(rows.first.dtype).min(rows.second.map_or(8, |second| of(second.dtype)))
}

/// How a row is unpacked.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Signed levels are put above a zero of 128.
    pub(super) above: bool,
    /// Offsets are those of [`avx512_steps`](super::avx512_steps).
    pub(super) steps: bool,
    /// Levels have 16 bits.
    pub(super) wide: bool,
}

/// One row's levels in order, and its scales and offsets, [`STRIP`] apart.
///
/// # Safety
/// Needs AVX2, FMA and F16C; the row has `begin + inner` columns, `begin` a multiple of 256 and `inner` of 32; the targets have room.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn unpack_row<B: Blocks256>(
    bytes: *const u8,
    begin: usize,
    inner: usize,
    form: Form,
    to: *mut u8,
    scales: *mut f32,
    offsets: *mut f32,
) {
    let zero = if form.above && B::SIGNED { 128 } else { 0 };
    // SAFETY: the caller's promise.
    unsafe {
        for column in (0..inner).step_by(STEP) {
            let at = bytes.add((begin + column) / STEP * B::BYTES);
            let blocks = (STEP / BLOCK).min((inner - column) / BLOCK);
            let mut lanes = [0.0_f32; 16];
            for (half, factors) in B::lanes(at, blocks).into_iter().enumerate() {
                _mm256_storeu_ps(lanes.as_mut_ptr().add(8 * half), factors);
            }
            if form.steps && !B::FINE {
                unpack_minima(at, offsets_of(offsets, column / STEP).cast_mut());
            }
            for index in 0..blocks {
                let block = column / BLOCK + index;
                let levels = _mm256_xor_si256(B::levels(at, index), _mm256_set1_epi8(zero as i8));
                if form.wide {
                    let words = [_mm256_castsi256_si128(levels), _mm256_extracti128_si256::<1>(levels)];
                    for (half, levels) in words.into_iter().enumerate() {
                        _mm256_storeu_si256(to.add((2 * block + half) * BLOCK).cast(), _mm256_cvtepi8_epi16(levels));
                    }
                } else {
                    _mm256_storeu_si256(to.add(block * BLOCK).cast(), levels);
                }
                if B::FINE {
                    *scales.add(2 * block * STRIP) = lanes[2 * index];
                    *scales.add((2 * block + 1) * STRIP) = lanes[2 * index + 1];
                } else {
                    *scales.add(block * STRIP) = lanes[index];
                    if form.steps {
                        continue;
                    }
                    *offsets.add(block * STRIP) = lanes[8 + index] * B::OFFSET - lanes[index] * zero as f32;
                }
            }
        }
    }
}

/// Adds the products of a tile of tokens and a panel to `to`, whose rows are [`STRIP`] apart. `DEPTH` is what [`depth`] gives; with
/// `OFFSETS` the weights have offsets, else a zero level in common.
///
/// # Safety
/// Needs AVX2 and FMA; both sides hold the panel's blocks.
// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_product<const ROWS: usize, const DEPTH: usize, const OFFSETS: bool>(side: &Side, panel: &Panel, to: *mut f32) {
    let zero = panel.zero.unwrap_or(0);
    // Levels of 6 bits come with two scales for every 32.
    let runs = if DEPTH == 2 { 2 } else { 1 };
    let mut sums = StepSums::<ROWS>::zero();
    // Known to the compiler, the sums would be moved between registers and memory in every block.
    let sums = std::hint::black_box(&mut sums);
    // SAFETY: the caller's promise.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        for part in (0..WIDTH).step_by(16) {
            let (mut levels, mut x, mut words) = (panel.levels.add(part), side.levels, side.words);
            for run in 0..panel.blocks * runs {
                let mut products = [[_mm256_setzero_si256(); 2]; ROWS];
                if !OFFSETS {
                    for row in 0..ROWS {
                        products[row] = [_mm256_set1_epi32(-zero * *side.totals.add(row * side.per_row * runs + run)); 2];
                    }
                }
                let (of_words, of_bytes) = if DEPTH == 1 { (BLOCK / 2, 0) } else { (0, BLOCK / runs / 4 / DEPTH) };
                for _ in 0..of_words {
                    let weights = [_mm256_loadu_si256(levels.cast()), _mm256_loadu_si256(levels.add(8).cast())];
                    for row in 0..ROWS {
                        let two = _mm256_set1_epi32(words.add(row * side.columns).cast::<i32>().read_unaligned());
                        for half in 0..2 {
                            products[row][half] = pinned(_mm256_add_epi32(products[row][half], _mm256_madd_epi16(weights[half], two)));
                        }
                    }
                    (levels, words) = held_back(levels.add(WIDTH), words.add(2));
                }
                for _ in 0..of_bytes {
                    let mut pairs = [[_mm256_setzero_si256(); 2]; ROWS];
                    for _ in 0..DEPTH {
                        let weights = [_mm256_loadu_si256(levels.cast()), _mm256_loadu_si256(levels.add(8).cast())];
                        for row in 0..ROWS {
                            let four = _mm256_set1_epi32(x.add(row * side.columns).cast::<i32>().read_unaligned());
                            for half in 0..2 {
                                pairs[row][half] = pinned(_mm256_add_epi16(pairs[row][half], _mm256_maddubs_epi16(weights[half], four)));
                            }
                        }
                        (levels, x) = held_back(levels.add(WIDTH), x.add(4));
                    }
                    for row in 0..ROWS {
                        for half in 0..2 {
                            products[row][half] = _mm256_add_epi32(products[row][half], _mm256_madd_epi16(pairs[row][half], ones));
                        }
                    }
                }
                match runs {
                    1 => add_run::<ROWS, 1, OFFSETS>(&products, side, panel, run, part, sums, to.add(part)),
                    _ => add_run::<ROWS, 2, OFFSETS>(&products, side, panel, run, part, sums, to.add(part)),
                }
            }
        }
    }
}

/// Adds the whole sums of the `run`-th run of weights that share scales, `RUNS` of which are 32 weights, to those of the columns `part` to `part` +
/// 15 in `to`, or first to the sums of its step: also for AVX-VNNI.
///
/// # Safety
/// Needs AVX2 and FMA; the run and the columns lie in the panel, `to` are those of the columns.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) unsafe fn add_run<const ROWS: usize, const RUNS: usize, const OFFSETS: bool>(
    products: &[[__m256i; 2]; ROWS],
    side: &Side,
    panel: &Panel,
    run: usize,
    part: usize,
    sums: &mut StepSums<ROWS>,
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (block, scales) = (run / RUNS, panel.scales.add(run * STRIP + part));
        if !panel.steps {
            let offsets = panel.offsets.wrapping_add(block * STRIP + part);
            return add_scaled::<ROWS, OFFSETS>(products, side, block, scales, offsets, to);
        }
        sums.add(products, scales);
        if (run + 1).is_multiple_of(STEP / BLOCK * RUNS) {
            let step = block / (STEP / BLOCK);
            sums.finish::<OFFSETS>(side, step, offsets_of(panel.offsets, step).wrapping_add(part), to);
        }
    }
}

/// Adds the whole sums of a run of weights that share scales, scaled, to 16 columns of `to`, whose rows are [`STRIP`] apart.
///
/// # Safety
/// Needs AVX2 and FMA; the pointers reach 16 columns, `offsets` with `OFFSETS` alone.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_scaled<const ROWS: usize, const OFFSETS: bool>(
    products: &[[__m256i; 2]; ROWS],
    side: &Side,
    block: usize,
    scales: *const f32,
    offsets: *const f32,
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for half in 0..2 {
            let scale = _mm256_loadu_ps(scales.add(8 * half));
            for row in 0..ROWS {
                let at = to.add(row * STRIP + 8 * half);
                let factor = _mm256_mul_ps(scale, _mm256_set1_ps(*side.scales.add(row * side.per_row + block)));
                let mut sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[row][half]), factor, _mm256_loadu_ps(at));
                if OFFSETS {
                    let offset = _mm256_loadu_ps(offsets.add(8 * half));
                    sum = _mm256_fmadd_ps(offset, _mm256_set1_ps(*side.sums.add(row * side.per_row + block)), sum);
                }
                _mm256_storeu_ps(at, sum);
            }
        }
    }
}
