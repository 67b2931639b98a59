//! Articles of Veyra's encyclopaedia: true statements about one entity and those it is linked with.

use super::draw::Halt;
use super::kinds::Kind;
use super::scribe::Scribe;
use super::world::Value;

/// How often an article or question is about each kind.
pub const KINDS: [(Kind, u32); 5] = [(Kind::Town, 6), (Kind::Person, 4), (Kind::Animal, 4), (Kind::Plant, 3), (Kind::River, 2)];

/// Chooses a kind.
pub fn choose_kind(s: &mut Scribe) -> Result<Kind, Halt> {
    let chosen = s.draw.pick(&KINDS.map(|(_, weight)| weight))?;
    KINDS.get(chosen).map(|(kind, _)| *kind).ok_or_else(|| Halt::Fault("a kind beyond its table".into()))
}

/// The attribute by which entities of a kind are compared, and whether more of it wins.
pub fn compared(kind: Kind) -> (&'static str, bool) {
    match kind {
        Kind::Town => ("founded", false),
        Kind::Person => ("born", false),
        Kind::River => ("length", true),
        Kind::Animal => ("age", true),
        Kind::Plant => ("height", true),
    }
}

/// Binds `w` to the winner of `e` and `f` and `l` to the other; false if they are alike.
pub fn bind_comparison(s: &mut Scribe, kind: Kind) -> Result<bool, Halt> {
    let (attribute, more) = compared(kind);
    let (e, f) = (s.entity("e")?, s.entity("f")?);
    let number = |index| s.world.entity(kind, index).and_then(|entity| entity.value(attribute)).and_then(Value::number).unwrap_or(0);
    let order = number(e).cmp(&number(f));
    let (winner, loser) = if order.is_gt() == more { (e, f) } else { (f, e) };
    s.bind_entity("w", kind, winner);
    s.bind_entity("l", kind, loser);
    Ok(order.is_ne())
}

/// One article of up to five paragraphs.
pub fn article(s: &mut Scribe) -> Result<(), Halt> {
    let kind = choose_kind(s)?;
    s.promise_entity("e", kind, &[]);
    s.write(&format!("article.{}.head", kind.key()))?;
    s.say("\n\n")?;
    let index = s.entity("e")?;
    let mut told = vec![(kind, index)];
    paragraph(s, kind, told.len())?;
    let (mut compare, mut legend) = (3, 2);
    for extra in 0..4 {
        s.bind_entity("e", kind, index);
        let links = links(s, &told);
        // The first extra paragraph always comes, so that no article is too short to be read.
        let mut weights = vec![if extra == 0 { 0 } else { 5 }, compare, legend];
        weights.extend(links.iter().map(|_| 4));
        match s.draw.pick(&weights)? {
            0 => break,
            1 => {
                compare = 0;
                s.say("\n\n")?;
                s.promise_entity("f", kind, &[index]);
                let differ = bind_comparison(s, kind)?;
                s.write(&if differ { format!("article.compare.{}", kind.key()) } else { "article.compare.tie".into() })?;
            }
            2 => {
                legend = 0;
                s.say("\n\n")?;
                s.write("article.legend")?;
            }
            chosen => {
                let Some((other, at)) = links.get(chosen - 3).copied() else { return Err(Halt::Fault("a link beyond its list".into())) };
                s.say("\n\n")?;
                s.bind_entity("e", other, at);
                told.push((other, at));
                paragraph(s, other, told.len())?;
            }
        }
    }
    Ok(())
}

/// Entities that the told ones name and that have no paragraph yet.
fn links(s: &Scribe, told: &[(Kind, usize)]) -> Vec<(Kind, usize)> {
    let mut links = Vec::new();
    for (kind, index) in told {
        for (_, value) in s.world.entity(*kind, *index).map_or(&[][..], |entity| &entity.values) {
            if let Value::Link(other, at) = value
                && !told.contains(&(*other, *at))
                && !links.contains(&(*other, *at))
            {
                links.push((*other, *at));
            }
        }
    }
    links
}

/// What `e` is, then some of its attributes in any order.
fn paragraph(s: &mut Scribe, kind: Kind, number: usize) -> Result<(), Halt> {
    s.write(&format!("{}.lead", kind.key()))?;
    let mut left: Vec<&str> = kind.attributes().to_vec();
    let least = if number == 1 { left.len().min(4) } else { 1 };
    let mut stated = 0;
    while !left.is_empty() {
        let mut weights = vec![2; left.len()];
        weights.push(if stated >= least { 2 } else { 0 });
        let chosen = s.draw.pick(&weights)?;
        if chosen == left.len() {
            break;
        }
        let attribute = left.remove(chosen);
        s.say(" ")?;
        s.promise_any("S", &format!("{}.subject", kind.key()));
        s.write(&format!("{}.{attribute}.say", kind.key()))?;
        stated += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::derive::leaves;
    use super::super::document::Language;
    use super::*;

    /// The whole tree of one paragraph: its probabilities add up to one, and no two ways give the same words, so the bits
    /// that sampling counts are exactly those of the text.
    #[test]
    fn every_paragraph_about_a_river_comes_about_in_one_way() {
        let language = Language::new(1).unwrap();
        let leaves = leaves(&|draw| {
            let mut scribe = Scribe::new(draw, &language.grammar, &language.world);
            scribe.bind_entity("e", Kind::River, 0);
            paragraph(&mut scribe, Kind::River, 2)
        })
        .unwrap();
        // Two leads; one to three of three attributes in any order, each in 3 x 2 forms.
        assert_eq!(leaves.len(), 2 * (3 * 6 + 6 * 36 + 6 * 216));
        let sum: f64 = leaves.iter().map(|(_, bits)| (-bits).exp2()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        let texts: HashSet<&str> = leaves.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts.len(), leaves.len());
    }
}
