//! `/token`, `/userinfo`, `/introspect` and `/revoke`: what is granted, and how it goes on.

use http::Method;
use keyward::protocol::time::Span;
use serde_json::json;

use crate::on_both_databases;
use crate::support::audit::put_client;
use crate::support::claims_of;
use crate::support::process::within_a_second;

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
        let first = provider.spa_tokens().await.text("refresh_token");
        let second = provider.refresh("spa", &first).await.text("refresh_token");
        assert_ne!(first, second);
        assert_eq!(provider.refresh("spa", &first).await.text("refresh_token"), second, "the same successor");
        let third = provider.refresh("spa", &second).await.text("refresh_token");
        assert_ne!(second, third);
    }

    async fn claims_of_scopes_stand_in_the_id_token_for_clients_that_want_them(provider: Provider) {
        let id = keyward::protocol::ids::ClientId::new("first");
        let mut record = provider.app.store.client(&id).await.unwrap().unwrap().as_ref().clone();
        record.client.metadata.id_token_claims = keyward::protocol::client::IdTokenClaims::Scopes;
        assert!(put_client(&provider.app.store, record, provider.app.now()).await.unwrap());
        let tokens = provider.tokens("openid email").await;
        let claims = claims_of(&tokens.text("id_token"));
        assert_eq!(claims["email"], "alice@example.com");
        assert!(claims.get("name").is_none());
    }

    async fn two_processes_share_grants_and_revocations(provider: Provider) {
        let tokens = provider.spa_tokens().await;
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
