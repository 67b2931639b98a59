//! Text to ids by the most probable pieces: SentencePiece's unigram model.
//!
//! One pass over the text keeps, for each place, the best way to get there. Scores are added in f32 and in
//! SentencePiece's order, and of equals the first stays, because the last bit decides between near equals.

use rustc_hash::FxHashMap;

use crate::bpe::join_unknown;
use crate::model_file::{Piece, PieceKind};
use crate::vocabulary::Vocabulary;

/// When the sum goes beyond this, all open ways are counted from here again, as SentencePiece 0.2.3 does: earlier releases let the
/// sums of long texts grow coarse.
const RESET: f32 = 100_000.0;
/// How much worse than the worst piece an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Encodes normalised text.
#[derive(Debug)]
pub(crate) struct UnigramEncoder {
    trie: Trie,
    /// By id: what the piece adds to a way's score, or nothing for an unused one. User-defined pieces depend on their length.
    scores: Vec<Option<f32>>,
    escaped: bool,
    unk: u32,
    unk_score: f32,
    bytes: Option<Box<[u32; 256]>>,
    emit: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Best {
    id: u32,
    score: f32,
    /// `NOWHERE`: nothing leads here.
    start: usize,
}

const NOWHERE: usize = usize::MAX;

impl UnigramEncoder {
    pub fn new(vocabulary: &Vocabulary, escaped: bool) -> Self {
        let normal = |piece: &&Piece| piece.kind == PieceKind::Normal;
        let of_normal =
            |start: f32, pick: fn(f32, f32) -> f32| vocabulary.pieces.iter().filter(normal).map(|piece| piece.score).fold(start, pick);
        let (low, high) = (of_normal(f32::MAX, f32::min), of_normal(f32::MIN_POSITIVE, f32::max));
        let mut trie = Trie::default();
        for (text, id) in &vocabulary.pieces_by_text {
            trie.insert(text.as_bytes(), *id);
        }
        // A user-defined piece gets a bonus that lets it win always.
        let score = |piece: &Piece| match piece.kind {
            PieceKind::Unused => None,
            PieceKind::UserDefined => Some(piece.text.len() as f32 * high - 0.1),
            _ => Some(piece.score),
        };
        Self {
            trie,
            scores: vocabulary.pieces.iter().map(score).collect(),
            escaped,
            unk: vocabulary.unk.unwrap_or_default(),
            unk_score: low - UNKNOWN_PENALTY,
            bytes: vocabulary.bytes.clone(),
            emit: vocabulary
                .pieces
                .iter()
                .zip(0..)
                .map(|(piece, id)| vocabulary.reserved.get(&piece.text).copied().unwrap_or(id))
                .collect(),
        }
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let escaped = if self.escaped { text.replace(' ', "\u{2581}") } else { text.to_owned() };
        let text = escaped.as_str();
        let mut ends = vec![Best { id: self.unk, score: 0.0, start: NOWHERE }; text.len() + 1];
        // The last place that anything leads to.
        let mut reached = 0;
        for (start, char) in text.char_indices() {
            let mut here = ends[start].score;
            if here.abs() > RESET {
                for end in &mut ends[start..=reached] {
                    if end.start != NOWHERE {
                        end.score -= here;
                    }
                }
                here = 0.0;
            }
            let width = char.len_utf8();
            let mut alone = false;
            let mut node = 0;
            for (offset, byte) in text.as_bytes().iter().enumerate().skip(start) {
                let Some(next) = self.trie.step(node, *byte) else { break };
                node = next;
                let Some(id) = self.trie.ids[node as usize] else { continue };
                let Some(score) = self.scores[id as usize] else { continue };
                offer(&mut ends[offset + 1], id, score + here, start);
                reached = reached.max(offset + 1);
                alone |= offset + 1 - start == width;
            }
            if !alone {
                offer(&mut ends[start + width], self.unk, self.unk_score + here, start);
                reached = reached.max(start + width);
            }
        }
        let first = ids.len();
        let mut end = text.len();
        while end > 0 {
            let best = ends[end];
            let start = if best.start == NOWHERE { 0 } else { best.start };
            match (&self.bytes, best.id == self.unk) {
                (Some(bytes), true) => ids.extend(text.as_bytes()[start..end].iter().rev().map(|byte| bytes[usize::from(*byte)])),
                _ => ids.push(self.emit[best.id as usize]),
            }
            end = start;
        }
        ids[first..].reverse();
        if self.bytes.is_none() {
            join_unknown(ids, first, self.unk);
        }
    }
}

fn offer(best: &mut Best, id: u32, score: f32, start: usize) {
    if best.start == NOWHERE || score > best.score {
        *best = Best { id, score, start };
    }
}

/// Pieces by their bytes.
#[derive(Debug)]
struct Trie {
    next: FxHashMap<u64, u32>,
    ids: Vec<Option<u32>>,
}

impl Default for Trie {
    fn default() -> Self {
        Self { next: FxHashMap::default(), ids: vec![None] }
    }
}

impl Trie {
    fn insert(&mut self, bytes: &[u8], id: u32) {
        let mut node = 0;
        for byte in bytes {
            let free = self.ids.len() as u32;
            node = *self.next.entry(u64::from(node) << 8 | u64::from(*byte)).or_insert(free);
            if node == free {
                self.ids.push(None);
            }
        }
        self.ids[node as usize] = Some(id);
    }

    fn step(&self, node: u32, byte: u8) -> Option<u32> {
        self.next.get(&(u64::from(node) << 8 | u64::from(byte))).copied()
    }
}
