//! hf-5m's scores against those that the lm-evaluation-harness gave it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use burn::tensor::Device;
use openelm_checkpoint::Weights;
use openelm_eval::{Encoding, SamplerKind, Task, TaskOptions, evaluate, find_tasks, rolling};
use openelm_infer::{DecoderScorer, HostDecoder, HostOptions, ModelScorer};
use openelm_model::Precision;
use openelm_tokenizer::Tokenizer;
use reference_values::{json, shared};
use serde_json::Value;

/// The task as the reference was made: one row has its few-shot examples from elsewhere, the first ones.
fn load(name: &str, data: &Path) -> Task {
    let first = name.strip_suffix("_5shot_first");
    let mut file = find_tasks(first.unwrap_or(name)).unwrap().remove(0).file;
    let mut options = TaskOptions::default();
    if first.is_some() {
        file.fewshot_data = Some("arc_challenge.jsonl".into());
        file.fewshot_config.sampler = SamplerKind::FirstN;
        options.shots = Some(5);
    }
    Task::load(&file, data, options).unwrap().remove(0)
}

#[test]
fn every_task_gives_the_harnesses_numbers() {
    let Some(shared) = shared() else { return };
    let expected = json(&shared.join("reference/eval.json"));
    let weights = Weights::open(&shared.join("reference/hf-5m")).unwrap();
    let decoder = HostDecoder::open(&weights, HostOptions::default()).unwrap();
    let scorer = DecoderScorer::new(&decoder, 2048);
    let tokenizer = Tokenizer::load(weights.tokenizer().unwrap()).unwrap();
    let encoding = Encoding { tokenizer: &tokenizer, add_bos: true, max_length: 1024 };
    for (name, expected) in expected["tasks"].as_object().unwrap() {
        let begin = std::time::Instant::now();
        let task = load(name, &shared.join("eval"));
        let result = evaluate(&task, &encoding, &scorer, |_, _| ()).unwrap();
        let mut furthest = 0.0_f64;
        for document in expected["documents"].as_array().unwrap() {
            let number = document["doc_id"].as_u64().unwrap() as usize;
            let (question, sample) = (&task.questions[number], &result.samples[number]);
            let text = |place: usize| document["first_request"][place].as_str().unwrap();
            assert_eq!(question.requests[0], (text(0).to_owned(), text(1).to_owned()), "{name} {number}");
            let sums: Vec<f64> = document["loglikelihoods"].as_array().unwrap().iter().map(|sum| sum.as_f64().unwrap()).collect();
            assert_eq!(sums.len(), sample.log_likelihoods.len(), "{name} {number}");
            for (expected, found) in sums.iter().zip(&sample.log_likelihoods) {
                furthest = furthest.max(((found - expected) / expected).abs());
            }
        }
        println!("{name}: {:?}, log-likelihoods within {furthest:.1e}, {:.1} s", result.metrics, begin.elapsed().as_secs_f64());
        assert!(furthest < 1e-3, "{name}: {furthest}");
        for (key, value) in expected["metrics"].as_object().unwrap() {
            let metric = key.trim_end_matches(",none");
            // The reference has acc_norm for MMLU too, where it is acc: every choice is one letter.
            let found = result.metric(metric).or(result.metric("acc")).unwrap();
            assert!((found - value.as_f64().unwrap()).abs() < 1e-9, "{name} {key}: {found} and {value}");
        }
    }
}

#[test]
fn whole_texts_give_the_harnesses_sums() {
    let Some(shared) = shared() else { return };
    let expected = json(&shared.join("reference/eval.json"));
    let expected = expected["rolling"].as_array().unwrap();
    let weights = Weights::open(&shared.join("reference/hf-5m")).unwrap();
    let model = weights.model(&Device::flex()).unwrap();
    let scorer = ModelScorer::new(&model, Precision::F32, 2048);
    let tokenizer = Tokenizer::load(weights.tokenizer().unwrap()).unwrap();
    let encoding = Encoding { tokenizer: &tokenizer, add_bos: true, max_length: 1024 };
    let texts = validation_texts(&shared, expected.len());
    let (sums, total) = rolling(&texts, &encoding, &scorer).unwrap();
    for (found, row) in sums.iter().zip(expected) {
        let expected = row["loglikelihood"].as_f64().unwrap();
        // Far below the reference's own 1e-3: one token more or less in a text would pass that.
        assert!(((found - expected) / expected).abs() < 1e-5, "{found} and {expected}");
    }
    assert!((total.log_likelihood - sums.iter().sum::<f64>()).abs() < 1e-6 && total.bits_per_byte() > 0.0);
}

/// The first 4000 characters of each of the first documents of the validation corpus.
fn validation_texts(shared: &Path, count: usize) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(shared.join("corpora/validation")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let rows = text.lines().take(count).map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| row["text"].as_str().unwrap().chars().take(4000).collect()).collect()
}
