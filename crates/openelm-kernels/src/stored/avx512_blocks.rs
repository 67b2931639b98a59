//! Quantised blocks in AVX-512, 64 weights at a time in their own order: levels in 64 bytes, and a scale and an offset for every 4; or
//! the scales and offsets of 256 weights in one register.
//!
//! What must stay true: the same levels, scales and offsets as [`layout`](super::layout) gives.

use std::arch::x86_64::*;

/// 64 weights. Lane i of `scales` and `offsets` belongs to the levels 4·i to 4·i + 3.
#[derive(Clone, Copy)]
pub(super) struct Chunk512 {
    pub(super) levels: __m512i,
    pub(super) scales: __m512,
    pub(super) offsets: __m512,
}

/// What a step through a row takes: two blocks of 32, or one of 256.
pub(super) trait Blocks512 {
    /// Weights of a step.
    const WEIGHTS: usize;
    /// Bytes of a step.
    const BYTES: usize;
    /// Whether 16 weights share a scale, instead of 32.
    const FINE: bool = false;
    /// What the offsets of [`lanes`](Self::lanes) are to be multiplied with.
    const OFFSET: f32 = 1.0;
    /// What is worked out once for a step.
    type Head: Copy;

    /// # Safety
    /// Needs AVX-512 F, BW and VL; `at` holds a step, or half of one where `HALF`.
    unsafe fn head<const HALF: bool>(at: *const u8) -> Self::Head;

    /// The `index`-th 64 weights.
    ///
    /// # Safety
    /// As [`head`](Self::head).
    unsafe fn chunk<const HALF: bool>(at: *const u8, head: Self::Head, index: usize) -> Chunk512;

    /// Of 256 weights the 8 scales and, but for [`OFFSET`](Self::OFFSET), the 8 offsets; where [`FINE`](Self::FINE), the 16 scales, whose
    /// offsets they are too. Of `blocks` blocks of 32 alone when there are less than 8: the others have none.
    ///
    /// # Safety
    /// As [`head`](Self::head); `at` holds the blocks.
    unsafe fn lanes(at: *const u8, blocks: usize) -> __m512;
}

/// The f16 values at `at`, `bytes` apart, of `blocks` blocks.
///
/// # Safety
/// As [`Blocks512::lanes`].
#[inline(always)]
pub(super) unsafe fn eight_halves(at: *const u8, bytes: usize, blocks: usize) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let half = |block: usize| at.add(block * bytes).cast::<i16>().read_unaligned();
        if blocks == 8 {
            return _mm_set_epi16(half(7), half(6), half(5), half(4), half(3), half(2), half(1), half(0));
        }
        let mut halves = [0; 8];
        halves.iter_mut().enumerate().take(blocks).for_each(|(block, to)| *to = half(block));
        _mm_loadu_si128(halves.as_ptr().cast())
    }
}

/// The f32 values at `at`, `bytes` apart, of `blocks` blocks.
///
/// # Safety
/// As [`Blocks512::lanes`].
#[inline(always)]
pub(super) unsafe fn eight_singles(at: *const u8, bytes: usize, blocks: usize) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let single = |block: usize| at.add(block * bytes).cast::<f32>().read_unaligned();
        if blocks == 8 {
            return _mm256_set_ps(single(7), single(6), single(5), single(4), single(3), single(2), single(1), single(0));
        }
        let mut singles = [0.0; 8];
        singles.iter_mut().enumerate().take(blocks).for_each(|(block, to)| *to = single(block));
        _mm256_loadu_ps(singles.as_ptr())
    }
}

/// Two f16 values as 8 lanes each; the second is 0 where `HALF`.
///
/// # Safety
/// As [`Blocks512::head`].
#[inline(always)]
unsafe fn two_scales<const HALF: bool>(first: *const u8, second: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm256_set1_epi16(first.cast::<i16>().read_unaligned());
        let both = match HALF {
            true => _mm256_maskz_mov_epi16(0x00ff, first),
            false => _mm256_mask_set1_epi16(first, 0xff00, second.cast::<i16>().read_unaligned()),
        };
        _mm512_cvtph_ps(both)
    }
}

