//! Attention forward: for one block of queries of one head, over the blocks of keys that it sees, a running maximum and
//! sum of exponentials.

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
    let scale = 1.0 / (head_dim as f32).sqrt();

    // Keys and values are packed once for all queries and all heads of a group.
    let (keys_words, values_words) = (tiles.rows_words(), tiles.columns_words());
    let mut packed = cpu.arena.take(batch * heads.keys * blocks * (keys_words + values_words));
    let room = Parts::new(packed.words_mut());
    cpu.threads.for_each(batch * heads.keys * blocks, |task| {
        let (row_head, block) = (task / blocks, task % blocks);
        let (row, head) = (row_head / heads.keys, row_head % heads.keys);
        let rows = BLOCK.min(sequence - block * BLOCK);
        let token = row * sequence + block * BLOCK;
        // SAFETY: each task packs into its own room; the rows lie in the slices checked above.
        unsafe {
            let to = room.part(task * (keys_words + values_words), keys_words + values_words).as_mut_ptr();
            let keys = turned.source().add(token * heads.turned_width() + (heads.queries + head) * head_dim);
            tiles.pack_right(cpu, keys, heads.turned_width(), rows, to);
            let values = joint.source().add(token * heads.joint_width() + (heads.queries + heads.keys + head) * head_dim);
            tiles.pack_channels(cpu, values, heads.joint_width(), rows, to.add(keys_words));
        }
    });
    let packed = packed.words();

    let (out, log_sums) = (attended.sink(), Parts::new(log_sums));
    let query_words = tiles.rows_words();
    let words = query_words + 2 * BLOCK * BLOCK + BLOCK * tiles.head_columns + 2 * BLOCK;
    cpu.threads.for_each(batch * heads.queries * blocks, |task| {
        // The last block of queries sees most keys: longest tasks first.
        let (block, row_head) = (blocks - 1 - task / (batch * heads.queries), task % (batch * heads.queries));
        let (row, head) = (row_head / heads.queries, row_head % heads.queries);
        let first_query = block * BLOCK;
        let rows = BLOCK.min(sequence - first_query);
        let token = row * sequence + first_query;
        let group = row * heads.keys + head / (heads.queries / heads.keys);
        let first_keys: [usize; BLOCK] = std::array::from_fn(|i| if i < rows { shape.first_key(row, first_query + i) } else { usize::MAX });
        let first_block = first_keys.iter().min().map_or(0, |first| first / BLOCK);
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
            // SAFETY: the instruction set is available, and every size is a block's.
            unsafe {
                let from = turned.source().add(token * heads.turned_width() + head * head_dim);
                tiles.pack_left(cpu, from, heads.turned_width(), rows, queries.as_mut_ptr());
                for key_block in first_block..=block {
                    let first_key = key_block * BLOCK;
                    let keys = BLOCK.min(sequence - first_key);
                    let seen = |i: usize| shape.seen(row, first_query + i, first_key, keys);
                    if (0..rows).all(|i| seen(i).is_empty()) {
                        continue;
                    }
                    let at = (group * blocks + key_block) * (keys_words + values_words);
                    let (key_panels, value_panels) = (packed[at..].as_ptr(), packed[at + keys_words..].as_ptr());
                    let panels = keys.div_ceil(tiles.micro.width);
                    tiles.multiply(rows, tiles.head_units, queries.as_ptr(), 0, key_panels, panels, scores.as_mut_ptr(), BLOCK, false);
                    for i in 0..rows {
                        let sums = &mut sums[i * tiles.head_columns..(i + 1) * tiles.head_columns];
                        let to = tiles.sink(weights.as_mut_ptr()).add(i * BLOCK);
                        let scores = &scores[i * BLOCK..(i + 1) * BLOCK];
                        soften(cpu.isa, scores, seen(i), scale, &mut maxima[i], &mut totals[i], sums, to, tiles.rounds());
                    }
                    let stride = tiles.block_units;
                    let to = sums.as_mut_ptr();
                    tiles.multiply(
                        rows,
                        tiles.micro.units(keys),
                        weights.as_ptr(),
                        stride,
                        value_panels,
                        tiles.head_panels,
                        to,
                        tiles.head_columns,
                        true,
                    );
                }
                let log_sums = log_sums.part((row * heads.queries + head) * sequence + first_query, rows);
                for i in 0..rows {
                    log_sums[i] = maxima[i] + totals[i].ln();
                    let to = out.add((token + i) * heads.query_width() + head * head_dim);
                    finish(cpu.isa, &sums[i * tiles.head_columns..][..head_dim], 1.0 / totals[i], to);
                }
            }
        });
    });
    Ok(())
}

simd_fn! {
    /// One row of a block of scores into weights e^(scale · score − maximum), 0 for what is not seen; what was summed so
    /// far is scaled down when the maximum grows.
    pub(super) fn soften<S>(
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
    pub(super) fn finish<S>(sums: &[f32], factor: f32, to: Sink) {
        let from = Source::F32(sums.as_ptr());
        sweep!(sums.len(), |at, lanes| {
            to.store::<S>(at, S::mul(from.load::<S>(at, lanes), S::splat(factor)), lanes);
        });
    }
}
