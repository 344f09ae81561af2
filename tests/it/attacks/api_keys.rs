//! API keys, and the exchange of them for tokens.

use keyward::account::api_keys::{mint_for_partner, revoke};
use keyward::crypto::api_key::ApiKey;
use keyward::protocol::api_key::{Kind, Wish};
use keyward::protocol::client::GrantType;
use keyward::protocol::ids::ClientId;
use keyward::protocol::time::Span;
use serde_json::{Value, json};

use super::without_request_id;
use crate::api_keys::code_of;
use crate::on_both_databases;
use crate::support::audit::an_operator;
use crate::support::{Browser, Doors, Provider, TokenAnswer, at_once, claims_of, json as call};

const GRANT: &str = "urn:keyward:oauth:grant-type:api-key";
const EXCHANGE: [(&str, &str); 2] = [
    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
    ("subject_token_type", "urn:keyward:oauth:token-type:api-key"),
];

async fn exchange(provider: &Provider, client: &str, key: &str, more: &[(&str, &str)]) -> TokenAnswer {
    provider.token(client, &[&EXCHANGE[..], &[("subject_token", key)], more].concat()).await
}

/// A key that was never given out: its form and checksum are right.
fn invented(kind: Kind, n: u8) -> String {
    ApiKey::new(kind, [n; 16], [n; 32]).expose().clone()
}

/// The key of the same id with another secret: whoever reads a list knows ids, and anybody computes checksums.
fn with_another_secret(key: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let body = format!("{}{}", &key[..23], key[23..66].chars().rev().collect::<String>());
    let mut sum = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(sum % 62) as usize];
        sum /= 62;
    }
    body + std::str::from_utf8(&digits).expect("digits")
}

/// What somebody got for a key.
enum Opened {
    Tokens(String, Value),
    Session(Box<Browser>),
}

