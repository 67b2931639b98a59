//! Q6_K: sixteen groups of 16, each with a signed scale of eight bits. value = scale · group scale · (q − 32).
//!
//! 128 bytes with the low four bits, 64 with the high two, 16 group scales, the scale in f16. Each half of 128 elements has 64 and 32
//! of those bytes; with its elements as four runs of 32, low bits: byte i holds element i of runs 0 and 2, byte 32 + i that of runs
//! 1 and 3; high bits: byte i holds element i of all four, run 0 lowest.

use std::array::from_fn;

use half::f16;

use super::fit::{TINY, nearest, signed};
use super::{LARGE, SMALL};

const GROUP: usize = 16;
const GROUPS: usize = LARGE / GROUP;
const LOW: usize = LARGE / 2;
const HIGH: usize = LARGE / 4;
const BYTES: usize = LOW + HIGH + GROUPS + 2;

pub(super) fn quantise(values: &[f32; LARGE]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    let (scales, fitted) = signed::<GROUP, GROUPS>(&from_fn(|i| from_fn(|group| values[group * GROUP + i])), 32);
    let largest = super::largest(&scales);
    if largest.abs() < TINY {
        return block;
    }
    let inverse = -128.0 / largest;
    let scale = f16::from_f32(1.0 / inverse);
    let group_scales = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
    let mut levels: [u8; LARGE] = from_fn(|i| fitted[i % GROUP][i / GROUP]);
    for ((values, group_scale), levels) in values.chunks_exact(GROUP).zip(&group_scales).zip(levels.chunks_exact_mut(GROUP)) {
        let step = scale.to_f32() * f32::from(*group_scale);
        if step != 0.0 {
            for (level, value) in levels.iter_mut().zip(values) {
                *level = (nearest(value / step).clamp(-32, 31) + 32) as u8;
            }
        }
    }
    let (low, rest) = block.split_at_mut(LOW);
    let (high, rest) = rest.split_at_mut(HIGH);
    let (stored_scales, stored_scale) = rest.split_at_mut(GROUPS);
    for ((levels, low), high) in levels.chunks_exact(LARGE / 2).zip(low.chunks_exact_mut(LOW / 2)).zip(high.chunks_exact_mut(HIGH / 2)) {
        for i in 0..SMALL {
            let [a, b, c, d] = [0, 1, 2, 3].map(|run| levels[run * SMALL + i]);
            low[i] = a & 0xf | c << 4;
            low[SMALL + i] = b & 0xf | d << 4;
            high[i] = a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6;
        }
    }
    for (byte, scale) in stored_scales.iter_mut().zip(group_scales) {
        *byte = scale.cast_unsigned();
    }
    stored_scale.copy_from_slice(&scale.to_le_bytes());
    block
}

pub(super) fn dequantise(block: &[u8; BYTES]) -> [f32; LARGE] {
    let (low, rest) = block.split_at(LOW);
    let (high, rest) = rest.split_at(HIGH);
    let (group_scales, scale) = rest.split_at(GROUPS);
    let scale = f16::from_le_bytes([scale[0], scale[1]]).to_f32();
    let mut values = [0.0; LARGE];
    let halves = values.chunks_exact_mut(LARGE / 2).zip(low.chunks_exact(LOW / 2)).zip(high.chunks_exact(HIGH / 2));
    for (((values, low), high), group_scales) in halves.zip(group_scales.chunks_exact(GROUPS / 2)) {
        for i in 0..SMALL {
            let levels = [low[i] & 0xf, low[SMALL + i] & 0xf, low[i] >> 4, low[SMALL + i] >> 4];
            for (run, level) in levels.into_iter().enumerate() {
                let level = f32::from(level | (high[i] >> (2 * run) & 3) << 4) - 32.0;
                let group_scale = group_scales[run * 2 + i / GROUP].cast_signed();
                values[run * SMALL + i] = scale * f32::from(group_scale) * level;
            }
        }
    }
    values
}
