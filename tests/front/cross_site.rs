//! Pages of other sites start nothing with the key of the bridge, nor where the operator names the sites that may.

use crate::support::bridge::{Answer, BridgedReplay, Client, DEVICES, KEY, TestBridge, fast, recordings};

/// The headers of a handshake.
const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];
/// A release that requires no key.
const WITHOUT_KEYS: &str = "0.0.2.post1";
const NETBOX: (&str, &str) = ("Origin", "https://netbox.example");

/// The status of the responses to a request with `headers` for a stream, and for `/ws`.
async fn statuses(front: &TestBridge, headers: &[(&str, &str)]) -> [u16; 2] {
    let (stream, _) = front.open(DEVICES, headers).await.head().await;
    let headers = [&HANDSHAKE, headers].concat();
    let (socket, _) = front.open("/ws", &headers).await.head().await;
    [stream, socket]
}

/// The response to a request for a stream from a browser that reaches the bridge as `host`.
async fn under(front: &TestBridge, host: &str) -> Answer {
    sent(front, &format!("{host}\r\nAccept-Language: en")).await
}

/// The response to a request for a stream with this `Host`, and the headers after it.
async fn sent(front: &TestBridge, host: &str) -> Answer {
    let request = format!("GET {DEVICES} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    Client::raw(front.address, request.as_bytes()).await.answer().await
}

async fn lending(folder: &tempfile::TempDir, settings: &[(&str, &str)]) -> BridgedReplay {
    let file = folder.path().join("key");
    std::fs::write(&file, KEY).unwrap();
    let settings = [settings, &[("backend.api_key_file", file.to_str().unwrap())]].concat();
    BridgedReplay::start(recordings("0.0.30.post2", &[]), fast(), &settings).await
}

#[tokio::test(start_paused = true)]
async fn a_page_of_another_site_starts_nothing_with_the_key_of_the_bridge() {
    let folder = tempfile::tempdir().unwrap();
    let pair = lending(&folder, &[]).await;
    let link = ("Sec-Fetch-Mode", "navigate");
    for headers in [
        &[("Sec-Fetch-Site", "cross-site")][..],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "cross-site"), link],
        &[("Origin", "null")],
        &[NETBOX],
    ] {
        assert_eq!(statuses(&pair.front, headers).await, [403, 403], "{headers:?}");
    }
    let refused = pair.front.get(DEVICES, &[NETBOX]).await;
    assert!(refused.detail().contains("add https://netbox.example to allowed_origins"), "{}", refused.text());
    let foreign = under(&pair.front, "evil.example:8800").await;
    assert_eq!(foreign.status, 403);
    assert!(
        foreign.detail().contains("add http://evil.example:8800 to allowed_origins"),
        "{}",
        foreign.text()
    );
    let asked = pair.log().requests();
    assert!(asked.iter().all(|(_, target)| target == "/"), "only what pages may read: {asked:?}");

    let own = format!("http://{}", pair.front.address);
    for headers in [
        &[][..],
        &[("Origin", &*own)],
        &[("Sec-Fetch-Site", "same-origin")],
        &[("Sec-Fetch-Site", "none"), link],
    ] {
        assert_eq!(statuses(&pair.front, headers).await, [200, 101], "{headers:?}");
    }
    let plugin = "bridge.example:8800\r\nUser-Agent: python-requests/2.32\r\nAccept: text/event-stream";
    assert_eq!(sent(&pair.front, plugin).await.status, 200, "no browser sent it");
    for host in ["localhost:8800", "proxbox-bridge", "10.0.0.1", "[::1]:8800"] {
        assert_eq!(under(&pair.front, host).await.status, 200, "{host}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_line_allows_netbox_and_names_of_the_bridge_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("allowed_origins", "https://netbox.example, http://Bridge.example:8800/")];
    let bridges = [
        lending(&folder, &settings).await,
        BridgedReplay::start(recordings(WITHOUT_KEYS, &[]), fast(), &settings).await,
    ];
    for pair in bridges {
        let page = [NETBOX, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors")];
        assert_eq!(statuses(&pair.front, &page).await, [200, 101]);
        assert_eq!(statuses(&pair.front, &[("Origin", "https://netbox.example:8443")]).await, [403, 403]);
        assert_eq!(under(&pair.front, "bridge.example:8800").await.status, 200);
        assert_eq!(under(&pair.front, "evil.example").await.status, 403);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_behind_a_trusted_proxy_is_judged_by_the_name_that_it_used() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("trusted_proxies", "127.0.0.1"), ("allowed_origins", "https://bridge.example")];
    let pair = lending(&folder, &settings).await;
    let through = |host| [("X-Forwarded-Host", host), ("X-Forwarded-Proto", "https")];
    assert_eq!(statuses(&pair.front, &through("bridge.example")).await, [200, 101]);
    let page = [&through("evil.example")[..], &[("Accept-Language", "en")]].concat();
    let refused = pair.front.get(DEVICES, &page).await;
    assert!(refused.detail().contains("https://evil.example"), "{}", refused.text());
}

#[tokio::test(start_paused = true)]
async fn without_a_key_of_its_own_and_without_allowed_origins_the_bridge_leaves_pages_to_the_backend() {
    let pair = BridgedReplay::start(recordings(WITHOUT_KEYS, &[]), fast(), &[]).await;
    assert_eq!(statuses(&pair.front, &[NETBOX, ("Sec-Fetch-Site", "cross-site")]).await, [200, 101]);
    assert_eq!(under(&pair.front, "bridge.example").await.status, 200);
}
