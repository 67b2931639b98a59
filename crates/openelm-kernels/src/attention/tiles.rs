//! Blocks of queries and keys, packed, and their products.

use crate::matmul::micro::{Micro, Side, Tile, Unit};
use crate::matmul::pack::Packing;
use crate::simd::{Sink, Source};
use crate::{Cpu, Precision};

/// Queries and keys of a block: whole tiles and whole panels on every instruction set.
pub(super) const BLOCK: usize = 96;

/// Sizes in units and panels that follow from a kernel and a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub(super) micro: Micro,
    pub(super) head_dim: usize,
    /// Units of the head dimension.
    pub(super) head_units: usize,
    /// Panels of the head dimension.
    pub(super) head_panels: usize,
    /// Columns of those panels.
    pub(super) head_columns: usize,
    /// Units of a block.
    pub(super) block_units: usize,
}

impl Tiles {
    pub(super) fn new(cpu: &Cpu, precision: Precision, head_dim: usize) -> Self {
        let micro = Micro::new(cpu.isa, precision);
        debug_assert!(BLOCK.is_multiple_of(micro.height) && BLOCK.is_multiple_of(micro.width));
        let head_panels = head_dim.div_ceil(micro.width);
        Self {
            micro,
            head_dim,
            head_units: micro.units(head_dim),
            head_panels,
            head_columns: head_panels * micro.width,
            block_units: micro.units(BLOCK),
        }
    }

    /// Words of a packed block whose lanes are its rows (one block of queries or keys, summed over the head).
    pub(super) fn rows_words(&self) -> usize {
        self.head_units * BLOCK
    }

    /// Words of a packed block whose lanes are the head's channels (summed over the block).
    pub(super) fn columns_words(&self) -> usize {
        self.block_units * self.head_columns
    }

    /// Words of a packed block of keys, then of values.
    pub(super) fn block_words(&self) -> usize {
        self.rows_words() + self.columns_words()
    }

    /// Packs `rows` rows of a head as left tiles, summed over the head.
    ///
    /// # Safety
    /// `source` holds the rows, `stride` apart; `to` has [`rows_words`](Self::rows_words).
    pub(super) unsafe fn pack_left(&self, cpu: &Cpu, source: Source, stride: usize, rows: usize, to: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { self.pack_rows(cpu, source, stride, rows, Side::Left, to) }
    }

    /// The same as right panels.
    ///
    /// # Safety
    /// As [`pack_left`](Self::pack_left).
    pub(super) unsafe fn pack_right(&self, cpu: &Cpu, source: Source, stride: usize, rows: usize, to: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { self.pack_rows(cpu, source, stride, rows, Side::Right, to) }
    }

    unsafe fn pack_rows(&self, cpu: &Cpu, source: Source, stride: usize, rows: usize, side: Side, to: *mut u32) {
        let (width, order) = (self.micro.lanes(side), self.micro.order(side));
        // SAFETY: the caller's promise.
        unsafe {
            Packing { unit: self.micro.unit, source, stride, lanes: rows, inner: self.head_dim, width, order }.rows(cpu.isa, to);
        }
    }

    /// Packs `rows` rows of a head as right panels summed over the rows.
    ///
    /// # Safety
    /// As [`pack_left`](Self::pack_left), with [`columns_words`](Self::columns_words).
    pub(super) unsafe fn pack_channels(&self, cpu: &Cpu, source: Source, stride: usize, rows: usize, to: *mut u32) {
        let (width, order) = (self.micro.width, self.micro.order(Side::Right));
        // SAFETY: the caller's promise.
        unsafe {
            Packing { unit: self.micro.unit, source, stride, lanes: self.head_dim, inner: rows, width, order }.columns(cpu.isa, to);
        }
    }

    /// Packs the transpose of a block [`rows`][BLOCK] of probabilities or their gradients as left tiles summed over rows.
    ///
    /// # Safety
    /// `block` was written by way of [`sink`](Self::sink); `to` has block_units · BLOCK words.
    pub(super) unsafe fn pack_transposed(&self, cpu: &Cpu, block: *const u32, rows: usize, columns: usize, to: *mut u32) {
        let (width, order) = (self.micro.height, self.micro.order(Side::Left));
        let (unit, source) = (self.micro.unit, self.source(block));
        // SAFETY: the caller's promise.
        unsafe { Packing { unit, source, stride: BLOCK, lanes: columns, inner: rows, width, order }.columns(cpu.isa, to) }
    }

    /// Where a block [rows][BLOCK] is written so that its rows are left rows: bf16 for pairs, else f32.
    pub(super) fn sink(&self, block: *mut u32) -> Sink {
        if self.micro.unit.is_half() { Sink::Bf16(block.cast()) } else { Sink::F32(block.cast()) }
    }

    fn source(&self, block: *const u32) -> Source {
        if self.micro.unit.is_half() { Source::Bf16(block.cast()) } else { Source::F32(block.cast()) }
    }

    /// Whether values must be rounded to bf16 before they are stored as f32.
    pub(super) fn rounds(&self) -> bool {
        self.micro.unit == Unit::Rounded
    }

    /// left [rows, units] · right [units, panels · width] into `to`, whose rows are `stride` apart. `left_stride` is 0
    /// for packed tiles.
    ///
    /// # Safety
    /// Both sides hold what their sizes say, and `to` has `rows` rows of all panels' columns.
    #[allow(clippy::too_many_arguments)]
    #[inline]
    pub(super) unsafe fn multiply(
        &self,
        rows: usize,
        units: usize,
        left: *const u32,
        left_stride: usize,
        right: *const u32,
        panels: usize,
        to: *mut f32,
        stride: usize,
        add: bool,
    ) {
        let Micro { height, width, run, .. } = self.micro;
        for panel in 0..panels {
            for (tile, first) in (0..rows).step_by(height).enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let left = left.add(if left_stride == 0 { tile * units * height } else { first * left_stride });
                    let to = to.add(first * stride + panel * width);
                    let from = if add { to.cast_const() } else { std::ptr::null() };
                    let right = right.add(panel * units * width);
                    let tile = Tile { units, left, left_stride, right, from, from_stride: stride, to, to_stride: stride };
                    run(height.min(rows - first), &tile);
                }
            }
        }
    }
}
