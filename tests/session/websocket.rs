//! Commands over `/ws`, in the dialect of each release.

use std::time::Duration;

use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent};
use proxbox_bridge::core::upstream::dialect::{BARRIER, Dialect};
use serde_json::{Value, json};

use crate::support::session::drive::{Drive, LIMITS};
use crate::support::session::events::{VALID, barrier, end, frame, open_run, ws, ws_setup};
use crate::support::session::run::FinishedRun;

const SECOND: Duration = Duration::from_secs(1);

/// A frame of a backend that repeats the `run_id` in each.
fn correlated(mut frame: Value) -> String {
    frame["run_id"] = json!("run-0123456789");
    frame.to_string()
}

fn correlated_end(object: &str) -> String {
    correlated(json!({"object": object, "end": true}))
}

fn correlated_barrier(drive: &mut Drive) -> &mut Drive {
    drive
        .text(&correlated(json!({"message": "Invalid sync command"})))
        .text(&correlated(json!({"message": VALID})))
}

fn run_end(status: &str, devices: &str, machines: &str) -> String {
    correlated(json!({"object": "full-update", "end": true, "status": status,
        "stages": {"devices": devices, "virtual-machines": machines}}))
}

#[test]
fn a_command_ends_when_the_barrier_behind_it_is_answered() {
    for dialect in [Dialect::V0_0_2, Dialect::V0_0_3, Dialect::V0_0_4, Dialect::V0_0_7] {
        let mut drive = ws(Kind::Devices, dialect);
        drive.text("Received message: Sync Nodes").text("Sync Nodes");
        drive
            .text(&frame("device", "pve01", "syncing"))
            .text(&frame("device", "pve01", "completed"))
            .text(&end("device"));
        assert!(drive.end.is_none(), "{dialect:?}: the end of a stage is not the end of the command");
        drive.text(&format!("Received message: {BARRIER}")).text(&barrier());
        let run = drive.run();
        assert_eq!(
            run.messages(),
            [
                "Starting devices synchronization.",
                "Processing device pve01",
                "Synced device pve01",
                "Devices synchronization finished.",
            ],
            "{dialect:?}"
        );
        assert_eq!(run.message(), "Devices sync completed. 1 object: 1 completed.");
        assert_eq!(drive.closed, 1);
    }
}

#[test]
fn the_barrier_is_answered_without_its_name_since_0_0_23() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_23);
    drive.text("Sync Nodes").text(&frame("device", "pve01", "completed")).text(&end("device"));
    assert!(drive.end.is_none());
    assert!(drive.text("Invalid sync command").run().is_ok());
}

#[test]
fn silence_is_no_end() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    drive.text(&end("device")).wait(60 * SECOND);
    assert!(drive.end.is_none());
}

#[test]
fn devices_that_0_0_2_never_confirms_are_unconfirmed_in_a_run_that_is_ok() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_2);
    for name in ["pve01", "pve02", "pve03"] {
        drive.text(&frame("device", name, "syncing"));
    }
    // No device frame can be late, so the run does not wait.
    let run = drive.text(&end("device")).text(&barrier()).run();
    assert!(run.is_ok());
    assert_eq!(run.objects("device"), Some([3, 0, 0, 3]));
    assert!(!run.has_message("Synced device pve01"));
}

fn full_update_of_0_0_2() -> Drive {
    let mut drive = ws(Kind::FullUpdate, Dialect::V0_0_2);
    drive
        .text("Received message: Full Update Sync")
        .text(&frame("device", "pve01", "syncing"))
        .text(&end("device"));
    for name in ["web01", "web02", "web03"] {
        drive.text(&frame("virtual_machine", name, "syncing"));
    }
    drive.text(&frame("virtual_machine", "web01", "completed")).text(&end("virtual_machine"));
    drive.text("Invalid command: Full Update Sync").text(VALID);
    drive
}

