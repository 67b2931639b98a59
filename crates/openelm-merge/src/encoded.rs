//! Tensors of the result as bytes of the file. Where a method works value by value and files hold plain floats, a tensor goes through the
//! caches piece by piece: read, merged, rounded, without copies of whole tensors.
//!
//! What must stay true: the bytes are those of the whole tensor merged at once; every weight read is looked at.

use openelm_checkpoint::{ParameterInfo, hf_name};
use openelm_formats::{DType, TensorBytes, decode_f32, encode_f32};
use rayon::prelude::*;

use crate::error::MergeError;
use crate::methods::Inputs;
use crate::models::Models;
use crate::plan::{Plan, PlannedTensor};

/// Values of a piece: with those of some models they stay in a second-level cache.
const PIECE: usize = 1 << 14;

/// A tensor of one model as its file holds it.
struct Stored<'a> {
    model: usize,
    info: &'a ParameterInfo,
    dtype: DType,
    bytes: TensorBytes,
}

impl Stored<'_> {
    /// `count` values from `start`.
    fn values(&self, models: &Models, start: usize, count: usize) -> Result<Vec<f32>, MergeError> {
        let size = self.dtype.size();
        let bytes = self.bytes.get(start * size..(start + count) * size).unwrap_or_default();
        let values = decode_f32(bytes, self.dtype).unwrap_or_default();
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(models.not_finite(self.model, self.info, start + index, values[index])),
        }
    }
}

/// A tensor's bytes in `dtype`.
///
/// # Errors
/// As [`Plan::merge`], and when a value cannot be stored so.
pub(crate) fn encoded(plan: &Plan, models: &Models, tensor: &PlannedTensor, dtype: DType) -> Result<Vec<u8>, MergeError> {
    let stored = match plan.method().by_value && !dtype.is_quantised() {
        true => stored(models, tensor)?,
        false => None,
    };
    let Some(stored) = stored else { return Ok(encode_f32(&plan.merge(models, tensor)?, dtype)?) };
    let (base, sources) = stored.split_at(usize::from(tensor.base.is_some()));
    let mut out = vec![0; tensor.info.shape.iter().product::<usize>() * dtype.size()];
    let name = hf_name(&tensor.info.name);
    out.par_chunks_mut(PIECE * dtype.size()).enumerate().try_for_each(|(number, to)| {
        let (start, count) = (number * PIECE, to.len() / dtype.size());
        let read = |stored: &Stored<'_>| stored.values(models, start, count);
        let base = base.first().map(read).transpose()?.unwrap_or_default();
        let sources = sources.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let tensors: Vec<&[f32]> = sources.iter().map(Vec::as_slice).collect();
        let merged = plan.apply(tensor, &Inputs { shape: &[count], ..tensor.inputs(&name, &base, &tensors, plan.seed()) })?;
        to.copy_from_slice(&encode_f32(&merged, dtype)?);
        Ok::<(), MergeError>(())
    })?;
    for stored in &stored {
        models.weights(stored.model).release(stored.info);
    }
    Ok(out)
}

/// The base's tensor, if there is one, and the others'; `None` where one is not in one piece of plain floats.
fn stored<'a>(models: &Models, tensor: &'a PlannedTensor) -> Result<Option<Vec<Stored<'a>>>, MergeError> {
    let mut all = Vec::new();
    for (model, info) in tensor.base.iter().chain(&tensor.sources) {
        let weights = models.weights(*model);
        // What is changed on its way would be decoded whole to be asked for its parts.
        if weights.stored(info).is_none() {
            return Ok(None);
        }
        let mut parts = weights.parts(info)?;
        match (parts.pop(), parts.is_empty()) {
            (Some((part, bytes)), true) if matches!(part.dtype, DType::F32 | DType::F16 | DType::BF16) => {
                all.push(Stored { model: *model, info, dtype: part.dtype, bytes });
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(all))
}
