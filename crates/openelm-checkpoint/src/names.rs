//! Names of tensors in CoreNet's files and in Hugging Face's: the same, with `transformer.` before them there; an untied head is
//! `classifier.weight` here and `lm_head.weight` there.

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
