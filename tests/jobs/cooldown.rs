//! Cool-down: a job keeps its slot after its end while the backend may still be working.

use std::path::Path;
use std::sync::{Arc, Mutex};

use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::http::url::BackendUrl;
use proxbox_bridge::ledger::{Cooldown, JobUpdate, Record, Timestamp};
use proxbox_bridge::replay::ReplayOptions;
use tokio::time::{Duration, Instant, advance};

use super::{JOB, StreamReader, front, ledger, recorded};
use crate::support::bridge::{
    BridgedReplay, DEVICES, FULL_UPDATE, STORAGE, TestBridge, WITH_KEY, config, configured, data_dir, fast,
    poll_until, recordings,
};
use crate::support::manual::{ManualBackend, ManualStream};

const OLD: &str = "0.0.6.post4";
const NEW: &str = "0.0.11.post2";

async fn open(front: &TestBridge, path: &str) -> StreamReader {
    StreamReader::open(front, path, &WITH_KEY).await
}

/// A running job, and its stream on the backend.
async fn started(
    front: &TestBridge,
    backend: &mut ManualBackend,
    path: &str,
) -> (StreamReader, ManualStream) {
    let reader = open(front, path).await;
    (reader, backend.next_stream().await)
}

/// Runs a job whose stream the backend cuts off. Returns its id and the time of the cut.
async fn cut(front: &TestBridge, backend: &mut ManualBackend, path: &str) -> (String, Instant) {
    let (reader, stream) = started(front, backend, path).await;
    drop(stream);
    let (job, began) = (reader.job.clone(), Instant::now());
    assert!(reader.rest().await.contains("\"ok\": false"));
    (job, began)
}

/// How many seconds after `began` the next job starts.
async fn waits(front: &TestBridge, backend: &mut ManualBackend, began: Instant) -> u64 {
    let (reader, stream) = started(front, backend, STORAGE).await;
    let seconds = began.elapsed().as_secs();
    stream.complete().await;
    let waited = reader.rest().await.contains("Waiting: the backend may still be at work on job");
    assert_eq!(waited, seconds > 0, "{seconds} s");
    seconds
}

/// The jobs that hold a slot for a cool-down, from `GET /backends`.
async fn cooling_down(front: &TestBridge) -> Vec<String> {
    cooling_down_on(front, 0).await
}

/// Those on the backend at `index`.
async fn cooling_down_on(front: &TestBridge, index: usize) -> Vec<String> {
    let answer = front.admin_request("GET", "/backends", &[]).await.json();
    let held = answer["results"][index]["cooling_down"].as_array().unwrap().clone();
    held.iter().map(|held| held["job"].as_str().unwrap().to_owned()).collect()
}

