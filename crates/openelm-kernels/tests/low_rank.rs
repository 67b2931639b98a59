//! Low-rank additions against f64: values, gradients along random directions, norms; and whole blocks with adapters against the same
//! block with the additions merged into its matrices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use openelm_kernels::*;
use reference::{Random, assert_close, cpus, product, round_to, transpose, widen};

/// (tokens, out, in, rank)
const SHAPES: [(usize, usize, usize, usize); 5] = [(1, 1, 1, 1), (3, 17, 33, 2), (13, 70, 31, 5), (40, 96, 130, 32), (530, 65, 19, 3)];

struct Case {
    sizes: (usize, usize, usize, usize),
    scale: f32,
    dropout: Option<Dropout>,
    /// DoRA's magnitudes; LoRA when empty.
    magnitudes: Vec<f32>,
    w: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Case {
    fn new(sizes: (usize, usize, usize, usize), dora: bool, dropout: f32) -> Self {
        let (tokens, out, inner, rank) = sizes;
        let mut random = Random::new((tokens * 31 + out * 7 + inner) as u64);
        let mut scaled = |count: usize, factor: f64| random.normal(count).iter().map(|v| v * factor as f32).collect::<Vec<_>>();
        let deviation = (inner as f64).powf(-0.5);
        Self {
            sizes,
            scale: 1.5,
            dropout: (dropout > 0.0).then_some(Dropout { probability: dropout, seed: 77 }),
            magnitudes: if dora { scaled(out, 0.3).iter().map(|v| v + 1.2).collect() } else { Vec::new() },
            w: scaled(out * inner, deviation),
            x: scaled(tokens * inner, 1.0),
            dy: scaled(tokens * out, 1.0),
            a: scaled(rank * inner, deviation),
            b: scaled(out * rank, 0.5),
        }
    }

    /// What each value of x is multiplied by on its way to A.
    fn kept(&self) -> Vec<f64> {
        let mut factors = vec![1.0; self.x.len()];
        if let Some(dropout) = self.dropout {
            dropout.factors(0, &mut factors);
        }
        widen(&factors)
    }

    /// Norms of the rows of W + scale · B · A.
    fn norms(&self) -> Vec<f64> {
        let (_, out, inner, rank) = self.sizes;
        let low = product(&widen(&self.b), &widen(&self.a), out, rank, inner);
        let merged = widen(&self.w).into_iter().zip(low).map(|(w, low)| w + f64::from(self.scale) * low).collect::<Vec<_>>();
        merged.chunks(inner).map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).collect()
    }

    /// y in f64; the norms are constants.
    fn forward(&self, x: &[f64], a: &[f64], b: &[f64], magnitudes: &[f64], norms: &[f64]) -> Vec<f64> {
        let (tokens, out, inner, rank) = self.sizes;
        let w = transpose(&widen(&self.w), out, inner);
        let dropped: Vec<f64> = x.iter().zip(self.kept()).map(|(x, kept)| x * kept).collect();
        let h = product(&dropped, &transpose(a, rank, inner), tokens, inner, rank);
        let low: Vec<f64> = product(&h, &transpose(b, out, rank), tokens, rank, out).iter().map(|v| v * f64::from(self.scale)).collect();
        let whole = product(x, &w, tokens, inner, out);
        if magnitudes.is_empty() {
            return whole.iter().zip(low).map(|(w, l)| w + l).collect();
        }
        let of_dropped = product(&dropped, &w, tokens, inner, out);
        (0..tokens * out)
            .map(|at| {
                let factor = magnitudes[at % out] / norms[at % out];
                whole[at] + (factor - 1.0) * of_dropped[at] + factor * low[at]
            })
            .collect()
    }

