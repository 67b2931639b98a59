//! Guesses of the next tokens change how fast answers come, and nothing in them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openelm_infer::server::ServerSettings;
use openelm_infer::{Decoder, Draft};
use serde_json::{Value, json};

use crate::answers::{COMPLETIONS, streamed, with};
use crate::client::{get, post};
use crate::model::{Bent, CONTEXT, decoder, serve_with, server};

fn counted(address: SocketAddr, name: &str) -> f64 {
    let metrics = get(address, "/metrics").body;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
}

fn requests() -> Vec<Value> {
    let sea = "the song of the sea, the song of the sea, the song of";
    vec![
        json!({"prompt": sea, "max_tokens": 40, "temperature": 0}),
        json!({"prompt": "every answer", "max_tokens": 40, "temperature": 0, "logprobs": 3}),
        json!({"prompt": sea, "max_tokens": 25, "temperature": 1, "seed": 4, "n": 3, "logprobs": 1}),
        json!({"prompt": ["bird", "small"], "max_tokens": 30, "temperature": 0, "stop": ["e", "zz"], "echo": true, "logprobs": 0}),
        json!({"prompt": "x", "max_tokens": 50, "temperature": 0, "frequency_penalty": 0.3, "repetition_penalty": 1.1}),
        json!({"prompt": "x", "max_tokens": 50, "temperature": 0.7, "top_p": 0.9, "seed": 2, "stop": "s"}),
        // To the end of the context.
        json!({"prompt": sea.repeat(3), "max_tokens": 400, "temperature": 0, "ignore_eos": true}),
        json!({"prompt": sea, "max_tokens": 1, "temperature": 0}),
    ]
}

/// Equal but for rounding.
fn same(one: &Value, other: &Value) {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len());
            one.iter().zip(other).for_each(|(one, other)| same(one, other));
        }
        (Value::Object(one), Value::Object(other)) => {
            assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
            one.values().zip(other.values()).for_each(|(one, other)| same(one, other));
        }
        (Value::Number(one), Value::Number(other)) => {
            assert!((one.as_f64().unwrap() - other.as_f64().unwrap()).abs() < 1e-4, "{one} {other}");
        }
        _ => assert_eq!(one, other),
    }
}

#[test]
fn answers_are_those_without_guesses() {
    let plain = server();
    let expected: Vec<Value> =
        requests().iter().map(|request| post(plain.address(), COMPLETIONS, request).ok()["choices"].clone()).collect();
    assert_eq!(counted(plain.address(), "openelm_guessed_tokens_total "), 0.0);
    let model: Arc<dyn Decoder> = Arc::new(decoder());
    for (slots, draft) in
        [(4, Draft::lookup(5)), (1, Draft::lookup(20)), (6, Draft::lookup(3)), (3, Draft::model(Arc::clone(&model), &*model, 4).unwrap())]
    {
        let kind = format!("{draft:?}");
        let settings = ServerSettings { slots, context: Some(CONTEXT), prefill_chunk: 24, ..ServerSettings::default() };
        let server = serve_with(Arc::clone(&model), Some(draft), settings);
        let address = server.address();
        std::thread::scope(|scope| {
            for (request, expected) in requests().into_iter().zip(&expected) {
                scope.spawn(move || {
                    same(&post(address, COMPLETIONS, &request).ok()["choices"], expected);
                    let chunks = post(address, COMPLETIONS, &with(&request, json!({"stream": true}))).chunks();
                    for (index, choice) in expected.as_array().unwrap().iter().enumerate() {
                        assert_eq!(streamed(&chunks, index), choice["text"].as_str().unwrap());
                    }
                });
            }
        });
        let (guessed, accepted) = (counted(address, "openelm_guessed_tokens_total "), counted(address, "openelm_accepted_tokens_total "));
        assert!(guessed >= accepted && accepted > 30.0, "{kind}, {slots} slots: {accepted} of {guessed}");
    }
}

#[test]
fn a_sure_guess_saves_steps() {
    let model: Arc<dyn Decoder> = Arc::new(decoder());
    let draft = Draft::model(Arc::clone(&model), &*model, 4).unwrap();
    let settings = ServerSettings { slots: 1, context: Some(CONTEXT), ..ServerSettings::default() };
    let server = serve_with(model, Some(draft), settings);
    post(server.address(), COMPLETIONS, &json!({"prompt": "the small bird", "max_tokens": 51, "temperature": 0, "ignore_eos": true})).ok();
    // The prompt with the first token, then five tokens a step. The last step may end after its answer is told.
    assert!(counted(server.address(), "openelm_step_seconds_count ") <= 11.0);
    assert_eq!(counted(server.address(), "openelm_accepted_tokens_total "), 40.0);
}

#[test]
fn a_draft_reads_a_conversation_once() {
    let model: Arc<dyn Decoder> = Arc::new(decoder());
    let small = Arc::new(Bent::new(Duration::ZERO));
    let draft = Draft::model(Arc::clone(&small) as Arc<dyn Decoder>, &*model, 4).unwrap();
    let settings = ServerSettings { slots: 1, context: Some(CONTEXT), ..ServerSettings::default() };
    let server = serve_with(model, Some(draft), settings);
    let mut text = "the song of the sea, the song of the sea, the song of the small bird".to_owned();
    let plain = crate::model::server();
    for turn in 0..3 {
        let request = json!({"prompt": text, "max_tokens": 12, "temperature": 0, "ignore_eos": true});
        let before = small.tokens.load(Ordering::SeqCst);
        let answer = post(server.address(), COMPLETIONS, &request).ok();
        same(&answer["choices"], &post(plain.address(), COMPLETIONS, &request).ok()["choices"]);
        let read = small.tokens.load(Ordering::SeqCst) - before;
        let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
        // What is new in the prompt, and what it guessed; in the first turn the whole prompt.
        match turn {
            0 => assert!(read >= prompt, "{read} of {prompt}"),
            _ => assert!(read < prompt, "{read} of {prompt} in turn {turn}"),
        }
        text += answer["choices"][0]["text"].as_str().unwrap();
        text += " a song";
    }
}

#[test]
fn a_draft_that_fails_ends_its_own_answer() {
    let model: Arc<dyn Decoder> = Arc::new(decoder());
    let small = Arc::new(Bent::new(Duration::ZERO));
    let draft = Draft::model(Arc::clone(&small) as Arc<dyn Decoder>, &*model, 4).unwrap();
    let settings = ServerSettings { context: Some(CONTEXT), ..ServerSettings::default() };
    let server = serve_with(model, Some(draft), settings);
    let request = json!({"prompt": "the small bird", "max_tokens": 20, "temperature": 0});
    let whole = post(server.address(), COMPLETIONS, &request).ok();
    small.fails.store(true, Ordering::SeqCst);
    assert_eq!(post(server.address(), COMPLETIONS, &request).status, 500);
    same(&post(server.address(), COMPLETIONS, &request).ok()["choices"], &whole["choices"]);
}
