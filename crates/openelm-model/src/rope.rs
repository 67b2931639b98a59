//! Rotary position embedding, half-split: channel i turns together with channel i + head_dim/2 (CoreNet
//! `layers/positional_embedding` RotaryEmbedding). burn's own rotary embedding pairs neighbours and gives other numbers.
//!
//! What must stay true: angles are computed in f32 as CoreNet does (position · 1/constant^(2i/head_dim)), so that far
//! positions agree as well.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{ModelConfig, ModelError, mask::document_positions};

/// Cosines and sines of every position up to the table's length.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    cos: Tensor<2>, // [positions, head_dim / 2]
    sin: Tensor<2>, // [positions, head_dim / 2]
}

/// The table's rows for one run of positions, or for each row of a batch, shaped to broadcast over [batch, sequence, heads, head_dim / 2].
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

/// Cosines and sines of the positions 0 to `positions` - 1, [positions, head_dim / 2] each.
pub fn rotary_values(config: &ModelConfig, positions: usize) -> (Vec<f32>, Vec<f32>) {
    let half = config.head_dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| {
            let exponent = (2 * i) as f32 / config.head_dim as f32;
            1.0 / (config.rope_freq_constant as f32).powf(exponent)
        })
        .collect();
    let mut cos = Vec::with_capacity(positions * half);
    let mut sin = Vec::with_capacity(positions * half);
    for position in 0..positions {
        for frequency in &frequencies {
            // The product is rounded to f32 first: at position 2 000 that rounding is what CoreNet's angles carry.
            let angle = f64::from(position as f32 * frequency);
            cos.push(angle.cos() as f32);
            sin.push(angle.sin() as f32);
        }
    }
    (cos, sin)
}

impl RotaryTable {
    /// Positions 0 to `positions` - 1 for the head dimension and constant of `config`.
    pub fn new(config: &ModelConfig, positions: usize, device: &Device) -> Self {
        let half = config.head_dim / 2;
        let (cos, sin) = rotary_values(config, positions);
        let device = device.clone().without_autodiff();
        Self {
            cos: Tensor::from_data(TensorData::new(cos, [positions, half]), &device),
            sin: Tensor::from_data(TensorData::new(sin, [positions, half]), &device),
        }
    }

    /// Cosines and sines, [positions, head_dim / 2] each.
    pub fn tables(&self) -> (&Tensor<2>, &Tensor<2>) {
        (&self.cos, &self.sin)
    }

    /// Rows for positions `start` to `start + length` - 1.
    ///
    /// # Errors
    /// When the table is shorter than that.
    pub fn rotation(&self, start: usize, length: usize) -> Result<Rotation, ModelError> {
        let [limit, half] = self.cos.dims();
        if start + length > limit {
            return Err(ModelError::TooLong { start, length, limit });
        }
        let rows = |table: &Tensor<2>| table.clone().narrow(0, start, length).reshape([1, length, 1, half]);
        Ok(Rotation { cos: rows(&self.cos), sin: rows(&self.sin) })
    }

    /// Rows for sequences of `length` positions that begin anew with each document: `starts` has, for each row of the batch, the
    /// ascending positions at which documents begin.
    ///
    /// # Errors
    /// When the table is shorter than a document.
    pub fn of_documents(&self, starts: &[Vec<u32>], length: usize) -> Result<Rotation, ModelError> {
        let positions: Vec<usize> = starts.iter().flat_map(|row| document_positions(row, length)).collect();
        self.rotation_at(&positions, starts.len())
    }

    /// Rows for positions of each row's own: `positions` is [rows, length], row by row.
    ///
    /// # Errors
    /// When the table is shorter than a position.
    pub fn rotation_at(&self, positions: &[usize], rows: usize) -> Result<Rotation, ModelError> {
        let [limit, half] = self.cos.dims();
        if let Some(start) = positions.iter().find(|position| **position >= limit) {
            return Err(ModelError::TooLong { start: *start, length: 1, limit });
        }
        let length = positions.len() / rows.max(1);
        let values: Vec<i32> = positions.iter().map(|position| *position as i32).collect();
        let places = Tensor::<1, Int>::from_data(TensorData::new(values, [positions.len()]), &self.cos.device());
        let of_place = |table: &Tensor<2>| table.clone().select(0, places.clone()).reshape([rows, length, 1, half]);
        Ok(Rotation { cos: of_place(&self.cos), sin: of_place(&self.sin) })
    }
}

impl Rotation {
    /// The same rows, to be used with tracked tensors.
    pub fn autodiff(self) -> Self {
        Self { cos: self.cos.autodiff(), sin: self.sin.autodiff() }
    }

    /// Turns `x` [batch, sequence, heads, head_dim] by its positions.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, _, head_dim] = x.dims();
        let half = head_dim / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        Tensor::cat(
            vec![
                first.clone() * self.cos.clone() - second.clone() * self.sin.clone(),
                second * self.cos.clone() + first * self.sin.clone(),
            ],
            3,
        )
    }
}
