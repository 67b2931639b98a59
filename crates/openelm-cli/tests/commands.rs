//! What each command prints and writes when all is well.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::shards::{gzip, json_lines, parquet, texts, zstd};
use support::{Ground, TOKENS};

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn params_add_up() {
    let ground = Ground::new();
    let given = ground
        .call(["params", "config.yaml", "--json", "--devices", "2", "--peak-tflops", "10", "--utilisation", "0.25"])
        .succeeds()
        .json();
    let layers = given["layers"].as_array().unwrap();
    let sum: u64 = layers.iter().map(|layer| number(&layer["parameters"])).sum();
    assert_eq!((layers.len(), &given["name"]), (5, &json!("tiny")));
    assert_eq!(number(&given["embedding_parameters"]), 320 * 128);
    // The last norm has a weight for each channel.
    assert_eq!(number(&given["parameters"]), sum + 320 * 128 + 128);
    for (key, factor) in [("weight_bytes", 4), ("gradient_bytes", 4), ("optimizer_bytes", 8)] {
        assert_eq!(number(&given[key]), factor * number(&given["parameters"]), "{key}");
    }
    // Wider layers towards the end, and four query heads for each kv head.
    for layer in layers {
        assert_eq!(number(&layer["query_heads"]), 4 * number(&layer["kv_heads"]));
        assert_eq!(number(&layer["attention_width"]), 8 * number(&layer["query_heads"]));
    }
    assert!(layers.windows(2).all(|pair| number(&pair[0]["ffn_width"]) < number(&pair[1]["ffn_width"])));
    let (flops, tokens) = (given["training_flops_per_token"].as_f64().unwrap(), given["tokens"].as_f64().unwrap());
    assert_eq!(tokens, 12.0 * 4.0 * 32.0);
    let days = flops * tokens / (2.0 * 10e12 * 0.25) / 86_400.0;
    assert!((given["days"].as_f64().unwrap() / days - 1.0).abs() < 1e-9);
    // The run that is trained has just so many.
    let stderr = ground.train("run", &["training.steps=3"]).succeeds().stderr;
    assert!(stderr.contains(&format!("{} parameters", given["parameters"])), "{stderr}");
    let table = ground.call(["params", "config.yaml"]).succeeds().stdout;
    assert_eq!(table.lines().filter(|line| line.ends_with('%')).count(), 5 + 1, "{table}");
    let named = ground.call(["params", "OpenELM-270M", "--json"]).succeeds().json();
    // Apple's 270M with its vocabulary of 32000.
    assert_eq!((number(&named["parameters"]), named["days"].clone()), (271_527_168, Value::Null));
}

/// `data show --json` with these arguments: source and tokens of each sequence.
fn shown(ground: &Ground, arguments: &[&str]) -> Vec<(String, Vec<u64>)> {
    let outcome = ground.call([&["data", "show", "config.yaml", "--json"], arguments].concat()).succeeds();
    let line = |line: &Value| {
        assert_eq!(keys(line), ["source", "tokens"]);
        let tokens: Vec<u64> = line["tokens"].as_array().unwrap().iter().map(number).collect();
        assert_eq!(tokens.len(), 33, "sequence length and one more");
        (line["source"].as_str().unwrap().to_owned(), tokens)
    };
    outcome.json_lines().iter().map(line).collect()
}

#[test]
fn data_in_mixed_order_is_one_order_for_any_number_of_ranks() {
    let ground = Ground::new();
    let alone = shown(&ground, &["--samples", "40"]);
    assert_eq!(alone.len(), 40);
    assert_eq!(alone, shown(&ground, &["--samples", "40", "--set", "data.threads=1", "--set", "data.prefetch=5"]));
    for world in [2, 4] {
        let ranks: Vec<_> = (0..world)
            .map(|rank| {
                shown(&ground, &["--samples", &(40 / world).to_string(), "--world", &world.to_string(), "--rank", &rank.to_string()])
            })
            .collect();
        let turns: Vec<_> = (0..40).map(|index| ranks[index % world][index / world].clone()).collect();
        assert_eq!(turns, alone, "{world} ranks");
    }
    assert_ne!(alone, shown(&ground, &["--samples", "40", "--set", "seed=4"]));
    for (source, tokens) in &alone {
        assert!(Path::new(source).is_file() && source.contains("stories-"), "{source}");
        assert!(tokens.iter().all(|id| *id < TOKENS));
    }
    ground.call(["data", "show", "config.yaml", "--world", "3"]).fails(&["data.lanes is 4, which 3 ranks cannot share"]);
    ground.call(["data", "show", "config.yaml", "--rank", "2", "--world", "2"]).fails(&["rank"]);
    ground.call(["data", "show", "config.yaml", "--workers", "2"]).fails(&["--worker and --workers belong to the corenet order"]);
}

