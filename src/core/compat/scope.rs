//! `proxmox_endpoint_ids`: the Proxmox endpoints that a sync or a read is for.
//!
//! A release that does not know the parameter ignores it and takes every endpoint: a sync for one then writes
//! all of them, and a read for one tells the plugin to overwrite it with the nodes of the others.

use std::borrow::Cow;

use serde_json::Value;

use super::release_name;
use crate::core::domain::kind::Kind;
use crate::core::domain::release::Release;

/// The parameter, as the plugin sends it.
pub const ENDPOINT_IDS: &str = "proxmox_endpoint_ids";

/// How a release is told which Proxmox endpoints are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointSelector {
    /// As the plugin says it.
    Unchanged,
    /// By `endpoint_ids`, with the same value: 0.0.4 to 0.0.7. It does no harm to younger ones.
    EndpointIds,
    /// By `name`, one endpoint at a time: 0.0.3.
    Name,
    /// By `domain` or `ip_address`, one endpoint at a time: before 0.0.3. It stores no endpoints, and reads those of
    /// NetBox, which have no ids there.
    Address,
}

const FIRST_WITH_NAME: Release = Release::new(0, 0, 3);
const FIRST_WITH_IDS: Release = Release::new(0, 0, 4);
const FIRST_WITH_ALIAS: Release = Release::new(0, 0, 8);

impl EndpointSelector {
    /// How `release` is told. One that is not known may need either parameter, and gets both.
    pub fn for_release(release: Option<Release>) -> Self {
        match release {
            Some(release) if release < FIRST_WITH_NAME => Self::Address,
            Some(release) if release < FIRST_WITH_IDS => Self::Name,
            Some(release) if release >= FIRST_WITH_ALIAS => Self::Unchanged,
            _ => Self::EndpointIds,
        }
    }
}

/// The parameters of a query, decoded.
pub fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(query.as_bytes())
}

/// `query` with `part` at its end, every other byte as it was.
pub fn with_part(query: &str, part: &str) -> String {
    if query.is_empty() { part.to_owned() } else { format!("{query}&{part}") }
}

/// `query` with the parameter `name` set to `value` behind everything else, which is the value that backends
/// take of a parameter that is there twice.
pub fn with_parameter(query: &str, name: &str, value: &str) -> String {
    let part = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    with_part(query, &part)
}

/// `query` without the parameter `name`, every other byte as it was.
pub fn without_parameter(query: &str, name: &str) -> String {
    let is_named = |part: &&str| parameters(part).next().is_some_and(|(known, _)| known == name);
    query.split('&').filter(|part| !is_named(part)).collect::<Vec<_>>().join("&")
}

/// The ids in `query`, if it has the parameter: the last one, as backends read it.
///
/// # Errors
///
/// A value that is no list of ids.
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

/// A value of `proxmox_endpoint_ids` that is no list of ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("proxmox_endpoint_ids takes ids with commas between them, and not {0:?}")]
pub struct InvalidEndpointIds(String);

/// Why a sync for the Proxmox endpoints with `ids` is refused: `release` takes one at a time, or all.
pub fn one_at_a_time(release: Option<Release>, ids: &[u64]) -> String {
    format!(
        "{} can be told to synchronise one Proxmox endpoint at a time, not several ({}). Start one sync for each of \
         them.",
        release_name(release),
        list(ids)
    )
}

/// Why it is refused where the bridge knows none of the endpoints that `release` reads from NetBox. `is_between` says
/// whether the bridge stands between the backend and NetBox.
pub fn no_endpoint_pushed(release: Option<Release>, ids: &[u64], is_between: bool) -> String {
    let (name, ids) = (release_name(release), list(ids));
    if is_between {
        return format!(
            "{name} cannot be told to synchronise the Proxmox endpoint {ids} by its id, and the bridge does not know its \
             address: NetBox has not pushed it since the bridge started. Save the endpoint in NetBox, or start the \
             sync there."
        );
    }
    format!(
        "{name} cannot be told to synchronise one Proxmox endpoint by its id ({ids}) and would synchronise all of them. \
         Set backend.netbox_listen, or use proxbox-api 0.0.4 or newer. If there is only one Proxmox endpoint, \
         shims.scope = \"off\" lets the sync run."
    )
}

/// Why it is refused where the bridge does not know the endpoint with `id` among those that `release` reads from NetBox.
pub fn unknown_endpoint(release: Option<Release>, id: u64) -> String {
    format!(
        "NetBox has not pushed the Proxmox endpoint {id} to {} since the bridge started, or has disabled or deleted it. \
         Save the endpoint in NetBox, or start the sync there.",
        release_name(release)
    )
}

/// Why it is refused where another endpoint has the address by which `release` would find the one with `ids`.
pub fn same_address(release: Option<Release>, ids: &[u64]) -> String {
    format!(
        "{} is told by its domain or IP address which Proxmox endpoint to synchronise, and another endpoint has those of \
         {}. Give each of them a domain of its own in NetBox, or use proxbox-api 0.0.4 or newer.",
        release_name(release),
        list(ids)
    )
}

/// `query` without `source`, where `release` fails for the plugin's: 0.0.1 has its Proxmox endpoints from NetBox, and
/// knows no other source.
pub fn without_source(query: &str, release: Option<Release>) -> Option<String> {
    let has_source = parameters(query).any(|(name, value)| name == "source" && value != "netbox");
    (has_source && is_first(release)).then(|| without_parameter(query, "source"))
}

