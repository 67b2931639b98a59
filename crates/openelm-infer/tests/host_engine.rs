//! The CPU engine against CoreNet's values, llama.cpp's, and the engine on burn's operations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use openelm_checkpoint::{Device, Weights};
use openelm_formats::DType;
use openelm_infer::{
    BurnDecoder, Decoder, Draft, HostDecoder, HostOptions, KvType, Limits, Run, Sampler, SamplingSettings, Wanted, generate,
};
use openelm_model::Precision;
use reference_values::{json, reference};

/// Logits [ids, vocabulary] of a sequence that is read in these parts.
fn read(decoder: &dyn Decoder, ids: &[u32], parts: &[usize]) -> Vec<f32> {
    let mut cache = decoder.cache(ids.len());
    let (mut logits, mut done) = (Vec::new(), 0);
    for part in parts {
        let run = Run { ids: &ids[done..done + part], cache: &mut cache, logits: Wanted::All };
        logits.extend(decoder.read(&mut [run]).unwrap().remove(0));
        done += part;
    }
    assert_eq!(done, ids.len());
    logits
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// −Σ ln p(id) over all ids after the first, divided by their number.
fn mean_nll(logits: &[f32], ids: &[u32]) -> f64 {
    let vocabulary = logits.len() / ids.len();
    let mut sum = 0.0;
    for (row, next) in logits.chunks_exact(vocabulary).zip(&ids[1..]) {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let total: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        sum += total.ln() - f64::from(row[*next as usize] - largest);
    }
    sum / (ids.len() - 1) as f64
}

#[test]
fn few_and_many_tokens_give_the_logits_of_burns_operations() {
    let Some(folder) = reference().map(|reference| reference.join("hf-5m")) else { return };
    let weights = Weights::open(&folder).unwrap();
    let burn = BurnDecoder::new(weights.model(&Device::flex()).unwrap(), Precision::F32);
    let ids: Vec<u32> = (0..150).map(|i| (i * i * 31 + 7) % 2000).collect();
    let expected = read(&burn, &ids, &[ids.len()]);
    let host = HostDecoder::open(&weights, HostOptions::default()).unwrap();
    for parts in [&[150][..], &[1, 2, 8, 9, 100, 30], &[120, 8, 8, 8, 6]] {
        let found = read(&host, &ids, parts);
        assert!(apart(&found, &expected) < 1e-4, "{parts:?}: {}", apart(&found, &expected));
    }
    let copied = HostDecoder::open(&weights, HostOptions { in_memory: true, ..Default::default() }).unwrap();
    assert_eq!(read(&copied, &ids, &[150]), read(&host, &ids, &[150]));
    // Other types of the cache cost a little accuracy each.
    for (kv, bound) in [(KvType::F16, 5e-3), (KvType::Bf16, 5e-2), (KvType::Q8, 5e-2)] {
        let host = HostDecoder::open(&weights, HostOptions { kv, ..Default::default() }).unwrap();
        let found = read(&host, &ids, &[140, 1, 9]);
        let apart = apart(&found, &expected);
        assert!(apart > 0.0 && apart < bound, "{kv:?}: {apart}");
    }
    let bf16 = HostDecoder::open(&weights, HostOptions { convert: Some(DType::BF16), ..Default::default() }).unwrap();
    let found = mean_nll(&read(&bf16, &ids, &[150]), &ids);
    let expected = mean_nll(&expected, &ids);
    assert!((found / expected - 1.0).abs() < 2e-3, "{found} {expected}");
}

#[test]
fn sequences_read_together_are_those_read_alone() {
    let Some(folder) = reference().map(|reference| reference.join("hf-tiny")) else { return };
    let host = HostDecoder::open(&Weights::open(&folder).unwrap(), HostOptions::default()).unwrap();
    let sequence = |seed: u32, length: u32| -> Vec<u32> { (0..length).map(|i| (i * 37 + seed * 101) % 2000).collect() };
    for lengths in [[1, 2, 3], [20, 1, 1], [3, 40, 9], [5, 4, 7]] {
        let sequences: Vec<Vec<u32>> = lengths.iter().enumerate().map(|(seed, length)| sequence(seed as u32, *length + 5)).collect();
        let mut caches: Vec<_> = sequences.iter().map(|_| host.cache(64)).collect();
        let mut begin: Vec<Run<'_>> = Vec::new();
        for (ids, cache) in sequences.iter().zip(&mut caches) {
            begin.push(Run { ids: &ids[..5], cache, logits: Wanted::Nothing });
        }
        assert!(host.read(&mut begin).unwrap().iter().all(Vec::is_empty));
        drop(begin);
        let mut runs: Vec<Run<'_>> = Vec::new();
        for ((ids, cache), logits) in sequences.iter().zip(&mut caches).zip([Wanted::Last, Wanted::All, Wanted::Last]) {
            runs.push(Run { ids: &ids[5..], cache, logits });
        }
        let together = host.read(&mut runs).unwrap();
        drop(runs);
        for ((ids, cache), found) in sequences.iter().zip(&caches).zip(&together) {
            let alone = read(&host, ids, &[ids.len()]);
            let expected = &alone[alone.len() - found.len()..];
            assert!(apart(found, expected) < 1e-4, "{lengths:?}: {}", apart(found, expected));
            assert_eq!(cache.length(), ids.len());
            // A fork goes on from the middle as if nothing had followed.
            let mut fork = cache.fork(4);
            let run = Run { ids: &ids[4..6], cache: &mut fork, logits: Wanted::Last };
            let next = host.read(&mut [run]).unwrap().remove(0);
            let vocabulary = next.len();
            assert!(apart(&next, &alone[5 * vocabulary..6 * vocabulary]) < 1e-4);
        }
    }
}

#[test]
fn more_tokens_than_a_batch_holds_are_read_and_looked_up_batch_by_batch() {
    let mut config = openelm_model::preset("OpenELM-tiny").unwrap();
    config.vocab_size = 70;
    let mut state = 1_u32;
    let host = HostDecoder::build::<openelm_infer::InferError>(&config, |info| {
        let value = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(state >> 8) / f64::from(1 << 24) - 0.5) as f32 * 0.3
        };
        Ok((0..info.shape.iter().product()).map(value).collect())
    })
    .unwrap();
    // The first fills more than a batch; the next share one; the last but one begins another; the last is read alone by few tokens' way.
    let sequences: Vec<Vec<u32>> =
        [1400, 300, 500, 400, 3].map(|length| (0..length).map(|i| (i * i * 13 + length) % 70).collect()).to_vec();
    let wanted = [Wanted::End(500), Wanted::All, Wanted::Nothing, Wanted::End(9), Wanted::Last];
    let mut caches: Vec<_> = sequences.iter().map(|ids| host.cache(ids.len())).collect();
    let mut others: Vec<_> = sequences.iter().map(|ids| host.cache(ids.len())).collect();
    let mut runs: Vec<Run<'_>> = Vec::new();
    for ((ids, cache), logits) in sequences.iter().zip(&mut caches).zip(wanted) {
        runs.push(Run { ids, cache, logits });
    }
    let together = host.read(&mut runs).unwrap();
    runs.clear();
    for ((ids, cache), logits) in sequences.iter().zip(&mut others).zip(wanted) {
        runs.push(Run { ids, cache, logits });
    }
    let asked: Vec<Vec<u32>> = (0..500 + 300 + 9 + 1).map(|i| vec![i % 70, (i * 7 + 1) % 70][..1 + i as usize % 2].to_vec()).collect();
    let lists: Vec<&[u32]> = asked.iter().map(Vec::as_slice).collect();
    let mut found = host.look_up(&mut runs, &lists).unwrap().into_iter();
    assert_eq!(found.len(), asked.len());
    drop(runs);
    let mut asked = asked.into_iter();
    for ((ids, cache), logits) in sequences.iter().zip(&caches).zip(&together) {
        assert_eq!(cache.length(), ids.len());
        let parts: Vec<usize> = ids.chunks(201).map(<[u32]>::len).collect();
        let alone = read(&host, ids, &parts);
        assert!(apart(logits, &alone[alone.len() - logits.len()..]) < 1e-4, "{}", ids.len());
        for row in logits.chunks_exact(70) {
            let (ids, found) = (asked.next().unwrap(), found.next().unwrap());
            let log_sum = row.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
            assert!((found.log_sum - log_sum).abs() < 1e-5, "{} {log_sum}", found.log_sum);
            assert_eq!(found.largest, row.iter().copied().fold(f32::MIN, f32::max));
            assert_eq!(found.logits, ids.iter().map(|id| row[*id as usize]).collect::<Vec<_>>());
        }
    }
    assert!(asked.next().is_none() && found.next().is_none());
}

