//! Instructions with answers, and pairs of a better and a worse answer, about the same world as the texts.
//!
//! No question of a test file stands in a training file. Entropy is not counted here: fine-tuning is not compared with a floor.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::document::Language;
use super::draw::{Draw, Halt};
use super::english;
use super::kinds::Kind;
use super::questions::{self, Topic};
use super::scribe::{Limit, Scribe};
use super::story;
use super::stream::Stream;
use super::sums;
use super::world::Value as Fact;

/// Rows of each file. The test files come first: what they ask is left out of the training files.
const ROWS: [(&str, usize); 4] = [("sft-test", 60), ("preference-test", 40), ("sft-train", 480), ("preference-train", 260)];

/// Name and text of each file.
pub fn files(seed: u64, language: &Language) -> Result<Vec<(&'static str, String)>, Halt> {
    let mut tested: HashSet<String> = HashSet::new();
    let mut files = Vec::new();
    for (name, rows) in ROWS {
        let (mut text, mut written, mut here) = (String::new(), 0, HashSet::new());
        for index in 0.. {
            if written == rows {
                break;
            }
            let mut draw = Draw::sample(Stream::new(seed, name, index));
            let mut scribe = Scribe::new(&mut draw, &language.grammar, &language.world);
            let (questions, row) = if name.starts_with("sft") { instruction(&mut scribe)? } else { preference(&mut scribe)? };
            // The same questions come once in a file.
            if questions.iter().any(|question| tested.contains(question)) || !here.insert(questions.join(" ")) {
                continue;
            }
            if name.ends_with("-test") {
                tested.extend(questions);
            }
            text.push_str(&format!("{row}\n"));
            written += 1;
        }
        files.push((name, text));
    }
    Ok(files)
}

