//! The mixed order over random shards and configurations: one global order for any ranks and threads, exact resume, shares by
//! weight, and nothing lost or doubled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use crate::config::{DataConfig, OnBadRecord, Packing};
use crate::encoder::TextEncoder;
use crate::encoder::tests::Bytes;
use crate::error::DataError;
use crate::lane::{Lane, LaneState};
use crate::loader::Loader;
use crate::mixture::Mixture;
use crate::sequence::Sequence;
use crate::shard::list_shards;
use crate::skip_log::SkipLog;
use crate::state::LoaderState;
use crate::test_shards::{LAYOUTS, Shards, files_below};

fn open(config: &DataConfig, rank: usize, world: usize, state: Option<&LoaderState>) -> Loader {
    Loader::with_encode(config, Arc::new(Bytes), rank, world, state, &SkipLog::new()).unwrap_or_else(|error| panic!("{error}"))
}

/// The next `count` sequences of a run on `world` ranks from `state` on, and the state after them as a checkpoint keeps it.
fn run(config: &DataConfig, world: usize, count: usize, state: Option<&LoaderState>) -> (Vec<Sequence>, LoaderState) {
    let mut loaders: Vec<Loader> = (0..world).map(|rank| open(config, rank, world, state)).collect();
    let begin = state.map_or(0, LoaderState::sequences) as usize;
    let sequences = (begin..begin + count).map(|number| loaders[number % world].next_sequence().unwrap()).collect();
    let state = LoaderState::merge(loaders.iter().map(Loader::state).collect()).unwrap();
    let text = serde_json::to_string(&state).unwrap();
    (sequences, serde_json::from_str(&text).unwrap())
}

/// Documents that are told apart by their texts; some are longer than a sequence.
fn texts(corpus: usize, shard: usize, lengths: &[usize]) -> Vec<String> {
    lengths.iter().enumerate().map(|(at, length)| format!("{corpus}.{shard}.{at}{}", "x".repeat(*length))).collect()
}

#[derive(Debug, Clone)]
struct Case {
    /// Lengths of the documents of each shard of each corpus, and its layout.
    corpora: Vec<Vec<(Vec<usize>, usize)>>,
    weights: Vec<f64>,
    length: usize,
    block: usize,
    shuffle: bool,
    best_fit: bool,
    seed: u64,
    min_tokens: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let shard = (prop::collection::vec(0..90usize, 1..14), 0..4usize);
    let corpora = prop::collection::vec(prop::collection::vec(shard, 1..4), 1..4);
    let numbers = (prop::collection::vec(0.2..5.0f64, 3), 4..40usize, 1..6usize, any::<u64>(), prop_oneof![Just(0usize), Just(16)]);
    (corpora, numbers, any::<bool>(), any::<bool>()).prop_map(|(corpora, (weights, length, block, seed, min_tokens), shuffle, best_fit)| {
        Case { corpora, weights, length, block, shuffle, best_fit, seed, min_tokens }
    })
}