    /// y, dx, and the gradients of A, B and the magnitudes (empty for LoRA), each twice their value when accumulated.
    fn run(&self, cpu: &Cpu, precision: Precision, weights: Matrix<'_>) -> Vec<Vec<f32>> {
        let (tokens, out, inner, _) = self.sizes;
        let mut low = LowRank { a: &self.a, b: &self.b, scale: self.scale, dropout: self.dropout, magnitude: None };
        let norms = low_rank_norms(cpu, weights, &low).unwrap();
        let factors: Vec<f32> = self.magnitudes.iter().zip(&norms).map(|(m, n)| m / n).collect();
        if !factors.is_empty() {
            low.magnitude = Some(Magnitude { factors: &factors, norms: &norms });
        }
        let x = Matrix::f32(&self.x, tokens, inner).unwrap();
        let dy = Matrix::f32(&self.dy, tokens, out).unwrap();
        let mut y = vec![f32::NAN; tokens * out];
        low_rank_forward(cpu, precision, x, weights, &low, &mut y).unwrap();
        let mut dx = vec![f32::NAN; self.x.len()];
        let (mut da, mut db, mut dm) = (vec![f32::NAN; self.a.len()], vec![f32::NAN; self.b.len()], vec![f32::NAN; self.magnitudes.len()]);
        for accumulate in [false, true] {
            let magnitude = (!dm.is_empty()).then_some(&mut dm[..]);
            let gradients = LowRankGradients { a: &mut da, b: &mut db, magnitude };
            low_rank_backward(cpu, precision, dy, x, weights, &low, &mut dx, accumulate, gradients).unwrap();
        }
        for gradient in [&mut da, &mut db, &mut dm] {
            gradient.iter_mut().for_each(|g| *g *= 0.5);
        }
        vec![y, dx, da, db, dm, norms]
    }
}

fn cases() -> Vec<Case> {
    let of = |dora: bool, dropout: f32| SHAPES.map(|sizes| Case::new(sizes, dora, dropout));
    [of(false, 0.0), of(false, 0.3), of(true, 0.0), of(true, 0.3)].into_iter().flatten().collect()
}

#[test]
fn values_and_gradients_match_f64() {
    for case in cases() {
        let what = format!("{:?} dropout {:?} dora {}", case.sizes, case.dropout, !case.magnitudes.is_empty());
        let inputs = [widen(&case.x), widen(&case.a), widen(&case.b), widen(&case.magnitudes)];
        let norms = case.norms();
        let forward = |inputs: &[Vec<f64>; 4]| case.forward(&inputs[0], &inputs[1], &inputs[2], &inputs[3], &norms);
        let y = forward(&inputs);
        let loss = |inputs: &[Vec<f64>; 4]| -> f64 { forward(inputs).iter().zip(&case.dy).map(|(y, dy)| y * f64::from(*dy)).sum() };
        let mut random = Random::new(3);
        let slopes: Vec<(usize, f64, Vec<f64>)> = (0..4)
            .filter(|which| !inputs[*which].is_empty())
            .flat_map(|which| [which; 2])
            .map(|which| {
                let direction = widen(&random.normal(inputs[which].len()));
                let at = |step: f64| {
                    let mut inputs = inputs.clone();
                    inputs[which].iter_mut().zip(&direction).for_each(|(v, d)| *v += step * d);
                    loss(&inputs)
                };
                (which, (at(1e-5) - at(-1e-5)) / 2e-5, direction)
            })
            .collect();
        for isa in Isa::available() {
            let mut first: Option<Vec<Vec<f32>>> = None;
            for cpu in cpus(isa) {
                let (_, out, inner, _) = case.sizes;
                let found = case.run(&cpu, Precision::F32, Matrix::f32(&case.w, out, inner).unwrap());
                assert_close(&found[0], &y, 2e-5, &format!("{isa:?} {what} y"));
                assert_close(&found[5], &norms, 1e-5, &format!("{isa:?} {what} norms"));
                for (which, slope, direction) in &slopes {
                    let gradient = &found[1 + which];
                    let along: f64 = gradient.iter().zip(direction).map(|(g, d)| f64::from(*g) * d).sum();
                    let size = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                    assert!((along - slope).abs() <= 3e-5 * size.max(1.0), "{isa:?} {what} input {which}: {along} {slope} of {size}");
                }
                assert!(*first.get_or_insert_with(|| found.clone()) == found, "{isa:?} {what}: depends on the threads");
            }
        }
    }
}

