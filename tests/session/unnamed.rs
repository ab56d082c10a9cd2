//! Failures without an object name, and objects of unknown types.

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::release::Release;
use proxbox_bridge::core::run::policy::ObjectFailures;
use proxbox_bridge::core::run::session::SessionSetup;
use serde_json::{Value, json};

use crate::support::session::drive::setup;
use crate::support::session::events::{
    complete_ok, item_progress, native_run, object_step, open_run, sse, step,
};
use crate::support::session::run::FinishedRun;

fn driven(setup: SessionSetup, events: &[String]) -> FinishedRun {
    open_run(setup).stream(&events.concat()).hang_up().run()
}

fn failed(word: &str) -> String {
    step(json!({"step": word, "status": "failed", "message": "no such cluster"}))
}

#[test]
fn a_step_that_failed_is_of_its_stage_or_of_an_object_whose_name_is_missing() {
    for stage in ["devices", "warp-core"] {
        let events = [failed(stage), object_step("device", "completed", "pve1"), complete_ok()];
        let run = native_run(Kind::Devices, &events);
        assert_eq!(run.objects("device"), Some([1, 1, 0, 0]), "{stage}");
        assert!(run.message().contains("With errors: no such cluster."), "{}", run.message());
        let mut strict = setup(Kind::Devices, Channel::Native);
        strict.options.object_failures = ObjectFailures::Any.into();
        assert!(!driven(strict, &events).is_ok(), "{stage}");
    }
    let none = step(json!({"step": "virtual_machine", "status": "failed", "message": "no such cluster",
        "rowid": "None"}));
    for (kind, object, event) in
        [(Kind::Devices, "device", failed("device")), (Kind::VirtualMachines, "virtual_machine", none)]
    {
        let run = native_run(kind, &[event, complete_ok()]);
        assert_eq!(run.objects(object), Some([1, 0, 1, 0]), "{:?}", run.messages());
        assert!(!run.is_ok());
    }
}

#[test]
fn an_item_without_a_name_counts_only_if_it_failed() {
    let item = |status: &str| {
        sse("item_progress", json!({"phase": "devices", "status": status, "message": "no name", "item": {}}))
    };
    let run = native_run(Kind::Devices, &[item("failed"), item("processing"), complete_ok()]);
    assert_eq!(run.objects("device"), Some([1, 0, 1, 0]));
    assert_eq!(run.failed_steps(), [("device", "", "no name")]);
    assert!(run.has_message("no name"), "{:?}", run.messages());
    assert!(!run.is_ok());
}

#[test]
fn objects_of_unknown_types_are_distinguished_by_the_name_of_their_type() {
    let failed = |phase: &str| item_progress(phase, "failed", "x");
    let events = [failed("gpus"), failed("fans"), complete_ok()];
    let run = native_run(Kind::Devices, &events);
    assert_eq!(run.report.counts.total().failed, 2);
    let words: Vec<&str> = run.failed_steps().iter().map(|(step, ..)| *step).collect();
    assert_eq!(words, ["gpus", "fans"]);
    assert!(!run.is_ok(), "nothing else was done");
    // They decide only there.
    let events = [object_step("device", "completed", "pve1"), failed("gpus"), complete_ok()];
    assert!(native_run(Kind::Devices, &events).is_ok());
}

#[test]
fn the_numbers_of_a_summary_inside_a_sync_step_count() {
    let summary =
        step(json!({"step": "sync", "status": "progress", "message": "sync progress", "rowid": null,
        "payload": {"step": "backups", "status": "completed", "message": "Backup sync completed.",
            "result": {"reconciled": 5}}}));
    let run = native_run(Kind::Backups, &[summary, complete_ok()]);
    assert_eq!(run.objects("backup"), Some([5, 5, 0, 0]));
}

