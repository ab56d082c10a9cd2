//! Objects of native streams: each told of once, whoever told of it.

use proxbox_bridge::core::kind::Kind;
use serde_json::json;

use crate::support::backend::{
    complete_ok, discovery, item, native, object_step, phase_summary, sse, step, whole,
};

fn finished(word: &str) -> String {
    step(json!({"step": word, "status": "completed", "message": format!("{word} synchronization finished."),
        "result": {"count": 1}}))
}

#[test]
fn an_object_that_two_events_tell_of_is_processed_once_and_synced_once() {
    let run = whole(
        Kind::Devices,
        &[
            step(
                json!({"step": "devices", "status": "started", "message": "Starting devices synchronization."}),
            ),
            discovery("devices", 1),
            item("devices", "processing", "pve01"),
            object_step("device", "progress", "pve01"),
            item("devices", "completed", "pve01"),
            object_step("device", "completed", "pve01"),
            phase_summary("devices", 1, 0),
            step(json!({"step": "device", "status": "completed", "message": "device stream completed",
                "rowid": null, "payload": {"object": "device", "end": true}})),
            finished("devices"),
            complete_ok(),
        ],
    );
    assert_eq!(
        run.messages(),
        [
            "Starting devices synchronization.",
            "Discovered 1 object(s) to synchronize",
            "Processing device pve01",
            "Synced device pve01",
            "Sync completed: 1 synchronized, 0 failed",
            "Devices synchronization finished.",
        ]
    );
    assert_eq!(run.message(), "Devices sync completed. 1 object: 1 completed, 0 failed, 0 unconfirmed.");
    assert_eq!(run.objects("device"), Some([1, 1, 0, 0]));
    // The second accounts of the same, the end marker of the socket, and the second beginning is none.
    assert_eq!(run.report.dropped, 3);
}

#[test]
fn old_and_new_events_alone_tell_the_same() {
    let steps = [object_step("device", "progress", "pve01"), object_step("device", "completed", "pve01")];
    let items = [item("devices", "processing", "pve01"), item("devices", "completed", "pve01")];
    for events in [steps, items] {
        let run = whole(Kind::Devices, &[events.concat(), complete_ok()]);
        assert_eq!(
            run.messages(),
            [
                "Starting devices synchronization.",
                "Processing device pve01",
                "Synced device pve01",
                "Devices synchronization finished.",
            ]
        );
        let step = run.steps().nth(2).expect("a step");
        assert_eq!(
            step.data,
            json!({"step": "device", "status": "completed",
            "message": "Synced device pve01", "rowid": "pve01"})
        );
    }
}

#[test]
fn the_account_of_an_object_is_kept_only_for_clients_that_ask() {
    let events = [object_step("device", "completed", "pve01"), complete_ok()];
    assert!(whole(Kind::Devices, &events).steps().all(|step| step.data.get("payload").is_none()));

    let mut setup =
        crate::support::drive::setup(Kind::Devices, proxbox_bridge::core::channel::Channel::Native);
    setup.options.payloads = true;
    let run = crate::support::backend::begun(setup).stream(&events.concat()).hang_up().run();
    let synced = run.steps().find(|step| step.text("message") == "Synced device pve01").expect("a step");
    assert_eq!(synced.data["payload"]["data"]["netbox_id"], 1);
}

#[test]
fn the_truth_inside_a_sync_step_comes_out() {
    let sync = |payload: serde_json::Value| {
        step(json!({"step": "sync", "status": "progress", "message": "sync progress", "rowid": null,
            "payload": payload}))
    };
    let run = whole(
        Kind::Backups,
        &[
            sync(
                json!({"step": "backups", "status": "started", "message": "Starting backup synchronization."}),
            ),
            sync(
                json!({"step": "backups", "status": "discovered", "message": "Found 15 backups to reconcile.",
                "count": 15}),
            ),
            sync(json!({"step": "backups", "status": "warning", "message": "No backups on pve02"})),
            sync(
                json!({"step": "backups", "status": "completed", "message": "Backup sync completed. 5 reconciled.",
                "result": {"reconciled": 5}}),
            ),
            finished("backups"),
            complete_ok(),
        ],
    );
    assert_eq!(
        run.messages(),
        [
            "Starting backups synchronization.",
            "Found 15 backups to reconcile.",
            "No backups on pve02",
            "Backup sync completed. 5 reconciled.",
            "Backups synchronization finished.",
        ]
    );
    assert!(run.steps().all(|step| step.text("step") == "backups"));
    assert_eq!(run.objects("backup"), Some([15, 1, 0, 14]));
}

