//! A GGUF file as a source of CoreNet's tensors.
//!
//! What must stay true: llama.cpp keeps the two halves of `ffn.proj_1` (gate, then up) as tensors of their own and changes nothing
//! else, so joining them gives back CoreNet's weights; what the metadata say of the model's shape must be what its tensors have.

use std::borrow::Cow;
use std::path::Path;

use openelm_formats::{DType, FormatError, Gguf, GgufValue, TensorBytes, TensorInfo, TensorSource, encode_f32};
use openelm_model::ModelConfig;

use crate::error::CheckpointError;
use crate::shapes::config_of_shapes;

/// llama.cpp's name of the architecture, and the prefix of its keys.
const ARCHITECTURE: &str = "openelm";
/// Positions in CoreNet's rotary table where nothing says more; GGUF has no such key.
const ROPE_POSITIONS: usize = 4096;

/// Names of a layer's tensors that are one tensor in both formats: GGUF's, CoreNet's.
pub const LAYER_NAMES: [(&str, &str); 7] = [
    ("attn_k_norm", "attn.k_norm"),
    ("attn_norm", "attn_norm"),
    ("attn_output", "attn.out_proj"),
    ("attn_q_norm", "attn.q_norm"),
    ("attn_qkv", "attn.qkv_proj"),
    ("ffn_down", "ffn.proj_2"),
    ("ffn_norm", "ffn_norm"),
];

/// The tensors of a GGUF file under CoreNet's names.
pub(crate) struct GgufWeights {
    file: Gguf,
    infos: Vec<TensorInfo>,
    /// By position in `infos`: the tensors in the file whose rows follow each other.
    parts: Vec<Vec<TensorInfo>>,
}

impl GgufWeights {
    /// Opens a file and pairs its tensors with CoreNet's.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = Gguf::open(path)?;
        let architecture = file.get("general.architecture").and_then(GgufValue::as_str).unwrap_or_default();
        if architecture != ARCHITECTURE {
            let reason = format!("the file holds a model of the architecture {architecture:?}, not {ARCHITECTURE:?}");
            return Err(CheckpointError::NoWeights { path: path.to_owned(), reason, hint: "give a GGUF file of an OpenELM model".into() });
        }
        let mut weights = Self { infos: Vec::new(), parts: Vec::new(), file };
        for info in weights.file.infos().to_vec() {
            let name = corenet_name_of(&info.name);
            match weights.infos.iter().position(|known| known.name == name) {
                None => {
                    weights.infos.push(TensorInfo { name, ..info.clone() });
                    weights.parts.push(vec![info]);
                }
                Some(place) => weights.join(place, info)?,
            }
        }
        // Gate above up, whichever the file has first.
        for parts in &mut weights.parts {
            parts.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(weights)
    }

    fn join(&mut self, place: usize, info: TensorInfo) -> Result<(), CheckpointError> {
        let (Some(known), Some(parts)) = (self.infos.get_mut(place), self.parts.get_mut(place)) else { return Ok(()) };
        if known.shape != info.shape || parts.len() != 1 {
            let path = self.file.path().to_owned();
            let reason = format!("tensor {:?} of shape {:?} does not fit its other half, {:?}", info.name, info.shape, known.shape);
            return Err(CheckpointError::NoWeights { path, reason, hint: "convert the model to GGUF again".into() });
        }
        if let Some(rows) = known.shape.first_mut() {
            *rows = rows.saturating_mul(2);
        }
        if known.dtype != info.dtype {
            known.dtype = DType::F32;
        }
        parts.push(info);
        Ok(())
    }

    pub fn file(&self) -> &Gguf {
        &self.file
    }

