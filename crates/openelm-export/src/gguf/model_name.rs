//! What llama.cpp's converter reads out of a model's name: `OpenELM-1_1B-Instruct` is of the base OpenELM, the size 1.1B, fine-tuned
//! as Instruct. Follows `Metadata.get_model_id_components` and `id_to_title` of gguf-py.

/// A name in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ModelName {
    pub title: String,
    pub version: Option<String>,
    pub finetune: Option<String>,
    pub basename: Option<String>,
    pub size_label: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Base,
    Size,
    Finetune,
    Version,
    Stored,
}

/// A part between hyphens, and what it can be.
struct Part {
    text: String,
    kinds: Vec<Kind>,
}

impl ModelName {
    /// The parts of `name`; the size from the number of parameters where the name tells none.
    pub fn parse(name: &str, parameters: usize) -> Self {
        let counted = counted_size(parameters);
        let title = title(name);
        if name.contains(' ') {
            return Self { title, version: None, finetune: None, basename: None, size_label: counted };
        }
        let texts = name.split('-').filter(|text| !text.is_empty());
        let mut parts: Vec<Part> = texts.enumerate().map(|(place, text)| annotated(place, text, parameters)).collect();
        if parts.iter().any(|part| part.kinds.contains(&Kind::Size) && part.text.contains(|c: char| c.is_ascii_digit())) {
            for part in &mut parts {
                if part.text.chars().all(char::is_alphabetic) {
                    part.kinds.retain(|kind| *kind != Kind::Size);
                }
            }
        }
        let mut at_start = true;
        for part in &mut parts {
            let unnamed = part.kinds.is_empty() && part.text.starts_with(char::is_alphabetic);
            if at_start && (unnamed || part.kinds.contains(&Kind::Version)) {
                part.kinds.push(Kind::Base);
                continue;
            }
            at_start = false;
            if part.kinds.is_empty() {
                part.kinds.push(Kind::Finetune);
            }
        }
        for part in parts.iter_mut().rev() {
            if part.kinds.len() < 2 || !part.kinds.contains(&Kind::Base) {
                break;
            }
            part.kinds.retain(|kind| *kind != Kind::Base);
        }
        let joined = |wanted: &dyn Fn(&Part) -> bool| {
            let texts: Vec<&str> = parts.iter().filter(|part| wanted(part)).map(|part| part.text.as_str()).collect();
            (!texts.is_empty()).then(|| texts.join("-"))
        };
        let size = joined(&|part| part.kinds.contains(&Kind::Size));
        let finetune = joined(&|part| part.kinds.contains(&Kind::Finetune));
        let version = joined(&|part| part.kinds.contains(&Kind::Version) && !part.kinds.contains(&Kind::Base));
        // A name with nothing but words may be anything.
        let tells = size.is_some() || finetune.is_some() || version.is_some();
        let basename = joined(&|part| part.kinds.contains(&Kind::Base)).filter(|_| tells);
        Self { title, version, finetune, basename, size_label: size.unwrap_or(counted) }
    }
}

