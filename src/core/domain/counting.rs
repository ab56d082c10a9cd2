//! Which of a backend's numbers count objects in NetBox, by kind and release.
//!
//! The same field counts objects in one stage and inspected virtual machines in another. The rules were derived from
//! the source of the published releases 0.0.2 to 0.0.30.post2.

use super::figures::Figures;
pub use super::kind::CountSource;
use super::kind::Kind;
use super::release::Release;
use crate::core::run::tally::ReportedCounts;
use crate::core::upstream::dialect::Dialect;
use crate::core::upstream::lenient::LenientCount;

/// The first release whose numbers count objects. Earlier releases count virtual machines, or files on nodes. It is
/// also the first with `discovery`, `item_progress` and `phase_summary`.
pub const COUNTS_OBJECTS: Release = Release::new(0, 0, 7);

impl CountSource {
    /// The source for the stage of `kind` in `release`. An unknown release is treated as the oldest.
    pub fn for_kind(kind: Kind, release: Option<Release>) -> Self {
        let [before, since] = kind.row().counts;
        if release.is_some_and(|release| release >= COUNTS_OBJECTS) { since } else { before }
    }

    /// Whether counting a sync of `kind` requires a known release.
    pub fn depends_on_release(kind: Kind) -> bool {
        kind == Kind::FullUpdate || Self::for_kind(kind, None) != Self::for_kind(kind, Some(COUNTS_OBJECTS))
    }

    /// Whether `count` is the number of inspected virtual machines.
    pub fn counts_machines(self) -> bool {
        matches!(self, Self::DiskRows | Self::LargestDiskRow | Self::Written | Self::ByName)
    }

    /// The counts that `figures` report.
    pub fn reported_counts(self, figures: Figures) -> ReportedCounts {
        let of = |number: LenientCount| number.0.unwrap_or_default();
        let written = match (figures.created.0, figures.updated.0) {
            (None, None) => None,
            (created, updated) => {
                Some(created.unwrap_or_default().saturating_add(updated.unwrap_or_default()))
            }
        };
        let count = figures.count.0;
        let numbers = ReportedCounts {
            records: figures.records.0,
            failed: of(figures.failed).max(of(figures.errors)).max(of(figures.failed_tasks)),
            ..ReportedCounts::default()
        };
        match self {
            Self::Count => ReportedCounts { completed: count, ..numbers },
            Self::CountOrSummary => {
                ReportedCounts { completed: count.or(written), total: of(figures.total), ..numbers }
            }
            Self::CountOfRows => ReportedCounts { completed: count, at_most_rows: true, ..numbers },
            Self::CountOfDiscovered => ReportedCounts {
                completed: count.or(written),
                total: of(figures.total),
                rest_failed: count.is_some(),
                ..numbers
            },
            // The count is zero and its list empty, whatever was done.
            Self::RestOfDiscovered => {
                let listed = figures.records.0.or(count).filter(|listed| *listed > 0);
                ReportedCounts { records: None, written: listed, skipped: figures.skipped.0, ..numbers }
            }
            Self::Reconciled => ReportedCounts { completed: figures.reconciled.0.or(count), ..numbers },
            Self::Written => ReportedCounts { completed: written, ..numbers },
            Self::Changed => ReportedCounts { written, ..numbers },
            Self::OncePerNode | Self::ByName => {
                let number = figures.reconciled.0.or(written).or(count).filter(|number| *number == 0);
                ReportedCounts { completed: number, ..numbers }
            }
            // These numbers count virtual machines.
            Self::DiskRows | Self::LargestDiskRow => {
                ReportedCounts { completed: count.filter(|count| *count == 0), ..numbers }
            }
            Self::Failures => numbers,
            Self::Nothing => ReportedCounts::default(),
        }
    }
}

