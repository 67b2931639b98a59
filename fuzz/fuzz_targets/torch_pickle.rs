//! The pickle of a `.pt` file, in an archive with two sound storages: the machine, the allow-list, and the views that it makes.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use openelm_formats::TorchFile;
use openelm_fuzz::{BASE, file, within};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

#[path = "../src/torch_tree.rs"]
mod torch_tree;

fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let storages: [&[u8]; 2] = [&[7; 48], &[9; 8]];
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", storages[0]), ("a/data/1", storages[1])] {
        zip.start_file(name, options).expect("memory takes any name");
        zip.write_all(bytes).expect("memory takes any bytes");
    }
    zip.finish().expect("memory takes any bytes").into_inner()
}

fuzz_target!(|pickle: &[u8]| {
    let path = file("a.pt", &archive(pickle));
    let Ok(torch) = within(BASE + 256 * pickle.len(), || TorchFile::open(&path)) else { return };
    torch_tree::check(&torch);
});
