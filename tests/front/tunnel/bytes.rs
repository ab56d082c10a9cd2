//! Byte sequences that no library sends: failed handshakes, half-closed tunnels, bytes that are no frames.

use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, timeout};

use super::noise;
use super::wire::{AGREED, Head, OPENING, Wire};
use crate::support::bridge::{TestBridge, config, without_pseudonym};

/// A request that must not be parsed as one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: bridge\r\n\r\n";

const MIB: usize = 1 << 20;

/// A bridge, and the listener of its backend.
struct TunnelSetup {
    listener: TcpListener,
    front: TestBridge,
}

impl TunnelSetup {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TestBridge::start(config(listener.local_addr().unwrap(), settings)).await;
        Self { listener, front }
    }

    /// A backend with a small receive buffer.
    async fn small(settings: &[(&str, &str)]) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(16).unwrap();
        let front = TestBridge::start(config(listener.local_addr().unwrap(), settings)).await;
        Self { listener, front }
    }

    /// A client that has sent `words`, the backend connection for it, and the head that the backend received.
    async fn open_with(&self, words: impl AsRef<[u8]>) -> (Wire, Wire, Head) {
        let client = Wire::to(self.front.address, words).await;
        let mut backend = Wire::at(&self.listener).await;
        let head = backend.reader.head().await;
        (client, backend, head)
    }

    /// The two ends of a tunnel.
    async fn tunnel(&self) -> (Wire, Wire) {
        let (mut client, mut backend, _) = self.open_with(format!("{OPENING}\r\n")).await;
        backend.writer.send(AGREED).await;
        assert_eq!(client.reader.head().await.status(), 101);
        (client, backend)
    }

    /// Whether the backend gets no connection for a second.
    async fn is_quiet(&self) -> bool {
        timeout(Duration::from_secs(1), self.listener.accept()).await.is_err()
    }
}

