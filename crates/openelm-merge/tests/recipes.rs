//! Recipes carried out on small models: what is written, what is refused, averages, and a whole search.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor};
use openelm_checkpoint::{CheckpointError, Manifest, RunFolder, Weights, hf_name, to_hf_config};
use openelm_formats::{DType, SafetensorsWriter, TensorInfo, encode_f32};
use openelm_merge::{Recipe, SearchFile, average_recipe, evolve, merge_to_folder};
use openelm_model::{CausalMask, ModelConfig, Multipliers, OpenElm, ParameterInfo, Precision, preset};
use openelm_tokenizer::{BpeTraining, Tokenizer};

fn config(layers: usize) -> ModelConfig {
    let mut config = preset("OpenELM-tiny").unwrap();
    (config.num_transformer_layers, config.vocab_size) = (layers, 300);
    config
}

/// A Hugging Face folder whose values `change` may touch.
fn write_model(folder: &Path, config: &ModelConfig, seed: u64, change: impl Fn(&ParameterInfo, &mut Vec<f32>)) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), to_hf_config(config, "float32", None, None).unwrap().to_string()).unwrap();
    let mut model = OpenElm::init(config, seed, &Device::flex()).unwrap();
    let infos = model.infos().iter().map(|info| TensorInfo::new(hf_name(&info.name), DType::F32, info.shape.clone())).collect::<Vec<_>>();
    let mut writer = SafetensorsWriter::create(&folder.join("model.safetensors"), &infos, &Default::default()).unwrap();
    model
        .read_parameters::<openelm_model::ModelError>(|info, mut values| {
            change(info, &mut values);
            writer.write(&hf_name(&info.name), &encode_f32(&values, DType::F32).unwrap()).unwrap();
            Ok(())
        })
        .unwrap();
    writer.finish().unwrap();
    folder.to_owned()
}

fn untouched(_: &ParameterInfo, _: &mut Vec<f32>) {}

fn carry_out(folder: &Path, text: &str) -> Result<PathBuf, String> {
    let path = folder.join("recipe.yaml");
    std::fs::write(&path, text).unwrap();
    let out = folder.join(format!("out-{}", std::fs::read_dir(folder).unwrap().count()));
    let recipe = Recipe::read(&path).map_err(|error| error.to_string())?;
    merge_to_folder(&recipe, &out, |_| ()).map_err(|error| error.to_string())?;
    Ok(out)
}

#[test]
fn layers_can_be_stacked_and_the_lists_follow() {
    let root = tempfile::tempdir().unwrap();
    let a = write_model(&root.path().join("a"), &config(4), 1, untouched);
    write_model(&root.path().join("b"), &config(4), 2, untouched);
    let text = "merge_method: passthrough\ndtype: bfloat16\nslices:\n- sources: [{model: a, layer_range: [0, 3]}]\n\
                - sources: [{model: b, layer_range: [1, 4], parameters: {scale: [{filter: ffn.proj_2, value: 0.5}]}}]\n";
    let out = Weights::open(&carry_out(root.path(), text).unwrap()).unwrap();
    let (a, b) = (Weights::open(&a).unwrap(), Weights::open(&root.path().join("b")).unwrap());
    let layers = |weights: &Weights| weights.config().layers().unwrap();
    assert_eq!(layers(&out), [&layers(&a)[..3], &layers(&b)[1..]].concat());
    assert!(matches!(&out.config().ffn_multipliers, Multipliers::List(list) if list.len() == 6));
    let values = |weights: &Weights, name: &str| {
        let infos = OpenElm::infos_of(weights.config()).unwrap();
        weights.values(infos.iter().find(|info| info.name == name).unwrap()).unwrap()
    };
    let near = |a: Vec<f32>, b: Vec<f32>, scale: f32| a.iter().zip(&b).all(|(a, b)| (a - scale * b).abs() <= (scale * b).abs() / 256.0);
    assert!(near(values(&out, "layers.2.attn.qkv_proj.weight"), values(&a, "layers.2.attn.qkv_proj.weight"), 1.0));
    assert!(near(values(&out, "layers.4.attn.out_proj.weight"), values(&b, "layers.2.attn.out_proj.weight"), 1.0));
    assert!(near(values(&out, "layers.5.ffn.proj_2.weight"), values(&b, "layers.3.ffn.proj_2.weight"), 0.5));
    out.model(&Device::flex()).unwrap();
}

