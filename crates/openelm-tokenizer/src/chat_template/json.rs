//! The filter `tojson` as `transformers` has it: Python's `json.dumps` with `ensure_ascii=False`, without HTML's escapes.
//!
//! What must stay true: fuel pays for each part as it is written. A value can hold another at many places, so the text can be longer than
//! any memory.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use serde_json::Value as Json;

use super::python::pay;

/// Levels of lists and maps at most: Python's own limit is about a thousand.
const MAX_DEPTH: usize = 128;

/// `value|tojson` and `value|tojson(indent=4)`.
pub(super) fn to_json(state: &State<'_, '_>, value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    options.assert_all_used()?;
    let mut writer = Writer { state, indent, text: String::new() };
    writer.value(value, 0)?;
    Ok(Value::from(writer.text))
}

struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    indent: Option<usize>,
    text: String,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let brackets = match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => ("[", "]"),
            ValueKind::Map => ("{", "}"),
            _ => return self.scalar(value),
        };
        if depth == MAX_DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, format!("tojson: the value nests deeper than {MAX_DEPTH} levels")));
        }
        self.text.push_str(brackets.0);
        let mut any = false;
        for item in value.try_iter()? {
            if any {
                self.text.push_str(if self.indent.is_some() { "," } else { ", " });
            }
            any = true;
            self.line(depth + 1)?;
            if value.kind() == ValueKind::Map {
                self.scalar(&Value::from(item.to_string()))?;
                self.text.push_str(": ");
                self.value(&value.get_item(&item)?, depth + 1)?;
            } else {
                self.value(&item, depth + 1)?;
            }
        }
        if any {
            self.line(depth)?;
        }
        self.text.push_str(brackets.1);
        Ok(())
    }

    fn scalar(&mut self, value: &Value) -> Result<(), Error> {
        pay(self.state, value.as_str().map_or(0, str::len))?;
        let json: Json = serde_json::to_value(value)
            .map_err(|error| Error::new(ErrorKind::BadSerialization, "the value has no JSON").with_source(error))?;
        self.text.push_str(&json.to_string());
        Ok(())
    }

    /// A new line where there is an indentation, and that.
    fn line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = self.indent else { return Ok(()) };
        let width = indent.saturating_mul(depth);
        pay(self.state, width)?;
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', width));
        Ok(())
    }
}
