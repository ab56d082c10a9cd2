//! The table of keys: the one place that says what can be configured.

use std::time::Duration;

use super::backend::Unsupported;
use super::draft::Draft;
use super::flags;
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

static TABLE: [Key; 21] = [
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
        "The address of the admin listener, which answers /livez and /metrics.",
    ),
    key(
        "data_dir",
        None,
        Slot::Path(|draft| &mut draft.data_dir),
        "The directory for the record of jobs, made if it is missing. This version keeps no record yet.",
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
];
