//! Properties that hold for any log.

use super::logs::{self, Log, count_objects};
use super::old_page::{MACHINE, OldPage, assert_harmless};
use crate::core::domain::kind::WsCommand;
use crate::core::legacy_client::{LegacyClient, parse_command, unknown_command_frames};

// In a module, so that the layer rules apply only to the core itself.
mod any {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("pve1".to_owned()),
            Just("web01".to_owned()),
            Just("<img src=x onerror=alert(1)>".to_owned()),
            Just("'><script>".to_owned()),
            Just("<a href='http://n/1/'>pve1</a>".to_owned()),
            Just("<a href='javascript:alert(1)'>pve1</a>".to_owned()),
            "<a href=['\"](http|javascript)://[<>'\"&a/]{0,6}['\"]>[<>'\"&a]{0,6}</a>",
            "\\PC{0,12}",
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|value| json!(value)),
            any::<i64>().prop_map(|value| json!(value)),
            text().prop_map(|text| json!(text)),
            prop::collection::vec(text(), 0..3).prop_map(|texts| json!(texts)),
            text().prop_map(|text| json!({"name": text, "nested": [{}]})),
        ]
    }

    fn payload() -> impl Strategy<Value = Value> {
        let other_keys = ["completed", "rowid", "warning", "error", "vm", "object"];
        let keys = prop::sample::select([&MACHINE[..], &other_keys].concat());
        prop_oneof![
            3 => prop::collection::hash_map(keys, value(), 0..5)
                .prop_map(|data| json!({"object": "device", "type": "create", "data": data})),
            1 => value(),
        ]
    }

    fn event(name: &str, data: &Value) -> Vec<u8> {
        format!("event: {name}\ndata: {data}\n\n").into_bytes()
    }

    fn step() -> impl Strategy<Value = Vec<u8>> {
        let names = prop_oneof![
            Just("device".to_owned()),
            Just("virtual_machine".to_owned()),
            Just("devices".to_owned()),
            Just("virtual-machines".to_owned()),
            Just("storage".to_owned()),
            text(),
        ];
        let status = prop::sample::select(vec!["started", "progress", "completed", "failed", "odd"]);
        (names, status, prop::option::of(text()), prop::option::of(text()), payload()).prop_map(
            |(step, status, rowid, error, payload)| {
                event(
                    "step",
                    &json!({"step": step, "status": status, "message": "m", "rowid": rowid,
                    "error": error, "payload": payload}),
                )
            },
        )
    }

    fn log() -> impl Strategy<Value = Log> {
        let other = prop_oneof![
            (value(), value())
                .prop_map(|(step, error)| event("error", &json!({"step": step, "error": error}))),
            (value(), value()).prop_map(|(name, data)| event(name.as_str().unwrap_or("step"), &data)),
            prop::collection::vec(any::<u8>(), 0..40),
        ];
        let end = (any::<bool>(), value()).prop_map(|(ok, detail)| {
            event("complete", &json!({"ok": ok, "message": "m", "errors": [{"detail": detail}]}))
        });
        let frames = prop::collection::vec(prop_oneof![8 => step(), 1 => other], 0..40);
        (frames, prop::option::of(end)).prop_map(|(mut frames, end)| {
            frames.extend(end);
            frames
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_log_leaves_a_page_whole(
            log in log(),
            full in any::<bool>(),
            run_id in prop::option::of(text()),
        ) {
            let command = if full { WsCommand::FullUpdate } else { WsCommand::SyncNodes };
            let mut page = LegacyClient::new(command, run_id);
            let mut out = page.greeting();
            for frame in &log {
                page.push_frame(&logs::frame(frame), &mut out);
            }
            let shown = OldPage::reading(&out);
            shown.check();
            prop_assert_eq!((shown.devices.total, shown.devices.synced), count_objects(&log, "device"));
            prop_assert_eq!((shown.machines.total, shown.machines.synced), count_objects(&log, "virtual_machine"));
        }

        #[test]
        fn any_text_has_an_answer_without_markup(
            text in "\\PC{0,300}",
            run_id in prop::option::of("\\PC{0,80}"),
        ) {
            let _ = parse_command(&text);
            for answer in unknown_command_frames(&text, run_id.as_deref()) {
                assert_harmless(&answer);
            }
        }
    }
}
