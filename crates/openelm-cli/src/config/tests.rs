//! Every kind of bad input, with the place, the key and the hint that its message must have; and that good input is read right.

use std::path::{Path, PathBuf};

use super::*;

const GOOD: &str = "\
name: small
model:
  preset: OpenELM-tiny
  vocab_size: 1152
  max_context_length: 256
tokenizer: {path: tokenizer.model}
data:
  sequence_length: 256
  corpora:
    - {name: a, files: ['a/*.jsonl']}
    - {name: b, files: ['/b/{file_id:03d}.jsonl.zst'], file_id_range: [0, 9], text_key: content, weight: 2.5}
training: {steps: 30, global_batch: 8, micro_batch: 4}
schedule: {warmup_steps: 3, max_lr: 3.e-3, min_lr: 0.0003}
";

fn load(text: &str, overrides: &[&str]) -> Result<Loaded, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    RunConfig::load_text(text, Path::new("/runs/run.yaml"), &overrides)
}

/// `path:line:column` of the first place where `needle` stands in the text.
fn place(text: &str, needle: &str) -> String {
    let before = &text[..text.find(needle).unwrap_or_else(|| panic!("{needle} is not in\n{text}"))];
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    format!("/runs/run.yaml:{}:{column}", before.matches('\n').count() + 1)
}

/// Replaces a part of the good file; the message must begin at `needle` in the new text, go on with `rest`, and end with a hint.
fn refused(from: &str, to: &str, needle: &str, rest: &str) {
    let text = GOOD.replacen(from, to, 1);
    assert_ne!(text, GOOD, "{from}");
    let message = load(&text, &[]).unwrap_err().to_string();
    let expected = format!("{}: {rest}", place(&text, needle));
    assert!(message.starts_with(&expected), "{message}\nshould start with\n{expected}");
    assert!(message.lines().last().unwrap().starts_with("hint: "), "{message}");
}

#[test]
fn absent_keys_have_their_defaults() {
    let Loaded { config, notes, corenet } = load(GOOD, &[]).unwrap();
    assert!(notes.is_empty() && !corenet);
    assert_eq!(config.tokenizer.path, Some(PathBuf::from("/runs/tokenizer.model")));
    assert_eq!(config.data.corpora[0].files, ["/runs/a/*.jsonl"]);
    assert_eq!((config.data.corpora[0].text_key.as_str(), config.data.corpora[0].weight), ("text", 1.0));
    assert_eq!(config.data.corpora[1].files, ["/b/{file_id:03d}.jsonl.zst"]);
    assert_eq!(config.data.corpora[1].file_id_range, Some([0, 9]));
    assert_eq!((config.data.order, config.data.lanes, config.data.shuffle_buffer), (Order::Mixed, 64, 16));
    assert!(config.data.normalize && config.data.add_bos && config.data.add_eos && config.data.shuffle);
    assert_eq!((config.training.grad_clip, config.training.z_loss), (1.0, 1e-4));
    assert_eq!((config.training.dtype, config.training.accumulation), (Dtype::F32, Accumulation::Mean));
    assert_eq!(config.training.device, "flex");
    assert_eq!(config.optimizer, OptimizerSection::default());
    assert_eq!((config.schedule.max_lr, config.schedule.warmup_init_lr, config.max_iterations()), (0.003, 1e-6, 30));
    assert_eq!((config.checkpoint.every, config.checkpoint.keep_last, config.log.every), (1000, 2, 1));
    assert_eq!((config.accumulation_steps(), config.data_seed()), (2, 0));
}

#[test]
fn what_is_written_reads_back() {
    let everything = [
        "seed=7",
        "model={num_transformer_layers: 2, model_dim: 64, head_dim: 16, num_gqa_groups: 2, qkv_multipliers: 1, ffn_multipliers: [1, 2], \
         ffn_dim_divisor: 16, vocab_size: 2000, max_context_length: 256, padding_index: 1999, rope_freq_constant: 5000, \
         rope_max_length: 300, normalize_qk_projections: false, share_input_output_layers: false, ffn_with_glu: false}",
        "tokenizer={train: {vocab_size: 1999, byte_fallback: false, split_digits: false}}",
        "data.order=corenet",
        "data.seed=5",
        "data.document_mask=true",
        "data.on_bad_record=skip",
        "data.corpora.0.min_tokens_per_text=9",
        "data.corpora.0.min_characters_per_text=8",
        "validation={every: 9, max_sequences: 0, corpora: [{name: v, files: [/v.jsonl]}]}",
        "training.dtype=bf16",
        "training.accumulation=sum",
        "optimizer={eps: 1e-9, no_decay_1d: false}",
        "schedule.max_iterations=29",
        "checkpoint={every: 10, keep_every: 20}",
        "log={tensorboard: false}",
        "sample={prompt: 'a: \"b\"', top_p: 0.5}",
        "export={format: hf}",
    ];
    let mixed = ["data.corpora.0.max_epochs=2", "data.packing=best_fit", "data.cache=/c"];
    let remote = ["data.corpora.0.files=['s3://b/*.jsonl']", "data.object_store={cache: /c, max_bytes: 9}"];
    for overrides in [&[][..], &everything[..], &mixed[..], &remote[..]] {
        let config = load(GOOD, overrides).unwrap().config;
        let written = config.to_yaml().unwrap();
        assert_eq!(load(&written, &[]).unwrap().config, config, "{written}");
    }
}

