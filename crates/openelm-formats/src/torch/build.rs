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
        (Global::Size, [tuple @ Node::Tuple(items)]) => {
            machine.copy(items.len())?;
            Ok((*tuple).clone())
        }
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
            machine.copy(text.len())?;
            let bytes = text.chars().map(|point| u8::try_from(point).ok()).collect::<Option<Vec<_>>>();
            Ok(Node::Bytes(bytes.ok_or_else(|| machine.fault("bytes written as a string hold a code point above 255"))?.into()))
        }
        (Global::RebuildParameter, [parameter @ Node::Tensor(tensor), ..]) => {
            machine.copy(tensor.shape.len())?;
            Ok((*parameter).clone())
        }
        _ => Err(machine.unsupported(format!("a call of {global:?} with {} arguments of unknown kinds", arguments.len()))),
    }
}

/// The argument of `OrderedDict([(key, value), ...])`; pairs may be tuples or lists.
fn pairs(machine: &Machine, items: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>, FormatError> {
    let pair = |item: &NodeId| match machine.node(*item) {
        Some(Node::Tuple(pair) | Node::List(pair)) => <[NodeId; 2]>::try_from(pair.as_slice()).ok().map(|[key, value]| (key, value)),
        _ => None,
    };
    machine.copy(items.len())?;
    items.iter().map(pair).collect::<Option<_>>().ok_or_else(|| machine.fault("an OrderedDict is made of something else than pairs"))
}

fn sizes(machine: &Machine, items: &[NodeId]) -> Result<Vec<usize>, FormatError> {
    let size = |item: &NodeId| match machine.node(*item) {
        Some(Node::Int(size)) => usize::try_from(*size).ok(),
        _ => None,
    };
    machine.copy(items.len())?;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// An argument is stored under 0, then `call` is done a thousand times with it.
    fn repeated(argument: &[u8], call: &[u8]) -> String {
        let pickle = [b"\x80\x02(", argument, b"q\0", &call.repeat(1000), b"t."].concat();
        Machine::run(Path::new("a.pt"), &pickle).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_long_argument_is_not_copied_by_every_call() {
        let many = |item: &[u8], end: &[u8]| [b"(".as_slice(), &item.repeat(2000), end].concat();
        let text = [b"X\xd0\x07\0\0".as_slice(), &[b'a'; 2000]].concat();
        for (argument, call) in [
            (many(b"K\x01", b"t\x85"), b"ctorch\nSize\nh\0R".as_slice()),
            ([b"]".as_slice(), &many(b"NN\x86", b"e\x85")].concat(), b"ccollections\nOrderedDict\nh\0R"),
            (text, b"c_codecs\nencode\nh\0X\x06\0\0\0latin1\x86R"),
        ] {
            let message = repeated(&argument, call);
            assert!(message.contains("its calls copy their arguments too often"), "{message}");
        }
    }

    #[test]
    fn a_tensor_of_many_sizes_is_not_copied_to_every_place() {
        let sizes = [b"(".as_slice(), &b"K\x01".repeat(2000), b"t"].concat();
        let storage = b"(X\x07\0\0\0storagectorch\nByteStorage\nX\x01\0\0\0\x30X\x03\0\0\0cpuK\x08tQ";
        let tensor = [b"ctorch._utils\n_rebuild_tensor\n(".as_slice(), storage, b"K\0", &sizes, &sizes, b"tRq\0"].concat();
        let pickle = [b"\x80\x02(".as_slice(), &tensor, &b"h\0".repeat(4000), b"t."].concat();
        let message = Machine::run(Path::new("a.pt"), &pickle).unwrap_err().to_string();
        assert!(message.contains("refers to its parts too often"), "{message}");
        let once = [b"\x80\x02".as_slice(), &tensor, b"."].concat();
        assert!(Machine::run(Path::new("a.pt"), &once).is_ok());
    }
}
