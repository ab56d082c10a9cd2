//! Event types that only backends send.

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::upstream::dialect::Dialect;
use serde_json::{Value, json};

use crate::support::session::drive::{Drive, setup};
use crate::support::session::events::{
    complete_ok, discovery, end, frame, item_progress, native_run, object_step, open_run, phase_summary, sse,
    ws,
};

/// One event of every type that any release sends on a sync stream, and one that none does.
fn every_extra() -> Vec<String> {
    vec![
        sse("bootstrap_done", json!({"ok": true, "skipped": false, "reason": null, "warnings": []})),
        discovery("devices", 1),
        item_progress("devices", "processing", "pve01"),
        sse(
            "substep",
            json!({"event": "substep", "phase": "devices", "substep": "reconcile", "status": "processing",
                "message": "Reconciling 'pve01'", "item": {"name": "pve01"}}),
        ),
        sse("hardware_discovery", json!({"event": "hardware_discovery", "node": "pve01", "nic_count": 4})),
        sse(
            "duplicate_name_resolved",
            json!({"event": "duplicate_name_resolved", "cluster": "lab", "original_name": "web01",
                "resolved_name": "web01 (2)", "vmid": 101}),
        ),
        sse("a_thing_of_next_year", json!({"what": "ever"})),
        item_progress("devices", "completed", "pve01"),
        phase_summary("devices", 1, 0),
    ]
}

#[test]
fn events_of_other_types_never_reach_a_reader() {
    let run = native_run(Kind::Devices, &[every_extra().concat(), complete_ok()]);
    assert!(run.events.iter().all(|event| matches!(event.name.as_str(), "step" | "complete")));
    assert_eq!(
        run.messages(),
        [
            "Starting devices synchronization.",
            "Discovered 1 object(s) to synchronize",
            "Processing device pve01",
            "Name web01 is taken, using web01 (2) instead",
            "Synced device pve01",
            "Sync completed: 1 synchronized, 0 failed",
            "Devices synchronization finished.",
        ]
    );
}

#[test]
fn what_no_person_needs_is_dropped_and_counted() {
    // The bootstrap, the substep, the hardware and the unknown event.
    let run = native_run(Kind::Devices, &[every_extra().concat(), complete_ok()]);
    assert_eq!((run.report.dropped, run.report.unreadable), (4, 0));
}

#[test]
fn a_client_that_asks_gets_every_event_and_still_a_stream_in_order() {
    let mut setup = setup(Kind::Devices, Channel::Native);
    setup.options.all_events = true;
    let odd = [
        "event: two words\ndata: {}\n\n",
        "event: caf\u{e9}\ndata: {}\n\n",
        "event: not_json\ndata: {\"a\":\n\n",
        "data: {\"no\": \"name\"}\n\n",
    ]
    .concat();
    let events = [every_extra().concat(), odd, complete_ok()].concat();
    let run = open_run(setup).stream(&events).hang_up().run();
    let names: Vec<&str> = run
        .events
        .iter()
        .map(|event| event.name.as_str())
        .filter(|name| !matches!(*name, "step" | "complete"))
        .collect();
    assert_eq!(
        names,
        [
            "bootstrap_done", "discovery", "item_progress", "substep", "hardware_discovery",
            "duplicate_name_resolved", "a_thing_of_next_year", "item_progress", "phase_summary",
        ]
    );
    let summary = run.events.iter().find(|event| event.name == "phase_summary").expect("a summary");
    assert_eq!(summary.data["result"]["created"], 1);
    // They come beside what every reader gets, not in place of it.
    assert!(run.has_message("Synced device pve01"));
}

#[test]
fn an_item_that_failed_is_a_failed_step_and_not_an_error() {
    let by_operation = sse(
        "item_progress",
        json!({"event": "item_progress", "phase": "devices", "status": "completed", "message": "m",
            "item": {"name": "pve03"}, "operation": "failed", "error": "no <b>room</b>"}),
    );
    let run = native_run(
        Kind::Devices,
        &[
            item_progress("devices", "completed", "pve01"),
            item_progress("devices", "failed", "pve02"),
            by_operation,
            complete_ok(),
        ],
    );
    assert!(run.is_ok());
    assert_eq!(
        run.failed_steps(),
        [("device", "pve02", "no room for pve02"), ("device", "pve03", "no room")]
    );
    assert!(run.has_message("Failed device pve02: no room for pve02"));
    assert_eq!(run.objects("device"), Some([3, 1, 2, 0]));
}

#[test]
fn a_failed_item_without_an_error_says_its_message() {
    let failed = sse(
        "item_progress",
        json!({"phase": "devices", "status": "failed", "message": "pve02 is gone", "item": {"name": "pve02"}}),
    );
    let run =
        native_run(Kind::Devices, &[item_progress("devices", "completed", "pve01"), failed, complete_ok()]);
    assert_eq!(run.failed_steps(), [("device", "pve02", "pve02 is gone")]);
}

