//! The files in `configs/` and `docs/configuration.md` keep up with the code.

use std::path::Path;

use super::corenet::Effect;
use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/corenet");

fn pretrain(name: &str) -> Loaded {
    RunConfig::load(&Path::new(ROOT).join("configs/pretrain").join(name), &[]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_pretraining_file_loads() {
    let mut count = 0;
    for entry in std::fs::read_dir(Path::new(ROOT).join("configs/pretrain")).unwrap() {
        let name = entry.unwrap().file_name();
        let loaded = pretrain(name.to_str().unwrap());
        assert!(!loaded.corenet && loaded.notes.is_empty(), "{name:?}");
        let written = loaded.config.to_yaml().unwrap();
        assert_eq!(RunConfig::load_text(&written, Path::new("/x.yaml"), &[]).unwrap().config, loaded.config);
        count += 1;
    }
    assert!(count >= 5, "{count} files");
}

/// The mixture on its own has the corpora of the pretraining files.
#[test]
fn the_mixture_is_that_of_the_runs() {
    let mixture =
        RunConfig::load(&Path::new(ROOT).join("configs/data/openelm-mixture.yaml"), &[]).unwrap_or_else(|error| panic!("{error}"));
    let run = pretrain("openelm-270m.yaml");
    assert!(mixture.notes.is_empty());
    assert_eq!(mixture.config.data.corpora, run.config.data.corpora);
    assert_eq!((mixture.config.model, mixture.config.training), (run.config.model, run.config.training));
}

/// Our files of the four sizes and Apple's say the same, but for the order of the data and the batch of one GPU.
#[test]
fn apples_hyperparameters() {
    let paths = [
        "text_tokenizer.sentence_piece.model_path=/t".to_owned(),
        "dataset.language_modeling.general_lm.train_data_info.0.file_name=/c-{file_id}.parquet".to_owned(),
    ];
    for size in ["270m", "450m", "1_1b", "3b"] {
        let ours = pretrain(&format!("openelm-{size}.yaml")).config;
        let apples = RunConfig::load(&Path::new(FIXTURES).join(format!("{size}.yaml")), &paths).unwrap().config;
        assert_eq!((&ours.name, &ours.model), (&apples.name, &apples.model));
        assert_eq!((&ours.optimizer, &ours.schedule), (&apples.optimizer, &apples.schedule));
        let expected = TrainingSection {
            global_batch: 128 * apples.training.global_batch,
            micro_batch: ours.training.micro_batch,
            accumulation: Accumulation::Mean,
            ..apples.training
        };
        assert_eq!(ours.training, expected);
        assert_eq!(ours.checkpoint.every, apples.checkpoint.every);
        let lengths = |data: &DataSection| (data.sequence_length, data.min_tokens_per_text, data.min_characters_per_text);
        assert_eq!(lengths(&ours.data), lengths(&apples.data));
        assert_eq!((ours.data.order, ours.data.corpora.len()), (Order::Mixed, 13));
        let tokens: f64 = ours.data.corpora.iter().map(|corpus| corpus.weight).sum();
        assert!((tokens - 1784.3).abs() < 1e-9, "{tokens}");
    }
}

/// Every key of our form with the section that it is in, found by asking the reader which keys it knows.
fn known_keys(refusal: fn(&str) -> String) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut sections = vec![(String::new(), "{zzz: 1}".to_owned())];
    while let Some((section, probe)) = sections.pop() {
        let message = refusal(&probe);
        let (_, known) = message.split_once("known keys here: ").unwrap_or_else(|| panic!("{section}: {message}"));
        for key in known.split(", ") {
            found.push((section.clone(), key.to_owned()));
            let dotted = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            for (path, inner) in [(dotted.clone(), "{zzz: 1}"), (format!("{dotted}[]"), "[{zzz: 1}]")] {
                let probe = probe.replace("zzz: 1", &format!("{key}: {inner}"));
                if refusal(&probe).contains("zzz: unknown key") {
                    sections.push((path, probe));
                }
            }
        }
    }
    found
}

fn pretrain_refusal(text: &str) -> String {
    RunConfig::load_text(text, Path::new("/x.yaml"), &[]).unwrap_err().to_string()
}

fn finetune_refusal(text: &str) -> String {
    FinetuneConfig::load_text(text, Path::new("/x.yaml"), &[]).unwrap_err().to_string()
}

/// `(section, key)` of every row in the tables of our form: a heading holds the section in backticks, a row begins with the key.
fn documented_keys(document: &str) -> Vec<(String, String)> {
    let (_, after) = document.split_once("\n## Keys\n").unwrap();
    let (tables, _) = after.split_once("\n## ").unwrap();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in tables.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            section = heading.split('`').nth(1).unwrap_or_default().to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            found.push((section.clone(), row.split('`').next().unwrap().to_owned()));
        }
    }
    found
}

