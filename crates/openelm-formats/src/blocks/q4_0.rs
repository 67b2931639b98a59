//! Q4_0: a scale in f16, then 16 bytes with elements 0 to 15 in the low and 16 to 31 in the high halves. value = scale · (q − 8).
//! The element of largest magnitude falls on −8, whatever its sign.

use half::f16;

use super::{SMALL, half_bytes, inverse, largest, levels, nibbles};

const BYTES: usize = 2 + SMALL / 2;

pub(super) fn quantise(values: &[f32; SMALL]) -> [u8; BYTES] {
    let scale = largest(values) / -8.0;
    let inverse = inverse(scale);
    // Adding one half more than the offset makes the cut a rounding, halves upwards.
    let level = |value: f32| ((value * inverse + 8.5) as i8).min(15).cast_unsigned();
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&half_bytes(scale));
    block[2..].copy_from_slice(&nibbles(&values.map(level)));
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; SMALL] {
    let [low, high, nibbles @ ..] = block;
    let scale = f16::from_le_bytes([*low, *high]).to_f32();
    levels(nibbles).map(|level| (f32::from(level) - 8.0) * scale)
}
