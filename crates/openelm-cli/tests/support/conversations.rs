//! Conversations and preference pairs from a fixed generator, and the runs that learn them.

use serde_json::{Value, json};

use super::Ground;
use super::program::Call;
use super::shards::texts;

/// A preference run on `pairs.jsonl`; `pairs-held-out.jsonl` is scored.
const PREFERENCE: &str = "\
name: preference
seed: 5
objective:
  kind: preference
  loss: hinge
  beta: 0.1
data:
  files: [pairs.jsonl]
  max_length: 48
  max_prompt_length: 20
validation:
  every: 4
  files: [pairs-held-out.jsonl]
training:
  steps: 12
  global_batch: 4
  micro_batch: 2
schedule:
  max_lr: 0.001
checkpoint:
  every: 3
  keep_last: 9
log:
  tensorboard: false
";

/// A supervised run on `talks.jsonl`, in the same lengths.
const SUPERVISED: &str = "\
name: supervised
seed: 5
objective:
  kind: supervised
  packing: true
data:
  files: [talks.jsonl]
  max_length: 64
validation:
  every: 4
  files: [talks-held-out.jsonl]
training:
  steps: 12
  global_batch: 4
  micro_batch: 2
schedule:
  max_lr: 0.003
checkpoint:
  every: 3
  keep_last: 9
log:
  tensorboard: false
";

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| row.to_string() + "\n").collect()
}

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// The words of a text from `from` on, as many as `count`.
fn words(text: &str, from: usize, count: usize) -> String {
    text.split(' ').skip(from).take(count).collect::<Vec<_>>().join(" ")
}

/// A pair row, as alignment-handbook has them.
pub fn pair(prompt: &str, chosen: &str, rejected: &str) -> Value {
    let talk = |answer: &str| json!([turn("user", prompt), turn("assistant", answer)]);
    json!({"prompt": prompt, "chosen": talk(chosen), "rejected": talk(rejected)})
}

/// A row with one question and its answer.
pub fn talk(question: &str, answer: &str) -> Value {
    json!({"messages": [turn("user", question), turn("assistant", answer)]})
}

impl Ground {
    /// Weights in `base`, and the files and configurations (`preference.yaml`, `supervised.yaml`) of two runs that begin from them.
    pub fn for_tuning() -> Self {
        let ground = Self::new();
        ground.finished_run("base");
        for (name, seed, count) in [("", 21, 30), ("-held-out", 22, 6)] {
            let texts = texts(seed, count);
            let pairs = texts
                .iter()
                .enumerate()
                .map(|(at, text)| pair(&words(text, 0, 3 + at % 9), &words(text, 3, 4 + at % 5), &words(text, 9, 9)));
            ground.write(&format!("pairs{name}.jsonl"), lines(pairs));
            let talks = texts.iter().map(|text| talk(&words(text, 0, 4), &words(text, 4, 8)));
            ground.write(&format!("talks{name}.jsonl"), lines(talks));
        }
        ground.write("preference.yaml", PREFERENCE);
        ground.write("supervised.yaml", SUPERVISED);
        ground
    }

    /// `openelm finetune KIND.yaml --init base --out OUT` with these `--set`.
    pub fn tune(&self, kind: &str, out: &str, set: &[&str]) -> Call {
        self.call(["finetune", &format!("{kind}.yaml"), "--init", "base", "--out", out]).set(set)
    }

    /// Writes rows into the file `name`.
    pub fn rows(&self, name: &str, rows: impl IntoIterator<Item = Value>) {
        self.write(name, lines(rows));
    }
}
