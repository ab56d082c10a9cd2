//! Anonymised recordings have no name of the lab, and replay to the same events.

use std::path::Path;

use proxbox_bridge::record::anonymise;
use proxbox_bridge::replay::Library;

use super::golden::record;
use crate::golden::{DOCUMENTED, documented_kinds};
use crate::support::bridge::{BridgedReplay, WITH_KEY, fast, recordings};

/// What identifies the recorded lab.
const NAMES: [&str; 21] = [
    "app-01.lab.example", "cache01", "caf\\u00e9-m\\u00fcnchen", "café-münchen", "db01", "dns01", "old-ct",
    "tmpl-debian13", "web01", "web02", "win2022", "worker00", "worker01", "pve1", "pve2", "pve3",
    "lab-cluster", "ceph-pool", "nfs-backup", "10.10.", "bc:24:11",
];

/// The sorts of pseudonyms.
const KINDS: [&str; 5] = ["cluster", "name", "node", "storage", "vm"];

/// `text` with one placeholder for all names and pseudonyms, and one for all addresses.
fn unnamed(text: &str) -> String {
    let mut text = text.to_owned();
    for name in NAMES {
        text = text.replace(name, "<name>");
    }
    for kind in KINDS {
        let parts: Vec<&str> = text.split(&format!("{kind}-")).collect();
        let is_hash = |part: &&str| part.get(..8).is_some_and(|hash| u32::from_str_radix(hash, 16).is_ok());
        let rest = parts[1..].iter().map(|part| match part {
            part if is_hash(part) => format!("<name>{}", &part[8..]),
            part => format!("{kind}-{part}"),
        });
        text = parts[0].to_owned() + &rest.collect::<String>();
    }
    let is_address = |word: &&str| word.parse::<std::net::Ipv4Addr>().is_ok();
    let addresses: Vec<&str> =
        text.split(|c: char| !c.is_ascii_digit() && c != '.').filter(is_address).collect();
    addresses.into_iter().fold(text.clone(), |text, address| text.replace(address, "<address>"))
}

/// `text` without ids, which are random: any may have the letters of a name.
fn without_ids(text: &str) -> String {
    const ID: usize = 32;
    text.split_inclusive(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .filter(|part| part.len() <= ID)
        .collect()
}

/// Asserts that no file in `folder` has a name of the lab.
fn assert_anonymous(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = format!("{}\n{}", path.display(), std::fs::read_to_string(&path).unwrap());
        let text = without_ids(&text.to_lowercase());
        for name in NAMES {
            let at = text.find(name);
            assert_eq!(
                at.map(|at| &text[at.saturating_sub(80)..at + 20]),
                None,
                "{name} in {}",
                path.display()
            );
        }
    }
}

#[test]
fn the_letters_of_a_name_in_a_random_id_are_no_name() {
    let text = r#"["x-request-id","ae66bcea-a57d-4158-db01-77a41d5bbebc"],["x-name","db01"]"#;
    assert_eq!(without_ids(text).matches("db01").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_name_is_left_and_the_events_are_the_same() {
    let kinds: Vec<_> = documented_kinds().collect();
    for (version, channel) in DOCUMENTED {
        let [original, anonymous] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        record(original.path(), version, &[], channel, &kinds).await;
        anonymise(original.path(), anonymous.path()).unwrap();
        assert_eq!(std::fs::read_dir(original.path()).unwrap().count(), 0);
        assert_anonymous(anonymous.path());
        for kind in &kinds {
            let mut streams = Vec::new();
            let libraries = [recordings(version, &[]), Library::load(anonymous.path(), &[]).unwrap()];
            for library in libraries {
                let pair = BridgedReplay::start(library, fast(), &[("backend.channel", channel)]).await;
                let answer = pair.front.get(kind.row().stream_path, &WITH_KEY).await;
                streams.push(unnamed(answer.text()));
            }
            for (original, anonymous) in streams[0].lines().zip(streams[1].lines()) {
                assert_eq!(original, anonymous, "{version} {channel} {kind}");
            }
            assert_eq!(streams[0].len(), streams[1].len(), "{version} {channel} {kind}");
        }
    }
}
