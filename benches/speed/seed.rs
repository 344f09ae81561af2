//! A provider's directory and a database with many people and grants in it. The first person and the first grants are
//! written by the store itself; all others are their copies under fresh random ids, made by one statement a table, so
//! that every row is one that the store could have written.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail, ensure};
use keyward::account::{api_keys, audit, declared};
use keyward::ambient::{SystemClock, SystemRng, random_bytes, random_token};
use keyward::app::App;
use keyward::config::{Sources, load};
use keyward::crypto::api_key::ApiKey;
use keyward::crypto::digest::sha256;
use keyward::crypto::password::{self, Cost};
use keyward::crypto::refresh;
use keyward::crypto::secret::Secret;
use keyward::protocol::api_key::{self, Wish};
use keyward::protocol::claims::{Authentication, ClaimsRequest};
use keyward::protocol::grant::GrantRecord;
use keyward::protocol::ids::{ClientId, GrantId, SessionId, UserId};
use keyward::protocol::metadata::ACR_PASSWORD;
use keyward::protocol::time::{Span, Timestamp};
use keyward::store::events::EventKind;
use keyward::store::grants::NewGrant;
use keyward::store::sessions::{NewSession, Proof};
use keyward::store::users::{Created, NewUser};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};
use tempfile::TempDir;

use crate::process;

pub const CALLBACK: &str = "https://app.example.com/callback";
pub const SECRET: &str = "a-secret-of-the-benchmark-with-43-characters";
/// A client that registers people.
pub const PARTNER: &str = "bench-partner";
/// Grants of each kind that are used, spread evenly over the table.
const USED: i64 = 192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// How a client's tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alg {
    Rs256,
    Es256,
}

impl Alg {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    /// The client whose tokens are signed so.
    pub fn client_id(self) -> &'static str {
        match self {
            Self::Rs256 => "bench-rs256",
            Self::Es256 => "bench-es256",
        }
    }
}

/// What a grant's refresh brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub alg: Alg,
    pub id_token: bool,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self { alg: Alg::Rs256, id_token: false },
        Self { alg: Alg::Rs256, id_token: true },
        Self { alg: Alg::Es256, id_token: false },
        Self { alg: Alg::Es256, id_token: true },
    ];

    fn index(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default()
    }

    fn scope(self) -> &'static str {
        if self.id_token { "openid profile email" } else { "profile" }
    }
}

/// The refresh token that counts now.
pub type Chain = Arc<Mutex<String>>;

/// A provider's directory, its database, and what clients of it hold.
pub struct Site {
    dir: TempDir,
    pub address: SocketAddr,
    database: Option<PostgresDatabase>,
    chains: Vec<Vec<Chain>>,
    /// Session cookies, one for each connection.
    pub cookies: Vec<String>,
    /// API keys in the table: one for each person, [`api_key`] of their numbers.
    pub keys: i64,
}

/// The `n`-th API key of every site.
pub fn api_key(n: i64) -> ApiKey {
    let n = n.to_be_bytes();
    let (kid, secret) = (sha256(&[b"kid".as_slice(), &n].concat()), sha256(&[b"secret".as_slice(), &n].concat()));
    let mut id = [0; 16];
    id.copy_from_slice(&kid[..16]);
    ApiKey::new(api_key::Kind::User, id, secret)
}

impl Site {
    /// A site whose database holds `rows` people and as many grants. `server` is the URL of a PostgreSQL.
    pub async fn new(backend: Backend, server: &str, rows: i64, sessions: usize) -> anyhow::Result<Self> {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
        ensure_on_disk(dir.path())?;
        let address = process::free_address()?;
        let database = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(PostgresDatabase::create(server).await?),
        };
        let url = database.as_ref().map(|database| database.url.as_str());
        std::fs::write(dir.path().join("keyward.toml"), config(address, url))?;
        let mut site = Self { dir, address, database, chains: Vec::new(), cookies: Vec::new(), keys: rows };

