//! Limits on the concurrent connections, requests and watchers of clients.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::bridge::{Client, DEVICES, KEY, TestBridge, WITH_KEY, config};
use crate::support::manual::ManualBackend;
use crate::support::scripted::{Backend, answer, bridged};

async fn metric(front: &TestBridge, limit: &str) -> u64 {
    let text = front.admin_request("GET", "/metrics", &[]).await.text().to_owned();
    let start = format!("proxbox_bridge_over_limit_total{{limit=\"{limit}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_the_limit_gets_an_error_and_is_closed() {
    let backend = Backend::start(|_| async { answer(200, &[], "here") }).await;
    for (key, limit, status) in [
        ("limits.connections", "connections", 503),
        ("limits.connections_per_address", "connections_per_address", 429),
    ] {
        let front = TestBridge::start(config(backend.address, &[(key, "2")])).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut client = front.open("/x", &[]).await;
            assert_eq!(client.head().await.0, 200);
            held.push(client);
        }
        let before = metric(&front, limit).await;
        let refused = front.get("/x", &[]).await;
        assert_eq!(refused.status, status);
        assert!(refused.header("retry-after").is_some());
        assert!(refused.detail().contains(key), "{}", refused.text());
        // Metrics are global to the process, and other tests change them.
        assert!(metric(&front, limit).await > before);
        assert_eq!(front.admin_request("GET", "/livez", &[]).await.status, 200, "operators come in");
        drop(held.pop());
        // The slot is free as soon as the bridge has noticed the disconnect.
        while front.get("/x", &[]).await.status != 200 {}
    }
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_are_answered_up_to_a_cap_and_closed_at_once_beyond_it() {
    const ANSWERED: usize = 64;
    let (_backend, front) =
        bridged(&[("limits.connections", "1")], |_| async { answer(200, &[], "here") }).await;
    let mut held = front.open("/x", &[]).await;
    assert_eq!(held.head().await.0, 200);
    // All of them are there before the bridge sees the first one.
    let connect = || std::net::TcpStream::connect(front.address).unwrap();
    let refused: Vec<_> = std::iter::repeat_with(connect).take(ANSWERED + 50).collect();
    let mut open = Vec::new();
    let mut answered = 0;
    for stream in refused {
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        answered += usize::from(text.starts_with(b"HTTP/1.1 503 "));
        assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&text));
        open.push(stream);
    }
    assert_eq!(answered, ANSWERED);
    // They are answered again when those before have read theirs.
    drop(open);
    let mut text = String::new();
    while text.is_empty() {
        let _ = TcpStream::connect(front.address).await.unwrap().read_to_string(&mut text).await;
    }
    assert!(text.contains("limits.connections"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_trusted_proxy_may_have_as_many_connections_as_there_are() {
    let backend = Backend::start(|_| async { answer(200, &[], "here") }).await;
    let settings = [("limits.connections_per_address", "1"), ("trusted_proxies", "127.0.0.1")];
    let front = TestBridge::start(config(backend.address, &settings)).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut client = front.open("/x", &[]).await;
        assert_eq!(client.head().await.0, 200);
        held.push(client);
    }
}

#[tokio::test(start_paused = true)]
async fn one_stream_too_many_is_refused_and_one_that_ends_makes_room() {
    for (key, limit, status) in [
        ("limits.streams", "streams", 503),
        ("limits.streams_per_address", "streams_per_address", 429),
        ("limits.streams_per_key", "streams_per_key", 429),
    ] {
        let (mut backend, front) = ManualBackend::bridged(&[(key, "1")]).await;
        let headers = WITH_KEY;
        let mut first = front.open(DEVICES, &headers).await;
        let stream = backend.next_stream().await;
        assert_eq!(first.head().await.0, 200);
        let before = metric(&front, limit).await;
        let refused = front.get(DEVICES, &headers).await;
        assert_eq!(refused.status, status);
        assert!(refused.header("retry-after").is_some());
        assert!(refused.detail().contains(key), "{}", refused.text());
        assert!(metric(&front, limit).await > before);
        stream.complete().await;
        while !first.chunk().await.is_empty() {}
        assert_eq!(front.open(DEVICES, &headers).await.head().await.0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_too_many_on_its_way_is_refused_until_another_is_done() {
    for (key, limit, status) in
        [("limits.requests", "requests", 503), ("limits.requests_per_address", "requests_per_address", 429)]
    {
        let (release, waiting) = tokio::sync::watch::channel(false);
        let (backend, front) = bridged(&[(key, "1")], move |_| {
            let mut waiting = waiting.clone();
            async move {
                let _ = waiting.wait_for(|released| *released).await;
                answer(200, &[], "done")
            }
        })
        .await;
        let mut first = front.open("/x", &[]).await;
        while backend.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        let before = metric(&front, limit).await;
        let refused = front.get("/x", &[]).await;
        assert_eq!(refused.status, status);
        assert!(refused.detail().contains(key), "{}", refused.text());
        assert!(metric(&front, limit).await > before);
        release.send_replace(true);
        assert_eq!(first.head().await.0, 200);
        while front.get("/x", &[]).await.status != 200 {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_has_so_many_sockets_too() {
    let pair = crate::support::bridge::BridgedReplay::start(
        crate::support::bridge::recordings("0.0.30.post2", &[]),
        crate::support::bridge::fast(),
        &[("limits.streams_per_key", "1")],
    )
    .await;
    let mut first = super::socket::Page::open(&pair.front, "/ws").await;
    let key = serde_json::json!({ "api_key": KEY }).to_string();
    first.say(&key).await;
    first.greeting().await;
    let mut second = super::socket::Page::open(&pair.front, "/ws").await;
    second.say(&key).await;
    let (code, reason) = second.closed().await;
    assert_eq!(code, 1013);
    assert!(reason.contains("limits.streams_per_key"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn streams_are_counted_for_the_client_behind_a_trusted_proxy() {
    let mut backend = ManualBackend::start().await;
    let settings = [("limits.streams_per_address", "1"), ("trusted_proxies", "127.0.0.1")];
    let front = TestBridge::start(config(backend.address, &settings)).await;
    let of = |client: &'static str| [("X-Forwarded-For", client)];
    let mut first = front.open(DEVICES, &of("10.0.0.1")).await;
    let _stream = backend.next_stream().await;
    assert_eq!(first.head().await.0, 200);
    assert_eq!(front.open(DEVICES, &of("10.0.0.2")).await.head().await.0, 200);
    assert_eq!(front.get(DEVICES, &of("10.0.0.1")).await.status, 429);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_for_nothing_is_closed_in_the_end() {
    let (_backend, front) =
        bridged(&[("limits.client_idle", "30s")], |_| async { answer(200, &[], "here") }).await;
    let mut client = Client::send(front.address, "GET", "/x", &[]).await;
    client.head().await;
    let began = tokio::time::Instant::now();
    client.ended().await;
    assert!((29..=31).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_addresses_of_one_ipv6_network_share_one_limit() {
    let mut backend = ManualBackend::start().await;
    let settings = [("limits.streams_per_address", "1"), ("trusted_proxies", "127.0.0.1")];
    let front = TestBridge::start(config(backend.address, &settings)).await;
    let from = |address| [("X-Proxbox-API-Key", KEY), ("X-Forwarded-For", address)];
    let mut first = front.open(DEVICES, &from("2001:db8:0:7::1")).await;
    let _stream = backend.next_stream().await;
    assert_eq!(first.head().await.0, 200);
    assert_eq!(front.get(DEVICES, &from("2001:db8:0:7:ffff::2")).await.status, 429);
    assert_eq!(front.open(DEVICES, &from("2001:db8:0:8::1")).await.head().await.0, 200);

    let settings = [settings[0], settings[1], ("limits.ipv6_prefix", "128")];
    let front = TestBridge::start(config(backend.address, &settings)).await;
    let mut first = front.open(DEVICES, &from("2001:db8:0:9::1")).await;
    assert_eq!(first.head().await.0, 200);
    assert_eq!(front.open(DEVICES, &from("2001:db8:0:9::2")).await.head().await.0, 200);
}
