//! A whole block: values against an f64 forward pass, gradients against finite differences of it.

#![allow(clippy::unwrap_used)]

mod reference;

use openelm_kernels::*;
use reference::{Random, assert_close, cpus, product, transpose, widen};

/// Shape, parameters (attn_norm, qkv, q_norm, k_norm, out, ffn_norm, proj_1, proj_2), x and dy.
struct Case {
    shape: BlockShape,
    batch: usize,
    sequence: usize,
    normed: bool,
    starts: Option<Vec<u32>>,
    parameters: Vec<Vec<f32>>,
    x: Vec<f32>,
    dy: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Case {
    fn new(shape: BlockShape, batch: usize, sequence: usize, normed: bool, documents: bool) -> Self {
        let BlockShape { model_dim, heads, ffn_dim, .. } = shape;
        let mut random = Random::new((sequence * model_dim) as u64);
        let sizes = [
            model_dim,
            heads.joint_width() * model_dim,
            heads.head_dim,
            heads.head_dim,
            model_dim * heads.query_width(),
            model_dim,
            shape.proj_1_rows() * model_dim,
            model_dim * ffn_dim,
        ];
        let parameters = sizes
            .iter()
            .map(|size| {
                let matrix = *size > model_dim;
                let deviation = if matrix { (model_dim as f32).powf(-0.5) } else { 0.2 };
                random.normal(*size).iter().map(|v| v * deviation + if matrix { 0.0 } else { 1.0 }).collect()
            })
            .collect();
        let tokens = batch * sequence;
        let half = heads.head_dim / 2;
        let angles: Vec<f64> = (0..sequence * half).map(|i| (i / half) as f64 * 0.4f64.powi((i % half) as i32)).collect();
        Self {
            shape,
            batch,
            sequence,
            normed,
            starts: documents.then(|| (0..tokens).map(|t| (t % sequence / 5 * 5) as u32).collect()),
            parameters,
            x: random.normal(tokens * model_dim),
            dy: random.normal(tokens * model_dim),
            cos: angles.iter().map(|a| a.cos() as f32).collect(),
            sin: angles.iter().map(|a| a.sin() as f32).collect(),
        }
    }

    fn norms(&self) -> HeadNorms<'_> {
        let of = |index: usize| self.normed.then_some(&self.parameters[index][..]);
        HeadNorms { queries: of(2), keys: of(3) }
    }

    /// y, dx and the parameters' gradients.
    fn run(&self, cpu: &Cpu, precision: Precision, keep: Keep, packed: bool) -> Vec<Vec<f32>> {
        let p = &self.parameters;
        let BlockShape { model_dim, heads, ffn_dim, .. } = self.shape;
        let packs: Vec<_> = [(1, heads.joint_width()), (4, model_dim), (6, self.shape.proj_1_rows()), (7, model_dim)]
            .into_iter()
            .map(|(index, rows)| {
                let matrix = Matrix::f32(&p[index], rows, p[index].len() / rows).unwrap();
                (PackedMatrix::for_forward(cpu, matrix, precision), PackedMatrix::for_backward(cpu, matrix, precision))
            })
            .collect();
        let matrix = |index: usize, pack: usize| BlockMatrix {
            packed: packed.then_some((&packs[pack].0, &packs[pack].1)),
            ..BlockMatrix::from(&p[index][..])
        };
        let weights = BlockWeights {
            attn_norm: &p[0],
            qkv_proj: matrix(1, 0),
            head_norms: self.norms(),
            out_proj: matrix(4, 1),
            ffn_norm: &p[5],
            proj_1: matrix(6, 2),
            proj_2: matrix(7, 3),
        };
        assert_eq!(p[7].len(), model_dim * ffn_dim);
        let tables = RotaryTables { cos: &self.cos, sin: &self.sin };
        let input = BlockInput { batch: self.batch, sequence: self.sequence, starts: self.starts.as_deref(), tables };
        let mut saved = Saved::new(keep);
        let (mut y, mut dx) = (vec![f32::NAN; self.x.len()], vec![f32::NAN; self.x.len()]);
        let mut g: Vec<Vec<f32>> = p.iter().map(|p| vec![f32::NAN; p.len()]).collect();
        for accumulate in [false, true] {
            block_forward(cpu, precision, &self.shape, &weights, &input, &self.x, &mut y, &mut saved).unwrap();
            let [attn, qkv, q, k, out, ffn, one, two] = &mut g[..] else { unreachable!() };
            let gradients = BlockGradients {
                attn_norm: Some(attn),
                qkv_proj: qkv.as_mut_slice().into(),
                q_norm: self.normed.then_some(q),
                k_norm: self.normed.then_some(k),
                out_proj: out.as_mut_slice().into(),
                ffn_norm: Some(ffn),
                proj_1: one.as_mut_slice().into(),
                proj_2: two.as_mut_slice().into(),
                accumulate,
            };
            block_backward(cpu, precision, &self.shape, &weights, &input, &self.x, &saved, &self.dy, &mut dx, gradients).unwrap();
        }
        // Both passes were added up.
        g.iter_mut().flatten().for_each(|g| *g *= 0.5);
        if !self.normed {
            g[2].fill(0.0);
            g[3].fill(0.0);
        }
        [vec![y, dx], g].concat()
    }

