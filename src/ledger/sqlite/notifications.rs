//! The queue of notifications, and the problems that targets know of.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::rows::{self, RowError};
use crate::core::domain::kind::{FULL_UPDATE, Kind};
use crate::core::domain::notification::NotificationEvent;
use crate::core::domain::outcome::{Cause, Outcome};
use crate::ledger::damage::DamagedRows;
use crate::ledger::notification::{
    MAX_AGE, MAX_QUEUED, NotificationRule, QueuedNotification, ResolvedProblem,
};
use crate::ledger::retention::milliseconds;
use crate::ledger::{Record, Timestamp};
use crate::telemetry::{NotificationDropReason, NotificationsDropped};

/// The end of a job, as far as notifications depend on it.
pub(super) struct EndedJob<'a> {
    pub(super) id: &'a str,
    pub(super) backend: &'a str,
    pub(super) kind: &'a str,
    /// 0 for all virtual machines.
    pub(super) vm: i64,
    /// Whether a run has started. A skipped sync completes without one.
    pub(super) has_started: bool,
    /// When it ended.
    pub(super) at: i64,
    pub(super) outcome: Outcome,
    pub(super) cause: Option<Cause>,
    pub(super) failed: u64,
}

/// The current times.
#[derive(Clone, Copy)]
pub(super) struct Now {
    /// The ledger's time.
    pub(super) ledger: i64,
    /// The wall clock.
    pub(super) wall: i64,
}

/// A notification to be queued.
struct NewNotification<'a> {
    target: &'a str,
    id: String,
    event: NotificationEvent,
    backend: &'a str,
    kind: &'a str,
    vm: i64,
    at: i64,
    since: Option<i64>,
    resolved: Vec<ResolvedProblem>,
    job: Option<&'a str>,
}

/// Queues the notifications of the end that `record` has, unless the ledger has that end already. It must run before
/// the record is written. `now` is the ledger's time. Returns whether it queued any.
pub(super) fn record_ended(
    transaction: &Transaction<'_>,
    rules: &[NotificationRule],
    record: &Record,
    now: i64,
) -> rusqlite::Result<bool> {
    let Some(end) = record.end.as_ref().filter(|_| !rules.is_empty()) else { return Ok(false) };
    let (id, backend) = (record.id.to_string(), record.backend.to_string());
    let known: Option<Option<String>> = transaction
        .query_row("SELECT outcome FROM jobs WHERE id = ?1", [&id], |row| row.get(0))
        .optional()?;
    if known.flatten().as_deref() == Some(end.outcome.as_str()) {
        return Ok(false);
    }
    let job = EndedJob {
        id: &id,
        backend: &backend,
        kind: record.kind.as_str(),
        vm: record.vm.map_or(0, rows::sequence),
        has_started: record.started.is_some(),
        at: end.finished.to_i64(),
        outcome: end.outcome,
        cause: end.cause,
        failed: record.progress.counts.total().failed,
    };
    job_ended(transaction, rules, &job, now)
}

/// Queues the notifications of the end of `job`. `now` is the ledger's time. Returns whether it queued any.
pub(super) fn job_ended(
    transaction: &Transaction<'_>,
    rules: &[NotificationRule],
    job: &EndedJob<'_>,
    now: i64,
) -> rusqlite::Result<bool> {
    let EndedJob { id, backend, kind, vm, has_started, at, outcome, cause, failed } = *job;
    let mut is_queued = false;
    for rule in rules.iter().filter(|rule| rule.matches(backend, kind)) {
        let problem =
            NotificationEvent::problems(outcome, cause, failed).find(|problem| rule.events.contains(problem));
        let mut resolved = Vec::new();
        if outcome == Outcome::Completed && has_started {
            resolved = resolve(transaction, &rule.target, job)?;
        }
        if !rule.events.contains(&NotificationEvent::Recovered) {
            resolved.clear();
        }
        let (event, since) = match problem {
            Some(problem) => (problem, Some(raise(transaction, &rule.target, job, problem)?)),
            None if !resolved.is_empty() => (NotificationEvent::Recovered, None),
            None => continue,
        };
        let target = rule.target.as_str();
        let id_of_notification = format!("{id}_{event}");
        let new = NewNotification {
            target,
            id: id_of_notification,
            event,
            backend,
            kind,
            vm,
            at,
            since,
            resolved,
            job: Some(id),
        };
        queue(transaction, new, now)?;
        is_queued = true;
    }
    Ok(is_queued)
}

