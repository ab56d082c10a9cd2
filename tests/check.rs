//! `proxbox-bridge check`: its text for operators, its JSON and its exit codes.

mod configuration;
mod keys;
mod netbox;
mod offline;
pub mod run;
mod tls;
mod way;

use std::fs;
use std::path::Path;

use crate::support::bridge::{KEY, fast, replayed};
use proxbox_bridge::replay::{Library, ReplayHandle, ReplayOptions};
use run::{CheckRun, file};
use tempfile::TempDir;

/// Every version that was recorded.
const VERSIONS: [&str; 5] =
    ["0.0.2.post1", "0.0.3", "0.0.11.post2", "0.0.30.post2", "0.0.30.post2-default-mode"];

/// A replayed backend, with the one right key.
async fn replay(version: &str) -> ReplayHandle {
    serve(crate::support::bridge::recordings(version, &[])).await
}

async fn serve(library: Library) -> ReplayHandle {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    replayed(library, options).await
}

/// 0.0.30 as it is shipped, with the answer that says so: it was not recorded.
async fn default_mode() -> ReplayHandle {
    let folder = TempDir::new().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings/0.0.30.post2-default-mode");
    for part in ["meta", "sse", "ws"] {
        fs::create_dir(folder.path().join(part)).unwrap();
        for entry in fs::read_dir(from.join(part)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(part).join(path.file_name().unwrap())).unwrap();
        }
    }
    let lines = [
        r#"{"recording":1,"backend":"0.0.30.post2","protocol":"http","key":"sent"}"#,
        r#"{"t_ms":0,"dir":"out","kind":"request","method":"GET","target":"/execution-policy","headers":[]}"#,
        r#"{"t_ms":1,"dir":"in","kind":"response","status":200,"headers":[["content-type","application/json"]]}"#,
        r#"{"t_ms":1,"dir":"in","kind":"body","text":"{\"component\":\"proxbox-api\",\"capability\":\"interactive-rpc-boundary-v1\",\"mode\":\"rpc_only\"}"}"#,
        r#"{"t_ms":1,"dir":"in","kind":"end"}"#,
    ];
    fs::write(folder.path().join("meta/execution-policy.ndjson"), lines.join("\n") + "\n").unwrap();
    serve(Library::load(folder.path(), &[]).unwrap()).await
}

fn golden(name: &str, backend: &ReplayHandle, run: &CheckRun) {
    // Every run has another port.
    let text = run.text.replace(&backend.local_addr().to_string(), "127.0.0.1:8000");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

#[tokio::test]
async fn an_operator_reads_what_a_backend_of_each_age_can_do() {
    let key = file(KEY);
    for version in ["0.0.2.post1", "0.0.11.post2", "0.0.30.post2-default-mode"] {
        let backend = if version.ends_with("mode") { default_mode().await } else { replay(version).await };
        let needs_key = version != "0.0.2.post1";
        let with_key = ["--key-file", key.path().to_str().unwrap()];
        let run =
            CheckRun::against(&backend.local_addr(), if needs_key { &with_key } else { &[] }, &[]).await;
        assert_eq!(run.code, 0, "{}", run.text);
        golden(&format!("check_{version}"), &backend, &run);
    }
}

#[tokio::test]
async fn a_program_reads_the_same() {
    let key = file(KEY);
    let backend = default_mode().await;
    let run = CheckRun::against(
        &backend.local_addr(),
        &["--json", "--key-file", key.path().to_str().unwrap()],
        &[],
    )
    .await;
    let found = run.json();
    assert_eq!(found["verdict"], "ok");
    assert_eq!(run.line("/ws")["verdict"], "note");
    let backend = &found["backends"][0];
    let of = |kind: &str| {
        let mut kinds = backend["kinds"].as_array().unwrap().iter();
        kinds.find(|line| line["kind"] == kind).unwrap().clone()
    };
    assert_eq!(of("devices")["channels"], serde_json::json!(["native"]));
    assert_eq!(of("sdn")["channels"], serde_json::json!([]));
    let job = &backend["plugin_job"];
    assert_eq!(
        job["requests"][0],
        serde_json::json!({
            "request": "GET /auth/bootstrap-status, /auth/keys", "treatment": "answered", "why": ""
        })
    );
    assert_eq!(
        job["verdicts"][0],
        serde_json::json!({ "kind": "devices", "ending": "completed", "because": [] })
    );
    assert!(job["conditions"][0].as_str().unwrap().contains("linked to its Proxmox cluster"), "{job}");
}

#[tokio::test]
async fn nothing_is_started_and_no_socket_is_opened() {
    let key = file(KEY);
    for version in VERSIONS {
        let backend = replay(version).await;
        let args = ["--key-file", key.path().to_str().unwrap()];
        assert_eq!(CheckRun::against(&backend.local_addr(), &args, &[]).await.code, 0);
        let log = backend.log();
        let requests = log.requests();
        assert!(!requests.is_empty());
        for (method, target) in requests {
            let public = [
                "/", "/health", "/version", "/auth/bootstrap-status", "/execution-policy", "/netbox/endpoint",
            ];
            let harmless = method == "GET" && public.contains(&target.as_str());
            assert!(harmless || method == "HEAD", "{version}: {method} {target}");
        }
        assert_eq!(log.texts(), [""; 0], "{version}");
    }
}

#[tokio::test]
async fn no_request_is_sent_twice() {
    let key = file(KEY);
    for version in VERSIONS {
        let backend = replay(version).await;
        let args = ["--key-file", key.path().to_str().unwrap()];
        let settings = [("limits.capabilities", "0s")];
        assert_eq!(CheckRun::against(&backend.local_addr(), &args, &settings).await.code, 0);
        let mut requests = backend.log().requests();
        let all = requests.len();
        requests.sort();
        requests.dedup();
        assert_eq!(requests.len(), all, "{version}: {:?}", backend.log().requests());
    }
}

#[tokio::test]
async fn a_channel_that_cannot_sync_is_reported() {
    let key = file(KEY);
    let backend = default_mode().await;
    let args = ["--channel", "websocket", "--key-file", key.path().to_str().unwrap()];
    let run = CheckRun::against(&backend.local_addr(), &args, &[]).await;
    run.assert_output(
        1,
        &[
            "  FAILED   streams      nothing can be synchronised over the channel websocket",
            "→ Set backend.channel to auto.",
            "  kind                  channel (backend.channel allows websocket only)",
        ],
    );
    let args = ["--channel", "json", "--key-file", key.path().to_str().unwrap()];
    let run = CheckRun::against(&backend.local_addr(), &args, &[("backend.unsupported", "skip")]).await;
    run.assert_output(
        0,
        &[
            "  devices               –\n  storage               json\n",
            "  –: not supported by this backend; clients get a stream that reports it as skipped (backend.unsupported)",
        ],
    );
}

#[tokio::test]
async fn a_shim_that_is_switched_off_is_off() {
    let backend = replay("0.0.2.post1").await;
    let run = CheckRun::against(&backend.local_addr(), &[], &[("shims.health", "off")]).await;
    run.assert_output(
        0,
        &[
            "  emulated    GET /auth/bootstrap-status, /auth/keys: this release knows no keys\n",
            "  failed      GET /health: this release has no /health, and shims.health is off\n",
            "  full-update           errored\n",
            "because: The backend has no /health (shims.health is off).\n",
        ],
    );
}
