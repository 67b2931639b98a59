//! Schedule, losses, gradients and updates against CoreNet's own values, on the device that OPENELM_TEST_DEVICE names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use openelm_model::{ModelConfig, ModelError, OpenElm, Precision, open_device, preset};
use openelm_train::{Accumulation, AdamW, AdamWConfig, Arithmetic, MicroBatch, Schedule, TrainSettings, engine_for, train_step};
use reference_values::{Tensors, apart, json, largest, reference};

const VOCABULARY: usize = 2176;
const PADDING: u32 = 2048;
const SEQUENCE: usize = 128;

#[test]
fn learning_rates_are_corenets() {
    let Some(folder) = reference() else { return };
    let file = json(&folder.join("schedule.json"));
    for (size, max_lr) in [("270M", 0.0053), ("450M", 0.0039), ("1_1B", 0.0024), ("3B", 0.0012)] {
        let schedule = Schedule {
            warmup_init_lr: 1e-6,
            warmup_steps: 5000,
            max_lr,
            min_lr: max_lr / 10.0,
            max_iterations: 350_000,
            decimals: Some(8),
        };
        let points = file[size].as_object().unwrap();
        assert!(points.len() > 10);
        for (step, rate) in points {
            assert_eq!(schedule.rate(step.parse().unwrap()), rate.as_f64().unwrap(), "{size}, step {step}");
        }
    }
}

fn model(folder: &std::path::Path, state: &str) -> OpenElm {
    let config = ModelConfig {
        vocab_size: VOCABULARY,
        max_context_length: SEQUENCE,
        padding_index: Some(PADDING as usize),
        ..preset("OpenELM-tiny").unwrap()
    };
    let device = open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap();
    let weights = Tensors::open(folder.join(format!("corenet-run/{state}.safetensors")));
    OpenElm::build(&config, &device, |info| Ok::<_, ModelError>(weights.f32(&info.name))).unwrap()
}

/// Rows of inputs with the last target behind them.
fn batch(samples: &[i32], targets: &[i32]) -> MicroBatch {
    let mut tokens = Vec::new();
    for (inputs, targets) in samples.chunks(SEQUENCE).zip(targets.chunks(SEQUENCE)) {
        assert_eq!(inputs[1..], targets[..SEQUENCE - 1]);
        tokens.extend(inputs.iter().map(|id| *id as u32));
        tokens.push(targets[SEQUENCE - 1] as u32);
    }
    MicroBatch::new(&tokens, SEQUENCE, PADDING, VOCABULARY).unwrap()
}

fn arithmetic(recompute: bool) -> Arithmetic {
    Arithmetic { precision: Precision::F32, recompute, z_loss: 1e-4, padding_in_z: true }
}

#[test]
fn losses_are_corenets() {
    let Some(folder) = reference() else { return };
    for state in ["init", "final"] {
        let expected = Tensors::open(folder.join(format!("forward_{state}.safetensors")));
        let batch = batch(&expected.i32("samples"), &expected.i32("targets"));
        let model = model(&folder, state);
        let sums = engine_for(&model).unwrap().losses(&model, &batch, &arithmetic(false)).unwrap();
        let (ce, z) = (sums.ce_loss(), sums.z_loss(1e-4));
        for (name, found) in [("ce_loss", ce), ("z_loss", z), ("total_loss", ce + z)] {
            let value = f64::from(expected.f32(&format!("loss.{name}"))[0]);
            assert!((found - value).abs() < 1e-5, "{state} {name}: {found}, CoreNet {value}");
        }
    }
}

