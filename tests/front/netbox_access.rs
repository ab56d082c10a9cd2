//! Access to the NetBox listener, and to the secrets that it fills in.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use http::Response;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::netbox_between::{
    NetboxHarness, PASSWORD, TOKEN_VALUE, default_netbox, of_release, proxmox, push, send, with_plugin,
};
use super::reload::ReloadableBridge;
use crate::support::netbox::{
    NetBox, OTHER, PROXMOX_ENDPOINTS, SYNC_PROCESSES, V1, V2, authorization, json_answer, row,
};
use crate::support::scripted::{Backend, Body, answer, full_body};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Every path of a rule, in equivalent spellings, and other paths.
const TARGETS: [&str; 16] = [
    PROXMOX_ENDPOINTS,
    "/api/plugins/proxbox/endpoints/proxmox/?limit=0",
    "/api/plugins/proxbox/endpoints/proxmox/?format=json&brief=1",
    "/api/plugins/proxbox/endpoints/proxmox",
    "/api/plugins/proxbox/endpoints/proxmox/7/",
    "//api/plugins/proxbox/endpoints/proxmox/",
    "/api/plugins/proxbox/endpoints/%70roxmox/",
    "/api/plugins/proxbox/endpoints/netbox/",
    SYNC_PROCESSES,
    "/api/plugins/proxbox/sync-processes/1/",
    "/api/extras/custom-fields/",
    "/api/extras/custom-fields/4/",
    "/api/status/",
    "/api/dcim/devices/?limit=0",
    "/api/",
    "/",
];
/// The releases of which each has rules of its own.
const RELEASES: [&str; 3] = ["0.0.2.post1", "0.0.3", "0.0.6.post4"];

fn holds_secret(text: &str) -> bool {
    [PASSWORD, TOKEN_VALUE].iter().any(|secret| text.contains(secret))
}

#[tokio::test]
async fn a_wrong_token_gets_netboxs_own_refusal_and_no_secret() {
    for release in RELEASES {
        let between = NetboxHarness::of(release, V1, &[]).await;
        for sent in [
            "Token 0000000000000000000000000000000000000000",
            "Token 0123456789ABCDEF0123456789ABCDEF01234567",
            "Token 0123456789abcdef0123456789abcdef0123456",
            "Token 0123456789abcdef0123456789abcdef01234567 x",
            "Bearer 0123456789abcdef0123456789abcdef01234567",
            "Bearer nbt_abcdefghijkl.wrong",
            "Basic MDEyMzQ1Njc4OWFiY2RlZg==",
            "Token",
            "",
        ] {
            for (method, target) in METHODS.iter().flat_map(|method| TARGETS.map(|target| (*method, target)))
            {
                let what = format!("{release}: {method} {target} with {sent:?}");
                let through = send(between.listener, method, target, sent).await;
                let direct = send(between.netbox.address, method, target, sent).await;
                assert!(!holds_secret(through.text()), "{what}: {}", through.text());
                if release == "0.0.3" && target.starts_with(SYNC_PROCESSES) {
                    // NetBox has no such path, so the bridge checks the token with another request.
                    assert_eq!(through.status, 403, "{what}");
                    continue;
                }
                assert_eq!((through.status, through.text()), (direct.status, direct.text()), "{what}");
            }
        }
        assert!(between.netbox.received().iter().all(|received| !received.is_authorised));
    }
}

#[tokio::test]
async fn a_token_that_is_not_the_backends_gets_what_netbox_gives_it_and_no_secret() {
    for token in [OTHER, V2] {
        let between = NetboxHarness::of("0.0.2.post1", V1, &[]).await;
        for (method, target) in METHODS.iter().flat_map(|method| TARGETS.map(|target| (*method, target))) {
            let response = between.send(method, target, token).await;
            assert!(!holds_secret(response.text()), "{method} {target}: {}", response.text());
            assert!(
                [200, 201, 204, 404].contains(&response.status),
                "{method} {target}: {}",
                response.status
            );
        }
        let listed = between.send("GET", PROXMOX_ENDPOINTS, token).await.json();
        let rows = listed["results"].as_array().unwrap().clone();
        assert_eq!(rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), [json!(7), json!(8)]);
        assert!(rows.iter().all(|row| row.get("password").is_none()), "{listed}");
        // That of the backend does, in its every form.
        assert!(holds_secret(between.send("GET", PROXMOX_ENDPOINTS, V1).await.text()));
    }
}

