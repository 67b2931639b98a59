//! Attention backward: one task goes through all pairs of blocks of one query head, computing the weights again from the
//! kept log-sums. Heads of one group write gradients of their keys and values apart; these are summed afterwards.

use super::{
    AttentionShape, Seen,
    tiles::{BLOCK, Tiles},
};
use crate::error::check;
use crate::simd::{Sink, Source, exp, simd_fn, sweep};
use crate::threads::Parts;
use crate::{Cpu, KernelError, Precision, Values, ValuesMut, scratch};

/// What the forward pass read and gave.
#[derive(Clone, Copy)]
struct Pass<'a> {
    turned: Values<'a>,
    joint: Values<'a>,
    attended: Values<'a>,
    log_sums: &'a [f32],
    d_attended: Values<'a>,
}

/// Gradients of attention, from `d_attended` [tokens, queries · head_dim] and what [`attention_forward`] was given and
/// gave: `d_turned` [tokens, (queries + keys) · head_dim], and the value columns of `d_joint` [tokens, (queries + 2 ·
/// keys) · head_dim], whose other columns are left alone.
///
/// [`attention_forward`]: super::attention_forward
///
/// # Errors
/// When a length does not fit the shape.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    cpu: &Cpu,
    precision: Precision,
    shape: AttentionShape<'_>,
    turned: Values<'_>,
    joint: Values<'_>,
    attended: Values<'_>,
    log_sums: &[f32],
    d_attended: Values<'_>,
    d_turned: &mut [f32],
    mut d_joint: ValuesMut<'_>,
) -> Result<(), KernelError> {
    let operation = "attention backward";
    shape.check(operation, turned.len(), joint.len(), attended.len(), log_sums.len())?;
    check(operation, "d_attended", attended.len(), d_attended.len())?;
    check(operation, "d_turned", turned.len(), d_turned.len())?;
    check(operation, "d_qkv", joint.len(), d_joint.len())?;
    let AttentionShape { heads, batch, sequence, .. } = shape;
    let head_dim = heads.head_dim;
    let tiles = Tiles::new(cpu, precision, head_dim);
    let pass = Pass { turned, joint, attended, log_sums, d_attended };

    // Gradients of keys and values, [row, query head][token][2][head_dim].
    let head_words = sequence * 2 * head_dim;
    let mut apart = cpu.arena.take(batch * heads.queries * head_words);
    {
        let (apart, d_turned) = (Parts::new(apart.floats_mut()), Parts::new(d_turned));
        cpu.threads.for_each(batch * heads.queries, |task| {
            // SAFETY: each task has its own gradients, and its own columns of `d_turned`.
            unsafe {
                let to = apart.part(task * head_words, head_words);
                let (row, head) = (task / heads.queries, task % heads.queries);
                let queries = d_turned.pointer(row * sequence * heads.turned_width() + head * head_dim);
                one_head(cpu, &shape, &tiles, &pass, row, head, queries, to);
            }
        });
    }
    let apart = apart.floats();
    let group = heads.queries / heads.keys;
    let (d_turned, d_joint) = (Parts::new(d_turned), d_joint.sink());
    cpu.threads.for_runs(batch * sequence, 16, |start, count| {
        for token in start..start + count {
            let (row, position) = (token / sequence, token % sequence);
            for head in 0..heads.keys {
                let first = ((row * heads.queries + head * group) * sequence + position) * 2 * head_dim;
                // SAFETY: tokens do not overlap; the value columns lie in the slice checked above.
                unsafe {
                    let keys = token * heads.turned_width() + (heads.queries + head) * head_dim;
                    let keys = Sink::F32(d_turned.part(keys, head_dim).as_mut_ptr());
                    let values = token * heads.joint_width() + (heads.queries + heads.keys + head) * head_dim;
                    sum_group(cpu.isa, &apart[first..], head_words, group, head_dim, keys);
                    sum_group(cpu.isa, &apart[first + head_dim..], head_words, group, head_dim, d_joint.add(values));
                }
            }
        }
    });
    Ok(())
}