        let loaded = load(Sources { files: vec![site.path("keyward.toml")], ..Sources::default() })?;
        let app = App::open(loaded.config, Arc::new(SystemClock), Arc::new(SystemRng)).await?;
        declared::sync(&app).await?;
        let origin = Origin::write(&app).await?;
        let mut conn = AnyConnection::connect(&app.config.database.url).await?;
        multiply(&mut conn, backend, &origin, rows).await?;
        for (kind, _) in &origin.grants {
            site.chains.push(chains(&mut conn, &app, *kind, rows).await?);
        }
        give_keys(&mut conn, backend, &app, &origin, rows).await?;
        site.cookies = begin_sessions(&mut conn, &app, &origin, sessions).await?;
        settle(&mut conn, backend).await?;
        conn.close().await?;
        app.store.close().await;
        if backend == Backend::Sqlite {
            // What the kernel still holds back would otherwise be written while we measure.
            std::fs::File::open(site.path("data/keyward.db"))?.sync_all()?;
        }
        Ok(site)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn serve(&self, program: &Path) -> Command {
        let mut command = process::command(program);
        command.arg("serve").arg("--config").arg(self.path("keyward.toml"));
        command
    }

    pub fn chains(&self, kind: Kind) -> &[Chain] {
        &self.chains[kind.index()]
    }

    pub async fn remove(self) -> anyhow::Result<()> {
        match self.database {
            None => Ok(()),
            Some(database) => database.drop().await,
        }
    }
}

fn config(address: SocketAddr, database_url: Option<&str>) -> String {
    let database = database_url.map(|url| format!("[database]\nurl = \"{url}\"\n")).unwrap_or_default();
    let client = |alg: Alg| {
        format!(
            r#"
[[clients]]
client_id = "{}"
client_secret = "{SECRET}"
redirect_uris = ["{CALLBACK}"]
grant_types = [
    "authorization_code",
    "refresh_token",
    "client_credentials",
    "urn:keyward:oauth:grant-type:api-key",
]
scope = "openid profile email offline_access"
introspection = "any"
first_party = true
refresh_token_rotation = "always"
access_token_signed_response_alg = "{}"
id_token_signed_response_alg = "{}"
"#,
            alg.client_id(),
            alg.name(),
            alg.name()
        )
    };
    let partner = format!(
        r#"
[[clients]]
client_id = "{PARTNER}"
client_secret = "{SECRET}"
grant_types = ["client_credentials"]
scope = "partner.users"
partner = true

[[clients]]
client_id = "bench-game"
token_endpoint_auth_method = "none"
scope = "profile email"
access_token_signed_response_alg = "ES256"

[sign_in_apis.device]
client_id = "bench-game"
"#
    );
    // The log and the metrics are what collectors read. Tokens outlive the run. All our connections come from one
    // address, which stands for many.
    format!(
        "issuer = \"http://{address}\"\nlisten = \"{address}\"\nadmin_listen = \"127.0.0.1:0\"\n\
         [log]\nformat = \"json\"\n[limits]\nconnections_per_peer = 10000\n\
         [tokens]\naccess_token_ttl = \"1d\"\n{database}{}{}{partner}",
        client(Alg::Rs256),
        client(Alg::Es256)
    )
}

/// A file system in memory would answer a sync that no disk could.
fn ensure_on_disk(dir: &Path) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let own = mounts.filter(|(point, _)| dir.starts_with(point)).max_by_key(|(point, _)| point.len());
    let (_, kind) = own.context("/proc/mounts")?;
    ensure!(kind != "tmpfs", "{} is in memory: set CARGO_TARGET_DIR to a directory on a disk", dir.display());
    Ok(())
}

/// The rows that are copied.
struct Origin {
    user_id: UserId,
    /// When.
    password_set_at: Timestamp,
    grants: Vec<(Kind, GrantId)>,
}

impl Origin {
    async fn write(app: &App) -> anyhow::Result<Self> {
        let rng = app.rng.as_ref();
        let cost = Cost { memory_kib: app.config.passwords.memory_kib, iterations: app.config.passwords.iterations };
        let password_hash = Secret::new(password::hash("correct horse battery", &random_bytes(rng), cost)?);
        let user_id = UserId::from_random(random_bytes(rng));
        let claims = serde_json::json!({ "name": "Alice Archer", "given_name": "Alice", "family_name": "Archer" });
        let user = NewUser {
            of_partner: None,
            id: user_id.clone(),
            username: Some("alice".to_owned()),
            email: Some("alice@example.com".to_owned()),
            email_verified: true,
            claims: claims.as_object().cloned().unwrap_or_default(),
            roles: Vec::new(),
            groups: Vec::new(),
            password_hash: Some(password_hash),
            disabled_at: None,
        };
        let password_set_at = app.now();
        let event = audit::operator(app).event(EventKind::UserCreated, password_set_at);
        let created = app.store.create_user(user, event, password_set_at).await?;
        ensure!(created == Created::Yes, "the database is not empty");
        let mut grants = Vec::new();
        for kind in Kind::ALL {
            grants.push((kind, write_grant(app, kind, &user_id).await?));
        }
        Ok(Self { user_id, password_set_at, grants })
    }
}

