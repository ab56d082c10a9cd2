//! Clients that keep a connection open without using it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::bridge::{NOWHERE, TestBridge, config};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NO_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;

#[tokio::test(start_paused = true)]
async fn an_idle_http_2_client_gets_a_goaway_and_is_disconnected() {
    let front = TestBridge::start(config(NOWHERE, &[])).await;
    let mut client = TcpStream::connect(front.address).await.unwrap();
    client.write_all(&[PREFACE, &NO_SETTINGS].concat()).await.unwrap();
    let mut received = Vec::new();
    timeout(Duration::from_secs(600), client.read_to_end(&mut received)).await.expect("an end").unwrap();
    let mut kinds = Vec::new();
    let mut rest = received.as_slice();
    while let [a, b, c, kind, ..] = *rest {
        kinds.push(kind);
        rest = &rest[9 + u32::from_be_bytes([0, a, b, c]) as usize..];
    }
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}
