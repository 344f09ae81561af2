//! One provider under test, with the clients and people that most tests need.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::extract::ConnectInfo;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keyward::account::{api_keys, declared};
use keyward::ambient::{Clock, SystemRng};
use keyward::app::App;
use keyward::config::{Sources, load};
use keyward::crypto::api_key::ApiKey;
use keyward::crypto::refresh::RefreshToken;
use keyward::http::{Web, router};
use keyward::protocol::api_key::Wish;
use keyward::protocol::ids::{ClientId, GrantId, UserId};
use keyward::protocol::time::{Span, Timestamp};
use keyward::protocol::user::LoginName;
use keyward::store::clients::ClientRecord;
use keyward::store::users::REALM_DIRECT;
use serde_json::Value;
use sqlx::AnyConnection;
use tempfile::TempDir;

use super::audit::{an_operator, put_client, told};
use super::browser::{Browser, Page};
use super::database::Backend;

pub const CALLBACK: &str = "https://app.test/cb";
/// Where `spa` is sent back to.
pub const SPA_CALLBACK: &str = "https://spa.test/cb";
/// RFC 7636 appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

pub fn challenge() -> &'static str {
    "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
}

/// Cheap hashes, whose turn comes on any machine.
pub const PASSWORDS: &str = "[passwords]\nmemory_kib = 8192\niterations = 1\nqueue_timeout = \"60s\"\n";

/// What stands behind `issuer` and `listen`. `web` is confidential and asks for consent, `first` is first-party, `spa` is public, `machine` acts for itself,
/// `platform` turns keys into tokens, `rs` serves a resource, `study` and `game` have the sign-in APIs. Secrets are the ids with `-secret` behind.
pub const CONFIG: &str = r#"
data_dir = "data"
key_dir = "keys"
[brand]
name = "Northwind ID"
[[scopes]]
name = "quiz.read"
description = "Read your quizzes"
[[scopes]]
name = "pay"
[[scopes]]
name = "teach"
requires_role = "teacher"
[sign_in_apis.api_key]
client_id = "platform"
[sign_in_apis.username]
client_id = "study"
[sign_in_apis.device]
client_id = "game"
[[resources]]
uri = "https://quiz.test"
scopes = ["quiz.read"]
access_token_signing_alg = "ES256"
introspection_clients = ["rs"]
[[resources]]
uri = "https://pay.test"
scopes = ["pay"]
access_token_signing_alg = "RS256"
[[clients]]
client_id = "web"
client_secret = "web-secret"
client_name = "Web <app>"
client_uri = "https://app.test"
policy_uri = "https://app.test/policy"
tos_uri = "https://app.test/tos"
logo_uri = "https://app.test/logo.png"
redirect_uris = ["https://app.test/cb", "https://app.test/other"]
post_logout_redirect_uris = ["https://app.test/bye"]
grant_types = ["authorization_code", "refresh_token", "client_credentials"]
scope = "openid profile email address phone roles groups offline_access quiz.read"
[[clients]]
client_id = "first"
client_secret = "first-secret"
redirect_uris = ["https://app.test/cb"]
post_logout_redirect_uris = ["https://app.test/bye"]
grant_types = ["authorization_code", "refresh_token"]
scope = "openid profile email address phone offline_access quiz.read pay"
first_party = true
[[clients]]
client_id = "other"
client_secret = "other-secret"
redirect_uris = ["https://app.test/cb"]
grant_types = ["authorization_code", "refresh_token"]
scope = "openid profile"
first_party = true
[[clients]]
client_id = "spa"
token_endpoint_auth_method = "none"
redirect_uris = ["https://spa.test/cb", "http://127.0.0.1/cb"]
grant_types = ["authorization_code", "refresh_token"]
scope = "openid profile offline_access"
first_party = true
allowed_origins = ["https://spa2.test"]
[[clients]]
client_id = "machine"
client_secret = "machine-secret"
grant_types = ["client_credentials"]
scope = "quiz.read pay"
[[clients]]
client_id = "platform"
client_secret = "platform-secret"
grant_types = [
    "urn:keyward:oauth:grant-type:api-key",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "refresh_token",
]
scope = "openid profile email roles groups offline_access quiz.read teach"
refresh_token_rotation = "never"
[[clients]]
client_id = "rs"
client_secret = "rs-secret"
grant_types = ["client_credentials"]
[[clients]]
client_id = "acme"
client_secret = "acme-secret"
client_name = "Acme <Learning>"
grant_types = [
    "client_credentials",
    "refresh_token",
    "urn:keyward:oauth:grant-type:api-key",
    "urn:ietf:params:oauth:grant-type:token-exchange",
]
scope = "openid profile email offline_access quiz.read partner.users"
partner = true
[[clients]]
client_id = "acme-app"
client_secret = "acme-app-secret"
redirect_uris = ["https://app.test/cb"]
grant_types = ["authorization_code", "refresh_token"]
scope = "openid profile email offline_access quiz.read"
first_party = true
partner_client_id = "acme"
[[clients]]
client_id = "globex"
client_secret = "globex-secret"
client_name = "Globex"
grant_types = ["client_credentials", "urn:keyward:oauth:grant-type:api-key"]
scope = "openid profile email quiz.read partner.users"
partner = true
[[clients]]
client_id = "study"
scope = "openid profile quiz.read teach"
allowed_origins = ["https://study.test"]
[[clients]]
client_id = "game"
scope = "openid email profile"
[[users]]
username = "alice"
email = "alice@example.com"
email_verified = true
password = "correct horse"
roles = ["student"]
groups = ["year-7"]
name = "Alice Archer"
family_name = "Archer"
given_name = "Alice"
middle_name = "A."
nickname = "Al"
profile = "https://alice.test"
picture = "https://alice.test/me.png"
website = "https://alice.test/web"
gender = "female"
birthdate = "1990-01-01"
zoneinfo = "Europe/Oslo"
locale = "nb"
phone_number = "+4712345678"
phone_number_verified = true
address = { formatted = "1 Street", country = "NO" }
[[users]]
username = "bob"
password = "battery staple"
"#;