    /// The model's configuration: shapes from the tensors, the rest from the metadata.
    pub fn config(&self) -> Result<ModelConfig, CheckpointError> {
        let fault = |reason: String| CheckpointError::Config {
            path: self.file.path().to_owned(),
            reason,
            hint: "the file is damaged or of another kind of model; convert the model again".into(),
        };
        let value = |key: &str| {
            let key = format!("{ARCHITECTURE}.{key}");
            self.file.get(&key).ok_or_else(|| fault(format!("there is no key {key}")))
        };
        let number = |key: &str| {
            let number = value(key)?.as_u64().and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| fault(format!("{ARCHITECTURE}.{key} is no natural number")))
        };
        let mut config = config_of_shapes(self.file.path(), &self.infos)?;
        let context = number("context_length")?;
        config.max_context_length = context;
        config.rope_max_length = ROPE_POSITIONS.max(context.saturating_mul(2));
        let base = value("rope.freq_base")?.as_f64();
        config.rope_freq_constant = base.ok_or_else(|| fault("openelm.rope.freq_base is no number with a fraction".into()))?;
        config.validate().map_err(|source| CheckpointError::Model { path: self.file.path().to_owned(), source })?;
        let layers = config.layers().map_err(|source| CheckpointError::Model { path: self.file.path().to_owned(), source })?;
        for (key, found) in
            [("block_count", layers.len()), ("embedding_length", config.model_dim), ("attention.key_length", config.head_dim)]
        {
            let stated = number(key)?;
            if stated != found {
                return Err(fault(format!("{ARCHITECTURE}.{key} is {stated}, but the tensors have {found}")));
            }
        }
        let lists: [(&str, Vec<usize>); 3] = [
            ("attention.head_count", layers.iter().map(|layer| layer.num_query_heads).collect()),
            ("attention.head_count_kv", layers.iter().map(|layer| layer.num_kv_heads).collect()),
            ("feed_forward_length", layers.iter().map(|layer| layer.ffn_dim).collect()),
        ];
        for (key, found) in lists {
            let stated = value(key)?;
            let same = match (stated.as_u64s(), stated.as_u64()) {
                (Some(list), _) => list.len() == found.len() && list.iter().zip(&found).all(|(a, b)| *a == *b as u64),
                (None, Some(one)) => found.iter().all(|found| one == *found as u64),
                (None, None) => false,
            };
            if !same {
                return Err(fault(format!("{ARCHITECTURE}.{key} is not what the tensors have: {found:?}")));
            }
        }
        Ok(config)
    }

    fn parts_of(&self, name: &str) -> Result<(&TensorInfo, &[TensorInfo]), FormatError> {
        let place = self.infos.iter().position(|info| info.name == name);
        let found = place.and_then(|place| self.infos.get(place).zip(self.parts.get(place)));
        let (info, parts) = found.ok_or_else(|| FormatError::NoTensor { path: self.file.path().to_owned(), name: name.to_owned() })?;
        Ok((info, parts))
    }
}

/// CoreNet's name of a GGUF tensor, of the joint one for a half; a name without a counterpart stays what it is.
fn corenet_name_of(name: &str) -> String {
    match name {
        "token_embd.weight" => return "token_embeddings.weight".into(),
        "output_norm.weight" => return "norm.weight".into(),
        "output.weight" => return "classifier.weight".into(),
        _ => {}
    }
    let rest = name.strip_prefix("blk.").and_then(|rest| rest.strip_suffix(".weight"));
    let Some((layer, tail)) = rest.and_then(|rest| rest.split_once('.')) else { return name.to_owned() };
    let own = match tail {
        "ffn_gate" | "ffn_up" => Some("ffn.proj_1"),
        tail => LAYER_NAMES.into_iter().find(|(gguf, _)| *gguf == tail).map(|(_, own)| own),
    };
    own.map_or_else(|| name.to_owned(), |own| format!("layers.{layer}.{own}.weight"))
}

impl TensorSource for GgufWeights {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, FormatError> {
        let (info, parts) = self.parts_of(name)?;
        match parts {
            [whole] => self.file.bytes(&whole.name),
            // Halves of different types have no common bytes but those of their values.
            parts if parts.iter().any(|part| part.dtype != info.dtype) => Ok(Cow::Owned(encode_f32(&self.f32(name)?, info.dtype)?)),
            parts => {
                let mut bytes = Vec::with_capacity(info.byte_len());
                for part in parts {
                    bytes.extend_from_slice(&self.file.bytes(&part.name)?);
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }

    fn parts(&self, name: &str) -> Result<Vec<(TensorInfo, TensorBytes)>, FormatError> {
        let (_, parts) = self.parts_of(name)?;
        let mut all = Vec::with_capacity(parts.len());
        for part in parts {
            all.append(&mut self.file.parts(&part.name)?);
        }
        Ok(all)
    }

    fn release(&self, name: &str) {
        if let Ok((_, parts)) = self.parts_of(name) {
            parts.iter().for_each(|part| self.file.release(&part.name));
        }
    }

    fn f32(&self, name: &str) -> Result<Vec<f32>, FormatError> {
        let (_, parts) = self.parts_of(name)?;
        let mut values = Vec::new();
        for part in parts {
            values.append(&mut self.file.f32(&part.name)?);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_counterparts() {
        assert_eq!(corenet_name_of("blk.12.attn_qkv.weight"), "layers.12.attn.qkv_proj.weight");
        assert_eq!(corenet_name_of("blk.0.ffn_up.weight"), "layers.0.ffn.proj_1.weight");
        assert_eq!(corenet_name_of("output_norm.weight"), "norm.weight");
        assert_eq!(corenet_name_of("blk.0.attn_q.weight"), "blk.0.attn_q.weight");
    }
}
