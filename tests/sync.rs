//! The command `sync`: what it prints, its exit codes, its signals, and streams that are cut.

mod terminal;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::support::bridge::{
    BridgedReplay, Forwarder, KEY, NOWHERE, TOKEN, TestBridge, data_dir, fast, poll_until, recordings,
    replayed,
};
use crate::support::manual::ManualBackend;
use crate::support::process::Process;
use crate::support::scripted::{Backend, answer};

const OLD: &str = "0.0.2.post1";
const NEW: &str = "0.0.30.post2";

/// A running `sync`.
struct Sync {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
}

/// A command that ended: its exit code, its output and its errors.
type Ended = (Option<i32>, String, String);

/// A file with the token, or the key, `secret`.
fn secret_file(folder: &tempfile::TempDir, secret: &str) -> PathBuf {
    let path = folder.path().join("secret");
    std::fs::write(&path, secret).unwrap();
    path
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
    command.arg("sync").args(args).env_clear().kill_on_drop(true).stdin(Stdio::null());
    command
}

/// `sync` on the bridge at `admin`, with its token.
fn on_bridge(admin: SocketAddr, args: &[&str]) -> Command {
    let mut command = command(args);
    command.args(["--admin-listen", &admin.to_string()]).env("PROXBOX_BRIDGE_ADMIN_TOKEN", TOKEN);
    command
}

async fn ended(mut command: Command) -> Ended {
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

impl Sync {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, output, errors }
    }

    /// The lines of its output up to and including `wanted`.
    async fn read_to(&mut self, wanted: &str) -> Vec<String> {
        let mut read = Vec::new();
        while read.last().is_none_or(|line: &String| line != wanted) {
            read.push(
                self.output.next_line().await.unwrap().unwrap_or_else(|| panic!("no {wanted}: {read:?}")),
            );
        }
        read
    }

    /// The next line of its errors.
    async fn error(&mut self) -> String {
        self.errors.next_line().await.unwrap().unwrap()
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    async fn ended(mut self) -> Ended {
        let (mut output, mut errors) = (String::new(), String::new());
        self.output.into_inner().read_to_string(&mut output).await.unwrap();
        self.errors.into_inner().read_to_string(&mut errors).await.unwrap();
        (self.child.wait().await.unwrap().code(), output, errors)
    }
}

/// The job that the bridge has started last.
async fn last_job(bridge: &TestBridge) -> Value {
    bridge.admin_request("GET", "/jobs?limit=1", &[]).await.json()["results"][0].clone()
}

#[tokio::test]
async fn a_sync_is_printed_as_proxbox_documents_its_log() {
    let bridge = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let (code, output, errors) = ended(on_bridge(bridge.front.admin, &["full-update"])).await;
    assert_eq!(code, Some(0), "{errors}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[1], "full-update: Starting full update synchronization.");
    assert_eq!(lines[lines.len() - 1], "full-update: stream completed");
    for line in ["full-update: Processing device pve1", "full-update: Synced virtual_machine café-münchen"]
    {
        assert!(lines.contains(&line), "{output}");
    }
    let job = last_job(&bridge.front).await;
    assert_eq!(lines[0], format!("full-update: Started job {}.", job["id"].as_str().unwrap()));
    assert_eq!(errors, "", "cron sends no mail");
}

#[tokio::test]
async fn events_as_json_are_one_object_on_each_line_and_parameters_reach_the_backend() {
    let bridge = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let args = ["devices", "--json", "--query", "note=a b", "--query", "list=1,2"];
    let (code, output, errors) = ended(on_bridge(bridge.front.admin, &args)).await;
    assert_eq!(code, Some(0), "{errors}");
    let events: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["event"], &events[0]["data"]["kind"]), (&"job".into(), &"devices".into()));
    assert_eq!((&events[1]["event"], &events[1]["data"]["status"]), (&"step".into(), &"started".into()));
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["data"]["ok"]), (&"complete".into(), &true.into()));
    assert_eq!(last_job(&bridge.front).await["query"], "note=a+b&list=1%2C2");
}

#[tokio::test]
async fn a_failed_sync_is_1_with_the_detail_of_the_backend() {
    let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
    let sync = Sync::start(on_bridge(bridge.admin, &["devices"]));
    backend.next_stream().await.fail().await;
    let (code, output, errors) = sync.ended().await;
    assert_eq!(code, Some(1), "{errors}");
    assert!(output.contains("devices: No.\n") && !output.contains("stream completed"), "{output}");
    assert!(errors.contains("proxbox-bridge: the sync failed: No."), "{errors}");
}

