//! Damaged shards of every layout: reading ends, without a panic, in documents or in an error that names the file; and what is
//! skipped costs nothing else.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::error::DataError;
use crate::long_line::{LongLine, LongLineError};
use crate::pick_text::{Picked, pick_text};
use crate::shard::{Shard, list_shards};
use crate::shard_reader::{Read, ShardReader};
use crate::skip_log::SkipLog;
use crate::test_shards::{LAYOUTS, Shards, bytes};

/// Reads all there is; gives the number of documents, of skipped places, or the error.
fn read_all(shard: &Shard, skip: Option<&SkipLog>) -> Result<(usize, usize), DataError> {
    let mut reader = ShardReader::open(shard, skip)?;
    let (mut documents, mut skipped) = (0, 0);
    let mut number = 0;
    loop {
        let before = reader.document();
        assert!(before >= number, "documents are numbered upwards");
        number = before;
        match reader.read()? {
            Read::Part(part) => documents += usize::from(part.last),
            Read::Skipped => skipped += 1,
            Read::End => return Ok((documents, skipped)),
        }
    }
}

#[derive(Debug, Clone)]
enum Damage {
    Cut(f64),
    Flip(Vec<(f64, u8)>),
    Insert(f64, Vec<u8>),
    Repeat(f64, f64),
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0.0..1.0).prop_map(Damage::Cut),
        prop::collection::vec((0.0..1.0, 1..=255u8), 1..5).prop_map(Damage::Flip),
        (0.0..1.0, prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (0.0..1.0, 0.0..1.0).prop_map(|(at, length)| Damage::Repeat(at, length)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    let length = bytes.len();
    let at = |fraction: &f64| ((length as f64 * fraction) as usize).min(length - 1);
    match damage {
        Damage::Cut(end) => bytes.truncate(at(end)),
        Damage::Flip(flips) => flips.iter().for_each(|(place, mask)| bytes[at(place)] ^= mask),
        Damage::Insert(place, more) => drop(bytes.splice(at(place)..at(place), more.iter().copied())),
        Damage::Repeat(place, size) => {
            let from = at(place);
            let piece = bytes[from..(from + at(size)).min(length)].to_vec();
            bytes.splice(from..from, piece);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_shards_end_in_an_error_that_names_them(layout in 0..4usize, damage in damages(), count in 1..40usize, skip_to in 0..60u64) {
        let texts: Vec<String> = (0..count).map(|at| format!("Document {at}: “quoted” \\ text\n{}", "word ".repeat(at * 7 % 50))).collect();
        let shards = Shards::new();
        let path = shards.folder.path().join(format!("a-0.{}", LAYOUTS[layout]));
        std::fs::write(&path, damaged(bytes(LAYOUTS[layout], &texts), &damage)).unwrap();
        let shard = list_shards(&shards.config(&[("a", 1.0)], 8).corpora, &Default::default()).unwrap().remove(0);
        let begin = Instant::now();
        let log = SkipLog::new();
        let stopped = read_all(&shard, None);
        let skipped = read_all(&shard, Some(&log));
        for error in [stopped.as_ref().err(), skipped.as_ref().err()].into_iter().flatten() {
            let message = error.to_string();
            prop_assert!(message.contains("a-0.") && message.contains("\nhint: ") && !message.contains("word word"), "{message}");
        }
        match (&stopped, &skipped) {
            // Where nothing stops, nothing is skipped.
            (Ok(whole), Ok(also)) => prop_assert_eq!((whole, log.count()), (also, 0)),
            (Err(error), Ok(_)) => prop_assert!(log.count() > 0 && error.bad_record().is_some()),
            (Err(error), Err(_)) => prop_assert!(error.bad_record().is_none(), "{error} was not skipped"),
            (Ok(_), Err(error)) => prop_assert!(false, "only skipping fails: {error}"),
        }
        if let Ok(mut reader) = ShardReader::open(&shard, None) && reader.skip_to(skip_to).is_ok() {
            prop_assert!(reader.document() <= skip_to);
            let _ = reader.read();
        }
        prop_assert!(begin.elapsed() < Duration::from_secs(10));
    }

    /// The reader of long lines takes from any line what the reader of short ones takes.
    #[test]
    fn long_lines_read_as_short_ones(text in "\\PC{0,40}", other in "[a-z\\\\\"{}\\[\\],:é😀\n]{0,20}", first in any::<bool>(),
                                     flip in prop::option::of((0.0..1.0, 1..127u8)), buffer in 1..40usize, head in 0..30usize) {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let (before, after) = if first { (String::new(), format!(", \"meta\": {{\"k\": [{}, -1.5e3, null]}}", quoted(&other))) }
            else { (format!("{}: {{\"text\": [true]}}, ", quoted(&format!("k{other}"))), String::new()) };
        let mut line = format!("{{{before}\"text\" : {}{after}}}", quoted(&text)).into_bytes();
        if let Some((at, mask)) = flip {
            let at = (line.len() as f64 * at) as usize;
            line[at] ^= mask;
        }
        line.retain(|byte| *byte != b'\n');
        let short = std::str::from_utf8(&line).map(|line| pick_text(line, "text"));
        let mut rest: Vec<u8> = line.split_off(head.min(line.len()));
        rest.extend(b"\nnext");
        let mut input = std::io::BufReader::with_capacity(buffer, &*rest);
        let mut long = LongLine::new(line);
        let found = long.next_part(&mut input, "text");
        match (&short, &found) {
            (Ok(Picked::Text(short)), Ok((found, last))) => prop_assert_eq!((short, true), (found, *last)),
            // A flipped byte can make the wanted key stand twice.
            (Ok(Picked::Text(_)), Err(LongLineError::NotJson(_, reason))) => prop_assert!(reason.contains("twice"), "{reason}"),
            (Ok(Picked::Text(_)), Err(error)) => prop_assert!(false, "{error:?}"),
            (Ok(Picked::Missing | Picked::Other(_)), Ok(_)) => prop_assert!(false, "found {found:?}"),
            _ => {}
        }
        if found.is_err() {
            long.pass(&mut input).unwrap();
        }
        let mut next = String::new();
        std::io::Read::read_to_string(&mut input, &mut next).unwrap();
        prop_assert_eq!(next, "next");
    }
}
