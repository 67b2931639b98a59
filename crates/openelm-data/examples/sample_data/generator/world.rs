//! The invented island of Veyra: everything that the texts treat as true, drawn once from the seed.
//!
//! These facts are the knowledge that a model can learn from the shards. Their entropy is paid once, not in every document
//! that mentions them: a document's own bits count which fact it tells and in which words, never what the fact is.

use super::draw::{Draw, Halt};
use super::grammar::{Class, Grammar};
use super::kinds::{Domain, Kind};
use super::stream::Stream;

/// What an entity has for an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Phrase(String),
    Number(i64),
    Link(Kind, usize),
}

impl Value {
    /// The number, if it is one.
    pub fn number(&self) -> Option<i64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// One town, river, person, animal or plant.
#[derive(Debug)]
pub struct Entity {
    pub name: String,
    /// "bird", "fern": what the last part of an animal's or plant's name says.
    pub noun: String,
    /// The pronoun of a person.
    pub she: bool,
    pub values: Vec<(&'static str, Value)>,
}

impl Entity {
    /// The value of an attribute.
    pub fn value(&self, attribute: &str) -> Option<&Value> {
        self.values.iter().find(|(name, _)| *name == attribute).map(|(_, value)| value)
    }
}

/// What was drawn, and what it cost.
#[derive(Debug)]
pub struct World {
    entities: Vec<(Kind, Vec<Entity>)>,
    /// Values drawn (those that follow from others are not counted).
    pub facts: u64,
    pub fact_bits: f64,
    /// Names drawn.
    pub names: u64,
    pub name_bits: f64,
}

impl World {
    /// Veyra as this seed has it.
    pub fn draw(seed: u64, grammar: &Grammar) -> Result<Self, Halt> {
        let mut draw = Draw::sample(Stream::new(seed, "world", 0));
        let mut world = Self { entities: Vec::new(), facts: 0, fact_bits: 0.0, names: 0, name_bits: 0.0 };
        for kind in Kind::ALL {
            let mut names = Names::new(kind, grammar)?;
            let mut taken: Vec<(&str, Vec<bool>)> = Vec::new();
            let mut entities = Vec::new();
            for _ in 0..kind.count() {
                let before = draw.bits();
                let mut entity = names.next(&mut draw)?;
                world.names += 1;
                world.name_bits += draw.bits() - before;
                for (attribute, domain) in kind.domains() {
                    let before = draw.bits();
                    let value = world.value(&mut draw, grammar, (kind, attribute), domain, &entity, &mut taken)?;
                    world.facts += u64::from(!matches!(domain, Domain::Sum(..)));
                    world.fact_bits += draw.bits() - before;
                    entity.values.push((attribute, value));
                }
                entities.push(entity);
            }
            world.entities.push((kind, entities));
        }
        Ok(world)
    }

    fn value<'k>(
        &self,
        draw: &mut Draw,
        grammar: &Grammar,
        (kind, attribute): (Kind, &'k str),
        domain: &Domain,
        entity: &Entity,
        taken: &mut Vec<(&'k str, Vec<bool>)>,
    ) -> Result<Value, Halt> {
        let number = |name: &str| entity.value(name).and_then(Value::number).unwrap_or(0);
        Ok(match domain {
            Domain::Number(low, high) => Value::Number(draw.between(*low, *high)?),
            Domain::Link(other) => Value::Link(*other, draw.even(self.of(*other).len())?),
            Domain::Sum(one, other) => Value::Number(number(one) + number(other)),
            Domain::Phrase => {
                let class = grammar.class(&format!("{}.{attribute}", kind.key()))?;
                phrase(class, draw.pick(&class.weights)?)
            }
            Domain::Unique => {
                let class = grammar.class(&format!("{}.{attribute}", kind.key()))?;
                if !taken.iter().any(|(name, _)| *name == attribute) {
                    taken.push((attribute, vec![false; class.weights.len()]));
                }
                let used = taken.iter_mut().find(|(name, _)| *name == attribute).map(|(_, used)| used);
                let Some(used) = used else { return Err(Halt::Fault("a list of taken phrases is missing".into())) };
                let weights: Vec<u32> =
                    class.weights.iter().zip(used.iter()).map(|(weight, used)| if *used { 0 } else { *weight }).collect();
                let chosen = draw.pick(&weights)?;
                if let Some(used) = used.get_mut(chosen) {
                    *used = true;
                }
                phrase(class, chosen)
            }
        })
    }

    /// All entities of a kind.
    pub fn of(&self, kind: Kind) -> &[Entity] {
        self.entities.iter().find(|(other, _)| *other == kind).map_or(&[], |(_, entities)| entities)
    }

    /// One entity.
    pub fn entity(&self, kind: Kind, index: usize) -> Option<&Entity> {
        self.of(kind).get(index)
    }

    /// How often texts turn to each entity of a kind: the first much oftener than the last, so that a model in training
    /// learns the common facts first and the rare ones late.
    pub fn weights(&self, kind: Kind) -> Vec<u32> {
        (0..self.of(kind).len() as u32).map(|rank| 600 / (rank + 4)).collect()
    }

    /// A value as texts write it.
    pub fn show(&self, value: &Value) -> String {
        match value {
            Value::Phrase(phrase) => phrase.clone(),
            Value::Number(number) => number.to_string(),
            Value::Link(kind, index) => self.entity(*kind, *index).map(|entity| entity.name.clone()).unwrap_or_default(),
        }
    }
}

fn phrase(class: &Class, index: usize) -> Value {
    Value::Phrase(class.alternatives.get(index).map(|alternative| alternative.phrase.clone()).unwrap_or_default())
}

/// Names of one kind, each given once.
struct Names<'g> {
    kind: Kind,
    first: &'g Class,
    last: &'g Class,
    weights: Vec<u32>,
}

impl<'g> Names<'g> {
    fn new(kind: Kind, grammar: &'g Grammar) -> Result<Self, Halt> {
        let first = if kind == Kind::Person { grammar.class("name")? } else { grammar.class(&format!("{}.first", kind.key()))? };
        let last = grammar.class(&format!("{}.last", kind.key()))?;
        let weights = first.weights.iter().flat_map(|one| last.weights.iter().map(move |other| one * other)).collect();
        Ok(Self { kind, first, last, weights })
    }

