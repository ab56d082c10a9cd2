//! Secrets that a backend repeats.

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::refusal::Refusal;
use proxbox_bridge::core::run::normalizer::Normalizer;
use proxbox_bridge::core::text::redact::Redactor;
use serde_json::json;

use crate::support::session::drive::setup;
use crate::support::session::events::{error, item_progress, object_step, open_run, sse};

const SECRET: &str = "s3cret-key";

#[test]
fn a_secret_that_a_backend_repeats_stands_in_no_frame_and_in_no_longer_one() {
    let mut setup = setup(Kind::Devices, Channel::Native);
    setup.options.redactor = Redactor::new([SECRET]);
    setup.options.payloads = true;
    let warned = json!({"ok": false, "message": SECRET, "result": {"warnings": [SECRET], SECRET: 3},
        "errors": [{"detail": SECRET}]});
    let events = [
        object_step("device", "completed", SECRET),
        item_progress("devices", "failed", SECRET),
        error(json!(SECRET), json!(format!("not with {SECRET}"))),
        sse("complete", warned),
    ];
    let mut drive = open_run(setup);
    let run = drive.stream(&events.concat()).hang_up().run();
    assert!(run.error().text("detail").contains("[hidden]"));
    let whole_end = drive.whole_end().to_string();
    let written = [String::from_utf8_lossy(&drive.bytes), whole_end.into()].concat();
    assert!(!written.contains("s3cret"), "{written}");
}

#[test]
fn a_secret_in_a_refusal_does_not_stand_in_the_stream_of_those_who_read_of_it_later() {
    let refusal = Refusal::bad_backend(&format!("It does not know {SECRET}."));
    let frames = Normalizer::refusal_frames(Kind::Devices, &refusal, &Redactor::new([SECRET]));
    let text: String = frames.iter().map(|frame| String::from_utf8_lossy(&frame.bytes)).collect();
    assert!(text.contains("It does not know [hidden]."), "{text}");
}
