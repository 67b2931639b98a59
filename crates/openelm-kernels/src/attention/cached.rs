//! Attention of a run of queries over kept keys and values, which reach further back than the run: as the forward pass of training,
//! with keys and values packed from a store.

use super::{
    Seen,
    forward::{finish, soften},
    tiles::{BLOCK, Tiles},
};
use crate::decode::store::{LayerParts, read_rows};
use crate::error::check;
use crate::simd::Source;
use crate::threads::Parts;
use crate::{Cpu, Heads, KernelError, Precision, ValuesMut, scratch};

/// A run of `count` queries behind `start` positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedAttention {
    pub(crate) heads: Heads,
    pub(crate) start: usize,
    pub(crate) count: usize,
}

/// Attention of the queries in `turned` [count, (queries + keys) · head_dim] over the first start + count positions of a store, into
/// the rows of `attended` [.., queries · head_dim] from `row` on.
///
/// # Safety
/// No task writes these positions meanwhile.
///
/// # Errors
/// When a length does not fit.
pub(crate) unsafe fn attention_cached(
    cpu: &Cpu,
    precision: Precision,
    shape: CachedAttention,
    turned: &[f32],
    layer: &LayerParts<'_>,
    attended: &mut ValuesMut<'_>,
    row: usize,
) -> Result<(), KernelError> {
    let CachedAttention { heads, start, count } = shape;
    let head_dim = heads.head_dim;
    check("cached attention", "turned queries and keys", count * heads.turned_width(), turned.len())?;
    let needed = (row + count) * heads.query_width();
    check("cached attention", "attended values", needed, attended.len().min(needed))?;
    let tiles = Tiles::new(cpu, precision, head_dim);
    let total = start + count;
    let (key_blocks, query_blocks) = (total.div_ceil(BLOCK), count.div_ceil(BLOCK));
    let scale = 1.0 / (head_dim as f32).sqrt();

    let (keys_words, values_words) = (tiles.rows_words(), tiles.columns_words());
    let mut packed = cpu.arena.take(heads.keys * key_blocks * (keys_words + values_words));
    let room = Parts::new(packed.words_mut());
    cpu.threads.for_each(heads.keys * key_blocks, |task| {
        let (head, block) = (task / key_blocks, task % key_blocks);
        let rows = BLOCK.min(total - block * BLOCK);
        scratch::with(BLOCK * head_dim, |words| {
            let floats: &mut [f32] = bytemuck::cast_slice_mut(words);
            // SAFETY: each task packs into its own room; nobody writes the store.
            unsafe {
                let to = room.part(task * (keys_words + values_words), keys_words + values_words).as_mut_ptr();
                let (keys, values) = layer.head(head, total);
                read_rows(cpu.isa, &keys, block * BLOCK, rows, floats);
                tiles.pack_right(cpu, Source::F32(floats.as_ptr()), head_dim, rows, to);
                read_rows(cpu.isa, &values, block * BLOCK, rows, floats);
                tiles.pack_channels(cpu, Source::F32(floats.as_ptr()), head_dim, rows, to.add(keys_words));
            }
        });
    });
    let packed = packed.words();

    let out = attended.sink();
    let query_words = tiles.rows_words();
    let words = query_words + 2 * BLOCK * BLOCK + BLOCK * tiles.head_columns + 2 * BLOCK;
    cpu.threads.for_each(heads.queries * query_blocks, |task| {
        // The last block of queries sees most keys: longest tasks first.
        let (block, head) = (query_blocks - 1 - task / heads.queries, task % heads.queries);
        let first_query = block * BLOCK;
        let rows = BLOCK.min(count - first_query);
        let group = head / (heads.queries / heads.keys);
        let visible = start + first_query + rows;
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
                let from = Source::F32(turned.as_ptr()).add(first_query * heads.turned_width() + head * head_dim);
                tiles.pack_left(cpu, from, heads.turned_width(), rows, queries.as_mut_ptr());
                for key_block in 0..visible.div_ceil(BLOCK) {
                    let first_key = key_block * BLOCK;
                    let keys = BLOCK.min(total - first_key);
                    let at = (group * key_blocks + key_block) * (keys_words + values_words);
                    let (key_panels, value_panels) = (packed[at..].as_ptr(), packed[at + keys_words..].as_ptr());
                    let panels = keys.div_ceil(tiles.micro.width);
                    tiles.multiply(rows, tiles.head_units, queries.as_ptr(), 0, key_panels, panels, scores.as_mut_ptr(), BLOCK, false);
                    for i in 0..rows {
                        let end = (start + first_query + i + 1).saturating_sub(first_key).min(keys);
                        let sums = &mut sums[i * tiles.head_columns..(i + 1) * tiles.head_columns];
                        let to = tiles.sink(weights.as_mut_ptr()).add(i * BLOCK);
                        let scores = &scores[i * BLOCK..(i + 1) * BLOCK];
                        soften(
                            cpu.isa,
                            scores,
                            Seen { begin: 0, end, gap_begin: 0, gap_end: 0 },
                            scale,
                            &mut maxima[i],
                            &mut totals[i],
                            sums,
                            to,
                            tiles.rounds(),
                        );
                    }
                    let (units, stride) = (tiles.micro.units(keys), tiles.block_units);
                    let (from, to, columns) = (weights.as_ptr(), sums.as_mut_ptr(), tiles.head_columns);
                    tiles.multiply(rows, units, from, stride, value_panels, tiles.head_panels, to, columns, true);
                }
                for i in 0..rows {
                    let to = out.add((row + first_query + i) * heads.query_width() + head * head_dim);
                    finish(cpu.isa, &sums[i * tiles.head_columns..][..head_dim], 1.0 / totals[i], to);
                }
            }
        });
    });
    Ok(())
}
