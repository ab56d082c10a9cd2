//! The numbers in which a backend sums a stage up.

use serde::Deserialize;

use super::kind::Kind;
use crate::core::domain::counts::Counts;
use crate::core::upstream::lenient::LenientCount;

/// The numbers of a result, by their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// What was worked on.
    pub count: LenientCount,
    /// Records of NetBox in a list of them.
    #[serde(skip)]
    pub records: LenientCount,
    /// What was not there before.
    pub created: LenientCount,
    /// What was there and has changed.
    pub updated: LenientCount,
    /// What was not touched.
    pub skipped: LenientCount,
    /// Backups that were created, or are as they should be.
    pub reconciled: LenientCount,
    /// What failed.
    pub failed: LenientCount,
    /// The same in the stages of clusters.
    pub errors: LenientCount,
    /// The same in the stage of backups.
    pub failed_tasks: LenientCount,
    /// What was changed, skipped and failed together.
    pub total: LenientCount,
}

impl Figures {
    /// The numbers of the final event of a stage.
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

    /// The numbers of all stages in the final event of a full update.
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

/// What is kept of a backend's own result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSummary {
    /// `count`, `created`, …: the names and values of its numbers, and the lengths of its lists.
    pub numbers: Vec<(String, u64)>,
    /// The numbers of its stages, where it has some for each.
    pub stages: Vec<(String, Figures)>,
    /// The names of the records of NetBox in its lists, by the names of these.
    pub names: Vec<(String, Vec<String>)>,
    /// How many records of NetBox it is a list of, if it is one.
    pub records: Option<u64>,
    /// Objects of software-defined networks that failed, and why.
    pub failed: Vec<(String, String)>,
    /// Its objects, where another bridge has counted them.
    pub objects: Counts,
    /// Its warnings, as text.
    pub warnings: Vec<String>,
    /// Whether it called its own result degraded.
    pub degraded: bool,
}
