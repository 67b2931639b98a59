//! Attention of single queries over kept keys and values: the heads of one group read them together.

use openelm_formats::DType;

use super::store::{KvType, LayerParts};
use crate::simd::{Simd, Source, exp, simd_fn, sweep};
use crate::stored::StoredMatrix;
use crate::stored::floats::{Brain, Half, Single, Stored};
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
            let whole = head_dim.is_multiple_of(16) && layer.kind != KvType::Q8;
            if whole {
                score_stored(isa, &keys, queries, scores);
            } else {
                for first in (0..length).step_by(TILE) {
                    let count = TILE.min(length - first);
                    let rows = floats(isa, &keys, first, count, tile);
                    score(isa, rows, queries, head_dim, &mut scores[first..], length, count);
                }
            }
            let scale = 1.0 / (head_dim as f32).sqrt();
            for scores in scores.chunks_exact_mut(length) {
                soften(isa, scores, scale);
            }
            if whole {
                return add_stored(isa, &values, scores, out);
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

/// Queries that meet a key or a value while it is in a register.
const TOGETHER: usize = 4;

simd_fn! {
    /// scores[g · rows + i] = row i · query g. Rows are floats, of whole registers.
    fn score_stored<S>(keys: &StoredMatrix<'_>, queries: &[f32], scores: &mut [f32]) {
        for (queries, scores) in queries.chunks(TOGETHER * keys.columns).zip(scores.chunks_mut(TOGETHER * keys.rows)) {
            match keys.dtype {
                DType::F16 => by_group::<S, Half>(keys, queries, scores),
                DType::BF16 => by_group::<S, Brain>(keys, queries, scores),
                _ => by_group::<S, Single>(keys, queries, scores),
            }
        }
    }
}

#[inline(always)]
unsafe fn by_group<S: Simd, T: Stored>(keys: &StoredMatrix<'_>, queries: &[f32], scores: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match queries.len() / keys.columns {
            1 => score_group::<S, T, 1>(keys, queries, scores),
            2 => score_group::<S, T, 2>(keys, queries, scores),
            3 => score_group::<S, T, 3>(keys, queries, scores),
            _ => score_group::<S, T, TOGETHER>(keys, queries, scores),
        }
    }
}

// Indices over constant ranges are unrolled into registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn score_group<S: Simd, T: Stored, const GROUP: usize>(keys: &StoredMatrix<'_>, queries: &[f32], scores: &mut [f32]) {
    let (rows, columns) = (keys.rows, keys.columns);
    assert!(queries.len() == GROUP * columns && scores.len() == GROUP * rows);
    for row in 0..rows {
        // SAFETY: the row lies in the matrix, a query has as many columns.
        unsafe {
            let from = keys.bytes.as_ptr().add(row * keys.row_bytes);
            let mut sums = [S::splat(0.0); GROUP];
            for at in (0..columns).step_by(16) {
                let key = T::load::<S>(from.add(at * T::BYTES));
                for g in 0..GROUP {
                    sums[g] = S::fma(key, S::load(queries.as_ptr().add(g * columns + at)), sums[g]);
                }
            }
            if let [a, b, c, d] = sums[..] {
                for (g, sum) in S::sums([a, b, c, d]).into_iter().enumerate() {
                    *scores.as_mut_ptr().add(g * rows + row) = sum;
                }
                continue;
            }
            for g in 0..GROUP {
                *scores.as_mut_ptr().add(g * rows + row) = S::sum(sums[g]);
            }
        }
    }
}

simd_fn! {
    /// out[g] = Σ weights[g · rows + i] · row i. Rows are floats, of whole registers.
    fn add_stored<S>(values: &StoredMatrix<'_>, weights: &[f32], out: &mut [f32]) {
        for (weights, out) in weights.chunks(TOGETHER * values.rows).zip(out.chunks_mut(TOGETHER * values.columns)) {
            match values.dtype {
                DType::F16 => add_by_group::<S, Half>(values, weights, out),
                DType::BF16 => add_by_group::<S, Brain>(values, weights, out),
                _ => add_by_group::<S, Single>(values, weights, out),
            }
        }
    }
}

#[inline(always)]
unsafe fn add_by_group<S: Simd, T: Stored>(values: &StoredMatrix<'_>, weights: &[f32], out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match out.len() / values.columns {
            1 => add_group::<S, T, 1, 1>(values, weights, out),
            2 => add_group::<S, T, 2, 1>(values, weights, out),
            3 => add_group::<S, T, 3, 1>(values, weights, out),
            _ if S::WHOLE && values.columns.is_multiple_of(64) => add_group::<S, T, TOGETHER, 4>(values, weights, out),
            _ => add_group::<S, T, TOGETHER, 1>(values, weights, out),
        }
    }
}

// As above.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_group<S: Simd, T: Stored, const GROUP: usize, const TIMES: usize>(
    values: &StoredMatrix<'_>,
    weights: &[f32],
    out: &mut [f32],
) {
    let (rows, columns) = (values.rows, values.columns);
    assert!(out.len() == GROUP * columns && weights.len() == GROUP * rows);
    assert!(columns.is_multiple_of(16 * TIMES), "{columns} columns by {TIMES} registers");
    for at in (0..columns).step_by(16 * TIMES) {
        // SAFETY: rows lie in the matrix, weights and sums in their slices.
        unsafe {
            let mut sums = [[S::splat(0.0); TIMES]; GROUP];
            for row in 0..rows {
                let from = values.bytes.as_ptr().add(row * values.row_bytes + at * T::BYTES);
                let mut value = [S::splat(0.0); TIMES];
                for i in 0..TIMES {
                    value[i] = T::load::<S>(from.add(16 * i * T::BYTES));
                }
                for g in 0..GROUP {
                    let weight = S::splat(*weights.as_ptr().add(g * rows + row));
                    for i in 0..TIMES {
                        sums[g][i] = S::fma(value[i], weight, sums[g][i]);
                    }
                }
            }
            for g in 0..GROUP {
                for i in 0..TIMES {
                    S::store(out.as_mut_ptr().add(g * columns + at + 16 * i), sums[g][i]);
                }
            }
        }
    }
}

/// `count` rows of `matrix` from `first` on as f32, in `tile`.
///
/// # Safety
/// The instruction set is available.
unsafe fn floats<'a>(isa: Isa, matrix: &StoredMatrix<'_>, first: usize, count: usize, tile: &'a mut [f32]) -> &'a [f32] {
    // SAFETY: the caller's promise.
    unsafe { matrix.unpack_rows(isa, first, count, tile) };
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
