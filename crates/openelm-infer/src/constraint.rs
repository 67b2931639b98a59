//! Answers that must have a form: which tokens may come next, by the `llguidance` parser.
//!
//! What must stay true: every token of an answer that is allowed here leads on to an answer of the form; what may come next depends on the
//! tokens of the answer so far alone.

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use openelm_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::error::InferError;

/// White space between two parts of a JSON text: a space, or a line's end and the next one's indentation. A model that is unsure would
/// write blanks for ever.
const WHITE_SPACE: &str = r"\x20|\x0A[\x20\x09]{0,20}";

/// What an answer must be, as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerForm {
    /// A JSON object.
    JsonObject,
    /// A JSON value of this schema (JSON Schema 2020-12 and older; what the parser does not know is refused).
    JsonSchema(Value),
    /// A text that this regular expression matches from its begin to its end.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of this grammar, in the parser's dialect of Lark.
    Grammar(String),
}

/// Makes constraints for the tokens of one tokenizer.
pub struct Constraints {
    factory: ParserFactory,
}

impl Constraints {
    /// For a model with `vocabulary` tokens.
    ///
    /// # Errors
    /// When no token has bytes of its own: a `tokenizer.json` that is neither LLaMA-like nor byte-level.
    pub fn new(tokenizer: &Tokenizer, vocabulary: usize) -> Result<Self, InferError> {
        let bytes = |id: usize| u32::try_from(id).ok().and_then(|id| tokenizer.token_bytes(id)).unwrap_or_default();
        // No text in UTF-8 has the byte 255, which marks special tokens in the parser's table.
        let mut words: Vec<Vec<u8>> = (0..vocabulary).map(bytes).map(|word| if word.contains(&255) { Vec::new() } else { word }).collect();
        if words.iter().all(Vec::is_empty) {
            return Err(InferError::TokensWithoutBytes);
        }
        let eos = match tokenizer.eos_id().filter(|id| (*id as usize) < vocabulary) {
            Some(eos) => eos,
            // A token past the last one, which no model gives.
            None => {
                words.push(Vec::new());
                vocabulary as u32
            }
        };
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, eos), &words);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &SlicedBiasComputer::general_slices());
        let mut factory = factory.map_err(|error| InferError::Form { reason: error.to_string() })?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    /// The constraint of one answer at its begin.
    ///
    /// # Errors
    /// When the form contradicts itself, or has what the parser does not know.
    pub fn of(&self, form: &AnswerForm) -> Result<Constraint, InferError> {
        let grammar = match form {
            AnswerForm::JsonObject => TopLevelGrammar::from_json_schema(with_white_space(json!({"type": "object"}))),
            AnswerForm::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_white_space(schema.clone())),
            AnswerForm::Regex(regex) => TopLevelGrammar::from_regex(regex),
            AnswerForm::Choice(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
                TopLevelGrammar::from_lark(format!("start: {}", texts.join(" | ")))
            }
            AnswerForm::Grammar(lark) => TopLevelGrammar::from_lark(lark.clone()),
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(reason) => Err(InferError::Form { reason }),
            None => Ok(Constraint(matcher)),
        }
    }
}

/// Limits white space, unless the schema says itself how a text is laid out.
fn with_white_space(mut schema: Value) -> Value {
    if let Value::Object(keys) = &mut schema
        && !keys.contains_key("x-guidance")
    {
        keys.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITE_SPACE}));
    }
    schema
}

/// Where an answer stands in its form.
#[derive(Clone)]
pub struct Constraint(Matcher);

impl Constraint {
    /// Sets the logits of all tokens that must not come next to -∞.
    ///
    /// # Errors
    /// When no token may come next, or the form is too complicated to go on.
    pub fn restrict(&mut self, logits: &mut [f32]) -> Result<(), InferError> {
        let mask = self.0.compute_mask_or_eos().map_err(|error| InferError::Form { reason: error.to_string() })?;
        let mut any = false;
        for (logits, word) in logits.chunks_mut(32).zip(mask.as_slice()) {
            for (bit, logit) in logits.iter_mut().enumerate() {
                match word & (1 << bit) {
                    0 => *logit = f32::NEG_INFINITY,
                    _ => any = true,
                }
            }
        }
        if any { Ok(()) } else { Err(InferError::Form { reason: "no token leads on to a text of the form".to_owned() }) }
    }

    /// Takes the token that came next.
    ///
    /// # Errors
    /// When it must not come next.
    pub fn accept(&mut self, id: u32) -> Result<(), InferError> {
        self.0.consume_token(id).map_err(|error| InferError::Form { reason: error.to_string() })
    }

    /// Whether the answer has its form, and nothing but its end may follow.
    pub fn is_whole(&self) -> bool {
        self.0.is_stopped()
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("whole", &self.is_whole()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraints").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::path::Path;

    use openelm_tokenizer::{BpeTraining, train};

    use super::*;

    /// Writes the text that is allowed and, of what is allowed, has the smallest ids.
    fn first(constraint: &mut Constraint, tokenizer: &Tokenizer, vocabulary: usize) -> String {
        let mut bytes = Vec::new();
        while !constraint.is_whole() {
            let mut logits = vec![0.0; vocabulary];
            constraint.restrict(&mut logits).unwrap();
            let id = logits.iter().position(|logit| *logit == 0.0).unwrap();
            constraint.accept(id as u32).unwrap();
            bytes.extend(tokenizer.token_bytes(id as u32).unwrap_or_default());
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn rows_beyond_the_tokenizer_are_never_allowed() {
        let texts = ["the small bird sings a song of the sea"];
        let tokenizer = train(&BpeTraining::new(280), texts.iter().map(|text| Ok::<_, Infallible>((*text).to_owned()))).unwrap();
        let vocabulary = tokenizer.vocab_size() + 51;
        let constraints = Constraints::new(&tokenizer, vocabulary).unwrap();
        let form = AnswerForm::Choice(vec!["the bird".into(), "the song".into()]);
        let mut constraint = constraints.of(&form).unwrap();
        let mut logits = vec![1.0; vocabulary];
        constraint.restrict(&mut logits).unwrap();
        for (id, logit) in logits.iter().enumerate() {
            let begins =
                tokenizer.token_bytes(id as u32).is_some_and(|bytes| !bytes.is_empty() && "the bird".as_bytes().starts_with(&bytes));
            let other =
                tokenizer.token_bytes(id as u32).is_some_and(|bytes| !bytes.is_empty() && "the song".as_bytes().starts_with(&bytes));
            assert_eq!(*logit == 1.0, begins || other, "{id}");
            assert!(*logit == 1.0 || *logit == f32::NEG_INFINITY);
        }
        assert!(["the bird", "the song"].contains(&first(&mut constraint, &tokenizer, vocabulary).as_str()));
        // A constraint's copies go their own ways, and what is not allowed is not taken.
        let begin = constraints.of(&form).unwrap();
        let mut copy = begin.clone();
        first(&mut copy, &tokenizer, vocabulary);
        assert!(copy.is_whole() && !begin.is_whole());
        assert!(begin.clone().accept(tokenizer.eos_id().unwrap()).is_err());
    }

    #[test]
    fn tokens_without_bytes_cannot_be_constrained() {
        let words = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
            "pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
        });
        let tokenizer = Tokenizer::from_json_bytes(words.to_string().as_bytes(), Path::new("tokenizer.json")).unwrap();
        assert!(matches!(Constraints::new(&tokenizer, 2), Err(InferError::TokensWithoutBytes)));
    }
}
