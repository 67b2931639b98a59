//! Calls of the real program, and what came of them.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than any call of a test takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A call that was not made yet.
pub struct Call {
    command: Command,
    input: Vec<u8>,
}

impl Call {
    pub fn new<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
        command.current_dir(folder).args(arguments);
        Self::of(command)
    }

    /// `openelm` by way of a shell, whose script runs it as `"$@"`.
    pub fn through_shell<'a>(folder: &Path, script: &str, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = Command::new("sh");
        command.current_dir(folder).args(["-c", script, "sh", env!("CARGO_BIN_EXE_openelm")]).args(arguments);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        // A setting of whoever calls the tests must not reach them.
        for variable in ["RAYON_NUM_THREADS", "OPENELM_THREADS", "OPENELM_ISA"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, input: Vec::new() }
    }

    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// A `--set` for each.
    pub fn set(mut self, set: &[&str]) -> Self {
        for one in set {
            self.command.args(["--set", one]);
        }
        self
    }

    pub fn resume(self) -> Self {
        self.arg("--resume")
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// What the program reads from its standard input.
    pub fn input(mut self, input: impl AsRef<[u8]>) -> Self {
        self.input = input.as_ref().to_vec();
        self
    }

    /// Runs the program to its end.
    pub fn outcome(self) -> Outcome {
        self.start().wait()
    }

    /// Runs the program, which must succeed.
    pub fn succeeds(self) -> Outcome {
        self.outcome().succeeds()
    }

    /// Runs the program, which must fail in the way that every failure has: a message with all of `parts` and a hint.
    pub fn fails(self, parts: &[&str]) -> String {
        self.outcome().fails(parts)
    }

    /// Starts the program.
    pub fn start(mut self) -> Running {
        let mut child = self.command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // A program that does not read its input ends without taking it.
        let _ = input.write_all(&self.input);
        Running { child: Some(child) }
    }
}

/// A program at work; ended when dropped.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap()
    }

    pub fn id(&mut self) -> u32 {
        self.child().id()
    }

    pub fn is_over(&mut self) -> bool {
        self.child().try_wait().unwrap().is_some()
    }

    /// The next line of its standard output.
    pub fn line(&mut self) -> String {
        let output = self.child().stdout.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        // Byte by byte: what comes behind the line belongs to whoever reads next.
        while output.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    /// Sends a signal, such as `INT`.
    pub fn signal(&mut self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success(), "kill -{name} {id}");
    }

    /// Waits until `holds`. The program must not end before.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(!self.is_over(), "the program ended before {what}");
            assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the program with `kill -9`, at once. False when it had ended by itself before.
    pub fn kill(mut self) -> bool {
        let was_over = self.is_over();
        // It may end between the question and the signal.
        let _ = self.child().kill();
        let status = self.child().wait().unwrap();
        !was_over && status.code().is_none()
    }

    pub fn wait(mut self) -> Outcome {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a call left.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The message of a failure: it begins with `error: `, ends with one hint, says nothing twice and holds all of `parts`.
    pub fn fails(&self, parts: &[&str]) -> String {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        let start = self.stderr.find("error: ").unwrap_or_else(|| panic!("no error: {}", self.stderr));
        let message = self.stderr[start..].trim_end().to_owned();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        let (reason, hint) = message.split_once("\nhint: ").unwrap_or_else(|| panic!("no hint: {message}"));
        assert!(!hint.contains("hint: ") && !hint.contains('\n'), "more than one hint: {message}");
        assert!(!hint.trim().is_empty(), "{message}");
        for cause in reason.split(": ").filter(|cause| cause.len() > 12) {
            assert!(!hint.contains(cause), "{cause:?} is said twice: {message}");
        }
        message
    }

    /// Fails unless the program succeeded.
    pub fn succeeds(self) -> Self {
        assert!(self.status.success(), "{self:?}");
        self
    }

    /// The standard output as one JSON value a line.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The standard output as one JSON value.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}
