//! Bad input: every kind of it ends in a message with file, place, reason and a hint. A run folder that exists is not changed by it,
//! and none is left behind by a run that could not begin.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::program::Call;
use support::run_folder::digests;
use support::shards::{gzip, json_lines, parquet, texts, zstd};
use support::{Ground, trained_tokenizer};

/// A new run with this configuration and these `--set` fails with all of `parts` and leaves no folder; the same on top of `run`,
/// which exists, leaves it as it is.
fn refused(ground: &Ground, config: &str, set: &[&str], parts: &[&str]) {
    let train = |out: &str| ground.call(["train", config, "--out", out]).set(set);
    train("new").fails(parts);
    assert!(!ground.path("new").exists(), "{config} {set:?} left a folder");
    if ground.path("run").exists() {
        let before = digests(&ground.path("run"));
        train("run").resume().fails(parts);
        assert_eq!(digests(&ground.path("run")), before, "{config} {set:?}");
    }
}

/// The call fails with all of `parts` and changes nothing in the test's folder.
fn fails_without_a_trace(ground: &Ground, call: Call, parts: &[&str]) {
    let before = digests(&ground.path("."));
    call.fails(parts);
    assert_eq!(digests(&ground.path(".")), before, "{parts:?}");
}

#[test]
fn configurations() {
    let ground = Ground::new();
    ground.finished_run("run");
    let edited = |from: &str, to: &str, parts: &[&str]| {
        ground.config("edited.yaml", from, to);
        refused(&ground, "edited.yaml", &[], parts);
    };
    edited("global_batch", "global_bach", &["edited.yaml:25:3: training.global_bach: unknown key", "`global_batch`"]);
    edited("schedule:\n", "schedul:\n", &["edited.yaml:27:1: schedul: unknown key", "`schedule`"]);
    edited("  max_lr: 0.003\n", "", &["edited.yaml:28:", "schedule.max_lr: is missing", "add the key `max_lr`"]);
    edited("steps: 12", "steps: many", &["edited.yaml:24:10: training.steps:", "many"]);
    edited("lanes: 4", "lanes: [4", &["edited.yaml:"]);
    edited("OpenELM-tiny", "OpenELM-tinny", &["edited.yaml:4:11: model.preset: `OpenELM-tinny`", "`OpenELM-tiny`"]);
    edited("  sequence_length: 32\n", "  sequence_length: 32\n  sequence_length: 64\n", &["edited.yaml:", "data", "sequence_length"]);
    let set = |set: &str, parts: &[&str]| refused(&ground, "config.yaml", &[set], parts);
    set("training.step=3", &["--set training.step=3: training.step: unknown key", "`steps`"]);
    set("training.steps", &["--set training.steps: has no `=`"]);
    set("data.corpora.4.weight=1", &["--set data.corpora.4.weight=1", "the list has 1"]);
    refused(&ground, "nowhere.yaml", &[], &["nowhere.yaml: cannot be read"]);
    ground.write("binary.yaml", b"name: \xff\xfe\n");
    refused(&ground, "binary.yaml", &[], &["binary.yaml"]);
    // The other commands read configurations too.
    ground.config("edited.yaml", "lanes: 4", "lane: 4");
    for command in [
        ["params", "edited.yaml"].as_slice(),
        &["data", "show", "edited.yaml"],
        &["config", "show", "edited.yaml"],
        &["config", "convert", "edited.yaml"],
    ] {
        fails_without_a_trace(&ground, ground.call(command.iter().copied()), &["edited.yaml:12:3: data.lane: unknown key", "`lanes`"]);
    }
}

