//! The configuration while it is being read: a tree of checked values, where each was written, and all that was
//! wrong so far. Sources are laid over one another here; `read.rs` brings them, `rules.rs` judges the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::database;
use super::error::{ConfigError, ConfigErrors, Origin};
use super::kind::{Kind, parse_value};
use super::mail;
use super::settings::{Entry, SIGN_IN_APIS, entries, entry};
use crate::protocol::client::{AuthMethod, ClientMetadata};

#[derive(Debug, Default)]
pub struct Draft {
    pub values: Table,
    pub warnings: Vec<String>,
    /// The directory of the first file; empty where there is none.
    base: PathBuf,
    /// The first one, to blame for what is missing.
    file: Option<PathBuf>,
    origins: BTreeMap<String, Origin>,
    /// Settings whose value was refused: they are not missing.
    refused: BTreeSet<String>,
    errors: Vec<ConfigError>,
    /// Whether a file could not be read, so that nothing can be said about what is missing.
    pub unread: bool,
}

/// `tokens` and `idle` make `tokens.idle`; the root's name is empty.
pub fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

impl Draft {
    /// An empty draft whose defaults are those beside `file`.
    pub fn of(file: Option<&PathBuf>) -> Self {
        let base = file.and_then(|file| file.parent()).map(PathBuf::from).unwrap_or_default();
        Self { base, file: file.cloned(), ..Self::default() }
    }

    pub fn error(&mut self, origin: Origin, message: impl Into<String>) {
        self.errors.push(ConfigError { origin, message: message.into() });
    }

    /// An error about the value that stands at `path`.
    pub fn error_at(&mut self, path: &str, message: &str) {
        self.error(self.origin(path), format!("`{path}` {message}"));
    }

    pub fn warn_at(&mut self, path: &str, message: &str) {
        self.warnings.push(format!("{}: `{path}` {message}", self.origin(path)));
    }

    /// Where `path`, or else the table around it, was written.
    pub fn origin(&self, path: &str) -> Origin {
        let mut at = path;
        loop {
            if let Some(origin) = self.origins.get(at) {
                return origin.clone();
            }
            let Some((parent, _)) = at.rsplit_once('.') else { break };
            at = parent;
        }
        self.file.clone().map_or(Origin::Nowhere, Origin::File)
    }

    /// Whether a source has said something about this setting.
    pub fn was_written(&self, path: &str) -> bool {
        self.origins.contains_key(path)
    }

    pub fn note(&mut self, path: &str, origin: Origin) {
        self.origins.insert(path.to_owned(), origin);
    }

    /// The value of one setting as it goes on; a refusal is an error and leaves the setting empty.
    pub fn check(&mut self, entry: &Entry, path: &str, value: &Value, base: &Path) -> Option<Value> {
        match entry.kind.check(value, base) {
            Ok(value) => Some(value),
            Err(message) => {
                self.refused.insert(path.to_owned());
                self.error_at(path, &message);
                None
            }
        }
    }

    pub fn was_refused(&self, path: &str) -> bool {
        self.refused.contains(path)
    }

