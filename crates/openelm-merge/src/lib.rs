//! Models combined into one: recipes in mergekit's YAML, the average of a run's last checkpoints, and a search for recipes.
//!
//! - [`Recipe`] is what the file says, [`Plan`] what follows from it for the models that lie on disk: every tensor of the result
//!   with its sources and its parameters, all checked before the first value is read.
//! - [`METHODS`]: one row, and one file below `methods/`, for each way to merge.
//! - [`evolve`]: CMA-ES over the parameters of a recipe, or over the order of layers.
//! - [`merge_to_folder`] writes a Hugging Face folder tensor by tensor.
//!
//! What must stay true: memory is that of a few tensors; a result appears whole or not at all; the same recipe, seed and models
//! give the same bytes.

mod average;
mod cma_es;
mod data_flow;
mod encoded;
mod error;
mod evolve;
mod finite;
mod genome;
mod measure;
mod methods;
mod models;
mod plan;
mod plot;
mod random;
mod recipe;
mod search_file;
mod setting;
mod write;

pub use average::average_recipe;
pub use cma_es::CmaEs;
pub use error::{Difference, MergeError};
pub use evolve::{Evolution, Generation, evolve};
pub use methods::{METHODS, Method};
pub use models::Models;
pub use plan::Plan;
pub use recipe::{Recipe, Slice, Source, StoredType};
pub use search_file::{DataFlow, Measure, Range, SearchFile};
pub use setting::{Condition, Scalar, Setting, Settings};
pub use write::{WriteSummary, merge_to_folder};