#[test]
fn impossible_numbers() {
    let ground = Ground::new();
    ground.finished_run("run");
    let set = |set: &str, parts: &[&str]| refused(&ground, "config.yaml", &[set], &[&[set], parts].concat());
    set("model.head_dim=7", &["model.head_dim: 7 is odd"]);
    set("model.model_dim=0", &["model.model_dim: is 0"]);
    set("model.ffn_multipliers=[0.5, -4]", &["model.ffn_multipliers: holds -4"]);
    set("model.rope_max_length=32", &["32 is below max_context_length (64)"]);
    set("model.padding_index=320", &["320 is outside the vocabulary of 320 rows"]);
    set("data.sequence_length=65", &["65 is above the model's context length (64)"]);
    set("schedule.min_lr=.nan", &["schedule.min_lr: is NaN"]);
    set("schedule.max_lr=.inf", &["schedule.max_lr: is inf"]);
    set("data.corpora.0.weight=-1", &["weight: is -1"]);
    set("checkpoint.keep_every=7", &["7 is no multiple of checkpoint.every (3)"]);
    refused(
        &ground,
        "config.yaml",
        &["training.micro_batch=3"],
        &["config.yaml:25:17: training.global_batch: 4 is no multiple of micro_batch (3)"],
    );
    refused(&ground, "config.yaml", &["training.device=gpu"], &["device gpu: is not a known device", "flex"]);
    // Without a preset the number of layers stands in the file; with one it is known later.
    refused(
        &ground,
        "config.yaml",
        &["model.qkv_multipliers=[0.5, 0.7, 1.0]"],
        &["config.yaml: model.qkv_multipliers = 3 values", "5 layers"],
    );
    // Numbers that fit by themselves and not with the text, which is known later.
    refused(&ground, "config.yaml", &["sample={prompt: the the, top_p: 1e-60}"], &["config.yaml", "top_p"]);
    let long = format!("sample={{prompt: {}}}", "bird ".repeat(200));
    refused(&ground, "config.yaml", &[&long], &["config.yaml", "sample.prompt has", "holds 128"]);
}

#[test]
fn settings_of_the_environment() {
    let ground = Ground::new();
    ground.finished_run("run");
    for (key, value, reason) in [
        ("OPENELM_THREADS", "0", "not a number of threads"),
        ("RAYON_NUM_THREADS", "two", "not a number"),
        ("OPENELM_ISA", "mmx", "no such instruction set"),
    ] {
        let parts = [&format!("{key}={value}"), reason];
        fails_without_a_trace(&ground, ground.train("new", &[]).env(key, value), &parts);
        fails_without_a_trace(&ground, ground.train("run", &[]).resume().env(key, value), &parts);
    }
}

#[test]
fn missing_shards() {
    let ground = Ground::new();
    ground.finished_run("run");
    let missing = |files: &str, parts: &[&str]| refused(&ground, "config.yaml", &[&format!("data.corpora.0.{files}")], parts);
    missing("files=[none.jsonl]", &["corpus stories: shard ", "none.jsonl does not exist"]);
    missing("files=[\"stories-0.jsonl\", \"none-*.jsonl\"]", &["corpus stories: no file matches ", "none-*.jsonl"]);
    missing("files=[config.yaml]", &["config.yaml has an unknown extension", ".jsonl"]);
    missing("files=[tok]", &["tok, which is not a file"]);
    let range = ["data.corpora.0.files=[\"stories-{file_id}.jsonl\"]", "data.corpora.0.file_id_range=[1, 5]"];
    refused(&ground, "config.yaml", &range, &["stories-3.jsonl does not exist", "file_id_range"]);
    refused(
        &ground,
        "config.yaml",
        &["validation.corpora.0.files=[none.jsonl]"],
        &["corpus held-out: shard ", "none.jsonl does not exist"],
    );
    fs::remove_file(ground.path("stories-1.jsonl")).unwrap();
    let before = digests(&ground.path("run"));
    ground.train("run", &[]).resume().fails(&["the list of shards", "shards that the run was started with"]);
    assert_eq!(digests(&ground.path("run")), before);
}

/// A corpus of the shard `name`, which is damaged, is refused when it is trained on, when it is scored, when a tokenizer is trained
/// on it and when it is looked at; the message names the shard's path.
fn damaged(ground: &Ground, name: &str, content: &[u8], parts: &[&str]) {
    let path = ground.write(name, content);
    let parts = [&[path.to_str().unwrap()], parts].concat();
    let files = format!("corpora.0.files=[{name}]");
    let train = format!("data.{files}");
    for order in ["data.order=mixed", "data.order=corenet"] {
        refused(ground, "config.yaml", &[&train, order], &parts);
        fails_without_a_trace(ground, ground.call(["data", "show", "config.yaml", "--samples", "400"]).set(&[&train, order]), &parts);
    }
    refused(ground, "config.yaml", &[&train, &trained_tokenizer()], &parts);
    refused(ground, "config.yaml", &[&format!("validation.{files}"), "validation.max_sequences=0"], &parts);
    fails_without_a_trace(
        ground,
        ground.call(["tokenizer", "train", "config.yaml", "--out", "other"]).set(&[&train, &trained_tokenizer()]),
        &parts,
    );
}

