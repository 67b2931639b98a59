//! What clients get.

use std::sync::Arc;

use openelm_checkpoint::Weights;
use openelm_infer::server::{ServedModel, Server, ServerSettings};
use openelm_infer::{HostDecoder, HostOptions, Limits, Sampler, SamplingSettings, generate};
use openelm_tokenizer::{ChatMessage, ChatTemplate, Tokenizer};
use serde_json::{Value, json};

use crate::client::{get, post};
use crate::model::{decoder, generated, ids, server, tokenizer};

pub const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

/// A request with more fields.
pub fn with(base: &Value, more: Value) -> Value {
    let mut request = base.clone();
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

pub fn text(answer: &Value) -> String {
    let choice = &answer["choices"][0];
    choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap().to_owned()
}

/// The text of choice `index` of a stream.
pub fn streamed(chunks: &[Value], index: usize) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()).filter(|choice| choice["index"] == index);
    choices.filter_map(|choice| choice["text"].as_str().or(choice["delta"]["content"].as_str())).collect()
}

#[test]
fn whole_streamed_and_generated_texts_are_equal() {
    let (server, model) = (server(), decoder());
    let address = server.address();
    for (prompt, tokens) in [("the small bird", 40), ("every answer is a song, and the sea sings with it. Who", 25), ("x", 1), ("", 8)] {
        for (temperature, seed) in [(0.0, 0), (1.2, 11)] {
            let settings = SamplingSettings { temperature, seed, top_k: 40, top_p: 0.9, repetition_penalty: 1.1, ..Default::default() };
            let expected = generated(&model, &ids(prompt), tokens, settings);
            let request = json!({
                "model": "tiny", "prompt": prompt, "max_tokens": tokens, "temperature": temperature, "seed": seed,
                "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.1,
            });
            let whole = post(address, COMPLETIONS, &request).ok();
            assert_eq!(text(&whole), expected, "{prompt}");
            let finish = &whole["choices"][0]["finish_reason"];
            let usage = &whole["usage"];
            assert_eq!(usage["prompt_tokens"], ids(prompt).len());
            assert!(usage["completion_tokens"] == tokens || finish == "stop", "{whole}");
            assert_eq!(
                usage["total_tokens"],
                json!(usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap())
            );
            let options = json!({"stream": true, "stream_options": {"include_usage": true}});
            let chunks = post(address, COMPLETIONS, &with(&request, options)).chunks();
            assert_eq!(streamed(&chunks, 0), expected);
            let (last, others) = chunks.split_last().unwrap();
            assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &usage["total_tokens"]));
            assert!(
                others.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == last["id"] && chunk["object"] == "text_completion")
            );
            assert_eq!(&others.last().unwrap()["choices"][0]["finish_reason"], finish);
        }
    }
}

#[test]
fn chat_continues_the_templates_text() {
    let server = server();
    let messages = json!([{"role": "user", "content": "the small bird"}, {"role": "assistant", "content": "sings"},
        {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "song"}]}]);
    let turns = [("user", "the small bird"), ("assistant", "sings"), ("user", "a song")].map(|(role, text)| ChatMessage::new(role, text));
    let prompt = ChatTemplate::openelm_instruct().unwrap().encode(&turns, &tokenizer(), true).unwrap();
    let expected = generated(&decoder(), &prompt, 20, SamplingSettings::default());
    let request = json!({"model": "tiny", "messages": messages, "max_completion_tokens": 20, "temperature": 0, "user": "u", "tools": []});
    let whole = post(server.address(), CHAT, &request).ok();
    assert_eq!(text(&whole), expected);
    assert_eq!((&whole["object"], &whole["choices"][0]["message"]["role"]), (&json!("chat.completion"), &json!("assistant")));
    let chunks = post(server.address(), CHAT, &with(&request, json!({"stream": true}))).chunks();
    assert_eq!(streamed(&chunks, 0), expected);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    // Without a limit the answer goes on to the end of the text or of the context.
    let free = post(server.address(), CHAT, &json!({"messages": messages, "temperature": 0})).ok();
    assert!(text(&free).starts_with(&expected));
    let total = free["usage"]["total_tokens"].as_u64().unwrap() as usize;
    assert!(free["choices"][0]["finish_reason"] == "stop" || total == crate::model::CONTEXT + 1, "{free}");
}

