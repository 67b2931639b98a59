//! Activations as stored rows meet them: f32, and 8 bits with one scale for a run of 32 or 256 values.
//!
//! What must stay true: levels lie in -127..=127 and stand in the order of the values; beyond the last value all is 0.

use crate::Isa;
use crate::simd::{Simd, Source, simd_fn, sweep};

/// Values that share a place in `lanes`: a scale is that of one or of 8 of these.
pub(super) const BLOCK: usize = 32;
/// Levels, scales and sums are filled up to this many values.
const WHOLE: usize = 64;
/// Values that share a place in `scales` and `sums`: the lanes of 4 products of 8 bits.
const GROUP: usize = 4;
/// Values that share a place in `lanes`: 8 blocks.
pub(super) const STEP: usize = 256;
/// Factors of a step.
pub(super) const LANES: usize = 48;

/// Some rows of activations, each [columns].
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) tokens: usize,
    pub(crate) columns: usize,
    /// [tokens, columns]
    pub(crate) values: Vec<f32>,
    /// [tokens, whole]; empty when nothing is quantised.
    pub(crate) levels: Vec<i8>,
    /// The scale of each group of 4 levels: [tokens, whole / 4]; not with AVX2 and AVX-512.
    pub(crate) scales: Vec<f32>,
    /// scale · Σ of each group of 4 levels: [tokens, whole / 4]; as `scales`.
    pub(crate) sums: Vec<f32>,
    /// For those alone, for each 256 levels: 8 scales and 8 times scale · Σ, of 32 levels each; then 16 scales and 16 times scale · Σ, of 16
    /// levels each: [tokens, steps, 48]
    pub(super) lanes: Vec<f32>,
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

    /// Makes levels, scales and sums of the values; each `run` of them, a multiple of 32, shares a scale.
    pub(crate) fn quantise(&mut self, isa: Isa, run: usize) {
        let whole = self.whole();
        self.levels.resize(self.tokens * whole, 0);
        let in_lanes = isa.has_avx2();
        let (groups, lanes) = if in_lanes { (0, self.lanes_per_token()) } else { (whole / GROUP, 0) };
        self.scales.resize(self.tokens * groups, 0.0);
        self.sums.resize(self.tokens * groups, 0.0);
        self.lanes.resize(self.tokens * lanes, 0.0);
        for token in 0..self.tokens {
            let values = &self.values[token * self.columns..(token + 1) * self.columns];
            let levels = &mut self.levels[token * whole..(token + 1) * whole];
            // SAFETY: the instruction set is available, and every slice is a row's.
            unsafe {
                if in_lanes {
                    quantise_to_lanes(isa, run, values, levels, &mut self.lanes[token * lanes..(token + 1) * lanes]);
                } else {
                    let groups = token * groups..(token + 1) * groups;
                    quantise(isa, run, values, levels, &mut self.scales[groups.clone()], &mut self.sums[groups]);
                }
            }
        }
    }

    /// Places of a token in `lanes`.
    pub(super) fn lanes_per_token(&self) -> usize {
        self.columns.div_ceil(STEP) * LANES
    }

    /// The scale of a level, and scale · Σ of the 32 it belongs to.
    #[cfg(test)]
    pub(super) fn scale_and_sum(&self, token: usize, column: usize) -> (f32, f32) {
        if self.lanes.is_empty() {
            let first = (token * self.whole() + column / BLOCK * BLOCK) / GROUP;
            return (self.scales[first], self.sums[first..first + BLOCK / GROUP].iter().sum());
        }
        let (step, block) = (column / STEP, column % STEP / BLOCK);
        let lanes = &self.lanes[token * self.lanes_per_token() + step * LANES..][..LANES];
        let fine = [2 * block, 2 * block + 1];
        assert!(fine.iter().all(|place| lanes[16 + place] == lanes[block]), "scales of the halves");
        let sum: f32 = fine.iter().map(|place| lanes[32 + place]).sum();
        assert!((sum - lanes[8 + block]).abs() <= 1e-5 * (1.0 + sum.abs()), "sums of the halves");
        (lanes[block], lanes[8 + block])
    }
}

/// Added to a whole number of at most 8 bits, it leaves that number in the lowest bits: 1.5 · 2^23. Any other value gives some number too,
/// and compilers make vectors of it, which they do not of a saturating cast.
const MAGIC: f32 = 12_582_912.0;

/// The scale of a run of values, of which blocks are rounded one after the other.
#[derive(Clone, Copy)]
pub(super) struct Rounding {
    /// Values that share a scale, a multiple of 32.
    run: usize,
    scale: f32,
    factor: f32,
}

impl Rounding {
    pub(super) fn new(run: usize) -> Self {
        Self { run, scale: 0.0, factor: 0.0 }
    }

