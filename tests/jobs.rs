//! Jobs outlive their clients: clients attach to a running job, detach and resume.

mod broken;
mod cooldown;
mod prepared;
mod resumed;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::bridge::{
    Answer, BridgedReplay, Client, DEVICES, KEY, STORAGE, TestBridge, WITH_KEY, config, data_dir, fast,
    ledger, poll_until, recorded, recordings,
};
use crate::support::manual::ManualBackend;
use crate::support::session::stream::{self, Event};
use futures::future::join_all;
use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::event::StepStatus;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::core::wire::sse::frame::{Frame, FrameName};
use proxbox_bridge::ledger::{JobEnd, JobId, JobUpdate, LoggedFrame, Record, Stored, Timestamp};
use proxbox_bridge::recording::{Direction, Protocol, RecordedEvent, RecordedKey, Recording};
use proxbox_bridge::replay::{Library, ReplayOptions, Speed};
use tokio::time::{Duration, Instant};

const JOB: &str = "x-proxbox-bridge-job";

/// A client of a stream, and the body that it has read so far.
struct StreamReader {
    client: Client,
    job: String,
    body: Vec<u8>,
}

impl StreamReader {
    async fn open(front: &TestBridge, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut client = front.open(target, headers).await;
        let (status, headers) = client.head().await;
        assert_eq!(status, 200);
        let job = headers.into_iter().find(|(name, _)| name == JOB).unwrap().1;
        Self { client, job, body: Vec::new() }
    }

    /// Reads up to and including `text`.
    async fn until(&mut self, text: &str) -> &mut Self {
        while !String::from_utf8_lossy(&self.body).contains(text) {
            let chunk = self.client.chunk().await;
            assert!(!chunk.is_empty(), "no {text} in {}", String::from_utf8_lossy(&self.body));
            self.body.extend(chunk);
        }
        self
    }

    /// Completes the next run of `backend`, and reads to the clean end.
    async fn completed(self, backend: &mut ManualBackend) -> String {
        backend.next_stream().await.complete().await;
        self.rest().await
    }

    /// Reads to the clean end.
    async fn rest(mut self) -> String {
        self.body.extend(self.client.answer_body().await);
        String::from_utf8(self.body).unwrap()
    }
}

fn ids(events: &[Event]) -> Vec<u64> {
    let ids = events.iter().filter_map(|event| event.id.as_deref());
    ids.map(|id| id.rsplit_once('.').unwrap().1.parse().unwrap()).collect()
}

fn end(record: &Record) -> (Outcome, Option<Cause>) {
    let end = record.end.as_ref().unwrap();
    (end.outcome, end.cause)
}

async fn front(backend: &ManualBackend, settings: &[(&str, &str)]) -> TestBridge {
    TestBridge::start(config(backend.address, settings)).await
}

#[tokio::test(start_paused = true)]
async fn two_identical_requests_are_one_run_and_both_get_all_of_it() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let mut first = StreamReader::open(&front, &format!("{DEVICES}?a=1&run_id=x&bridge.ids=0"), &[]).await;
    let mut stream = backend.next_stream().await;
    assert_eq!(stream.target, format!("{DEVICES}?a=1&run_id=x"));
    stream.device("pve1", "completed").await;
    first.until("Synced device pve1").await;
    let second = StreamReader::open(&front, &format!("{DEVICES}?run_id=y&a=1"), &[]).await;
    assert_eq!(first.job, second.job);
    stream.device("pve2", "completed").await;
    stream.complete().await;
    let (first, second) = tokio::join!(first.rest(), second.rest());
    assert_eq!(first, second);
    assert_eq!(stream::read(first.as_bytes()).len(), 5);
    assert!(backend.is_idle(), "a second run");
}

