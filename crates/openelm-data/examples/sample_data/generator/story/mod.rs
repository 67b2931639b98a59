//! Small stories, each a plot with a state: what happens later follows from what happened before.
//!
//! A story is told of a hero in a town of Veyra. One episode makes a short story; a chapter tells several of the same hero,
//! in which people from earlier episodes come back.

mod attic;
mod journey;
mod lost;
mod market;
mod trade;

use super::draw::Halt;
use super::kinds::Kind;
use super::scribe::Scribe;

#[derive(Clone, Copy)]
enum Plot {
    Lost,
    Trade,
    Journey,
    Market,
    Attic,
}

const PLOTS: [(Plot, u32); 5] = [(Plot::Lost, 6), (Plot::Trade, 5), (Plot::Journey, 5), (Plot::Market, 4), (Plot::Attic, 4)];

/// A short story of one episode, with or without a title.
pub fn story(s: &mut Scribe) -> Result<(), Halt> {
    s.promise_person("hero");
    s.promise("trait", "trait");
    s.promise_entity("town", Kind::Town, &[]);
    let plot = choose_plot(s, &mut [false; PLOTS.len()])?;
    prepare(s, plot)?;
    if s.draw.chance(4, 1)? {
        s.write(match plot {
            Plot::Lost => "lost.title",
            Plot::Trade => "trade.title",
            Plot::Journey => "journey.title",
            Plot::Market => "market.title",
            Plot::Attic => "attic.title",
        })?;
        s.say("\n\n")?;
    }
    if matches!(plot, Plot::Journey) {
        journey::apart(s)?;
    }
    s.write("story.open")?;
    s.say("\n\n")?;
    tell(s, plot, &mut Vec::new())
}

/// An episode about the hero and the town that are promised already, without a title.
pub fn tale(s: &mut Scribe) -> Result<(), Halt> {
    s.promise("trait", "trait");
    let plot = choose_plot(s, &mut [false; PLOTS.len()])?;
    prepare(s, plot)?;
    if matches!(plot, Plot::Journey) {
        journey::apart(s)?;
    }
    s.write("story.open")?;
    s.say("\n\n")?;
    tell(s, plot, &mut Vec::new())
}

/// A chapter of two or three episodes.
pub fn chapter(s: &mut Scribe) -> Result<(), Halt> {
    s.promise_person("hero");
    s.promise("trait", "trait");
    s.promise_entity("town", Kind::Town, &[]);
    let number = s.draw.between(1, 12)?;
    s.bind_number("chapter", number);
    s.write("chapter.head")?;
    s.say("\n\n")?;
    s.write("story.open")?;
    s.say("\n\n")?;
    let mut told = [false; PLOTS.len()];
    let mut met = Vec::new();
    for episode in 0..3 {
        if episode == 2 && !s.draw.chance(3, 2)? {
            break;
        }
        if episode > 0 {
            s.say("\n\n* * *\n\n")?;
            later(s, &met)?;
            s.say(" ")?;
        }
        let plot = choose_plot(s, &mut told)?;
        prepare(s, plot)?;
        if matches!(plot, Plot::Journey) {
            journey::apart(s)?;
        }
        tell(s, plot, &mut met)?;
    }
    Ok(())
}

/// The first sentence of another episode; somebody whom the reader knows may come back in it.
fn later(s: &mut Scribe, met: &[String]) -> Result<(), Halt> {
    if !met.is_empty() && s.draw.chance(3, 1)? {
        let old = s.draw.even(met.len())?;
        let old = met.get(old).cloned().unwrap_or_default();
        s.bind("old", old);
        s.write("story.later")
    } else {
        s.write("story.alone")
    }
}

fn choose_plot(s: &mut Scribe, told: &mut [bool; PLOTS.len()]) -> Result<Plot, Halt> {
    let weights: Vec<u32> = PLOTS.iter().zip(told.iter()).map(|((_, weight), told)| if *told { 0 } else { *weight }).collect();
    let chosen = s.draw.pick(&weights)?;
    if let Some(told) = told.get_mut(chosen) {
        *told = true;
    }
    PLOTS.get(chosen).map(|(plot, _)| *plot).ok_or_else(|| Halt::Fault("a plot beyond its table".into()))
}

/// Promises what a title may mention.
fn prepare(s: &mut Scribe, plot: Plot) -> Result<(), Halt> {
    match plot {
        Plot::Lost => lost::prepare(s),
        Plot::Trade => trade::prepare(s),
        Plot::Journey => journey::prepare(s),
        Plot::Market => return market::prepare(s),
        Plot::Attic => attic::prepare(s),
    }
    Ok(())
}

fn tell(s: &mut Scribe, plot: Plot, met: &mut Vec<String>) -> Result<(), Halt> {
    match plot {
        Plot::Lost => lost::tell(s, met),
        Plot::Trade => trade::tell(s, met),
        Plot::Journey => journey::tell(s, met),
        Plot::Market => market::tell(s, met),
        Plot::Attic => attic::tell(s, met),
    }
}

/// Perhaps a sentence about the surroundings, after the one before.
fn scenery(s: &mut Scribe) -> Result<(), Halt> {
    if s.draw.chance(1, 1)? {
        s.say(" ")?;
        s.write_fresh("scenery")?;
    }
    Ok(())
}

/// The phrase of `plot.end` for the hero's character.
fn end(s: &mut Scribe, plot: &str) -> Result<(), Halt> {
    let character = s.value("trait")?;
    s.write(&format!("{plot}.end.{character}"))
}

/// "at the mill": a place as `key` is bound to it, with its preposition.
fn at(s: &mut Scribe, key: &str) -> Result<String, Halt> {
    Ok(format!("{} {}", s.value(&format!("{key}.1"))?, s.value(key)?))
}
