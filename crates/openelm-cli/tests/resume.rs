//! A run that was stopped and resumed is the run that was never stopped: the same weights, optimizer state and data bit for bit,
//! and each step once in the log.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::fs;
use std::time::Duration;

use support::Ground;
use support::program::{Outcome, Running};
use support::run_folder::{RunDir, digests};

/// The first two parts of a run of twelve updates; without `max_iterations` the shorter parts would have other learning rates.
const PARTS: [[&str; 2]; 2] = [["training.steps=4", "schedule.max_iterations=12"], ["training.steps=8", "schedule.max_iterations=12"]];

/// Trains in one go into `whole` and in three parts into `parts`, and compares.
fn assert_parts_are_the_whole(set: &[&str]) -> Ground {
    let ground = Ground::new();
    ground.train("whole", set).succeeds();
    ground.train("parts", set).set(&PARTS[0]).succeeds();
    assert_eq!(ground.run("parts").newest(), 4);
    ground.train("parts", set).set(&PARTS[1]).resume().succeeds();
    assert_eq!(ground.run("parts").newest(), 8);
    ground.train("parts", set).resume().succeeds();
    let whole = ground.run("whole");
    whole.assert_same(&ground.run("parts"));
    assert_eq!(whole.newest(), 12);
    let steps: Vec<u64> =
        whole.metrics().iter().filter(|record| record.get("loss").is_some()).filter_map(|record| record["step"].as_u64()).collect();
    assert_eq!(steps, (1..=12).collect::<Vec<_>>());
    ground
}

#[test]
fn mixed_order() {
    let ground = assert_parts_are_the_whole(&[]);
    let losses = ground.run("whole").losses();
    assert!(losses[11] < losses[0] - 1.0, "nothing was learned: {losses:?}");
}

#[test]
fn corenet_order_with_workers_and_summed_gradients() {
    assert_parts_are_the_whole(&[
        "data.order=corenet",
        "data.workers=2",
        "training.micro_batch=2",
        "training.accumulation=sum",
        "data.document_split_words=24",
    ]);
}

#[test]
fn recomputed_activations() {
    let ground = assert_parts_are_the_whole(&["training.activation_checkpointing=true"]);
    ground.train("kept", &[]).succeeds();
    // The same numbers up to rounding.
    assert_near(&ground.run("kept").losses(), &ground.run("whole").losses());
}

#[test]
fn bf16_arithmetic() {
    assert_parts_are_the_whole(&["training.dtype=bf16"]);
}

#[test]
fn a_trained_tokenizer() {
    let trained = support::trained_tokenizer();
    let ground = assert_parts_are_the_whole(&[&trained]);
    // The one that was read is the same.
    ground.train("read", &[]).succeeds();
    ground.run("read").assert_same_checkpoint(&ground.run("whole"));
}

#[test]
fn any_number_of_threads() {
    let ground = Ground::new();
    for (name, threads) in [("one", "1"), ("two", "2"), ("three", "3")] {
        ground.train(name, &[&format!("data.threads={threads}")]).env("RAYON_NUM_THREADS", threads).succeeds();
    }
    ground.train("four", &[]).env("OPENELM_THREADS", "4").succeeds();
    // The number of threads stands in the configuration, which the manifest repeats; everything else is the same.
    for name in ["two", "three", "four"] {
        let (one, other) = (ground.run("one"), ground.run(name));
        assert_eq!(one.metrics(), other.metrics());
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let read = |run: &RunDir| fs::read(run.checkpoint(12).join(file)).unwrap();
            assert!(read(&one) == read(&other), "{file} of {name}");
        }
    }
    // A run may go on with another number of threads.
    ground.train("mixed", &PARTS[0]).env("RAYON_NUM_THREADS", "1").succeeds();
    ground.train("mixed", &["data.threads=1"]).env("RAYON_NUM_THREADS", "2").resume().succeeds();
    assert_eq!(ground.run("mixed").metrics(), ground.run("one").metrics());
}

