//! What the reference model says of each pair: computed once before the first update and kept on disk, or anew each time by a
//! frozen copy.
//!
//! What must stay true: a kept file is used only when it is whole (a checksum says so) and belongs to these pairs, this reference
//! and this arithmetic; otherwise it is computed again from the reference's own weights.

use std::fs;
use std::path::{Path, PathBuf};

use openelm_train::{Arithmetic, Engine, MicroBatch, OpenElm, TrainError};
use sha2::{Digest, Sha256};

use crate::error::FinetuneError;
use crate::examples::{digest, hex};
use crate::pair_tokens::PairTokens;
use crate::preference_loss::Both;

/// The file in a run folder.
const FILE: &str = "reference_log_probabilities";
const CHECKSUM: usize = 32;

/// Where reference log-probabilities come from.
pub enum Reference {
    /// Sums for the training pairs and for the held-out ones, in their order.
    Kept { training: Vec<Both>, validation: Vec<Both> },
    /// A model that never changes.
    Frozen(Box<OpenElm>),
}

/// What kept values are values of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceKey {
    /// Digest of the pairs.
    pub pairs: String,
    /// Digest of the reference's weights.
    pub weights: String,
    /// The arithmetic: f32 or bf16.
    pub precision: &'static str,
}

impl ReferenceKey {
    /// Of these pairs under a reference with this digest.
    pub fn new(training: &[PairTokens], validation: &[PairTokens], weights: String, arithmetic: &Arithmetic) -> Self {
        let precision = if arithmetic.precision == openelm_train::Precision::F32 { "f32" } else { "bf16" };
        Self { pairs: pairs_digest(training.iter().chain(validation)), weights, precision }
    }

    fn line(&self, training: usize, validation: usize) -> String {
        format!("openelm reference log-probabilities 1 {} {} {} {training} {validation}\n", self.pairs, self.weights, self.precision)
    }
}

pub(crate) fn pairs_digest<'a>(pairs: impl Iterator<Item = &'a PairTokens>) -> String {
    digest(pairs.flat_map(|pair| [&pair.chosen, &pair.rejected]).map(|answered| (&answered.ids[..], answered.prompt)))
}

/// A digest of a model's weights.
///
/// # Errors
/// When the device fails.
pub fn weights_digest(model: &mut OpenElm) -> Result<String, FinetuneError> {
    let mut hash = Sha256::new();
    model.read_parameters(|_, values| {
        values.iter().for_each(|value| hash.update(value.to_le_bytes()));
        Ok::<_, FinetuneError>(())
    })?;
    Ok(hex(&hash.finalize()[..16]))
}

