//! The tokenizer: a vocabulary, a way to encode, a way to decode, and the files it came from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bpe::BpeEncoder;
use crate::decoder::{DecodeRules, DecodeState, Decoder};
use crate::error::TokenizerError;
use crate::fingerprint;
use crate::json_reader::read_json;
use crate::json_writer::{is_expressible, write_json};
use crate::library::LibraryTokenizer;
use crate::matcher::Matcher;
use crate::model_file::{Algorithm, ModelFile, PieceKind};
use crate::normalizer::Normalizer;
use crate::sentencepiece::bpe_of_model;
use crate::symbols::SPACE;
use crate::unigram::UnigramEncoder;
use crate::vocabulary::{Vocabulary, check_algorithm};

/// The names of the two files, in the order in which a folder is searched.
const MODEL: &str = "tokenizer.model";
const JSON: &str = "tokenizer.json";

/// Text to token ids and back. Cloning is cheap, and any number of threads may use it at once.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    parts: Arc<Parts>,
}

#[derive(Debug)]
pub(crate) struct Parts {
    pub vocabulary: Vocabulary,
    pub encoding: Encoding,
    pub decoding: Decoding,
    /// Control tokens, and the unknown token, by their texts.
    pub controls: Option<Matcher>,
    pub fingerprint: String,
    pub source: Source,
}

/// How text becomes ids.
#[derive(Debug)]
pub(crate) enum Encoding {
    Bpe {
        normalizer: Normalizer,
        encoder: Box<BpeEncoder>,
    },
    /// BPE by a list of merges, as `tokenizer.json` has it.
    ListedBpe {
        prefix: Prefix,
        encoder: Box<BpeEncoder>,
    },
    Unigram {
        normalizer: Normalizer,
        encoder: Box<UnigramEncoder>,
    },
    Library(Arc<LibraryTokenizer>),
}

/// When a space is put before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    Always,
    UnlessSpace,
    /// As `UnlessSpace`, but not for a text after a control token.
    FirstUnlessSpace,
    Never,
}

impl Prefix {
    fn applies(self, text: &str, first: bool) -> bool {
        let no_space = !text.starts_with([' ', SPACE]);
        match self {
            Self::Always => true,
            Self::UnlessSpace => no_space,
            Self::FirstUnlessSpace => first && no_space,
            Self::Never => false,
        }
    }
}

/// How ids become text.
#[derive(Debug)]
pub(crate) enum Decoding {
    Pieces(DecodeRules),
    Library(Arc<LibraryTokenizer>),
}

/// The file's contents, to be written again as they were.
#[derive(Debug)]
pub(crate) enum Source {
    Model { bytes: Vec<u8>, model: Box<ModelFile> },
    Json(Vec<u8>),
}

/// What another program must know to encode by pieces and scores as this tokenizer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceRules {
    /// Pieces are merged by score; otherwise a unigram model.
    pub bpe: bool,
    /// A space is put before a text.
    pub space_prefix: bool,
    /// Runs of spaces become one, and those at both ends go.
    pub collapses_spaces: bool,
    /// Characters are replaced before the text is cut.
    pub replaces_characters: bool,
}

