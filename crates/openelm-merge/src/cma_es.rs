//! CMA-ES (Hansen, The CMA evolution strategy: a tutorial, 2016): a search by samples from a normal distribution that learns its
//! shape. Minimises; the defaults are the tutorial's, without negative weights.
//!
//! What must stay true: with the same seed and the same values it asks for the same points, so a search is taken up again by telling
//! it the values of its past.

use crate::random::Random;

/// The state of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct CmaEs {
    seed: u64,
    generation: u64,
    population: usize,
    mean: Vec<f64>,
    sigma: f64,
    /// Row by row.
    covariance: Vec<Vec<f64>>,
    path_sigma: Vec<f64>,
    path_covariance: Vec<f64>,
}

/// What follows from the number of dimensions and of samples.
struct Rates {
    weights: Vec<f64>,
    mu_eff: f64,
    c_sigma: f64,
    d_sigma: f64,
    c_c: f64,
    c_1: f64,
    c_mu: f64,
    /// Expected length of a normal vector.
    chi: f64,
}

impl CmaEs {
    /// A search that begins at `mean` with steps of about `sigma`. `population` samples a generation; 0: 4 + 3 ln(dimensions).
    pub fn new(mean: Vec<f64>, sigma: f64, population: usize, seed: u64) -> Self {
        let n = mean.len();
        let population = if population == 0 { 4 + (3.0 * (n.max(1) as f64).ln()) as usize } else { population.max(2) };
        let unit = |row: usize| (0..n).map(|column| f64::from(u8::from(row == column))).collect();
        let (covariance, zero) = ((0..n).map(unit).collect(), vec![0.0; n]);
        Self { seed, generation: 0, population, mean, sigma, covariance, path_sigma: zero.clone(), path_covariance: zero }
    }

    /// Generations that were told.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Samples of a generation.
    pub fn population(&self) -> usize {
        self.population
    }

    /// Where the search stands.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The length of a typical step.
    pub fn sigma(&self) -> f64 {
        self.sigma
    }

    /// The points of this generation, the same each time until [`tell`](Self::tell).
    pub fn ask(&self) -> Vec<Vec<f64>> {
        let (vectors, scales) = self.axes();
        let sample = |number: usize| {
            let mut random = Random::new(self.seed, "cma-es", self.generation.wrapping_mul(1 << 20) + number as u64);
            let z: Vec<f64> = scales.iter().map(|scale| scale * random.normal()).collect();
            let step = |row: &Vec<f64>| row.iter().zip(&z).map(|(a, b)| a * b).sum::<f64>();
            self.mean.iter().zip(&vectors).map(|(mean, row)| mean + self.sigma * step(row)).collect()
        };
        (0..self.population).map(sample).collect()
    }

