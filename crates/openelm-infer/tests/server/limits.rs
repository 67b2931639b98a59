//! What clients do not get, and what a server bears.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use openelm_infer::server::{ServedModel, Server, ServerSettings};
use openelm_tokenizer::ChatTemplate;
use serde_json::{Value, json};

use crate::client::{JSON, get, post, receive, send};
use crate::model::{Bent, CONTEXT, serve, server, slow_server, tokenizer};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const STEP: Duration = Duration::from_millis(20);

/// A request that takes a while on a slow server.
fn long() -> Value {
    json!({"prompt": "the small bird", "max_tokens": 200, "temperature": 0, "ignore_eos": true})
}

fn short() -> Value {
    json!({"prompt": "the", "max_tokens": 1, "temperature": 0})
}

/// The value of a metric.
fn metric(server: &Server, name: &str) -> f64 {
    let text = get(server.address(), "/metrics").body;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_else(|| panic!("{name} is not in {text}"))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn wrong_requests_name_what_is_wrong() {
    let server = server();
    let message = json!([{"role": "user", "content": "x"}]);
    let too_long = "the ".repeat(CONTEXT);
    for (path, body, status, param, part) in [
        (COMPLETIONS, json!({}), 400, "prompt", "missing"),
        (COMPLETIONS, json!([1]), 400, "", "JSON object"),
        (COMPLETIONS, json!({"prompt": "x", "model": "gpt-4"}), 404, "model", "this server has \"tiny\""),
        (COMPLETIONS, json!({"prompt": {"a": 1}}), 400, "prompt", "string"),
        (COMPLETIONS, json!({"prompt": []}), 400, "prompt", "empty"),
        (COMPLETIONS, json!({"prompt": [[]]}), 400, "prompt", "no tokens"),
        (COMPLETIONS, json!({"prompt": [1, 99999]}), 400, "prompt", "99999 is outside the model's vocabulary"),
        (COMPLETIONS, json!({"prompt": [1, -1]}), 400, "prompt", "token ids"),
        (COMPLETIONS, json!({"prompt": [5_000_000_000_u64]}), 400, "prompt", "token ids"),
        (COMPLETIONS, json!({"prompt": too_long}), 400, "prompt", "the context holds 256"),
        (COMPLETIONS, json!({"prompt": "x", "max_tokens": 0}), 400, "max_tokens", "from 1"),
        (COMPLETIONS, json!({"prompt": "x", "max_tokens": 1.5}), 400, "max_tokens", "whole number"),
        (COMPLETIONS, json!({"prompt": "x", "temperature": -1}), 400, "temperature", "from 0"),
        (COMPLETIONS, json!({"prompt": "x", "temperature": "hot"}), 400, "temperature", "number"),
        (COMPLETIONS, json!({"prompt": "x", "top_p": 0}), 400, "", "top_p is 0"),
        (COMPLETIONS, json!({"prompt": "x", "n": 0}), 400, "n", "from 1"),
        (COMPLETIONS, json!({"prompt": ["x", "y"], "n": 100}), 400, "n", "several requests"),
        (COMPLETIONS, json!({"prompt": "x", "stop": [""]}), 400, "stop", "empty"),
        (COMPLETIONS, json!({"prompt": "x", "stop": vec!["a"; 17]}), 400, "stop", "16 are the most"),
        (COMPLETIONS, json!({"prompt": "x", "stop": 3}), 400, "stop", "list of strings"),
        (COMPLETIONS, json!({"prompt": "x", "logit_bias": {"the": 1}}), 400, "logit_bias", "\"the\""),
        (COMPLETIONS, json!({"prompt": "x", "logit_bias": {"1": 101}}), 400, "logit_bias", "-100 to 100"),
        (COMPLETIONS, json!({"prompt": "x", "logprobs": 21}), 400, "logprobs", "to 20"),
        (COMPLETIONS, json!({"prompt": "x", "echo": "all"}), 400, "echo", "true or false"),
        (COMPLETIONS, json!({"prompt": "x", "best_of": 4}), 400, "best_of", "not supported"),
        (COMPLETIONS, json!({"prompt": "x", "suffix": "y"}), 400, "suffix", "not supported"),
        (COMPLETIONS, json!({"prompt": "x", "stream_options": {}}), 400, "stream_options", "streams alone"),
        (COMPLETIONS, json!({"prompt": "x", "messages": message}), 400, "messages", "not supported"),
        (COMPLETIONS, json!({"prompt": "x", "guided_json": {}}), 400, "guided_json", "not supported"),
        (CHAT, json!({"prompt": "x"}), 400, "messages", "missing"),
        (CHAT, json!({"messages": []}), 400, "messages", "empty"),
        (CHAT, json!({"messages": ["x"]}), 400, "messages[0]", "no object"),
        (CHAT, json!({"messages": [{"role": "user"}]}), 400, "messages[0]", "no content"),
        (CHAT, json!({"messages": [{"role": "tool", "content": "x"}]}), 400, "messages", "the role is tool"),
        (CHAT, json!({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}), 400, "messages[0].name", "not supported"),
        (CHAT, json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), 400, "messages[0]", "text alone"),
        (CHAT, json!({"messages": message, "tools": [{"type": "function"}]}), 400, "tools", "not supported"),
        (CHAT, json!({"messages": message, "response_format": {"type": "xml"}}), 400, "response_format", "json_schema"),
        (CHAT, json!({"messages": message, "structured_outputs": {"regex": "("}}), 400, "response_format", "form of the answer"),
        (CHAT, json!({"messages": message, "top_logprobs": 3}), 400, "top_logprobs", "logprobs to be true"),
        (CHAT, json!({"messages": message, "reasoning_effort": "high"}), 400, "reasoning_effort", "not supported"),
    ] {
        let reply = post(server.address(), path, &body);
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        let error = &reply.json()["error"];
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    for (headers, body, status, part) in [
        (JSON, &b"{\"prompt\": "[..], 400, "not JSON"),
        (JSON, b"\xff\xfe", 400, "not JSON"),
        ("", b"{\"prompt\": \"x\"}", 415, "application/json"),
        ("Content-Type: text/plain\r\n", b"{\"prompt\": \"x\"}", 415, "text/plain"),
    ] {
        let reply = receive(send(server.address(), "POST", COMPLETIONS, headers, body));
        assert_eq!(reply.status, status);
        assert!(reply.body.contains(part), "{reply:?}");
    }
    // After all that, the server is well.
    post(server.address(), COMPLETIONS, &short()).ok();
    assert_eq!(metric(&server, "openelm_requests_in_flight "), 0.0);
}

#[test]
fn settings_that_allow_nothing_are_refused() {
    let start = |settings| {
        let model = ServedModel {
            name: "tiny".into(),
            decoder: Arc::new(Bent::new(Duration::ZERO)),
            draft: None,
            tokenizer: tokenizer(),
            template: ChatTemplate::openelm_instruct().unwrap(),
        };
        Server::start(model, settings, "127.0.0.1:0".parse().unwrap()).unwrap_err().to_string()
    };
    assert!(start(ServerSettings { slots: 0, ..Default::default() }).contains("the slots is 0"));
    assert!(start(ServerSettings { context: Some(5000), ..Default::default() }).contains("the model's holds 4096"));
    assert!(start(ServerSettings { api_key: Some("a b".into()), ..Default::default() }).contains("API key"));
}

#[test]
fn the_key_is_asked_for() {
    let server = serve(
        Arc::new(Bent::new(Duration::ZERO)),
        ServerSettings { context: Some(CONTEXT), api_key: Some("sesame".into()), ..Default::default() },
    );
    let ask = |authorization: &str| {
        let headers = format!("{JSON}{authorization}");
        receive(send(server.address(), "POST", COMPLETIONS, &headers, short().to_string().as_bytes()))
    };
    for wrong in [
        "",
        "Authorization: Bearer sesam\r\n",
        "Authorization: Bearer sesame2\r\n",
        "Authorization: sesame\r\n",
        "Authorization: Basic sesame\r\n",
    ] {
        let reply = ask(wrong);
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (401, &json!("invalid_api_key")), "{wrong}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    ask("Authorization: Bearer sesame\r\n").ok();
    ask("Authorization: bearer sesame\r\n").ok();
    for (path, status) in [("/v1/models", 401), ("/v1/models/tiny", 401), ("/metrics", 401), ("/health", 200), ("/", 200)] {
        assert_eq!(get(server.address(), path).status, status, "{path}");
    }
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let server = slow_server(STEP, ServerSettings { slots: 1, queue: 2, ..Default::default() });
    let address = server.address();
    let open = || send(address, "POST", COMPLETIONS, JSON, long().to_string().as_bytes());
    let running = open();
    until("the slot to be busy", || metric(&server, "openelm_slots_busy ") == 1.0);
    let waiting = [open(), open()];
    until("the queue to fill", || metric(&server, "openelm_queue_length ") == 2.0);
    let refused = post(address, COMPLETIONS, &short());
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("queue_full")));
    assert!((1..=60).contains(&refused.header("retry-after").unwrap().parse::<u64>().unwrap()));
    // A client that goes while it waits leaves its place.
    let [first, second] = waiting;
    drop(first);
    let begin = Instant::now();
    let mut last = post(address, COMPLETIONS, &short());
    while last.status == 429 && begin.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
        last = post(address, COMPLETIONS, &short());
    }
    last.ok();
    receive(running).ok();
    receive(second).ok();
}

