//! Q8_0: a scale in f16, then 32 signed bytes. value = scale · q.

use half::f16;

use super::{SMALL, half_bytes, inverse, largest};

const BYTES: usize = 2 + SMALL;

pub(super) fn quantise(values: &[f32; SMALL]) -> [u8; BYTES] {
    let scale = largest(values).abs() / 127.0;
    let inverse = inverse(scale);
    let mut block = [0; BYTES];
    let (head, levels) = block.split_at_mut(2);
    head.copy_from_slice(&half_bytes(scale));
    for (level, value) in levels.iter_mut().zip(values) {
        // Halves away from zero.
        *level = ((value * inverse).round() as i8).cast_unsigned();
    }
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; SMALL] {
    let [low, high, levels @ ..] = block;
    let scale = f16::from_le_bytes([*low, *high]).to_f32();
    levels.map(|level| f32::from(level.cast_signed()) * scale)
}