/// What the search for layers stands on: a stream that is scaled before blocks is a recipe with scaled `out_proj` and `proj_2`.
#[test]
fn scaled_streams_are_scaled_layers() {
    let root = tempfile::tempdir().unwrap();
    let a = write_model(&root.path().join("a"), &config(4), 1, |info, values| {
        if info.name.ends_with("out_proj.weight") || info.name.ends_with("proj_2.weight") {
            values.iter_mut().for_each(|value| *value *= 8.0);
        }
    });
    let device = Device::flex();
    let model = Weights::open(&a).unwrap().model(&device).unwrap();
    let ids = Tensor::<2, Int>::from_data([[1, 5, 9, 4, 30, 7]], &device);
    let values = |logits: Tensor<3>| logits.try_into_vec_as::<f32>().unwrap();
    let by_hand = |factors: [f64; 4]| {
        let (rotation, mask) = (model.rotation(0, 6).unwrap(), CausalMask::new(model.config().num_gqa_groups, 0, 6, &device));
        let blocks = model.blocks.iter().zip(factors);
        let stream = blocks
            .fold(model.embed(ids.clone()), |x, (block, factor)| block.forward(x.mul_scalar(factor), &rotation, &mask, Precision::F32));
        values(model.logits(model.norm.forward(stream), Precision::F32))
    };
    let factors = [1.5, 0.8, 1.25, 0.6];
    let (mut divisor, mut text) = (1.0, "merge_method: passthrough\nslices:\n".to_owned());
    for (layer, factor) in factors.into_iter().enumerate() {
        divisor *= factor;
        let scale = ["attn.out_proj", "ffn.proj_2"].map(|tail| format!("{{filter: {tail}, value: {}}}", 1.0 / divisor)).join(", ");
        let next = layer + 1;
        text += &format!("- sources: [{{model: a, layer_range: [{layer}, {next}], parameters: {{scale: [{scale}]}}}}]\n");
    }
    let merged = Weights::open(&carry_out(root.path(), &text).unwrap()).unwrap().model(&device).unwrap();
    let merged = values(merged.forward(ids.clone(), Precision::F32).unwrap());
    let furthest = |other: &[f32]| merged.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // The norms' epsilon is all that a factor changes.
    let (scaled, plain) = (furthest(&by_hand(factors)), furthest(&by_hand([1.0; 4])));
    assert!(scaled < 1e-3 && plain > 0.1, "{scaled} {plain}");
}

