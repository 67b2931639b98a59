//! Random choices of the mixed order: a small generator made afresh from (seed, what it is for).
//!
//! Nothing of it is ever saved: a choice depends on the names of its place alone (lane, corpus, epoch, block), so that any
//! place can be entered without passing through the ones before. The values must never change: they are part of the order.

/// What a generator is for; the numbers are part of the order.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    DealShards = 1,
    ShardOrder = 2,
    BlockOrder = 3,
    FirstCorpora = 4,
}

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 random bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The generator of one place.
pub(crate) struct Seeded(SplitMix64);

impl Seeded {
    /// The generator of one place.
    pub fn new(seed: u64, purpose: Purpose, place: &[u64]) -> Self {
        let mut generator = Self(SplitMix64(seed));
        generator.absorb(purpose as u64);
        for number in place {
            generator.absorb(*number);
        }
        generator
    }

    fn absorb(&mut self, number: u64) {
        self.0.0 = self.next() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn next(&mut self) -> u64 {
        self.0.next_bits()
    }

    /// Evenly below `bound`, which must not be 0.
    fn below(&mut self, bound: u64) -> u64 {
        // Values at the top that would make the low remainders likelier are drawn again.
        let limit = u64::MAX - u64::MAX % bound;
        loop {
            let value = self.next();
            if value < limit {
                return value % bound;
            }
        }
    }

    /// In [0, 1), with 53 bits.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The numbers below `count` in random order.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            let j = self.below(i as u64 + 1) as usize;
            order.swap(i, j);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_change() {
        // The first value of SplitMix64 at state 0 is well known; the permutation pins this crate's own use of it.
        assert_eq!(SplitMix64(0).next_bits(), 0xe220_a839_7b1d_cdaf);
        let order = Seeded::new(7, Purpose::ShardOrder, &[1, 2, 3]).permutation(8);
        let again = Seeded::new(7, Purpose::ShardOrder, &[1, 2, 3]).permutation(8);
        let other = Seeded::new(7, Purpose::ShardOrder, &[1, 2, 4]).permutation(8);
        assert_eq!(order, again);
        assert_ne!(order, other);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn permutations_are_even() {
        let mut counts = [[0u32; 4]; 4];
        for place in 0..4000 {
            for (at, item) in Seeded::new(0, Purpose::BlockOrder, &[place]).permutation(4).into_iter().enumerate() {
                counts[at][item] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
