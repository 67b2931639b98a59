//! The gate of the feed-forward part: silu(gate) · up, or silu alone, forward and backward.

use crate::error::check;
use crate::simd::{Sink, Source, sigmoid, simd_fn, sweep};
use crate::{Cpu, KernelError, Values, ValuesMut};

const RUN: usize = 8; // rows of a task

/// `hidden` [rows, width] = silu(gate) · up, of `input` [rows, 2 · width] (gate first) when `gated`, else silu(`input`
/// [rows, width]).
///
/// # Errors
/// When a length does not fit.
pub fn swiglu_forward(cpu: &Cpu, input: Values<'_>, width: usize, gated: bool, mut hidden: ValuesMut<'_>) -> Result<(), KernelError> {
    let rows = hidden.len() / width.max(1);
    let in_width = if gated { 2 * width } else { width };
    check("SwiGLU", "hidden", rows * width, hidden.len())?;
    check("SwiGLU", "input", rows * in_width, input.len())?;
    let (from, to) = (input.source(), hidden.sink());
    cpu.threads.for_runs(rows, RUN, |start, count| {
        for row in start..start + count {
            // SAFETY: rows do not overlap and lie in the slices checked above.
            unsafe { forward(cpu.isa, from.add(row * in_width), width, gated, to.add(row * width)) };
        }
    });
    Ok(())
}

/// From `input` and the gradient `d_hidden` [rows, width]: the gradient `d_input`, shaped like the input, and once more
/// the `hidden` values, which the gradient of the next weights needs.
///
/// # Errors
/// When a length does not fit.
pub fn swiglu_backward(
    cpu: &Cpu,
    input: Values<'_>,
    d_hidden: Values<'_>,
    width: usize,
    gated: bool,
    mut d_input: ValuesMut<'_>,
    mut hidden: ValuesMut<'_>,
) -> Result<(), KernelError> {
    let rows = d_hidden.len() / width.max(1);
    let in_width = if gated { 2 * width } else { width };
    check("SwiGLU backward", "d_hidden", rows * width, d_hidden.len())?;
    check("SwiGLU backward", "hidden", rows * width, hidden.len())?;
    check("SwiGLU backward", "input", rows * in_width, input.len())?;
    check("SwiGLU backward", "d_input", rows * in_width, d_input.len())?;
    let (from, gradient, to, again) = (input.source(), d_hidden.source(), d_input.sink(), hidden.sink());
    cpu.threads.for_runs(rows, RUN, |start, count| {
        for row in start..start + count {
            // SAFETY: as above.
            unsafe {
                let (from, to) = (from.add(row * in_width), to.add(row * in_width));
                backward(cpu.isa, from, gradient.add(row * width), width, gated, to, again.add(row * width));
            }
        }
    });
    Ok(())
}

simd_fn! {
    fn forward<S>(from: Source, width: usize, gated: bool, to: Sink) {
        sweep!(width, |at, lanes| {
            let gate = from.load::<S>(at, lanes);
            let silu = S::mul(gate, sigmoid::<S>(gate));
            let value = if gated { S::mul(silu, from.load::<S>(width + at, lanes)) } else { silu };
            to.store::<S>(at, value, lanes);
        });
    }
}

simd_fn! {
    /// With s = sigmoid(gate): d silu / d gate = s · (1 + gate · (1 − s)).
    fn backward<S>(from: Source, gradient: Source, width: usize, gated: bool, to: Sink, again: Sink) {
        let one = S::splat(1.0);
        sweep!(width, |at, lanes| {
            let (gate, g) = (from.load::<S>(at, lanes), gradient.load::<S>(at, lanes));
            let s = sigmoid::<S>(gate);
            let silu = S::mul(gate, s);
            let slope = S::mul(s, S::fma(gate, S::sub(one, s), one));
            if gated {
                let up = from.load::<S>(width + at, lanes);
                to.store::<S>(at, S::mul(S::mul(g, up), slope), lanes);
                to.store::<S>(width + at, S::mul(g, silu), lanes);
                again.store::<S>(at, S::mul(silu, up), lanes);
            } else {
                to.store::<S>(at, S::mul(g, slope), lanes);
                again.store::<S>(at, silu, lanes);
            }
        });
    }
}
