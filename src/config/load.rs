//! From the sources to the configuration: read, lay over one another, fill in defaults, judge, build. Every step
//! reports all that it finds; a later one runs only where the earlier ones left something to judge.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use toml::{Table, Value};

use crate::crypto::secret::Secret;
use crate::protocol::api_key::Policy;
use crate::protocol::ids::ClientId;
use crate::protocol::metadata::{DeclaredScope, Resource, TokenDefaults};

use super::draft::Draft;
use super::error::{ConfigError, ConfigErrors, Origin};
use super::issuer::Issuer;
use super::kind;
use super::listen::Listen;
use super::model::{
    Brand, Config, ConnectionLimits, Database, DeclaredClient, DeclaredUser, Events, KeySource, Log, Passwords,
    RateLimits, Sessions, SignInApis, SigningKeys, TlsFiles, UsernameApi,
};
use super::{mail, read, rules};

/// Where settings come from, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// In order: a later file's values win, and its items of lists of tables are added.
    pub files: Vec<PathBuf>,
    /// The whole environment; only `KEYWARD_…` is looked at.
    pub env: Vec<(String, String)>,
    /// `("tokens.access_token_ttl", "5m")`, from the command line.
    pub flags: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// What works but should be looked at, one line each.
    pub warnings: Vec<String>,
}

/// The configuration that `sources` make, or every error in them.
pub fn load(sources: Sources) -> Result<Loaded, ConfigErrors> {
    let mut draft = read_all(&sources);
    // After a file that could not be read everything else would seem to be missing.
    if !draft.unread {
        draft.fill_defaults();
        rules::check(&mut draft);
        draft.read_secrets();
    }
    draft.finish()?;
    let config = build(std::mem::take(&mut draft.values)).map_err(|error| {
        let message = format!("does not fit together: {error}; please report this");
        ConfigErrors(vec![ConfigError { origin: draft.origin(""), message }])
    })?;
    Ok(Loaded { config, warnings: draft.warnings })
}

/// The effective settings as TOML, defaults included and secrets hidden. Whether they make a configuration is for
/// [`load`] to say.
pub fn dump(sources: &Sources) -> Result<String, ConfigErrors> {
    let mut draft = read_all(sources);
    draft.finish()?;
    draft.fill_defaults();
    draft.redact();
    toml::to_string(&draft.values)
        .map_err(|error| ConfigErrors(vec![ConfigError { origin: Origin::Nowhere, message: error.to_string() }]))
}

/// The files that the effective settings name, by setting. None of them is opened.
pub fn named_files(sources: &Sources) -> Result<Vec<(String, PathBuf)>, ConfigErrors> {
    let mut draft = read_all(sources);
    draft.finish()?;
    Ok(draft.named_files())
}

fn read_all(sources: &Sources) -> Draft {
    let mut draft = Draft::of(sources.files.first());
    for file in &sources.files {
        read::file(&mut draft, file);
    }
    read::environment(&mut draft, &sources.env);
    read::flags(&mut draft, &sources.flags);
    draft
}

/// The tree as the settings table guarantees it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    issuer: Issuer,
    listen: Vec<Listen>,
    #[serde(default)]
    admin_listen: Vec<Listen>,
    data_dir: PathBuf,
    key_dir: Option<PathBuf>,
    master_key_file: Option<PathBuf>,
    gateway_cookie_domain: Option<String>,
    brand: Brand,
    database: Database,
    #[serde(default)]
    tls: Tls,
    proxy: Proxy,
    limits: ConnectionLimits,
    tokens: TokenDefaults,
    sessions: Sessions,
    passwords: Passwords,
    signing_keys: SigningKeys,
    rate_limits: RateLimits,
    api_keys: Policy,
    #[serde(default)]
    sign_in_apis: SignInApisTree,
    mail: mail::Tree,
    events: Events,
    log: Log,
    #[serde(default)]
    scopes: Vec<DeclaredScope>,
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    clients: Vec<Table>,
    #[serde(default)]
    users: Vec<Table>,
}

