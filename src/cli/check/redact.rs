//! Texts of a backend, without the API key and shortened for one line.

use crate::core::domain::credential::ApiKey;
use crate::core::domain::refusal::{Refusal, RefusalBody};
use crate::core::text::detail;
use crate::core::text::plain;
use crate::core::text::redact::Redactor;

/// The longest text of a backend that is shown, in characters.
const MAX_CHARS: usize = 200;

/// Redacts the key from the texts of one backend.
pub(super) struct KeyRedactor(Redactor);

impl KeyRedactor {
    /// For a backend that is sent `key`.
    pub(super) fn new(key: Option<&ApiKey>) -> Self {
        Self(Redactor::new(key.map(ApiKey::expose)))
    }

    /// `text` on one line, without the key: an answer may echo it.
    pub(super) fn text(&self, text: &str) -> String {
        // Redacted again: markup may have split the key.
        self.0.text(&plain(&self.0.text(text), MAX_CHARS)).into_owned()
    }

    /// The text in the body of an answer.
    pub(super) fn body(&self, body: &[u8]) -> String {
        self.text(&detail::text_of_body(body).unwrap_or_default())
    }

    /// The text of a refusal by the backend, or by the bridge because of it.
    pub(super) fn refusal(&self, refusal: &Refusal) -> String {
        match &refusal.body {
            RefusalBody::Bridge { detail, .. } => self.text(detail),
            RefusalBody::Backend(body) => self.body(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_repeats_the_key_does_not_make_it_known() {
        let key: ApiKey = "s3cret-key".parse().unwrap();
        let redactor = KeyRedactor::new(Some(&key));
        for text in ["not s3cret-key!", "<p>not s3cret-<b></b>key!</p>", "not s3cret-key, s3cret-key!"] {
            let shown = redactor.text(text);
            assert!(!shown.contains("s3cret-key"), "{shown}");
        }
        let short: ApiKey = "e".parse().unwrap();
        assert_eq!(KeyRedactor::new(Some(&short)).text("The key is refused."), "The key is refused.");
        let long = format!("{}s3cret-key", "a".repeat(MAX_CHARS - 6));
        assert!(!redactor.text(&long).contains("s3c"), "{}", redactor.text(&long));
        assert_eq!(KeyRedactor::new(Some(&"o".parse().unwrap())).text("no: o"), "no: o");
        assert_eq!(redactor.body(br#"{"detail":"no: s3cret-key"}"#), "no: [hidden]");
    }
}
