//! The product of many activations in 8 bits with quantised weights, with dot products of bytes (AVX-512, AVX-VNNI, NEON), products of bytes
//! in pairs (AVX2), or of tiles of them (AMX).
//!
//! A task takes a strip of columns (rows of the weights): it unpacks them block by block into panels [group of 4][column][4 bytes] with
//! the scales of every 32 (of every 16 with AVX2 and AVX-512 where the type has them), and goes over all tokens; the sums of a strip stay in
//! the second-level cache.
//!
//! What must stay true: sums of one element are added in the order of the blocks, whoever computes them.

use openelm_formats::DType;

#[cfg(target_arch = "x86_64")]
use super::avx2_bytes::{self, Form};
use super::byte_rows::ByteRows;
use super::layout::with_type;
use super::matrix::StoredRows;
#[cfg(target_arch = "aarch64")]
use super::neon_bytes::{self, HEIGHT};
use super::prepared::BLOCK;
#[cfg(target_arch = "x86_64")]
use super::prepared::STEP;
#[cfg(target_arch = "x86_64")]
use super::{amx_bytes, avx512_blocks, avx512_bytes, avx512_steps, avxvnni_bytes};
use crate::matmul::micro::{Order, Unit};
use crate::matmul::pack::Packing;
use crate::matmul::product::Target;
use crate::simd::{Sink, Source, simd_fn, sweep};
use crate::threads::Parts;
use crate::{Cpu, Isa, scratch};

/// Columns of a panel: two registers of sums in AVX-512.
pub(super) const WIDTH: usize = 32;
/// Panels of a strip.
const PANELS: usize = 2;
pub(super) const STRIP: usize = PANELS * WIDTH;
/// Values of the inner dimension that are unpacked at a time: a multiple of every type's block.
const INNER: usize = 512;
/// The shortest run of weights that share a scale.
pub(super) const FINE: usize = 16;

/// Rows of a tile.
fn height(isa: Isa, #[cfg_attr(target_arch = "aarch64", allow(unused_variables))] wide: bool) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => amx_bytes::HEIGHT,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => avxvnni_bytes::HEIGHT,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 if wide => avx2_bytes::WIDE_HEIGHT,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => avx2_bytes::HEIGHT,
        #[cfg(target_arch = "x86_64")]
        _ => avx512_bytes::HEIGHT,
        #[cfg(target_arch = "aarch64")]
        _ => HEIGHT,
    }
}

/// Whether these weights can be multiplied so: one scale for every 32 on an instruction set with products of bytes, or for every 16
/// with AVX2's and AVX-512's, for which tiles of AMX are too long and Arm has no body.
pub(super) fn fits(isa: Isa, rows: &StoredRows<'_>) -> bool {
    let both = |known: fn(DType) -> bool| known(rows.first.dtype) && rows.second.is_none_or(|second| known(second.dtype));
    let coarse = |dtype: DType| dtype.is_quantised() && !is_fine(dtype);
    match isa {
        Isa::Amx | Isa::NeonDot => both(coarse),
        isa if isa.has_avx2() => both(coarse) || both(is_fine),
        _ => false,
    }
}

/// Whether levels are multiplied in 16 bits: with AVX2, those of which products of bytes could not be added.
#[cfg_attr(target_arch = "aarch64", allow(unused_variables))]
pub(super) fn is_wide(isa: Isa, rows: &StoredRows<'_>) -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(isa, Isa::Avx2 | Isa::Avx512) && avx2_bytes::depth(rows) == 1;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether 16 weights share a scale.
fn is_fine(dtype: DType) -> bool {
    dtype == DType::Q6_K
}

/// Weights that share a scale.
pub(super) fn run_of(rows: &StoredRows<'_>) -> usize {
    if is_fine(rows.first.dtype) { FINE } else { BLOCK }
}

/// One strip's unpacked weights.
struct Panels<'a> {
    /// [panel][group of 4][column][4 bytes] as words.
    levels: &'a mut [u32],
    /// Levels of a word: 4 bytes, or 2 of 16 bits where AVX2 takes them so.
    per_word: usize,
    /// [run of weights that share a scale][column]
    scales: &'a mut [f32],
    offsets: &'a mut [f32],
    /// Products of pairs that may be added in 16 bits.
    #[cfg(target_arch = "x86_64")]
    depth: usize,
    /// Whether offsets are those of [`avx512_steps`].
    #[cfg(target_arch = "x86_64")]
    steps: bool,
}

