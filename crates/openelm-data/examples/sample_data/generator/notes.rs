//! LaTeX notes on single numbers: every statement follows from the number.

use super::draw::Halt;
use super::scribe::{Limit, Scribe};

const FACTS: [&str; 6] = ["factors", "square", "digits", "remainder", "binary", "next"];

/// A paper of two to six sections.
pub fn notes(s: &mut Scribe) -> Result<(), Halt> {
    s.promise_number("issue", 1, Limit::Fixed(99));
    s.promise("who", "name");
    s.promise("other", "name");
    s.say("\\documentclass{article}\n\\title{Notes on small numbers, No. ")?;
    s.fill("{issue.n}")?;
    s.say("}\n\\author{")?;
    s.write("notes.author")?;
    s.say("}\n\\begin{document}\n\\maketitle\n")?;
    s.write("notes.intro")?;
    for section in 0..6 {
        if section >= 2 && !s.draw.chance(2, 1)? {
            break;
        }
        s.promise_number("n", 2, Limit::Fixed(499));
        s.say("\n\n")?;
        s.write("notes.open")?;
        s.say("{")?;
        s.write("notes.heading")?;
        s.say("}\n")?;
        statements(s)?;
    }
    s.say("\n\n\\end{document}\n")
}

fn statements(s: &mut Scribe) -> Result<(), Halt> {
    let n = s.number("n")?;
    let factors = factors(n);
    s.bind("half", (n / 2).to_string());
    s.bind("square", (n * n).to_string());
    s.bind("digits", n.to_string().bytes().map(|digit| i64::from(digit - b'0')).sum::<i64>().to_string());
    s.bind("binary", format!("{n:b}"));
    s.bind("next", (n + 1..).find(|next| self::factors(*next).len() == 1).unwrap_or_default().to_string());
    s.bind("factors", factors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" \\cdot "));
    s.write(if n % 2 == 0 { "notes.parity.even" } else { "notes.parity.odd" })?;
    let mut left = FACTS.to_vec();
    for fact in 0..FACTS.len() {
        let mut weights = vec![2; left.len()];
        weights.push(if fact >= 2 { 2 } else { 0 });
        let chosen = s.draw.pick(&weights)?;
        if chosen == left.len() {
            break;
        }
        let name = left.remove(chosen);
        s.say("\n")?;
        if name == "remainder" {
            let m = s.draw.between(3, 11)?;
            for (key, value) in [("m", m), ("q", n / m), ("r", n % m)] {
                s.bind(key, value.to_string());
            }
        }
        s.write(&if name == "factors" && factors.len() == 1 { "notes.prime".to_string() } else { format!("notes.{name}") })?;
    }
    Ok(())
}

/// The prime factors of n > 1, smallest first.
fn factors(n: i64) -> Vec<i64> {
    let (mut rest, mut divisor, mut found) = (n, 2, Vec::new());
    while divisor * divisor <= rest {
        while rest % divisor == 0 {
            found.push(divisor);
            rest /= divisor;
        }
        divisor += 1;
    }
    if rest > 1 {
        found.push(rest);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_multiply_to_the_number_and_are_prime() {
        for n in 2..500 {
            let found = factors(n);
            assert_eq!(found.iter().product::<i64>(), n);
            assert!(found.iter().all(|prime| (2..*prime).all(|divisor| prime % divisor != 0)));
        }
    }
}
