//! What a Rill program does: its variables, functions and output.

use super::draw::Halt;
use super::scribe::Scribe;

/// Beyond this a variable is only printed or set anew.
pub const LARGE: i64 = 2_000;

/// A function that programs may define.
#[derive(Clone, Copy)]
pub struct Function {
    pub name: &'static str,
    pub body: &'static str,
    pub run: fn(i64) -> i64,
}

/// All functions that programs may define; the class `function` has their names.
pub const FUNCTIONS: [Function; 7] = [
    Function { name: "double", body: "n * 2", run: |n| n * 2 },
    Function { name: "triple", body: "n * 3", run: |n| n * 3 },
    Function { name: "square", body: "n * n", run: |n| n * n },
    Function { name: "next", body: "n + 1", run: |n| n + 1 },
    Function { name: "ten_more", body: "n + 10", run: |n| n + 10 },
    Function { name: "half_dozen", body: "n + 6", run: |n| n + 6 },
    Function { name: "twice_and_one", body: "n * 2 + 1", run: |n| n * 2 + 1 },
];

/// What a program knows at a point.
#[derive(Default)]
pub struct State {
    pub variables: Vec<(String, i64)>,
    pub functions: Vec<Function>,
    pub output: Vec<String>,
}

/// One line inside or outside of a block.
pub enum Line {
    Set(usize, i64),
    Add(usize, i64),
    AddVariable(usize, usize),
    Multiply(usize, i64),
    Call(usize, usize),
    PrintVariable(usize),
    PrintCall(usize, usize),
    PrintWord(String),
}

impl State {
    pub fn value(&self, variable: usize) -> i64 {
        self.variables.get(variable).map_or(0, |(_, value)| *value)
    }

    pub fn name(&self, variable: usize) -> String {
        self.variables.get(variable).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn set(&mut self, variable: usize, value: i64) {
        if let Some((_, old)) = self.variables.get_mut(variable) {
            *old = value;
        }
    }

    fn call(&self, function: usize, variable: usize) -> i64 {
        self.functions.get(function).map_or(0, |function| (function.run)(self.value(variable)))
    }

    pub fn run(&mut self, line: &Line) {
        match line {
            Line::Set(variable, value) => self.set(*variable, *value),
            Line::Add(variable, value) => self.set(*variable, self.value(*variable) + value),
            Line::AddVariable(variable, other) => self.set(*variable, self.value(*variable) + self.value(*other)),
            Line::Multiply(variable, value) => self.set(*variable, self.value(*variable) * value),
            Line::Call(variable, function) => self.set(*variable, self.call(*function, *variable)),
            Line::PrintVariable(variable) => self.output.push(self.value(*variable).to_string()),
            Line::PrintCall(function, variable) => self.output.push(self.call(*function, *variable).to_string()),
            Line::PrintWord(word) => self.output.push(word.clone()),
        }
    }

    /// Evenly one of the variables that are not large.
    pub fn small(&self, s: &mut Scribe) -> Result<usize, Halt> {
        let weights: Vec<u32> = self.variables.iter().map(|(_, value)| u32::from(value.abs() <= LARGE)).collect();
        s.draw.pick(&weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_do_what_their_bodies_say() {
        for function in FUNCTIONS {
            for n in [0, 3, 7] {
                // Bodies are chains of + and * from left to right, all products first.
                let sum: i64 = function
                    .body
                    .split(" + ")
                    .map(|term| term.split(" * ").map(|factor| if factor == "n" { n } else { factor.parse().unwrap() }).product::<i64>())
                    .sum();
                assert_eq!((function.run)(n), sum, "{}", function.name);
            }
        }
    }

    #[test]
    fn lines_change_what_they_name() {
        let mut state = State { variables: vec![("a".into(), 4), ("b".into(), 10)], ..State::default() };
        for line in [Line::Multiply(0, 3), Line::AddVariable(1, 0), Line::Add(0, -2), Line::PrintVariable(1), Line::Set(1, 0)] {
            state.run(&line);
        }
        assert_eq!((state.value(0), state.value(1)), (10, 0));
        assert_eq!(state.output, ["22"]);
    }
}
