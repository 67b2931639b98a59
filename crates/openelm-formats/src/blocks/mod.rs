//! Quantised blocks, packed and unpacked.
//!
//! The layouts, but for MLX's, are llama.cpp's to the bit, and so is the rounding of its reference quantisers, sums in f32 and in its order included:
//! the same values give the same bytes. Every function is total: values that are not finite give some block, never a panic.

pub(crate) mod affine;
mod fit;
mod packed_scales;
mod q4_0;
pub(crate) mod q4_1;
mod q4_k;
mod q5_0;
pub(crate) mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

use half::f16;
use rayon::prelude::*;

use crate::dtype::DType;

/// Blocks of 32 elements.
const SMALL: usize = 32;
/// Blocks of 256 elements ("super-blocks").
const LARGE: usize = 256;
/// Blocks that one thread takes at a time: the slowest type needs about 10 µs for one.
const BATCH: usize = 64;

/// The blocks of `values`; `None` for plain types, or where the values fill no whole number of blocks.
pub(crate) fn quantise(values: &[f32], dtype: DType) -> Option<Vec<u8>> {
    match dtype {
        DType::Q4_0 => pack(values, q4_0::quantise),
        DType::Q4_1 => pack(values, q4_1::quantise),
        DType::Q5_0 => pack(values, q5_0::quantise),
        DType::Q5_1 => pack(values, q5_1::quantise),
        DType::Q8_0 => pack(values, q8_0::quantise),
        DType::Q4_K => pack(values, q4_k::quantise),
        DType::Q5_K => pack(values, q5_k::quantise),
        DType::Q6_K => pack(values, q6_k::quantise),
        DType::Affine4 => pack(values, affine::quantise4),
        DType::Affine8 => pack(values, affine::quantise8),
        _ => None,
    }
}

/// The values of whole blocks, what is left over at the end left out; `None` for plain types.
pub(crate) fn dequantise(bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
    match dtype {
        DType::Q4_0 => Some(unpack(bytes, q4_0::dequantise)),
        DType::Q4_1 => Some(unpack(bytes, q4_1::dequantise)),
        DType::Q5_0 => Some(unpack(bytes, q5_0::dequantise)),
        DType::Q5_1 => Some(unpack(bytes, q5_1::dequantise)),
        DType::Q8_0 => Some(unpack(bytes, q8_0::dequantise)),
        DType::Q4_K => Some(unpack(bytes, q4_k::dequantise)),
        DType::Q5_K => Some(unpack(bytes, q5_k::dequantise)),
        DType::Q6_K => Some(unpack(bytes, q6_k::dequantise)),
        DType::Affine4 => Some(unpack(bytes, affine::dequantise4)),
        DType::Affine8 => Some(unpack(bytes, affine::dequantise8)),
        _ => None,
    }
}

fn pack<const N: usize, const B: usize>(values: &[f32], block: fn(&[f32; N]) -> [u8; B]) -> Option<Vec<u8>> {
    let (values, []) = values.as_chunks::<N>() else {
        return None;
    };
    let mut bytes = vec![0; values.len() * B];
    let (blocks, _) = bytes.as_chunks_mut::<B>();
    blocks.par_chunks_mut(BATCH).zip(values.par_chunks(BATCH)).for_each(|(blocks, values)| {
        for (bytes, values) in blocks.iter_mut().zip(values) {
            *bytes = block(values);
        }
    });
    Some(bytes)
}

fn unpack<const N: usize, const B: usize>(bytes: &[u8], block: fn(&[u8; B]) -> [f32; N]) -> Vec<f32> {
    bytes.as_chunks::<B>().0.iter().flat_map(block).collect()
}

/// 16 bytes with elements 0 to 15 in the low and 16 to 31 in the high halves, of levels below 16.
fn nibbles(levels: &[u8; SMALL]) -> [u8; SMALL / 2] {
    std::array::from_fn(|i| levels[i] | levels[i + SMALL / 2] << 4)
}

/// The levels of [`nibbles`].
fn levels(nibbles: &[u8; SMALL / 2]) -> [u8; SMALL] {
    std::array::from_fn(|i| if i < SMALL / 2 { nibbles[i] & 0xf } else { nibbles[i - SMALL / 2] >> 4 })
}

/// Levels below 32 as their fifth bits, the first lowest, and [`nibbles`] of the others.
fn five_bits(levels: &[u8; SMALL]) -> ([u8; 4], [u8; SMALL / 2]) {
    let fifth = levels.iter().rev().fold(0_u32, |bits, level| bits << 1 | u32::from(level >> 4 & 1));
    (fifth.to_le_bytes(), nibbles(&levels.map(|level| level & 0xf)))
}

/// The levels of [`five_bits`].
fn five_bit_levels(fifth: [u8; 4], low_bits: &[u8; SMALL / 2]) -> [u8; SMALL] {
    let (fifth, low) = (u32::from_le_bytes(fifth), levels(low_bits));
    std::array::from_fn(|i| low[i] | ((fifth >> i & 1) as u8) << 4)
}

