//! Secrets that lie where they should not: everything that was ever typed, issued or shown, looked for in every row of
//! every table. What the log holds is shown with the process itself.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use keyward::crypto::digest::sha256;
use keyward::protocol::client::{GrantType, SigningAlg};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::jwt::Key;
use crate::authorize::{enc, hidden, open};
use crate::login::SESSION;
use crate::on_both_databases;
use crate::support::{
    Backend, Browser, CALLBACK, Provider, TokenAnswer, VERIFIER, call, challenge, json as api, spa_fields, spa_url,
    tables,
};

/// Every row of every table as text; bytes stand in it as hexadecimal digits.
pub async fn dump(provider: &Provider) -> String {
    let mut conn = provider.connection().await;
    let mut dump = String::new();
    for table in tables(provider.backend(), &mut conn).await {
        let sql = match provider.backend() {
            Backend::Postgres => format!("SELECT CAST(t AS TEXT) AS line FROM {table} t"),
            Backend::Sqlite => {
                let columns = format!("SELECT name FROM pragma_table_info('{table}')");
                let columns = sqlx::query(AssertSqlSafe(columns)).fetch_all(&mut conn).await.expect("columns");
                let quoted: Vec<String> =
                    columns.iter().map(|column| format!("quote(\"{}\")", column.get::<String, _>("name"))).collect();
                format!("SELECT {} AS line FROM {table}", quoted.join(" || ' ' || "))
            }
        };
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut conn).await.expect("rows") {
            dump.push_str(&format!("{table}: {}\n", row.get::<String, _>("line")));
        }
    }
    conn.close().await.expect("closed");
    dump
}

/// Texts that bytes may stand as.
fn shapes(bytes: &[u8]) -> Vec<String> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // In the middle of a longer text the digits depend on where the bytes begin.
    let aligned = (0..3).flat_map(|skip| {
        let whole = &bytes[skip..skip + (bytes.len() - skip) / 3 * 3];
        [URL_SAFE_NO_PAD.encode(whole), STANDARD.encode(whole)]
    });
    [hex.to_uppercase(), hex].into_iter().chain(aligned).collect()
}

