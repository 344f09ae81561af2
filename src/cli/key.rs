//! `keyward key`: the keys that tokens are signed with, and the master key that seals them.

use std::fmt::Display;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Sure;
use super::output::{self, Format};
use super::progress::during;
use crate::account::signing_keys;
use crate::app::App;
use crate::crypto::pem;
use crate::keys::life::{self, PUBLISHED_AHEAD, Policy, State};
use crate::keys::{Prepared, Retirement};
use crate::protocol::client::SigningAlg;
use crate::protocol::metadata::JWKS_LIFETIME;
use crate::store::keys::StoredKey;

#[derive(Subcommand)]
pub enum KeyCommand {
    /// List the signing keys: next (published, not used yet), active (signs), passive (published until the last token
    /// that it signed has expired).
    List {
        /// Retired keys as well.
        #[arg(long)]
        all: bool,
    },
    /// Make a successor for the active key. It is published at once and takes over when every copy of /jwks has it.
    Rotate {
        /// Only this algorithm: RS256, ES256, PS256 or EdDSA; may be repeated. Default: all that have a key.
        #[arg(long = "alg", value_parser = algorithm)]
        algs: Vec<SigningAlg>,
        /// Sign with it at once. Relying parties with an older copy of /jwks refuse its tokens until they fetch it again.
        #[arg(long)]
        at_once: bool,
        #[command(flatten)]
        sure: Sure,
    },
    /// End a key at once, as after a theft: its tokens are refused from now on. Another one signs in its place.
    Retire {
        // A thumbprint may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
        kid: String,
        #[command(flatten)]
        sure: Sure,
    },
    /// Take a private key from elsewhere into use: RSA (PKCS#1, PKCS#8), P-256 or Ed25519, in PEM.
    Import {
        /// `-`: standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What an RSA key signs: RS256 (default) or PS256.
        #[arg(long, value_parser = algorithm)]
        alg: Option<SigningAlg>,
        /// The name that relying parties know it by. Default: its RFC 7638 thumbprint.
        #[arg(long)]
        kid: Option<String>,
        /// Sign with it at once: relying parties have it already.
        #[arg(long)]
        at_once: bool,
        #[command(flatten)]
        sure: Sure,
    },
    /// Seal everything under a new master key. Tokens, sessions and signing keys stay what they are.
    Rekey {
        /// The new key: 32 random bytes in base64url. Default: a fresh one, where `key_dir` is ours.
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
        #[command(flatten)]
        sure: Sure,
    },
}

fn algorithm(text: &str) -> Result<SigningAlg, String> {
    let known = || SigningAlg::ALL.iter().map(|alg| alg.as_str()).collect::<Vec<_>>().join(", ");
    text.parse().map_err(|()| format!("one of {}", known()))
}

pub async fn run(command: KeyCommand, app: &App, format: Format) -> anyhow::Result<()> {
    match command {
        KeyCommand::List { all } => list(app, format, all).await,
        KeyCommand::Rotate { algs, at_once, sure } => {
            ask_at_once(at_once, &sure)?;
            rotate(app, format, algs, at_once).await
        }
        KeyCommand::Retire { kid, sure } => retire(app, format, &kid, &sure).await,
        KeyCommand::Import { file, alg, kid, at_once, sure } => {
            ask_at_once(at_once, &sure)?;
            let mut pair = pem::key_pair(&read(&file)?, alg).with_context(|| file.display().to_string())?;
            if let Some(kid) = kid {
                let sound = (1..=255).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic());
                ensure!(sound, "a kid has 1 to 255 visible ASCII characters");
                pair = pair.named(kid);
            }
            let added = during("importing", signing_keys::import(app, pair, at_once)).await?;
            let mut shown = describe(&added, &app.store.signing_keys().await?, &signing_keys::policy(app).await?, app);
            shown["note"] = if added.active_from > app.now() { note_published().into() } else { NOTE_AT_ONCE.into() };
            output::object(format, &shown);
            Ok(())
        }
        KeyCommand::Rekey { new_key_file, sure } => rekey(app, format, new_key_file, &sure).await,
    }
}

const NOTE_AT_ONCE: &str = "signs from now on; relying parties with an older copy of /jwks must fetch it again";

/// An app that checks signatures itself refuses what a key signs that it has not fetched yet.
fn ask_at_once(at_once: bool, sure: &Sure) -> anyhow::Result<()> {
    if !at_once {
        return Ok(());
    }
    sure.ask(&format!(
        "Sign with it at once? Apps with an older copy of /jwks refuse its tokens, up to {JWKS_LIFETIME}."
    ))
}

fn note_published() -> String {
    format!("published now; signs in {PUBLISHED_AHEAD}, when every copy of /jwks has it")
}

async fn list(app: &App, format: Format, all: bool) -> anyhow::Result<()> {
    let keys = app.store.signing_keys().await?;
    let policy = signing_keys::policy(app).await?;
    let shown = keys.iter().filter(|key| all || key.retired_at.is_none());
    let items: Vec<Value> = shown.map(|key| describe(key, &keys, &policy, app)).collect();
    let mut columns = vec!["kid", "alg", "state", "created_at", "active_from", "retires_at"];
    if all {
        columns.push("retired_at");
    }
    output::list(format, &columns, &items);
    Ok(())
}

