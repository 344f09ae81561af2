//! The built program: mail that leaves while it serves, that survives `kill -9` and a stop, and what an operator sees.

#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use keyward::store::Store;

use super::*;
use crate::support::process::{Running, Site, over_the_wire, wait_for};
use crate::support::prometheus::Metrics;
use crate::support::{Browser, Page, open_store};

const NOW: Timestamp = Timestamp(1);

/// A site whose mail goes to this server, and its database as another process sees it.
async fn site(backend: Backend, mail: &str) -> (Site, Store) {
    let site = Site::empty();
    let url = match backend {
        Backend::Sqlite => format!("sqlite://{}", site.path("keyward.db").display()),
        Backend::Postgres => backend.create(site.dir.path()).await,
    };
    site.configure(&site.default_config(&format!("[database]\nurl = \"{url}\"\n{mail}")));
    let store = open_store(&url).await.expect("a store");
    (site, store)
}

/// Queues a mail of nobody in particular that has been due for ever.
async fn queue(store: &Store, to: &str) -> String {
    let new = NewMail { partner: None, ..welcome(to) };
    let id = new.id.clone();
    store.queue_mail(new, NOW).await.expect("queued");
    id
}

async fn states(store: &Store) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for mail in store.mails(None, None, 10_000).await.expect("mails") {
        *counts.entry(mail.state.to_string()).or_default() += 1;
    }
    counts
}