#[test]
fn a_client_that_goes_frees_its_slot() {
    let server = slow_server(STEP, ServerSettings { slots: 1, ..Default::default() });
    for stream in [true, false] {
        let mut request = long();
        request["stream"] = stream.into();
        let mut gone = send(server.address(), "POST", COMPLETIONS, JSON, request.to_string().as_bytes());
        until("the slot to be busy", || metric(&server, "openelm_slots_busy ") == 1.0);
        if stream {
            // Tokens come before the answer is whole.
            let mut some = [0; 512];
            assert!(gone.read(&mut some).unwrap() > 0);
        }
        drop(gone);
        let begin = Instant::now();
        post(server.address(), COMPLETIONS, &short()).ok();
        // All its tokens would have taken four seconds.
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
    until("both to be counted", || metric(&server, "openelm_requests_total{endpoint=\"/v1/completions\",status=\"499\"} ") == 2.0);
    assert_eq!(metric(&server, "openelm_requests_in_flight "), 0.0);
}

#[test]
fn what_takes_too_long_is_ended() {
    let server = slow_server(STEP, ServerSettings { slots: 1, timeout: Duration::from_millis(500), ..Default::default() });
    let reply = post(server.address(), COMPLETIONS, &long());
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (504, &json!("timeout")));
    let mut request = long();
    request["stream"] = true.into();
    let reply = post(server.address(), COMPLETIONS, &request);
    let last = reply.body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["error"]["code"], "timeout");
    post(server.address(), COMPLETIONS, &short()).ok();
}

