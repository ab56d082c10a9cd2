//! The verdict of a run: from its objects, the configured policy and the backend's final event.

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::core::run::policy::ObjectFailures;
use proxbox_bridge::core::run::session::SessionSetup;
use serde_json::json;

use crate::support::session::drive::setup;
use crate::support::session::events::{
    complete_ok, discovery, item_progress, native_run, object_step, open_native, open_run, phase_summary,
    sse, step,
};
use crate::support::session::run::FinishedRun;

fn under(policy: ObjectFailures, events: &[String]) -> FinishedRun {
    let mut setup = setup(Kind::VirtualMachines, Channel::Native);
    setup.options.object_failures = policy.into();
    driven(setup, events)
}

fn driven(setup: SessionSetup, events: &[String]) -> FinishedRun {
    open_run(setup).stream(&events.concat()).hang_up().run()
}

fn machines(completed: usize, failed: usize) -> Vec<String> {
    let names: Vec<String> = (0..completed + failed).map(|number| format!("vm{number:02}")).collect();
    let mut events = vec![discovery("virtual-machines", names.len() as u64)];
    for (number, name) in names.iter().enumerate() {
        let status = if number < completed { "completed" } else { "failed" };
        events.push(item_progress("virtual-machines", status, name));
    }
    events.push(phase_summary("virtual-machines", completed as u64, failed as u64));
    events.push(complete_ok());
    events
}

#[test]
fn a_run_whose_every_object_failed_is_failed_though_the_backend_calls_it_ok() {
    let run = under(ObjectFailures::All, &machines(0, 12));
    assert!(!run.is_ok());
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::ObjectsFailed), Outcome::Errored));
    assert_eq!(run.error().text("error"), "12 of 12 virtual_machine objects failed, none completed.");
    assert!(run.detail().contains("virtual_machine vm00: no room for vm00"), "{}", run.detail());
    assert!(run.message().contains("12 objects: 12 failed."), "{}", run.message());
    assert_eq!(run.failed_steps().len(), 12);

    assert!(!under(ObjectFailures::Any, &machines(0, 12)).is_ok());
    assert!(under(ObjectFailures::Never, &machines(0, 12)).is_ok());
}

#[test]
fn a_run_of_which_a_part_failed_is_worth_what_the_operator_says() {
    let run = under(ObjectFailures::All, &machines(4, 8));
    assert!(run.is_ok());
    assert_eq!(
        run.message(),
        "Virtual machines sync completed. 12 objects: 4 completed, 8 failed (virtual_machine vm04: no room for vm04; \
         virtual_machine vm05: no room for vm05; virtual_machine vm06: no room for vm06; virtual_machine vm07: no \
         room for vm07; virtual_machine vm08: no room for vm08; and 3 more)."
    );
    assert_eq!(run.objects("virtual_machine"), Some([12, 4, 8, 0]));

    let run = under(ObjectFailures::Any, &machines(4, 8));
    assert!(!run.is_ok());
    assert_eq!(run.error().text("error"), "8 of 12 virtual_machine objects failed, 4 completed.");

    assert!(under(ObjectFailures::Never, &machines(4, 8)).is_ok());
}

#[test]
fn a_run_of_another_kind_keeps_the_verdict_of_the_backend() {
    // A backup routine that fails does not stop the plugin's full update where no bridge stands.
    let events = [object_step("backup_routine", "failed", "daily"), complete_ok()];
    let run = native_run(Kind::BackupRoutines, &events);
    assert!(run.is_ok());
    assert_eq!(
        run.message(),
        "Backup routines sync completed. 1 object: 1 failed (backup_routine daily: Processing backup_routine daily)."
    );
    let mut setup = setup(Kind::BackupRoutines, Channel::Native);
    setup.options.object_failures = ObjectFailures::Any.into();
    assert!(!open_run(setup).stream(&events.concat()).hang_up().run().is_ok());
}

#[test]
fn failures_that_only_a_summary_tells_of_count_too() {
    // Proxmox killed in the middle: the machines that failed are in no event but the summary.
    let events = [discovery("virtual-machines", 12), phase_summary("virtual-machines", 0, 12), complete_ok()];
    assert!(!under(ObjectFailures::All, &events).is_ok());
}

