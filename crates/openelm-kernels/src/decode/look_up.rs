//! What positions say of given ids, without a vocabulary of logits leaving for each position.
//!
//! What must stay true: logits of at most `ROWS` positions exist at a time.

use crate::head_loss::log_sum;
use crate::threads::Parts;
use crate::{Cpu, Isa};

/// Positions whose logits exist at a time: with a vocabulary of 32 000, 32 MB.
pub(super) const ROWS: usize = 256;

/// The logits of some ids at one position, and what makes probabilities of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdLogits {
    /// Those of the ids asked for, in their order; negative infinity for an id outside the vocabulary.
    pub logits: Vec<f32>,
    /// The largest of the vocabulary.
    pub largest: f32,
    /// ln Σ e^logit over the vocabulary.
    pub log_sum: f64,
}

impl IdLogits {
    /// Of one position's `logits` `[vocabulary]`, on any processor.
    pub fn of(logits: &[f32], ids: &[u32]) -> Self {
        Self::by(Isa::Plain, logits, ids)
    }

    fn by(isa: Isa, logits: &[f32], ids: &[u32]) -> Self {
        let (largest, log_sum) = log_sum(isa, logits);
        let logits = ids.iter().map(|id| logits.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY)).collect();
        Self { logits, largest, log_sum }
    }
}

/// Where the answers of some positions go.
pub(crate) enum Answer<'a> {
    /// [positions, vocabulary]
    Logits(&'a mut [f32]),
    /// The ids asked for at each position, and what was found of them.
    Ids(&'a [&'a [u32]], &'a mut [IdLogits]),
}

impl<'a> Answer<'a> {
    /// That of the first positions, and that of those behind them.
    pub(super) fn split(self, positions: usize, vocabulary: usize) -> (Self, Self) {
        match self {
            Self::Logits(logits) => {
                let (first, rest) = logits.split_at_mut(positions * vocabulary);
                (Self::Logits(first), Self::Logits(rest))
            }
            Self::Ids(ids, found) => {
                let ((first_ids, rest_ids), (first, rest)) = (ids.split_at(positions), found.split_at_mut(positions));
                (Self::Ids(first_ids, first), Self::Ids(rest_ids, rest))
            }
        }
    }

    /// Has `fill` make the logits of all positions, some at a time: it is given the first position and room for [positions, vocabulary].
    pub(super) fn fill<E>(self, cpu: &Cpu, vocabulary: usize, mut fill: impl FnMut(usize, &mut [f32]) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Logits(logits) => fill(0, logits),
            Self::Ids(ids, found) => {
                let mut room = cpu.arena.take(ROWS.min(ids.len()) * vocabulary);
                for (chunk, (ids, found)) in ids.chunks(ROWS).zip(found.chunks_mut(ROWS)).enumerate() {
                    let logits = &mut room.floats_mut()[..ids.len() * vocabulary];
                    fill(chunk * ROWS, logits)?;
                    let found = Parts::new(found);
                    cpu.threads.for_each(ids.len(), |row| {
                        let logits = &logits[row * vocabulary..][..vocabulary];
                        // SAFETY: each task has a position of its own.
                        let to = unsafe { found.part(row, 1) };
                        to[0] = IdLogits::by(cpu.isa, logits, ids[row]);
                    });
                }
                Ok(())
            }
        }
    }
}
