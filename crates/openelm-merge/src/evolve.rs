//! The search for a recipe: CMA-ES over the values of a method's parameters or over the order of layers, each candidate merged and
//! measured in memory.
//!
//! ```text
//! OUT/log.jsonl     one line a generation: every value, and the best recipe so far
//! OUT/plot.svg      best and spread over the generations
//! OUT/best.yaml     the best recipe, an ordinary one
//! OUT/merged/       its weights, as a Hugging Face folder
//! ```
//!
//! What must stay true: the log is the whole state. A search that goes on tells CMA-ES the values of the log and is where it was;
//! the same file, seed and models give the same log whatever the number of candidates in memory.

use std::io::Write;
use std::path::{Path, PathBuf};

use openelm_checkpoint::{Device, refuse_filled};
use openelm_eval::EvalError;
use openelm_eval::InferError;
use openelm_eval::Tokenizer;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cma_es::CmaEs;
use crate::error::MergeError;
use crate::genome::Genome;
use crate::measure::Ruler;
use crate::models::Models;
use crate::plan::Plan;
use crate::plot::plot;
use crate::recipe::Recipe;
use crate::search_file::SearchFile;
use crate::write::{merge_to_folder, recipe_text};

const LOG: &str = "log.jsonl";

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Counted from 1.
    pub generation: u64,
    /// Of each candidate; the smaller, the better.
    pub values: Vec<f64>,
    pub sigma: f64,
    /// The best value so far.
    pub best: f64,
}

/// What came of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Evolution {
    pub best: f64,
    pub recipe: Recipe,
    /// On the report's data: name and value of the best recipe, of each parent and of their mean (where
    /// they have one).
    pub report: Vec<(String, f64)>,
}

/// Searches as `file` says, in the folder `out`; with `resume` it goes on where the log ends. `hear` gets each generation.
///
/// # Errors
/// When the folder holds another search, the file does not fit the models, or measuring fails.
pub fn evolve(
    file: &SearchFile,
    out: &Path,
    resume: bool,
    device: &Device,
    mut hear: impl FnMut(&Generation),
) -> Result<Evolution, MergeError> {
    let mut models = Models::open(file.models.iter().chain(&file.base_model))?;
    let genome = Genome::new(file, &models);
    let mut search = CmaEs::new(genome.start(), file.sigma, file.population, file.seed);
    // Everything that can be wrong with models and data shows before the first candidate.
    let first = genome.recipe(&genome.start());
    Plan::new(&first, &models)?;
    let folder = models.tokenizer(None)?.ok_or_else(|| {
        MergeError::recipe(&file.path, "models", "no tokenizer lies beside the models", "export them with their tokenizer")
    })?;
    let tokenizer = Tokenizer::load(&folder)?;
    let ruler = Ruler::new(&file.objective, &tokenizer)?;
    let report_ruler = file.report.as_ref().map(|report| Ruler::new(report, &tokenizer)).transpose()?;

    let log_path = out.join(LOG);
    let mut log = open_log(out, &log_path, resume)?;
    let mut best: Option<(f64, Vec<f64>)> = None;
    let mut keep_best = |points: &[Vec<f64>], values: &[f64]| {
        for (point, value) in points.iter().zip(values) {
            if best.as_ref().is_none_or(|(least, _)| value < least) {
                best = Some((*value, point.clone()));
            }
        }
        best.clone()
    };
    for generation in &log {
        let points = search.ask();
        if generation.values.len() != points.len() || generation.generation != search.generation() + 1 {
            let reason = format!("generation {} of the log does not belong to this search", generation.generation);
            return Err(MergeError::Resume { path: log_path, reason, hint: "go on with the search file that the folder was begun with" });
        }
        keep_best(&points, &generation.values);
        search.tell(&points, &generation.values);
    }
    models.load()?;
    while search.generation() < file.generations {
        let points = search.ask();
        let mut values = Vec::with_capacity(points.len());
        for points in points.chunks(file.parallel) {
            let value = |point: &Vec<f64>| match ruler.value(&genome.recipe(point), &models, device) {
                // A mixture can be beyond all numbers; it is the worst of its generation.
                Err(MergeError::Eval(EvalError::Infer(InferError::NotFinite { .. }))) => Ok(f64::MAX),
                other => other,
            };
            values.extend(points.par_iter().map(value).collect::<Result<Vec<f64>, _>>()?);
        }
        let Some((least, _)) = keep_best(&points, &values) else { break };
        search.tell(&points, &values);
        let generation = Generation { generation: search.generation(), values, sigma: search.sigma(), best: least };
        append(&log_path, &generation)?;
        hear(&generation);
        log.push(generation);
    }
    let Some((best, point)) = keep_best(&[], &[]) else {
        return Err(MergeError::recipe(&file.path, "generations", "is 0", "ask for at least one generation"));
    };
    let recipe = genome.recipe(&point);
    write_text(&out.join("plot.svg"), &plot(&log))?;
    write_text(&out.join("best.yaml"), &recipe_text(&recipe)?)?;
    let merged = out.join("merged");
    if merged.is_dir() {
        std::fs::remove_dir_all(&merged).map_err(|source| MergeError::io(&merged, "replacing the earlier merge", source))?;
    }
    merge_to_folder(&recipe, &merged, |_| ())?;
    let mut report = Vec::new();
    if let Some(ruler) = report_ruler {
        report.push(("best recipe".to_owned(), ruler.value(&recipe, &models, device)?));
        for model in &file.models {
            report.push((model.display().to_string(), ruler.value(&genome.mean(std::slice::from_ref(model)), &models, device)?));
        }
        if genome.has_mean(&models) {
            report.push(("mean of the models".to_owned(), ruler.value(&genome.mean(&file.models), &models, device)?));
        }
    }
    Ok(Evolution { best, recipe, report })
}

/// The generations that lie in `out`.
fn open_log(out: &Path, path: &PathBuf, resume: bool) -> Result<Vec<Generation>, MergeError> {
    if !resume {
        refuse_filled(out)?;
        std::fs::create_dir_all(out).map_err(|source| MergeError::io(out, "making the folder", source))?;
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).map_err(|source| MergeError::io(path, "reading the log of the search", source))?;
    // A line that a crash has cut short is a generation that did not come to its end.
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    if whole.len() < text.len() {
        write_text(path, whole)?;
    }
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let reason = format!("line {} is no generation: {error}", number + 1);
            MergeError::Resume { path: path.clone(), reason, hint: "remove the damaged lines, or begin again in another folder" }
        })
    };
    whole.lines().enumerate().map(line).collect()
}

fn append(path: &Path, generation: &Generation) -> Result<(), MergeError> {
    let fault = |source| MergeError::io(path, "writing the log of the search", source);
    let text = serde_json::to_string(generation).map_err(|error| fault(std::io::Error::other(error)))?;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(fault)?;
    file.write_all(format!("{text}\n").as_bytes()).map_err(fault)
}

fn write_text(path: &Path, text: &str) -> Result<(), MergeError> {
    std::fs::write(path, text).map_err(|source| MergeError::io(path, "writing it", source))
}
