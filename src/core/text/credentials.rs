//! Hides credentials in text that may have some the bridge does not know.
//!
//! A [`CredentialFilter`] finds them by the names before them (`"password": "…"`, `token=…`), by the place they stand in (a URL,
//! behind `Bearer`) and by their form (a JSON Web Token, a private key). JSON is read as JSON, wherever in a text it stands, and
//! stays JSON. Of other text it rather hides a harmless word than it leaves a credential.

mod json;
mod prose;
mod value;

use std::ops::Range;

use secrecy::{ExposeSecret, SecretString};

use super::redact::{HIDDEN, MAX_SECRET, MIN_SECRET, Redactor, is_among, is_secret};

pub use json::last_boundary;

/// Parts of names of credentials besides those of [`is_secret`]: of sessions, such as `PVEAuthCookie`.
const SESSION_NAMES: [&str; 4] = ["cookie", "csrf", "sessionid", "ticket"];
/// The maximum length of a name, in bytes.
const MAX_NAME: usize = 64;
/// The maximum nesting depth of texts in texts: JSON in JSON, percent-encoded text in a URL.
const MAX_NESTING: usize = 6;
/// Values that are no credentials, whatever their names.
const HARMLESS: [&str; 11] =
    ["null", "none", "nil", "undefined", "true", "false", "on", "off", "yes", "no", "auto"];
/// The first integer that may be a credential. A smaller one is a counter or a version.
const FIRST_SECRET_NUMBER: u64 = 1000;
/// The minimum length of a value that is kept in [`CredentialFilter::into_found`], in bytes.
const MIN_FOUND: usize = 4;
/// The same for a value without quotes, which may be a word of a sentence.
const MIN_BARE_FOUND: usize = 8;
/// The maximum number of values that are kept.
pub const MAX_FOUND: usize = 1000;

/// Hides the credentials in texts, and collects them.
#[derive(Debug)]
pub struct CredentialFilter<'a> {
    known: &'a Redactor,
    /// Secrets that are too short for a [`Redactor`]. They are hidden where they are whole words.
    words: &'a [SecretString],
    found: Vec<SecretString>,
}

/// A part of a text that is a credential.
#[derive(Debug)]
struct Credential {
    range: Range<usize>,
    /// Whether it is one for certain, and not a word of a sentence.
    is_certain: bool,
}

/// A part of a text and its replacement.
type Edit = (Range<usize>, Vec<u8>);

impl<'a> CredentialFilter<'a> {
    /// Creates a filter that hides the secrets of `known`, too.
    pub fn new(known: &'a Redactor) -> Self {
        Self { known, words: &[], found: Vec::new() }
    }

    /// Also hides `words` where they are whole words of text, but not numbers of JSON.
    #[must_use]
    pub fn with_words(mut self, words: &'a [SecretString]) -> Self {
        self.words = words;
        self
    }

    /// `text` without credentials.
    pub fn hide(&mut self, text: &[u8]) -> Vec<u8> {
        self.document(text, 0).unwrap_or_else(|| text.to_vec())
    }

    /// What it has hidden, as far as it is long enough and certain enough to be hidden elsewhere, too. At most [`MAX_FOUND`].
    pub fn into_found(self) -> Vec<SecretString> {
        self.found
    }

    /// `text` without credentials, if it has any.
    fn document(&mut self, text: &[u8], depth: usize) -> Option<Vec<u8>> {
        if depth >= MAX_NESTING {
            return self.flat(text);
        }
        let edits =
            if json::is_json(text) { self.in_json(text, depth, None) } else { self.in_text(text, depth) };
        edited(text, edits)
    }