#[test]
fn unknown_and_missing_keys() {
    refused("name:", "nmae: x\nname:", "nmae", "nmae: unknown key\nhint: did you mean `name`?");
    refused("warmup_steps", "warmup_step", "warmup_step", "schedule.warmup_step: unknown key\nhint: did you mean `warmup_steps`?");
    refused("text_key", "textkey", "textkey", "data.corpora[1].textkey: unknown key\nhint: did you mean `text_key`?");
    refused("  preset:", "  <<: {a: 1}\n  preset:", "<<", "model.<<: unknown key\nhint: merge keys are not read; write the keys out");
    refused("steps: 30", "steps: 30, zzz: 1", "zzz", "training.zzz: unknown key\nhint: known keys here: steps, global_batch,");
    refused("steps: 30, ", "", "{global_batch", "training.steps: is missing\nhint: add the key `steps`");
    refused("name: a, ", "", "{files", "data.corpora[0].name: is missing");
    refused("schedule:", "log:", "warmup_steps", "log.warmup_steps: unknown key");
}

#[test]
fn wrong_types_and_broken_yaml() {
    refused("steps: 30", "steps: -30", "-30", "training.steps: invalid type: integer `-30`, expected a whole number of at least 0\nhint: ");
    refused("steps: 30", "steps: many", "many", "training.steps: invalid type: string \"many\"");
    refused("max_lr: 3.e-3", "max_lr: [1]", "[1]", "schedule.max_lr: invalid type: sequence, expected a number\nhint: ");
    refused("OpenELM-tiny", "OpenELM-small", "OpenELM-small", "model.preset: `OpenELM-small` is none of the accepted values");
    refused("micro_batch: 4", "micro_batch: 4, dtype: f16", "f16", "training.dtype: `f16` is none of the accepted values\nhint: ");
    refused("[0, 9]", "[0, 9, 10]", "[0, 9, 10]", "data.corpora[1].file_id_range: invalid length");
    refused("files: ['a/*.jsonl']", "files: a.jsonl", "a.jsonl", "data.corpora[0].files: invalid type: string");
    let starts = |text: &str, start: &str| {
        let message = load(text, &[]).unwrap_err().to_string();
        assert!(message.starts_with(start) && message.contains("\nhint: "), "{message}");
    };
    starts("name: [1\nseed: 2\n", "/runs/run.yaml:2:");
    starts(&format!("{GOOD}seed: 1\nseed: 2\n"), "/runs/run.yaml:");
    starts("", "/runs/run.yaml");
    starts("just words\n", "/runs/run.yaml:1:1: ");
    starts("\tname: a\n", "/runs/run.yaml:1:");
}