/// A call without a client is off.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInApisTree {
    #[serde(default)]
    api_key: SignInApiTree,
    #[serde(default)]
    username: SignInApiTree,
    #[serde(default)]
    device: SignInApiTree,
}

impl SignInApisTree {
    fn build(self) -> SignInApis {
        let username = self.username;
        SignInApis {
            api_key: self.api_key.client_id.map(ClientId::new),
            username: username.client_id.zip(username.password_min_length).map(|(client_id, password_min_length)| {
                UsernameApi { client_id: ClientId::new(client_id), password_min_length }
            }),
            device: self.device.client_id.map(ClientId::new),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInApiTree {
    client_id: Option<String>,
    /// Of one of them.
    password_min_length: Option<u32>,
}

/// Both or neither, says `rules.rs`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proxy {
    trusted: Vec<String>,
    forwarded_authorization: bool,
}

type BuildError = Box<dyn std::error::Error>;

fn build(values: Table) -> Result<Config, BuildError> {
    let tree: Tree = values.try_into()?;
    let trusted =
        tree.proxy.trusted.iter().map(|text| kind::network(text).ok_or_else(|| format!("{text}: no network")));
    let key_source = match (tree.master_key_file, tree.key_dir) {
        (Some(file), _) => KeySource::File(file),
        (None, Some(dir)) => KeySource::Dir(dir),
        (None, None) => return Err("neither key_dir nor master_key_file".into()),
    };
    Ok(Config {
        issuer: tree.issuer,
        listen: tree.listen,
        admin_listen: tree.admin_listen,
        data_dir: tree.data_dir,
        key_source,
        gateway_cookie_domain: tree.gateway_cookie_domain,
        brand: tree.brand,
        database: tree.database,
        tls: tree.tls.cert_file.zip(tree.tls.key_file).map(|(cert_file, key_file)| TlsFiles { cert_file, key_file }),
        trusted_proxies: trusted.collect::<Result<Vec<IpNet>, String>>()?,
        forwarded_authorization: tree.proxy.forwarded_authorization,
        limits: tree.limits,
        tokens: tree.tokens,
        sessions: tree.sessions,
        passwords: tree.passwords,
        signing_keys: tree.signing_keys,
        rate_limits: tree.rate_limits,
        api_keys: tree.api_keys,
        sign_in_apis: tree.sign_in_apis.build(),
        mail: mail::build(tree.mail)?,
        events: tree.events,
        log: tree.log,
        scopes: tree.scopes,
        resources: tree.resources,
        clients: tree.clients.into_iter().map(client).collect::<Result<_, _>>()?,
        users: tree.users.into_iter().map(user).collect::<Result<_, _>>()?,
    })
}

fn client(mut table: Table) -> Result<DeclaredClient, BuildError> {
    Ok(DeclaredClient {
        client_id: text(&mut table, "client_id").ok_or("a client without client_id")?,
        client_secret: text(&mut table, "client_secret").map(Secret::new),
        metadata: table.try_into()?,
    })
}

fn user(mut table: Table) -> Result<DeclaredUser, BuildError> {
    Ok(DeclaredUser {
        username: text(&mut table, "username"),
        email: text(&mut table, "email"),
        email_verified: table.remove("email_verified").and_then(|value| value.as_bool()).unwrap_or_default(),
        password: text(&mut table, "password").map(Secret::new),
        roles: texts(&mut table, "roles"),
        groups: texts(&mut table, "groups"),
        claims: table
            .into_iter()
            .map(|(name, value)| Ok((name, serde_json::to_value(value)?)))
            .collect::<Result<_, BuildError>>()?,
    })
}

fn texts(table: &mut Table, key: &str) -> Vec<String> {
    let list = table.remove(key);
    let items = list.as_ref().and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn text(table: &mut Table, key: &str) -> Option<String> {
    match table.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}