/// x [tokens, k] · Wᵀ of `rows` [n, k] into `target` [tokens, n].
pub(super) fn byte_product(cpu: &Cpu, x: &ByteRows, rows: &StoredRows<'_>, target: Target<'_>) {
    let (tokens, columns, n) = (x.tokens, x.columns, rows.rows());
    assert!(fits(cpu.isa, rows) && columns == rows.columns() && x.run == run_of(rows), "weights and activations of one kind");
    let (to, halves, base) = match target {
        Target::Store(to) => (Some(Parts::new(to)), None, None),
        Target::Sum(to, base) => (Some(Parts::new(to)), None, Some(base)),
        Target::Halves(to) => (None, Some(Parts::new(to)), None),
        Target::Accumulate(_) | Target::Strips(_) => unreachable!("inference stores or adds to another matrix"),
    };
    let level_words = PANELS * INNER / 4 * WIDTH;
    let scale_words = INNER / run_of(rows) * STRIP;
    let row_words = WIDTH * INNER / 4;
    let wide = is_wide(cpu.isa, rows);
    let most = height(cpu.isa, wide);
    let per_word = if wide { 2 } else { 4 };
    let longest = INNER / 4 * per_word;
    cpu.threads.for_each(n.div_ceil(STRIP), |task| {
        let first = task * STRIP;
        let width = STRIP.min(n - first);
        scratch::with(level_words + 2 * scale_words + row_words + tokens * STRIP, |words| {
            let (levels, words) = words.split_at_mut(level_words);
            let (scales, words) = words.split_at_mut(scale_words);
            let (offsets, words) = words.split_at_mut(scale_words);
            let (row_space, sums) = words.split_at_mut(row_words);
            let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
            let (scales, offsets) = (bytemuck::cast_slice_mut(scales), bytemuck::cast_slice_mut(offsets));
            let mut panels = Panels {
                levels,
                per_word,
                scales,
                offsets,
                #[cfg(target_arch = "x86_64")]
                depth: avx2_bytes::depth(rows),
                #[cfg(target_arch = "x86_64")]
                steps: x.shared == STEP,
            };
            sums.fill(0.0);
            for begin in (0..columns).step_by(longest) {
                let inner = longest.min(columns - begin);
                // SAFETY: the instruction set is available; the strip and the block lie in the matrix, and every buffer has the
                // size of a whole block.
                unsafe {
                    let shift = unpack(cpu.isa, rows, first, width, begin, inner, row_space, &mut panels);
                    for tile in (0..tokens).step_by(most) {
                        let height = most.min(tokens - tile);
                        for panel in 0..width.div_ceil(WIDTH) {
                            let to = sums.as_mut_ptr().add(tile * STRIP + panel * WIDTH);
                            multiply(cpu.isa, height, x, tile, begin, inner, &panels, panel, shift, to);
                        }
                    }
                }
            }
            for (token, sums) in sums.chunks_exact(STRIP).enumerate() {
                let at = token * n + first;
                // SAFETY: the instruction set is available; this task alone writes these columns.
                unsafe {
                    if let Some(to) = &to {
                        let base = base.map(|base| &base[at..at + width]);
                        store(cpu.isa, &sums[..width], base, Sink::F32(to.part(at, width).as_mut_ptr()));
                    }
                    if let Some(halves) = &halves {
                        store(cpu.isa, &sums[..width], None, Sink::Bf16(halves.part(at, width).as_mut_ptr()));
                    }
                }
            }
        });
    });
}

simd_fn! {
    /// Sums, and another row if there is one, to where they belong.
    fn store<S>(sums: &[f32], base: Option<&[f32]>, to: Sink) {
        let from = Source::F32(sums.as_ptr());
        sweep!(sums.len(), |at, lanes| {
            let mut v = from.load::<S>(at, lanes);
            if let Some(base) = base {
                v = S::add(v, Source::F32(base.as_ptr()).load::<S>(at, lanes));
            }
            to.store::<S>(at, v, lanes);
        });
    }
}

