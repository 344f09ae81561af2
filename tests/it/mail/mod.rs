//! The outbox and what becomes of it, on both databases: what leaves, when it is tried again, what never leaves, and
//! who may take it. Time is the test's own; the mail server is a real one.

mod process;
mod transport;

use std::path::Path;
use std::sync::Arc;

use keyward::ambient::{SystemRng, random_bytes};
use keyward::app::App;
use keyward::protocol::ids::{ClientId, UserId};
use keyward::protocol::time::{Span, Timestamp};
use keyward::store::outbox::{Cap, Caps, DeadReason, ListedMail, Mail, MailState, NewMail, Retried};
use sqlx::{Connection as _, Row as _};

use crate::on_both_databases;
use crate::support::mail_server::MailServer;
use crate::support::{Backend, Provider};

fn fresh_id() -> String {
    UserId::from_random(random_bytes(&SystemRng)).to_string()
}

/// A welcome of the partner `web`, whose name is not all letters.
fn welcome(to: &str) -> NewMail {
    NewMail {
        id: fresh_id(),
        to: to.to_owned(),
        mail: Mail::Welcome { partner_name: "Web <app>".to_owned() },
        partner: Some(ClientId::new("web")),
        onboarding: None,
    }
}

/// Queues a welcome; its id.
async fn queue(app: &App, to: &str) -> String {
    queue_as(app, welcome(to)).await
}

async fn queue_as(app: &App, new: NewMail) -> String {
    let id = new.id.clone();
    app.store.queue_mail(new, app.now()).await.expect("queued");
    id
}

async fn send_due(app: &App) {
    app.mail.send_due().await.expect("sent");
}

async fn all(app: &App) -> Vec<ListedMail> {
    app.store.mails(None, None, 10_000).await.expect("mails")
}

async fn mail(app: &App, id: &str) -> ListedMail {
    all(app).await.into_iter().find(|mail| mail.id == id).expect("the mail")
}

async fn state(app: &App, id: &str) -> MailState {
    mail(app, id).await.state
}

/// The files that mail became, by name.
fn files(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join("data/mail")) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.expect("a file").path().display().to_string()).collect();
    names.sort();
    names
}

/// An onboarding of the partner `web` that waits for its mail.
async fn onboarding(provider: &Provider, external_id: &str) -> String {
    let mut conn = provider.connection().await;
    let id = fresh_id();
    sqlx::query(
        "INSERT INTO onboardings (id, partner_id, external_id, state, created_at, updated_at)
         VALUES ($1, 'web', $2, 'mail_queued', 1, 1)",
    )
    .bind(&id)
    .bind(external_id)
    .execute(&mut conn)
    .await
    .expect("an onboarding");
    conn.close().await.expect("closing");
    id
}

/// Its state and the reason for it.
async fn progress(provider: &Provider, id: &str) -> (String, Option<String>) {
    let mut conn = provider.connection().await;
    let row = sqlx::query("SELECT state, reason FROM onboardings WHERE id = $1").bind(id).fetch_one(&mut conn).await;
    let row = row.expect("an onboarding");
    conn.close().await.expect("closing");
    (row.get("state"), row.get("reason"))
}

async fn on(backend: Backend, server: &MailServer) -> Provider {
    Provider::start_with(backend, "https://id.test", &server.plain_config()).await
}