impl Tokenizer {
    /// Loads `tokenizer.model` or `tokenizer.json`, or the one in a folder; of both, the model.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let file = find(path)?;
        let bytes = fs::read(&file).map_err(|source| TokenizerError::io(&file, "reading", source))?;
        match looks_like_json(&file, &bytes) {
            true => Self::from_json_bytes(&bytes, &file),
            false => Self::from_model_bytes(&bytes, &file),
        }
    }

    /// The tokenizer of a SentencePiece model's bytes. `path` names them in messages.
    pub fn from_model_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let model = ModelFile::parse(bytes, path)?;
        check_algorithm(&model, path)?;
        let vocabulary = Vocabulary::of_model(&model, path)?;
        if model.denormalizer.as_ref().is_some_and(|spec| !spec.charsmap.is_empty()) {
            let what = "a SentencePiece model with a denormalisation rule".to_owned();
            return Err(TokenizerError::Unsupported {
                path: path.to_owned(),
                what,
                hint: "train the model without denormalization_rule_tsv",
            });
        }
        let normalizer = Normalizer::of_model(&model, &vocabulary, path)?;
        let escaped = model.normalizer.escape_whitespaces;
        let encoding = match model.trainer.algorithm {
            Algorithm::Unigram => Encoding::Unigram { normalizer, encoder: Box::new(UnigramEncoder::new(&vocabulary, escaped)) },
            _ => Encoding::Bpe { normalizer, encoder: Box::new(bpe_of_model(&vocabulary, escaped)) },
        };
        let rules = DecodeRules {
            strip_first_space: model.normalizer.add_dummy_prefix || model.normalizer.remove_extra_whitespaces,
            strip_all_first_spaces: model.normalizer.remove_extra_whitespaces,
            unk_surface: model.trainer.unk_surface.clone(),
        };
        Ok(Self::new(Parts {
            controls: Matcher::new(vocabulary.of_kind(PieceKind::Control).chain(vocabulary.of_kind(PieceKind::Unknown))),
            fingerprint: fingerprint::of_model(&model),
            vocabulary,
            encoding,
            decoding: Decoding::Pieces(rules),
            source: Source::Model { bytes: bytes.to_vec(), model: Box::new(model) },
        }))
    }

    /// The tokenizer of a `tokenizer.json`'s bytes. `path` names them in messages; a `tokenizer_config.json` beside it is read for
    /// the names of the beginning, end and padding tokens.
    pub fn from_json_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        Ok(Self::new(read_json(bytes, path)?))
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The ids of `text`, without beginning and end. Texts of control tokens, such as `</s>`, are text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        // A token has four bytes of text or more, mostly.
        let mut ids = Vec::with_capacity(text.len() / 4);
        self.encode_into(text, &mut ids);
        ids
    }

    /// Appends the ids of `text`.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        self.encode_part(text, true, ids);
    }

    /// `first`: the text is not what follows a control token.
    fn encode_part(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        match &self.parts.encoding {
            Encoding::Bpe { normalizer, encoder } if normalizer.only_prefix() => encoder.encode(text, normalizer.add_dummy_prefix, ids),
            Encoding::Bpe { normalizer, encoder } => encoder.encode(&normalizer.normalize(text), false, ids),
            Encoding::ListedBpe { prefix, encoder } => encoder.encode(text, prefix.applies(text, first), ids),
            Encoding::Unigram { normalizer, encoder } => encoder.encode(&normalizer.normalize(text), ids),
            Encoding::Library(library) => library.encode(text, false, ids),
        }
    }

    /// The ids of `text`, in which control tokens' texts (and the unknown token's) are these tokens. What stands between them is encoded as a text of its
    /// own, as Hugging Face tokenizers does.
    pub fn encode_with_special(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        match (&self.parts.encoding, &self.parts.controls) {
            (Encoding::Library(library), _) => library.encode(text, true, &mut ids),
            (_, None) => self.encode_into(text, &mut ids),
            (_, Some(controls)) => {
                let mut first = true;
                controls.cut(text, |stretch, control| {
                    self.encode_part(stretch, first, &mut ids);
                    ids.extend(control);
                    first = false;
                });
            }
        }
        ids
    }

    /// The text of `ids`. Control tokens and ids outside the vocabulary are silent; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        if let Decoding::Library(library) = &self.parts.decoding {
            return library.decode(ids);
        }
        let (mut state, mut text) = (DecodeState::default(), String::new());
        for id in ids {
            state.push(self, *id, &mut text);
        }
        state.finish(self, &mut text);
        text
    }

    /// A decoder for ids that come one by one.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self.clone())
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) fn decoding(&self) -> &Decoding {
        &self.parts.decoding
    }

    /// The token that begins a text, if the tokenizer has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.parts.vocabulary.bos
    }

    /// The token that ends a text, if the tokenizer has one.
    pub fn eos_id(&self) -> Option<u32> {
        self.parts.vocabulary.eos
    }

    /// The token for what no other token covers, if the tokenizer has one.
    pub fn unk_id(&self) -> Option<u32> {
        self.parts.vocabulary.unk
    }

    /// The token that fills up a batch, if the tokenizer has one of its own.
    pub fn pad_id(&self) -> Option<u32> {
        self.parts.vocabulary.pad
    }

    /// `pad_id`, or, as in CoreNet, the id after the last.
    pub fn padding_id(&self) -> u32 {
        self.pad_id().unwrap_or(self.vocab_size() as u32)
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.parts.vocabulary.pieces.len()
    }

    /// A token as the vocabulary writes it: `▁the`, `<s>`, `<0x0A>`.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.parts.vocabulary.pieces.get(id as usize).map(|piece| piece.text.as_str()).filter(|text| !text.is_empty())
    }

    /// The id of a token written as `token` gives it.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.parts.vocabulary.id_of(token)
    }

    /// A token's score: the higher, the earlier it is merged. A `tokenizer.json` has none; then it is minus the place of the first
    /// merge that makes the token, and what no merge makes comes after all that one does.
    pub fn score(&self, id: u32) -> Option<f32> {
        self.parts.vocabulary.pieces.get(id as usize).map(|piece| piece.score)
    }

    /// What a token is for.
    pub fn kind(&self, id: u32) -> Option<PieceKind> {
        self.parts.vocabulary.kind(id)
    }

    /// How pieces are put together; `None` for a tokenizer that is no SentencePiece model and none of LLaMA's kind.
    pub fn piece_rules(&self) -> Option<PieceRules> {
        match (&self.parts.source, &self.parts.encoding) {
            (Source::Model { model, .. }, _) => Some(PieceRules {
                bpe: model.trainer.algorithm == Algorithm::Bpe,
                space_prefix: model.normalizer.add_dummy_prefix,
                collapses_spaces: model.normalizer.remove_extra_whitespaces,
                replaces_characters: !model.normalizer.charsmap.is_empty(),
            }),
            (Source::Json(_), Encoding::ListedBpe { prefix, .. }) => {
                Some(PieceRules { bpe: true, space_prefix: *prefix != Prefix::Never, collapses_spaces: false, replaces_characters: false })
            }
            (Source::Json(_), _) => None,
        }
    }

    /// SHA-256, in hexadecimal, of the vocabulary and all settings that the ids of a text depend on.
    pub fn fingerprint(&self) -> &str {
        &self.parts.fingerprint
    }

    /// Writes `tokenizer.json`, and `tokenizer.model` when this is a SentencePiece model, into the folder `dir`, which is made when
    /// it is missing. Files are written as they were read; a model's `tokenizer.json` is made from it, in LLaMA's form, and left out
    /// where that form cannot say all that the model does (unigram models, normalisation rules, unused or user-defined pieces).
    pub fn save(&self, dir: &Path) -> Result<(), TokenizerError> {
        fs::create_dir_all(dir).map_err(|source| TokenizerError::io(dir, "making the folder", source))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, bytes).map_err(|source| TokenizerError::io(&path, "writing", source))
        };
        match &self.parts.source {
            Source::Json(bytes) => write(JSON, bytes),
            Source::Model { bytes, model } => {
                if is_expressible(model, &self.parts.vocabulary) {
                    let json = write_json(model, &self.parts.vocabulary, &dir.join(JSON))?;
                    write(JSON, json.as_bytes())?;
                }
                write(MODEL, bytes)
            }
        }
    }
}

fn find(path: &Path) -> Result<PathBuf, TokenizerError> {
    let missing = |reason| TokenizerError::Missing { path: path.to_owned(), reason };
    if path.is_dir() {
        let candidates = [MODEL, JSON].map(|name| path.join(name));
        return candidates
            .into_iter()
            .find(|file| file.is_file())
            .ok_or_else(|| missing("the folder holds neither tokenizer.model nor tokenizer.json"));
    }
    if path.exists() { Ok(path.to_owned()) } else { Err(missing("no such file or folder")) }
}

/// By name; a file with another name by its first byte, since no SentencePiece model begins with a brace.
fn looks_like_json(path: &Path, bytes: &[u8]) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => true,
        Some("model") => false,
        _ => bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'),
    }
}
