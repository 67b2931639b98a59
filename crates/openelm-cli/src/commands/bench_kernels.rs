//! `openelm bench kernels`: every CPU kernel at the shapes of OpenELM-270M, against the measured limits of this machine.
//!
//! What must stay true: a time is the best of several repetitions, since other work on the machine only ever adds to it; a share is
//! of the multiply-add rate, or of the memory bandwidth, that this process measured just before.

use std::time::Instant;

use anyhow::Result;
use openelm_kernels::*;
use serde_json::json;

use crate::args::BenchKernelsArguments;

const DIM: usize = 1280;

struct Bench {
    cpu: Cpu,
    filter: String,
    json: bool,
    rates: [f64; 2],
    bandwidth: f64,
}

impl Bench {
    /// Runs `run` some times and prints the best, with the share of the multiply-add limit.
    fn time(
        &self,
        name: &str,
        shape: &str,
        precision: Precision,
        flops: f64,
        mut run: impl FnMut() -> Result<(), KernelError>,
    ) -> Result<()> {
        let name = format!("{name}_{}", if precision == Precision::F32 { "f32" } else { "bf16" });
        if !name.contains(&self.filter) {
            return Ok(());
        }
        let seconds = best(&mut run)?;
        let rate = flops / seconds;
        let share = rate / self.rates[usize::from(precision == Precision::Bf16)];
        self.print(&name, shape, seconds, ("gflops", rate / 1e9), share);
        Ok(())
    }
}

impl Bench {
    /// The same with the share of the memory limit.
    fn stream(&self, name: &str, shape: &str, bytes: f64, mut run: impl FnMut() -> Result<(), KernelError>) -> Result<()> {
        if !name.contains(&self.filter) {
            return Ok(());
        }
        let seconds = best(&mut run)?;
        let rate = bytes / seconds;
        self.print(name, shape, seconds, ("gb_per_second", rate / 1e9), rate / self.bandwidth);
        Ok(())
    }

    fn print(&self, name: &str, shape: &str, seconds: f64, (unit, rate): (&str, f64), share: f64) {
        if self.json {
            println!("{}", json!({"operation": name, "shape": shape, "seconds": seconds, unit: rate, "share": share}));
        } else {
            println!("{name:<32} {shape:<18} {:>9.3} ms  {rate:>7.1} {unit:<13}  {:>4.0} %", seconds * 1e3, share * 100.0);
        }
    }
}

