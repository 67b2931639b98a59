//! Many tokens through the model: matrix products, with panels of the weights unpacked where they are used.

use super::{Piece, attend::attend, look_up::Answer, model::StoredModel, wanted_of};
use crate::attention::{CachedAttention, attention_cached};
use crate::matmul::product::Target;
use crate::stored::{MOST_TOKENS, StoredRows, multiply_many, stored_linear};
use crate::threads::Parts;
use crate::values::Activations;
use crate::{BlockShape, Cpu, Heads, KernelError, RotaryTables, Values, ValuesMut, rms_norm_forward, rotate_forward, swiglu_forward};

/// See [`read_tokens`](super::read_tokens).
pub(super) fn read(cpu: &Cpu, model: &StoredModel<'_>, pieces: &[Piece<'_, '_>], answer: Answer<'_>) -> Result<(), KernelError> {
    cpu.threads.enter(|| inside(cpu, model, pieces, answer))
}

fn inside(cpu: &Cpu, model: &StoredModel<'_>, pieces: &[Piece<'_, '_>], answer: Answer<'_>) -> Result<(), KernelError> {
    let dim = model.model_dim;
    let tokens: usize = pieces.iter().map(|piece| piece.ids.len()).sum();
    let wanted = wanted_of(pieces);
    let mut x = model.embed(pieces)?;
    let mut scales = vec![0.0; tokens];
    let mut middle = vec![0.0; tokens * dim];
    let last = model.blocks.len().saturating_sub(1);
    for (layer, block) in model.blocks.iter().enumerate() {
        let heads = block.shape.heads;
        let mut joint = cpu.arena.take(tokens * heads.joint_width());
        normed(cpu, &x, block.attn_norm, &block.qkv_proj, &mut scales, Target::Store(joint.floats_mut()))?;
        let mut turned = cpu.arena.take(tokens * heads.turned_width());
        let mut first = 0;
        for piece in pieces {
            let count = piece.ids.len();
            let from = Values::F32(&joint.floats()[first * heads.joint_width()..(first + count) * heads.joint_width()]);
            let to = ValuesMut::F32(&mut turned.floats_mut()[first * heads.turned_width()..(first + count) * heads.turned_width()]);
            let at = piece.start * heads.head_dim / 2..(piece.start + count) * heads.head_dim / 2;
            let tables = RotaryTables { cos: &model.tables.cos[at.clone()], sin: &model.tables.sin[at] };
            rotate_forward(cpu, heads, count, from, block.head_norms, tables, to)?;
            keep(
                cpu,
                piece,
                layer,
                heads,
                &turned.floats()[first * heads.turned_width()..],
                &joint.floats()[first * heads.joint_width()..],
            );
            first += count;
        }
        drop(joint);
        if layer == last && wanted.len() <= MOST_TOKENS {
            // Behind the last block's keys and values only tokens that need an answer matter.
            let mut rows = Vec::with_capacity(wanted.len() * dim);
            let mut attended = vec![0.0; wanted.len() * heads.query_width()];
            single(cpu, pieces, layer, heads, turned.floats(), &wanted, &mut attended);
            wanted.iter().for_each(|token| rows.extend_from_slice(&x[token * dim..(token + 1) * dim]));
            return finish_few(cpu, model, &attended, rows, answer);
        }
        let mut attended = Activations::take(&cpu.arena, block.out_proj.precision(), tokens * heads.query_width());
        attention(cpu, pieces, layer, heads, block.qkv_proj.precision(), turned.floats(), attended.values_mut())?;
        drop(turned);
        if layer == last && wanted.len() < tokens {
            let mut kept = Activations::take(&cpu.arena, block.out_proj.precision(), wanted.len() * heads.query_width());
            gather(attended.values(), heads.query_width(), &wanted, kept.values_mut());
            attended = kept;
            x = wanted.iter().flat_map(|token| &x[token * dim..(token + 1) * dim]).copied().collect();
            middle.truncate(x.len());
            scales.truncate(wanted.len());
        }
        multiply_many(cpu, attended.values(), &block.out_proj, Target::Sum(&mut middle, &x))?;
        drop(attended);
        feed_forward(cpu, block, &middle, &mut scales, &mut x)?;
    }
    head(cpu, model, &x, answer)
}

/// Some rows of [tokens, width], which have the type of `to`.
fn gather(from: Values<'_>, width: usize, rows: &[usize], to: ValuesMut<'_>) {
    fn copy<T: Copy>(from: &[T], width: usize, rows: &[usize], to: &mut [T]) {
        for (row, to) in rows.iter().zip(to.chunks_exact_mut(width)) {
            to.copy_from_slice(&from[row * width..(row + 1) * width]);
        }
    }
    match (from, to) {
        (Values::F32(from), ValuesMut::F32(to)) => copy(from, width, rows, to),
        (Values::Bf16(from), ValuesMut::Bf16(to)) => copy(from, width, rows, to),
        _ => unreachable!("rows of one type"),
    }
}

