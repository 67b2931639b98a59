//! `openelm params`: the layer-wise allocation, layer by layer, and what a run costs.

use std::io::Write;

use anyhow::{Context, Result};
use openelm_model::{LayerCost, ModelConfig, ModelCost, PRESETS, preset};
use serde_json::json;

use crate::args::{ConfigArguments, ParamsArguments};
use crate::convert::model_config;

use super::load_config;

/// What the table is about.
struct Subject {
    name: String,
    model: ModelConfig,
    sequence: usize,
    /// Tokens that the configured run trains on, padding counted.
    tokens: Option<f64>,
}

/// Runs `openelm params`.
pub(super) fn params(arguments: &ParamsArguments) -> Result<()> {
    let subject = subject(arguments)?;
    let cost = ModelCost::new(&subject.model, subject.sequence)?;
    let days =
        subject.tokens.map(|tokens| cost.training_days(tokens, arguments.devices, arguments.peak_tflops * 1e12, arguments.utilisation));
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if arguments.json {
        writeln!(out, "{}", as_json(&subject, &cost, days))?;
    } else {
        print(&mut out, &subject, &cost)?;
        if let (Some(tokens), Some(days)) = (subject.tokens, days) {
            let ParamsArguments { devices, peak_tflops, utilisation, .. } = arguments;
            writeln!(out, "\ntokens of the run        {}", thousands(tokens as u64))?;
            writeln!(out, "operations of the run    {:.3e}", tokens * cost.training_flops_per_token())?;
            writeln!(out, "time on {devices} x {peak_tflops} TFLOP/s at {:.0} %    {days:.2} days", utilisation * 100.0)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn subject(arguments: &ParamsArguments) -> Result<Subject> {
    let name = arguments.config.to_string_lossy();
    if !arguments.config.exists() && PRESETS.contains(&&*name) {
        let model = preset(&name)?;
        return Ok(Subject { name: name.into_owned(), sequence: model.max_context_length, model, tokens: None });
    }
    let config = load_config(&ConfigArguments { config: arguments.config.clone(), set: arguments.set.clone() })?.config;
    let tokens = config.training.steps as f64 * config.training.global_batch as f64 * config.data.sequence_length as f64;
    Ok(Subject {
        name: config.name.clone(),
        model: model_config(&config.model).with_context(|| arguments.config.display().to_string())?,
        sequence: usize::try_from(config.data.sequence_length)?,
        tokens: Some(tokens),
    })
}

fn print(out: &mut impl Write, subject: &Subject, cost: &ModelCost) -> Result<()> {
    let share = |parameters: usize| 100.0 * parameters as f64 / cost.parameters as f64;
    writeln!(out, "{}\n", subject.name)?;
    writeln!(out, "layer  query heads  kv heads  attention width  FFN width    parameters  share")?;
    for (index, layer) in cost.layers.iter().enumerate() {
        let shape = layer.shape;
        writeln!(
            out,
            "{index:>5}  {:>11}  {:>8}  {:>15}  {:>9}  {:>12}  {:>4.1} %",
            shape.num_query_heads,
            shape.num_kv_heads,
            shape.query_dim(),
            shape.ffn_dim,
            thousands(layer.parameters() as u64),
            share(layer.parameters()),
        )?;
    }
    let embedding = cost.embedding_parameters;
    writeln!(out, "embedding and head {:>50}  {:>4.1} %", thousands(embedding as u64), share(embedding))?;
    writeln!(out, "last norm {:>59}", thousands(subject.model.model_dim as u64))?;
    writeln!(out, "total {:>63}\n", thousands(cost.parameters as u64))?;
    let weights = cost.weight_bytes() as u64;
    writeln!(out, "weights (f32)            {}", mebibytes(weights))?;
    writeln!(out, "gradients                {}", mebibytes(weights))?;
    writeln!(out, "AdamW's moments          {}", mebibytes(2 * weights))?;
    writeln!(
        out,
        "operations per token     {:.3e} forward, {:.3e} training",
        cost.forward_flops_per_token,
        cost.training_flops_per_token()
    )?;
    Ok(())
}

fn as_json(subject: &Subject, cost: &ModelCost, days: Option<f64>) -> serde_json::Value {
    let layer = |layer: &LayerCost| {
        json!({
            "query_heads": layer.shape.num_query_heads,
            "kv_heads": layer.shape.num_kv_heads,
            "attention_width": layer.shape.query_dim(),
            "ffn_width": layer.shape.ffn_dim,
            "parameters": layer.parameters(),
        })
    };
    json!({
        "name": subject.name,
        "layers": cost.layers.iter().map(layer).collect::<Vec<_>>(),
        "embedding_parameters": cost.embedding_parameters,
        "parameters": cost.parameters,
        "weight_bytes": cost.weight_bytes(),
        "gradient_bytes": cost.weight_bytes(),
        "optimizer_bytes": 2 * cost.weight_bytes(),
        "forward_flops_per_token": cost.forward_flops_per_token,
        "training_flops_per_token": cost.training_flops_per_token(),
        "tokens": subject.tokens,
        "days": days,
    })
}

/// 1234567 as 1 234 567.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1u32 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_threes() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(123_456), "123 456");
        assert_eq!(thousands(1_234_567), "1 234 567");
    }
}
