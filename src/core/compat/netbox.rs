//! The requests of old backends to NetBox that today's NetBox rejects or answers in an unexpected form, and the changes
//! that the bridge makes to them and to the responses.

mod fields;
mod nested;

use std::collections::BTreeSet;

use http::HeaderValue;
use memchr::memmem;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::scope::parameters;
use super::{Shim, is_within};
use crate::core::domain::release::Release;
use crate::core::secret::{SecretJson, header, joined};

pub use fields::wanted as wanted_field;
pub use nested::{flatten, may_nest};

/// A change that the bridge makes to requests or responses between a backend and NetBox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetboxRule {
    /// The shim that it belongs to.
    pub shim: Shim,
    /// The first and the last release that it applies to; `None` for all releases.
    pub releases: Option<(Release, Release)>,
    /// The requests that it applies to.
    pub request: &'static str,
    /// The change.
    pub change: &'static str,
    /// The reason for the change.
    pub reason: &'static str,
}

/// The oldest release.
const FIRST: Release = Release::new(0, 0, 1);
/// The only port on which that release connects to NetBox without TLS.
const PLAIN_PORT: u16 = 8000;
/// The port on which backends always use TLS, regardless of their NetBox endpoint.
pub const TLS_PORT: u16 = 443;
/// The last release that reads its Proxmox credentials from NetBox, and its NetBox token at startup.
const LAST_WITH_CREDENTIALS: Release = Release::new(0, 0, 2);
/// The only release that records every sync in objects that today's plugin does not have.
pub(super) const WITH_SYNC_PROCESSES: Release = Release::new(0, 0, 3);
/// The releases whose custom field `proxmox_last_updated` is narrower than the plugin's.
pub(super) const NARROW_FIELD: (Release, Release) = (Release::new(0, 0, 5), Release::new(0, 0, 7));

/// Every rule, in the order of the releases.
pub static RULES: [NetboxRule; 8] = [
    NetboxRule {
        shim: Shim::NetboxToken,
        releases: None,
        request: "every request",
        change: "Authorization: Token nbt_KEY.SECRET becomes Bearer nbt_KEY.SECRET",
        reason: "NetBox accepts v2 tokens only as Bearer, and releases before 0.0.3 send every token as Token.",
    },
    NetboxRule {
        shim: Shim::NetboxLinks,
        releases: None,
        request: "every request",
        change: "Accept-Encoding becomes identity; the links to NetBox's API in the response (url, next and previous in \
                 JSON, and Location) lead to the listener",
        reason: "Backends follow these links, and would bypass the bridge.",
    },
    NetboxRule {
        shim: Shim::CurrentToken,
        releases: Some((FIRST, LAST_WITH_CREDENTIALS)),
        request: "every request",
        change: "a replaced token becomes the one that the plugin has pushed last",
        reason: "These releases read their token at startup, and continue to send it after it was replaced.",
    },
    NetboxRule {
        shim: Shim::ProxmoxCredentials,
        releases: Some((FIRST, LAST_WITH_CREDENTIALS)),
        request: "GET /api/plugins/proxbox/endpoints/proxmox/",
        change: "the password and the token value that the plugin has pushed are filled in; endpoints that it has not \
                 pushed are left out",
        reason: "These releases log in to Proxmox with the credentials that the plugin of their time returned; today's \
                 plugin does not return any.",
    },
    NetboxRule {
        shim: Shim::CustomFields,
        releases: Some((FIRST, FIRST)),
        request: "GET /api/extras/custom-fields/?name=NAME",
        change: "a missing custom field of virtual machines is created as the release defines it, with the token of the \
                 request",
        reason: "This release fails before it sends the request that creates the field, and opens /ws only if NetBox \
                 has it.",
    },
    NetboxRule {
        shim: Shim::NestedObjects,
        releases: Some((FIRST, LAST_WITH_CREDENTIALS)),
        request: "interfaces and IP addresses of virtual machines, devices, virtual machines and clusters",
        change: "MAC addresses, VLANs, VRFs and similar objects become the strings that NetBox displays for them",
        reason: "These releases expect MAC addresses, VLANs and the like as strings. NetBox 4.2 and later return objects, and the sync of a virtual \
                 machine fails at its first interface with a MAC address and at its first IP address.",
    },
    NetboxRule {
        shim: Shim::SyncProcesses,
        releases: Some((WITH_SYNC_PROCESSES, WITH_SYNC_PROCESSES)),
        request: "/api/plugins/proxbox/sync-processes/",
        change: "the bridge keeps these objects in memory and answers in place of NetBox",
        reason: "This release records each sync there and fails if it cannot; today's plugin does not have them.",
    },
    NetboxRule {
        shim: Shim::LastUpdated,
        releases: Some(NARROW_FIELD),
        request: "POST, PUT, PATCH /api/extras/custom-fields/",
        change: "object_types of proxmox_last_updated keeps the types that NetBox has, and gains those that the release \
                 writes",
        reason: "These releases narrow the field to six types and then write it on fourteen.",
    },
];

