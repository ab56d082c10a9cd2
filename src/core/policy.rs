//! What a run is worth when some of its objects failed.

use super::words::words;

/// When objects that failed make the run that held them a failed one.
///
/// Whatever is chosen, a run is failed when the backend says so and when the backend went away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ObjectFailures {
    /// A run is failed when objects failed and none completed, be it of all its objects or of those of one
    /// documented kind. A run of another kind keeps the verdict of the backend.
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

/// What becomes of a sync that the backend has no way to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unsupported {
    /// A stage that the NetBox plugin requires is skipped, visibly, if it follows others in one job. Everything else
    /// is refused with status 404, which the plugin takes for a warning where it can do without.
    #[default]
    Auto,
    /// It is refused with status 404.
    Refuse,
    /// It is answered with a stream that ends well and says that nothing was done.
    Skip,
}

/// Whose ids clients send as `proxmox_endpoint_ids`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EndpointIds {
    /// Those of the backend's database, as plugins since 0.0.20 do.
    #[default]
    Backend,
    /// The primary keys of NetBox, as plugins 0.0.11 to 0.0.19 do.
    Plugin,
}

/// A text that is not one of the words that a key takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of: {}", .0.join(", "))]
pub struct UnknownWord(pub &'static [&'static str]);

words!(Unsupported or UnknownWord(&Unsupported::WORDS) { Auto => "auto", Refuse => "refuse", Skip => "skip" });
words!(EndpointIds or UnknownWord(&EndpointIds::WORDS) { Backend => "backend", Plugin => "plugin" });

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

    #[test]
    fn every_word_names_its_choice() {
        for (choice, word) in Unsupported::ALL.into_iter().zip(Unsupported::WORDS) {
            assert_eq!(word.parse(), Ok(choice));
            assert_eq!(choice.to_string(), word);
        }
        let unknown = "sse".parse::<Unsupported>().unwrap_err();
        assert_eq!(unknown.to_string(), "not one of: auto, refuse, skip");
        assert_eq!("plugin".parse(), Ok(EndpointIds::Plugin));
    }
}
