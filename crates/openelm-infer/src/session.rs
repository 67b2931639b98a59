//! One sequence that is being read and continued.

use burn::tensor::{Int, Tensor, TensorData};
use openelm_model::{CausalMask, OpenElm, Precision, Projected};

use crate::cache::KvCache;
use crate::error::InferError;

/// A model with the cache of one sequence.
#[derive(Debug)]
pub struct Session<'a> {
    model: &'a OpenElm,
    cache: KvCache,
    precision: Precision,
}

impl<'a> Session<'a> {
    /// An empty sequence with room for `capacity` positions, at most the rotary table's.
    pub fn new(model: &'a OpenElm, capacity: usize, precision: Precision) -> Self {
        let capacity = capacity.min(model.config().rope_max_length);
        Self { model, cache: KvCache::new(model, capacity), precision }
    }

    /// Positions read so far.
    pub fn length(&self) -> usize {
        self.cache.length()
    }

    /// Forgets all positions from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.cache.truncate(length);
    }

    /// Reads `ids` and gives the logits `[vocabulary]` behind the last of them.
    ///
    /// # Errors
    /// When there is no id or no room, an id is unknown, or the device fails.
    pub fn read(&mut self, ids: &[u32]) -> Result<Vec<f32>, InferError> {
        let hidden = self.hidden(ids)?;
        let last = hidden.narrow(1, ids.len() - 1, 1);
        let logits = self.model.logits(last, self.precision).try_into_vec_as::<f32>();
        let logits = logits.map_err(|error| openelm_model::ModelError::Read { name: "the logits".into(), reason: format!("{error:?}") })?;
        match logits.iter().find(|logit| !logit.is_finite()) {
            Some(value) => Err(InferError::NotFinite { value: *value, position: self.length() - 1 }),
            None => Ok(logits),
        }
    }

    /// The last block's output for `ids`: [1, ids, model_dim].
    fn hidden(&mut self, ids: &[u32]) -> Result<Tensor<3>, InferError> {
        let config = self.model.config();
        if ids.is_empty() {
            return Err(InferError::EmptyPrompt);
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab_size) {
            return Err(InferError::UnknownToken { id: *id, vocabulary: config.vocab_size });
        }
        let (start, new) = (self.cache.length(), ids.len());
        if start + new > self.cache.capacity() {
            return Err(InferError::PromptTooLong { prompt: start + new, context: self.cache.capacity() });
        }
        let device = self.model.device();
        let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(values, [1, new]), device);
        let rotation = self.model.rotation(start, new)?;
        // A single query sees every key.
        let mask = (new > 1).then(|| CausalMask::new(config.num_gqa_groups, start, new, device));
        let mut x = self.model.embed(ids);
        for (layer, block) in self.model.blocks.iter().enumerate() {
            let Projected { queries, keys, values } = block.project(x.clone(), &rotation, self.precision);
            let (keys, values) = self.cache.append(layer, keys, values);
            let attended = block.attend(queries, keys, values, mask.as_ref(), self.precision);
            x = block.finish(x, attended, self.precision);
        }
        self.cache.advance(new);
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use openelm_model::preset;

    use super::*;

    #[test]
    fn logits_are_those_without_a_cache() {
        let mut config = preset("OpenELM-tiny").unwrap();
        config.vocab_size = 50;
        let device = Device::flex();
        let model = OpenElm::init(&config, 4, &device).unwrap();
        let ids: Vec<u32> = (0..23).map(|i| (i * 7 + 3) % 50).collect();
        let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let all = Tensor::<2, Int>::from_data(TensorData::new(values, [1, ids.len()]), &device);
        let whole: Vec<f32> = model.forward(all, Precision::F32).unwrap().into_data().try_to_vec().unwrap();
        let mut session = Session::new(&model, 64, Precision::F32);
        let mut read = 0;
        for part in [5, 1, 1, 9, 1, 6] {
            let logits = session.read(&ids[read..read + part]).unwrap();
            read += part;
            let expected = &whole[(read - 1) * 50..read * 50];
            let apart = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-5, "after {read} tokens: {apart}");
        }
        // A cache that was cut goes on as if it had never been longer.
        session.truncate(5);
        let logits = session.read(&ids[5..7]).unwrap();
        let apart = logits.iter().zip(&whole[6 * 50..7 * 50]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 2e-5, "{apart}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut config = preset("gpt-test").unwrap();
        config.vocab_size = 9;
        let model = OpenElm::init(&config, 4, &Device::flex()).unwrap();
        let mut session = Session::new(&model, 4, Precision::F32);
        assert!(matches!(session.read(&[]), Err(InferError::EmptyPrompt)));
        assert!(matches!(session.read(&[9]), Err(InferError::UnknownToken { id: 9, .. })));
        assert!(matches!(session.read(&[1; 5]), Err(InferError::PromptTooLong { .. })));
        session.read(&[1; 4]).unwrap();
        assert!(session.read(&[1]).is_err());
    }
}
