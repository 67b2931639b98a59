//! A parcel is carried to another town: an obstacle costs a day unless the right thing was packed, and the days add up.

use super::super::draw::Halt;
use super::super::kinds::Kind;
use super::super::scribe::Scribe;
use super::{end, scenery};

pub fn prepare(s: &mut Scribe) {
    s.promise_entity("dest", Kind::Town, &[]);
    s.promise("parcel", "parcel");
    s.promise("reward", "reward");
}

/// Sees to it that the way leads to another town, whichever of the two was named first.
pub fn apart(s: &mut Scribe) -> Result<(), Halt> {
    match (s.known("town"), s.known("dest")) {
        (Some(town), None) => s.promise_entity("dest", Kind::Town, &[town]),
        (None, Some(dest)) => s.promise_entity("town", Kind::Town, &[dest]),
        // Every first sentence names the town.
        (None, None) => {}
        (Some(_), Some(_)) => return Err(Halt::Fault("both towns were named before they were kept apart".into())),
    }
    Ok(())
}

pub fn tell(s: &mut Scribe, met: &mut Vec<String>) -> Result<(), Halt> {
    if s.known("dest").is_none() {
        apart(s)?;
    }
    s.promise_person("sender");
    s.promise_person("receiver");
    s.write("journey.task")?;
    s.say(" ")?;
    // Each is fresh, and their order is the order of packing.
    for key in ["tool1", "tool2", "tool3"] {
        s.promise(key, "tool");
    }
    s.write("journey.pack")?;
    let mut tools = vec![s.value("tool1")?, s.value("tool2")?, s.value("tool3")?];
    let mut day = 1;
    let mut lost = 0;
    for obstacle in 0..4 {
        if obstacle >= 2 && !s.draw.chance(1, 1)? {
            break;
        }
        s.say("\n\n")?;
        s.bind_number("day", day);
        s.promise("obstacle", "obstacle");
        s.write("journey.day")?;
        scenery(s)?;
        s.say(" ")?;
        let (need, name) = (s.value("obstacle.1")?, s.value("obstacle.2")?);
        if let Some(at) = tools.iter().position(|tool| *tool == need) {
            s.write(&format!("journey.solved.{name}"))?;
            // What is eaten or given away is gone.
            if ["dog", "guard"].contains(&name.as_str()) {
                tools.remove(at);
            }
        } else {
            s.write(&format!("journey.unsolved.{name}"))?;
            day += 1;
            lost += 1;
        }
        day += 1;
    }
    s.say("\n\n")?;
    s.bind_number("day", day);
    s.bind_number("total", day);
    s.bind_number("lost", lost);
    s.write("journey.arrive")?;
    s.say(" ")?;
    s.write("journey.handover")?;
    s.say(" ")?;
    s.write("journey.pay")?;
    s.say("\n\n")?;
    s.write(if lost == 0 { "journey.smooth" } else { "journey.count" })?;
    s.say(" ")?;
    end(s, "journey")?;
    for key in ["sender", "receiver"] {
        met.push(s.value(key)?);
    }
    Ok(())
}
