//! Attention forward: for one block of queries of one head, over the blocks of keys that it sees, a running maximum and
//! sum of exponentials.

use std::ops::Range;

use super::{
    AttentionShape, Seen,
    tiles::{BLOCK, Tiles},
};
use crate::simd::{Sink, Source, exp, simd_fn, sweep};
use crate::threads::Parts;
use crate::{Cpu, KernelError, Precision, Values, ValuesMut, scratch};

/// Attention over `turned` queries and keys [tokens, (queries + keys) · head_dim] and the value columns of `joint`
/// [tokens, (queries + 2 · keys) · head_dim]. Gives `attended` [tokens, queries · head_dim] and the logarithms of the
/// sums of exponentials `log_sums` [batch, queries, sequence].
///
/// # Errors
/// When a length does not fit the shape.
pub fn attention_forward(
    cpu: &Cpu,
    precision: Precision,
    shape: AttentionShape<'_>,
    turned: Values<'_>,
    joint: Values<'_>,
    mut attended: ValuesMut<'_>,
    log_sums: &mut [f32],
) -> Result<(), KernelError> {
    shape.check("attention", turned.len(), joint.len(), attended.len(), log_sums.len())?;
    let AttentionShape { heads, batch, sequence, .. } = shape;
    let head_dim = heads.head_dim;
    let tiles = Tiles::new(cpu, precision, head_dim);
    let blocks = sequence.div_ceil(BLOCK);

    // Keys and values are packed once for all queries and all heads of a group.
    let block_words = tiles.block_words();
    let mut packed = cpu.arena.take(batch * heads.keys * blocks * block_words);
    let room = Parts::new(packed.words_mut());
    cpu.threads.for_each(batch * heads.keys * blocks, |task| {
        let (row_head, block) = (task / blocks, task % blocks);
        let (row, head) = (row_head / heads.keys, row_head % heads.keys);
        let rows = BLOCK.min(sequence - block * BLOCK);
        let token = row * sequence + block * BLOCK;
        // SAFETY: each task packs into its own room; the rows lie in the slices checked above.
        unsafe {
            let to = room.part(task * block_words, block_words).as_mut_ptr();
            let keys = turned.source().add(token * heads.turned_width() + (heads.queries + head) * head_dim);
            tiles.pack_right(cpu, keys, heads.turned_width(), rows, to);
            let values = joint.source().add(token * heads.joint_width() + (heads.queries + heads.keys + head) * head_dim);
            tiles.pack_channels(cpu, values, heads.joint_width(), rows, to.add(tiles.rows_words()));
        }
    });
    let packed = packed.words();

    let (out, log_sums) = (attended.sink(), Parts::new(log_sums));
    cpu.threads.for_each(batch * heads.queries * blocks, |task| {
        // The last block of queries sees most keys: longest tasks first.
        let (block, row_head) = (blocks - 1 - task / (batch * heads.queries), task % (batch * heads.queries));
        let (row, head) = (row_head / heads.queries, row_head % heads.queries);
        let first_query = block * BLOCK;
        let rows = BLOCK.min(sequence - first_query);
        let token = row * sequence + first_query;
        let group = row * heads.keys + head / (heads.queries / heads.keys);
        let first_block = (0..rows).map(|i| shape.first_key(row, first_query + i)).min().map_or(0, |first| first / BLOCK);
        let packed = &packed[group * blocks * block_words..][..blocks * block_words];
        // SAFETY: the instruction set is available; the queries and the outputs lie in the slices checked above, and this task alone
        // writes its own.
        unsafe {
            let queries = turned.source().add(token * heads.turned_width() + head * head_dim);
            let block = QueryBlock { cpu, tiles: &tiles, rows, queries, stride: heads.turned_width(), packed, keys: sequence };
            let log_sums = log_sums.part((row * heads.queries + head) * sequence + first_query, rows);
            let to = out.add(token * heads.query_width() + head * head_dim);
            let seen = |i: usize, first_key: usize, keys: usize| shape.seen(row, first_query + i, first_key, keys);
            block.attend(first_block..first_query / BLOCK + 1, seen, to, heads.query_width(), |i, log_sum| log_sums[i] = log_sum);
        }
    });
    Ok(())
}