#[test]
fn tensors_merged_piece_by_piece_are_the_formulas() {
    let root = tempfile::tempdir().unwrap();
    // The embedding is longer than a piece, and no whole number of them.
    let folders = ["a", "b", "c"].map(|name| write_model(&root.path().join(name), &config(2), u64::from(name.as_bytes()[0]), untouched));
    let [a, b, c] = folders.map(|folder| Weights::open(&folder).unwrap());
    let linear = "merge_method: linear\nparameters: {normalize: false}\nmodels:\n- {model: a, parameters: {weight: 0.3}}\n\
                  - {model: b, parameters: {weight: -0.7}}\n- {model: c}\n";
    let arithmetic = "merge_method: task_arithmetic\nbase_model: a\nparameters: {lambda: 0.5}\nmodels:\n\
                      - {model: b, parameters: {weight: 0.6}}\n- {model: c, parameters: {weight: 1.5}}\n";
    type Formula = fn(f64, f64, f64) -> f64;
    let formulas: [(&str, Formula); 2] =
        [(linear, |a, b, c| 0.3 * a - 0.7 * b + c), (arithmetic, |a, b, c| a + 0.5 * (0.6 * (b - a) + 1.5 * (c - a)))];
    for (text, formula) in formulas {
        for (word, dtype) in [("float32", DType::F32), ("bfloat16", DType::BF16)] {
            let out = Weights::open(&carry_out(root.path(), &format!("{text}dtype: {word}\n")).unwrap()).unwrap();
            for info in OpenElm::infos_of(out.config()).unwrap() {
                let [found, a, b, c] = [&out, &a, &b, &c].map(|weights| weights.values(&info).unwrap());
                for (i, found) in found.iter().enumerate() {
                    let exact = formula(f64::from(a[i]), f64::from(b[i]), f64::from(c[i]));
                    // Differences are rounded to f32, and the result to the file's type.
                    let rounding = if dtype == DType::F32 { 2.0_f64.powi(-24) } else { 2.0_f64.powi(-8) };
                    let bound = 2.0_f64.powi(-23) * f64::from(a[i].abs() + b[i].abs() + c[i].abs()) + rounding * exact.abs();
                    assert!((f64::from(*found) - exact).abs() <= bound, "{word} {} {i}: {found} {exact}", info.name);
                }
            }
        }
    }
}

#[test]
fn random_methods_repeat_themselves() {
    let root = tempfile::tempdir().unwrap();
    for (name, seed) in [("base", 1), ("a", 2), ("b", 3)] {
        write_model(&root.path().join(name), &config(2), seed, untouched);
    }
    let bytes = |method: &str, seed: u64| {
        let text = format!(
            "merge_method: {method}\nbase_model: base\nseed: {seed}\nmodels: [{{model: a}}, {{model: b}}]\nparameters: {{density: 0.4, epsilon: 0.1}}\n"
        );
        let text = if method.starts_with("della") { text } else { text.replace(", epsilon: 0.1", "") };
        std::fs::read(carry_out(root.path(), &text).unwrap().join("model.safetensors")).unwrap()
    };
    for method in ["dare_linear", "dare_ties", "della", "della_linear"] {
        assert!(bytes(method, 1) == bytes(method, 1), "{method}");
        assert!(bytes(method, 1) != bytes(method, 2), "{method}");
    }
    assert!(bytes("breadcrumbs", 1) == bytes("breadcrumbs", 2));
}