#[tokio::test]
async fn failed_objects_are_printed_and_are_4_if_strict() {
    for (strict, expected) in [(&["--strict"][..], 4), (&[], 0)] {
        let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
        let sync = Sync::start(on_bridge(bridge.admin, &[&["virtual-machines"], strict].concat()));
        let mut stream = backend.next_stream().await;
        stream.vm("web01", Some("No such cluster.")).await;
        stream.vm("web02", None).await;
        stream.complete().await;
        let (code, output, errors) = sync.ended().await;
        assert_eq!(code, Some(expected), "{output}{errors}");
        assert!(
            output.lines().any(|line| line.contains("web01") && line.ends_with("No such cluster.")),
            "{output}"
        );
        assert_eq!(errors.contains("proxbox-bridge: objects that failed: 1"), expected == 4, "{errors}");
    }
}

#[tokio::test]
async fn ctrl_c_cancels_the_sync_that_the_command_has_started() {
    for signal in ["INT", "TERM"] {
        let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
        let mut sync = Sync::start(on_bridge(bridge.admin, &["devices"]));
        let mut stream = backend.next_stream().await;
        stream.device("pve1", "completed").await;
        sync.read_to("devices: Synced device pve1").await;
        sync.signal(signal).await;
        stream.wait_disconnected().await;
        let (code, _, errors) = sync.ended().await;
        assert_eq!(code, Some(3), "{errors}");
        assert!(errors.contains("Cancelling the sync. Ctrl-C again leaves at once."), "{errors}");
        assert_eq!(last_job(&bridge).await["outcome"], "cancelled");
    }
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_at_once() {
    let mut backend = ManualBackend::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = secret_file(&folder, TOKEN);
    let settings = [("admin_token_file", token.to_str().unwrap())];
    let bridge = Process::start(&folder.path().join("data"), backend.address, &settings);
    let mut sync = Sync::start(on_bridge(bridge.admin, &["devices"]));
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    sync.read_to("devices: Synced device pve1").await;
    // It does not answer any more.
    bridge.pause();
    sync.signal("INT").await;
    assert_eq!(sync.error().await, "Cancelling the sync. Ctrl-C again leaves at once.");
    sync.signal("INT").await;
    let (code, _, errors) = sync.ended().await;
    assert_eq!(code, Some(130), "{errors}");
    assert!(errors.contains("which may not have been cancelled"), "{errors}");
}

#[tokio::test]
async fn ctrl_c_leaves_a_sync_that_was_running_before() {
    let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
    let actor = [("X-Proxbox-Actor", "anna")];
    let id = bridge.admin_request("POST", "/sync/devices/", &actor).await.json()["id"].clone();
    let mut stream = backend.next_stream().await;
    let mut sync = Sync::start(on_bridge(bridge.admin, &["devices"]));
    stream.device("pve1", "completed").await;
    let printed = sync.read_to("devices: Synced device pve1").await;
    let greeting = format!("devices: Attached to job {}, which anna started at ", id.as_str().unwrap());
    assert!(printed[0].starts_with(&greeting), "{printed:?}");
    sync.signal("INT").await;
    let (code, _, errors) = sync.ended().await;
    assert_eq!(code, Some(130), "{errors}");
    assert!(errors.contains("which was there before and goes on"), "{errors}");
    stream.complete().await;
    let job =
        poll_until(async || Some(last_job(&bridge).await).filter(|job| !job["outcome"].is_null())).await;
    assert_eq!((&job["id"], &job["outcome"]), (&id, &"completed".into()));
}

#[tokio::test]
async fn a_stream_that_is_cut_is_resumed_and_no_event_is_printed_twice_or_lost() {
    let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
    let between = Forwarder::new(bridge.admin).await;
    let mut sync = Sync::start(on_bridge(between.address, &["devices"]));
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    let mut printed = sync.read_to("devices: Synced device pve1").await;
    between.cut();
    assert!(sync.error().await.starts_with("Resuming the stream: the connection to http://127.0.0.1:"));
    stream.device("pve2", "completed").await;
    printed.extend(sync.read_to("devices: Synced device pve2").await);
    between.cut();
    stream.complete().await;
    let (code, rest, errors) = sync.ended().await;
    assert_eq!(code, Some(0), "{errors}");
    printed.extend(rest.lines().map(str::to_owned));
    assert!(printed.remove(0).starts_with("devices: Started job "));
    assert_eq!(
        printed,
        [
            "devices: Starting devices synchronization.",
            "devices: Synced device pve1",
            "devices: Synced device pve2",
            "devices: Devices synchronization finished.",
            "devices: Devices sync completed. 2 objects: 2 completed.",
            "devices: stream completed",
        ]
    );
}

#[tokio::test]
async fn a_stream_that_cannot_be_resumed_is_2() {
    let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
    let between = Forwarder::new(bridge.admin).await;
    let mut sync = Sync::start(on_bridge(between.address, &["devices", "--retry-for", "300ms"]));
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    sync.read_to("devices: Synced device pve1").await;
    drop(between);
    let (code, output, errors) = sync.ended().await;
    assert_eq!((code, output.as_str()), (Some(2), ""), "{errors}");
    assert!(
        errors.contains("proxbox-bridge: the stream was lost and could not be resumed: cannot connect"),
        "{errors}"
    );
    assert_eq!(last_job(&bridge).await["status"], "running");
}

#[tokio::test]
async fn a_bridge_that_was_restarted_tells_how_the_sync_ended() {
    let mut backend = ManualBackend::start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder), ("limits.drain", "0s")];
    let config = || crate::support::bridge::config(backend.address, &settings);
    let (first, second) = (config(), config());
    let bridge = TestBridge::start(first).await;
    let between = Forwarder::new(bridge.admin).await;
    let mut sync = Sync::start(on_bridge(between.address, &["devices"]));
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    sync.read_to("devices: Synced device pve1").await;
    between.cut();
    between.forward_to(NOWHERE);
    bridge.stop().await;
    let bridge = TestBridge::start(second).await;
    between.forward_to(bridge.admin);
    let (code, output, errors) = sync.ended().await;
    assert_eq!(code, Some(1), "{errors}");
    assert!(output.starts_with("devices: "), "{output}");
    assert!(errors.contains("proxbox-bridge: the sync failed: ") && errors.contains("stop"), "{errors}");
}

