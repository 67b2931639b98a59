//! An adapter onto a model: a new one as PEFT begins it, or a saved one.
//!
//! What must stay true: a new adapter changes nothing of what the model computes; equal seeds give equal adapters.

use std::collections::BTreeMap;
use std::path::Path;

use openelm_train::SplitMix64;
use openelm_train::openelm_checkpoint::{AdapterTensors, EMBEDDING_MODULE, OpenElm, ParameterInfo, adapter_folder, adapter_infos};

use super::config::AdapterConfig;
use super::error::AdapterError;
use super::modules::modules;

/// Puts a new adapter onto `model`: A uniform in ± 1/√in and B zero, for the embedding A zero and B normal, DoRA's magnitudes the
/// norms of the matrix's rows. `place` is what errors call the configuration.
///
/// # Errors
/// When the configuration does not fit the model, or the device fails.
pub fn attach_new(place: &str, config: &AdapterConfig, seed: u64, model: &mut OpenElm) -> Result<(), AdapterError> {
    let modules = modules(place, config, model.config())?;
    let wanted: Vec<String> = modules.iter().filter(|module| module.magnitude).map(|module| format!("{}.weight", module.name)).collect();
    let mut norms = BTreeMap::new();
    if !wanted.is_empty() {
        let infos = model.infos().to_vec();
        for (info, parameter) in infos.iter().zip(model.parameters_mut()) {
            if wanted.contains(&info.name) {
                let columns = info.shape.get(1).copied().unwrap_or(1).max(1);
                let rows = parameter.read(info)?;
                let norm = |row: &[f32]| row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32;
                norms.insert(info.name.clone(), rows.chunks(columns).map(norm).collect::<Vec<f32>>());
            }
        }
    }
    model.attach(&modules, seed, |info| Ok(initial_values(info, seed, &norms)))
}

/// Puts the adapter at `path` onto `model`: a folder of PEFT's, a checkpoint, or a run that trains an adapter. What dropout drops is
/// drawn from `seed`.
///
/// # Errors
/// When there is no adapter, or it is for another model.
pub fn attach_saved(path: &Path, seed: u64, model: &mut OpenElm) -> Result<AdapterConfig, AdapterError> {
    let config = AdapterConfig::load(path)?;
    let modules = modules(&path.display().to_string(), &config, model.config())?;
    let folder = adapter_folder(path)?.unwrap_or_else(|| path.to_owned());
    let tensors = AdapterTensors::open(&folder, &adapter_infos(model.config(), &modules)?)?;
    model.attach(&modules, seed, |info| tensors.values(info))?;
    Ok(config)
}

fn initial_values(info: &ParameterInfo, seed: u64, norms: &BTreeMap<String, Vec<f32>>) -> Vec<f32> {
    let count = info.count();
    let mut draws = Draws::new(seed, &info.name);
    let (module, tail) = info.name.split_once(".lora_").unwrap_or((&info.name, ""));
    match tail {
        "A.weight" => {
            // Kaiming's with a = √5: the bound is 1/√in.
            let bound = (info.shape.get(1).copied().unwrap_or(1).max(1) as f64).powf(-0.5);
            (0..count).map(|_| ((2.0 * draws.uniform() - 1.0) * bound) as f32).collect()
        }
        "embedding_B" => (0..count).map(|_| draws.normal() as f32).collect(),
        "magnitude_vector" => norms.get(&format!("{module}.weight")).cloned().unwrap_or_default(),
        _ => {
            debug_assert!(tail == "B.weight" || module == EMBEDDING_MODULE);
            vec![0.0; count]
        }
    }
}

/// Random numbers, so seeded that a parameter's values depend on the seed and its name alone.
struct Draws {
    bits: SplitMix64,
    second: Option<f64>,
}

impl Draws {
    fn new(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self { bits: SplitMix64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash), second: None }
    }

    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.bits.next_bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// N(0, 1), by Box and Muller.
    fn normal(&mut self) -> f64 {
        if let Some(second) = self.second.take() {
            return second;
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.second = Some(radius * sin);
        radius * cos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_pefts() {
        let none = BTreeMap::new();
        let values = |name: &str, shape: &[usize], seed: u64| {
            initial_values(&ParameterInfo { name: name.into(), shape: shape.to_vec() }, seed, &none)
        };
        let a = values("layers.0.attn.qkv_proj.lora_A.weight", &[32, 400], 1);
        assert!(a.iter().all(|v| v.abs() < 0.05) && a.iter().any(|v| v.abs() > 0.0499));
        let variance = a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / a.len() as f64;
        assert!((variance / (0.05f64.powi(2) / 3.0) - 1.0).abs() < 0.03, "{variance}");
        assert!(values("layers.0.attn.qkv_proj.lora_B.weight", &[400, 32], 1).iter().all(|v| *v == 0.0));
        assert!(values("token_embeddings.lora_embedding_A", &[32, 100], 1).iter().all(|v| *v == 0.0));
        let b = values("token_embeddings.lora_embedding_B", &[100, 32], 1);
        let variance = b.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / b.len() as f64;
        assert!((variance - 1.0).abs() < 0.08, "{variance}");
        assert_eq!(a, values("layers.0.attn.qkv_proj.lora_A.weight", &[32, 400], 1));
        assert_ne!(a, values("layers.0.attn.qkv_proj.lora_A.weight", &[32, 400], 2));
        assert_ne!(a, values("layers.1.attn.qkv_proj.lora_A.weight", &[32, 400], 1));
    }
}
