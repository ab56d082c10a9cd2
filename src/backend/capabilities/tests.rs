//! Capability detection while the cache is invalidated.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::backend::capabilities::*;
use crate::config::{Config, Flags};

/// Accepts the next request to the backend on `listener`, and returns its path and its connection.
async fn accept_request(listener: &TcpListener) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), stream)
}

async fn answer(mut stream: TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nAllow: GET\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Answers as a backend of `release` until no more requests arrive.
async fn serve(listener: &TcpListener, release: &str) {
    loop {
        match accept_request(listener).await {
            (path, stream) if path == "/version" => {
                answer(stream, "200 OK", &format!("{{\"version\":\"{release}\"}}")).await;
            }
            (_, stream) => answer(stream, "405 Method Not Allowed", "").await,
        }
    }
}

fn identity() -> RequestIdentity {
    let key = Some("a-key-0123456789abcdef0123456789ab".parse().unwrap());
    RequestIdentity { key, ..RequestIdentity::default() }
}

async fn listening() -> (TcpListener, Backend) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let flags = Flags { backend: Some(url), ..Flags::default() };
    let config = Config::parse(&flags, [], |_| unreachable!()).unwrap();
    (listener, Backend::new(config.backends[0].clone()).unwrap())
}

#[tokio::test]
async fn what_is_requested_before_an_invalidation_is_requested_again_and_not_cached() {
    let newest = Some(Release::new(0, 0, 30));
    for is_planned in [true, false] {
        let (listener, backend) = listening().await;
        let identity = identity();
        let upgraded = async {
            let (path, stream) = accept_request(&listener).await;
            assert_eq!(path, "/version");
            // The backend restarts for an upgrade before this response has arrived.
            backend.capabilities_cache.invalidate();
            answer(stream, "200 OK", "{\"version\":\"0.0.7\"}").await;
            serve(&listener, "0.0.30").await;
        };
        let learned = async {
            if is_planned {
                let endpoint = SyncEndpoint::for_kind(Kind::Devices);
                backend.capabilities(endpoint, ChannelChoice::Auto, &identity).await.unwrap().release
            } else {
                backend.release(&identity).await.unwrap()
            }
        };
        tokio::select! {
            release = learned => assert_eq!(release, newest),
            () = upgraded => unreachable!(),
        }
        assert_eq!(backend.cached_capabilities().release, newest);
    }
}

#[tokio::test]
async fn a_path_that_was_missing_before_a_backend_was_forgotten_is_not_known_to_be_missing() {
    let (_listener, backend) = listening().await;
    let before = backend.capabilities_cache.generation();
    backend.capabilities_cache.invalidate();
    backend.note_missing_path("/health", before);
    assert!(!backend.is_known_missing("/health"));
    backend.note_missing_path("/health", backend.capabilities_cache.generation());
    assert!(backend.is_known_missing("/health"));
}

#[tokio::test]
async fn the_release_that_was_learned_last_stays_until_the_backend_refuses_connections() {
    let (listener, backend) = listening().await;
    let identity = identity();
    let first = Some(Release::new(0, 0, 1));
    tokio::select! {
        learned = backend.release(&identity) => assert_eq!(learned.unwrap(), first),
        () = serve(&listener, "0.0.1") => unreachable!(),
    }
    backend.capabilities_cache.invalidate();
    assert_eq!((backend.cached_capabilities().release, backend.last_release()), (None, first));

    let mut config = backend.config().clone();
    config.limits.probe *= 2;
    let mut reloaded = Backend::new(config.clone()).unwrap();
    reloaded.share_state(&backend);
    assert_eq!(reloaded.last_release(), first);
    config.url = "http://127.0.0.1:1".parse().unwrap();
    let mut moved = Backend::new(config).unwrap();
    moved.share_state(&backend);
    assert_eq!(moved.last_release(), None, "another URL may be that of another release");

    drop(listener);
    assert!(backend.connect_once().await.is_err());
    assert_eq!(backend.last_release(), None);
}

#[tokio::test]
async fn what_is_learned_beside_a_question_is_kept_with_its_answer() {
    let (_listener, backend) = listening().await;
    let mut probe = backend.capabilities_cache.get();
    backend.note_missing_path("/health", backend.capabilities_cache.generation());
    probe.missing.insert(KEY_STATUS, true);
    backend.capabilities_cache.store(probe);
    assert!(backend.is_known_missing("/health") && backend.is_known_missing(KEY_STATUS));
}
