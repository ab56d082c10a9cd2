//! Finds the names in what a client and a backend sent.
//!
//! Names are the values of fields such as `name`, `node` and `cluster`, the hosts of URLs, and users with a realm. A name
//! that was found in one place is replaced everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::pseudonyms::NameKind;
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;

/// Fields with a name, and the sort of name.
const FIELDS: [(&str, NameKind); 45] = [
    ("name", NameKind::Other),
    ("display", NameKind::Derived),
    ("display_name", NameKind::Other),
    ("rowid", NameKind::Derived),
    ("slug", NameKind::Other),
    ("endpoint_name", NameKind::Other),
    ("site", NameKind::Other),
    ("site_name", NameKind::Other),
    ("site_slug", NameKind::Other),
    ("tenant", NameKind::Other),
    ("tenant_name", NameKind::Other),
    ("tenant_slug", NameKind::Other),
    ("snapname", NameKind::Other),
    ("vm", NameKind::VirtualMachine),
    ("vm_name", NameKind::VirtualMachine),
    ("vm_names", NameKind::VirtualMachine),
    ("virtual_machine", NameKind::VirtualMachine),
    ("node", NameKind::Node),
    ("nodes", NameKind::Node),
    ("node_list", NameKind::Node),
    ("source_node", NameKind::Node),
    ("target_node", NameKind::Node),
    ("proxmox_node", NameKind::Node),
    ("device", NameKind::Node),
    ("device_name", NameKind::Node),
    ("proxmox_device_names", NameKind::Node),
    ("cluster", NameKind::Cluster),
    ("cluster_name", NameKind::Cluster),
    ("proxmox_cluster", NameKind::Cluster),
    ("storage", NameKind::Storage),
    ("storage_name", NameKind::Storage),
    ("proxmox_storage_names", NameKind::Storage),
    ("pool", NameKind::Storage),
    ("host", NameKind::Host),
    ("hostname", NameKind::Host),
    ("domain", NameKind::Host),
    ("dns_name", NameKind::Host),
    ("user", NameKind::User),
    ("username", NameKind::User),
    ("owner", NameKind::User),
    ("tags", NameKind::Tag),
    ("proxmox_tags", NameKind::Tag),
    ("description", NameKind::Text),
    ("comments", NameKind::Text),
    ("notes", NameKind::Text),
];

/// Words of ProxBox, Proxmox and NetBox, which are no names even where a name is expected, besides those for kinds of
/// syncs. Words are joined with dashes here, and have no plural.
const VOCABULARY: [&str; 36] = [
    "active", "admin", "all", "api", "bootstrap", "cluster", "completed", "container", "default", "failed",
    "false", "guest", "image", "interface", "iso", "local", "local-lvm", "local-zf", "localhost", "lxc",
    "netbox", "node", "none", "null", "offline", "online", "proxbox", "proxmox", "qemu", "root", "rootdir",
    "running", "stage", "stopped", "sync", "undefined",
];
/// The realms of every Proxmox.
const REALMS: [&str; 3] = ["pam", "pbs", "pve"];
/// Beginnings of names that ProxBox gives to its own objects.
const OWN: [&str; 6] = ["Proxmox ", "Proxbox", "QEMU ", "LXC ", "Synced from Proxmox", "proxbox-"];
/// Beginnings of names of network interfaces.
const INTERFACES: [&str; 9] = ["bond", "en", "eth", "fwbr", "lo", "net", "tap", "veth", "vmbr"];
/// The maximum nesting depth of JSON in JSON.
const MAX_NESTING: usize = 3;

