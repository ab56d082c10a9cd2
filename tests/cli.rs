//! The command itself: exit codes, signals, and what it never writes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The exit code, and what was written to standard error.
fn ended(args: &[&str]) -> (Option<i32>, String) {
    let output = command(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A running command, which is ended with the test.
struct Running {
    child: Child,
    address: String,
    log: BufReader<std::process::ChildStderr>,
    lines: String,
}

impl Running {
    fn start(args: &[&str], log: &str) -> Self {
        let mut child = command(args).env("PROXBOX_BRIDGE_LOG", log).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut running = Self { child, address: String::new(), log, lines: String::new() };
        running.address = running.read_to("Listening.");
        running
    }

    /// Reads the log up to a line with `message`, and gives the address in that line, if any.
    fn read_to(&mut self, message: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended: {}", self.lines);
            self.lines.push_str(&line);
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line["fields"]["message"] == message {
                return line["fields"]["address"].as_str().unwrap_or_default().to_owned();
            }
        }
    }

    fn terminate(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        self.log.read_to_string(&mut self.lines).unwrap();
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.lines))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_64() {
    for args in [&["serve", "--nonsense"][..], &["nonsense"], &[]] {
        let (code, text) = ended(args);
        assert_eq!(code, Some(64), "{text}");
    }
    let (code, _) = ended(&["--help"]);
    assert_eq!(code, Some(0));
}

#[test]
fn a_bad_configuration_is_78_and_names_key_source_and_what_is_allowed() {
    let (code, text) = ended(&["serve", "--backend", "http://127.0.0.1:1", "--channel", "carrier-pigeon"]);
    assert_eq!(code, Some(78));
    for part in ["--channel", "auto, native, websocket or json", "carrier-pigeon"] {
        assert!(text.contains(part), "{text}");
    }
    let (code, text) = ended(&["serve"]);
    assert_eq!(code, Some(78));
    assert!(text.contains("backend.url"), "{text}");
}

#[test]
fn an_address_that_is_taken_is_1_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = ended(&["serve", "--backend", "http://127.0.0.1:1", "--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&address) && text.contains("listen"), "{text}");
    let (code, text) = ended(&["replay", "fixtures/no-such-folder"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("no-such-folder"), "{text}");
}

#[test]
fn a_whole_run_leaves_no_key_in_any_log_and_ends_with_0_on_sigterm() {
    const KEY: &str = "s3cret-0123456789abcdef0123456789abcdef";
    let everything = "trace";
    for channel in ["native", "websocket"] {
        let recordings = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/recordings/0.0.30.post2");
        let backend = Running::start(
            &["replay", recordings, "--listen", "127.0.0.1:0", "--speed", "max", "--api-key", KEY],
            everything,
        );
        let url = format!("http://{}", backend.address);
        let bridge = Running::start(
            &[
                "serve",
                "--backend",
                &url,
                "--channel",
                channel,
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ],
            everything,
        );
        for key in [KEY, "wrong-s3cret-0123456789abcdef0123456789"] {
            let mut client = TcpStream::connect(&bridge.address).unwrap();
            write!(
                client,
                "GET /dcim/devices/create/stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Proxbox-API-Key: {key}\r\n\r\n"
            )
            .unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            let expected = if key == KEY { "HTTP/1.1 200 OK" } else { "HTTP/1.1 401 Unauthorized" };
            assert!(answer.starts_with(expected), "{answer}");
            assert!(!answer.contains("s3cret"), "{answer}");
        }
        for running in [bridge, backend] {
            let (code, log) = running.terminate();
            assert_eq!(code, Some(0), "{log}");
            assert!(!log.contains("s3cret"), "a key is in the log: {log}");
        }
    }
}
