//! The exponential function on lanes: a polynomial on [-ln 2 / 2, ln 2 / 2] times a power of two.

use super::Simd;

/// e^x to about 2 units in the last place; exactly 0 below -87.3, the largest power near 3e38 above 88.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let clamped = S::min(S::max(x, S::splat(-87.3)), S::splat(88.0));
        let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts: the first has few enough bits that n times it is exact.
        let r = S::fma(n, S::splat(-0.693_359_4), clamped);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        // Taylor's terms to r^7: the next is 5e-9 at the end of the interval.
        let p = S::splat(1.0 / 5040.0);
        let p = S::fma(p, r, S::splat(1.0 / 720.0));
        let p = S::fma(p, r, S::splat(1.0 / 120.0));
        let p = S::fma(p, r, S::splat(1.0 / 24.0));
        let p = S::fma(p, r, S::splat(1.0 / 6.0));
        let p = S::fma(p, r, S::splat(0.5));
        let p = S::fma(p, r, S::splat(1.0));
        let p = S::fma(p, r, S::splat(1.0));
        S::if_less(x, S::splat(-87.3), S::splat(0.0), S::scale_by_power(p, n))
    }
}

/// 1 / (1 + e^-x).
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { S::div(S::splat(1.0), S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), x)))) }
}
