//! Notices that are sent before the first event.

use std::time::Duration;

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::Cause;
use proxbox_bridge::core::run::session::{NOTICE_GAP, SessionEvent, SessionSetup};

use crate::support::session::drive::{Drive, setup};
use crate::support::session::events::{complete_ok, object_step, open_run};

fn setup_with_notices(channel: Channel) -> SessionSetup {
    let notices = ["one", "two"].map(str::to_owned).to_vec();
    SessionSetup { notices, ..setup(Kind::Devices, channel) }
}

#[test]
fn notices_are_spaced_so_that_the_plugin_logs_each_and_no_event_is_read_before() {
    let mut drive = open_run(setup_with_notices(Channel::Native));
    assert!(drive.session.has_notices());
    assert_eq!(drive.deadline(), Some(NOTICE_GAP));
    drive.wait(NOTICE_GAP);
    assert!(drive.session.has_notices());
    drive.wait(NOTICE_GAP);
    assert!(!drive.session.has_notices());
    let events = [object_step("device", "completed", "pve1"), complete_ok()];
    let run = drive.stream(&events.concat()).hang_up().run();
    assert!(run.is_ok());
    assert_eq!(run.messages()[..3], ["Starting devices synchronization.", "one", "two"]);
    assert_eq!(run.messages()[3], "Synced device pve1");
}

#[test]
fn a_run_that_ends_before_its_notices_tells_them_all_the_same() {
    let mut drive = open_run(setup_with_notices(Channel::Native));
    let run = drive.event(SessionEvent::Stopped(Cause::CancelRequested)).run();
    assert!(!run.is_ok());
    assert_eq!(run.messages()[..3], ["Starting devices synchronization.", "one", "two"]);

    // A JSON response is the complete result, which cannot wait.
    let mut drive = Drive::start(setup_with_notices(Channel::Json));
    let run = drive.answer(200, "[]").run();
    assert!(run.is_ok() && run.has_message("one") && run.has_message("two"), "{:?}", run.messages());
}

#[test]
fn a_refused_client_gets_no_notices() {
    let mut drive = Drive::start(setup_with_notices(Channel::Native));
    drive.answer(401, r#"{"detail":"Invalid API key."}"#);
    assert_eq!(drive.refusal().status, 401);
}

#[test]
fn notices_of_a_backend_that_takes_long_come_with_the_beginning_of_the_stream() {
    let mut drive = Drive::start(setup_with_notices(Channel::Native));
    drive.wait(Duration::from_secs(10) + 2 * NOTICE_GAP);
    assert!(drive.accepted && !drive.session.has_notices());
    drive.open();
    let run = drive.stream(&complete_ok()).hang_up().run();
    assert_eq!(run.messages()[..3], ["Starting devices synchronization.", "one", "two"]);
}

#[test]
fn a_backend_is_not_silent_while_it_is_not_read() {
    let mut setup = setup_with_notices(Channel::Native);
    setup.limits.idle = NOTICE_GAP;
    let mut drive = open_run(setup);
    drive.wait(2 * NOTICE_GAP);
    assert!(drive.end.is_none() && !drive.session.has_notices());
    assert_eq!(drive.deadline(), Some(3 * NOTICE_GAP));
    let run = drive.wait(NOTICE_GAP).run();
    assert!(run.message().contains("said nothing for"), "{}", run.message());
}