    fn next(&mut self, draw: &mut Draw) -> Result<Entity, Halt> {
        let chosen = draw.pick(&self.weights)?;
        if let Some(weight) = self.weights.get_mut(chosen) {
            *weight = 0;
        }
        let count = self.last.alternatives.len().max(1);
        let (Some(first), Some(last)) = (self.first.alternatives.get(chosen / count), self.last.alternatives.get(chosen % count)) else {
            return Err(Halt::Fault("a name beyond its table".into()));
        };
        let space = if matches!(self.kind, Kind::Town | Kind::River) { "" } else { " " };
        Ok(Entity {
            name: format!("{}{space}{}", first.phrase, last.phrase),
            noun: last.fields.first().cloned().unwrap_or_default(),
            she: first.fields.iter().any(|field| field == "she"),
            values: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_links_hold() {
        let world = World::draw(5, &Grammar::load().unwrap()).unwrap();
        let mut names: Vec<&str> = Vec::new();
        for kind in Kind::ALL {
            assert_eq!(world.of(kind).len(), kind.count());
            for entity in world.of(kind) {
                assert!(!names.contains(&&*entity.name), "{}", entity.name);
                names.push(&entity.name);
                for (attribute, value) in &entity.values {
                    assert!(!world.show(value).is_empty(), "{} of {}", attribute, entity.name);
                }
            }
        }
        let works: Vec<String> = world.of(Kind::Person).iter().map(|person| world.show(person.value("work").unwrap())).collect();
        assert!(works.iter().enumerate().all(|(at, work)| !works[..at].contains(work)));
    }

    #[test]
    fn the_cost_of_knowledge_is_the_sum_of_its_choices() {
        let grammar = Grammar::load().unwrap();
        let world = World::draw(5, &grammar).unwrap();
        let expected: f64 = world
            .of(Kind::River)
            .iter()
            .map(|river| {
                let phrase = |attribute: &str| {
                    let class = grammar.class(&format!("river.{attribute}")).unwrap();
                    let wanted = world.show(river.value(attribute).unwrap());
                    let weight = class.alternatives.iter().find(|alternative| alternative.phrase == wanted).unwrap().weight;
                    (f64::from(class.weights.iter().sum::<u32>()) / f64::from(weight)).log2()
                };
                phrase("source") + phrase("mouth") + phrase("colour") + 870f64.log2()
            })
            .sum();
        // The rivers alone: the world with every other kind's share taken off.
        let rivers_only = {
            let mut draw = Draw::sample(Stream::new(5, "world", 0));
            let mut names = Names::new(Kind::River, &grammar).unwrap();
            let mut bits = 0.0;
            let empty = World { entities: Vec::new(), facts: 0, fact_bits: 0.0, names: 0, name_bits: 0.0 };
            for _ in 0..Kind::River.count() {
                let mut entity = names.next(&mut draw).unwrap();
                let before = draw.bits();
                for (attribute, domain) in Kind::River.domains() {
                    let value = empty.value(&mut draw, &grammar, (Kind::River, attribute), domain, &entity, &mut Vec::new()).unwrap();
                    entity.values.push((attribute, value));
                }
                bits += draw.bits() - before;
            }
            bits
        };
        assert!((rivers_only - expected).abs() < 1e-9);
        assert!(world.facts > 700 && world.fact_bits > rivers_only);
    }
}
