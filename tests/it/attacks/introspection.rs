//! Introspection, revocation and UserInfo: who may ask about a token, and that a dead one is dead everywhere.

use http::Method;
use keyward::protocol::time::Span;
use serde_json::json;

use crate::on_both_databases;

on_both_databases! {
    async fn attacks_104_and_105_only_those_concerned_learn_about_a_token(provider: Provider) {
        let url = provider.authorize_url("scope=openid+quiz.read&resource=https://quiz.test");
        let code = provider.code(&mut provider.browser(), &url).await;
        let tokens = provider.redeem(&code).await;
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let inactive = json!({"active": false});
        let own = provider.introspect("first", &access).await;
        assert_eq!((own["active"].as_bool(), own["username"].as_str()), (Some(true), Some("alice")));
        assert_eq!(own["scope"], "openid quiz.read");
        assert_eq!(provider.introspect("rs", &access).await["active"], true, "the resource's own server");
        assert_eq!(provider.introspect("first", &refresh).await["active"], true);
        let before = provider.row_counts().await;
        for (client, token) in [("other", &access), ("other", &refresh), ("rs", &refresh), ("machine", &access)] {
            assert_eq!(provider.introspect(client, token).await, inactive, "{client}");
        }
        for token in ["garbage", "a.b.c", "kw_rt_AAAA", &tokens.text("id_token"), &code] {
            assert_eq!(provider.introspect("first", token).await, inactive, "{token}");
        }
        // Nor is there more to read for those who would take the answer as a JWT (RFC 9701).
        let accept = ("accept", "application/token-introspection+jwt");
        let headers = [("authorization", "Basic b3RoZXI6b3RoZXItc2VjcmV0"), accept];
        let page = provider.browser().send(Method::POST, "/introspect", Some(&[("token", &access)]), &headers).await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (200, "{\"active\":false}"));
        let public = provider.call("spa", "/introspect", &[("token", &access)]).await;
        assert_eq!((public.status, public.error()), (401, "invalid_client"));
        for credentials in [&[][..], &[("client_id", "first")], &[("client_id", "first"), ("client_secret", "wrong")]] {
            let fields = [&[("token", access.as_str())][..], credentials].concat();
            let nobody = provider.browser().post("/introspect", &fields).await;
            assert_eq!((nobody.status.as_u16(), &nobody.json()["error"]), (401, &json!("invalid_client")));
        }
        let bearer = format!("Bearer {access}");
        let headers = [("authorization", bearer.as_str())];
        let page = provider.browser().send(Method::POST, "/introspect", Some(&[("token", &access)]), &headers).await;
        assert_eq!(page.status, 401, "a token does not authenticate a client");
        assert_eq!(provider.row_counts().await, before);
        provider.pass(Span::minutes(16));
        assert_eq!(provider.introspect("first", &access).await, inactive, "expired");
        assert_eq!(provider.introspect("first", &refresh).await["active"], true);
    }

    async fn attacks_106_and_108_revoked_tokens_are_dead_everywhere(provider: Provider) {
        let tokens = provider.tokens("openid offline_access").await;
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        assert_eq!(provider.introspect("first", &refresh).await["active"], true);
        let wrong_hint = [("token", access.as_str()), ("token_type_hint", "refresh_token")];
        assert_eq!(provider.call("first", "/revoke", &wrong_hint).await.status, 200);
        assert_eq!(provider.userinfo(&access).await.status, 401);
        assert_eq!(provider.introspect("first", &access).await, json!({"active": false}));
        let next = provider.refresh("first", &refresh).await;
        assert_eq!(next.status, 200, "an access token ends alone");

        let live = next.text("access_token");
        let before = provider.row_counts().await;
        for token in [&refresh, &live] {
            let foreign = provider.call("other", "/revoke", &[("token", token)]).await;
            assert_eq!((foreign.status, foreign.error()), (400, "unauthorized_client"));
            let nobody = provider.browser().post("/revoke", &[("token", token), ("client_id", "first")]).await;
            assert_eq!((nobody.status.as_u16(), &nobody.json()["error"]), (401, &json!("invalid_client")));
        }
        for token in ["unknown", "a.b.c", "kw_rt_AAAA", &next.text("id_token")] {
            assert_eq!(provider.call("first", "/revoke", &[("token", token)]).await.status, 200, "{token}");
        }
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(provider.userinfo(&live).await.status, 200);
        let wrong_hint = [("token", refresh.as_str()), ("token_type_hint", "access_token")];
        assert_eq!(provider.call("first", "/revoke", &wrong_hint).await.status, 200);
        assert_eq!(provider.refresh("first", &refresh).await.error(), "invalid_grant");
        assert_eq!(provider.userinfo(&next.text("access_token")).await.status, 401);
        assert_eq!(provider.introspect("first", &refresh).await, json!({"active": false}));
        assert_eq!(provider.call("first", "/revoke", &[("token", &refresh)]).await.status, 200, "once more");
    }

    async fn attack_109_userinfo_takes_one_live_token_from_the_right_place(provider: Provider) {
        let tokens = provider.tokens("openid email").await;
        let access = tokens.text("access_token");
        let bearer = format!("Bearer {access}");
        let odd_case = format!("bEARER {access}");
        let header = ("authorization", bearer.as_str());
        let mut browser = provider.browser();
        for (method, url, fields, headers, status) in [
            (Method::GET, "/userinfo".to_owned(), None, vec![("authorization", bearer.as_str())], 200),
            (Method::GET, "/userinfo".to_owned(), None, vec![("authorization", odd_case.as_str())], 200),
            (Method::POST, "/userinfo".to_owned(), None, vec![("authorization", &bearer)], 200),
            (Method::POST, "/userinfo".to_owned(), Some(vec![("access_token", access.as_str())]), vec![], 200),
            (Method::GET, "/userinfo".to_owned(), None, vec![], 401),
            (Method::GET, format!("/userinfo?access_token={access}"), None, vec![], 400),
            (Method::POST, "/userinfo".to_owned(), Some(vec![("access_token", &access)]), vec![header], 400),
            (Method::GET, "/userinfo".to_owned(), None, vec![header, header], 400),
            (Method::GET, "/userinfo".to_owned(), None, vec![("authorization", "Bearer nonsense")], 401),
            (Method::GET, "/userinfo".to_owned(), None, vec![("authorization", "Basic Zmlyc3Q6Zmlyc3Qtc2VjcmV0")], 401),
        ] {
            let page = browser.send(method.clone(), &url, fields.as_deref(), &headers).await;
            assert_eq!(page.status, status, "{method} {url} {headers:?} {}", page.body);
            assert_eq!(page.header("www-authenticate").is_some(), status != 200);
        }
        let id_token = provider.userinfo(&tokens.text("id_token")).await;
        assert_eq!(id_token.status, 401);
        // For no person, or not for what concerns them.
        let own = provider.token("machine", &[("grant_type", "client_credentials")]).await.text("access_token");
        for token in [provider.tokens("quiz.read").await.text("access_token"), own] {
            let page = provider.userinfo(&token).await;
            assert_eq!(page.status, 403);
            assert!(page.header("www-authenticate").unwrap().contains("insufficient_scope"));
        }
        // For another resource alone.
        let elsewhere = provider.authorize_url("scope=quiz.read&resource=https://quiz.test");
        let elsewhere = provider.redeem(&provider.code(&mut provider.browser(), &elsewhere).await).await;
        assert_eq!(provider.userinfo(&elsewhere.text("access_token")).await.status, 401);
    }

    async fn attacks_110_and_156_only_registered_origins_may_read_answers(provider: Provider) {
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
        // The answers themselves are no different, and a session opens none of them.
        provider.sign_in(&mut browser).await;
        for (origin, allowed) in [("https://evil.test", None), ("https://spa.test", Some("https://spa.test"))] {
            let page = browser.send(Method::GET, "/userinfo", None, &[("origin", origin)]).await;
            assert_eq!(page.status, 401);
            assert_eq!(page.header("access-control-allow-origin"), allowed);
            assert_eq!(page.header("access-control-allow-credentials"), None);
            let url = provider.authorize_url("prompt=none");
            let page = browser.send(Method::GET, &url, None, &[("origin", origin)]).await;
            assert_eq!(page.header("access-control-allow-origin"), None);
        }
        let bearer = format!("Bearer {}", provider.tokens("openid").await.text("access_token"));
        let page = browser.send(Method::GET, "/userinfo", None, &[("authorization", &bearer)]).await;
        assert_eq!(page.status, 200);
    }
}
