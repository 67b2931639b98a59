//! Row by row: DoRA's factors, the sums of its magnitudes' gradient, rounding.

use crate::threads::Parts;
use crate::{Cpu, Matrix, Values};

/// `to` += `from` ∘ factors, row by row.
pub(super) fn add_scaled(cpu: &Cpu, from: &[f32], factors: &[f32], to: &mut [f32]) {
    let columns = factors.len();
    let parts = Parts::new(to);
    cpu.threads.for_runs(from.len() / columns.max(1), 8, |start, count| {
        for row in start..start + count {
            // SAFETY: rows do not overlap.
            let to = unsafe { parts.part(row * columns, columns) };
            let from = &from[row * columns..(row + 1) * columns];
            to.iter_mut().zip(from).zip(factors).for_each(|((to, from), factor)| *to += from * factor);
        }
    });
}

/// `to` (+)= Σ over the rows of dy ∘ z, over the norms.
pub(super) fn sum_products(cpu: &Cpu, dy: Matrix<'_>, z: &[f32], norms: &[f32], accumulate: bool, to: &mut [f32]) {
    let columns = norms.len();
    let parts = Parts::new(to);
    cpu.threads.for_runs(columns, 64, |start, count| {
        let mut sums = [0.0f32; 64];
        for row in 0..dy.rows() {
            let at = row * columns + start;
            let terms = sums.iter_mut().zip(&z[at..at + count]);
            match dy.values.part(at, count) {
                Values::F32(dy) => terms.zip(dy).for_each(|((sum, z), dy)| *sum += z * dy),
                Values::Bf16(dy) => terms.zip(dy).for_each(|((sum, z), dy)| *sum += z * crate::simd::widen_half(*dy)),
            }
        }
        // SAFETY: runs of columns do not overlap.
        let to = unsafe { parts.part(start, count) };
        for (to, (sum, norm)) in to.iter_mut().zip(sums.iter().zip(&norms[start..])) {
            let gradient = if *norm > 0.0 { sum / norm } else { 0.0 };
            *to = if accumulate { *to + gradient } else { gradient };
        }
    });
}

/// Rounds to bf16, to nearest even.
pub(super) fn round(cpu: &Cpu, from: &[f32], to: &mut [u16]) {
    let parts = Parts::new(to);
    cpu.threads.for_runs(from.len(), 1 << 14, |start, count| {
        // SAFETY: runs do not overlap.
        let to = unsafe { parts.part(start, count) };
        to.iter_mut().zip(&from[start..start + count]).for_each(|(to, from)| *to = crate::simd::round_half(*from));
    });
}

/// `to` = dy ∘ (factors - `less`), row by row.
pub(super) fn scale_rows(cpu: &Cpu, dy: Matrix<'_>, factors: &[f32], less: f32, to: &mut [f32]) {
    let columns = dy.columns();
    let parts = Parts::new(to);
    cpu.threads.for_runs(dy.rows(), 8, |start, count| {
        for row in start..start + count {
            // SAFETY: rows do not overlap.
            let to = unsafe { parts.part(row * columns, columns) };
            let factors = to.iter_mut().zip(factors);
            match dy.values.part(row * columns, columns) {
                Values::F32(dy) => factors.zip(dy).for_each(|((to, factor), dy)| *to = (factor - less) * dy),
                Values::Bf16(dy) => {
                    factors.zip(dy).for_each(|((to, factor), dy)| *to = (factor - less) * crate::simd::widen_half(*dy));
                }
            }
        }
    });
}
