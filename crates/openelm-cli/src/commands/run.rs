//! What `openelm train` and `openelm finetune` have alike: a run from its folder to its end.
//!
//! What must stay true: a new run that got no further than its preparation leaves no folder; a resume that is refused changes
//! nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use openelm_checkpoint::{Checkpoint, RunFolder};
use openelm_model::ModelConfig;
use openelm_tokenizer::Tokenizer;
use openelm_train::{Ended, TrainError, Trainer};
use serde::Serialize;

use super::adapter::open_weights;
use super::export;
use crate::config::{ExportFormat, ExportSection};
use crate::progress::Progress;

/// A run that is ready to go.
pub(super) struct Run {
    pub trainer: Trainer,
    pub tokenizer: Tokenizer,
    pub parameters: usize,
}

/// What messages call a run.
pub(super) struct RunNames<'a> {
    /// The subcommand that goes on with it.
    pub command: &'a str,
    pub name: &'a str,
    pub device: &'a str,
    pub out: &'a Path,
}

impl Run {
    /// Does what is left of `steps` updates, unless it is stopped; says where it stands.
    pub fn complete(&mut self, names: &RunNames<'_>, steps: u64, stop: &Arc<AtomicBool>) -> Result<Ended, TrainError> {
        let done = self.trainer.step();
        eprintln!("run {} on {}: {} parameters, {done} of {steps} steps done", names.name, names.device, self.parameters);
        let ended = self.trainer.run(&mut Progress::new(steps, done), stop)?;
        if ended == Ended::Stopped {
            // The folder's own configuration has every --set and the device in it.
            let (resolved, out) = (names.out.join("config.yaml"), names.out.display());
            let step = self.trainer.step();
            eprintln!("stopped after step {step}; continue with: openelm {} {} --out {out} --resume", names.command, resolved.display());
        }
        Ok(ended)
    }
}

/// The folder of a run that is to go on, and its newest checkpoint.
pub(super) fn open_run(out: &Path) -> Result<(Option<RunFolder>, Option<Checkpoint>)> {
    let folder = RunFolder::open(out)?;
    let checkpoint = folder.newest()?;
    if checkpoint.is_none() {
        eprintln!("note: the run has no checkpoint yet; it begins anew");
    }
    Ok((Some(folder), checkpoint))
}

/// Removes the folder of a run that could not begin. It was made new or stood empty, so nothing in it is anybody else's.
pub(super) fn forget(out: &Path, existed: bool) {
    // What cannot be removed stays; the error that led here is the one to report.
    let _ = std::fs::remove_dir_all(out);
    if existed {
        let _ = std::fs::create_dir(out);
    }
}

/// Puts the tokenizer, and a chat template, into the run folder in one step, so that a crash leaves none or whole ones.
pub(super) fn save_tokenizer(tokenizer: &Tokenizer, chat_template: Option<&str>, folder: &RunFolder) -> Result<()> {
    let place = folder.tokenizer();
    let aside = folder.path().join(".tokenizer");
    if aside.exists() {
        std::fs::remove_dir_all(&aside).with_context(|| refused(&aside, "removing it"))?;
    }
    std::fs::create_dir_all(&aside).with_context(|| refused(&aside, "making the folder"))?;
    tokenizer.save(&aside)?;
    if let Some(template) = chat_template {
        let path = aside.join("chat_template.jinja");
        std::fs::write(&path, template).with_context(|| refused(&path, "writing it"))?;
    }
    std::fs::rename(&aside, &place).with_context(|| refused(&place, "renaming it"))
}

fn refused(path: &Path, action: &str) -> String {
    format!("{}: {action} failed\nhint: check the free space and the permissions of the run folder", path.display())
}

/// A resumed run must be the saved one: what would change its weights or its data is refused; of other `sections` that differ it is said.
pub(super) fn check_same_run(
    checkpoint: &Checkpoint,
    config: &impl Serialize,
    sections: &[&str],
    tokenizer: &Tokenizer,
    model: &ModelConfig,
) -> Result<()> {
    let manifest = checkpoint.manifest();
    let place = checkpoint.path().display();
    if manifest.model != *model {
        bail!(
            "{place}: its model is another one than the configuration's\nhint: resume with the configuration in the run folder, or begin a new run with --init"
        );
    }
    if manifest.tokenizer != tokenizer.fingerprint() {
        bail!("{place}: it was trained with another tokenizer\nhint: put the run's own tokenizer folder back");
    }
    let now = serde_json::to_value(config)?;
    for section in sections {
        if manifest.config.get(section) != now.get(section) {
            eprintln!("note: `{section}` differs from the saved run's; the new values hold from here on");
        }
    }
    Ok(())
}

/// The first Ctrl-C (or SIGTERM) asks for a stop between two steps, the second ends the program at once.
pub(super) fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step, then a checkpoint; interrupt again to stop at once and lose the steps since the last one");
    })
    .context("the interrupt handler cannot be set")?;
    Ok(stop)
}

/// Exports the newest checkpoint into the run folder, if that is asked for; an export of an earlier end of the same run makes way.
pub(super) fn export_run(
    section: Option<&ExportSection>,
    name: &str,
    corpora: Vec<(String, f64)>,
    folder: &Path,
    tokenizer: &Tokenizer,
) -> Result<Option<PathBuf>> {
    let Some(ExportSection { format: ExportFormat::Hf }) = section else { return Ok(None) };
    let place = folder.join("export").join("hf");
    if place.exists() {
        std::fs::remove_dir_all(&place).with_context(|| refused(&place, "removing the old export"))?;
    }
    let weights = open_weights(folder, None)?;
    export::hugging_face(&weights, Some(tokenizer), name, corpora, &Default::default(), &place)?;
    Ok(Some(place))
}

/// Where what a finished run has made lies.
pub(super) fn print_places(out: &Path, exported: Option<&Path>) {
    println!("run folder   {}", out.display());
    println!("checkpoints  {}", out.join("checkpoints").display());
    println!("metrics      {}", out.join("metrics.jsonl").display());
    if let Some(exported) = exported {
        println!("exported     {}", exported.display());
    }
}