#[test]
fn every_gguf_file_scores_as_in_llama_cpp() {
    let Some(folder) = reference().map(|reference| reference.join("gguf")) else { return };
    let expected = json(&folder.join("llama_cpp.json"));
    let mut checked = 0;
    for (name, values) in expected["models"].as_object().unwrap() {
        // The converter's lower case for what it wrote itself.
        let path = [name.clone(), name.replace("-Q8_0", "-q8_0")].map(|name| folder.join(name)).into_iter().find(|path| path.exists());
        let Some(path) = path else { continue };
        let ids: Vec<u32> = serde_json::from_value(values["token_ids"].clone()).unwrap();
        let nll = values["mean_negative_log_likelihood"].as_f64().unwrap();
        let host = HostDecoder::open(&Weights::open(&path).unwrap(), HostOptions::default()).unwrap();
        for parts in [vec![ids.len()], vec![1; ids.len()]] {
            let found = mean_nll(&read(&host, &ids, &parts), &ids);
            assert!((found / nll - 1.0).abs() < 2e-3, "{name} in {} parts: {found}, llama.cpp has {nll}", parts.len());
        }
        checked += 1;
    }
    assert!(checked >= 5, "{checked} files of llama_cpp.json lie in {}", folder.display());
}

#[test]
fn mlx_lms_file_has_mlx_lms_likelihood_in_its_own_bits() {
    let Some(folder) = reference().map(|reference| reference.join("mlx")) else { return };
    let (weights, expected) = (Weights::open(&folder.join("5m-4bit")).unwrap(), json(&folder.join("mlx.json")));
    let ids: Vec<u32> = serde_json::from_value(expected["token_ids"].clone()).unwrap();
    let nll = expected["4bit_group64"]["mean_negative_log_likelihood"].as_f64().unwrap();
    let open = |convert| HostDecoder::open(&weights, HostOptions { convert, ..Default::default() }).unwrap();
    let (own, wide) = (open(None), open(Some(DType::F32)));
    // 6 bits a weight with the scales of 32, instead of 32.
    let share = own.bytes_per_token() as f64 / wide.bytes_per_token() as f64;
    assert!((0.18..0.2).contains(&share), "{share}");
    let exact = mean_nll(&read(&wide, &ids, &[ids.len()]), &ids);
    assert!((exact / nll - 1.0).abs() < 1e-5, "{exact}, mlx-lm has {nll}");
    for parts in [vec![ids.len()], vec![1; ids.len()]] {
        let found = mean_nll(&read(&own, &ids, &parts), &ids);
        assert!((found / nll - 1.0).abs() < 2e-3, "in {} parts: {found}, mlx-lm has {nll}", parts.len());
    }
}