#[test]
fn many_at_once_get_what_one_alone_gets() {
    let server = server();
    let address = server.address();
    let requests: Vec<Value> = (0..12)
        .map(|place| {
            let prompt = "the song of the sea ".repeat(place % 5) + ["bird", "small", "sings"][place % 3];
            json!({"prompt": prompt, "max_tokens": 10 + 3 * place, "temperature": if place % 2 == 0 { 0.0 } else { 1.0 }, "seed": place})
        })
        .collect();
    let alone: Vec<String> = requests.iter().map(|request| text(&post(address, COMPLETIONS, request).ok())).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = requests.iter().map(|request| scope.spawn(move || text(&post(address, COMPLETIONS, request).ok()))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn a_shared_beginning_is_read_once() {
    let server = server();
    let ask = |prompt: &str| {
        let answer = post(server.address(), COMPLETIONS, &json!({"prompt": prompt, "max_tokens": 12, "temperature": 0})).ok();
        (text(&answer), answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() as usize)
    };
    let beginning = "every answer is a song, and the song is small. ".repeat(3);
    let model = decoder();
    let mut reads = Vec::new();
    for end in ["bird", "sea", "bird", "bird sings a song"] {
        let prompt = beginning.clone() + end;
        let (text, reused) = ask(&prompt);
        assert_eq!(text, generated(&model, &ids(&prompt), 12, SamplingSettings::default()), "{end}");
        reads.push((reused, ids(&prompt).len()));
    }
    let common = ids(&beginning).len() - 2;
    assert_eq!(reads[0].0, 0);
    assert!(reads[1].0 >= common, "{reads:?}");
    // All but the last token, whose logits are needed.
    assert_eq!(reads[2].0, reads[2].1 - 1);
    assert!(reads[3].0 >= common, "{reads:?}");
    // A conversation goes on where its last answer ended.
    let long = beginning + "bird";
    let (answer, _) = ask(&long);
    assert!(ask(&(long.clone() + &answer + " the")).1 >= ids(&long).len());
}

#[test]
fn stop_strings_end_the_text_before_them() {
    let server = server();
    let request = json!({"prompt": "the small bird", "max_tokens": 30, "temperature": 1, "seed": 3});
    let whole = text(&post(server.address(), COMPLETIONS, &request).ok());
    let letters: Vec<char> = whole.chars().collect();
    assert!(letters.len() > 20, "{whole}");
    for (start, length) in [(6, 1), (7, 5), (3, 9), (15, 2)] {
        let stop: String = letters[start..start + length].iter().collect();
        let expected = whole.split(stop.as_str()).next().unwrap();
        let more = json!({"stop": [stop, "never to come"]});
        let answer = post(server.address(), COMPLETIONS, &with(&request, more.clone())).ok();
        assert_eq!((text(&answer).as_str(), &answer["choices"][0]["finish_reason"]), (expected, &json!("stop")));
        let stream = json!({"stream": true, "stop": stop});
        assert_eq!(streamed(&post(server.address(), COMPLETIONS, &with(&request, stream)).chunks(), 0), expected);
    }
    // What looks like the beginning of a stop string is given out at the end.
    let last: String = letters[letters.len() - 3..].iter().collect();
    let answer = post(server.address(), COMPLETIONS, &with(&request, json!({"stop": last + "?!"}))).ok();
    assert_eq!(text(&answer), whole);
}

#[test]
fn logprobs_are_the_models() {
    let server = server();
    let request = json!({"prompt": "the small bird", "max_tokens": 6, "temperature": 0, "logprobs": 5});
    let answer = post(server.address(), COMPLETIONS, &request).ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 6);
    let answered = text(&answer);
    for place in 0..6 {
        let (token, logprob) = (logprobs["tokens"][place].as_str().unwrap(), logprobs["token_logprobs"][place].as_f64().unwrap());
        let top = logprobs["top_logprobs"][place].as_object().unwrap();
        // Greedy: the token is the likeliest one.
        assert_eq!(top.len(), 5);
        assert_eq!(top.values().map(|value| value.as_f64().unwrap()).fold(f64::MIN, f64::max), logprob);
        assert_eq!(top[token].as_f64(), Some(logprob));
        assert!(top.values().map(|value| value.as_f64().unwrap().exp()).sum::<f64>() < 1.0 && logprob < 0.0);
        let offset = logprobs["text_offset"][place].as_u64().unwrap() as usize;
        let behind: String = answered.chars().skip(offset).collect();
        assert!(behind.starts_with(token) || token.starts_with("bytes:"), "{token:?} at {offset} of {answered:?}");
    }
    let whole =
        json!({"messages": [{"role": "user", "content": "bird"}], "max_tokens": 5, "temperature": 0, "logprobs": true, "top_logprobs": 2});
    let answer = post(server.address(), CHAT, &whole).ok();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 5);
    let bytes: Vec<u8> =
        content.iter().flat_map(|token| token["bytes"].as_array().unwrap()).map(|byte| byte.as_u64().unwrap() as u8).collect();
    assert_eq!(String::from_utf8_lossy(&bytes).trim_start(), text(&answer).trim_start());
    assert!(content.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
    let chunks = post(server.address(), CHAT, &with(&whole, json!({"stream": true}))).chunks();
    let streamed: Vec<&Value> = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].get(0)).collect();
    assert_eq!(streamed.len(), content.len());
    for (streamed, whole) in streamed.into_iter().zip(content) {
        assert_eq!(streamed["bytes"], whole["bytes"]);
        // The second prompt was taken over from the first, which rounds otherwise.
        assert!((streamed["logprob"].as_f64().unwrap() - whole["logprob"].as_f64().unwrap()).abs() < 1e-4, "{streamed} {whole}");
    }
}

