//! Every recorded version and every documented endpoint: the exact bytes of the stream, and the job that the
//! plugin makes of them.

use std::fmt::Write;

use crate::support::bridge::{Answer, BridgedReplay, TestBridge, WITH_KEY, config, fast, recordings};
use crate::support::plugin::{self, JobPage};
use crate::support::session::stream;
use proxbox_bridge::core::domain::kind::Kind;

/// The expected result of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// A green job.
    Good,
    /// A red job.
    Bad,
    /// No stream, but this status.
    Status(u16),
}
use End::{Bad, Good, Status};

/// The documented kinds, in the order of the table.
pub fn documented_kinds() -> impl Iterator<Item = Kind> {
    Kind::all().filter(|kind| kind.row().plugin_path.is_some())
}

async fn run(version: &str, uses: &[&str], channel: &str, kind: Kind) -> Answer {
    let pair = BridgedReplay::start(recordings(version, uses), fast(), &[("backend.channel", channel)]).await;
    pair.front.get(kind.row().stream_path, &WITH_KEY).await
}

fn shown(answer: &Answer) -> String {
    let mut text = format!("{}\n", answer.status);
    for (name, value) in &answer.headers {
        // Job ids are random.
        let value = if name == "x-proxbox-bridge-job" { "<job>" } else { value };
        if !["date", "content-length", "x-request-id"].contains(&name.as_str()) {
            writeln!(text, "{name}: {value}").unwrap();
        }
    }
    format!("{text}\n{}", answer.text())
}

fn check(name: &str, answer: &Answer, end: End) {
    let found = if answer.status == 200 {
        let events = stream::read(&answer.body);
        let last = &events.last().unwrap().data;
        let page = plugin::read(answer.header("content-type").unwrap(), &answer.body);
        match page {
            JobPage::Success { logged } => {
                assert_eq!(last["ok"], true, "{name}: the plugin takes a failure for a success");
                assert_eq!(logged, events.len(), "{name}: the plugin loses frames");
                Good
            }
            JobPage::Failure(detail) => {
                assert_eq!(last["errors"][0]["detail"], detail, "{name}");
                Bad
            }
            other => panic!("{name}: {other:?}"),
        }
    } else {
        assert!(answer.json().is_object(), "{name}: {}", answer.text());
        Status(answer.status)
    };
    assert_eq!(found, end, "{name}: {}", answer.text());
}

/// The name of the golden stream.
pub fn name(version: &str, uses: &[&str], channel: &str, kind: Kind) -> String {
    let what = uses.first().map_or(kind.as_str(), |name| name.rsplit('/').next().unwrap());
    format!("{version}_{channel}_{what}")
}

/// Compares a response with the golden stream of this name.
pub fn assert_snapshot(name: &str, answer: &Answer) {
    insta::with_settings!({
        prepend_module_to_snapshot => false, omit_expression => true,
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"),
    }, {
        insta::assert_snapshot!(name, shown(answer));
    });
}

async fn golden(version: &str, uses: &[&str], channel: &str, kind: Kind, end: End) {
    let name = name(version, uses, channel, kind);
    let answer = run(version, uses, channel, kind).await;
    check(&name, &answer, end);
    assert_snapshot(&name, &answer);
}

