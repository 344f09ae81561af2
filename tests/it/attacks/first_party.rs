//! The sign-in APIs under attack: cookies and forms of others, accounts that make themselves more, and what every answer
//! bears. Guessing and floods are in the files beside this one.

use http::{Method, StatusCode};
use keyward::protocol::ids::UserId;
use serde_json::{Value, json};

use crate::first_party::{elsewhere, post, registered, send_raw, signed_up, text, with_token};
use crate::login::{SESSION, cookies_of, is_signed_in};
use crate::on_both_databases;
use crate::support::audit::told;
use crate::support::{Page, claims_of, json as call};

on_both_databases! {
    /// What has no cookies can be given none, and nobody can be signed in by a link or a form of somebody else.
    async fn attacks_121_and_122_the_calls_neither_plant_nor_read_a_session(provider: Provider) {
        let planted = "planted-by-somebody-else-planted-by-some";
        let mut browser = provider.browser();
        browser.cookies.insert(SESSION.to_owned(), planted.to_owned());
        let pages = [
            signed_up(&mut browser, "ada", "engine").await,
            post(&mut browser, "/api/auth/login", json!({ "username": "ada", "password": "engine" })).await,
            registered(&mut browser, "a@b.test", "s3cur3pass", "device-1").await,
            post(&mut browser, "/auth/login", json!({ "email": "a@b.test", "password": "s3cur3pass" })).await,
        ];
        for page in &pages {
            assert!(page.status.is_success() && cookies_of(page).is_empty(), "{:?}", page.headers);
        }
        assert!(!is_signed_in(&provider, &mut browser).await, "the token is for whoever typed the password");
        // And the other way round: who is signed in on our pages shows no token by it.
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        assert!(is_signed_in(&provider, &mut browser).await);
        assert_eq!(browser.get("/api/auth/me").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(call(&mut browser, "PATCH", "/auth/me", json!({}), &[]).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(call(&mut browser, "POST", "/api/auth/logout", Value::Null, &[]).await.status, StatusCode::OK);
        assert!(is_signed_in(&provider, &mut browser).await, "no page of another site signs anybody out");
        let token = text(&pages[0], "/token");
        assert_eq!(with_token(&mut browser, "GET", "/api/auth/me", &token, Value::Null).await.status, StatusCode::OK);
    }

    /// A page of another site can post text and forms without asking anybody; a body of JSON it has to ask for.
    async fn attacks_123_and_124_what_other_sites_can_post_makes_and_opens_nothing(provider: Provider) {
        let before = provider.row_counts().await;
        let sign_up = r#"{"username":"eve","password":"engine","confirmPassword":"engine"}"#;
        let register = r#"{"email":"eve@b.test","password":"s3cur3pass","deviceId":"eve"}"#;
        let login = r#"{"username":"alice","email":"alice@example.com","password":"correct horse"}"#;
        for (path, body) in
            [("/api/auth/signup", sign_up), ("/api/auth/login", login), ("/auth/register", register), ("/auth/login", login)] {
            for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
                let headers = [("content-type", kind), ("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")];
                let page = send_raw(&provider, Method::POST, path, &headers, body.into()).await;
                assert_eq!(page.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {kind}");
            }
            let question = [("origin", "https://evil.test"), ("access-control-request-method", "POST")];
            let page = send_raw(&provider, Method::OPTIONS, path, &question, "".into()).await;
            assert_eq!(page.header("access-control-allow-origin"), None, "{path}");
        }
        assert_eq!(provider.row_counts().await, before);
        let mut browser = provider.browser();
        assert_eq!(post(&mut browser, "/api/auth/signup", serde_json::from_str(sign_up).expect("JSON")).await.status, 200);
        assert_eq!(post(&mut browser, "/auth/register", serde_json::from_str(register).expect("JSON")).await.status, 201);
    }

    async fn attack_126_tokens_are_taken_from_one_place_only(provider: Provider) {
        let mut browser = provider.browser();
        let token = text(&signed_up(&mut browser, "ada", "engine").await, "/token");
        for (path, cookie) in [
            (format!("/api/auth/me?access_token={token}"), String::new()),
            (format!("/api/auth/me?token={token}"), String::new()),
            ("/api/auth/me".to_owned(), format!("token={token}; {SESSION}={token}; access_token={token}")),
        ] {
            let page = browser.send(Method::GET, &path, None, &[("cookie", &cookie)]).await;
            assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{path} {cookie}");
        }
        assert_eq!(with_token(&mut browser, "GET", "/api/auth/me", &token, Value::Null).await.status, StatusCode::OK);
    }

    /// Mass assignment: an account is what its API makes it, whatever else the body wishes for.
    async fn attack_129_nobody_signs_up_as_more_than_they_are(provider: Provider) {
        let wishes = json!({
            "id": "chosen", "sub": "chosen", "userId": "chosen", "user_id": "chosen", "role": "teacher", "roles": ["teacher"],
            "groups": ["staff"], "scope": "teach pay", "email_verified": true, "emailVerified": true, "partner": "acme",
            "partner_id": "acme", "realm": "partner:acme", "external_id": "u-1", "client_id": "first", "disabled_at": null,
            "pseudo": "chosen", "total_games_completed": 99, "password_hash": "$argon2id$x", "aud": "https://pay.test",
        });
        let with_wishes = |own: Value| {
            let mut body = wishes.as_object().expect("an object").clone();
            body.extend(own.as_object().expect("an object").clone());
            Value::Object(body)
        };
        let mut browser = provider.browser();
        let body = json!({ "username": "eve", "password": "engine", "confirmPassword": "engine", "email": "alice@example.com" });
        let study = post(&mut browser, "/api/auth/signup", with_wishes(body)).await;
        let body = json!({ "email": "eve@b.test", "password": "s3cur3pass", "deviceId": "eve-1", "username": "eve-2" });
        let game = post(&mut browser, "/auth/register", with_wishes(body)).await;
        assert_eq!((study.status.as_u16(), game.status.as_u16()), (200, 201), "{} {}", study.body, game.body);
        assert_ne!(text(&study, "/user/id"), "chosen");
        let player = json!({ "id": "eve-1", "email": "eve@b.test", "pseudo": "", "total_games_completed": 0 });
        assert_eq!(game.json()["data"]["user"], player);
        for (token, client, email) in
            [(text(&study, "/token"), "study", None), (text(&game, "/data/access_token"), "game", Some("eve@b.test"))] {
            let claims = claims_of(&token);
            assert_eq!((&claims["client_id"], &claims["aud"]), (&json!(client), &json!("https://id.test")));
            assert!(!["teach", "pay"].iter().any(|scope| claims["scope"].as_str().expect("scopes").contains(scope)), "{claims}");
            let sub = claims["sub"].as_str().expect("a sub");
            let user = provider.app.store.user(&UserId::new(sub)).await.expect("an answer").expect("a person");
            assert_eq!((user.email.as_deref(), user.email_verified), (email, false));
            assert!(user.roles.is_empty() && user.groups.is_empty() && user.partner.is_none() && user.external_id.is_none());
        }
        // The real thing: who is a teacher gets the scope.
        let id = provider.user_id("alice").await;
        let roles = Some(vec!["teacher".to_owned()]);
        assert!(provider.app.store.set_roles(id, roles, None, told(), provider.app.now()).await.expect("an answer"));
        let page = post(&mut browser, "/api/auth/login", json!({ "username": "alice", "password": "correct horse" })).await;
        assert!(claims_of(&text(&page, "/token"))["scope"].as_str().expect("scopes").contains("teach"));
    }

    async fn attacks_125_and_155_every_answer_of_the_apis_bears_the_headers_that_protect_it(provider: Provider) {
        let mut browser = provider.browser();
        let study = signed_up(&mut browser, "ada", "engine").await;
        let game = registered(&mut browser, "a@b.test", "s3cur3pass", "device-1").await;
        let token = text(&study, "/token");
        let mut answers: Vec<Page> = vec![
            with_token(&mut browser, "GET", "/api/auth/me", &token, Value::Null).await,
            with_token(&mut browser, "POST", "/api/auth/logout", &token, Value::Null).await,
            browser.get("/api/auth/me").await,
            browser.get("/api/auth/nothing").await,
            browser.get("/api/auth/login").await,
            with_token(&mut browser, "PATCH", "/auth/me", &text(&game, "/data/access_token"), json!({})).await,
            post(&mut browser, "/auth/refresh", json!({ "refresh_token": text(&game, "/data/refresh_token") })).await,
            post(&mut browser, "/auth/register", json!({})).await,
            call(&mut browser, "PATCH", "/auth/me", json!({}), &[]).await,
            browser.send(Method::POST, "/auth/login", None, &[]).await,
            browser.get("/auth/nothing").await,
        ];
        for _ in 0..6 {
            answers.push(post(&mut elsewhere(&provider, 1), "/api/auth/login", json!({})).await);
        }
        answers.extend([study, game]);
        let statuses: std::collections::BTreeSet<u16> = answers.iter().map(|page| page.status.as_u16()).collect();
        assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [200, 201, 400, 401, 404, 405, 415, 429]);
        for page in &answers {
            assert_eq!(page.header("content-type"), Some("application/json"), "{}", page.body);
            assert_eq!(page.header("cache-control"), Some("no-store"), "{} {}", page.status, page.body);
            assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
            assert_eq!(page.header("x-frame-options"), Some("DENY"));
            assert!(page.header("strict-transport-security").is_some_and(|value| value.starts_with("max-age=")));
            assert!(page.header("content-security-policy").is_some_and(|value| value.contains("frame-ancestors 'none'")));
            assert!(page.header("x-request-id").is_some_and(|id| id.len() >= 12));
            assert_eq!(page.header("server"), None);
        }
    }

    /// The app's pages may read its API, and by that nothing else of ours that opens something.
    async fn attack_156_an_origin_reads_its_own_api_only(provider: Provider) {
        for (path, method, readable) in [
            ("/api/auth/login", "POST", true),
            ("/api/auth/me", "GET", true),
            ("/auth/login", "POST", false),
            ("/auth/me", "PATCH", false),
            ("/login", "POST", false),
            ("/authorize", "GET", false),
            ("/consent", "POST", false),
            ("/logout", "POST", false),
            ("/introspect", "POST", false),
            ("/forward-auth/required", "GET", false),
            ("/jwks", "GET", true),
        ] {
            let headers = [("origin", "https://study.test"), ("access-control-request-method", method)];
            let question = send_raw(&provider, Method::OPTIONS, path, &headers, "".into()).await;
            let asked = send_raw(&provider, method.parse().expect("a method"), path, &headers[..1], "".into()).await;
            for page in [question, asked] {
                assert_eq!(page.header("access-control-allow-origin").is_some(), readable, "{path}");
                assert_eq!(page.header("access-control-allow-credentials"), None);
            }
        }
    }
}