/// Two blocks of 16 bytes as 64 levels of 4 bits: lower halves of the first, its upper halves, and the same of the second.
///
/// # Safety
/// As [`Blocks512::head`].
#[inline(always)]
unsafe fn nibbles<const HALF: bool>(first: *const u8, second: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm512_broadcast_i32x4(_mm_loadu_si128(first.cast()));
        let both = match HALF {
            true => first,
            false => _mm512_mask_broadcast_i32x4(first, 0xff00, _mm_loadu_si128(second.cast())),
        };
        let shifts = _mm512_set_epi32(4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0);
        _mm512_and_si512(_mm512_srlv_epi32(both, shifts), _mm512_set1_epi8(15))
    }
}

/// Adds a fifth bit to 64 levels.
///
/// # Safety
/// As [`Blocks512::head`].
#[inline(always)]
unsafe fn fifth_bits<const HALF: bool>(levels: __m512i, first: *const u8, second: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let low = u64::from(first.cast::<u32>().read_unaligned());
        let high = if HALF { 0 } else { u64::from(second.cast::<u32>().read_unaligned()) };
        _mm512_mask_add_epi8(levels, low | (high << 32), levels, _mm512_set1_epi8(16))
    }
}

macro_rules! small {
    ($name:ident, $bytes:literal, offset $offset:literal, minimum $minimum:literal, |$half:ident, $at:ident, $next:ident| $chunk:expr) => {
        pub(super) struct $name;
        impl Blocks512 for $name {
            const WEIGHTS: usize = 64;
            const BYTES: usize = 2 * $bytes;
            const OFFSET: f32 = $offset;
            type Head = ();

            #[inline(always)]
            unsafe fn head<const HALF: bool>(_: *const u8) {}

            #[inline(always)]
            unsafe fn chunk<const $half: bool>($at: *const u8, (): (), _: usize) -> Chunk512 {
                let $next = $at.wrapping_add($bytes);
                // SAFETY: the caller's promise; the second block is not touched where there is none.
                unsafe { $chunk }
            }

            #[inline(always)]
            unsafe fn lanes(at: *const u8, blocks: usize) -> __m512 {
                // SAFETY: the caller's promise. A block begins with its scale.
                unsafe {
                    let scales = eight_halves(at, $bytes, blocks);
                    let offsets = if $minimum == 0 { scales } else { eight_halves(at.add($minimum), $bytes, blocks) };
                    _mm512_cvtph_ps(_mm256_set_m128i(offsets, scales))
                }
            }
        }
    };
}

small!(Q8_0, 34, offset -128.0, minimum 0, |HALF, at, next| {
    let first = _mm512_castsi256_si512(_mm256_loadu_si256(at.add(2).cast()));
    let second = if HALF { _mm256_setzero_si256() } else { _mm256_loadu_si256(next.add(2).cast()) };
    let levels = _mm512_xor_si512(_mm512_inserti64x4::<1>(first, second), _mm512_set1_epi8(-128));
    let scales = two_scales::<HALF>(at, next);
    Chunk512 { levels, scales, offsets: _mm512_mul_ps(scales, _mm512_set1_ps(-128.0)) }
});

small!(Q4_0, 18, offset -8.0, minimum 0, |HALF, at, next| {
    let scales = two_scales::<HALF>(at, next);
    Chunk512 { levels: nibbles::<HALF>(at.add(2), next.wrapping_add(2)), scales, offsets: _mm512_mul_ps(scales, _mm512_set1_ps(-8.0)) }
});

small!(Q5_0, 22, offset -16.0, minimum 0, |HALF, at, next| {
    let scales = two_scales::<HALF>(at, next);
    let levels = fifth_bits::<HALF>(nibbles::<HALF>(at.add(6), next.wrapping_add(6)), at.add(2), next.wrapping_add(2));
    Chunk512 { levels, scales, offsets: _mm512_mul_ps(scales, _mm512_set1_ps(-16.0)) }
});

small!(Q4_1, 20, offset 1.0, minimum 2, |HALF, at, next| {
    let (scales, offsets) = (two_scales::<HALF>(at, next), two_scales::<HALF>(at.add(2), next.wrapping_add(2)));
    Chunk512 { levels: nibbles::<HALF>(at.add(4), next.wrapping_add(4)), scales, offsets }
});

/// Two f32 values as 8 lanes each; the second is 0 where `HALF`.
///
/// # Safety
/// As [`Blocks512::head`].
#[inline(always)]
unsafe fn two_singles<const HALF: bool>(first: *const u8, second: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm512_set1_ps(first.cast::<f32>().read_unaligned());
        match HALF {
            true => _mm512_maskz_mov_ps(0x00ff, first),
            false => _mm512_mask_mov_ps(first, 0xff00, _mm512_set1_ps(second.cast::<f32>().read_unaligned())),
        }
    }
}

