//! The NetBox and Proxmox rows in a backend's database, which the plugin pushes before every job.

use core::net::{IpAddr, SocketAddr};

use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::core::domain::release::Release;
use crate::core::secret::SecretJson;

/// Fields that no answer may contain.
const SECRETS: [&str; 3] = ["token", "password", "token_value"];
/// The version of a NetBox token.
const TOKEN_VERSION: &str = "token_version";
/// The token version before NetBox 4.5, and the only one that old releases support.
pub const V1: &str = "v1";
/// The fields of the NetBox row in 0.0.2, without its id.
const NETBOX_ROW: [&str; 6] = ["name", "ip_address", "domain", "port", "token", "verify_ssl"];

const FIRST_WITH_TOKEN_VERSION: Release = Release::new(0, 0, 3);
const FIRST_WITH_ENABLED: Release = Release::new(0, 0, 14);
const FIRST_WITHOUT_SECRETS: Release = Release::new(0, 0, 7);

/// Whether `release` has an updatable NetBox row with a token version.
pub fn can_update_netbox(release: Release) -> bool {
    release >= FIRST_WITH_TOKEN_VERSION
}

/// Whether `release` stores Proxmox endpoints at all.
pub fn stores_proxmox(release: Release) -> bool {
    release >= FIRST_WITH_TOKEN_VERSION
}

/// Whether `release` supports disabling a Proxmox endpoint.
pub fn knows_enabled(release: Release) -> bool {
    release >= FIRST_WITH_ENABLED
}

/// Whether `release` exposes tokens and passwords in its answers.
pub fn shows_secrets(release: Release) -> bool {
    release < FIRST_WITHOUT_SECRETS
}

/// Removes tokens and passwords from a row or a list of rows. Returns whether there were any.
pub fn redact(answer: &mut Value) -> bool {
    let take = |row: &mut Map<String, Value>| {
        SECRETS.iter().filter_map(|name| row.remove(*name)).map(SecretJson::from).count()
    };
    // 0.0.1 also returns the NetBox row as the `config` of a larger answer.
    let inner = answer.get_mut("config").map(|config| rows(config).map(take).sum::<usize>());
    rows(answer).map(take).sum::<usize>() + inner.unwrap_or_default() > 0
}

/// The secrets of the row `pushed` by a request with `method` that was answered with `status`, if the row was stored. What
/// else a client sends is not remembered: it could displace the secrets of others, or hide any word.
pub fn stored_secrets(method: &Method, status: StatusCode, pushed: &Value) -> Vec<SecretString> {
    let is_stored = [Method::POST, Method::PUT, Method::PATCH].contains(method) && status.is_success();
    let secrets = SECRETS.iter().filter(|_| is_stored).filter_map(|name| pushed.get(*name)?.as_str());
    secrets.map(SecretString::from).collect()
}

/// Applies `change` to a row or to each row of a list. Returns whether any row changed.
pub fn change_rows(answer: &mut Value, change: impl Fn(&mut Map<String, Value>) -> bool) -> bool {
    rows(answer).filter_map(|row| change(row).then_some(())).count() > 0
}

/// Adds the token version to rows without one. Returns whether there were any.
pub fn add_token_version(answer: &mut Value) -> bool {
    let lacking = rows(answer).filter(|row| !row.contains_key(TOKEN_VERSION) && row.contains_key("id"));
    lacking.map(|row| row.insert(TOKEN_VERSION.to_owned(), V1.into())).count() > 0
}

fn rows(answer: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let rows = match answer {
        Value::Array(rows) => rows.as_mut_slice(),
        one => std::slice::from_mut(one),
    };
    rows.iter_mut().filter_map(Value::as_object_mut)
}

/// Whether the pushed token has a version that releases without [`can_update_netbox`] do not support.
pub fn has_new_token(pushed: &Value) -> bool {
    pushed[TOKEN_VERSION].as_str().is_some_and(|version| version != V1)
}

/// Whether the row of 0.0.2 has the same address as the pushed row.
pub fn is_same_address(row: &Value, pushed: &Value) -> bool {
    ["ip_address", "port", "verify_ssl"].iter().all(|name| row[*name] == pushed[*name])
}

/// Whether a backend's `row` of NetBox has the address of the NetBox listener at `listen`, in one of the forms that
/// releases are given.
pub fn leads_to_listener(row: &Map<String, Value>, listen: SocketAddr) -> bool {
    let is = |name: &str, value: Value| row.get(name) == Some(&value);
    let has_host = |host: String| is("ip_address", json!(host));
    (has_host(plain_host(listen)) || has_host(host_in_url(listen))) && is("port", json!(listen.port()))
}

/// The address of the NetBox listener at `listen`.
pub fn plain_host(listen: SocketAddr) -> String {
    listen.ip().to_canonical().to_string()
}

