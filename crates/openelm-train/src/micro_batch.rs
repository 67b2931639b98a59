//! Sequences that go through the model at once, ready for a device.
//!
//! What must stay true: the inputs are all tokens but the last of each row, the targets all but the first; a target that is the
//! padding id counts for nothing; every id that reaches the device lies inside the embedding.

use burn::tensor::{Device, Int, Tensor, TensorData};
use openelm_data::{Batch, Sequence};

use crate::error::TrainError;

/// An id that no vocabulary has.
const NO_TARGET: u32 = u32::MAX;

/// Inputs and targets of some sequences, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatch {
    /// [batch, sequence]
    inputs: Vec<u32>,
    /// [batch, sequence]
    targets: Vec<u32>,
    batch: usize,
    sequence: usize,
    /// A target with this id does not count.
    padding_id: u32,
    /// Where documents begin in each row, when attention stays inside them.
    documents: Option<Vec<Vec<u32>>>,
    /// For each row an earlier one that may begin with the same tokens.
    siblings: Vec<Option<usize>>,
}

impl MicroBatch {
    /// Splits rows of `sequence + 1` tokens into inputs and targets.
    ///
    /// # Errors
    /// When the tokens do not fill the rows, or a token other than padding is outside `vocab_size`.
    pub fn new(tokens: &[u32], sequence: usize, padding_id: u32, vocab_size: usize) -> Result<Self, TrainError> {
        let row = sequence + 1;
        if sequence == 0 || tokens.is_empty() || !tokens.len().is_multiple_of(row) {
            return Err(TrainError::Batch { reason: format!("{} tokens are no whole rows of {row}", tokens.len()) });
        }
        if let Some(bad) = tokens.iter().find(|id| **id != padding_id && **id as usize >= vocab_size) {
            return Err(TrainError::Batch { reason: format!("token id {bad} is outside the vocabulary of {vocab_size} rows") });
        }
        let rows = tokens.chunks_exact(row);
        Ok(Self {
            inputs: rows.clone().flat_map(|row| &row[..sequence]).copied().collect(),
            targets: rows.flat_map(|row| &row[1..]).copied().collect(),
            batch: tokens.len() / row,
            sequence,
            padding_id,
            documents: None,
            siblings: Vec::new(),
        })
    }

