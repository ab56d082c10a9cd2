//! Property tests: the contract holds for any backend behaviour and any chunking.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use crate::support::credentials::{has, quoted_forms, word_forms};
use crate::support::session::drive::{Drive, setup};
use crate::support::session::events::{self, native_run, sse};
use crate::support::session::stream;
use proptest::prelude::*;
use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::counts::Count;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::object::Object;
use proxbox_bridge::core::domain::outcome::Cause;
use proxbox_bridge::core::domain::refusal::ErrorResponse;
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent};
use proxbox_bridge::core::text::credentials::CredentialFilter;
use proxbox_bridge::core::text::redact::Redactor;
use proxbox_bridge::core::upstream::dialect::{BARRIER, Dialect};
use proxbox_bridge::recording::{RecordedEvent, Recording};
use serde_json::json;

/// One input of a session.
#[derive(Clone, Debug)]
enum SessionInput {
    Opened,
    Answered(u16, Vec<u8>),
    Unreachable,
    Bytes(Vec<u8>),
    Text(String),
    Cleanly,
    Broken,
    Close(u16, String),
    Wait(u64),
    Stopped(Cause),
}

/// Texts that backends send, and arbitrary ones.
fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("Connected!".to_owned()),
        Just("Received message: Sync Nodes".to_owned()),
        Just(format!("Invalid command: {BARRIER}")),
        Just("Invalid sync command".to_owned()),
        Just("Invalid command: Sync Nodes".to_owned()),
        Just(r#"{"object":"device","end":true}"#.to_owned()),
        Just(r#"{"object":"virtual_machine","end":true}"#.to_owned()),
        Just(
            r#"{"object":"full-update","end":true,"status":"completed","stages":{"devices":"completed"}}"#
                .to_owned()
        ),
        Just(r#"{"object":"device","type":"create","data":{"completed":false,"rowid":"pve1"}}"#.to_owned()),
        Just(r#"{"object":"device","type":"create","data":{"completed":true,"rowid":"pve1"}}"#.to_owned()),
        Just(r#"{"object":"device","data":{"error":"<b>no</b>","rowid":"pve1"}}"#.to_owned()),
        Just(r#"{"event":"error_detail","phase":"devices","message":"failed"}"#.to_owned()),
        ".{0,80}",
    ]
}

fn events() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("step"),
        Just("complete"),
        Just("error"),
        Just("item_progress"),
        Just("discovery"),
        Just("phase_summary"),
        Just("error_detail"),
        Just("bootstrap_done"),
        Just("new_thing"),
        Just("")
    ];
    let data = prop_oneof![
        Just(r#"{"step":"devices","status":"started","message":"Starting devices synchronization."}"#.to_owned()),
        Just(r#"{"step":"device","status":"progress","message":"m","rowid":"pve1"}"#.to_owned()),
        Just(r#"{"step":"device","status":"failed","message":"m","rowid":"pve1"}"#.to_owned()),
        Just(r#"{"step":"sync","status":"progress","payload":{"step":"storage","status":"synced","result":{"name":"a/b"}}}"#.to_owned()),
        Just(r#"{"ok":true,"message":"done","result":{"count":3}}"#.to_owned()),
        Just(r#"{"ok":false,"message":"not done","errors":[{"detail":{"a":"b"}}]}"#.to_owned()),
        Just(r#"{"ok":null}"#.to_owned()),
        Just(r#"{"ok":"true","errors":"x","result":"y"}"#.to_owned()),
        Just(r#"{"phase":"devices","item":{"name":"pve1"},"status":"failed","error":"e"}"#.to_owned()),
        Just(r#"{"phase":"devices","result":{"failed":12,"total":12},"message":"12 failed"}"#.to_owned()),
        Just(r#"{"phase":"devices","count":12,"message":"Discovered 12"}"#.to_owned()),
        Just("[]".to_owned()),
        "[ -~]{0,60}",
        ".{0,60}",
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    (name, data, end).prop_map(|(name, data, end)| {
        let data = data.replace(['\r', '\n'], " ");
        format!("event: {name}{end}data: {data}{end}{end}")
    })
}

fn inputs() -> impl Strategy<Value = SessionInput> {
    prop_oneof![
        6 => Just(SessionInput::Opened),
        10 => events().prop_map(|text| SessionInput::Bytes(text.into_bytes())),
        2 => prop::collection::vec(any::<u8>(), 0..200).prop_map(SessionInput::Bytes),
        10 => words().prop_map(SessionInput::Text),
        1 => (100u16..600, prop_oneof![Just(b"null".to_vec()), Just(b"[]".to_vec()), Just(b"<html>".to_vec())])
            .prop_map(|(status, body)| SessionInput::Answered(status, body)),
        1 => Just(SessionInput::Unreachable),
        1 => Just(SessionInput::Cleanly),
        1 => Just(SessionInput::Broken),
        1 => (1000u16..5000, ".{0,40}").prop_map(|(code, reason)| SessionInput::Close(code, reason)),
        2 => (0u64..4000).prop_map(SessionInput::Wait),
        1 => prop_oneof![Just(Cause::Stopping), Just(Cause::ClientGone), Just(Cause::CancelRequested)]
            .prop_map(SessionInput::Stopped),
    ]
}

fn apply_input(drive: &mut Drive, input: &SessionInput) {
    match input {
        SessionInput::Opened => drive.event(SessionEvent::Opened),
        SessionInput::Answered(status, body) => drive.event(SessionEvent::Answered(ErrorResponse {
            status: *status,
            retry_after: Some("7"),
            body,
            ..ErrorResponse::default()
        })),
        SessionInput::Unreachable => drive.event(SessionEvent::Unreachable("nobody is there")),
        SessionInput::Bytes(bytes) => drive.event(SessionEvent::Bytes(bytes)),
        SessionInput::Text(text) => drive.event(SessionEvent::Text(text)),
        SessionInput::Cleanly => drive.event(SessionEvent::Closed(CloseReason::Cleanly)),
        SessionInput::Broken => drive.event(SessionEvent::Closed(CloseReason::Broken("reset"))),
        SessionInput::Close(code, reason) => {
            drive.event(SessionEvent::Closed(CloseReason::Frame { code: *code, reason }))
        }
        SessionInput::Wait(seconds) => drive.wait(Duration::from_secs(*seconds)),
        SessionInput::Stopped(cause) => drive.event(SessionEvent::Stopped(*cause)),
    };
}

fn channels() -> impl Strategy<Value = Channel> {
    prop_oneof![Just(Channel::Native), Just(Channel::Websocket), Just(Channel::Json)]
}

fn dialects() -> impl Strategy<Value = Option<Dialect>> {
    prop_oneof![
        Just(None),
        Just(Some(Dialect::V0_0_2)),
        Just(Some(Dialect::V0_0_3)),
        Just(Some(Dialect::V0_0_4)),
        Just(Some(Dialect::V0_0_7)),
        Just(Some(Dialect::V0_0_23)),
        Just(Some(Dialect::V0_0_27)),
    ]
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Devices), Just(Kind::VirtualMachines), Just(Kind::FullUpdate)]
}

#[test]
fn any_cut_of_any_recording_gives_the_same_frames() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings");
    let mut streams = 0;
    for version in folder.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(recordings) = version.join("sse").read_dir() else { continue };
        for path in recordings.map(|entry| entry.unwrap().path()) {
            let recording = Recording::read(&path).unwrap();
            let body: Vec<u8> = recording
                .frames
                .iter()
                .filter_map(|frame| match &frame.event {
                    RecordedEvent::Body(bytes) => Some(bytes.to_vec()),
                    _ => None,
                })
                .flatten()
                .collect();
            let whole = open_native(&[&body]);
            for size in [1, 2, 3, 7, 61, 512, 4096] {
                let pieces: Vec<&[u8]> = body.chunks(size).collect();
                assert_eq!(open_native(&pieces), whole, "{} in pieces of {size}", path.display());
            }
            streams += 1;
        }
    }
    assert!(streams > 20, "only {streams} streams were found");
}

/// The frames that come of a stream in these pieces.
fn open_native(pieces: &[&[u8]]) -> Vec<String> {
    let mut drive = Drive::start(setup(Kind::FullUpdate, Channel::Native));
    drive.event(SessionEvent::Opened);
    for piece in pieces {
        drive.event(SessionEvent::Bytes(piece));
    }
    drive.event(SessionEvent::Closed(CloseReason::Cleanly));
    drive.frames
}

/// What a backend tells of virtual machines, each with the number of its name, whether it failed, and whether rows tell
/// of its end: the events of each in either form, and the numbers of the stage.
fn reported_forms(objects: &[(usize, bool, bool)]) -> (Vec<Vec<String>>, Vec<String>) {
    let mut reported = Vec::new();
    // Objects of one name are worked on one after the other.
    for name in 0..6 {
        let (mut frames, mut items) = (Vec::new(), Vec::new());
        let title = format!("vm{name}");
        for (_, has_failed, has_end) in objects.iter().filter(|(known, ..)| *known == name) {
            let end = if *has_failed { "failed" } else { "completed" };
            frames.push(events::object_step("virtual_machine", "progress", &title));
            items.push(events::item_progress("virtual-machines", "processing", &title));
            if *has_end {
                items.push(events::item_progress("virtual-machines", end, &title));
                frames.push(sse(
                    "step",
                    json!({"step": "virtual_machine", "status": end, "rowid": title, "error": "e"}),
                ));
            }
        }
        reported.extend([frames, items]);
    }
    let failed = objects.iter().filter(|(_, has_failed, _)| *has_failed).count() as u64;
    let all = objects.len() as u64;
    let finished =
        json!({"step": "virtual-machines", "status": "completed", "result": {"count": all - failed}});
    let numbers = vec![
        events::discovery("virtual-machines", all),
        events::phase_summary("virtual-machines", all - failed, failed),
        sse("step", finished),
        sse("complete", json!({"ok": true, "message": "m", "result": {"count": all - failed}})),
    ];
    (reported, numbers)
}

/// The counts of a stream of virtual machines.
fn counted(events: &[String]) -> Vec<(Object, Count)> {
    let run = native_run(Kind::VirtualMachines, events);
    run.report.counts.0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_counts_do_not_depend_on_the_order_of_events(
        objects in prop::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 1..12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let (reported, numbers) = reported_forms(&objects);
        let in_turn: Vec<String> = reported.iter().flatten().cloned().chain(numbers.clone()).collect();
        // The events of one object in one form keep their order. All others are shuffled.
        let mut queues: Vec<VecDeque<String>> =
            reported.into_iter().chain(numbers.into_iter().map(|number| vec![number])).map(VecDeque::from).collect();
        let mut mixed = Vec::new();
        for index in order.iter().cycle() {
            queues.retain(|queue| !queue.is_empty());
            if queues.is_empty() {
                break;
            }
            let next = index.index(queues.len());
            mixed.extend(queues[next].pop_front());
        }
        prop_assert_eq!(counted(&mixed), counted(&in_turn));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_backend_does_a_reader_gets_a_whole_stream_or_a_real_answer(
        kind in kinds(),
        channel in channels(),
        dialect in dialects(),
        with_key in any::<bool>(),
        all_events in any::<bool>(),
        waits in 0usize..3,
        inputs in prop::collection::vec(inputs(), 0..40),
    ) {
        let mut setup = setup(kind, channel);
        setup.dialect = dialect;
        setup.credential = with_key.then(|| "0123456789abcdef".parse().unwrap());
        setup.options.all_events = all_events;
        let mut drive = Drive::start_late(setup, waits);
        for input in &inputs {
            apply_input(&mut drive, input);
        }
        // Every run ends, whatever the backend does.
        drive.wait(Duration::from_secs(30_000));
        prop_assert!(drive.end.is_some(), "the run has no end");
        prop_assert_eq!(drive.deadline(), None);
        match (&drive.refused, drive.accepted) {
            (Some(refusal), false) => {
                prop_assert!(drive.bytes.is_empty());
                prop_assert!(refusal.status >= 400);
            }
            (None, true) => {
                stream::read(&drive.bytes);
            }
            both => prop_assert!(false, "refused and accepted: {both:?}"),
        }
    }

    #[test]
    fn any_cut_of_a_stream_gives_the_same_frames(
        texts in prop::collection::vec(events(), 0..20),
        cuts in prop::collection::vec(1usize..40, 1..40),
    ) {
        let whole = texts.concat();
        let mut pieces = Vec::new();
        let mut rest = whole.as_bytes();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        prop_assert_eq!(open_native(&pieces), open_native(&[whole.as_bytes()]));
    }
}

/// `text` without credentials.
fn hidden(text: &str) -> String {
    String::from_utf8(CredentialFilter::new(&Redactor::default()).hide(text.as_bytes())).unwrap()
}

/// Checks that each form of `secret` hides it, and stays JSON if it is.
fn check_forms(secret: &str, forms: fn(&str) -> Vec<String>) -> Result<(), TestCaseError> {
    for (form, template) in forms(secret).iter().zip(forms("")) {
        // It may be a part of what is around it.
        prop_assume!(!template.contains(secret));
        let hidden = hidden(form);
        prop_assert!(!has(&hidden, secret), "{form:?} became {hidden:?}");
        let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        prop_assert_eq!(is_json(form), is_json(&hidden), "{:?} became {:?}", form, hidden);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_form_of_any_secret_leaves_it(
        any in "[^\\x00-\\x1f\\x7f*<\\[]\\PC{2,24}[^\\x00-\\x1f\\x7f*>]",
        word in "[A-Za-z][A-Za-z0-9_.~+/-]{3,24}[0-9]",
    ) {
        check_forms(&any, quoted_forms)?;
        check_forms(&word, quoted_forms)?;
        check_forms(&word, word_forms)?;
    }

    #[test]
    fn json_without_its_credentials_is_json(text in ".{0,60}", token in "[a-z]{0,9}") {
        for json in [json!({ "m": &text, "token": &text }), json!([&token, &text]), json!(format!("{token}={text}"))] {
            let hidden = hidden(&json.to_string());
            prop_assert!(serde_json::from_str::<serde_json::Value>(&hidden).is_ok(), "{json} became {hidden}");
        }
    }
}
