//! What the documents claim.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::fs;
use std::path::{Path, PathBuf};

use proxbox_bridge::cli::counts::tables;
use proxbox_bridge::config::{Config, Flags};
use proxbox_bridge::core::compat::netbox::RULES;
use proxbox_bridge::core::domain::kind::Kind;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn what_counts_come_from_stands_in_its_tables() {
    let text = read("deploy/counts.md");
    let (_, shown) = text.split_once("<!-- proxbox-bridge counts -->\n").unwrap();
    let (shown, _) = shown.split_once("<!-- end -->").unwrap();
    assert_eq!(shown, tables(None), "print it with `proxbox-bridge counts`");
}

#[test]
fn every_documented_endpoint_stands_in_its_table() {
    let document = read("deploy/api.md");
    for row in Kind::all().map(Kind::row) {
        if let Some(path) = row.plugin_path {
            let line = format!("| `{path}` | `{}` |", row.stream_path);
            assert!(document.contains(&line), "{line}");
        }
    }
}

#[test]
fn every_metric_stands_in_its_table() {
    let readme = read("deploy/prometheus/README.md");
    let reading = proxbox_bridge::telemetry::GaugeReadings::default();
    let text = String::from_utf8(proxbox_bridge::telemetry::metrics_text(&reading)).unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    assert!(!names.is_empty());
    for name in names {
        assert!(readme.contains(&format!("| `{name}")), "{name}");
    }
}

#[test]
fn the_output_of_the_main_job_is_real() {
    let readme = read("README.md");
    let (_, shown) = readme.split_once("/full-update/stream\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let mut real = read("tests/snapshots/0.0.2.post1_auto_full-update.snap");
    for line in shown.lines().filter(|line| line.starts_with("data: ")) {
        // In their order: what was found is not looked at again.
        let at = real.find(line).unwrap_or_else(|| panic!("not in the real output, or not here: {line}"));
        real.drain(..at + line.len());
    }
}

#[test]
fn the_sample_of_several_backends_is_a_configuration() {
    let document = read("deploy/proxying.md");
    let (_, sample) = document.split_once("```toml\n").unwrap();
    let (sample, _) = sample.split_once("```").unwrap();
    let flags = Flags { config: Some("bridge.toml".to_owned()), ..Flags::default() };
    let config = Config::parse(&flags, [], |_| Ok(sample.as_bytes().to_vec())).unwrap();
    let names: Vec<&str> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["lab", "old"]);
}

#[test]
fn the_output_of_check_is_real() {
    let document = read("deploy/troubleshooting.md");
    let (_, shown) = document.split_once("proxbox-bridge check --backend http://127.0.0.1:8000\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let snapshot = read("tests/snapshots/check_0.0.2.post1.snap");
    let mut real = snapshot.lines();
    for line in shown.lines().filter(|line| line.trim() != "…") {
        assert!(real.any(|known| known == line), "not in the real output, or not here: {line}");
    }
}

#[test]
fn every_exit_code_of_check_stands_in_its_table() {
    let document = read("deploy/troubleshooting.md");
    let schema: serde_json::Value = serde_json::from_str(&read("fixtures/check.schema.json")).unwrap();
    let verdicts = schema["properties"]["verdict"]["enum"].as_array().unwrap();
    let (_, table) = document.split_once("| exit code | `verdict` | when |\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    for verdict in verdicts {
        assert!(table.contains(&format!("`{}`", verdict.as_str().unwrap())), "{verdict}");
    }
    assert!(["| 0 |", "| 1 |", "| 78 |"].iter().all(|code| table.contains(code)), "{table}");
}

#[test]
fn what_a_reader_looks_for_is_named() {
    for (document, path) in [
        ("README.md", "deploy/quickstart.sh"),
        ("README.md", "deploy/proxbox-bridge.toml"),
        ("README.md", "deploy/configuration.md"),
        ("README.md", "fixtures/README.md"),
        ("README.md", "tests/README.md"),
        ("deploy/proxying.md", "fixtures/hostile/README.md"),
        ("deploy/troubleshooting.md", "fixtures/check.schema.json"),
        ("fixtures/README.md", "fixtures/recordings"),
        ("tests/README.md", ".ci/run"),
        ("tests/README.md", "tests/fuzz"),
        ("tests/README.md", "tests/install.sh"),
    ] {
        assert!(read(document).contains(path) && root().join(path).exists(), "{document}: {path}");
    }
}

#[test]
fn what_is_changed_between_a_backend_and_netbox_stands_in_its_table() {
    let text = read("deploy/netbox-listener.md");
    let (_, shown) = text.split_once("<!-- rules -->\n").unwrap();
    let (shown, _) = shown.split_once("<!-- end -->").unwrap();
    let rows: String = RULES
        .iter()
        .map(|rule| {
            let releases =
                rule.releases.map_or("all".to_owned(), |(first, last)| format!("{first} to {last}"));
            format!(
                "| `{}` | {releases} | {} | {} | {} |\n",
                rule.shim, rule.request, rule.change, rule.reason
            )
        })
        .collect();
    let head = "| key of `[shims]` | releases | request | what is changed | why |\n|---|---|---|---|---|\n";
    assert_eq!(shown, format!("{head}{rows}"));
}
