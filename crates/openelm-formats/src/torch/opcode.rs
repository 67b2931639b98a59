//! The pickle instructions that `torch.save` emits (protocol 2, and what protocols 3 to 5 add). Numbers as in Python's pickle.py.

pub(super) const PROTO: u8 = 0x80;
pub(super) const FRAME: u8 = 0x95;
pub(super) const STOP: u8 = b'.';

pub(super) const MARK: u8 = b'(';
pub(super) const POP: u8 = b'0';
pub(super) const POP_MARK: u8 = b'1';

pub(super) const PUT: u8 = b'q';
pub(super) const LONG_PUT: u8 = b'r';
pub(super) const MEMOIZE: u8 = 0x94;
pub(super) const GET: u8 = b'h';
pub(super) const LONG_GET: u8 = b'j';

pub(super) const NONE: u8 = b'N';
pub(super) const NEW_TRUE: u8 = 0x88;
pub(super) const NEW_FALSE: u8 = 0x89;
pub(super) const INT4: u8 = b'J';
pub(super) const INT1: u8 = b'K';
pub(super) const INT2: u8 = b'M';
pub(super) const LONG1: u8 = 0x8a;
pub(super) const LONG4: u8 = 0x8b;
pub(super) const FLOAT: u8 = b'G';
pub(super) const UNICODE1: u8 = 0x8c;
pub(super) const UNICODE4: u8 = b'X';
pub(super) const UNICODE8: u8 = 0x8d;
pub(super) const BYTES1: u8 = b'C';
pub(super) const BYTES4: u8 = b'B';
pub(super) const BYTES8: u8 = 0x8e;
/// Strings of Python 2, without an encoding.
pub(super) const STRING1: u8 = b'U';
pub(super) const STRING4: u8 = b'T';

pub(super) const EMPTY_LIST: u8 = b']';
pub(super) const APPEND: u8 = b'a';
pub(super) const APPENDS: u8 = b'e';
pub(super) const EMPTY_TUPLE: u8 = b')';
pub(super) const TUPLE: u8 = b't';
pub(super) const TUPLE1: u8 = 0x85;
pub(super) const TUPLE2: u8 = 0x86;
pub(super) const TUPLE3: u8 = 0x87;
pub(super) const EMPTY_DICT: u8 = b'}';
pub(super) const SET_ITEM: u8 = b's';
pub(super) const SET_ITEMS: u8 = b'u';

pub(super) const GLOBAL: u8 = b'c';
pub(super) const STACK_GLOBAL: u8 = 0x93;
pub(super) const PERSISTENT_ID: u8 = b'Q';
pub(super) const REDUCE: u8 = b'R';
pub(super) const BUILD: u8 = b'b';
