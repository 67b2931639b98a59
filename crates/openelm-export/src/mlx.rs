//! A folder in mlx-lm's layout, plain or with affine-quantised matrices.
//!
//! What must stay true: a matrix is quantised where its rows are whole groups, as `mlx_lm.convert` does, the embedding included; all
//! rows are kept, padding too; scales and biases have the type of the plain tensors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use openelm_checkpoint::{ModelError, NewFolder, OpenElm, ParameterInfo, Weights, hf_name, to_hf_config};
use openelm_formats::{AffineLayout, AffineTensor, DType, FormatError, TensorInfo, encode_f32, write_sharded};
use openelm_tokenizer::Tokenizer;
use serde_json::json;

use crate::card::{CardFacts, card};
use crate::error::ExportError;
use crate::hugging_face::{check_rows, default_dtype};
use crate::settings::ExportDtype;
use crate::tokenizer_files::write_tokenizer;

/// mlx-lm's default.
const GROUP: usize = 64;

/// How to write.
#[derive(Clone, Debug)]
pub struct MlxSettings {
    pub dtype: Option<ExportDtype>,
    /// 2, 3, 4, 5, 6 or 8 bits a level; `None`: plain.
    pub bits: Option<u32>,
    pub max_shard_bytes: u64,
}

/// Part of a parameter that is a tensor of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Plain,
    Words,
    Scales,
    Biases,
}

/// Writes `weights` and `tokenizer` into the new folder `out`. Gives the files' paths.
///
/// # Errors
/// When `out` holds something already, the tokenizer has more tokens than the model, or reading or writing fails.
pub fn export_mlx(
    weights: &Weights,
    tokenizer: Option<&Tokenizer>,
    facts: &CardFacts,
    settings: &MlxSettings,
    out: &Path,
) -> Result<Vec<PathBuf>, ExportError> {
    let config = weights.config();
    check_rows(config, tokenizer)?;
    let folder = NewFolder::new(out)?;
    let dtype = settings.dtype.map_or_else(|| default_dtype(weights), Ok)?;
    let layout = settings.bits.map(|bits| AffineLayout { bits, group: GROUP });
    write_weights(weights, dtype.stored(), layout, settings.max_shard_bytes, folder.path())?;
    let (bos, eos) = (tokenizer.and_then(Tokenizer::bos_id), tokenizer.and_then(Tokenizer::eos_id));
    let mut mlx_config = to_hf_config(config, dtype.torch(), bos, eos)?;
    if let (Some(layout), Some(object)) = (layout, mlx_config.as_object_mut()) {
        let section = json!({"group_size": layout.group, "bits": layout.bits, "mode": "affine"});
        object.insert("quantization".into(), section.clone());
        object.insert("quantization_config".into(), section);
    }
    folder.put_json("config.json", &mlx_config)?;
    folder.put("README.md", card(config, facts))?;
    if let Some(tokenizer) = tokenizer {
        write_tokenizer(&folder, tokenizer, config, weights.chat_template())?;
    }
    Ok(folder.publish()?)
}

/// The four-byte words of all matrices come first, so that every tensor starts at a multiple of its elements' size.
fn write_weights(
    weights: &Weights,
    dtype: DType,
    layout: Option<AffineLayout>,
    max_shard_bytes: u64,
    folder: &Path,
) -> Result<(), ExportError> {
    let parameters = OpenElm::infos_of(weights.config())?;
    let quantised = |info: &ParameterInfo| match (&info.shape[..], layout) {
        ([_, row], Some(layout)) if row.is_multiple_of(layout.group) => layout.words_of_group().map(|words| (layout, words)),
        _ => None,
    };
    let (mut words, mut rest) = (Vec::new(), Vec::new());
    let mut pieces: HashMap<String, (&ParameterInfo, Piece)> = HashMap::new();
    for parameter in &parameters {
        let name = hf_name(&parameter.name);
        let Some((layout, words_of_group)) = quantised(parameter) else {
            pieces.insert(name.clone(), (parameter, Piece::Plain));
            rest.push(TensorInfo::new(name, dtype, parameter.shape.clone()));
            continue;
        };
        let with_row = |per_group: usize| {
            let mut shape = parameter.shape.clone();
            if let Some(row) = shape.last_mut() {
                *row = *row / layout.group * per_group;
            }
            shape
        };
        pieces.insert(name.clone(), (parameter, Piece::Words));
        words.push(TensorInfo::new(name.clone(), DType::U32, with_row(words_of_group)));
        let stem = name.strip_suffix(".weight").unwrap_or(&name);
        for (tail, piece) in [("scales", Piece::Scales), ("biases", Piece::Biases)] {
            let name = format!("{stem}.{tail}");
            pieces.insert(name.clone(), (parameter, piece));
            rest.push(TensorInfo::new(name, dtype, with_row(1)));
        }
    }
    words.append(&mut rest);
    let metadata = std::iter::once(("format".to_owned(), "mlx".to_owned())).collect();
    write_sharded(folder, &words, max_shard_bytes, &metadata, |info| -> Result<Vec<u8>, ExportError> {
        let Some((parameter, piece)) = pieces.get(&info.name) else {
            return Err(ExportError::Model(ModelError::Missing { name: info.name.clone() }));
        };
        if *piece == Piece::Plain {
            return Ok(weights.bytes(parameter, dtype)?);
        }
        // Once for each of the three: reading again costs less than keeping a model's worth of scales.
        let values = weights.values(parameter)?;
        let tensor = layout.and_then(|layout| layout.quantise(&values));
        let AffineTensor { words, scales, biases } = tensor.ok_or(FormatError::Encode { dtype: DType::U32, count: values.len() })?;
        Ok(match piece {
            Piece::Words => words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            Piece::Scales => encode_f32(&scales, dtype)?,
            _ => encode_f32(&biases, dtype)?,
        })
    })?;
    Ok(())
}
