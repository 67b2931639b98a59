//! The index of a folder of safetensors shards, beside two sound shards: it is taken only where it lists what they hold.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use openelm_formats::{DType, Safetensors, SafetensorsWriter, TensorInfo, TensorSource};
use openelm_fuzz::{BASE, file, folder, read_all, within};

static SHARDS: Once = Once::new();

fn write_shards() {
    for (shard, name) in [("s1.safetensors", "a"), ("s2.safetensors", "b")] {
        let info = TensorInfo::new(name, DType::F32, [2]);
        let mut writer = SafetensorsWriter::create(&folder().join(shard), &[info], &BTreeMap::new()).expect("a shard can be written");
        writer.write(name, &[1; 8]).expect("it has eight bytes");
        writer.finish().expect("all were written");
    }
}

fuzz_target!(|bytes: &[u8]| {
    SHARDS.call_once(write_shards);
    file("model.safetensors.index.json", bytes);
    let Ok(weights) = within(BASE + 64 * bytes.len(), || Safetensors::open(folder())) else { return };
    let names: Vec<&str> = weights.infos().iter().map(|info| info.name.as_str()).collect();
    assert!(names.iter().all(|name| ["a", "b"].contains(name)), "{names:?}");
    read_all(&weights);
});
