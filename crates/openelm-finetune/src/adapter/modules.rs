//! Which modules of a model an adapter changes, and how each (PEFT `tuners/tuners_utils.py`, `check_target_module_exists`).
//!
//! What must stay true: every name of a list finds a module; what is found can be adapted.

use openelm_train::openelm_checkpoint::{AdaptedModule, EMBEDDING_MODULE, ModelConfig, OpenElm, hf_name};

use super::config::{AdapterConfig, Targets};
use super::error::AdapterError;
use super::pattern::Pattern;

/// The modules of a model of `model` that `config` changes, in the model's order; `place` is what errors call the configuration.
///
/// # Errors
/// When a target finds no module, or one that cannot be adapted.
pub fn modules(place: &str, config: &AdapterConfig, model: &ModelConfig) -> Result<Vec<AdaptedModule>, AdapterError> {
    let infos = OpenElm::infos_of(model)?;
    let names: Vec<(&str, String, bool)> = infos
        .iter()
        .filter_map(|info| {
            let name = info.name.strip_suffix(".weight")?;
            Some((name, hf_name(&info.name).strip_suffix(".weight")?.to_owned(), info.shape.len() == 2))
        })
        .collect();
    let target = Target::new(place, config)?;
    if let Targets::Names(targets) = &config.target_modules
        && let Some(lost) = targets.iter().find(|target| !names.iter().any(|(_, path, _)| is_end(path, target)))
    {
        return Err(AdapterError::config(
            place,
            "target_modules",
            format!("{lost} is the name of no module of the model"),
            format!("the modules are {EMBEDDING_MODULE}, qkv_proj, out_proj, proj_1 and proj_2"),
        ));
    }
    let (ranks, alphas) = (compiled(place, &config.rank_pattern)?, compiled(place, &config.alpha_pattern)?);
    let mut found = Vec::new();
    for (name, path, is_matrix) in &names {
        if !target.finds(path)? {
            continue;
        }
        let refuse = |key: &str, reason: &str, hint: &str| Err(AdapterError::config(place, key, format!("{path}: {reason}"), hint));
        if !is_matrix || *name == "classifier" {
            let hint = "leave it out of target_modules";
            return refuse(
                "target_modules",
                if *is_matrix { "an adapter of the head is not supported" } else { "a norm has no matrix to adapt" },
                hint,
            );
        }
        if config.use_dora && *name == EMBEDDING_MODULE {
            return refuse(
                "use_dora",
                "DoRA of the embedding is not supported (nor is it in PEFT 0.10)",
                "leave token_embeddings out of target_modules",
            );
        }
        let rank = first(place, &ranks, path)?.unwrap_or(config.r);
        let alpha = first(place, &alphas, path)?.unwrap_or(config.lora_alpha);
        found.push(AdaptedModule {
            name: (*name).to_owned(),
            rank,
            scale: config.scale(rank, alpha),
            // PEFT drops nothing of what is looked up.
            dropout: if *name == EMBEDDING_MODULE { 0.0 } else { config.lora_dropout },
            magnitude: config.use_dora,
        });
    }
    if found.is_empty() {
        let hint = format!("names are such as transformer.layers.0.attn.qkv_proj or transformer.{EMBEDDING_MODULE}");
        return Err(AdapterError::config(place, "target_modules", "finds no module of the model", hint));
    }
    Ok(found)
}

/// Whether `path` is `end` or ends with it behind a dot.
fn is_end(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

enum Target<'a> {
    Names(&'a [String]),
    Pattern(&'a str, &'a str, Pattern),
}

impl<'a> Target<'a> {
    fn new(place: &'a str, config: &'a AdapterConfig) -> Result<Self, AdapterError> {
        Ok(match &config.target_modules {
            Targets::Names(names) => Self::Names(names),
            Targets::Pattern(text) => Self::Pattern(place, text, pattern(place, "target_modules", text, text)?),
        })
    }

    fn finds(&self, path: &str) -> Result<bool, AdapterError> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| is_end(path, name))),
            Self::Pattern(place, text, pattern) => pattern.matches(path).map_err(|reason| fault(place, "target_modules", text, &reason)),
        }
    }
}

