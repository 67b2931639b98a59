//! A few tokens through the model: every thread goes from phase to phase with the others, and all rows of the weights are read once.
//!
//! What must stay true: between two phases nobody writes what another reads.

use super::{Piece, attend::attend, model::StoredModel, wanted_of};
use crate::norm;
use crate::rope;
use crate::simd::{Sink, Source, sigmoid, simd_fn, sweep};
use crate::stored::{MOST_TOKENS, Prepared, StoredRows, multiply_rows};
use crate::threads::{Member, Parts};
use crate::{Cpu, Heads, Isa, KernelError};

/// Bytes of weights in a task: long streams of memory, and still something to share when a thread is held up.
const TASK_BYTES: usize = 1 << 19;
/// Rows of a task at most.
const MOST_ROWS: usize = 1024;

/// Where a token stands.
struct Place {
    piece: usize,
    position: usize,
}

/// See [`read_tokens`](super::read_tokens).
pub(super) fn read(cpu: &Cpu, model: &StoredModel<'_>, pieces: &[Piece<'_, '_>], logits: &mut [f32]) -> Result<(), KernelError> {
    let place = |(piece, held): (usize, &Piece<'_, '_>)| {
        let start = held.start;
        (0..held.ids.len()).map(move |i| Place { piece, position: start + i })
    };
    let places: Vec<Place> = pieces.iter().enumerate().flat_map(place).collect();
    let wanted = wanted_of(pieces);
    let tokens = places.len();
    let mut x = model.embed(pieces)?;
    let widest = |width: &dyn Fn(&super::StoredBlock<'_>) -> usize| model.blocks.iter().map(width).max().unwrap_or(0);
    let mut joint = vec![0.0; tokens * widest(&|block| block.shape.heads.joint_width())];
    let mut attended = vec![0.0; tokens * widest(&|block| block.shape.heads.query_width())];
    let mut hidden = vec![0.0; tokens * widest(&|block| block.shape.ffn_dim)];
    let team = Team {
        isa: cpu.isa,
        model,
        pieces,
        places: &places,
        x: Parts::new(&mut x),
        joint: Parts::new(&mut joint),
        attended: Parts::new(&mut attended),
        hidden: Parts::new(&mut hidden),
        logits: Parts::new(logits),
    };
    cpu.threads.together(|member| team.work(member, &wanted));
    Ok(())
}

/// What all members see.
struct Team<'a> {
    isa: Isa,
    model: &'a StoredModel<'a>,
    pieces: &'a [Piece<'a, 'a>],
    places: &'a [Place],
    /// [tokens, model_dim]
    x: Parts<'a, f32>,
    joint: Parts<'a, f32>,
    attended: Parts<'a, f32>,
    hidden: Parts<'a, f32>,
    /// [wanted, vocabulary]
    logits: Parts<'a, f32>,
}

