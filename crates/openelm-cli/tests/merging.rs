//! `openelm merge` through the program: recipes, the average of a run, and a search that goes on where it was.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;

use support::Ground;
use support::program::Call;
use support::run_folder::digests;
use support::shards::{json_lines, texts};

/// Runs `base`, `first` and `second` of the same seed on different shards, and unseen text.
fn ground() -> Ground {
    let ground = Ground::new();
    ground.write("held-out.jsonl", json_lines(&texts(33, 4)));
    ground.write("report.jsonl", json_lines(&texts(34, 4)));
    let run = |name: &str, shard: &str, steps: &str| {
        let set =
            [&format!("data.corpora[0].files=[{shard}]"), steps, "schedule.max_iterations=12", "validation=null", "checkpoint.keep_last=9"];
        ground.train(name, &set).succeeds();
    };
    run("base", "stories-0.jsonl", "training.steps=3");
    run("first", "stories-1.jsonl", "training.steps=9");
    run("second", "stories-2.jsonl", "training.steps=9");
    ground
}

fn loss(ground: &Ground, weights: &str) -> f64 {
    ground.call(["eval", weights, "--perplexity", "held-out.jsonl", "--out", "scores"]).succeeds();
    let scores: serde_json::Value = serde_json::from_slice(&fs::read(ground.path("scores/results.json")).unwrap()).unwrap();
    scores["results"]["text"]["loss,none"].as_f64().unwrap()
}

#[test]
fn a_recipe_becomes_weights_that_everything_reads() {
    let ground = ground();
    ground.write("recipe.yaml", "merge_method: linear\nmodels: [{model: first}, {model: second, parameters: {weight: 3}}]\n");
    let made = ground.call(["merge", "recipe.yaml", "--out", "merged"]).succeeds();
    assert_eq!(made.stdout, "merged\n");
    // The shares are those of the recipe: all of one model is that model.
    ground.write("one.yaml", "merge_method: linear\nmodels: [{model: first}, {model: second, parameters: {weight: 0}}]\n");
    ground.call(["merge", "one.yaml", "--out", "one"]).succeeds();
    assert!((loss(&ground, "one") - loss(&ground, "first")).abs() < 1e-6);
    let (merged, second) = (loss(&ground, "merged"), loss(&ground, "second"));
    assert!(merged.is_finite() && merged != second, "{merged} {second}");
    ground.call(["generate", "merged", "--prompt", "the bird", "--max-new-tokens", "4", "--ignore-eos"]).succeeds();
    // The recipe that lies beside the weights makes them again.
    ground.call(["merge", "merged/merge.yaml", "--out", "again"]).succeeds();
    let bytes = |name: &str| fs::read(ground.path(name).join("model.safetensors")).unwrap();
    assert!(bytes("again") == bytes("merged"));
    ground.call(["merge", "recipe.yaml", "--out", "merged"]).fails(&["merged: the folder is not empty"]);
}

#[test]
fn the_last_checkpoints_of_a_run_become_one() {
    let ground = ground();
    ground.call(["merge", "average", "first", "--last", "3", "--out", "mean"]).succeeds();
    let paths = [3, 6, 9].map(|step| format!("{{model: {}}}", ground.run("first").checkpoint(step).display()));
    ground.write("recipe.yaml", format!("merge_method: linear\nmodels: [{}]\n", paths.join(", ")));
    ground.call(["merge", "recipe.yaml", "--out", "linear"]).succeeds();
    assert!((loss(&ground, "mean") - loss(&ground, "linear")).abs() < 1e-6);
    let average = |last: &str| ground.call(["merge", "average", "first", "--out", "other", "--last", last]);
    average("4").fails(&["4 checkpoints are asked for, the run holds 3"]);
    ground.call(["merge", "average", "stories-0.jsonl", "--out", "other"]).fails(&["stories-0.jsonl"]);
    assert!(!ground.path("other").exists());
}

/// Searches with two generations, then goes on to four, and compares with four in one go.
fn assert_goes_on(ground: &Ground, search: &str) -> String {
    let write = |generations: u64| ground.write("search.yaml", format!("{search}generations: {generations}\n"));
    let evolve = |out: &str| -> Call { ground.call(["merge", "evolve", "search.yaml", "--out", out]) };
    write(4);
    let whole = evolve("whole").succeeds();
    write(2);
    evolve("parts").succeeds();
    write(4);
    evolve("parts").fails(&["parts: the folder is not empty"]);
    let parts = evolve("parts").resume().succeeds();
    assert_eq!(parts.stdout.replace("parts/", "whole/"), whole.stdout);
    let read = |path: &str| fs::read(ground.path(path)).unwrap();
    for file in ["log.jsonl", "plot.svg", "best.yaml", "merged/model.safetensors", "merged/config.json"] {
        assert!(read(&format!("parts/{file}")) == read(&format!("whole/{file}")), "{file}");
    }
    // The best recipe is an ordinary one.
    ground.call(["merge", "whole/best.yaml", "--out", "again"]).succeeds();
    assert!(read("again/model.safetensors") == read("whole/merged/model.safetensors"));
    whole.stdout
}

