//! The layouts that rows come in, and what they say: a conversation to learn, or a prompt with a better and a worse answer.
//!
//! What must stay true: a row that lacks what its layout needs is a fault that names the key; nothing is guessed but the layout, by
//! the keys of each row, where the configuration leaves it open.

use openelm_tokenizer::ChatMessage;
use openelm_train::fix_text;
use serde_json::{Map, Value};

use crate::conversation::{Last, check_answers, check_roles, messages_of};
use crate::error::Fault;

/// How a row says its conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// By the row's keys.
    #[default]
    Auto,
    /// `messages`: a list of objects with `role` and `content`.
    Messages,
    /// `conversations`: ShareGPT's list of objects with `from` and `value`.
    Sharegpt,
    /// `instruction`, `input` (may be empty or absent) and `output`: one question and one answer.
    Alpaca,
    /// LLM-Adapters' commonsense-170k: the same keys, as the plain text that CoreNet makes of them
    /// (`data/datasets/language_modeling/commonsense_170k.py`), without a chat template.
    Commonsense,
}

/// What a supervised row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dialogue {
    Chat(Vec<ChatMessage>),
    /// Plain text, of which the second part is the answer.
    Text {
        prompt: String,
        answer: String,
    },
}

/// A prompt and two answers to it, one message each unless the row says more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preference {
    pub prompt: Vec<ChatMessage>,
    pub chosen: Vec<ChatMessage>,
    pub rejected: Vec<ChatMessage>,
}

type Fields = Map<String, Value>;

/// The conversation of a supervised row.
pub(crate) fn dialogue_of(fields: &Fields, layout: Layout) -> Result<Dialogue, Fault> {
    let has = |key: &str| fields.contains_key(key);
    let layout = match layout {
        Layout::Auto if has("messages") => Layout::Messages,
        Layout::Auto if has("conversations") => Layout::Sharegpt,
        Layout::Auto if has("instruction") && has("output") && has("answer") => Layout::Commonsense,
        Layout::Auto if has("instruction") && has("output") => Layout::Alpaca,
        Layout::Auto => {
            let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
            let hint = "a row has messages, conversations, or instruction and output";
            return Err(Fault::form(format!("none of the known layouts has the keys {}", keys.join(", ")), hint));
        }
        given => given,
    };
    let chat = |key: &str| {
        let messages = messages_of(required(fields, key)?, key)?;
        check_roles(&messages, key, Last::Assistant)?;
        check_answers(&messages, key)?;
        Ok(Dialogue::Chat(messages))
    };
    match layout {
        Layout::Auto | Layout::Messages => chat("messages"),
        Layout::Sharegpt => chat("conversations"),
        Layout::Alpaca => {
            let (instruction, input, output) = (text(fields, "instruction")?, optional(fields, "input")?, text(fields, "output")?);
            let question = if input.is_empty() { instruction.to_owned() } else { format!("{instruction}\n\n{input}") };
            let messages = vec![ChatMessage::new("user", question), ChatMessage::new("assistant", output)];
            check_answers(&messages, "output")?;
            Ok(Dialogue::Chat(messages))
        }
        Layout::Commonsense => {
            let (instruction, input, output) = (text(fields, "instruction")?, optional(fields, "input")?, text(fields, "output")?);
            if output.trim().is_empty() {
                return Err(Fault::new("empty answer", "`output` is empty", "remove the row or fill the answer in"));
            }
            Ok(Dialogue::Text { prompt: commonsense_prompt(instruction, input), answer: fix_text(output).into_owned() })
        }
    }
}

/// CoreNet's prompt, the indentation of its source and its spaces before line breaks included.
fn commonsense_prompt(instruction: &str, input: &str) -> String {
    let indent = " ".repeat(16);
    let part = |heading: &str, text: &str| format!("{indent}### {heading}:\n{indent}{text}");
    let rest = if input.is_empty() { String::new() } else { format!("{}\n{indent}\n", part("Input", input)) };
    let opening = if input.is_empty() {
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.  "
    } else {
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request. "
    };
    let whole = format!("{opening}\n\n{}\n{indent}\n{rest}{}", part("Instruction", instruction), part("Response", ""));
    fix_text(&whole).into_owned()
}

/// The preference of a row, as alignment-handbook reads it: `chosen` and `rejected` are answers to the messages in `prompt`, or,
/// where `prompt` is no list of messages, whole conversations whose last message is the answer. Plain texts are one turn each.
pub(crate) fn preference_of(fields: &Fields) -> Result<Preference, Fault> {
    let (chosen, rejected) = (required(fields, "chosen")?, required(fields, "rejected")?);
    let preference = match (fields.get("prompt"), chosen, rejected) {
        (Some(Value::String(prompt)), Value::String(chosen), Value::String(rejected)) => Preference {
            prompt: vec![ChatMessage::new("user", prompt)],
            chosen: vec![ChatMessage::new("assistant", chosen)],
            rejected: vec![ChatMessage::new("assistant", rejected)],
        },
        (Some(prompt @ Value::Array(_)), chosen, rejected) => Preference {
            prompt: messages_of(prompt, "prompt")?,
            chosen: messages_of(chosen, "chosen")?,
            rejected: messages_of(rejected, "rejected")?,
        },
        _ => {
            let (mut prompt, mut other) = (messages_of(chosen, "chosen")?, messages_of(rejected, "rejected")?);
            let (Some(chosen), Some(rejected)) = (prompt.pop(), other.pop()) else {
                return Err(Fault::form("`chosen` or `rejected` has no message", "both end with the answer"));
            };
            if prompt != other {
                let hint = "both answers must stand behind the same messages";
                return Err(Fault::new("two prompts", "`chosen` and `rejected` differ before their last message", hint));
            }
            Preference { prompt, chosen: vec![chosen], rejected: vec![rejected] }
        }
    };
    check_roles(&preference.prompt, "prompt", Last::User)?;
    for (key, answer) in [("chosen", &preference.chosen), ("rejected", &preference.rejected)] {
        let whole: Vec<ChatMessage> = preference.prompt.iter().chain(answer).cloned().collect();
        check_roles(&whole, key, Last::Assistant)?;
        check_answers(answer, key)?;
    }
    Ok(preference)
}

