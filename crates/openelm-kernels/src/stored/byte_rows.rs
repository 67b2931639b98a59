//! Many activations in 8 bits: levels row by row, for every 32 of them a scale and a sum, and sums of the levels alone.

use super::prepared::{BLOCK, round_block};
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
    /// [tokens, columns / 32]
    pub(super) scales: Vec<f32>,
    /// Levels of a total: as many as weights share a scale, 32 or 16.
    pub(super) run: usize,
    /// Σ of the levels of each run: [tokens, columns / run]
    pub(super) totals: Vec<i32>,
    /// scale · Σ of the levels of each block: [tokens, columns / 32]
    pub(super) sums: Vec<f32>,
}

impl ByteRows {
    /// Quantises `values` [tokens, columns] for weights of which `run` (32 or 16) share a scale; columns are a multiple of 32.
    pub(super) fn new(cpu: &Cpu, values: Values<'_>, columns: usize, run: usize) -> Self {
        let tokens = values.len() / columns.max(1);
        let blocks = tokens * (columns / BLOCK);
        let mut rows = Self {
            tokens,
            columns,
            levels: vec![0; tokens * columns],
            scales: vec![0.0; blocks],
            run,
            totals: vec![0; blocks * (BLOCK / run)],
            sums: vec![0.0; blocks],
        };
        let per_row = columns / BLOCK;
        let (levels, scales) = (Parts::new(&mut rows.levels), Parts::new(&mut rows.scales));
        let (totals, sums) = (Parts::new(&mut rows.totals), Parts::new(&mut rows.sums));
        let source = values.source();
        cpu.threads.for_runs(tokens, RUN, |first, count| {
            // SAFETY: the instruction set is available; runs of rows do not overlap and lie in the slices.
            unsafe {
                let (at, blocks) = (first * per_row, count * per_row);
                let (scales, sums) = (scales.part(at, blocks), sums.part(at, blocks));
                let totals = totals.part(at * (BLOCK / run), blocks * (BLOCK / run));
                quantise(cpu.isa, source.add(first * columns), levels.part(first * columns, count * columns), scales, totals, sums);
            }
        });
        rows
    }
}

simd_fn! {
    fn quantise<S>(source: Source, levels: &mut [i8], scales: &mut [f32], totals: &mut [i32], sums: &mut [f32]) {
        let runs = totals.len() / scales.len().max(1);
        let blocks = levels.chunks_exact_mut(BLOCK).zip(totals.chunks_exact_mut(runs.max(1)));
        for (number, (levels, totals)) in blocks.enumerate() {
            let (scale, rounded) = round_block::<S>(source.add(number * BLOCK), BLOCK, levels);
            // A sum of 32 levels is a whole number that f32 holds exactly.
            let halves = [S::sum(S::load(rounded.as_ptr())), S::sum(S::load(rounded.as_ptr().add(16)))];
            match totals {
                [total] => *total = (halves[0] + halves[1]) as i32,
                _ => totals.iter_mut().zip(halves).for_each(|(total, half)| *total = half as i32),
            }
            (scales[number], sums[number]) = (scale, scale * (halves[0] + halves[1]));
        }
    }
}
