//! What can be wrong with a configuration file, in the form `place: key: reason` and a separate `hint:` line.

use std::fmt;
use std::path::PathBuf;

/// Where a problem stands: a file, with line and column (counted from 1) where they are known, or an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File {
        path: PathBuf,
        line_column: Option<(usize, usize)>,
    },
    /// The `dotted.key=value` as it was given.
    Override(String),
    /// A configuration that was made in memory.
    Memory,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line_column: Some((line, column)) } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::File { path, line_column: None } => write!(f, "{}", path.display()),
            Self::Override(text) => write!(f, "--set {text}"),
            Self::Memory => f.write_str("configuration"),
        }
    }
}

/// A configuration that cannot be used. The last line of each message is a hint.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read at all.
    #[error("{}: cannot be read: {source}\nhint: check the path of the configuration file", path.display())]
    Read { path: PathBuf, source: std::io::Error },

    /// The text is no YAML.
    #[error("{place}: {reason}\nhint: {hint}")]
    Syntax { place: Place, reason: String, hint: String },

    /// A key that the form does not have.
    #[error("{place}: {key}: unknown key\nhint: {hint}")]
    UnknownKey { place: Place, key: String, hint: String },

    /// A required key that is absent.
    #[error("{place}: {key}: is missing\nhint: {hint}")]
    MissingKey { place: Place, key: String, hint: String },

    /// A value of the wrong type, or none of the accepted ones.
    #[error("{place}: {key}: {reason}\nhint: {hint}")]
    BadValue { place: Place, key: String, reason: String, hint: String },

    /// A well-formed value that makes the run impossible.
    #[error("{place}: {key}: {reason}\nhint: {hint}")]
    Impossible { place: Place, key: String, reason: String, hint: String },

    /// An override that cannot be applied.
    #[error("--set {text}: {reason}\nhint: {hint}")]
    Override { text: String, reason: String, hint: String },

    /// Something that CoreNet's form has no words for.
    #[error("{key}: CoreNet cannot say this: {reason}\nhint: {hint}")]
    NotInCoreNet { key: String, reason: String, hint: String },

    /// The writer failed.
    #[error("the configuration cannot be written as YAML: {reason}\nhint: report this, with the configuration")]
    Write { reason: String },
}

impl ConfigError {
    /// A value that cannot be, before anyone knows where it stands.
    pub(super) fn impossible(key: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Impossible { place: Place::Memory, key: key.into(), reason: reason.into(), hint: hint.into() }
    }

    /// The dotted key that the error is about.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { key, .. }
            | Self::MissingKey { key, .. }
            | Self::BadValue { key, .. }
            | Self::Impossible { key, .. }
            | Self::NotInCoreNet { key, .. } => Some(key),
            Self::Read { .. } | Self::Syntax { .. } | Self::Override { .. } | Self::Write { .. } => None,
        }
    }

    /// The same error about another key.
    pub(super) fn about(mut self, new: String) -> Self {
        match &mut self {
            Self::UnknownKey { key, .. }
            | Self::MissingKey { key, .. }
            | Self::BadValue { key, .. }
            | Self::Impossible { key, .. }
            | Self::NotInCoreNet { key, .. } => *key = new,
            Self::Read { .. } | Self::Syntax { .. } | Self::Override { .. } | Self::Write { .. } => {}
        }
        self
    }

    /// The same error standing at `place`.
    pub(super) fn at(mut self, new: Place) -> Self {
        match &mut self {
            Self::Syntax { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::MissingKey { place, .. }
            | Self::BadValue { place, .. }
            | Self::Impossible { place, .. } => *place = new,
            Self::Read { .. } | Self::Override { .. } | Self::NotInCoreNet { .. } | Self::Write { .. } => {}
        }
        self
    }
}
