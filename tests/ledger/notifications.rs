//! The queue of notifications.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use proxbox_bridge::core::domain::counts::{Count, Counts};
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::notification::NotificationEvent;
use proxbox_bridge::core::domain::object::Object;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::ledger::{
    JobEnd, JobUpdate, Ledger, LedgerOptions, MAX_AGE, MAX_QUEUED, NotificationRule, Record, Timestamp,
};

use super::age::{NOW, SteppedClock};
use super::{DAY, HOUR, folder, options, put};

const BACKEND: &str = "http://default";

use NotificationEvent::{Failed, Interrupted, ObjectsFailed, Recovered, Stale};

fn rule(target: &str, events: &[NotificationEvent]) -> NotificationRule {
    NotificationRule {
        target: target.to_owned(),
        events: events.to_vec(),
        kinds: Vec::new(),
        backends: vec![BACKEND.parse().unwrap()],
        stale_after: None,
    }
}

async fn opened(
    directory: Option<&Path>,
    rules: Vec<NotificationRule>,
    clock: &Arc<SteppedClock>,
) -> Arc<Ledger> {
    let directory = directory.map(Path::to_owned);
    let (clock, notifications) = (clock.clone(), rules);
    Ledger::open(LedgerOptions { directory, clock, notifications, ..options(Path::new("")) }).await.unwrap()
}

async fn in_memory(rules: Vec<NotificationRule>) -> Arc<Ledger> {
    opened(None, rules, &SteppedClock::at(NOW)).await
}

fn running(kind: Kind) -> Record {
    Record::new(BACKEND.parse().unwrap(), kind, NOW)
}

/// The record of a job that ended with `cause`, with this number of failed objects.
fn ended(kind: Kind, cause: Option<Cause>, failed: u64) -> Record {
    let outcome = cause.map_or(Outcome::Completed, Cause::outcome);
    let end = JobEnd { finished: NOW, outcome, cause, failure: None, failed_objects: Vec::new() };
    let mut record = Record { started: Some(NOW), end: Some(end), ..running(kind) };
    let count = Count { seen: 9, completed: 9 - failed, failed, unconfirmed: 0 };
    record.progress.counts = Counts(vec![(Object::Device, count)]);
    record
}

async fn end(ledger: &Ledger, kind: Kind, cause: Option<Cause>, failed: u64) -> Record {
    let record = ended(kind, cause, failed);
    put(ledger, &record, Vec::new()).await;
    record
}

/// The same for a job that completed at `at`.
async fn complete(ledger: &Ledger, kind: Kind, failed: u64, at: Timestamp) {
    let mut record = ended(kind, None, failed);
    record.end.as_mut().unwrap().finished = at;
    put(ledger, &record, Vec::new()).await;
}

/// A sync that was skipped completes without a run.
async fn skip(ledger: &Ledger, kind: Kind) {
    put(ledger, &Record { started: None, ..ended(kind, None, 0) }, Vec::new()).await;
}

/// Takes all queued notifications, target by target.
async fn taken(ledger: &Ledger) -> Vec<(String, NotificationEvent, Vec<String>)> {
    let mut taken = Vec::new();
    loop {
        let first = ledger.first_notifications().await.unwrap();
        if first.is_empty() {
            taken.sort_by(|one: &(String, _, _), other| one.0.cmp(&other.0));
            return taken;
        }
        for queued in first {
            ledger.remove_notification(&queued.target, &queued.id).await.unwrap();
            let resolved = queued.resolved.into_iter().map(|problem| problem.event).collect();
            taken.push((queued.target, queued.event, resolved));
        }
    }
}

/// The same without the targets and what is resolved.
async fn events(ledger: &Ledger) -> Vec<NotificationEvent> {
    taken(ledger).await.into_iter().map(|(_, event, _)| event).collect()
}

#[tokio::test]
async fn a_completed_run_is_a_recovery_only_after_a_notification_of_a_problem() {
    let ledger = in_memory(vec![rule("all", &[Failed, ObjectsFailed, Interrupted, Recovered])]).await;
    end(&ledger, Kind::Devices, None, 0).await;
    end(&ledger, Kind::Devices, Some(Cause::CancelRequested), 0).await;
    end(&ledger, Kind::Devices, Some(Cause::Unsupported), 0).await;
    assert_eq!(events(&ledger).await, []);
    end(&ledger, Kind::Devices, Some(Cause::Idle), 0).await;
    end(&ledger, Kind::Devices, Some(Cause::Stopping), 0).await;
    // Another kind has no problem.
    end(&ledger, Kind::Storage, None, 0).await;
    // Nothing ran.
    skip(&ledger, Kind::Devices).await;
    end(&ledger, Kind::Devices, None, 2).await;
    // Objects still fail.
    end(&ledger, Kind::Devices, None, 1).await;
    end(&ledger, Kind::Devices, None, 0).await;
    end(&ledger, Kind::Devices, None, 0).await;
    let resolved = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let all = |event, names: &[&str]| ("all".to_owned(), event, resolved(names));
    assert_eq!(
        taken(&ledger).await,
        [
            all(Failed, &[]),
            all(Interrupted, &[]),
            all(ObjectsFailed, &["failed", "interrupted"]),
            all(ObjectsFailed, &[]),
            all(Recovered, &["objects_failed"]),
        ]
    );
}

