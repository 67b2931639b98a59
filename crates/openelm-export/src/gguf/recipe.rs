//! Which tensor is stored as which type: llama.cpp's rules for OpenELM.
//!
//! Sources: `convert_hf_to_gguf.py` for the plain types and Q8_0, `llama_tensor_get_type` and its fallbacks in llama-quant.cpp for the
//! others. Where a row is no whole number of 256-element blocks, the quantiser takes a type of 32-element blocks that is larger, and
//! f16 where that fails too.

use openelm_checkpoint::Weights;
use openelm_formats::DType;

use crate::gguf::tensors::GgufTensor;
use crate::hugging_face::default_dtype;
use crate::settings::ExportDtype;

/// What a GGUF file mostly consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q4KS,
    Q4KM,
    Q5KS,
    Q5KM,
    Q6K,
}

impl GgufType {
    /// The type of most matrices, and llama.cpp's number of the recipe.
    const fn base(self) -> (DType, u32) {
        match self {
            Self::F32 => (DType::F32, 0),
            Self::F16 => (DType::F16, 1),
            Self::Q4_0 => (DType::Q4_0, 2),
            Self::Q4_1 => (DType::Q4_1, 3),
            Self::Q8_0 => (DType::Q8_0, 7),
            Self::Q5_0 => (DType::Q5_0, 8),
            Self::Q4KS => (DType::Q4_K, 14),
            Self::Q4KM => (DType::Q4_K, 15),
            Self::Q5KS => (DType::Q5_K, 16),
            Self::Q5KM => (DType::Q5_K, 17),
            Self::Q6K => (DType::Q6_K, 18),
            Self::Bf16 => (DType::BF16, 32),
        }
    }

    pub(super) const fn file_type(self) -> u32 {
        self.base().1
    }

    /// True where llama.cpp's converter makes the file, false where its quantiser does.
    pub(super) const fn by_converter(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16 | Self::Q8_0)
    }

    /// The plain type that fits the model's size: f32, or bf16 from the size of OpenELM-3B on.
    pub fn plain_for(weights: &Weights) -> Self {
        match default_dtype(weights) {
            Ok(ExportDtype::Bf16) => Self::Bf16,
            _ => Self::F32,
        }
    }

    /// The type of `tensor` in a model of `layers` layers.
    pub(super) fn dtype_of(self, tensor: &GgufTensor, layers: usize) -> DType {
        let Some(row) = tensor.row() else { return DType::F32 };
        let (base, _) = self.base();
        if self.by_converter() {
            return if row.is_multiple_of(base.block_len()) { base } else { DType::F16 };
        }
        let wanted = match (&*tensor.name, tensor.layer) {
            // It is the output matrix too.
            ("token_embd.weight", _) if !row.is_multiple_of(base.block_len()) => DType::Q8_0,
            ("token_embd.weight", _) => DType::Q6_K,
            (name, Some(layer)) if name.ends_with(".attn_qkv.weight") => self.of_values(layer, layers),
            (name, Some(layer)) if name.ends_with(".ffn_down.weight") => self.of_down(layer, layers),
            _ => base,
        };
        fitting(wanted, row)
    }

    /// Matrices with the attention's values, on which quality depends most.
    fn of_values(self, layer: usize, layers: usize) -> DType {
        match self {
            Self::Q4KM | Self::Q5KM if deserves_more(layer, layers) => DType::Q6_K,
            Self::Q4KS if layer < 4 => DType::Q5_K,
            _ => self.base().0,
        }
    }

    fn of_down(self, layer: usize, layers: usize) -> DType {
        match self {
            Self::Q4KM | Self::Q5KM if deserves_more(layer, layers) => DType::Q6_K,
            Self::Q4KS if layer < layers / 8 => DType::Q5_K,
            _ => self.base().0,
        }
    }
}

/// The first and last eighth of the layers, and every third between.
fn deserves_more(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// `wanted`, or what a row of this length can be stored as in its place.
fn fitting(wanted: DType, row: usize) -> DType {
    let smaller_blocks = match wanted {
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        _ => DType::F16,
    };
    let fits = |dtype: &DType| row.is_multiple_of(dtype.block_len());
    [wanted, smaller_blocks].into_iter().find(fits).unwrap_or(DType::F16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighths_and_thirds() {
        let chosen = |layers| (0..layers).filter(|layer| deserves_more(*layer, layers)).collect::<Vec<_>>();
        assert_eq!(chosen(8), [0, 3, 6, 7]);
        assert_eq!(chosen(16), [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!(chosen(5), [2, 4]);
    }

    #[test]
    fn rows_that_do_not_fit_fall_back() {
        assert_eq!(fitting(DType::Q4_K, 512), DType::Q4_K);
        assert_eq!(fitting(DType::Q5_K, 96), DType::Q5_1);
        assert_eq!(fitting(DType::Q6_K, 40), DType::F16);
        assert_eq!(fitting(DType::Q4_0, 40), DType::F16);
    }
}
