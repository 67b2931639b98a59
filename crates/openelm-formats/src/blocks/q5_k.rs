//! Q5_K: the head of `packed_scales`, then 32 bytes with the fifth bits (bit g of byte i: element i of group g), then the low four bits
//! as in Q4_K.

use super::fit::Search;
use super::packed_scales::{self, HEAD};
use super::{LARGE, SMALL};

const BYTES: usize = HEAD + LARGE / 8 + LARGE / 2;
const SEARCH: Search = Search { max_level: 31, start: -0.5, step: 0.1, tries: 15 };

pub(super) fn quantise(values: &[f32; LARGE]) -> [u8; BYTES] {
    let super_block = packed_scales::quantise(values, &SEARCH);
    let mut block = [0; BYTES];
    let (head, rest) = block.split_at_mut(HEAD);
    let (fifth_bits, packed) = rest.split_at_mut(SMALL);
    head.copy_from_slice(&super_block.head);
    for (group, levels) in super_block.levels.iter().enumerate() {
        for (bits, level) in fifth_bits.iter_mut().zip(levels) {
            *bits |= level >> 4 << group;
        }
    }
    let (pairs, _) = super_block.levels.as_chunks();
    for (bytes, [low, high]) in packed.chunks_exact_mut(SMALL).zip(pairs) {
        for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
            *byte = low & 0xf | high << 4;
        }
    }
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; LARGE] {
    let mut values = [0.0; LARGE];
    let Some((head, rest)) = block.split_first_chunk::<HEAD>() else { return values };
    let (fifth_bits, packed) = rest.split_at(SMALL);
    let grids = packed_scales::grids(head);
    let pairs = values.chunks_exact_mut(2 * SMALL).zip(packed.chunks_exact(SMALL)).zip(grids.as_chunks().0);
    for (pair, ((values, bytes), [(low_step, low_offset), (high_step, high_offset)])) in pairs.enumerate() {
        let (low, high) = values.split_at_mut(SMALL);
        for (((byte, bits), low), high) in bytes.iter().zip(fifth_bits).zip(low).zip(high) {
            let bits = bits >> (2 * pair);
            *low = low_step * f32::from(byte & 0xf | (bits & 1) << 4) - low_offset;
            *high = high_step * f32::from(byte >> 4 | (bits >> 1 & 1) << 4) - high_offset;
        }
    }
    values
}
