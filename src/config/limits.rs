//! Every limit of the bridge: none is implied.

use std::time::Duration;

use super::draft::Draft;
use crate::core::http::guard::Bounds;

/// The table `[limits]`.
///
/// Bounds and defaults stand in the table of keys ([`super::keys`]); `Limits::default()` is those
/// defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a TCP connection to the backend may take to come about.
    pub connect: Duration,
    /// How long the backend may take to say what it can do before a run, all questions together.
    pub probe: Duration,
    /// How long the backend may take from a request to the head of its response, or to its greeting on
    /// `/ws`.
    pub response_head: Duration,
    /// How long a client's status line waits for the backend to accept the work.
    pub accept_wait: Duration,
    /// How long the backend may send no event; comments and pings are none, and a stage of 73 virtual
    /// machines takes 10 minutes without one.
    pub idle: Duration,
    /// How long one job may take from its start to its end.
    pub total: Duration,
    /// The longest silence on a client's stream before a comment is sent; readers give up after 60 s.
    pub heartbeat: Duration,
    /// How long the backend must be quiet before its late frames, or its late end, are no longer waited
    /// for.
    pub settle: Duration,
    /// How long they are waited for in all: behind a final event, or behind the last object that was confirmed; at
    /// least `settle`.
    pub settle_total: Duration,
    /// How long what was learned about the backend is kept.
    pub capabilities: Duration,
    /// After how many whole seconds clients are told to try again when the backend is unreachable.
    pub retry_after: Duration,
    /// How long a client may take to send the head of its request; over HTTP/2, of its first.
    pub client_head: Duration,
    /// How long a client may take nothing of what is sent to it before it is dropped.
    pub client_write: Duration,
    /// How long a client may take to send the next piece of the body of its request.
    pub client_body: Duration,
    /// How many bytes a second of the body of its request a client must send on average, beyond the first
    /// `limits.client_body`; no minimum if this is zero.
    pub client_body_rate: usize,
    /// How long the connection of a client is kept that asks for nothing.
    pub client_idle: Duration,
    /// How long a TLS handshake may take, with clients and with the backend.
    pub handshake: Duration,
    /// After how many whole seconds without traffic the kernel sends TCP keep-alive probes to a client or the
    /// backend; never if this is zero.
    pub tcp_keepalive: Duration,
    /// How long a client or the backend may acknowledge nothing of what is sent, or keep its TCP window closed,
    /// before the kernel closes the connection (`TCP_USER_TIMEOUT`); as the system has it if this is zero.
    pub tcp_user_timeout: Duration,
    /// How many connections clients may have at once, all together.
    pub connections: usize,
    /// How many of them may come from one address; trusted proxies are not counted.
    pub connections_per_address: usize,
    /// How many bits of an IPv6 address name the network that limits by address count as one address.
    pub ipv6_prefix: usize,
    /// How many requests may be passed on at once, all together.
    pub requests: usize,
    /// How many of them may be of one client address.
    pub requests_per_address: usize,
    /// How many streams and tunnels may be open at once, all together.
    pub streams: usize,
    /// How many of them one client address may have.
    pub streams_per_address: usize,
    /// How many of them may be opened with one API key.
    pub streams_per_key: usize,
    /// How many headers a request may have.
    pub header_count: usize,
    /// The size of the largest head of a request, in bytes.
    pub head_bytes: usize,
    /// The size of the largest path and query, in bytes.
    pub target_bytes: usize,
    /// The size of the largest body of a request that is passed on, in bytes.
    pub body_bytes: usize,
    /// The size of the largest message that is taken from a client of `/ws`, in bytes.
    pub socket_bytes: usize,
    /// How long a connection to the backend is kept for the next request; backends close theirs after 5 s.
    pub pool_idle: Duration,
    /// How long one side of a tunnel may go on when the other has closed.
    pub tunnel_close: Duration,
    /// How long the backend's answer to `GET /`, `/version` or `/health` serves everybody who asks the same.
    pub coalesce: Duration,
    /// How long a key that the backend has refused is refused without asking it again.
    pub refused_key: Duration,
    /// How many wrong keys a client may try within five minutes.
    pub wrong_keys: usize,
    /// After how many failed connections in a row the backend is taken for down.
    pub breaker_failures: usize,
    /// How long a backend that is down is left alone before one request tries it again.
    pub breaker_open: Duration,
    /// After how long without a connection the bridge makes one, to know whether the backend is there; none
    /// if this is zero.
    pub check: Duration,
    /// The size of the largest event that is taken from the backend, in bytes.
    pub event_bytes: usize,
    /// How long a job without clients goes on before it is cancelled; between two tries the plugin waits
    /// 16 s, or up to 60 s where `Retry-After` asks for it.
    pub detach_grace: Duration,
    /// The shortest cool-down: how long the place of a run stays taken when the backend may still be at work
    /// on it; 5 s where the release cancels the run.
    pub cooldown_least: Duration,
    /// The longest cool-down, however long such runs take; none if this is zero.
    pub cooldown: Duration,
    /// How long running jobs may go on after the bridge was asked to stop.
    pub drain: Duration,
    /// How long the last frame of a job waits for its record to be on disk.
    pub ledger: Duration,
    /// How long the log of a job that has ended is kept in memory for clients that come back.
    pub replay: Duration,
    /// How long the ledger keeps the last frames of a job after its end.
    pub log_retention: Duration,
    /// How long the ledger keeps the record of a job after its end; not shorter than `limits.log_retention`.
    pub retention: Duration,
    /// How far the clock may be from the time that the ledger expects, before nothing is removed for its age.
    pub clock_jump: Duration,
    /// How long nothing is removed for its age after the clock has jumped.
    pub clock_hold: Duration,
    /// How many of the recorded jobs one cleaning of the ledger removes at most, in percent.
    pub clean_share: usize,
    /// The memory for the log of one job, in bytes. The oldest events go first, the first and the last 64 failures last,
    /// the first event and the end never.
    pub job_log_bytes: usize,
    /// The memory for the logs of all jobs together, in bytes; a job takes from others only what is above their fair
    /// share. What is on its way to their readers comes out of it, up to half; beyond that only `streams` bounds it.
    pub all_logs_bytes: usize,
    /// The size of the largest recording of one job, in bytes; what comes after is left out.
    pub recording_bytes: usize,
}

