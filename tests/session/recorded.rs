//! Every recording of a real backend: no more objects are called completed than NetBox held, and no failure that
//! the backend reported is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::{Kind, SyncEndpoint};
use proxbox_bridge::core::domain::object::Object;
use proxbox_bridge::core::domain::release::Release;
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent, SessionSetup};
use proxbox_bridge::core::upstream::dialect::Dialect;
use proxbox_bridge::recording::{Direction, Protocol, RecordedEvent, Recording};
use serde_json::Value;

use crate::support::session::drive::{Drive, setup};
use crate::support::session::events::KEY;
use crate::support::session::run::FinishedRun;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The name in `fixtures/netbox` of an object type.
fn name_in_netbox(object: Object) -> Option<&'static str> {
    Some(match object {
        Object::Device => "devices",
        Object::Storage => "storages",
        Object::VirtualMachine => "vms",
        Object::VirtualDisk => "vm-disks",
        Object::Backup => "backups",
        Object::Snapshot => "snapshots",
        Object::Interface | Object::NodeInterface => "interfaces",
        Object::VmInterface => "vm-interfaces",
        Object::VmIp => "ips",
        Object::Replication => "replications",
        Object::BackupRoutine => "routines",
        Object::TaskHistory | Object::Sdn | Object::Other => return None,
    })
}

/// What NetBox held, by the first two words of each line.
fn held(path: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).expect("a file of what NetBox held");
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    });
    lines.collect()
}

/// A recording of a sync, and how it is driven.
struct RecordedSync {
    name: String,
    recording: Recording,
    kind: Kind,
    channel: Channel,
    release: Release,
}

impl RecordedSync {
    fn read(path: &Path, version: &str) -> Option<Self> {
        let recording = Recording::read(path).expect("a recording");
        let sent = recording.frames.iter().find_map(|frame| match &frame.event {
            RecordedEvent::Request { target, .. } => {
                Some(target.split('?').next().unwrap_or_default().to_owned())
            }
            _ => None,
        })?;
        let (kind, channel) = match recording.header.protocol {
            Protocol::Websocket => (command(&recording)?, Channel::Websocket),
            Protocol::Http => match SyncEndpoint::from_path(&sent) {
                Some(endpoint) => (endpoint.kind, Channel::Native),
                None => (SyncEndpoint::from_path(&format!("{sent}/stream"))?.kind, Channel::Json),
            },
        };
        let release = version.split('-').next()?.parse().expect("a release");
        let name = path.strip_prefix(fixtures()).ok()?.display().to_string();
        Some(Self { name, recording, kind, channel, release })
    }

    fn drive(&self) -> Drive {
        let dialect = Dialect::for_release(self.release);
        let credential = dialect.wants_key().then(|| KEY.parse().expect("a key"));
        let known = setup(self.kind, self.channel);
        Drive::start(SessionSetup {
            release: Some(self.release),
            dialect: Some(dialect),
            credential,
            ..known
        })
    }

    /// The resulting run. A stream that the recorder left is treated as broken.
    fn run(&self) -> Option<FinishedRun> {
        let mut drive = self.drive();
        let mut status = 0;
        let mut body = Vec::new();
        for frame in self.recording.frames.iter().filter(|frame| frame.direction == Direction::In) {
            match &frame.event {
                RecordedEvent::Response { status: reported, .. } => {
                    status = *reported;
                    if self.channel != Channel::Json && matches!(status, 101 | 200) {
                        drive.open();
                    }
                }
                RecordedEvent::Body(bytes) => {
                    body.extend_from_slice(bytes);
                    drive.event(SessionEvent::Bytes(bytes));
                }
                RecordedEvent::Text(text) => {
                    drive.text(text);
                }
                RecordedEvent::Close { code, reason } => {
                    drive.close(code.unwrap_or(1005), reason);
                }
                _ => {}
            }
        }
        if self.channel == Channel::Json || status >= 400 {
            drive.answer(status, &String::from_utf8_lossy(&body));
        }
        if drive.end.is_none() {
            drive.event(SessionEvent::Closed(CloseReason::Broken("the recording ends here")));
        }
        drive.accepted.then(|| drive.run())
    }

    /// How many objects of each type failed, as reported by the backend.
    fn failed(&self) -> BTreeMap<Object, u64> {
        let mut reported = BackendCounts::default();
        for frame in self.recording.frames.iter().filter(|frame| frame.direction == Direction::In) {
            if let RecordedEvent::Text(text) = &frame.event {
                reported.frame(&serde_json::from_str(text).unwrap_or_default());
            }
        }
        if self.channel == Channel::Native {
            for (name, data) in self.events() {
                reported.event(&name, &data, self.kind);
            }
        }
        reported.counts()
    }

