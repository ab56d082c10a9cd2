//! How native streams end: cleanly, late, early, and with an error.

use std::time::Duration;

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent};
use serde_json::json;

use crate::support::session::drive::{LIMITS, setup};
use crate::support::session::events::{
    complete_ok, error, item_progress, native_run, open_native, open_run, sse,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_backend_that_forgets_to_hang_up_is_waited_for_no_longer_than_settle() {
    let mut drive = open_native(Kind::Devices);
    drive.stream(&complete_ok()).wait(2 * SECOND);
    // A comment is no event, so it does not extend the wait.
    drive.stream(": keepalive\n\n");
    assert!(drive.end.is_none());
    drive.wait(SECOND);
    assert!(drive.run().is_ok());
    assert_eq!((drive.closed, drive.deadline()), (1, None));
}

#[test]
fn a_backend_that_sends_after_its_final_event_is_awaited_no_longer_than_settle_total() {
    let mut drive = open_native(Kind::Devices);
    drive.stream(&complete_ok());
    let mut waited = Duration::ZERO;
    while drive.end.is_none() && waited < LIMITS.total {
        drive
            .stream(&item_progress("devices", "completed", &format!("pve{}", waited.as_secs())))
            .wait(SECOND);
        waited += SECOND;
    }
    assert_eq!(waited, LIMITS.settle_total);
    let run = drive.run();
    assert!(run.is_ok() && drive.closed == 1);
}

#[test]
fn a_silent_backend_is_waited_for_as_long_as_settle_though_settle_total_is_shorter() {
    let mut setup = setup(Kind::Devices, Channel::Native);
    setup.limits.settle = 2 * LIMITS.settle_total;
    let mut drive = open_run(setup);
    drive.stream(&complete_ok()).wait(2 * LIMITS.settle_total - SECOND);
    assert!(drive.end.is_none());
    assert!(drive.wait(SECOND).run().is_ok());
}

#[test]
fn events_after_the_end_are_not_forwarded() {
    let mut drive = open_native(Kind::Devices);
    drive.stream(&complete_ok()).hang_up();
    let length = drive.bytes.len();
    drive
        .stream(&complete_ok())
        .open()
        .text("Connected!")
        .hang_up()
        .event(SessionEvent::Stopped(Cause::Stopping))
        .wait(60 * SECOND);
    assert_eq!(drive.bytes.len(), length);
}

#[test]
fn a_stream_without_a_final_event_is_a_failure_that_reports_when() {
    let mut drive = open_native(Kind::Devices);
    drive
        .stream(&item_progress("devices", "completed", "pve01"))
        .stream(&item_progress("devices", "failed", "pve02"));
    drive.wait(4 * SECOND).hang_up();
    let run = drive.run();
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::BackendLost), Outcome::Errored));
    assert_eq!(run.error().text("error"), "The backend ended its stream without a final event.");
    assert_eq!(
        run.detail(),
        "The backend ended its stream without a final event, 4.0 s after the start and after 2 objects \
         (1 completed, 1 failed)."
    );
    assert_eq!(run.error().text("step"), "devices");
}

#[test]
fn a_stream_that_breaks_says_why() {
    let mut drive = open_native(Kind::Devices);
    drive
        .stream(&item_progress("devices", "processing", "pve01"))
        .stream("event: step\ndata: {\"step\":\n\n");
    drive.wait(90 * SECOND).event(SessionEvent::Closed(CloseReason::Broken("connection reset")));
    let run = drive.run();
    assert_eq!(run.report.cause, Some(Cause::BackendLost));
    assert_eq!(
        run.detail(),
        "The connection to the backend broke (connection reset), 1 min 30 s after the start and after 1 object \
         (0 completed, 0 failed). 1 event could not be read."
    );
}