impl Team<'_> {
    fn work(&self, member: &Member<'_>, wanted: &[usize]) {
        let tokens = self.places.len();
        let all: Vec<usize> = (0..tokens).collect();
        let mut input = Prepared::default();
        let mut sums = vec![0.0; 2 * MOST_ROWS * MOST_TOKENS];
        let last = self.model.blocks.len().saturating_sub(1);
        for (layer, block) in self.model.blocks.iter().enumerate() {
            let heads = block.shape.heads;
            let (joint_width, query_width, ffn_dim) = (heads.joint_width(), heads.query_width(), block.shape.ffn_dim);
            // SAFETY: each phase writes what no phase beside it reads, every task its own part; phases are kept apart by the member.
            unsafe {
                self.norm(block.attn_norm, &all, &block.qkv_proj, &mut input);
                self.product(member, &block.qkv_proj, &input, &mut sums, |row, token, sums| {
                    self.joint.part(token * joint_width + row, sums.len()).copy_from_slice(sums);
                });
                self.attention(member, layer, heads);
                // Behind the last block's keys and values only tokens with logits matter.
                let rows = if layer == last { wanted } else { &all };
                if rows.is_empty() {
                    return;
                }
                self.gather(&self.attended, query_width, rows, &block.out_proj, &mut input);
                let add = |row: usize, token: usize, sums: &[f32]| {
                    let x = self.x.part(rows[token] * self.model.model_dim + row, sums.len());
                    x.iter_mut().zip(sums).for_each(|(x, sum)| *x += sum);
                };
                self.product(member, &block.out_proj, &input, &mut sums, add);
                self.norm(block.ffn_norm, rows, &block.proj_1, &mut input);
                self.feed(member, &block.proj_1, ffn_dim, block.shape.gated, &input, &mut sums);
                let in_order: Vec<usize> = (0..rows.len()).collect();
                self.gather(&self.hidden, ffn_dim, &in_order, &block.proj_2, &mut input);
                self.product(member, &block.proj_2, &input, &mut sums, add);
            }
        }
        let vocabulary = self.model.head.rows();
        // SAFETY: as above.
        unsafe {
            self.norm(self.model.norm, wanted, &self.model.head, &mut input);
            self.product(member, &self.model.head, &input, &mut sums, |row, token, sums| {
                self.logits.part(token * vocabulary + row, sums.len()).copy_from_slice(sums);
            });
        }
    }

    /// Normed rows of x, ready for `weights`.
    unsafe fn norm(&self, weight: &[f32], rows: &[usize], weights: &StoredRows<'_>, input: &mut Prepared) {
        let dim = weight.len();
        input.resize(rows.len(), dim);
        for (row, to) in rows.iter().zip(input.values.chunks_exact_mut(dim)) {
            // SAFETY: the caller's promise: nobody writes x in this phase.
            unsafe {
                norm::forward(self.isa, self.x.shared(row * dim, dim), weight, Sink::F32(to.as_mut_ptr()), &mut [0.0]);
            }
        }
        if let Some(run) = weights.run() {
            input.quantise(self.isa, run);
        }
    }

    /// Rows of a buffer [tokens, width], ready for `weights`.
    unsafe fn gather(&self, from: &Parts<'_, f32>, width: usize, rows: &[usize], weights: &StoredRows<'_>, input: &mut Prepared) {
        input.resize(rows.len(), width);
        for (row, to) in rows.iter().zip(input.values.chunks_exact_mut(width)) {
            // SAFETY: the caller's promise: nobody writes the buffer in this phase.
            unsafe { to.copy_from_slice(from.shared(row * width, width)) };
        }
        if let Some(run) = weights.run() {
            input.quantise(self.isa, run);
        }
    }

    /// All rows of `weights` times the input; `store` is given the first row, the token and the sums, which are made in `space`.
    unsafe fn product(
        &self,
        member: &Member<'_>,
        weights: &StoredRows<'_>,
        input: &Prepared,
        space: &mut [f32],
        store: impl Fn(usize, usize, &[f32]),
    ) {
        let rows = weights.rows();
        let run = run_of(weights, rows, member.count());
        member.share(rows.div_ceil(run), |task| {
            let first = task * run;
            let count = run.min(rows - first);
            let sums = &mut space[..count * input.tokens];
            // SAFETY: the instruction set is available.
            unsafe { multiply_rows(self.isa, weights, first, count, input, sums) };
            for (token, sums) in sums.chunks_exact(count).enumerate() {
                store(first, token, sums);
            }
        });
    }

    /// The feed-forward part up to its hidden layer: gate and up meet in one task.
    unsafe fn feed(&self, member: &Member<'_>, proj_1: &StoredRows<'_>, width: usize, gated: bool, input: &Prepared, space: &mut [f32]) {
        let run = run_of(proj_1, width, member.count());
        let (gates, ups) = space.split_at_mut(MOST_ROWS * MOST_TOKENS);
        member.share(width.div_ceil(run), |task| {
            let first = task * run;
            let count = run.min(width - first);
            let gates = &mut gates[..count * input.tokens];
            let ups = &mut ups[..count * input.tokens];
            // SAFETY: the instruction set is available; each task writes its own columns of each token.
            unsafe {
                multiply_rows(self.isa, proj_1, first, count, input, gates);
                if gated {
                    multiply_rows(self.isa, proj_1, width + first, count, input, ups);
                } else {
                    ups.fill(1.0);
                }
                for (token, (gates, ups)) in gates.chunks_exact(count).zip(ups.chunks_exact(count)).enumerate() {
                    swish(self.isa, gates, ups, self.hidden.part(token * width + first, count));
                }
            }
        });
    }

    /// Keys and values into the stores, and the queries' attention over them: one task for each key/value head of each piece.
    unsafe fn attention(&self, member: &Member<'_>, layer: usize, heads: Heads) {
        let Heads { queries, keys, head_dim } = heads;
        let group = queries / keys;
        let norms = self.model.blocks[layer].head_norms;
        member.share(self.pieces.len() * keys, |task| {
            let (number, head) = (task / keys, task % keys);
            let parts = &self.pieces[number].layers[layer];
            let mut turned = vec![0.0; (group + 1) * head_dim];
            for (token, place) in self.places.iter().enumerate().filter(|(_, place)| place.piece == number) {
                let at = place.position * head_dim / 2;
                let (cos, sin) = (&self.model.tables.cos[at..at + head_dim / 2], &self.model.tables.sin[at..at + head_dim / 2]);
                // SAFETY: nobody writes the joint projection in this phase; this task alone has this head of this piece.
                unsafe {
                    let joint = self.joint.shared(token * heads.joint_width(), heads.joint_width());
                    let turn = |index: usize, weight: Option<&[f32]>, to: &mut [f32]| {
                        let from = Source::F32(joint[index * head_dim..].as_ptr());
                        rope::forward(self.isa, from, weight, cos, sin, Sink::F32(to.as_mut_ptr()));
                    };
                    let (own, key) = turned.split_at_mut(group * head_dim);
                    turn(queries + head, norms.keys, key);
                    for (index, to) in own.chunks_exact_mut(head_dim).enumerate() {
                        turn(head * group + index, norms.queries, to);
                    }
                    let value = &joint[(queries + keys + head) * head_dim..][..head_dim];
                    parts.put(head, place.position, key, value);
                    let out = self.attended.part(token * heads.query_width() + head * group * head_dim, group * head_dim);
                    attend(self.isa, parts, head, place.position + 1, own, out);
                }
            }
        });
    }
}

/// Rows of a task, of `rows` in all for `members`.
fn run_of(weights: &StoredRows<'_>, rows: usize, members: usize) -> usize {
    let row_bytes = (weights.byte_len() / weights.rows().max(1)).max(1);
    (TASK_BYTES / row_bytes).min(rows.div_ceil(members)).clamp(1, MOST_ROWS)
}

simd_fn! {
    /// silu(gate) · up.
    fn swish<S>(gates: &[f32], ups: &[f32], to: &mut [f32]) {
        let (gates, ups, to_start) = (Source::F32(gates.as_ptr()), Source::F32(ups.as_ptr()), Sink::F32(to.as_mut_ptr()));
        sweep!(to.len(), |at, lanes| {
            let gate = gates.load::<S>(at, lanes);
            to_start.store::<S>(at, S::mul(S::mul(gate, sigmoid::<S>(gate)), ups.load::<S>(at, lanes)), lanes);
        });
    }
}
