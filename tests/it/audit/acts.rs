//! Each kind of event by the real thing: at the doors that people, apps and partners come to, and by what the command
//! line calls. All of it once more on one provider, where every secret that was used is looked for in the trail.

use std::collections::BTreeSet;
use std::sync::Arc;

use keyward::account::declared::{self, Profile, create_user, hash_new_password};
use keyward::account::import::{Importer, Record};
use keyward::account::partner::imports;
use keyward::account::{api_keys, audit, clients, people, sessions, signing_keys};
use keyward::config::Config;
use keyward::crypto::pem;
use keyward::crypto::secret::Secret;
use keyward::keys::MASTER_KEY_FILE;
use keyward::protocol::api_key::Wish;
use keyward::protocol::client::{Client, ClientMetadata, SigningAlg};
use keyward::protocol::client_auth::StoredSecret;
use keyward::protocol::ids::ClientId;
use keyward::protocol::time::Span;
use keyward::store::clients::ClientRecord;
use keyward::store::events::{EventKind, Filter};
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::{Trail, line, put};
use crate::attacks::leakage::dump;
use crate::on_both_databases;
use crate::partner::{Platform, text};
use crate::support::{Browser, Page, Provider, SPA_CALLBACK, json as api, spa_fields, spa_url};

/// What nobody may find in the trail.
type Secrets = Vec<String>;

/// A secret in base64url, behind its public beginning.
fn tail(secret: &str) -> String {
    secret[secret.len() - 24..].to_owned()
}

fn cookie(browser: &Browser) -> String {
    browser.cookies[crate::login::SESSION].clone()
}

async fn sign_ins(provider: &Provider) -> Secrets {
    let mut trail = Trail::of(provider);
    let (mut browser, mut elsewhere) = (provider.browser(), provider.browser_from("2001:db8::7"));
    provider.sign_in_as(&mut browser, "alice", "a wrong horse").await;
    provider.sign_in_as(&mut browser, "nobody-here", "another wrong horse").await;
    assert_eq!(trail.lines().await, ["sign_in_failed alice @127.0.0.1", "sign_in_failed @127.0.0.1"]);

    provider.sign_in(&mut browser).await;
    let first = cookie(&browser);
    provider.sign_in_as(&mut elsewhere, "alice@example.com", "correct horse").await;
    let told = trail.events().await;
    let lines: Vec<String> = told.iter().map(line).collect();
    let expected = [
        "signed_in alice @127.0.0.1 by=person method=password",
        "signed_in alice @2001:db8::7 by=person method=password",
    ];
    assert_eq!(lines, expected);
    let sid = told[0].detail["sid"].as_str().expect("a sid").to_owned();
    let alice = provider.user_id("alice").await;
    let listed = provider.app.store.sessions(Some(&alice), None, 10, Span::hours(1), provider.app.now()).await;
    assert!(listed.expect("sessions").iter().any(|session| session.id.as_str() == sid), "the sid of the list");

    // Signing in once more is the same session; somebody else's ends it.
    let page = open_sign_in(provider, &mut browser).await;
    browser.submit(&page, &[("username", "alice"), ("password", "correct horse")]).await;
    let told = trail.events().await;
    assert_eq!(told.iter().map(line).collect::<Vec<_>>(), expected[..1]);
    assert_eq!(told[0].detail["sid"], json!(sid));
    let page = open_sign_in(provider, &mut browser).await;
    browser.submit(&page, &[("username", "bob"), ("password", "battery staple")]).await;
    let expected =
        ["signed_out alice @127.0.0.1 reason=replaced", "signed_in bob @127.0.0.1 by=person method=password"];
    assert_eq!(trail.lines().await, expected);

    let confirm = browser.get("/logout").await;
    let second = cookie(&browser);
    browser.submit(&confirm, &[("action", "logout")]).await;
    browser.submit(&confirm, &[("action", "logout")]).await;
    assert_eq!(trail.lines().await, ["signed_out bob @127.0.0.1 by=person"], "and of the second click nothing");

    let third = cookie(&elsewhere);
    assert_eq!(sessions::end_sessions_of(&provider.app, &alice).await.expect("ended"), 1);
    assert_eq!(sessions::end_sessions_of(&provider.app, &alice).await.expect("ended"), 0);
    assert_eq!(trail.lines().await, ["signed_out alice by=operator sessions=1"]);
    let passwords = ["correct horse", "a wrong horse", "another wrong horse", "battery staple"];
    passwords.map(str::to_owned).into_iter().chain([first, second, third]).collect()
}