/// Whether it is the first release, which synchronises with one Proxmox endpoint alone.
pub fn is_first(release: Option<Release>) -> bool {
    release.is_some_and(|release| release.is_up_to(Release::new(0, 0, 1)))
}

/// Why a sync of `release` is not begun with `enabled` Proxmox endpoints, if it is not: the frames of 0.0.1 tell the end
/// of a sync of one endpoint alone.
pub fn cannot_tell_end(release: Option<Release>, enabled: usize) -> Option<String> {
    (is_first(release) && enabled != 1).then(|| {
        let enabled = match enabled {
            0 => "The NetBox plugin has pushed none: start the sync in NetBox, with backend.netbox_listen set".to_owned(),
            enabled => format!("{enabled} are enabled: leave one of them enabled in NetBox"),
        };
        format!(
            "{} tells the end of a sync with one Proxmox endpoint alone. {enabled}, or use proxbox-api 0.0.2.post1 or \
             newer.",
            release_name(release)
        )
    })
}

/// Ids as people read them.
pub fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// What deletes from NetBox what Proxmox no longer has.
const PRUNING: [&str; 2] = ["delete_nonexistent_backup", "delete_nonexistent_snapshot"];
/// The first release that deletes only what the Proxmox endpoints of a sync no longer have.
const FIRST_TO_PRUNE_ITS_OWN: Release = Release::new(0, 0, 20);

/// Whether `release` takes what a sync for some Proxmox endpoints has not seen for what Proxmox no longer has: the
/// backups and snapshots of the others.
pub fn prunes_others(release: Option<Release>) -> bool {
    release.is_some_and(|release| release < FIRST_TO_PRUNE_ITS_OWN)
}

/// Whether `query` asks for backups or snapshots to be deleted that Proxmox no longer has.
pub fn prunes(query: &str) -> bool {
    let is_on = |value: &str| !["false", "0", "no", "off", "f", "n"].contains(&value.to_lowercase().as_str());
    parameters(query).any(|(name, value)| PRUNING.contains(&&*name) && is_on(&value))
}

/// `query` with nothing that asks for that.
pub fn without_pruning(query: &str) -> String {
    PRUNING.into_iter().fold(query.to_owned(), |query, name| without_parameter(&query, name))
}

/// Whether a backend that stores `rows` has other Proxmox endpoints than `ids`. If it does not say, it may.
pub fn has_others(rows: &Value, ids: &[u64]) -> bool {
    rows.as_array()
        .is_none_or(|rows| rows.iter().any(|row| row["id"].as_u64().is_none_or(|id| !ids.contains(&id))))
}

/// What readers are told of a sync that does not delete.
pub fn prunes_nothing(release: Option<Release>) -> String {
    format!(
        "Warning: {} would delete the backups and snapshots of other Proxmox endpoints, too. Those that Proxmox no \
         longer has stay in NetBox.",
        release_name(release)
    )
}

/// The releases with a stream of storages that look a storage up by its name alone where its cluster has none.
const MOVES_STORAGES: (Release, Release) = (Release::new(0, 0, 5), Release::new(0, 0, 6));

/// Why a sync of `kind` for some Proxmox endpoints harms the others, if `release` does that whatever it is asked.
pub fn harms_others(kind: Kind, release: Option<Release>) -> Option<String> {
    let (first, last) = MOVES_STORAGES;
    let moves = release.is_some_and(|release| release >= first && release.is_up_to(last));
    let name = release_name(release);
    match kind {
        Kind::FullUpdate if prunes_others(release) => Some(format!(
            "The full update of {name} deletes the backups of other Proxmox endpoints from NetBox. Synchronise its \
             stages one by one, or all endpoints at once."
        )),
        Kind::Storage if moves => Some(format!(
            "{name} would take the storages of other Proxmox endpoints for those of this one where they have the same \
             name. Use proxbox-api 0.0.7 or newer."
        )),
        _ => None,
    }
}

/// The ids under which a backend stores the Proxmox endpoints that NetBox knows by the primary keys `keys`:
/// the plugin names its rows `… (nb:KEY)`.
///
/// # Errors
///
/// The primary key that no row, or more than one, is named after.
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
    fn the_end_of_a_sync_of_0_0_1_is_told_with_one_endpoint_alone() {
        let why = |release: &str, enabled| cannot_tell_end(release.parse().ok(), enabled);
        assert!(why("0.0.1", 2).unwrap().contains("2 are enabled"));
        assert!(why("0.0.1", 0).unwrap().contains("0.0.2.post1 or newer"));
        assert_eq!((why("0.0.1", 1), why("0.0.2", 2), why("", 2)), (None, None, None));
    }

    #[test]
    fn only_0_0_1_is_not_asked_for_another_source_than_netbox() {
        let query = "type=vm&source=database&proxmox_endpoint_ids=1";
        let changed = without_source(query, "0.0.1".parse().ok());
        assert_eq!(changed.as_deref(), Some("type=vm&proxmox_endpoint_ids=1"));
        assert_eq!(without_source(query, "0.0.2.post1".parse().ok()), None);
        assert_eq!(without_source("source=netbox", "0.0.1".parse().ok()), None);
    }

    #[test]
    fn each_release_is_told_in_the_words_that_it_knows() {
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
            (no_endpoint_pushed(release, &[1], false), "Set backend.netbox_listen"),
            (no_endpoint_pushed(release, &[1], true), "Save the endpoint in NetBox"),
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
}
