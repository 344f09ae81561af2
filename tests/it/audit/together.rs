//! A change and its event are one: while events cannot be written, nothing else is.

use http::StatusCode;
use keyward::account::declared::hash_new_password;
use keyward::account::{clients, people};
use keyward::crypto::secret::Secret;
use keyward::protocol::ids::ClientId;
use serde_json::{Value, json};
use sqlx::Connection as _;

use super::put;
use crate::login::is_signed_in;
use crate::on_both_databases;
use crate::partner::{Platform, text};
use crate::support::{Provider, json as api};

/// Takes the trail away, or puts it back.
async fn set_trail(provider: &Provider, there: bool) {
    let sql =
        if there { "ALTER TABLE events_away RENAME TO events" } else { "ALTER TABLE events RENAME TO events_away" };
    let mut conn = provider.connection().await;
    sqlx::query(sql).execute(&mut conn).await.expect("renamed");
    conn.close().await.expect("closed");
}

async fn rows(provider: &Provider) -> Vec<(String, i64)> {
    let mut counts = provider.row_counts().await;
    // A try to sign in is counted whatever becomes of it.
    counts.retain(|(table, _)| table != "limits");
    counts.iter_mut().filter(|(table, _)| table == "events_away").for_each(|(table, _)| *table = "events".to_owned());
    counts.sort();
    counts
}

on_both_databases! {
    async fn a_sign_in_that_cannot_be_told_is_none(provider: Provider) {
        let mut browser = provider.browser();
        let before = rows(&provider).await;
        set_trail(&provider, false).await;
        let page = provider.sign_in(&mut browser).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.body);
        assert!(!is_signed_in(&provider, &mut browser).await);
        assert_eq!(rows(&provider).await, before);
        set_trail(&provider, true).await;
        provider.sign_in(&mut browser).await;
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    async fn a_sign_out_that_cannot_be_told_is_none(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let confirm = browser.get("/logout").await;
        set_trail(&provider, false).await;
        let page = browser.submit(&confirm, &[("action", "logout")]).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.body);
        assert!(is_signed_in(&provider, &mut browser).await, "and nobody was told otherwise");
        set_trail(&provider, true).await;
        browser.submit(&confirm, &[("action", "logout")]).await;
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn a_password_that_cannot_be_told_is_not_set(provider: Provider) {
        let alice = provider.user_id("alice").await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let hash = hash_new_password(&provider.app, Secret::new("another horse".to_owned())).await.expect("a hash");
        set_trail(&provider, false).await;
        people::set_password(&provider.app, &alice, hash.clone()).await.expect_err("not told");
        people::set_enabled(&provider.app, &alice, false).await.expect_err("not told");
        people::set_roles(&provider.app, &alice, vec!["teacher".to_owned()]).await.expect_err("not told");
        people::delete(&provider.app, &alice).await.expect_err("not told");
        set_trail(&provider, true).await;
        assert!(is_signed_in(&provider, &mut browser).await);
        let user = provider.app.store.user(&alice).await.expect("an answer").expect("alice");
        assert_eq!((user.is_active(), user.roles), (true, vec!["student".to_owned()]));
        let mut other = provider.browser();
        provider.sign_in(&mut other).await;
        assert!(is_signed_in(&provider, &mut other).await, "by the password of before");
        assert!(people::set_password(&provider.app, &alice, hash).await.expect("set"));
        assert!(!is_signed_in(&provider, &mut other).await);
    }

    async fn a_key_whose_end_cannot_be_told_lives_on_and_one_whose_beginning_cannot_is_not_made(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let made = api(&mut browser, "POST", "/v1/me/api-keys", json!({ "name": "laptop" }), &[]).await.json();
        let (kid, key) = (text(&made, "/api_key/id"), text(&made, "/api_key/key"));
        let path = format!("/v1/me/api-keys/{kid}");
        let before = rows(&provider).await;
        set_trail(&provider, false).await;
        for (method, path, body) in [
            ("DELETE", path.clone(), Value::Null),
            ("POST", format!("{path}/rotate"), json!({ "overlap_seconds": 0 })),
            ("POST", "/v1/me/api-keys".to_owned(), json!({ "name": "second" })),
        ] {
            let page = api(&mut browser, method, &path, body, &[]).await;
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{method} {path}: {}", page.body);
        }
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 200);
        assert_eq!(rows(&provider).await, before);
        set_trail(&provider, true).await;
        assert_eq!(api(&mut browser, "DELETE", &path, Value::Null, &[]).await.status, 204);
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 401);
    }

    async fn tokens_whose_end_cannot_be_told_live_on(provider: Provider) {
        let tokens = provider.tokens("openid offline_access").await;
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        set_trail(&provider, false).await;
        for token in [&access, &refresh] {
            assert_eq!(provider.call("first", "/revoke", &[("token", token)]).await.status, 503);
        }
        assert_eq!(provider.userinfo(&access).await.status, 200);
        // What writes no event goes on.
        assert_eq!(provider.refresh("first", &refresh).await.status, 200);
        set_trail(&provider, true).await;
        assert_eq!(provider.call("first", "/revoke", &[("token", &refresh)]).await.status, 200);
        assert_eq!(provider.userinfo(&access).await.status, 401);
    }

    async fn consent_that_cannot_be_told_is_not_given(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let page = browser.get(&provider.authorize_url_for("web", "scope=openid+email")).await;
        let consent = browser.follow(page).await;
        let before = rows(&provider).await;
        set_trail(&provider, false).await;
        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.body);
        assert_eq!(rows(&provider).await, before);
        set_trail(&provider, true).await;
        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        assert!(browser.follow(page).await.location_params().contains_key("code"));
    }

    async fn an_app_whose_change_cannot_be_told_stays_as_it_is(provider: Provider) {
        let id = ClientId::new("first");
        let before = provider.app.store.client(&id).await.expect("an answer").expect("first");
        let mut record = (*before).clone();
        record.client.metadata.client_name = Some("Renamed".to_owned());
        record.client.disabled_at = Some(provider.app.now());
        set_trail(&provider, false).await;
        put(&provider.app, record.clone()).await.expect_err("not told");
        clients::delete(&provider.app, &id).await.expect_err("not told");
        let after = provider.app.store.client(&id).await.expect("an answer").expect("first");
        assert_eq!(after, before);
        set_trail(&provider, true).await;
        assert!(put(&provider.app, record).await.expect("changed"));
        assert!(!provider.app.store.client(&id).await.expect("an answer").expect("first").client.is_enabled());
    }

    async fn a_partner_makes_nobody_who_cannot_be_told(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let before = rows(&provider).await;
        set_trail(&provider, false).await;
        let page = acme.register("p-1", "pia@example.com").await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.body);
        assert_eq!(rows(&provider).await, before);
        set_trail(&provider, true).await;
        acme.registered("p-1", "pia@example.com").await;
    }
}
