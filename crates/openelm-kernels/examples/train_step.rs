//! Times whole training steps of an OpenELM on random weights and tokens, to compare with other programs.
//!
//! usage: cargo run --release --example train_step -- [model 270M] [batch 1] [seq 512] [bf16|f32] [steps 6] [keep|recompute]

use std::time::Instant;

use openelm_kernels::*;

const VOCABULARY: usize = 32128;
const SETTINGS: LossSettings = LossSettings { ignored: None, z_weight: 1e-4, scale: 1.0 };

fn make_divisible(value: f64, divisor: usize) -> usize {
    let rounded = ((value + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
    if (rounded as f64) < 0.9 * value { rounded + divisor } else { rounded }
}

fn shapes(layers: usize, dim: usize, head_dim: usize, divisor: usize) -> Vec<BlockShape> {
    let cents = |v: f64| (v * 100.0).round() / 100.0;
    (0..layers)
        .map(|layer| {
            let t = layer as f64 / (layers - 1) as f64;
            let queries = make_divisible(dim as f64 * cents(0.5 + 0.5 * t), head_dim * 4) / head_dim;
            let ffn_dim = make_divisible(dim as f64 * cents(0.5 + 3.5 * t), divisor);
            BlockShape { model_dim: dim, heads: Heads { queries, keys: queries / 4, head_dim }, ffn_dim, gated: true }
        })
        .collect()
}

/// One parameter with its gradient and moments.
struct Parameter {
    value: Vec<f32>,
    gradient: Vec<f32>,
    moments: [Vec<f32>; 2],
    decay: f64,
}

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn parameter(&mut self, len: usize, deviation: f32) -> Parameter {
        let value = (0..len).map(|_| self.uniform() * deviation * 1.732).collect();
        Parameter { value, gradient: vec![0.0; len], moments: [vec![0.0; len], vec![0.0; len]], decay: 0.1 }
    }

    fn norm(len: usize) -> Parameter {
        Parameter { value: vec![1.0; len], gradient: vec![0.0; len], moments: [vec![0.0; len], vec![0.0; len]], decay: 0.0 }
    }
}

/// attn_norm, qkv_proj, q_norm, k_norm, out_proj, ffn_norm, proj_1, proj_2
struct Block(BlockShape, [Parameter; 8], Saved);

impl Block {
    fn new(random: &mut Random, shape: BlockShape, layers: usize, keep: Keep) -> Self {
        let BlockShape { model_dim, heads, ffn_dim, .. } = shape;
        let deviation = (model_dim as f32).powf(-0.5);
        let out = (2.0 * layers as f32 * model_dim as f32).powf(-0.5);
        let parameters = [
            Random::norm(model_dim),
            random.parameter(heads.joint_width() * model_dim, deviation),
            Random::norm(heads.head_dim),
            Random::norm(heads.head_dim),
            random.parameter(model_dim * heads.query_width(), out),
            Random::norm(model_dim),
            random.parameter(shape.proj_1_rows() * model_dim, deviation),
            random.parameter(model_dim * ffn_dim, out),
        ];
        Self(shape, parameters, Saved::new(keep))
    }

    fn split(&mut self) -> (BlockWeights<'_>, BlockGradients<'_>, &mut Saved) {
        let [attn, qkv, q, k, out, ffn, one, two] = &mut self.1;
        let weights = BlockWeights {
            attn_norm: &attn.value,
            qkv_proj: BlockMatrix::from(&qkv.value[..]),
            head_norms: HeadNorms { queries: Some(&q.value), keys: Some(&k.value) },
            out_proj: BlockMatrix::from(&out.value[..]),
            ffn_norm: &ffn.value,
            proj_1: BlockMatrix::from(&one.value[..]),
            proj_2: BlockMatrix::from(&two.value[..]),
        };
        let gradients = BlockGradients {
            attn_norm: &mut attn.gradient,
            qkv_proj: &mut qkv.gradient,
            q_norm: Some(&mut q.gradient),
            k_norm: Some(&mut k.gradient),
            out_proj: &mut out.gradient,
            ffn_norm: &mut ffn.gradient,
            proj_1: &mut one.gradient,
            proj_2: &mut two.gradient,
            accumulate: false,
        };
        (weights, gradients, &mut self.2)
    }
}

fn peak_rss_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) / 1024
}

