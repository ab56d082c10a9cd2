//! What a run is worth when some of its objects failed.

use std::fmt;
use std::str::FromStr;

/// When objects that failed make the run that held them a failed one.
///
/// Whatever is chosen, a run is failed when the backend says so and when the backend went away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ObjectFailures {
    /// A run is failed when objects failed and none completed, be it of all its objects or of those of one
    /// documented kind.
    #[default]
    All,
    /// A run is failed when any object failed.
    Any,
    /// The verdict of the backend is repeated, whatever became of the objects.
    Never,
}

impl ObjectFailures {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::All, Self::Any, Self::Never];
    /// The word for every policy, in the order of [`Self::ALL`].
    pub const WORDS: [&'static str; 3] = [Self::All.as_str(), Self::Any.as_str(), Self::Never.as_str()];

    /// The word for this policy in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Any => "any",
            Self::Never => "never",
        }
    }
}

impl fmt::Display for ObjectFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not the word for a policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of all, any and never")]
pub struct NotAPolicy;

impl FromStr for ObjectFailures {
    type Err = NotAPolicy;

    fn from_str(text: &str) -> Result<Self, NotAPolicy> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text).ok_or(NotAPolicy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_policy() {
        for (policy, word) in ObjectFailures::ALL.into_iter().zip(ObjectFailures::WORDS) {
            assert_eq!(word.parse(), Ok(policy));
            assert_eq!(policy.to_string(), word);
        }
        assert_eq!("ALL".parse::<ObjectFailures>(), Err(NotAPolicy));
    }
}
