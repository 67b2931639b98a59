//! Differences dropped at random, the small ones of each row more often (Deep et al., DELLA-merging): the chance to stay goes
//! from density - epsilon for the smallest of a row to density + epsilon for the largest.

use super::task_vectors::{Consensus, Rescale, TaskVectors};
use super::{Fault, Inputs};
use crate::random::Random;

pub(super) fn linear(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    Ok(thinned(inputs)?.merged(inputs, Consensus::None))
}

pub(super) fn ties(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    Ok(thinned(inputs)?.merged(inputs, Consensus::Sign))
}

fn thinned(inputs: &Inputs<'_>) -> Result<TaskVectors, Fault> {
    let (densities, epsilons) = (inputs.of_each("density"), inputs.of_each("epsilon"));
    for (density, epsilon) in densities.iter().zip(&epsilons) {
        let chances = density - epsilon..=density + epsilon;
        if *density < 1.0 && *density > 0.0 && !(*chances.start() > 0.0 && *chances.end() < 1.0) {
            let reason = format!("density {density} and epsilon {epsilon} give chances from {} to {}", chances.start(), chances.end());
            return Err((reason, "choose a smaller epsilon; density - epsilon must be above 0, density + epsilon below 1"));
        }
    }
    let row = inputs.shape.last().copied().unwrap_or(1).max(1);
    let rescale = Rescale::of(inputs);
    Ok(TaskVectors::of(inputs).thinned(rescale, |model, delta| {
        let (density, epsilon) = (densities[model], epsilons[model]);
        match density {
            density if density >= 1.0 => {}
            density if density <= 0.0 => delta.fill(0.0),
            _ => {
                let mut random = Random::new(inputs.seed, inputs.name, model as u64);
                delta.chunks_mut(row).for_each(|row| drop_by_rank(row, density, epsilon, rescale == Rescale::Density, &mut random));
            }
        }
        // Divided already where each value has a chance of its own.
        if rescale == Rescale::Density { 1.0 } else { density }
    }))
}

fn drop_by_rank(row: &mut [f32], density: f64, epsilon: f64, divide: bool, random: &mut Random) {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*a].abs().total_cmp(&row[*b].abs()));
    let last = row.len().saturating_sub(1).max(1) as f64;
    for (rank, place) in order.into_iter().enumerate() {
        let chance = density - epsilon + rank as f64 / last * 2.0 * epsilon;
        let value = &mut row[place];
        if random.fraction() >= chance {
            *value = 0.0;
        } else if divide {
            *value = (f64::from(*value) / chance) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_values_stay_more_often() {
        let (mut small, mut large) = (0, 0);
        let mut random = Random::new(1, "rows", 0);
        for _ in 0..2000 {
            let mut row = [0.1, 5.0, -0.2, -6.0];
            drop_by_rank(&mut row, 0.5, 0.3, false, &mut random);
            small += usize::from(row[0] != 0.0);
            large += usize::from(row[3] != 0.0);
        }
        let share = |count: usize| count as f64 / 2000.0;
        assert!((share(small) - 0.2).abs() < 0.04 && (share(large) - 0.8).abs() < 0.04, "{small} {large}");
    }
}
