//! Objects in responses of NetBox that releases before 0.0.3 expect as strings.

use serde_json::{Map, Value};

/// The collections of NetBox with such objects, and the members that are such objects or lists of them.
const TEXTS: [(&str, &[&str]); 5] = [
    (
        "/api/virtualization/interfaces/",
        &[
            "primary_mac_address", "mac_addresses", "mode", "untagged_vlan", "tagged_vlans", "qinq_svlan",
            "vlan_translation_policy", "vrf",
        ],
    ),
    ("/api/ipam/ip-addresses/", &["assigned_object", "vrf", "tenant", "role", "nat_inside"]),
    (
        "/api/dcim/devices/",
        &[
            "platform", "location", "rack", "face", "airflow", "primary_ip", "primary_ip4", "primary_ip6",
            "oob_ip", "virtual_chassis", "config_template",
        ],
    ),
    ("/api/virtualization/virtual-machines/", &["tenant", "config_template"]),
    ("/api/virtualization/clusters/", &["tenant", "scope"]),
];

/// The members that must be strings in the objects at `path`, a collection or one of its objects.
fn texts_at(path: &str) -> &'static [&'static str] {
    let is_at = |collection: &str| {
        let rest = path.strip_prefix(collection).map(|rest| rest.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    TEXTS.iter().find(|(collection, _)| is_at(collection)).map_or(&[], |(_, members)| members)
}

/// Whether responses for `path` may contain objects that must be strings.
pub fn may_nest(path: &str) -> bool {
    !texts_at(path).is_empty()
}

/// Replaces the nested objects in `answer`, NetBox's response for `path`, by strings. It is an object, a list of objects,
/// or a page of them. Returns whether anything changed.
pub fn flatten(path: &str, answer: &mut Value) -> bool {
    let members = texts_at(path);
    let answer = match answer {
        Value::Object(page) if page.contains_key("results") => &mut page["results"],
        answer => answer,
    };
    let rows = match answer {
        Value::Array(rows) => rows.as_mut_slice(),
        row => std::slice::from_mut(row),
    };
    let rows = rows.iter_mut().filter_map(Value::as_object_mut);
    let flatten = |row: &mut Map<String, Value>| {
        members.iter().filter(|member| row.get_mut(**member).is_some_and(flatten_member)).count()
    };
    rows.map(flatten).sum::<usize>() > 0
}

fn flatten_member(member: &mut Value) -> bool {
    match member {
        Value::Array(list) => list.iter_mut().map(flatten_member).fold(false, |any, flat| any | flat),
        // An object has a `display`, a choice a `value`.
        Value::Object(object) => match object.remove("display").or_else(|| object.remove("value")) {
            Some(text) => {
                *member = text;
                true
            }
            None => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mac_addresses_and_the_like_become_texts_in_an_object_and_in_a_page() {
        let mac =
            json!({ "id": 1, "url": "http://nb/api/dcim/mac-addresses/1/", "display": "BC:24:11:00:00:01" });
        let row = json!({ "id": 3, "name": "net0", "primary_mac_address": mac, "mac_addresses": [mac], "vrf": null,
            "mode": { "value": "access", "label": "Access" }, "virtual_machine": { "id": 7, "display": "web01" } });
        let flat = json!({ "id": 3, "name": "net0", "primary_mac_address": "BC:24:11:00:00:01",
            "mac_addresses": ["BC:24:11:00:00:01"], "vrf": null, "mode": "access",
            "virtual_machine": { "id": 7, "display": "web01" } });
        let mut one = row.clone();
        assert!(flatten("/api/virtualization/interfaces/3/", &mut one));
        assert_eq!(one, flat);
        assert!(!flatten("/api/virtualization/interfaces/3/", &mut one), "it is flat already");
        let mut two = json!({ "mac_addresses": [mac, mac], "vrf": null });
        assert!(flatten("/api/virtualization/interfaces/4/", &mut two));
        assert_eq!(two["mac_addresses"], json!(["BC:24:11:00:00:01", "BC:24:11:00:00:01"]));
        let mut page = json!({ "count": 1, "next": null, "results": [row] });
        assert!(flatten("/api/virtualization/interfaces/", &mut page));
        assert_eq!(page, json!({ "count": 1, "next": null, "results": [flat] }));
    }

    #[test]
    fn answers_of_other_paths_stay_as_they_are() {
        for path in ["/api/dcim/interfaces/", "/api/virtualization/interfaces/3/trace/", "/api/status/"] {
            assert!(!may_nest(path), "{path}");
            let mut answer = json!({ "vrf": { "display": "x" } });
            assert!(!flatten(path, &mut answer), "{path}");
        }
        assert!(may_nest("/api/ipam/ip-addresses/"));
        assert!(!flatten("/api/ipam/ip-addresses/", &mut json!({ "detail": "Invalid token" })));
        assert!(!flatten("/api/ipam/ip-addresses/", &mut json!("text")));
    }
}