#[test]
fn a_storage_that_is_synced_inside_a_sync_step_is_an_object() {
    let synced = |name: &str| {
        step(json!({"step": "sync", "status": "progress", "message": "sync progress", "rowid": null,
            "payload": {"step": "storage", "status": "synced", "message": format!("Synced storage lab/{name}"),
                "result": {"id": 7, "name": name}}}))
    };
    let run = whole(Kind::Storage, &[synced("local"), synced("ceph-pool"), synced("local"), complete_ok()]);
    assert_eq!(
        run.messages(),
        [
            "Starting storage synchronization.",
            "Synced storage lab/local",
            "Synced storage lab/ceph-pool",
            "Storage synchronization finished.",
        ]
    );
    assert_eq!(run.objects("storage"), Some([2, 2, 0, 0]));
}

#[test]
fn a_failure_inside_a_sync_step_is_a_failed_step_and_not_the_end() {
    let run = whole(
        Kind::Snapshots,
        &[
            step(json!({"step": "sync", "status": "progress", "message": "sync progress", "rowid": null,
                "payload": {"step": "snapshots", "status": "failed", "message": "pve02 did not answer"}})),
            object_step("snapshot", "completed", "web01"),
            complete_ok(),
        ],
    );
    assert!(run.is_ok());
    assert_eq!(run.failed_steps(), [("snapshots", "", "pve02 did not answer")]);
}

#[test]
fn a_disk_that_failed_in_the_words_of_success_failed() {
    let disk = |name: &str, status: &str, disks: &str| {
        step(json!({"step": "virtual_disk", "status": "completed", "rowid": name,
            "message": format!("Synced virtual_disk {name}"),
            "payload": {"object": "virtual_disk", "type": "sync", "data": {
                "completed": true, "rowid": name, "name": "web01", "sync_status": status, "disks": disks}}}))
    };
    let run = whole(
        Kind::VirtualDisks,
        &[
            disk("web01-disks", "completed", "2"),
            disk("db01-disks", "undefined", "Error: 400 Bad Request"),
            complete_ok(),
        ],
    );
    assert_eq!(run.failed_steps(), [("virtual_disk", "db01-disks", "Error: 400 Bad Request")]);
    assert!(run.says("Failed virtual_disk db01-disks: Error: 400 Bad Request"));
    assert_eq!(run.objects("virtual_disk"), Some([2, 1, 1, 0]));
}

#[test]
fn interfaces_of_equal_names_on_different_machines_are_different_interfaces() {
    let interface = |vm: &str, completed: bool| {
        let status = if completed { "completed" } else { "progress" };
        step(json!({"step": "vm_interface", "status": status, "message": "m", "rowid": "net0",
            "payload": {"object": "vm_interface", "data": {
                "completed": completed, "rowid": "net0", "name": "net0", "vm": vm}}}))
    };
    let run = whole(
        Kind::VmInterfaces,
        &[
            interface("web01", false),
            interface("web02", false),
            interface("web01", true),
            interface("web02", true),
            interface("web02", true),
            complete_ok(),
        ],
    );
    assert_eq!(run.objects("vm_interface"), Some([2, 2, 0, 0]));
    assert_eq!(run.messages().iter().filter(|message| **message == "Synced vm_interface net0").count(), 2);
}

#[test]
fn items_of_equal_names_are_told_apart_by_their_machine_too() {
    let item = |vm: &str| {
        sse(
            "item_progress",
            json!({"phase": "vm-interfaces", "status": "completed", "item": {"name": "net0", "vm": vm}}),
        )
    };
    let run = whole(Kind::VmInterfaces, &[item("web01"), item("web02"), item("web02"), complete_ok()]);
    assert_eq!(run.objects("vm_interface"), Some([2, 2, 0, 0]));
}

#[test]
fn an_object_that_is_done_is_not_begun_again() {
    let run = whole(
        Kind::Devices,
        &[item("devices", "completed", "pve01"), object_step("device", "progress", "pve01"), complete_ok()],
    );
    assert_eq!(run.objects("device"), Some([1, 1, 0, 0]));
    assert!(!run.says("Processing device pve01"));
}

#[test]
fn what_python_calls_none_is_no_object_and_no_end_of_a_stage() {
    let none = |status: &str, completed: bool, message: &str| {
        step(json!({"step": "virtual_machine", "status": status, "message": message, "rowid": "None",
            "payload": {"object": "virtual_machine", "type": "create",
                "data": {"completed": completed, "rowid": "None", "name": null}}}))
    };
    let run = whole(
        Kind::VirtualMachines,
        &[
            none("progress", false, "Processing virtual_machine None"),
            none("completed", true, "Synced virtual_machine None"),
            object_step("virtual_machine", "progress", "web01"),
            complete_ok(),
        ],
    );
    assert_eq!(run.objects("virtual_machine"), Some([1, 0, 0, 1]));
    assert_eq!(
        run.messages(),
        [
            "Starting virtual machines synchronization.",
            "Processing virtual_machine None",
            "Synced virtual_machine None",
            "Processing virtual_machine web01",
            "Virtual machines synchronization finished.",
        ]
    );
}