#[test]
fn several_choices_and_several_prompts() {
    let server = server();
    let request =
        json!({"prompt": ["the small bird sings a song of the sea", "every answer"], "max_tokens": 9, "temperature": 1, "seed": 5, "n": 3});
    let answer = post(server.address(), COMPLETIONS, &request).ok();
    let choices = answer["choices"].as_array().unwrap();
    let texts: Vec<&str> = choices.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    let model = decoder();
    for (place, found) in texts.iter().enumerate() {
        let prompt = ids(request["prompt"][place / 3].as_str().unwrap());
        let settings = SamplingSettings { temperature: 1.0, seed: 5 + place as u64, ..Default::default() };
        assert_eq!(*found, generated(&model, &prompt, 9, settings), "choice {place}");
    }
    let prompts: usize = request["prompt"].as_array().unwrap().iter().map(|prompt| ids(prompt.as_str().unwrap()).len()).sum();
    assert_eq!(answer["usage"]["prompt_tokens"], prompts);
    let chunks = post(server.address(), COMPLETIONS, &with(&request, json!({"stream": true}))).chunks();
    for (place, found) in texts.iter().enumerate() {
        assert_eq!(streamed(&chunks, place), *found);
    }
    // Ids instead of texts.
    let by_ids = json!({"prompt": [ids("the small bird sings a song of the sea"), ids("every answer")], "max_tokens": 9, "temperature": 1, "seed": 5, "n": 3});
    assert_eq!(post(server.address(), COMPLETIONS, &by_ids).ok()["choices"], answer["choices"]);
}

#[test]
fn bias_and_penalties_change_what_is_likely() {
    let server = server();
    let ask = |more: Value| {
        text(&post(server.address(), COMPLETIONS, &with(&json!({"prompt": "the", "max_tokens": 8, "temperature": 0}), more)).ok())
    };
    let bird = tokenizer().encode("bird")[0];
    let forced = tokenizer().decode(&[bird; 8]);
    assert_eq!(ask(json!({"logit_bias": {bird.to_string(): 100}})).trim_start(), forced.trim_start());
    // Taken off for each time it came, the bias is used up.
    let penalised = ask(json!({"logit_bias": {bird.to_string(): 1.5}, "frequency_penalty": 2}));
    assert_ne!(penalised.trim_start(), ask(json!({"logit_bias": {bird.to_string(): 1.5}})).trim_start());
    let first = tokenizer().eos_id().unwrap();
    let ended =
        post(server.address(), COMPLETIONS, &json!({"prompt": "the", "temperature": 0, "logit_bias": {first.to_string(): 100}})).ok();
    assert_eq!((text(&ended).as_str(), &ended["choices"][0]["finish_reason"]), ("", &json!("stop")));
    let on = json!({"prompt": "the", "temperature": 0, "logit_bias": {first.to_string(): 100}, "ignore_eos": true, "max_tokens": 5});
    let on = post(server.address(), COMPLETIONS, &on).ok();
    assert_eq!((&on["usage"]["completion_tokens"], &on["choices"][0]["finish_reason"]), (&json!(5), &json!("length")));
}

