//! The tokens of the admin listener.

use std::str::FromStr;

use crate::core::domain::credential::{ApiKey, InvalidApiKey};

/// A token of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// Its name, in the audit log and in the records of jobs.
    pub name: String,
    /// Whether its file gives that name.
    pub is_named: bool,
    /// Whether it allows nothing but reading.
    pub is_read_only: bool,
    /// The token itself.
    pub secret: ApiKey,
}

/// The maximum length of a name, in bytes.
const MAX_NAME: usize = 64;

/// The tokens in a file, each with its name if it has one: `NAME:TOKEN` or `TOKEN` on each line.
pub(super) struct TokenFile(pub(super) Vec<(Option<String>, ApiKey)>);

impl FromStr for TokenFile {
    type Err = InvalidApiKey;

    fn from_str(text: &str) -> Result<Self, InvalidApiKey> {
        let lines = text.lines().filter(|line| !line.is_empty()).map(|line| match line.split_once(':') {
            Some((name, token)) if is_name(name) => Ok((Some(name.to_owned()), token.parse()?)),
            _ => Ok((None, line.parse()?)),
        });
        let tokens = lines.collect::<Result<Vec<_>, InvalidApiKey>>()?;
        if tokens.is_empty() { Err(InvalidApiKey::Empty) } else { Ok(Self(tokens)) }
    }
}

/// The first token of `text`, the content of a token file, without its name.
///
/// # Errors
/// If a line of it is no token.
pub fn first_token(text: &str) -> Result<ApiKey, InvalidApiKey> {
    let TokenFile(tokens) = text.parse()?;
    tokens.into_iter().next().map(|(_, token)| token).ok_or(InvalidApiKey::Empty)
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_token_with_or_without_a_name() {
        let tokens = |text: &str| {
            let TokenFile(tokens) = text.parse().ok()?;
            Some(
                tokens.into_iter().map(|(name, token)| (name, token.expose().to_owned())).collect::<Vec<_>>(),
            )
        };
        let named = |name: &str, token: &str| (Some(name.to_owned()), token.to_owned());
        let unnamed = |token: &str| (None, token.to_owned());
        assert_eq!(tokens("secret\n"), Some(vec![unnamed("secret")]));
        assert_eq!(
            tokens("anna@example.org:first:part\r\n\nsecret\nbob:other\n"),
            Some(vec![named("anna@example.org", "first:part"), unnamed("secret"), named("bob", "other")])
        );
        assert_eq!(tokens("two words:secret"), Some(vec![unnamed("two words:secret")]));
        for bad in ["", "\n\n", "anna:", "anna: secret", "secret\nschlüssel"] {
            assert_eq!(tokens(bad), None, "{bad:?}");
        }
    }
}
