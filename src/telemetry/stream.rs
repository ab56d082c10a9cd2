//! Events of clients that watch jobs.

use super::metrics::{METRICS, ResumeSource, Surface, WatcherDeparture};

/// A client attached to a running job.
#[derive(Debug)]
pub struct JobAttached;

impl JobAttached {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.streams.attaches.inc();
        tracing::info!("Client attached to a running job.");
    }
}

/// A client resumed a stream after an event.
#[derive(Debug)]
pub struct StreamResumed<'a> {
    /// The source of the remaining events.
    pub from: ResumeSource,
    /// The id in its `Last-Event-ID`.
    pub event: &'a str,
}

impl StreamResumed<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.streams.resumes.get(self.from).inc();
        tracing::info!(from = self.from.as_str(), event = self.event, "Client resumed after Last-Event-ID.");
    }
}

/// A client began to watch a job.
#[derive(Debug)]
pub struct WatcherOpened {
    /// The surface.
    pub surface: Surface,
}

impl WatcherOpened {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.streams.watchers.get(self.surface).inc();
        tracing::debug!(surface = self.surface.as_str(), "Watcher connected.");
    }
}

/// A client stopped watching a job.
#[derive(Debug)]
pub struct WatcherClosed {
    /// The surface.
    pub surface: Surface,
    /// Why it left before the end of the stream. `None` if it got the whole stream.
    pub departure: Option<WatcherDeparture>,
}

impl WatcherClosed {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let surface = self.surface.as_str();
        METRICS.streams.watchers.get(self.surface).dec();
        match self.departure {
            None => tracing::debug!(surface, "Watcher got the whole stream."),
            Some(departure) => {
                METRICS.streams.departures.get(departure).inc();
                tracing::info!(
                    surface,
                    reason = departure.as_str(),
                    "Watcher disconnected before the end of the stream."
                );
            }
        }
    }
}

/// A heartbeat comment was sent on an idle stream.
#[derive(Debug)]
pub struct HeartbeatSent;

impl HeartbeatSent {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.streams.heartbeats.inc();
        tracing::trace!("Heartbeat sent.");
    }
}

/// A watcher missed events that were evicted from the log of its job.
#[derive(Debug)]
pub struct FramesMissed {
    /// The number of events.
    pub missed: u64,
}

impl FramesMissed {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.streams.gaps.inc();
        METRICS.streams.gap_frames.inc_by(self.missed);
        tracing::warn!(missed = self.missed, "Watcher missed events that were evicted from the log.");
    }
}