/// Bytes in which `str` can search, which it does fast.
fn one_char_a_byte(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// What the walk has come by.
#[derive(Default)]
pub struct Secrets {
    texts: Vec<(&'static str, String)>,
    bytes: Vec<(&'static str, Vec<u8>)>,
}

impl Secrets {
    fn text(&mut self, name: &'static str, text: &str) {
        self.texts.push((name, text.to_owned()));
    }

    /// One that is random bytes in base64url.
    fn random(&mut self, name: &'static str, text: &str) {
        self.text(name, text);
        self.bytes.push((name, URL_SAFE_NO_PAD.decode(text).expect("base64url")));
    }

    /// Of texts with public parts, the part that is secret.
    fn code(&mut self, code: &str) {
        self.random("code", code.rsplit('.').next().expect("a secret part"));
    }

    fn tokens(&mut self, answer: &TokenAnswer) {
        for name in ["access_token", "id_token"] {
            if let Some(token) = answer.body[name].as_str() {
                self.text(name, token.rsplit('.').next().expect("a signature"));
            }
        }
        if let Some(token) = answer.body["refresh_token"].as_str() {
            let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix("kw_rt_").expect("ours")).expect("base64url");
            self.text("refresh_token", token);
            self.bytes.push(("code of authenticity of a refresh token", bytes[bytes.len() - 32..].to_vec()));
        }
    }
}

/// An API key, at every door that takes one.
async fn keys(provider: &Provider, browser: &mut Browser, secrets: &mut Secrets) {
    let made = api(browser, "POST", "/v1/me/api-keys", json!({ "name": "laptop" }), &[]).await;
    let key = made.json()["api_key"]["key"].as_str().expect("a key").to_owned();
    // Behind the id, which lists show.
    secrets.text("API key", &key[23..]);
    let grant = [("grant_type", GrantType::ApiKey.as_str()), ("api_key", &key)];
    let login = provider.json("POST", "/v1/auth/api-key/login", json!({ "api_key": key }), &[]).await;
    let login = TokenAnswer { status: login.status.as_u16(), body: login.json() };
    for answer in [&provider.token("platform", &grant).await, &login] {
        assert_eq!(answer.status, 200, "{}", answer.body);
        secrets.tokens(answer);
    }
    let mut other = provider.browser();
    let began = api(&mut other, "POST", "/v1/auth/session", json!({ "api_key": key }), &[]).await;
    assert_eq!(began.status, 204, "{}", began.body);
    secrets.random("session cookie of a key", &other.cookies[SESSION]);
    assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 200);
    assert_eq!(provider.bearer("GET", &format!("/v1/me?api_key={key}"), &key).await.status, 200);
    provider.introspect("rs", &key).await;
    assert_eq!(provider.call("web", "/revoke", &[("token", &key)]).await.status, 200);
    let refused = provider.json("POST", "/v1/auth/api-key/login", json!({ "api_key": key }), &[]).await;
    assert_eq!(refused.status, 401);
    provider.app.store.flush_key_uses().await.expect("written");
}

/// A day of an app and of a person, with all that goes wrong in it.
pub async fn walk(provider: &Provider) -> Secrets {
    let mut secrets = Secrets::default();
    for (name, text) in [
        ("password", "correct horse"),
        ("mistyped password", "mistyped horse 42"),
        ("client secret in the header", "first-secret"),
        ("client secret in the body", "web-secret"),
        ("client secret that is wrong", "a-wrong-secret-31415926"),
        ("code verifier", VERIFIER),
        ("nonsense as a code", "nonsense-as-a-code-2718"),
    ] {
        secrets.text(name, text);
        secrets.bytes.push((name, text.as_bytes().to_vec()));
    }
    let mut browser = provider.browser();
    // Parked in the database: a large one.
    let large = format!("scope=openid+offline_access&nonce=n-7&state={}&{}", "s".repeat(3000), challenge());
    let page = open(&mut browser, &provider.authorize_url(&large)).await;
    secrets.text("form token", &hidden(&page, "csrf"));
    let page = browser.submit(&page, &[("username", "alice"), ("password", "mistyped horse 42")]).await;
    let page = browser.submit(&page, &[("username", "alice"), ("password", "correct horse")]).await;
    let page = browser.follow(page).await;
    let code = page.location_params().remove("code").expect("a code");
    secrets.code(&code);
    secrets.random("session cookie", &browser.cookies[SESSION]);
    secrets.text("browser cookie", &browser.cookies["__Host-keyward_browser"]);

    // A client with a secret in the header, and its mistakes.
    let grant = [("grant_type", "authorization_code"), ("redirect_uri", CALLBACK), ("code_verifier", VERIFIER)];
    let wrong =
        [&grant[..], &[("code", &code), ("client_id", "first"), ("client_secret", "a-wrong-secret-31415926")]].concat();
    assert_eq!(browser.post("/token", &wrong).await.status, 401);
    let nonsense = [&grant[..], &[("code", "nonsense-as-a-code-2718")]].concat();
    assert_eq!(provider.token("first", &nonsense).await.status, 400);
    let tokens = provider.token("first", &[&grant[..], &[("code", &code)]].concat()).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    let refreshed = provider.refresh("first", &tokens.text("refresh_token")).await;
    assert_eq!(provider.userinfo(&refreshed.text("access_token")).await.status, 200);
    assert_eq!(provider.introspect("first", &refreshed.text("access_token")).await["active"], true);
    assert_eq!(provider.call("first", "/revoke", &[("token", &refreshed.text("access_token"))]).await.status, 200);
    // A client with a secret in the body, and consent.
    let ticket = browser.get(&provider.authorize_url_for("web", "scope=openid+email")).await;
    secrets.text("ticket", &ticket.location_params()["ticket"][40..]);
    let consent = browser.follow(ticket).await;
    secrets.text("form token of the consent page", &hidden(&consent, "csrf"));
    let page = browser.submit(&consent, &[("decision", "allow")]).await;
    let code = browser.follow(page).await.location_params().remove("code").expect("a code");
    secrets.code(&code);
    let credentials = [("client_id", "web"), ("client_secret", "web-secret")];
    let fields = [&grant[..2], &[("code", code.as_str())], &credentials].concat();
    let page = browser.post("/token", &fields).await;
    assert_eq!(page.status, 200, "{}", page.body);
    let of_web = TokenAnswer { status: 200, body: page.json() };
    assert_eq!(browser.post("/token", &fields).await.json()["error"], "invalid_grant", "a replay");
    // A public client, whose tokens rotate, and a reuse.
    let code = provider.code(&mut browser, &format!("{}&nonce=n-8", spa_url(&provider.issuer, "openid"))).await;
    secrets.code(&code);
    let of_spa = call(&mut provider.browser(), "spa", "/token", &spa_fields(&code)).await;
    let second = provider.refresh("spa", &of_spa.text("refresh_token")).await;
    let third = provider.refresh("spa", &second.text("refresh_token")).await;
    assert_eq!(provider.refresh("spa", &of_spa.text("refresh_token")).await.error(), "invalid_grant", "a reuse");
    let own = provider.token("machine", &[("grant_type", "client_credentials")]).await;
    for answer in [&tokens, &refreshed, &of_web, &of_spa, &second, &third, &own] {
        secrets.tokens(answer);
    }
    keys(provider, &mut browser, &mut secrets).await;
    // A token in the URL, and the end.
    let leaked = format!("/userinfo?access_token={}", enc(&tokens.text("access_token")));
    assert_eq!(browser.get(&leaked).await.status, 400);
    assert_eq!(provider.call("first", "/revoke", &[("token", &tokens.text("refresh_token"))]).await.status, 200);
    let hint = tokens.text("id_token");
    browser.send(Method::POST, "/logout", Some(&[("id_token_hint", &hint)]), &[]).await;
    let confirm = browser.get("/logout").await;
    secrets.text("form token of the sign-out", &hidden(&confirm, "csrf"));
    browser.submit(&confirm, &[("action", "logout")]).await;
    secrets
}

on_both_databases! {
    async fn attack_157_no_secret_lies_in_the_database(provider: Provider) {
        // One session goes on, so that a hash of its cookie is there to be found.
        let mut staying = provider.browser();
        provider.sign_in(&mut staying).await;
        let mut secrets = walk(&provider).await;
        secrets.random("session cookie that goes on", &staying.cookies[SESSION]);
        for alg in [SigningAlg::Rs256, SigningAlg::Es256] {
            secrets.bytes.push(("private signing key", Key::own(&provider, alg).await.secret()));
        }
        let master = fs::read_to_string(provider.dir.path().join("keys/master.key")).expect("a key");
        secrets.random("master key", master.trim_end());
        for (name, text) in [("private exponent in a JWK", "\"d\":"), ("private key in PEM", "PRIVATE KEY")] {
            secrets.text(name, text);
        }

        let dump = dump(&provider).await;
        let events = ["signed_in", "grant_revoked", "consent_given"];
        for known in ["alice@example.com", CALLBACK, "$argon2id$", "\"kty\""].into_iter().chain(events) {
            let escaped = known.replace('"', "\"\"");
            assert!(dump.contains(known) || dump.contains(&escaped), "{known} should be there: is this the database?");
        }
        let hash = sha256(staying.cookies[SESSION].as_bytes());
        assert!(shapes(&hash).iter().any(|shape| dump.contains(shape)), "bytes are found where there are any");
        for (name, text) in &secrets.texts {
            let line = dump.lines().find(|line| line.contains(text) || line.contains(&text.replace('"', "\"\"")));
            assert!(line.is_none(), "the {name} lies in the database: {}", line.unwrap_or_default());
        }
        for (name, bytes) in &secrets.bytes {
            for shape in shapes(&bytes[..bytes.len().min(24)]) {
                let line = dump.lines().find(|line| line.contains(&shape));
                assert!(line.is_none(), "the {name} lies in the database: {}", line.unwrap_or_default());
            }
        }

        // What rows no longer tell, files may.
        if provider.backend() == Backend::Sqlite {
            let file = |name: &str| fs::read(provider.dir.path().join(name)).expect("a file of the database");
            let files = one_char_a_byte(&[file("keyward.db"), file("keyward.db-wal")].concat());
            let holds = |needle: &[u8]| files.contains(&one_char_a_byte(needle));
            assert!(holds(b"alice@example.com") && holds(&hash));
            for (name, text) in &secrets.texts {
                assert!(!holds(text.as_bytes()), "the {name} lies in a file of the database");
            }
            for (name, bytes) in &secrets.bytes {
                let part = &bytes[..bytes.len().min(24)];
                assert!(!holds(part), "the {name} lies in a file of the database");
                for shape in shapes(part) {
                    assert!(!holds(shape.as_bytes()), "the {name} lies in a file of the database as {shape}");
                }
            }
        }
    }
}
