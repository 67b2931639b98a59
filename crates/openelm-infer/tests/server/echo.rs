//! Prompts that are told with their answers, and their log-probabilities.

use std::sync::Arc;

use openelm_checkpoint::Weights;
use openelm_infer::server::{ServedModel, Server, ServerSettings};
use openelm_infer::{ContextGroup, Decoder, DecoderScorer, HostDecoder, HostOptions, Run, TokenScorer, Wanted};
use openelm_tokenizer::{ChatTemplate, Tokenizer};
use serde_json::{Value, json};

use crate::answers::{COMPLETIONS, streamed, text, with};
use crate::client::post;
use crate::model::{CONTEXT, decoder, ids, server, tokenizer};

/// Log-probabilities of every token behind every beginning of `ids`: `[position][vocabulary]`.
fn expected(ids: &[u32]) -> Vec<Vec<f64>> {
    let decoder = decoder();
    let mut cache = decoder.cache(ids.len());
    let logits = decoder.read(&mut [Run { ids, cache: &mut cache, logits: Wanted::All }]).unwrap().concat();
    let position = |logits: &[f32]| {
        let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        logits.iter().map(|logit| f64::from(*logit) - total.ln()).collect()
    };
    logits.chunks_exact(decoder.config().vocab_size).map(position).collect()
}

/// Whether `logprobs` are those of the prompt `ids`, with `count` likeliest tokens each, as far as the prompt goes.
fn check(logprobs: &Value, ids: &[u32], count: usize) {
    let expected = expected(ids);
    assert_eq!((&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]), (&Value::Null, &Value::Null));
    for (place, (id, expected)) in ids[1..].iter().zip(expected).enumerate() {
        let found = logprobs["token_logprobs"][place + 1].as_f64().unwrap();
        assert!((found - expected[*id as usize]).abs() < 1e-4, "token {place}: {found} {}", expected[*id as usize]);
        let top = logprobs["top_logprobs"][place + 1].as_object().unwrap();
        // Bytes and pieces that are the same text stand there once.
        assert!(top.len() <= count && top.len() >= count.div_ceil(2), "{top:?}");
        if count > 0 {
            let likeliest = top.values().map(|value| value.as_f64().unwrap()).fold(f64::MIN, f64::max);
            assert!((likeliest - expected.iter().copied().fold(f64::MIN, f64::max)).abs() < 1e-4);
        }
    }
}

#[test]
fn a_prompt_is_scored_without_an_answer() {
    let server = server();
    let ask = |more: Value| post(server.address(), COMPLETIONS, &with(&json!({"echo": true, "max_tokens": 0}), more)).ok();
    // Longer than a piece of the prompts, and asked for twice: nothing is taken over from the first time.
    let prompt = "every answer is a song, and the song is small. The sea\u{e9} sings. ".repeat(2) + "bird";
    for count in [0, 3, 0, 1, 20] {
        let answer = ask(json!({"prompt": prompt, "logprobs": count}));
        let (choice, usage) = (&answer["choices"][0], &answer["usage"]);
        assert_eq!((choice["text"].as_str(), &choice["finish_reason"]), (Some(prompt.as_str()), &json!("length")));
        let tokens = ids(&prompt);
        assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(tokens.len()), &json!(0)));
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
        let logprobs = &choice["logprobs"];
        assert_eq!(logprobs["tokens"].as_array().unwrap().len(), tokens.len());
        check(logprobs, &tokens, count);
        // The tokens stand where they are said to stand.
        for (token, offset) in logprobs["tokens"].as_array().unwrap().iter().zip(logprobs["text_offset"].as_array().unwrap()).skip(2) {
            let token = token.as_str().unwrap();
            let behind: String = prompt.chars().skip(offset.as_u64().unwrap() as usize).collect();
            assert!(behind.starts_with(token) || token.starts_with("bytes:"), "{token:?} at {offset}");
        }
    }
    let silent = ask(json!({"prompt": prompt}));
    assert_eq!((text(&silent), &silent["choices"][0]["logprobs"]), (prompt, &Value::Null));
    let least = ask(json!({"prompt": [5], "logprobs": 1}));
    assert_eq!(least["choices"][0]["logprobs"]["token_logprobs"], json!([null]));
}

#[test]
fn many_prompts_of_ids_at_once() {
    let server = server();
    let prompts: Vec<Vec<u32>> =
        (0..7).map(|place| ids(&("the song of the sea ".repeat(place * 2) + ["bird", "small"][place % 2]))).collect();
    let request = json!({"prompt": prompts, "echo": true, "max_tokens": 0, "logprobs": 10, "temperature": 0.0, "seed": 1234});
    let answers = std::thread::scope(|scope| {
        let long = scope.spawn(|| post(server.address(), COMPLETIONS, &json!({"prompt": "x", "max_tokens": 60, "temperature": 0})).ok());
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| post(server.address(), COMPLETIONS, &request).ok())).collect();
        let alone = text(&post(server.address(), COMPLETIONS, &json!({"prompt": "x", "max_tokens": 60, "temperature": 0})).ok());
        assert_eq!(text(&long.join().unwrap()), alone);
        calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<_>>()
    });
    for answer in answers {
        for (prompt, choice) in prompts.iter().zip(answer["choices"].as_array().unwrap()) {
            assert_eq!(choice["text"], tokenizer().decode(prompt));
            check(&choice["logprobs"], prompt, 10);
        }
    }
}

