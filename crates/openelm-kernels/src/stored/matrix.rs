//! Matrices of stored weights.

use half::f16;
use openelm_formats::DType;

use super::layout::{CHUNK, Layout, with_type};
#[cfg(target_arch = "aarch64")]
use super::neon_unpack;
use crate::error::check;
use crate::simd::{simd_fn, widen_half};
use crate::{Isa, KernelError, Precision};

/// A matrix [rows, columns] in the bytes of a file, row by row.
#[derive(Clone, Copy, Debug)]
pub struct StoredMatrix<'a> {
    pub(crate) dtype: DType,
    pub(crate) bytes: &'a [u8],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_bytes: usize,
}

impl<'a> StoredMatrix<'a> {
    /// `bytes` as [rows, columns] of `dtype`: F32, F16, BF16 or a quantised type, little endian.
    ///
    /// # Errors
    /// When the type is another one, the bytes are too many or too few, or a row is no whole number of blocks.
    pub fn new(dtype: DType, bytes: &'a [u8], rows: usize, columns: usize) -> Result<Self, KernelError> {
        if !(dtype.is_quantised() || matches!(dtype, DType::F32 | DType::F16 | DType::BF16)) {
            return Err(KernelError::StoredType { dtype: dtype.name() });
        }
        if !columns.is_multiple_of(dtype.block_len()) {
            let (reason, hint) = ("which are no whole number of blocks", "convert the model to GGUF again");
            return Err(KernelError::Dimension { operation: "stored matrix", what: "columns", value: columns, reason, hint });
        }
        let row_bytes = columns / dtype.block_len() * dtype.size();
        check("stored matrix", "bytes", rows * row_bytes, bytes.len())?;
        Ok(Self { dtype, bytes, rows, columns, row_bytes })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }

    /// One row's values.
    ///
    /// # Errors
    /// When there is no such row, or `to` is no row.
    pub fn read_row(&self, row: usize, to: &mut [f32]) -> Result<(), KernelError> {
        check("stored matrix", "a row", self.columns, to.len())?;
        if row >= self.rows {
            let (reason, hint) = ("which the table has no row for", "check that the tokenizer belongs to the model");
            return Err(KernelError::Dimension { operation: "embedding", what: "a token id", value: row, reason, hint });
        }
        self.read(row, 0, to);
        Ok(())
    }

    /// The values of a row from column `first`, a multiple of 32, on, with the instruction set's own conversions.
    ///
    /// # Safety
    /// The instruction set is available.
    pub(crate) unsafe fn unpack(&self, isa: Isa, row: usize, first: usize, to: &mut [f32]) {
        #[cfg(target_arch = "aarch64")]
        if isa != Isa::Plain && self.dtype.is_quantised() && to.len().is_multiple_of(CHUNK) {
            assert!(first + to.len() <= self.columns, "columns of a row");
            // SAFETY: by the assertion the row has these columns.
            return unsafe { neon_unpack::floats(self, row, first, to.len(), to.as_mut_ptr()) };
        }
        // SAFETY: the caller's promise.
        unsafe { unpack(isa, self, row, first, to) }
    }

    /// The values of the rows from `first` to `first + count` - 1, one behind the other.
    ///
    /// # Safety
    /// As [`unpack`](Self::unpack).
    pub(crate) unsafe fn unpack_rows(&self, isa: Isa, first: usize, count: usize, to: &mut [f32]) {
        for (row, to) in to.chunks_exact_mut(self.columns).enumerate().take(count) {
            // SAFETY: the caller's promise.
            unsafe { self.unpack(isa, first + row, 0, to) };
        }
    }

    /// The same in the caller's instruction set.
    #[inline(always)]
    fn read(&self, row: usize, first: usize, to: &mut [f32]) {
        let bytes = self.row(row);
        match self.dtype {
            DType::F32 => {
                for (to, from) in to.iter_mut().zip(bytes[first * 4..].as_chunks::<4>().0) {
                    *to = f32::from_le_bytes(*from);
                }
            }
            DType::F16 => {
                for (to, from) in to.iter_mut().zip(bytes[first * 2..].as_chunks::<2>().0) {
                    *to = f16::from_le_bytes(*from).to_f32();
                }
            }
            DType::BF16 => {
                for (to, from) in to.iter_mut().zip(bytes[first * 2..].as_chunks::<2>().0) {
                    *to = widen_half(u16::from_le_bytes(*from));
                }
            }
            dtype => with_type!(dtype, layout::L => read_chunks::<L>(bytes, first / CHUNK, to), else ()),
        }
    }
}

