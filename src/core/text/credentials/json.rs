//! Credentials in JSON: by the names of its fields, and in the text of its strings.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;

use super::{CredentialFilter, Edit, is_credential_field, is_credential_name, is_harmless, is_small_integer};
use crate::core::text::redact::{HIDDEN, escaped, escaped_ascii};

/// Fields with the name of another field, parameter or header.
const LABELS: [&str; 7] = ["name", "key", "field", "header", "param", "parameter", "setting"];
/// Fields with the value that a label, or the `loc` of an error of FastAPI, belongs to.
const VALUES: [&str; 4] = ["input", "value", "input_value", "default"];
/// The field with the place of an error of FastAPI.
const PLACE: &str = "loc";
/// The field with bytes of a recording.
const BASE64: &str = "base64";
/// The maximum number of objects and lists in each other. Text with more is not read as JSON.
const MAX_DEPTH: usize = 1024;

/// An object or a list that has not ended.
#[derive(Debug, Default)]
pub(super) struct Container {
    is_object: bool,
    start: usize,
    /// Whether all its values are hidden.
    hides: bool,
    /// Whether it has the name of a credential. Only of a list, its items have it, too.
    is_named: bool,
    /// Whether the next string is a name.
    expects_name: bool,
    /// The current name.
    name: Vec<u8>,
    /// Whether it has the name of a credential where it names another field.
    has_label: bool,
    /// The values of an object that may belong to a label.
    values: Vec<Range<usize>>,
    /// Whether the first item of a list is the name of a credential.
    begins_with_label: bool,
    /// The second item of a list, if it is a string.
    second: Option<Range<usize>>,
    /// The number of values that have ended.
    count: usize,
}

/// Whether `text` is JSON.
pub(super) fn is_json(text: &[u8]) -> bool {
    let begins = text.trim_ascii_start().first().is_some_and(|byte| b"{[\"".contains(byte));
    begins && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

impl Container {
    /// What stands around the value of a name of a credential.
    pub(super) fn named() -> Self {
        Self { is_named: true, ..Self::default() }
    }
}

impl CredentialFilter<'_> {
    /// The edits of `text`, which is JSON and stands in `outer`.
    pub(super) fn in_json(&mut self, text: &[u8], depth: usize, outer: Option<Container>) -> Vec<Edit> {
        let is_hidden = outer.is_some();
        let (mut edits, mut stack, mut at) = (Vec::new(), Vec::from_iter(outer), 0);
        while let Some(byte) = text.get(at) {
            match byte {
                b'{' | b'[' if stack.len() > MAX_DEPTH => {
                    return if is_hidden { vec![(0..text.len(), quoted())] } else { self.in_flat(text) };
                }
                b'{' | b'[' => {
                    let is_object = *byte == b'{';
                    let (hides, is_named) = (hides(stack.last()), is_named(stack.last()));
                    stack.push(Container {
                        is_object,
                        start: at,
                        hides,
                        is_named,
                        expects_name: is_object,
                        ..Container::default()
                    });
                    at += 1;
                }
                b'}' | b']' => {
                    at += 1;
                    if let Some(closed) = stack.pop() {
                        self.close(&closed, text, &mut edits);
                        let top = stack.last_mut();
                        // The list with the place of an error has the name of a credential.
                        if !closed.is_object
                            && closed.has_label
                            && let Some(top) = top.filter(|top| top.is_object && top.name == PLACE.as_bytes())
                        {
                            top.has_label = true;
                        }
                        end_value(stack.last_mut(), closed.start..at);
                    }
                }
                b',' => {
                    if let Some(top) = stack.last_mut() {
                        top.expects_name = top.is_object;
                    }
                    at += 1;
                }
                b':' => {
                    if let Some(top) = stack.last_mut() {
                        top.expects_name = false;
                    }
                    at += 1;
                }
                b'"' => {
                    let range = at..string_end(text, at);
                    at = range.end;
                    edits.extend(self.string(text, range, stack.last_mut(), depth));
                }
                byte if byte.is_ascii_whitespace() => at += 1,
                _ => {
                    let ends = |byte: &u8| b",]}".contains(byte) || byte.is_ascii_whitespace();
                    let length = text[at..].iter().position(ends).unwrap_or(text.len() - at);
                    let range = at..at + length;
                    at = range.end;
                    self.scalar(&text[range.clone()], range.clone(), stack.last(), &mut edits);
                    end_value(stack.last_mut(), range);
                }
            }
        }
        edits
    }

    /// Reads a string, which is a name or a value. Returns its edit.
    fn string(
        &mut self,
        text: &[u8],
        range: Range<usize>,
        top: Option<&mut Container>,
        depth: usize,
    ) -> Option<Edit> {
        let decoded = serde_json::from_slice::<String>(&text[range.clone()]);
        let inside = range.start + 1..range.end - 1;
        // A string that is not Unicode is read as it stands there.
        let content = decoded.as_ref().map_or(&text[inside.clone()], |decoded| decoded.as_bytes());
        let hides = hides(top.as_deref()) && top.as_deref().is_none_or(|top| !top.expects_name);
        let edit = if hides && !is_harmless(content) {
            if is_named(top.as_deref()) {
                self.keep(content);
            }
            Some((inside, HIDDEN.into()))
        } else if top.as_deref().is_some_and(|top| !top.expects_name && top.name == BASE64.as_bytes())
            && let Ok(bytes) = STANDARD.decode(content)
        {
            let hidden = self.document(&bytes, depth + 1);
            hidden.map(|bytes| (inside, STANDARD.encode(bytes).into_bytes()))
        } else {
            self.document(content, depth + 1).map(|hidden| {
                let hidden = String::from_utf8_lossy(&hidden);
                let is_ascii = text[inside.clone()].is_ascii();
                let written = if is_ascii { escaped_ascii(&hidden) } else { escaped(&hidden) };
                (inside, written.as_bytes().to_vec())
            })
        };
        let Some(top) = top else { return edit };
        if top.is_object && top.expects_name {
            top.name = content.to_vec();
            return edit;
        }
        let is_name = is_credential_name(content);
        let is_label = if top.is_object { LABELS.iter().any(|it| top.name == it.as_bytes()) } else { true };
        top.has_label |= is_name && is_label;
        top.begins_with_label |= !top.is_object && top.count == 0 && is_name;
        if top.count == 1 {
            top.second = Some(range.clone());
        }
        end_value(Some(top), range);
        edit
    }

    /// Reads a number, `true`, `false` or `null`.
    fn scalar(&mut self, shown: &[u8], range: Range<usize>, top: Option<&Container>, edits: &mut Vec<Edit>) {
        let is_item = top.is_some_and(|top| !top.is_object);
        let is_secret = hides(top) && !is_harmless(shown) && (is_item || !is_small_integer(shown));
        let is_known = self.known.places(shown).next().is_some();
        if is_secret || is_known {
            if is_known || is_named(top) {
                self.keep(shown);
            }
            edits.push((range, quoted()));
        }
    }

    /// Hides what belongs to the label in an object or a pair.
    fn close(&mut self, closed: &Container, text: &[u8], edits: &mut Vec<Edit>) {
        let labelled = match closed {
            Container { is_object: true, has_label: true, values, .. } => values.as_slice(),
            Container { is_object: false, begins_with_label: true, count: 2, second, .. } => {
                second.as_slice()
            }
            _ => &[],
        };
        for range in labelled {
            let shown = &text[range.clone()];
            let decoded = serde_json::from_slice::<String>(shown);
            let value = decoded.as_ref().map_or(shown, |decoded| decoded.as_bytes());
            if is_harmless(value) || (decoded.is_err() && is_small_integer(value)) {
                continue;
            }
            // An object is what a client sent, with names and addresses.
            if decoded.is_ok() {
                self.keep(value);
            }
            edits.push((range.clone(), quoted()));
        }
    }
}

