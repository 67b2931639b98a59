//! Sixteen lanes as two YMM registers.

use std::arch::x86_64::*;

use super::Simd;

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[inline(always)]
unsafe fn widen(v: __m128i) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v))) }
}

/// The lanes as bf16, in the lower half of each. A function, not a closure: closures in functions without the instruction set are not put in line.
#[inline(always)]
pub(crate) unsafe fn round_to_half(v: __m256) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
    }
}

/// The upper halves of the lanes after rounding, in order.
#[inline(always)]
unsafe fn narrow(v: [__m256; 2]) -> __m256i {
    // SAFETY: the caller has AVX2. Packing works within 128-bit halves; the permutation puts the quarters back in order.
    unsafe { _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(round_to_half(v[0]), round_to_half(v[1]))) }
}

#[inline(always)]
unsafe fn scale(a: __m256, n: __m256) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    }
}

impl Simd for Avx2 {
    type V = [__m256; 2];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [__m256; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, v[0]);
            _mm256_storeu_ps(to.add(8), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [0.0; 16];
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), lanes.min(16));
            Self::load(values.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: [__m256; 2], lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [0.0; 16];
            Self::store(values.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, lanes.min(16));
        }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [widen(_mm_loadu_si128(from.cast())), widen(_mm_loadu_si128(from.add(8).cast()))] }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))] }
    }
    #[inline(always)]
    unsafe fn store_half(to: *mut u16, v: [__m256; 2]) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), narrow(v)) }
    }
    #[inline(always)]
    unsafe fn load_half_first(from: *const u16, lanes: usize) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [0; 16];
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), lanes.min(16));
            Self::load_half(values.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_half_first(to: *mut u16, v: [__m256; 2], lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [0; 16];
            Self::store_half(values.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, lanes.min(16));
        }
    }
    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sub(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn div(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn max(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn min(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sqrt(a: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_sqrt_ps(a[0]), _mm256_sqrt_ps(a[1])] }
    }
    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn round(a: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_round_ps::<0x08>(a[0]), _mm256_round_ps::<0x08>(a[1])] }
    }
    #[inline(always)]
    unsafe fn scale_by_power(a: [__m256; 2], n: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [scale(a[0], n[0]), scale(a[1], n[1])] }
    }
    #[inline(always)]
    unsafe fn if_less(a: [__m256; 2], b: [__m256; 2], yes: [__m256; 2], no: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let select = |i: usize| _mm256_blendv_ps(no[i], yes[i], _mm256_cmp_ps::<_CMP_LT_OQ>(a[i], b[i]));
            [select(0), select(1)]
        }
    }
    #[inline(always)]
    unsafe fn sum(v: [__m256; 2]) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
        }
    }
    #[inline(always)]
    unsafe fn maximum(v: [__m256; 2]) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps::<1>(v, v)))
        }
    }
    #[inline(always)]
    unsafe fn rounded(v: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let halves = narrow(v);
            [widen(_mm256_castsi256_si128(halves)), widen(_mm256_extracti128_si256::<1>(halves))]
        }
    }
}
