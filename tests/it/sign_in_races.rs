//! Sign-ins that meet each other, an upgrade of the hash, or a change of keys.

use keyward::account::signing_keys;
use keyward::crypto::password::{self, Cost};
use keyward::crypto::secret::Secret;
use keyward::protocol::client::SigningAlg;
use keyward::protocol::ids::UserId;
use keyward::protocol::time::Span;
use keyward::protocol::user::LoginName;
use keyward::store::events::Filter;
use keyward::store::users::REALM_DIRECT;
use serde_json::json;

use crate::audit::line;
use crate::on_both_databases;
use crate::support::process::wait_for;
use crate::support::{Page, Provider, json as call};

/// A sign-in at the device API, from a browser of its own at the same address.
async fn log_in(provider: &Provider, password: &str) -> Page {
    let body = json!({ "email": "alice@example.com", "password": password });
    call(&mut provider.browser(), "POST", "/auth/login", body, &[]).await
}

async fn at_once(provider: &Provider, passwords: &[&str]) -> Vec<u16> {
    let sign_ins = passwords.iter().map(|password| log_in(provider, password));
    futures_util::future::join_all(sign_ins).await.iter().map(|page| page.status.as_u16()).collect()
}

async fn register(provider: &Provider, name: &str) -> String {
    let email = format!("{name}@example.com");
    let body = json!({ "email": email, "password": "s3cur3pass", "deviceId": name });
    let page = call(&mut provider.browser(), "POST", "/auth/register", body, &[]).await;
    assert_eq!(page.status, 201, "{}", page.body);
    format!("Bearer {}", page.json()["data"]["access_token"].as_str().expect("a token"))
}

