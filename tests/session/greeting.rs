//! `/ws` before its first command: keys, greetings, refusals.

use std::time::Duration;

use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::Cause;
use proxbox_bridge::core::domain::refusal::{Refusal, RefusalBody};
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent};
use proxbox_bridge::core::upstream::dialect::{BARRIER, Dialect};
use serde_json::{Value, json};

use crate::support::session::drive::{Drive, LIMITS};
use crate::support::session::events::{KEY, barrier, end, frame, open_run, ws_setup};

const KEYLESS: [Dialect; 3] = [Dialect::V0_0_2, Dialect::V0_0_3, Dialect::V0_0_4];
const KEYED: [Dialect; 3] = [Dialect::V0_0_7, Dialect::V0_0_23, Dialect::V0_0_27];

fn opened(dialect: Dialect) -> Drive {
    open_run(ws_setup(Kind::Devices, Some(dialect)))
}

fn detail(refusal: &Refusal) -> &str {
    match &refusal.body {
        RefusalBody::Bridge { detail, .. } => detail,
        RefusalBody::Backend(_) => panic!("{refusal:?}"),
    }
}

#[test]
fn nothing_is_sent_to_a_backend_before_its_greeting() {
    for dialect in KEYLESS {
        let mut drive = opened(dialect);
        assert!(drive.sent.is_empty() && !drive.accepted, "{dialect:?}");
        drive.text("Connected!").text("Connected 2!");
        assert!(drive.accepted);
        assert_eq!(drive.sent, ["Sync Nodes", BARRIER], "command and barrier, once and together");
    }
}

#[test]
fn a_backend_that_wants_a_key_gets_it_first() {
    for dialect in KEYED {
        let mut drive = opened(dialect);
        assert_eq!(drive.sent, [json!({"api_key": KEY}).to_string()], "{dialect:?}");
        assert!(!drive.accepted, "a socket that is open is not a key that is accepted");
        drive.text("Connected!");
        assert!(drive.accepted);
        assert_eq!(drive.sent.len(), 3);
    }
}

#[test]
fn only_the_newest_dialect_puts_its_commands_into_envelopes() {
    for dialect in KEYED {
        let mut drive = opened(dialect);
        drive.text("Connected!");
        if dialect == Dialect::V0_0_27 {
            let envelopes: Vec<Value> =
                drive.sent[1..].iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
            assert_eq!(
                envelopes,
                [
                    json!({"command": "Sync Nodes", "run_id": "run-0123456789"}),
                    json!({"command": BARRIER, "run_id": "run-0123456789"}),
                ]
            );
        } else {
            assert_eq!(drive.sent[1..], ["Sync Nodes", BARRIER]);
        }
    }
}

#[test]
fn every_kind_has_the_command_that_every_release_knows() {
    for (kind, command) in [
        (Kind::Devices, "Sync Nodes"),
        (Kind::VirtualMachines, "Sync Virtual Machines"),
        (Kind::FullUpdate, "Full Update Sync"),
    ] {
        let mut drive = open_run(ws_setup(kind, Some(Dialect::V0_0_4)));
        drive.text("Connected!");
        assert_eq!(drive.sent[0], command);
    }
}

#[test]
fn without_a_key_no_request_is_sent_to_a_backend_that_requires_one() {
    for dialect in KEYED {
        let mut setup = ws_setup(Kind::Devices, Some(dialect));
        setup.credential = None;
        let drive = Drive::start(setup);
        assert!(drive.opened.is_empty() && drive.sent.is_empty(), "five refusals lock everybody out");
        let refusal = drive.refusal();
        assert_eq!((refusal.status, refusal.cause), (401, Cause::KeyRefused));
        assert!(detail(refusal).contains("API key"), "R15: {refusal:?}");
    }
}

#[test]
fn a_key_that_is_refused_is_a_401_that_names_the_api_key() {
    for (reason, output) in [
        ("Invalid API key. 1 attempts remaining.", "Invalid API key. 1 attempts remaining."),
        ("API key required. 3 attempts remaining.", "API key required. 3 attempts remaining."),
        ("Authentication failed", "Invalid API key. Authentication failed"),
        ("", "Invalid API key."),
    ] {
        let mut drive = opened(Dialect::V0_0_7);
        drive.close(4001, reason);
        let refusal = drive.refusal();
        assert_eq!((refusal.status, detail(refusal)), (401, output));
        assert_eq!((refusal.cause, &refusal.retry_after), (Cause::KeyRefused, &None));
    }
}

