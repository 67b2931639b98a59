//! Task files of a user's own over rows of a user's own: the texts that come out, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use openelm_eval::{Task, TaskFile, TaskOptions, find_tasks};

const TASK: &str = "task: t\noutput_type: multiple_choice\ndoc_to_text: 'Q: {{q}}'\ndoc_to_choice: '{{c}}'\ndoc_to_target: a\nmetric_list: [{metric: acc}]\n";

fn load(task: &str, rows: &[(&str, &str)], options: TaskOptions) -> Result<Task, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in rows {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let file = TaskFile::parse(task, Path::new("t.yaml")).map_err(|error| error.to_string())?;
    Ok(Task::load(&file, folder.path(), options).map_err(|error| error.to_string())?.remove(0))
}

#[test]
fn examples_never_hold_the_question_itself() {
    let rows: String = (0..6).map(|n| format!("{{\"q\": \"{n}?\", \"c\": [\"x{n}\", \"y{n}\"], \"a\": {}}}\n", n % 2)).collect();
    let options = TaskOptions { shots: Some(3), limit: Some(4) };
    let task = load(TASK, &[("t.jsonl", &rows)], options).unwrap();
    assert_eq!((task.questions.len(), task.shots), (4, 3));
    for (number, question) in task.questions.iter().enumerate() {
        let (context, continuation) = &question.requests[1];
        let parts: Vec<&str> = context.split("\n\n").collect();
        assert_eq!((parts.len(), parts[3], continuation.as_str()), (4, &*format!("Q: {number}?"), &*format!(" y{number}")));
        assert!(parts[..3].iter().all(|part| !part.contains(&format!("{number}?"))), "{context}");
        for part in &parts[..3] {
            // "Q: 4? x4": the answer is the choice that the row names.
            let of: usize = part[3..4].parse().unwrap();
            assert_eq!(*part, format!("Q: {of}? {}{of}", if of.is_multiple_of(2) { "x" } else { "y" }));
        }
    }
    let message = load(TASK, &[("t.jsonl", &rows)], TaskOptions { shots: Some(6), limit: None }).unwrap_err();
    assert!(message.contains("7 rows are needed for 6 examples, there are 6"), "{message}");
}

#[test]
fn bad_rows_are_named_with_their_line() {
    let good = "{\"q\": \"a\", \"c\": [\"x\", \"y\"], \"a\": 1}\n";
    let loaded = |second: &str| load(TASK, &[("t.jsonl", &format!("{good}\n{second}\n"))], TaskOptions::default());
    loaded("{\"q\": \"a\", \"c\": [\"x\", \"y\"], \"a\": \"x\"}").unwrap();
    for (row, reason) in [
        ("{\"q\": \"a\", \"c\": [\"x\", \"y\"]}", "no field \"a\""),
        ("{\"c\": [\"x\", \"y\"], \"a\": 1}", "no field \"q\""),
        ("{\"q\": \"a\", \"c\": [\"x\", \"y\"], \"a\": 2}", "choice 2, but there are 2"),
        ("{\"q\": \"a\", \"c\": [\"x\", \"y\"], \"a\": \"z\"}", "\"z\" is no choice"),
        ("{\"q\": \"a\", \"c\": \"xy\", \"a\": 0}", "doc_to_choice gives a text"),
        ("{\"q\": \"a\", \"c\": [], \"a\": 0}", "no choice"),
        ("[1]", "not a JSON object"),
        ("{\"q\": ", "not JSON"),
    ] {
        let message = loaded(row).unwrap_err();
        assert!(message.contains("t.jsonl, line 3") && message.contains(reason) && message.contains("\nhint: "), "{row}: {message}");
    }
    assert!(load(TASK, &[], TaskOptions::default()).unwrap_err().contains("t.jsonl"));
    assert!(load(TASK, &[("t.jsonl", "\n")], TaskOptions::default()).unwrap_err().contains("there is no row"));
}

#[test]
fn shipped_tasks_without_reference_values_read_their_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        (
            "sciq",
            r#"{"support": " S.", "question": "Q?", "distractor1": "a", "distractor2": "b", "distractor3": "c", "correct_answer": "d"}"#,
            ("S.\nQuestion: Q?\nAnswer:", " d"),
            3,
        ),
        ("crows_pairs", r#"{"sent_more": "One.", "sent_less": "Two."}"#, ("", "One."), 0),
        (
            "race",
            r#"{"article": "A.", "history": "Question: p\nAnswer: q\n", "question": "r?", "options": ["w", "x", "y", "z"], "answer": "C"}"#,
            ("Article: A.\n\nQuestion: p\nAnswer: q\nr?", " y"),
            2,
        ),
    ];
    for (name, row, request, gold) in rows {
        std::fs::write(folder.path().join(format!("{name}.jsonl")), row).unwrap();
        let file = find_tasks(name).unwrap().remove(0).file;
        let task = Task::load(&file, folder.path(), TaskOptions::default()).unwrap().remove(0);
        let question = &task.questions[0];
        assert_eq!(question.gold, gold, "{name}");
        assert_eq!(question.requests[gold], (request.0.to_owned(), request.1.to_owned()), "{name}");
    }
}

#[test]
fn commonsense_rows_become_corenets_requests() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("ARC-Easy")).unwrap();
    let row = |n: usize| {
        let instruction = format!("Choose: \u{201c}{n}\u{201d}?\n\nAnswer1: a Answer2: b\n\nAnswer format: answer1/answer2");
        serde_json::json!({"instruction": instruction, "input": "", "output": "the correct answer is answer2", "answer": "answer2"})
    };
    let rows: Vec<_> = (0..10).map(row).collect();
    std::fs::write(folder.path().join("ARC-Easy/test.json"), serde_json::to_string(&rows).unwrap()).unwrap();
    let file = find_tasks("commonsense_ARC-Easy").unwrap().remove(0).file;
    let task = Task::load(&file, folder.path(), TaskOptions { shots: None, limit: Some(7) }).unwrap().remove(0);
    // CPython: Random(83652).shuffle(list(range(10))).
    for (question, n) in task.questions.iter().zip([0, 1, 2, 5, 7, 9, 3]) {
        // The quotation marks are those that ftfy leaves.
        let context = format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n\n\
             {i}### Instruction:\n{i}Choose: \"{n}\"?\n\nAnswer1: a Answer2: b\n\nAnswer format: answer1/answer2\n{i}\n{i}### Response:\n{i}",
            i = " ".repeat(16)
        );
        let answers = ["the correct answer is answer1", "the correct answer is answer2"];
        assert_eq!(question.requests, answers.map(|answer| (context.clone(), answer.to_owned())));
        assert_eq!((question.gold, question.lengths.as_slice()), (1, [29, 29].as_slice()));
    }
    assert_eq!(task.questions.len(), 7);
    std::fs::write(folder.path().join("ARC-Easy/test.json"), "[{\"instruction\": 1}, 2]").unwrap();
    let message = Task::load(&file, folder.path(), TaskOptions::default()).unwrap_err().to_string();
    assert!(message.contains("no list of objects") && message.contains("hint: "), "{message}");
}
