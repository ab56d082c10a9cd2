//! Finds credentials by the names before them: `"password": "…"`, `token=…`, `Authorization: Bearer …`.
//!
//! The text need not be valid JSON: it may be a log line, the `repr` of a Python object, JSON in a JSON string, or the
//! beginning of a body whose end never arrived.

use std::ops::Range;

use secrecy::SecretString;

use crate::core::text::credentials::{is_credential, password_in_url};
use crate::core::text::redact::HIDDEN;

/// The minimum length of a credential without quotes, in bytes. Such a credential also has a digit: otherwise the text
/// may be a sentence.
const MIN_UNQUOTED: usize = 12;

/// `text` without its credentials, which are added to `found`.
pub(super) fn hide(text: &[u8], found: &mut Vec<SecretString>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut copied, mut from) = (0, 0);
    while let Some(at) = memchr::memchr2(b':', b'=', &text[from..]) {
        let at = from + at;
        from = at + 1;
        let value = if text[from..].starts_with(b"//") {
            url_password(&text[from..]).map(|value| from + value.start..from + value.end)
        } else if name_before(&text[copied..at]).is_some_and(is_credential) {
            value_after(text, from)
        } else {
            None
        };
        let Some(value) = value else { continue };
        out.extend_from_slice(&text[copied..value.start]);
        out.extend_from_slice(HIDDEN.as_bytes());
        (copied, from) = (value.end, value.end);
        if let Ok(value) = std::str::from_utf8(&text[value]) {
            // Without its scheme, too.
            found.extend(value.rsplit_once(' ').map(|(_, secret)| secret.into()));
            found.push(value.into());
        }
    }
    out.extend_from_slice(&text[copied..]);
    out
}

/// The password in `tail`, the part of a URL behind its scheme and the colon.
fn url_password(tail: &[u8]) -> Option<Range<usize>> {
    let end = tail.iter().position(|byte| byte.is_ascii_whitespace()).unwrap_or(tail.len());
    password_in_url(std::str::from_utf8(&tail[..end]).ok()?)
}

/// The name at the end of `text`, with or without quotes.
fn name_before(text: &[u8]) -> Option<&str> {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'' | b'\\');
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let text = text.trim_ascii_end();
    let end = text.iter().rposition(|byte| !is_quote(byte))? + 1;
    let start = text[..end].iter().rposition(|byte| !is_name(byte)).map_or(0, |at| at + 1);
    std::str::from_utf8(&text[start..end]).ok().filter(|name| !name.is_empty())
}

/// The value that begins at or after `start`.
fn value_after(text: &[u8], start: usize) -> Option<Range<usize>> {
    let start = start + text[start..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    let escapes = text[start..].iter().take_while(|byte| **byte == b'\\').count();
    let value = match text.get(start + escapes) {
        Some(quote @ (b'"' | b'\'')) => {
            let start = start + escapes + 1;
            start..quote_end(text, start, *quote, escapes)
        }
        _ => unquoted(text, start)?,
    };
    let shown = &text[value.clone()];
    // A placeholder, as recordings have them.
    let is_hidden = shown == HIDDEN.as_bytes() || shown.starts_with(b"<") && shown.ends_with(b">");
    (!shown.is_empty() && !is_hidden).then_some(value)
}

/// The end of a string that began with `quote` behind `escapes` backslashes; that of `text` if it has none.
///
/// In JSON in JSON, a quote is written with 1 backslash, and a backslash with 4; one level deeper, with 3 and 8.
fn quote_end(text: &[u8], start: usize, quote: u8, escapes: usize) -> usize {
    let mut run = 0;
    for (at, byte) in text.iter().enumerate().skip(start) {
        if *byte == quote && run % (2 * (escapes + 1)) == escapes {
            return at - escapes;
        }
        run = if *byte == b'\\' { run + 1 } else { 0 };
    }
    text.len()
}

/// A value without quotes, behind the scheme of an `Authorization`.
fn unquoted(text: &[u8], start: usize) -> Option<Range<usize>> {
    let is_value = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'+' | b'/' | b'_' | b'.' | b'=' | b'!' | b'@' | b':' | b'-' | b'~' | b'%')
    };
    let word = |start: usize| start..start + text[start..].iter().take_while(|byte| is_value(byte)).count();
    let mut value = word(start);
    let is_scheme = |scheme: &[u8]| text[value.clone()].eq_ignore_ascii_case(scheme);
    if [&b"bearer"[..], b"basic", b"token"].into_iter().any(is_scheme) && text.get(value.end) == Some(&b' ') {
        value = word(value.end + 1);
    }
    let shown = &text[value.clone()];
    (shown.len() >= MIN_UNQUOTED && shown.iter().any(u8::is_ascii_digit)).then_some(value)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_credential_is_hidden_by_its_name_in_whatever_text() {
        let nested = serde_json::json!({ "password": r#"p"a\ss"#, "x": 1 }).to_string();
        let nested = serde_json::json!({ "detail": nested }).to_string();
        let deeper = serde_json::json!({ "detail": nested.clone() }).to_string();
        for (text, hidden) in [
            (r#"{"api_key": "k3y", "name":"x"}"#, r#"{"api_key": "[hidden]", "name":"x"}"#),
            (r#"{"password":"a\"b\\","x":1}"#, r#"{"password":"[hidden]","x":1}"#),
            ("data: {'token': 'it', 'x': 1}", "data: {'token': '[hidden]', 'x': 1}"),
            (&nested, r#"{"detail":"{\"password\":\"[hidden]\",\"x\":1}"}"#),
            (&deeper, r#"{"detail":"{\"detail\":\"{\\\"password\\\":\\\"[hidden]\\\",\\\"x\\\":1}\"}"}"#),
            ("Authorization: Token 0123456789abcdef.", "Authorization: Token [hidden]"),
            ("at https://me:p4ss@pve:8006/x", "at https://me:[hidden]@pve:8006/x"),
            ("/x?token=0123456789ab&y=1", "/x?token=[hidden]&y=1"),
            // The end never arrived.
            (r#"{"secret": "be"#, r#"{"secret": "[hidden]"#),
        ] {
            let mut found = Vec::new();
            assert_eq!(String::from_utf8(hide(text.as_bytes(), &mut found)).unwrap(), hidden);
            assert!(!found.is_empty());
        }
        let mut found = Vec::new();
        hide(br#"{"authorization": "Bearer 0123"}"#, &mut found);
        assert_eq!(
            found.iter().map(ExposeSecret::expose_secret).collect::<Vec<_>>(),
            ["0123", "Bearer 0123"]
        );
    }

    #[test]
    fn headers_with_credentials_are_known_by_a_part_of_their_names() {
        for name in ["Cookie", "Set-Cookie", "Authorization", "X-Auth-Ticket", "CSRFPreventionToken"] {
            assert!(is_credential(name), "{name}");
        }
        assert!(!is_credential("Content-Type"));
    }

    #[test]
    fn text_without_a_credential_stays_as_it_is() {
        for text in [
            r#"{"api_key": "<api-key>", "token": "", "password": "[hidden]", "token_version": "v2"}"#,
            "Invalid token: authentication_failed",
            r#"{"has_token": true, "secret": null, "a": "password"}"#,
            "::=:",
        ] {
            let mut found = Vec::new();
            assert_eq!(String::from_utf8(hide(text.as_bytes(), &mut found)).unwrap(), text);
            assert!(found.is_empty());
        }
    }
}