#[test]
fn a_lock_out_is_not_taken_for_a_bad_key() {
    // A plugin that gets an error about an API key registers it again, which counts for the lockout.
    let mut drive = opened(Dialect::V0_0_7);
    drive.close(4001, "Too many failed authentication attempts. Please try again later.");
    let refusal = drive.refusal();
    assert_eq!(refusal.status, 401);
    assert!(!detail(refusal).contains("API key"), "{refusal:?}");
}

#[test]
fn a_backend_that_is_busy_is_to_be_tried_again() {
    let mut drive = opened(Dialect::V0_0_23);
    drive.close(1013, "Authentication verification capacity is temporarily exhausted.");
    let refusal = drive.refusal();
    assert_eq!((refusal.status, refusal.retry_after.as_deref()), (503, Some("1")));
    assert!(detail(refusal).contains("capacity"));
}

#[test]
fn a_session_that_ends_before_it_began_is_a_502() {
    let mut drive = opened(Dialect::V0_0_27);
    drive.close(1001, "Session ended");
    let refusal = drive.refusal();
    assert_eq!((refusal.status, refusal.cause), (502, Cause::BackendLost));
    assert!(detail(refusal).contains("1001") && detail(refusal).contains("Session ended"), "{refusal:?}");
}

#[test]
fn a_socket_that_drops_before_it_greets_is_a_502() {
    for how in [CloseReason::Cleanly, CloseReason::Broken("reset")] {
        let mut drive = opened(Dialect::V0_0_4);
        drive.event(SessionEvent::Closed(how));
        assert_eq!(drive.refusal().status, 502, "{how:?}");
    }
}

#[test]
fn frames_before_the_greeting_are_ignored() {
    let mut drive = opened(Dialect::V0_0_4);
    drive.text(&frame("device", "pve99", "completed")).text(&end("device")).text(&barrier());
    assert!(!drive.accepted && drive.end.is_none() && drive.sent.is_empty());
    let run = drive
        .text("Connected!")
        .text(&frame("device", "pve01", "completed"))
        .text(&end("device"))
        .text(&barrier())
        .run();
    assert_eq!((run.objects("device"), run.report.unreadable), (Some([1, 1, 0, 0]), 3));
}

#[test]
fn a_backend_of_unknown_age_may_greet_without_a_key() {
    let mut setup = ws_setup(Kind::Devices, None);
    setup.credential = Some(KEY.parse().expect("a key"));
    let mut drive = open_run(setup);
    assert!(drive.sent.is_empty(), "a key that is not wanted would be taken for a command");
    drive.text("Connected!");
    assert_eq!(drive.sent, ["Sync Nodes", BARRIER]);
}

#[test]
fn a_backend_of_unknown_age_that_does_not_greet_gets_the_key() {
    let mut setup = ws_setup(Kind::Devices, None);
    setup.credential = Some(KEY.parse().expect("a key"));
    let mut drive = open_run(setup);
    drive.wait(LIMITS.settle - Duration::from_millis(1));
    assert!(drive.sent.is_empty());
    drive.wait(Duration::from_millis(1));
    assert_eq!(drive.sent, [json!({"api_key": KEY}).to_string()]);
    drive.text("Connected!").text("Connected 2!");
    assert_eq!(drive.sent[1..], ["Sync Nodes", BARRIER]);
    let run = drive.text(&end("device")).text(&barrier()).run();
    assert!(run.is_ok());
}

#[test]
fn a_backend_of_unknown_release_that_waits_for_a_key_gives_a_401_without_one() {
    let mut drive = open_run(ws_setup(Kind::Devices, None));
    drive.wait(LIMITS.settle);
    assert_eq!(drive.refusal().status, 401);
    assert!(detail(drive.refusal()).contains("API key"));
}

#[test]
fn a_full_update_of_a_backend_of_unknown_age_survives_that_it_is_0_0_2() {
    let mut drive = open_run(ws_setup(Kind::FullUpdate, None));
    drive.text("Connected!").text("Connected 2!").text("Received message: Full Update Sync");
    drive.text(&frame("device", "pve01", "syncing")).text(&end("device"));
    drive.text(&frame("virtual_machine", "web01", "completed")).text(&end("virtual_machine"));
    drive.text("Invalid command: Full Update Sync").text(&barrier());
    assert!(drive.run().is_ok());
}

#[test]
fn a_key_that_is_refused_after_the_stream_began_is_the_end_of_the_stream() {
    let mut drive = opened(Dialect::V0_0_7);
    drive.wait(LIMITS.accept_wait);
    assert!(drive.accepted, "the client has waited long enough");
    drive.close(4001, "Invalid API key. 1 attempts remaining.");
    let run = drive.run();
    assert_eq!(run.report.cause, Some(Cause::KeyRefused));
    assert!(run.detail().contains("Invalid API key. 1 attempts remaining."), "{}", run.detail());
}
