//! `keyward event list` as the built program, beside a provider that runs; and what it counts.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::{AnyConnection, Connection as _};

use crate::support::process::{Ran, Running, SITE_PASSWORD, Site, free_port, over_the_wire};
use crate::support::prometheus::Metrics;
use crate::support::{Backend, Browser};

fn kinds(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|event| event["kind"].as_str().expect("a kind")).collect()
}

async fn site_on(backend: Backend) -> (Site, String) {
    let site = Site::empty();
    let url = backend.create(site.dir.path()).await;
    site.configure(&site.default_config(&format!("[database]\nurl = \"{url}\"\n")));
    (site, url)
}

async fn an_operator_finds_what_happened(backend: Backend) {
    let (site, _) = site_on(backend).await;
    assert_eq!(
        kinds(&site.json(&["event", "list", "--kind", "signed_in"]).await),
        [""; 0],
        "an empty list, and no error"
    );
    let _running = site.serve().await;
    site.run_with(&["user", "create", "--username", "bob", "--password-stdin"], "bobs long horse\n").await.ok();
    let mut browser = site.browser();
    site.sign_in(&mut browser, "bob", "not his horse").await;
    site.sign_in(&mut browser, "bob", "bobs long horse").await;
    site.sign_in(&mut site.browser(), "alice", SITE_PASSWORD).await;
    site.run_with(&["user", "set-password", "bob"], "bobs other horse\n").await.ok();

    let bobs = site.json(&["event", "list", "--user", "bob"]).await;
    assert_eq!(kinds(&bobs), ["password_changed", "signed_in", "sign_in_failed", "user_created"]);
    let members: BTreeSet<&str> = bobs[1].as_object().expect("members").keys().map(String::as_str).collect();
    let expected = ["address", "at", "client_id", "detail", "id", "kind", "user", "user_id"];
    assert_eq!(members, BTreeSet::from(expected));
    assert_eq!((&bobs[1]["user"], &bobs[1]["address"]), (&"bob".into(), &"127.0.0.1".into()));
    assert_eq!(bobs[1]["detail"]["method"], "password");
    let table = site.run(&["event", "list", "--user", "bob"]).await.ok().stdout;
    assert!(table.starts_with("AT") && table.lines().count() == 5, "{table}");
    assert!(table.contains("password_changed") && table.contains("by=operator"), "{table}");

    for (args, expected) in [
        (&["--kind", "user_created", "--kind", "password_changed"][..], &["password_changed", "user_created"][..]),
        (&["--kind", "signed_in", "--address", "127.0.0.1"], &["signed_in"]),
        (&["--address", "192.0.2.1"], &[]),
        (&["--since", "1h", "--kind", "signed_in"], &["signed_in"]),
        (&["--until", "1h"], &[]),
        (&["--until", "2020-01-01T00:00:00Z"], &[]),
        (&["--since", "2020-01-01T00:00:00+02:00", "--kind", "sign_in_failed"], &["sign_in_failed"]),
        (&["--client", "web"], &[]),
    ] {
        let args = [&["event", "list", "--user", "bob"], args].concat();
        assert_eq!(kinds(&site.json(&args).await), expected, "{args:?}");
    }
    assert_eq!(kinds(&site.json(&["event", "list", "--client", "web"]).await), ["client_created"]);

    // Page by page, as the list itself says.
    let all = site.json(&["event", "list"]).await;
    let (mut seen, mut before) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["--output", "json", "event", "list", "--limit", "2"];
        args.extend(before.as_ref().map(|id| ["--before", id.as_str()]).into_iter().flatten());
        let Ran { stdout, stderr, .. } = site.run(&args).await.ok();
        let page: Vec<Value> = serde_json::from_str(&stdout).expect("JSON");
        let next = stderr.split("--before ").nth(1).map(|id| id.trim().to_owned());
        assert_eq!(next.is_some(), page.len() == 2, "{stderr}");
        seen.extend(page);
        before = next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(Value::Array(seen), all);

    // Somebody who is gone goes by their id.
    let id = bobs[0]["user_id"].as_str().expect("an id").to_owned();
    site.run(&["user", "delete", "bob", "--yes"]).await.ok();
    let his = site.json(&["event", "list", "--user", &id]).await;
    assert_eq!(kinds(&his)[..2], ["user_deleted", "password_changed"]);
    assert_eq!(his[0]["user"], id.as_str());
    site.run(&["event", "list", "--user", "bob"]).await.refused(&["bob", "user list"]);
    site.run(&["event", "list", "--client", "nobody"]).await.refused(&["nobody", "client list"]);
    site.run(&["event", "list", "--before", "nothing"]).await.refused(&["nothing"]);
    for (flag, value, said) in
        [("--kind", "signed", "signed_in"), ("--since", "yesterday", "7d"), ("--address", "home", "address")]
    {
        let ran = site.run(&["event", "list", flag, value]).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
}

#[tokio::test]
async fn an_operator_finds_what_happened_on_sqlite() {
    an_operator_finds_what_happened(Backend::Sqlite).await;
}

#[tokio::test]
async fn an_operator_finds_what_happened_on_postgres() {
    an_operator_finds_what_happened(Backend::Postgres).await;
}

/// Counted once for each that is there, and not for one that was taken back.
async fn what_is_counted_is_what_is_written(backend: Backend) {
    const EVENTS: &str = "keyward_audit_events_total";
    let (site, url) = site_on(backend).await;
    let admin_port = free_port();
    let mut command = site.command(&["serve"]);
    command.env("KEYWARD_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}"));
    let mut running = Running::start(command, "");
    site.answers(&mut running).await;
    let base = format!("http://127.0.0.1:{admin_port}");
    let mut admin = Browser::new(over_the_wire(&base), &base);
    let mut count = async |kind: &str| {
        let metrics = Metrics::parse(&admin.get("/metrics").await.body);
        assert!(metrics.label_values(EVENTS, "event").contains("master_key_changed"), "all are there from the start");
        metrics.value(EVENTS, &[("event", kind)])
    };
    assert_eq!((count("client_created").await, count("user_created").await), (1.0, 1.0), "the declared ones");
    let mut browser = site.browser();
    site.sign_in(&mut browser, "alice", SITE_PASSWORD).await;
    site.sign_in(&mut site.browser(), "alice", "not her horse").await;
    assert_eq!((count("signed_in").await, count("sign_in_failed").await), (1.0, 1.0));

    sqlx::any::install_default_drivers();
    let mut conn = AnyConnection::connect(&url).await.expect("the database");
    sqlx::query("ALTER TABLE events RENAME TO events_away").execute(&mut conn).await.expect("renamed");
    let mut other = site.browser();
    let page = site.sign_in(&mut other, "alice", SITE_PASSWORD).await;
    assert_eq!(page.status, 503, "{}", page.body);
    sqlx::query("ALTER TABLE events_away RENAME TO events").execute(&mut conn).await.expect("renamed");
    conn.close().await.expect("closed");
    assert_eq!(count("signed_in").await, 1.0);
    site.sign_in(&mut other, "alice", SITE_PASSWORD).await;
    assert_eq!(count("signed_in").await, 2.0);
    let listed = site.json(&["event", "list", "--kind", "signed_in"]).await;
    assert_eq!(kinds(&listed).len(), 2);
}

#[tokio::test]
async fn what_is_counted_is_what_is_written_on_sqlite() {
    what_is_counted_is_what_is_written(Backend::Sqlite).await;
}

#[tokio::test]
async fn what_is_counted_is_what_is_written_on_postgres() {
    what_is_counted_is_what_is_written(Backend::Postgres).await;
}
