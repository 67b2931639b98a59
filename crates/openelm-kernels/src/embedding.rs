//! Rows of the embedding table by id, and their gradients.
//!
//! What must stay true: gradients of one row are added in the order of the tokens, whatever the number of threads.

use crate::error::check;
use crate::simd::{Sink, Source, simd_fn, sweep, widen_half};
use crate::threads::Parts;
use crate::{Cpu, KernelError, Values};

const RUN: usize = 16; // tokens of a gathering task

fn check_ids(ids: &[u32], rows: usize) -> Result<(), KernelError> {
    match ids.iter().find(|id| **id as usize >= rows) {
        Some(id) => Err(KernelError::Dimension {
            operation: "embedding",
            what: "a token id",
            value: *id as usize,
            reason: "which the table has no row for",
            hint: "check that the tokenizer belongs to the model",
        }),
        None => Ok(()),
    }
}

/// `hidden` [tokens, dim] = rows `ids` of `table` [vocabulary, dim], f32 or bf16.
///
/// # Errors
/// When a length does not fit or an id lies outside the table.
pub fn embedding_forward<'a>(
    cpu: &Cpu,
    table: impl Into<Values<'a>>,
    dim: usize,
    ids: &[u32],
    hidden: &mut [f32],
) -> Result<(), KernelError> {
    let table = table.into();
    check("embedding", "hidden", ids.len() * dim, hidden.len())?;
    let rows = table.len() / dim.max(1);
    check("embedding", "table", rows * dim, table.len())?;
    check_ids(ids, rows)?;
    let to = Parts::new(hidden);
    cpu.threads.for_runs(ids.len(), RUN, |start, count| {
        for (token, id) in ids.iter().enumerate().skip(start).take(count) {
            // SAFETY: tokens do not overlap.
            let to = unsafe { to.part(token * dim, dim) };
            match table.part(*id as usize * dim, dim) {
                Values::F32(row) => to.copy_from_slice(row),
                Values::Bf16(row) => to.iter_mut().zip(row).for_each(|(to, half)| *to = widen_half(*half)),
            }
        }
    });
    Ok(())
}

/// Adds `d_hidden` [tokens, dim] to the rows `ids` of `d_table` [vocabulary, dim]; tokens with the id `ignored` give
/// nothing.
///
/// # Errors
/// When a length does not fit or an id lies outside the table.
pub fn embedding_backward(
    cpu: &Cpu,
    d_hidden: &[f32],
    dim: usize,
    ids: &[u32],
    ignored: Option<u32>,
    d_table: &mut [f32],
) -> Result<(), KernelError> {
    check("embedding backward", "d_hidden", ids.len() * dim, d_hidden.len())?;
    let rows = d_table.len() / dim.max(1);
    check("embedding backward", "d_table", rows * dim, d_table.len())?;
    check_ids(ids, rows)?;
    // Stable sorting keeps the tokens of one id in their order, and hands each id to one task.
    let mut order: Vec<u32> = (0..ids.len() as u32).filter(|t| Some(ids[*t as usize]) != ignored).collect();
    order.sort_by_key(|token| ids[*token as usize]);
    let groups: Vec<&[u32]> = order.chunk_by(|a, b| ids[*a as usize] == ids[*b as usize]).collect();
    let to = Parts::new(d_table);
    cpu.threads.for_runs(groups.len(), RUN, |start, count| {
        for tokens in &groups[start..start + count] {
            // SAFETY: every group has an id, and so a row, of its own.
            let row = unsafe { to.part(ids[tokens[0] as usize] as usize * dim, dim) };
            for token in *tokens {
                // SAFETY: the instruction set is available.
                unsafe { add(cpu.isa, &d_hidden[*token as usize * dim..][..dim], row) };
            }
        }
    });
    Ok(())
}

simd_fn! {
    fn add<S>(from: &[f32], to: &mut [f32]) {
        let (from, to) = (Source::F32(from.as_ptr()), &mut to[..from.len()]);
        let (len, to) = (to.len(), to.as_mut_ptr());
        sweep!(len, |at, lanes| {
            let sum = S::add(Source::F32(to).load::<S>(at, lanes), from.load::<S>(at, lanes));
            Sink::F32(to).store::<S>(at, sum, lanes);
        });
    }
}