impl NetboxRule {
    /// The rule of `shim`.
    pub fn for_shim(shim: Shim) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.shim == shim)
    }

    /// Whether the rule applies to `release`. A backend sends requests to NetBox while it starts, before its release is
    /// known. The rules that are harmless for other releases apply then.
    pub fn applies_to(&self, release: Option<Release>) -> bool {
        match self.releases {
            None => true,
            // For other releases, a replaced token is a revoked one.
            Some(_) if release.is_none() => {
                !matches!(self.shim, Shim::CurrentToken | Shim::CustomFields | Shim::NestedObjects)
            }
            Some(releases) => is_within(release, releases),
        }
    }

    /// Whether jobs on `release` fail, or do less, without the rule, because today's NetBox does not support the release.
    /// The other rules are only needed because of the listener.
    pub fn is_needed_by(&self, release: Option<Release>) -> bool {
        let is_about_netbox =
            ![Shim::NetboxToken, Shim::NetboxLinks, Shim::CurrentToken].contains(&self.shim);
        is_about_netbox && release.is_some() && self.applies_to(release)
    }
}

/// The properties of a listener that decide whether a backend can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerAddress {
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub speaks_tls: bool,
}

/// Why `release` cannot reach the NetBox `listener`, if it cannot.
pub fn cannot_reach(release: Release, listener: ListenerAddress) -> Option<String> {
    (release.is_up_to(FIRST) && (listener.port == PLAIN_PORT) == listener.speaks_tls).then(|| {
        format!(
            "proxbox-api {release} connects to NetBox without TLS only on port {PLAIN_PORT}. Set backend.netbox_listen to \
             that port, as in \"127.0.0.1:{PLAIN_PORT}\", or use proxbox-api 0.0.2.post1 or newer."
        )
    })
}

/// The path at which releases read Proxmox endpoints from NetBox.
pub const PROXMOX_ENDPOINTS: &str = "/api/plugins/proxbox/endpoints/proxmox/";
/// The path at which 0.0.3 records its syncs.
pub const SYNC_PROCESSES: &str = "/api/plugins/proxbox/sync-processes/";
/// The path of custom fields.
pub const CUSTOM_FIELDS: &str = "/api/extras/custom-fields/";
/// The path that is requested to check whether NetBox answers, or accepts a token.
pub const STATUS: &str = "/api/status/";

/// The prefix of v2 tokens.
pub const V2: &str = "nbt_";

/// `Authorization` in the form that NetBox accepts for a v2 token; `None` if `sent` is not a v2 token sent as `Token`.
pub fn as_bearer(sent: &HeaderValue) -> Option<HeaderValue> {
    let (scheme, token) = sent.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("token") || !token.starts_with(V2) {
        return None;
    }
    header(&["Bearer ", token]).ok()
}

/// A v2 token in the form in which it is sent: `nbt_KEY.SECRET`.
pub fn v2_token(key: &str, secret: &str) -> SecretString {
    if secret.starts_with(V2) { secret.into() } else { joined(&[V2, key, ".", secret]) }
}

/// The keys of links in JSON of NetBox.
const LINKS: [&str; 3] = ["url", "next", "previous"];
/// The prefix of the paths that links are rewritten for.
const API: &[u8] = b"/api/";

/// Rewrites the links to NetBox at `authority` in its JSON `body` to `listener`, an origin (`http://127.0.0.1:8801`).
/// `None` if there are no such links.
///
/// A client that follows an unchanged link would bypass the bridge.
pub fn relink(body: &[u8], authority: &str, listener: &str) -> Option<Vec<u8>> {
    let mut relinked = Vec::new();
    let mut copied = 0;
    for scheme in memmem::find_iter(body, b"://") {
        let rest = &body[scheme + 3..];
        let path = rest.strip_prefix(authority.as_bytes());
        if !path.is_some_and(|path| path.starts_with(API)) {
            continue;
        }
        let Some(start) = link_start(&body[..scheme]) else { continue };
        relinked.extend_from_slice(&body[copied..start]);
        relinked.extend_from_slice(listener.as_bytes());
        copied = scheme + 3 + authority.len();
    }
    if copied == 0 {
        return None;
    }
    relinked.extend_from_slice(&body[copied..]);
    Some(relinked)
}

