//! Weights as files store them (f32, f16, bf16, quantised blocks), multiplied without another copy of them.
//!
//! Few tokens: every row of the matrix is read once, straight from the file's bytes, for all tokens; quantised rows meet activations
//! of 8 bits, with one scale for every 32, or for as many as their blocks hold. Many tokens: panels of rows are unpacked for the matrix product.
//!
//! What must stay true: a weight is scale · level + offset on every instruction set; a row's sums do not depend on which thread makes
//! them, nor on the other rows.

#[cfg(target_arch = "x86_64")]
mod amx_bytes;
#[cfg(target_arch = "x86_64")]
mod avx2_blocks;
#[cfg(target_arch = "x86_64")]
mod avx2_bytes;
#[cfg(target_arch = "x86_64")]
mod avx2_rows;
#[cfg(target_arch = "x86_64")]
mod avx2_steps;
#[cfg(target_arch = "x86_64")]
mod avx512_blocks;
#[cfg(target_arch = "x86_64")]
mod avx512_bytes;
#[cfg(target_arch = "x86_64")]
mod avx512_rows;
#[cfg(target_arch = "x86_64")]
mod avx512_steps;
#[cfg(target_arch = "x86_64")]
mod avxvnni_bytes;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod byte_product;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod byte_rows;
#[cfg(target_arch = "x86_64")]
mod dot256;
mod float_rows;
pub(crate) mod floats;
mod layout;
mod linear;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon_blocks;
#[cfg(target_arch = "aarch64")]
mod neon_bytes;
#[cfg(target_arch = "aarch64")]
mod neon_rows;
#[cfg(target_arch = "aarch64")]
mod neon_unpack;
mod panel;
mod plain_rows;
mod prepared;
mod rows;

pub(crate) use linear::multiply_many;
pub use linear::stored_linear;
pub use matrix::{StoredMatrix, StoredRows};
pub(crate) use prepared::Prepared;
pub(crate) use rows::{MOST_TOKENS, multiply_rows};
