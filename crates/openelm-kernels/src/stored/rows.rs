//! Rows of stored weights times a few tokens: the one entrance to the bodies of all types and instruction sets.

use openelm_formats::DType;

use super::layout::with_type;
use super::matrix::{StoredMatrix, StoredRows};
#[cfg(target_arch = "aarch64")]
use super::neon_rows;
use super::prepared::Prepared;
#[cfg(target_arch = "x86_64")]
use super::{avx2_rows, avx512_rows};
use super::{float_rows, plain_rows};
use crate::Isa;
use crate::simd::prefetch;

/// Tokens that a row is multiplied with at a time. More of them are better served by the matrix product.
pub(crate) const MOST_TOKENS: usize = 8;

/// Products of the rows from `first` to `first + count - 1` with the prepared tokens, into `out` [tokens, count].
///
/// # Safety
/// The instruction set is available.
pub(crate) unsafe fn multiply_rows(isa: Isa, rows: &StoredRows<'_>, first: usize, count: usize, x: &Prepared, out: &mut [f32]) {
    assert!(first + count <= rows.rows() && x.columns == rows.columns(), "rows {first}+{count} of {}", rows.rows());
    assert!(x.tokens <= MOST_TOKENS && out.len() == x.tokens * count, "room for {count} rows of {} tokens", x.tokens);
    let mut done = 0;
    while done < count {
        let (matrix, row, left) = rows.locate(first + done);
        let now = left.min(count - done);
        let part = Part { matrix, first: row, count: now, x, out: out[done..].as_mut_ptr(), stride: count };
        // SAFETY: the caller's promise; the rows lie in the matrix, and `out` has `count` places for each token.
        unsafe { part.multiply(isa) };
        done += now;
    }
}

/// Bytes that weights are asked for before they are used: what memory sends while it is waited for.
const AHEAD: usize = 8192;
/// Bytes before a page's first use at which its address is looked up. A mapped file has small pages, at whose ends the processor's own
/// fetching stops; asked for by AHEAD alone, the first lines of each would wait for the look-up too.
const PAGES_AHEAD: usize = 32768;
/// The smallest page.
const PAGE: usize = 4096;

/// How far ahead of the present place memory is asked for: some bytes on; when `rows` short rows are read side by side, the same place of
/// later ones.
pub(super) fn ahead(row_bytes: usize, rows: usize) -> usize {
    if row_bytes > AHEAD || rows < 2 { AHEAD } else { AHEAD.next_multiple_of(rows * row_bytes) }
}

/// Gives all rows of a part to `together::<KINDS, ROWS, TOKENS>(part, row)`, as many at a time as pays with that many tokens.
macro_rules! by_tokens {
    ($part:ident, $together:ident::<$($kind:ident),+>) => {
        match $part.x.tokens {
            // One stream of memory is what processors fetch best.
            1 => by_tokens!($part, $together::<$($kind),+>, 1, 1),
            2 => by_tokens!($part, $together::<$($kind),+>, 2, 2),
            3 => by_tokens!($part, $together::<$($kind),+>, 2, 3),
            4 => by_tokens!($part, $together::<$($kind),+>, 2, 4),
            5 => by_tokens!($part, $together::<$($kind),+>, 1, 5),
            6 => by_tokens!($part, $together::<$($kind),+>, 1, 6),
            7 => by_tokens!($part, $together::<$($kind),+>, 1, 7),
            8 => by_tokens!($part, $together::<$($kind),+>, 1, 8),
            _ => {}
        }
    };
    ($part:ident, $together:ident::<$($kind:ident),+>, $rows:literal, $tokens:literal) => {{
        const ROWS: usize = $rows;
        let mut row = 0;
        while row + ROWS <= $part.count {
            $part.look_up_pages(row, ROWS);
            $together::<$($kind,)+ ROWS, $tokens>($part, row);
            row += ROWS;
        }
        while row < $part.count {
            $part.look_up_pages(row, 1);
            $together::<$($kind,)+ 1, $tokens>($part, row);
            row += 1;
        }
    }};
}
pub(super) use by_tokens;

/// Rows of one matrix.
pub(super) struct Part<'a> {
    pub(super) matrix: &'a StoredMatrix<'a>,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) x: &'a Prepared,
    pub(super) out: *mut f32,
    /// Values from one token to the next.
    pub(super) stride: usize,
}

