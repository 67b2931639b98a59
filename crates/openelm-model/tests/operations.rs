//! Each operation of a block, forwards and backwards, against plain f64 arithmetic and its differences, on the device that
//! OPENELM_TEST_DEVICE names (default flex): what every device runs that has no kernels of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use burn::tensor::{Device, Tensor, TensorData};
use openelm_model::{
    Block, BlockAdapter, CausalMask, LayerShape, ModelConfig, Precision, Projected, RmsNorm, RotaryTable, Rotation, open_device, preset,
};

fn device() -> Device {
    open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap()
}

/// Values between -1 and 1, other ones for each seed.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Compares the outputs of `burn` with those of `wide`, and its gradients of a random weighted sum of them, by every input, with differences.
fn check(what: &str, sizes: &[usize], burn: impl Fn(&[Tensor<1>]) -> Tensor<1>, wide: impl Fn(&[Vec<f64>]) -> Vec<f64>) {
    let device = device();
    let inputs: Vec<Vec<f32>> = sizes.iter().zip(1..).map(|(size, seed)| values(*size, seed)).collect();
    let tracked =
        |input: &Vec<f32>| Tensor::<1>::from_data(TensorData::new(input.clone(), [input.len()]), &device).autodiff().require_grad();
    let leaves: Vec<Tensor<1>> = inputs.iter().map(tracked).collect();
    let output = burn(&leaves);
    let mut inputs: Vec<Vec<f64>> = inputs.iter().map(|input| input.iter().map(|value| f64::from(*value)).collect()).collect();
    let expected = wide(&inputs);
    close(what, &output.clone().into_data().try_to_vec::<f32>().unwrap(), &expected);

    let weights = values(expected.len(), 77);
    let by_output = Tensor::<1>::from_data(TensorData::new(weights.clone(), [weights.len()]), &device);
    let mut gradients = (output * by_output.autodiff()).sum().backward();
    for (index, leaf) in leaves.iter().enumerate() {
        let found = leaf.grad_remove(&mut gradients).unwrap().into_data().try_to_vec::<f32>().unwrap();
        let mut differences = Vec::with_capacity(found.len());
        for at in 0..found.len() {
            let mut sum = |by: f64| {
                inputs[index][at] += by;
                let sum: f64 = wide(&inputs).iter().zip(&weights).map(|(value, weight)| value * f64::from(*weight)).sum();
                inputs[index][at] -= by;
                sum
            };
            differences.push((sum(1e-4) - sum(-1e-4)) / 2e-4);
        }
        close(&format!("{what}, gradient by input {index}"), &found, &differences);
    }
}

fn close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0.1, |size: f64, value| size.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() < 1e-5 * size, "{what}: value {at} is {found}, expected {expected}");
    }
}

fn norm(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let rows = x.chunks(weight.len()).flat_map(|row| {
        let scale = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64 + 1e-6).sqrt();
        row.iter().zip(weight).map(move |(v, w)| v * scale * w)
    });
    rows.collect()
}

/// x [rows, in] · weightᵀ for weight [out, in].
fn linear(x: &[f64], weight: &[f64], width: usize) -> Vec<f64> {
    let dot = |row: &[f64], column: &[f64]| row.iter().zip(column).map(|(a, b)| a * b).sum::<f64>();
    x.chunks(width).flat_map(|row| weight.chunks(width).map(move |column| dot(row, column))).collect()
}

/// Turns x [sequence, heads, head_dim] by the positions.
fn rotate(x: &[f64], heads: usize, head_dim: usize, positions: &[usize]) -> Vec<f64> {
    let half = head_dim / 2;
    let mut turned = x.to_vec();
    for (at, head) in turned.chunks_mut(head_dim).enumerate() {
        for i in 0..half {
            let angle = positions[at / heads] as f64 / 10_000_f64.powf(2.0 * i as f64 / head_dim as f64);
            let (a, b) = (head[i], head[i + half]);
            (head[i], head[i + half]) = (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin());
        }
    }
    turned
}

