//! Compares headers, and knows which may differ.

use std::collections::BTreeMap;

/// Names in lower case, each with its values in order.
pub(super) type Headers = BTreeMap<String, Vec<Vec<u8>>>;

/// The connection headers, beside those that `Connection` names (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings"];
/// What is not shown when it differs.
const SECRET: [&str; 3] = ["authorization", "cookie", "x-proxbox-api-key"];

pub(super) fn add(headers: &mut Headers, name: &str, value: &[u8]) {
    headers.entry(name.to_ascii_lowercase()).or_default().push(value.to_vec());
}

/// The one value of a header.
pub(super) fn one<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    match headers.get(name)?.as_slice() {
        [value] => Some(value),
        _ => None,
    }
}

/// Without the connection headers.
pub(super) fn end_to_end(headers: &Headers) -> Headers {
    let named: Vec<String> = headers
        .get("connection")
        .into_iter()
        .flatten()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .collect();
    let is_kept = |name: &String| !HOP_BY_HOP.contains(&name.as_str()) && !named.contains(name);
    headers
        .iter()
        .filter(|(name, _)| is_kept(name))
        .map(|(name, values)| (name.clone(), values.clone()))
        .collect()
}

/// The headers that differ between the two.
pub(super) fn differences(direct: &Headers, through: &Headers) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = direct.keys().chain(through.keys()).collect();
    let shown = |name: &str, headers: &Headers| match headers.get(name) {
        None => "nothing".to_owned(),
        Some(_) if SECRET.contains(&name) => "a secret".to_owned(),
        Some(values) => {
            let text: Vec<String> = values.iter().map(|value| short(value)).collect();
            format!("{text:?}")
        }
    };
    names
        .into_iter()
        .filter(|name| direct.get(*name) != through.get(*name))
        .map(|name| format!("{name}: directly {}, through {}", shown(name, direct), shown(name, through)))
        .collect()
}

/// The beginning of `bytes`.
pub(super) fn short(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(120)].escape_ascii();
    if bytes.len() > 120 { format!("{text}… ({} bytes)", bytes.len()) } else { text.to_string() }
}
