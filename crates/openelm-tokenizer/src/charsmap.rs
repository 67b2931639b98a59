//! SentencePiece's compiled normalisation rules: a double-array trie of the texts to be replaced, and their replacements.
//!
//! Layout: the trie's size in bytes (u32, little-endian), the trie (u32 units, as darts-clone writes them), then the
//! replacements, each ended by a null byte. The whole trie is walked once when it is read, so a look-up never meets a place or
//! a replacement that is not there.

/// Rules from text to text.
#[derive(Clone, Debug)]
pub(crate) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

impl Charsmap {
    /// Reads the rules. The error says what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or("it is shorter than its own header")?;
        let size = u32::from_le_bytes(*size) as usize;
        if size >= rest.len() || !size.is_multiple_of(4) || size == 0 {
            return Err(format!("its trie claims {size} bytes, {} are left", rest.len()));
        }
        let (trie, replacements) = rest.split_at(size);
        let units: Vec<u32> = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements = std::str::from_utf8(replacements).map_err(|_| "its replacements are not UTF-8")?.to_owned();
        let map = Self { units, replacements };
        map.check()?;
        Ok(map)
    }

    /// Walks every key, and each unit once: keys with the same ending share its units.
    fn check(&self) -> Result<(), &'static str> {
        let mut seen = vec![false; self.units.len()];
        let mut open: Vec<usize> = self.units.first().map(|unit| offset(*unit)).into_iter().collect();
        while let Some(base) = open.pop() {
            for byte in 1..=255usize {
                let place = base ^ byte;
                let Some(unit) = self.units.get(place).copied().filter(|unit| label(*unit) == byte as u32) else { continue };
                if std::mem::replace(&mut seen[place], true) {
                    continue;
                }
                let base = place ^ offset(unit);
                if has_leaf(unit) && self.value(base).is_none() {
                    return Err("its trie points outside the replacements");
                }
                open.push(base);
            }
        }
        Ok(())
    }

    fn value(&self, base: usize) -> Option<&str> {
        let value = self.units.get(base)? & 0x7fff_ffff;
        let rest = self.replacements.get(value as usize..)?;
        rest.find('\0').and_then(|end| rest.get(..end))
    }

    /// The replacement for the longest key that `text` begins with, and the key's length.
    pub fn at_start(&self, text: &str) -> Option<(&str, usize)> {
        let mut base = offset(*self.units.first()?);
        let mut found = None;
        for (index, byte) in text.bytes().enumerate() {
            let place = base ^ usize::from(byte);
            // The null byte marks the end of a key inside the trie and occurs in none.
            let unit = self.units.get(place).copied().filter(|unit| byte != 0 && label(*unit) == u32::from(byte));
            let Some(unit) = unit else { break };
            base = place ^ offset(unit);
            if has_leaf(unit) {
                found = Some((base, index + 1));
            }
        }
        let (base, length) = found.filter(|(_, length)| text.is_char_boundary(*length))?;
        Some((self.value(base)?, length))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model_file::ModelFile;

    fn compiled() -> Vec<u8> {
        let bytes = include_bytes!("../tests/fixtures/models/bpe-symbols.model");
        ModelFile::parse(bytes, Path::new("fixture")).unwrap().normalizer.charsmap
    }

    #[test]
    fn the_longest_rule_wins() {
        let map = Charsmap::parse(&compiled()).unwrap();
        // The rules are those of scripts/sentencepiece_hashes.py.
        for (text, expected) in [
            ("\u{ff21}x", Some(("A", 3))),
            ("\u{fb01}", Some(("fi", 3))),
            ("e\u{301}e", Some(("é", 3))),
            ("\u{200b}", Some(("", 3))),
            ("\t\t", Some((" ", 1))),
        ] {
            assert_eq!(map.at_start(text), expected, "{text:?}");
        }
        for text in ["", "e", "ex", "x\t", "\0", "\u{301}", "\u{ff23}"] {
            assert_eq!(map.at_start(text), None, "{text:?}");
        }
    }

    #[test]
    fn damage_is_found_or_harmless() {
        let bytes = compiled();
        assert!(Charsmap::parse(&[]).is_err());
        assert!(Charsmap::parse(&bytes[..3]).unwrap_err().contains("shorter than its own header"));
        let lying = [&u32::MAX.to_le_bytes(), &bytes[4..]].concat();
        assert!(Charsmap::parse(&lying).unwrap_err().contains("claims 4294967295 bytes"));
        // Without the last null byte, the last replacement has no end.
        assert!(Charsmap::parse(&bytes[..bytes.len() - 1]).unwrap_err().contains("outside the replacements"));
        let mut refused = 0;
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                match Charsmap::parse(&damaged) {
                    Ok(map) => {
                        for text in ["e\u{301}\t", "\u{ff21}\u{fb01}", "\u{200b}\u{3000}\u{2026}", "plain"] {
                            let _ = map.at_start(text);
                        }
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 0);
    }
}
