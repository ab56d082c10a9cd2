//! A full update that is composed of the stages that a backend has.

use std::time::Duration;

use proxbox_bridge::core::domain::channel::{Channel, ChannelChoice};
use proxbox_bridge::core::domain::kind::{FULL_UPDATE, Kind, SyncEndpoint, WsCommand};
use proxbox_bridge::core::domain::outcome::Cause;
use proxbox_bridge::core::run::capabilities::Capabilities;
use proxbox_bridge::core::run::plan::{Leg, RunPlan, plan};
use proxbox_bridge::core::run::session::{SessionEvent, SessionSetup};
use proxbox_bridge::core::upstream::dialect::Dialect;
use serde_json::json;

use crate::support::session::drive::{Drive, setup};
use crate::support::session::events::{
    KEY, barrier, complete_ok, end, error, frame, item_progress, object_step, open_run, sse,
};

fn leg(kind: Kind, channel: Channel) -> Leg {
    let command = kind.row().command.filter(|_| channel == Channel::Websocket);
    Leg { endpoint: SyncEndpoint::for_kind(kind), kinds: vec![kind], channel, command }
}

fn composed(legs: Vec<Leg>, skipped: Vec<Kind>) -> SessionSetup {
    let mut setup = setup(Kind::FullUpdate, Channel::Native);
    setup.plan = RunPlan { legs, skipped };
    setup
}

fn count(count: u64) -> String {
    sse("complete", json!({"ok": true, "message": "sync completed.", "result": {"count": count}}))
}