#[test]
fn a_backend_of_unknown_age_is_dated_by_its_events_alone() {
    let count = |release: Option<Release>, event: String| {
        let mut setup = setup(Kind::Backups, Channel::Native);
        setup.release = release;
        let stage = step(json!({"step": "backups", "status": "completed", "message": "m",
            "result": {"count": 3}}));
        driven(setup, &[event, stage, complete_ok()]).objects("backup")
    };
    let note = || step(json!({"step": "backups", "status": "progress", "message": "m"}));
    let discovery = || sse("discovery", json!({"phase": "backups", "message": "m", "count": 3, "items": []}));
    let old = count(Some(Release::new(0, 0, 6)), note());
    let new = count(Some(Release::new(0, 0, 7)), note());
    assert_eq!((count(None, note()), new), (old, Some([3, 3, 0, 0])));
    assert_ne!(old, new);
    assert_eq!(count(None, discovery()), new);
    assert_eq!(count(Some(Release::new(0, 0, 6)), discovery()), Some([3, 0, 0, 3]), "it is known");
}

#[test]
fn a_character_that_python_cut_in_two_breaks_no_payload() {
    let mut setup = setup(Kind::Devices, Channel::Native);
    setup.options.payloads = true;
    let event = object_step("device", "completed", "pve1").replace("\"pve1\"", "\"pve1\\ud83d\"");
    // Every frame is read as JSON.
    let run = driven(setup, &[event, complete_ok()]);
    let synced = run.steps().find(|step| step.data.get("payload").is_some_and(Value::is_object));
    assert!(synced.is_some(), "{:?}", run.messages());
}

#[test]
fn a_name_that_is_too_long_to_be_remembered_is_another_object() {
    let long = "x".repeat(513);
    let renamed = sse("duplicate_name_resolved", json!({"original_name": "web01", "resolved_name": long}));
    let done = ["web01", &long].map(|name| item_progress("virtual-machines", "completed", name)).concat();
    let run = native_run(Kind::VirtualMachines, &[renamed, done, complete_ok()]);
    assert_eq!(run.objects("virtual_machine"), Some([2, 2, 0, 0]));
}

#[test]
fn what_another_bridge_could_not_name_or_has_counted_stays_as_it_is() {
    let unnamed = step(json!({"step": "storage", "status": "failed", "error": "no such cluster",
        "message": "Failed: 2 storage, not named by the backend"}));
    let run = native_run(Kind::Storage, &[unnamed, complete_ok()]);
    assert_eq!(run.objects("storage"), Some([2, 0, 2, 0]));
    let device = json!({"seen": 4, "completed": 2, "failed": 1, "unconfirmed": 1});
    let counted = json!({"ok": true, "message": "m", "result": {"count": 2, "objects": {"device": device}}});
    let run =
        native_run(Kind::Devices, &[object_step("device", "completed", "pve1"), sse("complete", counted)]);
    assert_eq!(run.objects("device"), Some([4, 2, 1, 1]));
}

#[test]
fn an_unnamed_failure_reported_in_two_forms_is_one() {
    let item = sse(
        "item_progress",
        json!({"phase": "devices", "status": "failed", "message": "no such cluster", "item": {}}),
    );
    let run = native_run(Kind::Devices, &[failed("device"), item, complete_ok()]);
    assert_eq!(run.objects("device"), Some([1, 0, 1, 0]));
    assert_eq!(run.failed_steps().len(), 1);
}

#[test]
fn a_part_that_failed_of_an_object_that_is_done_is_no_second_object() {
    let part = step(json!({"step": "virtual_machine", "status": "failed", "rowid": "web01",
        "message": "Could not set primary IP of web01: taken", "error": "Could not set primary IP of web01: taken"}));
    let run = native_run(
        Kind::VirtualMachines,
        &[object_step("virtual_machine", "completed", "web01"), part, complete_ok()],
    );
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));
    assert_eq!(run.failed_steps().len(), 1);
}

#[test]
fn snapshots_found_by_an_old_release_stay_unconfirmed() {
    let mut setup = setup(Kind::Snapshots, Channel::Native);
    setup.release = Some(Release::new(0, 0, 6));
    let found = step(json!({"step": "snapshot", "status": "progress", "message": "m", "rowid": "web01",
        "payload": {"object": "snapshot", "type": "sync",
            "data": {"completed": true, "rowid": "web01", "name": "web01", "snapshots_found": 3}}}));
    assert_eq!(driven(setup, &[found, complete_ok()]).objects("snapshot"), Some([3, 0, 0, 3]));
}