/// Unpacks a block of a strip. Gives the zero level that all its weights share, or `None` when offsets are needed.
///
/// # Safety
/// As in [`byte_product`].
#[allow(clippy::too_many_arguments)]
unsafe fn unpack(
    isa: Isa,
    rows: &StoredRows<'_>,
    first: usize,
    width: usize,
    begin: usize,
    inner: usize,
    row_space: &mut [u32],
    panels: &mut Panels<'_>,
) -> Option<i32> {
    let words = inner / panels.per_word;
    let mut zero = zero_of(isa, rows.locate(first).0.dtype);
    for panel in 0..width.div_ceil(WIDTH) {
        let lanes = WIDTH.min(width - panel * WIDTH);
        for lane in 0..lanes {
            let column = panel * WIDTH + lane;
            let (matrix, row, _) = rows.locate(first + column);
            // Two parts of different types have no level in common.
            zero = zero.filter(|zero| zero_of(isa, matrix.dtype) == Some(*zero));
            let bytes = matrix.row(row).as_ptr();
            // SAFETY: the caller's promise.
            unsafe {
                let to = row_space.as_mut_ptr().add(lane * words).cast::<u8>();
                let scales = panels.scales.as_mut_ptr().add(column);
                let offsets = panels.offsets.as_mut_ptr().add(column);
                #[cfg(target_arch = "x86_64")]
                match (isa.has_avx512_vnni(), matrix.dtype) {
                    (true, DType::Q4_K) if panels.steps => {
                        avx512_steps::unpack_row::<avx512_blocks::Q4K>(bytes, begin, inner, to, scales, offsets)
                    }
                    (true, DType::Q5_K) if panels.steps => {
                        avx512_steps::unpack_row::<avx512_blocks::Q5K>(bytes, begin, inner, to, scales, offsets)
                    }
                    (true, DType::Q6_K) => avx512_steps::unpack_row::<avx512_blocks::Q6K>(bytes, begin, inner, to, scales, offsets),
                    (true, _) => {
                        with_type!(matrix.dtype, avx512_blocks::B => avx512_bytes::unpack_row::<B>(bytes, begin, inner, to, scales, offsets), else ())
                    }
                    (false, _) => {
                        let form = Form { above: isa == Isa::AvxVnni, steps: panels.steps, wide: panels.per_word == 2 };
                        with_type!(matrix.dtype, avx2_blocks::B => avx2_bytes::unpack_row::<B>(bytes, begin, inner, form, to, scales, offsets), else ())
                    }
                }
                #[cfg(target_arch = "aarch64")]
                with_type!(matrix.dtype, neon_blocks::B => neon_bytes::unpack_row::<B>(bytes, begin, inner, to, scales, offsets), else ());
            }
        }
        // SAFETY: as above. Words of four levels are moved, never computed with.
        unsafe {
            let to = panels.levels.as_mut_ptr().add(panel * INNER / 4 * WIDTH);
            let source = Source::F32(row_space.as_ptr().cast());
            Packing { unit: Unit::Single, source, stride: words, lanes, inner: words, width: WIDTH, order: Order::Units }.rows(isa, to);
        }
    }
    zero
}

/// The level that stands for 0, where all blocks of the type have the same.
fn zero_of(#[cfg_attr(target_arch = "aarch64", allow(unused_variables))] isa: Isa, dtype: DType) -> Option<i32> {
    match dtype {
        // Arm's levels are signed.
        DType::Q8_0 | DType::Q4_0 | DType::Q5_0 if cfg!(target_arch = "aarch64") => Some(0),
        #[cfg(target_arch = "x86_64")]
        DType::Q8_0 if matches!(isa, Isa::Avx2 | Isa::Avx512) => Some(0),
        DType::Q8_0 => Some(128),
        DType::Q4_0 => Some(8),
        DType::Q5_0 => Some(16),
        DType::Q6_K => Some(32),
        _ => None,
    }
}

/// Adds a block's products of a tile of tokens and one panel to `to`, whose rows are [`STRIP`] apart.
///
/// # Safety
/// As in [`byte_product`].
#[allow(clippy::too_many_arguments)]
unsafe fn multiply(
    #[cfg_attr(target_arch = "aarch64", allow(unused_variables))] isa: Isa,
    height: usize,
    x: &ByteRows,
    tile: usize,
    begin: usize,
    inner: usize,
    panels: &Panels<'_>,
    panel: usize,
    shift: Option<i32>,
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let levels = panels.levels.as_ptr().add(panel * INNER / 4 * WIDTH);
        let (scales, offsets) = (panels.scales.as_ptr().add(panel * WIDTH), panels.offsets.as_ptr().add(panel * WIDTH));
        let per_row = x.columns / BLOCK;
        let at = tile * per_row + begin / BLOCK;
        let side = Side {
            levels: x.levels.as_ptr().add(tile * x.columns + begin),
            columns: x.columns,
            scales: x.scales.as_ptr().add(at),
            totals: x.totals.as_ptr().add(at * (BLOCK / x.run)),
            sums: x.sums.as_ptr().add(at),
            pairs: x.pairs.as_ptr().wrapping_add(at),
            words: x.words.as_ptr().wrapping_add(tile * x.columns + begin),
            per_row,
        };
        let blocks = inner / BLOCK;
        #[cfg(target_arch = "aarch64")]
        macro_rules! by_height {
            ($($rows:literal)*) => {
                match (height, shift) {
                    $(($rows, Some(_)) => neon_bytes::tile_product::<$rows, false>(&side, blocks, levels, scales, offsets, to),)*
                    $(($rows, None) => neon_bytes::tile_product::<$rows, true>(&side, blocks, levels, scales, offsets, to),)*
                    _ => unreachable!("{height} rows in a tile"),
                }
            };
        }
        #[cfg(target_arch = "aarch64")]
        by_height!(1 2 3 4);
        #[cfg(target_arch = "x86_64")]
        {
            let panel = Panel { blocks, levels, scales, offsets, zero: shift, steps: panels.steps };
            multiply_panel(isa, height, x.run, panels.depth, &side, &panel, to);
        }
    }
}

