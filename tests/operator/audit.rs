//! Who did what: the audit log, the lines of requests and jobs, and the author of a cancellation.

use serde_json::{Value, json};

use super::{OLD, RunningBridge, TOKEN, poll_until};
use crate::support::bridge::{Client, DEVICES, fast, recordings, replayed};
use crate::support::manual::ManualBackend;
use crate::support::process::Process;

/// The lines of `log` that have this value in a field.
fn lines_with(log: &str, field: &str, value: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line[field] == value).collect()
}

/// The values of `fields` in a line of the log.
fn fields<const N: usize>(line: &Value, fields: [&str; N]) -> [Value; N] {
    fields.map(|field| line[field].clone())
}

#[tokio::test]
async fn the_log_says_who_started_a_job_and_who_cancelled_it_and_the_ledger_keeps_that() {
    let mut backend = ManualBackend::with_release("0.0.30.post2").await;
    let RunningBridge { process, _data: data } = RunningBridge::start(backend.address, &[]);
    let token = format!("Bearer {TOKEN}");
    let target = format!("{DEVICES}?proxmox_endpoint_ids=1");
    let names = [("X-Request-ID", "netbox-7"), ("X-Proxbox-Actor", "anna")];
    let mut stream = Client::send(process.address, "GET", &target, &names).await;
    let _held = backend.next_stream().await;
    let (_, head) = stream.head().await;
    let id = head.into_iter().find(|(name, _)| name == "x-proxbox-bridge-job").unwrap().1;
    let cancel = [("Authorization", token.as_str()), ("X-Proxbox-Actor", "bob")];
    let path = format!("/jobs/{id}");
    let cancelled = Client::send(process.admin, "DELETE", &path, &cancel).await.answer().await;
    assert_eq!(cancelled.status, 202);
    let author = async |process: &Process| {
        let job = Client::send(process.admin, "GET", &path, &cancel[..1]).await.answer().await.json();
        job["completed"].is_string().then(|| job["cancelled_by"].clone())
    };
    assert_eq!(poll_until(async || author(&process).await).await, "bob");
    stream.answer_body().await;
    process.terminate();
    let (code, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");

    let started = &lines_with(&log, "message", "Job started.")[0];
    let expected = ["netbox-7", "127.0.0.1", "anna", "proxmox_endpoint_ids=1"].map(Value::from);
    assert_eq!(fields(started, ["request", "client", "user", "query"]), expected);
    let of_requests = lines_with(&log, "message", "Request answered.");
    let of_job: Vec<_> = of_requests.iter().filter(|line| line["job"] == id.as_str()).collect();
    let methods: Vec<_> = of_job.iter().map(|line| &line["method"]).collect();
    assert_eq!(methods, [&json!("GET"), &json!("DELETE")]);
    let audit = lines_with(&log, "target", "audit");
    let audit: Vec<_> = audit.iter().map(|line| fields(line, ["action", "user", "client", "job"])).collect();
    let expected = [["start", "anna", "127.0.0.1", &id], ["cancel", "bob", "127.0.0.1", &id]];
    assert_eq!(audit, expected.map(|line| line.map(Value::from)));

    let bridge = RunningBridge::with_data(data, backend.address, &[]);
    assert_eq!(author(&bridge.process).await.unwrap(), "bob");
}

#[tokio::test]
async fn the_audit_log_has_every_action_whatever_the_filter_and_none_is_an_error() {
    let backend = replayed(recordings(OLD, &[]), fast()).await;
    let settings = [("limits.check", "0s"), ("trusted_proxies", "127.0.0.1")];
    let bridge = RunningBridge::start(backend.local_addr(), &settings);
    assert_eq!(bridge.admin("PUT", "/log?filter=off").await.status, 200);
    let form = |token: &str| {
        format!(
            "POST /session HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\ntoken={token}",
            bridge.process.admin,
            token.len() + 6
        )
    };
    for (token, status) in [("wrong-0123456789abcdef", 403), (TOKEN, 303)] {
        let answer = Client::raw(bridge.process.admin, form(token).as_bytes()).await.answer().await;
        assert_eq!(answer.status, status);
    }
    let wrong = [("Authorization", "Bearer wrong-0123456789abcdef"), ("X-Forwarded-For", "192.0.2.7")];
    assert_eq!(Client::send(bridge.process.admin, "GET", "/jobs", &wrong).await.answer().await.status, 401);
    assert_eq!(bridge.admin("POST", "/reload").await.status, 200);
    assert_eq!(bridge.admin("POST", "/clean").await.status, 200);
    let key = json!({ "api_key": "k".repeat(32) }).to_string();
    let register = format!(
        "POST /auth/register-key HTTP/1.1\r\nHost: bridge\r\nContent-Length: {}\r\n\r\n{key}",
        key.len()
    );
    for status in [201, 409] {
        let answer = Client::raw(bridge.process.address, register.as_bytes()).await.answer().await;
        assert_eq!(answer.status, status);
    }
    let log = bridge.ended();
    let audit = lines_with(&log, "target", "audit");
    let lines: Vec<_> = audit
        .iter()
        .map(|line| {
            let [action, user] = fields(line, ["action", "user"]);
            (line["level"].as_str().unwrap(), action.as_str().unwrap().to_owned(), user)
        })
        .collect();
    let line = |level, action: &str, user: Option<&str>| (level, action.to_owned(), json!(user));
    assert_eq!(
        lines,
        [
            line("INFO", "log_filter", Some("operator")),
            line("WARN", "sign_in_refused", None),
            line("INFO", "sign_in", Some("operator")),
            line("WARN", "token_refused", None),
            line("INFO", "reload", Some("operator")),
            line("INFO", "clean", Some("operator")),
            line("INFO", "register_key", None),
            line("WARN", "register_key_refused", None),
        ],
        "{log}"
    );
    assert_eq!(fields(&audit[3], ["client"]), [json!("192.0.2.7")], "the client of the proxy");
}

#[tokio::test]
async fn the_tokens_of_a_file_have_names_and_a_reload_applies_them() {
    const ANNA: &str = "anna-0123456789abcdef";
    const GRAFANA: &str = "grafana-0123456789abcdef";
    let backend = replayed(recordings(OLD, &[]), fast()).await;
    let folder = tempfile::tempdir().unwrap();
    let [operators, readers] = ["operators", "readers"].map(|name| folder.path().join(name));
    std::fs::write(&operators, format!("{TOKEN}\n")).unwrap();
    std::fs::write(&readers, format!("grafana:{GRAFANA}\n")).unwrap();
    let files = [
        ("admin_token_file", operators.to_str().unwrap()),
        ("admin_read_token_file", readers.to_str().unwrap()),
    ];
    let process = Process::start(&folder.path().join("data"), backend.local_addr(), &files);
    let request = async |token: &str, method: &str, target: &str| {
        let token = format!("Bearer {token}");
        Client::send(process.admin, method, target, &[("Authorization", &token)]).await.answer().await
    };
    assert_eq!(request(ANNA, "GET", "/jobs").await.status, 401);
    std::fs::write(&operators, format!("anna:{ANNA}\n{TOKEN}\n")).unwrap();
    assert_eq!(request(TOKEN, "POST", "/reload").await.status, 200);
    let job = request(ANNA, "POST", "/sync/full-update/").await;
    assert_eq!((job.status, &job.json()["user"]), (202, &json!("anna")));
    let job = format!("/jobs/{}", job.json()["id"].as_str().unwrap());
    poll_until(async || request(ANNA, "GET", &job).await.json()["completed"].is_string().then_some(())).await;
    // A name that the request gives does not hide that of its token, and is nothing without one.
    let named = async |token: &str, method: &str, target: &str| {
        let token = format!("Bearer {token}");
        let headers = [("Authorization", token.as_str()), ("X-Proxbox-Actor", "bob")];
        Client::send(process.admin, method, target, &headers).await.answer().await.status
    };
    assert_eq!(named(ANNA, "PUT", "/log?filter=info").await, 200);
    assert_eq!(named("wrong-0123456789abcdef", "PUT", "/log?filter=info").await, 401);
    assert_eq!(request(GRAFANA, "GET", "/metrics").await.status, 200);
    let denied = request(GRAFANA, "POST", "/reload").await;
    assert_eq!((denied.status, &denied.json()["code"]), (403, &json!("token_read_only")));
    std::fs::write(&readers, "grafana:other-0123456789abcdef").unwrap();
    assert_eq!(request(ANNA, "POST", "/reload").await.status, 200);
    assert_eq!(request(GRAFANA, "GET", "/metrics").await.status, 401);
    process.terminate();
    let (code, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
    let audit = lines_with(&log, "target", "audit");
    // Some of the refusals are in one line.
    let (refused, audit): (Vec<_>, Vec<_>) = audit.iter().partition(|line| line["action"] == "token_refused");
    assert!(!refused.is_empty() && refused.iter().all(|line| line["user"].is_null()), "{log}");
    let users: Vec<_> = audit.iter().map(|line| fields(line, ["action", "user"])).collect();
    let expected = [
        ("reload", "operator"),
        ("start", "anna"),
        ("log_filter", "bob (anna)"),
        ("denied", "grafana"),
        ("reload", "anna"),
    ];
    assert_eq!(users, expected.map(|(action, user)| [json!(action), json!(user)]));
    assert!(lines_with(&log, "message", "Request answered.").iter().any(|line| line["token"] == "anna"));
    for token in [TOKEN, ANNA, GRAFANA] {
        assert!(!log.contains(token), "{log}");
    }
}
