//! Layer-wise scaling: how OpenELM divides one parameter budget unevenly over its layers. Pure functions of the
//! configuration, following GPTConfig.__post_init__ of CoreNet's general_gpt.py and its `make_divisible`.
//!
//! What must stay true: multipliers are rounded to two decimals before use, as CoreNet's Python does.

use crate::{ModelConfig, ModelError, Multipliers};

/// Heads and widths of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    pub num_query_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Hidden width of the feed-forward part (of each half when it is gated).
    pub ffn_dim: usize,
}

impl LayerShape {
    /// Width of all query heads together.
    pub fn query_dim(&self) -> usize {
        self.num_query_heads * self.head_dim
    }

    /// Rows of the joint query, key and value projection.
    pub fn qkv_dim(&self) -> usize {
        (self.num_query_heads + 2 * self.num_kv_heads) * self.head_dim
    }
}

/// The multiple of `divisor` nearest to `value`, at least one divisor, and never more than 10 % below `value`
/// (CoreNet `math_utils.make_divisible`).
pub fn make_divisible(value: f64, divisor: usize) -> usize {
    let half_up = (value + divisor as f64 / 2.0) as usize / divisor * divisor;
    let rounded = half_up.max(divisor);
    if (rounded as f64) < 0.9 * value { rounded + divisor } else { rounded }
}

/// One multiplier a layer: `numpy.linspace(first, last, layers)` in f64, each rounded to two decimals.
pub fn spread_multipliers(first: f64, last: f64, layers: usize) -> Vec<f64> {
    (0..layers)
        .map(|layer| {
            let value =
                if layer > 0 && layer + 1 == layers { last } else { first + layer as f64 * ((last - first) / (layers.max(2) - 1) as f64) };
            round_to_cents(value)
        })
        .collect()
}

/// Python's `round(value, 2)`: the decimal nearest to the exact binary value, which Rust's formatting gives as well.
fn round_to_cents(value: f64) -> f64 {
    format!("{value:.2}").parse().unwrap_or(value)
}

/// Heads and widths of every layer of `config`.
///
/// # Errors
/// When a list of multipliers has the wrong length or a value that leaves a layer without width.
pub fn resolve_layers(config: &ModelConfig) -> Result<Vec<LayerShape>, ModelError> {
    let qkv = per_layer("qkv_multipliers", &config.qkv_multipliers, config.num_transformer_layers)?;
    let ffn = per_layer("ffn_multipliers", &config.ffn_multipliers, config.num_transformer_layers)?;
    let model_dim = config.model_dim as f64;
    Ok(qkv
        .iter()
        .zip(&ffn)
        .map(|(qkv, ffn)| {
            let query_dim = make_divisible(model_dim * qkv, config.head_dim * config.num_gqa_groups);
            let num_query_heads = query_dim / config.head_dim;
            LayerShape {
                num_query_heads,
                num_kv_heads: num_query_heads / config.num_gqa_groups,
                head_dim: config.head_dim,
                ffn_dim: make_divisible(ffn * model_dim, config.ffn_dim_divisor),
            }
        })
        .collect())
}

/// Resolves a configuration value into one multiplier a layer.
pub(crate) fn per_layer(key: &'static str, multipliers: &Multipliers, layers: usize) -> Result<Vec<f64>, ModelError> {
    let values = match multipliers {
        Multipliers::Uniform(value) => vec![*value; layers],
        Multipliers::List(list) if list.len() == layers && layers != 2 => list.clone(),
        Multipliers::List(list) => match list[..] {
            [first, last] => spread_multipliers(first, last, layers),
            _ => {
                return Err(ModelError::config(
                    key,
                    format!("{} values", list.len()),
                    format!("the model has {layers} layers"),
                    "give one number, the two ends [first, last], or one value a layer",
                ));
            }
        },
    };
    match values.iter().find(|value| !(value.is_finite() && **value > 0.0 && **value <= 1024.0)) {
        Some(bad) => Err(ModelError::config(
            key,
            bad,
            "multipliers must be above 0 and at most 1024",
            "OpenELM uses [0.5, 1.0] for attention and [0.5, 4.0] for the feed-forward part",
        )),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisible_never_loses_more_than_a_tenth() {
        assert_eq!(make_divisible(640.0, 256), 768);
        assert_eq!(make_divisible(100.0, 256), 256);
        assert_eq!(make_divisible(374.0, 250), 500); // 250 would be 33 % below
        for value in 1..5000 {
            let rounded = make_divisible(f64::from(value), 64);
            assert!(rounded.is_multiple_of(64) && rounded as f64 >= 0.9 * f64::from(value));
        }
    }

    #[test]
    fn rounding_follows_python() {
        // round(2.675, 2) is 2.67 and round(0.125, 2) is 0.12 in Python.
        assert_eq!(round_to_cents(2.675), 2.67);
        assert_eq!(round_to_cents(0.125), 0.12);
        assert_eq!(spread_multipliers(0.5, 4.0, 5), [0.5, 1.38, 2.25, 3.12, 4.0]);
        assert_eq!(spread_multipliers(0.25, 0.75, 1), [0.25]);
    }
}
