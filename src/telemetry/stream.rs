//! What happens to those who watch jobs.

use super::metrics::{METRICS, ResumeSource, Surface, WatcherDeparture};

/// A client came to a job that was there already.
#[derive(Debug)]
pub struct JobAttached;

impl JobAttached {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.streams.attaches.inc();
        tracing::info!("Client came to a job that was there.");
    }
}

/// A client said which event it had seen last.
#[derive(Debug)]
pub struct StreamResumed<'a> {
    /// Where the rest comes from.
    pub from: ResumeSource,
    /// What it said.
    pub event: &'a str,
}

impl StreamResumed<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.streams.resumes.get(self.from).inc();
        tracing::info!(from = self.from.as_str(), event = self.event, "Client goes on behind an event.");
    }
}

/// A client begins to read the log of a job.
#[derive(Debug)]
pub struct WatcherOpened {
    /// Where.
    pub surface: Surface,
}

impl WatcherOpened {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.streams.watchers.get(self.surface).inc();
        tracing::debug!(surface = self.surface.as_str(), "Watcher came.");
    }
}

/// A client reads it no more.
#[derive(Debug)]
pub struct WatcherClosed {
    /// Where it was.
    pub surface: Surface,
    /// How it went, if that was before the end.
    pub departure: Option<WatcherDeparture>,
}

impl WatcherClosed {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let surface = self.surface.as_str();
        METRICS.streams.watchers.get(self.surface).dec();
        match self.departure {
            None => tracing::debug!(surface, "Watcher has seen the end."),
            Some(departure) => {
                METRICS.streams.departures.get(departure).inc();
                tracing::info!(surface, reason = departure.as_str(), "Watcher is gone before the end.");
            }
        }
    }
}

/// A comment was sent, because nothing else was there to send.
#[derive(Debug)]
pub struct HeartbeatSent;

impl HeartbeatSent {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.streams.heartbeats.inc();
        tracing::trace!("Heartbeat sent.");
    }
}

/// A reader was told of events that are gone.
#[derive(Debug)]
pub struct FramesMissed {
    /// How many.
    pub missed: u64,
}

impl FramesMissed {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.streams.gaps.inc();
        METRICS.streams.gap_frames.inc_by(self.missed);
        tracing::warn!(missed = self.missed, "A reader came too late for events that are gone.");
    }
}
