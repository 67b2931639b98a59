//! base + λ Σ weight · (model - base) (Ilharco et al., Editing models with task arithmetic).

use super::task_vectors::{Consensus, TaskVectors};
use super::{Fault, Inputs};

pub(super) fn merge(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    Ok(TaskVectors::of(inputs).merged(inputs, Consensus::None))
}
