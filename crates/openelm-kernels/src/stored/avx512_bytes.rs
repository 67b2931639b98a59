//! The product of activations in 8 bits with blocks of 32 weights in AVX-512 with dot products of bytes: unpacking and the innermost product.

use std::arch::x86_64::*;

use super::avx512_blocks::Blocks512;
use super::byte_product::{Panel, STRIP, Side, WIDTH};
use super::prepared::BLOCK;
use crate::simd::held_back;

/// Rows of a tile: with two registers of columns, sums and products take 24 of the 32 registers.
pub(super) const HEIGHT: usize = 6;

/// One row's levels in order, and its scales and offsets, [`STRIP`] apart.
///
/// # Safety
/// Needs AVX-512; the row has `begin + inner` columns; the targets have room.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn unpack_row<B: Blocks512>(
    bytes: *const u8,
    begin: usize,
    inner: usize,
    to: *mut u8,
    scales: *mut f32,
    offsets: *mut f32,
) {
    let mut column = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while column < inner {
            let at = bytes.add((begin + column) / B::WEIGHTS * B::BYTES);
            let block = column / BLOCK;
            if inner - column < 64 {
                let chunk = B::chunk::<true>(at, B::head::<true>(at), 0);
                _mm256_storeu_si256(to.add(column).cast(), _mm512_castsi512_si256(chunk.levels));
                *scales.add(block * STRIP) = _mm512_cvtss_f32(chunk.scales);
                *offsets.add(block * STRIP) = _mm512_cvtss_f32(chunk.offsets);
                return;
            }
            let head = B::head::<false>(at);
            for index in 0..B::WEIGHTS / 64 {
                let chunk = B::chunk::<false>(at, head, index);
                let (column, block) = (column + 64 * index, block + 2 * index);
                _mm512_storeu_si512(to.add(column).cast(), chunk.levels);
                *scales.add(block * STRIP) = _mm512_cvtss_f32(chunk.scales);
                *offsets.add(block * STRIP) = _mm512_cvtss_f32(chunk.offsets);
                *scales.add((block + 1) * STRIP) = _mm_cvtss_f32(_mm512_extractf32x4_ps::<2>(chunk.scales));
                *offsets.add((block + 1) * STRIP) = _mm_cvtss_f32(_mm512_extractf32x4_ps::<2>(chunk.offsets));
            }
            column += B::WEIGHTS;
        }
    }
}

/// Adds the products of a tile of tokens and a panel to `to`, whose rows are [`STRIP`] apart. All weights share a zero level unless there are
/// `OFFSETS`; `RUNS`, the scales of every 32, is 1.
///
/// # Safety
/// Needs AVX-512 VNNI; both sides hold the panel's blocks.
// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn tile_product<const ROWS: usize, const RUNS: usize, const OFFSETS: bool>(side: &Side, panel: &Panel, to: *mut f32) {
    debug_assert_eq!(RUNS, 1, "scales of 32");
    let Panel { blocks, scales, offsets, .. } = *panel;
    let zero = panel.zero.unwrap_or(0);
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for row in 0..ROWS {
            for half in 0..2 {
                sums[row][half] = _mm512_loadu_ps(to.add(row * STRIP + 16 * half));
            }
        }
        let (mut levels, mut x) = (panel.levels, side.levels);
        for block in 0..blocks {
            let mut products = [[_mm512_setzero_si512(); 2]; ROWS];
            if !OFFSETS {
                // Levels stand above a common zero: its share is taken away at once.
                for row in 0..ROWS {
                    let share = _mm512_set1_epi32(-zero * *side.totals.add(row * side.per_row + block));
                    products[row] = [share; 2];
                }
            }
            (levels, x) = add_products::<ROWS>(&mut products, BLOCK / 4, levels, x, side.columns);
            for half in 0..2 {
                let scale = _mm512_loadu_ps(scales.add(block * STRIP + 16 * half));
                for row in 0..ROWS {
                    let own = _mm512_set1_ps(*side.scales.add(row * side.per_row + block));
                    let factor = _mm512_mul_ps(scale, own);
                    sums[row][half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[row][half]), factor, sums[row][half]);
                    if OFFSETS {
                        let offset = _mm512_loadu_ps(offsets.add(block * STRIP + 16 * half));
                        let own = _mm512_set1_ps(*side.sums.add(row * side.per_row + block));
                        sums[row][half] = _mm512_fmadd_ps(offset, own, sums[row][half]);
                    }
                }
            }
        }
        for row in 0..ROWS {
            for half in 0..2 {
                _mm512_storeu_ps(to.add(row * STRIP + 16 * half), sums[row][half]);
            }
        }
    }
}

/// Adds the products of `groups` of 4 levels of two registers of columns with those of each row of activations, which stand `columns` apart;
/// gives where the next ones stand.
///
/// # Safety
/// Needs AVX-512 VNNI; both sides hold the groups.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(super) unsafe fn add_products<const ROWS: usize>(
    products: &mut [[__m512i; 2]; ROWS],
    groups: usize,
    mut levels: *const u32,
    mut x: *const i8,
    columns: usize,
) -> (*const u32, *const i8) {
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..groups {
            let weights = [_mm512_loadu_si512(levels.cast()), _mm512_loadu_si512(levels.add(16).cast())];
            for row in 0..ROWS {
                let four = _mm512_set1_epi32(x.add(row * columns).cast::<i32>().read_unaligned());
                for half in 0..2 {
                    products[row][half] = _mm512_dpbusd_epi32(products[row][half], weights[half], four);
                }
            }
            (levels, x) = held_back(levels.add(WIDTH), x.add(4));
        }
    }
    (levels, x)
}