/// Two good lines and a third.
fn third_line(line: impl AsRef<[u8]>) -> Vec<u8> {
    [&json_lines(&texts(1, 2)), line.as_ref(), b"\n", &json_lines(&texts(2, 2))].concat()
}

#[test]
fn lines_that_hold_no_text() {
    let ground = Ground::new();
    damaged(&ground, "a.jsonl", &third_line("{\"text\": oops}"), &["line 3, column 10: not a JSON object"]);
    damaged(&ground, "b.jsonl", &third_line("plain words"), &["line 3, column 1: not a JSON object"]);
    damaged(&ground, "c.jsonl", &third_line("{\"body\": \"words\"}"), &["line 3: the object has no key \"text\"", "text_key"]);
    damaged(&ground, "d.jsonl", &third_line("{\"text\": 7}"), &["line 3: \"text\" is a number, not a string"]);
    damaged(
        &ground,
        "e.jsonl",
        &third_line(b"{\"text\": \"caf\xe9\"}"),
        &["line 3: not UTF-8 (at byte 13 of it)", "convert the file to UTF-8"],
    );
    let whole = json_lines(&texts(1, 3));
    damaged(&ground, "f.jsonl", &whole[..whole.len() - 30], &["line 3, column ", "not a JSON object", "truncated"]);
    // The place is that of the line, compressed or not.
    damaged(&ground, "g.json.gz", &gzip(&third_line("{}")), &["line 3: the object has no key"]);
    damaged(&ground, "h.jsonl.zst", &zstd(&third_line("{}")), &["line 3: the object has no key"]);
}

#[test]
fn truncated_shards() {
    let ground = Ground::new();
    let lines = json_lines(&texts(1, 3));
    for (name, whole, format) in [("a.json.gz", gzip(&lines), "gzip"), ("b.jsonl.zst", zstd(&lines), "zstd")] {
        damaged(
            &ground,
            name,
            &whole[..whole.len() * 2 / 3],
            &[&format!("the {format} stream breaks after line "), "truncated or damaged"],
        );
        damaged(&ground, name, &whole[..6], &[&format!("the {format} stream breaks after line 0"), "truncated or damaged"]);
        damaged(&ground, name, b"", &["the file is empty"]);
        damaged(&ground, name, &lines, &[&format!("the {format} stream breaks after line 0")]);
    }
    // The last byte of a gzip file is part of its checksum.
    let whole = gzip(&lines);
    damaged(&ground, "c.json.gz", &whole[..whole.len() - 1], &["the gzip stream breaks after line 3"]);
    let mut flipped = whole;
    flipped[lines.len() / 2] ^= 1;
    damaged(&ground, "d.json.gz", &flipped, &["the gzip stream breaks after line ", "damaged"]);
}

#[test]
fn truncated_parquet() {
    let ground = Ground::new();
    let documents = texts(1, 40);
    let whole = parquet("text", &documents);
    // The file is good as it is.
    ground.write("a.parquet", &whole);
    ground.train("good", &["data.corpora.0.files=[a.parquet]", "training.steps=3"]).succeeds();
    damaged(&ground, "a.parquet", &whole[..whole.len() / 2], &["footer", "truncated"]);
    damaged(&ground, "a.parquet", &whole[..whole.len() - 1], &["footer", "truncated"]);
    damaged(&ground, "a.parquet", b"", &["footer", "truncated"]);
    damaged(&ground, "a.parquet", &json_lines(&documents), &["footer", "not parquet"]);
    // The length of the first text, behind the magic number and the page's header.
    let text = documents[0].as_bytes();
    let first = whole.windows(text.len()).position(|window| window == text).unwrap();
    let mut broken = whole.clone();
    broken[first - 1] = 0x7f;
    damaged(&ground, "a.parquet", &broken, &["row group 0, row 0", "damaged"]);
    let mut broken = whole;
    broken[first + 3] = 0xff;
    damaged(&ground, "a.parquet", &broken, &["row group 0, row 0: not UTF-8"]);
    damaged(&ground, "a.parquet", &parquet("content", &documents), &["has no column \"text\"; it has content", "text_key"]);
}

