//! `openelm generate`, and the sample at the end of a run.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use openelm_infer::{
    AnswerForm, BurnDecoder, Constraints, Generation, Limits, Sampler, SamplingSettings, StopReason, generate as continue_text,
};
use openelm_model::{ModelConfig, OpenElm, Precision};
use openelm_tokenizer::Tokenizer;
use serde_json::json;

use super::adapter::open_weights;
use super::decoder::{open_decoder, open_draft};
use super::needed_tokenizer;
use crate::args::{FormArguments, GenerateArguments, SamplingArguments};
use crate::config::SampleSection;

/// Runs `openelm generate`.
pub(super) fn generate(arguments: &GenerateArguments) -> Result<()> {
    let mut sampler = sampler_of(&arguments.sampling, arguments.temperature, arguments.top_p)?;
    let weights = open_weights(&arguments.weights, arguments.adapter.as_deref())?;
    let tokenizer = needed_tokenizer(&weights, arguments.tokenizer.as_deref())?;
    let prompt = match &arguments.prompt {
        Some(prompt) => prompt.clone(),
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context(
                "reading the prompt from the standard input failed\nhint: it must be UTF-8 text; --prompt takes it from the command line",
            )?;
            text
        }
    };
    let form = form_of(&arguments.form)?;
    let decoder = open_decoder(&weights, &arguments.decoder)?;
    if let Some(form) = form {
        sampler = sampler.constrained(Some(Constraints::new(&tokenizer, decoder.config().vocab_size)?.of(&form)?));
    }
    let mut draft = open_draft(&arguments.guesses, &arguments.decoder, &*decoder)?;
    let ids = prompt_ids(&tokenizer, &prompt);
    let limits = limits(&tokenizer, arguments.max_new_tokens, arguments.ignore_eos);
    let mut out = std::io::stdout().lock();
    let mut stream = tokenizer.decoder();
    let mut broken = None;
    if !arguments.json {
        out.write_all(prompt.as_bytes())?;
        out.flush()?;
        // The decoder must have seen the prompt, so that the space before the first new word is not taken for a leading one.
        for id in &ids {
            stream.push(*id);
        }
    }
    let generation = continue_text(&*decoder, &ids, &mut sampler, &limits, draft.as_mut(), |id| {
        if arguments.json || limits.stop.contains(&id) {
            return true;
        }
        let text = stream.push(id).unwrap_or_default();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        broken = written.err();
        broken.is_none()
    })?;
    if let Some(error) = broken {
        return Err(error.into());
    }
    if arguments.json {
        let text = new_text(&tokenizer, &ids, &generation, &limits);
        let object = json!({
            "prompt": prompt,
            "text": text,
            "prompt_ids": ids,
            "ids": generation.ids,
            "stop": reason(generation.reason),
            "prefill_seconds": generation.prefill_seconds,
            "accepted_guesses": draft.is_some().then_some(generation.accepted),
            "decode_tokens_per_second": generation.decode_tokens_per_second(),
        });
        writeln!(out, "{object}")?;
        return Ok(());
    }
    writeln!(out, "{}", stream.finish())?;
    let prefill = generation.prompt_tokens as f64 / generation.prefill_seconds;
    let decode = generation.decode_tokens_per_second().map_or_else(String::new, |rate| format!(", {rate:.1} tokens/s after it"));
    let guesses = draft.as_ref().map_or_else(String::new, |_| format!(", {} of them guessed", generation.accepted));
    eprintln!("[{} tokens{guesses}, prompt at {prefill:.1} tokens/s{decode}; {}]", generation.ids.len(), reason(generation.reason));
    Ok(())
}

/// Draws as the command line says.
pub(super) fn sampler_of(arguments: &SamplingArguments, temperature: f32, top_p: f32) -> Result<Sampler> {
    let &SamplingArguments { top_k, min_p, repetition_penalty, seed } = arguments;
    Ok(Sampler::new(SamplingSettings { temperature, top_k, top_p, min_p, repetition_penalty, seed })?)
}