#[test]
fn the_other_paths() {
    let server = server();
    let address = server.address();
    let models = get(address, "/v1/models").ok();
    assert_eq!(
        (&models["object"], &models["data"][0]["id"], &models["data"][0]["max_model_len"]),
        (&json!("list"), &json!("tiny"), &json!(256))
    );
    assert_eq!(get(address, "/v1/models/tiny").ok(), models["data"][0]);
    assert_eq!(get(address, "/v1/models/other/name").status, 404);
    assert_eq!(get(address, "/health").ok(), json!({"status": "ok"}));
    let page = get(address, "/");
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(page.body.contains("<!doctype html>") && !page.body.contains("http://") && !page.body.contains("https://"));
    assert_eq!(get(address, "/nothing").json()["error"]["type"], "invalid_request_error");
    assert_eq!(get(address, COMPLETIONS).status, 405);
    post(address, COMPLETIONS, &json!({"prompt": "the", "max_tokens": 4, "temperature": 0, "ignore_eos": true})).ok();
    let metrics = get(address, "/metrics").body;
    let prompt = ids("the").len();
    for line in [
        "openelm_requests_total{endpoint=\"/v1/completions\",status=\"200\"} 1",
        &format!("openelm_prompt_tokens_total {prompt}"),
        "openelm_generated_tokens_total 4",
        "openelm_slots 4",
        "openelm_queue_length 0",
        "openelm_first_token_seconds_count 1",
        "openelm_token_seconds_bucket{le=\"+Inf\"} 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
}

#[test]
fn the_engine_for_the_cpu_serves_what_it_generates() {
    let Some(reference) = reference_values::reference() else { return };
    let open = || HostDecoder::open(&Weights::open(&reference.join("hf-5m")).unwrap(), HostOptions::default()).unwrap();
    let tokenizer = Tokenizer::load(&reference.join("hf-5m")).unwrap();
    let template = ChatTemplate::openelm_instruct().unwrap();
    let model = ServedModel { name: "5m".into(), decoder: Arc::new(open()), draft: None, tokenizer: tokenizer.clone(), template };
    let settings = ServerSettings { context: Some(200), prefill_chunk: 16, ..ServerSettings::default() };
    let server = Server::start(model, settings, "127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, decoder) = (server.address(), open());
    let prompts =
        ["Once upon a time there was", "The river", "def main(arguments):\n    return arguments", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,"];
    let ids = |prompt: &str| [vec![tokenizer.bos_id().unwrap()], tokenizer.encode(prompt)].concat();
    let mut expected = Vec::new();
    for prompt in prompts {
        let limits = Limits { max_new_tokens: 20, stop: tokenizer.eos_id().into_iter().collect() };
        let mut greedy = Sampler::new(SamplingSettings::default()).unwrap();
        expected.push(generate(&decoder, &ids(prompt), &mut greedy, &limits, None, |_| true).unwrap().ids);
    }
    // All at once, twice, so that the second time their beginnings are remembered.
    std::thread::scope(|scope| {
        for (place, expected) in (0..).zip(expected.iter().cycle().take(2 * prompts.len())) {
            let (prompt, tokenizer) = (ids(prompts[place % prompts.len()]), &tokenizer);
            scope.spawn(move || {
                let answer = post(address, COMPLETIONS, &json!({"prompt": prompt, "max_tokens": 20, "temperature": 0})).ok();
                let mut stream = tokenizer.decoder();
                prompt.iter().for_each(|id| drop(stream.push(*id)));
                let made: String =
                    expected.iter().filter(|id| Some(**id) != tokenizer.eos_id()).filter_map(|id| stream.push(*id)).collect();
                assert_eq!(text(&answer), made + &stream.finish());
            });
        }
    });
}
