//! The keys of jobs, and of what is made up for.

use super::{Key, key, put};
use crate::config::jobs::{OnDisconnect, WithoutLedger};
use crate::config::slot::Slot;

pub(super) static KEYS: &[Key] = &[
    key(
        "shims.health",
        Some("on"),
        Slot::Switch(|draft| &mut draft.shims.health),
        "Whether the bridge answers /health where the backend has none, for plugins that ask for it before \
         every sync; and 503 for any backend that is not there.",
    ),
    key(
        "shims.auth",
        Some("on"),
        Slot::Switch(|draft| &mut draft.shims.auth),
        "Whether it answers /auth/bootstrap-status, /auth/register-key and /auth/keys where the backend has \
         none.",
    ),
    key(
        "shims.api_key_file",
        None,
        Slot::Path(|draft| &mut draft.shim_key_file),
        "The file with the key that is right there, in the place of one that a plugin registers, on one line. It \
         protects nothing: such a backend takes every request.",
    ),
    key(
        "shims.aliases",
        Some("on"),
        Slot::Switch(|draft| &mut draft.shims.aliases),
        "Whether it knows the two stream paths that plugin 0.0.10 asks for and no backend has.",
    ),
    key(
        "jobs.on_disconnect",
        Some("grace"),
        Slot::Word(&OnDisconnect::WORDS, |draft, text| put(&mut draft.jobs.on_disconnect, text)),
        "What becomes of a job whose last client has gone: grace lets it go on for limits.detach_grace \
         and then cancels it, continue lets it go on to its end, cancel cancels it at once.",
    ),
    key(
        "jobs.without_ledger",
        Some("continue"),
        Slot::Word(&WithoutLedger::WORDS, |draft, text| put(&mut draft.jobs.without_ledger, text)),
        "What becomes of new jobs while the record of jobs cannot be written: continue runs them without \
         a record until it can be, refuse answers 503.",
    ),
    key(
        "jobs.recording",
        Some("off"),
        Slot::Switch(|draft| &mut draft.jobs.recording),
        "Whether the raw frames of the backend are kept in data_dir/recordings, for /jobs/{id}/recording; \
         on needs a data_dir.",
    ),
    key(
        "jobs.log_frames",
        Some("1000"),
        Slot::Count(|draft| &mut draft.jobs.log_frames, 1, 100_000),
        "How many of the last frames of a job the record keeps.",
    ),
];