fn written(case: &Case) -> (Shards, DataConfig) {
    let shards = Shards::new();
    let names = ["a", "b", "c"];
    for (corpus, files) in case.corpora.iter().enumerate() {
        for (number, (lengths, layout)) in files.iter().enumerate() {
            let mut texts = texts(corpus, number, lengths);
            // One document that every filter keeps.
            texts.push("kept by every filter".into());
            shards.write(&format!("{}-{number}", names[corpus]), LAYOUTS[*layout], &texts);
        }
    }
    let corpora: Vec<(&str, f64)> = names.into_iter().zip(case.weights.iter().copied()).take(case.corpora.len()).collect();
    let mut config = shards.config(&corpora, case.length);
    (config.shuffle, config.seed, config.shuffle_buffer, config.lanes) = (case.shuffle, case.seed, case.block, 24);
    config.packing = if case.best_fit { Packing::BestFit } else { Packing::Concat };
    config.min_tokens_per_text = case.min_tokens;
    config.threads = 2;
    (shards, config)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_order_for_any_ranks_and_threads(case in cases()) {
        let (_shards, mut config) = written(&case);
        let (expected, _) = run(&config, 1, 120, None);
        for (world, threads) in [(2, 1), (3, 3), (8, 4)] {
            (config.threads, config.prefetch) = (threads, 1 + world % 3);
            let (found, _) = run(&config, world, 120, None);
            prop_assert!(found == expected, "{world} ranks, {threads} threads");
        }
    }

    #[test]
    fn resume_is_exact_twice_and_on_other_ranks(case in cases(), stops in (0..70usize, 0..70usize), worlds in (0..4usize, 0..4usize)) {
        let (_shards, config) = written(&case);
        let worlds = [worlds.0, worlds.1, 0].map(|world| [1, 2, 3, 8][world]);
        // All ranks stop after the same number of sequences.
        let stops = (stops.0.next_multiple_of(worlds[0]), stops.1.next_multiple_of(worlds[1]));
        let (expected, last) = run(&config, 1, stops.0 + stops.1 + 50, None);
        let (mut found, first) = run(&config, worlds[0], stops.0, None);
        let (more, second) = run(&config, worlds[1], stops.1, Some(&first));
        let (rest, third) = run(&config, worlds[2], 50, Some(&second));
        found.extend(more.into_iter().chain(rest));
        prop_assert!(found == expected);
        prop_assert_eq!(serde_json::to_value(third).unwrap(), serde_json::to_value(last).unwrap());
    }

    /// After whole blocks a lane has given each of its documents equally often, but for the epoch that it is in.
    #[test]
    fn no_document_is_lost_or_doubled(shards in prop::collection::vec((prop::collection::vec(0..30usize, 8..20), 0..4usize), 1..6),
                                      lanes in 1..8usize, best_fit in any::<bool>(), seed in any::<u64>()) {
        let folder = Shards::new();
        let mut all = Vec::new();
        for (number, (lengths, layout)) in shards.iter().enumerate() {
            let texts = texts(0, number, lengths);
            folder.write(&format!("a-{number}"), LAYOUTS[*layout], &texts);
            all.extend(texts);
        }
        let mut config = folder.config(&[("a", 1.0)], 50);
        (config.lanes, config.seed, config.normalize) = (lanes, seed, false);
        config.packing = if best_fit { Packing::BestFit } else { Packing::Concat };
        let encoder = TextEncoder::new(&config, Arc::new(Bytes)).unwrap();
        let mixture = Arc::new(Mixture::new(&config, &list_shards(&config.corpora, &config.object_store).unwrap(), encoder, None));
        let mut owners: HashMap<String, usize> = HashMap::new();
        for lane in 0..lanes {
            let mut counts: HashMap<String, u64> = HashMap::new();
            let mut source = Lane::resume(mixture.clone(), &LaneState::start(&mixture, lane));
            let mut stream: Vec<u32> = Vec::new();
            for _ in 0..40 {
                let items = source.advance(&AtomicBool::new(false)).unwrap();
                let mut block: Vec<Option<Sequence>> = items.iter().map(|_| None).collect();
                let number = items[0].start.block;
                for (item, at) in items.into_iter().zip(mixture.block_order(lane, number, block.len())) {
                    block[at] = Some(item.sequence);
                }
                for sequence in block.into_iter().map(Option::unwrap) {
                    let filled = &sequence.tokens[..sequence.tokens.len() - sequence.padding];
                    let again = usize::from(!best_fit && !stream.is_empty());
                    stream.extend(&filled[again..]);
                }
            }
            // The document that the last block ends in is not whole, and what there is of it may be another's text.
            stream.truncate(stream.iter().rposition(|id| *id == 2).unwrap_or(0));
            for document in stream.split(|id| *id == 2) {
                if document.first() == Some(&1) {
                    let text: Vec<u8> = document[1..].iter().map(|id| (*id - 3) as u8).collect();
                    *counts.entry(String::from_utf8(text).unwrap()).or_default() += 1;
                }
            }
            prop_assert!(counts.keys().all(|text| all.contains(text)), "lane {lane}: {counts:?}");
            let most = counts.values().max().copied().unwrap_or(0);
            prop_assert!(most >= 2 && counts.values().all(|count| *count + 1 >= most), "lane {lane}: {counts:?}");
            for text in counts.into_keys() {
                let before = owners.insert(text.clone(), lane);
                prop_assert!(before.is_none(), "{text} belongs to lanes {before:?} and {lane}");
            }
        }
        prop_assert_eq!(owners.len(), all.len());
    }
}

