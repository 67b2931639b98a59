//! Straightforward f64 arithmetic to compare with, and random values.
#![allow(dead_code, clippy::unwrap_used)]

use openelm_kernels::{Cpu, Isa, Precision, Threads};

/// A small generator (xorshift64*), so that tests need no dependency.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.uniform() * limit as f64) as usize
    }

    /// Nearly normal values: the sum of twelve uniform ones.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| ((0..12).map(|_| self.uniform()).sum::<f64>() - 6.0) as f32).collect()
    }
}

/// Processors with one instruction set and 1, 2 and 3 threads.
pub fn cpus(isa: Isa) -> Vec<Cpu> {
    [1, 2, 3].into_iter().map(|count| Cpu::new(isa, Threads::new(count).unwrap()).unwrap()).collect()
}

/// Values as f64, rounded to bf16 first when that is the precision.
pub fn round_to(precision: Precision, values: &[f32]) -> Vec<f64> {
    values
        .iter()
        .map(|value| {
            let bits = value.to_bits();
            let rounded = f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000);
            f64::from(if precision == Precision::Bf16 { rounded } else { *value })
        })
        .collect()
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// a [m, k] · b [k, n].
pub fn product(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            for j in 0..n {
                c[i * n + j] += a[i * k + l] * b[l * n + j];
            }
        }
    }
    c
}

/// a [rows, columns] transposed.
pub fn transpose(a: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let mut t = vec![0.0; a.len()];
    for i in 0..rows {
        for j in 0..columns {
            t[j * rows + i] = a[i * columns + j];
        }
    }
    t
}

/// Fails when a value is further than `tolerance` from the expected one, relative to the root mean square of all
/// (at least 0.1: inputs are of size 1, so that less comes of cancellation).
pub fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = (expected.iter().map(|v| v * v).sum::<f64>() / expected.len().max(1) as f64).sqrt().max(0.1);
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs() / scale.max(expected.abs());
        assert!(error <= tolerance, "{what}: value {i} is {found}, expected {expected} (error {error:e}, scale {scale:e})");
    }
}
