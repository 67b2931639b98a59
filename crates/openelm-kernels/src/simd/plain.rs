//! Sixteen lanes as an array: the compiler vectorises the loops for the architecture's baseline (SSE2, NEON).

use super::{LANES, Simd, round_half, widen_half};

#[derive(Clone, Copy)]
pub(crate) struct Plain;

type V = [f32; LANES];

#[inline(always)]
fn map2(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn fold(v: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let v: [f32; 8] = std::array::from_fn(|i| f(v[i], v[i + 8]));
    let v: [f32; 4] = std::array::from_fn(|i| f(v[i], v[i + 4]));
    f(f(v[0], v[2]), f(v[1], v[3]))
}

impl Simd for Plain {
    type V = V;

    #[inline(always)]
    unsafe fn splat(value: f32) -> V {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> V {
        let mut v = [0.0; LANES];
        for (i, value) in v.iter_mut().enumerate().take(lanes) {
            // SAFETY: the caller's promise.
            *value = unsafe { *from.add(i) };
        }
        v
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: V, lanes: usize) {
        for (i, value) in v.iter().enumerate().take(lanes) {
            // SAFETY: the caller's promise.
            unsafe { *to.add(i) = *value };
        }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> V {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        halves.map(widen_half)
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> V {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        halves.map(|bits| half::f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn store_half(to: *mut u16, v: V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(v.map(round_half)) }
    }
    #[inline(always)]
    unsafe fn load_half_first(from: *const u16, lanes: usize) -> V {
        let mut v = [0.0; LANES];
        for (i, value) in v.iter_mut().enumerate().take(lanes) {
            // SAFETY: the caller's promise.
            *value = widen_half(unsafe { *from.add(i) });
        }
        v
    }
    #[inline(always)]
    unsafe fn store_half_first(to: *mut u16, v: V, lanes: usize) {
        for (i, value) in v.iter().enumerate().take(lanes) {
            // SAFETY: the caller's promise.
            unsafe { *to.add(i) = round_half(*value) };
        }
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn sqrt(a: V) -> V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        // On x86's baseline mul_add is a library call; on Arm it is an instruction.
        if cfg!(target_arch = "aarch64") {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    unsafe fn round(a: V) -> V {
        // Adding and taking 1.5 · 2^23 leaves no room for a fraction: exact for |a| < 2^22.
        a.map(|a| (a + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    unsafe fn scale_by_power(a: V, n: V) -> V {
        // Wrapping, as vectors do: for exponents out of range any result will do, but not a panic.
        map2(a, n, |a, n| a * f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn if_less(a: V, b: V, yes: V, no: V) -> V {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        fold(v, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn maximum(v: V) -> f32 {
        fold(v, f32::max)
    }
    #[inline(always)]
    unsafe fn rounded(v: V) -> V {
        v.map(|v| widen_half(round_half(v)))
    }
}
