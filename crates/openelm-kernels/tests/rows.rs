//! Norms, rotation, SwiGLU, AdamW and embedding against f64, on every instruction set and several numbers of threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use openelm_kernels::*;
use reference::{Random, assert_close, cpus, widen};

/// Runs `test` for every processor and fails when the number of threads changes its result.
fn everywhere(mut test: impl FnMut(&Cpu, &str) -> Vec<f32>) {
    for isa in Isa::available() {
        let mut first: Option<Vec<f32>> = None;
        for cpu in cpus(isa) {
            let found = test(&cpu, isa.name());
            assert!(first.get_or_insert_with(|| found.clone()) == &found, "{isa:?}: depends on the threads");
        }
    }
}

/// Norm of one row, and its backward: (y, dx, dw).
fn norm_row(x: &[f64], w: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let n = x.len() as f64;
    let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / n + 1e-6).sqrt();
    let dot: f64 = (0..x.len()).map(|i| dy[i] * w[i] * x[i]).sum();
    let y = (0..x.len()).map(|i| x[i] * scale * w[i]).collect();
    let dx = (0..x.len()).map(|i| scale * dy[i] * w[i] - x[i] * scale.powi(3) * dot / n).collect();
    let dw = (0..x.len()).map(|i| dy[i] * x[i] * scale).collect();
    (y, dx, dw)
}

fn unpack(halves: &[u16]) -> Vec<f32> {
    halves.iter().map(|half| f32::from_bits(u32::from(*half) << 16)).collect()
}

#[test]
fn rms_norm_matches_f64() {
    for (rows, dim) in [(1, 1), (3, 7), (70, 100), (33, 1280)] {
        let mut random = Random::new(dim as u64);
        let (x, w, dy, around) = (random.normal(rows * dim), random.normal(dim), random.normal(rows * dim), random.normal(rows * dim));
        let (mut y_expected, mut dx_expected, mut dw_expected) = (vec![], vec![], vec![0.0; dim]);
        for row in 0..rows {
            let range = row * dim..(row + 1) * dim;
            let (y, dx, dw) = norm_row(&widen(&x[range.clone()]), &widen(&w), &widen(&dy[range.clone()]));
            y_expected.extend(y);
            dx_expected.extend(dx.iter().zip(&around[range]).map(|(dx, around)| dx + f64::from(*around)));
            dw_expected.iter_mut().zip(dw).for_each(|(sum, dw)| *sum += dw);
        }
        everywhere(|cpu, what| {
            let (mut y, mut scales) = (vec![f32::NAN; rows * dim], vec![0.0; rows]);
            rms_norm_forward(cpu, &x, &w, ValuesMut::F32(&mut y), &mut scales).unwrap();
            assert_close(&y, &y_expected, 1e-5, what);
            let mut halves = vec![0; rows * dim];
            rms_norm_forward(cpu, &x, &w, ValuesMut::Bf16(&mut halves), &mut scales).unwrap();
            assert_close(&unpack(&halves), &y_expected, 4e-3, what);
            let (mut dx, mut dw) = (around.clone(), vec![f32::NAN; dim]);
            rms_norm_backward(cpu, &dy, &x, &w, &scales, &mut dx, false, &mut dw).unwrap();
            assert_close(&dx, &dx_expected, 1e-5, what);
            assert_close(&dw, &dw_expected, 1e-5, what);
            let mut twice = dw.clone();
            rms_norm_backward(cpu, &dy, &x, &w, &scales, &mut around.clone(), true, &mut twice).unwrap();
            assert_close(&twice, &dw_expected.iter().map(|dw| 2.0 * dw).collect::<Vec<_>>(), 1e-5, what);
            [y, dx, dw, twice].concat()
        });
    }
}

