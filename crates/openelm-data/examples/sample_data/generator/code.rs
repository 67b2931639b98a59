//! Programs in Rill, a small language with `let`, `fn`, `repeat`, `while`, `if` and `print`, each with its true output.
//!
//! A program is run while it is written: what may come next depends on the values so far (nothing grows without limit), and
//! the comment at the end shows what it prints. The output costs no bits; a model has to run the program to know it.

use super::draw::Halt;
use super::rill::{FUNCTIONS, LARGE, Line, State};
use super::scribe::Scribe;

/// A program and its output.
pub fn code(s: &mut Scribe) -> Result<(), Halt> {
    s.promise("v1", "variable");
    s.promise("v2", "variable");
    s.promise("who", "name");
    s.say("# This program ")?;
    s.write("code.purpose")?;
    s.say(".\n")?;
    let mut state = State::default();
    for key in ["v1", "v2", "v3"] {
        if key == "v3" {
            if !s.draw.chance(1, 1)? {
                break;
            }
            s.promise("v3", "variable");
        }
        declare(s, &mut state, key)?;
    }
    for _ in 0..2 {
        if !s.draw.chance(3, 2)? {
            break;
        }
        define(s, &mut state)?;
    }
    s.say("\n")?;
    for statement in 0..20 {
        if statement >= 7 && !s.draw.chance(5, 1)? {
            break;
        }
        self::statement(s, &mut state)?;
    }
    for variable in 0..state.variables.len() {
        s.say(&format!("print {}\n", state.name(variable)))?;
        state.run(&Line::PrintVariable(variable));
    }
    s.say("\n# output:\n")?;
    for line in &state.output {
        s.say(&format!("# {line}\n"))?;
    }
    Ok(())
}

fn declare(s: &mut Scribe, state: &mut State, key: &str) -> Result<(), Halt> {
    s.say("let ")?;
    let name = s.value(key)?;
    s.say(&format!("{name} = "))?;
    let value = s.draw.between(0, 30)?;
    s.say(&format!("{value}\n"))?;
    state.variables.push((name, value));
    Ok(())
}

fn define(s: &mut Scribe, state: &mut State) -> Result<(), Halt> {
    s.promise("function", "function");
    s.say("\nfn ")?;
    let name = s.value("function")?;
    let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
        return Err(Halt::Fault(format!("the function {name} has no body")));
    };
    s.say(&format!("{name}(n) {{\n    return {}\n}}\n", function.body))?;
    state.functions.push(*function);
    Ok(())
}

/// One statement, with its block if it has one, run at once.
fn statement(s: &mut Scribe, state: &mut State) -> Result<(), Halt> {
    let any_small = u32::from(state.variables.iter().any(|(_, value)| value.abs() <= LARGE));
    match s.draw.pick(&[8, 3 * any_small, 2 * any_small, 3, 1])? {
        0 => {
            let line = line(s, state, "")?;
            state.run(&line);
        }
        1 => {
            let times = s.draw.between(2, 5)?;
            s.say(&format!("repeat {times} {{\n"))?;
            let first = addition(s, state)?;
            let second = if s.draw.chance(1, 2)? { Some(addition(s, state)?) } else { None };
            s.say("}\n")?;
            for _ in 0..times {
                state.run(&first);
                if let Some(second) = &second {
                    state.run(second);
                }
            }
        }
        2 => {
            let variable = state.small(s)?;
            // At most twelve rounds, and at least none.
            let limit = state.value(variable) + 5 * s.draw.between(0, 8)?;
            s.say(&format!("while {} < {limit} {{\n", state.name(variable)))?;
            let step = s.draw.between(3, 9)?;
            s.say(&format!("    {0} = {0} + {step}\n}}\n", state.name(variable)))?;
            while state.value(variable) < limit {
                state.run(&Line::Add(variable, step));
            }
        }
        3 => {
            let variable = s.draw.even(state.variables.len())?;
            s.say(&format!("if {} ", state.name(variable)))?;
            let less = s.draw.chance(1, 1)?;
            let bound = s.draw.between(1, 60)?;
            s.say(&format!("{} {bound} {{\n", if less { '<' } else { '>' }))?;
            let first = line(s, state, "    ")?;
            let second = if s.draw.chance(1, 1)? {
                s.say("} else {\n")?;
                Some(line(s, state, "    ")?)
            } else {
                None
            };
            s.say("}\n")?;
            let value = state.value(variable);
            if if less { value < bound } else { value > bound } {
                state.run(&first);
            } else if let Some(second) = &second {
                state.run(second);
            }
        }
        _ => {
            s.promise_any("who", "name");
            s.say("# ")?;
            s.write("code.comment")?;
            s.say("\n")?;
        }
    }
    Ok(())
}

