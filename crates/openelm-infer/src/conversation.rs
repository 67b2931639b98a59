//! A conversation in a terminal: turns in, the model's answers out, piece by piece.
//!
//! What must stay true: what the cache has read of an earlier turn is not read again; an answer that fails or is ended leaves a
//! conversation that goes on.

use std::sync::Arc;
use std::time::Instant;

use openelm_tokenizer::{ChatMessage, ChatTemplate, ChatTemplateError, Tokenizer};
use thiserror::Error;

use crate::decoder::{Cache, Decoder};
use crate::draft::Draft;
use crate::error::InferError;
use crate::generate::{Begun, Limits, StopReason, continue_text};
use crate::sampler::Sampler;

/// Prompt tokens that are read at a time; between two pieces the receiver may end the answer.
const PREFILL: usize = 256;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ConversationError {
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error("the conversation has {tokens} tokens, the context holds {context}\nhint: begin a new one, or give a shorter message")]
    Full { tokens: usize, context: usize },
}

/// An answer, which is part of the conversation from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub reason: StopReason,
    /// Tokens of the whole conversation before the answer.
    pub prompt_tokens: usize,
    /// Those of them that had been read before.
    pub reused: usize,
    pub tokens: usize,
    pub seconds: f64,
}

/// The turns so far, and what the model has read of them.
pub struct Conversation {
    decoder: Arc<dyn Decoder>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    draft: Option<Draft>,
    messages: Vec<ChatMessage>,
    cache: Cache,
    /// What the cache has read.
    read: Vec<u32>,
}

impl Conversation {
    /// An empty one, of at most `context` tokens and at most the model's.
    pub fn new(decoder: Arc<dyn Decoder>, tokenizer: Tokenizer, template: ChatTemplate, context: usize) -> Self {
        let cache = decoder.cache(context.min(decoder.config().rope_max_length));
        Self { decoder, tokenizer, template, draft: None, messages: Vec::new(), cache, read: Vec::new() }
    }

    /// The same, with guesses of the next tokens: the answers are those without.
    pub fn with_draft(self, draft: Option<Draft>) -> Self {
        Self { draft, ..self }
    }

    pub fn messages(&self) -> &[ChatMessage] {
        &self.messages
    }

    /// Begins anew, with a system message if there is to be one.
    pub fn reset(&mut self, system: Option<String>) {
        self.messages = system.map(|text| ChatMessage::new("system", text)).into_iter().collect();
    }

    /// Answers the user's `message`, with at most `max_tokens` tokens. Each piece of text, which may be empty, goes to `receive`, which
    /// says whether to go on. The message and what there is of the answer join the conversation, unless there is an error.
    ///
    /// # Errors
    /// When the template refuses the turns, the context is full, or the device fails.
    pub fn answer(
        &mut self,
        message: String,
        sampler: &mut Sampler,
        max_tokens: usize,
        receive: impl FnMut(&str) -> bool,
    ) -> Result<Answer, ConversationError> {
        self.messages.push(ChatMessage::new("user", message));
        let answer = self.make(sampler, max_tokens, receive);
        match &answer {
            Ok(answer) => self.messages.push(ChatMessage::new("assistant", answer.text.as_str())),
            Err(_) => drop(self.messages.pop()),
        }
        answer
    }

