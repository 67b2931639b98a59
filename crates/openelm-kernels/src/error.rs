//! Everything that can go wrong before a kernel runs. Kernels themselves cannot fail: shapes are checked first.

use thiserror::Error;

/// Why a kernel was not run.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KernelError {
    /// A name in the environment that is no instruction set.
    #[error(
        "OPENELM_ISA={name}: no such instruction set\nhint: use plain, avx2, avx512, avx512bf16, amx, neon, neondot or neonbf16, or unset OPENELM_ISA"
    )]
    UnknownIsa { name: String },
    /// An instruction set that this processor lacks.
    #[error(
        "instruction set {name} is not available on this processor\nhint: this one has {available}; unset OPENELM_ISA to take the best"
    )]
    MissingIsa { name: &'static str, available: String },
    /// A number of threads that is none.
    #[error("{variable}={value}: not a number of threads\nhint: give a whole number from 1 to {limit}")]
    ThreadCount { variable: &'static str, value: String, limit: usize },
    /// The operating system gave no threads.
    #[error("cannot start {count} threads: {reason}\nhint: set OPENELM_THREADS to a smaller number")]
    Threads { count: usize, reason: String },
    /// Weights of a type that no kernel reads.
    #[error("weights of the type {dtype} cannot be multiplied\nhint: convert them to F32, F16, BF16 or one of llama.cpp's block types")]
    StoredType { dtype: &'static str },
    /// A slice whose length is not what the shape says.
    #[error("{operation}: {operand} has {found} values, its shape needs {expected}\nhint: check the dimensions given with it")]
    Length { operation: &'static str, operand: &'static str, expected: usize, found: usize },
    /// A dimension that the operation cannot have.
    #[error("{operation}: {what} is {value}, {reason}\nhint: {hint}")]
    Dimension { operation: &'static str, what: &'static str, value: usize, reason: &'static str, hint: &'static str },
}

/// Fails unless `operand` has `expected` values.
pub(crate) fn check(operation: &'static str, operand: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found {
        return Ok(());
    }
    Err(KernelError::Length { operation, operand, expected, found })
}