#[test]
fn a_full_update_that_0_0_2_disowns_is_neither_ended_nor_failed_by_it() {
    let mut drive = full_update_of_0_0_2();
    assert!(drive.end.is_none());
    drive
        .text(&frame("virtual_machine", "web02", "completed"))
        .text(&frame("virtual_machine", "web03", "completed"));
    let run = drive.text(&barrier()).run();
    assert!(run.is_ok());
    // Frames after the end of the stage prove that an unnamed object failed in it.
    assert_eq!(run.objects("virtual_machine"), Some([4, 3, 1, 0]));
    assert_eq!(
        run.messages(),
        [
            "Starting full update synchronization.",
            "Starting devices synchronization.",
            "Processing device pve01",
            "Devices synchronization finished.",
            "Starting virtual machines synchronization.",
            "Processing virtual_machine web01",
            "Processing virtual_machine web02",
            "Processing virtual_machine web03",
            "Synced virtual_machine web01",
            "Synced virtual_machine web02",
            "Synced virtual_machine web03",
            "Failed: 1 virtual_machine, not named by the backend",
            "Virtual machines synchronization finished.",
        ]
    );
}

/// A run of virtual machines on 0.0.2, of which the guests are known, and which of them are confirmed before and behind
/// the end of the stage.
fn listed(before: &[&str], behind: &[&str]) -> FinishedRun {
    let mut setup = ws_setup(Kind::VirtualMachines, Some(Dialect::V0_0_2));
    setup.guests = ["web01", "web02", "web03"].map(str::to_owned).to_vec();
    let mut drive = open_run(setup);
    drive.text("Connected!");
    for name in before {
        drive
            .text(&frame("virtual_machine", name, "syncing"))
            .text(&frame("virtual_machine", name, "completed"));
    }
    drive.text(&end("virtual_machine"));
    for name in behind {
        drive.text(&frame("virtual_machine", name, "completed"));
    }
    drive.text(&barrier()).wait(LIMITS.settle);
    drive.run()
}

#[test]
fn the_list_of_guests_names_the_one_that_0_0_2_never_reported() {
    let run = listed(&["web01"], &["web03"]);
    assert_eq!(run.objects("virtual_machine"), Some([3, 2, 1, 0]));
    assert_eq!(run.report.failed_objects[0].object, "virtual_machine web02");
    // It may be either.
    let run = listed(&[], &["web03"]);
    assert_eq!(run.objects("virtual_machine"), Some([3, 1, 1, 1]));
    assert_eq!(run.report.failed_objects[0].object, "1 virtual_machine, not named by the backend");
    // All of them are in NetBox. Only a part of one can have failed.
    let run = listed(&["web01", "web02"], &["web03"]);
    assert_eq!(run.objects("virtual_machine"), Some([3, 3, 0, 0]));
    assert!(run.is_ok() && run.message().contains("a part of one has failed."), "{}", run.message());
    let run = listed(&["web01", "web02", "web03"], &[]);
    assert!(run.message().ends_with("3 objects: 3 completed."), "{}", run.message());
    // The total is unknown, so nothing is known of any object.
    let mut drive = ws(Kind::VirtualMachines, Dialect::V0_0_2);
    let run = drive.text(&end("virtual_machine")).text(&barrier()).wait(LIMITS.settle).run();
    assert_eq!(run.message(), "Virtual machines sync completed.");
    let run = listed(&[], &[]);
    assert_eq!(run.detail(), "The backend confirmed none of 3 virtual machines.");
}

#[test]
fn frames_that_come_after_the_end_of_the_command_are_counted() {
    let mut drive = full_update_of_0_0_2();
    drive.text(&barrier()).wait(2 * SECOND).text(&frame("virtual_machine", "web02", "completed"));
    assert!(drive.end.is_none(), "one machine is still awaited");
    drive.wait(2 * SECOND).text(&frame("virtual_machine", "web03", "completed"));
    assert_eq!(drive.run().objects("virtual_machine"), Some([4, 3, 1, 0]));
}

#[test]
fn late_frames_that_confirm_nothing_are_waited_for_no_longer_than_settle_total() {
    let mut drive = full_update_of_0_0_2();
    drive.text(&barrier());
    let mut waited = Duration::ZERO;
    while drive.end.is_none() && waited < LIMITS.total {
        // One more is done after 20 s, and the wait begins anew.
        let status = if waited == 20 * SECOND { "completed" } else { "syncing" };
        drive.wait(SECOND).text(&frame("virtual_machine", "web02", status));
        waited += SECOND;
    }
    assert_eq!(waited, 21 * SECOND + LIMITS.settle_total);
    assert_eq!(drive.run().objects("virtual_machine").map(|counts| counts[1]), Some(2));
}