/// Attention of queries [heads, queries, head_dim] over [kv heads, keys, head_dim]; gives [queries, heads · head_dim].
fn attend(q: &[f64], k: &[f64], v: &[f64], shape: LayerShape, keys: usize, seen: impl Fn(usize, usize) -> bool) -> Vec<f64> {
    let LayerShape { num_query_heads: heads, num_kv_heads: kv_heads, head_dim, .. } = shape;
    let queries = q.len() / heads / head_dim;
    let mut out = vec![0.0; q.len()];
    for head in 0..heads {
        let kv = head / (heads / kv_heads);
        for query in 0..queries {
            let q = &q[(head * queries + query) * head_dim..][..head_dim];
            let key = |at: usize| &k[(kv * keys + at) * head_dim..][..head_dim];
            let score = |at: usize| q.iter().zip(key(at)).map(|(a, b)| a * b).sum::<f64>() / (head_dim as f64).sqrt();
            let scores: Vec<(usize, f64)> = (0..keys).filter(|at| seen(query, *at)).map(|at| (at, score(at).exp())).collect();
            let total: f64 = scores.iter().map(|(_, score)| score).sum();
            for (at, score) in scores {
                let value = &v[(kv * keys + at) * head_dim..][..head_dim];
                let to = &mut out[query * heads * head_dim + head * head_dim..][..head_dim];
                to.iter_mut().zip(value).for_each(|(to, value)| *to += score / total * value);
            }
        }
    }
    out
}

fn rms(weight: &Tensor<1>) -> RmsNorm {
    RmsNorm { weight: weight.clone() }
}

/// A block of `parts`: the attention norm, the joint projection, the query and the key norm, the output projection, the feed-forward norm and its
/// two projections.
fn block(shape: LayerShape, dim: usize, gated: bool, parts: &[Tensor<1>]) -> Block {
    let matrix = |index: usize, columns: usize| {
        let [count] = parts[index].dims();
        parts[index].clone().reshape([count / columns, columns])
    };
    Block {
        shape,
        gated,
        attn_norm: rms(&parts[0]),
        qkv_proj: matrix(1, dim),
        q_norm: Some(rms(&parts[2])),
        k_norm: Some(rms(&parts[3])),
        out_proj: matrix(4, shape.query_dim()),
        ffn_norm: rms(&parts[5]),
        proj_1: matrix(6, dim),
        proj_2: matrix(7, shape.ffn_dim),
        adapter: BlockAdapter::default(),
    }
}

/// The sizes of a block's parts.
fn sizes(shape: LayerShape, dim: usize, gated: bool) -> [usize; 8] {
    let LayerShape { num_query_heads, num_kv_heads, head_dim, ffn_dim } = shape;
    let joint = (num_query_heads + 2 * num_kv_heads) * head_dim;
    let hidden = if gated { 2 * ffn_dim } else { ffn_dim };
    [dim, joint * dim, head_dim, head_dim, dim * shape.query_dim(), dim, hidden * dim, dim * ffn_dim]
}

fn shape(num_query_heads: usize, num_kv_heads: usize, head_dim: usize, ffn_dim: usize) -> LayerShape {
    LayerShape { num_query_heads, num_kv_heads, head_dim, ffn_dim }
}

fn table(head_dim: usize) -> RotaryTable {
    let config = ModelConfig { head_dim, rope_freq_constant: 10_000.0, ..preset("OpenELM-tiny").unwrap() };
    RotaryTable::new(&config, 32, &device())
}

#[test]
fn norms() {
    for (rows, width) in [(1, 1), (3, 5), (2, 64), (7, 33)] {
        let burn = |inputs: &[Tensor<1>]| rms(&inputs[1]).forward(inputs[0].clone().reshape([rows, width])).reshape([rows * width]);
        check(&format!("norm {rows}x{width}"), &[rows * width, width], burn, |inputs| norm(&inputs[0], &inputs[1]));
    }
}

#[test]
fn rotations() {
    for (start, length, heads, head_dim) in [(0, 1, 1, 2), (0, 5, 3, 6), (9, 4, 2, 10)] {
        let rotation = table(head_dim).rotation(start, length).unwrap().autodiff();
        let count = length * heads * head_dim;
        let burn = |inputs: &[Tensor<1>]| rotation.apply(inputs[0].clone().reshape([1, length, heads, head_dim])).reshape([count]);
        let positions: Vec<usize> = (start..start + length).collect();
        let wide = |inputs: &[Vec<f64>]| rotate(&inputs[0], heads, head_dim, &positions);
        check(&format!("rotation from {start}, {length} of {heads}x{head_dim}"), &[count], burn, wide);
    }
}