#[test]
fn gradients_are_corenets_with_and_without_recomputation() {
    let Some(folder) = reference() else { return };
    let expected = Tensors::open(folder.join("forward_init.safetensors"));
    let batch = batch(&expected.i32("samples"), &expected.i32("targets"));
    let model = model(&folder, "init");
    for recompute in [false, true] {
        let mut engine = engine_for(&model).unwrap();
        let scale = 1.0 / batch.target_count() as f64;
        engine.accumulate(&model, &batch, scale, &arithmetic(recompute)).unwrap();
        let mut compared = 0;
        for (index, info) in model.infos().iter().enumerate() {
            let theirs = expected.f32(&format!("grad.{}", info.name));
            let ours = engine.gradient(index).unwrap().unwrap();
            let difference = apart(&ours, &theirs) / largest(&theirs);
            assert!(difference < 1e-4, "{} (recompute {recompute}): {difference}", info.name);
            compared += 1;
        }
        assert_eq!(compared, expected.names().iter().filter(|name| name.starts_with("grad.")).count());
    }
}

#[test]
fn every_step_of_corenets_run_is_followed() {
    let Some(folder) = reference() else { return };
    let trace = json(&folder.join("corenet-run/trace.json"));
    let batches = Tensors::open(folder.join("corenet-run/batches.safetensors"));
    let (samples, targets) = (batches.i32("samples"), batches.i32("targets"));
    let steps = trace["steps"].as_array().unwrap();
    let settings = TrainSettings {
        steps: steps.len() as u64,
        global_batch: 4,
        micro_batch: 4,
        precision: Precision::F32,
        recompute: false,
        accumulation: Accumulation::Sum,
        grad_clip: 1.0,
        z_loss: 1e-4,
        corenet_z_loss: true,
        optimizer: AdamWConfig::default(),
        schedule: Schedule {
            warmup_init_lr: 1e-6,
            warmup_steps: 8,
            max_lr: 0.0053,
            min_lr: 0.00053,
            max_iterations: 40,
            decimals: Some(8),
        },
        validate_every: 0,
        checkpoint_every: 0,
        keep_last: 1,
        keep_every: 0,
        log_every: 1,
    };
    let mut model = model(&folder, "init");
    let mut optimizer = AdamW::new(settings.optimizer, &model);
    let mut engine = engine_for(&model).unwrap();
    let size = samples.len() / steps.len();
    let (mut worst_early, mut worst, mut worst_norm) = (0.0f64, 0.0f64, 0.0f64);
    for (step, expected) in steps.iter().enumerate() {
        let range = step * size..(step + 1) * size;
        let batch = batch(&samples[range.clone()], &targets[range]);
        let outcome = train_step(&mut *engine, &mut model, &mut optimizer, &[batch], step as u64, &settings).unwrap();
        let value = |key: &str| expected[key].as_f64().unwrap();
        let difference = (outcome.ce_loss + outcome.z_loss - value("total_loss")).abs();
        assert_eq!(outcome.learning_rate, value("learning_rate"), "step {step}");
        assert!(difference < 5e-4, "step {step}: loss differs by {difference}");
        worst = worst.max(difference);
        if step < 10 {
            let norm = (outcome.grad_norm / value("grad_norm") - 1.0).abs();
            assert!(difference < 5e-5, "step {step}: loss differs by {difference}");
            assert!(norm < 1e-4, "step {step}: gradient norm differs by {norm} of itself");
            worst_early = worst_early.max(difference);
            worst_norm = worst_norm.max(norm);
        }
    }
    println!(
        "{} steps: loss within {worst:e} (first ten {worst_early:e}), gradient norm within {worst_norm:e} in the first ten",
        steps.len()
    );
    let end = Tensors::open(folder.join("corenet-run/final.safetensors"));
    model
        .read_parameters::<ModelError>(|info, values| {
            // Adam divides by the root of v, so entries whose gradient is near zero move by up to a whole step either way.
            let theirs = end.f32(&info.name);
            let total: f64 = values.iter().zip(&theirs).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let size: f64 = theirs.iter().map(|value| f64::from(*value).powi(2)).sum();
            assert!((total / size).sqrt() < 5e-3, "{}: {}", info.name, (total / size).sqrt());
            Ok(())
        })
        .unwrap();
}
