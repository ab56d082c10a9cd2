//! How the bridge connects to NetBox for a backend, and the errors if it cannot.

use std::time::Duration;

use proxbox_bridge::server::Server;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::front::tls::{Authority, secure_backend};
use crate::support::bridge::{NOWHERE, TestBridge, config};

use super::{FakeNetBox, V1, before, between, get, push, pushed};

const SITES: &str = "/api/dcim/sites/";

#[tokio::test]
async fn a_pushed_netbox_without_tls_is_refused_where_its_certificate_is_to_be_checked() {
    let authority = Authority::new("netbox");
    authority.issue("client", "bridge.test");
    let [ca, certificate, key] = ["ca.pem", "client.pem", "client-key.pem"].map(|name| authority.path(name));
    let pin = "CD".repeat(32);
    for settings in [
        &[("backend.netbox_ca_file", ca.to_str().unwrap())][..],
        &[("backend.netbox_pin", pin.as_str())],
        &[
            ("backend.netbox_client_certificate", certificate.to_str().unwrap()),
            ("backend.netbox_client_key", key.to_str().unwrap()),
        ],
    ] {
        let (rows, _backend, netbox, _, front, listener) = between(settings).await;
        let refused = push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        let address = format!("http://{}", netbox.address);
        for part in [settings[0].0, address.as_str(), "backend.netbox_url"] {
            assert!(refused.detail().contains(part), "{part}: {}", refused.text());
        }
        assert!(rows.0.lock().unwrap().is_empty(), "the backend was not told");
        assert_eq!(get(listener, SITES, V1).await.status, 503);
        assert!(netbox.requests().is_empty());
    }
}

#[tokio::test]
async fn files_for_netbox_that_cannot_be_used_are_an_error_of_the_start_wherever_netbox_is() {
    let authority = Authority::new("netbox");
    let missing = authority.path("missing.pem").display().to_string();
    let own = ("backend.netbox_listen", "127.0.0.1:0");
    for settings in [
        &[own, ("backend.netbox_ca_file", missing.as_str())][..],
        &[
            own,
            ("backend.netbox_client_certificate", missing.as_str()),
            ("backend.netbox_client_key", missing.as_str()),
        ],
        &[own, ("backend.netbox_url", "https://127.0.0.1:1"), ("backend.netbox_ca_file", missing.as_str())],
    ] {
        let error = Server::bind(config(NOWHERE, settings)).await.unwrap_err().to_string();
        assert!(error.contains("cannot read the") && error.contains("missing.pem"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_files_for_netbox_are_read_again_at_a_reload_and_when_they_change() {
    let [ours, other] = ["ours", "other"].map(Authority::new);
    ours.issue("netbox", "127.0.0.1");
    let (address, task) = secure_backend(&ours, "netbox").await;
    let ca = other.path("ca.pem");
    let settings = [
        ("backend.netbox_listen", "127.0.0.1:0".to_owned()),
        ("backend.netbox_url", format!("https://{address}")),
        ("backend.netbox_ca_file", ca.display().to_string()),
        ("limits.breaker_failures", "1000".to_owned()),
    ];
    let read = move || config(NOWHERE, &settings.each_ref().map(|(key, value)| (*key, value.as_str())));
    let front = TestBridge::reloading(read(), move || Ok(read())).await;
    let listener = front.netbox_listeners()[0];
    let unknown = get(listener, SITES, V1).await;
    assert_eq!(unknown.status, 502);
    for part in [format!("https://{address}").as_str(), "backend.netbox_ca_file", "backend.netbox_pin"] {
        assert!(unknown.detail().contains(part), "{part}: {}", unknown.text());
    }
    assert!(!unknown.text().contains("backend.ca_file"), "{}", unknown.text());

    std::fs::copy(ours.path("ca.pem"), &ca).unwrap();
    assert_eq!(front.admin_request("POST", "/reload", &[]).await.status, 200);
    assert_eq!(get(listener, SITES, V1).await.text(), "secure");

    std::fs::remove_file(&ca).unwrap();
    let refused = front.admin_request("POST", "/reload", &[]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("ca.pem"), "{}", refused.text());
    assert_eq!(get(listener, SITES, V1).await.text(), "secure", "what was read before stays in use");
    task.abort();

    // Another NetBox at another address, whose certificate is of an authority that comes into the file by itself.
    other.issue("netbox", "127.0.0.1");
    let (address, task) = secure_backend(&other, "netbox").await;
    let file = ours.path("ca.pem").display().to_string();
    let url = format!("https://{address}");
    let (_front, listener) =
        before(&url, &[("backend.netbox_ca_file", &file), ("limits.breaker_failures", "1000")]).await;
    assert_eq!(get(listener, SITES, V1).await.status, 502);
    other.write_ca(&ours.path("ca.pem"));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(get(listener, SITES, V1).await.text(), "secure");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_netbox_names_netbox_its_address_and_a_way_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cutting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [silent_url, cutting_url] =
        [&silent, &cutting].map(|listener| format!("http://{}", listener.local_addr().unwrap()));
    let serving = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            tokio::select! {
                Ok((stream, _)) = silent.accept() => held.push(stream),
                Ok((mut stream, _)) = cutting.accept() => {
                    let _ = stream.read(&mut [0; 1024]).await;
                }
            }
        }
    });
    let plain = FakeNetBox::default().start().await;
    let not_tls = format!("https://{}", plain.address);
    for (url, status, parts) in [
        ("http://127.0.0.1:1", 502, ["NetBox cannot be reached", "backend.netbox_url"]),
        (silent_url.as_str(), 504, ["NetBox did not answer at", "limits.response_head"]),
        (cutting_url.as_str(), 502, ["broke before NetBox answered", "write https:// in backend.netbox_url"]),
        (
            not_tls.as_str(),
            502,
            ["NetBox cannot be reached", "write http:// instead of https:// in backend.netbox_url"],
        ),
    ] {
        let (_front, listener) = before(url, &[]).await;
        let failed = get(listener, SITES, V1).await;
        assert_eq!(failed.status, status, "{}", failed.text());
        for part in parts.into_iter().chain([url]) {
            assert!(failed.detail().contains(part), "{part}: {}", failed.text());
        }
        assert!(!failed.text().contains("he backend"), "{}", failed.text());
    }
    serving.abort();
}

#[tokio::test]
async fn an_unreachable_pushed_netbox_is_reported_as_the_endpoint_that_the_plugin_pushed() {
    let (_, _backend, _netbox, _, front, listener) = between(&[]).await;
    assert_eq!(push(&front, "POST", "/netbox/endpoint", &pushed(NOWHERE)).await.status, 200);
    let failed = get(listener, SITES, V1).await;
    assert_eq!(failed.status, 502);
    assert!(failed.detail().contains("the NetBox endpoint that the plugin has pushed"), "{}", failed.text());
}
