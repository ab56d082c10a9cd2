//! `proxmox_endpoint_ids`: restricts a sync or a read to some Proxmox endpoints.
//!
//! A release that does not support the parameter ignores it and uses every endpoint. A sync of one endpoint then
//! writes all of them. A read of one endpoint makes the plugin overwrite it with the nodes of the others.

use std::borrow::Cow;

use serde_json::Value;

use super::{is_within, release_name};
use crate::core::domain::kind::Kind;
use crate::core::domain::release::Release;

/// The name of the parameter that the plugin sends.
pub const ENDPOINT_IDS: &str = "proxmox_endpoint_ids";

/// How a release selects Proxmox endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointSelector {
    /// By the plugin's parameter.
    Unchanged,
    /// By `endpoint_ids` with the same value: 0.0.4 to 0.0.7. The parameter is harmless for newer releases.
    EndpointIds,
    /// By `name`, one endpoint at a time: 0.0.3.
    Name,
    /// By `domain` or `ip_address`, one endpoint at a time: before 0.0.3. These releases store no endpoints. They read
    /// them from NetBox, where they have no ids.
    Address,
}

const FIRST_WITH_NAME: Release = Release::new(0, 0, 3);
const FIRST_WITH_IDS: Release = Release::new(0, 0, 4);
const FIRST_WITH_ALIAS: Release = Release::new(0, 0, 8);

impl EndpointSelector {
    /// The form for `release`. An unknown release may need either parameter and gets both.
    pub fn for_release(release: Option<Release>) -> Self {
        match release {
            Some(release) if release < FIRST_WITH_NAME => Self::Address,
            Some(release) if release < FIRST_WITH_IDS => Self::Name,
            Some(release) if release >= FIRST_WITH_ALIAS => Self::Unchanged,
            _ => Self::EndpointIds,
        }
    }
}

/// The decoded parameters of a query.
pub fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(query.as_bytes())
}

/// Appends `part` to `query`. All other bytes stay unchanged.
pub fn with_part(query: &str, part: &str) -> String {
    if query.is_empty() { part.to_owned() } else { format!("{query}&{part}") }
}

/// Appends the parameter `name` with `value` to `query`. Backends use the last value of a repeated parameter.
pub fn with_parameter(query: &str, name: &str, value: &str) -> String {
    let part = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    with_part(query, &part)
}

/// Removes the parameter `name` from `query`. All other bytes stay unchanged.
pub fn without_parameter(query: &str, name: &str) -> String {
    let is_named = |part: &&str| parameters(part).next().is_some_and(|(known, _)| known == name);
    query.split('&').filter(|part| !is_named(part)).collect::<Vec<_>>().join("&")
}

/// The ids in `query`, if it has the parameter. Like backends, it uses the last one.
///
/// # Errors
///
/// The value is not a list of ids.
pub fn endpoint_ids(query: &str) -> Result<Option<Vec<u64>>, InvalidEndpointIds> {
    let Some((_, value)) = parameters(query).filter(|(name, _)| name == ENDPOINT_IDS).last() else {
        return Ok(None);
    };
    let ids: Result<Vec<u64>, InvalidEndpointIds> = value
        .split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .map(|id| id.parse().map_err(|_| InvalidEndpointIds(value.clone().into_owned())))
        .collect();
    Ok(Some(ids?).filter(|ids| !ids.is_empty()))
}

/// The value of `proxmox_endpoint_ids` is not a list of ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("proxmox_endpoint_ids takes ids with commas between them, and not {0:?}")]
pub struct InvalidEndpointIds(String);

/// The refusal of a sync of the Proxmox endpoints `ids`: `release` syncs one at a time, or all.
pub fn one_at_a_time(release: Option<Release>, ids: &[u64]) -> String {
    format!(
        "{} can synchronise one Proxmox endpoint at a time, not several ({}). Start one sync for each of \
         them.",
        release_name(release),
        list(ids)
    )
}

/// The refusal if the bridge knows none of the endpoints that `release` reads from NetBox.
pub fn no_endpoint_pushed(release: Option<Release>, ids: &[u64]) -> String {
    format!(
        "{} does not support selecting the Proxmox endpoint {} by its id, and the bridge does not know its address: \
         NetBox has not pushed it since the bridge started. Save the endpoint in NetBox, or start the sync there.",
        release_name(release),
        list(ids)
    )
}

