//! Packing in AVX2. Rows become lanes by transposing 8 × 8 values in registers; columns already are lanes.

use std::arch::x86_64::*;

use super::micro::Unit;
use super::pack::Packing;
use crate::simd::Source;
use crate::simd::avx2::round_to_half;

/// # Safety
/// As [`Packing::rows`], with AVX2.
pub(super) unsafe fn rows(packing: &Packing, to: *mut u32) {
    let Packing { unit, lanes, inner, stride, width, .. } = *packing;
    let all = lanes.next_multiple_of(width);
    // SAFETY: the caller's promise.
    unsafe {
        let done = match unit {
            Unit::Single => rows_singles::<false>(packing, to),
            Unit::Rounded => rows_singles::<true>(packing, to),
            // Products in AVX2 have no pairs.
            Unit::Pair | Unit::Quad => 0,
        };
        packing.part(to, stride, 1, 0..all, done / unit.values()..unit.count(inner));
    }
}

/// # Safety
/// As [`Packing::columns`], with AVX2.
pub(super) unsafe fn columns(packing: &Packing, to: *mut u32) {
    let Packing { unit, lanes, inner, stride, width, .. } = *packing;
    // SAFETY: the caller's promise.
    unsafe {
        match unit {
            Unit::Single => columns_singles::<false>(packing, to),
            Unit::Rounded => columns_singles::<true>(packing, to),
            Unit::Pair | Unit::Quad => packing.part(to, 1, stride, 0..lanes.next_multiple_of(width), 0..unit.count(inner)),
        }
    }
}

/// A mask of the first `count` of 8 lanes.
#[inline(always)]
unsafe fn first_lanes(count: usize) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0)) }
}

/// The first `count` of 8 neighbouring values, rounded to bf16 if asked for, and zeros.
#[inline(always)]
unsafe fn load<const ROUND: bool>(source: Source, count: usize) -> __m256 {
    // SAFETY: the caller's promise; no more than `count` values are read.
    unsafe {
        match source {
            Source::F32(from) => {
                let values = if count >= 8 { _mm256_loadu_ps(from) } else { _mm256_maskload_ps(from, first_lanes(count)) };
                if ROUND { widen(round_to_half(values)) } else { values }
            }
            Source::Bf16(from) => {
                let mut halves = [0_u16; 8];
                std::ptr::copy_nonoverlapping(from, halves.as_mut_ptr(), count.min(8));
                widen(_mm256_cvtepu16_epi32(_mm_loadu_si128(halves.as_ptr().cast())))
            }
        }
    }
}

/// bf16 in the lower halves of lanes as f32.
#[inline(always)]
unsafe fn widen(halves: __m256i) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves)) }
}

/// Packs all but the last few inner values; gives how many it packed.
#[target_feature(enable = "avx2,fma")]
unsafe fn rows_singles<const ROUND: bool>(packing: &Packing, to: *mut u32) -> usize {
    let Packing { source, stride, lanes, inner, width, .. } = *packing;
    let whole = inner / 8 * 8;
    for group in 0..lanes.div_ceil(width) {
        for within in (0..width).step_by(8) {
            let first = group * width + within;
            let here = lanes.saturating_sub(first).min(width - within);
            // SAFETY: lanes below `lanes` and values below `inner` lie in the source, and places below `width` in the target.
            unsafe {
                let kept = first_lanes(width - within);
                for u in (0..whole).step_by(8) {
                    let mut block = [_mm256_setzero_ps(); 8];
                    for (lane, row) in block.iter_mut().enumerate().take(here) {
                        *row = load::<ROUND>(source.add((first + lane) * stride + u), 8);
                    }
                    let to = to.add((group * inner + u) * width + within).cast::<f32>();
                    for (i, column) in transpose(&block).into_iter().enumerate() {
                        _mm256_maskstore_ps(to.add(i * width), kept, column);
                    }
                }
            }
        }
    }
    whole
}

#[target_feature(enable = "avx2,fma")]
unsafe fn columns_singles<const ROUND: bool>(packing: &Packing, to: *mut u32) {
    let Packing { source, stride, lanes, inner, width, .. } = *packing;
    for u in 0..inner {
        for group in 0..lanes.div_ceil(width) {
            for within in (0..width).step_by(8) {
                let first = group * width + within;
                let here = lanes.saturating_sub(first).min(width - within);
                // SAFETY: as in `rows_singles`; a run without lanes is not read at all.
                unsafe {
                    let values = if here > 0 { load::<ROUND>(source.add(u * stride + first), here) } else { _mm256_setzero_ps() };
                    let to = to.add((group * inner + u) * width + within).cast::<f32>();
                    _mm256_maskstore_ps(to, first_lanes(width - within), values);
                }
            }
        }
    }
}

/// # Safety
/// Needs AVX2.
#[inline(always)]
unsafe fn transpose(r: &[__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller's promise. Pairs of rows, then fours, then halves of registers.
    unsafe {
        let (a0, a1) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
        let (a2, a3) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
        let (a4, a5) = (_mm256_unpacklo_ps(r[4], r[5]), _mm256_unpackhi_ps(r[4], r[5]));
        let (a6, a7) = (_mm256_unpacklo_ps(r[6], r[7]), _mm256_unpackhi_ps(r[6], r[7]));
        let (b0, b1) = (_mm256_shuffle_ps::<0x44>(a0, a2), _mm256_shuffle_ps::<0xee>(a0, a2));
        let (b2, b3) = (_mm256_shuffle_ps::<0x44>(a1, a3), _mm256_shuffle_ps::<0xee>(a1, a3));
        let (b4, b5) = (_mm256_shuffle_ps::<0x44>(a4, a6), _mm256_shuffle_ps::<0xee>(a4, a6));
        let (b6, b7) = (_mm256_shuffle_ps::<0x44>(a5, a7), _mm256_shuffle_ps::<0xee>(a5, a7));
        [
            _mm256_permute2f128_ps::<0x20>(b0, b4),
            _mm256_permute2f128_ps::<0x20>(b1, b5),
            _mm256_permute2f128_ps::<0x20>(b2, b6),
            _mm256_permute2f128_ps::<0x20>(b3, b7),
            _mm256_permute2f128_ps::<0x31>(b0, b4),
            _mm256_permute2f128_ps::<0x31>(b1, b5),
            _mm256_permute2f128_ps::<0x31>(b2, b6),
            _mm256_permute2f128_ps::<0x31>(b3, b7),
        ]
    }
}
