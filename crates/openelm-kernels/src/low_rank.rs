//! A frozen matrix W [out, in] with a low-rank addition, as LoRA and DoRA train it: products forward and backward that never build
//! the sum of both.
//!
//! With d the dropout, h = scale · d(x) · Aᵀ and z = d(x) · Wᵀ + h · Bᵀ:
//! - LoRA gives y = x · Wᵀ + h · Bᵀ;
//! - DoRA gives y = (x - d(x)) · Wᵀ + g ∘ z, with a factor g = magnitude / norm of each row of W + scale · B · A. The norm is taken
//!   as a constant in the backward pass, as PEFT does (`peft/tuners/lora`, `_apply_dora`).
//!
//! What must stay true: the gradients are those of these formulas; buffers are [tokens, in], [tokens, out] or [tokens, rank].

use crate::dropout::{add_dropped, drop_values};
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

/// y = x · Wᵀ and the addition, into `target`; `weights` are W [rows, x's columns] for the forward product.
pub(crate) fn adapted_forward(
    cpu: &Cpu,
    precision: Precision,
    x: Matrix<'_>,
    weights: Weights<'_>,
    rows: usize,
    low: &LowRank<'_>,
    target: Target<'_>,
) -> Result<(), KernelError> {
    let (tokens, columns) = (x.rows(), x.columns());
    let rank = low.rank(rows, columns)?;
    let whole = weights.right(true);
    let dropped = Dropped::of(cpu, x, low.dropout);
    let dropped = dropped.matrix(x)?;
    let mut inner = cpu.arena.take(tokens * rank);
    into_rank(cpu, precision, dropped, low, rank, inner.floats_mut())?;
    let inner = Matrix::f32(inner.floats(), tokens, rank)?.by_rows();
    let outer = Right::Plain(Matrix::f32(low.b, rows, rank)?.by_rows());
    let mut spare;
    let (to, other, halves) = match target {
        Target::Store(to) => (to, None, None),
        Target::Sum(to, other) => (to, Some(other), None),
        Target::Halves(halves) => {
            spare = cpu.arena.take(tokens * rows);
            (spare.floats_mut(), None, Some(halves))
        }
        Target::Accumulate(_) | Target::Strips(_) => unreachable!("an adapted product is stored"),
    };
    let begin = |to: &mut [f32], x: Matrix<'_>| {
        let target = match other {
            Some(other) => Target::Sum(to, other),
            None => Target::Store(to),
        };
        product(cpu, precision, x.by_rows(), whole, target);
    };
    match &low.magnitude {
        None => {
            begin(to, x);
            product(cpu, precision, inner, outer, Target::Accumulate(to));
        }
        Some(magnitude) => {
            let mut whole_sum = cpu.arena.take(tokens * rows);
            product(cpu, precision, dropped.by_rows(), whole, Target::Store(whole_sum.floats_mut()));
            product(cpu, precision, inner, outer, Target::Accumulate(whole_sum.floats_mut()));
            match low.dropout {
                Some(dropout) => {
                    let mut taken = cpu.arena.take(tokens * columns);
                    drop_values(cpu, x.values, dropout, true, taken.floats_mut());
                    begin(to, Matrix::f32(taken.floats(), tokens, columns)?);
                }
                None => match other {
                    Some(other) => to.copy_from_slice(other),
                    None => to.fill(0.0),
                },
            }
            add_scaled(cpu, whole_sum.floats(), magnitude.factors, to);
        }
    }
    if let Some(halves) = halves {
        round(cpu, to, halves);
    }
    Ok(())
}

