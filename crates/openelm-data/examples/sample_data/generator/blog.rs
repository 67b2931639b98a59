//! A traveller's report on a town, true to Veyra's facts, with comments from the wide world.

use super::draw::Halt;
use super::kinds::Kind;
use super::scribe::{Limit, Scribe};

pub fn blog(s: &mut Scribe) -> Result<(), Halt> {
    s.promise_person("hero");
    s.promise_entity("town", Kind::Town, &[]);
    s.write("blog.title")?;
    s.say("\n")?;
    s.write("blog.byline")?;
    s.say("\n\n")?;
    s.write("blog.arrive")?;
    s.say(" ")?;
    s.write("blog.market")?;
    if s.draw.chance(1, 1)? {
        s.say(" ")?;
        s.write_fresh("scenery")?;
    }
    s.say("\n\n")?;
    let mut first = true;
    for part in ["animal", "plant", "history", "cost", "weather"] {
        if part != "weather" && !s.draw.chance(2, 1)? {
            continue;
        }
        match part {
            "animal" => s.promise_entity("beast", Kind::Animal, &[]),
            "plant" => s.promise_entity("herb", Kind::Plant, &[]),
            "cost" => {
                s.promise_number("night", 3, Limit::Fixed(40));
                s.promise_number("nights", 2, Limit::Fixed(9));
                s.promise_computed("total", ["night", "nights"], |one, count| one * count);
            }
            _ => {}
        }
        if !first {
            s.say(" ")?;
        }
        first = false;
        s.write(&format!("blog.{part}"))?;
    }
    s.say("\n\n")?;
    s.write("blog.rating")?;
    if s.draw.chance(3, 1)? {
        s.say("\n\n")?;
        s.write("blog.comments")?;
        for comment in 0..5 {
            if comment > 0 && !s.draw.chance(2, 1)? {
                break;
            }
            s.say("\n")?;
            s.promise("guest", "name");
            s.write("blog.comment")?;
        }
    }
    Ok(())
}
