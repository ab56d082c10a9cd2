use std::pin::pin;

use futures::FutureExt;

use super::*;
use crate::config::{Config, Flags};
use crate::core::domain::counts::Counts;
use crate::job::handle::tests::{job_for, request};
use crate::ledger::tests::{Requests, without_writer};

/// The runner of a job that has started, and the requests to its ledger. Its backend cancels a sync without a client.
fn runner(cooldown: &str) -> (Runner, Requests) {
    let flags = Flags { backend: Some("http://127.0.0.1:1".to_owned()), ..Flags::default() };
    let cooldown = ("PROXBOX_BRIDGE_LIMITS_COOLDOWN".to_owned(), cooldown.to_owned());
    let config = Arc::new(Config::load(&flags, [cooldown]).unwrap());
    let (ledger, requests) = without_writer();
    let request = request(&config);
    let job = job_for(&request, Arc::clone(&config));
    job.record_lock().started = Some(Timestamp(1));
    let mut runner = Runner::new(Registry::new(config, ledger), job, request);
    runner.release = Some(Release::new(0, 0, 30));
    (runner, requests)
}

/// The output of a session that requests its stream.
fn opening(runner: &Runner) -> SessionOutput {
    let endpoint = runner.request.endpoint;
    let leg = Leg { endpoint, kinds: vec![endpoint.kind], channel: Channel::Native, command: None };
    SessionOutput { open: Some(leg), ..SessionOutput::default() }
}

#[tokio::test]
async fn the_start_of_a_job_is_written_before_its_backend_is_asked_whether_it_cools_down_or_not() {
    for (cooldown, is_awaited) in [("0s", false), ("15m", true)] {
        let (mut runner, mut requests) = runner(cooldown);
        let mut out = opening(&runner);
        let applied = runner.apply(&mut out).now_or_never();
        assert_eq!(applied.is_none(), is_awaited, "{cooldown}");
        assert_eq!(runner.channel.is_none(), is_awaited, "{cooldown}");
        let record = requests.complete_put().record;
        assert_eq!((record.started, record.cooldown.is_some()), (Some(Timestamp(1)), is_awaited));
    }
}

#[tokio::test]
async fn a_connection_is_closed_at_the_end_of_its_leg_and_before_the_end_of_the_job_is_written() {
    let report = RunReport {
        outcome: Outcome::Completed,
        cause: None,
        failure: None,
        counts: Counts::default(),
        failed_objects: Vec::new(),
        dropped: 0,
        unreadable: 0,
    };
    for (close, end) in [(true, None), (false, Some(report))] {
        let (mut runner, _requests) = runner("0s");
        let backend = Arc::clone(&runner.request.backend);
        let unconnected = Arc::strong_count(&backend);
        let mut out = opening(&runner);
        runner.apply(&mut out).await;
        // The connection uses the backend.
        assert_eq!(Arc::strong_count(&backend), unconnected + 1);
        let is_end = end.is_some();
        let mut out = SessionOutput { close, end, ..SessionOutput::default() };
        let mut applied = pin!(runner.apply(&mut out));
        assert_eq!(applied.as_mut().now_or_never().is_none(), is_end, "an end is awaited");
        assert_eq!(Arc::strong_count(&backend), unconnected);
    }
}
