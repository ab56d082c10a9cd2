//! How old pages show the frames they receive.

mod clients;
mod logs;
mod old_page;
mod properties;

use std::borrow::Cow;

use serde_json::{Value, json};

use super::rows::{MAX_OBJECTS, MAX_PENDING_CELLS, RowUpdate};
use crate::core::domain::event::StepStatus::{self, Completed, Failed, Progress, Started};
use crate::core::domain::event::{Failure, Step, StreamEnd};
use crate::core::legacy_client::*;
use crate::core::upstream::dialect::{self, Dialect, WsMessage};
use crate::core::upstream::fact::{Fact, ObjectState};
use crate::core::wire::sse::encoder::SseEncoder;
use logs::{Log, RUN_ID};
use old_page::OldPage;

macro_rules! snapshot {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../tests/snapshots/", $name, ".snap")))
    };
}

macro_rules! recording {
    ($name:literal) => {
        include_str!(concat!("../../../fixtures/recordings/", $name, ".ndjson"))
    };
}

/// The golden streams of the kinds with a command, from every release and channel, with successes and failures.
const GOLDEN: [(&str, &str); 23] = [
    snapshot!("0.0.2.post1_auto_devices"),
    snapshot!("0.0.2.post1_auto_virtual-machines"),
    snapshot!("0.0.2.post1_auto_full-update"),
    snapshot!("0.0.2.post1_auto_ws-vms-netbox-killed-mid-sync"),
    snapshot!("0.0.2.post1_auto_ws-vms-one-vm-config-500"),
    snapshot!("0.0.3_auto_devices"),
    snapshot!("0.0.3_auto_full-update"),
    snapshot!("0.0.3_websocket_virtual-machines"),
    snapshot!("0.0.11.post2_auto_devices"),
    snapshot!("0.0.11.post2_auto_virtual-machines"),
    snapshot!("0.0.11.post2_auto_full-update"),
    snapshot!("0.0.11.post2_auto_sse-full-update-proxmox-killed-mid-sync"),
    snapshot!("0.0.11.post2_auto_sse-vms-proxmox-killed-mid-sync"),
    snapshot!("0.0.11.post2_websocket_devices"),
    snapshot!("0.0.11.post2_websocket_full-update"),
    snapshot!("0.0.11.post2_websocket_ws-vms-proxmox-killed-mid-sync"),
    snapshot!("0.0.30.post2_auto_full-update"),
    snapshot!("0.0.30.post2_auto_sse-devices-netbox-down"),
    snapshot!("0.0.30.post2_auto_sse-vms-proxmox-killed-mid-sync"),
    snapshot!("0.0.30.post2_websocket_devices"),
    snapshot!("0.0.30.post2_websocket_full-update"),
    snapshot!("0.0.30.post2_websocket_virtual-machines"),
    snapshot!("0.0.30.post2_websocket_ws-vms-proxmox-killed-mid-sync"),
];

