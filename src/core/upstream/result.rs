//! The result object that ends a stage or a run: its numbers, lists and warnings, without its megabytes of records.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::legacy::NamedRecord;
use super::lenient::{Map, Number, Text};
use crate::core::domain::figures::{Figures, Told};
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::run::tally::{Count, Counts};
use crate::core::text::detail::{READ_AS_TREE, SENTENCE, of_value};
use crate::core::text::plain;

/// How many numbers of a result, and how many warnings, are kept.
const KEPT: usize = 32;
const WARNINGS_KEPT: usize = 5;
/// How many names of a list are kept.
const NAMES: usize = 4096;
/// How many fields of a result are looked at.
const OUTLINED: usize = 256;

/// What is worth keeping of a result: its numbers, the lengths of its lists, its warnings.
pub fn told(raw: Option<&RawValue>) -> Told {
    let mut told = Told::default();
    if let Some(Part::List { distinct, .. }) =
        raw.filter(|raw| raw.get().starts_with('[')).map(|raw| part("", raw.get()))
    {
        told.records = distinct;
        return told;
    }
    let Some(Ok(Outline(fields))) = raw.map(|raw| serde_json::from_str::<Outline>(raw.get())) else {
        return told;
    };
    let known = |name: &str| fields.iter().any(|(other, _)| other == name);
    for (name, part) in &fields {
        match part {
            Part::Number(value) => told.numbers.push((name.clone(), *value)),
            Part::List { length, distinct, names } => {
                let counted = format!("{name}_count");
                if !known(&counted) {
                    told.numbers.push((counted, *length));
                }
                if let Some(distinct) = distinct {
                    let records = Number(Some(*distinct));
                    told.stages.push((name.clone(), Figures { records, ..Figures::default() }));
                    told.names.push((name.clone(), names.clone()));
                }
            }
            Part::Stage(figures) => told.stages.push((name.clone(), *figures)),
            Part::Counters { errors, failed } => {
                let errors = Number(Some(*errors));
                told.stages.push((Kind::Sdn.as_str().to_owned(), Figures { errors, ..Figures::default() }));
                told.failed.clone_from(failed);
            }
            Part::True if name == "degraded" => told.degraded = true,
            _ => {}
        }
    }
    told.numbers.truncate(KEPT);
    told.objects = Counts(fields.iter().flat_map(|(_, part)| part.objects()).copied().collect());
    told.warnings = fields.into_iter().find_map(|(_, part)| part.warnings()).unwrap_or_default();
    told
}

/// The outline of a result that may hold megabytes of records: read once, kept as numbers.
struct Outline(Vec<(String, Part)>);

enum Part {
    Number(u64),
    /// A list, and how many records of NetBox are in it, if that is what it is a list of.
    List {
        length: u64,
        distinct: Option<u64>,
        /// Their names, of as many as are kept.
        names: Vec<String>,
    },
    /// The numbers of a stage.
    Stage(Figures),
    /// The failures that the sync of software-defined networks counts, and those that it names.
    Counters {
        errors: u64,
        failed: Vec<(String, String)>,
    },
    Warnings(Vec<String>),
    Objects(Vec<(Object, Count)>),
    True,
    Else,
}

impl Part {
    fn warnings(self) -> Option<Vec<String>> {
        match self {
            Self::Warnings(texts) => Some(texts),
            _ => None,
        }
    }

    fn objects(&self) -> &[(Object, Count)] {
        match self {
            Self::Objects(counts) => counts,
            _ => &[],
        }
    }
}

impl<'de> serde::Deserialize<'de> for Outline {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = Outline;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let value: &RawValue = map.next_value()?;
                    if fields.len() < OUTLINED {
                        fields.push((plain(&name, 40).into_owned(), part(&name, value.get())));
                    }
                }
                Ok(Outline(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn part(name: &str, json: &str) -> Part {
    match json.as_bytes().first() {
        Some(b'[') if name == "warnings" && json.len() <= READ_AS_TREE => {
            Part::Warnings(warnings(&serde_json::from_str::<Vec<Value>>(json).unwrap_or_default()))
        }
        Some(b'{') if name == "objects" && json.len() <= READ_AS_TREE => Part::Objects(objects(json)),
        Some(b'[') => serde_json::from_str::<Vec<Map<NamedRecord<'_>>>>(json).map_or(Part::Else, |items| {
            let ids: Option<HashSet<u64>> = items.iter().map(|item| item.0.as_ref()?.id.0).collect();
            let names = items.iter().filter_map(|item| item.0.as_ref()?.name.0.as_deref()).take(NAMES);
            Part::List {
                length: items.len() as u64,
                distinct: ids.map(|ids| ids.len() as u64),
                names: names.map(str::to_owned).collect(),
            }
        }),
        Some(b'{') if name == "counters" => {
            serde_json::from_str::<Counters<'_>>(json).map_or(Part::Else, Counters::part)
        }
        Some(b'{') if Kind::of_field(name).is_some() => {
            serde_json::from_str(json).map_or(Part::Else, Part::Stage)
        }
        Some(b'0'..=b'9') => json.parse().map_or(Part::Else, Part::Number),
        Some(b't') => Part::True,
        _ => Part::Else,
    }
}

