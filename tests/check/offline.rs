//! `check --offline`: the configuration and its files, and no connection.

use std::fs::{Permissions, set_permissions};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use super::run::{CheckRun, file};

#[tokio::test]
async fn an_offline_check_connects_to_nothing() {
    let [backend, target] = [(); 2].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let url = format!("http://{}", target.local_addr().unwrap());
    let settings = [
        ("notify.url", url.as_str()),
        ("notify.allow_local", "on"),
        ("backend.netbox_listen", "127.0.0.1:1"),
    ];
    let run = CheckRun::against(&backend.local_addr().unwrap(), &["--offline"], &settings).await;
    run.assert_output(
        0,
        &["  ok       notify", "\nBackend ", "  skipped  /            not connected (--offline)\n"],
    );
    for listener in [backend, target] {
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    for other in [&["--notify"][..], &["--key-file", "key"]] {
        let run = CheckRun::with(&[&["--offline"], other].concat(), &[]).await;
        assert_eq!(run.code, 64, "{other:?} needs a connection");
    }
}

#[tokio::test]
async fn an_offline_check_finds_files_that_cannot_be_used() {
    let missing = "/no/such.pem";
    let listener = [("backend.netbox_listen", "127.0.0.1:1")];
    for (check, settings) in [
        ("certificate", &[("tls.certificate", missing), ("tls.key", missing)][..]),
        ("tls", &[("backend.ca_file", missing)]),
        (
            "listener",
            &[listener[0], ("backend.netbox_certificate", missing), ("backend.netbox_key", missing)],
        ),
        ("netbox_url", &[listener[0], ("backend.netbox_ca_file", missing)]),
    ] {
        let run =
            CheckRun::with(&["--offline", "--json", "--backend", "https://127.0.0.1:1"], settings).await;
        assert_eq!(
            (run.code, &run.line(check)["verdict"]),
            (78, &"misconfigured".into()),
            "{check}: {}",
            run.text
        );
    }
    let settings = [("admin_token_file", missing)];
    let run = CheckRun::with(&["--offline", "--backend", "http://127.0.0.1:1"], &settings).await;
    assert_eq!(run.code, 78, "{run:?}");
    assert!(run.errors.contains("admin_token_file: cannot read"), "{run:?}");
}

#[tokio::test]
async fn a_file_with_a_secret_that_every_user_can_read_is_noted() {
    let token = file("operators-0123456789\n");
    let path = token.path().to_str().unwrap();
    let args = ["--offline", "--backend", "http://127.0.0.1:1", "--admin-token-file", path];
    let run = CheckRun::with(&args, &[]).await;
    assert!(!run.text.contains("secrets"), "{}", run.text);
    set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let run = CheckRun::with(&args, &[]).await;
    let found = format!(
        "  note     secrets      {path} (admin_token_file) can be read by every user of this machine\n"
    );
    run.assert_output(0, &[&found]);
}

#[tokio::test]
async fn a_backend_at_an_address_of_the_bridge_is_found_before_it_runs() {
    for (url, settings, key) in [
        ("http://127.0.0.1:8800", &[][..], "listen"),
        ("http://localhost:8800", &[], "listen"),
        ("http://127.0.0.1:8801", &[], "admin_listen"),
        ("http://127.0.0.3:8800", &[("listen", "0.0.0.0:8800")], "listen"),
        ("http://127.0.0.1:9", &[("backend.listen", "127.0.0.1:9")], "backend.listen"),
        ("http://127.0.0.1:9", &[("backend.netbox_listen", "127.0.0.1:9")], "backend.netbox_listen"),
    ] {
        for args in [&["--json", "--backend", url][..], &["--json", "--offline", "--backend", url]] {
            let run = CheckRun::with(args, settings).await;
            let line = run.line("loop");
            assert_eq!((run.code, &line["verdict"]), (1, &"failed".into()), "{url}: {}", run.text);
            let found = line["found"].as_str().unwrap();
            assert!(found.ends_with(&format!("an address of the bridge itself ({key})")), "{found}");
        }
    }
    // Neither another port nor another machine.
    for url in ["http://127.0.0.1:8802", "http://192.0.2.1:8800"] {
        let run = CheckRun::with(
            &["--offline", "--backend", url],
            &[("listen", "0.0.0.0:8800"), ("admin_open_reads", "on")],
        )
        .await;
        run.assert_output(0, &["  skipped  /            not connected (--offline)\n"]);
    }
}
