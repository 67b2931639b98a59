//! Initial weights: CoreNet's distributions (general_gpt.py `reset_parameters`), drawn on the host from a counter-based
//! generator, so that a seed gives the same weights on every device and for any number of threads.
//!
//! N(0, fan_in^-1/2) for matrices, N(0, model_dim^-1/2) for the embedding, its padding row too, and
//! N(0, (2 · layers · model_dim)^-1/2) for the two matrices that write to the residual stream. Norms are 1.

use crate::{ModelConfig, ParameterInfo};

/// Initial values of the parameter `info` of `config`, drawn from `seed` and the parameter's name.
pub(crate) fn initial_values(info: &ParameterInfo, config: &ModelConfig, seed: u64) -> Vec<f32> {
    let count = info.count();
    if info.shape.len() == 1 {
        return vec![1.0; count];
    }
    let model_dim = config.model_dim as f64;
    let residual = info.name.ends_with("out_proj.weight") || info.name.ends_with("proj_2.weight");
    let deviation =
        if residual { (2.0 * config.num_transformer_layers as f64 * model_dim).powf(-0.5) } else { (info.shape[1] as f64).powf(-0.5) };
    let stream = mix(
        seed ^ info.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    );
    let mut values = vec![0.0f32; count];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // An even chunk keeps the pairs of Box and Muller together.
    let chunk = count.div_ceil(threads).next_multiple_of(2);
    std::thread::scope(|scope| {
        for (index, part) in values.chunks_mut(chunk).enumerate() {
            scope.spawn(move || fill_normal(part, stream, (index * chunk / 2) as u64, deviation));
        }
    });
    values
}

/// Fills `part` with N(0, deviation); its first pair is pair number `first` of the stream (Box-Muller).
fn fill_normal(part: &mut [f32], stream: u64, first: u64, deviation: f64) {
    for (index, pair) in part.chunks_mut(2).enumerate() {
        let counter = (first + index as u64).wrapping_mul(2);
        let radius = (-2.0 * uniform(stream, counter).ln()).sqrt() * deviation;
        let (sin, cos) = (std::f64::consts::TAU * uniform(stream, counter + 1)).sin_cos();
        for (value, turn) in pair.iter_mut().zip([cos, sin]) {
            *value = (radius * turn) as f32;
        }
    }
}

/// Number `counter` of the stream, uniform in (0, 1).
fn uniform(stream: u64, counter: u64) -> f64 {
    let bits = mix(stream.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    ((bits >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_stated_deviation() {
        let config = crate::preset("OpenELM-5M").unwrap();
        let info = |name: &str, shape: Vec<usize>| ParameterInfo { name: name.into(), shape };
        for (name, shape, deviation) in [
            ("token_embeddings.weight", vec![2000, 256], 1.0 / 16.0),
            ("layers.0.ffn.proj_1.weight", vec![700, 256], 1.0 / 16.0),
            ("layers.0.attn.out_proj.weight", vec![256, 801], (2.0f64 * 8.0 * 256.0).powf(-0.5)),
        ] {
            let values = initial_values(&info(name, shape), &config, 7);
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
            assert!(mean.abs() < 0.01 * deviation, "{name}: mean {mean}");
            assert!((square.sqrt() / deviation - 1.0).abs() < 0.01, "{name}: {}", square.sqrt());
        }
    }
}
