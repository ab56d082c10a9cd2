//! Objects of native streams: each is counted once, in whichever forms it is reported.

use proxbox_bridge::core::domain::kind::Kind;
use serde_json::json;

use crate::support::session::events::{
    complete_ok, discovery, item_progress, native_run, object_step, open_native, phase_summary, sse, step,
};

fn finished(word: &str) -> String {
    step(json!({"step": word, "status": "completed", "message": format!("{word} synchronization finished."),
        "result": {"count": 1}}))
}

#[test]
fn an_object_that_two_events_tell_of_is_processed_once_and_synced_once() {
    let run = native_run(
        Kind::Devices,
        &[
            step(
                json!({"step": "devices", "status": "started", "message": "Starting devices synchronization."}),
            ),
            discovery("devices", 1),
            item_progress("devices", "processing", "pve01"),
            object_step("device", "progress", "pve01"),
            item_progress("devices", "completed", "pve01"),
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
    assert_eq!(run.message(), "Devices sync completed. 1 object: 1 completed.");
    assert_eq!(run.objects("device"), Some([1, 1, 0, 0]));
    // The second accounts of the same, the end marker of the socket, and the second beginning is none.
    assert_eq!(run.report.dropped, 3);
}

#[test]
fn old_and_new_events_alone_tell_the_same() {
    let steps = [object_step("device", "progress", "pve01"), object_step("device", "completed", "pve01")];
    let items =
        [item_progress("devices", "processing", "pve01"), item_progress("devices", "completed", "pve01")];
    for events in [steps, items] {
        let run = native_run(Kind::Devices, &[events.concat(), complete_ok()]);
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
    assert!(native_run(Kind::Devices, &events).steps().all(|step| step.data.get("payload").is_none()));

    let mut setup = crate::support::session::drive::setup(
        Kind::Devices,
        proxbox_bridge::core::domain::channel::Channel::Native,
    );
    setup.options.payloads = true;
    let run = crate::support::session::events::open_run(setup).stream(&events.concat()).hang_up().run();
    let synced = run.steps().find(|step| step.text("message") == "Synced device pve01").expect("a step");
    assert_eq!(synced.data["payload"]["data"]["netbox_id"], 428);
}

#[test]
fn the_payload_of_a_sync_step_is_unwrapped() {
    let sync = |payload: serde_json::Value| {
        step(json!({"step": "sync", "status": "progress", "message": "sync progress", "rowid": null,
            "payload": payload}))
    };
    let run = native_run(
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
    // One file is found on every node that sees it.
    assert_eq!(run.objects("backup"), Some([1, 1, 0, 0]));
}

#[test]
fn a_storage_that_is_synced_inside_a_sync_step_is_an_object() {
    let synced = |name: &str| {
        step(json!({"step": "sync", "status": "progress", "message": "sync progress", "rowid": null,
            "payload": {"step": "storage", "status": "synced", "message": format!("Synced storage lab/{name}"),
                "result": {"id": name.len(), "name": name}}}))
    };
    let run =
        native_run(Kind::Storage, &[synced("local"), synced("ceph-pool"), synced("local"), complete_ok()]);
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
    let run = native_run(
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
fn a_disk_reported_as_completed_with_an_error_has_failed() {
    let disk = |name: &str, status: &str, disks: &str| {
        step(json!({"step": "virtual_disk", "status": "completed", "rowid": name,
            "message": format!("Synced virtual_disk {name}"),
            "payload": {"object": "virtual_disk", "type": "sync", "data": {
                "completed": true, "rowid": name, "name": "web01", "sync_status": status, "disks": disks}}}))
    };
    let run = native_run(
        Kind::VirtualDisks,
        &[
            disk("web01-disks", "completed", "2"),
            disk("db01-disks", "undefined", "Error: 400 Bad Request"),
            complete_ok(),
        ],
    );
    assert_eq!(run.failed_steps(), [("virtual_disk", "db01-disks", "Error: 400 Bad Request")]);
    assert!(run.has_message("Failed virtual_disk db01-disks: Error: 400 Bad Request"));
    assert_eq!(run.objects("virtual_disk"), Some([1, 0, 1, 0]), "where disks were looked for is none");
}

#[test]
fn interfaces_of_equal_names_on_different_machines_are_different_interfaces() {
    let interface = |vm: &str, completed: bool| {
        let status = if completed { "completed" } else { "progress" };
        step(json!({"step": "vm_interface", "status": status, "message": "m", "rowid": "net0",
            "payload": {"object": "vm_interface", "data": {
                "completed": completed, "rowid": "net0", "name": "net0", "vm": vm}}}))
    };
    let run = native_run(
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
fn an_interface_that_failed_is_named_with_its_machine() {
    let failed = step(json!({"step": "vm_interface", "status": "failed", "message": "m", "rowid": "net0",
        "payload": {"object": "vm_interface", "data": {"rowid": "net0", "vm": "web01", "error": "no room"}}}));
    let run = native_run(Kind::VmInterfaces, &[failed, complete_ok()]);
    assert_eq!(run.report.failed_objects[0].object, "vm_interface net0 of web01");
    assert!(run.has_message("Failed vm_interface net0 of web01: no room"), "{:?}", run.messages());
}

#[test]
fn of_many_objects_that_failed_the_first_and_the_last_are_named() {
    let failed = |number: u8| {
        step(
            json!({"step": "vm_interface", "status": "failed", "message": "m", "rowid": format!("net{number}"),
            "payload": {"object": "vm_interface", "data": {"rowid": format!("net{number}"), "vm": "web01",
                "error": "no room"}}}),
        )
    };
    for (all, named) in [(9, (0..9).collect::<Vec<_>>()), (12, vec![0, 1, 2, 3, 4, 7, 8, 9, 10, 11])] {
        let mut events: Vec<String> = (0..all).map(failed).collect();
        events.push(complete_ok());
        let run = native_run(Kind::VmInterfaces, &events);
        let found: Vec<&str> =
            run.report.failed_objects.iter().map(|failed| failed.object.as_str()).collect();
        let names: Vec<String> =
            named.iter().map(|number| format!("vm_interface net{number} of web01")).collect();
        assert_eq!(found, names);
    }
}

#[test]
fn items_of_equal_names_are_distinguished_by_their_machine() {
    let item = |vm: &str| {
        sse(
            "item_progress",
            json!({"phase": "vm-interfaces", "status": "completed", "item": {"name": "net0", "vm": vm}}),
        )
    };
    let run = native_run(Kind::VmInterfaces, &[item("web01"), item("web02"), item("web02"), complete_ok()]);
    assert_eq!(run.objects("vm_interface"), Some([2, 2, 0, 0]));
}

#[test]
fn an_object_that_the_backend_has_skipped_or_deleted_is_not_synced() {
    for operation in ["skipped", "deleted", "would_delete"] {
        let data = json!({"phase": "devices", "status": "completed", "operation": operation,
            "message": "Nothing was written.", "item": {"name": "pve02"}});
        let items = item_progress("devices", "completed", "pve01") + &sse("item_progress", data);
        let run = native_run(Kind::Devices, &[items, complete_ok()]);
        assert_eq!(run.objects("device"), Some([1, 1, 0, 0]), "{operation}");
    }
}

/// A frame of a virtual machine in a cluster, on a node.
fn machine(name: &str, cluster: &str, node: &str, data: serde_json::Value) -> String {
    let mut row = json!({"rowid": name, "name": name, "cluster": cluster, "device": node});
    row.as_object_mut().expect("an object").extend(data.as_object().expect("an object").clone());
    step(json!({"step": "virtual_machine", "status": "progress", "message": "m", "rowid": name,
        "payload": {"object": "virtual_machine", "data": row}}))
}

#[test]
fn objects_of_one_name_in_two_places_are_two() {
    let started = |cluster: &str, node: &str| machine("gateway", cluster, node, json!({"completed": false}));
    let completed = item_progress("virtual-machines", "completed", "gateway");
    for (here, there) in [(["north", "pve1"], ["south", "pve1"]), (["lab", "pve1"], ["lab", "pve2"])] {
        let events = [
            started(here[0], here[1]),
            started(there[0], there[1]),
            started(here[0], here[1]),
            completed.clone(),
        ];
        let run = native_run(Kind::VirtualMachines, &[events.concat(), complete_ok()]);
        assert_eq!(run.objects("virtual_machine"), Some([2, 1, 0, 1]), "{here:?} {there:?}");
    }
    // The frame of the end names the place, too, and does not come in the order of the beginnings.
    let failed = |cluster: &str| machine("gateway", cluster, "pve1", json!({"error": "no room"}));
    let done = |cluster: &str| machine("gateway", cluster, "pve1", json!({"completed": true}));
    let events = [started("north", "pve1"), started("south", "pve1"), done("south"), failed("north")];
    let run = native_run(Kind::VirtualMachines, &[events.concat(), complete_ok()]);
    assert_eq!(run.objects("virtual_machine"), Some([2, 1, 1, 0]));
    assert_eq!(run.failed_steps(), [("virtual_machine", "gateway", "no room")]);
    // A part that failed belongs to one of them, too.
    let error = "Could not set primary IP of gateway: taken";
    let part = |cluster: &str| machine("gateway", cluster, "pve1", json!({"error": error}));
    let events =
        [started("north", "pve1"), started("south", "pve1"), part("north"), part("south"), part("north")];
    let run = native_run(Kind::VirtualMachines, &[events.concat(), complete_ok()]);
    assert_eq!(run.failed_steps(), [("virtual_machine", "gateway", error); 2]);
}

#[test]
fn an_object_that_begins_when_one_of_its_name_has_ended_is_another_one() {
    let [started, done] = ["progress", "completed"].map(|status| object_step("device", status, "pve01"));
    let events = [started.clone(), done.clone(), started.clone()];
    let run = native_run(Kind::Devices, &[events.concat(), complete_ok()]);
    assert_eq!(run.objects("device"), Some([2, 1, 0, 1]));
    // The events of newer releases for the same two objects add no third.
    let [item_started, item_done] =
        ["processing", "completed"].map(|status| item_progress("devices", status, "pve01"));
    let events = [&item_started, &started, &item_done, &done, &item_started, &started, &done, &item_done];
    let run = native_run(Kind::Devices, &[events.map(String::as_str).concat(), complete_ok()]);
    // Both are in NetBox under one id.
    assert_eq!(run.objects("device"), Some([2, 1, 0, 1]));
    assert!(
        run.message().ends_with("The backend reported 2 devices as completed and counted 1."),
        "{}",
        run.message()
    );
}

#[test]
fn names_are_compared_whole() {
    let [one, other] =
        ["a", "b"].map(|end| object_step("device", "completed", &format!("{}{end}", "x".repeat(500))));
    let run = native_run(Kind::Devices, &[one, other, complete_ok()]);
    assert_eq!(run.objects("device"), Some([2, 2, 0, 0]));
}

#[test]
fn what_failed_without_a_name_is_counted_each_time_with_its_reason() {
    let nameless = |name: serde_json::Value, error: &str| {
        step(json!({"step": "virtual_machine", "status": "failed", "message": "m", "rowid": name,
            "payload": {"object": "virtual_machine", "data": {"rowid": name, "name": null, "error": error}}}))
    };
    let item = |name: serde_json::Value| {
        sse(
            "item_progress",
            json!({"phase": "virtual-machines", "status": "failed", "item": {"name": name},
            "error": "pve2 is offline"}),
        )
    };
    let frames =
        [nameless(json!(""), "no node"), nameless(json!("None"), "no node"), nameless(json!(null), "gone")];
    let run = native_run(Kind::VirtualMachines, &[frames.concat(), complete_ok()]);
    assert_eq!(run.objects("virtual_machine"), Some([3, 0, 3, 0]));
    assert!(!run.is_ok());
    let reasons = [
        ("virtual_machine", "", "no node"),
        ("virtual_machine", "", "no node"),
        ("virtual_machine", "", "gone"),
    ];
    assert_eq!(run.failed_steps(), reasons);
    assert!(run.detail().contains("1 virtual_machine, not named by the backend: gone"), "{}", run.detail());
    // Both forms report each of them.
    let items = [item(json!("")), item(json!(null)), item(json!("None"))];
    let run = native_run(Kind::VirtualMachines, &[frames.concat(), items.concat(), complete_ok()]);
    assert_eq!(run.objects("virtual_machine"), Some([3, 0, 3, 0]));
    // A row that reports a failed read is no row of an object, and is still a failure.
    let run = native_run(
        Kind::Snapshots,
        &[
            step(json!({"step": "snapshot", "status": "failed", "message": "m", "rowid": null,
                "payload": {"object": "snapshot", "data": {"completed": true, "error": "Error fetching VMs: 502"}}})),
            sse("complete", json!({"ok": true, "message": "m", "result": {"count": 0}})),
        ],
    );
    assert!(!run.is_ok() && run.detail().contains("Error fetching VMs: 502"), "{}", run.message());
}

#[test]
fn where_objects_were_looked_for_is_no_object() {
    let snapshots = |found: u64| {
        step(json!({"step": "snapshot", "status": "completed", "message": "m", "rowid": "web01",
            "payload": {"object": "snapshot", "data": {"completed": true, "name": "web01", "netbox_id": 3,
                "snapshots_found": found}}}))
    };
    let numbers = |created: u64| {
        sse(
            "complete",
            json!({"ok": true, "message": "m", "result": {"count": 1, "created": created, "updated": 0}}),
        )
    };
    let run = native_run(Kind::Snapshots, &[snapshots(0), numbers(0)]);
    assert!(run.has_message("Checked snapshots of web01: 0 found"), "{:?}", run.messages());
    assert_eq!((run.objects("snapshot"), run.is_ok()), (None, true));
    assert!(run.message().starts_with("Snapshots sync completed: nothing to do."), "{}", run.message());
    let run = native_run(Kind::Snapshots, &[snapshots(3), numbers(2)]);
    assert_eq!(run.objects("snapshot"), Some([3, 2, 0, 1]));
    let run = native_run(Kind::Snapshots, &[snapshots(3), numbers(0)]);
    assert!(!run.is_ok());
    assert_eq!(run.error().text("error"), "The backend confirmed none of 3 snapshots.");

    let disks = step(
        json!({"step": "virtual_disk", "status": "completed", "message": "m", "rowid": "web01-disks",
        "payload": {"object": "virtual_disk", "data": {"completed": true, "rowid": "web01-disks", "name": "web01",
            "sync_status": "completed", "disks": "3 disks (1 created, 1 updated)"}}}),
    );
    let run = native_run(Kind::VirtualDisks, &[disks.clone(), complete_ok()]);
    assert!(run.has_message("Checked disks of web01: 3 found"), "{:?}", run.messages());
    assert_eq!(run.objects("virtual_disk"), Some([3, 2, 0, 1]));

    let address = |address: serde_json::Value, id: serde_json::Value, name: &str| {
        step(json!({"step": "vm_ip", "status": "completed", "message": "m", "rowid": name,
            "payload": {"object": "vm_ip", "data": {"completed": true, "rowid": name, "vm": "web01",
                "address": address, "ip_id": id}}}))
    };
    let run = native_run(
        Kind::IpAddresses,
        &[
            address(json!("10.0.0.1/24"), json!(7), "net0"),
            address(json!(null), json!(null), "net1"),
            address(json!("No IP"), json!(null), "net2"),
            // An error that the backend ignored.
            address(json!("10.0.0.2/24"), json!(null), "net3"),
            complete_ok(),
        ],
    );
    assert!(run.has_message("Checked IP addresses of net1 on web01: 0 found"), "{:?}", run.messages());
    assert_eq!(run.objects("vm_ip"), Some([2, 1, 0, 1]));
}

#[test]
fn a_virtual_machine_of_which_a_part_failed_is_in_netbox() {
    let warned = sse(
        "item_progress",
        json!({"phase": "virtual-machines", "status": "warning",
        "message": "2 interfaces failed", "item": {"name": "web01", "netbox_id": 3}}),
    );
    let hardware = sse(
        "item_progress",
        json!({"phase": "hardware_discovery", "status": "failed",
        "operation": "failed", "message": "No SSH credential", "item": {"name": "pve1"}}),
    );
    let run = native_run(Kind::VirtualMachines, &[warned, hardware, complete_ok()]);
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));
    assert!(
        run.has_message("Synced virtual_machine web01 (warning: 2 interfaces failed)"),
        "{:?}",
        run.messages()
    );
    assert!(run.has_message("No SSH credential") && run.failed_steps().is_empty(), "{:?}", run.messages());
}

#[test]
fn an_object_that_is_done_is_not_begun_again() {
    let run = native_run(
        Kind::Devices,
        &[
            item_progress("devices", "completed", "pve01"),
            object_step("device", "progress", "pve01"),
            complete_ok(),
        ],
    );
    assert_eq!(run.objects("device"), Some([1, 1, 0, 0]));
    assert!(!run.has_message("Processing device pve01"));
}

#[test]
fn what_python_calls_none_is_no_object_and_no_end_of_a_stage() {
    let none = |status: &str, completed: bool, message: &str| {
        step(json!({"step": "virtual_machine", "status": status, "message": message, "rowid": "None",
            "payload": {"object": "virtual_machine", "type": "create",
                "data": {"completed": completed, "rowid": "None", "name": null}}}))
    };
    let run = native_run(
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
    // 0.0.4 filters out its disks and reports one without a name.
    let run = native_run(
        Kind::VirtualDisks,
        &[
            step(json!({"step": "virtual_disk", "status": "completed", "message": "Synced virtual_disk",
                "rowid": null, "payload": {"object": "virtual_disk", "data": {"completed": true}}})),
            object_step("virtual_disk", "completed", "web01-disks"),
            complete_ok(),
        ],
    );
    assert_eq!(run.messages().last(), Some(&"Virtual disks synchronization finished."));
    assert!(run.has_message("Checked disks of web01"), "{:?}", run.messages());
    assert_eq!(run.objects("virtual_disk"), None);
}

#[test]
fn the_last_status_of_an_object_counts() {
    let failed = step(json!({"step": "virtual_machine", "status": "failed", "rowid": "dns01",
        "message": "Could not set primary IP.", "payload": {"object": "virtual_machine",
            "data": {"error": "Could not set primary IP.", "rowid": "dns01"}}}));
    let run = native_run(
        Kind::VirtualMachines,
        &[
            object_step("virtual_machine", "progress", "dns01"),
            failed.clone(),
            item_progress("virtual-machines", "completed", "dns01"),
            complete_ok(),
        ],
    );
    assert!(run.is_ok());
    assert_eq!(run.failed_steps(), [("virtual_machine", "dns01", "Could not set primary IP.")]);
    assert!(run.has_message("Synced virtual_machine dns01"));
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));

    let run = native_run(
        Kind::VirtualMachines,
        &[item_progress("virtual-machines", "completed", "dns01"), failed, complete_ok()],
    );
    // Only a part of it failed: the machine is in NetBox.
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));
    assert_eq!(run.failed_steps().len(), 1);
    assert!(run.is_ok());
}

#[test]
fn a_warning_is_reported_with_its_object() {
    let run = native_run(
        Kind::VirtualMachines,
        &[
            step(json!({"step": "virtual_machine", "status": "completed", "rowid": "web02",
                "message": "No IP address found; primary IP not set.",
                "payload": {"object": "virtual_machine", "data": {"completed": true, "status": "warning",
                    "warning": "No IP address found; primary IP not set.", "rowid": "web02"}}})),
            item_progress("virtual-machines", "completed", "web02"),
            complete_ok(),
        ],
    );
    assert!(
        run.has_message("Synced virtual_machine web02 (warning: No IP address found; primary IP not set.)"),
        "{:?}",
        run.messages()
    );
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));
}

#[test]
fn names_are_given_without_their_markup() {
    let run = native_run(
        Kind::Devices,
        &[
            step(json!({"step": "device", "status": "completed", "message": "m", "rowid": null,
                "payload": {"object": "device", "data": {"completed": true,
                    "name": "<a href='http://netbox/dcim/devices/1/'>pve01</a>"}}})),
            item_progress("devices", "completed", "<b onclick=\"x\">pve02</b>"),
            complete_ok(),
        ],
    );
    assert!(
        run.has_message("Synced device pve01") && run.has_message("Synced device pve02"),
        "{:?}",
        run.messages()
    );
    assert!(run.events.iter().all(|event| !event.data.to_string().contains('<')));
}

#[test]
fn the_messages_of_the_job_page_are_kept_verbatim() {
    let run = native_run(
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
fn an_unknown_stage_is_reported() {
    let run = native_run(
        Kind::FullUpdate,
        &[
            step(json!({"step": "sweep-orphans", "status": "started", "message": "m", "metadata": {"a": 1}})),
            step(json!({"step": "sweep-orphans", "status": "completed", "message": "m"})),
            complete_ok(),
        ],
    );
    assert!(run.has_message("Starting sweep-orphans synchronization."), "{:?}", run.messages());
    assert!(run.has_message("Sweep-orphans synchronization finished."), "{:?}", run.messages());
}

#[test]
fn a_cut_in_the_middle_of_an_event_loses_nothing() {
    let mut drive = open_native(Kind::Devices);
    let events = [object_step("device", "completed", "pve01"), complete_ok()].concat();
    let (left, right) = events.split_at(events.len() / 3);
    let run = drive.stream(left).stream(right).hang_up().run();
    assert!(run.is_ok() && run.has_message("Synced device pve01"));
}