fn main() -> Result<(), KernelError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize, default: &str| arguments.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let number = |index: usize, default: usize| argument(index, "").parse().unwrap_or(default);
    let model = argument(0, "270M");
    let (batch, sequence, steps) = (number(1, 1), number(2, 512), number(4, 6));
    let precision = if argument(3, "bf16") == "f32" { Precision::F32 } else { Precision::Bf16 };
    let keep = if argument(5, "keep") == "recompute" { Keep::Nothing } else { Keep::Everything };
    let (layers, dim, head_dim, divisor) = match model.as_str() {
        "450M" => (20, 1536, 64, 256),
        "1_1B" => (28, 2048, 64, 256),
        "25M" => (10, 512, 64, 256),
        "5M" => (8, 256, 32, 64),
        _ => (16, 1280, 64, 256),
    };
    let cpu = Cpu::from_env()?;
    let mut random = Random(7);
    let mut table = random.parameter(VOCABULARY * dim, (dim as f32).powf(-0.5));
    let mut blocks: Vec<Block> =
        shapes(layers, dim, head_dim, divisor).into_iter().map(|shape| Block::new(&mut random, shape, layers, keep)).collect();
    let mut norm = Random::norm(dim);
    let half = head_dim / 2;
    let angle = |i: usize| (i / half) as f32 / 10_000f32.powf((2 * (i % half)) as f32 / head_dim as f32);
    let (cos, sin): (Vec<f32>, Vec<f32>) = (0..sequence * half).map(|i| (angle(i).cos(), angle(i).sin())).unzip();
    let input = BlockInput { batch, sequence, starts: None, tables: RotaryTables { cos: &cos, sin: &sin } };
    let tokens = batch * sequence;
    let ids: Vec<u32> = (0..tokens + 1).map(|_| (random.uniform().abs() * VOCABULARY as f32) as u32 % VOCABULARY as u32).collect();
    let mut states = vec![vec![0.0f32; tokens * dim]; layers + 1];
    let (mut normed, mut scales) = (vec![0.0f32; tokens * dim], vec![0.0f32; tokens]);
    let (mut gradient, mut other) = (vec![0.0f32; tokens * dim], vec![0.0f32; tokens * dim]);
    let (mut times, mut parts, mut loss) = (Vec::new(), [f64::INFINITY; 4], HeadLoss::default());
    for step in 1..=steps as u64 + 2 {
        let mut marks = vec![Instant::now()];
        cpu.threads().enter(|| -> Result<(), KernelError> {
            embedding_forward(&cpu, &table.value, dim, &ids[..tokens], &mut states[0])?;
            for (layer, block) in blocks.iter_mut().enumerate() {
                let (x, y) = states[layer..layer + 2].split_at_mut(1);
                let shape = block.0;
                let (weights, _, saved) = block.split();
                block_forward(&cpu, precision, &shape, &weights, &input, &x[0], &mut y[0], saved)?;
            }
            marks.push(Instant::now());
            rms_norm_forward(&cpu, &states[layers], &norm.value, ValuesMut::F32(&mut normed), &mut scales)?;
            let gradients = HeadGradients { d_hidden: &mut other, d_table: &mut table.gradient, accumulate: false };
            let targets = &ids[1..];
            loss = head_loss(&cpu, precision, Values::F32(&normed), &table.value, dim, targets, SETTINGS, Some(gradients))?;
            gradient.fill(0.0);
            rms_norm_backward(&cpu, &other, &states[layers], &norm.value, &scales, &mut gradient, false, &mut norm.gradient)?;
            marks.push(Instant::now());
            for (layer, block) in blocks.iter_mut().enumerate().rev() {
                let shape = block.0;
                let (weights, gradients, saved) = block.split();
                let x = &states[layer];
                block_backward(&cpu, precision, &shape, &weights, &input, x, saved, &gradient, &mut other, gradients)?;
                std::mem::swap(&mut gradient, &mut other);
            }
            embedding_backward(&cpu, &gradient, dim, &ids[..tokens], None, &mut table.gradient)?;
            marks.push(Instant::now());
            let mut all: Vec<&mut Parameter> = vec![&mut table, &mut norm];
            all.extend(blocks.iter_mut().flat_map(|block| &mut block.1));
            let squares: f64 = all.iter().map(|p| sum_of_squares(&cpu, &p.gradient)).sum();
            let gradient_scale = (1.0 / (squares.sqrt() + 1e-6)).min(1.0) as f32;
            for p in all {
                let settings = AdamW {
                    learning_rate: 1e-4,
                    beta1: 0.9,
                    beta2: 0.95,
                    epsilon: 1e-8,
                    weight_decay: p.decay,
                    step,
                    gradient_scale,
                };
                let [first, second] = &mut p.moments;
                adamw_step(&cpu, &settings, &mut p.value, &p.gradient, first, second)?;
            }
            marks.push(Instant::now());
            Ok(())
        })?;
        if step > 2 {
            times.push((marks[4] - marks[0]).as_secs_f64());
            for (part, pair) in parts.iter_mut().zip(marks.windows(2)) {
                *part = part.min((pair[1] - pair[0]).as_secs_f64());
            }
        }
    }
    let saved: usize = blocks.iter().map(|block| block.2.bytes()).sum();
    eprintln!("saved {} MiB, idle buffers {} MiB", saved >> 20, cpu.arena().idle_bytes() >> 20);
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let parameters = table.value.len() + dim + blocks.iter().flat_map(|b| &b.1).map(|p| p.value.len()).sum::<usize>();
    println!(
        "{{\"peer\":\"openelm-kernels\",\"isa\":\"{}\",\"model\":\"{model}\",\"parameters\":{parameters},\"batch\":{batch},\"seq\":{sequence},\
         \"precision\":\"{precision:?}\",\"keep\":\"{keep:?}\",\"threads\":{},\"step_seconds\":{median:.4},\"tokens_per_second\":{:.1},\
         \"min\":{:.4},\"max\":{:.4},\"best_forward\":{:.4},\"best_head\":{:.4},\"best_backward\":{:.4},\"best_optimizer\":{:.4},\
         \"peak_rss_mib\":{},\"loss\":{:.4}}}",
        cpu.isa().name(),
        cpu.threads().count(),
        tokens as f64 / median,
        times[0],
        times[times.len() - 1],
        parts[0],
        parts[1],
        parts[2],
        parts[3],
        peak_rss_mib(),
        loss.cross_entropy + loss.z_loss
    );
    Ok(())
}
