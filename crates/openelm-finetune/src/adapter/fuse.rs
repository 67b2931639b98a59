//! An adapter fused into its base: weights that are changed as they are read, one tensor in memory at a time.
//!
//! What must stay true: the fused model answers as base and adapter do. An addition to the embedding changes the look-up alone, so a
//! tied head becomes a matrix of its own with the base's values; PEFT keeps it tied, and its fused model answers differently.

use std::path::Path;

use openelm_train::openelm_checkpoint::{
    AdaptedModule, AdapterTensors, ChangeValues, CheckpointError, EMBEDDING_MODULE, ParameterInfo, Weights, adapter_folder, adapter_infos,
};

use super::config::AdapterConfig;
use super::error::AdapterError;
use super::modules::modules;

/// `base` with the adapter at `path` (a folder of PEFT's, a checkpoint, or a run that trains an adapter) added to its weights.
///
/// # Errors
/// When there is no adapter, or it is for another model.
pub fn fused(base: Weights, path: &Path) -> Result<Weights, AdapterError> {
    let config = AdapterConfig::load(path)?;
    let modules = modules(&path.display().to_string(), &config, base.config())?;
    let folder = adapter_folder(path)?.unwrap_or_else(|| path.to_owned());
    let tensors = AdapterTensors::open(&folder, &adapter_infos(base.config(), &modules)?)?;
    let untie = modules.iter().any(|module| module.name == EMBEDDING_MODULE);
    Ok(base.changed(untie, Box::new(Addition { modules, tensors })))
}

struct Addition {
    modules: Vec<AdaptedModule>,
    tensors: AdapterTensors,
}

impl ChangeValues for Addition {
    fn change(&self, info: &ParameterInfo, mut values: Vec<f32>) -> Result<Vec<f32>, CheckpointError> {
        let module = info.name.strip_suffix(".weight").and_then(|name| self.modules.iter().find(|module| module.name == name));
        let (Some(module), &[rows, columns]) = (module, &info.shape[..]) else { return Ok(values) };
        let parts = module.infos(rows, columns);
        let read = |index: usize| parts.get(index).map(|info| self.tensors.values(info)).transpose();
        let (a, b) = (read(0)?.unwrap_or_default(), read(1)?.unwrap_or_default());
        let magnitudes = read(2)?;
        // left [rows, rank] · right [rank, columns]; the embedding's parts stand the other way round.
        let (left, right) = if module.name == EMBEDDING_MODULE { (transposed(&a, module.rank), transposed(&b, columns)) } else { (b, a) };
        let work = Rows { left: &left, right: &right, rank: module.rank, scale: module.scale, magnitudes: magnitudes.as_deref() };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = rows.div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for (index, part) in values.chunks_mut(share * columns.max(1)).enumerate() {
                let work = &work;
                scope.spawn(move || work.add_to(index * share, columns, part));
            }
        });
        Ok(values)
    }
}

/// What is added to some rows of a matrix.
struct Rows<'a> {
    left: &'a [f32],
    right: &'a [f32],
    rank: usize,
    scale: f64,
    magnitudes: Option<&'a [f32]>,
}

impl Rows<'_> {
    /// Changes the rows from number `first` on, one sum in f64 for each value.
    fn add_to(&self, first: usize, columns: usize, rows: &mut [f32]) {
        let mut sums = vec![0.0f64; columns];
        for (index, row) in rows.chunks_mut(columns.max(1)).enumerate() {
            let number = first + index;
            sums.fill(0.0);
            let factors = self.left.get(number * self.rank..(number + 1) * self.rank).unwrap_or_default();
            for (factor, part) in factors.iter().zip(self.right.chunks(columns.max(1))) {
                let factor = f64::from(*factor) * self.scale;
                sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += factor * f64::from(*value));
            }
            sums.iter_mut().zip(row.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
            if let Some(magnitude) = self.magnitudes.and_then(|magnitudes| magnitudes.get(number)) {
                let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
                let factor = if norm > 0.0 { f64::from(*magnitude) / norm } else { 0.0 };
                sums.iter_mut().for_each(|sum| *sum *= factor);
            }
            row.iter_mut().zip(&sums).for_each(|(value, sum)| *value = *sum as f32);
        }
    }
}

/// `values` [rows, ..] the other way round.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| (row, column)))
        .filter_map(|(row, column)| values.get(row * columns + column))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_get_their_sum_and_their_magnitude() {
        let work = Rows { left: &[1.0, 2.0, 0.5, -1.0], right: &[1.0, 0.0, 2.0, 3.0, 1.0, 0.0], rank: 2, scale: 2.0, magnitudes: None };
        let mut rows = vec![1.0; 3];
        work.add_to(1, 3, &mut rows);
        assert_eq!(rows, [1.0 + 2.0 * (0.5 - 3.0), 1.0 - 2.0, 1.0 + 2.0]);
        let work = Rows { magnitudes: Some(&[0.0, 10.0]), left: &[0.0; 4], ..work };
        let mut rows = vec![3.0, 0.0, 4.0];
        work.add_to(1, 3, &mut rows);
        assert_eq!(rows, [6.0, 0.0, 8.0]);
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
