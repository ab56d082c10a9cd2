//! Makes any value safe to be inserted into a page as HTML.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

/// The maximum length of a text, in characters of HTML.
pub(super) const MAX_TEXT: usize = 500;
/// The maximum length of a number, in characters. No virtual machine id is longer.
const MAX_NUMBER: usize = 32;
/// The maximum number of list items.
const MAX_ITEMS: usize = 256;

/// Escapes `text` as HTML of at most `limit` characters.
pub(super) fn text(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    let mut room = limit;
    for c in text.chars() {
        let entity = entity(c);
        let Some(left) = room.checked_sub(entity.map_or(1, str::len)) else { break };
        room = left;
        match entity {
            Some(entity) => out.push_str(entity),
            None => out.push(c),
        }
    }
    out
}

const fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    }
}

/// `text` as a JSON string without line separators, which are line endings in JavaScript.
pub(super) fn json(text: &str) -> String {
    Value::from(text).to_string().replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// `raw` as a JSON value that is safe in a cell. `None` for null, an object, and the text `undefined`, which releases
/// send for an unknown value.
pub(super) fn cell(raw: &RawValue) -> Option<Box<str>> {
    let raw = raw.get();
    if !raw.starts_with('[') {
        return value(raw).map(String::into_boxed_str);
    }
    let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    let items =
        items.iter().take(MAX_ITEMS).map(|item| value(item.get()).unwrap_or_else(|| "null".to_owned()));
    Some(format!("[{}]", items.collect::<Vec<_>>().join(",")).into_boxed_str())
}

fn value(raw: &str) -> Option<String> {
    match raw.as_bytes().first()? {
        b'"' => {
            let text: Cow<'_, str> = serde_json::from_str(raw).ok()?;
            (text != "undefined").then(|| json(&link_or_text(&text)))
        }
        b't' | b'f' => Some(raw.to_owned()),
        b'-' | b'0'..=b'9' if is_number(raw) => Some(raw.to_owned()),
        _ => None,
    }
}

/// Whether every JSON parser accepts this number.
fn is_number(raw: &str) -> bool {
    raw.len() <= MAX_NUMBER && raw.parse().is_ok_and(f64::is_finite)
}

fn link_or_text(html: &str) -> String {
    let Some((url, label)) = link(html) else { return text(html, MAX_TEXT) };
    let link = format!("<a href='{}'>{}</a>", text(url, usize::MAX), text(label, usize::MAX));
    if link.chars().count() <= MAX_TEXT { link } else { text(label, MAX_TEXT) }
}

/// The address and the text of `html`, if it is exactly one link.
fn link(html: &str) -> Option<(&str, &str)> {
    let rest = html.strip_prefix("<a href=")?;
    let (url, rest) = match rest.strip_prefix('\'') {
        Some(rest) => rest.split_once('\'')?,
        None => rest.strip_prefix('"')?.split_once('"')?,
    };
    let label = rest.strip_prefix('>')?.strip_suffix("</a>")?;
    let is_page = ["http://", "https://"]
        .into_iter()
        .any(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    (is_page && !url.contains(['<', '>']) && !label.contains(['<', '>'])).then_some((url, label))
}

/// The framing of texts and JSON for one client: adds its `run_id` to every frame.
#[derive(Debug)]
pub(super) struct ClientEnvelope {
    /// The end of every JSON frame with the `run_id`, if the client correlates.
    run_id_suffix: Option<String>,
}

impl ClientEnvelope {
    pub(super) fn new(run_id: Option<&str>) -> Self {
        let mark = |run_id| format!(",\"run_id\":{}}}", json(&text(run_id, MAX_TEXT)));
        Self { run_id_suffix: run_id.map(mark) }
    }

    pub(super) fn is_correlated(&self) -> bool {
        self.run_id_suffix.is_some()
    }

    /// A text: bare, or in a frame if the client correlates.
    pub(super) fn message(&self, text: &str) -> String {
        match &self.run_id_suffix {
            None => text.to_owned(),
            Some(mark) => format!("{{\"message\":{}{mark}", json(text)),
        }
    }

    /// Closes a JSON object that has at least one field.
    pub(super) fn close_object(&self, mut frame: String) -> String {
        frame.push_str(self.run_id_suffix.as_deref().unwrap_or("}"));
        frame
    }
}
