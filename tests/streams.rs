//! A stream endpoint of the bridge, seen by its client and by the backend.

use crate::support::bridge::{
    BridgedReplay, Client, DEVICES, DISKS, Forwarder, KEY, MACHINES, TestBridge, WITH_KEY, config, fast,
    recordings, replayed,
};
use crate::support::session::stream;
use futures::{SinkExt, StreamExt};
use proxbox_bridge::core::upstream::dialect::BARRIER;
use proxbox_bridge::replay::{ReplayOptions, ServerEvent, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

const OLD: &str = "0.0.2.post1";
const NEW: &str = "0.0.30.post2";

fn header<'a>(entry: &'a ServerEvent, wanted: &str) -> Option<&'a str> {
    let ServerEvent::Request { headers, .. } = entry else { return None };
    headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

#[tokio::test(start_paused = true)]
async fn the_query_reaches_the_backend_byte_for_byte_without_the_bridges_own_part() {
    let query = "proxmox_endpoint_ids=1%2C2&bridge.ids=1&&fetch_max_concurrency=4&x=%20+&bridge.events=all";
    let theirs = "proxmox_endpoint_ids=1%2C2&&fetch_max_concurrency=4&x=%20+";
    for (version, target) in [(NEW, format!("{DEVICES}?{theirs}")), (OLD, format!("/ws?{theirs}"))] {
        // 0.0.2 does not know the ids, and gets them only if configured.
        let pair = BridgedReplay::start(recordings(version, &[]), fast(), &[("shims.scope", "off")]).await;
        assert_eq!(pair.front.get(&format!("{DEVICES}?{query}"), &WITH_KEY).await.status, 200);
        let received = pair.log().requests();
        assert!(received.contains(&("GET".to_owned(), target.clone())), "{received:?}");
        assert!(received.iter().all(|(_, target)| !target.contains("bridge.")), "{received:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parameter_of_the_bridge_that_it_does_not_know_is_refused_and_nothing_is_started() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    let answer = pair.front.get(&format!("{DEVICES}?bridge.evnets=all"), &WITH_KEY).await;
    assert_eq!(answer.status, 400);
    assert!(answer.detail().contains("bridge.events=all"), "{}", answer.text());
    assert_eq!(pair.log().requests(), []);
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_out_in_the_form_that_the_backend_wants_whatever_form_it_came_in() {
    for headers in [
        WITH_KEY,
        [("Authorization", concat!("Bearer ", "lab-key-0123456789abcdef0123456789abcdef"))],
        [("Authorization", concat!("Token ", "lab-key-0123456789abcdef0123456789abcdef"))],
    ] {
        for channel in ["native", "websocket"] {
            let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
            let settings = [("backend.channel", channel)];
            let pair = BridgedReplay::start(recordings(NEW, &[]), options, &settings).await;
            assert_eq!(pair.front.get(DEVICES, &headers).await.status, 200, "{channel}");
            let seen = pair.log().entries();
            let requests = seen.iter().filter(|entry| matches!(entry, ServerEvent::Request { .. }));
            for request in requests {
                assert_eq!(header(request, "x-proxbox-api-key"), Some(KEY));
                assert_eq!(header(request, "authorization"), None);
            }
            if channel == "websocket" {
                assert_eq!(pair.log().texts()[0], format!("{{\"api_key\":\"{KEY}\"}}"));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_no_key_is_given_none() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    assert_eq!(pair.front.get(DEVICES, &WITH_KEY).await.status, 200);
    assert_eq!(pair.log().texts(), ["Sync Nodes", BARRIER]);
}

#[tokio::test(start_paused = true)]
async fn a_key_from_a_file_takes_the_place_of_the_clients() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let settings = [("backend.api_key_file", file.to_str().unwrap())];
    let pair = BridgedReplay::start(recordings(NEW, &[]), options, &settings).await;
    for headers in [vec![], vec![("Authorization", "Bearer something-else-entirely")]] {
        assert_eq!(pair.front.get(DEVICES, &headers).await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_key_a_new_backend_gets_no_request_that_could_lock_the_address_out() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    let answer = pair.front.get(DEVICES, &[]).await;
    assert_eq!(
        (answer.status, answer.text()),
        (401, r#"{"detail":"API key required. 4 attempts remaining."}"#)
    );
    let received = pair.log().requests();
    let received: Vec<&str> = received.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(
        received,
        ["/health", DEVICES],
        "one question that needs no key, and the client's own request"
    );
    assert_eq!(pair.front.get(DEVICES, &[]).await.status, 401);
    assert_eq!(pair.log().requests().len(), 2, "a refusal that is known");
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_can_do_is_learned_once_without_starting_anything() {
    let pair = BridgedReplay::start(recordings("0.0.11.post2", &[]), fast(), &[]).await;
    for _ in 0..3 {
        assert_eq!(pair.front.get(DEVICES, &WITH_KEY).await.status, 200);
    }
    let received = pair.log().requests();
    let count = |method: &str, path: &str| {
        received.iter().filter(|(m, target)| m == method && target == path).count()
    };
    assert_eq!((count("GET", "/version"), count("HEAD", DEVICES), count("GET", DEVICES)), (1, 1, 3));
    assert_eq!(received.len(), 5, "{received:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_is_forgotten_when_another_backend_has_taken_the_place() {
    for (before, after, channel) in [
        (NEW, OLD, "auto"),
        (OLD, NEW, "auto"),
        ("0.0.3", NEW, "auto"),
        (OLD, "0.0.11.post2", "websocket"),
        (OLD, NEW, "websocket"),
    ] {
        let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
        let first = replayed(recordings(before, &[]), fast()).await;
        let second = replayed(recordings(after, &[]), options).await;
        let forwarder = Forwarder::new(first.local_addr()).await;
        let front = TestBridge::start(config(forwarder.address, &[("backend.channel", channel)])).await;
        assert_eq!(front.get(DEVICES, &WITH_KEY).await.status, 200, "{before}");
        forwarder.forward_to(second.local_addr());
        let answer = front.get(DEVICES, &WITH_KEY).await;
        assert_eq!(answer.status, 200, "{before} to {after} over {channel}: {}", answer.text());
        assert_eq!(stream::read(&answer.body).last().unwrap().data["ok"], true, "{before} to {after}");
        // And the right key never became a failed attempt.
        assert_eq!(front.get(DEVICES, &WITH_KEY).await.status, 200, "{before} to {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_key_costs_a_keyed_backend_no_attempt_once_it_is_known() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    assert_eq!(pair.front.get(DEVICES, &WITH_KEY).await.status, 200);
    let received = pair.log().requests().len();
    for target in [DEVICES, DISKS, "/full-update/stream"] {
        let answer = pair.front.get(target, &[]).await;
        assert_eq!(answer.status, 401);
        assert!(answer.detail().contains("API key"), "{}", answer.text());
    }
    assert_eq!(pair.log().requests().len(), received);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_refused_when_the_bridge_asks_is_named_as_that() {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let pair = BridgedReplay::start(recordings(NEW, &[]), options, &[]).await;
    assert_eq!(pair.front.get(DEVICES, &WITH_KEY).await.status, 200);
    let answer = pair.front.get(DISKS, &[("X-Proxbox-API-Key", "another-key")]).await;
    assert_eq!((answer.status, answer.detail().as_str()), (401, "Invalid API key."));
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_backend_has_not_is_404_with_what_it_has_or_a_green_stream_that_says_so() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let answer = pair.front.get(DISKS, &[]).await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.detail(),
        "This backend cannot synchronise virtual disks. It has: devices (websocket), virtual-machines (websocket)."
    );

    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[("backend.unsupported", "skip")]).await;
    let answer = pair.front.get(DISKS, &[]).await;
    let events = stream::read(&answer.body);
    let last = events.last().unwrap();
    assert_eq!(last.data["ok"], true);
    assert!(last.text("message").starts_with("Virtual disks sync skipped: this backend "), "{}", last.data);
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
}

#[tokio::test(start_paused = true)]
async fn extra_events_reach_only_clients_that_want_them() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    let names =
        |body: &[u8]| -> Vec<String> { stream::read(body).into_iter().map(|event| event.name).collect() };
    let lean = names(&pair.front.get(DEVICES, &WITH_KEY).await.body);
    assert!(lean.iter().all(|name| name == "step" || name == "complete"), "{lean:?}");
    let all = names(&pair.front.get(&format!("{DEVICES}?bridge.events=all"), &WITH_KEY).await.body);
    for wanted in ["discovery", "item_progress", "phase_summary"] {
        assert!(all.iter().any(|name| name == wanted), "{all:?}");
    }
    let steps = |names: &[String]| names.iter().filter(|name| *name == "step").count();
    assert_eq!(steps(&all), steps(&lean));
}

#[tokio::test(start_paused = true)]
async fn only_get_starts_a_sync() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    for method in ["HEAD", "POST", "OPTIONS", "DELETE"] {
        let mut client = Client::send(pair.front.address, method, DEVICES, &WITH_KEY).await;
        let (status, headers) = client.head().await;
        assert_eq!(status, 405, "{method}");
        assert!(headers.contains(&("allow".to_owned(), "GET".to_owned())), "{headers:?}");
    }
    assert_eq!(pair.log().requests(), []);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_its_run() {
    let options = ReplayOptions { stall_after: Some(5), ..fast() };
    for (version, target) in [(NEW, DEVICES), (OLD, "/ws")] {
        let pair = BridgedReplay::start(recordings(version, &[]), options.clone(), &[]).await;
        let mut client = pair.front.open(DEVICES, &WITH_KEY).await;
        assert_eq!(client.head().await.0, 200);
        drop(client);
        let seen = pair
            .log()
            .wait_for(|entries| {
                let run = entries.iter().find_map(|entry| match entry {
                    ServerEvent::Request { connection, method, target: received, .. }
                        if method == "GET" && received == target =>
                    {
                        Some(*connection)
                    }
                    _ => None,
                });
                entries.iter().any(|entry| {
                    matches!(entry, ServerEvent::Closed { connection, by: Side::Client } if Some(*connection) == run)
                })
            })
            .await;
        assert!(!seen.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn no_reader_sees_a_cut_stream_when_the_bridge_stops() {
    let options = ReplayOptions { stall_after: Some(5), ..fast() };
    let BridgedReplay { backend, mut front } = BridgedReplay::start(recordings(NEW, &[]), options, &[]).await;
    let mut client = front.open(DEVICES, &WITH_KEY).await;
    assert_eq!(client.head().await.0, 200);
    let mut body = client.chunk().await;
    front.request_stop();
    loop {
        let chunk = client.chunk().await;
        if chunk.is_empty() {
            break;
        }
        body.extend(chunk);
    }
    let events = stream::read(&body);
    assert!(events[events.len() - 2].text("error").contains("The bridge is stopping"), "{events:?}");
    front.stop().await;
    drop(backend);
}

#[tokio::test(start_paused = true)]
async fn garbage_in_the_middle_costs_only_itself() {
    for (version, target) in [(NEW, MACHINES), (OLD, MACHINES), (OLD, "/full-update/stream")] {
        let clean = BridgedReplay::start(recordings(version, &[]), fast(), &[]).await;
        let clean = stream::read(&clean.front.get(target, &WITH_KEY).await.body);
        let options = ReplayOptions { garbage_after: Some(6), ..fast() };
        let pair = BridgedReplay::start(recordings(version, &[]), options, &[]).await;
        let spoilt = stream::read(&pair.front.get(target, &WITH_KEY).await.body);
        assert_eq!(spoilt.last().unwrap().data["result"], clean.last().unwrap().data["result"], "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_slowest_reader_gets_the_whole_stream() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    let whole = pair.front.get("/full-update/stream", &WITH_KEY).await;
    let mut client = pair.front.open("/full-update/stream", &WITH_KEY).await;
    // The backend is done long before the reader looks.
    pair.log().wait_until_idle().await;
    let (status, _) = client.head().await;
    let mut body = Vec::new();
    loop {
        let chunk = client.chunk().await;
        if chunk.is_empty() {
            break;
        }
        body.extend(chunk);
    }
    assert_eq!((status, body), (200, whole.body));
}

#[tokio::test(start_paused = true)]
async fn everything_else_passes_through() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    let direct = |target: &'static str| Client::send(pair.backend.local_addr(), "GET", target, &WITH_KEY);
    for target in ["/", "/health", "/version", "/proxmox/cluster/status", "/nothing/here"] {
        let direct = direct(target).await.answer().await;
        let through = pair.front.get(target, &WITH_KEY).await;
        assert_eq!((through.status, &through.body), (direct.status, &direct.body), "{target}");
        assert_eq!(through.header("content-type"), direct.header("content-type"), "{target}");
        assert_eq!(through.header("via"), Some("1.1 proxbox-bridge"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_passes_through_has_its_key_in_the_form_that_backends_read() {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let pair = BridgedReplay::start(recordings(NEW, &[]), options, &[]).await;
    let bearer = format!("Bearer {KEY}");
    assert_eq!(pair.front.get("/version", &[("Authorization", &bearer)]).await.status, 200);
    // An upgrade offer is ignored.
    let headers = [
        ("X-Proxbox-API-Key", KEY),
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", ""),
    ];
    assert_eq!(pair.front.get("/version", &headers).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_takes_the_connection_and_says_nothing_is_503() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = [("backend.concurrency", "2")];
    let front = TestBridge::start(config(listener.local_addr().unwrap(), &settings)).await;
    let held = async {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    };
    let clients = async {
        let began = tokio::time::Instant::now();
        // With any number of clients, each waits no longer than the limit.
        let (one, two) = (WITH_KEY, WITH_KEY);
        let (first, second) = tokio::join!(front.get(DEVICES, &one), front.get(MACHINES, &two));
        (first, second, began.elapsed().as_secs())
    };
    tokio::select! {
        () = held => {}
        (first, second, seconds) = clients => {
            assert_eq!((first.status, second.status, seconds), (503, 503, 10));
            assert!(first.detail().contains("limits.probe"), "{}", first.text());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_admin_listener_says_that_the_process_lives_and_what_it_did() {
    let BridgedReplay { backend: _backend, front } =
        BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    assert_eq!(front.get(DISKS, &[]).await.status, 404);
    let metrics = Client::send(front.admin, "GET", "/metrics", &[]).await.answer().await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let refused = "proxbox_bridge_refusals_total{cause=\"unsupported\"} ";
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(refused)).unwrap();
    assert!(line.parse::<u64>().unwrap() >= 1, "{line}");
    let answer = Client::send(front.admin, "GET", "/livez", &[]).await.answer().await;
    assert_eq!((answer.status, &answer.json()["live"]), (200, &serde_json::Value::Bool(true)));
}

/// A bridge whose backend is this listener, over `/ws`.
async fn bridged_listener() -> (TcpListener, TestBridge) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    (listener, TestBridge::start(config(backend, &[("backend.channel", "websocket")])).await)
}

/// Accepts the next socket. Other requests get a 404, in `probes`.
async fn accept_socket(listener: &TcpListener, probes: &mut JoinSet<()>) -> WebSocketStream<TcpStream> {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 8];
        while stream.peek(&mut head).await.unwrap() < head.len() {}
        if head.starts_with(b"GET /ws ") {
            break accept_async(stream).await.unwrap();
        }
        probes.spawn(async move {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn pings_of_the_backend_are_answered_while_no_client_reads() {
    let (listener, front) = bridged_listener().await;
    // A client that never reads.
    let _client = front.open(DEVICES, &[]).await;
    let mut probes = JoinSet::new();
    let mut socket = accept_socket(&listener, &mut probes).await;
    for text in ["Connected!", "Connected 2!"] {
        socket.send(Message::text(text)).await.unwrap();
    }
    for number in 0..3_u8 {
        socket.send(Message::Ping(vec![number].into())).await.unwrap();
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Pong(payload) => break assert_eq!(payload.as_ref(), [number]),
                Message::Text(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_greets_and_ends_its_side_at_once_gets_the_command() {
    for has_close_frame in [false, true] {
        let (listener, front) = bridged_listener().await;
        let _client = front.open(DEVICES, &[]).await;
        let mut probes = JoinSet::new();
        let mut socket = accept_socket(&listener, &mut probes).await;
        // The bridge runs in between only when this waits: it finds the greeting and the end together.
        socket.send(Message::text("Connected!")).await.unwrap();
        match has_close_frame {
            true => socket.close(None).await.unwrap(),
            false => socket.get_mut().shutdown().await.unwrap(),
        }
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("Sync Nodes"), "{has_close_frame}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_could_not_be_sent_leaves_no_cooldown() {
    let (listener, front) = bridged_listener().await;
    let mut probes = JoinSet::new();
    let (answer, ()) = tokio::join!(front.get(DEVICES, &[]), async {
        let mut socket = accept_socket(&listener, &mut probes).await;
        socket.send(Message::text("Connected!")).await.unwrap();
        // The connection is reset, after the greeting.
        socket.get_ref().set_zero_linger().unwrap();
    });
    assert!(answer.text().contains("The connection to the backend's /ws broke"), "{}", answer.text());
    let backends = front.admin_request("GET", "/backends", &[]).await.json();
    assert_eq!(backends["results"][0]["cooling_down"], serde_json::json!([]));
}