#[test]
fn a_body_that_is_too_long_is_not_read() {
    let server = slow_server(Duration::ZERO, ServerSettings { body_limit: 1000, ..Default::default() });
    let reply = post(server.address(), COMPLETIONS, &json!({"prompt": "x".repeat(1000)}));
    assert_eq!(reply.status, 413, "{reply:?}");
    post(server.address(), COMPLETIONS, &short()).ok();
}

#[test]
fn connections_have_an_end_and_a_number() {
    let settings = ServerSettings { connections: 2, timeout: Duration::from_millis(1), ..Default::default() };
    let server = slow_server(Duration::ZERO, settings);
    let idle = [(); 2].map(|()| std::net::TcpStream::connect(server.address()).unwrap());
    // A third one is not served while two are there.
    let third = send(server.address(), "GET", "/health", "", b"");
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!((&third).read(&mut [0]).is_err());
    drop(idle);
    third.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    receive(third).ok();
}

#[test]
fn a_step_that_fails_is_told_and_forgotten() {
    let decoder = Arc::new(Bent::new(Duration::ZERO));
    let server = serve(Arc::<Bent>::clone(&decoder), ServerSettings { context: Some(CONTEXT), ..Default::default() });
    decoder.fails.store(true, Ordering::SeqCst);
    let reply = post(server.address(), COMPLETIONS, &short());
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &json!("model_failed")));
    assert!(reply.body.contains("logit that is NaN"), "{reply:?}");
    post(server.address(), COMPLETIONS, &short()).ok();
}

#[test]
fn an_ending_server_finishes_what_it_began() {
    let server = slow_server(STEP, ServerSettings { slots: 1, ..Default::default() });
    let address = server.address();
    let mut request = long();
    request["max_tokens"] = 60.into();
    let running = send(address, "POST", COMPLETIONS, JSON, request.to_string().as_bytes());
    let waiting = send(address, "POST", COMPLETIONS, JSON, short().to_string().as_bytes());
    until("the slot to be busy", || metric(&server, "openelm_slots_busy ") == 1.0);
    until("the other to wait", || metric(&server, "openelm_queue_length ") == 1.0);
    let end = std::thread::spawn(move || server.stop());
    until("the end to begin", || get(address, "/health").json()["status"] == "shutting down");
    let refused = post(address, COMPLETIONS, &short());
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("shutting_down")));
    assert_eq!(receive(running).ok()["usage"]["completion_tokens"], 60);
    receive(waiting).ok();
    assert!(end.join().unwrap());
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn an_ending_server_does_not_wait_for_ever() {
    let settings = ServerSettings { slots: 1, context: Some(CONTEXT), drain: Duration::from_millis(200), ..Default::default() };
    let model = ServedModel {
        name: "tiny".into(),
        decoder: Arc::new(Bent::new(STEP)),
        draft: None,
        tokenizer: tokenizer(),
        template: ChatTemplate::openelm_instruct().unwrap(),
    };
    let server = Server::start(model, settings, "127.0.0.1:0".parse().unwrap()).unwrap();
    let running = send(server.address(), "POST", COMPLETIONS, JSON, long().to_string().as_bytes());
    until("the slot to be busy", || metric(&server, "openelm_slots_busy ") == 1.0);
    let begin = Instant::now();
    assert!(!server.stop());
    assert!(begin.elapsed() < Duration::from_secs(3));
    let reply = receive(running);
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("shutting_down")));
}