on_both_databases! {
    async fn mail_becomes_one_file_and_is_not_sent_again(provider: Provider) {
        let app = &provider.app;
        let id = queue(app, "Ann@School.test").await;
        assert_eq!(state(app, &id).await, MailState::Pending);
        assert!(files(provider.dir.path()).is_empty());
        send_due(app).await;
        let sent = mail(app, &id).await;
        assert_eq!((sent.state, sent.attempts, sent.to.as_str()), (MailState::Sent, 1, "ann@school.test"));
        let found = files(provider.dir.path());
        assert!(found.len() == 1 && found[0].ends_with(&format!("-{id}.eml")), "{found:?}");
        let text = std::fs::read_to_string(&found[0]).expect("the file");
        assert!(text.contains("To: ann@school.test\r\n") && text.contains(&format!("Message-ID: <{id}@id.test>\r\n")));
        assert!(text.contains("Web &#60;app&#62;") && text.contains("Northwind ID"), "{text}");
        std::fs::remove_file(&found[0]).expect("removed");
        provider.pass(Span::days(1));
        send_due(app).await;
        assert!(files(provider.dir.path()).is_empty());
        assert_eq!(app.store.retry_mail(&id, app.now()).await.expect("an answer"), Retried::AlreadySent);
    }

    async fn an_onboarding_moves_on_with_its_mail(provider: Provider) {
        let app = &provider.app;
        let (good, bad) = (onboarding(&provider, "1").await, onboarding(&provider, "2").await);
        queue_as(app, NewMail { onboarding: Some(good.clone()), ..welcome("ann@school.test") }).await;
        let lost = queue_as(app, NewMail { onboarding: Some(bad.clone()), ..welcome("nowhere") }).await;
        send_due(app).await;
        assert_eq!(progress(&provider, &good).await, ("mail_sent".to_owned(), None));
        assert_eq!(progress(&provider, &bad).await, ("failed".to_owned(), Some("mail_rejected".to_owned())));
        let error = mail(app, &lost).await.last_error.expect("a reason");
        assert!(error.starts_with("mail_rejected: "), "{error}");
        // Whoever tries it again has it wait for its mail again; and then it fails again.
        assert_eq!(app.store.retry_mail(&lost, app.now()).await.expect("an answer"), Retried::Revived);
        assert_eq!(progress(&provider, &bad).await, ("mail_queued".to_owned(), None));
        assert_eq!(mail(app, &lost).await.attempts, 0);
        send_due(app).await;
        assert_eq!(app.store.retry_dead_mails(app.now()).await.expect("an answer"), 1);
        assert_eq!(progress(&provider, &bad).await, ("mail_queued".to_owned(), None));
        send_due(app).await;
        assert_eq!(progress(&provider, &bad).await.0, "failed");
    }

    async fn an_address_is_written_to_five_times_a_day_however_it_is_spelled(provider: Provider) {
        let app = &provider.app;
        let spellings = ["ann@school.test", "Ann@school.test", "ANN@SCHOOL.TEST", "ａnn@school.test"];
        for to in spellings.iter().cycle().take(9) {
            queue_as(app, NewMail { partner: None, ..welcome(to) }).await;
        }
        queue(app, "bob@school.test").await;
        // Those that might have been the sixth wait aside until that is known.
        for _ in 0..20 {
            send_due(app).await;
            provider.pass(Span::from_secs(3));
        }
        let anns: Vec<_> = all(app).await.into_iter().filter(|mail| mail.to == "ann@school.test").collect();
        let count = |state| anns.iter().filter(|mail| mail.state == state).count();
        assert_eq!((count(MailState::Sent), count(MailState::Dead)), (5, 4), "{anns:#?}");
        assert_eq!(files(provider.dir.path()).len(), 6);
        let dead = anns.iter().find(|mail| mail.state == MailState::Dead).expect("a dead one");
        assert!(dead.last_error.as_ref().is_some_and(|error| error.starts_with("mail_capped: ")), "{dead:?}");
        provider.pass(Span::days(1));
        let next_day = queue(app, "ann@school.test").await;
        send_due(app).await;
        assert_eq!(state(app, &next_day).await, MailState::Sent);
    }

    async fn a_claim_is_nobody_elses_until_it_runs_out(provider: Provider) {
        let app = &provider.app;
        let id = queue(app, "ann@school.test").await;
        let lease = Span::minutes(2);
        let cap = Cap { mails: 5, window: Span::days(1) };
        let caps = Caps { address: cap, partner: cap };
        let claimed = app.store.claim_mails(app.now(), lease, 10, caps).await.expect("a claim").mails;
        assert_eq!((claimed.len(), claimed[0].attempt), (1, 1));
        send_due(app).await;
        assert!(files(provider.dir.path()).is_empty(), "somebody is at it");
        assert_eq!(app.store.retry_mail(&id, app.now()).await.expect("an answer"), Retried::Underway);
        // That process is never heard of again; or only much later.
        provider.pass(lease);
        send_due(app).await;
        let sent = mail(app, &id).await;
        assert_eq!((sent.state, sent.attempts, files(provider.dir.path()).len()), (MailState::Sent, 2, 1));
        app.store.finish_later(&claimed[0], app.now(), "late".to_owned()).await.expect("an answer");
        let dead = app.store.finish_dead(&claimed[0], DeadReason::Rejected, "late".to_owned(), app.now()).await;
        assert!(!dead.expect("an answer"), "it is not theirs any more");
        assert_eq!(mail(app, &id).await.state, MailState::Sent);
    }

    async fn mail_of_a_newer_release_waits_for_it(provider: Provider) {
        let app = &provider.app;
        let id = queue(app, "ann@school.test").await;
        let mut conn = provider.connection().await;
        let sql = "UPDATE outbox SET kind = 'news', payload = '{\"kind\":\"news\"}'";
        sqlx::query(sql).execute(&mut conn).await.expect("changed");
        conn.close().await.expect("closing");
        queue(app, "bob@school.test").await;
        send_due(app).await;
        let waiting = mail(app, &id).await;
        assert_eq!((waiting.state, waiting.kind.as_str()), (MailState::Pending, "news"), "{waiting:?}");
        assert_eq!(files(provider.dir.path()).len(), 1, "and holds nobody up");
    }

    async fn what_has_ended_is_forgotten_after_a_week(provider: Provider) {
        let app = &provider.app;
        let (sent, dead) = (queue(app, "ann@school.test").await, queue(app, "nowhere").await);
        send_due(app).await;
        let levels = app.store.outbox_levels().await.expect("levels");
        assert_eq!((levels.pending, levels.oldest, levels.dead), (0, None, 1));
        provider.pass(Span::days(6));
        let waiting = queue(app, "bob@school.test").await;
        let levels = app.store.outbox_levels().await.expect("levels");
        assert_eq!((levels.pending, levels.oldest.is_some(), levels.dead), (1, true, 1));
        app.store.purge_expired(Span::days(90), app.now()).await.expect("purged");
        assert_eq!(all(app).await.len(), 3);
        provider.pass(Span::days(2));
        app.store.purge_expired(Span::days(90), app.now()).await.expect("purged");
        let left: Vec<String> = all(app).await.into_iter().map(|mail| mail.id).collect();
        assert_eq!(left, [waiting]);
        for gone in [sent, dead] {
            assert_eq!(app.store.retry_mail(&gone, app.now()).await.expect("an answer"), Retried::Unknown);
        }
    }
}

