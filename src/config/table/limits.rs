//! The limits.

use std::time::Duration;

use super::{Key, key};
use crate::config::draft::Draft;
use crate::config::slot::{Range, Slot};

/// The limits that are about a backend, so that each may have its own, in `[backend.limits]`.
pub(super) const OF_BACKEND: [&str; 24] = [
    "limits.connect",
    "limits.probe",
    "limits.response_head",
    "limits.accept_wait",
    "limits.idle",
    "limits.total",
    "limits.settle",
    "limits.settle_total",
    "limits.capabilities",
    "limits.retry_after",
    "limits.event_bytes",
    "limits.body_bytes",
    "limits.tcp_keepalive",
    "limits.tcp_user_timeout",
    "limits.pool_idle",
    "limits.tunnel_close",
    "limits.coalesce",
    "limits.refused_key",
    "limits.wrong_keys",
    "limits.breaker_failures",
    "limits.breaker_open",
    "limits.check",
    "limits.cooldown_least",
    "limits.cooldown",
];

/// Far beyond any use, and far below where adding it to a clock could overflow.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A time in which something has to happen: none at all makes no sense.
const POSITIVE: Range = Range { least: Duration::from_millis(1), most: WEEK, whole: false };
/// A time that may be left out.
const ANY: Range = Range { least: Duration::ZERO, ..POSITIVE };
/// Readers give up after 60 s of silence, and the contract wants a sign of life every 15 s.
const HEARTBEAT: Range = Range { least: Duration::from_secs(1), most: Duration::from_secs(15), whole: false };
/// A backend closes its idle connections after 5 s, and a request must not meet that.
const POOL_IDLE: Range = Range { least: Duration::ZERO, most: Duration::from_millis(4500), whole: false };
/// `Retry-After` is written in whole seconds.
const RETRY_AFTER: Range =
    Range { least: Duration::from_secs(1), most: Duration::from_secs(60), whole: true };
/// The kernel counts in whole seconds, and takes no more than 32,767 of them.
const KEEPALIVE: Range = Range { least: Duration::ZERO, most: Duration::from_secs(60 * 60), whole: true };
/// How long something stays on disk, which may be years.
const RETENTION: Range =
    Range { least: Duration::from_secs(60), most: Duration::from_secs(3650 * 24 * 60 * 60), whole: false };
/// 16 GiB, or as much as a size can say where that is less.
const HUGE: usize = match 1_usize.checked_shl(34) {
    Some(bytes) => bytes,
    None => usize::MAX,
};

const fn limit(
    name: &'static str,
    default: &'static str,
    range: Range,
    field: fn(&mut Draft) -> &mut Duration,
    doc: &'static str,
) -> Key {
    key(name, Some(default), Slot::Time(field, range), doc)
}

