//! What the bridge makes up for where a backend lacks it.

use crate::core::credential::ApiKey;

/// The table `[shims]`. Each of them is on only where the backend lacks what it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shims {
    /// `/health`, which backends before 0.0.6 do not have.
    pub health: bool,
    /// `/auth/bootstrap-status`, `/auth/register-key` and `/auth/keys`, which those before 0.0.7 do not have.
    pub auth: bool,
    /// The key that is right there, in the place of one that a plugin registers, read from the file
    /// `shims.api_key_file`.
    pub api_key: Option<ApiKey>,
    /// The two stream paths that plugin 0.0.10 asks for and no backend has.
    pub aliases: bool,
}
