use std::sync::Arc;

use super::family::Label;
use crate::core::domain::counts::{Count, Counts};
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::{Outcome, RunReport};
use crate::core::remote::Remote;
use crate::telemetry::backend::BackendMetrics;
use crate::telemetry::metrics::jobs::JobResult;
use crate::telemetry::metrics::*;

fn exposed() -> String {
    String::from_utf8(text(&GaugeReadings::default())).unwrap()
}

fn series(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

#[test]
fn every_label_knows_its_place() {
    fn check<L: Label>() {
        for (index, label) in L::all().into_iter().enumerate() {
            assert_eq!(label.index(), index, "{} {}", L::NAME, label.value());
        }
    }
    check::<Kind>();
    check::<Option<Cause>>();
    check::<Option<Channel>>();
    check::<FrameType>();
    check::<Limit>();
    check::<RejectReason>();
    check::<Route>();
    check::<Status>();
    check::<Listener>();
    check::<Surface>();
    check::<ResumeSource>();
    check::<WatcherDeparture>();
    check::<NotificationResult>();
    check::<ObjectResult>();
    check::<ReloadResult>();
    check::<ShimLabel>();
    check::<Option<NetboxRule>>();
    check::<ConnectResult>();
    check::<Circuit>();
}

#[test]
fn every_series_is_there_from_the_start_and_there_are_few() {
    let _backends = crate::telemetry::BACKENDS_IN_TEST.blocking_lock();
    let mut backends =
        ["one", "two", "three"].map(|name| BackendMetrics::new(Remote::Backend, name)).to_vec();
    backends.push(BackendMetrics::with_netbox_listener("old"));
    super::super::set_backends(backends.clone());
    let text = exposed();
    for line in [
        "proxbox_bridge_jobs_running{backend=\"one\",kind=\"devices\"} ",
        "proxbox_bridge_jobs_waiting{backend=\"one\"} ",
        "proxbox_bridge_job_wait_seconds_bucket{backend=\"one\",le=\"21600\"} 0",
        "proxbox_bridge_jobs_total{backend=\"one\",cause=\"none\",kind=\"sdn\",outcome=\"completed\",source=\"none\"} 0",
        "proxbox_bridge_job_duration_seconds_bucket{backend=\"one\",le=\"21600\"} 0",
        "proxbox_bridge_job_last_duration_seconds{backend=\"one\",kind=\"full-update\"} 0",
        "proxbox_bridge_backend_response_head_seconds_count{backend=\"one\"} 0",
        "proxbox_bridge_http_request_duration_seconds_count{route=\"stream\"} ",
        "proxbox_bridge_http_requests_in_flight{listener=\"admin\"} ",
        "proxbox_bridge_job_last_success_timestamp_seconds{backend=\"one\",kind=\"storage\"} ",
        "proxbox_bridge_job_frame_age_seconds{backend=\"one\"} 0",
        "proxbox_bridge_objects_total{backend=\"one\",result=\"unconfirmed\"} ",
        "proxbox_bridge_backend_frames_total{channel=\"websocket\",type=\"step\"} ",
        "proxbox_bridge_frames_total{channel=\"none\",type=\"complete\"} ",
        "proxbox_bridge_terminals_written_total{channel=\"native\"} ",
        "proxbox_bridge_resumes_total{from=\"ledger\"} ",
        "proxbox_bridge_watchers{surface=\"socket\"} ",
        "proxbox_bridge_watchers_dropped_total{reason=\"stalled\"} ",
        "proxbox_bridge_http_requests_total{route=\"passthrough\",status=\"5xx\"} ",
        "proxbox_bridge_refusals_total{cause=\"key_refused\"} ",
        "proxbox_bridge_shims_total{action=\"refused\",shim=\"templates\"} ",
        "proxbox_bridge_rejections_total{reason=\"two_lengths\"} ",
        "proxbox_bridge_over_limit_total{limit=\"streams\"} ",
        "proxbox_bridge_connections{listener=\"admin\"} ",
        "proxbox_bridge_backend_up{backend=\"one\"} ",
        "proxbox_bridge_backend_info{backend=\"one\",dialect=\"unknown\",version=\"unknown\"} 1",
        "proxbox_bridge_backend_connects_total{backend=\"one\",result=\"tls\"} ",
        "proxbox_bridge_backend_circuit_state{backend=\"one\",state=\"closed\"} 1",
        "proxbox_bridge_netbox_requests_total{backend=\"old\",rule=\"none\"} 0",
        "proxbox_bridge_netbox_requests_total{backend=\"old\",rule=\"last_updated\"} 0",
        "proxbox_bridge_ledger_commit_seconds_count ",
        "proxbox_bridge_notifications_total{result=\"dropped\"} ",
        "proxbox_bridge_reloads_total{result=\"failure\"} ",
        "proxbox_bridge_draining ",
        "proxbox_bridge_build_info{version=\"",
    ] {
        assert!(series(&text).any(|known| known.starts_with(line)), "{line} in {text}");
    }
    // With two results more for each kind than the completed one.
    for kind in Kind::all() {
        for result in [JobResult::ObjectsUnconfirmed, JobResult::Failed(Cause::BackendLost)] {
            jobs::ended("one", kind, result, Count::default(), None);
            jobs::ended("two", kind, result, Count::default(), None);
        }
    }
    let text = exposed();
    let others = series(&text).filter(|line| !line.contains("backend=\"")).count();
    let each = series(&text).filter(|line| line.contains("backend=\"two\"")).count();
    assert!(each <= 150, "{each} series for each backend");
    assert!(others + each < 600, "{} series with one backend", others + each);
    let of = |backend: &str| series(&text).filter(|line| line.contains(backend)).count();
    assert_eq!(
        of("=\"old\"") - of("=\"three\""),
        9,
        "those of its NetBox listener, which others do not have"
    );

    // A series of ended jobs is exposed with 0 before its first value.
    let end = |result| jobs::ended("three", Kind::Devices, result, Count::default(), Some(700.0));
    let value = || {
        let series = "proxbox_bridge_jobs_total{backend=\"three\",cause=\"backend_nonsense\",kind=\"devices\",outcome=\"errored\",source=\"backend\"} ";
        exposed().lines().find_map(|line| Some(line.strip_prefix(series)?.to_owned())).unwrap()
    };
    let nonsense = JobResult::Failed(Cause::BackendNonsense);
    end(nonsense);
    end(nonsense);
    assert_eq!((value(), value()), ("0".to_owned(), "2".to_owned()));
    end(nonsense);
    assert_eq!(value(), "3");
    let running = jobs::running("three", Kind::Devices);
    let text = exposed();
    for line in [
        "job_duration_seconds_bucket{backend=\"three\",le=\"600\"} 0",
        "job_duration_seconds_bucket{backend=\"three\",le=\"1200\"} 3",
        "job_last_duration_seconds{backend=\"three\",kind=\"devices\"} 0",
        "jobs_running{backend=\"three\",kind=\"devices\"} 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }

    // A removed backend leaves no series, and a new one with its name starts at zero.
    let [one, two, three] = [&backends[0], &backends[1], &backends[2]].map(Arc::clone);
    three.set_last_success(Kind::Devices, 1.0);
    super::super::set_backends(vec![Arc::clone(&one), two]);
    three.set_last_success(Kind::Devices, 2.0);
    jobs::ended("three", Kind::Devices, JobResult::Completed, Count::default(), None);
    drop(running);
    assert!(!exposed().contains("backend=\"three\"") && !exposed().contains("backend=\"old\""));
    one.set_last_success(Kind::Devices, 3.0);
    super::super::set_backends(vec![BackendMetrics::new(Remote::Backend, "one")]);
    one.set_last_success(Kind::Devices, 4.0);
    let text = exposed();
    assert!(text.contains("last_success_timestamp_seconds{backend=\"one\",kind=\"devices\"} 0"));
    let lost = "jobs_total{backend=\"one\",cause=\"backend_lost\",kind=\"devices\",outcome=\"errored\",source=\"backend\"} 1";
    assert!(text.contains(lost), "the jobs of a name are counted on: {text}");
}

#[test]
fn every_cause_has_one_outcome_and_none_is_completed() {
    for cause in Cause::ALL {
        assert_ne!(cause.outcome(), Outcome::Completed, "{}", cause.as_str());
    }
    let report = |cause: Option<Cause>, failed, unconfirmed| {
        let count = Count { seen: 9, completed: 9, failed, unconfirmed };
        let report = RunReport {
            outcome: cause.map_or(Outcome::Completed, Cause::outcome),
            cause,
            failure: None,
            counts: Counts(vec![(Object::Device, count)]),
            failed_objects: Vec::new(),
            dropped: 0,
            unreadable: 0,
        };
        JobResult::from_report(&report).labels()
    };
    assert_eq!(report(None, 0, 0), ["completed", "none", "none"]);
    assert_eq!(report(None, 1, 1), ["completed", "objects_failed", "none"]);
    assert_eq!(report(None, 0, 1), ["completed", "objects_unconfirmed", "none"]);
    assert_eq!(report(Some(Cause::ClientGone), 1, 0), ["cancelled", "client_gone", "client"]);
}
