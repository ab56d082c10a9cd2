//! The limits: every timeout and every bound of the bridge.

use std::time::Duration;

use super::key::keys;
use super::value::{Durations, bytes, count, days, hours, mins, secs};
use crate::core::http::guard::HeadLimits;

/// Far beyond any use, and far below where adding it to a clock could overflow.
const WEEK: Duration = days(7);
/// A time in which something has to happen.
const POSITIVE: Durations = Durations { least: Duration::from_millis(1), most: WEEK, is_whole: false };
/// A time that can be zero.
const ANY: Durations = Durations { least: Duration::ZERO, ..POSITIVE };
/// Clients give up after 60 s of silence, and the contract requires a sign of life every 15 s.
const HEARTBEAT: Durations = Durations { least: secs(1), most: secs(15), is_whole: false };
/// A backend closes its idle connections after 5 s, and no request may meet that.
const POOL_IDLE: Durations =
    Durations { least: Duration::ZERO, most: Duration::from_millis(4500), is_whole: false };
/// `Retry-After` is in whole seconds.
const RETRY_AFTER: Durations = Durations { least: secs(1), most: secs(60), is_whole: true };
/// The kernel counts in whole seconds, up to 32,767.
const KEEPALIVE: Durations = Durations { least: Duration::ZERO, most: hours(1), is_whole: true };
/// How long something stays on disk, which may be years.
const RETENTION: Durations = Durations { least: mins(1), most: days(3650), is_whole: false };
/// 16 GiB, or the largest size where that is less.
const HUGE: usize = match 1_usize.checked_shl(34) {
    Some(bytes) => bytes,
    None => usize::MAX,
};

