//! One process's samples in CoreNet's order (`general_lm.py`, `generate_sample`; `base_lm.py`, `_tokenize_text`).
//!
//! Files in the order of `corenet_files.rs`; in each, documents in file order; each document split at single spaces into
//! pieces of `document_split_words` words; each piece that passes the filters cut to `sequence_length + 1` tokens or padded.
//! It never ends: epoch follows epoch. Pieces are tokenized in parallel and given in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::DataConfig;
use crate::corenet_files::{FileSchedule, Partition};
use crate::encoder::{TextEncoder, Verdict, Verdicts};
use crate::error::DataError;
use crate::prefetch::Source;
use crate::sequence::Sequence;
use crate::shard::{Shard, list_shards};
use crate::shard_reader::ShardReader;
use crate::skip_log::SkipLog;

/// Bytes of text, and pieces, that are tokenized in one go.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_PIECES: usize = 64;

/// The next piece to look at.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct PiecePosition {
    pub epoch: u64,
    /// Index into the epoch's list of the process's files.
    pub file: usize,
    /// Document in the file.
    pub document: u64,
    /// Piece of the document.
    pub piece: u64,
}

/// What became of one piece.
pub(crate) struct Outcome {
    pub source: Arc<str>,
    /// None when a filter skipped it.
    pub sequence: Option<Sequence>,
    /// The position after the piece.
    pub after: PiecePosition,
}

struct Piece {
    document: Arc<str>,
    range: Range<usize>,
    corpus: usize,
    source: Arc<str>,
    after: PiecePosition,
}

/// The endless stream of one process's pieces.
pub(crate) struct PieceStream {
    shards: Arc<[Shard]>,
    /// One for each corpus, with its filters.
    encoders: Vec<TextEncoder>,
    skip: Option<SkipLog>,
    length: usize,
    words: usize,
    schedule: FileSchedule,
    position: PiecePosition,
    reader: Option<ShardReader>,
    /// The open document and the byte at which its next piece starts.
    document: Option<(Arc<str>, usize)>,
    /// Of the current epoch; `None` when it was entered in the middle.
    verdicts: Option<Verdicts>,
}

impl PieceStream {
    pub fn new(
        config: &DataConfig,
        shards: Arc<[Shard]>,
        encoder: &TextEncoder,
        partition: Partition,
        position: PiecePosition,
        skip: Option<SkipLog>,
    ) -> Self {
        let mut schedule = FileSchedule::new(shards.len(), config.shuffle, config.seed, partition);
        schedule.advance_to(position.epoch);
        Self {
            shards,
            encoders: config.corpora.iter().map(|corpus| encoder.for_corpus(corpus)).collect(),
            skip,
            length: config.sequence_length,
            words: config.document_split_words,
            schedule,
            position,
            reader: None,
            document: None,
            verdicts: (position == PiecePosition { epoch: position.epoch, ..PiecePosition::default() }).then(Verdicts::default),
        }
    }

