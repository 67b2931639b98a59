//! `openelm finetune` through the program: runs that go on bit for bit, what they write, and input that is refused.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use serde_json::json;
use support::Ground;
use support::conversations::{pair, talk};
use support::run_folder::digests;

/// Makes `parts` of `whole` as it stood after the checkpoint of `step`.
fn cut_back(ground: &Ground, step: u64) {
    ground.copy("whole", "parts");
    let parts = ground.run("parts");
    for later in parts.steps().into_iter().filter(|found| *found > step) {
        fs::remove_dir_all(parts.checkpoint(later)).unwrap();
    }
}

#[test]
fn a_resumed_preference_run_is_the_uninterrupted_one() {
    let ground = Ground::for_tuning();
    ground.tune("preference", "whole", &[]).succeeds();
    let whole = ground.run("whole");
    assert_eq!(whole.steps(), [3, 6, 9, 12]);
    let metrics = whole.metrics();
    let step = metrics.iter().find(|record| record.get("loss").is_some()).unwrap();
    for name in ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"] {
        assert!(step[name].is_f64(), "{name}: {step}");
    }
    // The policy begins as the reference: no rewards yet, and a hinge of 1.
    let first = |name: &str| step[name].as_f64().unwrap();
    assert!(first("rewards/margins").abs() < 1e-5 && (first("loss") - 1.0).abs() < 1e-5, "{step}");
    let last = metrics.last().unwrap();
    assert_eq!((last["step"].as_u64(), last["validation_pairs"].as_u64()), (Some(12), Some(6)));
    let accuracy = |from: usize| {
        metrics.iter().filter_map(|record| record.get("loss").and(record["rewards/accuracies"].as_f64())).skip(from).sum::<f64>()
    };
    assert!(accuracy(6) / 6.0 > 0.7, "nothing was learned: {metrics:?}");

    cut_back(&ground, 6);
    let resumed = ground.tune("preference", "parts", &[]).resume().succeeds();
    assert!(!resumed.stderr.contains("computed again"), "{}", resumed.stderr);
    whole.assert_same(&ground.run("parts"));

    // A damaged file of reference values is noticed, and made again from the weights that the run was begun from.
    fs::remove_dir_all(ground.path("parts")).unwrap();
    cut_back(&ground, 6);
    let kept = ground.path("parts/reference_log_probabilities");
    let mut bytes = fs::read(&kept).unwrap();
    let at = bytes.len() - 50;
    bytes[at] ^= 1;
    fs::write(&kept, bytes).unwrap();
    let call = |config: &str| ground.call(["finetune", config, "--out", "parts"]).resume();
    call("preference.yaml").fails(&["no weights to begin from", "--init"]);
    let resumed = call("parts/config.yaml").succeeds();
    assert!(resumed.stderr.contains("computed again: the file is damaged"), "{}", resumed.stderr);
    whole.assert_same(&ground.run("parts"));

    // A frozen copy gives the same numbers.
    ground.tune("preference", "frozen", &["objective.reference=frozen", "training.micro_batch=4"]).succeeds();
    for (loss, other) in whole.losses().into_iter().zip(ground.run("frozen").losses()) {
        assert!((loss - other).abs() < 1e-4, "{loss} {other}");
    }
}

#[test]
fn a_resumed_supervised_run_is_the_uninterrupted_one() {
    for set in [&[][..], &["objective.packing=false", "objective.train_on=everything", "training.dtype=bf16"]] {
        let ground = Ground::for_tuning();
        ground.tune("supervised", "whole", set).succeeds();
        let losses = ground.run("whole").losses();
        assert!(losses[11] < losses[0] - 0.5, "nothing was learned: {losses:?}");
        cut_back(&ground, 3);
        ground.tune("supervised", "parts", set).resume().succeeds();
        ground.run("whole").assert_same(&ground.run("parts"));
    }
}

#[test]
fn a_tuned_run_is_a_run_like_any_other() {
    let ground = Ground::for_tuning();
    let set = ["training.steps=2", "export={format: hf}", "sample={prompt: hello, max_new_tokens: 4}"];
    let outcome = ground.tune("supervised", "run", &set).succeeds();
    assert!(outcome.stdout.contains("what the model answers to \"hello\""), "{}", outcome.stdout);
    let template = fs::read_to_string(ground.path("run/export/hf/chat_template.jinja")).unwrap();
    assert!(template.contains("<|assistant|>"), "{template}");
    assert_eq!(template, fs::read_to_string(ground.path("run/tokenizer/chat_template.jinja")).unwrap());
    ground.call(["generate", "run", "--prompt", "a", "--max-new-tokens", "2"]).succeeds();
    ground.call(["export", "run", "--format", "gguf", "--out", "run.gguf"]).succeeds();
    // It can be tuned again, by way of its export too, and its template comes along.
    ground.write("own.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}");
    let set = ["training.steps=2", "template=own.jinja"];
    ground.call(["finetune", "supervised.yaml", "--init", "run/export/hf", "--out", "second"]).set(&set).succeeds();
    ground.call(["finetune", "preference.yaml", "--init", "second", "--out", "third"]).set(&set[..1]).succeeds();
    let read = |name: &str| fs::read_to_string(ground.path(&format!("{name}/tokenizer/chat_template.jinja"))).unwrap();
    assert_eq!(read("third"), read("second"));
    assert_ne!(read("third"), template);
}

