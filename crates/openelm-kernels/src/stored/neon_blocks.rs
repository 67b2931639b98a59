//! Quantised blocks in NEON, 32 weights at a time in their own order: signed levels of 8 bits, so that types with a level that stands for
//! 0 need no offset.
//!
//! What must stay true: scale · level + offset is the weight that [`layout`](super::layout) gives.

use std::arch::aarch64::*;

use super::layout::six_bits;
use crate::simd::neon::read_f16;

/// 32 weights.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) levels: [int8x16_t; 2],
    /// What the levels of each half are multiplied with, where the type has [`PARTS`](Blocks::PARTS); else 1.
    pub(super) parts: [i32; 2],
    pub(super) scale: f32,
    /// 0 where the type has no [`OFFSETS`](Blocks::OFFSETS).
    pub(super) offset: f32,
}

/// A type of block.
pub(super) trait Blocks {
    /// Bytes of a block.
    const BYTES: usize;
    /// Chunks of a block.
    const CHUNKS: usize;
    const OFFSETS: bool = false;
    /// Whether 16 weights have a whole number of their own as part of the scale.
    const PARTS: bool = false;
    /// What is worked out once for a block.
    type Head: Copy;

    /// # Safety
    /// `at` holds a block.
    unsafe fn head(at: *const u8) -> Self::Head;

    /// The `index`-th 32 weights.
    ///
    /// # Safety
    /// As [`head`](Self::head).
    unsafe fn chunk(at: *const u8, head: &Self::Head, index: usize) -> Chunk;
}

/// 16 bytes as 32 levels of 4 bits: lower halves, then upper ones.
#[inline(always)]
unsafe fn nibbles(at: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = vld1q_u8(at);
        [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)]
    }
}

/// A fifth bit for each of 32 levels, in its place.
#[inline(always)]
unsafe fn fifth_bits(at: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise; the arrays have 16 bytes.
    unsafe {
        let bytes = vreinterpretq_u8_u32(vdupq_n_u32(at.cast::<u32>().read_unaligned()));
        let bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        let spread = |first: u8| vcombine_u8(vdup_n_u8(first), vdup_n_u8(first + 1));
        [0, 2].map(|first| vandq_u8(vtstq_u8(vqtbl1q_u8(bytes, spread(first)), bits), vdupq_n_u8(16)))
    }
}

#[inline(always)]
unsafe fn joined(low: [uint8x16_t; 2], high: [uint8x16_t; 2]) -> [uint8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe { [vorrq_u8(low[0], high[0]), vorrq_u8(low[1], high[1])] }
}

/// Levels above `zero` as signed ones.
#[inline(always)]
unsafe fn signed(levels: [uint8x16_t; 2], zero: i8) -> [int8x16_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe { levels.map(|levels| vsubq_s8(vreinterpretq_s8_u8(levels), vdupq_n_s8(zero))) }
}

/// Two registers of bytes, moved down by `shift` bits, of which those of `mask` are kept.
#[inline(always)]
unsafe fn bits(at: *const u8, shift: usize, mask: u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let shift = vdupq_n_s8(-(shift as i8));
        [vld1q_u8(at), vld1q_u8(at.add(16))].map(|bytes| vandq_u8(vshlq_u8(bytes, shift), vdupq_n_u8(mask)))
    }
}

macro_rules! small {
    ($name:ident, $bytes:literal, $offsets:literal, |$at:ident| $chunk:expr) => {
        pub(super) struct $name;
        impl Blocks for $name {
            const BYTES: usize = $bytes;
            const CHUNKS: usize = 1;
            const OFFSETS: bool = $offsets;
            type Head = ();

            #[inline(always)]
            unsafe fn head(_: *const u8) {}

            #[inline(always)]
            unsafe fn chunk($at: *const u8, (): &(), _: usize) -> Chunk {
                // SAFETY: the caller's promise.
                let (levels, offset) = unsafe { $chunk };
                // SAFETY: as above; every block begins with its scale.
                Chunk { levels, parts: [1; 2], scale: unsafe { read_f16($at) }, offset }
            }
        }
    };
}

small!(Q8_0, 34, false, |at| ([vld1q_s8(at.add(2).cast()), vld1q_s8(at.add(18).cast())], 0.0));
small!(Q4_0, 18, false, |at| (signed(nibbles(at.add(2)), 8), 0.0));
small!(Q5_0, 22, false, |at| (signed(joined(nibbles(at.add(6)), fifth_bits(at.add(2))), 16), 0.0));
small!(Q4_1, 20, true, |at| (signed(nibbles(at.add(4)), 0), read_f16(at.add(2))));
small!(Q5_1, 24, true, |at| (signed(joined(nibbles(at.add(8)), fifth_bits(at.add(4))), 0), read_f16(at.add(2))));

