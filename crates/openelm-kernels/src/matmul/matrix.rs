//! Views of matrices in memory, and what a product reads of them.

use crate::{KernelError, Values};

/// A matrix [rows, columns] in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(crate) values: Values<'a>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl<'a> Matrix<'a> {
    /// `values` as [rows, columns].
    ///
    /// # Errors
    /// When there are more or fewer of them.
    pub fn new(values: Values<'a>, rows: usize, columns: usize) -> Result<Self, KernelError> {
        crate::error::check("matrix", "values", rows * columns, values.len())?;
        Ok(Self { values, rows, columns })
    }

    /// f32 `values` as [rows, columns].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn f32(values: &'a [f32], rows: usize, columns: usize) -> Result<Self, KernelError> {
        Self::new(Values::F32(values), rows, columns)
    }

    /// bf16 `values` as [rows, columns].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn bf16(values: &'a [u16], rows: usize, columns: usize) -> Result<Self, KernelError> {
        Self::new(Values::Bf16(values), rows, columns)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows from `start` to `start + count` - 1.
    pub(crate) fn row_range(self, start: usize, count: usize) -> Self {
        let values = self.values.part(start * self.columns, count * self.columns);
        Self { values, rows: count, columns: self.columns }
    }

    /// As an operand whose inner (summed) dimension runs along the columns.
    pub(crate) fn by_rows(self) -> Operand<'a> {
        Operand { matrix: self, inner_is_rows: false }
    }

    /// As an operand whose inner (summed) dimension runs along the rows.
    pub(crate) fn by_columns(self) -> Operand<'a> {
        Operand { matrix: self, inner_is_rows: true }
    }
}

/// A matrix as one side of a product: an outer dimension (rows of the left side, columns of the right) and an inner one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a> {
    pub(crate) matrix: Matrix<'a>,
    pub(crate) inner_is_rows: bool,
}

impl Operand<'_> {
    pub(crate) fn outer(&self) -> usize {
        if self.inner_is_rows { self.matrix.columns } else { self.matrix.rows }
    }

    pub(crate) fn inner(&self) -> usize {
        if self.inner_is_rows { self.matrix.rows } else { self.matrix.columns }
    }
}
