//! Configuration errors that are found before any request to a backend.

use serde_json::json;
use tempfile::TempDir;

use super::replay;
use super::run::{CheckRun, file};
use crate::support::bridge::KEY;

#[tokio::test]
async fn a_bad_configuration_is_78_for_people_and_programs() {
    let args = ["--backend", "http://127.0.0.1:1", "--channel", "carrier-pigeon"];
    let problem =
        "--channel: backend.channel must be auto, native, websocket or json, not \"carrier-pigeon\"";
    let run = CheckRun::with(&args, &[]).await;
    assert_eq!((run.code, run.text.as_str()), (78, ""));
    assert_eq!(run.errors, format!("proxbox-bridge: {problem}\n"));
    let run = CheckRun::with(&[&args[..], &["--json"]].concat(), &[("limits.probe", "soon")]).await;
    let found = run.json();
    assert_eq!(run.code, 78);
    assert_eq!(found["problems"].as_array().unwrap().len(), 2, "{found}");
    assert!(found["problems"].as_array().unwrap().contains(&json!(problem)), "{found}");
    let run = CheckRun::with(&["--json"], &[]).await;
    assert!(run.json()["problems"][0].as_str().unwrap().starts_with("backend.url is not set: "));
}

#[tokio::test]
async fn a_file_of_tls_that_is_missing_is_78_and_the_rest_is_checked_all_the_same() {
    let backend = replay("0.0.2.post1").await;
    let files = [("tls.certificate", "/no/cert.pem"), ("tls.key", "/no/key.pem")];
    let run = CheckRun::against(&backend.local_addr(), &[], &files).await;
    run.assert_output(
        78,
        &[
            "  FAILED   certificate  cannot read the certificate \"/no/cert.pem\": No such file or directory",
            "  ok       /version     0.0.2",
        ],
    );
    let run = CheckRun::against(&backend.local_addr(), &["--json"], &files).await;
    assert_eq!(run.line("certificate")["verdict"], "misconfigured");
    let url = format!("https://{}", backend.local_addr());
    let run = CheckRun::with(&["--backend", &url], &[("backend.ca_file", "/no/ca.pem")]).await;
    run.assert_output(78, &["  FAILED   tls          cannot read the CA certificate \"/no/ca.pem\": "]);
}

#[tokio::test]
async fn a_file_with_a_key_that_is_none_is_78_and_not_shown() {
    let bad = file("two\nlines");
    for path in ["/no/key", bad.path().to_str().unwrap()] {
        let run = CheckRun::against(&"127.0.0.1:1", &["--json", "--key-file", path], &[]).await;
        assert_eq!(run.code, 78);
        let problem = run.json()["problems"][0].as_str().unwrap().to_owned();
        assert!(problem.starts_with("--key-file: ") && problem.contains(path), "{problem}");
        assert!(!problem.contains("two"), "{problem}");
    }
}

#[tokio::test]
async fn a_data_dir_is_looked_at_and_left_alone() {
    let backend = replay("0.0.2.post1").await;
    let address = backend.local_addr();
    let folder = TempDir::new().unwrap();
    let there = folder.path().to_str().unwrap();
    let run = CheckRun::against(&address, &["--data-dir", there], &[]).await;
    run.assert_output(0, &[&format!("  ok       data_dir     {there}\n")]);
    let deep = format!("{there}/a/b");
    let run = CheckRun::against(&address, &["--data-dir", &deep], &[]).await;
    run.assert_output(0, &[&format!("  ok       data_dir     {deep}, does not exist yet\n")]);
    assert_eq!(std::fs::read_dir(there).unwrap().count(), 0);

    let file = file("");
    let file = file.path().to_str().unwrap();
    for path in [file.to_owned(), format!("{file}/a/b")] {
        let run = CheckRun::against(&address, &["--data-dir", &path], &[]).await;
        run.assert_output(
            78,
            &[
                &format!("  FAILED   data_dir     {path}: not a directory\n"),
                "→ Set data_dir to a directory that the user of the bridge can write to.\n",
            ],
        );
    }
}

#[tokio::test]
async fn a_data_dir_in_which_nothing_can_be_made_is_78_unless_jobs_go_on_without_a_ledger() {
    let backend = replay("0.0.2.post1").await;
    for (settings, code) in [(&[][..], 78), (&[("jobs.without_ledger", "continue")][..], 1)] {
        let run = CheckRun::against(&backend.local_addr(), &["--data-dir", "/proc/nope"], settings).await;
        run.assert_output(code, &["  FAILED   data_dir     /proc/nope: "]);
    }
}

