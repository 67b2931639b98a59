//! Attention of a run of queries over kept keys and values, which reach further back than the run: as the forward pass of training,
//! with keys and values packed from a store.

use super::{
    Seen,
    forward::QueryBlock,
    tiles::{BLOCK, Tiles},
};
use crate::decode::store::LayerParts;
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

    let block_words = tiles.block_words();
    let mut packed = cpu.arena.take(heads.keys * key_blocks * block_words);
    let room = Parts::new(packed.words_mut());
    cpu.threads.for_each(heads.keys * key_blocks, |task| {
        let (head, block) = (task / key_blocks, task % key_blocks);
        let rows = BLOCK.min(total - block * BLOCK);
        scratch::with(BLOCK * head_dim, |words| {
            let floats: &mut [f32] = bytemuck::cast_slice_mut(words);
            // SAFETY: each task packs into its own room; nobody writes the store.
            unsafe {
                let to = room.part(task * block_words, block_words).as_mut_ptr();
                let (keys, values) = layer.head(head, total);
                keys.unpack_rows(cpu.isa, block * BLOCK, rows, floats);
                tiles.pack_right(cpu, Source::F32(floats.as_ptr()), head_dim, rows, to);
                values.unpack_rows(cpu.isa, block * BLOCK, rows, floats);
                tiles.pack_channels(cpu, Source::F32(floats.as_ptr()), head_dim, rows, to.add(tiles.rows_words()));
            }
        });
    });
    let packed = packed.words();

    let out = attended.sink();
    cpu.threads.for_each(heads.queries * query_blocks, |task| {
        // The last block of queries sees most keys: longest tasks first.
        let (block, head) = (query_blocks - 1 - task / heads.queries, task % heads.queries);
        let first_query = block * BLOCK;
        let rows = BLOCK.min(count - first_query);
        let group = head / (heads.queries / heads.keys);
        let visible = start + first_query + rows;
        let packed = &packed[group * key_blocks * block_words..][..key_blocks * block_words];
        // SAFETY: the instruction set is available; the queries and the outputs lie in the slices checked above, and this task alone
        // writes its own.
        unsafe {
            let queries = Source::F32(turned.as_ptr()).add(first_query * heads.turned_width() + head * head_dim);
            let block = QueryBlock { cpu, tiles: &tiles, rows, queries, stride: heads.turned_width(), packed, keys: total };
            let seen = |i: usize, first_key: usize, keys: usize| {
                let end = (start + first_query + i + 1).saturating_sub(first_key).min(keys);
                Seen { begin: 0, end, gap_begin: 0, gap_end: 0 }
            };
            let to = out.add((row + first_query) * heads.query_width() + head * head_dim);
            block.attend(0..visible.div_ceil(BLOCK), seen, to, heads.query_width(), |_, _| {});
        }
    });
    Ok(())
}