async fn rotate(app: &App, format: Format, algs: Vec<SigningAlg>, at_once: bool) -> anyhow::Result<()> {
    let keys = app.store.signing_keys().await?;
    let known = |alg: &SigningAlg| life::active(&keys, *alg, app.now()).is_some();
    let algs = if algs.is_empty() { SigningAlg::ALL.iter().copied().filter(known).collect() } else { algs };
    let mut made = Vec::new();
    for alg in algs {
        made.push(during("making a key", signing_keys::rotate(app, alg, at_once)).await?);
    }
    let keys = app.store.signing_keys().await?;
    let policy = signing_keys::policy(app).await?;
    let items: Vec<Value> = made
        .iter()
        .map(|prepared| {
            let (key, note) = match prepared {
                Prepared::Made(key) if key.active_from > app.now() => (key, note_published()),
                Prepared::Made(key) => (key, NOTE_AT_ONCE.to_owned()),
                Prepared::Waits(key) => (key, "was prepared before and waits for its time".to_owned()),
            };
            let mut shown = describe(key, &keys, &policy, app);
            shown["note"] = note.into();
            shown
        })
        .collect();
    output::list(format, &["kid", "alg", "state", "active_from", "note"], &items);
    Ok(())
}

async fn retire(app: &App, format: Format, kid: &str, sure: &Sure) -> anyhow::Result<()> {
    let keys = app.store.signing_keys().await?;
    let now = app.now();
    let key = keys.iter().find(|key| key.kid == kid);
    let key = key.with_context(|| format!("there is no signing key `{kid}`; `keyward key list` shows all"))?;
    let breaks = consequences(life::state(key, &keys, now));
    eprintln!("{}", breaks.join("\n"));
    sure.ask(&format!("Retire {kid} now?"))?;
    let Retirement { retired, was_active, successor } = during("retiring", signing_keys::retire(app, kid)).await?;
    output::object(
        format,
        &json!({
            "retired": retired.kid,
            "alg": retired.alg,
            "was_active": was_active,
            "signs_now": successor,
            "breaks": breaks,
        }),
    );
    Ok(())
}

/// What the end of a key in this state breaks.
fn consequences(state: State) -> Vec<String> {
    let tokens = "Access tokens and ID tokens that it signed are refused from now on, here within a second, and by \
                  those who check signatures themselves once they have fetched /jwks again";
    let stays = "Sessions, refresh tokens, consents and client secrets keep working: apps refresh and go on.";
    match state {
        State::Next => vec!["It has signed nothing yet, so nothing breaks.".to_owned()],
        State::Passive => vec![format!("{tokens} ({JWKS_LIFETIME} with caches that obey)."), stays.to_owned()],
        State::Active => vec![
            format!("{tokens} ({JWKS_LIFETIME} with caches that obey)."),
            format!(
                "Another key signs at once. Unless it was published before, relying parties refuse its tokens until \
                 they fetch /jwks again: up to {JWKS_LIFETIME}."
            ),
            stays.to_owned(),
        ],
        State::Retired => Vec::new(),
    }
}

async fn rekey(app: &App, format: Format, new: Option<PathBuf>, sure: &Sure) -> anyhow::Result<()> {
    sure.ask("Seal the database under a new master key? Older backups keep needing the old one.")?;
    let done = during("sealing anew", signing_keys::rekey(app, new)).await?;
    let (path, old) = (done.path.display().to_string(), done.old.map(|old| old.display().to_string()));
    let next = match &old {
        Some(_) => vec![
            format!("copy {path} to every other machine that runs keyward on this database"),
            "keep the old key with the backups that were made before now, and nowhere else".to_owned(),
        ],
        None => {
            vec![format!("put the new key in {path}, here and on every other machine, before keyward starts again")]
        }
    };
    output::object(format, &json!({ "master_key": path, "old_key": old, "next": next }));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| unreadable(path.display(), error));
    }
    let mut text = Zeroizing::new(String::new());
    let place = "the key on standard input";
    std::io::stdin().read_to_string(&mut text).map_err(|error| unreadable(place, error))?;
    Ok(text)
}

fn unreadable(place: impl Display, error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        // DER, most likely.
        ErrorKind::InvalidData => {
            anyhow!("{place} is no PEM text; `openssl pkey -inform DER -in FILE` writes a DER key as one")
        }
        _ => anyhow::Error::new(error).context(place.to_string()),
    }
}

fn describe(key: &StoredKey, keys: &[StoredKey], policy: &Policy, app: &App) -> Value {
    let mut shown = Map::new();
    let mut set = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    set("kid", key.kid.as_str().into());
    set("alg", key.alg.as_str().into());
    set("state", life::state(key, keys, app.now()).as_str().into());
    set("created_at", output::time(key.created_at).into());
    set("active_from", output::time(key.active_from).into());
    set("replaced_at", life::replaced_at(key, keys).map(output::time).into());
    let due = life::retires_at(key, keys, policy).filter(|_| key.retired_at.is_none());
    set("retires_at", due.map(output::time).into());
    set("retired_at", key.retired_at.map(output::time).into());
    Value::Object(shown)
}