    pub fn finish(&mut self) -> Result<(), ConfigErrors> {
        if self.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(std::mem::take(&mut self.errors))) }
    }

    /// Two keys of one source that say the same thing: neither is obviously the right one.
    pub fn refuse_rivals(&mut self, table: &Table, parent: &str, generic_parent: &str) {
        for key in table.keys() {
            let rival =
                entry(&join(generic_parent, key)).filter(|entry| entry.substitute).and_then(|e| e.rival.as_ref());
            if let Some(rival) = rival.filter(|rival| table.contains_key(*rival)) {
                self.error_at(&join(parent, key), &format!("and `{}` are both set; keep one", join(parent, rival)));
            }
        }
    }

    /// Lays a later source over this one: its values win, its items of arrays of tables are added.
    pub fn overlay(&mut self, layer: Table) {
        merge(&mut self.values, layer, "");
    }

    /// Fills in what no source has said.
    pub fn fill_defaults(&mut self) {
        let base = self.base.clone();
        self.default_sign_in_clients();
        for entry in entries() {
            let Some(default) = entry.default.as_deref().and_then(parse_value) else { continue };
            let Ok(default) = entry.kind.check(&default, &base) else { continue };
            let (parent, key) = entry.split();
            for (_, table) in tables(&mut self.values, parent, true) {
                if !table.contains_key(key) && !entry.rival.as_ref().is_some_and(|rival| table.contains_key(rival)) {
                    table.insert(key.to_owned(), default.clone());
                }
            }
        }
        self.default_database();
        mail::fill_defaults(&mut self.values);
    }

    /// A client that only plain calls act as uses no grant and authenticates nowhere, whatever RFC 7591 says of one
    /// that does not say so.
    fn default_sign_in_clients(&mut self) {
        let text = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut named = Vec::new();
        for api in SIGN_IN_APIS {
            let tables = tables(&mut self.values, api, false);
            named.extend(tables.into_iter().filter_map(|(_, table)| text(table, "client_id")));
        }
        for (_, client) in tables(&mut self.values, "clients[]", false) {
            let is_named = text(client, "client_id").is_some_and(|id| named.contains(&id));
            if !is_named || client.contains_key("redirect_uris") {
                continue;
            }
            let scope = text(client, "scope").and_then(|scope| scope.parse().ok()).unwrap_or_default();
            let grants = ClientMetadata::grants_of_calls(&scope);
            let grants = grants.iter().map(|grant| Value::String(grant.to_string()));
            client.entry("grant_types").or_insert_with(|| Value::Array(grants.collect()));
            if !client.contains_key("client_secret") && !client.contains_key("client_secret_file") {
                let none = Value::String(AuthMethod::None.to_string());
                client.entry("token_endpoint_auth_method").or_insert(none);
            }
        }
    }

    /// A default that depends on another setting, so that moving `data_dir` moves the database with it.
    fn default_database(&mut self) {
        let Some(url) = self.values.get("data_dir").and_then(Value::as_str) else { return };
        let url = database::sqlite_url(&Path::new(url).join("keyward.db"));
        for (_, table) in tables(&mut self.values, "database", true) {
            if let Some(url) = url.clone().filter(|_| !table.contains_key("url") && !table.contains_key("url_file")) {
                table.insert("url".to_owned(), Value::String(url));
            }
        }
    }

    /// Puts the content of every `*_file` in the place of its secret.
    pub fn read_secrets(&mut self) {
        for entry in entries().iter().filter(|entry| entry.holds_secret) {
            let (parent, key) = entry.split();
            let Some(target) = entry.rival.as_deref() else { continue };
            let mut found = Vec::new();
            for (at, table) in tables(&mut self.values, parent, false) {
                if let Some(Value::String(file)) = table.remove(key) {
                    let secret = read_secret(&file);
                    if let Ok(secret) = &secret {
                        table.insert(target.to_owned(), Value::String(secret.clone()));
                    }
                    found.push((at, secret));
                }
            }
            for (at, secret) in found {
                match secret {
                    Ok(secret) => self.check_secret(&at, parent, key, target, secret),
                    Err(message) => self.error_at(&join(&at, key), &message),
                }
            }
        }
    }

    /// A secret from a file meets what the same secret would meet inline.
    fn check_secret(&mut self, at: &str, parent: &str, key: &str, target: &str, secret: String) {
        let Some(entry) = entry(&join(parent, target)) else { return };
        let base = self.base.clone();
        match entry.kind.check(&Value::String(secret), &base) {
            Err(message) => self.error_at(&join(at, key), &format!("names a file whose content {message}")),
            Ok(value) => {
                for (_, table) in tables(&mut self.values, parent, false).into_iter().filter(|(path, _)| path == at) {
                    table.insert(target.to_owned(), value.clone());
                }
            }
        }
    }

    /// Every file that a setting names, by the setting's path.
    pub fn named_files(&mut self) -> Vec<(String, PathBuf)> {
        let mut files = Vec::new();
        for entry in entries().iter().filter(|entry| entry.kind == Kind::Path && entry.key().ends_with("_file")) {
            let (parent, key) = entry.split();
            for (at, table) in tables(&mut self.values, parent, false) {
                if let Some(Value::String(file)) = table.get(key) {
                    files.push((join(&at, key), PathBuf::from(file)));
                }
            }
        }
        files
    }

    /// Hides every secret: the tree may then be shown.
    pub fn redact(&mut self) {
        for entry in entries().iter().filter(|entry| entry.kind.holds_secret()) {
            let (parent, key) = entry.split();
            for (_, table) in tables(&mut self.values, parent, false) {
                if let Some(Value::String(text)) = table.get_mut(key) {
                    *text = entry.kind.redact(text);
                }
            }
        }
    }
}

/// One line end after the secret is what editors and `echo` leave.
fn read_secret(file: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read from {file}: {error}"))?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() { Err(format!("names {file}, which is empty")) } else { Ok(text.to_owned()) }
}

fn merge(into: &mut Table, from: Table, parent: &str) {
    for (key, value) in from {
        let path = join(parent, &key);
        if let Some(rival) = entry(&path).and_then(|entry| entry.rival.as_ref()) {
            into.remove(rival);
        }
        match (into.get_mut(&key), value) {
            (Some(Value::Table(own)), Value::Table(new)) => merge(own, new, &path),
            (Some(Value::Array(own)), Value::Array(new)) if entry(&path).is_none() => own.extend(new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Every table at a path of the settings table (`tokens`, `clients[]`) with its own path (`clients[0]`). `make`
/// adds the tables that are absent, but never an item of a list.
pub fn tables<'a>(root: &'a mut Table, path: &str, make: bool) -> Vec<(String, &'a mut Table)> {
    let mut found = vec![(String::new(), root)];
    for segment in path.split('.').filter(|segment| !segment.is_empty()) {
        let mut next = Vec::new();
        for (at, table) in found {
            if let Some(list) = segment.strip_suffix("[]") {
                let items = table.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
                let items = items.enumerate().filter_map(|(n, item)| item.as_table_mut().map(|item| (n, item)));
                next.extend(items.map(|(n, item)| (format!("{}[{n}]", join(&at, list)), item)));
            } else {
                if make && !table.contains_key(segment) {
                    table.insert(segment.to_owned(), Value::Table(Table::new()));
                }
                next.extend(table.get_mut(segment).and_then(Value::as_table_mut).map(|t| (join(&at, segment), t)));
            }
        }
        found = next;
    }
    found
}
