//! Resuming a job that only the ledger holds: which clients may.

use super::{StreamReader, front};
use crate::support::bridge::{DEVICES, data_dir};
use crate::support::manual::ManualBackend;

#[tokio::test(start_paused = true)]
async fn a_recorded_job_is_resumed_by_a_request_for_the_same_with_the_same_key_and_by_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = ManualBackend::start().await;
    let settings = [data_dir(&folder), ("limits.replay", "0s")];
    let front = front(&backend, &settings).await;
    let backups = |vm: u64| format!("/virtualization/virtual-machines/{vm}/backups/create/stream");
    let snapshots = "/virtualization/virtual-machines/7/snapshots/create/stream?a=1".to_owned();
    let own = format!("{}?a=1", backups(7));
    let key = ("X-Proxbox-API-Key", "the-key-of-a-client");
    let first = StreamReader::open(&front, &own, &[key]).await;
    let job = first.job.clone();
    first.completed(&mut backend).await;

    let last = format!("{job}.1");
    let last = ("Last-Event-ID", last.as_str());
    let another = ("X-Proxbox-API-Key", "the-key-of-another-client");
    for (target, headers) in [
        (own.clone(), &[last, another][..]),
        (own.clone(), &[last]),
        (format!("{}?a=2", backups(7)), &[last, key]),
        (format!("{}?a=1", backups(8)), &[last, key]),
        (snapshots, &[last, key]),
    ] {
        let reader = StreamReader::open(&front, &target, headers).await;
        assert_ne!(reader.job, job, "{target}");
        let text = reader.completed(&mut backend).await;
        assert!(text.contains("is unknown here, has expired, or is of another job"), "{target}: {text}");
    }
    let again = StreamReader::open(&front, &own, &[last, key]).await;
    assert_eq!(again.job, job);
    assert!(again.rest().await.starts_with(&format!("id: {job}.2\n")));
    assert!(backend.is_idle(), "a second run");
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_refused_job_is_a_stream_and_its_begin_is_the_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let (backend, front) = ManualBackend::bridged(&[data_dir(&folder)]).await;
    backend.refuse();
    assert_eq!(front.get(DEVICES, &[]).await.status, 422);
    let jobs = front.admin_request("GET", "/jobs", &[]).await.json();
    let job = jobs["results"][0]["id"].as_str().unwrap();
    for (seen, expected) in [(0, 422), (1, 200)] {
        let last = format!("{job}.{seen}");
        let answer = front.get(DEVICES, &[("Last-Event-ID", &last)]).await;
        assert_eq!(answer.status, expected, "{}", answer.text());
        let rest = format!("id: {job}.2\n");
        assert_eq!(answer.text().starts_with(&rest), expected == 200, "{}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorded_job_is_resumed_on_its_own_backend_under_any_name_and_on_no_other() {
    let (mut own, mut other) = (ManualBackend::start().await, ManualBackend::start().await);
    let address = format!("http://{}", own.address);
    let name = format!("http://localhost:{}", own.address.port());
    for (recorded, resumed) in [(&address, &name), (&name, &address)] {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = data_dir(&folder);
        let before = front(&own, &[data_dir, ("backend.url", recorded)]).await;
        let first = StreamReader::open(&before, DEVICES, &[]).await;
        let job = first.job.clone();
        first.completed(&mut own).await;
        before.stop().await;

        let last = format!("{job}.1");
        let last = [("Last-Event-ID", last.as_str())];
        let elsewhere = front(&other, &[data_dir]).await;
        let reader = StreamReader::open(&elsewhere, DEVICES, &last).await;
        assert_ne!(reader.job, job);
        reader.completed(&mut other).await;
        elsewhere.stop().await;

        let renamed = front(&own, &[data_dir, ("backend.url", resumed)]).await;
        let again = StreamReader::open(&renamed, DEVICES, &last).await;
        assert_eq!(again.job, job);
        assert!(again.rest().await.starts_with(&format!("id: {job}.2\n")));
        assert!(own.is_idle(), "a second run");
    }
}
