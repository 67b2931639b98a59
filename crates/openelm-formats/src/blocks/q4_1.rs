//! Q4_1: a scale and a minimum in f16, then the levels as in Q4_0. value = scale · q + minimum.

use half::f16;

use super::{SMALL, half_bytes, inverse, levels, limits, nibbles};

const BYTES: usize = 4 + SMALL / 2;

pub(super) fn quantise(values: &[f32; SMALL]) -> [u8; BYTES] {
    let (minimum, maximum) = limits(values);
    let scale = (maximum - minimum) / 15.0;
    let inverse = inverse(scale);
    let levels = values.map(|value| (((value - minimum) * inverse + 0.5) as u8).min(15));
    block(scale, minimum, &levels)
}

/// A block of levels below 16; scale and minimum are rounded to f16.
pub(crate) fn block(scale: f32, minimum: f32, levels: &[u8; SMALL]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&half_bytes(scale));
    block[2..4].copy_from_slice(&half_bytes(minimum));
    block[4..].copy_from_slice(&nibbles(levels));
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; SMALL] {
    let [s0, s1, m0, m1, nibbles @ ..] = block;
    let (scale, minimum) = (f16::from_le_bytes([*s0, *s1]).to_f32(), f16::from_le_bytes([*m0, *m1]).to_f32());
    levels(nibbles).map(|level| f32::from(level) * scale + minimum)
}