/// All blocks of one query head.
///
/// # Safety
/// `queries` is the head's column in the first row of its gradient; nobody else touches that column.
#[allow(clippy::too_many_arguments)]
unsafe fn one_head(
    cpu: &Cpu,
    shape: &AttentionShape<'_>,
    tiles: &Tiles,
    pass: &Pass<'_>,
    row: usize,
    head: usize,
    queries: *mut f32,
    apart: &mut [f32],
) {
    let AttentionShape { heads, sequence, .. } = *shape;
    let head_dim = heads.head_dim;
    let blocks = sequence.div_ceil(BLOCK);
    let key_head = head / (heads.queries / heads.keys);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let log_sums = &pass.log_sums[(row * heads.queries + head) * sequence..][..sequence];
    let (by_rows, by_channels) = (tiles.rows_words(), tiles.columns_words());
    // Per block of queries: queries and output gradients, each as left tiles and by channels; and the query gradients.
    let query_words = 2 * (by_rows + by_channels);
    let sums_words = BLOCK * tiles.head_columns;
    let mut packed = cpu.arena.take(blocks * (query_words + sums_words) + sequence);
    let (packed, rest) = packed.words_mut().split_at_mut(blocks * query_words);
    let (d_queries, dots) = rest.split_at_mut(blocks * sums_words);
    let d_queries: &mut [f32] = bytemuck::cast_slice_mut(d_queries);
    let dots: &mut [f32] = bytemuck::cast_slice_mut(dots);
    d_queries.fill(0.0);
    let first_token = row * sequence;
    // SAFETY: rows and columns lie in the slices checked by the caller; every block has its own room.
    unsafe {
        let query = |token: usize| pass.turned.source().add((first_token + token) * heads.turned_width() + head * head_dim);
        let key =
            |token: usize| pass.turned.source().add((first_token + token) * heads.turned_width() + (heads.queries + key_head) * head_dim);
        let value = |token: usize| {
            let column = (heads.queries + heads.keys + key_head) * head_dim;
            pass.joint.source().add((first_token + token) * heads.joint_width() + column)
        };
        let out = |values: Values<'_>, token: usize| values.source().add((first_token + token) * heads.query_width() + head * head_dim);
        for block in 0..blocks {
            let (first, rows) = (block * BLOCK, BLOCK.min(sequence - block * BLOCK));
            let to = packed[block * query_words..].as_mut_ptr();
            tiles.pack_left(cpu, query(first), heads.turned_width(), rows, to);
            tiles.pack_channels(cpu, query(first), heads.turned_width(), rows, to.add(by_rows));
            let gradient = out(pass.d_attended, first);
            let to = to.add(by_rows + by_channels);
            tiles.pack_left(cpu, gradient, heads.query_width(), rows, to);
            tiles.pack_channels(cpu, gradient, heads.query_width(), rows, to.add(by_rows));
            for (i, total) in dots[first..first + rows].iter_mut().enumerate() {
                *total = dot(cpu.isa, out(pass.attended, first + i), out(pass.d_attended, first + i), head_dim);
            }
        }
        let words = 2 * by_rows + by_channels + 5 * BLOCK * BLOCK + 2 * sums_words;
        scratch::with(words, |words| {
            let (keys_right, words) = words.split_at_mut(by_rows);
            let (values_right, words) = words.split_at_mut(by_rows);
            let (keys_channels, words) = words.split_at_mut(by_channels);
            let (scores, words) = words.split_at_mut(BLOCK * BLOCK);
            let (d_weights, words) = words.split_at_mut(BLOCK * BLOCK);
            let (weights, words) = words.split_at_mut(BLOCK * BLOCK);
            let (d_scores, words) = words.split_at_mut(BLOCK * BLOCK);
            let (transposed, sums) = words.split_at_mut(BLOCK * BLOCK);
            let scores: &mut [f32] = bytemuck::cast_slice_mut(scores);
            let d_weights: &mut [f32] = bytemuck::cast_slice_mut(d_weights);
            let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
            let (d_keys, d_values) = sums.split_at_mut(sums_words);
            for key_block in 0..blocks {
                let (first_key, keys) = (key_block * BLOCK, BLOCK.min(sequence - key_block * BLOCK));
                let key_panels = keys.div_ceil(tiles.micro.width);
                tiles.pack_right(cpu, key(first_key), heads.turned_width(), keys, keys_right.as_mut_ptr());
                tiles.pack_right(cpu, value(first_key), heads.joint_width(), keys, values_right.as_mut_ptr());
                tiles.pack_channels(cpu, key(first_key), heads.turned_width(), keys, keys_channels.as_mut_ptr());
                d_keys.fill(0.0);
                d_values.fill(0.0);
                for block in key_block..blocks {
                    let (first, rows) = (block * BLOCK, BLOCK.min(sequence - block * BLOCK));
                    let seen = |i: usize| shape.seen(row, first + i, first_key, keys);
                    if (0..rows).all(|i| seen(i).is_empty()) {
                        continue;
                    }
                    let from = packed[block * query_words..].as_ptr();
                    let (query_left, query_channels) = (from, from.add(by_rows));
                    let (out_left, out_channels) = (from.add(by_rows + by_channels), from.add(2 * by_rows + by_channels));
                    let (units, stride) = (tiles.head_units, tiles.block_units);
                    tiles.multiply(rows, units, query_left, 0, keys_right.as_ptr(), key_panels, scores.as_mut_ptr(), BLOCK, false);
                    tiles.multiply(rows, units, out_left, 0, values_right.as_ptr(), key_panels, d_weights.as_mut_ptr(), BLOCK, false);
                    for i in 0..rows {
                        let position = first + i;
                        let range = i * BLOCK..(i + 1) * BLOCK;
                        let to = tiles.sink(weights.as_mut_ptr()).add(i * BLOCK);
                        let d_to = tiles.sink(d_scores.as_mut_ptr()).add(i * BLOCK);
                        let (shift, mean) = (log_sums[position], dots[position]);
                        let (scores, d_weights) = (&scores[range.clone()], &d_weights[range]);
                        harden(cpu.isa, scores, d_weights, seen(i), scale, shift, mean, to, d_to, tiles.rounds());
                    }
                    let row_units = tiles.micro.units(rows);
                    let columns = tiles.head_columns;
                    let to = d_queries[block * sums_words..].as_mut_ptr();
                    let key_units = tiles.micro.units(keys);
                    let channels = keys_channels.as_ptr();
                    tiles.multiply(rows, key_units, d_scores.as_ptr(), stride, channels, tiles.head_panels, to, columns, true);
                    tiles.pack_transposed(cpu, weights.as_ptr(), rows, keys, transposed.as_mut_ptr());
                    let to = d_values.as_mut_ptr();
                    tiles.multiply(keys, row_units, transposed.as_ptr(), 0, out_channels, tiles.head_panels, to, columns, true);
                    tiles.pack_transposed(cpu, d_scores.as_ptr(), rows, keys, transposed.as_mut_ptr());
                    let to = d_keys.as_mut_ptr();
                    tiles.multiply(keys, row_units, transposed.as_ptr(), 0, query_channels, tiles.head_panels, to, columns, true);
                }
                for i in 0..keys {
                    let to = &mut apart[(first_key + i) * 2 * head_dim..][..2 * head_dim];
                    to[..head_dim].copy_from_slice(&d_keys[i * tiles.head_columns..][..head_dim]);
                    to[head_dim..].copy_from_slice(&d_values[i * tiles.head_columns..][..head_dim]);
                }
            }
        });
        for position in 0..sequence {
            let from = d_queries[position * tiles.head_columns..].as_ptr();
            std::ptr::copy_nonoverlapping(from, queries.add(position * heads.turned_width()), head_dim);
        }
    }
}