/// dx = dy · W and the addition's share, into `target`; `weights` are W [dy's columns, columns] for the backward product.
pub(crate) fn adapted_backward(
    cpu: &Cpu,
    precision: Precision,
    dy: Matrix<'_>,
    weights: Weights<'_>,
    columns: usize,
    low: &LowRank<'_>,
    target: Target<'_>,
) -> Result<(), KernelError> {
    let (tokens, rows) = (dy.rows(), dy.columns());
    let rank = low.rank(rows, columns)?;
    let whole = weights.right(false);
    let scaled = Scaled::of(cpu, dy, low, 0.0);
    let mut inner = cpu.arena.take(tokens * rank);
    back_to_rank(cpu, precision, scaled.matrix(dy)?, low, rank, inner.floats_mut())?;
    let inner = Matrix::f32(inner.floats(), tokens, rank)?.by_rows();
    let outer = Right::Plain(Matrix::f32(low.a, rank, columns)?.by_columns());
    let mut spare;
    let (to, halves) = match target {
        Target::Store(to) => (to, None),
        Target::Halves(halves) => {
            spare = cpu.arena.take(tokens * columns);
            (spare.floats_mut(), Some(halves))
        }
        Target::Sum(..) | Target::Accumulate(_) | Target::Strips(_) => unreachable!("an adapted product is stored"),
    };
    match low.dropout {
        None => {
            product(cpu, precision, scaled.matrix(dy)?.by_rows(), whole, Target::Store(to));
            product(cpu, precision, inner, outer, Target::Accumulate(to));
        }
        Some(dropout) => {
            product(cpu, precision, dy.by_rows(), whole, Target::Store(to));
            let mut share = cpu.arena.take(tokens * columns);
            product(cpu, precision, inner, outer, Target::Store(share.floats_mut()));
            if low.magnitude.is_some() {
                let less = Scaled::of(cpu, dy, low, 1.0);
                product(cpu, precision, less.matrix(dy)?.by_rows(), whole, Target::Accumulate(share.floats_mut()));
            }
            add_dropped(cpu, share.floats(), dropout, to);
        }
    }
    if let Some(halves) = halves {
        round(cpu, to, halves);
    }
    Ok(())
}

/// The gradients of the addition's parameters from dy [tokens, out] and x [tokens, in]; added to what is there when `accumulate`.
/// `weights` are W [out, in] for the forward product.
#[allow(clippy::too_many_arguments)]
pub(crate) fn adapted_gradients(
    cpu: &Cpu,
    precision: Precision,
    dy: Matrix<'_>,
    x: Matrix<'_>,
    weights: Weights<'_>,
    low: &LowRank<'_>,
    accumulate: bool,
    gradients: LowRankGradients<'_>,
) -> Result<(), KernelError> {
    let (tokens, rows, columns) = (dy.rows(), dy.columns(), x.columns());
    let rank = low.rank(rows, columns)?;
    check("low rank", "the gradient of A", rank * columns, gradients.a.len())?;
    check("low rank", "the gradient of B", rows * rank, gradients.b.len())?;
    let dropped = Dropped::of(cpu, x, low.dropout);
    let dropped = dropped.matrix(x)?;
    let scaled = Scaled::of(cpu, dy, low, 0.0);
    let scaled = scaled.matrix(dy)?;
    let mut forward = cpu.arena.take(tokens * rank);
    into_rank(cpu, precision, dropped, low, rank, forward.floats_mut())?;
    let forward = Matrix::f32(forward.floats(), tokens, rank)?;
    let mut back = cpu.arena.take(tokens * rank);
    back_to_rank(cpu, precision, scaled, low, rank, back.floats_mut())?;
    let back = Matrix::f32(back.floats(), tokens, rank)?;
    let store = |to| if accumulate { Target::Accumulate(to) } else { Target::Store(to) };
    product(cpu, precision, scaled.by_columns(), Right::Plain(forward.by_columns()), store(gradients.b));
    product(cpu, precision, back.by_columns(), Right::Plain(dropped.by_columns()), store(gradients.a));
    if let (Some(magnitude), Some(to)) = (&low.magnitude, gradients.magnitude) {
        check("low rank", "the gradient of the magnitude", rows, to.len())?;
        let mut whole = cpu.arena.take(tokens * rows);
        product(cpu, precision, dropped.by_rows(), weights.right(true), Target::Store(whole.floats_mut()));
        let outer = Right::Plain(Matrix::f32(low.b, rows, rank)?.by_rows());
        product(cpu, precision, forward.by_rows(), outer, Target::Accumulate(whole.floats_mut()));
        sum_products(cpu, dy, whole.floats(), magnitude.norms, accumulate, to);
    }
    Ok(())
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

/// An input with its dropout taken, where there is one.
struct Dropped<'a>(Option<crate::Buffer<'a>>);

