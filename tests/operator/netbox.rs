//! The state of a NetBox listener in the admin API.

use serde_json::json;

use super::RunningBridge;
use crate::support::bridge::Client;
use crate::support::scripted::{Backend, answer};

const TOKEN: &str = "netbox-token-0123456789";

#[tokio::test]
async fn a_request_to_netbox_is_in_the_log_with_its_ids_and_without_its_token_and_it_is_counted() {
    let netbox = Backend::start(|_| async { answer(404, &[], "{}") }).await;
    let url = format!("http://{}", netbox.address);
    let settings =
        [("backend.netbox_listen", "127.0.0.1:0"), ("backend.netbox_url", url.as_str()), ("log", "trace")];
    let mut bridge = RunningBridge::start(([127, 0, 0, 1], 1).into(), &settings);
    let listener = bridge.process.listening();
    let headers = [
        ("Authorization", format!("Token {TOKEN}")),
        ("X-Request-ID", "sync-7".to_owned()),
        ("Connection", "keep-alive".to_owned()),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let target = format!("/api/{TOKEN}/");
    let mut client = Client::send(listener, "GET", &target, &headers).await;
    assert_eq!(client.head().await.0, 404);
    let line = bridge.process.read_to("Request answered.");
    let fields = &line;
    assert_eq!((&fields["route"], &fields["status"]), (&json!("netbox"), &json!(404)), "{line}");
    assert_eq!((&line["span"], &line["request"]), (&json!("request"), &json!("sync-7")));
    assert_eq!(line["trace"].as_str().map(str::len), Some(32));
    assert_eq!(bridge.value("http_requests_total{route=\"netbox\",status=\"4xx\"}").await, 1.0);
    assert_eq!(bridge.value("connections{listener=\"netbox\"}").await, 1.0);
    drop(client);
    bridge.wait_for_value("connections{listener=\"netbox\"}", 0.0).await;
    bridge.process.terminate();
    let (code, log) = bridge.process.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(TOKEN), "{log}");
}