#[test]
fn data_in_corenet_order_is_padded_pieces() {
    let ground = Ground::new();
    let set = ["--set", "data.order=corenet", "--set", "data.document_split_words=12"];
    let shown = |more: &[&str]| shown(&ground, &[&set, more].concat());
    let alone = shown(&["--samples", "30"]);
    assert_eq!(alone.len(), 30);
    let padding = TOKENS;
    let mut padded = 0;
    for (_, tokens) in &alone {
        let filled: Vec<u64> = tokens.iter().copied().take_while(|id| *id != padding).collect();
        assert_eq!(filled[0], 1, "begins with BOS");
        if filled.len() < 33 {
            padded += 1;
            assert_eq!(filled.last(), Some(&2), "ends with EOS");
            assert!(tokens[filled.len()..].iter().all(|id| *id == padding));
        }
    }
    assert!(padded > 0, "no piece was shorter than a sequence");
    // One worker is no worker; ranks and workers read shards of their own.
    assert_eq!(alone, shown(&["--samples", "30", "--workers", "1"]));
    let sources = |more: &[&str]| {
        let mut sources: Vec<String> = shown(more).into_iter().map(|(source, _)| source).collect();
        sources.dedup();
        sources
    };
    let (first, second, third) = (
        sources(&["--samples", "9", "--world", "3", "--rank", "0"]),
        sources(&["--samples", "9", "--world", "3", "--rank", "1"]),
        sources(&["--samples", "9", "--workers", "3", "--worker", "2"]),
    );
    assert_eq!((first.len(), second.len(), third.len()), (1, 1, 1), "{first:?} {second:?} {third:?}");
    assert!(first != second && second != third && third != first);
}

#[test]
fn all_layouts_hold_the_same_text() {
    let ground = Ground::new();
    let documents = texts(5, 30);
    let lines = json_lines(&documents);
    let members = [gzip(&lines[..lines.len() / 2]), gzip(&lines[lines.len() / 2..])].concat();
    for (name, content) in
        [("a.jsonl", lines.clone()), ("a.json.gz", members), ("a.jsonl.zst", zstd(&lines)), ("a.parquet", parquet("text", &documents))]
    {
        ground.write(name, content);
    }
    for order in ["mixed", "corenet"] {
        let tokens = |name: &str| -> Vec<Vec<u64>> {
            let set = [&format!("data.order={order}"), &format!("data.corpora.0.files=[{name}]")];
            shown(&ground, &["--samples", "12", "--set", set[0], "--set", set[1]]).into_iter().map(|(_, tokens)| tokens).collect()
        };
        let plain = tokens("a.jsonl");
        for name in ["a.json.gz", "a.jsonl.zst", "a.parquet"] {
            assert_eq!(tokens(name), plain, "{name}, {order}");
        }
    }
    let text =
        ground.call(["data", "show", "config.yaml", "--samples", "3", "--set", "data.corpora.0.files=[a.parquet]"]).succeeds().stdout;
    assert_eq!(text.matches("33 tokens, 0 padding").count(), 3, "{text}");
}

