//! The mean of a run's last checkpoints: how Apple made the released OpenELM weights.

use std::path::{Path, PathBuf};

use crate::error::MergeError;
use crate::recipe::{Recipe, Source, absolute};
use crate::setting::Settings;

/// The recipe for the mean of the newest `last` checkpoints of the run in `run`.
///
/// # Errors
/// When the folder is no run, or holds fewer checkpoints.
pub fn average_recipe(run: &Path, last: usize) -> Result<Recipe, MergeError> {
    let checkpoints = run.join("checkpoints");
    let entries =
        std::fs::read_dir(&checkpoints).map_err(|source| MergeError::io(&checkpoints, "listing the run's checkpoints", source))?;
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| MergeError::io(&checkpoints, "listing the run's checkpoints", source))?;
        let step = entry.file_name().to_string_lossy().strip_prefix("step-").and_then(|step| step.parse().ok());
        if let Some(step) = step
            && entry.path().join("manifest.json").is_file()
        {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    if last == 0 || found.len() < last {
        let reason = format!("{last} checkpoints are asked for, the run holds {}", found.len());
        return Err(MergeError::recipe(run, "--last", reason, "ask for fewer, or keep more of them with checkpoint.keep_last"));
    }
    let models = found.split_off(found.len() - last).into_iter();
    let here = Path::new("");
    let models = models.map(|(_, path)| Source { model: absolute(&path, here), layer_range: None, parameters: Settings::new() });
    Ok(Recipe {
        merge_method: "linear".into(),
        models: models.collect(),
        slices: Vec::new(),
        base_model: None,
        parameters: Settings::new(),
        dtype: None,
        out_dtype: None,
        seed: 0,
        tokenizer_source: None,
        path: run.to_owned(),
    })
}