#[test]
fn late_frames_about_further_machines_do_not_extend_the_wait() {
    let mut drive = full_update_of_0_0_2();
    drive.text(&barrier());
    let mut waited = Duration::ZERO;
    while drive.end.is_none() && waited < LIMITS.total {
        let name = format!("late{}", waited.as_secs());
        drive.wait(SECOND).text(&frame("virtual_machine", &name, "syncing"));
        drive.text(&frame("virtual_machine", &name, "completed"));
        waited += SECOND;
    }
    assert_eq!(waited, LIMITS.settle_total);
}

#[test]
fn the_wait_for_late_frames_ends_with_silence() {
    let mut drive = full_update_of_0_0_2();
    drive.text(&barrier()).wait(LIMITS.settle - SECOND);
    assert!(drive.end.is_none());
    drive.wait(SECOND);
    let run = drive.run();
    assert!(run.is_ok());
    // A good run confirms them all before it ends the stage.
    assert_eq!(run.objects("virtual_machine"), Some([3, 1, 1, 1]));
}

#[test]
fn a_command_of_0_0_2_after_which_nothing_is_outstanding_ends_the_run_at_once() {
    let mut drive = full_update_of_0_0_2();
    for name in ["web02", "web03"] {
        drive.text(&frame("virtual_machine", name, "completed"));
    }
    assert!(drive.end.is_none(), "the end of a stage is not the end of the command");
    assert!(drive.text(&barrier()).run().is_ok());
}

#[test]
fn the_wait_for_late_frames_ends_with_the_socket() {
    for how in
        [CloseReason::Cleanly, CloseReason::Broken("reset"), CloseReason::Frame { code: 1000, reason: "" }]
    {
        let mut drive = full_update_of_0_0_2();
        drive.text(&barrier()).event(SessionEvent::Closed(how));
        assert!(drive.run().is_ok(), "{how:?}");
    }
}

#[test]
fn the_third_frame_of_a_machine_that_0_0_2_sends_is_not_a_beginning() {
    let mut drive = ws(Kind::VirtualMachines, Dialect::V0_0_2);
    let third = json!({"object": "virtual_machine", "type": "create", "data": {"sync_status": "completed",
        "name": "web01", "rowid": "web01", "vm_interfaces": ["<a href='http://netbox/1/'>net0</a>"]}});
    drive.text(&frame("virtual_machine", "web01", "syncing")).text(&third.to_string());
    let run = drive.text(&end("virtual_machine")).text(&barrier()).run();
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));
}

#[test]
fn a_command_that_is_not_known_is_a_failure_on_any_other_release() {
    for dialect in [Dialect::V0_0_3, Dialect::V0_0_4, Dialect::V0_0_7] {
        let mut drive = ws(Kind::FullUpdate, dialect);
        drive.text("Invalid command: Full Update Sync");
        let run = drive.run();
        assert_eq!(run.report.cause, Some(Cause::BackendFailed), "{dialect:?}");
        assert!(run.detail().contains("does not know the command \"Full Update Sync\""), "{}", run.detail());
    }
}

#[test]
fn two_end_markers_end_a_stage_once() {
    let mut drive = ws(Kind::FullUpdate, Dialect::V0_0_3);
    drive.text(&frame("device", "pve01", "syncing")).text(&frame("device", "pve01", "completed"));
    drive.text(&end("device")).text(&end("devices"));
    drive.text(&frame("virtual_machine", "web01", "syncing"));
    drive.text(&end("virtual_machine")).text(&end("virtual-machines"));
    let run = drive.text(&barrier()).run();
    assert!(run.is_ok());
    let ends = ["Devices synchronization finished.", "Virtual machines synchronization finished."];
    for end in ends {
        assert_eq!(run.messages().iter().filter(|message| **message == end).count(), 1, "{end}");
    }
    assert_eq!(run.objects("virtual_machine"), Some([1, 0, 0, 1]), "0.0.3 confirms no machine");
}

#[test]
fn the_end_of_a_stage_that_the_command_does_not_have_ends_nothing() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_3);
    drive.text(&end("virtual_machine")).text(&frame("device", "pve01", "completed")).text(&end("device"));
    let run = drive.text(&barrier()).run();
    assert!(run.is_ok());
    let stages: Vec<&str> =
        run.messages().into_iter().filter(|message| message.contains("synchronization")).collect();
    assert_eq!(stages, ["Starting devices synchronization.", "Devices synchronization finished."]);
}