#[test]
fn stages_are_run_in_order_each_on_its_own_connection() {
    let mut drive = open_run(composed(
        vec![
            leg(Kind::Devices, Channel::Native),
            leg(Kind::Storage, Channel::Json),
            leg(Kind::VirtualMachines, Channel::Native),
        ],
        vec![],
    ));
    assert_eq!(drive.opened.len(), 1, "the second is opened when the first is done");
    drive.stream(&object_step("device", "completed", "pve01")).stream(&count(1)).hang_up();
    assert_eq!((drive.opened.len(), drive.closed), (2, 1));
    drive.answer(200, r#"[{"id":1},{"id":2}]"#);
    assert_eq!((drive.opened.len(), drive.closed), (3, 2));
    drive.open().stream(&object_step("virtual_machine", "completed", "web01")).stream(&count(1)).hang_up();

    let paths: Vec<String> = drive.opened.iter().map(Leg::path).collect();
    assert_eq!(
        paths,
        [
            "/dcim/devices/create/stream",
            "/virtualization/virtual-machines/storage/create",
            "/virtualization/virtual-machines/create/stream",
        ]
    );
    let run = drive.run();
    assert_eq!(
        run.messages(),
        [
            "Starting full update synchronization.",
            "Starting devices synchronization.",
            "Synced device pve01",
            "Devices synchronization finished.",
            "Starting storage synchronization.",
            "Storage synchronization finished.",
            "Starting virtual machines synchronization.",
            "Synced virtual_machine web01",
            "Virtual machines synchronization finished.",
        ]
    );
    assert_eq!(run.message(), "Full update sync completed. 4 objects: 4 completed.");
}

#[test]
fn the_counts_of_each_stage_are_kept_separate() {
    let mut drive = open_run(composed(
        vec![leg(Kind::Devices, Channel::Native), leg(Kind::VirtualDisks, Channel::Json)],
        vec![],
    ));
    let warned = sse(
        "complete",
        json!({"ok": true, "message": "m", "result": {"count": 3, "degraded": true, "warnings": ["pve03 is slow"]}}),
    );
    drive.stream(&object_step("device", "completed", "pve01")).stream(&warned).hang_up();
    drive.answer(200, r#"{"count":12,"created":2,"updated":10}"#);
    let result = drive.run().complete()["result"].clone();
    assert_eq!(result["count"], 3, "all that was confirmed, of which the twelve virtual machines are none");
    assert_eq!((&result["devices_count"], &result["virtual_disks_count"]), (&json!(3), &json!(12)));
    assert_eq!((&result["degraded"], &result["warnings"]), (&json!(true), &json!(["pve03 is slow"])));
    assert_eq!(result.get("created"), None, "of which stage?");
}

#[test]
fn what_failed_in_an_early_stage_is_named_in_the_end() {
    let mut drive = open_run(composed(
        vec![leg(Kind::Devices, Channel::Native), leg(Kind::VirtualMachines, Channel::Native)],
        vec![],
    ));
    drive
        .stream(&object_step("device", "completed", "pve01"))
        .stream(&item_progress("devices", "failed", "pve02"));
    drive.stream(&complete_ok()).hang_up().open();
    drive.stream(&object_step("virtual_machine", "completed", "web01")).stream(&complete_ok()).hang_up();
    assert_eq!(
        drive.run().message(),
        "Full update sync completed. 3 objects: 2 completed, 1 failed (device pve02: no room for pve02)."
    );
}

#[test]
fn stages_that_the_backend_cannot_do_are_named_in_a_step_and_in_the_end() {
    let mut drive =
        open_run(composed(vec![leg(Kind::Devices, Channel::Native)], vec![Kind::Backups, Kind::Snapshots]));
    let run = drive.stream(&complete_ok()).hang_up().run();
    assert!(run.is_ok());
    assert!(
        run.has_message("Backups synchronization skipped: this backend cannot do it in a full update."),
        "{:?}",
        run.messages()
    );
    assert!(
        run.has_message("Snapshots synchronization skipped: this backend cannot do it in a full update.")
    );
    assert!(
        run.message()
            .ends_with("Skipped, because this backend cannot do them in a full update: backups, snapshots."),
        "{}",
        run.message()
    );
}

#[test]
fn a_stage_that_fails_fails_the_whole_and_is_the_last() {
    let mut drive = open_run(composed(
        vec![
            leg(Kind::Devices, Channel::Native),
            leg(Kind::Storage, Channel::Native),
            leg(Kind::Backups, Channel::Native),
        ],
        vec![],
    ));
    drive.stream(&object_step("device", "completed", "pve01")).stream(&complete_ok()).hang_up();
    drive.open().stream(&error(json!("NetBox REST request failed"), json!("it answered 500"))).hang_up();
    assert_eq!(drive.opened.len(), 2, "the third is not opened");
    let run = drive.run();
    assert_eq!(run.report.cause, Some(Cause::BackendFailed));
    assert_eq!(run.detail(), "NetBox REST request failed | it answered 500");
    assert!(run.message().starts_with("Full update sync failed: NetBox REST request failed."));
    assert!(!run.has_message("Storage synchronization finished."));
}

#[test]
fn a_stage_that_is_refused_is_the_failure_of_the_stage() {
    let mut drive = open_run(composed(
        vec![leg(Kind::Devices, Channel::Native), leg(Kind::Storage, Channel::Native)],
        vec![],
    ));
    drive.stream(&complete_ok()).hang_up();
    drive.answer(502, r#"{"message":"Error fetching Proxmox cluster status","detail":null}"#);
    let run = drive.run();
    assert_eq!((run.report.cause, run.error().text("step")), (Some(Cause::Refused), "storage"));
    assert!(run.detail().contains("Error fetching Proxmox cluster status"), "{}", run.detail());
}

#[test]
fn a_stage_whose_objects_all_failed_fails_the_whole_though_others_did_well() {
    let mut drive = open_run(composed(
        vec![leg(Kind::Devices, Channel::Native), leg(Kind::Backups, Channel::Native)],
        vec![],
    ));
    drive
        .stream(&object_step("device", "completed", "pve01"))
        .stream(&item_progress("devices", "failed", "pve02"));
    drive.stream(&complete_ok()).hang_up().open();
    let failed = sse(
        "item_progress",
        json!({"phase": "backups", "status": "failed", "item": {"name": "b1"},
        "error": "gone"}),
    );
    let run = drive.stream(&failed).stream(&complete_ok()).hang_up().run();
    assert_eq!(run.report.cause, Some(Cause::ObjectsFailed));
    assert_eq!(run.error().text("error"), "1 of 1 backup objects failed, none completed.");
    assert_eq!(
        run.detail(),
        "1 of 1 backup objects failed, none completed. backup b1: gone",
        "what failed in another stage did not fail this one"
    );
}

#[test]
fn an_object_that_fails_in_a_later_stage_than_it_completed_in_breaks_nothing() {
    let stages = || vec![leg(Kind::VirtualMachines, Channel::Native), leg(Kind::Backups, Channel::Native)];
    let failed = sse(
        "error_detail",
        json!({"phase": "virtual-machines", "item": {"name": "web01"}, "message": "gone"}),
    );
    let completed = object_step("virtual_machine", "completed", "web01");

    let mut drive = open_run(composed(stages(), vec![]));
    drive.stream(&completed).stream(&complete_ok()).hang_up().open();
    let run = drive.stream(&failed).stream(&complete_ok()).hang_up().run();
    assert_eq!(run.objects("virtual_machine"), Some([1, 0, 1, 0]), "of two words the worse one is believed");
    assert_eq!(run.error().text("error"), "1 of 1 virtual_machine objects failed, none completed.");

    // And the other way round.
    let mut drive = open_run(composed(stages(), vec![]));
    drive.stream(&failed).stream(&object_step("virtual_machine", "completed", "web02"));
    drive.stream(&complete_ok()).hang_up().open();
    let run = drive.stream(&completed).stream(&complete_ok()).hang_up().run();
    assert!(run.is_ok(), "{}", run.detail());
    assert_eq!(run.objects("virtual_machine"), Some([2, 1, 1, 0]));
}

#[test]
fn a_later_stage_has_its_own_time_to_answer_and_the_run_one_time_for_all() {
    let mut setup =
        composed(vec![leg(Kind::Devices, Channel::Native), leg(Kind::Storage, Channel::Native)], vec![]);
    setup.limits.response_head = Duration::from_secs(60);
    let mut drive = open_run(setup);
    drive.wait(Duration::from_secs(100)).stream(&complete_ok()).hang_up();
    drive.wait(Duration::from_secs(59));
    assert!(drive.end.is_none());
    drive.wait(Duration::from_secs(1));
    let run = drive.run();
    assert_eq!((run.report.cause, run.error().text("step")), (Some(Cause::Idle), "storage"));
    assert!(run.detail().contains("2 min 40 s after the start"), "{}", run.detail());
}

#[test]
fn a_bridge_that_stops_between_two_stages_has_not_completed() {
    let mut drive = open_run(composed(
        vec![leg(Kind::Devices, Channel::Native), leg(Kind::Storage, Channel::Native)],
        vec![],
    ));
    drive.stream(&complete_ok()).event(SessionEvent::Stopped(Cause::Stopping));
    assert_eq!(drive.run().report.cause, Some(Cause::Stopping));
}

#[test]
fn a_later_stage_over_ws_sends_its_own_key_and_waits_for_its_own_greeting() {
    let mut setup = composed(
        vec![leg(Kind::Storage, Channel::Json), leg(Kind::VirtualMachines, Channel::Websocket)],
        vec![],
    );
    setup.dialect = Some(Dialect::V0_0_7);
    setup.credential = Some(KEY.parse().expect("a key"));
    let mut drive = Drive::start(setup);
    drive.answer(200, "[]").open();
    assert_eq!(drive.sent, [json!({"api_key": KEY}).to_string()]);
    drive.text("Connected!");
    assert_eq!(drive.sent[1], "Sync Virtual Machines");
    let run = drive
        .text(&frame("virtual_machine", "web01", "completed"))
        .text(&end("virtual_machine"))
        .text(&barrier())
        .run();
    assert!(run.is_ok());
}

#[test]
fn the_full_update_of_0_0_2_is_one_command_and_names_what_it_lacks() {
    let mut known =
        Capabilities { release: Some("0.0.2.post1".parse().expect("a release")), ..Default::default() };
    for kind in FULL_UPDATE.into_iter().chain([Kind::FullUpdate]) {
        known.streams.insert(SyncEndpoint::for_kind(kind), false);
    }
    let plan = plan(SyncEndpoint::for_kind(Kind::FullUpdate), &known, ChannelChoice::Auto).expect("a plan");
    let mut setup = composed(plan.legs, plan.skipped);
    setup.dialect = known.dialect();
    let mut drive = open_run(setup);
    assert_eq!((drive.opened.len(), drive.opened[0].command), (1, Some(WsCommand::FullUpdate)));
    drive
        .text("Connected!")
        .text("Connected 2!")
        .text(&frame("device", "pve01", "syncing"))
        .text(&end("device"));
    drive.text(&frame("virtual_machine", "web01", "completed")).text(&end("virtual_machine"));
    let run = drive.text("Invalid command: Full Update Sync").text(&barrier()).run();
    assert!(run.is_ok());
    assert!(
        run.message().ends_with(
            "Skipped, because this backend cannot do them in a full update: storage, virtual disks, backups, snapshots, \
             replications, backup routines."
        ),
        "{}",
        run.message()
    );
}

#[test]
fn an_equal_failure_in_two_stages_is_reported_in_each() {
    let legs = [Kind::Devices, Kind::Storage].map(|kind| leg(kind, Channel::Native)).to_vec();
    let mut drive = open_run(composed(legs, vec![]));
    let trouble = sse("error_detail", json!({"phase": "bootstrap", "message": "No branch"}));
    for _ in 0..2 {
        drive.stream(&trouble).stream(&count(1)).hang_up().open();
    }
    assert_eq!(drive.run().failed_steps().len(), 2);
}
