//! The validated configuration: what the rest of the program sees. How it is read is `load.rs`, which of it may be
//! written is `settings.rs`; the field names here are the keys of the file.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use ipnet::IpNet;
use lettre::message::Mailbox;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::crypto::secret::Secret;
use crate::protocol::api_key::Policy;
use crate::protocol::client::{ClientMetadata, wire_enum};
use crate::protocol::first_party::Api;
use crate::protocol::ids::ClientId;
use crate::protocol::metadata::{DeclaredScope, Resource, TokenDefaults};
use crate::protocol::time::Span;

use super::database;
use super::issuer::Issuer;
use super::listen::Listen;

/// Everything an operator decided, with every default filled in and every rule of `rules.rs` met.
#[derive(Clone, Debug)]
pub struct Config {
    pub issuer: Issuer,
    /// At least one.
    pub listen: Vec<Listen>,
    /// Health and metrics; may be empty.
    pub admin_listen: Vec<Listen>,
    pub data_dir: PathBuf,
    pub key_source: KeySource,
    /// For the cookie that gateways on other hosts take. The issuer's host is below it, and https.
    pub gateway_cookie_domain: Option<String>,
    pub brand: Brand,
    pub database: Database,
    /// TLS of our own on the TCP addresses.
    pub tls: Option<TlsFiles>,
    pub trusted_proxies: Vec<IpNet>,
    /// Their `X-Forwarded-Authorization` replaces `Authorization`.
    pub forwarded_authorization: bool,
    pub limits: ConnectionLimits,
    pub tokens: TokenDefaults,
    pub sessions: Sessions,
    pub passwords: Passwords,
    pub signing_keys: SigningKeys,
    pub rate_limits: RateLimits,
    pub api_keys: Policy,
    pub sign_in_apis: SignInApis,
    pub mail: Mail,
    pub events: Events,
    pub log: Log,
    pub scopes: Vec<DeclaredScope>,
    pub resources: Vec<Resource>,
    pub clients: Vec<DeclaredClient>,
    pub users: Vec<DeclaredUser>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub url: DatabaseUrl,
    /// For a connection.
    pub acquire_timeout: Span,
}

/// `sqlite://…` or `postgres://…`. It may hold a password, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for DatabaseUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&database::without_password(&self.0))
    }
}

/// Where the master key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A directory of our own; the key is made there when it is absent.
    Dir(PathBuf),
    /// A file that somebody else provides; never written.
    File(PathBuf),
}

/// A certificate with its chain, and the private key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionLimits {
    /// On all addresses together.
    pub connections: u32,
    /// From one network, unless it is a trusted proxy.
    pub connections_per_peer: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brand {
    pub name: String,
    pub logo_file: Option<PathBuf>,
    /// `#rrggbb`.
    pub accent: String,
    pub privacy_uri: Option<String>,
    pub terms_uri: Option<String>,
    pub help_uri: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    pub idle: Span,
    pub absolute: Span,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passwords {
    /// Characters, not bytes.
    pub min_length: u32,
    pub memory_kib: u32,
    pub iterations: u32,
    /// For the turn of a hash.
    pub queue_timeout: Span,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKeys {
    /// Zero: only by hand.
    pub rotate_every: Span,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    pub retention: Span,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimits {
    pub login: RateLimit,
    /// Bad ones.
    pub api_key: RateLimit,
}

/// Plain calls to sign in with, each acting as a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInApis {
    pub api_key: Option<ClientId>,
    pub username: Option<UsernameApi>,
    pub device: Option<ClientId>,
}

impl SignInApis {
    /// The client that the calls of an API for first-party apps act as, where it is switched on.
    pub fn client_of(&self, api: Api) -> Option<&ClientId> {
        match api {
            Api::Username => self.username.as_ref().map(|api| &api.client_id),
            Api::Device => self.device.as_ref(),
        }
    }

    /// Whether the calls of any API act as this client.
    pub fn name(&self, client: &str) -> bool {
        let first_party = Api::ALL.into_iter().filter_map(|api| self.client_of(api));
        first_party.chain(&self.api_key).any(|named| named.as_str() == client)
    }
}

/// `/api/auth/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsernameApi {
    pub client_id: ClientId,
    /// Characters, not bytes.
    pub password_min_length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    pub attempts: u32,
    pub window: Span,
}

/// How mail leaves.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The server that takes it; without one, it becomes files under `mail` in the data directory.
    pub smtp: Option<Smtp>,
    pub from: Mailbox,
    /// For what is sent to one address.
    pub address_cap: MailCap,
    /// For what is sent on behalf of one partner.
    pub partner_cap: MailCap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailCap {
    pub mails: u32,
    pub window: Span,
}

#[derive(Clone, Debug)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    pub ca_file: Option<PathBuf>,
    /// Name and password.
    pub credentials: Option<(String, Secret<String>)>,
    /// For one mail, connection included.
    pub timeout: Span,
}

wire_enum! {
    /// Where mail goes.
    pub enum MailTransport {
        File = "file",
        Smtp = "smtp",
    }
}

wire_enum! {
    /// When a connection to a mail server becomes TLS.
    pub enum SmtpTls {
        Starttls = "starttls",
        Implicit = "implicit",
        None = "none",
    }
}

wire_enum! {
    /// How log lines look.
    pub enum LogFormat {
        Pretty = "pretty",
        Json = "json",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// A filter directive of `tracing-subscriber`.
    pub level: String,
}

/// A client of the file. Whether its metadata is acceptable is for `protocol::registration` to say.
#[derive(Clone, Debug)]
pub struct DeclaredClient {
    pub client_id: String,
    pub client_secret: Option<Secret<String>>,
    pub metadata: ClientMetadata,
}

/// A user of the file; `username`, `email` or both are present.
#[derive(Clone, Debug)]
pub struct DeclaredUser {
    pub username: Option<String>,
    pub email: Option<String>,
    pub email_verified: bool,
    pub password: Option<Secret<String>>,
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    /// The other claims (OpenID Connect Core §5.1) by name.
    pub claims: Map<String, Value>,
}
