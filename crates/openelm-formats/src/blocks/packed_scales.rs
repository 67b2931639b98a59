//! What Q4_K and Q5_K share: a super-block of eight groups of 32, each with a scale and a minimum of six bits.
//!
//! The sixteen six-bit numbers lie in twelve bytes. Groups 0 to 3: scale in the low six bits of bytes 0 to 3, minimum in those of
//! bytes 4 to 7. Groups 4 to 7: the low four bits of scale and minimum as the halves of bytes 8 to 11, their high two bits on top
//! of bytes 0 to 3 and 4 to 7.

use std::array::from_fn;

use half::f16;

use super::fit::{Search, nearest};
use super::{LARGE, SMALL};

const GROUPS: usize = LARGE / SMALL;
const MAX_SCALE: f32 = 63.0;
/// Bytes of the head: two scales in f16, the packed numbers.
pub(super) const HEAD: usize = 4 + 12;

/// A quantised super-block before its levels are packed.
pub(super) struct SuperBlock {
    pub head: [u8; HEAD],
    /// By group.
    pub levels: [[u8; SMALL]; GROUPS],
}

/// Finds scales and minima for each group, rounds them, and then rounds the values on the grid that the rounded ones span.
pub(super) fn quantise(values: &[f32; LARGE], search: &Search) -> SuperBlock {
    let fit = search.run::<SMALL, GROUPS>(&from_fn(|i| from_fn(|group| values[group * SMALL + i])));
    let max_scale = fit.scales.iter().fold(0.0_f32, |max, scale| if *scale > max { *scale } else { max });
    let max_minimum = fit.minima.iter().fold(0.0_f32, |max, minimum| if *minimum > max { *minimum } else { max });
    let inverse = |max: f32| if max > 0.0 { MAX_SCALE / max } else { 0.0 };
    let (inverse_scale, inverse_minimum) = (inverse(max_scale), inverse(max_minimum));
    let small = |value: f32| (nearest(value) as u8).min(MAX_SCALE as u8);
    let numbers = from_fn(|group| (small(inverse_scale * fit.scales[group]), small(inverse_minimum * fit.minima[group])));
    let (scale, minimum) = (f16::from_f32(max_scale / MAX_SCALE), f16::from_f32(max_minimum / MAX_SCALE));
    let mut levels: [[u8; SMALL]; GROUPS] = from_fn(|group| fit.levels.map(|levels| levels[group]));
    let (values, _) = values.as_chunks::<SMALL>();
    for ((levels, values), (group_scale, group_minimum)) in levels.iter_mut().zip(values).zip(&numbers) {
        let step = scale.to_f32() * f32::from(*group_scale);
        if step != 0.0 {
            let offset = minimum.to_f32() * f32::from(*group_minimum);
            *levels = values.map(|value| nearest((value + offset) / step).clamp(0, search.max_level.into()) as u8);
        }
    }
    let mut head = [0; HEAD];
    head[..2].copy_from_slice(&scale.to_le_bytes());
    head[2..4].copy_from_slice(&minimum.to_le_bytes());
    head[4..].copy_from_slice(&pack(&numbers));
    SuperBlock { head, levels }
}

/// Each group's step and offset: value = step · level − offset.
pub(super) fn grids(head: &[u8; HEAD]) -> [(f32, f32); GROUPS] {
    let [a, b, c, d, packed @ ..] = head;
    let (scale, minimum) = (f16::from_le_bytes([*a, *b]).to_f32(), f16::from_le_bytes([*c, *d]).to_f32());
    unpack(packed).map(|(group_scale, group_minimum)| (scale * f32::from(group_scale), minimum * f32::from(group_minimum)))
}

fn pack(numbers: &[(u8, u8); GROUPS]) -> [u8; 12] {
    let mut packed = [0; 12];
    for group in 0..4 {
        let ((scale, minimum), (late_scale, late_minimum)) = (numbers[group], numbers[group + 4]);
        packed[group] = scale | late_scale >> 4 << 6;
        packed[group + 4] = minimum | late_minimum >> 4 << 6;
        packed[group + 8] = late_scale & 0xf | late_minimum << 4;
    }
    packed
}

fn unpack(packed: &[u8; 12]) -> [(u8, u8); GROUPS] {
    let mut numbers = [(0, 0); GROUPS];
    for group in 0..4 {
        let (scales, minima, late) = (packed[group], packed[group + 4], packed[group + 8]);
        numbers[group] = (scales & 0x3f, minima & 0x3f);
        numbers[group + 4] = (late & 0xf | scales >> 6 << 4, late >> 4 | minima >> 6 << 4);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bit_numbers_come_back() {
        for seed in 0..64_u8 {
            let numbers = from_fn(|group| ((seed * 5 + group as u8 * 11) % 64, (seed * 3 + group as u8 * 7) % 64));
            assert_eq!(unpack(&pack(&numbers)), numbers);
        }
    }
}