/// Up to [`BLOCK`] queries of one head, and the packed keys and values of its group.
pub(super) struct QueryBlock<'a> {
    pub(super) cpu: &'a Cpu,
    pub(super) tiles: &'a Tiles,
    /// Queries.
    pub(super) rows: usize,
    /// The first of them; the others lie `stride` apart.
    pub(super) queries: Source,
    pub(super) stride: usize,
    /// [blocks][`Tiles::block_words`]
    pub(super) packed: &'a [u32],
    /// Keys in all blocks together.
    pub(super) keys: usize,
}

impl QueryBlock<'_> {
    /// Goes through `blocks` of keys and writes each query's sum of values to `to`, where rows are `to_stride` apart. `seen` is given a
    /// query's number, the first key of a block and the block's keys; `log_sum` a query's number and the logarithm of its sum of
    /// exponentials.
    ///
    /// # Safety
    /// The instruction set is available; queries and outputs lie in their slices, and nobody else touches these outputs.
    pub(super) unsafe fn attend(
        &self,
        blocks: Range<usize>,
        seen: impl Fn(usize, usize, usize) -> Seen,
        to: Sink,
        to_stride: usize,
        mut log_sum: impl FnMut(usize, f32),
    ) {
        let Self { cpu, tiles, rows, .. } = *self;
        let (query_words, block_words) = (tiles.rows_words(), tiles.block_words());
        let scale = 1.0 / (tiles.head_dim as f32).sqrt();
        let words = query_words + 2 * BLOCK * BLOCK + BLOCK * tiles.head_columns + 2 * BLOCK;
        scratch::with(words, |words| {
            let (queries, words) = words.split_at_mut(query_words);
            let (scores, words) = words.split_at_mut(BLOCK * BLOCK);
            let (weights, words) = words.split_at_mut(BLOCK * BLOCK);
            let (sums, state) = words.split_at_mut(BLOCK * tiles.head_columns);
            let scores: &mut [f32] = bytemuck::cast_slice_mut(scores);
            let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
            let state: &mut [f32] = bytemuck::cast_slice_mut(state);
            let (maxima, totals) = state.split_at_mut(BLOCK);
            sums.fill(0.0);
            maxima.fill(f32::NEG_INFINITY);
            totals.fill(0.0);
            // SAFETY: the caller's promise, and every size is a block's.
            unsafe {
                tiles.pack_left(cpu, self.queries, self.stride, rows, queries.as_mut_ptr());
                for block in blocks {
                    let first_key = block * BLOCK;
                    let keys = BLOCK.min(self.keys - first_key);
                    if (0..rows).all(|i| seen(i, first_key, keys).is_empty()) {
                        continue;
                    }
                    let packed = &self.packed[block * block_words..][..block_words];
                    let (key_panels, value_panels) = (packed.as_ptr(), packed[query_words..].as_ptr());
                    let panels = keys.div_ceil(tiles.micro.width);
                    tiles.multiply(rows, tiles.head_units, queries.as_ptr(), 0, key_panels, panels, scores.as_mut_ptr(), BLOCK, false);
                    for i in 0..rows {
                        let sums = &mut sums[i * tiles.head_columns..(i + 1) * tiles.head_columns];
                        let to = tiles.sink(weights.as_mut_ptr()).add(i * BLOCK);
                        let scores = &scores[i * BLOCK..(i + 1) * BLOCK];
                        let seen = seen(i, first_key, keys);
                        soften(cpu.isa, scores, seen, scale, &mut maxima[i], &mut totals[i], sums, to, tiles.rounds());
                    }
                    let (units, stride) = (tiles.micro.units(keys), tiles.block_units);
                    let (from, to, columns) = (weights.as_ptr(), sums.as_mut_ptr(), tiles.head_columns);
                    tiles.multiply(rows, units, from, stride, value_panels, tiles.head_panels, to, columns, true);
                }
                for i in 0..rows {
                    log_sum(i, maxima[i] + totals[i].ln());
                    finish(cpu.isa, &sums[i * tiles.head_columns..][..tiles.head_dim], 1.0 / totals[i], to.add(i * to_stride));
                }
            }
        });
    }
}