simd_fn! {
    /// One row: weights e^(scale · score − log-sum) and d_scores = scale · weight · (d_weight − mean), 0 for
    /// what is not seen.
    fn harden<S>(
        scores: &[f32], d_weights: &[f32], seen: Seen, scale: f32, shift: f32, mean: f32, weights: Sink,
        d_scores: Sink, rounds: bool
    ) {
        let Seen { begin, end, gap_begin, gap_end } = seen;
        let (gap_from, gap_to) = (S::splat(gap_begin as f32), S::splat(gap_end as f32));
        let positions: [f32; 16] = std::array::from_fn(|i| i as f32);
        let positions = S::load(positions.as_ptr());
        let (from, to, zero) = (S::splat(begin as f32), S::splat(end as f32), S::splat(0.0));
        let (factor, shift, mean) = (S::splat(scale), S::splat(-shift), S::splat(mean));
        let (scores, d_weights) = (Source::F32(scores.as_ptr()), Source::F32(d_weights.as_ptr()));
        sweep!(BLOCK, |at, lanes| {
            let (mut weight, mut d_score) = (zero, zero);
            if at < end && at + lanes > begin {
                let position = S::add(positions, S::splat(at as f32));
                let v = exp::<S>(S::fma(scores.load::<S>(at, lanes), factor, shift));
                weight = S::if_less(position, from, zero, S::if_less(position, to, v, zero));
                weight = S::if_less(position, gap_from, weight, S::if_less(position, gap_to, zero, weight));
                let d = S::mul(S::mul(weight, S::sub(d_weights.load::<S>(at, lanes), mean)), factor);
                d_score = S::if_less(position, from, zero, S::if_less(position, to, d, zero));
                d_score = S::if_less(position, gap_from, d_score, S::if_less(position, gap_to, zero, d_score));
                if rounds {
                    (weight, d_score) = (S::rounded(weight), S::rounded(d_score));
                }
            }
            weights.store::<S>(at, weight, lanes);
            d_scores.store::<S>(at, d_score, lanes);
        });
    }
}

simd_fn! {
    fn dot<S>(a: Source, b: Source, len: usize) -> f32 {
        let mut sum = S::splat(0.0);
        sweep!(len, |at, lanes| {
            sum = S::fma(a.load::<S>(at, lanes), b.load::<S>(at, lanes), sum);
        });
        S::sum(sum)
    }
}

simd_fn! {
    /// The sum of `group` rows that are `stride` values apart.
    fn sum_group<S>(from: &[f32], stride: usize, group: usize, len: usize, to: Sink) {
        sweep!(len, |at, lanes| {
            let mut sum = S::splat(0.0);
            for member in 0..group {
                let from = &from[member * stride..member * stride + len];
                sum = S::add(sum, Source::F32(from.as_ptr()).load::<S>(at, lanes));
            }
            to.store::<S>(at, sum, lanes);
        });
    }
}