fn pattern(place: &str, key: &str, text: &str, whole: &str) -> Result<Pattern, AdapterError> {
    Pattern::new(whole).map_err(|reason| fault(place, key, text, &reason))
}

fn fault(place: &str, key: &str, text: &str, reason: &str) -> AdapterError {
    AdapterError::config(place, key, format!("{text}: {reason}"), "simplify the expression, or list the modules")
}

fn compiled<T: Copy>(place: &str, patterns: &[(String, T)]) -> Result<Vec<(Pattern, T)>, AdapterError> {
    // As PEFT wraps them: for the end of a name, behind a dot.
    let one =
        |(text, value): &(String, T)| Ok((pattern(place, "rank_pattern or alpha_pattern", text, &format!(r"(.*\.)?({text})"))?, *value));
    patterns.iter().map(one).collect()
}

fn first<T: Copy>(place: &str, patterns: &[(Pattern, T)], path: &str) -> Result<Option<T>, AdapterError> {
    for (pattern, value) in patterns {
        if pattern.matches(path).map_err(|reason| fault(place, "rank_pattern or alpha_pattern", path, &reason))? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use openelm_train::openelm_checkpoint::Multipliers;

    use super::*;

    fn model() -> ModelConfig {
        ModelConfig {
            num_transformer_layers: 2,
            model_dim: 64,
            head_dim: 16,
            num_gqa_groups: 2,
            qkv_multipliers: Multipliers::Uniform(1.0),
            ffn_multipliers: Multipliers::Uniform(2.0),
            ffn_dim_divisor: 16,
            vocab_size: 32,
            max_context_length: 16,
            padding_index: None,
            rope_freq_constant: 1e4,
            rope_max_length: 32,
            normalize_qk_projections: true,
            share_input_output_layers: false,
            ffn_with_glu: true,
        }
    }

    fn config(targets: Targets) -> AdapterConfig {
        AdapterConfig {
            r: 4,
            lora_alpha: 8.0,
            lora_dropout: 0.1,
            target_modules: targets,
            rank_pattern: vec![("layers.1.attn.qkv_proj".into(), 2)],
            alpha_pattern: vec![(r"layers\.\d\.ffn.*".into(), 16.0)],
            use_rslora: false,
            use_dora: false,
            base: None,
        }
    }

    fn names(list: &[&str]) -> Targets {
        Targets::Names(list.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn lists_and_expressions_find_modules_with_their_ranks() {
        let found = modules("x", &config(names(&["token_embeddings", "qkv_proj", "ffn.proj_2"])), &model()).unwrap();
        let seen: Vec<_> = found.iter().map(|module| (module.name.as_str(), module.rank, module.scale, module.dropout)).collect();
        assert_eq!(
            seen,
            [
                ("token_embeddings", 4, 2.0, 0.0),
                ("layers.0.attn.qkv_proj", 4, 2.0, 0.1),
                ("layers.0.ffn.proj_2", 4, 4.0, 0.1),
                ("layers.1.attn.qkv_proj", 2, 4.0, 0.1),
                ("layers.1.ffn.proj_2", 4, 4.0, 0.1),
            ]
        );
        let by_pattern = Targets::Pattern(r".*layers\.1\..*proj.*".into());
        let found = modules("x", &AdapterConfig { use_rslora: true, ..config(by_pattern) }, &model()).unwrap();
        assert_eq!(found.len(), 4);
        assert!((found[0].scale - 8.0 / 2f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn targets_that_cannot_be_are_named() {
        let reason = |config: AdapterConfig| modules("x", &config, &model()).unwrap_err().to_string();
        assert!(reason(config(names(&["qkv_proj", "q_proj"]))).contains("q_proj is the name of no module"));
        assert!(reason(config(names(&["lm_head"]))).contains("the head is not supported"));
        assert!(reason(config(names(&["attn_norm"]))).contains("a norm has no matrix"));
        assert!(reason(config(Targets::Pattern("layers".into()))).contains("finds no module"));
        let dora = AdapterConfig { use_dora: true, ..config(names(&["token_embeddings"])) };
        assert!(reason(dora).contains("DoRA of the embedding"));
    }
}
