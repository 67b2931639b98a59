//! Documents put into sequences so that none is cut that fits into one: best fit, longest first.
//!
//! What must stay true: the result depends on the lengths and their order alone; pieces stand in the order in which they were
//! drawn; padding stands at the end.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::sequence::Sequence;

/// Sequences of `room` tokens that hold all pieces, none of which is longer.
pub(crate) fn pack(pieces: Vec<(Vec<u32>, Arc<str>)>, room: usize, padding_id: u32) -> Vec<Sequence> {
    let mut longest_first: Vec<usize> = (0..pieces.len()).collect();
    longest_first.sort_by_key(|index| Reverse(pieces[*index].0.len()));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // (room left, bin), so that the smallest that suffices is found, and of equals the first.
    let mut open: BTreeSet<(usize, usize)> = BTreeSet::new();
    for index in longest_first {
        let length = pieces[index].0.len();
        let found = open.range((length, 0)..).next().copied();
        let (left, bin) = match found {
            Some(entry) => {
                open.remove(&entry);
                entry
            }
            None => {
                bins.push(Vec::new());
                (room, bins.len() - 1)
            }
        };
        bins[bin].push(index);
        open.insert((left.saturating_sub(length), bin));
    }
    let fill = |mut bin: Vec<usize>| {
        bin.sort_unstable();
        let source = bin.first().map_or_else(|| "".into(), |index| pieces[*index].1.clone());
        let mut tokens = Vec::with_capacity(room);
        let mut boundaries = Vec::with_capacity(bin.len());
        for index in bin {
            boundaries.push(tokens.len() as u32);
            tokens.extend_from_slice(&pieces[index].0);
        }
        let padding = room.saturating_sub(tokens.len());
        tokens.resize(room, padding_id);
        Sequence { tokens, source, boundaries, padding }
    };
    bins.into_iter().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_room_is_taken() {
        let piece = |length: usize, id: u32| (vec![id; length], Arc::from("a"));
        let sequences = pack(vec![piece(3, 1), piece(6, 2), piece(4, 3), piece(2, 4), piece(5, 5)], 8, 0);
        let tokens: Vec<&[u32]> = sequences.iter().map(|sequence| &*sequence.tokens).collect();
        assert_eq!(tokens, [&[2, 2, 2, 2, 2, 2, 4, 4], &[1, 1, 1, 5, 5, 5, 5, 5], &[3, 3, 3, 3, 0, 0, 0, 0]]);
        assert_eq!(sequences[1].boundaries, [0, 3]);
        assert_eq!(sequences[2].padding, 4);
    }
}
