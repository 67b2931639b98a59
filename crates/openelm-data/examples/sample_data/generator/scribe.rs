//! Writes phrases of the grammar: fills in what is bound, chooses where a class stands, remembers what was chosen.
//!
//! One scribe writes one document. Its bindings are what makes a text hold together: a name, a thing or a place that was
//! chosen once comes back as often as later phrases mention it, at no further surprise. A promise is a binding that is
//! chosen only when a phrase first mentions it, so that every choice shows at once in the text: what never shows is never
//! chosen, and following a text (`derive.rs`) meets no hidden branches.

use std::collections::HashMap;

use super::binding::Binding;
use super::draw::{Draw, Halt};
use super::english;
use super::grammar::{Alternative, Grammar};
use super::kinds::Kind;
use super::world::World;

enum Promise {
    Fresh { class: String },
    Any { class: String },
    Name,
    Entity { kind: Kind, but: Vec<usize> },
    Number { low: i64, high: Limit },
    Computed { by: fn(i64, i64) -> i64, of: [&'static str; 2] },
}

/// The greatest value that a number can have.
pub enum Limit {
    Fixed(i64),
    /// The number of this key.
    Key(&'static str),
}

/// The writer of one document.
pub struct Scribe<'s, 'd> {
    pub draw: &'s mut Draw<'d>,
    pub grammar: &'s Grammar,
    pub world: &'s World,
    bound: HashMap<String, Binding>,
    promised: HashMap<String, Promise>,
    /// Which alternatives of a class this document has had by a fresh choice.
    had: HashMap<String, Vec<bool>>,
}

impl<'s, 'd> Scribe<'s, 'd> {
    pub fn new(draw: &'s mut Draw<'d>, grammar: &'s Grammar, world: &'s World) -> Self {
        Self { draw, grammar, world, bound: HashMap::new(), promised: HashMap::new(), had: HashMap::new() }
    }

    /// Binds `key` to a phrase.
    pub fn bind(&mut self, key: &str, phrase: impl Into<String>) {
        self.set(key, Binding::Phrase(phrase.into(), Vec::new()));
    }

    /// Binds `key` to a number.
    pub fn bind_number(&mut self, key: &str, value: i64) {
        self.set(key, Binding::Number(value));
    }

    /// Binds `key` to an entity of the world.
    pub fn bind_entity(&mut self, key: &str, kind: Kind, index: usize) {
        self.clear_parts(key);
        self.set(key, Binding::Entity(kind, index));
    }

    /// Binds `to` to what `from` is bound to.
    pub fn copy(&mut self, from: &str, to: &str) -> Result<(), Halt> {
        self.keep(from)?;
        let binding = self.bound.get(from).cloned().ok_or_else(|| unbound(from))?;
        self.set(to, binding);
        Ok(())
    }

    fn set(&mut self, key: &str, binding: Binding) {
        self.promised.remove(key);
        self.bound.insert(key.to_string(), binding);
    }

    /// Forgets bindings of single parts, such as `e.food`, which hide the parts of what `key` is bound to.
    fn clear_parts(&mut self, key: &str) {
        self.bound.retain(|name, _| name.strip_prefix(key).is_none_or(|part| !part.starts_with('.')));
    }

    /// `key` will be a phrase of the class that this document has not had yet.
    pub fn promise(&mut self, key: &str, class: &str) {
        self.make(key, Promise::Fresh { class: class.to_string() });
    }

    /// `key` will be a phrase of the class, perhaps one that this document has had.
    pub fn promise_any(&mut self, key: &str, class: &str) {
        self.make(key, Promise::Any { class: class.to_string() });
    }

    /// `key` will be a number, evenly from `low` to `high`.
    pub fn promise_number(&mut self, key: &str, low: i64, high: Limit) {
        self.make(key, Promise::Number { low, high });
    }

    /// `key` will be what the numbers of two other keys make.
    pub fn promise_computed(&mut self, key: &str, of: [&'static str; 2], by: fn(i64, i64) -> i64) {
        self.make(key, Promise::Computed { by, of });
    }

    /// `key` will be a person with a fresh name, `key.trade` a fresh trade.
    pub fn promise_person(&mut self, key: &str) {
        self.make(key, Promise::Name);
        self.promise(&format!("{key}.trade"), "trade");
    }

    /// `key` will be an entity, the first of a kind oftener than the last, and none of `but`.
    pub fn promise_entity(&mut self, key: &str, kind: Kind, but: &[usize]) {
        self.make(key, Promise::Entity { kind, but: but.to_vec() });
    }

    fn make(&mut self, key: &str, promise: Promise) {
        self.clear_parts(key);
        self.bound.remove(key);
        self.promised.insert(key.to_string(), promise);
    }

    /// How `key`, or `key.part`, is shown; keeps a promise if there is one.
    pub fn value(&mut self, key: &str) -> Result<String, Halt> {
        self.keep(key)?;
        let shown = match self.bound.get(key) {
            Some(binding) => binding.show(self.world),
            None => match key.split_once('.') {
                Some((owner, part)) => {
                    self.keep(owner)?;
                    self.bound.get(owner).and_then(|binding| binding.part(part, self.world))
                }
                None => None,
            },
        };
        shown.ok_or_else(|| unbound(key))
    }

    /// The number that `key` stands for.
    pub fn number(&mut self, key: &str) -> Result<i64, Halt> {
        self.keep(key)?;
        match self.bound.get(key) {
            Some(Binding::Number(number)) => Ok(*number),
            _ => Err(Halt::Fault(format!("{key:?} is no number"))),
        }
    }

    /// The entity that `key` stands for.
    pub fn entity(&mut self, key: &str) -> Result<usize, Halt> {
        self.keep(key)?;
        self.known(key).ok_or_else(|| Halt::Fault(format!("{key:?} is no entity")))
    }

    /// The entity that `key` stands for, if it has been mentioned.
    pub fn known(&self, key: &str) -> Option<usize> {
        match self.bound.get(key) {
            Some(Binding::Entity(_, index)) => Some(*index),
            _ => None,
        }
    }

    fn keep(&mut self, key: &str) -> Result<(), Halt> {
        match self.promised.remove(key) {
            None => Ok(()),
            Some(Promise::Fresh { class }) => {
                let chosen = self.choose_fresh(&class)?;
                self.bind_alternative(key, chosen)
            }
            Some(Promise::Any { class }) => {
                let chosen = self.choose(&class)?;
                self.bind_alternative(key, chosen)
            }
            Some(Promise::Number { low, high }) => {
                let high = match high {
                    Limit::Fixed(high) => high,
                    Limit::Key(other) => self.number(other)?,
                };
                let number = self.draw.between(low, high)?;
                self.bind_number(key, number);
                Ok(())
            }
            Some(Promise::Computed { by, of: [one, other] }) => {
                let number = by(self.number(one)?, self.number(other)?);
                self.bind_number(key, number);
                Ok(())
            }
            Some(Promise::Name) => {
                let name = self.choose_fresh("name")?;
                let she = name.fields.iter().any(|field| field == "she");
                self.set(key, Binding::Name { name: name.phrase.clone(), she });
                Ok(())
            }
            Some(Promise::Entity { kind, but }) => {
                let mut weights = self.world.weights(kind);
                for index in but {
                    if let Some(weight) = weights.get_mut(index) {
                        *weight = 0;
                    }
                }
                let chosen = self.draw.pick(&weights)?;
                self.bind_entity(key, kind, chosen);
                Ok(())
            }
        }
    }

    /// Says words as they are.
    pub fn say(&mut self, words: &str) -> Result<(), Halt> {
        self.draw.say(words)
    }

    /// Says one phrase of the class.
    pub fn write(&mut self, class: &str) -> Result<(), Halt> {
        let chosen = self.choose(class)?;
        self.fill(&chosen.phrase)
    }

    /// Says one phrase of the class that this document has not had yet.
    pub fn write_fresh(&mut self, class: &str) -> Result<(), Halt> {
        let chosen = self.choose_fresh(class)?;
        self.fill(&chosen.phrase)
    }

    fn choose(&mut self, class: &str) -> Result<&'s Alternative, Halt> {
        let class = self.grammar.class(class)?;
        let chosen = self.draw.pick(&class.weights)?;
        class.alternatives.get(chosen).ok_or_else(out_of_table)
    }

    fn choose_fresh(&mut self, name: &str) -> Result<&'s Alternative, Halt> {
        let class = self.grammar.class(name)?;
        let had = self.had.entry(name.to_string()).or_insert_with(|| vec![false; class.weights.len()]);
        let weights: Vec<u32> = class.weights.iter().zip(had.iter()).map(|(weight, had)| if *had { 0 } else { *weight }).collect();
        let chosen = self.draw.pick(&weights)?;
        if let Some(had) = had.get_mut(chosen) {
            *had = true;
        }
        class.alternatives.get(chosen).ok_or_else(out_of_table)
    }

    fn bind_alternative(&mut self, key: &str, alternative: &Alternative) -> Result<(), Halt> {
        self.draw.hold();
        let filled = self.fill(&alternative.phrase);
        let phrase = self.draw.release();
        filled?;
        self.set(key, Binding::Phrase(phrase, alternative.fields.clone()));
        Ok(())
    }

    /// Says a phrase with everything in it filled in.
    pub fn fill(&mut self, phrase: &str) -> Result<(), Halt> {
        let within = |halt| match halt {
            Halt::Fault(reason) => Halt::Fault(format!("{reason}, in {phrase:?}")),
            other => other,
        };
        let mut rest = phrase;
        while let Some(at) = rest.find(['{', '[']) {
            let (before, after) = rest.split_at(at);
            self.say(before)?;
            let close = if after.starts_with('{') { '}' } else { ']' };
            let end = after.find(close).ok_or_else(|| within(Halt::Fault(format!("no {close}"))))?;
            let inside = after.get(1..end).unwrap_or_default();
            let name = inside.trim_start_matches(['^', '@', '!']);
            let marks = inside.strip_suffix(name).unwrap_or_default();
            let value = if close == '}' { self.value(name) } else { self.chosen(name, marks.contains('!')) };
            let value = mark(marks, &value.map_err(within)?);
            self.say(&value)?;
            rest = after.get(end + 1..).unwrap_or_default();
        }
        self.say(rest)
    }

    /// The phrase chosen for `class` or `class:key`.
    fn chosen(&mut self, name: &str, fresh: bool) -> Result<String, Halt> {
        let (class, key) = name.split_once(':').unwrap_or((name, "it"));
        let alternative = if fresh { self.choose_fresh(class)? } else { self.choose(class)? };
        self.bind_alternative(key, alternative)?;
        self.value(key)
    }
}

fn mark(marks: &str, value: &str) -> String {
    let value = if marks.contains('@') { english::with_article(value) } else { value.to_string() };
    if marks.contains('^') { english::capital(&value) } else { value }
}

fn unbound(key: &str) -> Halt {
    Halt::Fault(format!("nothing is bound to {key:?}"))
}

fn out_of_table() -> Halt {
    Halt::Fault("a choice beyond its table".into())
}

#[cfg(test)]
mod tests {
    use super::super::derive::{derivations, leaves};
    use super::*;

    fn with_scribe(write: impl Fn(&mut Scribe) -> Result<(), Halt>) -> impl Fn(&mut Draw) -> Result<(), Halt> {
        let grammar = Grammar::load().unwrap();
        let world = World::draw(1, &grammar).unwrap();
        move |draw| write(&mut Scribe::new(draw, &grammar, &world))
    }

    #[test]
    fn a_promise_is_chosen_when_it_shows_and_only_once() {
        let write = with_scribe(|scribe| {
            scribe.promise_person("a");
            scribe.promise_person("b");
            scribe.fill("{a} met {b}. {^a.he} greeted {b}.")
        });
        let leaves = leaves(&write).unwrap();
        let names = Grammar::load().unwrap().class("name").unwrap().alternatives.len();
        // Two different names; the trades are never mentioned and so never chosen.
        assert_eq!(leaves.len(), names * (names - 1));
        let sum: f64 = leaves.iter().map(|(_, bits)| (-bits).exp2()).sum();
        assert!((sum - 1.0).abs() < 1e-9);
        for (text, bits) in leaves.iter().step_by(97) {
            let (ways, _) = derivations(&write, text).unwrap();
            assert_eq!(ways.len(), 1, "{text}");
            assert!((ways[0] - bits).abs() < 1e-9);
        }
    }

    #[test]
    fn marks_and_fields() {
        let write = with_scribe(|scribe| {
            scribe.bind("x", "owl");
            scribe.fill("{^@x}, {@x}, {^x}")
        });
        assert_eq!(leaves(&write).unwrap()[0].0, "An owl, an owl, Owl");
        let unknown = with_scribe(|scribe| scribe.fill("{nothing}"));
        assert!(matches!(leaves(&unknown), Err(Halt::Fault(reason)) if reason.contains("nothing is bound to")));
    }
}
