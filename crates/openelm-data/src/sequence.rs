//! What the loader gives: one sequence of token ids, and several side by side.

use std::sync::Arc;

/// `sequence_length + 1` tokens: inputs are all but the last, targets all but the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, [sequence_length + 1].
    pub tokens: Vec<u32>,
    /// Path of the shard that the first token came from.
    pub source: Arc<str>,
    /// Ascending indexes into `tokens` at which a document (in the corenet order: a piece) starts.
    pub boundaries: Vec<u32>,
    /// Padding tokens at the end.
    pub padding: usize,
}

/// Sequences of one rank, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, [batch, sequence_length + 1], row-major.
    pub tokens: Vec<u32>,
    /// Number of sequences.
    pub batch: usize,
    /// Positions that the model sees; each row has one token more.
    pub sequence_length: usize,
    /// The id that fills the ends of short rows.
    pub padding_id: u32,
    /// Source of each row's first token.
    pub sources: Vec<Arc<str>>,
    /// Starts of documents in each row.
    pub boundaries: Vec<Vec<u32>>,
    /// Attention is to stay inside documents, and positions to begin anew in each.
    pub document_mask: bool,
}

impl Batch {
    pub(crate) fn from_sequences(sequences: Vec<Sequence>, sequence_length: usize, padding_id: u32, document_mask: bool) -> Self {
        let mut batch = Self {
            tokens: Vec::with_capacity(sequences.len() * (sequence_length + 1)),
            batch: sequences.len(),
            sequence_length,
            padding_id,
            sources: Vec::with_capacity(sequences.len()),
            boundaries: Vec::with_capacity(sequences.len()),
            document_mask,
        };
        for sequence in sequences {
            batch.tokens.extend_from_slice(&sequence.tokens);
            batch.sources.push(sequence.source);
            batch.boundaries.push(sequence.boundaries);
        }
        batch
    }
}
