//! `openelm merge`: recipes, averages of checkpoints, and the search for a recipe.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use openelm_merge::{Recipe, SearchFile, average_recipe, evolve, merge_to_folder};
use openelm_model::open_device;

use crate::args::{MergeArguments, MergeCommand};

/// Runs `openelm merge`.
pub(super) fn merge(arguments: &MergeArguments) -> Result<()> {
    match (&arguments.command, &arguments.recipe, &arguments.out) {
        (Some(MergeCommand::Average { run, last, out }), ..) => carry_out(&average_recipe(run, *last)?, out),
        (Some(MergeCommand::Evolve { search, out, resume, device }), ..) => search_recipe(search, out, *resume, device),
        (None, Some(recipe), Some(out)) => carry_out(&Recipe::read(recipe)?, out),
        (None, _, _) => bail!("a recipe and --out are needed\nhint: openelm merge RECIPE.yaml --out DIR"),
    }
}

fn carry_out(recipe: &Recipe, out: &Path) -> Result<()> {
    let begin = Instant::now();
    let summary = merge_to_folder(recipe, out, |_| ())?;
    let (seconds, mib) = (begin.elapsed().as_secs_f64(), summary.bytes as f64 / (1024.0 * 1024.0));
    eprintln!("{} tensors of {} models, {mib:.1} MiB, in {seconds:.2} s", summary.tensors, summary.models);
    println!("{}", out.display());
    Ok(())
}

fn search_recipe(search: &Path, out: &Path, resume: bool, device: &str) -> Result<()> {
    let file = SearchFile::read(search)?;
    if let Some(warning) = file.warning() {
        eprintln!("warning: {warning}");
    }
    let begin = Instant::now();
    let found = evolve(&file, out, resume, &open_device(device)?, |generation| {
        let (least, seconds) = (generation.values.iter().copied().fold(f64::INFINITY, f64::min), begin.elapsed().as_secs_f64());
        let (number, best, sigma) = (generation.generation, generation.best, generation.sigma);
        eprintln!("generation {number}: best {least:.5}, best so far {best:.5}, sigma {sigma:.3}, {seconds:.0} s");
    })?;
    println!("best value {:.5}: {}", found.best, out.join("best.yaml").display());
    for (name, value) in &found.report {
        println!("{value:.5}  {name}");
    }
    Ok(())
}
