//! Requests that are not sent to the backend: cached responses, refused keys, an open circuit breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::advance;

use crate::support::bridge::{
    DEVICES, Forwarder, KEY, TestBridge, WITH_KEY, config, fast, recordings, replayed,
};
use crate::support::manual::ManualBackend;
use crate::support::scripted::{Backend, answer, bridged};
use proxbox_bridge::replay::{ReplayOptions, Speed};

#[tokio::test(start_paused = true)]
async fn an_equal_cheap_request_is_cached_for_a_second_and_others_are_not() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let (_backend, front) = bridged(&[], move |_| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move { answer(200, &[("content-type", "application/json")], &format!("{{\"n\":{number}}}")) }
    })
    .await;
    let key = WITH_KEY;
    let answers = join_all((0..20).map(|_| front.get("/version", &key))).await;
    assert!(answers.iter().all(|answer| answer.text() == "{\"n\":0}"), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.header("content-type") == Some("application/json")));
    assert_eq!(front.get("/version", &[("X-Proxbox-API-Key", "other")]).await.text(), "{\"n\":1}");
    assert_eq!(front.get("/version?x=1", &key).await.text(), "{\"n\":2}");
    advance(Duration::from_secs(1)).await;
    assert_eq!(front.get("/version", &key).await.text(), "{\"n\":3}");
    for _ in 0..3 {
        front.get("/proxmox/version", &key).await;
    }
    assert_eq!(count.load(Ordering::Relaxed), 7);
}