/// Removes the problems that the completed run `job` resolves, and returns those that the target was notified of. A
/// run of all virtual machines resolves the problems of single ones. One with failed objects does not resolve failed
/// objects.
fn resolve(
    transaction: &Transaction<'_>,
    target: &str,
    job: &EndedJob<'_>,
) -> rusqlite::Result<Vec<ResolvedProblem>> {
    let mut statement = transaction.prepare(
        "DELETE FROM notification_problems
            WHERE target = ?1 AND backend = ?2 AND kind = ?3 AND (vm = ?4 OR ?4 = 0)
                AND (event <> 'objects_failed' OR ?5 = 0)
            RETURNING event, vm, since, notified",
    )?;
    let failed = job.failed > 0;
    let rows = statement.query_map(params![target, job.backend, job.kind, job.vm, failed], |row| {
        let problem = ResolvedProblem {
            event: row.get(0)?,
            vm: vm(row.get(1)?),
            since: row.get::<_, i64>(2)?.unsigned_abs(),
        };
        Ok((problem, row.get::<_, bool>(3)?))
    })?;
    let all: Vec<(ResolvedProblem, bool)> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(all.into_iter().filter(|(_, notified)| *notified).map(|(problem, _)| problem).collect())
}

/// Notes that the target knows of `problem`. Returns when that began.
fn raise(
    transaction: &Transaction<'_>,
    target: &str,
    job: &EndedJob<'_>,
    problem: NotificationEvent,
) -> rusqlite::Result<i64> {
    transaction.query_row(
        "INSERT INTO notification_problems (target, backend, kind, vm, event, since, notified)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1)
            ON CONFLICT DO UPDATE SET notified = 1 RETURNING since",
        params![target, job.backend, job.kind, job.vm, problem.as_str(), job.at],
        |row| row.get(0),
    )
}

/// Queues a notification at the ledger's time `now`, and drops the oldest ones of its target beyond [`MAX_QUEUED`].
fn queue(transaction: &Transaction<'_>, new: NewNotification<'_>, now: i64) -> rusqlite::Result<()> {
    let NewNotification { target, id, event, backend, kind, vm, at, since, resolved, job } = new;
    let resolved = serde_json::to_string(&resolved)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    transaction.execute(
        "INSERT OR IGNORE INTO notifications
            (target, id, event, backend, kind, vm, at, since, resolved, job, queued)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![target, id, event.as_str(), backend, kind, vm, at, since, resolved, job, now],
    )?;
    let dropped = transaction.execute(
        "DELETE FROM notifications WHERE target = ?1 AND number <=
            (SELECT number FROM notifications WHERE target = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
        params![target, i64::try_from(MAX_QUEUED).unwrap_or(i64::MAX)],
    )?;
    NotificationsDropped { target, count: dropped, reason: NotificationDropReason::Queue }.emit();
    Ok(())
}

/// Queues the notifications of syncs that have not completed for too long, drops expired ones and those of targets
/// without a rule, and reads the first notification of each target, without the records of their jobs.
pub(super) fn first_of_each(
    connection: &mut Connection,
    rules: &[NotificationRule],
    now: Now,
    damage: &mut DamagedRows,
) -> Result<Vec<QueuedNotification>, RowError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    drop_orphans(&transaction, rules)?;
    let expired = now.ledger.saturating_sub(milliseconds(MAX_AGE));
    let mut first = Vec::new();
    for rule in rules {
        let target = rule.target.as_str();
        queue_stale(&transaction, rule, now)?;
        let sql = "DELETE FROM notifications WHERE target = ?1 AND queued < ?2";
        let count = transaction.execute(sql, params![target, expired])?;
        NotificationsDropped { target, count, reason: NotificationDropReason::Age }.emit();
        first.extend(next(&transaction, target, damage)?);
    }
    transaction.commit()?;
    Ok(first)
}

