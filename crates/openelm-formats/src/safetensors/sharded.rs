//! Weights written as Hugging Face does: one file, or shards of a limited size and an index.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{INDEX_FILE, SINGLE_FILE, SafetensorsWriter};
use crate::dtype::TensorInfo;
use crate::error::FormatError;
use crate::partial_file::PartialFile;

/// Writes `model.safetensors` into `folder`; or, where the data takes more than `max_shard_bytes`, shards
/// `model-00001-of-0000N.safetensors` in the order given and `model.safetensors.index.json`. A tensor larger than the limit gets
/// a shard of its own. `bytes` is asked for one tensor at a time, in order. Returns the files written, the index last.
///
/// The folder must exist and hold no weights of this layout yet.
pub fn write_sharded<E: From<FormatError>>(
    folder: &Path,
    infos: &[TensorInfo],
    max_shard_bytes: u64,
    metadata: &BTreeMap<String, String>,
    mut bytes: impl FnMut(&TensorInfo) -> Result<Vec<u8>, E>,
) -> Result<Vec<PathBuf>, E> {
    refuse_other_weights(folder)?;
    let shards = split(infos, max_shard_bytes);
    let mut files = Vec::with_capacity(shards.len() + 1);
    let mut weight_map = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => SINGLE_FILE.to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let path = folder.join(&name);
        let mut writer = SafetensorsWriter::create(&path, shard, metadata)?;
        for info in *shard {
            writer.write(&info.name, &bytes(info)?)?;
            if weight_map.insert(info.name.as_str(), name.clone()).is_some() {
                let reason = format!("the tensor name {:?} comes twice", info.name);
                return Err(FormatError::write(&path, reason, "give each tensor its own name").into());
            }
        }
        writer.finish()?;
        files.push(path);
    }
    if shards.len() > 1 {
        let total_size: u64 = infos.iter().map(|info| info.byte_len() as u64).sum();
        let path = folder.join(INDEX_FILE);
        let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
        let mut file = PartialFile::create(&path)?;
        file.append(format!("{index:#}\n").as_bytes())?;
        file.finish()?;
        files.push(path);
    }
    Ok(files)
}

/// Runs of `infos` of at most `max_shard_bytes`, each of at least one tensor; one empty run where there are none.
fn split(infos: &[TensorInfo], max_shard_bytes: u64) -> Vec<&[TensorInfo]> {
    let mut shards = Vec::new();
    let (mut rest, mut begin, mut bytes) = (infos, 0, 0_u64);
    for (position, info) in infos.iter().enumerate() {
        let len = info.byte_len() as u64;
        bytes = bytes.saturating_add(len);
        if bytes > max_shard_bytes && position > begin {
            let (shard, after) = rest.split_at(position - begin);
            shards.push(shard);
            (rest, begin, bytes) = (after, position, len);
        }
    }
    shards.push(rest);
    shards
}

/// A reader prefers one layout to the other, so leftovers of another export could be read instead of what is written now.
fn refuse_other_weights(folder: &Path) -> Result<(), FormatError> {
    let entries = fs::read_dir(folder).map_err(|source| FormatError::io(folder, "listing", source))?;
    for entry in entries {
        let entry = entry.map_err(|source| FormatError::io(folder, "listing", source))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == INDEX_FILE || (name.starts_with("model") && name.ends_with(".safetensors")) {
            let reason = format!("the folder already holds weights ({name})");
            return Err(FormatError::write(folder, reason, "choose an empty folder, or remove what is there"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn shards_keep_to_the_limit() {
        let infos: Vec<_> =
            [10, 10, 10, 50, 5, 0, 15].iter().enumerate().map(|(i, n)| TensorInfo::new(i.to_string(), DType::U8, [*n])).collect();
        let sizes =
            |limit| split(&infos, limit).iter().map(|shard| shard.iter().map(TensorInfo::byte_len).collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(sizes(20), [vec![10, 10], vec![10], vec![50], vec![5, 0, 15]]);
        assert_eq!(sizes(100), [vec![10, 10, 10, 50, 5, 0, 15]]);
        assert_eq!(split(&[], 5), [&[] as &[TensorInfo]]);
    }
}
