//! Regular expressions as `target_modules`, `rank_pattern` and `alpha_pattern` hold them: the part of Python's `re` that names of modules
//! need. Literals, `.`, `[...]`, `\d` `\w` `\s` and their opposites, `(...)`, `(?:...)`, `|`, `*`, `+`, `?`, `{m}`, `{m,}`,
//! `{m,n}`, each of the last five also with `?` behind, `^` and `$`.
//!
//! What must stay true: what is not in this list is an error that names it; matching is over the whole name, and takes a bounded
//! number of steps and a bounded part of the stack whatever the expression is.

/// Steps of one match at most.
const STEPS: u32 = 1 << 20;
/// Repetitions that may be open at one time: each is a few calls deep in the stack. A name's characters each open a few.
const OPEN: u32 = 1000;
/// Depth of parentheses at most.
const DEPTH: usize = 50;

/// A regular expression.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    ways: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug)]
struct Piece {
    atom: Atom,
    least: u32,
    most: u32,
    lazy: bool,
}

#[derive(Clone, Debug)]
enum Atom {
    Set { negated: bool, ranges: Vec<(char, char)> },
    Group(Vec<Vec<Piece>>),
    Begin,
    End,
}

impl Pattern {
    /// Parses `text`.
    ///
    /// # Errors
    /// What in it cannot be understood.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.chars().collect::<Vec<_>>(), at: 0 };
        let ways = parser.ways(0)?;
        match parser.peek() {
            None => Ok(Self { ways }),
            Some(_) => Err("a ) has no ( before it".into()),
        }
    }

    /// Whether the whole of `name` matches.
    ///
    /// # Errors
    /// When the expression needs too many steps.
    pub fn matches(&self, name: &str) -> Result<bool, String> {
        let text: Vec<char> = name.chars().collect();
        let mut effort = Effort { steps: STEPS, open: OPEN };
        let end = text.len();
        any(&self.ways, &text, 0, &mut effort, &mut |at, _| Ok(at == end))
    }
}

/// What a match may still take.
struct Effort {
    steps: u32,
    open: u32,
}

type Rest<'a> = &'a mut dyn FnMut(usize, &mut Effort) -> Result<bool, String>;

