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
    /// before it. Without it a row is one document.
    pub starts: Option<&'a [u32]>,
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
        if let Some(starts) = self.starts {
            check(operation, "document starts", self.tokens(), starts.len())?;
            if let Some(bad) = (0..starts.len()).find(|token| starts[*token] as usize > token % self.sequence) {
                let (reason, hint) = ("past the token itself", "give positions in the row, not in the batch");
                let value = starts[bad] as usize;
                return Err(KernelError::Dimension { operation, what: "a document start", value, reason, hint });
            }
        }
        Ok(())
    }

    /// The first key that the query at `position` of row `row` sees.
    fn first_key(&self, row: usize, position: usize) -> usize {
        self.starts.map_or(0, |starts| starts[row * self.sequence + position] as usize)
    }
}
