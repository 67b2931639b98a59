//! Merges of real tensors against mergekit's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use openelm_formats::{DType, SafetensorsWriter, TensorInfo, encode_f32};
use openelm_merge::{Recipe, Setting, Source, merge_to_folder};
use reference_values::{Tensors, apart, largest, reference};

/// hf-tiny with the tensors of `file` in place of its own.
fn relative(folder: &Path, reference: &Path, file: &str) -> PathBuf {
    let (tiny, own) = (reference.join("hf-tiny"), Tensors::open(reference.join("merge").join(file)));
    let out = folder.join(file.trim_end_matches(".safetensors"));
    std::fs::create_dir(&out).unwrap();
    for name in ["config.json", "tokenizer.model"] {
        std::fs::copy(tiny.join(name), out.join(name)).unwrap();
    }
    let whole = Tensors::open(tiny.join("model.safetensors"));
    let infos: Vec<TensorInfo> = whole.names().iter().map(|name| TensorInfo::new(name, DType::F32, whole.shape(name))).collect();
    let mut writer = SafetensorsWriter::create(&out.join("model.safetensors"), &infos, &Default::default()).unwrap();
    for info in &infos {
        let values = if own.names().contains(&info.name) { own.f32(&info.name) } else { whole.f32(&info.name) };
        writer.write(&info.name, &encode_f32(&values, DType::F32).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    out
}

fn recipe(method: &str, base: Option<&PathBuf>, models: &[PathBuf], weights: Option<&[f64]>, more: &[(&str, f64)]) -> Recipe {
    let parameters = |number: usize| weights.map(|weights| ("weight".to_owned(), Setting::number(weights[number]))).into_iter().collect();
    let source = |(number, model): (usize, &PathBuf)| Source { model: model.clone(), layer_range: None, parameters: parameters(number) };
    Recipe {
        merge_method: method.into(),
        models: models.iter().enumerate().map(source).collect(),
        slices: Vec::new(),
        base_model: base.cloned(),
        parameters: more.iter().map(|(name, value)| ((*name).to_owned(), Setting::number(*value))).collect(),
        dtype: None,
        out_dtype: None,
        seed: 0,
        tokenizer_source: None,
        path: "test.yaml".into(),
    }
}

#[test]
fn methods_give_mergekits_values() {
    let Some(reference) = reference() else { return };
    let folder = tempfile::tempdir().unwrap();
    let base = relative(folder.path(), &reference, "base.safetensors");
    let models: Vec<PathBuf> = (0..3).map(|number| relative(folder.path(), &reference, &format!("model_{number}.safetensors"))).collect();
    let facts = reference_values::json(&reference.join("merge/merge.json"));
    let weights: Vec<f64> = facts["weights"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap()).collect();
    let density = facts["density"].as_f64().unwrap();
    let expected = Tensors::open(reference.join("merge/merged.safetensors"));
    let names: Vec<String> = Tensors::open(reference.join("merge/base.safetensors")).names();
    let (base, all) = (Some(&base), models.as_slice());
    let rows = [
        ("average", recipe("linear", None, all, None, &[])),
        ("linear", recipe("linear", None, all, Some(&weights), &[])),
        ("task_arithmetic", recipe("task_arithmetic", base, all, Some(&weights), &[])),
        ("ties", recipe("ties", base, all, Some(&weights), &[("density", density)])),
        ("model_stock", recipe("model_stock", base, all, None, &[])),
        ("slerp_0.0", recipe("slerp", Some(&models[0]), &models[1..2], None, &[("t", 0.0)])),
        ("slerp_0.3", recipe("slerp", Some(&models[0]), &models[1..2], None, &[("t", 0.3)])),
        ("slerp_1.0", recipe("slerp", Some(&models[0]), &models[1..2], None, &[("t", 1.0)])),
    ];
    for (row, recipe) in rows {
        let out = folder.path().join(format!("out-{row}"));
        merge_to_folder(&recipe, &out, |_| ()).unwrap();
        let merged = Tensors::open(out.join("model.safetensors"));
        for name in &names {
            let expected = expected.f32(&format!("{row}/{name}"));
            let distance = apart(&merged.f32(name), &expected) / largest(&expected);
            println!("{row} {name}: {distance:e}");
            assert!(distance <= 1e-6, "{row} {name}: {distance:e}");
        }
        openelm_checkpoint::Weights::open(&out).unwrap();
    }
}