/// The refusal of a sync of the Proxmox endpoints `ids` if the bridge is not between the backend and NetBox.
pub fn no_netbox_listener(release: Option<Release>, ids: &[u64]) -> String {
    format!(
        "{} does not support selecting a Proxmox endpoint by its id ({}) and would synchronise all of them. \
         Set backend.netbox_listen, or use proxbox-api 0.0.4 or newer. If there is only one Proxmox endpoint, \
         shims.scope = \"off\" lets the sync run.",
        release_name(release),
        list(ids)
    )
}

/// The refusal if the endpoint `id` is not among those that `release` reads from NetBox.
pub fn unknown_endpoint(release: Option<Release>, id: u64) -> String {
    format!(
        "NetBox has not pushed the Proxmox endpoint {id} to {} since the bridge started, or has disabled or deleted it. \
         Save the endpoint in NetBox, or start the sync there.",
        release_name(release)
    )
}

/// The refusal if another endpoint shares the address by which `release` would select `ids`.
pub fn same_address(release: Option<Release>, ids: &[u64]) -> String {
    format!(
        "{} selects a Proxmox endpoint by its domain or IP address, and another endpoint has those of \
         {}. Give each of them a domain of its own in NetBox, or use proxbox-api 0.0.4 or newer.",
        release_name(release),
        list(ids)
    )
}

/// Removes `source` from `query` if `release` fails with the plugin's value. 0.0.1 reads its Proxmox endpoints from
/// NetBox and supports no other source.
pub fn without_source(query: &str, release: Option<Release>) -> Option<String> {
    let has_source = parameters(query).any(|(name, value)| name == "source" && value != "netbox");
    (has_source && is_first(release)).then(|| without_parameter(query, "source"))
}

/// Whether it is the first release, which can sync only one Proxmox endpoint.
pub fn is_first(release: Option<Release>) -> bool {
    release.is_some_and(|release| release.is_up_to(Release::new(0, 0, 1)))
}

/// The refusal of a sync on `release` with `enabled` Proxmox endpoints, if it is needed. The frames of 0.0.1 show the
/// end of a sync only for a single endpoint.
pub fn cannot_detect_end(release: Option<Release>, enabled: usize) -> Option<String> {
    (is_first(release) && enabled != 1).then(|| {
        let enabled = match enabled {
            0 => "The NetBox plugin has pushed none: start the sync in NetBox, with backend.netbox_listen set".to_owned(),
            enabled => format!("{enabled} are enabled: leave one of them enabled in NetBox"),
        };
        format!(
            "{} shows the end of a sync only with one Proxmox endpoint. {enabled}, or use proxbox-api 0.0.2.post1 or \
             newer.",
            release_name(release)
        )
    })
}

/// Formats ids for people.
pub fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// The parameters that delete objects from NetBox that Proxmox no longer has.
const PRUNING: [&str; 2] = ["delete_nonexistent_backup", "delete_nonexistent_snapshot"];
/// The first release that deletes only objects of the Proxmox endpoints in the sync.
const FIRST_TO_PRUNE_ITS_OWN: Release = Release::new(0, 0, 20);

/// Whether a sync of some Proxmox endpoints on `release` deletes the backups and snapshots of the others.
pub fn prunes_others(release: Option<Release>) -> bool {
    release.is_some_and(|release| release < FIRST_TO_PRUNE_ITS_OWN)
}

/// Whether `query` requests the deletion of backups or snapshots that Proxmox no longer has.
pub fn prunes(query: &str) -> bool {
    let is_on = |value: &str| !["false", "0", "no", "off", "f", "n"].contains(&value.to_lowercase().as_str());
    parameters(query).any(|(name, value)| PRUNING.contains(&&*name) && is_on(&value))
}

/// Removes the deletion parameters from `query`.
pub fn without_pruning(query: &str) -> String {
    PRUNING.into_iter().fold(query.to_owned(), |query, name| without_parameter(&query, name))
}

/// Whether a backend with `rows` has Proxmox endpoints other than `ids`. Unreadable rows count as such.
pub fn has_others(rows: &Value, ids: &[u64]) -> bool {
    rows.as_array()
        .is_none_or(|rows| rows.iter().any(|row| row["id"].as_u64().is_none_or(|id| !ids.contains(&id))))
}

