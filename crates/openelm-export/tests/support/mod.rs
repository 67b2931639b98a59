//! What the tests of exports share: reference models, their tokenizers, and a comparison of two models' weights.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::path::Path;

use openelm_checkpoint::Weights;
use openelm_model::OpenElm;
use openelm_tokenizer::Tokenizer;

/// The tokenizer in the weights' file or beside it.
pub fn tokenizer_of(weights: &Weights) -> Option<Tokenizer> {
    if let Some(model) = weights.tokenizer_model() {
        return Some(Tokenizer::from_model_bytes(model, weights.path()).unwrap());
    }
    weights.tokenizer().map(|path| Tokenizer::load(path).unwrap())
}

/// Fails unless both are the same model: layers and every value of every tensor; rows that only `b` lacks are padding of `a`.
pub fn assert_same(a: &Weights, b: &Weights, what: &str) {
    assert_eq!(a.config().layers().unwrap(), b.config().layers().unwrap(), "{what}");
    let (infos, others) = (OpenElm::infos_of(a.config()).unwrap(), OpenElm::infos_of(b.config()).unwrap());
    assert_eq!(infos.len(), others.len(), "{what}");
    for (info, other) in infos.iter().zip(&others) {
        let (left, right) = (a.values(info).unwrap(), b.values(other).unwrap());
        assert_eq!(info.name, other.name, "{what}");
        assert!(right.len() == left.len() || info.name == "token_embeddings.weight", "{what}: {}", info.name);
        assert!(left.starts_with(&right), "{what}: {}", info.name);
    }
}

pub fn same_bytes(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}
