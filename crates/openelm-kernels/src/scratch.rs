//! Scratch memory of one thread, kept from task to task.
//!
//! What must stay true: its content is whatever the last task left.

use std::cell::Cell;

thread_local! {
    static WORDS: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with `len` values of 4 bytes, aligned to a cache line.
pub(crate) fn with<R>(len: usize, work: impl FnOnce(&mut [u32]) -> R) -> R {
    // A task inside a task finds the cell empty and makes its own.
    let mut words = WORDS.take();
    if words.len() < len + 16 {
        words = vec![0; len + 16];
    }
    let start = words.as_ptr().align_offset(64);
    let result = work(&mut words[start..start + len]);
    WORDS.set(words);
    result
}
