//! API keys at every door: as a bearer credential, for tokens in both spellings, for the plain calls, for a browser's
//! session; how far each reaches, and that all of it ends with the key.

use keyward::crypto::api_key::ApiKey;
use keyward::protocol::api_key::Wish;
use keyward::protocol::ids::ApiKeyId;
use keyward::protocol::time::Span;
use serde_json::{Value, json};

use crate::on_both_databases;
use crate::support::audit::{an_operator, told};
use crate::support::{Browser, Page, Provider, TokenAnswer, claims_of, json as call};

const GRANT: &str = "urn:keyward:oauth:grant-type:api-key";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const KEY_TYPE: &str = "urn:keyward:oauth:token-type:api-key";

/// The key grant of the client `platform`, in our own spelling.
async fn grant(provider: &Provider, key: &str, more: &[(&str, &str)]) -> TokenAnswer {
    provider.token("platform", &[&[("grant_type", GRANT), ("api_key", key)], more].concat()).await
}

/// The same as a token exchange.
async fn exchange(provider: &Provider, key: &str, more: &[(&str, &str)]) -> TokenAnswer {
    let fields = [("grant_type", EXCHANGE), ("subject_token", key), ("subject_token_type", KEY_TYPE)];
    provider.token("platform", &[&fields[..], more].concat()).await
}

async fn login(provider: &Provider, body: Value) -> Page {
    provider.json("POST", "/v1/auth/api-key/login", body, &[]).await
}

/// The problem's code, after its form was looked at.
#[track_caller]
pub fn code_of(page: &Page) -> String {
    assert_eq!(page.header("content-type"), Some("application/problem+json"), "{}", page.body);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let body = page.json();
    assert_eq!(body["status"], page.status.as_u16());
    assert_eq!(body["request_id"].as_str(), page.header("x-request-id"));
    assert!(body["title"].is_string() && body["detail"].is_string() && body["type"] == "about:blank", "{body}");
    body["code"].as_str().expect("a code").to_owned()
}

