//! Many activations in 8 bits: levels row by row, for every 32 of them a scale and a sum, and sums of the levels alone.
//!
//! What must stay true: the same levels and scales as [`Prepared`](super::Prepared) has.

use super::byte_product::{is_wide, run_of};
use super::matrix::StoredRows;
use super::prepared::{BLOCK, Rounding, STEP};
use crate::simd::{Source, simd_fn};
use crate::threads::Parts;
use crate::{Cpu, Values};

/// Rows of a quantising task.
const RUN: usize = 16;

/// Activations [tokens, columns] in 8 bits.
#[derive(Debug, Default)]
pub(super) struct ByteRows {
    pub(super) tokens: usize,
    pub(super) columns: usize,
    /// [tokens, columns]
    pub(super) levels: Vec<i8>,
    /// Values that share a scale, 32 or 256.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    pub(super) shared: usize,
    /// [tokens, columns / 32]; 8 in a row are the same where 256 values share one.
    pub(super) scales: Vec<f32>,
    /// Levels of a total: as many as weights share a scale, 32 or 16.
    pub(super) run: usize,
    /// Σ of the levels of each run: [tokens, columns / run]
    pub(super) totals: Vec<i32>,
    /// scale · Σ of the levels of each block: [tokens, columns / 32]
    pub(super) sums: Vec<f32>,
    /// Where 256 values share a scale and 32 weights have one, Σ of the levels of each block, in 16 bits: [tokens, columns / 32]
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    pub(super) pairs: Vec<i16>,
    /// The levels in 16 bits, where they meet weights so: [tokens, columns]
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    pub(super) words: Vec<i16>,
}

impl ByteRows {
    /// Quantises `values` [tokens, columns] as `weights` ask for it, which hold blocks.
    pub(super) fn new(cpu: &Cpu, values: Values<'_>, weights: &StoredRows<'_>) -> Self {
        let columns = weights.columns();
        let (run, shared) = (run_of(weights), weights.run().unwrap_or(BLOCK));
        let tokens = values.len() / columns.max(1);
        let blocks = tokens * (columns / BLOCK);
        let mut rows = Self {
            tokens,
            columns,
            levels: vec![0; tokens * columns],
            shared,
            scales: vec![0.0; blocks],
            run,
            totals: vec![0; blocks * (BLOCK / run)],
            sums: vec![0.0; blocks],
            words: vec![0; if is_wide(cpu.isa, weights) { tokens * columns } else { 0 }],
            pairs: vec![0; if shared == STEP && run == BLOCK { blocks } else { 0 }],
        };
        let (per_row, paired) = (columns / BLOCK, rows.pairs.len() / tokens.max(1));
        let wide = rows.words.len() / tokens.max(1);
        let words = Parts::new(&mut rows.words);
        let (levels, scales) = (Parts::new(&mut rows.levels), Parts::new(&mut rows.scales));
        let (totals, sums, pairs) = (Parts::new(&mut rows.totals), Parts::new(&mut rows.sums), Parts::new(&mut rows.pairs));
        let source = values.source();
        cpu.threads.for_runs(tokens, RUN, |first, count| {
            // SAFETY: the instruction set is available; runs of rows do not overlap and lie in the slices.
            unsafe {
                let (at, blocks) = (first * per_row, count * per_row);
                let to = Factors {
                    scales: scales.part(at, blocks),
                    totals: totals.part(at * (BLOCK / run), blocks * (BLOCK / run)),
                    sums: sums.part(at, blocks),
                    pairs: pairs.part(first * paired, count * paired),
                };
                let levels = levels.part(first * columns, count * columns);
                quantise(cpu.isa, source.add(first * columns), shared, levels, to);
                words.part(first * wide, count * wide).iter_mut().zip(levels).for_each(|(word, level)| *word = i16::from(*level));
            }
        });
        rows
    }
}

/// What some rows have beside their levels.
struct Factors<'a> {
    scales: &'a mut [f32],
    totals: &'a mut [i32],
    sums: &'a mut [f32],
    pairs: &'a mut [i16],
}

simd_fn! {
    /// Whole rows, of which `shared` values have one scale.
    fn quantise<S>(source: Source, shared: usize, levels: &mut [i8], to: Factors<'_>) {
        let Factors { scales, totals, sums, pairs } = to;
        let runs = totals.len() / scales.len().max(1);
        let (all, mut rounding) = (levels.len(), Rounding::new(shared));
        let blocks = levels.chunks_exact_mut(BLOCK).zip(totals.chunks_exact_mut(runs.max(1)));
        for (number, (levels, totals)) in blocks.enumerate() {
            let first = number * BLOCK;
            let (scale, rounded) = rounding.block::<S>(number, source.add(first), all - first, levels);
            // A sum of 32 levels is a whole number that f32 holds exactly.
            let halves = [S::sum(S::load(rounded.as_ptr())), S::sum(S::load(rounded.as_ptr().add(16)))];
            let whole = halves[0] + halves[1];
            match totals {
                [total] => *total = whole as i32,
                _ => totals.iter_mut().zip(halves).for_each(|(total, half)| *total = half as i32),
            }
            if let Some(pair) = pairs.get_mut(number) {
                *pair = whole as i16;
            }
            (scales[number], sums[number]) = (scale, scale * whole);
        }
    }
}