#[test]
fn rotation_matches_f64() {
    for (head_dim, normed) in [(8, true), (32, true), (64, true), (128, false), (6, true)] {
        let heads = Heads { queries: 6, keys: 2, head_dim };
        let (tokens, sequence, half) = (38, 19, head_dim / 2);
        let mut random = Random::new(head_dim as u64);
        let joint = random.normal(tokens * heads.joint_width());
        let (wq, wk) = (random.normal(head_dim), random.normal(head_dim));
        let d_turned = random.normal(tokens * heads.turned_width());
        let angles: Vec<f64> = (0..sequence * half).map(|i| (i / half) as f64 * 0.3f64.powi((i % half) as i32)).collect();
        let cos: Vec<f32> = angles.iter().map(|a| a.cos() as f32).collect();
        let sin: Vec<f32> = angles.iter().map(|a| a.sin() as f32).collect();
        let mut turned_expected = vec![0.0; d_turned.len()];
        let mut d_joint_expected = vec![7.0; joint.len()];
        let mut dw_expected = [vec![0.0; head_dim], vec![0.0; head_dim]];
        for token in 0..tokens {
            let (c, s) = (&cos[token % sequence * half..], &sin[token % sequence * half..]);
            for head in 0..heads.queries + heads.keys {
                let which = usize::from(head >= heads.queries);
                let at = token * heads.joint_width() + head * head_dim;
                let to = token * heads.turned_width() + head * head_dim;
                let x = widen(&joint[at..at + head_dim]);
                let w = widen([&wq, &wk][which]);
                let g = widen(&d_turned[to..to + head_dim]);
                let (mut back, mut n) = (vec![0.0; head_dim], x.clone());
                for i in 0..half {
                    let (c, s) = (f64::from(c[i]), f64::from(s[i]));
                    back[i] = g[i] * c + g[half + i] * s;
                    back[half + i] = g[half + i] * c - g[i] * s;
                }
                let mut dx = back.clone();
                if normed {
                    let dw;
                    (n, dx, dw) = norm_row(&x, &w, &back);
                    dw_expected[which].iter_mut().zip(dw).for_each(|(sum, dw)| *sum += dw);
                }
                for i in 0..half {
                    let (c, s) = (f64::from(c[i]), f64::from(s[i]));
                    turned_expected[to + i] = n[i] * c - n[half + i] * s;
                    turned_expected[to + half + i] = n[half + i] * c + n[i] * s;
                }
                d_joint_expected[at..at + head_dim].copy_from_slice(&dx);
            }
        }
        let norms = HeadNorms { queries: normed.then_some(&wq[..]), keys: normed.then_some(&wk[..]) };
        let tables = RotaryTables { cos: &cos, sin: &sin };
        everywhere(|cpu, what| {
            let mut turned = vec![f32::NAN; d_turned.len()];
            rotate_forward(cpu, heads, sequence, Values::F32(&joint), norms, tables, ValuesMut::F32(&mut turned)).unwrap();
            assert_close(&turned, &turned_expected, 1e-5, what);
            let mut d_joint = vec![7.0; joint.len()];
            let (mut dq, mut dk) = (vec![f32::NAN; head_dim], vec![f32::NAN; head_dim]);
            let gradients = if normed { [Some(&mut dq[..]), Some(&mut dk[..])] } else { [None, None] };
            rotate_backward(
                cpu,
                heads,
                sequence,
                Values::F32(&joint),
                norms,
                tables,
                &d_turned,
                ValuesMut::F32(&mut d_joint),
                false,
                gradients,
            )
            .unwrap();
            assert_close(&d_joint, &d_joint_expected, 1e-5, what);
            if normed {
                assert_close(&dq, &dw_expected[0], 1e-5, what);
                assert_close(&dk, &dw_expected[1], 1e-5, what);
                return [turned, d_joint, dq, dk].concat();
            }
            [turned, d_joint].concat()
        });
    }
}

