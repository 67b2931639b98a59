//! Which documents become examples before a question: the harness's sampler.
//!
//! What must stay true: one generator, `Random(1234)`, serves all documents of a task in their order, as in the harness.

use openelm_data::PythonRandom;

use crate::task_file::SamplerKind;

/// The harness's seed.
const SEED: u64 = 1234;

/// Chooses examples.
pub(crate) struct Sampler {
    kind: SamplerKind,
    random: PythonRandom,
}

impl Sampler {
    pub fn new(kind: SamplerKind) -> Self {
        Self { kind, random: PythonRandom::new(SEED) }
    }

    /// `count` numbers below `population`; `None` when there are not as many.
    pub fn pick(&mut self, population: usize, count: usize) -> Option<Vec<usize>> {
        if count > population {
            return None;
        }
        Some(match self.kind {
            SamplerKind::FirstN => (0..count).collect(),
            SamplerKind::Default => sample(&mut self.random, population, count),
        })
    }
}

/// CPython's `random.sample(range(population), count)`; `count` is at most `population`.
fn sample(random: &mut PythonRandom, population: usize, count: usize) -> Vec<usize> {
    let mut set_size = 21.0;
    if count > 5 {
        set_size += 4_f64.powf((count as f64 * 3.0).log(4.0).ceil());
    }
    let mut below = |bound: usize| random.randbelow(bound as u64) as usize;
    if population as f64 <= set_size {
        let mut pool: Vec<usize> = (0..population).collect();
        return (0..count)
            .map(|taken| {
                let place = below(population - taken);
                let last = population - taken - 1;
                let picked = pool[place];
                pool[place] = pool[last];
                picked
            })
            .collect();
    }
    let mut picked = Vec::with_capacity(count);
    for _ in 0..count {
        let mut next = below(population);
        while picked.contains(&next) {
            next = below(population);
        }
        picked.push(next);
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every expected value was printed by CPython: Random(1234).sample(range(n), k), several calls in a row.
    #[test]
    fn samples_are_pythons() {
        for (population, count, rows) in PYTHON {
            let mut sampler = Sampler::new(SamplerKind::Default);
            for row in *rows {
                assert_eq!(sampler.pick(*population, *count).unwrap(), *row, "{population} {count}");
            }
        }
        assert_eq!(Sampler::new(SamplerKind::Default).pick(3, 4), None);
        assert_eq!(Sampler::new(SamplerKind::FirstN).pick(9, 3).unwrap(), [0, 1, 2]);
    }

    const PYTHON: &[(usize, usize, &[&[usize]])] = &[
        (10, 3, &[&[7, 1, 0], &[1, 0, 9]]),
        (21, 5, &[&[14, 3, 0, 2, 1], &[2, 3, 11, 7, 0]]),
        (200, 5, &[&[199, 112, 29, 1, 23], &[149, 8, 171, 177, 21]]),
        (200, 10, &[&[199, 112, 29, 1, 23, 149, 8, 171, 177, 21], &[25, 196, 90, 60, 4, 7, 88, 165, 159, 123]]),
        (84, 6, &[&[56, 14, 0, 11, 74, 4], &[10, 12, 45, 30, 2, 3]]),
        (86, 6, &[&[56, 14, 0, 11, 74, 4], &[85, 10, 12, 45, 30, 2]]),
        (
            1000,
            26,
            &[
                &[989, 796, 451, 119, 7, 92, 932, 965, 961, 826, 596, 35, 687, 709, 85, 100, 784, 363, 242, 17, 31, 807, 16, 354, 663, 638],
                &[
                    495, 630, 474, 152, 93, 187, 730, 117, 865, 14, 515, 498, 901, 988, 255, 66, 683, 554, 934, 477, 70, 615, 691, 91, 527,
                    592,
                ],
            ],
        ),
    ];
}
