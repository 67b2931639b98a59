//! Adapters against PEFT's own values; fused against unfused; the CPU kernels against burn's operations; files there and back; what does
//! not fit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use openelm_finetune::adapter::{AdapterConfig, AdapterError, Targets, attach_new, attach_saved, fused, modules};
use openelm_train::openelm_checkpoint::{
    ADAPTER_CONFIG, ADAPTER_FILE, Device, ModelError, OpenElm, ParameterInfo, Precision, Storage, Weights, peft_name, write_adapter,
};
use openelm_train::{AdamW, AdamWConfig, Arithmetic, BurnEngine, CpuEngine, Engine, MicroBatch, Update, open_device};
use reference_values::{Tensors, apart, largest, reference};

const KINDS: [&str; 4] = ["lora", "rslora", "dora", "lora-embedding"];
const SEQUENCE: usize = 24;
const ARITHMETIC: Arithmetic = Arithmetic { precision: Precision::F32, recompute: false, z_loss: 0.0, padding_in_z: false };

fn device() -> Device {
    open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap()
}

fn base(folder: &Path) -> Weights {
    Weights::open(&folder.join("hf-tiny")).unwrap()
}

/// The reference's ids, all of them inputs.
fn inputs(folder: &Path, vocabulary: usize) -> MicroBatch {
    let ids = Tensors::open(folder.join("adapters/inputs.safetensors")).i32("ids");
    let rows: Vec<u32> = ids.chunks(SEQUENCE).flat_map(|row| row.iter().chain([&0])).map(|id| *id as u32).collect();
    MicroBatch::new(&rows, SEQUENCE, u32::MAX, vocabulary).unwrap()
}

fn logits(model: &OpenElm, batch: &MicroBatch) -> Vec<f32> {
    let ids = batch.inputs(model.config().vocab_size, model.device());
    model.forward(ids, Precision::F32).unwrap().into_data().try_to_vec::<f32>().unwrap()
}

#[test]
fn logits_and_gradients_are_pefts() {
    let Some(folder) = reference() else { return };
    let weights = base(&folder);
    let batch = inputs(&folder, weights.config().vocab_size);
    // The reference's gradients are those of the mean squared log-sum of exponentials; beside this weight the cross entropy is nothing.
    const WEIGHT: f64 = 1e6;
    for kind in KINDS {
        let place = folder.join("adapters").join(kind);
        let expected = Tensors::open(place.join("expected.safetensors"));
        let mut model = weights.model(&device()).unwrap();
        let config = attach_saved(&place, 0, &mut model).unwrap();
        assert_eq!((config.r, config.use_dora, config.use_rslora), (4, kind == "dora", kind == "rslora"));
        let difference = apart(&logits(&model, &batch), &expected.f32("logits"));
        assert!(difference < 1e-4, "{kind}: logits differ by {difference}");
        let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(BurnEngine::new(&model))];
        if CpuEngine::can_run(&model) {
            engines.push(Box::new(CpuEngine::new().unwrap()));
        }
        for engine in &mut engines {
            for recompute in [false, true] {
                engine.begin(0);
                let arithmetic = Arithmetic { recompute, z_loss: WEIGHT, ..ARITHMETIC };
                engine.accumulate(&model, &batch, 1.0 / (WEIGHT * batch.target_count() as f64), &arithmetic).unwrap();
                let mut compared = 0;
                for (index, info) in model.trained_infos().iter().enumerate() {
                    let name = format!("grad.{}", peft_name(&info.name));
                    if expected.names().contains(&name) {
                        let (found, wanted) = (engine.gradient(index).unwrap().unwrap(), expected.f32(&name));
                        let difference = apart(&found, &wanted) / largest(&wanted);
                        assert!(difference < 1e-4, "{kind} {}: {difference}", info.name);
                        compared += 1;
                    }
                }
                assert!(compared >= 12, "{compared}");
            }
        }
    }
}

#[test]
fn fused_models_answer_as_their_adapters_do() {
    let Some(folder) = reference() else { return };
    let batch = inputs(&folder, base(&folder).config().vocab_size);
    for kind in KINDS {
        let place = folder.join("adapters").join(kind);
        let expected = Tensors::open(place.join("expected.safetensors"));
        let weights = fused(base(&folder), &place).unwrap();
        // PEFT's fused model with an adapted embedding reads the changed table in its head as well.
        assert_eq!(weights.config().share_input_output_layers, kind != "lora-embedding");
        let found = logits(&weights.model(&device()).unwrap(), &batch);
        let difference = apart(&found, &expected.f32("logits"));
        assert!(difference < 1e-4, "{kind}: fused and unfused logits differ by {difference}");
        if kind != "lora-embedding" {
            assert!(apart(&found, &expected.f32("fused_logits")) < 1e-4, "{kind}");
        }
        for info in OpenElm::infos_of(weights.config()).unwrap() {
            let name = format!("fused.{}", info.name.trim_end_matches(".weight"));
            if expected.names().contains(&name) {
                let difference = apart(&weights.values(&info).unwrap(), &expected.f32(&name));
                assert!(difference < 1e-5, "{kind} {name}: {difference}");
            }
        }
    }
}

