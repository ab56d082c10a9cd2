//! Hides what looks like a credential in a text that may hold secrets the bridge does not know.

use std::ops::Range;

use super::redact::{HIDDEN, is_secret};

/// Parts of names of credentials besides those of [`is_secret`]: of sessions, such as `PVEAuthCookie`.
const SESSION_NAMES: [&str; 4] = ["cookie", "csrf", "sessionid", "ticket"];
/// The schemes of `Authorization` whose next word is a credential.
const SCHEMES: [&str; 3] = ["bearer", "token", "basic"];
/// The minimum length of a credential behind such a word without a name before it, in bytes: in a sentence, another word
/// may follow.
const MIN_BARE: usize = 16;

/// `text` with the values of what is named like a secret (`"password": "…"`, `api_key=…`, `Authorization: Bearer …`), the
/// word behind a scheme such as `Bearer`, and the passwords in URLs replaced. JSON stays JSON.
pub fn hide_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, delimiter) in text.match_indices([':', '=', ' ']) {
        let behind = at + 1;
        if behind < done {
            continue;
        }
        let (head, tail) = (&text[..at], &text[behind..]);
        let found = match delimiter {
            " " => after_scheme(head, tail),
            ":" if tail.starts_with("//") => password_in_url(tail),
            _ => value_of_secret(head, tail),
        };
        if let Some(Range { start, end }) = found {
            out.push_str(&text[done..behind + start]);
            out.push_str(HIDDEN);
            done = behind + end;
        }
    }
    out.push_str(&text[done..]);
    out
}

/// Whether a field, a parameter or a header of this name has a credential.
pub fn is_credential(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    is_secret(name) || SESSION_NAMES.iter().any(|part| lower.contains(part))
}

/// The credential in `tail` behind a scheme, with which `head` ends.
fn after_scheme(head: &str, tail: &str) -> Option<Range<usize>> {
    let length = word(tail);
    let is_credential = length >= MIN_BARE && tail[..length].bytes().any(|byte| byte.is_ascii_digit());
    (is_credential && is_scheme(last_word(head, |c| c.is_ascii_alphabetic()))).then_some(0..length)
}

/// The password in `tail`, the part of a URL behind its scheme and the colon.
pub fn password_in_url(tail: &str) -> Option<Range<usize>> {
    let authority = tail[2..].split(['/', '?', '#', ' ', '"', '\'', '\\']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (name, password) = user.split_once(':')?;
    let start = "//:".len() + name.len();
    (!password.is_empty()).then_some(start..start + password.len())
}

/// The value in `tail` of the name with which `head` ends, if that denotes a secret.
fn value_of_secret(head: &str, tail: &str) -> Option<Range<usize>> {
    let is_quote = |c: char| matches!(c, '"' | '\'' | '\\');
    let named = head.trim_end();
    let bare = named.trim_end_matches(is_quote);
    if !is_credential(last_word(bare, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))) {
        return None;
    }
    let value = tail.trim_start_matches(' ');
    let escapes = value.len() - value.trim_start_matches('\\').len();
    let quote = value[escapes..].chars().next().filter(|c| matches!(c, '"' | '\''));
    let mut start = tail.len() - value.len() + if quote.is_some() { escapes + 1 } else { 0 };
    // A number or `null` of JSON.
    if bare.len() < named.len() && quote.is_none() {
        return None;
    }
    let value = &tail[start..];
    let first = word(value);
    if is_scheme(&value[..first]) && value[first..].starts_with(' ') {
        start += first + 1;
    }
    let value = &tail[start..];
    let length = quote.map_or_else(|| word(value), |quote| quoted(value, quote, escapes));
    (length > 0 && !value.starts_with(HIDDEN)).then_some(start..start + length)
}

fn is_scheme(word: &str) -> bool {
    SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// The longest end of `text` that has such characters alone.
fn last_word(text: &str, is_part: impl Fn(char) -> bool) -> &str {
    &text[text.trim_end_matches(is_part).len()..]
}

/// The length of the string that `text` begins with, behind its `quote`, which has `escapes` backslashes. A string without
/// an end is as long as its first word, or as the JSON string that it is in.
///
/// In JSON in JSON, a quote is written with 1 backslash, and a backslash with 4; one level deeper, with 3 and 8.
fn quoted(text: &str, quote: char, escapes: usize) -> usize {
    let mut run = 0;
    for (at, c) in text.char_indices() {
        let is_end = c == quote && run % (2 * (escapes + 1)) == escapes;
        if is_end || c == '"' && run < escapes.max(1) {
            return at - run.min(escapes);
        }
        run = if c == '\\' { run + 1 } else { 0 };
    }
    word(text)
}

/// The length of the word that `text` begins with.
fn word(text: &str) -> usize {
    let ends = |c: char| {
        c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '&' | ',' | ';' | ')' | '}' | ']' | '<' | '>')
    };
    text.find(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_names_and_words_behind_a_scheme_are_hidden() {
        for (text, hidden) in [
            ("api_key=abc&x=1", "api_key=[hidden]&x=1"),
            ("Authorization: Bearer abc, more", "Authorization: Bearer [hidden], more"),
            ("Authorization: Token abc", "Authorization: Token [hidden]"),
            (r#"{"password": "p4ss", "port": 8006}"#, r#"{"password": "[hidden]", "port": 8006}"#),
            (r#"{"token":"t0ken"}"#, r#"{"token":"[hidden]"}"#),
            (r#"{"m":"{\"token_value\": \"t0ken\"}"}"#, r#"{"m":"{\"token_value\": \"[hidden]\"}"}"#),
            ("{'password': 'p4ss'}", "{'password': '[hidden]'}"),
            ("{'password': 'correct horse battery9', 'x': 1}", "{'password': '[hidden]', 'x': 1}"),
            (r#"{"password": "a, b\" c", "x": 1}"#, r#"{"password": "[hidden]", "x": 1}"#),
            (r#"{"m":"{\"password\": \"a b\"}","n":"c"}"#, r#"{"m":"{\"password\": \"[hidden]\"}","n":"c"}"#),
            (r#"{"m":"password: 'a b","n":"it's"}"#, r#"{"m":"password: '[hidden]","n":"it's"}"#),
            ("secret = abc", "secret = [hidden]"),
            ("with Token 0123456789abcdef0123", "with Token [hidden]"),
            ("with (bearer 0123456789abcdef0123)", "with (bearer [hidden])"),
            ("PVEAPIToken=root@pam!x=1234-5678", "PVEAPIToken=[hidden]"),
            ("https://me:p4ss@pve:8006/x", "https://me:[hidden]@pve:8006/x"),
            ("PVEAuthCookie=PVE:root@pam:68F0::c2ln+bmF0dXJl/==; x", "PVEAuthCookie=[hidden]; x"),
            (r#"{"ticket": "PVE:root@pam:68F0::c2ln"}"#, r#"{"ticket": "[hidden]"}"#),
            ("é token=abc", "é token=[hidden]"),
        ] {
            assert_eq!(hide_credentials(text), hidden, "{text}");
        }
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in [
            "Token expired for a very long-sentenced reason",
            "The token is refused: try again",
            r#"{"token": null, "token_version": "v2", "tokens": 3, "token_name": "proxbox"}"#,
            "http://pve:8006/x?a=b:c@d",
            "token=",
            "api_key=[hidden]&x=1",
            "api_key:",
            "2026-11-24T17:06:59.050Z [info] a = b",
            "",
        ] {
            assert_eq!(hide_credentials(text), text);
        }
    }
}