fn finished(word: &str, result: serde_json::Value) -> String {
    step(json!({"step": word, "status": "completed", "message": "m", "result": result}))
}

#[test]
fn of_rows_and_numbers_the_lower_is_believed_and_the_end_says_so() {
    let rows = ["pve1", "pve2", "pve3"].map(|name| object_step("device", "completed", name));
    let run =
        native_run(Kind::Devices, &[rows.concat(), finished("devices", json!({"count": 2})), complete_ok()]);
    assert_eq!(run.objects("device"), Some([3, 2, 0, 1]));
    assert_eq!(
        run.message(),
        "Devices sync completed. 3 objects: 2 completed, 1 unconfirmed. The backend reported 3 devices as completed \
         and counted 2."
    );
    // The lists of a full update are records of NetBox, and one that is there twice is one.
    let records = json!({"ok": true, "message": "m", "result": {"devices": [{"id": 1}, {"id": 2}, {"id": 1}],
        "devices_count": 3}});
    let run = native_run(Kind::FullUpdate, &[rows.concat(), sse("complete", records)]);
    assert_eq!(run.objects("device"), Some([3, 2, 0, 1]));
}

#[test]
fn what_only_a_number_calls_failed_is_counted_and_stands_among_the_failed_objects() {
    let end = json!({"ok": true, "message": "m", "result": {"created": 0, "updated": 0, "errors": 1}});
    let run = native_run(Kind::BackupRoutines, &[sse("complete", end)]);
    assert_eq!(run.objects("backup_routine"), Some([1, 0, 1, 0]));
    assert_eq!(run.report.failed_objects[0].object, "1 backup_routine, not named by the backend");
    assert!(run.has_message("Failed: 1 backup_routine, not named by the backend"), "{:?}", run.messages());
    // And in a full update, where each stage has numbers of its own.
    let stages =
        json!({"ok": true, "message": "m", "result": {"devices_count": 1, "backup_routines": {"errors": 2}}});
    let device = object_step("device", "completed", "pve1");
    let run = native_run(Kind::FullUpdate, &[device, sse("complete", stages)]);
    assert_eq!(run.objects("backup_routine"), Some([2, 0, 2, 0]));
    assert!(
        run.message().contains("2 failed (2 backup_routine, not named by the backend: "),
        "{}",
        run.message()
    );
    assert!(run.is_ok());
}

#[test]
fn what_failed_beside_what_was_written_takes_nothing_away_from_it() {
    let disks = |name: &str, status: &str, disks: &str| {
        step(
            json!({"step": "virtual_disk", "status": "completed", "message": "m", "rowid": format!("{name}-disks"),
            "payload": {"object": "virtual_disk", "data": {"completed": true, "rowid": format!("{name}-disks"),
                "name": name, "sync_status": status, "disks": disks}}}),
        )
    };
    let run = native_run(
        Kind::VirtualDisks,
        &[
            disks("web01", "completed", "1 disks (1 created, 0 updated)"),
            disks("web02", "completed", "1 disks (1 created, 0 updated)"),
            disks("web03", "undefined", "Config not available"),
            disks("web04", "undefined", "Config not available"),
            complete_ok(),
        ],
    );
    assert_eq!((run.objects("virtual_disk"), run.is_ok()), (Some([4, 2, 2, 0]), true));
    for (kind, object, result) in [
        (Kind::Snapshots, "snapshot", json!({"created": 2, "updated": 0, "failed": 2})),
        (Kind::Backups, "backup", json!({"reconciled": 2, "failed_tasks": 2})),
        (Kind::Replications, "replication", json!({"created": 2, "updated": 0, "errors": 2})),
    ] {
        let run = native_run(kind, &[sse("complete", json!({"ok": true, "message": "m", "result": result}))]);
        assert_eq!((run.objects(object), run.is_ok()), (Some([4, 2, 2, 0]), true), "{kind}");
    }
}

