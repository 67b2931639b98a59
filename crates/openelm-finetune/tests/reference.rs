//! Tokens, log-probabilities, losses and gradients of preference pairs against what alignment-handbook and TRL 0.8.6 computed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use openelm_finetune::{
    Answered, Both, OnBadRow, PairLimits, PairTokens, PreferenceLoss, PreferenceObjective, PreferenceSettings, Reader, Reference,
};
use openelm_tokenizer::{ChatTemplate, Tokenizer};
use openelm_train::{
    Accumulation, AdamWConfig, Engine, ModelError, Objective, OpenElm, Precision, Schedule, TrainSettings, Weights, engine_for, open_device,
};
use reference_values::{Tensors, apart, json, largest, shared};
use serde_json::Value;

const PAIRS: usize = 16;

/// The first pairs of the held-out file, which the reference is made of.
fn pairs(shared: &Path) -> Vec<PairTokens> {
    let tokenizer = Tokenizer::load(&shared.join("reference/hf-5m")).unwrap();
    let template = ChatTemplate::openelm_instruct().unwrap();
    let reader = Reader { tokenizer: &tokenizer, template: &template, on_bad_row: OnBadRow::Stop };
    let file = shared.join("corpora/instruct/preference-test.jsonl").to_string_lossy().into_owned();
    let mut found = reader.pairs(&[file], PairLimits { max_length: 384, max_prompt_length: 192 }).unwrap();
    found.examples.truncate(PAIRS);
    found.examples
}

fn expected(shared: &Path) -> Value {
    json(&shared.join("reference/dpo/dpo.json"))
}

fn ids(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

#[test]
fn tokens_and_labels_are_trls() {
    let Some(shared) = shared() else { return };
    let expected = expected(&shared);
    let expected = expected["pairs"].as_array().unwrap();
    assert_eq!(expected.len(), PAIRS);
    for (pair, expected) in pairs(&shared).iter().zip(expected) {
        let wide = |ids: &[u32]| ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
        assert_eq!(wide(&pair.prompt), ids(&expected["prompt_input_ids"]));
        for (name, Answered { ids: found, prompt }) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
            assert_eq!(wide(found), ids(&expected[format!("{name}_input_ids")]));
            let labels: Vec<i64> = found.iter().enumerate().map(|(at, id)| if at < *prompt { -100 } else { i64::from(*id) }).collect();
            assert_eq!(labels, ids(&expected[format!("{name}_labels")]));
        }
    }
}

/// hf-5m, with every matrix multiplied by `factor`.
fn model(shared: &Path, factor: f32) -> OpenElm {
    let weights = Weights::open(&shared.join("reference/hf-5m")).unwrap();
    let device = open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap();
    let config = weights.config().clone();
    OpenElm::build(&config, &device, |info| {
        let mut values = weights.values(info).unwrap();
        if info.shape.len() == 2 {
            values.iter_mut().for_each(|value| *value *= factor);
        }
        Ok::<_, ModelError>(values)
    })
    .unwrap()
}

fn settings(micro_batch: usize) -> TrainSettings {
    TrainSettings {
        steps: 1,
        global_batch: PAIRS,
        micro_batch,
        precision: Precision::F32,
        recompute: false,
        accumulation: Accumulation::Mean,
        grad_clip: 1.0,
        z_loss: 0.0,
        corenet_z_loss: false,
        optimizer: AdamWConfig::default(),
        schedule: Schedule { warmup_init_lr: 0.0, warmup_steps: 0, max_lr: 1e-5, min_lr: 0.0, max_iterations: 0, decimals: None },
        validate_every: 0,
        checkpoint_every: 0,
        keep_last: 1,
        keep_every: 0,
        log_every: 1,
    }
}

fn both(logps: &Value, name: &str) -> Both {
    let value = |side: &str| logps[format!("{name}_{side}")].as_f64().unwrap();
    Both { chosen: value("chosen"), rejected: value("rejected") }
}

#[test]
fn log_probabilities_are_trls() {
    let Some(shared) = shared() else { return };
    let (pairs, expected) = (pairs(&shared), expected(&shared));
    for (name, factor) in [("policy", 1.0), ("reference", 0.98)] {
        let model = model(&shared, factor);
        let mut engine = engine_for(&model).unwrap();
        let found = Reference::compute(&mut *engine, &model, (&pairs, &[]), 3, &settings(3).arithmetic(), |_| {}).unwrap();
        let Reference::Kept { training, .. } = found else { panic!("not kept") };
        for (found, expected) in training.iter().zip(expected["pairs"].as_array().unwrap()) {
            let expected = both(&expected["logps"], name);
            for (found, expected) in [(found.chosen, expected.chosen), (found.rejected, expected.rejected)] {
                assert!((found / expected - 1.0).abs() < 1e-3, "{name}: {found} {expected}");
            }
        }
    }
}

