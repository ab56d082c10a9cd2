//! Tables that fit the terminal.

use std::io::IsTerminal;
use std::time::SystemTime;

use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets};
use terminal_size::{Height, Width, terminal_size};

use super::record::{JobRecord, readable_time};
use crate::core::domain::outcome::Outcome;
use crate::core::text::printable;
use crate::telemetry::log::allows_color;

/// The width of the output where there is no terminal.
const DEFAULT_WIDTH: u16 = 80;
/// The width from which on there is room for the users of jobs, and for two spaces between columns.
const WIDE: u16 = 100;
/// The width below which the columns that are needed least are left out.
const NARROW: u16 = 60;
/// The lengths of abbreviated ids. The first has the time in milliseconds.
const ID_LENGTHS: [usize; 3] = [13, 18, 36];
/// The part of a time from the month to the minute.
const MINUTES: std::ops::Range<usize> = "2026-".len().."2026-11-24 15:16".len();
/// The maximum number of lines of a row.
const MAX_ROW_LINES: usize = 3;

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The columns and lines of the terminal. Without one, the columns are those of the variable `COLUMNS`.
pub(super) fn size() -> (u16, Option<u16>) {
    match terminal_size().filter(|_| is_terminal()) {
        Some((Width(columns), Height(lines))) => (columns.max(1), Some(lines)),
        None => {
            let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
            (columns.filter(|columns| *columns > 0).unwrap_or(DEFAULT_WIDTH), None)
        }
    }
}

/// Whether colours are shown.
pub(super) fn is_coloured() -> bool {
    is_terminal() && allows_color()
}

/// An empty table.
pub(super) fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(size().0);
    table.set_truncation_indicator("…");
    table.force_no_tty();
    if is_coloured() {
        table.enforce_styling();
    }
    table
}

/// A table with a header.
pub(super) fn with_header<const N: usize>(header: [&str; N]) -> Table {
    let mut table = table();
    table.set_header(header.map(|name| Cell::new(name).add_attribute(comfy_table::Attribute::Bold)));
    table
}

/// A cell with a text of any origin.
pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(printable(text.as_ref()))
}

/// The text of `table`, with one space between its columns, or two where there is room.
pub(super) fn text(mut table: Table) -> String {
    let spaces = if size().0 < WIDE { 1 } else { 2 };
    for column in table.column_iter_mut() {
        column.set_padding((0, spaces));
    }
    table.trim_fmt()
}

/// Adds a row of limited height.
pub(super) fn add_row(table: &mut Table, cells: Vec<Cell>) {
    let mut row = comfy_table::Row::from(cells);
    row.max_height(MAX_ROW_LINES);
    table.add_row(row);
}

/// A cell with a number.
pub(super) fn number(number: u64) -> Cell {
    Cell::new(number).set_alignment(CellAlignment::Right)
}

/// A cell with a number that is of interest if it is not zero.
pub(super) fn problem(count: u64, color: Color) -> Cell {
    if count == 0 { number(count) } else { number(count).fg(color) }
}

/// The colour of a state: an outcome, or the status of a job that has not ended.
pub(super) fn state_color(state: &str) -> Color {
    match Outcome::from_name(state) {
        Some(Outcome::Completed) => Color::Green,
        Some(Outcome::Cancelled) => Color::Yellow,
        Some(_) => Color::Red,
        None => Color::Cyan,
    }
}

/// A table of jobs.
pub(super) fn jobs(jobs: &[JobRecord]) -> Table {
    let mut table = with_header([
        "Job", "Created UTC", "Sync", "Backend", "State", "Time", "Objects", "Failed", "Unconf.", "By",
    ]);
    let now = SystemTime::now();
    let length = id_length(jobs);
    for job in jobs {
        let total = job.total();
        let cells = vec![
            cell(job.id.get(..length).unwrap_or(&job.id)),
            cell(readable_time(&job.created).get(MINUTES).unwrap_or_default()),
            cell(job.sync()),
            cell(job.backend()),
            cell(job.state()).fg(state_color(job.state())),
            cell(job.duration(now)).set_alignment(CellAlignment::Right),
            cell(format!("{}/{}", total.completed, total.seen)).set_alignment(CellAlignment::Right),
            problem(job.failed_total, Color::Red),
            problem(job.unconfirmed_total, Color::Yellow),
            cell(job.user.as_deref().unwrap_or_default()),
        ];
        add_row(&mut table, cells);
    }
    // Columns that tell the jobs apart.
    let width = size().0;
    for (column, is_hidden) in [
        (1, width < NARROW),
        (3, width < NARROW || jobs.windows(2).all(|pair| pair[0].backend == pair[1].backend)),
        (5, width < NARROW),
        (6, width < NARROW),
        (7, jobs.iter().all(|job| job.failed_total == 0)),
        (8, width < NARROW || jobs.iter().all(|job| job.unconfirmed_total == 0)),
        (9, width < WIDE || jobs.iter().all(|job| job.user.is_none())),
    ] {
        if let Some(column) = table.column_mut(column).filter(|_| is_hidden) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    // Id, sync and state.
    keep_width(&mut table, &[0, 2, 4]);
    table
}

/// Keeps the text of these columns on one line.
pub(super) fn keep_width(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// The shortest length to which the ids of `jobs` can be abbreviated.
fn id_length(jobs: &[JobRecord]) -> usize {
    let is_unique = |length: &usize| {
        let starts: std::collections::HashSet<_> = jobs.iter().map(|job| job.id.get(..*length)).collect();
        starts.len() == jobs.len()
    };
    ID_LENGTHS.into_iter().find(is_unique).unwrap_or(ID_LENGTHS[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str, user: &str) -> JobRecord {
        JobRecord { id: id.to_owned(), user: Some(user.to_owned()), ..JobRecord::default() }
    }

    #[test]
    fn an_id_is_as_short_as_it_can_be_among_the_others() {
        let ids = |ids: &[&str]| id_length(&ids.iter().map(|id| job(id, "")).collect::<Vec<_>>());
        assert_eq!(
            ids(&["01a20e86-676a-70b0-bcac-38ad1a19ea06", "01a20e86-6bd0-718b-853d-8dc30412f80f"]),
            13
        );
        assert_eq!(
            ids(&["01a20e86-676a-70b0-bcac-38ad1a19ea06", "01a20e86-676a-718b-853d-8dc30412f80f"]),
            18
        );
        assert_eq!(
            ids(&["01a20e86-676a-70b0-bcac-38ad1a19ea06", "01a20e86-676a-70b0-853d-8dc30412f80f"]),
            36
        );
    }

    #[test]
    fn no_character_of_a_name_controls_the_terminal() {
        let mut named = job("01a20e86-676a", "");
        named.kind = "an\u{1b}[2Jna\u{9b}31m\u{202e}\r".to_owned();
        let table = text(jobs(&[named]));
        assert!(!table.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\r']), "{table:?}");
        assert!(table.contains("an [2Jna 31m"), "{table:?}");
    }
}
