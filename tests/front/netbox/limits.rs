//! The limits of the client listener apply to a NetBox listener, too.

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::support::bridge::{Answer, Client};
use crate::support::scripted::{Backend, answer};

use super::{FIELDS, FakeNetBox, V1, before, get};

const SITES: &str = "/api/dcim/sites/";

/// A POST to `target` with the further headers `more`, whose body begins with `body`.
async fn post(listener: SocketAddr, target: &str, more: &str, body: &str) -> Answer {
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: {listener}\r\nAuthorization: {V1}\r\nContent-Type: application/json\r\n{more}\r\n\
         \r\n{body}"
    );
    Client::raw(listener, request.as_bytes()).await.answer().await
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_too_slow_or_broken_is_rejected_as_one_of_a_client() {
    let netbox = FakeNetBox::default().start().await;
    let settings = [("limits.body_bytes", "300000"), ("limits.client_body", "5s")];
    let (_front, listener) = before(&format!("http://{}", netbox.address), &settings).await;
    let long = "x".repeat(260 * 1024);
    for (target, more, body, status, why) in [
        (SITES, "Content-Length: 300001", "{", 413, "limits.body_bytes"),
        (FIELDS, "Content-Length: 300001", "{", 413, "limits.body_bytes"),
        (FIELDS, "Content-Length: 266240", long.as_str(), 413, "262144 bytes at most"),
        (SITES, "Content-Length: 9", "{", 408, "limits.client_body"),
        (FIELDS, "Content-Length: 9", "{", 408, "limits.client_body"),
        (SITES, "Transfer-Encoding: chunked", "zz\r\n", 400, "chunk"),
        (FIELDS, "Transfer-Encoding: chunked", "zz\r\n", 400, "chunk"),
    ] {
        let refused = post(listener, target, more, body).await;
        assert_eq!(refused.status, status, "{target} {more}: {}", refused.text());
        assert!(refused.detail().contains(why), "{target} {more}: {}", refused.text());
        assert_eq!(refused.header("connection"), Some("close"), "{target} {more}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_and_connections_of_one_address_are_limited() {
    let (release, waiting) = tokio::sync::watch::channel(false);
    let netbox = Backend::start(move |_| {
        let mut waiting = waiting.clone();
        async move {
            let _ = waiting.wait_for(|released| *released).await;
            answer(200, &[], "done")
        }
    })
    .await;
    for (key, status) in [("limits.requests", 503), ("limits.requests_per_address", 429)] {
        release.send_replace(false);
        let (_front, listener) = before(&format!("http://{}", netbox.address), &[(key, "1")]).await;
        let received = netbox.requests().len();
        let mut first = Client::send(listener, "GET", SITES, &[]).await;
        while netbox.requests().len() == received {
            tokio::task::yield_now().await;
        }
        let refused = get(listener, SITES, V1).await;
        assert_eq!(refused.status, status);
        assert!(refused.detail().contains(key), "{}", refused.text());
        release.send_replace(true);
        assert_eq!(first.head().await.0, 200);
    }
    let (_front, listener) =
        before(&format!("http://{}", netbox.address), &[("limits.connections_per_address", "1")]).await;
    let mut held = Client::send(listener, "GET", SITES, &[]).await;
    assert_eq!(held.head().await.0, 200);
    assert_eq!(get(listener, SITES, V1).await.status, 429);
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_limited_time_for_a_head_and_for_asking_nothing() {
    let netbox = FakeNetBox::default().start().await;
    let settings = [("limits.client_idle", "30s"), ("limits.client_head", "7s")];
    let (_front, listener) = before(&format!("http://{}", netbox.address), &settings).await;
    let slow = Client::raw(listener, b"GET /api/dcim/sites/ HTTP/1.1\r\nHost").await.answer().await;
    assert_eq!(slow.status, 408, "{}", slow.text());
    let mut idle = Client::send(listener, "GET", SITES, &[]).await;
    assert_eq!(idle.head().await.0, 403);
    let began = Instant::now();
    idle.ended().await;
    assert!((29..=31).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_request_has_the_ids_of_one_of_a_client_and_an_answer_keeps_the_id_that_netbox_gave_it() {
    let netbox = Backend::start(|request: http::Request<hyper::body::Incoming>| async move {
        let own: &[(&str, &str)] =
            if request.uri().path() == SITES { &[("x-request-id", "of-netbox")] } else { &[] };
        answer(200, own, "done")
    })
    .await;
    let (_front, listener) = before(&format!("http://{}", netbox.address), &[]).await;
    let named = Client::send(listener, "GET", "/api/", &[("X-Request-ID", "of-the-backend")]).await;
    assert_eq!(named.answer().await.header("x-request-id"), Some("of-the-backend"));
    assert_eq!(netbox.last().header("x-request-id"), Some("of-the-backend"));
    assert_eq!(netbox.last().header("traceparent").map(str::len), Some(55));
    assert_eq!(get(listener, SITES, V1).await.header("x-request-id"), Some("of-netbox"));
    assert_eq!(get(listener, "/api/", V1).await.header("x-request-id").map(str::len), Some(36));
}
