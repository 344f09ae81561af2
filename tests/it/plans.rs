//! What PostgreSQL reads for us.

use keyward::protocol::ids::UserId;
use keyward::protocol::time::Span;
use keyward::store::events::Filter;
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection as _, Row as _};

use crate::partner::{Platform, text};
use crate::support::process::wait_for;
use crate::support::{Backend, Provider};

/// Statistics from when some dozens of people were there, and a partner that is newer than they: the plans that are made
/// then, and kept, must not read more with every row that is added.
#[tokio::test]
async fn what_is_read_does_not_grow_with_what_is_there() {
    let mut provider = Provider::start(Backend::Postgres).await;
    let mut conn = provider.connection().await;
    a_day(&provider, "acme", 80).await;
    end(&provider, &mut conn).await;
    // What is kept for a while only is all gone at times.
    for sql in [
        "DELETE FROM idempotency",
        "DELETE FROM links",
        "DELETE FROM pushed_requests",
        "VACUUM ANALYZE",
        "SELECT pg_stat_reset()",
    ] {
        sqlx::query(sql).execute(&mut conn).await.expect("statistics");
    }
    (provider.app, provider.router) = provider.second().await;
    a_day(&provider, "globex", 150).await;
    end(&provider, &mut conn).await;
    let sql = "SELECT relname || ' by ' || indexrelname AS way, idx_scan AS scans, idx_tup_read AS rows_read
                   FROM pg_stat_user_indexes
               UNION ALL SELECT relname || ' as a whole', seq_scan, seq_tup_read FROM pg_stat_user_tables";
    let rows = sqlx::query(sql).fetch_all(&mut conn).await.expect("statistics");
    let ways = rows.iter().map(|row| (row.get("way"), row.get("scans"), row.get("rows_read")));
    let ways: Vec<(String, i64, i64)> = ways.collect();
    // The longest pages have four rows. Those that were deleted above are among them.
    let walks: Vec<_> = ways.iter().filter(|(_, scans, rows)| *rows > 100 + 4 * scans).collect();
    assert!(walks.is_empty(), "{walks:?}");
    assert!(ways.iter().any(|(way, scans, _)| way == "users by users_pkey" && *scans > 1000), "{ways:?}");
    conn.close().await.expect("closed");
}

/// What an app and a partner do all day.
async fn a_day(provider: &Provider, partner: &str, rounds: usize) {
    let platform = Platform::of(provider, partner).await;
    let mut browser = provider.browser();
    for round in 0..rounds {
        let external_id = format!("person-{round}");
        let wish = json!({ "external_id": external_id, "email": format!("{external_id}@b.c") });
        let again = [("idempotency-key", external_id.as_str())];
        let made = platform.call_with("POST", "/v1/partner/users", wish.clone(), &again).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let answered = platform.call_with("POST", "/v1/partner/users", wish, &again).await;
        let made = made.json();
        assert_eq!(answered.json(), made);
        let (id, key) = (text(&made, "/user/id"), text(&made, "/api_key/key"));
        for path in [
            format!("/v1/partner/users/{id}"),
            format!("/v1/partner/users/{id}/api-keys"),
            format!("/v1/partner/users?external_id={external_id}"),
            format!("/v1/partner/users?email={external_id}@b.c"),
            "/v1/partner/users?limit=3".to_owned(),
            "/v1/partner/onboarding?limit=3".to_owned(),
        ] {
            assert_eq!(platform.get(&path).await.status, 200, "{path}");
        }
        let fields =
            [("grant_type", "urn:keyward:oauth:grant-type:api-key"), ("api_key", key.as_str()), ("scope", "openid")];
        let tokens = provider.token(partner, &fields).await;
        for (path, credential) in
            [("/v1/me", &key), ("/userinfo", &tokens.text("access_token")), ("/forward-auth/optional", &key)]
        {
            assert_eq!(provider.bearer("GET", path, credential).await.status, 200, "{path}");
        }
        let code = provider.code(&mut browser, &provider.authorize_url("scope=openid+offline_access")).await;
        let tokens = provider.redeem(&code).await;
        assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.status, 200);
        let offer = platform.call("POST", &format!("/v1/partner/users/{id}/browser-handoff"), Value::Null).await;
        let link = text(&offer.json(), "/url");
        let mut other = provider.browser();
        let page = other.get(&link).await;
        assert_eq!(other.submit(&page, &[]).await.status, 303);
        // So long that it is kept here until somebody has signed in.
        let url = provider.authorize_url(&format!("prompt=login&state={}", "s".repeat(2000)));
        let mut other = provider.browser_from(&format!("192.0.2.{round}"));
        let parked = other.get(&url).await;
        assert_eq!(other.get(parked.location()).await.status, 200);
        at_the_desk(provider, UserId::new(id)).await;
        // What is remembered for a second is asked for again.
        provider.pass(Span::from_secs(2));
    }
}

/// What an operator asks about somebody.
async fn at_the_desk(provider: &Provider, user: UserId) {
    let store = &provider.app.store;
    assert!(store.namesakes(Some(&user), None, None).await.expect("an answer").id_given);
    let sessions = store.sessions(Some(&user), None, 10, Span::days(1), provider.app.now()).await.expect("sessions");
    assert_eq!(sessions.len(), 1);
    let hers = Filter { user_id: Some(user), ..Filter::default() };
    assert!(!store.events(&hers, 10).await.expect("events").is_empty());
}

/// Until the server has counted all that was read: a connection tells of it at the latest when it ends.
async fn end(provider: &Provider, conn: &mut AnyConnection) {
    provider.app.store.close().await;
    let sql =
        "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    wait_for("the end of the connections", async || {
        let others: i64 = sqlx::query(sql).fetch_one(&mut *conn).await.expect("a count").get("n");
        (others == 0).then_some(())
    })
    .await;
}
