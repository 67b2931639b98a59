//! Damaged requests: an answer or an error that a client can read, at once, and the server lives.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use damaged_text::{damaged, damages};
use openelm_infer::server::Server;
use proptest::prelude::*;
use serde_json::Value;

use crate::client::{JSON, get, receive, send};
use crate::model::server;

const REQUESTS: [(&str, &str); 3] = [
    (
        "/v1/completions",
        r#"{"model": "tiny", "prompt": ["the bird", "a song"], "max_tokens": 2, "temperature": 0.7, "top_p": 0.9, "seed": 3, "n": 2,
            "logprobs": 1, "echo": true, "stop": ["sea", "z"], "stream": false, "presence_penalty": 0.5, "logit_bias": {"5": -100, "7": 2.5},
            "user": "somebody", "best_of": 2, "suffix": "", "frequency_penalty": -0.5, "repetition_penalty": 1.2, "top_k": 5}"#,
    ),
    (
        "/v1/completions",
        r#"{"prompt": [[1, 2, 3], [4, 5]], "max_tokens": 3, "structured_outputs": {"regex": "[a-z]{1,3}"}, "ignore_eos": true}"#,
    ),
    (
        "/v1/chat/completions",
        r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a bird"}]}], "max_completion_tokens": 3, "n": 1, "logprobs": true,
            "top_logprobs": 2, "stream": true, "stream_options": {"include_usage": true}, "response_format": {"type": "json_schema",
            "json_schema": {"name": "bird", "schema": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}}}}}"#,
    ),
];

fn the_server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(server)
}

#[test]
fn sound_requests_are_answered() {
    for (path, text) in REQUESTS {
        let answer = receive(send(the_server().address(), "POST", path, JSON, text.as_bytes()));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_requests_are_answered_or_refused(which in 0..REQUESTS.len(), damages in damages()) {
        let (path, text) = REQUESTS[which];
        let body = damaged(text, &damages);
        let begin = Instant::now();
        let answer = receive(send(the_server().address(), "POST", path, JSON, body.as_bytes()));
        prop_assert!(begin.elapsed() < Duration::from_secs(10), "{:?} for {body}", begin.elapsed());
        if answer.status != 200 {
            prop_assert!((400..500).contains(&answer.status), "{} {} for {body}", answer.status, answer.body);
            let error: Value = serde_json::from_str(&answer.body).unwrap();
            prop_assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{error} for {body}");
        }
        prop_assert_eq!(get(the_server().address(), "/health").status, 200);
    }
}
