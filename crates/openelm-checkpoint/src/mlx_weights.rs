//! A folder of mlx-lm's with quantised tensors as a source of plain ones.
//!
//! A quantised matrix is three tensors: `NAME.weight` (levels in u32 words), `NAME.scales` and `NAME.biases`. Its values, or blocks that hold
//! the same ones, are made when asked for; all other tensors are passed on as they are.

use std::borrow::Cow;
use std::path::Path;

use openelm_formats::{AffineLayout, AffineTensor, DType, FormatError, Safetensors, TensorBytes, TensorInfo, TensorSource, encode_f32};
use serde_json::Value;

use crate::error::CheckpointError;

/// Mapped weights, quantised ones unpacked on demand.
pub(crate) struct MlxWeights {
    source: Safetensors,
    layout: AffineLayout,
    /// As a reader sees them: scales and biases left out, matrices in their full shape.
    infos: Vec<TensorInfo>,
}

/// How the tensors of a folder whose `config.json` holds `config` are quantised; `None` where they are not.
pub(crate) fn quantisation_of(path: &Path, config: &Value) -> Result<Option<AffineLayout>, CheckpointError> {
    let Some(section) = config.get("quantization") else { return Ok(None) };
    let fault = |reason: &str| CheckpointError::Config {
        path: path.to_owned(),
        reason: format!("quantization {section}: {reason}"),
        hint: "4 or 8 bits of mode affine are read; convert the model with mlx_lm.convert --q-bits 4".into(),
    };
    let number = |key: &str| section.get(key).and_then(Value::as_u64);
    if section.get("mode").is_some_and(|mode| mode != "affine") {
        return Err(fault("the mode is not affine"));
    }
    if section.as_object().is_some_and(|object| object.keys().any(|key| !["group_size", "bits", "mode"].contains(&key.as_str()))) {
        return Err(fault("single layers have settings of their own"));
    }
    let (Some(bits), Some(group)) = (number("bits"), number("group_size")) else { return Err(fault("bits or group_size is missing")) };
    let layout = u32::try_from(bits).ok().zip(usize::try_from(group).ok()).map(|(bits, group)| AffineLayout { bits, group });
    match layout.filter(|layout| layout.per_word().is_some()) {
        Some(layout) => Ok(Some(layout)),
        None => Err(fault("there is no such layout here")),
    }
}

impl MlxWeights {
    /// Pairs the tensors of `source`.
    pub fn new(source: Safetensors, layout: AffineLayout) -> Result<Self, CheckpointError> {
        let mut infos = Vec::new();
        for info in source.infos() {
            let part_of = |tail| info.name.strip_suffix(tail).is_some_and(|stem| source.info(&scales_of(stem)).is_some());
            if part_of(".scales") || part_of(".biases") {
                continue;
            }
            let Some(scales) = info.name.strip_suffix(".weight").and_then(|stem| source.info(&scales_of(stem))) else {
                infos.push(info.clone());
                continue;
            };
            let fault = |reason: &str| CheckpointError::NoWeights {
                path: source.path().to_owned(),
                reason: format!("tensor {:?}: {reason}", info.name),
                hint: "the folder is damaged; convert the model again".into(),
            };
            let (&[rows, words], &[scale_rows, groups]) = (info.shape.as_slice(), scales.shape.as_slice()) else {
                return Err(fault("a quantised tensor is a matrix"));
            };
            let columns =
                groups.checked_mul(layout.group).filter(|columns| Some(*columns) == layout.per_word().and_then(|n| words.checked_mul(n)));
            let Some(columns) = columns.filter(|_| rows == scale_rows && info.dtype == DType::U32) else {
                return Err(fault("its words do not fit its scales"));
            };
            infos.push(TensorInfo::new(info.name.clone(), scales.dtype, [rows, columns]));
        }
        Ok(Self { source, layout, infos })
    }
}

fn scales_of(stem: &str) -> String {
    format!("{stem}.scales")
}

impl MlxWeights {
    /// The three tensors of a matrix; `None` where it is not quantised.
    fn quantised(&self, name: &str) -> Result<Option<AffineTensor>, FormatError> {
        let stem = match (name.strip_suffix(".weight"), self.source.info(name)) {
            (Some(stem), Some(stored)) if stored.dtype == DType::U32 => stem,
            _ => return Ok(None),
        };
        let (scales, biases) = (self.source.f32(&scales_of(stem))?, self.source.f32(&format!("{stem}.biases"))?);
        let bytes = self.source.bytes(name)?;
        let words = bytes.as_chunks::<4>().0.iter().copied().map(u32::from_le_bytes).collect();
        Ok(Some(AffineTensor { words, scales, biases }))
    }

    fn values_of(&self, name: &str, tensor: &AffineTensor) -> Result<Vec<f32>, FormatError> {
        self.layout.dequantise(&tensor.words, &tensor.scales, &tensor.biases).ok_or_else(|| FormatError::Damaged {
            path: self.source.path().to_owned(),
            place: format!("tensor {name:?}"),
            reason: "its words, scales and biases do not fit each other".into(),
        })
    }
}

impl TensorSource for MlxWeights {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, FormatError> {
        let dtype = self.info(name).map(|info| info.dtype);
        match (dtype, self.source.info(name)) {
            (Some(dtype), Some(stored)) if stored.dtype == DType::U32 => Ok(Cow::Owned(encode_f32(&self.f32(name)?, dtype)?)),
            _ => self.source.bytes(name),
        }
    }

    /// Blocks of the same values where there are such, else f32.
    fn parts(&self, name: &str) -> Result<Vec<(TensorInfo, TensorBytes)>, FormatError> {
        let Some((tensor, info)) = self.quantised(name)?.zip(self.info(name)) else { return self.source.parts(name) };
        let (dtype, bytes) = match self.layout.blocks(&tensor.words, &tensor.scales, &tensor.biases) {
            Some(blocks) => blocks,
            None => (DType::F32, encode_f32(&self.values_of(name, &tensor)?, DType::F32)?),
        };
        self.release(name);
        Ok(vec![(TensorInfo::new(name, dtype, info.shape.clone()), bytes.into())])
    }

    fn release(&self, name: &str) {
        self.source.release(name);
        if let Some(stem) = name.strip_suffix(".weight") {
            self.source.release(&scales_of(stem));
            self.source.release(&format!("{stem}.biases"));
        }
    }

    fn f32(&self, name: &str) -> Result<Vec<f32>, FormatError> {
        match self.quantised(name)? {
            Some(tensor) => self.values_of(name, &tensor),
            None => self.source.f32(name),
        }
    }
}