#[tokio::test]
async fn greylisting_is_waited_out() {
    let server = MailServer::start().await;
    for backend in Backend::BOTH {
        let provider = on(backend, &server).await;
        let app = &provider.app;
        let to = format!("grey-{backend:?}@school.test").to_lowercase();
        let id = queue(app, &to).await;
        send_due(app).await;
        let deferred = mail(app, &id).await;
        assert_eq!((deferred.state, deferred.attempts), (MailState::Pending, 1));
        assert!(deferred.last_error.as_ref().is_some_and(|error| error.contains("451 4.7.1")), "{deferred:?}");
        provider.pass(Span::from_secs(50));
        send_due(app).await;
        assert_eq!(mail(app, &id).await.attempts, 1, "too early");
        provider.pass(Span::from_secs(25));
        send_due(app).await;
        assert_eq!(state(app, &id).await, MailState::Sent);
        let letters: Vec<_> = server.letters().into_iter().filter(|letter| letter.to == to).collect();
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].header("Message-ID"), format!("<{id}@id.test>"));
        assert_eq!(letters[0].hello, "id.test");
    }
}

#[tokio::test]
async fn a_refusal_for_good_is_the_end_at_once() {
    let server = MailServer::start().await;
    for backend in Backend::BOTH {
        let provider = on(backend, &server).await;
        let app = &provider.app;
        for (to, words) in
            [("nobody@school.test", "550 5.1.1"), ("full@school.test", "552 5.2.2"), ("x@", "no address")]
        {
            let id = queue(app, to).await;
            send_due(app).await;
            let dead = mail(app, &id).await;
            assert_eq!((dead.state, dead.attempts), (MailState::Dead, 1), "{dead:?}");
            let error = dead.last_error.expect("a reason");
            assert!(error.starts_with("mail_rejected: ") && error.contains(words), "{error}");
        }
        let good = queue(app, "ann@school.test").await;
        send_due(app).await;
        assert_eq!(state(app, &good).await, MailState::Sent, "the others are none the worse for it");
    }
}

