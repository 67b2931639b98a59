//! Quantised blocks in AVX2: the levels of 32 weights in their own order, and the scales and offsets of 256 in two registers.
//!
//! What must stay true: the same levels, scales and offsets as [`layout`](super::layout) gives, but for levels of 8 bits, which are 128 lower,
//! and their offsets 128 scales higher: signed, and Q8_0's offsets are 0.

use std::arch::x86_64::*;

use super::avx512_blocks::{eight_halves, eight_singles};

/// What a step of 256 weights takes: eight blocks of 32, or one of 256.
pub(super) trait Blocks256 {
    /// Bytes of a step.
    const BYTES: usize;
    /// Whether 16 weights share a scale, instead of 32.
    const FINE: bool = false;
    /// Whether levels are signed.
    const SIGNED: bool = false;
    /// What the offsets of [`lanes`](Self::lanes) are to be multiplied with: 0 where there are none.
    const OFFSET: f32 = 1.0;

    /// Of 256 weights the 8 scales and, but for [`OFFSET`](Self::OFFSET), the 8 offsets; where [`FINE`](Self::FINE), the 16 scales, whose
    /// offsets they are too. Of `blocks` blocks of 32 alone when there are less than 8: the others have none.
    ///
    /// # Safety
    /// Needs AVX2, FMA and F16C; `at` holds the blocks.
    unsafe fn lanes(at: *const u8, blocks: usize) -> [__m256; 2];

    /// The levels of the `index`-th 32 weights.
    ///
    /// # Safety
    /// As [`lanes`](Self::lanes).
    unsafe fn levels(at: *const u8, index: usize) -> __m256i;
}

/// 16 bytes as 32 levels of 4 bits: lower halves, then upper ones.
///
/// # Safety
/// Needs AVX2; `at` holds 16 bytes.
#[inline(always)]
unsafe fn nibbles(at: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = _mm_loadu_si128(at.cast());
        _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes), _mm256_set1_epi8(15))
    }
}

/// A fifth bit, of value 16, for each of 32 levels.
///
/// # Safety
/// Needs AVX2; `at` holds 4 bytes.
#[inline(always)]
unsafe fn fifth_bits(at: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
        // Byte i / 8 to place i, where bit i % 8 is the one that counts.
        let spread = _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
        let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(bits, spread), own), own);
        _mm256_and_si256(set, _mm256_set1_epi8(16))
    }
}

macro_rules! small {
    ($name:ident, $bytes:literal, offset $offset:literal, minimum $minimum:literal, signed $signed:literal, |$at:ident| $levels:expr) => {
        pub(super) struct $name;
        impl Blocks256 for $name {
            const BYTES: usize = 8 * $bytes;
            const SIGNED: bool = $signed;
            const OFFSET: f32 = $offset;

            #[inline(always)]
            unsafe fn lanes(at: *const u8, blocks: usize) -> [__m256; 2] {
                // SAFETY: the caller's promise. A block begins with its scale.
                unsafe {
                    let scales = _mm256_cvtph_ps(eight_halves(at, $bytes, blocks));
                    [scales, if $minimum == 0 { scales } else { _mm256_cvtph_ps(eight_halves(at.add($minimum), $bytes, blocks)) }]
                }
            }

            #[inline(always)]
            unsafe fn levels(at: *const u8, index: usize) -> __m256i {
                // SAFETY: the caller's promise.
                unsafe {
                    let $at = at.add(index * $bytes);
                    $levels
                }
            }
        }
    };
}

small!(Q8_0, 34, offset 0.0, minimum 0, signed true, |at| _mm256_loadu_si256(at.add(2).cast()));
small!(Q4_0, 18, offset -8.0, minimum 0, signed false, |at| nibbles(at.add(2)));
small!(Q5_0, 22, offset -16.0, minimum 0, signed false, |at| _mm256_or_si256(nibbles(at.add(6)), fifth_bits(at.add(2))));
small!(Q4_1, 20, offset 1.0, minimum 2, signed false, |at| nibbles(at.add(4)));
small!(Q5_1, 24, offset 1.0, minimum 2, signed false, |at| _mm256_or_si256(nibbles(at.add(8)), fifth_bits(at.add(4))));

