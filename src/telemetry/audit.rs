//! The audit log: who signed in, and who started, cancelled or changed something.

use std::net::IpAddr;

use tracing::field::display;

/// The target of the lines of the audit log. They are written whatever the log filter is.
pub(super) const AUDIT: &str = "audit";

/// An action of a client, for the audit log.
#[derive(Debug)]
pub struct Audited<'a> {
    /// The user that the client names, or the name of its token.
    pub user: Option<&'a str>,
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// The action.
    pub action: AuditAction<'a>,
}

/// An action that the audit log records.
#[derive(Debug)]
pub enum AuditAction<'a> {
    /// A browser signed in with a token.
    SignIn,
    /// A browser sent a wrong token to sign in.
    SignInRefused,
    /// A request had a wrong token.
    TokenRefused,
    /// A request with a read-only token was to change something.
    Denied,
    /// A sync was requested, and its job is queued.
    Start {
        /// The id of the job.
        job: String,
        /// The name of its backend.
        backend: &'a str,
        /// What it synchronises.
        kind: &'static str,
        /// Its query.
        query: &'a str,
    },
    /// A job was cancelled.
    Cancel {
        /// The id of the job.
        job: String,
    },
    /// The cool-down of a job was ended.
    EndCooldown {
        /// The id of the job.
        job: String,
    },
    /// Expired records and logs were removed.
    Clean,
    /// The configuration was reloaded, or reloading it failed.
    Reload {
        /// Why it failed.
        error: Option<&'a str>,
    },
    /// The log filter was changed.
    LogFilter {
        /// The filter before.
        before: &'a str,
        /// The new filter.
        filter: &'a str,
    },
    /// An API key was registered on a backend.
    RegisterKey {
        /// The name of the backend.
        backend: &'a str,
        /// The status of the answer.
        status: u16,
    },
}

impl Audited<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        let Self { user, client, action } = self;
        let client = client.map(display);
        macro_rules! line {
            ($level:ident, $action:literal, [$($fields:tt)*], $message:literal) => {
                tracing::$level!(target: AUDIT, action = $action, user, client, $($fields)* $message)
            };
        }
        match action {
            AuditAction::SignIn => line!(info, "sign_in", [], "Signed in."),
            AuditAction::SignInRefused => line!(warn, "sign_in_refused", [], "Sign-in refused: wrong token."),
            AuditAction::TokenRefused => line!(warn, "token_refused", [], "Request refused: wrong token."),
            AuditAction::Denied => line!(warn, "denied", [], "Request denied: read-only token."),
            AuditAction::Start { job, backend, kind, query } => {
                line!(info, "start", [job, backend, kind, query,], "Sync requested.");
            }
            AuditAction::Cancel { job } => line!(info, "cancel", [job,], "Job cancelled by request."),
            AuditAction::EndCooldown { job } => {
                line!(info, "end_cooldown", [job,], "Cool-down ended by request.")
            }
            AuditAction::Clean => line!(info, "clean", [], "Cleaning of the ledger requested."),
            AuditAction::Reload { error: None } => {
                line!(info, "reload", [], "Configuration reloaded by request.")
            }
            AuditAction::Reload { error } => {
                line!(warn, "reload_failed", [error,], "Requested reload of the configuration failed.");
            }
            AuditAction::LogFilter { before, filter } => {
                line!(info, "log_filter", [before, filter,], "Log filter changed.");
            }
            AuditAction::RegisterKey { backend, status } if (200..300).contains(&status) => {
                line!(info, "register_key", [backend, status,], "API key registered.");
            }
            AuditAction::RegisterKey { backend, status } => {
                line!(
                    warn,
                    "register_key_refused",
                    [backend, status,],
                    "Registration of an API key refused."
                );
            }
        }
    }
}
