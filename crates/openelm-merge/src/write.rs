//! A merge written as a Hugging Face folder, tensor by tensor.
//!
//! What must stay true: the folder is whole or not there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use openelm_checkpoint::{NewFolder, hf_name, refuse_filled, to_hf_config};
use openelm_eval::Tokenizer;
use openelm_formats::{DType, TensorInfo, write_sharded};

use crate::encoded::encoded;
use crate::error::MergeError;
use crate::finite;
use crate::models::Models;
use crate::plan::Plan;
use crate::recipe::{Recipe, StoredType};

/// Bytes of tensors in one file before another is begun.
const SHARD_BYTES: u64 = 5_000_000_000;
/// What a folder may hold beside the weights that goes with them.
const COMPANIONS: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];
/// The recipe as it was carried out.
const RECIPE_FILE: &str = "merge.yaml";

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteSummary {
    pub models: usize,
    pub tensors: usize,
    /// Bytes of the weights.
    pub bytes: u64,
}

/// Carries out `recipe` into the new folder `out`: weights, config.json, tokenizer and the recipe. `progress` hears of each tensor.
///
/// # Errors
/// When `out` holds something already, the recipe does not fit the models, or reading or writing fails.
pub fn merge_to_folder(recipe: &Recipe, out: &Path, mut progress: impl FnMut(&str)) -> Result<WriteSummary, MergeError> {
    refuse_filled(out)?;
    let models = Models::open(&Plan::paths(recipe))?;
    let plan = Plan::new(recipe, &models)?;
    let tokenizer = models.tokenizer(tokenizer_source(recipe)?.as_deref())?;
    let dtype = stored_type(recipe, &models, &plan);
    if !plan.method().by_value {
        // What takes long is not begun in vain. Else the weights are looked at where they are read.
        finite::check(&models, plan.read())?;
    }

    let folder = NewFolder::new(out)?;
    let infos: Vec<TensorInfo> =
        plan.tensors().iter().map(|tensor| TensorInfo::new(hf_name(&tensor.info.name), dtype, tensor.info.shape.clone())).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    std::thread::scope(|scope| {
        // The next tensor is merged while one is written.
        let (send, merged) = sync_channel(1);
        let (plan, models) = (&plan, &models);
        scope.spawn(move || plan.tensors().iter().all(|tensor| send.send(encoded(plan, models, tensor, dtype)).is_ok()));
        write_sharded(folder.path(), &infos, SHARD_BYTES, &metadata, |info| -> Result<Vec<u8>, MergeError> {
            progress(&info.name);
            merged.recv().map_err(|_| openelm_checkpoint::ModelError::Missing { name: info.name.clone() })?
        })
    })?;
    write_companions(recipe, &plan, tokenizer.as_deref(), dtype, &folder)?;
    folder.publish()?;
    let bytes = infos.iter().map(|info| info.byte_len() as u64).sum();
    Ok(WriteSummary { models: models.len(), tensors: infos.len(), bytes })
}

fn tokenizer_source(recipe: &Recipe) -> Result<Option<PathBuf>, MergeError> {
    let fault = |reason: &str, hint: &str| MergeError::recipe(&recipe.path, "tokenizer_source", reason, hint);
    match recipe.tokenizer_source.as_deref() {
        None => Ok(None),
        Some("union") => Err(fault("`union` would need new rows in every model", "write `base`, or the path of one of the models")),
        Some("base") => match recipe.base_model.clone().or_else(|| Plan::paths(recipe).into_iter().next()) {
            Some(path) => Ok(Some(path)),
            None => Err(fault("there is no base model", "name base_model")),
        },
        Some(path) => Ok(Some(path.into())),
    }
}

fn stored_type(recipe: &Recipe, models: &Models, plan: &Plan) -> DType {
    match recipe.out_dtype.or(recipe.dtype) {
        Some(StoredType::Float32) => DType::F32,
        Some(StoredType::Float16) => DType::F16,
        Some(StoredType::Bfloat16) => DType::BF16,
        None => match plan.first_source().and_then(|(model, info)| models.weights(model).stored(info)) {
            Some(dtype @ (DType::F16 | DType::BF16)) => dtype,
            _ => DType::F32,
        },
    }
}

fn write_companions(
    recipe: &Recipe,
    plan: &Plan,
    tokenizer: Option<&Path>,
    dtype: DType,
    folder: &NewFolder<'_>,
) -> Result<(), MergeError> {
    let (mut bos, mut eos) = (None, None);
    if let Some(source) = tokenizer {
        let tokenizer = Tokenizer::load(source)?;
        (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
        tokenizer.save(folder.path())?;
        for name in COMPANIONS {
            let (from, to) = (source.join(name), folder.path().join(name));
            if from.is_file() && !to.exists() {
                std::fs::copy(&from, &to).map_err(|error| MergeError::io(&from, "copying it", error))?;
            }
        }
    }
    let torch = match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    };
    folder.put_json("config.json", &to_hf_config(plan.config(), torch, bos, eos)?)?;
    Ok(folder.put(RECIPE_FILE, recipe_text(recipe)?)?)
}

/// The recipe as YAML.
pub(crate) fn recipe_text(recipe: &Recipe) -> Result<String, MergeError> {
    serde_yaml_ng::to_string(recipe)
        .map_err(|error| MergeError::recipe(&recipe.path, "recipe", format!("cannot be written: {error}"), "keep its values plain"))
}
