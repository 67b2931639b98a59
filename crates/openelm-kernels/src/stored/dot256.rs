//! Products of bytes in registers of 256 bits: in pairs (AVX2), or by fours at once (AVX-VNNI).
//!
//! What must stay true: both give the same whole numbers, as long as no sum of a pair leaves 16 bits.

use std::arch::x86_64::*;

/// The same value, computed at this place of the code and no later. Left alone, the compiler puts off the sums of one column until those of
/// another are done, and puts what they need into memory until then.
///
/// # Safety
/// Needs AVX2.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn pinned(mut sums: __m256i) -> __m256i {
    // SAFETY: a comment, which reads and writes nothing. Not "pure": that is what keeps its place.
    unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) sums, options(nomem, nostack, preserves_flags)) };
    sums
}

pub(super) trait Dot256 {
    /// Adds to each of 8 sums the products of 4 unsigned levels with 4 signed activations.
    ///
    /// # Safety
    /// Needs AVX2, and what the name says; no sum of two products leaves 16 bits.
    unsafe fn add(sums: __m256i, levels: __m256i, x: __m256i) -> __m256i;
}

/// AVX2.
pub(super) struct Pairs;
impl Dot256 for Pairs {
    #[inline(always)]
    unsafe fn add(sums: __m256i, levels: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(levels, x), _mm256_set1_epi16(1))) }
    }
}

/// AVX-VNNI.
pub(super) struct Fours;
impl Dot256 for Fours {
    #[inline(always)]
    unsafe fn add(sums: __m256i, levels: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_dpbusd_avx_epi32(sums, levels, x) }
    }
}

/// The same instruction as AVX-512 spells it, by which AVX-VNNI's bodies are tested on processors that have this one alone.
#[cfg(test)]
pub(super) struct LongFours;
#[cfg(test)]
impl Dot256 for LongFours {
    #[inline(always)]
    unsafe fn add(sums: __m256i, levels: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_dpbusd_epi32(sums, levels, x) }
    }
}
