//! The expressions of task templates: the part of Jinja that tasks of the harness use, over the fields of one document.
//!
//! What must stay true: values and methods are Python's (`strip`, `split`, `index` and so on give what they give there); whatever is
//! not known is an error, never an empty text.

use serde_json::{Map, Value, json};

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    Literal(Value),
    List(Vec<Expression>),
    Name(String),
    Field(Box<Expression>, String),
    Item(Box<Expression>, Box<Expression>),
    Call(Box<Expression>, String, Vec<Expression>),
    Sum(Box<Expression>, Box<Expression>),
}

/// Reads one expression.
///
/// # Errors
/// The place and what is wrong there.
pub(crate) fn parse(text: &str) -> Result<Expression, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, next: 0 };
    let expression = parser.sum()?;
    match parser.peek() {
        None => Ok(expression),
        Some(token) => Err(format!("{} in `{}` is not understood", token.shown(), text.trim())),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Literal(Value),
    Mark(char),
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Self::Name(name) => format!("`{name}`"),
            Self::Literal(value) => format!("`{value}`"),
            Self::Mark(mark) => format!("`{mark}`"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            white if white.is_whitespace() => {}
            quote @ ('\'' | '"') => {
                let mut literal = String::new();
                loop {
                    match rest.next() {
                        None => return Err(format!("a text in `{}` has no end", text.trim())),
                        Some(end) if end == quote => break,
                        Some('\\') => match rest.next() {
                            Some('n') => literal.push('\n'),
                            Some('t') => literal.push('\t'),
                            Some(same @ ('\\' | '\'' | '"')) => literal.push(same),
                            other => return Err(format!("`\\{}` is no known escape", other.unwrap_or(' '))),
                        },
                        Some(other) => literal.push(other),
                    }
                }
                tokens.push(Token::Literal(Value::String(literal)));
            }
            digit if digit.is_ascii_digit() => {
                let mut number = digit.to_string();
                while let Some(more) = rest.next_if(char::is_ascii_digit) {
                    number.push(more);
                }
                let number: i64 = number.parse().map_err(|_| format!("{number} is too large"))?;
                tokens.push(Token::Literal(json!(number)));
            }
            letter if letter.is_alphabetic() || letter == '_' => {
                let mut name = letter.to_string();
                while let Some(more) = rest.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    name.push(more);
                }
                tokens.push(Token::Name(name));
            }
            mark @ ('.' | ',' | '[' | ']' | '(' | ')' | '+' | '-' | '|') => tokens.push(Token::Mark(mark)),
            other => return Err(format!("`{other}` in `{}` is not understood", text.trim())),
        }
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(&Token::Mark(mark));
        self.next += usize::from(found);
        found
    }

    fn need(&mut self, mark: char) -> Result<(), String> {
        if self.take(mark) { Ok(()) } else { Err(format!("`{mark}` is missing")) }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err("a name is missing".into()),
        }
    }

    fn sum(&mut self) -> Result<Expression, String> {
        let mut left = self.postfix()?;
        while self.take('+') {
            left = Expression::Sum(Box::new(left), Box::new(self.postfix()?));
        }
        Ok(left)
    }

    fn postfix(&mut self) -> Result<Expression, String> {
        let mut value = self.primary()?;
        loop {
            if self.take('.') {
                let name = self.name()?;
                value = match self.take('(') {
                    true => Expression::Call(Box::new(value), name, self.list(')')?),
                    false => Expression::Field(Box::new(value), name),
                };
            } else if self.take('[') {
                let item = self.sum()?;
                self.need(']')?;
                value = Expression::Item(Box::new(value), Box::new(item));
            } else if self.take('|') {
                let name = self.name()?;
                let arguments = if self.take('(') { self.list(')')? } else { Vec::new() };
                value = Expression::Call(Box::new(value), name, arguments);
            } else {
                return Ok(value);
            }
        }
    }

    fn primary(&mut self) -> Result<Expression, String> {
        if self.take('(') {
            let inner = self.sum()?;
            self.need(')')?;
            return Ok(inner);
        }
        if self.take('[') {
            return Ok(Expression::List(self.list(']')?));
        }
        if self.take('-') {
            return match self.primary()? {
                Expression::Literal(Value::Number(number)) => Ok(Expression::Literal(json!(-number.as_i64().unwrap_or(0)))),
                _ => Err("a number must follow `-`".into()),
            };
        }
        match self.peek().cloned() {
            Some(Token::Literal(value)) => {
                self.next += 1;
                Ok(Expression::Literal(value))
            }
            Some(Token::Name(name)) => {
                self.next += 1;
                Ok(Expression::Name(name))
            }
            Some(token) => Err(format!("{} is not understood", token.shown())),
            None => Err("the expression ends too early".into()),
        }
    }

    fn list(&mut self, end: char) -> Result<Vec<Expression>, String> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(self.sum()?);
            if !self.take(',') {
                self.need(end)?;
                break;
            }
        }
        Ok(items)
    }
}