#[tokio::test]
async fn each_target_gets_the_events_kinds_and_backends_of_its_rule() {
    let storage = NotificationRule { kinds: vec![Kind::Storage], ..rule("storage", &[Failed, Recovered]) };
    let elsewhere =
        NotificationRule { backends: vec!["http://other".parse().unwrap()], ..rule("elsewhere", &[Failed]) };
    let rules = vec![rule("failures", &[Failed]), rule("objects", &[ObjectsFailed]), storage, elsewhere];
    let ledger = in_memory(rules).await;
    end(&ledger, Kind::Devices, Some(Cause::ObjectsFailed), 3).await;
    end(&ledger, Kind::Storage, Some(Cause::Unreachable), 0).await;
    end(&ledger, Kind::Storage, None, 0).await;
    let taken: Vec<_> = taken(&ledger).await.into_iter().map(|(target, event, _)| (target, event)).collect();
    let expected = [
        ("failures", Failed),
        ("failures", Failed),
        ("objects", ObjectsFailed),
        ("storage", Failed),
        ("storage", Recovered),
    ];
    assert_eq!(taken, expected.map(|(target, event)| (target.to_owned(), event)));
}

#[tokio::test]
async fn a_notification_has_the_record_of_its_job_and_is_queued_once_for_one_end() {
    let ledger = in_memory(vec![rule("a", &[Failed])]).await;
    let record = end(&ledger, Kind::Devices, Some(Cause::Unreachable), 0).await;
    put(&ledger, &record, Vec::new()).await;
    ledger.count_attempt("a", &format!("{}_failed", record.id)).await.unwrap();
    let first = ledger.first_notifications().await.unwrap();
    let [queued] = first.as_slice() else { panic!("{first:?}") };
    assert_eq!((queued.job, queued.record.as_ref()), (Some(record.id), Some(&record)));
    assert_eq!((queued.id.as_str(), queued.attempts), (format!("{}_failed", record.id).as_str(), 1));
    assert_eq!(events(&ledger).await, [Failed]);
}

#[tokio::test]
async fn a_run_of_one_virtual_machine_says_nothing_of_the_others_and_one_of_all_says_it_of_each() {
    let ledger = in_memory(vec![rule("a", &[Failed, Recovered])]).await;
    let one = |cause| Record { vm: Some(7), ..ended(Kind::VirtualMachines, cause, 0) };
    put(&ledger, &one(Some(Cause::Unreachable)), Vec::new()).await;
    end(&ledger, Kind::VirtualMachines, Some(Cause::Unreachable), 0).await;
    put(&ledger, &one(None), Vec::new()).await;
    let first = taken(&ledger).await;
    assert_eq!(first.iter().map(|(_, event, _)| *event).collect::<Vec<_>>(), [Failed, Failed, Recovered]);
    put(&ledger, &one(Some(Cause::Unreachable)), Vec::new()).await;
    end(&ledger, Kind::VirtualMachines, None, 0).await;
    let second = taken(&ledger).await;
    assert_eq!((second[1].1, second[1].2.len()), (Recovered, 2), "{second:?}");
}

#[tokio::test]
async fn a_notification_and_what_it_resolves_name_the_virtual_machine_if_the_job_was_for_one() {
    let ledger = in_memory(vec![rule("a", &[Failed, Recovered])]).await;
    for vm in [Some(7), None] {
        for cause in [Some(Cause::Unreachable), None] {
            put(&ledger, &Record { vm, ..ended(Kind::VirtualMachines, cause, 0) }, Vec::new()).await;
            let first = ledger.first_notifications().await.unwrap();
            let [queued] = first.as_slice() else { panic!("{first:?}") };
            let resolved: Vec<_> = queued.resolved.iter().map(|problem| problem.vm).collect();
            assert_eq!((queued.vm, resolved), (vm, vec![vm; usize::from(cause.is_none())]));
            ledger.remove_notification("a", &queued.id).await.unwrap();
        }
    }
}

