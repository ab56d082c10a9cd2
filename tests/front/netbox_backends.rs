//! Several backends with a NetBox listener each.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::netbox_between::{of_release, proxmox, push, send, with_plugin};
use super::reload::ReloadableBridge;
use crate::support::bridge::Client;
use crate::support::netbox::{NetBox, OTHER, PROXMOX_ENDPOINTS, SYNC_PROCESSES, V1, authorization};
use crate::support::scripted::Backend;

/// The secrets of the Proxmox endpoint of each backend.
const SECRETS: [[&str; 2]; 2] = [["password-of-one", "value-of-one"], ["password-of-two", "value-of-two"]];
const TOKENS: [&str; 2] = [V1, OTHER];

/// A bridge in front of two backends, each of which has a NetBox of its own.
struct TwoBackends {
    changing: ReloadableBridge,
    backends: [Backend; 2],
    netboxes: [NetBox; 2],
    listeners: Vec<SocketAddr>,
}

impl TwoBackends {
    async fn start(releases: [&'static str; 2]) -> Self {
        let backends = [of_release(releases[0]).await, of_release(releases[1]).await];
        let netboxes =
            [NetBox::start(&[TOKENS[0]], with_plugin).await, NetBox::start(&[TOKENS[1]], with_plugin).await];
        let changing = ReloadableBridge::start(text(&backends, [true, true])).await;
        for (number, host) in ["one", "two"].into_iter().enumerate() {
            let row = netboxes[number].row(TOKENS[number]);
            push(&changing.front, host, "/netbox/endpoint", &row).await;
            if releases[number] == "0.0.2.post1" {
                let [password, value] = SECRETS[number];
                push(&changing.front, host, "/proxmox/endpoints", &proxmox(password, value)).await;
            }
        }
        let listeners = changing.front.netbox_listeners();
        Self { changing, backends, netboxes, listeners }
    }

    /// The response of the listener of one backend to the token of one.
    async fn get(&self, listener: usize, target: &str, token: usize) -> (u16, String) {
        let response = send(self.listeners[listener], "GET", target, &authorization(TOKENS[token])).await;
        (response.status, response.text().to_owned())
    }
}

/// The configuration, in which each backend has a listener or not.
fn text(backends: &[Backend; 2], has_listener: [bool; 2]) -> String {
    let mut text = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n".to_owned();
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let address = backends[number].address;
        text.push_str(&format!(
            "[[backend]]\nname = \"{name}\"\nurl = \"http://{address}\"\nhosts = [\"{name}\"]\n"
        ));
        if has_listener[number] {
            text.push_str(&format!("netbox_listen = \"127.0.0.{}:0\"\n", number + 1));
        }
    }
    text
}