#[test]
fn bad_rows_are_named_or_counted() {
    let ground = Ground::for_tuning();
    let good = || pair("what is it", "a good one", "a bad one");
    let roles = json!({"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]});
    let refused = |rows: Vec<serde_json::Value>, parts: &[&str]| {
        ground.rows("bad.jsonl", rows);
        ground.tune("preference", "run", &["data.files=[bad.jsonl]"]).fails(parts);
        assert!(!ground.path("run").exists(), "{parts:?}");
    };
    refused(vec![good(), roles.clone()], &["bad.jsonl, line 2", "`prompt` has no message of a user", "on_bad_row"]);
    refused(vec![good(), good(), pair("q", "", "b")], &["bad.jsonl, line 3", "`chosen` is an empty answer"]);
    refused(vec![json!({"chosen": "a", "rejected": "b"})], &["bad.jsonl, line 1", "no list of messages"]);
    refused(vec![json!({"prompt": "q", "chosen": "a"})], &["bad.jsonl, line 1", "no `rejected`"]);
    refused(vec![], &["nothing to learn from: 0 rows, 0 kept"]);
    let rows = vec![
        good(),
        roles,
        pair("q", "", "b"),
        pair("q", "same", "same"),
        pair("q", &"long ".repeat(60), &format!("{}x", "long ".repeat(60))),
    ];
    ground.rows("bad.jsonl", rows);
    let set = ["data.files=[bad.jsonl]", "data.on_bad_row=skip", "training.steps=1"];
    let outcome = ground.tune("preference", "run", &set).succeeds();
    for part in [
        "data: 5 rows, 3 kept",
        "1 skipped (empty answer)",
        "1 skipped (wrong roles)",
        "1 with two equal answers",
        "1 whose answers are equal once they are cut",
    ] {
        assert!(outcome.stderr.contains(part), "{part:?} is not in {}", outcome.stderr);
    }
    // What the configuration cuts away is counted, never an error.
    ground.rows("talks.jsonl", [talk("short", "one"), talk(&"long ".repeat(80), "two")]);
    let outcome = ground.tune("supervised", "second", &["training.steps=1", "training.global_batch=2"]).succeeds();
    assert!(outcome.stderr.contains("data: 2 rows, 1 kept; 1 skipped (emptied by max_length)"), "{}", outcome.stderr);
    ground.rows("talks.jsonl", [json!({"conversations": [{"from": "robot", "value": "x"}]})]);
    ground.tune("supervised", "third", &[]).fails(&["talks.jsonl, line 1", "message 1 of `conversations` has the role \"robot\""]);
    ground.write("talks.jsonl", "{\"messages\": [\n");
    ground.tune("supervised", "third", &[]).fails(&["talks.jsonl, line 1", "not a JSON object"]);
}

#[test]
fn configurations_and_weights_are_checked_before_a_folder_is_made() {
    let ground = Ground::for_tuning();
    let refused = |kind: &str, set: &[&str], parts: &[&str]| {
        ground.tune(kind, "run", set).fails(parts);
        assert!(!ground.path("run").exists(), "{set:?}");
    };
    let text = fs::read_to_string(ground.path("preference.yaml")).unwrap();
    for (from, to, parts) in [
        ("beta: 0.1", "betta: 0.1", ["edited.yaml:6:3: objective.betta: unknown key", "`beta`"]),
        ("loss: hinge", "loss: hing", ["edited.yaml:5:", "`hinge`"]),
        (
            "max_prompt_length: 20",
            "max_prompt_length: 48",
            ["edited.yaml:10:22: data.max_prompt_length: 48 leaves no room", "max_length (48)"],
        ),
        ("  steps: 12\n", "", ["training.epochs: is missing", "give one of epochs and steps"]),
        (
            "  kind: preference\n",
            "  kind: preference\n  packing: true\n",
            ["edited.yaml:5:12: objective.packing", "no meaning for a preference"],
        ),
        ("beta: 0.1", "beta: -1", ["objective.beta: is -1", "hint"]),
        ("loss: hinge", "label_smoothing: 0.1\n  loss: hinge", ["objective.label_smoothing", "sigmoid"]),
    ] {
        assert!(text.contains(from));
        ground.write("edited.yaml", text.replace(from, to));
        refused("edited", &[], &parts);
    }
    refused(
        "supervised",
        &["objective.beta=0.1"],
        &["--set objective.beta=0.1: objective.beta: has no meaning for a supervised objective"],
    );
    refused("supervised", &["data.files=[nothing-*.jsonl]"], &["no file matches"]);
    refused("supervised", &["data.max_length=4096"], &["above the 128 positions of the model's rotary table"]);
    refused("supervised", &["training.device=gpu"], &["gpu"]);
    refused("supervised", &["template=missing.jinja"], &["missing.jinja: reading the chat template failed"]);
    ground.write("broken.jinja", "{% for %}");
    refused("supervised", &["template=broken.jinja"], &["broken.jinja, line 1"]);
    ground.call(["finetune", "supervised.yaml", "--out", "run"]).fails(&["no weights to begin from"]);
    ground.call(["finetune", "supervised.yaml", "--init", "nowhere", "--out", "run"]).fails(&["nowhere", "nothing at this path"]);
    assert!(!ground.path("run").exists());

    ground.tune("preference", "run", &["training.steps=3"]).succeeds();
    let before = digests(&ground.path("run"));
    let resume = |kind: &str, set: &[&str], parts: &[&str]| {
        ground.tune(kind, "run", set).resume().fails(parts);
        assert_eq!(digests(&ground.path("run")), before, "{set:?}");
    };
    resume("preference", &["data.max_prompt_length=19"], &["the pairs are others than the saved run's"]);
    resume("supervised", &[], &["its state is no supervised run's"]);
    ground.tune("preference", "run", &[]).fails(&["holds another run"]);
}