fn best(run: &mut impl FnMut() -> Result<(), KernelError>) -> Result<f64> {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || (start.elapsed().as_secs_f64() < 0.6 && runs < 200) {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}

fn values(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Runs `openelm bench kernels`.
pub(super) fn kernels(arguments: &BenchKernelsArguments) -> Result<()> {
    let tokens = arguments.tokens;
    anyhow::ensure!(tokens > 0, "--tokens is 0\nhint: give at least one token");
    let cpu = Cpu::from_env()?;
    let rates = [Precision::F32, Precision::Bf16].map(|precision| peak::multiply_add_rate(&cpu, precision, 20));
    let bandwidth = peak::memory_bandwidth(&cpu, 1 << 26, 10);
    let (isa, threads) = (cpu.isa().name(), cpu.threads().count());
    let limits = [rates[0] / 1e9, rates[1] / 1e9, bandwidth / 1e9];
    if arguments.json {
        let [f32, bf16, memory] = limits;
        println!(
            "{}",
            json!({"isa": isa, "threads": threads, "tokens": tokens, "peak_f32_gflops": f32, "peak_bf16_gflops": bf16, "memory_gb_per_second": memory})
        );
    } else {
        let [f32, bf16, memory] = limits;
        println!("{isa}, {threads} threads: {f32:.0} GFLOP/s in f32, {bf16:.0} in bf16, {memory:.1} GB/s");
    }
    let bench = Bench { cpu, filter: arguments.filter.clone(), json: arguments.json, rates, bandwidth };
    let cpu = &bench.cpu;
    rows(&bench, tokens)?;
    attention(&bench, tokens)?;
    head(&bench, tokens)?;
    for precision in [Precision::Bf16, Precision::F32] {
        for (out, inner) in [(1152, DIM), (1920, DIM), (DIM, 1280), (1536, DIM), (5120, DIM), (10240, DIM), (DIM, 768), (DIM, 5120)] {
            let (x, w, dy) = (values(tokens * inner), values(out * inner), values(tokens * out));
            let (mut y, mut dx, mut dw) = (vec![0.0; tokens * out], vec![0.0; tokens * inner], vec![0.0; out * inner]);
            let (xm, wm, dym) =
                (Matrix::f32(&x, tokens, inner)?, Weights::Plain(Matrix::f32(&w, out, inner)?), Matrix::f32(&dy, tokens, out)?);
            let flops = 2.0 * (tokens * out * inner) as f64;
            let shape = format!("{tokens}x{out}x{inner}");
            bench.time("linear_forward", &shape, precision, flops, || linear_forward(cpu, precision, xm, wm, None, &mut y))?;
            bench.time("linear_backward_input", &shape, precision, flops, || linear_backward_input(cpu, precision, dym, wm, &mut dx))?;
            bench.time("linear_backward_weights", &shape, precision, flops, || {
                linear_backward_weights(cpu, precision, dym, xm, false, &mut dw)
            })?;
        }
    }
    Ok(())
}

/// Operations bound by memory.
fn rows(bench: &Bench, tokens: usize) -> Result<()> {
    let (cpu, ffn, len) = (&bench.cpu, 5120, 1 << 26);
    let (x, w, mut y) = (values(tokens * DIM), values(DIM), vec![0u16; tokens * DIM]);
    let (mut scales, mut dx, mut dw) = (vec![0.0; tokens], vec![0.0; tokens * DIM], vec![0.0; DIM]);
    let shape = format!("{tokens}x{DIM}");
    bench.stream("rms_norm_forward_bf16", &shape, 6.0 * (tokens * DIM) as f64, || {
        rms_norm_forward(cpu, &x, &w, ValuesMut::Bf16(&mut y), &mut scales)
    })?;
    bench.stream("rms_norm_backward", &shape, 16.0 * (tokens * DIM) as f64, || {
        rms_norm_backward(cpu, &x, &x, &w, &scales, &mut dx, false, &mut dw)
    })?;
    let (gates, mut d_gates) = (vec![0x3f80u16; tokens * 2 * ffn], vec![0u16; tokens * 2 * ffn]);
    let (mut hidden, d_hidden) = (vec![0u16; tokens * ffn], vec![0x3f80u16; tokens * ffn]);
    let shape = format!("{tokens}x{ffn}");
    bench.stream("swiglu_forward_bf16", &shape, 6.0 * (tokens * ffn) as f64, || {
        swiglu_forward(cpu, Values::Bf16(&gates), ffn, true, ValuesMut::Bf16(&mut hidden))
    })?;
    bench.stream("swiglu_backward_bf16", &shape, 12.0 * (tokens * ffn) as f64, || {
        let (input, gradient) = (Values::Bf16(&gates), Values::Bf16(&d_hidden));
        swiglu_backward(cpu, input, gradient, ffn, true, ValuesMut::Bf16(&mut d_gates), ValuesMut::Bf16(&mut hidden))
    })?;
    let (mut p, g, mut m, mut v) = (vec![0.0; len], values(len), vec![0.0; len], vec![0.0; len]);
    let settings = AdamW { learning_rate: 1e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, step: 1, gradient_scale: 1.0 };
    bench.stream("adamw_step", &len.to_string(), 28.0 * len as f64, || adamw_step(cpu, &settings, &mut p, &g, &mut m, &mut v))?;
    bench.stream("sum_of_squares", &len.to_string(), 4.0 * len as f64, || {
        std::hint::black_box(sum_of_squares(cpu, &g));
        Ok(())
    })?;
    Ok(())
}

/// Attention of one row of tokens; the operations counted are those of the causal half.
fn attention(bench: &Bench, tokens: usize) -> Result<()> {
    let (cpu, heads) = (&bench.cpu, Heads { queries: 16, keys: 4, head_dim: 64 });
    let half = |count: usize| vec![0x3d00u16; count];
    let (turned, joint) = (half(tokens * heads.turned_width()), half(tokens * heads.joint_width()));
    let (mut out, mut sums) = (half(tokens * heads.query_width()), vec![0.0; tokens * heads.queries]);
    let (d_out, mut d_turned, mut d_joint) = (out.clone(), vec![0.0; turned.len()], joint.clone());
    let shape = AttentionShape { heads, batch: 1, sequence: tokens, starts: None };
    let name = format!("{tokens}x{}x{}", heads.queries, heads.head_dim);
    let product = (tokens * (tokens + 1) * heads.query_width()) as f64;
    let (t, j) = (Values::Bf16(&turned), Values::Bf16(&joint));
    bench.time("attention_forward", &name, Precision::Bf16, 2.0 * product, || {
        attention_forward(cpu, Precision::Bf16, shape, t, j, ValuesMut::Bf16(&mut out), &mut sums)
    })?;
    bench.time("attention_backward", &name, Precision::Bf16, 5.0 * product, || {
        let (out, d_out, d_joint) = (Values::Bf16(&out), Values::Bf16(&d_out), ValuesMut::Bf16(&mut d_joint));
        attention_backward(cpu, Precision::Bf16, shape, t, j, out, &sums, d_out, &mut d_turned, d_joint)
    })?;
    Ok(())
}

fn head(bench: &Bench, tokens: usize) -> Result<()> {
    let (cpu, vocabulary) = (&bench.cpu, 32128);
    let (hidden, table) = (values(tokens * DIM), values(vocabulary * DIM));
    let targets: Vec<u32> = (0..tokens as u32).collect();
    let (mut d_hidden, mut d_table) = (vec![0.0; tokens * DIM], vec![0.0; vocabulary * DIM]);
    let settings = LossSettings { ignored: None, z_weight: 1e-4, scale: 1.0 };
    for precision in [Precision::Bf16, Precision::F32] {
        let flops = 6.0 * (tokens * vocabulary * DIM) as f64;
        bench.time("head_loss", &format!("{tokens}x{vocabulary}x{DIM}"), precision, flops, || {
            let gradients = HeadGradients { d_hidden: &mut d_hidden, d_table: Some(&mut d_table), accumulate: false };
            head_loss(cpu, precision, Values::F32(&hidden), &table, DIM, &targets, settings, Some(gradients)).map(drop)
        })?;
    }
    Ok(())
}