async fn documented(version: &str, channel: &str, ends: [End; 7]) {
    for (kind, end) in documented_kinds().zip(ends) {
        golden(version, &[], channel, kind, end).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bridge_before_a_bridge_says_the_same() {
    for version in ["0.0.2.post1", "0.0.11.post2", "0.0.30.post2"] {
        let pair = BridgedReplay::start(recordings(version, &[]), fast(), &[]).await;
        let outer = TestBridge::start(config(pair.front.address, &[])).await;
        for kind in documented_kinds() {
            let mut ends = Vec::new();
            for front in [&pair.front, &outer] {
                let answer = front.get(kind.row().stream_path, &WITH_KEY).await;
                if answer.status == 200 {
                    let last = stream::read(&answer.body).pop().unwrap().data;
                    ends.push([&last["ok"], &last["message"], &last["result"]["objects"]].map(Clone::clone));
                }
            }
            assert!(ends.is_empty() || ends.len() == 2 && ends[0] == ends[1], "{version} {kind}: {ends:#?}");
        }
    }
}

const NO: End = Status(404);

/// The recorded failures: the backend, the recording, the channel, the kind and the expected result.
pub const FAILURES: &[(&str, &str, &str, Kind, End)] = &[
    ("0.0.2.post1", "fail/ws-netbox-down", "auto", Kind::VirtualMachines, Status(500)),
    ("0.0.2.post1", "fail/ws-proxmox-down", "auto", Kind::VirtualMachines, Status(400)),
    ("0.0.2.post1", "fail/ws-vms-one-vm-config-500", "auto", Kind::VirtualMachines, Good),
    ("0.0.2.post1", "fail/ws-vms-proxmox-killed-mid-sync", "auto", Kind::VirtualMachines, Good),
    ("0.0.2.post1", "fail/ws-vms-netbox-killed-mid-sync", "auto", Kind::VirtualMachines, Good),
    ("0.0.11.post2", "fail/sse-vms-proxmox-killed-mid-sync", "auto", Kind::VirtualMachines, Good),
    ("0.0.11.post2", "fail/sse-vms-one-vm-config-500", "auto", Kind::VirtualMachines, Good),
    ("0.0.11.post2", "fail/sse-vms-netbox-killed-mid-sync", "auto", Kind::VirtualMachines, Good),
    ("0.0.11.post2", "fail/sse-full-update-proxmox-killed-mid-sync", "auto", Kind::FullUpdate, Bad),
    ("0.0.11.post2", "fail/sse-devices-netbox-down", "auto", Kind::Devices, Bad),
    ("0.0.11.post2", "fail/sse-devices-proxmox-down", "auto", Kind::Devices, Status(400)),
    ("0.0.11.post2", "fail/sse-concurrent-a", "auto", Kind::VirtualMachines, Good),
    ("0.0.11.post2", "fail/sse-wrong-key", "auto", Kind::Devices, Status(429)),
    ("0.0.11.post2", "fail/ws-proxmox-down", "websocket", Kind::VirtualMachines, Status(400)),
    ("0.0.11.post2", "fail/ws-vms-proxmox-killed-mid-sync", "websocket", Kind::VirtualMachines, Good),
    ("0.0.11.post2", "fail/ws-vms-one-vm-config-500", "websocket", Kind::VirtualMachines, Good),
    ("0.0.30.post2", "fail/sse-vms-proxmox-killed-mid-sync", "auto", Kind::VirtualMachines, Bad),
    ("0.0.30.post2", "fail/sse-vms-netbox-killed-mid-sync", "auto", Kind::VirtualMachines, Bad),
    ("0.0.30.post2", "fail/sse-full-update-proxmox-killed-mid-sync", "auto", Kind::FullUpdate, Bad),
    ("0.0.30.post2", "fail/sse-devices-netbox-down", "auto", Kind::Devices, Bad),
    ("0.0.30.post2", "fail/sse-devices-proxmox-down", "auto", Kind::Devices, Status(503)),
    ("0.0.30.post2", "fail/ws-proxmox-down", "websocket", Kind::VirtualMachines, Status(502)),
    ("0.0.30.post2", "fail/ws-netbox-down", "websocket", Kind::Devices, Bad),
    ("0.0.30.post2", "fail/ws-vms-proxmox-killed-mid-sync", "websocket", Kind::VirtualMachines, Good),
];

async fn failures(version: &str) {
    for (_, name, channel, kind, end) in FAILURES.iter().filter(|(known, ..)| *known == version) {
        golden(version, &[name], channel, *kind, *end).await;
    }
}

/// The recorded backends, with the channels that they are driven over.
pub const DOCUMENTED: [(&str, &str); 9] = [
    ("0.0.2.post1", "auto"),
    ("0.0.3", "auto"),
    ("0.0.3", "websocket"),
    ("0.0.11.post2", "auto"),
    ("0.0.11.post2", "websocket"),
    ("0.0.11.post2", "json"),
    ("0.0.30.post2", "auto"),
    ("0.0.30.post2", "websocket"),
    ("0.0.30.post2-default-mode", "auto"),
];

#[tokio::test(start_paused = true)]
async fn v0_0_2_over_its_socket() {
    documented("0.0.2.post1", "auto", [Good, NO, Good, NO, NO, NO, Good]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_3_against_a_netbox_that_is_too_new() {
    documented("0.0.3", "auto", [Bad, NO, Bad, NO, NO, NO, Bad]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_3_over_its_socket() {
    documented("0.0.3", "websocket", [Bad, NO, Bad, NO, NO, NO, Bad]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_11_over_its_streams() {
    documented("0.0.11.post2", "auto", [Good; 7]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_11_over_its_socket() {
    documented("0.0.11.post2", "websocket", [Good, NO, Good, NO, NO, NO, Good]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_11_over_its_plain_endpoints() {
    documented("0.0.11.post2", "json", [NO, Good, NO, Good, Good, Good, Good]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_30_over_its_streams() {
    documented("0.0.30.post2", "auto", [Good; 7]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_30_over_its_socket() {
    documented("0.0.30.post2", "websocket", [Good, NO, Good, NO, NO, NO, Bad]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_30_as_shipped_with_an_endpoint_that_it_cannot_resolve() {
    documented("0.0.30.post2-default-mode", "auto", [Bad, Bad, Bad, Good, Good, Good, Bad]).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_30_as_shipped_refuses_its_socket() {
    golden("0.0.30.post2-default-mode", &[], "websocket", Kind::Devices, Status(403)).await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_2_when_things_fail() {
    failures("0.0.2.post1").await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_11_when_things_fail() {
    failures("0.0.11.post2").await;
}

#[tokio::test(start_paused = true)]
async fn v0_0_30_when_things_fail() {
    failures("0.0.30.post2").await;
}
