//! The sequences of remote shards are those of the same files read locally: also after a resume, with a small cache, and
//! through S3's protocol.

use std::process::Command;
use std::sync::Arc;

use super::loopback::Loopback;
use crate::config::{DataConfig, ObjectStoreConfig};
use crate::encoder::tests::Bytes;
use crate::error::DataError;
use crate::loader::Loader;
use crate::skip_log::SkipLog;
use crate::state::LoaderState;
use crate::test_shards::{LAYOUTS, Shards, files_below};

const SHARDS: usize = 8;

/// Two corpora, their local configuration, and the server that has the same files under `/bucket/`.
fn corpora() -> (Shards, DataConfig, Loopback) {
    let (shards, server) = (Shards::new(), Loopback::new());
    for corpus in ["a", "b"] {
        for shard in 0..SHARDS {
            let texts: Vec<String> = (0..20).map(|at| format!("{corpus} {shard} {at} {}", "word ".repeat((at * 7 + shard) % 40))).collect();
            let path = shards.write(&format!("{corpus}-{shard}"), LAYOUTS[shard % LAYOUTS.len()], &texts);
            server.put(&format!("/bucket/{}", path.file_name().unwrap().to_str().unwrap()), std::fs::read(&path).unwrap());
        }
    }
    let mut config = shards.config(&[("a", 1.0), ("b", 2.0)], 30);
    (config.lanes, config.shuffle_buffer, config.threads) = (2, 3, 2);
    (shards, config, server)
}

/// The same configuration with every shard by its address.
fn by_http(shards: &Shards, config: &DataConfig, server: &Loopback, max_bytes: u64) -> DataConfig {
    let mut remote = config.clone();
    for corpus in &mut remote.corpora {
        let mut names: Vec<String> = server
            .served
            .files
            .lock()
            .unwrap()
            .keys()
            .filter(|path| path.starts_with(&format!("/bucket/{}-", corpus.name)))
            .cloned()
            .collect();
        names.sort();
        corpus.files = names.iter().map(|path| format!("{}{path}", server.address)).collect();
    }
    remote.object_store = ObjectStoreConfig { cache: Some(shards.folder.path().join("objects")), max_bytes, retries: 2 };
    remote
}

fn open(config: &DataConfig, state: Option<&LoaderState>) -> Result<Loader, DataError> {
    Loader::with_encode(config, Arc::new(Bytes), 0, 1, state, &SkipLog::new())
}

/// The tokens of `count` sequences, stopped and resumed after each of `stops`.
fn tokens(config: &DataConfig, count: usize, stops: &[usize]) -> Vec<Vec<u32>> {
    let mut loader = open(config, None).unwrap();
    let mut found = Vec::new();
    while found.len() < count {
        if stops.contains(&found.len()) {
            let state = serde_json::to_string(&loader.state()).unwrap();
            loader = open(config, Some(&serde_json::from_str(&state).unwrap())).unwrap();
        }
        found.push(loader.next_sequence().unwrap().tokens);
    }
    found
}

#[test]
fn remote_shards_come_in_the_order_of_local_ones() {
    let (shards, config, server) = corpora();
    let mut sizes: Vec<u64> = server.served.files.lock().unwrap().values().map(|bytes| bytes.len() as u64).collect();
    sizes.sort_unstable();
    // Two lanes hold one shard of each of two corpora: four of sixteen, and here there is room for five.
    let small = sizes.iter().rev().take(5).sum();
    let expected = tokens(&config, 1200, &[]);
    // A folder each: threads of a loader that was dropped may still be fetching.
    for (number, (max_bytes, stops)) in [(u64::MAX, &[][..]), (small, &[7, 501, 502]), (small, &[1000])].into_iter().enumerate() {
        let mut remote = by_http(&shards, &config, &server, max_bytes);
        let folder = shards.folder.path().join(format!("objects-{number}"));
        remote.object_store.cache = Some(folder.clone());
        assert_eq!(tokens(&remote, 1200, stops), expected, "{max_bytes}");
        let held: u64 = files_below(&folder).iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
        assert!(held <= max_bytes, "{held} of {max_bytes}");
    }
    let fetched = server.asked("GET");
    assert!(fetched > 2 * SHARDS * 3, "a small cache fetches again: {fetched}");
}