/// However the server is away, mail is tried eight times, further and further apart, and then is dead for people to see.
#[tokio::test]
async fn a_server_that_stays_away_is_tried_for_most_of_a_day() {
    let mut server = MailServer::start().await;
    for backend in Backend::BOTH {
        let provider = on(backend, &server).await;
        let app = &provider.app;
        let waiting = onboarding(&provider, "1").await;
        let begun = app.now();
        let id = queue_as(app, NewMail { onboarding: Some(waiting.clone()), ..welcome("ann@school.test") }).await;
        server.set_down(true);
        for (attempt, pause) in ["1m", "5m", "15m", "1h", "3h", "6h", "12h"].into_iter().enumerate() {
            if attempt == 4 {
                server.set_down(false);
                server.set_away(true).await;
            }
            send_due(app).await;
            let deferred = mail(app, &id).await;
            assert_eq!((deferred.state, deferred.attempts), (MailState::Pending, attempt as i64 + 1), "{deferred:?}");
            let pause: Span = pause.parse().expect("a span");
            let waits = deferred.due_at - app.now();
            assert!(waits > pause - Span::from_secs(1), "{attempt}: {waits}");
            assert!(waits.millis() <= pause.millis() * 6 / 5, "{attempt}: {waits}");
            assert_eq!(progress(&provider, &waiting).await.0, "mail_queued");
            provider.pass(waits + Span::from_secs(1));
        }
        send_due(app).await;
        let dead = mail(app, &id).await;
        assert_eq!((dead.state, dead.attempts), (MailState::Dead, 8), "{dead:?}");
        assert!(dead.last_error.is_some_and(|error| error.starts_with("mail_undeliverable: ")));
        assert!(app.now() - begun > Span::hours(22) && app.now() - begun < Span::hours(28));
        assert_eq!(progress(&provider, &waiting).await, ("failed".to_owned(), Some("mail_undeliverable".to_owned())));
        // An operator who has put it right sends them again.
        server.set_away(false).await;
        assert_eq!(app.store.retry_dead_mails(app.now()).await.expect("an answer"), 1);
        send_due(app).await;
        assert_eq!(progress(&provider, &waiting).await.0, "mail_sent");
        assert_eq!(server.letters().iter().filter(|letter| letter.header("Message-ID").contains(&id)).count(), 1);
    }
}

#[tokio::test]
async fn a_partner_above_their_cap_waits_and_loses_nothing() {
    let more = "[mail]\npartner_cap = { mails = 3, window = \"1h\" }\n";
    for backend in Backend::BOTH {
        let provider = Provider::start_with(backend, "https://id.test", more).await;
        let app = &provider.app;
        for n in 0..8 {
            queue(app, &format!("ann{n}@school.test")).await;
        }
        let other =
            queue_as(app, NewMail { partner: Some(ClientId::new("first")), ..welcome("bob@school.test") }).await;
        let settle = async || {
            for _ in 0..10 {
                send_due(app).await;
                provider.pass(Span::from_secs(3));
            }
            let mails = all(app).await;
            assert!(mails.iter().all(|mail| matches!(mail.state, MailState::Pending | MailState::Sent)), "{mails:#?}");
            mails.iter().filter(|mail| mail.state == MailState::Sent).count()
        };
        assert_eq!(settle().await, 4, "three of theirs, and another's");
        assert_eq!(state(app, &other).await, MailState::Sent);
        let waiting = app.store.mails(Some(MailState::Pending), None, 100).await.expect("mails");
        assert!(waiting.iter().all(|mail| mail.attempts == 0 && mail.due_at > app.now()), "{waiting:#?}");
        let first: Timestamp = waiting[0].due_at;
        assert!(waiting.iter().all(|mail| mail.due_at == first), "all were moved at once: {waiting:#?}");
        provider.pass(Span::minutes(30));
        assert_eq!(settle().await, 4);
        provider.pass(Span::minutes(30));
        assert_eq!(settle().await, 7);
        provider.pass(Span::minutes(62));
        assert_eq!(settle().await, 9);
    }
}

/// Two processes at one outbox, as many letters at a time as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_processes_one_sends_each_mail() {
    for backend in Backend::BOTH {
        let server = MailServer::start().await;
        let provider = on(backend, &server).await;
        let (second, _) = provider.second().await;
        for n in 0..80 {
            queue_as(&provider.app, NewMail { partner: None, ..welcome(&format!("ann{n}@school.test")) }).await;
        }
        let senders = [Arc::clone(&provider.app), second];
        let sending = senders.iter().map(|app| send_due(app));
        futures_util::future::join_all(sending).await;
        let mails = all(&provider.app).await;
        assert!(mails.iter().all(|mail| mail.state == MailState::Sent && mail.attempts == 1), "{mails:#?}");
        let mut seen: Vec<String> = server.letters().iter().map(|letter| letter.header("Message-ID")).collect();
        seen.sort();
        let sent = seen.len();
        seen.dedup();
        assert_eq!((sent, seen.len()), (80, 80), "each once");
    }
}

/// Whichever of them sends, an address has its five.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn caps_hold_over_several_processes() {
    for backend in Backend::BOTH {
        let provider = Provider::start(backend).await;
        let (second, _) = provider.second().await;
        for _ in 0..20 {
            queue(&provider.app, "ann@school.test").await;
        }
        for _ in 0..20 {
            futures_util::future::join(send_due(&provider.app), send_due(&second)).await;
            provider.pass(Span::from_secs(3));
        }
        let mails = all(&provider.app).await;
        let count = |state| mails.iter().filter(|mail| mail.state == state).count();
        assert_eq!((count(MailState::Sent), count(MailState::Dead)), (5, 15), "{mails:#?}");
        assert_eq!(files(provider.dir.path()).len(), 5);
    }
}
