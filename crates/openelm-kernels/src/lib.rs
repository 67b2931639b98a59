//! Fused operations for training OpenELM on the CPU, on slices.
//!
//! What must stay true: shapes are checked before any kernel runs; results do not depend on the number of threads;
//! nothing the size of [tokens, vocabulary] or [sequence, sequence] is ever kept.

mod adamw;
#[cfg(target_arch = "x86_64")]
mod amx;
mod arena;
mod attention;
mod block;
mod cpu;
mod decode;
mod dropout;
mod embedding;
mod error;
mod head_loss;
mod host;
mod isa;
mod low_rank;
mod matmul;
mod norm;
pub mod peak;
mod rope;
mod scratch;
mod simd;
mod stored;
mod swiglu;
mod threads;
mod values;

pub use adamw::{AdamW, adamw_step, sum_of_squares};
pub use arena::{Arena, Buffer};
pub use attention::{AttentionShape, attention_backward, attention_forward};
pub use block::{
    BlockGradients, BlockInput, BlockMatrix, BlockShape, BlockWeights, Keep, MatrixGradients, Saved, block_backward, block_forward,
};
pub use cpu::{Cpu, Precision};
pub use decode::{IdLogits, KvRun, KvStore, KvType, StoredBlock, StoredModel, look_up_tokens, read_tokens};
pub use dropout::Dropout;
pub use embedding::{embedding_backward, embedding_forward};
pub use error::KernelError;
pub use head_loss::{HeadGradients, HeadLoss, LossSettings, head_log_probabilities, head_log_probabilities_backward, head_loss};
pub use host::{HostMatrix, HostTensor, change_values};
pub use isa::Isa;
pub use low_rank::{LowRank, LowRankGradients, Magnitude, low_rank_backward, low_rank_forward, low_rank_norms};
pub use matmul::{Matrix, PackedMatrix, Weights, linear_backward_input, linear_backward_weights, linear_forward};
pub use norm::{rms_norm_backward, rms_norm_forward};
pub use rope::{HeadNorms, Heads, RotaryTables, rotate_backward, rotate_forward};
pub use stored::{StoredMatrix, StoredRows, stored_linear};
pub use swiglu::{swiglu_backward, swiglu_forward};
pub use threads::Threads;
pub use values::{Values, ValuesMut};

/// Tokens, of one sequence or of several, up to which reading takes hardly longer than one: the weights are gone through once, and
/// getting them from memory is what takes the time.
pub const FEW_TOKENS: usize = stored::MOST_TOKENS;
