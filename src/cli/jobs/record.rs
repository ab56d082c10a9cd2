//! What is read of a job of the API.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::core::domain::counts::Count;

/// A job, with its log if it was read alone. Missing fields are those of another release.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobRecord {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) vm: Option<u64>,
    pub(super) status: String,
    pub(super) outcome: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) source: Option<String>,
    pub(super) created: String,
    pub(super) started: Option<String>,
    pub(super) completed: Option<String>,
    pub(super) duration_seconds: Option<f64>,
    pub(super) user: Option<String>,
    pub(super) who: Requester,
    pub(super) cancelled_by: Option<String>,
    /// The URL of the backend.
    pub(super) backend: String,
    pub(super) backend_name: Option<String>,
    pub(super) channels: Vec<String>,
    pub(super) dialect: Option<String>,
    pub(super) query: String,
    pub(super) data: JobData,
    pub(super) failed_total: u64,
    pub(super) failed_left_out: u64,
    pub(super) unconfirmed_total: u64,
    pub(super) step: Option<String>,
    pub(super) message: Option<String>,
    pub(super) error: String,
    pub(super) log_entries: Vec<LogEntry>,
}

/// The client that requested a job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Requester {
    pub(super) address: Option<String>,
}

/// The objects of a job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobData {
    pub(super) counts: Counts,
}

/// The counts by object type, in the order of the API.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(pub(super) Vec<(String, Count)>);

/// A line of the log.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LogEntry {
    pub(super) timestamp: String,
    pub(super) level: String,
    pub(super) message: String,
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountsVisitor;
        impl<'de> serde::de::Visitor<'de> for CountsVisitor {
            type Value = Counts;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("counts by object type")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Counts, A::Error> {
                let mut counts = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    counts.push(entry);
                }
                Ok(Counts(counts))
            }
        }
        deserializer.deserialize_map(CountsVisitor)
    }
}

impl JobRecord {
    /// The outcome, or the status of a job that has not ended.
    pub(super) fn state(&self) -> &str {
        self.outcome.as_deref().unwrap_or(&self.status)
    }

    /// The kind, with the virtual machine.
    pub(super) fn sync(&self) -> String {
        match self.vm {
            None => self.kind.clone(),
            Some(vm) => format!("{} of VM {vm}", self.kind),
        }
    }

    /// The name of the backend, or its URL if no configured backend has that.
    pub(super) fn backend(&self) -> &str {
        self.backend_name.as_ref().unwrap_or(&self.backend)
    }

    /// The sum of the counts of all object types.
    pub(super) fn total(&self) -> Count {
        let add = |sum: Count, (_, count): &(String, Count)| sum.merge(*count, u64::saturating_add);
        self.data.counts.0.iter().fold(Count::default(), add)
    }

    /// How long it took, or has taken until `now`. Empty before it starts.
    pub(super) fn duration(&self, now: SystemTime) -> String {
        let started = self.started.as_deref().and_then(|started| humantime::parse_rfc3339(started).ok());
        let runs = || now.duration_since(started?).ok();
        let taken = self.duration_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match taken.or_else(|| runs().filter(|_| self.completed.is_none())) {
            None => String::new(),
            Some(time) if time < Duration::from_secs(10) => format!("{:.1}s", time.as_secs_f64()),
            Some(time) => humantime::format_duration(Duration::from_secs(time.as_secs())).to_string(),
        }
    }
}

/// A time of the API to the second, without the `T` and the `Z` of RFC 3339.
pub(super) fn readable_time(time: &str) -> String {
    time.get(..19).unwrap_or(time).replace('T', " ")
}
