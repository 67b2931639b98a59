//! Conversations as a supervised run learns them: which tokens count, and that packing changes nothing but the rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use openelm_finetune::{Layout, Learnt, OnBadRow, Reader, SupervisedObjective, TrainOn};
use openelm_tokenizer::{ChatTemplate, Tokenizer};
use openelm_train::{Accumulation, AdamWConfig, Objective, Precision, Schedule, TrainSettings, Weights, engine_for, open_device};
use reference_values::{apart, largest, shared};
use serde_json::json;

fn learnt(shared: &Path, template: &ChatTemplate, rows: &[serde_json::Value], train_on: TrainOn, max_length: usize) -> Vec<Learnt> {
    let tokenizer = Tokenizer::load(&shared.join("reference/hf-5m")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, rows.iter().map(|row| row.to_string() + "\n").collect::<String>()).unwrap();
    let reader = Reader { tokenizer: &tokenizer, template, on_bad_row: OnBadRow::Stop };
    reader.dialogues(&[path.to_string_lossy().into_owned()], Layout::Auto, train_on, max_length).unwrap().examples
}

/// The runs of counted tokens, each as text.
fn counted(shared: &Path, learnt: &Learnt) -> Vec<String> {
    let tokenizer = Tokenizer::load(&shared.join("reference/hf-5m")).unwrap();
    let mut runs: Vec<Vec<u32>> = Vec::new();
    let mut before = false;
    for (id, counts) in learnt.ids.iter().zip(&learnt.counts) {
        if *counts && !before {
            runs.push(Vec::new());
        }
        if let Some(run) = runs.last_mut().filter(|_| *counts) {
            run.push(*id);
        }
        before = *counts;
    }
    let text = |run: &Vec<u32>| {
        let end = run.last() == tokenizer.eos_id().as_ref();
        tokenizer.decode(run) + if end { "|" } else { "" }
    };
    runs.iter().map(text).collect()
}

#[test]
fn answers_count_up_to_their_end() {
    let Some(shared) = shared() else { return };
    let talk = json!({"messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}, {"role": "assistant", "content": "The first."},
        {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "The second, then."},
    ]});
    let alpaca = json!({"instruction": "Add.", "input": "1 and 2", "output": "It is 3."});
    let commonsense = json!({"instruction": "True?", "input": "", "output": "the correct answer is true", "answer": "true"});
    let template = ChatTemplate::openelm_instruct().unwrap();
    let found = learnt(&shared, &template, &[talk.clone(), alpaca, commonsense.clone()], TrainOn::Answers, 512);
    assert_eq!(counted(&shared, &found[0]), ["The first.|", "The second, then.|"]);
    assert_eq!(counted(&shared, &found[1]), ["It is 3.|"]);
    assert_eq!(counted(&shared, &found[2]), ["the correct answer is true|"]);
    let tokenizer = Tokenizer::load(&shared.join("reference/hf-5m")).unwrap();
    for learnt in &found {
        assert_eq!((learnt.ids.first(), learnt.ids.len()), (tokenizer.bos_id().as_ref(), learnt.counts.len()));
    }
    let everything = learnt(&shared, &template, &[talk.clone(), commonsense], TrainOn::Everything, 512);
    for (all, answers) in everything.iter().zip([&found[0], &found[2]]) {
        assert_eq!(all.ids, answers.ids);
        assert!(!all.counts[0] && all.counts[1..].iter().all(|counts| *counts));
    }
    // Cut in the second answer, the first one stays.
    let cut = learnt(&shared, &template, std::slice::from_ref(&talk), TrainOn::Answers, found[0].ids.len() - 5);
    assert_eq!(counted(&shared, &cut[0])[0], "The first.|");
    // A template that writes no end gets one.
    let bare = ChatTemplate::new(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
        "",
    )
    .unwrap();
    let found = learnt(&shared, &bare, &[talk], TrainOn::Answers, 512);
    assert!(counted(&shared, &found[0])[1].ends_with("second, then.\n|"), "{:?}", counted(&shared, &found[0]));
}

fn settings(count: usize, micro_batch: usize) -> TrainSettings {
    TrainSettings {
        steps: 1,
        global_batch: count,
        micro_batch,
        precision: Precision::F32,
        recompute: false,
        accumulation: Accumulation::Mean,
        grad_clip: 1.0,
        z_loss: 1e-4,
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

#[test]
fn packed_conversations_give_the_same_loss_and_gradients() {
    let Some(shared) = shared() else { return };
    let weights = Weights::open(&shared.join("reference/hf-5m")).unwrap();
    let device = open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap();
    let model = weights.model(&device).unwrap();
    let rows: Vec<_> = (0..6)
        .map(|at| json!({"instruction": "word ".repeat(3 + 5 * at), "input": "", "output": format!("answer {at} ").repeat(1 + at % 3)}))
        .collect();
    let examples = learnt(&shared, &ChatTemplate::openelm_instruct().unwrap(), &rows, TrainOn::Answers, 256);
    let mut found = Vec::new();
    for packed in [None, Some(128)] {
        let mut engine = engine_for(&model).unwrap();
        let mut objective = SupervisedObjective::new((examples.clone(), examples.clone()), packed, 3, None).unwrap();
        let rows = objective.rows();
        assert!(packed.is_none() || rows < examples.len());
        let settings = settings(rows, 2.min(rows));
        let settings = TrainSettings { global_batch: rows.next_multiple_of(settings.micro_batch), ..settings };
        let losses =
            objective.accumulate(&mut *engine, &model, &TrainSettings { global_batch: rows, micro_batch: 1, ..settings.clone() }).unwrap();
        let held_out = objective.validate(&mut *engine, &model, &settings).unwrap().unwrap();
        assert!((held_out.loss - losses.metrics.get("ce_loss").unwrap()).abs() < 1e-5);
        let gradients: Vec<Vec<f32>> = (0..model.infos().len()).map(|index| engine.gradient(index).unwrap().unwrap()).collect();
        found.push((losses, gradients));
    }
    let [(losses, gradients), (other, others)] = &found[..] else { unreachable!() };
    assert_eq!(losses.targets, other.targets);
    assert!((losses.loss - other.loss).abs() < 1e-5, "{losses:?} {other:?}");
    for (gradient, other) in gradients.iter().zip(others) {
        assert!(apart(gradient, other) / largest(gradient) < 1e-3);
    }
}
