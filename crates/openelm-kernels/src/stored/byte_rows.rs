//! Many activations in 8 bits: levels row by row, and for every 32 of them a scale and two sums.

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
    /// Σ of the levels of each block: [tokens, columns / 32]
    pub(super) totals: Vec<i32>,
    /// scale · Σ of the levels of each block: [tokens, columns / 32]
    pub(super) sums: Vec<f32>,
}

impl ByteRows {
    /// Quantises `values` [tokens, columns]; columns are a multiple of 32.
    pub(super) fn new(cpu: &Cpu, values: Values<'_>, columns: usize) -> Self {
        let tokens = values.len() / columns.max(1);
        let blocks = tokens * (columns / BLOCK);
        let mut rows = Self {
            tokens,
            columns,
            levels: vec![0; tokens * columns],
            scales: vec![0.0; blocks],
            totals: vec![0; blocks],
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
                let (scales, totals, sums) = (scales.part(at, blocks), totals.part(at, blocks), sums.part(at, blocks));
                quantise(cpu.isa, source.add(first * columns), levels.part(first * columns, count * columns), scales, totals, sums);
            }
        });
        rows
    }
}

simd_fn! {
    fn quantise<S>(source: Source, levels: &mut [i8], scales: &mut [f32], totals: &mut [i32], sums: &mut [f32]) {
        for (number, levels) in levels.chunks_exact_mut(BLOCK).enumerate() {
            let (scale, rounded) = round_block::<S>(source.add(number * BLOCK), BLOCK, levels);
            // A sum of 32 levels is a whole number that f32 holds exactly.
            let total = S::sum(S::add(S::load(rounded.as_ptr()), S::load(rounded.as_ptr().add(16))));
            (scales[number], totals[number], sums[number]) = (scale, total as i32, scale * total);
        }
    }
}