/// The names found so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// In lower case.
    kinds: BTreeMap<String, NameKind>,
    /// The original spellings of names with capitals outside ASCII, by the name in lower case.
    spellings: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    /// All names. Those that are derived from another one need no pseudonym of their own.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, NameKind)> {
        let is_original = |name: &str| self.kinds.get(name).is_some_and(|kind| *kind != NameKind::Derived);
        let is_derived = move |name: &str| {
            let ends = name.char_indices().filter(|(_, c)| !c.is_alphanumeric()).map(|(at, _)| at);
            let ends: Vec<usize> = ends.chain([name.len()]).collect();
            let starts = ends.iter().map(|end| end + 1).chain([0]).filter(|start| *start < name.len());
            let mut parts = starts.flat_map(|start| ends.iter().map(move |end| (start, *end)));
            parts.any(|(start, end)| name.get(start..end).is_some_and(is_original))
        };
        let names = self.kinds.iter().map(|(name, kind)| (name.as_str(), *kind));
        names.filter(move |(name, kind)| *kind != NameKind::Derived || !is_derived(name))
    }

    /// The spellings of a name that differ from it in more than the case of ASCII letters.
    pub(super) fn spellings(&self, name: &str) -> impl Iterator<Item = &String> {
        self.spellings.get(name).into_iter().flatten()
    }

    /// Adds a name, unless it is a word of the vocabulary or an address.
    pub(super) fn add(&mut self, name: &str, kind: NameKind) {
        // Old releases send links.
        let name = name.split('>').nth(1).filter(|_| name.starts_with('<')).unwrap_or(name);
        let spelling = name.split('<').next().unwrap_or_default().trim();
        let name = spelling.to_lowercase();
        let is_own = OWN.iter().any(|own| name.starts_with(&own.to_lowercase()));
        let is_interface = INTERFACES.iter().any(|begin| {
            let rest = name.strip_prefix(begin);
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.ends_with(|c: char| c.is_ascii_digit()) && is_slot(rest)
            })
        });
        let word = name.replace(['_', ' '], "-");
        let singular = |word: &str| word.trim_end_matches('s').to_owned();
        let is_object =
            Object::NAMES.iter().any(|object| singular(&object.replace('_', "-")) == singular(&word));
        let is_kind = Kind::NAMES.iter().any(|kind| singular(kind) == singular(&word));
        let is_vocabulary = VOCABULARY.contains(&singular(&word).as_str());
        let is_word = is_vocabulary || is_object || is_kind || is_own || is_interface;
        let is_number = !name.chars().any(char::is_alphabetic);
        if is_word || is_number || name.len() < 2 || is_address(&name) {
            return;
        }
        if spelling.to_ascii_lowercase() != name {
            self.spellings.entry(name.clone()).or_default().insert(spelling.to_owned());
        }
        let known = self.kinds.entry(name).or_insert(kind);
        if matches!(known, NameKind::Other | NameKind::Derived) && kind != NameKind::Derived {
            *known = kind;
        }
    }

    /// Adds the names in a text: JSON, lines of an event stream, or anything else.
    pub(super) fn find_in(&mut self, text: &str) {
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            self.find_in_json(&value, None, 0);
        } else {
            for line in text.lines().filter_map(|line| line.strip_prefix("data:")) {
                if let Ok(value) = serde_json::from_str::<Value>(line.trim_start()) {
                    self.find_in_json(&value, None, 0);
                }
            }
        }
        self.find_in_words(text);
    }

    fn find_in_json(&mut self, value: &Value, kind: Option<NameKind>, depth: usize) {
        match value {
            Value::String(text) => {
                match kind {
                    // Proxmox joins the tags of a machine.
                    Some(kind @ NameKind::Tag) => {
                        text.split([';', ',']).for_each(|tag| self.add(tag, kind));
                    }
                    Some(kind) => self.add(text, kind),
                    None => {}
                }
                if depth < MAX_NESTING
                    && text.starts_with(['{', '['])
                    && let Ok(nested) = serde_json::from_str::<Value>(text)
                {
                    self.find_in_json(&nested, None, depth + 1);
                }
            }
            Value::Array(items) => {
                for item in items {
                    // `/proxmox` lists the objects of each cluster under its name.
                    if let Value::Object(fields) = item
                        && let [(name, Value::Array(_) | Value::Object(_))] =
                            fields.iter().collect::<Vec<_>>()[..]
                        && depth == 0
                    {
                        self.add(name, NameKind::Cluster);
                    }
                    self.find_in_json(item, kind, depth);
                }
            }
            Value::Object(fields) => {
                for (field, value) in fields {
                    let kind = FIELDS.iter().find(|(known, _)| known == field).map(|(_, kind)| *kind);
                    let kind = kind
                        .and_then(|kind| if kind == NameKind::Other { kind_of(fields) } else { Some(kind) });
                    self.find_in_json(value, kind.filter(|_| !value.is_object()), depth);
                }
            }
            _ => {}
        }
    }

    /// Adds hosts of URLs, users with a realm, nodes of tasks (`UPID:NODE:…`), and names in quotes behind the word for an object.
    fn find_in_words(&mut self, text: &str) {
        for (at, _) in text.match_indices("://") {
            let authority = text[at + 3..].split(is_delimiter).next().unwrap_or_default();
            self.add_host(authority.rsplit('@').next().unwrap_or_default());
        }
        for (at, _) in text.match_indices("host='") {
            self.add_host(text[at + 6..].split('\'').next().unwrap_or_default());
        }
        for (at, prefix) in text.match_indices("UPID:") {
            let parts: Vec<&str> = text[at + prefix.len()..].splitn(8, ':').collect();
            let of_task = |at: usize| parts.get(at).filter(|part| part.chars().all(is_name));
            of_task(0).into_iter().for_each(|node| self.add(node, NameKind::Node));
            of_task(5).into_iter().for_each(|id| self.add(id, NameKind::Other));
            let user = parts.get(6).copied().unwrap_or_default();
            for part in user.split(['@', '!']).skip(1).filter(|part| part.chars().all(is_name)) {
                if !REALMS.contains(&part) {
                    self.add(part, NameKind::Other);
                }
            }
        }
        for word in text.split(|c: char| is_delimiter(c) || c == ':' || c == '!') {
            if let Some((user, realm)) = word.split_once('@')
                && user.chars().all(is_name)
                && !realm.is_empty()
                && realm.chars().all(is_name)
            {
                self.add(user, NameKind::User);
                if realm.contains('.') {
                    self.add_host(realm);
                }
            }
        }
        let quoted: Vec<&str> = text.split('\'').collect();
        for pair in quoted.windows(2) {
            let [before, name] = pair else { continue };
            let word =
                before.trim_end().rsplit(|c: char| !c.is_alphabetic() && c != '_').next().unwrap_or_default();
            if before.ends_with(' ')
                && let Some(kind) = kind_of_word(word)
                && name.len() <= 64
                && name.chars().all(is_name)
            {
                self.add(name, kind);
            }
        }
    }

    /// Adds a host, which may have a port, and its domain.
    pub(super) fn add_host(&mut self, host: &str) {
        let host = host.split(':').next().unwrap_or_default().trim_end_matches('.');
        if host.is_empty() || !host.chars().all(is_name) || is_address(host) {
            return;
        }
        self.add(host, NameKind::Host);
        if let Some((_, domain)) = host.split_once('.').filter(|(_, domain)| domain.contains('.')) {
            self.add(domain, NameKind::Host);
        }
    }
}

