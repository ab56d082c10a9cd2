//! Secrets in memory: texts, JSON, bodies and headers that are zeroed on drop.
//!
//! Texts are `SecretString` of `secrecy`, whose `Debug` hides them. Every buffer here is allocated at its final size,
//! because a growing buffer leaves a copy behind. The bridge cannot zero the buffers of hyper, rustls, tungstenite and
//! the operating system, the strings that the JSON parser unescapes, the headers of a client's request, and the
//! transitions of a redactor's automaton, which do not hold a secret as text.

use std::fmt::{self, Display, Write};
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use secrecy::SecretString;
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

/// JSON with secrets. Its texts are zeroed on drop, and `Debug` hides it.
#[derive(Clone, Default)]
pub struct SecretJson(Value);

impl SecretJson {
    /// Parses `text`.
    ///
    /// # Errors
    ///
    /// If `text` is not valid JSON.
    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text).map(Self)
    }

    /// The JSON as a message body.
    pub fn to_body(&self) -> Bytes {
        Bytes::from_owner(written(&self.0))
    }
}

impl From<Value> for SecretJson {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl Deref for SecretJson {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl DerefMut for SecretJson {
    fn deref_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

impl fmt::Debug for SecretJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretJson")
    }
}

impl Drop for SecretJson {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Zeroes the texts in `value`.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        _ => {}
    }
}

/// `value` as zeroed-on-drop text.
pub fn written(value: &impl Display) -> Zeroizing<String> {
    let mut length = Length(0);
    // Neither writer can fail.
    let _ = write!(length, "{value}");
    let mut text = Zeroizing::new(String::with_capacity(length.0));
    let _ = write!(text, "{value}");
    text
}

/// Joins `parts` into one secret.
pub fn joined(parts: &[&str]) -> SecretString {
    parts.concat().into()
}

/// Joins `parts` into a header value that is marked as sensitive.
///
/// # Errors
///
/// If `parts` contain a byte that a header value cannot have.
pub fn header(parts: &[&str]) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(Zeroizing::new(parts.concat())))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Appends `data` to `buffer`. If the buffer must grow, the old one is zeroed.
pub fn append(buffer: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    let length = buffer.len() + data.len();
    if buffer.capacity() < length {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two()));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(data);
}

/// Counts the bytes written to it.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_buffer_without_room_is_replaced_and_does_not_grow_in_place() {
        let mut buffer = Zeroizing::new(Vec::with_capacity(3));
        append(&mut buffer, b"abc");
        append(&mut buffer, &[b'x'; 20]);
        // A vector that grows takes as much as it needs.
        assert_eq!((buffer.len(), buffer.capacity()), (23, 32));
        let place = buffer.as_ptr();
        append(&mut buffer, &[b'x'; 9]);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, 32));
    }

    #[test]
    fn debug_hides_json_with_secrets_and_headers_with_one() {
        let row = SecretJson::from(json!({ "password": "p4ss" }));
        assert_eq!(format!("{row:?}"), "SecretJson");
        let value = header(&["Token ", "t0ken"]).unwrap();
        assert_eq!((value.to_str().unwrap(), format!("{value:?}").as_str()), ("Token t0ken", "Sensitive"));
        assert!(header(&["t0ken\n"]).is_err());
    }

    #[test]
    fn a_body_and_a_text_are_written_in_one_allocation() {
        let row = SecretJson::from(json!({ "password": "p4\"ss", "port": 8006 }));
        assert_eq!(row.to_body(), r#"{"password":"p4\"ss","port":8006}"#);
        let text = written(&*row);
        assert_eq!(text.capacity(), text.len());
        assert_eq!(joined(&["nbt_", "key", ".", "secret"]).expose_secret(), "nbt_key.secret");
    }

    #[test]
    fn wiped_json_holds_no_text() {
        let mut rows = json!([{ "token": "t0ken", "nested": ["s3cret", 1] }]);
        wipe(&mut rows);
        assert_eq!(rows, json!([{ "token": "", "nested": ["", 1] }]));
    }

    #[test]
    fn what_is_appended_to_a_buffer_stands_behind_what_it_holds() {
        let mut buffer = Zeroizing::default();
        for part in ["one", " and a longer one", "!"] {
            append(&mut buffer, part.as_bytes());
        }
        assert_eq!(buffer.as_slice(), b"one and a longer one!");
    }
}
