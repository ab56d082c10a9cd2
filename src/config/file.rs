//! Settings from the file.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::nearest::nearest;
use super::problem::{Origin, Problem};
use super::sources::{Found, Setting};
use super::table::keys;

/// Reads the settings of the file at `path`, whose text is `text`, in the order of its lines.
pub(super) fn read(path: &Path, text: &str) -> Found {
    let mut reader = Reader { path, text, found: Vec::new() };
    match DeTable::parse(text) {
        Ok(top) => reader.table("", top.get_ref()),
        Err(error) => {
            let origin = reader.origin(error.span().unwrap_or_default().start);
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            return vec![Err(Problem::Syntax { origin, message })];
        }
    }
    reader.found.sort_by_key(|&(position, _)| position);
    reader.found.into_iter().map(|(_, found)| found).collect()
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// What was found, with where it begins in the text: TOML tables do not keep their order.
    found: Vec<(usize, Result<Setting, Problem>)>,
}

impl Reader<'_> {
    fn table(&mut self, table: &'static str, entries: &DeTable<'_>) {
        for (name, value) in entries {
            if let Some(found) = self.entry(table, name, value) {
                self.found.push((name.span().start, found));
            }
        }
    }

    fn entry(
        &mut self,
        table: &'static str,
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Result<Setting, Problem>> {
        let origin = self.origin(name.span().start);
        let name = name.get_ref().as_ref();
        if let Some(key) = keys().find(|key| key.place() == (table, name)) {
            let shown = self.shown(value);
            return Some(match scalar(value.get_ref()) {
                Some(text) => Ok(Setting { key, origin, text, shown }),
                None => {
                    Err(Problem::BadValue { origin, key: key.name, allowed: key.allowed(), value: shown })
                }
            });
        }
        let Some(inner) = keys().map(|key| key.place().0).find(|inner| table.is_empty() && *inner == name)
        else {
            return Some(Err(Problem::UnknownKey {
                origin,
                key: name.to_owned(),
                table,
                hint: hint(table, name),
            }));
        };
        let Some(entries) = value.get_ref().as_table() else {
            let (allowed, value) = (format!("a table, written [{inner}]"), self.shown(value));
            return Some(Err(Problem::BadValue { origin, key: inner, allowed, value }));
        };
        self.table(inner, entries);
        None
    }

    fn origin(&self, position: usize) -> Origin {
        let line = 1 + self.text.bytes().take(position).filter(|&byte| byte == b'\n').count();
        Origin::File { path: self.path.to_owned(), line }
    }

    /// The value on one line, as it is written in the file where that is one line.
    fn shown(&self, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            _ => self.text.get(value.span()).unwrap_or_default().to_owned(),
        }
    }
}

/// What an unknown key may have been meant to be: a name of its table, or one that stands elsewhere. A key
/// of the top level that is written below the first table is a common slip.
fn hint(table: &str, name: &str) -> Option<String> {
    let inner = keys().map(|key| key.place().0).filter(|inner| table.is_empty() && !inner.is_empty());
    let names = keys().map(|key| key.place()).filter(|place| place.0 == table).map(|place| place.1);
    if let Some(near) = nearest(name, names.chain(inner)) {
        return Some(format!("`{near}`"));
    }
    let (table, name) = keys().map(|key| key.place()).find(|place| place.1 == name)?;
    Some(if table.is_empty() {
        format!("`{name}` above the first table")
    } else {
        format!("`{table}.{name}`")
    })
}

/// The text of a value as a variable would hold it; nothing that a key takes is of another type.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        _ => None,
    }
}
