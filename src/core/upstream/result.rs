//! The result object of a stage or run: its numbers, lists and warnings, without the megabytes of records.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::legacy::NamedRecord;
use super::lenient::{LenientCount, LenientMap, LenientText};
use crate::core::domain::counts::{Count, Counts};
use crate::core::domain::figures::{Figures, ResultSummary};
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::text::detail::{READ_AS_TREE, SENTENCE, text_of_value};
use crate::core::text::plain;

/// The maximum number of numbers kept of a result, and of warnings.
const MAX_NUMBERS: usize = 32;
const MAX_WARNINGS: usize = 5;
/// The maximum number of names kept of a list.
const MAX_NAMES: usize = 4096;
/// The maximum number of fields that are read.
const MAX_FIELDS: usize = 256;

/// Summarizes a result: its numbers, the lengths of its lists, its warnings.
pub fn summarize(raw: Option<&RawValue>) -> ResultSummary {
    let mut summary = ResultSummary::default();
    if let Some(FieldSummary::List { distinct, .. }) =
        raw.filter(|raw| raw.get().starts_with('[')).map(|raw| field_summary("", raw.get()))
    {
        summary.records = distinct;
        return summary;
    }
    let Some(Ok(ResultOutline(fields))) = raw.map(|raw| serde_json::from_str::<ResultOutline>(raw.get()))
    else {
        return summary;
    };
    let names: HashSet<String> = fields.iter().map(|(name, _)| name.clone()).collect();
    let (mut objects, mut warnings) = (Vec::new(), None);
    for (name, part) in fields {
        match part {
            FieldSummary::Number(value) => summary.numbers.push((name, value)),
            FieldSummary::List { length, distinct, names: kept } => {
                let counted = format!("{name}_count");
                if !names.contains(&counted) {
                    summary.numbers.push((counted, length));
                }
                if distinct.is_some() {
                    let records = LenientCount(distinct);
                    summary.stages.push((name.clone(), Figures { records, ..Figures::default() }));
                    summary.names.push((name, kept));
                }
            }
            FieldSummary::Stage(figures) => summary.stages.push((name, figures)),
            FieldSummary::Counters { errors, failed } => {
                let figures = Figures { errors: LenientCount(Some(errors)), ..Figures::default() };
                summary.stages.push((Kind::Sdn.as_str().to_owned(), figures));
                summary.failed = failed;
            }
            FieldSummary::Warnings(texts) => warnings = warnings.or(Some(texts)),
            FieldSummary::Objects(counts) => objects.extend(counts),
            FieldSummary::True if name == "degraded" => summary.degraded = true,
            FieldSummary::True | FieldSummary::Other => {}
        }
    }
    summary.numbers.truncate(MAX_NUMBERS);
    summary.objects = Counts(objects.into_iter().collect());
    summary.warnings = warnings.unwrap_or_default();
    summary
}

/// The outline of a result that may hold megabytes of records. It is parsed once and reduced to numbers.
struct ResultOutline(Vec<(String, FieldSummary)>);

enum FieldSummary {
    Number(u64),
    /// A list, and the number of NetBox records in it.
    List {
        length: u64,
        distinct: Option<u64>,
        /// The names that are kept.
        names: Vec<String>,
    },
    /// The numbers of a stage.
    Stage(Figures),
    /// The failures in the SDN sync, counted and named.
    Counters {
        errors: u64,
        failed: Vec<(String, String)>,
    },
    Warnings(Vec<String>),
    Objects(Vec<(Object, Count)>),
    True,
    Other,
}