#[test]
fn interfaces_of_nodes_are_counted_once_and_those_that_failed_by_their_node() {
    let node = |name: &str, data: serde_json::Value| {
        step(json!({"step": "node_interface", "status": "progress", "message": "m", "rowid": name,
            "payload": {"object": "node_interface", "data": data}}))
    };
    let failed = step(json!({"step": "interface", "status": "failed", "message": "m", "rowid": "eno1",
        "payload": {"object": "interface", "data": {"rowid": "eno1", "name": "eno1", "error": "no room"}}}));
    let synced = |device: &str| {
        step(json!({"step": "interface", "status": "completed", "message": "m", "rowid": "vmbr0",
            "payload": {"object": "interface", "data": {"completed": true, "rowid": "vmbr0", "device": device}}}))
    };
    let events = [
        node("pve1", json!({"completed": false, "rowid": "pve1"})),
        synced("pve1"),
        // The node that it names is not the one reported last.
        synced("pve2"),
        failed.clone(),
        node("pve1", json!({"completed": true, "rowid": "pve1", "count": 1})),
        node("pve2", json!({"completed": false, "rowid": "pve2"})),
        failed,
        complete_ok(),
    ];
    let run = native_run(Kind::DeviceInterfaces, &events);
    assert_eq!(run.objects("interface"), Some([4, 2, 2, 0]));
    assert_eq!(run.objects("node_interface"), None);
    assert!(run.has_message("Checked node interfaces of pve1: 1 found"), "{:?}", run.messages());
}

#[test]
fn a_virtual_machine_with_another_name_in_netbox_is_one() {
    let renamed = sse(
        "duplicate_name_resolved",
        json!({"cluster": "lab", "vmid": 7, "original_name": "web01",
        "resolved_name": "web01 (2)"}),
    );
    let warned = step(
        json!({"step": "virtual_machine", "status": "completed", "message": "m", "rowid": "web01 (2)",
        "payload": {"object": "virtual_machine", "data": {"completed": true, "warning": "No IP", "rowid": "web01 (2)"}}}),
    );
    let events = [
        item_progress("virtual-machines", "processing", "web01"),
        renamed.clone(),
        warned,
        item_progress("virtual-machines", "completed", "web01"),
        complete_ok(),
    ];
    assert_eq!(under(ObjectFailures::All, &events).objects("virtual_machine"), Some([1, 1, 0, 0]));
    // The records of a full update list which of the discovered objects are in NetBox.
    let listed = sse(
        "discovery",
        json!({"phase": "virtual-machines", "message": "m", "count": 3,
        "items": [{"name": "web01"}, {"name": "web02"}, {"name": "db01"}]}),
    );
    let records = json!([{"id": 1, "name": "web01 (2)"}, {"id": 2, "name": "db01"}]);
    let end = json!({"ok": true, "message": "m", "result": {"virtual_machines": records, "virtual_machines_count": 2}});
    let run = native_run(Kind::FullUpdate, &[listed, renamed, sse("complete", end)]);
    assert_eq!(run.objects("virtual_machine"), Some([3, 2, 1, 0]));
    assert_eq!(run.report.failed_objects[0].object, "virtual_machine web02");
}

#[test]
fn what_failed_of_a_software_defined_network_is_named() {
    let counters = json!({"zones": 3, "per_endpoint_errors": {"lab": 2}, "warnings": [],
        "object_errors": [{"kind": "vnet", "name": "blue", "error": "no such zone"}]});
    let end = json!({"ok": true, "message": "m", "result": {"ok": true, "counters": counters}});
    let run = native_run(Kind::Sdn, &[sse("complete", end)]);
    assert_eq!(run.objects("sdn"), Some([2, 0, 2, 0]));
    assert_eq!(run.failed_steps()[0], ("sdn", "vnet blue", "no such zone"));
    assert!(run.message().contains("sdn vnet blue: no such zone"), "{}", run.message());
    assert!(run.is_ok());
}