#[test]
fn bf16_bases_are_their_values_and_bf16_products_stay_near() {
    for case in cases() {
        let (_, out, inner, _) = case.sizes;
        let rounded: Vec<f32> = round_to(Precision::Bf16, &case.w).iter().map(|v| *v as f32).collect();
        let halves: Vec<u16> = rounded.iter().map(|v| (v.to_bits() >> 16) as u16).collect();
        for isa in Isa::available() {
            let cpu = cpus(isa).remove(1);
            for precision in [Precision::F32, Precision::Bf16] {
                let plain = case.run(&cpu, precision, Matrix::f32(&rounded, out, inner).unwrap());
                assert_eq!(plain, case.run(&cpu, precision, Matrix::bf16(&halves, out, inner).unwrap()), "{isa:?} {:?}", case.sizes);
            }
            let exact = case.run(&cpu, Precision::F32, Matrix::f32(&case.w, out, inner).unwrap());
            let near = case.run(&cpu, Precision::Bf16, Matrix::f32(&case.w, out, inner).unwrap());
            for (exact, near) in exact.iter().zip(&near) {
                let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                let size = norm(&mut exact.iter().copied());
                let error = norm(&mut exact.iter().zip(near).map(|(a, b)| a - b));
                assert!(error <= 2e-2 * size.max(1e-2), "{isa:?} {:?}: error {error} of {size}", case.sizes);
            }
        }
    }
}

/// A block whose four matrices have additions, and the same block with the sums.
struct Adapted {
    shape: BlockShape,
    /// attn_norm, qkv, q_norm, k_norm, out, ffn_norm, proj_1, proj_2
    parameters: Vec<Vec<f32>>,
    /// A, B and DoRA's magnitudes of qkv, out, proj_1, proj_2.
    low: Vec<(Vec<f32>, Vec<f32>, Vec<f32>)>,
    x: Vec<f32>,
    dy: Vec<f32>,
    angles: (Vec<f32>, Vec<f32>),
}

const BATCH: usize = 2;
const SEQUENCE: usize = 11;
const RANK: usize = 3;
const SCALE: f32 = 0.75;

impl Adapted {
    fn new(dora: bool) -> Self {
        let shape = BlockShape { model_dim: 40, heads: Heads { queries: 4, keys: 2, head_dim: 10 }, ffn_dim: 37, gated: true };
        let mut random = Random::new(5);
        let matrices = Self::matrices(&shape);
        let matrix = |random: &mut Random, (rows, columns): (usize, usize)| -> Vec<f32> {
            random.normal(rows * columns).iter().map(|v| v * (columns as f32).powf(-0.5)).collect()
        };
        let norm = |random: &mut Random, len: usize| -> Vec<f32> { random.normal(len).iter().map(|v| 1.0 + 0.2 * v).collect() };
        let mut parameters = vec![norm(&mut random, 40), matrix(&mut random, matrices[0].1)];
        parameters.extend([norm(&mut random, 10), norm(&mut random, 10), matrix(&mut random, matrices[1].1), norm(&mut random, 40)]);
        parameters.extend([matrix(&mut random, matrices[2].1), matrix(&mut random, matrices[3].1)]);
        let low = matrices
            .iter()
            .map(|(_, (rows, columns))| {
                let (a, b) = (matrix(&mut random, (RANK, *columns)), matrix(&mut random, (*rows, RANK)));
                let magnitudes = if dora { norm(&mut random, *rows) } else { Vec::new() };
                (a, b, magnitudes)
            })
            .collect();
        let tokens = BATCH * SEQUENCE;
        let angles: Vec<f64> = (0..SEQUENCE * 5).map(|i| (i / 5) as f64 * 0.4f64.powi((i % 5) as i32)).collect();
        Self {
            shape,
            parameters,
            low,
            x: random.normal(tokens * 40),
            dy: random.normal(tokens * 40),
            angles: (angles.iter().map(|a| a.cos() as f32).collect(), angles.iter().map(|a| a.sin() as f32).collect()),
        }
    }

    /// Place among the parameters and shape of each matrix.
    fn matrices(shape: &BlockShape) -> [(usize, (usize, usize)); 4] {
        let BlockShape { model_dim, heads, ffn_dim, .. } = *shape;
        [
            (1, (heads.joint_width(), model_dim)),
            (4, (model_dim, heads.query_width())),
            (6, (shape.proj_1_rows(), model_dim)),
            (7, (model_dim, ffn_dim)),
        ]
    }

