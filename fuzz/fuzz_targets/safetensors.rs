//! safetensors, one file: header and all tensors; written again and read again, they are the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_formats::{Safetensors, SafetensorsWriter, TensorSource};
use openelm_fuzz::{BASE, file, folder, read_all, within};

fuzz_target!(|bytes: &[u8]| {
    let path = file("a.safetensors", bytes);
    // A dimension takes 2 bytes of the file and 8 of memory, in a list that may double.
    let Ok(weights) = within(BASE + 64 * bytes.len(), || Safetensors::open(&path)) else { return };
    read_all(&weights);
    let copy = folder().join("b.safetensors");
    // The writer keeps data aligned, which the format does not ask for.
    let Ok(mut writer) = SafetensorsWriter::create(&copy, weights.infos(), weights.metadata()) else { return };
    for info in weights.infos() {
        writer.write(&info.name, &weights.bytes(&info.name).expect("it is listed")).expect("it is as long as it says");
    }
    writer.finish().expect("all were written");
    let again = Safetensors::open(&copy).expect("what was written can be read");
    assert_eq!((weights.infos(), weights.metadata()), (again.infos(), again.metadata()));
    for info in weights.infos() {
        assert_eq!(weights.bytes(&info.name).expect("it is listed"), again.bytes(&info.name).expect("it is listed"));
    }
});