/// # Safety
/// As in [`byte_product`]; `side` has `height` rows, of whose levels `run` have a total, and `depth` is what [`avx2_bytes::depth`] gives.
#[cfg(target_arch = "x86_64")]
unsafe fn multiply_panel(isa: Isa, height: usize, run: usize, depth: usize, side: &Side, panel: &Panel, to: *mut f32) {
    macro_rules! by_height {
        (3 rows, $product:path, $depth:literal) => { by_height!(@ $product, $depth; 1 2 3) };
        (6 rows, $product:path, $runs:literal) => { by_height!(@ $product, $runs; 1 2 3 4 5 6) };
        (@ $product:path, $runs:literal; $($rows:literal)*) => {{
            use $product as product;
            // SAFETY: the caller's promise.
            unsafe {
                match (height, panel.zero) {
                    $(($rows, Some(_)) => product::<$rows, $runs, false>(side, panel, to),)*
                    $(($rows, None) => product::<$rows, $runs, true>(side, panel, to),)*
                    _ => unreachable!("{height} rows in a tile"),
                }
            }
        }};
    }
    match (isa, panel.steps, run) {
        // SAFETY: the caller's promise.
        (Isa::Amx, ..) => unsafe { amx_bytes::tile_product(height, side, panel, to) },
        (Isa::AvxVnni, _, BLOCK) => by_height!(6 rows, avxvnni_bytes::tile_product, 1),
        (Isa::AvxVnni, ..) => by_height!(6 rows, avxvnni_bytes::tile_product, 2),
        (Isa::Avx2 | Isa::Avx512, ..) => match depth {
            8 => by_height!(3 rows, avx2_bytes::tile_product, 8),
            4 => by_height!(3 rows, avx2_bytes::tile_product, 4),
            2 => by_height!(3 rows, avx2_bytes::tile_product, 2),
            _ => by_height!(6 rows, avx2_bytes::tile_product, 1),
        },
        (_, false, _) => by_height!(6 rows, avx512_bytes::tile_product, 1),
        (_, true, BLOCK) => by_height!(6 rows, avx512_steps::tile_product, 1),
        (_, true, _) => by_height!(6 rows, avx512_steps::tile_product, 2),
    }
}

/// Blocks of 32 columns of a panel's weights.
#[cfg(target_arch = "x86_64")]
pub(super) struct Panel {
    pub(super) blocks: usize,
    /// `[block][group of 4][column][4 bytes]`, or `[block][pair][column][2 words]` for [`avx2_bytes`] with a depth of 1.
    pub(super) levels: *const u32,
    /// `[run that shares a scale][column]`, runs [`STRIP`] apart; so are the offsets of blocks.
    pub(super) scales: *const f32,
    pub(super) offsets: *const f32,
    /// The level of all weights that stands for 0. Without one, offsets count.
    pub(super) zero: Option<i32>,
    /// Whether offsets are those of [`avx512_steps`], and the activations of 8 blocks share a scale.
    pub(super) steps: bool,
}

/// Where a tile's activations stand.
pub(super) struct Side {
    pub(super) levels: *const i8,
    pub(super) columns: usize,
    pub(super) scales: *const f32,
    /// For levels that stand above a zero other than 0.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    pub(super) totals: *const i32,
    pub(super) sums: *const f32,
    /// Sums of the levels of blocks in 16 bits, where 256 activations share a scale.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    pub(super) pairs: *const i16,
    /// The levels in 16 bits, where weights have them so.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    pub(super) words: *const i16,
    pub(super) per_row: usize,
}
