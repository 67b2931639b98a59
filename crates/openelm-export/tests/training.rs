//! CoreNet's training checkpoint, in and out again.
#![allow(clippy::unwrap_used, clippy::panic)]

use openelm_checkpoint::{CheckpointError, CoreNetTrainingFile, Draft, Manifest, RunFolder, Weights, moment_name};
use openelm_export::{CoreNetTraining, export_corenet_training};
use openelm_formats::{PickleValue, TensorSource, TorchFile};
use openelm_model::{ModelConfig, open_device};
use reference_values::reference;

#[test]
fn a_training_checkpoint_comes_back_whole() {
    let Some(folder) = reference() else { return };
    let theirs = folder.join("corenet-run/training_checkpoint_last.pt");
    let place = tempfile::tempdir().unwrap();
    let weights = Weights::open(&theirs).unwrap();
    let state = CoreNetTrainingFile::open(&theirs, weights.config(), true).unwrap();
    assert_eq!(state.iterations(), 41);
    let mut model = weights.model(&open_device("flex").unwrap()).unwrap();
    let run = RunFolder::create(&place.path().join("run"), "{}").unwrap();
    let manifest = Manifest {
        version: Manifest::VERSION,
        program: "test".into(),
        step: state.iterations(),
        tokens: 0,
        seed: 0,
        tokenizer: String::new(),
        model: weights.config().clone(),
        data: serde_json::Value::Null,
        config: serde_json::Value::Null,
        files: Vec::new(),
    };
    let moments: Vec<_> = model.infos().iter().flat_map(|info| ["exp_avg", "exp_avg_sq"].map(|kind| (info.clone(), kind))).collect();
    let tensors: Vec<_> = moments.iter().map(|(info, kind)| (moment_name(kind, &info.name), info.shape.clone())).collect();
    run.save(manifest, |draft: &mut Draft| -> Result<(), CheckpointError> {
        draft.weights(&mut model)?;
        draft.optimizer(&tensors, |write| {
            moments.iter().try_for_each(|(info, kind)| write(&moment_name(kind, &info.name), &state.moment(info, kind)?))
        })
    })
    .unwrap();

    let out = place.path().join("training_checkpoint_last.pt");
    let checkpoint = run.newest().unwrap().unwrap();
    let training = CoreNetTraining { weight_decay: 0.1, no_decay_1d: true, betas: (0.9, 0.95), eps: 1e-8, learning_rate: 0.0005408 };
    export_corenet_training(&Weights::open(checkpoint.path()).unwrap(), &checkpoint, &training, &out).unwrap();
    let (own, theirs) = (TorchFile::open(&out).unwrap(), TorchFile::open(&theirs).unwrap());
    same(&own, own.root(), &theirs, theirs.root(), "root");
    assert_eq!(own.state_dict().unwrap().infos(), theirs.state_dict().unwrap().infos());
}

/// Equal in keys, their order, types and values; tensors by their elements, wherever they are stored.
fn same(a: &TorchFile, left: &PickleValue, b: &TorchFile, right: &PickleValue, place: &str) {
    if let (Some(one), Some(other)) = (left.as_tensor(), right.as_tensor()) {
        assert_eq!((one.dtype, &one.shape), (other.dtype, &other.shape), "{place}");
        assert!(a.tensor_bytes(one).unwrap() == b.tensor_bytes(other).unwrap(), "{place}");
    } else if let (Some(one), Some(other)) = (left.pairs(), right.pairs()) {
        assert_eq!(left.kind(), right.kind(), "{place}");
        assert_eq!(one.len(), other.len(), "{place}");
        for ((key, value), (other_key, other_value)) in one.iter().zip(other) {
            assert_eq!(key, other_key, "{place}");
            same(a, value, b, other_value, &format!("{place}/{key:?}"));
        }
    } else if let (Some(one), Some(other)) = (left.items(), right.items()) {
        assert_eq!(one.len(), other.len(), "{place}");
        one.iter().zip(other).for_each(|(value, other)| same(a, value, b, other, place));
    } else {
        assert_eq!(left, right, "{place}");
    }
}

#[test]
fn another_models_state_is_refused() {
    let Some(folder) = reference() else { return };
    let path = folder.join("corenet-run/training_checkpoint_last.pt");
    let config = Weights::open(&path).unwrap().config().clone();
    let message =
        |path: &std::path::Path, config: &ModelConfig, decay| CoreNetTrainingFile::open(path, config, decay).err().unwrap().to_string();
    assert!(message(&folder.join("corenet-run/checkpoint_last.pt"), &config, true).contains("no training checkpoint"));
    assert!(message(&path, &config, false).contains("in 2 groups"));
    let mut other = config.clone();
    other.vocab_size += 1;
    assert!(message(&path, &other, true).contains("exp_avg of token_embeddings.weight has the shape"));
    other = openelm_model::preset("OpenELM-5M").unwrap();
    assert!(message(&path, &other, true).contains("42 parameters"));
}
