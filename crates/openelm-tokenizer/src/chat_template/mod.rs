//! Chat templates: a conversation as the text, and the ids, that a model was trained on.
//!
//! A template is Jinja as `transformers` renders it: `trim_blocks`, `lstrip_blocks`, the variables `messages`, `bos_token`,
//! `eos_token` and `add_generation_prompt`, the functions `raise_exception` and `strftime_now`, Python's methods of texts and maps.
//! What must stay true: a template comes from a file of whoever made the weights, so its work and its memory are bounded; the roles
//! are checked by the template alone; nothing is added to its text but, among the ids, a BOS where it wrote none.

mod clock;
mod error;
mod json;
mod python;

use std::fmt;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Environment, Error, ErrorKind, context};

use crate::tokenizer::Tokenizer;
pub use error::ChatTemplateError;
use error::Raised;

/// What OpenELM-instruct was trained with (alignment-handbook's): `<|user|>`, `<|system|>` and `<|assistant|>` lines, an empty
/// system message before a conversation that begins with the user.
pub const OPENELM_INSTRUCT: &str = include_str!("openelm_instruct.jinja");

/// A step or 64 bytes of text each; a conversation of a million characters needs about a tenth.
const FUEL: u64 = 1_000_000;

/// The template's name within the Jinja environment.
const NAME: &str = "chat";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// system, user, assistant, or what else the template knows.
    pub role: String,
    pub content: String,
}

impl ChatMessage {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// In a template, a map whose keys stand in the order in which Python programs write them.
impl Object for ChatMessage {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "role" => Some(Value::from(self.role.as_str())),
            "content" => Some(Value::from(self.content.as_str())),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["role", "content"])
    }
}

/// A template that was read.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    origin: String,
}

impl ChatTemplate {
    /// Reads a template; `origin` names it in messages.
    ///
    /// # Errors
    /// When it is no Jinja, with the line.
    pub fn new(source: &str, origin: &str) -> Result<Self, ChatTemplateError> {
        let fault = |error: Error| ChatTemplateError::parse(origin, &error);
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fault)?);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
        });
        environment.add_function("strftime_now", |format: &str| clock::strftime_now(format));
        environment.add_filter("tojson", json::to_json);
        environment.set_unknown_method_callback(|state, value, method, arguments| python::call(state, value, method, arguments));
        environment.add_template_owned(NAME, source.to_owned()).map_err(fault)?;
        Ok(Self { environment, source: source.to_owned(), origin: origin.to_owned() })
    }

    /// [`OPENELM_INSTRUCT`].
    ///
    /// # Errors
    /// None that a user can cause.
    pub fn openelm_instruct() -> Result<Self, ChatTemplateError> {
        Self::new(OPENELM_INSTRUCT, "of OpenELM-instruct")
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation; with `add_generation_prompt`, up to where the model's answer begins. `tokenizer` gives the texts
    /// of the BOS and EOS tokens.
    ///
    /// # Errors
    /// When the template refuses the messages, asks for what is not there, or does not come to an end.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        tokenizer: &Tokenizer,
        add_generation_prompt: bool,
    ) -> Result<String, ChatTemplateError> {
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
        let messages: Vec<Value> = messages.iter().map(|message| Value::from_object(message.clone())).collect();
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            template.render(context! {
                messages,
                add_generation_prompt,
                bos_token => token(tokenizer.bos_id()).unwrap_or_default(),
                eos_token => token(tokenizer.eos_id()).unwrap_or_default(),
                unk_token => token(tokenizer.unk_id()),
                pad_token => token(tokenizer.pad_id()),
            })
        });
        rendered.map_err(|error| ChatTemplateError::render(&self.origin, &error))
    }

    /// The ids of the rendered text, texts of control tokens being these tokens, behind a BOS where the tokenizer has one.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn encode(
        &self,
        messages: &[ChatMessage],
        tokenizer: &Tokenizer,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, ChatTemplateError> {
        let mut ids = tokenizer.encode_with_special(&self.render(messages, tokenizer, add_generation_prompt)?);
        if let Some(bos) = tokenizer.bos_id().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("origin", &self.origin).field("source", &self.source).finish_non_exhaustive()
    }
}