#[test]
fn tokenizers_go_there_and_back() {
    let ground = Ground::new();
    let encode = |tokenizer: &str, text: &str| ground.call(["tokenizer", "encode", tokenizer, text]).succeeds().stdout;
    let decode = |ids: &str| {
        ground.call([&["tokenizer", "decode", "tok"], ids.split_whitespace().collect::<Vec<_>>().as_slice()].concat()).succeeds().stdout
    };
    for text in ["the bird sang near the river.", "  two  spaces, 305 and a\ttab", "not in the texts: Ä 漢字 🙂 \u{1}", "one\ntwo\n\nthree"]
    {
        let ids = encode("tok", text);
        assert_eq!(decode(&ids), format!("{text}\n"), "{ids}");
        // Through the standard input, and with each of the two files.
        assert_eq!(ground.call(["tokenizer", "encode", "tok"]).input(text).succeeds().stdout, ids);
        assert_eq!(ground.call(["tokenizer", "decode", "tok"]).input(&ids).succeeds().stdout, format!("{text}\n"));
        assert_eq!((encode("tok/tokenizer.model", text), encode("tok/tokenizer.json", text)), (ids.clone(), ids));
    }
    let pieces = ground.call(["tokenizer", "encode", "tok", "the 12", "--pieces"]).succeeds().stdout;
    let pieces: Vec<&str> = pieces.split_whitespace().map(|piece| piece.split_once(':').unwrap().1).collect();
    assert_eq!(pieces.concat(), "▁the▁12");
    assert!(pieces.contains(&"1") && pieces.contains(&"2"), "{pieces:?}");
    // The same texts give the same tokenizer.
    ground.call(["tokenizer", "train", "config.yaml", "--out", "again", "--set", &support::trained_tokenizer()]).succeeds();
    for name in ["tokenizer.model", "tokenizer.json"] {
        assert_eq!(fs::read(ground.path("again").join(name)).unwrap(), fs::read(ground.path("tok").join(name)).unwrap(), "{name}");
    }
}

#[test]
fn configurations_go_to_corenets_form_and_back() {
    let ground = Ground::new();
    // CoreNet counts files, makes one update more than it says, and sums gradients, which is no difference for one micro-batch.
    let files = ["data.corpora.0.files=[\"stories-{file_id}.jsonl\"]", "data.corpora.0.file_id_range=[0, 3]"];
    let set = [files[0], files[1], "data.order=corenet", "schedule.max_iterations=11", "training.accumulation=sum"];
    ground.call(["config", "convert", "config.yaml", "--out", "corenet.yaml"]).set(&set).succeeds();
    let corenet = fs::read_to_string(ground.path("corenet.yaml")).unwrap();
    assert!(corenet.contains("general_gpt") && corenet.contains("train_batch_size0: 4"), "{corenet}");
    ground.call(["config", "convert", "corenet.yaml", "--out", "ours.yaml"]).succeeds();
    let ours = fs::read_to_string(ground.path("ours.yaml")).unwrap();
    assert_eq!(ground.call(["config", "show", "corenet.yaml"]).succeeds().stdout, ours);
    assert_eq!(ground.call(["config", "show", "ours.yaml"]).succeeds().stdout, ours);
    assert_eq!(ground.call(["config", "convert", "ours.yaml"]).succeeds().stdout, corenet);
    // All three train the same.
    ground.train("first", &set).succeeds();
    ground.call(["train", "corenet.yaml", "--out", "second"]).succeeds();
    ground.call(["train", "ours.yaml", "--out", "third"]).succeeds();
    let weights = |name: &str| fs::read(ground.run(name).checkpoint(12).join("model.safetensors")).unwrap();
    assert!(weights("first") == weights("second") && weights("second") == weights("third"));
    assert_eq!(ground.run("first").losses(), ground.run("second").losses());
}

