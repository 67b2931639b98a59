//! What a word in braces stands for in one document.

use super::english;
use super::kinds::Kind;
use super::world::World;

/// Something that a key is bound to. `{key}` shows it, `{key.part}` a part of it.
#[derive(Clone, Debug)]
pub enum Binding {
    /// A phrase; its parts `.1`, `.2` are the fields that stood beside it in its table.
    Phrase(String, Vec<String>),
    /// A first name; parts: the pronouns `he`, `his`, `him`, as they fit.
    Name { name: String, she: bool },
    /// A number in words; parts: its digits `n`, its ordinal `th`.
    Number(i64),
    /// An entity of the world, by its name; parts: its attributes (a number also in words: `bridges.words`), `noun`, pronouns.
    Entity(Kind, usize),
}

impl Binding {
    /// How it is shown.
    pub fn show(&self, world: &World) -> Option<String> {
        match self {
            Binding::Phrase(phrase, _) => Some(phrase.clone()),
            Binding::Name { name, .. } => Some(name.clone()),
            Binding::Number(number) => Some(english::number(*number)),
            Binding::Entity(kind, index) => world.entity(*kind, *index).map(|entity| entity.name.clone()),
        }
    }

    /// How a part of it is shown.
    pub fn part(&self, part: &str, world: &World) -> Option<String> {
        match self {
            Binding::Phrase(_, fields) => fields.get(part.parse::<usize>().ok()?.checked_sub(1)?).cloned(),
            Binding::Name { she, .. } => pronoun(part, *she),
            Binding::Number(number) => match part {
                "n" => Some(number.to_string()),
                "th" => Some(english::ordinal(*number)),
                _ => None,
            },
            Binding::Entity(kind, index) => {
                let entity = world.entity(*kind, *index)?;
                let (attribute, words) = part.strip_suffix(".words").map_or((part, false), |attribute| (attribute, true));
                match entity.value(attribute) {
                    Some(value) if words => value.number().map(english::number),
                    Some(value) => Some(world.show(value)),
                    None if part == "noun" => Some(entity.noun.clone()),
                    None => pronoun(part, entity.she),
                }
            }
        }
    }
}

fn pronoun(case: &str, she: bool) -> Option<String> {
    let pronoun = match (case, she) {
        ("he", true) => "she",
        ("his" | "him", true) => "her",
        ("he" | "his" | "him", false) => case,
        _ => return None,
    };
    Some(pronoun.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::grammar::Grammar;
    use super::*;

    #[test]
    fn parts_follow_from_what_is_bound() {
        let world = World::draw(1, &Grammar::load().unwrap()).unwrap();
        let part = |binding: &Binding, part: &str| binding.part(part, &world);
        let mill = Binding::Phrase("the mill".into(), vec!["at".into()]);
        assert_eq!((part(&mill, "1").as_deref(), part(&mill, "2"), part(&mill, "0")), (Some("at"), None, None));
        let she = Binding::Name { name: "Ida".into(), she: true };
        assert_eq!((part(&she, "he").as_deref(), part(&she, "him").as_deref(), part(&she, "n")), (Some("she"), Some("her"), None));
        let number = Binding::Number(2);
        assert_eq!((number.show(&world).as_deref(), part(&number, "th").as_deref()), (Some("two"), Some("second")));
        let town = Binding::Entity(Kind::Town, 0);
        let bridges: i64 = part(&town, "bridges").unwrap().parse().unwrap();
        assert_eq!(part(&town, "bridges.words").unwrap(), english::number(bridges));
        assert_eq!(part(&town, "region.words"), None);
    }
}
