//! Chat templates: OpenELM-instruct's against the text that alignment-handbook made, others against what `transformers` renders.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use openelm_tokenizer::{ChatMessage, ChatTemplate, ChatTemplateError, Tokenizer};
use serde_json::Value;

fn render(source: &str, messages: &[ChatMessage], answer: bool) -> Result<String, ChatTemplateError> {
    ChatTemplate::new(source, "of the test").unwrap().render(messages, &tokenizer(), answer)
}

/// Three control tokens and some letters.
fn tokenizer() -> Tokenizer {
    let control = |(id, content)| {
        serde_json::json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
        })
    };
    let controls: Vec<Value> = ["<unk>", "<s>", "</s>"].iter().enumerate().map(control).collect();
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": controls,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "truncation": null, "padding": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": false, "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}, "merges": []},
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"bos_token": "<s>", "eos_token": "</s>"}"#).unwrap();
    Tokenizer::load(&path).unwrap()
}

/// The messages that a text of OpenELM-instruct's form holds.
fn messages_of(text: &str) -> Vec<ChatMessage> {
    let message = |turn: &str| {
        let (role, content) = turn.strip_prefix("<|").unwrap().split_once("|>\n").unwrap();
        ChatMessage::new(role, content)
    };
    text.split_terminator("</s>\n").map(message).collect()
}