#[test]
fn attentions() {
    let device = device();
    // Query heads, key/value heads, width of a head, queries, keys.
    for (heads, kv_heads, head_dim, queries, keys) in [(1, 1, 1, 1, 1), (6, 3, 5, 4, 4), (4, 1, 8, 7, 7), (3, 3, 4, 1, 6), (4, 2, 3, 3, 9)]
    {
        let shape = shape(heads, kv_heads, head_dim, 1);
        let (groups, start) = (heads / kv_heads, keys - queries);
        let pad = start / 2;
        type Seen = Box<dyn Fn(usize, usize) -> bool>;
        let mut masks: Vec<(&str, CausalMask, Seen)> = vec![
            ("causal", CausalMask::new(groups, start, queries, &device), Box::new(move |query, key| key <= start + query)),
            (
                "padded",
                CausalMask::padded(groups, 0, &[pad], start, queries, &device),
                Box::new(move |query, key| key <= start + query && key >= pad),
            ),
        ];
        if queries == keys && queries > 3 {
            let mask = CausalMask::of_documents(groups, &[vec![1, 3]], queries, &device);
            let document = |position: usize| usize::from(position >= 1) + usize::from(position >= 3);
            masks.push(("documents", mask, Box::new(move |query, key| key <= query && document(key) == document(query))));
        }
        for (name, mask, seen) in masks {
            let mask = mask.autodiff();
            let count = heads * queries * head_dim;
            let burn = |inputs: &[Tensor<1>]| {
                let unused: Vec<Tensor<1>> =
                    sizes(shape, 1, false).iter().map(|size| Tensor::<1>::zeros([*size], &device).autodiff()).collect();
                let by_head = |index: usize, heads: usize, length: usize| inputs[index].clone().reshape([1, heads, length, head_dim]);
                let (keys_of, values_of) = (by_head(1, kv_heads, keys), by_head(2, kv_heads, keys));
                let block = block(shape, 1, false, &unused);
                block.attend(by_head(0, heads, queries), keys_of, values_of, Some(&mask), Precision::F32).reshape([count])
            };
            let wide = |inputs: &[Vec<f64>]| attend(&inputs[0], &inputs[1], &inputs[2], shape, keys, &seen);
            let both = kv_heads * keys * head_dim;
            check(&format!("{name} attention {heads}/{kv_heads}x{head_dim}, {queries} over {keys}"), &[count, both, both], burn, wide);
        }
    }
}

#[test]
fn feed_forward_parts() {
    for (gated, rows, dim, ffn_dim) in [(true, 1, 1, 1), (true, 3, 6, 5), (false, 4, 5, 7)] {
        let shape = shape(1, 1, 2, ffn_dim);
        let part_sizes = sizes(shape, dim, gated);
        let wanted = [rows * dim, rows * 2, part_sizes[4], part_sizes[5], part_sizes[6], part_sizes[7]];
        let device = device();
        let burn = |inputs: &[Tensor<1>]| {
            let unused = |index: usize| Tensor::<1>::zeros([part_sizes[index]], &device).autodiff();
            let parts = [&[unused(0), unused(1), unused(2), unused(3)], &inputs[2..6]].concat();
            let (x, attended) = (inputs[0].clone().reshape([1, rows, dim]), inputs[1].clone().reshape([1, rows, 2]));
            block(shape, dim, gated, &parts).finish(x, attended, Precision::F32).reshape([rows * dim])
        };
        let wide = |inputs: &[Vec<f64>]| finish(&inputs[0], &inputs[1], &inputs[2..6], shape, gated);
        check(&format!("feed-forward {rows}x{dim}x{ffn_dim}, gated {gated}"), &wanted, burn, wide);
    }
}

