//! The failed objects of jobs.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::document::{Api, ids, path};
use crate::support::bridge::{TestBridge, config, data_dir};
use crate::support::manual::{ManualBackend, ManualStream};

const VMS: &str = "/sync/virtual-machines/";

/// A bridge that keeps its ledger in `data`, in front of a backend that is played by hand.
async fn start(data: &Path, settings: &[(&str, &str)]) -> (ManualBackend, TestBridge) {
    let backend = ManualBackend::with_release("0.0.30.post2").await;
    let settings = [settings, &[data_dir(&data)]].concat();
    let front = TestBridge::start(config(backend.address, &settings)).await;
    (backend, front)
}

/// Plays virtual machines, one of which works and the others of which fail.
async fn play(stream: &mut ManualStream, failed: std::ops::RangeInclusive<u32>) {
    stream.vm("works", None).await;
    for number in failed {
        stream
            .vm(&format!("web{number}"), Some(if number % 3 == 0 { "Locked, by =HYPERLINK" } else { "No" }))
            .await;
    }
}

/// Waits until `target` has this many results, and gives them.
async fn results(api: &Api<'_>, target: &str, count: usize) -> Value {
    let found = async {
        loop {
            let page = api.get(target).await;
            if page["results"].as_array().unwrap().len() == count {
                return page;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(60), found).await.unwrap()
}

fn names(page: &Value) -> Vec<&str> {
    page["results"].as_array().unwrap().iter().map(|failed| failed["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn failed_objects_are_listed_while_the_job_runs_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, front) = start(folder.path(), &[]).await;
    let api = Api::new(&front).await;
    let job = api.start(VMS, &[]).await;
    let mut stream = backend.next_stream().await;
    play(&mut stream, 1..=5).await;
    let target = format!("{}/failed", path(&job));
    let page = results(&api, &target, 5).await;
    let mut first = page["results"][0].clone();
    assert!(first["time"].take().is_string());
    let expected = json!({
        "number": 1, "time": null, "object": "virtual_machine", "name": "web1", "cluster": "lab", "owner": null,
        "count": 1, "error": "No",
    });
    assert_eq!(first, expected);
    assert_eq!((&page["failed_total"], &page["failed_left_out"]), (&json!(5), &json!(0)));
    assert_eq!(api.get(path(&job)).await["status"], "running");

    stream.vm("web6", Some("No")).await;
    stream.complete().await;
    let ended = api.ended(&job).await;
    assert_eq!((&ended["status"], &ended["failed_total"]), (&json!("completed"), &json!(6)));
    drop(api);
    front.stop().await;

    let front = TestBridge::start(config(backend.address, &[data_dir(&folder)])).await;
    let api = Api::new(&front).await;
    let mut found = Vec::new();
    let mut next = json!(format!("{target}?limit=2"));
    while let Some(target) = next.as_str() {
        let page = api.get(target).await;
        found.extend(names(&page).into_iter().map(str::to_owned));
        next = page["next"].clone();
    }
    assert_eq!(found, ["web1", "web2", "web3", "web4", "web5", "web6"]);
    assert_eq!(next, Value::Null);
    assert_eq!(names(&api.get(&format!("{target}?after=4")).await), ["web5", "web6"]);
    assert_eq!(api.get(path(&job)).await["failed_total"], 6);
}

#[tokio::test(start_paused = true)]
async fn failed_objects_are_counted_by_error_and_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, front) = start(folder.path(), &[]).await;
    let api = Api::new(&front).await;
    let job = api.start(VMS, &[]).await;
    let mut stream = backend.next_stream().await;
    // More than are read at once.
    play(&mut stream, 1..=1_100).await;
    stream.complete().await;
    api.ended(&job).await;
    let target = format!("{}/failed", path(&job));
    let groups = api.get(&format!("{target}?group=error&limit=1")).await;
    assert_eq!(groups["results"], json!([{ "error": "No", "count": 734, "first": 1 }]));
    let rest = api.get(groups["next"].as_str().unwrap()).await;
    let locked = json!([{ "error": "Locked, by =HYPERLINK", "count": 366, "first": 3 }]);
    assert_eq!((&rest["results"], &rest["next"]), (&locked, &Value::Null));

    let csv = api.request("GET", &target, &[("Accept", "text/csv")]).await;
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let lines: Vec<&str> = csv.text().split("\r\n").collect();
    assert_eq!((lines.len(), lines[1_101]), (1_102, ""));
    assert_eq!(lines[0], "number,time,object,name,cluster,owner,count,error");
    assert!(
        lines[1].starts_with("1,2") && lines[1].ends_with("Z,virtual_machine,web1,lab,,1,No"),
        "{}",
        lines[1]
    );
    assert!(lines[1_098].ends_with(",web1098,lab,,1,\"Locked, by =HYPERLINK\""), "{}", lines[1_098]);
    let link = api.request("GET", &format!("{target}?format=csv"), &[("Accept", "application/json")]).await;
    assert_eq!((link.text(), link.header("content-type")), (csv.text(), csv.header("content-type")));
    let csv = api.request("GET", &format!("{target}?group=error"), &[("Accept", "text/csv")]).await;
    assert_eq!(csv.text(), "error,count,first\r\nNo,734,1\r\n\"Locked, by =HYPERLINK\",366,3\r\n");

    let ndjson =
        api.request("GET", &format!("{target}?after=1090"), &[("Accept", "application/x-ndjson")]).await;
    let lines: Vec<Value> = ndjson.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[9]["number"], &lines[9]["name"]), (10, &json!(1100), &json!("web1100")));
    let ndjson =
        api.request("GET", &format!("{target}?limit=3"), &[("Accept", "application/x-ndjson")]).await;
    assert_eq!(ndjson.text().lines().count(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_beyond_the_limit_is_counted_wherever_failed_objects_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, front) = start(folder.path(), &[("jobs.failed_objects", "3")]).await;
    let api = Api::new(&front).await;
    let job = api.start(VMS, &[]).await;
    let mut stream = backend.next_stream().await;
    play(&mut stream, 1..=5).await;
    stream.complete().await;
    let ended = api.ended(&job).await;
    assert_eq!((&ended["failed_total"], &ended["failed_left_out"]), (&json!(5), &json!(2)));
    let target = format!("{}/failed", path(&job));
    let page = api.get(&target).await;
    assert_eq!(
        (names(&page).len(), &page["failed_total"], &page["failed_left_out"]),
        (3, &json!(5), &json!(2))
    );
    assert!(page["warning"].as_str().unwrap().contains("jobs.failed_objects"), "{page}");
    let row = "2 more failed objects are not kept: over the limit of 3 (jobs.failed_objects) or of an earlier \
               ledger.";
    assert_eq!(page["warning"], row);
    let csv = api.request("GET", &target, &[("Accept", "text/csv")]).await;
    assert!(csv.text().ends_with(&format!("\r\n,,,,,,2,{row}\r\n")), "{}", csv.text());
    let ndjson = api.request("GET", &target, &[("Accept", "application/x-ndjson")]).await;
    let last: Value = serde_json::from_str(ndjson.text().lines().last().unwrap()).unwrap();
    assert_eq!((&last["number"], &last["count"], &last["error"]), (&Value::Null, &json!(2), &json!(row)));
}

#[tokio::test(start_paused = true)]
async fn jobs_with_failed_objects_are_found_whatever_their_outcome() {
    // From memory, and from the ledger.
    for replay in ["5m", "0s"] {
        let folder = tempfile::tempdir().unwrap();
        let (mut backend, front) = start(folder.path(), &[("limits.replay", replay)]).await;
        let api = Api::new(&front).await;
        let mut jobs = Vec::new();
        for (target, failed) in
            [(VMS, false), ("/sync/virtual-machines/?x=1", true), ("/sync/virtual-machines/?x=2", true)]
        {
            let job = api.start(target, &[]).await;
            let mut stream = backend.next_stream().await;
            stream.vm("works", None).await;
            if failed {
                stream.vm("fails", Some("No")).await;
            }
            if target.ends_with('2') {
                stream.fail().await
            } else {
                stream.complete().await
            }
            jobs.push(api.ended(&job).await);
        }
        let id = |at: usize| jobs[at]["id"].as_str().unwrap();
        for (query, wanted) in [
            ("failed=true", vec![id(2), id(1)]),
            ("failed=true&outcome=completed", vec![id(1)]),
            ("failed=true&outcome=completed&outcome=errored", vec![id(2), id(1)]),
            ("failed=false", vec![id(0)]),
        ] {
            assert_eq!(ids(&api.get(&format!("/jobs?{query}")).await), wanted, "{replay} {query}");
        }
    }
}
