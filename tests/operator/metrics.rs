//! Metrics have the right values.

use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpListener;

use super::{OLD, RunningBridge};
use crate::support::bridge::{
    BridgedReplay, Client, DEVICES, FULL_UPDATE, fast, poll_until, recordings, replayed,
};
use crate::support::manual::ManualBackend;
use proxbox_bridge::replay::ReplayOptions;

#[tokio::test]
async fn a_job_is_counted_from_its_first_frame_to_its_last() {
    let backend = replayed(recordings(OLD, &[]), fast()).await;
    let name = backend.local_addr().to_string();
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    assert_eq!(bridge.get(FULL_UPDATE).await.status, 200);
    let (of, job) = (format!("backend=\"{name}\""), "kind=\"full-update\"");
    // Three objects are not confirmed. The series is new, and has been exposed with 0 once.
    let ended = format!(
        "jobs_total{{{of},cause=\"objects_unconfirmed\",{job},outcome=\"completed\",source=\"none\"}}"
    );
    assert_eq!(bridge.value(&ended).await, 0.0);
    let clean = format!("jobs_total{{{of},cause=\"none\",{job},outcome=\"completed\",source=\"none\"}}");
    for (series, wanted) in [
        (ended.as_str(), 1.0),
        (&clean, 0.0),
        (&format!("jobs_running{{{of},{job}}}"), 0.0),
        (&format!("jobs_waiting{{{of}}}"), 0.0),
        (&format!("job_wait_seconds_count{{{of}}}"), 1.0),
        (&format!("job_duration_seconds_count{{{of}}}"), 1.0),
        (&format!("job_frame_age_seconds{{{of}}}"), 0.0),
        // What the README shows of this recording.
        (&format!("objects_total{{{of},result=\"completed\"}}"), 12.0),
        (&format!("objects_total{{{of},result=\"unconfirmed\"}}"), 3.0),
        ("backend_frames_total{channel=\"websocket\",type=\"complete\"}", 2.0),
        ("frames_total{channel=\"websocket\",type=\"complete\"}", 1.0),
        ("frames_total{channel=\"websocket\",type=\"error\"}", 0.0),
        ("terminals_written_total{channel=\"websocket\"}", 0.0),
        ("http_requests_total{route=\"stream\",status=\"2xx\"}", 1.0),
        ("http_request_duration_seconds_count{route=\"stream\"}", 1.0),
        ("http_requests_in_flight{listener=\"clients\"}", 0.0),
        // The scrape itself.
        ("http_requests_in_flight{listener=\"admin\"}", 1.0),
        ("connections_total{listener=\"clients\"}", 1.0),
        (&format!("backend_up{{backend=\"{name}\"}}"), 1.0),
        (&format!("backend_info{{backend=\"{name}\",dialect=\"0.0.2\",version=\"0.0.2\"}}"), 1.0),
        (&format!("backend_circuit_state{{backend=\"{name}\",state=\"closed\"}}"), 1.0),
        ("ledger_available", 1.0),
        ("draining", 0.0),
    ] {
        assert_eq!(bridge.value(series).await, wanted, "{series}");
    }
    bridge.wait_for_value("watchers{surface=\"stream\"}", 0.0).await;
    bridge.wait_for_value("connections{listener=\"clients\"}", 0.0).await;
    assert!(bridge.value("watchers_dropped_total{reason=\"left\"}").await == 0.0, "it has seen the end");
    assert!(bridge.value("log_bytes").await > 1000.0);
    assert!(bridge.value("tasks").await >= 1.0, "the scrape runs in one");
    assert!(bridge.value("ledger_commit_seconds_count").await >= 2.0);
    let frames = bridge.value("frames_total{channel=\"websocket\",type=\"step\"}").await + 1.0;
    let jobs = bridge.admin("GET", "/jobs").await.json();
    assert_eq!(jobs["results"][0]["frames_out"], frames, "the ledger and the metrics agree");
    let last_success =
        |kind: &str| format!("job_last_success_timestamp_seconds{{backend=\"{name}\",kind=\"{kind}\"}}");
    let succeeded = bridge.value(&last_success("full-update")).await;
    assert!(succeeded > 1.7e9, "{succeeded}");

    // The next bridge knows it from the ledger.
    let RunningBridge { process, _data: data } = bridge;
    process.terminate();
    assert_eq!(process.ended().0, Some(0));
    let bridge = RunningBridge::with_data(data, backend.local_addr(), &[]);
    bridge.wait_for_value(&last_success("full-update"), succeeded).await;
    assert_eq!(bridge.value(&last_success("devices")).await, 0.0);
}

