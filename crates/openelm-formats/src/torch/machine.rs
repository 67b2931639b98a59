//! The pickle machine: reads the instructions into a flat store of nodes, then copies the result out as a tree.
//!
//! Memory stays within a small multiple of the pickle's length: an instruction makes at most one node, lengths are checked against
//! what is left of the pickle, what calls copy of their arguments is counted, and the tree, in which a shared node is copied at each
//! place, may not have more nodes (a tensor's sizes among them) than the pickle has bytes nor nest deeper than `MAX_DEPTH`. Values that
//! contain themselves are refused by the same limits.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::build::{self, Global, StorageReference};
use super::opcode as op;
use super::value::{PickleValue, StoredTensor};
use crate::error::FormatError;

const MAX_DEPTH: usize = 64;

/// Position of a node in the store.
pub(super) type NodeId = usize;

#[derive(Debug, Clone)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Vec<NodeId>),
    Tuple(Vec<NodeId>),
    Dict { ordered: bool, pairs: Vec<(NodeId, NodeId)> },
    Global(Global),
    Storage(Box<StorageReference>),
    Tensor(Box<StoredTensor>),
}

pub(super) struct Machine<'a> {
    path: &'a Path,
    pickle: &'a [u8],
    position: usize,
    /// Where the current instruction begins, for messages.
    instruction: usize,
    nodes: Vec<Node>,
    stack: Vec<NodeId>,
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
    /// Items that calls may still copy. A pickle writes an argument out before it can be recalled, so without a limit a long one would
    /// be copied by every few bytes.
    copies_left: Cell<usize>,
}

impl<'a> Machine<'a> {
    /// The value of a whole pickle. `path` is for messages.
    pub fn run(path: &'a Path, pickle: &'a [u8]) -> Result<PickleValue, FormatError> {
        let mut machine = Self {
            path,
            pickle,
            position: 0,
            instruction: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copies_left: Cell::new(pickle.len()),
        };
        let root = loop {
            machine.instruction = machine.position;
            if let Some(root) = machine.step()? {
                break root;
            }
        };
        let mut left = pickle.len();
        machine.tree(root, MAX_DEPTH, &mut left)
    }

    /// An error at the current instruction.
    pub fn fault(&self, reason: impl Into<String>) -> FormatError {
        FormatError::damaged(self.path, format!("data.pkl, byte {}", self.instruction), reason)
    }

    /// An error for something valid that is not taken.
    pub fn unsupported(&self, reason: impl Into<String>) -> FormatError {
        let hint = "only containers, numbers, strings and tensors are read, and nothing is executed; save a state dict with torch.save";
        FormatError::unsupported(self.path, format!("data.pkl, byte {}", self.instruction), reason, hint)
    }

