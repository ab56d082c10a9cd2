//! The log: the content of its lines, and its filter.

use serde_json::{Value, json};

use super::{OLD, RunningBridge};
use crate::support::bridge::{Client, DEVICES, FULL_UPDATE, fast, poll_until, recordings, replayed};
use crate::support::manual::ManualBackend;
use crate::support::process::Process;
use crate::support::pty::Program;
use proxbox_bridge::replay::ReplayOptions;

#[tokio::test]
async fn every_line_of_a_job_says_which_it_is_whatever_the_filter() {
    for (filter, cut, wanted) in
        [("debug", None, "Job completed with unconfirmed objects."), ("warn", Some(10), "Job failed.")]
    {
        let options = ReplayOptions { cut_after: cut, ..fast() };
        let backend = replayed(recordings(OLD, &[]), options).await;
        let bridge = RunningBridge::start(backend.local_addr(), &[]);
        assert_eq!(bridge.admin("PUT", &format!("/log?filter={filter}")).await.status, 200);
        assert_eq!(bridge.get(FULL_UPDATE).await.status, 200);
        let jobs = bridge.admin("GET", "/jobs").await.json();
        let id = jobs["results"][0]["id"].as_str().unwrap().to_owned();
        bridge.process.terminate();
        let (code, log) = bridge.process.ended();
        assert_eq!(code, Some(0), "{log}");
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of_jobs = lines.iter().filter(|line| {
            let message = line["message"].as_str().unwrap();
            ["Job ", "Watcher ", "Client "].iter().any(|begin| message.starts_with(begin))
        });
        let mut messages = Vec::new();
        for line in of_jobs {
            let backend = backend.local_addr().to_string();
            assert_eq!((&line["span"], &line["job"]), (&json!("job"), &json!(id)), "of which job is {line}?");
            assert_eq!((&line["kind"], &line["backend"]), (&json!("full-update"), &json!(backend)));
            messages.push(line["message"].as_str().unwrap().to_owned());
        }
        assert!(messages.iter().any(|message| message == wanted), "{messages:?}");
        assert_eq!(messages.iter().any(|message| message == "Watcher connected."), filter == "debug");
    }
}

#[tokio::test]
async fn a_sync_that_the_backend_does_not_support_is_no_warning() {
    let backend = replayed(recordings(OLD, &[]), fast()).await;
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    assert_eq!(bridge.get("/virtualization/virtual-machines/backups/all/create/stream").await.status, 404);
    let log = bridge.ended();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_job: Vec<&Value> = lines.iter().filter(|line| line["span"] == "job").collect();
    assert!(of_job.iter().all(|line| line["level"] == "INFO"), "{of_job:?}");
    let ended = of_job.iter().find(|line| line["message"] == "Sync not supported.").unwrap();
    assert_eq!((&ended["outcome"], &ended["cause"]), (&json!("errored"), &json!("unsupported")));
    assert!(of_job.iter().any(|line| line["message"] == "Request refused."), "{of_job:?}");
}

#[tokio::test]
async fn the_first_failed_objects_of_a_job_have_a_line_each_and_the_others_are_counted() {
    let mut backend = ManualBackend::with_release("0.0.30.post2").await;
    let bridge = RunningBridge::start(backend.address, &[("jobs.failed_objects", "22")]);
    assert_eq!(bridge.admin("POST", "/sync/virtual-machines/").await.status, 202);
    let mut stream = backend.next_stream().await;
    stream.vm("works", None).await;
    for number in 1..=25 {
        stream.vm(&format!("web{number}"), Some("No such cluster.")).await;
    }
    stream.complete().await;
    poll_until(async || {
        let jobs = bridge.admin("GET", "/jobs").await.json();
        (jobs["results"][0]["status"] == "completed").then_some(())
    })
    .await;
    bridge.process.terminate();
    let (code, log) = bridge.process.ended();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |begin: &str| -> Vec<&Value> {
        let message = |line: &Value| line["message"].as_str().unwrap().starts_with(begin);
        lines.iter().filter(|line| message(line)).collect()
    };
    let failed = with("Object failed.");
    assert_eq!(failed.len(), 20);
    for (number, line) in (1..).zip(failed) {
        let fields = &line;
        assert_eq!((&line["level"], &fields["object"]), (&json!("WARN"), &json!("virtual_machine")));
        assert_eq!((&fields["name"], &fields["cluster"]), (&json!(format!("web{number}")), &json!("lab")));
        assert_eq!(fields["error"], "No such cluster.");
        assert_eq!(line["span"], "job", "{line}");
    }
    let more = with("More objects failed");
    assert_eq!((more.len(), &more[0]["level"]), (1, &json!("WARN")));
    assert_eq!((&more[0]["more"], &more[0]["left_out"]), (&json!(5), &json!(3)));
    let completed = with("Job completed");
    assert_eq!((completed.len(), &completed[0]["level"]), (1, &json!("WARN")));
    let fields = &completed[0];
    assert_eq!(fields["message"], "Job completed with failures.");
    assert_eq!(
        (&fields["seen"], &fields["completed"], &fields["failed"]),
        (&json!(26), &json!(1), &json!(25))
    );
}

