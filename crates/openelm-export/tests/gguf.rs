//! GGUF files against those that llama.cpp wrote, and read back.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use openelm_checkpoint::{WeightKind, Weights};
use openelm_export::{GgufType, export_gguf};
use openelm_formats::{Gguf, TensorSource};
use openelm_model::{OpenElm, preset};
use openelm_tokenizer::Tokenizer;
use reference_values::{reference, shared};
use support::{same_bytes, tokenizer_of};

/// llama.cpp's file, the folder it was made from, and how.
const FILES: [(&str, &str, GgufType); 6] = [
    ("tiny-f32", "hf-tiny", GgufType::F32),
    ("5m-f16", "hf-5m", GgufType::F16),
    ("5m-q8_0", "hf-5m", GgufType::Q8_0),
    ("5m-Q4_0", "hf-5m", GgufType::Q4_0),
    ("5m-Q6_K", "hf-5m", GgufType::Q6K),
    ("5m-Q4_K_M", "hf-5m", GgufType::Q4KM),
];

#[test]
fn files_are_llama_cpps_to_the_byte() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    for (name, model, kind) in FILES {
        let weights = Weights::open(&folder.join(model)).unwrap();
        let out = place.path().join(format!("{name}.gguf"));
        export_gguf(&weights, tokenizer_of(&weights).as_ref(), model, kind, &out).unwrap();
        assert!(same_bytes(&out, &folder.join(format!("gguf/{name}.gguf"))), "{name}");
    }
}

#[test]
fn a_file_written_again_is_the_same() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    for (name, model, kind) in FILES {
        let path = folder.join(format!("gguf/{name}.gguf"));
        let weights = Weights::open(&path).unwrap();
        assert_eq!(weights.kind(), WeightKind::Gguf);
        let original = Weights::open(&folder.join(model)).unwrap();
        assert_eq!(weights.config().layers().unwrap(), original.config().layers().unwrap());
        assert_eq!(weights.config().rope_max_length, original.config().rope_max_length);
        let out = place.path().join(format!("{name}.gguf"));
        export_gguf(&weights, tokenizer_of(&weights).as_ref(), model, kind, &out).unwrap();
        assert!(same_bytes(&out, &path), "{name}");
    }
}

#[test]
fn every_recipe_reads_back_near_the_original() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let weights = Weights::open(&folder.join("hf-tiny")).unwrap();
    let tokenizer = tokenizer_of(&weights);
    // Bounds on the root of the mean squared error relative to that of the values: a step's share for each number of bits.
    for (kind, bound) in [
        (GgufType::F16, 3e-4),
        (GgufType::Bf16, 3e-3),
        (GgufType::Q8_0, 0.01),
        (GgufType::Q6K, 0.03),
        (GgufType::Q5_0, 0.05),
        (GgufType::Q5KS, 0.05),
        (GgufType::Q5KM, 0.05),
        (GgufType::Q4KS, 0.1),
        (GgufType::Q4KM, 0.1),
        (GgufType::Q4_0, 0.12),
        (GgufType::Q4_1, 0.1),
    ] {
        let out = place.path().join(format!("{kind:?}.gguf"));
        export_gguf(&weights, tokenizer.as_ref(), "hf-tiny", kind, &out).unwrap();
        let back = Weights::open(&out).unwrap();
        for info in OpenElm::infos_of(weights.config()).unwrap() {
            let (values, read) = (weights.values(&info).unwrap(), back.values(&info).unwrap());
            let power = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            let error = power(&mut values.iter().zip(&read).map(|(a, b)| a - b)) / power(&mut values.iter().copied());
            assert!(error < bound, "{kind:?}: {} is {error} off", info.name);
        }
    }
}

