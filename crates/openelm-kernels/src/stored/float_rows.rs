//! Rows of f32, f16 and bf16 with f32 activations: sums in f32.

use openelm_formats::DType;

use super::floats::{Brain, Half, Single, Stored};
use super::rows::{Part, ahead, by_tokens};
use crate::simd::{Simd, prefetch, simd_fn};

simd_fn! {
    /// See [`multiply_rows`](super::multiply_rows).
    ///
    /// # Safety
    /// `part.out` has room.
    pub(super) fn multiply<S>(part: &Part<'_>) {
        match part.matrix.dtype {
            DType::F32 => all::<S, Single>(part),
            DType::F16 => all::<S, Half>(part),
            _ => all::<S, Brain>(part),
        }
    }
}

#[inline(always)]
unsafe fn all<S: Simd, T: Stored>(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe { by_tokens!(part, together::<S, T>) }
}

// Loops over constant ranges with indices are unrolled into registers; iterators over arrays of sums were seen to go through memory.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn together<S: Simd, T: Stored, const ROWS: usize, const TOKENS: usize>(part: &Part<'_>, first: usize) {
    let (matrix, x) = (part.matrix, part.x);
    let columns = x.columns;
    // SAFETY: rows lie in the matrix, tokens in the values; the last values of a row are copied before they are loaded.
    unsafe {
        let row_bytes = matrix.row_bytes;
        let start = matrix.bytes.as_ptr().add((part.first + first) * row_bytes);
        let ahead = ahead(row_bytes, ROWS);
        let mut totals = [[S::splat(0.0); TOKENS]; ROWS];
        // A second chain of sums, so that one need not wait for the other.
        let mut odd = [[S::splat(0.0); TOKENS]; ROWS];
        let values = x.values.as_ptr();
        let mut at = 0;
        while at + 32 <= columns {
            for row in 0..ROWS {
                let from = start.add(row * row_bytes + at * T::BYTES);
                for line in 0..T::BYTES / 2 {
                    prefetch(from.wrapping_add(ahead + 64 * line));
                }
                let (first, second) = (T::load::<S>(from), T::load::<S>(from.add(16 * T::BYTES)));
                for token in 0..TOKENS {
                    let input = values.add(token * columns + at);
                    totals[row][token] = S::fma(first, S::load(input), totals[row][token]);
                    odd[row][token] = S::fma(second, S::load(input.add(16)), odd[row][token]);
                }
            }
            at += 32;
        }
        if at + 16 <= columns {
            for row in 0..ROWS {
                let weights = T::load::<S>(start.add(row * row_bytes + at * T::BYTES));
                for token in 0..TOKENS {
                    totals[row][token] = S::fma(weights, S::load(values.add(token * columns + at)), totals[row][token]);
                }
            }
            at += 16;
        }
        let left = columns - at;
        if left > 0 {
            for (row, totals) in totals.iter_mut().enumerate() {
                let mut bytes = [0_u8; 64];
                let from = start.add(row * matrix.row_bytes + at * T::BYTES);
                std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), left * T::BYTES);
                let weights = T::load::<S>(bytes.as_ptr());
                for (token, total) in totals.iter_mut().enumerate() {
                    let input = S::load_first(x.values.as_ptr().add(token * columns + at), left);
                    *total = S::fma(weights, input, *total);
                }
            }
        }
        for (row, totals) in totals.iter().enumerate() {
            for (token, total) in totals.iter().enumerate() {
                *part.out.add(token * part.stride + first + row) = S::sum(S::add(*total, odd[row][token]));
            }
        }
    }
}
