//! The tensors of a GGUF file in the order in which llama.cpp writes them, and the parameters they are made of.

use openelm_checkpoint::{GGUF_LAYER_NAMES, ModelError, ParameterInfo, hf_name};

use crate::error::ExportError;
use crate::gguf::recipe::GgufType;

/// Which rows of a parameter a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    All,
    FirstHalf,
    SecondHalf,
}

/// One tensor of the file.
#[derive(Debug)]
pub(super) struct GgufTensor<'a> {
    pub name: String,
    pub layer: Option<usize>,
    pub parameter: &'a ParameterInfo,
    pub rows: Rows,
}

impl GgufTensor<'_> {
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.parameter.shape.clone();
        if let (false, Some(rows)) = (self.rows == Rows::All, shape.first_mut()) {
            *rows /= 2;
        }
        shape
    }

    /// Elements of a row; `None` for a vector.
    pub fn row(&self) -> Option<usize> {
        match self.parameter.shape[..] {
            [_, row] => Some(row),
            _ => None,
        }
    }
}

/// The tensors for `parameters`: by Hugging Face's names where the converter writes them, by layer and name where the quantiser does.
pub(super) fn tensors(parameters: &[ParameterInfo], kind: GgufType) -> Result<Vec<GgufTensor<'_>>, ExportError> {
    let mut sorted: Vec<&ParameterInfo> = parameters.iter().collect();
    sorted.sort_by_key(|info| hf_name(&info.name));
    let mut tensors = Vec::with_capacity(sorted.len() + sorted.len() / 8);
    for parameter in sorted {
        let unknown = || ExportError::Model(ModelError::Unexpected { name: parameter.name.clone() });
        let whole = |name: &str| GgufTensor { name: name.into(), layer: None, parameter, rows: Rows::All };
        match &*parameter.name {
            "token_embeddings.weight" => tensors.push(whole("token_embd.weight")),
            "norm.weight" => tensors.push(whole("output_norm.weight")),
            name => {
                let rest = name.strip_prefix("layers.").and_then(|rest| rest.strip_suffix(".weight"));
                let (layer, tail) = rest.and_then(|rest| rest.split_once('.')).ok_or_else(unknown)?;
                let number: usize = layer.parse().map_err(|_| unknown())?;
                let mut part = |tail: &str, rows| {
                    tensors.push(GgufTensor { name: format!("blk.{number}.{tail}.weight"), layer: Some(number), parameter, rows });
                };
                if tail == "ffn.proj_1" {
                    part("ffn_gate", Rows::FirstHalf);
                    part("ffn_up", Rows::SecondHalf);
                } else {
                    let (gguf, _) = GGUF_LAYER_NAMES.into_iter().find(|(_, own)| *own == tail).ok_or_else(unknown)?;
                    part(gguf, Rows::All);
                }
            }
        }
    }
    if !kind.by_converter() {
        tensors.sort_by(|a, b| (a.layer, &a.name).cmp(&(b.layer, &b.name)));
    }
    Ok(tensors)
}