#[test]
fn the_tokenizer_in_a_file_is_the_original() {
    let (Some(shared), Some(folder)) = (shared(), reference()) else { return };
    let weights = Weights::open(&folder.join("gguf/5m-Q4_K_M.gguf")).unwrap();
    let (own, original) = (tokenizer_of(&weights).unwrap(), Tokenizer::load(&shared.join("tokenizers/spm-2k")).unwrap());
    assert_eq!(own.fingerprint(), original.fingerprint());
    assert_eq!((own.bos_id(), own.eos_id(), own.vocab_size()), (original.bos_id(), original.eos_id(), original.vocab_size()));
    for text in ["Once upon a time,  there were\n\ttwo spaces", "ÄÖü 漢字 🙂", "", " ", "</s><unk>"] {
        assert_eq!(own.encode(text), original.encode(text), "{text:?}");
    }
}

#[test]
fn chat_templates_and_names_travel() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let model = place.path().join("OpenELM-1M-Instruct");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.model"] {
        std::fs::copy(folder.join("hf-tiny").join(name), model.join(name)).unwrap();
    }
    std::fs::write(model.join("chat_template.jinja"), "{{ messages }}").unwrap();
    let weights = Weights::open(&model).unwrap();
    let out = place.path().join("out.gguf");
    export_gguf(&weights, tokenizer_of(&weights).as_ref(), "OpenELM-1M-Instruct", GgufType::F32, &out).unwrap();
    assert_eq!(Weights::open(&out).unwrap().chat_template(), Some("{{ messages }}"));
    let file = Gguf::open(&out).unwrap();
    let text = |key: &str| file.get(key).and_then(|value| value.as_str());
    assert_eq!(text("general.finetune"), Some("Instruct"));
    assert_eq!(text("general.size_label"), Some("1M"));
    assert_eq!(file.infos().len(), 47);
    let again = export_gguf(&weights, tokenizer_of(&weights).as_ref(), "x", GgufType::F32, &out).unwrap_err();
    assert!(again.to_string().contains("the file exists"), "{again}");
}

#[test]
fn what_llama_cpp_cannot_load_is_refused() {
    let (Some(shared), Some(folder)) = (shared(), reference()) else { return };
    let place = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::load(&shared.join("tokenizers/spm-2k")).unwrap();
    let weights = Weights::open(&folder.join("hf-tiny")).unwrap();
    let out = place.path().join("out.gguf");
    let message = export_gguf(&weights, None, "x", GgufType::F32, &out).unwrap_err().to_string();
    assert!(message.contains("a GGUF file holds its own\nhint: name one with --tokenizer"), "{message}");

    for (change, reason) in [(0, "an output head of its own"), (1, "no norms of queries and keys"), (2, "no gate")] {
        let mut config = preset("OpenELM-tiny").unwrap();
        config.vocab_size = 2048;
        match change {
            0 => config.share_input_output_layers = false,
            1 => config.normalize_qk_projections = false,
            _ => config.ffn_with_glu = false,
        }
        let model = place.path().join(format!("model-{change}"));
        std::fs::create_dir(&model).unwrap();
        let json = openelm_checkpoint::to_hf_config(&config, "float32", None, None).unwrap();
        std::fs::write(model.join("config.json"), json.to_string()).unwrap();
        let infos: Vec<_> = OpenElm::infos_of(&config).unwrap();
        let stored = |info: &openelm_model::ParameterInfo| {
            openelm_formats::TensorInfo::new(openelm_checkpoint::hf_name(&info.name), openelm_formats::DType::BF16, info.shape.clone())
        };
        let stored: Vec<_> = infos.iter().map(stored).collect();
        let zeros = |info: &openelm_formats::TensorInfo| Ok::<_, openelm_formats::FormatError>(vec![0; info.byte_len()]);
        openelm_formats::write_sharded(&model, &stored, u64::MAX, &Default::default(), zeros).unwrap();
        let weights = Weights::open(&model).unwrap();
        let message = export_gguf(&weights, Some(&tokenizer), "x", GgufType::F32, &out).unwrap_err().to_string();
        assert!(message.starts_with("llama.cpp cannot load this model") && message.contains(reason), "{message}");
    }
    assert!(!out.exists());
}
