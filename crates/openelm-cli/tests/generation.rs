//! Weights out of a run: exported, read back, continued from, and made to write.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use support::run_folder::RunDir;
use support::shards::json_lines;
use support::{Ground, TOKENS};

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The greedy continuation of a prompt.
fn greedy(ground: &Ground, weights: &str) -> Value {
    ground.call(["generate", weights, "--prompt", "the small bird", "--max-new-tokens", "24", "--ignore-eos", "--json"]).succeeds().json()["ids"].clone()
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn exports_read_back() {
    let ground = Ground::new();
    ground.train("run", &[]).succeeds();
    let export = |out: &str, more: &[&str]| ground.call([&["export", "run", "--format", "hf", "--out", out], more].concat()).succeeds();
    assert_eq!(export("plain", &[]).stdout, "plain\n");
    let mut names: Vec<String> =
        fs::read_dir(ground.path("plain")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = [
        "README.md",
        "config.json",
        "configuration_openelm.py",
        "generation_config.json",
        "model.safetensors",
        "modeling_openelm.py",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    // Rows beyond the tokenizer's are gone from the table and from the configuration.
    let config: Value = serde_json::from_slice(&fs::read(ground.path("plain/config.json")).unwrap()).unwrap();
    assert_eq!((number(&config["vocab_size"]), config["torch_dtype"].as_str()), (TOKENS, Some("float32")));
    assert_eq!(config["num_query_heads"].as_array().unwrap().len(), 5);
    assert_eq!((&config["bos_token_id"], &config["eos_token_id"]), (&json!(1), &json!(2)));
    let bytes = fs::read(ground.path("plain/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let table = tensors.tensor("transformer.token_embeddings.weight").unwrap();
    assert_eq!((table.dtype(), table.shape()), (Dtype::F32, [300, 128].as_slice()));
    let checkpoint = fs::read(ground.run("run").checkpoint(12).join("model.safetensors")).unwrap();
    let saved = SafeTensors::deserialize(&checkpoint).unwrap();
    for (name, tensor) in tensors.tensors() {
        assert!(saved.tensor(&name).unwrap().data().starts_with(tensor.data()), "{name}");
    }
    let card = fs::read_to_string(ground.path("plain/README.md")).unwrap();
    assert!(card.contains("# plain") && card.contains("12 steps"), "{card}");

    export("sharded", &["--max-shard-mb", "1"]);
    let index: Value = serde_json::from_slice(&fs::read(ground.path("sharded/model.safetensors.index.json")).unwrap()).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.len(), tensors.len());
    let mut shards: Vec<&str> = map.values().map(|name| name.as_str().unwrap()).collect();
    shards.sort_unstable();
    shards.dedup();
    assert!(shards.len() > 2 && shards[0].starts_with("model-00001-of-0000"), "{shards:?}");
    for shard in shards {
        assert!(size(&ground.path("sharded").join(shard)) < 1_010_000, "{shard}");
    }
    assert!(!ground.path("sharded/model.safetensors").exists());

    for (dtype, stored) in [("bf16", Dtype::BF16), ("f16", Dtype::F16)] {
        export(dtype, &["--dtype", dtype]);
        let place = ground.path(dtype).join("model.safetensors");
        let bytes = fs::read(&place).unwrap();
        let half = SafeTensors::deserialize(&bytes).unwrap();
        assert!(half.tensors().iter().all(|(_, tensor)| tensor.dtype() == stored));
        let share = bytes.len() as f64 / size(&ground.path("plain/model.safetensors")) as f64;
        assert!((0.5..0.51).contains(&share), "{dtype}: {share}");
    }

    // The padding rows cannot be drawn by a trained model, so every f32 form continues alike.
    let ids = greedy(&ground, "run");
    assert_eq!(ids.as_array().unwrap().len(), 24);
    for weights in ["run/checkpoints/step-00000012", "plain", "sharded"] {
        assert_eq!(greedy(&ground, weights), ids, "{weights}");
    }
    assert_eq!(greedy(&ground, "bf16").as_array().unwrap().len(), 24);
    // An export can be exported again, and begins a run.
    ground.call(["export", "sharded", "--format", "hf", "--out", "again"]).succeeds();
    assert!(fs::read(ground.path("again/model.safetensors")).unwrap() == fs::read(ground.path("plain/model.safetensors")).unwrap());
    ground.train("tuned", &["model.vocab_size=300", "training.steps=3"]).arg("--init").arg("plain").succeeds();
    let (first, fresh) = (ground.run("tuned").losses()[0], ground.run("run").losses()[0]);
    assert!(first < fresh - 1.0, "{first} {fresh}");
}

#[test]
fn initial_weights_are_a_runs_beginning() {
    let ground = Ground::new();
    ground.finished_run("run");
    // Same weights, same data, no optimizer state: the first loss is that of these weights, and the run counts from 1.
    ground.train("tuned", &["training.steps=3"]).arg("--init").arg("run").succeeds();
    let tuned = ground.run("tuned");
    let steps: Vec<u64> = tuned.metrics().iter().map(|record| number(&record["step"])).collect();
    assert_eq!(steps, [1, 2, 3, 3]);
    ground.train("again", &["training.steps=3"]).arg("--init").arg("run/checkpoints/step-00000006").succeeds();
    ground.run("again").assert_same(&tuned);
}

#[test]
fn generation() {
    let ground = Ground::new();
    let run: RunDir = ground.finished_run("run");
    let generate = |more: &[&str]| ground.call([&["generate", "run", "--prompt", "the bird"], more].concat()).succeeds();
    let whole = generate(&["--json", "--max-new-tokens", "20", "--ignore-eos"]).json();
    assert_eq!(
        keys(&whole),
        ["prompt", "text", "prompt_ids", "ids", "stop", "prefill_seconds", "accepted_guesses", "decode_tokens_per_second"]
    );
    assert_eq!((whole["prompt"].as_str(), whole["stop"].as_str()), (Some("the bird"), Some("length")));
    assert_eq!(whole["prompt_ids"][0], json!(1), "BOS");
    assert_eq!(whole["ids"].as_array().unwrap().len(), 20);
    assert!(whole["prefill_seconds"].as_f64().unwrap() > 0.0 && whole["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
    // The stream is the prompt and the text; the prompt can come from the standard input.
    let stream = generate(&["--max-new-tokens", "20", "--ignore-eos"]);
    let expected = format!("the bird{}\n", whole["text"].as_str().unwrap());
    assert_eq!(stream.stdout, expected);
    assert!(
        stream.stderr.contains("[20 tokens, prompt at ") && stream.stderr.contains("tokens/s") && stream.stderr.contains("length]"),
        "{}",
        stream.stderr
    );
    let piped = ground.call(["generate", "run", "--max-new-tokens", "20", "--ignore-eos"]).input("the bird").succeeds();
    assert_eq!(piped.stdout, expected);

    let ids = |more: &[&str]| generate(&[&["--json", "--max-new-tokens", "40", "--ignore-eos"], more].concat()).json()["ids"].clone();
    let drawn = |seed: &str| ids(&["--temperature", "1", "--seed", seed]);
    assert_eq!(drawn("7"), drawn("7"));
    assert_ne!(drawn("7"), drawn("8"));
    let greedy = ids(&[]);
    assert_ne!(drawn("7"), greedy);
    // Each of these leaves one token to draw from.
    for narrow in [["--top-k", "1"], ["--top-p", "1e-6"], ["--min-p", "0.9999999"]] {
        assert_eq!(ids(&["--temperature", "1", "--seed", "7", narrow[0], narrow[1]]), greedy, "{narrow:?}");
    }
    assert_ne!(ids(&["--repetition-penalty", "1.5"]), greedy);
    assert_eq!(ids(&["--dtype", "bf16"]).as_array().unwrap().len(), 40);
    // The rotary table holds 128 positions; the token behind the last of them is still made.
    let full = generate(&["--json", "--max-new-tokens", "1000", "--ignore-eos"]).json();
    assert_eq!(full["stop"], json!("context is full"));
    assert_eq!(full["ids"].as_array().unwrap().len() + full["prompt_ids"].as_array().unwrap().len(), 129);
    // An older checkpoint, and another tokenizer.
    let older = run.checkpoint(3);
    ground.call(["generate", older.to_str().unwrap(), "--prompt", "a", "--max-new-tokens", "1", "--tokenizer", "tok"]).succeeds();
}

#[test]
fn generation_ends_at_the_end_of_a_text() {
    let ground = Ground::new();
    // One word and the end, over and over.
    ground.write("bye.jsonl", json_lines(&vec!["bird".to_owned(); 400]));
    ground.train("run", &["data.corpora.0.files=[bye.jsonl]", "training.steps=40", "validation.corpora.0.files=[bye.jsonl]"]).succeeds();
    let call = |more: &[&str]| {
        ground.call([&["generate", "run", "--prompt", "bird", "--max-new-tokens", "9", "--json"], more].concat()).succeeds().json()
    };
    let ended = call(&[]);
    assert_eq!((ended["stop"].as_str(), ended["text"].as_str()), (Some("end of text"), Some("")));
    assert_eq!(ended["ids"], json!([2]));
    let on = call(&["--ignore-eos"]);
    assert_eq!((on["ids"].as_array().unwrap().len(), &on["ids"][0], on["stop"].as_str()), (9, &json!(2), Some("length")));
}

#[test]
fn texts_have_the_form_that_is_asked_for() {
    let ground = Ground::new();
    ground.train("run", &[]).succeeds();
    ground.write("schema.json", r#"{"type": "object", "properties": {"bird": {"type": "boolean"}, "songs": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["bird", "songs"], "additionalProperties": false}"#);
    ground.write("grammar.lark", "start: /a/ | \"[\" start \"]\"");
    let generate = |more: &[&str]| {
        let all = ["generate", "run", "--prompt", "the small bird", "--max-new-tokens", "90", "--temperature", "1"];
        ground.call([&all, more].concat())
    };
    for seed in ["1", "2", "3"] {
        let made = generate(&["--json-schema", "schema.json", "--seed", seed, "--json"]).succeeds().json();
        assert_eq!(made["stop"], "end of text", "{made}");
        let value: Value = serde_json::from_str(made["text"].as_str().unwrap()).unwrap();
        assert!(value["bird"].is_boolean() && value["songs"].as_u64().unwrap() < 10, "{value}");
    }
    let made = generate(&["--regex", "(song|sea)!", "--json"]).succeeds().json();
    assert!(["song!", "sea!"].contains(&made["text"].as_str().unwrap()), "{made}");
    let made = generate(&["--grammar", "grammar.lark", "--json"]).succeeds().json();
    assert!(made["text"].as_str().unwrap().contains('a'), "{made}");
    assert!(generate(&["--json-object"]).succeeds().stdout.starts_with("the small bird{"));
    generate(&["--regex", "a("]).fails(&["the form of the answer"]);
    generate(&["--json-schema", "grammar.lark"]).fails(&["grammar.lark", "not JSON"]);
    generate(&["--json-schema", "none.json"]).fails(&["none.json", "reading the JSON schema failed"]);
    let both = generate(&["--regex", "a", "--json-object"]).outcome();
    assert!(both.status.code() == Some(2) && both.stderr.contains("cannot be used with"), "{both:?}");
}
