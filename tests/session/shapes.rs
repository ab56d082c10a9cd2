//! Event data of unexpected shapes and sizes.

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::Cause;
use proxbox_bridge::core::run::session::SessionEvent;
use proxbox_bridge::core::upstream::dialect::Dialect;
use serde_json::{Value, json};

use crate::support::session::drive::{Drive, setup};
use crate::support::session::events::{
    barrier, complete_ok, end, error, item_progress, native_run, object_step, open_native, open_run, sse, ws,
};

const LIMIT: usize = 4096;

fn limited() -> Drive {
    let mut setup = setup(Kind::Devices, Channel::Native);
    setup.limits.event_bytes = LIMIT;
    open_run(setup)
}

/// A page of error text as NetBox answers it: 36 kB of which one line matters.
fn page() -> String {
    let style = "<style>.x { color: red }</style>\n".repeat(1100);
    format!(
        "\n\n<!DOCTYPE html>\n<html lang=\"en\"><head><title>Page Not Found</title>{style}</head>\
         <body><p>The requested page does not exist.</p></body></html>"
    )
}

#[test]
fn an_error_of_any_shape_is_a_failure_with_text() {
    let shapes = [
        json!(null),
        json!("text"),
        json!(3),
        json!([]),
        json!({}),
        json!({"error": null, "detail": null}),
        json!({"error": "", "detail": ""}),
        json!({"error": ["a", "b"], "detail": {"reason": "r"}}),
        json!({"step": 3, "error": 3, "detail": false}),
        json!({"message": "only a message"}),
    ];
    for shape in shapes {
        let run = native_run(Kind::Devices, &[sse("error", shape.clone()), complete_ok()]);
        assert_eq!(run.report.cause, Some(Cause::BackendFailed), "{shape}");
    }
    let run =
        native_run(Kind::Devices, &["event: error\ndata: Traceback (most recent call last)\n\n".to_owned()]);
    assert_eq!(run.detail(), "Traceback (most recent call last)");
}

#[test]
fn a_detail_of_any_shape_becomes_text() {
    for (detail, text) in [
        (json!(null), "no"),
        (
            json!({"message": "Refused", "detail": {"name": ["taken"]}, "python_exception": null}),
            "no | Refused | {\"name\":[\"taken\"]}",
        ),
        (json!("{\"name\":[\"taken\"]}"), "no | {\"name\":[\"taken\"]}"),
        (json!(["a", {"msg": "b", "loc": ["query", "x"]}]), "no | a; query.x: b"),
    ] {
        let run = native_run(Kind::Devices, &[error(json!("no"), detail)]);
        assert_eq!(run.detail(), text);
    }
}

#[test]
fn an_html_page_is_reduced_to_its_text() {
    assert!(page().len() > 36_000);
    let run = native_run(
        Kind::FullUpdate,
        &[
            error(json!("NetBox REST request failed"), json!(page())),
            sse("complete", json!({"ok": false, "message": "no", "errors": [{"detail": page()}]})),
        ],
    );
    assert_eq!(
        run.detail(),
        "NetBox REST request failed | Page Not Found The requested page does not exist."
    );
}

#[test]
fn a_complete_with_errors_of_any_shape_is_a_failure_that_readers_can_take() {
    let shapes: [Value; 7] = [
        json!(null),
        json!("text"),
        json!(["x"]),
        json!([null]),
        json!([{"detail": {"reason": "r"}}]),
        json!([{"detail": null}]),
        json!({"detail": page()}),
    ];
    for errors in shapes {
        let last = json!({"ok": false, "message": "no", "result": "x", "errors": errors});
        let run = native_run(Kind::Devices, &[sse("complete", last)]);
        assert_eq!(run.report.cause, Some(Cause::BackendFailed), "{errors}");
    }
}

#[test]
fn a_success_whose_other_fields_are_wrong_is_still_a_success() {
    let last = json!({"ok": true, "message": null, "result": "x", "errors": null});
    let run = native_run(Kind::Devices, &[sse("complete", last)]);
    assert_eq!(
        run.complete(),
        &json!({"ok": true, "message": "Devices sync completed.",
        "result": {"count": 0, "objects": {}}})
    );
}

#[test]
fn data_that_is_not_json_is_counted_and_costs_nothing_else() {
    let broken = ["event: step\ndata: {\"step\":\n\n", "event: discovery\ndata: soon\n\n"].concat();
    let run =
        native_run(Kind::Devices, &[broken, item_progress("devices", "completed", "pve01"), complete_ok()]);
    assert!(run.is_ok());
    assert_eq!((run.report.unreadable, run.objects("device")), (2, Some([1, 1, 0, 0])));
}