#[tokio::test(start_paused = true)]
async fn what_one_client_wants_kept_another_one_does_not_see() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    for (first, second) in [("bridge.payload=1", "bridge.ids=0"), ("bridge.ids=0", "bridge.payload=1")] {
        let first = StreamReader::open(&front, &format!("{DEVICES}?{first}"), &[]).await;
        let second = StreamReader::open(&front, &format!("{DEVICES}?{second}"), &[]).await;
        let mut stream = backend.next_stream().await;
        stream.device("pve1", "completed").await;
        stream.complete().await;
        let (first, second) = (first.rest().await, second.rest().await);
        let wants_more = second.contains("keeps no payloads");
        assert_eq!(first.contains("\"payload\": "), !wants_more, "{first}");
        assert!(!second.contains("\"payload\": "), "{second}");
        stream::read(second.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn another_scope_is_another_job_that_waits_for_its_turn_and_says_so() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let first = StreamReader::open(&front, DEVICES, &[]).await;
    let stream = backend.next_stream().await;
    let mut second = StreamReader::open(&front, &format!("{DEVICES}?proxmox_endpoint_ids=1"), &[]).await;
    assert_ne!(first.job, second.job);
    let third = StreamReader::open(&front, STORAGE, &[]).await;
    let began = Instant::now();
    let waiting = "Waiting for devices synchronization to finish on this backend.";
    second.until(waiting).await;
    second.body.clear();
    second.until(waiting).await;
    assert_eq!(began.elapsed().as_secs(), 15, "as often as a sign of life is due");
    assert!(backend.is_idle(), "two runs at once");
    stream.complete().await;
    let stream = backend.next_stream().await;
    assert!(stream.target.starts_with(&format!("{DEVICES}?proxmox_endpoint_ids=1")), "{}", stream.target);
    second.until("Starting devices synchronization.").await;
    stream.complete().await;
    let third = third.completed(&mut backend).await;
    assert!(third.contains("and for 1 more that waits."), "{third}");
    for body in [first.rest().await, third] {
        assert_eq!(stream::read(body.as_bytes()).last().unwrap().data["ok"], true);
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_run_at_once_as_may() {
    let (mut backend, front) = ManualBackend::bridged(&[("backend.concurrency", "2")]).await;
    let first = StreamReader::open(&front, DEVICES, &[]).await;
    let second = StreamReader::open(&front, STORAGE, &[]).await;
    let (one, two) = (backend.next_stream().await, backend.next_stream().await);
    two.complete().await;
    one.complete().await;
    for reader in [first, second] {
        assert!(!reader.rest().await.contains("Waiting"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_sync_is_refused_while_one_runs() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let fresh = format!("{DEVICES}?bridge.fresh=1");
    let answer = front.get(&fresh, &[]).await;
    assert_eq!((answer.status, answer.header(JOB)), (409, Some(reader.job.as_str())));
    assert!(answer.detail().contains(&reader.job), "{}", answer.text());
    reader.completed(&mut backend).await;
    let reader = StreamReader::open(&front, &fresh, &[]).await;
    reader.completed(&mut backend).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_says_when_to_come_again() {
    let (_backend, front) = ManualBackend::bridged(&[("backend.queue", "1")]).await;
    let _running = StreamReader::open(&front, DEVICES, &[]).await;
    let _waiting = StreamReader::open(&front, STORAGE, &[]).await;
    let answer = front.get("/full-update/stream", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")));
    assert!(answer.detail().contains("backend.queue"), "{}", answer.text());
    // Attaching to a running job takes no slot.
    StreamReader::open(&front, STORAGE, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_reconnects_within_the_grace_period_gets_every_frame_once() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let mut reader = StreamReader::open(&front, &format!("{DEVICES}?bridge.ids=1"), &[]).await;
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    let seen = String::from_utf8(reader.until("Synced device pve1").await.body.clone()).unwrap();
    let last = seen.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(reader);
    stream.device("pve2", "completed").await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    let again = StreamReader::open(&front, DEVICES, &[("Last-Event-ID", &last)]).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    stream.device("pve3", "completed").await;
    stream.complete().await;
    let rest = again.rest().await;
    let events = stream::read_with_ids(format!("{seen}{rest}").as_bytes());
    assert_eq!(ids(&events), (1..=6).collect::<Vec<_>>());
    assert!(backend.is_idle(), "a second run");
}

#[tokio::test(start_paused = true)]
async fn a_browser_says_what_it_has_seen_in_its_query() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let job = reader.job.clone();
    backend.next_stream().await.complete().await;
    let all = stream::read(reader.rest().await.as_bytes()).len() as u64;
    let again = StreamReader::open(&front, &format!("{DEVICES}?bridge.last_event_id={job}.1"), &[]).await;
    assert_eq!(again.job, job);
    let rest = again.rest().await;
    assert!(rest.starts_with(&format!("id: {job}.2\n")) && rest.contains("event: complete"), "{rest}");
    let seen = front.get(&format!("{DEVICES}?bridge.last_event_id={job}.{all}"), &[]).await;
    assert_eq!((seen.status, seen.body.len()), (204, 0), "so that an EventSource stops");
    assert!(backend.is_idle(), "a second run");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_unknown_is_answered_loudly_and_the_stream_starts_at_its_start() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let first = StreamReader::open(&front, STORAGE, &[]).await;
    backend.next_stream().await.complete().await;
    let foreign = format!("{}.1", first.job);
    first.rest().await;
    for id in ["nonsense", "01a20e6c-5420-7656-8f37-5478c697a10d.3", &foreign] {
        let reader = StreamReader::open(&front, DEVICES, &[("Last-Event-ID", id)]).await;
        backend.next_stream().await.complete().await;
        let job = reader.job.clone();
        let body = reader.rest().await;
        let (notice, rest) = body.split_once("\n\n").unwrap();
        assert!(notice.contains(&format!("This stream starts at event 1 of job {job}")), "{notice}");
        assert_eq!(ids(&stream::read_with_ids(rest.as_bytes()))[0], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn another_credential_gets_nothing_of_a_job() {
    let options =
        ReplayOptions { api_key: Some(KEY.to_owned()), speed: Speed::Times(1.0), ..ReplayOptions::default() };
    let pair = BridgedReplay::start(recordings("0.0.11.post2", &[]), options, &[]).await;
    let mine = WITH_KEY;
    let mut reader = StreamReader::open(&pair.front, DEVICES, &mine).await;
    reader.until("event: step").await;
    let id = format!("{}.1", reader.job);
    for other in
        [vec![("Last-Event-ID", id.as_str())], vec![("Last-Event-ID", &id), ("X-Proxbox-API-Key", "wrong")]]
    {
        // It is another job, and gets the backend's own refusal, in its stream if it was queued.
        let answer = pair.front.get(DEVICES, &other).await;
        assert_ne!(answer.header(JOB), Some(reader.job.as_str()));
        let refused = answer.status == 401 || answer.text().contains("\"ok\": false");
        assert!(refused && !answer.text().contains("Discovered"), "{}", answer.text());
    }
    assert!(reader.rest().await.contains("\"ok\": true"));
}

#[tokio::test(start_paused = true)]
async fn a_job_without_watchers_is_cancelled_after_the_grace_period() {
    for (policy, seconds) in [("grace", 60), ("cancel", 0)] {
        let folder = tempfile::tempdir().unwrap();
        let mut backend = ManualBackend::start().await;
        let settings = [("jobs.on_disconnect", policy), data_dir(&folder)];
        let front = front(&backend, &settings).await;
        let mut reader = StreamReader::open(&front, DEVICES, &[]).await;
        let mut stream = backend.next_stream().await;
        stream.device("pve1", "completed").await;
        reader.until("Synced device pve1").await;
        let began = Instant::now();
        drop(reader);
        stream.wait_disconnected().await;
        assert_eq!(began.elapsed().as_secs(), seconds, "{policy}");
        front.stop().await;
        let records = recorded(folder.path()).await;
        assert_eq!(end(&records[0]), (Outcome::Cancelled, Some(Cause::ClientGone)), "{policy}");
        assert_eq!(records[0].progress.counts.total().completed, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_continues_without_watchers_if_configured() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let settings = [("jobs.on_disconnect", "continue"), data_dir(&folder)];
    let front = front(&backend, &settings).await;
    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    drop(reader);
    tokio::time::advance(Duration::from_secs(600)).await;
    stream.device("pve1", "completed").await;
    let again = StreamReader::open(&front, DEVICES, &[]).await;
    stream.complete().await;
    let text = again.rest().await;
    assert!(text.contains("Synced device pve1"));
    front.stop().await;
    let records = recorded(folder.path()).await;
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(end(record), (Outcome::Completed, None));
    assert_eq!(record.progress.bytes_out, text.len() as u64);
    assert_eq!((record.progress.attaches, record.progress.watchers), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_next_to_a_hundred_healthy_ones_delays_none() {
    let mut backend = ManualBackend::start().await;
    let settings = [("limits.job_log_bytes", "65536"), ("limits.streams_per_address", "200")];
    let front = front(&backend, &settings).await;
    let stalled = front.open(DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    let mut healthy = Vec::new();
    for _ in 0..100 {
        healthy.push(StreamReader::open(&front, DEVICES, &[]).await);
    }
    let backend_side = async {
        for number in 0..2000 {
            stream.device(&format!("pve{number}"), "completed").await;
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        stream.complete().await;
    };
    let (bodies, ()) = tokio::join!(join_all(healthy.into_iter().map(StreamReader::rest)), backend_side);
    assert_eq!(bodies.len(), 100);
    // What is the same for several is read once.
    for body in bodies.into_iter().collect::<BTreeSet<_>>() {
        let events = stream::read(body.as_bytes());
        let reported = |event: &Event| {
            let missed = event.data["message"]
                .as_str()?
                .strip_suffix(" earlier events are no longer kept and could not be sent.")?;
            missed.parse::<usize>().ok()
        };
        // A reader may be behind for a moment; then it knows by how much.
        let missed: usize = events.iter().filter_map(reported).sum();
        let gaps = events.iter().filter(|event| reported(event).is_some()).count();
        assert_eq!(events.len() - gaps + missed, 2003);
        assert_eq!(events.last().unwrap().data["result"]["count"], 2000);
    }
    drop(stalled);
}

#[tokio::test(start_paused = true)]
async fn a_reader_misses_no_event_of_a_backend_that_sends_more_at_once_than_the_log_holds() {
    let (mut backend, front) = ManualBackend::bridged(&[("limits.job_log_bytes", "131072")]).await;
    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let mut sender = backend.next_stream().await;
    sender.devices(2000).await;
    let (text, ()) = tokio::join!(reader.rest(), sender.complete());
    assert!(!text.contains("no longer kept"));
    assert_eq!(stream::read(text.as_bytes()).len(), 2003);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_dropped_after_the_write_limit() {
    let mut backend = ManualBackend::start().await;
    let settings = [("jobs.on_disconnect", "cancel"), ("limits.client_write", "40s")];
    let front = front(&backend, &settings).await;
    let _stalled = Client::with_little_room(front.address, DEVICES).await;
    let mut stream = backend.next_stream().await;
    // More than what lies between the two.
    for number in 0..20_000 {
        stream.device(&format!("pve{number}{:0200}", 0), "completed").await;
    }
    let began = Instant::now();
    stream.wait_disconnected().await;
    let seconds = began.elapsed().as_secs();
    assert!((39..=41).contains(&seconds), "{seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_late_watcher_of_a_long_job_gets_a_notice_of_evicted_events_and_every_failure() {
    let (mut backend, front) = ManualBackend::bridged(&[("limits.job_log_bytes", "65536")]).await;
    let mut reader = StreamReader::open(&front, DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    for number in 0..2000 {
        let status = if number % 200 == 0 { "failed" } else { "completed" };
        stream.device(&format!("pve{number}"), status).await;
    }
    reader.until("device pve1999").await;
    let late = StreamReader::open(&front, &format!("{DEVICES}?bridge.ids=1"), &[]).await;
    stream.complete().await;
    let late = late.rest().await;
    assert!(late.starts_with("id: ") && late.split("\n\n").next().unwrap().contains("\"started\""), "{late}");
    let gap = late.split("\n\n").find(|frame| frame.contains("no longer kept")).unwrap();
    assert!(!gap.starts_with("id:"), "a reader that comes back must not say that it has seen it: {gap}");
    assert_eq!(late.matches("\"status\": \"failed\"").count(), 10);
    assert_eq!(late.matches("no longer kept").count(), 1);
    let missed: usize =
        gap.split("\"message\": \"").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(late.matches("id: ").count() + missed, 2003);
}

#[tokio::test(start_paused = true)]
async fn a_late_watcher_of_a_job_with_many_failures_gets_the_number_of_evicted_failures() {
    let (mut backend, front) = ManualBackend::bridged(&[("limits.job_log_bytes", "65536")]).await;
    let mut reader = StreamReader::open(&front, DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    for number in 0..2000 {
        stream.device(&format!("pve{number}"), "failed").await;
    }
    reader.until("device pve1999").await;
    let late = StreamReader::open(&front, DEVICES, &[]).await;
    stream.complete().await;
    let late = late.rest().await;
    let failed = late.matches("\"status\": \"failed\", \"message\"").count();
    let gone = format!("Failures of this job that are no longer kept: {}.", 2000 - failed);
    assert!(failed < 400 && late.contains(&gone), "{failed} of 2000: {late}");
    assert!(late.contains("device pve0:") && late.contains("device pve1999:"), "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_ended_is_replayed_from_the_ledger_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let settings = [data_dir(&folder)];
    let before = front(&backend, &settings).await;
    let reader = StreamReader::open(&before, &format!("{DEVICES}?bridge.ids=1"), &[]).await;
    let job = reader.job.clone();
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    stream.complete().await;
    let whole = reader.rest().await;
    before.stop().await;
    let after = front(&backend, &settings).await;
    let again = StreamReader::open(&after, DEVICES, &[("Last-Event-ID", &format!("{job}.2"))]).await;
    let rest = again.rest().await;
    assert!(whole.ends_with(&rest) && rest.starts_with(&format!("id: {job}.3\n")), "{rest}");
    let last = stream::read_with_ids(whole.as_bytes()).len();
    let seen = after.get(DEVICES, &[("Last-Event-ID", &format!("{job}.{last}"))]).await;
    assert_eq!(seen.status, 204);
    assert!(backend.is_idle(), "a second run");
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_query_holds_a_secret_is_resumed_from_the_ledger_which_does_not_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let settings = [data_dir(&folder)];
    let before = front(&backend, &settings).await;
    let target = format!("{DEVICES}?api_key={KEY}&a=1");
    let reader = StreamReader::open(&before, &target, &[]).await;
    let job = reader.job.clone();
    reader.completed(&mut backend).await;
    before.stop().await;
    assert_eq!(recorded(folder.path()).await[0].query, "api_key=[hidden]&a=1");
    let after = front(&backend, &settings).await;
    let last = format!("{job}.1");
    let again = StreamReader::open(&after, &target, &[("Last-Event-ID", &last)]).await;
    assert_eq!(again.job, job);
    assert!(again.rest().await.starts_with(&format!("id: {job}.2\n")));
    assert!(backend.is_idle(), "a second run");
}

async fn ready(front: &TestBridge) -> Answer {
    Client::send(front.admin, "GET", "/readyz", &[]).await.answer().await
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_stops_lets_jobs_end_begins_none_and_then_ends_them_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let settings = [data_dir(&folder), ("backend.concurrency", "2")];
    let mut front = front(&backend, &settings).await;
    let ends = StreamReader::open(&front, DEVICES, &[]).await;
    let ending = backend.next_stream().await;
    let stays = StreamReader::open(&front, STORAGE, &[]).await;
    let _staying = backend.next_stream().await;
    let mut waits = StreamReader::open(&front, "/full-update/stream", &[]).await;
    waits.until("Waiting for").await;
    assert_eq!(ready(&front).await.status, 200);
    let began = Instant::now();
    front.request_stop();
    let waited = waits.rest().await;
    assert!(waited.contains("The bridge is stopping") && waited.contains("\"ok\": false"), "{waited}");
    assert_eq!(began.elapsed().as_secs(), 0, "what has not begun does not begin any more");
    let readiness = ready(&front).await;
    assert_eq!((readiness.status, &readiness.json()["draining"]), (503, &true.into()));
    let refused = front.get("/full-update/stream", &[]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("30")));
    // Clients still attach to a running job.
    let attached = StreamReader::open(&front, DEVICES, &[]).await;
    ending.complete().await;
    for reader in [ends, attached] {
        assert!(reader.rest().await.contains("\"ok\": true"));
    }
    let interrupted = stays.rest().await;
    stream::read(interrupted.as_bytes());
    assert!(interrupted.contains("The bridge is stopping"), "{interrupted}");
    assert_eq!(began.elapsed().as_secs(), 30, "limits.drain");
    front.stop().await;
    let mut ends: Vec<_> = recorded(folder.path()).await.iter().map(end).collect();
    ends.sort_by_key(|(outcome, _)| outcome.as_str());
    let stopped = (Outcome::Interrupted, Some(Cause::Stopping));
    assert_eq!(ends, [(Outcome::Completed, None), stopped, stopped]);
}

#[tokio::test(start_paused = true)]
async fn a_second_request_to_stop_does_not_wait() {
    let (mut backend, mut front) = ManualBackend::bridged(&[("limits.drain", "1h")]).await;
    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let _stream = backend.next_stream().await;
    let began = Instant::now();
    front.request_stop();
    let stopping = async { while ready(&front).await.status == 200 {} };
    tokio::time::timeout(Duration::from_secs(60), stopping).await.unwrap();
    front.request_immediate_stop();
    stream::read(reader.rest().await.as_bytes());
    front.stop().await;
    assert!(began.elapsed().as_secs() <= 1, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_ledger_jobs_go_on_or_are_refused_and_readiness_says_why() {
    for (policy, status) in [("continue", 200), ("refuse", 503)] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ledger.sqlite3"), [b'x'; 5000]).unwrap();
        let mut backend = ManualBackend::start().await;
        let settings = [data_dir(&folder), ("jobs.without_ledger", policy)];
        let front = front(&backend, &settings).await;
        let readiness = ready(&front).await;
        assert_eq!(readiness.status, status, "{policy}");
        assert!(readiness.json()["ledger"]["reason"].is_string(), "{}", readiness.text());
        if status == 200 {
            let reader = StreamReader::open(&front, DEVICES, &[]).await;
            assert!(reader.completed(&mut backend).await.contains("\"ok\": true"));
        } else {
            let answer = front.get(DEVICES, &[]).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")));
            assert!(answer.detail().contains("jobs.without_ledger"), "{}", answer.text());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_before_it_began_is_recorded_with_the_backends_detail() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder)];
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let pair = BridgedReplay::start(recordings("0.0.11.post2", &[]), options, &settings).await;
    let headers = [("X-Proxbox-API-Key", "wrong"), ("X-Proxbox-Actor", "ada")];
    assert_eq!(pair.front.get(DEVICES, &headers).await.status, 401);
    assert_eq!(pair.front.get(DEVICES, &WITH_KEY).await.status, 200);
    let BridgedReplay { front, backend: _backend } = pair;
    front.stop().await;
    let records = recorded(folder.path()).await;
    let [good, bad] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(end(bad), (Outcome::Errored, Some(Cause::KeyRefused)));
    let failure = bad.end.as_ref().unwrap().failure.as_ref().unwrap();
    assert!(failure.detail.contains("API key"), "{failure:?}");
    assert_eq!(
        (bad.requester.actor.as_deref(), bad.requester.address.as_deref()),
        (Some("ada"), Some("127.0.0.1"))
    );
    assert_ne!(bad.requester.fingerprint, good.requester.fingerprint);
    assert_eq!(end(good), (Outcome::Completed, None));
    assert_eq!(
        (good.channels.as_slice(), good.progress.counts.total().completed),
        ([Stored::Known(Channel::Native)].as_slice(), 3)
    );
    assert!(
        good.progress.frames_in > 3 && good.progress.frames_out > 3 && good.progress.first_frame.is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_is_recorded_without_the_key_and_can_be_replayed() {
    for (version, channel) in
        [("0.0.2.post1", "websocket"), ("0.0.30.post2", "native"), ("0.0.11.post2", "websocket")]
    {
        let folder = tempfile::tempdir().unwrap();
        let settings = [data_dir(&folder), ("jobs.recording", "on"), ("backend.channel", channel)];
        let mine = WITH_KEY;
        let pair = BridgedReplay::start(recordings(version, &[]), fast(), &settings).await;
        let answer = pair.front.get(DEVICES, &mine).await;
        let job = answer.header(JOB).unwrap().parse().unwrap();
        let files: Vec<_> = proxbox_bridge::job::recordings(folder.path(), job).collect();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!text.contains(KEY), "{text}");
        let recording = Recording::parse(&text).unwrap();
        assert!(version.starts_with(&recording.header.backend), "{:?}", recording.header);
        if channel == "websocket" {
            // What a command loop was doing cannot be seen on the wire, so that this is for people to read.
            assert!(recording.frames.iter().any(|frame| frame.event == RecordedEvent::text("Sync Nodes")));
            continue;
        }
        let again = Library::load(folder.path().join("recordings"), &[]).unwrap();
        let again = BridgedReplay::start(again, fast(), &[("backend.channel", channel)]).await;
        let replayed = again.front.get(DEVICES, &mine).await;
        assert_eq!(replayed.text(), answer.text(), "{version} {channel}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_is_bounded_and_says_where_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder), ("jobs.recording", "on"), ("limits.recording_bytes", "65536")];
    let (mut backend, front) = ManualBackend::bridged(&settings).await;
    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let job = reader.job.parse().unwrap();
    let mut stream = backend.next_stream().await;
    for number in 0..1000 {
        stream.device(&format!("pve{number}"), "completed").await;
    }
    stream.complete().await;
    reader.rest().await;
    let file = proxbox_bridge::job::recordings(folder.path(), job).next().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.len() <= 65536 + 100, "{}", text.len());
    assert_eq!(Recording::parse(&text).unwrap().frames.last().unwrap().event, RecordedEvent::Open);
}

#[tokio::test(start_paused = true)]
async fn recordings_are_for_one_user_alone_and_go_with_the_logs_of_their_jobs_however_old_they_look() {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = tempfile::tempdir().unwrap();
    let recordings = folder.path().join("recordings");
    let mut backend = ManualBackend::start().await;
    let now = Timestamp::now();
    let ended = |id| {
        let (outcome, cause) = (Outcome::Completed, None);
        let end = JobEnd { finished: now, outcome, cause, failure: None, failed_objects: Vec::new() };
        Record { id, end: Some(end), ..Record::new("http://backend".parse().unwrap(), Kind::Devices, now) }
    };
    let [unknown, without_log, cut_off, with_log] = [(); 4].map(|()| JobId::new());
    let bytes = "event: complete\ndata: {\"ok\": true, \"message\": \"m\"}\n\n".into();
    let frame = Frame { name: FrameName::Complete, bytes, payload: None };
    let frames = vec![LoggedFrame { sequence: 1, at: now, frame }];
    let ledger = ledger(folder.path()).await;
    for job in [without_log, cut_off, with_log] {
        ledger.put(JobUpdate::new(ended(job), frames.clone())).await.unwrap();
    }
    ledger.close().await;
    let rows = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    rows.execute("UPDATE jobs SET logged = 0 WHERE id <> ?1", [with_log.to_string()]).unwrap();
    drop(rows);
    // As an earlier release of the bridge created them.
    std::fs::create_dir(&recordings).unwrap();
    std::fs::set_permissions(&recordings, Permissions::from_mode(0o755)).unwrap();
    let recording = Recording::new("0.0.11.post2", Protocol::Http, RecordedKey::Sent)
        .with(0.0, Direction::Out, RecordedEvent::get(DEVICES))
        .with(1.0, Direction::In, RecordedEvent::End);
    let leg = |job: JobId| if job == cut_off { 2 } else { 1 };
    let file = |job: JobId| recordings.join(format!("{job}.{}.ndjson", leg(job)));
    for job in [unknown, without_log, cut_off, with_log] {
        let mut made = std::fs::File::create(file(job)).unwrap();
        made.write_all(recording.to_ndjson().as_bytes()).unwrap();
        made.set_permissions(Permissions::from_mode(0o644)).unwrap();
        let is_young = job == without_log || job == cut_off;
        let age = Duration::from_secs(if is_young { 0 } else { 14 * 24 * 60 * 60 });
        made.set_modified(std::time::SystemTime::now() - age).unwrap();
    }
    let settings = [data_dir(&folder), ("jobs.recording", "on")];
    let front = front(&backend, &settings).await;
    poll_until(async || (!file(without_log).exists() && !file(cut_off).exists()).then_some(())).await;
    assert_eq!([&file(unknown), &file(with_log), &recordings].map(|path| mode(path)), [0o600, 0o600, 0o700]);

    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let job = reader.job.parse().unwrap();
    reader.completed(&mut backend).await;
    assert_eq!(mode(&proxbox_bridge::job::recordings(folder.path(), job).next().unwrap()), 0o600);
}

#[tokio::test(start_paused = true)]
async fn recordings_of_failed_jobs_alone_are_kept_if_configured_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let front = front(&backend, &[data_dir(&folder), ("jobs.recording", "failed")]).await;
    let recording = |job| proxbox_bridge::job::recordings(folder.path(), job).next();

    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let completed = reader.job.parse().unwrap();
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    poll_until(async || recording(completed)).await;
    stream.complete().await;
    reader.rest().await;
    assert_eq!(recording(completed), None);

    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let failed = reader.job.parse().unwrap();
    drop(backend.next_stream().await);
    reader.rest().await;
    assert!(recording(failed).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_cleaning_keeps_the_recording_of_a_running_job_that_is_not_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let settings = [data_dir(&folder), ("jobs.recording", "on")];
    let front = front(&backend, &settings).await;
    let reader = StreamReader::open(&front, DEVICES, &[]).await;
    let job = reader.job.parse().unwrap();
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    let recording = || proxbox_bridge::job::recordings(folder.path(), job).next();
    poll_until(async || recording()).await;
    // The ledger becomes one that is older than the job.
    let rows = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    rows.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('begun', zeroblob(8))", []).unwrap();
    rows.execute("DELETE FROM jobs", []).unwrap();
    assert_eq!(front.admin_request("POST", "/clean", &[]).await.status, 200);
    assert!(recording().is_some());
    assert_eq!(rows.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0)), Ok(0));
    stream.complete().await;
    reader.rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_in_latin1_is_recorded_as_the_text_that_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, front) = ManualBackend::bridged(&[data_dir(&folder)]).await;
    for actor in [&b"caf\xe9"[..], "café".as_bytes()] {
        let request = format!("GET {DEVICES} HTTP/1.1\r\nHost: {}\r\nX-Proxbox-Actor: ", front.address);
        let request = [request.as_bytes(), actor, b"\r\n\r\n"].concat();
        let client = Client::raw(front.address, &request).await;
        backend.next_stream().await.complete().await;
        assert_eq!(client.answer().await.status, 200);
    }
    front.stop().await;
    let actors = recorded(folder.path()).await.into_iter().map(|record| record.requester.actor);
    assert_eq!(actors.collect::<Vec<_>>(), [Some("café".to_owned()), Some("café".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_backend_repeats_reaches_neither_a_reader_nor_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, front) = ManualBackend::bridged(&[data_dir(&folder)]).await;
    let keys = [KEY, "a-key-in-the-query"];
    let reader = StreamReader::open(&front, &format!("{DEVICES}?api_key={}", keys[1]), &WITH_KEY).await;
    let job = reader.job.clone();
    let mut stream = backend.next_stream().await;
    for key in keys {
        stream.device(&format!("pve {key}"), "failed").await;
        stream.vm("web01", Some(&format!("Refused {key}."))).await;
    }
    stream.complete().await;
    let read = reader.rest().await;
    let failed = front.admin_request("GET", &format!("/jobs/{job}/failed"), &[]).await;
    for text in [read.as_str(), failed.text()] {
        assert!(text.contains("pve [hidden]") && text.contains("Refused [hidden]."), "{text}");
        assert!(!keys.iter().any(|key| text.contains(key)), "{text}");
    }
    front.stop().await;
    let [record] = recorded(folder.path()).await.try_into().unwrap();
    let record = format!("{record:?}");
    assert!(!keys.iter().any(|key| record.contains(key)) && record.contains("[hidden]"), "{record}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_came_further_than_the_ledger_is_given_the_whole_end_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut manual = ManualBackend::start().await;
    let now = Timestamp::now();
    let backend = format!("http://{}", manual.address).parse().unwrap();
    let record = Record { started: Some(now), ..Record::new(backend, Kind::Devices, now) };
    let id = record.id;
    let step = "event: step\ndata: {\"step\": \"devices\", \"status\": \"started\", \"message\": \"Starting.\", \"rowid\": null}\n\n";
    let step = Frame { name: FrameName::Step(StepStatus::Started), bytes: step.into(), payload: None };
    let frame = |sequence| LoggedFrame { sequence, at: Timestamp::now(), frame: step.clone() };
    let ledger = ledger(folder.path()).await;
    let (broken, finished) = (JobId::new(), Timestamp::now());
    let end = JobEnd {
        finished,
        outcome: Outcome::Interrupted,
        cause: Some(Cause::Crashed),
        failure: None,
        failed_objects: Vec::new(),
    };
    let bytes = "event: complete\ndata: {\"ok\": false, \"message\": \"It failed.\"}\n\n".into();
    let last = Frame { name: FrameName::Complete, bytes, payload: None };
    let whole = vec![frame(1), LoggedFrame { sequence: 2, at: finished, frame: last }];
    let other = Record { id: broken, end: Some(end), ..record.clone() };
    ledger.put(JobUpdate::new(other, whole)).await.unwrap();
    ledger.put(JobUpdate::new(record, (1..=5).map(frame).collect())).await.unwrap();
    ledger.close().await;
    let front = front(&manual, &[data_dir(&folder)]).await;
    let from = |number: u64| format!("{DEVICES}?bridge.last_event_id={id}.{number}");
    for (number, steps) in [(3, 2), (5, 0), (7, 0), (8, 0)] {
        let answer = front.get(&from(number), &[]).await;
        let events = stream::read_with_ids(&answer.body);
        assert_eq!(events.len(), steps + 3, "{number}: {}", answer.text());
        assert_eq!(events.last().unwrap().data["ok"], false);
    }
    let whole = front.get(&format!("{DEVICES}?bridge.last_event_id={broken}.1"), &[]).await;
    assert_eq!(whole.text().matches("event: complete").count(), 1, "the one that it had: {}", whole.text());
    let whole = front.get(&from(5), &[]).await;
    let last = ids(&stream::read_with_ids(&whole.body)).pop().unwrap();
    assert_eq!(front.get(&from(last), &[]).await.status, 204);
    assert!(manual.is_idle(), "a second run");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_began_before_the_ledger_was_open_is_resumed_by_its_own_client_and_so_are_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let settings = [data_dir(&folder), ("limits.replay", "0s")];
    let key = [("X-Proxbox-API-Key", "a-key-of-a-client")];
    let ended = async |front: &TestBridge, backend: &mut ManualBackend| {
        let reader = StreamReader::open(front, DEVICES, &key).await;
        let job = reader.job.clone();
        reader.completed(backend).await;
        job
    };
    let started = front(&backend, &settings).await;
    let older = ended(&started, &mut backend).await;
    started.stop().await;

    let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let late = front(&backend, &settings).await;
    let reader = StreamReader::open(&late, DEVICES, &key).await;
    let early = reader.job.clone();
    let stream = backend.next_stream().await;
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    poll_until(async || (ready(&late).await.json()["ledger"]["available"] == true).then_some(())).await;
    stream.complete().await;
    reader.rest().await;
    let newer = ended(&late, &mut backend).await;
    let resumed = async |front: &TestBridge| {
        for job in [&older, &early, &newer] {
            let target = format!("{DEVICES}?bridge.last_event_id={job}.1");
            let answer = front.get(&target, &key).await;
            assert_eq!(answer.header("x-proxbox-bridge-job"), Some(&**job), "{}", answer.text());
        }
    };
    resumed(&late).await;
    late.stop().await;
    // Its first secret is gone with the process, but for what stands in the ledger.
    let again = front(&backend, &settings).await;
    resumed(&again).await;
    assert!(backend.is_idle(), "a second run");
}

#[tokio::test(start_paused = true)]
async fn resuming_with_payloads_a_job_without_payloads_gets_a_notice() {
    for (replay, first, notice) in [
        ("0s", "bridge.payload=1", Some("This job has ended, and the rest of its record has no payloads.")),
        ("5m", "bridge.ids=1", Some("This job was there already, and keeps no payloads.")),
        ("5m", "bridge.payload=1", None),
    ] {
        let (mut backend, front) = ManualBackend::bridged(&[("limits.replay", replay)]).await;
        let reader = StreamReader::open(&front, &format!("{DEVICES}?{first}"), &[]).await;
        let job = reader.job.clone();
        reader.completed(&mut backend).await;
        for wanted in ["", "&bridge.payload=1"] {
            let target = format!("{DEVICES}?bridge.last_event_id={job}.1{wanted}");
            let answer = front.get(&target, &[]).await;
            let text = answer.text();
            match notice.filter(|_| !wanted.is_empty()) {
                Some(notice) => {
                    let (first, rest) = text.split_once("\n\n").unwrap();
                    assert!(first.contains("\"started\"") && first.contains(notice), "{text}");
                    assert!(rest.starts_with(&format!("id: {job}.2\n")), "{text}");
                }
                None => assert!(!text.contains("payloads"), "{replay} {first} {wanted}: {text}"),
            }
            assert_eq!(text.matches("event: complete\n").count(), 1, "{text}");
        }
        let admin = front.admin_request("GET", &format!("/jobs/{job}/events?bridge.payload=1"), &[]).await;
        assert_eq!(
            notice.is_some_and(|notice| admin.text().contains(notice)),
            notice.is_some(),
            "{}",
            admin.text()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn resuming_with_all_events_a_job_recorded_without_them_gets_a_notice() {
    let (mut backend, front) = ManualBackend::bridged(&[("limits.replay", "0s")]).await;
    for (first, is_told) in [("bridge.ids=1", true), ("bridge.events=all", false)] {
        let reader = StreamReader::open(&front, &format!("{DEVICES}?{first}"), &[]).await;
        let job = reader.job.clone();
        let mut stream = backend.next_stream().await;
        stream.send_event("discovery").await;
        stream.complete().await;
        reader.rest().await;
        let resumed = format!("{DEVICES}?bridge.last_event_id={job}.1");
        let missing = "the rest of its record has no events of the backend's own types";
        let answer = front.get(&format!("{resumed}&bridge.events=all"), &[]).await;
        let all = answer.text();
        assert_eq!((all.contains(missing), all.contains("event: discovery")), (is_told, !is_told), "{all}");
        let answer = front.get(&resumed, &[]).await;
        let ours = answer.text();
        assert!(!ours.contains(missing) && !ours.contains("event: discovery"), "{ours}");
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_are_still_in_memory_are_recorded_anew_when_the_ledger_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let data = folder.path().join("data");
    let front = front(&backend, &[data_dir(&data)]).await;
    let reader = StreamReader::open(&front, STORAGE, &[]).await;
    let ended = reader.job.clone();
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "failed").await;
    stream.complete().await;
    let ended = (ended, stream::read(reader.rest().await.as_bytes()).len());
    let running = StreamReader::open(&front, DEVICES, &[]).await;
    let stream = backend.next_stream().await;
    std::fs::remove_dir_all(&data).unwrap();
    let rows = || {
        let connection = rusqlite::Connection::open(data.join("ledger.sqlite3")).ok()?;
        connection.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).ok()
    };
    poll_until(async || rows().filter(|rows| *rows == 2)).await;
    let ready = ready(&front).await;
    let reasons = ready.json()["reasons"].to_string();
    assert_eq!(ready.status, 200, "{reasons}");
    assert!(reasons.contains("ledger.sqlite3 was deleted"), "{reasons}");
    let metrics = front.admin_request("GET", "/metrics", &[]).await;
    assert!(!metrics.text().contains("proxbox_bridge_ledger_files_lost_total 0"), "{}", metrics.text());
    stream.complete().await;
    let job = running.job.clone();
    let job = (job, stream::read(running.rest().await.as_bytes()).len());
    front.stop().await;
    let ledger = ledger(&data).await;
    for ((id, frames), outcome, failed) in [(ended, Outcome::Errored, 1), (job, Outcome::Completed, 0)] {
        let id = id.parse().unwrap();
        let record = ledger.job(id).await.unwrap().unwrap();
        assert_eq!(end(&record).0, outcome);
        assert_eq!(ledger.frames(id).await.unwrap().len(), frames);
        // The failed objects were in the lost file alone, and the record says that they are gone.
        assert_eq!(record.progress.failed_left_out, failed);
        assert_eq!(ledger.failed(id, 0, 10).await.unwrap(), []);
    }
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_without_a_record_where_that_is_forbidden_also_when_it_is_new_that_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let settings = [data_dir(&folder), ("jobs.without_ledger", "refuse")];
    let front = front(&backend, &settings).await;
    let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(ready(&front).await.status, 200, "nobody knows it yet");
    let answer = front.get(DEVICES, &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")));
    assert!(answer.detail().contains("jobs.without_ledger"), "{}", answer.text());
    assert!(backend.is_idle(), "a run without a record");
}

#[tokio::test(start_paused = true)]
async fn no_client_attaches_to_a_job_that_is_being_cancelled() {
    let (mut backend, front) = ManualBackend::bridged(&[("jobs.on_disconnect", "cancel")]).await;
    for _ in 0..10 {
        let reader = StreamReader::open(&front, DEVICES, &[]).await;
        let stream = backend.next_stream().await;
        let cancelled = reader.job.clone();
        drop(reader);
        stream.wait_disconnected().await;
        let again = StreamReader::open(&front, DEVICES, &[]).await;
        assert_ne!(again.job, cancelled);
        assert!(again.completed(&mut backend).await.contains("\"ok\": true"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_heartbeats_while_all_events_are_filtered_out() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let all = StreamReader::open(&front, &format!("{DEVICES}?bridge.events=all"), &[]).await;
    let mut ours = StreamReader::open(&front, DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    ours.until("event: step").await;
    let began = Instant::now();
    let talk = async {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            stream.send_event("discovery").await;
        }
    };
    tokio::select! {
        () = talk => {}
        _ = ours.until(": keepalive") => {}
    }
    assert_eq!(began.elapsed().as_secs(), 15);
    stream.complete().await;
    assert!(all.rest().await.contains("event: discovery"));
    assert!(!ours.rest().await.contains("event: discovery"));
}