impl<'a> Dropped<'a> {
    fn of(cpu: &'a Cpu, x: Matrix<'_>, dropout: Option<Dropout>) -> Self {
        Self(dropout.map(|dropout| {
            let mut to = cpu.arena.take(x.values.len());
            drop_values(cpu, x.values, dropout, false, to.floats_mut());
            to
        }))
    }

    fn matrix<'m>(&'m self, x: Matrix<'m>) -> Result<Matrix<'m>, KernelError> {
        self.0.as_ref().map_or(Ok(x), |values| Matrix::f32(values.floats(), x.rows(), x.columns()))
    }
}

/// A gradient times DoRA's factors less a number, where there are any.
struct Scaled<'a>(Option<crate::Buffer<'a>>);

impl<'a> Scaled<'a> {
    fn of(cpu: &'a Cpu, dy: Matrix<'_>, low: &LowRank<'_>, less: f32) -> Self {
        Self(low.magnitude.map(|magnitude| {
            let columns = dy.columns();
            let mut to = cpu.arena.take(dy.values.len());
            let parts = Parts::new(to.floats_mut());
            cpu.threads.for_runs(dy.rows(), 8, |start, count| {
                for row in start..start + count {
                    // SAFETY: rows do not overlap.
                    let to = unsafe { parts.part(row * columns, columns) };
                    let factors = to.iter_mut().zip(magnitude.factors);
                    match dy.values.part(row * columns, columns) {
                        Values::F32(dy) => factors.zip(dy).for_each(|((to, factor), dy)| *to = (factor - less) * dy),
                        Values::Bf16(dy) => {
                            factors.zip(dy).for_each(|((to, factor), dy)| *to = (factor - less) * crate::simd::widen_half(*dy));
                        }
                    }
                }
            });
            to
        }))
    }

    fn matrix<'m>(&'m self, dy: Matrix<'m>) -> Result<Matrix<'m>, KernelError> {
        self.0.as_ref().map_or(Ok(dy), |values| Matrix::f32(values.floats(), dy.rows(), dy.columns()))
    }
}

/// scale · x · Aᵀ, [tokens, rank].
fn into_rank(cpu: &Cpu, precision: Precision, x: Matrix<'_>, low: &LowRank<'_>, rank: usize, to: &mut [f32]) -> Result<(), KernelError> {
    let a = Matrix::f32(low.a, rank, x.columns())?;
    product(cpu, precision, x.by_rows(), Right::Plain(a.by_rows()), Target::Store(to));
    to.iter_mut().for_each(|value| *value *= low.scale);
    Ok(())
}

/// scale · dy · B, [tokens, rank].
fn back_to_rank(
    cpu: &Cpu,
    precision: Precision,
    dy: Matrix<'_>,
    low: &LowRank<'_>,
    rank: usize,
    to: &mut [f32],
) -> Result<(), KernelError> {
    let b = Matrix::f32(low.b, dy.columns(), rank)?;
    product(cpu, precision, dy.by_rows(), Right::Plain(b.by_columns()), Target::Store(to));
    to.iter_mut().for_each(|value| *value *= low.scale);
    Ok(())
}

/// `to` += `from` ∘ factors, row by row.
fn add_scaled(cpu: &Cpu, from: &[f32], factors: &[f32], to: &mut [f32]) {
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
fn sum_products(cpu: &Cpu, dy: Matrix<'_>, z: &[f32], norms: &[f32], accumulate: bool, to: &mut [f32]) {
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
fn round(cpu: &Cpu, from: &[f32], to: &mut [u16]) {
    let parts = Parts::new(to);
    cpu.threads.for_runs(from.len(), 1 << 14, |start, count| {
        // SAFETY: runs do not overlap.
        let to = unsafe { parts.part(start, count) };
        to.iter_mut().zip(&from[start..start + count]).for_each(|(to, from)| *to = crate::simd::round_half(*from));
    });
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