macro_rules! affine {
    ($name:ident, $bytes:literal, zero $zero:literal, |$at:ident| $levels:expr) => {
        pub(super) struct $name;
        impl Blocks for $name {
            const BYTES: usize = $bytes;
            const CHUNKS: usize = 1;
            const OFFSETS: bool = true;
            type Head = ();

            #[inline(always)]
            unsafe fn head(_: *const u8) {}

            #[inline(always)]
            unsafe fn chunk($at: *const u8, (): &(), _: usize) -> Chunk {
                // SAFETY: the caller's promise; every block begins with its scale and its minimum.
                let (levels, [scale, minimum]) = unsafe { ($levels, [0, 4].map(|place| $at.add(place).cast::<f32>().read_unaligned())) };
                Chunk { levels, parts: [1; 2], scale, offset: minimum + $zero * scale }
            }
        }
    };
}

affine!(Affine4, 24, zero 0.0, |at| signed(nibbles(at.add(8)), 0));
// Signed levels are 128 lower.
affine!(Affine8, 40, zero 128.0, |at| [8, 24].map(|place| vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at.add(place)), vdupq_n_u8(0x80)))));

/// Scales and offsets of the 8 chunks of a block with two f16 values and 12 bytes of 6-bit numbers.
#[inline(always)]
unsafe fn k_scales(at: *const u8) -> [[f32; 8]; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let numbers = six_bits(&*at.add(4).cast::<[u8; 12]>());
        let (scale, minimum) = (read_f16(at), -read_f16(at.add(2)));
        [std::array::from_fn(|i| scale * f32::from(numbers[i])), std::array::from_fn(|i| minimum * f32::from(numbers[8 + i]))]
    }
}

macro_rules! with_minima {
    ($name:ident, $bytes:literal, |$at:ident, $index:ident| $levels:expr) => {
        pub(super) struct $name;
        impl Blocks for $name {
            const BYTES: usize = $bytes;
            const CHUNKS: usize = 8;
            const OFFSETS: bool = true;
            type Head = [[f32; 8]; 2];

            #[inline(always)]
            unsafe fn head(at: *const u8) -> [[f32; 8]; 2] {
                // SAFETY: the caller's promise.
                unsafe { k_scales(at) }
            }

            #[inline(always)]
            unsafe fn chunk($at: *const u8, [scales, offsets]: &[[f32; 8]; 2], $index: usize) -> Chunk {
                // SAFETY: the caller's promise.
                let levels = unsafe { signed($levels, 0) };
                Chunk { levels, parts: [1; 2], scale: scales[$index], offset: offsets[$index] }
            }
        }
    };
}

with_minima!(Q4K, 144, |at, index| bits(at.add(16 + index / 2 * 32), index % 2 * 4, 15));
with_minima!(Q5K, 176, |at, index| {
    let high = bits(at.add(16), index, 1).map(|bits| vshlq_n_u8::<4>(bits));
    joined(bits(at.add(48 + index / 2 * 32), index % 2 * 4, 15), high)
});

pub(super) struct Q6K;
impl Blocks for Q6K {
    const BYTES: usize = 210;
    const CHUNKS: usize = 8;
    const PARTS: bool = true;
    type Head = f32;

    #[inline(always)]
    unsafe fn head(at: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { read_f16(at.add(208)) }
    }

    #[inline(always)]
    unsafe fn chunk(at: *const u8, scale: &f32, index: usize) -> Chunk {
        // SAFETY: the caller's promise.
        unsafe {
            // Each half of the block: 64 bytes of lower bits for 4 chunks, 32 bytes with two upper bits of each.
            let (part, quarter) = (index / 4, index % 4);
            let low = bits(at.add(part * 64 + quarter % 2 * 32), quarter / 2 * 4, 15);
            let high = bits(at.add(128 + part * 32), 2 * quarter, 3).map(|bits| vshlq_n_u8::<4>(bits));
            let own = |half: usize| i32::from(*at.add(192 + 2 * index + half).cast::<i8>());
            Chunk { levels: signed(joined(low, high), 32), parts: [own(0), own(1)], scale: *scale, offset: 0.0 }
        }
    }
}
