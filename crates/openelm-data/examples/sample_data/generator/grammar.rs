//! The probability tables: named classes of weighted phrases, read from the text files in `grammar/`.
//!
//! A file holds classes. `= name` begins one; each line after it is an alternative: its weight, a space, its phrase. The
//! probability of an alternative is its weight over the sum of its class. In a phrase,
//! - `{x}` stands for what `x` is bound to in this document,
//! - `[class]` chooses from another class, `[class:x]` also binds `x` to the result, `[!class]` leaves out alternatives that
//!   this document has already had,
//! - `^` before a name begins it with a capital letter and `@` puts "a" or "an" before it: `{^x}`, `[@class]`, `{^@x}`,
//! - `\n` ends a line, and `|` parts further fields, bound as `x.1`, `x.2`.

use std::collections::HashMap;

use super::draw::Halt;

/// The files, compiled in so that the generator is one program.
const FILES: &[(&str, &str)] = &[
    ("people.txt", include_str!("grammar/people.txt")),
    ("things.txt", include_str!("grammar/things.txt")),
    ("scenery.txt", include_str!("grammar/scenery.txt")),
    ("town.txt", include_str!("grammar/town.txt")),
    ("river.txt", include_str!("grammar/river.txt")),
    ("person.txt", include_str!("grammar/person.txt")),
    ("animal.txt", include_str!("grammar/animal.txt")),
    ("plant.txt", include_str!("grammar/plant.txt")),
    ("article.txt", include_str!("grammar/article.txt")),
    ("questions.txt", include_str!("grammar/questions.txt")),
    ("lost.txt", include_str!("grammar/lost.txt")),
    ("trade.txt", include_str!("grammar/trade.txt")),
    ("journey.txt", include_str!("grammar/journey.txt")),
    ("market.txt", include_str!("grammar/market.txt")),
    ("attic.txt", include_str!("grammar/attic.txt")),
    ("blog.txt", include_str!("grammar/blog.txt")),
    ("sums.txt", include_str!("grammar/sums.txt")),
    ("notes.txt", include_str!("grammar/notes.txt")),
    ("code.txt", include_str!("grammar/code.txt")),
    ("chat.txt", include_str!("grammar/chat.txt")),
];

/// One weighted phrase.
#[derive(Debug)]
pub struct Alternative {
    pub weight: u32,
    pub phrase: String,
    /// What `|` parted from the phrase.
    pub fields: Vec<String>,
}

/// The alternatives of one name.
#[derive(Debug)]
pub struct Class {
    pub alternatives: Vec<Alternative>,
    pub weights: Vec<u32>,
}

/// All classes.
#[derive(Debug)]
pub struct Grammar {
    classes: HashMap<String, Class>,
}

impl Grammar {
    /// Reads the tables that are compiled in.
    pub fn load() -> Result<Self, Halt> {
        let mut grammar = Self { classes: HashMap::new() };
        for (file, text) in FILES {
            grammar.read(file, text)?;
        }
        Ok(grammar)
    }

    /// Reads one file's classes.
    fn read(&mut self, file: &str, text: &str) -> Result<(), Halt> {
        let mut current: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let fault = |reason: &str| Halt::Fault(format!("grammar/{file}, line {}: {reason}", number + 1));
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix("= ") {
                if self.classes.insert(name.to_string(), Class { alternatives: Vec::new(), weights: Vec::new() }).is_some() {
                    return Err(fault("this class exists already"));
                }
                current = Some(name.to_string());
                continue;
            }
            let (weight, phrase) = line.split_once(' ').ok_or_else(|| fault("no space after the weight"))?;
            let weight: u32 = weight.parse().map_err(|_| fault("the weight is not a whole number"))?;
            if weight == 0 {
                return Err(fault("a weight of 0 says nothing"));
            }
            let class = current.as_ref().and_then(|name| self.classes.get_mut(name)).ok_or_else(|| fault("no class has begun"))?;
            let mut fields = phrase.split('|').map(|field| field.replace("\\n", "\n"));
            let phrase = fields.next().unwrap_or_default();
            if class.alternatives.iter().any(|other| other.phrase == phrase) {
                return Err(fault("the class has this phrase already"));
            }
            class.alternatives.push(Alternative { weight, phrase, fields: fields.collect() });
            class.weights.push(weight);
        }
        Ok(())
    }

    /// The class of this name.
    pub fn class(&self, name: &str) -> Result<&Class, Halt> {
        self.classes.get(name).ok_or_else(|| Halt::Fault(format!("the grammar has no class {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_that_a_phrase_names_exists() {
        let grammar = Grammar::load().unwrap();
        for (name, class) in &grammar.classes {
            assert!(!class.alternatives.is_empty(), "{name} is empty");
            for alternative in &class.alternatives {
                for part in alternative.phrase.split('[').skip(1) {
                    let inside = part.split(']').next().unwrap();
                    let wanted = inside.trim_start_matches(['^', '@', '!']).split(':').next().unwrap();
                    assert!(grammar.class(wanted).is_ok(), "{name} names {wanted}, which does not exist");
                }
            }
        }
    }

    #[test]
    fn mistakes_are_reported_with_their_line() {
        for (text, reason) in [
            ("= a\n1 x\n1 x\n", "line 3: the class has this phrase already"),
            ("1 x\n", "line 1: no class has begun"),
            ("= a\nx y\n", "line 2: the weight is not a whole number"),
            ("= a\n0 y\n", "line 2: a weight of 0 says nothing"),
            ("= a\n1 y\n= a\n", "line 3: this class exists already"),
        ] {
            let mut grammar = Grammar { classes: HashMap::new() };
            match grammar.read("t.txt", text) {
                Err(Halt::Fault(message)) => assert!(message.ends_with(reason), "{message}"),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }
}
