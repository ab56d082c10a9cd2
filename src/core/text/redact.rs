//! Removes secrets from text that is stored or logged.
//!
//! A [`Redactor`] holds the secrets of a run and the forms in which a backend may repeat them: verbatim, in JSON (also
//! nested in JSON), percent-encoded, in HTML, and in base64. Secrets of fewer than [`MIN_SECRET`] bytes are not
//! searched for, because they match too much other text. Neither are secrets of more than [`MAX_SECRET`] bytes.
//!
//! Dropping the last clone zeroes the secrets and their forms.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, Match, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::core::secret::{SecretJson, joined, written};

/// The minimum length of a secret that is searched for, in bytes.
pub const MIN_SECRET: usize = 8;
/// The maximum length of a secret that is searched for, in bytes.
pub const MAX_SECRET: usize = 1024;
/// The replacement for a secret. It is not longer than any form of a secret, so redaction never lengthens a text.
pub const HIDDEN: &str = "[hidden]";
/// The minimum length of a partial secret before the `...` of a truncated text, in bytes.
const MIN_CUT: usize = 3;
/// The maximum nesting depth of JSON in JSON.
const MAX_NESTING: usize = 3;

/// Characters that Python's `quote` and `encodeURIComponent` leave unescaped.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Parts of names of fields and parameters that hold a secret.
const NAMES: [&str; 9] = [
    "apikey", "token", "password", "passwd", "passphrase", "secret", "credential", "authorization",
    "privatekey",
];
/// Suffixes of such names if they only describe a secret.
const DESCRIPTIONS: [&str; 6] = ["name", "version", "id", "type", "label", "file"];

/// Replaces secrets in text by [`HIDDEN`]. Cloning is cheap. The default has no secrets.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<Vec<SecretString>>,
    /// All forms of the secrets, in order.
    forms: Arc<Vec<Zeroizing<String>>>,
    /// The search automaton, built for the first text: most requests have none to redact.
    search: Arc<OnceLock<Option<AhoCorasick>>>,
}

impl Redactor {
    /// Creates a redactor for `secrets`.
    pub fn new(secrets: impl IntoIterator<Item = impl Into<SecretString>>) -> Self {
        Self::default().with(secrets)
    }

    /// A redactor with `secrets` added.
    #[must_use]
    pub fn with(&self, secrets: impl IntoIterator<Item = impl Into<SecretString>>) -> Self {
        let mut all = Vec::clone(&self.secrets);
        for secret in secrets.into_iter().map(Into::into) {
            if is_long_enough(&secret) && !is_among(&all, &secret) {
                all.push(secret);
            }
        }
        if all.len() == self.secrets.len() {
            return self.clone();
        }
        let mut forms: Vec<_> = all.iter().flat_map(|secret| forms(secret.expose_secret())).collect();
        forms.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        forms.dedup();
        Self { secrets: Arc::new(all), forms: Arc::new(forms), search: Arc::default() }
    }

    /// The secrets it redacts.
    pub fn secrets(&self) -> &[SecretString] {
        &self.secrets
    }

    /// Returns whether [`Redactor::text`] may change `text`. It builds no search automaton, which costs more than the
    /// search of a few texts.
    pub fn concerns(&self, text: &str) -> bool {
        let contains = |part: &[u8]| memmem::find(text.as_bytes(), part).is_some();
        self.forms.iter().any(|form| contains(form.as_bytes()))
            || (!self.forms.is_empty() && contains(b"..."))
    }