#[test]
fn a_bad_line_in_the_middle_of_a_run_costs_nothing_before_it() {
    let ground = Ground::new();
    let set =
        ["data.shuffle=false", "data.lanes=1", "data.shuffle_buffer=1", "training.steps=40", "checkpoint.every=2", "validation.every=20"];
    ground.train("whole", &set).succeeds();
    // One lane reads the first shard from its beginning. The size stays, so that the list of shards is the same.
    let good = fs::read_to_string(ground.path("stories-0.jsonl")).unwrap();
    let bad: Vec<String> =
        good.lines().enumerate().map(|(index, line)| if index == 19 { "x".repeat(line.len()) } else { line.to_owned() }).collect();
    ground.write("stories-0.jsonl", bad.join("\n") + "\n");
    ground.train("run", &set).fails(&["stories-0.jsonl, line 20, column 1: not a JSON object"]);
    let run = ground.run("run");
    assert!((2..40).contains(&run.newest()), "{:?}", run.steps());
    ground.call(["generate", "run", "--prompt", "the", "--max-new-tokens", "2"]).succeeds();
    let before = digests(&run.path.join("checkpoints"));
    ground.train("run", &set).resume().fails(&["stories-0.jsonl, line 20"]);
    assert_eq!(digests(&run.path.join("checkpoints")), before);
    ground.write("stories-0.jsonl", good);
    ground.train("run", &set).resume().succeeds();
    run.assert_same(&ground.run("whole"));
}

#[test]
fn filters_that_leave_nothing() {
    let ground = Ground::new();
    for filter in ["data.min_characters_per_text=1000000", "data.min_tokens_per_text=1000000"] {
        for order in ["data.order=mixed", "data.order=corenet"] {
            refused(&ground, "config.yaml", &[filter, order], &["corpus stories is empty after filters: 3 shards, 180 texts", "0 kept"]);
        }
    }
    ground.write("empty.jsonl", "\n\n");
    refused(&ground, "config.yaml", &["data.corpora.0.files=[empty.jsonl]"], &["corpus stories is empty after filters: 1 shards, 0 texts"]);
    refused(&ground, "config.yaml", &["validation.corpora.0.files=[empty.jsonl]"], &["corpus held-out is empty after filters"]);
    refused(&ground, "config.yaml", &["data.corpora.0.files=[empty.jsonl]", &trained_tokenizer()], &["the texts hold no characters"]);
}

#[test]
fn tokenizers() {
    let ground = Ground::new();
    ground.train("other", &["training.steps=3"]).succeeds();
    let new = |set: &[&str], parts: &[&str]| {
        ground.train("new", set).fails(parts);
        assert!(!ground.path("new").exists());
    };
    let place = ground.path("tok");
    let place = place.to_str().unwrap();
    new(&["model.vocab_size=299"], &["config.yaml", "model.vocab_size is 299, but the tokenizer", place, "has 300 tokens", "at least 300"]);
    new(&["model.padding_index=299"], &["config.yaml", "model.padding_index is 299", place, "is 300"]);
    new(&["tokenizer={train: {vocab_size: 321}}"], &["--set tokenizer=", "321 is above model.vocab_size (320)"]);
    new(&["tokenizer={train: {vocab_size: 400000}}", "model.vocab_size=400000"], &["vocab_size is 400000", "or train on more text"]);
    new(&["tokenizer={train: {vocab_size: 100}}"], &["259 tokens are there before the first piece"]);
    new(&["tokenizer={train: {vocab_size: 300}, path: tok}"], &["has both `path` and `train`"]);
    new(&["tokenizer.path=none"], &["none: no such file or folder", "tokenizer.json"]);
    let model = fs::read(ground.path("tok/tokenizer.model")).unwrap();
    ground.write("cut.model", &model[..model.len() / 2]);
    new(&["tokenizer.path=cut.model"], &["cut.model, byte ", "truncated"]);
    let json = fs::read(ground.path("tok/tokenizer.json")).unwrap();
    ground.write("cut/tokenizer.json", &json[..json.len() / 2]);
    new(&["tokenizer.path=cut"], &["cut/tokenizer.json", "line ", "fetch it again"]);
    let show = ground.call(["tokenizer", "encode", "cut.model", "word"]);
    fails_without_a_trace(&ground, show, &["cut.model, byte "]);
    fails_without_a_trace(&ground, ground.call(["tokenizer", "decode", "tok", "300"]), &["token id 300 is outside the vocabulary of 300"]);
    fails_without_a_trace(&ground, ground.call(["tokenizer", "decode", "tok"]).input("7 x"), &["\"x\" is no token id"]);
    fails_without_a_trace(&ground, ground.call(["tokenizer", "encode", "tok"]).input(b"\xff"), &["standard input", "UTF-8"]);
    fails_without_a_trace(
        &ground,
        ground.call(["tokenizer", "train", "config.yaml", "--out", "config.yaml"]),
        &["config.yaml: making the folder failed"],
    );
    // A resumed run keeps the tokenizer in its folder, and no other may lie there.
    let bigger = "tokenizer={train: {vocab_size: 310}}";
    ground.call(["tokenizer", "train", "config.yaml", "--out", "bigger", "--set", bigger]).succeeds();
    for name in ["tokenizer.model", "tokenizer.json"] {
        fs::copy(ground.path("bigger").join(name), ground.path("other/tokenizer").join(name)).unwrap();
    }
    fails_without_a_trace(&ground, ground.train("other", &[]).resume(), &["step-00000003", "it was trained with another tokenizer"]);
}

