//! Ended jobs: lists, filters, logs and recordings, and their removal.

use rusqlite::Connection;
use serde_json::{Value, json};

use super::document::{Api, ids, path};
use super::{NEW, OLD};
use crate::support::bridge::{
    BridgedReplay, Client, TestBridge, WITH_KEY, config, data_dir, fast, poll_until, recordings,
};
use crate::support::session::stream;

const SOMEONE: &str = "01890000-0000-7000-8000-000000000000";

#[tokio::test(start_paused = true)]
async fn jobs_are_found_by_what_they_are_page_by_page_newest_first() {
    // Some are in memory, and all of them in the ledger.
    for replay in ["0s", "5m"] {
        let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[("limits.replay", replay)]).await;
        let api = Api::new(&pair.front).await;
        let mut jobs = Vec::new();
        for target in ["/sync/devices/", "/sync/storage/", "/sync/devices/?x=1", "/sync/virtual-machines/"] {
            let job = api.start(target, &[]).await;
            jobs.push(api.ended(&job).await);
        }
        let id = |at: usize| jobs[at]["id"].as_str().unwrap();
        let page = api.get("/jobs").await;
        assert_eq!((ids(&page), &page["next"]), (vec![id(3), id(2), id(1), id(0)], &Value::Null));
        assert!(page.get("warning").is_none() && page["results"][0].get("log_entries").is_none());

        let backend = jobs[0]["backend"].as_str().unwrap();
        let backend = backend.replace("://", "%3A%2F%2F");
        let since = jobs[2]["created"].as_str().unwrap();
        for (query, wanted) in [
            ("kind=devices".to_owned(), vec![id(2), id(0)]),
            ("outcome=errored".to_owned(), vec![id(1)]),
            ("outcome=completed&kind=devices".to_owned(), vec![id(2), id(0)]),
            ("outcome=cancelled".to_owned(), vec![]),
            ("outcome=cancelled&outcome=errored".to_owned(), vec![id(1)]),
            ("outcome=completed&outcome=errored&kind=devices".to_owned(), vec![id(2), id(0)]),
            ("failed=true".to_owned(), vec![]),
            ("failed=false&outcome=errored".to_owned(), vec![id(1)]),
            (format!("backend={backend}"), vec![id(3), id(2), id(1), id(0)]),
            ("backend=http://elsewhere".to_owned(), vec![]),
            (format!("since={since}&kind=devices"), vec![id(2)]),
            ("since=1h".to_owned(), vec![id(3), id(2), id(1), id(0)]),
            ("since=2100-01-01T00:00:00Z".to_owned(), vec![]),
            (format!("before={}", id(1)), vec![id(0)]),
        ] {
            assert_eq!(ids(&api.get(&format!("/jobs?{query}")).await), wanted, "{query}");
        }

        let mut found = Vec::new();
        let mut next = json!("/jobs?limit=2&since=1h");
        while let Some(target) = next.as_str() {
            let page = api.get(target).await;
            assert_eq!(ids(&page).len(), 2, "{target}");
            found.extend(ids(&page).into_iter().map(str::to_owned));
            next = page["next"].clone();
        }
        assert_eq!(found, [id(3), id(2), id(1), id(0)]);
        let page = api.get("/jobs?limit=1&kind=devices&outcome=completed").await;
        let next = page["next"].as_str().unwrap();
        assert_eq!(next, format!("/jobs?kind=devices&outcome=completed&limit=1&before={}", id(2)));
        let page = api.get("/jobs?limit=1&failed=false&outcome=errored&outcome=completed").await;
        let next_of_several = page["next"].as_str().unwrap();
        assert!(next_of_several.starts_with("/jobs?outcome=errored&outcome=completed&failed=false&limit=1&"));
        assert_eq!(ids(&api.get(next_of_several).await), [id(2)]);
        let last = api.get(next).await;
        assert_eq!((ids(&last), &last["next"]), (vec![id(0)], &Value::Null));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_for_is_refused() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    for (target, named) in [
        ("/jobs?status=running", "outcome"),
        ("/jobs?kind=device", "devices"),
        ("/jobs?limit=201", "200"),
        ("/jobs/1", "UUID"),
        ("/jobs/1/events", "UUID"),
        ("/jobs/1/failed", "UUID"),
        (&format!("/jobs/{SOMEONE}/failed?group=name"), "error"),
        ("/jobs/1/recording", "UUID"),
        (&format!("/jobs/{SOMEONE}/events?x=1"), "bridge.last_event_id"),
        (&format!("/jobs/{SOMEONE}/events?bridge.fresh=1"), "bridge.last_event_id"),
        (&format!("/jobs/{SOMEONE}/events?bridge.nothing=1"), "bridge.last_event_id"),
    ] {
        let answer = api.request("GET", target, &[]).await;
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.detail().contains(named), "{}", answer.text());
    }
    assert_eq!(api.request("DELETE", "/jobs/1", &[]).await.status, 400);
    for (method, target) in [
        ("GET", format!("/jobs/{SOMEONE}")),
        ("GET", format!("/jobs/{SOMEONE}/events")),
        ("GET", format!("/jobs/{SOMEONE}/failed")),
        ("GET", format!("/jobs/{SOMEONE}/recording")),
        ("DELETE", format!("/jobs/{SOMEONE}")),
    ] {
        assert_eq!(api.request(method, &target, &[]).await.status, 404, "{method} {target}");
    }
    let old = format!("GET /jobs/{SOMEONE}/events HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let answer = Client::raw(pair.front.admin, old.as_bytes()).await.answer().await;
    assert_eq!(answer.status, 505);
    assert!(answer.detail().contains("proxy_http_version"), "{}", answer.text());
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_job_come_again_from_where_its_reader_was() {
    // From memory, and from the ledger.
    for replay in ["5m", "0s"] {
        let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[("limits.replay", replay)]).await;
        let api = Api::new(&pair.front).await;
        let job = api.start("/sync/devices/", &WITH_KEY).await;
        let target = format!("{}/events", path(&job));
        let live = stream::read_with_ids(&api.request("GET", &target, &[]).await.body);
        let again = api.request("GET", &target, &[]).await;
        assert_eq!(stream::read_with_ids(&again.body), live);
        assert_eq!(again.header("x-proxbox-bridge-job"), job["id"].as_str());
        let id = |at: usize| live[at].id.clone().unwrap();
        assert_eq!(id(0), format!("{}.1", job["id"].as_str().unwrap()));

        let read = async |last: &str, in_query: bool| {
            let query = format!("{target}?bridge.last_event_id={last}");
            let answer = match in_query {
                true => api.request("GET", &query, &[]).await,
                false => api.request("GET", &target, &[("Last-Event-ID", last)]).await,
            };
            (answer.status, answer.text().to_owned())
        };
        for in_query in [false, true] {
            let (status, rest) = read(&id(1), in_query).await;
            let first = rest.lines().next().unwrap();
            assert_eq!((status, first), (200, &*format!("id: {}", id(2))));
            assert_eq!(read(&id(live.len() - 1), in_query).await, (204, String::new()));
            let all = again.text();
            assert_eq!(read("", in_query).await, (200, all.to_owned()));
            let beyond = format!("{}.{}", job["id"].as_str().unwrap(), live.len() + 1);
            let largest = format!("{}.{}", job["id"].as_str().unwrap(), u64::MAX);
            for other in [&*format!("{SOMEONE}.2"), "nonsense", &beyond, &largest] {
                let (status, reported) = read(other, in_query).await;
                assert_eq!(status, 200);
                let (notice, rest) = reported.split_once("\n\n").unwrap();
                assert!(notice.starts_with("event: step\n") && notice.contains("starts at the first event"));
                assert_eq!(rest, all, "{other}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_the_backends_own_types_reach_only_readers_that_want_them() {
    for replay in ["5m", "0s"] {
        let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[("limits.replay", replay)]).await;
        let api = Api::new(&pair.front).await;
        let job = api.start("/sync/devices/?bridge.events=all", &WITH_KEY).await;
        api.ended(&job).await;
        for (query, wanted) in [("", false), ("?bridge.events=all", true)] {
            let answer = api.request("GET", &format!("{}/events{query}", path(&job)), &[]).await;
            assert_eq!(answer.text().contains("event: discovery\n"), wanted, "{replay} {query}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_ledger_tells_of_the_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder)];
    let BridgedReplay { backend, front } =
        BridgedReplay::start(recordings(OLD, &[]), fast(), &settings).await;
    let (before, events) = {
        let api = Api::new(&front).await;
        let job = api.start("/sync/devices/", &[]).await;
        let ended = api.ended(&job).await;
        (ended, api.request("GET", &format!("{}/events", path(&job)), &[]).await.body)
    };
    front.stop().await;

    let front = TestBridge::start(config(backend.local_addr(), &settings)).await;
    let api = Api::new(&front).await;
    let mut after = api.get(path(&before)).await;
    for moving in ["watchers", "attaches"] {
        after[moving] = before[moving].clone();
    }
    assert_eq!(after, before);
    assert_eq!(ids(&api.get("/jobs").await), [before["id"].as_str().unwrap()]);
    let target = format!("{}/events", path(&before));
    assert_eq!(api.request("GET", &target, &[]).await.body, events);
    assert_eq!(api.request("DELETE", path(&before), &[]).await.status, 409);
    drop(api);
    front.stop().await;

    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3")))
        .unwrap();
    Connection::open(file).unwrap().execute("DELETE FROM frames", []).unwrap();
    let front = TestBridge::start(config(backend.local_addr(), &settings)).await;
    let api = Api::new(&front).await;
    let gone = api.request("GET", &target, &[]).await;
    assert_eq!(gone.status, 410);
    assert!(gone.detail().contains("limits.log_retention"), "{}", gone.text());
    assert_eq!(api.get(path(&before)).await["log_entries"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn the_recording_of_a_job_is_served_if_recording_is_on() {
    let folder = tempfile::tempdir().unwrap();
    for recording in ["off", "on"] {
        let settings = [data_dir(&folder), ("jobs.recording", recording)];
        let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &settings).await;
        let api = Api::new(&pair.front).await;
        let job = api.start("/sync/full-update/", &WITH_KEY).await;
        api.ended(&job).await;
        let answer = api.request("GET", &format!("{}/recording", path(&job)), &[]).await;
        if recording == "off" {
            assert_eq!(answer.status, 404);
            assert!(answer.detail().contains("jobs.recording"), "{}", answer.text());
        } else {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
            assert!(answer.text().starts_with("{\"recording\":1,"), "{}", answer.text());
            assert!(answer.text().contains("Full Update Sync"), "{}", answer.text());
        }
        let BridgedReplay { front, backend: _backend } = pair;
        front.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_no_bridge_wrote_are_left_out_and_everything_else_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder)];
    let BridgedReplay { backend, front } =
        BridgedReplay::start(recordings(OLD, &[]), fast(), &settings).await;
    let mut jobs = Vec::new();
    {
        let api = Api::new(&front).await;
        for target in ["/sync/devices/", "/sync/devices/?x=1", "/sync/devices/?x=2"] {
            let job = api.start(target, &[]).await;
            jobs.push(api.ended(&job).await["id"].as_str().unwrap().to_owned());
        }
    }
    front.stop().await;
    let file = Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    let far = "UPDATE jobs SET finished = 9223372036854775807, queued = 9e15, started = -5, frames_in = -1 WHERE id = ?1";
    file.execute(far, [&jobs[0]]).unwrap();
    file.execute("UPDATE frames SET at = 9e18, bytes = x'ff00' WHERE job = ?1", [&jobs[0]]).unwrap();
    file.execute("UPDATE jobs SET backend = CAST(x'ff' AS TEXT) WHERE id = ?1", [&jobs[1]]).unwrap();
    drop(file);

    let front = TestBridge::start(config(backend.local_addr(), &settings)).await;
    let api = Api::new(&front).await;
    assert_eq!(ids(&api.get("/jobs").await), [jobs[2].as_str(), &jobs[0]]);
    let shown = api.get(&format!("/jobs/{}", jobs[0])).await;
    assert_eq!(shown["completed"], "9999-12-31T23:59:59.999Z");
    let damaged = front.admin_request("GET", &format!("/jobs/{}", jobs[1]), &[]).await;
    assert_eq!(damaged.status, 503);
    assert!(damaged.text().contains("backend: "), "{}", damaged.text());
    assert_eq!(front.admin_request("GET", &format!("/jobs/{}/events", jobs[0]), &[]).await.status, 410);
    assert_eq!(front.admin_request("GET", "/metrics", &[]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_bridge_starts_and_serves_whatever_stands_in_its_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder)];
    let BridgedReplay { backend, mut front } =
        BridgedReplay::start(recordings(OLD, &[]), fast(), &settings).await;
    for (number, text) in [(i64::MIN, "x''"), (-1, "x'ff'"), (i64::MAX, "'{}'")] {
        {
            let api = Api::new(&front).await;
            for target in ["/sync/devices/", "/sync/devices/?x=1"] {
                let job = api.start(target, &[]).await;
                api.ended(&job).await;
            }
        }
        front.stop().await;
        damage(&folder.path().join("ledger.sqlite3"), number, text);
        front = TestBridge::start(config(backend.local_addr(), &settings)).await;
        for (method, target) in
            [("GET", "/readyz"), ("GET", "/jobs"), ("GET", "/metrics"), ("POST", "/clean")]
        {
            let answer = front.admin_request(method, target, &[]).await;
            assert_eq!(answer.status, 200, "{number}: {target}: {}", answer.text());
        }
    }
}

/// Writes `number` or `text` into every column of every table of the ledger.
fn damage(file: &std::path::Path, number: i64, text: &str) {
    let file = Connection::open(file).unwrap();
    file.pragma_update(None, "foreign_keys", false).unwrap();
    for table in ["frames", "failed_objects", "meta", "jobs"] {
        let mut columns =
            file.prepare(&format!("SELECT name, type FROM pragma_table_info('{table}')")).unwrap();
        let columns = columns.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        for (name, sort) in columns.map(Result::<(String, String), _>::unwrap) {
            let value =
                if sort == "INTEGER" { number.to_string() } else { format!("CAST({text} AS {sort})") };
            file.execute(&format!("UPDATE OR IGNORE {table} SET {name} = {value}"), []).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_has_old_records_removed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder), ("limits.replay", "0s"), ("jobs.recording", "on")];
    let BridgedReplay { backend, front } =
        BridgedReplay::start(recordings(OLD, &[]), fast(), &settings).await;
    {
        let api = Api::new(&front).await;
        for target in ["/sync/devices/", "/sync/devices/?x=1", "/sync/devices/?x=2"] {
            let job = api.start(target, &WITH_KEY).await;
            api.ended(&job).await;
        }
    }
    front.stop().await;
    let file = Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    let eight_days = "UPDATE jobs SET recorded = recorded - 8 * 86400000";
    file.execute(eight_days, []).unwrap();
    drop(file);
    let recorded = || std::fs::read_dir(folder.path().join("recordings")).unwrap().count();
    assert_eq!(recorded(), 3);

    let front = TestBridge::start(config(backend.local_addr(), &settings)).await;
    let api = Api::new(&front).await;
    let logs = async || {
        let mut logs = 0;
        for id in ids(&api.get("/jobs").await) {
            logs += usize::from(
                front.admin_request("GET", &format!("/jobs/{id}/events"), &[]).await.status == 200,
            );
        }
        logs
    };
    poll_until(async || (logs().await == 2).then_some(())).await;
    let cleaned = front.admin_request("POST", "/clean", &[]).await;
    assert_eq!(
        (cleaned.status, cleaned.detail().as_str()),
        (200, "Jobs: 0; logs of jobs: 2; not removed yet: 0.")
    );
    assert_eq!((logs().await, recorded(), ids(&api.get("/jobs").await).len()), (0, 0, 3));
}
