//! A whole operand packed: [block][group of lanes], each in the kernel's [`Order`](super::micro::Order).

use super::{
    blocks::{Block, Blocks},
    matrix::Operand,
    micro::{Micro, Side},
    pack::Packing,
};
use crate::simd::prefetch_second_level;
use crate::threads::Parts;
use crate::{Cpu, Isa, Matrix, Precision, Values};

/// Units × lanes that one packing task takes: enough to be worth handing out.
const TASK_WORDS: usize = 1 << 15;

/// The right side of a product, packed once and used many times: pays when several micro-batches meet the same weights.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    pub(crate) words: Vec<u32>,
    pub(crate) outer: usize,
    pub(crate) inner: usize,
    pub(crate) precision: Precision,
    /// Whose order and blocks it has.
    pub(crate) isa: Isa,
}

impl PackedMatrix {
    /// Packs weights [out, in] for the product x · Wᵀ, whose inner dimension is `in`.
    pub fn for_forward(cpu: &Cpu, weights: Matrix<'_>, precision: Precision) -> Self {
        Self::new(cpu, weights.by_rows(), precision)
    }

    /// Packs weights [out, in] for the product dy · W, whose inner dimension is `out`.
    pub fn for_backward(cpu: &Cpu, weights: Matrix<'_>, precision: Precision) -> Self {
        Self::new(cpu, weights.by_columns(), precision)
    }

    fn new(cpu: &Cpu, operand: Operand<'_>, precision: Precision) -> Self {
        let micro = Micro::new(cpu.isa, precision);
        let mut words = vec![0; words(&operand, &micro, Side::Right)];
        pack_whole(cpu, &operand, &micro, Side::Right, &mut words);
        Self { words, outer: operand.outer(), inner: operand.inner(), precision, isa: cpu.isa }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.words.len() * 4
    }
}

/// Values of 4 bytes that `operand` takes when packed.
pub(crate) fn words(operand: &Operand<'_>, micro: &Micro, side: Side) -> usize {
    micro.units(operand.inner()) * operand.outer().next_multiple_of(micro.lanes(side))
}

/// Packs all of `operand` into `to`, on all threads.
pub(crate) fn pack_whole(cpu: &Cpu, operand: &Operand<'_>, micro: &Micro, side: Side, to: &mut [u32]) {
    assert_eq!(to.len(), words(operand, micro, side), "room for a packed operand");
    let width = micro.lanes(side);
    let blocks = Blocks::new(operand.inner(), micro);
    let groups = operand.outer().div_ceil(width);
    let run = (TASK_WORDS / (blocks.longest() * width).max(1)).max(1);
    let runs = groups.div_ceil(run);
    let to = Parts::new(to);
    cpu.threads.for_each(blocks.count() * runs, |task| {
        let block = blocks.get(task / runs);
        let start = task % runs * run;
        let count = run.min(groups - start);
        let at = block.first_unit * groups * width + start * block.units * width;
        // SAFETY: each group of each block has a part of its own, inside `to` by the assertion above.
        unsafe { pack_groups(cpu, operand, micro, side, start, count, block, to.pointer(at)) };
    });
}

/// The cache lines that one packing will read, to be fetched piece by piece beforehand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    pub(crate) start: *const u8,
    pub(crate) rows: usize,
    pub(crate) row_bytes: usize,
    pub(crate) stride_bytes: usize,
}

impl Ahead {
    pub(crate) fn new(operand: &Operand<'_>, micro: &Micro, group: usize, block: Block) -> Self {
        let lane = group * micro.width;
        let lanes = micro.width.min(operand.outer() - lane);
        let stride = operand.matrix.columns;
        let (at, rows, row) = if operand.inner_is_rows {
            (block.first * stride + lane, block.values, lanes)
        } else {
            (lane * stride + block.first, lanes, block.values)
        };
        let (start, size): (*const u8, _) = match operand.matrix.values {
            Values::F32(values) => (values.as_ptr().wrapping_add(at).cast(), 4),
            Values::Bf16(values) => (values.as_ptr().wrapping_add(at).cast(), 2),
        };
        Self { start, rows, row_bytes: row * size, stride_bytes: stride * size }
    }

    /// Fetches the `part`-th of `parts` equal shares of the lines.
    #[inline]
    pub(crate) fn fetch(&self, part: usize, parts: usize) {
        let lines = self.row_bytes.div_ceil(64) + 1;
        let share = (self.rows * lines).div_ceil(parts);
        let (mut row, mut line) = (part * share / lines, part * share % lines);
        for _ in 0..share {
            if row >= self.rows {
                return;
            }
            let at = row * self.stride_bytes + (line * 64).min(self.row_bytes - 1);
            prefetch_second_level(self.start.wrapping_add(at));
            line += 1;
            if line == lines {
                (row, line) = (row + 1, 0);
            }
        }
    }
}

/// Packs `count` groups of lanes of one block, from group `start`.
///
/// # Safety
/// The groups and the block lie in the operand; `to` has room for [groups][units][lanes] and nobody else writes there.
#[allow(clippy::too_many_arguments)]
#[inline]
pub(crate) unsafe fn pack_groups(
    cpu: &Cpu,
    operand: &Operand<'_>,
    micro: &Micro,
    side: Side,
    start: usize,
    count: usize,
    block: Block,
    to: *mut u32,
) {
    let source = operand.matrix.values.source();
    let stride = operand.matrix.columns;
    let (width, order) = (micro.lanes(side), micro.order(side));
    let lane = start * width;
    let lanes = (count * width).min(operand.outer() - lane);
    // SAFETY: the groups and the block lie in the matrix, whose length was checked when the view was made.
    unsafe {
        if operand.inner_is_rows {
            let source = source.add(block.first * stride + lane);
            Packing { unit: micro.unit, source, stride, lanes, inner: block.values, width, order }.columns(cpu.isa, to);
        } else {
            let source = source.add(lane * stride + block.first);
            Packing { unit: micro.unit, source, stride, lanes, inner: block.values, width, order }.rows(cpu.isa, to);
        }
    }
}
