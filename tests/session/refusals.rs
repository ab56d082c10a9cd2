//! Error responses in place of a stream: the backend's own if it sent one.

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::Cause;
use proxbox_bridge::core::domain::refusal::{ErrorResponse, Refusal, RefusalBody};
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent};
use proxbox_bridge::core::upstream::dialect::Dialect;

use crate::support::session::drive::{Drive, setup};
use crate::support::session::events::ws_setup;

fn refused(status: u16, retry_after: Option<&str>, body: &[u8]) -> Refusal {
    let mut drive = Drive::start(setup(Kind::Devices, Channel::Native));
    drive.event(SessionEvent::Answered(ErrorResponse {
        status,
        retry_after,
        body,
        ..ErrorResponse::default()
    }));
    drive.refusal().clone()
}

fn ours(refusal: &Refusal) -> (&str, &str) {
    match &refusal.body {
        RefusalBody::Bridge { message, detail } => (message, detail),
        RefusalBody::Backend(body) => panic!("theirs: {}", String::from_utf8_lossy(body)),
    }
}

#[test]
fn a_json_answer_passes_unchanged() {
    for (status, body) in [
        (400, r#"{"message":"Could not return Proxmox Sessions","detail":null,"python_exception":null}"#),
        (401, r#"{"detail":"Invalid API key. 1 attempts remaining."}"#),
        (422, "{ \"detail\": [ {\"loc\":[\"query\",\"x\"], \"msg\":\"Field required\"} ] }\n"),
        (502, r#"{"message":"Error fetching Proxmox cluster status"}"#),
        (503, r#"{"message":"Could not return Proxmox Sessions"}"#),
    ] {
        let refusal = refused(status, None, body.as_bytes());
        assert_eq!(
            (refusal.status, &refusal.body),
            (status, &RefusalBody::Backend(body.as_bytes().to_vec()))
        );
        assert_eq!(refusal.retry_after, None);
    }
}

#[test]
fn a_response_that_is_no_json_object_becomes_one_of_the_same_status() {
    for (status, body, output) in [
        (500, "Internal Server Error", "Internal Server Error"),
        (404, "<html><head><title>404 Not Found</title></head></html>", "404 Not Found"),
        (400, "[\"one\", \"two\"]", "one; two"),
        (500, "", "gave no reason"),
        (403, "", "gave no reason"),
    ] {
        let refusal = refused(status, None, body.as_bytes());
        let (message, detail) = ours(&refusal);
        assert_eq!(refusal.status, status);
        assert!(message.contains(&status.to_string()) && detail.contains(output), "{message} {detail}");
    }
}

#[test]
fn the_time_after_which_to_try_again_is_passed_on() {
    let refusal = refused(429, Some("300"), br#"{"detail":"Too many failed authentication attempts."}"#);
    assert_eq!((refusal.status, refusal.retry_after.as_deref()), (429, Some("300")));
    let refusal = refused(503, Some("1"), b"busy");
    assert_eq!((refusal.status, refusal.retry_after.as_deref()), (503, Some("1")));
}

#[test]
fn a_redirect_is_never_passed_on() {
    for status in [301, 302, 307, 308] {
        for content_encoding in [None, Some("gzip")] {
            let answer = ErrorResponse { status, content_encoding, ..ErrorResponse::default() };
            let refusal = Refusal::from_response(answer);
            assert_eq!(refusal.status, 502, "R12");
            let (_, detail) = ours(&refusal);
            assert!(detail.contains(&status.to_string()) && !detail.contains("compressed"), "{detail}");
        }
    }
}

#[test]
fn a_success_that_is_no_stream_is_none() {
    let refusal = refused(200, None, br#"{"status":"completed"}"#);
    assert_eq!(refusal.status, 502);
    assert!(ours(&refusal).1.contains("answered 200, not the requested stream"), "{refusal:?}");
}

#[test]
fn a_backend_that_cannot_be_reached_is_a_503_to_be_tried_again() {
    for setup in [
        setup(Kind::Devices, Channel::Native),
        setup(Kind::Storage, Channel::Json),
        ws_setup(Kind::Devices, Some(Dialect::V0_0_7)),
    ] {
        let mut drive = Drive::start(setup);
        drive.event(SessionEvent::Unreachable("connection refused"));
        let refusal = drive.refusal();
        assert_eq!((refusal.status, refusal.retry_after.as_deref()), (503, Some("30")), "R16");
        assert_eq!((ours(refusal).1, refusal.cause), ("connection refused", Cause::Unreachable));
    }
}

#[test]
fn a_backend_that_hangs_up_without_an_answer_is_a_503() {
    for (how, output) in
        [(CloseReason::Cleanly, "without an answer"), (CloseReason::Broken("reset"), "(reset)")]
    {
        let mut drive = Drive::start(setup(Kind::Devices, Channel::Native));
        drive.event(SessionEvent::Closed(how));
        let refusal = drive.refusal();
        assert_eq!((refusal.status, refusal.cause), (503, Cause::BackendLost));
        assert!(ours(refusal).1.contains(output), "{refusal:?}");
    }
}

#[test]
fn a_handshake_that_is_refused_passes_its_own_answer_on() {
    let body = br#"{"message":"No NetBox endpoint found","detail":"Please add a NetBox endpoint"}"#;
    let mut drive = Drive::start(ws_setup(Kind::Devices, Some(Dialect::V0_0_4)));
    drive.event(SessionEvent::Answered(ErrorResponse {
        status: 400,
        retry_after: None,
        body,
        ..ErrorResponse::default()
    }));
    assert_eq!(drive.refusal().body, RefusalBody::Backend(body.to_vec()));
    assert_eq!(drive.refusal().status, 400);
}

#[test]
fn a_socket_that_is_switched_off_says_how_to_switch_it_on() {
    let mut drive = Drive::start(ws_setup(Kind::Devices, Some(Dialect::V0_0_4)));
    drive.event(SessionEvent::Answered(ErrorResponse {
        status: 403,
        retry_after: None,
        body: b"",
        ..ErrorResponse::default()
    }));
    assert_eq!(drive.refusal().status, 403);
    assert!(ours(drive.refusal()).1.contains("PROXBOX_EXECUTION_MODE=legacy"));
}

#[test]
fn a_compressed_answer_is_named_as_that_and_nothing_is_read_into_it() {
    let compressed = |channel, status| {
        let mut drive = Drive::start(setup(Kind::Devices, channel));
        drive.event(SessionEvent::Answered(ErrorResponse {
            status,
            body: b"\x1f\x8b\x08\x00\x00",
            content_type: Some("text/event-stream"),
            content_encoding: Some("gzip"),
            ..ErrorResponse::default()
        }));
        drive
    };
    for status in [200, 401, 500] {
        let drive = compressed(Channel::Native, status);
        let (_, detail) = ours(drive.refusal());
        assert_eq!(drive.refusal().status, if status == 200 { 502 } else { status });
        assert!(detail.contains("Content-Encoding: gzip") && detail.contains("compression"), "{detail}");
        assert!(detail.is_ascii(), "{detail:?}");
    }
    let plain = compressed(Channel::Json, 200).run();
    let failure = plain.report.failure.unwrap();
    assert!(failure.detail.contains("Content-Encoding: gzip"), "{failure:?}");
}

#[test]
fn what_an_answer_is_in_place_of_a_stream_is_named() {
    let mut drive = Drive::start(setup(Kind::Devices, Channel::Native));
    drive.event(SessionEvent::Answered(ErrorResponse {
        status: 200,
        body: b"<html><head><title>Sign in</title></head></html>",
        content_type: Some("text/html; charset=utf-8"),
        ..ErrorResponse::default()
    }));
    let (_, detail) = ours(drive.refusal());
    assert!(
        detail.contains("Content-Type: text/html; charset=utf-8") && detail.contains("Sign in"),
        "{detail}"
    );
    assert!(!detail.contains("event-stream"), "a handshake or a question asks for no stream: {detail}");
}

#[test]
fn a_refused_key_without_a_response_body_keeps_its_retry_after() {
    for (status, output) in [(401, "Invalid API key."), (429, "Too many failed authentication attempts.")] {
        let refusal = Refusal::key_refused(status, Some("300"));
        let (_, detail) = ours(&refusal);
        assert_eq!((refusal.status, refusal.retry_after.as_deref()), (status, Some("300")));
        assert!(detail.starts_with(output), "{detail}");
        assert!(!refusal.is_from_backend());
    }
    assert!(refused(401, None, br#"{"detail":"Invalid API key."}"#).is_from_backend());
}

#[test]
fn a_job_that_was_cancelled_before_it_began_is_not_to_be_tried_again() {
    for (cause, status) in [(Cause::ClientGone, 409), (Cause::CancelRequested, 409), (Cause::Stopping, 503)] {
        let refusal = Refusal::stopped(cause, 30);
        assert_eq!((refusal.status, refusal.retry_after.is_some()), (status, status == 503), "{cause:?}");
        assert_eq!(refusal.cause, cause);
    }
}
