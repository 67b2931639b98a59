//! Run folders and weights on disk.
//!
//! - [`RunFolder`]: a folder that one run owns, with atomic checkpoints in it. A checkpoint is whole or it does not exist.
//! - [`Checkpoint`]: weights, optimizer state and a [`Manifest`], verified before anything is read from them.
//! - [`Weights`]: a model's weights from whatever lies at a path: a run, a checkpoint, a Hugging Face or
//!   MLX folder, a GGUF file, a CoreNet `.pt`.
//! - [`NewFolder`]: a folder of weights that are made now, whole or not there.
//! - [`AdapterTensors`]: an adapter in PEFT's layout.
//!
//! What must stay true: tensors on disk have Hugging Face's names, in memory CoreNet's; reading never changes a file.

mod adapter;
mod chat_template;
mod checkpoint;
mod corenet_training;
mod error;
mod folder;
mod gguf_tokenizer;
mod gguf_weights;
mod hf_config;
mod manifest;
mod mlx_weights;
mod names;
mod new_folder;
mod save;
mod shapes;
mod weights;

pub use adapter::{ADAPTER_CONFIG, ADAPTER_FILE, AdapterTensors, adapter_folder, peft_name, write_adapter};
pub use chat_template::chat_template_of;
pub use checkpoint::{Checkpoint, OptimizerState};
pub use corenet_training::CoreNetTrainingFile;
pub use error::CheckpointError;
pub use folder::RunFolder;
pub use gguf_weights::LAYER_NAMES as GGUF_LAYER_NAMES;
pub use hf_config::{from_hf_config, to_hf_config};
pub use manifest::{FileRecord, Manifest};
pub use names::{corenet_module_order, corenet_name, hf_name, moment_name};
pub use new_folder::{NewFolder, refuse_existing, refuse_filled};
pub use save::Draft;
pub use weights::{ChangeValues, WeightKind, Weights};

/// What weights are weights of: in the interface of this crate, so that whoever reads weights needs no other.
pub use burn::tensor::Device;
pub use openelm_model::{
    AdaptedModule, EMBEDDING_MODULE, ModelConfig, ModelError, Multipliers, OpenElm, ParameterInfo, Precision, Storage, adapter_infos,
    spread_multipliers,
};

/// The weights in a checkpoint.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The optimizer state in a checkpoint.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