#[test]
fn bytes_that_are_not_utf8_come_out_as_ascii() {
    let mut drive = open_native(Kind::Devices);
    drive.event(SessionEvent::Bytes(
        b"event: step\ndata: {\"step\": \"device\", \"status\": \"completed\", \"rowid\": \"pve\xff\"}\n\n",
    ));
    drive.event(SessionEvent::Bytes(b"event: \xfe\xff\ndata: \xff\n\n"));
    let run = drive.stream(&complete_ok()).hang_up().run();
    assert!(run.has_message("Synced device pve\u{fffd}"), "{:?}", run.messages());
}

#[test]
fn line_ends_of_every_sort_in_names_stay_inside_of_their_frame() {
    let name = "a\u{85}b\u{2028}c\r\nd\u{b}e";
    let run = native_run(Kind::Devices, &[item_progress("devices", "completed", name), complete_ok()]);
    assert!(run.has_message("Synced device a b c d e"), "{:?}", run.messages());
}

#[test]
fn an_event_that_is_too_large_is_counted_and_the_run_continues() {
    let large = sse("step", json!({"step": "device", "status": "completed", "rowid": "x".repeat(LIMIT)}));
    let run = limited()
        .stream(&large)
        .stream(&object_step("device", "completed", "pve01"))
        .stream(&complete_ok())
        .hang_up()
        .run();
    assert!(run.is_ok());
    assert_eq!((run.report.unreadable, run.objects("device")), (1, Some([1, 1, 0, 0])));
}

#[test]
fn a_final_event_over_the_size_limit_is_no_success() {
    let large =
        sse("complete", json!({"ok": true, "message": "done", "result": {"devices": "x".repeat(LIMIT)}}));
    let run = limited().stream(&large).hang_up().run();
    assert_eq!(run.report.cause, Some(Cause::BackendNonsense));
    assert!(run.detail().contains("limits.event_bytes"), "{}", run.detail());
}

#[test]
fn an_error_that_is_too_large_to_read_is_still_a_failure() {
    let large = error(json!("no"), json!("x".repeat(LIMIT)));
    let run = limited().stream(&large).stream(&complete_ok()).hang_up().run();
    assert_eq!(run.report.cause, Some(Cause::BackendFailed));
    assert!(run.detail().contains("bytes"), "{}", run.detail());
}

#[test]
fn an_event_at_the_limit_is_read_however_it_is_cut() {
    for (over, is_read) in [(0, true), (1, false)] {
        let empty = json!({"ok": true, "message": "", "result": ""}).to_string();
        let filler = "x".repeat(LIMIT - empty.len() + over);
        let last = sse("complete", json!({"ok": true, "message": "", "result": filler}));
        for cut in [0, 3, 20, LIMIT, last.len() - 3, last.len() - 2, last.len() - 1] {
            let (left, right) = last.split_at(cut);
            let run = limited().stream(left).stream(right).hang_up().run();
            assert_eq!(run.is_ok(), is_read, "{over} over the limit, cut at {cut}");
        }
    }
}

#[test]
fn what_python_writes_and_is_no_json_is_read() {
    let step = r#"{"step": "device", "status": "failed", "message": "no load", "rowid": "pve1", "load": NaN, "payload": {"object": "device", "data": {"rowid": "pve1\ud83d", "error": "load is \udc00"}}}"#;
    let complete = r#"{"ok": false, "message": "one failed", "result": {"ratio": -Infinity}, "errors": [{"detail": "load of pve1 is no number"}]}"#;
    let run = native_run(
        Kind::Devices,
        &[format!("event: step\ndata: {step}\n\n"), format!("event: complete\ndata: {complete}\n\n")],
    );
    assert!(!run.is_ok());
    assert_eq!(run.failed_steps().len(), 1, "{:?}", run.messages());
    assert!(run.detail().contains("load of pve1 is no number"), "{}", run.detail());

    let mut drive = ws(Kind::Devices, Dialect::V0_0_4);
    drive.text(r#"{"object": "device", "data": {"completed": true, "rowid": "pve1", "load": Infinity}}"#);
    drive.text(&end("device")).text(&barrier());
    assert_eq!(drive.run().objects("device"), Some([1, 1, 0, 0]));
}