async fn all_sent(store: &Store, many: usize) {
    wait_for("the end of all mail", async || (states(store).await.get("sent") == Some(&many)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_leaves_within_a_second_or_two_whoever_wrote_it() {
    for backend in Backend::BOTH {
        let server = MailServer::start().await;
        let (site, store) = site(backend, &server.plain_config()).await;
        let running = site.serve().await;
        for n in 1..=3 {
            let asked = Instant::now();
            queue(&store, &format!("ann{n}@school.test")).await;
            server.received(n).await;
            // Five times what it takes, for a machine that does much else.
            assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        }
        all_sent(&store, 3).await;
        let ran = running.terminate().await.ok();
        let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("school.test")).collect();
        assert_eq!(lines.len(), 3, "{}", ran.stderr);
        assert!(lines.iter().all(|line| line.contains("sent")), "{lines:?}");
        assert!(!ran.stderr.contains("ann1") && !ran.stderr.contains("Web <app>"), "{}", ran.stderr);
    }
}

/// Killed again and again in the middle of a crowd of mails: none is lost, and whatever arrives twice says so by its
/// `Message-ID`.
async fn every_mail_arrives_through_kills(backend: Backend) {
    const MANY: usize = 300;
    let server = MailServer::start().await;
    // What a killed process was at waits as long as this, and a little.
    let (site, store) = site(backend, &server.config("tls = \"none\"\ntimeout = \"8s\"")).await;
    let mut ids = HashSet::new();
    for n in 0..MANY {
        ids.insert(format!("<{}@127.0.0.1>", queue(&store, &format!("ann{n}@school.test")).await));
    }
    for round in 1..=3 {
        let running = site.serve().await;
        server.received(round * MANY / 10).await;
        running.kill().await;
    }
    let counts = states(&store).await;
    assert!(counts.get("sent").is_none_or(|sent| *sent < MANY), "killed in the middle: {counts:?}");
    let running = site.serve().await;
    all_sent(&store, MANY).await;
    let letters = server.letters();
    let seen: HashSet<String> = letters.iter().map(|letter| letter.header("Message-ID")).collect();
    assert_eq!(seen, ids, "each at least once");
    // Only what was under way at a kill may be there again: eight at a time.
    assert!(letters.len() - MANY <= 3 * 8, "{} letters", letters.len());
    running.terminate().await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mail_arrives_through_kills_on_sqlite() {
    every_mail_arrives_through_kills(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mail_arrives_through_kills_on_postgres() {
    every_mail_arrives_through_kills(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_told_to_stop_waits_for_mail_on_its_way() {
    let server = MailServer::start().await;
    let (site, store) = site(Backend::Sqlite, &server.plain_config()).await;
    let running = site.serve().await;
    queue(&store, "slow@school.test").await;
    wait_for("it to be on its way", async || states(&store).await.get("sending").map(|_| ())).await;
    running.terminate().await.ok();
    assert_eq!(server.letters().len(), 1);
    assert_eq!(states(&store).await, BTreeMap::from([("sent".to_owned(), 1)]));
    let running = site.serve().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    running.terminate().await.ok();
    assert_eq!(server.letters().len(), 1, "and is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_tests_mail_lists_it_and_sends_it_again() {
    let mut server = MailServer::start().await;
    let (site, store) = site(Backend::Sqlite, &server.plain_config()).await;
    let told = site.json(&["mail", "test", "--to", "ops@school.test"]).await;
    assert_eq!((&told["result"], &told["answer"]), (&"sent".into(), &"250 2.0.0 ok: queued".into()), "{told}");
    let letters = server.letters();
    assert_eq!(letters[0].header("Message-ID"), told["message_id"].as_str().expect("an id"));
    site.run(&["mail", "test", "--to", "nobody@school.test"]).await.refused(&["nobody@school.test", "550 5.1.1"]);
    site.run(&["mail", "test", "--to", "later@school.test"]).await.refused(&["451 4.7.1"]);
    site.run(&["mail", "test", "--to", "nowhere"]).await.refused(&["no address"]);
    server.set_away(true).await;
    site.run(&["mail", "test", "--to", "ops@school.test"]).await.refused(&[
        "mail cannot leave",
        "localhost",
        "refused",
    ]);
    assert!(store.mails(None, None, 10).await.expect("mails").is_empty(), "a test leaves no trace");

    let (waiting, dead) = (queue(&store, "ann@school.test").await, queue(&store, "nobody@school.test").await);
    server.set_away(false).await;
    let running = site.serve().await;
    server.received(2).await;
    wait_for("the end of both", async || (!states(&store).await.contains_key("sending")).then_some(())).await;
    let pick = |list: &serde_json::Value, id: &str| {
        list.as_array().expect("a list").iter().find(|mail| mail["id"] == id).cloned()
    };
    let found = site.json(&["mail", "list", "--state", "dead"]).await;
    assert!(pick(&found, &waiting).is_none(), "{found}");
    let one = pick(&found, &dead).expect("the dead one");
    assert_eq!(
        (&one["to"], &one["attempts"], &one["kind"]),
        (&"nobody@school.test".into(), &1.into(), &"welcome".into())
    );
    assert!(one["last_error"].as_str().is_some_and(|error| error.starts_with("mail_rejected: 550 5.1.1")), "{one}");
    let found = site.json(&["mail", "list", "--state", "sent"]).await;
    assert!(pick(&found, &waiting).is_some() && pick(&found, &dead).is_none(), "{found}");
    assert!(site.json(&["mail", "list", "--state", "pending"]).await.as_array().is_some_and(Vec::is_empty));
    let page = site.run(&["mail", "list", "--limit", "1"]).await.ok();
    assert!(page.stderr.contains("--after") && page.stdout.contains("LAST_ERROR"), "{page:?}");

    let again = site.json(&["mail", "retry", &dead]).await;
    assert_eq!(again["id"], dead.as_str(), "{again}");
    wait_for("its second end", async || {
        let mails = store.mails(Some(MailState::Dead), None, 10).await.expect("mails");
        mails.iter().any(|mail| mail.id == dead).then_some(())
    })
    .await;
    assert_eq!(site.json(&["mail", "retry", "--all"]).await["revived"], 1);
    site.run(&["mail", "retry", &waiting]).await.refused(&[&waiting, "sent already"]);
    site.run(&["mail", "retry", "none"]).await.refused(&["no mail `none`", "mail list"]);
    running.terminate().await.ok();
}

#[tokio::test]
async fn mail_can_be_tested_without_a_server_too() {
    let (site, _) = site(Backend::Sqlite, "").await;
    let told = site.json(&["mail", "test", "--to", "ops@school.test"]).await;
    let file = told["answer"].as_str().expect("a file");
    let text = std::fs::read_to_string(site.path(file)).expect("the letter");
    assert!(text.contains("To: ops@school.test\r\n") && text.contains("A test of the mail of Keyward"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_one_line_tell_of_a_server_that_refuses_us() {
    let server = MailServer::start_with(&["--user", "keyward", "--password", "s3cret"]).await;
    let wrong = server.config("tls = \"none\"\nusername = \"keyward\"\npassword = \"hunter2\"");
    let (site, store) = site(Backend::Sqlite, &wrong).await;
    let port = crate::support::process::free_port();
    let address = format!("127.0.0.1:{port}");
    let running = site.serve_with(&[("KEYWARD_ADMIN_LISTEN", &address)]).await;
    let url = format!("http://{address}");
    let mut admin = Browser::new(over_the_wire(&url), &url);
    for n in 0..3 {
        queue(&store, &format!("ann{n}@school.test")).await;
    }
    queue(&store, "nowhere").await;
    let level =
        |page: &Page, name: &str| Metrics::parse(&page.body).values.get(&(name.to_owned(), BTreeMap::new())).copied();
    let page = wait_for("the metrics", async || {
        let page = admin.get("/metrics").await;
        let counted = |outcome: &str| {
            let labels = BTreeMap::from([("outcome".to_owned(), outcome.to_owned())]);
            Metrics::parse(&page.body).values.get(&("keyward_mails_total".to_owned(), labels)).copied()
        };
        let tried = (counted("deferred"), counted("rejected")) == (Some(3.0), Some(1.0));
        let levels = (level(&page, "keyward_outbox_pending"), level(&page, "keyward_outbox_dead"));
        (tried && levels == (Some(3.0), Some(1.0))).then_some(page)
    })
    .await;
    assert_eq!(level(&page, "keyward_outbox_dead"), Some(1.0), "{}", page.body);
    assert!(level(&page, "keyward_outbox_oldest_seconds").is_some_and(|age| age > 1e6), "{}", page.body);
    for (outcome, expected) in [("deferred", 3.0), ("rejected", 1.0), ("sent", 0.0)] {
        let labels = BTreeMap::from([("outcome".to_owned(), outcome.to_owned())]);
        let found = Metrics::parse(&page.body).values.get(&("keyward_mails_total".to_owned(), labels)).copied();
        assert_eq!(found, Some(expected), "{outcome}: {}", page.body);
    }
    let ran = running.terminate().await.ok();
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("535"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_at_the_start() {
    let mail = "[mail]\ntransport = \"smtp\"\n[mail.smtp]\nhost = \"localhost\"\nca_file = \"none.pem\"\n";
    let (site, _) = site(Backend::Sqlite, mail).await;
    let ran = Running::start(site.command(&["serve"]), "").wait().await.refused(&["mail.smtp.ca_file", "none.pem"]);
    assert!(!ran.stderr.contains("panicked"));
    std::fs::write(site.path("none.pem"), "nothing of the kind").expect("written");
    site.run(&["serve"]).await.refused(&["mail.smtp.ca_file", "no certificate"]);
    // Everybody on a machine can read command lines.
    let ran =
        Running::start(site.command(&["--set", "mail.smtp.password=hunter2", "config", "check"]), "").wait().await;
    assert!(ran.code == Some(2) && ran.stderr.contains("mail.smtp.password_file"), "{ran:?}");
    // All else that an operator does is none of its business.
    site.run(&["user", "list"]).await.ok();
}
