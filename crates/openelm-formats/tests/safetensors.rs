//! safetensors written and read back: by this crate, by the official crate, in one file and in shards.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use openelm_formats::{DType, FormatError, Safetensors, SafetensorsWriter, TensorInfo, TensorSource, encode_f32, write_sharded};

fn infos() -> Vec<TensorInfo> {
    vec![
        TensorInfo::new("layers.0.weight", DType::F32, [3, 5]),
        TensorInfo::new("a scalar, with a \"quote\"", DType::F32, []),
        TensorInfo::new("half", DType::BF16, [7]),
        TensorInfo::new("empty", DType::F16, [0, 4]),
        TensorInfo::new("odd bytes", DType::U8, [3]),
    ]
}

/// Bytes that differ from tensor to tensor and from place to place.
fn bytes(info: &TensorInfo) -> Vec<u8> {
    (0..info.byte_len()).map(|i| (i * 7 + info.name.len() * 31) as u8).collect()
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

fn write(path: &Path) {
    let mut writer = SafetensorsWriter::create(path, &infos(), &metadata()).unwrap();
    for info in infos() {
        writer.write(&info.name, &bytes(&info)).unwrap();
    }
    writer.finish().unwrap();
}

fn check(weights: &Safetensors) {
    assert_eq!(weights.infos(), infos());
    assert_eq!(weights.metadata(), &metadata());
    for info in infos() {
        assert_eq!(*weights.bytes(&info.name).unwrap(), bytes(&info), "{}", info.name);
        assert_eq!(weights.info(&info.name), Some(&info));
    }
    assert!(weights.bytes("none").unwrap_err().to_string().contains("no tensor \"none\""));
}

#[test]
fn one_file_comes_back_and_is_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    write(&first);
    write(&second);
    let contents = fs::read(&first).unwrap();
    assert_eq!(contents, fs::read(&second).unwrap());
    check(&Safetensors::open(&first).unwrap());

    let official = safetensors::SafeTensors::deserialize(&contents).unwrap();
    assert_eq!(official.len(), infos().len());
    for info in infos() {
        let tensor = official.tensor(&info.name).unwrap();
        assert_eq!((tensor.shape(), tensor.data()), (&*info.shape, &*bytes(&info)));
    }
}

#[test]
fn shards_follow_hugging_face() {
    let folder = tempfile::tempdir().unwrap();
    let files = write_sharded(folder.path(), &infos(), 64, &metadata(), |info| Ok::<_, FormatError>(bytes(info))).unwrap();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]);
    let index: serde_json::Value = serde_json::from_slice(&fs::read(&files[2]).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 60 + 4 + 14 + 3);
    assert_eq!(index["weight_map"]["layers.0.weight"], names[0]);
    assert_eq!(index["weight_map"]["half"], names[1]);
    check(&Safetensors::open(folder.path()).unwrap());

    let again = write_sharded(folder.path(), &infos(), 64, &metadata(), |info| Ok::<_, FormatError>(bytes(info)));
    assert!(again.unwrap_err().to_string().contains("already holds weights"));

    let single = tempfile::tempdir().unwrap();
    let files = write_sharded(single.path(), &infos(), 1000, &metadata(), |info| Ok::<_, FormatError>(bytes(info))).unwrap();
    assert_eq!(files, [single.path().join("model.safetensors")]);
    check(&Safetensors::open(single.path()).unwrap());
}

#[test]
fn broken_folders_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = |folder: &Path| Safetensors::open(folder).err().unwrap().to_string();
    assert!(message(folder.path()).contains("neither model.safetensors nor model.safetensors.index.json"));
    assert!(message(&folder.path().join("none")).contains("hint: check the path"));

    write_sharded(folder.path(), &infos(), 64, &metadata(), |info| Ok::<_, FormatError>(bytes(info))).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    let with = |from: &str, to: &str| {
        fs::write(&index, text.replace(from, to)).unwrap();
        message(folder.path())
    };
    assert!(with("\"half\"", "\"other\"").contains("tensor \"other\" should lie in model-00002-of-00002.safetensors"));
    assert!(with("\"half\": \"model-00002-of-00002.safetensors\",", "").contains("tensor \"half\" of a shard is not listed"));
    assert!(with("model-00002-of", "../model-00002-of").contains("is not the plain name of a file"));
    assert!(with("\"half\": \"model-00002", "\"half\": \"model-00001").contains("tensor \"half\" should lie in model-00001"));
    assert!(with("weight_map", "weights").contains("missing field `weight_map`"));
    fs::write(&index, &text).unwrap();
    let shard = folder.path().join("model-00001-of-00002.safetensors");
    let contents = fs::read(&shard).unwrap();
    fs::write(&shard, &contents[..contents.len() - 6]).unwrap();
    let cut = message(folder.path());
    assert!(cut.contains("model-00001-of-00002.safetensors are cut in tensor") && cut.contains("6 bytes are missing"), "{cut}");
    fs::remove_file(&shard).unwrap();
    assert!(message(folder.path()).contains("model-00001-of-00002.safetensors: the shard is missing that"));
}

#[test]
fn the_writer_keeps_to_what_was_announced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let infos = [TensorInfo::new("a", DType::F32, [2]), TensorInfo::new("b", DType::F32, [1])];
    let mut writer = SafetensorsWriter::create(&path, &infos, &metadata()).unwrap();
    assert!(writer.write("b", &[0; 4]).unwrap_err().to_string().contains("\"b\" comes where \"a\" was announced"));
    assert!(writer.write("a", &[0; 4]).unwrap_err().to_string().contains("has 4 bytes where 8 were announced"));
    writer.write("a", &[0; 8]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("\"b\" was announced and not written"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn floats_are_converted_and_integers_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let values = [0.5, -2.0, 1.0 / 1024.0];
    let types = [DType::F64, DType::F32, DType::F16, DType::BF16];
    let mut infos: Vec<_> = types.iter().map(|dtype| TensorInfo::new(dtype.name(), *dtype, [3])).collect();
    infos.push(TensorInfo::new("numbers", DType::U8, [3]));
    let mut writer = SafetensorsWriter::create(&path, &infos, &BTreeMap::new()).unwrap();
    for dtype in types {
        writer.write(dtype.name(), &encode_f32(&values, dtype).unwrap()).unwrap();
    }
    writer.write("numbers", &[1, 2, 3]).unwrap();
    writer.finish().unwrap();
    let weights = Safetensors::open(&path).unwrap();
    for dtype in types {
        assert_eq!(weights.f32(dtype.name()).unwrap(), values);
    }
    let refused = weights.f32("numbers").unwrap_err().to_string();
    assert!(refused.contains("tensor \"numbers\": elements of type U8 cannot be read as f32"), "{refused}");
}