#[tokio::test]
async fn a_detached_sync_is_started_and_its_job_is_printed() {
    let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
    let (code, output, errors) = ended(on_bridge(bridge.admin, &["devices", "--detach"])).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let job = last_job(&bridge).await;
    assert_eq!(job["id"], output.trim_end());
    let (_, again, _) = ended(on_bridge(bridge.admin, &["devices", "--detach", "--json"])).await;
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap()["id"], job["id"]);
    backend.next_stream().await.complete().await;
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_the_command_and_not_the_sync() {
    let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
    let mut sync = Sync::start(on_bridge(bridge.admin, &["devices"]));
    let mut stream = backend.next_stream().await;
    sync.read_to("devices: Starting devices synchronization.").await;
    drop(sync.output);
    // A process that another test has just started may hold the pipe open until it runs its program.
    let state = tokio::sync::Mutex::new((&mut stream, sync.child, 0));
    let status = poll_until(async || {
        let (stream, child, number) = &mut *state.lock().await;
        *number += 1;
        stream.device(&format!("pve{number}"), "completed").await;
        child.try_wait().unwrap()
    });
    assert_eq!(status.await.code(), Some(0));
    stream.complete().await;
    poll_until(async || (last_job(&bridge).await["outcome"] == "completed").then_some(())).await;
}

#[tokio::test]
async fn a_sync_that_is_refused_is_1_and_the_answer_is_printed() {
    let bridge = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let admin = bridge.front.admin;
    let mut without_token = command(&["devices", "--admin-listen", &admin.to_string()]);
    without_token.env_remove("PROXBOX_BRIDGE_ADMIN_TOKEN");
    for (command, code, text) in [
        (without_token, 1, "No token was sent: admin_token_file is not set"),
        (
            on_bridge(NOWHERE, &["devices"]),
            1,
            "cannot connect to the bridge at http://127.0.0.1:1/sync/devices/ (admin_listen)",
        ),
        (on_bridge(admin, &["devices", "--backend", "other"]), 1, "There is no backend with this name."),
        (on_bridge(admin, &["sdn"]), 1, "This backend cannot synchronise SDN."),
        (on_bridge(admin, &["device"]), 64, "invalid value 'device' for '<KIND>'"),
        (on_bridge(admin, &["devices", "--detach", "--wait"]), 64, "cannot be used with"),
    ] {
        let (ended, output, errors) = ended(command).await;
        assert_eq!(ended, Some(code), "{output}{errors}");
        assert!(errors.contains(text), "{errors}");
    }
}

/// `sync` on the backend at `address`, without a bridge.
async fn direct(address: SocketAddr, key: Option<&Path>, args: &[&str]) -> Ended {
    let url = format!("http://{address}");
    let mut command = command(&[args, &["--url", &url]].concat());
    if let Some(key) = key {
        command.arg("--key-file").arg(key);
    }
    ended(command).await
}

#[tokio::test]
async fn a_backend_without_a_bridge_is_synced_in_the_way_that_its_release_supports() {
    let folder = tempfile::tempdir().unwrap();
    let key = secret_file(&folder, KEY);
    for (release, key, counts) in
        [(OLD, None, "3 objects: 3 unconfirmed."), (NEW, Some(key.as_path()), "3 objects: 3 completed.")]
    {
        let backend = replayed(recordings(release, &[]), fast()).await;
        let (code, output, errors) = direct(backend.local_addr(), key, &["devices"]).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{output}");
        assert!(output.starts_with("devices: Starting devices synchronization.\n"), "{output}");
        assert!(output.contains("devices: Processing device pve1\n"), "{output}");
        let end = format!("devices: Devices sync completed. {counts}\ndevices: stream completed\n");
        assert!(output.ends_with(&end), "{output}");
    }
}