#[test]
fn impossible_models() {
    refused("  preset: OpenELM-tiny\n", "", "vocab_size", "model.num_transformer_layers: is missing");
    refused("preset: OpenELM-tiny", "preset: OpenELM-tiny\n  head_dim: 7", "7\n", "model.head_dim: 7 is odd");
    refused("preset: OpenELM-tiny", "preset: OpenELM-tiny\n  model_dim: 0", "0\n", "model.model_dim: is 0");
    let layers = "preset: OpenELM-tiny\n  num_transformer_layers: 9999999999";
    refused("preset: OpenELM-tiny", layers, "9999999999", "model.num_transformer_layers: is 9999999999\nhint: give a number of at most");
    let list = "preset: OpenELM-tiny\n  num_transformer_layers: 4\n  qkv_multipliers: [1, 2, 3]";
    refused("preset: OpenELM-tiny", list, "[1, 2, 3]", "model.qkv_multipliers: has 3 numbers");
    let negative = "preset: OpenELM-tiny\n  ffn_multipliers: [0.5, -4.0]";
    refused("preset: OpenELM-tiny", negative, "[0.5, -4.0]", "model.ffn_multipliers: holds -4");
    let infinite = "preset: OpenELM-tiny\n  qkv_multipliers: .inf";
    refused("preset: OpenELM-tiny", infinite, ".inf", "model.qkv_multipliers: holds inf");
    let words = "preset: OpenELM-tiny\n  qkv_multipliers: {a: 1}";
    refused("preset: OpenELM-tiny", words, "{a: 1}", "model.qkv_multipliers: invalid type: map, expected a number, or a list such as");
    let padded = "preset: OpenELM-tiny\n  padding_index: 1152";
    refused("preset: OpenELM-tiny", padded, "1152\n", "model.padding_index: 1152 is outside the vocabulary of 1152 rows");
    let rope = "preset: OpenELM-tiny\n  rope_max_length: 100";
    refused("preset: OpenELM-tiny", rope, "100", "model.rope_max_length: 100 is below max_context_length (256)");
    refused("sequence_length: 256", "sequence_length: 257", "257", "data.sequence_length: 257 is above the model's context length (256)");
}

#[test]
fn impossible_data() {
    refused("weight: 2.5", "weight: -1", "-1", "data.corpora[1].weight: is -1");
    refused("weight: 2.5", "weight: .nan", ".nan", "data.corpora[1].weight: is NaN");
    refused("name: b", "name: a", "a, files: ['/b", "data.corpora[1].name: `a` is the name of an earlier corpus");
    refused("'a/*.jsonl'", "", "[]", "data.corpora[0].files: names no file");
    refused("'a/*.jsonl'", "''", "''", "data.corpora[0].files[0]: is empty");
    let remote = "sequence_length: 256\n  object_store: {cache: 's3://b/c'}";
    refused("sequence_length: 256", remote, "'s3", "data.object_store.cache: s3://b/c is on another machine");
    refused("sequence_length: 256", "sequence_length: 256\n  object_store: {max_bytes: 0}", "0}", "data.object_store.max_bytes: is 0");
    refused("'a/*.jsonl'", "'a-{file_id:05d}.jsonl'", "'a-{", "data.corpora[0].files[0]: has {file_id}, but the corpus has no");
    refused("[0, 9]", "[9, 9]", "[9, 9]", "data.corpora[1].file_id_range: [9, 9] holds no id");
    refused("sequence_length: 256", "sequence_length: 256\n  lanes: 0", "0\n  corpora", "data.lanes: is 0");
    refused("weight: 2.5", "max_epochs: 0", "0}", "data.corpora[1].max_epochs: is 0");
    let fit = "sequence_length: 256\n  order: corenet\n  packing: best_fit";
    refused("sequence_length: 256", fit, "best_fit", "data.packing: does not go with order: corenet");
    refused("sequence_length: 256", "sequence_length: 256\n  cache: 's3://b/c'", "'s3", "data.cache: s3://b/c is on another machine");
    refused(
        "sequence_length: 256",
        "sequence_length: 256\n  packing: bestfit",
        "bestfit",
        "data.packing: `bestfit` is none of the accepted",
    );
    let order = "sequence_length: 256\n  order: corent";
    refused("sequence_length: 256", order, "corent", "data.order: `corent` is none of the accepted values");
    refused("{path: tokenizer.model}", "{}", "{}", "tokenizer: has neither `path` nor `train`");
    refused("{path: tokenizer.model}", "{path: a, train: {vocab_size: 999}}", "{path", "tokenizer: has both");
    refused("{path: tokenizer.model}", "{path: ''}", "''", "tokenizer.path: is empty");
    let large = "tokenizer.train.vocab_size: 1153 is above model.vocab_size (1152)";
    refused("{path: tokenizer.model}", "{train: {vocab_size: 1153}}", "1153", large);
    refused("{path: tokenizer.model}", "{train: {vocab_size: 259}}", "259", "tokenizer.train.vocab_size: is 259, but 259 tokens are there");
    refused("name: small", "validation: {corpora: []}\nname: small", "[]", "validation.corpora: names no corpus");
    let weightless = ["data.corpora.0.weight=0", "data.corpora.1.weight=0"];
    assert_eq!(load(GOOD, &weightless).unwrap_err().key(), Some("data.corpora"));
    assert!(load(GOOD, &[weightless[0], weightless[1], "data.order=corenet"]).is_ok());
}