pub(super) static KEYS: &[Key] = &[
    limit(
        "limits.connect",
        "10s",
        POSITIVE,
        |draft| &mut draft.limits.connect,
        "How long a TCP connection to the backend may take to come about.",
    ),
    limit(
        "limits.probe",
        "10s",
        POSITIVE,
        |draft| &mut draft.limits.probe,
        "How long the backend may take to say what it can do before a run, all questions together; one that runs a sync may block for seconds.",
    ),
    limit(
        "limits.response_head",
        "10m",
        POSITIVE,
        |draft| &mut draft.limits.response_head,
        "How long the backend may take from a request to the head of its response, or to its greeting on /ws.",
    ),
    limit(
        "limits.accept_wait",
        "10s",
        ANY,
        |draft| &mut draft.limits.accept_wait,
        "How long a client's status line waits for the backend to accept the work.",
    ),
    limit(
        "limits.idle",
        "30m",
        POSITIVE,
        |draft| &mut draft.limits.idle,
        "How long the backend may send no event; comments and pings are none, and a stage of 73 virtual \
         machines takes 10 minutes without one.",
    ),
    limit(
        "limits.total",
        "6h",
        POSITIVE,
        |draft| &mut draft.limits.total,
        "How long one job may take from its start to its end.",
    ),
    limit(
        "limits.heartbeat",
        "15s",
        HEARTBEAT,
        |draft| &mut draft.limits.heartbeat,
        "The longest silence on a client's stream before a comment is sent; readers give up after 60 s.",
    ),
    limit(
        "limits.settle",
        "3s",
        ANY,
        |draft| &mut draft.limits.settle,
        "How long the backend must be quiet before its late frames, or its late end, are no longer waited for.",
    ),
    limit(
        "limits.settle_total",
        "30s",
        ANY,
        |draft| &mut draft.limits.settle_total,
        "How long they are waited for in all: behind a final event, or behind the last object that was confirmed; at \
         least limits.settle.",
    ),
    limit(
        "limits.capabilities",
        "5m",
        ANY,
        |draft| &mut draft.limits.capabilities,
        "How long what was learned about the backend is kept.",
    ),
    limit(
        "limits.retry_after",
        "30s",
        RETRY_AFTER,
        |draft| &mut draft.limits.retry_after,
        "After how long clients are told to try again when the backend is unreachable.",
    ),
    limit(
        "limits.client_head",
        "15s",
        POSITIVE,
        |draft| &mut draft.limits.client_head,
        "How long a client may take to send the head of its request; over HTTP/2, of its first.",
    ),
    limit(
        "limits.client_write",
        "60s",
        POSITIVE,
        |draft| &mut draft.limits.client_write,
        "How long a client may take nothing of what is sent to it before it is dropped.",
    ),
    limit(
        "limits.client_body",
        "30s",
        POSITIVE,
        |draft| &mut draft.limits.client_body,
        "How long a client may take to send the next piece of the body of its request.",
    ),
    key(
        "limits.client_body_rate",
        Some("500"),
        Slot::Bytes(|draft| &mut draft.limits.client_body_rate, 0, 1 << 20),
        "How many bytes a second of the body of its request a client must send on average, beyond the first \
         limits.client_body; 0: no minimum.",
    ),
    limit(
        "limits.client_idle",
        "75s",
        POSITIVE,
        |draft| &mut draft.limits.client_idle,
        "How long the connection of a client is kept that asks for nothing.",
    ),
    limit(
        "limits.handshake",
        "10s",
        POSITIVE,
        |draft| &mut draft.limits.handshake,
        "How long a TLS handshake may take, with clients and with the backend.",
    ),
    limit(
        "limits.tcp_keepalive",
        "30s",
        KEEPALIVE,
        |draft| &mut draft.limits.tcp_keepalive,
        "After how long without traffic the kernel sends TCP keep-alive probes to a client or the backend; 0s: \
         never.",
    ),
    limit(
        "limits.tcp_user_timeout",
        "2m",
        ANY,
        |draft| &mut draft.limits.tcp_user_timeout,
        "How long a client or the backend may acknowledge nothing of what is sent, or keep its TCP window closed, \
         before the kernel closes the connection (TCP_USER_TIMEOUT); 0s: as the system has it.",
    ),
    key(
        "limits.connections",
        Some("1024"),
        Slot::Count(|draft| &mut draft.limits.connections, 1, 1_000_000),
        "How many connections clients may have at once, all together; what has become a tunnel or a socket is \
         counted as that.",
    ),
    key(
        "limits.connections_per_address",
        Some("256"),
        Slot::Count(|draft| &mut draft.limits.connections_per_address, 1, 1_000_000),
        "How many of them may come from one address; trusted proxies are not counted.",
    ),
    key(
        "limits.ipv6_prefix",
        Some("64"),
        Slot::Count(|draft| &mut draft.limits.ipv6_prefix, 32, 128),
        "How many bits of an IPv6 address name its network, which the limits by address count as one address. The \
         machines of one LAN are mostly one /64 network: 128 counts each of them for itself.",
    ),
    key(
        "limits.requests",
        Some("512"),
        Slot::Count(|draft| &mut draft.limits.requests, 1, 1_000_000),
        "How many requests may be passed on at once, all together; one more is answered 503.",
    ),
    key(
        "limits.requests_per_address",
        Some("128"),
        Slot::Count(|draft| &mut draft.limits.requests_per_address, 1, 1_000_000),
        "How many of them may be of one client address; one more is answered 429.",
    ),
    key(
        "limits.streams",
        Some("512"),
        Slot::Count(|draft| &mut draft.limits.streams, 1, 1_000_000),
        "How many streams and tunnels may be open at once, all together; one more is answered 503.",
    ),
    key(
        "limits.streams_per_address",
        Some("64"),
        Slot::Count(|draft| &mut draft.limits.streams_per_address, 1, 1_000_000),
        "How many of them one client address may have; one more is answered 429.",
    ),
    key(
        "limits.streams_per_key",
        Some("64"),
        Slot::Count(|draft| &mut draft.limits.streams_per_key, 1, 1_000_000),
        "How many of them may be opened with one API key; one more is answered 429.",
    ),
    key(
        "limits.header_count",
        Some("100"),
        Slot::Count(|draft| &mut draft.limits.header_count, 10, 1000),
        "How many headers a request may have; more are answered 431.",
    ),
    key(
        "limits.head_bytes",
        Some("65536"),
        Slot::Bytes(|draft| &mut draft.limits.head_bytes, 8 << 10, 1 << 20),
        "The size of the largest head of a request, in bytes; a larger one is answered 431.",
    ),
    key(
        "limits.target_bytes",
        Some("16384"),
        Slot::Bytes(|draft| &mut draft.limits.target_bytes, 1 << 10, 64 << 10),
        "The size of the largest path and query, in bytes; a larger one is answered 414.",
    ),
    key(
        "limits.body_bytes",
        Some("67108864"),
        Slot::Bytes(|draft| &mut draft.limits.body_bytes, 1 << 10, HUGE),
        "The size of the largest body of a request that is passed on, in bytes; a larger one is answered 413.",
    ),
    key(
        "limits.socket_bytes",
        Some("65536"),
        Slot::Bytes(|draft| &mut draft.limits.socket_bytes, 1 << 10, 1 << 20),
        "The size of the largest message that is taken from a client of /ws, in bytes.",
    ),
    limit(
        "limits.pool_idle",
        "4s",
        POOL_IDLE,
        |draft| &mut draft.limits.pool_idle,
        "How long a connection to the backend is kept for the next request; backends close theirs after 5 s.",
    ),
    limit(
        "limits.tunnel_close",
        "10s",
        ANY,
        |draft| &mut draft.limits.tunnel_close,
        "How long one side of a tunnel may go on when the other has closed.",
    ),
    limit(
        "limits.coalesce",
        "1s",
        ANY,
        |draft| &mut draft.limits.coalesce,
        "How long the backend's answer to GET /, /version or /health serves everybody who asks the same.",
    ),
    limit(
        "limits.refused_key",
        "5m",
        ANY,
        |draft| &mut draft.limits.refused_key,
        "How long a key that the backend has refused is refused without asking it again; five bad tries lock \
         everybody out.",
    ),
    key(
        "limits.wrong_keys",
        Some("3"),
        Slot::Count(|draft| &mut draft.limits.wrong_keys, 1, 3),
        "How many wrong keys one client address may try within 5 minutes before its next unknown key is answered \
         429; a backend that counts all clients as one locks everybody out after five.",
    ),
    key(
        "limits.breaker_failures",
        Some("3"),
        Slot::Count(|draft| &mut draft.limits.breaker_failures, 1, 1000),
        "After how many failed connections in a row the backend is taken for down, and requests are answered \
         503 at once.",
    ),
    limit(
        "limits.breaker_open",
        "5s",
        POSITIVE,
        |draft| &mut draft.limits.breaker_open,
        "How long a backend that is down is left alone before one request tries it again.",
    ),
    limit(
        "limits.check",
        "15s",
        ANY,
        |draft| &mut draft.limits.check,
        "After how long without a connection the bridge makes one, to know whether the backend is there; 0s: \
         never.",
    ),
    key(
        "limits.event_bytes",
        Some("33554432"),
        Slot::Bytes(|draft| &mut draft.limits.event_bytes, 64 << 10, 1 << 30),
        "The size of the largest event that is taken from the backend, in bytes.",
    ),
    limit(
        "limits.detach_grace",
        "60s",
        ANY,
        |draft| &mut draft.limits.detach_grace,
        "How long a job without clients goes on before it is cancelled; between two tries the plugin \
         waits 16 s, or up to 60 s where Retry-After asks for it.",
    ),
    limit(
        "limits.cooldown_least",
        "30s",
        ANY,
        |draft| &mut draft.limits.cooldown_least,
        "The shortest cool-down: how long the place of a run stays taken when the backend may still be at work on it; \
         5 s where the release cancels the run.",
    ),
    limit(
        "limits.cooldown",
        "15m",
        ANY,
        |draft| &mut draft.limits.cooldown,
        "The longest cool-down, however long such runs take; 0s: none.",
    ),
    limit(
        "limits.drain",
        "30s",
        ANY,
        |draft| &mut draft.limits.drain,
        "How long running jobs may go on after the bridge was asked to stop.",
    ),
    limit(
        "limits.ledger",
        "5s",
        POSITIVE,
        |draft| &mut draft.limits.ledger,
        "How long the last frame of a job waits for its record to be on disk.",
    ),
    limit(
        "limits.replay",
        "5m",
        ANY,
        |draft| &mut draft.limits.replay,
        "How long the log of a job that has ended is kept in memory for clients that come back.",
    ),
    limit(
        "limits.log_retention",
        "7days",
        RETENTION,
        |draft| &mut draft.limits.log_retention,
        "How long the ledger keeps the last frames of a job after its end.",
    ),
    limit(
        "limits.retention",
        "90days",
        RETENTION,
        |draft| &mut draft.limits.retention,
        "How long the ledger keeps the record of a job after its end; not shorter than \
         limits.log_retention.",
    ),
    limit(
        "limits.clock_jump",
        "1day",
        RETENTION,
        |draft| &mut draft.limits.clock_jump,
        "How far the clock may be from the time that the ledger expects, before nothing is removed for its age; a \
         bridge that was stopped for longer is one such case.",
    ),
    limit(
        "limits.clock_hold",
        "6h",
        POSITIVE,
        |draft| &mut draft.limits.clock_hold,
        "How long nothing is removed for its age after the clock has jumped; three times as long while \
         systemd-timesyncd has not synchronised it. POST /clean ends it.",
    ),
    key(
        "limits.clean_share",
        Some("10"),
        Slot::Count(|draft| &mut draft.limits.clean_share, 1, 100),
        "How many of the recorded jobs, in percent, the hourly cleaning of the ledger removes at most, and of how many \
         the frames; at least one, and at least twice as many as a steady load makes due. POST /clean removes all that \
         is due.",
    ),
    key(
        "limits.job_log_bytes",
        Some("16777216"),
        Slot::Bytes(|draft| &mut draft.limits.job_log_bytes, 64 << 10, 1 << 30),
        "The memory for the log of one job, in bytes. The oldest events go first, the first and the last 64 failures \
         last, the first event and the end never.",
    ),
    key(
        "limits.all_logs_bytes",
        Some("67108864"),
        Slot::Bytes(|draft| &mut draft.limits.all_logs_bytes, 64 << 10, HUGE),
        "The memory for the logs of all jobs together, in bytes; a job takes from others only what is above their fair \
         share. What is on its way to their readers comes out of it, up to half; beyond that only limits.streams \
         bounds it.",
    ),
    key(
        "limits.recording_bytes",
        Some("67108864"),
        Slot::Bytes(|draft| &mut draft.limits.recording_bytes, 64 << 10, HUGE),
        "The size of the largest recording of one job, in bytes; what comes after is left out.",
    ),
];
