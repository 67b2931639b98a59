//! Names of tensors in CoreNet's files and in Hugging Face's: the same, with `transformer.` before them there; an untied head is
//! `classifier.weight` here and `lm_head.weight` there.

use openelm_model::ParameterInfo;

const PREFIX: &str = "transformer.";

/// The Hugging Face name of a CoreNet tensor.
pub fn hf_name(corenet: &str) -> String {
    match corenet {
        "classifier.weight" => "lm_head.weight".into(),
        name => format!("{PREFIX}{name}"),
    }
}

/// The CoreNet name of a Hugging Face tensor; a CoreNet name stays what it is.
pub fn corenet_name(hf: &str) -> &str {
    match hf {
        "lm_head.weight" => "classifier.weight",
        name => name.strip_prefix(PREFIX).unwrap_or(name),
    }
}

/// The name of an optimizer moment in a checkpoint: PyTorch's word for it (`exp_avg`, `exp_avg_sq`), then the parameter's name.
pub fn moment_name(kind: &str, corenet: &str) -> String {
    format!("{kind}.{}", hf_name(corenet))
}

/// Tails of a layer's tensors in the order of CoreNet's modules: attention, feed-forward part, then the norms before each.
const MODULE_ORDER: [&str; 8] =
    ["attn.qkv_proj", "attn.q_norm", "attn.k_norm", "attn.out_proj", "ffn.proj_1", "ffn.proj_2", "ffn_norm", "attn_norm"];

/// `infos` in the order in which CoreNet's modules hold them, which is that of its files and of its optimizer.
pub fn corenet_module_order(infos: &[ParameterInfo]) -> Vec<&ParameterInfo> {
    let key = |info: &ParameterInfo| {
        let rest = info.name.strip_prefix("layers.").and_then(|rest| rest.strip_suffix(".weight")).and_then(|rest| rest.split_once('.'));
        match (rest, &*info.name) {
            (Some((layer, tail)), _) => {
                let place = MODULE_ORDER.iter().position(|known| *known == tail).unwrap_or(MODULE_ORDER.len());
                (1, layer.parse::<usize>().unwrap_or(usize::MAX), place)
            }
            (None, "token_embeddings.weight") => (0, 0, 0),
            (None, "norm.weight") => (2, 0, 0),
            (None, _) => (3, 0, 0),
        }
    };
    let mut ordered: Vec<&ParameterInfo> = infos.iter().collect();
    ordered.sort_by_key(|info| key(info));
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for name in ["token_embeddings.weight", "layers.0.attn.qkv_proj.weight", "norm.weight", "classifier.weight"] {
            assert_eq!(corenet_name(&hf_name(name)), name);
            assert_eq!(corenet_name(name), name);
        }
        assert_eq!(hf_name("classifier.weight"), "lm_head.weight");
    }
}