/// A scale as stored.
fn half_bytes(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

/// The value of largest magnitude, the first where several are; 0 for none above 0.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0_f32, |largest, value| if largest.abs() < value.abs() { *value } else { largest })
}

/// The least and the greatest value, those that are no number left out.
fn limits(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(low, high), value| {
        (if *value < low { *value } else { low }, if *value > high { *value } else { high })
    })
}

/// 1 / `value`, and 0 for 0.
fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smooth values of both signs, and each block's extreme at another place.
    fn wave(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * i) as f32 * 0.013).sin() * (1.0 + (i / 32 % 7) as f32) * 0.05).collect()
    }

    /// FNV-1a.
    fn hash(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }

    #[test]
    fn bytes_are_llama_cpps() {
        // Sums of random bytes, exact in f32, with a range that grows from super-block to super-block.
        let mut state = 1_u32;
        let values: Vec<f32> = (0..2048)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [_, a, b, c] = state.to_le_bytes().map(f32::from);
                (a + b + c - 384.0) / 2048.0 * (1 + i / 256) as f32
            })
            .collect();
        // Hashes of what the reference quantisers of llama.cpp (as in llama-cpp-python 0.3.36) make of the same values.
        for (dtype, expected) in [
            (DType::Q4_0, 0x1114_6a04_a49f_33e3),
            (DType::Q4_1, 0x8c62_59a9_cc9f_9dc9),
            (DType::Q5_0, 0xe3c6_9e66_888f_1a46),
            (DType::Q5_1, 0x1841_0ebe_f3b7_47d1),
            (DType::Q8_0, 0xdccc_72f1_10a8_4870),
            (DType::Q4_K, 0x982a_c1fb_1541_608d),
            (DType::Q5_K, 0x2ad6_d02c_31b4_8230),
            (DType::Q6_K, 0x9336_df99_69ee_0fb0),
        ] {
            assert_eq!(hash(&quantise(&values, dtype).unwrap()), expected, "{dtype}");
        }
    }

    #[test]
    fn errors_are_as_small_as_the_bits_allow() {
        let values = wave(2048);
        let power = values.iter().map(|value| value * value).sum::<f32>();
        // Relative to the power of the values: about 1/(3·4^bits) for values that fill the range, times a block's crest factor.
        for (dtype, bound) in [
            (DType::Q8_0, 3.0e-5),
            (DType::Q6_K, 5.0e-4),
            (DType::Q5_K, 1.5e-3),
            (DType::Q5_0, 2.0e-3),
            (DType::Q5_1, 2.0e-3),
            (DType::Q4_K, 6.0e-3),
            (DType::Q4_0, 8.0e-3),
            (DType::Q4_1, 8.0e-3),
            (DType::Affine4, 8.0e-3),
            (DType::Affine8, 3.0e-5),
        ] {
            let bytes = quantise(&values, dtype).unwrap();
            assert_eq!(bytes.len(), values.len() / dtype.block_len() * dtype.size());
            let back = dequantise(&bytes, dtype).unwrap();
            assert_eq!(back.len(), values.len());
            let error = back.iter().zip(&values).map(|(back, value)| (back - value).powi(2)).sum::<f32>();
            assert!(error < bound * power, "{dtype}: {}", error / power);
        }
    }

    #[test]
    fn grids_come_back_exactly() {
        // Multiples of a power of two that each type can hold, its extreme among them in each block.
        let types = [
            (DType::Q4_0, -8, 7),
            (DType::Q5_0, -16, 15),
            (DType::Q8_0, -127, 127),
            (DType::Q4_1, -3, 12),
            (DType::Q5_1, 1, 32),
            (DType::Affine4, -30, -15),
            (DType::Affine8, -200, 55),
        ];
        for (dtype, low, high) in types {
            let level = |i: i32| match i % 32 {
                0 => low,
                31 => high,
                _ => low + i * 5 % (high - low + 1),
            };
            let values: Vec<f32> = (0..64).map(|i| level(i) as f32 / 64.0).collect();
            assert_eq!(dequantise(&quantise(&values, dtype).unwrap(), dtype).unwrap(), values, "{dtype}");
        }
    }

    #[test]
    fn odd_values_do_no_harm() {
        for dtype in DType::QUANTISED {
            let zeros = quantise(&[0.0; 256], dtype).unwrap();
            assert!(dequantise(&zeros, dtype).unwrap().iter().all(|value| *value == 0.0), "{dtype}");
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1.0e-40] {
                quantise(&[odd; 256], dtype).unwrap();
                let mut values = wave(256);
                values[77] = odd;
                let blocks = quantise(&values, dtype).unwrap();
                dequantise(&blocks, dtype).unwrap();
            }
            let constant = dequantise(&quantise(&[-0.75; 256], dtype).unwrap(), dtype).unwrap();
            assert!(constant.iter().all(|value| (value + 0.75).abs() < 1.0e-3), "{dtype}: {}", constant[0]);
            assert_eq!(quantise(&[0.0; 31], dtype), None);
        }
        assert_eq!(quantise(&[0.0; 32], DType::F32), None);
        assert_eq!(dequantise(&[0; 32], DType::F32), None);
    }
}