    /// Redacts `text`, including the beginning of a secret where the text was truncated (`...`).
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.forms.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut hidden, mut at) = (String::new(), 0);
        for found in self.find(text.as_bytes()) {
            hidden.push_str(&text[at..found.start()]);
            hidden.push_str(HIDDEN);
            at = found.end();
        }
        if at == 0 {
            return self.without_partial_secret(Cow::Borrowed(text));
        }
        hidden.push_str(&text[at..]);
        self.without_partial_secret(Cow::Owned(hidden))
    }

    /// Redacts `texts` in place.
    pub fn redact<'a>(&self, texts: impl IntoIterator<Item = &'a mut String>) {
        for text in texts {
            if let Cow::Owned(hidden) = self.text(text) {
                *text = hidden;
            }
        }
    }

    /// Redacts the strings in `json`. Everything else stays as it is.
    pub fn json<'a>(&self, json: &'a str) -> Cow<'a, str> {
        if matches!(self.text(json), Cow::Borrowed(_)) {
            return Cow::Borrowed(json);
        }
        let mut out = String::with_capacity(json.len());
        let mut rest = json;
        while let Some(open) = rest.find('"') {
            let (before, string) = rest.split_at(open + 1);
            let end = string_end(string);
            out.push_str(before);
            out.push_str(&self.text(&string[..end]));
            rest = &string[end..];
            if let Some(after) = rest.strip_prefix('"') {
                out.push('"');
                rest = after;
            }
        }
        out.push_str(rest);
        Cow::Owned(out)
    }

    /// Redacts `query`, including the values of parameters whose names denote a secret.
    pub fn query(&self, query: &str) -> String {
        let hide = |part: &str| match part.split_once('=') {
            Some((name, value))
                if !value.is_empty() && (is_secret(&decoded(name)) || self.contains_secret(value)) =>
            {
                format!("{}={HIDDEN}", self.text(name))
            }
            _ => self.text(part).into_owned(),
        };
        query.split('&').map(hide).collect::<Vec<_>>().join("&")
    }

    /// Redacts the path and query of a request.
    pub fn target(&self, target: &str) -> String {
        match target.split_once('?') {
            Some((path, query)) => format!("{}?{}", self.text(path), self.query(query)),
            None => self.text(target).into_owned(),
        }
    }

    /// Redacts the next bytes of a stream. Bytes that may begin a secret are held back in `held` until more bytes
    /// arrive.
    pub fn chunk(&self, held: &mut Vec<u8>, bytes: &[u8]) -> Vec<u8> {
        held.extend_from_slice(bytes);
        let mut cut = self.partial_secret_at(held);
        let mut out = Vec::with_capacity(held.len());
        let mut at = 0;
        for found in self.find(held) {
            if found.start() >= cut {
                break;
            }
            out.extend_from_slice(&held[at..found.start()]);
            out.extend_from_slice(HIDDEN.as_bytes());
            at = found.end();
            cut = cut.max(at);
        }
        out.extend_from_slice(&held[at..cut]);
        held.drain(..cut);
        out
    }

    /// The bytes held back when the stream ends.
    pub fn rest(held: &mut Vec<u8>) -> Vec<u8> {
        let rest = std::mem::take(held);
        if rest.len() > MIN_CUT { HIDDEN.as_bytes().to_vec() } else { rest }
    }

    /// The places of the secrets in `bytes`, and of the beginnings of secrets before `...`.
    pub(super) fn places(&self, bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
        let cut = |end| Some(self.partial_secret_at(&bytes[..end])..end).filter(|it| it.len() > MIN_CUT);
        let cuts = if self.forms.is_empty() { None } else { Some(memmem::find_iter(bytes, "...")) };
        self.find(bytes).map(|found| found.range()).chain(cuts.into_iter().flatten().filter_map(cut))
    }

    fn contains_secret(&self, value: &str) -> bool {
        let changes = |text: &str| matches!(self.text(text), Cow::Owned(_));
        changes(value) || changes(&decoded(value))
    }

    /// The search automaton. `None` if there are no secrets.
    fn search(&self) -> Option<&AhoCorasick> {
        let build = || {
            // A prefilter would keep a copy of every form that is never zeroed.
            let mut builder = AhoCorasick::builder();
            builder.match_kind(MatchKind::LeftmostLongest).prefilter(false);
            // It fails only for more than 2 GiB of forms.
            builder.build(self.forms.iter().map(|form| form.as_bytes())).ok()
        };
        if self.forms.is_empty() { None } else { self.search.get_or_init(build).as_ref() }
    }

    /// The secrets in `bytes`, in order. Of two secrets at the same position, the longer one matches.
    fn find(&self, bytes: &[u8]) -> impl Iterator<Item = Match> {
        self.search().into_iter().flat_map(move |search| search.find_iter(bytes))
    }

    /// The position of the longest suffix of `bytes` that may be the beginning of a secret.
    fn partial_secret_at(&self, bytes: &[u8]) -> usize {
        let longest = self.search().map_or(0, AhoCorasick::max_pattern_len);
        let from = bytes.len().saturating_sub(longest);
        let begins = |at: &usize| {
            let end = &bytes[*at..];
            // The first of the forms behind `end` begins with it, if any form does.
            let behind = self.forms.partition_point(|form| form.as_bytes() <= end);
            self.forms.get(behind).is_some_and(|form| form.as_bytes().starts_with(end))
        };
        (from..bytes.len()).find(begins).unwrap_or(bytes.len())
    }

    fn without_partial_secret<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        if !text.contains("...") {
            return text;
        }
        let mut out = String::with_capacity(text.len());
        for part in text.split_inclusive("...") {
            let Some(before) = part.strip_suffix("...") else {
                out.push_str(part);
                break;
            };
            let beginning = self.partial_secret_at(before.as_bytes());
            out.push_str(if before.len() - beginning > MIN_CUT { &before[..beginning] } else { before });
            out.push_str("...");
        }
        if out.len() == text.len() { text } else { Cow::Owned(out) }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

