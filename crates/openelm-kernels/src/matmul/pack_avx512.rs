//! Packing in AVX-512. Rows become lanes by transposing 16 × 16 units in registers; columns already are lanes.

use std::arch::x86_64::*;

use super::micro::Unit;
use super::micro_avx512::{HEIGHT, WIDTH};
use super::pack::Packing;
use crate::simd::{Avx512, Simd, Source};

type Plain512 = Avx512<false>;

#[inline(always)]
pub(super) fn mask16(count: usize) -> u16 {
    if count >= 16 { u16::MAX } else { (1 << count) - 1 }
}

/// # Safety
/// As [`Packing::rows`], with AVX-512.
pub(super) unsafe fn rows(packing: &Packing, to: *mut u32) {
    let round = packing.unit == Unit::Rounded;
    // SAFETY: the caller's promise.
    unsafe {
        match (packing.unit, packing.width) {
            (Unit::Pair, HEIGHT) => rows_pairs::<HEIGHT>(packing, to),
            (Unit::Pair, WIDTH) => rows_pairs::<WIDTH>(packing, to),
            (_, HEIGHT) => rows_singles::<HEIGHT>(packing, round, to),
            (_, WIDTH) => rows_singles::<WIDTH>(packing, round, to),
            (_, width) => unreachable!("groups of {width}"),
        }
    }
}

/// # Safety
/// As [`Packing::columns`], with AVX-512.
pub(super) unsafe fn columns(packing: &Packing, to: *mut u32) {
    let round = packing.unit == Unit::Rounded;
    // SAFETY: the caller's promise.
    unsafe {
        match (packing.unit, packing.width) {
            (Unit::Pair, HEIGHT) => columns_pairs::<HEIGHT>(packing, to),
            (Unit::Pair, WIDTH) => columns_pairs::<WIDTH>(packing, to),
            (_, HEIGHT) => columns_singles::<HEIGHT>(packing, round, to),
            (_, WIDTH) => columns_singles::<WIDTH>(packing, round, to),
            (_, width) => unreachable!("groups of {width}"),
        }
    }
}

/// 16 f32 or widened bf16 values, those past `count` 0.
#[inline(always)]
unsafe fn load(source: Source, count: usize, round: bool) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        match source {
            Source::F32(from) if round => Plain512::rounded(Plain512::load_first(from, count)),
            Source::F32(from) => Plain512::load_first(from, count),
            Source::Bf16(from) => Plain512::load_half_first(from, count),
        }
    }
}

/// 32 neighbouring values as 16 pairs, those past `count` 0.
#[inline(always)]
pub(super) unsafe fn load_pairs(source: Source, count: usize) -> __m512i {
    // SAFETY: the caller's promise; the mask keeps the loads inside the source, and both types are 64 bytes of plain data.
    unsafe {
        match source {
            Source::F32(from) => {
                let low = _mm512_maskz_loadu_ps(mask16(count), from);
                let high = _mm512_maskz_loadu_ps(mask16(count.saturating_sub(16)), from.wrapping_add(16));
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
            }
            Source::Bf16(from) => {
                let mask = if count >= 32 { u32::MAX } else { (1 << count) - 1 };
                _mm512_maskz_loadu_epi16(mask, from.cast())
            }
        }
    }
}

macro_rules! rows_body {
    ($name:ident, $features:literal, [$($extra:ident: $ty:ty)?], |$source:ident, $count:ident| $load:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const W: usize>(packing: &Packing, $($extra: $ty,)? to: *mut u32) {
            let Packing { unit, source, stride, lanes, inner, .. } = *packing;
            let units = inner.div_ceil(unit.values());
            // Runs of at most 16 lanes, none across two groups.
            let runs = W.div_ceil(16);
            for run in 0..lanes.div_ceil(W) * runs {
                let (group, within) = (run / runs, run % runs * 16);
                let first_lane = group * W + within;
                let last_lane = lanes.min((first_lane + 16).min((group + 1) * W));
                let kept = mask16(W - within);
                for first in (0..units).step_by(16) {
                    let at = first * unit.values();
                    // SAFETY: lanes below `lanes` and values below `inner` lie in the source; units below `units` and
                    // lanes below `W` in the target.
                    unsafe {
                        let mut block = [_mm512_setzero_si512(); 16];
                        for (lane, row) in block.iter_mut().enumerate() {
                            if first_lane + lane < last_lane {
                                let ($source, $count) = (source.add((first_lane + lane) * stride + at), inner - at);
                                *row = $load;
                            }
                        }
                        let block = transpose(block);
                        let to = to.add((group * units + first) * W + within);
                        for (u, row) in block.into_iter().enumerate().take(units - first) {
                            _mm512_mask_storeu_epi32(to.add(u * W).cast(), kept, row);
                        }
                    }
                }
            }
        }
    };
}