keys! {
    /// The table `[limits]`.
    pub struct Limits in "limits." {
        /// Time to establish a TCP connection to the backend.
        connect: Duration = secs(10), within POSITIVE, per backend;
        /// Time for all requests together that learn before a run what the backend can do. A backend that runs a sync
        /// may block for seconds.
        probe: Duration = secs(10), within POSITIVE, per backend;
        /// Time from a request until the backend sends the response head, or its greeting on `/ws`.
        response_head: Duration = mins(10), within POSITIVE, per backend;
        /// Time that the response head of a stream waits for the backend to accept the work; `0s` does not wait.
        accept_wait: Duration = secs(10), within ANY, per backend;
        /// Time without an event from the backend before the run fails. Comments and pings do not count as events. A
        /// stage of 73 virtual machines sends none for 10 minutes.
        idle: Duration = mins(30), within POSITIVE, per backend;
        /// Time from the start of a job to its end.
        total: Duration = hours(6), within POSITIVE, per backend;
        /// Longest silence on a client's stream before the bridge sends a comment. Clients give up after 60 s.
        heartbeat: Duration = secs(15), within HEARTBEAT;
        /// Silence of the backend that ends the wait for late frames, or for a late end.
        settle: Duration = secs(3), within ANY, per backend;
        /// Total time of that wait, after a final event or after the last object that was confirmed; at least
        /// `limits.settle`.
        settle_total: Duration = secs(30), within ANY, per backend;
        /// Time for which the bridge remembers what a backend can do; `0s` probes before every run.
        capabilities: Duration = mins(5), within ANY, per backend;
        /// `Retry-After` of the 503 that is sent while the backend is unreachable.
        retry_after: Duration = secs(30), within RETRY_AFTER, per backend;
        /// Time for a client to send a request head; over HTTP/2, the first one.
        client_head: Duration = secs(15), within POSITIVE;
        /// Time for which a client may read nothing of what is sent to it before its connection is closed.
        client_write: Duration = mins(1), within POSITIVE;
        /// Time for a client to send the next part of a request body.
        client_body: Duration = secs(30), within POSITIVE;
        /// Lowest average rate of a request body, in bytes per second, after the first `limits.client_body`; 0: none.
        client_body_rate: usize = 500, within bytes(0, 1 << 20);
        /// Time for which a client's idle connection is kept.
        client_idle: Duration = secs(75), within POSITIVE;
        /// Time for a TLS handshake, with clients and with the backend.
        handshake: Duration = secs(10), within POSITIVE;
        /// Time without traffic before the kernel sends TCP keep-alive probes to a client or the backend; `0s`: never.
        tcp_keepalive: Duration = secs(30), within KEEPALIVE, per backend;
        /// Time for which a client or the backend may acknowledge nothing, or keep its TCP window closed, before the
        /// kernel closes the connection (`TCP_USER_TIMEOUT`); `0s`: the default of the system.
        tcp_user_timeout: Duration = mins(2), within ANY, per backend;
        /// Most concurrent connections of all clients. A connection that became a tunnel or a WebSocket counts as such
        /// instead.
        connections: usize = 1024, within count(1, 1_000_000);
        /// Most concurrent connections from one address. Trusted proxies do not count.
        connections_per_address: usize = 256, within count(1, 1_000_000);
        /// Length of the IPv6 prefix that the limits by address count as one address. The machines of a LAN mostly
        /// share a /64 network: 128 counts each one separately.
        ipv6_prefix: usize = 64, within count(32, 128);
        /// Most concurrent requests that are forwarded, of all clients. Further ones get 503.
        requests: usize = 512, within count(1, 1_000_000);
        /// Most concurrent requests that are forwarded for one client address. Further ones get 429.
        requests_per_address: usize = 128, within count(1, 1_000_000);
        /// Most open streams and tunnels of all clients. Further ones get 503.
        streams: usize = 512, within count(1, 1_000_000);
        /// Most open streams and tunnels of one client address. Further ones get 429.
        streams_per_address: usize = 64, within count(1, 1_000_000);
        /// Most open streams and tunnels with one API key. Further ones get 429.
        streams_per_key: usize = 64, within count(1, 1_000_000);
        /// Most header fields of a request. More get 431.
        header_count: usize = 100, within count(10, 1000);
        /// Largest request head, in bytes. A larger one gets 431.
        head_bytes: usize = 64 << 10, within bytes(8 << 10, 1 << 20);
        /// Largest path and query, in bytes. A larger one gets 414.
        target_bytes: usize = 16 << 10, within bytes(1 << 10, 64 << 10);
        /// Largest request body that is forwarded, in bytes. A larger one gets 413.
        body_bytes: usize = 64 << 20, within bytes(1 << 10, HUGE), per backend;
        /// Largest message from a client of `/ws`, in bytes.
        socket_bytes: usize = 64 << 10, within bytes(1 << 10, 1 << 20);
        /// Time for which an idle connection to the backend is kept. Backends close theirs after 5 s.
        pool_idle: Duration = secs(4), within POOL_IDLE, per backend;
        /// Time for which one side of a tunnel stays open after the other has closed.
        tunnel_close: Duration = secs(10), within ANY, per backend;
        /// Time for which one answer of the backend to `GET /`, `/version` or `/health` serves all identical requests;
        /// `0s` forwards each.
        coalesce: Duration = secs(1), within ANY, per backend;
        /// Time for which a key that the backend has rejected is rejected by the bridge alone; `0s` forwards it every
        /// time. Five wrong keys lock all clients out of a backend.
        refused_key: Duration = mins(5), within ANY, per backend;
        /// Most wrong keys that one client address may send in 5 minutes. After that, an unknown key gets 429, and keys
        /// that the backend has accepted still work. A backend that sees all clients as one locks them all out after five.
        wrong_keys: usize = 3, within count(1, 3), per backend;
        /// Consecutive connection failures after which requests get 503 at once.
        breaker_failures: usize = 3, within count(1, 1000), per backend;
        /// Time until one request tries such a backend again.
        breaker_open: Duration = secs(5), within POSITIVE, per backend;
        /// Time without a connection before the bridge opens one to check whether the backend is up; `0s`: never. The first
        /// check requests `/`, which shows whether `backend.url` leads back to the bridge.
        check: Duration = secs(15), within ANY, per backend;
        /// Largest event from the backend, in bytes.
        event_bytes: usize = 32 << 20, within bytes(64 << 10, 1 << 30), per backend;
        /// Time for which a job without clients continues before it is cancelled. The plugin waits 16 s between two
        /// attempts, or up to 60 s after a `Retry-After`.
        detach_grace: Duration = mins(1), within ANY;
        /// Shortest cool-down: the time for which a run that ended still counts for `backend.concurrency`, because the
        /// backend may still work on it; 5 s where the release cancels the run.
        cooldown_least: Duration = secs(30), within ANY, per backend;
        /// Longest cool-down, however long such runs take; `0s`: none.
        cooldown: Duration = mins(15), within ANY, per backend;
        /// Time for which running jobs continue after the bridge has received a signal to stop.
        drain: Duration = secs(30), within ANY;
        /// Time that the last frame of a job waits until its record is on disk.
        ledger: Duration = secs(5), within POSITIVE;
        /// Time for which the log of a finished job stays in memory, for clients that reconnect.
        replay: Duration = mins(5), within ANY;
        /// Time for which the ledger keeps the last frames of a finished job.
        log_retention: Duration = days(7), within RETENTION;
        /// Time for which the ledger keeps the record of a finished job; at least `limits.log_retention`.
        retention: Duration = days(90), within RETENTION;
        /// Difference between the clock and the time that the ledger expects that counts as a jump: nothing is deleted
        /// by age then. A bridge that was stopped for longer is one such case.
        clock_jump: Duration = days(1), within RETENTION;
        /// Time for which nothing is deleted by age after a jump of the clock; three times as long while
        /// `systemd-timesyncd` has not synchronised it. `POST /clean` ends it.
        clock_hold: Duration = hours(6), within POSITIVE;
        /// Largest share of the recorded jobs, in percent, that the hourly cleaning of the ledger deletes, and of
        /// those with frames; at least one job, and at least twice as many as expire under a steady load. `POST /clean`
        /// deletes everything that has expired.
        clean_share: usize = 10, within count(1, 100);
        /// Memory for the log of one job, in bytes. The oldest events are evicted first, the first and the last 64
        /// failures last, the first event and the end never.
        job_log_bytes: usize = 16 << 20, within bytes(64 << 10, 1 << 30);
        /// Memory for the logs of all jobs, in bytes. A job evicts from others only what exceeds their fair share. What
        /// is being sent to clients counts for up to half of it; beyond that, only `limits.streams` bounds it.
        all_logs_bytes: usize = 64 << 20, within bytes(64 << 10, HUGE);
        /// Largest recording of one job, in bytes. What comes after is not recorded.
        recording_bytes: usize = 64 << 20, within bytes(64 << 10, HUGE);
    }
}

impl Limits {
    /// The bounds of a request head.
    pub fn bounds(&self) -> HeadLimits {
        HeadLimits {
            head_bytes: self.head_bytes,
            header_count: self.header_count,
            target_bytes: self.target_bytes,
        }
    }
}