// --- the handshake ---------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn no_byte_passes_before_the_backends_101_and_early_bytes_are_neither_lost_nor_a_request() {
    let setup = TunnelSetup::start(&[]).await;
    for more in [0, 1, 2_000, 50_000] {
        let more = SMUGGLED.repeat(more);
        let (mut client, mut backend, head) = setup.open_with(format!("{OPENING}\r\n{SMUGGLED}")).await;
        assert_eq!(head.first, "GET /virtualization/virtual-machines/7/console?a=%2F HTTP/1.1");
        let answer = async {
            assert!(backend.reader.is_quiet().await, "it has not agreed");
            backend.writer.send(format!("{AGREED}first words")).await;
            backend.reader.expect_bytes(format!("{SMUGGLED}{more}")).await;
        };
        let listen = async {
            assert!(client.reader.is_quiet().await, "the backend has not agreed");
            assert_eq!(client.reader.head().await.status(), 101);
            client.reader.expect_bytes("first words").await;
        };
        tokio::join!(client.writer.send(&more), answer, listen);
        assert!(setup.is_quiet().await, "nothing of it was a request");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_handshake_is_forwarded_and_ends_the_connection() {
    let setup = TunnelSetup::start(&[]).await;
    for (status, kind, body) in [
        ("403 Forbidden", "text/html", "<h1>No.</h1>"),
        ("404 Not Found", "application/json", "{\"detail\":\"Not Found\"}"),
        ("500 Internal Server Error", "text/plain; charset=utf-8", "Internal Server Error"),
        ("400 Bad Request", "application/json", "{\"detail\":[{\"loc\":[\"path\",\"id\"]}]}"),
        ("200 OK", "text/plain", "This is no WebSocket."),
    ] {
        let sized = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let chunks = format!("{:X}\r\n{body}\r\n0\r\n\r\n", body.len());
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{chunks}");
        for (framed, wanted) in [(sized, body), (chunked, chunks.as_str())] {
            // Bytes pipelined after the handshake are no request: they were not checked.
            let (mut client, mut backend, _) = setup.open_with(format!("{OPENING}\r\n{SMUGGLED}")).await;
            let answer = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Odd: a,  b\r\n{framed}");
            backend.writer.send(answer).await;
            let head = client.reader.head().await;
            assert_eq!(head.first, format!("HTTP/1.1 {status}"));
            assert_eq!((head.all("content-type"), head.all("x-odd")), (vec![kind], vec!["a,  b"]));
            assert_eq!(head.all("connection"), ["close"]);
            assert_eq!(String::from_utf8(client.reader.rest().await).unwrap(), wanted, "{status}");
            assert_eq!(backend.reader.rest().await, b"", "and the backend hears nothing of it");
            assert!(setup.is_quiet().await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_behind_a_refusal_is_not_answered() {
    let setup = TunnelSetup::start(&[]).await;
    let (mut client, mut backend, _) = setup.open_with(format!("{OPENING}\r\n")).await;
    backend.writer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(client.reader.head().await.status(), 403);
    client.writer.send(SMUGGLED).await;
    assert_eq!(client.reader.rest().await, b"no");
    assert!(setup.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn of_the_headers_of_one_connection_only_those_of_the_upgrade_pass() {
    let setup = TunnelSetup::start(&[]).await;
    let opening = OPENING.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade, HTTP2-Settings");
    let more = "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nHTTP2-Settings: AAMAAABk\r\n\
        Origin: https://netbox.example\r\nSec-WebSocket-Protocol: binary\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let (mut client, mut backend, head) = setup.open_with(opening + more).await;
    for (name, values) in [
        ("connection", &["upgrade"][..]),
        ("upgrade", &["websocket"]),
        ("keep-alive", &[]),
        ("proxy-connection", &[]),
        ("http2-settings", &[]),
        ("host", &["bridge"]),
        ("origin", &["https://netbox.example"]),
        ("sec-websocket-protocol", &["binary"]),
        ("sec-websocket-version", &["13"]),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ=="]),
        ("sec-websocket-extensions", &["permessage-deflate; client_max_window_bits"]),
    ] {
        assert_eq!(head.all(name), values, "{name}");
    }
    assert_eq!(
        head.all("via").into_iter().map(without_pseudonym).collect::<Vec<_>>(),
        ["1.1 proxbox-bridge"]
    );
    let agreed = AGREED.replace("Connection: Upgrade", "Connection: Upgrade, X-Secret");
    let more = "\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nSec-WebSocket-Protocol: binary\r\n\r\n";
    backend.writer.send(agreed.trim_end().to_owned() + more).await;
    let head = client.reader.head().await;
    assert_eq!(head.status(), 101);
    for (name, values) in [
        ("connection", &["upgrade"][..]),
        ("upgrade", &["websocket"]),
        ("x-secret", &[]),
        ("keep-alive", &[]),
        ("sec-websocket-accept", &["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]),
        ("sec-websocket-protocol", &["binary"]),
    ] {
        assert_eq!(head.all(name), values, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_something_else_is_a_request_like_any_other_and_the_last_on_its_connection() {
    let setup = TunnelSetup::start(&[]).await;
    for headers in [
        "Connection: Upgrade\r\nUpgrade: websocket, h2c",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0",
        // It is only an upgrade if `Connection` names it.
        "Upgrade: websocket",
        "Connection: keep-alive\r\nUpgrade: websocket",
    ] {
        let request = format!("GET /x HTTP/1.1\r\nHost: bridge\r\n{headers}\r\n\r\n{SMUGGLED}");
        let (mut client, mut backend, head) = setup.open_with(request).await;
        for name in ["connection", "upgrade", "http2-settings"] {
            assert_eq!(head.all(name), [""; 0], "{name} for {headers}");
        }
        backend.writer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsaid").await;
        let head = client.reader.head().await;
        assert_eq!((head.status(), head.all("connection")), (200, vec!["close"]), "{headers}");
        assert_eq!(client.reader.rest().await, b"said", "{headers}");
        assert!(backend.reader.is_quiet().await && setup.is_quiet().await, "{headers}");
        backend.reset();
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_get_opens_a_tunnel_and_other_methods_stay_requests() {
    for (method, body) in [("POST", "hello"), ("PUT", "hello"), ("HEAD", ""), ("OPTIONS", "")] {
        let setup = TunnelSetup::start(&[]).await;
        let opening = OPENING.replacen("GET", method, 1);
        let request = format!("{opening}Content-Length: {}\r\n\r\n{body}", body.len());
        let (mut client, mut backend, head) = setup.open_with(request).await;
        assert!(head.first.starts_with(method), "{}", head.first);
        for name in ["connection", "upgrade"] {
            assert_eq!(head.all(name), [""; 0], "{name} for {method}");
        }
        backend.reader.expect_bytes(body).await;
        backend.writer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        let head = client.reader.head().await;
        assert_eq!((head.status(), head.all("connection")), (204, vec![]), "{method}");
        // The connection is still one of requests that are looked at.
        client.writer.send("GET /x HTTP/1.1\r\n\r\n").await;
        assert_eq!(client.reader.head().await.status(), 400, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_101_to_another_protocol_is_an_error_and_nothing_passes() {
    for upgrade in
        ["Upgrade: h2c\r\n", "Upgrade: websocket, h2c\r\n", "", "Upgrade: websocket\r\nUpgrade: h2c\r\n"]
    {
        let setup = TunnelSetup::start(&[]).await;
        let (mut client, mut backend, _) = setup.open_with(format!("{OPENING}\r\nearly words")).await;
        let agreed = AGREED.replace("Upgrade: websocket\r\n", upgrade);
        backend.writer.send(format!("{agreed}words")).await;
        let head = client.reader.head().await;
        assert_eq!((head.status(), head.all("connection")), (502, vec!["close"]), "{upgrade:?}");
        let body = String::from_utf8(client.reader.rest().await).unwrap();
        assert!(body.contains("101") && !body.contains("words"), "{body}");
        assert_eq!(backend.reader.rest().await, b"", "{upgrade:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unrequested_101_is_an_error() {
    let setup = TunnelSetup::start(&[]).await;
    for upgrade in ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n"] {
        let request = format!("GET /x HTTP/1.1\r\nHost: bridge\r\n{upgrade}\r\n");
        let (mut client, mut backend, _) = setup.open_with(request).await;
        backend.writer.send(format!("{AGREED}words")).await;
        assert_eq!(client.reader.head().await.status(), 503);
        assert_eq!(backend.reader.rest().await, b"");
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_no_backend_could_understand_reaches_none() {
    let setup = TunnelSetup::start(&[]).await;
    for (opening, status) in [
        (OPENING.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (format!("{OPENING}Content-Length: 5\r\n"), 400),
        (format!("{OPENING}Transfer-Encoding: chunked\r\n"), 400),
    ] {
        let mut client = Wire::to(setup.front.address, format!("{opening}\r\n5\r\nhello\r\n0\r\n\r\n")).await;
        let head = client.reader.head().await;
        assert_eq!(head.status(), status, "{opening}");
        // An HTTP/1.0 connection ends without `Connection: close`.
        let says_so = if opening.contains("HTTP/1.0") { vec![] } else { vec!["close"] };
        assert_eq!(head.all("connection"), says_so, "{opening}");
        client.reader.rest().await;
        assert!(setup.is_quiet().await, "{opening}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_handshake_is_refused_with_retry_after() {
    let setup = TunnelSetup::start(&[("limits.response_head", "30s")]).await;
    let refused = async |client: &mut Wire, detail: &str| {
        let head = client.reader.head().await;
        assert_eq!((head.status(), head.all("connection")), (503, vec!["close"]));
        assert_eq!(head.all("retry-after").len(), 1, "{head:?}");
        let body = String::from_utf8(client.reader.rest().await).unwrap();
        assert!(body.contains(detail), "{body}");
    };
    let (mut client, backend, _) = setup.open_with(format!("{OPENING}\r\n")).await;
    drop(backend);
    refused(&mut client, "The connection broke before the backend answered").await;
    // Held, but silent.
    let (mut client, _backend, _) = setup.open_with(format!("{OPENING}\r\n")).await;
    refused(&mut client, "limits.response_head").await;

    let TunnelSetup { listener, front } = setup;
    drop(listener);
    refused(&mut Wire::opening(front.address).await, "refused").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_the_answer_takes_its_opening_with_it() {
    let setup = TunnelSetup::start(&[]).await;
    let (client, mut backend, _) = setup.open_with(format!("{OPENING}\r\n")).await;
    drop(client);
    assert_eq!(backend.reader.rest().await, b"");
}

// --- the content -----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn any_bytes_pass_a_tunnel_unchanged() {
    let setup = TunnelSetup::start(&[]).await;
    let (mut client, mut backend) = setup.tunnel().await;
    // Every close code there can be, also those that no library would send, and what is no frame at all.
    let mut output: Vec<u8> = (0..=u16::MAX)
        .flat_map(|code| [[0x88, 0x06].as_slice(), &code.to_be_bytes(), b"why?"].concat())
        .collect();
    output.extend((0..=255).cycle().take(300_000));
    output.extend(SMUGGLED.bytes());
    tokio::join!(client.writer.send(&output), backend.reader.expect_bytes(&output));
    tokio::join!(backend.writer.send(&output), client.reader.expect_bytes(&output));
    // And both at once.
    let (up, down) = (noise(MIB, 1), noise(MIB, 2));
    tokio::join!(
        client.writer.send(&up),
        backend.reader.expect_bytes(&up),
        backend.writer.send(&down),
        client.reader.expect_bytes(&down)
    );
    assert!(client.reader.is_quiet().await && backend.reader.is_quiet().await && setup.is_quiet().await);
}

// --- the end ---------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_half_closed_tunnel_carries_the_remaining_bytes_and_ends_in_time() {
    let setup = TunnelSetup::start(&[("limits.tunnel_close", "20s")]).await;
    for client_closes in [true, false] {
        let (client, backend) = setup.tunnel().await;
        let (mut closed, mut open) = if client_closes { (client, backend) } else { (backend, client) };
        closed.writer.send("goodbye").await;
        closed.writer.close().await;
        let began = Instant::now();
        assert_eq!(open.reader.rest().await, b"goodbye");
        assert_eq!(began.elapsed().as_secs(), 0, "the end passes at once");
        open.writer.send("one more thing").await;
        closed.reader.expect_bytes("one more thing").await;
        // It never closes, so the limit ends the tunnel.
        assert_eq!(closed.reader.rest().await, b"");
        assert_eq!(began.elapsed().as_secs(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_on_one_side_ends_on_the_other() {
    let setup = TunnelSetup::start(&[]).await;
    let (client, mut backend) = setup.tunnel().await;
    client.reset();
    assert_eq!(backend.reader.rest().await, b"");
    let (mut client, backend) = setup.tunnel().await;
    backend.reset();
    assert_eq!(client.reader.rest().await, b"");
}

#[tokio::test(start_paused = true)]
async fn final_bytes_arrive_although_the_other_end_keeps_sending() {
    let setup = TunnelSetup::start(&[]).await;
    for backend_leaves in [true, false] {
        let mut client = Wire::small(setup.front.address).await;
        client.writer.send(format!("{OPENING}\r\n")).await;
        let mut backend = Wire::at(&setup.listener).await;
        backend.reader.head().await;
        backend.writer.send(AGREED).await;
        assert_eq!(client.reader.head().await.status(), 101);
        let (mut leaving, mut staying) = if backend_leaves { (backend, client) } else { (client, backend) };
        // A backend does so for which a message is too large, and a client that is in a hurry.
        let last = noise(100_000, 3);
        leaving.writer.send(&last).await;
        leaving.writer.close().await;
        assert!(!staying.writer.flood(usize::MAX).await, "it says all that anybody takes");
        drop(leaving);
        // More than a closed peer takes, or up to the end.
        staying.writer.flood(16 * MIB).await;
        assert!(staying.reader.rest().await == last, "the last words of the one that leaves");
    }
}

/// The time is the kernel's, and is not paused.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_peer_that_acknowledges_nothing_ends_its_tunnel_although_all_that_is_sent_fits_into_a_buffer() {
    let setup = TunnelSetup::small(&[("limits.tcp_user_timeout", "200ms")]).await;
    for client_hangs in [true, false] {
        let mut client = Wire::small(setup.front.address).await;
        client.writer.send(format!("{OPENING}\r\n")).await;
        let mut backend = Wire::at(&setup.listener).await;
        backend.reader.head().await;
        backend.writer.send(AGREED).await;
        assert_eq!(client.reader.head().await.status(), 101);
        let (_hung, mut other) = if client_hangs { (client, backend) } else { (backend, client) };
        other.writer.send(noise(200_000, 4)).await;
        let rest = timeout(Duration::from_secs(30), other.reader.rest()).await;
        assert_eq!(rest.expect("an end"), b"", "it passes to the other side");
    }
}

#[tokio::test(start_paused = true)]
async fn tunnels_end_when_the_bridge_stops() {
    for in_a_hurry in [false, true] {
        let mut setup = TunnelSetup::start(&[]).await;
        let (mut client, mut backend) = setup.tunnel().await;
        let (mut late, mut late_backend, _) = setup.open_with(format!("{OPENING}\r\n")).await;
        let began = Instant::now();
        setup.front.request_stop();
        if in_a_hurry {
            setup.front.request_immediate_stop();
        }
        for end in [&mut client, &mut backend] {
            assert_eq!(close_frame(&end.reader.rest().await), going_away());
        }
        // A connection that becomes a tunnel only now is closed soon.
        late_backend.writer.send(AGREED).await;
        late.reader.rest().await;
        late_backend.reader.rest().await;
        assert!(began.elapsed().as_secs() <= 11, "{:?}", began.elapsed());
        setup.front.stop().await;
    }
}

/// Code and reason of a close frame, which nothing follows.
fn close_frame(bytes: &[u8]) -> (u16, String) {
    let [0x88, length, rest @ ..] = bytes else { panic!("no close frame: {bytes:?}") };
    let (mask, masked) = if length & 0x80 != 0 { rest.split_at(4) } else { (&[0][..], rest) };
    assert_eq!(usize::from(length & 0x7F), masked.len());
    let payload: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let (code, reason) = payload.split_first_chunk().unwrap();
    (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap())
}

fn going_away() -> (u16, String) {
    (1001, "The bridge is stopping.".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_has_begun_is_passed_on_to_its_end_before_the_bridge_closes_its_tunnel() {
    const FRAME: &[u8] = b"\x82\x0Ahalf a frame";
    let mut setup = TunnelSetup::start(&[]).await;
    let (mut client, mut backend) = setup.tunnel().await;
    backend.writer.send(&FRAME[..5]).await;
    client.reader.expect_bytes(&FRAME[..5]).await;
    setup.front.request_stop();
    // The other direction is between two frames: this is its close frame.
    let mut frame = [0; 31];
    backend.reader.fill(&mut frame).await;
    assert_eq!(close_frame(&frame), going_away());
    backend.writer.send([&FRAME[5..12], b"\x81\x04next"].concat()).await;
    client.reader.expect_bytes(&FRAME[5..12]).await;
    assert_eq!(close_frame(&client.reader.rest().await), going_away());
    setup.front.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_gets_no_close_frame_where_none_may_be() {
    // Behind a close frame, in the middle of a frame, and where there are no frames at all.
    for output in [&b"\x88\x02\x03\xE8"[..], b"\x82\x05half", b"no frames"] {
        let mut setup = TunnelSetup::start(&[]).await;
        let (mut client, mut backend) = setup.tunnel().await;
        backend.writer.send(output).await;
        client.reader.expect_bytes(output).await;
        setup.front.request_stop();
        assert_eq!(client.reader.rest().await, b"");
        assert_eq!(close_frame(&backend.reader.rest().await), going_away());
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_in_the_first_frame_of_a_tunnel_counts_as_wrong_when_the_backend_closes_for_it() {
    for path in ["/", "/ws/virtual-machines", "/%77s/virtual-machines"] {
        let setup = TunnelSetup::start(&[]).await;
        let opening =
            format!("{OPENING}\r\n").replacen("/virtualization/virtual-machines/7/console?a=%2F", path, 1);
        let open = async || {
            let (mut client, mut backend, _) = setup.open_with(&opening).await;
            backend.writer.send(AGREED).await;
            assert_eq!(client.reader.head().await.status(), 101);
            (client, backend)
        };
        // A ping does not prove that the key is right; a message does.
        let right = b"\x89\0\x81\x0AConnected!\x88\x02\x0F\xA1";
        let wrong = b"\x89\0\x88\x28\x0F\xA1Invalid API key. 4 attempts remaining.";
        for output in [&right[..], wrong, wrong, wrong] {
            let (mut client, mut backend) = open().await;
            backend.writer.send(output).await;
            client.reader.expect_bytes(output).await;
        }
        let mut held_back = Wire::to(setup.front.address, &opening).await;
        assert_eq!(held_back.reader.head().await.status(), 429, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_counts_as_a_stream_from_its_opening_to_its_end() {
    for (setting, status) in
        [("limits.streams", 503), ("limits.streams_per_address", 429), ("limits.streams_per_key", 429)]
    {
        let setup = TunnelSetup::start(&[(setting, "1")]).await;
        let opening = format!("{OPENING}X-Proxbox-API-Key: one\r\n\r\n");
        let (mut client, mut backend, _) = setup.open_with(&opening).await;
        let is_over = async || {
            let mut over = Wire::to(setup.front.address, &opening).await;
            let head = over.reader.head().await;
            assert_eq!((head.status(), head.all("retry-after")), (status, vec!["5"]), "{setting}");
            assert_eq!(head.all("connection"), ["close"]);
            let body = String::from_utf8(over.reader.rest().await).unwrap();
            assert!(body.contains(setting), "{body}");
        };
        is_over().await;
        backend.writer.send(AGREED).await;
        assert_eq!(client.reader.head().await.status(), 101);
        is_over().await;
        if setting == "limits.streams_per_key" {
            let other = opening.replace(": one", ": two");
            let (_, mut backend, _) = setup.open_with(other).await;
            backend.writer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        }
        drop(backend);
        assert_eq!(client.reader.rest().await, b"");
        drop(client);
        // The release of the slot cannot be observed.
        let (mut again, mut backend) = loop {
            let mut again = Wire::to(setup.front.address, &opening).await;
            tokio::select! {
                backend = Wire::at(&setup.listener) => break (again, backend),
                head = again.reader.head() => assert_eq!(head.status(), status),
            }
        };
        backend.reader.head().await;
        backend.writer.send(AGREED).await;
        assert_eq!(again.reader.head().await.status(), 101, "{setting}");
    }
}