#[test]
fn every_key_is_documented() {
    let document = std::fs::read_to_string(Path::new(ROOT).join("docs/configuration.md")).unwrap();
    let mut known = known_keys(pretrain_refusal);
    // A corpus of the validation has the keys of any corpus, in one table.
    known.retain(|(section, _)| section != "validation.corpora[]");
    let mut documented = documented_keys(&document);
    known.sort();
    documented.sort();
    assert_eq!(documented, known);
    for (key, effect) in corenet::KEYS {
        let does = match effect {
            Effect::Sets(ours) => ours.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
            Effect::Must(value) => format!("must be {value}"),
            Effect::Nothing(instead) => format!("no effect: {instead}"),
        };
        let row = format!("\n| `{key}` | {does} |\n");
        assert!(document.contains(&row), "docs/configuration.md lacks the row{row}");
    }
}

#[test]
fn every_key_of_fine_tuning_is_documented() {
    let document = std::fs::read_to_string(Path::new(ROOT).join("docs/finetuning.md")).unwrap();
    let mut known = known_keys(finetune_refusal);
    let mut documented = documented_keys(&document);
    known.sort();
    documented.sort();
    assert_eq!(documented, known);
}

#[test]
fn every_fine_tuning_file_loads() {
    let mut count = 0;
    for entry in std::fs::read_dir(Path::new(ROOT).join("configs/finetune")).unwrap() {
        let path = entry.unwrap().path();
        let config = FinetuneConfig::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let written = config.to_yaml().unwrap();
        assert_eq!(FinetuneConfig::load_text(&written, Path::new("/x.yaml"), &[]).unwrap(), config, "{}", path.display());
        count += 1;
    }
    assert!(count >= 7, "{count} files");
}

/// CoreNet, projects/openelm/README-instruct.md and instruction_tuning/openelm-instruct.yaml.
#[test]
fn apples_preference_tuning() {
    use PreferenceLossName::{Hinge, Sigmoid};
    for (size, epochs, rate, loss) in
        [("270m", 5.0, 2e-5, Hinge), ("450m", 8.0, 3e-5, Hinge), ("1_1b", 5.0, 5e-5, Sigmoid), ("3b", 10.0, 1e-4, Hinge)]
    {
        let path = Path::new(ROOT).join(format!("configs/finetune/openelm-{size}-instruct.yaml"));
        let config = FinetuneConfig::load(&path, &[]).unwrap();
        let objective = &config.objective;
        assert_eq!((objective.kind, objective.loss, objective.beta), (ObjectiveKind::Preference, Some(loss), Some(0.01)));
        assert_eq!((config.training.epochs, config.training.global_batch, config.seed), (Some(epochs), 128, 42));
        assert_eq!((config.data.max_length, config.max_prompt_length()), (1024, 512));
        let schedule = &config.schedule;
        assert_eq!((schedule.max_lr, schedule.min_lr, schedule.warmup_ratio), (rate, 0.0, 0.1));
        assert_eq!((&config.optimizer, config.training.grad_clip), (&TuningOptimizerSection::default(), 1.0));
        // 60 917 pairs are 476 updates a pass.
        assert_eq!(config.steps(60_917), (epochs * 60_917.0 / 128.0).ceil() as u64);
    }
}
