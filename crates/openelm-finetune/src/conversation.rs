//! Conversations: turns with a role and a text, and the order in which roles may follow each other.
//!
//! What must stay true: a system message stands first or nowhere; then user and assistant take turns, the user first; an answer
//! that is to be learnt is not empty.

use openelm_tokenizer::ChatMessage;
use serde_json::Value;

use crate::error::Fault;

/// The names of the three roles, ShareGPT's included.
const ROLES: [(&str, &str); 7] = [
    ("system", "system"),
    ("user", "user"),
    ("assistant", "assistant"),
    ("human", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("prompter", "user"),
];

/// The messages in a list of objects with `role` and `content`, or ShareGPT's `from` and `value`.
pub(crate) fn messages_of(value: &Value, key: &str) -> Result<Vec<ChatMessage>, Fault> {
    let hint = "each message is an object with role and content (or from and value), both texts";
    let Value::Array(turns) = value else { return Err(Fault::form(format!("`{key}` is no list of messages"), hint)) };
    let message = |(index, turn): (usize, &Value)| {
        let text = |names: [&str; 2]| names.iter().find_map(|name| turn.get(name)).and_then(Value::as_str);
        let (Some(role), Some(content)) = (text(["role", "from"]), text(["content", "value"])) else {
            return Err(Fault::form(format!("message {} of `{key}` lacks a role or a text", index + 1), hint));
        };
        let Some((_, known)) = ROLES.iter().find(|(name, _)| *name == role) else {
            let reason = format!("message {} of `{key}` has the role {role:?}", index + 1);
            return Err(Fault::new("unknown role", reason, "roles are system, user and assistant (ShareGPT: human and gpt)"));
        };
        Ok(ChatMessage::new(*known, content))
    };
    turns.iter().enumerate().map(message).collect()
}

/// Who has to speak last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// A prompt that waits for an answer.
    User,
    /// A conversation to be learnt.
    Assistant,
}

/// Checks the order of the roles.
pub(crate) fn check_roles(messages: &[ChatMessage], key: &str, last: Last) -> Result<(), Fault> {
    let fault = |reason: String| {
        Err(Fault::new("wrong roles", reason, "after an optional system message, user and assistant take turns, beginning with the user"))
    };
    let turns = match messages.first() {
        Some(first) if first.role == "system" => &messages[1..],
        _ => messages,
    };
    for (index, (turn, expected)) in turns.iter().zip(["user", "assistant"].into_iter().cycle()).enumerate() {
        if turn.role != expected {
            let number = index + 1 + messages.len() - turns.len();
            return fault(format!("message {number} of `{key}` is {}'s, where {expected}'s turn is", turn.role));
        }
    }
    match (turns.len() % 2, last) {
        _ if turns.is_empty() => fault(format!("`{key}` has no message of a user")),
        (1, Last::Assistant) => fault(format!("`{key}` ends without an answer")),
        (0, Last::User) => fault(format!("`{key}` ends with an answer, where a question has to stand")),
        _ => Ok(()),
    }
}

/// Checks that every answer says something.
pub(crate) fn check_answers(messages: &[ChatMessage], key: &str) -> Result<(), Fault> {
    match messages.iter().position(|message| message.role == "assistant" && message.content.trim().is_empty()) {
        None => Ok(()),
        Some(index) => Err(Fault::new(
            "empty answer",
            format!("message {} of `{key}` is an empty answer", index + 1),
            "remove the row or fill the answer in",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn roles(names: &str) -> Vec<ChatMessage> {
        let name = |letter| match letter {
            's' => "system",
            'u' => "user",
            _ => "assistant",
        };
        names.chars().map(|letter| ChatMessage::new(name(letter), "x")).collect()
    }

    #[test]
    fn both_forms_are_read() {
        let expected = vec![ChatMessage::new("user", "a"), ChatMessage::new("assistant", "b")];
        let openai = json!([{"role": "user", "content": "a"}, {"content": "b", "role": "assistant", "weight": 1}]);
        let sharegpt = json!([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]);
        assert_eq!(messages_of(&openai, "messages").unwrap(), expected);
        assert_eq!(messages_of(&sharegpt, "conversations").unwrap(), expected);
        for (bad, part) in [
            (json!("a"), "no list of messages"),
            (json!([{"role": "user"}]), "message 1 of `m` lacks"),
            (json!([{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]), "message 2 of `m` has the role \"robot\""),
            (json!([{"role": "user", "content": null}]), "lacks a role or a text"),
        ] {
            let fault = messages_of(&bad, "m").unwrap_err();
            assert!(fault.reason.contains(part), "{fault:?}");
        }
    }

    #[test]
    fn the_order_of_roles_is_checked() {
        for (names, last) in
            [("ua", Last::Assistant), ("sua", Last::Assistant), ("uaua", Last::Assistant), ("u", Last::User), ("suau", Last::User)]
        {
            assert_eq!(check_roles(&roles(names), "m", last), Ok(()), "{names}");
        }
        for (names, last, part) in [
            ("u", Last::Assistant, "without an answer"),
            ("ua", Last::User, "ends with an answer"),
            ("au", Last::User, "message 1 of `m` is assistant's"),
            ("uua", Last::Assistant, "message 2 of `m` is user's"),
            ("usa", Last::Assistant, "message 2 of `m` is system's"),
            ("suu", Last::User, "message 3"),
            ("s", Last::User, "no message of a user"),
            ("", Last::User, "no message of a user"),
        ] {
            let fault = check_roles(&roles(names), "m", last).unwrap_err();
            assert!(fault.reason.contains(part), "{names}: {fault:?}");
        }
        let mut empty = roles("ua");
        empty[1].content = " \n".into();
        assert_eq!(check_answers(&empty, "m").unwrap_err().kind, "empty answer");
    }
}