/// The last place at which `text` can be cut in two parts whose credentials are found: between two objects or lists of JSON, or
/// behind a line of other text. 0 if there is none.
pub fn last_boundary(text: &[u8]) -> usize {
    if !text.trim_ascii_start().first().is_some_and(|byte| b"{[".contains(byte)) {
        let key = memchr::memmem::rfind(text, b"-----BEGIN ");
        let key = key.filter(|at| memchr::memmem::find(&text[*at..], b"-----END ").is_none());
        return memchr::memrchr(b'\n', &text[..key.unwrap_or(text.len())]).map_or(0, |at| at + 1);
    }
    // Whether the values of each container are credentials.
    let (mut stack, mut name) = (Vec::<bool>::new(), 0..0);
    let (mut boundary, mut at, mut has_ended) = (0, 0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                name = at..string_end(text, at);
                at = name.end;
                has_ended = false;
                continue;
            }
            b'{' | b'[' => {
                let is_inside = stack.last().copied().unwrap_or_default();
                let is_named = text.get(name.start + 1..name.end.saturating_sub(1));
                stack.push(is_inside || is_named.is_some_and(is_credential_field));
            }
            b'}' | b']' => drop(stack.pop()),
            b',' => {
                if has_ended && !stack.last().is_some_and(|hides| *hides) {
                    boundary = at + 1;
                }
                name = 0..0;
            }
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            has_ended = matches!(byte, b'}' | b']');
        }
        at += 1;
    }
    boundary
}

/// What replaces a value that is no string.
fn quoted() -> Vec<u8> {
    format!("\"{HIDDEN}\"").into_bytes()
}

/// Whether the next value of `top` is hidden.
fn hides(top: Option<&Container>) -> bool {
    top.is_some_and(|top| top.hides) || is_named(top)
}

/// Whether the next value of `top`, or the list that it is in, has the name of a credential.
fn is_named(top: Option<&Container>) -> bool {
    top.is_some_and(|top| if top.is_object { is_credential_field(&top.name) } else { top.is_named })
}

/// Notes a value of `top`.
fn end_value(top: Option<&mut Container>, range: Range<usize>) {
    let Some(top) = top else { return };
    top.count += 1;
    if top.is_object && VALUES.iter().any(|name| top.name == name.as_bytes()) {
        top.values.push(range);
    }
}

/// The end of the string that begins at `start`, with its quotes.
pub(super) fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &text[at.min(text.len())..]) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    text.len()
}
