//! Weights as something that reads tokens.

use std::sync::Arc;

use anyhow::Result;
use openelm_checkpoint::Weights;
use openelm_infer::{BurnDecoder, Decoder};
use openelm_model::open_device;

use super::precision;
use crate::args::ComputeDtype;

/// The fastest decoder there is for these weights on this device.
pub(super) fn open_decoder(weights: &Weights, device: &str, dtype: ComputeDtype) -> Result<Arc<dyn Decoder>> {
    let model = weights.model(&open_device(device)?)?;
    Ok(Arc::new(BurnDecoder::new(model, precision(dtype))))
}
