//! Choices of the operator that the core follows.

/// When failed objects fail the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectFailures {
    /// When objects failed and none completed.
    #[default]
    All,
    /// When any object failed.
    Any,
    /// Never: the backend's own verdict is repeated.
    Never,
}
