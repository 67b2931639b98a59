//! From logits to a token.
//!
//! The order of the steps is Hugging Face's: repetition penalty, what a constraint forbids, temperature, top-k, top-p, min-p, then a draw.
//! What must stay true: temperature 0 is greedy and looks at no random number; the same seed and the same logits give the same tokens.

use std::collections::HashSet;

use crate::constraint::Constraint;
use crate::error::InferError;

/// The usual knobs. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingSettings {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Likeliest tokens that stay; 0: all.
    pub top_k: usize,
    /// The smallest set of likeliest tokens whose probabilities reach this stays; 1: all.
    pub top_p: f32,
    /// Tokens below this share of the likeliest one's probability go; 0: none.
    pub min_p: f32,
    /// Logits of tokens seen before are divided by this where positive, multiplied where negative; 1: left alone.
    pub repetition_penalty: f32,
    pub seed: u64,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Draws tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: SamplingSettings,
    state: u64,
    constraint: Option<Constraint>,
}

impl Sampler {
    /// A sampler at the beginning of its seed.
    ///
    /// # Errors
    /// When a setting makes no distribution.
    pub fn new(settings: SamplingSettings) -> Result<Self, InferError> {
        let SamplingSettings { temperature, top_p, min_p, repetition_penalty, .. } = settings;
        let checks = [
            (
                "temperature",
                temperature,
                temperature >= 0.0,
                "must be a finite number of at least 0",
                "0 is greedy, 1 the model's own distribution",
            ),
            ("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "must be above 0 and at most 1", "1 keeps every token"),
            ("min_p", min_p, (0.0..1.0).contains(&min_p), "must be at least 0 and below 1", "0 keeps every token"),
            ("repetition_penalty", repetition_penalty, repetition_penalty > 0.0, "must be a finite number above 0", "1 changes nothing"),
        ];
        for (name, value, holds, reason, hint) in checks {
            if !(holds && value.is_finite()) {
                return Err(InferError::Sampling { name, value: f64::from(value), reason, hint });
            }
        }
        Ok(Self { settings, state: settings.seed, constraint: None })
    }

    /// Draws one answer, whose tokens must be those of the constraint.
    pub fn constrained(self, constraint: Option<Constraint>) -> Self {
        Self { constraint, ..self }
    }

    /// Whether the answer has the form that it must have, and nothing may follow.
    pub fn is_whole(&self) -> bool {
        self.constraint.as_ref().is_some_and(Constraint::is_whole)
    }

    /// The next token after `seen`, from `logits` (finite; changed on the way).
    ///
    /// # Errors
    /// Under a constraint alone: when no token can follow.
    pub fn pick(&mut self, logits: &mut [f32], seen: &[u32]) -> Result<u32, InferError> {
        self.penalise(logits, seen);
        if let Some(constraint) = &mut self.constraint {
            constraint.restrict(logits)?;
        }
        let id = self.draw(logits);
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(id)?;
        }
        Ok(id)
    }

    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        let settings = self.settings;
        if settings.repetition_penalty != 1.0 {
            for id in seen.iter().copied().collect::<HashSet<_>>() {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = if *logit > 0.0 { *logit / settings.repetition_penalty } else { *logit * settings.repetition_penalty };
                }
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let settings = self.settings;
        if settings.temperature == 0.0 {
            return likeliest(logits);
        }
        let mut order = Descending::new(logits);
        if (1..order.len()).contains(&settings.top_k) {
            order.keep(settings.top_k);
        }
        let largest = order.get(0).map_or(0.0, |id| logits[id as usize]);
        let weight = |id: u32| f64::from((logits[id as usize] - largest) / settings.temperature).exp();
        let total: f64 = order.all().map(weight).sum();
        // The likeliest tokens that stay, and what they weigh together. Without a filter that is all of them.
        let (mut kept, mut mass) = (order.len(), total);
        if settings.top_p < 1.0 || settings.min_p > 0.0 {
            (kept, mass) = (0, 0.0);
            while let Some(id) = order.get(kept) {
                let own = weight(id);
                let stays = mass < f64::from(settings.top_p) * total && own >= f64::from(settings.min_p);
                if !stays && kept > 0 {
                    break;
                }
                kept += 1;
                mass += own;
            }
        }
        let mut left = self.uniform() * mass;
        let mut drawn = 0;
        for place in 0..kept {
            // Forbidden tokens stand last; rounding must not lead to one of them.
            let Some(id) = order.get(place).filter(|id| weight(*id) > 0.0) else { break };
            drawn = id;
            left -= weight(id);
            if left < 0.0 {
                break;
            }
        }
        drawn
    }