/// A grant whose code was redeemed.
async fn write_grant(app: &App, kind: Kind, user_id: &UserId) -> anyhow::Result<GrantId> {
    let now = app.now();
    let grant = GrantRecord {
        id: GrantId::from_random(random_bytes(app.rng.as_ref())),
        client_id: ClientId::new(kind.alg.client_id()),
        user_id: user_id.clone(),
        session_id: None,
        api_key_id: None,
        facade: false,
        scope: kind.scope().parse()?,
        resources: Vec::new(),
        claims: ClaimsRequest::default(),
        authentication: Authentication {
            auth_time: Some(now),
            acr: ACR_PASSWORD.to_owned(),
            amr: vec!["pwd".to_owned()],
        },
        offline: false,
        nonce: Some(random_token::<16>(app.rng.as_ref())),
        redirect_uri: Some(CALLBACK.to_owned()),
        code_challenge: None,
        code_expires_at: now + Span::minutes(1),
        redeemed_at: None,
        refresh: None,
        revoked_at: None,
    };
    let id = grant.id.clone();
    let expires_at = now + app.metadata.tokens.refresh_token_ttl;
    let new = NewGrant {
        grant,
        code_hash: Some(random_bytes(app.rng.as_ref())),
        refresh_seed: random_bytes(app.rng.as_ref()),
        expires_at,
        event: None,
    };
    app.store.create_grant(new, now).await?;
    let redeemed = app.store.redeem_code(id.clone(), Some(expires_at), expires_at + Span::hours(1), now).await?;
    ensure!(redeemed, "the first grant was not redeemed");
    Ok(id)
}

async fn execute(conn: &mut AnyConnection, sql: String) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(sql.clone())).execute(conn).await.with_context(|| sql)?;
    Ok(())
}

/// Copies the first rows until there are `rows` people with a grant each. The `n`-th grant is of the kind `n % 4`.
async fn multiply(conn: &mut AnyConnection, backend: Backend, origin: &Origin, rows: i64) -> anyhow::Result<()> {
    // Ids as `from_random` makes them: 22 characters, the first a letter, the last with its four low bits zero.
    let series = match backend {
        Backend::Sqlite => {
            for pragma in ["synchronous = OFF", "cache_size = -1000000", "temp_store = MEMORY"] {
                execute(conn, format!("PRAGMA {pragma}")).await?;
            }
            let id = |prefix: &str| format!("'{prefix}' || substr(lower(hex(randomblob(10))), 1, 20) || 'A'");
            format!(
                "WITH RECURSIVE series (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM series WHERE n + 1 < {rows})
                 SELECT n, {} AS user_id, {} AS grant_id, {} AS session_id, randomblob(32) AS code_hash,
                     randomblob(32) AS refresh_seed FROM series",
                id("u"),
                id("g"),
                id("s")
            )
        }
        Backend::Postgres => {
            let id = |prefix: &str| format!("'{prefix}' || substr(md5(random()::text), 1, 20) || 'A'");
            let bytes = "decode(md5(random()::text) || md5(random()::text), 'hex')";
            format!(
                "SELECT n, {} AS user_id, {} AS grant_id, {} AS session_id, {bytes} AS code_hash,
                     {bytes} AS refresh_seed FROM generate_series(0, {rows} - 1) AS series (n)",
                id("u"),
                id("g"),
                id("s")
            )
        }
    };
    execute(conn, format!("CREATE TEMP TABLE seed AS {series}")).await?;
    let user = format!("id = '{}'", origin.user_id);
    let of_user = format!("user_id = '{}'", origin.user_id);
    copy(conn, backend, "subjects", &user, "TRUE", &[("id", "s.user_id")]).await?;
    let names = [("id", "s.user_id"), ("username", "s.user_id"), ("email", "lower(s.user_id) || '@example.com'")];
    copy(conn, backend, "users", &user, "TRUE", &names).await?;
    let value = "CASE t.kind WHEN 'email' THEN lower(s.user_id) || '@example.com' ELSE s.user_id END";
    copy(conn, backend, "identifiers", &of_user, "TRUE", &[("user_id", "s.user_id"), ("value", value)]).await?;
    copy(conn, backend, "passwords", &of_user, "TRUE", &[("user_id", "s.user_id")]).await?;
    for (nth, (_, id)) in origin.grants.iter().enumerate() {
        let own = [
            ("id", "s.grant_id"),
            ("user_id", "s.user_id"),
            ("session_id", "s.session_id"),
            ("code_hash", "s.code_hash"),
            ("refresh_seed", "s.refresh_seed"),
        ];
        copy(conn, backend, "grants", &format!("id = '{id}'"), &format!("s.n % 4 = {nth}"), &own).await?;
    }
    Ok(())
}

