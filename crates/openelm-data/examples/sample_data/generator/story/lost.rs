//! Something is lost and found: each clue names the next place, and at the end all who helped are thanked in reverse order.

use super::super::draw::Halt;
use super::super::english;
use super::super::kinds::Kind;
use super::super::scribe::Scribe;
use super::{at, end, scenery};

pub fn prepare(s: &mut Scribe) {
    s.promise("thing", "object");
    s.promise("look", "look");
    s.promise("giver", "giver");
    s.promise("place", "place");
    // A fish does not run.
    let fish = |index: &usize| s.world.entity(Kind::Animal, *index).is_some_and(|animal| animal.noun == "fish");
    let fish: Vec<usize> = (0..s.world.of(Kind::Animal).len()).filter(fish).collect();
    s.promise_entity("thief", Kind::Animal, &fish);
}

pub fn tell(s: &mut Scribe, met: &mut Vec<String>) -> Result<(), Halt> {
    s.write("lost.thing")?;
    s.say(" ")?;
    s.write("lost.gone")?;
    let mut helpers: Vec<String> = Vec::new();
    loop {
        s.say("\n\n")?;
        s.promise_person("helper");
        s.write(if helpers.is_empty() { "lost.first" } else { "lost.next" })?;
        scenery(s)?;
        s.say(" ")?;
        s.write("lost.ask")?;
        s.say(" ")?;
        s.promise("next", "place");
        s.write(if helpers.is_empty() { "lost.clue.first" } else { "lost.clue.more" })?;
        let here = at(s, "place")?;
        let helper = s.value("helper")?;
        helpers.push(format!("{helper} {here}"));
        met.push(helper);
        s.copy("next", "place")?;
        let more = match helpers.len() {
            1 => true,
            2..=4 => s.draw.chance(3, 2)?,
            _ => false,
        };
        if !more {
            break;
        }
    }
    s.say("\n\n")?;
    s.write("lost.found")?;
    s.say(" ")?;
    s.write("lost.reason")?;
    s.say(" ")?;
    end(s, "lost")?;
    s.say("\n\n")?;
    helpers.reverse();
    s.bind("helpers", english::list(&helpers));
    s.write("lost.thanks")?;
    s.say(" ")?;
    s.write("lost.close")
}