    fn events(&self) -> Vec<(String, Value)> {
        let bodies = self.recording.frames.iter().filter_map(|frame| match &frame.event {
            RecordedEvent::Body(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
        let text: String = bodies.collect();
        let events = text.split("\n\n").filter_map(|event| {
            let mut lines = event.lines();
            let name = lines.find_map(|line| line.strip_prefix("event: "))?.to_owned();
            Some((name, serde_json::from_str(lines.next()?.strip_prefix("data: ")?).ok()?))
        });
        events.collect()
    }
}

/// The sync that a recorded client sends the command for.
fn command(recording: &Recording) -> Option<Kind> {
    let sent = recording.frames.iter().filter(|frame| frame.direction == Direction::Out);
    let mut commands = sent.filter_map(|frame| match &frame.event {
        RecordedEvent::Text(text) if text == "Sync Nodes" => Some(Kind::Devices),
        RecordedEvent::Text(text) if text == "Sync Virtual Machines" => Some(Kind::VirtualMachines),
        RecordedEvent::Text(text) if text == "Full Update Sync" => Some(Kind::FullUpdate),
        _ => None,
    });
    let first = commands.next()?;
    commands.next().is_none().then_some(first)
}

/// Reported failures.
#[derive(Default)]
struct BackendCounts {
    named: BTreeMap<Object, BTreeSet<String>>,
    counted: BTreeMap<Object, u64>,
}

impl BackendCounts {
    fn name(&mut self, object: Object, name: &Value, error: &Value) {
        let is_part = error.as_str().is_some_and(|error| error.starts_with("Could not set primary IP"));
        if let (Some(name), false) = (name.as_str(), is_part) {
            self.named.entry(object).or_default().insert(name.to_owned());
        }
    }

    fn count(&mut self, object: Object, numbers: &Value) {
        let failed =
            ["failed", "errors", "failed_tasks"].iter().filter_map(|name| numbers[name].as_u64()).max();
        let known = self.counted.entry(object).or_default();
        *known = failed.unwrap_or_default().max(*known);
    }

    fn frame(&mut self, frame: &Value) {
        let data = &frame["data"];
        let Some(object) = frame["object"].as_str().and_then(Object::from_step) else { return };
        if data["error"].is_string() {
            self.name(object, &data["rowid"], &data["error"]);
        } else if data["sync_status"] == "undefined" && data["disks"].is_string() && data["completed"] == true
        {
            self.name(object, &data["rowid"], &data["disks"]);
        }
    }

    fn event(&mut self, name: &str, data: &Value, kind: Kind) {
        let sort = |word: &Value| Kind::from_stage(word.as_str()?).map(|kind| kind.row().object);
        match name {
            "step" => {
                self.frame(&data["payload"]);
                if let (Some(stage), "sync") =
                    (sort(&data["payload"]["step"]), data["step"].as_str().unwrap_or(""))
                {
                    self.count(stage, &data["payload"]["result"]);
                }
            }
            "item_progress" if data["status"] == "failed" || data["operation"] == "failed" => {
                if let Some(object) = sort(&data["phase"]) {
                    self.name(object, &data["item"]["name"], &data["error"]);
                }
            }
            "phase_summary" => {
                if let Some(object) = sort(&data["phase"]) {
                    self.count(object, &data["result"]);
                }
            }
            "complete" if kind == Kind::FullUpdate => {
                for (stage, numbers) in data["result"].as_object().into_iter().flatten() {
                    if let Some(kind) = Kind::from_stage(&stage.replace('_', "-")) {
                        self.count(kind.row().object, numbers);
                    }
                }
            }
            "complete" => self.count(kind.row().object, &data["result"]),
            _ => {}
        }
    }

    fn counts(mut self) -> BTreeMap<Object, u64> {
        for (object, names) in self.named {
            let known = self.counted.entry(object).or_default();
            *known = (names.len() as u64).max(*known);
        }
        // Their events are not of objects in NetBox.
        self.counted.retain(|object, _| !matches!(object, Object::TaskHistory | Object::Other));
        self.counted
    }
}

fn syncs() -> Vec<RecordedSync> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
    };
    let mut syncs = Vec::new();
    for version in list(&fixtures().join("recordings")) {
        let name = version.file_name().expect("a name").to_string_lossy().into_owned();
        for scenario in list(&version) {
            syncs.extend(list(&scenario).iter().filter_map(|path| RecordedSync::read(path, &name)));
        }
    }
    syncs.sort_by(|one, other| one.name.cmp(&other.name));
    syncs
}

#[test]
fn no_more_is_completed_than_netbox_held_and_no_failure_is_lost() {
    // All objects of the recorded cluster, where the content of NetBox was not recorded.
    let most = held(&fixtures().join("netbox/lab.txt"));
    let mut compared = 0;
    for sync in syncs() {
        let Some(run) = sync.run() else { continue };
        let truth = fixtures().join(sync.name.replace("recordings/", "netbox/").replace("live/", ""));
        let truth = truth.with_extension("txt");
        let held = if truth.exists() { held(&truth) } else { most.clone() };
        for (object, count) in &run.report.counts.0 {
            let name = name_in_netbox(*object);
            let held = name.map_or(u64::MAX, |name| held[name]);
            assert!(count.completed <= held, "{}: {object} {count:?}, NetBox held {held}", sync.name);
            assert!(count.adds_up(), "{}: {object} {count:?}", sync.name);
        }
        for (object, failed) in sync.failed() {
            let counted = run.report.counts.0.iter().find(|(known, _)| *known == object);
            let counted = counted.map_or(0, |(_, count)| count.failed);
            assert!(counted >= failed, "{}: {failed} {object} failed, {counted} counted", sync.name);
            let named = run.report.failed_objects.iter().any(|known| known.object.contains(object.as_str()));
            assert!(named || failed == 0, "{}: no {object} is named", sync.name);
        }
        compared += 1;
    }
    assert!(compared > 100, "only {compared} recordings were compared");
}

/// The expected result of a recording: whether it is a success, and its counts.
type Expected = (&'static str, bool, &'static [(&'static str, [u64; 4])]);

#[test]
fn what_was_seen_in_netbox_is_what_is_counted() {
    let expected: [Expected; 15] = [
        ("0.0.2.post1/live/1-devices", true, &[("device", [3, 0, 0, 3])]),
        ("0.0.2.post1/live/7-full", true, &[("device", [3, 0, 0, 3]), ("virtual_machine", [12, 12, 0, 0])]),
        // One machine failed, and the others were confirmed behind the end of their stage.
        ("0.0.2.post1/live/f5-vms-one-500-slow", true, &[("virtual_machine", [12, 11, 1, 0])]),
        // Four of twelve are in NetBox; the others were never reported.
        ("0.0.2.post1/live/f1b-vms-proxmox-killed-fresh", true, &[("virtual_machine", [5, 4, 1, 0])]),
        ("0.0.6.post4/live/1-devices", true, &[("device", [3, 3, 0, 0])]),
        ("0.0.6.post4/live/1-devices-second", false, &[("device", [1, 0, 0, 1])]),
        ("0.0.6.post4/live/2-storage", true, &[("storage", [4, 4, 0, 0])]),
        // A success that synced nothing.
        ("0.0.6.post4/live/3-vms-allfail", false, &[("virtual_machine", [12, 0, 0, 12])]),
        ("0.0.6.post4/live/3-vms-workaround", true, &[("virtual_machine", [12, 12, 0, 0])]),
        // Machines were looked at, and a disk of one was taken for that of another.
        ("0.0.6.post4/live/4-disks", true, &[("virtual_disk", [9, 2, 0, 7])]),
        ("0.0.6.post4/live/5-backups", false, &[("backup", [15, 0, 0, 15])]),
        ("0.0.6.post4/live/6-snapshots", true, &[]),
        (
            "0.0.6.post4/live/7-full",
            false,
            &[
                ("device", [3, 3, 0, 0]),
                ("storage", [4, 4, 0, 0]),
                ("virtual_machine", [12, 9, 0, 3]),
                ("virtual_disk", [9, 2, 0, 7]),
                ("backup", [15, 0, 0, 15]),
                ("vm_interface", [13, 12, 1, 0]),
                ("vm_ip", [4, 4, 0, 0]),
                ("backup_routine", [1, 0, 1, 0]),
            ],
        ),
        ("0.0.6.post4/live/8-vms-orphan", false, &[]),
        ("0.0.6.post4/live/9-vms-channel-websocket", true, &[("virtual_machine", [12, 3, 0, 9])]),
    ];
    for (name, is_ok, counts) in expected {
        let path = fixtures().join(format!("recordings/{name}.ndjson"));
        let version = name.split('/').next().expect("a version");
        let run = RecordedSync::read(&path, version).expect("a sync").run().expect("a stream");
        let counted: Vec<(&str, [u64; 4])> = run
            .report
            .counts
            .0
            .iter()
            .map(|(object, count)| {
                (object.as_str(), [count.seen, count.completed, count.failed, count.unconfirmed])
            })
            .collect();
        assert_eq!((run.is_ok(), counted.as_slice()), (is_ok, counts), "{name}: {}", run.message());
    }
}
