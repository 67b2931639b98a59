//! Questions and answers: single facts, true or false, comparisons, two facts joined, sums.

use super::article::{bind_comparison, choose_kind};
use super::draw::Halt;
use super::english;
use super::kinds::Kind;
use super::scribe::{Limit, Scribe};
use super::world::Value;

/// What the answer to a question has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Attribute(Kind, &'static str),
    Truth(Kind, &'static str, bool),
    Compare(Kind),
    /// Kind, attribute that links, linked kind, its attribute.
    Hop(Kind, &'static str, Kind, &'static str),
    Sum,
}

const TRUTHS: [(Kind, &str); 4] = [(Kind::Town, "product"), (Kind::Animal, "food"), (Kind::Plant, "month"), (Kind::Person, "trade")];
const HOPS: [(Kind, &str, Kind, &str); 7] = [
    (Kind::Person, "town", Kind::Town, "region"),
    (Kind::Person, "town", Kind::Town, "river"),
    (Kind::Person, "town", Kind::Town, "product"),
    (Kind::Town, "river", Kind::River, "mouth"),
    (Kind::Town, "river", Kind::River, "source"),
    (Kind::Town, "arms", Kind::Animal, "food"),
    (Kind::Town, "arms", Kind::Animal, "colour"),
];

/// A page of questions and answers.
pub fn questions(s: &mut Scribe) -> Result<(), Halt> {
    s.write("qa.title")?;
    s.say("\n")?;
    let style = s.draw.pick(&[4, 2, 3])?;
    for at in 0..14 {
        if at >= 4 && !s.draw.chance(4, 1)? {
            break;
        }
        s.say("\n")?;
        let (ask, reply) = match style {
            0 => ("Q: ".to_string(), "A: ".to_string()),
            1 => ("Question: ".to_string(), "Answer: ".to_string()),
            _ => {
                s.promise_any("asker", "name");
                let asker = s.value("asker")?;
                (format!("{asker} asks: "), "Answer: ".to_string())
            }
        };
        s.say(&ask)?;
        let topic = self::ask(s)?;
        s.say("\n")?;
        s.say(&reply)?;
        answer(s, topic)?;
        s.say("\n")?;
        if style == 2 && s.draw.chance(1, 3)? {
            s.write("qa.thanks")?;
            s.say("\n")?;
        }
    }
    Ok(())
}

fn one_of<T: Copy>(s: &mut Scribe, table: &[T]) -> Result<T, Halt> {
    let chosen = s.draw.even(table.len())?;
    table.get(chosen).copied().ok_or_else(|| Halt::Fault("a choice beyond its table".into()))
}

/// Says a question.
pub fn ask(s: &mut Scribe) -> Result<Topic, Halt> {
    match s.draw.pick(&[9, 2, 2, 3, 3])? {
        0 => {
            let kind = choose_kind(s)?;
            let attribute = one_of(s, kind.asked())?;
            s.promise_entity("e", kind, &[]);
            s.write(&format!("{}.{attribute}.ask", kind.key()))?;
            Ok(Topic::Attribute(kind, attribute))
        }
        1 => {
            let (kind, attribute) = one_of(s, &TRUTHS)?;
            s.promise_entity("e", kind, &[]);
            let truth = s.value(&format!("e.{attribute}"))?;
            let yes = s.draw.chance(1, 1)?;
            let other = if yes { truth } else { other_value(s, kind, attribute, &truth)? };
            s.bind("x", other);
            s.write(&format!("qa.truth.{}.{attribute}", kind.key()))?;
            Ok(Topic::Truth(kind, attribute, yes))
        }
        2 => {
            let kind = choose_kind(s)?;
            s.promise_entity("e", kind, &[]);
            let e = s.entity("e")?;
            s.promise_entity("f", kind, &[e]);
            s.write(&format!("qa.compare.{}.ask", kind.key()))?;
            Ok(Topic::Compare(kind))
        }
        3 => {
            let (kind, link, linked, attribute) = one_of(s, &HOPS)?;
            s.promise_entity("e", kind, &[]);
            s.write(&format!("qa.hop.{}.{attribute}.ask", kind.key()))?;
            Ok(Topic::Hop(kind, link, linked, attribute))
        }
        _ => {
            bind_sum(s)?;
            s.write("qa.sum.ask")?;
            Ok(Topic::Sum)
        }
    }
}

/// Promises the numbers of a sum: `a`, `b`, their result `c`, and the sign `op`.
pub fn bind_sum(s: &mut Scribe) -> Result<(), Halt> {
    match s.draw.pick(&[3, 2, 2])? {
        0 => {
            s.bind("op", "+");
            s.promise_number("a", 0, Limit::Fixed(99));
            s.promise_number("b", 0, Limit::Fixed(99));
            s.promise_computed("c", ["a", "b"], |a, b| a + b);
        }
        1 => {
            s.bind("op", "-");
            s.promise_number("a", 1, Limit::Fixed(99));
            s.promise_number("b", 0, Limit::Key("a"));
            s.promise_computed("c", ["a", "b"], |a, b| a - b);
        }
        _ => {
            s.bind("op", "x");
            s.promise_number("a", 2, Limit::Fixed(12));
            s.promise_number("b", 2, Limit::Fixed(12));
            s.promise_computed("c", ["a", "b"], |a, b| a * b);
        }
    }
    Ok(())
}

/// Any value of the attribute's table but the true one.
pub fn other_value(s: &mut Scribe, kind: Kind, attribute: &str, truth: &str) -> Result<String, Halt> {
    let class = s.grammar.class(&format!("{}.{attribute}", kind.key()))?;
    let weights: Vec<u32> =
        class.alternatives.iter().map(|alternative| if alternative.phrase == truth { 0 } else { alternative.weight }).collect();
    let chosen = s.draw.pick(&weights)?;
    class
        .alternatives
        .get(chosen)
        .map(|alternative| alternative.phrase.clone())
        .ok_or_else(|| Halt::Fault("a value beyond its table".into()))
}

/// Says the right answer to the question that was said last.
pub fn answer(s: &mut Scribe, topic: Topic) -> Result<(), Halt> {
    match topic {
        Topic::Attribute(kind, attribute) => {
            if s.draw.chance(2, 1)? {
                s.write(&format!("{}.{attribute}.answer", kind.key()))
            } else {
                let short = s.value(&format!("e.{attribute}"))?;
                s.say(&english::capital(&short))?;
                s.say(".")
            }
        }
        Topic::Truth(kind, attribute, yes) => {
            s.say(if yes { "Yes. " } else { "No. " })?;
            s.write(&format!("{}.{attribute}.answer", kind.key()))
        }
        Topic::Compare(kind) => {
            if bind_comparison(s, kind)? {
                s.write(&format!("qa.compare.{}.answer", kind.key()))
            } else {
                s.write("qa.compare.tie")
            }
        }
        Topic::Hop(kind, link, linked, attribute) => {
            let e = s.entity("e")?;
            let at = match s.world.entity(kind, e).and_then(|entity| entity.value(link)) {
                Some(Value::Link(_, at)) => *at,
                _ => return Err(Halt::Fault(format!("{link} of a {} is no link", kind.key()))),
            };
            s.bind_entity("f", linked, at);
            s.write(&format!("qa.hop.{}.{attribute}.answer", kind.key()))
        }
        Topic::Sum => s.write("qa.sum.answer"),
    }
}
