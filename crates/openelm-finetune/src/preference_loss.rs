//! The losses of preference tuning, as functions of the two log-ratios' difference
//! h = (ln π(chosen) − ln π(rejected)) − (ln ref(chosen) − ln ref(rejected)), and their slopes.
//!
//! What must stay true: TRL 0.8.6's `DPOTrainer.dpo_loss`. A hinge that is satisfied has a slope of exactly 0.

use openelm_train::TrainError;

/// Which function of h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreferenceLoss {
    /// −(1 − ε) ln σ(βh) − ε ln σ(−βh) (Rafailov and others 2023; ε: label smoothing).
    Sigmoid,
    /// max(0, 1 − βh) (Zhao and others 2023).
    Hinge,
    /// (h − 1 / 2β)² (Azar and others 2023).
    Ipo,
}

/// A loss with its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PreferenceSettings {
    pub loss: PreferenceLoss,
    /// β: how much a log-ratio weighs.
    pub beta: f64,
    /// ε of the sigmoid: the share of pairs whose order is taken to be wrong.
    pub label_smoothing: f64,
    /// Compare means over an answer's tokens instead of sums.
    pub average: bool,
}

/// Log-probabilities of the answers of one pair.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Both {
    pub chosen: f64,
    pub rejected: f64,
}

/// What a pair gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairOutcome {
    pub loss: f64,
    /// The slope of the loss by h.
    pub slope: f64,
    /// β (ln π − ln ref) of each answer.
    pub rewards: Both,
}

impl PreferenceSettings {
    /// Loss, slope and rewards of one pair.
    pub fn outcome(&self, policy: Both, reference: Both) -> PairOutcome {
        // TRL's differences are of f32 values, which sums of hundreds of tokens make visible in the IPO loss.
        let ratio = |both: Both| both.chosen as f32 - both.rejected as f32;
        let h = f64::from(ratio(policy) - ratio(reference));
        let (loss, slope) = self.loss_and_slope(h);
        let reward = |policy: f64, reference: f64| self.beta * (policy - reference);
        let rewards = Both { chosen: reward(policy.chosen, reference.chosen), rejected: reward(policy.rejected, reference.rejected) };
        PairOutcome { loss, slope, rewards }
    }

    fn loss_and_slope(&self, h: f64) -> (f64, f64) {
        let beta = self.beta;
        match self.loss {
            PreferenceLoss::Sigmoid => {
                let smoothing = self.label_smoothing;
                let loss = (1.0 - smoothing) * softplus(-beta * h) + smoothing * softplus(beta * h);
                (loss, beta * (smoothing * sigmoid(beta * h) - (1.0 - smoothing) * sigmoid(-beta * h)))
            }
            PreferenceLoss::Hinge => {
                let rest = 1.0 - beta * h;
                if rest > 0.0 { (rest, -beta) } else { (0.0, 0.0) }
            }
            PreferenceLoss::Ipo => {
                let miss = h - 1.0 / (2.0 * beta);
                (miss * miss, 2.0 * miss)
            }
        }
    }

    /// Fails for constants that make no loss.
    ///
    /// # Errors
    /// The first one, with its key.
    pub fn check(&self) -> Result<(), TrainError> {
        let fault = |key, reason: String, hint: &str| Err(TrainError::Settings { key, reason, hint: hint.into() });
        if !(self.beta.is_finite() && self.beta > 0.0) {
            return fault("objective.beta", format!("is {}", self.beta), "give a number above 0; OpenELM used 0.01");
        }
        if !(0.0..0.5).contains(&self.label_smoothing) {
            return fault("objective.label_smoothing", format!("is {}", self.label_smoothing), "give a number from 0 to below 0.5");
        }
        if self.label_smoothing > 0.0 && self.loss != PreferenceLoss::Sigmoid {
            return fault(
                "objective.label_smoothing",
                "has a meaning for the sigmoid loss alone".into(),
                "set it to 0, or loss to sigmoid",
            );
        }
        Ok(())
    }
}

/// ln(1 + eˣ) = −ln σ(−x), without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_the_losses_differences() {
        for (loss, label_smoothing) in
            [(PreferenceLoss::Sigmoid, 0.0), (PreferenceLoss::Sigmoid, 0.2), (PreferenceLoss::Hinge, 0.0), (PreferenceLoss::Ipo, 0.0)]
        {
            let settings = PreferenceSettings { loss, beta: 0.3, label_smoothing, average: false };
            settings.check().unwrap();
            for h in [-900.0, -3.0, 0.0, 0.7, 3.0, 8.0, 900.0] {
                let at = |h: f64| settings.loss_and_slope(h).0;
                let expected = (at(h + 1e-4) - at(h - 1e-4)) / 2e-4;
                let (value, slope) = settings.loss_and_slope(h);
                assert!(value.is_finite() && (slope - expected).abs() < 1e-5 * expected.abs().max(1.0), "{loss:?} {h}: {slope} {expected}");
            }
        }
        let hinge = PreferenceSettings { loss: PreferenceLoss::Hinge, beta: 0.1, label_smoothing: 0.0, average: false };
        assert_eq!(hinge.loss_and_slope(10.0), (0.0, 0.0));
        assert_eq!(hinge.loss_and_slope(9.0).1, -0.1);
    }

    #[test]
    fn constants_are_checked() {
        let settings = |loss, beta, label_smoothing| PreferenceSettings { loss, beta, label_smoothing, average: false }.check();
        assert!(settings(PreferenceLoss::Ipo, 0.0, 0.0).unwrap_err().to_string().contains("objective.beta"));
        assert!(settings(PreferenceLoss::Sigmoid, 0.1, 0.5).unwrap_err().to_string().contains("label_smoothing"));
        assert!(settings(PreferenceLoss::Hinge, 0.1, 0.1).unwrap_err().to_string().contains("sigmoid"));
    }
}