on_both_databases! {
    /// They take the same places and give them back in another order than they came.
    async fn right_and_wrong_passwords_at_once_never_wait_for_each_other(provider: Provider) {
        let generous = "[rate_limits]\nlogin = { attempts = 1000, window = \"15m\" }";
        let provider = Provider::start_with(provider.backend(), "https://id.test", generous).await;
        for _ in 0..4 {
            let passwords: Vec<&str> = ["correct horse", "wrong horse"].into_iter().cycle().take(50).collect();
            let expected: Vec<u16> = [200, 401].into_iter().cycle().take(50).collect();
            assert_eq!(at_once(&provider, &passwords).await, expected);
        }
    }

    /// Whoever comes back as soon as they may meets the removal of what they had tried before.
    async fn what_is_removed_makes_nobody_wait(provider: Provider) {
        for round in 0..6 {
            let passwords = ["wrong horse"; 4];
            assert_eq!(at_once(&provider, &passwords).await, [401; 4], "round {round}");
            provider.pass(Span::minutes(61));
            let purge = async {
                for _ in 0..20 {
                    provider.app.store.purge_expired(Span::days(90), provider.app.now()).await.expect("removed");
                }
            };
            let (statuses, ()) = tokio::join!(at_once(&provider, &passwords), purge);
            assert_eq!(statuses, [401; 4], "round {round}");
            provider.pass(Span::minutes(61));
        }
    }

    /// Whoever hangs up has tried all the same, and the trail says so.
    async fn a_password_that_nobody_waited_for_was_tried(provider: Provider) {
        let attempt = async {
            log_in(&provider, "wrong horse").await;
        };
        // Dropped as soon as the password is being looked at.
        let looked_at = wait_for("the hash to begin", async || (provider.app.passwords.load().0 > 0).then_some(()));
        tokio::select! {
            () = attempt => {}
            () = looked_at => {}
        }
        let failed = async || {
            let events = provider.app.store.events(&Filter::default(), 100).await.expect("events");
            events.into_iter().find(|event| event.kind == "sign_in_failed")
        };
        let told = wait_for("the event", failed).await;
        assert_eq!(line(&told), "sign_in_failed alice <game> @127.0.0.1");
    }

    async fn many_sign_ins_that_make_an_old_hash_anew_are_all_let_in(provider: Provider) {
        let id = provider.user_id("alice").await;
        let cheap = Cost { memory_kib: 1024, iterations: 1 };
        let old = Secret::new(password::hash("correct horse", &[7; 16], cheap).expect("a hash"));
        let name = LoginName::Username("alice".to_owned());
        let stored = async || {
            let (_, password) = provider.app.store.user_by_login(REALM_DIRECT, &name).await.expect("an answer").expect("alice");
            password.expect("a password").hash.expose().clone()
        };
        let todays = stored().await;
        provider.app.store.upgrade_password_hash(id, Secret::new(todays.clone()), old.clone()).await.expect("replaced");
        assert_eq!(stored().await, *old.expose());
        // As many as there are tries: each holds one until it is through.
        assert_eq!(at_once(&provider, &["correct horse"; 5]).await, [200; 5]);
        let anew = stored().await;
        assert!(anew != *old.expose() && anew.contains("m=8192,t=1"), "{anew}");
    }

    /// The APIs' own lifetimes count where their clients have none.
    async fn a_key_is_recognised_for_as_long_as_the_tokens_of_players_last(provider: Provider) {
        let bearer = register(&provider, "device-1").await;
        signing_keys::rotate(&provider.app, SigningAlg::Rs256, true).await.expect("rotated");
        for days in [0, 15, 14] {
            provider.pass(Span::days(days));
            signing_keys::maintain(&provider.app).await.expect("maintained");
            let page = call(&mut provider.browser(), "PATCH", "/auth/me", json!({}), &[("authorization", &bearer)]).await;
            assert_eq!(page.status, 200, "after {days} more days: {}", page.body);
        }
        provider.pass(Span::days(1));
        let page = call(&mut provider.browser(), "PATCH", "/auth/me", json!({}), &[("authorization", &bearer)]).await;
        assert_eq!(page.status, 401);
    }

    async fn a_token_of_another_app_is_invalid_and_never_expired(provider: Provider) {
        let foreign = register(&provider, "device-2").await;
        let new = json!({ "username": "ada", "password": "lovelace", "confirmPassword": "lovelace" });
        let page = call(&mut provider.browser(), "POST", "/api/auth/signup", new, &[]).await;
        let own = format!("Bearer {}", page.json()["token"].as_str().expect("a token"));
        for (days, expected) in [(0, ["Invalid token", ""]), (40, ["Invalid token", "Token expired"])] {
            provider.pass(Span::days(days));
            for (bearer, expected) in [&foreign, &own].into_iter().zip(expected) {
                let page = call(&mut provider.browser(), "GET", "/api/auth/me", json!(null), &[("authorization", bearer)]).await;
                assert_eq!(page.json()["error"].as_str().unwrap_or_default(), expected);
            }
        }
    }

    /// What ended makes room first.
    async fn sign_ins_that_were_ended_end_no_others(provider: Provider) {
        let phone = register(&provider, "device-3").await;
        let id = UserId::new("device-3");
        let log_in = async || {
            let body = json!({ "email": "device-3@example.com", "password": "s3cur3pass" });
            let page = call(&mut provider.browser(), "POST", "/auth/login", body, &[]).await;
            assert_eq!(page.status, 200, "{}", page.body);
            page.json()["data"]["refresh_token"].as_str().expect("a token").to_owned()
        };
        let is_in = async || {
            let page = call(&mut provider.browser(), "PATCH", "/auth/me", json!({}), &[("authorization", &phone)]).await;
            page.status == 200
        };
        for _ in 0..110 {
            let token = log_in().await;
            let fields = [("client_id", "game"), ("token", token.as_str())];
            assert_eq!(provider.browser().post("/revoke", &fields).await.status, 200);
        }
        assert!(is_in().await);
        // Those that live end the oldest when there are too many.
        for _ in 0..100 {
            log_in().await;
        }
        assert!(!is_in().await);
        assert!(provider.app.store.user(&id).await.expect("an answer").is_some());
    }
}
