//! Reads the sources, file by file, variable by variable, and checks each value against the settings table. How
//! sources are laid over one another is `draft.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use super::draft::{Draft, join, tables};
use super::error::Origin;
use super::settings::{entries, entry};
use super::suggest;

/// Variables that are no settings: which file to read, and the log filter, both read by `cli`.
const OTHER_VARIABLES: [&str; 2] = ["KEYWARD_CONFIG", "KEYWARD_LOG"];
const PREFIX: &str = "KEYWARD_";

/// Lays one file over the draft.
pub fn file(draft: &mut Draft, path: &Path) {
    let origin = Origin::File(path.to_owned());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            draft.unread = true;
            let advice = "name another with `--config`, or make one with `keyward config generate`";
            return draft.error(origin, format!("cannot be read: {error}; {advice}"));
        }
    };
    match DeTable::parse(&text) {
        Ok(table) => {
            let base = path.parent().unwrap_or(Path::new(""));
            let layer = Reader { draft, path, text: &text, base }.table(table.get_ref(), &Place::default());
            draft.overlay(layer);
        }
        Err(error) => {
            draft.unread = true;
            let origin = error.span().map_or(origin, |span| Origin::Line(path.to_owned(), line(&text, span.start)));
            draft.error(origin, format!("is not TOML: {}", error.message().replace('\n', ", ")));
        }
    }
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// One place in the tree by its name in the settings table and by its own.
#[derive(Default)]
struct Place {
    generic: String,
    path: String,
}

impl Place {
    fn child(&self, key: &str) -> Self {
        Self { generic: join(&self.generic, key), path: join(&self.path, key) }
    }

    fn item(&self, number: usize) -> Self {
        Self { generic: format!("{}[]", self.generic), path: format!("{}[{number}]", self.path) }
    }

    fn is_section(&self) -> bool {
        entries().iter().any(|entry| entry.path.strip_prefix(&self.generic).is_some_and(|rest| rest.starts_with('.')))
    }

    fn is_list(&self) -> bool {
        entries().iter().any(|entry| entry.path.strip_prefix(&self.generic).is_some_and(|rest| rest.starts_with("[].")))
    }
}

struct Reader<'a> {
    draft: &'a mut Draft,
    path: &'a Path,
    text: &'a str,
    base: &'a Path,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, at: &Place) -> Table {
        let mut values = Table::new();
        // By position, so that errors come in the order of the file.
        let mut rows: Vec<_> = table.iter().collect();
        rows.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in rows {
            let place = at.child(key.get_ref());
            self.note(&place, key.span().start);
            if let Some(value) = self.value(value, &place) {
                values.insert(key.get_ref().to_string(), value);
            }
        }
        self.draft.refuse_rivals(&values, &at.path, &at.generic);
        values
    }

    fn note(&mut self, place: &Place, offset: usize) {
        self.draft.note(&place.path, Origin::Line(self.path.to_owned(), line(self.text, offset)));
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, place: &Place) -> Option<Value> {
        if let Some(entry) = entry(&place.generic) {
            let value = match Value::deserialize(ValueDeserializer::from(value.clone())) {
                Ok(value) => value,
                Err(error) => {
                    self.draft.error_at(&place.path, &format!("cannot be read: {}", error.message()));
                    return None;
                }
            };
            self.draft.check(entry, &place.path, &value, self.base)
        } else if place.is_list() {
            self.list(value.get_ref(), place)
        } else if !place.is_section() {
            self.draft.error_at(&place.path, &format!("is not a setting{}", suggest::key(&place.generic)));
            None
        } else if let DeValue::Table(table) = value.get_ref() {
            Some(Value::Table(self.table(table, place)))
        } else {
            self.draft.error_at(&place.path, &format!("is a section; write its settings under `[{}]`", place.generic));
            None
        }
    }

    fn list(&mut self, value: &DeValue<'_>, place: &Place) -> Option<Value> {
        let items = value.as_array().map(|array| array.iter().collect::<Vec<_>>()).unwrap_or_default();
        if !value.is_array() || items.iter().any(|item| !item.get_ref().is_table()) {
            self.draft.error_at(&place.path, &format!("is a list of tables; write each as `[[{}]]`", place.generic));
            return None;
        }
        let earlier = self.draft.values.get(&place.generic).and_then(Value::as_array).map_or(0, Vec::len);
        let mut values = Vec::new();
        for (n, item) in items.into_iter().enumerate() {
            let place = place.item(earlier + n);
            self.note(&place, item.span().start);
            if let DeValue::Table(table) = item.get_ref() {
                values.push(Value::Table(self.table(table, &place)));
            }
        }
        Some(Value::Array(values))
    }
}

/// Lays the `KEYWARD_…` variables over the draft; all others are somebody else's.
pub fn environment(draft: &mut Draft, variables: &[(String, String)]) {
    let mut layer = Table::new();
    for (name, text) in variables {
        let upper = name.to_ascii_uppercase();
        let Some(rest) = upper.strip_prefix(PREFIX).filter(|_| !OTHER_VARIABLES.contains(&upper.as_str())) else {
            continue;
        };
        let path = rest.to_ascii_lowercase().replace("__", ".");
        let origin = Origin::Variable(name.clone());
        if !one(draft, &mut layer, &path, text, origin.clone()) && !is_service_link(rest) {
            draft.error(origin, format!("is not a setting{}", suggest::variable(&upper, variable_name)));
        }
    }
    finish(draft, layer);
}

/// Kubernetes and Docker links set `KEYWARD_PORT`, `KEYWARD_SERVICE_HOST` and the like beside a service that is
/// called `keyward`.
fn is_service_link(name: &str) -> bool {
    let words = ["PORT", "SERVICE_HOST", "SERVICE_PORT"];
    !name.contains("__")
        && words.iter().any(|word| {
            name == *word
                || name.ends_with(&format!("_{word}"))
                || name.starts_with(&format!("{word}_"))
                || name.contains(&format!("_{word}_"))
        })
}

/// `tokens.access_token_ttl` as a variable.
pub fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// Lays the command line's settings over the draft.
pub fn flags(draft: &mut Draft, flags: &[(String, String)]) {
    let mut layer = Table::new();
    for (path, text) in flags {
        if !one(draft, &mut layer, path, text, Origin::Flag) {
            draft.error(Origin::Flag, format!("`{path}` is not a setting{}", suggest::key(path)));
        }
    }
    finish(draft, layer);
}

/// Puts one setting written as text into `layer`; false when there is no such setting outside files.
fn one(draft: &mut Draft, layer: &mut Table, path: &str, text: &str, origin: Origin) -> bool {
    let Some(entry) = entry(path).filter(|entry| !entry.in_list()) else { return false };
    draft.note(path, origin);
    let (parent, key) = entry.split();
    if let Some(value) = draft.check(entry, path, &entry.kind.parse_text(text), Path::new("")) {
        for (_, table) in tables(layer, parent, true) {
            table.insert(key.to_owned(), value.clone());
        }
    }
    true
}

fn finish(draft: &mut Draft, mut layer: Table) {
    let parents: BTreeSet<&str> = entries().iter().filter(|e| !e.in_list()).map(|entry| entry.split().0).collect();
    for parent in parents {
        for (at, table) in tables(&mut layer, parent, false) {
            draft.refuse_rivals(table, &at, parent);
        }
    }
    draft.overlay(layer);
}