impl Expression {
    /// The value for one document and the names that were set.
    ///
    /// # Errors
    /// A field that is not there, or a method that its value does not have.
    pub fn value(&self, document: &Map<String, Value>) -> Result<Value, String> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::List(items) => Ok(Value::Array(items.iter().map(|item| item.value(document)).collect::<Result<_, _>>()?)),
            Self::Name(name) => document.get(name).cloned().ok_or_else(|| format!("there is no field {name:?}")),
            Self::Field(of, name) => match of.value(document)? {
                Value::Object(mut fields) => fields.remove(name).ok_or_else(|| format!("there is no field {name:?}")),
                other => Err(format!("{} has no field {name:?}", kind(&other))),
            },
            Self::Item(of, item) => match (of.value(document)?, item.value(document)?) {
                (Value::Object(mut fields), Value::String(name)) => {
                    fields.remove(&name).ok_or_else(|| format!("there is no field {name:?}"))
                }
                (Value::Array(items), Value::Number(number)) => {
                    let place = number.as_i64().map(|place| if place < 0 { place + items.len() as i64 } else { place });
                    let item = place.and_then(|place| usize::try_from(place).ok()).and_then(|place| items.get(place));
                    item.cloned().ok_or_else(|| format!("a list of {} has no item {number}", items.len()))
                }
                (of, item) => Err(format!("{} has no item {item}", kind(&of))),
            },
            Self::Call(of, name, arguments) => {
                let arguments: Vec<Value> = arguments.iter().map(|argument| argument.value(document)).collect::<Result<_, _>>()?;
                call(of.value(document)?, name, &arguments)
            }
            Self::Sum(left, right) => match (left.value(document)?, right.value(document)?) {
                (Value::String(left), Value::String(right)) => Ok(Value::String(left + &right)),
                (Value::Array(left), Value::Array(right)) => Ok(Value::Array([left, right].concat())),
                (Value::Number(left), Value::Number(right)) if left.is_i64() && right.is_i64() => {
                    Ok(json!(left.as_i64().unwrap_or(0).saturating_add(right.as_i64().unwrap_or(0))))
                }
                (left, right) => Err(format!("{} and {} cannot be added", kind(&left), kind(&right))),
            },
        }
    }
}

fn call(of: Value, name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |value: &str| Ok(Value::String(value.to_owned()));
    let strip = |characters: &str, start: bool, end: bool, of: &str| {
        let drop = |character: char| if characters.is_empty() { character.is_whitespace() } else { characters.contains(character) };
        let of = if start { of.trim_start_matches(drop) } else { of };
        Value::String(if end { of.trim_end_matches(drop) } else { of }.to_owned())
    };
    match (&of, name, arguments) {
        (Value::String(of), "strip" | "trim", []) => Ok(strip("", true, true, of)),
        (Value::String(of), "lstrip", []) => Ok(strip("", true, false, of)),
        (Value::String(of), "rstrip", []) => Ok(strip("", false, true, of)),
        (Value::String(of), "strip", [Value::String(drop)]) => Ok(strip(drop, true, true, of)),
        (Value::String(of), "lstrip", [Value::String(drop)]) => Ok(strip(drop, true, false, of)),
        (Value::String(of), "rstrip", [Value::String(drop)]) => Ok(strip(drop, false, true, of)),
        (Value::String(of), "lower", []) => text(&of.to_lowercase()),
        (Value::String(of), "upper", []) => text(&of.to_uppercase()),
        (Value::String(of), "capitalize", []) => {
            let mut letters = of.chars();
            let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
            text(&(first + &letters.as_str().to_lowercase()))
        }
        // Not Jinja's: what CoreNet does to a prompt.
        (Value::String(of), "fix_text", []) => text(&openelm_data::fix_text(of)),
        (Value::String(of), "replace", [Value::String(from), Value::String(to)]) => text(&of.replace(from, to)),
        (Value::String(of), "split", []) => Ok(of.split_whitespace().collect()),
        (Value::String(of), "split", [Value::String(at)]) if !at.is_empty() => Ok(of.split(at.as_str()).collect()),
        (Value::String(of), "split", [Value::String(at), Value::Number(most)]) if !at.is_empty() => {
            let most = most.as_u64().ok_or("split needs a count of at least 0")?;
            Ok(of.splitn(usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1), at.as_str()).collect())
        }
        (Value::Array(items), "index", [wanted]) => match items.iter().position(|item| item == wanted) {
            Some(place) => Ok(json!(place)),
            None => Err(format!("{wanted} is not in the list")),
        },
        (Value::Array(items), "length", []) => Ok(json!(items.len())),
        (Value::Array(items), "first", []) => items.first().cloned().ok_or_else(|| "the list is empty".into()),
        (Value::Array(items), "last", []) => items.last().cloned().ok_or_else(|| "the list is empty".into()),
        (Value::Array(items), "join", [Value::String(between)]) => {
            let parts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            text(&parts.ok_or("join needs a list of texts")?.join(between))
        }
        _ => Err(format!("{} has no `{name}` with {} argument(s)", kind(&of), arguments.len())),
    }
}

/// A value's kind, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