/// The start of the scheme, `http` or `https`, that `before` ends with, if it begins the value of a link.
fn link_start(before: &[u8]) -> Option<usize> {
    let rest = before.strip_suffix(b"https").or_else(|| before.strip_suffix(b"http"))?;
    let key = rest.strip_suffix(b"\"")?.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
    let key = key.strip_suffix(b"\"")?;
    let is_link = |link: &&str| key.strip_suffix(link.as_bytes()).is_some_and(|rest| rest.ends_with(b"\""));
    LINKS.iter().any(is_link).then_some(rest.len())
}

/// The secrets of one Proxmox endpoint, and the address that they belong to.
#[derive(Clone, Debug, Default)]
pub struct EndpointSecrets {
    /// The domain that was pushed with them.
    pub domain: Option<String>,
    /// The IP address that was pushed with them, without the prefix length.
    pub ip_address: Option<String>,
    /// The port that was pushed with them.
    pub port: Option<u64>,
    /// The password.
    pub password: Option<SecretString>,
    /// The name of the API token, which is not secret.
    pub token_name: Option<String>,
    /// The value of the API token.
    pub token_value: Option<SecretString>,
}

impl EndpointSecrets {
    /// Whether the secrets belong to the address in `row` of NetBox, to which the backend sends them.
    fn belong_to(&self, row: &Value) -> bool {
        let text =
            |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let ip_address = text(&row["ip_address"]["address"]).or_else(|| text(&row["ip_address"]));
        let ip_address = ip_address.as_deref().and_then(|address| address.split('/').next());
        let is_same_ip_address = match (&self.ip_address, ip_address) {
            (None, _) => true,
            // The plugin pushes 127.0.0.1 for an endpoint that only has a domain.
            (Some(_), None) => self.domain.is_some(),
            (Some(pushed), Some(listed)) => pushed == listed,
        };
        let is_same_port = self.port.is_none_or(|port| row["port"] == port);
        text(&row["domain"]) == self.domain && is_same_ip_address && is_same_port
    }
}

/// Adds the secrets to a page of Proxmox endpoints from NetBox. `secrets` returns those for a primary key. Endpoints
/// without secrets, and endpoints whose address differs from the one pushed with the secrets, are removed. Returns
/// whether `page` is such a page.
pub fn fill_in(page: &mut SecretJson, secrets: &dyn Fn(u64) -> Option<EndpointSecrets>) -> bool {
    let Some(rows) = page.get_mut("results").and_then(Value::as_array_mut) else { return false };
    let all = rows.len();
    rows.retain_mut(|row| {
        let pushed = row["id"].as_u64().and_then(secrets).filter(|pushed| pushed.belong_to(row));
        let Some(EndpointSecrets { password, token_name, token_value, .. }) = pushed else { return false };
        row["password"] = json!(password.as_ref().map(SecretString::expose_secret));
        row["token_value"] = json!(token_value.as_ref().map(SecretString::expose_secret));
        if token_name.is_some() {
            row["token_name"] = json!(token_name);
        }
        true
    });
    let removed = all - rows.len();
    if let Some(count) = page["count"].as_u64() {
        page["count"] = json!(count.saturating_sub(removed as u64));
    }
    true
}

/// Whether a list requested from NetBox with `query` starts at the first row and is not filtered.
pub fn lists_all(query: &str) -> bool {
    parameters(query).all(|(name, value)| name == "limit" || (name == "offset" && value == "0"))
}

/// The `keys` without a row in `page`, the first page of a list of NetBox. `None` if there are more pages.
pub fn missing(page: &Value, mut keys: Vec<u64>) -> Option<Vec<u64>> {
    let rows = page.get("results")?.as_array()?;
    if !page.get("next")?.is_null() {
        return None;
    }
    keys.retain(|key| !rows.iter().any(|row| row["id"] == *key));
    Some(keys)
}