/// As what a configuration has beyond [`CONFIG`]: tokens of the sign-in APIs last for minutes and not for weeks.
pub const BRIEF_SIGN_INS: &str = "# brief sign-ins\n";

/// A clock that stands where the test puts it and moves one millisecond with every look, so that of two events one
/// is always later.
pub struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

pub struct Provider {
    pub app: Arc<App>,
    pub router: Router,
    pub clock: Arc<TestClock>,
    pub issuer: String,
    pub database_url: String,
    pub dir: TempDir,
    /// What its configuration has beyond [`CONFIG`].
    more: String,
}

/// A token response.
#[derive(Clone, Debug)]
pub struct TokenAnswer {
    pub status: u16,
    pub body: Value,
}

impl TokenAnswer {
    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.body)).to_owned()
    }

    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }
}

/// What `spa` sends to redeem a code.
pub fn spa_fields(code: &str) -> [(&str, &str); 4] {
    let grant = ("grant_type", "authorization_code");
    [grant, ("code", code), ("redirect_uri", SPA_CALLBACK), ("code_verifier", VERIFIER)]
}

/// The claims of a JWT, unverified.
#[track_caller]
pub fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
}

/// The header of a JWT, unverified.
#[track_caller]
pub fn header_of(token: &str) -> Value {
    let header = token.split('.').next().expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).expect("base64url")).expect("JSON")
}

/// `/authorize` of a client with more parameters.
pub fn authorize_url_for(issuer: &str, client_id: &str, more: &str) -> String {
    let mut url = format!("{issuer}/authorize?client_id={client_id}&response_type=code");
    for (name, value) in [("redirect_uri", CALLBACK), ("scope", "openid"), ("state", "xyz")] {
        if !more.contains(&format!("{name}=")) {
            url.push_str(&format!("&{name}={}", value.replace(' ', "+")));
        }
    }
    if more.is_empty() { url } else { format!("{url}&{more}") }
}

/// Where the public client `spa` begins, with PKCE.
pub fn spa_url(issuer: &str, scope: &str) -> String {
    authorize_url_for(issuer, "spa", &format!("scope={scope}&redirect_uri={SPA_CALLBACK}&{}", challenge()))
}

