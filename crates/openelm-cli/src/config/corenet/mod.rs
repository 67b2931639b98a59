//! CoreNet's YAML, read into our form and written from it.
//!
//! What must stay true: every key is used, is an error, or is named once in the notes as having no effect; a file that was
//! written here reads back as the configuration that it was written from.

mod anchors;
mod file;
mod keys;
mod names;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use serde_yaml_ng::Value;

use self::file::File;
use self::keys::Owner;
use self::read::Supplied;
use super::error::{ConfigError, Place};
use super::load::{Loaded, Source};
use super::overrides::{Override, folder_of, parse_all};
use super::parse::{Segment, from_text, nearest_hint};
use super::paths;

pub use write::to_yaml;
#[cfg(test)]
pub(super) use {keys::Effect, keys::KEYS};

/// Whether a file is in CoreNet's form rather than in ours.
pub fn is_corenet(value: &Value) -> bool {
    keys::mostly_corenet(value)
}

/// Reads a text in CoreNet's form; `path` names it in errors, and its folder is what relative paths in it are relative to.
/// Overrides with CoreNet's keys are laid over the file, then those with our keys over what it became.
///
/// # Errors
/// The first problem, at its line or at the override that caused it; in CoreNet's words where the file is to be changed.
pub fn load_text(text: &str, path: &Path, overrides: &[String]) -> Result<Loaded, ConfigError> {
    let source = Source { text, path };
    let (theirs, ours) = split(overrides)?;
    let mut value: Value = from_text(text).map_err(|fault| source.fault(fault, &[]))?;
    let file: File = source.read(value.clone(), &theirs)?;
    for one in &theirs {
        one.apply(&mut value)?;
    }
    let mut notes = keys::without_effect(&value);
    let mut config = read::run_config(&file, supplied(&ours), &mut notes).map_err(|error| source.place(error, &theirs))?;
    paths::resolve(&mut config, &folder_of(path)?);
    let config = config.overridden(&ours)?;
    config.validate().map_err(|error| match error.key().and_then(keys::theirs) {
        _ if source.is_overridden(&error, &ours) => source.place(error, &ours),
        Some(key) => source.place(error.about(key), &theirs),
        None => source.place(error, &theirs),
    })?;
    Ok(Loaded { config, notes, corenet: true })
}

/// Overrides with CoreNet's keys, and those with ours.
fn split(overrides: &[String]) -> Result<(Vec<Override>, Vec<Override>), ConfigError> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for one in parse_all(overrides)? {
        let second = one.path.get(1).and_then(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        });
        match keys::owner(one.section(), second) {
            Owner::CoreNet => theirs.push(one),
            Owner::Ours => ours.push(one),
            Owner::Nobody => {
                return Err(ConfigError::UnknownKey {
                    hint: nearest_hint(one.section(), &keys::sections()),
                    key: one.section().to_owned(),
                    place: Place::Override(one.text),
                });
            }
        }
    }
    Ok((theirs, ours))
}

fn supplied(ours: &[Override]) -> Supplied {
    let sets = |section: &str, key: &str| {
        ours.iter().any(|one| one.section() == section && one.path.get(1).is_none_or(|segment| *segment == Segment::Key(key.to_owned())))
    };
    Supplied { tokenizer: sets("tokenizer", "path") || sets("tokenizer", "train"), corpora: sets("data", "corpora") }
}