    /// Does one instruction; gives the result at the last one.
    fn step(&mut self) -> Result<Option<NodeId>, FormatError> {
        let opcode = self.take::<1>()?[0];
        match opcode {
            op::PROTO => {
                let [version] = self.take()?;
                if !(2..=5).contains(&version) {
                    return Err(self.unsupported(format!("pickle protocol {version} is not known")));
                }
            }
            op::FRAME => _ = self.take::<8>()?,
            op::STOP => return Ok(Some(self.pop()?)),
            op::MARK => self.marks.push(self.stack.len()),
            op::POP => _ = self.pop()?,
            op::POP_MARK => _ = self.pop_mark()?,
            op::PUT => {
                let [key] = self.take()?;
                self.remember(key.into())?;
            }
            op::LONG_PUT => {
                let key = u32::from_le_bytes(self.take()?);
                self.remember(key)?;
            }
            op::MEMOIZE => self.remember(self.memo.len() as u32)?,
            op::GET => {
                let [key] = self.take()?;
                self.recall(key.into())?;
            }
            op::LONG_GET => {
                let key = u32::from_le_bytes(self.take()?);
                self.recall(key)?;
            }
            op::EMPTY_LIST => self.push(Node::List(Vec::new())),
            op::EMPTY_TUPLE => self.push(Node::Tuple(Vec::new())),
            op::EMPTY_DICT => self.push(Node::Dict { ordered: false, pairs: Vec::new() }),
            op::APPEND | op::APPENDS => {
                let items = if opcode == op::APPEND { vec![self.pop()?] } else { self.pop_mark()? };
                let fault = self.fault("appends to what is no list");
                match self.top_mut()? {
                    Node::List(list) => list.extend(items),
                    _ => return Err(fault),
                }
            }
            op::SET_ITEM | op::SET_ITEMS => {
                let items = if opcode == op::SET_ITEM { self.pop_many(2)? } else { self.pop_mark()? };
                let fault = self.fault("sets items of what is no dict, or a key without a value");
                match self.top_mut()? {
                    Node::Dict { pairs, .. } if items.len().is_multiple_of(2) => {
                        pairs.extend(items.as_chunks().0.iter().map(|[key, value]| (*key, *value)));
                    }
                    _ => return Err(fault),
                }
            }
            op::TUPLE => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items));
            }
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => {
                let items = self.pop_many(usize::from(opcode - op::TUPLE1) + 1)?;
                self.push(Node::Tuple(items));
            }
            op::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                let global = build::global(self, module, name)?;
                self.push(Node::Global(global));
            }
            op::STACK_GLOBAL => {
                let names = self.pop_many(2)?;
                let [Some(Node::Str(module)), Some(Node::Str(name))] = [0, 1].map(|i| names.get(i).and_then(|id| self.node(*id)).cloned())
                else {
                    return Err(self.fault("a global's name is no string"));
                };
                let global = build::global(self, &module, &name)?;
                self.push(Node::Global(global));
            }
            op::PERSISTENT_ID => {
                let id = self.pop()?;
                let storage = build::storage(self, id)?;
                self.push(Node::Storage(Box::new(storage)));
            }
            op::REDUCE => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let node = build::call(self, callable, arguments)?;
                self.push(node);
            }
            op::BUILD => {
                // Attributes of an OrderedDict, which are a state dict's _metadata: versions of modules, of no use here.
                self.pop()?;
                if !matches!(self.top_mut()?, Node::Dict { ordered: true, .. }) {
                    return Err(self.unsupported("attributes are set on something else than an OrderedDict"));
                }
            }
            _ => {
                let scalar = self.scalar(opcode)?;
                self.push(scalar);
            }
        }
        Ok(None)
    }

    /// The value that an instruction holds in itself.
    fn scalar(&mut self, opcode: u8) -> Result<Node, FormatError> {
        Ok(match opcode {
            op::NONE => Node::None,
            op::NEW_TRUE => Node::Bool(true),
            op::NEW_FALSE => Node::Bool(false),
            op::INT1 => Node::Int(self.take::<1>()?[0].into()),
            op::INT2 => Node::Int(u16::from_le_bytes(self.take()?).into()),
            op::INT4 => Node::Int(i32::from_le_bytes(self.take()?).into()),
            op::LONG1 | op::LONG4 => {
                let len = if opcode == op::LONG1 { u64::from(self.take::<1>()?[0]) } else { u32::from_le_bytes(self.take()?).into() };
                let bytes = self.take_slice(len)?;
                let mut number = [if bytes.last().is_some_and(|top| *top >= 0x80) { 0xff } else { 0 }; 8];
                match number.get_mut(..bytes.len()) {
                    Some(low) => low.copy_from_slice(bytes),
                    None => return Err(self.unsupported(format!("an integer of {len} bytes"))),
                }
                Node::Int(i64::from_le_bytes(number))
            }
            op::FLOAT => Node::Float(f64::from_be_bytes(self.take()?)),
            op::UNICODE1 | op::UNICODE4 | op::UNICODE8 => {
                let len = match opcode {
                    op::UNICODE1 => self.take::<1>()?[0].into(),
                    op::UNICODE4 => u32::from_le_bytes(self.take()?).into(),
                    _ => u64::from_le_bytes(self.take()?),
                };
                let text = std::str::from_utf8(self.take_slice(len)?).map_err(|error| self.fault(format!("a string: {error}")))?;
                Node::Str(text.into())
            }
            op::BYTES1 | op::STRING1 | op::BYTES4 | op::STRING4 | op::BYTES8 => {
                let len = match opcode {
                    op::BYTES1 | op::STRING1 => self.take::<1>()?[0].into(),
                    op::BYTES4 | op::STRING4 => u32::from_le_bytes(self.take()?).into(),
                    _ => u64::from_le_bytes(self.take()?),
                };
                Node::Bytes(self.take_slice(len)?.into())
            }
            _ => return Err(self.unsupported(format!("pickle instruction {:?} (0x{opcode:02x})", char::from(opcode)))),
        })
    }

    /// Counts items that a call copies.
    pub fn copy(&self, items: usize) -> Result<(), FormatError> {
        let left = self.copies_left.get().checked_sub(items);
        self.copies_left.set(left.ok_or_else(|| self.fault("its calls copy their arguments too often"))?);
        Ok(())
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// The items of a tuple.
    pub fn tuple(&self, id: NodeId) -> Option<Vec<&Node>> {
        match self.node(id)? {
            Node::Tuple(items) => items.iter().map(|item| self.node(*item)).collect(),
            _ => None,
        }
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<NodeId, FormatError> {
        let base = self.marks.last().copied().unwrap_or(0);
        let value = if self.stack.len() > base { self.stack.pop() } else { None };
        value.ok_or_else(|| self.fault("takes a value where there is none"))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<NodeId>, FormatError> {
        let base = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(from) if from >= base => Ok(self.stack.split_off(from)),
            _ => Err(self.fault("takes a value where there is none")),
        }
    }

    /// All values since the last mark.
    fn pop_mark(&mut self) -> Result<Vec<NodeId>, FormatError> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        let mark = mark.ok_or_else(|| self.fault("returns to a mark where there is none"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<NodeId, FormatError> {
        self.stack.last().copied().ok_or_else(|| self.fault("takes a value where there is none"))
    }

    fn top_mut(&mut self) -> Result<&mut Node, FormatError> {
        let (top, fault) = (self.top()?, self.fault("takes a value where there is none"));
        self.nodes.get_mut(top).ok_or(fault)
    }

    fn remember(&mut self, key: u32) -> Result<(), FormatError> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), FormatError> {
        let id = self.memo.get(&key).copied().ok_or_else(|| self.fault(format!("recalls value {key}, which was never stored")))?;
        self.stack.push(id);
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let bytes = self.take_slice(N as u64)?;
        bytes.try_into().map_err(|_| self.fault("an operand is short"))
    }

    fn take_slice(&mut self, len: u64) -> Result<&'a [u8], FormatError> {
        let (pickle, position) = (self.pickle, self.position);
        let end = usize::try_from(len).ok().and_then(|len| position.checked_add(len));
        let Some((end, bytes)) = end.and_then(|end| Some((end, pickle.get(position..end)?))) else {
            return Err(self.fault(format!("needs {len} bytes where {} are left", pickle.len().saturating_sub(position))));
        };
        self.position = end;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<&'a str, FormatError> {
        let rest = self.pickle.get(self.position..).unwrap_or_default();
        let len = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| self.fault("a name does not end"))?;
        let line = self.take_slice(len as u64)?;
        self.position += 1;
        std::str::from_utf8(line).map_err(|error| self.fault(format!("a name: {error}")))
    }

    /// Copies a node and all below it, at most `left` nodes and `depth` levels.
    fn tree(&self, id: NodeId, depth: usize, left: &mut usize) -> Result<PickleValue, FormatError> {
        let node = self.node(id).ok_or_else(|| self.fault("refers to nothing"))?;
        let size = if let Node::Tensor(tensor) = node { 1 + tensor.shape.len() } else { 1 };
        *left = left.checked_sub(size).ok_or_else(|| self.fault("the value is larger than the file: it refers to its parts too often"))?;
        let depth = depth.checked_sub(1).ok_or_else(|| self.fault(format!("the value nests deeper than {MAX_DEPTH} levels")))?;
        let mut items = |ids: &[NodeId]| ids.iter().map(|id| self.tree(*id, depth, left)).collect::<Result<Vec<_>, _>>();
        Ok(match node {
            Node::None => PickleValue::None,
            Node::Bool(flag) => PickleValue::Bool(*flag),
            Node::Int(number) => PickleValue::Int(*number),
            Node::Float(number) => PickleValue::Float(*number),
            Node::Str(text) => PickleValue::Str(text.clone()),
            Node::Bytes(bytes) => PickleValue::Bytes(bytes.clone()),
            Node::List(list) => PickleValue::List(items(list)?),
            Node::Tuple(tuple) => PickleValue::Tuple(items(tuple)?),
            Node::Dict { ordered, pairs } => {
                let pairs = pairs.iter().map(|(key, value)| Ok((self.tree(*key, depth, left)?, self.tree(*value, depth, left)?)));
                let pairs = pairs.collect::<Result<_, FormatError>>()?;
                if *ordered { PickleValue::OrderedDict(pairs) } else { PickleValue::Dict(pairs) }
            }
            Node::Tensor(tensor) => PickleValue::Tensor(tensor.clone()),
            Node::Global(_) | Node::Storage(_) => return Err(self.unsupported("a type or a bare storage stands where a value should")),
        })
    }
}
