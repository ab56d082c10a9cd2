//! What a backend says, made fit to be shown.

use crate::core::domain::credential::ApiKey;
use crate::core::domain::refusal::{Body, Refusal};
use crate::core::text::detail;
use crate::core::text::plain;
use crate::core::text::redact::Redactor;

/// How much of what a backend says is shown, in characters.
const SHOWN: usize = 200;

/// Shows what one backend says, without the key that it was given.
pub(super) struct Said(Redactor);

impl Said {
    /// Shows what a backend says that is given `key`.
    pub(super) fn new(key: Option<&ApiKey>) -> Self {
        Self(Redactor::new(key.map(ApiKey::expose)))
    }

    /// `text` on one line. Whatever answers may repeat what it was sent.
    pub(super) fn text(&self, text: &str) -> String {
        // Markup may hide a key.
        self.0.owned(plain(&self.0.text(text), SHOWN).into_owned())
    }

    /// The text in the body of an answer.
    pub(super) fn body(&self, body: &[u8]) -> String {
        self.text(&detail::of_answer(body).unwrap_or_default())
    }

    /// Why the backend, or the way to it, did not give an answer.
    pub(super) fn refusal(&self, refusal: &Refusal) -> String {
        match &refusal.body {
            Body::Ours { detail, .. } => self.text(detail),
            Body::Theirs(body) => self.body(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_repeats_the_key_does_not_make_it_known() {
        let key: ApiKey = "s3cret-key".parse().unwrap();
        let said = Said::new(Some(&key));
        for text in ["not s3cret-key!", "<p>not s3cret-<b></b>key!</p>", "not s3cret-key, s3cret-key!"] {
            let shown = said.text(text);
            assert!(!shown.contains("s3cret-key"), "{shown}");
        }
        let short: ApiKey = "e".parse().unwrap();
        assert_eq!(Said::new(Some(&short)).text("The key is refused."), "The key is refused.");
        let long = format!("{}s3cret-key", "a".repeat(SHOWN - 6));
        assert!(!said.text(&long).contains("s3c"), "{}", said.text(&long));
        assert_eq!(Said::new(Some(&"o".parse().unwrap())).text("no: o"), "no: o");
        assert_eq!(said.body(br#"{"detail":"no: s3cret-key"}"#), "no: [hidden]");
    }
}
