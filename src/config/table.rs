//! The table of keys: the one place that says what can be configured.

use std::time::Duration;

use super::backend::Unsupported;
use super::draft::Draft;
use super::flags;
use super::jobs::{OnDisconnect, WithoutLedger};
use super::slot::{Range, Slot};
use crate::core::channel::Choice;
use crate::core::policy::ObjectFailures;

/// One thing that can be configured.
#[derive(Debug)]
pub struct Key {
    /// Its name with its table: `limits.idle`.
    pub name: &'static str,
    /// Its default, as it would be written in a variable; `None` when there is none.
    pub default: Option<&'static str>,
    /// What it does, in a sentence.
    pub doc: &'static str,
    pub(super) slot: Slot,
}

impl Key {
    /// What it takes, as error messages say it after "must be".
    pub fn allowed(&self) -> String {
        self.slot.to_string()
    }

    /// The environment variable that sets it: `PROXBOX_BRIDGE_LIMITS_IDLE`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The flag that sets it, if there is one: `--backend`.
    pub fn flag(&self) -> Option<&'static str> {
        flags::of(self.name)
    }

    /// Its table in the file, empty for the top level, and its name there.
    pub(super) fn place(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }
}

/// Every key, in the order in which documentation lists them.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    TABLE.iter()
}

/// What the name of every variable of the bridge begins with.
pub(super) const PREFIX: &str = "PROXBOX_BRIDGE_";

const fn key(name: &'static str, default: Option<&'static str>, slot: Slot, doc: &'static str) -> Key {
    Key { name, default, doc, slot }
}

/// Far beyond any use, and far below where adding it to a clock could overflow.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A time in which something has to happen: none at all makes no sense.
const POSITIVE: Range = Range { least: Duration::from_millis(1), most: WEEK, whole: false };
/// A time that may be left out.
const ANY: Range = Range { least: Duration::ZERO, ..POSITIVE };
/// Readers give up after 60 s of silence, and the contract wants a sign of life every 15 s.
const HEARTBEAT: Range = Range { least: Duration::from_secs(1), most: Duration::from_secs(15), whole: false };
/// `Retry-After` is written in whole seconds.
const RETRY_AFTER: Range =
    Range { least: Duration::from_secs(1), most: Duration::from_secs(60), whole: true };
/// How long something stays on disk, which may be years.
const RETENTION: Range =
    Range { least: Duration::from_secs(60), most: Duration::from_secs(3650 * 24 * 60 * 60), whole: false };
/// 16 GiB, or as much as a size can say where that is less.
const HUGE: usize = match 1_usize.checked_shl(34) {
    Some(bytes) => bytes,
    None => usize::MAX,
};

const fn limit(
    name: &'static str,
    default: &'static str,
    range: Range,
    field: fn(&mut Draft) -> &mut Duration,
    doc: &'static str,
) -> Key {
    key(name, Some(default), Slot::Time(field, range), doc)
}

/// Puts the word `text` where it belongs, and says whether it is one.
fn put<T: std::str::FromStr>(field: &mut T, text: &str) -> bool {
    text.parse().map(|value| *field = value).is_ok()
}

