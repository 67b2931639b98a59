//! A market day in numbers: what is left, what was paid, and whether it is enough.

use super::super::draw::Halt;
use super::super::english::counted;
use super::super::scribe::Scribe;
use super::{end, scenery};

pub fn prepare(s: &mut Scribe) -> Result<(), Halt> {
    s.promise("goods", "goods");
    s.promise("thing", "object");
    s.promise("look", "look");
    let count = s.draw.between(8, 30)?;
    s.bind_number("count", count);
    Ok(())
}

fn coins(count: i64) -> String {
    counted(count, "coin", "coins")
}

pub fn tell(s: &mut Scribe, met: &mut Vec<String>) -> Result<(), Halt> {
    let mut left = s.number("count")?;
    let price = s.draw.between(2, 9)?;
    s.bind("price", coins(price));
    s.write("market.start")?;
    let cost = s.draw.between(20, 80)?;
    s.bind("cost", coins(cost));
    s.say(" ")?;
    s.write("market.need")?;
    scenery(s)?;
    s.say("\n\n")?;
    let (many, one) = (s.value("goods")?, s.value("goods.1")?);
    let mut sold = 0;
    for deal in 0..6 {
        if left == 0 || (deal >= 3 && !s.draw.chance(3, 2)?) {
            break;
        }
        if deal > 0 {
            s.say(" ")?;
        }
        let sale = deal == 0 || s.draw.chance(5, 1)?;
        let amount = s.draw.between(1, left.min(6))?;
        left -= amount;
        s.bind("bought", counted(amount, &one, &many));
        s.bind("paid", coins(amount * price));
        s.bind("left", if left == 0 { "none".to_string() } else { counted(left, &one, &many) });
        if sale {
            sold += amount;
            s.promise_person("buyer");
            s.write("market.buy")?;
            met.push(s.value("buyer")?);
        } else {
            s.write_fresh("market.mishap")?;
        }
    }
    if left == 0 {
        s.say(" ")?;
        s.write("market.soldout")?;
    }
    s.say("\n\n")?;
    let income = sold * price;
    s.bind("sold", counted(sold, &one, &many));
    s.bind("income", coins(income));
    s.write("market.total")?;
    s.say(" ")?;
    s.bind("rest", coins((income - cost).abs()));
    s.write(match income.cmp(&cost) {
        std::cmp::Ordering::Greater => "market.enough",
        std::cmp::Ordering::Equal => "market.exact",
        std::cmp::Ordering::Less => "market.short",
    })?;
    s.say(" ")?;
    end(s, "market")
}