#[test]
fn shares_follow_the_weights() {
    for packing in [Packing::Concat, Packing::BestFit] {
        let shards = Shards::new();
        for (name, letter) in [("a", "x"), ("b", "y"), ("c", "z")] {
            for shard in 0..3 {
                let texts: Vec<String> = (0..40).map(|at| letter.repeat(1 + (at * at * (shard + 2)) % 150)).collect();
                shards.write(&format!("{name}-{shard}"), "jsonl", &texts);
            }
        }
        let weights = [5.0, 2.5, 0.5];
        let mut config = shards.config(&[("a", weights[0]), ("b", weights[1]), ("c", weights[2])], 64);
        (config.lanes, config.packing, config.add_bos) = (16, packing, false);
        let (sequences, _) = run(&config, 1, 10_000, None);
        // The end of a document is a token of its corpus.
        let mut counts = [0u64; 3];
        for sequence in &sequences {
            for pair in sequence.tokens[..sequence.tokens.len() - sequence.padding].windows(2) {
                let letter = if pair[1] == 2 { pair[0] } else { pair[1] };
                if let Some(corpus) = (0..3).find(|corpus| letter == u32::from(b"xyz"[*corpus]) + 3) {
                    counts[corpus] += 1;
                }
            }
        }
        let total: u64 = counts.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let (share, wanted) = (*count as f64 / total as f64, weight / 8.0);
            assert!((share - wanted).abs() < 0.01 * wanted, "{packing:?}: share {share}, weight {wanted}");
        }
    }
}

#[test]
fn best_fit_cuts_only_what_is_too_long_and_pads_little() {
    let shards = Shards::new();
    let lengths: Vec<usize> = (0..400).map(|at| (at * 37) % 180).collect();
    shards.write("a-0", "jsonl", &texts(0, 0, &lengths));
    let mut config = shards.config(&[("a", 1.0)], 127);
    (config.lanes, config.packing) = (2, Packing::BestFit);
    let (sequences, _) = run(&config, 1, 256, None);
    let (mut padding, mut cut) = (0, 0);
    for sequence in &sequences {
        padding += sequence.padding;
        let filled = sequence.tokens.len() - sequence.padding;
        let starts: Vec<usize> = sequence.boundaries.iter().map(|at| *at as usize).chain([filled]).collect();
        assert_eq!(starts[0], 0);
        for piece in starts.windows(2).map(|ends| &sequence.tokens[ends[0]..ends[1]]) {
            let whole = piece.first() == Some(&1) && piece.last() == Some(&2);
            cut += usize::from(!whole);
            assert!(whole || piece.len() == 128 || piece.first() != Some(&1), "a short document was cut");
        }
    }
    assert!(cut > 0 && padding * 50 < sequences.len() * 128, "{cut} cut, {padding} padding");
}

