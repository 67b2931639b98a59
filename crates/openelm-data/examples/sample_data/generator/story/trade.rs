//! A chain of swaps: who gets a thing says what it is good for, and the end tells the whole chain once more.

use super::super::draw::Halt;
use super::super::english;
use super::super::scribe::Scribe;
use super::{end, scenery};

pub fn prepare(s: &mut Scribe) {
    s.promise("goal", "object");
    s.promise("thing", "object");
    s.promise("look", "look");
}

pub fn tell(s: &mut Scribe, met: &mut Vec<String>) -> Result<(), Halt> {
    s.write("trade.want")?;
    s.copy("thing", "thing0")?;
    let mut chain = vec![s.value("thing")?];
    loop {
        let last = match chain.len() {
            1 => false,
            2..=4 => s.draw.chance(2, 3)?,
            _ => true,
        };
        s.say("\n\n")?;
        s.promise_person("helper");
        s.promise("place", "place");
        s.write(if chain.len() == 1 { "trade.first" } else { "trade.meet" })?;
        scenery(s)?;
        s.say(" ")?;
        if last {
            s.copy("goal", "item")?;
        } else {
            s.promise("item", "object");
        }
        s.write("trade.offer")?;
        s.say(" ")?;
        s.write("trade.deal")?;
        if chain.len() == 1 {
            s.copy("helper", "first")?;
        }
        met.push(s.value("helper")?);
        s.copy("item", "thing")?;
        chain.push(s.value("item")?);
        if last {
            break;
        }
    }
    s.say("\n\n")?;
    let links: Vec<String> = chain
        .windows(2)
        .filter_map(|pair| match pair {
            [from, to] => Some(format!("the {from} became {}", english::with_article(to))),
            _ => None,
        })
        .collect();
    s.bind("chain", english::list(&links));
    s.write("trade.recap")?;
    s.say(" ")?;
    end(s, "trade")?;
    s.say(" ")?;
    s.write("trade.close")
}
