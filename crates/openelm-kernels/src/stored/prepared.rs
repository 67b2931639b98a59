//! Activations as stored rows meet them: f32, and 8 bits with one scale for every 32 values.
//!
//! What must stay true: levels lie in -127..=127 and stand in the order of the values; beyond the last value all is 0.

use crate::simd::{Simd, Source, simd_fn, sweep};

/// Values that share a scale.
pub(super) const BLOCK: usize = 32;
/// Levels, scales and sums are filled up to this many values.
const WHOLE: usize = 64;
/// Values that share a place in `scales` and `sums`: the lanes of 4 products of 8 bits.
const GROUP: usize = 4;

/// Some rows of activations, each [columns].
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) tokens: usize,
    pub(crate) columns: usize,
    /// [tokens, columns]
    pub(crate) values: Vec<f32>,
    /// [tokens, whole]; empty when nothing is quantised.
    pub(crate) levels: Vec<i8>,
    /// The scale of each group of 4 levels: [tokens, whole / 4]
    pub(crate) scales: Vec<f32>,
    /// scale · Σ of each group of 4 levels: [tokens, whole / 4]
    pub(crate) sums: Vec<f32>,
}

impl Prepared {
    /// Makes room for `tokens` rows; `values` are to be written, then [`quantise`](Self::quantise) if blocks will be met.
    pub(crate) fn resize(&mut self, tokens: usize, columns: usize) {
        (self.tokens, self.columns) = (tokens, columns);
        self.values.resize(tokens * columns, 0.0);
    }

    /// Columns, filled up.
    pub(crate) fn whole(&self) -> usize {
        self.columns.next_multiple_of(WHOLE)
    }

    /// Makes levels, scales and sums of the values.
    pub(crate) fn quantise(&mut self, isa: crate::Isa) {
        let (whole, groups) = (self.whole(), self.whole() / GROUP);
        self.levels.resize(self.tokens * whole, 0);
        self.scales.resize(self.tokens * groups, 0.0);
        self.sums.resize(self.tokens * groups, 0.0);
        for token in 0..self.tokens {
            let values = &self.values[token * self.columns..(token + 1) * self.columns];
            let levels = &mut self.levels[token * whole..(token + 1) * whole];
            let groups = token * groups..(token + 1) * groups;
            // SAFETY: the instruction set is available, and every slice is a row's.
            unsafe { quantise(isa, values, levels, &mut self.scales[groups.clone()], &mut self.sums[groups]) };
        }
    }
}

/// Added to a whole number of at most 8 bits, it leaves that number in the lowest bits: 1.5 · 2^23. Any other value gives some number too,
/// and compilers make vectors of it, which they do not of a saturating cast.
const MAGIC: f32 = 12_582_912.0;

/// Rounds `count` values, at most 32, to `levels` (32 of them) in -127..=127; gives their scale and the levels as f32.
///
/// # Safety
/// The instruction set is available, and the values are there.
#[inline(always)]
pub(super) unsafe fn round_block<S: Simd>(source: Source, count: usize, levels: &mut [i8]) -> (f32, [f32; BLOCK]) {
    // SAFETY: the caller's promise; at most 32 values are stored.
    unsafe {
        let mut largest = S::splat(0.0);
        sweep!(count, |at, lanes| {
            let v = source.load::<S>(at, lanes);
            largest = S::max(largest, S::max(v, S::sub(S::splat(0.0), v)));
        });
        let largest = S::maximum(largest);
        let factor = S::splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
        let mut rounded = [0.0_f32; BLOCK];
        sweep!(count, |at, lanes| {
            let v = S::round(S::mul(source.load::<S>(at, lanes), factor));
            S::store_first(rounded.as_mut_ptr().add(at), v, lanes);
        });
        for (level, value) in levels.iter_mut().zip(&rounded) {
            *level = (*value + MAGIC).to_bits() as i8;
        }
        (largest / 127.0, rounded)
    }
}

simd_fn! {
    /// One row into levels, scales and sums.
    fn quantise<S>(values: &[f32], levels: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
        let blocks = levels.chunks_exact_mut(BLOCK).zip(scales.chunks_exact_mut(BLOCK / GROUP)).zip(sums.chunks_exact_mut(BLOCK / GROUP));
        for (number, ((levels, scales), sums)) in blocks.enumerate() {
            let first = (number * BLOCK).min(values.len());
            let count = BLOCK.min(values.len() - first);
            let (scale, rounded) = round_block::<S>(Source::F32(values.as_ptr().add(first)), count, levels);
            scales.fill(scale);
            for (sum, four) in sums.iter_mut().zip(rounded.chunks_exact(GROUP)) {
                *sum = scale * ((four[0] + four[1]) + (four[2] + four[3]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn levels_give_the_values_back() {
        for columns in [32, 64, 96, 1280] {
            let values: Vec<f32> = (0..2 * columns).map(|i| ((i * 7 % 31) as f32 - 15.0) * (1.0 + (i / 32) as f32)).collect();
            for isa in Isa::available() {
                let mut prepared = Prepared::default();
                prepared.resize(2, columns);
                prepared.values.copy_from_slice(&values);
                prepared.quantise(isa);
                let whole = prepared.whole();
                for token in 0..2 {
                    for i in 0..whole {
                        let level = prepared.levels[token * whole + i];
                        let scale = prepared.scales[(token * whole + i) / GROUP];
                        let expected = if i < columns { values[token * columns + i] } else { 0.0 };
                        assert!((scale * f32::from(level) - expected).abs() <= 0.5001 * scale, "{isa:?} {columns} {i}");
                    }
                    for group in 0..whole / GROUP {
                        let at = token * whole + group * GROUP;
                        let levels: i32 = prepared.levels[at..at + GROUP].iter().map(|level| i32::from(*level)).sum();
                        let expected = prepared.scales[at / GROUP] * levels as f32;
                        assert!((prepared.sums[at / GROUP] - expected).abs() < 1e-3, "{isa:?} {columns} {group}");
                    }
                }
            }
        }
    }
}
