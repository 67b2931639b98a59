//! Attention of single queries over kept keys and values: the heads of one group read them together.

use super::store::{LayerParts, read_rows};
use crate::simd::{Source, exp, simd_fn, sweep};
use crate::stored::StoredMatrix;
use crate::{Isa, scratch};

/// Positions whose keys or values are widened to f32 at a time.
const TILE: usize = 64;

/// Softmax attention of `queries` [group, head_dim] over the first `length` positions of a head, into `out` [group, head_dim].
///
/// # Safety
/// The instruction set is available, and no task writes these positions meanwhile.
pub(super) unsafe fn attend(isa: Isa, layer: &LayerParts<'_>, head: usize, length: usize, queries: &[f32], out: &mut [f32]) {
    let head_dim = layer.head_dim;
    let group = queries.len() / head_dim;
    assert_eq!((queries.len(), out.len()), (group * head_dim, group * head_dim), "queries of whole heads");
    // SAFETY: the caller's promise.
    let (keys, values) = unsafe { layer.head(head, length) };
    scratch::with(group * length + TILE * head_dim, |words| {
        let words: &mut [f32] = bytemuck::cast_slice_mut(words);
        let (scores, tile) = words.split_at_mut(group * length);
        // SAFETY: the instruction set is available; every slice has the size that its name says.
        unsafe {
            for first in (0..length).step_by(TILE) {
                let count = TILE.min(length - first);
                let rows = floats(isa, &keys, first, count, tile);
                score(isa, rows, queries, head_dim, &mut scores[first..], length, count);
            }
            let scale = 1.0 / (head_dim as f32).sqrt();
            for scores in scores.chunks_exact_mut(length) {
                soften(isa, scores, scale);
            }
            out.fill(0.0);
            for first in (0..length).step_by(TILE) {
                let count = TILE.min(length - first);
                let rows = floats(isa, &values, first, count, tile);
                add_weighted(isa, rows, &scores[first..], length, count, head_dim, out);
            }
        }
    });
}

/// `count` rows of `matrix` from `first` on as f32, in `tile`.
///
/// # Safety
/// The instruction set is available.
unsafe fn floats<'a>(isa: Isa, matrix: &StoredMatrix<'_>, first: usize, count: usize, tile: &'a mut [f32]) -> &'a [f32] {
    // SAFETY: the caller's promise.
    unsafe { read_rows(isa, matrix, first, count, tile) };
    &tile[..count * matrix.columns]
}

simd_fn! {
    /// scores[g · stride + i] = row i · query g, for the first `count` rows.
    fn score<S>(rows: &[f32], queries: &[f32], head_dim: usize, scores: &mut [f32], stride: usize, count: usize) {
        for (g, query) in queries.chunks_exact(head_dim).enumerate() {
            let query = Source::F32(query.as_ptr());
            for (i, row) in rows.chunks_exact(head_dim).enumerate().take(count) {
                let row = Source::F32(row.as_ptr());
                let mut sum = S::splat(0.0);
                sweep!(head_dim, |at, lanes| {
                    sum = S::fma(row.load::<S>(at, lanes), query.load::<S>(at, lanes), sum);
                });
                scores[g * stride + i] = S::sum(sum);
            }
        }
    }
}

simd_fn! {
    /// Scores into weights that add up to 1.
    fn soften<S>(scores: &mut [f32], scale: f32) {
        let count = scores.len();
        let scores = scores.as_mut_ptr();
        let least = S::splat(f32::MIN);
        let positions: [f32; 16] = std::array::from_fn(|i| i as f32);
        let positions = S::load(positions.as_ptr());
        let mut largest = least;
        sweep!(count, |at, lanes| {
            let v = Source::F32(scores).load::<S>(at, lanes);
            let v = S::if_less(positions, S::splat(lanes as f32), v, least);
            largest = S::max(largest, v);
        });
        let shift = S::splat(-scale * S::maximum(largest));
        let mut total = S::splat(0.0);
        sweep!(count, |at, lanes| {
            let v = Source::F32(scores).load::<S>(at, lanes);
            let weight = exp::<S>(S::fma(v, S::splat(scale), shift));
            let weight = S::if_less(positions, S::splat(lanes as f32), weight, S::splat(0.0));
            total = S::add(total, weight);
            S::store_first(scores.add(at), weight, lanes);
        });
        let factor = S::splat(1.0 / S::sum(total));
        sweep!(count, |at, lanes| {
            let weight = S::mul(Source::F32(scores).load::<S>(at, lanes), factor);
            S::store_first(scores.add(at), weight, lanes);
        });
    }
}

simd_fn! {
    /// out[g] += Σ weights[g · stride + i] · row i, for the first `count` rows.
    fn add_weighted<S>(rows: &[f32], weights: &[f32], stride: usize, count: usize, head_dim: usize, out: &mut [f32]) {
        for (g, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let weights = &weights[g * stride..g * stride + count];
            let out = out.as_mut_ptr();
            sweep!(head_dim, |at, lanes| {
                let mut sum = Source::F32(out).load::<S>(at, lanes);
                for (i, weight) in weights.iter().enumerate() {
                    let row = Source::F32(rows.as_ptr().add(i * head_dim));
                    sum = S::fma(row.load::<S>(at, lanes), S::splat(*weight), sum);
                }
                S::store_first(out.add(at), sum, lanes);
            });
        }
    }
}
