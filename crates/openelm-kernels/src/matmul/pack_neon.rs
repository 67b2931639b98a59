//! Packing in NEON, 4 lanes and 4 inner values at a time; what is left over at the edges goes one by one.
//!
//! What must stay true: groups are a multiple of 4 wide, so that 4 lanes lie in one group.

use std::arch::aarch64::*;

use super::micro::Unit;
use super::pack::Packing;
use crate::simd::Source;
use crate::simd::neon::{narrow, widen};

/// # Safety
/// As [`Packing::rows`], with NEON, and Arm's bf16 instructions for quads.
pub(super) unsafe fn rows(packing: &Packing, to: *mut u32) {
    let Packing { unit, lanes, inner, stride, width, .. } = *packing;
    debug_assert!(width.is_multiple_of(4));
    let whole = (lanes / 4 * 4, inner / 4 * 4 / unit.values());
    // SAFETY: the caller's promise.
    unsafe {
        match unit {
            Unit::Quad => rows_quads(packing, to),
            Unit::Pair => return packing.part(to, stride, 1, 0..lanes.next_multiple_of(width), 0..unit.count(inner)),
            Unit::Single => rows_singles::<false>(packing, to),
            Unit::Rounded => rows_singles::<true>(packing, to),
        }
        packing.part(to, stride, 1, 0..whole.0, whole.1..unit.count(inner));
        packing.part(to, stride, 1, whole.0..lanes.next_multiple_of(width), 0..unit.count(inner));
    }
}

/// # Safety
/// As [`Packing::columns`], with NEON, and Arm's bf16 instructions for quads.
pub(super) unsafe fn columns(packing: &Packing, to: *mut u32) {
    let Packing { unit, lanes, inner, stride, width, .. } = *packing;
    debug_assert!(width.is_multiple_of(4));
    // Single units need no four inner values.
    let whole = (lanes / 4 * 4, if unit == Unit::Quad { inner / 4 * 2 } else { inner });
    // SAFETY: the caller's promise.
    unsafe {
        match unit {
            Unit::Quad => columns_quads(packing, to),
            Unit::Pair => return packing.part(to, 1, stride, 0..lanes.next_multiple_of(width), 0..unit.count(inner)),
            Unit::Single => columns_singles::<false>(packing, to),
            Unit::Rounded => columns_singles::<true>(packing, to),
        }
        packing.part(to, 1, stride, 0..whole.0, whole.1..unit.count(inner));
        packing.part(to, 1, stride, whole.0..lanes.next_multiple_of(width), 0..unit.count(inner));
    }
}

/// Four neighbouring values, rounded to bf16 if asked for.
#[inline(always)]
unsafe fn load<const ROUND: bool>(source: Source, at: usize) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        match source {
            Source::F32(from) if ROUND => widen(narrow::<false>(vld1q_f32(from.add(at)))),
            Source::F32(from) => vld1q_f32(from.add(at)),
            Source::Bf16(from) => widen(vld1_u16(from.add(at))),
        }
    }
}

/// Four neighbouring values as bf16.
#[inline(always)]
unsafe fn load_halves(source: Source, at: usize) -> uint16x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        match source {
            Source::F32(from) => narrow::<true>(vld1q_f32(from.add(at))),
            Source::Bf16(from) => vld1_u16(from.add(at)),
        }
    }
}

#[target_feature(enable = "neon")]
unsafe fn rows_singles<const ROUND: bool>(packing: &Packing, to: *mut u32) {
    let Packing { source, stride, lanes, inner, width, .. } = *packing;
    for lane in (0..lanes / 4 * 4).step_by(4) {
        for u in (0..inner / 4 * 4).step_by(4) {
            // SAFETY: lanes below `lanes` and values below `inner` lie in the source, and their places in the target.
            unsafe {
                let at = lane * stride + u;
                let r = [0, 1, 2, 3].map(|i| load::<ROUND>(source, at + i * stride));
                // 2 × 2 blocks of single values, then of pairs.
                let a = [vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]), vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3])];
                let a = a.map(|v| vreinterpretq_f64_f32(v));
                let columns = [vzip1q_f64(a[0], a[2]), vzip1q_f64(a[1], a[3]), vzip2q_f64(a[0], a[2]), vzip2q_f64(a[1], a[3])];
                let to = to.add((lane / width * inner + u) * width + lane % width);
                for (i, column) in columns.into_iter().enumerate() {
                    vst1q_f32(to.add(i * width).cast(), vreinterpretq_f32_f64(column));
                }
            }
        }
    }
}

#[target_feature(enable = "neon,bf16")]
unsafe fn rows_quads(packing: &Packing, to: *mut u32) {
    let Packing { unit, source, stride, lanes, inner, width, .. } = *packing;
    let units = unit.count(inner);
    for lane in 0..lanes / 4 * 4 {
        for quad in 0..inner / 4 {
            // SAFETY: as in `rows_singles`.
            unsafe {
                let halves = load_halves(source, lane * stride + 4 * quad);
                let to = to.add(lane / width * units * width + (quad * width + lane % width) * 2);
                vst1_u16(to.cast(), halves);
            }
        }
    }
}

#[target_feature(enable = "neon")]
unsafe fn columns_singles<const ROUND: bool>(packing: &Packing, to: *mut u32) {
    let Packing { source, stride, lanes, inner, width, .. } = *packing;
    for u in 0..inner {
        for lane in (0..lanes / 4 * 4).step_by(4) {
            // SAFETY: as in `rows_singles`.
            unsafe {
                let to = to.add((lane / width * inner + u) * width + lane % width);
                vst1q_f32(to.cast(), load::<ROUND>(source, u * stride + lane));
            }
        }
    }
}

#[target_feature(enable = "neon,bf16")]
unsafe fn columns_quads(packing: &Packing, to: *mut u32) {
    let Packing { unit, source, stride, lanes, inner, width, .. } = *packing;
    let units = unit.count(inner);
    for quad in 0..inner / 4 {
        for lane in (0..lanes / 4 * 4).step_by(4) {
            // SAFETY: as in `rows_singles`.
            unsafe {
                let at = 4 * quad * stride + lane;
                let (a, b) = (load_halves(source, at), load_halves(source, at + stride));
                let (c, d) = (load_halves(source, at + 2 * stride), load_halves(source, at + 3 * stride));
                // Two values of each lane, then four.
                let first = vcombine_u16(vzip1_u16(a, b), vzip2_u16(a, b));
                let second = vcombine_u16(vzip1_u16(c, d), vzip2_u16(c, d));
                let (first, second) = (vreinterpretq_u32_u16(first), vreinterpretq_u32_u16(second));
                let to = to.add(lane / width * units * width + (quad * width + lane % width) * 2);
                vst1q_u32(to, vzip1q_u32(first, second));
                vst1q_u32(to.add(4), vzip2q_u32(first, second));
            }
        }
    }
}