#[test]
fn guesses_change_the_speed_and_not_the_text() {
    let Some(folder) = reference() else { return };
    let open = |name: &str| HostDecoder::open(&Weights::open(&folder.join(name)).unwrap(), HostOptions::default()).unwrap();
    let [target, small, other]: [Arc<dyn Decoder>; 3] =
        ["gguf/5m-q8_0.gguf", "gguf/5m-Q4_0.gguf", "hf-tiny"].map(|name| Arc::new(open(name)) as Arc<dyn Decoder>);
    let prompt: Vec<u32> =
        serde_json::from_value(json(&folder.join("gguf/llama_cpp.json"))["models"]["5m-Q8_0.gguf"]["token_ids"].clone()).unwrap();
    let limits = Limits { max_new_tokens: 60, stop: Vec::new() };
    for settings in [SamplingSettings::default(), SamplingSettings { temperature: 0.9, top_p: 0.95, seed: 7, ..Default::default() }] {
        let text = |draft: Option<&mut Draft>| {
            let mut sampler = Sampler::new(settings).unwrap();
            let mut received = Vec::new();
            let made = generate(&*target, &prompt, &mut sampler, &limits, draft, |id| {
                received.push(id);
                true
            });
            let made = made.unwrap();
            assert_eq!(made.ids, received);
            made
        };
        let plain = text(None);
        assert_eq!((plain.ids.len(), plain.accepted), (60, 0));
        for tokens in [1, 4, 7] {
            let mut drafts = [
                Draft::lookup(tokens),
                Draft::model(Arc::clone(&small), &*target, tokens).unwrap(),
                Draft::model(Arc::clone(&other), &*target, tokens).unwrap(),
                // A model that guesses itself is nearly always right.
                Draft::model(Arc::clone(&target), &*target, tokens).unwrap(),
            ];
            let made = drafts.each_mut().map(|draft| text(Some(draft)));
            for (draft, made) in drafts.iter().zip(&made) {
                assert_eq!(made.ids, plain.ids, "{draft:?}, {settings:?}");
            }
            if settings.temperature == 0.0 {
                assert!(made[3].accepted > 60 * tokens / (tokens + 1) - tokens - 1, "{} of {tokens} guesses", made[3].accepted);
                assert!(made[1].accepted > 20 && made[0].accepted > 5, "{} and {}", made[1].accepted, made[0].accepted);
            }
        }
    }
}

