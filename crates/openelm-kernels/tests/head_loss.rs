//! The head with its loss against f64, on every instruction set and several numbers of threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use openelm_kernels::*;
use reference::{Random, assert_close, cpus, product, round_to, transpose};

const Z: f64 = 0.01;

/// (cross entropy, z-loss, d_hidden, d_table) by the formulas.
fn reference(hidden: &[f64], table: &[f64], dim: usize, targets: &[u32], ignored: u32, scale: f64) -> (f64, f64, Vec<f64>, Vec<f64>) {
    let (rows, vocabulary) = (targets.len(), table.len() / dim);
    let logits = product(hidden, &transpose(table, vocabulary, dim), rows, dim, vocabulary);
    let count = targets.iter().filter(|t| **t != ignored).count() as f64;
    let (mut ce, mut z, mut d) = (0.0, 0.0, vec![0.0; logits.len()]);
    for (row, target) in targets.iter().enumerate().filter(|(_, t)| **t != ignored) {
        let logits = &logits[row * vocabulary..][..vocabulary];
        let log_sum = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
        ce += (log_sum - logits[*target as usize]) / count;
        z += Z * log_sum * log_sum / count;
        for (i, logit) in logits.iter().enumerate() {
            let hot = f64::from(u8::from(i == *target as usize));
            let softmax = (logit - log_sum).exp();
            d[row * vocabulary + i] = scale / count * (softmax * (1.0 + 2.0 * Z * log_sum) - hot);
        }
    }
    let d_hidden = product(&d, table, rows, vocabulary, dim);
    let d_table = product(&transpose(&d, rows, vocabulary), hidden, vocabulary, rows, dim);
    (ce, z, d_hidden, d_table)
}

#[test]
fn loss_and_gradients_match_f64() {
    for (rows, dim, vocabulary) in [(1, 4, 3), (7, 33, 100), (40, 64, 4200), (530, 24, 130)] {
        let mut random = Random::new((rows * vocabulary) as u64);
        let hidden = random.normal(rows * dim);
        let table: Vec<f32> = random.normal(vocabulary * dim).iter().map(|w| w * 0.2).collect();
        let mut targets: Vec<u32> = (0..rows).map(|_| random.below(vocabulary) as u32).collect();
        for token in (0..rows).skip(2).step_by(5) {
            targets[token] = u32::MAX;
        }
        let settings = LossSettings { ignored: Some(u32::MAX), z_weight: Z as f32, scale: 0.5 };
        let before = random.normal(vocabulary * dim);
        for precision in [Precision::F32, Precision::Bf16] {
            let (loss_tolerance, tolerance) = if precision == Precision::F32 { (1e-5, 2e-5) } else { (1e-5, 2e-2) };
            let [h, t] = [&hidden, &table].map(|v| round_to(precision, v));
            let (ce, z, d_hidden_expected, d_table_expected) = reference(&h, &t, dim, &targets, u32::MAX, 0.5);
            // Gradients are divided by the number of tokens: compared after multiplying it back.
            let count = targets.iter().filter(|t| **t != u32::MAX).count();
            let enlarged = |v: &[f64]| -> Vec<f64> { v.iter().map(|v| v * count as f64).collect() };
            let (d_hidden_expected, d_table_expected) = (enlarged(&d_hidden_expected), enlarged(&d_table_expected));
            for isa in Isa::available() {
                let mut first: Option<Vec<f32>> = None;
                for cpu in cpus(isa) {
                    let what = format!("{isa:?} {precision:?} {rows} {dim} {vocabulary}");
                    let (mut d_hidden, mut d_table) = (vec![f32::NAN; rows * dim], vec![f32::NAN; vocabulary * dim]);
                    let gradients = HeadGradients { d_hidden: &mut d_hidden, d_table: Some(&mut d_table), accumulate: false };
                    let loss = head_loss(&cpu, precision, Values::F32(&hidden), &table, dim, &targets, settings, Some(gradients)).unwrap();
                    assert!((loss.cross_entropy - ce).abs() < loss_tolerance * ce.abs(), "{what} {loss:?} {ce}");
                    assert!((loss.z_loss - z).abs() < loss_tolerance * z.max(0.1), "{what} {loss:?} {z}");
                    assert_eq!(loss.count, count);
                    let enlarge = |v: &[f32]| -> Vec<f32> { v.iter().map(|v| v * count as f32).collect() };
                    assert_close(&enlarge(&d_hidden), &d_hidden_expected, tolerance, &format!("{what} d_hidden"));
                    assert_close(&enlarge(&d_table), &d_table_expected, tolerance, &format!("{what} d_table"));

                    let (mut again, mut added) = (vec![0.0; rows * dim], before.clone());
                    let gradients = HeadGradients { d_hidden: &mut again, d_table: Some(&mut added), accumulate: true };
                    head_loss(&cpu, precision, Values::F32(&hidden), &table, dim, &targets, settings, Some(gradients)).unwrap();
                    assert_eq!(d_hidden, again);
                    for ((added, before), d) in added.iter().zip(&before).zip(&d_table) {
                        assert!((added - before - d).abs() < 2e-6 * before.abs().max(1.0), "{what}");
                    }
                    let alone = head_loss(&cpu, precision, Values::F32(&hidden), &table, dim, &targets, settings, None).unwrap();
                    assert_eq!(alone, loss);
                    let all = [d_hidden, d_table, added, vec![loss.cross_entropy as f32]].concat();
                    assert!(first.get_or_insert_with(|| all.clone()) == &all, "{what}: depends on the threads");
                }
            }
        }
    }
}

