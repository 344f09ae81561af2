//! The first seed system's two pages, authentication and user onboarding, walked from their tops to their ends: each
//! test is a section.

use keyward::protocol::time::Span;
use serde_json::{Value, json};

use crate::api_keys::code_of;
use crate::on_both_databases;
use crate::partner::{Platform, text};
use crate::support::{claims_of, json as call};

/// What the key of somebody who was registered by API may do.
const SCOPES: &str = "openid profile email offline_access quiz.read";

on_both_databases! {
    /// "Use the API key in requests", "Alternative: token-based authentication", "Token validity": an access token of
    /// 7 days, a refresh token of 30, and after that a new login with the key.
    async fn one_key_from_its_first_call_to_the_login_after_a_month(provider: Provider) {
        provider.with_long_tokens().await;
        let key = provider.api_key("alice", SCOPES).await;
        let sub = provider.user_id("alice").await;
        let me = async |credential: &str| provider.bearer("GET", "/v1/me", credential).await;

        // Step 3 of registration: the key itself, on each request.
        let direct = me(key.expose()).await;
        assert_eq!((direct.status.as_u16(), direct.json()["id"].as_str()), (200, Some(sub.as_str())));

        // Login, and what one receives.
        let login = json!({ "api_key": key.expose() });
        let tokens = provider.json("POST", "/v1/auth/api-key/login", login.clone(), &[]).await.json();
        assert_eq!((&tokens["expires_in"], &tokens["refresh_expires_in"]), (&json!(604_800), &json!(2_592_000)));
        let access = tokens["access_token"].as_str().expect("a token").to_owned();
        let refresh = json!({ "refresh_token": tokens["refresh_token"] });
        assert_eq!(me(&access).await.json(), direct.json(), "the same person, by the same header");

        // "When the access token expires, use the refresh token to generate a new one."
        provider.pass(Span::days(7));
        let expired = me(&access).await;
        assert_eq!((expired.status.as_u16(), code_of(&expired).as_str()), (401, "invalid_token"));
        let renewed = provider.json("POST", "/v1/auth/refresh", refresh.clone(), &[]).await.json();
        assert_eq!(me(renewed["access_token"].as_str().expect("a token")).await.status, 200);

        // "Refresh expired: generate new tokens using the API key."
        provider.pass(Span::days(23));
        let over = provider.json("POST", "/v1/auth/refresh", refresh, &[]).await;
        assert_eq!((over.status.as_u16(), code_of(&over).as_str()), (401, "invalid_refresh_token"));
        let again = provider.json("POST", "/v1/auth/api-key/login", login, &[]).await.json();
        assert_eq!(me(again["access_token"].as_str().expect("a token")).await.json()["id"], sub.as_str());
        assert_eq!(me(key.expose()).await.status, 200, "the key has its year");
    }

    /// "Cookie-based authentication": once authenticated, requests include the session by themselves.
    async fn a_browser_carries_its_session_until_it_signs_out(provider: Provider) {
        provider.with_long_tokens().await;
        let key = provider.api_key("alice", SCOPES).await;
        let login = json!({ "api_key": key.expose() });
        let tokens = provider.json("POST", "/v1/auth/api-key/login", login, &[]).await.json();
        let bearer = format!("Bearer {}", tokens["access_token"].as_str().expect("a token"));
        let mut browser = provider.browser();
        let began = call(&mut browser, "POST", "/v1/auth/session", Value::Null, &[("authorization", &bearer)]).await;
        assert_eq!(began.status, 204, "{}", began.body);
        let mut kept = browser.clone();
        for _ in 0..3 {
            assert_eq!(browser.get("/v1/me").await.json()["username"], "alice");
            provider.pass(Span::hours(6));
        }
        assert_eq!(call(&mut browser, "DELETE", "/v1/auth/session", Value::Null, &[]).await.status, 204);
        assert_eq!(browser.get("/v1/me").await.status, 401);
        assert_eq!(kept.get("/v1/me").await.status, 401, "a cookie that was copied is dead as well");
        assert_eq!(call(&mut browser, "DELETE", "/v1/auth/session", Value::Null, &[]).await.status, 204, "again");
    }

    /// "Server-to-server": the same header with keys and with tokens, for code that does not care which it has.
    async fn one_header_takes_both(provider: Provider) {
        let key = provider.api_key("alice", SCOPES).await;
        let login = json!({ "api_key": key.expose() });
        let tokens = provider.json("POST", "/v1/auth/api-key/login", login, &[]).await.json();
        let token = tokens["access_token"].as_str().expect("a token");
        for path in ["/v1/me", "/userinfo"] {
            let (by_key, by_token) = (provider.bearer("GET", path, key.expose()).await, provider.bearer("GET", path, token).await);
            assert_eq!((by_key.status.as_u16(), by_token.status.as_u16()), (200, 200), "{path}");
            assert_eq!(by_key.json(), by_token.json(), "{path}");
        }
        // Each person has their own.
        let of_bob = provider.api_key("bob", SCOPES).await;
        assert_eq!(provider.bearer("GET", "/v1/me", of_bob.expose()).await.json()["username"], "bob");
    }

    /// "OpenID authentication": the same person signs in to a relying party, and is the same there.
    async fn the_same_person_through_openid(provider: Provider) {
        let key = provider.api_key("alice", SCOPES).await;
        let by_key = provider.bearer("GET", "/v1/me", key.expose()).await.json();
        let tokens = provider.tokens("openid profile email").await;
        let id = claims_of(&tokens.text("id_token"));
        assert_eq!(id["sub"], by_key["id"]);
        assert_eq!(id["acr"], "urn:keyward:acr:password", "this time a person was there");
        assert_eq!(provider.userinfo(&tokens.text("access_token")).await.json()["email"], by_key["email"]);
        // A relying party that does not know our grant gets the same by the exchange that it knows.
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token_type", "urn:keyward:oauth:token-type:api-key"),
            ("subject_token", key.expose()),
            ("scope", "openid email"),
        ];
        let exchanged = provider.token("platform", &fields).await;
        assert_eq!(claims_of(&exchanged.text("id_token"))["sub"], by_key["id"]);
        assert_eq!(provider.userinfo(&exchanged.text("access_token")).await.json()["email"], by_key["email"]);
    }

    /// "User onboarding & account lifecycle", all of it: a platform with its own users, registered when they are first
    /// needed, a key stored for each, calls on their behalf, duplicates, failures and retries, the mapping between the
    /// two systems, and the watch over all of it.
    async fn a_platform_brings_its_users_in(provider: Provider) {
        let platform = Platform::of(&provider, "acme").await;
        // What the platform keeps: its own id, ours, and the key.
        let mut stored: Vec<(&str, String, String)> = Vec::new();

        // "Register users lazily": the first time that somebody uses the feature.
        for (own_id, email) in [("u-1", "ada@school.test"), ("u-2", "grace@school.test")] {
            let registered = platform.registered(own_id, email).await;
            stored.push((own_id, text(&registered, "/user/id"), text(&registered, "/api_key/key")));
        }
        // "User receives a welcome email."
        provider.app.mail.send_due().await.expect("sent");

        // "Your backend retrieves their API key, uses it to call on their behalf": everybody is somebody of their own.
        for (_, id, key) in &stored {
            assert_eq!(provider.bearer("GET", "/v1/me", key).await.json()["id"], id.as_str());
        }
        assert_ne!(stored[0].1, stored[1].1, "no shared account");

        // "Alternative: token-based flow".
        let login = json!({ "api_key": stored[0].2 });
        let tokens = provider.json("POST", "/v1/auth/api-key/login", login, &[]).await.json();
        let me = provider.bearer("GET", "/v1/me", tokens["access_token"].as_str().expect("a token")).await.json();
        assert_eq!(me["id"], stored[0].1.as_str());
        let refresh = json!({ "refresh_token": tokens["refresh_token"] });
        assert_eq!(provider.json("POST", "/v1/auth/refresh", refresh, &[]).await.status, 200);

        // "Handle duplicate users": two of the platform's servers had the same idea.
        let again = platform.register("u-1", "ada@school.test").await;
        assert_eq!((again.status.as_u16(), text(&again.json(), "/user/id")), (200, stored[0].1.clone()));
        assert!(again.json().get("api_key").is_none());
        let clash = platform.register("u-3", "grace@school.test").await;
        assert_eq!((clash.status.as_u16(), code_of(&clash).as_str()), (409, "email_in_use_by_partner_user"));

        // "Monitor onboarding flow: track failures in registration and retries."
        let failed = platform.get("/v1/partner/onboarding?state=failed").await.json();
        assert_eq!((&failed["items"][0]["external_id"], &failed["items"][1]), (&json!("u-3"), &Value::Null));
        let path = format!("/v1/partner/users/{}", stored[1].1);
        platform.call("PATCH", &path, json!({ "email": "hopper@school.test" })).await;
        let retry = format!("/v1/partner/onboarding/{}/retry", text(&failed, "/items/0/id"));
        assert_eq!(platform.call("POST", &retry, Value::Null).await.status, 200);

        // "Mapping users between systems."
        for (own_id, id, _) in &stored {
            let found = platform.get(&format!("/v1/partner/users?external_id={own_id}")).await.json();
            assert_eq!(text(&found, "/items/0/id"), *id);
        }
        let introspected = provider.introspect("acme", &stored[0].2).await;
        assert_eq!((&introspected["external_id"], &introspected["sub"]), (&json!("u-1"), &json!(stored[0].1)));

        // Who never got going?
        provider.app.store.flush_key_uses().await.expect("noted");
        let states = platform.get("/v1/partner/onboarding").await.json();
        let states: Vec<String> =
            states["items"].as_array().expect("items").iter().map(|item| text(item, "/state")).collect();
        assert_eq!(states, ["first_auth", "first_auth", "mail_queued"]);

        // The platform closes an account, and it is closed everywhere.
        platform.call("POST", &format!("{path}/disable"), Value::Null).await;
        assert_eq!(provider.bearer("GET", "/v1/me", &stored[1].2).await.status, 401);
        assert_eq!(provider.bearer("GET", "/v1/me", &stored[0].2).await.status, 200);
    }
}