#[tokio::test]
async fn the_filter_is_changed_while_the_bridge_runs_and_a_bad_one_changes_nothing() {
    let mut bridge = RunningBridge::start(([127, 0, 0, 1], 1).into(), &[("limits.check", "0s")]);
    assert_eq!(bridge.admin("GET", "/log").await.json()["filter"], "info");
    let changed = bridge.admin("PUT", "/log?filter=proxbox_bridge%3Ddebug").await;
    assert_eq!((changed.status, changed.json()["before"].as_str()), (200, Some("info")));
    let line = bridge.process.read_to("Log filter changed.");
    assert_eq!(line["filter"], "proxbox_bridge=debug");
    assert_eq!(bridge.admin("GET", "/log").await.json()["filter"], "proxbox_bridge=debug");
    // That it was changed is for everybody, and what was read after that for this filter alone.
    let levels = [(); 2].map(|()| bridge.process.read_to("Request answered.")["level"].clone());
    assert_eq!(levels, ["INFO", "DEBUG"]);
    for bad in ["", "?filter=", "?filter=proxbox_bridge%3Dloud", "?level=info", "?filter=info&filter=debug"] {
        assert_eq!(bridge.admin("PUT", &format!("/log{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(bridge.admin("GET", "/log").await.json()["filter"], "proxbox_bridge=debug");
}

#[tokio::test]
async fn the_log_has_the_configured_format_and_its_json_is_flat() {
    let nowhere = ([127, 0, 0, 1], 1).into();
    let bridge = RunningBridge::start(nowhere, &[("limits.check", "0s"), ("log_format", "json")]);
    let answer = bridge.admin("POST", "/sync/devices/").await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    poll_until(async || {
        bridge.admin("GET", "/jobs").await.json()["results"][0]["completed"].is_string().then_some(())
    })
    .await;
    let log = bridge.ended();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let mut values = line.as_object().unwrap().values();
        assert!(values.all(|value| !value.is_object() && !value.is_array()), "{line}");
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{line}");
        }
    }
    let of_job = lines.iter().filter(|line| line["job"] == id.as_str());
    let spans: Vec<&Value> = of_job.map(|line| &line["span"]).collect();
    assert!(spans.contains(&&json!("job")) && spans.contains(&&json!("request")), "{spans:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bridge.toml");
    for (format, wanted) in [("logfmt", "level=warn target="), ("text", " WARN request{request=")] {
        std::fs::write(&file, format!("log_format = \"{format}\"\nlisten = \"127.0.0.1:0\"")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
        command
            .args(["serve", "--backend", "http://127.0.0.1:1", "--admin-listen", "127.0.0.1:0", "--config"]);
        command.arg(&file).env_clear().env("PROXBOX_BRIDGE_LOG", "debug");
        let mut process = Process::spawn(command);
        let address = loop {
            let line = process.next_line();
            if line.contains("Listening.") {
                let (_, rest) = line.split_once("address=").unwrap();
                break rest.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        let client = Client::raw(address, b"BREW / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 400);
        assert_eq!(Client::send(address, "GET", DEVICES, &[]).await.answer().await.status, 503);
        process.terminate();
        let (_, log) = process.ended();
        let line = log.lines().find(|line| line.contains("Request rejected.")).unwrap();
        assert!(line.contains(wanted) && line.contains(" reason=") && !line.starts_with('{'), "{line}");
        if format == "logfmt" {
            let of_job: Vec<&str> = log.lines().filter(|line| line.contains(" span=job ")).collect();
            assert!(of_job.iter().any(|line| line.contains("Connection attempt")), "{log}");
            for (line, key) in
                of_job.iter().flat_map(|line| ["job", "backend", "kind"].map(|key| (line, key)))
            {
                assert_eq!(line.matches(&format!(" {key}=")).count(), 1, "{line}");
            }
        }
    }
}

#[test]
fn the_log_on_a_terminal_is_text_on_whole_lines_with_colours_unless_no_color_is_set() {
    for (no_color, is_coloured) in [("", true), ("1", false)] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
        command.args(["serve", "--backend", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0"]).env_clear().env("NO_COLOR", no_color);
        let mut program = Program::in_terminal(command, 40, 24);
        program.read_to("Listening.");
        program.read_to("\r\n");
        let text = program.forget();
        assert_eq!(text.contains("\u{1b}["), is_coloured, "{text:?}");
        let line = text.lines().find(|line| line.contains("Backend configured.")).unwrap();
        assert!(line.contains(" INFO") && line.contains("http://127.0.0.1:1"), "{text:?}");
    }
}

#[tokio::test]
async fn identical_lines_are_written_once_a_second_with_their_count_and_each_action_in_the_audit_log() {
    const TIMES: u64 = 200;
    let bridge = RunningBridge::start(([127, 0, 0, 1], 1).into(), &[("limits.check", "0s")]);
    let wrong = [("Authorization", "Bearer wrong-0123456789abcdef")];
    for _ in 0..TIMES {
        let rejected = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        assert_eq!(Client::raw(bridge.process.address, rejected).await.answer().await.status, 400);
        assert_eq!(
            Client::send(bridge.process.admin, "GET", "/jobs", &wrong).await.answer().await.status,
            401
        );
    }
    for _ in 0..20 {
        assert_eq!(bridge.admin("PUT", "/log?filter=info").await.status, 200);
    }
    let log = bridge.ended();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    // Anybody can cause these two.
    for message in ["Request rejected.", "Request refused: wrong token."] {
        let written = with(message);
        let counts = written.iter().map(|line| line["repeated"].as_u64().unwrap_or(1));
        assert_eq!(counts.sum::<u64>(), TIMES, "{written:?}");
        assert!(written.len() < 50, "{}", written.len());
    }
    let changed = with("Log filter changed.");
    assert!(changed.iter().all(|line| line["target"] == "audit" && line["repeated"].is_null()));
    assert_eq!(changed.len(), 20);
}