/// Starts at `url`, signs alice in and allows what is asked; the redirect that leaves for the app.
pub async fn authorize(browser: &mut Browser, url: &str) -> Page {
    let page = browser.get(url).await;
    let mut page = browser.follow(page).await;
    for _ in 0..3 {
        page = if page.body.contains("id=\"login-submit\"") {
            let next = browser.submit(&page, &[("username", "alice"), ("password", "correct horse")]).await;
            browser.follow(next).await
        } else if page.body.contains("id=\"consent-allow\"") {
            let next = browser.submit(&page, &[("decision", "allow")]).await;
            browser.follow(next).await
        } else {
            return page;
        };
    }
    page
}

/// A request of a client with `client_secret_basic`, or as the public client where `client_id` is `spa`.
pub async fn call(browser: &mut Browser, client_id: &str, path: &str, fields: &[(&str, &str)]) -> TokenAnswer {
    let mut fields = fields.to_vec();
    let basic = format!("Basic {}", STANDARD.encode(format!("{client_id}:{client_id}-secret")));
    let headers = if client_id == "spa" { vec![] } else { vec![("authorization", basic.as_str())] };
    if client_id == "spa" {
        fields.push(("client_id", "spa"));
    }
    let page = browser.send(http::Method::POST, path, Some(&fields), &headers).await;
    let body = if page.body.is_empty() { Value::Null } else { page.json() };
    TokenAnswer { status: page.status.as_u16(), body }
}