on_both_databases! {
    async fn a_key_is_a_bearer_credential_with_its_scopes(provider: Provider) {
        let key = provider.api_key("alice", "openid email roles groups").await;
        let text = key.expose();
        let me = provider.bearer("GET", "/v1/me", text).await;
        assert_eq!(me.status, 200, "{}", me.body);
        let sub = provider.user_id("alice").await;
        let expected = json!({
            "id": sub, "email": "alice@example.com", "email_verified": true, "roles": ["student"], "groups": ["year-7"],
        });
        assert_eq!(me.json(), expected, "no profile was asked for");
        let userinfo = provider.userinfo(text).await;
        assert_eq!((userinfo.status.as_u16(), userinfo.json()["sub"].as_str()), (200, Some(sub.as_str())));
        assert_eq!(userinfo.json()["email"], "alice@example.com");

        let bare = provider.api_key("alice", "quiz.read").await;
        let me = provider.bearer("GET", "/v1/me", bare.expose()).await;
        assert_eq!(me.json(), json!({ "id": sub }));
        assert_eq!(provider.userinfo(bare.expose()).await.status, 403, "openid is what /userinfo is for");

        let profile = provider.api_key("alice", "profile").await;
        let me = provider.bearer("GET", "/v1/me", profile.expose()).await.json();
        assert_eq!((me["username"].as_str(), me["name"].as_str()), (Some("alice"), Some("Alice Archer")));
        assert!(me.get("email").is_none());
    }

    async fn a_key_for_tokens_only_opens_nothing_itself(provider: Provider) {
        let scopes = Some("openid profile".parse().expect("scopes"));
        let key = provider.api_key_as("alice", Wish { scopes, exchange_only: true, ..Wish::default() }).await;
        let text = key.expose();
        assert_eq!(code_of(&provider.bearer("GET", "/v1/me", text).await), "invalid_token");
        assert_eq!(provider.userinfo(text).await.status, 401);
        assert_eq!(code_of(&provider.bearer("POST", "/v1/auth/session", text).await), "invalid_token");
        provider.change_client("rs", |record| {
            record.client.metadata.introspection = keyward::protocol::client::IntrospectionRight::Any;
        }).await;
        assert_eq!(provider.introspect("rs", text).await, json!({ "active": false }));
        let tokens = grant(&provider, text, &[]).await;
        assert_eq!(tokens.status, 200, "{}", tokens.body);
        assert_eq!(provider.bearer("GET", "/v1/me", &tokens.text("access_token")).await.status, 200);
    }

    async fn both_spellings_make_the_same_tokens(provider: Provider) {
        provider.with_long_tokens().await;
        let key = provider.api_key("alice", "openid profile offline_access quiz.read").await;
        let scope = [("scope", "openid offline_access quiz.read email")];
        let mut answers = [grant(&provider, key.expose(), &scope).await, exchange(&provider, key.expose(), &scope).await];
        assert_eq!(answers[1].body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
        answers[1].body.as_object_mut().expect("an object").remove("issued_token_type");
        for tokens in &answers {
            assert_eq!(tokens.status, 200, "{}", tokens.body);
            let mut names: Vec<&String> = tokens.body.as_object().expect("an object").keys().collect();
            names.sort();
            assert_eq!(names, ["access_token", "expires_in", "id_token", "refresh_token", "scope", "token_type"]);
            assert_eq!(tokens.text("scope"), "openid offline_access quiz.read", "what request, key and client share");
            assert_eq!(tokens.body["expires_in"], 7 * 24 * 3600);
            let access = claims_of(&tokens.text("access_token"));
            assert_eq!(access["key_id"], key.kid.as_str());
            assert_eq!(access["acr"], "urn:keyward:acr:api-key");
            assert!(access.get("auth_time").is_none() && access.get("act").is_none(), "{access}");
            assert_eq!(access["client_id"], "platform");
            let id = claims_of(&tokens.text("id_token"));
            assert_eq!((id["sub"].as_str(), id["aud"].as_str()), (access["sub"].as_str(), Some("platform")));
            assert_eq!(id["acr"], "urn:keyward:acr:api-key");
            assert!(id.get("auth_time").is_none() && id.get("amr").is_none() && id.get("sid").is_none(), "{id}");
            let refreshed = provider.refresh("platform", &tokens.text("refresh_token")).await;
            assert_eq!(refreshed.status, 200, "{}", refreshed.body);
            let again = claims_of(&refreshed.text("access_token"));
            assert_eq!((&again["key_id"], &again["acr"]), (&access["key_id"], &access["acr"]));
        }
    }

    async fn a_token_that_cannot_be_refreshed_writes_no_row(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        provider.app.store.flush_key_uses().await.expect("written");
        let before = provider.row_counts().await;
        let tokens = grant(&provider, key.expose(), &[]).await;
        assert!(tokens.body.get("refresh_token").is_none());
        assert_eq!(provider.row_counts().await, before);
        let access = tokens.text("access_token");
        assert_eq!(provider.userinfo(&access).await.status, 200);
        let done = provider.call("platform", "/revoke", &[("token", &access)]).await;
        assert_eq!(done.status, 200);
        assert_eq!(provider.userinfo(&access).await.status, 401, "it can be revoked all the same");
    }

    async fn every_refusal_has_the_error_of_its_spelling(provider: Provider) {
        let key = provider.api_key("alice", "openid quiz.read").await;
        let text = key.expose().as_str();
        let repeated = format!("grant_type={GRANT}&api_key=x&api_key=x");
        let unlisted = [("grant_type", GRANT), ("api_key", text)];
        assert_eq!(provider.token("first", &unlisted).await.error(), "unauthorized_client");
        let secretless = provider.browser().post("/token", &[&unlisted[..], &[("client_id", "platform")]].concat()).await;
        assert_eq!((secretless.status.as_u16(), secretless.json()["error"].as_str()), (401, Some("invalid_client")));
        let form = "application/x-www-form-urlencoded";
        let basic = [("authorization", "Basic cGxhdGZvcm06cGxhdGZvcm0tc2VjcmV0")];
        let page = provider.browser().send_text(http::Method::POST, "/token", Some(form), repeated, &basic).await;
        assert_eq!(page.json()["error"], "invalid_request");
        for (more, own, other) in [
            (&[("scope", "pay")][..], "invalid_scope", "invalid_scope"),
            (&[("scope", "a\"b")], "invalid_scope", "invalid_scope"),
            (&[("resource", "https://unknown.test")], "invalid_target", "invalid_target"),
            (&[("resource", "https://quiz.test")], "", ""),
        ] {
            for (answer, expected) in
                [(grant(&provider, text, more).await, own), (exchange(&provider, text, more).await, other)]
            {
                assert_eq!((answer.error(), answer.status), (expected, if expected.is_empty() { 200 } else { 400 }), "{more:?}");
            }
        }
        assert_eq!(provider.token("platform", &[("grant_type", GRANT)]).await.error(), "invalid_request");
        assert_eq!(grant(&provider, "nonsense", &[]).await.error(), "invalid_grant");
        assert_eq!(exchange(&provider, "nonsense", &[]).await.error(), "invalid_request");
        let wrong = [("grant_type", EXCHANGE), ("subject_token", text), ("subject_token_type", "urn:x")];
        assert_eq!(provider.token("platform", &wrong).await.error(), "invalid_request");
    }

    async fn audiences_of_a_key_are_those_of_its_tokens(provider: Provider) {
        let wish = |audience: &str| Wish {
            scopes: Some("openid quiz.read".parse().expect("scopes")),
            audiences: vec![audience.to_owned()],
            ..Wish::default()
        };
        let key = provider.api_key_as("alice", wish("https://quiz.test")).await;
        let tokens = grant(&provider, key.expose(), &[]).await;
        let access = claims_of(&tokens.text("access_token"));
        assert_eq!(access["aud"], json!(["https://quiz.test", "https://id.test"]));
        assert_eq!(grant(&provider, key.expose(), &[("resource", "https://pay.test")]).await.error(), "invalid_target");
        // Without openid it is for the resource alone, and nothing to us.
        let foreign = Wish { scopes: Some("quiz.read".parse().expect("scopes")), ..wish("https://quiz.test") };
        let foreign = provider.api_key_as("alice", foreign).await;
        assert_eq!(code_of(&provider.bearer("GET", "/v1/me", foreign.expose()).await), "invalid_token");
        let seen = provider.introspect("rs", foreign.expose()).await;
        assert_eq!(seen["aud"], json!(["https://quiz.test"]), "{seen}");
    }

    async fn a_key_can_be_introspected_by_whom_it_is_for(provider: Provider) {
        let wish = Wish {
            scopes: Some("openid quiz.read teach".parse().expect("scopes")),
            audiences: vec!["https://quiz.test".to_owned()],
            ..Wish::default()
        };
        let id = provider.user_id("alice").await;
        let roles = Some(vec!["student".to_owned(), "teacher".to_owned()]);
        assert!(provider.app.store.set_roles(id.clone(), roles, None, told(), provider.app.now()).await.expect("an answer"));
        let key = provider.api_key_as("alice", wish).await;
        let seen = provider.introspect("rs", key.expose()).await;
        assert_eq!(seen["active"], true, "{seen}");
        assert_eq!((seen["sub"].as_str(), seen["username"].as_str()), (Some(id.as_str()), Some("alice")));
        assert_eq!((seen["credential_type"].as_str(), seen["key_id"].as_str()), (Some("api_key"), Some(key.kid.as_str())));
        assert_eq!(seen["scope"], "openid quiz.read teach");
        assert!(seen["exp"].as_i64() > seen["iat"].as_i64());
        for stranger in ["web", "machine"] {
            assert_eq!(provider.introspect(stranger, key.expose()).await, json!({ "active": false }));
        }
        assert!(provider.app.store.set_roles(id, Some(vec![]), None, told(), provider.app.now()).await.expect("an answer"));
        assert_eq!(provider.introspect("rs", key.expose()).await["scope"], "openid quiz.read", "a role's scope goes with it");
    }

    async fn a_role_that_is_taken_away_takes_its_scopes_along(provider: Provider) {
        let store = &provider.app.store;
        let id = provider.user_id("alice").await;
        let set = async |roles: &[&str]| {
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            assert!(store.set_roles(id.clone(), Some(roles), None, told(), provider.app.now()).await.expect("an answer"));
        };
        provider.change_client("first", |record| {
            record.client.metadata.scope = "openid offline_access roles quiz.read teach".parse().expect("scopes");
        }).await;
        assert_eq!(provider.tokens("openid quiz.read teach").await.text("scope"), "openid quiz.read");
        set(&["teacher"]).await;
        let tokens = provider.tokens("openid offline_access roles teach").await;
        assert_eq!(tokens.text("scope"), "openid offline_access roles teach");
        assert_eq!(provider.userinfo(&tokens.text("access_token")).await.json()["roles"], json!(["teacher"]));
        let key = provider.api_key("alice", "openid teach").await;
        assert_eq!(grant(&provider, key.expose(), &[]).await.text("scope"), "openid teach");
        set(&[]).await;
        assert_eq!(grant(&provider, key.expose(), &[]).await.text("scope"), "openid");
        assert_eq!(grant(&provider, key.expose(), &[("scope", "teach")]).await.error(), "invalid_scope");
        let refreshed = provider.refresh("first", &tokens.text("refresh_token")).await;
        assert_eq!(refreshed.text("scope"), "openid offline_access roles");
        let seen = provider.introspect("first", &tokens.text("access_token")).await;
        assert_eq!(seen["scope"], "openid offline_access roles", "also of a token that was made before");
    }

    async fn the_plain_calls_sign_in_refresh_and_begin_anew(provider: Provider) {
        provider.with_long_tokens().await;
        let key = provider.api_key("alice", "openid profile offline_access quiz.read").await;
        let page = login(&provider, json!({ "api_key": key.expose() })).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let tokens = page.json();
        let mut names: Vec<&String> = tokens.as_object().expect("an object").keys().collect();
        names.sort();
        assert_eq!(names, ["access_token", "expires_in", "refresh_expires_in", "refresh_token", "scope", "token_type"]);
        assert_eq!((&tokens["expires_in"], &tokens["refresh_expires_in"]), (&json!(604_800), &json!(2_592_000)));
        assert_eq!(tokens["scope"], "openid profile offline_access quiz.read");
        let first = tokens["refresh_token"].as_str().expect("a token").to_owned();
        for _ in 0..3 {
            provider.pass(Span::days(8));
            let page = provider.json("POST", "/v1/auth/refresh", json!({ "refresh_token": first }), &[]).await;
            assert_eq!(page.status, 200, "{}", page.body);
            let again = page.json();
            assert_eq!(again["refresh_token"], first.as_str(), "it stays what it is");
            assert!(again["refresh_expires_in"].as_i64() < Some(2_592_000));
            let access = again["access_token"].as_str().expect("a token");
            assert_eq!(provider.bearer("GET", "/v1/me", access).await.json()["username"], "alice");
        }
        assert_eq!(code_of(&provider.bearer("GET", "/v1/me", tokens["access_token"].as_str().expect("a token")).await), "invalid_token");
        provider.pass(Span::days(7));
        let over = provider.json("POST", "/v1/auth/refresh", json!({ "refresh_token": first }), &[]).await;
        assert_eq!((over.status.as_u16(), code_of(&over).as_str()), (401, "invalid_refresh_token"));
        assert_eq!(login(&provider, json!({ "api_key": key.expose() })).await.status, 200, "a new sign-in");

        let narrow = login(&provider, json!({ "api_key": key.expose(), "scope": "openid email" })).await.json();
        assert_eq!(narrow["scope"], "openid");
        assert!(narrow["refresh_token"].is_string(), "always, whatever the scopes");
        let none = login(&provider, json!({ "api_key": key.expose(), "scope": "email" })).await;
        assert_eq!((none.status.as_u16(), code_of(&none).as_str()), (400, "invalid_scope"));
        // Refresh tokens of apps are not for here, whoever's they are, nor are these for there: here nobody authenticates.
        let app = provider.tokens("openid offline_access").await.text("refresh_token");
        let of_platform = grant(&provider, key.expose(), &[]).await.text("refresh_token");
        for foreign in [&app, &of_platform] {
            let page = provider.json("POST", "/v1/auth/refresh", json!({ "refresh_token": foreign }), &[]).await;
            assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (401, "invalid_refresh_token"));
        }
        assert_eq!(provider.refresh("platform", &of_platform).await.status, 200);
        let own = narrow["refresh_token"].as_str().expect("a token");
        assert_eq!(provider.refresh("platform", own).await.error(), "invalid_grant");
        assert_eq!(provider.json("POST", "/v1/auth/refresh", json!({ "refresh_token": own }), &[]).await.status, 200);
    }

    /// Whoever signs in anew for every request keeps what they got last, and fills no disk.
    async fn a_key_opens_so_much_at_a_time_and_no_more(provider: Provider) {
        let key = provider.api_key("alice", "openid offline_access").await;
        let mut tokens = Vec::new();
        for _ in 0..103 {
            tokens.push(grant(&provider, key.expose(), &[]).await.text("refresh_token"));
            let page = provider.json("POST", "/v1/auth/session", json!({ "api_key": key.expose() }), &[]).await;
            assert_eq!(page.status, 204);
        }
        let counts = provider.row_counts().await;
        let count = |table: &str| counts.iter().find(|(name, _)| name == table).map(|(_, count)| *count);
        assert_eq!((count("grants"), count("sessions")), (Some(100), Some(100)));
        assert_eq!(provider.refresh("platform", &tokens[2]).await.error(), "invalid_grant");
        for token in &tokens[3..] {
            assert_eq!(provider.refresh("platform", token).await.status, 200);
        }
    }

    /// A session that a token began is no more than the token: it ends when that does, by itself or by revocation.
    async fn a_session_from_a_token_ends_with_the_token(provider: Provider) {
        provider.with_long_tokens().await;
        let key = provider.api_key("alice", "openid profile offline_access").await;
        for end in ["its own", "of its grant", "time"] {
            let tokens = grant(&provider, key.expose(), &[]).await;
            let access = tokens.text("access_token");
            let mut browser = provider.browser();
            let bearer = format!("Bearer {access}");
            let began = call(&mut browser, "POST", "/v1/auth/session", Value::Null, &[("authorization", &bearer)]).await;
            assert_eq!(began.status, 204, "{}", began.body);
            assert_eq!(browser.get("/v1/me").await.status, 200);
            match end {
                "its own" => assert_eq!(provider.call("platform", "/revoke", &[("token", &access)]).await.status, 200),
                "of its grant" => {
                    let refresh = tokens.text("refresh_token");
                    assert_eq!(provider.call("platform", "/revoke", &[("token", &refresh)]).await.status, 200);
                }
                _ => {
                    for _ in 0..15 {
                        provider.pass(Span::hours(11));
                        browser.get("/v1/me").await;
                    }
                    provider.pass(Span::hours(4));
                }
            }
            assert_eq!(browser.get("/v1/me").await.status, 401, "{end}");
            assert_eq!(provider.bearer("GET", "/v1/me", key.expose()).await.status, 200, "{end}: the key goes on");
        }
    }

    async fn a_rotated_key_has_a_successor_of_the_same_life(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let record = async |kid: &ApiKeyId| provider.app.store.listed_api_key(kid).await.expect("an answer").expect("the key").record;
        let first = record(&key.kid).await;
        let rotate = async |old| keyward::account::api_keys::rotate(&provider.app, &old, Span::hours(1), &an_operator()).await;
        let lost = rotate(first.clone()).await.expect("a key");
        // Its answer was lost: it is ended, and the old one rotated again.
        assert!(keyward::account::api_keys::revoke(&provider.app, &lost.record, &an_operator()).await.expect("an answer"));
        let next = rotate(record(&key.kid).await).await.expect("a key").record;
        assert_eq!(next.expires_at - next.created_at, Span::days(365));
        assert_eq!(record(&key.kid).await.expires_at, lost.record.created_at + Span::hours(1));
    }

    async fn a_dead_key_moves_nobodys_caches(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let end = json!({ "api_key": key.expose() });
        assert_eq!(provider.json("POST", "/v1/api-keys/self-revoke", end.clone(), &[]).await.status, 204);
        provider.app.store.poll_changes().await.expect("an answer");
        for _ in 0..3 {
            assert_eq!(provider.json("POST", "/v1/api-keys/self-revoke", end.clone(), &[]).await.status, 204);
            assert_eq!(provider.call("web", "/revoke", &[("token", key.expose())]).await.status, 200);
            assert!(!provider.app.store.poll_changes().await.expect("an answer"), "nothing moved");
        }
    }

    /// Another process revokes a key that this one still remembers: what is asked for a row of its own hears so at once.
    async fn a_key_that_ended_elsewhere_is_a_bad_key(provider: Provider) {
        let (other, _) = provider.second().await;
        let key = provider.api_key("alice", "openid offline_access").await;
        assert_eq!(provider.bearer("GET", "/v1/me", key.expose()).await.status, 200, "remembered");
        let record = other.store.listed_api_key(&key.kid).await.expect("an answer").expect("the key").record;
        assert!(keyward::account::api_keys::revoke(&other, &record, &an_operator()).await.expect("an answer"));
        let page = login(&provider, json!({ "api_key": key.expose() })).await;
        assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (401, "invalid_api_key"));
        let answer = grant(&provider, key.expose(), &[]).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"));
    }

    async fn a_browser_gets_a_session_that_stays_within_the_key(provider: Provider) {
        let key = provider.api_key("alice", "openid email").await;
        let mut browser = provider.browser();
        let page = call(&mut browser, "POST", "/v1/auth/session", json!({ "api_key": key.expose() }), &[]).await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (204, ""));
        let cookie = page.header("set-cookie").expect("a cookie").to_owned();
        assert!(cookie.starts_with("__Host-keyward_session=") && cookie.contains("HttpOnly"), "{cookie}");
        let me = browser.get("/v1/me").await.json();
        assert_eq!(me["email"], "alice@example.com");
        assert!(me.get("username").is_none(), "no profile: {me}");
        // It is no sign-in to any app, nor to the person's own account.
        let silent = browser.get(&provider.authorize_url("prompt=none")).await;
        assert_eq!(silent.location_params()["error"], "login_required");
        let keys = browser.get("/v1/me/api-keys").await;
        assert_eq!((keys.status.as_u16(), code_of(&keys).as_str()), (401, "reauthentication_required"));
        let out = call(&mut browser, "DELETE", "/v1/auth/session", Value::Null, &[]).await;
        assert_eq!(out.status, 204);
        assert!(browser.cookies.is_empty());
        assert_eq!(code_of(&browser.get("/v1/me").await), "unauthorized");

        // A token that was made from the key does as well, a token of an app does not.
        let tokens = grant(&provider, key.expose(), &[]).await;
        let page = provider.bearer("POST", "/v1/auth/session", &tokens.text("access_token")).await;
        assert_eq!(page.status, 204, "{}", page.body);
        let app = provider.tokens("openid").await.text("access_token");
        let page = provider.bearer("POST", "/v1/auth/session", &app).await;
        assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (403, "insufficient_scope"));
    }

    async fn people_make_rotate_and_end_their_keys(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let page = call(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "laptop" }), &[]).await;
        assert_eq!(page.status, 201, "{}", page.body);
        let made = page.json()["api_key"].clone();
        assert_eq!(made["scopes"], json!(["openid", "profile", "email", "roles", "groups", "offline_access"]));
        let (kid, key) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("a key"));
        assert!(key.starts_with(&format!("kw_uk_{kid}_")) && ApiKey::parse(key).is_some());
        assert!(made["expires_at"].as_str().expect("a time").ends_with('Z'));
        assert_eq!(provider.bearer("GET", "/v1/me", key).await.status, 200);
        provider.app.store.flush_key_uses().await.expect("written");

        let list = browser.get("/v1/me/api-keys").await.json();
        let item = &list["items"][0];
        assert_eq!((item["name"].as_str(), item["status"].as_str()), (Some("laptop"), Some("active")));
        assert_eq!(item["last_used_ip"], "127.0.0.1");
        assert!(item["last_used_at"].is_string() && item.get("key").is_none() && list["next_cursor"].is_null());

        let path = format!("/v1/me/api-keys/{kid}/rotate");
        let page = call(&mut browser, "POST", &path, json!({ "overlap_seconds": 60 }), &[]).await;
        assert_eq!(page.status, 201, "{}", page.body);
        let second = page.json()["api_key"].clone();
        let (new_kid, new) = (second["id"].as_str().expect("an id"), second["key"].as_str().expect("a key"));
        for both in [key, new] {
            assert_eq!(provider.bearer("GET", "/v1/me", both).await.status, 200, "while both count");
        }
        let again = call(&mut browser, "POST", &path, Value::Null, &[]).await;
        assert_eq!((again.status.as_u16(), code_of(&again).as_str()), (409, "api_key_already_rotated"));
        provider.pass(Span::minutes(2));
        assert_eq!(provider.bearer("GET", "/v1/me", key).await.status, 401, "its time is over");
        assert_eq!(provider.bearer("GET", "/v1/me", new).await.status, 200);

        let page = call(&mut browser, "DELETE", &format!("/v1/me/api-keys/{new_kid}"), Value::Null, &[]).await;
        assert_eq!(page.status, 204);
        assert_eq!(provider.bearer("GET", "/v1/me", new).await.status, 401);
        let list = browser.get("/v1/me/api-keys?limit=1").await.json();
        assert_eq!((list["items"][0]["id"].as_str(), list["items"][0]["status"].as_str()), (Some(new_kid), Some("revoked")));
        assert_eq!(list["items"][0]["predecessor"], kid);
        let cursor = list["next_cursor"].as_str().expect("another page");
        let rest = browser.get(&format!("/v1/me/api-keys?limit=1&cursor={cursor}")).await.json();
        assert_eq!((rest["items"][0]["id"].as_str(), rest["items"][0]["status"].as_str()), (Some(kid), Some("expired")));
        assert!(rest["next_cursor"].is_null());

        // Five minutes after the sign-in it needs another.
        provider.pass(Span::minutes(4));
        let late = call(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "late" }), &[]).await;
        assert_eq!((late.status.as_u16(), code_of(&late).as_str()), (401, "reauthentication_required"));
        assert_eq!(browser.get("/v1/me").await.status, 200, "though the session lives");
    }

    async fn what_a_key_may_not_be_is_said(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let before = provider.row_counts().await;
        for (body, code) in [
            (json!({}), "invalid_request"),
            (json!({ "name": "" }), "invalid_request"),
            (json!({ "name": "x", "user_id": "bob" }), "invalid_request"),
            (json!({ "name": "x", "scopes": ["openid", "teach"] }), "invalid_scope"),
            (json!({ "name": "x", "scopes": ["root"] }), "invalid_scope"),
            (json!({ "name": "x", "scopes": [] }), "invalid_scope"),
            (json!({ "name": "x", "scopes": ["a\"b"] }), "invalid_scope"),
            (json!({ "name": "x", "audiences": ["https://unknown.test"] }), "invalid_target"),
            (json!({ "name": "x", "allowed_cidrs": ["here"] }), "invalid_request"),
            (json!({ "name": "x", "expires_in": 0 }), "invalid_request"),
            (json!({ "name": "x", "expires_in": -5 }), "invalid_request"),
            (json!({ "name": "x", "expires_in": 1e300 }), "invalid_request"),
            (json!({ "name": "x", "expires_in": i64::MAX }), "invalid_request"),
            (json!({ "name": "\u{0}" }), "invalid_request"),
            (json!([]), "invalid_request"),
        ] {
            let page = call(&mut browser, "POST", "/v1/me/api-keys", body.clone(), &[]).await;
            assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (400, code), "{body}");
        }
        assert_eq!(provider.row_counts().await, before);
        let page = call(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "x", "expires_in": 60 }), &[]).await;
        assert_eq!(page.status, 201);
        provider.pass(Span::from_secs(61));
        let key = page.json()["api_key"]["key"].as_str().expect("a key").to_owned();
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 401);
    }

    async fn an_owner_has_so_many_keys_and_no_more(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        for n in 0..100 {
            let page = call(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": format!("{n}") }), &[]).await;
            assert_eq!(page.status, 201, "{n}: {}", page.body);
        }
        let page = call(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "more" }), &[]).await;
        assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (409, "too_many_api_keys"));
        let list = browser.get("/v1/me/api-keys?limit=1").await.json();
        let kid = list["items"][0]["id"].as_str().expect("an id").to_owned();
        assert_eq!(call(&mut browser, "DELETE", &format!("/v1/me/api-keys/{kid}"), Value::Null, &[]).await.status, 204);
        assert_eq!(call(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "more" }), &[]).await.status, 201);
    }

    /// Whatever ends a key ends what it opened: tokens, refresh tokens, sessions, here at once and elsewhere within a
    /// second.
    async fn all_that_a_key_opened_closes_with_it(provider: Provider) {
        let (other, router) = provider.second().await;
        for end in ["revoke", "self-revoke", "rfc7009", "disable", "overlap", "expiry"] {
            let expires_in = (end == "expiry").then_some(Span::minutes(5));
            let scopes = Some("openid profile offline_access".parse().expect("scopes"));
            let key = provider.api_key_as("alice", Wish { scopes, expires_in, ..Wish::default() }).await;
            let text = key.expose().as_str();
            let tokens = grant(&provider, text, &[]).await;
            let bare = grant(&provider, text, &[("scope", "openid")]).await;
            let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
            let bare = bare.text("access_token");
            let mut browser = provider.browser();
            let began = call(&mut browser, "POST", "/v1/auth/session", json!({ "api_key": text }), &[]).await;
            assert_eq!(began.status, 204, "{end}");
            let mut there = Browser::new(router.clone(), &provider.issuer);
            there.cookies = browser.cookies.clone();
            // Every cache of both processes knows it.
            for credential in [text, &access, &bare] {
                let bearer = format!("Bearer {credential}");
                assert_eq!(provider.bearer("GET", "/v1/me", credential).await.status, 200, "{end}");
                let page = call(&mut Browser::new(router.clone(), &provider.issuer), "GET", "/v1/me", Value::Null, &[("authorization", &bearer)]).await;
                assert_eq!(page.status, 200, "{end}");
            }
            let now = provider.app.now();
            let record = provider.app.store.listed_api_key(&key.kid).await.expect("an answer").expect("the key").record;
            match end {
                "revoke" => {
                    let done = keyward::account::api_keys::revoke(&provider.app, &record, &an_operator()).await;
                    assert!(done.expect("an answer"));
                }
                "self-revoke" => {
                    let page = provider.json("POST", "/v1/api-keys/self-revoke", json!({ "api_key": text }), &[]).await;
                    assert_eq!(page.status, 204);
                }
                "rfc7009" => assert_eq!(provider.call("web", "/revoke", &[("token", text)]).await.status, 200),
                "disable" => provider.set_user_disabled("alice", true).await,
                "overlap" => {
                    let minted = keyward::account::api_keys::rotate(&provider.app, &record, Span::minutes(1), &an_operator()).await;
                    let successor = minted.expect("a key").key;
                    provider.pass(Span::minutes(2));
                    assert_eq!(provider.bearer("GET", "/v1/me", successor.expose()).await.status, 200);
                }
                _ => provider.pass(Span::minutes(6)),
            }
            for credential in [text, &access, &bare] {
                assert_eq!(provider.bearer("GET", "/v1/me", credential).await.status, 401, "{end}");
                assert_eq!(provider.userinfo(credential).await.status, 401, "{end}");
            }
            assert_eq!(provider.refresh("platform", &refresh).await.error(), "invalid_grant", "{end}");
            assert_eq!(provider.introspect("platform", &access).await, json!({ "active": false }), "{end}");
            assert_eq!(provider.introspect("platform", &refresh).await, json!({ "active": false }), "{end}");
            assert_eq!(grant(&provider, text, &[]).await.error(), "invalid_grant", "{end}");
            assert_eq!(exchange(&provider, text, &[]).await.error(), "invalid_request", "{end}");
            assert_eq!(login(&provider, json!({ "api_key": text })).await.status, 401, "{end}");
            assert_eq!(browser.get("/v1/me").await.status, 401, "{end}: the session");
            // What every process does twice a second.
            other.store.poll_changes().await.expect("an answer");
            for credential in [text, &access, &bare] {
                let bearer = format!("Bearer {credential}");
                let page = call(&mut Browser::new(router.clone(), &provider.issuer), "GET", "/v1/me", Value::Null, &[("authorization", &bearer)]).await;
                assert_eq!(page.status, 401, "{end}, in the other process");
            }
            assert_eq!(there.get("/v1/me").await.status, 401, "{end}, in the other process");
            if end == "disable" {
                provider.set_user_disabled("alice", false).await;
                assert_eq!(provider.refresh("platform", &refresh).await.error(), "invalid_grant", "what ended stays ended");
                assert_eq!(provider.bearer("GET", "/v1/me", text).await.status, 200, "the key itself was only suspended");
            }
            assert!(provider.app.now() > now);
        }
    }

    async fn nothing_made_from_a_key_outlives_it(provider: Provider) {
        provider.with_long_tokens().await;
        let scopes = Some("openid offline_access".parse().expect("scopes"));
        let wish = Wish { scopes, expires_in: Some(Span::hours(1)), ..Wish::default() };
        let key = provider.api_key_as("alice", wish).await;
        let tokens = grant(&provider, key.expose(), &[]).await;
        assert!(tokens.body["expires_in"].as_i64() <= Some(3600), "{}", tokens.body);
        let id = claims_of(&tokens.text("id_token"));
        assert!(id["exp"].as_i64().expect("a time") - id["iat"].as_i64().expect("a time") <= 3600);
        let facade = login(&provider, json!({ "api_key": key.expose() })).await.json();
        assert!(facade["refresh_expires_in"].as_i64() <= Some(3600), "{facade}");
        provider.pass(Span::minutes(30));
        let refreshed = provider.refresh("platform", &tokens.text("refresh_token")).await;
        assert!(refreshed.body["expires_in"].as_i64() <= Some(1800), "{}", refreshed.body);
    }

    async fn fifty_uses_of_a_key_are_noted_as_the_last(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let uses = (0..50).map(|_| provider.bearer("GET", "/v1/me", key.expose()));
        let pages = futures_util::future::join_all(uses).await;
        assert!(pages.iter().all(|page| page.status == 200));
        provider.app.store.flush_key_uses().await.expect("written");
        let noted = async || {
            let listed = provider.app.store.listed_api_key(&ApiKeyId::new(key.kid.as_str())).await;
            listed.expect("an answer").expect("the key").last_used_at.expect("a time")
        };
        let first = noted().await;
        // At most once a minute.
        provider.pass(Span::from_secs(30));
        provider.bearer("GET", "/v1/me", key.expose()).await;
        provider.app.store.flush_key_uses().await.expect("written");
        assert_eq!(noted().await, first);
        provider.pass(Span::from_secs(40));
        provider.bearer("GET", "/v1/me", key.expose()).await;
        provider.app.store.flush_key_uses().await.expect("written");
        assert!(noted().await >= first + Span::from_secs(60));
    }

    async fn errors_of_the_api_are_problems(provider: Provider) {
        let mut browser = provider.browser();
        for (method, path, body, headers, status, code) in [
            ("GET", "/v1/nothing", Value::Null, &[][..], 404, "not_found"),
            ("GET", "/v1", Value::Null, &[], 404, "not_found"),
            ("PUT", "/v1/me", Value::Null, &[], 405, "method_not_allowed"),
            ("POST", "/v1/auth/api-key/login", json!({ "api_key": 7 }), &[], 400, "invalid_request"),
            ("POST", "/v1/auth/api-key/login", json!({ "api_key": "x", "more": 1 }), &[], 400, "invalid_request"),
            ("POST", "/v1/auth/api-key/login", Value::Null, &[], 415, "unsupported_media_type"),
            ("POST", "/v1/auth/session", Value::Null, &[], 401, "unauthorized"),
            ("GET", "/v1/me", Value::Null, &[("authorization", "Bearer nonsense")], 401, "invalid_token"),
            ("GET", "/v1/me", Value::Null, &[("authorization", "Basic eDp5")], 401, "unauthorized"),
        ] {
            let page = call(&mut browser, method, path, body, headers).await;
            assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (status, code), "{method} {path}");
        }
        let text = browser.send_text(http::Method::POST, "/v1/auth/api-key/login", Some("text/plain"), "{}".to_owned(), &[]).await;
        assert_eq!(code_of(&text), "unsupported_media_type");
        let broken = browser.send_text(http::Method::POST, "/v1/auth/api-key/login", Some("application/json"), "{".to_owned(), &[]).await;
        assert_eq!(code_of(&broken), "invalid_request");
        let large = json!({ "api_key": "x".repeat(70_000) });
        let page = call(&mut browser, "POST", "/v1/auth/api-key/login", large, &[]).await;
        assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (413, "payload_too_large"));
        let allow = call(&mut browser, "PUT", "/v1/me", Value::Null, &[]).await;
        assert!(allow.header("allow").is_some_and(|allow| allow.contains("GET")), "{:?}", allow.headers);
        let challenged = browser.get("/v1/me").await;
        assert_eq!(challenged.header("www-authenticate"), Some("Bearer realm=\"keyward\""));
    }

    async fn the_document_describes_every_operation(provider: Provider) {
        let page = provider.browser().get("/v1/openapi.json").await;
        let document = page.json();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().expect("paths");
        for (path, methods) in [
            ("/v1/auth/api-key/login", &["post"][..]),
            ("/v1/auth/refresh", &["post"]),
            ("/v1/auth/session", &["post", "delete"]),
            ("/v1/me", &["get"]),
            ("/v1/me/api-keys", &["get", "post"]),
            ("/v1/me/api-keys/{kid}", &["delete"]),
            ("/v1/me/api-keys/{kid}/rotate", &["post"]),
            ("/v1/api-keys/self-revoke", &["post"]),
        ] {
            for method in methods {
                let operation = &paths[path][*method];
                assert!(operation["responses"]["503"].is_object() && operation["summary"].is_string(), "{method} {path}");
            }
        }
        assert_eq!(document["servers"][0]["url"], "https://id.test");
    }

    async fn only_registered_origins_call_the_api_from_a_page(provider: Provider) {
        let mut browser = provider.browser();
        for (origin, allowed) in [("https://spa2.test", true), ("https://evil.test", false)] {
            let preflight = [("origin", origin), ("access-control-request-method", "POST")];
            let page = call(&mut browser, "OPTIONS", "/v1/auth/api-key/login", Value::Null, &preflight).await;
            assert_eq!(page.header("access-control-allow-origin"), allowed.then_some(origin));
            assert!(page.header("access-control-allow-credentials").is_none());
            let page = call(&mut browser, "GET", "/v1/me", Value::Null, &[("origin", origin)]).await;
            assert_eq!(page.header("access-control-allow-origin"), allowed.then_some(origin), "on errors too");
        }
    }
}
