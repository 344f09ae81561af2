//! What a gateway is told: by every mode about every credential, in every header; and that none of it survives what
//! ended it. The gateways themselves are in the files below.

mod house;
mod real;

use http::Method;
use keyward::account::api_keys::{mint_for_partner, revoke};
use keyward::protocol::api_key::Wish;
use keyward::protocol::gateway::HEADERS;
use keyward::protocol::ids::{ApiKeyId, ClientId, UserId};
use keyward::protocol::time::Span;
use keyward::store::users::NewUser;
use serde_json::json;

use crate::on_both_databases;
use crate::partner::{Platform, text};
use crate::support::audit::{self, an_operator};
use crate::support::process::{wait_for, within_a_second};
use crate::support::{Backend, Browser, Page, Provider, TokenAnswer, json as call};

const GRANT: &str = "urn:keyward:oauth:grant-type:api-key";
/// Where the tests' gateways are: they are believed, and sign-ins are known on `app.id.test` as well.
const BEHIND_A_GATEWAY: &str = "gateway_cookie_domain = \"id.test\"\n[proxy]\ntrusted = [\"127.0.0.1\"]\n[rate_limits]\napi_key = { attempts = 3 }\n";

async fn behind_a_gateway(backend: Backend) -> Provider {
    Provider::start_with(backend, "https://id.test", BEHIND_A_GATEWAY).await
}

/// Asks as a gateway does, and sees that the answer is whole.
async fn ask(browser: &mut Browser, path: &str, headers: &[(&str, &str)]) -> Page {
    let page = browser.send(Method::GET, &format!("/forward-auth/{path}"), None, headers).await;
    if page.status != 503 {
        for name in HEADERS {
            assert_eq!(page.headers.get_all(name).iter().count(), 1, "{name} in {:?}", page.headers);
        }
        assert!(
            page.header("x-auth-subject").is_some_and(str::is_empty) == (page.header("x-auth-status") == Some("guest"))
        );
    }
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("set-cookie"), None);
    page
}

async fn ask_with(provider: &Provider, path: &str, credential: &str) -> Page {
    ask(&mut provider.browser(), path, &[("authorization", &format!("Bearer {credential}"))]).await
}

/// `user`, `guest` or the status, with the word in `X-Auth-Error`.
fn told(page: &Page) -> String {
    let status = match page.status.as_u16() {
        200 => page.header("x-auth-status").unwrap_or_default().to_owned(),
        status => status.to_string(),
    };
    format!("{status} {}", page.header("x-auth-error").unwrap_or_default()).trim_end().to_owned()
}

