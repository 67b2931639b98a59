//! Blocks unpacked in NEON, for the panels of the matrix product.

use std::arch::aarch64::*;

use super::layout::{CHUNK, with_type};
use super::matrix::StoredMatrix;
use super::neon_blocks::Blocks;
use crate::simd::neon::narrow;

/// Columns `first` to `first + count` - 1, both multiples of 32, of a quantised row as f32.
///
/// # Safety
/// The row has these columns, and `to` room.
pub(super) unsafe fn floats(matrix: &StoredMatrix<'_>, row: usize, first: usize, count: usize, to: *mut f32) {
    let bytes = matrix.row(row).as_ptr();
    // SAFETY: the caller's promise.
    unsafe { with_type!(matrix.dtype, neon_blocks::B => float_chunks::<B>(bytes, first / CHUNK, count / CHUNK, to), else ()) }
}

/// The same as bf16.
///
/// # Safety
/// As [`floats`], with Arm's bf16 instructions.
pub(super) unsafe fn halves(matrix: &StoredMatrix<'_>, row: usize, first: usize, count: usize, to: *mut u16) {
    let bytes = matrix.row(row).as_ptr();
    // SAFETY: the caller's promise.
    unsafe { with_type!(matrix.dtype, neon_blocks::B => half_chunks::<B>(bytes, first / CHUNK, count / CHUNK, to), else ()) }
}

#[target_feature(enable = "neon")]
unsafe fn float_chunks<B: Blocks>(bytes: *const u8, first: usize, count: usize, to: *mut f32) {
    // SAFETY: the caller's promise; a chunk has 8 times 4 values.
    unsafe {
        for chunk in 0..count {
            for (i, v) in values::<B>(bytes, first + chunk).into_iter().enumerate() {
                vst1q_f32(to.add(chunk * CHUNK + 4 * i), v);
            }
        }
    }
}

#[target_feature(enable = "neon,bf16")]
unsafe fn half_chunks<B: Blocks>(bytes: *const u8, first: usize, count: usize, to: *mut u16) {
    // SAFETY: the caller's promise; a chunk has 8 times 4 values.
    unsafe {
        for chunk in 0..count {
            for (i, v) in values::<B>(bytes, first + chunk).into_iter().enumerate() {
                vst1_u16(to.add(chunk * CHUNK + 4 * i), narrow::<true>(v));
            }
        }
    }
}

/// The 32 weights of a row's `number`-th chunk.
#[inline(always)]
unsafe fn values<B: Blocks>(bytes: *const u8, number: usize) -> [float32x4_t; 8] {
    // SAFETY: the caller's promise.
    unsafe {
        let at = bytes.add(number / B::CHUNKS * B::BYTES);
        let chunk = B::chunk(at, &B::head(at), number % B::CHUNKS);
        let mut values = [vdupq_n_f32(chunk.offset); 8];
        for half in 0..2 {
            let scale = chunk.scale * chunk.parts[half] as f32;
            let levels = [vmovl_s8(vget_low_s8(chunk.levels[half])), vmovl_high_s8(chunk.levels[half])];
            for (i, levels) in levels.into_iter().enumerate() {
                for (j, levels) in [vmovl_s16(vget_low_s16(levels)), vmovl_high_s16(levels)].into_iter().enumerate() {
                    let value = &mut values[4 * half + 2 * i + j];
                    *value = vfmaq_n_f32(*value, vcvtq_f32_s32(levels), scale);
                }
            }
        }
        values
    }
}
