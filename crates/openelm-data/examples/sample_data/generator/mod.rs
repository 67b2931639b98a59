//! Writes texts whose exact probability is known.

pub mod article;
pub mod blog;
pub mod code;
pub mod derive;
pub mod document;
pub mod draw;
pub mod english;
pub mod grammar;
pub mod kinds;
pub mod notes;
pub mod questions;
pub mod scribe;
pub mod story;
pub mod stream;
pub mod sums;
pub mod world;
