//! Packing of left sides for AMX tiles, [group][16 units][lane][unit], in AVX-512: rows stay rows, columns are transposed.

use std::arch::x86_64::*;

use super::micro::RUN;
use super::pack::Packing;
use super::pack_avx512::{interleaved, load_column_pairs, load_pairs, mask16, transpose};

/// # Safety
/// As [`Packing::rows`], for pairs, with AVX-512 and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn rows(packing: &Packing, to: *mut u32) {
    let Packing { source, stride, lanes, inner, width, .. } = *packing;
    let units = inner.div_ceil(2);
    for lane in 0..lanes.next_multiple_of(width) {
        let start = lane / width * width * units;
        for first in (0..units).step_by(RUN) {
            let run = RUN.min(units - first);
            // SAFETY: lanes below `lanes` and values below `inner` lie in the source; the run lies in the lane's group.
            unsafe {
                let mut pairs = _mm512_setzero_si512();
                if lane < lanes {
                    pairs = load_pairs(source.add(lane * stride + 2 * first), inner - 2 * first);
                }
                let to = to.add(start + first * width + lane % width * run);
                _mm512_mask_storeu_epi32(to.cast(), mask16(run), pairs);
            }
        }
    }
}

/// # Safety
/// As [`Packing::columns`], for pairs, with AVX-512 and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn columns(packing: &Packing, to: *mut u32) {
    let Packing { source, stride, lanes, inner, width, .. } = *packing;
    let units = inner.div_ceil(2);
    // SAFETY: the caller has AVX-512.
    let order = unsafe { interleaved() };
    for first in (0..units).step_by(RUN) {
        let run = RUN.min(units - first);
        for first_lane in (0..lanes.next_multiple_of(width)).step_by(RUN) {
            let start = first_lane / width * width * units + first * width + first_lane % width * run;
            // SAFETY: as in `rows`; lanes and halves of pairs that there are not are not read.
            unsafe {
                let mut block = [_mm512_setzero_si512(); RUN];
                if first_lane < lanes {
                    for (u, pairs) in block.iter_mut().enumerate().take(run) {
                        let row = 2 * (first + u);
                        let from = source.add(row * stride + first_lane);
                        *pairs = load_column_pairs(from, stride, lanes - first_lane, row + 1 < inner, order);
                    }
                }
                for (lane, pairs) in transpose(block).into_iter().enumerate() {
                    _mm512_mask_storeu_epi32(to.add(start + lane * run).cast(), mask16(run), pairs);
                }
            }
        }
    }
}
