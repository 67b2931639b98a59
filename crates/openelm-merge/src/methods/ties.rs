//! Trim, elect a sign, and take the mean of those that agree (Yadav et al., TIES-merging).

use super::task_vectors::{Consensus, Rescale, TaskVectors, keep_largest};
use super::{Fault, Inputs};

pub(super) fn merge(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    let densities = inputs.of_each("density");
    let thinned = TaskVectors::of(inputs).thinned(Rescale::of(inputs), |model, delta| {
        let density = densities[model];
        if density < 1.0 {
            keep_largest(delta, (density * delta.len() as f64) as usize);
        }
        density
    });
    Ok(thinned.merged(inputs, Consensus::Sign))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;

    #[test]
    fn trims_elects_and_averages() {
        let base = [0.0, 0.0, 0.0, 10.0];
        // Of each model the two largest stay: (4, -3, 0, 0), (2, 5, 0, 0) and (-1, 0, 0, 2).
        let models: [&[f32]; 3] = [&[4.0, -3.0, 1.0, 10.5], &[2.0, 5.0, -1.0, 10.5], &[-1.0, 0.5, 0.0, 12.0]];
        assert_eq!(run("ties", &base, &models, &[("density", 0.5)]), [3.0, 5.0, 0.0, 12.0]);
    }
}
