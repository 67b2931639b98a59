//! A file (ours or CoreNet's) and overrides into a configuration that can be run.

use std::path::Path;

use serde_yaml_ng::Value;

use super::corenet;
use super::error::{ConfigError, Place};
use super::locate::locate;
use super::overrides::{Override, folder_of, parse_all};
use super::parse::{Fault, Segment, from_text, from_value};
use super::{RunConfig, paths};

/// A configuration, and what its reader has to tell the user.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Complete, valid, with absolute paths.
    pub config: RunConfig,
    /// A line for each key that has no effect in this program, and for what else its reader took for granted.
    pub notes: Vec<String>,
    /// Whether the file was in CoreNet's form.
    pub corenet: bool,
}

impl RunConfig {
    /// Reads a configuration file in our form or CoreNet's, and lays `overrides` (`dotted.key=value`, the value in YAML, lists
    /// by index) over it. Relative paths in the file are relative to the file's folder; relative paths in an override are
    /// relative to the current directory.
    ///
    /// # Errors
    /// The first problem: a file that cannot be read, broken YAML, an unknown or missing key, a value that cannot be.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Loaded, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::load_text(&text, path, overrides)
    }

    /// The same for a text that was read already; `path` names it in errors, and its folder is what paths are relative to.
    ///
    /// # Errors
    /// As [`RunConfig::load`].
    pub fn load_text(text: &str, path: &Path, overrides: &[String]) -> Result<Loaded, ConfigError> {
        let source = Source { text, path };
        let value: Value = from_text(text).map_err(|fault| source.fault(fault, &[]))?;
        if corenet::is_corenet(&value) {
            return corenet::load_text(text, path, overrides);
        }
        let overrides = parse_all(overrides)?;
        let mut config: RunConfig = source.read(value, &overrides)?;
        paths::resolve(&mut config, &folder_of(path)?);
        config.validate().map_err(|error| source.place(error, &overrides))?;
        Ok(Loaded { config, notes: Vec::new(), corenet: false })
    }

    /// Lays overrides over a configuration that was made already.
    ///
    /// # Errors
    /// When an override cannot be applied, or makes the configuration unreadable.
    pub(super) fn overridden(self, overrides: &[Override]) -> Result<Self, ConfigError> {
        if overrides.is_empty() {
            return Ok(self);
        }
        let mut value = serde_yaml_ng::to_value(&self).map_err(|source| ConfigError::Write { reason: source.to_string() })?;
        for one in overrides {
            one.apply(&mut value)?;
        }
        from_value(value).map_err(|fault| {
            let place = override_at(overrides, &fault.path).unwrap_or(Place::Memory);
            fault.at(place)
        })
    }
}

/// The text of a file, for finding out where a problem stands.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub text: &'a str,
    pub path: &'a Path,
}

impl Source<'_> {
    /// Strict reading, straight from the text where there is no override (every error then has a line), else through the value.
    pub fn read<T: serde::de::DeserializeOwned>(&self, mut value: Value, overrides: &[Override]) -> Result<T, ConfigError> {
        if overrides.is_empty() {
            return from_text(self.text).map_err(|fault| self.fault(fault, &[]));
        }
        for one in overrides {
            one.apply(&mut value)?;
        }
        from_value(value).map_err(|fault| {
            if override_at(overrides, &fault.path).is_some() {
                return self.fault(fault, overrides);
            }
            // The file itself is wrong: read it again for the line.
            match from_text::<T>(self.text) {
                Err(with_line) => self.fault(with_line, &[]),
                Ok(_) => self.fault(fault, &[]),
            }
        })
    }

    /// The error of a fault, standing in the override that caused it or in the file.
    pub fn fault(&self, mut fault: Fault, overrides: &[Override]) -> ConfigError {
        if let Some(place) = override_at(overrides, &fault.path) {
            return fault.at(place);
        }
        let line_column = fault.line_column.take().or_else(|| locate(self.text, &fault.path));
        fault.at(Place::File { path: self.path.to_owned(), line_column })
    }

    /// Whether an override set what the error is about.
    pub fn is_overridden(&self, error: &ConfigError, overrides: &[Override]) -> bool {
        error.key().is_some_and(|key| override_at(overrides, &segments(key)).is_some())
    }

    /// The same error, standing in the override that set its key or at the key's line.
    pub fn place(&self, error: ConfigError, overrides: &[Override]) -> ConfigError {
        let path = error.key().map(segments).unwrap_or_default();
        let place = override_at(overrides, &path)
            .unwrap_or_else(|| Place::File { path: self.path.to_owned(), line_column: locate(self.text, &path) });
        error.at(place)
    }
}

fn override_at(overrides: &[Override], path: &[Segment]) -> Option<Place> {
    let one = overrides.iter().rev().find(|one| one.touches(path))?;
    Some(Place::Override(one.text.clone()))
}

/// `a.b[0]` taken apart.
fn segments(key: &str) -> Vec<Segment> {
    key.replace('[', ".")
        .replace(']', "")
        .split('.')
        .map(|part| match part.parse() {
            Ok(index) => Segment::Index(index),
            Err(_) => Segment::Key(part.to_owned()),
        })
        .collect()
}
