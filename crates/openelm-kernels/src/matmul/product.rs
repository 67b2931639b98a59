//! The product itself. The left side is packed whole; the right side is packed by the task that uses it, unless it is
//! packed already or used by many tasks. A task owns a run of rows and a strip of columns, and goes through all blocks
//! of the inner dimension, so that the sums of a strip stay in the second-level cache.
//!
//! What must stay true: the sums of one element are added in the order of the blocks, whoever computes them.

use super::{
    blocks::Blocks,
    matrix::Operand,
    micro::{Micro, Side, Tile},
    packed::{Ahead, PackedMatrix, pack_groups, pack_whole, words},
};
use crate::simd::simd_fn;
use crate::stored::StoredRows;
use crate::threads::Parts;
use crate::{Cpu, Precision, scratch};

/// Rows of a task: packed, 512 rows of one block fill half of a second-level cache.
const TASK_ROWS: usize = 512;
/// Columns of a strip.
const STRIP: usize = 64;
/// With more runs of rows than this, the right side is packed once instead of by every task.
const REPACKS: usize = 2;

/// The right side of a product.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    Plain(Operand<'a>),
    Packed(&'a PackedMatrix),
    /// Rows as a file stores them; the inner dimension runs along them.
    Stored(&'a StoredRows<'a>),
}

/// Where panels come from, if not from packed ones.
#[derive(Clone, Copy)]
enum Unpacked<'a> {
    Plain(Operand<'a>),
    Stored(&'a StoredRows<'a>),
}

/// What happens to the sums.
pub(crate) enum Target<'a> {
    /// Stored as f32.
    Store(&'a mut [f32]),
    /// Added to what is there.
    Accumulate(&'a mut [f32]),
    /// Stored with another matrix added.
    Sum(&'a mut [f32], &'a [f32]),
    /// Stored as bf16.
    Halves(&'a mut [u16]),
    /// Given to a function, strip by strip.
    Strips(&'a (dyn Fn(Strip<'_>) + Sync)),
}

#[derive(Clone, Copy)]
enum Visit<'a> {
    Nothing,
    Halves(Parts<'a, u16>),
    Function(&'a (dyn Fn(Strip<'_>) + Sync)),
}

/// The finished sums of some rows and columns.
pub(crate) struct Strip<'a> {
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    pub(crate) first_column: usize,
    pub(crate) columns: usize,
    /// Values from one row to the next.
    pub(crate) stride: usize,
    pub(crate) sums: &'a mut [f32],
}

/// left [m, k] · right [k, n], into [m, n].
pub(crate) fn product(cpu: &Cpu, precision: Precision, left: Operand<'_>, right: Right<'_>, target: Target<'_>) {
    let micro = Micro::new(cpu.isa, precision);
    let mut packed = cpu.arena.take(words(&left, &micro, Side::Left));
    pack_whole(cpu, &left, &micro, Side::Left, packed.words_mut());
    product_packed(cpu, precision, packed.words(), left.outer(), left.inner(), right, target);
}