macro_rules! affine {
    ($name:ident, $bytes:literal, signed $signed:literal, |$at:ident| $levels:expr) => {
        pub(super) struct $name;
        impl Blocks256 for $name {
            const BYTES: usize = 8 * $bytes;
            const SIGNED: bool = $signed;

            #[inline(always)]
            unsafe fn lanes(at: *const u8, blocks: usize) -> [__m256; 2] {
                // SAFETY: the caller's promise. A block begins with its scale and its minimum.
                unsafe {
                    let scales = eight_singles(at, $bytes, blocks);
                    let zero = _mm256_set1_ps(if $signed { 128.0 } else { 0.0 });
                    [scales, _mm256_fmadd_ps(scales, zero, eight_singles(at.add(4), $bytes, blocks))]
                }
            }

            #[inline(always)]
            unsafe fn levels(at: *const u8, index: usize) -> __m256i {
                // SAFETY: the caller's promise.
                unsafe {
                    let $at = at.add(index * $bytes);
                    $levels
                }
            }
        }
    };
}

affine!(Affine4, 24, signed false, |at| nibbles(at.add(8)));
affine!(Affine8, 40, signed true, |at| _mm256_xor_si256(_mm256_loadu_si256(at.add(8).cast()), _mm256_set1_epi8(-128)));

/// The 8 scales and the 8 offsets of a block with two f16 values and 12 bytes of 6-bit numbers.
///
/// # Safety
/// As [`Blocks256::lanes`].
#[inline(always)]
unsafe fn k_lanes(at: *const u8) -> [__m256; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let numbers = super::layout::six_bits(std::slice::from_raw_parts(at.add(4), 12));
        let numbers = _mm_loadu_si128(numbers.as_ptr().cast());
        let factors = _mm_cvtph_ps(_mm_cvtsi32_si128(at.cast::<i32>().read_unaligned()));
        let scale = _mm256_broadcastss_ps(factors);
        let minimum = _mm256_broadcastss_ps(_mm_movehdup_ps(factors));
        let scales = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(numbers));
        let minima = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(numbers)));
        // Minima are taken away.
        [_mm256_mul_ps(scale, scales), _mm256_mul_ps(_mm256_sub_ps(_mm256_setzero_ps(), minimum), minima)]
    }
}

/// Some bits of each of the 32 bytes at `at`, from bit `shift` on.
///
/// # Safety
/// Needs AVX2; `at` holds 32 bytes.
#[inline(always)]
unsafe fn bits(at: *const u8, shift: usize, mask: i8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = _mm256_srl_epi16(_mm256_loadu_si256(at.cast()), _mm_cvtsi32_si128(shift as i32));
        _mm256_and_si256(bytes, _mm256_set1_epi8(mask))
    }
}

pub(super) struct Q4K;
impl Blocks256 for Q4K {
    const BYTES: usize = 144;

    #[inline(always)]
    unsafe fn lanes(at: *const u8, _: usize) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { k_lanes(at) }
    }

    #[inline(always)]
    unsafe fn levels(at: *const u8, index: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { bits(at.add(16 + 32 * (index / 2)), index % 2 * 4, 15) }
    }
}

pub(super) struct Q5K;
impl Blocks256 for Q5K {
    const BYTES: usize = 176;

    #[inline(always)]
    unsafe fn lanes(at: *const u8, _: usize) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { k_lanes(at) }
    }

    #[inline(always)]
    unsafe fn levels(at: *const u8, index: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let low = bits(at.add(48 + 32 * (index / 2)), index % 2 * 4, 15);
            _mm256_or_si256(low, _mm256_slli_epi16::<4>(bits(at.add(16), index, 1)))
        }
    }
}

pub(super) struct Q6K;
impl Blocks256 for Q6K {
    const BYTES: usize = 210;
    const FINE: bool = true;
    const OFFSET: f32 = -32.0;

    #[inline(always)]
    unsafe fn lanes(at: *const u8, _: usize) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let scales = _mm_loadu_si128(at.add(192).cast());
            let d = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(at.add(208).cast::<i16>().read_unaligned()))));
            let first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales));
            let second = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(scales)));
            [_mm256_mul_ps(d, first), _mm256_mul_ps(d, second)]
        }
    }

    #[inline(always)]
    unsafe fn levels(at: *const u8, index: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            // Each half of the block: 64 bytes of lower bits for 4 times 32 weights, 32 bytes with two upper bits of each.
            let (part, quarter) = (index / 4, index % 4);
            let low = bits(at.add(64 * part + 32 * (quarter % 2)), quarter / 2 * 4, 15);
            _mm256_or_si256(low, _mm256_slli_epi16::<4>(bits(at.add(128 + 32 * part), 2 * quarter, 3)))
        }
    }
}
