//! Causal grouped-query attention in tiles: scores live for one block of queries and keys at a time.
//!
//! What must stay true: query head h reads key/value head h / (queries / keys); the only thing kept of the scores is the
//! logarithm of each row's sum of exponentials; sums over blocks and over the heads of a group have a fixed order.

mod backward;
mod cached;
mod forward;
mod tiles;

pub use backward::attention_backward;
pub(crate) use cached::{CachedAttention, attention_cached};
pub use forward::attention_forward;

use crate::error::check;
use crate::{Heads, KernelError};

/// Sizes of one attention: `batch` rows of `sequence` tokens, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape<'a> {
    pub heads: Heads,
    pub batch: usize,
    pub sequence: usize,
    /// For every token the position in its row where its document begins, [batch · sequence]; a query sees no key
    /// before it. Without it a row is one document. Two more such rows, [3, batch · sequence], say for every token where a
    /// gap begins and ends, whose keys it does not see: so two endings of one text can stand behind it, one after the other.
    pub starts: Option<&'a [u32]>,
}

/// Keys of a block that one query sees: from `begin` to before `end`, those of the gap left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    begin: usize,
    end: usize,
    gap_begin: usize,
    gap_end: usize,
}

impl Seen {
    fn is_empty(self) -> bool {
        self.begin >= self.end
    }
}

impl AttentionShape<'_> {
    fn tokens(&self) -> usize {
        self.batch * self.sequence
    }

    fn check(&self, operation: &'static str, turned: usize, joint: usize, attended: usize, sums: usize) -> Result<(), KernelError> {
        let Heads { queries, keys, head_dim } = self.heads;
        if keys == 0 || queries % keys != 0 || head_dim == 0 {
            let (reason, hint) = ("which key/value heads do not divide", "use a multiple of the key/value heads");
            return Err(KernelError::Dimension { operation, what: "query heads", value: queries, reason, hint });
        }
        check(operation, "turned queries and keys", self.tokens() * self.heads.turned_width(), turned)?;
        check(operation, "qkv", self.tokens() * self.heads.joint_width(), joint)?;
        check(operation, "attended values", self.tokens() * self.heads.query_width(), attended)?;
        check(operation, "log-sums", self.tokens() * queries, sums)?;
        if let Some(all) = self.starts {
            let expected = if all.len() == 3 * self.tokens() { all.len() } else { self.tokens() };
            check(operation, "document starts", expected, all.len())?;
            // Every position lies in the row, before the token or at it, and a gap's end is not before its beginning.
            for (index, position) in all.iter().enumerate() {
                let token = index % self.tokens();
                let early = index >= 2 * self.tokens() && *position < all[index - self.tokens()];
                if early || *position as usize > token % self.sequence {
                    let (what, reason) = ("a document start or gap", if early { "before the gap begins" } else { "past the token itself" });
                    let hint = "give positions in the row, not in the batch";
                    return Err(KernelError::Dimension { operation, what, value: *position as usize, reason, hint });
                }
            }
        }
        Ok(())
    }

    /// The gap of the query at `position` of row `row`, first key and one past the last; empty where there is none.
    fn gap(&self, row: usize, position: usize) -> (usize, usize) {
        let at = |kind: usize| {
            let all = self.starts.filter(|all| all.len() > self.tokens())?;
            all.get(kind * self.tokens() + row * self.sequence + position).map(|position| *position as usize)
        };
        (at(1).unwrap_or(0), at(2).unwrap_or(0))
    }

    /// What the query at `position` of row `row` sees of `keys` keys from `first_key` on, counted from there.
    fn seen(&self, row: usize, position: usize, first_key: usize, keys: usize) -> Seen {
        let within = |key: usize| key.saturating_sub(first_key).min(keys);
        let (mut begin, mut end) = (within(self.first_key(row, position)), within(position + 1));
        let (gap_begin, gap_end) = self.gap(row, position);
        let (gap_begin, gap_end) = (within(gap_begin), within(gap_end));
        if gap_begin <= begin {
            begin = begin.max(gap_end);
        }
        if gap_end >= end {
            end = end.min(gap_begin.max(begin));
        }
        Seen { begin: begin.min(end), end, gap_begin, gap_end }
    }

    /// The first key that the query at `position` of row `row` sees.
    fn first_key(&self, row: usize, position: usize) -> usize {
        self.starts.map_or(0, |starts| starts[row * self.sequence + position] as usize)
    }
}
