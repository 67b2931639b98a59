//! `openelm serve` and `openelm chat` as they are called.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../openelm-infer/tests/server/client.rs"]
mod client;
mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use client::{JSON, get, post, receive, send};
use serde_json::json;
use support::Ground;
use support::program::Running;

const COMPLETIONS: &str = "/v1/completions";

/// A server of the run in `run`, and where it listens.
fn serve(ground: &Ground, more: &[&str]) -> (Running, SocketAddr) {
    let mut server = ground.call([&["serve", "run", "--port", "0"], more].concat()).start();
    let line = server.line();
    let address = line.split("http://").nth(1).unwrap_or_else(|| panic!("no address in {line:?}")).parse().unwrap();
    (server, address)
}

#[test]
fn serves_what_generate_says_and_ends_when_told() {
    let ground = Ground::new();
    ground.finished_run("run");
    let (mut server, address) = serve(&ground, &["--slots", "2", "--timeout", "60", "--context", "128"]);
    assert_eq!(get(address, "/v1/models").ok()["data"][0]["id"], "run");
    let call = ["generate", "run", "--prompt", "the small bird", "--max-new-tokens", "20", "--json"];
    let generated = ground.call(call).succeeds().json();
    let answer = post(address, COMPLETIONS, &json!({"model": "run", "prompt": "the small bird", "max_tokens": 20, "temperature": 0})).ok();
    assert_eq!(answer["choices"][0]["text"], generated["text"]);
    // A long answer, and the signal in its middle.
    let long = json!({"prompt": "the", "max_tokens": 120, "temperature": 1, "ignore_eos": true, "n": 60}).to_string();
    let running = send(address, "POST", COMPLETIONS, JSON, long.as_bytes());
    server.until("the answer to begin", || get(address, "/metrics").body.contains("\nopenelm_slots_busy 2\n"));
    server.signal("TERM");
    server.until("the end to begin", || get(address, "/health").status == 503);
    assert_eq!(post(address, COMPLETIONS, &json!({"prompt": "the"})).json()["error"]["code"], "shutting_down");
    let answer = receive(running).ok();
    assert_eq!((answer["choices"].as_array().unwrap().len(), &answer["usage"]["completion_tokens"]), (60, &json!(60 * 120)));
    let outcome = server.wait().succeeds();
    assert!(outcome.stderr.contains("note: ending") && !outcome.stderr.contains("before all answers"), "{outcome:?}");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn guesses_leave_the_text_alone() {
    let ground = Ground::new();
    ground.finished_run("run");
    let call = ["generate", "run", "--prompt", "the small bird", "--max-new-tokens", "40", "--ignore-eos", "--json"];
    let generated = ground.call(call).succeeds().json();
    let request = json!({"prompt": "the small bird", "max_tokens": 40, "temperature": 0, "ignore_eos": true});
    for guesses in [&["--lookup", "4"][..], &["--draft", "run", "--draft-tokens", "3"]] {
        let (_server, address) = serve(&ground, &[guesses, &["--context", "128"]].concat());
        assert_eq!(post(address, COMPLETIONS, &request).ok()["choices"][0]["text"], generated["text"], "{guesses:?}");
        let metrics = get(address, "/metrics").body;
        assert!(
            metrics.contains("\nopenelm_accepted_tokens_total ") && !metrics.contains("\nopenelm_accepted_tokens_total 0\n"),
            "{metrics}"
        );
    }
    ground.call(["serve", "run", "--port", "0", "--draft", "nothing"]).fails(&["nothing at this path"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let ground = Ground::new();
    ground.finished_run("run");
    let (mut server, address) = serve(&ground, &["--slots", "1", "--context", "128"]);
    let long = json!({"prompt": "the", "max_tokens": 120, "temperature": 1, "ignore_eos": true, "n": 128}).to_string();
    let running = send(address, "POST", COMPLETIONS, JSON, long.as_bytes());
    server.until("the answer to begin", || get(address, "/metrics").body.contains("\nopenelm_slots_busy 1\n"));
    server.signal("INT");
    server.until("the end to begin", || get(address, "/health").status == 503);
    let begin = Instant::now();
    server.signal("INT");
    let reply = receive(running);
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("shutting_down")));
    let outcome = server.wait().succeeds();
    assert!(begin.elapsed() < Duration::from_secs(5) && outcome.stderr.contains("ended before all answers were whole"), "{outcome:?}");
}

#[test]
fn the_key_lies_in_a_file() {
    let ground = Ground::new();
    ground.finished_run("run");
    ground.write("key", "  open-sesame\n");
    let (server, address) = serve(&ground, &["--api-key-file", "key", "--model-name", "birds"]);
    assert_eq!(get(address, "/v1/models").status, 401);
    let models = receive(send(address, "GET", "/v1/models", "Authorization: Bearer open-sesame\r\n", b"")).ok();
    assert_eq!(models["data"][0]["id"], "birds");
    drop(server);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    ground.write("empty", " \n");
    ground.write("broken.jinja", "{% if %}");
    for (more, parts) in [
        (&["--port", port.as_str()][..], &["listening on 127.0.0.1", "--port"][..]),
        (&["--context", "129"], &["the context is 129", "128"]),
        (&["--slots", "0"], &["slots is 0"]),
        (&["--timeout=-1"], &["--timeout is -1"]),
        (&["--api-key-file", "empty"], &["empty holds no API key"]),
        (&["--api-key-file", "none"], &["reading the API key from none"]),
        (&["--chat-template", "broken.jinja"], &["chat template in broken.jinja, line 1"]),
        (&["--device", "tpu"], &["tpu"]),
    ] {
        let free = if more.contains(&"--port") { &[][..] } else { &["--port", "0"] };
        ground.call([&["serve", "run"], free, more].concat()).fails(parts);
    }
    ground.call(["serve", "nothing"]).fails(&["nothing at this path"]);
}

#[test]
fn chat_takes_lines_and_commands() {
    let ground = Ground::new();
    // Long enough that its answers are words.
    ground.train("run", &["training.steps=60"]).succeeds();
    let chat = |lines: &str, more: &[&str]| {
        let call = [&["chat", "run", "--temperature", "0", "--max-new-tokens", "10", "--context", "128"], more].concat();
        ground.call(call).input(lines).succeeds()
    };
    let one = chat("the bird\n", &[]);
    assert!(one.stdout.ends_with('\n') && one.stdout.trim().len() > 3, "{one:?}");
    assert!(one.stderr.contains("OpenELM-instruct's is used"), "{one:?}");
    // A new beginning gives the first answer again; what is no command is told, and nothing comes behind the end.
    let three = chat("the bird\n\n/reset\nthe bird\n/dance\n/exit\nthe bird\n", &[]);
    assert_eq!(three.stdout, one.stdout.repeat(2));
    assert!(three.stderr.contains("there is no command /dance"), "{three:?}");
    // A system message is part of the conversation, from the command line or from a command.
    ground.write("show.jinja", "{{ raise_exception(messages[0].role ~ ' says ' ~ messages[0].content) }}");
    for (lines, more, said) in [
        ("the bird\n", &[][..], "user says the bird"),
        ("/system sing\nthe bird\n", &[], "system says sing"),
        ("the bird\n", &["--system", "sing"], "system says sing"),
        ("/system\nthe bird\n", &["--system", "sing"], "user says the bird"),
    ] {
        let shown = chat(lines, &[more, &["--chat-template", "show.jinja"]].concat());
        assert!(shown.stderr.contains(&format!("refuses these messages: {said}")) && shown.stdout.is_empty(), "{shown:?}");
    }
    // The second answer reads the first.
    let two = chat("the bird\nthe bird\n", &[]);
    assert!(two.stdout.starts_with(&one.stdout), "{two:?}");
    // A message that does not fit is told, and the conversation goes on.
    let full = chat(&("the bird ".repeat(80) + "\nthe bird\n"), &[]);
    assert!(full.stderr.contains("the context holds 128"), "{full:?}");
    assert_eq!(full.stdout, one.stdout);
    ground.call(["chat", "run", "--top-p", "0"]).fails(&["top_p is 0"]);
}