#[test]
fn training_says_where_everything_lies() {
    let ground = Ground::new();
    let set = ["log.tensorboard=true", "sample={prompt: the bird, max_new_tokens: 6}", "export={format: hf}"];
    let outcome = ground.train("run", &set).succeeds();
    let places = |label: &str| {
        let line =
            outcome.stdout.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{label} is not in {}", outcome.stdout));
        line[label.len()..].trim().to_owned()
    };
    assert_eq!(places("run folder"), "run");
    for (label, place) in [("checkpoints", "run/checkpoints"), ("metrics", "run/metrics.jsonl"), ("exported", "run/export/hf")] {
        assert_eq!(places(label), place);
        assert!(ground.path(place).exists());
    }
    assert!(places("next").starts_with("openelm generate run"), "{}", outcome.stdout);
    for part in [
        "of 12 steps done",
        "step 1/12  loss ",
        "step 12/12",
        "validation loss",
        "step 12  checkpoint run/checkpoints/step-00000012",
        "finished: 12 steps",
    ] {
        assert!(outcome.stderr.contains(part), "{part:?} is not in {}", outcome.stderr);
    }
    // The sample is what the exported weights write.
    let text = ground.call(["generate", "run/export/hf", "--prompt", "the bird", "--max-new-tokens", "6", "--json"]).succeeds().json();
    assert!(outcome.stdout.contains(&format!("the bird{}\n---", text["text"].as_str().unwrap())), "{}", outcome.stdout);
    let events: Vec<_> = fs::read_dir(ground.path("run/tensorboard")).unwrap().collect();
    assert_eq!(events.len(), 1);
    // The folder's own configuration is complete, and trains the same run.
    ground.call(["train", "run/config.yaml", "--out", "again"]).succeeds();
    ground.run("again").assert_same_checkpoint(&ground.run("run"));
    let records = ground.run("run").metrics();
    assert_eq!(keys(&records[0]), ["step", "loss", "ce_loss", "z_loss", "grad_norm", "learning_rate", "tokens"]);
    let validation = records.iter().find(|record| record.get("perplexity").is_some()).unwrap();
    assert_eq!(keys(validation), ["step", "validation_loss", "perplexity", "validation_tokens"]);
    assert_eq!(number(&validation["validation_tokens"]), 4 * 32);
    assert_eq!(number(&records.last().unwrap()["step"]), 12);
    // A second end of the same run puts its export in the first one's place.
    ground.train("run", &set).resume().succeeds();
    assert_eq!(
        ground.call(["generate", "run/export/hf", "--prompt", "the bird", "--max-new-tokens", "6", "--json"]).succeeds().json()["ids"],
        text["ids"]
    );
}

#[test]
fn bench_reports_a_line() {
    let ground = Ground::new();
    let arguments = ["bench", "train", "--model", "tiny", "--vocab", "256", "--batch", "1", "--seq", "16", "--steps", "2"];
    let line = ground.call([arguments.as_slice(), &["--json"]].concat()).succeeds().json();
    let expected = [
        "model",
        "parameters",
        "batch",
        "seq",
        "dtype",
        "device",
        "recompute",
        "trained_parameters",
        "threads",
        "step_seconds",
        "tokens_per_second",
        "min",
        "max",
        "peak_rss_mib",
        "loss",
    ];
    assert_eq!(keys(&line), expected);
    for (key, value) in [
        ("model", json!("tiny")),
        ("batch", json!(1)),
        ("seq", json!(16)),
        ("dtype", json!("f32")),
        ("device", json!("flex")),
        ("recompute", json!(false)),
    ] {
        assert_eq!(line[key], value, "{key}");
    }
    let seconds = line["step_seconds"].as_f64().unwrap();
    assert!((line["tokens_per_second"].as_f64().unwrap() * seconds / 16.0 - 1.0).abs() < 1e-9);
    assert!(line["min"].as_f64().unwrap() <= seconds && seconds <= line["max"].as_f64().unwrap());
    // Below ln 256 after four steps on the same tokens, which are the same each time.
    assert!((1.0..5.545).contains(&line["loss"].as_f64().unwrap()), "{line}");
    assert_eq!(ground.call([arguments.as_slice(), &["--json"]].concat()).succeeds().json()["loss"], line["loss"]);
    let text = ground.call(arguments).succeeds().stdout;
    assert!(text.contains("OpenELM-tiny, 1 x 16 tokens on flex"), "{text}");
    ground.call(["bench", "train", "--model", "28M"]).fails(&["28M is no known size", "OpenELM-25M"]);
    ground.call(["bench", "train", "--model", "tiny", "--steps", "0"]).fails(&["--steps must be at least 1"]);
    ground.call(["bench", "train", "--model", "tiny", "--device", "tpu"]).fails(&["device tpu: is not a known device", "wgpu"]);
}