#[test]
fn what_two_endpoints_of_one_cluster_have_is_there_once() {
    // Up to 0.0.6 every virtual machine is worked on for each of them, and counted each time.
    let begun = ["web01", "web02"].map(|name| object_step("virtual_machine", "progress", name)).concat();
    let mut setup = setup(Kind::VirtualMachines, Channel::Native);
    setup.release = Some("0.0.6.post4".parse().expect("a release"));
    let events = [begun.clone(), begun, finished("virtual-machines", json!({"count": 4})), complete_ok()];
    let run = driven(setup, &events);
    assert_eq!(run.objects("virtual_machine"), Some([2, 2, 0, 0]));
    // The result of a single stage is the list of its records.
    let list = json!({"ok": true, "message": "m", "result": [{"id": 1}, {"id": 2}, {"id": 1}]});
    let run =
        native_run(Kind::Devices, &[finished("devices", json!({"count": 3})), sse("complete", list.clone())]);
    assert_eq!(run.objects("device"), Some([2, 2, 0, 0]));
    // Rows with equal ids are subtracted once.
    let rows = [("pve1", 1), ("pve2", 2), ("pve1", 1)].map(|(name, id)| {
        let row = |completed: bool| {
            step(json!({"step": "device", "status": "m", "message": "m", "rowid": name, "payload": {"object": "device",
                "data": {"completed": completed, "rowid": name, "netbox_id": if completed { id } else { 0 }}}}))
        };
        [row(false), row(true)].concat()
    });
    let events = [rows.concat(), finished("devices", json!({"count": 3})), sse("complete", list)];
    assert_eq!(native_run(Kind::Devices, &events).objects("device"), Some([3, 2, 0, 1]));
}

#[test]
fn what_failed_is_named_where_nothing_else_is_left() {
    let names: Vec<String> = (0..12).map(|number| format!("vm{number:02}")).collect();
    let begun = names.iter().map(|name| object_step("virtual_machine", "progress", name));
    let done = names[..10].iter().map(|name| item_progress("virtual-machines", "completed", name));
    let events: Vec<String> =
        begun.chain(done).chain([phase_summary("virtual-machines", 10, 2), complete_ok()]).collect();
    let run = under(ObjectFailures::All, &events);
    assert_eq!(run.objects("virtual_machine"), Some([12, 10, 2, 0]));
    let named: Vec<&str> = run.report.failed_objects.iter().map(|failed| failed.object.as_str()).collect();
    assert_eq!(named, ["virtual_machine vm10", "virtual_machine vm11"]);
    // Of the last two begun, one failed: it may be either.
    let events: Vec<String> = names
        .iter()
        .map(|name| object_step("virtual_machine", "progress", name))
        .chain(names[..10].iter().map(|name| item_progress("virtual-machines", "completed", name)))
        .chain([phase_summary("virtual-machines", 10, 1), complete_ok()])
        .collect();
    let run = under(ObjectFailures::All, &events);
    assert_eq!(run.objects("virtual_machine"), Some([12, 10, 1, 1]));
    assert_eq!(run.report.failed_objects[0].object, "1 virtual_machine, not named by the backend");
}

#[test]
fn what_was_discovered_and_is_not_counted_has_failed() {
    let listed = sse(
        "discovery",
        json!({"phase": "virtual-machines", "message": "m", "count": 3,
        "items": [{"name": "web01"}, {"name": "web02"}, {"name": "web03"}]}),
    );
    let done = ["web01", "web03"].map(|name| item_progress("virtual-machines", "completed", name)).concat();
    // The summary of a full update up to 0.0.16 always reports no failures.
    let events = [
        listed,
        done,
        phase_summary("virtual-machines", 2, 0),
        finished("virtual-machines", json!({"count": 2})),
        complete_ok(),
    ];
    let run = under(ObjectFailures::All, &events);
    assert_eq!(run.objects("virtual_machine"), Some([3, 2, 1, 0]));
    assert_eq!(run.report.failed_objects[0].object, "virtual_machine web02");
    let why = &run.report.failed_objects[0].error;
    assert_eq!(why, "the backend discovered it, and does not count it as done");
}

