//! API keys, in types that do not print them.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::core::secret;

/// The API key of a backend.
///
/// It consists of visible ASCII, with spaces only inside, so it is always a valid header value. Neither `Debug` nor
/// `Display` shows it. It is zeroed on drop.
#[derive(Clone)]
pub struct ApiKey(SecretString);

impl ApiKey {
    /// The key itself. Use it only for the header that carries it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The header value that carries it, marked as sensitive.
    ///
    /// # Errors
    ///
    /// None for a parsed key.
    pub fn header(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        secret::header(&[self.expose()])
    }
}

impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for ApiKey {}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<api-key>")
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<api-key>")
    }
}

/// A hash of a secret as hexadecimal digits.
pub fn hexadecimal(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a text is not a valid key. The error never repeats the text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidApiKey {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is not a valid header value.
    #[error("a key is one line of visible ASCII characters, with no space at either end")]
    Unprintable,
}

impl FromStr for ApiKey {
    type Err = InvalidApiKey;

    /// Parses a key from a file's content. Trailing newlines are ignored.
    fn from_str(text: &str) -> Result<Self, InvalidApiKey> {
        let key = text.trim_end_matches(['\r', '\n']);
        if key.is_empty() {
            return Err(InvalidApiKey::Empty);
        }
        let printable = key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !printable || key.starts_with(' ') || key.ends_with(' ') {
            return Err(InvalidApiKey::Unprintable);
        }
        Ok(Self(key.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_at_the_end_is_not_part_of_the_key() {
        for text in ["s3cret", "s3cret\n", "s3cret\r\n"] {
            assert_eq!(text.parse::<ApiKey>().unwrap().expose(), "s3cret");
        }
    }

    #[test]
    fn keys_are_equal_only_if_they_are_the_same() {
        let [one, same, other] = ["s3cret", "s3cret\n", "s3cre7"].map(|text| text.parse::<ApiKey>().unwrap());
        assert_eq!(one, same);
        assert_ne!(one, other);
    }

    #[test]
    fn what_a_header_cannot_carry_is_no_key() {
        for (text, why) in [
            ("", InvalidApiKey::Empty),
            ("\n", InvalidApiKey::Empty),
            ("two\nlines", InvalidApiKey::Unprintable),
            ("tab\t", InvalidApiKey::Unprintable),
            ("schlüssel", InvalidApiKey::Unprintable),
            (" ", InvalidApiKey::Unprintable),
            ("end \n", InvalidApiKey::Unprintable),
        ] {
            assert_eq!(text.parse::<ApiKey>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key: ApiKey = "s3cret".parse().unwrap();
        let shown = format!("{key} {key:?} {:#?}", Some(&key));
        assert_eq!(shown, "<api-key> <api-key> Some(\n    <api-key>,\n)");
    }
}
