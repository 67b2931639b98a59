//! Weights that are no numbers, looked for in the bytes before any work begins.
//!
//! What must stay true: nothing is decoded but what a file stores in quantised blocks, or changes on its way, so that looking costs
//! one read of the files and little else.

use std::collections::BTreeSet;

use openelm_checkpoint::ParameterInfo;
use openelm_formats::DType;
use rayon::prelude::*;

use crate::error::MergeError;
use crate::models::Models;

/// Bytes that one thread looks through at a time; a multiple of every element's size.
const CHUNK: usize = 1 << 20;

/// Fails unless all `tensors` (number of the model, parameter) hold numbers alone; one that comes more than once is read once.
///
/// # Errors
/// When a weight is NaN or infinite, with its model, name and place, or reading fails.
pub(crate) fn check<'a>(models: &Models, tensors: impl IntoIterator<Item = &'a (usize, ParameterInfo)>) -> Result<(), MergeError> {
    let mut known = BTreeSet::new();
    for (model, info) in tensors {
        if known.insert((*model, info.name.as_str())) && !holds_numbers(models, *model, info)? {
            // Reading it says which value it is.
            models.values(*model, info)?;
        }
    }
    Ok(())
}

/// Whether the bytes can hold nothing but numbers; `false` where only the values can tell.
fn holds_numbers(models: &Models, model: usize, info: &ParameterInfo) -> Result<bool, MergeError> {
    let weights = models.weights(model);
    // What is changed on its way is decoded by `parts` already; do that once.
    if weights.stored(info).is_none() {
        return Ok(false);
    }
    let parts = weights.parts(info)?;
    let finite = parts.iter().all(|(part, bytes)| bytes.par_chunks(CHUNK).all(|chunk| finite(part.dtype, chunk)));
    weights.release(info);
    Ok(finite)
}

/// Whether no element of `bytes` has an exponent of ones; `false` for types that are no plain floats.
fn finite(dtype: DType, bytes: &[u8]) -> bool {
    // Counting, unlike looking for the first, becomes SIMD code.
    let halves = |mask: u16| bytes.chunks_exact(2).filter(|element| u16::from_le_bytes([element[0], element[1]]) & mask == mask).count();
    match dtype {
        DType::F32 => {
            let bits = |element: &[u8]| u32::from_le_bytes([element[0], element[1], element[2], element[3]]);
            bytes.chunks_exact(4).filter(|element| bits(element) & 0x7f80_0000 == 0x7f80_0000).count() == 0
        }
        DType::BF16 => halves(0x7f80) == 0,
        DType::F16 => halves(0x7c00) == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use openelm_formats::encode_f32;

    use super::*;

    #[test]
    fn exponents_of_ones_are_found() {
        let numbers = [0.0, -0.0, 1.0, -65504.0, 6e-8, 3.3e4];
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            assert!(finite(dtype, &encode_f32(&numbers, dtype).unwrap()), "{dtype:?}");
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = numbers;
                values[3] = odd;
                assert!(!finite(dtype, &encode_f32(&values, dtype).unwrap()), "{dtype:?} {odd}");
            }
        }
        assert!(finite(DType::F32, &encode_f32(&[f32::MAX, f32::MIN, f32::MIN_POSITIVE], DType::F32).unwrap()));
        // What is not looked at in the bytes is decoded.
        assert!(!finite(DType::Q8_0, &[0; 34]));
    }
}
