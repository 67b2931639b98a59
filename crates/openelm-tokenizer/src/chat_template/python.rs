//! Python's methods of texts and maps, which templates call and Jinja itself does not define.
//!
//! What must stay true: what a method makes is paid for before it is made, where it can be much longer than what it is made of.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

/// Calls `value.method(arguments)`.
///
/// # Errors
/// When there is no such method, or it does not take these arguments.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => of_text(state, text, method, arguments),
        (None, ValueKind::Map) => of_map(state, value, method, arguments),
        _ => Err(unknown(value, method)),
    }
}

/// Takes the fuel that text of so many bytes costs: as much as Jinja's own operations, and one for the step.
pub(super) fn pay(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(1 + bytes as u64 / 64)
}

fn unknown(value: &Value, method: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("a {} has no method {method}", value.kind()))
}

fn of_text(state: &State<'_, '_>, text: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let none = || from_args::<()>(arguments);
    Ok(match method {
        "strip" => Value::from(strip(text, arguments, true, true)?),
        "lstrip" => Value::from(strip(text, arguments, true, false)?),
        "rstrip" => Value::from(strip(text, arguments, false, true)?),
        "upper" => none().map(|()| Value::from(text.to_uppercase()))?,
        "lower" => none().map(|()| Value::from(text.to_lowercase()))?,
        "capitalize" => none().map(|()| Value::from(capitalized(text)))?,
        "title" => none().map(|()| Value::from(text.split_inclusive(' ').map(capitalized).collect::<String>()))?,
        "isdigit" => none().map(|()| Value::from(!text.is_empty() && text.chars().all(char::is_numeric)))?,
        "startswith" => Value::from(any_of(arguments, |part| text.starts_with(part))?),
        "endswith" => Value::from(any_of(arguments, |part| text.ends_with(part))?),
        "find" => {
            let (part,): (&str,) = from_args(arguments)?;
            Value::from(text.find(part).map_or(-1, |byte| text[..byte].chars().count() as i64))
        }
        "count" => {
            let (part,): (&str,) = from_args(arguments)?;
            Value::from(text.matches(part).count())
        }
        "replace" => {
            let (old, new, times): (&str, &str, Option<usize>) = from_args(arguments)?;
            let times = times.unwrap_or(usize::MAX);
            pay(state, text.matches(old).take(times).count().saturating_mul(new.len()))?;
            Value::from(text.replacen(old, new, times))
        }
        "split" => split(text, arguments)?,
        "splitlines" => none().map(|()| text.lines().collect::<Value>())?,
        "join" => {
            let (parts,): (Value,) = from_args(arguments)?;
            let mut joined = String::new();
            for (place, part) in parts.try_iter()?.enumerate() {
                let part = part.to_string();
                pay(state, text.len().saturating_add(part.len()))?;
                joined.push_str(if place > 0 { text } else { "" });
                joined.push_str(&part);
            }
            Value::from(joined)
        }
        "removeprefix" => from_args::<(&str,)>(arguments).map(|(part,)| Value::from(text.strip_prefix(part).unwrap_or(text)))?,
        "removesuffix" => from_args::<(&str,)>(arguments).map(|(part,)| Value::from(text.strip_suffix(part).unwrap_or(text)))?,
        _ => return Err(unknown(&Value::from(text), method)),
    })
}

fn of_map(state: &mut State<'_, '_>, map: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match method {
        "get" => {
            let (key, otherwise): (Value, Option<Value>) = from_args(arguments)?;
            let found = map.get_item(&key)?;
            Ok(if found.is_undefined() { otherwise.unwrap_or_else(|| Value::from(())) } else { found })
        }
        "keys" => from_args::<()>(arguments).and_then(|()| Ok(map.try_iter()?.collect())),
        "values" => {
            let () = from_args(arguments)?;
            map.try_iter()?.map(|key| map.get_item(&key)).collect()
        }
        "items" => from_args::<()>(arguments).and_then(|()| state.apply_filter("items", std::slice::from_ref(map))),
        _ => Err(unknown(map, method)),
    }
}

/// Without the given characters, or white space, at the ends.
fn strip<'a>(text: &'a str, arguments: &[Value], start: bool, end: bool) -> Result<&'a str, Error> {
    let (set,): (Option<&str>,) = from_args(arguments)?;
    let goes = |c: char| set.map_or_else(|| c.is_whitespace(), |set| set.contains(c));
    let text = if start { text.trim_start_matches(goes) } else { text };
    Ok(if end { text.trim_end_matches(goes) } else { text })
}

/// A text, or one of several.
fn any_of(arguments: &[Value], holds: impl Fn(&str) -> bool) -> Result<bool, Error> {
    let (parts,): (Value,) = from_args(arguments)?;
    match parts.as_str() {
        Some(part) => Ok(holds(part)),
        None => Ok(parts.try_iter()?.any(|part| part.as_str().is_some_and(&holds))),
    }
}

fn split(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (separator, times): (Option<&str>, Option<i64>) = from_args(arguments)?;
    let parts = times.and_then(|times| usize::try_from(times).ok()).map_or(usize::MAX, |times| times.saturating_add(1));
    match separator {
        Some("") => Err(Error::new(ErrorKind::InvalidOperation, "split: the separator is empty")),
        Some(separator) => Ok(text.splitn(parts, separator).collect()),
        None if parts == usize::MAX => Ok(text.split_whitespace().collect()),
        None => Err(Error::new(ErrorKind::InvalidOperation, "split: a number of times needs a separator")),
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters.flat_map(char::to_lowercase)).collect())
}
