//! The chat template in a folder of Hugging Face's layout.

use std::path::Path;

use serde_json::Value;

use crate::error::CheckpointError;

/// `chat_template.jinja`, or else the template in `tokenizer_config.json`; of several named ones the one called default.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn chat_template_of(folder: &Path) -> Result<Option<String>, CheckpointError> {
    let read = |name: &str| {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CheckpointError::io(&path, "reading it", source)),
        }
    };
    if let Some((_, template)) = read("chat_template.jinja")? {
        return Ok(Some(template));
    }
    let Some((path, text)) = read("tokenizer_config.json")? else { return Ok(None) };
    let config: Value = serde_json::from_str(&text).map_err(|error| CheckpointError::Config {
        path,
        reason: error.to_string(),
        hint: "the file must be JSON; fetch it again".into(),
    })?;
    Ok(match config.get("chat_template") {
        Some(Value::String(template)) => Some(template.clone()),
        Some(Value::Array(named)) => named
            .iter()
            .find(|entry| entry.get("name").is_some_and(|name| name == "default"))
            .and_then(|entry| entry.get("template")?.as_str().map(str::to_owned)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_file_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let template = || chat_template_of(folder.path()).map_err(|error| error.to_string());
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(template(), Ok(None));
        put("tokenizer_config.json", "{");
        assert!(template().unwrap_err().contains("tokenizer_config.json"));
        put("tokenizer_config.json", r#"{"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#);
        assert_eq!(template(), Ok(Some("d".into())));
        put("chat_template.jinja", "own");
        assert_eq!(template(), Ok(Some("own".into())));
    }
}