    /// Keeps `value`, which is a credential for certain, for [`Self::into_found`].
    fn keep(&mut self, value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        let is_sentence = text.contains(' ') && !has_digit(value);
        if text.len() < MIN_FOUND || is_sentence || is_harmless(value) {
            return;
        }
        if let Some((scheme, rest)) = text.split_once(' ')
            && value::is_scheme(scheme.as_bytes())
            && !rest.contains(' ')
        {
            self.keep(rest.as_bytes());
        }
        if text.len() > MAX_SECRET || self.found.len() >= MAX_FOUND {
            return;
        }
        let secret = SecretString::from(text);
        if !is_among(&self.found, &secret) {
            self.found.push(secret);
        }
    }

    /// Keeps `value`, unless it may be a word of a sentence.
    fn keep_unlike_words(&mut self, value: &[u8]) {
        if value.len() >= MIN_BARE_FOUND && has_digit(value) && !value.contains(&b' ') {
            self.keep(value);
        }
    }

    /// The places of the short secrets in `text`.
    fn words_in(&self, text: &[u8]) -> Vec<Credential> {
        let is_word = |at: Option<usize>| {
            at.and_then(|at| text.get(at)).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80)
        };
        let of = |word: &'a SecretString| {
            let word = word.expose_secret();
            let places = memchr::memmem::find_iter(text, word).map(|at| at..at + word.len());
            places.collect::<Vec<_>>()
        };
        let places = self.words.iter().flat_map(of);
        let places = places.filter(|it| !is_word(it.start.checked_sub(1)) && !is_word(Some(it.end)));
        places.map(|range| Credential { range, is_certain: true }).collect()
    }
}

/// Whether a field, a parameter or a header of this name has a credential.
pub fn is_credential(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    is_secret(name) || SESSION_NAMES.iter().any(|part| lower.contains(part))
}

fn has_digit(value: &[u8]) -> bool {
    value.iter().any(u8::is_ascii_digit)
}

/// Whether `name` is short enough for a name and [`is_credential`].
fn is_credential_name(name: &[u8]) -> bool {
    !name.contains(&b' ') && is_credential_field(name)
}

/// The same for a name that may have two words, such as `API key`.
fn is_credential_field(name: &[u8]) -> bool {
    let is_name = name.len() <= MAX_NAME && name.iter().filter(|byte| **byte == b' ').count() <= 1;
    is_name && std::str::from_utf8(name).is_ok_and(is_credential)
}

/// Whether `value`, which has the name of a credential, is one wherever it is repeated, and not a word such as `true` or `active`.
pub fn is_distinctive(value: &SecretString) -> bool {
    let value = value.expose_secret().as_bytes();
    !is_harmless(value) && (value.len() >= MIN_SECRET || has_digit(value))
}

/// Whether `value` is no credential: empty, a word such as `null`, or a placeholder.
fn is_harmless(value: &[u8]) -> bool {
    let is_placeholder = |inside: &[u8]| inside.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-');
    value == HIDDEN.as_bytes()
        || value.iter().all(|byte| *byte == b'*')
        || HARMLESS.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
        || value.strip_prefix(b"<").and_then(|it| it.strip_suffix(b">")).is_some_and(is_placeholder)
}

/// Whether `value` is an integer below [`FIRST_SECRET_NUMBER`], as counters and versions are.
fn is_small_integer(value: &[u8]) -> bool {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
    number.is_some_and(|number| number < FIRST_SECRET_NUMBER)
}

/// `text` with `edits`. Of edits that overlap, the first and longest one is made. `None` without any.
fn edited(text: &[u8], mut edits: Vec<Edit>) -> Option<Vec<u8>> {
    if edits.is_empty() {
        return None;
    }
    edits.sort_by(|(one, _), (other, _)| one.start.cmp(&other.start).then(other.end.cmp(&one.end)));
    let (mut out, mut done) = (Vec::with_capacity(text.len()), 0);
    for (range, replacement) in edits {
        if range.start >= done {
            out.extend_from_slice(&text[done..range.start]);
            out.extend_from_slice(&replacement);
            done = range.end;
        }
    }
    out.extend_from_slice(&text[done..]);
    Some(out)
}

#[cfg(test)]
mod tests;
