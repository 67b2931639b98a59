//! An adapter as the CPU kernels take it: slices of this process's memory, and DoRA's norms of the moment.

use openelm_kernels::{
    Cpu, Dropout, HostTensor, LowRank, LowRankGradients, Magnitude, Matrix, MatrixGradients, Precision, Weights, linear_backward_input,
    linear_backward_weights, linear_forward, low_rank_norms,
};

use crate::error::TrainError;
use crate::host_model::{host, open};

/// A low-rank addition; sharing, not copying.
pub(crate) struct HostLowRank {
    a: HostTensor,
    b: HostTensor,
    scale: f32,
    dropout: f32,
    /// DoRA's factors and norms of the rows.
    magnitude: Option<(Vec<f32>, Vec<f32>)>,
}

impl HostLowRank {
    /// The addition to `matrix`; `None` to the embedding.
    pub fn of(cpu: &Cpu, low: &openelm_model::LowRank, matrix: Option<&burn::tensor::Tensor<2>>) -> Result<Self, TrainError> {
        let mut found = Self { a: host(&low.a)?, b: host(&low.b)?, scale: low.scale as f32, dropout: low.dropout as f32, magnitude: None };
        if let (Some(magnitude), Some(matrix)) = (&low.magnitude, matrix) {
            let [rows, columns] = matrix.dims();
            let opened = open(matrix)?;
            let norms = low_rank_norms(cpu, Matrix::new(opened.values(), rows, columns)?, &found.low_rank(None))?;
            let magnitude = host(magnitude)?;
            let factors = magnitude.values().iter().zip(&norms).map(|(magnitude, norm)| if *norm > 0.0 { magnitude / norm } else { 0.0 });
            found.magnitude = Some((factors.collect(), norms));
        }
        Ok(found)
    }

    /// As the kernels take it; with a seed, in training.
    pub fn low_rank(&self, seed: Option<u64>) -> LowRank<'_> {
        LowRank {
            a: self.a.values(),
            b: self.b.values(),
            scale: self.scale,
            dropout: seed.filter(|_| self.dropout > 0.0).map(|seed| Dropout { probability: self.dropout, seed }),
            magnitude: self.magnitude.as_ref().map(|(factors, norms)| Magnitude { factors, norms }),
        }
    }

    /// Where its gradients go: its parameters' buffers, taken from `buffers`.
    pub fn gradients<'a>(&self, buffers: &mut impl Iterator<Item = &'a mut [f32]>) -> Option<MatrixGradients<'a>> {
        let (a, b) = (buffers.next()?, buffers.next()?);
        let magnitude = if self.magnitude.is_some() { Some(buffers.next()?) } else { None };
        Some(MatrixGradients { whole: None, low_rank: Some(LowRankGradients { a, b, magnitude }) })
    }

    fn rank(&self, width: usize) -> usize {
        self.b.values().len() / width.max(1)
    }

    /// scale · the columns `ids` of A: [tokens, rank].
    fn columns(&self, ids: &[u32], rank: usize) -> Vec<f32> {
        let a = self.a.values();
        let vocabulary = a.len() / rank.max(1);
        let value = |id: u32, row: usize| a.get(row * vocabulary + id as usize).map_or(0.0, |value| self.scale * value);
        ids.iter().flat_map(|id| (0..rank).map(move |row| (*id, row))).map(|(id, row)| value(id, row)).collect()
    }

    /// Adds what the look-up of `ids` adds to `hidden` [tokens, width].
    pub fn add_look_up(&self, cpu: &Cpu, ids: &[u32], width: usize, hidden: &mut [f32]) -> Result<(), TrainError> {
        let rank = self.rank(width);
        let inner = self.columns(ids, rank);
        let (x, b) = (Matrix::f32(&inner, ids.len(), rank)?, Matrix::f32(self.b.values(), width, rank)?);
        let base = hidden.to_vec();
        Ok(linear_forward(cpu, Precision::F32, x, Weights::Plain(b), Some(&base), hidden)?)
    }

    /// From the gradient by the looked-up states [tokens, width] to that of A and B. The padding row of A learns nothing.
    #[allow(clippy::too_many_arguments)]
    pub fn look_up_backward(
        &self,
        cpu: &Cpu,
        d_hidden: &[f32],
        width: usize,
        ids: &[u32],
        padding: Option<u32>,
        accumulate: bool,
        gradients: &mut [Vec<f32>],
    ) -> Result<(), TrainError> {
        let [d_a, d_b] = gradients else {
            return Err(TrainError::Batch { reason: "the adapter of the embedding has other parameters than A and B".into() });
        };
        let rank = self.rank(width);
        let inner = self.columns(ids, rank);
        let (dy, x) = (Matrix::f32(d_hidden, ids.len(), width)?, Matrix::f32(&inner, ids.len(), rank)?);
        linear_backward_weights(cpu, Precision::F32, dy, x, accumulate, d_b)?;
        let mut back = vec![0.0; ids.len() * rank];
        let b = Matrix::f32(self.b.values(), width, rank)?;
        linear_backward_input(cpu, Precision::F32, dy, Weights::Plain(b), &mut back)?;
        if !accumulate {
            d_a.fill(0.0);
        }
        let vocabulary = d_a.len() / rank.max(1);
        for (id, values) in ids.iter().zip(back.chunks_exact(rank.max(1))).filter(|(id, _)| Some(**id) != padding) {
            for (row, value) in values.iter().enumerate() {
                if let Some(to) = d_a.get_mut(row * vocabulary + *id as usize) {
                    *to += self.scale * value;
                }
            }
        }
        Ok(())
    }
}
