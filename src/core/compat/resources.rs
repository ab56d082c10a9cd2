//! `/proxmox/cluster/resources?type=vm`, which the plugin uses to find VM templates. It deletes a template from NetBox
//! if the answer does not list it as one.
//!
//! Two defects make the list wrong. 0.0.7 to 0.0.19 send Proxmox an invalid type (`ClusterResourcesType.vm`), which
//! Proxmox rejects or answers with an empty list. Releases before 0.0.6 omit `template` from every row.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::is_within;
use crate::core::domain::release::Release;

const FIRST_WITH_TEMPLATE: Release = Release::new(0, 0, 6);
/// The releases that reject most guest configurations but offer them at another path.
const REFUSES_CONFIG: (Release, Release) = (Release::new(0, 0, 4), Release::new(0, 0, 18));
const MISTAKES_TYPE: (Release, Release) = (Release::new(0, 0, 7), Release::new(0, 0, 19));

/// Whether `release` sends Proxmox an invalid type.
pub fn mistakes_type(release: Release) -> bool {
    is_within(Some(release), MISTAKES_TYPE)
}

/// Whether `release` omits `template`.
pub fn drops_template(release: Release) -> bool {
    release < FIRST_WITH_TEMPLATE
}

/// Whether `release` answers 500 for a guest configuration with an unknown key, such as `template`. These releases
/// also offer Proxmox's own path, except those before 0.0.7 that were installed as a package.
pub fn refuses_config(release: Release) -> bool {
    is_within(Some(release), REFUSES_CONFIG)
}

/// Restores the configuration as Proxmox returns it from the backend's version, which adds every possible key as null
/// and writes switches as booleans. `None` for anything else.
pub fn config(body: &[u8]) -> Option<Value> {
    let mut config: Map<String, Value> = serde_json::from_slice(body).ok()?;
    config.retain(|_, value| !value.is_null());
    for value in config.values_mut() {
        if let Value::Bool(switch) = *value {
            *value = json!(u8::from(switch));
        }
    }
    // Every configuration has a digest. An answer without one is invalid and would clear the values in NetBox.
    config.contains_key("digest").then_some(Value::Object(config))
}

/// A guest: the cluster or standalone node that lists it, and its VMID.
pub type Guest = (String, u64);

/// The backend's resource list, by cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources(Vec<(String, Vec<Map<String, Value>>)>);

/// Why a list cannot be passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidList {
    /// It is not a list of clusters.
    #[error("its answer is no list of clusters")]
    NotAList,
    /// It is empty, without even a node.
    #[error("it lists no resources at all, and a cluster has at least its nodes")]
    Empty,
    /// A guest has no `template`.
    #[error("it does not say whether {kind} {vmid} is a template")]
    Guest {
        /// `qemu` or `lxc`.
        kind: String,
        /// The VMID.
        vmid: u64,
    },
    /// A row has no type, node or number.
    #[error("it lists a resource without a type, a node or a number")]
    Row,
}