    /// The factors of DoRA (ones for LoRA), and factor ∘ (W + scale · B · A), of matrix `index`.
    fn merged(&self, index: usize) -> (Vec<f64>, Vec<f64>) {
        let (place, (rows, columns)) = Self::matrices(&self.shape)[index];
        let (a, b, magnitudes) = &self.low[index];
        let low = product(&widen(b), &widen(a), rows, RANK, columns);
        let sum: Vec<f64> = widen(&self.parameters[place]).iter().zip(low).map(|(w, low)| w + f64::from(SCALE) * low).collect();
        let factors: Vec<f64> = (0..rows)
            .map(|row| match magnitudes.get(row) {
                Some(m) => f64::from(*m) / sum[row * columns..][..columns].iter().map(|v| v * v).sum::<f64>().sqrt(),
                None => 1.0,
            })
            .collect();
        let merged = sum.iter().enumerate().map(|(at, v)| v * factors[at / columns]).collect();
        (factors, merged)
    }

    fn weights<'a>(&'a self, matrices: [BlockMatrix<'a>; 4]) -> BlockWeights<'a> {
        let [qkv_proj, out_proj, proj_1, proj_2] = matrices;
        BlockWeights {
            attn_norm: &self.parameters[0],
            qkv_proj,
            head_norms: HeadNorms { queries: Some(&self.parameters[2]), keys: Some(&self.parameters[3]) },
            out_proj,
            ffn_norm: &self.parameters[5],
            proj_1,
            proj_2,
        }
    }

    fn input(&self) -> BlockInput<'_> {
        BlockInput { batch: BATCH, sequence: SEQUENCE, starts: None, tables: RotaryTables { cos: &self.angles.0, sin: &self.angles.1 } }
    }
}

