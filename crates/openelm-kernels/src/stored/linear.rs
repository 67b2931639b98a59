//! A linear layer whose weights are as a file stores them.

use super::matrix::StoredRows;
use super::prepared::Prepared;
use super::rows::{MOST_TOKENS, multiply_rows};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::{byte_product, byte_rows::ByteRows};
use crate::error::check;
use crate::matmul::product::{Right, Target, product};
use crate::threads::Parts;
use crate::{Cpu, KernelError, Matrix, Values};

/// Rows of a task of few tokens.
const RUN: usize = 32;

/// y [tokens, out] = x [tokens, in] · Wᵀ for W [out, in]. Quantised weights meet tokens in 8 bits, or, when there are many tokens and the
/// processor has no dot products of bytes, or also Arm's matrix instructions for bf16, or the blocks are too fine for bytes, as bf16;
/// float weights of 32 and 16 bits meet f32.
///
/// # Errors
/// When the shapes do not fit together.
pub fn stored_linear(cpu: &Cpu, x: &[f32], weights: &StoredRows<'_>, y: &mut [f32]) -> Result<(), KernelError> {
    let (rows, columns) = (weights.rows(), weights.columns());
    let tokens = x.len() / columns.max(1);
    check("stored linear", "x", tokens * columns, x.len())?;
    check("stored linear", "y", tokens * rows, y.len())?;
    if tokens > MOST_TOKENS {
        return multiply_many(cpu, Values::F32(x), weights, Target::Store(y));
    }
    let mut prepared = Prepared::default();
    prepared.resize(tokens, columns);
    prepared.values.copy_from_slice(x);
    if let Some(run) = weights.run() {
        prepared.quantise(cpu.isa, run);
    }
    let to = Parts::new(y);
    cpu.threads.for_runs(rows, RUN, |first, count| {
        let mut out = [0.0; RUN * MOST_TOKENS];
        let out = &mut out[..tokens * count];
        // SAFETY: the instruction set is available; every task writes its own rows of each token.
        unsafe {
            multiply_rows(cpu.isa, weights, first, count, &prepared, out);
            for (token, out) in out.chunks_exact(count).enumerate() {
                to.part(token * rows + first, count).copy_from_slice(out);
            }
        }
    });
    Ok(())
}

/// x [tokens, in] · Wᵀ for many tokens, by dot products of bytes where the instruction set has them for it and all weights are blocks with
/// one scale for every 32, else by the matrix product.
///
/// # Errors
/// When x is no whole number of rows.
pub(crate) fn multiply_many(cpu: &Cpu, x: Values<'_>, weights: &StoredRows<'_>, target: Target<'_>) -> Result<(), KernelError> {
    let columns = weights.columns();
    let tokens = x.len() / columns.max(1);
    let x = Matrix::new(x, tokens, columns)?;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if byte_product::fits(cpu.isa, weights) {
        let x = ByteRows::new(cpu, x.values, weights);
        byte_product::byte_product(cpu, &x, weights, target);
        return Ok(());
    }
    product(cpu, weights.precision(), x.by_rows(), Right::Stored(weights), target);
    Ok(())
}

#[cfg(test)]
mod tests {
    use openelm_formats::{DType, decode_f32, encode_f32};

    use super::*;
    use crate::{Isa, StoredMatrix, Threads};

