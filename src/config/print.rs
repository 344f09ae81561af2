//! The settings table for people: the template of `keyward config generate` and `docs/configuration.md`.

use std::fmt::Write as _;

use super::kind::Kind;
use super::read::variable_name;
use super::settings::{Entry, Presence, SECTIONS, Section, entries};

const WIDTH: usize = 100;

const TEMPLATE_HEAD: &str = "\
Configuration of Keyward. A line that starts with `#` and a name shows a setting's default, or an example where it \
has none: remove the `#` to set it. Then `keyward config check` tells what is wrong.";

/// A commented configuration file. Each setting's line starts with `#` and no space, each explanation's with both.
pub fn template() -> String {
    let mut text = String::new();
    comment(&mut text, TEMPLATE_HEAD);
    for section in SECTIONS {
        text.push('\n');
        comment(&mut text, section.doc);
        match section.path.strip_suffix("[]") {
            Some(list) => line(&mut text, &format!("#[[{list}]]")),
            None if section.path.is_empty() => {}
            None => line(&mut text, &format!("[{}]", section.path)),
        }
        for entry in of(section).filter(|entry| !entry.substitute) {
            text.push('\n');
            comment(&mut text, &explanation(entry));
            let sample = entry.default.as_deref().filter(|_| entry.example.is_none()).or(entry.example.as_deref());
            line(&mut text, &format!("#{} = {}", key_in(section, entry), sample.unwrap_or_default()));
        }
    }
    text
}

fn explanation(entry: &Entry) -> String {
    let mut text = entry.doc.clone();
    if !matches!(entry.kind, Kind::Text | Kind::Bool | Kind::Path | Kind::Strings) {
        let _ = write!(text, " Takes {}.", entry.kind.describe());
    }
    match (entry.presence, &entry.default) {
        (Presence::Required | Presence::Key, _) => text.push_str(" Required."),
        (_, Some(default)) if entry.example.is_some() => {
            let _ = write!(text, " Default: {default}.");
        }
        _ => {}
    }
    if let Some(rival) = &entry.rival {
        let _ = write!(text, " Or write `{rival}` in its place.");
    }
    text
}

/// The settings of one section, in the table's order.
fn of(section: &Section) -> impl Iterator<Item = &'static Entry> {
    entries().iter().filter(move |entry| section_of(entry).is_some_and(|own| own.path == section.path))
}

/// The innermost section around a setting: `login.attempts` is a key of `[rate_limits]`.
fn section_of(entry: &Entry) -> Option<&'static Section> {
    let around = |section: &&Section| {
        section.path.is_empty() || entry.path.strip_prefix(section.path).is_some_and(|rest| rest.starts_with('.'))
    };
    SECTIONS.iter().filter(around).max_by_key(|section| section.path.len())
}

fn key_in<'a>(section: &Section, entry: &'a Entry) -> &'a str {
    entry.path.strip_prefix(section.path).unwrap_or(&entry.path).trim_start_matches('.')
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn comment(text: &mut String, words: &str) {
    let mut row = String::from("#");
    for word in words.split(' ') {
        if row.chars().count() + 1 + word.chars().count() > WIDTH {
            line(text, &row);
            row = String::from("#");
        }
        row.push(' ');
        row.push_str(word);
    }
    line(text, &row);
}

const REFERENCE_HEAD: &str = "\
# Configuration

<!-- Written from the settings table (src/config/settings.rs); do not edit. To write it again:
     BLESS=1 cargo test --lib config -->

Keyward reads one TOML file, `keyward.toml` in the current directory or the one given with `--config`. A value is
taken from the command line, else from the environment, else from the file, else it is the default below.

- A variable's name is `KEYWARD_` and the setting's path with `__` for each dot: `{variable}`
  is `{path}`. Lists are written `a,b` or as a TOML array. Lists of tables stand in the file only.
- An unknown setting or variable is an error, so a misspelt one is never ignored.
- A relative path in the file, or in a default, is one beside the file. A relative path in the environment or on the
  command line is one in the current directory.