/// Whether the length of `secret` permits a search.
pub fn is_long_enough(secret: &SecretString) -> bool {
    (MIN_SECRET..=MAX_SECRET).contains(&secret.expose_secret().len())
}

/// Whether `secret` is one of `secrets`.
pub fn is_among(secrets: &[SecretString], secret: &SecretString) -> bool {
    secrets.iter().any(|known| known.expose_secret() == secret.expose_secret())
}

/// Whether a field or parameter with the name `name` holds a secret.
pub fn is_secret(name: &str) -> bool {
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    NAMES.iter().any(|part| name.contains(part)) && !DESCRIPTIONS.iter().any(|end| name.ends_with(end))
}

/// The secrets in a query, by the names of its parameters, both encoded and decoded.
pub fn secrets_in_query(query: &str) -> Vec<SecretString> {
    let parts = query.split('&').filter_map(|part| part.split_once('='));
    let secrets = parts.filter(|(name, _)| is_secret(&decoded(name)));
    secrets.flat_map(|(_, value)| [value.into(), decoded(value).into()]).collect()
}

/// The secrets in a JSON value, by the names of its fields.
pub fn secrets_in_json(value: &Value) -> Vec<SecretString> {
    match value {
        Value::Array(items) => items.iter().flat_map(secrets_in_json).collect(),
        Value::Object(fields) => {
            let of = |(name, value): (&String, &Value)| match value {
                Value::String(text) if is_secret(name) => vec![text.as_str().into()],
                value => secrets_in_json(value),
            };
            fields.iter().flat_map(of).collect()
        }
        _ => Vec::new(),
    }
}

/// Decodes a part of a query.
fn decoded(text: &str) -> String {
    form_urlencoded::parse(format!("={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// The forms in which `secret` may be repeated.
fn forms(secret: &str) -> Vec<Zeroizing<String>> {
    let mut all = vec![Zeroizing::new(secret.to_owned()), html(secret)];
    let percent = written(&utf8_percent_encode(secret, UNRESERVED));
    all.extend([shortened(&percent, "%2F", "/"), shortened(&percent, "%20", "+"), lowercase_hex(&percent)]);
    all.push(percent);
    // In base64, the secret may begin at three offsets, for example at the end of `user:secret`.
    for before in 0..3 {
        let text = joined(&[&"   "[..before], secret]);
        let text = text.expose_secret();
        // Without the characters that depend on adjacent bytes.
        let (from, to) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = Zeroizing::new(engine.encode(text));
            all.push(Zeroizing::new(encoded[from..to].to_owned()));
        }
    }
    for escape in [escaped, escaped_ascii] {
        let mut nested = Zeroizing::new(secret.to_owned());
        for _ in 0..MAX_NESTING {
            nested = escape(&nested);
            all.push(nested.clone());
        }
    }
    all
}

/// An empty string with a capacity of `capacity` bytes.
fn with_room(capacity: usize) -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(capacity))
}

/// `text` as the content of a JSON string.
pub(crate) fn escaped(text: &str) -> Zeroizing<String> {
    let json = written(&*SecretJson::from(Value::from(text)));
    Zeroizing::new(json[1..json.len() - 1].to_owned())
}

