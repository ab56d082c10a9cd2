//! Readable, bounded text from any field of a backend.

pub mod credentials;
mod csv;
pub mod detail;
pub(crate) mod eight;
pub mod log_format;
pub mod redact;
pub(crate) mod string_enum;

use std::borrow::Cow;

pub use csv::csv_field;
use eight::is_ascii_without;

/// The maximum number of bytes of a text that are read. An error page has tens of kilobytes, and only its beginning is
/// shown.
const MAX_READ: usize = 64 * 1024;

/// `text` as one line of at most `limit` characters. Markup is stripped, control characters and runs of white space
/// become one space, and a truncated text ends in `...`.
pub fn plain(text: &str, limit: usize) -> Cow<'_, str> {
    let head = head(text, MAX_READ);
    if head.len() == text.len() && text.len() <= limit && is_plain(text) {
        return Cow::Borrowed(text);
    }
    let stripped = if has_markup(head) { strip_markup(head) } else { head.to_owned() };
    let line = one_line(&stripped);
    Cow::Owned(if head.len() < text.len() { truncated(&line, limit) } else { shortened(&line, limit) })
}

/// Whether `text` has nothing but white space.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// `text` for a terminal: control characters, and those that change the direction of the text, become spaces.
pub fn printable(text: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(is_hidden, " ")
}

/// The longest prefix of `text` of at most `bytes` bytes that ends at a character boundary.
fn head(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    // Nearly every name.
    if is_ascii_without(bytes, |eight| eight.below(b'!') | eight.equal(b'<') | eight.equal(0x7f)) {
        return true;
    }
    let edges = [bytes.first(), bytes.last()].into_iter().flatten().any(|byte| *byte == b' ');
    !edges
        && !bytes.windows(2).any(|pair| pair == b"  ")
        && !text.chars().any(|c| c == '<' || c.is_control() || (c.is_whitespace() && c != ' '))
}

fn has_markup(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some(last) = memchr::memrchr(b'>', bytes) else { return false };
    memchr::memchr_iter(b'<', &bytes[..last]).any(|at| opens_tag(&bytes[at + 1..]))
}

fn opens_tag(after: &[u8]) -> bool {
    after.first().is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'/' | b'!'))
}

/// Elements without text of the page: code, comments and navigation.
const NOT_TEXT: [(&str, &str); 7] = [
    ("<script", "</script>"),
    ("<style", "</style>"),
    ("<!--", "-->"),
    ("<nav", "</nav>"),
    ("<aside", "</aside>"),
    ("<header", "</header>"),
    ("<footer", "</footer>"),
];

/// The text between the tags.
fn strip_markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(4096));
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if !opens_tag(&rest.as_bytes()[1..]) {
            out.push('<');
            rest = &rest[1..];
            continue;
        }
        let opens = |open: &str| rest.get(..open.len()).is_some_and(|start| start.eq_ignore_ascii_case(open));
        let close = NOT_TEXT.into_iter().find_map(|(open, close)| opens(open).then_some(close));
        rest = after(rest, close.unwrap_or(">"));
        // A tag that separates words on the screen must separate them here too.
        if !out.ends_with(char::is_whitespace) {
            out.push(' ');
        }
    }
    out.push_str(rest);
    if out.contains('&') { decode_entities(out) } else { out }
}

/// The text after the next `close`, case-insensitive. Empty if there is none.
fn after<'a>(text: &'a str, close: &str) -> &'a str {
    let bytes = text.as_bytes();
    let first = close.as_bytes()[0];
    let found = memchr::memchr_iter(first, bytes).find(|at| {
        bytes.get(*at..at + close.len()).is_some_and(|end| end.eq_ignore_ascii_case(close.as_bytes()))
    });
    found.map_or("", |at| &text[at + close.len()..])
}

fn decode_entities(text: String) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ]
    .into_iter()
    .fold(text, |text, (entity, plain)| text.replace(entity, plain))
}

fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Truncates `text`, which is a single line, to `limit` characters.
pub fn shortened(text: &str, limit: usize) -> String {
    if text.char_indices().nth(limit).is_none() { text.to_owned() } else { truncated(text, limit) }
}

/// The beginning of `line`, with `...`, in at most `limit` characters.
fn truncated(line: &str, limit: usize) -> String {
    let keep: String = line.chars().take(limit.saturating_sub(3)).collect();
    format!("{keep}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_not_touched() {
        for text in ["pve1", "café-münchen", "a > b", "", "Synced device 'pve1'"] {
            assert!(matches!(plain(text, 100), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn a_terminal_gets_no_character_that_controls_it_or_turns_the_text_around() {
        let text = "pve\u{1b}[31m1\n\u{202e}\u{2069}\u{200e}é—日";
        assert_eq!(printable(text), "pve [31m1    é—日");
    }

    #[test]
    fn a_text_becomes_one_line_without_markup() {
        for (name, text, limit, line) in [
            ("a link", "<a href='http://netbox/dcim/devices/1/'>pve1</a>", 100, "pve1"),
            ("an entity", "a &amp; <b>b</b>", 100, "a & b"),
            ("no tags", "1 < 2 and 3 > 2", 100, "1 < 2 and 3 > 2"),
            ("an open tag", "<b", 100, "<b"),
            ("control characters", "a\0b\r\nc\u{7f}d\u{2028}e", 100, "a b c d e"),
            ("white space at the start", " pve1 is down", 100, "pve1 is down"),
            ("white space at the end", "pve1 is down ", 100, "pve1 is down"),
            ("a run of white space", "pve1  is down", 100, "pve1 is down"),
            ("a text that fits", "pve1 is down", 12, "pve1 is down"),
            ("a text that is too long", "pve1 is down", 11, "pve1 is ..."),
        ] {
            assert_eq!(plain(text, limit), line, "{name}");
        }
    }

    #[test]
    fn a_page_becomes_one_bounded_line() {
        let page = format!(
            "\n\n<!DOCTYPE html><html><head><title>Page Not Found | NetBox</title><script>var a = '<b>';</script>\
             <style>p {{}}</style></head><body><!-- no --><p>It   is\tnot\u{85}here.</p>{}</body></html>",
            "<p>more</p>".repeat(10_000)
        );
        let text = plain(&page, 60);
        assert!(text.starts_with("Page Not Found | NetBox It is not here. more"), "{text}");
        assert!(text.ends_with("..."));
        assert_eq!(text.chars().count(), 60);
    }

    #[test]
    fn of_a_large_text_only_the_beginning_is_looked_at() {
        // A character of two bytes across the end of what is looked at is left out.
        for fill in [" ".repeat(MAX_READ), format!("{}é", " ".repeat(MAX_READ - 1))] {
            assert_eq!(plain(&format!("{fill}word"), 100), "...");
        }
    }
}
