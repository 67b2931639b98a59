//! The products of an adapted matrix: forward, by the input, and by the addition's parameters.

use super::rows::{add_scaled, round, scale_rows, sum_products};
use super::{LowRank, LowRankGradients};
use crate::dropout::{add_dropped, drop_values};
use crate::error::check;
use crate::matmul::product::{Right, Target, product};
use crate::{Cpu, Dropout, KernelError, Matrix, Precision, Weights};

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
            let mut to = cpu.arena.take(dy.values.len());
            scale_rows(cpu, dy, magnitude.factors, less, to.floats_mut());
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
