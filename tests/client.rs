//! The client of a running bridge's admin API.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use proxbox_bridge::client::{AccessToken, BridgeClient, BridgeError, BridgeUrl, JobEvents, StreamItem};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::bridge::{BridgedReplay, NOWHERE, TOKEN, fast, recordings};
use crate::support::manual::ManualBackend;

const MINUTE: Duration = Duration::from_secs(60);

fn client(address: SocketAddr, token: Option<&str>, limit: Duration) -> BridgeClient {
    let token = token.map(|token| token.parse().unwrap());
    let access = AccessToken { token, origin: "the file of this test".to_owned() };
    BridgeClient::new(BridgeUrl::local(address), access, Some(HeaderValue::from_static("anna")), limit)
}

/// The error with its causes, as a subcommand prints it.
fn printed(error: BridgeError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// A server that answers each request with `answer`, and closes the connection.
async fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_sync_is_started_with_the_token_in_the_name_of_the_user_and_its_stream_is_resumed() {
    let bridge = BridgedReplay::start(recordings("0.0.2.post1", &[]), fast(), &[]).await;
    let client = client(bridge.front.admin, Some(TOKEN), MINUTE);
    let job = client.call(Method::POST, "/sync/devices/", HeaderMap::new()).await.unwrap();
    let job: Value = serde_json::from_slice(&job).unwrap();
    assert_eq!(job["user"], "anna");
    let target = format!("/jobs/{}/events", job["id"].as_str().unwrap());
    let read = async |headers| {
        let mut stream = client.open(&target, headers).await.unwrap();
        let mut text = String::new();
        while let Some(part) = stream.next().await {
            text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
        }
        (stream.status, text)
    };
    let (status, text) = read(HeaderMap::new()).await;
    assert!(status == StatusCode::OK && text.contains("event: complete"), "{text}");
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let after = |id: &str| {
        HeaderMap::from_iter([(http::HeaderName::from_static("last-event-id"), id.parse().unwrap())])
    };
    let (_, rest) = read(after(ids[ids.len() - 2])).await;
    assert!(rest.contains(ids[ids.len() - 1]) && !rest.contains(ids[0]), "{rest}");
    let (status, rest) = read(after(ids[ids.len() - 1])).await;
    assert_eq!((status, rest.as_str()), (StatusCode::NO_CONTENT, ""));
    let jobs: Value = client.get("/jobs?limit=1").await.unwrap();
    assert_eq!(jobs["results"][0]["id"], job["id"]);
}

#[tokio::test]
async fn a_refused_token_is_named_by_its_origin_and_never_shown() {
    let bridge = BridgedReplay::start(recordings("0.0.2.post1", &[]), fast(), &[]).await;
    for (token, text) in [
        (
            None,
            "the bridge answered 401 Unauthorized: Operator token required. No token was sent: the file of this test.",
        ),
        (
            Some("a-wrong-token-0123"),
            "the bridge answered 401 Unauthorized: Operator token required. The bridge does not accept the token of \
             the file of this test.",
        ),
    ] {
        let client = client(bridge.front.admin, token, MINUTE);
        assert!(!format!("{client:?}").contains("a-wrong-token-0123"), "{client:?}");
        let error = client.call(Method::POST, "/sync/devices/", HeaderMap::new()).await.unwrap_err();
        assert_eq!(error.refusal().unwrap().code, "token_required");
        assert_eq!(printed(error), text);
    }
}

#[tokio::test]
async fn an_error_of_the_api_has_its_code_and_its_text() {
    let bridge = BridgedReplay::start(recordings("0.0.2.post1", &[]), fast(), &[]).await;
    let client = client(bridge.front.admin, Some(TOKEN), MINUTE);
    for error in [
        client.get::<Value>("/jobs/7").await.unwrap_err(),
        client.open("/jobs/7/events", HeaderMap::new()).await.unwrap_err(),
    ] {
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.status, refusal.code.as_str()), (StatusCode::BAD_REQUEST, "invalid_job_id"));
        assert_eq!(
            printed(error),
            "the bridge answered 400 Bad Request: Invalid job id. The id of a job is a UUID; /jobs lists them."
        );
    }
}

#[tokio::test]
async fn an_address_where_nothing_listens_is_named_with_its_key() {
    let error = client(NOWHERE, None, MINUTE).get::<Value>("/jobs").await.unwrap_err();
    assert!(error.is_not_running());
    assert_eq!(
        printed(error),
        "cannot connect to the bridge at http://127.0.0.1:1/jobs (admin_listen): Connection refused (os error 111)"
    );
}

#[tokio::test]
async fn a_server_that_is_silent_is_not_waited_for_and_a_live_stream_is() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let limit = Duration::from_millis(500);
    let client = |address| client(address, Some(TOKEN), limit);
    let error = client(address).get::<Value>("/jobs").await.unwrap_err();
    assert!(!error.is_not_running());
    assert_eq!(printed(error), format!("http://{address}/jobs did not answer within 500ms"));

    let (mut backend, bridge) = ManualBackend::bridged(&[("limits.heartbeat", "1s")]).await;
    let started = bridge.admin_request("POST", "/sync/devices/", &[]).await.json();
    let job = backend.next_stream().await;
    let target = format!("{}/events", started["url"].as_str().unwrap());
    let mut stream = client(bridge.admin).open(&target, HeaderMap::new()).await.unwrap();
    let mut text = String::new();
    let mut read_to = async |wanted: &str| {
        while !text.contains(wanted) {
            text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    };
    // The first heartbeat comes after the time limit.
    read_to("\n: ").await;
    job.complete().await;
    read_to("event: complete").await;
}

#[tokio::test]
async fn an_answer_that_is_no_bridges_is_shown_in_short() {
    let page =
        answering("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 29\r\n\r\n<h1>Bad\ngateway</h1> of nginx")
            .await;
    let error = client(page, Some(TOKEN), MINUTE).get::<Value>("/jobs").await.unwrap_err();
    assert_eq!(printed(error), "the bridge answered 502 Bad Gateway: Bad gateway of nginx");
    let page = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    let error = printed(client(page, Some(TOKEN), MINUTE).get::<Value>("/jobs").await.unwrap_err());
    assert!(
        error.contains("/jobs sent an unexpected answer: is it the admin listener (admin_listen)"),
        "{error}"
    );
    let cut = answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").await;
    let error = printed(client(cut, Some(TOKEN), MINUTE).get::<Value>("/jobs").await.unwrap_err());
    assert!(error.starts_with(&format!("the connection to http://{cut}/jobs broke: ")), "{error}");
}

#[tokio::test]
async fn events_that_are_refused_are_an_error_at_once_and_a_bridge_that_is_away_is_retried() {
    let bridge = BridgedReplay::start(recordings("0.0.2.post1", &[]), fast(), &[]).await;
    let id = "01a20e86-676a-70b0-bcac-38ad1a19ea06";
    let mut unknown = JobEvents::new(client(bridge.front.admin, Some(TOKEN), MINUTE), id, "", MINUTE);
    let error = unknown.next().await.unwrap_err();
    assert_eq!(error.refusal().unwrap().code, "unknown_job");

    let mut away = JobEvents::new(client(NOWHERE, None, MINUTE), id, "", Duration::from_millis(100));
    assert!(matches!(away.next().await, Ok(Some(StreamItem::Lost(error))) if error.is_not_running()));
    assert!(away.next().await.unwrap_err().is_not_running());
}
