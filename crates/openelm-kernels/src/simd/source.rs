//! Addresses of f32 or bf16 values, read and written through lanes.

use super::{LANES, Simd, round_half, widen_half};

/// Where values are read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    F32(*const f32),
    Bf16(*const u16),
}

/// Where values are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sink {
    F32(*mut f32),
    Bf16(*mut u16),
}

// SAFETY: a source is only read, inside the borrow of the slice it was made from.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}
// SAFETY: whoever writes promises to be alone on the values written.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl Source {
    /// # Safety
    /// The result must stay inside the slice.
    #[inline(always)]
    pub(crate) unsafe fn add(self, count: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(from) => Self::F32(from.add(count)),
                Self::Bf16(from) => Self::Bf16(from.add(count)),
            }
        }
    }

    /// `lanes` values from `at`, 0 in the other lanes.
    ///
    /// # Safety
    /// They lie inside the slice.
    #[inline(always)]
    pub(crate) unsafe fn load<S: Simd>(self, at: usize, lanes: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(from) if lanes == LANES => S::load(from.add(at)),
                Self::F32(from) => S::load_first(from.add(at), lanes),
                Self::Bf16(from) if lanes == LANES => S::load_half(from.add(at)),
                Self::Bf16(from) => S::load_half_first(from.add(at), lanes),
            }
        }
    }
}

impl Sink {
    /// # Safety
    /// The result must stay inside the slice.
    #[inline(always)]
    pub(crate) unsafe fn add(self, count: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(to) => Self::F32(to.add(count)),
                Self::Bf16(to) => Self::Bf16(to.add(count)),
            }
        }
    }

    /// Writes `lanes` values from `at`.
    ///
    /// # Safety
    /// They lie inside the slice, and nobody else touches them.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(self, at: usize, v: S::V, lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(to) if lanes == LANES => S::store(to.add(at), v),
                Self::F32(to) => S::store_first(to.add(at), v, lanes),
                Self::Bf16(to) if lanes == LANES => S::store_half(to.add(at), v),
                Self::Bf16(to) => S::store_half_first(to.add(at), v, lanes),
            }
        }
    }
}

impl Source {
    /// One value.
    ///
    /// # Safety
    /// It lies inside the slice.
    #[inline(always)]
    pub(crate) unsafe fn get(self, at: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(from) => *from.add(at),
                Self::Bf16(from) => widen_half(*from.add(at)),
            }
        }
    }
}

impl Sink {
    /// Writes one value. (Storing one lane with a mask known when compiling was seen to write its neighbour too: LLVM 22
    /// with AVX-512 and without AVX512-BF16.)
    ///
    /// # Safety
    /// It lies inside the slice, and nobody else touches it.
    #[inline(always)]
    pub(crate) unsafe fn put(self, at: usize, value: f32) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(to) => *to.add(at) = value,
                Self::Bf16(to) => *to.add(at) = round_half(value),
            }
        }
    }

    pub(crate) fn as_source(self) -> Source {
        match self {
            Self::F32(from) => Source::F32(from),
            Self::Bf16(from) => Source::Bf16(from),
        }
    }
}

/// Runs a body over `count` values, 16 at a time, the last time with fewer if need be: `sweep!(count, |at, lanes| { body })`.
/// A macro, because a closure would be compiled without the instruction set of its surroundings.
macro_rules! sweep {
    ($count:expr, |$at:ident, $lanes:ident| $body:block) => {{
        let count: usize = $count;
        let mut $at = 0;
        while $at + $crate::simd::LANES <= count {
            let $lanes = $crate::simd::LANES;
            $body
            $at += $crate::simd::LANES;
        }
        if $at < count {
            let $lanes = count - $at;
            $body
        }
    }};
}
pub(crate) use sweep;