impl Limits {
    /// How large a request may be before its body.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            head_bytes: self.head_bytes,
            header_count: self.header_count,
            target_bytes: self.target_bytes,
        }
    }

    /// What the defaults are written over.
    pub(super) const BLANK: Self = Self {
        connect: Duration::ZERO,
        probe: Duration::ZERO,
        response_head: Duration::ZERO,
        accept_wait: Duration::ZERO,
        idle: Duration::ZERO,
        total: Duration::ZERO,
        heartbeat: Duration::ZERO,
        settle: Duration::ZERO,
        settle_total: Duration::ZERO,
        capabilities: Duration::ZERO,
        retry_after: Duration::ZERO,
        client_head: Duration::ZERO,
        client_write: Duration::ZERO,
        client_body: Duration::ZERO,
        client_body_rate: 0,
        client_idle: Duration::ZERO,
        handshake: Duration::ZERO,
        tcp_keepalive: Duration::ZERO,
        tcp_user_timeout: Duration::ZERO,
        connections: 0,
        connections_per_address: 0,
        ipv6_prefix: 0,
        requests: 0,
        requests_per_address: 0,
        streams: 0,
        streams_per_address: 0,
        streams_per_key: 0,
        header_count: 0,
        head_bytes: 0,
        target_bytes: 0,
        body_bytes: 0,
        socket_bytes: 0,
        pool_idle: Duration::ZERO,
        tunnel_close: Duration::ZERO,
        coalesce: Duration::ZERO,
        refused_key: Duration::ZERO,
        wrong_keys: 0,
        breaker_failures: 0,
        breaker_open: Duration::ZERO,
        check: Duration::ZERO,
        event_bytes: 0,
        detach_grace: Duration::ZERO,
        cooldown_least: Duration::ZERO,
        cooldown: Duration::ZERO,
        drain: Duration::ZERO,
        ledger: Duration::ZERO,
        replay: Duration::ZERO,
        log_retention: Duration::ZERO,
        retention: Duration::ZERO,
        clock_jump: Duration::ZERO,
        clock_hold: Duration::ZERO,
        clean_share: 0,
        job_log_bytes: 0,
        all_logs_bytes: 0,
        recording_bytes: 0,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Draft::default().limits
    }
}
