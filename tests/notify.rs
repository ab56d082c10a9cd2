//! Notifications, by the real process to real receivers with outages.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use proxbox_bridge::replay::{ReplayHandle, ReplayOptions, Speed};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::check::run::CheckRun;
use crate::support::bridge::{
    Client, DEVICES, Forwarder, MACHINES, WITH_KEY, fast, poll_until, recordings, replayed,
};
use crate::support::process::Process;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A target of notifications.
struct Receiver {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Received>,
    task: JoinHandle<()>,
}

/// A request to it.
#[derive(Debug)]
struct Received {
    line: String,
    /// With names in lower case.
    headers: Vec<(String, String)>,
    body: String,
}

impl Receiver {
    /// A receiver on `listener` that answers with each of `answers`, and then with 200. An answer is a status, and
    /// headers behind it.
    fn on(listener: TcpListener, answers: &[&str]) -> Self {
        let address = listener.local_addr().unwrap();
        let answers: VecDeque<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let answers = Arc::new(Mutex::new(answers));
        let (sender, requests) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = answers.lock().unwrap().pop_front().unwrap_or_else(|| "200 OK".to_owned());
                let received = receive(stream, &answer).await;
                let _ = sender.send(received);
            }
        });
        Self { address, requests, task }
    }

    async fn start(answers: &[&str]) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answers)
    }

    async fn next(&mut self) -> Received {
        self.requests.recv().await.unwrap()
    }

    fn is_idle(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(mut stream: TcpStream, answer: &str) -> Received {
    let mut bytes = Vec::new();
    let end = loop {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "a whole request");
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    let headers: Vec<_> = rest.lines().map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").unwrap().1.parse().unwrap();
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        assert!(stream.read_buf(&mut body).await.unwrap() > 0, "a whole body");
    }
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    Received { line: line.to_owned(), headers, body: String::from_utf8(body).unwrap() }
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name}: {self:?}"), |(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Verifies the signature as a receiver does.
    fn verify(&self) {
        // The specification forbids full stops in ids: they separate the signed parts.
        assert!(!self.header("webhook-id").contains('.'), "{self:?}");
        let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        for part in [self.header("webhook-id"), ".", self.header("webhook-timestamp"), ".", &self.body] {
            mac.update(part.as_bytes());
        }
        let (version, signature) = self.header("webhook-signature").split_once(',').unwrap();
        assert_eq!(version, "v1");
        mac.verify_slice(&STANDARD.decode(signature).unwrap()).unwrap();
    }
}

/// A directory with a configuration that has `targets`, and a file with the secret.
struct Setup(TempDir);

impl Setup {
    fn new(targets: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let setup = Self(folder);
        setup.write(targets);
        setup
    }

    /// With one target: the default form at `receiver`.
    fn with_target(receiver: &Receiver) -> Self {
        Self::new(&format!(
            "admin_open_reads = true\n[[notify]]\nurl = \"http://{}\"\nallow_local = true",
            receiver.address
        ))
    }

    fn write(&self, targets: &str) {
        let targets = targets.replace("SECRET_FILE", self.path("secret").to_str().unwrap());
        std::fs::write(self.path("bridge.toml"), targets).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, backend: SocketAddr) -> Process {
        let config = self.path("bridge.toml");
        let settings =
            [("config", config.to_str().unwrap()), ("backend.name", "lab"), ("limits.check", "0s")];
        Process::start(&self.path("data"), backend, &settings)
    }
}

/// A backend that refuses syncs of devices.
async fn failing() -> ReplayHandle {
    replayed(recordings("0.0.11.post2", &["fail/sse-devices-proxmox-down"]), fast()).await
}

async fn working() -> ReplayHandle {
    replayed(recordings("0.0.11.post2", &[]), fast()).await
}

/// Runs a sync to its end. Returns its job.
async fn run(bridge: &Process, path: &str) -> Value {
    Client::send(bridge.address, "GET", path, &WITH_KEY).await.answer().await;
    let jobs: Value = serde_json::from_str(&get(bridge, "/jobs?limit=1").await).unwrap();
    jobs["results"][0].clone()
}

/// Runs a sync to its end. Returns the id of its job.
async fn sync(bridge: &Process, path: &str) -> String {
    run(bridge, path).await["id"].as_str().unwrap().to_owned()
}

