//! Times every operation at the shapes of OpenELM-270M and prints one JSON line each: the best of some repetitions.
//!
//! usage: cargo run --release --example kernels -- [tokens] [filter]

use std::time::Instant;

use openelm_kernels::*;

const DIM: usize = 1280;

struct Bench {
    cpu: Cpu,
    filter: String,
    rates: [f64; 2],
}

impl Bench {
    /// Runs `run` some times and prints the best, with the share of the multiply-add limit.
    fn time(&self, name: &str, shape: &str, precision: Precision, flops: f64, mut run: impl FnMut()) {
        let name = format!("{name}_{}", if precision == Precision::F32 { "f32" } else { "bf16" });
        if !name.contains(&self.filter) {
            return;
        }
        let seconds = best(&mut run);
        let rate = flops / seconds;
        println!(
            "{{\"operation\":\"{name}\",\"shape\":\"{shape}\",\"seconds\":{seconds:.6},\"gflops\":{:.1},\"share\":{:.3}}}",
            rate / 1e9,
            rate / self.rates[usize::from(precision == Precision::Bf16)]
        );
    }
}

fn best(run: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || (start.elapsed().as_secs_f64() < 0.6 && runs < 200) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
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

fn main() -> Result<(), KernelError> {
    let mut arguments = std::env::args().skip(1);
    let tokens: usize = arguments.next().and_then(|tokens| tokens.parse().ok()).unwrap_or(512);
    let filter = arguments.next().unwrap_or_default();
    let cpu = Cpu::from_env()?;
    let rates = [Precision::F32, Precision::Bf16].map(|precision| peak::multiply_add_rate(&cpu, precision, 20));
    println!(
        "{{\"isa\":\"{}\",\"threads\":{},\"tokens\":{tokens},\"peak_f32_gflops\":{:.1},\"peak_bf16_gflops\":{:.1}}}",
        cpu.isa().name(),
        cpu.threads().count(),
        rates[0] / 1e9,
        rates[1] / 1e9
    );
    let bench = Bench { cpu, filter, rates };
    let cpu = &bench.cpu;
    for precision in [Precision::Bf16, Precision::F32] {
        for (out, inner) in [(1152, DIM), (1920, DIM), (DIM, 1280), (1536, DIM), (5120, DIM), (10240, DIM), (DIM, 768), (DIM, 5120)] {
            let (x, w, dy) = (values(tokens * inner), values(out * inner), values(tokens * out));
            let (mut y, mut dx, mut dw) = (vec![0.0; tokens * out], vec![0.0; tokens * inner], vec![0.0; out * inner]);
            let (xm, wm, dym) =
                (Matrix::f32(&x, tokens, inner)?, Weights::Plain(Matrix::f32(&w, out, inner)?), Matrix::f32(&dy, tokens, out)?);
            let flops = 2.0 * (tokens * out * inner) as f64;
            let shape = format!("{tokens}x{out}x{inner}");
            bench.time("linear_forward", &shape, precision, flops, || {
                linear_forward(cpu, precision, xm, wm, None, &mut y).unwrap_or_default();
            });
            bench.time("linear_backward_input", &shape, precision, flops, || {
                linear_backward_input(cpu, precision, dym, wm, &mut dx).unwrap_or_default();
            });
            bench.time("linear_backward_weights", &shape, precision, flops, || {
                linear_backward_weights(cpu, precision, dym, xm, false, &mut dw).unwrap_or_default();
            });
        }
    }
    Ok(())
}
