//! Stored bytes, plain or quantised, to and from f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::blocks;
use crate::dtype::DType;
use crate::error::FormatError;

/// `values` as little-endian F64, F32, F16 or BF16, rounded to nearest even, or as quantised blocks, the same as llama.cpp's. Quantised
/// types need a whole number of blocks (of a tensor, whose rows must be whole blocks too). Other types are refused.
pub fn encode_f32(values: &[f32], dtype: DType) -> Result<Vec<u8>, FormatError> {
    match dtype {
        DType::F64 => Ok(values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect()),
        DType::F32 => Ok(if cfg!(target_endian = "little") {
            bytemuck::cast_slice(values).to_vec()
        } else {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        }),
        DType::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            Ok(little_endian(halves.reinterpret_cast()))
        }
        DType::BF16 => {
            let mut halves = vec![bf16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            Ok(little_endian(halves.reinterpret_cast()))
        }
        dtype => blocks::quantise(values, dtype).ok_or(FormatError::Encode { dtype, count: values.len() }),
    }
}

fn little_endian(halves: &[u16]) -> Vec<u8> {
    if cfg!(target_endian = "little") {
        return bytemuck::cast_slice(halves).to_vec();
    }
    halves.iter().flat_map(|half| half.to_le_bytes()).collect()
}

/// Little-endian F64 (rounded to nearest even), F32, F16, BF16 or quantised elements as f32; `None` for other types. Bytes need no
/// alignment; those that do not fill an element or block at the end are left out.
pub fn decode_f32(bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
    match dtype {
        DType::F64 => Some(elements(bytes).map(|element| f64::from_le_bytes(element) as f32).collect()),
        DType::F32 => Some(elements(bytes).map(f32::from_le_bytes).collect()),
        DType::F16 => {
            let halves: Vec<f16> = elements(bytes).map(f16::from_le_bytes).collect();
            Some(halves.to_f32_vec())
        }
        DType::BF16 => Some(elements(bytes).map(|element| bf16::from_le_bytes(element).to_f32()).collect()),
        dtype => blocks::dequantise(bytes, dtype),
    }
}

fn elements<const N: usize>(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        // bf16 keeps 8 significant bits: 257 and 259 lie halfway between even neighbours, 257.1 does not.
        let values = [257.0, 259.0, 257.1, -257.0, f32::INFINITY];
        let bytes = encode_f32(&values, DType::BF16).unwrap();
        assert_eq!(decode_f32(&bytes, DType::BF16).unwrap(), [256.0, 260.0, 258.0, -256.0, f32::INFINITY]);
        // f16 keeps 11; its largest number is 65504, its smallest 2^-24.
        let values = [2049.0, 2051.0, 65504.0, 65520.0, 6.0e-8, 2.9e-8];
        let bytes = encode_f32(&values, DType::F16).unwrap();
        assert_eq!(decode_f32(&bytes, DType::F16).unwrap(), [2048.0, 2052.0, 65504.0, f32::INFINITY, 2.0_f32.powi(-24), 0.0]);
    }

    #[test]
    fn every_half_comes_back() {
        for bits in 0..=u16::MAX {
            for dtype in [DType::F16, DType::BF16] {
                let value = decode_f32(&bits.to_le_bytes(), dtype).unwrap();
                if !value[0].is_nan() {
                    assert_eq!(encode_f32(&value, dtype).unwrap(), bits.to_le_bytes(), "{bits:#x} {dtype}");
                }
            }
        }
    }

    #[test]
    fn wide_types_are_exact_and_integers_refused() {
        let values = [0.1, -3.5, f32::MIN_POSITIVE, 1.0e-45];
        for dtype in [DType::F32, DType::F64] {
            assert_eq!(decode_f32(&encode_f32(&values, dtype).unwrap(), dtype).unwrap(), values);
        }
        assert!(encode_f32(&values, DType::I32).is_err());
        assert!(decode_f32(&[0; 4], DType::U8).is_none());
    }
}