#[tokio::test]
async fn a_backend_gets_its_own_secrets_from_its_own_netbox() {
    let two = TwoBackends::start(["0.0.2.post1"; 2]).await;
    assert_eq!(two.listeners.len(), 2);
    for (own, other) in [(0, 1), (1, 0)] {
        two.netboxes.iter().for_each(|netbox| drop(netbox.take()));
        let (status, page) = two.get(own, PROXMOX_ENDPOINTS, own).await;
        let page: Value = serde_json::from_str(&page).unwrap();
        let row = &page["results"][0];
        let [password, value] = SECRETS[own];
        assert_eq!((status, &row["password"], &row["token_value"]), (200, &json!(password), &json!(value)));
        assert_eq!(row["url"], format!("http://{}{PROXMOX_ENDPOINTS}7/", two.listeners[own]));
        assert_eq!((two.netboxes[own].take().len(), two.netboxes[other].take().len()), (1, 0));

        let (status, refused) = two.get(own, PROXMOX_ENDPOINTS, other).await;
        assert_eq!((status, refused.as_str()), (403, r#"{"detail":"Invalid v1 token"}"#));
        assert_eq!((two.netboxes[own].take().len(), two.netboxes[other].take().len()), (1, 0));
    }
}

#[tokio::test]
async fn the_token_of_another_backend_gets_no_secret_where_both_use_the_same_netbox() {
    let backends = [of_release("0.0.2.post1").await, of_release("0.0.2.post1").await];
    let netbox = NetBox::start(&TOKENS, with_plugin).await;
    let changing = ReloadableBridge::start(text(&backends, [true, true])).await;
    for (number, host) in ["one", "two"].into_iter().enumerate() {
        push(&changing.front, host, "/netbox/endpoint", &netbox.row(TOKENS[number])).await;
        push(&changing.front, host, "/proxmox/endpoints", &proxmox(SECRETS[number][0], SECRETS[number][1]))
            .await;
    }
    let listeners = changing.front.netbox_listeners();
    for (own, other) in [(0, 1), (1, 0)] {
        let response = send(listeners[own], "GET", PROXMOX_ENDPOINTS, &authorization(TOKENS[own])).await;
        assert!(response.text().contains(SECRETS[own][0]), "{}", response.text());
        assert!(!response.text().contains(SECRETS[other][0]), "{}", response.text());
        let response = send(listeners[own], "GET", PROXMOX_ENDPOINTS, &authorization(TOKENS[other])).await;
        assert_eq!(response.status, 200);
        assert!(
            !SECRETS.concat().iter().any(|secret| response.text().contains(secret)),
            "{}",
            response.text()
        );
    }
}

#[tokio::test]
async fn a_rule_is_for_the_backend_of_its_release_and_its_objects_for_that_alone() {
    let two = TwoBackends::start(["0.0.2.post1", "0.0.3"]).await;
    let create = async |number: usize| {
        let token = authorization(TOKENS[number]);
        send(two.listeners[number], "POST", SYNC_PROCESSES, &token).await.status
    };
    assert_eq!((create(0).await, create(1).await), (404, 201));
    let (status, page) = two.get(1, PROXMOX_ENDPOINTS, 1).await;
    assert_eq!((status, page.contains("password")), (200, false));

    let two = TwoBackends::start(["0.0.3"; 2]).await;
    let count = async |number: usize| {
        let page: Value = serde_json::from_str(&two.get(number, SYNC_PROCESSES, number).await.1).unwrap();
        page["count"].as_u64().unwrap()
    };
    let created = send(two.listeners[0], "POST", SYNC_PROCESSES, &authorization(TOKENS[0])).await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!((count(0).await, count(1).await), (1, 0));
}

#[tokio::test]
async fn a_listener_that_is_taken_out_is_closed_and_the_others_stay() {
    let two = TwoBackends::start(["0.0.2.post1"; 2]).await;
    let mut kept = Client::raw(two.listeners[1], b"").await;
    let request = format!(
        "GET {PROXMOX_ENDPOINTS} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n",
        authorization(TOKENS[1])
    );
    kept.write(request.as_bytes()).await;
    assert_eq!(kept.next_answer().await.status, 200);

    let (status, detail) = two.changing.reload(text(&two.backends, [true, false])).await;
    assert_eq!(status, 200, "{detail}");
    kept.ended().await;
    while TcpStream::connect(two.listeners[1]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let (status, page) = two.get(0, PROXMOX_ENDPOINTS, 0).await;
    assert!(status == 200 && page.contains(SECRETS[0][0]), "{status} {page}");

    // Back again it is another one, and a backend that is gone has taken its secrets along.
    let (status, detail) = two.changing.reload(text(&two.backends, [true, true])).await;
    assert_eq!(status, 200, "{detail}");
    let gone =
        text(&two.backends, [true, false]).split("[[backend]]\nname = \"two\"").next().unwrap().to_owned();
    let (status, detail) = two.changing.reload(gone).await;
    assert_eq!(status, 200, "{detail}");
    let (status, page) = two.get(0, PROXMOX_ENDPOINTS, 0).await;
    assert!(status == 200 && page.contains(SECRETS[0][0]), "{status} {page}");
}