#[test]
fn greedy_text_is_llama_cpps() {
    let Some(folder) = reference().map(|reference| reference.join("gguf")) else { return };
    let models = &json(&folder.join("llama_cpp.json"))["models"];
    for (name, file) in [("tiny-f32.gguf", "tiny-f32.gguf"), ("5m-f16.gguf", "5m-f16.gguf"), ("5m-Q8_0.gguf", "5m-q8_0.gguf")] {
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(models[name][key].clone()).unwrap() };
        let expected = ids("greedy");
        let host = HostDecoder::open(&Weights::open(&folder.join(file)).unwrap(), HostOptions::default()).unwrap();
        let mut sampler = Sampler::new(SamplingSettings::default()).unwrap();
        let limits = Limits { max_new_tokens: expected.len(), stop: Vec::new() };
        let made = generate(&host, &ids("token_ids"), &mut sampler, &limits, None, |_| true).unwrap();
        let Some(place) = made.ids.iter().zip(&expected).position(|(a, b)| a != b) else { continue };
        assert!(name.contains("Q8_0"), "{name}: {:?} instead of {expected:?}", made.ids);
        // Both round activations to 8 bits, but not to the same bits: where two tokens are equally likely, either may come.
        let ids: Vec<u32> = ids("token_ids").into_iter().chain(expected[..place].iter().copied()).collect();
        let logits = read(&host, &ids, &[ids.len()]);
        let last = &logits[logits.len() - host.config().vocab_size..];
        let gap = last[made.ids[place] as usize] - last[expected[place] as usize];
        assert!(place > 16 && gap < 0.05, "{name}: token {place} is {} instead of {}, {gap} apart", made.ids[place], expected[place]);
    }
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let Some(folder) = reference().map(|reference| reference.join("hf-tiny")) else { return };
    let weights = Weights::open(&folder).unwrap();
    let host = HostDecoder::open(&weights, HostOptions::default()).unwrap();
    let mut cache = host.cache(4);
    let mut other = host.cache(4);
    let mut refused = |ids: &[u32]| {
        let fine = Run { ids: &[1], cache: &mut other, logits: Wanted::Last };
        let error = host.read(&mut [fine, Run { ids, cache: &mut cache, logits: Wanted::Last }]).unwrap_err().to_string();
        assert_eq!((cache.length(), other.length()), (0, 0));
        error
    };
    assert!(refused(&[]).contains("no tokens"));
    assert!(refused(&[1, 99_999]).contains("99999"));
    assert!(refused(&[1; 5]).contains("5 tokens"));
    let burn = BurnDecoder::new(weights.model(&Device::flex()).unwrap(), Precision::F32);
    let mut foreign = burn.cache(4);
    let error = host.read(&mut [Run { ids: &[1], cache: &mut foreign, logits: Wanted::Last }]).unwrap_err();
    assert!(error.to_string().contains("another engine"));
}