#[test]
fn what_does_not_fit_is_named() {
    let root = tempfile::tempdir().unwrap();
    write_model(&root.path().join("a"), &config(4), 1, untouched);
    write_model(&root.path().join("b"), &config(4), 2, untouched);
    write_model(&root.path().join("short"), &config(3), 2, untouched);
    let mut wide = config(4);
    wide.ffn_multipliers = Multipliers::List(vec![0.5, 6.0]);
    write_model(&root.path().join("wide"), &wide, 2, untouched);
    write_model(&root.path().join("nan"), &config(4), 2, |info, values| {
        if info.name == "layers.1.ffn.proj_1.weight" {
            values[7] = f32::NAN;
        }
    });
    let (a, ab) = ("models: [{model: a}]\n", "models: [{model: a}, {model: b}]\n");
    for (text, reasons) in [
        (format!("merge_method: lineer\n{a}"), ["`lineer` is no known method", "linear, slerp"]),
        (format!("merge_method: linear\n{a}parameters: {{wight: 1}}\n"), ["`wight` is no parameter of linear", "weight, normalize"]),
        (format!("merge_method: ties\n{a}base_model: b\nparameters: {{density: 1.5}}\n"), ["parameters.density", "from 0 to 1"]),
        (format!("merge_method: ties\n{ab}"), ["base_model", "compares with a base"]),
        (format!("merge_method: slerp\n{ab}base_model: a\n"), ["parameters.t", "is missing"]),
        (format!("merge_method: slerp\n{a}base_model: a\nparameters: {{t: 0.5}}\n"), ["exactly 1 model(s) besides the base", "not 0"]),
        (format!("merge_method: dare_ties\n{a}base_model: b\nparameters: {{rescale_norm: l3}}\n"), ["`l3`", "density, l1, l2"]),
        ("merge_method: linear\nmodels: [{model: a}, {model: none}]\n".into(), ["none", "nothing at this path"]),
        ("merge_method: linear\nmodels: [{model: a}, {model: short}]\n".into(), ["short gives 3 layers", "equally many"]),
        ("merge_method: linear\nmodels: [{model: a}, {model: wide}]\n".into(), ["the shape of layers.1.ffn.proj_1.weight", "wide"]),
        ("merge_method: linear\nmodels: [{model: a}, {model: nan}]\n".into(), ["layers.1.ffn.proj_1.weight[7] is NaN", "nan"]),
        ("merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [2, 5]}]}]\n".into(), ["[2, 5]", "4 layers"]),
        (
            format!("merge_method: della\n{a}base_model: b\nparameters: {{density: 0.9, epsilon: 0.2}}\n"),
            ["density 0.9", "smaller epsilon"],
        ),
    ] {
        let message = carry_out(root.path(), &text).unwrap_err();
        assert!(reasons.iter().all(|reason| message.contains(reason)) && message.contains("\nhint: "), "{text}{message}");
    }
    // Nothing was left behind.
    assert!(std::fs::read_dir(root.path()).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().contains("merge-")));
}

#[test]
fn a_weight_that_is_no_number_is_found_before_the_work() {
    let root = tempfile::tempdir().unwrap();
    write_model(&root.path().join("a"), &config(4), 1, untouched);
    write_model(&root.path().join("last"), &config(4), 2, |info, values| {
        if info.name == "norm.weight" {
            values[5] = f32::NEG_INFINITY;
        }
    });
    let path = root.path().join("recipe.yaml");
    // Methods that go value by value find it on their way, which is as short as looking for it; either way nothing is left.
    for (text, before) in [("slerp\nbase_model: a\nparameters: {t: 0.5}", true), ("linear", false)] {
        std::fs::write(&path, format!("merge_method: {text}\nmodels: [{{model: a}}, {{model: last}}]\n")).unwrap();
        let (mut heard, out) = (0, root.path().join("out"));
        let error = merge_to_folder(&Recipe::read(&path).unwrap(), &out, |_| heard += 1).unwrap_err().to_string();
        assert!((heard == 0) == before && error.contains("last: norm.weight[5] is -inf"), "{text} {heard} {error}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 3, "{text}");
    }
}

fn tokenizer(folder: &Path, text: &str) -> Tokenizer {
    let corpus = std::iter::repeat_n(Ok::<_, std::convert::Infallible>(text.to_owned()), 4);
    let tokenizer = openelm_tokenizer::train(&BpeTraining::new(290), corpus).unwrap();
    tokenizer.save(folder).unwrap();
    tokenizer
}

#[test]
fn tokenizers_must_agree_or_be_chosen() {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in [("a", "one fish two fish red fish blue fish"), ("b", "a stitch in time saves nine; nine lives")] {
        tokenizer(&write_model(&root.path().join(name), &config(2), 1, untouched), text);
    }
    let text = "merge_method: linear\nmodels: [{model: a}, {model: b}]\n";
    let message = carry_out(root.path(), text).unwrap_err();
    assert!(message.contains("differ in their tokenizers") && message.contains("tokenizer_source"), "{message}");
    let out = carry_out(root.path(), &format!("{text}tokenizer_source: b\n")).unwrap();
    let fingerprint = |folder: &Path| Tokenizer::load(folder).unwrap().fingerprint().to_owned();
    assert_eq!(fingerprint(&out), fingerprint(&root.path().join("b")));
}

#[test]
fn the_last_checkpoints_are_averaged() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    let folder = RunFolder::create(&run, "name: a\n").unwrap();
    let config = config(2);
    for step in 1..=4 {
        let value = if step == 1 { 1000.0 } else { step as f32 };
        let build = |info: &ParameterInfo| Ok::<_, openelm_model::ModelError>(vec![value; info.count()]);
        let mut model = OpenElm::build(&config, &Device::flex(), build).unwrap();
        let manifest = Manifest {
            version: Manifest::VERSION,
            program: "test".into(),
            step,
            tokens: 0,
            seed: 0,
            tokenizer: "none".into(),
            model: config.clone(),
            data: serde_json::Value::Null,
            config: serde_json::Value::Null,
            files: Vec::new(),
        };
        folder.save::<CheckpointError>(manifest, |draft| draft.weights(&mut model)).unwrap();
    }
    let out = root.path().join("mean");
    merge_to_folder(&average_recipe(&run, 3).unwrap(), &out, |_| ()).unwrap();
    let weights = Weights::open(&out).unwrap();
    for info in OpenElm::infos_of(&config).unwrap() {
        assert!(weights.values(&info).unwrap().iter().all(|value| *value == 3.0), "{}", info.name);
    }
    let message = average_recipe(&run, 5).unwrap_err().to_string();
    assert!(message.contains("5 checkpoints are asked for, the run holds 4"), "{message}");
}

