//! A task ready to be asked: documents with text, choices and target, and the requests that the harness would make of them.
//!
//! What must stay true: every text is the harness's 0.4.2, character by character; all rows are rendered and checked here, before
//! any model runs.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::documents::{Document, read_documents};
use crate::error::EvalError;
use crate::expression::kind;
use crate::few_shot::Sampler;
use crate::task_file::{Entry, Metric, TaskFile};
use crate::template::{Template, plain};

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Context and continuation of each choice.
    pub requests: Vec<(String, String)>,
    /// Characters of each choice, for acc_norm.
    pub lengths: Vec<usize>,
    /// The right choice.
    pub gold: usize,
    /// For mc2: whether each choice is right.
    pub labels: Vec<bool>,
}

/// A task with its questions.
#[derive(Clone, Debug)]
pub struct Task {
    pub name: String,
    /// Examples before each question.
    pub shots: usize,
    pub metrics: Vec<Metric>,
    pub version: Option<String>,
    pub questions: Vec<Question>,
}

/// What a caller may change of a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskOptions {
    /// Examples before each question, instead of the task's number.
    pub shots: Option<usize>,
    /// Documents at most.
    pub limit: Option<usize>,
}

/// Templates of a file, parsed.
struct Templates {
    text: Rendered,
    choice: Rendered,
    target: Rendered,
    labels: Option<Rendered>,
    description: Option<Template>,
}

/// A key of the file: what it gives for a document.
enum Rendered {
    Number(i64),
    Field(String),
    Template(Template),
    List(Vec<Template>),
}

/// What a template gave.
enum Answer {
    Number(usize),
    Text(String),
}

impl Task {
    /// The tasks of `file` with the documents below `data`.
    ///
    /// # Errors
    /// When a file is missing or a row lacks what the task needs.
    pub fn load(file: &TaskFile, data: &Path, options: TaskOptions) -> Result<Vec<Self>, EvalError> {
        file.expand().iter().map(|(file, variant)| Self::of(file, variant.as_deref(), data, options)).collect()
    }

    fn of(file: &TaskFile, variant: Option<&str>, data: &Path, options: TaskOptions) -> Result<Self, EvalError> {
        let shots = options.shots.or(file.num_fewshot).unwrap_or(0);
        let templates = Templates::of(file)?;
        let path = data.join(file.data.clone().unwrap_or_else(|| format!("{}.jsonl", file.task)));
        let with_variant = |path: &Path, limit| -> Result<Vec<Document>, EvalError> {
            let mut documents = read_documents(path, limit, file.shuffle)?;
            if let Some(variant) = variant {
                documents.iter_mut().for_each(|document| drop(document.fields.insert("variant".into(), Value::String(variant.into()))));
            }
            Ok(documents)
        };
        let documents = with_variant(&path, options.limit)?;
        let examples = match (shots, examples_path(file, data)) {
            (0, _) => None,
            (_, Some(path)) => Some((with_variant(&path, None)?, path, false)),
            (_, None) => Some((with_variant(&path, None)?, path.clone(), true)),
        };
        let mut sampler = Sampler::new(file.fewshot_config.sampler);
        let mut questions = Vec::with_capacity(documents.len());
        for document in &documents {
            let row = |reason: String| row_fault(&path, document.line, reason);
            let mut context = match &templates.description {
                Some(description) => description.text(&document.fields).map_err(row)?,
                None => String::new(),
            };
            if let Some((examples, examples_path, own)) = &examples {
                let count = shots + usize::from(*own);
                let picked = sampler.pick(examples.len(), count).ok_or_else(|| {
                    row_fault(examples_path, 0, format!("{count} rows are needed for {shots} examples, there are {}", examples.len()))
                })?;
                let others = picked.iter().map(|place| &examples[*place]).filter(|example| example.fields != document.fields);
                let mut texts = Vec::with_capacity(shots);
                for example in others.take(shots) {
                    let text = templates.example(&example.fields, &file.target_delimiter);
                    texts.push(text.map_err(|reason| row_fault(examples_path, example.line, reason))?);
                }
                context += &texts.join(&file.fewshot_delimiter);
                context += &file.fewshot_delimiter;
            }
            questions.push(templates.question(file, &document.fields, &context).map_err(row)?);
        }
        let version = file.metadata.as_ref().and_then(|metadata| metadata.get("version"));
        Ok(Self {
            name: file.task.clone(),
            shots,
            metrics: file.metric_list.iter().map(|entry| entry.metric).collect(),
            version: version.and_then(|version| serde_yaml_ng::to_string(version).ok()).map(|version| version.trim().to_owned()),
            questions,
        })
    }
}

fn examples_path(file: &TaskFile, data: &Path) -> Option<PathBuf> {
    let split = || Some(format!("{}_{}.jsonl", file.task, file.fewshot_split.as_ref().or(file.training_split.as_ref())?));
    Some(data.join(file.fewshot_data.clone().or_else(split)?))
}

fn row_fault(path: &Path, line: usize, reason: String) -> EvalError {
    let hint = "the rows must have the fields that the task file names; docs/evaluation.md shows them";
    EvalError::Row { path: path.to_owned(), line, reason, hint: hint.into() }
}