/// A bad record takes its place with it: everything else comes as if a filter had taken the record.
#[test]
fn skipping_keeps_the_order_of_everything_else() {
    let (good, bad) = (Shards::new(), Shards::new());
    for shard in 0..2 {
        let mut texts = texts(0, shard, &[20; 30]);
        for at in [3, 4, 17, 29] {
            texts[at] = String::new();
        }
        good.write(&format!("a-{shard}"), "jsonl", &texts);
        let path = bad.write(&format!("a-{shard}"), "jsonl", &texts);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().enumerate().map(|(at, line)| match at {
            3 => "{\"text\": \"cut".to_owned(),
            4 => "{\"id\": 4}".to_owned(),
            17 => "{\"text\": null}".to_owned(),
            29 => "[]".to_owned(),
            _ => line.to_owned(),
        });
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    let config = |shards: &Shards| {
        let mut config = shards.config(&[("a", 1.0)], 16);
        (config.lanes, config.min_tokens_per_text, config.on_bad_record) = (4, 4, OnBadRecord::Skip);
        config
    };
    let tokens = |config: &DataConfig, log: &SkipLog| {
        let mut loader = Loader::with_encode(config, Arc::new(Bytes), 0, 1, None, log).unwrap();
        (0..200).map(|_| loader.next_sequence().unwrap().tokens).collect::<Vec<_>>()
    };
    let log = SkipLog::new();
    assert_eq!(tokens(&config(&bad), &log), tokens(&config(&good), &SkipLog::new()));
    let mut places: Vec<String> = log.records().into_iter().map(|record| record.place).collect();
    places.sort();
    assert_eq!(places, ["line 18", "line 18", "line 30", "line 30", "line 4", "line 4", "line 5", "line 5"]);
    let mut stops = config(&bad);
    stops.on_bad_record = OnBadRecord::Stop;
    let mut loader = open(&stops, 0, 1, None);
    let error = std::iter::repeat_with(|| loader.next_sequence()).find_map(Result::err).unwrap().to_string();
    assert!(error.contains("a-") && error.contains("line ") && error.contains("\nhint: "), "{error}");
}

#[test]
fn a_repetition_limit_stops_with_its_name() {
    let shards = Shards::new();
    shards.write("a-0", "jsonl", &texts(0, 0, &[20; 10]));
    shards.write("b-0", "jsonl", &texts(1, 0, &[20; 10]));
    let mut config = shards.config(&[("a", 1.0), ("b", 0.1)], 8);
    (config.lanes, config.corpora[0].max_epochs) = (2, Some(3));
    let mut loader = open(&config, 0, 1, None);
    let mut given = 0u64;
    let error = loop {
        match loader.next_sequence() {
            Ok(_) => given += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, DataError::Repeated { corpus, epochs: 3, .. } if corpus == "a"), "{error}");
    // Ten documents of 27 tokens, three times, less what the last block of each lane holds.
    assert!((3 * 270 / 8 - 2 * 16..=3 * 300 / 8).contains(&(given as usize)), "{given}");
}

#[test]
fn a_corpus_has_filters_of_its_own() {
    let shards = Shards::new();
    shards.write("a-0", "jsonl", &["short a".into(), "a long one of a".into()]);
    shards.write("b-0", "jsonl", &["short b".into(), "a long one of b".into()]);
    let mut config = shards.config(&[("a", 1.0), ("b", 1.0)], 32);
    (config.lanes, config.min_tokens_per_text, config.corpora[1].min_tokens_per_text) = (1, 12, Some(0));
    let (sequences, _) = run(&config, 1, 20, None);
    let text: String =
        sequences.iter().flat_map(|sequence| &sequence.tokens).map(|id| char::from(*id as u8 - 3u8.min(*id as u8))).collect();
    assert!(!text.contains("short a") && text.contains("short b"));
}

#[test]
fn kept_tokens_give_the_same_order_and_damage_is_repaired() {
    let shards = Shards::new();
    for shard in 0..5 {
        shards.write(&format!("a-{shard}"), LAYOUTS[shard % 4], &texts(0, shard, &[9, 40, 3, 77, 15, 0, 8, 31, 6, 5, 12, 70]));
    }
    let mut config = shards.config(&[("a", 1.0)], 24);
    (config.lanes, config.min_tokens_per_text) = (8, 12);
    let (expected, _) = run(&config, 1, 600, None);
    let folder = tempfile::tempdir().unwrap();
    config.cache = Some(folder.path().join("tokens"));
    let kept = || files_below(folder.path()).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "tokens"));
    assert!(run(&config, 2, 600, None).0 == expected);
    assert_eq!(kept().count(), 8);
    assert!(run(&config, 1, 600, None).0 == expected);
    for (at, path) in kept().enumerate() {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() * (at + 1) / 10;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let (half, state) = run(&config, 1, 300, None);
    let (rest, _) = run(&config, 4, 300, Some(&state));
    assert!(half.into_iter().chain(rest).collect::<Vec<_>>() == expected);
    // A whole pass from the beginning writes them anew.
    assert!(run(&config, 1, 600, None).0 == expected);
    assert!(run(&config, 1, 600, None).0 == expected);
    assert_eq!(kept().count(), 8);
}