/// What the new text must be.
fn form_of(arguments: &FormArguments) -> Result<Option<AnswerForm>> {
    let read = |path: &Path, what: &str| {
        std::fs::read_to_string(path).with_context(|| format!("{}: reading the {what} failed\nhint: it must be UTF-8 text", path.display()))
    };
    Ok(match arguments {
        FormArguments { json_object: true, .. } => Some(AnswerForm::JsonObject),
        FormArguments { json_schema: Some(path), .. } => {
            let schema = serde_json::from_str(&read(path, "JSON schema")?);
            Some(AnswerForm::JsonSchema(
                schema.with_context(|| format!("{}: the schema is not JSON\nhint: give a file with a JSON schema", path.display()))?,
            ))
        }
        FormArguments { regex: Some(regex), .. } => Some(AnswerForm::Regex(regex.clone())),
        FormArguments { grammar: Some(path), .. } => Some(AnswerForm::Grammar(read(path, "grammar")?)),
        _ => None,
    })
}

/// BOS, where there is one, and the text's ids.
fn prompt_ids(tokenizer: &Tokenizer, prompt: &str) -> Vec<u32> {
    let mut ids: Vec<u32> = tokenizer.bos_id().into_iter().collect();
    tokenizer.encode_into(prompt, &mut ids);
    ids
}

fn limits(tokenizer: &Tokenizer, max_new_tokens: usize, ignore_eos: bool) -> Limits {
    let stop = tokenizer.eos_id().filter(|_| !ignore_eos).into_iter().collect();
    Limits { max_new_tokens, stop }
}

/// The new text: what decoding adds to the prompt's.
fn new_text(tokenizer: &Tokenizer, prompt: &[u32], generation: &Generation, limits: &Limits) -> String {
    let mut stream = tokenizer.decoder();
    for id in prompt {
        stream.push(*id);
    }
    let mut text = String::new();
    for id in generation.ids.iter().filter(|id| !limits.stop.contains(id)) {
        text.extend(stream.push(*id));
    }
    text + &stream.finish()
}

fn reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Stop => "end of text",
        StopReason::Length => "length",
        StopReason::Context => "context is full",
        StopReason::Cancelled => "cancelled",
    }
}

/// Fails where [`sample`] would fail, before the run has taken its time.
pub(super) fn check_sample(tokenizer: &Tokenizer, section: &SampleSection, model: &ModelConfig) -> Result<()> {
    check_sample_ids(&prompt_ids(tokenizer, &section.prompt), section, model)
}

/// Fails where [`continuation`] would fail.
pub(super) fn check_sample_ids(ids: &[u32], section: &SampleSection, model: &ModelConfig) -> Result<()> {
    sampler(section)?;
    let (tokens, context) = (ids.len(), model.rope_max_length);
    anyhow::ensure!(tokens > 0, "sample.prompt has no tokens\nhint: give a text");
    anyhow::ensure!(tokens <= context, "sample.prompt has {tokens} tokens, the model's context holds {context}\nhint: shorten the prompt");
    Ok(())
}

fn sampler(section: &SampleSection) -> Result<Sampler> {
    Ok(Sampler::new(SamplingSettings {
        temperature: section.temperature as f32,
        top_k: usize::try_from(section.top_k)?,
        top_p: section.top_p as f32,
        ..SamplingSettings::default()
    })?)
}

/// The text that a finished run shows: the prompt and what the model makes of it.
pub(super) fn sample(model: &OpenElm, tokenizer: &Tokenizer, section: &SampleSection, precision: Precision) -> Result<String> {
    let ids = prompt_ids(tokenizer, &section.prompt);
    Ok(section.prompt.clone() + &continuation(model, tokenizer, &ids, section, precision)?)
}

/// What the model writes behind `ids`.
pub(super) fn continuation(
    model: &OpenElm,
    tokenizer: &Tokenizer,
    ids: &[u32],
    section: &SampleSection,
    precision: Precision,
) -> Result<String> {
    let mut sampler = sampler(section)?;
    let limits = limits(tokenizer, usize::try_from(section.max_new_tokens)?, false);
    let decoder = BurnDecoder::new(model.clone(), precision);
    let generation = continue_text(&decoder, ids, &mut sampler, &limits, None, |_| true)?;
    Ok(new_text(tokenizer, ids, &generation, &limits))
}