#[test]
fn openelm_instruct_is_alignment_handbooks() {
    let Some(shared) = reference_values::shared() else { return };
    let tokenizer = Tokenizer::load(&shared.join("reference/hf-5m")).unwrap();
    let template = ChatTemplate::openelm_instruct().unwrap();
    let bytes = std::fs::read(shared.join("reference/dpo/dpo.json")).unwrap();
    let reference: Value = serde_json::from_slice(&bytes).unwrap();
    let mut empty_system = 0;
    for pair in reference["pairs"].as_array().unwrap() {
        let text = |name: &str| pair["text"][name].as_str().unwrap();
        let prompt = messages_of(text("prompt"));
        assert_eq!(template.render(&prompt, &tokenizer, false).unwrap(), text("prompt"));
        // The empty system message comes by itself.
        if let Some(rest) = prompt.strip_prefix(&[ChatMessage::new("system", "")]) {
            assert_eq!(template.render(rest, &tokenizer, false).unwrap(), text("prompt"));
            empty_system += 1;
        }
        for answer in ["chosen", "rejected"] {
            // The answer alone, as preference training renders it, and behind its prompt.
            assert_eq!(template.render(&messages_of(text(answer)), &tokenizer, false).unwrap(), text(answer));
            let begun = template.render(&prompt, &tokenizer, true).unwrap();
            assert_eq!(begun, text("prompt").to_owned() + "<|assistant|>\n");
            assert!((text("prompt").to_owned() + text(answer)).starts_with(&begun));
        }
        // TRL's tokens begin with BOS; where there were more than 192, it kept the last.
        let expected: Vec<u32> = pair["prompt_input_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let ids = template.encode(&prompt, &tokenizer, false).unwrap();
        assert!(ids.ends_with(&expected), "{ids:?} {expected:?}");
        assert_eq!(ids.first(), tokenizer.bos_id().as_ref());
        assert!(ids.len() == expected.len() || expected.len() == 192);
    }
    assert!(empty_system >= 10);
}

#[test]
fn templates_are_read_as_transformers_reads_them() {
    let talk = [ChatMessage::new("user", " hi ü<b> "), ChatMessage::new("assistant", "a=b")];
    // Each expected text is what `tokenizer.apply_chat_template(..., tokenize=False)` of transformers gives.
    for (source, answer, expected) in [
        ("  {% for m in messages %}\n{{ m.role }}\n  {% endfor %}\nend", false, "user\nassistant\nend"),
        ("{{ bos_token }}{% if add_generation_prompt %}go{% endif %}{{ eos_token }}\n", true, "<s>go</s>"),
        ("{{ messages|tojson }}", false, r#"[{"role": "user", "content": " hi ü<b> "}, {"role": "assistant", "content": "a=b"}]"#),
        ("{{ [1, {'a': []}]|tojson(indent=2) }}", false, "[\n  1,\n  {\n    \"a\": []\n  }\n]"),
        ("{{ messages[0].content.strip().split('<')[0] }}|{{ messages[-1]['content'].replace('=', ' ').upper() }}", false, "hi ü|A B"),
        ("{{ messages[0].get('name', 'none') }}{{ 'x' if messages[0].content.startswith(' h') }}", false, "nonex"),
        ("{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% endfor %}", false, "role=assistant;content=a=b;"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}", false, "3"),
        ("{{ missing }}{{ '-'.join(['a', 'b']) }}{{ 'a b'.title() }}{{ 'xx'.rstrip('x') }}{{ 'übe'.find('e') }}", false, "a-bA B2"),
        ("{%- if tools is defined and tools %}t{% else %}n{% endif -%}  ", false, "n"),
    ] {
        assert_eq!(render(source, &talk, answer).unwrap(), expected, "{source}");
    }
    let year: u32 = render("{{ strftime_now('%Y') }}", &talk, false).unwrap().parse().unwrap();
    assert!(year >= 2024);
}

#[test]
fn a_template_that_writes_bos_gets_no_second() {
    let (tokenizer, talk) = (tokenizer(), [ChatMessage::new("user", "ab")]);
    for source in ["{{ bos_token + messages[0].content }}", "{{ messages[0].content }}"] {
        let template = ChatTemplate::new(source, "").unwrap();
        assert_eq!(template.encode(&talk, &tokenizer, true).unwrap(), [1, 3, 4]);
    }
    let template = ChatTemplate::new("{{ messages[0].content + eos_token }}", "").unwrap();
    assert_eq!(template.encode(&talk, &tokenizer, true).unwrap(), [1, 3, 4, 2]);
}

#[test]
fn what_cannot_be_rendered_says_why() {
    let talk = [ChatMessage::new("robot", "x")];
    let message = |source: &str| match ChatTemplate::new(source, "of m") {
        Err(error) => error.to_string(),
        Ok(template) => template.render(&talk, &tokenizer(), false).unwrap_err().to_string(),
    };
    for (source, parts) in [
        ("a\n{% for %}", ["chat template of m, line 2", "hint: the template must be Jinja"]),
        ("{% if x %}", ["line 1", "end of input"]),
        ("\n{{ raise_exception('no robots') }}", ["chat template of m refuses these messages: no robots", "hint: send the roles"]),
        (openelm_tokenizer::OPENELM_INSTRUCT, ["refuses these messages: the role is robot", "system, user and assistant"]),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", ["does not come to an end", "hint: look for"]),
        (
            "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            ["does not come to an end", ""],
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ["line 1", "recursion"]),
        ("\n\n{{ messages[0].content.explode() }}", ["line 3", "a string has no method explode"]),
        ("{{ messages[5].content }}", ["line 1", "undefined"]),
        ("{{ messages[0].content.strip('a', 'b') }}", ["line 1", "too many arguments"]),
        ("{{ messages|nofilter }}", ["line 1", "nofilter"]),
    ] {
        let message = message(source);
        assert!(parts.iter().all(|part| message.contains(part)), "{source}: {message}");
        assert!(message.lines().last().unwrap().starts_with("hint: "), "{message}");
    }
}

#[test]
fn texts_longer_than_any_memory_are_not_made() {
    let talk = [ChatMessage::new("user", "x")];
    let long = "{% set x = 'a' * 1000000 %}";
    let shared = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}";
    for source in [
        format!("{long}{{{{ x.replace('', x) }}}}"),
        format!("{long}{{{{ x.replace('a', x, 1000000) }}}}"),
        format!("{long}{{{{ x.join(range(100000)) }}}}"),
        format!("{long}{{{{ ([x] * 100000)|tojson }}}}"),
        "{{ messages|tojson(indent=1000000000000) }}".to_owned(),
        "{{ messages|tojson(indent=18446744073709551615) }}".to_owned(),
        shared.to_owned(),
    ] {
        let message = render(&source, &talk, false).unwrap_err().to_string();
        assert!(message.contains("does not come to an end"), "{source}: {message}");
    }
    let nested = "{% set ns = namespace(x=1) %}{% for i in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}";
    assert!(render(nested, &talk, false).unwrap_err().to_string().contains("deeper than 128 levels"));
    assert_eq!(render("{{ [[], {}, (1, none), 'é'.replace('', '-')]|tojson }}", &talk, false).unwrap(), r#"[[], {}, [1, null], "-é-"]"#);
}
