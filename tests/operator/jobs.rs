//! `proxbox-bridge jobs`: over the API of a running bridge, and from the ledger of a stopped one.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::secrets::{SECRETS, files, hides_all, in_pieces, repeating, request_with_key};
use super::{RunningBridge, ledger};
use crate::support::bridge::{
    Client, DEVICES, FULL_UPDATE, Forwarder, NOWHERE, STORAGE, WITH_KEY, fast, poll_until, recordings,
    replayed,
};
use crate::support::credentials::{assert_hidden, planted};
use crate::support::manual::ManualBackend;
use crate::support::pty::Program;
use crate::support::scripted::{Backend, answer};

/// Where the command finds a bridge, or its ledger.
struct Place {
    admin: SocketAddr,
    data: PathBuf,
    backend: SocketAddr,
    /// Further settings of the bridge.
    settings: Vec<(&'static str, String)>,
}

impl Place {
    fn of(bridge: &RunningBridge, backend: SocketAddr) -> Self {
        Self {
            admin: bridge.process.admin,
            data: bridge._data.path().to_owned(),
            backend,
            settings: Vec::new(),
        }
    }

    /// The command, without a `COLUMNS` or any other variable.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
        command.arg("jobs").args(args).env_clear().stdin(Stdio::null());
        command.args(["--admin-listen", &self.admin.to_string()]);
        command.arg("--data-dir").arg(ledger(&self.data));
        command.arg("--admin-token-file").arg(self.data.join("token"));
        command.env("PROXBOX_BRIDGE_BACKEND_URL", format!("http://{}", self.backend));
        command.env("PROXBOX_BRIDGE_BACKEND_NAME", "lab");
        for (key, value) in &self.settings {
            command.env(format!("PROXBOX_BRIDGE_{}", key.replace('.', "_").to_uppercase()), value);
        }
        command
    }

    /// Runs the command, which succeeds. Returns its output and what it wrote to standard error.
    async fn run(&self, args: &[&str]) -> (String, String) {
        let (code, output, notes) = finished(self.command(args)).await;
        assert_eq!(code, Some(0), "{args:?}: {notes}");
        (output, notes)
    }

    /// Runs the command, which fails, and returns its error.
    async fn failure(&self, args: &[&str]) -> String {
        let (code, _, notes) = finished(self.command(args)).await;
        assert_eq!(code, Some(1), "{args:?}: {notes}");
        notes
    }

    async fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["--json"]].concat()).await.0).unwrap()
    }
}

/// The exit code, the output and the errors of a command. Backends of the test answer meanwhile.
async fn finished(mut command: Command) -> (Option<i32>, String, String) {
    let output = blocking(move || command.output().unwrap()).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Waits for what blocks.
async fn blocking<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(wait).await.unwrap()
}

/// Runs a sync to its end, and returns the id of its job.
async fn synced(bridge: &RunningBridge, target: &str) -> String {
    let answer = Client::send(bridge.process.address, "GET", target, &WITH_KEY).await.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.header("x-proxbox-bridge-job").unwrap().to_owned();
    let job = format!("/jobs/{id}");
    poll_until(async || bridge.admin("GET", &job).await.json()["completed"].is_string().then_some(())).await;
    id
}

#[tokio::test]
async fn the_ledger_of_a_stopped_bridge_shows_what_its_api_showed() {
    let backend = replayed(recordings("0.0.11.post2", &[]), fast()).await;
    let bridge =
        RunningBridge::start(backend.local_addr(), &[("jobs.recording", "on"), ("backend.name", "lab")]);
    let place = Place::of(&bridge, backend.local_addr());
    let full = synced(&bridge, FULL_UPDATE).await;
    let devices = synced(&bridge, DEVICES).await;
    let short = &full[..18];
    let commands: [&[&str]; 9] = [
        &["list"],
        &["list", "--json"],
        &["list", "--csv", "--failed", "--outcome", "completed", "--outcome", "errored", "--backend", "lab"],
        &["list", "--csv", "--kind", "devices", "--since", "1h 1m", "--limit", "1"],
        &["show", short],
        &["show", short, "--json"],
        &["failed", short, "--json"],
        &["failed", short, "--group", "error"],
        &["failed", short, "--csv"],
    ];
    let mut from_api = Vec::new();
    for command in commands {
        let (output, notes) = place.run(command).await;
        assert_eq!(notes, "", "{command:?}");
        from_api.push(output);
    }
    for (output, part) in from_api.iter().zip([
        "completed",
        &devices,
        &full,
        &devices,
        "Synced device pve1",
        "\"log_entries\":",
        "\"failed_total\":1",
        "the backend counts it as failed, and does not say why",
        "number,time,object,name,cluster,owner,count,error\r\n1,",
    ]) {
        assert!(output.contains(part), "no {part}: {output}");
    }
    assert_eq!(from_api[2].lines().count(), 2, "the devices have no failed object: {}", from_api[2]);
    assert_eq!(from_api[3].lines().count(), 2, "one kind: {}", from_api[3]);

    let RunningBridge { process, _data: data } = bridge;
    process.terminate();
    assert_eq!(process.ended().0, Some(0));
    let before = files(&ledger(data.path()));
    for (command, expected) in commands.iter().zip(&from_api) {
        let (output, notes) = place.run(command).await;
        assert_eq!(output, *expected, "{command:?}");
        let directory = ledger(data.path());
        let note = format!(
            "No bridge answers at http://{}: read from the ledger in {}.\n",
            place.admin,
            directory.display()
        );
        assert_eq!(notes, note, "{command:?}");
    }
    for command in [&["watch"][..], &["watch", &full], &["cancel", &full]] {
        let error = place.failure(command).await;
        assert!(error.contains("cannot connect to the bridge at"), "{command:?}: {error}");
    }
    assert!(files(&ledger(data.path())) == before, "the directory has changed");
}