/// The sign-in page where somebody is signed in already.
async fn open_sign_in(provider: &Provider, browser: &mut Browser) -> Page {
    let url = provider.authorize_url("prompt=login");
    let page = browser.get(&url).await;
    let page = browser.follow(page).await;
    assert!(page.body.contains("id=\"login-submit\""), "{}", page.body);
    page
}

async fn lockouts(provider: &Provider) -> Secrets {
    let mut trail = Trail::of(provider);
    let mut browser = provider.browser_from("192.0.2.99");
    for _ in 0..8 {
        provider.sign_in_as(&mut browser, "bob", "no staple at all").await;
    }
    let lines = trail.lines().await;
    let throttled = lines.iter().filter(|line| *line == "sign_in_throttled bob @192.0.2.99 limit=sign_in").count();
    let failed = lines.iter().filter(|line| *line == "sign_in_failed bob @192.0.2.99").count();
    assert_eq!((throttled, failed + throttled), (1, lines.len()), "{lines:?}");
    assert!(lines.len() < 8, "who goes on trying during the pause writes nothing: {lines:?}");
    vec!["no staple at all".to_owned()]
}

/// Of the APIs for first-party apps.
async fn calls(provider: &Provider) -> Secrets {
    let mut trail = Trail::of(provider);
    let mut app = provider.browser_from("192.0.2.98");
    let new = json!({ "username": "grace", "password": "hopper-1906", "confirmPassword": "hopper-1906" });
    let page = api(&mut app, "POST", "/api/auth/signup", new.clone(), &[]).await;
    let token = page.json()["token"].as_str().expect("a token").to_owned();
    let bearer = format!("Bearer {token}");
    for _ in 0..2 {
        let page = api(&mut app, "POST", "/api/auth/logout", json!(null), &[("authorization", &bearer)]).await;
        assert_eq!(page.status, 200);
    }
    let page = api(&mut app, "POST", "/api/auth/login", new.clone(), &[]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    let wrong = json!({ "username": "grace", "password": "not her password" });
    assert_eq!(api(&mut app, "POST", "/api/auth/login", wrong, &[]).await.status, 401);
    // What changes nothing is no event, but that it was the last call before a pause is.
    for status in [400, 400, 429, 429] {
        assert_eq!(api(&mut app, "POST", "/api/auth/signup", new.clone(), &[]).await.status, status);
    }
    assert_eq!(
        trail.lines().await,
        [
            "signed_up grace <study> @192.0.2.98 by=person method=password",
            "signed_out grace <study> @192.0.2.98 by=person",
            "signed_in grace <study> @192.0.2.98 by=person method=password",
            "sign_in_failed grace <study> @192.0.2.98",
            "sign_in_throttled <study> @192.0.2.98 limit=username_api",
        ]
    );
    // With a key for tokens: by the call, which keeps one signed in, and not by `/token`.
    let key = provider.api_key("alice", "openid offline_access").await;
    trail.lines().await;
    let page = api(&mut app, "POST", "/v1/auth/api-key/login", json!({ "api_key": key.expose() }), &[]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(trail.lines().await, ["signed_in alice <platform> @192.0.2.98 by=person method=api_key"]);
    let refresh = page.json()["refresh_token"].as_str().expect("a token").to_owned();
    vec!["hopper-1906".to_owned(), "not her password".to_owned(), token, tail(key.expose()), refresh]
}

async fn consents(provider: &Provider) -> Secrets {
    let mut browser = provider.browser();
    provider.sign_in(&mut browser).await;
    let mut trail = Trail::of(provider);
    for (decision, expected) in [
        ("deny", "consent_denied alice <web> @127.0.0.1 by=person".to_owned()),
        ("allow", r#"consent_given alice <web> @127.0.0.1 by=person scope=openid email resources=[]"#.to_owned()),
    ] {
        let page = browser.get(&provider.authorize_url_for("web", "scope=openid+email")).await;
        let page = browser.follow(page).await;
        browser.submit(&page, &[("decision", decision)]).await;
        assert_eq!(trail.lines().await, [expected]);
    }
    Vec::new()
}

async fn grants(provider: &Provider) -> Secrets {
    let mut secrets = Secrets::new();
    let mut browser = provider.browser();
    provider.sign_in(&mut browser).await;
    let mut trail = Trail::of(provider);
    let code = provider.code(&mut browser, &spa_url(&provider.issuer, "openid")).await;
    let tokens = provider.token("spa", &spa_fields(&code)).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    assert_eq!(trail.lines().await, [""; 0], "what went well is no event");
    for _ in 0..3 {
        assert_eq!(provider.token("spa", &spa_fields(&code)).await.error(), "invalid_grant");
    }
    let expected = "grant_revoked alice <spa> @127.0.0.1 by=client reason=code_replayed";
    assert_eq!(trail.lines().await, [expected], "once, however often");

    let first = provider.spa_tokens().await;
    let second = provider.refresh("spa", &first.text("refresh_token")).await;
    let third = provider.refresh("spa", &second.text("refresh_token")).await;
    trail.lines().await;
    assert_eq!(provider.refresh("spa", &first.text("refresh_token")).await.error(), "invalid_grant");
    let expected = "grant_revoked alice <spa> @127.0.0.1 by=client reason=refresh_token_reused";
    assert_eq!(trail.lines().await, [expected]);

    let own = provider.token("machine", &[("grant_type", "client_credentials")]).await;
    let revoked = provider.tokens("openid offline_access").await;
    trail.lines().await;
    for _ in 0..2 {
        provider.call("first", "/revoke", &[("token", &revoked.text("access_token"))]).await;
        provider.call("machine", "/revoke", &[("token", &own.text("access_token"))]).await;
        provider.call("first", "/revoke", &[("token", &revoked.text("refresh_token"))]).await;
    }
    let expected = [
        "access_token_revoked alice <first> @127.0.0.1 by=client",
        "access_token_revoked <machine> @127.0.0.1 by=client",
        "grant_revoked alice <first> @127.0.0.1 by=client reason=revoked_by_client",
    ];
    assert_eq!(trail.lines().await, expected);
    secrets.push(tail(&code));
    for answer in [&tokens, &first, &second, &third, &own, &revoked] {
        secrets.push(tail(&answer.text("access_token")));
        secrets.extend(answer.body["refresh_token"].as_str().map(tail));
    }
    secrets
}

fn minted(body: &Value) -> (String, String) {
    (text(body, "/api_key/id"), text(body, "/api_key/key"))
}

async fn keys(provider: &Provider) -> Secrets {
    let mut browser = provider.browser();
    provider.sign_in(&mut browser).await;
    let mut trail = Trail::of(provider);
    let mut secrets = Secrets::new();
    let made = api(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "laptop" }), &[]).await.json();
    let (first, key) = minted(&made);
    secrets.push(tail(&key));
    let path = format!("/v1/me/api-keys/{first}/rotate");
    let rotated = api(&mut browser, "POST", &path, json!({ "overlap_seconds": 0 }), &[]).await.json();
    let (second, key) = minted(&rotated);
    secrets.push(tail(&key));
    let path = format!("/v1/me/api-keys/{second}");
    for _ in 0..2 {
        assert_eq!(api(&mut browser, "DELETE", &path, Value::Null, &[]).await.status, 204);
    }
    let told = trail.events().await;
    let lines: Vec<String> = told.iter().map(line).collect();
    let expected = [
        "api_key_created alice @127.0.0.1 by=person",
        "api_key_rotated alice @127.0.0.1 by=person",
        "api_key_revoked alice @127.0.0.1 by=person",
    ];
    assert_eq!(lines, expected);
    assert_eq!(told[1].detail["key_id"], json!(second));
    assert_eq!((&told[1].detail["predecessor"], &told[1].detail["ended"]), (&json!(first), &json!([first])));
    assert_eq!(told[2].detail["key_id"], json!(second));

    // Whoever has one in hand, an app, an operator.
    let [lost, found, stolen] = [
        provider.api_key("bob", "openid").await,
        provider.api_key("bob", "openid").await,
        provider.api_key("bob", "openid").await,
    ];
    secrets.extend([&lost, &found, &stolen].map(|key| tail(key.expose())));
    assert_eq!(trail.lines().await, ["api_key_created bob by=operator"; 3]);
    let body = json!({ "api_key": lost.expose() });
    assert_eq!(provider.json("POST", "/v1/api-keys/self-revoke", body, &[]).await.status, 204);
    assert_eq!(provider.call("rs", "/revoke", &[("token", found.expose().as_str())]).await.status, 200);
    let record = provider.app.store.listed_api_key(&stolen.kid).await.expect("an answer").expect("a key").record;
    let operator = audit::operator(&provider.app);
    assert!(api_keys::revoke(&provider.app, &record, &operator).await.expect("an answer"));
    let expected = [
        "api_key_revoked bob @127.0.0.1 by=holder",
        "api_key_revoked bob <rs> @127.0.0.1 by=client",
        "api_key_revoked bob by=operator",
    ];
    assert_eq!(trail.lines().await, expected);

    // A session by a key.
    let key = provider.api_key("bob", "openid").await;
    secrets.push(tail(key.expose()));
    trail.lines().await;
    let mut other = provider.browser();
    let body = json!({ "api_key": key.expose() });
    assert_eq!(api(&mut other, "POST", "/v1/auth/session", body, &[]).await.status, 204);
    secrets.push(cookie(&other));
    let told = trail.events().await;
    assert_eq!(told.iter().map(line).collect::<Vec<_>>(), ["signed_in bob @127.0.0.1 by=person method=api_key"]);
    assert_eq!(told[0].detail["key_id"], json!(key.kid));

    // A partner's own, ended by an app that found it.
    let wish = Wish { name: "backend".to_owned(), ..Wish::default() };
    let own =
        api_keys::mint_for_partner(&provider.app, &ClientId::new("acme"), wish, &operator).await.expect("a key").key;
    secrets.push(tail(own.expose()));
    provider.call("rs", "/revoke", &[("token", own.expose().as_str())]).await;
    let expected = ["api_key_created <acme> by=operator", "api_key_revoked <acme> @127.0.0.1 by=client client=rs"];
    assert_eq!(trail.lines().await, expected);
    secrets
}

async fn partners(provider: &Provider) -> Secrets {
    let mut secrets = Secrets::new();
    let acme = Platform::of(provider, "acme").await;
    let mut trail = Trail::of(provider);
    let made = acme.registered("p-1", "pia@example.com").await;
    let (id, (kid, key)) = (text(&made, "/user/id"), minted(&made));
    secrets.push(tail(&key));
    let told = trail.events().await;
    let expected = [
        "user_created pia@example.com <acme> @127.0.0.1 by=partner",
        "api_key_created pia@example.com <acme> @127.0.0.1 by=partner",
    ];
    let mut lines: Vec<String> = told.iter().map(line).collect();
    lines.sort_by(|one, other| other.cmp(one));
    assert_eq!(lines, expected);

    let path = format!("/v1/partner/users/{id}");
    for _ in 0..2 {
        let changes = json!({ "name": "Pia Unmentioned", "email": "pia.p@example.com" });
        assert_eq!(acme.call("PATCH", &path, changes).await.status, 200);
    }
    for switch in ["disable", "disable", "enable", "enable"] {
        assert_eq!(acme.call("POST", &format!("{path}/{switch}"), Value::Null).await.status, 200);
    }
    let more = acme.call("POST", &format!("{path}/api-keys"), json!({ "name": "second" })).await.json();
    let (second, key) = minted(&more);
    secrets.push(tail(&key));
    let rotated = acme.call("POST", &format!("/v1/partner/api-keys/{second}/rotate"), Value::Null).await.json();
    secrets.push(tail(&minted(&rotated).1));
    assert_eq!(acme.call("DELETE", &format!("/v1/partner/api-keys/{kid}"), Value::Null).await.status, 204);
    let offer = acme.call("POST", &format!("{path}/browser-handoff"), Value::Null).await.json();
    let url = text(&offer, "/url");
    secrets.push(tail(&url));
    let mut browser = provider.browser();
    let page = browser.get(&url).await;
    browser.submit(&page, &[]).await;
    secrets.push(cookie(&browser));
    let pia = "pia.p@example.com <acme> @127.0.0.1";
    let expected = [
        format!(r#"user_changed {pia} by=partner changed=["name","email"]"#),
        format!("user_disabled {pia} by=partner"),
        format!("user_enabled {pia} by=partner"),
        format!("api_key_created {pia} by=partner"),
        format!("api_key_rotated {pia} by=partner"),
        format!("api_key_revoked {pia} by=partner"),
        format!("signed_in {pia} by=person method=handoff"),
    ];
    assert_eq!(trail.lines().await, expected);
    assert_eq!(acme.call("DELETE", &path, Value::Null).await.status, 204);
    let told = trail.events().await;
    assert_eq!(told.iter().map(line).collect::<Vec<_>>(), ["user_deleted somebody <acme> @127.0.0.1 by=partner"]);
    assert_eq!(
        told[0].user_id.as_ref().map(|id| id.as_str()),
        Some(id.as_str()),
        "and everything before is found by it"
    );

    let lines = "{\"external_id\":\"p-2\",\"email\":\"quin@example.com\"}\n";
    let headers = [("authorization", acme.authorization.as_str())];
    let post = http::Method::POST;
    let content_type = Some("application/x-ndjson");
    let mut backend = provider.browser();
    let taken = backend.send_text(post, "/v1/partner/imports", content_type, lines.to_owned(), &headers).await;
    assert_eq!(taken.status, 202, "{}", taken.body);
    assert!(imports::work(&provider.app, || false).await.expect("done"));
    assert_eq!(trail.lines().await, ["user_created quin@example.com <acme> by=partner"]);
    secrets
}

async fn operators(provider: &Provider) -> Secrets {
    let app = &provider.app;
    let mut trail = Trail::of(provider);
    let profile = Profile { username: Some("carol".to_owned()), ..Profile::default() };
    let password = || Secret::new("carols first horse".to_owned());
    let id = create_user(app, profile, Some(password()), &audit::operator(app)).await.expect("carol");
    let hash = hash_new_password(app, Secret::new("carols second horse".to_owned())).await.expect("a hash");
    let hash_text = hash.expose().clone();
    assert!(people::set_password(app, &id, hash).await.expect("an answer"));
    for _ in 0..2 {
        assert!(people::set_roles(app, &id, vec!["teacher".to_owned()]).await.expect("an answer"));
        assert!(people::set_groups(app, &id, vec!["year-7".to_owned()]).await.expect("an answer"));
    }
    for enabled in [false, false, true, true] {
        assert!(people::set_enabled(app, &id, enabled).await.expect("an answer"));
    }
    let record = Record::parse(br#"{"username":"dave","password":"daves only horse"}"#).expect("a record");
    Importer::new(app).batch(vec![Ok(record.clone())]).await.expect("imported");
    Importer::new(app).batch(vec![Ok(record)]).await.expect("imported");
    let expected = [
        "user_created carol by=operator",
        "password_changed carol by=operator",
        r#"user_changed carol by=operator changed=["roles"] roles=["teacher"]"#,
        r#"user_changed carol by=operator changed=["groups"] groups=["year-7"]"#,
        "user_disabled carol by=operator",
        "user_enabled carol by=operator",
        "user_created dave by=import",
    ];
    assert_eq!(trail.lines().await, expected, "and nothing where nothing changed");

    assert!(people::delete(app, &id).await.expect("an answer"));
    assert!(!people::delete(app, &id).await.expect("an answer"));
    assert!(!people::set_enabled(app, &id, false).await.expect("an answer"));
    assert_eq!(trail.lines().await, ["user_deleted somebody by=operator"]);
    let hers = Filter { user_id: Some(id), ..Filter::default() };
    let hers = app.store.events(&hers, 100).await.expect("events");
    assert_eq!(hers.len(), 7, "what happened to her stays");
    ["carols first horse", "carols second horse", "daves only horse", &hash_text].map(str::to_owned).to_vec()
}

fn client(id: &str, secret: &str, provider: &Provider) -> ClientRecord {
    let metadata = ClientMetadata { redirect_uris: vec![SPA_CALLBACK.to_owned()], ..ClientMetadata::default() };
    let now = provider.app.now();
    ClientRecord {
        client: Client { id: ClientId::new(id), metadata, disabled_at: None },
        secrets: vec![StoredSecret::of(secret, now)],
        declared: false,
        created_at: now,
    }
}

async fn apps(provider: &Provider) -> Secrets {
    let app = &provider.app;
    let mut trail = Trail::of(provider);
    let mut record = client("made", "made-secret-271828", provider);
    clients::create(app, record.clone()).await.expect("created");
    clients::create(app, record.clone()).await.expect_err("taken");
    assert!(put(app, record.clone()).await.expect("an answer"), "as it was");
    record.client.metadata.client_name = Some("Made".to_owned());
    assert!(put(app, record.clone()).await.expect("an answer"));
    record.secrets.push(StoredSecret::of("made-secret-314159", app.now()));
    record.client.disabled_at = Some(app.now());
    assert!(put(app, record.clone()).await.expect("an answer"));
    record.client.disabled_at = None;
    assert!(put(app, record.clone()).await.expect("an answer"));
    assert!(clients::delete(app, &record.client.id).await.expect("an answer"));
    assert!(!clients::delete(app, &record.client.id).await.expect("an answer"));
    assert!(!put(app, record.clone()).await.expect("an answer"));
    let expected = [
        "client_created <made> by=operator",
        r#"client_changed <made> by=operator changed={"client_name":{"from":null,"to":"Made"}}"#,
        "client_secret_rotated <made> by=operator secrets=2",
        "client_disabled <made> by=operator",
        "client_enabled <made> by=operator",
        "client_deleted <made> by=operator",
    ];
    let mut lines = trail.lines().await;
    // Two of one moment stand in no order.
    lines[2..4].sort_by(|one, other| other.cmp(one));
    assert_eq!(lines, expected, "and nothing where nothing changed");
    vec!["made-secret-271828".to_owned(), "made-secret-314159".to_owned(), record.secrets[0].sha256.clone()]
}

async fn declarations(provider: &Provider) -> Secrets {
    let mut trail = Trail::of(provider);
    declared::sync(&provider.app).await.expect("synced");
    let (mut other, router) = provider.second().await;
    drop(router);
    declared::sync(&other).await.expect("synced");
    assert_eq!(trail.lines().await, [""; 0], "a start that finds everything as it was");

    let config = &mut Arc::get_mut(&mut other).expect("nobody else's").config;
    let position = |config: &Config, id: &str| config.clients.iter().position(|client| client.client_id == id);
    let at = position(config, "other").expect("other");
    config.clients[at].metadata.client_name = Some("Another".to_owned());
    config.clients[at].client_secret = Some(Secret::new("other-secret-161803".to_owned()));
    let gone = position(config, "globex").expect("globex");
    let gone = config.clients.remove(gone);
    let mut new = gone.clone();
    new.client_id = "initech".to_owned();
    config.clients.push(new);
    config.users[0].username = Some("erin".to_owned());
    config.users[0].email = None;
    config.users[0].password = Some(Secret::new("erins declared horse".to_owned()));
    // Two processes that start at once tell it once.
    let (one, two) = tokio::join!(declared::sync(&other), declared::sync(&other));
    one.and(two).expect("synced");
    let lines: BTreeSet<String> = trail.lines().await.into_iter().collect();
    let expected = [
        r#"client_changed <other> by=declared changed={"client_name":{"from":null,"to":"Another"}}"#,
        "client_created <initech> by=declared",
        "client_disabled <globex> by=declared",
        "client_secret_rotated <other> by=declared secrets=1",
        "user_created erin by=declared",
    ];
    assert_eq!(lines, expected.map(str::to_owned).into_iter().collect());
    let all = Filter { kinds: vec![EventKind::ClientChanged, EventKind::ClientDisabled], ..Filter::default() };
    let all = provider.app.store.events(&all, 1000).await.expect("events");
    let by_file = all.iter().filter(|event| event.detail["by"] == "declared");
    assert_eq!(by_file.count(), 2, "each once");

    let config = &mut Arc::get_mut(&mut other).expect("nobody else's").config;
    config.clients.push(gone);
    declared::sync(&other).await.expect("synced");
    assert_eq!(trail.lines().await, ["client_enabled <globex> by=declared"]);
    ["other-secret-161803", "erins declared horse"].map(str::to_owned).to_vec()
}

async fn signing(provider: &Provider) -> Secrets {
    let app = &provider.app;
    let mut first = Filter { kinds: vec![EventKind::SigningKeyCreated], ..Filter::default() };
    let made = app.store.events(&first, 10).await.expect("events");
    let algs: BTreeSet<&str> = made.iter().filter_map(|event| event.detail["alg"].as_str()).collect();
    assert_eq!(algs, BTreeSet::from(["ES256", "RS256"]), "the keys of the first start");
    first.kinds.clear();

    let mut trail = Trail::of(provider);
    signing_keys::rotate(app, SigningAlg::Es256, false).await.expect("made");
    signing_keys::rotate(app, SigningAlg::Es256, false).await.expect("waits");
    signing_keys::rotate(app, SigningAlg::EdDsa, false).await.expect("made");
    let rsa = Rsa::generate(2048).expect("a key");
    let pem = String::from_utf8(rsa.private_key_to_pem().expect("PEM")).expect("text");
    let pair = pem::key_pair(&pem, None).expect("a pair");
    let secret = pem.lines().nth(5).expect("a line").to_owned();
    signing_keys::import(app, pair, false).await.expect("imported");
    let kid = || {
        let active = app.keys.current().signing(app.now());
        active.into_iter().find(|key| key.alg == SigningAlg::Es256).expect("a key").kid
    };
    // One that is followed by a key which waits, that one by a new one.
    signing_keys::retire(app, &kid()).await.expect("retired");
    let second = kid();
    signing_keys::retire(app, &second).await.expect("retired");
    signing_keys::retire(app, &second).await.expect_err("retired before");
    let old = std::fs::read_to_string(provider.dir.path().join("keys").join(MASTER_KEY_FILE)).expect("a key");
    signing_keys::rekey(app, None).await.expect("done");
    let new = std::fs::read_to_string(provider.dir.path().join("keys").join(MASTER_KEY_FILE)).expect("a key");
    let told = trail.events().await;
    let mut lines: Vec<String> = told.iter().map(line).collect();
    lines[4..6].sort();
    let expected = [
        "signing_key_rotated by=operator alg=ES256",
        "signing_key_created by=operator alg=EdDSA",
        "signing_key_imported by=operator alg=RS256",
        "signing_key_retired by=operator",
        "signing_key_retired by=operator",
        "signing_key_rotated by=operator alg=ES256",
        "master_key_changed by=operator",
    ];
    assert_eq!(lines, expected);
    let (retired, rotated) = (&told[3].detail, &told[0].detail);
    assert_eq!((&retired["kid"], &retired["successor"]), (&rotated["predecessor"], &rotated["kid"]));

    // By itself, once it is time.
    provider.pass(Span::days(85));
    signing_keys::maintain(app).await.expect("looked after");
    let lines = trail.lines().await;
    assert!(lines.contains(&"signing_key_rotated by=keyward alg=RS256".to_owned()), "{lines:?}");
    // The tokens of players last for thirty days, counted from when its successor signs.
    for _ in 0..2 {
        provider.pass(Span::days(31));
        signing_keys::maintain(app).await.expect("looked after");
    }
    let lines = trail.lines().await;
    assert!(lines.contains(&"signing_key_retired by=keyward".to_owned()), "{lines:?}");
    vec![secret, old.trim().to_owned(), new.trim().to_owned()]
}

on_both_databases! {
    async fn signing_in_and_out_is_told(provider: Provider) {
        sign_ins(&provider).await;
    }

    async fn a_pause_is_told_once(provider: Provider) {
        lockouts(&provider).await;
    }

    async fn calls_of_first_party_apps_are_told(provider: Provider) {
        calls(&provider).await;
    }

    async fn consent_is_told_given_or_not(provider: Provider) {
        consents(&provider).await;
    }

    async fn grants_that_end_before_their_time_are_told(provider: Provider) {
        grants(&provider).await;
    }

    async fn keys_are_told_with_who_made_or_ended_them(provider: Provider) {
        keys(&provider).await;
    }

    async fn what_a_partner_does_bears_its_name(provider: Provider) {
        partners(&provider).await;
    }

    async fn what_an_operator_does_with_people_is_told(provider: Provider) {
        operators(&provider).await;
    }

    async fn what_an_operator_does_with_apps_is_told(provider: Provider) {
        apps(&provider).await;
    }

    async fn what_the_configuration_file_changes_is_told_and_nothing_else(provider: Provider) {
        declarations(&provider).await;
    }

    async fn the_life_of_signing_keys_is_told(provider: Provider) {
        signing(&provider).await;
    }

    /// All of it on one provider, so that no kind is forgotten here.
    async fn every_kind_is_written_and_no_secret_with_it(provider: Provider) {
        let mut secrets = vec!["first-secret".to_owned(), "web-secret".to_owned(), "acme-secret".to_owned()];
        secrets.extend(sign_ins(&provider).await);
        secrets.extend(lockouts(&provider).await);
        secrets.extend(calls(&provider).await);
        secrets.extend(consents(&provider).await);
        secrets.extend(grants(&provider).await);
        secrets.extend(keys(&provider).await);
        secrets.extend(partners(&provider).await);
        secrets.extend(operators(&provider).await);
        secrets.extend(apps(&provider).await);
        secrets.extend(declarations(&provider).await);
        secrets.extend(signing(&provider).await);
        assert!(secrets.len() > 40 && secrets.iter().all(|secret| secret.len() > 8), "{secrets:?}");

        let all = dump(&provider).await;
        let trail: Vec<&str> = all.lines().filter(|line| line.starts_with("events: ")).collect();
        assert!(trail.len() > 70, "{} events", trail.len());
        for kind in EventKind::ALL {
            assert!(trail.iter().any(|line| line.contains(kind.as_str())), "{kind} was never written");
        }
        for secret in secrets.iter().chain(&["Mozilla".to_owned(), "user-agent".to_owned()]) {
            let line = trail.iter().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{secret} lies in the trail: {}", line.unwrap_or(&""));
        }
    }
}