#[tokio::test]
async fn whoever_sends_notifications_is_woken_when_one_is_queued_and_by_no_other_job() {
    let ledger = in_memory(vec![rule("a", &[Failed])]).await;
    let mut changed = ledger.notifications_changed();
    changed.mark_unchanged();
    let end_of = |cause| ledger.put(JobUpdate::new(ended(Kind::Devices, cause, 0), Vec::new()));
    for (causes, wakes) in [
        ([Some(Cause::Unreachable), None], true),
        ([None, Some(Cause::Unreachable)], true),
        ([None, None], false),
    ] {
        // They are written together.
        try_join_all(causes.map(end_of)).await.unwrap();
        assert_eq!(changed.has_changed().unwrap(), wakes, "{causes:?}");
        changed.mark_unchanged();
    }
}

#[tokio::test]
async fn the_queue_and_the_known_problems_outlast_the_process_and_interrupted_jobs_are_in_it() {
    let (folder, clock) = (folder(), SteppedClock::at(NOW));
    let rules = || vec![rule("a", &[Failed, Interrupted, Recovered])];
    let ledger = opened(Some(folder.path()), rules(), &clock).await;
    end(&ledger, Kind::Devices, Some(Cause::Unreachable), 0).await;
    put(&ledger, &running(Kind::Storage), Vec::new()).await;
    ledger.close().await;
    let ledger = opened(Some(folder.path()), rules(), &clock).await;
    assert_eq!(events(&ledger).await, [Failed, Interrupted]);
    end(&ledger, Kind::Devices, None, 0).await;
    end(&ledger, Kind::Storage, None, 0).await;
    assert_eq!(events(&ledger).await, [Recovered, Recovered]);
    ledger.close().await;
}

#[tokio::test]
async fn notifications_that_are_too_old_too_many_or_without_a_target_are_dropped() {
    let clock = SteppedClock::at(NOW);
    let ledger = opened(None, vec![rule("a", &[Failed]), rule("b", &[Failed])], &clock).await;
    let mut jobs = Vec::new();
    for _ in 0..=MAX_QUEUED {
        jobs.push(end(&ledger, Kind::Devices, Some(Cause::Unreachable), 0).await.id);
    }
    ledger.set_notification_rules(vec![rule("a", &[Failed])]);
    let mut kept = Vec::new();
    while let [queued] = ledger.first_notifications().await.unwrap().as_slice() {
        ledger.remove_notification("a", &queued.id).await.unwrap();
        kept.push(queued.job.unwrap());
    }
    assert_eq!(kept.len(), MAX_QUEUED);
    assert_eq!(kept, jobs[1..]);
    ledger.set_notification_rules(vec![rule("a", &[Failed]), rule("b", &[Failed])]);
    assert_eq!(ledger.first_notifications().await.unwrap(), [], "a target that returns gets nothing old");
    ledger.set_notification_rules(vec![rule("a", &[Failed])]);
    end(&ledger, Kind::Devices, Some(Cause::Unreachable), 0).await;
    clock.pass(MAX_AGE);
    assert_eq!(ledger.first_notifications().await.unwrap().len(), 1);
    clock.pass(Duration::from_millis(1));
    assert_eq!(ledger.first_notifications().await.unwrap(), []);
}

#[tokio::test]
async fn a_sync_that_is_overdue_is_notified_of_once_until_it_completes() {
    let clock = SteppedClock::at(NOW);
    let stale = NotificationRule { stale_after: Some(26 * HOUR), ..rule("a", &[Stale, Recovered]) };
    let ledger = opened(None, vec![stale], &clock).await;
    // A kind that never completed is not watched, and neither is that of a single machine.
    end(&ledger, Kind::Storage, Some(Cause::Unreachable), 0).await;
    end(&ledger, Kind::Devices, None, 0).await;
    put(&ledger, &Record { vm: Some(7), ..ended(Kind::VirtualMachines, None, 0) }, Vec::new()).await;
    clock.pass(26 * HOUR - Duration::from_millis(1));
    assert_eq!(events(&ledger).await, []);
    clock.pass(Duration::from_millis(1));
    let first = ledger.first_notifications().await.unwrap();
    assert_eq!((first[0].kind.as_str(), first[0].since, first[0].job), ("devices", Some(NOW), None));
    assert_eq!(events(&ledger).await, [Stale]);
    end(&ledger, Kind::Devices, Some(Cause::Unreachable), 0).await;
    skip(&ledger, Kind::Devices).await;
    clock.pass(26 * HOUR);
    assert_eq!(events(&ledger).await, [], "once until it completes");
    complete(&ledger, Kind::Devices, 1, NOW.after(52 * HOUR)).await;
    assert_eq!(events(&ledger).await, [Recovered]);
    clock.pass(26 * HOUR);
    assert_eq!(events(&ledger).await, [Stale]);
}