impl Resources {
    /// Parses the list in `body`: `[{cluster: [row, …]}, …]`.
    ///
    /// # Errors
    ///
    /// [`InvalidList::NotAList`] for any other format, and [`InvalidList::Empty`] for a list that must be incomplete.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidList> {
        let clusters: Vec<Map<String, Value>> =
            serde_json::from_slice(body).map_err(|_| InvalidList::NotAList)?;
        let mut read = Vec::new();
        for (cluster, rows) in clusters.into_iter().flatten() {
            let rows: Vec<Map<String, Value>> =
                serde_json::from_value(rows).map_err(|_| InvalidList::NotAList)?;
            if rows.is_empty() {
                return Err(InvalidList::Empty);
            }
            read.push((cluster, rows));
        }
        if read.is_empty() { Err(InvalidList::Empty) } else { Ok(Self(read)) }
    }

    /// Keeps only virtual machines and containers, as `type=vm` requests.
    ///
    /// # Errors
    ///
    /// A row without a type.
    pub fn retain_guests(&mut self) -> Result<(), InvalidList> {
        for row in self.0.iter().flat_map(|(_, rows)| rows) {
            let is_whole = match row.get("type").and_then(Value::as_str) {
                Some("qemu" | "lxc") => node(row).is_some() && vmid(row).is_some(),
                kind => kind.is_some(),
            };
            if !is_whole {
                return Err(InvalidList::Row);
            }
        }
        for (_, rows) in &mut self.0 {
            rows.retain(|row| matches!(row["type"].as_str(), Some("qemu" | "lxc")));
        }
        Ok(())
    }

    /// The nodes that have virtual machines.
    pub fn nodes(&self) -> BTreeSet<String> {
        self.guests("qemu").filter_map(|(_, row)| node(row)).map(str::to_owned).collect()
    }

    /// The containers, each with its node.
    pub fn containers(&self) -> Vec<(Guest, String)> {
        let found = self
            .guests("lxc")
            .filter_map(|(cluster, row)| Some(((cluster.to_owned(), vmid(row)?), node(row)?.to_owned())));
        found.collect()
    }

    fn guests(&self, kind: &'static str) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        let rows =
            self.0.iter().flat_map(|(cluster, rows)| rows.iter().map(move |row| (cluster.as_str(), row)));
        rows.filter(move |(_, row)| row["type"] == kind)
    }

    /// Checks that every guest has `template`.
    ///
    /// # Errors
    ///
    /// The first guest without it.
    pub fn validate(&self) -> Result<(), InvalidList> {
        let rows = self.0.iter().flat_map(|(_, rows)| rows);
        rows.filter(|row| row.get("template").is_none_or(Value::is_null)).try_for_each(|row| {
            let kind = row["type"].as_str().unwrap_or_default().to_owned();
            Err(vmid(row).map_or(InvalidList::Row, |vmid| InvalidList::Guest { kind, vmid }))
        })
    }

    /// Sets `template` of every guest.
    ///
    /// # Errors
    ///
    /// The first guest missing from `templates`.
    pub fn complete(&mut self, templates: &BTreeMap<Guest, bool>) -> Result<(), InvalidList> {
        for (cluster, rows) in &mut self.0 {
            for row in rows {
                let kind = row["type"].as_str().unwrap_or_default().to_owned();
                let vmid = vmid(row).ok_or(InvalidList::Row)?;
                let is_template =
                    templates.get(&(cluster.clone(), vmid)).ok_or(InvalidList::Guest { kind, vmid })?;
                row.insert("template".to_owned(), json!(is_template));
            }
        }
        Ok(())
    }

    /// The list in its original format.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(|(cluster, rows)| json!({ cluster.as_str(): rows })).collect()
    }
}

fn node(row: &Map<String, Value>) -> Option<&str> {
    row.get("node")?.as_str().filter(|node| !node.is_empty())
}

fn vmid(row: &Map<String, Value>) -> Option<u64> {
    row.get("vmid")?.as_u64()
}

