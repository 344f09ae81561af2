//! `/token`, `/userinfo`, `/introspect` and `/revoke`: the grants, their races, and what lives and dies with what.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use keyward::protocol::time::Span;
use serde_json::json;

use crate::on_both_databases;
use crate::support::process::within_a_second;
use crate::support::{CALLBACK, Provider, VERIFIER, challenge, claims_of};

/// Runs a future 50 times at once.
async fn fifty<F, T>(make: impl Fn() -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let tasks: Vec<_> = (0..50).map(|_| tokio::spawn(make())).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.expect("a task"));
    }
    results
}

/// Tokens of the public client `spa`, whose refresh tokens rotate.
async fn spa_tokens(provider: &Provider) -> crate::support::TokenAnswer {
    let url = provider.authorize_url_for(
        "spa",
        &format!("scope=openid+offline_access&redirect_uri=https://spa.test/cb&{}", challenge()),
    );
    let code = provider.code(&mut provider.browser(), &url).await;
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", "https://spa.test/cb"),
        ("code_verifier", VERIFIER),
    ];
    let answer = provider.token("spa", &fields).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

on_both_databases! {
    async fn a_code_becomes_tokens_that_say_what_was_granted(provider: Provider) {
        let url = provider.authorize_url("scope=openid+profile+quiz.read&nonce=n-1&resource=https://quiz.test");
        let code = provider.code(&mut provider.browser(), &url).await;
        let answer = provider.redeem(&code).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.body["token_type"], "Bearer");
        assert_eq!(answer.body["expires_in"], 900);
        assert_eq!(answer.body["scope"], "openid profile quiz.read");

        let access = claims_of(&answer.text("access_token"));
        assert_eq!(access["iss"], "https://id.test");
        assert_eq!(access["aud"], json!(["https://quiz.test", "https://id.test"]));
        assert_eq!(access["client_id"], "first");
        assert_eq!(access["scope"], "openid profile quiz.read");
        let id = claims_of(&answer.text("id_token"));
        assert_eq!(id["aud"], "first");
        assert_eq!(id["nonce"], "n-1");
        assert_eq!(id["sub"], access["sub"]);
        assert_eq!(id["amr"], json!(["pwd"]));
        assert!(id["auth_time"].is_i64() && id["sid"].is_string() && id["at_hash"].is_string());
        assert!(id.get("name").is_none() && id.get("email").is_none());
    }

    async fn attack_38_a_code_that_is_used_twice_ends_its_grant(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid")).await;
        let first = provider.redeem(&code).await;
        let access = first.text("access_token");
        assert_eq!(provider.userinfo(&access).await.status, 200);

        let second = provider.redeem(&code).await;
        assert_eq!((second.status, second.error()), (400, "invalid_grant"));
        assert_eq!(provider.userinfo(&access).await.status, 401);
        assert_eq!(provider.introspect("first", &access).await, json!({"active": false}));
        assert_eq!(provider.refresh("first", &first.text("refresh_token")).await.error(), "invalid_grant");
    }

    async fn attack_39_fifty_redemptions_at_once_give_one_answer_and_end_the_grant(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid")).await;
        let provider = std::sync::Arc::new(provider);
        let answers = fifty(|| {
            let (provider, code) = (std::sync::Arc::clone(&provider), code.clone());
            async move { provider.redeem(&code).await }
        })
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!(won.len(), 1);
        assert!(lost.iter().all(|answer| answer.status == 400 && answer.error() == "invalid_grant"));
        assert_eq!(provider.userinfo(&won[0].text("access_token")).await.status, 401);
        assert_eq!(provider.refresh("first", &won[0].text("refresh_token")).await.error(), "invalid_grant");
    }

    async fn attack_40_a_code_is_worth_nothing_to_another_client(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid")).await;
        let before = provider.row_counts().await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let stolen = provider.token("other", &fields).await;
        assert_eq!((stolen.status, stolen.error()), (400, "invalid_grant"));
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(provider.redeem(&code).await.status, 200, "the owner can still use it");
    }

    async fn attack_41_a_code_is_dead_after_a_minute(provider: Provider) {
        let fresh = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid")).await;
        provider.pass(Span::from_secs(55));
        assert_eq!(provider.redeem(&fresh).await.status, 200);
        let stale = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid")).await;
        provider.pass(Span::from_secs(62));
        assert_eq!(provider.redeem(&stale).await.error(), "invalid_grant");
    }

    async fn attack_42_no_other_token_passes_for_a_code_or_a_refresh_token(provider: Provider) {
        let tokens = provider.tokens("openid offline_access").await;
        let artefacts = [tokens.text("access_token"), tokens.text("refresh_token"), tokens.text("id_token"), "x".into()];
        for artefact in &artefacts {
            assert_eq!(provider.redeem(artefact).await.error(), "invalid_grant", "{artefact}");
        }
        for artefact in artefacts.iter().filter(|artefact| !artefact.starts_with("kw_rt_")) {
            assert_eq!(provider.refresh("first", artefact).await.error(), "invalid_grant", "{artefact}");
        }
        assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.status, 200);
    }

    async fn attack_44_a_disabled_person_gets_no_tokens_and_the_old_ones_die(provider: Provider) {
        let tokens = provider.tokens("openid offline_access").await;
        let code = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid")).await;
        let access = tokens.text("access_token");
        assert_eq!(provider.userinfo(&access).await.status, 200);
        let alice = keyward::protocol::ids::UserId::new(claims_of(&access)["sub"].as_str().unwrap());
        let now = provider.app.now();
        provider.app.store.set_user_disabled(alice, Some(now), now).await.unwrap();
        assert_eq!(provider.redeem(&code).await.error(), "invalid_grant");
        assert_eq!(provider.userinfo(&access).await.status, 401);
        assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.error(), "invalid_grant");
    }

    async fn attack_45_a_code_dies_with_the_session_unless_it_is_for_offline_access(provider: Provider) {
        for (scope, status) in [("openid", 400), ("openid+offline_access", 200)] {
            let mut browser = provider.browser();
            let code = provider.code(&mut browser, &provider.authorize_url(&format!("scope={scope}"))).await;
            let page = browser.get("/logout").await;
            let page = browser.submit(&page, &[("action", "logout")]).await;
            assert!(page.body.contains("signed out"), "{}", page.body);
            assert_eq!(provider.redeem(&code).await.status, status, "{scope}");
        }
    }

    async fn attack_46_the_token_endpoint_takes_forms_only(provider: Provider) {
        let form = "grant_type=client_credentials&client_id=machine&client_secret=machine-secret";
        let json = r#"{"grant_type":"client_credentials"}"#;
        for (method, content_type, body, expected) in [
            (Method::POST, Some("application/x-www-form-urlencoded"), form, 200),
            (Method::POST, Some("application/x-www-form-urlencoded; charset=UTF-8"), form, 200),
            (Method::POST, Some("application/x-www-form-urlencoded; charset=utf-7"), form, 400),
            (Method::POST, Some("application/json"), json, 400),
            (Method::POST, None, form, 400),
            (Method::GET, None, "", 405),
        ] {
            let mut request = http::Request::builder().method(method.clone()).uri("/token");
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let request = request.body(axum::body::Body::from(body)).unwrap();
            let response = tower::ServiceExt::oneshot(provider.router.clone(), request).await.unwrap();
            assert_eq!(response.status(), expected, "{method} {content_type:?}");
            assert_eq!(response.headers()["cache-control"], "no-store");
        }
    }

    async fn attack_47_a_secret_in_the_url_is_refused(provider: Provider) {
        let fields = [("grant_type", "client_credentials"), ("client_id", "machine"), ("client_secret", "machine-secret")];
        let page = provider.browser().send(Method::POST, "/token?client_secret=machine-secret", Some(&fields), &[]).await;
        assert_eq!((page.status.as_u16(), page.json()["error"].as_str()), (400, Some("invalid_request")));
        assert_eq!(provider.browser().post("/token", &fields).await.status, 200);
    }

    async fn attack_48_and_50_clients_authenticate_once_and_legibly(provider: Provider) {
        let good = format!("Basic {}", STANDARD.encode("machine:machine-secret"));
        let grant = ("grant_type", "client_credentials");
        let secret = ("client_secret", "machine-secret");
        for (header, fields, status, error) in [
            (good.as_str(), vec![grant], 200, None),
            (&good, vec![grant, ("client_id", "machine")], 200, None),
            (&good, vec![grant, ("client_id", "web")], 400, Some("invalid_request")),
            (&good, vec![grant, ("client_id", "machine"), secret], 400, Some("invalid_request")),
            (&good, vec![grant, grant], 400, Some("invalid_request")),
            ("Basic bm9jb2xvbg==", vec![grant], 401, Some("invalid_client")),
            ("Basic %%%", vec![grant], 401, Some("invalid_client")),
            ("Bearer x", vec![grant], 401, Some("invalid_client")),
        ] {
            let page = provider.browser().send(Method::POST, "/token", Some(&fields), &[("authorization", header)]).await;
            assert_eq!(page.status, status, "{header} {fields:?} {}", page.body);
            assert_eq!(page.json()["error"].as_str(), error, "{header} {fields:?}");
            if status == 401 {
                assert!(page.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic ")));
            }
        }
    }

    async fn attack_49_a_confidential_client_without_its_secret_consumes_nothing(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid+offline_access")).await;
        let bare = |fields: Vec<(&'static str, String)>| {
            let mut browser = provider.browser();
            async move {
                let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                browser.post("/token", &fields).await
            }
        };
        let id = ("client_id", "first".to_owned());
        let grant = |name: &str| ("grant_type", name.to_owned());
        let redirect = ("redirect_uri", CALLBACK.to_owned());
        let page = bare(vec![grant("authorization_code"), id.clone(), ("code", code.clone()), redirect]).await;
        assert_eq!((page.status.as_u16(), page.json()["error"].as_str()), (401, Some("invalid_client")));
        let tokens = provider.redeem(&code).await;
        assert_eq!(tokens.status, 200, "the code was not consumed");
        let page = bare(vec![grant("refresh_token"), id, ("refresh_token", tokens.text("refresh_token"))]).await;
        assert_eq!(page.status, 401);
        assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.status, 200);
    }

    async fn attack_52_and_53_grants_are_known_and_allowed(provider: Provider) {
        for (client, grant_type, error) in [
            ("machine", "password", "unsupported_grant_type"),
            ("machine", "implicit", "unsupported_grant_type"),
            ("machine", "authorization_code", "unauthorized_client"),
            ("first", "client_credentials", "unauthorized_client"),
            ("spa", "client_credentials", "unauthorized_client"),
        ] {
            let answer = provider.token(client, &[("grant_type", grant_type)]).await;
            assert_eq!((answer.status, answer.error()), (400, error), "{client} {grant_type}");
        }
    }

    async fn attack_54_a_client_gets_tokens_for_itself_alone(provider: Provider) {
        let answer = provider.token("machine", &[("grant_type", "client_credentials")]).await;
        assert_eq!(answer.body["scope"], "quiz.read pay");
        assert!(answer.body.get("refresh_token").is_none() && answer.body.get("id_token").is_none());
        let claims = claims_of(&answer.text("access_token"));
        assert_eq!((claims["sub"].as_str(), claims["aud"].as_str()), (Some("machine"), Some("https://id.test")));
        for scope in ["openid", "offline_access", "quiz.read profile", "unheard"] {
            let refused = provider.token("machine", &[("grant_type", "client_credentials"), ("scope", scope)]).await;
            assert_eq!((refused.status, refused.error()), (400, "invalid_scope"), "{scope}");
        }
        let narrowed = [("grant_type", "client_credentials"), ("resource", "https://quiz.test")];
        let narrowed = provider.token("machine", &narrowed).await;
        assert_eq!(narrowed.body["scope"], "quiz.read");
        assert_eq!(claims_of(&narrowed.text("access_token"))["aud"], "https://quiz.test");
        assert_eq!(provider.userinfo(&answer.text("access_token")).await.status, 403);
    }

    async fn attack_56_resources_are_not_widened_later(provider: Provider) {
        let url = provider.authorize_url("scope=openid+quiz.read+pay&resource=https://quiz.test");
        let code = provider.code(&mut provider.browser(), &url).await;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", CALLBACK),
            ("resource", "https://pay.test"),
        ];
        assert_eq!(provider.token("first", &fields).await.error(), "invalid_target");
        let tokens = provider.redeem(&code).await;
        assert_eq!(tokens.body["scope"], "openid quiz.read", "a token to one resource lacks the scopes of another");
        let widened = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &tokens.text("refresh_token")),
            ("resource", "https://pay.test"),
        ];
        assert_eq!(provider.token("first", &widened).await.error(), "invalid_target");
    }

    async fn a_refresh_gives_new_tokens_of_the_same_sign_in(provider: Provider) {
        let first = provider.tokens("openid profile offline_access").await;
        provider.pass(Span::minutes(10));
        let second = provider.refresh("first", &first.text("refresh_token")).await;
        assert_eq!(second.status, 200, "{}", second.body);
        let (old, new) = (claims_of(&first.text("id_token")), claims_of(&second.text("id_token")));
        for name in ["iss", "sub", "aud", "auth_time", "acr", "sid"] {
            assert_eq!(old[name], new[name], "{name}");
        }
        assert!(new["iat"].as_i64() > old["iat"].as_i64());
        assert!(new.get("nonce").is_none());
        let narrowed = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &first.text("refresh_token")),
            ("scope", "profile"),
        ];
        let narrowed = provider.token("first", &narrowed).await;
        assert_eq!(narrowed.body["scope"], "profile");
        assert!(narrowed.body.get("id_token").is_none());
        let again = provider.refresh("first", &first.text("refresh_token")).await;
        assert_eq!(again.body["scope"], "openid profile offline_access", "narrowing one token narrows no other");
    }

    async fn a_lost_answer_can_be_asked_for_again(provider: Provider) {
        let first = spa_tokens(&provider).await.text("refresh_token");
        let second = provider.refresh("spa", &first).await.text("refresh_token");
        assert_ne!(first, second);
        assert_eq!(provider.refresh("spa", &first).await.text("refresh_token"), second, "the same successor");
        let third = provider.refresh("spa", &second).await.text("refresh_token");
        assert_ne!(second, third);
    }

    async fn attack_72_and_82_an_old_refresh_token_ends_the_grant(provider: Provider) {
        // Two generations old, within the window.
        let tokens = spa_tokens(&provider).await;
        let first = tokens.text("refresh_token");
        let second = provider.refresh("spa", &first).await.text("refresh_token");
        let third = provider.refresh("spa", &second).await;
        let access = third.text("access_token");
        assert_eq!(provider.userinfo(&access).await.status, 200);
        assert_eq!(provider.refresh("spa", &first).await.error(), "invalid_grant");
        assert_eq!(provider.refresh("spa", &third.text("refresh_token")).await.error(), "invalid_grant");
        assert_eq!(provider.userinfo(&access).await.status, 401);

        // The parent, after the window.
        let first = spa_tokens(&provider).await.text("refresh_token");
        let second = provider.refresh("spa", &first).await.text("refresh_token");
        provider.pass(Span::from_secs(61));
        assert_eq!(provider.refresh("spa", &first).await.error(), "invalid_grant");
        assert_eq!(provider.refresh("spa", &second).await.error(), "invalid_grant");
    }

    async fn attack_73_fifty_refreshes_at_once_agree_on_one_successor(provider: Provider) {
        let parent = spa_tokens(&provider).await.text("refresh_token");
        let provider = std::sync::Arc::new(provider);
        let answers = fifty(|| {
            let (provider, parent) = (std::sync::Arc::clone(&provider), parent.clone());
            async move { provider.refresh("spa", &parent).await }
        })
        .await;
        let successor = answers[0].text("refresh_token");
        assert_ne!(successor, parent);
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.text("refresh_token"), successor);
        }
        assert_eq!(provider.refresh("spa", &successor).await.status, 200);
        assert_eq!(provider.refresh("spa", &parent).await.error(), "invalid_grant", "the parent is dead now");
    }

    async fn attack_74_nothing_lives_after_a_revocation_was_answered(provider: Provider) {
        let provider = std::sync::Arc::new(provider);
        for _ in 0..5 {
            let parent = spa_tokens(&provider).await.text("refresh_token");
            let refreshing = {
                let (provider, parent) = (std::sync::Arc::clone(&provider), parent.clone());
                tokio::spawn(async move { provider.refresh("spa", &parent).await })
            };
            let revoked = provider.call("spa", "/revoke", &[("token", &parent)]).await;
            assert_eq!(revoked.status, 200);
            let refreshed = refreshing.await.unwrap();
            if refreshed.status == 200 {
                assert_eq!(provider.userinfo(&refreshed.text("access_token")).await.status, 401);
                assert_eq!(provider.refresh("spa", &refreshed.text("refresh_token")).await.error(), "invalid_grant");
            }
        }
    }

    async fn attack_76_a_refresh_token_is_worth_nothing_to_another_client(provider: Provider) {
        let tokens = provider.tokens("openid offline_access").await;
        assert_eq!(provider.refresh("other", &tokens.text("refresh_token")).await.error(), "invalid_grant");
        assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.status, 200);
    }

    async fn attack_79_a_new_password_ends_what_the_old_one_opened(provider: Provider) {
        let mut browser = provider.browser();
        let code = provider.code(&mut browser, &provider.authorize_url("scope=openid+offline_access")).await;
        let tokens = provider.redeem(&code).await;
        let alice = keyward::protocol::ids::UserId::new(claims_of(&tokens.text("access_token"))["sub"].as_str().unwrap());
        let hash = keyward::crypto::secret::Secret::new("$argon2id$new".to_owned());
        provider.app.store.set_password(alice, hash, provider.app.now()).await.unwrap();
        assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.error(), "invalid_grant");
        let page = browser.get(&provider.authorize_url("prompt=none")).await;
        assert_eq!(page.location_params()["error"], "login_required");
    }

    async fn attack_80_rotation_never_extends_a_refresh_token(provider: Provider) {
        let mut token = spa_tokens(&provider).await.text("refresh_token");
        for _ in 0..5 {
            provider.pass(Span::days(5));
            token = provider.refresh("spa", &token).await.text("refresh_token");
        }
        provider.pass(Span::days(5));
        assert_eq!(provider.refresh("spa", &token).await.error(), "invalid_grant", "thirty days are over");
    }

    async fn attack_104_and_105_only_those_concerned_learn_about_a_token(provider: Provider) {
        let url = provider.authorize_url("scope=openid+quiz.read&resource=https://quiz.test");
        let code = provider.code(&mut provider.browser(), &url).await;
        let access = provider.redeem(&code).await.text("access_token");
        let inactive = json!({"active": false});
        let own = provider.introspect("first", &access).await;
        assert_eq!((own["active"].as_bool(), own["username"].as_str()), (Some(true), Some("alice")));
        assert_eq!(own["scope"], "openid quiz.read");
        assert_eq!(provider.introspect("rs", &access).await["active"], true, "the resource's own server");
        assert_eq!(provider.introspect("other", &access).await, inactive);
        assert_eq!(provider.introspect("first", "garbage").await, inactive);
        let public = provider.call("spa", "/introspect", &[("token", &access)]).await;
        assert_eq!((public.status, public.error()), (401, "invalid_client"));
        let nobody = provider.browser().post("/introspect", &[("token", &access)]).await;
        assert_eq!(nobody.status, 401);
        provider.pass(Span::minutes(16));
        assert_eq!(provider.introspect("first", &access).await, inactive, "expired");
    }

    async fn attack_106_and_108_revoked_tokens_are_dead_everywhere(provider: Provider) {
        let tokens = provider.tokens("openid offline_access").await;
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        assert_eq!(provider.introspect("first", &refresh).await["active"], true);
        let wrong_hint = [("token", access.as_str()), ("token_type_hint", "refresh_token")];
        assert_eq!(provider.call("first", "/revoke", &wrong_hint).await.status, 200);
        assert_eq!(provider.userinfo(&access).await.status, 401);
        assert_eq!(provider.introspect("first", &access).await, json!({"active": false}));
        let next = provider.refresh("first", &refresh).await;
        assert_eq!(next.status, 200, "an access token ends alone");

        let foreign = provider.call("other", "/revoke", &[("token", &refresh)]).await;
        assert_eq!((foreign.status, foreign.error()), (400, "unauthorized_client"));
        assert_eq!(provider.call("first", "/revoke", &[("token", &refresh)]).await.status, 200);
        assert_eq!(provider.refresh("first", &refresh).await.error(), "invalid_grant");
        assert_eq!(provider.userinfo(&next.text("access_token")).await.status, 401);
        assert_eq!(provider.introspect("first", &refresh).await, json!({"active": false}));
        assert_eq!(provider.call("first", "/revoke", &[("token", "unknown")]).await.status, 200);
    }

    async fn attack_109_userinfo_takes_one_live_token_from_the_right_place(provider: Provider) {
        let tokens = provider.tokens("openid email").await;
        let access = tokens.text("access_token");
        let bearer = format!("Bearer {access}");
        let odd_case = format!("bEARER {access}");
        let mut browser = provider.browser();
        for (method, url, fields, headers, status) in [
            (Method::GET, "/userinfo".to_owned(), None, vec![("authorization", bearer.as_str())], 200),
            (Method::GET, "/userinfo".to_owned(), None, vec![("authorization", odd_case.as_str())], 200),
            (Method::POST, "/userinfo".to_owned(), None, vec![("authorization", &bearer)], 200),
            (Method::POST, "/userinfo".to_owned(), Some(vec![("access_token", access.as_str())]), vec![], 200),
            (Method::GET, "/userinfo".to_owned(), None, vec![], 401),
            (Method::GET, format!("/userinfo?access_token={access}"), None, vec![], 400),
            (Method::POST, "/userinfo".to_owned(), Some(vec![("access_token", &access)]), vec![("authorization", &bearer)], 400),
            (Method::GET, "/userinfo".to_owned(), None, vec![("authorization", "Bearer nonsense")], 401),
        ] {
            let page = browser.send(method.clone(), &url, fields.as_deref(), &headers).await;
            assert_eq!(page.status, status, "{method} {url} {headers:?} {}", page.body);
            assert_eq!(page.header("www-authenticate").is_some(), status != 200);
        }
        let id_token = provider.userinfo(&tokens.text("id_token")).await;
        assert_eq!(id_token.status, 401);
        let plain = provider.tokens("quiz.read").await.text("access_token");
        let page = provider.userinfo(&plain).await;
        assert_eq!(page.status, 403);
        assert!(page.header("www-authenticate").unwrap().contains("insufficient_scope"));
    }

    async fn attack_110_and_156_only_registered_origins_may_read_answers(provider: Provider) {
        let mut browser = provider.browser();
        for (path, origin, allowed) in [
            ("/token", "https://spa.test", Some("https://spa.test")),
            ("/token", "https://spa2.test", Some("https://spa2.test")),
            ("/userinfo", "https://app.test", Some("https://app.test")),
            ("/revoke", "https://spa.test", Some("https://spa.test")),
            ("/token", "https://evil.test", None),
            ("/token", "null", None),
            ("/jwks", "https://evil.test", Some("*")),
            ("/.well-known/openid-configuration", "https://evil.test", Some("*")),
            ("/authorize", "https://spa.test", None),
            ("/login", "https://spa.test", None),
        ] {
            let headers = [("origin", origin), ("access-control-request-method", "POST")];
            let page = browser.send(Method::OPTIONS, path, None, &headers).await;
            assert_eq!(page.header("access-control-allow-origin"), allowed, "{path} {origin}");
            assert_eq!(page.header("access-control-allow-credentials"), None);
        }
    }

    async fn claims_of_scopes_stand_in_the_id_token_for_clients_that_want_them(provider: Provider) {
        let id = keyward::protocol::ids::ClientId::new("first");
        let mut record = provider.app.store.client(&id).await.unwrap().unwrap().as_ref().clone();
        record.client.metadata.id_token_claims = keyward::protocol::client::IdTokenClaims::Scopes;
        assert!(provider.app.store.update_client(record, provider.app.now()).await.unwrap());
        let tokens = provider.tokens("openid email").await;
        let claims = claims_of(&tokens.text("id_token"));
        assert_eq!(claims["email"], "alice@example.com");
        assert!(claims.get("name").is_none());
    }

    async fn two_processes_share_grants_and_revocations(provider: Provider) {
        let tokens = spa_tokens(&provider).await;
        let (_, second) = provider.second().await;
        let mut elsewhere = crate::support::Browser::new(second, &provider.issuer);
        let bearer = format!("Bearer {}", tokens.text("access_token"));
        let get = |browser: crate::support::Browser| {
            let bearer = bearer.clone();
            async move { browser.clone().send(Method::GET, "/userinfo", None, &[("authorization", &bearer)]).await.status }
        };
        assert_eq!(get(elsewhere.clone()).await, 200);
        let refresh = tokens.text("refresh_token");
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str()), ("client_id", "spa")];
        let there = elsewhere.post("/token", &fields).await.json()["refresh_token"].as_str().unwrap().to_owned();
        assert_eq!(provider.refresh("spa", &refresh).await.text("refresh_token"), there, "one successor for both");
        assert_eq!(provider.call("spa", "/revoke", &[("token", &there)]).await.status, 200);
        within_a_second("revoked there as well", async || get(elsewhere.clone()).await == 401).await;
    }
}