/// The value on the report's data of the model whose name ends so.
fn reported(stdout: &str, name: &str) -> f64 {
    let line = stdout.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{name}: {stdout}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

const MEASURES: &str =
    "objective: {files: [held-out.jsonl], documents: 3}\nreport: {files: [report.jsonl], documents: 3}\npopulation: 4\nseed: 7\n";

#[test]
fn a_search_for_weights_goes_on_where_it_was() {
    let ground = ground();
    let search = "merge_method: task_arithmetic\nbase_model: base\nmodels: [first, second]\nsearch: {weight: {from: 0, to: 1}}\n";
    let stdout = assert_goes_on(&ground, &format!("{search}{MEASURES}"));
    for name in ["best recipe", "/first", "/second", "mean of the models"] {
        assert!(reported(&stdout, name).is_finite(), "{stdout}");
    }
    let log = fs::read_to_string(ground.path("whole/log.jsonl")).unwrap();
    let best: Vec<f64> =
        log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["best"].as_f64().unwrap()).collect();
    assert!(best.len() == 4 && best.windows(2).all(|pair| pair[1] <= pair[0]), "{best:?}");
}

#[test]
fn a_search_for_layers_goes_on_where_it_was() {
    let ground = ground();
    let search = "merge_method: passthrough\nmodels: [first, second]\ndata_flow: {repetitions: 2, scale: {from: 0.5, to: 1.5, start: 1}}\n";
    let stdout = assert_goes_on(&ground, &format!("{search}{MEASURES}"));
    assert!(reported(&stdout, "/first").is_finite() && reported(&stdout, "best recipe").is_finite());
    let recipe = fs::read_to_string(ground.path("whole/best.yaml")).unwrap();
    assert!(recipe.contains("merge_method: passthrough") && recipe.contains("layer_range") && recipe.contains("scale"), "{recipe}");
    ground.call(["generate", "whole/merged", "--prompt", "the bird", "--max-new-tokens", "4", "--ignore-eos"]).succeeds();
}

#[test]
fn bad_input_is_refused() {
    let ground = ground();
    let models = "models: [{model: first}, {model: second}]\n";
    ground.train("wide", &["model.preset=OpenELM-5M", "training.steps=3"]).succeeds();
    let before = digests(&ground.path("."));
    for (text, parts) in [
        ("merge_methods: linear\n".to_owned(), &["recipe.yaml", "merge_methods"][..]),
        (format!("merge_method: lineer\n{models}"), &["`lineer` is no known method"]),
        (format!("merge_method: ties\nbase_model: base\n{models}parameters: {{density: 2}}\n"), &["parameters.density", "from 0 to 1"]),
        ("merge_method: linear\nmodels: [{model: none}]\n".to_owned(), &["none: there is nothing at this path"]),
        ("merge_method: linear\nmodels: [{model: first}, {model: wide}]\n".to_owned(), &["differ in"]),
    ] {
        ground.write("recipe.yaml", text);
        ground.call(["merge", "recipe.yaml", "--out", "merged"]).fails(parts);
    }
    let fixed = "generations: 2\nmodels: [first, second]\n";
    let flow = format!("{fixed}merge_method: passthrough\n{MEASURES}");
    let arithmetic = format!("{fixed}merge_method: task_arithmetic\nbase_model: base\n{MEASURES}");
    for (text, parts) in [
        (format!("{arithmetic}search: {{wait: {{from: 0, to: 1}}}}\n"), &["search.wait"][..]),
        (format!("{arithmetic}search: {{weight: {{from: 1, to: 0}}}}\n"), &["search.weight", "from 1 to 0"]),
        (arithmetic.clone(), &["search", "is missing"]),
        (format!("{arithmetic}data_flow: {{}}\n"), &["data_flow", "passthrough"]),
        (format!("{flow}data_flow: {{repetitions: 0}}\n"), &["data_flow.repetitions", "0"]),
        (format!("{flow}data_flow: {{scale: {{from: -1, to: 1}}}}\n"), &["data_flow.scale", "above 0"]),
        (format!("{flow}data_flow: {{}}\nsearch: {{scale: {{from: 0, to: 1}}}}\n"), &["data_flow", "search"]),
        (format!("{flow}data_flow: {{}}\nlayer_groups: 2\n"), &["layer_groups"]),
        (format!("{flow}data_flow: {{repeat: 2}}\n"), &["repeat", "repetitions"]),
        (format!("{flow}data_flow: {{}}\n").replace("held-out.jsonl", "none.jsonl"), &["none.jsonl"]),
    ] {
        ground.write("search.yaml", text);
        ground.call(["merge", "evolve", "search.yaml", "--out", "found"]).fails(parts);
    }
    for name in ["recipe.yaml", "search.yaml"] {
        fs::remove_file(ground.path(name)).unwrap();
    }
    assert_eq!(digests(&ground.path(".")), before);
}
