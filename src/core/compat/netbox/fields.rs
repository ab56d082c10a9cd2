//! The custom fields of virtual machines that 0.0.1 needs but fails to create.

use serde_json::{Value, json};

use super::CUSTOM_FIELDS;
use crate::core::compat::scope::parameters;

/// Name, type, label, description and `ui_visible` of each field, as the release defines them.
const FIELDS: [(&str, &str, &str, &str, &str); 5] = [
    ("proxmox_vm_id", "integer", "VM ID", "Proxmox Virtual Machine or Container ID", "always"),
    ("proxmox_start_at_boot", "boolean", "Start at Boot", "Proxmox Start at Boot Option", "always"),
    (
        "proxmox_unprivileged_container", "boolean", "Unprivileged Container",
        "Proxmox Unprivileged Container", "if-set",
    ),
    ("proxmox_qemu_agent", "boolean", "QEMU Guest Agent", "Proxmox QEMU Guest Agent", "if-set"),
    ("proxmox_search_domain", "text", "Search Domain", "Proxmox Search Domain", "if-set"),
];

/// The definition of the custom field that a GET of `path` with `query` searches for; `None` if the release does not
/// need it.
pub fn wanted(path: &str, query: &str) -> Option<Value> {
    if path != CUSTOM_FIELDS {
        return None;
    }
    let (_, name) = parameters(query).find(|(name, _)| name == "name")?;
    let (name, field_type, label, description, visible) = FIELDS.into_iter().find(|field| field.0 == name)?;
    Some(json!({
        "object_types": ["virtualization.virtualmachine"],
        "type": field_type,
        "name": name,
        "label": label,
        "description": description,
        "ui_visible": visible,
        "ui_editable": "hidden",
        "weight": 100,
        "filter_logic": "loose",
        "search_weight": 1000,
        "group_name": "Proxmox",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_wanted_by_who_looks_for_it_by_its_name() {
        let field = wanted(CUSTOM_FIELDS, "name=proxmox_search_domain&limit=0").unwrap();
        assert_eq!((&field["type"], &field["ui_visible"]), (&json!("text"), &json!("if-set")));
        assert_eq!(field["object_types"], json!(["virtualization.virtualmachine"]));
        for (path, query) in [
            (CUSTOM_FIELDS, "name=proxmox_last_updated"),
            (CUSTOM_FIELDS, "limit=0"),
            ("/api/extras/tags/", "name=proxmox_vm_id"),
        ] {
            assert_eq!(wanted(path, query), None, "{path}?{query}");
        }
    }
}