impl Reference {
    /// The values kept in the run folder, or why there are none to use.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(
        folder: &Path,
        key: &ReferenceKey,
        training: usize,
        validation: usize,
    ) -> Result<Result<Self, &'static str>, FinetuneError> {
        let path = folder.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Err("there are none yet")),
            Err(source) => return Err(FinetuneError::Io { path, action: "reading it", source }),
        };
        let Some((content, checksum)) = bytes.split_at_checked(bytes.len().saturating_sub(CHECKSUM)) else {
            return Ok(Err("the file is cut"));
        };
        if Sha256::digest(content).as_slice() != checksum {
            return Ok(Err("the file is damaged"));
        }
        let line = key.line(training, validation);
        let Some(values) = content.strip_prefix(line.as_bytes()) else { return Ok(Err("the file belongs to other pairs or weights")) };
        let number = |bytes: &[u8]| bytes.try_into().map_or(f64::NAN, f64::from_le_bytes);
        let mut all: Vec<Both> =
            values.chunks_exact(16).map(|both| Both { chosen: number(&both[..8]), rejected: number(&both[8..]) }).collect();
        if all.len() != training + validation {
            return Ok(Err("the file is damaged"));
        }
        let validation = all.split_off(training);
        Ok(Ok(Self::Kept { training: all, validation }))
    }

    /// Asks `model` about every pair, `micro_batch` pairs at a time; `progress` is told how many are done.
    ///
    /// # Errors
    /// When the device fails.
    pub fn compute(
        engine: &mut dyn Engine,
        model: &OpenElm,
        (training, validation): (&[PairTokens], &[PairTokens]),
        micro_batch: usize,
        arithmetic: &Arithmetic,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, FinetuneError> {
        // Pairs of like length go together, so that little is filling.
        let all: Vec<&PairTokens> = training.iter().chain(validation).collect();
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|index| longest(all[*index]));
        let mut found = vec![Both::default(); all.len()];
        for (number, group) in order.chunks(micro_batch.max(1)).enumerate() {
            let pairs: Vec<&PairTokens> = group.iter().map(|index| all[*index]).collect();
            let sums = engine.row_log_probabilities(model, &batch_of(&pairs, model)?, arithmetic)?;
            for (index, both) in group.iter().zip(both_of(&sums)) {
                found[*index] = both;
            }
            progress((number * micro_batch + group.len()).min(all.len()));
        }
        let validation = found.split_off(training.len());
        Ok(Self::Kept { training: found, validation })
    }

    /// Keeps the values in the run folder, in one step. A frozen model is not kept.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, folder: &Path, key: &ReferenceKey) -> Result<(), FinetuneError> {
        let Self::Kept { training, validation } = self else { return Ok(()) };
        let mut content = key.line(training.len(), validation.len()).into_bytes();
        for both in training.iter().chain(validation) {
            content.extend(both.chosen.to_le_bytes());
            content.extend(both.rejected.to_le_bytes());
        }
        let checksum = Sha256::digest(&content);
        content.extend(checksum);
        let (path, aside) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
        let fault = |path: &PathBuf, action| {
            let path = path.clone();
            move |source| FinetuneError::Io { path, action, source }
        };
        fs::write(&aside, content).map_err(fault(&aside, "writing it"))?;
        fs::rename(&aside, &path).map_err(fault(&path, "renaming it"))
    }
}

/// Tokens of the longer answer, its prompt included.
pub(crate) fn longest(pair: &PairTokens) -> usize {
    pair.chosen.ids.len().max(pair.rejected.ids.len())
}

/// Some pairs as one micro-batch: all chosen answers, then all rejected ones, behind their prompts, which engines may compute once.
pub(crate) fn batch_of(pairs: &[&PairTokens], model: &OpenElm) -> Result<MicroBatch, TrainError> {
    let sides = pairs.iter().map(|pair| &pair.chosen).chain(pairs.iter().map(|pair| &pair.rejected));
    let rows: Vec<_> = sides.map(|side| (&side.ids[..], (0..side.ids.len()).map(|at| at >= side.prompt).collect::<Vec<bool>>())).collect();
    Ok(MicroBatch::of_targets(rows.iter().map(|(ids, counts)| (*ids, &counts[..])), model.config().vocab_size)?.with_siblings())
}

/// The sums of such a micro-batch, pair by pair.
pub(crate) fn both_of(sums: &[f64]) -> impl Iterator<Item = Both> + '_ {
    let (chosen, rejected) = sums.split_at(sums.len() / 2);
    chosen.iter().zip(rejected).map(|(chosen, rejected)| Both { chosen: *chosen, rejected: *rejected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_values_come_back_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let key = ReferenceKey { pairs: "p".into(), weights: "w".into(), precision: "f32" };
        let both = |number: f64| Both { chosen: number, rejected: -number / 3.0 };
        let kept = Reference::Kept { training: vec![both(0.1), both(-2e9)], validation: vec![both(7.0)] };
        let reason = |key: &ReferenceKey, training| Reference::load(folder.path(), key, training, 1).unwrap().err();
        assert_eq!(reason(&key, 2), Some("there are none yet"));
        kept.save(folder.path(), &key).unwrap();
        let Ok(Reference::Kept { training, validation }) = Reference::load(folder.path(), &key, 2, 1).unwrap() else { panic!("not kept") };
        assert_eq!((training, validation), (vec![both(0.1), both(-2e9)], vec![both(7.0)]));
        assert_eq!(reason(&ReferenceKey { weights: "x".into(), ..key.clone() }, 2), Some("the file belongs to other pairs or weights"));
        assert_eq!(reason(&key, 3), Some("the file belongs to other pairs or weights"));
        let path = folder.path().join(FILE);
        let bytes = fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(reason(&key, 2), Some("the file is damaged"));
        }
        for length in [0, 5, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(reason(&key, 2), Some("the file is damaged"));
        }
    }
}
