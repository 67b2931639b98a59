//! What can be wrong with a chat template, or with a conversation for it.

use minijinja::{Error, ErrorKind};
use thiserror::Error as ThisError;

/// Why a conversation has no text.
#[derive(Debug, ThisError)]
pub enum ChatTemplateError {
    /// Not Jinja.
    #[error(
        "chat template {origin}, line {line}: {reason}\nhint: the template must be Jinja as transformers reads it; correct it, or give another one"
    )]
    Parse { origin: String, line: usize, reason: String },
    /// The template itself says that it does not take these messages.
    #[error("chat template {origin} refuses these messages: {reason}\nhint: send the roles in the order that the model was trained with")]
    Refused { origin: String, reason: String },
    /// The template works on and on, or writes more than any conversation is long.
    #[error(
        "chat template {origin}, line {line}: it does not come to an end\nhint: look for an endless or a very large loop in the template, or shorten the conversation"
    )]
    Endless { origin: String, line: usize },
    /// The template asks for something that is not there.
    #[error("chat template {origin}, line {line}: {reason}\nhint: correct the template, or send the messages that it asks for")]
    Render { origin: String, line: usize, reason: String },
}

impl ChatTemplateError {
    pub(super) fn parse(origin: &str, error: &Error) -> Self {
        Self::Parse { origin: origin.to_owned(), line: error.line().unwrap_or(1), reason: reason(error) }
    }

    pub(super) fn render(origin: &str, error: &Error) -> Self {
        let (origin, line) = (origin.to_owned(), error.line().unwrap_or(1));
        let mut cause = Some(error as &dyn std::error::Error);
        while let Some(inner) = cause {
            if let Some(Raised(reason)) = inner.downcast_ref() {
                return Self::Refused { origin, reason: reason.clone() };
            }
            if inner.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
                return Self::Endless { origin, line };
            }
            cause = inner.source();
        }
        Self::Render { origin, line, reason: reason(error) }
    }
}

fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// What a template gave to `raise_exception`.
#[derive(Debug, ThisError)]
#[error("{0}")]
pub(super) struct Raised(pub String);
