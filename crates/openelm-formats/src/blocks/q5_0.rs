//! Q5_0: a scale in f16, the fifth bits of all 32 elements as a u32, then the low four bits as in Q4_0. value = scale · (q − 16).

use half::f16;

use super::{SMALL, half_bytes, inverse, largest};

const HALF: usize = SMALL / 2;
const BYTES: usize = 2 + 4 + HALF;

pub(super) fn quantise(values: &[f32; SMALL]) -> [u8; BYTES] {
    let scale = largest(values) / -16.0;
    let inverse = inverse(scale);
    let levels = values.map(|value| ((value * inverse + 16.5) as i8).min(31).cast_unsigned());
    let fifth_bits = levels.iter().rev().fold(0_u32, |bits, level| bits << 1 | u32::from(level >> 4 & 1));
    let mut block = [0; BYTES];
    let (head, low_bits) = block.split_at_mut(6);
    let (scale_bytes, fifth) = head.split_at_mut(2);
    scale_bytes.copy_from_slice(&half_bytes(scale));
    fifth.copy_from_slice(&fifth_bits.to_le_bytes());
    let (low, high) = levels.split_at(HALF);
    for ((byte, low), high) in low_bits.iter_mut().zip(low).zip(high) {
        *byte = low & 0xf | high << 4;
    }
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; SMALL] {
    let [low, high, a, b, c, d, low_bits @ ..] = block;
    let scale = f16::from_le_bytes([*low, *high]).to_f32();
    let fifth_bits = u32::from_le_bytes([*a, *b, *c, *d]);
    let value = |level: u8, position: usize| (f32::from(level | ((fifth_bits >> position & 1) as u8) << 4) - 16.0) * scale;
    let mut values = [0.0; SMALL];
    let (low, high) = values.split_at_mut(HALF);
    for (position, ((byte, low), high)) in low_bits.iter().zip(low).zip(high).enumerate() {
        (*low, *high) = (value(byte & 0xf, position), value(byte >> 4, position + HALF));
    }
    values
}
