//! Builders of backend events, in the format of each release.

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::run::session::SessionSetup;
use proxbox_bridge::core::upstream::dialect::{BARRIER, Dialect};
use serde_json::{Value, json};

use super::drive::{Drive, setup};

pub const KEY: &str = "0123456789abcdef";

/// An event as a backend writes it.
pub fn sse(name: &str, data: Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

pub fn step(data: Value) -> String {
    sse("step", data)
}

/// The step of one object, with the frame that old pages were sent as its payload.
pub fn object_step(object: &str, status: &str, name: &str) -> String {
    let (verb, completed) = if status == "completed" { ("Synced", true) } else { ("Processing", false) };
    step(json!({
        "step": object, "status": status, "message": format!("{verb} {object} {name}"), "rowid": name,
        "payload": {"object": object, "type": "create", "data": {
            "completed": completed, "sync_status": if completed { "completed" } else { "syncing" },
            "rowid": name, "name": format!("<a href='http://netbox/{name}/'>{name}</a>"),
            "netbox_id": name.bytes().map(u64::from).sum::<u64>(),
        }},
    }))
}

/// The `item_progress` event of newer releases for one object.
pub fn item_progress(phase: &str, status: &str, name: &str) -> String {
    let mut data = json!({
        "event": "item_progress", "phase": phase, "status": status, "message": format!("{status} '{name}'"),
        "item": {"name": name, "item_type": "node"}, "operation": "created",
        "progress": {"current": 1, "total": 3, "percent": 33.33333333333333},
    });
    if status == "failed" {
        data["operation"] = json!("failed");
        data["error"] = json!(format!("no room for {name}"));
    }
    sse("item_progress", data)
}

pub fn discovery(phase: &str, count: u64) -> String {
    sse(
        "discovery",
        json!({"event": "discovery", "phase": phase, "status": "discovered",
            "message": format!("Discovered {count} object(s) to synchronize"), "count": count, "items": []}),
    )
}

pub fn phase_summary(phase: &str, created: u64, failed: u64) -> String {
    sse(
        "phase_summary",
        json!({"event": "phase_summary", "phase": phase,
            "status": if failed > 0 { "completed_with_errors" } else { "completed" },
            "message": format!("Sync completed: {created} synchronized, {failed} failed"),
            "result": {"created": created, "updated": 0, "deleted": 0, "failed": failed, "skipped": 0,
                "total": created + failed}}),
    )
}

/// The final event of a successful run.
pub fn complete_ok() -> String {
    sse("complete", json!({"ok": true, "message": "devices sync completed.", "result": {}}))
}

pub fn error(error: Value, detail: Value) -> String {
    sse("error", json!({"step": "devices", "status": "failed", "error": error, "detail": detail}))
}

/// A native run of `kind` whose connection is open.
pub fn open_native(kind: Kind) -> Drive {
    open_run(setup(kind, Channel::Native))
}

/// A run whose connection is open.
pub fn open_run(setup: SessionSetup) -> Drive {
    let mut drive = Drive::start(setup);
    drive.open();
    drive
}

/// The run of `kind` over a native stream of `events`, after which the backend disconnects.
pub fn native_run(kind: Kind, events: &[String]) -> super::run::FinishedRun {
    open_native(kind).stream(&events.concat()).hang_up().run()
}

/// A run of `kind` over `/ws`, with a key where the dialect wants one.
pub fn ws_setup(kind: Kind, dialect: Option<Dialect>) -> SessionSetup {
    let mut setup = setup(kind, Channel::Websocket);
    setup.dialect = dialect;
    setup.credential = dialect.is_some_and(Dialect::wants_key).then(|| KEY.parse().expect("a key"));
    setup
}

/// A run of `kind` over `/ws` that has been greeted.
pub fn ws(kind: Kind, dialect: Dialect) -> Drive {
    let mut drive = open_run(ws_setup(kind, Some(dialect)));
    drive.text("Connected!").text("Connected 2!");
    assert!(drive.accepted);
    drive
}

/// A `/ws` frame about one object, with its `sync_status`.
pub fn frame(object: &str, name: &str, status: &str) -> String {
    json!({"object": object, "type": "create", "data": {
        "completed": status == "completed", "sync_status": status,
        "rowid": name, "name": name, "netbox_id": "undefined",
        "cluster": "<a href='http://netbox/api/1/'>lab</a>",
    }})
    .to_string()
}

pub fn end(object: &str) -> String {
    json!({"object": object, "end": true}).to_string()
}

/// The answers to the barrier, from releases that repeat what they do not know.
pub fn barrier() -> String {
    format!("Invalid command: {BARRIER}")
}

pub const VALID: &str = "Valid commands: 'Sync Nodes', 'Sync Virtual Machines', 'Full Update Sync'";