fn drop_orphans(transaction: &Transaction<'_>, rules: &[NotificationRule]) -> rusqlite::Result<()> {
    let targets: Vec<String> = {
        let mut statement = transaction
            .prepare("SELECT target FROM notifications UNION SELECT target FROM notification_problems")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    for target in targets.iter().filter(|target| rules.iter().all(|rule| rule.target != **target)) {
        transaction.execute("DELETE FROM notification_problems WHERE target = ?1", [target])?;
        let count = transaction.execute("DELETE FROM notifications WHERE target = ?1", [target])?;
        NotificationsDropped { target, count, reason: NotificationDropReason::Removed }.emit();
    }
    Ok(())
}

/// Queues notifications of the kinds that have not completed on a backend for as long as the rule allows. A kind
/// without a completed run is watched only if the rule names it, from now on, and in the ledger's time. A rule that
/// names no kinds does not watch the stages of a full update while full updates complete.
fn queue_stale(transaction: &Transaction<'_>, rule: &NotificationRule, now: Now) -> rusqlite::Result<()> {
    let Some(limit) = rule.stale_after else { return Ok(()) };
    let stale = NotificationEvent::Stale.as_str();
    let mut last = transaction.prepare("SELECT at FROM last_success WHERE backend = ?1 AND kind = ?2")?;
    let mut last_success = |backend: &str, kind: Kind| {
        last.query_row([backend, kind.as_str()], |row| row.get::<_, i64>(0)).optional()
    };
    let is_overdue = |since: i64, now: i64| now.saturating_sub(since) >= milliseconds(limit);
    let mut watched = transaction.prepare(
        "SELECT since, notified FROM notification_problems
            WHERE target = ?1 AND backend = ?2 AND kind = ?3 AND vm = 0 AND event = ?4",
    )?;
    let mut watch = transaction.prepare(
        "INSERT OR REPLACE INTO notification_problems (target, backend, kind, vm, event, since, notified)
            VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6)",
    )?;
    let pairs = rule.backends.iter().flat_map(|backend| Kind::all().map(move |kind| (backend, kind)));
    for (backend, kind) in pairs {
        let (target, backend) = (rule.target.as_str(), backend.to_string());
        if !rule.matches(&backend, kind.as_str()) {
            continue;
        }
        let is_stage = rule.kinds.is_empty() && FULL_UPDATE.contains(&kind);
        if is_stage && last_success(&backend, Kind::FullUpdate)?.is_some_and(|at| !is_overdue(at, now.wall)) {
            continue;
        }
        let (success, kind) = (last_success(&backend, kind)?, kind.as_str());
        let known: Option<(i64, bool)> = watched
            .query_row([target, &*backend, kind, stale], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let is_reported = match (success, known) {
            (_, Some((_, true))) => false,
            (Some(at), _) => is_overdue(at, now.wall),
            (None, Some((since, false))) => is_overdue(since, now.ledger),
            (None, None) => {
                if !rule.kinds.is_empty() {
                    watch.execute(params![target, backend, kind, stale, now.ledger, false])?;
                }
                false
            }
        };
        if !is_reported {
            continue;
        }
        watch.execute(params![target, backend, kind, stale, now.wall, true])?;
        let new = NewNotification {
            target,
            id: format!("{}_{stale}", Uuid::now_v7()),
            event: NotificationEvent::Stale,
            backend: &backend,
            kind,
            vm: 0,
            at: now.wall,
            since: success,
            resolved: Vec::new(),
            job: None,
        };
        queue(transaction, new, now.ledger)?;
    }
    Ok(())
}

/// Reads the first readable notification for `target`. Unreadable ones are removed.
fn next(
    transaction: &Transaction<'_>,
    target: &str,
    damage: &mut DamagedRows,
) -> Result<Option<QueuedNotification>, RowError> {
    let mut statement = transaction.prepare(
        "SELECT number, target, id, event, backend, kind, vm, at, since, resolved, job, attempts FROM notifications
            WHERE target = ?1 ORDER BY number LIMIT 1",
    )?;
    loop {
        let mut rows = statement.query([target])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let number: i64 = row.get(0)?;
        let problem = match read(row) {
            Ok(queued) => return Ok(Some(queued)),
            Err(problem) => problem,
        };
        damage.report(&format!("notification {number}: {problem}"));
        transaction.execute("DELETE FROM notifications WHERE number = ?1", [number])?;
        NotificationsDropped { target, count: 1, reason: NotificationDropReason::Damaged }.emit();
    }
}

fn read(row: &Row<'_>) -> Result<QueuedNotification, String> {
    let event = rows::column::<String>(row, "event")?;
    let job = rows::column::<Option<String>>(row, "job")?;
    Ok(QueuedNotification {
        target: rows::column(row, "target")?,
        id: rows::column(row, "id")?,
        event: rows::parse_name(&event, "event", NotificationEvent::from_name)?,
        backend: rows::column(row, "backend")?,
        kind: rows::column(row, "kind")?,
        vm: vm(rows::column(row, "vm")?),
        at: Timestamp::from_i64(rows::column(row, "at")?),
        since: rows::column::<Option<i64>>(row, "since")?.map(Timestamp::from_i64),
        resolved: rows::parsed(row, "resolved")?,
        job: job.map(|job| job.parse()).transpose().map_err(|_| "job: not an id".to_owned())?,
        record: None,
        attempts: rows::column(row, "attempts")?,
    })
}

fn vm(stored: i64) -> Option<u64> {
    (stored > 0).then_some(stored.unsigned_abs())
}

/// Removes a notification that its target has, or never accepts.
pub(super) fn remove(connection: &Connection, target: &str, id: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM notifications WHERE target = ?1 AND id = ?2";
    connection.execute(sql, [target, id]).map(drop)
}

/// Counts an attempt to send a notification.
pub(super) fn count_attempt(connection: &Connection, target: &str, id: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE notifications SET attempts = attempts + 1 WHERE target = ?1 AND id = ?2";
    connection.execute(sql, [target, id]).map(drop)
}
