//! [`Decoder`] through this project's own CPU kernels, on weights as the file stores them.

use burn::tensor::{Device, Tensor};
use openelm_checkpoint::Weights;
use openelm_formats::{DType, encode_f32};
use openelm_kernels::{Cpu, HostTensor, IdLogits, KvRun, KvStore, KvType, look_up_tokens, read_tokens};
use openelm_model::{ModelConfig, ParameterInfo};

use crate::decoder::{Cache, CacheKind, Decoder, Run, check_logits, check_runs};
use crate::error::InferError;
use crate::host_weights::HostWeights;

/// How weights and caches are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// Type of the matrices; what the file has when `None`.
    pub convert: Option<DType>,
    /// Type of keys and values.
    pub kv: KvType,
    /// Copy the matrices into memory, in huge pages, instead of reading them in the mapped file: quicker, for as much memory again.
    pub in_memory: bool,
}

/// A model on the CPU.
pub struct HostDecoder {
    weights: HostWeights,
    /// What every cache begins as.
    empty: KvStore,
    cpu: Cpu,
}

impl HostDecoder {
    /// Whether models on this device are for this engine: their memory is this process's, and OPENELM_KERNELS is not "off".
    pub fn serves(device: &Device) -> bool {
        let off = std::env::var("OPENELM_KERNELS").is_ok_and(|value| value == "off");
        !off && HostTensor::of(&Tensor::<1>::zeros([1], device)).is_some()
    }

    /// Maps `weights`. Instruction set and threads are the best there are, or what OPENELM_ISA and OPENELM_THREADS say.
    ///
    /// # Errors
    /// When the weights cannot be read, the environment asks for what is not there, or keys do not fit the type of the cache.
    pub fn open(weights: &Weights, options: HostOptions) -> Result<Self, InferError> {
        Self::with_cpu(weights, options, Cpu::from_env()?)
    }

    /// With a given processor.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_cpu(weights: &Weights, options: HostOptions, cpu: Cpu) -> Result<Self, InferError> {
        Self::with_weights(HostWeights::load(weights, options.convert, options.in_memory)?, options.kv, cpu)
    }

    /// A model of values in memory, which `values` gives parameter by parameter, in their order.
    ///
    /// # Errors
    /// As [`open`](Self::open), and what `values` says.
    pub fn build<E: From<InferError>>(
        config: &ModelConfig,
        mut values: impl FnMut(&ParameterInfo) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let weights = HostWeights::build(config, |info| {
            let bytes = encode_f32(&values(info)?, DType::F32).map_err(|error| InferError::Weights(error.into()))?;
            Ok::<_, E>(vec![(DType::F32, info.shape.first().copied().unwrap_or(0), bytes.into())])
        })?;
        let cpu = Cpu::from_env().map_err(InferError::from)?;
        Ok(Self::with_weights(weights, KvType::F32, cpu)?)
    }

    fn with_weights(weights: HostWeights, kv: KvType, cpu: Cpu) -> Result<Self, InferError> {
        let empty = KvStore::new(kv, weights.heads(), 0)?;
        Ok(Self { weights, empty, cpu })
    }
}

impl Decoder for HostDecoder {
    fn config(&self) -> &ModelConfig {
        &self.weights.config
    }

    fn cache(&self, capacity: usize) -> Cache {
        Cache(CacheKind::Host(self.empty.sized(capacity.min(self.weights.config.rope_max_length))))
    }

    fn bytes_per_token(&self) -> usize {
        self.weights.model().map_or(0, |model| model.bytes_per_token())
    }

    fn read(&self, runs: &mut [Run<'_>]) -> Result<Vec<Vec<f32>>, InferError> {
        let config = &self.weights.config;
        check_runs(config, runs)?;
        let model = self.weights.model()?;
        let vocabulary = config.vocab_size;
        let mut stores = stores_of(runs)?;
        let counts: Vec<usize> = stores.iter().map(|store| store.answers).collect();
        let mut logits = vec![0.0; counts.iter().sum::<usize>() * vocabulary];
        read_tokens(&self.cpu, &model, &mut stores, &mut logits)?;
        if let [run] = &*runs {
            check_logits(&logits, run.cache.length().saturating_sub(1))?;
            return Ok(vec![logits]);
        }
        let mut all = Vec::with_capacity(runs.len());
        let mut rest = logits.as_slice();
        for (run, count) in runs.iter().zip(counts) {
            let (own, others) = rest.split_at(count * vocabulary);
            rest = others;
            check_logits(own, run.cache.length().saturating_sub(1))?;
            all.push(own.to_vec());
        }
        Ok(all)
    }

    fn look_up(&self, runs: &mut [Run<'_>], ids: &[&[u32]]) -> Result<Vec<IdLogits>, InferError> {
        check_runs(&self.weights.config, runs)?;
        let found = look_up_tokens(&self.cpu, &self.weights.model()?, &mut stores_of(runs)?, ids)?;
        match found.iter().find(|found| !found.log_sum.is_finite()) {
            Some(found) => {
                Err(InferError::NotFinite { value: found.log_sum as f32, position: runs.first().map_or(0, |run| run.cache.length()) })
            }
            None => Ok(found),
        }
    }
}

/// The runs with their stores.
fn stores_of<'a>(runs: &'a mut [Run<'_>]) -> Result<Vec<KvRun<'a>>, InferError> {
    let store = |run: &'a mut Run<'_>| {
        let answers = run.logits.count(run.ids.len());
        let CacheKind::Host(store) = &mut run.cache.0 else { return Err(InferError::ForeignCache) };
        Ok(KvRun { ids: run.ids, store, answers })
    };
    runs.iter_mut().map(store).collect()
}

impl std::fmt::Debug for HostDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostDecoder").field("kv", &self.empty.kind()).field("cpu", &self.cpu).finish_non_exhaustive()
    }
}
