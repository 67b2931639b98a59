//! `openelm eval`, and the evaluation of a run while it goes on, through the program.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::Ground;
use support::run_folder::digests;
use support::shards::{json_lines, texts};

/// A task in the words of the tests' texts: how a sentence goes on.
const TASK: &str = "\
task: endings
output_type: multiple_choice
data: endings.jsonl
doc_to_text: \"{{start}}\"
doc_to_choice: \"{{ends}}\"
doc_to_target: \"{{right}}\"
metric_list:
  - metric: acc
  - metric: acc_norm
";

/// A folder with a task of 24 questions, some text, and a run `run` of 6 updates.
fn ground() -> Ground {
    let ground = Ground::new();
    ground.write("endings.yaml", TASK);
    ground.write("rows/endings.jsonl", rows(24));
    ground.write("unseen.jsonl", json_lines(&texts(33, 6)));
    ground
}

/// Questions whose wrong answers are the right ones of other rows.
fn rows(count: usize) -> String {
    let texts = texts(31, 40);
    let part =
        |at: usize, from: usize, length: usize| texts[at % texts.len()].split(' ').skip(from).take(length).collect::<Vec<_>>().join(" ");
    let row = |at: usize| {
        let ends: Vec<String> = (0..3).map(|choice| part(at + (choice + at) % 3, 4, 3)).collect();
        let right = ends.iter().position(|end| *end == part(at, 4, 3)).unwrap_or(0);
        json!({"start": part(at, 0, 4), "ends": ends, "right": right})
    };
    (0..count).map(|at| row(at).to_string() + "\n").collect()
}

