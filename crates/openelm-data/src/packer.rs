//! Documents laid end to end and cut into sequences of `length + 1` tokens.
//!
//! Consecutive sequences overlap by one token: the last target of one is the first input of the next, so every token but the
//! very first is a target exactly once. Nothing is dropped. A long document is pushed part by part. After `pop`, what is left
//! belongs to the last part pushed, provided that parts are pushed only while no sequence is ready; a loader state relies on it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sequence::Sequence;

pub(crate) struct Packer {
    length: usize,
    /// Tokens from `begin` on are waiting.
    tokens: Vec<u32>,
    begin: usize,
    /// Position in the stream of `tokens[begin]`.
    position: i64,
    /// Where documents start in the stream, ascending; the first is the one that `position` lies in.
    documents: VecDeque<(i64, Arc<str>)>,
    /// Where the last part starts in the stream.
    part: i64,
}

impl Packer {
    pub fn new(length: usize) -> Self {
        Self { length, tokens: Vec::new(), begin: 0, position: 0, documents: VecDeque::new(), part: 0 }
    }

    fn waiting(&self) -> usize {
        self.tokens.len() - self.begin
    }

    /// True when `pop` would give a sequence.
    pub fn ready(&self) -> bool {
        self.waiting() > self.length
    }

    /// Adds a document, or part number `part` of one.
    pub fn push(&mut self, tokens: &[u32], part: u64, source: &Arc<str>) {
        self.part = self.position + self.waiting() as i64;
        if part == 0 {
            self.documents.push_back((self.part, source.clone()));
        }
        self.tokens.extend_from_slice(tokens);
    }

    /// Starts inside a document: the tokens of part number `part` from `skip` on. The packer must be empty.
    pub fn push_rest(&mut self, tokens: &[u32], part: u64, skip: usize, source: &Arc<str>) {
        self.part = self.position - skip as i64;
        // A document whose start lies in an earlier part starts before everything here.
        self.documents.push_back((self.part - i64::from(part > 0), source.clone()));
        self.tokens.extend_from_slice(&tokens[skip.min(tokens.len())..]);
    }

    /// The token of the last part that comes first among the waiting ones; `None` when nothing waits.
    pub fn offset(&self) -> Option<u64> {
        (self.waiting() > 0).then_some((self.position - self.part).max(0) as u64)
    }

    /// Everything that waits, as the end of a document; `None` when no token in it is new.
    pub fn take_rest(&mut self) -> Option<(Vec<u32>, Arc<str>)> {
        let (start, source) = self.documents.front().cloned()?;
        let rest = self.tokens.split_off(self.begin);
        // A single token after a cut was given as the last target before it.
        let new = rest.len() > 1 || (rest.len() == 1 && start == self.position);
        *self = Self::new(self.length);
        new.then_some((rest, source))
    }

    /// The next whole sequence.
    pub fn pop(&mut self) -> Option<Sequence> {
        if !self.ready() {
            return None;
        }
        let tokens = self.tokens[self.begin..=self.begin + self.length].to_vec();
        let sequence = self.sequence(tokens, 0);
        self.begin += self.length;
        self.position += self.length as i64;
        while self.documents.get(1).is_some_and(|(start, _)| *start <= self.position) {
            self.documents.pop_front();
        }
        // Moving the rest to the front only when it is the smaller half keeps long documents linear.
        if self.begin > self.tokens.len() / 2 {
            self.tokens.drain(..self.begin);
            self.begin = 0;
        }
        Some(sequence)
    }

    /// What is left at the end of a pass, filled with padding; `None` when no new target is left.
    pub fn pop_padded(&mut self, padding_id: u32) -> Option<Sequence> {
        if self.ready() {
            return self.pop();
        }
        if self.waiting() < 2 {
            return None;
        }
        let mut tokens = self.tokens.split_off(self.begin);
        let padding = self.length + 1 - tokens.len();
        tokens.resize(self.length + 1, padding_id);
        let sequence = self.sequence(tokens, padding);
        *self = Self::new(self.length);
        Some(sequence)
    }

