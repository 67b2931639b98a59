//! MLX's affine quantisation: groups of a row share a scale and a bias, and the levels of several elements lie in one u32, the first
//! in its lowest bits. value = scale · q + bias.
//!
//! The rounding is MLX's to the bit, in f32: the end of a group that is farther from 0 is met exactly, and so is 0.

use half::f16;
use rayon::prelude::*;

use crate::blocks::{affine, q4_1};
use crate::dtype::DType;

/// Groups that one thread takes at a time.
const BATCH: usize = 256;
/// Elements of a block.
const BLOCK: usize = 32;
/// MLX's least scale.
const LEAST_SCALE: f32 = 1e-7;

/// How a tensor is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineLayout {
    /// Bits of a level: 2, 4 or 8.
    pub bits: u32,
    /// Elements of a row that share scale and bias.
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
    /// Elements in one word; `None` for bits that do not divide it evenly or a group that fills no whole number of words.
    pub fn per_word(self) -> Option<usize> {
        let per_word = match self.bits {
            2 => 16,
            4 => 8,
            8 => 4,
            _ => return None,
        };
        (self.group > 0 && self.group.is_multiple_of(per_word)).then_some(per_word)
    }

    /// Quantises rows of whole groups; `None` where they are none, or the layout is not possible.
    pub fn quantise(self, values: &[f32]) -> Option<AffineTensor> {
        let per_word = self.per_word()?;
        if !values.len().is_multiple_of(self.group) {
            return None;
        }
        let groups = values.len() / self.group;
        let words_of_group = self.group / per_word;
        let mut tensor = AffineTensor { words: vec![0; values.len() / per_word], scales: vec![0.0; groups], biases: vec![0.0; groups] };
        let batches = tensor.words.par_chunks_mut(BATCH * words_of_group).zip(values.par_chunks(BATCH * self.group));
        let batches = batches.zip(tensor.scales.par_chunks_mut(BATCH)).zip(tensor.biases.par_chunks_mut(BATCH));
        batches.for_each(|(((words, values), scales), biases)| {
            let groups = words.chunks_mut(words_of_group).zip(values.chunks(self.group));
            for (((words, values), scale), bias) in groups.zip(scales).zip(biases) {
                (*scale, *bias) = self.group(values, per_word, words);
            }
        });
        Some(tensor)
    }

    /// Fills the words of one group; gives its scale and bias.
    fn group(self, values: &[f32], per_word: usize, words: &mut [u32]) -> (f32, f32) {
        let top = ((1_u32 << self.bits) - 1) as f32;
        let (low, high) = values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
        let low_is_edge = low.abs() > high.abs();
        let size = ((high - low) / top).max(LEAST_SCALE);
        let scale = if low_is_edge { size } else { -size };
        let edge = if low_is_edge { low } else { high };
        let level = (edge / scale).round_ties_even();
        let (scale, bias) = if level == 0.0 { (scale, 0.0) } else { (edge / level, edge) };
        for (word, values) in words.iter_mut().zip(values.chunks(per_word)) {
            *word = values.iter().rev().fold(0, |word, value| {
                let level = ((value - bias) / scale).round_ties_even().clamp(0.0, top);
                word << self.bits | level as u32
            });
        }
        (scale, bias)
    }

    /// The values of a quantised tensor; `None` where the parts do not fit each other.
    pub fn dequantise(self, words: &[u32], scales: &[f32], biases: &[f32]) -> Option<Vec<f32>> {
        let words_of_group = self.group / self.per_word()?;
        if scales.len() != biases.len() || scales.len().checked_mul(words_of_group) != Some(words.len()) {
            return None;
        }
        let mask = (1_u32 << self.bits) - 1;
        let groups = words.chunks(words_of_group).zip(scales.iter().zip(biases));
        let values = groups.flat_map(|(words, (scale, bias))| {
            words
                .iter()
                .flat_map(move |word| (0..32 / self.bits).map(move |place| (word >> (place * self.bits) & mask) as f32 * scale + bias))
        });
        Some(values.collect())
    }

    /// The same values in blocks of 32, without rounding: Affine8 for levels of 8 bits, else Q4_1, or Affine4 where a scale or bias is no value
    /// of f16. `None` where the parts do not fit each other, or groups are no whole blocks.
    pub fn blocks(self, words: &[u32], scales: &[f32], biases: &[f32]) -> Option<(DType, Vec<u8>)> {
        let per_word = self.per_word()?;
        let words_of_group = self.group / per_word;
        let fits = scales.len() == biases.len() && scales.len().checked_mul(words_of_group) == Some(words.len());
        let exact = |value: &f32| f16::from_f32(*value).to_f32() == *value;
        if !fits || !self.group.is_multiple_of(BLOCK) {
            return None;
        }
        let dtype = match self.bits {
            8 => DType::Affine8,
            _ if scales.par_iter().chain(biases).all(exact) => DType::Q4_1,
            _ => DType::Affine4,
        };
        let words_of_block = BLOCK / per_word;
        let mut bytes = vec![0; words.len() / words_of_block * dtype.size()];
        let mask = (1_u32 << self.bits) - 1;
        let blocks = bytes.par_chunks_exact_mut(dtype.size()).zip(words.par_chunks_exact(words_of_block)).enumerate();
        blocks.with_min_len(BATCH).for_each(|(number, (to, words))| {
            let (scale, bias) = (scales[number * BLOCK / self.group], biases[number * BLOCK / self.group]);
            let place = |i: usize| i % per_word * self.bits as usize;
            let levels = std::array::from_fn(|i| (words[i / per_word] >> place(i) & mask) as u8);
            match dtype {
                DType::Affine8 => to.copy_from_slice(&affine::block8(scale, bias, &levels)),
                DType::Affine4 => to.copy_from_slice(&affine::block4(scale, bias, &levels)),
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
        for (bits, bound) in [(2, 0.25), (4, 0.05), (8, 0.003)] {
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
        for (bits, group) in [(2, 32), (4, 64), (8, 128), (4, 32), (8, 64)] {
            let layout = AffineLayout { bits, group };
            let mut tensor = layout.quantise(&values).unwrap();
            let check = |tensor: &AffineTensor, expected: DType| {
                let (dtype, bytes) = layout.blocks(&tensor.words, &tensor.scales, &tensor.biases).unwrap();
                assert_eq!(dtype, if bits == 8 { DType::Affine8 } else { expected });
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
        assert_eq!(AffineLayout { bits: 3, group: 64 }.quantise(&[0.0; 64]), None);
        assert_eq!(AffineLayout { bits: 4, group: 0 }.quantise(&[]), None);
        assert_eq!(layout.dequantise(&[0; 8], &[1.0], &[]), None);
        for odd in [0.0, f32::NAN, f32::INFINITY, f32::MAX, 1e-40] {
            let tensor = layout.quantise(&[odd; 64]).unwrap();
            layout.dequantise(&tensor.words, &tensor.scales, &tensor.biases).unwrap();
        }
    }
}