#[test]
fn a_search_repeats_itself_and_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let words = "the cat sat on the mat and the dog sat on the log while the frog sat in the bog";
    for (name, seed) in [("base", 1), ("a", 2), ("b", 3)] {
        tokenizer(&write_model(&root.path().join(name), &config(2), seed, untouched), words);
    }
    std::fs::write(root.path().join("text.jsonl"), format!("{{\"text\": \"{words}\"}}\n")).unwrap();
    let search = |generations: u64, parallel: usize| {
        let text = format!(
            "merge_method: task_arithmetic\nbase_model: base\nmodels: [a, b]\nsearch: {{weight: {{from: 0, to: 1}}}}\nlayer_groups: 2\nseed: 4\n\
             population: 4\ngenerations: {generations}\nparallel: {parallel}\nobjective: {{files: [text.jsonl]}}\n"
        );
        let path = root.path().join("search.yaml");
        std::fs::write(&path, text).unwrap();
        SearchFile::read(&path).unwrap()
    };
    let device = Device::flex();
    let out = |name: &str| root.path().join(name);
    let log = |name: &str| std::fs::read_to_string(out(name).join("log.jsonl")).unwrap();
    let whole = evolve(&search(5, 1), &out("whole"), false, &device, |_| ()).unwrap();
    evolve(&search(2, 2), &out("parts"), false, &device, |_| ()).unwrap();
    // As if the machine had stopped in the middle of a line.
    std::fs::write(out("parts").join("log.jsonl"), log("parts") + "{\"generation\":3,\"val").unwrap();
    let parts = evolve(&search(5, 2), &out("parts"), true, &device, |_| ()).unwrap();
    assert_eq!(log("parts"), log("whole"));
    assert_eq!(parts, whole);
    // The best recipe is an ordinary one, and gives the weights that lie beside it.
    let again = root.path().join("again");
    merge_to_folder(&Recipe::read(&out("whole").join("best.yaml")).unwrap(), &again, |_| ()).unwrap();
    let bytes = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(bytes(&again) == bytes(&out("whole").join("merged")));
    let best: Vec<f64> =
        log("whole").lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["best"].as_f64().unwrap()).collect();
    assert!(best.windows(2).all(|pair| pair[1] <= pair[0]) && best.len() == 5, "{best:?}");
    let mut other = search(5, 1);
    other.population = 6;
    let message = evolve(&other, &out("parts"), true, &device, |_| ()).unwrap_err().to_string();
    assert!(message.contains("does not belong to this search"), "{message}");
}