    /// Rounds the `number`-th 32 values, which `source` begins with and of which `left` are left in all, to `levels` (32 of them) in
    /// -127..=127; gives their scale, which the largest value of the run makes, and the levels as f32.
    ///
    /// # Safety
    /// The instruction set is available, and the values are there; the blocks of a run come in order.
    #[inline(always)]
    pub(super) unsafe fn block<S: Simd>(&mut self, number: usize, source: Source, left: usize, levels: &mut [i8]) -> (f32, [f32; BLOCK]) {
        // SAFETY: the caller's promise; at most 32 values are stored.
        unsafe {
            if (number * BLOCK).is_multiple_of(self.run) {
                let mut largest = S::splat(0.0);
                sweep!(self.run.min(left), |at, lanes| {
                    let v = source.load::<S>(at, lanes);
                    largest = S::max(largest, S::max(v, S::sub(S::splat(0.0), v)));
                });
                let largest = S::maximum(largest);
                (self.scale, self.factor) = (largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 });
            }
            let factor = S::splat(self.factor);
            let mut rounded = [0.0_f32; BLOCK];
            sweep!(BLOCK.min(left), |at, lanes| {
                let v = S::round(S::mul(source.load::<S>(at, lanes), factor));
                S::store_first(rounded.as_mut_ptr().add(at), v, lanes);
            });
            for (level, value) in levels.iter_mut().zip(&rounded) {
                *level = (*value + MAGIC).to_bits() as i8;
            }
            (self.scale, rounded)
        }
    }
}

simd_fn! {
    /// One row into levels, scales and sums.
    fn quantise<S>(run: usize, values: &[f32], levels: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
        let blocks = levels.chunks_exact_mut(BLOCK).zip(scales.chunks_exact_mut(BLOCK / GROUP)).zip(sums.chunks_exact_mut(BLOCK / GROUP));
        let mut rounding = Rounding::new(run);
        for (number, ((levels, scales), sums)) in blocks.enumerate() {
            let first = (number * BLOCK).min(values.len());
            let source = Source::F32(values.as_ptr().add(first));
            let (scale, rounded) = rounding.block::<S>(number, source, values.len() - first, levels);
            scales.fill(scale);
            for (sum, four) in sums.iter_mut().zip(rounded.chunks_exact(GROUP)) {
                *sum = scale * ((four[0] + four[1]) + (four[2] + four[3]));
            }
        }
    }
}

simd_fn! {
    /// One row into levels and lanes.
    fn quantise_to_lanes<S>(run: usize, values: &[f32], levels: &mut [i8], lanes: &mut [f32]) {
        lanes.fill(0.0);
        let mut rounding = Rounding::new(run);
        for (number, levels) in levels.chunks_exact_mut(BLOCK).enumerate() {
            let first = (number * BLOCK).min(values.len());
            let source = Source::F32(values.as_ptr().add(first));
            let (scale, rounded) = rounding.block::<S>(number, source, values.len() - first, levels);
            // What fills the last 64 up may lie past the last step.
            let (step, block) = (number / (STEP / BLOCK), number % (STEP / BLOCK));
            let Some(lanes) = lanes.get_mut(step * LANES..(step + 1) * LANES) else { continue };
            let halves = [scale * S::sum(S::load(rounded.as_ptr())), scale * S::sum(S::load(rounded.as_ptr().add(16)))];
            (lanes[block], lanes[8 + block]) = (scale, halves[0] + halves[1]);
            for (half, sum) in halves.into_iter().enumerate() {
                (lanes[16 + 2 * block + half], lanes[32 + 2 * block + half]) = (scale, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_give_the_values_back() {
        for (columns, run) in [(32, 32), (64, 32), (96, 32), (1280, 32), (256, 256), (1280, 256)] {
            let values: Vec<f32> = (0..2 * columns).map(|i| ((i * 7 % 31) as f32 - 15.0) * (1.0 + (i / 32) as f32)).collect();
            for isa in Isa::available() {
                let mut prepared = Prepared::default();
                prepared.resize(2, columns);
                prepared.values.copy_from_slice(&values);
                prepared.quantise(isa, run);
                let whole = prepared.whole();
                for token in 0..2 {
                    for i in 0..columns {
                        let level = prepared.levels[token * whole + i];
                        let (scale, sum) = prepared.scale_and_sum(token, i);
                        let expected = values[token * columns + i];
                        assert!((scale * f32::from(level) - expected).abs() <= 0.5001 * scale, "{isa:?} {columns} {i}");
                        let shared = &values[token * columns + i / run * run..][..run];
                        let largest = shared.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                        assert!((scale * 127.0 - largest).abs() <= 1e-5 * largest, "{isa:?} {columns} {i}: {scale} {largest}");
                        let block = &prepared.levels[token * whole + i / BLOCK * BLOCK..][..BLOCK];
                        let total: i32 = block.iter().map(|level| i32::from(*level)).sum();
                        assert!((sum - scale * total as f32).abs() < 1e-3, "{isa:?} {columns} {i}");
                    }
                    assert!(prepared.levels[token * whole + columns..(token + 1) * whole].iter().all(|level| *level == 0));
                }
            }
        }
    }
}