#[test]
fn a_truncated_final_event_does_not_count() {
    let cut = complete_ok();
    for end in 1..=2 {
        let run = native_run(Kind::Devices, &[cut[..cut.len() - end].to_owned()]);
        assert_eq!(run.report.cause, Some(Cause::BackendLost), "cut by {end}");
    }
}

#[test]
fn a_connection_that_breaks_after_the_final_event_changes_nothing() {
    let mut drive = open_native(Kind::Devices);
    drive.stream(&complete_ok()).event(SessionEvent::Closed(CloseReason::Broken("missing last chunk")));
    assert!(drive.run().is_ok());
}

#[test]
fn an_error_and_its_complete_are_one_failure() {
    let run = native_run(
        Kind::Devices,
        &[
            sse(
                "error_detail",
                json!({"event": "error_detail", "phase": "devices", "message": "NetBox is down",
                "suggestion": "Start it"}),
            ),
            error(json!("NetBox REST request failed"), json!("NetBox REST request failed | it answered 500")),
            sse(
                "complete",
                json!({"ok": false, "message": "Devices sync failed.",
                "errors": [{"detail": "NetBox REST request failed | it answered 500"}]}),
            ),
        ],
    );
    assert_eq!(run.report.cause, Some(Cause::BackendFailed));
    assert_eq!(run.error().text("error"), "NetBox REST request failed");
    assert_eq!(
        run.detail(),
        "NetBox REST request failed | it answered 500 | NetBox is down | Start it",
        "every part of it, and each once"
    );
    assert!(
        run.message().starts_with("Devices sync failed: NetBox REST request failed."),
        "{}",
        run.message()
    );
}

#[test]
fn an_error_is_the_end_though_the_backend_then_says_ok() {
    let run = native_run(Kind::Devices, &[error(json!("broken"), json!("really not")), complete_ok()]);
    assert_eq!((run.report.cause, run.detail()), (Some(Cause::BackendFailed), "broken | really not"));
}

#[test]
fn an_error_without_a_complete_is_the_failure_that_it_tells_of() {
    let run = native_run(Kind::Devices, &[error(json!("broken"), json!("really not"))]);
    assert_eq!((run.report.cause, run.detail()), (Some(Cause::BackendFailed), "broken | really not"));
}

#[test]
fn a_backend_that_says_an_error_and_nothing_more_is_not_waited_for() {
    let mut drive = open_native(Kind::Devices);
    drive.stream(&error(json!("broken"), json!("really not"))).wait(2 * SECOND);
    assert!(drive.end.is_none(), "a complete may follow");
    drive.wait(SECOND);
    assert_eq!(drive.run().report.cause, Some(Cause::BackendFailed));
}

#[test]
fn a_final_event_counts_although_the_bridge_is_stopping() {
    let mut drive = open_native(Kind::Devices);
    drive.stream(&complete_ok()).event(SessionEvent::Stopped(Cause::Stopping));
    assert!(drive.run().is_ok());
}

#[test]
fn a_bridge_that_stops_ends_the_stream_with_its_reason() {
    let mut drive = open_native(Kind::Devices);
    drive
        .stream(&item_progress("devices", "completed", "pve01"))
        .wait(SECOND)
        .event(SessionEvent::Stopped(Cause::Stopping));
    let run = drive.run();
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::Stopping), Outcome::Interrupted));
    assert!(run.detail().starts_with("The bridge is stopping, 1.0 s after the start"), "{}", run.detail());
    assert_eq!(drive.closed, 1);
}

#[test]
fn a_job_that_is_cancelled_says_by_whom() {
    for (cause, output) in [
        (Cause::ClientGone, "The last watcher disconnected"),
        (Cause::CancelRequested, "The job was cancelled by request"),
        (Cause::Stopping, "The bridge is stopping"),
    ] {
        let run = open_native(Kind::Devices).event(SessionEvent::Stopped(cause)).run();
        assert_eq!(run.report.cause, Some(cause));
        assert!(run.detail().starts_with(output), "{}", run.detail());
    }
}
