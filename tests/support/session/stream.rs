//! A strict reader, which checks the wire contract on the bytes of a stream.

use serde_json::Value;

/// One event of a stream that was found to be in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: Option<String>,
    pub name: String,
    pub data: Value,
}

impl Event {
    pub fn text(&self, field: &str) -> &str {
        self.data[field].as_str().unwrap_or_default()
    }
}

/// The events of a whole stream.
///
/// Panics where the bytes break the contract: R1, R3, R4, R6, R7, R8, R9, R13.
pub fn read(bytes: &[u8]) -> Vec<Event> {
    let events = read_with_optional_ids(bytes);
    assert!(events.iter().all(|event| event.id.is_none()), "R1: {events:?}");
    events
}

/// Like [`read`], of a stream whose events have ids.
pub fn read_with_ids(bytes: &[u8]) -> Vec<Event> {
    let events = read_with_optional_ids(bytes);
    assert!(events.iter().all(|event| event.id.is_some()), "an event without an id: {events:?}");
    events
}

fn read_with_optional_ids(bytes: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(bytes).expect("a stream is UTF-8");
    assert!(text.is_ascii(), "R3: not ASCII: {text}");
    assert!(!text.contains('\r'), "R4: a carriage return: {text}");
    assert!(text.ends_with("\n\n"), "the last event is not whole: {text:?}");
    let mut events = Vec::new();
    for frame in text.split_terminator("\n\n") {
        if frame.starts_with(':') {
            assert_eq!(frame, ": keepalive");
            continue;
        }
        events.push(event(frame));
    }
    check(&events);
    events
}

fn event(frame: &str) -> Event {
    let mut lines = frame.split('\n');
    let mut line = lines.next();
    let id = line.and_then(|line| line.strip_prefix("id: ")).map(str::to_owned);
    if id.is_some() {
        line = lines.next();
    }
    let name =
        line.and_then(|line| line.strip_prefix("event: ")).unwrap_or_else(|| panic!("no name: {frame}"));
    let data = lines.next().and_then(|line| line.strip_prefix("data: ")).unwrap_or_else(|| panic!("{frame}"));
    assert_eq!(lines.next(), None, "R1: something behind the data: {frame}");
    let data = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {frame}"));
    Event { id, name: name.to_owned(), data }
}

fn check(events: &[Event]) {
    let first = events.first().expect("a stream has events");
    assert_eq!((first.name.as_str(), first.text("status")), ("step", "started"), "the first event");
    let (last, rest) = events.split_last().expect("a stream has events");
    assert_eq!(last.name, "complete", "R6: the last event");
    assert!(rest.iter().all(|event| event.name != "complete"), "R6: more than one complete");
    for event in rest.iter().filter(|event| event.name == "step") {
        check_step(&event.data);
    }
    check_complete(&last.data);
    if !rest.iter().any(|event| event.data.get("payload").is_some()) {
        let length = python_dumps(&last.data).len();
        assert!(length <= 600, "R13: {length} characters: {}", last.data);
    }
    let ok = last.data["ok"] == Value::Bool(true);
    let errors = rest.iter().filter(|event| event.name == "error").count();
    assert_eq!(errors, usize::from(!ok), "R8, R9: {errors} errors, ok is {ok}");
    if !ok {
        let error = rest.last().expect("an error before the end");
        assert_eq!(error.name, "error", "R8: the error comes right before the end");
        for field in ["step", "error", "detail"] {
            assert!(!error.text(field).is_empty(), "R8: {field} of {}", error.data);
        }
    }
}

fn check_step(step: &Value) {
    for field in ["step", "status", "message"] {
        assert!(step[field].is_string(), "{field} of {step}");
    }
    assert!(step.get("rowid").is_some_and(|rowid| rowid.is_string() || rowid.is_null()), "{step}");
    let status = step["status"].as_str().unwrap_or_default();
    assert!(["started", "progress", "completed", "failed"].contains(&status), "{step}");
    assert_eq!(step["error"].is_string(), status == "failed", "R9: {step}");
    if step.get("payload").is_none() {
        let length = python_dumps(step).len();
        assert!(length <= 600, "R13: {length} characters: {step}");
    }
}

fn check_complete(complete: &Value) {
    assert!(complete["ok"].is_boolean(), "R7: {complete}");
    assert!(complete["message"].as_str().is_some_and(|message| !message.is_empty()), "R7: {complete}");
    assert!(complete["result"].is_object(), "R7: {complete}");
    match complete.get("errors") {
        None => assert_eq!(complete["ok"], Value::Bool(true), "a failure has errors: {complete}"),
        Some(errors) => {
            let errors = errors.as_array().unwrap_or_else(|| panic!("R7: {complete}"));
            assert!(
                !errors.is_empty() && errors.iter().all(|error| error["detail"].is_string()),
                "R7: {complete}"
            );
        }
    }
}

/// `value` as Python's `json.dumps` prints it.
pub fn python_dumps(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", python_string(name), python_dumps(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python_dumps).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => python_string(text),
        other => other.to_string(),
    }
}

fn python_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='\u{7f}' => out.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out.push('"');
    out
}
