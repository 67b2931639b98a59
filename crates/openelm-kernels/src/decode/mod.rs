//! A whole model read for inference on the CPU, its weights as files store them: some tokens of some sequences go through all blocks,
//! and their keys and values stay in a [`KvStore`].
//!
//! What must stay true: everything is checked before a store changes; results do not depend on the number of threads; what the few and
//! the many tokens of one sequence give differs by rounding alone.

mod attend;
mod few;
mod look_up;
mod many;
mod model;
pub(crate) mod store;

pub use look_up::IdLogits;
pub use model::{StoredBlock, StoredModel};
pub use store::{KvStore, KvType};

use crate::error::check;
use crate::stored::MOST_TOKENS;
use crate::{Cpu, KernelError};
use look_up::Answer;

/// Tokens that go through the model at a time: beyond, buffers would grow without the products growing faster.
const MOST_AT_ONCE: usize = 1024;

/// Tokens of one sequence, to be read behind what its store holds.
#[derive(Debug)]
pub struct KvRun<'a> {
    pub ids: &'a [u32],
    pub store: &'a mut KvStore,
    /// How many of the last tokens need an answer: logits, or what they say of some ids.
    pub answers: usize,
}

/// A part of a run that is read now.
pub(crate) struct Piece<'a, 'b> {
    pub(crate) ids: &'a [u32],
    /// Positions before it.
    pub(crate) start: usize,
    pub(crate) layers: Vec<store::LayerParts<'b>>,
    pub(crate) answers: usize,
}

/// The numbers of the tokens, counted over all pieces, that need an answer.
fn wanted_of(pieces: &[Piece<'_, '_>]) -> Vec<usize> {
    let mut wanted = Vec::new();
    let mut end = 0;
    for piece in pieces {
        end += piece.ids.len();
        wanted.extend(end - piece.answers..end);
    }
    wanted
}

/// Reads the tokens of all runs; `logits` [tokens that need an answer, vocabulary] gets theirs, run by run.
///
/// # Errors
/// When a run has no room or an unknown id, or `logits` have another size.
pub fn read_tokens(cpu: &Cpu, model: &StoredModel<'_>, runs: &mut [KvRun<'_>], logits: &mut [f32]) -> Result<(), KernelError> {
    check("reading tokens", "logits", answers_of(runs) * model.head.rows(), logits.len())?;
    read(cpu, model, runs, Answer::Logits(logits))
}

/// Reads the tokens of all runs, and looks up what those that need an answer say of `ids`, run by run.
///
/// # Errors
/// As [`read_tokens`].
pub fn look_up_tokens(cpu: &Cpu, model: &StoredModel<'_>, runs: &mut [KvRun<'_>], ids: &[&[u32]]) -> Result<Vec<IdLogits>, KernelError> {
    check("looking tokens up", "lists of ids", answers_of(runs), ids.len())?;
    let mut found = vec![IdLogits::default(); ids.len()];
    read(cpu, model, runs, Answer::Ids(ids, &mut found))?;
    Ok(found)
}

fn answers_of(runs: &[KvRun<'_>]) -> usize {
    runs.iter().map(|run| run.answers.min(run.ids.len())).sum()
}

/// Checks every run, then reads them in batches of neighbours, so that a batch's answers lie together. A run longer than a batch goes in
/// parts of its own.
fn read(cpu: &Cpu, model: &StoredModel<'_>, runs: &mut [KvRun<'_>], answer: Answer<'_>) -> Result<(), KernelError> {
    let operation = "reading tokens";
    let vocabulary = model.head.rows();
    for run in runs.iter() {
        if let Some(id) = run.ids.iter().find(|id| **id as usize >= model.table.rows()) {
            let (reason, hint) = ("which the table has no row for", "check that the tokenizer belongs to the model");
            return Err(KernelError::Dimension { operation, what: "a token id", value: *id as usize, reason, hint });
        }
        let length = run.store.length() + run.ids.len();
        if length > run.store.capacity().min(model.positions()) {
            let (reason, hint) = ("past the room for them", "shorten the sequence, or make the store larger");
            return Err(KernelError::Dimension { operation, what: "the positions' number", value: length, reason, hint });
        }
        model.check_store(run.store)?;
    }
    let mut left = runs;
    let mut answer = answer;
    while let [first, ..] = left {
        let (long, whole) = (first.ids, first.ids.len());
        let mut tokens = 0;
        let fitting = left.iter().take_while(|run| {
            tokens += run.ids.len();
            tokens <= MOST_AT_ONCE
        });
        let count = fitting.count().max(1);
        let (now, later) = left.split_at_mut(count);
        // Where the batch is one run, it may be too long for one pass.
        let steps = if count == 1 { whole.div_ceil(MOST_AT_ONCE).max(1) } else { 1 };
        for step in 0..steps {
            let mut pieces = Vec::with_capacity(count);
            for run in now.iter_mut() {
                let behind = whole.saturating_sub((step + 1) * MOST_AT_ONCE);
                let (ids, wanted) = match steps {
                    1 => (run.ids, run.answers),
                    _ => (&long[step * MOST_AT_ONCE..whole - behind], run.answers.saturating_sub(behind)),
                };
                let start = run.store.length();
                pieces.push(Piece { ids, start, layers: run.store.parts(), answers: wanted.min(ids.len()) });
            }
            let (own, others) = answer.split(pieces.iter().map(|piece| piece.answers).sum(), vocabulary);
            answer = others;
            few_or_many(cpu, model, &pieces, own)?;
            let lengths: Vec<usize> = pieces.iter().map(|piece| piece.ids.len()).collect();
            drop(pieces);
            now.iter_mut().zip(lengths).for_each(|(run, length)| run.store.advance(length));
        }
        left = later;
    }
    Ok(())
}

fn few_or_many(cpu: &Cpu, model: &StoredModel<'_>, pieces: &[Piece<'_, '_>], answer: Answer<'_>) -> Result<(), KernelError> {
    let tokens: usize = pieces.iter().map(|piece| piece.ids.len()).sum();
    match tokens {
        0 => Ok(()),
        tokens if tokens <= MOST_TOKENS => answer.fill(cpu, model.head.rows(), |_, logits| few::read(cpu, model, pieces, logits)),
        _ => many::read(cpu, model, pieces, answer),
    }
}
