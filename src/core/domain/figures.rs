//! The numbers in a backend's summary of a stage.

use serde::Deserialize;

use super::kind::Kind;
use crate::core::domain::counts::Counts;
use crate::core::upstream::lenient::LenientCount;

/// The numbers of a result, by field name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Objects that were processed.
    pub count: LenientCount,
    /// NetBox records in the result's list.
    #[serde(skip)]
    pub records: LenientCount,
    /// Objects that are new.
    pub created: LenientCount,
    /// Objects that existed and have changed.
    pub updated: LenientCount,
    /// Objects that were not touched.
    pub skipped: LenientCount,
    /// Backups that were created or are already correct.
    pub reconciled: LenientCount,
    /// Objects that failed.
    pub failed: LenientCount,
    /// Objects that failed, in the stages of clusters.
    pub errors: LenientCount,
    /// Objects that failed, in the stage of backups.
    pub failed_tasks: LenientCount,
    /// The sum of changed, skipped and failed objects.
    pub total: LenientCount,
}

impl Figures {
    /// The numbers in the final event of a stage.
    pub fn from_summary(summary: &ResultSummary) -> Self {
        let number = |key: &str| {
            LenientCount(summary.numbers.iter().find(|(name, _)| name == key).map(|(_, value)| *value))
        };
        let errors = number("errors").0.or(number("errors_count").0);
        Self {
            count: number("count"),
            records: LenientCount(summary.records),
            created: number("created"),
            updated: number("updated"),
            skipped: number("skipped"),
            reconciled: number("reconciled"),
            failed: number("failed"),
            errors: LenientCount(errors),
            failed_tasks: number("failed_tasks"),
            total: number("total"),
        }
    }

    /// The numbers per stage in the final event of a full update.
    pub fn by_stage(summary: &ResultSummary) -> impl Iterator<Item = (Kind, Self)> {
        let counts = summary.numbers.iter().filter_map(|(name, value)| {
            let figures = Self { count: LenientCount(Some(*value)), ..Self::default() };
            Some((Kind::of_field(name.strip_suffix("_count")?)?, figures))
        });
        counts.chain(
            summary.stages.iter().filter_map(|(name, figures)| Some((Kind::of_field(name)?, *figures))),
        )
    }
}

/// The summary of a backend's own result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSummary {
    /// `count`, `created`, …: the names and values of its numbers, and the lengths of its lists.
    pub numbers: Vec<(String, u64)>,
    /// The numbers per stage, if any.
    pub stages: Vec<(String, Figures)>,
    /// The names of the NetBox records in its lists, by the name of the list.
    pub names: Vec<(String, Vec<String>)>,
    /// The number of NetBox records, if the result is a list of them.
    pub records: Option<u64>,
    /// Failed SDN objects with their errors.
    pub failed: Vec<(String, String)>,
    /// The object counts of another bridge, if one is in between.
    pub objects: Counts,
    /// The warnings, as text.
    pub warnings: Vec<String>,
    /// Whether the backend called its result degraded.
    pub degraded: bool,
}
