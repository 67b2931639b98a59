//! Answers that must have a form, from a model whose own texts have none.

use std::sync::Arc;

use openelm_infer::Draft;
use openelm_infer::server::ServerSettings;
use serde_json::{Value, json};

use crate::answers::{streamed, text, with};
use crate::client::post;
use crate::model::{CONTEXT, decoder, serve_with, server};

const COMPLETIONS: &str = "/v1/completions";

/// A request with several seeds; its texts that came to their ends.
fn whole(form: &Value) -> Vec<String> {
    let server = server();
    let base = json!({"prompt": "the small bird", "max_tokens": 200, "temperature": 1.0, "n": 8, "seed": 3});
    let answer = post(server.address(), COMPLETIONS, &with(&base, form.clone())).ok();
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 8);
    let whole = choices.iter().filter(|choice| choice["finish_reason"] == "stop");
    whole.map(|choice| choice["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_schema_is_kept_by_every_whole_answer() {
    let schema = json!({
        "type": "object",
        "properties": {
            "kind": {"enum": ["bird", "song", "m\u{e9}lange \"x\""]},
            "count": {"type": "integer", "minimum": 3, "maximum": 17},
            "notes": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
            "name": {"type": "string", "maxLength": 6},
        },
        "required": ["kind", "count", "notes", "name"],
        "additionalProperties": false,
    });
    let texts = whole(&json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}));
    assert!(texts.len() >= 6, "{texts:?}");
    for text in texts {
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let object = value.as_object().unwrap();
        assert_eq!(object.keys().collect::<Vec<_>>(), ["kind", "count", "notes", "name"], "{text}");
        assert!(["bird", "song", "m\u{e9}lange \"x\""].contains(&object["kind"].as_str().unwrap()), "{text}");
        assert!((3..=17).contains(&object["count"].as_i64().unwrap()), "{text}");
        let notes = object["notes"].as_array().unwrap();
        assert!(notes.len() <= 3 && notes.iter().all(Value::is_boolean), "{text}");
        assert!(object["name"].as_str().unwrap().chars().count() <= 6, "{text}");
    }
}

#[test]
fn regular_expressions_choices_and_grammars_are_kept() {
    for text in whole(&json!({"structured_outputs": {"regex": "(small|large) [0-9]{2,4}\u{20ac}"}})) {
        let number = text.strip_prefix("small ").or_else(|| text.strip_prefix("large ")).and_then(|rest| rest.strip_suffix('\u{20ac}'));
        let number = number.unwrap_or_else(|| panic!("{text}"));
        assert!((2..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    }
    let choices = ["a song", "a \"song\"\n", "caf\u{e9} /\\", "a songbird"];
    let texts = whole(&json!({"structured_outputs": {"choice": choices}}));
    assert_eq!(texts.len(), 8);
    assert!(texts.iter().all(|text| choices.contains(&text.as_str())), "{texts:?}");
    let texts = whole(&json!({"structured_outputs": {"grammar": "start: \"(\" start \")\" | /[ab]/"}}));
    assert!(!texts.is_empty());
    for text in texts {
        let inner = text.trim_start_matches('(');
        let depth = text.len() - inner.len();
        assert!(inner.len() == depth + 1 && inner.trim_end_matches(')').len() == 1, "{text}");
    }
}

#[test]
fn a_form_binds_streams_chats_and_guesses_alike() {
    let draft = Draft::lookup(4);
    let guessing = serve_with(
        Arc::new(decoder()),
        Some(draft),
        ServerSettings { context: Some(CONTEXT), prefill_chunk: 24, ..ServerSettings::default() },
    );
    let plain = server();
    let form = json!({"structured_outputs": {"regex": "(the small bird sings ){3,5}of \\{\"a\": [0-9]{12}\\}"}});
    let base = with(&json!({"prompt": "the small bird", "max_tokens": 180, "temperature": 0.0}), form.clone());
    let expected = text(&post(plain.address(), COMPLETIONS, &base).ok());
    assert!(expected.starts_with("the small bird sings the small bird sings ") && expected.ends_with('}'), "{expected}");
    assert_eq!(text(&post(guessing.address(), COMPLETIONS, &base).ok()), expected);
    let chunks = post(plain.address(), COMPLETIONS, &with(&base, json!({"stream": true}))).chunks();
    assert_eq!(streamed(&chunks, 0), expected);
    let chat = with(&json!({"messages": [{"role": "user", "content": "song"}], "max_tokens": 180, "temperature": 0.0}), form);
    let answer = post(plain.address(), "/v1/chat/completions", &chat).ok();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.starts_with("the small bird sings the small bird sings ") && content.ends_with('}'), "{content}");
}

#[test]
fn json_objects_of_any_kind() {
    let texts = whole(&json!({"response_format": {"type": "json_object"}}));
    for text in &texts {
        assert!(serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{text}: {error}")).is_object());
    }
    // What a random model begins need not end, but is never anything else.
    let server = server();
    let base = json!({"prompt": "the", "max_tokens": 40, "temperature": 1.0, "n": 4, "response_format": {"type": "json_object"}});
    for choice in post(server.address(), COMPLETIONS, &base).ok()["choices"].as_array().unwrap() {
        assert!(choice["text"].as_str().unwrap().starts_with('{'), "{choice}");
    }
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let server = server();
    for (form, part) in [
        (json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "text"}}}}), "text"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {"type": "string"}}}}}), "not"),
        (json!({"structured_outputs": {"grammar": "begin: \"a\""}}), "start"),
        (json!({"structured_outputs": {"regex": "a("}}), "a("),
    ] {
        let base = json!({"prompt": "the", "max_tokens": 4});
        let reply = post(server.address(), COMPLETIONS, &with(&base, form.clone()));
        assert_eq!(reply.status, 400, "{form}");
        let error = reply.json()["error"].clone();
        assert_eq!(error["code"], "unsupported_form", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part) && message.contains("hint") && message.len() < 600, "{message}");
    }
}
