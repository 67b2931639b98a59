//! What the server has done, in Prometheus's text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::process_memory;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicUsize);

impl Gauge {
    pub fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn enter(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn value(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Upper bounds of a histogram's buckets in seconds.
const BOUNDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// How times are spread.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Times up to each bound and above the one before; the last: above all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// The mean in seconds; `None` before the first time.
    pub fn mean(&self) -> Option<f64> {
        let count: u64 = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum();
        (count > 0).then(|| self.microseconds.load(Ordering::Relaxed) as f64 / 1e6 / count as f64)
    }

    fn write(&self, name: &str, help: &str, text: &mut String) {
        head(text, name, "histogram", help);
        let mut count = 0;
        let bounds = BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            count += bucket.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
    }
}

/// All numbers of a server.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// By endpoint and HTTP status; 499: the client went away.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    pub in_flight: Gauge,
    pub slots_busy: Gauge,
    /// Tokens of prompts that were read.
    pub prompt_tokens: Counter,
    /// Tokens of prompts that an earlier sequence had read.
    pub prompt_tokens_reused: Counter,
    pub tokens_made: Counter,
    /// Tokens that a draft guessed, and those of them that were then drawn.
    pub guesses: Counter,
    pub guesses_accepted: Counter,
    pub request_seconds: Histogram,
    pub queue_seconds: Histogram,
    pub first_token_seconds: Histogram,
    pub token_seconds: Histogram,
    pub step_seconds: Histogram,
}

impl Metrics {
    pub fn count_request(&self, endpoint: &'static str, status: u16) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((endpoint, status)).or_default() += 1;
    }

    /// The text that Prometheus reads.
    pub fn text(&self, slots: usize, queued: usize) -> String {
        let mut text = String::new();
        head(&mut text, "openelm_requests_total", "counter", "Requests by endpoint and HTTP status; 499: the client went away.");
        for ((endpoint, status), count) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "openelm_requests_total{{endpoint=\"{endpoint}\",status=\"{status}\"}} {count}");
        }
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "{name} {value}");
        };
        one("openelm_prompt_tokens_total", "counter", "Prompt tokens that were read.", self.prompt_tokens.value());
        let help = "Prompt tokens taken over from an earlier sequence.";
        one("openelm_prompt_tokens_reused_total", "counter", help, self.prompt_tokens_reused.value());
        one("openelm_generated_tokens_total", "counter", "Tokens that were made.", self.tokens_made.value());
        one("openelm_guessed_tokens_total", "counter", "Tokens that were guessed and checked.", self.guesses.value());
        let help = "Guessed tokens that the model then made.";
        one("openelm_accepted_tokens_total", "counter", help, self.guesses_accepted.value());
        one("openelm_requests_in_flight", "gauge", "Requests that are being answered or wait.", self.in_flight.value() as u64);
        one("openelm_queue_length", "gauge", "Requests that wait for a slot.", queued as u64);
        one("openelm_slots", "gauge", "Sequences that can be continued at once.", slots as u64);
        one("openelm_slots_busy", "gauge", "Sequences that are being continued.", self.slots_busy.value() as u64);
        if let Some(bytes) = process_memory("VmRSS") {
            one("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
        }
        self.request_seconds.write("openelm_request_seconds", "From a request to the end of its answer.", &mut text);
        self.queue_seconds.write("openelm_queue_seconds", "From a request to its first slot.", &mut text);
        self.first_token_seconds.write("openelm_first_token_seconds", "From a request to the first token of an answer.", &mut text);
        self.token_seconds.write("openelm_token_seconds", "Between two tokens of an answer.", &mut text);
        self.step_seconds.write("openelm_step_seconds", "One read of all running sequences.", &mut text);
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