#[tokio::test]
async fn a_ledger_of_a_newer_bridge_is_78_and_left_alone() {
    let backend = replay("0.0.2.post1").await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ledger.sqlite3");
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&file).unwrap();
    let run =
        CheckRun::against(&backend.local_addr(), &["--data-dir", folder.path().to_str().unwrap()], &[]).await;
    let shown = file.display();
    run.assert_output(
        78,
        &[&format!(
            "  FAILED   data_dir     {shown} was written by a newer bridge (version 99 of the tables"
        )],
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn listeners_that_other_hosts_reach_are_reported() {
    let backend = replay("0.0.2.post1").await;
    let token = file("operators-0123456789");
    let token = token.path().to_str().unwrap();
    let args = ["--listen", "0.0.0.0:8800", "--admin-listen", "0.0.0.0:8801", "--admin-token-file", token];
    let run = CheckRun::against(&backend.local_addr(), &args, &[("trusted_proxies", "10.0.0.0/8")]).await;
    run.assert_output(
        0,
        &[
            "  note     clients      http://0.0.0.0:8800, for 127.0.0.1:",
            "→ Keys and answers are sent in clear text: ",
            "  note     operators    http://0.0.0.0:8801\n",
            "→ The token and all answers are sent in clear text: ",
            "  ok       proxies      X-Forwarded-For is trusted from 10.0.0.0/8\n",
        ],
    );
}

#[tokio::test]
async fn several_backends_are_reported_one_after_the_other() {
    let (old, backend_with_keys) = (replay("0.0.2.post1").await, replay("0.0.30.post2").await);
    let key = file(KEY);
    let config = |more: &str| {
        file(format!(
            "[[backend]]\nname = \"lab\"\nurl = \"http://{}\"\nhosts = [\"lab.example\", \"lab\"]\n\
             [[backend]]\nname = \"hall\"\nurl = \"http://{}\"\nlisten = \"127.0.0.1:8802\"\n{more}",
            old.local_addr(),
            backend_with_keys.local_addr()
        ))
    };
    let both = config("");
    let both = ["--config", both.path().to_str().unwrap()];
    let run = CheckRun::with(&both, &[]).await;
    run.assert_output(
        0,
        &[
            "  ok       clients      http://127.0.0.1:8800, as lab.example or lab, for lab\n",
            "  ok       clients      http://127.0.0.1:8802, for hall\n",
            &format!("\nBackend http://{}, name lab\n", old.local_addr()),
            "  ok       /version     0.0.2",
            &format!("\nBackend http://{}, name hall\n", backend_with_keys.local_addr()),
            "  skipped  key ",
        ],
    );
    // A key is for one of them, and the others do not get to see it.
    let given = ["--key-file", key.path().to_str().unwrap()];
    let run = CheckRun::with(&[&both[..], &given, &["--json"]].concat(), &[]).await;
    assert_eq!(run.code, 78);
    let problem = "--key-file: a key is for one backend; select it with --only from lab, hall";
    assert_eq!(run.json()["problems"], json!([problem]));
    let received = old.log().requests().len();
    let run = CheckRun::with(&[&both[..], &given, &["--only", "hall", "--json"]].concat(), &[]).await;
    assert_eq!(run.line("key")["found"], "the key in --key-file is accepted");
    assert_eq!(old.log().requests().len(), received);
    let run = CheckRun::with(&[&both[..], &["--only", "attic"]].concat(), &[]).await;
    assert_eq!(run.code, 78);
    assert_eq!(run.errors, "proxbox-bridge: --only: no backend has this name; configured: lab, hall\n");
    // One that has a key of its own is not in the way.
    let own = config(&format!("api_key_file = {:?}\n", key.path()));
    let own = ["--config", own.path().to_str().unwrap()];
    let run = CheckRun::with(&[&own[..], &given].concat(), &[]).await;
    run.assert_output(0, &["ignores the key in --key-file", "the key in backend.api_key_file is accepted. "]);
}

#[tokio::test]
async fn one_backend_that_fails_does_not_hide_the_others() {
    let good = replay("0.0.2.post1").await;
    let config = file(format!(
        "[[backend]]\nname = \"down\"\nurl = \"http://127.0.0.1:1\"\nhosts = [\"down\"]\n\
         [[backend]]\nname = \"good\"\nurl = \"http://{}\"\n",
        good.local_addr()
    ));
    let run = CheckRun::with(&["--config", config.path().to_str().unwrap()], &[]).await;
    run.assert_output(
        1,
        &["name down\n", "  FAILED   connect v4 ", "name good\n", "  ok       /version     0.0.2"],
    );
}

#[tokio::test]
async fn a_command_line_that_is_not_understood_is_64() {
    assert_eq!(CheckRun::with(&["--nonsense"], &[]).await.code, 64);
}