#[test]
fn the_answer_follows_its_prompt() {
    let server = server();
    let ask = |request: &Value| post(server.address(), COMPLETIONS, request).ok();
    let prompt = "the small bird sings";
    for (count, temperature) in [(0, 0.0), (4, 1.0)] {
        let plain = json!({"prompt": prompt, "max_tokens": 9, "temperature": temperature, "seed": 3, "logprobs": count, "n": 2});
        let echoed = with(&plain, json!({"echo": true}));
        let (plain, whole) = (ask(&plain), ask(&echoed));
        assert_eq!(whole["usage"]["total_tokens"], plain["usage"]["total_tokens"]);
        let chunks = post(server.address(), COMPLETIONS, &with(&echoed, json!({"stream": true}))).chunks();
        let length = ids(prompt).len();
        for index in 0..2 {
            let (choice, own) = (&whole["choices"][index], &plain["choices"][index]);
            assert_eq!(choice["text"].as_str().unwrap(), prompt.to_owned() + own["text"].as_str().unwrap());
            assert_eq!(streamed(&chunks, index), choice["text"].as_str().unwrap());
            check(&choice["logprobs"], &ids(prompt), count);
            let list = |logprobs: &Value, name: &str| logprobs[name].as_array().unwrap().clone();
            assert_eq!(list(&choice["logprobs"], "tokens")[length..], list(&own["logprobs"], "tokens"));
            for (mine, theirs) in list(&choice["logprobs"], "token_logprobs")[length..].iter().zip(list(&own["logprobs"], "token_logprobs"))
            {
                assert!((mine.as_f64().unwrap() - theirs.as_f64().unwrap()).abs() < 1e-4);
            }
            for (mine, theirs) in list(&choice["logprobs"], "text_offset")[length..].iter().zip(list(&own["logprobs"], "text_offset")) {
                assert_eq!(mine.as_u64().unwrap(), theirs.as_u64().unwrap() + prompt.len() as u64);
            }
            let told = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
            let tokens: Vec<Value> = told.filter_map(|choice| choice["logprobs"]["tokens"].as_array().cloned()).flatten().collect();
            assert_eq!(tokens, list(&choice["logprobs"], "tokens"));
        }
    }
}

#[test]
fn the_last_token_of_a_scored_prompt_needs_no_room() {
    let server = server();
    let ask = |length: usize| {
        let prompt: Vec<usize> = (0..length).map(|place| 3 + place % 90).collect();
        post(server.address(), COMPLETIONS, &json!({"prompt": prompt, "echo": true, "max_tokens": 0, "logprobs": 1}))
    };
    let most = ask(CONTEXT + 1).ok();
    assert_eq!(most["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), CONTEXT + 1);
    assert_eq!(ask(CONTEXT + 2).json()["error"]["code"], "context_length_exceeded");
}

#[test]
fn the_engine_for_the_cpu_scores_as_an_evaluation_does() {
    let Some(reference) = reference_values::reference() else { return };
    let open = || HostDecoder::open(&Weights::open(&reference.join("hf-5m")).unwrap(), HostOptions::default()).unwrap();
    let tokenizer = Tokenizer::load(&reference.join("hf-5m")).unwrap();
    let template = ChatTemplate::openelm_instruct().unwrap();
    let model = ServedModel { name: "5m".into(), decoder: Arc::new(open()), draft: None, tokenizer: tokenizer.clone(), template };
    let server = Server::start(model, ServerSettings::default(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let context = [vec![tokenizer.bos_id().unwrap()], tokenizer.encode("Once upon a time there was a river that")].concat();
    let continuations: Vec<Vec<u32>> = ["ran to the sea.", "was", "sang every day"].map(|text| tokenizer.encode(text)).to_vec();
    let group = ContextGroup { context: context.clone(), continuations: continuations.clone() };
    let expected = DecoderScorer::new(&open(), 512).score(&[group]).unwrap().remove(0);
    let prompts: Vec<Vec<u32>> = continuations.iter().map(|tokens| [context.clone(), tokens.clone()].concat()).collect();
    for count in [0, 10] {
        let request = json!({"prompt": prompts, "echo": true, "max_tokens": 0, "logprobs": count});
        let answer = post(server.address(), COMPLETIONS, &request).ok();
        for (choice, expected) in answer["choices"].as_array().unwrap().iter().zip(&expected) {
            let tokens = choice["logprobs"]["token_logprobs"].as_array().unwrap();
            let sum: f64 = tokens[context.len()..].iter().map(|value| value.as_f64().unwrap()).sum();
            assert!((sum - expected.log_probability).abs() < 1e-3, "{sum} {expected:?}");
        }
    }
}
