//! Adapters through the program: runs that go on bit for bit and leave the base alone, fused models that answer as base and adapter do,
//! input that is refused.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::Ground;
use support::run_folder::{RunDir, digests};

const LORA: &str =
    "adapter={r: 4, lora_alpha: 8, lora_dropout: 0.2, target_modules: [token_embeddings, qkv_proj, out_proj, proj_1, proj_2]}";
const DORA: &str = "adapter={r: 3, lora_dropout: 0.1, use_dora: true, base_dtype: bf16, target_modules: '.*layers.[13].*proj.*'}";

/// Makes `parts` of `whole` as it stood after the checkpoint of `step`.
fn cut_back(ground: &Ground, step: u64) {
    ground.copy("whole", "parts");
    let parts = ground.run("parts");
    for later in parts.steps().into_iter().filter(|found| *found > step) {
        fs::remove_dir_all(parts.checkpoint(later)).unwrap();
    }
}

/// Fails unless both runs have the same log and, byte by byte, the same newest adapter and optimizer state.
fn assert_same(run: &RunDir, other: &RunDir) {
    assert_eq!(run.metrics(), other.metrics());
    let step = run.newest();
    let (own, others) = (run.manifest(step), other.manifest(step));
    for key in ["step", "tokens", "data", "model", "files"] {
        assert_eq!(own[key], others[key], "{key} of manifest.json");
    }
    let names: Vec<&str> = own["files"].as_array().unwrap().iter().filter_map(|file| file["name"].as_str()).collect();
    assert_eq!(names, ["adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors"]);
    for name in names {
        let read = |run: &RunDir| fs::read(run.checkpoint(step).join(name)).unwrap();
        assert!(read(run) == read(other), "{name}");
    }
}

#[test]
fn resumed_adapter_runs_are_the_uninterrupted_ones() {
    let ground = Ground::for_tuning();
    let base = digests(&ground.path("base"));
    let sets: [(&str, &[&str]); 3] = [
        ("supervised", &[LORA, "schedule.max_lr=0.02"]),
        ("supervised", &[DORA, "schedule.max_lr=0.02", "training.dtype=bf16", "training.activation_checkpointing=true"]),
        ("preference", &[LORA, "schedule.max_lr=0.005"]),
    ];
    for (kind, set) in sets {
        ground.tune(kind, "whole", set).succeeds();
        let losses = ground.run("whole").losses();
        let fell = losses[0] - losses[9..].iter().sum::<f64>() / (losses.len() - 9) as f64;
        assert!(fell > 0.1, "{kind} {set:?}: nothing was learned: {losses:?}");
        cut_back(&ground, 6);
        ground.tune(kind, "parts", set).resume().succeeds();
        assert_same(&ground.run("whole"), &ground.run("parts"));
        ground
            .call(["finetune", "whole/config.yaml", "--out", "parts", "--resume", "--set", "adapter.r=5"])
            .fails(&["another one than the configuration's"]);
        for name in ["whole", "parts"] {
            fs::remove_dir_all(ground.path(name)).unwrap();
        }
    }
    assert_eq!(digests(&ground.path("base")), base, "the base has changed");
}

#[test]
fn fused_and_unfused_answer_alike() {
    let ground = Ground::for_tuning();
    ground.tune("supervised", "run", &[LORA, "schedule.max_lr=0.02"]).succeeds();
    let answer = |arguments: &[&str]| {
        let all = [&["generate"], arguments, &["--prompt", "The river", "--max-new-tokens", "12", "--ignore-eos", "--json"]].concat();
        let out: serde_json::Value = serde_json::from_str(&ground.call(all).succeeds().stdout).unwrap();
        out["ids"].to_string()
    };
    let alone = answer(&["base"]);
    let with = answer(&["base", "--adapter", "run"]);
    assert_ne!(alone, with);
    assert_eq!(answer(&["run"]), with);
    assert_eq!(answer(&["base", "--adapter", ground.run("run").checkpoint(12).to_str().unwrap()]), with);
    ground.call(["adapter", "fuse", "base", "run", "--out", "fused"]).succeeds();
    assert_eq!(answer(&["fused"]), with);
    let config: serde_json::Value = serde_json::from_slice(&fs::read(ground.path("fused/config.json")).unwrap()).unwrap();
    assert_eq!(config["share_input_output_layers"], false, "an adapted embedding unties the head");
    // llama.cpp has no head of its own for this architecture.
    ground.call(["export", "run", "--format", "gguf", "--out", "run.gguf"]).fails(&["output head of its own"]);
    ground.tune("supervised", "linear", &[DORA, "schedule.max_lr=0.02"]).succeeds();
    ground.call(["export", "linear", "--format", "gguf", "--out", "linear.gguf"]).succeeds();
    assert_eq!(answer(&["linear.gguf"]), answer(&["base", "--adapter", "linear"]));

    // An adapter on the fused model of another: each names its base.
    ground.call(["finetune", "preference.yaml", "--init", "run", "--out", "second", "--set", DORA]).succeeds();
    let second = answer(&["second"]);
    assert_eq!(answer(&["fused", "--adapter", "second"]), second);

    let shown = ground.call(["adapter", "show", "run"]).succeeds().stdout;
    for part in ["LoRA, rank 4, alpha 8, dropout 0.2", "token_embeddings, qkv_proj", "lora_embedding_A [4, 320]"] {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn what_cannot_be_adapted_is_refused() {
    let ground = Ground::for_tuning();
    let tune = |adapter: &str| ground.tune("supervised", "run", &[adapter]);
    tune("adapter={r: 0, target_modules: [qkv_proj]}").fails(&["adapter.r: is 0"]);
    tune("adapter={r: 2, target_modules: [q_proj]}").fails(&["q_proj is the name of no module", "qkv_proj"]);
    tune("adapter={r: 2, target_modules: '(qkv'}").fails(&["target_modules", "( is not closed"]);
    tune("adapter={r: 2, lora_dropout: 1, target_modules: [qkv_proj]}").fails(&["lora_dropout", "[0, 1)"]);
    tune("adapter={r: 2, use_dora: true, target_modules: [token_embeddings]}").fails(&["use_dora", "embedding"]);
    tune("adapter={r: 2, base_dtype: q4_0, target_modules: [qkv_proj]}").fails(&["base_dtype", "q8_0"]);
    tune("adapter={r: 2, alpha: 3, target_modules: [qkv_proj]}").fails(&["adapter.alpha: unknown key"]);
    assert!(!ground.run("run").exists());
    ground.call(["generate", "base", "--adapter", "base", "--prompt", "a"]).fails(&["there is no adapter here"]);
    ground.call(["adapter", "show", "nowhere"]).fails(&["nowhere"]);

    tune("adapter={r: 2, target_modules: [qkv_proj]}").set(&["training.steps=2"]).succeeds();
    fs::rename(ground.path("base"), ground.path("elsewhere")).unwrap();
    ground.call(["generate", "run", "--prompt", "a"]).fails(&["its base", "cannot be opened", "--adapter"]);
    ground.call(["generate", "elsewhere", "--adapter", "run", "--prompt", "a"]).succeeds();
    let checkpoint = ground.run("run").checkpoint(2).join("adapter_model.safetensors");
    let bytes = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    ground.call(["generate", "elsewhere", "--adapter", "run", "--prompt", "a"]).fails(&["adapter_model.safetensors"]);
}
