//! The part of Python's `str.format` that CoreNet's file patterns use: `{file_id}`, `{file_id:5d}`, `{file_id:05d}`, `{{`, `}}`.
//!
//! Anything else in braces is an error, never passed through.

/// Puts `file_id` into `pattern`. The error is a reason without the pattern.
pub(crate) fn format_file_id(pattern: &str, file_id: u64) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            out.push_str(&tail[..1]);
            rest = &tail[2..];
            continue;
        }
        if tail.starts_with('}') {
            return Err(format!("has a single '}}' at byte {}", pattern.len() - tail.len()));
        }
        let Some(end) = tail.find('}') else {
            return Err("has a '{' that is never closed".into());
        };
        out.push_str(&field(&tail[1..end], file_id)?);
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// True when the pattern has a `{file_id}` field.
pub(crate) fn has_file_id(pattern: &str) -> bool {
    pattern.replace("{{", "").contains("{file_id")
}

fn field(inside: &str, file_id: u64) -> Result<String, String> {
    let unknown = || format!("has {{{inside}}}, but only {{file_id}}, {{file_id:5d}} and {{file_id:05d}} are known");
    let spec = match inside.strip_prefix("file_id").ok_or_else(unknown)? {
        "" => return Ok(file_id.to_string()),
        spec => spec.strip_prefix(':').ok_or_else(unknown)?,
    };
    let digits = spec.strip_suffix('d').unwrap_or(spec);
    if digits.is_empty() {
        return Ok(file_id.to_string());
    }
    let width: usize = digits.parse().ok().filter(|width| *width <= 64).ok_or_else(unknown)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(unknown());
    }
    Ok(if digits.starts_with('0') { format!("{file_id:0width$}") } else { format!("{file_id:width$}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_python_does() {
        let cases = [
            ("a-{file_id:05d}-of-2", "a-00042-of-2"),
            ("a-{file_id:04d}.gz", "a-0042.gz"),
            ("a-{file_id}", "a-42"),
            ("{file_id:d}", "42"),
            ("[{file_id:5d}]", "[   42]"),
            ("{{x}}{file_id}", "{x}42"),
            ("plain", "plain"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(format_file_id(pattern, 42).as_deref(), Ok(expected));
        }
        assert_eq!(format_file_id("{file_id:02d}", 12345).as_deref(), Ok("12345"));
    }

    #[test]
    fn refuses_the_rest() {
        for pattern in ["{id}", "{file_id:x}", "{file_id:+5d}", "a}", "{file_id", "{}", "{file_id!r}"] {
            assert!(format_file_id(pattern, 1).is_err(), "{pattern}");
        }
    }
}