#[tokio::test]
async fn only_a_list_that_netbox_gives_out_gets_secrets() {
    let answers: [(u16, &str, &str); 7] = [
        (403, "application/json", r#"{"detail":"You do not have permission to perform this action."}"#),
        (500, "application/json", r#"{"error":"x","exception":"X","results":[{"id":7}]}"#),
        (404, "application/json", r#"{"detail":"Not found."}"#),
        (302, "text/html", ""),
        (200, "text/html", "<h1>{\"results\":[{\"id\":7}]}</h1>"),
        (200, "application/json", r#"{"count":1,"results":[{"id":"7"},{"id":8},{"id":7.5},7,null]}"#),
        (200, "application/json", r#"[{"id":7}]"#),
    ];
    for (status, kind, text) in answers {
        let netbox = NetBox::start(&[V1], move |_| {
            let response = Response::builder().status(status).header("content-type", kind);
            response.body(full_body(text)).unwrap()
        })
        .await;
        let between = NetboxHarness::before(netbox, "0.0.2.post1", &[]).await;
        between.push(V1).await;
        let answered = between.send("GET", PROXMOX_ENDPOINTS, V1).await;
        assert_eq!(answered.status, status, "{text}");
        assert!(!holds_secret(answered.text()), "{text}: {}", answered.text());
    }
}

#[tokio::test]
async fn secrets_are_for_the_token_in_force_and_for_those_that_the_backend_may_have_read_before() {
    let netbox = default_netbox().await;
    let between = NetboxHarness::before(netbox, "0.0.2.post1", &[]).await;
    let of_backend =
        async |token: &str| holds_secret(between.send("GET", PROXMOX_ENDPOINTS, token).await.text());
    assert_eq!(between.send("GET", PROXMOX_ENDPOINTS, V1).await.status, 503, "nothing was pushed");
    between.push(V1).await;
    assert_eq!((of_backend(V1).await, of_backend(V2).await), (true, false));
    between.push(V2).await;
    assert_eq!((of_backend(V1).await, of_backend(V2).await, of_backend(OTHER).await), (true, true, false));
}

#[tokio::test]
async fn another_netbox_or_another_token_drops_the_proxmox_secrets_of_the_one_before() {
    let elsewhere = default_netbox().await;
    let between = NetboxHarness::of("0.0.2.post1", V1, &[]).await;
    for (row, token, keeps) in [
        (between.netbox.row(V1), V1, true),
        (elsewhere.row(V1), V1, false),
        (between.netbox.row(V1), V1, false),
        (between.netbox.row(OTHER), OTHER, false),
    ] {
        push(&between.front, "any", "/netbox/endpoint", &row).await;
        let listed = between.send("GET", PROXMOX_ENDPOINTS, token).await;
        assert_eq!((listed.status, holds_secret(listed.text())), (200, keeps), "{row}");
        if !keeps {
            push(&between.front, "any", "/proxmox/endpoints", &proxmox(PASSWORD, TOKEN_VALUE)).await;
        }
    }
}

#[tokio::test]
async fn a_netbox_that_answers_when_another_one_was_pushed_gets_no_secret_of_that_one() {
    let (release, waiting) = tokio::sync::watch::channel(false);
    let elsewhere = Backend::start(move |_| {
        let mut waiting = waiting.clone();
        async move {
            let _ = waiting.wait_for(|released| *released).await;
            let page = json!({ "results": [{ "id": 7, "domain": "pve.example", "port": 8006 }] });
            answer(200, &[("content-type", "application/json")], &page.to_string())
        }
    })
    .await;
    let between = NetboxHarness::before(default_netbox().await, "0.0.2.post1", &[]).await;
    let row = row(elsewhere.address, V1);
    push(&between.front, "any", "/netbox/endpoint", &row).await;
    push(&between.front, "any", "/proxmox/endpoints", &proxmox("password-of-others", "value-of-others"))
        .await;
    let asking = between.send("GET", PROXMOX_ENDPOINTS, V1);
    let pushing = async {
        while elsewhere.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        between.push(V1).await;
        release.send_replace(true);
    };
    let (response, ()) = tokio::join!(asking, pushing);
    assert_eq!((response.status, holds_secret(response.text())), (200, false), "{}", response.text());
}

/// An address of this machine that is no loopback address, if it has one. Nothing is sent to find it out.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// Connects from `source` to `listener`, sends a request that would get secrets, and reads what comes to the end.
async fn from(source: IpAddr, listener: SocketAddr) -> Vec<u8> {
    let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    let mut stream = socket.connect(listener).await.unwrap();
    let request = format!(
        "GET {PROXMOX_ENDPOINTS} HTTP/1.1\r\nHost: {listener}\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
        authorization(V1)
    );
    let mut read = Vec::new();
    // One that is closed at once may be reset while it is written to.
    for ended in [stream.write_all(request.as_bytes()).await, stream.read_to_end(&mut read).await.map(drop)] {
        if let Err(error) = ended {
            assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        }
    }
    read
}

/// A bridge whose NetBox listener is at `host`, open to loopback addresses and to `allow`; with its configuration.
async fn open_to(host: &str, allow: &str) -> (ReloadableBridge, SocketAddr, String, [Backend; 1], NetBox) {
    let (backend, netbox) = (of_release("0.0.2.post1").await, NetBox::start(&[V1], with_plugin).await);
    let text = |allow: &str| {
        format!(
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[backend]\nurl = \"http://{}\"\n\
             netbox_listen = \"{host}:0\"\nnetbox_allow = [\"{allow}\"]\n",
            backend.address
        )
    };
    let changing = ReloadableBridge::start(text(allow)).await;
    push(&changing.front, "any", "/netbox/endpoint", &netbox.row(V1)).await;
    push(&changing.front, "any", "/proxmox/endpoints", &proxmox(PASSWORD, TOKEN_VALUE)).await;
    netbox.take();
    let listener = changing.front.netbox_listeners()[0];
    let template = text("ALLOWED");
    (changing, listener, template, [backend], netbox)
}

#[tokio::test]
async fn a_strangers_connection_is_closed_without_a_byte_until_its_address_is_allowed() {
    // A machine with loopback addresses alone cannot test this.
    let Some(stranger) = own_address() else { return };
    // On a socket of IPv6 the same client has an IPv4-mapped address.
    for host in [stranger.to_string(), format!("[::ffff:{stranger}]")] {
        let (changing, listener, template, _backend, netbox) = open_to(&host, "203.0.113.7").await;
        let own = SocketAddr::new(stranger, listener.port());
        assert!(from(stranger, own).await.is_empty(), "{host}: {stranger} is not allowed");
        assert!(netbox.received().is_empty(), "{host}: nothing reaches NetBox");
        for local in ["127.0.0.1", "127.0.0.2"] {
            let local: IpAddr = local.parse().unwrap();
            let response = from(local, own).await;
            assert!(
                holds_secret(&String::from_utf8(response).unwrap()),
                "{host}: {local} is a loopback address"
            );
        }
        for allowed in [stranger.to_string(), format!("::ffff:{stranger}")] {
            let (status, detail) = changing.reload(template.replace("ALLOWED", &allowed)).await;
            assert_eq!(status, 200, "{detail}");
            let response = String::from_utf8(from(stranger, own).await).unwrap();
            assert!(
                response.starts_with("HTTP/1.1 200 ") && holds_secret(&response),
                "{host}, {allowed}: {response}"
            );
        }
        let (status, detail) = changing.reload(template.replace("ALLOWED", "203.0.113.0/24")).await;
        assert_eq!(status, 200, "{detail}");
        assert!(from(stranger, own).await.is_empty(), "{host}: {stranger} is not allowed any more");
    }
}

#[tokio::test]
async fn a_connection_of_an_address_that_is_not_allowed_any_more_gets_no_further_answer() {
    let Some(stranger) = own_address() else { return };
    let (changing, listener, template, _backend, _netbox) =
        open_to(&stranger.to_string(), &stranger.to_string()).await;
    let own = SocketAddr::new(stranger, listener.port());
    let mut client = crate::support::bridge::Client::raw(own, b"").await;
    let request = format!(
        "GET {PROXMOX_ENDPOINTS} HTTP/1.1\r\nHost: {own}\r\nAuthorization: {}\r\n\r\n",
        authorization(V1)
    );
    client.write(request.as_bytes()).await;
    let first = client.next_answer().await;
    assert!(first.status == 200 && holds_secret(first.text()), "{} {}", first.status, first.text());
    let (status, detail) = changing.reload(template.replace("ALLOWED", "203.0.113.7")).await;
    assert_eq!(status, 200, "{detail}");
    client.write(request.as_bytes()).await;
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(!holds_secret(&rest), "{rest}");
}

#[tokio::test]
async fn what_netbox_allows_a_page_of_endpoints_is_filled_in_whatever_else_is_in_it() {
    let netbox = NetBox::start(&[V1], |_| -> Response<Body> {
        json_answer(
            200,
            &json!({
                "count": 3, "next": null, "previous": null,
                "results": [
                    { "id": 8, "name": "b" },
                    { "id": 7, "name": "pve", "password": null, "x": [1], "domain": "pve.example", "port": 8006 },
                ],
            }),
        )
    })
    .await;
    let between = NetboxHarness::before(netbox, "0.0.2.post1", &[]).await;
    between.push(V1).await;
    let page = between.send("GET", PROXMOX_ENDPOINTS, V1).await.json();
    let row = json!({
        "id": 7, "name": "pve", "password": PASSWORD, "token_value": TOKEN_VALUE, "token_name": "t", "x": [1],
        "domain": "pve.example", "port": 8006,
    });
    assert_eq!((&page["count"], &page["results"]), (&json!(2), &json!([row])));
}
