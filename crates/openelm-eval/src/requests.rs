//! Questions as token ids: how the harness cuts a context and its continuation out of one encoded text.
//!
//! What must stay true: context and continuation are encoded together, white space at the context's end goes to the continuation, and
//! what is too long loses its beginning (lm-evaluation-harness 0.4.2, `TemplateLM._encode_pair`).

use openelm_infer::ContextGroup;
use openelm_tokenizer::Tokenizer;

use crate::error::EvalError;
use crate::task::Task;

/// How texts become ids.
#[derive(Clone, Copy, Debug)]
pub struct Encoding<'a> {
    pub tokenizer: &'a Tokenizer,
    /// The beginning-of-sequence token before every text, when the tokenizer has one.
    pub add_bos: bool,
    /// Positions that a request may fill.
    pub max_length: usize,
}

/// Groups to score, and for each request of each question its group and place there.
pub(crate) struct Requests {
    pub groups: Vec<ContextGroup>,
    pub places: Vec<Vec<(usize, usize)>>,
}

impl Encoding<'_> {
    /// The ids of `text` with the beginning token.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = self.tokenizer.bos_id().filter(|_| self.add_bos).into_iter().collect();
        ids.extend(self.tokenizer.encode_with_special(text));
        ids
    }

    /// The token before a text that has nothing before it.
    ///
    /// # Errors
    /// When the tokenizer has none.
    pub fn prefix(&self) -> Result<u32, EvalError> {
        self.tokenizer.bos_id().or(self.tokenizer.eos_id()).ok_or_else(|| EvalError::Settings {
            reason: "the tokenizer has neither a beginning nor an end token to put before a text".into(),
            hint: "use the tokenizer that the model was trained with".into(),
        })
    }

    /// Ids of a context and of its continuation.
    fn pair(&self, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>), EvalError> {
        if context.is_empty() {
            return Ok((vec![self.prefix()?], self.ids(continuation)));
        }
        let kept = context.trim_end();
        let context_ids = self.ids(kept);
        let mut whole = self.ids(&format!("{context}{continuation}"));
        let own = whole.split_off(context_ids.len().min(whole.len()));
        Ok((context_ids, own))
    }

    /// Finds out whether every request of a task can be made, without a model.
    ///
    /// # Errors
    /// When a continuation is empty or does not fit.
    pub fn check(&self, task: &Task) -> Result<(), EvalError> {
        self.requests(task).map(drop)
    }

    /// The requests of a task.
    ///
    /// # Errors
    /// When a continuation is empty or does not fit.
    pub(crate) fn requests(&self, task: &Task) -> Result<Requests, EvalError> {
        let mut requests = Requests { groups: Vec::new(), places: Vec::with_capacity(task.questions.len()) };
        for (document, question) in task.questions.iter().enumerate() {
            let first = requests.groups.len();
            let mut places = Vec::with_capacity(question.requests.len());
            for (context, continuation) in &question.requests {
                let (mut context, continuation) = self.pair(context, continuation)?;
                if continuation.is_empty() {
                    let reason = format!("{}, document {document}: a continuation has no token", task.name);
                    return Err(EvalError::Settings { reason, hint: "a choice must not be empty".into() });
                }
                if continuation.len() > self.max_length {
                    let (task, tokens, limit) = (task.name.clone(), continuation.len(), self.max_length);
                    return Err(EvalError::TooLong { task, document, tokens, limit });
                }
                let room = self.max_length + 1 - continuation.len();
                context.drain(..context.len().saturating_sub(room));
                let known = requests.groups.iter().skip(first).position(|group| group.context == context);
                let number = known.map_or(requests.groups.len(), |place| first + place);
                if known.is_none() {
                    requests.groups.push(ContextGroup { context, continuations: Vec::new() });
                }
                let group = &mut requests.groups[number];
                places.push((number, group.continuations.len()));
                group.continuations.push(continuation);
            }
            requests.places.push(places);
        }
        Ok(requests)
    }
}
