//! `ftfy.fix_text(text, normalization="NFC")` of ftfy 6.3: repair of mojibake, HTML entities, ligatures, quotes, widths, line
//! breaks and control characters, then NFC.
//!
//! The `plsfix` crate does one segment's work. This file does what it does otherwise than ftfy: ftfy works on lines of at
//! most a million characters (plsfix counts bytes and may cut a character), stops unescaping HTML for the whole rest of the
//! text once a line holds '<' (plsfix never stops), removes terminal escapes (plsfix leaves their tails), and decodes numeric
//! entities as Python's `html.unescape` does.
//!
//! A line of printable ASCII, tabs and form feeds comes out as it went in, provided that no entity can be in it: the encoding
//! step returns ASCII at once, and no other step of ftfy touches a character of that set. Such lines skip the machinery.

use std::borrow::Cow;

use plsfix::TextFixerConfig;

use crate::numeric_entity::decode_numeric_entities;

/// ftfy's `max_decode_length`, in characters.
const SEGMENT_CHARACTERS: usize = 1_000_000;

/// Stand-ins for '&' where entities must stay: like '&' they are ASCII, neither letters, digits nor white space, and stand in
/// none of the patterns that ftfy looks for. A form feed is white space, so it comes last.
const STAND_INS: &[u8] = b"~^|`@\\{}=+*%/:)(\x0c";

const FULL_WIDTH_AMPERSAND: char = '\u{ff06}';

/// The text repaired and in NFC; borrowed when nothing could change.
pub fn fix_text(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| is_plain(byte) && byte != b'&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut unescape = true;
    let mut rest = text;
    while !rest.is_empty() {
        let (segment, after) = rest.split_at(segment_end(rest));
        rest = after;
        unescape &= !segment.contains('<');
        if segment.bytes().all(|byte| is_plain(byte) && !(unescape && byte == b'&')) {
            out.push_str(segment);
        } else if unescape {
            out.push_str(&repaired(&decode_numeric_entities(segment)));
        } else {
            out.push_str(&repaired_without_unescaping(segment));
        }
    }
    Cow::Owned(out)
}

/// Characters that no step of ftfy changes; '&' only where entities are left alone.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\x0c')
}

/// The end of the first segment: after the first line break, or after a million characters.
fn segment_end(text: &str) -> usize {
    let line = text.find('\n').map_or(text.len(), |at| at + 1);
    if line <= SEGMENT_CHARACTERS {
        return line;
    }
    text[..line].char_indices().nth(SEGMENT_CHARACTERS).map_or(line, |(at, _)| at)
}

/// One segment, entities decoded.
fn repaired(segment: &str) -> String {
    // The segment is already cut; plsfix must not cut it again.
    let config = TextFixerConfig { max_decode_length: i32::MAX, ..TextFixerConfig::default() };
    plsfix::fix_text(&without_terminal_escapes(segment), Some(&config))
}

/// The text without `ESC [`, digits and semicolons, and a letter: ftfy's pattern of a terminal escape.
fn without_terminal_escapes(text: &str) -> Cow<'_, str> {
    const START: &str = "\u{1b}[";
    if !text.contains(START) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(START) {
        out.push_str(before);
        let tail = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match tail.strip_prefix(|c: char| c.is_ascii_alphabetic()) {
            Some(behind) => rest = behind,
            None => {
                out.push_str(START);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// One segment, entities left alone. plsfix decodes entities whatever its configuration says, so '&' is hidden from it.
fn repaired_without_unescaping(segment: &str) -> String {
    if !segment.contains(['&', FULL_WIDTH_AMPERSAND]) {
        return repaired(segment);
    }
    // The full-width ampersand becomes '&' on the way; the stand-in's own full-width form, where it has one, must be free too.
    let free = STAND_INS.iter().map(|byte| char::from(*byte)).find(|stand_in| {
        let wide = full_width(*stand_in);
        !segment.contains(*stand_in) && !wide.is_some_and(|wide| segment.contains(wide))
    });
    let Some(stand_in) = free else {
        // A line with all of the stand-ins: its parts between ampersands are repaired each for itself.
        return segment.split('&').map(repaired).collect::<Vec<_>>().join("&");
    };
    let mut hidden = segment.replace('&', stand_in.encode_utf8(&mut [0; 4]));
    if let Some(wide) = full_width(stand_in) {
        hidden = hidden.replace(FULL_WIDTH_AMPERSAND, wide.encode_utf8(&mut [0; 4]));
    }
    repaired(&hidden).replace(stand_in, "&")
}

fn full_width(c: char) -> Option<char> {
    if c.is_ascii_graphic() { char::from_u32(c as u32 + 0xfee0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_ascii_is_borrowed() {
        assert!(matches!(fix_text("A <b>line</b>;\tand\x0c another.\n"), Cow::Borrowed(_)));
        assert!(matches!(fix_text(""), Cow::Borrowed(_)));
    }

    #[test]
    fn equals_ftfy() {
        // Expected values printed by ftfy 6.3.1 with normalization="NFC".
        let cases = [
            ("a &amp; b &lt;c&gt;\n&amp;", "a & b <c>\n&"),
            ("&amp; <b>\n&amp; é", "&amp; <b>\n&amp; é"),
            ("&amp;\n<b>\n&amp;", "&\n<b>\n&amp;"),
            ("“curly” ‘quotes’", "\"curly\" 'quotes'"),
            ("cafe\u{301}", "café"),
            ("ﬁne ＬＯＵＤ", "fine LOUD"),
            ("schÃ¶n", "schön"),
            ("<b> schÃ¶n &amp; ＆amp;", "<b> schön &amp; &amp;"),
            ("line\r\nbreak\rs\u{2028}x\u{85}y", "line\nbreak\ns\nx…y"),
            ("\u{1b}[36;44mblue\u{1b}[0m \u{feff}\u{7}", "blue "),
            ("\u{1b}[\u{1b}[0m0m\u{1b}[x \u{1b}[1;", "[0m [1;"),
            ("&#128; &#0; &#xD800; &#x110000; &#59; &#12ab; &#x1; &#65;", "€ � � � &#59; &#12ab;  A"),
            ("&#38;amp;", "&"),
            ("P&EACUTE;REZ &nTILDE; &notanentity;", "PÉREZ &nTILDE; &notanentity;"),
        ];
        for (text, expected) in cases {
            assert_eq!(fix_text(text), expected, "{text:?}");
        }
    }

    #[test]
    fn entities_stay_when_every_stand_in_is_taken() {
        let all: String = STAND_INS.iter().map(|byte| char::from(*byte)).collect();
        assert_eq!(fix_text(&format!("<{all}> “é” &amp;")), format!("<{all}> \"é\" &amp;"));
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let text = "é".repeat(SEGMENT_CHARACTERS + 3);
        assert_eq!(segment_end(&text), 2 * SEGMENT_CHARACTERS);
        assert_eq!(fix_text(&text), text);
    }
}