/// Tokens from a key, by the client `platform`.
async fn tokens_of(provider: &Provider, key: &str) -> TokenAnswer {
    let answer = provider.token("platform", &[("grant_type", GRANT), ("api_key", key)]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// A header line for each credential that no longer counts, or never did, with the word that says why.
async fn bad_credentials(provider: &Provider) -> Vec<(String, &'static str)> {
    let bearer = |text: &str| format!("Bearer {text}");
    let expired = provider.tokens("openid").await.text("access_token");
    let short =
        Wish { expires_in: Some(Span::minutes(1)), scopes: Some("openid".parse().expect("scopes")), ..Wish::default() };
    let over = provider.api_key_as("alice", short).await;
    provider.pass(Span::minutes(16));
    let revoked = provider.tokens("openid").await.text("access_token");
    assert_eq!(provider.call("first", "/revoke", &[("token", &revoked)]).await.status, 200);
    let ended = provider.api_key("alice", "openid").await;
    let record = provider.app.store.listed_api_key(&ended.kid).await.expect("an answer").expect("the key").record;
    assert!(revoke(&provider.app, &record, &an_operator()).await.expect("an answer"));
    let scopes = Some("openid".parse().expect("scopes"));
    let exchange_only = provider.api_key_as("alice", Wish { scopes, exchange_only: true, ..Wish::default() }).await;
    let elsewhere = Wish { allowed_cidrs: vec!["192.0.2.0/24".to_owned()], ..Wish::default() };
    let elsewhere = provider.api_key_as("alice", elsewhere).await;
    let of_disabled = provider.api_key("bob", "openid").await;
    provider.set_user_disabled("bob", true).await;
    provider.change_client("web", |record| record.client.metadata.partner = true).await;
    let wish = Wish { name: "backend".to_owned(), ..Wish::default() };
    let partners =
        mint_for_partner(&provider.app, &ClientId::new("web"), wish, &an_operator()).await.expect("a key").key;
    vec![
        (bearer("nonsense"), "invalid_token"),
        (bearer(""), "invalid_token"),
        (bearer(&expired), "token_expired"),
        (bearer(&revoked), "invalid_token"),
        (bearer("kw_uk_nonsense"), "invalid_api_key"),
        (bearer(over.expose()), "invalid_api_key"),
        (bearer(ended.expose()), "invalid_api_key"),
        (bearer(exchange_only.expose()), "invalid_api_key"),
        (bearer(elsewhere.expose()), "invalid_api_key"),
        (bearer(of_disabled.expose()), "invalid_api_key"),
        (bearer(partners.expose()), "invalid_api_key"),
    ]
}

on_both_databases! {
    async fn every_mode_has_its_answer_to_every_credential(provider: Provider) {
        let bad = bad_credentials(&provider).await;
        let key = provider.api_key("alice", "openid").await;
        let token = provider.tokens("openid").await.text("access_token");
        let mut signed_in = provider.browser();
        provider.sign_in(&mut signed_in).await;
        let mut dead = provider.browser();
        dead.cookies.insert("__Host-keyward_session".to_owned(), "nonsense".to_owned());
        let nobody = provider.browser();
        let line = |text: &str| vec![("authorization".to_owned(), text.to_owned())];
        let bearer = |text: &str| line(&format!("Bearer {text}"));
        let mut cases = vec![
            (nobody.clone(), vec![], "guest", "401"),
            (nobody.clone(), line("Basic eDp5"), "guest", "401"),
            (nobody.clone(), bearer(key.expose()), "user", "user"),
            (nobody.clone(), bearer(&token), "user", "user"),
            (signed_in.clone(), vec![], "user", "user"),
            (signed_in.clone(), line("Basic eDp5"), "user", "user"),
            (signed_in.clone(), bearer("nonsense"), "guest invalid_token", "401 invalid_token"),
            (dead.clone(), vec![], "guest invalid_session", "401 invalid_session"),
            (dead, bearer(&token), "user", "user"),
            (nobody.clone(), [bearer(&token), bearer(key.expose())].concat(), "guest invalid_request", "401 invalid_request"),
            (nobody.clone(), [bearer(&token), bearer(&token)].concat(), "guest invalid_request", "401 invalid_request"),
        ];
        let expected: Vec<_> = bad.iter().map(|(_, error)| (format!("guest {error}"), format!("401 {error}"))).collect();
        for ((text, _), (optional, required)) in bad.iter().zip(&expected) {
            cases.push((nobody.clone(), line(text), optional, required));
        }
        for (mut browser, headers, optional, required) in cases {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            for (mode, expected) in [("public", "guest"), ("optional", optional), ("required", required)] {
                for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                    let page = browser.send(method, &format!("/forward-auth/{mode}"), None, &headers).await;
                    assert_eq!(told(&page), expected, "{mode} {headers:?}");
                }
                let page = ask(&mut browser, mode, &headers).await;
                let challenged = page.header("www-authenticate").is_some_and(|text| text.starts_with("Bearer realm="));
                assert_eq!(challenged, page.status == 401, "{mode} {headers:?}");
                assert!(page.header("vary").expect("a Vary").contains("Authorization, Cookie"));
            }
        }
        let challenge = ask_with(&provider, "required", "nonsense").await;
        assert!(challenge.header("www-authenticate").expect("a challenge").contains("error=\"invalid_token\""));
        let challenge = ask(&mut provider.browser(), "required", &[]).await;
        assert_eq!(challenge.header("www-authenticate"), Some("Bearer realm=\"keyward\""));
    }

    async fn whoever_asks_for_nothing_that_is_there_gets_nothing(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        for path in ["open", "Required", "required?scopes=openid", "public?scope=", "optional?scope=a&scope=a", "optional?scope=%22"] {
            let page = ask_with(&provider, path, key.expose()).await;
            assert_eq!(told(&page), "403 misconfigured", "{path}");
            assert!(page.json()["error_description"].is_string());
        }
        for path in ["/forward-auth", "/forward-auth/", "/forward-auth/required/more"] {
            assert_eq!(provider.browser().get(path).await.status, 404, "{path}");
        }
    }

    async fn the_answer_says_who_it_is_as_far_as_the_credential_tells(provider: Provider) {
        let sub = provider.user_id("alice").await;
        let names = |page: &Page| -> Vec<(String, String)> {
            let all = HEADERS.iter().map(|name| ((*name).to_owned(), page.header(name).expect("ASCII").to_owned()));
            all.filter(|(_, value)| !value.is_empty()).collect()
        };
        let expected = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (format!("x-auth-{name}"), (*value).to_owned())).collect()
        };
        let key = provider.api_key("alice", "openid email").await;
        let page = ask_with(&provider, "required", key.expose()).await;
        assert_eq!(names(&page), expected(&[
            ("status", "user"), ("subject", sub.as_str()), ("email", "alice@example.com"), ("email-verified", "true"),
            ("scopes", "openid email"), ("method", "api_key"), ("key-id", key.kid.as_str()),
        ]));
        let token = tokens_of(&provider, key.expose()).await.text("access_token");
        assert_eq!(names(&ask_with(&provider, "optional", &token).await), expected(&[
            ("status", "user"), ("subject", sub.as_str()), ("email", "alice@example.com"), ("email-verified", "true"),
            ("scopes", "openid email"), ("client", "platform"), ("method", "token"), ("key-id", key.kid.as_str()),
        ]));
        let bare = provider.api_key("alice", "quiz.read").await;
        assert_eq!(names(&ask_with(&provider, "required", bare.expose()).await), expected(&[
            ("status", "user"), ("subject", sub.as_str()), ("scopes", "quiz.read"), ("method", "api_key"),
            ("key-id", bare.kid.as_str()),
        ]));
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        assert_eq!(names(&ask(&mut browser, "required", &[]).await), expected(&[
            ("status", "user"), ("subject", sub.as_str()), ("username", "alice"), ("email", "alice@example.com"),
            ("email-verified", "true"),
            ("scopes", "openid profile email address phone offline_access roles groups quiz.read pay"), ("method", "cookie"),
        ]));
        let machine = provider.token("machine", &[("grant_type", "client_credentials"), ("scope", "pay")]).await;
        assert_eq!(names(&ask_with(&provider, "required", &machine.text("access_token")).await), expected(&[
            ("status", "user"), ("subject", "machine"), ("scopes", "pay"), ("client", "machine"), ("method", "token"),
        ]));
    }

    async fn a_partners_people_bear_its_id_and_end_with_it(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let wish = json!({
            "external_id": "user 123", "email": "bob@example.com",
            "api_key": { "name": "test", "scopes": ["openid", "email"] },
        });
        let made = acme.call("POST", "/v1/partner/users", wish).await.json();
        let key = text(&made, "/api_key/key");
        let key = key.as_str();
        let token = tokens_of(&provider, key).await.text("access_token");
        let mut browser = provider.browser();
        let began = call(&mut browser, "POST", "/v1/auth/session", json!({ "api_key": key }), &[]).await;
        assert_eq!(began.status, 204);
        for page in [
            ask_with(&provider, "required", key).await,
            ask_with(&provider, "required", &token).await,
            ask(&mut browser, "required", &[]).await,
        ] {
            assert_eq!(page.header("x-auth-partner"), Some("acme"), "{:?}", page.headers);
            assert_eq!(page.header("x-auth-external-id"), Some("user%20123"));
            assert_eq!((page.header("x-auth-email"), page.header("x-auth-email-verified")), (Some("bob@example.com"), Some("false")));
            assert_eq!(page.header("x-auth-scopes"), Some("openid email"), "also the session: it came from the key");
            assert_eq!(page.header("x-auth-key-id"), Some(text(&made, "/api_key/id").as_str()));
        }
        let own = provider.token("acme", &[("grant_type", "client_credentials"), ("scope", "quiz.read")]).await.text("access_token");
        assert_eq!(ask_with(&provider, "required", &own).await.header("x-auth-partner"), Some("acme"), "its own backend");
        provider.set_client_disabled("acme", true).await;
        assert_eq!(told(&ask_with(&provider, "required", key).await), "401 invalid_api_key");
        assert_eq!(told(&ask_with(&provider, "required", &token).await), "401 invalid_token");
        assert_eq!(told(&ask_with(&provider, "required", &own).await), "401 invalid_token");
        assert_eq!(told(&ask(&mut browser, "required", &[]).await), "401 invalid_session");
        assert_eq!(told(&ask(&mut browser, "optional", &[]).await), "guest invalid_session");
    }

    async fn names_of_any_script_stay_in_their_header(provider: Provider) {
        let user = NewUser {
            of_partner: None,
            id: UserId::new("zoe-id"),
            username: Some("Zoë,100%".to_owned()),
            email: Some("zoë@exämple.test".to_owned()),
            email_verified: false,
            claims: serde_json::Map::new(),
            roles: Vec::new(),
            groups: Vec::new(),
            password_hash: None,
            disabled_at: None,
        };
        provider.app.store.create_user(user, audit::told(), provider.app.now()).await.expect("created");
        let key = provider.api_key("Zoë,100%", "profile email").await;
        let page = ask_with(&provider, "required", key.expose()).await;
        assert_eq!(page.header("x-auth-username"), Some("Zo%C3%AB%2C100%25"));
        assert_eq!(page.header("x-auth-email"), Some("zo%C3%AB@ex%C3%A4mple.test"));
        let decoded = percent_encoding::percent_decode_str(page.header("x-auth-username").expect("a name"));
        assert_eq!(decoded.decode_utf8().expect("UTF-8"), "Zoë,100%");
    }

    async fn every_scope_of_a_route_is_needed(provider: Provider) {
        let key = provider.api_key("alice", "openid quiz.read").await;
        let token = tokens_of(&provider, key.expose()).await.text("access_token");
        for credential in [key.expose(), &token] {
            for (scope, required, optional) in [
                ("openid", "user", "user"),
                ("quiz.read+openid", "user", "user"),
                ("quiz.read%20email", "403 insufficient_scope", "guest insufficient_scope"),
                ("teach", "403 insufficient_scope", "guest insufficient_scope"),
                ("unheard-of", "403 insufficient_scope", "guest insufficient_scope"),
            ] {
                let page = ask_with(&provider, &format!("required?scope={scope}"), credential).await;
                assert_eq!(told(&page), required, "{scope}");
                if page.status == 403 {
                    let challenge = page.header("www-authenticate").expect("a challenge");
                    assert!(challenge.contains("error=\"insufficient_scope\"") && challenge.contains("scope=\""), "{challenge}");
                }
                assert_eq!(told(&ask_with(&provider, &format!("optional?scope={scope}"), credential).await), optional);
                assert_eq!(told(&ask_with(&provider, &format!("public?scope={scope}"), credential).await), "guest");
            }
        }
        // A person at a browser has all of theirs, and no more.
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        assert_eq!(told(&ask(&mut browser, "required?scope=quiz.read+pay", &[]).await), "user");
        assert_eq!(told(&ask(&mut browser, "required?scope=teach", &[]).await), "403 insufficient_scope");
        let id = provider.user_id("alice").await;
        let roles = Some(vec!["teacher".to_owned()]);
        assert!(provider.app.store.set_roles(id, roles, None, audit::told(), provider.app.now()).await.expect("an answer"));
        assert_eq!(told(&ask(&mut browser, "required?scope=teach", &[]).await), "user", "from the next request on");
        assert_eq!(told(&ask(&mut browser, "required?scope=partner.users", &[]).await), "403 insufficient_scope");
    }

    /// A resource is shown tokens that are for it, and must not get in anywhere else with them (confused deputy).
    async fn a_credential_for_one_resource_opens_no_other(provider: Provider) {
        let quiz = "https://quiz.test";
        let tokens = async |scope: &str, resource: &str| {
            let url = provider.authorize_url(&format!("scope={scope}{resource}"));
            let code = provider.code(&mut provider.browser(), &url).await;
            let fields = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", crate::support::CALLBACK)];
            provider.token("first", &fields).await.text("access_token")
        };
        let for_us = tokens("openid+quiz.read", "").await;
        let for_quiz = tokens("quiz.read", &format!("&resource={quiz}")).await;
        let for_both = tokens("openid+quiz.read", &format!("&resource={quiz}")).await;
        let wish = |audiences: &[&str]| Wish {
            scopes: Some("quiz.read".parse().expect("scopes")),
            audiences: audiences.iter().map(|uri| (*uri).to_owned()).collect(),
            ..Wish::default()
        };
        let free = provider.api_key_as("alice", wish(&[])).await;
        let bound = provider.api_key_as("alice", wish(&[quiz])).await;
        for (name, credential, anywhere, at_quiz, at_pay, at_us) in [
            ("a token for us", &for_us, true, false, false, true),
            ("a token for the quiz", &for_quiz, false, true, false, false),
            ("a token for both", &for_both, false, true, false, true),
            ("a key for everything", free.expose(), true, true, true, true),
            ("a key for the quiz", bound.expose(), false, true, false, false),
        ] {
            for (query, fits) in [
                ("", anywhere),
                ("?audience=https://quiz.test", at_quiz),
                ("?audience=https%3A%2F%2Fpay.test&scope=quiz.read", at_pay),
                ("?audience=https://id.test", at_us),
            ] {
                let expected = if fits { ("user", "user") } else { ("403 invalid_audience", "guest invalid_audience") };
                let required = ask_with(&provider, &format!("required{query}"), credential).await;
                let optional = ask_with(&provider, &format!("optional{query}"), credential).await;
                assert_eq!((told(&required).as_str(), told(&optional).as_str()), expected, "{name} {query}");
            }
        }
        // A session goes as far as what began it.
        let mut password = provider.browser();
        provider.sign_in(&mut password).await;
        assert_eq!(told(&ask(&mut password, "required?audience=https://quiz.test", &[]).await), "user");
        let key = provider.api_key("alice", "openid").await;
        let token = tokens_of(&provider, key.expose()).await.text("access_token");
        for (credential, at_quiz) in [(key.expose(), "user"), (&token, "403 invalid_audience")] {
            let mut browser = provider.browser();
            let bearer = format!("Bearer {credential}");
            let began = call(&mut browser, "POST", "/v1/auth/session", json!(null), &[("authorization", &bearer)]).await;
            assert_eq!(began.status, 204, "{}", began.body);
            assert_eq!(told(&ask(&mut browser, "required", &[]).await), "user");
            assert_eq!(told(&ask(&mut browser, "required?audience=https://quiz.test", &[]).await), at_quiz);
        }
    }

    async fn what_ends_a_credential_ends_it_here_with_the_next_request(provider: Provider) {
        let key = provider.api_key("alice", "openid offline_access").await;
        let token = tokens_of(&provider, key.expose()).await.text("access_token");
        let mut of_key = provider.browser();
        call(&mut of_key, "POST", "/v1/auth/session", json!({ "api_key": key.expose() }), &[]).await;
        let mut twin = provider.browser();
        provider.sign_in(&mut twin).await;
        let mut out = twin.clone();
        // All of them are remembered now.
        for _ in 0..2 {
            assert_eq!(told(&ask_with(&provider, "required", key.expose()).await), "user");
            assert_eq!(told(&ask_with(&provider, "required", &token).await), "user");
            assert_eq!(told(&ask(&mut of_key, "required", &[]).await), "user");
            assert_eq!(told(&ask(&mut twin, "required", &[]).await), "user");
        }
        call(&mut out, "DELETE", "/v1/auth/session", json!(null), &[]).await;
        assert_eq!(told(&ask(&mut twin, "required", &[]).await), "401 invalid_session", "signed out elsewhere");
        let record = provider.app.store.listed_api_key(&ApiKeyId::new(key.kid.as_str())).await.expect("an answer");
        assert!(revoke(&provider.app, &record.expect("the key").record, &an_operator()).await.expect("an answer"));
        assert_eq!(told(&ask_with(&provider, "required", key.expose()).await), "401 invalid_api_key");
        assert_eq!(told(&ask_with(&provider, "required", &token).await), "401 invalid_token");
        assert_eq!(told(&ask(&mut of_key, "required", &[]).await), "401 invalid_session");

        let app = provider.tokens("openid").await.text("access_token");
        let key = provider.api_key("alice", "openid").await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        assert_eq!(told(&ask(&mut browser, "required", &[]).await), "user");
        assert_eq!(told(&ask_with(&provider, "required", &app).await), "user");
        provider.set_user_disabled("alice", true).await;
        assert_eq!(told(&ask_with(&provider, "required", key.expose()).await), "401 invalid_api_key");
        assert_eq!(told(&ask_with(&provider, "required", &app).await), "401 invalid_token");
        assert_eq!(told(&ask(&mut browser, "required", &[]).await), "401 invalid_session");
    }

    async fn what_ends_elsewhere_ends_here_within_a_second(provider: Provider) {
        let (_, there) = provider.second().await;
        let key = provider.api_key("alice", "openid").await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let mut moved = Browser::new(there.clone(), &provider.issuer);
        moved.cookies = browser.cookies.clone();
        let nobody = Browser::new(there, &provider.issuer);
        let bearer = format!("Bearer {}", key.expose());
        let seen = async || {
            let by_key = told(&ask(&mut nobody.clone(), "required", &[("authorization", &bearer)]).await);
            (by_key, told(&ask(&mut moved.clone(), "required", &[]).await))
        };
        let pair = |key: &str, session: &str| (key.to_owned(), session.to_owned());
        assert_eq!(seen().await, pair("user", "user"));
        call(&mut browser, "DELETE", "/v1/auth/session", json!(null), &[]).await;
        let body = json!({ "api_key": key.expose() });
        assert_eq!(provider.json("POST", "/v1/api-keys/self-revoke", body, &[]).await.status, 204);
        within_a_second("nobody is let in", async || seen().await == pair("401 invalid_api_key", "401 invalid_session")).await;
    }

    async fn a_session_that_is_used_behind_a_gateway_does_not_rest(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        for _ in 0..3 {
            provider.pass(Span::hours(11));
            assert_eq!(told(&ask(&mut browser, "required", &[]).await), "user");
        }
        provider.pass(Span::hours(13));
        assert_eq!(told(&ask(&mut browser, "required", &[]).await), "401 invalid_session");
        provider.sign_in(&mut browser).await;
        assert_eq!(told(&ask(&mut browser, "required", &[]).await), "user");
        for _ in 0..80 {
            provider.pass(Span::hours(9));
            ask(&mut browser, "optional", &[]).await;
        }
        assert_eq!(told(&ask(&mut browser, "required", &[]).await), "401 invalid_session", "not for ever");
    }

    async fn a_gateway_without_an_answer_lets_nobody_in(provider: Provider) {
        let key = provider.api_key("alice", "openid").await;
        let token = provider.tokens("openid").await.text("access_token");
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        assert_eq!(told(&ask(&mut browser, "required", &[]).await), "user");
        provider.app.store.close().await;
        let bearers = [format!("Bearer {}", key.expose()), format!("Bearer {token}")];
        for mode in ["optional", "required"] {
            // What was known a moment ago may be believed for up to a second.
            wait_for("nothing to be believed from memory", async || {
                let mut statuses = vec![ask(&mut browser, mode, &[]).await];
                for bearer in &bearers {
                    statuses.push(ask(&mut provider.browser(), mode, &[("authorization", bearer)]).await);
                }
                let all = statuses.iter().all(|page| page.status == 503 && page.header("x-auth-status").is_none());
                assert!(statuses.iter().all(|page| page.header("x-auth-status") != Some("guest")));
                assert!(!all || statuses.iter().all(|page| page.header("retry-after").is_some()));
                all.then_some(())
            })
            .await;
        }
        assert_eq!(told(&ask(&mut browser, "public", &[]).await), "guest", "nobody had to be asked");
        assert_eq!(told(&ask(&mut provider.browser(), "optional", &[]).await), "guest", "nobody was there to be asked about");
    }
}

