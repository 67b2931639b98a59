//! The searches behind the K types: scales under which rounded values have the least weighted error.
//!
//! All sums are f32 and run in llama.cpp's order, because another order rounds differently and would choose other levels.

/// Groups whose values are all smaller than this count as zero.
const TINY: f32 = 1e-15;

/// To the nearest integer, halves to even, through the rounding of an addition whose sum has no fraction bits left. Outside ±2²² the
/// result is arbitrary, as it is in llama.cpp; callers clamp it.
pub(super) fn nearest(value: f32) -> i32 {
    let sum = value + 12_582_912.0;
    (sum.to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// A group with a scale and a minimum: value ≈ scale · level − minimum.
pub(super) struct ScaleAndMinimum<const N: usize> {
    pub scale: f32,
    /// Never negative: the grid reaches up to zero at least.
    pub minimum: f32,
    pub levels: [u8; N],
}

/// Which scales a search tries: those that put the group's range over `max_level + start + step · i` levels, for i = 0 to `tries`.
pub(super) struct Search {
    pub max_level: u8,
    pub start: f32,
    pub step: f32,
    pub tries: u8,
}

impl Search {
    /// Least squares over levels 0 to `max_level`, the errors weighted by the root mean square of the group plus the value's magnitude.
    pub fn run<const N: usize>(&self, values: &[f32; N]) -> ScaleAndMinimum<N> {
        let squares = values.iter().fold(0.0, |sum, x| sum + x * x);
        let root_mean_square = (squares / N as f32).sqrt();
        let weights = values.map(|x| root_mean_square + x.abs());

        let (mut low, mut high) = (values[0], values[0]);
        let (mut sum_w, mut sum_x) = (weights[0], weights[0] * values[0]);
        for (x, w) in values.iter().zip(&weights).skip(1) {
            low = if *x < low { *x } else { low };
            high = if *x > high { *x } else { high };
            sum_w += w;
            sum_x += w * x;
        }
        low = if low > 0.0 { 0.0 } else { low };
        if high == low {
            return ScaleAndMinimum { scale: 0.0, minimum: -low, levels: [0; N] };
        }
        let max_level = f32::from(self.max_level);
        let mut minimum = low;
        // Each try spreads its levels from the best minimum so far.
        let levels_at = |inverse: f32, minimum: f32| values.map(|x| nearest(inverse * (x - minimum)).clamp(0, self.max_level.into()) as u8);
        let error_of = |levels: &[u8; N], scale: f32, minimum: f32| {
            let terms = levels.iter().zip(values).zip(&weights);
            terms.fold(0.0, |error, ((level, x), w)| {
                let difference = scale * f32::from(*level) + minimum - x;
                error + w * (difference * difference)
            })
        };
        let inverse = max_level / (high - low);
        let mut scale = 1.0 / inverse;
        let mut levels = levels_at(inverse, minimum);
        let mut least_error = error_of(&levels, scale, minimum);
        for attempt in 0..=self.tries {
            let inverse = (self.start + self.step * f32::from(attempt) + max_level) / (high - minimum);
            let candidate = levels_at(inverse, minimum);
            let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
            for ((level, x), w) in candidate.iter().zip(values).zip(&weights) {
                let level = f32::from(*level);
                sum_l += w * level;
                sum_l2 += w * level * level;
                sum_xl += w * level * x;
            }
            let determinant = sum_w * sum_l2 - sum_l * sum_l;
            if determinant > 0.0 {
                let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
                let mut this_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
                if this_minimum > 0.0 {
                    (this_minimum, this_scale) = (0.0, sum_xl / sum_l2);
                }
                let error = error_of(&candidate, this_scale, this_minimum);
                if error < least_error {
                    (least_error, scale, minimum, levels) = (error, this_scale, this_minimum, candidate);
                }
            }
        }
        ScaleAndMinimum { scale, minimum: -minimum, levels }
    }
}

/// A scale for levels −`half` to `half` − 1, of either sign, and the levels counted from −`half` up: value ≈ scale · (level − half).
/// Errors are weighted by the squared values. The element of largest magnitude lies near −`half`; 18 scales around are tried.
pub(super) fn signed<const N: usize>(values: &[f32; N], half: u8) -> (f32, [u8; N]) {
    let largest = super::largest(values);
    if largest.abs() < TINY {
        return (0.0, [0; N]);
    }
    let half = i32::from(half);
    let levels_at = |inverse: f32| values.map(|x| nearest(inverse * x).clamp(-half, half - 1));
    let sums_of = |levels: &[i32; N]| {
        levels.iter().zip(values).fold((0.0, 0.0), |(sum_lx, sum_l2): (f32, f32), (level, x)| {
            let (weight, level) = (x * x, *level as f32);
            (sum_lx + weight * x * level, sum_l2 + weight * level * level)
        })
    };
    let mut levels = levels_at(-half as f32 / largest);
    let (sum_lx, sum_l2) = sums_of(&levels);
    let mut scale = if sum_l2 == 0.0 { 0.0 } else { sum_lx / sum_l2 };
    let mut best = scale * sum_lx;
    for attempt in (-9..=9_i8).filter(|attempt| *attempt != 0) {
        let candidate = levels_at(-(half as f32 + 0.1 * f32::from(attempt)) / largest);
        let (sum_lx, sum_l2) = sums_of(&candidate);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            levels = candidate;
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    (scale, levels.map(|level| (level + half) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_halves_to_even() {
        for (value, expected) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (2.500_001, 3), (-31.49, -31), (1_000_000.6, 1_000_001)] {
            assert_eq!(nearest(value), expected, "{value}");
        }
    }

    #[test]
    fn grids_are_found() {
        let search = Search { max_level: 15, start: -1.0, step: 0.1, tries: 20 };
        let levels: [u8; 32] = std::array::from_fn(|i| (i * 7 % 16) as u8);
        let fit = search.run(&levels.map(|level| 0.25 * f32::from(level) - 1.5));
        assert_eq!(fit.levels, levels);
        assert!((fit.scale - 0.25).abs() < 1e-6 && (fit.minimum - 1.5).abs() < 1e-5, "{} {}", fit.scale, fit.minimum);

        let levels: [u8; 16] = std::array::from_fn(|i| (i * 21 % 64) as u8);
        let (scale, found) = signed(&levels.map(|level| -0.125 * (f32::from(level) - 32.0)), 32);
        assert_eq!(found, levels);
        assert!((scale + 0.125).abs() < 1e-6, "{scale}");
    }
}