/// Output projection and feed-forward part; `parts` are the output projection, the norm and the two projections.
fn finish(x: &[f64], attended: &[f64], parts: &[Vec<f64>], shape: LayerShape, gated: bool) -> Vec<f64> {
    let add = |x: &[f64], y: Vec<f64>| x.iter().zip(y).map(|(a, b)| a + b).collect::<Vec<f64>>();
    let x = add(x, linear(attended, &parts[0], shape.query_dim()));
    let dim = parts[1].len();
    let hidden = linear(&norm(&x, &parts[1]), &parts[2], dim);
    let silu = |v: f64| v / (1.0 + (-v).exp());
    let width = shape.ffn_dim;
    let hidden: Vec<f64> = match gated {
        true => hidden.chunks(2 * width).flat_map(|row| (0..width).map(|i| silu(row[i]) * row[width + i])).collect(),
        false => hidden.into_iter().map(silu).collect(),
    };
    add(&x, linear(&hidden, &parts[3], width))
}

#[test]
fn whole_blocks() {
    // Two rows of a batch, with documents of their own.
    let starts: [Vec<u32>; 2] = [vec![0, 2], vec![1]];
    for (gated, heads, kv_heads, head_dim, dim, ffn_dim, length) in [(true, 4, 2, 4, 6, 5, 4), (false, 2, 1, 2, 3, 4, 3)] {
        let shape = shape(heads, kv_heads, head_dim, ffn_dim);
        let device = device();
        let rotation: Rotation = table(head_dim).of_documents(&starts, length).unwrap().autodiff();
        let mask = CausalMask::of_documents(heads / kv_heads, &starts, length, &device).autodiff();
        let count = starts.len() * length * dim;
        let all = [&[count][..], &sizes(shape, dim, gated)].concat();
        let burn = |inputs: &[Tensor<1>]| {
            let x = inputs[0].clone().reshape([starts.len(), length, dim]);
            let block = block(shape, dim, gated, &inputs[1..]);
            let Projected { queries, keys, values } = block.project(x.clone(), &rotation, Precision::F32);
            let attended = block.attend(queries, keys, values, Some(&mask), Precision::F32);
            let whole = block.forward(x.clone(), &rotation, &mask, Precision::F32);
            // Both ways through the block give the same.
            ((block.finish(x, attended, Precision::F32) + whole) * 0.5).reshape([count])
        };
        let wide = |inputs: &[Vec<f64>]| {
            let mut out = Vec::new();
            for (row, x) in inputs[0].chunks(length * dim).enumerate() {
                let begin =
                    |position: usize| starts[row].iter().map(|start| *start as usize).filter(|start| *start <= position).max().unwrap_or(0);
                let positions: Vec<usize> = (0..length).map(|position| position - begin(position)).collect();
                let joint = linear(&norm(x, &inputs[1]), &inputs[2], dim);
                let width = (heads + 2 * kv_heads) * head_dim;
                // [sequence, heads, head_dim] of some of the heads.
                let some = |first: usize, count: usize| -> Vec<f64> {
                    joint.chunks(width).flat_map(|row| row[first * head_dim..(first + count) * head_dim].to_vec()).collect()
                };
                let by_head = |x: &[f64], count: usize| -> Vec<f64> {
                    (0..count)
                        .flat_map(|head| {
                            x.chunks(count * head_dim).flat_map(move |row| row[head * head_dim..(head + 1) * head_dim].to_vec())
                        })
                        .collect()
                };
                let queries = by_head(&rotate(&norm(&some(0, heads), &inputs[3]), heads, head_dim, &positions), heads);
                let keys = by_head(&rotate(&norm(&some(heads, kv_heads), &inputs[4]), kv_heads, head_dim, &positions), kv_heads);
                let values = by_head(&some(heads + kv_heads, kv_heads), kv_heads);
                let seen = |query: usize, key: usize| key <= query && begin(key) == begin(query);
                let attended = attend(&queries, &keys, &values, shape, length, seen);
                out.extend(finish(x, &attended, &inputs[5..9], shape, gated));
            }
            out
        };
        check(&format!("block {heads}/{kv_heads}x{head_dim}, {dim}, {ffn_dim}, gated {gated}"), &all, burn, wide);
    }
}
