//! The served paths and the documented ones are the same.

use std::fs;
use std::path::Path;

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::error_code::ErrorCode;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::object::Object;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use serde_json::json;

use super::OLD;
use super::document::{Api, path, served};
use crate::support::bridge::{BridgedReplay, Client, data_dir, fast, recordings};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_document_has_every_path_that_is_served_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [data_dir(&folder), ("jobs.recording", "on")];
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &settings).await;
    let api = Api::new(&pair.front).await;
    let mut described = api.document().paths();
    described.sort();
    assert_eq!(described, served());
    let job = api.start("/sync/devices/", &[]).await;
    api.ended(&job).await;
    for (path, methods) in described {
        let target = path.replace("{id}", job["id"].as_str().unwrap()).replace("{vm}", "7");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            if (method, target.as_str()) == ("GET", "/events") {
                // It has no end: `feed` reads it.
                continue;
            }
            let status = api.request(method, &target, &[]).await.status;
            assert_eq!(status == 405, !methods.split(", ").any(|known| known == method), "{method} {path}");
            assert_ne!(status, 404, "{method} {path}");
        }
    }
    for target in ["/jobs/", "/jobs/x/y", "/jobs//events", "/jobs/x/recordings", "/sync/", "/sync/sdns/"] {
        let answer = api.request("GET", target, &[]).await;
        assert_eq!(answer.status, 404, "{target}");
        assert!(answer.detail().contains("/jobs/{id}/events"), "{}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn the_document_has_the_version_of_the_bridge_and_every_enum_value() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    let document = api.document();
    assert_eq!(document.at("/info/version"), env!("CARGO_PKG_VERSION"));
    let schemas = "/components/schemas";
    let fields = format!("{schemas}/JobFields/properties");
    let objects = format!("{fields}/data/properties/counts/propertyNames/enum");
    let words: [(String, Vec<&str>); 6] = [
        (format!("{schemas}/Kind/enum"), Kind::all().map(Kind::as_str).collect()),
        (format!("{schemas}/Outcome/enum"), Outcome::ALL.map(Outcome::as_str).to_vec()),
        (format!("{schemas}/ErrorCode/enum"), ErrorCode::NAMES.to_vec()),
        (format!("{schemas}/Cause/enum"), Cause::ALL.map(Cause::as_str).to_vec()),
        (objects, Object::ALL.map(Object::as_str).to_vec()),
        (
            format!("{fields}/channels/items/enum"),
            [Channel::Native, Channel::Websocket, Channel::Json].map(Channel::as_str).to_vec(),
        ),
    ];
    for (pointer, words) in words {
        assert_eq!(document.at(&pointer), &json!(words), "{pointer}");
    }
}

#[test]
fn every_path_stands_in_the_tables_of_the_documentation_and_of_the_module() {
    let (document, module) = (read("deploy/api.md"), read("src/admin.rs"));
    for (path, methods) in served() {
        if path.starts_with("/sync/") {
            continue;
        }
        for method in methods.split(", ").filter(|method| *method != "HEAD") {
            let row = format!("| `{method} {path}` |");
            assert!(document.contains(&row), "not in deploy/api.md: {row}");
            assert!(module.contains(&format!("//! {row}")), "not in the module: {row}");
        }
    }
    for row in ["| `POST /sync/…` |", "| `GET /page/…` |"] {
        assert!(document.contains(row) && module.contains(row), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_job_in_the_documentation_is_valid() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    let document = read("deploy/api.md");
    let (_, shown) = document.split_once("```json\n").unwrap();
    let shown = serde_json::from_str(shown.split_once("```").unwrap().0).unwrap();
    api.document().valid(&json!({ "$ref": "#/components/schemas/JobWithLog" }), &shown, "deploy/api.md");
}

#[tokio::test(start_paused = true)]
async fn head_says_what_get_would_without_doing_it() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    let job = api.start("/sync/devices/", &[]).await;
    api.ended(&job).await;
    for target in ["/livez", "/readyz", "/openapi.json", "/jobs", path(&job)] {
        let whole = api.request("GET", target, &[]).await;
        let (status, headers) = Client::send(pair.front.admin, "HEAD", target, &[]).await.head().await;
        assert_eq!(status, 200, "{target}");
        let length = ("content-length".to_owned(), whole.body.len().to_string());
        assert!(headers.contains(&length), "{target}: {headers:?}");
    }
    let events = format!("{}/events", path(&job));
    assert_eq!(Client::send(pair.front.admin, "HEAD", &events, &[]).await.head().await.0, 405);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_another_site_changes_nothing() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    let own = format!("http://{}", pair.front.admin);
    let foreign = [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
    ];
    let someone = "/jobs/01890000-0000-7000-8000-000000000000";
    for header in foreign {
        for (method, target) in [("POST", "/sync/devices/"), ("DELETE", someone)] {
            let answer = api.request(method, target, &[header]).await;
            assert_eq!(answer.status, 403, "{method} {header:?}");
            assert!(answer.detail().contains("another site"), "{}", answer.text());
        }
        assert_eq!(api.request("GET", "/jobs", &[header]).await.status, 403);
        let link = [header, ("Sec-Fetch-Mode", "navigate")];
        assert_eq!(api.request("GET", "/jobs", &link).await.status, 200, "somebody has clicked on it");
    }
    assert_eq!(pair.log().requests(), []);
    for header in [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "none"), ("Origin", &own)] {
        api.start("/sync/devices/", &[header]).await;
    }
}