async fn get(bridge: &Process, target: &str) -> String {
    String::from_utf8(Client::send(bridge.admin, "GET", target, &[]).await.answer().await.body).unwrap()
}

/// The counted notifications: sent, failed and dropped.
async fn counted(bridge: &Process) -> [u64; 3] {
    let metrics = get(bridge, "/metrics").await;
    ["sent", "failed", "dropped"].map(|result| {
        let series = format!("proxbox_bridge_notifications_total{{result=\"{result}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        line.parse().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_is_killed_after_a_failure_notifies_of_it_after_its_restart() {
    let backend = failing().await;
    // Until it listens, it refuses connections, and no other test gets its port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let setup = Setup::new(&format!(
        "admin_open_reads = true\nadmin_url = \"https://ops.example/bridge/\"\n[[notify]]\nurl = \
         \"http://{address}/hook?key=1\"\nsecret_file = \"SECRET_FILE\"\nallow_local = true"
    ));
    let mut bridge = setup.start(backend.local_addr());
    let recorded = run(&bridge, DEVICES).await;
    let job = recorded["id"].as_str().unwrap();
    bridge.read_to("Notification not sent. It will be sent again.");
    bridge.kill();
    let mut receiver = Receiver::on(socket.listen(16).unwrap(), &[]);
    let bridge = setup.start(backend.local_addr());
    let received = receiver.next().await;
    assert_eq!(received.line, "POST /hook?key=1 HTTP/1.1");
    assert_eq!(received.header("host"), address.to_string());
    assert_eq!(received.header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!(received.header("webhook-id"), format!("{job}_failed"));
    received.verify();
    let event = received.json();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["id"], format!("{job}_failed"));
    assert_eq!(event["source"], "/proxbox-bridge");
    assert_eq!(event["type"], "proxbox_bridge.sync.failed");
    assert_eq!(event["subject"], "lab/devices");
    let data = &event["data"];
    assert_eq!(
        (&data["event"], &data["backend"], &data["kind"]),
        (&json!("failed"), &json!("lab"), &json!("devices"))
    );
    assert_eq!(data["title"], "Sync devices on lab failed");
    assert_eq!(data["job"]["id"], job);
    assert_eq!(data["job"]["url"], format!("https://ops.example/bridge/#/jobs/{job}"));
    assert_eq!(recorded["outcome"], "errored");
    for field in ["outcome", "cause", "source"] {
        assert_eq!(data["job"][field], recorded[field], "{field}");
    }
    assert!(!data["job"]["detail"].as_str().unwrap().is_empty(), "{data}");
    drop(bridge);
    assert!(receiver.is_idle());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_the_bridge_was_killed_in_is_notified_of_after_the_restart() {
    let options = ReplayOptions { speed: Speed::Max, stall_after: Some(3), ..ReplayOptions::default() };
    let backend = replayed(recordings("0.0.11.post2", &[]), options).await;
    let mut receiver = Receiver::start(&[]).await;
    let setup = Setup::with_target(&receiver);
    let mut bridge = setup.start(backend.local_addr());
    let _client = Client::send(bridge.address, "GET", MACHINES, &WITH_KEY).await;
    bridge.read_to("Job started.");
    bridge.kill();
    let _bridge = setup.start(backend.local_addr());
    let event = receiver.next().await.json();
    assert_eq!(event["type"], "proxbox_bridge.sync.interrupted");
    assert_eq!(event["data"]["job"]["cause"], "crashed");
    assert_eq!(event["data"]["job"]["url"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_fails_for_a_while_gets_each_notification_in_order_and_a_refused_one_is_dropped() {
    let answers =
        ["500 Oops", "429 Slow\r\nRetry-After: 1", "200 OK", "400 No", "301 Moved\r\nLocation: /x", "200 OK"];
    let mut receiver = Receiver::start(&answers).await;
    let backend = failing().await;
    let setup = Setup::with_target(&receiver);
    let mut bridge = setup.start(backend.local_addr());
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(sync(&bridge, DEVICES).await);
    }
    let mut ids = Vec::new();
    for _ in answers {
        ids.push(receiver.next().await.header("webhook-id").to_owned());
    }
    let expected = [0, 0, 0, 1, 2, 3].map(|index: usize| format!("{}_failed", jobs[index]));
    assert_eq!(ids, expected);
    bridge.read_to("Notification sent.");
    bridge.read_to("Notification sent.");
    assert_eq!(counted(&bridge).await, [2, 2, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_are_recorded_again_after_a_loss_of_the_ledger_are_not_notified_of_again() {
    let mut receiver = Receiver::start(&[]).await;
    let backend = failing().await;
    let setup = Setup::with_target(&receiver);
    let mut bridge = setup.start(backend.local_addr());
    let mut jobs = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        jobs.push(sync(&bridge, DEVICES).await);
        ids.push(receiver.next().await.header("webhook-id").to_owned());
        bridge.read_to("Notification sent.");
    }
    std::fs::remove_dir_all(setup.path("data")).unwrap();
    jobs.push(sync(&bridge, DEVICES).await);
    let file = setup.path("data").join("ledger.sqlite3");
    poll_until(async || {
        let connection = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let rows = connection.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0));
        rows.ok().filter(|rows| *rows == 4)
    })
    .await;
    jobs.push(sync(&bridge, DEVICES).await);
    for _ in 3..5 {
        // Long before the next check for overdue syncs.
        let received = timeout(Duration::from_secs(30), receiver.next()).await.unwrap();
        ids.push(received.header("webhook-id").to_owned());
    }
    assert_eq!(ids, jobs.iter().map(|job| format!("{job}_failed")).collect::<Vec<_>>());
    assert!(receiver.is_idle());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_form_has_its_body_and_its_headers() {
    let (failing, working) = (failing().await, working().await);
    let backend = Forwarder::new(failing.local_addr()).await;
    let mut receivers = Vec::new();
    let mut targets = String::new();
    for (form, more) in [("slack", ""), ("ntfy", "secret_file = \"SECRET_FILE\""), ("alertmanager", "")] {
        let receiver = Receiver::start(&[]).await;
        targets += &format!(
            "[[notify]]\nform = \"{form}\"\nurl = \"http://{}/x\"\nallow_local = true\n{more}\n",
            receiver.address
        );
        receivers.push(receiver);
    }
    let setup = Setup::new(&format!("admin_open_reads = true\n{targets}"));
    let bridge = setup.start(backend.address);
    let recorded = run(&bridge, DEVICES).await;
    let (failed, cause) = (recorded["id"].as_str().unwrap(), recorded["cause"].as_str().unwrap());
    let [slack, ntfy, alertmanager] = receivers.as_mut_slice() else { unreachable!() };

    let received = slack.next().await;
    assert_eq!(
        (received.line.as_str(), received.header("content-type")),
        ("POST /x HTTP/1.1", "application/json")
    );
    let body = received.json();
    let text = body["text"].as_str().unwrap();
    assert_eq!(body, json!({ "text": text }));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..2],
        ["Sync devices on lab failed", &format!("Outcome errored, cause {cause}.")],
        "{text}"
    );
    assert_eq!(*lines.last().unwrap(), format!("Job: {failed}"));

    let received = ntfy.next().await;
    assert_eq!(received.header("title"), "Sync devices on lab failed");
    assert_eq!((received.header("priority"), received.header("tags")), ("high", "warning"));
    assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    assert!(received.body.ends_with(&format!("Job: {failed}")), "{received:?}");

    let received = alertmanager.next().await;
    assert_eq!(received.line, "POST /x/api/v2/alerts HTTP/1.1");
    let body = received.json();
    let firing = &body[0];
    let labels = json!({
        "alertname": "ProxboxBridgeSyncFailed", "severity": "warning", "backend": "lab", "kind": "devices",
    });
    assert_eq!((body.as_array().unwrap().len(), &firing["labels"]), (1, &labels));
    assert_eq!(firing["annotations"]["summary"], "Sync devices on lab failed");
    assert!(firing["endsAt"].as_str().unwrap() > firing["startsAt"].as_str().unwrap());

    backend.forward_to(working.local_addr());
    sync(&bridge, DEVICES).await;
    assert!(
        slack.next().await.json()["text"]
            .as_str()
            .unwrap()
            .starts_with("Sync devices on lab has recovered\n")
    );
    let received = ntfy.next().await;
    assert_eq!((received.header("priority"), received.header("tags")), ("default", "white_check_mark"));
    let body = alertmanager.next().await.json();
    let resolved = &body[0];
    assert_eq!((body.as_array().unwrap().len(), &resolved["labels"]), (1, &labels));
    assert_eq!(resolved["startsAt"], firing["startsAt"]);
    assert!(resolved["endsAt"].as_str().unwrap() < firing["endsAt"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loopback_target_gets_nothing_until_the_configuration_allows_it() {
    let mut receiver = Receiver::start(&[]).await;
    let backend = failing().await;
    let port = receiver.address.port();
    let target = |host: &str, more: &str| {
        format!("admin_open_reads = true\n[[notify]]\nname = \"it\"\nurl = \"http://{host}:{port}\"\n{more}")
    };
    let setup = Setup::new(&target("localhost", ""));
    let mut bridge = setup.start(backend.local_addr());
    let job = sync(&bridge, DEVICES).await;
    let line = bridge.read_to("Notification not sent. It will be sent again.");
    let problem = line["problem"].as_str().unwrap();
    assert!(problem.contains("loopback or link-local") && problem.contains("notify.allow_local"), "{line}");
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        setup.write(&target(host, ""));
        bridge.hang_up();
        bridge.read_to("Notification not sent. It will be sent again.");
    }
    assert!(receiver.is_idle());
    setup.write(&target("localhost", "allow_local = true"));
    bridge.hang_up();
    assert_eq!(receiver.next().await.header("webhook-id"), format!("{job}_failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_does_not_complete_again_in_time_is_notified_of() {
    let mut receiver = Receiver::start(&[]).await;
    let backend = working().await;
    let setup = Setup::new(&format!(
        "admin_open_reads = true\n[[notify]]\nurl = \"http://{}\"\nallow_local = true\non = [\"stale\", \
         \"recovered\"]\nstale_after = \"1s\"",
        receiver.address
    ));
    let bridge = setup.start(backend.local_addr());
    sync(&bridge, DEVICES).await;
    let event = receiver.next().await.json();
    assert_eq!(
        (&event["type"], &event["subject"]),
        (&json!("proxbox_bridge.sync.stale"), &json!("lab/devices"))
    );
    let title = event["data"]["title"].as_str().unwrap();
    assert!(title.starts_with("Sync devices on lab has not completed since 20"), "{title}");
    sync(&bridge, DEVICES).await;
    let event = receiver.next().await.json();
    assert_eq!(event["data"]["resolved"], json!(["stale"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_sends_a_test_notification_to_each_target_only_when_told_to() {
    let backend = working().await;
    let (mut good, bad) = (Receiver::start(&[]).await, Receiver::start(&["404 Not Found"]).await);
    let setup = Setup::new(&format!(
        "[[notify]]\nname = \"good\"\nurl = \"http://{}\"\nsecret_file = \"SECRET_FILE\"\nallow_local = true\n\
         [[notify]]\nname = \"bad\"\nform = \"slack\"\nurl = \"http://{}/s3cret\"\nallow_local = true",
        good.address, bad.address
    ));
    let config = setup.path("bridge.toml");
    let settings = [("config", config.to_str().unwrap())];
    let plain = CheckRun::against(&backend.local_addr(), &["--json"], &settings).await;
    assert!(plain.text.contains("good: failed, interrupted, recovered"), "{}", plain.text);
    assert!(good.is_idle());
    let tested = CheckRun::against(&backend.local_addr(), &["--notify"], &settings).await;
    let received = good.next().await;
    received.verify();
    assert_eq!(received.json()["type"], "proxbox_bridge.sync.test");
    assert_eq!(tested.code, 1);
    for part in [
        "ok       notify       good: test notification accepted (200 OK)",
        "FAILED   notify       bad: test notification not sent: the target answered 404 Not Found",
        "Fix the target or its table [[notify]]: it gets no notifications until then.",
    ] {
        assert!(tested.text.contains(part), "{}", tested.text);
    }
    assert!(!tested.text.contains("s3cret"), "{}", tested.text);
    assert!(!Path::new(&setup.path("data")).exists());
}
