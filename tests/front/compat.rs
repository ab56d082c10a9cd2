//! Requests of the NetBox plugin beside the streams, with the recorded responses of each backend release.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proxbox_bridge::core::domain::kind::Kind;
use serde_json::{Value, json};
use tokio::time::Duration;

use super::reload::{ReloadableBridge, file};
use crate::support::bridge::{
    Answer, Client, DEVICES, KEY, MACHINES, STORAGE, TestBridge, WITH_KEY, config, data_dir,
};
use crate::support::scripted::{Backend, Body, ReceivedRequest, answer, bridged};
use crate::support::session::stream::{self, Event};

const FIREWALL: &str = "/proxmox/firewall/summary?source=database&proxmox_endpoint_ids=1";
const CPU_MODELS: &str = "/proxmox/datacenter/cpu-models?source=database&proxmox_endpoint_ids=1";
const GUESTS: &str = "/proxmox/cluster/resources?type=vm&source=database&proxmox_endpoint_ids=1";
const BACKUPS: &str = "/virtualization/virtual-machines/backups/all/create/stream";
const NETBOX: &str = "/netbox/endpoint";
/// The one template among the guests that were recorded.
const TEMPLATE: u64 = 900;

/// What a real backend of one release answered beside its streams, each as `(status, body)`.
#[derive(Clone)]
struct RecordedAnswers {
    version: &'static str,
    answers: Arc<BTreeMap<(String, String), (u16, String)>>,
}

impl RecordedAnswers {
    fn new(version: &'static str) -> Self {
        let file = format!("fixtures/other-endpoints/{version}.ndjson");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let mut answers = BTreeMap::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let method = line["method"].as_str().unwrap().to_owned();
            let key = (method, answer_key(line["target"].as_str().unwrap()));
            let status = u16::try_from(line["status"].as_u64().unwrap()).unwrap();
            let recorded = (status, line["body"].as_str().unwrap().to_owned());
            // Of several, the one that says most of those that went well: it was asked with a key, for an
            // endpoint that is there.
            let (rank, known) = ((status == 200, recorded.1.len()), answers.get(&key));
            if known.is_none_or(|(status, body): &(u16, String)| (*status == 200, body.len()) <= rank) {
                answers.insert(key, recorded);
            }
        }
        Self { version, answers: Arc::new(answers) }
    }

    /// The same, but for the answer to a GET for `path`.
    fn with(mut self, path: &str, body: &str) -> Self {
        let key = (Method::GET.to_string(), path.to_owned());
        Arc::make_mut(&mut self.answers).insert(key, (200, body.to_owned()));
        self
    }

    fn answer(&self, method: &Method, target: &str) -> (u16, String) {
        let path = target.split('?').next().unwrap();
        if let Some(row) = Kind::all().map(Kind::row).find(|row| row.stream_path == path) {
            let has = self.streams().contains(&row.kind);
            return match (has, method) {
                (false, _) => (404, r#"{"detail":"Not Found"}"#.to_owned()),
                (true, &Method::GET) => (200, String::new()),
                (true, _) => (405, r#"{"detail":"Method Not Allowed"}"#.to_owned()),
            };
        }
        let unknown = || (404, r#"{"detail":"Not Found"}"#.to_owned());
        let key = (method.to_string(), answer_key(target));
        self.answers.get(&key).cloned().unwrap_or_else(unknown)
    }

    fn streams(&self) -> &'static [Kind] {
        match self.version {
            "0.0.2.post1" => &[],
            "0.0.4" => &[Kind::Devices, Kind::VirtualMachines, Kind::VirtualDisks, Kind::Backups],
            _ => &[
                Kind::Devices,
                Kind::VirtualMachines,
                Kind::VirtualDisks,
                Kind::Backups,
                Kind::Storage,
                Kind::Snapshots,
                // Their paths, and those of storage and disks, are those of one virtual machine to 0.0.5.
                Kind::VmInterfaces,
                Kind::TaskHistory,
            ],
        }
    }
}

/// A path and, of its query, what decides about the answer but for the endpoint that it is for.
fn answer_key(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if query.split('&').any(|part| part == "type=vm") { format!("{path}?type=vm") } else { path.to_owned() }
}

const STREAM: &str = concat!(
    "event: step\ndata: {\"step\": \"devices\", \"status\": \"started\", \"message\": \"Starting.\"}\n\n",
    "event: complete\ndata: {\"ok\": true, \"message\": \"Done.\"}\n\n",
);

async fn replayed(recorded: RecordedAnswers, request: Request<Incoming>) -> http::Response<Body> {
    let target = request.uri().to_string();
    let (status, body) = recorded.answer(request.method(), &target);
    if body.is_empty() && status == 200 {
        return answer(200, &[("content-type", "text/event-stream; charset=utf-8")], STREAM);
    }
    let kind = if serde_json::from_str::<Value>(&body).is_ok() { "application/json" } else { "text/plain" };
    let allow = if status == 405 {
        vec![("content-type", kind), ("allow", "GET")]
    } else {
        vec![("content-type", kind)]
    };
    answer(status, &allow, &body)
}

/// A bridge in front of what a backend of `version` answered.
async fn before(version: &'static str, settings: &[(&str, &str)]) -> (Backend, TestBridge) {
    before_recorded(RecordedAnswers::new(version), settings).await
}

async fn before_recorded(recorded: RecordedAnswers, settings: &[(&str, &str)]) -> (Backend, TestBridge) {
    let (backend, front) = bridged(settings, move |request| replayed(recorded.clone(), request)).await;
    (backend, front)
}

const RECORDED: [&str; 7] =
    ["0.0.2.post1", "0.0.4", "0.0.5", "0.0.6.post4", "0.0.7.post1", "0.0.11.post2", "0.0.19.post5"];

/// What was asked of the backend that was no question of the bridge's own about what it can do.
fn work(backend: &Backend) -> Vec<ReceivedRequest> {
    let own = ["/", "/version", "/health", "/auth/bootstrap-status"];
    let is_work =
        |received: &ReceivedRequest| received.method != "HEAD" && !own.contains(&received.target.as_str());
    backend.requests().into_iter().filter(is_work).collect()
}

fn targets(backend: &Backend) -> Vec<String> {
    work(backend).into_iter().map(|received| format!("{} {}", received.method, received.target)).collect()
}

fn events(answer: &Answer) -> Vec<Event> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    stream::read(&answer.body)
}

