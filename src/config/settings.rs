//! The one table of settings. Reading, type checks, defaults, the environment, `config generate` and
//! `docs/configuration.md` all come from it; a setting stands here only once its feature is built. What a kind of
//! value accepts is `kind.rs`; rules that tie two settings together are `rules.rs`.

use std::sync::LazyLock;

use crate::crypto::password::{MAX_ITERATIONS, MAX_MEMORY_KIB};
use crate::protocol::client::{
    AuthMethod, ClientMetadata, GrantType, IdTokenClaims, IntrospectionRight, RefreshTokenRotation, SigningAlg,
};
use crate::protocol::time::Span;

use super::kind::Kind;
use super::model::{LogFormat, MailTransport, SmtpTls};

/// How often a setting must or may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Optional,
    Required,
    /// May be absent; no two items of its list may share a value.
    Unique,
    /// Required, and no two items of its list may share a value.
    Key,
}

/// One row: everything Keyward knows about one setting.
#[derive(Clone, Copy)]
pub struct Setting {
    /// `tokens.access_token_ttl`; `clients[].client_id` inside an array of tables.
    pub path: &'static str,
    pub kind: Kind,
    pub presence: Presence,
    /// As it would be written in TOML.
    pub default: Option<&'static str>,
    /// What the template shows where there is no default, in TOML.
    pub example: Option<&'static str>,
    /// The key beside it that it replaces, and that may not stand with it.
    pub replaces: Option<&'static str>,
    pub doc: &'static str,
}

impl Setting {
    const fn default(self, toml: &'static str) -> Self {
        Self { default: Some(toml), ..self }
    }

    const fn example(self, toml: &'static str) -> Self {
        Self { example: Some(toml), ..self }
    }

    const fn presence(self, presence: Presence) -> Self {
        Self { presence, ..self }
    }

    const fn replaces(self, key: &'static str) -> Self {
        Self { replaces: Some(key), ..self }
    }
}

const fn setting(path: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting { path, kind, presence: Presence::Optional, default: None, example: None, replaces: None, doc }
}

/// A `[section]`, or with `[]` a `[[list]]`, and what it is for.
pub struct Section {
    pub path: &'static str,
    pub doc: &'static str,
}

const fn section(path: &'static str, doc: &'static str) -> Section {
    Section { path, doc }
}

pub const SECTIONS: &[Section] = &[
    section("", "The provider itself."),
    section("brand", "What people see on the pages."),
    section("database", "Where everything is stored."),
    section(
        "tls",
        "TLS on the TCP addresses of `listen`, where no proxy ends it before. The files are read again when they change.",
    ),
    section("proxy", "Reverse proxies in front of Keyward."),
    section("limits", "How much is taken on at a time."),
    section("tokens", "Lifetimes of what is issued; each client may have its own."),
    section("sessions", "How long a browser stays signed in."),
    section("passwords", "Rules for new passwords, and the cost of their Argon2id hashes."),
    section("signing_keys", "The keys that tokens are signed with; `keyward key list` shows them."),
    section("rate_limits", "How often something may be tried from one source."),
    section("api_keys", "How long API keys live."),
    section(
        "sign_in_apis.api_key",
        "Sign-in with an API key by plain calls: `/v1/auth/api-key/login` and `/v1/auth/refresh`. Off without a client.",
    ),
    section(
        "sign_in_apis.username",
        "Sign-up and sign-in with a user name by plain calls: `/api/auth/*`. Off without a client.",
    ),
    section(
        "sign_in_apis.device",
        "The same for games and other programs on a device: `/auth/*`. Off without a client.",
    ),
    section("mail", "How mail leaves, and how much of it."),
    section(
        "mail.smtp",
        "The server that takes our mail, where `transport` is `smtp`. It has to be trusted with every address.",
    ),
    section("events", "The audit trail, as `keyward event list` shows it (audit.md)."),
    section("log", "What the process logs."),
    section("scopes[]", "Scopes of your resources, beside the standard ones."),
    section("resources[]", "Resource servers that tokens may be made for (RFC 8707)."),
    section(
        "clients[]",
        "Declared clients, in the field names of RFC 7591. They are synced at start: one gone from the file is \
         disabled.",
    ),
    section(
        "users[]",
        "Declared users, created when absent and left alone when present, in the claim names of OpenID Connect Core \
         §5.1.",
    ),
];

