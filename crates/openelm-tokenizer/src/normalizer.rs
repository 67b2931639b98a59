//! What SentencePiece does to a text before it is cut: characters replaced by rule, spaces put in front or taken out.
//!
//! Spaces stay spaces here; the symbols make them U+2581 where the model escapes them.

use std::path::Path;

use crate::charsmap::Charsmap;
use crate::error::TokenizerError;
use crate::matcher::Matcher;
use crate::model_file::ModelFile;
use crate::symbols::SPACE;
use crate::vocabulary::Vocabulary;

/// The rules of one model.
#[derive(Clone, Debug)]
pub(crate) struct Normalizer {
    charsmap: Option<Charsmap>,
    /// Texts that no rule touches.
    fixed: Option<Matcher>,
    pub add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
    suffix: bool,
}

impl Normalizer {
    pub fn of_model(model: &ModelFile, vocabulary: &Vocabulary, path: &Path) -> Result<Self, TokenizerError> {
        let spec = &model.normalizer;
        let charsmap = match spec.charsmap.as_slice() {
            [] => None,
            bytes => Some(
                Charsmap::parse(bytes)
                    .map_err(|reason| TokenizerError::bad_model(path, format!("normalisation rule {:?}", spec.name), reason))?,
            ),
        };
        Ok(Self {
            charsmap,
            fixed: Matcher::new(vocabulary.of_kind(crate::model_file::PieceKind::UserDefined)),
            add_dummy_prefix: spec.add_dummy_prefix,
            remove_extra_whitespaces: spec.remove_extra_whitespaces,
            escape_whitespaces: spec.escape_whitespaces,
            suffix: model.trainer.treat_whitespace_as_suffix,
        })
    }

    /// True when all that is done to a text is a space put in front of it, if that.
    pub fn only_prefix(&self) -> bool {
        self.charsmap.is_none() && !self.remove_extra_whitespaces && !(self.suffix && self.add_dummy_prefix)
    }

    /// The normalised text.
    pub fn normalize(&self, text: &str) -> String {
        let mut rest = text;
        let mut done = String::with_capacity(text.len() + 1);
        if self.remove_extra_whitespaces {
            while let Some((" ", length)) = self.start_of(rest) {
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        if rest.is_empty() {
            return done;
        }
        if self.add_dummy_prefix && !self.suffix {
            done.push(' ');
        }
        let mut after_space = self.remove_extra_whitespaces;
        while let Some((mut part, length)) = self.start_of(rest) {
            if after_space {
                part = part.trim_start_matches(' ');
            }
            done.push_str(part);
            if !part.is_empty() {
                after_space = self.remove_extra_whitespaces && part.ends_with(' ');
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        if self.remove_extra_whitespaces {
            let space = |char| char == ' ' || self.escape_whitespaces && char == SPACE;
            done.truncate(done.trim_end_matches(space).len());
        }
        if self.add_dummy_prefix && self.suffix {
            done.push(' ');
        }
        done
    }

    /// What the start of the text becomes, and how many bytes of it that covers; `None` at the end.
    fn start_of<'a>(&'a self, text: &'a str) -> Option<(&'a str, usize)> {
        if let Some((length, _)) = self.fixed.as_ref().and_then(|fixed| fixed.at_start(text)) {
            return Some((text.get(..length)?, length));
        }
        if let Some(found) = self.charsmap.as_ref().and_then(|charsmap| charsmap.at_start(text)) {
            return Some(found);
        }
        let length = text.chars().next()?.len_utf8();
        Some((text.get(..length)?, length))
    }
}
