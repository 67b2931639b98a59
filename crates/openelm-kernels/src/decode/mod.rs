//! A whole model read for inference on the CPU, its weights as files store them: some tokens of some sequences go through all blocks,
//! and their keys and values stay in a [`KvStore`].
//!
//! What must stay true: everything is checked before a store changes; results do not depend on the number of threads; what the few and
//! the many tokens of one sequence give differs by rounding alone.

mod attend;
mod few;
mod many;
mod model;
pub(crate) mod store;

pub use model::{StoredBlock, StoredModel};
pub use store::{KvStore, KvType};

use crate::error::check;
use crate::stored::MOST_TOKENS;
use crate::{Cpu, KernelError};

/// Tokens that go through the model at a time: beyond, buffers would grow without the products growing faster.
const MOST_AT_ONCE: usize = 1024;

/// Tokens of one sequence, to be read behind what its store holds.
#[derive(Debug)]
pub struct KvRun<'a> {
    pub ids: &'a [u32],
    pub store: &'a mut KvStore,
    /// How many of the last tokens need logits.
    pub logits: usize,
}

/// A part of a run that is read now.
pub(crate) struct Piece<'a, 'b> {
    pub(crate) ids: &'a [u32],
    /// Positions before it.
    pub(crate) start: usize,
    pub(crate) layers: Vec<store::LayerParts<'b>>,
    pub(crate) logits: usize,
}

/// The numbers of the tokens, counted over all pieces, whose logits are wanted.
fn wanted_of(pieces: &[Piece<'_, '_>]) -> Vec<usize> {
    let mut wanted = Vec::new();
    let mut end = 0;
    for piece in pieces {
        end += piece.ids.len();
        wanted.extend(end - piece.logits..end);
    }
    wanted
}

/// Reads the tokens of all runs; `logits` [tokens with logits, vocabulary] gets theirs, run by run.
///
/// # Errors
/// When a run has no room or an unknown id, or `logits` have another size.
pub fn read_tokens(cpu: &Cpu, model: &StoredModel<'_>, runs: &mut [KvRun<'_>], logits: &mut [f32]) -> Result<(), KernelError> {
    let operation = "reading tokens";
    let vocabulary = model.head.rows();
    check(operation, "logits", runs.iter().map(|run| run.logits.min(run.ids.len())).sum::<usize>() * vocabulary, logits.len())?;
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
    // Long runs go alone, in parts; the rest together.
    let (mut long, mut short): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    let mut rest = logits;
    for run in runs.iter_mut() {
        let wanted = run.logits.min(run.ids.len());
        let (own, others) = rest.split_at_mut(wanted * vocabulary);
        rest = others;
        if run.ids.len() > MOST_TOKENS { long.push((run, wanted, own)) } else { short.push((run, wanted, own)) }
    }
    for (run, wanted, own) in long {
        let mut read = 0;
        let mut out = own;
        while read < run.ids.len() {
            let count = MOST_AT_ONCE.min(run.ids.len() - read);
            let ids = &run.ids[read..read + count];
            read += count;
            let now = wanted.saturating_sub(run.ids.len() - read).min(count);
            let (own, others) = std::mem::take(&mut out).split_at_mut(now * vocabulary);
            out = others;
            let start = run.store.length();
            let piece = Piece { ids, start, layers: run.store.parts(), logits: now };
            few_or_many(cpu, model, &[piece], own)?;
            run.store.advance(count);
        }
    }
    while !short.is_empty() {
        let mut tokens = 0;
        let fitting = short.iter().take_while(|(run, ..)| {
            tokens += run.ids.len();
            tokens <= MOST_AT_ONCE
        });
        let count = fitting.count().max(1);
        let mut now: Vec<_> = short.drain(..count).collect();
        if let [(run, wanted, own)] = now.as_mut_slice() {
            let start = run.store.length();
            let piece = Piece { ids: run.ids, start, layers: run.store.parts(), logits: *wanted };
            few_or_many(cpu, model, &[piece], own)?;
            run.store.advance(run.ids.len());
            continue;
        }
        let total: usize = now.iter().map(|(_, wanted, _)| wanted).sum();
        let mut buffer = vec![0.0; total * vocabulary];
        let pieces: Vec<Piece<'_, '_>> = now
            .iter_mut()
            .map(|(run, wanted, _)| {
                let start = run.store.length();
                Piece { ids: run.ids, start, layers: run.store.parts(), logits: *wanted }
            })
            .collect();
        few_or_many(cpu, model, &pieces, &mut buffer)?;
        drop(pieces);
        let mut from = buffer.as_slice();
        for (run, wanted, own) in now {
            let (mine, others) = from.split_at(wanted * vocabulary);
            own.copy_from_slice(mine);
            from = others;
            run.store.advance(run.ids.len());
        }
    }
    Ok(())
}

fn few_or_many(cpu: &Cpu, model: &StoredModel<'_>, pieces: &[Piece<'_, '_>], logits: &mut [f32]) -> Result<(), KernelError> {
    let tokens: usize = pieces.iter().map(|piece| piece.ids.len()).sum();
    match tokens {
        0 => Ok(()),
        tokens if tokens <= MOST_TOKENS => few::read(cpu, model, pieces, logits),
        _ => many::read(cpu, model, pieces, logits),
    }
}