#[tokio::test]
async fn a_backend_is_listed_by_its_name_and_one_that_is_no_longer_configured_by_its_url() {
    let replay = async || replayed(recordings("0.0.11.post2", &[]), fast()).await;
    let (former, backend) = (replay().await, replay().await);
    let [former_url, url] = [&former, &backend].map(|replay| format!("http://{}", replay.local_addr()));
    let settings = [("backend.name", "lab")];
    let bridge = RunningBridge::start(former.local_addr(), &settings);
    synced(&bridge, DEVICES).await;
    let RunningBridge { process, _data: data } = bridge;
    process.terminate();
    assert_eq!(process.ended().0, Some(0));

    let bridge = RunningBridge::with_data(data, backend.local_addr(), &settings);
    let id = synced(&bridge, DEVICES).await;
    let place = Place::of(&bridge, backend.local_addr());
    let check = async || {
        let (table, _) = place.run(&["list"]).await;
        assert!(table.contains(" lab ") && !table.contains(&url), "{table}");
        assert!(table.contains(&former_url), "{table}");
        let (csv, _) = place.run(&["list", "--csv"]).await;
        for fields in [format!(",{url},lab,"), format!(",{former_url},,")] {
            assert!(csv.contains(&fields), "no {fields}: {csv}");
        }
        let listed = place.json(&["list"]).await;
        let names = [0, 1].map(|index| listed["results"][index]["backend_name"].clone());
        assert_eq!(names, [json!("lab"), Value::Null], "{listed}");
        let (shown, _) = place.run(&["show", &id]).await;
        assert!(shown.contains(&format!("lab, {url}, ")), "{shown}");
    };
    check().await;
    let RunningBridge { process, _data } = bridge;
    process.terminate();
    assert_eq!(process.ended().0, Some(0));
    check().await;
}

#[tokio::test]
async fn a_job_is_found_by_the_beginning_of_its_id_if_no_other_has_that() {
    let backend = replayed(recordings("0.0.11.post2", &[]), fast()).await;
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    let place = Place::of(&bridge, backend.local_addr());
    let (mut first, mut second) = (synced(&bridge, DEVICES).await, synced(&bridge, DEVICES).await);
    if first[..8] != second[..8] {
        // The time of 65 seconds has these characters.
        (first, second) = (second, synced(&bridge, DEVICES).await);
    }
    for id in [&first, &second] {
        assert_eq!(place.json(&["show", &id[..18].to_uppercase()]).await["id"], **id);
        assert_eq!(place.json(&["show", id]).await["id"], **id);
    }
    let error = place.failure(&["show", &first[..8]]).await;
    assert!(error.contains(&format!("such as {first} and {second}")), "{error}");
    let error = place.failure(&["show", "ffffffff"]).await;
    assert!(error.contains("the id of no job begins with ffffffff"), "{error}");
    for short in ["", &first[..7]] {
        let error = place.failure(&["cancel", short]).await;
        assert!(error.contains("at least 8 characters"), "{error}");
    }
    let error = place.failure(&["show", "../x"]).await;
    assert!(error.contains("\"../x\" is not the id of a job"), "{error}");
    let older = place.json(&["list", "--before", &second[..18]]).await;
    assert_eq!(older["results"][0]["id"], *first);
    let error = place.failure(&["cancel", &first]).await;
    assert!(error.contains("409 Conflict") && error.contains("This job has ended."), "{error}");
}

