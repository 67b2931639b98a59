//! Templates of task files: text with `{{ expression }}` and `{% set name = expression %}`, as the harness's Jinja renders them.
//!
//! What must stay true: one line end at the very end of a template is dropped, as Jinja does; other statements are refused when the
//! template is read.

use serde_json::{Map, Value};

use crate::expression::{Expression, kind, parse};

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Shown(Expression),
    Set(String, Expression),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is not understood.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut rest = source.strip_suffix('\n').unwrap_or(source);
        let mut parts = Vec::new();
        // Whether the tag before asked for the white space behind it to go.
        let mut trim = false;
        while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
            let (before, tag) = rest.split_at(start);
            let end_mark = if tag.starts_with("{{") { "}}" } else { "%}" };
            let end = tag.find(end_mark).ok_or_else(|| format!("`{end_mark}` is missing"))?;
            let (inner, after) = (&tag[2..end], &tag[end + 2..]);
            let mut before = if trim { before.trim_start() } else { before };
            if inner.starts_with('-') {
                before = before.trim_end();
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            trim = inner.len() > 1 && inner.ends_with('-');
            let inner = inner.strip_prefix('-').unwrap_or(inner);
            let inner = inner.strip_suffix('-').unwrap_or(inner).trim();
            parts.push(if end_mark == "}}" { Part::Shown(parse(inner)?) } else { statement(inner)? });
            rest = after;
        }
        let rest = if trim { rest.trim_start() } else { rest };
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The value for a document: of a template that is one expression its value, of any other its text.
    ///
    /// # Errors
    /// What a document lacks.
    pub fn value(&self, document: &Map<String, Value>) -> Result<Value, String> {
        if let [Part::Shown(expression)] = self.parts.as_slice() {
            return expression.value(document);
        }
        self.text(document).map(Value::String)
    }

    /// The text for a document.
    ///
    /// # Errors
    /// What a document lacks, or a value that has no plain text.
    pub fn text(&self, document: &Map<String, Value>) -> Result<String, String> {
        let mut names = None;
        let mut text = String::new();
        for part in &self.parts {
            let fields = names.as_ref().unwrap_or(document);
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Shown(expression) => text.push_str(&plain(&expression.value(fields)?)?),
                Part::Set(name, expression) => {
                    let value = expression.value(fields)?;
                    names.get_or_insert_with(|| document.clone()).insert(name.clone(), value);
                }
            }
        }
        Ok(text)
    }
}

fn statement(inner: &str) -> Result<Part, String> {
    let set = inner.strip_prefix("set ").and_then(|set| set.split_once('='));
    let Some((name, expression)) = set else {
        return Err(format!("the statement `{inner}` is not read; `set` is the only one"));
    };
    Ok(Part::Set(name.trim().to_owned(), parse(expression)?))
}

/// A value as Jinja prints it, where that is beyond doubt.
pub(crate) fn plain(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        Value::Bool(true) => Ok("True".into()),
        Value::Bool(false) => Ok("False".into()),
        other => Err(format!("{} has no plain text", kind(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<Value, String> {
        let document = json!({
            "question": "  What? ", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": " B",
            "sentence": "Ann saw Eve so _ left a_b.", "option1": "Ann", "n": 3,
        });
        Template::parse(template)?.value(document.as_object().unwrap())
    }

    #[test]
    fn templates_of_the_harness() {
        for (template, expected) in [
            ("Question: {{question.strip()}}\nAnswer:", json!("Question: What?\nAnswer:")),
            ("{{choices.text}}", json!(["a", "b"])),
            ("{{choices.label.index(answerKey.lstrip())}}", json!(1)),
            ("{{[option1, 'x' + option1]}}", json!(["Ann", "xAnn"])),
            ("{{sentence.split('_', 1)[1].strip()}}", json!("left a_b.")),
            ("{{ sentence.split('_')[0] + option1 }}", json!("Ann saw Eve so Ann")),
            ("{% set p = 'Q: a\\nA: b' %}{{p + '\\n\\nQ: ' + question|trim + '\\nA:'}}", json!("Q: a\nA: b\n\nQ: What?\nA:")),
            ("about x.\n\n", json!("about x.\n")),
            ("a {{- n -}} b{{choices['text'][-1]}}", json!("a3bb")),
            ("", json!("")),
        ] {
            assert_eq!(render(template).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (template, reason) in [
            ("{{missing}}", "no field \"missing\""),
            ("{{question.title()}}", "a text has no `title`"),
            ("{% if n %}a{% endif %}", "`if n` is not read"),
            ("{{question", "`}}` is missing"),
            ("{{question + n}}", "cannot be added"),
            ("{{choices.text[2]}}", "a list of 2 has no item 2"),
            ("a {{choices}}", "an object has no plain text"),
            ("{{'a}}", "has no end"),
            ("{{n ~ n}}", "`~`"),
        ] {
            let message = render(template).unwrap_err();
            assert!(message.contains(reason), "{template}: {message}");
        }
    }
}
