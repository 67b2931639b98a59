//! Q5_0: a scale in f16, the fifth bits of all 32 elements as a u32, then the low four bits as in Q4_0. value = scale · (q − 16).

use half::f16;

use super::{SMALL, five_bit_levels, five_bits, half_bytes, inverse, largest};

const BYTES: usize = 2 + 4 + SMALL / 2;

pub(super) fn quantise(values: &[f32; SMALL]) -> [u8; BYTES] {
    let scale = largest(values) / -16.0;
    let inverse = inverse(scale);
    let (fifth, low_bits) = five_bits(&values.map(|value| ((value * inverse + 16.5) as i8).min(31).cast_unsigned()));
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&half_bytes(scale));
    block[2..6].copy_from_slice(&fifth);
    block[6..].copy_from_slice(&low_bits);
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; SMALL] {
    let [low, high, a, b, c, d, low_bits @ ..] = block;
    let scale = f16::from_le_bytes([*low, *high]).to_f32();
    five_bit_levels([*a, *b, *c, *d], low_bits).map(|level| (f32::from(level) - 16.0) * scale)
}
