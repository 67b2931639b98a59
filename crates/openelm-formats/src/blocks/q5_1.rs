//! Q5_1: a scale and a minimum in f16, then the bits as in Q5_0. value = scale · q + minimum.

use half::f16;

use super::{SMALL, half_bytes, inverse, limits};

const HALF: usize = SMALL / 2;
const BYTES: usize = 4 + 4 + HALF;

pub(super) fn quantise(values: &[f32; SMALL]) -> [u8; BYTES] {
    let (minimum, maximum) = limits(values);
    let scale = (maximum - minimum) / 31.0;
    let inverse = inverse(scale);
    let levels = values.map(|value| ((value - minimum) * inverse + 0.5) as u8);
    let fifth_bits = levels.iter().rev().fold(0_u32, |bits, level| bits << 1 | u32::from(level >> 4 & 1));
    let mut block = [0; BYTES];
    let (head, low_bits) = block.split_at_mut(8);
    head[..2].copy_from_slice(&half_bytes(scale));
    head[2..4].copy_from_slice(&half_bytes(minimum));
    head[4..].copy_from_slice(&fifth_bits.to_le_bytes());
    let (low, high) = levels.split_at(HALF);
    for ((byte, low), high) in low_bits.iter_mut().zip(low).zip(high) {
        *byte = low & 0xf | high << 4;
    }
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; SMALL] {
    let [s0, s1, m0, m1, a, b, c, d, low_bits @ ..] = block;
    let (scale, minimum) = (f16::from_le_bytes([*s0, *s1]).to_f32(), f16::from_le_bytes([*m0, *m1]).to_f32());
    let fifth_bits = u32::from_le_bytes([*a, *b, *c, *d]);
    let value = |level: u8, position: usize| f32::from(level | ((fifth_bits >> position & 1) as u8) << 4) * scale + minimum;
    let mut values = [0.0; SMALL];
    let (low, high) = values.split_at_mut(HALF);
    for (position, ((byte, low), high)) in low_bits.iter().zip(low).zip(high).enumerate() {
        (*low, *high) = (value(byte & 0xf, position), value(byte >> 4, position + HALF));
    }
    values
}