#[test]
fn impossible_training() {
    refused("micro_batch: 4", "micro_batch: 3", "8, micro", "training.global_batch: 8 is no multiple of micro_batch (3)");
    refused("steps: 30", "steps: 0", "0, global", "training.steps: is 0");
    refused("steps: 30", "steps: 3", "3, max_lr", "schedule.warmup_steps: 3 is not below training.steps (3)");
    refused("min_lr: 0.0003", "min_lr: 0.3", "0.3", "schedule.min_lr: 0.3 is above max_lr (0.003)");
    refused("max_lr: 3.e-3", "max_lr: .nan", ".nan", "schedule.max_lr: is NaN");
    refused("min_lr: 0.0003", "min_lr: 0, max_iterations: 2", "2}", "schedule.max_iterations: 2 is below warmup_steps (3)");
    refused("micro_batch: 4", "micro_batch: 4, grad_clip: -1.0", "-1.0", "training.grad_clip: is -1");
    refused("micro_batch: 4", "micro_batch: 4, device: ''", "''", "training.device: is empty");
    refused("name: small", "name: ''", "''", "name: is empty");
    refused("name: small", "optimizer: {beta2: 1.0}\nname: small", "1.0", "optimizer.beta2: is 1");
    refused("name: small", "optimizer: {eps: 0}\nname: small", "0}", "optimizer.eps: is 0");
    refused("name: small", "checkpoint: {keep_last: 0}\nname: small", "0}", "checkpoint.keep_last: is 0");
    refused("name: small", "checkpoint: {keep_every: 1500}\nname: small", "1500", "checkpoint.keep_every: 1500 is no multiple");
    refused("name: small", "log: {every: 0}\nname: small", "0}", "log.every: is 0");
    refused("name: small", "sample: {prompt: a, top_p: 0}\nname: small", "0}", "sample.top_p: is 0");
    refused("name: small", "export: {format: onnx}\nname: small", "onnx", "export.format: `onnx` is none of the accepted values");
}

#[test]
fn overrides_are_laid_over_and_blamed() {
    let config = load(GOOD, &["training.steps=99", "data.corpora[1].weight=4", "tokenizer.path=t/x.json", "seed=3"]).unwrap().config;
    assert_eq!((config.training.steps, config.data.corpora[1].weight, config.seed), (99, 4.0, 3));
    // Typed in a terminal, so relative to where the terminal is.
    assert_eq!(config.tokenizer.path, Some(std::env::current_dir().unwrap().join("t/x.json")));
    let fails = |text: &str| load(GOOD, &[text]).unwrap_err().to_string();
    for (text, rest) in [
        ("training.stesp=9", "training.stesp: unknown key\nhint: did you mean `steps`?"),
        ("trianing.steps=9", "trianing: unknown key\nhint: did you mean `training`?"),
        ("training.steps=nine", "training.steps: invalid type: string \"nine\""),
        ("training.steps=0", "training.steps: is 0"),
        ("training.steps=", "training.steps: invalid type: no value, expected a whole number of at least 0"),
        ("data.corpora.0.files=[]", "data.corpora[0].files: names no file"),
        ("data.corpora.0.wieght=2", "data.corpora[0].wieght: unknown key\nhint: did you mean `weight`?"),
        ("data.corpora.5.weight=2", "there is no element 5: the list has 2"),
        ("data.order", "has no `=`"),
    ] {
        assert!(fails(text).starts_with(&format!("--set {text}: {rest}")), "{}", fails(text));
    }
    // What is wrong in the file stays at its line.
    let text = GOOD.replace("min_lr: 0.0003", "min_lr: 0.3");
    let message = load(&text, &["training.steps=99"]).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: schedule.min_lr", place(&text, "0.3"))), "{message}");
    let text = GOOD.replace("text_key", "textkey");
    let message = load(&text, &["training.steps=99"]).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: data.corpora[1].textkey", place(&text, "textkey"))), "{message}");
}

#[test]
fn files_are_read_from_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.yaml");
    std::fs::write(&path, GOOD.replace("a/*.jsonl", "../a/*.jsonl")).unwrap();
    let config = RunConfig::load(&path, &[]).unwrap().config;
    let above = folder.path().parent().unwrap();
    assert_eq!(config.data.corpora[0].files, [above.join("a/*.jsonl").to_string_lossy()]);
    assert_eq!(config.tokenizer.path, Some(folder.path().join("tokenizer.model")));
    let absent = RunConfig::load(&folder.path().join("none.yaml"), &[]).unwrap_err();
    assert!(matches!(absent, ConfigError::Read { .. }));
    std::fs::write(&path, b"name: \xff\xfe\n").unwrap();
    assert!(matches!(RunConfig::load(&path, &[]).unwrap_err(), ConfigError::Read { .. }));
}
