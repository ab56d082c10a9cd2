//! Converts output of Python's `json.dumps` that strict JSON forbids: `NaN`, `Infinity` and lone surrogates.
//!
//! Backends write their events with `json.dumps`, and the plugin reads them with `json.loads`. One such number must
//! not lose an event.

use serde_json::Value;

/// Non-finite numbers.
const NON_FINITE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
/// The replacement for a lone surrogate.
const REPLACEMENT: &str = "\\ufffd";

/// `text` as strict JSON. Non-finite numbers become null, lone surrogates U+FFFD. `None` if `text` has neither, or is
/// invalid JSON for another reason.
pub fn to_strict(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let (mut in_string, mut changed) = (false, false);
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        let mut written = None;
        if !in_string {
            in_string = first == '"';
            if let Some(literal) = NON_FINITE.into_iter().find(|literal| rest.starts_with(literal)) {
                (length, written) = (literal.len(), Some("null"));
            }
        } else if first == '\\' {
            length = match escaped(rest) {
                Some(0xD800..0xDC00) => {
                    let low = rest.get(6..).and_then(escaped);
                    if low.is_some_and(|low| (0xDC00..0xE000).contains(&low)) {
                        12
                    } else {
                        written = Some(REPLACEMENT);
                        6
                    }
                }
                Some(0xDC00..0xE000) => {
                    written = Some(REPLACEMENT);
                    6
                }
                Some(_) => 6,
                None => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            };
        } else {
            in_string = first != '"';
        }
        let (piece, after) = rest.split_at_checked(length)?;
        out.push_str(written.unwrap_or(piece));
        changed |= written.is_some();
        rest = after;
    }
    (changed && serde_json::from_str::<Value>(&out).is_ok()).then_some(out)
}

/// Whether `text` may contain lone surrogates. The parser does not detect them in strings that it skips.
pub fn has_surrogates(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins = |at| bytes[at..].starts_with(b"\\ud") || bytes[at..].starts_with(b"\\uD");
    memchr::memchr_iter(b'\\', bytes).any(begins)
}

/// The number in `\uXXXX`, if `text` begins with one.
fn escaped(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        for (text, expected) in [
            (r#"{"a": NaN, "b": [Infinity, -Infinity]}"#, r#"{"a": null, "b": [null, null]}"#),
            (r#"{"name": "vm\ud83d", "ok": false}"#, r#"{"name": "vm\ufffd", "ok": false}"#),
            (r#"["\udc00\ud83d\ude00 \\ud83d"]"#, r#"["\ufffd\ud83d\ude00 \\ud83d"]"#),
            (r#"{"\ud800": "é\"NaN"}"#, r#"{"\ufffd": "é\"NaN"}"#),
        ] {
            assert_eq!(to_strict(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn json_is_left_alone_and_what_is_none_for_another_reason_stays_none() {
        for text in [
            r#"{"a": "NaN \" Infinity", "b": -1e5}"#,
            r#"["\ud83d\ude00"]"#,
            "",
            "null",
            r#"{"a": NaN"#,
            r#"["\ud83"#,
            r#""\"#,
            "{\"a\": NaN, \"b\": nan}",
        ] {
            assert_eq!(to_strict(text), None, "{text}");
        }
    }
}
