//! `openelm data stats`: what the shards hold, as a table, JSON and a plot.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::{Context, Result};
use openelm_data::{CorpusSurvey, SkipLog, survey};
use serde_json::json;

use super::data_plan::short;
use super::{load_config, tokenizer};
use crate::args::DataStatsArguments;
use crate::convert::data_config;

/// Runs `openelm data stats`.
pub(super) fn run(arguments: &DataStatsArguments) -> Result<()> {
    let config = load_config(&arguments.config)?.config;
    let tokenizer = tokenizer::of_config(&config)?;
    let skipped = SkipLog::new();
    let corpora = survey(&data_config(&config)?, &tokenizer, &skipped)?;
    if let Some(path) = &arguments.svg {
        std::fs::write(path, svg(&corpora)?)
            .with_context(|| format!("{}: cannot be written\nhint: check the folder and its permissions", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", json!({"corpora": corpora, "skipped": skipped.records()}))?;
    } else {
        table(&mut out, &corpora)?;
        for record in skipped.records() {
            writeln!(out, "skipped: {}, {}: {}", record.file, record.place, record.reason)?;
        }
    }
    Ok(())
}

fn table(out: &mut impl Write, corpora: &[CorpusSurvey]) -> std::io::Result<()> {
    let width = corpora.iter().map(|corpus| corpus.name.chars().count()).max().unwrap_or(0).max(6);
    writeln!(
        out,
        "{:width$}  {:>6}  {:>9}  {:>10}  {:>8}  {:>9}  {:>9}  {:>9}  {:>5}",
        "corpus", "shards", "documents", "characters", "tokens", "kept", "few chars", "few toks", "bad"
    )?;
    for corpus in corpora {
        writeln!(
            out,
            "{:width$}  {:>6}  {:>9}  {:>10}  {:>8}  {:>9}  {:>9}  {:>9}  {:>5}",
            corpus.name,
            corpus.shards,
            corpus.documents,
            short(corpus.characters),
            short(corpus.tokens),
            corpus.kept,
            corpus.few_characters,
            corpus.few_tokens,
            corpus.bad
        )?;
    }
    writeln!(out, "\nkept documents by tokens")?;
    let buckets = corpora.iter().map(|corpus| corpus.lengths.len()).max().unwrap_or(0);
    let first = (0..buckets).find(|bucket| corpora.iter().any(|corpus| corpus.lengths.get(*bucket) > Some(&0))).unwrap_or(0);
    write!(out, "{:width$}", "from")?;
    for bucket in first..buckets {
        write!(out, "  {:>6}", short(1 << bucket))?;
    }
    writeln!(out)?;
    for corpus in corpora {
        write!(out, "{:width$}", corpus.name)?;
        for bucket in first..buckets {
            write!(out, "  {:>6}", short(corpus.lengths.get(bucket).copied().unwrap_or(0)))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A histogram for each corpus, one below the other: bars for powers of two tokens, as shares of the corpus's kept documents.
fn svg(corpora: &[CorpusSurvey]) -> Result<String> {
    const BAR: usize = 34;
    const HEIGHT: usize = 90;
    const GAP: usize = 56;
    const LEFT: usize = 20;
    let buckets = corpora.iter().map(|corpus| corpus.lengths.len()).max().unwrap_or(0).max(1);
    let (width, height) = (LEFT * 2 + BAR * buckets, corpora.len() * (HEIGHT + GAP) + 20);
    let mut out = String::new();
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">"
    )?;
    writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>")?;
    for (index, corpus) in corpora.iter().enumerate() {
        let base = index * (HEIGHT + GAP) + HEIGHT + 34;
        let most = corpus.lengths.iter().copied().max().unwrap_or(0).max(1);
        let title = format!("{}: {} documents kept, {} tokens", corpus.name, short(corpus.kept), short(corpus.tokens));
        writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>", base - HEIGHT - 8, escaped(&title))?;
        for bucket in 0..buckets {
            let count = corpus.lengths.get(bucket).copied().unwrap_or(0);
            let (x, bar) = (LEFT + bucket * BAR, (count as f64 / most as f64 * HEIGHT as f64).ceil());
            let (y, inner, middle) = (base as f64 - bar, BAR - 4, x + BAR / 2 - 2);
            writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{inner}\" height=\"{bar}\" fill=\"#4a7ebb\"><title>{count}</title></rect>")?;
            writeln!(out, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>", base + 14, short(1 << bucket))?;
        }
    }
    out.push_str("</svg>\n");
    Ok(out)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_have_a_bar_for_each_length() {
        let corpus = CorpusSurvey { name: "a<b".into(), lengths: vec![0, 3, 6], kept: 9, ..CorpusSurvey::default() };
        let plot = svg(&[corpus]).unwrap();
        assert_eq!(plot.matches("<title>").count(), 3);
        assert!(plot.contains("a&lt;b: 9 documents") && plot.contains("height=\"90\" fill=\"#4a7ebb\"><title>6</title>"), "{plot}");
    }
}
