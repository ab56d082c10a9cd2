//! Readable text from the fields in which backends explain a failure.

use std::collections::HashSet;

use serde_json::Value;
use serde_json::value::RawValue;

use super::plain;

/// The maximum length of a detail, in characters.
pub const DETAIL: usize = 2000;
/// The maximum length of a sentence, in characters.
pub const SENTENCE: usize = 400;
/// The maximum size of a field that is parsed to find its text, in bytes. Of larger fields the beginning is shown.
pub const READ_AS_TREE: usize = 256 * 1024;

/// The text of a field that may be null, a string, an object, a list or an HTML page.
pub fn text_of_field(raw: Option<&RawValue>) -> Option<String> {
    text_of_json(raw?.get(), READ_AS_TREE)
}

/// The text of an error response: its `detail`, its `message`, both, or the body itself.
pub fn text_of_body(body: &[u8]) -> Option<String> {
    text_of_json(&String::from_utf8_lossy(body), usize::MAX)
}

/// The text in `json`. It is shown as it is if it is invalid, or longer than `limit` bytes.
fn text_of_json(json: &str, limit: usize) -> Option<String> {
    let value = if json.len() <= limit { serde_json::from_str(json).ok() } else { None };
    let text = value.map_or_else(|| Some(json.to_owned()), |value| text_of_value(&value))?;
    Some(plain(&text, DETAIL).into_owned()).filter(|text| !text.is_empty())
}

/// The text in a value. In an object, the text fields of FastAPI and ProxBox are used; any other object is shown as it
/// is.
pub fn text_of_value(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            // Backends repeat one cause for every object it affects.
            let mut seen = HashSet::new();
            let mut texts: Vec<String> = items.iter().filter_map(text_of_value).collect();
            texts.retain(|text| seen.insert(text.clone()));
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(text_of_value);
            if let Some(message) = text("msg") {
                let Some(path) = fields.get("loc").and_then(Value::as_array) else { return Some(message) };
                let path: Vec<String> = path.iter().filter_map(text_of_value).collect();
                return Some(format!("{}: {message}", path.join(".")));
            }
            let parts: Vec<String> = ["message", "error", "detail"].into_iter().filter_map(text).collect();
            Some(if parts.is_empty() { value.to_string() } else { join_distinct(parts) })
        }
        other => Some(other.to_string()),
    }
}

/// Joins sentences, without those that another sentence contains.
pub fn join_distinct(parts: Vec<String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for part in parts {
        if !part.trim().is_empty() && !distinct.iter().any(|other| other.contains(&part)) {
            distinct.retain(|other| !part.contains(other.as_str()));
            distinct.push(part);
        }
    }
    distinct.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_several_things_have_is_given_once() {
        let value = serde_json::json!(["no NetBox", "no branch", "no NetBox", {"detail": "no branch"}]);
        assert_eq!(text_of_value(&value).as_deref(), Some("no NetBox; no branch"));
    }

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_detail_of_any_shape_is_readable() {
        for (json, text) in [
            (r#""plain""#, Some("plain")),
            ("null", None),
            (r#""""#, None),
            (r#"{"message":"m","detail":"d","python_exception":null}"#, Some("m | d")),
            (r#"{"message":"m","detail":"m | d"}"#, Some("m | d")),
            (r#"[{"detail":"a"},{"detail":"b"}]"#, Some("a; b")),
            (
                r#"[{"type":"missing","loc":["query","x"],"msg":"Field required"}]"#,
                Some("query.x: Field required"),
            ),
            (r#"{"reason":"r","upstream_status":503}"#, Some(r#"{"reason":"r","upstream_status":503}"#)),
            (r#""<html><title>Not Found</title>""#, Some("Not Found")),
        ] {
            assert_eq!(text_of_field(Some(raw(json))).as_deref(), text, "{json}");
        }
        assert_eq!(text_of_field(None), None);
    }

    #[test]
    fn an_answer_that_is_no_json_is_readable_too() {
        assert_eq!(text_of_body(b"Internal Server Error").as_deref(), Some("Internal Server Error"));
        assert_eq!(text_of_body(br#"{"detail":"Invalid API key."}"#).as_deref(), Some("Invalid API key."));
        assert_eq!(text_of_body(b""), None);
        assert_eq!(text_of_body(b"\xff\xfe").as_deref(), Some("\u{fffd}\u{fffd}"));
    }
}