simd_fn! {
    /// See [`StoredMatrix::unpack`].
    fn unpack<S>(matrix: &StoredMatrix<'_>, row: usize, first: usize, to: &mut [f32]) {
        if matrix.dtype == DType::F16 {
            let from = matrix.row(row)[first * 2..].as_ptr().cast::<u16>();
            let whole = to.len() / 16 * 16;
            for at in (0..whole).step_by(16) {
                S::store(to.as_mut_ptr().add(at), S::load_f16(from.add(at)));
            }
            if whole < to.len() {
                // The last columns, whose number need not be a multiple of anything.
                matrix.read(row, first + whole, &mut to[whole..]);
            }
        } else {
            matrix.read(row, first, to);
        }
    }
}

#[inline(always)]
fn read_chunks<L: Layout>(bytes: &[u8], first: usize, to: &mut [f32]) {
    for (number, to) in to.chunks_mut(CHUNK).enumerate() {
        let at = first + number;
        let chunk = L::chunk(&bytes[at / L::CHUNKS * L::BYTES..][..L::BYTES], at % L::CHUNKS);
        for (i, to) in to.iter_mut().enumerate() {
            *to = chunk.scales[i / 16] * f32::from(chunk.levels[i]) + chunk.offsets[i / 16];
        }
    }
}

/// One matrix, or two with as many columns, the rows of the second below those of the first: files may keep the halves of a joint
/// projection apart.
#[derive(Clone, Copy, Debug)]
pub struct StoredRows<'a> {
    pub(crate) first: StoredMatrix<'a>,
    pub(crate) second: Option<StoredMatrix<'a>>,
}

impl<'a> StoredRows<'a> {
    /// `first` above `second`.
    ///
    /// # Errors
    /// When they have different columns.
    pub fn new(first: StoredMatrix<'a>, second: Option<StoredMatrix<'a>>) -> Result<Self, KernelError> {
        if let Some(second) = &second {
            check("stored rows", "columns", first.columns, second.columns)?;
        }
        Ok(Self { first, second })
    }

    pub fn rows(&self) -> usize {
        self.first.rows + self.second.map_or(0, |second| second.rows)
    }

    pub fn columns(&self) -> usize {
        self.first.columns
    }

    /// Bytes of all rows.
    pub fn byte_len(&self) -> usize {
        self.first.bytes.len() + self.second.map_or(0, |second| second.bytes.len())
    }

    /// The matrix that holds `row`, the row's number in it, and how many rows follow from there (itself counted).
    pub(crate) fn locate(&self, row: usize) -> (&StoredMatrix<'a>, usize, usize) {
        match &self.second {
            Some(second) if row >= self.first.rows => (second, row - self.first.rows, second.rows + self.first.rows - row),
            _ => (&self.first, row, self.first.rows - row),
        }
    }

    /// The type of matrix products: what loses nothing of 32 and 16 bit floats, bf16 where weights are no finer.
    pub(crate) fn precision(&self) -> Precision {
        let fine = |matrix: &StoredMatrix<'_>| matches!(matrix.dtype, DType::F32 | DType::F16);
        if fine(&self.first) || self.second.as_ref().is_some_and(fine) { Precision::F32 } else { Precision::Bf16 }
    }

    /// How many activations share a scale when they meet these rows in 8 bits: as many as a block has weights, of two parts' blocks the smaller
    /// one. `None` where no row consists of blocks.
    pub(crate) fn run(&self) -> Option<usize> {
        let parts = [Some(&self.first), self.second.as_ref()];
        parts.into_iter().flatten().map(|part| part.dtype).filter(|dtype| dtype.is_quantised()).map(DType::block_len).min()
    }
}

impl<'a> From<StoredMatrix<'a>> for StoredRows<'a> {
    fn from(first: StoredMatrix<'a>) -> Self {
        Self { first, second: None }
    }
}
