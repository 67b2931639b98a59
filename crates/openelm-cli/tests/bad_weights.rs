//! Bad weights: damaged, of another shape, or not finite. The message names the file, the tensor and what to do; checkpoints stay as
//! they are.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use support::Ground;
use support::run_folder::digests;

/// A run in `run` and its export in `weights`.
fn with_weights() -> Ground {
    let ground = Ground::new();
    ground.finished_run("run");
    ground.call(["export", "run", "--format", "hf", "--out", "weights"]).succeeds();
    ground
}

fn cut(path: &Path, share: f64) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..(bytes.len() as f64 * share) as usize]).unwrap();
}

/// A new run from `weights` fails with all of `parts` and changes nothing.
fn init_fails(ground: &Ground, weights: &str, set: &[&str], parts: &[&str]) {
    let before = digests(&ground.path("."));
    ground.train("new", set).arg("--init").arg(weights).fails(parts);
    assert_eq!(digests(&ground.path(".")), before, "{parts:?}");
}

#[test]
fn initial_weights() {
    let ground = with_weights();
    // The export has as many rows as the tokenizer has tokens.
    let rows = ["model.vocab_size=300"];
    init_fails(&ground, "weights", &[], &["weights: tensor token_embeddings.weight has shape [300, 128]", "needs [320, 128]"]);
    init_fails(&ground, "run", &rows, &["step-00000006: tensor token_embeddings.weight has shape [320, 128]", "needs [300, 128]"]);
    init_fails(&ground, "weights", &["model.preset=OpenELM-5M"], &["weights: tensor "]);
    init_fails(&ground, "weights", &["model.vocab_size=300", "model.share_input_output_layers=false"], &["classifier.weight is missing"]);
    init_fails(&ground, "none", &[], &["none: there is nothing at this path"]);
    init_fails(&ground, "tok", &[], &["tok: the folder holds no weights"]);
    init_fails(&ground, "config.yaml", &[], &["config.yaml: the file is of no kind"]);
    ground.train("from-export", &rows).arg("--init").arg("weights").succeeds();
    ground.copy("weights", "cut");
    cut(&ground.path("cut/model.safetensors"), 0.6);
    init_fails(&ground, "cut", &rows, &["cut/model.safetensors are cut in tensor ", "bytes are missing"]);
    cut(&ground.path("cut/model.safetensors"), 0.001);
    init_fails(&ground, "cut", &rows, &["cut/model.safetensors are cut in the header"]);
    fs::remove_file(ground.path("cut/model.safetensors")).unwrap();
    init_fails(&ground, "cut", &rows, &["cut", "hint: "]);
    ground.copy("weights", "odd");
    let config = fs::read_to_string(ground.path("odd/config.json")).unwrap();
    ground.write("odd/config.json", config.replace("\"model_dim\": 128", "\"model_dim\": 64"));
    init_fails(&ground, "odd", &rows, &["odd"]);
    ground.write("odd/config.json", &config[..config.len() / 2]);
    init_fails(&ground, "odd", &rows, &["odd/config.json", "line "]);
    ground.write("x.pt", "no pickle");
    init_fails(&ground, "x.pt", &rows, &["x.pt"]);
}

#[test]
fn a_damaged_newest_checkpoint() {
    let ground = with_weights();
    ground.train("whole", &[]).succeeds();
    let resume_fails = |name: &str, parts: &[&str]| {
        let before = digests(&ground.path(name));
        ground.train(name, &[]).resume().fails(&[parts, &["step-00000006"]].concat());
        ground.call(["generate", name, "--prompt", "the"]).fails(parts);
        ground.call(["export", name, "--format", "hf", "--out", "none"]).fails(parts);
        assert_eq!(digests(&ground.path(name)), before);
        assert!(!ground.path("none").exists());
    };
    for (name, file) in [("first", "model.safetensors"), ("second", "optimizer.safetensors")] {
        ground.copy("run", name);
        let place = ground.run(name).checkpoint(6).join(file);
        let whole = fs::read(&place).unwrap();
        cut(&place, 0.5);
        resume_fails(name, &[&format!("{file} has "), "its manifest says", "an older checkpoint"]);
        let mut flipped = whole;
        flipped[20_000] ^= 4;
        fs::write(&place, flipped).unwrap();
        resume_fails(name, &[&format!("{file} has changed since it was written")]);
        fs::remove_file(&place).unwrap();
        resume_fails(name, &[file, "reading it failed"]);
        // The hint: remove the folder, and go on from the one before it.
        fs::remove_dir_all(ground.run(name).checkpoint(6)).unwrap();
        assert_eq!(ground.run(name).newest(), 3);
        ground.train(name, &[]).resume().succeeds();
        ground.run(name).assert_same_checkpoint(&ground.run("whole"));
    }
    ground.copy("run", "third");
    let place = ground.run("third").checkpoint(6).join("manifest.json");
    let manifest = fs::read_to_string(&place).unwrap();
    cut(&place, 0.5);
    resume_fails("third", &["manifest.json", "line "]);
    fs::write(&place, manifest.replacen("\"version\": 1", "\"version\": 2", 1)).unwrap();
    resume_fails("third", &["its manifest has version 2, this program reads version 1"]);
}

