//! Requests that are forwarded.

use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use super::micros;
use crate::Bench;
use crate::client::{LONGEST, RequestClient};
use crate::source::DOCUMENT;
use crate::system::System;

/// How many requests are sent at once.
const AT_ONCE: usize = 32;

/// The microseconds of processor time for a request on one of [`AT_ONCE`] connections.
pub fn passthrough(bench: &Bench, system: System) -> Vec<f64> {
    let running = bench.running(system, &bench.native);
    let each = bench.count(system, 20_000) / AT_ONCE;
    bench.runtime.block_on(async {
        let cpu = running.cpu();
        join_all((0..AT_ONCE).map(|_| async {
            let mut client = RequestClient::connect(running.address).await.unwrap();
            for _ in 0..each {
                assert_eq!(client.get(DOCUMENT).await.unwrap(), 200);
            }
        }))
        .await;
        vec![micros(running.cpu() - cpu) / (each * AT_ONCE) as f64]
    })
}

/// The microseconds of processor time for a request, [`AT_ONCE`] on one HTTP/2 connection.
pub fn h2(bench: &Bench, system: System) -> Vec<f64> {
    let running = bench.running(system, &bench.native);
    let each = bench.count(system, 20_000) / AT_ONCE;
    bench.runtime.block_on(async {
        let stream = TcpStream::connect(running.h2).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let cpu = running.cpu();
        join_all((0..AT_ONCE).map(|_| async {
            for _ in 0..each {
                let mut client = client.clone().ready().await.unwrap();
                let request = http::Request::get(format!("http://bridge{DOCUMENT}")).body(()).unwrap();
                let response = client.send_request(request, true).unwrap().0;
                let response = timeout(LONGEST, response).await.unwrap().unwrap();
                assert_eq!(response.status(), 200, "{system:?}");
                let mut body = response.into_body();
                while let Some(data) = timeout(LONGEST, body.data()).await.unwrap() {
                    body.flow_control().release_capacity(data.unwrap().len()).unwrap();
                }
            }
        }))
        .await;
        let used = running.cpu() - cpu;
        connection.abort();
        vec![micros(used) / (each * AT_ONCE) as f64]
    })
}

/// The microseconds of processor time for a connection with one request, of which there are 200 a second.
pub fn churn(bench: &Bench, system: System) -> Vec<f64> {
    const CONNECTIONS: usize = 200;
    let running = bench.running(system, &bench.native);
    bench.runtime.block_on(async {
        let mut ticks = interval(Duration::from_millis(5));
        let cpu = running.cpu();
        for _ in 0..CONNECTIONS {
            ticks.tick().await;
            let mut client = RequestClient::connect(running.address).await.unwrap();
            assert_eq!(client.get(DOCUMENT).await.unwrap(), 200);
        }
        vec![micros(running.cpu() - cpu) / CONNECTIONS as f64]
    })
}
