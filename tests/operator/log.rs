//! The log: the content of its lines, and its filter.

use serde_json::{Value, json};

use super::{OLD, RunningBridge};
use crate::support::bridge::{FULL_UPDATE, fast, poll_until, recordings, replayed};
use crate::support::manual::ManualBackend;
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
            let message = line["fields"]["message"].as_str().unwrap();
            ["Job ", "Watcher ", "Client "].iter().any(|begin| message.starts_with(begin))
        });
        let mut messages = Vec::new();
        for line in of_jobs {
            let job = line["spans"].as_array().into_iter().flatten().find(|span| span["name"] == "job");
            let job = job.unwrap_or_else(|| panic!("of which job is {line}?"));
            let backend = backend.local_addr().to_string();
            assert_eq!((&job["id"], &job["kind"]), (&id.as_str().into(), &"full-update".into()));
            assert_eq!(job["backend"], backend.as_str());
            messages.push(line["fields"]["message"].as_str().unwrap().to_owned());
        }
        assert!(messages.iter().any(|message| message == wanted), "{messages:?}");
        assert_eq!(messages.iter().any(|message| message == "Watcher connected."), filter == "debug");
    }
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
        let message = |line: &Value| line["fields"]["message"].as_str().unwrap().starts_with(begin);
        lines.iter().filter(|line| message(line)).collect()
    };
    let failed = with("Object failed.");
    assert_eq!(failed.len(), 20);
    for (number, line) in (1..).zip(failed) {
        let fields = &line["fields"];
        assert_eq!((&line["level"], &fields["object"]), (&json!("WARN"), &json!("virtual_machine")));
        assert_eq!((&fields["name"], &fields["cluster"]), (&json!(format!("web{number}")), &json!("lab")));
        assert_eq!(fields["error"], "No such cluster.");
        assert!(line["spans"].as_array().unwrap().iter().any(|span| span["name"] == "job"), "{line}");
    }
    let more = with("More objects failed");
    assert_eq!((more.len(), &more[0]["level"]), (1, &json!("WARN")));
    assert_eq!((&more[0]["fields"]["more"], &more[0]["fields"]["left_out"]), (&json!(5), &json!(3)));
    let completed = with("Job completed");
    assert_eq!((completed.len(), &completed[0]["level"]), (1, &json!("WARN")));
    let fields = &completed[0]["fields"];
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
    assert_eq!(line["fields"]["filter"], "proxbox_bridge=debug");
    assert_eq!(bridge.admin("GET", "/log").await.json()["filter"], "proxbox_bridge=debug");
    // That it was changed is for everybody, and what was read after that for this filter alone.
    let levels = [(); 2].map(|()| bridge.process.read_to("Request answered.")["level"].clone());
    assert_eq!(levels, ["INFO", "DEBUG"]);
    for bad in ["", "?filter=", "?filter=proxbox_bridge%3Dloud", "?level=info", "?filter=info&filter=debug"] {
        assert_eq!(bridge.admin("PUT", &format!("/log{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(bridge.admin("GET", "/log").await.json()["filter"], "proxbox_bridge=debug");
}