impl<'de> Deserialize<'de> for ResultOutline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = ResultOutline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ResultOutline, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let value: &RawValue = map.next_value()?;
                    if fields.len() < MAX_FIELDS {
                        fields.push((plain(&name, 40).into_owned(), field_summary(&name, value.get())));
                    }
                }
                Ok(ResultOutline(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn field_summary(name: &str, json: &str) -> FieldSummary {
    match json.as_bytes().first() {
        Some(b'[') if name == "warnings" && json.len() <= READ_AS_TREE => {
            FieldSummary::Warnings(warnings(&serde_json::from_str::<Vec<Value>>(json).unwrap_or_default()))
        }
        Some(b'{') if name == "objects" && json.len() <= READ_AS_TREE => FieldSummary::Objects(objects(json)),
        Some(b'[') => serde_json::from_str::<Vec<LenientMap<NamedRecord<'_>>>>(json).map_or(
            FieldSummary::Other,
            |items| {
                let ids: Option<HashSet<u64>> = items.iter().map(|item| item.0.as_ref()?.id.0).collect();
                let names =
                    items.iter().filter_map(|item| item.0.as_ref()?.name.0.as_deref()).take(MAX_NAMES);
                FieldSummary::List {
                    length: items.len() as u64,
                    distinct: ids.map(|ids| ids.len() as u64),
                    names: names.map(str::to_owned).collect(),
                }
            },
        ),
        Some(b'{') if name == "counters" => serde_json::from_str::<SdnCounters<'_>>(json)
            .map_or(FieldSummary::Other, SdnCounters::field_summary),
        Some(b'{') if Kind::of_field(name).is_some() => {
            serde_json::from_str(json).map_or(FieldSummary::Other, FieldSummary::Stage)
        }
        Some(b'0'..=b'9') => json.parse().map_or(FieldSummary::Other, FieldSummary::Number),
        Some(b't') => FieldSummary::True,
        _ => FieldSummary::Other,
    }
}

/// The failure counts of the SDN sync.
#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct SdnCounters<'a> {
    per_endpoint_errors: LenientMap<BTreeMap<String, LenientCount>>,
    object_errors: Vec<LenientMap<ObjectError<'a>>>,
}

/// A failed SDN object.
#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct ObjectError<'a> {
    kind: LenientText<'a>,
    name: LenientText<'a>,
    error: LenientText<'a>,
}

impl SdnCounters<'_> {
    fn field_summary(self) -> FieldSummary {
        let errors = self.per_endpoint_errors.0.unwrap_or_default();
        let failed = self.object_errors.into_iter().filter_map(|error| error.0).take(MAX_NUMBERS);
        FieldSummary::Counters {
            errors: errors.values().filter_map(|errors| errors.0).fold(0, u64::saturating_add),
            failed: failed.map(|error| error.name_and_error()).collect(),
        }
    }
}

impl ObjectError<'_> {
    /// Its name and its error.
    fn name_and_error(&self) -> (String, String) {
        let name = [self.kind.or_empty(), self.name.or_empty()].join(" ");
        (plain(&name, SENTENCE).into_owned(), plain(self.error.or_empty(), SENTENCE).into_owned())
    }
}

/// The counts that a bridge writes, by object type. Counts that do not add up are ignored.
fn objects(json: &str) -> Vec<(Object, Count)> {
    let counts: BTreeMap<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let counts = counts.into_iter().filter_map(|(name, count)| {
        let count = Count::deserialize(count).ok().filter(|count| count.adds_up())?;
        Some((Object::from_step(&name).unwrap_or(Object::Other), count))
    });
    counts.collect()
}

fn warnings(items: &[Value]) -> Vec<String> {
    let texts = items.iter().filter_map(text_of_value).take(MAX_WARNINGS);
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
        let figures = |ids| Figures { records: LenientCount(Some(ids)), ..Figures::default() };
        let named = |name: &str, names| (name.to_owned(), names);
        let expected = ResultSummary {
            numbers: [("devices_count", 100_000), ("storage_count", 7), ("count", 3)]
                .map(|(name, number)| (name.to_owned(), number))
                .to_vec(),
            stages: [("devices", 1), ("storage", 0)]
                .map(|(stage, ids)| (stage.to_owned(), figures(ids)))
                .to_vec(),
            names: vec![named("devices", vec!["pve1".to_owned(); MAX_NAMES]), named("storage", Vec::new())],
            records: None,
            failed: Vec::new(),
            objects: Counts::default(),
            warnings: vec!["w".to_owned(), "x".to_owned()],
            degraded: true,
        };
        assert_eq!(summarize(Some(raw(&json))), expected);
        let objects = r#"{"objects":{"device":{"seen":3,"completed":2,"failed":1,"unconfirmed":0},"gpu":{"seen":1,"completed":0,"failed":0,"unconfirmed":1},"storage":{"seen":3,"completed":1,"failed":1,"unconfirmed":0},"sdn":4}}"#;
        let device = Count { seen: 3, completed: 2, failed: 1, unconfirmed: 0 };
        let other = Count { seen: 1, completed: 0, failed: 0, unconfirmed: 1 };
        let counts = Counts(vec![(Object::Device, device), (Object::Other, other)]);
        let expected = ResultSummary { objects: counts, ..ResultSummary::default() };
        assert_eq!(summarize(Some(raw(objects))), expected);
        for nothing in [Some(raw("[1]")), Some(raw(r#"{"ok":true}"#)), None] {
            assert_eq!(summarize(nothing), ResultSummary::default(), "{nothing:?}");
        }
    }
}