    fn make(
        &mut self,
        sampler: &mut Sampler,
        max_tokens: usize,
        mut receive: impl FnMut(&str) -> bool,
    ) -> Result<Answer, ConversationError> {
        let begin = Instant::now();
        let mut ids = self.template.encode(&self.messages, &self.tokenizer, true)?;
        let (prompt_tokens, context) = (ids.len(), self.cache.capacity());
        if prompt_tokens > context {
            return Err(ConversationError::Full { tokens: prompt_tokens, context });
        }
        // The last token is read again, for its logits.
        let shared = self.read.iter().zip(&ids).take_while(|(a, b)| a == b).count().min(prompt_tokens.saturating_sub(1));
        self.cache.truncate(shared);
        let mut text_decoder = self.tokenizer.decoder();
        for id in &ids {
            text_decoder.push(*id);
        }
        let mut text = String::new();
        let limits = Limits { max_new_tokens: max_tokens, stop: self.tokenizer.eos_id().into_iter().collect() };
        let begun = Begun { cache: &mut self.cache, context, piece: PREFILL };
        let made = continue_text(&*self.decoder, &ids, begun, sampler, &limits, self.draft.as_mut(), |id| {
            if id.is_some_and(|id| limits.stop.contains(&id)) {
                return true;
            }
            let new = id.and_then(|id| text_decoder.push(id)).unwrap_or_default();
            text += &new;
            receive(&new)
        });
        if let Ok(made) = &made {
            ids.extend(&made.ids);
        }
        // What a failed step has read of its guesses is not known.
        self.cache.truncate(ids.len());
        self.read = ids.get(..self.cache.length()).unwrap_or_default().to_vec();
        let reason = made?.reason;
        let rest = text_decoder.finish();
        if !rest.is_empty() && receive(&rest) {
            text += &rest;
        }
        let (tokens, seconds) = (ids.len() - prompt_tokens, begin.elapsed().as_secs_f64());
        Ok(Answer { text, reason, prompt_tokens, reused: shared, tokens, seconds })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use burn::tensor::Device;
    use openelm_model::{ModelConfig, OpenElm, Precision, preset};
    use openelm_tokenizer::{BpeTraining, train};

    use super::*;
    use crate::burn_decoder::BurnDecoder;
    use crate::sampler::SamplingSettings;

    fn conversation(context: usize) -> Conversation {
        let texts = ["the small bird sings a song of the sea", "user system assistant"];
        let tokenizer = train(&BpeTraining::new(280), texts.iter().map(|text| Ok::<_, Infallible>((*text).to_owned()))).unwrap();
        let config = ModelConfig { vocab_size: tokenizer.vocab_size(), ..preset("OpenELM-tiny").unwrap() };
        let model = OpenElm::init(&config, 3, &Device::flex()).unwrap();
        let decoder = Arc::new(BurnDecoder::new(model, Precision::F32));
        Conversation::new(decoder, tokenizer, ChatTemplate::openelm_instruct().unwrap(), context)
    }

    fn greedy() -> Sampler {
        Sampler::new(SamplingSettings::default()).unwrap()
    }

    #[test]
    fn turns_go_on_where_the_last_ended() {
        let mut one = conversation(400);
        let mut pieces = String::new();
        let first = one.answer("the bird".into(), &mut greedy(), 9, |piece| {
            pieces += piece;
            true
        });
        let first = first.unwrap();
        assert_eq!((first.tokens, first.reason, first.reused, pieces), (9, StopReason::Length, 0, first.text.clone()));
        let second = one.answer("sings".into(), &mut greedy(), 9, |_| true).unwrap();
        assert!(second.reused >= first.prompt_tokens - 1 && second.reused < second.prompt_tokens);
        assert_eq!(one.messages().len(), 4);
        // The same turns in a fresh conversation give the same answer.
        let mut fresh = conversation(400);
        fresh.messages = one.messages()[..2].to_vec();
        assert_eq!(fresh.answer("sings".into(), &mut greedy(), 9, |_| true).unwrap().text, second.text);
        one.reset(Some("sing".into()));
        assert_eq!(one.messages(), [ChatMessage::new("system", "sing")]);
        assert!(one.answer("sea".into(), &mut greedy(), 2, |_| true).unwrap().reused < first.prompt_tokens / 2);
    }

    #[test]
    fn guesses_change_no_answer() {
        let answers = |draft: Option<Draft>| {
            let mut one = conversation(400).with_draft(draft);
            let mut sampler =
                Sampler::new(SamplingSettings { temperature: 0.7, top_k: 3, seed: 5, ..SamplingSettings::default() }).unwrap();
            ["the small bird sings the small bird sings", "the sea"]
                .map(|message| one.answer(message.into(), &mut sampler, 30, |_| true).unwrap())
        };
        let plain = answers(None);
        let decoder = Arc::clone(&conversation(400).decoder);
        for draft in [Draft::lookup(4), Draft::model(Arc::clone(&decoder), &*decoder, 3).unwrap()] {
            for (guessed, plain) in answers(Some(draft)).iter().zip(&plain) {
                assert_eq!((&guessed.text, guessed.tokens, guessed.reason), (&plain.text, plain.tokens, plain.reason));
                assert_eq!(guessed.reused, plain.reused);
            }
        }
    }

    #[test]
    fn an_answer_can_be_ended_and_a_full_context_says_so() {
        let mut one = conversation(120);
        let ended = one.answer("the bird".into(), &mut greedy(), 50, |_| false).unwrap();
        assert_eq!((ended.reason, ended.tokens), (StopReason::Cancelled, 1));
        let long = one.answer("sings".into(), &mut greedy(), 500, |_| true).unwrap();
        assert!(long.reason == StopReason::Context || long.reason == StopReason::Stop, "{long:?}");
        let before = one.messages().len();
        let error = one.answer("the ".repeat(100), &mut greedy(), 5, |_| true).unwrap_err();
        assert!(error.to_string().contains("the context holds 120"), "{error}");
        assert_eq!(one.messages().len(), before);
    }
}