#[test]
fn a_run_that_did_nothing_is_not_green() {
    let begun = ["web01", "web02"].map(|name| object_step("virtual_machine", "progress", name)).concat();
    let none = finished("virtual-machines", json!({"count": 0}));
    let events = [begun.clone(), none.clone(), complete_ok()];
    let run = under(ObjectFailures::All, &events);
    assert_eq!(
        (run.report.cause, run.detail()),
        (Some(Cause::ObjectsFailed), "The backend confirmed none of 2 virtual machines.")
    );
    assert!(!under(ObjectFailures::Any, &events).is_ok());
    assert!(under(ObjectFailures::Never, &events).is_ok());
    // Their number is unknown, so they cannot be called unconfirmed.
    assert!(under(ObjectFailures::All, &[begun, complete_ok()]).is_ok());
    // There was nothing to do.
    let run = under(ObjectFailures::All, &[none, complete_ok()]);
    assert_eq!(run.message(), "Virtual machines sync completed: nothing to do.");
}

#[test]
fn storages_that_netbox_has_already_are_confirmed_and_those_that_were_skipped_are_not() {
    let summary = |skipped: u64| {
        sse(
            "phase_summary",
            json!({"phase": "storage", "message": "m", "status": "completed",
            "result": {"created": 0, "updated": 0, "deleted": 0, "failed": 0, "skipped": skipped, "total": skipped}}),
        )
    };
    let end = finished("storage", json!({"count": 0}));
    let run = native_run(Kind::Storage, &[discovery("storage", 4), summary(0), end.clone(), complete_ok()]);
    assert_eq!((run.objects("storage"), run.is_ok()), (Some([4, 4, 0, 0]), true));
    let run = native_run(Kind::Storage, &[discovery("storage", 4), summary(4), end, complete_ok()]);
    assert_eq!(run.objects("storage"), Some([4, 0, 0, 4]));
    assert_eq!(
        run.detail(),
        "The backend confirmed none of 4 storages and skipped them. Sync devices first."
    );
    // Up to 0.0.6 the two cannot be distinguished.
    let mut setup = setup(Kind::Storage, Channel::Native);
    setup.release = Some("0.0.6.post4".parse().expect("a release"));
    let run = open_run(setup)
        .stream(&finished("storage", json!({"count": 0})))
        .stream(&complete_ok())
        .hang_up()
        .run();
    assert_eq!(
        (run.is_ok(), run.message()),
        (true, "Storage sync completed: nothing to do. If Proxmox has storage, sync devices first.")
    );
}

/// The cells of a row of a table.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn every_verdict_stands_in_its_table() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/counts.md")).expect("a file");
    let (_, table) = text.split_once("| sync | objects |").expect("a table");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    for row in &rows {
        let [kind, objects, counted, says, policies, verdict, _] = cells(row)[..] else { panic!("{row}") };
        let kind = Kind::from_name(kind).expect("a kind");
        let mut events = Vec::new();
        for part in objects.split(", ").filter(|part| *part != "–") {
            let [count, object, state] = part.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
            let state = if state == "begun" { "progress" } else { state };
            let count: usize = count.parse().expect("a number");
            events.extend((0..count).map(|number| object_step(object, state, &format!("{state}{number}"))));
        }
        if counted != "–" {
            let count: u64 = counted.parse().expect("a number");
            events.push(finished(kind.row().step, json!({"count": count})));
        }
        events.push(match says {
            "ok" => complete_ok(),
            "not ok" => sse("complete", json!({"ok": false, "message": "m"})),
            "nothing" => String::new(),
            "`\"true\"`" => sse("complete", json!({"ok": "true", "message": "m"})),
            other => panic!("{other}"),
        });
        let mut setup = setup(kind, Channel::Native);
        setup.options.object_failures = policies.parse().expect("policies");
        let run = open_run(setup).stream(&events.concat()).hang_up().run();
        assert_eq!(if run.is_ok() { "good" } else { "failed" }, verdict, "{row}: {}", run.message());
    }
    assert!(rows.len() > 15);
}

