//! The value of a name in text that is not JSON.

use std::ops::Range;

use super::{Credential, HIDDEN, MAX_NAME, is_credential_name, is_harmless, is_small_integer};

/// The schemes of `Authorization` whose next word is a credential.
const SCHEMES: [&str; 6] = ["bearer", "token", "basic", "apikey", "negotiate", "pveapitoken"];
/// Quotes in HTML.
const ENTITIES: [&[u8]; 4] = [b"&quot;", b"&#34;", b"&#x27;", b"&#39;"];
/// Letters before a quote in Python.
pub(super) const PREFIXES: &[u8] = b"ubrfURBF";
/// How far a list of several lines behind a name may reach, in bytes.
const MAX_LIST: usize = 8 << 10;

/// A name, and what is known of its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'t> {
    pub(super) text: &'t [u8],
    pub(super) start: usize,
    pub(super) is_quoted: bool,
}

/// Where a value without quotes ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At white space.
    Word,
    /// At white space, or at the next parameter of a query.
    Parameter,
    /// At the end of the line, as in a header or in YAML.
    Line,
    /// At the end of the text, which is a percent-encoded value.
    Text,
}

/// The name with which `head` ends.
pub(super) fn name_before(head: &[u8]) -> Option<Name<'_>> {
    let mut end = head.trim_ascii_end().len();
    let bare = end;
    while let Some(rest) = without_quote(&head[..end]) {
        end = rest;
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let length = head[..end].iter().rev().take(MAX_NAME).take_while(|byte| is_name(byte)).count();
    let start = end - length;
    (length > 0).then_some(Name { text: &head[start..end], start, is_quoted: end < bare })
}

/// The length of `text` without the quote that it ends with.
fn without_quote(text: &[u8]) -> Option<usize> {
    let entity = ENTITIES.iter().find(|entity| text.ends_with(entity)).map(|entity| entity.len());
    let quote = text.last().is_some_and(|byte| matches!(byte, b'"' | b'\'' | b'\\' | b']' | b'`'));
    entity.or(quote.then_some(1)).map(|length| text.len() - length)
}

pub(super) fn is_scheme(word: &[u8]) -> bool {
    SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// The value that begins at or behind `start`, of `name`, which is that of a credential.
pub(super) fn value_of(text: &[u8], start: usize, name: Name<'_>, end: End) -> Option<Credential> {
    let mut start = start;
    // `=>`, `==`, `:=`.
    start += usize::from(matches!(text.get(start), Some(b'=' | b'>')));
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t') || name.is_quoted && byte.is_ascii_whitespace();
    start += text[start..].iter().take_while(|byte| is_space(byte)).count();
    let rest = &text[start..];
    // Each search ends near the value that is found, or is bounded: a line may have many names.
    let line_end = || memchr::memchr(b'\n', rest).map_or(text.len(), |at| start + at);
    if rest.strip_prefix(HIDDEN.as_bytes()).is_some_and(|rest| !rest.first().is_some_and(is_word)) {
        return None;
    }
    let found = |range: Range<usize>, is_certain| {
        let is_harmless = is_harmless(&text[range.clone()]);
        (!range.is_empty() && !is_harmless).then_some(Credential { range, is_certain })
    };
    if end == End::Text && !name.is_quoted {
        return found(start..text.len(), true);
    }
    if let Some(inside) = in_quotes(text, start) {
        return found(inside, true);
    }
    let call = rest.iter().take_while(|byte| is_word(byte) || **byte == b'.').count();
    let open = if rest.get(call) == Some(&b'(') { start + call } else { start };
    if let Some(close) = text.get(open).and_then(closing) {
        let near = text.len().min(open + MAX_LIST);
        let near_line = memchr::memchr(b'\n', &text[open..near]).map_or(near, |at| open + at);
        // It goes on in the next lines.
        let has_lines = text[open + 1..near_line].trim_ascii().is_empty();
        let limit = if name.is_quoted || has_lines { near } else { near_line };
        let end = balanced(text, open, close, limit);
        // Otherwise its end never arrived, or is far away.
        let end = end.unwrap_or_else(|| if has_lines { near } else { line_end() });
        return found(open + 1..end, false);
    }
    // A longer word is neither a number nor a scheme.
    let first = word(&rest[..rest.len().min(MAX_NAME)]);
    let is_counter = name.is_quoted || name.text.ends_with(b"s");
    if is_counter && is_small_integer(&text[trimmed(text, start..start + first)]) {
        return None;
    }
    let scheme = rest[..first].trim_ascii_end();
    let behind = first + rest[first..].iter().take_while(|byte| **byte == b' ').count();
    let has_word = rest.get(behind).is_some_and(|byte| !byte.is_ascii_whitespace());
    if is_scheme(scheme) && has_word {
        let start = start + behind;
        return found(trimmed(text, start..start + word(&text[start..])), true);
    }
    let length = match end {
        _ if name.is_quoted => rest.iter().position(|byte| ends_item(*byte)).unwrap_or(rest.len()),
        End::Line | End::Text => line_end() - start,
        End::Parameter => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'&';
            rest.iter().position(ends).unwrap_or(rest.len())
        }
        End::Word => word(rest),
    };
    found(trimmed(text, start..start + length), false)
}