#[test]
fn swiglu_matches_f64() {
    for (rows, width, gated) in [(1, 1, true), (5, 50, true), (21, 256, true), (9, 33, false)] {
        let columns = if gated { 2 * width } else { width };
        let mut random = Random::new(width as u64);
        let mut input = random.normal(rows * columns);
        input[0] = 40.0;
        input[columns - 1] = -95.0;
        let d_hidden = random.normal(rows * width);
        let (mut h_expected, mut d_expected) = (vec![0.0; rows * width], vec![0.0; rows * columns]);
        for row in 0..rows {
            for i in 0..width {
                let gate = f64::from(input[row * columns + i]);
                let up = if gated { f64::from(input[row * columns + width + i]) } else { 1.0 };
                let s = 1.0 / (1.0 + (-gate).exp());
                let g = f64::from(d_hidden[row * width + i]);
                h_expected[row * width + i] = gate * s * up;
                d_expected[row * columns + i] = g * up * (s + gate * s * (1.0 - s));
                if gated {
                    d_expected[row * columns + width + i] = g * gate * s;
                }
            }
        }
        everywhere(|cpu, what| {
            let (mut h, mut again, mut d) = (vec![f32::NAN; rows * width], vec![f32::NAN; rows * width], vec![f32::NAN; rows * columns]);
            swiglu_forward(cpu, Values::F32(&input), width, gated, ValuesMut::F32(&mut h)).unwrap();
            assert_close(&h, &h_expected, 1e-5, what);
            let (dh, dv) = (Values::F32(&d_hidden), ValuesMut::F32(&mut d));
            swiglu_backward(cpu, Values::F32(&input), dh, width, gated, dv, ValuesMut::F32(&mut again)).unwrap();
            assert_eq!(h, again);
            assert_close(&d, &d_expected, 1e-5, what);
            [h, d].concat()
        });
    }
}

#[test]
fn adamw_matches_f64() {
    for len in [1, 15, 40_000] {
        let mut random = Random::new(len as u64);
        let start = random.normal(len);
        let gradients = [random.normal(len), random.normal(len), random.normal(len)];
        let (mut p, mut m, mut v) = (widen(&start), vec![0.0; len], vec![0.0; len]);
        for (step, g) in gradients.iter().enumerate() {
            for i in 0..len {
                let g = f64::from(g[i]) * 0.5;
                p[i] *= 1.0 - 0.01 * 0.1;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(step as i32 + 1)), v[i] / (1.0 - 0.95f64.powi(step as i32 + 1)));
                p[i] -= 0.01 * mh / (vh.sqrt() + 1e-8);
            }
        }
        let squares: f64 = gradients[0].iter().map(|g| f64::from(*g).powi(2)).sum();
        everywhere(|cpu, what| {
            let (mut found, mut first, mut second) = (start.clone(), vec![0.0; len], vec![0.0; len]);
            for (step, g) in gradients.iter().enumerate() {
                let settings = AdamW {
                    learning_rate: 0.01,
                    beta1: 0.9,
                    beta2: 0.95,
                    epsilon: 1e-8,
                    weight_decay: 0.1,
                    step: step as u64 + 1,
                    gradient_scale: 0.5,
                };
                adamw_step(cpu, &settings, &mut found, g, &mut first, &mut second).unwrap();
            }
            assert_close(&found, &p, 1e-5, what);
            assert_close(&first, &m, 1e-5, what);
            assert_close(&second, &v, 1e-5, what);
            let sum = sum_of_squares(cpu, &gradients[0]);
            assert!((sum / squares - 1.0).abs() < 1e-6);
            found.push(sum as f32);
            found
        });
    }
}

#[test]
fn embedding_matches_plain_loops() {
    let (rows, dim, tokens) = (11, 37, 90);
    let mut random = Random::new(3);
    let (table, d_hidden) = (random.normal(rows * dim), random.normal(tokens * dim));
    let ids: Vec<u32> = (0..tokens).map(|_| random.below(rows) as u32).collect();
    let mut expected = vec![1.0; rows * dim];
    for (token, id) in ids.iter().enumerate().filter(|(_, id)| **id != 4) {
        for i in 0..dim {
            expected[*id as usize * dim + i] += f64::from(d_hidden[token * dim + i]);
        }
    }
    everywhere(|cpu, what| {
        let mut hidden = vec![0.0; tokens * dim];
        embedding_forward(cpu, &table, dim, &ids, &mut hidden).unwrap();
        for (token, id) in ids.iter().enumerate() {
            assert_eq!(hidden[token * dim..][..dim], table[*id as usize * dim..][..dim]);
        }
        let mut d_table = vec![1.0; rows * dim];
        embedding_backward(cpu, &d_hidden, dim, &ids, Some(4), &mut d_table).unwrap();
        assert_close(&d_table, &expected, 1e-5, what);
        d_table
    });
    let cpu = cpus(Isa::Plain).remove(0);
    let error = embedding_forward(&cpu, &table, dim, &[99], &mut vec![0.0; dim]).unwrap_err();
    assert!(error.to_string().contains("99"), "{error}");
}
