//! `reload` and `log`: a running bridge is changed, and an error says what is wrong.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{command, running};
use crate::support::process::Process;

const TOKEN: &str = "operators-0123456789abcdef";
const READ_TOKEN: &str = "readers-0123456789abcdef";

/// A bridge with a configuration file, in a folder with its tokens.
struct Operated {
    bridge: Process,
    folder: TempDir,
}

impl Operated {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, token) in [("token", TOKEN), ("read-token", READ_TOKEN)] {
            fs::write(folder.path().join(name), token).unwrap();
        }
        configure(folder.path(), "");
        let mut bridge = running(&["serve", "--config", file(folder.path()).as_str()], "info");
        bridge.admin = bridge.listening();
        Self { bridge, folder }
    }

    /// The exit code, and what the command printed to standard output and to standard error.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let token = self.folder.path().join("token");
        self.run_with(args, &token)
    }

    fn run_with(&self, args: &[&str], token: &Path) -> (Option<i32>, String, String) {
        let mut command = command(args);
        command.args(["--bridge", &format!("http://{}", self.bridge.admin)]).arg("--token-file").arg(token);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

fn file(folder: &Path) -> String {
    folder.join("bridge.toml").to_str().unwrap().to_owned()
}

/// Writes the file with `more` at its top.
fn configure(folder: &Path, more: &str) {
    let text = format!(
        "{more}\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nadmin_token_file = {:?}\n\
         admin_read_token_file = {:?}\n[backend]\nurl = \"http://127.0.0.1:1\"\nname = \"lab\"\n",
        folder.join("token"),
        folder.join("read-token"),
    );
    fs::write(file(folder), text).unwrap();
}

#[test]
fn a_reload_is_reported_with_its_result() {
    let mut operated = Operated::start();
    let folder = operated.folder.path().to_owned();
    configure(&folder, "admin_url = \"https://ops.example\"");
    let (code, text, _) = operated.run(&["reload"]);
    let changed = "admin_url: not set → https://ops.example/";
    assert_eq!(
        (code, text),
        (Some(0), format!("The configuration was reloaded. Backends: lab.\n{changed}\n"))
    );
    operated.bridge.read_to("Configuration reloaded.");
    let (code, text, _) = operated.run(&["reload", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let nothing = serde_json::json!([]);
    assert_eq!((code, &answer["detail"], &answer["changed"]), (Some(0), &"Backends: lab.".into(), &nothing));

    let text = fs::read_to_string(file(&folder)).unwrap();
    let several = text.replace("[backend]", "limits.idle = \"7m\"\n[[backend]]");
    fs::write(
        file(&folder),
        several + "concurrency = 2\n[[backend]]\nurl = \"http://127.0.0.1:2\"\nhosts = [\"b\"]\n",
    )
    .unwrap();
    let (code, text, _) = operated.run(&["reload"]);
    let changes: Vec<&str> = text.lines().skip(1).collect();
    let expected = [
        "limits.idle: 30m → 7m",
        "backend.url of http://127.0.0.1:2: not set → http://127.0.0.1:2",
        "backend.concurrency of lab: 1 → 2",
    ];
    assert_eq!((code, changes.as_slice()), (Some(0), &expected[..]));

    configure(&folder, "admin_url = \"ops\"");
    let (code, text, error) = operated.run(&["reload"]);
    assert_eq!((code, text.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("bridge.toml:1: admin_url must be"), "{error}");
    assert!(error.contains("The previous one stays in force"), "{error}");

    configure(&folder, &format!("data_dir = {folder:?}"));
    let (code, _, error) = operated.run(&["reload"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("data_dir cannot change from none to") && error.contains("restart it"), "{error}");
}

#[test]
fn the_log_filter_is_shown_and_set() {
    let operated = Operated::start();
    let line = |text: &str| (Some(0), format!("{text}\n"), String::new());
    assert_eq!(operated.run(&["log"]), line("info"));
    assert_eq!(
        operated.run(&["log", "info,proxbox_bridge=debug"]),
        line("info,proxbox_bridge=debug (before: info)")
    );
    assert_eq!(operated.run(&["log"]), line("proxbox_bridge=debug,info"));
    let (code, _, error) = operated.run(&["log", "proxbox_bridge=loud"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("Invalid log filter."), "{error}");
}

#[test]
fn a_token_that_may_only_read_shows_the_filter_and_changes_nothing() {
    let operated = Operated::start();
    let token = operated.folder.path().join("read-token");
    assert_eq!(operated.run_with(&["log"], &token), (Some(0), "info\n".to_owned(), String::new()));
    for args in [&["log", "debug"][..], &["reload"]] {
        let (code, text, error) = operated.run_with(args, &token);
        assert_eq!((code, text.as_str()), (Some(1), ""), "{args:?}");
        assert!(error.contains("read-only") && error.contains("(--token-file)"), "{error}");
    }
}

#[test]
fn a_bridge_that_does_not_run_is_1_and_named() {
    for args in [&["log", "--admin-listen", "127.0.0.1:1"][..], &["reload", "--admin-listen", "127.0.0.1:1"]]
    {
        let output = command(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("cannot connect to the bridge at http://127.0.0.1:1/"), "{error}");
    }
}
