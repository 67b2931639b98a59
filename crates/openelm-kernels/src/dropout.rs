//! Dropout as a pure function of a seed and a value's place, so that the backward pass, another device and a resumed run see the
//! same values dropped.
//!
//! What must stay true: which values are dropped depends on the seed, the probability and the place alone. One draw of 64 bits
//! decides about four values, so a probability is rounded to a multiple of 2^-16.

use crate::threads::Parts;
use crate::{Cpu, Values};

const RUN: usize = 1 << 14; // values of a task; a multiple of the four of a draw
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which values of an operand are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Share of the values that become 0, in [0, 1); the others are divided by what is left of 1.
    pub probability: f32,
    pub seed: u64,
}

impl Dropout {
    /// What each value is multiplied by, those from place `start` on: 0 or 1 / (1 - probability).
    pub fn factors(&self, start: usize, factors: &mut [f32]) {
        let threshold = (self.probability.clamp(0.0, 1.0) * 65536.0).round() as u32;
        let kept = if self.probability < 1.0 { 1.0 / (1.0 - self.probability) } else { 0.0 };
        let draw = |at: usize| mix(self.seed.wrapping_add((at / 4) as u64).wrapping_mul(GOLDEN));
        let factor = |draw: u64| if draw as u32 & 0xffff < threshold { 0.0 } else { kept };
        // Up to the first place whose draw is its own.
        let (head, rest) = factors.split_at_mut((start.wrapping_neg() % 4).min(factors.len()));
        for (at, to) in (start..).zip(head) {
            *to = factor(draw(at) >> (16 * (at % 4)));
        }
        let start = start.next_multiple_of(4);
        let (fours, tail) = rest.as_chunks_mut::<4>();
        for (index, four) in fours.iter_mut().enumerate() {
            let draw = draw(start + 4 * index);
            *four = [factor(draw), factor(draw >> 16), factor(draw >> 32), factor(draw >> 48)];
        }
        let start = start + 4 * fours.len();
        for (at, to) in (start..).zip(tail) {
            *to = factor(draw(at) >> (16 * (at % 4)));
        }
    }

    /// A seed for one of several operands, so that they drop different values.
    pub fn seed_of(seed: u64, parts: &[u64]) -> u64 {
        parts.iter().fold(seed, |seed, part| mix(seed ^ part.wrapping_add(1).wrapping_mul(GOLDEN)))
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `to` = dropped `from`; with `rest`, what dropping took away: `from` less its dropped form.
pub(crate) fn drop_values(cpu: &Cpu, from: Values<'_>, dropout: Dropout, rest: bool, to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "values to drop");
    let parts = Parts::new(to);
    cpu.threads.for_runs(from.len(), RUN, |start, count| {
        // SAFETY: runs do not overlap.
        let to = unsafe { parts.part(start, count) };
        dropout.factors(start, to);
        if rest {
            to.iter_mut().for_each(|factor| *factor = 1.0 - *factor);
        }
        match from.part(start, count) {
            Values::F32(from) => to.iter_mut().zip(from).for_each(|(to, from)| *to *= from),
            Values::Bf16(from) => to.iter_mut().zip(from).for_each(|(to, from)| *to *= crate::simd::widen_half(*from)),
        }
    });
}

/// Adds dropped `from` to `to`: the way back through [`drop_values`].
pub(crate) fn add_dropped(cpu: &Cpu, from: &[f32], dropout: Dropout, to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "dropped values");
    let parts = Parts::new(to);
    cpu.threads.for_runs(from.len(), RUN, |start, count| {
        // SAFETY: runs do not overlap.
        let to = unsafe { parts.part(start, count) };
        let mut factors = [0.0; 256];
        for (at, (to, from)) in to.chunks_mut(256).zip(from[start..start + count].chunks(256)).enumerate() {
            let factors = &mut factors[..to.len()];
            dropout.factors(start + at * 256, factors);
            to.iter_mut().zip(from).zip(factors).for_each(|((to, from), factor)| *to += from * *factor);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_decides_alone_and_the_share_is_kept() {
        let dropout = Dropout { probability: 0.1, seed: 5 };
        let mut all = vec![0.0; 100_003];
        dropout.factors(0, &mut all);
        for (start, len) in [(0, 1), (1, 2), (7, 90), (99_990, 13)] {
            let mut part = vec![0.0; len];
            dropout.factors(start, &mut part);
            assert_eq!(part, all[start..start + len], "{start} {len}");
        }
        let dropped = all.iter().filter(|factor| **factor == 0.0).count() as f64 / all.len() as f64;
        assert!((dropped - 0.1).abs() < 0.004, "{dropped}");
        assert!(all.iter().all(|factor| *factor == 0.0 || (*factor - 1.0 / 0.9).abs() < 1e-6));
        let mut other = vec![0.0; all.len()];
        Dropout { seed: 6, ..dropout }.factors(0, &mut other);
        let both = all.iter().zip(&other).filter(|(a, b)| **a == 0.0 && **b == 0.0).count() as f64 / all.len() as f64;
        assert!((both - 0.01).abs() < 0.002, "two seeds drop alike: {both}");
        assert_ne!(Dropout::seed_of(1, &[0, 1]), Dropout::seed_of(1, &[1, 0]));
    }

    #[test]
    fn nothing_is_dropped_at_0() {
        let mut factors = vec![0.0; 9];
        Dropout { probability: 0.0, seed: 1 }.factors(3, &mut factors);
        assert_eq!(factors, [1.0; 9]);
    }
}
