//! A web server on this machine's loopback for tests: files under their paths, the part of S3's protocol that reading needs
//! (path-style addresses; listing in pages of two), and faults on demand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

const PAGE: usize = 2;

#[derive(Default)]
pub(super) struct Served {
    /// By path, with the leading slash.
    pub files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// So many answers from now on are errors of the server.
    pub failures: AtomicUsize,
    /// So many bodies from now on break off in the middle.
    pub cuts: AtomicUsize,
    /// Without entity tags and times, as the simplest of servers.
    pub plain: AtomicBool,
    pub requests: Mutex<Vec<String>>,
}

pub(super) struct Loopback {
    pub served: Arc<Served>,
    /// `http://127.0.0.1:port`.
    pub address: String,
    /// Ends with this.
    _runtime: Runtime,
}

impl Loopback {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Served::default());
        let router = Router::new().fallback(answer).with_state(served.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { served, address, _runtime: runtime }
    }

    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.served.files.lock().unwrap().insert(path.into(), bytes);
    }

    /// Requests so far whose line begins so.
    pub fn asked(&self, beginning: &str) -> usize {
        self.served.requests.lock().unwrap().iter().filter(|line| line.starts_with(beginning)).count()
    }
}

/// Counts one fault down.
fn due(faults: &AtomicUsize) -> bool {
    faults.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

async fn answer(State(served): State<Arc<Served>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    served.requests.lock().unwrap().push(format!("{method} {uri}"));
    if due(&served.failures) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if uri.path().starts_with("/forbidden") {
        return (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>").into_response();
    }
    if uri.path().starts_with("/missing-bucket") {
        return (StatusCode::NOT_FOUND, "<Error><Code>NoSuchBucket</Code></Error>").into_response();
    }
    if let Some(query) = uri.query().filter(|query| query.contains("list-type=2")) {
        return list(&served, uri.path(), query).into_response();
    }
    let Some(bytes) = served.files.lock().unwrap().get(uri.path()).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let tag = tag(&bytes);
    let size = bytes.len();
    let mut answer = Response::builder().header(header::CONTENT_TYPE, "application/octet-stream");
    if !served.plain.load(Ordering::Relaxed) {
        answer = answer.header(header::ETAG, tag).header(header::LAST_MODIFIED, "Wed, 21 Oct 2015 07:28:00 GMT");
    }
    let range =
        headers.get(header::RANGE).and_then(|range| range.to_str().ok()).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (begin, end) = match range {
        Some((begin, end)) => (begin.parse().unwrap(), end.parse().map_or(size, |end: usize| end + 1).min(size)),
        None => (0, size),
    };
    if range.is_some() {
        answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, format!("bytes {begin}-{}/{size}", end - 1));
    }
    let part = Bytes::copy_from_slice(&bytes[begin..end]);
    answer = answer.header(header::CONTENT_LENGTH, part.len());
    if method == Method::HEAD {
        return answer.body(Body::empty()).unwrap();
    }
    if due(&served.cuts) {
        let half = part.slice(..part.len() / 2);
        let broken = stream::once(async { Ok(half) }).chain(stream::once(async {
            // So that what is before has left.
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            Err(std::io::Error::other("cut"))
        }));
        return answer.body(Body::from_stream(broken)).unwrap();
    }
    answer.body(Body::from(part)).unwrap()
}

fn tag(bytes: &[u8]) -> String {
    format!("\"{:x}\"", Sha256::digest(bytes))
}

fn list(served: &Served, bucket: &str, query: &str) -> String {
    let value = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value);
    let root = format!("{}/", bucket.trim_end_matches('/'));
    let prefix = format!("{root}{}", value("prefix").unwrap_or_default().replace("%2F", "/"));
    let files = served.files.lock().unwrap();
    let all: Vec<_> = files.iter().filter(|(path, _)| path.starts_with(&prefix)).collect();
    let begin: usize = value("continuation-token").map_or(0, |token| token.parse().unwrap());
    let mut text = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
    for (path, bytes) in all.iter().skip(begin).take(PAGE) {
        let (key, tag, size) = (&path[root.len()..], tag(bytes), bytes.len());
        text += &format!(
            "<Contents><Key>{key}</Key><LastModified>2015-10-21T07:28:00.123Z</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>"
        );
    }
    if begin + PAGE < all.len() {
        text += &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>", begin + PAGE);
    }
    text + "</ListBucketResult>"
}
