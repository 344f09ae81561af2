//! "Did you mean": the setting that somebody who wrote an unknown name most likely wanted.

use super::settings::{Entry, SECTIONS, entries};

const ADVICE: &str = "; `keyward config generate` lists all of them";

/// What to add to the report of an unknown key, by its path in the settings table.
pub fn key(path: &str) -> String {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let inside = |entry: &&Entry| entry.split().0 == parent;
    let mut near: Vec<&str> = entries().iter().filter(inside).map(Entry::key).collect();
    if parent.is_empty() {
        near.extend(SECTIONS.iter().map(|section| section.path.trim_end_matches("[]")));
    }
    let mut elsewhere =
        entries().iter().filter(|entry| !entry.in_list() && entry.key() == key).map(|e| e.path.as_str());
    let paths = entries().iter().map(|entry| entry.path.as_str());
    let flattened = entries().iter().find(|entry| entry.path.contains('.') && entry.path.replace('.', "_") == path);
    answer(
        flattened
            .map(|entry| entry.path.as_str())
            .or_else(|| closest(key, near.iter().copied()))
            .or_else(|| near.iter().copied().find(|name| !key.is_empty() && name.ends_with(&format!("_{key}"))))
            .or_else(|| elsewhere.next())
            .or_else(|| closest(path, paths)),
    )
}

/// The same for a variable; `name` writes a path as one.
pub fn variable(variable: &str, name: impl Fn(&str) -> String) -> String {
    let names: Vec<String> = entries().iter().filter(|e| !e.in_list()).map(|entry| name(&entry.path)).collect();
    let lists = SECTIONS.iter().filter(|section| section.path.ends_with("[]"));
    if lists.into_iter().any(|list| variable.starts_with(&name(list.path.trim_end_matches("[]")))) {
        return "; lists of tables stand in the file only".to_owned();
    }
    answer(closest(variable, names.iter().map(String::as_str)))
}

fn answer(name: Option<&str>) -> String {
    name.map_or_else(|| ADVICE.to_owned(), |name| format!("; did you mean `{name}`?"))
}

/// The nearest name, when it is near enough to be a slip of the keyboard.
fn closest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wanted.chars().count() / 3).max(1);
    let rated = names.map(|name| (strsim::damerau_levenshtein(wanted, name), name));
    rated.filter(|(distance, name)| *distance <= allowed && !name.is_empty()).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::variable_name;

    #[test]
    fn an_unknown_key_is_told_its_likely_name() {
        for (path, expected) in [
            ("isuer", Some("issuer")),
            ("token", Some("tokens")),
            ("client", Some("clients")),
            ("tokens.acces_token_ttl", Some("access_token_ttl")),
            ("access_token_ttl", Some("tokens.access_token_ttl")),
            ("clients[].name", Some("client_name")),
            ("clients[].redirect_uri", Some("redirect_uris")),
            ("clients[].secret", Some("client_secret")),
            ("rate_limits.login.attempt", Some("attempts")),
            ("database_url", Some("database.url")),
            ("zzzzzz", None),
            ("", None),
        ] {
            let expected = expected.map_or(ADVICE.to_owned(), |name| format!("; did you mean `{name}`?"));
            assert_eq!(key(path), expected, "{path}");
        }
    }

    #[test]
    fn an_unknown_variable_is_told_its_likely_name() {
        for (name, expected) in [
            ("KEYWARD_DATABASE_URL", "did you mean `KEYWARD_DATABASE__URL`?"),
            ("KEYWARD_ISUER", "did you mean `KEYWARD_ISSUER`?"),
            ("KEYWARD_CLIENTS__CLIENT_ID", "in the file only"),
            ("KEYWARD_WHATEVER_THIS_IS", ADVICE),
        ] {
            assert!(variable(name, variable_name).contains(expected), "{name}: {}", variable(name, variable_name));
        }
    }
}