#[test]
fn losses_and_rewards_are_trls() {
    let Some(shared) = shared() else { return };
    let expected = expected(&shared);
    let pairs = expected["pairs"].as_array().unwrap();
    let mut compared = 0;
    for (name, expected) in expected["losses"].as_object().unwrap() {
        let (kind, beta) = name.split_once('-').unwrap();
        let loss = match kind {
            "sigmoid" => PreferenceLoss::Sigmoid,
            "hinge" => PreferenceLoss::Hinge,
            "ipo" => PreferenceLoss::Ipo,
            other => panic!("{other}"),
        };
        let settings = PreferenceSettings { loss, beta: beta.parse().unwrap(), label_smoothing: 0.0, average: false };
        let outcomes = pairs.iter().map(|pair| settings.outcome(both(&pair["logps"], "policy"), both(&pair["logps"], "reference")));
        let near = |found: f64, expected: &Value| {
            let expected = expected.as_f64().unwrap();
            assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{name}: {found} {expected}");
        };
        let (mut sum, mut accurate, mut margin) = (0.0, 0.0, 0.0);
        for (at, outcome) in outcomes.enumerate() {
            near(outcome.loss, &expected["loss"][at]);
            near(outcome.rewards.chosen, &expected["rewards_chosen"][at]);
            near(outcome.rewards.rejected, &expected["rewards_rejected"][at]);
            sum += outcome.loss;
            accurate += f64::from(u8::from(outcome.rewards.chosen > outcome.rewards.rejected));
            margin += outcome.rewards.chosen - outcome.rewards.rejected;
            compared += 1;
        }
        let count = PAIRS as f64;
        near(sum / count, &expected["mean"]);
        near(accurate / count, &expected["accuracy"]);
        near(margin / count, &expected["margin"]);
    }
    assert_eq!(compared, 6 * PAIRS);
}

#[test]
fn hinge_gradients_are_trls_however_they_are_cut_and_wherever_the_reference_is() {
    let Some(shared) = shared() else { return };
    let (pairs, expected) = (pairs(&shared), Tensors::open(shared.join("reference/dpo/hinge_gradients.safetensors")));
    let (policy, reference) = (model(&shared, 1.0), model(&shared, 0.98));
    let norm = self::expected(&shared)["hinge_0.01_gradient_norm"].as_f64().unwrap();
    let hinge = PreferenceSettings { loss: PreferenceLoss::Hinge, beta: 0.01, label_smoothing: 0.0, average: false };
    for (micro_batch, frozen) in [(4, false), (16, true)] {
        let settings = settings(micro_batch);
        let mut engine = engine_for(&policy).unwrap();
        let kept = if frozen {
            Reference::Frozen(Box::new(reference.clone()))
        } else {
            Reference::compute(&mut *engine, &reference, (&pairs, &[]), 4, &settings.arithmetic(), |_| {}).unwrap()
        };
        let mut objective = PreferenceObjective::new(hinge, (pairs.clone(), Vec::new()), (kept, "r".into()), 0, None).unwrap();
        engine.discard();
        let losses = objective.accumulate(&mut *engine, &policy, &settings).unwrap();
        assert!((losses.loss - 0.994_059_681_892_395).abs() < 1e-4, "{losses:?}");
        assert_eq!(losses.metrics.get("rewards/accuracies"), Some(0.8125));
        assert!((engine.norm(&policy).unwrap() / norm - 1.0).abs() < 1e-3);
        compare(&*engine, &policy, &expected);
    }
}

fn compare(engine: &dyn Engine, model: &OpenElm, expected: &Tensors) {
    let names = expected.names();
    assert!(names.len() >= 4);
    for name in names {
        let index = model.infos().iter().position(|info| info.name == name).unwrap_or_else(|| panic!("no {name}"));
        let (found, expected) = (engine.gradient(index).unwrap().unwrap(), expected.f32(&name));
        let difference = apart(&found, &expected) / largest(&expected);
        assert!(difference < 1e-3, "{name}: {difference}");
    }
}
