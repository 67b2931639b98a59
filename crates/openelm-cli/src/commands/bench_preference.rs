//! `openelm bench preference`: the median preference step on random pairs, after a warm-up.
//!
//! `scripts/bench/torch_preference_step.py` does the same work in PyTorch.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use openelm_finetune::{Answered, PairTokens, PreferenceLoss, PreferenceObjective, PreferenceSettings, Reference};
use openelm_model::Storage;
use openelm_train::{AdamW, Objective, apply_gradients, engine_for};
use serde_json::json;

use super::bench::{WARM_UP, bench_settings, median, random_model, random_tokens};
use super::{peak_rss_mib, precision};
use crate::args::{BenchPreferenceArguments, ComputeDtype};

/// Runs `openelm bench preference`.
pub(super) fn run(arguments: &BenchPreferenceArguments) -> Result<()> {
    let &BenchPreferenceArguments { pairs, prompt, chosen, rejected, vocab, steps, recompute, .. } = arguments;
    let positive = [pairs, prompt, chosen, rejected, steps].into_iter().all(|value| value > 0);
    anyhow::ensure!(positive, "--pairs, --prompt, --chosen, --rejected and --steps must be at least 1\nhint: give positive numbers");
    let (name, mut model) = random_model(&arguments.model, vocab, prompt + chosen.max(rejected), &arguments.device, Storage::F32)?;
    let mut settings = bench_settings(pairs, precision(arguments.dtype), recompute);
    settings.z_loss = 0.0;
    settings.schedule.max_lr = 1e-5;
    (settings.schedule.min_lr, settings.schedule.warmup_init_lr) = (1e-5, 1e-5);
    let training = random_pairs(arguments);
    let mut engine = engine_for(&model)?;
    let begin = Instant::now();
    let kept = Reference::compute(&mut *engine, &model, (&training, &[]), pairs, &settings.arithmetic(), |_| {})?;
    let reference_seconds = begin.elapsed().as_secs_f64();
    let loss = PreferenceSettings { loss: PreferenceLoss::Sigmoid, beta: 0.01, label_smoothing: 0.0, average: false };
    let mut objective = PreferenceObjective::new(loss, (training, Vec::new()), (kept, String::new()), 0, None)?;
    let mut optimizer = AdamW::new(settings.optimizer, &model);
    let mut seconds = Vec::new();
    let mut last = 0.0;
    for step in 0..steps + WARM_UP {
        let begin = Instant::now();
        engine.discard();
        last = objective.accumulate(&mut *engine, &model, &settings)?.loss;
        apply_gradients(&mut *engine, &mut model, &mut optimizer, last, step as u64, &settings)?;
        if step >= WARM_UP {
            seconds.push(begin.elapsed().as_secs_f64());
        }
    }
    let median = median(&mut seconds);
    let mut out = std::io::stdout();
    if arguments.json {
        let object = json!({
            "model": arguments.model,
            "parameters": model.num_parameters(),
            "pairs": pairs,
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "dtype": if arguments.dtype == ComputeDtype::F32 { "f32" } else { "bf16" },
            "device": arguments.device,
            "recompute": recompute,
            "threads": std::thread::available_parallelism().map_or(1, usize::from),
            "step_seconds": median,
            "min": seconds.first(),
            "max": seconds.last(),
            "reference_seconds": reference_seconds,
            "peak_rss_mib": peak_rss_mib(),
            "loss": last,
        });
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{name}, {pairs} pairs of {prompt} + {chosen} / {rejected} tokens on {}: {median:.3} s a step", arguments.device)?;
    }
    Ok(())
}

/// Pairs whose answers share the prompt.
fn random_pairs(arguments: &BenchPreferenceArguments) -> Vec<PairTokens> {
    let &BenchPreferenceArguments { pairs, prompt, chosen, rejected, vocab, .. } = arguments;
    let each = prompt + chosen + rejected;
    let ids = random_tokens(pairs * each, vocab);
    let pair = |ids: &[u32]| {
        let (prompt_ids, answers) = ids.split_at(prompt);
        let (first, second) = answers.split_at(chosen);
        let side = |answer: &[u32]| Answered { ids: [prompt_ids, answer].concat(), prompt };
        PairTokens { prompt: prompt_ids.to_vec(), chosen: side(first), rejected: side(second) }
    };
    ids.chunks_exact(each).map(pair).collect()
}
