//! The authorization code: replayed, stolen, too old, mistaken for something else, or outlived by its cause. Many at
//! once stand in `races.rs`.

use http::Method;
use keyward::protocol::client::{AuthMethod, ClientMetadata};
use keyward::protocol::time::Span;
use serde_json::json;

use crate::authorize::{add_client, hidden, open};
use crate::login::{SESSION, is_signed_in};
use crate::on_both_databases;
use crate::support::audit::told;
use crate::support::{CALLBACK, VERIFIER, challenge};

on_both_databases! {
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

    async fn attack_40_a_code_is_worth_nothing_to_another_client(provider: Provider) {
        // One with the same address and a secret, and one with the same address and none.
        let public = |client: &mut ClientMetadata| client.token_endpoint_auth_method = Some(AuthMethod::None);
        add_client(&provider, "public", public).await;
        let code = provider.code(&mut provider.browser(), &provider.authorize_url(challenge())).await;
        let grant = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let proven = [&grant[..], &[("code_verifier", VERIFIER)]].concat();
        let without_secret = [&proven[..], &[("client_id", "public")]].concat();
        let steal = async || {
            let before = provider.row_counts().await;
            let stolen = provider.token("other", &proven).await;
            assert_eq!((stolen.status, stolen.error()), (400, "invalid_grant"));
            let stolen = provider.browser().post("/token", &without_secret).await;
            assert_eq!((stolen.status.as_u16(), &stolen.json()["error"]), (400, &json!("invalid_grant")));
            assert_eq!(provider.row_counts().await, before);
        };
        steal().await;
        let tokens = provider.token("first", &proven).await;
        assert_eq!(tokens.status, 200, "the owner can still use it");
        // Once it is used, another client's attempt is no replay: else anybody who saw it could end the grant.
        steal().await;
        assert_eq!(provider.userinfo(&tokens.text("access_token")).await.status, 200);
        assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.status, 200);
    }

    async fn attack_41_a_code_is_dead_after_a_minute_by_any_clock(provider: Provider) {
        let mut browser = provider.browser();
        let url = provider.authorize_url("scope=openid");
        let fresh = provider.code(&mut browser, &url).await;
        provider.pass(Span::from_secs(55));
        assert_eq!(provider.redeem(&fresh).await.status, 200);
        let stale = provider.code(&mut browser, &url).await;
        provider.pass(Span::from_secs(62));
        assert_eq!(provider.redeem(&stale).await.error(), "invalid_grant");

        // A clock that is set back brings no code back to life and lengthens no life.
        let early = provider.code(&mut browser, &url).await;
        provider.pass(Span::ZERO - Span::hours(1));
        let before = provider.row_counts().await;
        for code in [&stale, &early] {
            assert_eq!(provider.redeem(code).await.error(), "invalid_grant");
        }
        assert_eq!(provider.row_counts().await, before);
        provider.pass(Span::hours(1));
        assert_eq!(provider.redeem(&early).await.status, 200, "nothing was used up meanwhile");
        provider.pass(Span::ZERO - Span::from_secs(30));
        assert_eq!(provider.redeem(&early).await.error(), "invalid_grant", "used is used");
    }

    /// Whatever we hand out is good for one thing.
    async fn attack_42_nothing_passes_for_something_else(provider: Provider) {
        let mut browser = provider.browser();
        let started = browser.get(&provider.authorize_url("prompt=login")).await;
        let ticket = started.location_params()["ticket"].clone();
        let parked = browser.get(&provider.authorize_url(&format!("prompt=login&state={}", "s".repeat(2000)))).await;
        let parked = parked.location_params()["ticket"].clone();
        let form_token = hidden(&browser.follow(started).await, "csrf");
        let code = provider.code(&mut browser, &provider.authorize_url("scope=openid+offline_access")).await;
        let tokens = provider.redeem(&code).await;
        let unused = provider.code(&mut browser, &provider.authorize_url("scope=openid+offline_access")).await;
        let session = browser.cookies[SESSION].clone();
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let logout = [("client_id", "first")];
        let logout = provider.browser().send(Method::POST, "/logout", Some(&logout), &[]).await;
        let logout = logout.location_params()["ticket"].clone();
        let hint = tokens.text("id_token");
        let others = [&ticket, &parked, &form_token, &session, &access, &hint, &logout, "xyz", "first-secret", "x"];

        let before = provider.row_counts().await;
        for artefact in others.into_iter().chain([refresh.as_str()]) {
            assert_eq!(provider.redeem(artefact).await.error(), "invalid_grant", "{artefact}");
        }
        for artefact in others.into_iter().chain([unused.as_str()]) {
            assert_eq!(provider.refresh("first", artefact).await.error(), "invalid_grant", "{artefact}");
        }
        for artefact in [&ticket, &form_token, &session, &refresh, &hint, &unused, &logout] {
            assert_eq!(provider.userinfo(artefact).await.status, 401, "{artefact}");
        }
        for artefact in [&form_token, &session, &refresh, &access, &hint, &unused, &logout] {
            for path in ["/login", "/consent", "/authorize/resume"] {
                let page = browser.get(&format!("{path}?ticket={artefact}")).await;
                assert_eq!((page.status.as_u16(), page.header("location")), (400, None), "{path} {artefact}");
            }
        }
        for artefact in [&ticket, &form_token, &refresh, &access, &hint, &unused, &logout] {
            let mut thief = provider.browser();
            thief.cookies.insert(SESSION.to_owned(), artefact.to_string());
            assert!(!is_signed_in(&provider, &mut thief).await, "{artefact}");
        }
        for artefact in [&ticket, &parked, &unused] {
            let page = browser.get(&format!("/logout?ticket={artefact}")).await;
            assert!(page.body.contains("id=\"logout-confirm\""), "{artefact}");
        }
        assert_eq!(provider.row_counts().await, before);

        // Each is still good for its own.
        assert_eq!(provider.refresh("first", &refresh).await.status, 200);
        assert_eq!(provider.userinfo(&access).await.status, 200);
        assert_eq!(provider.redeem(&unused).await.status, 200);
        for ticket in [&ticket, &parked] {
            assert!(open(&mut browser, &format!("/login?ticket={ticket}")).await.body.contains("id=\"login-submit\""));
        }
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    async fn attack_44_a_disabled_or_deleted_person_gets_no_tokens_and_the_old_ones_die(provider: Provider) {
        for gone in ["disabled", "deleted"] {
            let tokens = provider.tokens("openid offline_access").await;
            let code = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid")).await;
            let mut bob = provider.browser();
            provider.sign_in_as(&mut bob, "bob", "battery staple").await;
            let of_bob = provider.code(&mut bob, &provider.authorize_url("scope=openid")).await;
            let access = tokens.text("access_token");
            assert_eq!(provider.userinfo(&access).await.status, 200);
            if gone == "disabled" {
                provider.set_user_disabled("alice", true).await;
            } else {
                assert!(provider.app.store.delete_user(provider.user_id("alice").await, told()).await.unwrap());
            }
            assert_eq!(provider.redeem(&code).await.error(), "invalid_grant");
            assert_eq!(provider.userinfo(&access).await.status, 401);
            assert_eq!(provider.introspect("first", &access).await, json!({"active": false}));
            assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.error(), "invalid_grant");
            assert_eq!(provider.redeem(&of_bob).await.status, 200, "nobody else is concerned");
            if gone == "disabled" {
                provider.set_user_disabled("alice", false).await;
                assert_eq!(provider.redeem(&code).await.error(), "invalid_grant", "what ended stays ended");
            }
        }
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
}