/// A line that adds to a variable: all that a loop may hold.
fn addition(s: &mut Scribe, state: &State) -> Result<Line, Halt> {
    let variable = state.small(s)?;
    let name = state.name(variable);
    s.say(&format!("    {name} = {name} "))?;
    match s.draw.pick(&[3, 2, 3])? {
        0 => {
            let value = s.draw.between(1, 12)?;
            s.say(&format!("+ {value}\n"))?;
            Ok(Line::Add(variable, value))
        }
        1 => {
            let value = s.draw.between(1, 6)?;
            s.say(&format!("- {value}\n"))?;
            Ok(Line::Add(variable, -value))
        }
        _ => {
            let other = state.small(s)?;
            s.say(&format!("+ {}\n", state.name(other)))?;
            Ok(Line::AddVariable(variable, other))
        }
    }
}

/// Any line without a block.
fn line(s: &mut Scribe, state: &State, indent: &str) -> Result<Line, Halt> {
    s.say(indent)?;
    let calls = if state.functions.is_empty() { 0 } else { 3 };
    // A new value, a changed one, or something printed.
    match s.draw.pick(&[2, 7, 3, 2])? {
        0 => {
            let variable = s.draw.even(state.variables.len())?;
            s.say(&format!("{} = ", state.name(variable)))?;
            let value = s.draw.between(0, 30)?;
            s.say(&format!("{value}\n"))?;
            Ok(Line::Set(variable, value))
        }
        1 => {
            let variable = s.draw.even(state.variables.len())?;
            let (name, value) = (state.name(variable), state.value(variable));
            s.say(&format!("{name} = "))?;
            let fits = u32::from(value.abs() <= LARGE);
            let little = u32::from(value.abs() <= 60);
            let any_small = u32::from(state.variables.iter().any(|(_, value)| value.abs() <= LARGE));
            match s.draw.pick(&[3, 3, 2 * fits, 3 * fits * any_small, calls * little])? {
                0 => {
                    s.say(&format!("{name} + "))?;
                    let amount = s.draw.between(1, 25)?;
                    s.say(&format!("{amount}\n"))?;
                    Ok(Line::Add(variable, amount))
                }
                1 => {
                    s.say(&format!("{name} - "))?;
                    let amount = s.draw.between(1, 15)?;
                    s.say(&format!("{amount}\n"))?;
                    Ok(Line::Add(variable, -amount))
                }
                2 => {
                    s.say(&format!("{name} * "))?;
                    let factor = s.draw.between(2, 5)?;
                    s.say(&format!("{factor}\n"))?;
                    Ok(Line::Multiply(variable, factor))
                }
                3 => {
                    s.say(&format!("{name} + "))?;
                    let other = state.small(s)?;
                    s.say(&format!("{}\n", state.name(other)))?;
                    Ok(Line::AddVariable(variable, other))
                }
                _ => {
                    let function = s.draw.even(state.functions.len())?;
                    let called = state.functions.get(function).map(|function| function.name).unwrap_or_default();
                    s.say(&format!("{called}({name})\n"))?;
                    Ok(Line::Call(variable, function))
                }
            }
        }
        2 => {
            s.say("print ")?;
            let little: Vec<u32> = state.variables.iter().map(|(_, value)| u32::from(value.abs() <= 60)).collect();
            let callable = u32::from(little.contains(&1));
            if s.draw.pick(&[3, calls * callable])? == 0 {
                let variable = s.draw.even(state.variables.len())?;
                s.say(&format!("{}\n", state.name(variable)))?;
                Ok(Line::PrintVariable(variable))
            } else {
                let function = s.draw.even(state.functions.len())?;
                let called = state.functions.get(function).map(|function| function.name).unwrap_or_default();
                s.say(&format!("{called}("))?;
                let variable = s.draw.pick(&little)?;
                s.say(&format!("{})\n", state.name(variable)))?;
                Ok(Line::PrintCall(function, variable))
            }
        }
        _ => {
            s.promise_any("word", "word");
            let word = s.value("word")?;
            s.say(&format!("print \"{word}\"\n"))?;
            Ok(Line::PrintWord(word))
        }
    }
}