#[test]
fn a_kind_may_have_a_policy_of_its_own() {
    let routine = [object_step("backup_routine", "failed", "daily"), complete_ok()].concat();
    let run = |kind: Kind, policies: &str, events: &str| {
        let mut setup = setup(kind, Channel::Native);
        setup.options.object_failures = policies.parse().expect("policies");
        open_run(setup).stream(events).hang_up().run().is_ok()
    };
    assert!(run(Kind::BackupRoutines, "all", &routine));
    assert!(!run(Kind::BackupRoutines, "all, backup-routines=all", &routine));
    assert!(!run(Kind::BackupRoutines, "never, backup-routines=any", &routine));
    assert!(run(Kind::BackupRoutines, "any, backup-routines=never", &routine));
    // Of a full update, the policy of the kind counts for its objects.
    let update = [object_step("device", "completed", "pve1"), routine.clone()].concat();
    assert!(run(Kind::FullUpdate, "all", &update));
    assert!(!run(Kind::FullUpdate, "all, backup-routines=all", &update));
    assert!(run(Kind::FullUpdate, "any, backup-routines=never", &update));
    assert!(run(Kind::FullUpdate, "all", &routine), "it keeps the verdict of the backend, alone and here");
    let machine = [object_step("virtual_machine", "failed", "web01"), complete_ok()].concat();
    assert!(!run(Kind::FullUpdate, "all", &machine));
    assert!(run(Kind::FullUpdate, "all, virtual-machines=never", &machine));
    assert!(!run(Kind::FullUpdate, "never, full-update=any", &machine));
}

#[test]
fn the_end_fits_into_a_line_of_the_log_of_netbox_and_is_whole_for_those_who_ask() {
    let stages: Vec<String> = Kind::all()
        .filter(|kind| kind.row().is_counted())
        .map(|kind| phase_summary(kind.row().step, 1000, 7))
        .collect();
    let error = sse(
        "error",
        json!({"step": "full-update", "error": "é".repeat(300), "detail": "\"x\" ".repeat(900)}),
    );
    for (last, ok) in [(String::new(), true), (error, false)] {
        let events =
            [stages.concat(), last, sse("complete", json!({"ok": ok, "message": "m", "result": {}}))]
                .concat();
        let mut setup = setup(Kind::FullUpdate, Channel::Native);
        setup.options.object_failures = "never".parse().expect("a policy");
        let mut drive = open_run(setup);
        drive.stream(&events).hang_up();
        // The stream keeps R13, or `run` panics.
        let run = drive.run();
        assert_eq!(run.is_ok(), ok);
        let failed = 7 * stages.len();
        assert!(run.message().contains(&format!(" {failed} failed")), "{}", run.message());
        let whole = drive.whole_end();
        for sort in ["device", "virtual_machine", "backup_routine"] {
            assert_eq!(whole["result"]["objects"][sort]["failed"], 7, "{whole}");
        }
        assert_eq!(whole["result"]["objects"]["device"]["unconfirmed"], 0, "zeros stand in the whole of it");
    }
}

#[test]
fn no_policy_makes_a_failed_run_a_good_one() {
    let events = [
        item_progress("virtual-machines", "completed", "web01"),
        sse("complete", json!({"ok": false, "message": "not so", "errors": [{"detail": "why not"}]})),
    ];
    for policy in ObjectFailures::ALL {
        let run = under(policy, &events);
        assert_eq!(run.report.cause, Some(Cause::BackendFailed));
        assert_eq!((run.error().text("error"), run.detail()), ("not so", "why not"));
    }
}

#[test]
fn of_two_objects_of_one_name_the_good_end_of_one_does_not_make_good_the_other() {
    let [failed, completed] =
        ["failed", "completed"].map(|status| item_progress("virtual-machines", status, "gateway"));
    for events in [[&failed, &completed], [&completed, &failed]] {
        let events = [events[0].clone(), events[1].clone(), complete_ok()];
        let run = under(ObjectFailures::All, &events);
        assert_eq!(run.objects("virtual_machine"), Some([2, 1, 1, 0]));
        assert!(run.is_ok());
        let run = under(ObjectFailures::Any, &events);
        assert!(run.detail().contains("virtual_machine gateway: no room"), "{}", run.detail());
    }
}

#[test]
fn what_the_backend_never_speaks_of_again_is_unconfirmed() {
    let run = native_run(
        Kind::VirtualMachines,
        &[discovery("virtual-machines", 12), phase_summary("virtual-machines", 4, 0), complete_ok()],
    );
    assert!(run.is_ok());
    assert_eq!(run.objects("virtual_machine"), Some([12, 4, 0, 8]));
    assert!(run.message().ends_with("12 objects: 4 completed, 8 unconfirmed."), "{}", run.message());
}