static TABLE: [Key; 36] = [
    key(
        "listen",
        Some("127.0.0.1:8800"),
        Slot::Address(|draft| &mut draft.listen),
        "The address on which clients are served.",
    ),
    key(
        "admin_listen",
        Some("127.0.0.1:8801"),
        Slot::Address(|draft| &mut draft.admin_listen),
        "The address of the admin listener, which answers /livez, /readyz, /metrics, POST /sync/… and the \
         jobs API.",
    ),
    key(
        "data_dir",
        None,
        Slot::Path(|draft| &mut draft.data_dir),
        "The directory of the ledger, the durable record of jobs, made if it is missing; without it the \
         record is kept in memory and lost when the bridge ends.",
    ),
    key(
        "backend.url",
        None,
        Slot::Url(|draft| &mut draft.url),
        "Where the backend is; the one key that has to be set.",
    ),
    key(
        "backend.channel",
        Some("auto"),
        Slot::Word(&Choice::WORDS, |draft, text| put(&mut draft.channel, text)),
        "How the backend is driven: auto chooses for each kind by what the backend can do.",
    ),
    key(
        "backend.unsupported",
        Some("refuse"),
        Slot::Word(&Unsupported::WORDS, |draft, text| put(&mut draft.unsupported, text)),
        "What becomes of a sync that the backend has no way to run: refuse answers 501, skip a stream that \
         ends well and says that nothing was done.",
    ),
    key(
        "backend.object_failures",
        Some("all"),
        Slot::Word(&ObjectFailures::WORDS, |draft, text| put(&mut draft.object_failures, text)),
        "When objects that failed make a run a failed one: all when none completed, any when one failed, \
         never repeats the verdict of the backend.",
    ),
    key(
        "backend.api_key_file",
        None,
        Slot::Path(|draft| &mut draft.api_key_file),
        "The file with the key that goes to the backend in the place of the key of clients on sync streams, on one line. Whoever reaches the bridge can then start a sync.",
    ),
    key(
        "backend.concurrency",
        Some("1"),
        Slot::Count(|draft| &mut draft.concurrency, 1, 64),
        "How many syncs run on the backend at once; two at once have made most objects of both fail on a \
         real backend.",
    ),
    key(
        "backend.queue",
        Some("16"),
        Slot::Count(|draft| &mut draft.queue, 0, 1000),
        "How many more syncs may wait for their turn before new ones are refused with 503.",
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
    limit(
        "limits.connect",
        "10s",
        POSITIVE,
        |draft| &mut draft.limits.connect,
        "How long a TCP connection to the backend may take to come about.",
    ),
    limit(
        "limits.probe",
        "10s",
        POSITIVE,
        |draft| &mut draft.limits.probe,
        "How long the backend may take to say what it can do before a run, all questions together; one that runs a sync may block for seconds.",
    ),
    limit(
        "limits.response_head",
        "10m",
        POSITIVE,
        |draft| &mut draft.limits.response_head,
        "How long the backend may take from a request to the head of its response, or to its greeting on /ws.",
    ),
    limit(
        "limits.accept_wait",
        "10s",
        ANY,
        |draft| &mut draft.limits.accept_wait,
        "How long a client's status line waits for the backend to accept the work.",
    ),
    limit(
        "limits.idle",
        "30m",
        POSITIVE,
        |draft| &mut draft.limits.idle,
        "How long the backend may send no event; comments and pings are none, and a stage of 73 virtual \
         machines takes 10 minutes without one.",
    ),
    limit(
        "limits.total",
        "6h",
        POSITIVE,
        |draft| &mut draft.limits.total,
        "How long one job may take from its start to its end.",
    ),
    limit(
        "limits.heartbeat",
        "15s",
        HEARTBEAT,
        |draft| &mut draft.limits.heartbeat,
        "The longest silence on a client's stream before a comment is sent; readers give up after 60 s.",
    ),
    limit(
        "limits.settle",
        "3s",
        ANY,
        |draft| &mut draft.limits.settle,
        "How long the backend must be quiet before its late frames, or its late end, are no longer waited for.",
    ),
    limit(
        "limits.capabilities",
        "5m",
        ANY,
        |draft| &mut draft.limits.capabilities,
        "How long what was learned about the backend is kept.",
    ),
    limit(
        "limits.retry_after",
        "30s",
        RETRY_AFTER,
        |draft| &mut draft.limits.retry_after,
        "After how long clients are told to try again when the backend is unreachable.",
    ),
    limit(
        "limits.client_head",
        "15s",
        POSITIVE,
        |draft| &mut draft.limits.client_head,
        "How long a client may take to send the head of its request.",
    ),
    limit(
        "limits.client_write",
        "60s",
        POSITIVE,
        |draft| &mut draft.limits.client_write,
        "How long a client may take nothing of what is sent to it before it is dropped.",
    ),
    key(
        "limits.event_bytes",
        Some("33554432"),
        Slot::Bytes(|draft| &mut draft.limits.event_bytes, 64 << 10, 1 << 30),
        "The size of the largest event that is taken from the backend, in bytes.",
    ),
    limit(
        "limits.detach_grace",
        "60s",
        ANY,
        |draft| &mut draft.limits.detach_grace,
        "How long a job without clients goes on before it is cancelled; between two tries the plugin \
         waits 16 s, or up to 60 s where Retry-After asks for it.",
    ),
    limit(
        "limits.drain",
        "30s",
        ANY,
        |draft| &mut draft.limits.drain,
        "How long running jobs may go on after the bridge was asked to stop.",
    ),
    limit(
        "limits.ledger",
        "5s",
        POSITIVE,
        |draft| &mut draft.limits.ledger,
        "How long the last frame of a job waits for its record to be on disk.",
    ),
    limit(
        "limits.replay",
        "5m",
        ANY,
        |draft| &mut draft.limits.replay,
        "How long the log of a job that has ended is kept in memory for clients that come back.",
    ),
    limit(
        "limits.log_retention",
        "7days",
        RETENTION,
        |draft| &mut draft.limits.log_retention,
        "How long the ledger keeps the last frames of a job after its end.",
    ),
    limit(
        "limits.retention",
        "90days",
        RETENTION,
        |draft| &mut draft.limits.retention,
        "How long the ledger keeps the record of a job after its end; not shorter than \
         limits.log_retention.",
    ),
    key(
        "limits.job_log_bytes",
        Some("16777216"),
        Slot::Bytes(|draft| &mut draft.limits.job_log_bytes, 64 << 10, 1 << 30),
        "The memory for the log of one job, in bytes; the oldest progress goes first, failures and the \
         end never.",
    ),
    key(
        "limits.all_logs_bytes",
        Some("67108864"),
        Slot::Bytes(|draft| &mut draft.limits.all_logs_bytes, 64 << 10, HUGE),
        "The memory for the logs of all jobs together, in bytes.",
    ),
    key(
        "limits.recording_bytes",
        Some("67108864"),
        Slot::Bytes(|draft| &mut draft.limits.recording_bytes, 64 << 10, HUGE),
        "The size of the largest recording of one job, in bytes; what comes after is left out.",
    ),
];
