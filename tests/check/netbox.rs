//! The checks of the path from a backend to NetBox: the listener, the endpoint row, the token and the rules.

use std::sync::{Arc, Mutex};

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::replay;
use super::run::{CheckRun, file};
use super::tls::{Folder, HERE, Leaf, TlsBackend, authority, params};
use crate::support::bridge::{Client, KEY, NOWHERE, TestBridge, config};
use crate::support::scripted::{Backend, answer};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// A backend of 0.0.2, which stores the row of NetBox that it is given in `rows`.
async fn old(rows: &Arc<Mutex<Vec<Value>>>) -> Backend {
    let rows = Arc::clone(rows);
    Backend::start(move |request: Request<Incoming>| {
        let rows = Arc::clone(&rows);
        async move {
            let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            match (method.as_str(), path.as_str()) {
                ("GET", "/") => {
                    answer(200, &JSON, r#"{"message":"Proxbox Backend made in FastAPI framework"}"#)
                }
                ("GET", "/netbox/endpoint") => answer(200, &JSON, &json!(*rows.lock().unwrap()).to_string()),
                ("POST", "/netbox/endpoint") => {
                    rows.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                    answer(200, &JSON, "{}")
                }
                _ => answer(404, &JSON, r#"{"detail":"Not Found"}"#),
            }
        }
    })
    .await
}

async fn netbox() -> Backend {
    Backend::start(|_| async {
        answer(403, &JSON, r#"{"detail":"Authentication credentials were not provided."}"#)
    })
    .await
}

async fn push(front: &TestBridge, path: &str, row: Value) {
    let body = row.to_string();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-Proxbox-API-Key: {KEY}\r\nContent-Length: {length}");
    let answer = Client::raw(front.address, format!("{head}\r\n\r\n{body}").as_bytes()).await.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn every_missing_part_of_the_netbox_listener_is_reported() {
    let rows = Arc::default();
    let (backend, netbox) = (old(&rows).await, netbox().await);
    let front = TestBridge::start(config(backend.address, &[("backend.netbox_listen", "127.0.0.1:0")])).await;
    let listener = front.netbox_listeners()[0];
    let (listen, admin) = (listener.to_string(), front.admin.to_string());
    let unread = [("backend.netbox_listen", listen.as_str()), ("admin_listen", admin.as_str())];
    let settings = [&unread[..], &[("admin_open_reads", "on")]].concat();

    let run = CheckRun::against(&backend.address, &[], &settings).await;
    run.assert_output(
        0,
        &[
            "  WARNING  netbox       the backend has no NetBox endpoint yet\n",
            "→ Save the NetBox endpoint of the plugin in NetBox, or start a sync there. ",
            "Then restart proxbox-api once.\n",
            "  ok       rules        netbox_token, netbox_links, current_token, proxmox_credentials, nested_objects\n",
            "  WARNING  listener     The bridge does not know yet where NetBox is",
            "  note     requests     the backend has sent no request since the bridge started\n",
            "  WARNING  proxmox      the plugin has pushed none since the bridge started\n",
        ],
    );

    let at = json!({
        "name": "netbox", "ip_address": "127.0.0.1", "domain": "", "port": netbox.address.port(), "verify_ssl": false,
        "token_version": "v1", "token": "0123456789abcdef", "token_key": null,
    });
    push(&front, "/netbox/endpoint", at).await;
    push(&front, "/proxmox/endpoints", json!({ "name": "pve (nb:7)", "token_value": "s3cret-value" })).await;
    push(&front, "/proxmox/endpoints", json!({ "name": "bare (nb:9)" })).await;
    let run = CheckRun::against(&backend.address, &[], &settings).await;
    run.assert_output(
        0,
        &[
            &format!("  ok       netbox       reached through backend.netbox_listen ({listener})\n"),
            &format!("  ok       listener     NetBox answers through {listener}\n"),
            "  note     requests     the backend has sent no request since the bridge started\n",
            "  WARNING  requests     syncs are refused with 503 for now\n",
            "→ Restart proxbox-api: ",
            "  WARNING  proxmox      2, without password or API token: bare (nb:9)\n",
        ],
    );
    assert!(!run.text.contains("s3cret-value") && !run.text.contains("0123456789abcdef"), "{}", run.text);
    CheckRun::against(&backend.address, &["--json"], &settings).await.json();

    let authorization = [("Authorization", "Token 0123456789abcdef")];
    Client::send(listener, "GET", "/api/dcim/sites/", &authorization).await.answer().await;
    let run = CheckRun::against(&backend.address, &[], &settings).await;
    run.assert_output(0, &["  ok       requests     the backend last sent a request at 2"]);
    let run = CheckRun::against(&backend.address, &[], &unread).await;
    run.assert_output(
        0,
        &["  skipped  proxmox      the pushed Proxmox endpoints are unknown: admin_token_file is not set\n"],
    );

    drop(netbox);
    // Connections that were open are gone with it, or are found to be.
    let run = loop {
        let run = CheckRun::against(&backend.address, &[], &settings).await;
        if run.code == 1 {
            break run;
        }
    };
    run.assert_output(
        1,
        &[
            "  FAILED   listener     NetBox cannot be reached: ",
            "→ Fix the NetBox endpoint of the plugin, backend.netbox_url, or the network between the bridge and NetBox.\n",
        ],
    );
    front.stop().await;
    let run = CheckRun::against(&backend.address, &[], &settings).await;
    run.assert_output(
        0,
        &[
            "  WARNING  listener     nothing listens: ",
            "→ Start the bridge with this configuration, or reload it.\n",
        ],
    );
}

#[tokio::test]
async fn a_disabled_rule_and_a_token_that_needs_it_are_reported() {
    let rows = Arc::new(Mutex::new(vec![json!({
        "id": 1, "name": "netbox", "ip_address": "10.0.0.5", "port": 443, "token": "nbt_key.s3cret",
    })]));
    let backend = old(&rows).await;
    let listen = NOWHERE.to_string();
    let off = [
        ("backend.netbox_listen", listen.as_str()),
        ("shims.netbox_token", "off"),
        ("shims.proxmox_credentials", "off"),
    ];
    let run = CheckRun::against(&backend.address, &[], &off).await;
    run.assert_output(
        0,
        &[
            &format!("  WARNING  netbox       not reached through backend.netbox_listen ({listen})\n"),
            "  WARNING  token        a v2 token, which proxbox-api 0.0.2 sends as Token, but NetBox accepts it only as Bearer\n",
            "→ Set backend.netbox_listen with shims.netbox_token = \"on\", or give the NetBox endpoint of the plugin a v1 token.\n",
            "  ok       rules        netbox_links, current_token, nested_objects\n",
            "  WARNING  rules        shims.proxmox_credentials is off. ",
            "→ Set shims.proxmox_credentials = \"on\".\n",
        ],
    );
    assert!(!run.text.contains("s3cret"), "{}", run.text);
    let run = CheckRun::against(&backend.address, &[], &[]).await;
    run.assert_output(
        0,
        &[
            "  note     netbox       proxbox-api 0.0.2 needs backend.netbox_listen. ",
            "→ Set backend.netbox_listen: deploy/netbox-listener.md has the steps.\n",
            "  WARNING  token        a v2 token, ",
        ],
    );
}

#[tokio::test]
async fn a_release_that_needs_no_listener_and_an_unreachable_netbox_are_reported() {
    let key = file(KEY);
    let backend = replay("0.0.11.post2").await;
    let args = ["--key-file", key.path().to_str().unwrap()];
    let (listen, url) = (NOWHERE.to_string(), "http://127.0.0.2:1");
    let settings = [("backend.netbox_listen", listen.as_str()), ("backend.netbox_url", url)];
    let run = CheckRun::against(&backend.local_addr(), &args, &settings).await;
    run.assert_output(
        1,
        &[
            "  note     rules        netbox_token, netbox_links\n",
            "→ proxbox-api 0.0.11.post2 does not need backend.netbox_listen.\n",
            &format!("  FAILED   netbox_url   NetBox cannot be reached at {url}: "),
            "→ Fix backend.netbox_url, backend.netbox_ca_file or backend.netbox_pin, or the network.\n",
        ],
    );
    let netbox = netbox().await;
    let url = format!("http://{}", netbox.address);
    let settings = [("backend.netbox_listen", listen.as_str()), ("backend.netbox_url", &url)];
    let run = CheckRun::against(&backend.local_addr(), &args, &settings).await;
    run.assert_output(0, &[&format!("  ok       netbox_url   NetBox answers at {url}\n")]);
    assert_eq!(netbox.last().header("authorization"), None);
    assert_eq!(netbox.last().header("x-proxbox-api-key"), None);
}

#[tokio::test]
async fn a_listener_with_a_certificate_is_reached_over_tls_and_its_certificate_is_checked() {
    let (folder, ca) = (Folder::new(), authority("The CA"));
    for (name, hosts, expected) in [
        ("right", HERE, "  WARNING  listener     The bridge does not know yet where NetBox is"),
        ("wrong", ["netbox.example"], ": the TLS handshake with backend.netbox_certificate fails\n"),
    ] {
        let leaf = Leaf::issued_by(&ca, &params(name, &hosts));
        let certificate = folder.write(&format!("{name}.pem"), &leaf.pem);
        let key = folder.write(&format!("{name}-key.pem"), &leaf.key.serialize_pem());
        let files = [("backend.netbox_certificate", certificate.as_str()), ("backend.netbox_key", &key)];
        let rows = Arc::default();
        let backend = old(&rows).await;
        let any = [&files[..], &[("backend.netbox_listen", "127.0.0.1:0")]].concat();
        let front = TestBridge::start(config(backend.address, &any)).await;
        let listener = front.netbox_listeners()[0];
        rows.lock().unwrap().push(json!({
            "id": 1, "name": "netbox", "ip_address": "127.0.0.1", "port": listener.port(), "verify_ssl": false,
        }));
        let listen = listener.to_string();
        let settings = [&files[..], &[("backend.netbox_listen", listen.as_str())]].concat();
        let run = CheckRun::against(&backend.address, &[], &settings).await;
        let without_tls = format!(
            "  WARNING  netbox       reached through backend.netbox_listen ({listener}) with verify_ssl false, but the \
             listener has backend.netbox_certificate\n"
        );
        run.assert_output(i32::from(name == "wrong"), &[&without_tls, expected]);
    }
}

#[tokio::test]
async fn a_row_with_the_address_in_brackets_leads_to_a_listener_of_ipv6() {
    let listen = "[::1]:9";
    let rows = Arc::new(Mutex::new(vec![json!({
        "id": 1, "name": "netbox", "ip_address": "[::1]", "port": 9, "verify_ssl": false,
    })]));
    let backend = old(&rows).await;
    let run = CheckRun::against(&backend.address, &[], &[("backend.netbox_listen", listen)]).await;
    assert!(
        run.text.contains("  ok       netbox       reached through backend.netbox_listen ([::1]:9)\n"),
        "{}",
        run.text
    );
}

#[tokio::test]
async fn what_is_wrong_with_the_certificate_of_netbox_names_the_keys_for_netbox() {
    let leaf = Leaf::issued_by(&authority("The CA"), &params("netbox", &HERE));
    let (netbox, rows) = (TlsBackend::with(&leaf, None).await, Arc::default());
    let (backend, folder, listen) = (old(&rows).await, Folder::new(), NOWHERE.to_string());
    let ca_file = folder.write("other.pem", &authority("Another CA").pem());
    let settings = [
        ("backend.netbox_listen", listen.as_str()),
        ("backend.netbox_url", &netbox.url),
        ("backend.netbox_ca_file", &ca_file),
    ];
    let run = CheckRun::against(&backend.address, &[], &settings).await;
    run.assert_output(
        1,
        &[
            "  FAILED   netbox_url   NetBox cannot be reached at ",
            "in backend.netbox_ca_file, or pin the certificate in backend.netbox_pin",
        ],
    );
}