#[test]
fn the_count_of_a_stage_confirms_the_objects_that_no_event_confirms() {
    // 0.0.3 to 0.0.6 report of machines only that they are processed.
    let processing =
        |name: &str| crate::support::session::events::object_step("virtual_machine", "progress", name);
    let run = native_run(
        Kind::VirtualMachines,
        &[
            processing("web01"),
            processing("web02"),
            processing("web03"),
            step(json!({"step": "virtual-machines", "status": "completed",
                "message": "Virtual machines synchronization finished.", "result": {"count": 2}})),
            complete_ok(),
        ],
    );
    assert_eq!(run.objects("virtual_machine"), Some([3, 2, 0, 1]));
    assert!(!run.has_message("Synced virtual_machine web01"), "nobody confirmed it by name");
}

#[test]
fn a_final_event_without_a_boolean_ok_is_no_success() {
    for ok in ["", "\"ok\": null,", "\"ok\": \"true\",", "\"ok\": 1,", "\"ok\": {},"] {
        let run = native_run(
            Kind::Devices,
            &[
                item_progress("devices", "completed", "pve01"),
                format!("event: complete\ndata: {{{ok} \"message\": \"devices sync completed.\"}}\n\n"),
            ],
        );
        assert_eq!(run.report.cause, Some(Cause::BackendNonsense), "{ok}");
        assert!(run.error().text("error").contains("boolean"), "{ok}");
    }
}

#[test]
fn a_final_event_that_is_not_json_is_no_success() {
    for data in ["done", "{\"ok\": true", "[]", "null", "true", ""] {
        let run = native_run(Kind::Devices, &[format!("event: complete\ndata: {data}\n\n")]);
        assert_eq!(run.report.cause, Some(Cause::BackendNonsense), "{data}");
        assert!(run.detail().contains("not a JSON object"), "{data}: {}", run.detail());
    }
}

#[test]
fn of_two_final_events_the_worse_one_counts() {
    let bad =
        sse("complete", json!({"ok": false, "message": "no", "errors": [{"detail": "on second thought"}]}));
    for words in [[complete_ok(), bad.clone()], [bad, complete_ok()]] {
        let run = native_run(Kind::Devices, &words);
        assert!(!run.is_ok());
        assert_eq!(run.detail(), "on second thought");
    }
    assert!(native_run(Kind::Devices, &[complete_ok(), complete_ok()]).is_ok());
}

#[test]
fn a_second_final_event_may_arrive_later() {
    let mut drive = open_native(Kind::Devices);
    drive.stream(&complete_ok()).wait(std::time::Duration::from_secs(2));
    assert!(drive.end.is_none());
    drive.stream(&sse("complete", json!({"ok": false, "message": "no"}))).hang_up();
    assert!(!drive.run().is_ok());
}

#[test]
fn megabytes_of_result_become_a_few_numbers() {
    let records: Vec<_> = (0..20_000).map(|id| json!({"id": id, "name": "x".repeat(60)})).collect();
    let last = sse(
        "complete",
        json!({"ok": true, "message": "Full update sync completed.", "result": {
            "devices": records, "virtual_machines": [], "virtual_machines_count": 12, "degraded": true,
            "warnings": ["one\u{2028}warning"]}}),
    );
    assert!(last.len() > 1_000_000);
    let mut setup = setup(Kind::FullUpdate, Channel::Native);
    setup.limits.event_bytes = 16 << 20;
    let mut drive = open_run(setup);
    let run = drive.stream(&last).hang_up().run();
    let result = &run.complete()["result"];
    assert_eq!((&result["devices_count"], &result["virtual_machines_count"]), (&json!(20_000), &json!(12)));
    assert_eq!((&result["degraded"], &result["warnings"]), (&json!(true), &json!(["one warning"])));
    assert!(drive.bytes.len() < 4096, "{} bytes", drive.bytes.len());
}

