//! The Proxmox endpoints that the plugin pushes to a backend that cannot store them. They are in memory alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::core::compat::netbox::Secrets;
use crate::core::secret::SecretJson;

/// The endpoints, by their primary key in NetBox.
#[derive(Debug, Default)]
pub struct ProxmoxEndpoints(Mutex<BTreeMap<u64, Endpoint>>);

/// How many are kept of one backend.
const MOST: usize = 256;
/// What is shown of an endpoint beside its id and its name. Nothing of it is secret.
const SHOWN: [&str; 11] = [
    "ip_address",
    "domain",
    "port",
    "username",
    "verify_ssl",
    "enabled",
    "token_name",
    "access_methods",
    "timeout",
    "max_retries",
    "retry_backoff",
];

#[derive(Debug)]
struct Endpoint {
    row: Map<String, Value>,
    password: Option<SecretString>,
    token_value: Option<SecretString>,
}

impl ProxmoxEndpoints {
    /// Answers a request for the collection, or for the endpoint with `id`, in the backend's place; `pushed` is its body.
    pub fn answer(&self, method: &Method, id: &str, pushed: &SecretJson) -> (StatusCode, Value) {
        let mut endpoints = self.endpoints();
        if id.is_empty() {
            return match *method {
                Method::GET => (StatusCode::OK, endpoints.values().map(Endpoint::shown).collect()),
                Method::POST => create(&mut endpoints, pushed),
                _ => detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
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
            Method::GET => (StatusCode::OK, endpoints.get(&id).map_or(Value::Null, Endpoint::shown)),
            Method::PUT | Method::PATCH => update(&mut endpoints, id, pushed),
            _ => detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
        }
    }

    /// The primary keys of those that are enabled.
    pub fn enabled(&self) -> Vec<u64> {
        let endpoints = self.endpoints();
        endpoints.iter().filter(|(_, endpoint)| endpoint.is_enabled()).map(|(id, _)| *id).collect()
    }

    /// The secrets of the endpoint with the primary key `id`, if it is enabled.
    pub fn secrets(&self, id: u64) -> Option<Secrets> {
        let endpoints = self.endpoints();
        let endpoint = endpoints.get(&id).filter(|endpoint| endpoint.is_enabled())?;
        Some(Secrets {
            password: endpoint.password.clone(),
            token_name: endpoint.row.get("token_name").and_then(Value::as_str).map(str::to_owned),
            token_value: endpoint.token_value.clone(),
        })
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<u64, Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    fn is_enabled(&self) -> bool {
        self.row.get("enabled").and_then(Value::as_bool).unwrap_or(true)
    }

    fn shown(&self) -> Value {
        Value::Object(self.row.clone())
    }

    /// Takes what is pushed; what is not mentioned stays. Secrets that are replaced are zeroed.
    fn take(&mut self, pushed: &Map<String, Value>) {
        let shown = ["name"].iter().chain(&SHOWN).filter(|name| pushed.get(**name).is_some());
        self.row.extend(shown.map(|name| ((*name).to_owned(), pushed[*name].clone())));
        let secrets = [("password", &mut self.password), ("token_value", &mut self.token_value)];
        for (name, secret) in secrets {
            if let Some(pushed) = pushed.get(name) {
                *secret = pushed.as_str().map(SecretString::from);
            }
        }
        self.row.insert("allow_packer_template_builds".to_owned(), json!(false));
    }
}

fn create(endpoints: &mut BTreeMap<u64, Endpoint>, pushed: &SecretJson) -> (StatusCode, Value) {
    let pushed = match checked(pushed) {
        Ok(pushed) => pushed,
        Err(why) => return detail(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let Some(id) = pushed.get("name").and_then(Value::as_str).and_then(primary_key) else {
        let text = "The name must end in the primary key of the endpoint in NetBox, as in \"pve (nb:1)\": by that \
                    proxbox-api 0.0.2 finds it there.";
        return detail(StatusCode::UNPROCESSABLE_ENTITY, text);
    };
    if endpoints.len() >= MOST {
        return detail(StatusCode::UNPROCESSABLE_ENTITY, "The bridge keeps no more Proxmox endpoints.");
    }
    if endpoints.contains_key(&id) {
        return detail(StatusCode::BAD_REQUEST, "Proxmox endpoint name already exists");
    }
    let mut endpoint = Endpoint { row: Map::new(), password: None, token_value: None };
    endpoint.row.insert("id".to_owned(), json!(id));
    endpoint.take(pushed);
    let shown = endpoint.shown();
    endpoints.insert(id, endpoint);
    (StatusCode::OK, shown)
}

fn update(endpoints: &mut BTreeMap<u64, Endpoint>, id: u64, pushed: &SecretJson) -> (StatusCode, Value) {
    let pushed = match checked(pushed) {
        Ok(pushed) => pushed,
        Err(why) => return detail(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let Some(endpoint) = endpoints.get_mut(&id) else {
        return detail(StatusCode::NOT_FOUND, "Proxmox endpoint not found");
    };
    endpoint.take(pushed);
    (StatusCode::OK, endpoint.shown())
}

/// The fields of what is pushed.
///
/// # Errors
///
/// What is wrong with it.
fn checked(pushed: &SecretJson) -> Result<&Map<String, Value>, &'static str> {
    let fields = pushed.as_object().ok_or("The body must be a JSON object.")?;
    let is_text = |name: &&str| fields.get(*name).is_none_or(|value| value.is_string() || value.is_null());
    let are_texts = ["name", "password", "token_value"].iter().all(is_text);
    if are_texts { Ok(fields) } else { Err("name, password and token_value must be strings or null.") }
}

/// The primary key in a name such as `pve (nb:1)`.
fn primary_key(name: &str) -> Option<u64> {
    let (_, key) = name.trim_end().strip_suffix(')')?.rsplit_once("(nb:")?;
    key.parse().ok()
}

fn detail(status: StatusCode, detail: &str) -> (StatusCode, Value) {
    (status, json!({ "detail": detail }))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn exposed(secrets: &Secrets) -> (Option<&str>, Option<&str>) {
        let [password, token_value] = [&secrets.password, &secrets.token_value];
        (
            password.as_ref().map(|text| text.expose_secret()),
            token_value.as_ref().map(|text| text.expose_secret()),
        )
    }

    fn sent(text: &str) -> SecretJson {
        SecretJson::parse(text.as_bytes()).unwrap_or_default()
    }

    const ROW: &str = r#"{ "name": "pve (nb:7)", "ip_address": "10.0.0.5", "domain": "pve.example", "port": 8006,
        "username": "root@pam", "password": "p4ss", "token_name": "t", "token_value": "v4lue", "verify_ssl": false,
        "enabled": true, "site_id": 3 }"#;

    #[test]
    fn what_is_pushed_is_shown_without_secrets_and_can_be_changed_and_deleted() {
        let kept = ProxmoxEndpoints::default();
        let (status, row) = kept.answer(&Method::POST, "", &sent(ROW));
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            (&row["id"], &row["name"], &row["domain"]),
            (&json!(7), &json!("pve (nb:7)"), &json!("pve.example"))
        );
        assert_eq!(kept.answer(&Method::POST, "", &sent(ROW)).0, StatusCode::BAD_REQUEST, "it is there");
        for (method, id) in [(&Method::GET, ""), (&Method::GET, "7")] {
            let (_, shown) = kept.answer(method, id, &sent(""));
            assert!(!shown.to_string().contains("p4ss") && !shown.to_string().contains("v4lue"));
        }
        let secrets = kept.secrets(7).unwrap();
        assert_eq!(exposed(&secrets), (Some("p4ss"), Some("v4lue")));
        assert_eq!(secrets.token_name.as_deref(), Some("t"));
        kept.answer(&Method::PUT, "7", &sent(r#"{ "password": null, "port": 8007 }"#));
        let changed = kept.secrets(7).unwrap();
        assert_eq!(exposed(&changed), (None, Some("v4lue")), "what is left out stays");
        kept.answer(&Method::PUT, "7", &sent(r#"{ "enabled": false }"#));
        assert!(kept.secrets(7).is_none() && kept.enabled().is_empty());
        assert_eq!(kept.answer(&Method::DELETE, "7", &sent("")).0, StatusCode::OK);
        assert_eq!(kept.answer(&Method::GET, "7", &sent("")).0, StatusCode::NOT_FOUND);
        assert!(!format!("{kept:?}").contains("v4lue"));
    }

    #[test]
    fn an_endpoint_is_known_by_its_primary_key_in_netbox() {
        let kept = ProxmoxEndpoints::default();
        let typed = r#"{ "name": "pve (nb:1)", "password": 1 }"#;
        for body in [r#"{ "name": "pve" }"#, r#"{ "name": "pve (nb:x)" }"#, typed, "[]", ""] {
            assert_eq!(kept.answer(&Method::POST, "", &sent(body)).0, StatusCode::UNPROCESSABLE_ENTITY);
        }
        for id in ["1", "x", "-1"] {
            assert_eq!(kept.answer(&Method::GET, id, &sent("")).0, StatusCode::NOT_FOUND);
        }
        assert_eq!(kept.answer(&Method::DELETE, "", &sent("")).0, StatusCode::METHOD_NOT_ALLOWED);
    }
}
