//! Greedy text with a cache against CoreNet's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use burn::tensor::Device;
use openelm_checkpoint::Weights;
use openelm_infer::{BurnDecoder, Decoder, HostDecoder, HostOptions, Limits, Sampler, SamplingSettings, generate};
use openelm_model::Precision;
use reference_values::{json, reference};

#[test]
fn greedy_ids_are_corenets() {
    let Some(folder) = reference() else { return };
    let expected = json(&folder.join("greedy.json"));
    let ids = |key: &str| expected[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect::<Vec<_>>();
    let (prompt, whole) = (ids("prompt"), ids("greedy"));
    for path in ["corenet-run/checkpoint_last.pt", "corenet-run/training_checkpoint_last.pt"] {
        let weights = Weights::open(&folder.join(path)).unwrap();
        let burn = BurnDecoder::new(weights.model(&Device::flex()).unwrap(), Precision::F32);
        let host = HostDecoder::open(&weights, HostOptions::default()).unwrap();
        let mut sampler = Sampler::new(SamplingSettings::default()).unwrap();
        let limits = Limits { max_new_tokens: whole.len() - prompt.len(), stop: Vec::new() };
        for decoder in [&burn as &dyn Decoder, &host] {
            let made = generate(decoder, &prompt, &mut sampler, &limits, None, |_| true).unwrap();
            assert_eq!(made.ids, whole[prompt.len()..], "{path}");
        }
    }
}
