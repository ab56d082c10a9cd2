//! Runs over JSON endpoints, which send nothing until they are done.

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::core::domain::refusal::RefusalBody;
use serde_json::json;

use crate::support::session::drive::{Drive, LIMITS, setup};

fn plain(kind: Kind) -> Drive {
    Drive::start(setup(kind, Channel::Json))
}

#[test]
fn a_plain_answer_is_a_whole_stream() {
    let mut drive = plain(Kind::Storage);
    assert_eq!(drive.opened[0].path(), "/virtualization/virtual-machines/storage/create");
    let run = drive.answer(200, r#"[{"id":1,"name":"local"},{"id":2,"name":"ceph"}]"#).run();
    assert_eq!(run.messages(), ["Starting storage synchronization.", "Storage synchronization finished."]);
    assert_eq!(run.message(), "Storage sync completed. 2 objects: 2 completed.");
    assert_eq!(run.objects("storage"), Some([2, 2, 0, 0]));
}

#[test]
fn the_numbers_of_a_plain_answer_are_kept() {
    let run = plain(Kind::VirtualDisks)
        .answer(
            200,
            r#"{"count":12,"created":2,"updated":10,"skipped":0,"warnings":["one"],"degraded":true}"#,
        )
        .run();
    assert!(run.is_ok());
    assert_eq!(run.objects("virtual_disk"), None);
    assert!(
        run.message().ends_with("12 virtual machines were looked at. With warnings: one."),
        "{}",
        run.message()
    );
    let result = &run.complete()["result"];
    assert_eq!(
        (&result["updated"], &result["created"], &result["degraded"]),
        (&json!(10), &json!(2), &json!(true))
    );
}

#[test]
fn a_200_that_did_nothing_or_failed_is_a_failure() {
    for (body, output) in [
        ("null", "does nothing"),
        (r#"{"count":0,"created":0,"error":"boom"}"#, "boom"),
        (
            r#"[[{"id":1}],{"message":"Error to create","detail":"x","python_exception":"y"}]"#,
            "Error to create | x",
        ),
        ("<html>login</html>", "not JSON"),
        ("", "not JSON"),
    ] {
        let run = plain(Kind::VirtualMachines).answer(200, body).run();
        assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::BackendFailed), Outcome::Errored));
        assert!(run.detail().contains(output), "{body}: {}", run.detail());
        assert!(!run.has_message("Virtual machines synchronization finished."), "{body}");
    }
}

#[test]
fn a_plain_endpoint_that_refuses_is_refused() {
    let body = r#"{"message":"Error during backup sync","detail":"No such cluster"}"#;
    let mut drive = plain(Kind::Backups);
    let refusal = drive.answer(400, body).refusal();
    assert_eq!(refusal.status, 400);
    assert_eq!(refusal.body, RefusalBody::Backend(body.as_bytes().to_vec()));
}

#[test]
fn a_cluster_without_backups_is_a_sync_with_nothing_to_do() {
    let body = r#"{"message":"Error during backup sync.","detail":"No backups found to process"}"#;
    for status in [400, 500] {
        let mut drive = plain(Kind::Backups);
        drive.wait(LIMITS.accept_wait);
        let run = drive.answer(status, body).run();
        assert_eq!(run.is_ok(), status == 400, "{status}: {}", run.message());
    }
    let run = plain(Kind::Backups).answer(400, body).run();
    assert_eq!(
        run.message(),
        "Backups sync completed: nothing to do. If Proxmox has backups, sync virtual machines first."
    );

    let mut drive = plain(Kind::Snapshots);
    drive.wait(LIMITS.accept_wait);
    assert!(!drive.answer(400, body).run().is_ok());
}

#[test]
fn a_plain_endpoint_that_refuses_late_fails_its_stream() {
    let mut drive = plain(Kind::Backups);
    drive.wait(LIMITS.accept_wait);
    assert!(drive.accepted);
    assert!(drive.frames[0].contains("Starting backups synchronization."));
    let run = drive.answer(400, r#"{"message":"Error during backup sync","detail":"No such cluster"}"#).run();
    assert_eq!(run.report.cause, Some(Cause::Refused));
    assert!(run.detail().contains("status 400"), "{}", run.detail());
    assert!(run.detail().contains("No such cluster"), "{}", run.detail());
}

#[test]
fn a_plain_endpoint_may_work_in_silence_for_as_long_as_a_stream_may_be_idle() {
    let mut drive = plain(Kind::Storage);
    drive.wait(LIMITS.response_head * 2);
    assert!(drive.end.is_none(), "the limit of a response head is not for a plain endpoint");
    drive.wait(LIMITS.idle);
    let run = drive.run();
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::Idle), Outcome::TimedOut));
    assert!(run.detail().contains("did not answer within 30 min"), "{}", run.detail());
}

#[test]
fn an_answer_that_is_too_large_says_which_limit_it_broke() {
    let mut setup = setup(Kind::Storage, Channel::Json);
    setup.limits.event_bytes = 1000;
    let run = Drive::start(setup).answer(200, &format!("[{}]", "1,".repeat(600))).run();
    assert!(!run.is_ok());
    assert!(run.detail().contains("limits.event_bytes"), "{}", run.detail());
}

#[test]
fn an_answer_of_as_many_bytes_as_the_limit_may_have_been_cut() {
    let body = r#"[{"id":1}]"#;
    for (limit, is_ok) in [(body.len(), false), (body.len() + 1, true)] {
        let mut setup = setup(Kind::Storage, Channel::Json);
        setup.limits.event_bytes = limit;
        assert_eq!(Drive::start(setup).answer(200, body).run().is_ok(), is_ok);
    }
}