fn annotated(place: usize, text: &str, parameters: usize) -> Part {
    let lower = text.to_ascii_lowercase();
    let part = |text: String, kind: Option<Kind>| Part { text, kinds: kind.into_iter().collect() };
    if is_version(&lower) {
        return part(text.to_owned(), Some(Kind::Version));
    }
    if is_stored_type(&lower) {
        return part(text.to_ascii_uppercase(), Some(Kind::Stored));
    }
    if place > 0 && is_size(&lower) {
        let (text, far) = sized(text, parameters);
        return part(text, Some(if far { Kind::Finetune } else { Kind::Size }));
    }
    let finetune = place > 0 && ["chat", "instruct", "vision", "lora"].contains(&&*lower);
    part(text.to_owned(), finetune.then_some(Kind::Finetune))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `v2`, `iter300`, `1.5`.
fn is_version(lower: &str) -> bool {
    let number = lower.strip_prefix("iter").or_else(|| lower.strip_prefix('v')).unwrap_or(lower);
    number.split('.').all(all_digits)
}

/// `q4_k_m`, `iq2_s`, `bf16`, `fp32`.
fn is_stored_type(lower: &str) -> bool {
    let float = lower.strip_prefix('b').unwrap_or(lower).strip_prefix('f').map(|rest| rest.strip_prefix('p').unwrap_or(rest));
    if float.is_some_and(|bits| bits == "16" || bits == "32") {
        return true;
    }
    let Some(rest) = lower.strip_prefix('i').unwrap_or(lower).strip_prefix('q') else { return false };
    let [digit, tail @ ..] = rest.as_bytes() else { return false };
    let (pairs, odd) = tail.as_chunks::<2>();
    digit.is_ascii_digit()
        && odd.is_empty()
        && pairs.iter().all(|[dash, letter]| *dash == b'_' && (letter.is_ascii_alphanumeric() || *letter == b'_'))
}

/// `270m`, `1_1b`, `8x7b`, `a3b`, `7b1`, or a word.
fn is_size(lower: &str) -> bool {
    if ["small", "mini", "medium", "large", "xl", "xxl"].contains(&lower) {
        return true;
    }
    let number = match lower.split_once('x') {
        Some((experts, rest)) if all_digits(experts) => rest,
        _ => lower.strip_prefix('a').unwrap_or(lower),
    };
    let Some(unit) = number.find(|c: char| "kmbt".contains(c)) else { return false };
    let (digits, tail) = number.split_at(unit);
    let whole = digits.split_once(['.', '_']).map_or_else(|| all_digits(digits), |(whole, rest)| all_digits(whole) && all_digits(rest));
    whole && tail.len() <= 2 && tail.chars().skip(1).all(|c| c.is_ascii_digit())
}

/// The size in its usual form, and whether it is so far from the number of parameters that it must mean something else.
fn sized(text: &str, parameters: usize) -> (String, bool) {
    let mut text: Vec<char> = text.replace('_', ".").chars().collect();
    if let [.., unit, digit] = text[..]
        && digit.is_ascii_digit()
    {
        text.truncate(text.len() - 2);
        text.extend(['.', digit, unit]);
    }
    if let [.., digit, unit] = &mut text[..]
        && digit.is_ascii_digit()
    {
        unit.make_ascii_uppercase();
    }
    let text: String = text.into_iter().collect();
    let Some(number) = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<f64>().ok()) else { return (text, false) };
    let power = text.chars().next_back().and_then(|unit| " KMBT".find(unit)).map_or(-1, |power| power as i32);
    let stated = number * 1000_f64.powi(power);
    let far = (stated - parameters as f64).abs() > (7 * parameters / 8) as f64;
    if !far {
        return (text, false);
    }
    let lowered = text.char_indices().map(|(at, c)| if at + 1 == text.len() { c.to_ascii_lowercase() } else { c }).collect();
    (lowered, true)
}

/// Parameters in the largest unit that leaves a number above one, with a decimal where that has one digit.
fn counted_size(parameters: usize) -> String {
    let count = parameters as f64;
    let (scaled, unit) = match count {
        count if count > 1e12 => (count * 1e-12, 'T'),
        count if count > 1e9 => (count * 1e-9, 'B'),
        count if count > 1e6 => (count * 1e-6, 'M'),
        count => (count * 1e-3, 'K'),
    };
    let digits = format!("{:.0}", scaled.round_ties_even());
    let digits = digits.trim_start_matches('0').len();
    format!("{scaled:.*}{unit}", 2_usize.saturating_sub(digits))
}

/// Words in title case, but for those with capitals, versions and numbers.
fn title(name: &str) -> String {
    let words = name.trim().replace('-', " ");
    let words = words.split_whitespace().map(|word| {
        let is_lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        let version = word.strip_prefix('v').is_some_and(|rest| rest.split('.').all(all_digits));
        if !is_lower || version || word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.to_owned();
        }
        let mut after_letter = false;
        let letter = |c: char| {
            let first = !std::mem::replace(&mut after_letter, c.is_alphabetic());
            if first { c.to_uppercase().collect::<String>() } else { c.to_string() }
        };
        word.chars().map(letter).collect()
    });
    words.collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, parameters: usize) -> String {
        let ModelName { title, version, finetune, basename, size_label } = ModelName::parse(name, parameters);
        let parts = [basename, Some(size_label), finetune, version].map(Option::unwrap_or_default);
        format!("{title}|{}", parts.join("|"))
    }

    #[test]
    fn names_are_read_as_llama_cpp_reads_them() {
        // Each line is what gguf-py 0.19 gives.
        assert_eq!(shown("hf-5m", 5_329_664), "Hf 5m|hf|5M||");
        assert_eq!(shown("hf-tiny", 996_736), "Hf Tiny||997K||");
        assert_eq!(shown("OpenELM-1_1B-Instruct", 1_079_891_456), "OpenELM 1_1B Instruct|OpenELM|1.1B|Instruct|");
        assert_eq!(shown("OpenELM-270M", 271_527_168), "OpenELM 270M|OpenELM|270M||");
        assert_eq!(shown("story-4k-v2", 5_000_000), "Story 4k v2|story|5.0M|4k|v2");
        assert_eq!(shown("my model", 3_036_000_000), "My Model||3.0B||");
        assert_eq!(shown("run-f16-large-3", 100_000_000), "Run F16 Large 3|run|large||3");
        assert_eq!(shown("a-b-7b1", 7_100_000_000), "A B 7b1|a-b|7.1B||");
        assert_eq!(shown("gpt-2-small-chat", 100_000_000), "Gpt 2 Small Chat|gpt-2|small|chat|");
    }
}
