//! Every wait has a limit, which its error names.

use std::time::Duration;

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::core::domain::refusal::RefusalBody;
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent};
use proxbox_bridge::core::upstream::dialect::Dialect;

use crate::support::session::drive::{Drive, LIMITS, setup};
use crate::support::session::events::{
    complete_ok, end, frame, item_progress, open_native, open_run, ws, ws_setup,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_client_waits_for_its_status_line_no_longer_than_accept_wait() {
    let mut drive = Drive::start(setup(Kind::Devices, Channel::Native));
    drive.wait(LIMITS.accept_wait - SECOND);
    assert!(!drive.accepted && drive.bytes.is_empty());
    drive.wait(SECOND);
    assert!(drive.accepted);
    assert_eq!(drive.frames.len(), 1);
    assert!(drive.frames[0].contains("Starting devices synchronization."), "{}", drive.frames[0]);
    let run = drive.open().stream(&complete_ok()).hang_up().run();
    assert_eq!(
        run.messages(),
        ["Starting devices synchronization.", "Devices synchronization finished."],
        "what was said is not said again"
    );
}

#[test]
fn a_backend_that_answers_at_once_is_accepted_at_once() {
    let drive = open_native(Kind::Devices);
    assert!(drive.accepted && drive.frames.len() == 1, "R15: at its response head, not at its first event");
}

#[test]
fn a_late_refusal_ends_the_stream() {
    let started = || {
        let mut drive = Drive::start(setup(Kind::Devices, Channel::Native));
        drive.wait(LIMITS.accept_wait);
        drive
    };
    let mut drive = started();
    let run =
        drive.answer(503, r#"{"message":"Could not return Proxmox Sessions","detail":"refused"}"#).run();
    assert_eq!(run.report.cause, Some(Cause::Refused));
    assert!(run.detail().contains("503"), "{}", run.detail());
    assert!(run.detail().contains("Could not return Proxmox Sessions | refused"), "{}", run.detail());

    let mut drive = started();
    let run = drive.answer(500, "<html><title>Oops</title></html>").run();
    assert!(run.detail().contains("500") && run.detail().contains("Oops"), "{}", run.detail());

    let run = started().event(SessionEvent::Unreachable("connection refused")).run();
    assert_eq!(run.report.cause, Some(Cause::Unreachable));
    assert!(run.detail().contains("connection refused"), "{}", run.detail());

    let run = started().event(SessionEvent::Closed(CloseReason::Broken("reset"))).run();
    assert_eq!(run.report.cause, Some(Cause::BackendLost));
}

#[test]
fn a_backend_that_does_not_begin_to_answer_is_given_up() {
    let mut drive = Drive::start(setup(Kind::Devices, Channel::Native));
    drive.wait(LIMITS.response_head - SECOND);
    assert!(drive.end.is_none());
    drive.wait(SECOND);
    let run = drive.run();
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::Idle), Outcome::TimedOut));
    assert!(run.detail().contains("did not begin to answer within 10 min"), "{}", run.detail());
    assert_eq!(drive.closed, 1);
}

#[test]
fn a_backend_that_is_given_up_before_the_stream_began_is_a_503() {
    let mut setup = setup(Kind::Devices, Channel::Native);
    setup.limits.response_head = 5 * SECOND;
    let mut drive = Drive::start(setup);
    drive.wait(5 * SECOND);
    let refusal = drive.refusal();
    assert_eq!((refusal.status, refusal.retry_after.as_deref()), (503, Some("30")), "R16");
    let RefusalBody::Bridge { detail, .. } = &refusal.body else { panic!("{refusal:?}") };
    assert!(detail.contains("did not begin to answer within 5.0 s"), "{detail}");
}

#[test]
fn a_socket_that_does_not_greet_is_given_up() {
    let mut drive = open_run(ws_setup(Kind::Devices, Some(Dialect::V0_0_7)));
    // Text that is no greeting does not extend the wait.
    drive.wait(LIMITS.response_head - SECOND).text("wait").wait(SECOND);
    let run = drive.run();
    assert_eq!(run.report.cause, Some(Cause::Idle));
    assert!(run.detail().contains("did not greet on /ws within 10 min"), "{}", run.detail());
}

#[test]
fn a_backend_that_says_nothing_is_given_up_whatever_it_comments() {
    let mut drive = open_native(Kind::Devices);
    drive.stream(&item_progress("devices", "completed", "pve01"));
    let mut silent = Duration::ZERO;
    while silent + 15 * SECOND < LIMITS.idle {
        drive.wait(15 * SECOND).stream(": keepalive\n\n");
        silent += 15 * SECOND;
        assert!(drive.end.is_none(), "after {silent:?}");
    }
    drive.wait(15 * SECOND);
    let run = drive.run();
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::Idle), Outcome::TimedOut));
    assert!(
        run.detail()
            .starts_with("The backend said nothing for 30 min, 30 min after the start and after 1 object"),
        "{}",
        run.detail()
    );
}

#[test]
fn an_event_is_a_sign_of_life() {
    let mut drive = open_native(Kind::Devices);
    drive.wait(LIMITS.idle - SECOND).stream(&item_progress("devices", "completed", "pve01"));
    drive.wait(LIMITS.idle - SECOND);
    assert!(drive.end.is_none());

    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    drive.wait(LIMITS.idle - SECOND).text(&frame("device", "pve01", "completed")).wait(LIMITS.idle - SECOND);
    assert!(drive.end.is_none());
    drive.wait(SECOND);
    assert_eq!(drive.run().report.cause, Some(Cause::Idle));
}

#[test]
fn no_run_is_longer_than_the_limit_however_lively_it_is() {
    let mut drive = open_native(Kind::Devices);
    while drive.now + LIMITS.idle <= LIMITS.total && drive.end.is_none() {
        drive.stream(&item_progress("devices", "processing", "pve01")).wait(LIMITS.idle / 2);
    }
    drive.wait(LIMITS.idle);
    let run = drive.run();
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::Total), Outcome::TimedOut));
    assert!(run.detail().starts_with("The run took longer than the limit of 6 h"), "{}", run.detail());
}

#[test]
fn the_limit_of_a_run_keeps_a_final_event_that_arrived_in_time() {
    let mut setup = setup(Kind::Devices, Channel::Native);
    setup.limits.total = 10 * SECOND;
    let mut drive = open_run(setup);
    drive.wait(9 * SECOND).stream(&complete_ok()).wait(SECOND);
    assert!(drive.run().is_ok());
}

#[test]
fn a_bridge_that_stops_before_the_backend_answered_still_ends_in_order() {
    let mut drive = Drive::start(setup(Kind::Devices, Channel::Native));
    drive.event(SessionEvent::Stopped(Cause::Stopping));
    let refusal = drive.refusal();
    assert_eq!((refusal.status, refusal.cause), (503, Cause::Stopping));
    assert!(refusal.retry_after.is_some());

    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    drive.text(&end("device")).event(SessionEvent::Stopped(Cause::Stopping));
    assert_eq!(drive.run().report.cause, Some(Cause::Stopping));
}

#[test]
fn a_socket_that_falls_silent_has_greeted() {
    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    let run = drive.wait(LIMITS.idle).run();
    assert!(run.detail().starts_with("The backend said nothing for 30 min"), "{}", run.detail());
}
