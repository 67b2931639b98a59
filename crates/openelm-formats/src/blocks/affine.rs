//! Affine4 and Affine8: a scale and a minimum in f32, then the levels, of 4 bits as in Q4_0 or of a byte each. value = scale · q + minimum.
//! No file has them: MLX's groups become such blocks for the engine.

use super::{SMALL, inverse, levels, limits, nibbles};

const HEAD: usize = 8;
const BYTES4: usize = HEAD + SMALL / 2;
const BYTES8: usize = HEAD + SMALL;

pub(super) fn quantise4(values: &[f32; SMALL]) -> [u8; BYTES4] {
    let (scale, minimum, levels) = rounded(values, 15);
    block4(scale, minimum, &levels)
}

pub(super) fn quantise8(values: &[f32; SMALL]) -> [u8; BYTES8] {
    let (scale, minimum, levels) = rounded(values, 255);
    block8(scale, minimum, &levels)
}

/// Scale, minimum and levels up to `top`.
fn rounded(values: &[f32; SMALL], top: u8) -> (f32, f32, [u8; SMALL]) {
    let (minimum, maximum) = limits(values);
    let scale = (maximum - minimum) / f32::from(top);
    let inverse = inverse(scale);
    (scale, minimum, values.map(|value| (((value - minimum) * inverse + 0.5) as u8).min(top)))
}

/// A block of levels below 16.
pub(crate) fn block4(scale: f32, minimum: f32, levels: &[u8; SMALL]) -> [u8; BYTES4] {
    with_head(scale, minimum, &nibbles(levels))
}

pub(crate) fn block8(scale: f32, minimum: f32, levels: &[u8; SMALL]) -> [u8; BYTES8] {
    with_head(scale, minimum, levels)
}

fn with_head<const BYTES: usize>(scale: f32, minimum: f32, levels: &[u8]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    block[..4].copy_from_slice(&scale.to_le_bytes());
    block[4..HEAD].copy_from_slice(&minimum.to_le_bytes());
    block[HEAD..].copy_from_slice(levels);
    block
}

pub(super) fn dequantise4(block: &[u8; BYTES4]) -> [f32; SMALL] {
    let [s0, s1, s2, s3, m0, m1, m2, m3, nibbles @ ..] = block;
    values(f32::from_le_bytes([*s0, *s1, *s2, *s3]), f32::from_le_bytes([*m0, *m1, *m2, *m3]), &levels(nibbles))
}

pub(super) fn dequantise8(block: &[u8; BYTES8]) -> [f32; SMALL] {
    let [s0, s1, s2, s3, m0, m1, m2, m3, levels @ ..] = block;
    values(f32::from_le_bytes([*s0, *s1, *s2, *s3]), f32::from_le_bytes([*m0, *m1, *m2, *m3]), levels)
}

fn values(scale: f32, minimum: f32, levels: &[u8; SMALL]) -> [f32; SMALL] {
    levels.map(|level| f32::from(level) * scale + minimum)
}
