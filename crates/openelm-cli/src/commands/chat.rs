//! `openelm chat`: a conversation in the terminal, or with a program that writes a message a line.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use openelm_infer::{Conversation, ConversationError, Sampler, StopReason};

use super::chat_model::ChatModel;
use super::decoder::open_draft;
use super::generate;
use crate::args::ChatArguments;

const HELP: &str = "/reset begins anew, /system TEXT begins anew with a system message, /exit ends; Ctrl-C stops an answer";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Message(&'a str),
    Reset,
    System(&'a str),
    Exit,
    Help,
    Unknown(&'a str),
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() { Self::Nothing } else { Self::Message(line) };
        };
        match command.split_once(char::is_whitespace).unwrap_or((command, "")) {
            ("reset", "") => Self::Reset,
            ("system", text) => Self::System(text.trim()),
            ("exit" | "quit", "") => Self::Exit,
            ("help", "") => Self::Help,
            _ => Self::Unknown(line),
        }
    }
}

pub(super) fn chat(arguments: &ChatArguments) -> Result<()> {
    let mut sampler = generate::sampler_of(&arguments.sampling, arguments.temperature, arguments.top_p)?;
    let ChatModel { decoder, tokenizer, template } = ChatModel::open(&arguments.weights, &arguments.model)?;
    let draft = open_draft(&arguments.guesses, &arguments.model.decoder, &*decoder)?;
    let context = arguments.context.unwrap_or(decoder.config().max_context_length);
    let mut conversation = Conversation::new(decoder, tokenizer, template, context).with_draft(draft);
    conversation.reset(arguments.system.clone());
    let interrupt = Interrupt::listen()?;
    let in_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if in_terminal {
        eprintln!("{HELP}");
    }
    let (mut input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut line = String::new();
    loop {
        if in_terminal {
            write!(out, "> ")?;
            out.flush()?;
        }
        line.clear();
        let read = input.read_line(&mut line);
        if read.context("reading a message from the standard input failed\nhint: it must be UTF-8 text")? == 0 {
            return Ok(());
        }
        match Line::parse(&line) {
            Line::Nothing => {}
            Line::Message(message) => {
                interrupt.begin();
                let answered = answer(&mut conversation, message, &mut sampler, arguments.max_new_tokens, &interrupt, &mut out);
                interrupt.end();
                answered?;
            }
            Line::Reset => conversation.reset(arguments.system.clone()),
            Line::System(text) => conversation.reset((!text.is_empty()).then(|| text.to_owned())),
            Line::Exit => return Ok(()),
            Line::Help => eprintln!("{HELP}"),
            Line::Unknown(line) => eprintln!("there is no command {line}; {HELP}"),
        }
    }
}

/// Writes one answer. A message that cannot be answered is told and forgotten.
fn answer(
    conversation: &mut Conversation,
    message: &str,
    sampler: &mut Sampler,
    max_tokens: usize,
    interrupt: &Interrupt,
    out: &mut impl Write,
) -> Result<()> {
    let mut broken = None;
    // A space before the first word belongs to the template's text, not to the answer.
    let mut begun = false;
    let answer = conversation.answer(message.to_owned(), sampler, max_tokens, |piece| {
        let piece = if begun { piece } else { piece.trim_start_matches([' ', '\n']) };
        begun |= !piece.is_empty();
        broken = out.write_all(piece.as_bytes()).and_then(|()| out.flush()).err();
        broken.is_none() && !interrupt.came()
    });
    if let Some(error) = broken {
        return Err(error.into());
    }
    match answer {
        Ok(answer) => {
            let note = match answer.reason {
                StopReason::Stop => "",
                StopReason::Length => " [--max-new-tokens is reached]",
                StopReason::Context => " [the context is full; /reset begins anew]",
                StopReason::Cancelled => " [stopped]",
            };
            writeln!(out)?;
            if !note.is_empty() {
                eprintln!("{}", note.trim_start());
            }
            Ok(())
        }
        Err(error @ (ConversationError::Template(_) | ConversationError::Full { .. })) => {
            eprintln!("error: {error}");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Ctrl-C: ends an answer, or the program where there is none.
struct Interrupt {
    answering: Arc<AtomicBool>,
    came: Arc<AtomicBool>,
}

impl Interrupt {
    fn listen() -> Result<Self> {
        let interrupt = Self { answering: Arc::default(), came: Arc::default() };
        let (answering, came) = (Arc::clone(&interrupt.answering), Arc::clone(&interrupt.came));
        ctrlc::set_handler(move || {
            // Asked twice, an answer that does not come to its end is no reason to stay.
            if !answering.load(Ordering::SeqCst) || came.swap(true, Ordering::SeqCst) {
                println!();
                std::process::exit(130);
            }
        })
        .context("listening for Ctrl-C failed")?;
        Ok(interrupt)
    }

    fn begin(&self) {
        self.came.store(false, Ordering::SeqCst);
        self.answering.store(true, Ordering::SeqCst);
    }

    fn end(&self) {
        self.answering.store(false, Ordering::SeqCst);
    }

    fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_and_commands() {
        for (line, expected) in [
            ("  hello there \n", Line::Message("hello there")),
            ("\n", Line::Nothing),
            ("/reset\n", Line::Reset),
            ("/system  Be short. \n", Line::System("Be short.")),
            ("/system\n", Line::System("")),
            ("/exit", Line::Exit),
            ("/help", Line::Help),
            ("/reset now\n", Line::Unknown("/reset now")),
            ("/etc/hosts\n", Line::Unknown("/etc/hosts")),
        ] {
            assert_eq!(Line::parse(line), expected);
        }
    }
}
