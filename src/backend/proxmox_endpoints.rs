//! The Proxmox endpoints that the plugin pushes to a backend that cannot store them. They are kept in memory only.
//!
//! An endpoint is dropped, with its secrets, when the plugin deletes or disables it, when it pushes the same Proxmox
//! under another primary key, when it pushes another NetBox or another token, and when NetBox no longer lists it.
//! The plugin pushes those that are in use before each of its jobs.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::core::compat::netbox::EndpointSecrets;
use crate::core::secret::SecretJson;

/// The endpoints that are enabled, by their primary key in NetBox.
#[derive(Debug, Default)]
pub struct ProxmoxEndpoints(Mutex<BTreeMap<u64, StoredEndpoint>>);

/// How many are kept of one backend.
const MAX_ENDPOINTS: usize = 256;
/// What is shown of an endpoint beside its id and its name. Nothing of it is secret.
const PUBLIC_FIELDS: [&str; 11] = [
    "ip_address", "domain", "port", "username", "verify_ssl", "enabled", "token_name", "access_methods",
    "timeout", "max_retries", "retry_backoff",
];

#[derive(Debug)]
struct StoredEndpoint {
    row: Map<String, Value>,
    password: Option<SecretString>,
    token_value: Option<SecretString>,
}

impl ProxmoxEndpoints {
    /// Answers a request for the collection, or for the endpoint with `id`, in the backend's place; `pushed` is its body.
    pub fn handle(&self, method: &Method, id: &str, pushed: &SecretJson) -> (StatusCode, Value) {
        let mut endpoints = self.0.lock();
        let not_allowed = || detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        if id.is_empty() {
            return match *method {
                Method::GET => {
                    (StatusCode::OK, endpoints.values().map(StoredEndpoint::to_public_json).collect())
                }
                Method::POST => push(&mut endpoints, None, pushed),
                _ => not_allowed(),
            };
        }
        let Some(id) = id.parse::<u64>().ok().filter(|id| endpoints.contains_key(id)) else {
            return detail(StatusCode::NOT_FOUND, "Proxmox endpoint not found");
        };
        match *method {
            Method::DELETE => {
                endpoints.remove(&id);
                (StatusCode::OK, json!({ "message": "Proxmox endpoint deleted." }))
            }
            Method::GET => {
                (StatusCode::OK, endpoints.get(&id).map_or(Value::Null, StoredEndpoint::to_public_json))
            }
            Method::PUT | Method::PATCH => push(&mut endpoints, Some(id), pushed),
            _ => not_allowed(),
        }
    }

    /// Their primary keys.
    pub fn keys(&self) -> Vec<u64> {
        self.0.lock().keys().copied().collect()
    }

