//! The configuration of a model from the shapes of its tensors alone, for files that carry none (CoreNet's `.pt`).
//!
//! What must stay true: what shapes do not tell (context length, rotary constant) is that of the named size that fits, else
//! CoreNet's default; a guess that does not give exactly these shapes is an error.

use std::collections::BTreeMap;
use std::path::Path;

use openelm_formats::TensorInfo;
use openelm_model::{ModelConfig, Multipliers, OpenElm, PRESETS, preset};

use crate::error::CheckpointError;
use crate::names::corenet_name;

/// The configuration whose tensors are `infos`.
pub(crate) fn config_of_shapes(path: &Path, infos: &[TensorInfo]) -> Result<ModelConfig, CheckpointError> {
    let shapes: BTreeMap<&str, &[usize]> = infos.iter().map(|info| (corenet_name(&info.name), info.shape.as_slice())).collect();
    let fault = |reason: String| CheckpointError::NoWeights {
        path: path.to_owned(),
        reason,
        hint: "give weights of an OpenELM, with CoreNet's or Hugging Face's tensor names".into(),
    };
    let shape = |name: &str| shapes.get(name).copied().ok_or_else(|| fault(format!("there is no tensor {name}")));
    let &[vocab_size, model_dim] = shape("token_embeddings.weight")? else {
        return Err(fault("token_embeddings.weight is no matrix".into()));
    };
    for name in PRESETS {
        if let Ok(mut config) = preset(name) {
            config.vocab_size = vocab_size;
            if fits(&config, &shapes) {
                return Ok(config);
            }
        }
    }
    let layers = (0..).take_while(|layer| shapes.contains_key(format!("layers.{layer}.attn_norm.weight").as_str())).count();
    let &[head_dim] = shape("layers.0.attn.q_norm.weight")? else {
        return Err(fault("layers.0.attn.q_norm.weight is no vector".into()));
    };
    let (mut query, mut ffn, mut groups, mut divisor, mut gated) = (Vec::new(), Vec::new(), 1, 0, true);
    for layer in 0..layers {
        let rows = |tail: &str, axis: usize| -> Result<usize, CheckpointError> {
            Ok(shape(&format!("layers.{layer}.{tail}.weight"))?.get(axis).copied().unwrap_or(0))
        };
        let (qkv_rows, query_dim) = (rows("attn.qkv_proj", 0)?, rows("attn.out_proj", 1)?);
        let (first, width) = (rows("ffn.proj_1", 0)?, rows("ffn.proj_2", 1)?);
        let kv_dim = qkv_rows.saturating_sub(query_dim) / 2;
        if head_dim == 0 || kv_dim == 0 || width == 0 || model_dim == 0 {
            return Err(fault(format!("layer {layer} has a tensor without elements")));
        }
        if query_dim < kv_dim {
            return Err(fault(format!("layer {layer} has {kv_dim} channels of keys, but only {query_dim} of queries")));
        }
        groups = query_dim / kv_dim;
        divisor = gcd(divisor, width);
        gated = first == 2 * width;
        query.push(query_dim as f64 / model_dim as f64);
        ffn.push(width as f64 / model_dim as f64);
    }
    let mut config = preset("OpenELM-270M").map_err(|source| CheckpointError::Model { path: path.to_owned(), source })?;
    config.num_transformer_layers = layers;
    config.model_dim = model_dim;
    config.head_dim = head_dim;
    config.num_gqa_groups = groups;
    config.qkv_multipliers = Multipliers::List(query);
    config.ffn_multipliers = Multipliers::List(ffn);
    config.ffn_dim_divisor = divisor.max(1);
    config.vocab_size = vocab_size;
    config.ffn_with_glu = gated;
    config.share_input_output_layers = !shapes.contains_key("classifier.weight");
    if fits(&config, &shapes) {
        return Ok(config);
    }
    Err(fault("the shapes of its tensors are those of no OpenELM".into()))
}

fn fits(config: &ModelConfig, shapes: &BTreeMap<&str, &[usize]>) -> bool {
    OpenElm::infos_of(config).is_ok_and(|infos| {
        infos.len() == shapes.len() && infos.iter().all(|info| shapes.get(info.name.as_str()) == Some(&info.shape.as_slice()))
    })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use openelm_formats::DType;

    use super::*;

    fn infos(config: &ModelConfig) -> Vec<TensorInfo> {
        let info = |info: &openelm_model::ParameterInfo| TensorInfo::new(info.name.clone(), DType::F32, info.shape.clone());
        OpenElm::infos_of(config).unwrap().iter().map(info).collect()
    }

    #[test]
    fn named_sizes_and_others_are_found() {
        for name in PRESETS {
            let mut config = preset(name).unwrap();
            config.vocab_size = 77;
            assert_eq!(config_of_shapes(Path::new("x"), &infos(&config)).unwrap(), config, "{name}");
        }
        let mut other = preset("OpenELM-5M").unwrap();
        other.num_transformer_layers = 5;
        other.ffn_multipliers = Multipliers::List(vec![0.7, 3.3]);
        other.share_input_output_layers = false;
        let found = config_of_shapes(Path::new("x"), &infos(&other)).unwrap();
        assert_eq!(found.layers().unwrap(), other.layers().unwrap());
        assert!(!found.share_input_output_layers);
    }

    #[test]
    fn foreign_shapes_are_refused() {
        let mut infos = infos(&preset("OpenELM-tiny").unwrap());
        infos[3].shape[0] += 1;
        assert!(config_of_shapes(Path::new("x"), &infos).unwrap_err().to_string().contains("no OpenELM"));
        let mut few = infos.clone();
        few.iter_mut().find(|info| info.name == "layers.0.attn.out_proj.weight").unwrap().shape[1] = 8;
        assert!(config_of_shapes(Path::new("x"), &few).unwrap_err().to_string().contains("only 8 of queries"));
        infos.remove(0);
        assert!(config_of_shapes(Path::new("x"), &infos).unwrap_err().to_string().contains("token_embeddings"));
    }
}
