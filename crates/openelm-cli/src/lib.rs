//! What the `openelm` program is made of. Glue only: everything that computes lives in the other crates.

pub mod config;