#[tokio::test]
async fn a_backend_that_is_cut_off_is_blamed_and_its_end_is_ours() {
    let options = ReplayOptions { cut_after: Some(10), ..fast() };
    let backend = replayed(recordings(OLD, &[]), options).await;
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    assert_eq!(bridge.get(FULL_UPDATE).await.status, 200);
    let ended = format!(
        "jobs_total{{backend=\"{}\",cause=\"backend_lost\",kind=\"full-update\",outcome=\"errored\",source=\"backend\"}}",
        backend.local_addr()
    );
    assert_eq!(bridge.value(&ended).await, 0.0, "new");
    assert_eq!(bridge.value(&ended).await, 1.0);
    assert_eq!(bridge.value("terminals_written_total{channel=\"websocket\"}").await, 1.0);
    assert_eq!(bridge.value("frames_total{channel=\"websocket\",type=\"error\"}").await, 1.0);
    let backend = backend.local_addr();
    let succeeded =
        format!("job_last_success_timestamp_seconds{{backend=\"{backend}\",kind=\"full-update\"}}");
    assert_eq!(bridge.value(&succeeded).await, 0.0);
}

#[tokio::test]
async fn what_runs_waits_and_is_watched_now_can_be_seen() {
    let mut backend = ManualBackend::start().await;
    let bridge = RunningBridge::start(backend.address, &[("limits.heartbeat", "1s")]);
    let mut watching = Client::send(bridge.process.address, "GET", DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "progress").await;
    assert_eq!(watching.head().await.0, 200);
    bridge.wait_for_value("backend_frames_total{channel=\"native\",type=\"step\"}", 1.0).await;
    let storage = "/virtualization/virtual-machines/storage/create/stream";
    let mut waiting = Client::send(bridge.process.address, "GET", storage, &[]).await;
    assert_eq!(waiting.head().await.0, 200);
    let attached = Client::send(bridge.process.address, "GET", DEVICES, &[]).await;
    let name = backend.address;
    let running = |kind: &str| format!("jobs_running{{backend=\"{name}\",kind=\"{kind}\"}}");
    let queued = format!("jobs_waiting{{backend=\"{name}\"}}");
    for (series, wanted) in [
        (running("devices").as_str(), 1.0),
        (&running("storage"), 0.0),
        (&queued, 1.0),
        ("watchers{surface=\"stream\"}", 3.0),
        ("attaches_total", 1.0),
    ] {
        bridge.wait_for_value(series, wanted).await;
    }
    // The backend is silent, and readers get heartbeats.
    poll_until(async || (bridge.value("heartbeats_total").await >= 1.0).then_some(())).await;
    let frame_age = format!("job_frame_age_seconds{{backend=\"{name}\"}}");
    let age = bridge.value(&frame_age).await;
    assert!(age > 0.5);
    stream.device("pve2", "progress").await;
    poll_until(async || (bridge.value(&frame_age).await < age).then_some(())).await;
    drop(attached);
    bridge.wait_for_value("watchers_dropped_total{reason=\"left\"}", 1.0).await;
    stream.complete().await;
    let next = backend.next_stream().await;
    assert!(bridge.value(&format!("backend_response_head_seconds_count{{backend=\"{name}\"}}")).await >= 2.0);
    bridge.wait_for_value(&queued, 0.0).await;
    bridge.wait_for_value(&format!("job_wait_seconds_count{{backend=\"{name}\"}}"), 2.0).await;
    next.complete().await;
    bridge.wait_for_value("watchers{surface=\"stream\"}", 0.0).await;
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_is_behind_and_is_dropped() {
    let mut backend = ManualBackend::start().await;
    let bridge = RunningBridge::start(backend.address, &[("limits.client_write", "2s")]);
    let mut client = Client::with_little_room(bridge.process.address, DEVICES).await;
    let mut stream = backend.next_stream().await;
    // More than the buffers of the system hold.
    let name = "n".repeat(4000);
    let mut behind = 0.0;
    for number in 0..100_000 {
        stream.device(&format!("{number}{name}"), "completed").await;
        if number % 100 == 99 {
            behind = bridge.value("watcher_lag_frames").await;
            if behind > 100.0 {
                break;
            }
        }
    }
    assert!(behind > 100.0);
    bridge.wait_for_value("watchers_dropped_total{reason=\"stalled\"}", 1.0).await;
    bridge.wait_for_value("watchers{surface=\"stream\"}", 0.0).await;
    bridge.wait_for_value("watcher_lag_frames", 0.0).await;
    assert_eq!(client.head().await.0, 200);
}

#[tokio::test]
async fn clients_that_come_back_and_what_they_have_missed_are_counted() {
    let mut backend = ManualBackend::start().await;
    let settings = [("limits.job_log_bytes", "65536"), ("limits.all_logs_bytes", "65536")];
    let bridge = RunningBridge::start(backend.address, &settings);
    let mut first = Client::send(bridge.process.address, "GET", DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    assert_eq!(first.head().await.0, 200);
    for number in 0..500 {
        let name = format!("pve{number}");
        stream.device(&name, "completed").await;
        // A client that reads everything misses nothing.
        first.read_until(&name).await;
    }
    stream.complete().await;
    while !first.chunk().await.is_empty() {}
    let job = bridge.admin("GET", "/jobs").await.json();
    let id = job["results"][0]["id"].as_str().unwrap().to_owned();
    let last = job["results"][0]["frames_out"].as_u64().unwrap();
    let come = async |event: String| {
        let headers = [("Last-Event-ID", event.as_str())];
        Client::send(bridge.process.address, "GET", DEVICES, &headers).await.answer().await.status
    };
    assert_eq!(come(format!("{id}.2")).await, 200);
    assert_eq!(come(format!("{id}.{last}")).await, 204);
    assert_eq!(bridge.value("resumes_total{from=\"memory\"}").await, 1.0);
    assert_eq!(bridge.value("resumes_total{from=\"seen\"}").await, 1.0);
    assert_eq!(bridge.value("gaps_total").await, 1.0);
    assert!(bridge.value("gap_frames_total").await > 10.0);
}

#[tokio::test]
async fn a_backend_that_is_gone_is_down_without_anybody_asking_and_is_back_when_it_is() {
    let backend = replayed(recordings(OLD, &[]), fast()).await;
    let address = backend.local_addr();
    let settings =
        [("limits.check", "50ms"), ("limits.breaker_failures", "2"), ("limits.breaker_open", "1s")];
    let bridge = RunningBridge::start(address, &settings);
    let of = |series: &str, label: &str| format!("{series}{{backend=\"{address}\"{label}}}");
    bridge.wait_for_value(&of("backend_up", ""), 1.0).await;
    drop(backend);
    bridge.wait_for_value(&of("backend_up", ""), 0.0).await;
    bridge.wait_for_value(&of("backend_circuit_state", ",state=\"open\""), 1.0).await;
    assert_eq!(bridge.value(&of("backend_circuit_state", ",state=\"closed\"")).await, 0.0);
    assert!(bridge.value(&of("backend_connects_total", ",result=\"failed\"")).await >= 2.0);
    let backends = bridge.admin("GET", "/backends").await.json();
    assert_eq!(
        (&backends["results"][0]["up"], &backends["results"][0]["circuit"]),
        (&false.into(), &"open".into())
    );
    let _again = TcpListener::bind(address).await.unwrap();
    bridge.wait_for_value(&of("backend_up", ""), 1.0).await;
    bridge.wait_for_value(&of("backend_circuit_state", ",state=\"closed\""), 1.0).await;
}

#[tokio::test]
async fn the_expiry_of_the_certificate_is_a_metric() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["bridge.test".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2040, 2, 29);
    let certificate = parameters.self_signed(&key).unwrap();
    let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let settings =
        [("tls.certificate", cert_file.to_str().unwrap()), ("tls.key", key_file.to_str().unwrap())];
    let bridge = RunningBridge::start(([127, 0, 0, 1], 1).into(), &settings);
    assert_eq!(bridge.value("certificate_expiry_timestamp_seconds").await, 2_214_086_400.0);
}

#[tokio::test]
async fn what_a_release_lacks_is_counted_by_gap() {
    let BridgedReplay { backend, front: _front } =
        BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    for (target, status) in [
        ("/health", 200),
        ("/version", 200),
        ("/proxmox/firewall/summary", 200),
        ("/auth/bootstrap-status", 200),
        ("/proxmox/endpoints", 422),
        ("/proxmox/cluster/status?proxmox_endpoint_ids=1", 422),
        ("/full-update/stream?proxmox_endpoint_ids=1", 422),
        ("/cluster/backup/stream", 404),
    ] {
        assert_eq!(bridge.get(target).await.status, status, "{target}");
    }
    for (shim, action, count) in [
        ("health", "emulated", 1.0),
        ("version", "emulated", 1.0),
        ("inventory", "emulated", 1.0),
        ("auth", "emulated", 1.0),
        ("proxmox_endpoints", "refused", 1.0),
        ("scope", "refused", 2.0),
        ("aliases", "translated", 1.0),
    ] {
        let series = format!("shims_total{{action=\"{action}\",shim=\"{shim}\"}}");
        assert_eq!(bridge.value(&series).await, count, "{series}");
    }
}

#[tokio::test]
async fn requests_of_a_backend_to_netbox_are_counted_by_rule_and_the_first_of_each_is_logged() {
    let (netbox, silent) = (replayed(recordings(OLD, &[]), fast()).await, "127.0.0.1:1");
    let url = format!("http://{}", netbox.local_addr());
    let settings = [("backend.netbox_listen", "127.0.0.1:0"), ("backend.netbox_url", url.as_str())];
    let mut bridge = RunningBridge::start(silent.parse().unwrap(), &settings);
    let listener = bridge.process.listening();
    for token in ["Token nbt_key.s3cret", "Token nbt_key.s3cret", "Token 0123456789abcdef"] {
        let headers = [("Authorization", token)];
        Client::send(listener, "GET", "/api/status/", &headers).await.answer().await;
    }
    Client::send(listener, "GET", "/api/status/", &[]).await.answer().await;
    for (rule, wanted) in [("netbox_token", 2.0), ("none", 1.0), ("netbox_links", 0.0), ("last_updated", 0.0)]
    {
        let series = format!("netbox_requests_total{{backend=\"{silent}\",rule=\"{rule}\"}}");
        assert_eq!(bridge.value(&series).await, wanted, "{series}");
    }
    assert_eq!(bridge.value("shims_total{action=\"translated\",shim=\"netbox_token\"}").await, 2.0);
    let line = bridge.process.read_to("First request to NetBox changed by this rule.");
    let fields = &line;
    let words = ["backend", "rule", "action", "method", "path"].map(|name| fields[name].as_str().unwrap());
    assert_eq!(words, [silent, "netbox_token", "translated", "GET", "/api/status/"]);
    assert!(!bridge.process.lines.contains("s3cret"));
}

#[tokio::test]
async fn what_is_refused_is_counted_by_why() {
    let BridgedReplay { backend, front: _front } =
        BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    assert_eq!(bridge.get("/virtualization/virtual-machines/backups/all/create/stream").await.status, 404);
    let mut odd = Client::raw(bridge.process.address, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert_eq!(odd.head().await.0, 400);
    assert_eq!(bridge.get("/nowhere").await.status, 404);
    for (series, wanted) in [
        ("refusals_total{cause=\"unsupported\"}", 1.0),
        ("http_requests_total{route=\"stream\",status=\"4xx\"}", 1.0),
        ("http_requests_total{route=\"none\",status=\"4xx\"}", 1.0),
        ("http_requests_total{route=\"passthrough\",status=\"4xx\"}", 1.0),
    ] {
        assert_eq!(bridge.value(series).await, wanted, "{series}");
    }
    let metrics = bridge.admin("GET", "/metrics").await;
    let rejections =
        metrics.text().lines().filter(|line| line.starts_with("proxbox_bridge_rejections_total"));
    assert_eq!(rejections.filter(|line| line.ends_with(" 1")).count(), 1);
}
