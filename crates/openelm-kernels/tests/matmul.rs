//! Products against f64 sums, on every instruction set of this processor and several numbers of threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use openelm_kernels::{Matrix, PackedMatrix, Precision, Weights, linear_backward_input, linear_backward_weights, linear_forward};
use reference::{Random, assert_close, cpus, product, round_to, transpose};

const SHAPES: [(usize, usize, usize); 9] =
    [(1, 1, 1), (1, 33, 7), (5, 3, 65), (13, 70, 31), (12, 32, 64), (37, 129, 513), (64, 96, 1300), (530, 40, 19), (1100, 35, 67)];

#[test]
fn products_match_f64() {
    for precision in [Precision::F32, Precision::Bf16] {
        for (m, n, k) in SHAPES {
            let mut random = Random::new((m * 1000 + n) as u64);
            let (x, w, dy) = (random.normal(m * k), random.normal(n * k), random.normal(m * n));
            let residual = random.normal(m * n);
            let [xr, wr, dyr] = [&x, &w, &dy].map(|values| round_to(precision, values));
            let y_expected = product(&xr, &transpose(&wr, n, k), m, k, n);
            let dx_expected = product(&dyr, &wr, m, n, k);
            let dw_expected = product(&transpose(&dyr, m, n), &xr, n, m, k);
            for isa in openelm_kernels::Isa::available() {
                let mut first: Option<Vec<f32>> = None;
                for cpu in cpus(isa) {
                    let weights = Matrix::f32(&w, n, k).unwrap();
                    let (xm, dym) = (Matrix::f32(&x, m, k).unwrap(), Matrix::f32(&dy, m, n).unwrap());
                    let what = format!("{isa:?} {precision:?} {m} {n} {k}");

                    let mut y = vec![f32::NAN; m * n];
                    linear_forward(&cpu, precision, xm, Weights::Plain(weights), None, &mut y).unwrap();
                    assert_close(&y, &y_expected, 1e-5, &what);
                    let packed = PackedMatrix::for_forward(&cpu, weights, precision);
                    let mut again = vec![f32::NAN; m * n];
                    linear_forward(&cpu, precision, xm, Weights::Packed(&packed), None, &mut again).unwrap();
                    assert_eq!(y, again, "{what}");
                    let mut summed = vec![f32::NAN; m * n];
                    linear_forward(&cpu, precision, xm, Weights::Plain(weights), Some(&residual), &mut summed).unwrap();
                    let expected: Vec<f64> = y_expected.iter().zip(&residual).map(|(y, r)| y + f64::from(*r)).collect();
                    assert_close(&summed, &expected, 1e-5, &what);

                    let mut dx = vec![f32::NAN; m * k];
                    linear_backward_input(&cpu, precision, dym, Weights::Plain(weights), &mut dx).unwrap();
                    assert_close(&dx, &dx_expected, 1e-5, &what);
                    let packed = PackedMatrix::for_backward(&cpu, weights, precision);
                    let mut again = vec![f32::NAN; m * k];
                    linear_backward_input(&cpu, precision, dym, Weights::Packed(&packed), &mut again).unwrap();
                    assert_eq!(dx, again, "{what}");

                    let mut dw = vec![f32::NAN; n * k];
                    linear_backward_weights(&cpu, precision, dym, xm, false, &mut dw).unwrap();
                    assert_close(&dw, &dw_expected, 1e-5, &what);
                    linear_backward_weights(&cpu, precision, dym, xm, true, &mut dw).unwrap();
                    let doubled: Vec<f64> = dw_expected.iter().map(|dw| 2.0 * dw).collect();
                    assert_close(&dw, &doubled, 1e-5, &what);

                    let all: Vec<f32> = [y, summed, dx, dw].concat();
                    assert!(first.get_or_insert_with(|| all.clone()) == &all, "{what}: depends on the threads");
                }
            }
        }
    }
}

#[test]
fn bf16_operands_in_memory_give_what_rounding_gives() {
    let (m, n, k) = (29, 66, 47);
    let mut random = Random::new(5);
    let (x, w, dy) = (random.normal(m * k), random.normal(n * k), random.normal(m * n));
    let halves =
        |values: &[f32]| -> Vec<u16> { round_to(Precision::Bf16, values).iter().map(|v| ((*v as f32).to_bits() >> 16) as u16).collect() };
    let (xh, dyh) = (halves(&x), halves(&dy));
    for isa in openelm_kernels::Isa::available() {
        for cpu in cpus(isa) {
            let mut results = Vec::new();
            for (xm, dym) in [
                (Matrix::f32(&x, m, k).unwrap(), Matrix::f32(&dy, m, n).unwrap()),
                (Matrix::bf16(&xh, m, k).unwrap(), Matrix::bf16(&dyh, m, n).unwrap()),
            ] {
                let weights = Weights::Plain(Matrix::f32(&w, n, k).unwrap());
                let (mut y, mut dx, mut dw) = (vec![0.0; m * n], vec![0.0; m * k], vec![0.0; n * k]);
                linear_forward(&cpu, Precision::Bf16, xm, weights, None, &mut y).unwrap();
                linear_backward_input(&cpu, Precision::Bf16, dym, weights, &mut dx).unwrap();
                linear_backward_weights(&cpu, Precision::Bf16, dym, xm, false, &mut dw).unwrap();
                results.push([y, dx, dw].concat());
            }
            assert_eq!(results[0], results[1], "{isa:?}");
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let cpu = cpus(openelm_kernels::Isa::Plain).remove(0);
    let values = [0.0; 6];
    assert!(Matrix::f32(&values, 2, 2).unwrap_err().to_string().contains("hint: "));
    let x = Matrix::f32(&values, 2, 3).unwrap();
    let w = Weights::Plain(Matrix::f32(&values, 3, 2).unwrap());
    assert!(linear_forward(&cpu, Precision::F32, x, w, None, &mut [0.0; 6]).is_err());
    assert!(linear_backward_input(&cpu, Precision::F32, x, w, &mut [0.0; 5]).is_err());
}
