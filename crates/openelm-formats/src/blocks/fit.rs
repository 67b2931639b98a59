//! The searches behind the K types: scales under which rounded values have the least weighted error.
//!
//! All sums are f32 and run in llama.cpp's order, because another order rounds differently and would choose other levels. What is free
//! is which groups are worked on side by side: all groups of a super-block are, one in each lane, so that the compiler can use
//! vector instructions. Inputs are therefore transposed: `values[i][g]` is element i of group g.

use std::array::from_fn;

/// Groups whose values are all smaller than this count as zero.
pub(super) const TINY: f32 = 1e-15;

/// To the nearest integer, halves to even, through the rounding of an addition whose sum has no fraction bits left. Outside ±2²² the
/// result is arbitrary, as it is in llama.cpp; callers clamp it.
pub(super) fn nearest(value: f32) -> i32 {
    let sum = value + 12_582_912.0;
    (sum.to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Which scales a search with minima tries: those that put the group's range over `max_level + start + step · i` levels, for
/// i = 0 to `tries`.
pub(super) struct Search {
    pub max_level: u8,
    pub start: f32,
    pub step: f32,
    pub tries: u8,
}

/// A grid for each of G groups: value ≈ scale · level − minimum. Minima are never negative: a grid reaches up to zero at least.
pub(super) struct Grids<const N: usize, const G: usize> {
    pub scales: [f32; G],
    pub minima: [f32; G],
    /// Like the values, by element and group.
    pub levels: [[u8; G]; N],
}

impl Search {
    /// Least squares over levels 0 to `max_level`, the errors weighted by the root mean square of the group plus the value's magnitude.
    pub fn run<const N: usize, const G: usize>(&self, values: &[[f32; G]; N]) -> Grids<N, G> {
        let max_level = f32::from(self.max_level);
        let weights = weights(values);
        let mut low = values[0];
        let mut high = values[0];
        let mut sum_w = weights[0];
        let mut sum_x = from_fn::<_, G, _>(|g| weights[0][g] * values[0][g]);
        for (x, w) in values.iter().zip(&weights).skip(1) {
            for g in 0..G {
                low[g] = if x[g] < low[g] { x[g] } else { low[g] };
                high[g] = if x[g] > high[g] { x[g] } else { high[g] };
                sum_w[g] += w[g];
                sum_x[g] += w[g] * x[g];
            }
        }
        let low = low.map(|low| if low > 0.0 { 0.0 } else { low });
        let level = |x: f32, inverse: f32, base: f32| nearest(inverse * (x - base)).clamp(0, self.max_level.into());

        // The best so far, and the inverse scale and the base that gave its levels.
        let mut minima = low;
        let mut inverses: [f32; G] = from_fn(|g| max_level / (high[g] - low[g]));
        let mut bases = low;
        let mut scales = inverses.map(|inverse| 1.0 / inverse);
        let mut errors = [0.0; G];
        for (x, w) in values.iter().zip(&weights) {
            for g in 0..G {
                let difference = scales[g] * level(x[g], inverses[g], bases[g]) as f32 + minima[g] - x[g];
                errors[g] += w[g] * (difference * difference);
            }
        }
        let mut candidate = [[0.0; G]; N];
        for attempt in 0..=self.tries {
            let steps = self.start + self.step * f32::from(attempt) + max_level;
            // Each try spreads its levels from the best minimum so far.
            let inverse: [f32; G] = from_fn(|g| steps / (high[g] - minima[g]));
            let (mut sum_l, mut sum_l2, mut sum_xl) = ([0.0; G], [0.0; G], [0.0; G]);
            for ((x, w), levels) in values.iter().zip(&weights).zip(&mut candidate) {
                for g in 0..G {
                    let level = level(x[g], inverse[g], minima[g]) as f32;
                    levels[g] = level;
                    sum_l[g] += w[g] * level;
                    sum_l2[g] += w[g] * level * level;
                    sum_xl[g] += w[g] * level * x[g];
                }
            }
            let mut solved = [false; G];
            let (mut scale, mut minimum) = ([0.0; G], [0.0; G]);
            for g in 0..G {
                let determinant = sum_w[g] * sum_l2[g] - sum_l[g] * sum_l[g];
                solved[g] = determinant > 0.0;
                scale[g] = (sum_w[g] * sum_xl[g] - sum_x[g] * sum_l[g]) / determinant;
                minimum[g] = (sum_l2[g] * sum_x[g] - sum_l[g] * sum_xl[g]) / determinant;
                if minimum[g] > 0.0 {
                    (scale[g], minimum[g]) = (sum_xl[g] / sum_l2[g], 0.0);
                }
            }
            let mut error = [0.0; G];
            for ((x, w), levels) in values.iter().zip(&weights).zip(&candidate) {
                for g in 0..G {
                    let difference = scale[g] * levels[g] + minimum[g] - x[g];
                    error[g] += w[g] * (difference * difference);
                }
            }
            for g in 0..G {
                if solved[g] && error[g] < errors[g] {
                    (inverses[g], bases[g]) = (inverse[g], minima[g]);
                    (errors[g], scales[g], minima[g]) = (error[g], scale[g], minimum[g]);
                }
            }
        }
        let mut levels = values.map(|x| from_fn(|g| level(x[g], inverses[g], bases[g]) as u8));
        for g in 0..G {
            // Nothing to spread: the minimum alone, at level 0.
            if high[g] == low[g] {
                (scales[g], minima[g]) = (0.0, low[g]);
                levels.iter_mut().for_each(|levels| levels[g] = 0);
            }
        }
        Grids { scales, minima: minima.map(|minimum| -minimum), levels }
    }
}

fn weights<const N: usize, const G: usize>(values: &[[f32; G]; N]) -> [[f32; G]; N] {
    let mut squares = [0.0; G];
    for x in values {
        for g in 0..G {
            squares[g] += x[g] * x[g];
        }
    }
    let root_mean_square = squares.map(|squares| (squares / N as f32).sqrt());
    values.map(|x| from_fn(|g| root_mean_square[g] + x[g].abs()))
}

/// For each of G groups, a scale for levels −`half` to `half` − 1, of either sign, and the levels counted from −`half` up:
/// value ≈ scale · (level − half). Errors are weighted by the squared values. The element of largest magnitude lies near −`half`;
/// 18 scales around are tried.
pub(super) fn signed<const N: usize, const G: usize>(values: &[[f32; G]; N], half: u8) -> ([f32; G], [[u8; G]; N]) {
    let half = i32::from(half);
    let mut largest = [0.0_f32; G];
    for x in values {
        for g in 0..G {
            largest[g] = if largest[g].abs() < x[g].abs() { x[g] } else { largest[g] };
        }
    }
    let level = |x: f32, inverse: f32| nearest(inverse * x).clamp(-half, half - 1);
    let sums = |inverse: &[f32; G]| {
        let (mut sum_lx, mut sum_l2) = ([0.0; G], [0.0; G]);
        for x in values {
            for g in 0..G {
                let (weight, level) = (x[g] * x[g], level(x[g], inverse[g]) as f32);
                sum_lx[g] += weight * x[g] * level;
                sum_l2[g] += weight * level * level;
            }
        }
        (sum_lx, sum_l2)
    };
    let mut inverses = largest.map(|largest| -half as f32 / largest);
    let (sum_lx, sum_l2) = sums(&inverses);
    let mut scales = from_fn(|g| if sum_l2[g] == 0.0 { 0.0 } else { sum_lx[g] / sum_l2[g] });
    let mut best = from_fn::<_, G, _>(|g| scales[g] * sum_lx[g]);
    for attempt in (-9..=9_i8).filter(|attempt| *attempt != 0) {
        let inverse = largest.map(|largest| -(half as f32 + 0.1 * f32::from(attempt)) / largest);
        let (sum_lx, sum_l2) = sums(&inverse);
        for g in 0..G {
            if sum_l2[g] > 0.0 && sum_lx[g] * sum_lx[g] > best[g] * sum_l2[g] {
                inverses[g] = inverse[g];
                scales[g] = sum_lx[g] / sum_l2[g];
                best[g] = scales[g] * sum_lx[g];
            }
        }
    }
    let mut levels = values.map(|x| from_fn(|g| (level(x[g], inverses[g]) + half) as u8));
    for g in 0..G {
        if largest[g].abs() < TINY {
            scales[g] = 0.0;
            levels.iter_mut().for_each(|levels| levels[g] = 0);
        }
    }
    (scales, levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_halves_to_even() {
        for (value, expected) in
            [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (2.500_001, 3), (-31.49, -31), (1_000_000.6, 1_000_001)]
        {
            assert_eq!(nearest(value), expected, "{value}");
        }
    }

    #[test]
    fn grids_are_found() {
        let search = Search { max_level: 15, start: -1.0, step: 0.1, tries: 20 };
        let levels: [[u8; 2]; 32] = from_fn(|i| [(i * 7 % 16) as u8, (i * 3 % 16) as u8]);
        let fit = search.run(&levels.map(|[a, b]| [0.25 * f32::from(a) - 1.5, 3.0 * f32::from(b) - 0.5]));
        assert_eq!(fit.levels, levels);
        for (found, expected) in fit.scales.iter().chain(&fit.minima).zip([0.25, 3.0, 1.5, 0.5]) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }

        let levels: [[u8; 2]; 16] = from_fn(|i| [(i * 21 % 64) as u8, (i * 13 % 64) as u8]);
        let (scales, found) = signed(&levels.map(|[a, b]| [-0.125 * (f32::from(a) - 32.0), 7.0 * (f32::from(b) - 32.0)]), 32);
        assert_eq!(found, levels);
        assert!((scales[0] + 0.125).abs() < 1e-6 && (scales[1] - 7.0).abs() < 1e-5, "{scales:?}");
    }
}