- Every secret can stand in a file of its own, named by the setting that ends in `_file`.
- A duration is a whole number and a unit: `250ms`, `60s`, `15m`, `12h`, `30d`.

`keyward config generate` prints a commented file to start from, `keyward config check` tells everything that is
wrong with one, and `keyward config dump` shows what is in effect, secrets hidden.
";

/// The reference, `docs/configuration.md`.
pub fn reference() -> String {
    let path = "tokens.access_token_ttl";
    let mut text = REFERENCE_HEAD.replace("{variable}", &variable_name(path)).replace("{path}", path);
    for section in SECTIONS {
        let title = match section.path.strip_suffix("[]") {
            Some(list) => format!("`[[{list}]]`"),
            None if section.path.is_empty() => "Top level".to_owned(),
            None => format!("`[{}]`", section.path),
        };
        let _ = write!(text, "\n## {title}\n\n{}\n\n", section.doc);
        text.push_str("| setting | takes | default | meaning |\n|---|---|---|---|\n");
        for entry in of(section) {
            let default = match (&entry.default, entry.presence) {
                (Some(default), _) => format!("`{default}`"),
                (None, Presence::Required | Presence::Key) => "required".to_owned(),
                (None, _) => String::new(),
            };
            let (key, takes) = (key_in(section, entry), entry.kind.describe());
            let _ = writeln!(text, "| `{key}` | {takes} | {default} | {} |", meaning(entry));
        }
    }
    text
}

fn meaning(entry: &Entry) -> String {
    let mut text = entry.doc.clone();
    if matches!(entry.presence, Presence::Unique | Presence::Key) {
        text.push_str(" Unique.");
    }
    if let (Some(example), None) = (&entry.example, &entry.default) {
        let _ = write!(text, " Example: `{example}`.");
    }
    if let Some(rival) = entry.rival.as_ref().filter(|_| entry.substitute && !entry.holds_secret) {
        let _ = write!(text, " Takes the place of `{rival}`.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    /// What a person does to a commented line to make it count.
    fn uncommented(template: &str) -> String {
        let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
        let lines = template.lines().map(|line| if is_setting(line) { &line[1..] } else { line });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn check(text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, content) in [
            ("keyward.toml", text),
            ("web.secret", "s3cret\n"),
            ("alice.pw", "correct horse\n"),
            ("smtp.pw", "s3cret\n"),
        ] {
            std::fs::write(dir.path().join(name), content).expect("written");
        }
        let sources = Sources { files: vec![dir.path().join("keyward.toml")], ..Sources::default() };
        load(sources).map(|loaded| loaded.warnings).map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_template_is_a_configuration_once_its_issuer_is_set() {
        let printed = template();
        assert!(check(&printed).expect_err("no issuer").contains("`issuer` is missing"));
        assert_eq!(check(&printed.replacen("#issuer", "issuer", 1)), Ok(Vec::new()));
    }

    #[test]
    fn the_template_is_a_configuration_once_every_line_counts() {
        assert_eq!(check(&uncommented(&template())), Ok(Vec::new()));
    }

    #[test]
    fn the_template_and_the_reference_name_every_setting() {
        let (template, reference) = (template(), reference());
        for section in SECTIONS {
            assert!(of(section).next().is_some(), "nothing in [{}]", section.path);
        }
        for entry in entries() {
            let section = section_of(entry).expect("a section");
            let key = key_in(section, entry);
            assert!(reference.contains(&format!("| `{key}` |")), "{}", entry.path);
            let written = if entry.substitute { format!("`{key}`") } else { format!("#{key} = ") };
            assert!(template.contains(&written), "{}: {written}", entry.path);
        }
    }

    #[test]
    fn the_reference_in_docs_is_the_one_of_this_table() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(file, reference()).expect("written");
        }
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(written == reference(), "{file} is stale; write it with: BLESS=1 cargo test --lib config");
    }
}