/// As [`product`], with the left side [m, k] packed already.
pub(crate) fn product_packed(cpu: &Cpu, precision: Precision, left: &[u32], m: usize, k: usize, right: Right<'_>, target: Target<'_>) {
    let micro = Micro::new(cpu.isa, precision);
    let (n, right_inner) = match right {
        Right::Plain(operand) => (operand.outer(), operand.inner()),
        Right::Stored(rows) => (rows.rows(), rows.columns()),
        Right::Packed(packed) => {
            assert!(packed.precision == precision && packed.isa == cpu.isa, "packed for another kernel");
            (packed.outer, packed.inner)
        }
    };
    assert_eq!(right_inner, k, "inner dimensions of a product");
    assert_eq!(left.len(), micro.units(k) * m.next_multiple_of(micro.height), "packed left side");
    if let Target::Store(to) | Target::Accumulate(to) | Target::Sum(to, _) = &target {
        assert_eq!(to.len(), m * n, "target of a product");
    }
    if let Target::Sum(_, other) = &target {
        assert_eq!(other.len(), m * n, "addend of a product");
    }
    if m == 0 || n == 0 {
        return;
    }
    let tiles = m.div_ceil(micro.height);
    let row_runs = m.div_ceil(TASK_ROWS).min(tiles);
    let run_tiles = tiles.div_ceil(row_runs);
    let row_runs = tiles.div_ceil(run_tiles);

    let mut whole = None;
    let (unpacked, panels_packed) = match right {
        Right::Packed(packed) => (None, Some(&packed.words[..])),
        Right::Plain(operand) if row_runs > REPACKS => {
            let buffer = whole.insert(cpu.arena.take(words(&operand, &micro, Side::Right)));
            pack_whole(cpu, &operand, &micro, Side::Right, buffer.words_mut());
            (None, Some(buffer.words()))
        }
        Right::Plain(operand) => (Some(Unpacked::Plain(operand)), None),
        Right::Stored(rows) if row_runs > REPACKS => {
            let buffer = whole.insert(cpu.arena.take(micro.units(k) * n.next_multiple_of(micro.width)));
            rows.pack_whole(cpu, &micro, buffer.words_mut());
            (None, Some(buffer.words()))
        }
        Right::Stored(rows) => (Some(Unpacked::Stored(rows)), None),
    };

    let (to, from, from_is_to, visit) = match target {
        Target::Store(values) => (Some(Parts::new(values)), None, false, Visit::Nothing),
        Target::Accumulate(values) => (Some(Parts::new(values)), None, true, Visit::Nothing),
        Target::Sum(values, other) => (Some(Parts::new(values)), Some(other), false, Visit::Nothing),
        Target::Strips(function) => (None, None, false, Visit::Function(function)),
        Target::Halves(values) => {
            assert_eq!(values.len(), m * n, "target of a product");
            (None, None, false, Visit::Halves(Parts::new(values)))
        }
    };

    let blocks = Blocks::new(k, &micro);
    let panels = n.div_ceil(micro.width);
    let strip_panels = (STRIP / micro.width).max(1);
    let strips = panels.div_ceil(strip_panels);
    let strip_width = strip_panels * micro.width;
    let panel_words = if unpacked.is_some() { blocks.longest() * micro.width } else { 0 };
    let row_words = match unpacked {
        Some(Unpacked::Stored(_)) => StoredRows::row_words(&micro, blocks),
        _ => 0,
    };
    let sums_words = run_tiles * micro.height * strip_width;
    cpu.threads.for_each(row_runs * strips, |task| {
        let (row_run, strip) = (task / strips, task % strips);
        let first_tile = row_run * run_tiles;
        let last_tile = (first_tile + run_tiles).min(tiles);
        let (first_row, first_column) = (first_tile * micro.height, strip * strip_width);
        let rows = (last_tile * micro.height).min(m) - first_row;
        let columns = strip_width.min(n - first_column);
        scratch::with(panel_words + row_words + sums_words, |words| {
            let (panel_space, words) = words.split_at_mut(panel_words);
            let (row_space, sums) = words.split_at_mut(row_words);
            let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
            for index in 0..blocks.count() {
                let block = blocks.get(index);
                for panel in strip * strip_panels..(strip * strip_panels + strip_panels).min(panels) {
                    let right = match (&unpacked, panels_packed) {
                        (Some(Unpacked::Stored(rows)), _) => {
                            // SAFETY: as below; the row space is what `row_words` asked for.
                            unsafe { rows.pack_panel(cpu.isa, &micro, panel, block, row_space, panel_space.as_mut_ptr()) };
                            panel_space.as_ptr()
                        }
                        (Some(Unpacked::Plain(operand)), _) => {
                            // SAFETY: the panel and the block lie in the operand; the space holds the longest block.
                            unsafe {
                                pack_groups(cpu, operand, &micro, Side::Right, panel, 1, block, panel_space.as_mut_ptr());
                            }
                            panel_space.as_ptr()
                        }
                        (None, Some(packed)) => packed[(block.first_unit * panels + panel * block.units) * micro.width..].as_ptr(),
                        (None, None) => unreachable!("a right side is plain or packed"),
                    };
                    // The next panel to pack comes into the cache while this one is multiplied.
                    let (next_index, next_panel) = if panel + 1 < panels { (index, panel + 1) } else { (index + 1, strip * strip_panels) };
                    let ahead = unpacked.as_ref().filter(|_| next_index < blocks.count()).map(|unpacked| {
                        let block = blocks.get(next_index);
                        match unpacked {
                            Unpacked::Plain(operand) => Ahead::new(operand, &micro, next_panel, block),
                            Unpacked::Stored(rows) => rows.ahead(&micro, next_panel, block),
                        }
                    });
                    let column = panel * micro.width;
                    // A panel that ends past the matrix goes through the scratch sums as well.
                    let direct = to.filter(|_| column + micro.width <= n);
                    for tile in first_tile..last_tile {
                        let row = tile * micro.height;
                        let height = micro.height.min(m - row);
                        let left = left[(block.first_unit * tiles + tile * block.units) * micro.height..].as_ptr();
                        let local = (row - first_row) * strip_width + column - first_column;
                        // SAFETY: rows and columns lie inside the matrix (direct) or the scratch sums; this task alone
                        // writes them; both packed sides hold the block's units.
                        unsafe {
                            let (pointer, stride) = match &direct {
                                Some(to) => (to.pointer(row * n + column), n),
                                None => (sums.as_mut_ptr().add(local), strip_width),
                            };
                            let (from, from_stride) = match (index, &direct, from) {
                                (0, Some(_), Some(other)) => (other.as_ptr().add(row * n + column), n),
                                (0, Some(_), None) if from_is_to => (pointer.cast_const(), stride),
                                (0, ..) => (std::ptr::null(), 0),
                                _ => (pointer.cast_const(), stride),
                            };
                            if let Some(ahead) = &ahead {
                                ahead.fetch(tile - first_tile, last_tile - first_tile);
                            }
                            (micro.run)(
                                height,
                                &Tile {
                                    units: block.units,
                                    left,
                                    left_stride: 0,
                                    right,
                                    from,
                                    from_stride,
                                    to: pointer,
                                    to_stride: stride,
                                },
                            );
                        }
                    }
                }
            }
            let strip = Strip { first_row, rows, first_column, columns, stride: strip_width, sums };
            match visit {
                Visit::Function(function) => function(strip),
                // SAFETY: strips do not overlap, and lie in [m, n].
                Visit::Halves(to) => unsafe { store_halves(cpu.isa, &strip, to.pointer(first_row * n + first_column), n) },
                Visit::Nothing => store_rest(&strip, to, from, from_is_to, n, micro.width),
            }
        });
    });
}