/// Sections that each name the client that their calls act as.
pub const SIGN_IN_APIS: [&str; 3] = ["sign_in_apis.api_key", "sign_in_apis.username", "sign_in_apis.device"];

const LIFETIME: Kind = Kind::Duration(Span::from_secs(1), Span::days(3650));
/// A code lives ten minutes at most (RFC 6749 §4.1.2).
const CODE_LIFETIME: Kind = Kind::Duration(Span::from_secs(1), Span::minutes(10));
/// What was sent is remembered for a week.
const MAIL_WINDOW: Kind = Kind::Duration(Span::from_secs(1), Span::days(7));
const PATIENCE: Kind = Kind::Duration(Span::from_millis(100), Span::minutes(10));
const RETRY_WINDOW: Kind = Kind::Duration(Span::ZERO, Span::minutes(10));

macro_rules! one_of {
    ($kind:ident, $name:ident) => {
        Kind::$kind(|| $name::ALL.iter().map(|value| value.as_str()).collect())
    };
}

const ROTATION: Kind = one_of!(Choice, RefreshTokenRotation);
const SIGNING_ALG: Kind = one_of!(Choice, SigningAlg);

pub const SETTINGS: &[Setting] = &[
    setting("issuer", Kind::Issuer, "The issuer identifier, used byte for byte everywhere and best never changed.")
        .example(r#""https://id.example.com""#)
        .presence(Presence::Required),
    setting(
        "listen",
        Kind::Listen,
        "Where the provider accepts connections. Port 0 takes a free port. Whoever may enter the directory of a unix \
         socket is believed like a trusted proxy: let yours in, and nobody else.",
    )
        .default(r#""127.0.0.1:8080""#),
    setting(
        "admin_listen",
        Kind::Listen,
        "Where `/health/live`, `/health/ready` and `/metrics` answer, in plain HTTP and without authentication: for \
         your monitoring alone. Nowhere when absent.",
    )
    .example(r#""127.0.0.1:9090""#),
    setting("data_dir", Kind::Path, "The directory for what Keyward writes.").default(r#""data""#),
    setting(
        "key_dir",
        Kind::Path,
        "The directory of the master key, which seals the signing keys; it is made at the first start.",
    )
    .default(r#""keys""#),
    setting("master_key_file", Kind::Path, "The master key itself, where a secret store mounts it as a file.")
        .example(r#""/run/secrets/keyward-master-key""#)
        .replaces("key_dir"),
    setting(
        "gateway_cookie_domain",
        Kind::CookieDomain,
        "A domain above the issuer's host. Who signs in gets a second cookie for all hosts below it, which gateways at \
         `/forward-auth` take and nothing else does. None when absent.",
    )
    .example(r#""example.com""#),
    setting("brand.name", Kind::Text, "The name on every page.").default(r#""Keyward""#),
    setting("brand.logo_file", Kind::Path, "The picture above every page's form.").example(r#""logo.svg""#),
    setting("brand.accent", Kind::Colour, "The colour of buttons and links.").default(r##""#3d5afe""##),
    setting("brand.privacy_uri", Kind::WebUri, "Your privacy policy.").example(r#""https://www.example.com/privacy""#),
    setting("brand.terms_uri", Kind::WebUri, "Your terms of service.").example(r#""https://www.example.com/terms""#),
    setting("brand.help_uri", Kind::WebUri, "Where people find help.").example(r#""https://www.example.com/help""#),
    setting(
        "database.url",
        Kind::Database,
        "The database; when absent, the SQLite file `keyward.db` inside `data_dir`. Several processes on several \
         machines need PostgreSQL.",
    )
    .example(r#""sqlite://data/keyward.db""#),
    setting(
        "database.acquire_timeout",
        PATIENCE,
        "How long a request waits for a connection to the database before it is answered with 503, and a start for the \
         first one.",
    )
    .default(r#""5s""#),
    setting(
        "tls.cert_file",
        Kind::Path,
        "The certificate in PEM, followed by the intermediate ones. With it TLS 1.2 and 1.3 are spoken, HTTP/2 and \
         HTTP/1.1.",
    )
    .example(r#""/etc/letsencrypt/live/id.example.com/fullchain.pem""#),
    setting("tls.key_file", Kind::Path, "Its private key in PEM, not encrypted.")
        .example(r#""/etc/letsencrypt/live/id.example.com/privkey.pem""#),
    setting(
        "proxy.trusted",
        Kind::Cidrs,
        "The peers whose `X-Forwarded-For` and `Forwarded` headers are believed, read right to left.",
    )
    .default("[]")
    .example(r#"["10.0.0.0/8"]"#),
    setting(
        "proxy.forwarded_authorization",
        Kind::Bool,
        "Whether their `X-Forwarded-Authorization` replaces `Authorization`: for API gateways that put a credential of \
         their own there. They have to remove what visitors send under that name.",
    )
    .default("false"),
    setting(
        "limits.connections",
        Kind::Integer(16, 1_000_000),
        "The most connections at a time, on all addresses together; fewer where the process may not open so many \
         files. Beyond it the connection that has waited longest for its peer makes room.",
    )
    .default("10000"),
    setting(
        "limits.connections_per_peer",
        Kind::Integer(1, 1_000_000),
        "The same for one IPv4 address or IPv6 /64. Peers in `proxy.trusted` and unix sockets are exempt.",
    )
    .default("512"),
    setting("tokens.access_token_ttl", LIFETIME, "How long an access token is good.").default(r#""15m""#),
    setting("tokens.id_token_ttl", LIFETIME, "How long an ID token is good.").default(r#""1h""#),
    setting(
        "tokens.refresh_token_ttl",
        LIFETIME,
        "How long a grant can be refreshed, from its start; refreshing does not extend it.",
    )
    .default(r#""30d""#),
    setting("tokens.authorization_code_ttl", CODE_LIFETIME, "How long an authorization code can be redeemed.")
        .default(r#""60s""#),
    setting(
        "tokens.refresh_retry_window",
        RETRY_WINDOW,
        "How long a client whose answer got lost may repeat a refresh and receive the same successor.",
    )
    .default(r#""60s""#),
    setting(
        "tokens.refresh_token_rotation",
        ROTATION,
        "When using a refresh token replaces it; `auto` is for public clients whose tokens are not bound to a key.",
    )
    .default(r#""auto""#),
    setting("sessions.idle", LIFETIME, "A session not used for so long ends.").default(r#""12h""#),
    setting("sessions.absolute", LIFETIME, "A session ends so long after its sign-in, used or not.")
        .default(r#""30d""#),
    setting("passwords.min_length", Kind::Integer(1, 1024), "The fewest characters of a new password.").default("8"),
    setting("passwords.memory_kib", Kind::Integer(1024, MAX_MEMORY_KIB as i64), "Memory of one hash, in KiB.")
        .default("19456"),
    setting("passwords.iterations", Kind::Integer(1, MAX_ITERATIONS as i64), "Passes of one hash over its memory.")
        .default("2"),
    setting(
        "passwords.queue_timeout",
        PATIENCE,
        "How long a sign-in waits for its turn to be hashed before it is answered with 503; a few are hashed at a time.",
    )
    .default(r#""2s""#),
    setting(
        "signing_keys.rotate_every",
        Kind::Duration(Span::ZERO, Span::days(3650)),
        "How long a signing key signs until its successor takes over, which is published in time; `0s`: only by \
         `keyward key rotate`.",
    )
    .default(r#""90d""#),
    setting("rate_limits.login.attempts", Kind::Integer(1, 1_000_000), "Sign-in attempts allowed within the window.")
        .default("5"),
    setting(
        "rate_limits.login.window",
        Kind::Duration(Span::from_secs(1), Span::days(30)),
        "How long an attempt counts.",
    )
    .default(r#""15m""#),
    setting(
        "rate_limits.api_key.attempts",
        Kind::Integer(1, 1_000_000),
        "Bad API keys allowed from one network within the window. Good ones are taken all the same.",
    )
    .default("100"),
    setting(
        "rate_limits.api_key.window",
        Kind::Duration(Span::from_secs(1), Span::days(30)),
        "How long a bad key counts.",
    )
    .default(r#""15m""#),
    setting("api_keys.default_ttl", LIFETIME, "The life of a key where nobody said.").default(r#""365d""#),
    setting("api_keys.max_ttl", LIFETIME, "The longest life that anybody can give one.").default(r#""1095d""#),
    setting(
        "sign_in_apis.api_key.client_id",
        Kind::ClientId,
        "The client that these calls act as: its scopes bound the tokens, its lifetimes are theirs. It needs no \
         `grant_types`.",
    )
    .example(r#""web""#),
    setting(
        "sign_in_apis.username.client_id",
        Kind::ClientId,
        "The client that these calls act as: its scopes and lifetimes are those of the tokens (7 days where it has none \
         of its own), its `allowed_origins` may call from a browser. It needs no `grant_types`.",
    )
    .example(r#""web""#),
    setting(
        "sign_in_apis.username.password_min_length",
        Kind::Integer(1, 1024),
        "The fewest characters of a new password there.",
    )
    .default("6"),
    setting(
        "sign_in_apis.device.client_id",
        Kind::ClientId,
        "The client that these calls act as, as above; without lifetimes of its own access tokens are good for 30 days \
         and refresh tokens for 180.",
    )
    .example(r#""web""#),
    setting(
        "mail.transport",
        one_of!(Choice, MailTransport),
        "Where mail goes: to files under `mail` in `data_dir`, one RFC 5322 message each, or to a server.",
    )
    .default(r#""file""#)
    .example(r#""smtp""#),
    setting(
        "mail.from",
        Kind::Mailbox,
        "Whom mail is from. When absent, `brand.name` and `no-reply` at the issuer's host.",
    )
    .example(r#""Northwind ID <no-reply@id.example.com>""#),
    setting("mail.address_cap.mails", Kind::Integer(1, 1_000_000), "The most mails to one address within the window.")
        .default("5"),
    setting("mail.address_cap.window", MAIL_WINDOW, "How long a mail counts. What goes beyond is not sent.")
        .default(r#""1d""#),
    setting(
        "mail.partner_cap.mails",
        Kind::Integer(1, 1_000_000),
        "The most mails on behalf of one partner within the window.",
    )
    .default("1000"),
    setting("mail.partner_cap.window", MAIL_WINDOW, "How long a mail counts. What goes beyond is sent later.")
        .default(r#""1h""#),
    setting("mail.smtp.host", Kind::Host, "The server.").example(r#""smtp.example.com""#),
    setting(
        "mail.smtp.port",
        Kind::Integer(1, 65_535),
        "Its port. When absent, 587, or 465 where `tls` is `implicit`.",
    )
    .example("587"),
    setting(
        "mail.smtp.tls",
        one_of!(Choice, SmtpTls),
        "When the connection becomes TLS: by STARTTLS, which is then required, or from its beginning. When absent, \
         `implicit` on port 465 and `starttls` on all others.",
    )
    .example(r#""starttls""#),
    setting(
        "mail.smtp.ca_file",
        Kind::Path,
        "Certificates in PEM that vouch for the server, beside those of the system.",
    )
    .example(r#""/etc/ssl/private-ca.pem""#),
    setting("mail.smtp.username", Kind::Text, "The name to authenticate with.").example(r#""keyward""#),
    setting("mail.smtp.password", Kind::Secret, "The password to authenticate with; prefer the file.")
        .example(r#""smtp.pw""#),
    setting(
        "mail.smtp.timeout",
        Kind::Duration(Span::from_secs(1), Span::minutes(15)),
        "How long the server may take for one mail.",
    )
    .default(r#""60s""#),
    setting(
        "events.retention",
        Kind::Duration(Span::days(1), Span::days(3650)),
        "How long an event is kept: who signed in, who changed what, and from where. IP addresses are personal data; \
         keep them no longer than you need them.",
    )
    .default(r#""90d""#),
    setting("log.format", one_of!(Choice, LogFormat), "For a person, or one JSON object a line.")
        .default(r#""pretty""#),
    setting(
        "log.level",
        Kind::Text,
        "`error`, `warn`, `info`, `debug` or `trace`, also per module: `info,sqlx=warn`. The variable `KEYWARD_LOG` \
         overrides it.",
    )
    .default(r#""info""#),
    setting("scopes[].name", Kind::ScopeName, "The scope as clients request it.")
        .example(r#""quiz.read""#)
        .presence(Presence::Key),
    setting("scopes[].description", Kind::Text, "What the consent page says about it.")
        .example(r#""Read your quizzes""#),
    setting("scopes[].requires_role", Kind::Text, "Only people with this role get it, whatever asks for it.")
        .example(r#""student""#),
    setting("resources[].uri", Kind::ResourceUri, "The `resource` of requests, and the `aud` of the tokens.")
        .example(r#""https://api.example.com""#)
        .presence(Presence::Key),
    setting("resources[].scopes", Kind::Strings, "Which of the declared scopes it knows.")
        .default("[]")
        .example(r#"["quiz.read"]"#),
    setting("resources[].access_token_signing_alg", SIGNING_ALG, "How its access tokens are signed.")
        .example(r#""ES256""#),
    setting("resources[].introspection_clients", Kind::Strings, "Clients that may introspect its tokens (RFC 7662).")
        .default("[]")
        .example(r#"["web"]"#),
    setting("clients[].client_id", Kind::ClientId, "The client's identifier.")
        .example(r#""web""#)
        .presence(Presence::Key),
    setting("clients[].client_secret", Kind::Secret, "The client's secret; prefer the file.")
        .example(r#""web.secret""#),
    setting("clients[].client_name", Kind::Text, "The name on the consent page.").example(r#""Web app""#),
    setting("clients[].redirect_uris", Kind::Strings, "Where codes may be sent, compared exactly.")
        .example(r#"["https://app.example.com/callback"]"#),
    setting("clients[].post_logout_redirect_uris", Kind::Strings, "Where a sign-out may end.")
        .example(r#"["https://app.example.com/"]"#),
    setting("clients[].grant_types", one_of!(Choices, GrantType), "The grants it may use.")
        .example(r#"["authorization_code", "refresh_token"]"#),
    setting("clients[].response_types", Kind::Choices(|| vec!["code"]), "The `response_type`s it may use."),
    setting(
        "clients[].token_endpoint_auth_method",
        one_of!(Choice, AuthMethod),
        "How it authenticates; when absent, `client_secret_basic` and `client_secret_post` are both accepted. `none` \
         makes it a public client.",
    )
    .example(r#""client_secret_basic""#),
    setting("clients[].scope", Kind::Scopes, "The scopes it may request.")
        .example(r#""openid profile email offline_access quiz.read""#),
    setting("clients[].client_uri", Kind::Text, "Its home page.").example(r#""https://app.example.com""#),
    setting("clients[].logo_uri", Kind::Text, "Its logo.").example(r#""https://app.example.com/logo.svg""#),
    setting("clients[].policy_uri", Kind::Text, "Its privacy policy.").example(r#""https://app.example.com/privacy""#),
    setting("clients[].tos_uri", Kind::Text, "Its terms of service.").example(r#""https://app.example.com/terms""#),
    setting("clients[].contacts", Kind::Strings, "Addresses of people responsible for it.")
        .example(r#"["ops@example.com"]"#),
    setting("clients[].id_token_signed_response_alg", SIGNING_ALG, "How its ID tokens are signed.")
        .example(r#""RS256""#),
    setting("clients[].access_token_signed_response_alg", SIGNING_ALG, "How its access tokens are signed.")
        .example(r#""RS256""#),
    setting(
        "clients[].default_max_age",
        Kind::Integer(0, u32::MAX as i64),
        "The `max_age` of requests that have none, in seconds.",
    )
    .example("86400"),
    setting("clients[].first_party", Kind::Bool, "Skips the consent page unless the request says `prompt=consent`."),
    setting(
        "clients[].id_token_claims",
        one_of!(Choice, IdTokenClaims),
        "Where the claims of scopes are found: at UserInfo only, or with `scopes` in the ID token as well.",
    ),
    setting("clients[].access_token_ttl", LIFETIME, "Its own `tokens.access_token_ttl`.").example(r#""7d""#),
    setting("clients[].id_token_ttl", LIFETIME, "Its own `tokens.id_token_ttl`.").example(r#""1h""#),
    setting("clients[].refresh_token_ttl", LIFETIME, "Its own `tokens.refresh_token_ttl`.").example(r#""30d""#),
    setting("clients[].refresh_idle_ttl", LIFETIME, "A refresh token not used for so long dies.").example(r#""14d""#),
    setting("clients[].refresh_token_rotation", ROTATION, "Its own `tokens.refresh_token_rotation`.")
        .example(r#""always""#),
    setting(
        "clients[].introspection",
        one_of!(Choice, IntrospectionRight),
        "Whose tokens it may introspect; `any` is for a trusted resource server.",
    ),
    setting(
        "clients[].allowed_origins",
        Kind::Strings,
        "Origins of its browser code, beside those of its `redirect_uris` (CORS).",
    )
    .example(r#"["https://spa.example.com"]"#),
    setting("clients[].partner", Kind::Bool, "It is a partner, with people of its own."),
    setting("clients[].partner_client_id", Kind::ClientId, "The partner that it belongs to.").example(r#""acme""#),
    setting("users[].username", Kind::Username, "The name to sign in with.")
        .example(r#""alice""#)
        .presence(Presence::Unique),
    setting("users[].email", Kind::Email, "The address; it also signs in. A user has this, a `username`, or both.")
        .example(r#""alice@example.com""#)
        .presence(Presence::Unique),
    setting("users[].email_verified", Kind::Bool, "Whether the address is known to be theirs.").default("false"),
    setting("users[].password", Kind::Secret, "The first password; prefer the file.").example(r#""alice.pw""#),
    setting(
        "users[].roles",
        Kind::Strings,
        "What they may do: scopes may require a role, and the scope `roles` tells.",
    )
    .example(r#"["student"]"#),
    setting("users[].groups", Kind::Strings, "Where they belong: the scope `groups` tells.").example(r#"["year-7"]"#),
    setting("users[].name", Kind::Text, "The full name.").example(r#""Alice Adams""#),
    setting("users[].given_name", Kind::Text, "The first name.").example(r#""Alice""#),
    setting("users[].family_name", Kind::Text, "The last name.").example(r#""Adams""#),
    setting("users[].middle_name", Kind::Text, "The middle name.").example(r#""B.""#),
    setting("users[].nickname", Kind::Text, "A casual name.").example(r#""Al""#),
    setting("users[].preferred_username", Kind::Text, "The short name they want to be called.").example(r#""alice""#),
    setting("users[].profile", Kind::WebUri, "Their profile page.").example(r#""https://example.com/alice""#),
    setting("users[].picture", Kind::WebUri, "Their picture.").example(r#""https://example.com/alice.png""#),
    setting("users[].website", Kind::WebUri, "Their own site.").example(r#""https://alice.example.com""#),
    setting("users[].gender", Kind::Text, "The gender.").example(r#""female""#),
    setting("users[].birthdate", Kind::Text, "`YYYY-MM-DD`, or `YYYY` alone.").example(r#""1990-04-01""#),
    setting("users[].zoneinfo", Kind::Text, "A name from the time zone database.").example(r#""Europe/Vienna""#),
    setting("users[].locale", Kind::Text, "A language tag (BCP 47).").example(r#""de-AT""#),
    setting("users[].phone_number", Kind::Text, "Preferably in E.164 form.").example(r#""+431234567""#),
    setting("users[].phone_number_verified", Kind::Bool, "Whether the number is known to be theirs.").example("false"),
    setting("users[].address.formatted", Kind::Lines, "The whole address as on a label.")
        .example(r#""Ring 1\n1010 Wien""#),
    setting("users[].address.street_address", Kind::Lines, "Street and number.").example(r#""Ring 1""#),
    setting("users[].address.locality", Kind::Text, "City.").example(r#""Wien""#),
    setting("users[].address.region", Kind::Text, "State or province.").example(r#""Wien""#),
    setting("users[].address.postal_code", Kind::Text, "Postal code.").example(r#""1010""#),
    setting("users[].address.country", Kind::Text, "Country.").example(r#""Austria""#),
];

/// A [`Setting`] with what follows from the rows: the `_file` twins of secrets, and the defaults of a client.
pub struct Entry {
    pub path: String,
    pub kind: Kind,
    pub presence: Presence,
    pub default: Option<String>,
    pub example: Option<String>,
    /// The key beside it that cannot stand with it.
    pub rival: Option<String>,
    /// Whether it only stands in for its rival: `config generate` mentions it instead of listing it.
    pub substitute: bool,
    /// Whether its file's content becomes the value of its rival.
    pub holds_secret: bool,
    pub doc: String,
}

impl Entry {
    /// `tokens` and `access_token_ttl`; the root's name is empty.
    pub fn split(&self) -> (&str, &str) {
        self.path.rsplit_once('.').unwrap_or(("", &self.path))
    }

    pub fn key(&self) -> &str {
        self.split().1
    }

    pub fn in_list(&self) -> bool {
        self.path.contains("[]")
    }
}

/// Every setting there is, `_file` twins included, in the order of [`SETTINGS`].
pub fn entries() -> &'static [Entry] {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| SETTINGS.iter().flat_map(expand).collect());
    &ENTRIES
}

pub fn entry(path: &str) -> Option<&'static Entry> {
    entries().iter().find(|entry| entry.path == path)
}

/// Whether a value of this setting is a secret, or holds one.
pub fn holds_secret(path: &str, value: &str) -> bool {
    entry(path).is_some_and(|entry| entry.kind.redact(value) != value)
}

fn expand(row: &Setting) -> Vec<Entry> {
    let (parent, key) = row.path.rsplit_once('.').unwrap_or(("", row.path));
    let beside = |sibling: &str| if parent.is_empty() { sibling.to_owned() } else { format!("{parent}.{sibling}") };
    let replaced_by = SETTINGS.iter().find(|other| other.replaces.is_some_and(|taken| beside(taken) == row.path));
    let twin = format!("{key}_file");
    let mut entry = Entry {
        path: row.path.to_owned(),
        kind: row.kind,
        presence: row.presence,
        default: row.default.map(str::to_owned).or_else(|| client_default(parent, key)),
        example: row.example.map(str::to_owned),
        rival: row.replaces.or(replaced_by.map(|other| other.path)).map(str::to_owned),
        substitute: row.replaces.is_some(),
        holds_secret: false,
        doc: row.doc.to_owned(),
    };
    if !row.kind.holds_secret() {
        return vec![entry];
    }
    // The better way to write a secret is the one that the template offers.
    let prefer_file = row.kind == Kind::Secret;
    let mut file = Entry {
        path: beside(&twin),
        kind: Kind::Path,
        presence: Presence::Optional,
        default: None,
        example: entry.example.clone(),
        rival: Some(key.to_owned()),
        substitute: !prefer_file,
        holds_secret: true,
        doc: format!("A file that holds `{key}`; one line end after it is ignored."),
    };
    if !prefer_file {
        file.example = Some(format!("\"/run/secrets/keyward-{key}\""));
    }
    entry.rival = Some(twin);
    entry.substitute = prefer_file;
    vec![entry, file]
}

/// What a client has when its table is silent belongs to [`ClientMetadata`]; this only writes it as TOML.
fn client_default(parent: &str, key: &str) -> Option<String> {
    static DEFAULTS: LazyLock<toml::Table> =
        LazyLock::new(|| toml::Table::try_from(ClientMetadata::default()).unwrap_or_default());
    if parent != "clients[]" {
        return None;
    }
    DEFAULTS.get(key).map(toml::Value::to_string)
}