#[test]
fn a_full_update_that_skips_its_machines_fails_and_says_why() {
    let mut drive = ws(Kind::FullUpdate, Dialect::V0_0_7);
    let run = drive.text(&end("device")).text(&barrier()).run();
    assert_eq!(run.report.cause, Some(Cause::BackendFailed));
    assert_eq!(
        run.error().text("error"),
        "The backend ended the command without an end of the virtual machines stage."
    );
    assert!(run.detail().contains("skips virtual machines when the devices stage returned none"));
    assert!(!run.has_message("Virtual machines synchronization finished."));
}

#[test]
fn a_command_that_returns_without_an_end_of_its_stage_has_failed() {
    let run = ws(Kind::Devices, Dialect::V0_0_7).text(&barrier()).run();
    assert_eq!(run.report.cause, Some(Cause::BackendFailed));
    assert!(run.detail().contains("without an end of the devices stage"), "{}", run.detail());
    assert!(!run.has_message("Devices synchronization finished."));
    let run = ws(Kind::VirtualMachines, Dialect::V0_0_7).text(&barrier()).run();
    assert!(
        run.detail().contains("only in its own log"),
        "no devices stage was to be done: {}",
        run.detail()
    );
}

#[test]
fn a_polite_close_in_the_middle_is_how_a_failure_looks() {
    let mut drive = ws(Kind::VirtualMachines, Dialect::V0_0_7);
    drive
        .text(&frame("virtual_machine", "web01", "completed"))
        .text(&frame("virtual_machine", "web02", "syncing"));
    drive.wait(5 * SECOND).close(1000, "");
    let run = drive.run();
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::BackendFailed), Outcome::Errored));
    assert!(run.detail().contains("code 1000"), "{}", run.detail());
    assert!(
        run.detail().contains("5.0 s after the start and after 2 objects (1 completed, 0 failed)"),
        "{}",
        run.detail()
    );
}

#[test]
fn a_close_between_the_end_of_the_stage_and_the_barrier_is_a_failure_too() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    drive.text(&end("device")).close(1000, "");
    assert_eq!(drive.run().report.cause, Some(Cause::BackendFailed));
}

#[test]
fn a_socket_that_drops_in_the_middle_is_a_backend_that_was_lost() {
    for (how, said) in
        [(CloseReason::Cleanly, "dropped /ws"), (CloseReason::Broken("reset by peer"), "reset by peer")]
    {
        let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
        drive.event(SessionEvent::Closed(how));
        let run = drive.run();
        assert_eq!(run.report.cause, Some(Cause::BackendLost));
        assert!(run.detail().contains(said), "{}", run.detail());
    }
}

#[test]
fn side_frames_without_a_type_count_for_their_machine() {
    let mut drive = ws(Kind::VirtualMachines, Dialect::V0_0_7);
    for name in ["web01", "web02", "web03"] {
        drive.text(&frame("virtual_machine", name, "syncing"));
    }
    let warning = json!({"object": "virtual_machine", "data": {"completed": true, "status": "warning",
        "warning": "No IP address found; primary IP not set.", "rowid": "web01"}});
    let error = json!({"object": "virtual_machine", "data": {"error": "Could not set primary IP.", "rowid": "web02"}});
    drive.text(&warning.to_string()).text(&error.to_string());
    let run = drive.text(&end("virtual_machine")).text(&barrier()).run();
    assert!(run.is_ok());
    assert_eq!(run.objects("virtual_machine"), Some([3, 1, 0, 2]));
    assert_eq!(run.failed_steps(), [("virtual_machine", "web02", "Could not set primary IP.")]);
}

#[test]
fn devices_that_all_failed_fail_the_command() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_3);
    let failed = json!({"object": "device", "type": "create", "data": {"completed": false,
        "increment_count": "no", "sync_status": "undefined", "rowid": "pve01",
        "error": "Device creation failed for pve01. netbox_device is None."}});
    let run = drive.text(&failed.to_string()).text(&end("device")).text(&barrier()).run();
    assert_eq!(run.report.cause, Some(Cause::ObjectsFailed));
}