/// Stores the columns of a strip past the last whole panel of a matrix [.., n].
fn store_rest(strip: &Strip<'_>, to: Option<Parts<'_, f32>>, from: Option<&[f32]>, from_is_to: bool, n: usize, width: usize) {
    let last = (n / width * width).max(strip.first_column);
    let end = strip.first_column + strip.columns;
    let Some(to) = to.filter(|_| last < end) else { return };
    for row in 0..strip.rows {
        let at = (strip.first_row + row) * n + last;
        // SAFETY: the task that owns the strip alone writes its columns of its rows.
        let to = unsafe { to.part(at, end - last) };
        let sums = &strip.sums[row * strip.stride + last - strip.first_column..];
        for (column, (to, sum)) in to.iter_mut().zip(sums).enumerate() {
            let base = match from {
                Some(other) => other[at + column],
                None if from_is_to => *to,
                None => 0.0,
            };
            *to = base + sum;
        }
    }
}

simd_fn! {
    /// Rounds a strip to bf16.
    ///
    /// # Safety
    /// `to` has the strip's rows, `stride` apart.
    fn store_halves<S>(strip: &Strip<'_>, to: *mut u16, stride: usize) {
        for row in 0..strip.rows {
            let sums = &strip.sums[row * strip.stride..row * strip.stride + strip.columns];
            let to = to.add(row * stride);
            let mut column = 0;
            while column + 16 <= sums.len() {
                S::store_half(to.add(column), S::load(sums.as_ptr().add(column)));
                column += 16;
            }
            let rest = sums.len() - column;
            if rest > 0 {
                S::store_half_first(to.add(column), S::load_first(sums.as_ptr().add(column), rest), rest);
            }
        }
    }
}
