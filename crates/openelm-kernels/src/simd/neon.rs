//! Sixteen lanes as four registers of 128 bits. `BF16`: with Arm's instruction that rounds to bf16.
//!
//! Conversions that the standard library does not offer yet for every compiler this crate builds with are written as assembly.

use std::arch::aarch64::*;
use std::arch::asm;

use super::Simd;

#[derive(Clone, Copy)]
pub(crate) struct Neon<const BF16: bool>;

type V = [float32x4_t; 4];

/// Four bf16 values as f32.
///
/// # Safety
/// None but NEON, which every such processor has.
#[inline(always)]
pub(crate) unsafe fn widen(v: uint16x4_t) -> float32x4_t {
    // SAFETY: the caller has NEON.
    unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(v))) }
}

/// Four values rounded to bf16.
///
/// # Safety
/// Needs Arm's bf16 instructions when it says so.
#[inline(always)]
pub(crate) unsafe fn narrow<const BF16: bool>(v: float32x4_t) -> uint16x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        if BF16 {
            let halves: uint16x4_t;
            asm!("bfcvtn {to:v}.4h, {from:v}.4s", to = lateout(vreg) halves, from = in(vreg) v, options(pure, nomem, nostack, preserves_flags));
            return halves;
        }
        let bits = vreinterpretq_u32_f32(v);
        let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
        let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        let quiet = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
        vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(v, v), rounded, quiet))
    }
}

/// Four f16 values as f32.
#[inline(always)]
unsafe fn widen_f16(v: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: every such processor has the instruction.
    unsafe {
        asm!("fcvtl {to:v}.4s, {from:v}.4h", to = lateout(vreg) wide, from = in(vreg) v, options(pure, nomem, nostack, preserves_flags))
    };
    wide
}

/// One f16 value in a file's bytes, which need no alignment.
///
/// # Safety
/// Two bytes lie at `from`.
#[inline(always)]
pub(crate) unsafe fn read_f16(from: *const u8) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { vgetq_lane_f32::<0>(widen_f16(vdup_n_u16(from.cast::<u16>().read_unaligned()))) }
}

#[inline(always)]
fn map(v: V, f: impl Fn(float32x4_t) -> float32x4_t) -> V {
    [f(v[0]), f(v[1]), f(v[2]), f(v[3])]
}

#[inline(always)]
fn map2(a: V, b: V, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> V {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// Halves folded onto each other until one lane is left: lanes i and i + 8, then i + 4, i + 2 and i + 1.
#[inline(always)]
unsafe fn fold(v: V, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> f32 {
    // SAFETY: the caller has NEON.
    unsafe {
        let v = f(f(v[0], v[2]), f(v[1], v[3]));
        let v = f(v, vextq_f32::<2>(v, v));
        vgetq_lane_f32::<0>(f(v, vdupq_laneq_f32::<1>(v)))
    }
}

impl<const BF16: bool> Simd for Neon<BF16> {
    type V = V;

    #[inline(always)]
    unsafe fn splat(value: f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { [vdupq_n_f32(value); 4] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: V) {
        // SAFETY: the caller's promise.
        unsafe {
            vst1q_f32(to, v[0]);
            vst1q_f32(to.add(4), v[1]);
            vst1q_f32(to.add(8), v[2]);
            vst1q_f32(to.add(12), v[3]);
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [0.0; 16];
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), lanes.min(16));
            Self::load(values.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: V, lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [0.0; 16];
            Self::store(values.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, lanes.min(16));
        }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> V {
        // SAFETY: the caller's promise.
        unsafe { [widen(vld1_u16(from)), widen(vld1_u16(from.add(4))), widen(vld1_u16(from.add(8))), widen(vld1_u16(from.add(12)))] }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> V {
        // SAFETY: the caller's promise.
        unsafe { [0, 4, 8, 12].map(|at| widen_f16(vld1_u16(from.add(at)))) }
    }
    #[inline(always)]
    unsafe fn store_half(to: *mut u16, v: V) {
        // SAFETY: the caller's promise.
        unsafe {
            vst1q_u16(to, vcombine_u16(narrow::<BF16>(v[0]), narrow::<BF16>(v[1])));
            vst1q_u16(to.add(8), vcombine_u16(narrow::<BF16>(v[2]), narrow::<BF16>(v[3])));
        }
    }
    #[inline(always)]
    unsafe fn load_half_first(from: *const u16, lanes: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [0; 16];
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), lanes.min(16));
            Self::load_half(values.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_half_first(to: *mut u16, v: V, lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [0; 16];
            Self::store_half(values.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, lanes.min(16));
        }
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        // SAFETY: the caller's promise.
        map2(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        // SAFETY: the caller's promise.
        map2(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        // SAFETY: the caller's promise.
        map2(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        // SAFETY: the caller's promise.
        map2(a, b, |a, b| unsafe { vdivq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        // SAFETY: the caller's promise.
        map2(a, b, |a, b| unsafe { vmaxq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        // SAFETY: the caller's promise.
        map2(a, b, |a, b| unsafe { vminq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sqrt(a: V) -> V {
        // SAFETY: the caller's promise.
        map(a, |a| unsafe { vsqrtq_f32(a) })
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1]), vfmaq_f32(c[2], a[2], b[2]), vfmaq_f32(c[3], a[3], b[3])] }
    }
    #[inline(always)]
    unsafe fn round(a: V) -> V {
        // SAFETY: the caller's promise.
        map(a, |a| unsafe { vrndnq_f32(a) })
    }
    #[inline(always)]
    unsafe fn scale_by_power(a: V, n: V) -> V {
        map2(a, n, |a, n| {
            // SAFETY: the caller's promise.
            unsafe {
                let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
                vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
            }
        })
    }
    #[inline(always)]
    unsafe fn if_less(a: V, b: V, yes: V, no: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { [0, 1, 2, 3].map(|i| vbslq_f32(vcltq_f32(a[i], b[i]), yes[i], no[i])) }
    }
    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { fold(v, |a, b| vaddq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn maximum(v: V) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { fold(v, |a, b| vmaxq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn rounded(v: V) -> V {
        // No closure here: it would be compiled without the bf16 instructions.
        // SAFETY: the caller's promise.
        unsafe {
            let halves = [narrow::<BF16>(v[0]), narrow::<BF16>(v[1]), narrow::<BF16>(v[2]), narrow::<BF16>(v[3])];
            [widen(halves[0]), widen(halves[1]), widen(halves[2]), widen(halves[3])]
        }
    }
}
