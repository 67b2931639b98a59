//! Query/key norm and rotary position embedding (half-split: channel i turns together with channel i + head_dim / 2), in
//! one pass over the output of the joint projection, forward and backward.
//!
//! What must stay true: values are normed first, then turned; weight gradients are summed over fixed runs of tokens, then
//! over the runs in order.

use crate::error::check;
use crate::norm::{EPSILON, add_in_order};
use crate::simd::{Sink, Source, simd_fn, sweep};
use crate::threads::Parts;
use crate::{Cpu, KernelError, Values, ValuesMut};

const RUN: usize = 16; // tokens of a task, and of one partial sum of weight gradients

/// Heads of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub queries: usize,
    /// Key/value heads; divides `queries`.
    pub keys: usize,
    pub head_dim: usize,
}

impl Heads {
    /// Width of a row of the joint projection: queries, keys, values.
    pub fn joint_width(&self) -> usize {
        (self.queries + 2 * self.keys) * self.head_dim
    }

    /// Width of a row of turned queries and keys.
    pub fn turned_width(&self) -> usize {
        (self.queries + self.keys) * self.head_dim
    }

    /// Width of a row of attention's output.
    pub fn query_width(&self) -> usize {
        self.queries * self.head_dim
    }
}

/// Cosines and sines [positions, head_dim / 2].
#[derive(Clone, Copy, Debug)]
pub struct RotaryTables<'a> {
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

/// The norms' weights `[head_dim]`, where the model has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadNorms<'a> {
    pub queries: Option<&'a [f32]>,
    pub keys: Option<&'a [f32]>,
}

fn check_all(
    heads: Heads,
    sequence: usize,
    joint: &Values<'_>,
    tables: RotaryTables<'_>,
    norms: HeadNorms<'_>,
    turned: usize,
) -> Result<usize, KernelError> {
    let operation = "query/key norm and rotation";
    if heads.head_dim == 0 || heads.head_dim % 2 == 1 {
        let (what, value) = ("head_dim", heads.head_dim);
        let (reason, hint) = ("but halves of it are rotated together", "use an even head_dim");
        return Err(KernelError::Dimension { operation, what, value, reason, hint });
    }
    if sequence == 0 {
        let (reason, hint) = ("but positions repeat after it", "give the sequence length");
        return Err(KernelError::Dimension { operation, what: "sequence", value: 0, reason, hint });
    }
    let tokens = joint.len() / heads.joint_width().max(1);
    check(operation, "qkv", tokens * heads.joint_width(), joint.len())?;
    check(operation, "turned queries and keys", tokens * heads.turned_width(), turned)?;
    for norm in [norms.queries, norms.keys].into_iter().flatten() {
        check(operation, "norm weight", heads.head_dim, norm.len())?;
    }
    let needed = sequence.min(tokens) * heads.head_dim / 2;
    check(operation, "cos", needed, tables.cos.len().min(needed))?;
    check(operation, "sin", needed, tables.sin.len().min(needed))?;
    Ok(tokens)
}

/// Normed and turned queries and keys `turned` [tokens, (queries + keys) · head_dim] of the joint projection `joint`
/// [tokens, (queries + 2 · keys) · head_dim]. Token t is at position t mod `sequence`.
///
/// # Errors
/// When a length does not fit, or the tables are shorter than the sequence.
pub fn rotate_forward(
    cpu: &Cpu,
    heads: Heads,
    sequence: usize,
    joint: Values<'_>,
    norms: HeadNorms<'_>,
    tables: RotaryTables<'_>,
    mut turned: ValuesMut<'_>,
) -> Result<(), KernelError> {
    let tokens = check_all(heads, sequence, &joint, tables, norms, turned.len())?;
    let Heads { queries, keys, head_dim } = heads;
    let (from, to) = (joint.source(), turned.sink());
    cpu.threads.for_runs(tokens, RUN, |start, count| {
        for token in start..start + count {
            let at = token % sequence * head_dim / 2;
            let (cos, sin) = (&tables.cos[at..at + head_dim / 2], &tables.sin[at..at + head_dim / 2]);
            for head in 0..queries + keys {
                let weight = if head < queries { norms.queries } else { norms.keys };
                // SAFETY: heads do not overlap and lie in the slices checked above.
                unsafe {
                    let from = from.add(token * heads.joint_width() + head * head_dim);
                    forward(cpu.isa, from, weight, cos, sin, to.add(token * heads.turned_width() + head * head_dim));
                }
            }
        }
    });
    Ok(())
}