/// The same as it stands in a URL.
pub fn host_in_url(listen: SocketAddr) -> String {
    match listen.ip().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Whether the row of 0.0.2 already equals the pushed row.
pub fn is_same(row: &Value, pushed: &Value) -> bool {
    NETBOX_ROW.iter().all(|name| {
        let default = if *name == "verify_ssl" { Value::Bool(true) } else { Value::Null };
        let [row, pushed] = [row, pushed].map(|row| match &row[*name] {
            Value::Null => &default,
            value => value,
        });
        row == pushed
    })
}

/// The new row for 0.0.2, without unsupported fields.
pub fn netbox_row(pushed: &Value) -> Value {
    let fields = NETBOX_ROW.iter().filter_map(|name| Some(((*name).to_owned(), pushed.get(name)?.clone())));
    Value::Object(fields.collect())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_secrets_of_a_row_are_remembered_once_it_is_stored() {
        let pushed = json!({ "name": "pve", "password": "p", "token_value": null, "token": "t", "secret": "completed",
                             "nested": [{ "password": "started" }] });
        for (method, status, wanted) in [
            (Method::POST, StatusCode::OK, &["t", "p"][..]),
            (Method::PUT, StatusCode::OK, &["t", "p"]),
            (Method::PATCH, StatusCode::CREATED, &["t", "p"]),
            (Method::GET, StatusCode::OK, &[]),
            (Method::DELETE, StatusCode::OK, &[]),
            (Method::POST, StatusCode::UNPROCESSABLE_ENTITY, &[]),
        ] {
            let secrets = stored_secrets(&method, status, &pushed);
            let secrets: Vec<&str> = secrets.iter().map(ExposeSecret::expose_secret).collect();
            assert_eq!(secrets, wanted, "{method} {status}");
        }
    }

    #[test]
    fn secrets_are_taken_out_of_one_row_and_of_many() {
        let mut one = json!({ "id": 1, "token": "s", "name": "netbox" });
        assert!(redact(&mut one));
        assert_eq!(one, json!({ "id": 1, "name": "netbox" }));
        let mut many =
            json!([{ "id": 1, "password": "s", "token_value": "t", "token_name": "n" }, { "id": 2 }]);
        assert!(redact(&mut many));
        assert_eq!(many, json!([{ "id": 1, "token_name": "n" }, { "id": 2 }]));
        assert!(!redact(&mut many));
        let mut nested = json!({ "config": { "domain": "nb", "token": "s" }, "status": {} });
        assert!(redact(&mut nested));
        assert_eq!(nested, json!({ "config": { "domain": "nb" }, "status": {} }));
        assert!(!redact(&mut json!("text")));
    }

    #[test]
    fn a_row_that_does_not_say_its_token_version_has_the_old_one() {
        let mut rows = json!([{ "id": 1 }, { "id": 2, "token_version": "v2" }]);
        assert!(add_token_version(&mut rows));
        assert_eq!(rows, json!([{ "id": 1, "token_version": "v1" }, { "id": 2, "token_version": "v2" }]));
        assert!(!add_token_version(&mut json!({ "detail": "Netbox Endpoint not found" })));
    }

    #[test]
    fn a_row_leads_to_the_listener_in_each_form_of_its_address() {
        for (listen, host, leads) in [
            ("127.0.0.1:8801", "127.0.0.1", true),
            ("[::1]:8801", "::1", true),
            ("[::1]:8801", "[::1]", true),
            ("[::ffff:192.0.2.1]:8801", "192.0.2.1", true),
            ("127.0.0.1:8802", "127.0.0.1", false),
            ("127.0.0.2:8801", "127.0.0.1", false),
        ] {
            let row = json!({ "ip_address": host, "port": 8801 });
            let is_there = leads_to_listener(row.as_object().unwrap(), listen.parse().unwrap());
            assert_eq!(is_there, leads, "{listen} {host}");
        }
    }

    #[test]
    fn a_push_is_compared_with_what_0_0_2_stores() {
        let row = json!({
            "id": 1, "name": "netbox", "ip_address": "127.0.0.1", "domain": "nb", "port": 80, "token": "t",
            "verify_ssl": false
        });
        let mut pushed = row.clone();
        pushed["token_version"] = json!("v1");
        pushed["token_key"] = Value::Null;
        assert!(is_same(&row, &pushed) && !has_new_token(&pushed));
        pushed["token"] = json!("u");
        assert!(!is_same(&row, &pushed));
        pushed["token_version"] = json!("v2");
        assert!(has_new_token(&pushed));
        let kept = netbox_row(&pushed);
        assert_eq!(kept.as_object().map(Map::len), Some(6), "{kept}");
        assert_eq!(kept["token"], "u");
    }

    #[test]
    fn what_0_0_2_does_not_store_is_taken_for_the_default() {
        let row = json!({ "name": "netbox", "ip_address": "127.0.0.1", "port": 80, "verify_ssl": true });
        let without = json!({ "name": "netbox", "ip_address": "127.0.0.1", "port": 80 });
        assert!(is_same(&row, &without), "a certificate is verified unless something else is said");
        let mut pushed = row.clone();
        pushed["domain"] = json!("nb");
        assert!(!is_same(&row, &pushed) && is_same_address(&row, &pushed));
        for (name, value) in
            [("ip_address", json!("127.0.0.2")), ("port", json!(81)), ("verify_ssl", json!(false))]
        {
            let mut moved = row.clone();
            moved[name] = value;
            assert!(!is_same_address(&row, &moved), "{name}");
        }
    }

    #[test]
    fn a_response_reports_whether_one_of_its_rows_was_changed() {
        let mut answer = json!([{ "id": 1 }, { "id": 2 }]);
        assert!(change_rows(&mut answer, |row| row.remove("id") == Some(json!(2))));
        assert!(!change_rows(&mut answer, |_| false));
    }

    #[test]
    fn what_a_row_can_hold_begins_with_its_release() {
        let release = |text: &str| text.parse::<Release>().unwrap();
        assert!(!can_update_netbox(release("0.0.2.post3")) && can_update_netbox(release("0.0.3")));
        assert!(!knows_enabled(release("0.0.13")) && knows_enabled(release("0.0.14")));
        assert!(shows_secrets(release("0.0.6.post4")) && !shows_secrets(release("0.0.7")));
    }
}
