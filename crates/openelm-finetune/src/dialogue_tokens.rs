//! The tokens of a conversation that is learnt as it stands, and which of them count as targets.
//!
//! What must stay true: the tokens are those of the whole text, so that training sees what a chat sees; an answer counts from its
//! first token that does not belong to the prompt's text alone up to its EOS; what is too long loses its end.

use openelm_tokenizer::{ChatMessage, ChatTemplate, Tokenizer};

use crate::error::Fault;
use crate::layout::Dialogue;
use crate::pair_tokens::Ends;

/// Which tokens are targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrainOn {
    /// The assistant's.
    #[default]
    Answers,
    /// All but the first.
    Everything,
}

/// A conversation as the objective takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learnt {
    pub ids: Vec<u32>,
    /// Whether each token is a target.
    pub counts: Vec<bool>,
}

/// Tokens and targets of a conversation, at most `max_length` of them.
pub(crate) fn dialogue_tokens(
    dialogue: &Dialogue,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    ends: Ends,
    train_on: TrainOn,
    max_length: usize,
) -> Result<Learnt, Fault> {
    let mut learnt = match dialogue {
        Dialogue::Chat(messages) => chat(messages, tokenizer, template, ends, train_on)?,
        Dialogue::Text { prompt, answer } => {
            let mut ids = with_bos(tokenizer.encode(&format!("{prompt}{answer}")), ends);
            let start = shared(&with_bos(tokenizer.encode(prompt), ends), &ids);
            ids.push(ends.eos);
            let counts = (0..ids.len()).map(|at| at >= start).collect();
            Learnt { ids, counts }
        }
    };
    if train_on == TrainOn::Everything {
        learnt.counts.fill(true);
    }
    learnt.ids.truncate(max_length);
    learnt.counts.truncate(max_length);
    if let Some(first) = learnt.counts.first_mut() {
        *first = false;
    }
    if !learnt.counts.contains(&true) {
        let reason = format!("no target is left within {max_length} tokens");
        return Err(Fault::new("emptied by max_length", reason, "raise data.max_length"));
    }
    Ok(learnt)
}

fn chat(messages: &[ChatMessage], tokenizer: &Tokenizer, template: &ChatTemplate, ends: Ends, train_on: TrainOn) -> Result<Learnt, Fault> {
    let render = |messages: &[ChatMessage], answer: bool| template.render(messages, tokenizer, answer).map_err(|error| refused(&error));
    let text = render(messages, false)?;
    let mut ids = with_bos(tokenizer.encode_with_special(&text), ends);
    let mut counts = vec![false; ids.len()];
    if train_on == TrainOn::Everything {
        return Ok(Learnt { ids, counts });
    }
    let prefix = |messages: &[ChatMessage], answer: bool| {
        let part = render(messages, answer)?;
        if !text.starts_with(&part) {
            let reason = "the chat template writes earlier turns differently when later ones follow";
            return Err(Fault::new("unsteady template", reason, "set objective.train_on to everything"));
        }
        Ok(with_bos(tokenizer.encode_with_special(&part), ends))
    };
    let answers = messages.iter().enumerate().filter(|(_, message)| message.role == "assistant").map(|(index, _)| index);
    for index in answers {
        let begin = shared(&prefix(&messages[..index], true)?, &ids);
        let end = shared(&prefix(&messages[..=index], false)?, &ids);
        let answer = counts.get_mut(begin..end).unwrap_or_default();
        let of_answer = ids.get(begin..end).unwrap_or_default();
        // What a template writes behind the end of an answer is nothing that the model has to say.
        let length = of_answer.iter().rposition(|id| *id == ends.eos).map_or(of_answer.len(), |last| last + 1);
        answer.iter_mut().take(length).for_each(|counts| *counts = true);
        if index + 1 == messages.len() && !of_answer.contains(&ends.eos) {
            ids.truncate(end);
            counts.truncate(end);
            ids.push(ends.eos);
            counts.push(true);
        }
    }
    Ok(Learnt { ids, counts })
}

fn with_bos(mut ids: Vec<u32>, ends: Ends) -> Vec<u32> {
    if ids.first() != Some(&ends.bos) {
        ids.insert(0, ends.bos);
    }
    ids
}

/// Tokens at the beginning that both have.
fn shared(part: &[u32], whole: &[u32]) -> usize {
    part.iter().zip(whole).take_while(|(a, b)| a == b).count()
}

/// The template's own words, without its hint.
pub(crate) fn refused(error: &openelm_tokenizer::ChatTemplateError) -> Fault {
    let message = error.to_string();
    let reason = message.split("\nhint: ").next().unwrap_or_default().to_owned();
    Fault::new("refused by the template", reason, "correct the row, or give another chat template")
}