/// The sort of an object, by its other fields. `None` for a stage, whose name is a word of the protocol.
fn kind_of(fields: &Map<String, Value>) -> Option<NameKind> {
    let types = ["item_type", "type", "object"].into_iter().filter_map(|field| fields.get(field)?.as_str());
    let types: Vec<&str> = types.collect();
    let kind = types.iter().find_map(|word| kind_of_word(word)).unwrap_or(NameKind::Other);
    (!types.contains(&"stage")).then_some(kind)
}

/// The sort of object that a word denotes.
fn kind_of_word(word: &str) -> Option<NameKind> {
    Some(match word.to_ascii_lowercase().as_str() {
        "vm" | "qemu" | "lxc" | "virtual-machine" | "virtual_machine" | "machine" | "guest" | "container" => {
            NameKind::VirtualMachine
        }
        "node" | "device" => NameKind::Node,
        "cluster" => NameKind::Cluster,
        "storage" | "pool" => NameKind::Storage,
        "host" => NameKind::Host,
        "user" => NameKind::User,
        "snapshot" | "backup" | "disk" | "site" | "tenant" => NameKind::Other,
        _ => return None,
    })
}

/// Whether `text` is an address, with or without a prefix length.
fn is_address(text: &str) -> bool {
    text.split('/').next().is_some_and(|address| address.parse::<IpAddr>().is_ok())
}

/// Whether `text` is the place of a network interface, such as the `p3s0` of `enp3s0`.
fn is_slot(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || b"dfops".contains(&byte))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_')
}

fn is_delimiter(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '/' | '?' | '#' | '"' | '\'' | '\\' | '<' | '>' | '(' | ')' | ',' | ';' | '=' | '&')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut names = Names::default();
        names.find_in(text);
        names.iter().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn names_are_found_in_fields_urls_users_and_messages() {
        for (text, expected) in [
            (r#"{"name":"web01","node":"pve1","status":"running","vmid":100}"#, &["pve1", "web01"][..]),
            (
                "data: {\"rowid\": \"caf\\u00e9\", \"payload\": \"{\\\"cluster\\\":\\\"lab\\\"}\"}",
                &["café", "lab"],
            ),
            (r#"[{"rowid":"web01-disks"},{"rowid":"x9"},{"name":"web01"}]"#, &["web01", "x9"]),
            (r#"[{"prod":[{"node":"n1"}]}]"#, &["n1", "prod"]),
            (
                r#"{"device":"<a href='http://nb.corp.example/api/1/'>pve1</a>"}"#,
                &["corp.example", "nb.corp.example", "pve1"],
            ),
            ("login failed: alice@pve!token, bob@corp.example", &["alice", "bob", "corp.example"]),
            ("Processing VM 'web01' on 'x'", &["web01"]),
            (r#"{"vm_names":["web01","web02"],"nodes":["n1"]}"#, &["n1", "web01", "web02"]),
            (r#"{"source_node":"n1","target_node":"n2"}"#, &["n1", "n2"]),
            (r#"{"tags":"acme;prod"}"#, &["acme", "prod"]),
            ("task UPID:n1:000A:00B:64:qmigrate:100:root@pam: failed", &["n1"]),
            ("HTTPSConnectionPool(host='pve.lab', port=8006)", &["pve.lab"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn words_of_the_protocol_and_addresses_are_no_names() {
        for text in [
            r#"{"name":"devices","storage":"local","rowid":"enp3s0f1","slug":"proxbox","display":"10.0.0.1/24"}"#,
            "http://localhost:1/ http://127.0.0.1/ root@pam",
            r#"{"name":"Proxmox Node","id":"7"}"#,
            r#"{"name":"vm-ip-addresses","item_type":"stage"}"#,
            r#"{"name":"Task History"}"#,
        ] {
            assert!(found(text).is_empty(), "{:?}", found(text));
        }
    }
}
