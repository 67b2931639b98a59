//! A frozen matrix W [out, in] with a low-rank addition, as LoRA and DoRA train it: products forward and backward that never build
//! the sum of both.
//!
//! With d the dropout, h = scale · d(x) · Aᵀ and z = d(x) · Wᵀ + h · Bᵀ:
//! - LoRA gives y = x · Wᵀ + h · Bᵀ;
//! - DoRA gives y = (x - d(x)) · Wᵀ + g ∘ z, with a factor g = magnitude / norm of each row of W + scale · B · A. The norm is taken
//!   as a constant in the backward pass, as PEFT does (`peft/tuners/lora`, `_apply_dora`).
//!
//! What must stay true: the gradients are those of these formulas; buffers are [tokens, in], [tokens, out] or [tokens, rank].

mod products;
mod rows;

pub(crate) use products::{adapted_backward, adapted_forward, adapted_gradients};

use crate::error::check;
use crate::matmul::product::{Right, Target, product};
use crate::threads::Parts;
use crate::{Cpu, Dropout, KernelError, Matrix, Precision, Values, Weights};

/// What is added to a matrix [out, in].
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// A: [rank, in]
    pub a: &'a [f32],
    /// B: [out, rank]
    pub b: &'a [f32],
    pub scale: f32,
    /// What is dropped of the input of A; nothing when absent.
    pub dropout: Option<Dropout>,
    /// DoRA's; LoRA when absent.
    pub magnitude: Option<Magnitude<'a>>,
}

/// DoRA's numbers of each row of the matrix, `[out]`.
#[derive(Clone, Copy, Debug)]
pub struct Magnitude<'a> {
    /// Magnitude over norm.
    pub factors: &'a [f32],
    /// Norms of the rows of W + scale · B · A.
    pub norms: &'a [f32],
}

/// Where the gradients of a low-rank addition go, shaped like its parameters.
#[derive(Debug)]
pub struct LowRankGradients<'a> {
    pub a: &'a mut [f32],
    pub b: &'a mut [f32],
    /// Of DoRA's magnitude, `[out]`.
    pub magnitude: Option<&'a mut [f32]>,
}

impl LowRank<'_> {
    /// Its rank, when its parts fit a matrix [rows, columns].
    pub(crate) fn rank(&self, rows: usize, columns: usize) -> Result<usize, KernelError> {
        let rank = self.a.len() / columns.max(1);
        check("low rank", "A", rank * columns, self.a.len())?;
        check("low rank", "B", rows * rank, self.b.len())?;
        if let Some(magnitude) = &self.magnitude {
            check("low rank", "the factors", rows, magnitude.factors.len())?;
            check("low rank", "the norms", rows, magnitude.norms.len())?;
        }
        Ok(rank)
    }
}

/// Norms of the rows of W + scale · B · A for W [out, in], in the memory of [out, rank].
///
/// # Errors
/// When the shapes do not fit together.
pub fn low_rank_norms(cpu: &Cpu, weights: Matrix<'_>, low: &LowRank<'_>) -> Result<Vec<f32>, KernelError> {
    let (rows, columns) = (weights.rows(), weights.columns());
    let rank = low.rank(rows, columns)?;
    let a = Matrix::f32(low.a, rank, columns)?;
    let (mut crossed, mut own) = (vec![0.0; rows * rank], vec![0.0; rank * rank]);
    cpu.threads.enter(|| {
        product(cpu, Precision::F32, weights.by_rows(), Right::Plain(a.by_rows()), Target::Store(&mut crossed));
        product(cpu, Precision::F32, a.by_rows(), Right::Plain(a.by_rows()), Target::Store(&mut own));
    });
    let scale = f64::from(low.scale);
    let mut norms = vec![0.0; rows];
    let to = Parts::new(&mut norms);
    cpu.threads.for_runs(rows, 16, |start, count| {
        // SAFETY: runs of rows do not overlap.
        let to = unsafe { to.part(start, count) };
        for (row, to) in (start..start + count).zip(to) {
            let mut square: f64 = match weights.row_range(row, 1).values {
                Values::F32(values) => values.iter().map(|value| f64::from(*value).powi(2)).sum(),
                Values::Bf16(values) => values.iter().map(|value| f64::from(crate::simd::widen_half(*value)).powi(2)).sum(),
            };
            let b = &low.b[row * rank..(row + 1) * rank];
            for (index, factor) in b.iter().enumerate() {
                let factor = f64::from(*factor);
                square += 2.0 * scale * factor * f64::from(crossed[row * rank + index]);
                let of_own: f64 = b.iter().zip(&own[index * rank..]).map(|(other, own)| f64::from(*other) * f64::from(*own)).sum();
                square += scale * scale * factor * of_own;
            }
            *to = square.max(0.0).sqrt() as f32;
        }
    });
    Ok(norms)
}

/// y [tokens, out] of x [tokens, in] through W [out, in] and its addition.
///
/// # Errors
/// When the shapes do not fit together.
pub fn low_rank_forward(
    cpu: &Cpu,
    precision: Precision,
    x: Matrix<'_>,
    weights: Matrix<'_>,
    low: &LowRank<'_>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    check("low rank", "x", x.rows() * weights.columns(), x.values.len())?;
    check("low rank", "y", x.rows() * weights.rows(), y.len())?;
    cpu.threads.enter(|| adapted_forward(cpu, precision, x, Weights::Plain(weights), weights.rows(), low, Target::Store(y)))
}

/// dx [tokens, in] and the addition's gradients from dy [tokens, out]; the gradients are added to what is there when `accumulate`.
///
/// # Errors
/// When the shapes do not fit together.
#[allow(clippy::too_many_arguments)]
pub fn low_rank_backward(
    cpu: &Cpu,
    precision: Precision,
    dy: Matrix<'_>,
    x: Matrix<'_>,
    weights: Matrix<'_>,
    low: &LowRank<'_>,
    dx: &mut [f32],
    accumulate: bool,
    gradients: LowRankGradients<'_>,
) -> Result<(), KernelError> {
    check("low rank", "x", dy.rows() * weights.columns(), x.values.len())?;
    check("low rank", "dy", x.rows() * weights.rows(), dy.values.len())?;
    check("low rank", "dx", x.values.len(), dx.len())?;
    let whole = Weights::Plain(weights);
    cpu.threads.enter(|| {
        adapted_backward(cpu, precision, dy, whole, weights.columns(), low, Target::Store(dx))?;
        adapted_gradients(cpu, precision, dy, x, whole, low, accumulate, gradients)
    })
}
