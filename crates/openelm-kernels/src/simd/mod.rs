//! Sixteen f32 lanes, on every instruction set: one ZMM register, two YMM registers, four of Arm's or an array.
//!
//! What must stay true: sums over lanes have one fixed order, the same on every instruction set. Methods are
//! `inline(always)` and reach their instructions only inside a function that has the target feature: `simd_fn!` makes
//! such functions, and is the one way in.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod exp;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
mod plain;
mod source;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use exp::{exp, sigmoid};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use plain::Plain;
pub(crate) use source::{Sink, Source, sweep};

pub(crate) const LANES: usize = 16;

/// Operations on 16 lanes.
///
/// # Safety
/// Every method needs the instruction set at run time. Pointers must be valid for the lanes named; they need no
/// alignment.
pub(crate) trait Simd: Copy + 'static {
    type V: Copy;
    /// Whether 16 lanes are one register, of which there are 32.
    const WHOLE: bool = false;
    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// The first `lanes` (at most 16); 0 in the others.
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self::V;
    unsafe fn store_first(to: *mut f32, v: Self::V, lanes: usize);
    unsafe fn load_half(from: *const u16) -> Self::V;
    /// IEEE half precision.
    unsafe fn load_f16(from: *const u16) -> Self::V;
    /// Rounded to nearest even.
    unsafe fn store_half(to: *mut u16, v: Self::V);
    unsafe fn load_half_first(from: *const u16, lanes: usize) -> Self::V;
    unsafe fn store_half_first(to: *mut u16, v: Self::V, lanes: usize);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// a · b + c, in one rounding where the instruction set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To the nearest whole number.
    unsafe fn round(a: Self::V) -> Self::V;
    /// a · 2^n for whole n in -126..=127 and a normal result.
    unsafe fn scale_by_power(a: Self::V, n: Self::V) -> Self::V;
    /// `yes` where a < b, else `no`.
    unsafe fn if_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// ((0+8)+(4+12)) + ... : halves folded onto each other until one lane is left.
    unsafe fn sum(v: Self::V) -> f32;
    /// The same of four at once.
    #[inline(always)]
    unsafe fn sums(v: [Self::V; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { [Self::sum(v[0]), Self::sum(v[1]), Self::sum(v[2]), Self::sum(v[3])] }
    }
    unsafe fn maximum(v: Self::V) -> f32;
    /// The values rounded to bf16, as f32.
    unsafe fn rounded(v: Self::V) -> Self::V;
}

