//! CoreNet files read, written and refused: fixtures in the layout of Apple's four, the reference files, and every kind of mistake.

use std::path::PathBuf;

use super::super::{Accumulation, Dtype, Order, Preset, RunConfig};
use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/corenet");
const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");

/// The paths that Apple's files leave out.
const PATHS: [&str; 2] = [
    "text_tokenizer.sentence_piece.model_path=/t/tokenizer.model",
    "dataset.language_modeling.general_lm.train_data_info.0.file_name=/c/train-{file_id:05d}-of-05534.parquet",
];

fn load(text: &str, overrides: &[&str]) -> Result<Loaded, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    RunConfig::load_text(text, Path::new("/runs/corenet.yaml"), &overrides)
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(Path::new(FIXTURES).join(name)).unwrap()
}

/// CoreNet's own file of a run, with the folders that it leaves open.
fn reference(name: &str) -> Option<String> {
    let path = Path::new(SHARED).join("reference").join(name);
    if !Path::new(SHARED).is_dir() && std::env::var_os("OPENELM_REQUIRE_REFERENCE").is_none() {
        println!("skipped: there is no folder ../shared with {name}");
        return None;
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(text.replace("{CORPORA}", "/corpora").replace("{TOKENIZERS}", "/tokenizers"))
}

/// `path:line:column` of the first place where `needle` stands in the text.
fn place(text: &str, needle: &str) -> String {
    let before = &text[..text.find(needle).unwrap_or_else(|| panic!("{needle} is not there"))];
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    format!("/runs/corenet.yaml:{}:{column}", before.matches('\n').count() + 1)
}

/// A file that says nothing that has a default, and everything else.
const SMALL: &str = "\
common: {accum_freq: 3}
dataset:
  category: language_modeling
  name: general_lm
  workers: 0
  train_batch_size0: 4
  language_modeling:
    general_lm:
      train_data_info: [{file_name: 'a/b-{file_id}.jsonl', text_key: text, file_id_range: [0, 2]}]
text_tokenizer: {name: sentence_piece, sentence_piece: {model_path: t.model}}
loss: {category: language_modeling, language_modeling: {name: cross_entropy}}
optim: {name: adamw}
scheduler: {is_iteration_based: true, max_iterations: 10}
model:
  language_modeling:
    name: general_gpt
    general_gpt: {model_name: OpenELM-tiny, vocab_size: 64, max_context_length: 2048}
";

#[test]
fn apples_files_are_read() {
    let sizes = [
        ("270m.yaml", Preset::OpenElm270M, "OpenELM-270M", 0.0053, false),
        ("450m.yaml", Preset::OpenElm450M, "OpenELM-450M", 0.0039, true),
        ("1_1b.yaml", Preset::OpenElm1_1B, "OpenELM-1.1B", 0.0024, true),
        ("3b.yaml", Preset::OpenElm3B, "OpenELM-3B", 0.0012, true),
    ];
    for (file, preset, name, max_lr, activation_checkpointing) in sizes {
        let loaded = load(&fixture(file), &PATHS).unwrap();
        assert!(loaded.corenet);
        let config = loaded.config;
        assert_eq!((config.name.as_str(), config.model.preset), (name, Some(preset)));
        assert_eq!((config.model.vocab_size, config.model.padding_index), (Some(32128), Some(32000)));
        assert_eq!(config.model.max_context_length, Some(2048));
        let (training, schedule, data) = (&config.training, &config.schedule, &config.data);
        assert_eq!((training.steps, schedule.max_iterations), (350_001, Some(350_000)));
        assert_eq!((schedule.max_lr, schedule.min_lr), (max_lr, format!("{:.5}", max_lr / 10.0).parse().unwrap()));
        assert_eq!((schedule.warmup_steps, schedule.warmup_init_lr), (5000, 1e-6));
        assert_eq!((training.micro_batch, training.global_batch), (16, 16));
        assert_eq!((training.dtype, training.accumulation), (Dtype::Bf16, Accumulation::Sum));
        assert_eq!(training.activation_checkpointing, activation_checkpointing);
        assert_eq!((training.grad_clip, training.z_loss), (1.0, 1e-4));
        assert_eq!((data.order, data.seed, data.workers, data.sequence_length), (Order::Corenet, Some(0), 4, 2048));
        assert_eq!((data.min_tokens_per_text, data.min_characters_per_text), (256, 200));
        assert!(data.shuffle && data.normalize && data.add_bos && data.add_eos);
        assert_eq!(data.corpora[0].files, ["/c/train-{file_id:05d}-of-05534.parquet"]);
        assert_eq!((data.corpora[0].name.as_str(), data.corpora[0].text_key.as_str()), ("c", "content"));
        assert_eq!(data.corpora[0].file_id_range, Some([0, 5535]));
        assert_eq!((config.checkpoint.every, config.checkpoint.keep_every, config.log.every), (5000, 5000, 500));
        let optimizer = &config.optimizer;
        assert_eq!((optimizer.weight_decay, optimizer.beta1, optimizer.beta2, optimizer.eps), (0.1, 0.9, 0.95, 1e-8));
        assert!(optimizer.no_decay_1d);
    }
}

#[test]
fn apples_files_say_which_paths_are_missing() {
    let text = fixture("270m.yaml");
    let error = load(&text, &[]).unwrap_err();
    assert!(matches!(error, ConfigError::MissingKey { .. }), "{error}");
    let expected = format!(
        "{}: dataset.language_modeling.general_lm.train_data_info[0].file_name: is missing\n\
         hint: the file leaves paths to you: write them there, or give \
         --set 'dataset.language_modeling.general_lm.train_data_info[0].file_name=PATTERN' \
         --set 'text_tokenizer.sentence_piece.model_path=FILE'",
        place(&text, "{\n          # \"file_name\"")
    );
    assert_eq!(error.to_string(), expected);
    let error = load(&fixture("3b.yaml"), &PATHS[1..]).unwrap_err();
    assert_eq!(error.key(), Some("text_tokenizer.sentence_piece.model_path"));
    // Our own keys fill the gaps as well.
    let ours = ["tokenizer.path=/t/tokenizer.json", "data.corpora.0.files=[/c/*.parquet]", "data.corpora.0.file_id_range=null"];
    let config = load(&fixture("3b.yaml"), &ours).unwrap().config;
    assert_eq!(config.tokenizer.path, Some(PathBuf::from("/t/tokenizer.json")));
    assert_eq!((config.data.corpora[0].files.len(), config.data.corpora[0].file_id_range), (1, None));
}

#[test]
fn keys_without_effect_are_named_once() {
    let loaded = load(&fixture("3b.yaml"), &PATHS).unwrap();
    let keys: Vec<&str> = loaded.notes.iter().filter_map(|note| note.split_once(" has no effect: ")).map(|(key, _)| key).collect();
    assert_eq!(
        keys,
        [
            "common.run_label",
            "common.auto_resume",
            "common.save_all_checkpoints",
            "common.eval_every_k_iterations",
            "dataset.root_train",
            "dataset.disable_val",
            "dataset.persistent_workers",
            "dataset.pin_memory",
            "stats.train",
            "stats.val",
            "stats.checkpoint_metric",
            "stats.checkpoint_metric_max",
            "fsdp.sharding_strategy",
            "fsdp.gradient_reduction_datatype",
            "fsdp.buffer_datatype",
            "fsdp.cpu_offload",
            "fsdp.limit_all_gathers",
        ]
    );
    assert_eq!(loaded.notes.len(), keys.len() + 1, "the batch of one GPU is told: {:?}", loaded.notes);
    let overridden = load(&fixture("3b.yaml"), &[PATHS[0], PATHS[1], "train_eval_pipeline.name=default"]).unwrap();
    assert_eq!(overridden.config.training.dtype, Dtype::F32);
    assert!(overridden.notes.iter().any(|note| note.starts_with("fsdp.parameter_datatype has no effect")));
}

#[test]
fn reference_files_are_read() {
    let Some(text) = reference("corenet-run/config.yaml") else { return };
    let loaded = load(&text, &[]).unwrap();
    let config = loaded.config;
    assert_eq!((config.name.as_str(), config.model.preset), ("OpenELM-tiny", Some(Preset::OpenElmTiny)));
    assert_eq!((config.training.steps, config.training.global_batch, config.training.dtype), (41, 4, Dtype::F32));
    assert_eq!((config.data.sequence_length, config.data.min_tokens_per_text), (128, 64));
    let names: Vec<&str> = config.data.corpora.iter().map(|corpus| corpus.name.as_str()).collect();
    assert_eq!(
        names,
        ["refinedweb", "arxiv", "book", "github", "stackexchange", "wiki", "c4", "pile", "books", "en_simple_wiki_v0", "stack-v4-train"]
    );
    assert_eq!(config.tokenizer.path, Some(PathBuf::from("/tokenizers/spm-2k/tokenizer.model")));
    assert_eq!(config.data.corpora[0].files, ["/corpora/refinedweb/refinedweb-{file_id:05d}-of-00002.parquet"]);
    let llama = load(&reference("data/config-llama.yaml").unwrap(), &[]).unwrap().config;
    assert_eq!((llama.data.sequence_length, llama.model.vocab_size), (2048, Some(32128)));
}

#[test]
fn a_round_trip_changes_nothing() {
    let mut texts: Vec<String> = ["270m.yaml", "450m.yaml", "1_1b.yaml", "3b.yaml"].map(fixture).to_vec();
    texts.push(SMALL.to_owned());
    texts.extend(["corenet-run/config.yaml", "data/config-llama.yaml"].iter().filter_map(|name| reference(name)));
    for text in &texts {
        let paths = if text.contains("5535") { &PATHS[..] } else { &[] };
        let first = load(text, paths).unwrap().config;
        let (written, _) = to_yaml(&first).unwrap();
        let second = load(&written, &[]).unwrap();
        assert!(second.corenet);
        assert_eq!(second.config, first, "{written}");
        assert_eq!(to_yaml(&second.config).unwrap().0, written);
        // And through our own form.
        let own = load(&first.to_yaml().unwrap(), &[]).unwrap();
        assert!(!own.corenet);
        assert_eq!(own.config, first);
    }
}

#[test]
fn absent_keys_have_corenets_defaults() {
    let config = load(SMALL, &[]).unwrap().config;
    assert_eq!(config.name, "OpenELM-tiny");
    assert_eq!((config.training.micro_batch, config.training.global_batch), (4, 12));
    assert_eq!((config.training.grad_clip, config.training.z_loss, config.training.dtype), (0.0, 0.0, Dtype::F32));
    assert_eq!((config.optimizer.weight_decay, config.optimizer.beta2, config.optimizer.eps), (4e-5, 0.98, 1e-8));
    assert!(!config.optimizer.no_decay_1d && !config.data.shuffle && !config.data.normalize && !config.data.add_bos);
    assert_eq!((config.schedule.warmup_steps, config.schedule.warmup_init_lr), (0, 1e-7));
    assert_eq!((config.schedule.max_lr, config.schedule.min_lr), (0.1, 1e-5));
    assert_eq!((config.data.sequence_length, config.data.document_split_words), (2048, 2048));
    assert_eq!((config.checkpoint.every, config.log.every), (0, 100));
    assert_eq!(config.data.corpora[0].files, ["/runs/a/b-{file_id}.jsonl"]);
}

#[test]
fn unknown_keys_name_the_nearest_and_their_line() {
    for (right, wrong, dotted) in [
        ("accum_freq", "acum_freq", "common.acum_freq"),
        ("scheduler", "schedular", "schedular"),
        ("text_key", "text_keys", "dataset.language_modeling.general_lm.train_data_info[0].text_keys"),
        ("padding_index", "pading_index", "model.language_modeling.general_gpt.pading_index"),
    ] {
        let text = SMALL.replace("vocab_size: 64", "vocab_size: 64, padding_index: null").replace(right, wrong);
        let error = load(&text, &[]).unwrap_err();
        assert!(matches!(error, ConfigError::UnknownKey { .. }), "{error}");
        let expected = format!("{}: {dotted}: unknown key\nhint: did you mean `{right}`?", place(&text, wrong));
        assert_eq!(error.to_string(), expected);
    }
    // Anchors have names of their own; anything else at the top does not.
    let anchored = format!("_anchor_of_mine: &x 3\n{}", SMALL.replace("accum_freq: 3", "accum_freq: *x"));
    assert_eq!(load(&anchored, &[]).unwrap().config, load(SMALL, &[]).unwrap().config);
    let error = load(&format!("_other: 3\n{SMALL}"), &[]).unwrap_err().to_string();
    assert!(error.starts_with("/runs/corenet.yaml:1:1: _other: unknown key"), "{error}");
}

/// Replaces a part of the small file; the message must begin at `needle` in the new text and go on with `rest`.
fn check_refusal(from: &str, to: &str, needle: &str, rest: &str) {
    let text = SMALL.replace(from, to);
    assert_ne!(text, SMALL, "{from}");
    let message = load(&text, &[]).unwrap_err().to_string();
    let expected = format!("{}: {rest}", place(&text, needle));
    assert!(message.starts_with(&expected), "{message}\nshould start with\n{expected}");
    assert!(message.lines().last().unwrap().starts_with("hint: "), "{message}");
}

#[test]
fn what_cannot_be_done_is_refused() {
    check_refusal("{name: adamw}", "{name: sgd}", "sgd", "optim.name: is `sgd`");
    check_refusal("{name: adamw}", "{weight_decay: 0.1}", "{weight_decay", "optim.name: is missing");
    check_refusal("based: true", "based: false", "false", "scheduler.is_iteration_based: is not true");
    check_refusal("max_iterations: 10", "name: cosine", "{is_iter", "scheduler.max_iterations: is missing");
    check_refusal("max_iterations: 10", "max_iterations: 10, name: step", "step}", "scheduler.name: is `step`");
    check_refusal("workers: 0", "workers: -1", "-1", "dataset.workers: is -1");
    check_refusal("accum_freq: 3", "grad_clip: 0.0", "0.0", "common.grad_clip: is 0");
    check_refusal("accum_freq: 3", "accum_after_epoch: 3", "3}", "common.accum_after_epoch: is not 0");
    check_refusal("accum_freq: 3", "mixed_precision: true", "{mixed", "common.mixed_precision_dtype: is `float16`");
    check_refusal("accum_freq: 3", "finetune: w.pt", "w.pt", "common.finetune: names weights");
    check_refusal("common:", "train_eval_pipeline: {name: x}\ncommon:", "x}", "train_eval_pipeline.name: `x` is none of");
    check_refusal(
        "vocab_size: 64",
        "vocab_size: 64, padding_index: 63",
        "{name: cross_entropy",
        "loss.language_modeling.cross_entropy.ignore_index: is -1, but the model's padding_index is 63",
    );
    check_refusal(
        "OpenELM-tiny",
        "OpenELM-270",
        "OpenELM-270",
        "model.language_modeling.general_gpt.model_name: `OpenELM-270` is none of the accepted values\nhint: did you mean `OpenELM-270M`?",
    );
    check_refusal("accum_freq: 3", "accum_freq: three", "three", "common.accum_freq: invalid type: string \"three\"");
}

#[test]
fn impossible_numbers_are_told_with_corenets_keys() {
    check_refusal("accum_freq: 3", "accum_freq: 0", "0}", "common.accum_freq: is 0");
    check_refusal("batch_size0: 4", "batch_size0: 0", "0\n  language", "dataset.train_batch_size0: is 0");
    check_refusal(
        "max_iterations: 10",
        "max_iterations: 10, warmup_iterations: 11",
        "11}",
        "scheduler.warmup_iterations: 11 is not below training.steps (11)",
    );
    check_refusal(
        "file_id_range: [0, 2]",
        "file_id_range: [2, 2]",
        "[2, 2]",
        "dataset.language_modeling.general_lm.train_data_info[0].file_id_range: [2, 2] holds no id",
    );
    let large = u64::MAX.to_string();
    check_refusal("max_iterations: 10", &format!("max_iterations: {large}"), &large, "scheduler.max_iterations: is too large");
}

#[test]
fn overrides_speak_both_languages() {
    let mixed = ["scheduler.max_iterations=99", "training.global_batch=24", "model.vocab_size=128"];
    let config = load(SMALL, &mixed).unwrap().config;
    assert_eq!((config.training.steps, config.training.global_batch, config.model.vocab_size), (100, 24, Some(128)));
    let both = load(SMALL, &["training.steps=5", "model.activation_checkpointing=true", "common.seed=3"]).unwrap().config;
    assert_eq!((both.training.steps, both.schedule.max_iterations, both.seed), (5, Some(10), 3));
    assert!(both.training.activation_checkpointing);
    let fails = |text: &str| load(SMALL, &[text]).unwrap_err().to_string();
    let unknown = "--set schedular.name=x: schedular: unknown key\nhint: did you mean `scheduler`?";
    assert_eq!(fails("schedular.name=x"), unknown);
    let unknown = "--set common.acum_freq=1: common.acum_freq: unknown key\nhint: did you mean `accum_freq`?";
    assert_eq!(fails("common.acum_freq=1"), unknown);
    let unknown = "--set training.step=1: training.step: unknown key\nhint: did you mean `steps`?";
    assert_eq!(fails("training.step=1"), unknown);
    assert!(fails("common.accum_freq=0").starts_with("--set common.accum_freq=0: common.accum_freq: is 0"));
    assert!(fails("training.global_batch=5").starts_with("--set training.global_batch=5: training.global_batch: 5 is no multiple"));
}

#[test]
fn what_corenet_cannot_say_is_an_error() {
    let fails = |overrides: &[&str]| {
        let config = load(SMALL, overrides).unwrap().config;
        let error = to_yaml(&config).unwrap_err();
        assert!(matches!(error, ConfigError::NotInCoreNet { .. }), "{error}");
        error.key().unwrap().to_owned()
    };
    assert_eq!(fails(&["data.order=mixed"]), "data.order");
    assert_eq!(fails(&["model.model_dim=256"]), "model.model_dim");
    assert_eq!(fails(&["model.ffn_with_glu=false"]), "model.ffn_with_glu");
    assert_eq!(fails(&["tokenizer={train: {vocab_size: 300}}", "model.vocab_size=300"]), "tokenizer.train");
    assert_eq!(fails(&["tokenizer.path=/t/tokenizer.json"]), "tokenizer.path");
    assert_eq!(fails(&["training.accumulation=mean"]), "training.accumulation");
    assert_eq!(fails(&["training.steps=10"]), "schedule.max_iterations");
    assert_eq!(fails(&["data.corpora.0={name: a, files: ['/c/*.jsonl']}"]), "data.corpora[0].files[0]");
    let pattern = "data.corpora.0.files.1=/c/d-{file_id}.json";
    let harmless = ["sample={prompt: a}", "checkpoint.keep_last=9", "training.device=wgpu", pattern];
    let notes = to_yaml(&load(SMALL, &harmless).unwrap().config).unwrap().1;
    for key in ["sample", "checkpoint.keep_last", "training.device", "data.corpora[0]"] {
        assert!(notes.iter().any(|note| note.starts_with(key)), "{key}: {notes:?}");
    }
}

#[test]
fn only_corenets_sections_make_a_corenet_file() {
    let yaml = |text: &str| serde_yaml_ng::from_str::<Value>(text).unwrap();
    assert!(is_corenet(&yaml(SMALL)));
    assert!(is_corenet(&yaml("common: {}\nmodel: {}")));
    assert!(!is_corenet(&yaml("name: a\ntraining: {}\nloss: {}")));
    assert!(!is_corenet(&yaml("model: {}")));
    assert!(!is_corenet(&yaml("[1, 2]")));
    assert!(!is_corenet(&yaml("~")));
}

/// The table of keys and the keys that are read are the same.
#[test]
fn the_table_names_every_key() {
    let mut sections = vec![String::new()];
    let mut read = Vec::new();
    while let Some(section) = sections.pop() {
        // An unknown key makes the reader list the known ones.
        let path: Vec<&str> = section.split('.').filter(|part| !part.is_empty()).collect();
        let text = path.iter().rev().fold("{zzz: 1}".to_owned(), |inner, key| format!("{{{key}: {inner}}}"));
        let error = from_text::<File>(&text).unwrap_err().at(Place::Memory).to_string();
        let Some((_, known)) = error.split_once("known keys here: ") else { panic!("{section}: {error}") };
        for key in known.split(", ") {
            let dotted = path.iter().copied().chain([key]).collect::<Vec<_>>().join(".");
            let probe = path.iter().chain([&key]).rev().fold("{zzz: 1}".to_owned(), |inner, key| format!("{{{key}: {inner}}}"));
            // Only a section has keys of its own.
            match from_text::<File>(&probe).map_err(|fault| fault.at(Place::Memory).to_string()) {
                Err(error) if error.contains(&format!("{dotted}.zzz: unknown key")) => sections.push(dotted),
                _ => read.push(dotted),
            }
        }
    }
    read.sort();
    let mut table: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
    table.sort();
    assert_eq!(read, table);
}
