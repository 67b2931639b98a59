//! The form that a request asks its answers to have: OpenAI's `response_format`, and `structured_outputs` for what that cannot say (with
//! vLLM's names).

use serde_json::{Map, Value};

use crate::constraint::AnswerForm;
use crate::server::error::ApiError;
use crate::server::fields::{Fields, unsupported};

/// Takes both fields.
pub(super) fn form(fields: &mut Fields) -> Result<Option<AnswerForm>, ApiError> {
    let format = object(fields, "response_format")?.map(response_format).transpose()?.flatten();
    let structured = object(fields, "structured_outputs")?.map(structured_outputs).transpose()?;
    match (format, structured) {
        (Some(_), Some(_)) => {
            Err(ApiError::field("structured_outputs", "response_format and structured_outputs both ask for a form; leave one out"))
        }
        (format, structured) => Ok(format.or(structured)),
    }
}

fn object(fields: &mut Fields, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
    match fields.take(name) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(other) => Err(ApiError::field(name, format!("{name} is {other}, but must be an object"))),
    }
}

fn response_format(mut format: Map<String, Value>) -> Result<Option<AnswerForm>, ApiError> {
    const NAME: &str = "response_format";
    let form = match format.remove("type").as_ref().and_then(Value::as_str) {
        Some("text") => None,
        Some("json_object") => Some(AnswerForm::JsonObject),
        Some("json_schema") => {
            let Some(Value::Object(mut described)) = format.remove("json_schema") else {
                return Err(ApiError::field(NAME, "response_format.json_schema must be an object with a name and a schema"));
            };
            // Names and descriptions are for people; every schema is followed strictly.
            for without_effect in ["name", "description", "strict"] {
                described.remove(without_effect);
            }
            let form = described.remove("schema").map_or(AnswerForm::JsonObject, AnswerForm::JsonSchema);
            none_left("response_format.json_schema", described)?;
            Some(form)
        }
        _ => return Err(ApiError::field(NAME, "response_format.type must be text, json_object or json_schema")),
    };
    none_left(NAME, format)?;
    Ok(form)
}

fn structured_outputs(mut wanted: Map<String, Value>) -> Result<AnswerForm, ApiError> {
    const NAME: &str = "structured_outputs";
    let wrong = || ApiError::field(NAME, "structured_outputs must have one of json, regex, choice and grammar");
    wanted.retain(|_, value| !value.is_null());
    let known = ["json", "regex", "choice", "grammar"].iter().find_map(|name| wanted.remove(*name).map(|value| (*name, value)));
    let form = match known.ok_or_else(wrong)? {
        ("json", Value::String(text)) => {
            let schema = serde_json::from_str(&text);
            AnswerForm::JsonSchema(schema.map_err(|error| ApiError::field(NAME, format!("structured_outputs.json is not JSON: {error}")))?)
        }
        ("json", schema) => AnswerForm::JsonSchema(schema),
        ("regex", Value::String(regex)) => AnswerForm::Regex(regex),
        ("grammar", Value::String(grammar)) => AnswerForm::Grammar(grammar),
        ("choice", Value::Array(texts)) if !texts.is_empty() => {
            let texts: Option<Vec<String>> = texts.into_iter().map(|text| text.as_str().map(str::to_owned)).collect();
            AnswerForm::Choice(texts.ok_or_else(|| ApiError::field(NAME, "structured_outputs.choice must hold strings"))?)
        }
        ("choice", _) => return Err(ApiError::field(NAME, "structured_outputs.choice must be a list of strings that is not empty")),
        (name, _) => return Err(ApiError::field(NAME, format!("structured_outputs.{name} must be a string"))),
    };
    none_left(NAME, wanted)?;
    Ok(form)
}

fn none_left(name: &str, object: Map<String, Value>) -> Result<(), ApiError> {
    object.into_iter().next().map_or(Ok(()), |(key, _)| Err(unsupported(&format!("{name}.{key}"))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(body: Value) -> Result<Option<AnswerForm>, String> {
        let mut fields = Fields::parse(body.to_string().as_bytes()).map_err(|error| error.message)?;
        let form = form(&mut fields).map_err(|error| error.message)?;
        fields.finish().map_err(|error| error.message)?;
        Ok(form)
    }

    #[test]
    fn forms_are_read() {
        let schema = json!({"type": "integer"});
        for (body, expected) in [
            (json!({}), None),
            (json!({"response_format": null}), None),
            (json!({"response_format": {"type": "text"}}), None),
            (json!({"response_format": {"type": "json_object"}}), Some(AnswerForm::JsonObject)),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}}),
                Some(AnswerForm::JsonSchema(schema.clone())),
            ),
            (json!({"structured_outputs": {"json": schema, "regex": null}}), Some(AnswerForm::JsonSchema(schema.clone()))),
            (json!({"structured_outputs": {"json": schema.to_string()}}), Some(AnswerForm::JsonSchema(schema.clone()))),
            (json!({"structured_outputs": {"regex": "a+"}}), Some(AnswerForm::Regex("a+".into()))),
            (json!({"structured_outputs": {"grammar": "start: \"a\""}}), Some(AnswerForm::Grammar("start: \"a\"".into()))),
            (json!({"structured_outputs": {"choice": ["a", "b"]}}), Some(AnswerForm::Choice(vec!["a".into(), "b".into()]))),
        ] {
            assert_eq!(of(body.clone()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused_by_its_name() {
        for (body, name) in [
            (json!({"response_format": "json"}), "response_format is \"json\""),
            (json!({"response_format": {}}), "response_format.type"),
            (json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (json!({"response_format": {"type": "json_object", "schema": {}}}), "response_format.schema"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (json!({"response_format": {"type": "json_schema", "json_schema": {"schemas": {}}}}), "response_format.json_schema.schemas"),
            (json!({"structured_outputs": {}}), "one of json"),
            (json!({"structured_outputs": {"regex": 3}}), "structured_outputs.regex"),
            (json!({"structured_outputs": {"choice": []}}), "structured_outputs.choice"),
            (json!({"structured_outputs": {"choice": [1]}}), "structured_outputs.choice"),
            (json!({"structured_outputs": {"json": "{"}}), "structured_outputs.json"),
            (json!({"structured_outputs": {"regex": "a", "choice": ["b"]}}), "structured_outputs.choice"),
            (json!({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}), "leave one out"),
        ] {
            let reason = of(body.clone()).unwrap_err();
            assert!(reason.contains(name), "{body}: {reason}");
        }
    }
}
