//! The innermost product: a tile of `rows` × `width` sums over units of the inner dimension, kept in registers.
//!
//! A unit is 4 bytes: one f32, or two neighbouring bf16 values (of the inner dimension). The left side is a packed tile
//! or plain rows; the right side always a packed panel [unit][width].

#[cfg(target_arch = "aarch64")]
use super::micro_neon;
use super::{blocks, micro_plain};
#[cfg(target_arch = "x86_64")]
use super::{micro_amx, micro_avx2, micro_avx512};
use crate::{Isa, Precision};

/// What a packed unit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// One f32.
    Single,
    /// One f32 that was rounded to bf16.
    Rounded,
    /// Two bf16 values, the first in the lower half.
    Pair,
    /// The same, and units come by twos, side by side for each lane: `[unit / 2][width][2]`.
    Quad,
}

impl Unit {
    /// Values of the inner dimension in a unit.
    pub(crate) fn values(self) -> usize {
        if self.is_half() { 2 } else { 1 }
    }

    /// Units that `values` of the inner dimension fill.
    pub(crate) fn count(self, values: usize) -> usize {
        if self == Self::Quad { 2 * values.div_ceil(4) } else { values.div_ceil(self.values()) }
    }

    /// Whether values stand in a unit as bf16.
    pub(crate) fn is_half(self) -> bool {
        matches!(self, Self::Pair | Self::Quad)
    }
}

/// Which side of a product an operand is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Units that [`Order::Lanes`] keeps together.
pub(crate) const RUN: usize = 16;

/// How the words of a packed tile or panel follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// [unit][lane]
    Units,
    /// [run of 16 units][lane][unit], the last run as short as it is: what a tile register takes as its rows.
    Lanes,
}

/// One call of the innermost product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub(crate) units: usize,
    pub(crate) left: *const u32,
    /// Units from one row to the next, when the left side is plain rows; 0 for a packed tile.
    pub(crate) left_stride: usize,
    pub(crate) right: *const u32,
    /// What the sums are added to; null for nothing.
    pub(crate) from: *const f32,
    pub(crate) from_stride: usize,
    pub(crate) to: *mut f32,
    pub(crate) to_stride: usize,
}

/// The innermost product of one instruction set and precision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Micro {
    pub(crate) unit: Unit,
    /// Rows of a packed tile.
    pub(crate) height: usize,
    /// Columns of a panel: sums are always written for all of them.
    pub(crate) width: usize,
    /// How a packed tile is ordered; panels are always in the order of units.
    pub(crate) left: Order,
    /// Units of a block of the inner dimension.
    pub(crate) block_units: usize,
    /// Takes the number of rows, 1 to `height`.
    pub(crate) run: unsafe fn(usize, &Tile),
}

impl Micro {
    pub(crate) fn new(isa: Isa, precision: Precision) -> Self {
        let unit = match (precision, isa) {
            (Precision::F32, _) => Unit::Single,
            (Precision::Bf16, Isa::Avx512Bf16 | Isa::Amx) => Unit::Pair,
            (Precision::Bf16, Isa::NeonBf16) => Unit::Quad,
            (Precision::Bf16, _) => Unit::Rounded,
        };
        let (height, width, run): (_, _, unsafe fn(usize, &Tile)) = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx if unit == Unit::Pair => (micro_amx::HEIGHT, micro_amx::WIDTH, micro_amx::pairs()),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => {
                (micro_avx512::HEIGHT, micro_avx512::WIDTH, if unit == Unit::Pair { micro_avx512::pairs } else { micro_avx512::singles })
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => (micro_avx2::HEIGHT, micro_avx2::WIDTH, micro_avx2::singles),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot | Isa::NeonBf16 => {
                (micro_neon::HEIGHT, micro_neon::WIDTH, if unit == Unit::Quad { micro_neon::quads } else { micro_neon::singles })
            }
            _ => (micro_plain::HEIGHT, micro_plain::WIDTH, micro_plain::singles),
        };
        let (left, block_units) = match isa {
            Isa::Amx if unit == Unit::Pair => (Order::Lanes, blocks::UNITS_OF_TILES),
            _ => (Order::Units, blocks::UNITS),
        };
        Self { unit, height, width, left, block_units, run }
    }

    /// Outer indices that are packed together.
    pub(crate) fn lanes(&self, side: Side) -> usize {
        if side == Side::Left { self.height } else { self.width }
    }

    pub(crate) fn order(&self, side: Side) -> Order {
        if side == Side::Left { self.left } else { Order::Units }
    }

    /// Units that `values` of the inner dimension fill.
    pub(crate) fn units(&self, values: usize) -> usize {
        self.unit.count(values)
    }
}

/// A `run` function that picks the body for its number of rows.
macro_rules! by_rows {
    ($(#[$meta:meta])* $name:ident, $body:ident, $($rows:literal)*) => {
        $(#[$meta])*
        pub(super) unsafe fn $name(rows: usize, tile: &Tile) {
            // SAFETY: the caller's promise.
            unsafe {
                match (rows, tile.left_stride) {
                    $(($rows, 0) => $body::<$rows, true>(tile),)*
                    $(($rows, _) => $body::<$rows, false>(tile),)*
                    _ => unreachable!("{rows} rows in a tile"),
                }
            }
        }
    };
}
pub(super) use by_rows;
