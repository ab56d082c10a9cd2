//! Several backends behind one bridge, selected by listening address or host name.

use std::net::SocketAddr;

use serde_json::json;

use crate::support::bridge::{Client, KEY, TestBridge, configured, fast, recordings, replayed};
use crate::support::scripted::{Backend, answer};

async fn named(name: &'static str) -> Backend {
    Backend::start(move |_| async move { answer(200, &[], name) }).await
}

#[tokio::test(start_paused = true)]
async fn a_client_is_routed_to_a_backend_by_host_or_port() {
    let [lab, rest, own] = [named("lab").await, named("rest").await, named("own").await];
    let front = TestBridge::start(configured(&format!(
        r#"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        [[backend]]
        name = "lab"
        url = "http://{}"
        hosts = ["lab.example"]
        [[backend]]
        name = "rest"
        url = "http://{}"
        [[backend]]
        name = "own"
        url = "http://{}"
        listen = "127.0.0.1:0"
        "#,
        lab.address, rest.address, own.address
    )))
    .await;
    let get = async |address, host: &str| {
        let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Client::raw(address, request.as_bytes()).await.answer().await.text().to_owned()
    };
    assert_eq!(get(front.address, "lab.example:8800").await, "lab");
    assert_eq!(get(front.address, "LAB.EXAMPLE").await, "lab");
    assert_eq!(get(front.address, "127.0.0.1:8800").await, "rest");
    let (_, address) = front.addresses.iter().find(|(key, _)| *key == "backend.listen").unwrap();
    assert_eq!(get(*address, "lab.example").await, "own");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_backend_has_is_421_where_each_has_names() {
    let [one, other] = [named("one").await, named("other").await];
    let front = TestBridge::start(configured(&format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
         [[backend]]\nurl = \"http://{}\"\nhosts = [\"one\"]\n\
         [[backend]]\nurl = \"http://{}\"\nhosts = [\"other\"]\n",
        one.address, other.address
    )))
    .await;
    let answer = front.get("/x", &[]).await;
    assert_eq!(answer.status, 421);
    assert!(answer.detail().contains("backend.hosts"), "{}", answer.text());
    assert!(one.requests().is_empty() && other.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_backend_has_its_own_jobs_key_and_channel_and_one_that_is_down_harms_no_other() {
    let old = replayed(recordings("0.0.2.post1", &[]), fast()).await;
    let new = replayed(recordings("0.0.30.post2", &[]), fast()).await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let front = TestBridge::start(configured(&format!(
        r#"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        [[backend]]
        name = "old"
        url = "http://{}"
        [[backend]]
        name = "new"
        url = "http://{}"
        hosts = ["new"]
        api_key_file = "{}"
        [[backend]]
        name = "down"
        url = "http://{nowhere}"
        hosts = ["down"]
        [backend.limits]
        retry_after = "7s"
        "#,
        old.local_addr(),
        new.local_addr(),
        key.display()
    )))
    .await;
    let stream = async |host: &str| {
        let request = format!("GET /dcim/devices/create/stream HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Client::raw(front.address, request.as_bytes()).await.answer().await
    };
    let down = stream("down").await;
    assert_eq!((down.status, down.header("retry-after")), (503, Some("7")));
    for host in ["old", "new"] {
        let answer = stream(host).await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
    }
    let jobs = front.admin_request("GET", "/jobs", &[]).await.json()["results"].clone();
    let of = |index: usize| ["backend", "backend_name", "channels"].map(|field| jobs[index][field].clone());
    let url = |backend: SocketAddr| json!(format!("http://{backend}"));
    assert_eq!(of(0), [url(new.local_addr()), json!("new"), json!(["native"])]);
    assert_eq!(of(1), [url(old.local_addr()), json!("old"), json!(["websocket"])]);

    for backend in [format!("http://{}", old.local_addr()), "old".to_owned()] {
        let listed =
            front.admin_request("GET", &format!("/jobs?backend={backend}"), &[]).await.json()["results"]
                .clone();
        assert_eq!(listed, json!([jobs[1]]), "{backend}");
    }

    let answer = front.admin_request("POST", "/sync/devices/", &[]).await;
    assert_eq!(answer.status, 400);
    assert!(answer.detail().contains("old, new, down"), "{}", answer.text());
    let answer = front.admin_request("POST", "/sync/devices/?bridge.backend=new", &[]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["backend"], json!(format!("http://{}", new.local_addr())));
    assert_eq!(front.admin_request("POST", "/sync/devices/?bridge.backend=x", &[]).await.status, 400);
}
