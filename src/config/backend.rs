//! How the backend is reached and what its answers are taken for.

use std::fmt;
use std::str::FromStr;

use super::url::BackendUrl;
use crate::core::channel::Choice;
use crate::core::credential::ApiKey;
use crate::core::policy::ObjectFailures;

/// The table `[backend]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where the backend is.
    pub url: BackendUrl,
    /// Which channel drives it.
    pub channel: Choice,
    /// What becomes of a sync that the backend has no way to run.
    pub unsupported: Unsupported,
    /// When objects that failed make a run a failed one.
    pub object_failures: ObjectFailures,
    /// The key that goes to the backend in the place of the key of clients, read from the file
    /// `backend.api_key_file`.
    pub api_key: Option<ApiKey>,
}

/// What becomes of a sync that the backend has no way to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unsupported {
    /// It is refused with status 501.
    #[default]
    Refuse,
    /// It is answered with a stream that ends well and says that nothing was done.
    Skip,
}

impl Unsupported {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Skip];
    /// The word for every way, in the order of [`Self::ALL`].
    pub const WORDS: [&'static str; 2] = [Self::Refuse.as_str(), Self::Skip.as_str()];

    /// The word for this way in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Skip => "skip",
        }
    }
}

/// A text that is not one of the words that a key takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of: {}", .0.join(", "))]
pub struct NotAWord(pub &'static [&'static str]);

impl FromStr for Unsupported {
    type Err = NotAWord;

    fn from_str(text: &str) -> Result<Self, NotAWord> {
        Self::ALL.into_iter().find(|way| way.as_str() == text).ok_or(NotAWord(&Self::WORDS))
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_choice() {
        for (way, word) in Unsupported::ALL.into_iter().zip(Unsupported::WORDS) {
            assert_eq!(word.parse(), Ok(way));
            assert_eq!(way.to_string(), word);
        }
        assert_eq!("sse".parse::<Unsupported>().unwrap_err().to_string(), "not one of: refuse, skip");
    }
}
