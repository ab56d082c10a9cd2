//! The documented paths of the backends.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// The versions that have no `/health` and no keys.
pub(super) const OLD: &[&str] = &["0.0.2.post1", "0.0.3"];
/// Those that have both.
pub(super) const YOUNG: &[&str] = &["0.0.7.post1", "0.0.11.post2", "0.0.30.post2"];

/// The paths of one version or several. What is the same in two of them is there once.
pub(super) struct Listing {
    /// It is of versions that have no `/health` and no keys.
    pub(super) is_old: bool,
    pub(super) paths: BTreeMap<String, PathItem>,
}

/// One path, as `fixtures/openapi.py` writes it.
#[derive(Clone, Default, Deserialize)]
pub(super) struct PathItem {
    /// A value for each parameter in the path.
    #[serde(default)]
    path: BTreeMap<String, String>,
    /// Its methods.
    #[serde(flatten)]
    pub(super) methods: BTreeMap<String, Operation>,
}

/// The query and the body that one method of a path requires.
#[derive(Clone, Default, Deserialize)]
pub(super) struct Operation {
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Option<Value>,
}

impl Listing {
    pub(super) fn for_versions(versions: &[&str]) -> Self {
        #[derive(Deserialize)]
        struct File {
            version: String,
            paths: BTreeMap<String, PathItem>,
        }

        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/openapi");
        let mut paths: BTreeMap<String, PathItem> = BTreeMap::new();
        for version in versions {
            let text = std::fs::read_to_string(folder.join(format!("{version}.json"))).unwrap();
            let file: File = serde_json::from_str(&text).unwrap();
            assert_eq!(file.version, *version);
            assert!(file.paths.len() >= 35, "{version} has only {} paths", file.paths.len());
            for (path, place) in file.paths {
                let known = paths.entry(path).or_default();
                known.path.extend(place.path);
                known.methods.extend(place.methods);
            }
        }
        Self { is_old: versions.iter().all(|version| OLD.contains(version)), paths }
    }
}

impl PathItem {
    /// `template` with the values of the listing.
    pub(super) fn concrete(&self, template: &str) -> String {
        self.filled(template, None)
    }

    /// `template` with `value` for every parameter, if it has one.
    pub(super) fn with(&self, template: &str, value: &str) -> Option<String> {
        (!self.path.is_empty()).then(|| self.filled(template, Some(value)))
    }

    fn filled(&self, template: &str, value: Option<&str>) -> String {
        self.path.iter().fold(template.to_owned(), |path, (name, own)| {
            path.replace(&format!("{{{name}}}"), value.unwrap_or(own))
        })
    }
}
