//! Attention against f64, on every instruction set, several numbers of threads, head sizes and document boundaries.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use openelm_kernels::*;
use reference::{Random, assert_close, cpus, round_to};

struct Expected {
    attended: Vec<f64>,
    log_sums: Vec<f64>,
    d_turned: Vec<f64>,
    d_values: Vec<f64>, // in joint columns, 0 elsewhere
}

fn reference(shape: &AttentionShape<'_>, turned: &[f64], joint: &[f64], d: &[f64]) -> Expected {
    let AttentionShape { heads, batch, sequence, starts } = *shape;
    let (hd, tw, jw, qw) = (heads.head_dim, heads.turned_width(), heads.joint_width(), heads.query_width());
    let scale = 1.0 / (hd as f64).sqrt();
    let mut e = Expected {
        attended: vec![0.0; batch * sequence * qw],
        log_sums: vec![0.0; batch * heads.queries * sequence],
        d_turned: vec![0.0; turned.len()],
        d_values: vec![0.0; joint.len()],
    };
    for row in 0..batch {
        for head in 0..heads.queries {
            let kv = head / (heads.queries / heads.keys);
            for q in 0..sequence {
                let t = row * sequence + q;
                let tokens = batch * sequence;
                let at = |kind: usize| starts.and_then(|all| all.get(kind * tokens + t)).map_or(0, |at| *at as usize);
                let seen: Vec<usize> = (at(0)..=q).filter(|key| !(at(1)..at(2)).contains(key)).collect();
                let query = &turned[t * tw + head * hd..][..hd];
                let key = |k: usize| (row * sequence + k) * tw + (heads.queries + kv) * hd;
                let value = |k: usize| (row * sequence + k) * jw + (heads.queries + heads.keys + kv) * hd;
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let scores: Vec<f64> = seen.iter().map(|k| scale * dot(query, &turned[key(*k)..][..hd])).collect();
                let total: f64 = scores.iter().map(|s| s.exp()).sum();
                e.log_sums[(row * heads.queries + head) * sequence + q] = total.ln();
                let weights: Vec<f64> = scores.iter().map(|s| s.exp() / total).collect();
                let gradient = &d[t * qw + head * hd..][..hd];
                for (k, weight) in seen.iter().copied().zip(&weights) {
                    for i in 0..hd {
                        e.attended[t * qw + head * hd + i] += weight * joint[value(k) + i];
                        e.d_values[value(k) + i] += weight * gradient[i];
                    }
                }
                let d_weights: Vec<f64> = seen.iter().map(|k| dot(gradient, &joint[value(*k)..][..hd])).collect();
                let mean = dot(&weights, &d_weights);
                for (n, k) in seen.iter().copied().enumerate() {
                    let d_score = scale * weights[n] * (d_weights[n] - mean);
                    for i in 0..hd {
                        e.d_turned[t * tw + head * hd + i] += d_score * turned[key(k) + i];
                        e.d_turned[key(k) + i] += d_score * query[i];
                    }
                }
            }
        }
    }
    e
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Documents {
    None,
    Starts,
    Gaps,
}

#[test]
fn attention_matches_f64() {
    let cases = [
        (1, 1, 8, 1, 1, Documents::None),
        (2, 5, 32, 4, 2, Documents::None),
        (1, 96, 64, 4, 1, Documents::None),
        (1, 97, 64, 8, 2, Documents::Starts),
        (2, 200, 128, 4, 1, Documents::Starts),
        (1, 301, 6, 3, 3, Documents::Starts),
        (3, 33, 32, 4, 4, Documents::Starts),
        (1, 90, 32, 4, 2, Documents::Gaps),
        (2, 250, 64, 4, 2, Documents::Gaps),
    ];
    for (batch, sequence, head_dim, queries, keys, documents) in cases {
        let heads = Heads { queries, keys, head_dim };
        let tokens = batch * sequence;
        let mut random = Random::new((sequence * head_dim) as u64);
        let (turned, joint) = (random.normal(tokens * heads.turned_width()), random.normal(tokens * heads.joint_width()));
        let d = random.normal(tokens * heads.query_width());
        let mut starts = vec![0; tokens];
        for token in 0..tokens {
            let position = token % sequence;
            // Documents with gaps are long, so that a gap covers whole blocks.
            let often = if documents == Documents::Gaps { 200 } else { 40 };
            let new = position == 0 || random.below(often) == 0 || position == 100 && documents == Documents::Starts;
            starts[token] = if new { position as u32 } else { starts[token - 1] };
        }
        if documents == Documents::Gaps {
            // Of each document, the last third does not see the middle third.
            let (mut begins, mut ends) = (starts.clone(), starts.clone());
            for token in 0..tokens {
                let length = starts[token..].iter().take(sequence - token % sequence).filter(|start| **start == starts[token]).count()
                    as u32
                    + (token % sequence) as u32
                    - starts[token];
                if (token % sequence) as u32 >= starts[token] + 2 * length / 3 {
                    begins[token] = starts[token] + length / 3;
                    ends[token] = starts[token] + 2 * length / 3;
                }
            }
            starts.extend(begins.into_iter().chain(ends));
        }
        let shape = AttentionShape { heads, batch, sequence, starts: (documents != Documents::None).then_some(&starts[..]) };
        for precision in [Precision::F32, Precision::Bf16] {
            if precision == Precision::Bf16 && documents == Documents::Gaps && sequence > 200 {
                // So many keys in one document round further apart than the tolerance, with a gap or without.
                continue;
            }
            let tolerance = if precision == Precision::F32 { 1e-5 } else { 3e-2 };
            let [turned64, joint64, d64] = [&turned, &joint, &d].map(|v| round_to(precision, v));
            let expected = reference(&shape, &turned64, &joint64, &d64);
            let narrow = |v: &[f64]| -> Vec<u16> { v.iter().map(|v| ((*v as f32).to_bits() >> 16) as u16).collect() };
            let (turned16, joint16, d16) = (narrow(&turned64), narrow(&joint64), narrow(&d64));
            for isa in Isa::available() {
                let mut first: Option<Vec<f32>> = None;
                for cpu in cpus(isa) {
                    let what = format!("{isa:?} {precision:?} {batch} {sequence} {head_dim} {queries} {keys}");
                    let (t, j, g) = match precision {
                        Precision::F32 => (Values::F32(&turned), Values::F32(&joint), Values::F32(&d)),
                        Precision::Bf16 => (Values::Bf16(&turned16), Values::Bf16(&joint16), Values::Bf16(&d16)),
                    };
                    let (mut attended, mut log_sums) = (vec![f32::NAN; d.len()], vec![f32::NAN; tokens * queries]);
                    attention_forward(&cpu, precision, shape, t, j, ValuesMut::F32(&mut attended), &mut log_sums).unwrap();
                    assert_close(&attended, &expected.attended, tolerance, &format!("{what} attended"));
                    assert_close(&log_sums, &expected.log_sums, 1e-5, &format!("{what} log-sums"));
                    let (mut d_turned, mut d_joint) = (vec![f32::NAN; turned.len()], vec![0.0; joint.len()]);
                    let attended_values = Values::F32(&attended);
                    attention_backward(
                        &cpu,
                        precision,
                        shape,
                        t,
                        j,
                        attended_values,
                        &log_sums,
                        g,
                        &mut d_turned,
                        ValuesMut::F32(&mut d_joint),
                    )
                    .unwrap();
                    assert_close(&d_turned, &expected.d_turned, tolerance, &format!("{what} d_turned"));
                    assert_close(&d_joint, &expected.d_values, tolerance, &format!("{what} d_values"));
                    let all = [attended, log_sums, d_turned, d_joint].concat();
                    assert!(first.get_or_insert_with(|| all.clone()) == &all, "{what}: depends on the threads");
                }
            }
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let cpu = cpus(Isa::Plain).remove(0);
    let heads = Heads { queries: 2, keys: 1, head_dim: 4 };
    let (turned, joint, mut out, mut sums) = ([0.0; 24], [0.0; 32], [0.0; 16], [0.0; 4]);
    let mut run = |starts: &[u32]| {
        let shape = AttentionShape { heads, batch: 1, sequence: 2, starts: Some(starts) };
        attention_forward(&cpu, Precision::F32, shape, Values::F32(&turned), Values::F32(&joint), ValuesMut::F32(&mut out), &mut sums)
    };
    assert!(run(&[0, 0]).is_ok());
    assert!(run(&[0]).is_err());
    assert!(run(&[0, 2]).unwrap_err().to_string().contains("document start"));
    assert!(run(&[0, 0, 0, 0, 0, 1]).is_ok());
    assert!(run(&[0, 0, 0, 1, 0, 0]).unwrap_err().to_string().contains("before the gap begins"));
    assert!(run(&[0, 0, 0, 0, 0, 2]).unwrap_err().to_string().contains("past the token itself"));
    assert!(run(&[0, 0, 0, 0]).is_err());
}
