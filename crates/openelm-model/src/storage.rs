//! How the matrices of a frozen model lie in memory. Norm weights, and everything that is trained, are f32.
//!
//! What must stay true: whoever multiplies with a stored matrix gets its values in f32 from [`plain`], one matrix at a time.

use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{DType, Device, Int, Tensor};

use crate::ModelError;

/// Values that share a scale.
const BLOCK: u8 = 32;

/// A way to keep matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    #[default]
    F32,
    /// Rounded to nearest even: half the memory.
    Bf16,
    /// Eight bits and a scale for every 32 values, as llama.cpp's q8_0 (with the scale in f32): 9/32 of the memory. What was stored so in a
    /// file keeps its values.
    Q8_0,
}

impl Storage {
    /// `matrix` as it is kept.
    pub(crate) fn keep(self, name: &str, matrix: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        match self {
            Self::F32 => Ok(matrix),
            Self::Bf16 => Ok(matrix.cast(DType::BF16)),
            Self::Q8_0 => {
                let [_, columns] = matrix.dims();
                if !columns.is_multiple_of(usize::from(BLOCK)) {
                    return Err(ModelError::config(
                        "base",
                        "q8_0",
                        format!("{name} has rows of {columns} values, which is no multiple of {BLOCK}"),
                        "keep the base in bf16",
                    ));
                }
                Ok(matrix.quantize_dynamic(&scheme()))
            }
        }
    }

    /// Whether `device` can keep matrices so.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(self, device: &Device) -> Result<(), ModelError> {
        if self == Self::Q8_0 && *device != Device::flex() {
            return Err(ModelError::config("base", "q8_0", "only the CPU (flex) keeps a quantised base", "keep the base in bf16"));
        }
        Ok(())
    }
}

fn scheme() -> QuantScheme {
    QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native).per_block([BLOCK], ScaleDtype::F32)
}

/// The matrix with its values in f32.
pub fn plain(matrix: &Tensor<2>) -> Tensor<2> {
    match matrix.dtype() {
        DType::QFloat(_) => matrix.clone().dequantize(),
        DType::F32 => matrix.clone(),
        _ => matrix.clone().cast(DType::F32),
    }
}

/// Rows `ids` of the matrix, in f32.
pub(crate) fn rows(matrix: &Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    match matrix.dtype() {
        DType::QFloat(_) => plain(matrix).select(0, ids),
        _ => plain(&matrix.clone().select(0, ids)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_with_a_full_scale_keep_their_values() {
        let device = Device::flex();
        // As in a q8_0 block: a scale of 11 significant bits, levels of at most 127 in magnitude, one of them 127.
        let values: Vec<f32> = (0..128).map(|at| ((at * 37 % 255) as f32 - 127.0) * if at < 64 { 0.0123_f32 } else { 3.5 }).collect();
        let round = |value: f32| f32::from_bits(value.to_bits() & 0xffff_e000);
        let values: Vec<f32> = values
            .chunks(32)
            .flat_map(|block| {
                let scale = round(block.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0);
                let mut levels: Vec<f32> = block.iter().map(|v| (v / scale).round().clamp(-127.0, 127.0)).collect();
                levels[3] = 127.0;
                levels.into_iter().map(move |level| level * scale).collect::<Vec<_>>()
            })
            .collect();
        let tensor = Tensor::<1>::from_floats(&values[..], &device).reshape([2, 64]);
        let kept = Storage::Q8_0.keep("w", tensor).unwrap();
        assert!(matches!(kept.dtype(), DType::QFloat(_)));
        assert_eq!(plain(&kept).into_data().try_to_vec::<f32>().unwrap(), values);
        let ids = Tensor::<1, Int>::from_ints([1], &device);
        assert_eq!(rows(&kept, ids).into_data().try_to_vec::<f32>().unwrap(), values[64..]);
        let narrow = Tensor::<2>::zeros([2, 33], &device);
        assert!(Storage::Q8_0.keep("w", narrow).unwrap_err().to_string().contains("33 values"));
    }
}
