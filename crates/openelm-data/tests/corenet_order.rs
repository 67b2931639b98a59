//! CoreNet's `general_lm` order, sample by sample: the values that its own dataset gave over the same shards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use openelm_data::{CorpusConfig, DataConfig, Order, Partition, corenet_sequences};
use openelm_tokenizer::Tokenizer;
use reference_values::{Tensors, json, shared};
use sha2::{Digest, Sha256};

/// The corpora of the reference configurations, in their order.
fn corpora(folder: &Path) -> Vec<CorpusConfig> {
    let corpus = |pattern: &str, key: &str, end: u64| CorpusConfig {
        file_id_range: Some([0, end]),
        text_key: key.into(),
        ..CorpusConfig::new(pattern, vec![folder.join(pattern).to_string_lossy().into_owned()])
    };
    vec![
        corpus("refinedweb/refinedweb-{file_id:05d}-of-00002.parquet", "content", 2),
        corpus("redpajama/arxiv/arxiv-{file_id:05d}-00001.jsonl", "text", 1),
        corpus("redpajama/book/book-{file_id:05d}-00001.jsonl", "text", 1),
        corpus("redpajama/github/github-{file_id:05d}-00001.jsonl", "text", 1),
        corpus("redpajama/stackexchange/stackexchange-{file_id:05d}-00001.jsonl", "text", 1),
        corpus("redpajama/wikipedia/wiki-{file_id:05d}-00001.jsonl", "text", 1),
        corpus("redpajama/c4/c4-{file_id:05d}-00001.jsonl", "text", 1),
        corpus("pile/pile-{file_id:05d}-of-00002.parquet", "text", 2),
        corpus("dolma/books/books-{file_id:04d}.json.gz", "text", 2),
        corpus("dolma/wiki/en_simple_wiki_v0-{file_id:04d}.json.gz", "text", 1),
        corpus("dolma/stack/stack-v4-train-{file_id:04d}.json.gz", "text", 1),
    ]
}

/// Compares every sample; gives their number.
fn compare(name: &str, tokenizer: &str, length: usize, min_tokens: usize) -> usize {
    let Some(folder) = shared() else { return 0 };
    let expected = json(&folder.join(format!("reference/data/{name}.json")));
    let mut config = DataConfig::new(corpora(&folder.join("corpora")), length);
    config.order = Order::Corenet;
    config.min_tokens_per_text = min_tokens;
    config.min_characters_per_text = 200;
    let tokenizer = Tokenizer::load(&folder.join("tokenizers").join(tokenizer).join("tokenizer.model")).unwrap();
    let number = |key: &str| expected[key].as_u64().unwrap() as usize;
    let partition = Partition { rank: number("rank"), world: number("world"), worker: number("worker"), workers: number("workers") };
    let hashes = expected["sha256_16_of_each_sample_le_i32"].as_array().unwrap();
    assert_eq!(hashes.len(), number("samples"));
    let mut sequences = corenet_sequences(&config, &tokenizer, partition).unwrap();
    let order: Vec<String> = sequences.files().iter().map(|path| relative(&folder, path)).collect();
    // The reference lists the files of all processes; each takes every n-th, and files drawn again fill the last turn.
    let (process, processes) = (partition.rank * partition.workers + partition.worker, partition.world * partition.workers);
    let dealt: Vec<String> = strings(&expected["file_order"]).into_iter().skip(process).step_by(processes).collect();
    assert_eq!(order[..dealt.len()], dealt);
    assert_eq!(order.len(), expected["file_order"].as_array().unwrap().len().div_ceil(processes));
    let first = Tensors::open(folder.join(format!("reference/data/{name}.safetensors")));
    let whole: Vec<u32> = first.i32("tokens").iter().map(|id| *id as u32).collect();
    let mut targets = 0;
    for (index, hash) in hashes.iter().enumerate() {
        let sequence = sequences.next().unwrap().unwrap();
        let bytes: Vec<u8> = sequence.tokens.iter().flat_map(|id| (*id as i32).to_le_bytes()).collect();
        let digest: String = Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, hash.as_str().unwrap(), "sample {index}, from {}", sequence.source);
        if let Some(tokens) = whole.chunks(length + 1).nth(index) {
            assert_eq!(sequence.tokens, tokens, "sample {index}");
        }
        targets += sequence.tokens.len() - sequence.padding;
    }
    assert_eq!(targets, number("non_pad_tokens"));
    // The counts of a file are complete once the stream has gone on to the next epoch.
    sequences.next().unwrap().unwrap();
    for (path, counts) in expected["kept_and_skipped_pieces_per_file"].as_object().unwrap() {
        let found = sequences.counts().iter().find(|found| relative(&folder, &found.source) == *path).unwrap();
        let [kept, skipped] = [0, 1].map(|index| counts[index].as_u64().unwrap());
        // The first sample of the second epoch belongs to the first file of its order.
        assert!(found.kept == kept || found.kept == kept + 1, "{path}: {found:?}, CoreNet {kept}");
        assert!(found.skipped >= skipped, "{path}: {found:?}, CoreNet {skipped}");
    }
    println!("{name}: {} of {} samples", hashes.len(), hashes.len());
    hashes.len()
}

fn relative(folder: &Path, path: &str) -> String {
    Path::new(path).strip_prefix(folder.join("corpora")).unwrap().to_string_lossy().into_owned()
}

fn strings(value: &serde_json::Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn llama_one_process() {
    assert!(shared().is_none() || compare("llama-rank0of1-worker0of1", "llama-spm", 2048, 256) > 2000);
}

#[test]
fn llama_second_worker_of_the_second_rank() {
    assert!(shared().is_none() || compare("llama-rank1of2-worker1of2", "llama-spm", 2048, 256) > 100);
}

#[test]
fn small_vocabulary_one_process() {
    assert!(shared().is_none() || compare("spm2k-rank0of1-worker0of1", "spm-2k", 128, 64) > 2000);
}
