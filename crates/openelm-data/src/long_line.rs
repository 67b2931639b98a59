//! One JSON object on a line too long to hold: the text under a key is given in parts while the line is read.
//!
//! Short lines are checked as a whole before their text is used (`pick_text.rs`). Here the text comes first and the rest of the
//! line is checked before the last part is given. Values under other keys are passed over by their brackets and strings alone.
//! The line ends at its first '\n', which cannot stand in JSON text.

use std::io::{BufRead, Error};

use crate::part::{PART_BYTES, part_end};

/// Longer keys are not the wanted one.
const KEY_BYTES: usize = 64 << 10;
/// Nesting that is followed.
const DEPTH: usize = 512;

/// Why a long line cannot be read.
#[derive(Debug)]
pub(crate) enum LongLineError {
    Io(Error),
    /// The byte of the line, from 1, and what is wrong there.
    NotJson(u64, &'static str),
    /// The byte of the text.
    NotUtf8(usize),
    MissingKey,
    NotText(&'static str),
}

impl From<Error> for LongLineError {
    fn from(error: Error) -> Self {
        Self::Io(error)
    }
}

/// A line whose text is being read.
pub(crate) struct LongLine {
    /// What was read of the line before it was found to be long.
    head: Vec<u8>,
    at: usize,
    /// Bytes of the line read so far.
    pub bytes: u64,
    /// Its line break was read.
    pub ended: bool,
    /// Text that is not given yet.
    text: Vec<u8>,
    /// Bytes of the text given before.
    given: usize,
    begun: bool,
    closed: bool,
}

impl LongLine {
    pub fn new(head: Vec<u8>) -> Self {
        Self { head, at: 0, bytes: 0, ended: false, text: Vec::new(), given: 0, begun: false, closed: false }
    }

    /// The next part of the text under `key`, and whether it is the last one.
    pub fn next_part(&mut self, input: &mut dyn BufRead, key: &str) -> Result<(String, bool), LongLineError> {
        if !self.begun {
            self.enter(input, key)?;
            self.begun = true;
        }
        // A part's end is found once a byte more than a part is there.
        while !self.closed && self.text.len() <= PART_BYTES + 4 {
            self.read_text(input)?;
        }
        if self.closed && self.text.len() <= PART_BYTES {
            self.leave(input, key)?;
        }
        let valid = match std::str::from_utf8(&self.text) {
            Ok(text) => text,
            // A character that is not all there yet.
            Err(error) if error.error_len().is_none() && !self.closed => {
                std::str::from_utf8(&self.text[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(error) => return Err(LongLineError::NotUtf8(self.given + error.valid_up_to())),
        };
        let end = part_end(valid, 0);
        let last = self.closed && end == self.text.len();
        let part = valid[..end].to_owned();
        self.text.drain(..end);
        self.given += end;
        Ok((part, last))
    }

    /// Passes over what is left of the line.
    pub fn pass(&mut self, input: &mut dyn BufRead) -> Result<(), Error> {
        while !self.ended {
            let chunk = self.fill(input)?;
            if chunk.is_empty() {
                self.ended = true;
                break;
            }
            let (length, ends) = match memchr::memchr(b'\n', chunk) {
                Some(at) => (at + 1, true),
                None => (chunk.len(), false),
            };
            self.consume(input, length);
            self.ended = ends;
        }
        Ok(())
    }

    fn fill<'a>(&'a self, input: &'a mut dyn BufRead) -> Result<&'a [u8], Error> {
        if self.at < self.head.len() { Ok(&self.head[self.at..]) } else { input.fill_buf() }
    }

    fn consume(&mut self, input: &mut dyn BufRead, count: usize) {
        self.bytes += count as u64;
        if self.at < self.head.len() {
            self.at += count;
            if self.at >= self.head.len() {
                (self.head, self.at) = (Vec::new(), 0);
            }
        } else {
            input.consume(count);
        }
    }

    /// The next byte of the line; `None` at its end.
    fn byte(&mut self, input: &mut dyn BufRead) -> Result<Option<u8>, LongLineError> {
        if self.ended {
            return Ok(None);
        }
        let byte = self.fill(input)?.first().copied();
        match byte {
            None | Some(b'\n') => {
                if byte.is_some() {
                    self.consume(input, 1);
                }
                self.ended = true;
                Ok(None)
            }
            Some(byte) => {
                self.consume(input, 1);
                Ok(Some(byte))
            }
        }
    }

    fn wrong<T>(&self, reason: &'static str) -> Result<T, LongLineError> {
        Err(LongLineError::NotJson(self.bytes, reason))
    }

    /// The next byte that is not white space.
    fn token(&mut self, input: &mut dyn BufRead) -> Result<u8, LongLineError> {
        loop {
            match self.byte(input)? {
                Some(b' ' | b'\t' | b'\r') => {}
                Some(byte) => return Ok(byte),
                None => return self.wrong("the line ends inside it"),
            }
        }
    }

    /// Reads up to the first byte of the text.
    fn enter(&mut self, input: &mut dyn BufRead, key: &str) -> Result<(), LongLineError> {
        if self.token(input)? != b'{' {
            return self.wrong("the line holds something else");
        }
        let mut next = self.token(input)?;
        if next == b'}' {
            return Err(LongLineError::MissingKey);
        }
        loop {
            if self.member(input, next, key)? {
                return match self.token(input)? {
                    b'"' => Ok(()),
                    b'{' => Err(LongLineError::NotText("an object")),
                    b'[' => Err(LongLineError::NotText("a list")),
                    b't' | b'f' => Err(LongLineError::NotText("a boolean")),
                    b'n' => Err(LongLineError::NotText("null")),
                    b'-' | b'0'..=b'9' => Err(LongLineError::NotText("a number")),
                    _ => self.wrong("expected value"),
                };
            }
            let first = self.token(input)?;
            match self.value(input, first)? {
                b',' => next = self.token(input)?,
                b'}' => return Err(LongLineError::MissingKey),
                _ => return self.wrong("expected `,` or `}`"),
            }
        }
    }

    /// Reads the rest of the line after the text.
    fn leave(&mut self, input: &mut dyn BufRead, key: &str) -> Result<(), LongLineError> {
        if self.ended {
            return Ok(());
        }
        let mut next = self.token(input)?;
        while next == b',' {
            let quote = self.token(input)?;
            if self.member(input, quote, key)? {
                return self.wrong("the key stands twice in a line too long to hold");
            }
            let first = self.token(input)?;
            next = self.value(input, first)?;
        }
        if next != b'}' {
            return self.wrong("expected `,` or `}`");
        }
        while let Some(byte) = self.byte(input)? {
            if !byte.is_ascii_whitespace() {
                return self.wrong("trailing characters");
            }
        }
        Ok(())
    }

    /// A key and its colon; true when it is the wanted one.
    fn member(&mut self, input: &mut dyn BufRead, quote: u8, key: &str) -> Result<bool, LongLineError> {
        if quote != b'"' {
            return self.wrong("key must be a string");
        }
        let mut name = Vec::new();
        while !self.string(input, &mut name)? {
            name.truncate(KEY_BYTES);
        }
        if self.token(input)? != b':' {
            return self.wrong("expected `:`");
        }
        Ok(name == key.as_bytes())
    }

    /// Passes over a value that begins with `first`; the byte after it.
    fn value(&mut self, input: &mut dyn BufRead, first: u8) -> Result<u8, LongLineError> {
        let mut open = Vec::new();
        let mut byte = first;
        let mut ignored = Vec::new();
        loop {
            match byte {
                b'"' => {
                    while !self.string(input, &mut ignored)? {
                        ignored.clear();
                    }
                    ignored.clear();
                }
                b'{' | b'[' if open.len() < DEPTH => open.push(byte),
                b'{' | b'[' => return self.wrong("recursion limit exceeded"),
                b'}' | b']' if open.last().is_some_and(|open| open + 2 == byte) => {
                    open.pop();
                }
                b',' | b':' if !open.is_empty() => {}
                b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E' => {}
                _ => return self.wrong("expected value"),
            }
            byte = self.token(input)?;
            if open.is_empty() && matches!(byte, b',' | b'}') {
                return Ok(byte);
            }
        }
    }

    fn read_text(&mut self, input: &mut dyn BufRead) -> Result<(), LongLineError> {
        let mut text = std::mem::take(&mut self.text);
        let closed = self.string(input, &mut text);
        self.text = text;
        self.closed = closed?;
        Ok(())
    }

    /// Appends some of a string's content, unescaped; true once its closing quote was read.
    fn string(&mut self, input: &mut dyn BufRead, out: &mut Vec<u8>) -> Result<bool, LongLineError> {
        let chunk = self.fill(input)?;
        let chunk = &chunk[..chunk.len().min(64 << 10)];
        let plain = memchr::memchr2(b'"', b'\\', chunk).unwrap_or(chunk.len());
        let plain = chunk[..plain].iter().position(|byte| *byte < b' ').unwrap_or(plain);
        out.extend_from_slice(&chunk[..plain]);
        self.consume(input, plain);
        if plain > 0 {
            return Ok(false);
        }
        match self.byte(input)? {
            None => self.wrong("the line ends inside it"),
            Some(b'"') => Ok(true),
            Some(b'\\') => self.escape(input, out).map(|()| false),
            Some(_) => self.wrong("control character (\\u0000-\\u001F) found while parsing a string"),
        }
    }

    fn escape(&mut self, input: &mut dyn BufRead, out: &mut Vec<u8>) -> Result<(), LongLineError> {
        let plain = match self.byte(input)? {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let mut code = self.hex(input)?;
                if (0xd800..0xdc00).contains(&code) {
                    if self.byte(input)? != Some(b'\\') || self.byte(input)? != Some(b'u') {
                        return self.wrong("unexpected end of hex escape");
                    }
                    let low = self.hex(input)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return self.wrong("lone leading surrogate in hex escape");
                    }
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                let Some(c) = char::from_u32(code) else { return self.wrong("lone leading surrogate in hex escape") };
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return self.wrong("invalid escape"),
        };
        out.push(plain);
        Ok(())
    }

    fn hex(&mut self, input: &mut dyn BufRead) -> Result<u32, LongLineError> {
        let mut code = 0;
        for _ in 0..4 {
            match self.byte(input)?.and_then(|byte| char::from(byte).to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return self.wrong("invalid escape"),
            }
        }
        Ok(code)
    }
}