/// The adapter's parameters in order.
fn trained(model: &mut OpenElm) -> Vec<(ParameterInfo, Vec<f32>)> {
    let mut all = Vec::new();
    model
        .read_trained::<ModelError>(|info, values| {
            all.push((info.clone(), values));
            Ok(())
        })
        .unwrap();
    all
}

#[test]
fn files_come_back_as_they_were() {
    let Some(folder) = reference() else { return };
    for kind in KINDS {
        let place = folder.join("adapters").join(kind);
        let mut model = base(&folder).model(&device()).unwrap();
        let config = attach_saved(&place, 0, &mut model).unwrap();
        let before = trained(&mut model);
        let copy = tempfile::tempdir().unwrap();
        let infos = model.trained_infos().to_vec();
        write_adapter::<openelm_train::CheckpointError>(copy.path(), &config.to_json(), &infos, |write| {
            before.iter().try_for_each(|(info, values)| write(info, values))
        })
        .unwrap();
        let again = attach_saved(copy.path(), 0, &mut model).unwrap();
        assert_eq!(again, config);
        assert_eq!(trained(&mut model), before);
        let (ours, theirs) = (Tensors::open(copy.path().join(ADAPTER_FILE)), Tensors::open(place.join(ADAPTER_FILE)));
        let (mut our_names, mut their_names) = (ours.names(), theirs.names());
        our_names.sort();
        their_names.sort();
        assert_eq!(our_names, their_names);
        for name in our_names {
            assert_eq!((ours.shape(&name), ours.f32(&name)), (theirs.shape(&name), theirs.f32(&name)), "{name}");
        }
    }
}

fn config(targets: &[&str]) -> AdapterConfig {
    AdapterConfig {
        r: 4,
        lora_alpha: 6.0,
        lora_dropout: 0.2,
        target_modules: Targets::Names(targets.iter().map(|name| (*name).to_owned()).collect()),
        rank_pattern: vec![("layers.1.attn.qkv_proj".into(), 3)],
        alpha_pattern: Vec::new(),
        use_rslora: false,
        use_dora: false,
        base: None,
    }
}

/// A small model whose every matrix has rows of whole blocks of 32, kept as `storage` says.
fn small(storage: Storage) -> OpenElm {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"model_type": "openelm", "num_transformer_layers": 3, "model_dim": 64, "head_dim": 16, "num_gqa_groups": 2,
        "qkv_multipliers": [1.0, 1.0], "ffn_multipliers": [1.0, 2.0], "ffn_dim_divisor": 32, "vocab_size": 96, "max_context_length": 32,
        "rope_max_length": 64, "normalize_qk_projections": true, "share_input_output_layers": true, "ffn_with_glu": true,
        "padding_index": 95}"#;
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    let config = openelm_train::openelm_checkpoint::from_hf_config(&folder.path().join("config.json")).unwrap();
    let device = open_device("flex").unwrap();
    let mut whole = OpenElm::init(&config, 5, &device).unwrap();
    let mut values = Vec::new();
    whole
        .read_parameters::<ModelError>(|_, read| {
            values.push(read);
            Ok(())
        })
        .unwrap();
    let mut values = values.into_iter();
    OpenElm::build_stored::<ModelError>(&config, &device, storage, |_| Ok(values.next().unwrap())).unwrap()
}

fn small_batch(rows: usize, sequence: usize) -> MicroBatch {
    let mut tokens: Vec<u32> = (0..rows * (sequence + 1)).map(|at| (at * 37 % 93) as u32).collect();
    let end = tokens.len();
    tokens[end - 4..].fill(95);
    MicroBatch::new(&tokens, sequence, 95, 96).unwrap()
}

