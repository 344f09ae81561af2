//! The token endpoint and client authentication: who may call it, how, for which grant, and what they can widen.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use keyward::protocol::client::AuthMethod::{ClientSecretBasic, ClientSecretPost, None as NoSecret};
use keyward::protocol::client::GrantType;
use keyward::protocol::client_auth::StoredSecret;
use keyward::protocol::ids::{ClientId, UserId};
use keyward::protocol::time::Span;
use keyward::store::users::{Created, NewUser};
use serde_json::{Map, json};
use tower::ServiceExt as _;

use super::leakage::dump;
use crate::authorize::{add_client, code_at_app, enc};
use crate::on_both_databases;
use crate::support::audit::told;
use crate::support::{CALLBACK, Page, Provider, claims_of};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

/// A token request with this `Authorization` header.
async fn with_header(provider: &Provider, header: &str, fields: &[(&str, &str)]) -> Page {
    provider.browser().send(Method::POST, "/token", Some(fields), &[("authorization", header)]).await
}

#[track_caller]
fn assert_error(page: &Page, status: u16, error: &str) {
    assert_eq!((page.status.as_u16(), &page.json()["error"]), (status, &json!(error)), "{}", page.body);
    assert_eq!(page.header("cache-control"), Some("no-store"));
}

on_both_databases! {
    async fn attack_46_the_token_endpoint_takes_forms_only(provider: Provider) {
        let form = "grant_type=client_credentials&client_id=machine&client_secret=machine-secret";
        let json = r#"{"grant_type":"client_credentials"}"#;
        let form_type = Some("application/x-www-form-urlencoded");
        let in_query = format!("/token?{form}");
        for (method, uri, content_type, body, expected) in [
            (Method::POST, "/token", form_type, form, 200),
            (Method::POST, "/token", Some("application/x-www-form-urlencoded; charset=UTF-8"), form, 200),
            (Method::POST, "/token", Some("application/x-www-form-urlencoded; charset=utf-7"), form, 400),
            (Method::POST, "/token", Some("text/plain"), form, 400),
            (Method::POST, "/token", Some("application/json"), json, 400),
            (Method::POST, "/token", None, form, 400),
            (Method::POST, &in_query, form_type, "", 400),
            (Method::GET, "/token", None, "", 405),
            (Method::GET, &in_query, None, "", 405),
            (Method::PUT, "/token", form_type, form, 405),
        ] {
            let mut request = Request::builder().method(method.clone()).uri(uri);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let response = provider.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
            assert_eq!(response.status(), expected, "{method} {uri} {content_type:?}");
            assert_eq!(response.headers()["cache-control"], "no-store");
        }
    }

    async fn attack_47_a_secret_in_the_url_is_refused(provider: Provider) {
        let credentials = [("client_id", "machine"), ("client_secret", "machine-secret")];
        for (path, field) in [("/token", GRANT), ("/introspect", ("token", "x")), ("/revoke", ("token", "x"))] {
            let fields = [&[field][..], &credentials].concat();
            let url = format!("{path}?client_secret=machine-secret");
            let page = provider.browser().send(Method::POST, &url, Some(&fields), &[]).await;
            assert_error(&page, 400, "invalid_request");
            let page = provider.browser().send(Method::POST, &url, Some(&[field, credentials[0]]), &[]).await;
            assert_error(&page, 400, "invalid_request");
            assert_eq!(provider.browser().post(path, &fields).await.status, 200, "{path}");
        }
    }

    async fn attack_48_a_client_authenticates_once(provider: Provider) {
        let (good, secret) = (basic("machine:machine-secret"), ("client_secret", "machine-secret"));
        let (machine, web) = (("client_id", "machine"), ("client_id", "web"));
        for fields in [&[GRANT, web][..], &[GRANT, machine, secret], &[GRANT, secret], &[GRANT, machine, machine]] {
            assert_error(&with_header(&provider, &good, fields).await, 400, "invalid_request");
        }
        for fields in [&[GRANT, machine, web, secret][..], &[GRANT, machine, secret, secret]] {
            assert_error(&provider.browser().post("/token", fields).await, 400, "invalid_request");
        }
        let twice = [("authorization", good.as_str()), ("authorization", good.as_str())];
        let page = provider.browser().send(Method::POST, "/token", Some(&[GRANT]), &twice).await;
        assert_error(&page, 400, "invalid_request");
        for fields in [&[GRANT][..], &[GRANT, machine]] {
            assert_eq!(with_header(&provider, &good, fields).await.status, 200);
        }
        assert_eq!(provider.browser().post("/token", &[GRANT, machine, secret]).await.status, 200);
    }

    async fn attack_50_a_header_that_cannot_be_read_is_a_failed_authentication(provider: Provider) {
        let long = "x".repeat(64 * 1024);
        for header in [
            "Basic bm9jb2xvbg==".to_owned(),
            "Basic %%%".to_owned(),
            "Basic".to_owned(),
            "Bearer x".to_owned(),
            format!("Basic {long}"),
            format!("Basic {long}!"),
            basic(""),
            basic(":"),
            basic(":machine-secret"),
            basic("machine"),
            basic("machine:"),
            basic("machine:machine-secret%"),
            basic("machine:machine%2secret"),
            basic("machine:machine+secret"),
            basic("machine:machine-secret\0"),
            basic(&format!("machine:{long}")),
        ] {
            let page = with_header(&provider, &header, &[GRANT]).await;
            assert_error(&page, 401, "invalid_client");
            assert!(page.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic ")));
        }
        for header in [basic("machine:machine-secret"), basic("machine:machine%2Dsecret")] {
            assert_eq!(with_header(&provider, &header, &[GRANT]).await.status, 200);
        }
    }

    async fn attack_49_a_confidential_client_without_its_secret_consumes_nothing(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid+offline_access")).await;
        let redeem = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", CALLBACK)];
        let bare = async |client_id: &str, fields: &[(&str, &str)]| {
            for secret in [&[][..], &[("client_secret", "")], &[("client_secret", "wrong")]] {
                let before = provider.row_counts().await;
                let fields = [fields, &[("client_id", client_id)], secret].concat();
                assert_error(&provider.browser().post("/token", &fields).await, 401, "invalid_client");
                assert_eq!(provider.row_counts().await, before);
            }
        };
        bare("first", &redeem).await;
        let tokens = provider.redeem(&code).await;
        assert_eq!(tokens.status, 200, "the code was not consumed");
        let refresh = tokens.text("refresh_token");
        bare("first", &[("grant_type", "refresh_token"), ("refresh_token", &refresh)]).await;
        assert_eq!(provider.refresh("first", &refresh).await.status, 200);
        bare("machine", &[GRANT]).await;
        assert_eq!(provider.token("machine", &[GRANT]).await.status, 200);
        // Nor does it replay: whoever has the used code and no secret ends nothing.
        bare("first", &redeem).await;
        assert_eq!(provider.userinfo(&tokens.text("access_token")).await.status, 200);
    }

    async fn attack_51_a_client_uses_the_method_it_registered(provider: Provider) {
        for (id, method) in [("by-header", ClientSecretBasic), ("by-body", ClientSecretPost), ("by-nothing", NoSecret)] {
            add_client(&provider, id, |client| {
                client.token_endpoint_auth_method = Some(method);
                client.grant_types = vec![GrantType::AuthorizationCode, GrantType::RefreshToken];
            })
            .await;
            let secret = format!("{id}-secret");
            let grant = [("grant_type", "refresh_token"), ("refresh_token", "x")];
            let header = with_header(&provider, &basic(&format!("{id}:{secret}")), &grant).await;
            let fields = [&grant[..], &[("client_id", id), ("client_secret", &secret)]].concat();
            let body = provider.browser().post("/token", &fields).await;
            let bare = provider.browser().post("/token", &fields[..3]).await;
            for (used, page) in [(ClientSecretBasic, header), (ClientSecretPost, body), (NoSecret, bare)] {
                // Who is let in hears that the token is none.
                let (status, error) = if used == method { (400, "invalid_grant") } else { (401, "invalid_client") };
                assert_error(&page, status, error);
            }
        }
    }

    async fn attacks_52_and_53_grants_are_known_and_allowed(provider: Provider) {
        for (client, grant_type, error) in [
            ("machine", "password", "unsupported_grant_type"),
            ("machine", "implicit", "unsupported_grant_type"),
            ("machine", "urn:ietf:params:oauth:grant-type:nonsense", "unsupported_grant_type"),
            ("machine", "CLIENT_CREDENTIALS", "unsupported_grant_type"),
            ("machine", "", "invalid_request"),
            ("machine", "authorization_code", "unauthorized_client"),
            ("machine", "refresh_token", "unauthorized_client"),
            ("first", "client_credentials", "unauthorized_client"),
            ("spa", "client_credentials", "unauthorized_client"),
        ] {
            let answer = provider.token(client, &[("grant_type", grant_type)]).await;
            assert_eq!((answer.status, answer.error()), (400, error), "{client} {grant_type}");
        }
        assert_eq!(provider.token("machine", &[]).await.error(), "invalid_request");
        assert_eq!(provider.token("machine", &[GRANT, GRANT]).await.error(), "invalid_request");
        let twice = [("grant_type", "password"), GRANT];
        assert_eq!(provider.token("machine", &twice).await.error(), "invalid_request");
        assert_eq!(provider.token("machine", &[GRANT]).await.status, 200);
        // Registered for it or not: a client without a secret has nothing of its own to get.
        add_client(&provider, "loud", |client| {
            client.token_endpoint_auth_method = Some(NoSecret);
            client.grant_types.push(GrantType::ClientCredentials);
        })
        .await;
        let page = provider.browser().post("/token", &[GRANT, ("client_id", "loud")]).await;
        assert_error(&page, 400, "unauthorized_client");
    }

    async fn attack_54_a_client_gets_tokens_for_itself_alone(provider: Provider) {
        let answer = provider.token("machine", &[GRANT]).await;
        assert_eq!(answer.body["scope"], "quiz.read pay");
        assert!(answer.body.get("refresh_token").is_none() && answer.body.get("id_token").is_none());
        let claims = claims_of(&answer.text("access_token"));
        assert_eq!((claims["sub"].as_str(), claims["aud"].as_str()), (Some("machine"), Some("https://id.test")));
        for scope in ["openid", "offline_access", "quiz.read profile", "unheard"] {
            let refused = provider.token("machine", &[GRANT, ("scope", scope)]).await;
            assert_eq!((refused.status, refused.error()), (400, "invalid_scope"), "{scope}");
        }
        let narrowed = provider.token("machine", &[GRANT, ("resource", "https://quiz.test")]).await;
        assert_eq!(narrowed.body["scope"], "quiz.read");
        assert_eq!(claims_of(&narrowed.text("access_token"))["aud"], "https://quiz.test");
        assert_eq!(provider.userinfo(&answer.text("access_token")).await.status, 403);

        // That `sub` is nobody else's, and never will be.
        let person = |id: &str| NewUser {
            of_partner: None,
            id: UserId::new(id),
            username: Some("machine".to_owned()),
            email: None,
            email_verified: false,
            disabled_at: None,
            claims: Map::new(),
            roles: Vec::new(),
            groups: Vec::new(),
            password_hash: None,
        };
        let before = provider.row_counts().await;
        let refused = provider.app.store.create_user(person("machine"), told(), provider.app.now()).await;
        assert_eq!(refused.expect("an answer"), Created::IdTaken);
        assert_eq!(provider.row_counts().await, before);
        provider.app.store.create_user(person("machine-2"), told(), provider.app.now()).await.expect("another sub");
    }

    async fn attack_55_a_disabled_client_is_refused_everywhere_and_its_tokens_are_dead(provider: Provider) {
        let mut browser = provider.browser();
        let url = provider.authorize_url("scope=openid+quiz.read&resource=https://quiz.test");
        let tokens = provider.redeem(&provider.code(&mut browser, &url).await).await;
        let unused = provider.code(&mut browser, &url).await;
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let own = provider.token("machine", &[GRANT, ("resource", "https://quiz.test")]).await.text("access_token");
        let lives = async || {
            let seen_by_the_resource = provider.introspect("rs", &access).await["active"] == true;
            assert_eq!(provider.userinfo(&access).await.status == 200, seen_by_the_resource);
            assert_eq!(provider.introspect("rs", &own).await["active"] == true, seen_by_the_resource);
            seen_by_the_resource
        };
        assert!(lives().await);

        for id in ["first", "machine"] {
            provider.set_client_disabled(id, true).await;
        }
        assert!(!lives().await);
        assert_eq!(browser.get(&url).await.status, 400);
        let before = provider.row_counts().await;
        let redeem = [("grant_type", "authorization_code"), ("code", &unused), ("redirect_uri", CALLBACK)];
        for (id, path, fields) in [
            ("first", "/token", redeem.to_vec()),
            ("first", "/token", vec![("grant_type", "refresh_token"), ("refresh_token", &refresh)]),
            ("first", "/introspect", vec![("token", &access)]),
            ("first", "/introspect", vec![("token", &refresh)]),
            ("first", "/revoke", vec![("token", &refresh)]),
            ("machine", "/token", vec![GRANT]),
        ] {
            let answer = provider.call(id, path, &fields).await;
            assert_eq!((answer.status, answer.error()), (401, "invalid_client"), "{id} {path}");
        }
        assert_eq!(provider.row_counts().await, before);

        // Nothing of it was used up.
        for id in ["first", "machine"] {
            provider.set_client_disabled(id, false).await;
        }
        assert!(lives().await);
        assert_eq!(provider.redeem(&unused).await.status, 200);
        assert_eq!(provider.refresh("first", &refresh).await.status, 200);
    }

    async fn attack_56_resources_are_not_widened_later(provider: Provider) {
        let url = provider.authorize_url("scope=openid+quiz.read+pay&resource=https://quiz.test");
        let code = provider.code(&mut provider.browser(), &url).await;
        let redeem = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", CALLBACK)];
        let before = provider.row_counts().await;
        let alike = ["https://quiz.test/", "https://quiz.test#x", "https://QUIZ.test"];
        for resource in ["https://pay.test", "https://nowhere.test", "nonsense"].into_iter().chain(alike) {
            let fields = [&redeem[..], &[("resource", resource)]].concat();
            assert_eq!(provider.token("first", &fields).await.error(), "invalid_target", "{resource}");
            let both = [&fields[..], &[("resource", "https://quiz.test")]].concat();
            assert_eq!(provider.token("first", &both).await.error(), "invalid_target", "{resource}");
        }
        assert_eq!(provider.row_counts().await, before);
        let own = [&redeem[..], &[("resource", "https://quiz.test")]].concat();
        let tokens = provider.token("first", &own).await;
        assert_eq!(tokens.body["scope"], "openid quiz.read", "a token to one resource lacks the scopes of another");
        let refresh = tokens.text("refresh_token");
        let refreshed = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
        for resource in ["https://pay.test", "https://nowhere.test"] {
            let fields = [&refreshed[..], &[("resource", resource)]].concat();
            assert_eq!(provider.token("first", &fields).await.error(), "invalid_target", "{resource}");
        }
        let fields = [&refreshed[..], &[("scope", "openid quiz.read pay")]].concat();
        assert_eq!(provider.token("first", &fields).await.error(), "invalid_scope");
        let fields = [&refreshed[..], &[("resource", "https://quiz.test")]].concat();
        assert_eq!(provider.token("first", &fields).await.text("scope"), "openid quiz.read");
    }

    async fn attack_57_only_a_client_s_own_live_secret_counts(provider: Provider) {
        let now = provider.app.now();
        let accepted = async |header: &str| {
            let page = with_header(&provider, &basic(header), &[GRANT]).await;
            match page.status.as_u16() {
                200 => true,
                _ => {
                    assert_error(&page, 401, "invalid_client");
                    false
                }
            }
        };
        for header in [
            "machine:web-secret",
            "rs:machine-secret",
            "nobody:machine-secret",
            "machine:",
            "machine:machine-secre",
            "machine:MACHINE-SECRET",
            "Machine:machine-secret",
            "machine:machine-secret ",
        ] {
            assert!(!accepted(header).await, "{header}");
        }
        assert!(accepted("machine:machine-secret").await);
        assert!(accepted("rs:rs-secret").await);
        // The hash that the store keeps is no secret to authenticate with.
        let stored = StoredSecret::of("machine-secret", now).sha256;
        assert!(!accepted(&format!("machine:{stored}")).await);

        // For as long as a new one overlaps with the old one both are good, and then the new one alone.
        provider
            .change_client("machine", |machine| {
                machine.secrets[0].expires_at = Some(now + Span::hours(1));
                machine.secrets.push(StoredSecret::of("newer", now));
            })
            .await;
        assert!(accepted("machine:machine-secret").await && accepted("machine:newer").await);
        provider.pass(Span::hours(1));
        assert!(!accepted("machine:machine-secret").await && accepted("machine:newer").await);
        provider.change_client("machine", |machine| machine.secrets = vec![StoredSecret::of("newest", now)]).await;
        assert!(!accepted("machine:newer").await && accepted("machine:newest").await);
        provider.change_client("machine", |machine| machine.secrets.clear()).await;
        for header in ["machine:newest", "machine:"] {
            assert!(!accepted(header).await, "{header}");
        }
    }

    async fn attack_58_unknown_parameters_are_ignored_and_kept_nowhere(provider: Provider) {
        let (name, value) = ("unheard-of-name", "unheard-of-<value>");
        let extra = [(name, value), ("user_id", value), ("sub", value), ("client_assertion_kind", value)];
        let silent = |page: &Page| {
            let seen = format!("{:?} {}", page.headers, page.body);
            assert!(!seen.contains("unheard-of"), "{seen}");
        };
        let mut browser = provider.browser();
        let more: Vec<String> = extra.iter().map(|(name, value)| format!("{name}={}", enc(value))).collect();
        let page = provider.authorize(&mut browser, &provider.authorize_url(&more.join("&"))).await;
        silent(&page);
        let code = code_at_app(&page);
        let header = basic("first:first-secret");
        let grant = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", CALLBACK)];
        let page = with_header(&provider, &header, &[&grant[..], &extra].concat()).await;
        silent(&page);
        let tokens = page.json();
        let access = tokens["access_token"].as_str().expect("a token");
        let alice = provider.user_id("alice").await;
        assert_eq!(claims_of(access)["sub"], alice.as_str());
        assert!(!claims_of(access).to_string().contains("unheard-of"));
        let refresh = tokens["refresh_token"].as_str().expect("a token");
        let grant = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        silent(&with_header(&provider, &header, &[&grant[..], &extra].concat()).await);
        for path in ["/introspect", "/revoke"] {
            let fields = [&[("token", access)][..], &extra].concat();
            let page = browser.send(Method::POST, path, Some(&fields), &[("authorization", &header)]).await;
            assert_eq!(page.status, 200);
            silent(&page);
        }
        silent(&with_header(&provider, &header, &[&extra[..], &[("grant_type", "nonsense")]].concat()).await);
        let kept = dump(&provider).await;
        assert!(kept.contains(alice.as_str()) && !kept.contains("unheard-of"));
        assert!(provider.app.store.client(&ClientId::new("first")).await.unwrap().is_some());
    }
}
