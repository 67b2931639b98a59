//! The float types of files, read 16 values at a time from bytes that need no alignment.

use crate::simd::Simd;

/// A float type in a file's bytes, which need no alignment.
pub(crate) trait Stored {
    const BYTES: usize;
    /// # Safety
    /// The instruction set is available, and 16 values lie at `from`.
    unsafe fn load<S: Simd>(from: *const u8) -> S::V;
}

pub(crate) struct Single;
impl Stored for Single {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load(from.cast()) }
    }
}

pub(crate) struct Half;
impl Stored for Half {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(from.cast()) }
    }
}

pub(crate) struct Brain;
impl Stored for Brain {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_half(from.cast()) }
    }
}