/// From the gradient `d_turned` [tokens, (queries + keys) · head_dim] of turned queries and keys, that of the joint
/// projection's query and key columns in `d_joint`; its value columns are left alone. `d_norms` `[head_dim]` get the
/// weights' gradients, added when `accumulate`.
///
/// # Errors
/// When a length does not fit, or a norm's weight has no gradient or the other way round.
#[allow(clippy::too_many_arguments)]
pub fn rotate_backward(
    cpu: &Cpu,
    heads: Heads,
    sequence: usize,
    joint: Values<'_>,
    norms: HeadNorms<'_>,
    tables: RotaryTables<'_>,
    d_turned: &[f32],
    mut d_joint: ValuesMut<'_>,
    accumulate: bool,
    d_norms: [Option<&mut [f32]>; 2],
) -> Result<(), KernelError> {
    let tokens = check_all(heads, sequence, &joint, tables, norms, d_turned.len())?;
    check("query/key norm and rotation", "d_qkv", joint.len(), d_joint.len())?;
    for (weight, gradient) in [norms.queries, norms.keys].iter().zip(&d_norms) {
        let expected = weight.map_or(0, <[f32]>::len);
        check("query/key norm and rotation", "norm weight gradient", expected, gradient.as_ref().map_or(0, |g| g.len()))?;
    }
    let Heads { queries, keys, head_dim } = heads;
    let (from, to) = (joint.source(), d_joint.sink());
    let runs = tokens.div_ceil(RUN);
    let mut sums = cpu.arena.take(2 * runs * head_dim);
    let partial = Parts::new(sums.floats_mut());
    cpu.threads.for_runs(tokens, RUN, |start, count| {
        // SAFETY: every run has its own partial sums.
        let partial = [0, 1].map(|which| unsafe { partial.part((which * runs + start / RUN) * head_dim, head_dim) });
        let [query_sums, key_sums] = partial;
        query_sums.fill(0.0);
        key_sums.fill(0.0);
        for token in start..start + count {
            let at = token % sequence * head_dim / 2;
            let (cos, sin) = (&tables.cos[at..at + head_dim / 2], &tables.sin[at..at + head_dim / 2]);
            for head in 0..queries + keys {
                let (weight, sums) = if head < queries { (norms.queries, &mut *query_sums) } else { (norms.keys, &mut *key_sums) };
                let column = token * heads.joint_width() + head * head_dim;
                let gradient = &d_turned[token * heads.turned_width() + head * head_dim..][..head_dim];
                // SAFETY: heads do not overlap and lie in the slices checked above.
                unsafe { backward(cpu.isa, from.add(column), weight, cos, sin, gradient, to.add(column), sums) };
            }
        }
    });
    for (which, gradient) in d_norms.into_iter().enumerate() {
        if let Some(gradient) = gradient {
            add_in_order(&sums.floats()[which * runs * head_dim..(which + 1) * runs * head_dim], accumulate, gradient);
        }
    }
    Ok(())
}