#[test]
fn a_sort_of_objects_that_failed_as_a_whole_fails_a_full_update_that_is_ok_otherwise() {
    let devices = ["pve1", "pve2", "pve3"].map(|name| object_step("device", "completed", name));
    let summary = phase_summary("virtual-machines", 0, 12);
    let reported: Vec<String> = devices.into_iter().chain([summary, complete_ok()]).collect();
    let run = native_run(Kind::FullUpdate, &reported);
    assert!(!run.is_ok());
    assert!(run.detail().contains("12 of 12 virtual_machine objects failed"), "{}", run.detail());

    // A backup schedule is no part of the inventory.
    let routine = phase_summary("backup-routines", 0, 1);
    let run =
        native_run(Kind::FullUpdate, &[object_step("device", "completed", "pve1"), routine, complete_ok()]);
    assert!(run.is_ok());
}

#[test]
fn the_count_of_a_stage_does_not_make_good_what_failed_in_it() {
    let failed = ["a", "b"].map(|name| {
        step(json!({"step": "virtual_disk", "status": "completed", "rowid": format!("{name}-disks"),
            "payload": {"object": "virtual_disk", "data": {"completed": true, "sync_status": "undefined",
                "rowid": format!("{name}-disks"), "disks": "Config not available"}}}))
    });
    let done = step(json!({"step": "virtual-disks", "status": "completed", "result": {"count": 2}}));
    let reported: Vec<String> = failed.into_iter().chain([done, complete_ok()]).collect();
    let run = native_run(Kind::VirtualDisks, &reported);
    assert_eq!(run.objects("virtual_disk"), Some([2, 0, 2, 0]));
    assert!(!run.is_ok());
}

#[test]
fn a_failure_that_a_backend_repeats_is_one_step_and_every_time_is_counted() {
    let stage = step(json!({"step": "sync", "status": "failed", "message": "No route to Proxmox"}));
    let address = "Could not set primary IP of web01: taken";
    let part =
        step(json!({"step": "virtual_machine", "status": "failed", "message": address, "error": address,
        "rowid": "web01"}));
    let mut reported = vec![item_progress("devices", "completed", "pve1")];
    for _ in 0..1000 {
        reported.extend([stage.clone(), part.clone()]);
    }
    reported.push(complete_ok());
    let run = native_run(Kind::Devices, &reported);
    let failed: Vec<&str> = run.failed_steps().iter().map(|(step, ..)| *step).collect();
    assert_eq!(failed, ["sync", "virtual_machine"]);
    assert_eq!(run.report.dropped, 2 * 999);
    assert!(run.message().contains("With errors: No route to Proxmox; and 999 more."), "{}", run.message());
}

#[test]
fn trouble_that_is_no_object_is_named_in_the_end() {
    let trouble = sse("error_detail", json!({"phase": "storage", "message": "Storage API timed out"}));
    let reported = [object_step("device", "completed", "pve1"), trouble, complete_ok()];
    let run = native_run(Kind::FullUpdate, &reported);
    assert!(run.is_ok());
    assert!(run.message().contains("With errors: Storage API timed out."), "{}", run.message());
    let mut setup = setup(Kind::FullUpdate, Channel::Native);
    setup.options.object_failures = ObjectFailures::Any.into();
    let run = driven(setup.clone(), &reported);
    assert!(!run.is_ok());
    assert_eq!(run.error().text("error"), "Storage API timed out");
    // The objects that failed are named beside it, though they alone would not fail the run.
    setup.options.object_failures = "any, devices=never".parse().unwrap();
    let [completed, trouble, complete] = reported;
    let run = driven(setup, &[completed, object_step("device", "failed", "pve2"), trouble, complete]);
    assert_eq!(run.error().text("error"), "1 of 2 objects failed, 1 completed.");
}

#[test]
fn the_end_of_a_run_is_found_at_the_beginning_of_what_is_too_large_to_be_read() {
    for (head, ok) in
        [("{\"ok\": true, \"message\": \"m\", \"result\": \"", true), ("{\"result\": \"", false)]
    {
        let mut drive = open_native(Kind::Devices);
        drive.stream("event: complete\ndata: ").stream(head);
        for _ in 0..20 {
            drive.stream(&"x".repeat(100_000));
        }
        let run = drive.stream("\"}\n\n").hang_up().run();
        assert_eq!(run.is_ok(), ok, "{head}");
    }
}