fn any(ways: &[Vec<Piece>], text: &[char], at: usize, effort: &mut Effort, rest: Rest<'_>) -> Result<bool, String> {
    for way in ways {
        if sequence(way, text, at, effort, rest)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sequence(pieces: &[Piece], text: &[char], at: usize, effort: &mut Effort, rest: Rest<'_>) -> Result<bool, String> {
    match pieces.split_first() {
        None => rest(at, effort),
        Some((piece, others)) => {
            repeat(piece, piece.least, 0, text, at, effort, &mut |at, effort| sequence(others, text, at, effort, rest))
        }
    }
}

/// `piece`, which was repeated `done` times and must be at least `least` times, then the rest.
fn repeat(piece: &Piece, least: u32, done: u32, text: &[char], at: usize, effort: &mut Effort, rest: Rest<'_>) -> Result<bool, String> {
    let too_much = "it needs too many steps on a module's name; make it simpler";
    effort.steps = effort.steps.checked_sub(1).ok_or(too_much)?;
    effort.open = effort.open.checked_sub(1).ok_or(too_much)?;
    let found = repeat_open(piece, least, done, text, at, effort, rest);
    effort.open += 1;
    found
}

fn repeat_open(
    piece: &Piece,
    least: u32,
    done: u32,
    text: &[char],
    at: usize,
    effort: &mut Effort,
    rest: Rest<'_>,
) -> Result<bool, String> {
    if piece.lazy && done >= least && rest(at, effort)? {
        return Ok(true);
    }
    if done < piece.most {
        let again = once(&piece.atom, text, at, effort, &mut |next, effort| match next == at {
            // An empty repetition beyond the least changes nothing.
            true if done >= least => Ok(false),
            // One within the least can be done as often as is asked for.
            true => repeat(piece, 0, done + 1, text, next, effort, rest),
            false => repeat(piece, least, done + 1, text, next, effort, rest),
        })?;
        if again {
            return Ok(true);
        }
    }
    if !piece.lazy && done >= least { rest(at, effort) } else { Ok(false) }
}

fn once(atom: &Atom, text: &[char], at: usize, effort: &mut Effort, rest: Rest<'_>) -> Result<bool, String> {
    match atom {
        Atom::Begin => {
            if at == 0 {
                rest(at, effort)
            } else {
                Ok(false)
            }
        }
        Atom::End => {
            if at == text.len() {
                rest(at, effort)
            } else {
                Ok(false)
            }
        }
        Atom::Group(ways) => any(ways, text, at, effort, rest),
        Atom::Set { negated, ranges } => match text.get(at) {
            Some(c) if ranges.iter().any(|(low, high)| low <= c && c <= high) != *negated => rest(at + 1, effort),
            _ => Ok(false),
        },
    }
}

struct Parser {
    rest: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        self.at += usize::from(there);
        there
    }

    fn ways(&mut self, depth: usize) -> Result<Vec<Vec<Piece>>, String> {
        if depth > DEPTH {
            return Err("its parentheses are nested too deeply".into());
        }
        let mut ways = vec![Vec::new()];
        while let Some(c) = self.peek().filter(|c| *c != ')') {
            if c == '|' {
                self.at += 1;
                ways.push(Vec::new());
                continue;
            }
            let atom = self.atom(depth)?;
            let (least, most) = self.times()?;
            let counted = (least, most) != (1, 1) || self.rest.get(self.at.wrapping_sub(1)) == Some(&'}');
            let lazy = counted && self.eat('?');
            if let Some(way) = ways.last_mut() {
                way.push(Piece { atom, least, most, lazy });
            }
        }
        Ok(ways)
    }

    fn atom(&mut self, depth: usize) -> Result<Atom, String> {
        let one = |c: char| Atom::Set { negated: false, ranges: vec![(c, c)] };
        match self.next() {
            Some('.') => Ok(Atom::Set { negated: true, ranges: vec![('\n', '\n')] }),
            Some('^') => Ok(Atom::Begin),
            Some('$') => Ok(Atom::End),
            Some('(') => {
                if self.eat('?') && !self.eat(':') {
                    return Err("of the groups that begin with (? only (?:...) is understood".into());
                }
                let ways = self.ways(depth + 1)?;
                if self.eat(')') { Ok(Atom::Group(ways)) } else { Err("a ( is not closed".into()) }
            }
            Some('[') => self.set(),
            Some('\\') => {
                let (negated, ranges) = self.escape()?;
                Ok(Atom::Set { negated, ranges })
            }
            Some(c @ ('*' | '+' | '?' | '{')) => Err(format!("there is nothing for {c} to repeat")),
            Some(c) => Ok(one(c)),
            None => Err("it ends too early".into()),
        }
    }

    fn escape(&mut self) -> Result<(bool, Vec<(char, char)>), String> {
        let digits = vec![('0', '9')];
        let words = vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
        let blanks = vec![(' ', ' '), ('\t', '\r')];
        match self.next() {
            Some('d') => Ok((false, digits)),
            Some('D') => Ok((true, digits)),
            Some('w') => Ok((false, words)),
            Some('W') => Ok((true, words)),
            Some('s') => Ok((false, blanks)),
            Some('S') => Ok((true, blanks)),
            Some(c) if !c.is_alphanumeric() => Ok((false, vec![(c, c)])),
            Some(c) => Err(format!("\\{c} is not understood")),
            None => Err("it ends with a \\".into()),
        }
    }

    fn set(&mut self) -> Result<Atom, String> {
        let negated = self.eat('^');
        let mut ranges = Vec::new();
        let mut first = true;
        loop {
            let low = match self.next() {
                None => return Err("a [ is not closed".into()),
                Some(']') if !first => return Ok(Atom::Set { negated, ranges }),
                Some('\\') => match self.escape()? {
                    (true, _) => return Err("opposites such as \\D inside [...] are not understood".into()),
                    (false, found) => match found[..] {
                        [(c, end)] if c == end => c,
                        _ => {
                            ranges.extend(found);
                            first = false;
                            continue;
                        }
                    },
                },
                Some(c) => c,
            };
            first = false;
            let is_range = self.peek() == Some('-') && self.rest.get(self.at + 1).is_some_and(|c| *c != ']');
            if !is_range {
                ranges.push((low, low));
                continue;
            }
            self.at += 1;
            match self.next() {
                Some(high) if high >= low && high != '\\' => ranges.push((low, high)),
                _ => return Err(format!("the range that begins with {low} inside [...] is not understood")),
            }
        }
    }

    fn times(&mut self) -> Result<(u32, u32), String> {
        match self.peek() {
            Some('*') => self.at += 1,
            Some('+') => {
                self.at += 1;
                return Ok((1, u32::MAX));
            }
            Some('?') => {
                self.at += 1;
                return Ok((0, 1));
            }
            Some('{') => {
                self.at += 1;
                let mut inner = String::new();
                loop {
                    match self.next() {
                        Some('}') => break,
                        Some(c) => inner.push(c),
                        None => return Err("a { is not closed".into()),
                    }
                }
                let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{{{inner}}} is no count"));
                return match inner.split_once(',') {
                    None => number(&inner).map(|count| (count, count)),
                    Some((least, "")) => Ok((number(least)?, u32::MAX)),
                    Some((least, most)) => {
                        let (least, most) = (if least.is_empty() { 0 } else { number(least)? }, number(most)?);
                        if least <= most { Ok((least, most)) } else { Err(format!("{{{inner}}} is no count")) }
                    }
                };
            }
            _ => return Ok((1, 1)),
        }
        Ok((0, u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_python() {
        let name = "transformer.layers.12.attn.qkv_proj";
        for (pattern, expected) in [
            (r".*\.qkv_proj", true),
            (r"qkv_proj", false),
            (r".*\.(qkv|out)_proj", true),
            (r".*layers\.(0|1|2)\..*", false),
            (r".*layers\.\d+\..*", true),
            (r".*layers\.1\d\.attn.*", true),
            (r".*layers\.[0-9]{3}\..*", false),
            (r".*layers\.[0-9]{1,2}\..*", true),
            (r".*layers\.[^3-9]+\.attn\.(?:out|qkv)_proj$", true),
            (r"^transformer(\.\w+)+", true),
            (r"(.*\.)?(qkv_proj)$", true),
            (r"(a|.*)*?proj", true),
            (r"(.*\.)?(attn)$", false),
            (r".+?attn.{9}", true),
            (r"", false),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name).unwrap(), expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (pattern, reason) in [
            ("a(b", "( is not closed"),
            ("a)b", "no ( before"),
            ("*a", "nothing for *"),
            ("[a", "[ is not closed"),
            (r"\Z", r"\Z is not understood"),
            ("(?=a)", "only (?:...)"),
            ("a{2,1}", "{2,1} is no count"),
            ("a{x}", "{x} is no count"),
            ("a\\", "ends with a \\"),
            ("[b-a]", "the range"),
        ] {
            let error = Pattern::new(pattern).unwrap_err();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
        assert!(Pattern::new(&"(".repeat(200)).unwrap_err().contains("nested"));
    }

    #[test]
    fn hostile_expressions_end() {
        let error = Pattern::new("(a*)*(a*)*(a*)*(a*)*b").unwrap().matches(&"a".repeat(60)).unwrap_err();
        assert!(error.contains("too many steps"), "{error}");
    }

    #[test]
    fn empty_repetitions_take_no_stack() {
        for (pattern, name, expected) in [
            ("(?:){1000000}", "", true),
            ("^{900000}a", "a", true),
            ("(|a){900000}b", "aab", true),
            ("(^|a){3}", "aa", true),
            ("(^|a){2,3}?b", "aab", true),
            ("(^|a){2}", "aaa", false),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name), Ok(expected), "{pattern}");
        }
        for deep in ["^".repeat(100_000), "a*".repeat(100_000), format!("{}b", "(a?)".repeat(100_000))] {
            assert!(Pattern::new(&deep).unwrap().matches("a").unwrap_err().contains("too many steps"));
        }
    }
}
