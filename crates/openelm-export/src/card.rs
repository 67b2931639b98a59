//! The model card: what the weights are, in words.

use openelm_checkpoint::ModelConfig;

/// What is known of the run that made the weights.
#[derive(Clone, Debug, Default)]
pub struct CardFacts {
    pub name: String,
    pub step: Option<u64>,
    pub tokens: Option<u64>,
    /// Names of the corpora with their weights.
    pub corpora: Vec<(String, f64)>,
}

/// The card's text.
pub(crate) fn card(config: &ModelConfig, facts: &CardFacts) -> String {
    let mut text = format!(
        "---\nlibrary_name: transformers\ntags: [openelm]\n---\n\n# {}\n\nA decoder-only language model of the OpenELM family: ",
        facts.name
    );
    text += &format!(
        "{} layers of different widths, model dimension {}, heads of {} channels, a vocabulary of {} and a context of {} tokens.\n",
        config.num_transformer_layers, config.model_dim, config.head_dim, config.vocab_size, config.max_context_length
    );
    if let (Some(step), Some(tokens)) = (facts.step, facts.tokens) {
        text += &format!("\nTrained for {step} steps on {tokens} tokens.\n");
    }
    if !facts.corpora.is_empty() {
        text += "\n| corpus | weight |\n|---|---|\n";
        for (name, weight) in &facts.corpora {
            text += &format!("| {name} | {weight} |\n");
        }
    }
    text + "\nThe tensors have Apple's names (`OpenELMForCausalLM`).\n"
}
