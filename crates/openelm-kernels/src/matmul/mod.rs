//! Matrix products: f32, and bf16 operands with f32 sums.

pub(crate) mod blocks;
mod linear;
mod matrix;
pub(crate) mod micro;
#[cfg(target_arch = "x86_64")]
pub(crate) mod micro_amx;
#[cfg(target_arch = "x86_64")]
mod micro_avx2;
#[cfg(target_arch = "x86_64")]
mod micro_avx512;
#[cfg(target_arch = "aarch64")]
mod micro_neon;
mod micro_plain;
pub(crate) mod pack;
#[cfg(target_arch = "x86_64")]
mod pack_amx;
#[cfg(target_arch = "x86_64")]
mod pack_avx2;
#[cfg(target_arch = "x86_64")]
mod pack_avx512;
#[cfg(target_arch = "aarch64")]
mod pack_neon;
pub(crate) mod packed;
pub(crate) mod product;

pub use linear::{Weights, linear_backward_input, linear_backward_weights, linear_forward};
pub use matrix::Matrix;
pub use packed::PackedMatrix;
