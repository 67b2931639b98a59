//! Buffers that are used again: fresh memory costs a page fault for every 4 KiB, at every step.
//!
//! What must stay true: a buffer's content is whatever its last user left; whoever takes one writes before reading.

use std::sync::{Mutex, PoisonError};

const LINE: usize = 16; // u32 values in a cache line

/// Free buffers.
#[derive(Debug, Default)]
pub struct Arena {
    free: Mutex<Vec<Vec<u32>>>,
}

/// A buffer taken from an arena, aligned to a cache line. It goes back when it is dropped.
#[derive(Debug)]
pub struct Buffer<'a> {
    arena: &'a Arena,
    values: Vec<u32>,
    start: usize,
    len: usize,
}

impl Arena {
    /// A buffer of `len` values of 4 bytes, with any content.
    pub fn take(&self, len: usize) -> Buffer<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let best = (0..free.len()).filter(|&i| free[i].len() >= len + LINE).min_by_key(|&i| free[i].len());
        let values = match best {
            // One far too large stays for those who need it.
            Some(index) if free[index].len() <= 4 * (len + (1 << 14)) => free.swap_remove(index),
            _ => {
                // A smaller idle buffer gives way: as layers widen, each would otherwise leave its own size behind.
                // Sizes only grow by this, so a repeated sequence of requests soon finds all it needs.
                let close = |i: &usize| free[*i].len() < len + LINE && free[*i].len() >= len / 4;
                if let Some(index) = (0..free.len()).filter(close).max_by_key(|&i| free[i].len()) {
                    free.swap_remove(index);
                }
                vec![0; size_class(len + LINE)]
            }
        };
        drop(free);
        let start = values.as_ptr().align_offset(64);
        Buffer { arena: self, values, start, len }
    }

    /// Bytes held by the free buffers.
    pub fn idle_bytes(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().map(|values| values.len() * 4).sum()
    }

    /// Gives the memory of the free buffers back.
    pub fn clear(&self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Sizes in steps of an eighth of a power of two, so that layers of nearly the same width share buffers.
fn size_class(len: usize) -> usize {
    let step = (len.next_power_of_two() / 16).max(1024);
    len.div_ceil(step) * step
}

impl Buffer<'_> {
    pub fn words(&self) -> &[u32] {
        &self.values[self.start..self.start + self.len]
    }

    pub fn words_mut(&mut self) -> &mut [u32] {
        &mut self.values[self.start..self.start + self.len]
    }

    pub fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(self.words())
    }

    pub fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.words_mut())
    }

    /// As pairs of bf16 values: twice as many.
    pub fn halves(&self) -> &[u16] {
        bytemuck::cast_slice(self.words())
    }

    pub fn halves_mut(&mut self) -> &mut [u16] {
        bytemuck::cast_slice_mut(self.words_mut())
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.arena.free.lock().unwrap_or_else(PoisonError::into_inner).push(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_widening_sequence_leaves_no_trail() {
        let arena = Arena::default();
        for _ in 0..2 {
            for len in [10_000, 14_000, 20_000, 28_000, 40_000] {
                let _both = (arena.take(len), arena.take(len));
            }
        }
        assert!(arena.idle_bytes() < 2 * 4 * 45_000, "{}", arena.idle_bytes());
    }

    #[test]
    fn buffers_are_aligned_and_used_again() {
        let arena = Arena::default();
        let mut first = arena.take(1000);
        assert_eq!(first.words().as_ptr() as usize % 64, 0);
        first.floats_mut().fill(2.0);
        let address = first.words().as_ptr();
        drop(first);
        let held = arena.idle_bytes();
        let second = arena.take(990);
        assert_eq!(second.words().as_ptr(), address);
        assert_eq!((second.halves().len(), arena.idle_bytes()), (1980, 0));
        drop(second);
        assert_eq!(arena.idle_bytes(), held);
        arena.clear();
        assert_eq!(arena.idle_bytes(), 0);
    }
}
