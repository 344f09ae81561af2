//! The house stands: imports point down, `protocol` is pure, and libraries stay in their rooms. Reads the tokens of
//! the source, not only its `use` lines, so that a path in the middle of a function counts too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// Modules by floor, lowest first. A module may name those of its own floor and of those below.
const FLOORS: [&[&str]; 9] = [
    &["ambient", "crypto", "protocol", "telemetry"],
    &["config", "store"],
    &["keys", "limit", "mail", "passwords"],
    &["app"],
    &["issue", "live"],
    &["account"],
    &["http", "jobs"],
    &["cli"],
    &["main"],
];

/// Modules of one floor that must not know each other all the same.
const STRANGERS: [(&str, &str); 6] = [
    ("protocol", "ambient"),
    ("protocol", "telemetry"),
    ("crypto", "telemetry"),
    ("config", "store"),
    ("store", "config"),
    ("jobs", "http"),
];

/// What a room must not hold: identifiers that may not stand in files below it (or outside, with `Only`).
enum Rule {
    Never { room: &'static str, words: &'static [&'static str] },
    Only { rooms: &'static [&'static str], words: &'static [&'static str] },
}

const RULES: [Rule; 5] = [
    Rule::Never {
        room: "protocol",
        words: &["async", "await", "sqlx", "axum", "tokio", "rand", "SystemTime", "Instant", "Clock", "Rng", "OsRng"],
    },
    Rule::Only { rooms: &["store"], words: &["sqlx"] },
    Rule::Only { rooms: &["http"], words: &["axum"] },
    Rule::Only { rooms: &["config", "mail"], words: &["lettre"] },
    Rule::Only {
        rooms: &["telemetry"],
        words: &["metrics_exporter_prometheus", "opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp"],
    },
];

struct Source {
    path: String,
    /// First component below `src`, without `.rs`.
    module: String,
    /// Runs of identifiers joined by `::`.
    paths: Vec<Vec<String>>,
    words: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.iter().map(|file| read(&root, file)).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let path = file.strip_prefix(root).expect("below src").to_string_lossy().into_owned();
    let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    let text = fs::read_to_string(file).expect("a source");
    let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut source = Source { path, module, paths: Vec::new(), words: Vec::new() };
    walk(tokens, &[], &mut source);
    source
}

/// Collects identifiers and paths; a group after `::` (`use a::{b, c}`) continues the path before it.
fn walk(tokens: TokenStream, prefix: &[String], source: &mut Source) {
    let mut path: Vec<String> = prefix.to_vec();
    let mut colons = 2;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                if colons < 2 {
                    source.paths.push(std::mem::replace(&mut path, prefix.to_vec()));
                }
                path.push(ident.to_string());
                source.words.push(ident.to_string());
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Group(group) => {
                let inner = if colons >= 2 { path.clone() } else { Vec::new() };
                walk(group.stream(), &inner, source);
                source.paths.push(std::mem::replace(&mut path, prefix.to_vec()));
                colons = 2;
            }
            _ => {
                source.paths.push(std::mem::replace(&mut path, prefix.to_vec()));
                colons = 2;
            }
        }
    }
    source.paths.push(path);
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn every_module_has_its_floor() {
    let unknown: Vec<String> = sources()
        .iter()
        .map(|source| source.module.clone())
        .filter(|module| module != "lib" && floor(module).is_none())
        .collect();
    assert!(unknown.is_empty(), "give {unknown:?} a floor in tests/it/architecture.rs");
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        for path in &source.paths {
            let own_crate = matches!(path.first().map(String::as_str), Some("crate" | "keyward"));
            let Some(target) = path.get(1).filter(|_| own_crate) else { continue };
            let up = floor(target) > floor(&source.module);
            let strangers = STRANGERS.contains(&(source.module.as_str(), target.as_str()));
            if up || strangers {
                wrong.push(format!("{}: {}", source.path, path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut wrong: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources() {
        for rule in &RULES {
            let (applies, words) = match rule {
                Rule::Never { room, words } => (source.module == *room, words),
                Rule::Only { rooms, words } => (!rooms.contains(&source.module.as_str()), words),
            };
            let found = words.iter().filter(|word| applies && source.words.iter().any(|own| own == *word));
            wrong.entry(source.path.clone()).or_default().extend(found);
        }
    }
    wrong.retain(|_, words| !words.is_empty());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_sees_paths_wherever_they_stand() {
    let mut source = Source { path: String::new(), module: String::new(), paths: Vec::new(), words: Vec::new() };
    walk("use crate::{store::x, http}; fn f() { let a = crate::cli::run(b::c); }".parse().unwrap(), &[], &mut source);
    for expected in [["crate", "store"], ["crate", "http"], ["crate", "cli"]] {
        assert!(
            source.paths.iter().any(|path| path.len() >= 2 && path[..2] == expected),
            "{expected:?} {:?}",
            source.paths
        );
    }
}