#[test]
fn an_error_detail_about_an_item_is_the_failure_of_the_item() {
    for named in [json!({"name": "pve02", "item_type": "node"}), json!("pve02")] {
        let detail = sse(
            "error_detail",
            json!({"event": "error_detail", "phase": "devices", "item": named, "category": "validation",
                "message": "Could not create the device", "detail": {"name": ["taken"]},
                "suggestion": "Rename it"}),
        );
        let run = native_run(
            Kind::Devices,
            &[item_progress("devices", "completed", "pve01"), detail, complete_ok()],
        );
        assert!(run.is_ok());
        assert_eq!(run.objects("device"), Some([2, 1, 1, 0]));
        let [(step, rowid, error)] = run.failed_steps()[..] else { panic!("{:?}", run.failed_steps()) };
        assert_eq!((step, rowid), ("device", "pve02"));
        for part in ["Could not create the device", "taken", "Rename it"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn an_error_detail_about_no_item_is_a_failed_step_of_its_stage() {
    let detail = sse(
        "error_detail",
        json!({"event": "error_detail", "phase": "devices", "category": "internal", "message": "One cluster is down",
            "detail": "pve-b: connection refused"}),
    );
    let run =
        native_run(Kind::Devices, &[item_progress("devices", "completed", "pve01"), detail, complete_ok()]);
    assert!(run.is_ok(), "the backend called the run ok, and said nothing of a failed object");
    assert_eq!(run.failed_steps(), [("devices", "", "One cluster is down | pve-b: connection refused")]);
    assert!(run.has_message("Failed: One cluster is down"));
}

#[test]
fn a_failed_substep_is_reported_and_is_no_failure_of_its_object() {
    let substep = sse(
        "substep",
        json!({"phase": "virtual-machines", "substep": "vm_interfaces", "status": "failed",
            "message": "VM 'web02' guest-agent IPs unavailable", "item": {"name": "web02"}}),
    );
    let run = native_run(
        Kind::VirtualMachines,
        &[substep, item_progress("virtual-machines", "completed", "web02"), complete_ok()],
    );
    assert!(run.has_message("VM 'web02' guest-agent IPs unavailable"));
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));
}

#[test]
fn an_incomplete_bootstrap_is_reported_and_is_no_failure() {
    let bootstrap = sse(
        "bootstrap_done",
        json!({"ok": false, "skipped": false, "reason": null,
            "warnings": [{"object": "manufacturer:proxmox", "error": "NetBox REST request failed"}]}),
    );
    let run = native_run(
        Kind::FullUpdate,
        &[bootstrap, object_step("device", "completed", "pve01"), complete_ok()],
    );
    assert!(run.is_ok());
    let note = run.messages()[1];
    assert!(
        note.starts_with("NetBox bootstrap was not complete:") && note.contains("NetBox REST request failed"),
        "{note}"
    );
    let run = native_run(Kind::FullUpdate, &[sse("bootstrap_done", json!({"ok": false})), complete_ok()]);
    assert!(run.has_message("NetBox bootstrap was not complete."), "{:?}", run.messages());
}

#[test]
fn events_of_wrong_shapes_cost_no_more_than_themselves() {
    let names = ["step", "item_progress", "discovery", "phase_summary", "error_detail", "substep"];
    let shapes: [Value; 6] = [
        json!(null),
        json!(3),
        json!("text"),
        json!([]),
        json!({}),
        json!({"item": [], "result": 3, "count": -1}),
    ];
    let mut events = String::new();
    for name in names {
        for shape in &shapes {
            events.push_str(&sse(name, shape.clone()));
        }
    }
    let run =
        native_run(Kind::Devices, &[events, item_progress("devices", "completed", "pve01"), complete_ok()]);
    assert!(run.is_ok());
    assert_eq!(run.objects("device"), Some([1, 1, 0, 0]));
    assert!(run.report.unreadable > 0);
}

#[test]
fn the_frames_and_the_bytes_that_come_are_counted() {
    let count = |drive: &Drive| {
        let received = drive.session.received();
        (received.frames.total(), received.bytes)
    };
    let events = [item_progress("devices", "completed", "pve01"), complete_ok()];
    let mut drive = open_run(setup(Kind::Devices, Channel::Native));
    drive.stream(&events[0]).stream(&events[1]);
    assert_eq!(count(&drive), (2, events.concat().len() as u64));

    let frames = [frame("device", "pve01", "completed"), end("device")];
    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    let (before, bytes_before) = count(&drive);
    drive.text(&frames[0]).text(&frames[1]);
    assert_eq!(count(&drive), (before + 2, bytes_before + frames.concat().len() as u64));

    let body = r#"[{"id":1}]"#;
    let mut drive = Drive::start(setup(Kind::Devices, Channel::Json));
    drive.answer(200, body);
    assert_eq!(count(&drive), (1, body.len() as u64));
}
