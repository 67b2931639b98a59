//! Weights that others wrote: CoreNet's .pt files and Hugging Face folders.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use openelm_checkpoint::{WeightKind, Weights};
use reference_values::{Tensors, reference};

#[test]
fn corenets_files_hold_the_final_weights() {
    let Some(folder) = reference() else { return };
    let expected = Tensors::open(folder.join("corenet-run/final.safetensors"));
    for file in ["checkpoint_last.pt", "training_checkpoint_last.pt"] {
        let weights = Weights::open(&folder.join("corenet-run").join(file)).unwrap();
        assert_eq!(weights.kind(), WeightKind::Torch);
        let infos = openelm_model::OpenElm::infos_of(weights.config()).unwrap();
        assert_eq!(infos.len(), expected.names().len(), "{file}");
        for info in &infos {
            assert_eq!(weights.values(info).unwrap(), expected.f32(&info.name), "{file}: {}", info.name);
        }
    }
}

#[test]
fn hugging_face_folders_load() {
    let Some(folder) = reference() else { return };
    for name in ["hf-tiny", "hf-5m"] {
        let weights = Weights::open(&folder.join(name)).unwrap();
        assert_eq!(weights.kind(), WeightKind::HuggingFace);
        assert!(weights.tokenizer().is_some());
        let expected = Tensors::open(folder.join(name).join("model.safetensors"));
        for info in openelm_model::OpenElm::infos_of(weights.config()).unwrap() {
            assert_eq!(weights.values(&info).unwrap(), expected.f32(&openelm_checkpoint::hf_name(&info.name)), "{name}: {}", info.name);
        }
    }
}
