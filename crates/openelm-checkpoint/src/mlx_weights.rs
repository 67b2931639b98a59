//! A folder of mlx-lm's with quantised tensors as a source of plain ones.
//!
//! A quantised matrix is three tensors: `NAME.weight` (levels in u32 words), `NAME.scales` and `NAME.biases`. Its values, or blocks that hold
//! the same ones, are made when asked for; all other tensors are passed on as they are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use openelm_formats::{AffineLayout, AffineTensor, DType, FormatError, Safetensors, TensorBytes, TensorInfo, TensorSource, encode_f32};
use serde_json::Value;

use crate::error::CheckpointError;

/// Mapped weights, quantised ones unpacked on demand.
pub(crate) struct MlxWeights {
    source: Safetensors,
    quantisation: Quantisation,
    /// As a reader sees them: scales and biases left out, matrices in their full shape.
    infos: Vec<TensorInfo>,
}

/// How the matrices of a folder are quantised.
pub(crate) struct Quantisation {
    common: AffineLayout,
    /// Of modules with settings of their own; `None` where one is not quantised.
    own: HashMap<String, Option<AffineLayout>>,
}

impl Quantisation {
    /// The layout of a module's weight.
    fn of(&self, module: &str) -> Option<AffineLayout> {
        self.own.get(module).copied().unwrap_or(Some(self.common))
    }
}

/// How the tensors of a folder whose `config.json` holds `config` are quantised; `None` where they are not.
pub(crate) fn quantisation_of(path: &Path, config: &Value) -> Result<Option<Quantisation>, CheckpointError> {
    let Some(section) = config.get("quantization") else { return Ok(None) };
    let fault = |reason: String| CheckpointError::Config {
        path: path.to_owned(),
        reason: format!("quantization {reason}"),
        hint: "2, 3, 4, 5, 6 or 8 bits of mode affine are read; convert the model with mlx_lm.convert --q-bits 4".into(),
    };
    let Some(settings) = section.as_object() else { return Err(fault(format!("is {section}, not an object"))) };
    let mut own = HashMap::new();
    for (module, settings) in settings.iter().filter(|(key, _)| !SETTINGS.contains(&key.as_str())) {
        let layout = match settings {
            Value::Bool(false) => None,
            Value::Bool(true) => continue,
            settings => match settings.as_object().and_then(|object| object.keys().find(|key| !SETTINGS.contains(&key.as_str()))) {
                Some(key) => return Err(fault(format!("of {module:?} has an unknown key {key:?}"))),
                None => Some(layout_of(settings).map_err(|reason| fault(format!("of {module:?}, {settings}: {reason}")))?),
            },
        };
        own.insert(module.clone(), layout);
    }
    let common = layout_of(section).map_err(fault)?;
    Ok(Some(Quantisation { common, own }))
}

/// What the settings of all modules or of one may hold.
const SETTINGS: [&str; 3] = ["group_size", "bits", "mode"];

/// The layout of some settings, or what is wrong with them.
fn layout_of(settings: &Value) -> Result<AffineLayout, String> {
    if let Some(mode) = settings.get("mode").filter(|mode| *mode != "affine") {
        return Err(format!("has mode {mode}: it is not affine"));
    }
    let number = |key: &str| settings.get(key).and_then(Value::as_u64);
    let (Some(bits), Some(group)) = (number("bits"), number("group_size")) else { return Err("bits or group_size is missing".into()) };
    let layout = u32::try_from(bits).ok().zip(usize::try_from(group).ok()).map(|(bits, group)| AffineLayout { bits, group });
    let known = layout.filter(|layout| layout.words_of_group().is_some());
    known.ok_or_else(|| format!("has {bits} bits in groups of {group}: there is no such layout here"))
}

impl MlxWeights {
    /// Pairs the tensors of `source`.
    pub fn new(source: Safetensors, quantisation: Quantisation) -> Result<Self, CheckpointError> {
        let fault = |reason: String| CheckpointError::NoWeights {
            path: source.path().to_owned(),
            reason,
            hint: "the folder is damaged; convert the model again".into(),
        };
        let lost = quantisation.own.keys().filter(|module| source.info(&format!("{module}.weight")).is_none()).min();
        if let Some(module) = lost {
            return Err(fault(format!("config.json says how {module:?} is quantised, which has no weight")));
        }
        let mut infos = Vec::new();
        for info in source.infos() {
            let part_of = |tail| info.name.strip_suffix(tail).is_some_and(|stem| source.info(&scales_of(stem)).is_some());
            if part_of(".scales") || part_of(".biases") {
                continue;
            }
            let stem = info.name.strip_suffix(".weight");
            let Some((stem, scales)) = stem.and_then(|stem| Some((stem, source.info(&scales_of(stem))?))) else {
                infos.push(info.clone());
                continue;
            };
            let fault = |reason: &str| fault(format!("tensor {:?}: {reason}", info.name));
            let Some(layout) = quantisation.of(stem) else { return Err(fault("it has scales, but is not quantised by config.json")) };
            let (&[rows, words], &[scale_rows, groups]) = (info.shape.as_slice(), scales.shape.as_slice()) else {
                return Err(fault("a quantised tensor is a matrix"));
            };
            let fits = rows == scale_rows
                && info.dtype == DType::U32
                && layout.words_of_group().and_then(|n| groups.checked_mul(n)) == Some(words);
            let Some(columns) = groups.checked_mul(layout.group).filter(|_| fits) else {
                return Err(fault("its words do not fit its scales"));
            };
            infos.push(TensorInfo::new(info.name.clone(), scales.dtype, [rows, columns]));
        }
        Ok(Self { source, quantisation, infos })
    }
}

fn scales_of(stem: &str) -> String {
    format!("{stem}.scales")
}

impl MlxWeights {
    /// The three tensors of a matrix and their layout; `None` where it is not quantised.
    fn quantised(&self, name: &str) -> Result<Option<(AffineLayout, AffineTensor)>, FormatError> {
        let stem = match (name.strip_suffix(".weight"), self.source.info(name)) {
            (Some(stem), Some(stored)) if stored.dtype == DType::U32 => stem,
            _ => return Ok(None),
        };
        let Some(layout) = self.quantisation.of(stem) else { return Ok(None) };
        let (scales, biases) = (self.source.f32(&scales_of(stem))?, self.source.f32(&format!("{stem}.biases"))?);
        let bytes = self.source.bytes(name)?;
        let words = bytes.as_chunks::<4>().0.iter().copied().map(u32::from_le_bytes).collect();
        Ok(Some((layout, AffineTensor { words, scales, biases })))
    }

    fn values_of(&self, name: &str, layout: AffineLayout, tensor: &AffineTensor) -> Result<Vec<f32>, FormatError> {
        layout.dequantise(&tensor.words, &tensor.scales, &tensor.biases).ok_or_else(|| FormatError::Damaged {
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
        let Some(((layout, tensor), info)) = self.quantised(name)?.zip(self.info(name)) else { return self.source.parts(name) };
        let (dtype, bytes) = match layout.blocks(&tensor.words, &tensor.scales, &tensor.biases) {
            Some(blocks) => blocks,
            None => (DType::F32, encode_f32(&self.values_of(name, layout, &tensor)?, DType::F32)?),
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
            Some((layout, tensor)) => self.values_of(name, layout, &tensor),
            None => self.source.f32(name),
        }
    }
}