#[tokio::test(start_paused = true)]
async fn equal_cheap_requests_to_a_hanging_backend_are_sent_once_and_each_counts_as_a_request() {
    for path in ["/", "/version", "/health"] {
        let (release, released) = tokio::sync::watch::channel(false);
        let (backend, front) = bridged(&[("limits.requests", "2")], move |_| {
            let mut released = released.clone();
            async move {
                let _ = released.wait_for(|released| *released).await;
                answer(200, &[], "at last")
            }
        })
        .await;
        let mut waiting = Vec::new();
        for _ in 0..2 {
            waiting.push(front.open(path, &[]).await);
            // All requests are waiting by then.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let over = front.get(path, &[]).await;
        assert_eq!(over.status, 503);
        assert!(over.detail().contains("limits.requests"), "{path}: {}", over.text());
        release.send_replace(true);
        for client in waiting {
            assert_eq!(client.answer().await.text(), "at last", "{path}");
        }
        assert_eq!(backend.requests().len(), 1, "{path}");
        // A cached response counts as no request.
        assert_eq!(front.get(path, &[]).await.text(), "at last");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_costs_one_attempt_and_the_right_one_still_works() {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let backend = replayed(recordings("0.0.11.post2", &[]), options).await;
    let front = TestBridge::start(config(backend.local_addr(), &[])).await;
    let wrong = [("X-Proxbox-API-Key", "a-key-that-nobody-has-ever-registered")];
    for target in
        ["/proxmox/version", "/dcim/devices/create/stream", "/full-update/stream", "/version", "/cache"]
    {
        for _ in 0..3 {
            let answer = front.get(target, &wrong).await;
            assert_eq!(answer.status, 401, "{target}: {}", answer.text());
            assert!(answer.detail().contains("API key"), "{}", answer.text());
        }
    }
    let received = backend.log().requests().len();
    assert_eq!(received, 1, "{:?}", backend.log().requests());
    // No client is locked out.
    let answer = front.get("/dcim/devices/create/stream", &WITH_KEY).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // After a while the backend is tried again.
    advance(Duration::from_secs(300)).await;
    let before = backend.log().requests().len();
    assert_eq!(front.get("/proxmox/version", &wrong).await.status, 401);
    assert_eq!(backend.log().requests().len(), before + 1);
}

/// The response to a request for `target` with `key` from a client at `address`.
async fn with_key(
    front: &TestBridge,
    address: &str,
    target: &str,
    key: &str,
) -> crate::support::bridge::Answer {
    front.get(target, &[("X-Forwarded-For", address), ("X-Proxbox-API-Key", key)]).await
}

/// A backend that wants a key and counts the wrong ones of all clients together, and a bridge in front of it.
async fn guarded() -> (proxbox_bridge::replay::ReplayHandle, TestBridge) {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let backend = replayed(recordings("0.0.11.post2", &[]), options).await;
    let front = TestBridge::start(config(backend.local_addr(), &[("trusted_proxies", "127.0.0.1")])).await;
    (backend, front)
}

#[tokio::test(start_paused = true)]
async fn requests_for_a_stream_without_a_key_reach_the_backend_only_once() {
    let (backend, front) = guarded().await;
    for _ in 0..3 {
        let answer = front.get(DEVICES, &[]).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    let streams = || backend.log().requests().iter().filter(|(_, target)| target == DEVICES).count();
    assert_eq!(streams(), 1, "{:?}", backend.log().requests());
    // From now on the bridge knows that the backend requires a key.
    advance(Duration::from_secs(300)).await;
    assert_eq!(front.get(DEVICES, &WITH_KEY).await.status, 200);
    let before = streams();
    for _ in 0..3 {
        let answer = front.get(DEVICES, &[]).await;
        assert!(answer.detail().contains("backend.api_key_file"), "{}", answer.text());
    }
    assert_eq!(streams(), before);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_tries_many_wrong_keys_locks_out_no_other_client() {
    let (backend, front) = guarded().await;
    let targets = ["/proxmox/version", "/dcim/devices/create/stream", "/version"];
    for number in 0..9 {
        let key = format!("a-wrong-key-with-the-number-{number:08}");
        let answer = with_key(&front, "192.0.2.1", targets[number % targets.len()], &key).await;
        assert_eq!(answer.status, if number < 3 { 401 } else { 429 }, "{number}: {}", answer.text());
        if number >= 3 {
            assert!(answer.detail().contains("limits.wrong_keys"), "{}", answer.text());
            assert_eq!(answer.header("retry-after"), Some("300"));
        }
    }
    assert_eq!(backend.log().requests().len(), 3, "{:?}", backend.log().requests());
    for target in targets {
        let answer = with_key(&front, "192.0.2.2", target, KEY).await;
        assert_ne!(answer.status, 429, "{target}: {}", answer.text());
        assert_ne!(answer.status, 401, "{target}: {}", answer.text());
    }
    // The first client is admitted again when the backend's window has passed.
    advance(Duration::from_secs(300)).await;
    assert_ne!(with_key(&front, "192.0.2.1", "/version", KEY).await.status, 429);
}

#[tokio::test(start_paused = true)]
async fn wrong_keys_of_many_clients_at_once_do_not_lock_out_the_one_whose_key_was_right_before() {
    let (backend, front) = guarded().await;
    assert_eq!(with_key(&front, "192.0.2.1", "/version", KEY).await.status, 200);
    let wrong = (2..22).map(|number| {
        let (front, address) = (&front, format!("192.0.2.{number}"));
        async move { with_key(front, &address, "/proxmox/version", &format!("{number:->40}")).await.status }
    });
    let statuses = join_all(wrong).await;
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 4, "{statuses:?}");
    assert_eq!(backend.log().requests().len(), 5, "{:?}", backend.log().requests());
    assert_eq!(with_key(&front, "192.0.2.1", "/dcim/devices/create/stream", KEY).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_that_is_tried_many_times_at_once_costs_no_more_attempts_than_a_client_has() {
    let (backend, front) = guarded().await;
    let tries = (0..20)
        .map(|_| with_key(&front, "192.0.2.1", "/proxmox/version", "a-wrong-key-a-wrong-key-a-wrong-key"));
    for answer in join_all(tries).await {
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    assert!(backend.log().requests().len() <= 3, "{:?}", backend.log().requests());
    assert_eq!(with_key(&front, "192.0.2.2", "/version", KEY).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_wrong_key_of_a_sync_that_has_waited_for_its_turn_costs_one_attempt_too() {
    let options =
        ReplayOptions { api_key: Some(KEY.to_owned()), speed: Speed::Times(1.0), ..ReplayOptions::default() };
    let backend = replayed(recordings("0.0.11.post2", &[]), options).await;
    let front = TestBridge::start(config(backend.local_addr(), &[])).await;
    let running = front.open("/dcim/devices/create/stream", &WITH_KEY).await;
    let wrong = [("X-Proxbox-API-Key", "a-key-that-nobody-has-ever-registered")];
    let mut waiting = Vec::new();
    for target in ["/full-update/stream", "/virtualization/virtual-machines/storage/create/stream"] {
        let mut client = front.open(target, &wrong).await;
        assert_eq!(client.head().await.0, 200);
        waiting.push(client);
    }
    assert_eq!(running.answer().await.status, 200);
    for mut client in waiting {
        let body = String::from_utf8(client.answer_body().await).unwrap();
        assert!(body.contains("Waiting for") && body.contains("Invalid API key"), "{body}");
    }
    let requests = backend.log().requests();
    let tried = requests.iter().filter(|(_, target)| target == "/version").count();
    assert_eq!(tried, 2, "one with each key: {requests:?}");
}

#[tokio::test(start_paused = true)]
async fn while_a_backend_answers_nothing_no_more_unknown_keys_reach_it_than_a_client_has_attempts() {
    let (backend, front) = bridged(&[], |_| std::future::pending()).await;
    let key = WITH_KEY;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(front.open("/proxmox/version", &key).await);
    }
    while backend.requests().len() < 3 {
        tokio::task::yield_now().await;
    }
    let answer = front.get("/proxmox/version", &key).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
    assert!(answer.detail().contains("limits.probe"), "{}", answer.text());
    assert_eq!(backend.requests().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_accepted_by_the_version_delays_no_request_while_a_stream_opens_slowly() {
    let (backend, front) = bridged(&[("limits.wrong_keys", "1")], |request| async move {
        match (request.method().as_str(), request.uri().path()) {
            (_, "/version") => answer(200, &[], r#"{"version":"0.0.11.post2"}"#),
            ("HEAD", _) => answer(405, &[("allow", "GET")], ""),
            (_, "/dcim/devices/create/stream") => std::future::pending().await,
            _ => answer(200, &[], "welcome"),
        }
    })
    .await;
    let key = WITH_KEY;
    let _stalled = front.open("/dcim/devices/create/stream", &key).await;
    while backend.requests().last().is_none_or(|received| received.target != "/dcim/devices/create/stream") {
        tokio::task::yield_now().await;
    }
    assert_eq!(front.get("/proxmox/version", &key).await.text(), "welcome");
}

#[tokio::test(start_paused = true)]
async fn keys_of_streams_that_have_begun_hold_no_other_key_up() {
    let (mut backend, front) = ManualBackend::bridged(&[("backend.concurrency", "8")]).await;
    let mut running = Vec::new();
    for number in 0..8 {
        let key = format!("the-key-of-client-{number}");
        let mut client = front.open("/dcim/devices/create/stream", &[("X-Proxbox-API-Key", &key)]).await;
        assert_eq!(client.head().await.0, 200, "{number}");
        running.push((client, backend.next_stream().await));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_key_costs_one_attempt_too_and_open_paths_stay_open() {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let backend = replayed(recordings("0.0.11.post2", &[]), options).await;
    let front = TestBridge::start(config(backend.local_addr(), &[])).await;
    for _ in 0..7 {
        assert_eq!(front.get("/proxmox/version", &[]).await.status, 401);
    }
    assert_eq!(backend.log().requests().len(), 1);
    for target in ["/", "/health", "/auth/bootstrap-status"] {
        assert_eq!(front.get(target, &[]).await.status, 200, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_registered_is_right_at_once() {
    let registered = Arc::new(AtomicUsize::new(0));
    let known = Arc::clone(&registered);
    let (_backend, front) = bridged(&[], move |request| {
        let known = Arc::clone(&known);
        async move {
            if request.uri().path() == "/auth/register-key" {
                known.store(1, Ordering::Relaxed);
                return answer(201, &[], "{\"detail\":\"API key registered.\"}");
            }
            match known.load(Ordering::Relaxed) {
                0 => answer(401, &[], "{\"detail\":\"Invalid API key. 4 attempts remaining.\"}"),
                _ => answer(200, &[], "welcome"),
            }
        }
    })
    .await;
    let key = WITH_KEY;
    for _ in 0..2 {
        assert_eq!(front.get("/proxmox/version", &key).await.status, 401);
    }
    let request = b"POST /auth/register-key HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(crate::support::bridge::Client::raw(front.address, request).await.answer().await.status, 201);
    assert_eq!(front.get("/proxmox/version", &key).await.text(), "welcome");
}

#[tokio::test(start_paused = true)]
async fn a_path_is_the_same_when_it_is_percent_encoded() {
    let backend = Backend::start(|request| async move {
        match request.uri().path() {
            "/auth/keys%2F7" => answer(204, &[], ""),
            "/%68ealth" => answer(200, &[], "ready"),
            _ => answer(401, &[], "{\"detail\":\"Invalid API key. 4 attempts remaining.\"}"),
        }
    })
    .await;
    let front =
        TestBridge::start(config(backend.address, &[("shims.health", "off"), ("shims.auth", "off")])).await;
    let key = WITH_KEY;
    for _ in 0..2 {
        assert_eq!(front.get("/proxmox/version", &key).await.status, 401);
    }
    assert_eq!(front.get("/%68ealth", &key).await.text(), "ready", "it takes no key");
    assert_eq!(backend.requests().len(), 2);
    let delete = b"DELETE /auth/keys%2F7 HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(crate::support::bridge::Client::raw(front.address, delete).await.answer().await.status, 204);
    assert_eq!(front.get("/proxmox/version", &key).await.status, 401);
    assert_eq!(backend.requests().len(), 4, "keys have changed, so that it is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_client_is_refused_with_the_remaining_wait() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let (_backend, front) = bridged(&[], move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { answer(429, &[("retry-after", "60")], "{\"detail\":\"Rate limit exceeded.\"}") }
    })
    .await;
    assert_eq!(front.get("/proxmox/version", &[]).await.header("retry-after"), Some("60"));
    advance(Duration::from_secs(20)).await;
    let held = front.get("/proxmox/version", &[]).await;
    assert_eq!((held.status, held.header("retry-after")), (429, Some("40")));
    assert_eq!(front.get("/dcim/devices/create/stream", &[]).await.status, 429);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    advance(Duration::from_secs(40)).await;
    front.get("/proxmox/version", &[]).await;
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_is_left_alone_and_found_again_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let front = TestBridge::start(config(address, &[])).await;
    for _ in 0..3 {
        let answer = front.get("/x", &[]).await;
        assert_eq!(answer.status, 503);
        assert!(!answer.detail().contains("limits.breaker_open"), "{}", answer.text());
    }
    let answer = front.get("/x", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")));
    assert!(answer.detail().contains("tried again in 5s (limits.breaker_open)"), "{}", answer.text());
    assert_eq!(front.get("/dcim/devices/create/stream", &[]).await.status, 503);

    // It is back, which is not noticed before the breaker allows a trial.
    let listener = TcpListener::bind(address).await.unwrap();
    assert_eq!(front.get("/x", &[]).await.status, 503);
    advance(Duration::from_secs(5)).await;
    let backend = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback").await.unwrap();
        stream
    };
    let (answer, _stream) = tokio::join!(front.get("/x", &[]), backend);
    assert_eq!(answer.text(), "back");
}

#[tokio::test(start_paused = true)]
async fn a_new_backend_in_the_old_place_is_not_judged_by_the_old_ones_keys_for_long() {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let strict = replayed(recordings("0.0.11.post2", &[]), options).await;
    let open = replayed(recordings("0.0.2.post1", &[]), fast()).await;
    let forwarder = Forwarder::new(strict.local_addr()).await;
    let front = TestBridge::start(config(forwarder.address, &[("limits.refused_key", "10s")])).await;
    assert_eq!(front.get("/proxmox/version", &[]).await.status, 401);
    forwarder.forward_to(open.local_addr());
    advance(Duration::from_secs(10)).await;
    assert_ne!(front.get("/proxmox/version", &[]).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn an_unexpected_body_is_never_announced_without_being_sent() {
    let (backend, front) = bridged(&[], |request| async move {
        use http_body_util::BodyExt;
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        answer(200, &[], &format!("{path} {}", String::from_utf8_lossy(&body)))
    })
    .await;
    for path in ["/health", "/version", "/"] {
        let request = format!("GET {path}?x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        let with_body =
            crate::support::bridge::Client::raw(front.address, request.as_bytes()).await.answer().await;
        assert_eq!(with_body.text(), format!("{path} hello"));
        // The next request on the same backend connection gets its own response.
        assert_eq!(front.get("/next", &[]).await.text(), "/next ");
    }
    let received = backend.requests();
    assert!(
        received
            .iter()
            .all(|received| received.target != "/next" || received.header("content-length").is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_depends_on_is_never_mixed_up() {
    let (backend, front) = bridged(&[], |request| async move {
        let said =
            |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (cookie, coding) = (said("cookie"), said("accept-encoding"));
        if request.headers().contains_key("if-none-match") {
            return answer(304, &[], "");
        }
        answer(200, &[("set-cookie", "session=1")], &format!("{cookie}|{coding}"))
    })
    .await;
    assert_eq!(front.get("/", &[("If-None-Match", "x")]).await.status, 304);
    assert_eq!(front.get("/", &[]).await.text(), "|");
    assert_eq!(front.get("/", &[("Cookie", "anna")]).await.text(), "anna|");
    assert_eq!(front.get("/", &[("Accept-Encoding", "gzip")]).await.text(), "|gzip");
    assert_eq!(front.get("/", &[]).await.text(), "|");
    let before = backend.requests().len();
    front.get("/", &[]).await;
    assert_eq!(backend.requests().len(), before + 1, "an answer with a cookie in it is for one client");
}

#[tokio::test(start_paused = true)]
async fn a_repeatedly_tried_wrong_key_is_still_retried_after_five_minutes() {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let backend = replayed(recordings("0.0.11.post2", &[]), options).await;
    let front = TestBridge::start(config(backend.local_addr(), &[])).await;
    let wrong = [("X-Proxbox-API-Key", "a-key-that-nobody-has-ever-registered")];
    // A plugin that tries again every two minutes.
    for _ in 0..5 {
        assert_eq!(front.get("/dcim/devices/create/stream", &wrong).await.status, 401);
        advance(Duration::from_secs(120)).await;
    }
    assert_eq!(backend.log().requests().len(), 2, "at the beginning, and after five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_on_its_way_when_keys_changed_is_not_remembered() {
    let registered = Arc::new(AtomicUsize::new(0));
    let known = Arc::clone(&registered);
    let (_backend, front) = bridged(&[], move |request| {
        let known = Arc::clone(&known);
        async move {
            match (request.uri().path(), known.load(Ordering::Relaxed)) {
                ("/auth/keys", _) => {
                    known.store(1, Ordering::Relaxed);
                    answer(201, &[], "{}")
                }
                (_, 0) => answer(401, &[], "{\"detail\":\"Invalid API key.\"}"),
                _ => answer(200, &[], "welcome"),
            }
        }
    })
    .await;
    let key = WITH_KEY;
    assert_eq!(front.get("/version", &key).await.status, 401);
    let request =
        b"POST /auth/keys HTTP/1.1\r\nHost: a\r\nX-Proxbox-API-Key: admin\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(crate::support::bridge::Client::raw(front.address, request).await.answer().await.status, 201);
    assert_eq!(front.get("/version", &key).await.text(), "welcome", "not the answer of a moment ago");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_one_path_asks_for_is_for_that_path() {
    let (_backend, front) = bridged(&[], |request| async move {
        match request.uri().path() {
            "/proxmox/viewer/generate" => {
                answer(429, &[("retry-after", "60")], "{\"detail\":\"Six a minute.\"}")
            }
            _ => answer(200, &[], "here"),
        }
    })
    .await;
    assert_eq!(front.get("/proxmox/viewer/generate", &[]).await.status, 429);
    assert_eq!(front.get("/proxmox/version", &[]).await.text(), "here");
}