#[test]
fn outputs_that_are_taken() {
    let ground = Ground::new();
    ground.finished_run("run");
    let new = |out: &str| ground.train(out, &[]);
    fails_without_a_trace(&ground, new("run"), &["run: the folder holds another run", "--resume"]);
    fails_without_a_trace(&ground, new("tok"), &["tok: the folder is not empty"]);
    fails_without_a_trace(&ground, new("config.yaml"), &["config.yaml: making the folder failed"]);
    fails_without_a_trace(&ground, new("none").resume(), &["none: the folder holds no run to resume"]);
    fails_without_a_trace(&ground, new("tok").resume(), &["tok: the folder holds no run to resume"]);
    fails_without_a_trace(
        &ground,
        ground.call(["export", "run", "--format", "hf", "--out", "tok"]),
        &["tok: the folder is not empty", "--out"],
    );
    let set = [
        "data.order=corenet",
        "schedule.max_iterations=11",
        "data.corpora.0.files=[stories-0.jsonl]",
        "data.corpora.0.file_id_range=[0, 1]",
    ];
    let convert = ground.call(["config", "convert", "config.yaml", "--out", "config.yaml"]).set(&set);
    fails_without_a_trace(&ground, convert, &["config.yaml: cannot be made", "does not exist yet"]);
    // An empty folder is as good as none, and stays when the run cannot begin.
    fs::create_dir(ground.path("empty")).unwrap();
    ground.write("bad.jsonl", "x\n");
    fails_without_a_trace(&ground, ground.train("empty", &["data.corpora.0.files=[bad.jsonl]"]), &["bad.jsonl, line 1, column 1"]);
    new("empty").succeeds();
}

#[test]
fn resumes_of_another_run() {
    let ground = Ground::new();
    ground.finished_run("run");
    let resume = |set: &[&str], parts: &[&str]| fails_without_a_trace(&ground, ground.train("run", set).resume(), parts);
    resume(&["model.preset=OpenELM-5M"], &["step-00000006: its model is another one", "--init"]);
    resume(&["model.rope_freq_constant=20000"], &["its model is another one"]);
    resume(&["data.sequence_length=16"], &["data.sequence_length (was 32, is 16)", "start anew"]);
    resume(&["data.lanes=2"], &["data.lanes (was 4, is 2)"]);
    resume(&["data.order=corenet"], &["data.order"]);
    resume(&["seed=4"], &["data.seed (was 3, is 4)"]);
    resume(&["data.corpora.0.files=[\"stories-0.jsonl\"]"], &["the list of shards"]);
    let both = ground.train("run", &[]).resume().arg("--init").arg("run").outcome();
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    // A log that somebody has written into.
    let log = fs::read_to_string(ground.path("run/metrics.jsonl")).unwrap();
    ground.write("run/metrics.jsonl", log.replacen('{', "{{", 1));
    resume(&["training.steps=20"], &["run/metrics.jsonl, line 1"]);
}