/// Logs with payloads, of full updates with both stages.
fn full_updates() -> [(&'static str, Log); 5] {
    let socket = logs::log_of_socket;
    [
        ("0.0.2.post1", socket(recording!("0.0.2.post1/ws/full-update-sync"), Dialect::V0_0_2)),
        ("0.0.11.post2", socket(recording!("0.0.11.post2/ws/full-update-sync"), Dialect::V0_0_7)),
        ("0.0.30.post2", socket(recording!("0.0.30.post2/ws/envelope-full-update"), Dialect::V0_0_27)),
        ("0.0.30.post2 in words", socket(recording!("0.0.30.post2/ws/full-update-sync"), Dialect::V0_0_23)),
        (STREAM, logs::log_of_stream(recording!("0.0.11.post2/sse/full-update"))),
    ]
}

/// The log of a stream that counts its virtual machines but does not name them.
const STREAM: &str = "0.0.11.post2 stream";

/// A step about an object, as encoded in a log.
fn step(object: &str, status: StepStatus, rowid: &str, payload: Value) -> Vec<u8> {
    let raw = (!payload.is_null()).then(|| serde_json::value::to_raw_value(&payload).unwrap());
    let error = (status == Failed).then_some(Cow::Borrowed("no room"));
    let rowid = Some(Cow::Borrowed(rowid));
    let step = Step { rowid, error, payload: raw.as_deref(), ..Step::stage(object, status, "m") };
    SseEncoder::start(&step).1.with_payload().to_vec()
}

fn stage(word: &str, status: StepStatus) -> Vec<u8> {
    SseEncoder::start(&Step::stage(word, status, "m")).1.bytes.to_vec()
}

fn legacy(object: &str, data: Value) -> Value {
    json!({"object": object, "type": "create", "data": data})
}

/// The end of a log.
fn end(failure: Option<(&str, &str)>) -> Log {
    let failure = failure.map(|(step, detail)| Failure {
        detail: detail.to_owned(),
        ..Failure::new(step, "It failed.".to_owned())
    });
    let verdict = StreamEnd { message: "m".to_owned(), failure, ..StreamEnd::default() };
    let stream = SseEncoder::start(&Step::stage("devices", Progress, "m")).0;
    stream.finish(verdict).into_iter().map(|frame| frame.bytes.to_vec()).collect()
}

/// The frames that a page running `command` receives, parsed if they are JSON.
fn sent(command: WsCommand, run_id: Option<&str>, log: &Log) -> Vec<Value> {
    let frames = logs::page(log, command, run_id).0;
    let value = |frame: &String| serde_json::from_str(frame).unwrap_or_else(|_| Value::from(frame.as_str()));
    frames.iter().map(value).collect()
}

fn data(frames: &[Value]) -> Vec<&Value> {
    frames.iter().filter_map(|frame| frame.get("data")).collect()
}

/// The sync status and `completed` of every frame of an object.
fn course(frames: &[Value]) -> Vec<(&str, Option<bool>)> {
    data(frames)
        .iter()
        .map(|data| (data["sync_status"].as_str().unwrap(), data["completed"].as_bool()))
        .collect()
}

fn check_log(name: &str, log: &Log) {
    let ok = logs::events(log, "complete")[0]["ok"].as_bool().unwrap();
    for command in [WsCommand::FullUpdate, WsCommand::SyncNodes, WsCommand::SyncVirtualMachines] {
        for run_id in [None, Some(RUN_ID)] {
            let (frames, ended) = logs::page(log, command, run_id);
            let page = OldPage::reading(&frames);
            page.check();
            for (object, table) in [("device", &page.devices), ("virtual_machine", &page.machines)] {
                let shown = (table.total, table.synced);
                assert_eq!(shown, logs::count_objects(log, object), "{name}: {object}");
            }
            assert_eq!(ended.ending == Some(Ok(())), ok, "{name}");
            let released = |object: &str| page.released.contains(object);
            if ok {
                let own =
                    |kind: Kind| command == WsCommand::FullUpdate || kind.row().command == Some(command);
                assert!(!own(Kind::Devices) || released("device"), "{name}");
                assert!(!own(Kind::VirtualMachines) || released("virtual_machine"), "{name}");
                assert_eq!(released("full-update"), command == WsCommand::FullUpdate, "{name}");
            } else {
                let finished = |stage: &str| {
                    let mut steps = logs::events(log, "step").into_iter();
                    steps.any(|step| step["step"] == stage && step["status"] == "completed")
                };
                assert_eq!(released("device"), finished("devices"), "{name}");
                assert_eq!(released("virtual_machine"), finished("virtual-machines"), "{name}");
                let is_marked = command == WsCommand::FullUpdate && run_id.is_some();
                assert_eq!(released("full-update"), is_marked, "{name}");
            }
            let marked = |frame: &String| frame.contains(&format!("\"run_id\":\"{RUN_ID}\"}}"));
            assert!(frames.iter().all(|frame| marked(frame) == run_id.is_some()), "{name}");
        }
    }
}

#[test]
fn a_page_that_reads_any_recorded_run_ends_with_its_objects_and_every_cell_set() {
    for (name, snapshot) in GOLDEN {
        check_log(name, &logs::golden(snapshot));
    }
    for (name, log) in full_updates() {
        assert!(!logs::objects(&log).is_empty(), "{name}");
        check_log(name, &log);
    }
}

#[test]
fn the_frames_of_recorded_runs_are_these() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../../tests/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for ((name, log), run_id) in full_updates().iter().zip([None, None, Some(RUN_ID)]) {
        let frames = logs::page(log, WsCommand::FullUpdate, run_id).0;
        settings.bind(|| insta::assert_snapshot!(format!("page_{name}_full-update"), frames.join("\n")));
    }
}

