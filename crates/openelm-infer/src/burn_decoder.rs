//! [`Decoder`] through burn's operations, on any device, one sequence after the other.

use burn::tensor::{Int, Tensor, TensorData};
use openelm_model::{CausalMask, ModelConfig, ModelError, OpenElm, Precision, Projected};

use crate::cache::KvCache;
use crate::decoder::{Cache, CacheKind, Decoder, Run, check_logits, check_runs};
use crate::error::InferError;

/// A model on a burn device.
#[derive(Debug)]
pub struct BurnDecoder {
    model: OpenElm,
    precision: Precision,
}

impl BurnDecoder {
    pub fn new(model: OpenElm, precision: Precision) -> Self {
        Self { model, precision }
    }

    /// The last block's output for `ids`: [1, ids, model_dim].
    fn hidden(&self, ids: &[u32], cache: &mut KvCache) -> Result<Tensor<3>, InferError> {
        let (start, new) = (cache.length(), ids.len());
        let device = self.model.device();
        let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(values, [1, new]), device);
        let rotation = self.model.rotation(start, new)?;
        // A single query sees every key.
        let mask = (new > 1).then(|| CausalMask::new(self.model.config().num_gqa_groups, start, new, device));
        let mut x = self.model.embed(ids);
        for (layer, block) in self.model.blocks.iter().enumerate() {
            let Projected { queries, keys, values } = block.project(x.clone(), &rotation, self.precision);
            let (keys, values) = cache.append(layer, keys, values);
            let attended = block.attend(queries, keys, values, mask.as_ref(), self.precision);
            x = block.finish(x, attended, self.precision);
        }
        cache.advance(new);
        Ok(x)
    }
}

impl Decoder for BurnDecoder {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn cache(&self, capacity: usize) -> Cache {
        Cache(CacheKind::Tensors(KvCache::new(&self.model, capacity.min(self.model.config().rope_max_length))))
    }

    fn read(&self, runs: &mut [Run<'_>]) -> Result<Vec<Vec<f32>>, InferError> {
        check_runs(self.model.config(), runs)?;
        let mut all = Vec::with_capacity(runs.len());
        for run in runs {
            let CacheKind::Tensors(cache) = &mut run.cache.0 else { return Err(InferError::ForeignCache) };
            let hidden = self.hidden(run.ids, cache)?;
            let count = run.logits.count(run.ids.len());
            if count == 0 {
                all.push(Vec::new());
                continue;
            }
            let wanted = hidden.narrow(1, run.ids.len() - count, count);
            let logits = self.model.logits(wanted, self.precision).try_into_vec_as::<f32>();
            let logits = logits.map_err(|error| ModelError::Read { name: "the logits".into(), reason: format!("{error:?}") })?;
            check_logits(&logits, cache.length() - 1)?;
            all.push(logits);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use openelm_model::preset;

    use super::*;
    use crate::decoder::Wanted;

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
        let decoder = BurnDecoder::new(model, Precision::F32);
        let mut cache = decoder.cache(64);
        let mut read = 0;
        for part in [5, 1, 1, 9, 1, 6] {
            let logits = read_last(&decoder, &mut cache, &ids[read..read + part]);
            read += part;
            let expected = &whole[(read - 1) * 50..read * 50];
            let apart = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-5, "after {read} tokens: {apart}");
        }
        // A cache that was cut goes on as if it had never been longer.
        cache.truncate(5);
        let logits = read_last(&decoder, &mut cache, &ids[5..7]);
        let apart = logits.iter().zip(&whole[6 * 50..7 * 50]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 2e-5, "{apart}");
    }

    fn read_last(decoder: &BurnDecoder, cache: &mut Cache, ids: &[u32]) -> Vec<f32> {
        decoder.read(&mut [Run { ids, cache, logits: Wanted::Last }]).unwrap().remove(0)
    }
}