macro_rules! affine {
    ($name:ident, $bytes:literal, |$half:ident, $at:ident, $next:ident| $levels:expr) => {
        pub(super) struct $name;
        impl Blocks512 for $name {
            const WEIGHTS: usize = 64;
            const BYTES: usize = 2 * $bytes;
            type Head = ();

            #[inline(always)]
            unsafe fn head<const HALF: bool>(_: *const u8) {}

            #[inline(always)]
            unsafe fn chunk<const $half: bool>($at: *const u8, (): (), _: usize) -> Chunk512 {
                let $next = $at.wrapping_add($bytes);
                // SAFETY: the caller's promise; the second block is not touched where there is none.
                unsafe {
                    let scales = two_singles::<$half>($at, $next);
                    let offsets = two_singles::<$half>($at.add(4), $next.wrapping_add(4));
                    Chunk512 { levels: $levels, scales, offsets }
                }
            }

            #[inline(always)]
            unsafe fn lanes(at: *const u8, blocks: usize) -> __m512 {
                // SAFETY: the caller's promise. A block begins with its scale and its minimum.
                unsafe {
                    let scales = _mm512_castps256_ps512(eight_singles(at, $bytes, blocks));
                    _mm512_insertf32x8::<1>(scales, eight_singles(at.add(4), $bytes, blocks))
                }
            }
        }
    };
}

affine!(Affine4, 24, |HALF, at, next| nibbles::<HALF>(at.add(8), next.wrapping_add(8)));
affine!(Affine8, 40, |HALF, at, next| {
    let first = _mm512_castsi256_si512(_mm256_loadu_si256(at.add(8).cast()));
    let second = if HALF { _mm256_setzero_si256() } else { _mm256_loadu_si256(next.add(8).cast()) };
    _mm512_inserti64x4::<1>(first, second)
});

small!(Q5_1, 24, offset 1.0, minimum 2, |HALF, at, next| {
    let (scales, offsets) = (two_scales::<HALF>(at, next), two_scales::<HALF>(at.add(2), next.wrapping_add(2)));
    let levels = fifth_bits::<HALF>(nibbles::<HALF>(at.add(8), next.wrapping_add(8)), at.add(4), next.wrapping_add(4));
    Chunk512 { levels, scales, offsets }
});

/// 8 scales, then 8 minima, of a block with two f16 values and 12 bytes of 6-bit numbers.
///
/// # Safety
/// As [`Blocks512::head`].
#[inline(always)]
unsafe fn k_numbers(at: *const u8) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let word = |index: usize| at.add(4 + 4 * index).cast::<u32>().read_unaligned();
        let (a, b, c) = (word(0), word(1), word(2));
        _mm_set_epi32(
            (((c >> 4) & 0x0f0f_0f0f) | ((b >> 2) & 0x3030_3030)) as i32,
            (b & 0x3f3f_3f3f) as i32,
            ((c & 0x0f0f_0f0f) | ((a >> 2) & 0x3030_3030)) as i32,
            (a & 0x3f3f_3f3f) as i32,
        )
    }
}

/// The 8 minima of such a block in 16 bits, and what they are to be multiplied with.
///
/// # Safety
/// As [`Blocks512::head`].
#[inline(always)]
pub(super) unsafe fn k_minima(at: *const u8) -> (__m128i, f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let numbers = k_numbers(at);
        let factor = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(at.add(2).cast::<u16>().read_unaligned())));
        (_mm_cvtepu8_epi16(_mm_srli_si128::<8>(numbers)), -_mm_cvtss_f32(factor))
    }
}

/// Scales in lanes 0 to 7, offsets in 8 to 15, of the 8 chunks of such a block.
///
/// # Safety
/// As [`Blocks512::head`].
#[inline(always)]
unsafe fn k_scales(at: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let numbers = k_numbers(at);
        let factors = two_scales::<false>(at, at.add(2));
        // Minima are taken away.
        let factors = _mm512_mask_sub_ps(factors, 0xff00, _mm512_setzero_ps(), factors);
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(numbers)), factors)
    }
}

