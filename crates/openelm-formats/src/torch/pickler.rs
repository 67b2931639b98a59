//! A value tree into a pickle of protocol 2, in the instructions that `torch.save` uses.

use std::collections::HashMap;
use std::sync::Arc;

use super::opcode as op;
use super::storage::storage_of_dtype;
use super::value::{PickleValue, StoredTensor};

/// What is stored once and recalled later.
#[derive(PartialEq, Eq, Hash)]
enum Remembered {
    Global(&'static str, &'static str),
    Text(Arc<str>),
}

/// The pickle under construction, and the storages its tensors lie in.
#[derive(Default)]
pub(super) struct Pickler {
    pickle: Vec<u8>,
    memo: HashMap<Remembered, u32>,
    /// A tensor of each storage, in the order in which they first appear; the position is the storage's key in the file.
    pub storages: Vec<StoredTensor>,
    keys: HashMap<Arc<str>, usize>,
}

impl Pickler {
    /// The pickle of `root`. An error says what cannot be written.
    pub fn run(root: &PickleValue) -> Result<(Vec<u8>, Vec<StoredTensor>), String> {
        let mut pickler = Self::default();
        pickler.pickle.extend([op::PROTO, 2]);
        pickler.value(root)?;
        pickler.pickle.push(op::STOP);
        Ok((pickler.pickle, pickler.storages))
    }

    fn value(&mut self, value: &PickleValue) -> Result<(), String> {
        match value {
            PickleValue::None => self.pickle.push(op::NONE),
            PickleValue::Bool(flag) => self.bool(*flag),
            PickleValue::Int(number) => self.int(*number),
            PickleValue::Float(number) => {
                self.pickle.push(op::FLOAT);
                self.pickle.extend(number.to_be_bytes());
            }
            PickleValue::Str(text) => self.text(text)?,
            PickleValue::Bytes(bytes) => self.bytes(bytes)?,
            PickleValue::List(items) => {
                self.pickle.push(op::EMPTY_LIST);
                self.marked(items, op::APPENDS)?;
            }
            PickleValue::Tuple(items) => self.tuple(items)?,
            PickleValue::Dict(pairs) => {
                self.pickle.push(op::EMPTY_DICT);
                self.pairs(pairs)?;
            }
            PickleValue::OrderedDict(pairs) => {
                self.empty_ordered_dict();
                self.pairs(pairs)?;
            }
            PickleValue::Tensor(tensor) => self.tensor(tensor)?,
        }
        Ok(())
    }

    fn bool(&mut self, flag: bool) {
        self.pickle.push(if flag { op::NEW_TRUE } else { op::NEW_FALSE });
    }

    fn int(&mut self, number: i64) {
        if let Ok(number) = u8::try_from(number) {
            self.pickle.extend([op::INT1, number]);
        } else if let Ok(number) = u16::try_from(number) {
            self.pickle.push(op::INT2);
            self.pickle.extend(number.to_le_bytes());
        } else if let Ok(number) = i32::try_from(number) {
            self.pickle.push(op::INT4);
            self.pickle.extend(number.to_le_bytes());
        } else {
            self.pickle.extend([op::LONG1, 8]);
            self.pickle.extend(number.to_le_bytes());
        }
    }

    fn size(&mut self, size: usize) -> Result<(), String> {
        self.int(i64::try_from(size).map_err(|_| format!("a size of {size} is too large"))?);
        Ok(())
    }

    fn text(&mut self, text: &Arc<str>) -> Result<(), String> {
        if self.recall(&Remembered::Text(text.clone())) {
            return Ok(());
        }
        self.pickle.push(op::UNICODE4);
        let len = u32::try_from(text.len()).map_err(|_| "a string of more than 4 GiB".to_owned())?;
        self.pickle.extend(len.to_le_bytes());
        self.pickle.extend(text.as_bytes());
        self.remember(Remembered::Text(text.clone()));
        Ok(())
    }

