//! MLX's affine quantisation: groups of a row share a scale and a bias, and the levels of their elements follow each other bit by bit in u32
//! words, the first in the lowest bits; one of 3, 5 or 6 bits may begin in one word and end in the next. value = scale · q + bias.
//!
//! The rounding is MLX's to the bit, in f32: the end of a group that is farther from 0 is met exactly, and so is 0.

use half::f16;
use rayon::prelude::*;

use crate::blocks::{affine, q4_1, q5_1};
use crate::dtype::DType;

/// Groups that one thread takes at a time.
const BATCH: usize = 256;
/// Elements of a block: their levels take as many words as a level has bits.
const BLOCK: usize = 32;
/// MLX's least scale.
const LEAST_SCALE: f32 = 1e-7;

/// How a tensor is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineLayout {
    /// Bits of a level: 2, 3, 4, 5, 6 or 8.
    pub bits: u32,
    /// Elements of a row that share scale and bias: a multiple of 32, with MLX 32, 64 or 128.
    pub group: usize,
}

/// A quantised tensor; `words` are row by row, scales and biases one for each group.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineTensor {
    pub words: Vec<u32>,
    pub scales: Vec<f32>,
    pub biases: Vec<f32>,
}

impl AffineLayout {
    /// Words of a group; `None` for bits that MLX does not have, or a group of no whole blocks of 32.
    pub fn words_of_group(self) -> Option<usize> {
        let known = matches!(self.bits, 2..=6 | 8) && self.group > 0 && self.group.is_multiple_of(BLOCK);
        known.then_some(self.group / BLOCK * self.bits as usize)
    }

    /// The bits of a level, and those alone.
    fn mask(self) -> u32 {
        (1 << self.bits) - 1
    }

    /// The 32 levels in `bits` words.
    #[inline]
    fn levels(self, words: &[u32]) -> [u8; BLOCK] {
        let bits = self.bits as usize;
        std::array::from_fn(|i| {
            let (word, place) = (i * bits / 32, i * bits % 32);
            let next = words.get(word + 1).copied().unwrap_or(0);
            ((u64::from(words[word]) | u64::from(next) << 32) >> place) as u8 & self.mask() as u8
        })
    }

    /// Quantises rows of whole groups; `None` where they are none, or the layout is not possible.
    pub fn quantise(self, values: &[f32]) -> Option<AffineTensor> {
        let words_of_group = self.words_of_group()?;
        if !values.len().is_multiple_of(self.group) {
            return None;
        }
        let groups = values.len() / self.group;
        let mut tensor = AffineTensor { words: vec![0; groups * words_of_group], scales: vec![0.0; groups], biases: vec![0.0; groups] };
        let batches = tensor.words.par_chunks_mut(BATCH * words_of_group).zip(values.par_chunks(BATCH * self.group));
        let batches = batches.zip(tensor.scales.par_chunks_mut(BATCH)).zip(tensor.biases.par_chunks_mut(BATCH));
        batches.for_each(|(((words, values), scales), biases)| {
            let groups = words.chunks_mut(words_of_group).zip(values.chunks(self.group));
            for (((words, values), scale), bias) in groups.zip(scales).zip(biases) {
                (*scale, *bias) = self.group(values, words);
            }
        });
        Some(tensor)
    }

    /// Fills the words of one group; gives its scale and bias.
    fn group(self, values: &[f32], words: &mut [u32]) -> (f32, f32) {
        let top = self.mask() as f32;
        let (low, high) = values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
        let low_is_edge = low.abs() > high.abs();
        let size = ((high - low) / top).max(LEAST_SCALE);
        let scale = if low_is_edge { size } else { -size };
        let edge = if low_is_edge { low } else { high };
        let level = (edge / scale).round_ties_even();
        let (scale, bias) = if level == 0.0 { (scale, 0.0) } else { (edge / level, edge) };
        let bits = self.bits as usize;
        for (words, values) in words.chunks_exact_mut(bits).zip(values.chunks_exact(BLOCK)) {
            words.fill(0);
            for (i, value) in values.iter().enumerate() {
                let level = ((value - bias) / scale).round_ties_even().clamp(0.0, top);
                let (word, level) = (i * bits / 32, u64::from(level as u32) << (i * bits % 32));
                words[word] |= level as u32;
                if level >> 32 > 0 {
                    words[word + 1] |= (level >> 32) as u32;
                }
            }
        }
        (scale, bias)
    }

    /// The values of a quantised tensor; `None` where the parts do not fit each other.
    pub fn dequantise(self, words: &[u32], scales: &[f32], biases: &[f32]) -> Option<Vec<f32>> {
        let words_of_group = self.words_of_group()?;
        if scales.len() != biases.len() || scales.len().checked_mul(words_of_group) != Some(words.len()) {
            return None;
        }
        let mut values = vec![0.0; scales.len() * self.group];
        let groups = values.par_chunks_exact_mut(self.group).zip(words.par_chunks_exact(words_of_group)).zip(scales.par_iter().zip(biases));
        groups.with_min_len(BATCH).for_each(|((values, words), (scale, bias))| {
            for (values, words) in values.chunks_exact_mut(BLOCK).zip(words.chunks_exact(self.bits as usize)) {
                for (value, level) in values.iter_mut().zip(self.levels(words)) {
                    *value = f32::from(level) * scale + bias;
                }
            }
        });
        Some(values)
    }

