//! The order of examples: a permutation of its own for each pass, from (seed, pass) alone.
//!
//! What must stay true: a position (examples taken so far) is the whole state; the values must never change, because resumed runs
//! depend on them.

use openelm_train::SplitMix64;

/// Endless passes over `count` examples.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    seed: u64,
    count: usize,
    /// The pass that is held, and its permutation.
    pass: Option<(u64, Vec<usize>)>,
}

impl Order {
    /// `count` must not be 0.
    pub fn new(seed: u64, count: usize) -> Self {
        Self { seed, count, pass: None }
    }

    /// The `length` examples from `position` on.
    pub fn take(&mut self, position: u64, length: usize) -> Vec<usize> {
        (position..position + length as u64).map(|at| self.at(at)).collect()
    }

    fn at(&mut self, position: u64) -> usize {
        let count = self.count.max(1) as u64;
        let (pass, place) = (position / count, (position % count) as usize);
        let held = match self.pass.take() {
            Some((number, order)) if number == pass => order,
            _ => permutation(self.seed, pass, self.count),
        };
        let index = held.get(place).copied().unwrap_or_default();
        self.pass = Some((pass, held));
        index
    }
}

fn permutation(seed: u64, pass: u64, count: usize) -> Vec<usize> {
    let mut random = SplitMix64(seed);
    random.0 = random.next_bits() ^ pass.wrapping_mul(0xd134_2543_de82_ef95);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // The bias of the remainder is below 2^-32 for any number of examples that fits a memory.
        let other = (random.next_bits() % (last as u64 + 1)) as usize;
        order.swap(last, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_whole_and_can_be_entered_anywhere() {
        let mut order = Order::new(7, 10);
        let all = order.take(0, 30);
        for pass in all.chunks(10) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(all[..10], all[10..20]);
        for position in [0, 3, 9, 10, 17] {
            assert_eq!(Order::new(7, 10).take(position as u64, 8), all[position..position + 8]);
        }
        assert_ne!(Order::new(8, 10).take(0, 10), all[..10]);
    }

    #[test]
    fn the_first_value_is_splitmixs() {
        assert_eq!(SplitMix64(0).next_bits(), 0xe220_a839_7b1d_cdaf);
    }
}
