//! Q4_K: the head of `packed_scales`, then 128 bytes: 32 for each pair of groups, the first of a pair in the low halves.

use super::fit::Search;
use super::packed_scales::{self, HEAD};
use super::{LARGE, SMALL};

const BYTES: usize = HEAD + LARGE / 2;
const SEARCH: Search = Search { max_level: 15, start: -1.0, step: 0.1, tries: 20 };

pub(super) fn quantise(values: &[f32; LARGE]) -> [u8; BYTES] {
    let super_block = packed_scales::quantise(values, &SEARCH);
    let mut block = [0; BYTES];
    let (head, packed) = block.split_at_mut(HEAD);
    head.copy_from_slice(&super_block.head);
    let (pairs, _) = super_block.levels.as_chunks();
    for (bytes, [low, high]) in packed.chunks_exact_mut(SMALL).zip(pairs) {
        for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
            *byte = low | high << 4;
        }
    }
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; LARGE] {
    let mut values = [0.0; LARGE];
    let Some((head, packed)) = block.split_first_chunk::<HEAD>() else { return values };
    let grids = packed_scales::grids(head);
    let pairs = values.chunks_exact_mut(2 * SMALL).zip(packed.chunks_exact(SMALL)).zip(grids.as_chunks().0);
    for ((values, bytes), [(low_step, low_offset), (high_step, high_offset)]) in pairs {
        let (low, high) = values.split_at_mut(SMALL);
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            *low = low_step * f32::from(byte & 0xf) - low_offset;
            *high = high_step * f32::from(byte >> 4) - high_offset;
        }
    }
    values
}
