//! All ways in which a grammar can go, found by running it again and again along growing scripts.
//!
//! This is what makes the entropy claims testable: `derivations` returns every series of choices that ends in a given text.
//! One such series means that its -log2 p is exactly the text's; more would mean that the text is likelier than the sampler
//! counted. `leaves` walks a whole (small) grammar, whose probabilities must add up to one.

use super::draw::{Draw, Halt};

/// Calls `found` at every ending of `write` (with `wanted`: every one whose text is `wanted`). Gives the number of bytes of
/// `wanted` that the longest attempt reached.
fn walk(write: &dyn Fn(&mut Draw) -> Result<(), Halt>, wanted: Option<&str>, found: &mut dyn FnMut(&Draw)) -> Result<usize, Halt> {
    let mut reached = 0;
    let mut open: Vec<Vec<usize>> = vec![Vec::new()];
    while let Some(script) = open.pop() {
        let mut draw = Draw::follow(&script, wanted);
        match write(&mut draw) {
            Ok(()) => {
                reached = reached.max(draw.text().len());
                if draw.complete() {
                    found(&draw);
                }
            }
            Err(Halt::Open(weights)) => {
                reached = reached.max(draw.text().len());
                for (index, weight) in weights.iter().enumerate().rev() {
                    if *weight > 0 {
                        let mut longer = script.clone();
                        longer.push(index);
                        open.push(longer);
                    }
                }
            }
            Err(Halt::Differs) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(reached)
}

/// The bits of every derivation of `text`, and where the last choice of the longest attempt stood (a byte offset).
pub fn derivations(write: &dyn Fn(&mut Draw) -> Result<(), Halt>, text: &str) -> Result<(Vec<f64>, usize), Halt> {
    let mut bits = Vec::new();
    let reached = walk(write, Some(text), &mut |draw| bits.push(draw.bits()))?;
    Ok((bits, reached))
}

/// Text and bits of every ending of a grammar. Only for small ones.
#[cfg(test)]
pub fn leaves(write: &dyn Fn(&mut Draw) -> Result<(), Halt>) -> Result<Vec<(String, f64)>, Halt> {
    let mut leaves = Vec::new();
    walk(write, None, &mut |draw| leaves.push((draw.text().to_string(), draw.bits())))?;
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One to three letters; `b` can come about in two ways.
    fn letters(draw: &mut Draw) -> Result<(), Halt> {
        for _ in 0..3 {
            match draw.pick(&[3, 2, 1])? {
                0 => draw.say("a")?,
                _ => draw.say("b")?,
            }
            if draw.chance(1, 3)? {
                break;
            }
        }
        Ok(())
    }

    #[test]
    fn probabilities_of_all_endings_add_up_to_one() {
        let leaves = leaves(&letters).unwrap();
        assert_eq!(leaves.len(), 3 + 9 + 27 * 2);
        let sum: f64 = leaves.iter().map(|(_, bits)| (-bits).exp2()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn every_derivation_of_a_text_is_found() {
        let (one, _) = derivations(&letters, "a").unwrap();
        assert_eq!(one.len(), 1);
        assert!((one[0] - 3.0).abs() < 1e-12);
        assert_eq!(derivations(&letters, "ab").unwrap().0.len(), 2);
        assert_eq!(derivations(&letters, "ba").unwrap().0.len(), 2);
        let (none, reached) = derivations(&letters, "aXa").unwrap();
        assert_eq!((none.len(), reached), (0, 1));
    }
}
