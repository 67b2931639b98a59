//! The preference objective: the policy learns to prefer, more than the reference does, the better of two answers.
//!
//! What must stay true: the loss is the mean over the global batch's pairs, however it is cut; a pair's two answers are in one
//! micro-batch, because the weight of each depends on both; metrics have TRL's names.

use openelm_train::{Engine, Metrics, Objective, OpenElm, StepLosses, TrainError, TrainSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::FinetuneError;
use crate::order::Order;
use crate::pair_tokens::PairTokens;
use crate::preference_loss::{Both, PairOutcome, PreferenceSettings};
use crate::reference::{Reference, batch_of, both_of, longest, pairs_digest};

/// What a checkpoint keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    objective: String,
    /// Pairs taken so far.
    taken: u64,
    /// Digest of the training pairs.
    pairs: String,
    /// Digest of the reference's weights.
    reference: String,
}

const NAME: &str = "preference";

/// Pairs, a reference and a loss.
pub struct PreferenceObjective {
    settings: PreferenceSettings,
    training: Vec<PairTokens>,
    validation: Vec<PairTokens>,
    reference: Reference,
    reference_digest: String,
    order: Order,
    taken: u64,
    digest: String,
}

impl PreferenceObjective {
    /// Pairs in the order of `seed`, from the first one on, or from where `state`, a checkpoint's, stood. `reference_digest` is that
    /// of the reference's weights.
    ///
    /// # Errors
    /// When a constant makes no loss, the kept values are not one for each pair, or `state` is of other pairs or another reference.
    pub fn new(
        settings: PreferenceSettings,
        (training, validation): (Vec<PairTokens>, Vec<PairTokens>),
        (reference, reference_digest): (Reference, String),
        seed: u64,
        state: Option<&Value>,
    ) -> Result<Self, FinetuneError> {
        settings.check()?;
        if let Reference::Kept { training: kept, validation: held_out } = &reference
            && (kept.len(), held_out.len()) != (training.len(), validation.len())
        {
            let reason = "the reference's log-probabilities are not one for each pair".into();
            return Err(FinetuneError::Resume { reason, hint: "remove the file reference_log_probabilities in the run folder" });
        }
        let digest = pairs_digest(training.iter());
        let taken = match state {
            None => 0,
            Some(state) => {
                let state = state_of_pairs(state, &digest)?;
                if state.reference != reference_digest {
                    let hint = "name the weights that the run was begun from with --init";
                    return Err(FinetuneError::Resume { reason: "the reference's weights are others than the saved run's".into(), hint });
                }
                state.taken
            }
        };
        let order = Order::new(seed, training.len());
        Ok(Self { settings, training, validation, reference, reference_digest, order, taken, digest })
    }

    /// Fails where [`new`](Self::new) would fail over a checkpoint's `state`, the reference apart.
    ///
    /// # Errors
    /// When it is no preference run's, or of other pairs.
    pub fn check_state(state: &Value, training: &[PairTokens]) -> Result<(), FinetuneError> {
        state_of_pairs(state, &pairs_digest(training.iter())).map(drop)
    }

    /// Loss and gradients, or the loss alone, of `micro_batch` pairs at a time.
    fn pairs(
        &self,
        engine: &mut dyn Engine,
        model: &OpenElm,
        pairs: &Chosen<'_>,
        settings: &TrainSettings,
        gradients: bool,
    ) -> Result<StepLosses, TrainError> {
        let arithmetic = settings.arithmetic();
        let total = pairs.indices.len() as f64;
        let mut sums = Sums::default();
        for group in pairs.indices.chunks(settings.micro_batch.max(1)) {
            let members: Vec<&PairTokens> = group.iter().map(|index| &pairs.all[*index]).collect();
            let batch = batch_of(&members, model)?;
            let reference: Vec<Both> = match pairs.kept {
                Some(kept) => group.iter().map(|index| kept[*index]).collect(),
                None => both_of(&engine.row_log_probabilities(pairs.frozen.unwrap_or(model), &batch, &arithmetic)?).collect(),
            };
            let outcomes = |found: &[f64]| -> Vec<(Both, PairOutcome)> {
                let both = both_of(found).zip(&members).zip(&reference);
                both.map(|((policy, pair), reference)| {
                    let scale = |both: Both| self.scaled(both, pair);
                    (policy, self.settings.outcome(scale(policy), scale(*reference)))
                })
                .collect()
            };
            let found = if gradients {
                engine.accumulate_weighted(model, &batch, &arithmetic, &mut |found| {
                    let outcomes = outcomes(found);
                    let slopes = |sign: f64| outcomes.iter().map(move |(_, outcome)| sign * outcome.slope / total);
                    let weights = slopes(1.0).chain(slopes(-1.0));
                    weights
                        .zip(members.iter().map(|pair| &pair.chosen).chain(members.iter().map(|pair| &pair.rejected)))
                        .map(|(weight, side)| if self.settings.average { weight / side.counted().max(1) as f64 } else { weight })
                        .collect()
                })?
            } else {
                engine.row_log_probabilities(model, &batch, &arithmetic)?
            };
            outcomes(&found).iter().for_each(|(policy, outcome)| sums.add(*policy, outcome));
            sums.targets += batch.target_count();
        }
        Ok(sums.losses(total))
    }

