//! Reads a stream as the job of the NetBox plugin does: with `requests`, line by line, appending every unknown
//! line to the data.

use serde_json::Value;

/// The final state of the job page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobPage {
    /// Green.
    Success {
        /// How many frames made a line of the log.
        logged: usize,
    },
    /// Red, with this text.
    Failure(String),
    /// The stream was taken for truncated: the job is tried again.
    Truncated,
    /// The job died of an exception.
    Crashed(String),
}

/// Reads a stream of the given `PayloadPart-Type`.
pub fn read(content_type: &str, body: &[u8]) -> JobPage {
    let text = decode(content_type, body);
    let mut name = String::new();
    let mut data = String::new();
    let mut logged = 0;
    let mut last = None;
    for line in split_lines(&text) {
        if line.is_empty() {
            if !data.is_empty() {
                // Data that is no JSON is logged as it is, also that of a `complete`.
                let value: Option<Value> = serde_json::from_str(&data).ok();
                logged += 1;
                if name == "complete" {
                    last = Some(value);
                }
            }
            name.clear();
            data.clear();
        } else if line.starts_with(':') {
        } else if let Some(value) = line.strip_prefix("event:") {
            name = value.trim().to_owned();
        } else {
            let value = line.strip_prefix("data:").unwrap_or(line);
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(value.trim());
        }
    }
    match last {
        None => JobPage::Truncated,
        Some(None) => JobPage::Success { logged },
        Some(Some(complete)) => outcome(&complete, logged),
    }
}

fn outcome(complete: &Value, logged: usize) -> JobPage {
    let Some(fields) = complete.as_object() else { return JobPage::Success { logged } };
    if let Some(result) = fields.get("result")
        && !(result.is_object() || result.is_array() || result.is_null())
    {
        return JobPage::Crashed(format!("result: {result}"));
    }
    let ok = match fields.get("ok") {
        // A missing `ok` counts as success.
        None | Some(Value::Bool(true)) => true,
        Some(Value::Bool(false)) => false,
        Some(other) => return JobPage::Crashed(format!("ok: {other}")),
    };
    let mut details = Vec::new();
    if let Some(errors) = fields.get("errors") {
        let Some(errors) = errors.as_array() else { return JobPage::Crashed(format!("errors: {errors}")) };
        for error in errors {
            match error.get("detail").and_then(Value::as_str) {
                Some(detail) => details.push(detail.to_owned()),
                None => return JobPage::Crashed(format!("errors: {error}")),
            }
        }
    }
    if ok { JobPage::Success { logged } } else { JobPage::Failure(details.join("\n")) }
}

/// `requests` decodes by the charset of the header, and by ISO-8859-1 without one.
fn decode(content_type: &str, body: &[u8]) -> String {
    if content_type.to_ascii_lowercase().contains("charset=utf-8") {
        String::from_utf8_lossy(body).into_owned()
    } else {
        body.iter().copied().map(char::from).collect()
    }
}

/// Python's `str.splitlines`, which ends lines at far more than line feeds.
fn split_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends_line) {
        let (line, end) = rest.split_at(at);
        lines.push(line);
        let width = if end.starts_with("\r\n") { 2 } else { end.chars().next().map_or(1, char::len_utf8) };
        rest = &end[width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn ends_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}' | '\u{1d}' | '\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}
