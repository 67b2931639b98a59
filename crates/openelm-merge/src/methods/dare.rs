//! Differences dropped at random, with and without TIES' election of a sign (Yu et al., Language models are super Mario).

use super::task_vectors::{Consensus, Rescale, TaskVectors};
use super::{Fault, Inputs};
use crate::random::Random;

pub(super) fn linear(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    Ok(thinned(inputs).merged(inputs, Consensus::None))
}

pub(super) fn ties(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    Ok(thinned(inputs).merged(inputs, Consensus::Sign))
}

fn thinned(inputs: &Inputs<'_>) -> TaskVectors {
    let densities = inputs.of_each("density");
    TaskVectors::of(inputs).thinned(Rescale::of(inputs), |model, delta| {
        let density = densities[model];
        if density < 1.0 {
            let mut random = Random::new(inputs.seed, inputs.name, model as u64);
            delta.iter_mut().filter(|_| random.fraction() >= density).for_each(|value| *value = 0.0);
        }
        density
    })
}
