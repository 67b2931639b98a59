//! What a model costs: parameters a layer, bytes, floating-point operations a token, and days for a run. Pure functions.
//!
//! What must stay true: a multiply and an add count as two operations; attention is counted causally (half of the
//! score matrix); the embedding look-up costs nothing, the head does.

use crate::{LayerShape, ModelConfig, ModelError, OpenElm, parameters::first_ffn_rows};

/// One layer's share of the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerCost {
    pub shape: LayerShape,
    pub attention_parameters: usize,
    pub ffn_parameters: usize,
    pub norm_parameters: usize,
}

impl LayerCost {
    pub fn parameters(&self) -> usize {
        self.attention_parameters + self.ffn_parameters + self.norm_parameters
    }
}

/// The whole model's cost.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCost {
    pub layers: Vec<LayerCost>,
    pub embedding_parameters: usize,
    pub parameters: usize,
    /// Operations of one token's forward pass in a full sequence, on average.
    pub forward_flops_per_token: f64,
}

impl ModelCost {
    /// The cost of `config` with sequences of `sequence` tokens.
    ///
    /// # Errors
    /// When the configuration is impossible.
    pub fn new(config: &ModelConfig, sequence: usize) -> Result<Self, ModelError> {
        let parameters = OpenElm::infos_of(config)?.iter().map(|info| info.count()).sum();
        let model_dim = config.model_dim;
        let layers: Vec<_> = config
            .layers()?
            .into_iter()
            .map(|shape| LayerCost {
                shape,
                attention_parameters: model_dim * (shape.qkv_dim() + shape.query_dim()),
                ffn_parameters: model_dim * (first_ffn_rows(config, &shape) + shape.ffn_dim),
                norm_parameters: 2 * model_dim + if config.normalize_qk_projections { 2 * config.head_dim } else { 0 },
            })
            .collect();
        let head = config.vocab_size * model_dim;
        let matrices: usize = layers.iter().map(|layer| layer.attention_parameters + layer.ffn_parameters).sum();
        // Scores and the weighted sum of values: each head_dim multiply-adds a (query, visible key) pair and head.
        let visible = (sequence as f64 + 1.0) / 2.0;
        let attention: f64 = layers.iter().map(|layer| 4.0 * layer.shape.query_dim() as f64 * visible).sum();
        Ok(Self {
            layers,
            embedding_parameters: head * if config.share_input_output_layers { 1 } else { 2 },
            parameters,
            forward_flops_per_token: 2.0 * (matrices + head) as f64 + attention,
        })
    }

    /// Operations of one token's training step: forward, and twice that backward; recomputed activations add a forward
    /// pass through the blocks, which is not useful work and not counted here.
    pub fn training_flops_per_token(&self) -> f64 {
        3.0 * self.forward_flops_per_token
    }

    /// Bytes of f32 weights; gradients take the same, AdamW's two moments twice that.
    pub fn weight_bytes(&self) -> usize {
        4 * self.parameters
    }

    /// Days to train on `tokens` with `devices` of `peak_flops` operations a second each, at `utilisation` of it.
    pub fn training_days(&self, tokens: f64, devices: f64, peak_flops: f64, utilisation: f64) -> f64 {
        self.training_flops_per_token() * tokens / (devices * peak_flops * utilisation) / 86_400.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_embedding_and_last_norm_make_the_whole() {
        for name in crate::PRESETS {
            let config = crate::preset(name).unwrap();
            let cost = ModelCost::new(&config, 2048).unwrap();
            let layers: usize = cost.layers.iter().map(LayerCost::parameters).sum();
            assert_eq!(layers + cost.embedding_parameters + config.model_dim, cost.parameters, "{name}");
        }
    }

    #[test]
    fn operations_follow_from_the_matrices() {
        // One layer, one head of 64 channels, context 1: 2 operations for every weight, and one visible key.
        let config = crate::preset("gpt-test").unwrap();
        let cost = ModelCost::new(&config, 1).unwrap();
        let matrices = 128 * (3 * 64 + 64) + 128 * 3 * 256 + 32000 * 128;
        assert_eq!(cost.forward_flops_per_token, (2 * matrices + 4 * 64) as f64);
        assert_eq!(cost.training_days(86_400.0, 1.0, cost.training_flops_per_token(), 1.0), 1.0);
    }
}
