//! What the products of activations in 8 bits with blocks of 256 weights need beside those of 32, in AVX2: sums of a block, without the
//! scale that all its activations share, and its minima as whole numbers.
//!
//! What must stay true: as in [`avx512_steps`](super::avx512_steps), whose panels these are.

use std::arch::x86_64::*;

use super::avx512_steps::PAIRS;
use super::byte_product::{STRIP, Side};
use super::prepared::{BLOCK, STEP};

/// A block's sums of 16 columns. They do not fit the registers beside the products.
#[repr(C, align(32))]
pub(super) struct StepSums<const ROWS: usize>([[f32; 16]; ROWS]);

impl<const ROWS: usize> StepSums<ROWS> {
    pub(super) fn zero() -> Self {
        Self([[0.0; 16]; ROWS])
    }

    /// Adds the whole sums of a run of weights, times their scales.
    ///
    /// # Safety
    /// Needs AVX2 and FMA; `scales` reach 16 columns.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    pub(super) unsafe fn add(&mut self, products: &[[__m256i; 2]; ROWS], scales: *const f32) {
        // SAFETY: the caller's promise; halves of 8 lie in the rows of 16.
        unsafe {
            for half in 0..2 {
                let scale = _mm256_loadu_ps(scales.add(8 * half));
                for row in 0..ROWS {
                    let at = self.0[row].as_mut_ptr().add(8 * half);
                    _mm256_store_ps(at, _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[row][half]), scale, _mm256_load_ps(at)));
                }
            }
        }
    }

    /// Adds the sums, with minima where `MINIMA`, times the activations' scales, to 16 columns of `to`, whose rows are [`STRIP`] apart; and
    /// begins anew.
    ///
    /// # Safety
    /// Needs AVX2 and FMA; `step` lies in the tile, `offsets` are those of the step and the columns.
    #[inline(always)]
    pub(super) unsafe fn finish<const MINIMA: bool>(&mut self, side: &Side, step: usize, offsets: *const f32, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            for row in 0..ROWS {
                let at = row * side.per_row + step * STEP / BLOCK;
                let scale = _mm256_set1_ps(*side.scales.add(at));
                for half in [0, 8] {
                    let mut sums = _mm256_load_ps(self.0[row].as_ptr().add(half));
                    if MINIMA {
                        let own = side.pairs.add(at).cast::<i32>();
                        let mut minima = _mm256_setzero_si256();
                        for pair in 0..PAIRS {
                            let two = _mm256_set1_epi32(own.add(pair).read_unaligned());
                            let levels = _mm256_loadu_si256(offsets.add(pair * STRIP + half).cast());
                            minima = _mm256_add_epi32(minima, _mm256_madd_epi16(levels, two));
                        }
                        sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(minima), _mm256_loadu_ps(offsets.add(PAIRS * STRIP + half)), sums);
                    }
                    let to = to.add(row * STRIP + half);
                    _mm256_storeu_ps(to, _mm256_fmadd_ps(sums, scale, _mm256_loadu_ps(to)));
                }
            }
        }
        *self = Self::zero();
    }
}
