//! A linear layer y = x · Wᵀ with W [out, in] and its two backward products.

use super::{
    Matrix, PackedMatrix,
    product::{Right, Target, product},
};
use crate::error::check;
use crate::{Cpu, KernelError, Precision};

/// Weights as a product reads them.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// [out, in] as they are: each product packs what it uses. Best for one micro-batch per step.
    Plain(Matrix<'a>),
    /// Packed once for the direction of the product: best for many.
    Packed(&'a PackedMatrix),
}

impl<'a> Weights<'a> {
    pub(crate) fn right(self, forward: bool) -> Right<'a> {
        match self {
            Self::Packed(packed) => Right::Packed(packed),
            Self::Plain(matrix) if forward => Right::Plain(matrix.by_rows()),
            Self::Plain(matrix) => Right::Plain(matrix.by_columns()),
        }
    }

    fn sizes(self, forward: bool) -> (usize, usize) {
        match self {
            Self::Packed(packed) => (packed.outer, packed.inner),
            Self::Plain(matrix) if forward => (matrix.rows, matrix.columns),
            Self::Plain(matrix) => (matrix.columns, matrix.rows),
        }
    }
}

/// y [tokens, out] = x [tokens, in] · Wᵀ, plus `residual` [tokens, out] if given.
///
/// # Errors
/// When the shapes do not fit together.
pub fn linear_forward(
    cpu: &Cpu,
    precision: Precision,
    x: Matrix<'_>,
    weights: Weights<'_>,
    residual: Option<&[f32]>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    let (out, inner) = weights.sizes(true);
    check("linear", "x", x.rows * inner, x.rows * x.columns)?;
    check("linear", "y", x.rows * out, y.len())?;
    let target = match residual {
        Some(residual) => {
            check("linear", "residual", x.rows * out, residual.len())?;
            Target::Sum(y, residual)
        }
        None => Target::Store(y),
    };
    product(cpu, precision, x.by_rows(), weights.right(true), target);
    Ok(())
}

/// dx [tokens, in] = dy [tokens, out] · W.
///
/// # Errors
/// When the shapes do not fit together.
pub fn linear_backward_input(
    cpu: &Cpu,
    precision: Precision,
    dy: Matrix<'_>,
    weights: Weights<'_>,
    dx: &mut [f32],
) -> Result<(), KernelError> {
    let (width, inner) = weights.sizes(false);
    check("linear backward", "dy", dy.rows * inner, dy.rows * dy.columns)?;
    check("linear backward", "dx", dy.rows * width, dx.len())?;
    product(cpu, precision, dy.by_rows(), weights.right(false), Target::Store(dx));
    Ok(())
}

/// dW [out, in] = dyᵀ · x for dy [tokens, out] and x [tokens, in]; added to what is there when `accumulate`.
///
/// # Errors
/// When the shapes do not fit together.
pub fn linear_backward_weights(
    cpu: &Cpu,
    precision: Precision,
    dy: Matrix<'_>,
    x: Matrix<'_>,
    accumulate: bool,
    dw: &mut [f32],
) -> Result<(), KernelError> {
    check("linear backward", "x", dy.rows * x.columns, x.rows * x.columns)?;
    check("linear backward", "dW", dy.columns * x.columns, dw.len())?;
    let target = if accumulate { Target::Accumulate(dw) } else { Target::Store(dw) };
    product(cpu, precision, dy.by_columns(), Right::Plain(x.by_columns()), target);
    Ok(())
}
