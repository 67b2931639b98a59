//! A hiding game: three small things among five boxes, moved about; the end says where each one is.

use super::super::draw::Halt;
use super::super::english;
use super::super::scribe::Scribe;
use super::{end, scenery};

const THINGS: usize = 3;
const BOXES: usize = 5;

pub fn prepare(s: &mut Scribe) {
    for thing in 1..=THINGS {
        s.promise(&format!("small{thing}"), "small");
    }
    for place in 1..=BOXES {
        s.promise(&format!("box{place}"), "box");
    }
}

pub fn tell(s: &mut Scribe, met: &mut Vec<String>) -> Result<(), Halt> {
    s.promise_person("friend");
    s.write("attic.friend")?;
    s.say(" ")?;
    s.write("attic.rule")?;
    scenery(s)?;
    s.say("\n\n")?;
    s.write("attic.begin")?;
    met.push(s.value("friend")?);
    // `inside[thing]` is the number of its box. Empty boxes are named when something first gets into them.
    let mut inside = [1usize, 2, 3];
    let mut named = THINGS;
    let mut turn = s.draw.even(2)?;
    for step in 0..7 {
        if step >= 3 && !s.draw.chance(2, 1)? {
            break;
        }
        bind_turn(s, turn)?;
        s.say(" ")?;
        let pairs = apart(&inside);
        match s.draw.pick(&[6, if pairs.is_empty() { 0 } else { 2 }, 2])? {
            0 => {
                let thing = s.draw.even(THINGS)?;
                let from = inside.get(thing).copied().unwrap_or_default();
                // Any other box, a new one among them as long as there is one.
                let boxes: Vec<u32> = (1..=BOXES).map(|place| u32::from(place != from && place <= (named + 1).min(BOXES))).collect();
                let to = s.draw.pick(&boxes)? + 1;
                named = named.max(to);
                bind_move(s, thing, from, to)?;
                s.write("attic.move")?;
                if let Some(place) = inside.get_mut(thing) {
                    *place = to;
                }
            }
            1 => swap(s, &mut inside, &pairs)?,
            _ => look(s, &inside, named)?,
        }
        turn = 1 - turn;
    }
    s.say("\n\n")?;
    bind_turn(s, turn)?;
    let mut answers = Vec::new();
    for (thing, place) in inside.iter().enumerate() {
        let (small, place) = (s.value(&format!("small{}", thing + 1))?, s.value(&format!("box{place}"))?);
        answers.push(format!("the {small} is in {place}"));
    }
    s.bind("answer", english::capital(&english::list(&answers)));
    s.write("attic.end")?;
    if s.draw.chance(1, 1)? {
        let asked = s.draw.even(THINGS)? + 1;
        for part in ["small", "box"] {
            s.copy(&format!("{part}{asked}"), part)?;
        }
        s.say(" ")?;
        s.write("attic.first")?;
    }
    s.say("\n\n")?;
    end(s, "attic")
}

/// Binds `mover` and `other`.
fn bind_turn(s: &mut Scribe, turn: usize) -> Result<(), Halt> {
    let keys = if turn == 0 { ["hero", "friend"] } else { ["friend", "hero"] };
    for (role, key) in ["mover", "other"].iter().zip(keys) {
        s.copy(key, role)?;
    }
    Ok(())
}

fn bind_move(s: &mut Scribe, thing: usize, from: usize, to: usize) -> Result<(), Halt> {
    s.copy(&format!("small{}", thing + 1), "small")?;
    s.copy(&format!("box{from}"), "from")?;
    s.copy(&format!("box{to}"), "to")
}

/// The pairs of things that lie in different boxes.
fn apart(inside: &[usize; THINGS]) -> Vec<(usize, usize)> {
    [(0, 1), (0, 2), (1, 2)].into_iter().filter(|(one, other)| inside.get(*one) != inside.get(*other)).collect()
}

/// Two things in different boxes change places.
fn swap(s: &mut Scribe, inside: &mut [usize; THINGS], pairs: &[(usize, usize)]) -> Result<(), Halt> {
    let pair = s.draw.even(pairs.len())?;
    let (one, other) = pairs.get(pair).copied().unwrap_or_default();
    inside.swap(one, other);
    let place = |thing: usize| inside.get(thing).copied().unwrap_or_default();
    bind_move(s, one, place(one), place(other))?;
    s.copy(&format!("small{}", other + 1), "second")?;
    s.write("attic.swap")
}

/// Somebody opens a box; what is in it follows from the moves.
fn look(s: &mut Scribe, inside: &[usize; THINGS], named: usize) -> Result<(), Halt> {
    let place = s.draw.even(named)? + 1;
    let mut found = Vec::new();
    for (thing, _) in inside.iter().enumerate().filter(|(_, other)| **other == place) {
        found.push(format!("the {}", s.value(&format!("small{}", thing + 1))?));
    }
    s.copy(&format!("box{place}"), "to")?;
    s.bind("what", if found.is_empty() { "nothing".to_string() } else { english::list(&found) });
    s.write("attic.look")
}