/// Lane numbers that spread the scales (or, 8 further, the offsets) of the chunks 2·index and 2·index + 1.
///
/// # Safety
/// As [`Blocks512::head`].
#[inline(always)]
unsafe fn k_lanes(head: __m512, index: usize) -> (__m512, __m512) {
    // SAFETY: the caller's promise.
    unsafe {
        let upper = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        let lanes = _mm512_add_epi32(upper, _mm512_set1_epi32(2 * index as i32));
        let offsets = _mm512_add_epi32(upper, _mm512_set1_epi32(8 + 2 * index as i32));
        (_mm512_permutexvar_ps(lanes, head), _mm512_permutexvar_ps(offsets, head))
    }
}

pub(super) struct Q4K;
impl Blocks512 for Q4K {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 144;
    type Head = __m512;

    #[inline(always)]
    unsafe fn head<const HALF: bool>(at: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { k_scales(at) }
    }

    #[inline(always)]
    unsafe fn chunk<const HALF: bool>(at: *const u8, head: __m512, index: usize) -> Chunk512 {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = _mm256_loadu_si256(at.add(16 + 32 * index).cast());
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(bytes), _mm256_srli_epi16::<4>(bytes));
            let (scales, offsets) = k_lanes(head, index);
            Chunk512 { levels: _mm512_and_si512(both, _mm512_set1_epi8(15)), scales, offsets }
        }
    }

    #[inline(always)]
    unsafe fn lanes(at: *const u8, _: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { k_scales(at) }
    }
}

pub(super) struct Q5K;
impl Blocks512 for Q5K {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 176;
    type Head = (__m512, __m512i);

    #[inline(always)]
    unsafe fn head<const HALF: bool>(at: *const u8) -> (__m512, __m512i) {
        // SAFETY: the caller's promise.
        unsafe {
            // Fifth bits of the even chunks, and moved by one those of the odd ones.
            let high = _mm256_loadu_si256(at.add(16).cast());
            (k_scales(at), _mm512_inserti64x4::<1>(_mm512_castsi256_si512(high), _mm256_srli_epi16::<1>(high)))
        }
    }

    #[inline(always)]
    unsafe fn chunk<const HALF: bool>(at: *const u8, (head, high): (__m512, __m512i), index: usize) -> Chunk512 {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = _mm256_loadu_si256(at.add(48 + 32 * index).cast());
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(bytes), _mm256_srli_epi16::<4>(bytes));
            let bits = _mm512_srl_epi16(high, _mm_cvtsi32_si128(2 * index as i32));
            let bits = _mm512_slli_epi16::<4>(_mm512_and_si512(bits, _mm512_set1_epi8(1)));
            let (scales, offsets) = k_lanes(head, index);
            Chunk512 { levels: _mm512_or_si512(_mm512_and_si512(both, _mm512_set1_epi8(15)), bits), scales, offsets }
        }
    }

    #[inline(always)]
    unsafe fn lanes(at: *const u8, _: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { k_scales(at) }
    }
}

pub(super) struct Q6K;
impl Blocks512 for Q6K {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 210;
    const FINE: bool = true;
    const OFFSET: f32 = -32.0;
    type Head = __m512;

    #[inline(always)]
    unsafe fn head<const HALF: bool>(at: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(192).cast())));
            let d = _mm512_cvtph_ps(_mm256_set1_epi16(at.add(208).cast::<i16>().read_unaligned()));
            _mm512_mul_ps(scales, d)
        }
    }

    #[inline(always)]
    unsafe fn chunk<const HALF: bool>(at: *const u8, head: __m512, index: usize) -> Chunk512 {
        // SAFETY: the caller's promise.
        unsafe {
            let (part, upper) = (index / 2, index % 2);
            let low = _mm512_srl_epi16(_mm512_loadu_si512(at.add(64 * part).cast()), _mm_cvtsi32_si128(4 * upper as i32));
            let high = _mm256_loadu_si256(at.add(128 + 32 * part).cast());
            let high = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(high), _mm256_srli_epi16::<2>(high));
            let high = _mm512_srl_epi16(high, _mm_cvtsi32_si128(4 * upper as i32));
            let high = _mm512_slli_epi16::<4>(_mm512_and_si512(high, _mm512_set1_epi8(3)));
            let levels = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), high);
            let quarter = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
            let scales = _mm512_permutexvar_ps(_mm512_add_epi32(quarter, _mm512_set1_epi32(4 * index as i32)), head);
            Chunk512 { levels, scales, offsets: _mm512_mul_ps(scales, _mm512_set1_ps(-32.0)) }
        }
    }

    #[inline(always)]
    unsafe fn lanes(at: *const u8, _: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { Self::head::<false>(at) }
    }
}