#[tokio::test]
async fn tables_fit_and_have_no_colours_where_there_is_no_terminal() {
    let backend = replayed(recordings("0.0.11.post2", &[]), fast()).await;
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    let place = Place::of(&bridge, backend.local_addr());
    let id = synced(&bridge, FULL_UPDATE).await;
    for command in [&["list"][..], &["show", &id], &["failed", &id], &["failed", &id, "--group", "error"]] {
        for columns in [40, 50, 80, 200] {
            let mut program = place.command(command);
            if columns != 80 {
                program.env("COLUMNS", columns.to_string());
            }
            let (code, output, error) = finished(program).await;
            assert_eq!(code, Some(0), "{command:?} {columns}: {error}");
            let longest = output.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= columns, "{longest} in {columns}: {output}");
            assert!(!output.contains('\u{1b}'), "{output:?}");
            if command == ["list"] {
                assert!(output.lines().count() <= 3, "the row has one line: {output}");
                assert!(output.contains("full-update ") && output.contains(" completed "), "{output}");
            }
        }
    }
    for (no_color, is_coloured) in [("", true), ("1", false)] {
        let mut command = place.command(&["list"]);
        command.env("NO_COLOR", no_color);
        let (status, text) = Program::in_terminal(command, 80, 24).ended();
        assert!(status.success() && text.contains("completed"), "{text}");
        assert_eq!(text.contains("\u{1b}["), is_coloured, "{text:?}");
    }
}

#[tokio::test]
async fn without_a_bridge_and_without_a_ledger_the_error_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let place =
        Place { admin: NOWHERE, data: folder.path().to_owned(), backend: NOWHERE, settings: Vec::new() };
    let error = place.failure(&["list"]).await;
    assert!(error.contains("no bridge answers at http://127.0.0.1:1: there is no ledger in"), "{error}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
    command.env_clear().args(["jobs", "list", "--admin-listen", "127.0.0.1:1"]);
    let (code, _, error) = finished(command).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("data_dir") && error.contains("cannot connect"), "{error}");
}

