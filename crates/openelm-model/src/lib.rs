//! OpenELM as a model: its configuration, the layer-wise allocation of heads and feed-forward widths as pure functions,
//! and the transformer on burn, for any device.
//!
//! What must stay true: shapes and parameter counts equal CoreNet's for every configuration; the tied embedding is one
//! tensor; nothing here reads a file, knows a loss, or keeps state between calls.

mod adapter;
mod block;
mod config;
mod cost;
mod device;
mod error;
mod init;
mod layerwise;
mod mask;
mod norm;
mod openelm;
mod parameters;
mod presets;
mod rope;
mod storage;

pub use adapter::{AdaptedModule, BlockAdapter, EMBEDDING_MODULE, LowRank, adapter_infos};
pub use block::{Block, Projected, product};
pub use config::{ModelConfig, Multipliers};
pub use cost::{LayerCost, ModelCost};
pub use device::{DEVICES, open_device};
pub use error::ModelError;
pub use layerwise::{LayerShape, make_divisible, resolve_layers, spread_multipliers};
pub use mask::CausalMask;
pub use norm::RmsNorm;
pub use openelm::OpenElm;
pub use parameters::{Parameter, ParameterInfo};
pub use presets::{PRESETS, preset};
pub use rope::{RotaryTable, Rotation, rotary_values};
pub use storage::{Storage, plain};

/// Element type of the matrix products. Parameters, norms, the residual stream and the loss stay in f32 either way, as
/// under PyTorch's bf16 autocast, which OpenELM was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    Bf16,
}
