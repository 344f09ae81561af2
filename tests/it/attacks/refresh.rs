//! Refresh tokens: reused, stolen, mistaken for something else, outliving their cause. Many at once stand in
//! `races.rs`.

use keyward::crypto::secret::Secret;
use keyward::protocol::time::Span;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _};

use crate::authorize::{add_client, rows_of};
use crate::on_both_databases;
use crate::support::audit::told;
use crate::support::{Backend, Doors, Provider, spa_fields, spa_url};

/// From here on the database refuses to change a grant, or does so no longer.
async fn let_writes_fail(provider: &Provider, fail: bool) {
    let statements: &[&str] = match (provider.backend(), fail) {
        (Backend::Sqlite, true) => {
            &["CREATE TRIGGER refusal BEFORE UPDATE ON grants BEGIN SELECT RAISE(ABORT, 'no room'); END"]
        }
        (Backend::Sqlite, false) => &["DROP TRIGGER refusal"],
        (Backend::Postgres, true) => &[
            "CREATE FUNCTION refusal() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no room''; END'",
            "CREATE TRIGGER refusal BEFORE UPDATE ON grants FOR EACH ROW EXECUTE FUNCTION refusal()",
        ],
        (Backend::Postgres, false) => &["DROP TRIGGER refusal ON grants"],
    };
    let mut conn = provider.connection().await;
    for sql in statements {
        sqlx::query(AssertSqlSafe(*sql)).execute(&mut conn).await.expect("done");
    }
    conn.close().await.expect("closed");
}

