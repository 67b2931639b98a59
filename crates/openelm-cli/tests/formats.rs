//! Weights into other programs' formats and back, through the program.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

mod support;

use support::Ground;
use support::program::Outcome;

fn ids(outcome: &Outcome) -> serde_json::Value {
    outcome.json()["ids"].clone()
}

#[test]
fn every_format_writes_the_same_text() {
    let ground = Ground::new();
    ground.finished_run("run");
    let generate = |weights: &str| {
        let call = ["generate", weights, "--prompt", "the bird", "--max-new-tokens", "8", "--ignore-eos", "--json"];
        ids(&ground.call(call).succeeds())
    };
    let expected = generate("run");
    for (format, out) in [("hf", "hf"), ("gguf", "model.gguf"), ("mlx", "mlx")] {
        assert_eq!(ground.call(["export", "run", "--format", format, "--out", out]).succeeds().stdout, format!("{out}\n"));
        assert_eq!(generate(out), expected, "{format}");
    }
    ground.call(["export", "model.gguf", "--format", "corenet", "--out", "model.pt"]).succeeds();
    let call = ["generate", "model.pt", "--tokenizer", "tok", "--prompt", "the bird", "--max-new-tokens", "8", "--ignore-eos", "--json"];
    assert_eq!(ids(&ground.call(call).succeeds()), expected);
    // Rounded, but written and read.
    let types = [
        ("gguf", "q4_k_m", "small.gguf"),
        ("gguf", "q5_k", "middle.gguf"),
        ("gguf", "q4_1", "minima.gguf"),
        ("mlx", "3bit", "smallest"),
        ("mlx", "4bit", "small"),
        ("mlx", "6bit", "larger"),
        ("mlx", "8bit", "middle"),
    ];
    for (format, quantize, out) in types {
        ground.call(["export", "run", "--format", format, "--quantize", quantize, "--out", out]).succeeds();
        assert_eq!(generate(out).as_array().unwrap().len(), 8);
    }
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let ground = Ground::new();
    ground.finished_run("run");
    let export = |format: &str, more: &[&str], parts: &[&str]| {
        ground.call([&["export", "run", "--format", format, "--out", "out"], more].concat()).fails(parts);
        assert!(!ground.path("out").exists());
    };
    export("hf", &["--quantize", "q8_0"], &["--quantize is llama.cpp's"]);
    export("gguf", &["--quantize", "4bit"], &["2bit to 6bit and 8bit are MLX's"]);
    export("gguf", &["--quantize", "q8_0", "--dtype", "f32"], &["already says the type"]);
    export("gguf", &["--training"], &["--training belongs to --format corenet"]);
    export("corenet", &["--training", "--dtype", "bf16"], &["a training checkpoint is f32"]);
    ground.call(["export", "run", "--format", "hf", "--out", "hf"]).succeeds();
    ground.call(["export", "hf", "--format", "corenet", "--training", "--out", "out"]).fails(&["only a run's checkpoint"]);
    ground.write("there.gguf", "x");
    ground.call(["export", "hf", "--format", "gguf", "--out", "there.gguf"]).fails(&["there.gguf: the file exists"]);
}

#[test]
fn a_run_goes_on_by_way_of_corenet() {
    let ground = Ground::new();
    let set = ["data.order=corenet", "validation=null", "checkpoint.keep_last=9"];
    ground.train("whole", &set).succeeds();
    ground.call(["export", "whole/checkpoints/step-00000006", "--format", "corenet", "--training", "--out", "training.pt"]).succeeds();
    ground.call(["import", "training.pt", "config.yaml", "--out", "imported"]).set(&set).succeeds();
    let (whole, imported) = (ground.run("whole"), ground.run("imported"));
    assert_eq!(imported.newest(), 6);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |folder: std::path::PathBuf| std::fs::read(folder.join(file)).unwrap();
        assert!(read(whole.checkpoint(6)) == read(imported.checkpoint(6)), "{file}");
    }
    ground.call(["train", "config.yaml", "--out", "imported", "--resume"]).set(&set).succeeds();
    imported.assert_same_checkpoint(&whole);
    ground.call(["import", "training.pt", "config.yaml", "--out", "imported"]).set(&set).fails(&["imported", "holds another run"]);
    let other = ["data.order=corenet", "model.preset=OpenELM-5M"];
    ground.call(["import", "training.pt", "config.yaml", "--out", "other"]).set(&other).fails(&["training.pt", "optimizer has 42"]);
    ground.call(["export", "whole", "--format", "corenet", "--out", "weights.pt"]).succeeds();
    ground.call(["import", "weights.pt", "config.yaml", "--out", "other"]).fails(&["weights.pt", "no training checkpoint"]);
    assert!(!ground.path("other").exists());
}