/// Keys in one statement.
const KEY_BATCH: i64 = 500;

/// Gives everybody a key: the first by the store itself, the others as copies with what proves each.
async fn give_keys(
    conn: &mut AnyConnection,
    backend: Backend,
    app: &App,
    origin: &Origin,
    rows: i64,
) -> anyhow::Result<()> {
    let user = app.store.user(&origin.user_id).await?.context("the first person")?;
    let scopes = Some("openid profile email".parse()?);
    let wish = Wish { name: "bench".to_owned(), scopes, ..Wish::default() };
    let first = api_keys::mint_for_user(app, &user, wish, None, &audit::operator(app)).await?;
    let bytes = if backend == Backend::Sqlite { "BLOB" } else { "BYTEA" };
    execute(conn, format!("CREATE TEMP TABLE key_seed (n BIGINT, kid TEXT, mac {bytes})")).await?;
    for from in (0..rows).step_by(usize::try_from(KEY_BATCH)?) {
        let numbers = from..(from + KEY_BATCH).min(rows);
        let values: Vec<String> = (0..numbers.clone().count())
            .map(|at| format!("(${}, ${}, ${})", 3 * at + 1, 3 * at + 2, 3 * at + 3))
            .collect();
        let sql = format!("INSERT INTO key_seed (n, kid, mac) VALUES {}", values.join(", "));
        let mut statement = sqlx::query(AssertSqlSafe(sql));
        for n in numbers {
            let key = api_key(n);
            let mac = key.mac(&app.keys.server.api_keys).to_vec();
            statement = statement.bind(n).bind(key.kid.as_str().to_owned()).bind(mac);
        }
        statement.execute(&mut *conn).await?;
    }
    // Not in the order of the people, so that neighbours in one table are none in the other.
    let own = [("kid", "k.kid"), ("mac", "k.mac"), ("user_id", "s.user_id")];
    let of_first = format!("kid = '{}'", first.record.kid);
    copy(conn, backend, "api_keys", &of_first, "key_seed k JOIN seed s ON k.n = s.n WHERE TRUE", &own).await?;
    execute(conn, "DROP TABLE key_seed".to_owned()).await
}

