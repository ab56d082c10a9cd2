//! Readable text from the fields in which backends explain a failure.

use std::collections::HashSet;

use serde_json::Value;
use serde_json::value::RawValue;

use super::plain;

/// The longest detail that is kept, in characters.
pub const DETAIL: usize = 2000;
/// The longest sentence that is kept, in characters.
pub const SENTENCE: usize = 400;
/// The largest field that is read as a tree to find its text, in bytes. Larger ones are shown by
/// their beginning.
pub const READ_AS_TREE: usize = 256 * 1024;

/// The text of a field that may be null, a string, an object, a list, or a page of HTML.
pub fn readable(raw: Option<&RawValue>) -> Option<String> {
    let json = raw?.get();
    let text = if json.len() > READ_AS_TREE {
        json.to_owned()
    } else {
        match serde_json::from_str(json) {
            Ok(value) => of_value(&value)?,
            Err(_) => json.to_owned(),
        }
    };
    Some(plain(&text, DETAIL).into_owned()).filter(|text| !text.is_empty())
}

/// The text of the answer to a request that was refused: its `detail`, its `message`, both, or the
/// body itself.
pub fn of_answer(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let said = match serde_json::from_str::<Value>(&text) {
        Ok(value) => of_value(&value)?,
        Err(_) => text.into_owned(),
    };
    Some(plain(&said, DETAIL).into_owned()).filter(|text| !text.is_empty())
}

/// The text in a value. An object is known by the fields that FastAPI and ProxBox put their text into;
/// another one is shown as it is.
pub fn of_value(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            // Backends repeat one cause for everything that it has hit.
            let mut known = HashSet::new();
            let texts = items.iter().filter_map(of_value).filter(|text| known.insert(text.clone()));
            let texts: Vec<String> = texts.collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(of_value);
            if let Some(said) = text("msg") {
                let place = fields
                    .get("loc")
                    .and_then(Value::as_array)
                    .map(|path| path.iter().filter_map(of_value).collect::<Vec<_>>().join("."));
                return Some(place.map_or_else(|| said.clone(), |place| format!("{place}: {said}")));
            }
            let parts: Vec<String> =
                ["message", "error", "detail"].into_iter().filter_map(text).collect::<Vec<_>>();
            if parts.is_empty() {
                return Some(value.to_string());
            }
            Some(joined(parts))
        }
        other => Some(other.to_string()),
    }
}

/// Sentences in a row, without those that another one already holds.
pub fn joined(parts: Vec<String>) -> String {
    let mut kept: Vec<String> = Vec::new();
    for part in parts {
        if !part.trim().is_empty() && !kept.iter().any(|known| known.contains(&part)) {
            kept.retain(|known| !part.contains(known.as_str()));
            kept.push(part);
        }
    }
    kept.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_several_things_have_is_given_once() {
        let value = serde_json::json!(["no NetBox", "no branch", "no NetBox", {"detail": "no branch"}]);
        assert_eq!(of_value(&value).as_deref(), Some("no NetBox; no branch"));
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
            assert_eq!(readable(Some(raw(json))).as_deref(), text, "{json}");
        }
        assert_eq!(readable(None), None);
    }

    #[test]
    fn an_answer_that_is_no_json_is_readable_too() {
        assert_eq!(of_answer(b"Internal Server Error").as_deref(), Some("Internal Server Error"));
        assert_eq!(of_answer(br#"{"detail":"Invalid API key."}"#).as_deref(), Some("Invalid API key."));
        assert_eq!(of_answer(b""), None);
        assert_eq!(of_answer(b"\xff\xfe").as_deref(), Some("\u{fffd}\u{fffd}"));
    }
}
