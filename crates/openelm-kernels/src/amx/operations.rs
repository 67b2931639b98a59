//! Whole operations on tiles beside the same in AVX-512: another order of summation and nothing else lies between them.

use openelm_formats::{DType, decode_f32, encode_f32};

use crate::matmul::product::{Right, Target, product};
use crate::*;

/// Values round 0 without a pattern that a wrong index could hide in.
fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 1) * (2 * seed + 1)) as f64 * 0.618_033_988_7).fract() as f32 - 0.5).collect()
}

/// Fails unless both are equal but for rounding, which may be `tolerance` of the largest value.
fn assert_near(tiles: &[f32], plain: &[f32], tolerance: f32, what: &str) {
    let largest = plain.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    for (i, (tiles, plain)) in tiles.iter().zip(plain).enumerate() {
        assert!((tiles - plain).abs() <= tolerance * largest, "{what}, {i}: {tiles} {plain}, of {largest}");
    }
}

/// What `run` gives on tiles and in AVX-512, where the latter is.
fn both<R>(mut run: impl FnMut(&Cpu) -> R) -> Option<[R; 2]> {
    let plain = Cpu::new(Isa::Avx512Bf16, Threads::new(2).unwrap()).ok()?;
    Some([run(&Cpu::with_tiles(2)?), run(&plain)])
}

#[test]
fn attention() {
    for (sequence, head_dim) in [(1, 64), (33, 64), (97, 20), (230, 64)] {
        let heads = Heads { queries: 4, keys: 2, head_dim };
        let tokens = 2 * sequence;
        let third = sequence / 3;
        let starts: Vec<u32> = (0..tokens).map(|t| if t % sequence > third { third as u32 } else { 0 }).collect();
        let shape = AttentionShape { heads, batch: 2, sequence, starts: Some(&starts) };
        let (turned, joint) = (values(tokens * heads.turned_width(), 1), values(tokens * heads.joint_width(), 2));
        let d = values(tokens * heads.query_width(), 3);
        let (t, j, bf16) = (Values::F32(&turned), Values::F32(&joint), Precision::Bf16);
        let results = both(|cpu| {
            let (mut attended, mut log_sums) = (vec![0.0; d.len()], vec![0.0; tokens * heads.queries]);
            let (mut d_turned, mut d_joint) = (vec![0.0; turned.len()], vec![0.0; joint.len()]);
            attention_forward(cpu, bf16, shape, t, j, ValuesMut::F32(&mut attended), &mut log_sums).unwrap();
            let (a, g, to) = (Values::F32(&attended), Values::F32(&d), ValuesMut::F32(&mut d_joint));
            attention_backward(cpu, bf16, shape, t, j, a, &log_sums, g, &mut d_turned, to).unwrap();
            [attended, log_sums, d_turned, d_joint]
        });
        let Some([tiles, plain]) = results else { return };
        for (name, (tiles, plain)) in ["attended", "log-sums", "d_turned", "d_joint"].into_iter().zip(tiles.iter().zip(&plain)) {
            // Weights whose last bits differ can become neighbours in bf16.
            assert_near(tiles, plain, 1e-3, &format!("{name} {sequence} {head_dim}"));
        }
    }
}

#[test]
fn head_and_loss() {
    for (rows, dim, vocabulary) in [(1, 8, 33), (70, 96, 300), (33, 50, 4200)] {
        let (hidden, table) = (values(rows * dim, 4), values(vocabulary * dim, 5));
        let targets: Vec<u32> = (0..rows).map(|row| (row * 29 % vocabulary) as u32).collect();
        let settings = LossSettings { ignored: Some(0), z_weight: 1e-4, scale: 1.0 };
        let results = both(|cpu| {
            let (mut d_hidden, mut d_table) = (vec![0.0; rows * dim], vec![0.25; vocabulary * dim]);
            let gradients = HeadGradients { d_hidden: &mut d_hidden, d_table: Some(&mut d_table), accumulate: true };
            let loss = head_loss(cpu, Precision::Bf16, Values::F32(&hidden), &table, dim, &targets, settings, Some(gradients)).unwrap();
            [vec![loss.cross_entropy as f32, loss.z_loss as f32], d_hidden, d_table]
        });
        let Some([tiles, plain]) = results else { return };
        for (name, (tiles, plain)) in ["loss", "d_hidden", "d_table"].into_iter().zip(tiles.iter().zip(&plain)) {
            assert_near(tiles, plain, 1e-3, &format!("{name} {rows} {dim} {vocabulary}"));
        }
    }
}

#[test]
fn stored_weights() {
    for dtype in DType::QUANTISED.into_iter().chain([DType::BF16, DType::F16]) {
        for (tokens, rows, columns) in [(12, 33, 96), (40, 70, 1280), (1100, 5, 448)] {
            let columns = usize::next_multiple_of(columns, dtype.block_len());
            let bytes = encode_f32(&values(rows * columns, 6), dtype).unwrap();
            let weights = StoredRows::from(StoredMatrix::new(dtype, &bytes, rows, columns).unwrap());
            let dense = decode_f32(&bytes, dtype).unwrap();
            let dense = Weights::Plain(Matrix::f32(&dense, rows, columns).unwrap());
            let x = values(tokens * columns, 7);
            // Through the product itself: weights with a scale for every 32 would else go by bytes.
            let results = both(|cpu| {
                let (mut stored, mut plain) = (vec![f32::NAN; tokens * rows], vec![f32::NAN; tokens * rows]);
                let x = Matrix::f32(&x, tokens, columns).unwrap();
                product(cpu, Precision::Bf16, x.by_rows(), Right::Stored(&weights), Target::Store(&mut stored));
                linear_forward(cpu, Precision::Bf16, x, dense, None, &mut plain).unwrap();
                [stored, plain]
            });
            let Some([[tiles, on_tiles], [_, elsewhere]]) = results else { return };
            let what = format!("{dtype} {tokens} {rows} {columns}");
            if matches!(dtype, DType::Affine4 | DType::Affine8) {
                // A level times a scale of f32 is rounded, or not where the offset is added at once: a weight between two values of bf16
                // may become either.
                assert_near(&tiles, &on_tiles, 2e-3, &what);
                continue;
            }
            assert_eq!(tiles, on_tiles, "{what}");
            assert_near(&tiles, &elsewhere, 1e-5, &what);
        }
    }
}