/// Copies the rows of `table` that `origin` names once for each row of the series, with `own` columns of its own. `which`
/// is a condition, or a series of its own with one.
async fn copy(
    conn: &mut AnyConnection,
    backend: Backend,
    table: &str,
    origin: &str,
    which: &str,
    own: &[(&str, &str)],
) -> anyhow::Result<()> {
    let columns = columns(conn, backend, table).await?;
    let value = |column: &String| match own.iter().find(|(name, _)| name == column) {
        Some((_, sql)) => (*sql).to_owned(),
        None => format!("t.{column}"),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    execute(conn, format!("CREATE TEMP TABLE origin AS SELECT * FROM {table} WHERE {origin}")).await?;
    let (columns, values) = (columns.join(", "), values.join(", "));
    let from = match which.split_once(" WHERE ") {
        Some((series, which)) => format!("FROM {series} CROSS JOIN origin t WHERE {which}"),
        None => format!("FROM seed s CROSS JOIN origin t WHERE {which}"),
    };
    execute(conn, format!("INSERT INTO {table} ({columns}) SELECT {values} {from}")).await?;
    execute(conn, "DROP TABLE origin".to_owned()).await
}

async fn columns(conn: &mut AnyConnection, backend: Backend, table: &str) -> anyhow::Result<Vec<String>> {
    let sql = match backend {
        Backend::Sqlite => format!("SELECT name FROM pragma_table_info('{table}')"),
        Backend::Postgres => format!(
            "SELECT CAST(column_name AS TEXT) FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = '{table}'"
        ),
    };
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(conn).await?;
    ensure!(!rows.is_empty(), "there is no table {table}");
    rows.iter().map(|row| Ok(row.try_get::<String, _>(0)?)).collect()
}

/// Refresh tokens of grants from all over the table.
async fn chains(conn: &mut AnyConnection, app: &App, kind: Kind, rows: i64) -> anyhow::Result<Vec<Chain>> {
    let nth = i64::try_from(kind.index())?;
    let stride = (rows / 4 / USED).max(1);
    let sql = format!(
        "SELECT grant_id, refresh_seed FROM seed WHERE n % 4 = {nth} AND (n / 4) % {stride} = 0 ORDER BY n LIMIT {USED}"
    );
    let found = sqlx::query(AssertSqlSafe(sql)).fetch_all(conn).await?;
    ensure!(found.len() == usize::try_from(USED)?, "too few grants");
    let token = |row: &sqlx::any::AnyRow| {
        let (id, seed): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        let token = refresh::make(&app.keys.server.refresh, &seed, &id, 0).context("a grant's id")?;
        Ok(Arc::new(Mutex::new(token)))
    };
    found.iter().map(token).collect()
}

/// Signs in as many people, from all over the table.
async fn begin_sessions(
    conn: &mut AnyConnection,
    app: &App,
    origin: &Origin,
    count: usize,
) -> anyhow::Result<Vec<String>> {
    let users: i64 = sqlx::query("SELECT COUNT(*) FROM seed").fetch_one(&mut *conn).await?.try_get(0)?;
    let stride = (users / i64::try_from(count)?).max(1);
    let sql = format!("SELECT user_id FROM seed WHERE n % {stride} = 1 ORDER BY n LIMIT {count}");
    let found = sqlx::query(AssertSqlSafe(sql)).fetch_all(conn).await?;
    let mut cookies = Vec::new();
    for row in found {
        let now = app.now();
        let token = random_token::<32>(app.rng.as_ref());
        let session = NewSession {
            id: SessionId::from_random(random_bytes(app.rng.as_ref())),
            token_hash: sha256(token.as_bytes()),
            user_id: UserId::new(row.try_get::<String, _>(0)?),
            proof: Proof::Password(origin.password_set_at),
            authentication: Authentication {
                auth_time: Some(now),
                acr: ACR_PASSWORD.to_owned(),
                amr: vec!["pwd".to_owned()],
            },
            expires_at: now + app.config.sessions.absolute,
        };
        let event = audit::operator(app).event(EventKind::SignedIn, now).of_user(&session.user_id);
        ensure!(app.store.begin_session(session, None, event, now).await?, "a session did not begin");
        cookies.push(token);
    }
    ensure!(cookies.len() == count, "too few people");
    Ok(cookies)
}

/// Leaves the database as one that has been running for a while.
async fn settle(conn: &mut AnyConnection, backend: Backend) -> anyhow::Result<()> {
    let statements: &[&str] = match backend {
        Backend::Sqlite => &["DROP TABLE seed", "PRAGMA wal_checkpoint(TRUNCATE)"],
        Backend::Postgres => &["DROP TABLE seed", "VACUUM ANALYZE", "CHECKPOINT"],
    };
    for sql in statements {
        execute(conn, (*sql).to_owned()).await?;
    }
    Ok(())
}

/// A database of our own on somebody's server.
struct PostgresDatabase {
    server: String,
    name: String,
    url: String,
}

impl PostgresDatabase {
    async fn create(server: &str) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let mut conn = AnyConnection::connect(&format!("{server}/postgres")).await?;
        let fsync: String = sqlx::query("SELECT setting FROM pg_settings WHERE name = 'fsync'")
            .fetch_one(&mut conn)
            .await?
            .try_get(0)?;
        if fsync != "on" {
            bail!("this PostgreSQL runs with fsync off, so its numbers would mean nothing: tests/postgres --durable");
        }
        let name = format!("keyward_bench_{:016x}", u64::from_be_bytes(random_bytes(&SystemRng)));
        execute(&mut conn, format!("CREATE DATABASE {name}")).await?;
        conn.close().await?;
        Ok(Self { url: format!("{server}/{name}"), server: server.to_owned(), name })
    }

    async fn drop(self) -> anyhow::Result<()> {
        let mut conn = AnyConnection::connect(&format!("{}/postgres", self.server)).await?;
        execute(&mut conn, format!("DROP DATABASE {} WITH (FORCE)", self.name)).await?;
        Ok(conn.close().await?)
    }
}
