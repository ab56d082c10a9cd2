//! What can be wrong between keys, each of which is right alone.

use super::draft::Draft;
use super::problem::Problem;

/// What is wrong between the keys of `draft`, as far as it does not follow from the `problems` found before.
pub(super) fn problems(draft: &Draft, problems: &[Problem]) -> Vec<Problem> {
    [no_backend, shared_address, nowhere_to_record, retention_too_short]
        .into_iter()
        .filter_map(|check| check(draft, problems))
        .collect()
}

/// Nothing names the backend, unless it may stand where something else is wrong.
fn no_backend(draft: &Draft, problems: &[Problem]) -> Option<Problem> {
    let hidden = unread(problems) || bad(problems, &["backend.url", "backend"]);
    (draft.url.is_none() && !hidden).then_some(Problem::NoBackend)
}

/// The system would refuse to bind the second address after the first.
fn shared_address(draft: &Draft, problems: &[Problem]) -> Option<Problem> {
    let Draft { listen, admin_listen, .. } = *draft;
    let same_family = listen.is_ipv4() == admin_listen.is_ipv4();
    let wildcard = same_family && (listen.ip().is_unspecified() || admin_listen.ip().is_unspecified());
    let same_port = listen.port() != 0 && listen.port() == admin_listen.port();
    let shared = same_port && (wildcard || listen.ip() == admin_listen.ip());
    (shared && !bad(problems, &["listen", "admin_listen"]))
        .then_some(Problem::SharedAddress { listen, admin_listen })
}

/// Recordings are files, unlike the ledger, which can do without a directory.
fn nowhere_to_record(draft: &Draft, problems: &[Problem]) -> Option<Problem> {
    let hidden = unread(problems) || bad(problems, &["data_dir"]);
    (draft.jobs.recording && draft.data_dir.is_none() && !hidden).then_some(Problem::NowhereToRecord)
}

/// The last frames of a job are kept with its record, and go with it.
fn retention_too_short(draft: &Draft, problems: &[Problem]) -> Option<Problem> {
    let (retention, log_retention) = (draft.limits.retention, draft.limits.log_retention);
    let hidden = bad(problems, &["limits.retention", "limits.log_retention"]);
    (retention < log_retention && !hidden).then_some(Problem::RetentionTooShort { retention, log_retention })
}

/// Whether the file may set keys that are not known.
fn unread(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| matches!(problem, Problem::Unreadable { .. } | Problem::Syntax { .. }))
}

/// Whether the value of one of `keys` was refused.
fn bad(problems: &[Problem], keys: &[&str]) -> bool {
    problems.iter().filter_map(Problem::key).any(|key| keys.contains(&key))
}