/// `text` as the content of a JSON string in ASCII.
pub(crate) fn escaped_ascii(text: &str) -> Zeroizing<String> {
    let inside = escaped(text);
    // `\u` and four digits per UTF-16 unit. A text has at most as many units as bytes.
    let mut out = with_room(inside.len() * 6);
    for c in inside.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

/// `text` as Python's `html.escape` writes it.
fn html(text: &str) -> Zeroizing<String> {
    let escape = |(at, c): (usize, char)| match c {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '"' => "&quot;",
        '\'' => "&#x27;",
        c => &text[at..at + c.len_utf8()],
    };
    Zeroizing::new(text.char_indices().map(escape).collect::<Vec<_>>().concat())
}

/// `text` with `long` replaced by `short`. The pieces are joined in one allocation.
fn shortened(text: &str, long: &str, short: &str) -> Zeroizing<String> {
    Zeroizing::new(text.split(long).collect::<Vec<_>>().join(short))
}

/// Percent-encoded text with lowercase digits: `%2f` for `%2F`.
fn lowercase_hex(text: &str) -> Zeroizing<String> {
    let mut digits = 0;
    let mut out = with_room(text.len());
    for c in text.chars() {
        digits = if c == '%' { 3_u8 } else { digits };
        let is_part = digits > 0;
        digits = digits.saturating_sub(1);
        out.push(if is_part { c.to_ascii_lowercase() } else { c });
    }
    out
}

/// The end of a JSON string whose remainder is `text`.
pub(crate) fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    let is_end = |byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    };
    text.bytes().position(is_end).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "s3cret/key+\"with\\all&<of> it='7~";

    fn exposed(secrets: &[SecretString]) -> Vec<&str> {
        secrets.iter().map(ExposeSecret::expose_secret).collect()
    }

    #[test]
    fn an_escaped_secret_has_room_from_the_beginning() {
        // A string that grows leaves copies behind that are not zeroed.
        assert_eq!(with_room(600).capacity(), 600);
        assert_eq!(escaped_ascii(&"\u{e9}".repeat(50)).capacity(), 600);
    }

    #[test]
    fn a_secret_is_found_in_every_form_that_a_backend_repeats_it_in() {
        let redactor = Redactor::new([KEY]);
        let json = Value::from(KEY).to_string();
        let twice = Value::from(json.clone()).to_string();
        let percent = utf8_percent_encode(KEY, UNRESERVED).to_string();
        let base64 = |text: String| STANDARD_NO_PAD.encode(text);
        for text in [
            format!("Bearer {KEY}"),
            format!("Token {KEY}!"),
            json,
            twice,
            html(KEY).to_string(),
            percent.clone(),
            percent.to_lowercase().replace("%7e", "~"),
            percent.replace("%20", "+"),
            base64(KEY.to_owned()),
            base64(format!("me:{KEY}")),
            base64(format!("you:{KEY}:more")),
            base64(format!("them:{KEY}")),
            URL_SAFE_NO_PAD.encode(KEY),
        ] {
            let hidden = redactor.text(&text);
            assert!(hidden.contains(HIDDEN), "{text} became {hidden}");
            assert!(!hidden.contains("s3cret") && hidden.len() <= text.len(), "{text} became {hidden}");
            assert!(redactor.concerns(&text), "{text}");
        }
        assert_eq!(format!("{redactor:?}"), "Redactor(1 secrets)");
    }

    #[test]
    fn a_secret_is_found_in_ascii_json_and_whatever_the_case_of_its_hex_digits() {
        for (secret, text) in [
            ("pässwörd-😀", "pässwörd-😀"),
            ("pässwörd-😀", "p\\u00e4ssw\\u00f6rd-\\ud83d\\ude00"),
            ("pässwörd-😀", "p%C3%A4ssw%C3%B6rd-%F0%9F%98%80"),
            ("S3cret/KEY", "S3cret%2FKEY"),
            ("S3cret/KEY", "S3cret%2fKEY"),
        ] {
            assert_eq!(Redactor::new([secret]).text(text), HIDDEN, "{text}");
        }
    }

    #[test]
    fn a_secret_is_kept_once_however_often_it_is_sent() {
        let redactor = Redactor::new(["s3cret/key", "s3cret/key"]);
        let again = redactor.with(["another-key", "s3cret/key", "another-key"].map(SecretString::from));
        assert_eq!([redactor, again].map(|redactor| redactor.secrets().len()), [1, 2]);
    }

    #[test]
    fn a_short_secret_does_not_garble_what_is_written() {
        let redactor = Redactor::new(["a", "", "1234567", &"b".repeat(MAX_SECRET + 1)]);
        assert!(redactor.secrets().is_empty(), "one that is too long is not looked for either");
        assert_eq!(redactor.text("a banana 1234567"), "a banana 1234567");
        // A value whose name denotes a secret is hidden whatever its length.
        assert_eq!(redactor.query("api_key=a&b=a"), "api_key=[hidden]&b=a");
    }

    #[test]
    fn a_text_that_was_cut_does_not_end_in_a_part_of_a_secret() {
        let redactor = Redactor::new(["s3cret-key"]);
        assert!(redactor.concerns("not s3cret-k...") && !redactor.concerns("not s3cret-k"));
        assert!(!Redactor::default().concerns("not s3cret-k..."));
        assert_eq!(redactor.text("not s3cret-k... and more s3c..."), "not ... and more s3c...");
        assert_eq!(redactor.text("s3cret-key..."), "[hidden]...");
        assert_eq!(redactor.text("..."), "...");
    }

    #[test]
    fn only_the_strings_of_json_change() {
        let redactor = Redactor::new(["123456789", "\"ok\":true,", "true,\"status\""]);
        let json = r#"{"ok":true,"status":"a 123456789","count":123456789,"quote":"\"ok\":true,\\"}"#;
        let hidden = r#"{"ok":true,"status":"a [hidden]","count":123456789,"quote":"[hidden]\\"}"#;
        assert_eq!(redactor.json(json), hidden);
        assert!(matches!(redactor.json("{\"a\": 1}"), Cow::Borrowed(_)));
        assert_eq!(redactor.json("123456789 \"123456789"), "123456789 \"[hidden]");
    }

    #[test]
    fn a_query_keeps_everything_but_its_secrets() {
        let redactor = Redactor::new(["s3cret/key"]);
        for (query, hidden) in [
            ("a=1&&b=%20", "a=1&&b=%20"),
            ("a=%73ecret&x=%733cret%2fkey", "a=%73ecret&x=[hidden]"),
            (
                "API-Key=x&token_version=v2&token_value=x",
                "API-Key=[hidden]&token_version=v2&token_value=[hidden]",
            ),
            ("%61pi_key=x&api_key=&api_key", "%61pi_key=[hidden]&api_key=&api_key"),
            ("", ""),
        ] {
            assert_eq!(redactor.query(query), hidden);
        }
        assert_eq!(redactor.target("/s3cret/key?a=1"), "/[hidden]?a=1");
        assert_eq!(exposed(&secrets_in_query("a=1&api_key=%73ecret+1")), ["%73ecret+1", "secret 1"]);
    }

    #[test]
    fn the_secrets_of_a_push_are_known_by_their_names() {
        let pushed = serde_json::json!({
            "name": "pve", "username": "root@pam", "password": "p4ss", "token_name": "proxbox", "token_value": "t0ken",
            "nested": [{ "api_key": "k3y" }], "token_version": 1,
        });
        assert_eq!(exposed(&secrets_in_json(&pushed)), ["k3y", "p4ss", "t0ken"]);
    }

    #[test]
    fn a_secret_is_found_wherever_a_stream_is_cut() {
        let redactor = Redactor::new(["s3cret-key", "s3cret-key-and-more"]);
        let stream = "data: s3s3cret-key, s3cret-key-and-more, s3cret-keys3cret-k.\n\n";
        let hidden = "data: s3[hidden], [hidden], [hidden]s3cret-k.\n\n";
        for size in 1..stream.len() {
            let (mut held, mut out) = (Vec::new(), Vec::new());
            for piece in stream.as_bytes().chunks(size) {
                out.extend(redactor.chunk(&mut held, piece));
            }
            out.extend(Redactor::rest(&mut held));
            assert_eq!(String::from_utf8(out).unwrap(), hidden, "in pieces of {size}");
        }
        for (end, passed, rest) in
            [("not s3cret-k", "not ", HIDDEN), ("s3c", "", "s3c"), ("s3cr", "", HIDDEN)]
        {
            let mut held = Vec::new();
            assert_eq!(redactor.chunk(&mut held, end.as_bytes()), passed.as_bytes(), "{end}");
            assert_eq!(Redactor::rest(&mut held), rest.as_bytes(), "{end}");
        }
    }
}
