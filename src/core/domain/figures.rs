//! The numbers in which a backend sums a stage up.

use serde::Deserialize;

use super::kind::Kind;
use crate::core::run::tally::Counts;
use crate::core::upstream::lenient::Number;

/// The numbers of a result, by their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// What was worked on.
    pub count: Number,
    /// Records of NetBox in a list of them.
    #[serde(skip)]
    pub records: Number,
    /// What was not there before.
    pub created: Number,
    /// What was there and has changed.
    pub updated: Number,
    /// What was not touched.
    pub skipped: Number,
    /// Backups that were created, or are as they should be.
    pub reconciled: Number,
    /// What failed.
    pub failed: Number,
    /// The same in the stages of clusters.
    pub errors: Number,
    /// The same in the stage of backups.
    pub failed_tasks: Number,
    /// What was changed, skipped and failed together.
    pub total: Number,
}

impl Figures {
    /// The numbers of the final event of a stage.
    pub fn of(told: &Told) -> Self {
        let number = |wanted: &str| {
            Number(told.numbers.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value))
        };
        let errors = number("errors").0.or(number("errors_count").0);
        Self {
            count: number("count"),
            records: Number(told.records),
            created: number("created"),
            updated: number("updated"),
            skipped: number("skipped"),
            reconciled: number("reconciled"),
            failed: number("failed"),
            errors: Number(errors),
            failed_tasks: number("failed_tasks"),
            total: number("total"),
        }
    }

    /// The numbers of all stages in the final event of a full update.
    pub fn of_stages(told: &Told) -> impl Iterator<Item = (Kind, Self)> {
        let counts = told.numbers.iter().filter_map(|(name, value)| {
            let figures = Self { count: Number(Some(*value)), ..Self::default() };
            Some((Kind::of_field(name.strip_suffix("_count")?)?, figures))
        });
        counts.chain(told.stages.iter().filter_map(|(name, figures)| Some((Kind::of_field(name)?, *figures))))
    }
}

/// What is kept of a backend's own result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
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
