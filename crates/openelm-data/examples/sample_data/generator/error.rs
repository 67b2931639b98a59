//! What can go wrong when the samples are made.

use thiserror::Error;

use super::draw::Halt;

#[derive(Debug, Error)]
pub enum SampleError {
    #[error("the grammar is broken: {0}\nhint: mend the class or the code that names it; the tests of the grammar find most mistakes")]
    Grammar(String),
    #[error("{file}: packing it as {format} failed: {reason}\nhint: this is a mistake of the generator, not of its input")]
    Pack { file: String, format: &'static str, reason: String },
}

impl SampleError {
    pub fn pack(file: &str, format: &'static str, reason: impl ToString) -> Self {
        Self::Pack { file: file.to_string(), format, reason: reason.to_string() }
    }
}

impl From<Halt> for SampleError {
    fn from(halt: Halt) -> Self {
        Self::Grammar(match halt {
            Halt::Fault(reason) => reason,
            // Only following stops in these ways, and `derive.rs` deals with both.
            Halt::Open(_) | Halt::Differs => "a script was followed where choices should be free".into(),
        })
    }
}
