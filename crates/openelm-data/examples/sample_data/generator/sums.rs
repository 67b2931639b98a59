//! Work sheets of sums that are always right.

use super::draw::Halt;
use super::scribe::{Limit, Scribe};

/// The sorts of exercises, with their weights. One sort is used once in a work sheet.
const SORTS: [(&str, u32); 9] =
    [("add", 5), ("subtract", 4), ("table", 3), ("words", 4), ("steps", 3), ("gap", 3), ("row", 3), ("order", 2), ("story", 4)];

/// A work sheet of three to five exercises.
pub fn sums(s: &mut Scribe) -> Result<(), Halt> {
    s.promise("pupil", "name");
    s.promise_number("page", 1, Limit::Fixed(40));
    s.write("sums.title")?;
    let mut weights = SORTS.map(|(_, weight)| weight);
    for exercise in 0..5 {
        if exercise >= 3 && !s.draw.chance(1, 1)? {
            break;
        }
        let chosen = s.draw.pick(&weights)?;
        if let Some(weight) = weights.get_mut(chosen) {
            *weight = 0;
        }
        let sort = SORTS.get(chosen).map_or("add", |(sort, _)| sort);
        s.say("\n\n")?;
        if sort == "table" {
            s.promise_number("factor", 2, Limit::Fixed(19));
        }
        s.write(&format!("sums.head.{sort}"))?;
        // Whether another line follows shows in the text, so its chance is part of the entropy.
        for line in 0..10 {
            if line >= 5 && !s.draw.chance(3, 1)? {
                break;
            }
            s.say("\n")?;
            exercise_line(s, sort, line)?;
        }
    }
    s.say("\n\n")?;
    s.write("sums.end")
}

fn exercise_line(s: &mut Scribe, sort: &str, line: i64) -> Result<(), Halt> {
    match sort {
        "add" => {
            operands(s, (0, 99), Limit::Fixed(99), |a, b| a + b);
            s.write("sums.line.add")
        }
        "subtract" => {
            operands(s, (1, 99), Limit::Key("a"), |a, b| a - b);
            s.write("sums.line.subtract")
        }
        "table" => {
            let factor = s.number("factor")?;
            s.bind_number("a", line + 1);
            s.bind_number("b", factor);
            s.promise_computed("c", ["a", "b"], |a, b| a * b);
            s.write("sums.line.table")
        }
        "words" => {
            let (name, by): (_, fn(i64, i64) -> i64) = match s.draw.pick(&[3, 2, 2])? {
                0 => ("plus", |a, b| a + b),
                1 => ("minus", |a, b| a - b),
                _ => ("times", |a, b| a * b),
            };
            match name {
                "plus" => operands(s, (1, 60), Limit::Fixed(39), by),
                // The smaller number is said first in one phrasing, so both are chosen on their own: a = b + rest.
                "minus" => {
                    s.promise_number("b", 1, Limit::Fixed(40));
                    s.promise_number("c", 0, Limit::Fixed(50));
                    s.promise_computed("a", ["b", "c"], |b, c| b + c);
                }
                _ => operands(s, (2, 12), Limit::Fixed(12), by),
            }
            s.write(&format!("sums.line.words.{name}"))
        }
        "steps" => steps(s),
        "gap" => {
            operands(s, (1, 60), Limit::Fixed(60), |a, b| a + b);
            s.write("sums.line.gap")
        }
        "row" => row(s),
        "order" => {
            let a = s.draw.between(0, 199)?;
            s.say(&a.to_string())?;
            let b = s.draw.between(0, 199)?;
            let sign = match a.cmp(&b) {
                std::cmp::Ordering::Less => '<',
                std::cmp::Ordering::Equal => '=',
                std::cmp::Ordering::Greater => '>',
            };
            s.say(&format!(" {sign} {b}"))
        }
        _ => story(s),
    }
}

/// Promises `a`, `b` and their result `c`.
fn operands(s: &mut Scribe, (low, high): (i64, i64), most: Limit, by: fn(i64, i64) -> i64) {
    s.promise_number("a", low, Limit::Fixed(high));
    s.promise_number("b", low.min(1), most);
    s.promise_computed("c", ["a", "b"], by);
}

/// Says how two numbers of two digits are added, digit by digit.
pub fn steps(s: &mut Scribe) -> Result<(), Halt> {
    let a = s.draw.between(10, 99)?;
    s.say(&format!("{a} + "))?;
    let b = s.draw.between(10, 99)?;
    s.say(&format!("{b}: {}", working(a, b)))
}

/// The working of a + b for two numbers of two digits.
pub fn working(a: i64, b: i64) -> String {
    let ones = a % 10 + b % 10;
    let (tens_a, tens_b) = (a / 10, b / 10);
    let first = format!("{} + {} = {ones}", a % 10, b % 10);
    let second = if ones >= 10 {
        format!("write {}, carry 1; {tens_a} + {tens_b} + 1 = {}", ones - 10, tens_a + tens_b + 1)
    } else {
        format!("write {ones}; {tens_a} + {tens_b} = {}", tens_a + tens_b)
    };
    format!("{first}, {second}; {a} + {b} = {}", a + b)
}

/// Five numbers of a row: by a constant step up or down, or doubled.
fn row(s: &mut Scribe) -> Result<(), Halt> {
    let start = s.draw.between(1, 60)?;
    s.say(&start.to_string())?;
    // A row of step `start` would read like a doubled one for two numbers only, so the third tells them apart.
    let doubled = s.draw.chance(1, 5)?;
    let step = if doubled { 0 } else { s.draw.between(2, 15)? };
    let down = !doubled && start > 4 * step && s.draw.chance(1, 1)?;
    let mut value = start;
    for _ in 0..4 {
        value = if doubled {
            value * 2
        } else if down {
            value - step
        } else {
            value + step
        };
        s.say(&format!(", {value}"))?;
    }
    Ok(())
}

fn story(s: &mut Scribe) -> Result<(), Halt> {
    s.promise_any("who", "name");
    s.promise_any("fruit", "fruit");
    match s.draw.pick(&[3, 3, 2])? {
        0 => {
            operands(s, (2, 40), Limit::Fixed(30), |a, b| a + b);
            s.promise_number("b", 2, Limit::Fixed(30));
            s.write("sums.line.story.more")
        }
        1 => {
            s.promise_number("b", 2, Limit::Fixed(20));
            s.promise_number("c", 2, Limit::Fixed(30));
            s.promise_computed("a", ["b", "c"], |b, c| b + c);
            s.write("sums.line.story.less")
        }
        _ => {
            operands(s, (2, 9), Limit::Fixed(9), |a, b| a * b);
            s.promise_number("b", 2, Limit::Fixed(9));
            s.write("sums.line.story.share")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_carries() {
        assert_eq!(working(47, 38), "7 + 8 = 15, write 5, carry 1; 4 + 3 + 1 = 8; 47 + 38 = 85");
        assert_eq!(working(21, 34), "1 + 4 = 5, write 5; 2 + 3 = 5; 21 + 34 = 55");
    }
}
