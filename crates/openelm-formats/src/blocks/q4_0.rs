//! Q4_0: a scale in f16, then 16 bytes with elements 0 to 15 in the low and 16 to 31 in the high halves. value = scale · (q − 8).
//! The element of largest magnitude falls on −8, whatever its sign.

use half::f16;

use super::{SMALL, half_bytes, inverse, largest};

const HALF: usize = SMALL / 2;
const BYTES: usize = 2 + HALF;

pub(super) fn quantise(values: &[f32; SMALL]) -> [u8; BYTES] {
    let scale = largest(values) / -8.0;
    let inverse = inverse(scale);
    // Adding one half more than the offset makes the cut a rounding, halves upwards.
    let level = |value: f32| ((value * inverse + 8.5) as i8).min(15).cast_unsigned();
    let mut block = [0; BYTES];
    let (head, levels) = block.split_at_mut(2);
    head.copy_from_slice(&half_bytes(scale));
    let (low, high) = values.split_at(HALF);
    for ((byte, low), high) in levels.iter_mut().zip(low).zip(high) {
        *byte = level(*low) | level(*high) << 4;
    }
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; SMALL] {
    let [low, high, levels @ ..] = block;
    let scale = f16::from_le_bytes([*low, *high]).to_f32();
    let value = |level: u8| (f32::from(level) - 8.0) * scale;
    let mut values = [0.0; SMALL];
    let (low, high) = values.split_at_mut(HALF);
    for ((byte, low), high) in levels.iter().zip(low).zip(high) {
        (*low, *high) = (value(byte & 0xf), value(byte >> 4));
    }
    values
}