/// What `write` says, without saying it.
fn aside<T>(s: &mut Scribe, write: impl FnOnce(&mut Scribe) -> Result<T, Halt>) -> Result<(String, T), Halt> {
    s.draw.hold();
    let result = write(s);
    let said = s.draw.release();
    Ok((said, result?))
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// A question in a friendly wrapping: the bare question, its wrapping, its topic.
fn asked(s: &mut Scribe) -> Result<(String, String, Topic), Halt> {
    let (question, topic) = aside(s, questions::ask)?;
    s.bind("q", &question);
    let (wrapped, ()) = aside(s, |s| s.write("chat.ask"))?;
    Ok((question, wrapped, topic))
}

/// The right answer in a full sentence.
fn right(s: &mut Scribe, topic: Topic) -> Result<String, Halt> {
    let (answer, ()) = aside(s, |s| match topic {
        Topic::Attribute(kind, attribute) => s.write(&format!("{}.{attribute}.answer", kind.key())),
        other => questions::answer(s, other),
    })?;
    Ok(answer)
}

/// What a row asks, and the row.
fn instruction(s: &mut Scribe) -> Result<(Vec<String>, Value), Halt> {
    match s.draw.pick(&[10, 3, 4, 3, 3])? {
        0 => {
            let (question, wrapped, topic) = asked(s)?;
            let answer = right(s, topic)?;
            Ok((vec![question], row(&[message("user", &wrapped), message("assistant", &answer)])))
        }
        1 => {
            // A second question after the first.
            let (question, wrapped, topic) = asked(s)?;
            let first = right(s, topic)?;
            let (other, _, topic) = asked(s)?;
            let second = right(s, topic)?;
            let messages =
                [message("user", &wrapped), message("assistant", &first), message("user", &other), message("assistant", &second)];
            Ok((vec![question, other], row(&messages)))
        }
        2 => {
            s.promise_number("a", 10, Limit::Fixed(99));
            s.promise_number("b", 10, Limit::Fixed(99));
            let (a, b) = (s.number("a")?, s.number("b")?);
            s.bind("sum", format!("{a} + {b}"));
            let (question, ()) = aside(s, |s| s.write("chat.steps"))?;
            let messages = [message("user", &question), message("assistant", &format!("{}.", sums::working(a, b)))];
            Ok((vec![format!("{a} + {b}")], row(&messages)))
        }
        3 => {
            let kind = super::article::choose_kind(s)?;
            s.promise_entity("e", kind, &[]);
            let name = s.value("e")?;
            s.bind("about", if matches!(kind, Kind::Town | Kind::Person) { name } else { format!("the {name}") });
            let (question, ()) = aside(s, |s| s.write("chat.facts"))?;
            let mut left = kind.asked().to_vec();
            let mut facts = Vec::new();
            while facts.len() < 3 && !left.is_empty() {
                let attribute = left.remove(s.draw.even(left.len())?);
                facts.push(aside(s, |s| s.write(&format!("{}.{attribute}.answer", kind.key())))?.0);
            }
            let messages = [message("user", &question), message("assistant", &facts.join(" "))];
            Ok((vec![question], row(&messages)))
        }
        _ => {
            s.promise_person("hero");
            s.promise_entity("town", Kind::Town, &[]);
            let (question, ()) = aside(s, |s| s.write("chat.story"))?;
            let (tale, ()) = aside(s, story::tale)?;
            let messages = [message("user", &question), message("assistant", &tale)];
            Ok((vec![question], row(&messages)))
        }
    }
}

/// A row of the instruction files; the prompt is the first message's content.
fn row(messages: &[Value]) -> Value {
    let prompt = messages.first().and_then(|message| message.get("content")).cloned().unwrap_or_default();
    json!({"prompt": prompt, "messages": messages})
}

/// What a pair asks, and the pair.
fn preference(s: &mut Scribe) -> Result<(Vec<String>, Value), Halt> {
    let system = if s.draw.chance(1, 2)? { Some(aside(s, |s| s.write("chat.system"))?.0) } else { None };
    let mut before: Vec<Value> = system.iter().map(|content| message("system", content)).collect();
    let mut questions = Vec::new();
    if s.draw.chance(1, 3)? {
        let (question, wrapped, topic) = asked(s)?;
        let answer = right(s, topic)?;
        before.extend([message("user", &wrapped), message("assistant", &answer)]);
        questions.push(question);
    }
    let (question, wrapped, topic) = asked(s)?;
    before.push(message("user", &wrapped));
    let chosen = right(s, topic)?;
    let wrongs = if matches!(topic, Topic::Attribute(..) | Topic::Sum) { 5 } else { 0 };
    let rejected = match s.draw.pick(&[wrongs, 2, 2])? {
        0 => wrong(s, topic)?,
        1 => aside(s, |s| s.write("chat.rude"))?.0,
        _ => aside(s, |s| s.write("chat.ramble"))?.0,
    };
    let with = |answer: &str| -> Vec<Value> { before.iter().cloned().chain([message("assistant", answer)]).collect() };
    let prompt = before.first().and_then(|message| message.get("content")).cloned().unwrap_or_default();
    questions.push(question);
    Ok((questions, json!({"prompt": prompt, "chosen": with(&chosen), "rejected": with(&rejected)})))
}

/// An answer that sounds right and is not.
fn wrong(s: &mut Scribe, topic: Topic) -> Result<String, Halt> {
    match topic {
        Topic::Attribute(kind, attribute) => {
            let e = s.entity("e")?;
            let key = format!("e.{attribute}");
            match s.world.entity(kind, e).and_then(|entity| entity.value(attribute)).cloned() {
                Some(Fact::Number(number)) => {
                    // Small numbers are said in words, so both forms change.
                    let other = number + s.draw.between(1, 9)?;
                    s.bind(&key, other.to_string());
                    s.bind(&format!("{key}.words"), english::number(other));
                }
                Some(Fact::Link(other, at)) => {
                    let count = s.world.of(other).len();
                    let shift = s.draw.between(1, count as i64 - 1)? as usize;
                    let name = s.world.entity(other, (at + shift) % count).map(|entity| entity.name.clone()).unwrap_or_default();
                    s.bind(&key, name);
                }
                _ => {
                    let truth = s.value(&key)?;
                    let other = questions::other_value(s, kind, attribute, &truth)?;
                    s.bind(&key, other);
                }
            }
        }
        _ => {
            let result = s.number("c")? + s.draw.between(1, 12)?;
            s.bind_number("c", result);
        }
    }
    right(s, topic)
}
