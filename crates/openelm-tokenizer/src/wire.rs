//! The protobuf wire format: as much of it as a SentencePiece model needs.
//!
//! A reader borrows from the bytes it was given and allocates nothing, so a length that lies cannot cost memory: it is compared
//! with the bytes that are left before anything is taken.

/// One value with its field number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// What is wrong with the bytes, and where (from the beginning of the file).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WireError {
    pub offset: usize,
    pub reason: String,
}

/// The fields of one message, in file order.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Where `bytes` begins in the file.
    base: usize,
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, position: 0, base }
    }

    /// Where the next field starts in the file.
    pub fn offset(&self) -> usize {
        self.base + self.position
    }

    /// The next field's number and value, with the place of a nested message's first byte; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(u64, Value<'a>, usize)>, WireError> {
        if self.position == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = tag >> 3;
        if field == 0 || field > 0x1fff_ffff {
            return Err(self.error(format!("field number {field} is not possible")));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let left = (self.bytes.len() - self.position) as u64;
                if length > left {
                    return Err(self.error(format!("field {field} claims {length} bytes, {left} are left")));
                }
                Value::Bytes(self.take(length as usize)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(self.error(format!("field {field} has wire type {other}, which is not used in such files"))),
        };
        let start = match value {
            Value::Bytes(bytes) => self.offset() - bytes.len(),
            _ => self.offset(),
        };
        Ok(Some((field, value, start)))
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return Err(self.error("a number is longer than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error("a number is longer than 64 bits"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.error("the file ends inside a number"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.position.checked_add(length).filter(|end| *end <= self.bytes.len());
        match end.and_then(|end| self.bytes.get(self.position..end)) {
            Some(bytes) => {
                self.position += length;
                Ok(bytes)
            }
            None => Err(self.error("the file ends inside a field")),
        }
    }

    fn error(&self, reason: impl Into<String>) -> WireError {
        WireError { offset: self.offset(), reason: reason.into() }
    }
}

/// Builds a message.
#[derive(Default)]
pub(crate) struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A number, bool or enum. A negative one takes its two's complement in 64 bits, as protobuf's int32 does.
    pub fn number(&mut self, field: u64, value: i64) {
        self.varint(field << 3);
        self.varint(value as u64);
    }

    pub fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A string, bytes or a nested message.
    pub fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut writer = Writer::default();
        writer.number(1, 300);
        writer.number(43, -1);
        writer.float(2, -1.5);
        writer.bytes(3, b"abc");
        let mut fields = Fields::new(&writer.bytes, 0);
        assert_eq!(fields.next().unwrap().unwrap().1, Value::Varint(300));
        assert_eq!(fields.next().unwrap().unwrap(), (43, Value::Varint(u64::MAX), 15));
        assert_eq!(fields.next().unwrap().unwrap().1, Value::Fixed32((-1.5f32).to_bits()));
        assert_eq!(fields.next().unwrap().unwrap().1, Value::Bytes(b"abc"));
        assert_eq!(fields.next().unwrap(), None);
    }

    #[test]
    fn every_cut_is_an_error_or_a_shorter_message() {
        let mut writer = Writer::default();
        writer.bytes(1, b"some bytes");
        for cut in 1..writer.bytes.len() {
            assert!(Fields::new(&writer.bytes[..cut], 0).next().is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_lying_length_is_an_error() {
        let bytes = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let error = Fields::new(&bytes, 7).next().unwrap_err();
        assert_eq!((error.offset, error.reason.as_str()), (18, "field 1 claims 18446744073709551615 bytes, 0 are left"));
        let eleven = [0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert!(Fields::new(&eleven, 0).next().is_err());
        assert!(Fields::new(&[0x0b], 0).next().is_err(), "groups are refused");
    }
}