/// A document of many parts: every layout gives the same tokens, stopped and resumed inside it, and from the cache.
#[test]
fn long_documents_come_in_parts() {
    let long: String = (0..1_600_000).map(|at| if at % 11 == 7 { "é\n".to_owned() } else { format!("{} ", at % 1000) }).collect();
    let mut orders = Vec::new();
    for layout in LAYOUTS {
        let shards = Shards::new();
        shards.write("a-0", layout, &["before".into(), long.clone(), "after".into()]);
        let mut config = shards.config(&[("a", 1.0)], 8191);
        (config.lanes, config.shuffle_buffer, config.normalize, config.shuffle) = (1, 4, false, false);
        let count = long.len() / 8191 + 2;
        let (sequences, _) = run(&config, 1, count, None);
        if layout == "jsonl" {
            let text: Vec<u8> =
                sequences.iter().flat_map(|sequence| &sequence.tokens[1..]).map(|id| (*id).saturating_sub(3) as u8).collect();
            assert!(memchr::memmem::find(&text, long.as_bytes()).is_some());
            config.cache = Some(shards.folder.path().join("cache"));
            assert!(run(&config, 1, 2 * count, None).0[..count] == sequences);
            for stop in [1, 2, 4, 700, count / 2, count - 2] {
                let (_, state) = run(&config, 1, stop, None);
                assert!(run(&config, 1, 3, Some(&state)).0 == run(&config, 1, stop + 3, None).0[stop..], "stopped after {stop}");
                let mut text = config.clone();
                text.cache = None;
                assert!(run(&text, 1, 3, Some(&state)).0 == run(&config, 1, stop + 3, None).0[stop..], "stopped after {stop}");
            }
        }
        orders.push(sequences.into_iter().map(|sequence| sequence.tokens).collect::<Vec<_>>());
    }
    assert!(orders.windows(2).all(|pair| pair[0] == pair[1]));
}

/// What is tokenized ahead is what the loader looks for, and a second call has nothing left to do.
#[test]
fn tokens_made_ahead_are_used() {
    let shards = Shards::new();
    for (shard, layout) in LAYOUTS.into_iter().enumerate().take(3) {
        shards.write(&format!("a-{shard}"), layout, &texts(0, shard, &[30; 40]));
    }
    let mut config = shards.config(&[("a", 1.0)], 24);
    config.lanes = 4;
    let (expected, _) = run(&config, 1, 200, None);
    config.cache = Some(shards.folder.path().join("cache"));
    let mut counts = Vec::new();
    for (part, parts) in [(0, 2), (1, 2), (0, 1)] {
        let mut count = |shard: &crate::tokenize::TokenizedShard| counts.push((shard.files, shard.present, shard.documents));
        crate::tokenize::tokenize_with(&config, Arc::new(Bytes), part, parts, &SkipLog::new(), &mut count).unwrap();
    }
    assert_eq!(counts.iter().map(|count| count.0).sum::<usize>(), 2 * 4);
    assert_eq!(counts.iter().map(|count| count.1).sum::<usize>(), 4);
    assert_eq!(counts.iter().map(|count| count.2).sum::<u64>(), 120);
    let kept = files_below(&shards.folder.path().join("cache"));
    let times: Vec<_> = kept.iter().map(|path| std::fs::metadata(path).unwrap().modified().unwrap()).collect();
    assert!(run(&config, 2, 200, None).0 == expected);
    assert_eq!(files_below(&shards.folder.path().join("cache")), kept);
    assert_eq!(kept.iter().map(|path| std::fs::metadata(path).unwrap().modified().unwrap()).collect::<Vec<_>>(), times);
}
