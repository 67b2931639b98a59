//! The model against CoreNet's values, on the device that OPENELM_TEST_DEVICE names (default flex).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use burn::tensor::{Int, Tensor, TensorData};
use openelm_model::{ModelConfig, ModelError, OpenElm, Precision, open_device, preset};
use reference_values::{Tensors, apart, json, reference};
use serde_json::Value;

fn list(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

#[test]
fn every_size_has_corenets_layers_and_parameters() {
    let Some(folder) = reference() else { return };
    let sizes = json(&folder.join("layerwise.json"));
    assert!(sizes.as_object().unwrap().len() >= 9);
    for (name, expected) in sizes.as_object().unwrap() {
        let mut config = preset(name).unwrap();
        let layers = config.layers().unwrap();
        let column = |of: fn(&openelm_model::LayerShape) -> usize| layers.iter().map(of).collect::<Vec<_>>();
        assert_eq!(column(|layer| layer.num_query_heads), list(&expected["num_query_heads"]), "{name}");
        assert_eq!(column(|layer| layer.num_kv_heads), list(&expected["num_kv_heads"]), "{name}");
        assert_eq!(column(|layer| layer.ffn_dim), list(&expected["ffn_dims"]), "{name}");
        for (vocabulary, parameters) in expected["parameters"].as_object().unwrap() {
            config.vocab_size = vocabulary.parse().unwrap();
            let count: usize = OpenElm::infos_of(&config).unwrap().iter().map(|info| info.count()).sum();
            assert_eq!(count as u64, parameters.as_u64().unwrap(), "{name} with {vocabulary} rows");
        }
    }
}

fn tiny() -> ModelConfig {
    ModelConfig { vocab_size: 2176, max_context_length: 128, padding_index: Some(2048), ..preset("OpenELM-tiny").unwrap() }
}

#[test]
fn logits_are_corenets() {
    let Some(folder) = reference() else { return };
    let device = open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap();
    for state in ["init", "final"] {
        let weights = Tensors::open(folder.join(format!("corenet-run/{state}.safetensors")));
        let expected = Tensors::open(folder.join(format!("forward_{state}.safetensors")));
        let model = OpenElm::build(&tiny(), &device, |info| Ok::<_, ModelError>(weights.f32(&info.name))).unwrap();
        let shape = expected.shape("samples");
        let ids = TensorData::new(expected.i32("samples"), [shape[0], shape[1]]);
        let logits = model.forward(Tensor::<2, Int>::from_data(ids, &device), Precision::F32).unwrap();
        let logits = logits.try_into_vec_as::<f32>().unwrap();
        let difference = apart(&logits, &expected.f32("logits"));
        println!("{state}: largest difference of a logit {difference:e}");
        assert!(difference < 1e-4, "{state}: {difference}");
    }
}