    /// Takes the values of the points that [`ask`](Self::ask) gave, and moves on. What is no number counts as the worst.
    pub fn tell(&mut self, points: &[Vec<f64>], values: &[f64]) {
        let n = self.mean.len();
        let rates = Rates::of(n, self.population);
        let mut order: Vec<usize> = (0..points.len().min(values.len())).collect();
        let rank = |place: usize| if values[place].is_nan() { f64::INFINITY } else { values[place] };
        order.sort_by(|a, b| rank(*a).total_cmp(&rank(*b)));
        let chosen: Vec<Vec<f64>> = order
            .iter()
            .take(rates.weights.len())
            .map(|place| points[*place].iter().zip(&self.mean).map(|(x, mean)| (x - mean) / self.sigma).collect())
            .collect();
        let mut step = vec![0.0; n];
        for (weight, y) in rates.weights.iter().zip(&chosen) {
            step.iter_mut().zip(y).for_each(|(step, y)| *step += weight * y);
        }
        let (vectors, scales) = self.axes();
        // C^(-1/2) · step: along each axis divided by its scale.
        let mut whitened = vec![0.0; n];
        for axis in 0..n {
            let along: f64 = (0..n).map(|row| vectors[row][axis] * step[row]).sum::<f64>() / scales[axis];
            (0..n).for_each(|row| whitened[row] += vectors[row][axis] * along);
        }
        self.generation += 1;
        let Rates { mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu, chi, .. } = rates;
        let gain = (c_sigma * (2.0 - c_sigma) * mu_eff).sqrt();
        self.path_sigma.iter_mut().zip(&whitened).for_each(|(path, w)| *path = (1.0 - c_sigma) * *path + gain * w);
        let length = self.path_sigma.iter().map(|path| path * path).sum::<f64>().sqrt();
        let young = (1.0 - (1.0 - c_sigma).powi(2 * self.generation.min(1 << 20) as i32)).sqrt();
        let hold = if length / young < (1.4 + 2.0 / (n as f64 + 1.0)) * chi { 1.0 } else { 0.0 };
        let gain = hold * (c_c * (2.0 - c_c) * mu_eff).sqrt();
        self.path_covariance.iter_mut().zip(&step).for_each(|(path, step)| *path = (1.0 - c_c) * *path + gain * step);
        let lost = (1.0 - hold) * c_c * (2.0 - c_c);
        for row in 0..n {
            for column in 0..n {
                let rank_one = self.path_covariance[row] * self.path_covariance[column];
                let rank_mu: f64 = rates.weights.iter().zip(&chosen).map(|(weight, y)| weight * y[row] * y[column]).sum();
                let old = self.covariance[row][column];
                self.covariance[row][column] = (1.0 - c_1 - c_mu) * old + c_1 * (rank_one + lost * old) + c_mu * rank_mu;
            }
        }
        self.mean.iter_mut().zip(&step).for_each(|(mean, step)| *mean += self.sigma * step);
        self.sigma *= ((c_sigma / d_sigma) * (length / chi - 1.0)).min(1.0).exp();
    }

    /// Eigenvectors of the covariance, as columns, and the square roots of its eigenvalues: Jacobi's rotations.
    fn axes(&self) -> (Vec<Vec<f64>>, Vec<f64>) {
        let n = self.mean.len();
        let mut matrix = self.covariance.clone();
        let mut vectors: Vec<Vec<f64>> = (0..n).map(|row| (0..n).map(|column| f64::from(u8::from(row == column))).collect()).collect();
        for _ in 0..60 {
            let off: f64 = (0..n).map(|row| (0..row).map(|column| matrix[row][column].powi(2)).sum::<f64>()).sum();
            let all: f64 = (0..n).map(|row| matrix[row][row].powi(2)).sum();
            if off <= 1e-26 * all {
                break;
            }
            for p in 0..n {
                for q in p + 1..n {
                    if matrix[p][q] == 0.0 {
                        continue;
                    }
                    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
                    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                    let t = if theta == 0.0 { 1.0 } else { t };
                    let cos = 1.0 / (t * t + 1.0).sqrt();
                    let sin = t * cos;
                    for row in matrix.iter_mut().chain(&mut vectors) {
                        let (a, b) = (row[p], row[q]);
                        (row[p], row[q]) = (cos * a - sin * b, sin * a + cos * b);
                    }
                    let (above, below) = matrix.split_at_mut(q);
                    for (first, second) in above[p].iter_mut().zip(&mut below[0]) {
                        let (a, b) = (*first, *second);
                        (*first, *second) = (cos * a - sin * b, sin * a + cos * b);
                    }
                }
            }
        }
        let scales = (0..n).map(|axis| matrix[axis][axis].max(1e-20).sqrt()).collect();
        (vectors, scales)
    }
}