/// The value of an attribute `value` in a tag or an object whose `name` is that of a credential.
pub(super) fn is_labelled(head: &[u8], name: Name<'_>) -> bool {
    let is_value = [&b"value"[..], b"content"].iter().any(|it| name.text.eq_ignore_ascii_case(it));
    let near = &head[name.start.saturating_sub(2 * MAX_NAME)..name.start];
    let begin =
        near.iter().rposition(|byte| matches!(byte, b'<' | b'{' | b'}' | b'\n')).map_or(0, |at| at + 1);
    let words = near[begin..].split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'_' | b'-'));
    is_value && words.into_iter().any(is_credential_name)
}

/// The inside of the quotes that begin at `start`, which may have backslashes or a prefix of Python before them.
fn in_quotes(text: &[u8], start: usize) -> Option<Range<usize>> {
    let rest = &text[start..];
    if let Some(entity) = ENTITIES.iter().find(|entity| rest.starts_with(entity)) {
        let start = start + entity.len();
        let end = memchr::memmem::find(&text[start..], entity).map_or(text.len(), |end| start + end);
        return Some(start..memchr::memchr(b'\n', &text[start..end]).map_or(end, |line| start + line));
    }
    let prefix = rest.iter().take(2).take_while(|byte| PREFIXES.contains(byte)).count();
    let escapes = rest[prefix..].iter().take_while(|byte| **byte == b'\\').count();
    let quote = rest.get(prefix + escapes).filter(|byte| matches!(byte, b'"' | b'\'' | b'`'))?;
    let start = start + prefix + escapes + 1;
    Some(start..quoted_end(text, start, *quote, escapes, text.len()))
}

/// The end of a string that began with `quote` behind `escapes` backslashes; that of the line, or `limit`, if it has none.
///
/// In JSON in JSON, a quote is written with 1 backslash, and a backslash with 4; one level deeper, with 3 and 8.
fn quoted_end(text: &[u8], start: usize, quote: u8, escapes: usize, limit: usize) -> usize {
    let mut run = 0;
    for (at, byte) in text[..limit].iter().enumerate().skip(start) {
        let is_end = *byte == quote && run % (2 * (escapes + 1)) == escapes;
        if *byte == b'\n' {
            return at;
        }
        // The quote of the string that it is in.
        if is_end || *byte == b'"' && run < escapes {
            return at - run.min(escapes);
        }
        run = if *byte == b'\\' { run + 1 } else { 0 };
    }
    limit
}

fn closing(open: &u8) -> Option<u8> {
    match open {
        b'[' => Some(b']'),
        b'{' => Some(b'}'),
        b'(' => Some(b')'),
        _ => None,
    }
}

/// The place of the bracket that closes the one at `open`.
fn balanced(text: &[u8], open: usize, close: u8, limit: usize) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, open);
    while at < limit {
        match text[at] {
            byte if byte == text[open] => depth += 1,
            byte if byte == close => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            quote @ (b'"' | b'\'') => at = quoted_end(text, at + 1, quote, 0, limit),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of the word that `text` begins with.
pub(super) fn word(text: &[u8]) -> usize {
    text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len())
}

/// `range` without the punctuation and the quotes at its end.
pub(super) fn trimmed(text: &[u8], range: Range<usize>) -> Range<usize> {
    let is_end = |byte: &&u8| b".,;:)]}>\"'`\\ \t\r".contains(byte);
    let shown = &text[range.clone()];
    range.start..range.end - shown.iter().rev().take_while(is_end).count()
}

pub(super) fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

/// Whether a number or a word in a list or an object ends with `byte`.
fn ends_item(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b",;}])\"'&<>".contains(&byte)
}
