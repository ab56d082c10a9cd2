//! Errors in a configuration.

use std::fmt;
use std::path::PathBuf;

use strsim::levenshtein;

/// Why there is no configuration. The text is one line per problem. A process that cannot continue exits with 78
/// (`EX_CONFIG`).
///
/// There is at least one problem: those in the file are first, in the order of its lines, then those in variables, in
/// flags, and between keys.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub(super) Vec<ConfigProblem>);

impl ConfigError {
    /// All problems, in the order in which they are shown.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.0
    }
}

/// Where a value is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueOrigin {
    /// In the file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In the environment variable of this name.
    Variable(String),
    /// In this flag: `--backend`.
    Flag(&'static str),
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One problem. The text is one line with its place, its cause and the remedy.
///
/// Values of unknown keys and URLs are not repeated: they may contain a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The file could not be read, or is not TOML. It may set any key.
    #[error("{origin}: {message}")]
    Unreadable {
        /// What names the file, or the line of the error.
        origin: ValueOrigin,
        /// The cause, on one line.
        message: String,
    },
    /// A value is not allowed for its key.
    #[error("{origin}: {key} must be {reason}")]
    BadValue {
        /// Where the value is set.
        origin: ValueOrigin,
        /// The key, or the name of a table.
        key: &'static str,
        /// What is allowed, and what the value is instead.
        reason: String,
    },
    /// A setting is unknown or in the wrong place, or the file that it names cannot be used.
    #[error("{origin}: {message}")]
    BadSetting {
        /// Where it is.
        origin: ValueOrigin,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Values that are allowed one by one do not go together, or a required one is missing.
    #[error("{0}")]
    Conflict(String),
}

impl ConfigProblem {
    /// `value`, as it is shown, is not among what is `allowed` for `key`.
    pub(super) fn not_allowed(origin: ValueOrigin, key: &'static str, allowed: &str, value: &str) -> Self {
        Self::BadValue { origin, key, reason: format!("{allowed}, not {value}") }
    }

    /// The key whose value was refused.
    pub(super) fn refused_key(&self) -> Option<&'static str> {
        if let Self::BadValue { key, .. } = self { Some(key) } else { None }
    }
}

/// The end of a message about an unknown name: what it may stand for, if something is near enough.
pub(super) fn did_you_mean(hint: Option<String>) -> String {
    hint.map(|hint| format!("; did you mean {hint}?")).unwrap_or_default()
}

/// The candidate that `name` most likely stands for, if one is near enough.
pub(super) fn suggest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| {
        // `api_key` for `api_key_file` differs in many letters and means the same.
        let is_start = name.len() > 2 && candidate.starts_with(name);
        if is_start { 1 } else { levenshtein(name, candidate) }
    };
    let near = candidates.map(|candidate| (distance(candidate), candidate));
    near.filter(|(distance, _)| distance * 2 <= name.len()).min_by_key(|near| near.0).map(|near| near.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = || ["url", "channel", "api_key_file", "idle", "total"].into_iter();
        assert_eq!(suggest("chanel", known()), Some("channel"));
        assert_eq!(suggest("idel", known()), Some("idle"));
        assert_eq!(suggest("uri", known()), Some("url"));
        assert_eq!(suggest("api_key", known()), Some("api_key_file"));
        assert_eq!(suggest("colour", known()), None);
        assert_eq!(suggest("", known()), None);
    }
}