/// Finds the templates among the virtual machines of a node in the backend's answer to `/proxmox/nodes/NODE/qemu`.
/// Proxmox sets `template` only for templates there, and the backend returns the rows unchanged.
///
/// # Errors
///
/// [`InvalidList::NotAList`] for an answer in any other format.
pub fn templates_of_node(body: &[u8]) -> Result<BTreeMap<Guest, bool>, InvalidList> {
    let clusters: Vec<BTreeMap<String, Vec<Map<String, Value>>>> =
        serde_json::from_slice(body).map_err(|_| InvalidList::NotAList)?;
    let mut found = BTreeMap::new();
    for (cluster, rows) in clusters.into_iter().flatten() {
        for row in rows {
            let is_template = match row.get("template") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(flag)) => *flag,
                Some(value) => value.as_u64().is_none_or(|flag| flag != 0),
            };
            found.insert((cluster.clone(), vmid(&row).ok_or(InvalidList::Row)?), is_template);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"[{"lab":[
        {"type":"node","node":"pve1","id":"node/pve1"},
        {"type":"storage","storage":"local","node":"pve1","id":"storage/pve1/local"},
        {"type":"qemu","vmid":100,"node":"pve1","name":"web01","id":"qemu/100"},
        {"type":"qemu","vmid":900,"node":"pve1","name":"tmpl","id":"qemu/900"},
        {"type":"lxc","vmid":200,"node":"pve2","name":"dns01","id":"lxc/200"}]}]"#;

    fn guest(vmid: u64) -> Guest {
        ("lab".to_owned(), vmid)
    }

    #[test]
    fn guests_are_kept_and_distinguished() {
        let mut list = Resources::parse(LIST.as_bytes()).unwrap();
        list.retain_guests().unwrap();
        assert_eq!(list.nodes().into_iter().collect::<Vec<_>>(), ["pve1"]);
        assert_eq!(list.containers(), [(guest(200), "pve2".to_owned())]);
        let of_node = br#"[{"lab":[{"vmid":100,"name":"web01"},{"vmid":900,"template":1}]}]"#;
        let mut templates = templates_of_node(of_node).unwrap();
        let unknown = list.clone().complete(&templates).unwrap_err();
        assert_eq!(unknown.to_string(), "it does not say whether lxc 200 is a template");
        templates.insert(guest(200), false);
        assert_eq!(list.validate(), Err(InvalidList::Guest { kind: "qemu".to_owned(), vmid: 100 }));
        list.complete(&templates).unwrap();
        assert_eq!(list.validate(), Ok(()));
        let rows = &list.to_json()[0]["lab"];
        let row = |index: usize| (rows[index]["vmid"].as_u64(), rows[index]["template"].as_bool());
        assert_eq!(
            [row(0), row(1), row(2)],
            [(Some(100), Some(false)), (Some(900), Some(true)), (Some(200), Some(false))]
        );
        assert_eq!(rows.as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn a_list_that_cannot_be_whole_is_none() {
        for body in ["[]", "[{}]", r#"[{"lab":[]}]"#] {
            assert_eq!(Resources::parse(body.as_bytes()), Err(InvalidList::Empty), "{body}");
        }
        for body in ["{}", "null", "no", r#"[{"lab":{}}]"#, r#"[["lab"]]"#, r#"[{"lab":[1]}]"#] {
            assert_eq!(Resources::parse(body.as_bytes()), Err(InvalidList::NotAList), "{body}");
        }
        for row in [r#"{"vmid":1,"node":"a"}"#, r#"{"type":"qemu","node":"a"}"#, r#"{"type":"lxc","vmid":1}"#]
        {
            let body = format!(r#"[{{"lab":[{row}]}}]"#);
            assert_eq!(
                Resources::parse(body.as_bytes()).unwrap().retain_guests(),
                Err(InvalidList::Row),
                "{row}"
            );
        }
    }

    #[test]
    fn a_cluster_with_nodes_and_no_guests_is_whole() {
        let mut list = Resources::parse(br#"[{"lab":[{"type":"node","node":"pve1"}]}]"#).unwrap();
        list.retain_guests().unwrap();
        assert_eq!(list.to_json(), json!([{ "lab": [] }]));
    }

    #[test]
    fn a_configuration_is_as_proxmox_gives_it() {
        let body = br#"{"digest":"d","template":true,"onboot":false,"acpi":null,"net[n]":null,"scsi0":"a:1","cores":2}"#;
        let expected = json!({ "digest": "d", "template": 1, "onboot": 0, "scsi0": "a:1", "cores": 2 });
        assert_eq!(config(body), Some(expected));
        for body in ["{}", r#"{"template":1}"#, "[]", "null", "no"] {
            assert_eq!(config(body.as_bytes()), None, "{body}");
        }
        let refuses = |release: &str| refuses_config(release.parse().unwrap());
        assert!(refuses("0.0.4") && refuses("0.0.18.post5") && !refuses("0.0.3") && !refuses("0.0.19"));
    }

    #[test]
    fn the_two_faults_are_known_by_release() {
        let faults = |release: &str| {
            let release = release.parse().unwrap();
            (mistakes_type(release), drops_template(release))
        };
        assert_eq!(faults("0.0.5"), (false, true));
        assert_eq!(faults("0.0.6.post4"), (false, false));
        assert_eq!(faults("0.0.7"), (true, false));
        assert_eq!(faults("0.0.19.post5"), (true, false));
        assert_eq!(faults("0.0.20"), (false, false));
    }
}