fn up_to(job: &str, seconds: u64) -> String {
    format!("Waiting: the backend may still be at work on job {job}, up to {seconds} s more.")
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_a_lost_stream_waits_for_the_cooldown_and_reports_it() {
    let mut backend = ManualBackend::with_release(OLD).await;
    let front = front(&backend, &[]).await;
    let (job, began) = cut(&front, &mut backend, DEVICES).await;
    advance(Duration::from_secs(8)).await;
    let mut retry = open(&front, DEVICES).await;
    retry.until(&up_to(&job, 22)).await;
    retry.until(&up_to(&job, 7)).await;
    assert!(backend.is_idle(), "two runs at once");
    assert_eq!(cooling_down(&front).await, [job]);
    backend.next_stream().await.complete().await;
    assert_eq!(began.elapsed().as_secs(), 30);
    assert!(retry.rest().await.contains("\"ok\": true"));
    assert!(cooling_down(&front).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn how_long_a_place_stays_taken_depends_on_the_release() {
    for (release, seconds) in [("0.0.0", 30), (OLD, 30), ("0.0.7.post1", 5), (NEW, 5), ("0.0.30.post2", 5)] {
        let mut backend = ManualBackend::with_release(release).await;
        let front = front(&backend, &[]).await;
        let (_, began) = cut(&front, &mut backend, DEVICES).await;
        assert_eq!(waits(&front, &mut backend, began).await, seconds, "{release}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_full_update_of_any_release_cools_down_for_its_stage() {
    for release in [OLD, NEW] {
        let mut backend = ManualBackend::with_release(release).await;
        let front = front(&backend, &[]).await;
        let (_, began) = cut(&front, &mut backend, FULL_UPDATE).await;
        assert_eq!(waits(&front, &mut backend, began).await, 30, "{release}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_cut_takes_its_place_for_a_while() {
    let options = ReplayOptions { cut_after: Some(6), ..fast() };
    let pair = BridgedReplay::start(recordings("0.0.2.post1", &[]), options, &[]).await;
    let first = pair.front.get(DEVICES, &[]).await;
    let began = Instant::now();
    let job = first.header(JOB).unwrap();
    assert!(first.text().contains("\"ok\": false"), "{}", first.text());
    let again = pair.front.get(DEVICES, &[]).await;
    assert!(again.text().contains(&up_to(job, 30)), "{}", again.text());
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_bridge_ends_itself_takes_its_place_too() {
    for settings in [("limits.idle", "10s"), ("limits.total", "10s"), ("jobs.on_disconnect", "cancel")] {
        let mut backend = ManualBackend::with_release(OLD).await;
        let front = front(&backend, &[settings]).await;
        let (reader, stream) = started(&front, &mut backend, DEVICES).await;
        if settings.0 == "jobs.on_disconnect" {
            drop(reader);
        } else {
            assert!(reader.rest().await.contains("\"ok\": false"));
        }
        stream.wait_disconnected().await;
        let began = Instant::now();
        assert_eq!(waits(&front, &mut backend, began).await, 30, "{settings:?}");
    }
    let mut backend = ManualBackend::with_release(OLD).await;
    let front = front(&backend, &[]).await;
    let (reader, stream) = started(&front, &mut backend, DEVICES).await;
    assert_eq!(front.admin_request("DELETE", &format!("/jobs/{}", reader.job), &[]).await.status, 202);
    stream.wait_disconnected().await;
    let began = Instant::now();
    assert_eq!(waits(&front, &mut backend, began).await, 30, "cancelled by request");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_the_backend_reports_is_its_end_where_its_tasks_stop_with_it() {
    for (release, seconds) in [("0.0.0", 30), (OLD, 30), ("0.0.7.post1", 0), (NEW, 0)] {
        let mut backend = ManualBackend::with_release(release).await;
        let front = front(&backend, &[]).await;
        let (reader, stream) = started(&front, &mut backend, DEVICES).await;
        stream.fail().await;
        assert!(reader.rest().await.contains("\"ok\": false"));
        let began = Instant::now();
        assert_eq!(waits(&front, &mut backend, began).await, seconds, "{release}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_has_ended_its_work_is_not_waited_for() {
    let mut backend = ManualBackend::with_release(OLD).await;
    let front = front(&backend, &[]).await;
    for status in ["completed", "failed"] {
        let (reader, mut stream) = started(&front, &mut backend, DEVICES).await;
        stream.device("pve1", status).await;
        stream.complete().await;
        assert_eq!(reader.rest().await.contains("\"ok\": true"), status == "completed");
        let began = Instant::now();
        assert_eq!(waits(&front, &mut backend, began).await, 0, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_never_began_takes_no_place() {
    let mut backend = ManualBackend::with_release(OLD).await;
    let front = front(&backend, &[]).await;
    backend.refuse();
    assert_eq!(front.get(DEVICES, &[]).await.status, 422);
    backend.accept();
    let began = Instant::now();
    assert_eq!(waits(&front, &mut backend, began).await, 0, "refused");

    let (running, stream) = started(&front, &mut backend, DEVICES).await;
    let mut waiting = open(&front, FULL_UPDATE).await;
    waiting.until("Waiting for devices").await;
    assert_eq!(front.admin_request("DELETE", &format!("/jobs/{}", waiting.job), &[]).await.status, 202);
    waiting.rest().await;
    stream.complete().await;
    running.rest().await;
    let began = Instant::now();
    assert_eq!(waits(&front, &mut backend, began).await, 0, "cancelled in the queue");

    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let nowhere = TestBridge::start(config(address, &[])).await;
    assert_eq!(nowhere.get(DEVICES, &[]).await.status, 503);
    assert!(cooling_down(&nowhere).await.is_empty(), "unreachable");
}

#[tokio::test(start_paused = true)]
async fn the_cooldown_of_an_old_backend_follows_the_duration_of_earlier_runs() {
    let mut backend = ManualBackend::with_release(OLD).await;
    let front = front(&backend, &[("limits.cooldown", "2m")]).await;
    // The second one of 10 s follows a run of 200 s that did not complete.
    for (before, elapsed, rest) in [(100, 10, 90), (100, 200, 30), (100, 10, 90), (400, 10, 120)] {
        let (reader, stream) = started(&front, &mut backend, DEVICES).await;
        advance(Duration::from_secs(before)).await;
        stream.complete().await;
        reader.rest().await;
        let (reader, stream) = started(&front, &mut backend, DEVICES).await;
        advance(Duration::from_secs(elapsed)).await;
        drop(stream);
        reader.rest().await;
        let began = Instant::now();
        assert_eq!(waits(&front, &mut backend, began).await, rest, "{before} s, cut after {elapsed} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_cooldown_of_a_backend_does_not_follow_the_duration_of_runs_on_another() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder), ("limits.cooldown", "2m")];
    let mut before = ManualBackend::with_release(OLD).await;
    let bridge = front(&before, &settings).await;
    let (reader, stream) = started(&bridge, &mut before, DEVICES).await;
    advance(Duration::from_secs(100)).await;
    stream.complete().await;
    reader.rest().await;
    bridge.stop().await;
    let mut backend = ManualBackend::with_release(OLD).await;
    let bridge = front(&backend, &settings).await;
    let (_, began) = cut(&bridge, &mut backend, DEVICES).await;
    assert_eq!(waits(&bridge, &mut backend, began).await, 30);
}

#[tokio::test(start_paused = true)]
async fn another_place_on_the_backend_can_be_used_meanwhile() {
    let mut backend = ManualBackend::with_release(OLD).await;
    let front = front(&backend, &[("backend.concurrency", "2")]).await;
    let (job, began) = cut(&front, &mut backend, DEVICES).await;
    let (second, other) = started(&front, &mut backend, STORAGE).await;
    assert_eq!(began.elapsed().as_secs(), 0);
    let mut third = open(&front, FULL_UPDATE).await;
    let both = format!(
        "Waiting for storage synchronization to finish on this backend. It may also be at work on job {job} \
         still, up to 30 s more."
    );
    third.until(&both).await;
    let stream = backend.next_stream().await;
    assert_eq!(began.elapsed().as_secs(), 30);
    other.complete().await;
    stream.complete().await;
    for reader in [second, third] {
        assert!(reader.rest().await.contains("\"ok\": true"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_taken_counts_for_the_queue() {
    let mut backend = ManualBackend::with_release(OLD).await;
    let front = front(&backend, &[("backend.queue", "1")]).await;
    cut(&front, &mut backend, DEVICES).await;
    let _waiting = open(&front, DEVICES).await;
    let answer = front.get(STORAGE, &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")));
    assert!(answer.detail().contains("1 syncs are queued"), "{}", answer.text());
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_gives_further_places_and_takes_away_none_that_is_taken() {
    let mut backend = ManualBackend::with_release(OLD).await;
    let address = backend.address;
    let concurrency = Arc::new(Mutex::new("1"));
    let read = Arc::clone(&concurrency);
    let reload = move || Ok(config(address, &[("backend.concurrency", *read.lock().unwrap())]));
    let front = TestBridge::reloading(config(address, &[]), reload).await;
    let (_, began) = cut(&front, &mut backend, DEVICES).await;
    *concurrency.lock().unwrap() = "2";
    assert_eq!(front.admin_request("POST", "/reload", &[]).await.status, 200);
    assert_eq!(waits(&front, &mut backend, began).await, 0);
    *concurrency.lock().unwrap() = "1";
    assert_eq!(front.admin_request("POST", "/reload", &[]).await.status, 200);
    assert_eq!(waits(&front, &mut backend, began).await, 30);
}

#[tokio::test(start_paused = true)]
async fn a_place_stays_taken_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder)];
    let mut backend = ManualBackend::with_release(OLD).await;
    let before = front(&backend, &settings).await;
    let (job, began) = cut(&before, &mut backend, DEVICES).await;
    before.stop().await;
    assert_eq!(began.elapsed().as_secs(), 0, "a bridge that stops does not wait for it");
    let after = front(&backend, &settings).await;
    assert_eq!(cooling_down(&after).await, [job.as_str()]);
    let mut reader = open(&after, DEVICES).await;
    reader.until(&format!("may still be at work on job {job}, up to ")).await;
    assert!(backend.is_idle(), "two runs at once");
    assert!(reader.completed(&mut backend).await.contains("\"ok\": true"));
    after.stop().await;
    let records = recorded(folder.path()).await;
    assert_eq!(records[0].cooldown, None, "it has completed");
    assert!(records[1].cooldown.is_some_and(|cooldown| cooldown.until > Timestamp::now()));
}

/// A job that ran on `manual` and has no end in the ledger in `folder`, beside one that had not begun.
async fn killed(manual: &ManualBackend, folder: &Path) -> Record {
    let now = Timestamp::now();
    let backend: BackendUrl = format!("http://{}", manual.address).parse().unwrap();
    let queued = Record::new(backend.clone(), Kind::Devices, now);
    let least = Duration::from_secs(40);
    let cooldown = Some(Cooldown { least, until: now });
    let killed = Record { started: Some(now), cooldown, ..Record::new(backend, Kind::Devices, now) };
    let ledger = ledger(folder).await;
    for record in [&killed, &queued] {
        ledger.put(JobUpdate::new(record.clone(), Vec::new())).await.unwrap();
    }
    ledger.close().await;
    killed
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_works_only_later_gives_the_places_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::with_release(OLD).await;
    let killed = killed(&backend, folder.path()).await;
    let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let front = front(&backend, &[data_dir(&folder)]).await;
    assert!(cooling_down(&front).await.is_empty());
    let (job, _) = cut(&front, &mut backend, DEVICES).await;
    assert_eq!(cooling_down(&front).await, [job.as_str()]);
    other.execute_batch("ROLLBACK").unwrap();
    // The ledger retries.
    let held = poll_until(async || {
        let held = cooling_down(&front).await;
        held.contains(&killed.id.to_string()).then_some(held)
    })
    .await;
    assert_eq!(held.len(), 2);
    assert!(held.contains(&job), "it has a permit already, and keeps it");

    // The ledger is lost and available once more.
    let copy = folder.path().join("copy");
    other.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    std::fs::rename(copy, folder.path().join("ledger.sqlite3")).unwrap();
    let ready = async || front.admin_request("GET", "/readyz", &[]).await;
    poll_until(async || ready().await.text().contains("was replaced").then_some(())).await;
    assert_eq!(cooling_down(&front).await, held);
}

#[tokio::test(start_paused = true)]
async fn what_ran_when_the_bridge_was_killed_takes_its_place_after_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::with_release(OLD).await;
    let killed = killed(&backend, folder.path()).await;
    let front = front(&backend, &[data_dir(&folder)]).await;
    let began = Instant::now();
    assert_eq!(cooling_down(&front).await, [killed.id.to_string()]);
    let seconds = waits(&front, &mut backend, began).await;
    assert!((35..=40).contains(&seconds), "{seconds} s");
}

#[tokio::test(start_paused = true)]
async fn what_ran_under_another_name_of_the_same_address_takes_its_place_after_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    let backend = ManualBackend::with_release(OLD).await;
    let killed = killed(&backend, folder.path()).await;
    let url = format!("http://localhost:{}", backend.address.port());
    let settings = [data_dir(&folder), ("backend.url", url.as_str())];
    let front = front(&backend, &settings).await;
    assert_eq!(cooling_down(&front).await, [killed.id.to_string()]);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_killed_bridge_cools_down_on_its_own_backend_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = [ManualBackend::with_release(OLD).await, ManualBackend::with_release(OLD).await];
    let killed = killed(&two, folder.path()).await;
    let front = TestBridge::start(configured(&format!(
        r#"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        data_dir = "{}"
        [[backend]]
        name = "one"
        url = "http://{}"
        hosts = ["one.example"]
        [[backend]]
        name = "two"
        url = "http://{}"
        "#,
        folder.path().display(),
        one.address,
        two.address,
    )))
    .await;
    assert!(cooling_down_on(&front, 0).await.is_empty());
    assert_eq!(cooling_down_on(&front, 1).await, [killed.id.to_string()]);
}

#[tokio::test(start_paused = true)]
async fn a_full_update_that_the_backend_still_reports_is_waited_for_within_the_limit() {
    for (limit, reported, seconds) in [("15m", 0, 30), ("15m", 50, 60), ("15m", 130, 150), ("70s", 900, 70)] {
        let mut backend = ManualBackend::with_release(NEW).await;
        let front = front(&backend, &[("limits.cooldown", limit)]).await;
        if reported > 0 {
            backend.report_active();
        }
        let (_, began) = cut(&front, &mut backend, FULL_UPDATE).await;
        let mut reader = open(&front, STORAGE).await;
        reader.until("may still be at work").await;
        let done = async {
            tokio::time::sleep_until(began + Duration::from_secs(reported)).await;
            backend.report_idle();
            std::future::pending::<()>().await;
        };
        let end = reader.until("Starting storage");
        tokio::select! {
            () = done => {}
            _ = end => {}
        }
        assert_eq!(began.elapsed().as_secs(), seconds, "reported for {reported} s, limits.cooldown {limit}");
        backend.next_stream().await.complete().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_read_frees_no_place_before_the_limit() {
    let mut backend = ManualBackend::with_release(NEW).await;
    backend.compress_report();
    let front = front(&backend, &[("limits.cooldown", "70s")]).await;
    let (_, began) = cut(&front, &mut backend, FULL_UPDATE).await;
    assert_eq!(waits(&front, &mut backend, began).await, 70);
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_of_zero_waits_for_nothing() {
    let mut backend = ManualBackend::with_release(OLD).await;
    let front = front(&backend, &[("limits.cooldown", "0s")]).await;
    let (_, began) = cut(&front, &mut backend, DEVICES).await;
    assert_eq!(waits(&front, &mut backend, began).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_operator_frees_a_place_at_once_and_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder)];
    let mut backend = ManualBackend::with_release(OLD).await;
    let before = front(&backend, &settings).await;
    let (job, began) = cut(&before, &mut backend, DEVICES).await;
    let mut retry = open(&before, DEVICES).await;
    retry.until(&up_to(&job, 30)).await;
    let cooldown = format!("/jobs/{job}/cooldown");
    for status in [200, 409] {
        let answer = before.admin_request("DELETE", &cooldown, &[]).await;
        assert_eq!((answer.status, answer.header(JOB)), (status, Some(job.as_str())), "{}", answer.text());
    }
    backend.next_stream().await.complete().await;
    assert_eq!(began.elapsed().as_secs(), 0);
    assert!(retry.rest().await.contains("\"ok\": true"));
    let nobody = "/jobs/01890000-0000-7000-8000-000000000000/cooldown";
    assert_eq!(before.admin_request("DELETE", nobody, &[]).await.status, 404);
    before.stop().await;
    let after = front(&backend, &settings).await;
    assert!(cooling_down(&after).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_queued_job_reports_the_cooldown_as_soon_as_the_run_before_it_is_lost() {
    let mut backend = ManualBackend::with_release(NEW).await;
    let front = front(&backend, &[]).await;
    let (first, stream) = started(&front, &mut backend, DEVICES).await;
    let mut waiting = open(&front, STORAGE).await;
    waiting.until("Waiting for devices").await;
    drop(stream);
    let began = Instant::now();
    waiting.until(&up_to(&first.job, 5)).await;
    assert_eq!(began.elapsed().as_secs(), 0);
    backend.next_stream().await.complete().await;
    assert_eq!(began.elapsed().as_secs(), 5);
    first.rest().await;
    assert_eq!(waiting.rest().await.matches("may still be at work").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_update_of_the_bridge_itself_lengthens_no_cool_down() {
    let mut backend = ManualBackend::with_release(NEW).await;
    let front = front(&backend, &[("backend.concurrency", "2")]).await;
    backend.report_active();
    let (_, began) = cut(&front, &mut backend, FULL_UPDATE).await;
    let (second, running) = started(&front, &mut backend, FULL_UPDATE).await;
    let (third, stream) = started(&front, &mut backend, STORAGE).await;
    assert_eq!(began.elapsed().as_secs(), 30);
    running.complete().await;
    stream.complete().await;
    for reader in [second, third] {
        assert!(reader.rest().await.contains("\"ok\": true"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_of_another_kind_ends_no_cool_down_of_a_reported_full_update() {
    let mut backend = ManualBackend::with_release(NEW).await;
    let front = front(&backend, &[("backend.concurrency", "2")]).await;
    backend.report_active();
    let (job, began) = cut(&front, &mut backend, FULL_UPDATE).await;
    let (running, stream) = started(&front, &mut backend, STORAGE).await;
    tokio::time::sleep_until(began + Duration::from_secs(40)).await;
    assert_eq!(cooling_down(&front).await, [job]);
    stream.complete().await;
    running.rest().await;
}