    fn sequence(&self, tokens: Vec<u32>, padding: usize) -> Sequence {
        let end = self.position + self.length as i64;
        let starts = self.documents.iter().map(|(start, _)| *start);
        let boundaries = starts.filter(|start| (self.position..=end).contains(start)).map(|start| (start - self.position) as u32).collect();
        let source = self.documents.front().map_or_else(|| "".into(), |(_, source)| source.clone());
        Sequence { tokens, source, boundaries, padding }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_by_one_and_marks_starts() {
        let mut packer = Packer::new(4);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        packer.push(&[1, 2, 3], 0, &a);
        assert!(packer.pop().is_none());
        packer.push(&[4, 5, 6, 7, 8, 9, 10], 0, &b);
        let first = packer.pop().unwrap();
        assert_eq!((first.tokens, &*first.source, first.boundaries), (vec![1, 2, 3, 4, 5], "a", vec![0, 3]));
        assert_eq!(packer.offset(), Some(1));
        let second = packer.pop().unwrap();
        assert_eq!((second.tokens, &*second.source, second.boundaries), (vec![5, 6, 7, 8, 9], "b", vec![]));
        assert_eq!(packer.offset(), Some(5));
        let last = packer.pop_padded(99).unwrap();
        assert_eq!((last.tokens, last.padding), (vec![9, 10, 99, 99, 99], 3));
        assert!(packer.pop_padded(99).is_none());
    }

    #[test]
    fn a_start_on_the_overlap_is_in_both() {
        let mut packer = Packer::new(2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        packer.push(&[1, 2], 0, &a);
        packer.push(&[3, 4, 5], 0, &b);
        assert_eq!(packer.pop().unwrap().boundaries, [0, 2]);
        assert_eq!(packer.offset(), Some(0));
        let second = packer.pop().unwrap();
        assert_eq!((&*second.source, second.boundaries), ("b", vec![0]));
        assert!(packer.pop_padded(0).is_none(), "the overlap alone is no sequence");
    }

    #[test]
    fn starting_inside_a_document_gives_the_same_rest() {
        let source: Arc<str> = "a".into();
        let tokens: Vec<u32> = (0..11).collect();
        let mut whole = Packer::new(3);
        whole.push(&tokens, 0, &source);
        whole.pop();
        whole.pop();
        let mut rest = Packer::new(3);
        rest.push_rest(&tokens, 0, whole.offset().unwrap() as usize, &source);
        assert_eq!(rest.offset(), whole.offset());
        assert_eq!(rest.pop(), whole.pop());
    }

    #[test]
    fn parts_lie_together_and_count_from_the_last_one() {
        let source: Arc<str> = "a".into();
        let mut packer = Packer::new(4);
        packer.push(&[1, 2, 3], 0, &source);
        packer.push(&[4, 5, 6, 7], 1, &source);
        assert_eq!(packer.pop().unwrap().boundaries, [0]);
        assert_eq!(packer.offset(), Some(1));
        let mut rest = Packer::new(4);
        rest.push_rest(&[4, 5, 6, 7], 1, 1, &source);
        assert_eq!(rest.offset(), Some(1));
        assert_eq!(packer.take_rest(), Some((vec![5, 6, 7], source.clone())));
        assert_eq!(rest.pop_padded(9).unwrap().boundaries, [0u32; 0]);
    }

    #[test]
    fn a_rest_without_a_new_token_is_none() {
        let source: Arc<str> = "a".into();
        let mut packer = Packer::new(2);
        packer.push(&[1, 2, 3], 0, &source);
        packer.pop();
        assert_eq!(packer.take_rest(), None);
        packer.push(&[1], 0, &source);
        assert_eq!(packer.take_rest(), Some((vec![1], source)));
    }
}
