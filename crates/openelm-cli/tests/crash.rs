//! Crashes: whatever moment a run is killed at, or its disk fills up, the checkpoints that exist are whole, and the run goes on to
//! the same end.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::Ground;
use support::program::{Call, Running};
use support::run_folder::{RunDir, digests};
use support::shards::Numbers;

/// More updates than a process gets through between two kills, and a checkpoint after each.
const STEPS: &str = "training.steps=90";
const EVERY_STEP: [&str; 4] = [STEPS, "checkpoint.every=1", "checkpoint.keep_every=30", "validation.every=30"];

/// Resumes the run, or begins it where the last process did not come so far.
fn go_on(ground: &Ground, set: &[&str]) -> Running {
    let call = ground.train("killed", set);
    let begun = ground.path("killed/config.yaml").is_file();
    if begun { call.resume().start() } else { call.start() }
}

/// Whether a checkpoint is being written right now.
fn is_writing(run: &RunDir) -> bool {
    run.checkpoint_names().iter().any(|name| name.starts_with(".draft-"))
}

/// Every checkpoint with a manifest must be readable as it is, before anything has cleaned up.
fn assert_checkpoints_load(ground: &Ground, run: &RunDir) {
    for step in run.steps() {
        let path = run.checkpoint(step);
        let outcome = ground.call(["generate", path.to_str().unwrap(), "--prompt", "the", "--max-new-tokens", "1", "--json"]).succeeds();
        assert_eq!(outcome.json()["ids"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn kills_at_any_moment_lose_at_most_the_last_update() {
    let ground = Ground::new();
    ground.train("whole", &EVERY_STEP).succeeds();
    let (whole, run) = (ground.run("whole"), ground.run("killed"));
    let mut numbers = Numbers(20240);
    let (mut kills, mut amid_writing) = (0, 0);
    for round in 0..14 {
        let mut running = go_on(&ground, &EVERY_STEP);
        if round % 2 == 0 {
            // Anywhere, the start of the program included.
            std::thread::sleep(Duration::from_millis(5 + numbers.below(160)));
        } else {
            // In the middle of the second or a later checkpoint.
            let logged = run.metric_count() + 2;
            let moment = numbers.below(12);
            running.until("a checkpoint", || run.metric_count() >= logged && is_writing(&run));
            std::thread::sleep(Duration::from_millis(moment));
        }
        let newest = run.steps().last().copied();
        kills += u64::from(running.kill());
        amid_writing += u64::from(is_writing(&run));
        assert!(run.steps().last().copied() >= newest, "the newest checkpoint is gone");
        assert_checkpoints_load(&ground, &run);
    }
    assert!(kills >= 8 && amid_writing >= 3, "{kills} kills, {amid_writing} amid writing");
    go_on(&ground, &EVERY_STEP).wait().succeeds();
    run.assert_same(&whole);
    assert_eq!(run.checkpoint_names(), ["latest", "step-00000030", "step-00000060", "step-00000089", "step-00000090"]);
}

#[test]
fn what_crashes_leave_is_swept_away() {
    let ground = Ground::new();
    ground.train("whole", &[]).succeeds();
    ground.finished_run("run");
    // An unfinished checkpoint; one whose removal had begun, manifest first; files that were about to be renamed; a cut log line.
    for name in [".draft-step-00000009/model.safetensors.partial", "step-00000002/model.safetensors", "latest.new"] {
        ground.write(&format!("run/checkpoints/{name}"), "rest");
    }
    for name in ["config.yaml.new", "metrics.jsonl.new"] {
        ground.write(&format!("run/{name}"), "rest");
    }
    let log = fs::read_to_string(ground.path("run/metrics.jsonl")).unwrap();
    ground.write("run/metrics.jsonl", log + "{\"step\":7,\"loss\":4.1}\n{\"step\":8,\"lo");
    ground.train("run", &[]).resume().succeeds();
    let names = ground.run("run").checkpoint_names();
    assert_eq!(names, ["latest", "step-00000009", "step-00000012"]);
    // The part of six updates validated at its end; the log has that line more.
    let mut metrics = ground.run("run").metrics();
    metrics.retain(|record| !(record["step"] == 6 && record.get("validation_loss").is_some()));
    assert_eq!(metrics, ground.run("whole").metrics());
    ground.run("run").assert_same_checkpoint(&ground.run("whole"));
    assert_eq!(
        digests(&ground.path("run")).into_keys().collect::<Vec<_>>(),
        digests(&ground.path("whole")).into_keys().collect::<Vec<_>>()
    );
}

#[test]
fn a_crash_while_the_folder_is_made_blocks_nothing() {
    let ground = Ground::new();
    ground.train("whole", &[]).succeeds();
    // What stands there when the first process died before its configuration was in place.
    ground.write("run/.lock", "");
    ground.write("run/config.yaml.new", "name: ti");
    fs::create_dir(ground.path("run/checkpoints")).unwrap();
    ground.train("run", &[]).succeeds();
    ground.run("run").assert_same(&ground.run("whole"));
}

#[test]
fn a_crash_before_the_tokenizer_is_in_place_blocks_nothing() {
    let ground = Ground::new();
    let trained = support::trained_tokenizer();
    ground.train("run", &[&trained]).succeeds();
    let whole = ground.copy("run", "whole");
    for path in ["run/tokenizer", "run/checkpoints"] {
        fs::remove_dir_all(ground.path(path)).unwrap();
    }
    fs::remove_file(ground.path("run/metrics.jsonl")).unwrap();
    fs::create_dir(ground.path("run/checkpoints")).unwrap();
    ground.write("run/.tokenizer/tokenizer.model", "half");
    let outcome = ground.train("run", &[&trained]).resume().succeeds();
    assert!(outcome.stderr.contains("no checkpoint yet; it begins anew"), "{}", outcome.stderr);
    ground.run("run").assert_same(&RunDir::new(whole));
}

#[test]
fn one_process_at_a_time() {
    let ground = Ground::new();
    let mut first = ground.train("run", &["training.steps=1000000", "checkpoint.every=10", "checkpoint.keep_last=1000"]).start();
    let run = ground.run("run");
    first.until("its first checkpoint", || !run.steps().is_empty());
    ground.train("run", &[]).resume().fails(&["run: another process is using this run"]);
    ground.train("run", &[]).fails(&["run: the folder holds another run"]);
    assert!(!first.is_over());
    // Who only reads is not kept out.
    ground.call(["export", "run", "--format", "hf", "--out", "exported"]).succeeds();
    assert!(first.kill());
    // A lock dies with its process.
    ground.train("run", &["training.steps=3"]).resume().succeeds();
}

/// A call of `openelm train` that cannot write a file of more than `blocks` of 512 bytes: the system refuses as a full disk does.
fn on_a_small_disk(ground: &Ground, blocks: u32, arguments: &[&str]) -> Call {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    Call::through_shell(&ground.path("."), &script, arguments.iter().copied())
}

#[test]
fn a_full_disk_costs_the_new_checkpoint_alone() {
    let ground = Ground::new();
    ground.train("whole", &[]).succeeds();
    ground.finished_run("run");
    let run = ground.run("run");
    let checkpoints = |path: &Path| digests(&path.join("checkpoints"));
    let before = checkpoints(&run.path);
    // Weights take about 3 MB, the optimizer's state twice that.
    for (blocks, file) in [(2_000, "model.safetensors"), (8_000, "optimizer.safetensors")] {
        let call = on_a_small_disk(&ground, blocks, &["train", "config.yaml", "--out", "run", "--resume"]);
        let message = call.fails(&[file, "File too large"]);
        assert!(message.contains("free space"), "{message}");
        assert_eq!(checkpoints(&run.path), before, "{file}");
        assert_checkpoints_load(&ground, &run);
    }
    ground.train("run", &[]).resume().succeeds();
    run.assert_same_checkpoint(&ground.run("whole"));
}

#[test]
fn a_full_disk_from_the_start_is_named() {
    let ground = Ground::new();
    let message =
        on_a_small_disk(&ground, 2_000, &["train", "config.yaml", "--out", "run"]).fails(&["model.safetensors", "File too large"]);
    assert!(message.contains("step-00000003"), "{message}");
    assert_eq!(ground.run("run").checkpoint_names(), [""; 0]);
    ground.train("run", &[]).resume().succeeds();
    // The same with an export.
    let message = on_a_small_disk(&ground, 2_000, &["export", "run", "--format", "hf", "--out", "exported"])
        .fails(&["model.safetensors", "File too large"]);
    assert!(message.contains("free space"), "{message}");
    assert!(!ground.path("exported").exists());
    let rest: Vec<_> = fs::read_dir(ground.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_str().unwrap().contains("export"))
        .collect();
    assert!(rest.is_empty(), "{rest:?}");
}