    /// The block in f64.
    fn forward(&self, p: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
        let BlockShape { model_dim, heads, ffn_dim, gated } = self.shape;
        let (tokens, hd, width) = (self.batch * self.sequence, heads.head_dim, heads.joint_width());
        let norm = |x: &[f64], w: &[f64]| -> Vec<f64> {
            let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-6).sqrt();
            x.iter().zip(w).map(|(x, w)| x * scale * w).collect()
        };
        let linear = |x: &[f64], w: &[f64], inner: usize| -> Vec<f64> {
            product(x, &transpose(w, w.len() / inner, inner), x.len() / inner, inner, w.len() / inner)
        };
        let normed: Vec<f64> = x.chunks(model_dim).flat_map(|x| norm(x, &p[0])).collect();
        let mut joint = linear(&normed, &p[1], model_dim);
        for token in 0..tokens {
            for head in 0..heads.queries + heads.keys {
                let row = &mut joint[token * width + head * hd..][..hd];
                let n = if self.normed { norm(row, &p[if head < heads.queries { 2 } else { 3 }]) } else { row.to_vec() };
                for i in 0..hd / 2 {
                    let at = token % self.sequence * hd / 2 + i;
                    let (c, s) = (f64::from(self.cos[at]), f64::from(self.sin[at]));
                    row[i] = n[i] * c - n[hd / 2 + i] * s;
                    row[hd / 2 + i] = n[hd / 2 + i] * c + n[i] * s;
                }
            }
        }
        let mut attended = vec![0.0; tokens * heads.query_width()];
        for token in 0..tokens {
            let row = token / self.sequence * self.sequence;
            let first = row + self.starts.as_ref().map_or(0, |starts| starts[token] as usize);
            for head in 0..heads.queries {
                let kv = heads.queries + head / (heads.queries / heads.keys);
                let query = &joint[token * width + head * hd..][..hd];
                let weights: Vec<f64> = (first..=token)
                    .map(|key| {
                        (query.iter().zip(&joint[key * width + kv * hd..]).map(|(q, k)| q * k).sum::<f64>() / (hd as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for (key, weight) in (first..=token).zip(&weights) {
                    for i in 0..hd {
                        attended[token * heads.query_width() + head * hd + i] +=
                            weight / total * joint[key * width + (kv + heads.keys) * hd + i];
                    }
                }
            }
        }
        let out = linear(&attended, &p[4], heads.query_width());
        let middle: Vec<f64> = x.iter().zip(out).map(|(x, out)| x + out).collect();
        let normed: Vec<f64> = middle.chunks(model_dim).flat_map(|x| norm(x, &p[5])).collect();
        let gates = linear(&normed, &p[6], model_dim);
        let hidden: Vec<f64> = gates
            .chunks(self.shape.proj_1_rows())
            .flat_map(|row| {
                (0..ffn_dim).map(|i| row[i] / (1.0 + (-row[i]).exp()) * if gated { row[ffn_dim + i] } else { 1.0 }).collect::<Vec<_>>()
            })
            .collect();
        middle.iter().zip(linear(&hidden, &p[7], ffn_dim)).map(|(x, out)| x + out).collect()
    }
}

fn cases() -> Vec<Case> {
    let shape = |model_dim, queries, keys, head_dim, ffn_dim, gated| BlockShape {
        model_dim,
        heads: Heads { queries, keys, head_dim },
        ffn_dim,
        gated,
    };
    vec![
        Case::new(shape(24, 4, 1, 8, 20, true), 1, 1, true, false),
        Case::new(shape(40, 4, 2, 10, 37, true), 2, 13, true, true),
        Case::new(shape(33, 2, 2, 32, 16, false), 1, 7, false, false),
        Case::new(shape(64, 8, 2, 64, 96, true), 1, 110, true, false),
    ]
}

#[test]
fn values_and_gradients_match_f64() {
    for (number, case) in cases().iter().enumerate() {
        let p: Vec<Vec<f64>> = case.parameters.iter().map(|p| widen(p)).collect();
        let x = widen(&case.x);
        let y = case.forward(&p, &x);
        let loss = |p: &[Vec<f64>], x: &[f64]| -> f64 { case.forward(p, x).iter().zip(&case.dy).map(|(y, dy)| y * f64::from(*dy)).sum() };
        let mut random = Random::new(number as u64 + 9);
        // A derivative along a random direction of every input: (input, direction, derivative).
        let mut slopes = Vec::new();
        for input in 0..9 {
            for _ in 0..2 {
                let len = if input == 8 { x.len() } else { p[input].len() };
                let direction = widen(&random.normal(len));
                let at = |step: f64| {
                    let (mut p, mut x) = (p.clone(), x.clone());
                    let values = if input == 8 { &mut x } else { &mut p[input] };
                    values.iter_mut().zip(&direction).for_each(|(v, d)| *v += step * d);
                    loss(&p, &x)
                };
                slopes.push((input, (at(1e-5) - at(-1e-5)) / 2e-5, direction));
            }
        }
        for isa in Isa::available() {
            for cpu in cpus(isa) {
                let found = case.run(&cpu, Precision::F32, Keep::Everything, false);
                assert_close(&found[0], &y, 1e-5, &format!("{isa:?} case {number} y"));
                for (input, slope, direction) in &slopes {
                    let gradient = if *input == 8 { &found[1] } else { &found[2 + input] };
                    let along: f64 = gradient.iter().zip(direction).map(|(g, d)| f64::from(*g) * d).sum();
                    let size = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                    assert!(
                        (along - slope).abs() <= 2e-5 * size.max(1.0),
                        "{isa:?} case {number} input {input}: {along} {slope} of {size}"
                    );
                }
            }
        }
    }
}

#[test]
fn bf16_stays_near_f32_and_all_ways_agree() {
    for (number, case) in cases().iter().enumerate() {
        for isa in Isa::available() {
            let mut first: Option<Vec<Vec<f32>>> = None;
            for cpu in cpus(isa) {
                let exact = case.run(&cpu, Precision::F32, Keep::Everything, false);
                assert_eq!(exact, case.run(&cpu, Precision::F32, Keep::Nothing, true), "{isa:?} case {number}");
                let near = case.run(&cpu, Precision::Bf16, Keep::Everything, false);
                assert_eq!(near, case.run(&cpu, Precision::Bf16, Keep::Nothing, true), "{isa:?} case {number}");
                for (index, (exact, near)) in exact.iter().zip(&near).enumerate() {
                    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
                    let size = norm(&mut exact.iter().map(|v| f64::from(*v)));
                    let error = norm(&mut exact.iter().zip(near).map(|(a, b)| f64::from(a - b)));
                    assert!(error <= 2e-2 * size.max(1e-3), "{isa:?} case {number} result {index}: error {error} of {size}");
                }
                let first = first.get_or_insert_with(|| near.clone());
                assert!(*first == near, "{isa:?} case {number}: depends on the threads");
            }
        }
    }
}
