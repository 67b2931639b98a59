//! How a product is cut: the inner dimension into blocks that fit the first-level cache, both outer ones into tiles.
//!
//! What must stay true: the blocks of the inner dimension depend on that dimension and the kernel alone, because their
//! order is the order of summation.

use super::micro::{Micro, Unit};

/// Units of a block: a panel of 32 columns takes 32 KiB.
pub(super) const UNITS: usize = 256;
/// Units of a block for AMX: a panel and a packed tile of 32 rows, 16 KiB each, share a first-level cache of 48 KiB.
pub(super) const UNITS_OF_TILES: usize = 128;

/// The inner dimension in nearly equal blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Values of the whole dimension.
    inner: usize,
    /// Values of every block but the last, a multiple of the unit.
    values: usize,
    unit: Unit,
}

/// One block: where it begins, in values and in units, and how long it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) first: usize,
    pub(crate) values: usize,
    pub(crate) first_unit: usize,
    pub(crate) units: usize,
}

impl Blocks {
    pub(crate) fn new(inner: usize, micro: &Micro) -> Self {
        let units = micro.units(inner);
        let count = units.div_ceil(micro.block_units).max(1);
        // Multiples of 16 units keep packing in whole registers.
        let block = units.div_ceil(count).next_multiple_of(16);
        Self { inner, values: block * micro.unit.values(), unit: micro.unit }
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.div_ceil(self.values.max(1)).max(1)
    }

    /// Units of all blocks together.
    pub(crate) fn total_units(&self) -> usize {
        self.unit.count(self.inner)
    }

    /// Units of the longest block.
    pub(crate) fn longest(&self) -> usize {
        (self.values / self.unit.values()).min(self.total_units())
    }

    pub(crate) fn get(&self, index: usize) -> Block {
        let first = index * self.values;
        let values = self.values.min(self.inner - first);
        Block { first, values, first_unit: first / self.unit.values(), units: self.unit.count(values) }
    }
}