#[test]
fn kernels_and_burn_agree_with_dropout_on_every_base() {
    let every = ["token_embeddings", "qkv_proj", "out_proj", "proj_1", "proj_2"];
    let lora = config(&every);
    let dora = AdapterConfig { use_dora: true, ..config(&every[1..]) };
    let some = AdapterConfig { target_modules: Targets::Pattern(r".*layers\.[12]\.(attn\.out_proj|ffn\..*)".into()), ..config(&[]) };
    for storage in [Storage::F32, Storage::Bf16, Storage::Q8_0] {
        for config in [&lora, &dora, &some] {
            let mut model = small(storage);
            let before = logits(&model, &small_batch(2, 9));
            attach_new("test", config, 7, &mut model).unwrap();
            let after = logits(&model, &small_batch(2, 9));
            assert!(apart(&before, &after) < 2e-5, "a new adapter changes nothing: {}", apart(&before, &after));
            let mut seen = Vec::new();
            let (mut burn, mut cpu) = (BurnEngine::new(&model), CpuEngine::new().unwrap());
            let engines: [&mut dyn Engine; 2] = [&mut burn, &mut cpu];
            for engine in engines {
                let mut model = model.clone();
                let settings = AdamWConfig { eps: 1e-4, ..AdamWConfig::default() };
                let mut optimizer = AdamW::new(settings, &model);
                let (mut losses, mut gradients) = (Vec::new(), Vec::new());
                for step in 0..3 {
                    engine.begin(step);
                    for recompute in [false, true] {
                        let arithmetic = Arithmetic { recompute, z_loss: 1e-3, ..ARITHMETIC };
                        losses.push(engine.accumulate(&model, &small_batch(2, 17), 0.02, &arithmetic).unwrap().ce);
                    }
                    if step == 1 {
                        gradients = (0..model.trained_infos().len()).map(|index| engine.gradient(index).unwrap().unwrap()).collect();
                    }
                    engine.update(&mut model, &mut optimizer, &Update { step: step + 1, learning_rate: 1e-2, factor: 1.0 }).unwrap();
                }
                losses.push(engine.losses(&model, &small_batch(2, 17), &ARITHMETIC).unwrap().ce);
                let mut alone = model.without_adapter();
                assert_eq!(logits(&alone, &small_batch(2, 9)), before, "the base has changed");
                assert!(alone.trained_mut().len() > 3);
                seen.push((losses, gradients, trained(&mut model)));
            }
            let [(losses, gradients, weights), (other_losses, other_gradients, other_weights)] = &seen[..] else { unreachable!() };
            assert_ne!(losses[2], losses[3], "two passes drop the same");
            for (loss, other) in losses.iter().zip(other_losses) {
                assert!((loss / other - 1.0).abs() < 1e-4, "{storage:?}: {loss} {other}");
            }
            let infos = model.trained_infos();
            for (index, info) in infos.iter().enumerate() {
                let size = largest(&gradients[index]).max(1e-6);
                let difference = apart(&gradients[index], &other_gradients[index]) / size;
                assert!(difference < 5e-4, "{storage:?} gradient of {}: {difference}", info.name);
                let (ours, theirs) = (&weights[index].1, &other_weights[index].1);
                assert!(apart(ours, theirs) < 2e-3, "{storage:?} {}: {}", info.name, apart(ours, theirs));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let Some(folder) = reference() else { return };
    let lora = folder.join("adapters/lora");
    let copy = tempfile::tempdir().unwrap();
    let place = |change: &dyn Fn(&mut serde_json::Value)| -> PathBuf {
        std::fs::copy(lora.join(ADAPTER_FILE), copy.path().join(ADAPTER_FILE)).unwrap();
        let mut config = reference_values::json(&lora.join(ADAPTER_CONFIG));
        change(&mut config);
        std::fs::write(copy.path().join(ADAPTER_CONFIG), config.to_string()).unwrap();
        copy.path().to_owned()
    };
    let reason = |path: &Path| -> String {
        let error: AdapterError = fused(base(&folder), path).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("\nhint: "), "{text}");
        text
    };
    let rank = reason(&place(&|config| config["r"] = 5.into()));
    assert!(rank.contains("lora_A.weight has shape [4, 128], the model and r need [5, 128]"), "{rank}");
    let fewer = reason(&place(&|config| config["target_modules"] = serde_json::json!(["qkv_proj"])));
    assert!(fewer.contains("has no place"), "{fewer}");
    let more = reason(&place(&|config| {
        config["target_modules"] = serde_json::json!(["qkv_proj", "out_proj", "proj_1", "proj_2", "token_embeddings"])
    }));
    assert!(more.contains("token_embeddings.lora_embedding_A is missing"), "{more}");
    let other = reason(&place(&|config| config["bias"] = "all".into()));
    assert!(other.contains("adapter_config.json: bias"), "{other}");
    let larger = fused(Weights::open(&folder.join("hf-5m")).unwrap(), &place(&|_| {})).unwrap_err().to_string();
    assert!(larger.contains("shape"), "{larger}");
    assert!(reason(&folder.join("hf-tiny")).contains("there is no adapter here"));
    let path = place(&|_| {});
    let bytes = std::fs::read(path.join(ADAPTER_FILE)).unwrap();
    std::fs::write(path.join(ADAPTER_FILE), &bytes[..bytes.len() - 9]).unwrap();
    assert!(reason(&path).contains(ADAPTER_FILE));
    std::fs::remove_file(path.join(ADAPTER_FILE)).unwrap();
    assert!(reason(&path).contains("tensors are missing"));
    let config = AdapterConfig::load(&lora).unwrap();
    assert_eq!(modules("x", &config, base(&folder).config()).unwrap().len(), 20);
}