    /// Protocol 2 has no instruction for bytes: like Python, they are written as a call that encodes a string of the same code points.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.global("_codecs", "encode");
        self.text(&bytes.iter().copied().map(char::from).collect::<String>().into())?;
        self.text(&"latin1".into())?;
        self.pickle.extend([op::TUPLE2, op::REDUCE]);
        Ok(())
    }

    fn tuple(&mut self, items: &[PickleValue]) -> Result<(), String> {
        if items.is_empty() {
            self.pickle.push(op::EMPTY_TUPLE);
            return Ok(());
        }
        self.pickle.push(op::MARK);
        for item in items {
            self.value(item)?;
        }
        self.pickle.push(op::TUPLE);
        Ok(())
    }

    fn sizes(&mut self, sizes: &[usize]) -> Result<(), String> {
        self.pickle.push(op::MARK);
        for size in sizes {
            self.size(*size)?;
        }
        self.pickle.push(op::TUPLE);
        Ok(())
    }

    /// Items for the container on top of the stack.
    fn marked(&mut self, items: &[PickleValue], last: u8) -> Result<(), String> {
        if items.is_empty() {
            return Ok(());
        }
        self.pickle.push(op::MARK);
        for item in items {
            self.value(item)?;
        }
        self.pickle.push(last);
        Ok(())
    }

    fn pairs(&mut self, pairs: &[(PickleValue, PickleValue)]) -> Result<(), String> {
        if pairs.is_empty() {
            return Ok(());
        }
        self.pickle.push(op::MARK);
        for (key, value) in pairs {
            self.value(key)?;
            self.value(value)?;
        }
        self.pickle.push(op::SET_ITEMS);
        Ok(())
    }

    fn empty_ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.pickle.extend([op::EMPTY_TUPLE, op::REDUCE]);
    }

    fn tensor(&mut self, tensor: &StoredTensor) -> Result<(), String> {
        let StoredTensor { storage, dtype, shape, stride, offset, storage_len } = tensor;
        let storage_type = storage_of_dtype(*dtype).ok_or_else(|| format!("storage {storage}: PyTorch has no storage of {dtype}"))?;
        if shape.len() != stride.len() || tensor.reach().is_none_or(|reach| reach > *storage_len) {
            return Err(format!("a tensor of shape {shape:?} does not fit into storage {storage}, which has {storage_len} elements"));
        }
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.pickle.extend([op::MARK, op::MARK]);
        self.text(&"storage".into())?;
        self.global("torch", storage_type);
        let key = *self.keys.entry(storage.clone()).or_insert(self.storages.len());
        match self.storages.get(key) {
            None => self.storages.push(tensor.clone()),
            Some(first) if (first.dtype, first.storage_len) == (*dtype, *storage_len) => {}
            Some(_) => return Err(format!("storage {storage} is given two types or lengths")),
        }
        self.text(&key.to_string().into())?;
        self.text(&"cpu".into())?;
        self.size(*storage_len)?;
        self.pickle.extend([op::TUPLE, op::PERSISTENT_ID]);
        self.size(*offset)?;
        self.sizes(shape)?;
        self.sizes(stride)?;
        // requires_grad, then the backward hooks.
        self.bool(false);
        self.empty_ordered_dict();
        self.pickle.extend([op::TUPLE, op::REDUCE]);
        Ok(())
    }

    fn global(&mut self, module: &'static str, name: &'static str) {
        if self.recall(&Remembered::Global(module, name)) {
            return;
        }
        self.pickle.push(op::GLOBAL);
        self.pickle.extend(format!("{module}\n{name}\n").bytes());
        self.remember(Remembered::Global(module, name));
    }

    fn recall(&mut self, value: &Remembered) -> bool {
        let Some(key) = self.memo.get(value) else {
            return false;
        };
        match u8::try_from(*key) {
            Ok(key) => self.pickle.extend([op::GET, key]),
            Err(_) => {
                self.pickle.push(op::LONG_GET);
                self.pickle.extend(key.to_le_bytes());
            }
        }
        true
    }

    fn remember(&mut self, value: Remembered) {
        // A memo of 2^32 strings would take more memory than the pickle, which holds them all, could leave free.
        let key = self.memo.len() as u32;
        match u8::try_from(key) {
            Ok(key) => self.pickle.extend([op::PUT, key]),
            Err(_) => {
                self.pickle.push(op::LONG_PUT);
                self.pickle.extend(key.to_le_bytes());
            }
        }
        self.memo.insert(value, key);
    }
}
