//! Files of conversations into examples: read, checked, rendered, tokenized, counted.
//!
//! What must stay true: every row is an example, a counted skip, or an error with its file and place; examples stand in the order
//! of the files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use openelm_tokenizer::{ChatTemplate, Tokenizer};
use openelm_train::{Row, read_rows};
use sha2::{Digest, Sha256};

use crate::dialogue_tokens::{Learnt, TrainOn, dialogue_tokens, refused};
use crate::error::{Fault, FinetuneError};
use crate::layout::{Layout, dialogue_of, preference_of};
use crate::pair_tokens::{Ends, PairLimits, PairTokens, pair_tokens};

/// What a row that is no example leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadRow {
    /// An error that names it.
    #[default]
    Stop,
    /// It is counted and passed over.
    Skip,
}

/// What came of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub rows: u64,
    pub kept: u64,
    /// Rows that were passed over, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Pairs whose answers are the same text, and so teach nothing; kept, as TRL does.
    pub same: u64,
    /// Pairs whose answers became the same when they were cut; kept.
    pub same_when_cut: u64,
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} kept", self.rows, self.kept)?;
        for (kind, count) in &self.skipped {
            write!(f, "; {count} skipped ({kind})")?;
        }
        if self.same > 0 {
            write!(f, "; {} with two equal answers", self.same)?;
        }
        if self.same_when_cut > 0 {
            write!(f, "; {} whose answers are equal once they are cut", self.same_when_cut)?;
        }
        Ok(())
    }
}

/// With what rows become tokens.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    pub tokenizer: &'a Tokenizer,
    pub template: &'a ChatTemplate,
    pub on_bad_row: OnBadRow,
}

/// Examples of one kind.
#[derive(Clone, Debug)]
pub struct Examples<T> {
    pub examples: Vec<T>,
    pub survey: Survey,
}

impl Reader<'_> {
    /// The pairs in `files` (paths and globs).
    ///
    /// # Errors
    /// When a file does not read, a row is no pair (and bad rows stop), or nothing is left.
    pub fn pairs(&self, files: &[String], limits: PairLimits) -> Result<Examples<PairTokens>, FinetuneError> {
        let ends = Ends::of(self.tokenizer)?;
        let mut same = (0, 0);
        let mut read = self.read(files, |row| {
            let preference = preference_of(&row.fields)?;
            let render = |messages| self.template.render(messages, self.tokenizer, false).map_err(|error| refused(&error));
            let (prompt, chosen, rejected) = (render(&preference.prompt)?, render(&preference.chosen)?, render(&preference.rejected)?);
            let pair = pair_tokens(self.tokenizer, ends, (&prompt, &chosen, &rejected), limits)?;
            if pair.chosen.counted() == 0 || pair.rejected.counted() == 0 {
                let reason = format!("no token of an answer is left within {} tokens", limits.max_length);
                return Err(Fault::new("emptied by max_length", reason, "raise data.max_length or lower data.max_prompt_length"));
            }
            if chosen == rejected {
                same.0 += 1;
            } else if pair.chosen == pair.rejected {
                same.1 += 1;
            }
            Ok(pair)
        })?;
        (read.survey.same, read.survey.same_when_cut) = same;
        Ok(read)
    }

    /// The conversations in `files` (paths and globs), of at most `max_length` tokens each.
    ///
    /// # Errors
    /// As [`pairs`](Self::pairs).
    pub fn dialogues(
        &self,
        files: &[String],
        layout: Layout,
        train_on: TrainOn,
        max_length: usize,
    ) -> Result<Examples<Learnt>, FinetuneError> {
        let ends = Ends::of(self.tokenizer)?;
        self.read(files, |row| {
            let dialogue = dialogue_of(&row.fields, layout)?;
            dialogue_tokens(&dialogue, self.tokenizer, self.template, ends, train_on, max_length)
        })
    }

    fn read<T>(&self, files: &[String], mut example: impl FnMut(&Row) -> Result<T, Fault>) -> Result<Examples<T>, FinetuneError> {
        let mut found = Examples { examples: Vec::new(), survey: Survey::default() };
        read_rows("conversations", files, |path: &Path, row: Row| {
            found.survey.rows += 1;
            match example(&row) {
                Ok(example) => {
                    found.survey.kept += 1;
                    found.examples.push(example);
                    Ok(())
                }
                // Cutting is the configuration's doing, not the row's fault.
                Err(fault) if self.on_bad_row == OnBadRow::Skip || fault.kind == "emptied by max_length" => {
                    *found.survey.skipped.entry(fault.kind).or_default() += 1;
                    Ok(())
                }
                Err(Fault { reason, hint, .. }) => {
                    Err(FinetuneError::Row { path: path.to_owned(), place: row.place.to_string(), reason, hint })
                }
            }
        })?;
        if found.examples.is_empty() {
            let reason = format!("nothing to learn from: {}", found.survey);
            return Err(FinetuneError::NoExamples {
                what: files.join(", "),
                reason,
                hint: "check data.files, data.layout and data.max_length",
            });
        }
        Ok(found)
    }
}

/// A digest of what a run learns from, for telling whether a resumed run has the same.
pub(crate) fn digest<'a>(rows: impl IntoIterator<Item = (&'a [u32], usize)>) -> String {
    let mut hash = Sha256::new();
    for (ids, prompt) in rows {
        hash.update((ids.len() as u64).to_le_bytes());
        hash.update((prompt as u64).to_le_bytes());
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    }
    hex(&hash.finalize()[..16])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