fn required<'a>(fields: &'a Fields, key: &str) -> Result<&'a Value, Fault> {
    fields.get(key).ok_or_else(|| Fault::form(format!("the row has no `{key}`"), "check data.layout and data.files"))
}

fn text<'a>(fields: &'a Fields, key: &str) -> Result<&'a str, Fault> {
    required(fields, key)?.as_str().ok_or_else(|| Fault::form(format!("`{key}` is no text"), "write it as a text"))
}

/// A text that may be null or absent.
fn optional<'a>(fields: &'a Fields, key: &str) -> Result<&'a str, Fault> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(_) => text(fields, key),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn every_layout_is_told_by_its_keys() {
        let chat = |question: &str| Dialogue::Chat(vec![ChatMessage::new("user", question), ChatMessage::new("assistant", "a")]);
        for (row, expected) in [
            (json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}), chat("q")),
            (json!({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}), chat("q")),
            (json!({"instruction": "q", "input": "", "output": "a"}), chat("q")),
            (json!({"instruction": "q", "input": "i", "output": "a"}), chat("q\n\ni")),
        ] {
            assert_eq!(dialogue_of(&fields(row), Layout::Auto).unwrap(), expected);
        }
        let fault = dialogue_of(&fields(json!({"text": "x"})), Layout::Auto).unwrap_err();
        assert!(fault.reason.contains("the keys text"), "{fault:?}");
        assert!(
            dialogue_of(&fields(json!({"instruction": "q", "output": 3})), Layout::Alpaca)
                .unwrap_err()
                .reason
                .contains("`output` is no text")
        );
        assert_eq!(dialogue_of(&fields(json!({"instruction": "q", "output": " "})), Layout::Alpaca).unwrap_err().kind, "empty answer");
    }

    #[test]
    fn commonsense_rows_become_corenets_text() {
        let row = json!({"instruction": "Is it?", "input": "", "output": "the correct answer is true", "answer": "true"});
        let Dialogue::Text { prompt, answer } = dialogue_of(&fields(row), Layout::Auto).unwrap() else { panic!("no text") };
        let indent = "                ";
        let expected = format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n\n{indent}### Instruction:\n{indent}Is it?\n{indent}\n{indent}### Response:\n{indent}"
        );
        assert_eq!((prompt, answer.as_str()), (expected, "the correct answer is true"));
        let row = json!({"instruction": "Is it?", "input": "here", "output": "no", "answer": "no"});
        let Dialogue::Text { prompt, .. } = dialogue_of(&fields(row), Layout::Auto).unwrap() else { panic!("no text") };
        assert!(
            prompt.contains(&format!("Is it?\n{indent}\n{indent}### Input:\n{indent}here\n{indent}\n{indent}### Response:\n")),
            "{prompt:?}"
        );
    }

    #[test]
    fn preferences_are_read_as_alignment_handbook_reads_them() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let expected = Preference {
            prompt: vec![ChatMessage::new("user", "q")],
            chosen: vec![ChatMessage::new("assistant", "a")],
            rejected: vec![ChatMessage::new("assistant", "b")],
        };
        let (q, a, b) = (turn("user", "q"), turn("assistant", "a"), turn("assistant", "b"));
        for row in [
            json!({"prompt": "other", "chosen": [q, a], "rejected": [q, b]}),
            json!({"prompt": [q], "chosen": [a], "rejected": [b]}),
            json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
        ] {
            assert_eq!(preference_of(&fields(row)).unwrap(), expected);
        }
        for (row, part) in [
            (json!({"prompt": "q", "chosen": "a"}), "no `rejected`"),
            (json!({"chosen": [q, a], "rejected": [turn("user", "p"), b]}), "differ before their last message"),
            (json!({"chosen": [q, a], "rejected": [q, turn("assistant", "")]}), "message 1 of `rejected` is an empty answer"),
            (json!({"chosen": [q], "rejected": [q]}), "no message of a user"),
            (json!({"chosen": [q, q], "rejected": [q, q]}), "message 2 of `chosen` is user's"),
            (json!({"chosen": [], "rejected": []}), "has no message"),
        ] {
            let fault = preference_of(&fields(row)).unwrap_err();
            assert!(fault.reason.contains(part), "{fault:?}");
        }
    }
}
