//! A `.pt` file as it stands: the zip archive, its entries and their checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_formats::TorchFile;
use openelm_fuzz::{BASE, file, within};

#[path = "../src/torch_tree.rs"]
mod torch_tree;

fuzz_target!(|bytes: &[u8]| {
    let path = file("a.pt", bytes);
    // An entry may be compressed by 64 to 1, and a node of the pickle takes up to a hundred times its bytes.
    let Ok(torch) = within(BASE + 64 * 128 * bytes.len(), || TorchFile::open(&path)) else { return };
    torch_tree::check(&torch);
});
