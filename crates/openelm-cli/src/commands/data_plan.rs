//! `openelm data plan`: what a run would read, without reading it.

use std::io::Write;

use anyhow::Result;
use openelm_data::{Order, Plan, plan};

use super::{load_config, tokenizer};
use crate::args::DataPlanArguments;
use crate::convert::data_config;

/// Runs `openelm data plan`.
pub(super) fn run(arguments: &DataPlanArguments) -> Result<()> {
    let config = load_config(&arguments.config)?.config;
    let tokenizer = tokenizer::of_config(&config)?;
    let data = data_config(&config)?;
    let sequences = config.training.steps.saturating_mul(config.training.global_batch);
    let plan = plan(&data, &tokenizer, sequences, arguments.world)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&plan)?)?;
        return Ok(());
    }
    print(&mut out, &plan, data.order == Order::Mixed)?;
    Ok(())
}

fn print(out: &mut impl Write, plan: &Plan, mixed: bool) -> std::io::Result<()> {
    let width = plan.corpora.iter().map(|corpus| corpus.name.chars().count()).max().unwrap_or(0).max(6);
    writeln!(
        out,
        "{:width$}  {:>6}  {:>8}  {:>9}  {:>8}  {:>6}  {:>6}  {:>8}  {:>7}",
        "corpus", "shards", "on disk", "documents", "tokens", "kept", "share", "run", "epochs"
    )?;
    for corpus in &plan.corpora {
        writeln!(
            out,
            "{:width$}  {:>6}  {:>8}  {:>9}  {:>8}  {:>5.1}%  {:>5.1}%  {:>8}  {:>7}",
            corpus.name,
            corpus.shards,
            short(corpus.file_bytes),
            format!("{}{}", if corpus.documents_exact { "" } else { "~" }, short(corpus.documents)),
            format!("~{}", short(corpus.tokens)),
            corpus.kept * 100.0,
            corpus.share * 100.0,
            short(corpus.run_tokens),
            if corpus.epochs < 0.01 { format!("{:.1e}", corpus.epochs) } else { format!("{:.2}", corpus.epochs) },
        )?;
    }
    writeln!(out, "\n{} tokens on disk (estimated from samples), {} in the run", short(plan.tokens), short(plan.run_tokens))?;
    if mixed {
        writeln!(
            out,
            "{} ranks, {} lanes: {} lanes a rank, with up to {} shards open",
            plan.world, plan.lanes, plan.lanes_per_rank, plan.open_shards_per_rank
        )?;
        for corpus in &plan.corpora {
            let (shards, lanes) = (corpus.shards as f64, plan.lanes as f64);
            let per_rank = (corpus.shards_per_lane * plan.lanes_per_rank as f64).max(1.0).min(shards);
            let dealt = if shards >= lanes {
                format!("{:.1} shards a lane", corpus.shards_per_lane)
            } else {
                format!("each shard shared by {:.1} lanes, which take its documents in turn", lanes / shards.max(1.0))
            };
            writeln!(out, "  {:width$}  {dealt}; about {per_rank:.0} shards a rank", corpus.name)?;
        }
    }
    for warning in &plan.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

/// Three digits and a power of a thousand.
pub(super) fn short(value: u64) -> String {
    let mut number = value as f64;
    for unit in ["", "k", "M", "G", "T", "P"] {
        if number < 999.5 || unit == "P" {
            return match () {
                () if unit.is_empty() => format!("{number:.0}"),
                () if number < 9.995 => format!("{number:.2}{unit}"),
                () if number < 99.95 => format!("{number:.1}{unit}"),
                () => format!("{number:.0}{unit}"),
            };
        }
        number /= 1000.0;
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown: Vec<String> = [0, 999, 1000, 9_994, 99_949, 999_600, 1_784_300_000_000].into_iter().map(short).collect();
        assert_eq!(shown, ["0", "999", "1.00k", "9.99k", "99.9k", "1.00M", "1.78T"]);
    }
}