#[test]
fn a_block_with_adapters_is_the_block_with_the_sums() {
    for dora in [false, true] {
        let case = Adapted::new(dora);
        let matrices = Adapted::matrices(&case.shape);
        let merged: Vec<(Vec<f64>, Vec<f64>)> = (0..4).map(|index| case.merged(index)).collect();
        let merged_f32: Vec<Vec<f32>> = merged.iter().map(|(_, m)| m.iter().map(|v| *v as f32).collect()).collect();
        for isa in Isa::available() {
            for cpu in cpus(isa) {
                let mut results = Vec::new();
                for keep in [Keep::Everything, Keep::Nothing] {
                    let mut saved = Saved::new(keep);
                    let (mut y, mut dx) = (vec![f32::NAN; case.x.len()], vec![f32::NAN; case.x.len()]);
                    let numbers: Vec<(Vec<f32>, Vec<f32>)> = (0..4)
                        .map(|index| {
                            let (place, (rows, columns)) = matrices[index];
                            let (a, b, magnitudes) = &case.low[index];
                            let low = LowRank { a, b, scale: SCALE, dropout: None, magnitude: None };
                            let weights = Matrix::f32(&case.parameters[place], rows, columns).unwrap();
                            let norms = low_rank_norms(&cpu, weights, &low).unwrap();
                            (magnitudes.iter().zip(&norms).map(|(m, n)| m / n).collect(), norms)
                        })
                        .collect();
                    let adapted = [0, 1, 2, 3].map(|index| {
                        let (a, b, _) = &case.low[index];
                        let (factors, norms) = &numbers[index];
                        let magnitude = dora.then_some(Magnitude { factors, norms });
                        let low_rank = Some(LowRank { a, b, scale: SCALE, dropout: None, magnitude });
                        BlockMatrix { low_rank, ..BlockMatrix::from(&case.parameters[matrices[index].0][..]) }
                    });
                    let weights = case.weights(adapted);
                    let (precision, shape, input) = (Precision::F32, &case.shape, case.input());
                    block_forward(&cpu, precision, shape, &weights, &input, &case.x, &mut y, &mut saved).unwrap();
                    let mut g: Vec<(Vec<f32>, Vec<f32>, Vec<f32>)> = case
                        .low
                        .iter()
                        .map(|(a, b, m)| (vec![f32::NAN; a.len()], vec![f32::NAN; b.len()], vec![f32::NAN; m.len()]))
                        .collect();
                    let mut places = g.iter_mut().map(|(a, b, m)| {
                        let magnitude = dora.then_some(&mut m[..]);
                        MatrixGradients { whole: None, low_rank: Some(LowRankGradients { a, b, magnitude }) }
                    });
                    let gradients = BlockGradients {
                        qkv_proj: places.next().unwrap(),
                        out_proj: places.next().unwrap(),
                        proj_1: places.next().unwrap(),
                        proj_2: places.next().unwrap(),
                        ..BlockGradients::default()
                    };
                    block_backward(&cpu, precision, shape, &weights, &input, &case.x, &saved, &case.dy, &mut dx, gradients).unwrap();
                    results.push((y, dx, g));
                }
                assert!(results[0] == results[1], "{isa:?}: keeping nothing gives other bits");
                let (y, dx, g) = &results[0];

                let plain = [0, 1, 2, 3].map(|index| BlockMatrix::from(&merged_f32[index][..]));
                let weights = case.weights(plain);
                let mut saved = Saved::new(Keep::Everything);
                let (mut plain_y, mut plain_dx) = (vec![0.0; case.x.len()], vec![0.0; case.x.len()]);
                let (shape, input) = (&case.shape, case.input());
                block_forward(&cpu, Precision::F32, shape, &weights, &input, &case.x, &mut plain_y, &mut saved).unwrap();
                let mut whole: Vec<Vec<f32>> = merged_f32.iter().map(|m| vec![0.0; m.len()]).collect();
                let mut places = whole.iter_mut().map(|w| MatrixGradients::from(&mut w[..]));
                let gradients = BlockGradients {
                    qkv_proj: places.next().unwrap(),
                    out_proj: places.next().unwrap(),
                    proj_1: places.next().unwrap(),
                    proj_2: places.next().unwrap(),
                    ..BlockGradients::default()
                };
                block_backward(&cpu, Precision::F32, shape, &weights, &input, &case.x, &saved, &case.dy, &mut plain_dx, gradients).unwrap();
                assert_close(y, &widen(&plain_y), 1e-5, &format!("{isa:?} y"));
                assert_close(dx, &widen(&plain_dx), 3e-5, &format!("{isa:?} dx"));
                for index in 0..4 {
                    let (_, (rows, columns)) = matrices[index];
                    let (factors, merged) = &merged[index];
                    let (a, b, magnitudes) = &case.low[index];
                    // The gradient of what stands behind the factors, scaled.
                    let of_whole = widen(&whole[index]);
                    let inner: Vec<f64> = of_whole.iter().enumerate().map(|(at, v)| v * factors[at / columns] * f64::from(SCALE)).collect();
                    let of_b = product(&inner, &transpose(&widen(a), RANK, columns), rows, columns, RANK);
                    let of_a = product(&transpose(&widen(b), rows, RANK), &inner, RANK, rows, columns);
                    assert_close(&g[index].0, &of_a, 5e-5, &format!("{isa:?} dora {dora} A of {index}"));
                    assert_close(&g[index].1, &of_b, 5e-5, &format!("{isa:?} dora {dora} B of {index}"));
                    let of_m: Vec<f64> = (0..magnitudes.len())
                        .map(|row| {
                            let dot: f64 = (0..columns).map(|at| of_whole[row * columns + at] * merged[row * columns + at]).sum();
                            dot / f64::from(magnitudes[row])
                        })
                        .collect();
                    assert_close(&g[index].2, &of_m, 5e-5, &format!("{isa:?} magnitudes of {index}"));
                }
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(Isa::available()[0], Threads::new(1).unwrap()).unwrap();
    let case = Case::new((3, 5, 4, 2), false, 0.0);
    let (x, w) = (Matrix::f32(&case.x, 3, 4).unwrap(), Matrix::f32(&case.w, 5, 4).unwrap());
    let low = LowRank { a: &case.a, b: &case.b[1..], scale: 1.0, dropout: None, magnitude: None };
    let error = low_rank_forward(&cpu, Precision::F32, x, w, &low, &mut [0.0; 15]).unwrap_err().to_string();
    assert!(error.contains("B has 9 values, its shape needs 10"), "{error}");
    let low = LowRank { a: &case.a[1..], b: &case.b, scale: 1.0, dropout: None, magnitude: None };
    assert!(low_rank_norms(&cpu, w, &low).unwrap_err().to_string().contains("A has 7 values"));
}