/// The warning that a sync deletes nothing.
pub fn prunes_nothing(release: Option<Release>) -> String {
    format!(
        "Warning: {} would delete the backups and snapshots of other Proxmox endpoints, too. Those that Proxmox no \
         longer has stay in NetBox.",
        release_name(release)
    )
}

/// The releases whose storage stream finds a storage by its name alone if its cluster has none of that name.
const MOVES_STORAGES: (Release, Release) = (Release::new(0, 0, 5), Release::new(0, 0, 6));

/// The refusal of a sync of `kind` for some Proxmox endpoints, if it would modify the others on `release` whatever the
/// parameters.
pub fn harms_others(kind: Kind, release: Option<Release>) -> Option<String> {
    let name = release_name(release);
    match kind {
        Kind::FullUpdate if prunes_others(release) => Some(format!(
            "The full update of {name} deletes the backups of other Proxmox endpoints from NetBox. Synchronise its \
             stages one by one, or all endpoints at once."
        )),
        Kind::Storage if is_within(release, MOVES_STORAGES) => Some(format!(
            "{name} would take the storages of other Proxmox endpoints for those of this one where they have the same \
             name. Use proxbox-api 0.0.7 or newer."
        )),
        _ => None,
    }
}

/// Maps the primary keys `keys` of NetBox to the backend's ids of the same Proxmox endpoints. The plugin names its
/// rows `… (nb:KEY)`.
///
/// # Errors
///
/// The primary key that is named in no row, or in several.
pub fn backend_ids(rows: &Value, keys: &[u64]) -> Result<Vec<u64>, String> {
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    keys.iter()
        .map(|key| {
            let suffix = format!("(nb:{key})");
            let mut found =
                rows.iter().filter(|row| row["name"].as_str().is_some_and(|name| name.ends_with(&suffix)));
            let id = found.next().and_then(|row| row["id"].as_u64());
            match (id, found.next()) {
                (Some(id), None) => Ok(id),
                (Some(_), Some(_)) => Err(format!(
                    "The backend has more than one Proxmox endpoint whose name ends in {suffix}. Delete all but \
                     one of them there."
                )),
                (None, _) => Err(format!(
                    "The backend has no Proxmox endpoint whose name ends in {suffix}, which is how the NetBox \
                     plugin names them. Save the endpoint in NetBox so that it is pushed again, or set \
                     backend.endpoint_ids = \"backend\" if clients send the backend's own ids."
                )),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_end_of_a_sync_of_0_0_1_is_known_only_with_one_endpoint() {
        let why = |release: &str, enabled| cannot_detect_end(release.parse().ok(), enabled);
        assert!(why("0.0.1", 2).unwrap().contains("2 are enabled"));
        assert!(why("0.0.1", 0).unwrap().contains("0.0.2.post1 or newer"));
        assert_eq!((why("0.0.1", 1), why("0.0.2", 2), why("", 2)), (None, None, None));
    }

    #[test]
    fn only_for_0_0_1_the_source_parameter_is_removed() {
        let query = "type=vm&source=database&proxmox_endpoint_ids=1";
        let changed = without_source(query, "0.0.1".parse().ok());
        assert_eq!(changed.as_deref(), Some("type=vm&proxmox_endpoint_ids=1"));
        assert_eq!(without_source(query, "0.0.2.post1".parse().ok()), None);
        assert_eq!(without_source("source=database", "0.0.1".parse().ok()).as_deref(), Some(""));
        for query in ["source=netbox", "type=vm&source=netbox", "type=vm"] {
            assert_eq!(without_source(query, "0.0.1".parse().ok()), None, "{query}");
        }
    }

    #[test]
    fn each_release_has_its_endpoint_selector() {
        for (release, selector) in [
            ("0.0.2.post3", EndpointSelector::Address),
            ("0.0.3", EndpointSelector::Name),
            ("0.0.4", EndpointSelector::EndpointIds),
            ("0.0.7.post1", EndpointSelector::EndpointIds),
            ("0.0.8", EndpointSelector::Unchanged),
            ("0.0.30.post2", EndpointSelector::Unchanged),
        ] {
            assert_eq!(EndpointSelector::for_release(release.parse().ok()), selector, "{release}");
        }
        assert_eq!(EndpointSelector::for_release(None), EndpointSelector::EndpointIds);
    }

    #[test]
    fn a_sync_that_is_refused_says_what_to_do() {
        let release = "0.0.2.post1".parse().ok();
        for (why, what) in [
            (one_at_a_time(release, &[1, 2]), "(1, 2). Start one sync for each"),
            (no_netbox_listener(release, &[1]), "Set backend.netbox_listen"),
            (no_endpoint_pushed(release, &[1]), "Save the endpoint in NetBox"),
            (unknown_endpoint(release, 1), "Save the endpoint in NetBox"),
            (same_address(release, &[1]), "Give each of them a domain of its own"),
        ] {
            assert!(why.contains("proxbox-api 0.0.2.post1") && why.contains(what), "{why}");
        }
    }

    #[test]
    fn ids_are_read_as_backends_read_them() {
        assert_eq!(endpoint_ids("a=b"), Ok(None));
        assert_eq!(endpoint_ids("proxmox_endpoint_ids="), Ok(None));
        assert_eq!(endpoint_ids("proxmox_endpoint_ids=1%2C2,+3"), Ok(Some(vec![1, 2, 3])));
        assert_eq!(endpoint_ids("proxmox%5Fendpoint_ids=1&proxmox_endpoint_ids=2"), Ok(Some(vec![2])));
        assert!(endpoint_ids("proxmox_endpoint_ids=all").is_err());
    }

    #[test]
    fn every_other_byte_of_a_query_stays() {
        assert_eq!(with_parameter("x=%20+&&a", "name", "lab (nb:1)"), "x=%20+&&a&name=lab+%28nb%3A1%29");
        assert_eq!(with_parameter("", "endpoint_ids", "1,2"), "endpoint_ids=1%2C2");
        assert_eq!(without_parameter("type=vm&x=%20&&t%79pe=vm&typed=1", "type"), "x=%20&&typed=1");
    }

    #[test]
    fn what_would_delete_things_of_others_is_known() {
        assert!(prunes_others("0.0.19.post5".parse().ok()) && !prunes_others("0.0.20".parse().ok()));
        for (query, expected) in [
            ("a=b&delete_nonexistent_backup=true", true),
            ("delete%5Fnonexistent_snapshot=1", true),
            ("delete_nonexistent_backup=False&delete_nonexistent_snapshot=0", false),
            ("", false),
        ] {
            assert_eq!(prunes(query), expected, "{query}");
            assert!(!prunes(&without_pruning(query)), "{query}");
        }
        assert_eq!(without_pruning("a=%20&delete_nonexistent_backup=true&b"), "a=%20&b");
        let rows = json!([{ "id": 1 }, { "id": 2 }]);
        assert!(has_others(&rows, &[1]) && !has_others(&rows, &[1, 2]) && !has_others(&json!([]), &[1]));
        assert!(has_others(&json!({}), &[1]) && has_others(&json!([{ "name": "no id" }]), &[1]));
    }

    #[test]
    fn a_primary_key_of_netbox_is_looked_up_by_the_name_of_the_row() {
        let rows = json!([
            { "id": 7, "name": "lab (nb:1)" },
            { "id": 1, "name": "other (nb:11)" },
            { "id": 8, "name": "twice (nb:3)" },
            { "id": 9, "name": "again (nb:3)" },
        ]);
        assert_eq!(backend_ids(&rows, &[1, 11]), Ok(vec![7, 1]));
        assert!(
            backend_ids(&rows, &[2]).unwrap_err().contains("no Proxmox endpoint whose name ends in (nb:2)")
        );
        assert!(backend_ids(&rows, &[3]).unwrap_err().contains("more than one"));
        assert!(backend_ids(&json!({ "detail": "no" }), &[1]).is_err());
    }

    #[test]
    fn what_a_release_would_do_to_other_endpoints_is_known_by_kind() {
        for (release, kind, harms) in [
            ("0.0.19.post5", Kind::FullUpdate, true),
            ("0.0.20", Kind::FullUpdate, false),
            ("0.0.4", Kind::Storage, false),
            ("0.0.5", Kind::Storage, true),
            ("0.0.6.post4", Kind::Storage, true),
            ("0.0.7", Kind::Storage, false),
            ("0.0.6", Kind::Devices, false),
        ] {
            assert_eq!(harms_others(kind, release.parse().ok()).is_some(), harms, "{kind} of {release}");
        }
    }
}