    /// Uniform in [0, 1): SplitMix64 (Steele, Lea and Flood, 2014).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Tokens from the likeliest on, the smaller id first where logits are equal; put in order only as far as they are looked at.
struct Descending<'a> {
    logits: &'a [f32],
    ids: Vec<u32>,
    /// So many are in their places.
    sorted: usize,
}

impl<'a> Descending<'a> {
    fn new(logits: &'a [f32]) -> Self {
        Self { logits, ids: (0..logits.len() as u32).collect(), sorted: 0 }
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    /// Those left, in no order.
    fn all(&self) -> impl Iterator<Item = u32> + '_ {
        self.ids.iter().copied()
    }

    /// Leaves the likeliest `count`.
    fn keep(&mut self, count: usize) {
        self.sort(count);
        self.ids.truncate(count);
    }

    /// The `place`-th likeliest.
    fn get(&mut self, place: usize) -> Option<u32> {
        if place >= self.sorted {
            self.sort((place + 1).max(2 * self.sorted).max(64));
        }
        self.ids.get(place).copied()
    }

    /// Puts the likeliest `count` in their places.
    fn sort(&mut self, count: usize) {
        let logits = self.logits;
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let count = count.min(self.ids.len());
        let rest = &mut self.ids[self.sorted.min(count)..];
        let new = count.saturating_sub(self.sorted);
        if (1..rest.len()).contains(&new) {
            rest.select_nth_unstable_by(new - 1, by_logit);
        }
        rest[..new].sort_unstable_by(by_logit);
        self.sorted = self.sorted.max(count);
    }
}

/// The first of the largest logits.
pub(crate) fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(settings: SamplingSettings, logits: &[f32], draws: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(settings).unwrap();
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..draws {
            counts[sampler.pick(&mut logits.to_vec(), &[]).unwrap() as usize] += 1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.0, 2.0, -1.0, 1.0];
        let settings = SamplingSettings { temperature: 0.5, seed: 9, ..Default::default() };
        let total: f64 = logits.iter().map(|l| f64::from(*l * 2.0).exp()).sum();
        for (found, logit) in counts(settings, &logits, 40_000).iter().zip(logits) {
            assert!((found - f64::from(logit * 2.0).exp() / total).abs() < 0.01, "{found} {logit}");
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits = [0.0, 2.0, -1.0, 1.0];
        let base = SamplingSettings { temperature: 1.0, ..Default::default() };
        let kept = |settings| counts(settings, &logits, 4_000).iter().map(|share| *share > 0.0).collect::<Vec<_>>();
        assert_eq!(kept(SamplingSettings { top_k: 2, ..base }), [false, true, false, true]);
        // Probabilities are about 0.64, 0.24, 0.09 and 0.03.
        assert_eq!(kept(SamplingSettings { top_p: 0.6, ..base }), [false, true, false, false]);
        assert_eq!(kept(SamplingSettings { top_p: 0.9, ..base }), [true, true, false, true]);
        assert_eq!(kept(SamplingSettings { min_p: 0.2, ..base }), [false, true, false, true]);
        assert_eq!(kept(base), [true; 4]);
    }

    #[test]
    fn the_order_is_that_of_a_whole_sort() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919 % 613) as f32).sin()).collect();
        let mut whole: Vec<u32> = (0..1000).collect();
        whole.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        let mut order = Descending::new(&logits);
        for place in [0, 5, 63, 64, 500, 130, 999] {
            assert_eq!(order.get(place), Some(whole[place]), "{place}");
        }
        assert_eq!(order.get(1000), None);
        let mut few = Descending::new(&logits);
        few.keep(70);
        assert_eq!((0..71).map_while(|place| few.get(place)).collect::<Vec<_>>(), whole[..70]);
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_penalty_moves_it() {
        let mut greedy = Sampler::new(SamplingSettings::default()).unwrap();
        assert_eq!(greedy.pick(&mut [1.0, 3.0, 3.0], &[]).unwrap(), 1);
        let mut penalised = Sampler::new(SamplingSettings { repetition_penalty: 1.5, ..Default::default() }).unwrap();
        assert_eq!(penalised.pick(&mut [1.0, 3.0, 2.9], &[1, 1]).unwrap(), 2);
        assert_eq!(penalised.pick(&mut [-2.0, -2.1], &[0]).unwrap(), 1);
    }

    #[test]
    fn settings_that_make_no_distribution_are_refused() {
        let refused = |settings| Sampler::new(settings).unwrap_err().to_string();
        assert!(refused(SamplingSettings { temperature: -1.0, ..Default::default() }).contains("temperature is -1"));
        assert!(refused(SamplingSettings { top_p: 0.0, ..Default::default() }).contains("top_p"));
        assert!(refused(SamplingSettings { min_p: 1.0, ..Default::default() }).contains("min_p"));
        assert!(refused(SamplingSettings { repetition_penalty: f32::NAN, ..Default::default() }).contains("repetition_penalty"));
    }
}
