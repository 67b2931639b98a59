//! The causal mask of grouped-query attention.

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// True where a query must not look. Shaped [1, 1, groups · queries, keys], because the queries of one key/value head
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