/// A copy of the ledger as a killed bridge leaves it, and while the bridge has it open.
fn copied(bridge: &RunningBridge) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for (path, _) in files(&ledger(bridge._data.path())) {
        let path = Path::new(&path);
        if path.parent() == Some(&ledger(bridge._data.path())) && !path.ends_with("lock") {
            std::fs::copy(path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

#[tokio::test]
async fn a_job_that_had_not_ended_is_unfinished_in_the_comma_separated_values_of_a_ledger() {
    let mut backend = ManualBackend::start().await;
    let bridge = RunningBridge::start(backend.address, &[]);
    let queued = bridge.admin("POST", "/sync/devices/").await.json();
    let id = queued["id"].as_str().unwrap();
    let _stream = backend.next_stream().await;
    let copy = copied(&bridge);
    for args in [&["list", "--csv"][..], &["show", id, "--csv"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
        command.env_clear().arg("jobs").args(args).args(["--admin-listen", "127.0.0.1:1", "--data-dir"]);
        command.arg(copy.path());
        let (code, output, error) = finished(command).await;
        assert_eq!(code, Some(0), "{error}");
        assert!(
            output.contains(&format!("\r\n{id},devices,,")) && output.contains(",unfinished,"),
            "{output}"
        );
    }
}

#[tokio::test]
async fn a_copied_ledger_is_read_without_any_configuration() {
    let backend = replayed(recordings("0.0.11.post2", &[]), fast()).await;
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    let id = synced(&bridge, DEVICES).await;
    let copy = copied(&bridge);
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
    command.env_clear().args(["jobs", "list", "--csv", "--admin-listen", "127.0.0.1:1", "--data-dir"]);
    let (code, output, error) = finished({
        command.arg(copy.path());
        command
    })
    .await;
    assert_eq!(code, Some(0), "{error}");
    assert!(output.contains(&id), "{output}");
}

#[tokio::test]
async fn watch_draws_the_jobs_of_a_bridge_as_they_change_and_cancel_ends_one() {
    let mut backend = ManualBackend::start().await;
    let bridge = RunningBridge::start(backend.address, &[]);
    let place = Place::of(&bridge, backend.address);
    let mut screen = Program::in_terminal(place.command(&["watch"]), 90, 20);
    let mut lines = Program::piped(place.command(&["watch"]));
    let mut screen = blocking(move || {
        screen.read_to("No job yet.");
        screen
    })
    .await;
    let queued = bridge.admin("POST", "/sync/devices/").await.json();
    let id = queued["id"].as_str().unwrap().to_owned();
    let stream = backend.next_stream().await;
    let (mut screen, mut lines) = blocking(move || {
        screen.read_to("running");
        lines.read_to("  devices  running  0/0 objects\n");
        (screen, lines)
    })
    .await;
    assert!(screen.forget().contains("\u{1b}[J"), "it draws over what it drew");

    let followed = Program::in_terminal(place.command(&["watch", &id]), 80, 24);
    let (output, _) = place.run(&["cancel", &id[..18]]).await;
    assert_eq!(output, format!("Job {id} is being cancelled.\n"));
    let (status, text) = blocking(move || {
        screen.read_to("cancelled");
        lines.read_to(&format!("{id}  devices  cancelled"));
        followed.ended()
    })
    .await;
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("did not complete"), "{text}");
    drop(stream);
}

#[tokio::test]
async fn watch_follows_the_log_of_a_job_to_its_end() {
    let mut backend = ManualBackend::start().await;
    let bridge = RunningBridge::start(backend.address, &[]);
    let place = Place::of(&bridge, backend.address);
    let queued = bridge.admin("POST", "/sync/devices/").await.json();
    let id = queued["id"].as_str().unwrap().to_owned();
    let mut stream = backend.next_stream().await;
    let mut screen = Program::in_terminal(place.command(&["watch", &id[..18]]), 80, 24);
    stream.device("pve1", "progress").await;
    let screen = blocking(move || {
        screen.read_to("Processing device pve1");
        screen
    })
    .await;
    stream.device("pve1", "failed").await;
    stream.device("pve2", "completed").await;
    stream.complete().await;
    let (status, text) = blocking(move || screen.ended()).await;
    assert!(status.success(), "{text}");
    for part in [
        // Progress is overwritten.
        "\r\u{1b}[2Kdevice: Processing device pve1\r\u{1b}[2K",
        "\u{1b}[33mdevice: Failed device pve1",
        "\u{1b}[0m\r\n\r\u{1b}[2Kdevice: Synced device pve2\r\n",
    ] {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
    let (lines, _) = place.run(&["watch", &id]).await;
    assert!(lines.contains("\ndevice: Synced device pve2\n") && !lines.contains('\u{1b}'), "{lines:?}");
    let (events, _) = place.run(&["watch", &id, "--json"]).await;
    let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(last["ok"], true, "{events}");
}

#[tokio::test]
async fn watch_goes_on_after_a_cut_connection_and_prints_no_event_twice() {
    let mut backend = ManualBackend::start().await;
    let bridge = RunningBridge::start(backend.address, &[]);
    let between = Forwarder::new(bridge.process.admin).await;
    let place = Place { admin: between.address, ..Place::of(&bridge, backend.address) };
    let queued = bridge.admin("POST", "/sync/devices/").await.json();
    let mut stream = backend.next_stream().await;
    let mut lines = Program::piped(place.command(&["watch", queued["id"].as_str().unwrap()]));
    stream.device("pve1", "completed").await;
    let mut lines = blocking(move || {
        lines.read_to("device: Synced device pve1\n");
        lines
    })
    .await;
    between.cut();
    let lines = blocking(move || {
        lines.read_to("The connection to the bridge was lost. Trying again.\n");
        lines
    })
    .await;
    stream.device("pve2", "completed").await;
    stream.complete().await;
    let (status, text) = blocking(move || lines.ended()).await;
    assert!(status.success(), "{text}");
    for line in ["device: Synced device pve1\n", "device: Synced device pve2\n"] {
        assert_eq!(text.matches(line).count(), 1, "{text}");
    }
}

#[tokio::test]
async fn an_export_has_all_of_a_job_and_no_key() {
    // The fourth is pushed by a plugin.
    const KNOWN: [&str; 4] = [SECRETS[0], SECRETS[1], SECRETS[2], SECRETS[4]];
    const READ: &str = "read-only-0123456789abcdef";
    const SIGNING: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const HOOK: &str = "T0123/hook-path-0123456789abcdef";
    const UNKNOWN: [&str; 3] = ["9f8e7d6c5b4a39281706", "unknown-p4ssw0rd", "unknown-api-k3y"];
    let backend = Backend::start(|request| async move {
        match request.uri().path() {
            "/version" => answer(200, &[], "{\"version\": \"0.0.30.post2\"}"),
            DEVICES => repeating(&KNOWN),
            STORAGE => {
                let [token, password, key] = UNKNOWN;
                let message = format!(
                    "NetBox refused 'Token {token}', https://root:{password}@pve/ and {{\"api_key\": \"{key}\"}}"
                );
                let step = json!({ "step": "storage", "status": "failed", "message": &message, "error": &message, "rowid": "a" });
                let end = json!({ "ok": false, "message": message });
                in_pieces(&format!(
                    "event: step\ndata: {step}\n\n{}event: complete\ndata: {end}\n\n",
                    planted_steps()
                ))
            }
            _ => answer(200, &[], "{}"),
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (read, signing, configured) = (file("read", READ), file("signing", SIGNING), file("key", SECRETS[2]));
    let hook = format!("http://127.0.0.1:1/{HOOK}");
    let settings = [
        ("jobs.recording", "on"),
        ("shims.api_key_file", &configured),
        ("admin_read_token_file", &read),
        ("notify.url", &hook),
        ("notify.secret_file", &signing),
        ("notify.allow_local", "on"),
    ];
    let bridge = RunningBridge::start(backend.address, &settings);
    let place = Place {
        settings: settings.map(|(key, value)| (key, value.to_owned())).to_vec(),
        ..Place::of(&bridge, backend.address)
    };
    request_with_key(&bridge, &format!("{DEVICES}?api_key={}", SECRETS[1])).await;
    let planted = planted();
    request_with_key(&bridge, &format!("{STORAGE}?api_key={}", planted[0].0)).await;
    let ids = poll_until(async || {
        let jobs = bridge.admin("GET", "/jobs").await.json()["results"].as_array()?.clone();
        let ended = jobs.iter().all(|job| job["completed"].is_string());
        ended.then(|| jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    })
    .await;

    let mut process = Some(bridge.process);
    for is_running in [true, false] {
        if !is_running {
            let process = process.take().unwrap();
            process.terminate();
            assert_eq!(process.ended().0, Some(0));
        }
        for id in &ids {
            let out = folder.path().join(format!("{id}-{is_running}.tar.gz"));
            let (output, notes) = place.run(&["export", &id[..18], "--out", out.to_str().unwrap()]).await;
            assert_eq!(output.trim_end(), out.to_str().unwrap());
            assert!(notes.contains("Look through it before you publish it."), "{notes}");
            let files = unpacked(&out);
            let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
            let expected = [
                "job.json", "log.txt", "events.txt", "failed.ndjson", "recording.ndjson", "versions.json",
                "configuration.toml",
            ];
            assert_eq!(names, expected.map(|name| format!("proxbox-bridge-job-{id}/{name}")));
            for (name, text) in &files {
                hides_all(&[&KNOWN[..], &UNKNOWN, &[READ, SIGNING, HOOK]].concat(), name, text);
                assert_hidden(planted.iter().map(|(secret, _)| secret.as_str()), name, text);
                assert!(!text.contains("hook-path"), "{name}: {text}");
            }
            let text = |at: usize| files[at].1.as_str();
            let job: Value = serde_json::from_str(text(0)).unwrap();
            assert_eq!(job["id"], **id);
            assert!(text(1).contains(" failure ") && text(2).contains("event: complete"), "{}", text(1));
            for file in [3, 4] {
                let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
                assert!(text(file).lines().all(is_json), "{}", text(file));
            }
            let versions: Value = serde_json::from_str(text(5)).unwrap();
            assert_eq!(versions["backend"]["version"], "0.0.30.post2", "{versions}");
            assert_eq!(versions["bridge"]["version"].is_string(), is_running, "{versions}");
            assert!(
                text(6).contains("api_key_file") && text(6).contains("recording = \"on\""),
                "{}",
                text(6)
            );
        }
    }
    // Also a key that the bridge did not know when it recorded the job.
    let newer = Place { settings: vec![("shims.api_key_file", file("newer", "0.0.30.post2"))], ..place };
    let out = folder.path().join("newer.tar.gz");
    newer.run(&["export", &ids[0], "--out", out.to_str().unwrap()]).await;
    for (name, text) in unpacked(&out) {
        assert!(!text.contains("0.0.30.post2"), "{name}: {text}");
    }
    let taken = folder.path().join("key");
    let error = newer.failure(&["export", &ids[0], "--out", taken.to_str().unwrap()]).await;
    assert!(error.contains("File exists"), "{error}");
}

/// The events of a failed object for every form of a credential.
fn planted_steps() -> String {
    let steps = planted().into_iter().enumerate().map(|(number, (_, message))| {
        let step = json!({ "step": "storage", "status": "failed", "message": &message, "error": &message,
            "rowid": format!("b{number}"), "payload": { "note": message } });
        format!("event: step\ndata: {step}\n\n")
    });
    steps.collect()
}

/// The files in a bundle.
fn unpacked(bundle: &Path) -> Vec<(String, String)> {
    let packed = std::fs::File::open(bundle).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), text)
    });
    entries.collect()
}