const GATEWAY_COOKIE: &str = "__Secure-keyward_gateway";

/// A browser at another host below the domain: it has the gateway's cookie alone.
fn at_the_app(browser: &Browser) -> Browser {
    let mut at_the_app = browser.clone();
    at_the_app.cookies.retain(|name, _| name == GATEWAY_COOKIE);
    assert_eq!(at_the_app.cookies.len(), 1, "it has one");
    at_the_app
}

on_both_databases! {
    async fn a_second_cookie_opens_the_gateway_and_nothing_else(provider: Provider) {
        let provider = behind_a_gateway(provider.backend()).await;
        let mut browser = provider.browser();
        let signed_in = provider.sign_in(&mut browser).await;
        let lines: Vec<&str> = signed_in.headers.get_all("set-cookie").iter().filter_map(|line| line.to_str().ok()).collect();
        let line = lines.iter().find(|line| line.starts_with(GATEWAY_COOKIE)).expect("the gateway's cookie");
        for attribute in ["; Domain=id.test", "; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure", "; Max-Age=2592000"] {
            assert!(line.contains(attribute), "{line}");
        }
        let session = browser.cookies["__Host-keyward_session"].clone();
        let gateway = browser.cookies[GATEWAY_COOKIE].clone();
        assert!(!gateway.contains(&session) && !session.contains(&gateway));

        let mut app = at_the_app(&browser);
        assert_eq!(told(&ask(&mut app, "required", &[]).await), "user");
        assert_eq!(ask(&mut app, "required", &[]).await.header("x-auth-username"), Some("alice"));
        assert_eq!(app.get("/v1/me").await.status, 401);
        assert!(app.get("/login").await.body.contains("id=\"login-submit\""));
        // Nor in the place of the other.
        let mut swapped = provider.browser();
        swapped.cookies.insert("__Host-keyward_session".to_owned(), gateway.clone());
        assert_eq!(swapped.get("/v1/me").await.status, 401);
        assert_eq!(told(&ask(&mut swapped, "required", &[]).await), "401 invalid_session");
        let mut swapped = provider.browser();
        swapped.cookies.insert(GATEWAY_COOKIE.to_owned(), session);
        assert_eq!(told(&ask(&mut swapped, "required", &[]).await), "401 invalid_session");
        // Two of it: whatever a neighbour planted does not lock anybody out, unless it is somebody else's.
        let mut other = provider.browser();
        provider.sign_in_as(&mut other, "bob", "battery staple").await;
        for (planted, expected) in [("planted", "user"), (&other.cookies[GATEWAY_COOKIE], "401 invalid_session")] {
            for twice in [[gateway.as_str(), planted], [planted, gateway.as_str()]] {
                let twice = twice.map(|value| format!("{GATEWAY_COOKIE}={value}")).join("; ");
                assert_eq!(told(&ask(&mut provider.browser(), "required", &[("cookie", &twice)]).await), expected);
            }
        }
    }

    async fn the_second_cookie_dies_with_the_session(provider: Provider) {
        let provider = behind_a_gateway(provider.backend()).await;
        for end in ["page", "call", "operator", "anew"] {
            let mut browser = provider.browser();
            provider.sign_in(&mut browser).await;
            let mut app = at_the_app(&browser);
            assert_eq!(told(&ask(&mut app, "required", &[]).await), "user");
            match end {
                "page" => {
                    let page = browser.get("/logout").await;
                    browser.submit(&page, &[("action", "logout")]).await;
                }
                "call" => assert_eq!(call(&mut browser, "DELETE", "/v1/auth/session", json!(null), &[]).await.status, 204),
                "operator" => {
                    let id = provider.user_id("alice").await;
                    let ended = keyward::account::sessions::end_sessions_of(&provider.app, &id).await.expect("an answer");
                    assert_eq!(ended, 1);
                }
                // The session goes on under another secret.
                _ => {
                    let url = provider.authorize_url("prompt=login");
                    provider.authorize(&mut browser, &url).await;
                    assert_eq!(told(&ask(&mut at_the_app(&browser), "required", &[]).await), "user");
                }
            }
            assert_eq!(told(&ask(&mut app, "required", &[]).await), "401 invalid_session", "{end}");
            if matches!(end, "page" | "call") {
                let left: Vec<&String> = browser.cookies.keys().filter(|name| !name.ends_with("browser") && !name.ends_with("device")).collect();
                assert!(left.is_empty(), "{end}: {left:?}");
            }
        }
        // Of a key as well.
        let key = provider.api_key("alice", "openid").await;
        let mut browser = provider.browser();
        call(&mut browser, "POST", "/v1/auth/session", json!({ "api_key": key.expose() }), &[]).await;
        let page = ask(&mut at_the_app(&browser), "required", &[]).await;
        assert_eq!((told(&page).as_str(), page.header("x-auth-scopes")), ("user", Some("openid")));
    }

    async fn a_cookie_changes_something_only_from_its_own_site(provider: Provider) {
        let provider = behind_a_gateway(provider.backend()).await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let site = [("x-forwarded-proto", "https"), ("x-forwarded-host", "app.id.test")];
        for (headers, allowed) in [
            (&[("x-forwarded-method", "GET")][..], true),
            (&[("x-forwarded-method", "GET"), ("origin", "https://evil.test")], true),
            (&[("x-forwarded-method", "POST")], false),
            (&[("x-original-method", "POST")], false),
            (&[("x-forwarded-method", "POST"), ("x-original-method", "GET")], false),
            (&[("x-forwarded-method", "GET"), ("x-forwarded-method", "DELETE")], false),
            (&[("x-forwarded-method", "POST"), ("origin", "https://app.id.test")], true),
            (&[("x-original-method", "PUT"), ("origin", "https://app.id.test")], true),
            (&[("x-forwarded-method", "POST"), ("origin", "https://id.test")], true),
            (&[("x-forwarded-method", "POST"), ("origin", "http://app.id.test")], false),
            (&[("x-forwarded-method", "POST"), ("origin", "https://other.id.test")], false),
            (&[("x-forwarded-method", "POST"), ("origin", "https://evil.test")], false),
            (&[("x-forwarded-method", "POST"), ("origin", "null")], false),
            (&[("x-forwarded-method", "POST"), ("origin", "https://app.id.test"), ("origin", "https://evil.test")], false),
            (&[("x-forwarded-method", "POST"), ("origin", "https://evil.test"), ("x-forwarded-host", "evil.test")], false),
        ] {
            let headers = [headers, &site].concat();
            for mut browser in [browser.clone(), at_the_app(&browser)] {
                let required = ask(&mut browser, "required", &headers).await;
                assert_eq!(told(&required), if allowed { "user" } else { "403 foreign_origin" }, "{headers:?}");
                let optional = ask(&mut browser, "optional", &headers).await;
                assert_eq!(told(&optional), if allowed { "user" } else { "guest foreign_origin" }, "{headers:?}");
            }
        }
        // As Envoy asks: by the visitor's own method.
        let page = browser.send(Method::POST, "/forward-auth/required", None, &site).await;
        assert_eq!(told(&page), "403 foreign_origin");
        let headers = [&site[..], &[("origin", "https://app.id.test")]].concat();
        let page = browser.send(Method::POST, "/forward-auth/required", None, &headers).await;
        assert_eq!(told(&page), "user");
        // A key or a token does not come by itself.
        let key = provider.api_key("alice", "openid").await;
        let bearer = format!("Bearer {}", key.expose());
        let headers = [("authorization", bearer.as_str()), ("x-forwarded-method", "POST"), ("origin", "https://evil.test")];
        assert_eq!(told(&ask(&mut browser, "required", &headers).await), "user");
        // Whoever is no gateway of ours says nothing about where the page belongs, but may be stricter to himself.
        let mut stranger = provider.browser_from("198.51.100.7");
        stranger.cookies = browser.cookies.clone();
        let headers = [&site[..], &[("x-forwarded-method", "POST"), ("origin", "https://app.id.test")]].concat();
        assert_eq!(told(&ask(&mut stranger, "required", &headers).await), "403 foreign_origin");
        let headers = [("x-forwarded-method", "POST"), ("origin", "https://id.test")];
        assert_eq!(told(&ask(&mut stranger, "required", &headers).await), "user");
    }

    async fn too_many_bad_keys_from_one_visitor_are_told_apart_from_the_others(provider: Provider) {
        let provider = behind_a_gateway(provider.backend()).await;
        let good = provider.api_key("alice", "openid").await;
        let bad = provider.api_key("alice", "openid").await;
        let body = json!({ "api_key": bad.expose() });
        assert_eq!(provider.json("POST", "/v1/api-keys/self-revoke", body, &[]).await.status, 204);
        let from = async |address: &str, key: &str, mode: &str| {
            let bearer = format!("Bearer {key}");
            ask(&mut provider.browser(), mode, &[("authorization", &bearer), ("x-forwarded-for", address)]).await
        };
        for _ in 0..3 {
            assert_eq!(told(&from("203.0.113.9", bad.expose(), "required").await), "401 invalid_api_key");
        }
        let stopped = from("203.0.113.9", bad.expose(), "required").await;
        assert_eq!(told(&stopped), "403 too_many_attempts");
        let wait: i64 = stopped.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=900).contains(&wait), "{wait}");
        assert_eq!(told(&from("203.0.113.9", bad.expose(), "optional").await), "guest too_many_attempts");
        assert_eq!(told(&from("203.0.113.9", good.expose(), "required").await), "user", "the owner behind the same address");
        assert_eq!(told(&from("203.0.113.10", bad.expose(), "required").await), "401 invalid_api_key", "another visitor");
    }
}

