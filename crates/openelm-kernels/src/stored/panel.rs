//! Panels of stored rows for the matrix product: unpacked row by row into a small space, then packed as every other operand.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use openelm_formats::DType;

#[cfg(target_arch = "x86_64")]
use super::avx512_blocks::{Blocks512, Chunk512};
#[cfg(target_arch = "x86_64")]
use super::layout::with_type;
use super::matrix::{StoredMatrix, StoredRows};
#[cfg(target_arch = "aarch64")]
use super::neon_unpack;
use crate::matmul::blocks::{Block, Blocks};
use crate::matmul::micro::{Micro, Side};
use crate::matmul::pack::Packing;
use crate::matmul::packed::Ahead;
use crate::simd::Source;
use crate::threads::Parts;
use crate::{Cpu, Isa, scratch};

/// Columns that are unpacked together: a block of the inner dimension may begin and end inside.
const WHOLE: usize = 64;

impl StoredRows<'_> {
    /// Words that the unpacked rows of one panel take.
    pub(crate) fn row_words(micro: &Micro, blocks: Blocks) -> usize {
        let columns = blocks.longest() * micro.unit.values() + 2 * WHOLE;
        micro.width * if micro.unit.is_half() { columns.div_ceil(2) } else { columns }
    }

    /// Packs the rows of one panel, of one block of the inner dimension.
    ///
    /// # Safety
    /// The instruction set is available, panel and block lie in the matrix, `space` has [`row_words`](Self::row_words) and `to`
    /// room for [units][width].
    pub(crate) unsafe fn pack_panel(&self, isa: Isa, micro: &Micro, panel: usize, block: Block, space: &mut [u32], to: *mut u32) {
        let lane = panel * micro.width;
        let lanes = micro.width.min(self.rows() - lane);
        let (unit, width, order) = (micro.unit, micro.width, micro.order(Side::Right));
        if let Some(source) = self.floats(lane, lanes) {
            let packing = Packing { unit, source, stride: self.columns(), lanes, inner: block.values, width, order };
            // SAFETY: the caller's promise; the lanes are rows of one matrix.
            return unsafe { Packing { source: source.add(block.first), ..packing }.rows(isa, to) };
        }
        let first = block.first / WHOLE * WHOLE;
        let end = (block.first + block.values).next_multiple_of(WHOLE).min(self.columns());
        let stride = (end - first).next_multiple_of(WHOLE);
        // SAFETY: the caller's promise; each row has `stride` places in the space.
        unsafe {
            let source = if micro.unit.is_half() {
                let halves = space.as_mut_ptr().cast::<u16>();
                for i in 0..lanes {
                    let (matrix, row, _) = self.locate(lane + i);
                    unpack_halves(isa, matrix, row, first, end, halves.add(i * stride));
                }
                Source::Bf16(halves.add(block.first - first))
            } else {
                let floats = space.as_mut_ptr().cast::<f32>();
                for i in 0..lanes {
                    let (matrix, row, _) = self.locate(lane + i);
                    let to = std::slice::from_raw_parts_mut(floats.add(i * stride), end - first);
                    matrix.unpack(isa, row, first, to);
                }
                Source::F32(floats.add(block.first - first))
            };
            Packing { unit, source, stride, lanes, inner: block.values, width, order }.rows(isa, to);
        }
    }

    /// The first of `lanes` rows from row `lane` on, where they lie together and are values that packing reads itself.
    fn floats(&self, lane: usize, lanes: usize) -> Option<Source> {
        let (matrix, row, left) = self.locate(lane);
        if lanes > left || cfg!(target_endian = "big") {
            return None;
        }
        let start = matrix.row(row).as_ptr();
        match matrix.dtype {
            DType::BF16 => Some(Source::Bf16(start.cast())).filter(|_| start.cast::<u16>().is_aligned()),
            DType::F32 => Some(Source::F32(start.cast())).filter(|_| start.cast::<f32>().is_aligned()),
            _ => None,
        }
    }

    /// The cache lines that packing a panel of a block will read; of its first matrix, when the panel lies in both.
    pub(crate) fn ahead(&self, micro: &Micro, panel: usize, block: Block) -> Ahead {
        let lane = panel * micro.width;
        let (matrix, row, left) = self.locate(lane);
        let bytes = |columns: usize| columns * matrix.row_bytes / matrix.columns.max(1);
        Ahead {
            start: matrix.row(row).as_ptr().wrapping_add(bytes(block.first)),
            rows: micro.width.min(self.rows() - lane).min(left),
            row_bytes: bytes(block.values),
            stride_bytes: matrix.row_bytes,
        }
    }

    /// Packs all rows, on all threads.
    pub(crate) fn pack_whole(&self, cpu: &Cpu, micro: &Micro, to: &mut [u32]) {
        let blocks = Blocks::new(self.columns(), micro);
        let panels = self.rows().div_ceil(micro.width);
        assert_eq!(to.len(), micro.units(self.columns()) * panels * micro.width, "room for packed rows");
        let to = Parts::new(to);
        cpu.threads.for_each(blocks.count() * panels, |task| {
            let (index, panel) = (task / panels, task % panels);
            let block = blocks.get(index);
            scratch::with(Self::row_words(micro, blocks), |space| {
                // SAFETY: each panel of each block has its own room, inside `to` by the assertion above.
                unsafe {
                    let to = to.pointer((block.first_unit * panels + panel * block.units) * micro.width);
                    self.pack_panel(cpu.isa, micro, panel, block, space, to);
                }
            });
        });
    }
}