#[test]
fn weights_that_are_not_finite() {
    let ground = with_weights();
    ground.copy("weights", "nan");
    let mut bytes = fs::read(ground.path("nan/model.safetensors")).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    ground.write("nan/model.safetensors", bytes);
    let set = ["model.vocab_size=300"];
    let message = ground.train("new", &set).arg("--init").arg("nan").fails(&["step 1: the loss is NaN", "there is no checkpoint yet"]);
    assert!(message.contains("max_lr"), "{message}");
    assert_eq!(ground.run("new").metrics(), [0; 0]);
    assert_eq!(ground.run("new").steps(), [0; 0]);
    ground.call(["generate", "nan", "--prompt", "the"]).fails(&["a logit that is NaN at position 1"]);
}

#[test]
fn a_run_that_diverges_stops_and_goes_on_from_the_last_good_checkpoint() {
    let ground = with_weights();
    ground.train("whole", &[]).succeeds();
    let run = ground.run("run");
    let before = digests(&run.path.join("checkpoints"));
    let message = ground.train("run", &["schedule.max_lr=1e30"]).resume().fails(&[
        "step 8: ",
        " is ",
        "the last good checkpoint is of step 6",
        "step-00000006",
    ]);
    assert!(message.contains("NaN") || message.contains("inf"), "{message}");
    assert_eq!(digests(&run.path.join("checkpoints")), before);
    let log = fs::read_to_string(run.path.join("metrics.jsonl")).unwrap();
    assert!(!log.contains("NaN") && !log.contains("null") && !log.contains("\"step\":8"), "{log}");
    assert_eq!(run.losses().len(), 7);
    ground.train("run", &[]).resume().succeeds();
    run.assert_same_checkpoint(&ground.run("whole"));
    assert_eq!(run.losses(), ground.run("whole").losses());
}

#[test]
fn the_last_good_checkpoint_is_good() {
    let ground = Ground::new();
    ground.train("whole", &[]).succeeds();
    ground.finished_run("run");
    // The weights of step 7 are beyond all bounds, and they are saved before any loss shows it.
    let wild = ["schedule.max_lr=1e30", "checkpoint.every=1", "checkpoint.keep_last=4"];
    let message = ground.train("run", &wild).resume().fails(&["step 8: ", "checkpoint"]);
    let (_, named) = message.split_once("the last good checkpoint is of step ").unwrap();
    let step: u64 = named[..1].parse().unwrap();
    let run = ground.run("run");
    for newer in run.steps().into_iter().filter(|newer| *newer > step) {
        fs::remove_dir_all(run.checkpoint(newer)).unwrap();
    }
    ground.train("run", &[]).resume().succeeds();
    run.assert_same_checkpoint(&ground.run("whole"));
}

#[test]
fn generation_and_export() {
    let ground = with_weights();
    let generate = |arguments: &[&str], parts: &[&str]| {
        let before = digests(&ground.path("."));
        ground.call([&["generate"], arguments].concat()).fails(parts);
        assert_eq!(digests(&ground.path(".")), before);
    };
    generate(&["none", "--prompt", "a"], &["none: there is nothing at this path"]);
    generate(&["tok", "--prompt", "a"], &["tok: the folder holds no weights"]);
    generate(&["weights", "--prompt", "a", "--tokenizer", "none"], &["tokenizer none: no such file or folder"]);
    generate(&["weights", "--prompt", "a", "--temperature=-1"], &["temperature is -1"]);
    generate(&["weights", "--prompt", "a", "--top-p", "0"], &["top_p is 0"]);
    generate(&["weights", "--prompt", "a", "--min-p", "1"], &["min_p is 1"]);
    generate(&["weights", "--prompt", "a", "--repetition-penalty", "0"], &["repetition_penalty is 0"]);
    generate(&["weights", "--prompt", "a", "--device", "gpu"], &["device gpu: is not a known device"]);
    generate(&["weights", "--prompt", &"bird ".repeat(200)], &["tokens, the model's context holds 128", "shorten the prompt"]);
    // A tokenizer that has more tokens than the model has rows.
    let bigger = "tokenizer={train: {vocab_size: 310}}";
    ground.call(["tokenizer", "train", "config.yaml", "--out", "bigger", "--set", bigger]).succeeds();
    generate(
        &["weights", "--tokenizer", "bigger", "--prompt", "the bird found a small river near the garden."],
        &["outside the model's vocabulary of 300"],
    );
    let export = ["export", "weights", "--format", "hf", "--out", "out", "--tokenizer", "bigger"];
    ground.call(export).fails(&["the tokenizer has 310 tokens", "300 rows"]);
    assert!(!ground.path("out").exists());
    // No tokenizer beside the weights.
    for name in ["tokenizer.model", "tokenizer.json"] {
        fs::remove_file(ground.path("weights").join(name)).unwrap();
    }
    generate(&["weights", "--prompt", "a"], &["weights: no tokenizer lies beside the weights", "--tokenizer"]);
    let outcome = ground.call(["export", "weights", "--format", "hf", "--out", "bare"]).succeeds();
    assert!(outcome.stderr.contains("no tokenizer lies beside the weights"), "{}", outcome.stderr);
    // A run without a checkpoint.
    fs::remove_dir_all(ground.path("run/checkpoints")).unwrap();
    fs::create_dir(ground.path("run/checkpoints")).unwrap();
    generate(&["run", "--prompt", "a"], &["run: the run has written no checkpoint yet"]);
}