#[test]
fn a_correlated_command_is_ended_by_its_own_barrier() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_27);
    drive.text(&correlated(json!({"message": "Sync Nodes"})));
    drive.text(&correlated(serde_json::from_str(&frame("device", "pve01", "completed")).expect("JSON")));
    drive.text(&correlated_end("device"));
    assert!(drive.end.is_none());
    let run = correlated_barrier(&mut drive).run();
    assert!(run.is_ok());
    assert_eq!(run.messages()[1..], ["Synced device pve01", "Devices synchronization finished."]);
}

#[test]
fn a_correlated_failure_is_reported_with_its_detail() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_27);
    drive.text(&correlated(json!({"event": "error_detail", "phase": "devices", "category": "internal",
        "message": "devices synchronization failed."})));
    assert!(drive.end.is_none(), "the socket stays open, and so does the command");
    let run = correlated_barrier(&mut drive).run();
    assert_eq!(run.report.cause, Some(Cause::BackendFailed));
    assert!(run.detail().contains("devices synchronization failed."), "{}", run.detail());
}

#[test]
fn a_correlated_failure_counts_although_the_stage_ended() {
    let mut drive = ws(Kind::VirtualMachines, Dialect::V0_0_27);
    drive.text(&correlated_end("virtual_machine"));
    drive.text(&correlated(
        json!({"event": "error_detail", "phase": "virtual-machines", "category": "internal",
        "message": "virtual-machines synchronization failed."}),
    ));
    let run = correlated_barrier(&mut drive).run();
    assert_eq!(run.report.cause, Some(Cause::BackendFailed));
    assert_eq!(run.detail(), "virtual-machines synchronization failed.");
}

fn correlated_full_update() -> Drive {
    let mut drive = ws(Kind::FullUpdate, Dialect::V0_0_27);
    drive.text(&correlated_end("device"));
    drive.text(&correlated(json!({"object": "task_history", "type": "sync",
        "data": {"status": "started", "message": "Starting task history sync"}})));
    drive.text(&correlated(json!({"object": "task_history", "end": true,
        "data": {"status": "completed", "errors": 0}})));
    drive
}

#[test]
fn the_end_of_the_task_history_is_the_end_of_nothing_else() {
    let mut drive = correlated_full_update();
    let run = correlated_barrier(&mut drive).run();
    assert!(!run.is_ok());
    assert!(run.detail().contains("without an end of the virtual machines stage"), "{}", run.detail());
    assert!(run.has_message("Starting task history sync"));
}

#[test]
fn a_correlated_full_update_says_itself_how_it_ended() {
    let mut drive = correlated_full_update();
    drive.text(&correlated_end("virtual_machine"));
    let run = drive.text(&run_end("completed", "completed", "completed")).run();
    assert!(run.is_ok(), "its own end needs no barrier");

    for (status, machines) in [("failed", "failed"), ("failed", "skipped"), ("completed", "skipped")] {
        let mut drive = correlated_full_update();
        drive.text(&correlated(json!({"event": "error_detail", "phase": "virtual-machines",
            "category": "internal", "message": "virtual-machines synchronization failed."})));
        let run = drive.text(&run_end(status, "completed", machines)).run();
        assert_eq!(run.report.cause, Some(Cause::BackendFailed));
        let said = format!("virtual-machines {machines}");
        assert!(run.error().text("error").contains(&said), "{}", run.error().data);
        assert!(run.detail().contains("virtual-machines synchronization failed."), "{}", run.detail());
        assert!(!run.error().text("error").contains("devices completed"));
    }
}

#[test]
fn text_that_is_no_frame_becomes_a_step_and_breaks_nothing() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    for text in ["Syncing <b>nodes</b>", "", "[1]", "{\"object\":", "{}", r#"{"object":"device","data":"x"}"#]
    {
        drive.text(text);
    }
    drive.text(&format!("{{\"<i>broken</i>{}", "x".repeat(100_000)));
    let run = drive.text(&end("device")).text(&barrier()).run();
    assert!(run.is_ok());
    assert!(run.has_message("Syncing nodes"), "{:?}", run.messages());
    assert!(run.events.iter().all(|event| !event.data.to_string().contains('<')), "{:?}", run.messages());
    assert_eq!(run.report.unreadable, 7);
}

#[test]
fn names_with_line_ends_and_markup_are_safe() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    drive.text(&frame("device", "<a href='x'>caf\u{e9}\u{2028}01</a>", "completed"));
    let run = drive.text(&end("device")).text(&barrier()).run();
    assert!(run.has_message("Synced device caf\u{e9} 01"), "{:?}", run.messages());
}
