//! The command line: exit codes, signals, and output that must not be written.

mod config_show;
mod help;
mod operate;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::process::Process;

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

/// A command that listens.
fn running(args: &[&str], log: &str) -> Process {
    let mut command = command(args);
    command.env("PROXBOX_BRIDGE_LOG", log);
    let mut process = Process::spawn(command);
    process.address = process.listening();
    process
}

/// Stops it. Returns its exit code and its log.
fn terminated(process: Process) -> (Option<i32>, String) {
    process.terminate();
    process.ended()
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
fn a_reader_that_has_seen_enough_is_no_failure() {
    for args in [&["counts"][..], &["check", "--backend", "http://127.0.0.1:1", "--json"]] {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let output = command(args).stdout(write).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("standard output"), "{said}");
        // The result of the check still counts.
        assert_eq!(output.status.code(), Some(i32::from(args[0] == "check")), "{said}");
    }
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
        let backend = running(
            &["replay", recordings, "--listen", "127.0.0.1:0", "--speed", "max", "--api-key", KEY],
            everything,
        );
        let url = format!("http://{}", backend.address);
        let bridge = running(
            &[
                "serve", "--backend", &url, "--channel", channel, "--listen", "127.0.0.1:0",
                "--admin-listen", "127.0.0.1:0",
            ],
            everything,
        );
        for key in [KEY, "wrong-s3cret-0123456789abcdef0123456789"] {
            let mut client = TcpStream::connect(bridge.address).unwrap();
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
            let (code, log) = terminated(running);
            assert_eq!(code, Some(0), "{log}");
            assert!(!log.contains("s3cret"), "a key is in the log: {log}");
        }
    }
}

#[test]
fn the_sample_configuration_is_all_that_it_needs_to_start() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/proxbox-bridge.toml");
    // Any port, because the ones in the sample may be in use here.
    let args = ["serve", "--config", sample, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let bridge = running(&args, "info");
    assert!(get(bridge.address, "/health").starts_with("HTTP/1.1 503 "), "there is no backend");
    let (code, log) = terminated(bridge);
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn sighup_reloads_the_configuration_and_a_bad_one_is_logged_and_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bridge.toml");
    let write = |url: &str, more: &str| {
        let text = format!(
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{more}\n[backend]\nurl = \"{url}\"\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    let recordings = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/recordings/0.0.2.post1");
    let backend = running(&["replay", recordings, "--listen", "127.0.0.1:0", "--speed", "max"], "info");
    write("http://127.0.0.1:1", "");
    let mut bridge = running(&["serve", "--config", file.to_str().unwrap()], "info");
    assert!(get(bridge.address, "/").starts_with("HTTP/1.1 503 "));
    write(&format!("http://{}", backend.address), "");
    bridge.hang_up();
    bridge.read_to("Configuration reloaded.");
    assert!(get(bridge.address, "/").starts_with("HTTP/1.1 200 "));
    write("ftp://x", "colour = 1");
    bridge.hang_up();
    bridge.read_to("Reloading the configuration failed. The previous one stays in force.");
    assert!(get(bridge.address, "/health").starts_with("HTTP/1.1 200 "));
    let (code, log) = terminated(bridge);
    assert_eq!(code, Some(0), "{log}");
    for part in ["unknown key `colour`", "neither http nor https"] {
        assert!(log.contains(part), "{log}");
    }
}

#[test]
fn a_reload_that_hangs_does_not_keep_the_watchdog_from_its_signs_of_life_nor_the_process_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let [file, socket] = ["bridge.toml", "notify"].map(|name| folder.path().join(name));
    let text =
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[backend]\nurl = \"http://127.0.0.1:1\"\n";
    std::fs::write(&file, text).unwrap();
    let supervisor = UnixDatagram::bind(&socket).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let read_to = |wanted: &str| loop {
        let mut message = [0; 1024];
        let length = supervisor.recv(&mut message).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        let text = std::str::from_utf8(&message[..length]).unwrap();
        if text.lines().any(|line| line == wanted) {
            break;
        }
    };
    let mut command = command(&["serve", "--config", file.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "100000");
    let bridge = Process::spawn(command);
    read_to("READY=1");
    std::fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    bridge.hang_up();
    read_to("RELOADING=1");
    // The file is open for reading now, and what is written into it is nothing.
    let _hangs = std::fs::File::options().write(true).open(&file).unwrap();
    for _ in 0..5 {
        read_to("WATCHDOG=1");
    }
    let (code, log) = terminated(bridge);
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn an_expired_certificate_and_handshakes_that_fail_are_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let mut params = rcgen::CertificateParams::new(vec!["bridge.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let own = rcgen::KeyPair::generate().unwrap();
    std::fs::write(&certificate, params.self_signed(&own).unwrap().pem()).unwrap();
    std::fs::write(&key, own.serialize_pem()).unwrap();
    let args = ["serve", "--backend", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"];
    let mut command = command(&[&args[..], &["--admin-listen", "127.0.0.1:0"]].concat());
    command.env("PROXBOX_BRIDGE_TLS_CERTIFICATE", &certificate).env("PROXBOX_BRIDGE_TLS_KEY", &key);
    command.env("PROXBOX_BRIDGE_LOG", "debug");
    let mut bridge = Process::spawn(command);
    let line = bridge
        .read_to("The bridge's certificate (tls.certificate) has expired and clients refuse it: renew it.");
    assert_eq!(line["level"], "WARN");
    let address = bridge.listening();
    // A client that closes or resets at once, as health checks do, is no failed handshake.
    drop(TcpStream::connect(address).unwrap());
    bridge.read_to("Connection closed.");
    let resets = TcpStream::connect(address).unwrap();
    socket2::SockRef::from(&resets).set_linger(Some(Duration::ZERO)).unwrap();
    drop(resets);
    bridge.read_to("Connection closed.");
    assert!(!bridge.lines.contains("TLS handshakes"), "{}", bridge.lines);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"\x15\x03\x01\x00\x02\x02\x30").unwrap();
    let line = bridge.read_to("TLS handshakes with clients failed.");
    assert_eq!((&line["level"], &line["count"]), (&"WARN".into(), &1.into()));
    assert_eq!(line["client"], "127.0.0.1");
    assert!(line["error"].as_str().unwrap().contains("tls.certificate (UnknownCA)"), "{line}");
    assert_eq!(terminated(bridge).0, Some(0));
}

#[test]
fn unsafe_settings_are_logged_at_every_start() {
    let args = [
        "serve", "--backend", "https://127.0.0.1:1", "--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0",
    ];
    let mut command = command(&args);
    command.env("PROXBOX_BRIDGE_BACKEND_INSECURE", "on");
    let mut bridge = Process::spawn(command);
    // The last log line before it serves.
    bridge.read_to("Listening.");
    for part in ["backend.insecure", "Listening without TLS on an address that is not loopback"] {
        assert!(bridge.lines.contains(part), "{}", bridge.lines);
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_78() {
    let mut command = command(&["serve", "--backend", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    command
        .env("PROXBOX_BRIDGE_TLS_CERTIFICATE", "/no/cert.pem")
        .env("PROXBOX_BRIDGE_TLS_KEY", "/no/key.pem");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("/no/cert.pem"), "{text}");
}

/// The beginning of the answer to `GET path`.
fn get(address: SocketAddr, path: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}