impl Rates {
    fn of(n: usize, population: usize) -> Self {
        let (n, lambda) = (n.max(1) as f64, population as f64);
        let raw: Vec<f64> = (1..=population / 2).map(|rank| ((lambda + 1.0) / 2.0).ln() - (rank as f64).ln()).collect();
        let sum: f64 = raw.iter().sum();
        let weights: Vec<f64> = raw.iter().map(|weight| weight / sum).collect();
        let mu_eff = 1.0 / weights.iter().map(|weight| weight * weight).sum::<f64>();
        let c_sigma = (mu_eff + 2.0) / (n + mu_eff + 5.0);
        let c_1 = 2.0 / ((n + 1.3).powi(2) + mu_eff);
        Self {
            mu_eff,
            c_sigma,
            d_sigma: 1.0 + 2.0 * (((mu_eff - 1.0) / (n + 1.0)).sqrt() - 1.0).max(0.0) + c_sigma,
            c_c: (4.0 + mu_eff / n) / (n + 4.0 + 2.0 * mu_eff / n),
            c_1,
            c_mu: (1.0 - c_1).min(2.0 * (mu_eff - 2.0 + 1.0 / mu_eff) / ((n + 2.0).powi(2) + mu_eff)),
            chi: n.sqrt() * (1.0 - 1.0 / (4.0 * n) + 1.0 / (21.0 * n * n)),
            weights,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The best value after so many generations.
    fn search(mut search: CmaEs, generations: usize, value: impl Fn(&[f64]) -> f64) -> f64 {
        let mut best = f64::INFINITY;
        for _ in 0..generations {
            let points = search.ask();
            let values: Vec<f64> = points.iter().map(|point| value(point)).collect();
            best = values.iter().copied().fold(best, f64::min);
            search.tell(&points, &values);
        }
        best
    }

    fn sphere(x: &[f64]) -> f64 {
        x.iter().map(|x| x * x).sum()
    }

    fn rosenbrock(x: &[f64]) -> f64 {
        x.windows(2).map(|pair| 100.0 * (pair[1] - pair[0] * pair[0]).powi(2) + (1.0 - pair[0]).powi(2)).sum()
    }

    fn rastrigin(x: &[f64]) -> f64 {
        x.iter().map(|x| x * x - 10.0 * (std::f64::consts::TAU * x).cos() + 10.0).sum()
    }

    #[test]
    fn finds_the_minimum_of_the_sphere() {
        let best = search(CmaEs::new(vec![3.0; 10], 1.0, 0, 1), 200, sphere);
        assert!(best < 1e-10, "{best}");
    }

    #[test]
    fn follows_the_valley_of_rosenbrock() {
        let best = search(CmaEs::new(vec![0.0; 6], 0.5, 0, 2), 700, rosenbrock);
        assert!(best < 1e-10, "{best}");
    }

    #[test]
    fn a_large_population_finds_the_deepest_of_rastrigins_holes() {
        let best = search(CmaEs::new(vec![2.5; 5], 2.0, 150, 3), 150, rastrigin);
        assert!(best < 1e-8, "{best}");
    }

    #[test]
    fn learns_a_badly_scaled_shape() {
        let ellipse = |x: &[f64]| x.iter().enumerate().map(|(place, x)| 10_f64.powi(place as i32) * x * x).sum();
        let best = search(CmaEs::new(vec![1.0; 6], 0.5, 0, 4), 400, ellipse);
        assert!(best < 1e-10, "{best}");
    }

    #[test]
    fn a_search_told_its_past_goes_on_the_same() {
        let fresh = || CmaEs::new(vec![1.0; 4], 0.3, 0, 5);
        let mut past = Vec::new();
        let mut one = fresh();
        for _ in 0..12 {
            let points = one.ask();
            let values: Vec<f64> = points.iter().map(|point| sphere(point)).collect();
            one.tell(&points, &values);
            past.push(values);
        }
        let mut other = fresh();
        for values in past {
            other.tell(&other.ask(), &values);
        }
        assert_eq!(other, one);
        assert_eq!(other.ask(), one.ask());
        assert_ne!(CmaEs::new(vec![1.0; 4], 0.3, 0, 6).ask(), fresh().ask());
    }
}