    /// Rows of tokens of which only some are learnt: `rows` are a sequence's tokens, and for each of them whether it counts as a
    /// target. Rows are filled up to the longest one, so that padding stands behind everything that counts. A first token is no target.
    ///
    /// # Errors
    /// When there are no rows, a row has fewer than two tokens or another number of flags, or a token is outside `vocab_size`.
    pub fn of_targets<'a>(rows: impl IntoIterator<Item = (&'a [u32], &'a [bool])>, vocab_size: usize) -> Result<Self, TrainError> {
        let rows: Vec<_> = rows.into_iter().collect();
        let sequence = rows.iter().map(|(tokens, _)| tokens.len()).max().unwrap_or(0).saturating_sub(1);
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for (tokens, counts) in &rows {
            if tokens.len() < 2 || tokens.len() != counts.len() {
                return Err(TrainError::Batch { reason: format!("a row of {} tokens with {} flags", tokens.len(), counts.len()) });
            }
            if let Some(bad) = tokens.iter().find(|id| **id as usize >= vocab_size) {
                return Err(TrainError::Batch { reason: format!("token id {bad} is outside the vocabulary of {vocab_size} rows") });
            }
            let padding = sequence + 1 - tokens.len();
            inputs.extend(&tokens[..tokens.len() - 1]);
            inputs.extend(std::iter::repeat_n(NO_TARGET, padding));
            targets.extend(tokens.iter().zip(*counts).skip(1).map(|(id, counts)| if *counts { *id } else { NO_TARGET }));
            targets.extend(std::iter::repeat_n(NO_TARGET, padding));
        }
        if sequence == 0 {
            return Err(TrainError::Batch { reason: "no rows".into() });
        }
        Ok(Self { inputs, targets, batch: rows.len(), sequence, padding_id: NO_TARGET, documents: None, siblings: Vec::new() })
    }

    /// Says that the second half of the rows begin as the first half do, row by row: two answers to one prompt. What both have alike
    /// need not be computed twice.
    pub fn with_siblings(mut self) -> Self {
        let half = self.batch / 2;
        self.siblings = (0..self.batch).map(|row| row.checked_sub(half).filter(|_| half > 0)).collect();
        self
    }

    /// The sibling of row `row`, and how many inputs both begin with.
    pub(crate) fn shared_with(&self, row: usize) -> Option<(usize, usize)> {
        let sibling = self.siblings.get(row).copied().flatten()?;
        let inputs = |row: usize| self.inputs.get(row * self.sequence..row * self.sequence + self.row_length(row)).unwrap_or_default();
        let alike = inputs(sibling).iter().zip(inputs(row)).take_while(|(a, b)| a == b).count();
        (alike > 0).then_some((sibling, alike))
    }

    /// Keeps attention inside documents, which begin at `boundaries` (for each row, ascending indexes into its tokens): positions
    /// begin anew, and a document's first token is no target, because what comes before it is another document.
    ///
    /// # Errors
    /// When there is not one list for each row.
    pub fn inside_documents(mut self, boundaries: &[Vec<u32>]) -> Result<Self, TrainError> {
        if boundaries.len() != self.batch {
            return Err(TrainError::Batch { reason: format!("{} rows of boundaries for {} sequences", boundaries.len(), self.batch) });
        }
        for (row, starts) in boundaries.iter().enumerate() {
            // Token i is target i - 1.
            for target in starts.iter().filter_map(|start| start.checked_sub(1)) {
                if let Some(target) =
                    self.targets.get_mut(row * self.sequence..(row + 1) * self.sequence).and_then(|row| row.get_mut(target as usize))
                {
                    *target = self.padding_id;
                }
            }
        }
        self.documents = Some(boundaries.to_vec());
        Ok(self)
    }

    /// Where documents begin in each row, when attention stays inside them.
    pub fn documents(&self) -> Option<&[Vec<u32>]> {
        self.documents.as_deref()
    }

    /// The loader's batch cut into micro-batches of `size` sequences; the last may be smaller. Attention stays inside documents
    /// where the batch says so.
    ///
    /// # Errors
    /// As [`MicroBatch::new`].
    pub fn cut(batch: &Batch, size: usize, vocab_size: usize) -> Result<Vec<Self>, TrainError> {
        let rows = batch.tokens.chunks(size.max(1) * (batch.sequence_length + 1));
        let cut = |(tokens, boundaries): (&[u32], &[Vec<u32>])| {
            let cut = Self::new(tokens, batch.sequence_length, batch.padding_id, vocab_size)?;
            if batch.document_mask { cut.inside_documents(boundaries) } else { Ok(cut) }
        };
        rows.zip(batch.boundaries.chunks(size.max(1))).map(cut).collect()
    }

    /// Held-out sequences in groups of `size`; with `document_mask` attention stays inside documents.
    ///
    /// # Errors
    /// As [`MicroBatch::new`].
    pub fn of_sequences(
        sequences: &[Sequence],
        size: usize,
        padding_id: u32,
        vocab_size: usize,
        document_mask: bool,
    ) -> Result<Vec<Self>, TrainError> {
        let group = |group: &[Sequence]| {
            let tokens: Vec<u32> = group.iter().flat_map(|sequence| &sequence.tokens).copied().collect();
            let length = group.first().map_or(0, |sequence| sequence.tokens.len().saturating_sub(1));
            let batch = Self::new(&tokens, length, padding_id, vocab_size)?;
            let boundaries: Vec<Vec<u32>> = group.iter().map(|sequence| sequence.boundaries.clone()).collect();
            if document_mask { batch.inside_documents(&boundaries) } else { Ok(batch) }
        };
        sequences.chunks(size.max(1)).map(group).collect()
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Positions of each sequence.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// Positions of row `row` before what only fills it up.
    pub(crate) fn row_length(&self, row: usize) -> usize {
        let inputs = self.inputs.get(row * self.sequence..(row + 1) * self.sequence).unwrap_or_default();
        inputs.iter().rposition(|id| *id != NO_TARGET).map_or(0, |last| last + 1)
    }

    /// Targets, padding included.
    pub fn positions(&self) -> usize {
        self.targets.len()
    }

    /// Targets that count.
    pub fn target_count(&self) -> u64 {
        self.targets.iter().filter(|id| **id != self.padding_id).count() as u64
    }

    /// Input ids [batch · sequence]. Padding that lies outside the embedding becomes row 0: it stands at the end of its row, so no
    /// counted position sees it.
    pub fn input_rows(&self, vocab_size: usize) -> Vec<u32> {
        self.inputs.iter().map(|id| if (*id as usize) < vocab_size { *id } else { 0 }).collect()
    }

    /// Target ids [batch · sequence], padding as it is.
    pub fn target_ids(&self) -> &[u32] {
        &self.targets
    }

    /// The id of targets that do not count.
    pub fn padding_id(&self) -> u32 {
        self.padding_id
    }

    /// [`input_rows`](Self::input_rows) as [batch, sequence] on `device`.
    pub fn inputs(&self, vocab_size: usize, device: &Device) -> Tensor<2, Int> {
        let ids: Vec<i32> = self.input_rows(vocab_size).into_iter().map(|id| id as i32).collect();
        Tensor::from_data(TensorData::new(ids, [self.batch, self.sequence]), device)
    }

    /// Targets [batch · sequence], those that do not count as row 0, and their weights: 1 where they count, else 0.
    pub fn targets(&self) -> (Vec<i32>, Vec<f32>) {
        let counted = |id: &u32| *id != self.padding_id;
        let ids = self.targets.iter().map(|id| if counted(id) { *id as i32 } else { 0 }).collect();
        let weights = self.targets.iter().map(|id| f32::from(u8::from(counted(id)))).collect();
        (ids, weights)
    }

    /// 1 for each input [batch · sequence] whose embedding learns, 0 for the padding row, which CoreNet's
    /// `nn.Embedding(padding_idx)` leaves alone; `None` when every row learns.
    pub fn learning_inputs(&self, padding_index: Option<usize>) -> Option<Vec<f32>> {
        let padding = padding_index?;
        let learns = |id: &u32| *id as usize != padding;
        (!self.inputs.iter().all(learns)).then(|| self.inputs.iter().map(|id| f32::from(u8::from(learns(id)))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shifted_and_padding_does_not_count() {
        let batch = MicroBatch::new(&[1, 5, 6, 2, 1, 7, 9, 9], 3, 9, 9).unwrap();
        assert_eq!((batch.batch(), batch.sequence(), batch.target_count()), (2, 3, 4));
        assert_eq!(batch.inputs, [1, 5, 6, 1, 7, 9]);
        assert_eq!(batch.targets(), (vec![5, 6, 2, 7, 0, 0], vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0]));
        assert_eq!(batch.learning_inputs(Some(9)), Some(vec![1.0, 1.0, 1.0, 1.0, 1.0, 0.0]));
        assert_eq!(batch.learning_inputs(Some(8)), None);
    }

    #[test]
    fn rows_with_targets_of_their_own_are_padded() {
        let rows: [(&[u32], &[bool]); 2] = [(&[1, 5, 6, 2], &[true, false, true, true]), (&[1, 7], &[false, true])];
        let batch = MicroBatch::of_targets(rows, 9).unwrap();
        assert_eq!((batch.batch(), batch.sequence(), batch.target_count()), (2, 3, 3));
        assert_eq!(batch.input_rows(9), [1, 5, 6, 1, 0, 0]);
        assert_eq!((batch.row_length(0), batch.row_length(1)), (3, 1));
        assert_eq!(batch.targets(), (vec![0, 6, 2, 7, 0, 0], vec![0.0, 1.0, 1.0, 1.0, 0.0, 0.0]));
        for (tokens, flags) in [(&[1][..], &[true][..]), (&[1, 2], &[true]), (&[1, 9], &[true, true])] {
            assert!(MicroBatch::of_targets([(tokens, flags)], 9).is_err());
        }
        assert!(MicroBatch::of_targets([], 9).is_err());
    }

    #[test]
    fn the_first_token_of_a_document_is_no_target() {
        let batch = MicroBatch::new(&[1, 5, 1, 7, 2, 1, 3, 4, 5, 1], 4, 9, 9).unwrap();
        let batch = batch.inside_documents(&[vec![0, 2], vec![0, 4]]).unwrap();
        assert_eq!(batch.targets().1, [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert!(batch.inside_documents(&[vec![0]]).is_err());
    }

    #[test]
    fn ids_outside_the_vocabulary_are_refused() {
        assert!(MicroBatch::new(&[1, 5, 9], 2, 8, 9).unwrap_err().to_string().contains("token id 9"));
        assert!(MicroBatch::new(&[1, 5, 6, 2], 2, 8, 9).is_err());
        assert!(MicroBatch::new(&[], 2, 8, 9).is_err());
    }
}