/// Columns `first` to `end` - 1 of a row as bf16. `first` is a multiple of 64.
///
/// # Safety
/// The instruction set is available; `to` has room for `end - first` values, filled up to a multiple of 64.
unsafe fn unpack_halves(isa: Isa, matrix: &StoredMatrix<'_>, row: usize, first: usize, end: usize, to: *mut u16) {
    let bytes = matrix.row(row);
    if matrix.dtype == DType::BF16 {
        let from = bytes[first * 2..end * 2].as_ptr();
        // SAFETY: the caller's promise.
        return unsafe { std::ptr::copy_nonoverlapping(from, to.cast(), (end - first) * 2) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512_bf16() && matrix.dtype.is_quantised() {
        // SAFETY: the caller's promise; the bytes are a row's.
        return unsafe { with_type!(matrix.dtype, avx512_blocks::B => unpack_blocks::<B>(bytes.as_ptr(), first, end, to), else ()) };
    }
    #[cfg(target_arch = "aarch64")]
    if isa == Isa::NeonBf16 && matrix.dtype.is_quantised() {
        // SAFETY: the caller's promise; a row of blocks is a multiple of 32 long.
        return unsafe { neon_unpack::halves(matrix, row, first, end - first, to) };
    }
    let mut values = [0.0; WHOLE];
    for at in (first..end).step_by(WHOLE) {
        let count = WHOLE.min(end - at);
        // SAFETY: the caller's promise.
        unsafe {
            matrix.unpack(isa, row, at, &mut values[..count]);
            for (i, value) in values.iter().enumerate().take(count) {
                *to.add(at - first + i) = crate::simd::round_half(*value);
            }
        }
    }
}

/// # Safety
/// As [`unpack_halves`], with AVX-512 and BF16; `bytes` is a whole row of at least `end` columns.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn unpack_blocks<B: Blocks512>(bytes: *const u8, first: usize, end: usize, to: *mut u16) {
    let (mut column, mut to) = (first, to);
    // SAFETY: the caller's promise.
    unsafe {
        while column < end {
            let at = bytes.add(column / B::WEIGHTS * B::BYTES);
            if end - column < WHOLE {
                store(B::chunk::<true>(at, B::head::<true>(at), 0), to);
                return;
            }
            let head = B::head::<false>(at);
            for index in column % B::WEIGHTS / WHOLE..B::WEIGHTS / WHOLE {
                if column >= end {
                    return;
                }
                store(B::chunk::<false>(at, head, index), to);
                (column, to) = (column + WHOLE, to.add(WHOLE));
            }
        }
    }
}

/// 64 weights as bf16.
///
/// # Safety
/// As [`unpack_blocks`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store(chunk: Chunk512, to: *mut u16) {
    // SAFETY: the caller's promise.
    unsafe {
        let levels: [__m128i; 4] = [
            _mm512_extracti32x4_epi32::<0>(chunk.levels),
            _mm512_extracti32x4_epi32::<1>(chunk.levels),
            _mm512_extracti32x4_epi32::<2>(chunk.levels),
            _mm512_extracti32x4_epi32::<3>(chunk.levels),
        ];
        for (quarter, levels) in levels.into_iter().enumerate() {
            // 16 weights share a scale, which has 4 lanes.
            let lane = _mm512_set1_epi32(4 * quarter as i32);
            let (scale, offset) = (_mm512_permutexvar_ps(lane, chunk.scales), _mm512_permutexvar_ps(lane, chunk.offsets));
            let values = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(levels)), scale, offset);
            let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
            _mm256_storeu_si256(to.add(16 * quarter).cast(), halves);
        }
    }
}