/// One f32 rounded to bf16, nearest even; a NaN stays one.
#[inline(always)]
pub(crate) fn round_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// A bf16 value as f32.
#[inline(always)]
pub(crate) fn widen_half(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// The same pointers, which the compiler takes for new ones: what is loaded through them is not loaded before this place. It would be, and sums would
/// be put into memory to make room.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::pointers_in_nomem_asm_block)]
#[inline(always)]
pub(crate) fn held_back<A, B>(mut a: *const A, mut b: *const B) -> (*const A, *const B) {
    // SAFETY: a comment, which reads and writes nothing.
    unsafe { std::arch::asm!("/* {0} {1} */", inout(reg) a, inout(reg) b, options(pure, nomem, nostack, preserves_flags)) };
    (a, b)
}

/// Asks for a line of memory.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Asks for a line of memory, no nearer than the second-level cache.
#[inline(always)]
pub(crate) fn prefetch_second_level(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Defines a function with one body for every instruction set: `simd_fn! { fn name<S>(arguments) -> result { body } }`
/// gives `unsafe fn name(isa: Isa, arguments) -> result`, whose body may use `S: Simd`. The instruction set must be
/// available; the rest of its safety is the body's.
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$s:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            unsafe fn generic<$s: $crate::simd::Simd>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512bf16($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise.
                unsafe { generic::<$crate::simd::Avx512<true>>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise.
                unsafe { generic::<$crate::simd::Avx512<false>>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise.
                unsafe { generic::<$crate::simd::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,bf16")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn neonbf16($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise.
                unsafe { generic::<$crate::simd::Neon<true>>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn neon($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise.
                unsafe { generic::<$crate::simd::Neon<false>>($($arg),*) }
            }
            // SAFETY: `isa` is available by the caller's promise.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::Isa::Avx512Bf16 | $crate::Isa::Amx => avx512bf16($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Isa::Avx512 | $crate::Isa::Avx512Vnni => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Isa::Avx2 | $crate::Isa::AvxVnni => avx2($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::Isa::NeonBf16 => neonbf16($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::Isa::Neon | $crate::Isa::NeonDot => neon($($arg),*),
                    _ => generic::<$crate::simd::Plain>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use simd_fn;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    simd_fn! {
        /// Every operation once, for comparison with scalar arithmetic.
        fn probe<S>(a: &[f32; 16], b: &[f32; 16], out: &mut [[f32; 16]; 14], halves: &mut [u16; 16]) -> (f32, f32) {
            let (x, y) = (S::load(a.as_ptr()), S::load(b.as_ptr()));
            let results = [
                S::add(x, y), S::sub(x, y), S::mul(x, y), S::div(x, y), S::max(x, y), S::min(x, y),
                S::sqrt(S::mul(x, x)), S::fma(x, y, S::splat(0.5)), S::round(x), S::scale_by_power(x, S::round(y)),
                S::if_less(x, y, S::splat(1.0), S::splat(0.0)), S::rounded(x), S::load_first(a.as_ptr(), 5), exp::<S>(x),
            ];
            for (out, v) in out.iter_mut().zip(results) {
                S::store(out.as_mut_ptr(), v);
            }
            S::store_half(halves.as_mut_ptr(), x);
            S::store_half_first(halves.as_mut_ptr(), S::load_half_first(halves.as_ptr(), 7), 9);
            let four = [y, x, S::add(x, y), S::mul(x, y)];
            let each = [S::sum(four[0]), S::sum(four[1]), S::sum(four[2]), S::sum(four[3])];
            assert_eq!(S::sums(four).map(f32::to_bits), each.map(f32::to_bits), "four sums at once");
            (S::sum(x), S::maximum(x))
        }
    }

    #[test]
    fn lanes_follow_scalar_arithmetic() {
        let a: [f32; 16] = std::array::from_fn(|i| (i as f32 - 7.3) * 1.37);
        let b: [f32; 16] = std::array::from_fn(|i| 3.1 - i as f32 * 0.61);
        for isa in Isa::available() {
            let mut out = [[0.0; 16]; 14];
            let mut halves = [0; 16];
            // SAFETY: the instruction set is available; the arrays hold 16 values.
            let (sum, maximum) = unsafe { probe(isa, &a, &b, &mut out, &mut halves) };
            for i in 0..16 {
                let (x, y) = (a[i], b[i]);
                let half = widen_half(round_half(x));
                let expected = [
                    x + y,
                    x - y,
                    x * y,
                    x / y,
                    x.max(y),
                    x.min(y),
                    (x * x).sqrt(),
                    x * y + 0.5,
                    x.round_ties_even(),
                    x * y.round_ties_even().exp2(),
                    f32::from(u8::from(x < y)),
                    half,
                    if i < 5 { x } else { 0.0 },
                    x.exp(),
                ];
                for (operation, expected) in expected.into_iter().enumerate() {
                    let found = out[operation][i];
                    assert!((found - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{isa:?} {operation} {i}: {found} {expected}");
                }
                let kept = if (7..9).contains(&i) { 0.0 } else { half };
                assert_eq!(widen_half(halves[i]), kept, "{isa:?} {i}");
            }
            assert!((sum - a.iter().sum::<f32>()).abs() < 1e-5);
            assert_eq!(maximum, a[15]);
        }
    }

    #[test]
    fn halves_round_to_even_and_keep_nan() {
        assert_eq!(round_half(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(round_half(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert!(widen_half(round_half(f32::from_bits(0x7f80_0001))).is_nan());
        for isa in Isa::available() {
            let mut halves = [0; 16];
            let values: [f32; 16] = std::array::from_fn(|i| f32::from_bits([0x3f80_8000, 0x3f81_8000, 0x7f80_0001, 0x7f80_0000][i % 4]));
            let mut out = [[0.0; 16]; 14];
            // SAFETY: as above.
            unsafe { probe(isa, &values, &values, &mut out, &mut halves) };
            assert_eq!((halves[0], halves[1], halves[3]), (0x3f80, 0x3f82, 0x7f80), "{isa:?}");
            assert!(widen_half(halves[2]).is_nan(), "{isa:?}");
        }
    }
}