#[test]
fn micro_batches_do_not_matter() {
    let ground = Ground::new();
    for (name, size) in [("two", 2), ("eight", 8)] {
        ground.train(name, &["training.global_batch=8", &format!("training.micro_batch={size}")]).succeeds();
    }
    assert_near(&ground.run("two").losses(), &ground.run("eight").losses());
}

/// Fails unless twelve losses are the same up to rounding.
fn assert_near(losses: &[f64], others: &[f64]) {
    assert_eq!((losses.len(), others.len()), (12, 12));
    for (step, (loss, other)) in losses.iter().zip(others).enumerate() {
        assert!((loss - other).abs() < 1e-5, "step {}: {loss} and {other}", step + 1);
    }
}

#[test]
fn a_finished_run_is_left_as_it_is() {
    let ground = Ground::new();
    ground.train("run", &[]).succeeds();
    let before = digests(&ground.path("run"));
    let again = ground.train("run", &[]).resume().succeeds();
    assert!(again.stderr.contains("12 of 12 steps done"), "{}", again.stderr);
    assert_eq!(digests(&ground.path("run")), before);
}

#[test]
fn a_moved_run_goes_on() {
    let ground = Ground::new();
    ground.train("whole", &[]).succeeds();
    ground.train("first", &PARTS[0]).succeeds();
    fs::rename(ground.path("first"), ground.path("moved")).unwrap();
    ground.train("moved", &[]).resume().succeeds();
    ground.run("moved").assert_same(&ground.run("whole"));
}

/// Interrupts a run between its first and its last update; gives what it said and where it stood.
fn interrupt(mut running: Running, run: &RunDir, signal: &str, after: usize) -> (Outcome, u64) {
    running.until("its next updates", || run.metric_count() >= after);
    running.signal(signal);
    let outcome = running.wait();
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("stopped after step"), "{}", outcome.stderr);
    (outcome, run.newest())
}

/// The command that an interrupted run names to go on with.
fn named_command(outcome: &Outcome) -> Vec<&str> {
    let (_, command) = outcome.stderr.split_once("continue with: openelm ").unwrap();
    command.lines().next().unwrap().split(' ').collect()
}

#[test]
fn interrupts_write_a_checkpoint_and_name_the_command_that_goes_on() {
    let ground = Ground::new();
    let set = ["training.steps=200", "checkpoint.every=0", "validation.every=10"];
    ground.train("whole", &set).succeeds();
    let run = ground.run("stopped");
    let (outcome, first) = interrupt(ground.train("stopped", &set).start(), &run, "INT", 8);
    assert!((8..200).contains(&first), "{first}");
    assert!(outcome.stderr.contains(&format!("stopped after step {first};")), "{}", outcome.stderr);
    // The named command has to bring every --set with it.
    let (outcome, second) = interrupt(ground.call(named_command(&outcome)).start(), &run, "TERM", first as usize + 20);
    assert!(second > first && second < 200, "{first} {second}");
    let finished = ground.call(named_command(&outcome)).succeeds();
    assert!(!finished.stderr.contains("differs from the saved run's"), "{}", finished.stderr);
    assert_eq!(run.metrics(), ground.run("whole").metrics());
    run.assert_same_checkpoint(&ground.run("whole"));
}

#[test]
fn a_second_interrupt_ends_the_program_at_once() {
    let ground = Ground::new();
    // An update of a second or more, so that both signals fall into it.
    let mut running = ground.train("run", &["training.global_batch=1024"]).start();
    running.until("its first update", || ground.path("run/metrics.jsonl").exists());
    std::thread::sleep(Duration::from_millis(100));
    running.signal("INT");
    std::thread::sleep(Duration::from_millis(100));
    running.signal("INT");
    let outcome = running.wait();
    assert_eq!(outcome.status.code(), Some(130), "{outcome:?}");
    assert!(outcome.stderr.contains("interrupt again to stop at once"), "{}", outcome.stderr);
    assert_eq!(ground.run("run").steps(), [0; 0]);
    // Without a checkpoint a resume begins anew.
    ground.train("run", &[]).resume().succeeds();
    ground.train("whole", &[]).succeeds();
    ground.run("run").assert_same(&ground.run("whole"));
}