simd_fn! {
    pub(crate) fn forward<S>(from: Source, weight: Option<&[f32]>, cos: &[f32], sin: &[f32], to: Sink) {
        let half = cos.len();
        let factor = S::splat(scale::<S>(from, half, weight.is_some()));
        let (cos, sin) = (Source::F32(cos.as_ptr()), Source::F32(sin.as_ptr()));
        sweep!(half, |at, lanes| {
            let (mut a, mut b) = (S::mul(from.load::<S>(at, lanes), factor), S::mul(from.load::<S>(half + at, lanes), factor));
            if let Some(weight) = weight {
                let w = Source::F32(weight.as_ptr());
                a = S::mul(a, w.load::<S>(at, lanes));
                b = S::mul(b, w.load::<S>(half + at, lanes));
            }
            let (c, s) = (cos.load::<S>(at, lanes), sin.load::<S>(at, lanes));
            to.store::<S>(at, S::sub(S::mul(a, c), S::mul(b, s)), lanes);
            to.store::<S>(half + at, S::fma(b, c, S::mul(a, s)), lanes);
        });
    }
}

simd_fn! {
    /// The gradient is turned back, then goes through the norm as in `norm::backward`.
    fn backward<S>(
        from: Source, weight: Option<&[f32]>, cos: &[f32], sin: &[f32], gradient: &[f32], to: Sink, sums: &mut [f32]
    ) {
        let half = cos.len();
        let (cos, sin, g) = (Source::F32(cos.as_ptr()), Source::F32(sin.as_ptr()), Source::F32(gradient.as_ptr()));
        let Some(weight) = weight else {
            sweep!(half, |at, lanes| {
                let (a, b) = turned_back::<S>(g, cos, sin, half, at, lanes);
                to.store::<S>(at, a, lanes);
                to.store::<S>(half + at, b, lanes);
            });
            return;
        };
        let w = Source::F32(weight.as_ptr());
        let sums = sums.as_mut_ptr();
        let factor = S::splat(scale::<S>(from, half, true));
        let mut dot = S::splat(0.0);
        sweep!(half, |at, lanes| {
            let (a, b) = turned_back::<S>(g, cos, sin, half, at, lanes);
            for (g, at) in [(a, at), (b, half + at)] {
                let normed = S::mul(from.load::<S>(at, lanes), factor);
                dot = S::fma(S::mul(g, w.load::<S>(at, lanes)), normed, dot);
                Sink::F32(sums).store::<S>(at, S::fma(g, normed, Source::F32(sums).load::<S>(at, lanes)), lanes);
            }
        });
        let mean = S::splat(S::sum(dot) / (2 * half) as f32);
        sweep!(half, |at, lanes| {
            let (a, b) = turned_back::<S>(g, cos, sin, half, at, lanes);
            for (g, at) in [(a, at), (b, half + at)] {
                let normed = S::mul(from.load::<S>(at, lanes), factor);
                let inner = S::sub(S::mul(g, w.load::<S>(at, lanes)), S::mul(normed, mean));
                to.store::<S>(at, S::mul(inner, factor), lanes);
            }
        });
    }
}

/// 1 / root mean square of one head, or 1 without a norm.
///
/// # Safety
/// `from` holds 2 · `half` values; [`Simd`](crate::simd::Simd)'s.
#[inline(always)]
unsafe fn scale<S: crate::simd::Simd>(from: Source, half: usize, normed: bool) -> f32 {
    if !normed {
        return 1.0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut squares = S::splat(0.0);
        sweep!(2 * half, |at, lanes| {
            let v = from.load::<S>(at, lanes);
            squares = S::fma(v, v, squares);
        });
        1.0 / (S::sum(squares) / (2 * half) as f32 + EPSILON).sqrt()
    }
}

/// Both halves of a gradient turned by the opposite angle.
///
/// # Safety
/// As [`scale`].
#[inline(always)]
unsafe fn turned_back<S: crate::simd::Simd>(g: Source, cos: Source, sin: Source, half: usize, at: usize, lanes: usize) -> (S::V, S::V) {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (g.load::<S>(at, lanes), g.load::<S>(half + at, lanes));
        let (c, s) = (cos.load::<S>(at, lanes), sin.load::<S>(at, lanes));
        (S::fma(a, c, S::mul(b, s)), S::sub(S::mul(b, c), S::mul(a, s)))
    }
}
