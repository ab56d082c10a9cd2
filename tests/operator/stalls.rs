//! A process that is stopped for a while.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::bridge::Client;
use crate::bridge::puppet::Puppet;
use crate::{DEVICES, Operated};

#[tokio::test]
async fn a_sync_outlives_a_pause_of_the_process_that_is_longer_than_the_idle_limit() {
    let mut puppet = Puppet::start().await;
    let limit = Duration::from_secs(2);
    let bridge = Operated::start(puppet.address, &[("limits.idle", "2s")]);
    let mut client = Client::send(bridge.process.address, "GET", DEVICES, &[]).await;
    let mut played = puppet.played().await;
    assert_eq!(client.head().await.0, 200);
    played.device("pve1", "completed").await;
    let mut body = String::new();
    while !body.contains("pve1") {
        body.push_str(&String::from_utf8(client.chunk().await).unwrap());
    }
    bridge.process.pause();
    let paused = Instant::now();
    played.device("pve2", "completed").await;
    played.complete().await;
    // The limit is over before the bridge can read that.
    sleep_until(paused + limit + limit / 4).await;
    bridge.process.resume();
    let rest = String::from_utf8(client.answer_body().await).unwrap();
    assert!(rest.contains("Synced device pve2") && rest.contains("{\"ok\": true"), "{rest}");
}
