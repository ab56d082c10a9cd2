//! Clients' frames and their answers.

use serde_json::{Value, json};

use super::logs::RUN_ID;
use super::old_page::assert_harmless;
use crate::core::domain::kind::WsCommand;
use crate::core::legacy_client::{ClientCommand, parse_command, unknown_command_frames};
use crate::core::upstream::dialect::{self, BARRIER, Dialect, InvalidCommand, WsMessage};

#[test]
fn client_commands_are_parsed() {
    use WsCommand::{FullUpdate, SyncNodes, SyncVirtualMachines};
    let run =
        |command, run_id: Option<&str>| ClientCommand::Sync { command, run_id: run_id.map(str::to_owned) };
    let other = |text: &str, run_id: Option<&str>| ClientCommand::Unknown {
        text: text.to_owned(),
        run_id: run_id.map(str::to_owned),
    };
    let form = |command: &str, run_id: Value| json!({"command": command, "run_id": run_id}).to_string();
    for (text, expected) in [
        ("Sync Nodes".to_owned(), run(SyncNodes, None)),
        (" Sync Virtual Machines\r\n".to_owned(), run(SyncVirtualMachines, None)),
        ("Full Update Sync".to_owned(), run(FullUpdate, None)),
        ("Full Update".to_owned(), run(FullUpdate, None)),
        ("sync nodes".to_owned(), other("sync nodes", None)),
        (String::new(), other("", None)),
        (form("Full Update", json!("run_id-8")), run(FullUpdate, Some("run_id-8"))),
        (form("Sync Nodes", json!("a".repeat(64))), run(SyncNodes, Some(&"a".repeat(64)))),
        (form("Start", json!("abcdefgh")), other("Start", Some("abcdefgh"))),
        (r#"{"api_key":" k "}"#.to_owned(), ClientCommand::Key(" k ".to_owned())),
        (r#"["Sync Nodes","abcdefgh"]"#.to_owned(), other(r#"["Sync Nodes","abcdefgh"]"#, None)),
        (r#"{"api_key":7}"#.to_owned(), other(r#"{"api_key":7}"#, None)),
        (r#"{"command":"Sync Nodes"}"#.to_owned(), other(r#"{"command":"Sync Nodes"}"#, None)),
    ] {
        assert_eq!(parse_command(&text), expected, "{text}");
    }
    for run_id in [
        json!("seven77"),
        json!("a".repeat(65)),
        json!("with space"),
        json!("é2345678"),
        json!(12_345_678),
        json!(null),
    ] {
        let text = form("Sync Nodes", run_id);
        assert_eq!(parse_command(&text), other(&text, None));
    }
    for text in ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 18), "\u{1f600}".repeat(1 << 16)] {
        let ClientCommand::Unknown { text, run_id: None } = parse_command(&text) else {
            panic!("it is nothing")
        };
        assert_eq!(text.chars().count(), 200);
    }
    assert_eq!(format!("{:?}", parse_command(r#"{"api_key":"s3cret"}"#)), "Key(<api-key>)");
}

#[test]
fn the_barrier_of_a_bridge_is_answered_so_that_it_knows_it() {
    for dialect in [Dialect::V0_0_7, Dialect::V0_0_27] {
        let frames = dialect.command_frames(WsCommand::FullUpdate, RUN_ID);
        let [command, barrier] = <[String; 2]>::try_from(frames).unwrap();
        let run_id = dialect.correlates().then(|| RUN_ID.to_owned());
        assert_eq!(
            parse_command(&command),
            ClientCommand::Sync { command: WsCommand::FullUpdate, run_id: run_id.clone() }
        );
        let ClientCommand::Unknown { text, run_id: echoed } = parse_command(&barrier) else {
            panic!("{barrier}")
        };
        assert_eq!((text.as_str(), &echoed), (BARRIER, &run_id));
        let answers = unknown_command_frames(&text, run_id.as_deref());
        let WsMessage::Invalid { command } = dialect::parse_frame(&answers[0]) else { panic!("{answers:?}") };
        assert_eq!(
            dialect.classify_invalid(WsCommand::FullUpdate, command.as_deref()),
            InvalidCommand::Barrier
        );
        assert!(matches!(dialect::parse_frame(&answers[1]), WsMessage::Ignored));
    }
}

#[test]
fn an_unknown_command_is_not_repeated_as_markup() {
    let [invalid, valid] = unknown_command_frames("<b onclick=\"x\">", None);
    assert_eq!(invalid, "Invalid command: &lt;b onclick=&quot;x&quot;&gt;");
    assert_eq!(
        valid,
        "Valid commands: 'Sync Nodes', 'Sync Virtual Machines', 'Full Update Sync', 'Full Update'"
    );
    let [long, _] = unknown_command_frames(&"<".repeat(10_000), None);
    assert_harmless(&long);
    assert_eq!(long.chars().count(), "Invalid command: ".len() + 200);
    let [invalid, valid] = unknown_command_frames("x", Some("run-1234"));
    assert_eq!(invalid, r#"{"message":"Invalid sync command","run_id":"run-1234"}"#);
    assert!(
        valid.starts_with(r#"{"message":"Valid commands: "#) && valid.ends_with(r#","run_id":"run-1234"}"#)
    );
}