/// The scores of `results.json`, by the names of the log.
fn scores(path: PathBuf) -> Vec<(String, f64)> {
    let results: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut found = Vec::new();
    for (task, fields) in results["results"].as_object().unwrap() {
        for (name, value) in fields.as_object().unwrap() {
            if let Some(metric) = name.strip_suffix(",none").filter(|metric| !metric.ends_with("_stderr")) {
                found.push((format!("eval/{task}/{metric}"), value.as_f64().unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{results}");
    found
}

const EVAL: &str = "eval={every: 4, tasks: [endings.yaml], data: rows, limit: 20, perplexity: [unseen.jsonl], max_length: 48}";
const PART: [&str; 2] = ["training.steps=8", "schedule.max_iterations=12"];
/// The command line's words for the same.
const ASKED: [&str; 10] =
    ["--tasks", "endings.yaml", "--data", "rows", "--limit", "20", "--max-length", "48", "--perplexity", "unseen.jsonl"];

#[test]
fn a_run_is_evaluated_as_the_command_would() {
    let ground = ground();
    ground.train("plain", &[]).succeeds();
    ground.train("whole", &[EVAL]).succeeds();
    let whole = ground.run("whole");
    // The evaluation changes nothing of the run.
    whole.assert_same_checkpoint(&ground.run("plain"));
    let logged: Vec<Value> = whole.metrics().into_iter().filter(|record| record.get("eval/endings/acc").is_some()).collect();
    assert_eq!(logged.iter().map(|record| record["step"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 8, 12]);
    let rest: Vec<Value> = whole.metrics().into_iter().filter(|record| record.get("eval/endings/acc").is_none()).collect();
    assert_eq!(rest, ground.run("plain").metrics());
    // The last weights, asked by the command.
    ground.call(["eval", "whole", "--out", "results"]).args(&ASKED).succeeds();
    let last = logged.last().unwrap();
    let found = scores(ground.path("results/results.json"));
    assert_eq!(found.len() + 1, last.as_object().unwrap().len(), "{last}");
    for (name, value) in found {
        assert!((last[&name].as_f64().unwrap() - value).abs() < 1e-9, "{name}: {value} and {last}");
    }
    let loss = |record: &Value| record["eval/text/loss"].as_f64().unwrap();
    assert!(loss(last) < loss(&logged[0]), "nothing was learned: {logged:?}");

    ground.train("parts", &[EVAL]).set(&PART).succeeds();
    ground.train("parts", &[EVAL]).resume().succeeds();
    whole.assert_same(&ground.run("parts"));
}

#[test]
fn a_fine_tuning_is_evaluated_with_and_without_an_adapter() {
    let ground = Ground::for_tuning();
    ground.write("endings.yaml", TASK);
    ground.write("rows/endings.jsonl", rows(12));
    let eval = "eval={every: 6, tasks: [endings.yaml], data: rows, max_length: 48}";
    let adapter = "adapter={r: 4, target_modules: [qkv_proj, proj_2]}";
    let tensorboard = "log.tensorboard=true";
    for (name, set) in [("whole", &[eval, tensorboard][..]), ("low-rank", &[eval, adapter])] {
        ground.tune("supervised", name, set).succeeds();
        let logged: Vec<Value> = ground.run(name).metrics().into_iter().filter(|record| record.get("eval/endings/acc").is_some()).collect();
        assert_eq!(logged.iter().map(|record| record["step"].as_u64().unwrap()).collect::<Vec<_>>(), [6, 12], "{name}");
        let call = ["eval", if name == "whole" { name } else { "base" }, "--out", "results", "--tasks", "endings.yaml", "--data", "rows"];
        let call = ground.call(call).args(&["--max-length", "48"]);
        let call = if name == "whole" { call } else { call.args(&["--adapter", name]) };
        call.succeeds();
        if name == "whole" {
            let events = fs::read_dir(ground.path("whole/tensorboard")).unwrap().next().unwrap().unwrap().path();
            let (bytes, tag) = (fs::read(events).unwrap(), b"eval/endings/acc_norm");
            assert_eq!(bytes.windows(tag.len()).filter(|window| window == tag).count(), 2);
        }
        for (name, value) in scores(ground.path("results/results.json")) {
            let found = logged[1][&name].as_f64().unwrap();
            assert!((found - value).abs() < 1e-9, "{name}: {value} and {found}");
        }
    }
}

#[test]
fn what_cannot_be_evaluated_is_found_before_the_run() {
    let ground = ground();
    ground.write("rows/broken.jsonl", rows(3) + "{\"start\": \"the\"}\n");
    ground.write("broken.yaml", TASK.replace("endings", "broken"));
    let before = digests(&ground.path("."));
    for (eval, parts) in [
        ("{tasks: [endings.yaml]}", &["eval.data: is missing"][..]),
        ("{data: rows}", &["eval: asks for nothing"]),
        ("{perplexity: [unseen.jsonl], shots: 2}", &["eval.shots: stands without tasks"]),
        ("{tasks: [arc_easie], data: rows}", &["\"arc_easie\" is no task", "arc_easy"]),
        ("{tasks: [arc_easy], data: rows}", &["rows/arc_easy.jsonl"]),
        ("{tasks: [broken.yaml], data: rows}", &["rows/broken.jsonl, line 4"]),
        ("{tasks: [endings.yaml, endings.yaml], data: rows}", &["two results would be called endings"]),
        ("{tasks: [endings.yaml], data: rows, max_length: 1}", &["endings, document 0", "the limit is 1"]),
        ("{tasks: [endings.yaml], data: rows, max_length: 500}", &["eval.max_length is 500", "from 1 to 128"]),
        ("{perplexity: [none.jsonl]}", &["none.jsonl"]),
        ("{perplexity: [unseen.jsonl], text_key: body}", &["unseen.jsonl"]),
        ("{perplexity: [unseen.jsonl], limit: 0}", &["eval.limit: is 0"]),
        ("{task: [endings.yaml]}", &["eval.task: unknown key", "tasks"]),
    ] {
        ground.train("new", &[&format!("eval={eval}")]).fails(parts);
        assert_eq!(digests(&ground.path(".")), before, "{eval}");
    }
}

#[test]
fn the_command_takes_every_kind_of_weights() {
    let ground = ground();
    ground.finished_run("run");
    ground.call(["export", "run", "--format", "gguf", "--out", "model.gguf"]).succeeds();
    ground.call(["export", "run", "--format", "gguf", "--quantize", "q8_0", "--out", "small.gguf"]).succeeds();
    let eval = |weights: &str, out: &str| {
        ground.call(["eval", weights, "--out", out]).args(&ASKED).succeeds();
        scores(ground.path(&format!("{out}/results.json")))
    };
    let (run, gguf, small) = (eval("run", "a"), eval("model.gguf", "b"), eval("small.gguf", "c"));
    let loss = |scores: &[(String, f64)]| scores.iter().find(|(name, _)| name == "eval/text/loss").unwrap().1;
    assert!((loss(&run) - loss(&gguf)).abs() < 1e-2 && (loss(&run) - loss(&small)).abs() < 5e-2, "{run:?} {gguf:?} {small:?}");
    assert!(loss(&run) != loss(&small));
    // The page holds both models.
    ground.call(["eval", "run", "--out", "both", "--compare", "c/results.json"]).args(&ASKED).succeeds();
    let page = fs::read_to_string(ground.path("both/report.html")).unwrap();
    assert!(page.contains("small.gguf") && page.contains("endings") && !page.contains("<script src"), "{page}");
}

#[test]
fn bad_input_is_refused() {
    let ground = ground();
    ground.finished_run("run");
    ground.write("nonsense.json", "{}");
    for (arguments, parts) in [
        (&[][..], &["nothing is asked for"][..]),
        (&["--tasks", "endings.yaml"], &["--data is missing"]),
        (&["--tasks", "ending", "--data", "rows"], &["\"ending\" is no task", "zero_shot"]),
        (&["--tasks", "none.yaml", "--data", "rows"], &["none.yaml: reading the task file failed"]),
        (&["--tasks", "piqa", "--data", "rows"], &["rows/piqa.jsonl"]),
        (&["--tasks", "endings.yaml", "--data", "rows", "--max-length", "0"], &["--max-length is 0"]),
        (&["--tasks", "endings.yaml", "--data", "rows", "--shots", "30"], &["31 rows are needed for 30 examples, there are 24"]),
        (&["--perplexity", "none.jsonl"], &["none.jsonl"]),
        (&["--perplexity", "unseen.jsonl", "--tokenizer", "rows"], &["rows"]),
        (&["--perplexity", "unseen.jsonl", "--compare", "nonsense.json"], &["nonsense.json"]),
        (&["--perplexity", "unseen.jsonl", "--adapter", "run"], &["run"]),
    ] {
        ground.call(["eval", "run"]).args(arguments).fails(parts);
    }
    ground.call(["eval", "none", "--perplexity", "unseen.jsonl"]).fails(&["none: there is nothing at this path"]);
}

#[test]
fn hf_5m_gives_the_harnesses_accuracies() {
    let Some(shared) = reference_values::shared() else { return };
    let expected = reference_values::json(&shared.join("reference/eval.json"));
    let ground = Ground::new();
    let model = shared.join("reference/hf-5m");
    let (model, data) = (model.to_str().unwrap(), shared.join("eval"));
    let call = |max_length| {
        let call = ground.call(["eval", model, "--tasks", "arc_easy,piqa", "--out", "results", "--max-length", max_length, "--data"]);
        call.arg(data.to_str().unwrap())
    };
    // One answer of PIQA is longer than the model's context; that is said before the first task is asked.
    let outcome = call("256").outcome();
    outcome.fails(&["piqa, document 142: a continuation has 258 tokens"]);
    assert!(!outcome.stderr.contains("arc_easy: 200 documents"), "{}", outcome.stderr);
    call("1024").succeeds();
    let found = scores(ground.path("results/results.json"));
    for task in ["arc_easy", "piqa"] {
        for metric in ["acc", "acc_norm"] {
            let value = expected["tasks"][task]["metrics"][format!("{metric},none")].as_f64().unwrap();
            assert!(found.contains(&(format!("eval/{task}/{metric}"), value)), "{task} {metric}: {value} is not in {found:?}");
        }
    }
}
