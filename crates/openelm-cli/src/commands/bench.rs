//! `openelm bench train`: the median training step on random tokens, after a warm-up.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use openelm_finetune::adapter::{AdapterConfig, Targets, attach_new};
use openelm_model::{EMBEDDING_MODULE, OpenElm, PRESETS, Precision, Storage, open_device, preset};
use openelm_train::{Accumulation, AdamW, AdamWConfig, MicroBatch, Schedule, TrainSettings, engine_for, train_step};
use serde_json::json;

use super::{peak_rss_mib, precision};
use crate::args::{BenchTrainArguments, ComputeDtype, FrozenDtype};

/// Steps that do not count.
pub(super) const WARM_UP: usize = 2;

/// Runs `openelm bench train`.
pub(super) fn train(arguments: &BenchTrainArguments) -> Result<()> {
    let &BenchTrainArguments { batch, seq, vocab, steps, recompute, .. } = arguments;
    anyhow::ensure!(batch > 0 && seq > 0 && steps > 0, "--batch, --seq and --steps must be at least 1\nhint: give positive numbers");
    let (name, mut model) = random_model(&arguments.model, vocab, seq, &arguments.device, frozen_storage(arguments))?;
    if let Some(rank) = arguments.lora {
        attach(arguments, rank, &mut model)?;
    }
    let settings = bench_settings(batch, precision(arguments.dtype), recompute);
    let mut optimizer = AdamW::new(settings.optimizer, &model);
    let mut engine = engine_for(&model)?;
    let batches = [MicroBatch::new(&random_tokens(batch * (seq + 1), vocab), seq, u32::MAX, vocab)?];
    let mut seconds = Vec::new();
    let mut loss = 0.0;
    for step in 0..steps + WARM_UP {
        let begin = Instant::now();
        let outcome = train_step(&mut *engine, &mut model, &mut optimizer, &batches, step as u64, &settings)?;
        loss = outcome.ce_loss + outcome.z_loss;
        if step >= WARM_UP {
            seconds.push(begin.elapsed().as_secs_f64());
        }
    }
    let median = median(&mut seconds);
    let tokens_per_second = (batch * seq) as f64 / median;
    let mut out = std::io::stdout();
    if arguments.json {
        let object = json!({
            "model": arguments.model,
            "parameters": model.num_parameters(),
            "batch": batch,
            "seq": seq,
            "dtype": if arguments.dtype == ComputeDtype::F32 { "f32" } else { "bf16" },
            "device": arguments.device,
            "recompute": recompute,
            "trained_parameters": model.trained_infos().iter().map(|info| info.count()).sum::<usize>(),
            "threads": std::thread::available_parallelism().map_or(1, usize::from),
            "step_seconds": median,
            "tokens_per_second": tokens_per_second,
            "min": seconds.first(),
            "max": seconds.last(),
            "peak_rss_mib": peak_rss_mib(),
            "loss": loss,
        });
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{name}, {batch} x {seq} tokens on {}: {median:.3} s a step, {tokens_per_second:.1} tokens/s", arguments.device)?;
    }
    Ok(())
}

/// How the weights lie in memory.
fn frozen_storage(arguments: &BenchTrainArguments) -> Storage {
    match arguments.base_dtype {
        FrozenDtype::F32 => Storage::F32,
        FrozenDtype::Bf16 => Storage::Bf16,
        FrozenDtype::Q8_0 => Storage::Q8_0,
    }
}

/// Puts a new adapter onto the model.
fn attach(arguments: &BenchTrainArguments, rank: usize, model: &mut OpenElm) -> Result<()> {
    let embedding = (!arguments.dora).then_some(EMBEDDING_MODULE);
    let names = embedding.into_iter().chain(["qkv_proj", "out_proj", "proj_1", "proj_2"]);
    let adapter = AdapterConfig {
        r: rank,
        lora_alpha: rank as f64,
        lora_dropout: arguments.dropout,
        target_modules: Targets::Names(names.map(str::to_owned).collect()),
        rank_pattern: Vec::new(),
        alpha_pattern: Vec::new(),
        use_rslora: false,
        use_dora: arguments.dora,
        base: None,
    };
    adapter.check("--lora")?;
    Ok(attach_new("--lora", &adapter, 0, model)?)
}

/// A model of a named size with its initial weights, for `length` positions, kept as `storage` says.
pub(super) fn random_model(size: &str, vocab: usize, length: usize, device: &str, storage: Storage) -> Result<(&'static str, OpenElm)> {
    let name = PRESETS.into_iter().find(|name| *name == size || *name == format!("OpenELM-{size}"));
    let name = name.with_context(|| format!("{size} is no known size\nhint: known sizes: {}", PRESETS.join(", ")))?;
    let mut config = preset(name)?;
    config.vocab_size = vocab;
    config.max_context_length = config.max_context_length.max(length);
    config.rope_max_length = config.rope_max_length.max(2 * length);
    Ok((name, OpenElm::init_stored(&config, 0, &open_device(device)?, storage)?))
}

/// Updates of `batch` examples at once.
pub(super) fn bench_settings(batch: usize, precision: Precision, recompute: bool) -> TrainSettings {
    TrainSettings {
        steps: u64::MAX,
        global_batch: batch,
        micro_batch: batch,
        precision,
        recompute,
        accumulation: Accumulation::Mean,
        grad_clip: 1.0,
        z_loss: 1e-4,
        corenet_z_loss: false,
        optimizer: AdamWConfig::default(),
        schedule: Schedule {
            warmup_init_lr: 1e-4,
            warmup_steps: 0,
            max_lr: 1e-4,
            min_lr: 1e-4,
            max_iterations: u64::MAX - 1,
            decimals: None,
        },
        validate_every: 0,
        checkpoint_every: 0,
        keep_last: 1,
        keep_every: 0,
        log_every: 1,
    }
}

/// The median of measurements, which it sorts.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = |at: usize| values.get(at).copied().unwrap_or_default();
    (middle(values.len().saturating_sub(1) / 2) + middle(values.len() / 2)) / 2.0
}

/// Ids from a linear congruential generator, the same each time.
pub(super) fn random_tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocabulary.max(1) as u64) as u32
    };
    (0..count).map(|_| next()).collect()
}