simd_fn! {
    /// One row of a block of scores into weights e^(scale · score − maximum), 0 for what is not seen; what was summed so
    /// far is scaled down when the maximum grows.
    fn soften<S>(
        scores: &[f32], seen: Seen, scale: f32, maximum: &mut f32, total: &mut f32, sums: &mut [f32],
        weights: Sink, rounds: bool
    ) {
        let Seen { begin, end, gap_begin, gap_end } = seen;
        // Lanes before `begin`, in the gap and from `end` on get the least number there is, whose exponential is 0.
        let (gap_from, gap_to) = (S::splat(gap_begin as f32), S::splat(gap_end as f32));
        let least = S::splat(f32::MIN);
        let positions: [f32; 16] = std::array::from_fn(|i| i as f32);
        let positions = S::load(positions.as_ptr());
        let (from, to) = (S::splat(begin as f32), S::splat(end as f32));
        let factor = S::splat(scale);
        let scores = Source::F32(scores.as_ptr());
        let mut row_maximum = least;
        sweep!(BLOCK, |at, lanes| {
            if at < end && at + lanes > begin {
                let position = S::add(positions, S::splat(at as f32));
                let v = S::mul(scores.load::<S>(at, lanes), factor);
                let v = S::if_less(position, from, least, S::if_less(position, to, v, least));
                let v = S::if_less(position, gap_from, v, S::if_less(position, gap_to, least, v));
                row_maximum = S::max(row_maximum, v);
            }
        });
        let mut new_maximum = *maximum;
        if begin < end {
            new_maximum = new_maximum.max(S::maximum(row_maximum));
        }
        if new_maximum > *maximum && *total > 0.0 {
            let shrink = (*maximum - new_maximum).exp();
            *total *= shrink;
            let (count, sums) = (sums.len(), sums.as_mut_ptr());
            sweep!(count, |at, lanes| {
                let v = S::mul(Source::F32(sums).load::<S>(at, lanes), S::splat(shrink));
                Sink::F32(sums).store::<S>(at, v, lanes);
            });
        }
        *maximum = new_maximum;
        let shift = S::splat(if new_maximum == f32::NEG_INFINITY { 0.0 } else { -new_maximum });
        let mut row_total = S::splat(0.0);
        sweep!(BLOCK, |at, lanes| {
            let mut weight = S::splat(0.0);
            if at < end && at + lanes > begin {
                let position = S::add(positions, S::splat(at as f32));
                let v = S::fma(scores.load::<S>(at, lanes), factor, shift);
                let v = S::if_less(position, from, least, S::if_less(position, to, v, least));
                let v = S::if_less(position, gap_from, v, S::if_less(position, gap_to, least, v));
                weight = exp::<S>(v);
                row_total = S::add(row_total, weight);
                if rounds {
                    weight = S::rounded(weight);
                }
            }
            weights.store::<S>(at, weight, lanes);
        });
        *total += S::sum(row_total);
    }
}

simd_fn! {
    fn finish<S>(sums: &[f32], factor: f32, to: Sink) {
        let from = Source::F32(sums.as_ptr());
        sweep!(sums.len(), |at, lanes| {
            to.store::<S>(at, S::mul(from.load::<S>(at, lanes), S::splat(factor)), lanes);
        });
    }
}