    /// Sums as the loss compares them.
    fn scaled(&self, both: Both, pair: &PairTokens) -> Both {
        if !self.settings.average {
            return both;
        }
        let mean = |sum: f64, counted: usize| sum / counted.max(1) as f64;
        Both { chosen: mean(both.chosen, pair.chosen.counted()), rejected: mean(both.rejected, pair.rejected.counted()) }
    }
}

/// Some of the training or held-out pairs, and where their reference values are.
struct Chosen<'a> {
    all: &'a [PairTokens],
    indices: Vec<usize>,
    kept: Option<&'a [Both]>,
    frozen: Option<&'a OpenElm>,
}

/// Sums over pairs.
#[derive(Default)]
struct Sums {
    loss: f64,
    rewards: Both,
    accurate: f64,
    policy: Both,
    targets: u64,
}

impl Sums {
    fn add(&mut self, policy: Both, outcome: &PairOutcome) {
        self.loss += outcome.loss;
        self.rewards.chosen += outcome.rewards.chosen;
        self.rewards.rejected += outcome.rewards.rejected;
        self.accurate += f64::from(u8::from(outcome.rewards.chosen > outcome.rewards.rejected));
        self.policy.chosen += policy.chosen;
        self.policy.rejected += policy.rejected;
    }

    fn losses(&self, pairs: f64) -> StepLosses {
        let mut metrics = Metrics::default();
        for (name, sum) in [
            ("rewards/chosen", self.rewards.chosen),
            ("rewards/rejected", self.rewards.rejected),
            ("rewards/accuracies", self.accurate),
            ("rewards/margins", self.rewards.chosen - self.rewards.rejected),
            ("logps/chosen", self.policy.chosen),
            ("logps/rejected", self.policy.rejected),
        ] {
            metrics.real(name, sum / pairs);
        }
        StepLosses { loss: self.loss / pairs, targets: self.targets, metrics }
    }
}

impl Objective for PreferenceObjective {
    fn accumulate(&mut self, engine: &mut dyn Engine, model: &OpenElm, settings: &TrainSettings) -> Result<StepLosses, TrainError> {
        let count = settings.rank_batch(1)?;
        let mut indices = self.order.take(self.taken, count);
        // Pairs of like length go together, so that little is filling; the mean does not change.
        indices.sort_by_key(|index| longest(&self.training[*index]));
        let chosen = self.chosen(indices, false);
        let losses = self.pairs(engine, model, &chosen, settings, true)?;
        self.taken += count as u64;
        Ok(losses)
    }

    fn validate(&mut self, engine: &mut dyn Engine, model: &OpenElm, settings: &TrainSettings) -> Result<Option<StepLosses>, TrainError> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let mut indices: Vec<usize> = (0..self.validation.len()).collect();
        indices.sort_by_key(|index| longest(&self.validation[*index]));
        let chosen = self.chosen(indices, true);
        let mut found = self.pairs(engine, model, &chosen, settings, false)?;
        found.metrics.count("validation_pairs", self.validation.len() as u64);
        Ok(Some(found))
    }

    fn state(&self) -> Result<Value, TrainError> {
        let state =
            State { objective: NAME.into(), taken: self.taken, pairs: self.digest.clone(), reference: self.reference_digest.clone() };
        serde_json::to_value(state).map_err(|error| TrainError::State { reason: error.to_string() })
    }
}

impl PreferenceObjective {
    fn chosen(&self, indices: Vec<usize>, held_out: bool) -> Chosen<'_> {
        let all = if held_out { &self.validation } else { &self.training };
        let (kept, frozen) = match &self.reference {
            Reference::Kept { training, validation } => (Some(if held_out { &validation[..] } else { &training[..] }), None),
            Reference::Frozen(model) => (None, Some(&**model)),
        };
        Chosen { all, indices, kept, frozen }
    }
}

/// The digest of the reference's weights in a checkpoint's state.
///
/// # Errors
/// When the state is no preference run's.
pub fn reference_digest_of(state: &Value) -> Result<String, FinetuneError> {
    Ok(read(state)?.reference)
}

fn read(state: &Value) -> Result<State, FinetuneError> {
    let other = |reason: String| FinetuneError::Resume { reason, hint: "resume with the configuration that the run was begun with" };
    let state: State =
        serde_json::from_value(state.clone()).map_err(|error| other(format!("its state is no preference run's: {error}")))?;
    if state.objective == NAME { Ok(state) } else { Err(other(format!("it is a {} run", state.objective))) }
}

/// The state, if it is of pairs with this digest.
fn state_of_pairs(state: &Value, digest: &str) -> Result<State, FinetuneError> {
    let state = read(state)?;
    if state.pairs == digest {
        return Ok(state);
    }
    let hint = "resume with the files, the lengths, the template and the tokenizer that the run was begun with";
    Err(FinetuneError::Resume { reason: "the pairs are others than the saved run's".into(), hint })
}
