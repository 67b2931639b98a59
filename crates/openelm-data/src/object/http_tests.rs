//! Single objects: faults of servers, changed objects, listings, and what the messages say.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::loopback::Loopback;
use super::store::Stores;
use crate::config::{CorpusConfig, ObjectStoreConfig};
use crate::error::DataError;
use crate::shard::{Shard, list_fingerprint, list_shards, list_with};

fn settings(folder: &tempfile::TempDir, retries: usize) -> ObjectStoreConfig {
    ObjectStoreConfig { cache: Some(folder.path().join("objects")), max_bytes: 1 << 20, retries }
}

fn list(settings: &ObjectStoreConfig, files: &[String]) -> Result<Vec<Shard>, DataError> {
    list_shards(&[CorpusConfig::new("a", files.to_vec())], settings)
}

fn text(shard: &Shard) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    shard.open_file()?.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

#[test]
fn faults_are_overcome_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Loopback::new();
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    server.put("/a.jsonl", content.clone());
    let url = [format!("{}/a.jsonl", server.address)];
    let clear = || std::fs::remove_dir_all(folder.path().join("objects"));
    for plain in [false, true] {
        server.served.plain.store(plain, Ordering::Relaxed);
        server.served.failures.store(2, Ordering::Relaxed);
        let shard = list(&settings(&folder, 3), &url).unwrap().remove(0);
        assert_eq!(shard.size, 400_000);
        server.served.failures.store(2, Ordering::Relaxed);
        server.served.cuts.store(1, Ordering::Relaxed);
        assert_eq!(text(&shard).unwrap(), content);
        let gets = server.asked("GET");
        assert_eq!(text(&shard).unwrap(), content);
        assert_eq!(server.asked("GET"), gets, "the copy is used");
        clear().unwrap();
        let shard = list(&settings(&folder, 1), &url).unwrap().remove(0);
        server.served.cuts.store(9, Ordering::Relaxed);
        let message = text(&shard).unwrap_err().to_string();
        assert!(message.contains(&url[0]) && message.contains("tried 2 times") && message.contains("hint: "), "{message}");
        assert_eq!(std::fs::read_dir(folder.path().join("objects")).unwrap().count(), 1, "nothing but the lock is left");
        server.served.cuts.store(0, Ordering::Relaxed);
    }
    server.served.failures.store(99, Ordering::Relaxed);
    let message = list(&settings(&folder, 1), &url).unwrap_err().to_string();
    assert!(message.contains("500") && message.contains("data.object_store.retries"), "{message}");
}

#[test]
fn what_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Loopback::new();
    let fails = |url: String| list(&settings(&folder, 0), &[url]).unwrap_err().to_string();
    let missing = fails(format!("{}/b.jsonl", server.address));
    assert!(missing.contains("/b.jsonl: asking for its size failed") && missing.contains("no such object"), "{missing}");
    let forbidden = fails(format!("{}/forbidden/b.jsonl", server.address));
    assert!(forbidden.contains("access is refused"), "{forbidden}");
    drop(server);
    let gone = fails("http://127.0.0.1:9/b.jsonl".into());
    assert!(gone.contains("cannot be reached") && gone.contains("refused"), "{gone}");
}

#[test]
fn a_changed_object_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Loopback::new();
    server.put("/a.jsonl", b"{\"text\": \"one\"}\n".to_vec());
    let url = [format!("{}/a.jsonl", server.address)];
    let before = list(&settings(&folder, 0), &url).unwrap();
    server.put("/a.jsonl", b"{\"text\": \"two\"}\n".to_vec());
    let after = list(&settings(&folder, 0), &url).unwrap();
    assert_eq!(before[0].size, after[0].size);
    assert_ne!(list_fingerprint(&before), list_fingerprint(&after));
    assert!(text(&before[0]).unwrap_err().to_string().contains("not what it was"));
    assert_eq!(text(&after[0]).unwrap(), b"{\"text\": \"two\"}\n");
}

/// Listing gives what asking for each object gives, sorted as files are; and waiting works inside another runtime.
#[tokio::test]
async fn globs_list_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(InMemory::new());
    for name in ["p/b.jsonl", "p/a-2.jsonl", "p/a/1.jsonl", "p/a-1.jsonl", "q/a-1.jsonl"] {
        memory.put(&Path::from(name), format!("{name} is here").into()).await.unwrap();
    }
    let list = |files: &[&str]| {
        let mut stores = Stores::new(&settings(&folder, 0));
        stores.insert("memory://m", memory.clone() as Arc<dyn ObjectStore>);
        let files = files.iter().map(|file| format!("memory://m/{file}")).collect();
        list_with(&[CorpusConfig::new("a", files)], &mut stores)
    };
    let urls = |shards: &[Shard]| shards.iter().map(|shard| shard.source[11..].to_string()).collect::<Vec<_>>();
    let found = list(&["p/*.jsonl"]).unwrap();
    assert_eq!(urls(&found), ["p/a-1.jsonl", "p/a-2.jsonl", "p/b.jsonl"]);
    assert_eq!(list_fingerprint(&found), list_fingerprint(&list(&["p/a-1.jsonl", "p/a-2.jsonl", "p/b.jsonl"]).unwrap()));
    assert_eq!(urls(&list(&["*/a-1.jsonl"]).unwrap()), ["p/a-1.jsonl", "q/a-1.jsonl"]);
    assert_eq!(urls(&list(&["p/**/*.jsonl"]).unwrap()), ["p/a/1.jsonl", "p/a-1.jsonl", "p/a-2.jsonl", "p/b.jsonl"]);
    assert!(matches!(list(&["p/z*.jsonl"]), Err(DataError::NoMatch { .. })));
    assert!(list(&["p/a-*.jsonl", "p/a-1.jsonl"]).unwrap_err().to_string().contains("twice"));
    assert_eq!(text(&found[1]).unwrap(), b"p/a-2.jsonl is here");
}
