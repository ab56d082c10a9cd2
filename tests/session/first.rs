//! 0.0.1, whose `/ws` marks no ends and closes at each failure and at the barrier.

use std::time::Duration;

use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::core::run::session::CloseReason;
use proxbox_bridge::core::run::session::SessionEvent;
use proxbox_bridge::core::upstream::dialect::{BARRIER, Dialect};
use serde_json::json;

use crate::support::session::drive::{Drive, LIMITS};
use crate::support::session::events::{frame, open_run, ws_setup};

const SYNCED: &str =
    "<span class='text-bg-green badge p-1' title='Synced VM'><i class='mdi mdi-check'></i></span>";

/// A run of `kind` that 0.0.1 has greeted, in its one frame.
fn greeted(kind: Kind) -> Drive {
    let mut drive = open_run(ws_setup(kind, Some(Dialect::V0_0_1)));
    drive.text("Connected!");
    assert!(drive.accepted);
    drive
}

/// The frames of one virtual machine: begun, written, and written with its interfaces.
fn machine(drive: &mut Drive, name: &str) {
    drive.text(&frame("virtual_machine", name, "syncing"));
    let mut data = json!({
        "completed": true, "increment_count": "yes", "sync_status": SYNCED, "rowid": name, "netbox_id": name.bytes().map(u64::from).sum::<u64>(),
        "name": format!("<a href='http://netbox/7/'>{name}</a>"), "vm_interfaces": [],
    });
    drive.text(&json!({ "object": "virtual_machine", "type": "create", "data": data }).to_string());
    data["vm_interfaces"] = json!(["<a href='http://netbox/8/'>net0</a>"]);
    let fields = data.as_object_mut().expect("an object");
    fields.remove("completed");
    fields.remove("increment_count");
    drive.text(&json!({ "object": "virtual_machine", "type": "create", "data": data }).to_string());
}

fn nodes(drive: &mut Drive) {
    for name in ["pve01", "pve02"] {
        drive.text(&frame("device", name, "syncing"));
    }
}

#[test]
fn each_command_is_followed_by_one_whose_first_frame_tells_its_end() {
    for (kind, commands) in [
        (Kind::Devices, &["Sync Nodes", "Sync Nodes"][..]),
        (Kind::VirtualMachines, &["Sync Virtual Machines", "Sync Nodes"]),
        (Kind::FullUpdate, &["Sync Nodes", "Sync Virtual Machines", "Sync Nodes"]),
    ] {
        assert_eq!(greeted(kind).sent, [commands, &[BARRIER][..]].concat(), "{kind}");
    }
}

#[test]
fn devices_have_ended_when_the_first_of_them_is_repeated() {
    let mut drive = greeted(Kind::Devices);
    nodes(&mut drive);
    nodes(&mut drive);
    assert!(drive.end.is_none(), "it closes the socket at the barrier");
    let run = drive.close(1000, "").run();
    assert!(run.is_ok(), "{}", run.message());
    assert_eq!(run.objects("device"), Some([2, 0, 0, 2]), "no frame confirms a device");
    assert_eq!(run.messages().iter().filter(|message| message.contains("pve01")).count(), 1);
}

#[test]
fn a_device_that_is_confirmed_is_not_one_of_the_next_command() {
    let mut drive = greeted(Kind::Devices);
    drive.text(&frame("device", "pve01", "syncing")).text(&frame("device", "pve01", "completed"));
    let run = drive.close(1000, "").run();
    assert!(!run.is_ok(), "the command failed behind its first device: {}", run.message());

    let mut drive = greeted(Kind::Devices);
    for name in ["pve01", "pve02"] {
        drive.text(&frame("device", name, "syncing")).text(&frame("device", name, "completed"));
    }
    nodes(&mut drive);
    let run = drive.close(1000, "").run();
    assert!(run.is_ok(), "{}", run.message());
    assert_eq!(run.objects("device"), Some([2, 2, 0, 0]));
}

#[test]
fn a_socket_that_is_closed_before_the_next_command_has_begun_is_a_failure() {
    let mut drive = greeted(Kind::Devices);
    nodes(&mut drive);
    let run = drive.close(1000, "").run();
    assert!(!run.is_ok());
    assert!(run.detail().contains("before the command had returned"), "{}", run.detail());
    assert_eq!((run.report.outcome, run.report.cause), (Outcome::Errored, Some(Cause::BackendFailed)));

    let mut drive = greeted(Kind::VirtualMachines);
    machine(&mut drive, "web01");
    drive.text(&frame("virtual_machine", "web02", "syncing"));
    let run = drive.close(1000, "").run();
    assert!(!run.is_ok(), "one virtual machine that fails ends the command");
    assert_eq!(run.objects("virtual_machine"), Some([2, 1, 0, 1]));
}

#[test]
fn virtual_machines_have_ended_at_the_first_device() {
    let mut drive = greeted(Kind::VirtualMachines);
    machine(&mut drive, "web01");
    machine(&mut drive, "web02");
    nodes(&mut drive);
    let run = drive.close(1000, "").run();
    assert!(run.is_ok(), "{}", run.message());
    assert_eq!(run.objects("virtual_machine"), Some([2, 2, 0, 0]));
    assert_eq!(run.objects("device"), None, "they belong to the command that tells of the end");
    let synced =
        run.messages().iter().filter(|message| message.contains("Synced virtual_machine web01")).count();
    assert_eq!(synced, 1, "{:?}", run.messages());
}

#[test]
fn the_stages_of_a_full_update_end_one_after_the_other() {
    let mut drive = greeted(Kind::FullUpdate);
    nodes(&mut drive);
    machine(&mut drive, "web01");
    nodes(&mut drive);
    let run = drive.close(1000, "").run();
    assert!(run.is_ok(), "{}", run.message());
    let finished: Vec<&str> = run.messages().into_iter().filter(|text| text.ends_with("finished.")).collect();
    assert_eq!(finished, ["Devices synchronization finished.", "Virtual machines synchronization finished."]);
    assert_eq!(run.objects("virtual_machine"), Some([1, 1, 0, 0]));

    let mut drive = greeted(Kind::FullUpdate);
    nodes(&mut drive);
    machine(&mut drive, "web01");
    assert!(!drive.close(1000, "").run().is_ok(), "its virtual machines failed");
}

#[test]
fn a_full_update_of_a_cluster_without_guests_ends_with_the_second_list_of_devices() {
    let mut drive = greeted(Kind::FullUpdate);
    nodes(&mut drive);
    nodes(&mut drive);
    let run = drive.close(1000, "").run();
    assert!(run.is_ok(), "{}", run.message());
    assert_eq!(run.objects("device"), Some([2, 0, 0, 2]));
}

#[test]
fn the_state_of_the_socket_after_the_end_does_not_matter() {
    let ends: [fn(&mut Drive); 3] = [
        |drive| {
            drive.event(SessionEvent::Closed(CloseReason::Broken("reset")));
        },
        |drive| {
            drive.wait(LIMITS.settle + Duration::from_millis(1));
        },
        |drive| {
            // The next command goes on.
            drive.wait(LIMITS.settle / 3 * 2).text(&frame("device", "pve03", "syncing"));
            drive.wait(LIMITS.settle / 3 * 2);
        },
    ];
    for end in ends {
        let mut drive = greeted(Kind::VirtualMachines);
        machine(&mut drive, "web01");
        nodes(&mut drive);
        end(&mut drive);
        assert!(drive.run().is_ok());
    }
}