#[test]
fn a_bridge_in_front_of_this_one_gets_the_same_end_and_counts_the_same_objects() {
    for (name, log) in full_updates() {
        for dialect in [Dialect::V0_0_4, Dialect::V0_0_7, Dialect::V0_0_27] {
            let outer = logs::relayed(&log, dialect);
            assert_eq!(logs::objects(&outer), logs::objects(&log), "{name} {dialect:?}");
            let end = |log: &Log| logs::events(log, "complete")[0].clone();
            let (inner, outer) = (end(&log), end(&outer));
            assert_eq!(inner["ok"], outer["ok"], "{name} {dialect:?}: {inner} {outer}");
            if name != STREAM {
                // A failed object without a name has no row.
                let objects =
                    |end: &Value, object: &str| end["result"]["objects"][object]["completed"].clone();
                for object in ["device", "virtual_machine"] {
                    assert_eq!(objects(&inner, object), objects(&outer, object), "{name} {dialect:?}");
                }
            }
        }
    }
}

#[test]
fn every_event_of_an_object_becomes_its_frames() {
    let remark = json!({"completed": true, "status": "warning", "warning": "No IP", "rowid": "web02"});
    let log: Log = vec![
        step("device", Completed, "pve1", json!(null)),
        step("virtual_machine", Progress, "web01", json!(null)),
        step("virtual_machine", Failed, "web01", json!(null)),
        step("storage", Completed, "lab/local", json!({"step": "storage", "status": "synced"})),
        step("vm_interface", Completed, "net0", legacy("vm_interface", json!({"vm": "web01"}))),
        step("vm_interface", Completed, "net0", legacy("vm_interface", json!({"vm": "web02"}))),
        step("virtual_machine", Completed, "web02", legacy("virtual_machine", remark)),
    ];
    let (frames, _) = logs::page(&log, WsCommand::FullUpdate, Some(RUN_ID));
    let parsed = frames.iter().map(|frame| match dialect::parse_frame(frame) {
        WsMessage::Fact(Fact::Object { object, scope, name, state, .. }) => {
            let state = match state {
                ObjectState::Processing => "begun".to_owned(),
                ObjectState::Completed { warning, .. } => format!("done {}", warning.unwrap_or_default()),
                ObjectState::Failed { error, .. } => format!("failed {error}"),
                checked @ ObjectState::Checked { .. } => format!("{checked:?}"),
            };
            format!("{} {} {name}: {state}", object.0, scope.owner.unwrap_or_default())
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(
        parsed.collect::<Vec<_>>(),
        [
            "device  pve1: begun",
            "device  pve1: done ",
            "virtual_machine  web01: begun",
            "virtual_machine  web01: failed no room",
            "storage  lab/local: begun",
            "storage  lab/local: done ",
            "vm_interface web01 net0: begun",
            "vm_interface web01 net0: done ",
            "vm_interface web02 net0: begun",
            "vm_interface web02 net0: done ",
            "virtual_machine  web02: begun",
            "virtual_machine  web02: done No IP",
        ]
    );
}

#[test]
fn an_object_starts_before_its_other_frames_and_finishes_once() {
    let begun = ("syncing", Some(false));
    let done = ("completed", Some(true));
    let failed = ("failed", None);
    for (words, expected) in [
        (vec![Progress, Completed], vec![begun, done]),
        (vec![Completed], vec![begun, done]),
        (vec![Failed], vec![begun, failed]),
        (vec![Progress, Progress, Completed, Completed, Progress], vec![begun, done]),
        (vec![Failed, Failed, Progress, Completed], vec![begun, failed, done]),
        (vec![Completed, Failed], vec![begun, done]),
    ] {
        for object in ["device", "virtual_machine", "storage"] {
            let log = words.iter().map(|status| step(object, *status, "a", json!(null))).collect();
            assert_eq!(course(&sent(WsCommand::FullUpdate, None, &log)), expected, "{object} {words:?}");
        }
    }
}

#[test]
fn the_parent_of_objects_without_rows_has_a_row_only_if_it_failed() {
    for (status, rows) in [(Progress, 0), (Completed, 0), (Failed, 2)] {
        let log = vec![step("snapshot", status, "web01", json!(null))];
        assert_eq!(data(&sent(WsCommand::FullUpdate, None, &log)).len(), rows, "{status:?}");
    }
}

#[test]
fn a_frame_has_every_key_of_its_object() {
    for (object, keys) in [("device", &old_page::DEVICE[..]), ("virtual_machine", &old_page::MACHINE[..])] {
        let log = [Progress, Failed, Completed].map(|status| step(object, status, "a", json!(null))).to_vec();
        let frames = sent(WsCommand::FullUpdate, None, &log);
        assert_eq!(frames.len(), 3);
        for frame in data(&frames) {
            for key in keys.iter().chain(&["rowid", "increment_count"]) {
                assert!(frame.get(key).is_some(), "{object} {key}: {frame}");
            }
            assert_eq!((&frame["name"], &frame["cluster"]), (&json!("a"), &json!(null)));
        }
        assert_eq!(frames[1]["data"]["error"], "no room");
        assert_eq!(frames[2]["data"].get("error"), None);
    }
    let frames = sent(WsCommand::FullUpdate, None, &vec![step("storage", Progress, "a", json!(null))]);
    assert_eq!(
        frames[0],
        json!({"object": "storage", "type": "create", "data": {"completed": false, "increment_count": "no",
            "sync_status": "syncing", "rowid": "a", "name": "a"}})
    );
}

#[test]
fn what_was_known_of_an_object_stays_in_its_row() {
    let known = json!({"completed": false, "netbox_id": "undefined", "status": "undefined", "cluster": "lab",
        "name": "web01", "device": "pve1", "vm_interfaces": "undefined", "rowid": "web01"});
    let remark = json!({"completed": true, "status": "warning", "warning": "No IP", "rowid": "web01"});
    let machine = |status, data| step("virtual_machine", status, "web01", legacy("virtual_machine", data));
    let log = vec![
        machine(Progress, known.clone()),
        machine(Failed, json!({"error": "Could not set primary IP.", "rowid": "web01"})),
        machine(Completed, remark),
    ];
    let frames = sent(WsCommand::SyncVirtualMachines, None, &log);
    for frame in data(&frames) {
        assert_eq!((&frame["cluster"], &frame["device"]), (&json!("lab"), &json!("pve1")), "{frame}");
        assert_eq!((&frame["status"], &frame["netbox_id"]), (&json!(null), &json!(null)), "{frame}");
    }
    assert_eq!(frames[2]["data"]["warning"], "No IP");

    let mut fuller = known;
    fuller["netbox_id"] = json!(5);
    fuller["status"] = json!("Active");
    fuller["vm_interfaces"] = json!(["<a href='http://n/1/'>net0</a>", "net1", {"a": 1}, 2, null]);
    fuller["disk"] = json!({"nested": true});
    fuller["vcpus"] = json!(1.5);
    fuller["role"] = json!(true);
    let frames = sent(WsCommand::SyncVirtualMachines, None, &vec![machine(Completed, fuller)]);
    let frame = &frames[1]["data"];
    assert_eq!((&frame["netbox_id"], &frame["status"]), (&json!(5), &json!("Active")));
    assert_eq!(frame["vm_interfaces"], json!(["<a href='http://n/1/'>net0</a>", "net1", null, 2, null]));
    assert_eq!((&frame["disk"], &frame["vcpus"], &frame["role"]), (&json!(null), &json!(1.5), &json!(true)));
}

#[test]
fn a_number_that_is_none_costs_only_its_own_cell() {
    let nines = "9".repeat(40);
    for (number, shown) in [("-1.5e3", json!(-1500.0)), ("1e999", json!(null)), (&nines, json!(null))] {
        let payload = format!(r#"{{"object": "device", "data": {{"netbox_id": {number}, "role": "r"}}}}"#);
        let step = r#""step": "device", "status": "progress", "message": "m", "rowid": "pve1""#;
        let log = vec![format!("event: step\ndata: {{{step}, \"payload\": {payload}}}\n\n").into_bytes()];
        let frames = sent(WsCommand::FullUpdate, None, &log);
        assert_eq!((&frames[0]["data"]["netbox_id"], &frames[0]["data"]["role"]), (&shown, &json!("r")));
    }
}

#[test]
fn no_text_of_a_backend_becomes_markup() {
    let image = "<img src=x onerror=alert(1)>";
    for (text, shown) in [
        (image, "&lt;img src=x onerror=alert(1)&gt;"),
        ("'><script>alert(1)</script>", "&#39;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("R&D \"x\" 'y'", "R&amp;D &quot;x&quot; &#39;y&#39;"),
        ("<a href='http://n/1/'>pve1</a>", "<a href='http://n/1/'>pve1</a>"),
        ("<a href=\"HTTPS://n/?a=1&b=2\">R&D</a>", "<a href='HTTPS://n/?a=1&amp;b=2'>R&amp;D</a>"),
        ("<a href=\"http://n/o'x\">y</a>", "<a href='http://n/o&#39;x'>y</a>"),
        ("<a href='javascript:alert(1)'>x</a>", "&lt;a href=&#39;javascript:alert(1)&#39;&gt;x&lt;/a&gt;"),
        (
            "<a href='http://n/' onclick='x()'>y</a>",
            "&lt;a href=&#39;http://n/&#39; onclick=&#39;x()&#39;&gt;y&lt;/a&gt;",
        ),
        (
            "<a href='http://n/'><b>y</b></a>",
            "&lt;a href=&#39;http://n/&#39;&gt;&lt;b&gt;y&lt;/b&gt;&lt;/a&gt;",
        ),
        (
            "<a href='http://n/'>y</a><a href='http://n/'>z</a>",
            "&lt;a href=&#39;http://n/&#39;&gt;y&lt;/a&gt;&lt;a href=&#39;http://n/&#39;&gt;z&lt;/a&gt;",
        ),
        ("<a href='http://n/o'brien'>y</a>", "&lt;a href=&#39;http://n/o&#39;brien&#39;&gt;y&lt;/a&gt;"),
        (" <a href='http://n/'>y</a>", " &lt;a href=&#39;http://n/&#39;&gt;y&lt;/a&gt;"),
        ("line\u{2028}and\u{2029}more\u{0}\n", "line\u{2028}and\u{2029}more\u{0}\n"),
    ] {
        let payload = legacy("device", json!({"name": text, "role": [text], "vm": text, "warning": text}));
        let log: Log = vec![
            step("device", Completed, text, payload.clone()),
            step("device", Failed, &format!("{text}2"), payload.clone()),
            step(text, Completed, text, payload.clone()),
            step("vm_interface", Completed, text, payload),
            stage(text, Completed),
        ];
        for run_id in [None, Some(text)] {
            let log: Log = log.iter().cloned().chain(end(Some((text, text)))).collect();
            let (frames, _) = logs::page(&log, WsCommand::FullUpdate, run_id);
            OldPage::reading(&frames).check();
            let first: Value = serde_json::from_str(&frames[0]).unwrap();
            assert_eq!(first["data"]["name"], shown);
            assert_eq!(first["data"]["role"], json!([shown]));
        }
    }
    let frames = sent(WsCommand::SyncNodes, None, &vec![step("device", Failed, image, json!(null))]);
    assert_eq!(frames[2]["data"]["rowid"], "&lt;img src=x onerror=alert(1)&gt;");
    assert_eq!(frames[2]["data"]["rowid"], frames[2]["data"]["name"]);
}

#[test]
fn no_text_is_longer_than_a_page_can_show() {
    let long = "é".repeat(600);
    for (text, length) in [
        (long.clone(), 500),
        ("<".repeat(600), 500),
        (format!("<a href='http://n/'>{long}</a>"), 500),
        (format!("<a href='http://n/{long}'>pve1</a>"), 4),
    ] {
        let log = vec![step("device", Progress, "a", legacy("device", json!({"role": text})))];
        let frames = sent(WsCommand::SyncNodes, None, &log);
        assert_eq!(frames[1]["data"]["role"].as_str().unwrap().chars().count(), length);
    }
}

#[test]
fn a_stage_ends_when_the_log_says_so_and_once() {
    let log: Log = vec![
        stage("devices", Started),
        stage("devices", Progress),
        stage("storage", Completed),
        stage("devices", Completed),
        stage("devices", Completed),
        stage("virtual-machines", Completed),
    ];
    let device = json!({"object": "device", "end": true});
    let machine = json!({"object": "virtual_machine", "end": true});
    assert_eq!(sent(WsCommand::FullUpdate, None, &log), [device, machine]);
}

#[test]
fn a_good_run_ends_every_stage_of_its_command() {
    let end_of = |object: &str| json!({"object": object, "end": true});
    let (device, machine) = (end_of("device"), end_of("virtual_machine"));
    let full = json!({"object": "full-update", "end": true, "status": "completed"});
    for (command, expected) in [
        (WsCommand::SyncNodes, vec![json!("Sync Nodes"), device.clone()]),
        (WsCommand::SyncVirtualMachines, vec![machine.clone()]),
        (WsCommand::FullUpdate, vec![device.clone(), machine.clone(), full]),
    ] {
        assert_eq!(sent(command, None, &end(None)), expected);
    }
    let log = [vec![stage("devices", Completed)], end(None)].concat();
    let full = json!({"object": "full-update", "end": true, "status": "completed",
        "stages": {"devices": "completed", "virtual-machines": "skipped"}});
    let marked = [device, machine, full].map(|mut frame| {
        frame["run_id"] = json!(RUN_ID);
        frame
    });
    assert_eq!(sent(WsCommand::FullUpdate, Some(RUN_ID), &log), marked);
    let echo = json!({"message": "Sync Nodes", "run_id": RUN_ID});
    assert_eq!(sent(WsCommand::SyncNodes, Some(RUN_ID), &vec![]), [echo]);
}

#[test]
fn a_bad_run_ends_no_stage_that_did_not_and_says_why() {
    let begun = vec![
        stage("devices", Completed),
        stage("virtual-machines", Started),
        step("virtual_machine", Progress, "web01", json!(null)),
    ];
    let log = [begun, end(Some(("full-update", "no <b>room</b> & no\ntime")))].concat();
    let (frames, page) = logs::page(&log, WsCommand::FullUpdate, None);
    let reason = "no room & no time";
    assert_eq!(page.ending, Some(Err(reason.to_owned())));
    assert_eq!(frames.last().unwrap(), "Error: no room &amp; no time");
    assert_eq!(OldPage::reading(&frames).released.into_iter().collect::<Vec<_>>(), ["device"]);

    let frames = sent(WsCommand::FullUpdate, Some(RUN_ID), &log);
    let [.., detail, full] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!(
        *detail,
        json!({"event": "error_detail", "phase": "virtual-machines", "category": "internal",
            "message": "no room &amp; no time", "run_id": RUN_ID})
    );
    assert_eq!(
        *full,
        json!({"object": "full-update", "end": true, "status": "failed",
            "stages": {"devices": "completed", "virtual-machines": "failed"}, "run_id": RUN_ID})
    );

    let log = [vec![stage("devices", Failed)], end(Some(("devices", "x")))].concat();
    let frames = sent(WsCommand::FullUpdate, Some(RUN_ID), &log);
    assert_eq!(frames.last().unwrap()["stages"]["devices"], "failed", "it began");

    for (command, blamed, phase) in [
        (WsCommand::SyncNodes, "devices", "devices"),
        (WsCommand::SyncVirtualMachines, "virtual-machines", "virtual-machines"),
        (WsCommand::FullUpdate, "storage", "storage"),
        (WsCommand::FullUpdate, "<b>", "devices"),
    ] {
        let frames = sent(command, Some(RUN_ID), &end(Some((blamed, "x"))));
        let detail = frames.iter().find(|frame| frame["event"] == "error_detail").unwrap();
        assert_eq!(detail["phase"], phase);
        assert!(!frames.iter().any(|frame| frame["object"] == "device"));
    }
}

#[test]
fn a_log_that_ends_without_sense_is_no_good_end() {
    for frame in [
        "event: complete\ndata: not json\n\n",
        "event: complete\ndata: []\n\n",
        "event: complete\ndata: {}\n\n",
        "event: complete\ndata: {\"ok\": \"true\", \"errors\": []}\n\n",
        "event: complete\ndata: {\"ok\": false, \"errors\": [7], \"message\": null}\n\n",
    ] {
        let (frames, page) = logs::page(&vec![frame.into()], WsCommand::SyncVirtualMachines, None);
        assert!(matches!(page.ending, Some(Err(reason)) if !reason.is_empty()), "{frame}");
        assert!(frames.iter().all(|frame| frame.starts_with("Error: ")), "{frames:?}");
    }
}

#[test]
fn no_frame_follows_the_end() {
    let mut page = LegacyClient::new(WsCommand::FullUpdate, None);
    let mut out = Vec::new();
    page.push_frame(&logs::frame(&end(None)[0]), &mut out);
    let sent = out.len();
    for late in [vec![step("device", Progress, "pve1", json!(null))], end(Some(("devices", "x")))] {
        late.iter().for_each(|event| page.push_frame(&logs::frame(event), &mut out));
    }
    assert_eq!((out.len(), page.ending), (sent, Some(Ok(()))));
}

#[test]
fn the_rows_of_a_page_are_bounded_and_none_is_counted_twice() {
    let take = |rows: &mut RowTracker, at: usize, state, cells: &Cells| {
        rows.update(("device", None, &format!("pve{at}")), state, cells.clone())
    };
    let cells = |role: Value| {
        let payload = legacy("device", json!({ "role": role })).to_string();
        Cells::from_fields(Object::Device, &LegacyFields::from_payload(Some(payload.as_bytes())))
    };
    let (empty, full, other) = (cells(json!(null)), cells(json!("a")), cells(json!("b")));
    let mut rows = RowTracker::default();
    for at in 0..MAX_OBJECTS + 10 {
        let news = take(&mut rows, at, Progress, &full);
        assert_eq!(news, (at < MAX_OBJECTS).then(|| RowUpdate { first: true, cells: full.clone() }));
        assert_eq!(take(&mut rows, at, Progress, &full), None, "{at} is sent twice");
    }
    let news = |cells: &Cells| Some(RowUpdate { first: false, cells: cells.clone() });
    let beyond = take(&mut rows, MAX_PENDING_CELLS, Completed, &empty);
    assert_eq!(beyond, news(&empty), "there was no room for it");
    assert_eq!(take(&mut rows, MAX_PENDING_CELLS - 1, Completed, &empty), news(&full));
    assert_eq!(take(&mut rows, MAX_PENDING_CELLS - 1, Failed, &full), None);
    // A completed object makes room for another.
    let last = MAX_OBJECTS - 1;
    assert_eq!(take(&mut rows, last, Progress, &other), None);
    assert_eq!(take(&mut rows, last, Failed, &empty), news(&other));

    let long = "x".repeat(500);
    let long = cells(json!([long, long, long, long]));
    let mut rows = RowTracker::default();
    for round in 0..2 {
        let mut round = round * MAX_PENDING_CELLS..(round + 1) * MAX_PENDING_CELLS;
        round.clone().for_each(|at| assert!(take(&mut rows, at, Progress, &long).is_some()));
        let is_kept = |at: &usize| take(&mut rows, *at, Completed, &empty) == news(&long);
        assert_eq!(round.by_ref().filter(is_kept).count(), (4 << 20) / long.bytes());
    }
    // One that has ended makes room for one other.
    let begun = 2 * MAX_PENDING_CELLS;
    let beyond = begun + (4 << 20) / long.bytes();
    (begun..beyond).for_each(|at| assert!(take(&mut rows, at, Progress, &long).is_some()));
    assert_eq!(take(&mut rows, begun, Completed, &empty), news(&long));
    for at in [beyond, beyond + 1] {
        assert!(take(&mut rows, at, Progress, &long).is_some());
    }
    let kept = [beyond, beyond + 1].map(|at| take(&mut rows, at, Completed, &empty));
    assert_eq!(kept, [news(&long), news(&empty)]);
}