/// Cookies that were given while there was a domain open nothing once there is none.
#[tokio::test]
async fn without_a_domain_there_is_no_second_cookie() {
    let provider = behind_a_gateway(Backend::Sqlite).await;
    let mut browser = provider.browser();
    provider.sign_in(&mut browser).await;
    let plain = Provider::start_on(provider.dir, provider.database_url, "https://id.test", "").await;
    let mut app = plain.browser();
    app.cookies = at_the_app(&browser).cookies;
    assert_eq!(told(&ask(&mut app, "required", &[]).await), "401");
    let mut anew = plain.browser();
    plain.sign_in(&mut anew).await;
    assert!(!anew.cookies.contains_key(GATEWAY_COOKIE), "{:?}", anew.cookies);
}

/// Every page names each header as often as its gateway wants: to remove what a visitor sent, and to take what the
/// answer says. Where one of the two goes by the beginning of the names, that stands there.
#[test]
fn no_page_forgets_a_header() {
    for (page, language, least, beginning) in [
        ("nginx.md", "nginx", 1, "$upstream_http_x_auth_"),
        ("caddy.md", "caddyfile", 1, "request_header -x-auth*"),
        ("traefik.md", "yaml", 2, "x_auth_"),
        ("envoy.md", "yaml", 1, "{ prefix: x-auth- }"),
    ] {
        let text = house::Manual::read(page, language).text.to_lowercase();
        assert!(text.contains(beginning), "{beginning} in {page}");
        for name in HEADERS {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            assert!(words.filter(|word| *word == name).count() >= least, "{name} in {page}");
        }
    }
}

/// Below an issuer with a path the gateway's routes are below it too.
#[tokio::test]
async fn the_routes_are_below_the_issuer() {
    let provider = Provider::start_with(Backend::Sqlite, "https://id.test/realms/a", "").await;
    let mut browser = provider.browser();
    assert_eq!(told(&browser.get("/realms/a/forward-auth/required").await), "401");
    assert_eq!(told(&browser.get("/realms/a/forward-auth/optional").await), "guest");
    assert_eq!(browser.get("/forward-auth/optional").await.status, 404);
}
