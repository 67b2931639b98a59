//! What a person sees of a run: one line that is rewritten on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use openelm_train::{EvaluationRecord, Metrics, Observer, StepRecord, ValidationRecord};

/// Plain lines come no closer together than this, except the first and the last.
const PLAIN_PAUSE: Duration = Duration::from_secs(2);

/// Prints to the standard error, so that a command's output stays clean.
pub struct Progress {
    terminal: bool,
    steps: u64,
    /// Where this process began.
    begin: Instant,
    first_step: u64,
    last_line: Option<Instant>,
    /// A rewritten line stands on the terminal.
    open: bool,
}

impl Progress {
    /// For a run of `steps` updates, of which `done` lie behind it.
    pub fn new(steps: u64, done: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, steps, begin: Instant::now(), first_step: done, last_line: None, open: false }
    }

    fn line(&mut self, text: &str) {
        if self.open {
            eprintln!();
            self.open = false;
        }
        eprintln!("{text}");
    }

    fn seconds_left(&self, step: u64) -> f64 {
        let done = (step - self.first_step).max(1);
        self.begin.elapsed().as_secs_f64() / done as f64 * (self.steps.saturating_sub(step)) as f64
    }
}

impl Observer for Progress {
    fn step(&mut self, record: &StepRecord) {
        let text = format!(
            "step {}/{}  loss {:.4}{}  lr {:.3e}  grad norm {:.3}  {:.0} tokens/s  {} left",
            record.step,
            self.steps,
            record.loss,
            rewards(&record.metrics),
            record.learning_rate,
            record.grad_norm,
            record.tokens_per_second,
            duration(self.seconds_left(record.step)),
        );
        if self.terminal {
            eprint!("\r\x1b[2K{text}");
            // A terminal that is gone must not end the run.
            let _ = std::io::stderr().flush();
            self.open = true;
        } else if record.step == self.steps || self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_PAUSE) {
            self.line(&text);
            self.last_line = Some(Instant::now());
        }
    }

    fn validation(&mut self, record: &ValidationRecord) {
        let ValidationRecord { step, validation_loss, metrics } = record;
        let perplexity = metrics.get("perplexity").map_or_else(String::new, |value| format!("  perplexity {value:.2}"));
        self.line(&format!("step {step}  validation loss {validation_loss:.4}{perplexity}{}", rewards(metrics)));
    }

    fn evaluation(&mut self, record: &EvaluationRecord) {
        let scores: String = record.scores.0.iter().map(|(name, value)| format!("  {name} {value:.4}")).collect();
        self.line(&format!("step {}  eval{scores}", record.step));
    }

    fn checkpoint(&mut self, step: u64, path: &Path) {
        self.line(&format!("step {step}  checkpoint {}", path.display()));
    }
}

/// How a preference run is doing; nothing for others.
fn rewards(metrics: &Metrics) -> String {
    match (metrics.get("rewards/accuracies"), metrics.get("rewards/margins")) {
        (Some(accuracy), Some(margin)) => format!("  reward accuracy {accuracy:.3}  margin {margin:.4}"),
        _ => String::new(),
    }
}

/// Seconds as 1:02:03 or 2:03.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration(123.4), "2:03");
        assert_eq!(duration(3723.0), "1:02:03");
        assert_eq!(duration(0.0), "0:00");
    }
}