on_both_databases! {
    async fn attacks_72_and_82_an_old_refresh_token_ends_the_grant(provider: Provider) {
        // Two generations old, within the window.
        let bystander = provider.spa_tokens().await;
        let tokens = provider.spa_tokens().await;
        let first = tokens.text("refresh_token");
        let second = provider.refresh("spa", &first).await.text("refresh_token");
        let third = provider.refresh("spa", &second).await;
        let access = third.text("access_token");
        assert_eq!(provider.userinfo(&access).await.status, 200);
        let events = rows_of(&provider, "events").await;
        assert_eq!(provider.refresh("spa", &first).await.error(), "invalid_grant");
        for refresh in [&third.text("refresh_token"), &second, &first] {
            assert_eq!(provider.refresh("spa", refresh).await.error(), "invalid_grant");
        }
        for access in [&access, &tokens.text("access_token")] {
            assert_eq!(provider.userinfo(access).await.status, 401);
        }
        assert_eq!(rows_of(&provider, "events").await, events + 1, "told once");

        // The parent, after the window.
        let first = provider.spa_tokens().await.text("refresh_token");
        let second = provider.refresh("spa", &first).await.text("refresh_token");
        provider.pass(Span::from_secs(61));
        assert_eq!(provider.refresh("spa", &first).await.error(), "invalid_grant");
        assert_eq!(provider.refresh("spa", &second).await.error(), "invalid_grant");

        // The parent within the window, once its successor was used.
        let first = provider.spa_tokens().await.text("refresh_token");
        let second = provider.refresh("spa", &first).await.text("refresh_token");
        assert_eq!(provider.refresh("spa", &first).await.text("refresh_token"), second, "a retry is no reuse");
        let third = provider.refresh("spa", &second).await.text("refresh_token");
        assert_eq!(provider.refresh("spa", &first).await.error(), "invalid_grant");
        assert_eq!(provider.refresh("spa", &third).await.error(), "invalid_grant");
        // What else this person has goes on.
        assert_eq!(provider.refresh("spa", &bystander.text("refresh_token")).await.status, 200);
    }

    /// A process remembers a grant from one refresh to the next, and goes by it only as far as the grant itself agrees.
    async fn what_another_process_did_to_a_grant_counts_at_the_next_refresh(provider: Provider) {
        let scope = "openid offline_access teach";
        provider.change_client("spa", |record| record.client.metadata.scope = scope.parse().expect("scopes")).await;
        let (elsewhere, router) = provider.second().await;
        let doors = Doors::new(vec![provider.router.clone(), router], &provider.issuer);
        let refresh = async |door: usize, token: &str| {
            // As the jobs do all the time; without it nothing is remembered for long.
            provider.app.store.poll_changes().await.expect("polled");
            elsewhere.store.poll_changes().await.expect("polled");
            doors.call(door, "spa", "/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
        };
        let chain = async |begin: String, doors: &[usize]| {
            let mut tokens = vec![begin];
            for door in doors {
                let answer = refresh(*door, tokens.last().expect("one")).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
                tokens.push(answer.text("refresh_token"));
            }
            assert!(provider.remembers(&tokens[0]));
            tokens
        };
        let begin = async || provider.spa_tokens().await.text("refresh_token");

        // By turns, and a retry at the other door.
        let tokens = chain(begin().await, &[0, 0, 1, 1, 0, 1, 0, 1]).await;
        let [.., parent, newest] = &tokens[..] else { panic!("a chain") };
        assert_eq!(refresh(0, parent).await.text("refresh_token"), *newest);
        assert_eq!(refresh(1, parent).await.text("refresh_token"), *newest);
        // What was used elsewhere is used, although it is the newest that is remembered here.
        let tokens = chain(begin().await, &[0, 0, 1, 1]).await;
        assert_eq!(refresh(0, &tokens[2]).await.error(), "invalid_grant");
        for door in [0, 1] {
            assert_eq!(refresh(door, &tokens[4]).await.error(), "invalid_grant", "reuse ends the grant");
        }
        // Revoked elsewhere.
        let tokens = chain(begin().await, &[0, 0]).await;
        assert_eq!(doors.call(1, "spa", "/revoke", &[("token", &tokens[2])]).await.status, 200);
        assert_eq!(refresh(0, &tokens[2]).await.error(), "invalid_grant");
        // What the person may do.
        let alice = provider.user_id("alice").await;
        let set = async |role: &str| {
            let roles = Some(vec![role.to_owned()]);
            assert!(elsewhere.store.set_roles(alice.clone(), roles, None, told(), provider.app.now()).await.expect("set"));
        };
        set("teacher").await;
        let url = spa_url(&provider.issuer, "openid+offline_access+teach");
        let code = provider.code(&mut provider.browser(), &url).await;
        let tokens = chain(provider.token("spa", &spa_fields(&code)).await.text("refresh_token"), &[0, 0]).await;
        let before = refresh(0, &tokens[2]).await;
        assert_eq!(before.text("scope"), scope);
        set("student").await;
        let after = refresh(0, &before.text("refresh_token")).await;
        assert_eq!(after.text("scope"), "openid offline_access");
        assert!(elsewhere.store.delete_user(alice.clone(), told()).await.expect("deleted"));
        assert_eq!(refresh(0, &after.text("refresh_token")).await.error(), "invalid_grant");
        assert!(!provider.remembers(&after.text("refresh_token")));
    }

    async fn attack_76_a_refresh_token_is_worth_nothing_to_another_client(provider: Provider) {
        let confidential = provider.tokens("openid offline_access").await;
        let public = provider.spa_tokens().await;
        let before = provider.row_counts().await;
        let thefts = [("other", &confidential), ("spa", &confidential), ("other", &public), ("first", &public)];
        for (thief, stolen) in thefts {
            let answer = provider.refresh(thief, &stolen.text("refresh_token")).await;
            assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{thief}");
        }
        // Nor does an old one in another's hands end the grant.
        let parent = public.text("refresh_token");
        let child = provider.refresh("spa", &parent).await.text("refresh_token");
        let leaf = provider.refresh("spa", &child).await.text("refresh_token");
        assert_eq!(provider.refresh("first", &parent).await.error(), "invalid_grant");
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(provider.refresh("first", &confidential.text("refresh_token")).await.status, 200);
        assert_eq!(provider.refresh("spa", &leaf).await.status, 200);
    }

    async fn attack_77_no_other_token_refreshes_and_a_refresh_token_opens_nothing_else(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url("scope=openid+offline_access")).await;
        let tokens = provider.redeem(&code).await;
        let refresh = tokens.text("refresh_token");
        let before = provider.row_counts().await;
        let (start, last) = refresh.split_at(refresh.len() - 1);
        let changed = format!("{start}{}", if last == "A" { "E" } else { "A" });
        let longer = format!("{refresh}AAAA");
        let access = tokens.text("access_token");
        let hint = tokens.text("id_token");
        for wrong in [&access, &hint, &code, &changed, &longer, &refresh[6..], "kw_rt_", "kw_rt_AAAA", ""] {
            let answer = provider.refresh("first", wrong).await;
            let expected = if wrong.is_empty() { "invalid_request" } else { "invalid_grant" };
            assert_eq!((answer.status, answer.error()), (400, expected), "{wrong}");
        }
        let page = provider.userinfo(&refresh).await;
        assert_eq!(page.status, 401);
        assert!(page.header("www-authenticate").is_some_and(|challenge| challenge.contains("invalid_token")));
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(provider.refresh("first", &refresh).await.status, 200);
        assert_eq!(provider.userinfo(&access).await.status, 200);
    }

    async fn attack_79_what_ends_a_person_s_access_ends_their_refresh_tokens(provider: Provider) {
        for end in ["new password", "disabled", "deleted"] {
            let mut browser = provider.browser();
            let url = provider.authorize_url("scope=openid+offline_access");
            let tokens = provider.redeem(&provider.code(&mut browser, &url).await).await;
            let begun = provider.spa_tokens().await;
            let rotating = provider.refresh("spa", &begun.text("refresh_token")).await;
            let mut bob = provider.browser();
            provider.sign_in_as(&mut bob, "bob", "battery staple").await;
            let of_bob = provider.redeem(&provider.code(&mut bob, &url).await).await;
            assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.status, 200);
            let (alice, now) = (provider.user_id("alice").await, provider.app.now());
            let store = &provider.app.store;
            let done = match end {
                "disabled" => store.set_user_disabled(alice.clone(), Some(now), told(), now).await,
                "deleted" => store.delete_user(alice.clone(), told()).await,
                _ => {
                    let hash = provider.app.passwords.hash(Secret::new("correct horse".to_owned()), [7; 16]).await;
                    let hash = hash.expect("no overload").expect("a hash");
                    store.set_password(alice.clone(), hash, told(), now).await
                }
            };
            assert!(done.expect("an answer"), "{end}");
            for (client, tokens) in [("first", &tokens), ("spa", &rotating)] {
                let answer = provider.refresh(client, &tokens.text("refresh_token")).await;
                assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{end}");
                assert_eq!(provider.userinfo(&tokens.text("access_token")).await.status, 401, "{end}");
                assert_eq!(provider.introspect("first", &tokens.text("refresh_token")).await, json!({"active": false}));
            }
            let page = browser.get(&provider.authorize_url("prompt=none")).await;
            assert_eq!(page.location_params()["error"], "login_required", "{end}");
            assert_eq!(provider.refresh("first", &of_bob.text("refresh_token")).await.status, 200, "{end}");
            if end == "disabled" {
                assert!(store.set_user_disabled(alice, None, told(), provider.app.now()).await.expect("an answer"));
                let answer = provider.refresh("first", &tokens.text("refresh_token")).await;
                assert_eq!(answer.error(), "invalid_grant", "what ended stays ended");
            }
        }
    }

    async fn attack_80_rotation_never_extends_a_refresh_token(provider: Provider) {
        let mut token = provider.spa_tokens().await.text("refresh_token");
        for _ in 0..5 {
            provider.pass(Span::days(5));
            token = provider.refresh("spa", &token).await.text("refresh_token");
        }
        provider.pass(Span::days(5));
        assert_eq!(provider.refresh("spa", &token).await.error(), "invalid_grant", "thirty days are over");

        // One that must not rest is alive while it is used, and not for longer than that.
        add_client(&provider, "restless", |client| {
            client.refresh_idle_ttl = Some(Span::days(7));
            client.refresh_token_ttl = Some(Span::days(20));
        })
        .await;
        let url = provider.authorize_url_for("restless", "scope=openid+offline_access");
        let fresh = async || {
            let code = provider.code(&mut provider.browser(), &url).await;
            provider.redeem_as("restless", &code).await.text("refresh_token")
        };
        let token = fresh().await;
        for _ in 0..3 {
            provider.pass(Span::days(6));
            assert_eq!(provider.refresh("restless", &token).await.status, 200);
        }
        provider.pass(Span::days(2));
        assert_eq!(provider.refresh("restless", &token).await.error(), "invalid_grant", "twenty days are over");
        let token = fresh().await;
        provider.pass(Span::days(7));
        assert_eq!(provider.refresh("restless", &token).await.error(), "invalid_grant", "it rested too long");
    }

    async fn attack_81_an_attempt_that_fails_uses_up_nothing(provider: Provider) {
        let always = "[tokens]\nrefresh_token_rotation = \"always\"\n";
        let provider = Provider::start_with(provider.backend(), "https://id.test", always).await;
        let first = provider.tokens("openid offline_access").await.text("refresh_token");
        let token = provider.refresh("first", &first).await.text("refresh_token");
        let grant = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        let before = provider.row_counts().await;
        for (status, fields) in [
            (401, &[("client_id", "first"), ("client_secret", "wrong")][..]),
            (401, &[("client_id", "first")]),
            (401, &[("client_id", "nobody"), ("client_secret", "first-secret")]),
        ] {
            let page = provider.browser().post("/token", &[&grant[..], fields].concat()).await;
            assert_eq!(page.status, status, "{fields:?}");
        }
        for (error, field) in [
            ("invalid_scope", ("scope", "openid profile")),
            ("invalid_scope", ("scope", "\"")),
            ("invalid_target", ("resource", "https://pay.test")),
            ("invalid_request", ("refresh_token", "twice")),
        ] {
            let answer = provider.token("first", &[&grant[..], &[field]].concat()).await;
            assert_eq!((answer.status, answer.error()), (400, error), "{field:?}");
        }
        // Our own fault least of all.
        let_writes_fail(&provider, true).await;
        for _ in 0..2 {
            let answer = provider.refresh("first", &token).await;
            assert!(provider.remembers(&token));
            assert_eq!((answer.status, answer.error()), (503, "temporarily_unavailable"), "{}", answer.body);
            assert!(answer.body.get("refresh_token").is_none() && answer.body.get("access_token").is_none());
        }
        let_writes_fail(&provider, false).await;
        assert_eq!(provider.row_counts().await, before);
        // None of these was the use that a later one would be a reuse of.
        let answer = provider.refresh("first", &token).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let next = provider.refresh("first", &answer.text("refresh_token")).await;
        assert_eq!(next.status, 200, "{}", next.body);
        assert_eq!(provider.refresh("first", &token).await.error(), "invalid_grant");
    }
}