#[tokio::test]
async fn a_sync_is_overdue_after_a_bridge_was_off_for_longer_than_a_jump_of_the_clock() {
    let (folder, clock) = (folder(), SteppedClock::at(NOW));
    let stale = || NotificationRule { stale_after: Some(26 * HOUR), ..rule("a", &[Stale]) };
    let ledger = opened(Some(folder.path()), vec![stale()], &clock).await;
    end(&ledger, Kind::Devices, None, 0).await;
    ledger.close().await;
    clock.pass(2 * DAY);
    let ledger = opened(Some(folder.path()), vec![stale()], &clock).await;
    let first = ledger.first_notifications().await.unwrap();
    assert_eq!((first[0].event, first[0].at, first[0].since), (Stale, NOW.after(2 * DAY), Some(NOW)));
    assert!(first[0].id.ends_with("_stale") && !first[0].id.contains('.'), "{}", first[0].id);
    ledger.close().await;
}

#[tokio::test]
async fn stages_are_not_overdue_while_full_updates_complete_unless_a_rule_names_them() {
    let clock = SteppedClock::at(NOW);
    let every = NotificationRule { stale_after: Some(26 * HOUR), ..rule("every", &[Stale]) };
    let named = NotificationRule { kinds: vec![Kind::Devices], target: "named".to_owned(), ..every.clone() };
    let ledger = opened(None, vec![every, named], &clock).await;
    // Networks are no stage.
    for kind in [Kind::Devices, Kind::Sdn] {
        end(&ledger, kind, None, 0).await;
    }
    clock.pass(26 * HOUR);
    complete(&ledger, Kind::FullUpdate, 0, NOW.after(HOUR)).await;
    let targets = async || {
        let all = taken(&ledger).await;
        all.into_iter().map(|(target, event, _)| (target, event)).collect::<Vec<_>>()
    };
    let stale = |target: &str| (target.to_owned(), Stale);
    assert_eq!(targets().await, [stale("every"), stale("named")]);
    clock.pass(HOUR);
    assert_eq!(targets().await, [stale("every"), stale("every")], "the full update and the devices");
}

#[tokio::test]
async fn a_notification_has_the_time_of_the_end_however_late_that_is_recorded() {
    let (folder, clock) = (folder(), SteppedClock::at(NOW));
    let rules = || vec![rule("a", &[Failed]), rule("b", &[Interrupted])];
    let ledger = opened(Some(folder.path()), rules(), &clock).await;
    put(&ledger, &running(Kind::Storage), Vec::new()).await;
    clock.pass(HOUR);
    end(&ledger, Kind::Devices, Some(Cause::Unreachable), 0).await;
    ledger.close().await;
    let ledger = opened(Some(folder.path()), rules(), &clock).await;
    let first = ledger.first_notifications().await.unwrap();
    let times: Vec<_> = first.iter().map(|queued| (queued.event, queued.at, queued.since)).collect();
    assert_eq!(times, [Failed, Interrupted].map(|event| (event, NOW, Some(NOW))));
    ledger.close().await;
}

#[tokio::test]
async fn a_kind_that_a_rule_names_is_watched_before_it_ever_completed() {
    let (folder, clock) = (folder(), SteppedClock::at(NOW));
    let stale = || NotificationRule {
        kinds: vec![Kind::Storage],
        stale_after: Some(2 * HOUR),
        ..rule("a", &[Stale, Recovered])
    };
    let ledger = opened(Some(folder.path()), vec![stale()], &clock).await;
    assert_eq!(events(&ledger).await, []);
    clock.pass(HOUR);
    ledger.close().await;
    let ledger = opened(Some(folder.path()), vec![stale()], &clock).await;
    assert_eq!(events(&ledger).await, []);
    clock.pass(HOUR);
    let first = ledger.first_notifications().await.unwrap();
    assert_eq!((first[0].kind.as_str(), first[0].since), ("storage", None::<Timestamp>));
    assert_eq!(events(&ledger).await, [Stale]);
    complete(&ledger, Kind::Storage, 0, NOW.after(2 * HOUR)).await;
    assert_eq!(events(&ledger).await, [Recovered]);
    ledger.close().await;
}
