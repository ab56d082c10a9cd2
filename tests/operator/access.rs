//! Access control on the admin listener.

use std::net::SocketAddr;

use proxbox_bridge::admin;

use super::OLD;
use crate::support::bridge::{Answer, Client, TOKEN, TestBridge, config, fast, recordings, replayed};
use proxbox_bridge::replay::ReplayHandle;

/// A bridge whose admin listener is not on a loopback address.
async fn open(settings: &[(&str, &str)]) -> (ReplayHandle, TestBridge) {
    started(&[settings, &[("admin_listen", "0.0.0.0:0")]].concat()).await
}

async fn started(settings: &[(&str, &str)]) -> (ReplayHandle, TestBridge) {
    let backend = replayed(recordings(OLD, &[]), fast()).await;
    let mut front = TestBridge::start(config(backend.local_addr(), settings)).await;
    front.admin = SocketAddr::from(([127, 0, 0, 1], front.admin.port()));
    (backend, front)
}

async fn request(front: &TestBridge, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    Client::send(front.admin, method, target, headers).await.answer().await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

const NOBODY: &str = "01890000-0000-7000-8000-000000000000";

#[tokio::test]
async fn on_an_address_that_others_reach_everything_but_health_and_signing_in_takes_the_token() {
    let (_backend, front) = open(&[]).await;
    for (path, methods) in admin::paths() {
        let target = path.replace("{id}", NOBODY).replace("{vm}", "7");
        for method in methods.split(", ").filter(|method| *method != "HEAD") {
            let is_free =
                matches!(path.as_str(), "/livez" | "/readyz" | "/session") || path.ends_with(".css");
            for headers in [&[][..], &[("Authorization", "Bearer wrong-0123456789abcdef")]] {
                let answer = request(&front, method, &target, headers).await;
                assert_eq!(answer.status != 401, is_free, "{method} {path} {}", answer.status);
                if !is_free {
                    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
                }
            }
            if target != "/events" {
                let right = request(&front, method, &target, &[("Authorization", &bearer(TOKEN))]).await;
                assert_ne!(right.status, 401, "{method} {path}");
            }
        }
    }
    let (_backend, front) = open(&[("admin_open_metrics", "on")]).await;
    assert_eq!(request(&front, "GET", "/metrics", &[]).await.status, 200);
    assert_eq!(request(&front, "GET", "/jobs", &[]).await.status, 401);
}

#[tokio::test]
async fn what_a_proxy_brings_to_a_loopback_address_needs_the_token_whatever_it_says_of_itself() {
    let (_backend, front) = started(&[("admin_open_reads", "off")]).await;
    // As nginx sends it with `proxy_pass` and nothing else.
    let plain = |target: &str, more: &str| {
        format!("GET {target} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n{more}\r\n", front.admin)
    };
    for (target, status) in [("/livez", 200), ("/readyz", 200), ("/", 401), ("/jobs", 401), ("/metrics", 401)]
    {
        let answer = Client::raw(front.admin, plain(target, "").as_bytes()).await.answer().await;
        assert_eq!(answer.status, status, "{target}");
        let token = format!("Authorization: {}\r\n", bearer(TOKEN));
        let answer = Client::raw(front.admin, plain(target, &token).as_bytes()).await.answer().await;
        assert_eq!(answer.status, 200, "{target}");
    }
}

#[tokio::test]
async fn where_reading_is_opened_it_is_free_under_the_machines_own_name_and_acting_is_not() {
    let (_backend, front) = started(&[]).await;
    for target in ["/", "/jobs", "/backends", "/metrics", "/log"] {
        assert_ne!(request(&front, "GET", target, &[]).await.status, 401, "{target}");
        // A page whose name was made to mean this machine.
        let foreign = format!("GET {target} HTTP/1.1\r\nHost: evil.example:{}\r\n\r\n", front.admin.port());
        let answer = Client::raw(front.admin, foreign.as_bytes()).await.answer().await;
        assert_eq!(answer.status, 401, "{target}");
    }
    let job = format!("/jobs/{NOBODY}");
    for (method, target) in
        [("POST", "/sync/devices/"), ("DELETE", &job), ("POST", "/reload"), ("PUT", "/log?filter=info")]
    {
        assert_eq!(request(&front, method, target, &[]).await.status, 401, "{method} {target}");
        let wrong = request(&front, method, target, &[("Authorization", &bearer("wrong"))]).await;
        assert_eq!(wrong.status, 401, "{method} {target}");
    }
    let right = request(&front, "POST", "/sync/devices/", &[("Authorization", &bearer(TOKEN))]).await;
    assert_eq!(right.status, 202);
}

#[tokio::test]
async fn without_a_configured_token_only_health_is_served_and_the_error_names_the_keys() {
    let backend = replayed(recordings(OLD, &[]), fast()).await;
    let config = |is_open| proxbox_bridge::config::Config {
        admin_tokens: Vec::new(),
        admin_open_reads: is_open,
        ..config(backend.local_addr(), &[])
    };
    for is_open in [false, true] {
        let front = TestBridge::start(config(is_open)).await;
        let answer = request(&front, "POST", "/sync/devices/", &[("Authorization", "Bearer ")]).await;
        assert_eq!(answer.status, 403);
        for key in ["admin_token_file", "admin_open_reads", "admin_open_metrics"] {
            assert!(answer.detail().contains(key), "{}", answer.text());
        }
        let reads = if is_open { 200 } else { 403 };
        assert_eq!(request(&front, "GET", "/jobs", &[]).await.status, reads);
        assert_eq!(request(&front, "GET", "/readyz", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_browser_signs_in_with_the_token_and_out_again() {
    let (_backend, front) = open(&[]).await;
    let first = request(&front, "GET", "/", &[]).await;
    assert_eq!(first.status, 401);
    assert!(first.text().contains("action=\"session\""), "{}", first.text());
    assert!(first.header("content-security-policy").unwrap().contains("default-src 'none'"));
    let sign_in = async |form: &str| {
        let request = format!(
            "POST /session HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            front.admin,
            form.len()
        );
        Client::raw(front.admin, request.as_bytes()).await.answer().await
    };
    for wrong in ["", "token=", "token=wrong", "other=operators-0123456789abcdef"] {
        let refused = sign_in(wrong).await;
        assert_eq!((refused.status, refused.header("set-cookie")), (403, None), "{wrong}");
        assert!(refused.text().contains("role=\"alert\">"), "it says so: {}", refused.text());
    }
    let right = sign_in(&format!("token={TOKEN}")).await;
    assert_eq!((right.status, right.header("location")), (303, Some("/")));
    let cookie = right.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(TOKEN), "the cookie is not the token");
    let cookie = cookie.split(';').next().unwrap();
    let signed_in = [("Cookie", cookie)];
    assert_eq!(request(&front, "GET", "/", &signed_in).await.status, 200);
    assert_eq!(request(&front, "POST", "/sync/devices/", &signed_in).await.status, 202);
    // A page of another site has the cookie, and is refused all the same.
    let foreign = [("Cookie", cookie), ("Origin", "http://evil.example")];
    assert_eq!(request(&front, "POST", "/sync/devices/", &foreign).await.status, 403);
    let forged = [("Cookie", cookie.replace('=', "=9").leak() as &str)];
    assert_eq!(request(&front, "GET", "/", &forged).await.status, 401);
    let out = request(&front, "DELETE", "/session", &signed_in).await;
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn under_a_path_of_a_proxy_redirects_and_the_cookie_have_that_path_whether_or_not_it_is_removed() {
    let (_backend, front) = started(&[("admin_base_path", "/proxbox-bridge")]).await;
    let as_operator = [("Authorization", &*bearer(TOKEN))];
    for target in ["/jobs", "/proxbox-bridge/jobs"] {
        assert_eq!(request(&front, "GET", target, &as_operator).await.status, 200, "{target}");
        assert_eq!(request(&front, "POST", target, &as_operator).await.status, 405, "{target}");
    }
    let page = request(&front, "GET", "/proxbox-bridge", &[]).await;
    assert_eq!((page.status, page.header("location")), (308, Some("/proxbox-bridge/")));
    for target in ["/session", "/proxbox-bridge/session"] {
        let form = format!("token={TOKEN}");
        let post = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{form}",
            front.admin,
            form.len()
        );
        let signed_in = Client::raw(front.admin, post.as_bytes()).await.answer().await;
        assert_eq!((signed_in.status, signed_in.header("location")), (303, Some("/proxbox-bridge/")));
        assert!(signed_in.header("set-cookie").unwrap().contains("; Path=/proxbox-bridge/;"));
    }
    let started = request(&front, "POST", "/proxbox-bridge/sync/devices/", &as_operator).await;
    let job = started.json();
    let location = format!("/proxbox-bridge{}", job["url"].as_str().unwrap());
    assert_eq!(started.header("location"), Some(&*location));
    assert_eq!(request(&front, "GET", &location, &as_operator).await.status, 200);
}

#[tokio::test]
async fn a_read_only_token_reads_everything_and_changes_nothing() {
    const READER: &str = "prometheus-0123456789abcdef";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("readers");
    std::fs::write(&file, READER).unwrap();
    let (_backend, front) = open(&[("admin_read_token_file", file.to_str().unwrap())]).await;
    for (path, methods) in admin::paths().filter(|(path, _)| path != "/session" && path != "/events") {
        let target = path.replace("{id}", NOBODY).replace("{vm}", "7");
        for method in methods.split(", ").filter(|method| *method != "HEAD") {
            let answer = request(&front, method, &target, &[("Authorization", &bearer(READER))]).await;
            if method == "GET" {
                let operators = request(&front, method, &target, &[("Authorization", &bearer(TOKEN))]).await;
                assert_eq!(answer.status, operators.status, "{path}");
            } else {
                let code = answer.json()["code"].clone();
                assert_eq!((answer.status, code.as_str()), (403, Some("token_read_only")), "{method} {path}");
            }
        }
    }
    let form = format!(
        "POST /session HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\ntoken={READER}",
        front.admin,
        READER.len() + 6
    );
    let signed_in = Client::raw(front.admin, form.as_bytes()).await.answer().await;
    assert_eq!(signed_in.status, 303);
    let cookie = signed_in.header("set-cookie").unwrap().split(';').next().unwrap();
    let mut events = Client::send(front.admin, "GET", "/events", &[("Cookie", cookie)]).await;
    assert_eq!(events.head().await.0, 200);
    events.read_until("\"can_act\":false").await;
    assert_eq!(request(&front, "POST", "/reload", &[("Cookie", cookie)]).await.status, 403);
}

#[tokio::test]
async fn the_token_of_operators_never_reaches_a_backend() {
    let (backend, front) = started(&[]).await;
    let headers = [("Authorization", &*bearer(TOKEN))];
    let job = request(&front, "POST", "/sync/devices/", &headers).await.json();
    let events = format!("/jobs/{}/events", job["id"].as_str().unwrap());
    assert_eq!(request(&front, "GET", &events, &[]).await.status, 200);
    let job = request(&front, "GET", job["url"].as_str().unwrap(), &[]).await.json();
    assert_eq!(job["who"]["fingerprint"], serde_json::Value::Null, "it is no key of a backend");
    drop(backend);
}

#[tokio::test]
async fn the_authority_is_checked_over_http_2_as_well() {
    let (_backend, front) = started(&[]).await;
    let request = async |authority: &str| {
        let stream = tokio::net::TcpStream::connect(front.admin).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(format!("http://{authority}/jobs")).body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        response.await.unwrap().status().as_u16()
    };
    assert_eq!(request(&front.admin.to_string()).await, 200);
    assert_eq!(request("evil.example:8801").await, 401);
}