#[test]
fn nothing_counts_gives_zero() {
    for isa in Isa::available() {
        let cpu = cpus(isa).remove(1);
        let mut random = Random::new(1);
        let (hidden, table) = (random.normal(3 * 8), random.normal(10 * 8));
        let (mut d_hidden, mut d_table) = (vec![1.0; 3 * 8], vec![1.0; 10 * 8]);
        let settings = LossSettings { ignored: Some(0), z_weight: 1e-4, scale: 1.0 };
        let gradients = HeadGradients { d_hidden: &mut d_hidden, d_table: Some(&mut d_table), accumulate: false };
        let loss = head_loss(&cpu, Precision::Bf16, Values::F32(&hidden), &table, 8, &[0, 0, 0], settings, Some(gradients)).unwrap();
        assert_eq!(loss, HeadLoss::default());
        assert!(d_hidden.iter().chain(&d_table).all(|d| *d == 0.0));
        let error = head_loss(&cpu, Precision::F32, Values::F32(&hidden), &table, 8, &[0, 10, 0], settings, None).unwrap_err();
        assert!(error.to_string().contains("vocabulary"), "{error}");
    }
}

#[test]
fn weighted_log_probabilities_match_f64() {
    let (dim, vocabulary) = (24, 4200);
    for rows in [3, 40, 530] {
        let mut random = Random::new(rows as u64);
        let hidden = random.normal(rows * dim);
        let table: Vec<f32> = random.normal(vocabulary * dim).iter().map(|w| w * 0.2).collect();
        let targets: Vec<u32> = (0..rows).map(|_| random.below(vocabulary) as u32).collect();
        let mut weights = random.normal(rows);
        weights[rows / 2] = 0.0;
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (h, t) = (wide(&hidden), wide(&table));
        let logits = product(&h, &transpose(&t, vocabulary, dim), rows, dim, vocabulary);
        let (mut expected, mut d) = (Vec::new(), vec![0.0; logits.len()]);
        for (row, target) in targets.iter().enumerate() {
            let logits = &logits[row * vocabulary..][..vocabulary];
            let log_sum = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
            expected.push((logits[*target as usize] - log_sum) as f32);
            for (i, logit) in logits.iter().enumerate() {
                let hot = f64::from(u8::from(i == *target as usize));
                d[row * vocabulary + i] = f64::from(weights[row]) * (hot - (logit - log_sum).exp());
            }
        }
        let (d_hidden_expected, d_table_expected) =
            (product(&d, &t, rows, vocabulary, dim), product(&transpose(&d, rows, vocabulary), &h, vocabulary, rows, dim));
        for isa in Isa::available() {
            let cpu = cpus(isa).remove(1);
            let found = head_log_probabilities(&cpu, Precision::F32, Values::F32(&hidden), &table, dim, &targets).unwrap();
            let narrow: Vec<f32> = found.iter().map(|value| *value as f32).collect();
            assert_close(&narrow, &wide(&expected), 1e-5, "log-probabilities");
            let (mut d_hidden, mut d_table) = (vec![f32::NAN; rows * dim], vec![f32::NAN; vocabulary * dim]);
            let gradients = HeadGradients { d_hidden: &mut d_hidden, d_table: Some(&mut d_table), accumulate: false };
            let (values, precision) = (Values::F32(&hidden), Precision::F32);
            head_log_probabilities_backward(&cpu, precision, values, &table, dim, &targets, &weights, gradients).unwrap();
            assert_close(&d_hidden, &d_hidden_expected, 2e-5, "d_hidden");
            assert_close(&d_table, &d_table_expected, 2e-5, "d_table");
            assert!(d_hidden[rows / 2 * dim..][..dim].iter().all(|value| *value == 0.0), "a weight of 0 gives exactly 0");
        }
    }
}