/// What the sync of software-defined networks counts: its failures.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Counters<'a> {
    per_endpoint_errors: Map<BTreeMap<String, Number>>,
    #[serde(borrow)]
    object_errors: Vec<Map<ObjectError<'a>>>,
}

/// One object of theirs that failed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectError<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    error: Text<'a>,
}

impl Counters<'_> {
    fn part(self) -> Part {
        let errors = self.per_endpoint_errors.0.unwrap_or_default();
        let failed = self.object_errors.into_iter().filter_map(|error| error.0).take(KEPT);
        Part::Counters {
            errors: errors.values().filter_map(|errors| errors.0).fold(0, u64::saturating_add),
            failed: failed.map(|error| error.told()).collect(),
        }
    }
}

impl ObjectError<'_> {
    /// What it is called, and why it failed.
    fn told(&self) -> (String, String) {
        let name = [self.kind.or_empty(), self.name.or_empty()].join(" ");
        (plain(&name, SENTENCE).into_owned(), plain(self.error.or_empty(), SENTENCE).into_owned())
    }
}

/// The counts that a bridge writes, by sort. What does not add up is none.
fn objects(json: &str) -> Vec<(Object, Count)> {
    let sorts: BTreeMap<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let counts = sorts.into_iter().filter_map(|(word, count)| {
        let count = Count::deserialize(count).ok().filter(|count| count.adds_up())?;
        Some((Object::named(&word).unwrap_or(Object::Other), count))
    });
    counts.collect()
}

fn warnings(items: &[Value]) -> Vec<String> {
    let texts = items.iter().filter_map(of_value).take(WARNINGS_KEPT);
    texts.map(|text| plain(&text, SENTENCE).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn megabytes_of_records_become_numbers() {
        let records = vec![r#"{"id":1,"name":"pve1"}"#; 100_000].join(",");
        let json = format!(
            r#"{{"devices":[{records}],"storage":[],"storage_count":7,"count":3,"warnings":["w","x"],"degraded":true,"n":null,"f":1.5,"o":{{}}}}"#
        );
        assert_eq!(
            told(Some(raw(&json))),
            Told {
                numbers: vec![
                    ("devices_count".to_owned(), 100_000),
                    ("storage_count".to_owned(), 7),
                    ("count".to_owned(), 3)
                ],
                stages: [("devices", 1), ("storage", 0)]
                    .map(|(stage, ids)| {
                        (stage.to_owned(), Figures { records: Number(Some(ids)), ..Figures::default() })
                    })
                    .to_vec(),
                names: vec![
                    ("devices".to_owned(), vec!["pve1".to_owned(); NAMES]),
                    ("storage".to_owned(), Vec::new())
                ],
                records: None,
                failed: Vec::new(),
                objects: Counts::default(),
                warnings: vec!["w".to_owned(), "x".to_owned()],
                degraded: true,
            }
        );
        let objects = r#"{"objects":{"device":{"seen":3,"completed":2,"failed":1,"unconfirmed":0},"gpu":{"seen":1,"completed":0,"failed":0,"unconfirmed":1},"storage":{"seen":3,"completed":1,"failed":1,"unconfirmed":0},"sdn":4}}"#;
        let device = Count { seen: 3, completed: 2, failed: 1, unconfirmed: 0 };
        let other = Count { seen: 1, completed: 0, failed: 0, unconfirmed: 1 };
        let counts = vec![(Object::Device, device), (Object::Other, other)];
        assert_eq!(told(Some(raw(objects))), Told { objects: Counts(counts), ..Told::default() });
        assert_eq!(told(Some(raw("[1]"))), Told::default());
        assert_eq!(told(None), Told::default());
    }
}