rows_body!(rows_singles, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", [round: bool], |source, count| {
    _mm512_castps_si512(load(source, count, round))
});
rows_body!(rows_pairs, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma", [], |source, count| load_pairs(source, count));

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn columns_singles<const W: usize>(packing: &Packing, round: bool, to: *mut u32) {
    let Packing { source, stride, lanes, inner, .. } = *packing;
    let groups = lanes.div_ceil(W);
    for u in 0..inner {
        for group in 0..groups {
            let here = W.min(lanes - group * W);
            for lane in (0..W).step_by(16) {
                // SAFETY: as in `rows_body`; a run without lanes is not read at all.
                unsafe {
                    let mut v = _mm512_setzero_ps();
                    if lane < here {
                        v = load(source.add(u * stride + group * W + lane), here - lane, round);
                    }
                    let to = to.add((group * inner + u) * W + lane);
                    _mm512_mask_storeu_ps(to.cast(), mask16(W - lane), v);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn columns_pairs<const W: usize>(packing: &Packing, to: *mut u32) {
    let Packing { source, stride, lanes, inner, .. } = *packing;
    let (units, groups) = (inner.div_ceil(2), lanes.div_ceil(W));
    // SAFETY: as in `rows_body`; runs without lanes and the missing half of a last pair are not read.
    unsafe {
        let order = interleaved();
        for u in 0..units {
            let has_second = 2 * u + 1 < inner;
            for group in 0..groups {
                let here = W.min(lanes - group * W);
                for lane in (0..W).step_by(16) {
                    let mut pairs = _mm512_setzero_si512();
                    if lane < here {
                        let from = source.add(2 * u * stride + group * W + lane);
                        pairs = load_column_pairs(from, stride, here - lane, has_second, order);
                    }
                    let to = to.add((group * units + u) * W + lane);
                    _mm512_mask_storeu_epi32(to.cast(), mask16(W - lane), pairs);
                }
            }
        }
    }
}

/// The order of 32 halves that puts the i-th of the lower and of the upper 16 side by side.
#[inline(always)]
pub(super) unsafe fn interleaved() -> __m512i {
    let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: the caller has AVX-512; the array is 64 bytes.
    unsafe { _mm512_loadu_si512(order.as_ptr().cast()) }
}

/// Pairs of the first `count` (at most 16 count) columns of two rows, `stride` apart, the others 0; 0 for the second row if there is none.
#[inline(always)]
pub(super) unsafe fn load_column_pairs(source: Source, stride: usize, count: usize, has_second: bool, order: __m512i) -> __m512i {
    let low_mask = mask16(count);
    let high_mask = if has_second { low_mask } else { 0 };
    // SAFETY: the caller's promise; what the masks leave out is not read.
    unsafe {
        let pairs = match source {
            Source::F32(from) => {
                let low = _mm512_maskz_loadu_ps(low_mask, from);
                let high = _mm512_maskz_loadu_ps(high_mask, from.wrapping_add(stride));
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
            }
            Source::Bf16(from) => {
                let low = _mm256_maskz_loadu_epi16(low_mask, from.cast());
                let high = _mm256_maskz_loadu_epi16(high_mask, from.wrapping_add(stride).cast());
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            }
        };
        _mm512_permutexvar_epi16(order, pairs)
    }
}

/// Rows to columns of a 16 × 16 block: 2 × 2 blocks of 1, then of 2, 4 and 8.
#[inline(always)]
pub(super) unsafe fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let zero = _mm512_setzero_si512();
        let mut a = [zero; 16];
        for i in 0..8 {
            a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        // b[4g + c] holds column c of every quarter (c, c+4, c+8, c+12), rows 4g to 4g + 3.
        let mut b = [zero; 16];
        for g in 0..4 {
            b[4 * g] = _mm512_unpacklo_epi64(a[4 * g], a[4 * g + 2]);
            b[4 * g + 1] = _mm512_unpackhi_epi64(a[4 * g], a[4 * g + 2]);
            b[4 * g + 2] = _mm512_unpacklo_epi64(a[4 * g + 1], a[4 * g + 3]);
            b[4 * g + 3] = _mm512_unpackhi_epi64(a[4 * g + 1], a[4 * g + 3]);
        }
        let mut out = [zero; 16];
        for c in 0..4 {
            let low01 = _mm512_shuffle_i32x4::<0b01_00_01_00>(b[c], b[4 + c]);
            let high01 = _mm512_shuffle_i32x4::<0b11_10_11_10>(b[c], b[4 + c]);
            let low23 = _mm512_shuffle_i32x4::<0b01_00_01_00>(b[8 + c], b[12 + c]);
            let high23 = _mm512_shuffle_i32x4::<0b11_10_11_10>(b[8 + c], b[12 + c]);
            out[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low01, low23);
            out[4 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low01, low23);
            out[8 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high01, high23);
            out[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high01, high23);
        }
        out
    }
}
