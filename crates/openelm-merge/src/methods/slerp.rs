//! Spherical interpolation from the base (t = 0) to the other model (t = 1): along the arc between the directions, weights taken
//! from the angle alone. Nearly parallel tensors are interpolated on the line, as mergekit does.

use super::sums::{dot, weighted_sum};
use super::{Fault, Inputs};

/// Cosine above which the arc is a line for all practical purposes.
const PARALLEL: f64 = 0.9995;

pub(super) fn merge(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    let t = inputs.whole.get("t");
    let (base, other) = (inputs.base, inputs.tensors.first().copied().unwrap_or_default());
    let norms = (dot(base, base) * dot(other, other)).sqrt();
    let cosine = if norms > 1e-16 { dot(base, other) / norms } else { 1.0 };
    let (from, to) = if cosine.abs() > PARALLEL {
        (1.0 - t, t)
    } else {
        let angle = cosine.acos();
        (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
    };
    Ok(weighted_sum(None, &[(from, base), (to, other)], base.len()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;

    #[test]
    fn goes_along_the_arc() {
        let merged = run("slerp", &[1.0, 0.0], &[&[0.0, 1.0]], &[("t", 1.0 / 3.0)]);
        let expected = [(std::f32::consts::PI / 6.0).cos(), 0.5];
        assert!(merged.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{merged:?}");
        assert_eq!(run("slerp", &[2.0, 0.0], &[&[4.0, 0.0]], &[("t", 0.25)]), [2.5, 0.0]);
    }
}