#[test]
fn lanes_that_share_shards_and_kept_tokens() {
    let (shards, mut config, server) = corpora();
    config.lanes = 20;
    let expected = tokens(&config, 600, &[]);
    let mut remote = by_http(&shards, &config, &server, u64::MAX);
    remote.cache = Some(shards.folder.path().join("tokens"));
    assert_eq!(tokens(&remote, 600, &[100]), expected);
    assert_eq!(server.asked("GET"), 2 * SHARDS, "each object is fetched once, however many lanes read it");
    let log = SkipLog::new();
    crate::tokenize::tokenize_with(&remote, Arc::new(Bytes), 0, 1, &log, &mut |_| ()).unwrap();
    remote.object_store.cache = Some(shards.folder.path().join("other"));
    assert_eq!(tokens(&remote, 600, &[100]), expected);
    assert_eq!(server.asked("GET"), 2 * SHARDS, "where the tokens are kept, nothing is fetched");
    assert!(crate::verify::verify(&remote).unwrap().iter().all(|report| report.is_sound() && report.documents == 20));
}

#[test]
fn a_change_is_refused_on_resume_and_a_cache_that_is_too_small_is_named() {
    let (shards, config, server) = corpora();
    let remote = by_http(&shards, &config, &server, u64::MAX);
    let mut loader = open(&remote, None).unwrap();
    loader.next_sequence().unwrap();
    let state = loader.state();
    drop(loader);
    let path = "/bucket/a-0.jsonl";
    let mut bytes = server.served.files.lock().unwrap()[path].clone();
    bytes[60] ^= 1;
    server.put(path, bytes);
    let message = open(&remote, Some(&state)).err().unwrap().to_string();
    assert!(message.contains("the list of shards"), "{message}");
    let mut small = by_http(&shards, &config, &server, 100);
    small.object_store.cache = Some(shards.folder.path().join("other"));
    let message = open(&small, None).unwrap().next_sequence().unwrap_err().to_string();
    assert!(message.contains("no room for http://") && message.contains("data.object_store.max_bytes"), "{message}");
}

/// Settings of S3 come from the environment, so that this runs itself again in another one.
#[test]
fn s3_is_listed_in_pages_and_read() {
    let (shards, config, server) = corpora();
    server.put("/bucket/notes.txt", b"x".to_vec());
    let expected = tokens(&config, 1200, &[]);
    let mut remote = by_http(&shards, &config, &server, u64::MAX);
    remote.corpora.iter_mut().for_each(|corpus| corpus.files = vec![format!("s3://bucket/{}-*", corpus.name)]);
    let work = shards.folder.path().join("work.json");
    std::fs::write(&work, serde_json::to_vec(&(remote, expected)).unwrap()).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "object::order_tests::s3_in_its_environment", "--include-ignored", "--nocapture"])
        .envs([("AWS_ENDPOINT", server.address.as_str()), ("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "us-east-1")])
        .envs([("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "HIDDEN"), ("OPENELM_TEST_WORK", work.to_str().unwrap())])
        .output()
        .unwrap();
    assert!(child.status.success(), "{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    let pages = server.asked("GET /bucket?") + server.asked("GET /bucket/?");
    assert!(pages >= 2 * SHARDS.div_ceil(2), "{pages} pages");
    assert_eq!(server.asked("GET /bucket/a-0.jsonl"), 1);
}

#[test]
#[ignore = "s3_is_listed_in_pages_and_read runs it"]
fn s3_in_its_environment() {
    let Some(work) = std::env::var_os("OPENELM_TEST_WORK") else { return };
    let (config, expected): (DataConfig, Vec<Vec<u32>>) = serde_json::from_slice(&std::fs::read(work).unwrap()).unwrap();
    assert_eq!(tokens(&config, expected.len(), &[77]), expected);
    for (url, said) in
        [("s3://missing-bucket/*.jsonl", "there is no bucket missing-bucket"), ("s3://forbidden/a.jsonl", "AWS_ACCESS_KEY_ID")]
    {
        let mut config = config.clone();
        config.corpora[0].files = vec![url.into()];
        let message = open(&config, None).err().unwrap().to_string();
        assert!(message.contains(said) && message.contains(url) && !message.contains("HIDDEN"), "{message}");
    }
}
