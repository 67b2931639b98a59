//! AdamW in one pass over memory, and the sum of squares for clipping by the global norm.
//!
//! What must stay true: squares are summed over fixed runs of values, in f64 across runs, so that the norm does not
//! depend on the threads.

use crate::error::check;
use crate::simd::{Sink, Source, simd_fn, sweep};
use crate::threads::Parts;
use crate::{Cpu, KernelError};

const RUN: usize = 1 << 15; // values of a task
const SQUARES: usize = 512; // values summed in f32 before f64 takes over

/// The numbers of one AdamW step for one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    /// 1 in the first step.
    pub step: u64,
    /// What gradients are multiplied by first: clipping, averaging, or both.
    pub gradient_scale: f32,
}

/// One step over a parameter, its gradient and both moments: p -= lr · decay · p, then p -= lr · m̂ / (√v̂ + ε) with the
/// moments' biases corrected, as PyTorch has it.
///
/// # Errors
/// When the lengths differ.
pub fn adamw_step(
    cpu: &Cpu,
    settings: &AdamW,
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) -> Result<(), KernelError> {
    let len = parameter.len();
    check("AdamW", "gradient", len, gradient.len())?;
    check("AdamW", "first moment", len, first.len())?;
    check("AdamW", "second moment", len, second.len())?;
    let steps = settings.step.min(i32::MAX as u64) as i32;
    let correction1 = 1.0 - settings.beta1.powi(steps);
    let correction2 = 1.0 - settings.beta2.powi(steps);
    let factors = Factors {
        scale: settings.gradient_scale,
        keep: (1.0 - settings.learning_rate * settings.weight_decay) as f32,
        beta1: settings.beta1 as f32,
        rest1: (1.0 - settings.beta1) as f32,
        beta2: settings.beta2 as f32,
        rest2: (1.0 - settings.beta2) as f32,
        rate: (settings.learning_rate / correction1) as f32,
        root: (1.0 / correction2.sqrt()) as f32,
        epsilon: settings.epsilon as f32,
    };
    let [parameter, first, second] = [parameter, first, second].map(Parts::new);
    cpu.threads.for_runs(len, RUN, |start, count| {
        // SAFETY: runs do not overlap.
        unsafe {
            let (p, m, v) = (parameter.part(start, count), first.part(start, count), second.part(start, count));
            update(cpu.isa, factors, p, &gradient[start..start + count], m, v);
        }
    });
    Ok(())
}

/// Σ value² in f64.
pub fn sum_of_squares(cpu: &Cpu, values: &[f32]) -> f64 {
    let mut sums = cpu.arena.take(2 * values.len().div_ceil(RUN));
    let partial = Parts::new(sums.words_mut());
    cpu.threads.for_runs(values.len(), RUN, |start, count| {
        // SAFETY: every run has two words of its own, for the halves of its f64 sum.
        unsafe {
            let bits = squares(cpu.isa, &values[start..start + count]).to_bits();
            partial.part(start / RUN * 2, 2).copy_from_slice(&[bits as u32, (bits >> 32) as u32]);
        }
    });
    sums.words().chunks_exact(2).map(|half| f64::from_bits(u64::from(half[0]) | u64::from(half[1]) << 32)).sum()
}

#[derive(Clone, Copy)]
struct Factors {
    scale: f32,
    keep: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
}

simd_fn! {
    fn update<S>(f: Factors, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let (p, g) = (parameter.as_mut_ptr(), Source::F32(gradient.as_ptr()));
        let (m, v) = (first.as_mut_ptr(), second.as_mut_ptr());
        let (beta1, beta2, rest1, rest2) = (S::splat(f.beta1), S::splat(f.beta2), S::splat(f.rest1), S::splat(f.rest2));
        let (scale, keep, rate) = (S::splat(f.scale), S::splat(f.keep), S::splat(f.rate));
        let (root, epsilon) = (S::splat(f.root), S::splat(f.epsilon));
        sweep!(gradient.len(), |at, lanes| {
            let g = S::mul(g.load::<S>(at, lanes), scale);
            let new_m = S::fma(beta1, Source::F32(m).load::<S>(at, lanes), S::mul(rest1, g));
            let new_v = S::fma(beta2, Source::F32(v).load::<S>(at, lanes), S::mul(rest2, S::mul(g, g)));
            let kept = S::mul(Source::F32(p).load::<S>(at, lanes), keep);
            let size = S::fma(S::sqrt(new_v), root, epsilon);
            Sink::F32(m).store::<S>(at, new_m, lanes);
            Sink::F32(v).store::<S>(at, new_v, lanes);
            Sink::F32(p).store::<S>(at, S::sub(kept, S::div(S::mul(rate, new_m), size)), lanes);
        });
    }
}

simd_fn! {
    fn squares<S>(values: &[f32]) -> f64 {
        let mut total = 0.0;
        for run in values.chunks(SQUARES) {
            let mut sum = S::splat(0.0);
            let from = Source::F32(run.as_ptr());
            sweep!(run.len(), |at, lanes| {
                let v = from.load::<S>(at, lanes);
                sum = S::fma(v, v, sum);
            });
            total += f64::from(S::sum(sum));
        }
        total
    }
}