#[tokio::test]
async fn without_a_bridge_failures_have_their_exit_codes_too() {
    let backend = replayed(recordings(NEW, &[]), fast()).await;
    let (code, _, errors) = direct(backend.local_addr(), None, &["devices"]).await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("the sync failed: API key required."), "{errors}");
    let (code, _, errors) = direct(NOWHERE, None, &["devices"]).await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("the sync failed: ") && errors.contains("127.0.0.1:1"), "{errors}");

    let mut backend = ManualBackend::start().await;
    let url = format!("http://{}", backend.address);
    let mut sync = Sync::start(command(&["devices", "--url", &url]));
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    sync.read_to("devices: Synced device pve1").await;
    sync.signal("INT").await;
    stream.wait_disconnected().await;
    assert_eq!(sync.ended().await.0, Some(3));
}

#[tokio::test]
async fn the_configured_key_is_sent_to_its_own_backend_alone_and_a_given_key_to_any() {
    let backend = replayed(recordings(NEW, &[]), fast()).await;
    let url = format!("http://{}", backend.local_addr());
    let folder = tempfile::tempdir().unwrap();
    let [right, wrong] = [("right", KEY), ("wrong", "another-key-of-a-client")].map(|(name, key)| {
        let path = folder.path().join(name);
        std::fs::write(&path, key).unwrap();
        path
    });
    let block = |url: &str, key: &Path, hosts: &str| {
        format!("[[backend]]\nurl = \"{url}\"\napi_key_file = {key:?}\nhosts = [{hosts}]\n")
    };
    let other = block("http://127.0.0.1:1", &right, "");
    let several = other.clone() + &block("http://127.0.0.1:2", &right, "\"lab.example\"");
    let same = block(&url, &right, "");
    let same_of_several = same.clone() + &block("http://127.0.0.1:2", &wrong, "\"lab.example\"");
    for (config, key, code, text) in [
        (&same, None, 0, ""),
        (&same_of_several, None, 0, ""),
        (&other, None, 1, "API key required."),
        (&several, None, 1, "API key required."),
        (&several, Some(&right), 0, ""),
    ] {
        let file = folder.path().join("bridge.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = command(&["devices", "--url", &url, "--config", file.to_str().unwrap()]);
        command.args(key.map(|key| format!("--key-file={}", key.display())));
        let (ended, output, errors) = ended(command).await;
        assert_eq!(ended, Some(code), "{config}{output}{errors}");
        assert!(errors.contains(text), "{config}{errors}");
    }
}

#[tokio::test]
async fn a_given_key_comes_before_the_configured_key_of_the_same_backend() {
    let backend = Backend::start(|_| async { answer(404, &[], "{}") }).await;
    let url = format!("http://{}", backend.address);
    let folder = tempfile::tempdir().unwrap();
    let [configured, given] = ["configured", "given"].map(|name| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{name}-{KEY}")).unwrap();
        path
    });
    for (key, sent) in [(None, "configured"), (Some(&given), "given")] {
        let before = backend.requests().len();
        let mut command = command(&["devices", "--url", &url]);
        command
            .env("PROXBOX_BRIDGE_BACKEND_URL", &url)
            .env("PROXBOX_BRIDGE_BACKEND_API_KEY_FILE", &configured);
        command.args(key.map(|key| format!("--key-file={}", key.display())));
        let (code, _, errors) = ended(command).await;
        assert_eq!(code, Some(1), "{errors}");
        let requests = backend.requests().split_off(before);
        let keys: Vec<&str> =
            requests.iter().filter_map(|request| request.header("x-proxbox-api-key")).collect();
        assert!(!keys.is_empty(), "{requests:?}");
        assert!(keys.iter().all(|key| *key == format!("{sent}-{KEY}")), "{keys:?}");
    }
}

#[tokio::test]
async fn no_character_of_an_answer_controls_the_terminal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = listener.local_addr().unwrap();
    let command = tokio::spawn(ended(on_bridge(admin, &["devices"])));
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut request = [0; 4096];
    tokio::io::AsyncReadExt::read(&mut connection, &mut request).await.unwrap();
    let body = r#"{"message":"No\u001b[2J","detail":"\u202eno\u009b31m"}"#;
    let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    tokio::io::AsyncWriteExt::write_all(&mut connection, answer.as_bytes()).await.unwrap();
    let (_, _, errors) = command.await.unwrap();
    assert!(errors.contains("403 Forbidden: No [2J  no 31m"), "{errors:?}");
}
