//! API keys: which requests carry them, how often they are tried, and how the result is reported.

use serde_json::json;

use super::replay;
use super::run::{CheckRun, file};
use crate::support::bridge::{Client, KEY};
use crate::support::scripted::{Backend, answer};
use proxbox_bridge::replay::{ReplayHandle, ServerEvent};

const WRONG: &str = "wrong-key-0123456789abcdef0123456789abcdef";
const WITH_KEYS: [&str; 3] = ["0.0.11.post2", "0.0.30.post2", "0.0.30.post2-default-mode"];

/// The requests, and whether they had a key.
fn requests(backend: &ReplayHandle) -> Vec<(String, bool)> {
    let requests = backend.log().entries().into_iter().filter_map(|entry| match entry {
        ServerEvent::Request { target, headers, .. } => {
            let has_key = headers.iter().any(|(name, _)| name == "x-proxbox-api-key");
            Some((target, has_key))
        }
        _ => None,
    });
    requests.collect()
}

/// The requests of a check without a key.
fn nothing_is_risked(backend: &ReplayHandle) {
    for (target, has_key) in requests(backend) {
        assert!(has_key || ["/", "/health", "/auth/bootstrap-status"].contains(&target.as_str()), "{target}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_once() {
    let key = file(WRONG);
    for version in WITH_KEYS {
        for json in [true, false] {
            let backend = replay(version).await;
            let path = key.path().to_str().unwrap();
            let args = if json { &["--key-file", path, "--json"][..] } else { &["--key-file", path] };
            let run = CheckRun::against(&backend.local_addr(), args, &[]).await;
            assert!(!run.text.contains(WRONG) && !run.errors.contains(WRONG), "{run:?}");
            if json {
                assert_eq!((run.code, &run.line("key")["verdict"]), (1, &json!("failed")));
            } else {
                run.assert_output(1, &[
                    "  FAILED   key          the key in --key-file is refused: Invalid API key. 4 attempts remaining.\n",
                    "→ Use the key that is registered with the backend. Do not try several: ",
                ]);
            }
            let tried: Vec<_> = requests(&backend).into_iter().filter(|(_, has_key)| *has_key).collect();
            assert_eq!(tried, [("/version".to_owned(), true)], "{version}");
            nothing_is_risked(&backend);
        }
    }
}

#[tokio::test]
async fn without_a_key_only_public_paths_are_requested() {
    for version in WITH_KEYS {
        let backend = replay(version).await;
        let run = CheckRun::against(&backend.local_addr(), &[], &[]).await;
        run.assert_output(
            0,
            &[
                "  skipped  key          this backend requires a key, and none is given\n",
                "→ Pass the plugin's key with --key-file to run the remaining checks. Clients send their own.\n",
            ],
        );
        assert!(requests(&backend).iter().all(|(_, has_key)| !has_key));
        nothing_is_risked(&backend);
    }
}

#[tokio::test]
async fn the_key_of_the_configuration_is_the_one_that_is_checked() {
    let (right, wrong) = (file(KEY), file(WRONG));
    let backend = replay("0.0.11.post2").await;
    let address = backend.local_addr();
    let configured = [("backend.api_key_file", right.path().to_str().unwrap())];
    let run = CheckRun::against(&address, &[], &configured).await;
    run.assert_output(
        0,
        &["  ok       key          the key in backend.api_key_file is accepted. It replaces "],
    );
    nothing_is_risked(&backend);
    let run =
        CheckRun::against(&address, &["--json", "--key-file", wrong.path().to_str().unwrap()], &configured)
            .await;
    assert_eq!(run.code, 78);
    assert_eq!(
        run.json()["problems"][0],
        "--key-file: not needed, because backend.api_key_file is set and its key is checked"
    );
}

#[tokio::test]
async fn a_key_for_a_release_that_takes_none_is_a_note() {
    let key = file(KEY);
    let backend = replay("0.0.3").await;
    let run =
        CheckRun::against(&backend.local_addr(), &["--key-file", key.path().to_str().unwrap()], &[]).await;
    run.assert_output(
        0,
        &["  note     key          this release requires none and ignores the key in --key-file\n"],
    );
}

#[tokio::test]
async fn a_lockout_is_reported_with_its_waiting_time() {
    let key = file(KEY);
    let backend = replay("0.0.11.post2").await;
    for _ in 0..5 {
        let headers = [("X-Proxbox-API-Key", WRONG)];
        let answer = Client::send(backend.local_addr(), "GET", "/version", &headers).await.answer().await;
        assert_eq!(answer.status, 401);
    }
    let run =
        CheckRun::against(&backend.local_addr(), &["--key-file", key.path().to_str().unwrap()], &[]).await;
    run.assert_output(1, &[
        "  FAILED   key          not checked: Too many failed authentication attempts. Please try again later.\n",
        "→ Wait 300 seconds, then check again. Until then the right key is refused, too.\n",
    ]);
}

/// A backend of a release with keys, with these responses to `/version` and to probes of its streams.
async fn backend_with_keys(version: (u16, &'static str), streams: u16) -> Backend {
    Backend::start(move |request| async move {
        match request.uri().path() {
            "/" => answer(200, &[], r#"{"message":"Proxbox Backend made in FastAPI framework"}"#),
            "/auth/bootstrap-status" | "/health" => answer(200, &[], "{}"),
            "/version" => answer(version.0, &[("retry-after", "60")], version.1),
            _ => answer(streams, &[("allow", "GET"), ("retry-after", "60")], ""),
        }
    })
    .await
}

#[tokio::test]
async fn other_responses_to_a_key_are_reported_with_a_hint() {
    let key = file(KEY);
    let release = r#"{"version":"0.0.11"}"#;
    for (version, streams, parts) in [
        (
            (401, r#"{"detail":"No API key configured. Register a key via POST /auth/register-key."}"#),
            405,
            [
                "  FAILED   key          No API key configured. Register a key",
                "→ Register the key with the backend, as the plugin does: POST /auth/register-key.",
            ],
        ),
        (
            (429, r#"{"detail":"Rate limit exceeded. Please try again later."}"#),
            405,
            [
                "  FAILED   /version     Rate limit exceeded. Please try again later.",
                "→ Wait 60 seconds, then check again.\n",
            ],
        ),
        (
            (200, release),
            429,
            ["  FAILED   streams      too many requests\n", "→ Wait 60 seconds, then check again.\n"],
        ),
        (
            (503, r#"{"detail":"Authentication verification capacity is temporarily exhausted."}"#),
            405,
            [
                "  FAILED   /version     Authentication verification capacity is temporarily exhausted.",
                "→ Wait 60 seconds, then check again.\n",
            ],
        ),
    ] {
        let backend = backend_with_keys(version, streams).await;
        let run =
            CheckRun::against(&backend.address, &["--key-file", key.path().to_str().unwrap()], &[]).await;
        run.assert_output(1, &parts);
    }
    // It accepts the key, and does not report its version.
    let backend = backend_with_keys((200, r#"{"version":"0.0.0"}"#), 405).await;
    let run = CheckRun::against(&backend.address, &["--key-file", key.path().to_str().unwrap()], &[]).await;
    run.assert_output(
        0,
        &[
            "  note     /version     the backend does not report its release\n",
            "  ok       key          the key in --key-file is accepted\n",
            "  note     /ws          the dialect is detected when it is opened\n",
        ],
    );
}

#[tokio::test]
async fn a_backend_that_repeats_the_key_does_not_make_it_known() {
    let key = file(KEY);
    let echo = Backend::start(|request| async move {
        let key = request.headers().get("x-proxbox-api-key").map(|key| key.to_str().unwrap().to_owned());
        match request.uri().path() {
            "/" => answer(200, &[], r#"{"message":"Proxbox Backend made in FastAPI framework"}"#),
            "/auth/bootstrap-status" | "/health" => answer(200, &[], "{}"),
            _ => answer(401, &[], &json!({ "detail": format!("Not {}.", key.unwrap()) }).to_string()),
        }
    })
    .await;
    // That the key is never shown is asserted of every run.
    let run = CheckRun::against(&echo.address, &["--key-file", key.path().to_str().unwrap()], &[]).await;
    run.assert_output(1, &["the key in --key-file is refused: Not [hidden].\n"]);
}

#[tokio::test]
async fn a_keyless_release_that_reports_its_version_is_checked_without_a_key() {
    let backend = Backend::start(|request| async move {
        match request.uri().path() {
            "/" => answer(200, &[], r#"{"message":"Proxbox Backend made in FastAPI framework"}"#),
            "/health" => answer(200, &[], "{}"),
            "/version" => answer(200, &[], r#"{"version":"0.0.6.post4"}"#),
            path if path.ends_with("/stream") => answer(405, &[("allow", "GET")], ""),
            _ => answer(404, &[], "{}"),
        }
    })
    .await;
    let run = CheckRun::against(&backend.address, &[], &[]).await;
    run.assert_output(
        0,
        &[
            "  ok       /version     0.0.6.post4\n",
            "  ok       key          this release requires none\n",
            "  ok       /ws          dialect 0.0.4\n",
            "  devices               native\n",
            "  emulated    GET /auth/bootstrap-status, /auth/keys: this release knows no keys\n",
            "  answered    GET /health\n",
        ],
    );
}
