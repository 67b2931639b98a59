//! The filter `tojson` as `transformers` has it: Python's `json.dumps` with `ensure_ascii=False`, without HTML's escapes.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

/// `value|tojson` and `value|tojson(indent=4)`.
pub(super) fn to_json(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    options.assert_all_used()?;
    let json =
        serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::BadSerialization, "the value has no JSON").with_source(error))?;
    let mut text = String::new();
    write(&json, indent, 0, &mut text);
    Ok(Value::from(text))
}

fn write(json: &Json, indent: Option<usize>, depth: usize, text: &mut String) {
    let line = |text: &mut String, depth: usize| {
        if let Some(indent) = indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match json {
        Json::Array(items) if !items.is_empty() => {
            text.push('[');
            for (place, item) in items.iter().enumerate() {
                text.push_str(if place > 0 { comma } else { "" });
                line(text, depth + 1);
                write(item, indent, depth + 1, text);
            }
            line(text, depth);
            text.push(']');
        }
        Json::Object(fields) if !fields.is_empty() => {
            text.push('{');
            for (place, (key, field)) in fields.iter().enumerate() {
                text.push_str(if place > 0 { comma } else { "" });
                line(text, depth + 1);
                text.push_str(&Json::from(key.as_str()).to_string());
                text.push_str(": ");
                write(field, indent, depth + 1, text);
            }
            line(text, depth);
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}
