//! The largest `gamma` of the differences are outliers and go, and of the rest the smallest, until `density` is left
//! (Davari and Belilovsky, Model breadcrumbs).

use super::task_vectors::{Consensus, Rescale, TaskVectors};
use super::{Fault, Inputs};

pub(super) fn linear(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    Ok(thinned(inputs).merged(inputs, Consensus::None))
}

pub(super) fn ties(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    Ok(thinned(inputs).merged(inputs, Consensus::Sign))
}

fn thinned(inputs: &Inputs<'_>) -> TaskVectors {
    let (densities, gammas) = (inputs.of_each("density"), inputs.of_each("gamma"));
    TaskVectors::of(inputs).thinned(Rescale::of(inputs), |model, delta| {
        let (density, gamma) = (densities[model], gammas[model]);
        if density < 1.0 {
            keep_middle(delta, density, gamma);
        }
        density
    })
}

/// When `density` and `gamma` together are more than all, fewer outliers go.
fn keep_middle(delta: &mut [f32], density: f64, gamma: f64) {
    let count = delta.len();
    let keep = (density * count as f64) as usize;
    let largest = ((gamma * count as f64) as usize).min(count - keep);
    let smallest = count - keep - largest;
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| delta[*a].abs().total_cmp(&delta[*b].abs()));
    for place in order[..smallest].iter().chain(&order[count - largest..]) {
        delta[*place] = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_stays() {
        let kept = |density, gamma| {
            let mut delta: Vec<f32> = (1..=10).map(|i| if i % 2 == 0 { -(i as f32) } else { i as f32 }).collect();
            keep_middle(&mut delta, density, gamma);
            delta
        };
        assert_eq!(kept(0.5, 0.2), [0.0, 0.0, 0.0, -4.0, 5.0, -6.0, 7.0, -8.0, 0.0, 0.0]);
        assert_eq!(kept(0.9, 0.3), [1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0, 9.0, 0.0]);
        assert_eq!(kept(0.0, 0.0), [0.0; 10]);
    }
}