/// The custom field that releases narrow.
const LAST_UPDATED: &str = "proxmox_last_updated";
/// The object types on which 0.0.5 to 0.0.7 write it.
const WRITTEN: [&str; 14] = [
    "dcim.device", "dcim.devicerole", "dcim.devicetype", "dcim.interface", "dcim.macaddress",
    "dcim.manufacturer", "dcim.site", "ipam.ipaddress", "ipam.vlan", "virtualization.cluster",
    "virtualization.clustertype", "virtualization.virtualdisk", "virtualization.virtualmachine",
    "virtualization.vminterface",
];

/// Adds to `written`, an update of the custom field `proxmox_last_updated`, the object types of the `current` field and
/// those that the release writes. Returns whether `written` is about that field and has changed.
pub fn widen(written: &mut Value, current: Option<&Value>) -> bool {
    let name = written["name"].as_str().or_else(|| current?["name"].as_str());
    if name != Some(LAST_UPDATED) {
        return false;
    }
    let Some(types) = written.get_mut("object_types").filter(|types| types.is_array()) else { return false };
    let texts = |value: &Value| -> BTreeSet<String> {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let mut wide = texts(types);
    let before = wide.len();
    wide.extend(WRITTEN.map(str::to_owned));
    wide.extend(current.map(|current| texts(&current["object_types"])).unwrap_or_default());
    let is_wider = wide.len() > before;
    if is_wider {
        *types = json!(wide);
    }
    is_wider
}

/// The `sync-processes` that 0.0.3 creates and updates. The newest `MAX_ROWS` are kept.
#[derive(Debug, Default)]
pub struct SyncProcesses {
    rows: Vec<Map<String, Value>>,
    last: u64,
}

/// The maximum number of sync processes.
const MAX_ROWS: usize = 64;

impl SyncProcesses {
    /// Creates an object from `body`. `origin` is the origin of NetBox as the backend sees it.
    pub fn create(&mut self, body: &Value, origin: &str) -> Value {
        self.last += 1;
        let id = self.last;
        let mut row = body.as_object().cloned().unwrap_or_default();
        let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
        row.insert("display".to_owned(), json!(name));
        row.insert("id".to_owned(), json!(id));
        row.insert("url".to_owned(), json!(format!("{origin}{SYNC_PROCESSES}{id}/")));
        self.rows.push(row.clone());
        if self.rows.len() > MAX_ROWS {
            self.rows.remove(0);
        }
        Value::Object(row)
    }

    /// Updates the object with this `id` from `body`, if it exists.
    pub fn update(&mut self, id: u64, body: &Value) -> Option<Value> {
        let row = self.rows.iter_mut().find(|row| row["id"] == json!(id))?;
        for (name, value) in body.as_object()? {
            if !["id", "url"].contains(&name.as_str()) {
                row.insert(name.clone(), value.clone());
            }
        }
        Some(Value::Object(row.clone()))
    }

    /// The object with this `id`.
    pub fn get(&self, id: u64) -> Option<Value> {
        self.rows.iter().find(|row| row["id"] == json!(id)).cloned().map(Value::Object)
    }

    /// All objects, as one page.
    pub fn page(&self) -> Value {
        json!({ "count": self.rows.len(), "next": null, "previous": null, "results": self.rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_token_is_sent_as_bearer_and_a_v1_token_as_it_came() {
        let sent = |text: &str| as_bearer(&HeaderValue::from_str(text).unwrap());
        assert_eq!(sent("Token nbt_abc.def").unwrap(), "Bearer nbt_abc.def");
        assert_eq!(sent("token  nbt_abc.def").unwrap(), "Bearer nbt_abc.def");
        for other in ["Token 0123456789abcdef", "Bearer nbt_abc.def", "Token", "nbt_abc.def"] {
            assert_eq!(sent(other), None, "{other}");
        }
        for secret in ["def", "nbt_abc.def"] {
            assert_eq!(v2_token("abc", secret).expose_secret(), "nbt_abc.def");
        }
    }

    #[test]
    fn links_of_netbox_lead_back_to_the_listener_and_nothing_else_changes() {
        let body = br#"{"next": "http://nb.example/api/dcim/sites/?limit=1&offset=1","results":[{"url":"https://nb.example/api/dcim/sites/1/","comments":"https://nb.example/x","display_url":"https://nb.example/dcim/sites/1/","custom_fields":{"url":"https://nb.example/y"},"region":{"url":"https://nb.example.org/api/"}}]}"#;
        let relinked = relink(body, "nb.example", "http://127.0.0.1:8801").unwrap();
        let wanted = r#"{"next": "http://127.0.0.1:8801/api/dcim/sites/?limit=1&offset=1","results":[{"url":"http://127.0.0.1:8801/api/dcim/sites/1/","comments":"https://nb.example/x","display_url":"https://nb.example/dcim/sites/1/","custom_fields":{"url":"https://nb.example/y"},"region":{"url":"https://nb.example.org/api/"}}]}"#;
        assert_eq!(String::from_utf8(relinked).unwrap(), wanted);
        assert_eq!(relink(br#"{"url":null,"x":"://nb.example/"}"#, "nb.example", "http://l"), None);
    }

    #[test]
    fn only_endpoints_that_were_pushed_get_their_secrets() {
        let page = json!({ "count": 2, "next": null, "results": [
            { "id": 1, "name": "a", "token_name": "old" }, { "id": 2, "name": "b" },
        ] });
        let mut page = SecretJson::from(page);
        let (token_name, token_value) = (Some("t".to_owned()), Some("s".into()));
        let secrets = EndpointSecrets { token_name, token_value, ..EndpointSecrets::default() };
        let known = |id| (id == 1).then(|| secrets.clone());
        assert!(fill_in(&mut page, &known));
        let row = json!({ "id": 1, "name": "a", "token_name": "t", "password": null, "token_value": "s" });
        assert_eq!(*page, json!({ "count": 1, "next": null, "results": [row] }));
        assert!(!fill_in(&mut json!({ "detail": "Invalid token" }).into(), &known));
    }

    #[test]
    fn secrets_are_filled_in_only_at_the_address_that_was_pushed_with_them() {
        let [domain, ip_address] = ["pve.example", "10.0.0.5"].map(|text| Some(text.to_owned()));
        let both = EndpointSecrets { domain, ip_address, port: Some(8006), ..EndpointSecrets::default() };
        let by_address = EndpointSecrets { domain: None, ..both.clone() };
        let address = |address: &str| json!({ "address": address, "family": { "value": 4 } });
        for (pushed, domain, ip_address, port, is_filled) in [
            (&both, json!("pve.example"), address("10.0.0.5/24"), 8006, true),
            (&both, json!(" pve.example "), json!("10.0.0.5"), 8006, true),
            (&both, json!("pve.example"), Value::Null, 8006, true),
            (&both, json!("other.example"), address("10.0.0.5/24"), 8006, false),
            (&both, Value::Null, address("10.0.0.5/24"), 8006, false),
            (&both, json!("pve.example"), address("10.0.0.6/24"), 8006, false),
            (&both, json!("pve.example"), address("10.0.0.5/24"), 8007, false),
            (&by_address, json!(""), address("10.0.0.5/24"), 8006, true),
            (&by_address, json!("other.example"), address("10.0.0.5/24"), 8006, false),
            (&by_address, Value::Null, Value::Null, 8006, false),
        ] {
            let row = json!({ "id": 1, "domain": domain, "ip_address": ip_address, "port": port });
            let mut page = SecretJson::from(json!({ "results": [row.clone()] }));
            assert!(fill_in(&mut page, &|_| Some(pushed.clone())));
            assert_eq!(page["results"].as_array().map(Vec::len), Some(usize::from(is_filled)), "{row}");
        }
    }

    #[test]
    fn endpoints_are_missing_from_a_whole_list_alone() {
        for (query, all) in [
            ("", true),
            ("limit=0", true),
            ("offset=0", true),
            ("limit=50&offset=50", false),
            ("name=pve", false),
        ] {
            assert_eq!(lists_all(query), all, "{query}");
        }
        let page = json!({ "next": null, "results": [{ "id": 1 }, { "id": 3 }] });
        assert_eq!(missing(&page, vec![1, 2, 3]), Some(vec![2]));
        assert_eq!(missing(&json!({ "next": "http://nb/?offset=50", "results": [] }), vec![1]), None);
        assert_eq!(missing(&json!({ "detail": "Not found." }), vec![1]), None);
    }

    #[test]
    fn a_narrowed_custom_field_stays_wide() {
        let held = json!({ "name": "proxmox_last_updated", "object_types": ["dcim.site", "dcim.rack"] });
        let mut written = json!({ "object_types": ["dcim.site"] });
        assert!(widen(&mut written, Some(&held)));
        let types = written["object_types"].as_array().unwrap();
        assert_eq!(types.len(), 15, "what it writes, and what NetBox has: {types:?}");
        assert!(types.contains(&json!("dcim.rack")));
        assert!(!widen(&mut written, Some(&held)), "it is wide already");
        let mut other = json!({ "name": "proxmox_vm_id", "object_types": ["dcim.site"] });
        assert!(!widen(&mut other, Some(&held)));
        assert!(!widen(&mut json!({ "label": "x" }), Some(&held)));
        let mut new = json!({ "name": "proxmox_last_updated", "object_types": [] });
        assert!(widen(&mut new, None), "a field that is created");
    }

    #[test]
    fn sync_processes_are_created_updated_and_listed() {
        let mut kept = SyncProcesses::default();
        let body = json!({ "name": "sync-devices", "status": "not-started", "tags": [1] });
        let row = kept.create(&body, "http://127.0.0.1:8801");
        assert_eq!(row["id"], 1);
        assert_eq!(row["url"], "http://127.0.0.1:8801/api/plugins/proxbox/sync-processes/1/");
        assert_eq!((&row["display"], &row["status"]), (&json!("sync-devices"), &json!("not-started")));
        let updated = kept.update(1, &json!({ "status": "completed", "id": 7 })).unwrap();
        assert_eq!((&updated["id"], &updated["status"]), (&json!(1), &json!("completed")));
        assert_eq!(kept.get(1), Some(updated));
        assert_eq!((kept.get(2), kept.update(2, &json!({}))), (None, None));
        for _ in 0..MAX_ROWS {
            kept.create(&body, "");
        }
        assert_eq!((kept.page()["count"].as_u64(), kept.get(1)), (Some(MAX_ROWS as u64), None));
    }

    #[test]
    fn a_rule_is_for_its_releases_alone_and_for_one_that_is_not_known() {
        for (shim, for_releases, not_for) in [
            (Shim::NetboxToken, &["0.0.30"][..], &[][..]),
            (Shim::CurrentToken, &["0.0.2"], &["0.0.3", ""]),
            (Shim::ProxmoxCredentials, &["0.0.2.post1"], &["0.0.3"]),
            (Shim::CustomFields, &["0.0.1"], &["0.0.2", ""]),
            (Shim::NestedObjects, &["0.0.2.post3"], &["0.0.3", ""]),
            (Shim::SyncProcesses, &["0.0.3"], &["0.0.4"]),
            (Shim::LastUpdated, &["0.0.5", "0.0.7.post1", ""], &["0.0.4", "0.0.8"]),
        ] {
            let rule = NetboxRule::for_shim(shim).unwrap();
            let applies = |release: &&str| rule.applies_to(release.parse().ok());
            assert!(for_releases.iter().all(applies) && !not_for.iter().any(applies), "{shim}");
        }
        assert_eq!(NetboxRule::for_shim(Shim::Health), None);
    }

    #[test]
    fn a_release_needs_the_rules_without_which_its_jobs_fail() {
        let needed = |release: &str| {
            let needed = RULES.iter().filter(|rule| rule.is_needed_by(release.parse().ok()));
            needed.map(|rule| rule.shim).collect::<Vec<_>>()
        };
        assert_eq!(needed("0.0.1"), [Shim::ProxmoxCredentials, Shim::CustomFields, Shim::NestedObjects]);
        assert_eq!(needed("0.0.2.post1"), [Shim::ProxmoxCredentials, Shim::NestedObjects]);
        assert_eq!(needed("0.0.3"), [Shim::SyncProcesses]);
        assert_eq!(needed("0.0.6.post4"), [Shim::LastUpdated]);
        assert_eq!((needed("0.0.4"), needed("0.0.30"), needed("")), (vec![], vec![], vec![]));
    }

    #[test]
    fn only_0_0_1_needs_a_port_of_its_own() {
        let cannot_reach = |patch, port, speaks_tls| {
            cannot_reach(Release::new(0, 0, patch), ListenerAddress { port, speaks_tls })
        };
        let reason = cannot_reach(1, 8803, false).unwrap();
        assert!(reason.contains("only on port 8000") && reason.contains("0.0.2.post1 or newer"), "{reason}");
        assert!(cannot_reach(1, 8000, true).is_some());
        for (patch, port, speaks_tls) in [(1, 8000, false), (1, 8803, true), (2, 8803, false)] {
            assert_eq!(cannot_reach(patch, port, speaks_tls), None);
        }
    }
}
