//! `config show`: the value of each key, its source, and no secret.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::command;

const FILE: &str = r#"
listen = "0.0.0.0:8800"
admin_token_file = "/no/such/token"
trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
[limits]
idle = "5m"
[[backend]]
url = "http://127.0.0.1:1"
name = "one"
hosts = ["a.example", "b.example"]
[backend.limits]
idle = "7m"
[[backend]]
url = "http://127.0.0.1:2"
api_key_file = "/no/such/key"
[[notify]]
form = "slack"
url = "https://hooks.example/T1/s3cret"
[[notify]]
name = "plain"
url = "https://alertmanager.example"
form = "alertmanager"
"#;

/// Prints the configuration in `file` as `args` say.
fn shown(file: &Path, args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = command(&["config", "show", "--config", file.to_str().unwrap()]);
    let output = command.args(args).envs(variables.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn config_show_names_the_source_of_each_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bridge.toml");
    fs::write(&file, FILE).unwrap();
    let args = ["--json", "--data-dir", "/flagged", "--listen", "127.0.0.1:1"];
    let variables = [("PROXBOX_BRIDGE_LIMITS_TOTAL", "3h"), ("PROXBOX_BRIDGE_LISTEN", "127.0.0.1:2")];
    let config: Value = serde_json::from_str(&shown(&file, &args, &variables)).unwrap();
    let at = |line: usize| format!("{}:{line}", file.display());
    for (table, key, value, source, origin) in [
        ("/bridge", "listen", "127.0.0.1:1", "flag", "--listen".to_owned()),
        ("/bridge", "data_dir", "/flagged", "flag", "--data-dir".to_owned()),
        ("/bridge", "limits.total", "3h", "variable", "PROXBOX_BRIDGE_LIMITS_TOTAL".to_owned()),
        ("/bridge", "limits.idle", "5m", "file", at(6)),
        ("/bridge", "trusted_proxies", "127.0.0.1/32, 10.0.0.0/8", "file", at(4)),
        ("/backends/0", "limits.idle", "7m", "file", at(12)),
        ("/backends/1", "backend.api_key_file", "/no/such/key", "file", at(15)),
    ] {
        let expected = serde_json::json!({ "value": value, "source": source, "origin": origin });
        assert_eq!(config.pointer(table).unwrap()[key], expected, "{key}");
    }
    let default = serde_json::json!({ "value": "15s", "source": "default", "origin": null });
    assert_eq!(config["bridge"]["limits.heartbeat"], default);
    assert_eq!(config["bridge"]["admin_url"]["value"], Value::Null);
    assert!(config["backends"][1].get("limits.idle").is_none(), "it is that of the bridge");
}

#[test]
fn the_text_of_config_show_is_a_file_with_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    let [file, copy] = ["bridge.toml", "copy.toml"].map(|name| folder.path().join(name));
    fs::write(&file, FILE).unwrap();
    let text = shown(&file, &[], &[]);
    assert!(text.contains(&format!("\nname = \"one\"  # {}:9\n", file.display())), "{text}");
    assert!(text.contains("\nadmin_listen = \"127.0.0.1:8801\"  # default\n"), "{text}");
    assert!(text.contains("\n# data_dir is not set\n"), "{text}");
    fs::write(&copy, &text).unwrap();
    let values = |file: &Path| {
        let mut config: Value = serde_json::from_str(&shown(file, &["--json"], &[])).unwrap();
        let all = config.as_object_mut().unwrap().values_mut().flat_map(|tables| match tables {
            Value::Array(tables) => tables.iter_mut().collect(),
            table => vec![table],
        });
        let all = all.flat_map(|table| table.as_object_mut().unwrap().values_mut());
        all.map(|key| key["value"].take()).collect::<Vec<_>>()
    };
    assert_eq!(values(&file), values(&copy));
}

#[test]
fn config_show_shows_no_secret_and_reads_no_file_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bridge.toml");
    fs::write(&file, FILE).unwrap();
    let secret = [("PROXBOX_BRIDGE_ADMIN_URL", "https://ops.example/bridge/?key=s3cret")];
    for format in [&[][..], &["--json"]] {
        let text = shown(&file, format, &secret);
        assert!(!text.contains("s3cret"), "{text}");
        for part in
            ["/no/such/token", "https://hooks.example/…", "https://alertmanager.example", "/bridge/?…"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn config_show_of_an_invalid_value_is_78() {
    let output = command(&["config", "show", "--backend", "http://me:s3cret@backend"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("--backend") && !text.contains("s3cret"), "{text}");
}
