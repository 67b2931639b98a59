//! `openelm eval`: tasks and perplexity of any weights.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use openelm_eval::{Asked, Encoding, Report, Task, TaskOptions, TaskResult, evaluate, find_tasks, html, published, read_texts, rolling};
use openelm_infer::{DecoderScorer, HostDecoder, ModelScorer, TokenScorer};
use openelm_model::open_device;

use super::adapter::open_weights;
use super::decoder::{decode_precision, open_decoder};
use super::needed_tokenizer;
use crate::args::EvalArguments;

/// Runs `openelm eval`.
pub(super) fn eval(arguments: &EvalArguments) -> Result<()> {
    if arguments.tasks.is_empty() && arguments.perplexity.is_empty() {
        bail!("nothing is asked for\nhint: name tasks or a suite with --tasks, or shards with --perplexity");
    }
    let earlier: Vec<Report> = arguments.compare.iter().map(|path| Report::read(path)).collect::<Result<_, _>>()?;
    let options = TaskOptions { shots: arguments.shots, limit: arguments.limit };
    let tasks = load_tasks(&arguments.tasks, arguments.data.as_deref(), options)?;
    let shards: Vec<String> = arguments.perplexity.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let texts = read_texts(&shards, &arguments.text_key, 0, arguments.limit)?;
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out).with_context(|| format!("{}: making the folder failed\nhint: check the path", out.display()))?;
    }
    let device = open_device(&arguments.decoder.device)?;
    let weights = open_weights(&arguments.weights, arguments.adapter.as_deref())?;
    let tokenizer = needed_tokenizer(&weights, arguments.tokenizer.as_deref())?;
    let config = weights.config();
    let max_length = arguments.max_length.unwrap_or(config.max_context_length);
    if max_length == 0 || max_length > config.rope_max_length {
        bail!("--max-length is {max_length}\nhint: give a number from 1 to {}, the positions that the model knows", config.rope_max_length);
    }
    let encoding = Encoding { tokenizer: &tokenizer, add_bos: !arguments.no_bos, max_length };
    // A request that does not fit must not wait for the tasks before its own.
    tasks.iter().try_for_each(|task| encoding.check(task))?;
    let (model, decoder);
    let scorer: Box<dyn TokenScorer + '_> = if HostDecoder::serves(&device) {
        decoder = open_decoder(&weights, &arguments.decoder)?;
        Box::new(DecoderScorer::new(&*decoder, arguments.batch_tokens))
    } else {
        model = weights.model(&device)?;
        Box::new(ModelScorer::new(&model, decode_precision(arguments.decoder.dtype)?, arguments.batch_tokens))
    };
    let terminal = std::io::stderr().is_terminal();
    let mut results = Vec::with_capacity(tasks.len());
    for task in &tasks {
        let begin = std::time::Instant::now();
        let show = |done: usize, all: usize| {
            if terminal {
                eprint!("\r\x1b[2K{}: {done} of {all} contexts", task.name);
            }
        };
        results.push(evaluate(task, &encoding, &*scorer, show)?);
        let end = if terminal { "\r\x1b[2K" } else { "" };
        eprintln!("{end}{}: {} documents in {:.1} s", task.name, task.questions.len(), begin.elapsed().as_secs_f64());
    }
    let mut report = Report::new(&arguments.weights.display().to_string(), &results);
    if !texts.is_empty() {
        let (_, perplexity) = rolling(&texts, &encoding, &*scorer)?;
        report.add_perplexity("text", &perplexity);
    }
    print!("{}", report.table());
    if let Some(out) = &arguments.out {
        write(out, &report, &results, earlier)?;
    }
    Ok(())
}

/// The tasks, suites and task files `names` with their documents below `data`; `options` win over what a suite says.
pub(super) fn load_tasks(names: &[String], data: Option<&Path>, options: TaskOptions) -> Result<Vec<Task>> {
    let mut asked: Vec<Asked> = Vec::new();
    for name in names {
        asked.extend(find_tasks(name)?);
    }
    let Some(data) = data else {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        bail!("--data is missing\nhint: name the folder with the tasks' documents; docs/evaluation.md says how to make them");
    };
    let mut tasks = Vec::new();
    for Asked { file, shots } in asked {
        tasks.extend(Task::load(&file, data, TaskOptions { shots: options.shots.or(shots), ..options })?);
    }
    Ok(tasks)
}

fn write(out: &Path, report: &Report, results: &[TaskResult], earlier: Vec<Report>) -> Result<()> {
    let put = |name: &str, text: String| -> Result<PathBuf> {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: writing failed\nhint: check the free space", path.display()))?;
        Ok(path)
    };
    let json = put("results.json", format!("{:#}\n", report.json(results)))?;
    let reports: Vec<Report> = std::iter::once(report.clone()).chain(earlier).collect();
    let page = put("report.html", html(&reports, Some(&published()?)))?;
    println!("{}\n{}", json.display(), page.display());
    Ok(())
}
