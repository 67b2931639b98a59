//! Random numbers by counting: value n of a stream is a fixed function of the stream's key and n (SplitMix64).
//!
//! A document's stream is keyed by its place (seed, corpus, index) alone, so a document stays the same when another corpus
//! grows or its neighbours change.

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The numbers of one place.
pub struct Stream {
    key: u64,
    count: u64,
}

impl Stream {
    /// The stream of document `index` of the source `name`.
    pub fn new(seed: u64, name: &str, index: u64) -> Self {
        let mut key = mix(seed.wrapping_add(GAMMA));
        for byte in name.bytes() {
            key = mix(key ^ u64::from(byte)).wrapping_add(GAMMA);
        }
        Self { key: mix(key ^ index.wrapping_mul(GAMMA)), count: 0 }
    }

    fn next(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        mix(self.key.wrapping_add(self.count.wrapping_mul(GAMMA)))
    }

    /// Evenly below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The few values at the top that would favour low results are drawn again, so that probabilities are exact.
        let limit = u64::MAX - u64::MAX % bound;
        loop {
            let value = self.next();
            if value < limit {
                return value % bound;
            }
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_split_mix_64_does() {
        // The published first values of SplitMix64 at state 0.
        let mut stream = Stream { key: 0, count: 0 };
        assert_eq!([stream.next(), stream.next()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn places_have_streams_of_their_own() {
        let first = |seed, name, index| Stream::new(seed, name, index).next();
        let values = [first(1, "pile", 0), first(1, "pile", 1), first(2, "pile", 0), first(1, "piles", 0), first(1, "validation", 0)];
        for (at, value) in values.iter().enumerate() {
            assert!(!values[..at].contains(value));
        }
    }
}