#[test]
fn a_synced_nothing_is_not_the_end_of_its_stage() {
    // 0.0.4 filters its disks away and tells of one that has no name.
    let run = whole(
        Kind::VirtualDisks,
        &[
            step(json!({"step": "virtual_disk", "status": "completed", "message": "Synced virtual_disk",
                "rowid": null, "payload": {"object": "virtual_disk", "data": {"completed": true}}})),
            object_step("virtual_disk", "completed", "web01-disks"),
            complete_ok(),
        ],
    );
    assert_eq!(run.messages().last(), Some(&"Virtual disks synchronization finished."));
    assert_eq!(run.objects("virtual_disk"), Some([1, 1, 0, 0]));
}

#[test]
fn the_last_word_about_an_object_counts() {
    let failed = step(json!({"step": "virtual_machine", "status": "failed", "rowid": "dns01",
        "message": "Could not set primary IP.", "payload": {"object": "virtual_machine",
            "data": {"error": "Could not set primary IP.", "rowid": "dns01"}}}));
    let run = whole(
        Kind::VirtualMachines,
        &[
            object_step("virtual_machine", "progress", "dns01"),
            failed.clone(),
            item("virtual-machines", "completed", "dns01"),
            complete_ok(),
        ],
    );
    assert!(run.is_ok());
    assert_eq!(run.failed_steps(), [("virtual_machine", "dns01", "Could not set primary IP.")]);
    assert!(run.says("Synced virtual_machine dns01"));
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));

    let run = whole(
        Kind::VirtualMachines,
        &[item("virtual-machines", "completed", "dns01"), failed, complete_ok()],
    );
    // Only a part of it failed: the machine is in NetBox.
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));
    assert_eq!(run.failed_steps().len(), 1);
    assert!(run.is_ok());
}

#[test]
fn a_warning_is_told_with_the_object_that_it_is_about() {
    let run = whole(
        Kind::VirtualMachines,
        &[
            step(json!({"step": "virtual_machine", "status": "completed", "rowid": "web02",
                "message": "No IP address found; primary IP not set.",
                "payload": {"object": "virtual_machine", "data": {"completed": true, "status": "warning",
                    "warning": "No IP address found; primary IP not set.", "rowid": "web02"}}})),
            item("virtual-machines", "completed", "web02"),
            complete_ok(),
        ],
    );
    assert!(
        run.says("Synced virtual_machine web02 (warning: No IP address found; primary IP not set.)"),
        "{:?}",
        run.messages()
    );
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));
}

#[test]
fn names_are_given_without_their_markup() {
    let run = whole(
        Kind::Devices,
        &[
            step(json!({"step": "device", "status": "completed", "message": "m", "rowid": null,
                "payload": {"object": "device", "data": {"completed": true,
                    "name": "<a href='http://netbox/dcim/devices/1/'>pve01</a>"}}})),
            item("devices", "completed", "<b onclick=\"x\">pve02</b>"),
            complete_ok(),
        ],
    );
    assert!(run.says("Synced device pve01") && run.says("Synced device pve02"), "{:?}", run.messages());
    assert!(run.events.iter().all(|event| !event.data.to_string().contains('<')));
}

#[test]
fn what_a_reader_of_the_job_page_knows_is_said_to_the_letter() {
    let run = whole(
        Kind::FullUpdate,
        &[
            step(json!({"step": "stream", "status": "started", "message": "Full update stream connected."})),
            step(
                json!({"step": "devices", "status": "started", "message": "Starting devices synchronization."}),
            ),
            object_step("device", "progress", "pve01"),
            object_step("device", "completed", "pve01"),
            step(json!({"step": "devices", "status": "completed",
                "message": "Devices synchronization finished.", "duration_seconds": 1.5})),
            sse("complete", json!({"ok": true, "message": "Full update sync completed."})),
        ],
    );
    assert_eq!(
        run.messages(),
        [
            "Starting full update synchronization.",
            "Starting devices synchronization.",
            "Processing device pve01",
            "Synced device pve01",
            "Devices synchronization finished.",
        ]
    );
    assert!(run.message().starts_with("Full update sync completed. "), "{}", run.message());
}

#[test]
fn a_stage_that_nobody_knows_yet_is_told_of_all_the_same() {
    let run = whole(
        Kind::FullUpdate,
        &[
            step(json!({"step": "sweep-orphans", "status": "started", "message": "m", "metadata": {"a": 1}})),
            step(json!({"step": "sweep-orphans", "status": "completed", "message": "m"})),
            complete_ok(),
        ],
    );
    assert!(run.says("Starting sweep-orphans synchronization."), "{:?}", run.messages());
    assert!(run.says("Sweep-orphans synchronization finished."), "{:?}", run.messages());
}

#[test]
fn a_cut_in_the_middle_of_an_event_loses_nothing() {
    let mut drive = native(Kind::Devices);
    let events = [object_step("device", "completed", "pve01"), complete_ok()].concat();
    let (left, right) = events.split_at(events.len() / 3);
    let run = drive.stream(left).stream(right).hang_up().run();
    assert!(run.is_ok() && run.says("Synced device pve01"));
}