on_both_databases! {
    async fn attack_49_a_client_without_its_secret_uses_up_no_key(provider: Provider) {
        let key = provider.api_key("alice", "openid offline_access").await;
        let before = provider.row_counts().await;
        for grant in [&[("grant_type", GRANT), ("api_key", key.expose())][..], &[EXCHANGE[0], EXCHANGE[1], ("subject_token", key.expose())]] {
            let fields = [grant, &[("client_id", "platform")]].concat();
            let page = provider.browser().post("/token", &fields).await;
            assert_eq!((page.status.as_u16(), page.json()["error"].as_str()), (401, Some("invalid_client")));
        }
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(exchange(&provider, "platform", key.expose(), &[]).await.status, 200);
    }

    async fn attacks_90_and_91_an_exchange_never_yields_more_than_the_key(provider: Provider) {
        let scopes = Some("openid quiz.read".parse().expect("scopes"));
        let audiences = vec!["https://quiz.test".to_owned()];
        let wish = Wish { scopes, audiences, expires_in: Some(Span::hours(1)), ..Wish::default() };
        let key = provider.api_key_as("alice", wish).await;
        for (more, error) in [
            (("resource", "https://pay.test"), "invalid_target"),
            (("audience", "https://pay.test"), "invalid_target"),
            (("audience", "platform"), "invalid_target"),
            (("scope", "pay"), "invalid_scope"),
            (("scope", "profile email"), "invalid_scope"),
            (("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"),
        ] {
            assert_eq!(exchange(&provider, "platform", key.expose(), &[more]).await.error(), error, "{more:?}");
        }
        let tokens = exchange(&provider, "platform", key.expose(), &[("scope", "openid quiz.read profile email pay")]).await;
        assert_eq!(tokens.text("scope"), "openid quiz.read");
        assert!(tokens.body["expires_in"].as_i64() <= Some(3600), "{}", tokens.body);
    }

    async fn attack_93_keys_that_do_not_count_and_tokens_in_their_place(provider: Provider) {
        let tokens = provider.tokens("openid offline_access").await;
        let expired = Wish { scopes: Some("openid".parse().expect("scopes")), expires_in: Some(Span::from_secs(60)), ..Wish::default() };
        let expired = provider.api_key_as("alice", expired).await;
        let live = provider.api_key("alice", "openid").await;
        provider.pass(Span::minutes(2));
        for wrong in [expired.expose(), &invented(Kind::User, 1), &tokens.text("access_token"), &tokens.text("refresh_token"), &tokens.text("id_token")] {
            assert_eq!(exchange(&provider, "platform", wrong, &[]).await.error(), "invalid_request", "{wrong}");
        }
        assert_eq!(exchange(&provider, "platform", live.expose(), &[]).await.status, 200);
    }

    async fn attack_94_nobody_is_impersonated(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let alice = provider.user_id("alice").await;
        let bob = provider.user_id("bob").await;
        for actor in [("actor_token", key.expose().as_str()), ("actor_token_type", "urn:x")] {
            assert_eq!(exchange(&provider, "platform", key.expose(), &[actor]).await.error(), "invalid_request");
        }
        let wishes = [("requested_subject", bob.as_str()), ("act", "{\"sub\":\"bob\"}"), ("sub", bob.as_str())];
        let claims = claims_of(&exchange(&provider, "platform", key.expose(), &wishes).await.text("access_token"));
        assert_eq!(claims["sub"], alice.as_str());
        assert!(claims.get("act").is_none());
    }

    async fn attack_95_a_public_client_exchanges_only_where_it_is_registered_for_it(provider: Provider) {
        let key = provider.api_key("alice", "openid offline_access").await;
        assert_eq!(exchange(&provider, "spa", key.expose(), &[]).await.error(), "unauthorized_client");
        provider.change_client("spa", |record| record.client.metadata.grant_types.push(GrantType::TokenExchange)).await;
        let tokens = exchange(&provider, "spa", key.expose(), &[]).await;
        assert_eq!(tokens.status, 200, "{}", tokens.body);
        let rotated = provider.refresh("spa", &tokens.text("refresh_token")).await;
        assert_ne!(rotated.text("refresh_token"), tokens.text("refresh_token"), "bound to no secret, it rotates");
    }

    async fn attack_97_keys_of_somebody_else(provider: Provider) {
        let (alice, bob) = (provider.user_id("alice").await, provider.user_id("bob").await);
        let of_bob = provider.api_key("bob", "openid").await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let before = provider.row_counts().await;
        let kid = of_bob.kid.as_str();
        for (method, path) in [
            ("POST", format!("/v1/me/api-keys/{kid}/rotate")),
            ("DELETE", format!("/v1/me/api-keys/{kid}")),
            ("DELETE", "/v1/me/api-keys/0000000000000000".to_owned()),
            ("DELETE", "/v1/me/api-keys/%00".to_owned()),
            ("DELETE", "/v1/me/api-keys/%ff".to_owned()),
        ] {
            let page = call(&mut browser, method, &path, Value::Null, &[]).await;
            assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (404, "not_found"), "{method} {path}");
        }
        for name in ["user_id", "owner", "sub", "partner_id", "id", "revoked_at"] {
            let body = json!({ "name": "x", name: bob.as_str() });
            assert_eq!(call(&mut browser, "POST", "/v1/me/api-keys", body, &[]).await.status, 400, "{name}");
        }
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(browser.get("/v1/me/api-keys").await.json()["items"], json!([]));
        let body = json!({ "name": "mine" });
        let page = call(&mut browser, "POST", "/v1/me/api-keys?user_id=bob", body, &[]).await;
        let key = page.json()["api_key"]["key"].as_str().expect("a key").to_owned();
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.json()["id"], alice.as_str());
        assert_eq!(provider.bearer("GET", "/v1/me", of_bob.expose()).await.json()["id"], bob.as_str());
    }

    /// Neither does a key reach what only a person at a page may, nor may anything that came from one.
    async fn attack_98_a_key_never_makes_itself_more(provider: Provider) {
        let key = provider.api_key("alice", "openid profile email roles groups offline_access quiz.read").await;
        let tokens = exchange(&provider, "platform", key.expose(), &[]).await;
        let app = provider.tokens("openid").await;
        let mut browser = provider.browser();
        let began = call(&mut browser, "POST", "/v1/auth/session", json!({ "api_key": key.expose() }), &[]).await;
        assert_eq!(began.status, 204);
        let path = format!("/v1/me/api-keys/{}", key.kid);
        let (list, rotate) = ("/v1/me/api-keys", format!("{path}/rotate"));
        let before = provider.row_counts().await;
        for (method, path, body) in [
            ("GET", list, Value::Null),
            ("POST", list, json!({ "name": "more" })),
            ("POST", &rotate, Value::Null),
            ("DELETE", &path, Value::Null),
        ] {
            for credential in [key.expose(), &tokens.text("access_token"), &app.text("access_token")] {
                let bearer = format!("Bearer {credential}");
                let page = provider.json(method, path, body.clone(), &[("authorization", &bearer)]).await;
                assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (401, "reauthentication_required"), "{method} {path}");
            }
            let page = call(&mut browser, method, path, body, &[]).await;
            assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (401, "reauthentication_required"), "{method} {path}");
        }
        assert_eq!(provider.row_counts().await, before);
        // Nor does it borrow a person's fresh sign-in: the header decides who calls.
        let mut fresh = provider.browser();
        provider.sign_in(&mut fresh).await;
        let bearer = format!("Bearer {}", key.expose());
        let page = call(&mut fresh, "POST", list, json!({ "name": "more" }), &[("authorization", &bearer)]).await;
        assert_eq!(code_of(&page), "reauthentication_required");
        assert_eq!(call(&mut fresh, "POST", list, json!({ "name": "more" }), &[]).await.status, 201);
    }

    /// All bad keys are told the same, to the byte.
    async fn attack_99_bad_keys_tell_nothing_of_themselves(provider: Provider) {
        let scopes = || Some("openid".parse().expect("scopes"));
        let revoked = provider.api_key("alice", "openid").await;
        let record = provider.app.store.listed_api_key(&revoked.kid).await.expect("an answer").expect("the key").record;
        assert!(revoke(&provider.app, &record, &an_operator()).await.expect("an answer"));
        let expired = provider.api_key_as("alice", Wish { scopes: scopes(), expires_in: Some(Span::from_secs(1)), ..Wish::default() }).await;
        let elsewhere = Wish { scopes: scopes(), allowed_cidrs: vec!["192.0.2.0/24".to_owned()], ..Wish::default() };
        let elsewhere = provider.api_key_as("alice", elsewhere).await;
        let suspended = provider.api_key("bob", "openid").await;
        provider.set_user_disabled("bob", true).await;
        provider.change_client("web", |record| record.client.metadata.partner = true).await;
        let wish = Wish { name: "backend".to_owned(), ..Wish::default() };
        let partners = mint_for_partner(&provider.app, &ClientId::new("web"), wish, &an_operator()).await.expect("a key").key;
        let live = provider.api_key("alice", "openid").await;
        let forged = with_another_secret(live.expose());
        assert!(ApiKey::parse(&forged).is_some_and(|key| key.kid == live.kid), "its form is right");
        provider.pass(Span::from_secs(2));
        let bad = [
            revoked.expose().clone(),
            expired.expose().clone(),
            elsewhere.expose().clone(),
            suspended.expose().clone(),
            partners.expose().clone(),
            invented(Kind::User, 3),
            forged.clone(),
            "kw_uk_x".to_owned(),
        ];
        let page = provider.json("POST", "/v1/api-keys/self-revoke", json!({ "api_key": forged }), &[]).await;
        assert_eq!(page.status, 204, "it ends nothing, as the good one shows below");
        let doors = async |key: &str| {
            let bearer = format!("Bearer {key}");
            let mut browser = provider.browser();
            let basic = ("authorization", "Basic cGxhdGZvcm06cGxhdGZvcm0tc2VjcmV0");
            let grant = [("grant_type", GRANT), ("api_key", key)];
            let exchange = [EXCHANGE[0], EXCHANGE[1], ("subject_token", key)];
            [
                browser.send(http::Method::POST, "/token", Some(&grant), &[basic]).await,
                browser.send(http::Method::POST, "/token", Some(&exchange), &[basic]).await,
                call(&mut browser, "POST", "/v1/auth/api-key/login", json!({ "api_key": key }), &[]).await,
                call(&mut browser, "POST", "/v1/auth/session", json!({ "api_key": key }), &[]).await,
                call(&mut browser, "GET", "/v1/me", Value::Null, &[("authorization", &bearer)]).await,
                call(&mut browser, "GET", "/userinfo", Value::Null, &[("authorization", &bearer)]).await,
                browser.send(http::Method::POST, "/introspect", Some(&[("token", key)]), &[basic]).await,
            ]
        };
        let first: Vec<_> = doors(&bad[0]).await.iter().map(without_request_id).collect();
        assert_eq!(first.iter().map(|(status, ..)| *status).collect::<Vec<_>>(), [400, 400, 401, 401, 401, 401, 200]);
        for key in &bad[1..] {
            let answers: Vec<_> = doors(key).await.iter().map(without_request_id).collect();
            assert_eq!(answers, first, "{key}");
        }
        let good: Vec<u16> = doors(live.expose()).await.iter().map(|page| page.status.as_u16()).collect();
        assert_eq!(good, [200, 200, 200, 204, 200, 200, 200]);
        let there = provider.browser_from("192.0.2.9").send(http::Method::GET, "/v1/me", None, &[("authorization", &format!("Bearer {}", elsewhere.expose()))]).await;
        assert_eq!(there.status, 200, "from its own network");
    }

    /// Whatever a key opens at the moment that it is ended is dead once that was answered.
    async fn attack_99_nothing_that_a_key_opens_outlives_its_revocation(provider: Provider) {
        let doors = Doors::of(&provider).await;
        for round in 0..10 {
            // Those that came too late counted as bad keys.
            provider.pass(Span::minutes(16));
            let key = provider.api_key("alice", "openid offline_access").await;
            let text = key.expose().clone();
            let opened = at_once(50, |n| {
                let (doors, text) = (doors.clone(), text.clone());
                async move {
                    let mut browser = doors.browser(n);
                    let body = json!({ "api_key": text });
                    match n {
                        25 => {
                            let page = call(&mut browser, "POST", "/v1/api-keys/self-revoke", body, &[]).await;
                            assert_eq!(page.status, 204, "{}", page.body);
                            None
                        }
                        n if n % 2 == 0 => {
                            let page = call(&mut browser, "POST", "/v1/auth/api-key/login", body, &[]).await;
                            assert!(matches!(page.status.as_u16(), 200 | 401), "{}", page.body);
                            let opened = (page.status == 200).then(|| page.json());
                            opened.map(|tokens| Opened::Tokens(tokens["access_token"].to_string(), tokens["refresh_token"].clone()))
                        }
                        _ => {
                            let page = call(&mut browser, "POST", "/v1/auth/session", body, &[]).await;
                            assert!(matches!(page.status.as_u16(), 204 | 401), "{}", page.body);
                            (page.status == 204).then_some(Opened::Session(Box::new(browser)))
                        }
                    }
                }
            })
            .await;
            // What every process does twice a second: the key was ended at the other one.
            provider.app.store.poll_changes().await.expect("an answer");
            for opened in opened.into_iter().flatten() {
                match opened {
                    Opened::Tokens(access, refresh) => {
                        let access = access.trim_matches('"');
                        assert_eq!(provider.bearer("GET", "/v1/me", access).await.status, 401, "round {round}");
                        let body = json!({ "refresh_token": refresh });
                        let page = provider.json("POST", "/v1/auth/refresh", body, &[]).await;
                        assert_eq!(page.status, 401, "round {round}: {}", page.body);
                    }
                    Opened::Session(browser) => {
                        let mut here = doors.moved(&browser, 0);
                        assert_eq!(here.get("/v1/me").await.status, 401, "round {round}");
                    }
                }
            }
        }
    }

    async fn attack_101_a_key_is_shown_once(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let page = call(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "laptop" }), &[]).await;
        let key = page.json()["api_key"]["key"].as_str().expect("a key").to_owned();
        let secret = &key[23..];
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert!(!browser.get("/v1/me/api-keys").await.body.contains(secret));
        let tokens = exchange(&provider, "platform", &key, &[]).await;
        assert!(!tokens.body.to_string().contains(secret));
        provider.change_client("rs", |record| record.client.metadata.introspection = keyward::protocol::client::IntrospectionRight::Any).await;
        assert!(!provider.introspect("rs", &key).await.to_string().contains(secret));
    }

    async fn attack_102_a_key_is_nobodys_secret_and_a_partners_key_no_persons(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let mut browser = provider.browser();
        for id in ["platform", provider.user_id("alice").await.as_str()] {
            let fields = [("grant_type", GRANT), ("api_key", key.expose()), ("client_id", id), ("client_secret", key.expose())];
            let page = browser.post("/token", &fields).await;
            assert_eq!((page.status.as_u16(), page.json()["error"].as_str()), (401, Some("invalid_client")), "{id}");
        }
        assert_eq!(provider.refresh("platform", key.expose()).await.error(), "invalid_grant");
        let fields = [("grant_type", "authorization_code"), ("code", key.expose().as_str()), ("redirect_uri", "https://app.test/cb")];
        assert_eq!(provider.token("first", &fields).await.error(), "invalid_grant");
        let page = browser.get(&format!("/userinfo?access_token={}", key.expose())).await;
        assert_eq!(page.status, 400, "never in a URL");
        provider.change_client("web", |record| record.client.metadata.partner = true).await;
        let wish = Wish { name: "backend".to_owned(), ..Wish::default() };
        let partners = mint_for_partner(&provider.app, &ClientId::new("web"), wish, &an_operator()).await.expect("a key").key;
        for path in ["/userinfo", "/v1/me"] {
            assert_eq!(provider.bearer("GET", path, partners.expose()).await.status, 401, "{path}");
            assert_eq!(provider.bearer("GET", path, key.expose()).await.status, 200, "{path}");
        }
    }

    /// Whoever tries keys is stopped; whoever has one is not, not even beside them.
    async fn attack_103_guessing_is_throttled_and_locks_nobody_out(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let right = format!("Bearer {}", key.expose());
        let from = async |address: &str, credential: &str| {
            provider.browser_from(address).send(http::Method::GET, "/v1/me", None, &[("authorization", credential)]).await
        };
        // What has no checksum costs nothing and counts for nothing.
        let before = provider.row_counts().await;
        for _ in 0..150 {
            assert_eq!(from("198.51.100.7", "Bearer kw_uk_nonsense").await.status, 401);
        }
        assert_eq!(provider.row_counts().await, before);
        for n in 0..100 {
            assert_eq!(from("198.51.100.7", &format!("Bearer {}", invented(Kind::User, n))).await.status, 401, "{n}");
        }
        let stopped = from("198.51.100.7", &format!("Bearer {}", invented(Kind::User, 101))).await;
        assert_eq!((stopped.status.as_u16(), code_of(&stopped).as_str()), (429, "too_many_requests"));
        let wait: i64 = stopped.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=900).contains(&wait), "{wait}");
        assert_eq!(from("198.51.100.7", &right).await.status, 200, "the owner behind the same address");
        assert_eq!(from("198.51.100.8", &format!("Bearer {}", invented(Kind::User, 102))).await.status, 401, "elsewhere");
        let mut token = provider.browser_from("198.51.100.7");
        let fields = [("grant_type", GRANT), ("api_key", &invented(Kind::User, 103))];
        let basic = ("authorization", "Basic cGxhdGZvcm06cGxhdGZvcm0tc2VjcmV0");
        let page = token.send(http::Method::POST, "/token", Some(&fields), &[basic]).await;
        assert_eq!((page.status.as_u16(), page.json()["error"].as_str()), (429, Some("temporarily_unavailable")));
        provider.pass(Span::minutes(16));
        assert_eq!(from("198.51.100.7", &format!("Bearer {}", invented(Kind::User, 104))).await.status, 401);
    }

    /// A page of another site neither gives a browser a session nor takes one away.
    async fn attack_123_calls_with_a_cookie_come_from_this_site(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let before = provider.row_counts().await;
        for headers in [
            &[("origin", "https://evil.test")][..],
            &[("sec-fetch-site", "cross-site")],
            &[("origin", "null")],
            &[("sec-fetch-site", "same-site"), ("origin", "https://other.id.test")],
        ] {
            for (method, path, body) in [
                ("POST", "/v1/auth/session", json!({ "api_key": key.expose() })),
                ("DELETE", "/v1/auth/session", Value::Null),
                ("POST", "/v1/me/api-keys", json!({ "name": "theirs" })),
            ] {
                let page = call(&mut browser, method, path, body, headers).await;
                assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (403, "foreign_origin"), "{method} {path}");
            }
        }
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(browser.get("/v1/me").await.json()["username"], "alice");
        let own = [("origin", "https://id.test"), ("sec-fetch-site", "same-origin")];
        let page = call(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "mine" }), &own).await;
        assert_eq!(page.status, 201, "{}", page.body);
    }

    /// What a form of another site can send is no JSON.
    async fn attack_124_forms_and_plain_text_are_no_calls(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let mut browser = provider.browser();
        let body = json!({ "api_key": key.expose() }).to_string();
        for media in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/json; charset=utf-16")] {
            for path in ["/v1/auth/session", "/v1/auth/api-key/login", "/v1/api-keys/self-revoke"] {
                let page = browser.send_text(http::Method::POST, path, media, body.clone(), &[]).await;
                assert_eq!((page.status.as_u16(), code_of(&page).as_str()), (415, "unsupported_media_type"), "{path} {media:?}");
            }
        }
        assert!(browser.cookies.is_empty());
        let page = browser.send_text(http::Method::POST, "/v1/auth/session", Some("application/json; charset=UTF-8"), body, &[]).await;
        assert_eq!(page.status, 204);
    }
}
