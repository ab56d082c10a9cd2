//! Settings from the file.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::env::{Setting, SourceSettings};
use super::key::ConfigKey;
use super::problem::{ConfigProblem, ValueOrigin, did_you_mean, suggest};
use super::schema::keys;

/// The content of a configuration file.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    /// The settings, in the order of the lines.
    pub(super) settings: SourceSettings,
    /// Where each `[backend]` or `[[backend]]` begins.
    pub(super) blocks: Vec<ValueOrigin>,
    /// Where each `[notify]` or `[[notify]]` begins.
    pub(super) notify: Vec<ValueOrigin>,
}

/// Reads the file at `path`, whose text is `text`.
pub(super) fn read(path: &Path, text: &str) -> ConfigFile {
    let mut reader = TomlReader { path, text, settings: Vec::new(), content: ConfigFile::default() };
    match DeTable::parse(text) {
        Ok(top) => reader.table(TablePath { table: "", block: None }, top.get_ref()),
        Err(error) => {
            let position = error.span().unwrap_or_default().start;
            let message =
                format!("not valid TOML: {}", error.message().lines().collect::<Vec<_>>().join(" "));
            let problem = ConfigProblem::Unreadable { origin: reader.origin(position), message };
            reader.settings.push((position, Err(problem)));
        }
    }
    reader.settings.sort_by_key(|&(position, _)| position);
    let settings = reader.settings.into_iter().map(|(_, found)| found).collect();
    ConfigFile { settings, ..reader.content }
}

struct TomlReader<'a> {
    path: &'a Path,
    text: &'a str,
    /// Settings with their positions in the text: the parser does not keep the order of keys.
    settings: Vec<(usize, Result<Setting, ConfigProblem>)>,
    /// Its blocks.
    content: ConfigFile,
}

/// The table that is read.
#[derive(Clone, Copy)]
struct TablePath {
    /// Its name, empty for the top level.
    table: &'static str,
    /// The index of the `[[backend]]` or `[[notify]]` that it is part of, if it is.
    block: Option<usize>,
}

impl TomlReader<'_> {
    fn table(&mut self, place: TablePath, entries: &DeTable<'_>) {
        for (name, value) in entries {
            if let Some(found) = self.entry(place, name, value) {
                self.settings.push((name.span().start, found));
            }
        }
    }

    fn entry(
        &mut self,
        place: TablePath,
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Result<Setting, ConfigProblem>> {
        let position = name.span().start;
        let origin = self.origin(position);
        let name = name.get_ref().as_ref();
        let TablePath { table, block } = place;
        if let Some(key) = keys().find(|key| key.path() == (table, name)) {
            if block.is_some() && table != NOTIFY && !key.is_per_backend() {
                let key = key.name;
                let message =
                    format!("{key} applies to the whole bridge, not to one backend: set it in its own table");
                return Some(Err(ConfigProblem::BadSetting { origin, message }));
            }
            let shown = self.shown_value(value);
            return Some(match text_of(value.get_ref(), key) {
                Some(text) => Ok(Setting { key, origin, text, shown, block }),
                None => Err(ConfigProblem::not_allowed(origin, key.name, &key.allowed(), &shown)),
            });
        }
        let is_inner = |inner: &str| match table {
            "" => inner == name,
            BACKEND => inner == LIMITS && name == LIMITS,
            _ => false,
        };
        let Some(inner) = keys().map(|key| key.path().0).find(|inner| is_inner(inner)) else {
            let place =
                if table.is_empty() { "at the top level".to_owned() } else { format!("in [{table}]") };
            let (name, hint) = (name.escape_debug(), did_you_mean(hint(table, name)));
            let message = format!("unknown key `{name}` {place}{hint}");
            return Some(Err(ConfigProblem::BadSetting { origin, message }));
        };
        if let Some(entries) = value.get_ref().as_table() {
            let block = self.block(inner, origin).or(block);
            self.table(TablePath { table: inner, block }, entries);
            return None;
        }
        if [BACKEND, NOTIFY].contains(&inner)
            && let Some(blocks) = value.get_ref().as_array().and_then(tables)
        {
            for (at, entries) in blocks {
                let block = self.block(inner, self.origin(at));
                self.table(TablePath { table: inner, block }, entries);
            }
            return None;
        }
        let allowed = format!("a table, written [{inner}]");
        Some(Err(ConfigProblem::not_allowed(origin, inner, &allowed, &self.shown_value(value))))
    }

    /// Adds a backend or a target of notifications that begins at `origin`, and returns its index. `None` for other
    /// tables.
    fn block(&mut self, table: &str, origin: ValueOrigin) -> Option<usize> {
        let blocks = match table {
            BACKEND => &mut self.content.blocks,
            NOTIFY => &mut self.content.notify,
            _ => return None,
        };
        blocks.push(origin);
        Some(blocks.len() - 1)
    }

    fn origin(&self, position: usize) -> ValueOrigin {
        let line = 1 + self.text.bytes().take(position).filter(|&byte| byte == b'\n').count();
        ValueOrigin::File { path: self.path.to_owned(), line }
    }

    /// The value on one line, as the file has it where that is one line.
    fn shown_value(&self, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            _ => self.text.get(value.span()).unwrap_or_default().to_owned(),
        }
    }
}

/// What an unknown key may stand for: a name of its table, or one of another table. A top-level key below the first
/// table is a common slip.
fn hint(table: &str, name: &str) -> Option<String> {
    let inner = keys().map(|key| key.path().0).filter(|inner| table.is_empty() && !inner.is_empty());
    let names = keys().map(|key| key.path()).filter(|path| path.0 == table).map(|path| path.1);
    if let Some(near) = suggest(name, names.chain(inner)) {
        return Some(format!("`{near}`"));
    }
    let (table, name) = keys().map(|key| key.path()).find(|path| path.1 == name)?;
    Some(if table.is_empty() {
        format!("`{name}` above the first table")
    } else {
        format!("`{table}.{name}`")
    })
}

/// The table of a backend, and the table of limits, which it may contain.
const BACKEND: &str = "backend";
const LIMITS: &str = "limits";
/// The table of a target of notifications.
const NOTIFY: &str = "notify";

/// The tables of an array of tables, with their positions.
fn tables<'a>(array: &'a DeArray<'_>) -> Option<Vec<(usize, &'a DeTable<'a>)>> {
    array.iter().map(|value| Some((value.span().start, value.get_ref().as_table()?))).collect()
}

/// The value as a variable would set it; `None` for a type that no key has.
fn text_of(value: &DeValue<'_>, key: &ConfigKey) -> Option<String> {
    match value {
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Array(list) if key.is_list => {
            let texts: Option<Vec<&str>> = list.iter().map(|item| item.get_ref().as_str()).collect();
            texts.map(|texts| texts.join(","))
        }
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        _ => None,
    }
}
