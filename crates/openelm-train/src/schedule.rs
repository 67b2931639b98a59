//! The learning rate as a pure function of the step: linear warm-up, then half a cosine (CoreNet
//! `optims/scheduler/cosine.py` with `is_iteration_based: true`).
//!
//! What must stay true: no state, so that a resumed run has the same rates; rounded as far as the schedule says: CoreNet rounds to eight
//! decimals, which is coarse for the small rates of fine-tuning.

use serde::{Deserialize, Serialize};

/// Warm-up and cosine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Rate of step 0.
    pub warmup_init_lr: f64,
    /// Steps before the peak.
    pub warmup_steps: u64,
    /// The peak.
    pub max_lr: f64,
    /// The end of the cosine.
    pub min_lr: f64,
    /// CoreNet's `max_iterations`: the cosine ends one step after it.
    pub max_iterations: u64,
    /// Decimals that rates are rounded to; `None`: not at all.
    pub decimals: Option<usize>,
}

impl Schedule {
    /// The learning rate of update number `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let rate = if step < self.warmup_steps {
            let slope = (self.max_lr - self.warmup_init_lr) / self.warmup_steps as f64;
            self.warmup_init_lr + step as f64 * slope
        } else {
            let length = (self.max_iterations + 1).saturating_sub(self.warmup_steps).max(1);
            // Past the end the cosine would rise again; a run that is longer than its schedule stays at the minimum.
            let done = (step - self.warmup_steps).min(length);
            let angle = std::f64::consts::PI * done as f64 / length as f64;
            self.min_lr + 0.5 * (self.max_lr - self.min_lr) * (1.0 + angle.cos())
        };
        self.decimals.map_or(rate.max(0.0), |decimals| round(rate.max(0.0), decimals))
    }
}

/// CoreNet's rounding.
pub const CORENET_DECIMALS: usize = 8;

/// Python's `round(value, decimals)`: the decimal nearest to the exact binary value, which Rust's formatting gives as well.
fn round(value: f64, decimals: usize) -> f64 {
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_beyond() {
        let schedule =
            Schedule { warmup_init_lr: 1e-6, warmup_steps: 10, max_lr: 1e-2, min_lr: 1e-3, max_iterations: 99, decimals: Some(8) };
        assert_eq!(schedule.rate(0), 1e-6);
        assert_eq!(schedule.rate(10), 1e-2);
        assert_eq!(schedule.rate(100), 1e-3);
        assert_eq!(schedule.rate(1000), 1e-3);
        let rates: Vec<f64> = (0..=100).map(|step| schedule.rate(step)).collect();
        assert!(rates[..11].is_sorted() && rates[10..].is_sorted_by(|a, b| a >= b));
    }

    /// transformers' `get_cosine_schedule_with_warmup` over 100 updates of which 10 are warm-up.
    #[test]
    fn transformers_cosine_without_rounding() {
        let schedule = Schedule { warmup_init_lr: 0.0, warmup_steps: 10, max_lr: 2e-5, min_lr: 0.0, max_iterations: 99, decimals: None };
        for step in 0..100 {
            let expected = if step < 10 {
                2e-5 * step as f64 / 10.0
            } else {
                2e-5 * 0.5 * (1.0 + (std::f64::consts::PI * (step - 10) as f64 / 90.0).cos())
            };
            assert!((schedule.rate(step) - expected).abs() < 1e-18, "{step}");
        }
    }

    #[test]
    fn a_schedule_of_warm_up_alone_stays_finite() {
        let schedule = Schedule { warmup_init_lr: 0.0, warmup_steps: 5, max_lr: 1.0, min_lr: 0.1, max_iterations: 4, decimals: Some(8) };
        assert_eq!(schedule.rate(5), 1.0);
        assert_eq!(schedule.rate(6), 0.1);
    }
}
