//! Q5_1: a scale and a minimum in f16, then the bits as in Q5_0. value = scale · q + minimum.

use half::f16;

use super::{SMALL, five_bit_levels, five_bits, half_bytes, inverse, limits};

const BYTES: usize = 4 + 4 + SMALL / 2;

pub(super) fn quantise(values: &[f32; SMALL]) -> [u8; BYTES] {
    let (minimum, maximum) = limits(values);
    let scale = (maximum - minimum) / 31.0;
    let inverse = inverse(scale);
    block(scale, minimum, &values.map(|value| ((value - minimum) * inverse + 0.5) as u8))
}

/// A block of levels below 32; scale and minimum are rounded to f16.
pub(crate) fn block(scale: f32, minimum: f32, levels: &[u8; SMALL]) -> [u8; BYTES] {
    let (fifth, low_bits) = five_bits(levels);
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&half_bytes(scale));
    block[2..4].copy_from_slice(&half_bytes(minimum));
    block[4..8].copy_from_slice(&fifth);
    block[8..].copy_from_slice(&low_bits);
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; SMALL] {
    let [s0, s1, m0, m1, a, b, c, d, low_bits @ ..] = block;
    let (scale, minimum) = (f16::from_le_bytes([*s0, *s1]).to_f32(), f16::from_le_bytes([*m0, *m1]).to_f32());
    five_bit_levels([*a, *b, *c, *d], low_bits).map(|level| f32::from(level) * scale + minimum)
}
