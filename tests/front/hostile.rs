//! Every request of `fixtures/hostile`, sent to the real listener.

use crate::support::bridge::{Client, TestBridge, config};
use crate::support::hostile::table;
use crate::support::scripted::{Backend, answer, bridged};

/// One answer of the listener.
#[derive(Debug)]
struct ParsedResponse {
    status: u16,
    head: String,
    body: String,
}

/// The answers in `bytes`, the rest of which is the beginning of another.
fn answers(bytes: &[u8]) -> Vec<ParsedResponse> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let mut rest = text.as_str();
    let mut found = Vec::new();
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let head = head.to_ascii_lowercase();
        let status: u16 = head["http/1.1 ".len()..][..3].parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if after.len() < length {
            break;
        }
        let (body, after) = after.split_at(length);
        rest = after;
        if status != 100 {
            found.push(ParsedResponse { status, head, body: body.to_owned() });
        }
    }
    found
}

/// The answers to `client`: the first `most`, or all up to the end of the connection; and whether it ended.
async fn received(mut client: Client, most: usize) -> (Vec<ParsedResponse>, bool) {
    let mut bytes = Vec::new();
    while answers(&bytes).len() < most {
        if client.read_some(&mut bytes).await.is_ok_and(|read| read > 0) {
            continue;
        }
        return (answers(&bytes), true);
    }
    (answers(&bytes), false)
}

pub(super) async fn metric(front: &TestBridge, reason: &str) -> u64 {
    let text = front.admin_request("GET", "/metrics", &[]).await.text().to_owned();
    let start = format!("proxbox_bridge_rejections_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_hostile_request_gets_its_answer_and_the_connection_ends_with_it() {
    let cases = table();
    assert!(cases.iter().filter(|case| case.status.is_some()).count() >= 40);
    for case in &cases {
        let backend = Backend::start(|request| async {
            use http_body_util::BodyExt;
            let _ = request.into_body().collect().await;
            answer(200, &[], "taken")
        })
        .await;
        let settings = [("limits.coalesce", "0s")];
        let front = TestBridge::start(config(backend.address, &settings)).await;
        let name = &case.name;
        let accepted = usize::try_from(case.accepted).unwrap();
        let before = match &case.reason {
            Some(reason) => metric(&front, reason).await,
            None => 0,
        };
        let mut client = Client::raw(front.address, b"").await;
        for piece in case.pieces() {
            // It may have closed already, which is what it should do.
            if client.try_write(&piece).await.is_err() {
                break;
            }
        }
        let most = if case.status.is_none() { accepted } else { usize::MAX };
        let (responses, ended) = received(client, most).await;
        assert!(backend.requests().len() <= accepted, "{name}: {:?}", backend.requests());
        let Some(status) = case.status else {
            assert_eq!(responses.len(), accepted, "{name}: {responses:?}");
            assert!(responses.iter().all(|answer| answer.status < 400), "{name}: {responses:?}");
            continue;
        };
        assert_eq!(ended, case.closes, "{name}");
        let (last, others_answered) = responses.split_last().unwrap_or_else(|| panic!("{name}: no answer"));
        // A request whose body turned out to be bad may have been answered before.
        let others = accepted - usize::from(case.in_body);
        assert!(others_answered.len() == others, "{name}: {responses:?}");
        assert_eq!(last.status, status, "{name}: {responses:?}");
        assert!(last.head.contains("\r\nconnection: close"), "{name}: {}", last.head);
        let body: serde_json::Value = serde_json::from_str(&last.body).unwrap();
        assert!(body["message"].is_string() && body["detail"].is_string(), "{name}: {}", last.body);
        assert!(metric(&front, case.reason.as_deref().unwrap()).await > before, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_in_time_is_answered_and_silence_is_just_closed() {
    let (_backend, front) = bridged(&[], |_| async { answer(200, &[], "taken") }).await;
    let began = tokio::time::Instant::now();
    let slow = Client::raw(front.address, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let text = String::from_utf8(slow.rest().await).unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(text.contains("limits.client_head"), "{text}");
    assert!((15..=16).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());

    let mut silent = Client::raw(front.address, b"").await;
    assert_eq!(silent.read_some(&mut Vec::new()).await.unwrap_or(0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_request_with_a_body_is_refused_without_a_backend_request() {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[], "taken") }).await;
    for length in ["Content-Length: 2\r\n\r\nhi", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"] {
        let head = format!("GET /full-update/stream HTTP/1.1\r\nHost: a\r\n{length}");
        // It reads until the bridge closes the connection.
        let answer = Client::raw(front.address, head.as_bytes()).await.rest().await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(backend.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_malformed_body_after_a_good_request_fails_only_its_own_request() {
    let (_backend, front) = bridged(&[], |request| async {
        use http_body_util::BodyExt;
        let path = request.uri().path().to_owned();
        let _ = request.into_body().collect().await;
        answer(200, &[], &path)
    })
    .await;
    let both = b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\
                 POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let (responses, _) = received(Client::raw(front.address, both).await, usize::MAX).await;
    assert_eq!((responses[0].status, responses[0].body.as_str()), (200, "/good"), "{responses:?}");
    assert!(responses[1..].iter().all(|answer| answer.status == 400), "{responses:?}");
}

#[tokio::test(start_paused = true)]
async fn an_ignored_upgrade_ends_the_connection_on_either_listener() {
    let (_backend, front) = bridged(&[], |_| async { answer(200, &[], "taken") }).await;
    for (address, path) in [(front.address, "/x"), (front.admin, "/livez")] {
        let both = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\
             GET {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
        );
        let (responses, _) = received(Client::raw(address, both.as_bytes()).await, usize::MAX).await;
        assert_eq!(responses.len(), 1, "{responses:?}");
        assert!(responses[0].head.contains("\r\nconnection: close"), "{responses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_http_1_0_request_without_a_host_is_forwarded_with_one() {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[], "taken") }).await;
    let answer = Client::raw(front.address, b"GET /x HTTP/1.0\r\n\r\n").await.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(backend.last().header("host"), Some(backend.address.to_string().as_str()));
}