#[tokio::test(start_paused = true)]
async fn what_an_old_backend_cannot_read_is_an_empty_list_and_the_next_stream_says_so() {
    for version in ["0.0.6.post4", "0.0.11.post2"] {
        let (_backend, front) = before(version, &[]).await;
        for target in [FIREWALL, CPU_MODELS] {
            let read = front.get(target, &WITH_KEY).await;
            assert_eq!((read.status, read.text()), (200, "[]"), "{version} {target}");
            assert_eq!(read.header("x-proxbox-bridge-shim"), Some("inventory"));
        }
        let began = tokio::time::Instant::now();
        let first = events(&front.get(DEVICES, &WITH_KEY).await);
        assert!(began.elapsed() >= Duration::from_millis(1600), "the plugin would drop it");
        let notice = first[1].text("message");
        assert_eq!(first[0].text("status"), "started");
        assert_eq!(
            notice,
            format!(
                "Notice: proxbox-api {version} cannot read firewalls and CPU models. NetBox keeps what it has of them."
            )
        );
        let second = events(&front.get(MACHINES, &WITH_KEY).await);
        assert!(second.iter().all(|event| !event.text("message").starts_with("Notice")), "once is enough");
        let other =
            events(&front.get(DEVICES, &[("X-Proxbox-API-Key", "another-key-of-another-netbox")]).await);
        assert!(other.iter().all(|event| !event.text("message").starts_with("Notice")), "another client");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_can_read_since_it_was_updated_is_not_named() {
    let before = RecordedAnswers::new("0.0.6.post4");
    let after = before.clone().with("/proxmox/firewall/summary", "[]");
    let is_updated = Arc::new(AtomicBool::new(false));
    let updated = Arc::clone(&is_updated);
    let (_backend, front) = bridged(&[], move |request| {
        let answers = if updated.load(Ordering::Relaxed) { &after } else { &before };
        replayed(answers.clone(), request)
    })
    .await;
    for target in [FIREWALL, CPU_MODELS] {
        assert!(front.get(target, &WITH_KEY).await.header("x-proxbox-bridge-shim").is_some(), "{target}");
    }
    is_updated.store(true, Ordering::Relaxed);
    assert_eq!(front.get(FIREWALL, &WITH_KEY).await.header("x-proxbox-bridge-shim"), None);
    let first = events(&front.get(DEVICES, &WITH_KEY).await);
    let notice = "Notice: proxbox-api 0.0.6.post4 cannot read CPU models. NetBox keeps what it has of them.";
    assert_eq!(first[1].text("message"), notice);
}

#[tokio::test(start_paused = true)]
async fn only_a_backend_that_does_not_know_the_path_is_stood_in_for() {
    let (_backend, front) = before("0.0.19.post5", &[]).await;
    let direct = RecordedAnswers::new("0.0.19.post5").answer(&Method::GET, FIREWALL);
    let read = front.get(FIREWALL, &WITH_KEY).await;
    assert_eq!((read.status, read.text()), (direct.0, direct.1.as_str()));
    assert_eq!(read.header("x-proxbox-bridge-shim"), None);

    for (status, body) in [
        (404, r#"{"detail":"No Proxmox active"}"#),
        (404, "<html>Not Found</html>"),
        (401, r#"{"detail":"Not Found"}"#),
        (500, r#"{"detail":"Not Found"}"#),
        (404, ""),
    ] {
        let (_backend, front) = bridged(&[], move |_| async move { answer(status, &[], body) }).await;
        let read = front.get("/proxmox/datacenter/cpu-models", &[]).await;
        assert_eq!((read.status, read.text()), (status, body));
    }
    // A proxy may compress responses, as the plugin accepts.
    let (_backend, front) = bridged(&[], |request: Request<Incoming>| async move {
        match request.headers().get("accept-encoding").map(|value| value.to_str().unwrap()) {
            Some("identity") | None => answer(404, &[], r#"{"detail":"Not Found"}"#),
            _ => answer(404, &[("content-encoding", "gzip")], "\u{1f}compressed"),
        }
    })
    .await;
    let read = front.get("/proxmox/datacenter/cpu-models", &[("Accept-Encoding", "gzip, deflate")]).await;
    assert_eq!((read.status, read.text()), (200, "[]"));

    let (_backend, front) = before("0.0.6.post4", &[("shims.inventory", "off")]).await;
    assert_eq!(front.get(FIREWALL, &WITH_KEY).await.status, 404);
}

/// The numbers of the guests in an answer, and those of the templates among them, as the plugin reads it.
fn guests(answer: &Answer) -> (Vec<u64>, Vec<u64>) {
    let body = answer.json();
    let rows = body.as_array().unwrap().iter().flat_map(|cluster| cluster.as_object().unwrap().values());
    let rows: Vec<&Value> = rows.flat_map(|rows| rows.as_array().unwrap()).collect();
    let is_template = |row: &&&Value| match &row["template"] {
        Value::Bool(flag) => *flag,
        Value::Number(flag) => flag.as_u64() != Some(0),
        _ => false,
    };
    let numbers = |rows: Vec<&&Value>| -> Vec<u64> {
        rows.into_iter().map(|row| row["vmid"].as_u64().unwrap()).collect()
    };
    (numbers(rows.iter().collect()), numbers(rows.iter().filter(is_template).collect()))
}

#[tokio::test(start_paused = true)]
async fn the_one_template_is_listed_as_one_whatever_the_release() {
    for version in RECORDED {
        // 0.0.2 cannot select endpoints by id.
        let target = if version == "0.0.2.post1" { "/proxmox/cluster/resources?type=vm" } else { GUESTS };
        let (backend, front) = before(version, &[]).await;
        let read = front.get(target, &WITH_KEY).await;
        assert_eq!(read.status, 200, "{version}: {}", read.text());
        let (all, templates) = guests(&read);
        assert_eq!((all.len(), templates), (12, vec![TEMPLATE]), "{version}");
        let is_corrected = version != "0.0.6.post4";
        let shim = read.header("x-proxbox-bridge-shim");
        assert_eq!(shim, is_corrected.then_some("templates"), "{version}");
        let received = targets(&backend);
        assert_eq!(
            received.iter().any(|received| received.contains("type=vm")),
            !is_corrected,
            "{received:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_would_delete_templates_is_refused_where_the_job_can_read_it() {
    const REASON: &str =
        "proxbox-api 0.0.5 does not mark VM templates: set sync mode VM template to Disabled in the plugin";
    for (path, broken) in [
        ("/proxmox/nodes/pve1/qemu", (500, r#"{"detail":"Internal Server Error"}"#)),
        ("/proxmox/nodes/pve2/qemu", (200, "[]")),
        ("/proxmox/pve1/lxc/200/config", (500, "Internal Server Error")),
        ("/proxmox/cluster/resources", (200, "[]")),
        ("/proxmox/cluster/resources", (200, r#"[{"lab-cluster":[]}]"#)),
        ("/proxmox/cluster/resources", (200, "null")),
    ] {
        let recorded = RecordedAnswers::new("0.0.5");
        let (_backend, front) = bridged(&[], move |request| {
            let recorded = recorded.clone();
            async move {
                if request.uri().path() == path {
                    return answer(broken.0, &[], broken.1);
                }
                replayed(recorded, request).await
            }
        })
        .await;
        let mut client = front.open(GUESTS, &WITH_KEY).await;
        assert_eq!(client.line().await, format!("HTTP/1.1 422 {REASON}"), "{path} {broken:?}");
        let refused = front.get(GUESTS, &WITH_KEY).await;
        assert!(refused.detail().contains("Set \"VM template\" to Disabled"), "{}", refused.text());
    }
    // A refusal of the backend is forwarded.
    let (_backend, front) = before("0.0.11.post2", &[("shims.templates", "off")]).await;
    assert_eq!(front.get(GUESTS, &WITH_KEY).await.status, 502);
}

#[tokio::test(start_paused = true)]
async fn the_configuration_of_a_template_is_read_where_the_release_gives_it() {
    const CONFIG: &str = "/proxmox/pve1/qemu/900/config?source=database&proxmox_endpoint_ids=1";
    const PLACE: &str = "/proxmox/api2/latest/nodes/pve1/qemu/900/config";
    for (version, given, expected) in [
        ("0.0.11.post2", r#"{"digest":"d","template":true,"acpi":null,"scsi0":"a:1"}"#, 200),
        ("0.0.11.post2", "{}", 500),
        ("0.0.6.post4", r#"{"digest":"d","template":true,"acpi":null,"scsi0":"a:1"}"#, 200),
        ("0.0.5", r#"{"digest":"d","template":true,"acpi":null,"scsi0":"a:1"}"#, 200),
        ("0.0.4", r#"{"digest":"d","template":true,"acpi":null,"scsi0":"a:1"}"#, 200),
    ] {
        let (backend, front) = before_recorded(RecordedAnswers::new(version).with(PLACE, given), &[]).await;
        let read = front.get(CONFIG, &WITH_KEY).await;
        assert_eq!(read.status, expected, "{version} {given}: {}", read.text());
        if expected == 200 {
            assert_eq!(read.json(), json!({ "digest": "d", "template": 1, "scsi0": "a:1" }));
            let expected = format!("GET {PLACE}?source=database&target_name=lab-cluster+%28nb%3A1%29");
            assert!(targets(&backend).contains(&expected), "{:?}", targets(&backend));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn plain_endpoints_are_driven_without_a_key_where_none_is_wanted() {
    for (version, expected) in [("0.0.11.post2", 401), ("0.0.6.post4", 200)] {
        let recorded =
            RecordedAnswers::new(version).with(STORAGE.trim_end_matches("/stream"), r#"[{"id":1}]"#);
        let (_backend, front) = before_recorded(recorded, &[("backend.channel", "json")]).await;
        for _ in 0..2 {
            let read = front.get(STORAGE, &[]).await;
            assert_eq!(read.status, expected, "{version}: {}", read.text());
            let word = if expected == 200 { "1 completed" } else { "API key required" };
            assert!(read.text().contains(word), "{version}: {}", read.text());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_of_a_backend_whose_release_is_not_known_must_say_of_every_guest_what_it_is() {
    for (version, body) in [
        ("no release", r#"[{"lab":[{"type":"qemu","vmid":1,"node":"a","template":0}]}]"#),
        ("no release", r#"[{"lab":[{"type":"qemu","vmid":1,"node":"a"}]}]"#),
        ("no release", r#"[{"lab":[]}]"#),
        ("0.0.30.post2", r#"[{"lab":[]}]"#),
    ] {
        let (_backend, front) = bridged(&[], move |request: Request<Incoming>| async move {
            match request.uri().path() {
                "/version" => answer(200, &[], &json!({ "version": version }).to_string()),
                _ => answer(200, &[], body),
            }
        })
        .await;
        let read = front.get(GUESTS, &WITH_KEY).await;
        let is_true = body.contains("template") || version != "no release";
        assert_eq!(read.status, if is_true { 200 } else { 422 }, "{version} {body}: {}", read.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_for_one_endpoint_deletes_nothing_of_the_others() {
    const PRUNING: &str = "delete_nonexistent_backup=true&fetch_max_concurrency=8";
    for (version, rows, scope, is_kept) in [
        ("0.0.11.post2", r#"[{"id":1,"name":"a"},{"id":2,"name":"b"}]"#, "proxmox_endpoint_ids=1&", false),
        ("0.0.19.post5", r#"[{"id":1,"name":"a"},{"id":2,"name":"b"}]"#, "proxmox_endpoint_ids=1&", false),
        ("0.0.6.post4", r#"[{"id":1,"name":"a"},{"id":2,"name":"b"}]"#, "proxmox_endpoint_ids=2&", false),
        ("0.0.11.post2", r#"{"message":"no"}"#, "proxmox_endpoint_ids=1&", false),
        ("0.0.11.post2", r#"[{"id":1,"name":"a"},{"id":2,"name":"b"}]"#, "proxmox_endpoint_ids=2,1&", true),
        ("0.0.11.post2", r#"[{"id":1,"name":"a"},{"id":2,"name":"b"}]"#, "", true),
        ("0.0.11.post2", r#"[{"id":1,"name":"a"}]"#, "proxmox_endpoint_ids=1&", true),
        ("0.0.20", r#"[{"id":1,"name":"a"},{"id":2,"name":"b"}]"#, "proxmox_endpoint_ids=1&", true),
    ] {
        let recorded = match version {
            "0.0.20" => RecordedAnswers::new("0.0.19.post5").with("/version", r#"{"version":"0.0.20"}"#),
            version => RecordedAnswers::new(version),
        };
        let (backend, front) = before_recorded(recorded.with("/proxmox/endpoints", rows), &[]).await;
        let read = front.get(&format!("{BACKUPS}?{scope}{PRUNING}"), &WITH_KEY).await;
        let is_told = events(&read).iter().any(|event| {
            event.data["message"].as_str().is_some_and(|message| message.contains("stay in NetBox"))
        });
        assert_eq!(is_told, !is_kept, "{version} {scope}: {}", read.text());
        let plain = BACKUPS.trim_end_matches("/stream");
        front.get(&format!("{plain}?{scope}{PRUNING}"), &WITH_KEY).await;
        let received = targets(&backend);
        for path in [BACKUPS, plain] {
            let query =
                received.iter().find_map(|received| received.strip_prefix(&format!("GET {path}?"))).unwrap();
            assert_eq!(query.contains("delete_nonexistent_backup"), is_kept, "{version} {scope}: {query}");
            assert!(query.contains("fetch_max_concurrency=8"), "{query}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_update_that_would_delete_backups_of_other_endpoints_is_refused() {
    for (rows, status) in [(r#"[{"id":1},{"id":2}]"#, 422), (r#"[{"id":1}]"#, 200)] {
        let recorded = RecordedAnswers::new("0.0.11.post2");
        let (_backend, front) = bridged(&[], move |request| {
            let recorded = recorded.clone();
            async move {
                match (request.method().as_str(), request.uri().path()) {
                    (_, "/proxmox/endpoints") => answer(200, &[], rows),
                    ("HEAD", "/full-update/stream") => answer(405, &[("allow", "GET")], "{}"),
                    (_, "/full-update/stream" | "/full-update") => {
                        answer(200, &[("content-type", "text/event-stream")], STREAM)
                    }
                    _ => replayed(recorded, request).await,
                }
            }
        })
        .await;
        for path in ["/full-update/stream", "/full-update"] {
            let read = front.get(&format!("{path}?proxmox_endpoint_ids=1"), &WITH_KEY).await;
            assert_eq!(read.status, status, "{path}: {}", read.text());
            assert_eq!(
                status == 422,
                read.text().contains("deletes the backups of other"),
                "{}",
                read.text()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn storages_of_other_endpoints_are_not_moved() {
    for (rows, alone) in [(r#"[{"id":1},{"id":2}]"#, 422), (r#"[{"id":1}]"#, 200)] {
        let recorded = RecordedAnswers::new("0.0.6.post4").with("/proxmox/endpoints", rows);
        let (backend, front) = before_recorded(recorded, &[]).await;
        let read = front.get(&format!("{STORAGE}?proxmox_endpoint_ids=1"), &WITH_KEY).await;
        assert_eq!(read.status, alone, "{}", read.text());
        assert_eq!(alone == 422, read.text().contains("would take the storages of other"), "{}", read.text());
        // After devices it is a stage of a full update, which continues.
        front.get(&format!("{DEVICES}?proxmox_endpoint_ids=1"), &WITH_KEY).await;
        let end =
            events(&front.get(&format!("{STORAGE}?proxmox_endpoint_ids=1"), &WITH_KEY).await).pop().unwrap();
        assert_eq!(end.data["ok"], true);
        let message = end.data["message"].as_str().unwrap();
        assert_eq!(alone == 422, message.starts_with("Storage sync skipped. proxbox-api 0.0.6"), "{message}");
        let received = targets(&backend)
            .iter()
            .filter(|received| received.starts_with(&format!("GET {STORAGE}")))
            .count();
        assert_eq!(received, if alone == 422 { 0 } else { 2 });
        let read = front.get(&format!("{STORAGE}?proxmox_endpoint_ids=all"), &WITH_KEY).await;
        assert!(read.status == 422 && read.text().contains("takes ids with commas"), "{}", read.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_update_of_stages_moves_no_storages_of_other_endpoints_either() {
    let rows = r#"[{"id":1},{"id":2}]"#;
    let recorded = RecordedAnswers::new("0.0.6.post4").with("/proxmox/endpoints", rows);
    let (_backend, front) = before_recorded(recorded, &[("backend.channel", "json")]).await;
    let read = front.get("/full-update/stream?proxmox_endpoint_ids=1", &WITH_KEY).await;
    assert_eq!(read.status, 422, "{}", read.text());
    assert!(read.text().contains("would take the storages of other"), "{}", read.text());
}

#[tokio::test(start_paused = true)]
async fn a_scope_is_given_in_both_ways_where_the_release_is_not_known() {
    let (backend, front) = bridged(&[], |request: Request<Incoming>| async move {
        match request.uri().path() {
            "/version" => answer(502, &[], "<html>Bad Gateway</html>"),
            _ => answer(200, &[], "[]"),
        }
    })
    .await;
    front.get("/proxmox/cluster/status?proxmox_endpoint_ids=1", &WITH_KEY).await;
    let expected = "/proxmox/cluster/status?proxmox_endpoint_ids=1&endpoint_ids=1";
    assert_eq!(backend.last().target, expected);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_too_busy_to_say_its_release_is_the_one_that_it_was() {
    let is_busy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy = Arc::clone(&is_busy);
    let (_backend, front) = bridged(&[("limits.capabilities", "1s")], move |request: Request<Incoming>| {
        let is_busy = busy.load(std::sync::atomic::Ordering::Relaxed);
        async move {
            match request.uri().path() {
                "/version" if is_busy => std::future::pending().await,
                "/version" => answer(200, &[], r#"{"version":"0.0.6.post4"}"#),
                _ => answer(200, &[], r#"[{"id":1,"token":"secret"}]"#),
            }
        }
    })
    .await;
    for busy in [false, true] {
        is_busy.store(busy, std::sync::atomic::Ordering::Relaxed);
        tokio::time::advance(Duration::from_secs(2)).await;
        let rows = front.get(NETBOX, &WITH_KEY).await;
        assert_eq!((rows.status, rows.text()), (200, r#"[{"id":1}]"#), "{busy}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_keys_is_known_to_a_client_without_one() {
    let (backend, front) = before("0.0.6.post4", &[]).await;
    let answer = front.get(&format!("{MACHINES}?proxmox_endpoint_ids=1"), &[]).await;
    assert_eq!(answer.status, 200);
    let expected = format!("GET {MACHINES}?proxmox_endpoint_ids=1&endpoint_ids=1&netbox_vm_ids=,");
    assert_eq!(targets(&backend), [expected]);
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_scope_is_sent_in_the_form_of_the_release() {
    let status = "/proxmox/cluster/status?proxmox_endpoint_ids=1";
    for (version, scoped) in [
        ("0.0.4", "&endpoint_ids=1"),
        ("0.0.6.post4", "&endpoint_ids=1"),
        ("0.0.7.post1", "&endpoint_ids=1"),
        ("0.0.11.post2", ""),
        ("0.0.19.post5", ""),
    ] {
        let (backend, front) = before(version, &[]).await;
        assert_eq!(front.get(status, &WITH_KEY).await.status, 200, "{version}");
        front.get(&format!("{DEVICES}?a=%20&proxmox_endpoint_ids=1"), &WITH_KEY).await;
        let received = targets(&backend);
        assert!(received.contains(&format!("GET {status}{scoped}")), "{version}: {received:?}");
        let stream = format!("GET {DEVICES}?a=%20&proxmox_endpoint_ids=1{scoped}");
        assert!(received.contains(&stream), "{version}: {received:?}");
    }
    let (backend, front) = before("0.0.2.post1", &[]).await;
    for target in [status.to_owned(), format!("{DEVICES}?proxmox_endpoint_ids=1")] {
        let refused = front.get(&target, &WITH_KEY).await;
        assert_eq!(refused.status, 422);
        assert!(refused.detail().contains("would synchronise all of them"), "{}", refused.text());
    }
    assert!(work(&backend).is_empty(), "{:?}", targets(&backend));
    let (backend, front) = before("0.0.2.post1", &[("shims.scope", "off")]).await;
    front.get(status, &WITH_KEY).await;
    assert_eq!(targets(&backend), [format!("GET {status}")]);
}

/// A backend of 0.0.3, which has two streams and stores two endpoints.
async fn of_0_0_3() -> Backend {
    Backend::start(|request: Request<Incoming>| async move {
        let path = request.uri().path();
        let has = [DEVICES, MACHINES].contains(&path);
        match (request.method(), path) {
            (&Method::HEAD, _) if has => answer(405, &[("allow", "GET")], ""),
            (&Method::GET, _) if has => answer(200, &[("content-type", "text/event-stream")], STREAM),
            (&Method::GET, "/proxmox/endpoints/1") => {
                answer(200, &[], r#"{"id":1,"name":"lab (nb:4)","password":"secret"}"#)
            }
            (&Method::GET, "/proxmox/endpoints") => {
                answer(200, &[], r#"[{"id":1,"name":"lab (nb:4)"},{"id":4,"name":"far (nb:7)"}]"#)
            }
            (&Method::GET, "/proxmox/cluster/status") => answer(200, &[], "[]"),
            _ => answer(404, &[], r#"{"detail":"Not Found"}"#),
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_is_named_to_0_0_3_and_several_are_refused() {
    let backend = of_0_0_3().await;
    let front = TestBridge::start(config(backend.address, &[])).await;
    assert_eq!(front.get(&format!("{DEVICES}?proxmox_endpoint_ids=1"), &[]).await.status, 200);
    let received = targets(&backend);
    let named = format!("GET {DEVICES}?proxmox_endpoint_ids=1&name=lab+%28nb%3A4%29");
    assert!(received.contains(&named), "{received:?}");
    for (ids, why) in [("1,4", "not several"), ("9", "no Proxmox endpoint with the id 9"), ("x", "commas")] {
        for path in [DEVICES, "/proxmox/cluster/status"] {
            let refused = front.get(&format!("{path}?proxmox_endpoint_ids={ids}"), &[]).await;
            assert_eq!(refused.status, 422, "{ids}");
            assert!(refused.detail().contains(why), "{}", refused.text());
        }
    }
    let received = targets(&backend);
    let reached =
        received.iter().filter(|received| received.contains("stream") || received.contains("status"));
    assert_eq!(reached.count(), 1, "{received:?}");
}

#[tokio::test(start_paused = true)]
async fn primary_keys_of_netbox_are_those_of_the_rows_that_are_named_after_them() {
    let backend = of_0_0_3().await;
    let front = TestBridge::start(config(backend.address, &[("backend.endpoint_ids", "plugin")])).await;
    assert_eq!(front.get(&format!("{DEVICES}?proxmox_endpoint_ids=4&a=b"), &[]).await.status, 200);
    let received = targets(&backend);
    let named = format!("GET {DEVICES}?a=b&proxmox_endpoint_ids=1&name=lab+%28nb%3A4%29");
    assert!(received.contains(&named), "{received:?}");
    let refused = front.get(&format!("{DEVICES}?proxmox_endpoint_ids=1"), &[]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("(nb:1)"), "{}", refused.text());
}

#[tokio::test(start_paused = true)]
async fn the_vm_stream_of_two_releases_gets_the_list_that_it_fails_without() {
    for (version, expected) in
        [("0.0.4", ""), ("0.0.5", "?netbox_vm_ids=,"), ("0.0.6.post4", "?netbox_vm_ids=,")]
    {
        let (backend, front) = before(version, &[]).await;
        front.get(MACHINES, &WITH_KEY).await;
        front.get(DEVICES, &WITH_KEY).await;
        let streams = [format!("GET {MACHINES}{expected}"), format!("GET {DEVICES}")];
        assert_eq!(targets(&backend), streams, "{version}");
    }
    let (backend, front) = before("0.0.6.post4", &[("shims.vm_ids", "off")]).await;
    front.get(MACHINES, &WITH_KEY).await;
    assert_eq!(targets(&backend), [format!("GET {MACHINES}")]);
}

#[tokio::test(start_paused = true)]
async fn a_stage_is_skipped_in_a_full_update_and_refused_alone() {
    let (_backend, front) = before("0.0.4", &[]).await;
    let read_first = async || {
        front.get(FIREWALL, &WITH_KEY).await;
        front.get(GUESTS, &WITH_KEY).await;
    };
    read_first().await;
    let alone = front.get(STORAGE, &WITH_KEY).await;
    assert_eq!(alone.status, 404);
    assert!(alone.detail().starts_with("This backend cannot synchronise storage."), "{}", alone.text());

    read_first().await;
    assert_eq!(front.get(DEVICES, &WITH_KEY).await.status, 200);
    let began = tokio::time::Instant::now();
    let skipped = events(&front.get(STORAGE, &WITH_KEY).await);
    assert!(began.elapsed() >= Duration::from_millis(1600), "the plugin would drop it");
    let said: Vec<&str> = skipped.iter().map(|event| event.text("message")).collect();
    assert_eq!(said[1], "Storage synchronization skipped: this backend has no usable channel for it.");
    assert_eq!((skipped.len(), &skipped[2].data["ok"]), (3, &json!(true)), "{said:?}");
    // Optional paths are 404 there too: the plugin logs a warning and continues.
    assert_eq!(
        front.get("/virtualization/virtual-machines/snapshots/all/create/stream", &WITH_KEY).await.status,
        404
    );
    assert_eq!(front.get(BACKUPS, &WITH_KEY).await.status, 200);

    read_first().await;
    assert_eq!(front.get(STORAGE, &WITH_KEY).await.status, 404, "another job");
    let task_history = "/virtualization/virtual-machines/task-history/create/stream";
    for (version, status) in [("0.0.6.post4", 404), ("0.0.7.post1", 200)] {
        let (_backend, front) = before(version, &[]).await;
        assert_eq!(front.get(task_history, &WITH_KEY).await.status, status, "{version}");
    }
    let (_backend, front) = before("0.0.4", &[("backend.unsupported", "refuse")]).await;
    front.get(DEVICES, &WITH_KEY).await;
    assert_eq!(front.get(STORAGE, &WITH_KEY).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_a_young_backend_seems_to_lack_is_not_skipped() {
    // A proxy in front of it answers 404 while it starts.
    let (_backend, front) = bridged(&[], |request: Request<Incoming>| async move {
        match (request.method(), request.uri().path()) {
            (_, "/version") => answer(200, &[], r#"{"version":"0.0.19.post5"}"#),
            (&Method::HEAD, DEVICES) => answer(405, &[("allow", "GET")], ""),
            (&Method::GET, DEVICES) => answer(200, &[("content-type", "text/event-stream")], STREAM),
            _ => answer(404, &[], "<html>Not Found</html>"),
        }
    })
    .await;
    assert_eq!(front.get(DEVICES, &WITH_KEY).await.status, 200);
    let interfaces = front.get("/dcim/devices/interfaces/create/stream", &WITH_KEY).await;
    assert_eq!(interfaces.status, 404, "{}", interfaces.text());
    assert_eq!(front.get("/health", &WITH_KEY).await.status, 404, "nobody knows whether it is there");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_refused_is_tried_once_and_no_more() {
    let refused = r#"{"detail":"Invalid API key. 4 attempts remaining."}"#;
    let (backend, front) = bridged(&[], move |_| async move { answer(401, &[], refused) }).await;
    for target in [NETBOX, GUESTS, "/proxmox/cluster/status?proxmox_endpoint_ids=1", NETBOX] {
        assert_eq!(front.get(target, &WITH_KEY).await.status, 401, "{target}");
    }
    let with_key =
        backend.requests().into_iter().filter(|received| received.header("x-proxbox-api-key").is_some());
    assert_eq!(with_key.count(), 1, "{:?}", backend.requests());
}

#[tokio::test(start_paused = true)]
async fn a_client_is_the_same_to_a_bridge_with_a_key_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "the-bridges-own-key-the-bridges-own-key").unwrap();
    let settings = [("backend.api_key_file", file.to_str().unwrap())];
    let (_backend, front) = before("0.0.6.post4", &settings).await;
    front.get(FIREWALL, &WITH_KEY).await;
    let reported = events(&front.get(DEVICES, &WITH_KEY).await);
    assert!(
        reported[1].text("message").starts_with("Notice: proxbox-api 0.0.6.post4 cannot read firewalls.")
    );
    front.get(FIREWALL, &WITH_KEY).await;
    let alone = front.get("/proxmox/replication/stream", &WITH_KEY).await;
    assert_eq!(alone.status, 404, "a job of its own: {}", alone.text());
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_young_backend_are_passed_on_as_they_are() {
    let (backend, front) = before("0.0.19.post5", &[]).await;
    let headers =
        [WITH_KEY[0], ("Cookie", "proxy=1"), ("Accept-Encoding", "gzip"), ("If-None-Match", "\"a\"")];
    front.get(NETBOX, &headers).await;
    let received = backend.last();
    for (name, value) in [("cookie", "proxy=1"), ("accept-encoding", "gzip"), ("if-none-match", "\"a\"")] {
        assert_eq!(received.header(name), Some(value), "{received:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn options_that_a_release_ignores_are_named_and_a_branch_is_refused() {
    let query = "overwrite_vm_tags=false&overwrite_vm_role=true&sync_mode_vm=bootstrap_only";
    let (_backend, front) = before("0.0.6.post4", &[]).await;
    let reported = events(&front.get(&format!("{DEVICES}?{query}"), &WITH_KEY).await);
    assert_eq!(
        reported[1].text("message"),
        "Warning: proxbox-api 0.0.6.post4 does not know overwrite_vm_tags=false, sync_mode_vm=bootstrap_only. It \
         overwrites what they protect."
    );
    let refused = front.get(&format!("{DEVICES}?netbox_branch_schema_id=td5smq0f"), &WITH_KEY).await;
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("it would write to main"), "{}", refused.text());

    let (backend, front) = before("0.0.19.post5", &[]).await;
    for target in ["/sync/individual/vm", "/virtualization/virtual-machines/create", DEVICES] {
        let refused = front.get(&format!("{target}?netbox_branch_schema_id=td5smq0f"), &WITH_KEY).await;
        assert_eq!(refused.status, 422, "{target}: {}", refused.text());
    }
    assert!(work(&backend).is_empty(), "{:?}", targets(&backend));
    let reported = events(&front.get(&format!("{DEVICES}?{query}"), &WITH_KEY).await);
    assert!(reported.iter().all(|event| !event.text("message").starts_with("Warning")), "it knows them");
    let (_backend, front) = before("0.0.6.post4", &[("shims.options", "off")]).await;
    let reported =
        events(&front.get(&format!("{DEVICES}?{query}&netbox_branch_schema_id=b"), &WITH_KEY).await);
    assert!(reported.iter().all(|event| !event.text("message").starts_with("Warning")));
    // Without a key, nothing but the options needs the release.
    let (_backend, front) = before("0.0.6.post4", &[]).await;
    let reported = events(&front.get(&format!("{DEVICES}?{query}"), &[]).await);
    assert!(reported[1].text("message").starts_with("Warning"), "{reported:?}");
}

#[tokio::test(start_paused = true)]
async fn secrets_are_shown_by_no_release_and_rows_say_their_token_version() {
    for version in RECORDED {
        let (_backend, front) = before(version, &[]).await;
        for path in [NETBOX, "/proxmox/endpoints"] {
            let read = front.get(path, &WITH_KEY).await;
            if version == "0.0.2.post1" && path == "/proxmox/endpoints" {
                assert_eq!(read.status, 422);
                assert!(read.detail().starts_with("proxbox-api 0.0.2 reads its Proxmox credentials"));
                continue;
            }
            assert_eq!(read.status, 200, "{version} {path}: {}", read.text());
            let rows = read.json();
            assert!(!rows.as_array().unwrap().is_empty(), "{version} {path}");
            for row in rows.as_array().unwrap() {
                for secret in ["token", "password", "token_value"] {
                    assert!(row.get(secret).is_none(), "{version} {path} {row}");
                }
                assert!(path != NETBOX || row["token_version"] == "v1", "{version} {row}");
            }
        }
    }
    let (_backend, front) = before("0.0.6.post4", &[("shims.secrets", "off")]).await;
    assert!(front.get(NETBOX, &WITH_KEY).await.json()[0].get("token").is_some());
}

#[tokio::test(start_paused = true)]
async fn the_version_of_a_backend_that_has_none_is_the_one_that_its_streams_tell() {
    for (version, expected) in [("0.0.2.post1", "0.0.2"), ("0.0.4", "0.0.4"), ("0.0.5", "0.0.5")] {
        let (_backend, front) = before(version, &[]).await;
        let reported = front.get("/version", &WITH_KEY).await;
        assert_eq!((reported.status, &reported.json()["version"]), (200, &json!(expected)));
        assert_eq!(reported.json()["bridge"]["detected_by"], "streams");
        assert_eq!(reported.header("x-proxbox-bridge-shim"), Some("version"));
    }
    let (_backend, front) = before("0.0.6.post4", &[]).await;
    let reported = front.get("/version", &WITH_KEY).await;
    assert_eq!((&reported.json()["version"], reported.json().get("bridge")), (&json!("0.0.6.post4"), None));
    let (_backend, front) = before("0.0.4", &[("shims.version", "off")]).await;
    assert_eq!(front.get("/version", &WITH_KEY).await.status, 404);
}

/// The rows of NetBox in 0.0.2, which knows how to store, list and delete them.
#[derive(Clone, Default)]
pub(super) struct Rows(pub(super) Arc<Mutex<Vec<Value>>>);

impl Rows {
    pub(super) fn row(id: u64, port: u16) -> Value {
        json!({
            "id": id, "name": "netbox", "ip_address": "127.0.0.1", "domain": "nb", "port": port,
            "token": "old-token", "verify_ssl": false
        })
    }

    pub(super) async fn answer(self, request: Request<Incoming>) -> http::Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let id = path.strip_prefix("/netbox/endpoint/").and_then(|id| id.parse::<u64>().ok());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut rows = self.0.lock().unwrap();
        match (method, path.as_str(), id) {
            (Method::GET, NETBOX, _) => answer(200, &[], &json!(*rows).to_string()),
            (Method::POST, NETBOX, _) => {
                let mut row: Value = serde_json::from_slice(&body).unwrap();
                row["id"] = json!(rows.len() + 1);
                rows.push(row.clone());
                answer(200, &[], &row.to_string())
            }
            (Method::GET, _, Some(id)) => match rows.iter().find(|row| row["id"] == id) {
                Some(row) => answer(200, &[], &row.to_string()),
                None => answer(404, &[], r#"{"detail":"Netbox Endpoint not found"}"#),
            },
            (Method::DELETE, _, Some(id)) => {
                rows.retain(|row| row["id"] != id);
                answer(200, &[], r#"{"message":"NetBox Endpoint deleted."}"#)
            }
            (_, _, Some(_)) => answer(405, &[("allow", "GET")], r#"{"detail":"Method Not Allowed"}"#),
            _ => answer(404, &[], r#"{"detail":"Not Found"}"#),
        }
    }
}

pub(super) async fn push(front: &TestBridge, method: &str, target: &str, row: &Value) -> Answer {
    let body = row.to_string();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nX-Proxbox-API-Key: {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Client::raw(front.address, request.as_bytes()).await.answer().await
}

#[tokio::test]
async fn a_row_of_0_0_2_that_is_pushed_again_is_left_alone_and_a_new_one_waits_for_a_restart() {
    let rows = Rows::default();
    rows.0.lock().unwrap().push(Rows::row(1, 80));
    let serving = rows.clone();
    let backend = Backend::start(move |request| serving.clone().answer(request)).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder)];
    let front = TestBridge::start(config(backend.address, &settings)).await;

    let mut pushed = Rows::row(1, 80);
    pushed["token_version"] = json!("v1");
    let same = push(&front, "PUT", "/netbox/endpoint/1", &pushed).await;
    assert_eq!((same.status, &same.json()["token_version"]), (200, &json!("v1")));
    assert!(same.json().get("token").is_none(), "{}", same.text());
    assert!(work(&backend).iter().all(|received| received.method == "GET"), "{:?}", targets(&backend));
    assert_eq!(
        front.get(DEVICES, &WITH_KEY).await.status,
        404,
        "there is no /ws here, and nothing else is wrong"
    );

    pushed["port"] = json!(8080);
    let changed = push(&front, "PUT", "/netbox/endpoint/1", &pushed).await;
    assert_eq!((changed.status, &changed.json()["port"]), (200, &json!(8080)), "{}", changed.text());
    let order: Vec<String> =
        targets(&backend).into_iter().filter(|received| !received.starts_with("GET")).collect();
    assert_eq!(order, ["POST /netbox/endpoint", "DELETE /netbox/endpoint/1"], "there is never none");
    assert_eq!(
        rows.0.lock().unwrap().iter().map(|row| row["port"].clone()).collect::<Vec<_>>(),
        [json!(8080)]
    );

    let held = front.get(DEVICES, &WITH_KEY).await;
    assert_eq!((held.status, held.header("retry-after")), (503, Some("30")));
    assert!(held.detail().starts_with("Restart proxbox-api: NetBox has changed"), "{}", held.text());
    front.stop().await;
    let front = TestBridge::start(config(backend.address, &settings)).await;
    let held = front.get(DEVICES, &WITH_KEY).await;
    assert!(held.detail().starts_with("Restart proxbox-api"), "it outlives the bridge: {}", held.text());

    drop(backend);
    loop {
        let answer = front.get(DEVICES, &WITH_KEY).await;
        if !answer.detail().starts_with("Restart proxbox-api") {
            assert_eq!(answer.json()["message"], "The ProxBox backend cannot be reached.");
            break;
        }
        tokio::task::yield_now().await;
    }
    let kept = fs::read_to_string(folder.path().join("awaiting-restart.json")).unwrap();
    assert_eq!(kept, "[]");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_0_0_2_cannot_use_is_refused_for_that_reason() {
    let rows = Rows::default();
    rows.0.lock().unwrap().push(Rows::row(1, 80));
    let (backend, front) = bridged(&[], move |request| rows.clone().answer(request)).await;
    let mut pushed = Rows::row(1, 80);
    pushed["token_version"] = json!("v2");
    for (method, target) in [("PUT", "/netbox/endpoint/1"), ("POST", NETBOX)] {
        let refused = push(&front, method, target, &pushed).await;
        assert_eq!(refused.status, 422);
        assert!(refused.detail().contains("only supports v1 tokens of NetBox"), "{}", refused.text());
    }
    assert!(work(&backend).is_empty(), "{:?}", targets(&backend));
    let broken = push(&front, "PUT", "/netbox/endpoint/1", &json!("no row")).await;
    assert_eq!((broken.status, broken.detail().as_str()), (422, "The body must be a JSON object."));
    assert!(work(&backend).is_empty(), "the row that is there stays: {:?}", targets(&backend));
}

#[tokio::test]
async fn while_a_backend_waits_for_a_restart_nothing_there_writes_to_netbox() {
    let rows = Rows::default();
    rows.0.lock().unwrap().push(Rows::row(1, 80));
    let (backend, front) = bridged(&[], move |request| rows.clone().answer(request)).await;
    assert_eq!(push(&front, "PUT", "/netbox/endpoint/1", &Rows::row(1, 8080)).await.status, 200);
    let before = work(&backend).len();
    for target in
        ["/full-update", "/virtualization/virtual-machines/create", "/dcim/devices/pve1/interfaces/create"]
    {
        let held = front.get(target, &WITH_KEY).await;
        assert_eq!(held.status, 503, "{target}: {}", held.text());
        assert!(held.detail().starts_with("Restart proxbox-api"), "{}", held.text());
    }
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    assert_eq!(front.get("/ws/virtual-machines", &upgrade).await.status, 503);
    assert_eq!(work(&backend).len(), before, "{:?}", targets(&backend));
    for harmless in [NETBOX, "/proxmox/version", "/health"] {
        assert_ne!(front.get(harmless, &WITH_KEY).await.status, 503, "{harmless}");
    }
}

#[tokio::test]
async fn a_backend_that_waits_for_a_restart_does_so_under_another_url_too_and_another_one_does_not() {
    let rows = Rows::default();
    rows.0.lock().unwrap().push(Rows::row(1, 80));
    let serving = rows.clone();
    let backend = Backend::start(move |request| serving.clone().answer(request)).await;
    let other = Backend::start(move |request| rows.clone().answer(request)).await;
    let text = file(backend.address, "");
    let changing = ReloadableBridge::start(text.clone()).await;
    let front = &changing.front;
    assert_eq!(push(front, "PUT", "/netbox/endpoint/1", &Rows::row(1, 8080)).await.status, 200);
    assert_eq!(changing.reload(text.replace("http://127.0.0.1", "http://localhost")).await.0, 200);
    let before = work(&backend).len();
    for target in ["/full-update", DEVICES] {
        let held = front.get(target, &WITH_KEY).await;
        assert!(held.detail().starts_with("Restart proxbox-api"), "{target}: {}", held.text());
    }
    assert_eq!(work(&backend).len(), before, "{:?}", targets(&backend));
    assert_eq!(changing.reload(file(other.address, "")).await.0, 200);
    for target in ["/full-update", DEVICES] {
        let free = front.get(target, &WITH_KEY).await;
        assert!(!free.detail().starts_with("Restart proxbox-api"), "{target}: {}", free.text());
    }
}

#[tokio::test]
async fn a_pending_backend_restart_survives_a_bridge_restart_with_another_url() {
    let rows = Rows::default();
    rows.0.lock().unwrap().push(Rows::row(1, 80));
    let backend = Backend::start(move |request| rows.clone().answer(request)).await;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = data_dir(&folder);
    let front = TestBridge::start(config(backend.address, &[data_dir])).await;
    assert_eq!(push(&front, "PUT", "/netbox/endpoint/1", &Rows::row(1, 8080)).await.status, 200);
    front.stop().await;
    let url = format!("http://localhost:{}", backend.address.port());
    let front = TestBridge::start(config(backend.address, &[data_dir, ("backend.url", &url)])).await;
    for target in [DEVICES, "/full-update"] {
        let held = front.get(target, &WITH_KEY).await;
        assert!(held.detail().starts_with("Restart proxbox-api"), "{target}: {}", held.text());
    }
    drop(backend);
    while front.get(DEVICES, &WITH_KEY).await.detail().starts_with("Restart proxbox-api") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_cannot_be_disabled_is_deleted() {
    let (backend, front) = before("0.0.11.post2", &[]).await;
    let body = json!({ "id": 1, "name": "lab (nb:1)", "enabled": true });
    push(&front, "PUT", "/proxmox/endpoints/1", &body).await;
    let body = json!({ "id": 1, "name": "lab (nb:1)", "enabled": false });
    let revoked = push(&front, "PUT", "/proxmox/endpoints/1", &body).await;
    let received = targets(&backend);
    assert_eq!(received, ["PUT /proxmox/endpoints/1", "DELETE /proxmox/endpoints/1"]);
    assert_eq!(revoked.json(), json!({ "id": 1, "enabled": false }));

    let (backend, front) = before("0.0.19.post5", &[]).await;
    push(&front, "PUT", "/proxmox/endpoints/1", &body).await;
    assert_eq!(targets(&backend), ["PUT /proxmox/endpoints/1"], "it knows how to");
}

/// A bridge in front of a backend whose device stream has these headers and this body.
async fn with_stream(headers: &'static [(&str, &str)], body: &'static str) -> (Backend, TestBridge) {
    let (backend, front) = bridged(&[], move |request: Request<Incoming>| async move {
        match (request.method(), request.uri().path()) {
            (_, "/version") => answer(200, &[], r#"{"version":"0.0.30.post2"}"#),
            (&Method::HEAD, DEVICES) => answer(405, &[("allow", "GET")], ""),
            (&Method::GET, DEVICES) => answer(200, headers, body),
            _ => answer(404, &[], r#"{"detail":"Not Found"}"#),
        }
    })
    .await;
    (backend, front)
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_announced_as_one_is_read_where_it_can_be_nothing_else() {
    for headers in
        [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/octet-stream")]]
    {
        let (backend, _front) = with_stream(headers, STREAM).await;
        let folder = tempfile::tempdir().unwrap();
        let settings = [data_dir(&folder), ("jobs.recording", "on")];
        let front = TestBridge::start(config(backend.address, &settings)).await;
        let answer = front.get(DEVICES, &WITH_KEY).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.text().contains("event: complete") && answer.text().contains("\"ok\": true"),
            "{}",
            answer.text()
        );
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let recording = format!("/jobs/{}/recording", answer.header("x-proxbox-bridge-job").unwrap());
        let recording = front.admin_request("GET", &recording, &[]).await;
        let recorded = recording.text().matches("content-type").count();
        assert_eq!((recording.status, recorded), (200, headers.len()), "{}", recording.text());
        assert!(headers.iter().all(|(_, kind)| recording.text().contains(kind)), "{}", recording.text());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_readable_stream_is_named_by_what_it_is() {
    for (headers, body, named) in [
        (&[("content-type", "text/html"), ("x-a", "b")][..], "<h1>Sign in</h1>", "Content-Type: text/html"),
        (&[("content-type", "application/json")], "{\"ok\": true}", "Content-Type: application/json"),
        (
            &[("content-type", "text/event-stream"), ("content-encoding", "gzip")],
            STREAM,
            "Content-Encoding: gzip",
        ),
        (
            &[("content-type", "text/plain"), ("content-encoding", "br, identity")],
            STREAM,
            "Content-Encoding: br",
        ),
    ] {
        let (_backend, front) = with_stream(headers, body).await;
        let answer = front.get(DEVICES, &WITH_KEY).await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.detail().contains(named), "{}", answer.text());
    }
    let identity = &[("content-type", "text/event-stream"), ("content-encoding", "Identity")];
    let (_backend, front) = with_stream(identity, STREAM).await;
    assert_eq!(front.get(DEVICES, &WITH_KEY).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_never_taken_for_one_that_says_nothing() {
    let gzip = &[("content-encoding", "gzip"), ("content-type", "application/json")][..];
    let page = &[("content-type", "text/html")][..];
    for (unread, headers, release, target, named) in [
        ("/version", gzip, "0.0.30.post2", DEVICES, "Content-Encoding: gzip"),
        ("/execution-policy", gzip, "0.0.30.post2", MACHINES, "Content-Encoding: gzip"),
        ("/proxmox/endpoints", gzip, "0.0.30.post2", "?", "Content-Encoding: gzip"),
        ("/proxmox/endpoints", page, "0.0.30.post2", "?", "Content-Type: text/html"),
        ("/netbox/endpoint", gzip, "0.0.5", "/netbox/endpoint", "Content-Encoding: gzip"),
    ] {
        let (_backend, front) =
            bridged(&[("backend.endpoint_ids", "plugin")], move |request: Request<Incoming>| async move {
                match (request.method(), request.uri().path()) {
                    (&Method::GET, path) if path == unread => answer(200, headers, "\u{1f}unread"),
                    (_, "/version") => answer(200, &[], &json!({ "version": release }).to_string()),
                    (&Method::HEAD, DEVICES) => answer(405, &[("allow", "HEAD, get")], ""),
                    (&Method::GET, DEVICES) => answer(200, &[("content-type", "text/event-stream")], STREAM),
                    _ => answer(404, &[], r#"{"detail":"Not Found"}"#),
                }
            })
            .await;
        let target =
            if target == "?" { format!("{DEVICES}?proxmox_endpoint_ids=1") } else { target.to_owned() };
        let read = front.get(&target, &WITH_KEY).await;
        assert_eq!(read.status, 502, "{unread}: {}", read.text());
        assert!(read.detail().contains(named) && !read.text().contains("unread"), "{}", read.text());
    }
}