    #[test]
    fn many_tokens_give_what_dense_weights_give() {
        let value = |i: usize| ((i * i % 1013) as f32 * 0.013).sin() * (1.0 + (i / 32 % 7) as f32) * 0.05 + 0.003;
        let types = DType::QUANTISED.into_iter().chain([DType::F32, DType::F16, DType::BF16]);
        for dtype in types {
            for (tokens, rows, columns) in [(9, 33, 96), (12, 70, 1280), (1100, 40, 96), (13, 5, 448), (10, 34, 2048)] {
                let columns = usize::next_multiple_of(columns, dtype.block_len());
                let values: Vec<f32> = (0..rows * columns).map(value).collect();
                let bytes = encode_f32(&values, dtype).unwrap();
                let weights = decode_f32(&bytes, dtype).unwrap();
                let x: Vec<f32> = (0..tokens * columns).map(|i| value(3 * i + 1)).collect();
                let split = rows / 3;
                let (above, below) = bytes.split_at(bytes.len() / rows * split);
                let above = StoredMatrix::new(dtype, above, split, columns).unwrap();
                let stored = StoredRows::new(above, Some(StoredMatrix::new(dtype, below, rows - split, columns).unwrap())).unwrap();
                for isa in Isa::available() {
                    let cpu = Cpu::new(isa, Threads::new(2).unwrap()).unwrap();
                    let mut y = vec![f32::NAN; tokens * rows];
                    stored_linear(&cpu, &x, &stored, &mut y).unwrap();
                    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
                    let bytes = byte_product::fits(isa, &stored);
                    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
                    let bytes = false;
                    for token in (0..tokens).step_by(tokens / 9) {
                        let x = &x[token * columns..(token + 1) * columns];
                        for row in 0..rows {
                            let weights = &weights[row * columns..(row + 1) * columns];
                            let (mut expected, mut squares) = (0.0, 0.0);
                            let run = dtype.block_len().max(32);
                            for (block, weights) in x.chunks(run).zip(weights.chunks(run)) {
                                let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                                for (x, weight) in block.iter().zip(weights) {
                                    expected += f64::from(*weight) * f64::from(*x);
                                    // What rounding may do to this product: of activations to 8 bits, of both sides to bf16, of sums.
                                    let rounding = match (bytes, stored.precision()) {
                                        (true, _) => weight * largest / 254.0,
                                        (false, crate::Precision::Bf16) => weight * x / 256.0,
                                        (false, crate::Precision::F32) => weight * x * 1e-6,
                                    };
                                    squares += f64::from(rounding).powi(2);
                                }
                            }
                            let found = f64::from(y[token * rows + row]);
                            // Rounding errors of a sum grow with the root of the squares.
                            let bound = 4.0 * squares.sqrt() + 1e-6;
                            assert!((found - expected).abs() < bound, "{isa:?} {dtype} {tokens} {row}: {found} {expected}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn many_tokens_in_bytes_are_few_tokens_in_bytes() {
        let in_bytes = |isa: &Isa| isa.has_avx2() && *isa != Isa::Amx || *isa == Isa::NeonDot;
        for isa in Isa::available().into_iter().filter(in_bytes) {
            many_are_few(isa);
        }
    }

    fn many_are_few(isa: Isa) {
        let value = |i: usize| ((i * i % 1013) as f32 * 0.013).sin() * (1.0 + (i / 32 % 7) as f32) * 0.05 + 0.003;
        let types = DType::QUANTISED.into_iter().filter(|dtype| *dtype != DType::Q6_K).collect::<Vec<_>>();
        // A second part of its own type, and of another; one with more scales has none but its own beside it.
        let pairs = types.iter().enumerate().flat_map(|(index, &dtype)| [(dtype, dtype), (dtype, types[(index + 1) % types.len()])]);
        let fine = (isa != Isa::NeonDot).then_some((DType::Q6_K, DType::Q6_K));
        for (dtype, second) in pairs.chain(fine) {
            for (tokens, rows, columns) in [(9, 33, 96), (12, 70, 1280), (37, 130, 544), (13, 5, 448), (10, 34, 2048)] {
                let block = dtype.block_len().max(second.block_len());
                let columns = usize::next_multiple_of(columns, block);
                let values: Vec<f32> = (0..rows * columns).map(value).collect();
                let split = rows / 3;
                let (above, below) = values.split_at(split * columns);
                let (above, below) = (encode_f32(above, dtype).unwrap(), encode_f32(below, second).unwrap());
                let above = StoredMatrix::new(dtype, &above, split, columns).unwrap();
                let below = StoredMatrix::new(second, &below, rows - split, columns).unwrap();
                let stored = StoredRows::new(above, Some(below)).unwrap();
                let x: Vec<f32> = (0..tokens * columns).map(|i| value(3 * i + 1) * 3.0).collect();
                let cpu = Cpu::new(isa, Threads::new(2).unwrap()).unwrap();
                let mut many = vec![f32::NAN; tokens * rows];
                stored_linear(&cpu, &x, &stored, &mut many).unwrap();
                let mut few = vec![f32::NAN; tokens * rows];
                for (x, y) in x.chunks(4 * columns).zip(few.chunks_mut(4 * rows)) {
                    stored_linear(&cpu, x, &stored, y).unwrap();
                }
                let largest = few.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                for (i, (many, few)) in many.iter().zip(&few).enumerate() {
                    assert!(
                        (many - few).abs() < 3e-6 * largest,
                        "{isa:?} {dtype} and {second}, {tokens}x{rows}x{columns}, {i}: {many} {few}"
                    );
                }
            }
        }
    }

    #[test]
    fn shapes_are_checked() {
        let bytes = vec![0; 34 * 6];
        assert!(StoredMatrix::new(DType::Q8_0, &bytes, 3, 48).unwrap_err().to_string().contains("48"));
        assert!(StoredMatrix::new(DType::Q8_0, &bytes, 4, 64).is_err());
        assert!(StoredMatrix::new(DType::I32, &bytes, 3, 17).unwrap_err().to_string().contains("I32"));
        let rows = StoredRows::from(StoredMatrix::new(DType::Q8_0, &bytes, 3, 64).unwrap());
        let cpu = Cpu::new(Isa::Plain, Threads::new(1).unwrap()).unwrap();
        assert!(stored_linear(&cpu, &[0.0; 64], &rows, &mut [0.0; 2]).is_err());
        assert!(rows.first.read_row(3, &mut [0.0; 64]).is_err());
    }
}
