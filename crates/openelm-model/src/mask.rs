//! The causal mask of grouped-query attention, over a whole sequence or inside each of its documents.

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// True where a query must not look. Shaped [1 or batch, 1, groups · queries, keys], because the queries of one key/value head
/// stand one group after the other in a single matrix.
#[derive(Clone, Debug)]
pub struct CausalMask(pub(crate) Tensor<4, Bool>);

impl CausalMask {
    /// For `queries` positions that begin at `start`, over keys 0 to `start + queries` - 1.
    pub fn new(groups: usize, start: usize, queries: usize, device: &Device) -> Self {
        let keys = start + queries;
        let mut hidden = Vec::with_capacity(groups * queries * keys);
        for _ in 0..groups {
            for query in 0..queries {
                hidden.extend((0..keys).map(|key| key > start + query));
            }
        }
        let device = device.clone().without_autodiff();
        Self(Tensor::from_data(TensorData::new(hidden, [1, 1, groups * queries, keys]), &device))
    }

    /// For whole sequences of `length` positions in which a query sees only its own document: `starts` has, for each row of the
    /// batch, the ascending positions at which documents begin.
    pub fn of_documents(groups: usize, starts: &[Vec<u32>], length: usize, device: &Device) -> Self {
        let mut hidden = Vec::with_capacity(starts.len() * groups * length * length);
        for row in starts {
            let mut own = Vec::with_capacity(length * length);
            for (query, offset) in document_positions(row, length).into_iter().enumerate() {
                let start = query - offset;
                own.extend((0..length).map(|key| key < start || key > query));
            }
            for _ in 0..groups {
                hidden.extend_from_slice(&own);
            }
        }
        let device = device.clone().without_autodiff();
        Self(Tensor::from_data(TensorData::new(hidden, [starts.len(), 1, groups * length, length]), &device))
    }

    /// For rows of different lengths behind a start that all of them share: of the keys from `shared` on, row r's first
    /// `pads[r]` are filling and hidden. Queries begin at `start`. Shaped [rows, 1, groups · queries, keys].
    pub fn padded(groups: usize, shared: usize, pads: &[usize], start: usize, queries: usize, device: &Device) -> Self {
        let keys = start + queries;
        let mut hidden = Vec::with_capacity(pads.len() * groups * queries * keys);
        for pad in pads {
            let filling = shared..shared + pad;
            for _ in 0..groups {
                for query in 0..queries {
                    hidden.extend((0..keys).map(|key| key > start + query || filling.contains(&key)));
                }
            }
        }
        let device = device.clone().without_autodiff();
        Self(Tensor::from_data(TensorData::new(hidden, [pads.len(), 1, groups * queries, keys]), &device))
    }

    /// The same mask, to be used with tracked tensors.
    pub fn autodiff(self) -> Self {
        Self(self.0.autodiff())
    }
}

/// How far each of `length` positions lies behind the start of its document.
pub(crate) fn document_positions(starts: &[u32], length: usize) -> Vec<usize> {
    let mut starts = starts.iter().map(|start| *start as usize).peekable();
    let mut begin = 0;
    let mut offset = |position: usize| {
        while let Some(start) = starts.next_if(|start| *start <= position) {
            begin = start;
        }
        position - begin
    };
    (0..length).map(&mut offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_begin_anew_in_each_document() {
        assert_eq!(document_positions(&[2, 3], 6), [0, 1, 0, 0, 1, 2]);
        assert_eq!(document_positions(&[0, 4, 9], 5), [0, 1, 2, 3, 0]);
        assert_eq!(document_positions(&[], 3), [0, 1, 2]);
    }
}