/// The last block behind attention, and the head, for a few tokens.
fn finish_few(cpu: &Cpu, model: &StoredModel<'_>, attended: &[f32], mut x: Vec<f32>, answer: Answer<'_>) -> Result<(), KernelError> {
    let Some(block) = model.blocks.last().filter(|_| !x.is_empty()) else { return Ok(()) };
    let BlockShape { model_dim, ffn_dim, gated, .. } = block.shape;
    let tokens = x.len() / model_dim;
    let mut sums = vec![0.0; x.len()];
    stored_linear(cpu, attended, &block.out_proj, &mut sums)?;
    x.iter_mut().zip(&sums).for_each(|(x, sum)| *x += sum);
    let mut normed = vec![0.0; x.len()];
    rms_norm_forward(cpu, &x, block.ffn_norm, ValuesMut::F32(&mut normed), &mut vec![0.0; tokens])?;
    let mut gates = vec![0.0; tokens * block.shape.proj_1_rows()];
    stored_linear(cpu, &normed, &block.proj_1, &mut gates)?;
    let mut hidden = vec![0.0; tokens * ffn_dim];
    swiglu_forward(cpu, Values::F32(&gates), ffn_dim, gated, ValuesMut::F32(&mut hidden))?;
    stored_linear(cpu, &hidden, &block.proj_2, &mut sums)?;
    x.iter_mut().zip(&sums).for_each(|(x, sum)| *x += sum);
    head(cpu, model, &x, answer)
}

fn head(cpu: &Cpu, model: &StoredModel<'_>, x: &[f32], answer: Answer<'_>) -> Result<(), KernelError> {
    let mut normed = vec![0.0; x.len()];
    let tokens = x.len() / model.model_dim;
    rms_norm_forward(cpu, x, model.norm, ValuesMut::F32(&mut normed), &mut vec![0.0; tokens])?;
    let vocabulary = model.head.rows();
    answer.fill(cpu, vocabulary, |first, logits| {
        let rows = &normed[first * model.model_dim..][..logits.len() / vocabulary.max(1) * model.model_dim];
        stored_linear(cpu, rows, &model.head, logits)
    })
}

/// Normed rows times the transpose of `weights`.
fn normed(cpu: &Cpu, x: &[f32], norm: &[f32], weights: &StoredRows<'_>, scales: &mut [f32], target: Target<'_>) -> Result<(), KernelError> {
    let mut normed = Activations::take(&cpu.arena, weights.precision(), x.len());
    rms_norm_forward(cpu, x, norm, normed.values_mut(), scales)?;
    multiply_many(cpu, normed.values(), weights, target)
}

/// x = middle + the feed-forward part of it.
fn feed_forward(cpu: &Cpu, block: &super::StoredBlock<'_>, middle: &[f32], scales: &mut [f32], x: &mut [f32]) -> Result<(), KernelError> {
    let BlockShape { ffn_dim, gated, .. } = block.shape;
    let tokens = scales.len();
    let precision = block.proj_2.precision();
    let mut gates = Activations::take(&cpu.arena, precision, tokens * block.shape.proj_1_rows());
    let target = match gates.values_mut() {
        ValuesMut::F32(values) => Target::Store(values),
        ValuesMut::Bf16(values) => Target::Halves(values),
    };
    normed(cpu, middle, block.ffn_norm, &block.proj_1, scales, target)?;
    let mut hidden = Activations::take(&cpu.arena, precision, tokens * ffn_dim);
    swiglu_forward(cpu, gates.values(), ffn_dim, gated, hidden.values_mut())?;
    drop(gates);
    multiply_many(cpu, hidden.values(), &block.proj_2, Target::Sum(x, middle))
}

/// Puts a piece's keys and values into its store.
fn keep(cpu: &Cpu, piece: &Piece<'_, '_>, layer: usize, heads: Heads, turned: &[f32], joint: &[f32]) {
    let Heads { queries, keys, head_dim } = heads;
    let parts = &piece.layers[layer];
    cpu.threads.for_each(keys, |head| {
        for i in 0..piece.ids.len() {
            let key = &turned[i * heads.turned_width() + (queries + head) * head_dim..][..head_dim];
            let value = &joint[i * heads.joint_width() + (queries + keys + head) * head_dim..][..head_dim];
            // SAFETY: this task alone has this head.
            unsafe { parts.put(head, piece.start + i, key, value) };
        }
    });
}

/// Attention of every token over its piece's store.
fn attention(
    cpu: &Cpu,
    pieces: &[Piece<'_, '_>],
    layer: usize,
    heads: Heads,
    precision: crate::Precision,
    turned: &[f32],
    mut attended: ValuesMut<'_>,
) -> Result<(), KernelError> {
    let mut first = 0;
    for piece in pieces {
        let count = piece.ids.len();
        let shape = CachedAttention { heads, start: piece.start, count };
        let queries = &turned[first * heads.turned_width()..(first + count) * heads.turned_width()];
        // SAFETY: no task writes the store before the next layer, which has other keys and values.
        unsafe { attention_cached(cpu, precision, shape, queries, &piece.layers[layer], &mut attended, first)? };
        first += count;
    }
    Ok(())
}

/// The same for the tokens in `rows` alone, one query at a time.
fn single(cpu: &Cpu, pieces: &[Piece<'_, '_>], layer: usize, heads: Heads, turned: &[f32], rows: &[usize], attended: &mut [f32]) {
    let group = heads.queries / heads.keys;
    let width = group * heads.head_dim;
    let attended = Parts::new(attended);
    cpu.threads.for_each(rows.len() * heads.keys, |task| {
        let (number, head) = (task / heads.keys, task % heads.keys);
        let Some(row) = rows.get(number) else { return };
        let mut first = 0;
        for piece in pieces {
            if (first..first + piece.ids.len()).contains(row) {
                let queries = &turned[row * heads.turned_width() + head * width..][..width];
                let length = piece.start + row - first + 1;
                // SAFETY: every task has its own part, and the keys and values are all there.
                unsafe {
                    let out = attended.part(number * heads.query_width() + head * width, width);
                    attend(cpu.isa, &piece.layers[layer], head, length, queries, out);
                }
            }
            first += piece.ids.len();
        }
    });
}