    /// The next chunk of pieces, never across the end of an epoch. Empty only when `stop` is set or an epoch just ended.
    pub fn advance(&mut self, stop: &AtomicBool) -> Result<Vec<Outcome>, DataError> {
        if self.position.file >= self.schedule.files().len() {
            self.end_epoch()?;
        }
        let mut pieces = Vec::new();
        let mut bytes = 0;
        while pieces.len() < CHUNK_PIECES && bytes < CHUNK_BYTES && !stop.load(Ordering::Relaxed) {
            let Some(piece) = self.next_piece()? else { break };
            bytes += piece.range.len();
            pieces.push(piece);
        }
        let (encoders, length) = (&self.encoders, self.length);
        let judged: Vec<(Verdict, Outcome)> = pieces
            .into_par_iter()
            .map_init(Vec::new, |ids, piece| {
                let encoder = &encoders[piece.corpus];
                let verdict = if stop.load(Ordering::Relaxed) {
                    Verdict::FewTokens
                } else {
                    encoder.encode(&piece.document[piece.range.clone()], ids)
                };
                let sequence = (verdict == Verdict::Kept).then(|| padded(ids, length, encoder.padding_id(), &piece.source));
                (verdict, Outcome { source: piece.source, sequence, after: piece.after })
            })
            .collect();
        let mut outcomes = Vec::with_capacity(judged.len());
        for (verdict, outcome) in judged {
            if let Some(verdicts) = &mut self.verdicts {
                verdicts.count(verdict);
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn end_epoch(&mut self) -> Result<(), DataError> {
        if let Some(verdicts) = self.verdicts.as_ref().filter(|verdicts| verdicts.kept == 0) {
            let files = self.schedule.files();
            let mut names: Vec<&str> = files.iter().filter_map(|file| self.shards.get(*file)).map(|shard| &*shard.corpus_name).collect();
            names.sort_unstable();
            names.dedup();
            return Err(verdicts.empty_corpus(&names.join(", "), files.len()));
        }
        self.position = PiecePosition { epoch: self.position.epoch + 1, ..PiecePosition::default() };
        self.schedule.advance_to(self.position.epoch);
        self.verdicts = Some(Verdicts::default());
        Ok(())
    }

    /// The next piece of the epoch; `None` at its end.
    fn next_piece(&mut self) -> Result<Option<Piece>, DataError> {
        loop {
            let Some(shard) = self.schedule.files().get(self.position.file).and_then(|file| self.shards.get(*file)) else {
                return Ok(None);
            };
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => {
                    let next = self.schedule.files().get(self.position.file + 1).and_then(|file| self.shards.get(*file));
                    next.iter().for_each(|next| next.fetch_ahead());
                    let mut reader = ShardReader::open(shard, self.skip.as_ref())?;
                    reader.skip_to(self.position.document)?;
                    none.insert(reader)
                }
            };
            let Some((text, begin)) = self.document.take() else {
                match reader.read_whole()? {
                    Some((text, _)) => {
                        let document = reader.document() - 1;
                        if document != self.position.document {
                            // Bad ones stood before it.
                            self.position = PiecePosition { document, piece: 0, ..self.position };
                        }
                        match skip_pieces(&text, self.words, self.position.piece) {
                            Some(begin) => self.document = Some((text.into(), begin)),
                            None => {
                                return Err(DataError::resume(
                                    format!("document {document} of {} has fewer than {} pieces", shard.source, self.position.piece + 1),
                                    "resume with the shards that the run was started with",
                                ));
                            }
                        }
                    }
                    None => {
                        self.reader = None;
                        self.position = PiecePosition { file: self.position.file + 1, document: 0, piece: 0, ..self.position };
                    }
                }
                continue;
            };
            let end = piece_end(&text, begin, self.words);
            let (source, corpus) = (shard.source.clone(), shard.corpus);
            if end < text.len() {
                self.position.piece += 1;
                self.document = Some((text.clone(), end + 1));
            } else {
                self.position.document += 1;
                self.position.piece = 0;
            }
            return Ok(Some(Piece { range: begin..end, document: text, corpus, source, after: self.position }));
        }
    }
}

/// The ids cut to `length + 1`, or filled up to it.
fn padded(ids: &[u32], length: usize, padding_id: u32, source: &Arc<str>) -> Sequence {
    let mut tokens = ids[..ids.len().min(length + 1)].to_vec();
    let padding = length + 1 - tokens.len();
    tokens.resize(length + 1, padding_id);
    Sequence { tokens, source: source.clone(), boundaries: vec![0], padding }
}

impl Source for PieceStream {
    type Item = (Sequence, PiecePosition);

    fn advance(&mut self, stop: &AtomicBool) -> Result<Vec<Self::Item>, DataError> {
        let outcomes = PieceStream::advance(self, stop)?;
        Ok(outcomes.into_iter().filter_map(|outcome| Some((outcome.sequence?, outcome.after))).collect())
    }
}

/// The end of the piece that starts at `begin`: the space after its last word, or the end of the text.
fn piece_end(text: &str, begin: usize, words: usize) -> usize {
    let spaces = text.as_bytes()[begin..].iter().enumerate().filter(|(_, byte)| **byte == b' ');
    spaces.skip(words - 1).map(|(at, _)| begin + at).next().unwrap_or(text.len())
}

/// The start of piece number `count`, if the text has so many.
fn skip_pieces(text: &str, words: usize, count: u64) -> Option<usize> {
    let mut begin = 0;
    for _ in 0..count {
        let end = piece_end(text, begin, words);
        if end == text.len() {
            return None;
        }
        begin = end + 1;
    }
    Some(begin)
}

/// Pieces of one file that were kept and skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceCounts {
    /// Path of the shard.
    pub source: Arc<str>,
    /// Pieces that became sequences.
    pub kept: u64,
    /// Pieces that a filter skipped.
    pub skipped: u64,
}

/// One worker's sequences in CoreNet's order, without end; ends after an error.
pub struct CorenetSequences {
    stream: PieceStream,
    ready: VecDeque<Outcome>,
    counts: Vec<PieceCounts>,
    failed: bool,
}

/// The sequences that one worker of one rank gives. `config.workers` is not looked at.
pub fn corenet_sequences(config: &DataConfig, tokenizer: &Tokenizer, partition: Partition) -> Result<CorenetSequences, DataError> {
    config.validate()?;
    partition.check()?;
    let encoder = TextEncoder::new(config, Arc::new(tokenizer.clone()))?;
    let shards = list_shards(&config.corpora, &config.object_store)?.into();
    let stream = PieceStream::new(config, shards, &encoder, partition, PiecePosition::default(), None);
    Ok(CorenetSequences { stream, ready: VecDeque::new(), counts: Vec::new(), failed: false })
}

impl CorenetSequences {
    /// Pieces of each file up to the last sequence given, in the order in which the files were met.
    pub fn counts(&self) -> &[PieceCounts] {
        &self.counts
    }

