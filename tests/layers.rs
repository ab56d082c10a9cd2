//! Which module may import which: dependencies point one way, and the core does no I/O.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "layers/imports.rs"]
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

/// Which parts of the crate each part may import.
const LAYERS: [(&str, &[&str]); 21] = [
    ("core", &["core"]),
    ("deadline", &["deadline"]),
    ("private", &["private"]),
    ("tls", &["core", "tls"]),
    ("config", &["core", "tls", "config"]),
    ("tcp", &["config", "tcp"]),
    ("telemetry", &["core", "telemetry"]),
    ("respond", &["core", "respond"]),
    ("client", &["core", "tls", "config", "client"]),
    ("backend", &["core", "deadline", "tls", "config", "tcp", "client", "telemetry", "backend"]),
    ("ledger", &["core", "private", "telemetry", "ledger"]),
    ("job", &["core", "deadline", "config", "private", "backend", "ledger", "recording", "telemetry", "job"]),
    ("notify", &["core", "tls", "config", "client", "ledger", "telemetry", "notify"]),
    ("app", &["core", "config", "backend", "ledger", "job", "notify", "telemetry", "tls", "app"]),
    (
        "proxy",
        &[
            "core", "deadline", "tls", "config", "private", "backend", "ledger", "job", "telemetry",
            "respond", "app", "proxy",
        ],
    ),
    (
        "admin",
        &[
            "core", "deadline", "config", "backend", "ledger", "job", "telemetry", "respond", "app", "proxy",
            "admin",
        ],
    ),
    (
        "server",
        &[
            "core", "deadline", "tls", "config", "tcp", "app", "proxy", "admin", "job", "ledger", "notify",
            "respond", "telemetry", "server",
        ],
    ),
    ("recording", &["core", "recording"]),
    ("record", &["core", "private", "backend", "recording", "record"]),
    ("replay", &["core", "recording", "replay"]),
    (
        "cli",
        &[
            "core", "tls", "config", "client", "backend", "ledger", "job", "notify", "admin", "server",
            "telemetry", "replay", "record", "recording", "cli",
        ],
    ),
];

/// The crates that the core may use: nothing that waits or does I/O.
const CORE: [&str; 17] = [
    "std", "core", "self", "super", "crate", "aho_corasick", "base64", "bytes", "foldhash",
    "form_urlencoded", "http", "memchr", "percent_encoding",
    // Types of secrets, which are zeroed when they are dropped: values alone.
    "secrecy", "serde", "serde_json", "zeroize",
];
const WORLD: [&str; 12] = [
    // Addresses are values, and are in `core::net`.
    "std::net", "std::fs", "std::io", "std::env", "std::thread", "std::process", "Instant", "SystemTime",
    "tokio", "hyper", "rand", "uuid",
];

fn sources(part: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![root.join(format!("{part}.rs"))];
    let mut folders = vec![root.join(part)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// The code of a file, without its comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn dependencies_point_one_way() {
    for (part, allowed) in LAYERS {
        for path in sources(part) {
            let code = code(&path);
            for (at, _) in code.match_indices("crate::") {
                let name: String =
                    code[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                assert!(
                    name.is_empty() || allowed.contains(&name.as_str()),
                    "{}: crate::{name}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn sqlite_is_known_in_its_own_directory_alone() {
    let is_own = |path: &Path| path.parent().is_some_and(|folder| folder.ends_with("ledger/sqlite"));
    for path in LAYERS.iter().flat_map(|(part, _)| sources(part)).filter(|path| !is_own(path)) {
        assert!(!code(&path).contains("rusqlite"), "{}", path.display());
    }
}

#[test]
fn no_two_files_import_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let imports = imports::imports(&root);
    assert!(imports.values().map(|targets| targets.len()).sum::<usize>() > 500, "the paths are resolved");
    if let Some(circle) = imports::circle(imports) {
        let files: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        panic!("each of these files imports the next, and the last one the first: {}", files.join(" → "));
    }
}

#[test]
fn the_core_does_no_io() {
    for path in sources("core") {
        let code = code(&path);
        for line in code.lines().filter_map(|line| line.strip_prefix("use ")) {
            let name = line.split([':', ';']).next().unwrap();
            let own = path.with_extension("").join(format!("{name}.rs")).exists();
            assert!(own || CORE.contains(&name), "{}: use {line}", path.display());
        }
        for word in WORLD {
            let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let found =
                words.into_iter().any(|found| found == word || found.starts_with(&format!("{word}::")));
            assert!(!found, "{}: {word}", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    for (part, _) in LAYERS {
        // The OpenAPI document is data.
        for path in sources(part).into_iter().filter(|path| path.extension().is_none_or(|end| end != "json"))
        {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= 600, "{}: {lines} lines", path.display());
        }
    }
}

#[test]
fn only_telemetry_writes_log_events() {
    // A recorded backend is none.
    for (part, _) in
        LAYERS.into_iter().filter(|(part, _)| !["telemetry", "replay", "recording"].contains(part))
    {
        for path in sources(part).into_iter().filter(|path| !path.ends_with("cli/replay.rs")) {
            let code = code(&path);
            for level in ["trace!", "debug!", "info!", "warn!", "error!"] {
                assert!(!code.contains(&format!("tracing::{level}")), "{}: tracing::{level}", path.display());
            }
        }
    }
}