    /// The same values in blocks of 32, without rounding: Q4_1 or, for levels of 5 bits, Q5_1 where all scales and biases are values of f16, else
    /// Affine4 or, for levels of more than 4 bits, Affine8. `None` where the parts do not fit each other.
    pub fn blocks(self, words: &[u32], scales: &[f32], biases: &[f32]) -> Option<(DType, Vec<u8>)> {
        let words_of_group = self.words_of_group()?;
        let fits = scales.len() == biases.len() && scales.len().checked_mul(words_of_group) == Some(words.len());
        let exact = |value: &f32| f16::from_f32(*value).to_f32() == *value;
        if !fits {
            return None;
        }
        let all_exact = self.bits < 6 && scales.par_iter().chain(biases).all(exact);
        let dtype = match (self.bits, all_exact) {
            (5, true) => DType::Q5_1,
            (..=4, true) => DType::Q4_1,
            (..=4, false) => DType::Affine4,
            _ => DType::Affine8,
        };
        let mut bytes = vec![0; scales.len() * self.group / BLOCK * dtype.size()];
        let blocks = bytes.par_chunks_exact_mut(dtype.size()).zip(words.par_chunks_exact(self.bits as usize)).enumerate();
        blocks.with_min_len(BATCH).for_each(|(number, (to, words))| {
            let (scale, bias) = (scales[number * BLOCK / self.group], biases[number * BLOCK / self.group]);
            let levels = self.levels(words);
            match dtype {
                DType::Affine8 => to.copy_from_slice(&affine::block8(scale, bias, &levels)),
                DType::Affine4 => to.copy_from_slice(&affine::block4(scale, bias, &levels)),
                DType::Q5_1 => to.copy_from_slice(&q5_1::block(scale, bias, &levels)),
                _ => to.copy_from_slice(&q4_1::block(scale, bias, &levels)),
            }
        });
        Some((dtype, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_and_the_middle_are_near() {
        let values: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 40.0) * 0.013).collect();
        for (bits, bound) in [(2, 0.25), (3, 0.11), (4, 0.05), (5, 0.025), (6, 0.012), (8, 0.003)] {
            let layout = AffineLayout { bits, group: 64 };
            let tensor = layout.quantise(&values).unwrap();
            assert_eq!(tensor.words.len(), 256 * bits as usize / 32);
            let back = layout.dequantise(&tensor.words, &tensor.scales, &tensor.biases).unwrap();
            let worst = back.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < bound * 1.4, "{bits} bits: {worst}");
        }
    }

    #[test]
    fn blocks_hold_the_same_values() {
        let values: Vec<f32> = (0..3 * 128).map(|i| ((i * 37 % 101) as f32 - 40.0) * 0.013).collect();
        for (bits, group) in [(2, 32), (3, 64), (3, 32), (4, 64), (5, 32), (5, 128), (6, 64), (8, 128), (4, 32), (8, 64)] {
            let layout = AffineLayout { bits, group };
            let mut tensor = layout.quantise(&values).unwrap();
            let check = |tensor: &AffineTensor, expected: DType| {
                let (dtype, bytes) = layout.blocks(&tensor.words, &tensor.scales, &tensor.biases).unwrap();
                let expected = match (bits, expected) {
                    (6.., _) | (5, DType::Affine4) => DType::Affine8,
                    (5, _) => DType::Q5_1,
                    _ => expected,
                };
                assert_eq!(dtype, expected);
                let values = layout.dequantise(&tensor.words, &tensor.scales, &tensor.biases).unwrap();
                assert_eq!(crate::decode_f32(&bytes, dtype).unwrap(), values, "{bits} bits, groups of {group}");
            };
            // More digits than f16 has, then fewer.
            check(&tensor, DType::Affine4);
            for value in tensor.scales.iter_mut().chain(&mut tensor.biases) {
                *value = half::bf16::from_f32(*value).to_f32();
            }
            check(&tensor, DType::Q4_1);
            // A value beyond f16's range.
            tensor.biases[1] = 1e5;
            check(&tensor, DType::Affine4);
            assert_eq!(layout.blocks(&tensor.words[1..], &tensor.scales, &tensor.biases), None);
        }
        let halves = AffineLayout { bits: 4, group: 16 };
        assert_eq!(halves.blocks(&[0; 4], &[0.0; 2], &[0.0; 2]), None);
    }

    #[test]
    fn odd_input_gives_nothing_or_some_group() {
        let layout = AffineLayout { bits: 4, group: 64 };
        assert_eq!(layout.quantise(&[0.0; 63]), None);
        assert_eq!(AffineLayout { bits: 7, group: 64 }.quantise(&[0.0; 64]), None);
        assert_eq!(AffineLayout { bits: 4, group: 0 }.quantise(&[]), None);
        assert_eq!(layout.dequantise(&[0; 8], &[1.0], &[]), None);
        for odd in [0.0, f32::NAN, f32::INFINITY, f32::MAX, 1e-40] {
            let tensor = layout.quantise(&[odd; 64]).unwrap();
            layout.dequantise(&tensor.words, &tensor.scales, &tensor.biases).unwrap();
        }
    }
}