    /// Forgets those with the primary `keys`.
    pub fn forget(&self, keys: &[u64]) {
        self.0.lock().retain(|id, _| !keys.contains(id));
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// The names of those that have nothing to log in to Proxmox with.
    pub fn without_secrets(&self) -> Vec<String> {
        let endpoints = self.0.lock();
        let lacking = endpoints.values().filter(|one| one.password.is_none() && one.token_value.is_none());
        lacking.map(|endpoint| endpoint.row["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The secrets of the endpoint with the primary key `id`.
    pub fn secrets(&self, id: u64) -> Option<EndpointSecrets> {
        let endpoints = self.0.lock();
        let endpoint = endpoints.get(&id)?;
        Some(EndpointSecrets {
            domain: endpoint.domain().map(str::to_owned),
            ip_address: endpoint.ip_address().map(str::to_owned),
            port: endpoint.row.get("port").and_then(Value::as_u64),
            password: endpoint.password.clone(),
            token_name: endpoint.row.get("token_name").and_then(Value::as_str).map(str::to_owned),
            token_value: endpoint.token_value.clone(),
        })
    }

    /// The parameter, name and value, by which 0.0.2 logs in to the endpoints with the primary `keys` and to no other.
    /// `None` if these are all that there are of several: without a parameter it logs in to all.
    pub fn selector(&self, keys: &[u64]) -> Result<Option<(&'static str, String)>, Unselectable> {
        let endpoints = self.0.lock();
        if endpoints.is_empty() {
            return Err(Unselectable::NothingPushed);
        }
        if let Some(missing) = keys.iter().find(|key| !endpoints.contains_key(key)) {
            return Err(Unselectable::Unknown(*missing));
        }
        let [key] = keys else {
            let is_every = endpoints.keys().all(|key| keys.contains(key));
            return if is_every { Ok(None) } else { Err(Unselectable::Several) };
        };
        // It takes the first of its endpoints with that value.
        let select = |name: &'static str, address: fn(&StoredEndpoint) -> Option<&str>| {
            let value = address(endpoints.get(key)?)?;
            let is_unique = endpoints.iter().all(|(other, one)| other == key || address(one) != Some(value));
            is_unique.then(|| (name, value.to_owned()))
        };
        let selected = select("domain", StoredEndpoint::domain)
            .or_else(|| select("ip_address", StoredEndpoint::ip_address));
        selected.map(Some).ok_or(Unselectable::SameAddress)
    }
}

/// Why a sync of 0.0.2 cannot be limited to the selected Proxmox endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unselectable {
    /// The bridge knows no endpoint: the plugin has not pushed one since the bridge started.
    NothingPushed,
    /// It does not know the one with this primary key.
    Unknown(u64),
    /// They are more than one, and there are others.
    Several,
    /// Another one has the same domain and the same IP address.
    SameAddress,
}

impl StoredEndpoint {
    fn new(id: u64) -> Self {
        let row = Map::from_iter([("id".to_owned(), json!(id))]);
        Self { row, password: None, token_value: None }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.row.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
    }

    fn domain(&self) -> Option<&str> {
        self.text("domain").map(str::trim)
    }

    /// The IP address without the length of its prefix.
    fn ip_address(&self) -> Option<&str> {
        self.text("ip_address")?.split('/').next()
    }

    /// Whether both lead to the same Proxmox.
    fn is_same(&self, other: &Self) -> bool {
        let is_same_domain = self.domain().is_some() && self.domain() == other.domain();
        let is_same_address = self.ip_address().is_some() && self.ip_address() == other.ip_address();
        (is_same_domain || is_same_address) && self.row.get("port") == other.row.get("port")
    }

    fn to_public_json(&self) -> Value {
        Value::Object(self.row.clone())
    }

    /// Takes what is pushed; what is not mentioned stays. Secrets that are replaced are zeroed.
    fn apply(&mut self, pushed: &Map<String, Value>) {
        let shown = ["name"].iter().chain(&PUBLIC_FIELDS).filter(|name| pushed.get(**name).is_some());
        self.row.extend(shown.map(|name| ((*name).to_owned(), pushed[*name].clone())));
        let secrets = [("password", &mut self.password), ("token_value", &mut self.token_value)];
        for (name, secret) in secrets {
            if let Some(pushed) = pushed.get(name) {
                *secret = pushed.as_str().filter(|text| !text.is_empty()).map(SecretString::from);
            }
        }
        self.row.insert("allow_packer_template_builds".to_owned(), json!(false));
    }
}

/// Stores what is pushed of a new endpoint, or of the `known` one with this primary key, unless it is disabled.
fn push(
    endpoints: &mut BTreeMap<u64, StoredEndpoint>,
    known: Option<u64>,
    pushed: &SecretJson,
) -> (StatusCode, Value) {
    let (pushed, key) = match checked(pushed) {
        Ok(checked) => checked,
        Err(why) => return detail(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let Some(key) = key.or(known) else {
        let text = "The name must end in the primary key of the endpoint in NetBox, as in \"pve (nb:1)\": by that \
                    proxbox-api 0.0.1 and 0.0.2 find it there.";
        return detail(StatusCode::UNPROCESSABLE_ENTITY, text);
    };
    if known.is_none() && endpoints.contains_key(&key) {
        return detail(StatusCode::BAD_REQUEST, "Proxmox endpoint name already exists");
    }
    // Secrets do not go over to another endpoint of NetBox.
    let before = known.and_then(|known| endpoints.remove(&known)).filter(|_| known == Some(key));
    let mut endpoint = before.unwrap_or_else(|| StoredEndpoint::new(key));
    endpoint.apply(pushed);
    let shown = endpoint.to_public_json();
    if endpoint.row.get("enabled") == Some(&json!(false)) {
        endpoints.remove(&key);
        return (StatusCode::OK, shown);
    }
    endpoints.retain(|other, known| *other == key || !known.is_same(&endpoint));
    if endpoints.len() >= MAX_ENDPOINTS && !endpoints.contains_key(&key) {
        return detail(StatusCode::UNPROCESSABLE_ENTITY, "The bridge keeps no more Proxmox endpoints.");
    }
    endpoints.insert(key, endpoint);
    (StatusCode::OK, shown)
}

/// The fields of what is pushed, and the primary key in a name such as `pve (nb:1)`, or what is wrong with it.
fn checked(pushed: &SecretJson) -> Result<(&Map<String, Value>, Option<u64>), &'static str> {
    let fields = pushed.as_object().ok_or("The body must be a JSON object.")?;
    let is_text = |name: &&str| fields.get(*name).is_none_or(|value| value.is_string() || value.is_null());
    if !["name", "password", "token_value"].iter().all(is_text) {
        return Err("name, password and token_value must be strings or null.");
    }
    let name = fields.get("name").and_then(Value::as_str).and_then(|name| name.trim_end().strip_suffix(')'));
    Ok((fields, name.and_then(|name| name.rsplit_once("(nb:")?.1.parse().ok())))
}

fn detail(status: StatusCode, detail: &str) -> (StatusCode, Value) {
    (status, json!({ "detail": detail }))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn exposed(secrets: &EndpointSecrets) -> [Option<&str>; 2] {
        let secrets = [&secrets.password, &secrets.token_value];
        secrets.map(|secret| secret.as_ref().map(|text| text.expose_secret()))
    }

    fn sent(text: &str) -> SecretJson {
        SecretJson::parse(text.as_bytes()).unwrap_or_default()
    }

    /// The status of the answer to `pushed`.
    fn push(kept: &ProxmoxEndpoints, pushed: &SecretJson) -> StatusCode {
        kept.handle(&Method::POST, "", pushed).0
    }

    const ROW: &str = r#"{ "name": "pve (nb:7)", "ip_address": "10.0.0.5", "domain": "pve.example", "port": 8006,
        "username": "root@pam", "password": "p4ss", "token_name": "t", "token_value": "v4lue", "verify_ssl": false,
        "enabled": true, "site_id": 3 }"#;

    #[test]
    fn what_is_pushed_is_shown_without_secrets_and_can_be_changed_and_deleted() {
        let kept = ProxmoxEndpoints::default();
        let (status, row) = kept.handle(&Method::POST, "", &sent(ROW));
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            (&row["id"], &row["name"], &row["domain"]),
            (&json!(7), &json!("pve (nb:7)"), &json!("pve.example"))
        );
        assert_eq!(push(&kept, &sent(ROW)), StatusCode::BAD_REQUEST, "it is there");
        for (method, id) in [(&Method::GET, ""), (&Method::GET, "7")] {
            let (_, shown) = kept.handle(method, id, &sent(""));
            assert!(!shown.to_string().contains("p4ss") && !shown.to_string().contains("v4lue"));
        }
        let secrets = kept.secrets(7).unwrap();
        assert_eq!(exposed(&secrets), [Some("p4ss"), Some("v4lue")]);
        assert_eq!(secrets.token_name.as_deref(), Some("t"));
        kept.handle(&Method::PUT, "7", &sent(r#"{ "password": null, "port": 8007 }"#));
        let changed = kept.secrets(7).unwrap();
        assert_eq!(exposed(&changed), [None, Some("v4lue")], "what is left out stays");
        kept.handle(&Method::PUT, "7", &sent(r#"{ "enabled": false }"#));
        assert!(kept.secrets(7).is_none() && kept.keys().is_empty(), "it is forgotten with its secrets");
        kept.handle(&Method::POST, "", &sent(r#"{ "name": "pve (nb:7)", "enabled": true }"#));
        assert_eq!(exposed(&kept.secrets(7).unwrap()), [None, None], "none is left of those before");
        assert_eq!(kept.handle(&Method::DELETE, "7", &sent("")).0, StatusCode::OK);
        assert_eq!(kept.handle(&Method::GET, "7", &sent("")).0, StatusCode::NOT_FOUND);
        assert!(!format!("{kept:?}").contains("v4lue"));
    }

    #[test]
    fn endpoints_without_secrets_are_named() {
        let kept = ProxmoxEndpoints::default();
        for body in [
            r#"{ "name": "token (nb:1)", "token_value": "v4lue" }"#,
            r#"{ "name": "password (nb:2)", "password": "p4ss" }"#,
            r#"{ "name": "bare (nb:3)", "password": null, "token_value": null }"#,
            r#"{ "name": "empty (nb:4)", "password": "", "token_value": "" }"#,
        ] {
            assert_eq!(push(&kept, &sent(body)), StatusCode::OK, "{body}");
        }
        assert_eq!(
            (kept.count(), kept.without_secrets()),
            (4, ["bare (nb:3)", "empty (nb:4)"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn an_endpoint_is_known_by_its_primary_key_in_netbox() {
        let kept = ProxmoxEndpoints::default();
        let typed = r#"{ "name": "pve (nb:1)", "password": 1 }"#;
        for body in [r#"{ "name": "pve" }"#, r#"{ "name": "pve (nb:x)" }"#, typed, "[]", ""] {
            assert_eq!(push(&kept, &sent(body)), StatusCode::UNPROCESSABLE_ENTITY);
        }
        for id in ["1", "x", "-1"] {
            assert_eq!(kept.handle(&Method::GET, id, &sent("")).0, StatusCode::NOT_FOUND);
        }
        assert_eq!(kept.handle(&Method::DELETE, "", &sent("")).0, StatusCode::METHOD_NOT_ALLOWED);
    }

    fn endpoint(key: u64, domain: &str, ip_address: &str, port: u16) -> SecretJson {
        let name = format!("pve (nb:{key})");
        let row = json!({ "name": name, "domain": domain, "ip_address": ip_address, "port": port, "password": "p4ss" });
        row.into()
    }

    #[test]
    fn an_endpoint_that_is_pushed_under_another_primary_key_is_forgotten_under_the_one_before() {
        let kept = ProxmoxEndpoints::default();
        for (key, domain, ip_address, port) in
            [(7, "pve.example", "10.0.0.5", 8006), (8, "", "10.0.0.6/24", 8006), (9, "", "10.0.0.6", 8007)]
        {
            assert_eq!(push(&kept, &endpoint(key, domain, ip_address, port)), StatusCode::OK);
        }
        push(&kept, &endpoint(17, "pve.example", "10.0.0.7", 8006));
        push(&kept, &endpoint(18, "", "10.0.0.6", 8006));
        assert_eq!(kept.keys(), [9, 17, 18], "another port is another Proxmox");
        let renamed =
            sent(r#"{ "name": "pve (nb:10)", "domain": "", "ip_address": "10.0.0.6", "port": 8007 }"#);
        let (status, row) = kept.handle(&Method::PUT, "9", &renamed);
        assert_eq!((status, &row["id"]), (StatusCode::OK, &json!(10)));
        assert_eq!(kept.keys(), [10, 17, 18]);
        assert_eq!(exposed(&kept.secrets(10).unwrap()), [None, None], "its secrets are those that it brings");
        kept.forget(&[10, 18]);
        assert_eq!(kept.keys(), [17]);
    }

    #[test]
    fn an_endpoint_is_selected_by_an_address_that_no_other_has() {
        let kept = ProxmoxEndpoints::default();
        assert_eq!(kept.selector(&[7]), Err(Unselectable::NothingPushed));
        push(&kept, &endpoint(7, "pve.example", "10.0.0.5/24", 8006));
        let by_domain = Ok(Some(("domain", "pve.example".to_owned())));
        assert_eq!(kept.selector(&[7]), by_domain, "another one may be pushed while the job waits");
        push(&kept, &endpoint(8, "pve.example", "10.0.0.6/24", 8007));
        push(&kept, &endpoint(9, "", "10.0.0.9", 8006));
        push(&kept, &endpoint(10, "", "10.0.0.9/24", 8007));
        assert_eq!(kept.selector(&[7]), Ok(Some(("ip_address", "10.0.0.5".to_owned()))));
        assert_eq!(kept.selector(&[9]), Err(Unselectable::SameAddress));
        assert_eq!(kept.selector(&[7, 8]), Err(Unselectable::Several));
        assert_eq!(kept.selector(&[7, 11]), Err(Unselectable::Unknown(11)));
        assert_eq!(kept.selector(&[7, 8, 9, 10]), Ok(None));
    }
}
