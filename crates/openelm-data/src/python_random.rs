//! Python's `random.Random` with an integer seed: the Mersenne Twister MT19937 and the methods that CoreNet calls.
//!
//! The stream of values equals CPython's bit for bit (CPython 3.2 to 3.13); `corenet_files.rs` depends on it.

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// `random.Random(seed)`.
#[derive(Clone, Debug)]
pub struct PythonRandom {
    words: Vec<u32>,
    next: usize,
}

impl PythonRandom {
    /// Seeds as `random.Random(seed)` does for a non-negative integer: MT19937's `init_by_array` with the integer's 32-bit
    /// digits, lowest first.
    pub fn new(seed: u64) -> Self {
        let digits = [seed as u32, (seed >> 32) as u32];
        let key = if digits[1] == 0 { &digits[..1] } else { &digits[..] };
        let mut words = vec![0u32; WORDS];
        words[0] = 19_650_218;
        for i in 1..WORDS {
            words[i] = mixed(words[i - 1], 1_812_433_253).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..WORDS.max(key.len()) {
            words[i] = (words[i] ^ mixed(words[i - 1], 1_664_525)).wrapping_add(key[j]).wrapping_add(j as u32);
            i = following(&mut words, i);
            j = (j + 1) % key.len();
        }
        for _ in 0..WORDS - 1 {
            words[i] = (words[i] ^ mixed(words[i - 1], 1_566_083_941)).wrapping_sub(i as u32);
            i = following(&mut words, i);
        }
        words[0] = 0x8000_0000;
        Self { words, next: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            for i in 0..WORDS {
                let y = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % WORDS] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.words[i] = self.words[(i + SHIFT) % WORDS] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.words[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `getrandbits(bits)`, for 0 to 64 bits.
    pub fn getrandbits(&mut self, bits: u32) -> u64 {
        match bits.min(64) {
            0 => 0,
            bits @ 1..=32 => u64::from(self.word() >> (32 - bits)),
            bits => {
                // CPython fills 32-bit digits from the lowest up and cuts the last one.
                let low = u64::from(self.word());
                let high = u64::from(self.word() >> (64 - bits));
                low | (high << 32)
            }
        }
    }

    /// `_randbelow(bound)`: below `bound`, or 0 when `bound` is 0.
    pub fn randbelow(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let bits = 64 - bound.leading_zeros();
        loop {
            let value = self.getrandbits(bits);
            if value < bound {
                return value;
            }
        }
    }

    /// `random()`: 53 random bits in [0, 1).
    pub fn random(&mut self) -> f64 {
        let high = f64::from(self.word() >> 5);
        let low = f64::from(self.word() >> 6);
        (high * 67_108_864.0 + low) * (1.0 / 9_007_199_254_740_992.0)
    }

    /// `shuffle(items)`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.randbelow(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }

    /// `choices(items, k=k)`: sampling with replacement. Empty when there is nothing to choose from.
    pub fn choices<T: Clone>(&mut self, items: &[T], k: usize) -> Vec<T> {
        if items.is_empty() {
            return Vec::new();
        }
        let count = items.len() as f64;
        (0..k).map(|_| items[(self.random() * count).floor() as usize].clone()).collect()
    }
}

fn mixed(word: u32, factor: u32) -> u32 {
    (word ^ (word >> 30)).wrapping_mul(factor)
}

/// The next index of the seeding loops, which wraps to 1 and copies the last word to the first.
fn following(words: &mut [u32], i: usize) -> usize {
    if i + 1 < WORDS {
        return i + 1;
    }
    words[0] = words[WORDS - 1];
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every expected value was printed by CPython 3.11.

    #[test]
    fn raw_values() {
        let mut random = PythonRandom::new(0);
        let words: Vec<u64> = (0..4).map(|_| random.getrandbits(32)).collect();
        assert_eq!(words, [3626764237, 1654615998, 3255389356, 3823568514]);
        assert_eq!(random.random(), 0.420571580830845);
        assert_eq!(random.random(), 0.25891675029296335);
    }

    #[test]
    fn shuffle_choices_and_bits_for_several_seeds() {
        type Row = (u64, [usize; 20], [usize; 5], u64, u64);
        let rows: [Row; 5] = [
            (0, [10, 18, 16, 14, 0, 17, 11, 2, 3, 9, 5, 7, 4, 19, 6, 15, 8, 1, 13, 12], [31, 72, 89, 68, 47], 386979565044, 455262),
            (1, [11, 5, 17, 19, 9, 0, 16, 1, 15, 6, 10, 13, 14, 12, 7, 3, 8, 2, 18, 4], [69, 26, 80, 59, 10], 31428120979, 23406),
            (42, [19, 5, 14, 4, 9, 13, 15, 18, 6, 12, 17, 10, 1, 11, 2, 16, 7, 8, 0, 3], [56, 71, 70, 41, 44], 890253050256, 911527),
            (
                (1 << 32) + 5,
                [16, 13, 8, 4, 1, 6, 18, 17, 3, 19, 7, 14, 12, 2, 10, 11, 0, 9, 15, 5],
                [81, 62, 76, 82, 42],
                21158948515,
                960673,
            ),
            (
                (1 << 63) + 12345,
                [14, 2, 11, 7, 1, 13, 18, 16, 17, 8, 10, 5, 0, 15, 3, 19, 4, 6, 12, 9],
                [82, 36, 19, 83, 39],
                862783527109,
                117515,
            ),
        ];
        for (seed, shuffled, chosen, bits, below) in rows {
            let mut random = PythonRandom::new(seed);
            let mut items: Vec<usize> = (0..20).collect();
            random.shuffle(&mut items);
            assert_eq!(items, shuffled, "seed {seed}");
            let hundred: Vec<usize> = (0..100).collect();
            assert_eq!(random.choices(&hundred, 5), chosen, "seed {seed}");
            assert_eq!(random.getrandbits(40), bits, "seed {seed}");
            assert_eq!(random.randbelow(1_000_003), below, "seed {seed}");
        }
    }

    #[test]
    fn long_streams() {
        let mut random = PythonRandom::new(0);
        let mut items: Vec<usize> = (0..1000).collect();
        for _ in 0..3 {
            random.shuffle(&mut items);
        }
        assert_eq!(items[..8], [92, 845, 48, 488, 500, 372, 465, 872]);
        assert_eq!(random.random(), 0.9382972940439452);
    }
}