/// A call of the JSON API; `null` is no body at all.
pub async fn json(browser: &mut Browser, method: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> Page {
    let (content_type, body) =
        if body.is_null() { (None, String::new()) } else { (Some("application/json"), body.to_string()) };
    browser.send_text(method.parse().expect("a method"), path, content_type, body, headers).await
}

impl Provider {
    pub async fn start(backend: Backend) -> Self {
        Self::start_with(backend, "https://id.test", "").await
    }

    /// A provider whose configuration has `more` beyond [`CONFIG`]: keys of its own first, then tables.
    pub async fn start_with(backend: Backend, issuer: &str, more: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let database_url = backend.create(dir.path()).await;
        Self::start_on(dir, database_url, issuer, more).await
    }

    pub async fn start_on(dir: TempDir, database_url: String, issuer: &str, more: &str) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(1_800_000_000_000)));
        let app = open(&dir, &database_url, issuer, more, Arc::clone(&clock)).await;
        declared::sync(&app).await.expect("declared clients and users");
        let app = Arc::new(app);
        let router = routes(&app, "127.0.0.1");
        Self { app, router, clock, issuer: issuer.to_owned(), database_url, dir, more: more.to_owned() }
    }

    /// Another process on the same database, as far as it can be one here: its own pools, caches and keyring.
    pub async fn second(&self) -> (Arc<App>, Router) {
        let clock = Arc::clone(&self.clock);
        let app = Arc::new(open(&self.dir, &self.database_url, &self.issuer, &self.more, clock).await);
        let router = routes(&app, "127.0.0.1");
        (app, router)
    }

    pub fn pass(&self, span: Span) {
        self.clock.0.fetch_add(span.millis(), Ordering::SeqCst);
    }

    pub fn browser(&self) -> Browser {
        Browser::new(self.router.clone(), &self.issuer)
    }

    /// A browser at another address.
    pub fn browser_from(&self, address: &str) -> Browser {
        Browser::new(routes(&self.app, address), &self.issuer)
    }

    /// `/authorize` of the client `first` with more parameters.
    pub fn authorize_url(&self, more: &str) -> String {
        self.authorize_url_for("first", more)
    }

    pub fn authorize_url_for(&self, client_id: &str, more: &str) -> String {
        authorize_url_for(&self.issuer, client_id, more)
    }

    /// Signs alice in with a password.
    pub async fn sign_in(&self, browser: &mut Browser) -> Page {
        self.sign_in_as(browser, "alice", "correct horse").await
    }

    pub async fn sign_in_as(&self, browser: &mut Browser, username: &str, password: &str) -> Page {
        let page = browser.get("/login").await;
        browser.submit(&page, &[("username", username), ("password", password)]).await
    }

    /// Starts at `url`, signs alice in and allows what is asked; the redirect that leaves for the app.
    pub async fn authorize(&self, browser: &mut Browser, url: &str) -> Page {
        authorize(browser, url).await
    }

    /// A code for alice.
    pub async fn code(&self, browser: &mut Browser, url: &str) -> String {
        let page = self.authorize(browser, url).await;
        page.location_params().remove("code").unwrap_or_else(|| panic!("no code in {}", page.location()))
    }

    /// A token request with `client_secret_basic`, or as the public client where `client_id` is `spa`.
    pub async fn token(&self, client_id: &str, fields: &[(&str, &str)]) -> TokenAnswer {
        self.call(client_id, "/token", fields).await
    }

    pub async fn call(&self, client_id: &str, path: &str, fields: &[(&str, &str)]) -> TokenAnswer {
        call(&mut self.browser(), client_id, path, fields).await
    }

    /// Redeems a code of the client `first`.
    pub async fn redeem(&self, code: &str) -> TokenAnswer {
        self.redeem_as("first", code).await
    }

    /// Redeems a code at the address that most clients have, without PKCE.
    pub async fn redeem_as(&self, client_id: &str, code: &str) -> TokenAnswer {
        let fields = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK)];
        self.token(client_id, &fields).await
    }

    /// Tokens of the public client `spa`, whose refresh tokens rotate.
    pub async fn spa_tokens(&self) -> TokenAnswer {
        let code = self.code(&mut self.browser(), &spa_url(&self.issuer, "openid+offline_access")).await;
        let answer = self.token("spa", &spa_fields(&code)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    /// Tokens for alice at the client `first` with this scope.
    pub async fn tokens(&self, scope: &str) -> TokenAnswer {
        let url = self.authorize_url(&format!("scope={}", scope.replace(' ', "+")));
        let code = self.code(&mut self.browser(), &url).await;
        let answer = self.redeem(&code).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    pub async fn refresh(&self, client_id: &str, token: &str) -> TokenAnswer {
        // As the jobs do all the time; without it nothing is remembered for longer than a second.
        self.app.store.poll_changes().await.expect("polled");
        self.token(client_id, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// Whether the next refresh by this token may go by what is remembered of its grant.
    pub fn remembers(&self, token: &str) -> bool {
        let id = GrantId::new(RefreshToken::parse(token).expect("one of ours").grant_id);
        self.app.store.remembered_grant(&id).is_some()
    }

    pub async fn userinfo(&self, token: &str) -> Page {
        let bearer = format!("Bearer {token}");
        self.browser().send(http::Method::GET, "/userinfo", None, &[("authorization", &bearer)]).await
    }

    pub async fn introspect(&self, client_id: &str, token: &str) -> Value {
        self.call(client_id, "/introspect", &[("token", token)]).await.body
    }

    /// A key of somebody with these scopes, separated by spaces.
    pub async fn api_key(&self, username: &str, scopes: &str) -> ApiKey {
        self.api_key_as(username, Wish { scopes: Some(scopes.parse().expect("scopes")), ..Wish::default() }).await
    }

    /// A key of somebody as they wish.
    pub async fn api_key_as(&self, username: &str, wish: Wish) -> ApiKey {
        let user = self.app.store.user(&self.user_id(username).await).await.expect("an answer").expect("a person");
        let wish = Wish { name: "test".to_owned(), ..wish };
        api_keys::mint_for_user(&self.app, &user, wish, None, &an_operator()).await.expect("a key").key
    }

    /// Gives `platform` the lifetimes of the first seed system: 7 and 30 days.
    pub async fn with_long_tokens(&self) {
        self.change_client("platform", |record| record.client.metadata.access_token_ttl = Some(Span::days(7))).await;
    }

    /// A call of the JSON API.
    pub async fn json(&self, method: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> Page {
        json(&mut self.browser(), method, path, body, headers).await
    }

    /// A call with a bearer credential and without a body.
    pub async fn bearer(&self, method: &str, path: &str, credential: &str) -> Page {
        self.json(method, path, Value::Null, &[("authorization", &format!("Bearer {credential}"))]).await
    }

    /// Rows of every table, by a connection of its own.
    pub async fn row_counts(&self) -> Vec<(String, i64)> {
        use sqlx::{AssertSqlSafe, Connection as _, Row as _};
        let mut conn = self.connection().await;
        let mut counts = Vec::new();
        for table in tables(self.backend(), &mut conn).await {
            let sql = format!("SELECT COUNT(*) AS n FROM {table}");
            let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut conn).await.expect("a count");
            counts.push((table, row.get::<i64, _>("n")));
        }
        conn.close().await.expect("closing");
        counts
    }

    /// A connection of the test's own.
    pub async fn connection(&self) -> AnyConnection {
        use sqlx::Connection as _;
        sqlx::any::install_default_drivers();
        AnyConnection::connect(&self.database_url).await.expect("the database")
    }

    /// The kind of database that it stands on.
    pub fn backend(&self) -> Backend {
        if self.database_url.starts_with("sqlite:") { Backend::Sqlite } else { Backend::Postgres }
    }

    /// The `sub` of somebody who has this username.
    pub async fn user_id(&self, username: &str) -> UserId {
        let name = LoginName::Username(username.to_owned());
        let found = self.app.store.user_by_login(REALM_DIRECT, &name).await.expect("an answer");
        found.expect("a person").0.id
    }

    /// Changes a client's registration, as the command line does.
    pub async fn change_client(&self, id: &str, change: impl FnOnce(&mut ClientRecord)) {
        let record = self.app.store.client(&ClientId::new(id)).await.expect("an answer").expect("the client");
        let mut record = ClientRecord::clone(&record);
        change(&mut record);
        assert!(put_client(&self.app.store, record, self.app.now()).await.expect("an answer"));
    }

    /// Switches a client off, or on again.
    pub async fn set_client_disabled(&self, id: &str, disabled: bool) {
        let now = self.app.now();
        self.change_client(id, |record| record.client.disabled_at = disabled.then_some(now)).await;
    }

    /// Switches a person off, or on again.
    pub async fn set_user_disabled(&self, username: &str, disabled: bool) {
        let (id, now) = (self.user_id(username).await, self.app.now());
        let done = self.app.store.set_user_disabled(id, disabled.then_some(now), told(), now).await;
        assert!(done.expect("an answer"));
    }
}

/// Every table of ours in a database.
pub async fn tables(backend: Backend, conn: &mut AnyConnection) -> Vec<String> {
    use sqlx::Row as _;
    let sql = match backend {
        Backend::Sqlite => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> '_sqlx_migrations' ORDER BY 1"
        }
        Backend::Postgres => {
            "SELECT CAST(tablename AS TEXT) AS name FROM pg_tables
             WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations' ORDER BY 1"
        }
    };
    let rows = sqlx::query(sql).fetch_all(conn).await.expect("the tables");
    rows.iter().map(|row| row.get::<String, _>("name")).collect()
}

async fn open(dir: &TempDir, database_url: &str, issuer: &str, more: &str, clock: Arc<TestClock>) -> App {
    let place = dir.path();
    let (base, file) = (place.join("base.toml"), place.join("keyward.toml"));
    let database = format!("[database]\nurl = \"{database_url}\"\nacquire_timeout = \"60s\"\n");
    std::fs::write(&base, format!("{PASSWORDS}{database}")).expect("what `more` may set otherwise");
    let (keys, tables) = more.split_at(more.find('[').unwrap_or(more.len()));
    let head = format!("issuer = \"{issuer}\"\nlisten = \"127.0.0.1:0\"\n{keys}");
    let config = if more == BRIEF_SIGN_INS {
        let brief = |id: &str| format!("client_id = \"{id}\"\naccess_token_ttl = \"15m\"\nscope");
        let declared = |id: &str| format!("client_id = \"{id}\"\nscope");
        CONFIG.replace(&declared("study"), &brief("study")).replace(&declared("game"), &brief("game"))
    } else {
        CONFIG.to_owned()
    };
    std::fs::write(&file, format!("{head}{config}{tables}")).expect("a configuration");
    let loaded =
        load(Sources { files: vec![base, file], ..Sources::default() }).unwrap_or_else(|errors| panic!("{errors}"));
    App::open(loaded.config, clock, Arc::new(SystemRng)).await.expect("an app")
}

fn routes(app: &Arc<App>, peer: &str) -> Router {
    let web = Web::new(Arc::clone(app), false).expect("a web");
    let address: IpAddr = peer.parse().expect("an address");
    router(&web).layer(axum::Extension(ConnectInfo(SocketAddr::new(address, 40_000))))
}