impl CountSource {
    /// What counts as completed, and what stays unconfirmed and why, as the subcommand `counts` prints it.
    pub const fn explain(self) -> (&'static str, &'static str) {
        match self {
            Self::Count => ("`count` of the stage", "objects with a row beyond that number"),
            Self::CountOrSummary => {
                ("`count` of the stage, or what its summary created", "objects with a row beyond that number")
            }
            Self::CountOfRows => {
                ("`count` of the stage, and no more than have rows", "objects with a row beyond that number")
            }
            Self::CountOfDiscovered => (
                "`count` of the stage, or what its summary created",
                "nothing: what was discovered and is not in `count` has failed",
            ),
            Self::RestOfDiscovered => (
                "what was discovered, without what failed and what was skipped; `count` is always 0",
                "what was skipped: NetBox does not know its cluster yet",
            ),
            Self::DiskRows => (
                "the disks that rows report as created or updated; the numbers count virtual machines",
                "disks that did not change, and disks that failed one by one: no rows report either",
            ),
            Self::LargestDiskRow => (
                "the most disks that one virtual machine has; the numbers count virtual machines",
                "all others: a disk is looked up by its name alone, and taken from another virtual machine",
            ),
            Self::Reconciled => {
                ("`reconciled`, or `count`", "nothing: `Found N` counts a file once for each node")
            }
            Self::Written => (
                "`created` and `updated`; `count` is of virtual machines",
                "snapshots that were found and not written",
            ),
            Self::Changed => ("`created` and `updated`", "records that did not change"),
            Self::OncePerNode => (
                "the records in the result of a full update; of a single stage, nothing",
                "all others: the numbers count a backup once for each node that sees it",
            ),
            Self::ByName => (
                "nothing",
                "all: a snapshot is looked up by its name alone, and taken from another virtual machine",
            ),
            Self::Failures => ("not counted; only failures are", "–"),
            Self::Nothing => ("not counted", "–"),
        }
    }

    /// The same for the rows of `/ws`, which has no numbers.
    pub const fn explain_socket(dialect: Dialect) -> (&'static str, &'static str) {
        match dialect {
            Dialect::V0_0_1 => (
                "virtual machines that a row confirms",
                "devices, which no row confirms; the first virtual machine that fails ends the run",
            ),
            Dialect::V0_0_2 => (
                "virtual machines that a row confirms",
                "devices, which no row confirms, and virtual machines that the backend lists and never reports; one that \
                 is not confirmed before the end of the stage means that at least one has failed",
            ),
            Dialect::V0_0_3 => {
                ("devices that a row confirms", "virtual machines: rows only report that they were begun")
            }
            _ => (
                "devices that a row confirms, and since 0.0.5 virtual machines with a warning",
                "all other virtual machines: rows only report that they were begun",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_release_is_believed_no_more_than_the_oldest() {
        let oldest = Some(Release::new(0, 0, 3));
        for kind in Kind::all() {
            assert_eq!(CountSource::for_kind(kind, None), CountSource::for_kind(kind, oldest), "{kind}");
        }
        assert!(
            CountSource::depends_on_release(Kind::Storage) && !CountSource::depends_on_release(Kind::Devices)
        );
    }

    #[test]
    fn numbers_of_virtual_machines_are_none_of_disks() {
        let number = |number| LenientCount(Some(number));
        let figures = Figures { count: number(12), updated: number(12), ..Figures::default() };
        for release in [None, Some(COUNTS_OBJECTS)] {
            let numbers = CountSource::for_kind(Kind::VirtualDisks, release).reported_counts(figures);
            assert_eq!(numbers, ReportedCounts::default());
        }
    }

    #[test]
    fn what_is_believed_changes_with_the_release() {
        for (kind, before, since) in [
            (Kind::VirtualMachines, CountSource::CountOfRows, CountSource::CountOfDiscovered),
            (Kind::Storage, CountSource::Count, CountSource::RestOfDiscovered),
            (Kind::VirtualDisks, CountSource::LargestDiskRow, CountSource::DiskRows),
            (Kind::Backups, CountSource::OncePerNode, CountSource::Reconciled),
            (Kind::Snapshots, CountSource::ByName, CountSource::Written),
        ] {
            assert_eq!(CountSource::for_kind(kind, Some(Release::new(0, 0, 6).post(4))), before, "{kind}");
            assert_eq!(CountSource::for_kind(kind, Some(COUNTS_OBJECTS)), since, "{kind}");
            let counts_machines = matches!(kind, Kind::VirtualDisks | Kind::Snapshots);
            assert_eq!([before, since].map(CountSource::counts_machines), [counts_machines; 2], "{kind}");
        }
    }

    #[test]
    fn the_total_of_a_stage_is_what_was_seen_and_a_list_of_storages_is_no_count() {
        let figures =
            Figures { count: LenientCount(Some(3)), total: LenientCount(Some(5)), ..Figures::default() };
        for counting in [CountSource::CountOrSummary, CountSource::CountOfDiscovered] {
            assert_eq!(counting.reported_counts(figures).total, 5, "{counting:?}");
        }
        let listed =
            Figures { records: LenientCount(Some(3)), skipped: LenientCount(Some(1)), ..Figures::default() };
        let numbers = CountSource::RestOfDiscovered.reported_counts(listed);
        assert_eq!((numbers.records, numbers.written, numbers.skipped), (None, Some(3), Some(1)));
    }
}
