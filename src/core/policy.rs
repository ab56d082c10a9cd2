//! What a run is worth when some of its objects failed.

use super::words::words;

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

/// A text that is not the word for a policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of all, any and never")]
pub struct NotAPolicy;

words!(ObjectFailures or NotAPolicy { All => "all", Any => "any", Never => "never" });

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