    /// The shards of the first epoch in the worker's order. Call it before the first sequence.
    pub fn files(&self) -> Vec<Arc<str>> {
        let files = self.stream.schedule.files().iter();
        files.filter_map(|file| self.stream.shards.get(*file)).map(|shard| shard.source.clone()).collect()
    }

    fn count(&mut self, source: &Arc<str>, kept: bool) {
        let index = match self.counts.iter().position(|counts| counts.source == *source) {
            Some(index) => index,
            None => {
                self.counts.push(PieceCounts { source: source.clone(), kept: 0, skipped: 0 });
                self.counts.len() - 1
            }
        };
        if kept {
            self.counts[index].kept += 1;
        } else {
            self.counts[index].skipped += 1;
        }
    }
}

impl Iterator for CorenetSequences {
    type Item = Result<Sequence, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.failed {
                return None;
            }
            let Some(outcome) = self.ready.pop_front() else {
                match self.stream.advance(&AtomicBool::new(false)) {
                    Ok(outcomes) => self.ready.extend(outcomes),
                    Err(error) => {
                        self.failed = true;
                        return Some(Err(error));
                    }
                }
                continue;
            };
            self.count(&outcome.source, outcome.sequence.is_some());
            if let Some(sequence) = outcome.sequence {
                return Some(Ok(sequence));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_python_split_and_join() {
        let pieces = |text: &str, words| {
            let mut out = Vec::new();
            let mut begin = 0;
            loop {
                let end = piece_end(text, begin, words);
                out.push(text[begin..end].to_owned());
                if end == text.len() {
                    return out;
                }
                begin = end + 1;
            }
        };
        assert_eq!(pieces("a b c d e", 2), ["a b", "c d", "e"]);
        assert_eq!(pieces("a  b", 2), ["a ", "b"]);
        assert_eq!(pieces("", 2), [""]);
        assert_eq!(pieces("a b ", 2), ["a b", ""]);
        assert_eq!(pieces(" a\nb c", 1), ["", "a\nb", "c"]);
        assert_eq!(skip_pieces("a b c d e", 2, 2), Some(8));
        assert_eq!(skip_pieces("a b c d e", 2, 3), None);
    }
}
