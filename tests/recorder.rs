//! `record` in its own process: a backend that is killed, a recorder that is stopped or killed, and `replay --check`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proxbox_bridge::recording::{RecordedEvent, Recording};

use crate::support::bridge::{Client, DEVICES, WITH_KEY};
use crate::support::process::Process;

/// The events that the backend sends before it stalls.
const SENT: usize = 3;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings/0.0.11.post2")
}

/// A backend that stalls in every stream, and a recorder that writes to `out`.
fn started(out: &Path) -> (Process, Process) {
    started_with(out, &[])
}

/// The same with further options of the recorder, whose temporary folder is beside `out`.
fn started_with(out: &Path, options: &[&str]) -> (Process, Process) {
    let fixtures = fixtures();
    let stall = SENT.to_string();
    let replay = ["replay", fixtures.to_str().unwrap(), "--listen", "127.0.0.1:0", "--speed", "max"];
    let mut backend = Process::spawn(command(&[&replay[..], &["--stall-after", &stall]].concat()));
    backend.address = backend.listening();
    let url = format!("http://{}", backend.address);
    let record = ["record", "--backend", &url, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut recorder = command(&[&record[..], &["--out", out.to_str().unwrap()], options].concat());
    recorder.env("TMPDIR", out.parent().unwrap());
    let mut recorder = Process::spawn(recorder);
    recorder.address = recorder.listening();
    (backend, recorder)
}

/// A client of a stream, which has read an event of the backend.
async fn client(recorder: &Process) -> Client {
    let mut client = Client::send(recorder.address, "GET", DEVICES, &WITH_KEY).await;
    client.head().await;
    client.read_until("Processing device pve1").await;
    client
}

/// The bytes of all bodies of a recording.
fn body(recording: &Recording) -> Vec<u8> {
    let bodies = recording.frames.iter().filter_map(|frame| match &frame.event {
        RecordedEvent::Body(bytes) => Some(bytes.to_vec()),
        _ => None,
    });
    bodies.collect::<Vec<_>>().concat()
}

/// The recordings in `folder` whose name ends with `suffix`, hidden ones included.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect()
}

/// The recording of the stream in `folder`, with the end of its file's name.
fn stream(folder: &Path, suffix: &str) -> Recording {
    let recordings = files(folder, suffix).into_iter().map(|path| Recording::read(path).unwrap());
    let is_stream = |it: &Recording| it.request().is_some_and(|request| request == ("GET", DEVICES));
    recordings.into_iter().find(is_stream).unwrap()
}

/// All that the backend sends before it stalls.
fn sent() -> Vec<u8> {
    let whole = body(&Recording::read(fixtures().join("sse/devices.ndjson")).unwrap());
    let text = String::from_utf8(whole).unwrap();
    text.split_inclusive("\n\n").take(SENT).collect::<String>().into_bytes()
}

fn signal(process: &Process, name: &str) {
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

/// Stops the recorder, and checks what it wrote. Returns the recording of the stream.
fn completed(recorder: Process, out: &Path, name: &str) -> Recording {
    signal(&recorder, name);
    let (code, log) = recorder.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(files(out, ".part").is_empty(), "nothing is incomplete");
    for path in files(out, "") {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    let checked = command(&["replay", "--check", out.to_str().unwrap()]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    stream(out, ".ndjson")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_killed_leaves_all_that_it_sent() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("recorded");
    let (backend, recorder) = started(&out);
    let mut client = client(&recorder).await;
    backend.kill();
    client.answer_body().await;
    let recording = completed(recorder, &out, "TERM");
    assert_eq!(recording.frames.last().unwrap().event, RecordedEvent::Cut);
    assert_eq!(String::from_utf8(body(&recording)), String::from_utf8(sent()));
    assert_eq!(recording.header.backend, "0.0.11.post2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorder_that_is_interrupted_completes_its_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let (_backend, recorder) = started(folder.path());
    let client = client(&recorder).await;
    signal(&recorder, "INT");
    let mut recorder = recorder;
    recorder.read_to("Draining: no new job starts.");
    // The second one ends the drain.
    let recording = completed(recorder, folder.path(), "INT");
    drop(client);
    assert_eq!(recording.frames.last().unwrap().event, RecordedEvent::Open);
    assert_eq!(body(&recording), sent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorder_that_is_killed_leaves_what_it_received_in_hidden_files() {
    let folder = tempfile::tempdir().unwrap();
    let (_backend, recorder) = started(folder.path());
    let client = client(&recorder).await;
    recorder.kill();
    drop(client);
    assert_eq!(body(&stream(folder.path(), ".part")), sent());
    let checked = command(&["replay", "--check", folder.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(checked.status.code(), Some(1));
    let text = String::from_utf8(checked.stdout).unwrap();
    for part in files(folder.path(), ".part") {
        assert!(text.contains(&format!("{}: not complete", part.display())), "{text}");
    }
    let again = ["record", "--backend", "http://127.0.0.1:1", "--out", folder.path().to_str().unwrap()];
    let refused = command(&again).output().unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && text.contains("it is not empty; name a new folder"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_that_cannot_be_written_without_names_stay_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("recorded");
    let (backend, recorder) = started_with(&out, &["--anonymise"]);
    let mut client = client(&recorder).await;
    backend.kill();
    client.answer_body().await;
    fs::remove_dir(&out).unwrap();
    signal(&recorder, "TERM");
    let (code, log) = recorder.ended();
    let kept = files(folder.path(), "").pop().unwrap();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains(&format!("the recordings with the original names are in {}", kept.display())),
        "{log}"
    );
    assert_eq!(body(&stream(&kept, ".ndjson")), sent());
}

#[test]
fn a_damaged_recording_is_reported_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let sound = fs::read_to_string(fixtures().join("sse/devices.ndjson")).unwrap();
    let file = folder.path().join("devices.ndjson");
    fs::write(&file, sound.replace("\"kind\":\"end\"", "\"kind\":\"ending\"").replacen("GET", "\\", 1))
        .unwrap();
    fs::write(folder.path().join("sound.ndjson"), &sound).unwrap();
    for path in [file.as_path(), folder.path()] {
        let checked = command(&["replay", "--check", path.to_str().unwrap()]).output().unwrap();
        assert_eq!(checked.status.code(), Some(1));
        let text = String::from_utf8(checked.stdout).unwrap();
        let last = sound.lines().count();
        for expected in [
            "2: a frame is expected: ".to_owned(),
            format!("{last}: a frame is expected: unknown variant `ending`"),
        ] {
            assert!(text.contains(&format!("{}:{expected}", file.display())), "{text}");
        }
        assert!(!text.contains("sound.ndjson"), "{text}");
    }
    let netbox = fixtures().join("../../netbox");
    let nothing = command(&["replay", "--check", netbox.to_str().unwrap()]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(1));
}
