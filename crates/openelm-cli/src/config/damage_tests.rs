//! Damaged configuration files: reading ends at once, in a configuration that can be written and read again, or in an error that names the
//! file.

use std::path::Path;
use std::time::{Duration, Instant};

use damaged_text::{damaged, damages};
use proptest::prelude::*;

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn text_of(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_run_is_refused_by_name_or_read(which in 0..4usize, damages in damages()) {
        let file = [
            "configs/pretrain/openelm-270m.yaml",
            "configs/pretrain/openelm-3b.yaml",
            "configs/data/openelm-mixture.yaml",
            "crates/openelm-cli/tests/fixtures/corenet/270m.yaml",
        ][which];
        let text = damaged(&text_of(file), &damages);
        let begin = Instant::now();
        match RunConfig::load_text(&text, Path::new("/runs/odd.yaml"), &[]) {
            Ok(loaded) => {
                let written = loaded.config.to_yaml().unwrap();
                let again = RunConfig::load_text(&written, Path::new("/runs/again.yaml"), &[]).unwrap_or_else(|error| panic!("{error}\n{written}"));
                prop_assert_eq!(again.config, loaded.config);
            }
            Err(error) => prop_assert!(error.to_string().contains("/runs/odd.yaml"), "{error}"),
        }
        prop_assert!(begin.elapsed() < Duration::from_secs(5), "{:?} for\n{text}", begin.elapsed());
    }

    #[test]
    fn a_damaged_fine_tuning_is_refused_by_name_or_read(which in 0..3usize, damages in damages()) {
        let file = ["configs/finetune/lora.yaml", "configs/finetune/quickstart-dpo.yaml", "configs/finetune/sft.yaml"][which];
        let text = damaged(&text_of(file), &damages);
        let begin = Instant::now();
        match FinetuneConfig::load_text(&text, Path::new("/runs/odd.yaml"), &[]) {
            Ok(config) => {
                let written = config.to_yaml().unwrap();
                let again = FinetuneConfig::load_text(&written, Path::new("/runs/again.yaml"), &[]).unwrap_or_else(|error| panic!("{error}\n{written}"));
                prop_assert_eq!(again, config);
            }
            Err(error) => prop_assert!(error.to_string().contains("/runs/odd.yaml"), "{error}"),
        }
        prop_assert!(begin.elapsed() < Duration::from_secs(5), "{:?} for\n{text}", begin.elapsed());
    }
}
