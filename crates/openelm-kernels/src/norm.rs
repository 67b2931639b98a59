//! Root-mean-square norm over rows: y = x · rsqrt(mean(x²) + 1e-6) · w, forward and backward.
//!
//! What must stay true: weight gradients are summed over fixed runs of rows, then over the runs in order.

use crate::error::check;
use crate::simd::{Sink, Source, simd_fn, sweep};
use crate::threads::Parts;
use crate::{Cpu, KernelError, ValuesMut};

pub(crate) const EPSILON: f32 = 1e-6;
/// Rows of a task, and of one partial sum of weight gradients.
const RUN: usize = 32;

/// Norms `x` [rows, dim] into `y` [rows, dim] and keeps 1 / root mean square of every row in `scales` `[rows]`.
///
/// # Errors
/// When a length does not fit.
pub fn rms_norm_forward(cpu: &Cpu, x: &[f32], weight: &[f32], mut y: ValuesMut<'_>, scales: &mut [f32]) -> Result<(), KernelError> {
    let (rows, dim) = (scales.len(), weight.len());
    check("RMS norm", "x", rows * dim, x.len())?;
    check("RMS norm", "y", rows * dim, y.len())?;
    let (to, scales) = (y.sink(), Parts::new(scales));
    cpu.threads.for_runs(rows, RUN, |start, count| {
        // SAFETY: runs of rows do not overlap and lie in the slices checked above.
        unsafe {
            let scales = scales.part(start, count);
            forward(cpu.isa, &x[start * dim..], weight, to.add(start * dim), scales);
        }
    });
    Ok(())
}

/// Norms again with known `scales`: what the forward pass gave, without keeping it.
///
/// # Errors
/// When a length does not fit.
pub(crate) fn rms_norm_again(cpu: &Cpu, x: &[f32], weight: &[f32], mut y: ValuesMut<'_>, scales: &[f32]) -> Result<(), KernelError> {
    let (rows, dim) = (scales.len(), weight.len());
    check("RMS norm", "x", rows * dim, x.len())?;
    check("RMS norm", "y", rows * dim, y.len())?;
    let to = y.sink();
    cpu.threads.for_runs(rows, RUN, |start, count| {
        // SAFETY: as above.
        unsafe { apply(cpu.isa, &x[start * dim..], weight, to.add(start * dim), &scales[start..start + count]) };
    });
    Ok(())
}

/// Gradients of the norm: `dx` [rows, dim] gets its share, added to what is there (the gradient that came round the
/// norm); `dw` `[dim]` its own, added when `accumulate`.
///
/// # Errors
/// When a length does not fit.
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_backward(
    cpu: &Cpu,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    scales: &[f32],
    dx: &mut [f32],
    accumulate: bool,
    dw: &mut [f32],
) -> Result<(), KernelError> {
    let (rows, dim) = (scales.len(), weight.len());
    check("RMS norm backward", "dy", rows * dim, dy.len())?;
    check("RMS norm backward", "x", rows * dim, x.len())?;
    check("RMS norm backward", "dx", rows * dim, dx.len())?;
    check("RMS norm backward", "dw", dim, dw.len())?;
    let mut sums = cpu.arena.take(rows.div_ceil(RUN) * dim);
    let (to, partial) = (Parts::new(dx), Parts::new(sums.floats_mut()));
    cpu.threads.for_runs(rows, RUN, |start, count| {
        let range = start * dim..(start + count) * dim;
        // SAFETY: runs of rows do not overlap, and each has its own partial sum.
        unsafe {
            let (to, partial) = (to.part(start * dim, count * dim), partial.part(start / RUN * dim, dim));
            partial.fill(0.0);
            backward(cpu.isa, &dy[range.clone()], &x[range], weight, &scales[start..start + count], to, partial);
        }
    });
    add_in_order(sums.floats(), accumulate, dw);
    Ok(())
}

/// Sums partial gradients [runs, dim] in order into `total` `[dim]`.
pub(crate) fn add_in_order(partial: &[f32], accumulate: bool, total: &mut [f32]) {
    if !accumulate {
        total.fill(0.0);
    }
    for run in partial.chunks_exact(total.len().max(1)) {
        for (total, value) in total.iter_mut().zip(run) {
            *total += value;
        }
    }
}

simd_fn! {
    pub(crate) fn forward<S>(x: &[f32], weight: &[f32], to: Sink, scales: &mut [f32]) {
        let dim = weight.len();
        for (row, scale) in scales.iter_mut().enumerate() {
            let x = Source::F32(x[row * dim..row * dim + dim].as_ptr());
            let mut squares = S::splat(0.0);
            sweep!(dim, |at, lanes| {
                let v = x.load::<S>(at, lanes);
                squares = S::fma(v, v, squares);
            });
            *scale = 1.0 / (S::sum(squares) / dim as f32 + EPSILON).sqrt();
            let factor = S::splat(*scale);
            let (to, w) = (to.add(row * dim), Source::F32(weight.as_ptr()));
            sweep!(dim, |at, lanes| {
                let normed = S::mul(x.load::<S>(at, lanes), factor);
                to.store::<S>(at, S::mul(normed, w.load::<S>(at, lanes)), lanes);
            });
        }
    }
}

simd_fn! {
    fn apply<S>(x: &[f32], weight: &[f32], to: Sink, scales: &[f32]) {
        let dim = weight.len();
        for (row, scale) in scales.iter().enumerate() {
            let x = Source::F32(x[row * dim..row * dim + dim].as_ptr());
            let factor = S::splat(*scale);
            let (to, w) = (to.add(row * dim), Source::F32(weight.as_ptr()));
            sweep!(dim, |at, lanes| {
                let normed = S::mul(x.load::<S>(at, lanes), factor);
                to.store::<S>(at, S::mul(normed, w.load::<S>(at, lanes)), lanes);
            });
        }
    }
}

simd_fn! {
    /// dx += s · (w·dy − x̂ · mean(w·dy·x̂)) and partial += dy · x̂, with x̂ = s · x.
    fn backward<S>(dy: &[f32], x: &[f32], weight: &[f32], scales: &[f32], dx: &mut [f32], partial: &mut [f32]) {
        let dim = weight.len();
        let w = Source::F32(weight.as_ptr());
        let partial = partial.as_mut_ptr();
        for (row, scale) in scales.iter().enumerate() {
            let range = row * dim..row * dim + dim;
            let (dy, x) = (Source::F32(dy[range.clone()].as_ptr()), Source::F32(x[range.clone()].as_ptr()));
            let to = dx[range].as_mut_ptr();
            let factor = S::splat(*scale);
            let mut dot = S::splat(0.0);
            sweep!(dim, |at, lanes| {
                let (g, normed) = (dy.load::<S>(at, lanes), S::mul(x.load::<S>(at, lanes), factor));
                dot = S::fma(S::mul(g, w.load::<S>(at, lanes)), normed, dot);
                let sum = S::fma(g, normed, Source::F32(partial).load::<S>(at, lanes));
                Sink::F32(partial).store::<S>(at, sum, lanes);
            });
            let mean = S::splat(S::sum(dot) / dim as f32);
            sweep!(dim, |at, lanes| {
                let (g, normed) = (dy.load::<S>(at, lanes), S::mul(x.load::<S>(at, lanes), factor));
                let inner = S::sub(S::mul(g, w.load::<S>(at, lanes)), S::mul(normed, mean));
                let sum = S::fma(inner, factor, Source::F32(to).load::<S>(at, lanes));
                Sink::F32(to).store::<S>(at, sum, lanes);
            });
        }
    }
}