impl Part<'_> {
    /// Touches the pages that begin [`PAGES_AHEAD`] of some rows.
    #[inline(always)]
    pub(super) fn look_up_pages(&self, row: usize, rows: usize) {
        let row_bytes = self.matrix.row_bytes;
        let start = self.matrix.bytes.as_ptr().wrapping_add((self.first + row) * row_bytes + PAGES_AHEAD);
        let first = (PAGE - start.addr() % PAGE) % PAGE;
        for page in (first..rows * row_bytes).step_by(PAGE) {
            prefetch(start.wrapping_add(page));
        }
    }

    unsafe fn multiply(&self, isa: Isa) {
        let dtype = self.matrix.dtype;
        if dtype.is_quantised() {
            assert_eq!(self.x.levels.len(), self.x.tokens * self.x.whole(), "activations in 8 bits");
        }
        // SAFETY: the caller's promise.
        unsafe {
            match (dtype, isa) {
                (DType::F32 | DType::F16 | DType::BF16, _) => float_rows::multiply(isa, self),
                #[cfg(target_arch = "x86_64")]
                (_, Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx) => avx512_rows::multiply(self),
                #[cfg(target_arch = "x86_64")]
                (_, Isa::Avx2 | Isa::AvxVnni | Isa::Avx512) => avx2_rows::multiply(isa, self),
                #[cfg(target_arch = "aarch64")]
                (_, Isa::Neon | Isa::NeonDot | Isa::NeonBf16) => neon_rows::multiply(isa, self),
                _ => with_type!(dtype, layout::L => plain_rows::multiply::<L>(self), else ()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openelm_formats::{DType, decode_f32, encode_f32};

    use super::*;

    /// The products of each token by itself.
    fn alone(isa: Isa, rows: &StoredRows<'_>, x: &Prepared, first: usize, count: usize) -> Vec<f32> {
        let one = |token: usize| {
            let mut alone = Prepared::default();
            alone.resize(1, x.columns);
            alone.values.copy_from_slice(&x.values[token * x.columns..(token + 1) * x.columns]);
            if let Some(run) = rows.run() {
                alone.quantise(isa, run);
            }
            let mut out = vec![f32::NAN; count];
            // SAFETY: the instruction set is available.
            unsafe { multiply_rows(isa, rows, first, count, &alone, &mut out) };
            out
        };
        (0..x.tokens).flat_map(one).collect()
    }

    #[test]
    fn rows_are_those_of_plain_arithmetic() {
        let value = |i: usize| ((i * i % 1013) as f32 * 0.013).sin() * (1.0 + (i / 32 % 7) as f32) * 0.05 + 0.003;
        let types = DType::QUANTISED.into_iter().chain([DType::F32, DType::F16, DType::BF16]);
        for dtype in types {
            for columns in [32, 64, 96, 256, 768, 1280].map(|columns: usize| columns.next_multiple_of(dtype.block_len())) {
                let (rows, split) = (22, 12);
                let values: Vec<f32> = (0..rows * columns).map(value).collect();
                let bytes = encode_f32(&values, dtype).unwrap();
                let weights = decode_f32(&bytes, dtype).unwrap();
                let (above, below) = bytes.split_at(split * bytes.len() / rows);
                let above = StoredMatrix::new(dtype, above, split, columns).unwrap();
                let below = StoredMatrix::new(dtype, below, rows - split, columns).unwrap();
                let stored = StoredRows::new(above, Some(below)).unwrap();
                for tokens in 1..=MOST_TOKENS {
                    let mut x = Prepared::default();
                    x.resize(tokens, columns);
                    for (i, to) in x.values.iter_mut().enumerate() {
                        *to = value(i * 3 + 1) * 4.0;
                    }
                    for isa in Isa::available() {
                        if dtype.is_quantised() {
                            x.quantise(isa, dtype.block_len());
                        }
                        let (first, count) = (1, 20);
                        let mut out = vec![f32::NAN; tokens * count];
                        // SAFETY: the instruction set is available.
                        unsafe { multiply_rows(isa, &stored, first, count, &x, &mut out) };
                        if tokens > 1 {
                            assert_eq!(alone(isa, &stored, &x, first, count), out, "{isa:?} {dtype} {columns}, {tokens} tokens");
                        }
                        for token in 0..tokens {
                            for row in 0..count {
                                let weights = &weights[(first + row) * columns..][..columns];
                                let (mut expected, mut size) = (0.0, 0.0);
                                for (i, weight) in weights.iter().enumerate() {
                                    let x = match dtype.is_quantised() {
                                        true => {
                                            let at = token * x.whole() + i;
                                            f64::from(x.levels[at]) * f64::from(x.scale_and_sum(token, i).0)
                                        }
                                        false => f64::from(x.values[token * columns + i]),
                                    };
                                    expected += f64::from(*weight) * x;
                                    size += (f64::from(*weight) * x).abs();
                                }
                                let found = f64::from(out[token * count + row]);
                                let bound = 2e-6 * size.max(1e-3) + if dtype.is_quantised() { 2e-6 * size } else { 0.0 };
                                assert!((found - expected).abs() < bound, "{isa:?} {dtype} {columns} {token} {row}: {found} {expected}");
                            }
                        }
                    }
                }
            }
        }
    }
}
