//! Puts a running server under load and says whether it lost anything.
//!
//! `cargo run --release --workspace --example load_test -- 127.0.0.1:8080 [--clients 64] [--requests 20] [--tokens 32] [--texts-may-differ]`
//!
//! Every client sends one request after the other: whole answers and streams, greedy, with eight different prompts; every sixteenth
//! stream is left in its middle. A refusal with 429 is waited for and tried again. Each answer must be the one that a client alone
//! got before; with quantised weights, whose products round otherwise when several sequences are read at once, `--texts-may-differ` asks
//! for some text alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PROMPTS: [&str; 8] = [
    "Once upon a time",
    "The river",
    "def main(arguments):",
    "In the beginning there was",
    "A bird sings in the old tree, and the children listen to it until",
    "1, 2, 3, 4,",
    "The capital of the country is",
    "Dear reader, the story that I am about to tell",
];

#[derive(Default)]
struct Tally {
    answers: AtomicUsize,
    streams: AtomicUsize,
    left: AtomicUsize,
    refused: AtomicUsize,
    empty: AtomicUsize,
    other: AtomicUsize,
    tokens: AtomicU64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().expect("the first argument is the server's address, such as 127.0.0.1:8080");
    let (mut clients, mut requests, mut tokens, mut may_differ) = (64, 20, 32, false);
    while let Some(name) = arguments.next() {
        if name == "--texts-may-differ" {
            may_differ = true;
            continue;
        }
        let value = arguments.next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} needs a number"));
        match name.as_str() {
            "--clients" => clients = value,
            "--requests" => requests = value,
            "--tokens" => tokens = value,
            _ => panic!("{name} is not known; see the head of this file"),
        }
    }
    let alone: Vec<String> = PROMPTS.iter().map(|prompt| text(&body(&ask(&address, prompt, tokens, false)))).collect();
    let resident = |address: &str| metric(address, "process_resident_memory_bytes") / f64::from(1 << 20);
    println!("resident memory before: {:.0} MiB", resident(&address));
    let tally = Tally::default();
    let begin = Instant::now();
    let mut seconds: Vec<f64> = std::thread::scope(|scope| {
        let (address, alone, tally) = (&address, &alone, &tally);
        let work = move |client: usize| (0..requests).map(|place| one(address, client, place, tokens, alone, tally)).collect::<Vec<f64>>();
        let clients: Vec<_> = (0..clients).map(|client| scope.spawn(move || work(client))).collect();
        while clients.iter().any(|client| !client.is_finished()) {
            std::thread::sleep(Duration::from_secs(2));
            let done = tally.answers.load(Ordering::Relaxed) + tally.streams.load(Ordering::Relaxed) + tally.left.load(Ordering::Relaxed);
            println!("{:6.1} s: {done} requests done, {:.0} MiB resident", begin.elapsed().as_secs_f64(), resident(address));
        }
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let elapsed = begin.elapsed().as_secs_f64();
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share) as usize];
    let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    println!("{clients} clients, {} requests in {elapsed:.1} s, {:.1} a second", clients * requests, (clients * requests) as f64 / elapsed);
    println!(
        "{} whole answers, {} streams, {} streams left in their middle",
        load(&tally.answers),
        load(&tally.streams),
        load(&tally.left)
    );
    println!("{:.0} tokens a second", tally.tokens.load(Ordering::Relaxed) as f64 / elapsed);
    println!("seconds of a request: median {:.2}, 95 % {:.2}, longest {:.2}", at(0.5), at(0.95), at(1.0));
    println!("{} refusals with 429, tried again", load(&tally.refused));
    // Streams that were left are noticed at the next step.
    let rest = Instant::now();
    while metric(&address, "openelm_requests_in_flight") > 0.0 && rest.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let busy = (metric(&address, "openelm_requests_in_flight"), metric(&address, "openelm_slots_busy"));
    println!("resident memory after: {:.0} MiB; {} requests in flight, {} slots busy", resident(&address), busy.0, busy.1);
    println!("{} answers without a text, {} with another one than alone", load(&tally.empty), load(&tally.other));
    let wrong = load(&tally.empty) + if may_differ { 0 } else { load(&tally.other) };
    let done = load(&tally.answers) + load(&tally.streams) + load(&tally.left);
    assert!(done == clients * requests && wrong == 0 && busy == (0.0, 0.0), "something was lost");
}

/// One request; gives its seconds, those of its refusals included.
fn one(address: &str, client: usize, place: usize, tokens: usize, alone: &[String], tally: &Tally) -> f64 {
    let which = (client + place) % PROMPTS.len();
    let stream = (client + place / 8).is_multiple_of(2);
    let begin = Instant::now();
    if stream && (client * 7 + place).is_multiple_of(16) {
        let mut connection = open(address, "POST", "/v1/completions", &request(PROMPTS[which], tokens, true));
        connection.read_exact(&mut [0; 64]).unwrap();
        tally.left.fetch_add(1, Ordering::Relaxed);
        return begin.elapsed().as_secs_f64();
    }
    let mut reply = ask(address, PROMPTS[which], tokens, stream);
    while reply.starts_with("HTTP/1.1 429") {
        tally.refused.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(100));
        reply = ask(address, PROMPTS[which], tokens, stream);
    }
    let found = if stream { streamed(&reply) } else { text(&body(&reply)) };
    if found.is_empty() {
        tally.empty.fetch_add(1, Ordering::Relaxed);
    } else if found != alone[which] {
        tally.other.fetch_add(1, Ordering::Relaxed);
    }
    tally.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    (if stream { &tally.streams } else { &tally.answers }).fetch_add(1, Ordering::Relaxed);
    begin.elapsed().as_secs_f64()
}

fn request(prompt: &str, tokens: usize, stream: bool) -> String {
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "stream": stream}).to_string()
}

fn open(address: &str, method: &str, path: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.write_all((head + body).as_bytes()).unwrap();
    connection
}

/// The whole answer to a request.
fn ask(address: &str, prompt: &str, tokens: usize, stream: bool) -> String {
    let mut reply = String::new();
    open(address, "POST", "/v1/completions", &request(prompt, tokens, stream)).read_to_string(&mut reply).unwrap();
    reply
}

fn body(reply: &str) -> Value {
    let (head, body) = reply.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{reply}");
    serde_json::from_str(body).unwrap()
}

fn text(answer: &Value) -> String {
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

/// The text of a stream that came to its end; of any other nothing.
fn streamed(reply: &str) -> String {
    let data: Vec<&str> = reply.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    match data.split_last() {
        Some((&"[DONE]", chunks)) => chunks.iter().map(|chunk| text(&serde_json::from_str(chunk).unwrap())).collect(),
        _ => String::new(),
    }
}

fn metric(address: &str, name: &str) -> f64 {
    let mut reply = String::new();
    open(address, "GET", "/metrics", "").read_to_string(&mut reply).unwrap();
    reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0.0)
}
