//! What PostgreSQL reads for us.

use futures_util::future::join_all;
use keyward::protocol::ids::UserId;
use keyward::protocol::time::Span;
use keyward::store::events::Filter;
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection as _, Row as _};

use crate::partner::{Platform, text};
use crate::store::{FAR, NOW, new_grant, somebody};
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
    let ways = ways(&mut conn).await;
    // The longest pages have four rows. Those that were deleted above are among them.
    assert_eq!(walks(&ways, 4), []);
    assert!(ways.iter().any(|way| way.name == "users by users_pkey" && way.scans > 1000), "{ways:?}");
    conn.close().await.expect("closed");
}

/// The first hour of a new installation: nobody has counted the tables yet, and everybody comes at once.
#[tokio::test]
async fn a_rush_on_new_tables_reads_what_it_asks_for() {
    let provider = Provider::start(Backend::Postgres).await;
    let mut conn = provider.connection().await;
    let store = &provider.app.store;
    for _ in 0..3 {
        let people = join_all((0..200).map(|_| somebody(store))).await;
        let grants = join_all(people.iter().map(|user| new_grant(store, user, None))).await;
        let redeemed = grants.iter().map(|id| store.redeem_code(id.clone(), Some(FAR), FAR, NOW));
        assert!(join_all(redeemed).await.into_iter().all(|done| done.expect("redeemed")));
        let found = join_all(grants.iter().map(|id| store.grant(id))).await;
        assert!(found.into_iter().all(|grant| grant.expect("an answer").is_some()));
        let rotated = grants.iter().map(|id| store.rotate_refresh(id.clone(), 0, NOW));
        assert!(join_all(rotated).await.into_iter().all(|done| done.expect("rotated")));
    }
    end(&provider, &mut conn).await;
    let ways = ways(&mut conn).await;
    // What was there before a change is at times seen as well.
    assert_eq!(walks(&ways, 2), []);
    assert!(ways.iter().any(|way| way.name == "grants by grants_pkey" && way.scans > 1000), "{ways:?}");
    conn.close().await.expect("closed");
}

/// A way to the rows of a table: how often the server went it, and how many rows it read there.
#[derive(Clone, Debug, PartialEq)]
struct Way {
    name: String,
    scans: i64,
    rows: i64,
}

async fn ways(conn: &mut AnyConnection) -> Vec<Way> {
    let sql = "SELECT relname || ' by ' || indexrelname AS name, idx_scan AS scans, idx_tup_read AS rows_read
                   FROM pg_stat_user_indexes
               UNION ALL SELECT relname || ' as a whole', seq_scan, seq_tup_read FROM pg_stat_user_tables";
    let rows = sqlx::query(sql).fetch_all(conn).await.expect("statistics");
    rows.iter().map(|row| Way { name: row.get("name"), scans: row.get("scans"), rows: row.get("rows_read") }).collect()
}

/// Those that read more than `each` rows every time.
fn walks(ways: &[Way], each: i64) -> Vec<Way> {
    ways.iter().filter(|way| way.rows > 100 + each * way.scans).cloned().collect()
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