impl Templates {
    fn of(file: &TaskFile) -> Result<Self, EvalError> {
        let fault =
            |key: &str, reason: String| EvalError::task(&file.path, key, reason, "docs/evaluation.md shows what templates may hold");
        let entry = |key: &str, entry: &Entry| Rendered::of(entry).map_err(|reason| fault(key, reason));
        let description = file.description.as_deref().map(Template::parse).transpose();
        Ok(Self {
            text: entry("doc_to_text", &file.doc_to_text)?,
            choice: entry("doc_to_choice", &file.doc_to_choice)?,
            target: entry("doc_to_target", &file.doc_to_target)?,
            labels: file.labels.as_ref().map(|labels| entry("labels", labels)).transpose()?,
            description: description.map_err(|reason| fault("description", reason))?,
        })
    }

    fn choices(&self, document: &Map<String, Value>) -> Result<Vec<String>, String> {
        let choices = match self.choice.value(document)? {
            Value::Array(items) => items.iter().map(plain).collect::<Result<Vec<_>, _>>()?,
            other => return Err(format!("doc_to_choice gives {}, not a list", kind(&other))),
        };
        if choices.is_empty() { Err("there is no choice".into()) } else { Ok(choices) }
    }

    /// The place of a choice that a template names by number or by text.
    fn place(answer: Answer, choices: &[String]) -> Result<usize, String> {
        match answer {
            Answer::Number(place) if place < choices.len() => Ok(place),
            Answer::Number(place) => Err(format!("the target is choice {place}, but there are {}", choices.len())),
            Answer::Text(text) => {
                choices.iter().position(|choice| *choice == text).ok_or_else(|| format!("the target {text:?} is no choice"))
            }
        }
    }

    /// An example with its answer.
    fn example(&self, document: &Map<String, Value>, delimiter: &str) -> Result<String, String> {
        let choices = self.choices(document)?;
        let named = |answer: Answer| match answer {
            Answer::Number(place) => {
                choices.get(place).cloned().ok_or_else(|| format!("the target is choice {place}, but there are {}", choices.len()))
            }
            Answer::Text(text) => Ok(text),
        };
        let text = named(self.text.answer(document)?)?;
        Ok(text + delimiter + &named(self.target.answer(document)?)?)
    }

    fn question(&self, file: &TaskFile, document: &Map<String, Value>, context: &str) -> Result<Question, String> {
        let choices = self.choices(document)?;
        let delimiter = &file.target_delimiter;
        let (requests, gold) = match self.text.answer(document)? {
            // The choices are beginnings, and what follows all of them is scored.
            Answer::Number(place) => {
                let Answer::Text(end) = self.target.answer(document)? else {
                    return Err("doc_to_text gives a number, so doc_to_target must give a text".into());
                };
                let request = |choice: &String| (format!("{context}{choice}"), format!("{delimiter}{end}"));
                (choices.iter().map(request).collect(), Self::place(Answer::Number(place), &choices)?)
            }
            Answer::Text(text) => {
                let request = |choice: &String| (format!("{context}{text}"), format!("{delimiter}{choice}"));
                (choices.iter().map(request).collect(), Self::place(self.target.answer(document)?, &choices)?)
            }
        };
        let labels = match &self.labels {
            None => Vec::new(),
            Some(labels) => match labels.value(document)? {
                Value::Array(items) if items.len() == choices.len() => items.iter().map(|label| label.as_i64() == Some(1)).collect(),
                other => return Err(format!("labels gives {}, not a list with one number a choice", kind(&other))),
            },
        };
        if file.metric_list.iter().any(|entry| entry.metric == Metric::Mc2) && !(labels.contains(&true) && labels.contains(&false)) {
            return Err("mc2 needs right and wrong choices".into());
        }
        if file.metric_list.iter().any(|entry| entry.metric == Metric::PctStereotype) && choices.len() != 2 {
            return Err(format!("pct_stereotype compares two choices, there are {}", choices.len()));
        }
        Ok(Question { requests, lengths: choices.iter().map(|choice| choice.chars().count()).collect(), gold, labels })
    }
}

impl Rendered {
    fn of(entry: &Entry) -> Result<Self, String> {
        Ok(match entry {
            Entry::Empty => Self::Template(Template::parse("")?),
            Entry::Number(number) => Self::Number(*number),
            // The harness takes a text that is the name of a column for this column.
            Entry::Text(text) if is_name(text) => Self::Field(text.clone()),
            Entry::Text(text) => Self::Template(Template::parse(text)?),
            Entry::List(items) => Self::List(items.iter().map(|item| Template::parse(item)).collect::<Result<_, _>>()?),
        })
    }

    fn value(&self, document: &Map<String, Value>) -> Result<Value, String> {
        match self {
            Self::Number(number) => Ok((*number).into()),
            Self::Field(name) => document.get(name).cloned().ok_or_else(|| format!("there is no field {name:?}")),
            Self::Template(template) => template.value(document),
            Self::List(items) => {
                Ok(Value::Array(items.iter().map(|item| item.text(document).map(Value::String)).collect::<Result<_, _>>()?))
            }
        }
    }

    /// A number, or the text that the harness would get; digits alone, out of a template, are a number for it.
    fn answer(&self, document: &Map<String, Value>) -> Result<Answer, String> {
        match self.value(document)? {
            Value::Number(number) => match number.as_u64().and_then(|number| usize::try_from(number).ok()) {
                Some(number) => Ok(Answer::Number(number)),
                None => Err(format!("{number} is no place in a list")),
            },
            Value::Bool(flag) => Ok(Answer::Number(usize::from(flag))),
            Value::String(text) => match (self, text.parse()) {
                (Self::Template(_), Ok(number)) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Answer::Number(number)),
                _ => Ok(Answer::Text(text)),
            },
            other => Err(format!("{} stands where a text or a number is needed", kind(&other))),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
        && text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}
