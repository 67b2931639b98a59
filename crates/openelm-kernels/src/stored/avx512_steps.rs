//! The product of activations in 8 bits with blocks of 256 weights in AVX-512 with dot products of bytes: unpacking and the innermost
//! product. All activations of a block share a scale, so that it is met once, and minima are added up as whole numbers.
//!
//! What must stay true: a minimum has 6 bits and the sum of 32 levels 13, so that their products, two by two, stay within 32 bits.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::avx512_blocks::{Blocks512, k_minima};
use super::avx512_bytes::add_products;
use super::byte_product::{FINE, Panel, STRIP, Side, WIDTH};
use super::prepared::{BLOCK, STEP};

/// Pairs of minima of a block: its first rows of offsets, with what they are to be multiplied with in the next.
pub(super) const PAIRS: usize = STEP / BLOCK / 2;

/// The offsets of a block, among those of a panel: as many rows as it has scales of 32 weights.
#[inline(always)]
pub(super) fn offsets_of(offsets: *const f32, step: usize) -> *const f32 {
    offsets.wrapping_add(step * STEP / BLOCK * STRIP)
}

/// One row's levels in order, its scales, and, unless 16 weights share one, pairs of minima and their factor, all [`STRIP`] apart.
///
/// # Safety
/// Needs AVX-512; `begin` and `inner` are multiples of 256, the row has `begin + inner` columns; the targets have room.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn unpack_row<B: Blocks512>(
    bytes: *const u8,
    begin: usize,
    inner: usize,
    to: *mut u8,
    scales: *mut f32,
    offsets: *mut f32,
) {
    let runs = STEP / if B::FINE { FINE } else { BLOCK };
    // SAFETY: the caller's promise.
    unsafe {
        for step in 0..inner / STEP {
            let at = bytes.add((begin / STEP + step) * B::BYTES);
            let mut all = [0.0; STEP / FINE];
            _mm512_storeu_ps(all.as_mut_ptr(), B::lanes(at, STEP / BLOCK));
            for (run, scale) in all.into_iter().enumerate().take(runs) {
                *scales.add((step * runs + run) * STRIP) = scale;
            }
            if !B::FINE {
                unpack_minima(at, offsets_of(offsets, step).cast_mut());
            }
            let head = B::head::<false>(at);
            for index in 0..STEP / 64 {
                _mm512_storeu_si512(to.add(step * STEP + 64 * index).cast(), B::chunk::<false>(at, head, index).levels);
            }
        }
    }
}

/// The pairs of minima of a block of Q4_K or Q5_K and their factor, [`STRIP`] apart.
///
/// # Safety
/// Needs AVX2 and F16C; `at` holds the block, `to` has room.
#[inline(always)]
pub(super) unsafe fn unpack_minima(at: *const u8, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let (minima, factor) = k_minima(at);
        let mut pairs = [0_u32; PAIRS];
        _mm_storeu_si128(pairs.as_mut_ptr().cast(), minima);
        for (number, pair) in pairs.into_iter().enumerate() {
            *to.add(number * STRIP).cast() = pair;
        }
        *to.add(PAIRS * STRIP) = factor;
    }
}

/// Adds the products of a tile of tokens and a panel to `to`, whose rows are [`STRIP`] apart. With `RUNS` scales for every 32 weights, and
/// `MINIMA` or a zero level that all weights share.
///
/// # Safety
/// Needs AVX-512 VNNI; both sides hold the panel's blocks, a multiple of 8.
// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn tile_product<const ROWS: usize, const RUNS: usize, const MINIMA: bool>(side: &Side, panel: &Panel, to: *mut f32) {
    let Panel { blocks, scales, offsets, .. } = *panel;
    let zero = panel.zero.unwrap_or(0);
    let mut ends = MaybeUninit::<[[__m512; 2]; ROWS]>::uninit();
    let ends: *mut f32 = ends.as_mut_ptr().cast();
    // SAFETY: the caller's promise; ends are written before they are read.
    unsafe {
        let (mut levels, mut x) = (panel.levels, side.levels);
        for step in 0..blocks / (STEP / BLOCK) {
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            for run in step * STEP / BLOCK * RUNS..(step + 1) * STEP / BLOCK * RUNS {
                let mut products = [[_mm512_setzero_si512(); 2]; ROWS];
                if !MINIMA {
                    // Levels stand above a common zero: its share is taken away at once.
                    for row in 0..ROWS {
                        products[row] = [_mm512_set1_epi32(-zero * *side.totals.add(row * side.per_row * RUNS + run)); 2];
                    }
                }
                (levels, x) = add_products::<ROWS>(&mut products, BLOCK / RUNS / 4, levels, x, side.columns);
                for half in 0..2 {
                    let scale = _mm512_loadu_ps(scales.add(run * STRIP + 16 * half));
                    for row in 0..ROWS {
                        sums[row][half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[row][half]), scale, sums[row][half]);
                    }
                }
            }
            // What follows is too long to be unrolled, and a loop over the registers themselves would keep them in memory throughout.
            for row in 0..ROWS {
                for half in 0..2 {
                    _mm512_store_ps(ends.add(row * WIDTH + 16 * half), sums[row][half]);
                }
            }
            for half in 0..2 {
                let offsets = offsets_of(offsets, step).wrapping_add(16 * half);
                for row in 0..ROWS {
                    let sums = _mm512_load_ps(ends.add(row * WIDTH + 16 * half));
                    finish::<MINIMA>(sums, side, row, step, offsets, to.add(row * STRIP + 16 * half));
                }
            }
        }
    }
}

/// Adds a block's sums of 16 columns, still without minima and the scale of the activations, to those in `to`.
///
/// # Safety
/// Needs AVX-512 VNNI; `row` and `step` lie in the tile, `offsets` are those of the block and the columns.
#[inline(always)]
pub(super) unsafe fn finish<const MINIMA: bool>(sums: __m512, side: &Side, row: usize, step: usize, offsets: *const f32, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = sums;
        let at = row * side.per_row + step * STEP / BLOCK;
        if MINIMA {
            let own = side.pairs.add(at).cast::<i32>();
            let mut minima = _mm512_setzero_si512();
            for pair in 0..PAIRS {
                let two = _mm512_set1_epi32(own.add(pair).read_unaligned());
                minima = _mm512_dpwssd_epi32(minima, _mm512_loadu_si512(offsets.add(pair * STRIP).cast()), two);
            }
            sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(minima), _mm512_loadu_ps(offsets.add(PAIRS * STRIP)), sums);
        }
        _mm512_storeu_ps(to, _mm512_fmadd_ps(sums, _mm512_set1_ps(*side.scales.add(at)), _mm512_loadu_ps(to)));
    }
}
