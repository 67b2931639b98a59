//! What a pickle may call: the allow-list, and what each entry makes of its arguments.

use std::sync::Arc;

use super::machine::{Machine, Node, NodeId};
use super::storage::dtype_of_storage;
use super::value::StoredTensor;
use crate::dtype::{DType, product};
use crate::error::FormatError;

/// A name that a pickle may mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch.Size`, a tuple.
    Size,
    /// `_rebuild_tensor` and `_rebuild_tensor_v2`; the second only has more arguments.
    RebuildTensor,
    RebuildParameter,
    /// `_codecs.encode`, which is how protocol 2 writes bytes.
    Encode,
    /// The type of a storage.
    Storage(DType),
}

/// A storage as a pickle names it.
#[derive(Debug, Clone)]
pub(super) struct StorageReference {
    key: Arc<str>,
    dtype: DType,
    len: usize,
}

/// Looks a name up in the allow-list.
pub(super) fn global(machine: &Machine, module: &str, name: &str) -> Result<Global, FormatError> {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("_codecs", "encode") => Some(Global::Encode),
        ("torch", "Size") => Some(Global::Size),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch", storage) => dtype_of_storage(storage).map(Global::Storage),
        _ => None,
    };
    known.ok_or_else(|| machine.unsupported(format!("the pickle asks for {module}.{name}, which is not allowed")))
}

/// A persistent id: ("storage", type, key, device, length).
pub(super) fn storage(machine: &Machine, id: NodeId) -> Result<StorageReference, FormatError> {
    match machine.tuple(id).as_deref() {
        Some([Node::Str(kind), Node::Global(Global::Storage(dtype)), Node::Str(key), Node::Str(_device), Node::Int(len)])
            if &**kind == "storage" =>
        {
            let len = usize::try_from(*len).map_err(|_| machine.fault(format!("storage {key} has a length of {len}")))?;
            Ok(StorageReference { key: key.clone(), dtype: *dtype, len })
        }
        _ => Err(machine.unsupported("a persistent id is no storage")),
    }
}

/// Calls an allowed callable.
pub(super) fn call(machine: &Machine, callable: NodeId, arguments: NodeId) -> Result<Node, FormatError> {
    let Some(Node::Global(global)) = machine.node(callable) else {
        return Err(machine.fault("calls what is no callable"));
    };
    let arguments = machine.tuple(arguments).ok_or_else(|| machine.fault("the arguments of a call are no tuple"))?;
    match (global, arguments.as_slice()) {
        (Global::OrderedDict, []) => Ok(Node::Dict { ordered: true, pairs: Vec::new() }),
        (Global::OrderedDict, [Node::List(items)]) => Ok(Node::Dict { ordered: true, pairs: pairs(machine, items)? }),
        (Global::Size, [tuple @ Node::Tuple(_)]) => Ok((*tuple).clone()),
        (Global::RebuildTensor, [Node::Storage(storage), Node::Int(offset), Node::Tuple(shape), Node::Tuple(stride), ..]) => {
            let tensor = StoredTensor {
                storage: storage.key.clone(),
                dtype: storage.dtype,
                shape: sizes(machine, shape)?,
                stride: sizes(machine, stride)?,
                offset: usize::try_from(*offset).map_err(|_| machine.fault(format!("a tensor starts at {offset}")))?,
                storage_len: storage.len,
            };
            check(machine, &tensor)?;
            Ok(Node::Tensor(Box::new(tensor)))
        }
        (Global::Encode, [Node::Str(text), Node::Str(encoding)]) if &**encoding == "latin1" => {
            let bytes = text.chars().map(|point| u8::try_from(point).ok()).collect::<Option<Vec<_>>>();
            Ok(Node::Bytes(bytes.ok_or_else(|| machine.fault("bytes written as a string hold a code point above 255"))?.into()))
        }
        (Global::RebuildParameter, [tensor @ Node::Tensor(_), ..]) => Ok((*tensor).clone()),
        _ => Err(machine.unsupported(format!("a call of {global:?} with {} arguments of unknown kinds", arguments.len()))),
    }
}

/// The argument of `OrderedDict([(key, value), ...])`; pairs may be tuples or lists.
fn pairs(machine: &Machine, items: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>, FormatError> {
    let pair = |item: &NodeId| match machine.node(*item) {
        Some(Node::Tuple(pair) | Node::List(pair)) => <[NodeId; 2]>::try_from(pair.as_slice()).ok().map(|[key, value]| (key, value)),
        _ => None,
    };
    items.iter().map(pair).collect::<Option<_>>().ok_or_else(|| machine.fault("an OrderedDict is made of something else than pairs"))
}

fn sizes(machine: &Machine, items: &[NodeId]) -> Result<Vec<usize>, FormatError> {
    let size = |item: &NodeId| match machine.node(*item) {
        Some(Node::Int(size)) => usize::try_from(*size).ok(),
        _ => None,
    };
    items.iter().map(size).collect::<Option<_>>().ok_or_else(|| machine.fault("a tensor's size or stride is no natural number"))
}

/// A tensor must lie inside its storage, and may not have more elements than it: an expanded tensor (stride 0) could ask for any
/// amount of memory.
fn check(machine: &Machine, tensor: &StoredTensor) -> Result<(), FormatError> {
    let StoredTensor { storage, dtype, shape, stride, offset, storage_len } = tensor;
    if shape.len() != stride.len() {
        return Err(machine.fault(format!("a tensor of storage {storage} has {} sizes and {} strides", shape.len(), stride.len())));
    }
    let count = product(shape).filter(|count| count.checked_mul(dtype.size()).is_some());
    match (count, tensor.reach()) {
        (Some(0), _) => Ok(()),
        (Some(count), Some(reach)) if reach <= *storage_len && count <= *storage_len => Ok(()),
        (Some(_), Some(reach)) if reach <= *storage_len => {
            let reason = format!("a tensor of shape {shape:?} repeats the {storage_len} elements of storage {storage}");
            Err(machine.unsupported(format!("{reason}; call contiguous() on it before saving")))
        }
        _ => {
            let reason = format!("a tensor of shape {shape:?} and stride {stride:?} from element {offset} on leaves storage {storage}");
            Err(machine.fault(format!("{reason}, which has {storage_len}")))
        }
    }
}
