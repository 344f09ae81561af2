//! What was answered with success is never taken back, and nothing counts twice: through kills, crashes of the
//! database, full disks, disks that can only be read, and commits whose answer is lost. The real program, watched from
//! outside.

#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use keyward::protocol::time::Span;
use tempfile::TempDir;

use crate::support::crowd::{Crowd, Shift};
use crate::support::disk::{Sabotage, SmallDisk};
use crate::support::postgres::{Cut, Line, Postgres, execute};
use crate::support::process::{Running, Site, wait_for};
use crate::support::trace::{self, Call, NEEDS_PTRACE, traced};
use crate::support::wire::{Person, Tokens, Wire, code_of, config, refused, unavailable};
use crate::support::{Backend, Page, Provider, VERIFIER, challenge, claims_of};

const OFFLINE: &str = "openid profile offline_access";
const WAL: &str = "keyward.db-wal";

/// A site with the clients and people of [`config`].
fn site_on(database_url: &str) -> Site {
    let site = Site::empty();
    site.configure(&config(&site, database_url));
    site
}

/// SQLite in the site's own directory.
fn sqlite_site() -> Site {
    site_on("sqlite://data/keyward.db")
}

/// The disk that holds the data of a site, apart from all others.
fn disk_of(site: &Site) -> SmallDisk {
    // Room for the log at its full length, twice.
    SmallDisk::mount(&site.path("data"), "40m")
}

async fn serve_on(disk: &SmallDisk, site: &Site) -> Running {
    let mut running = Running::start(disk.inside(&site.command(&["serve"])), "");
    site.answers(&mut running).await;
    running
}

/// Numbers that are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    /// From `KEYWARD_TEST_SEED`, or a new one. Printed, so that a run that failed can be had again.
    fn new() -> Self {
        let seed = std::env::var("KEYWARD_TEST_SEED").map_or_else(
            |_| u64::from_be_bytes(keyward::ambient::random_bytes(&keyward::ambient::SystemRng)),
            |text| text.parse().expect("KEYWARD_TEST_SEED is a number"),
        );
        println!("again with the same moments: KEYWARD_TEST_SEED={seed}");
        Self(seed)
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (z ^ (z >> 31)) % (high - low + 1)
    }
}

/// The whole was no idle exercise: everybody was told so much, and so many were interrupted.
fn was_under_load(crowd: &Crowd, told: usize, interrupted: usize) {
    let counts = crowd.counts();
    println!("{counts:?}");
    for (what, count) in &counts {
        assert!(count.told >= told, "only {} {what}", count.told);
    }
    assert!(counts.iter().map(|(_, count)| count.untold).sum::<usize>() >= interrupted, "{counts:?}");
}

mod kill {
    use super::*;

    const ROUNDS: usize = 100;

    /// Clients that another process makes meanwhile.
    #[derive(Default)]
    struct Makers {
        running: Option<(String, Running)>,
        made: Vec<String>,
    }

    impl Makers {
        fn begin(&mut self, site: &Site, round: usize) {
            let id = format!("made-{round}");
            let args = ["client", "create", "--client-id", &id, "--grant-type", "client_credentials"];
            self.running = Some((id.clone(), Running::start(site.command(&args), "")));
        }

        /// Every other one is killed as well; one that ended well has made its client.
        async fn end(&mut self, round: usize) {
            let Some((id, running)) = self.running.take() else { return };
            if round.is_multiple_of(20) {
                running.kill().await;
            } else {
                running.wait().await.ok();
                self.made.push(id);
            }
        }
    }

    async fn a_hundred_times(backend: Backend) {
        let mut dice = Dice::new();
        let dir = TempDir::new().expect("a directory");
        let site = site_on(&backend.create(dir.path()).await);
        let mut running = site.serve().await;
        let mut crowd = Crowd::arrive(&Wire::to(&site)).await;
        let mut makers = Makers::default();
        for round in 0..ROUNDS {
            println!("round {round}");
            if round.is_multiple_of(10) {
                makers.begin(&site, round);
            }
            let (answers, pause) = (dice.between(20, 120), dice.between(0, 10_000));
            let wire = Wire::to(&site);
            let shift = Shift::new(&wire, false);
            tokio::join!(crowd.work(&shift), async {
                shift.heard(answers as usize).await;
                tokio::time::sleep(Duration::from_micros(pause)).await;
                let ran = running.kill().await;
                assert_eq!(ran.code, None, "it did not end by itself: {ran:?}");
                assert!(!ran.stderr.contains("ERROR"), "{ran:?}");
            });
            makers.end(round).await;
            running = site.serve().await;
            crowd.check(&Wire::to(&site)).await;
        }
        crowd.look_back(&Wire::to(&site)).await;
        was_under_load(&crowd, ROUNDS, ROUNDS);

        let listed = site.json(&["client", "list"]).await.to_string();
        assert!(!makers.made.is_empty());
        for id in &makers.made {
            assert!(listed.contains(&format!("\"{id}\"")), "the client {id} is gone");
        }
        let ran = running.terminate().await.ok();
        assert!(!ran.stderr.contains("ERROR"), "{ran:?}");
    }

    #[tokio::test]
    async fn what_was_answered_outlives_a_hundred_kills_on_sqlite() {
        a_hundred_times(Backend::Sqlite).await;
    }

    #[tokio::test]
    async fn what_was_answered_outlives_a_hundred_kills_on_postgres() {
        a_hundred_times(Backend::Postgres).await;
    }

    /// Here the provider lives on, and PostgreSQL is what crashes. Nobody hears anything worse than a 503.
    #[tokio::test]
    async fn what_was_answered_outlives_the_crash_of_postgres() {
        const CRASHES: usize = 6;
        let mut dice = Dice::new();
        let postgres = Arc::new(Postgres::start().await);
        postgres.sql("postgres", "CREATE DATABASE crashes").await;
        let site = site_on(&postgres.url("crashes"));
        let running = site.serve().await;
        let wire = Wire::to(&site);
        let mut crowd = Crowd::arrive(&wire).await;
        for round in 0..CRASHES {
            println!("crash {round}");
            let answers = dice.between(100, 300);
            let shift = Shift::new(&wire, true);
            tokio::join!(crowd.work(&shift), async {
                shift.heard(answers as usize).await;
                let postgres = Arc::clone(&postgres);
                let crash = tokio::task::spawn_blocking(move || {
                    postgres.crash();
                    postgres.come_up();
                });
                crash.await.expect("it is up again");
                shift.over.set(true);
            });
            // It comes back by itself.
            wait_for("the provider to be back", async || {
                let page = wire.call("machine", "/introspect", &[("token", "x")]).await.expect("an answer");
                (page.status == 200).then_some(())
            })
            .await;
            crowd.check(&wire).await;
        }
        crowd.look_back(&wire).await;
        // Most of those whom a crash meets wait for a new connection instead of being told of it.
        was_under_load(&crowd, CRASHES, CRASHES / 2);
        running.terminate().await.ok();
    }
}

mod synced {
    use super::*;

    /// A success, and what the trace must show before it.
    struct Answered {
        what: &'static str,
        request_id: String,
        /// What stands in the log if the request wrote; without it, everything since the answer before counts.
        mark: Option<String>,
    }

    impl Answered {
        fn new(what: &'static str, page: &Page) -> Self {
            assert!(matches!(page.status.as_u16(), 200 | 303), "{what}: {} {}", page.status, page.body);
            Self { what, request_id: page.header("x-request-id").expect("a request id").to_owned(), mark: None }
        }

        fn sent(&self, calls: &[Call]) -> usize {
            let sent = calls.iter().find(|call| call.answers(&self.request_id));
            sent.unwrap_or_else(|| panic!("the answer to {} is not in the trace", self.what)).begun
        }
    }

    /// The log was written to between these lines, and the last of it was on the disk before the second.
    fn synced_between(calls: &[Call], from: usize, to: usize) -> bool {
        let within = || calls.iter().filter(|call| call.begun > from && call.done < to);
        let Some(written) = within().filter(|call| call.writes(WAL)).map(|call| call.done).max() else { return false };
        within().any(|call| call.begun > written && call.syncs(WAL))
    }

    /// Every kind of write, one after the other.
    async fn one_by_one(wire: &Wire) -> Vec<Answered> {
        let mut answered = Vec::new();
        let stranger = wire.visitor("u0").await;
        let mut hear = |what: &'static str, page: Option<Page>| {
            let page = page.expect("an answer");
            answered.push(Answered::new(what, &page));
            page
        };
        let page = hear("a sign-in", wire.sign_in(&stranger).await);
        let person = stranger.welcomed(&page);
        let page = hear("a code", wire.authorize("spa", &person, OFFLINE, "").await);
        let code = code_of(&page);
        let tokens = Tokens::of(&hear("a redemption", wire.redeem("spa", &code).await));
        let page = hear("a rotation", wire.refresh("spa", &tokens.refresh_token).await);
        let tokens = Tokens::of(&page);
        hear("a revoked access token", wire.revoke("spa", &tokens.access_token).await);
        hear("a revoked grant", wire.revoke("spa", &tokens.refresh_token).await);
        let page = wire.authorize("ask", &person, "openid s1", "").await.expect("an answer");
        let page = wire.send(page.location(), None, &[("cookie", &person.cookies())]).await.expect("a page");
        // The answer before the consent, which wrote nothing: what follows it counts from here.
        hear("nothing", Some(page.clone()));
        hear("a consent", wire.press(&page, "/consent", ("decision", "allow"), &person).await);
        let page = hear("nothing", wire.sign_out_page(&person).await);
        hear("a sign-out", wire.press(&page, "/logout", ("action", "logout"), &person).await);
        hear("nothing", wire.send("/jwks", None, &[]).await);
        answered
    }

    /// Many writes at once, so that several share a commit.
    async fn all_at_once(wire: &Wire, tokens: Vec<String>) -> Vec<Answered> {
        join_all(tokens.into_iter().map(async |token| {
            let page = wire.revoke("machine", &token).await.expect("an answer");
            let mark = claims_of(&token)["jti"].as_str().expect("an id").to_owned();
            Answered { mark: Some(mark), ..Answered::new("one of many revocations", &page) }
        }))
        .await
    }

    #[tokio::test]
    async fn no_success_leaves_before_its_commit_is_on_the_disk() {
        let site = sqlite_site();
        let file = site.path("trace");
        let mut running = Running::start(traced(&site.command(&["serve"]), &file), "");
        site.answers(&mut running).await;
        assert!(std::fs::metadata(&file).is_ok_and(|file| file.len() > 0), "{NEEDS_PTRACE}: {}", running.stderr());
        let wire = Wire::to(&site);
        let mut tokens = Vec::new();
        for _ in 0..40 {
            let page = wire.call("machine", "/token", &[("grant_type", "client_credentials")]).await;
            tokens.push(page.expect("an answer").json()["access_token"].as_str().expect("a token").to_owned());
        }
        let one_by_one = one_by_one(&wire).await;
        let at_once = all_at_once(&wire, tokens).await;
        drop(wire);
        let calls = trace::end(running, file).await;

        for pair in one_by_one.windows(2) {
            let (from, to) = (pair[0].sent(&calls), pair[1].sent(&calls));
            let wrote = calls.iter().any(|call| call.begun > from && call.begun < to && call.writes(WAL));
            assert_eq!(wrote, pair[1].what != "nothing", "{}", pair[1].what);
            assert!(!wrote || synced_between(&calls, from, to), "{} left before it was synced", pair[1].what);
        }
        for answered in &at_once {
            let mark = answered.mark.as_deref().expect("a mark");
            let written = calls.iter().find(|call| call.writes(WAL) && call.text.contains(mark));
            let written = written.unwrap_or_else(|| panic!("{mark} is not in the log")).done;
            let sent = answered.sent(&calls);
            let synced = calls.iter().any(|call| call.begun > written && call.done < sent && call.syncs(WAL));
            assert!(synced, "{} left before it was synced", answered.what);
        }
        let home = site.dir.path().to_str().expect("text");
        assert!(calls.iter().any(|call| call.syncs(home)), "the name of the directory with the data is not synced");
        let first = at_once.iter().map(|answered| answered.sent(&calls)).min().expect("an answer");
        let last = at_once.iter().map(|answered| answered.sent(&calls)).max().expect("an answer");
        let syncs = calls.iter().filter(|call| call.begun > first && call.done < last && call.syncs(WAL)).count();
        assert!(syncs < at_once.len(), "none of them shared a commit: {syncs}");
    }

    /// An operator may have meant it, so it is said and not refused.
    #[tokio::test]
    async fn a_postgres_that_may_lose_commits_is_remarked_on() {
        for (setting, expected) in [("off", true), ("on", false)] {
            let url = Backend::Postgres.create(&PathBuf::new()).await;
            let name = url.rsplit('/').next().expect("a name");
            execute(&url, &format!("ALTER DATABASE {name} SET synchronous_commit = {setting}")).await;
            let site = site_on(&url);
            let ran = site.serve().await.terminate().await.ok();
            let warned = ran.stderr.lines().any(|line| line.contains("WARN") && line.contains("synchronous_commit"));
            assert_eq!(warned, expected, "{setting}: {ran:?}");
        }
    }
}

/// One of each thing that a request can change, and somebody to read for.
struct Stock {
    code: String,
    public: Tokens,
    strict: Tokens,
    noted: Tokens,
    whole: Tokens,
    single: Tokens,
    stranger: Person,
    leaver: Person,
    leaving: Page,
    allower: Person,
    allowing: Page,
    insider: Person,
    kept: Tokens,
}

impl Stock {
    /// `scope` is one that nobody was asked for yet.
    async fn gather(wire: &Wire, scope: &str) -> Self {
        let insider = wire.signed_in("u0").await;
        let code = async |client_id: &str| {
            code_of(&wire.authorize(client_id, &insider, OFFLINE, "").await.expect("an answer"))
        };
        let tokens = async |client_id: &str| {
            let code = code(client_id).await;
            Tokens::of(&wire.redeem(client_id, &code).await.expect("an answer"))
        };
        let leaver = wire.signed_in("u1").await;
        let allower = wire.signed_in("u2").await;
        let page = wire.authorize("ask", &allower, &format!("openid {scope}"), "").await.expect("an answer");
        Self {
            code: code("web").await,
            public: tokens("spa").await,
            strict: tokens("strict").await,
            noted: tokens("web").await,
            whole: tokens("web").await,
            single: tokens("web").await,
            stranger: wire.visitor("u3").await,
            leaving: wire.sign_out_page(&leaver).await.expect("a page"),
            leaver,
            allowing: wire.send(page.location(), None, &[("cookie", &allower.cookies())]).await.expect("a page"),
            allower,
            kept: tokens("web").await,
            insider,
        }
    }

    /// Asks for every change once; while the database takes none, it is asked again.
    async fn change(&self, wire: &Wire, patient: bool) -> Vec<(&'static str, Page)> {
        macro_rules! ask {
            ($($what:literal: $asked:expr,)+) => {{
                let mut pages = Vec::new();
                $(
                    let page = wait_for($what, async || {
                        let page = $asked.await.expect("an answer");
                        (!patient || page.status != 503).then_some(page)
                    })
                    .await;
                    pages.push(($what, page));
                )+
                pages
            }};
        }
        let (leaving, allowing) = (("action", "logout"), ("decision", "allow"));
        ask! {
            "a redemption": wire.redeem("web", &self.code),
            "a rotation of a public client": wire.refresh("spa", &self.public.refresh_token),
            "a rotation": wire.refresh("strict", &self.strict.refresh_token),
            "a refresh": wire.refresh("web", &self.noted.refresh_token),
            "a revoked grant": wire.revoke("web", &self.whole.refresh_token),
            "a revoked access token": wire.revoke("web", &self.single.access_token),
            "a code": wire.authorize("web", &self.insider, OFFLINE, ""),
            "a sign-in": wire.sign_in(&self.stranger),
            "a sign-out": wire.press(&self.leaving, "/logout", leaving, &self.leaver),
            "a consent": wire.press(&self.allowing, "/consent", allowing, &self.allower),
        }
    }

    /// No change is made, each is told so, and everything that needs none goes on.
    async fn is_out_of_reach(&self, wire: &Wire) {
        for (what, page) in self.change(wire, false).await {
            println!("{what}");
            unavailable(&page);
        }
        self.is_read(wire).await;
        assert!(wire.is_active(&self.whole.refresh_token).await && wire.is_active(&self.single.access_token).await);
        assert!(wire.is_signed_in(&self.leaver).await);
    }

    async fn is_read(&self, wire: &Wire) {
        for path in ["/jwks", "/.well-known/openid-configuration", "/login"] {
            assert_eq!(wire.send(path, None, &[]).await.expect("an answer").status, 200, "{path}");
        }
        assert!(wire.is_active(&self.kept.access_token).await && wire.is_active(&self.kept.refresh_token).await);
        assert_eq!(wire.userinfo(&self.kept.access_token).await.expect("an answer").status, 200);
        assert!(wire.is_signed_in(&self.insider).await);
        let page = wire.call("machine", "/token", &[("grant_type", "client_credentials")]).await;
        assert_eq!(page.expect("an answer").status, 200);
    }

    /// Nothing was used up or half-done: every change can be made now, each exactly once.
    async fn is_as_it_was(&self, wire: &Wire, patient: bool) {
        self.is_read(wire).await;
        for (what, page) in self.change(wire, patient).await {
            println!("{what}");
            match what {
                "a redemption" | "a rotation of a public client" | "a rotation" | "a refresh" => {
                    Tokens::of(&page);
                }
                "a code" => drop(code_of(&page)),
                "a sign-in" => drop(self.stranger.welcomed(&page)),
                "a consent" => assert!(page.location().contains("/authorize/resume"), "{}", page.body),
                _ => assert_eq!(page.status, 200, "{}", page.body),
            }
        }
        for token in [&self.whole.refresh_token, &self.whole.access_token, &self.single.access_token] {
            assert!(!wire.is_active(token).await, "revoked");
        }
        assert!(!wire.is_signed_in(&self.leaver).await);
        refused(&wire.redeem("web", &self.code).await.expect("an answer"));
        self.is_read(wire).await;
    }
}

mod full {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_under_sqlite_is_told_and_loses_nothing() {
        let site = sqlite_site();
        let disk = disk_of(&site);
        let running = serve_on(&disk, &site).await;
        let wire = Wire::to(&site);
        let stock = Stock::gather(&wire, "s1").await;
        let command = |id: &str| {
            disk.inside(&site.command(&["client", "create", "--client-id", id, "--grant-type", "client_credentials"]))
        };
        disk.fill();
        stock.is_out_of_reach(&wire).await;
        Running::start(command("refused"), "").wait().await.refused(&["full"]);
        disk.free();
        stock.is_as_it_was(&wire, false).await;
        Running::start(command("made"), "").wait().await.ok();

        // And once more, with an end that nobody planned.
        let stock = Stock::gather(&wire, "s2").await;
        disk.fill();
        stock.is_out_of_reach(&wire).await;
        running.kill().await;
        disk.free();
        let running = serve_on(&disk, &site).await;
        stock.is_as_it_was(&Wire::to(&site), false).await;
        running.terminate().await.ok();
    }

    /// The log is moved into the database now and then; while there is no room for that, it waits in the log.
    #[tokio::test]
    async fn what_fits_the_log_and_not_the_database_is_kept() {
        let site = sqlite_site();
        let disk = disk_of(&site);
        let running = serve_on(&disk, &site).await;
        let wire = Wire::to(&site);
        let person = wire.signed_in("u0").await;
        let mut codes = Vec::new();
        let write = async || code_of(&wire.authorize("web", &person, OFFLINE, "").await.expect("an answer"));
        // The log has been moved once, and has the size that it keeps from then on.
        while std::fs::metadata(disk.path("keyward.db")).expect("a file").len() < 400_000 {
            codes.push(write().await);
        }
        disk.fill();
        loop {
            let page = wire.authorize("web", &person, OFFLINE, "").await.expect("an answer");
            if page.status == 503 {
                unavailable(&page);
                break;
            }
            codes.push(code_of(&page));
        }
        running.kill().await;
        // There is still no room, but what is there can be read.
        let running = serve_on(&disk, &site).await;
        let wire = Wire::to(&site);
        assert!(wire.is_signed_in(&person).await);
        disk.free();
        for code in &codes {
            Tokens::of(&wire.redeem("web", code).await.expect("an answer"));
        }
        running.terminate().await.ok();
    }

    #[tokio::test]
    async fn a_start_on_a_full_disk_says_so() {
        let site = sqlite_site();
        let disk = disk_of(&site);
        disk.fill();
        let start = || Running::start(disk.inside(&site.command(&["serve"])), "");
        start().wait().await.refused(&["keyward.db", "full"]);
        disk.free();
        serve_on(&disk, &site).await.terminate().await.ok();
        // A database that is in order, and no room to open it.
        disk.fill();
        start().wait().await.refused(&["keyward.db", "full"]);
        disk.free();
        serve_on(&disk, &site).await.terminate().await.ok();
    }

    #[tokio::test]
    async fn a_full_disk_under_postgres_is_told_and_loses_nothing() {
        let postgres = Postgres::start_with_small_disk().await;
        postgres.sql("postgres", "CREATE DATABASE tight TABLESPACE small").await;
        let site = site_on(&postgres.url("tight"));
        let running = site.serve().await;
        let wire = Wire::to(&site);
        let stock = Stock::gather(&wire, "s3").await;
        let person = wire.signed_in("u5").await;
        postgres.disk().fill();
        // Pages that are there still have room for a while.
        let mut codes = Vec::new();
        loop {
            let page = wire.authorize("web", &person, OFFLINE, "").await.expect("an answer");
            if page.status == 503 {
                unavailable(&page);
                break;
            }
            codes.push(code_of(&page));
            assert!(codes.len() < 10_000, "the disk is not full");
        }
        stock.is_read(&wire).await;
        postgres.disk().free();
        stock.is_as_it_was(&wire, false).await;
        for code in &codes {
            Tokens::of(&wire.redeem("web", code).await.expect("an answer"));
        }
        running.terminate().await.ok();
    }
}

mod read_only {
    use super::*;

    /// The files of the database that writes go to.
    fn files(site: &Site) -> Vec<PathBuf> {
        ["data/keyward.db", "data/keyward.db-wal"].map(|name| site.path(name)).to_vec()
    }

    /// A file system that the kernel made read-only after an error: open files cannot be written to, and opened again
    /// they can only be read.
    #[tokio::test]
    async fn a_disk_that_became_read_only_under_sqlite_is_told_and_loses_nothing() {
        let site = sqlite_site();
        let disk = disk_of(&site);
        let running = serve_on(&disk, &site).await;
        let wire = Wire::to(&site);
        let stock = Stock::gather(&wire, "s4").await;
        disk.show_read_only();
        let sabotage = Sabotage::begin(running.id(), &files(&site), "pwrite64", "EROFS").await;
        stock.is_out_of_reach(&wire).await;
        sabotage.end().await;
        disk.show_writable();
        stock.is_as_it_was(&wire, false).await;
        running.terminate().await.ok();
    }

    /// A write that the disk did not confirm is none.
    #[tokio::test]
    async fn a_disk_that_does_not_confirm_is_told_and_loses_nothing() {
        let site = sqlite_site();
        let running = site.serve().await;
        let wire = Wire::to(&site);
        let stock = Stock::gather(&wire, "s5").await;
        let sabotage = Sabotage::begin(running.id(), &files(&site), "fsync,fdatasync", "EIO").await;
        stock.is_out_of_reach(&wire).await;
        sabotage.end().await;
        stock.is_as_it_was(&wire, false).await;
        running.terminate().await.ok();
    }

    #[tokio::test]
    async fn a_start_on_a_read_only_disk_says_so() {
        let site = sqlite_site();
        let disk = disk_of(&site);
        serve_on(&disk, &site).await.terminate().await.ok();
        disk.show_read_only();
        let serve = Running::start(disk.inside(&site.command(&["serve"])), "");
        serve.wait().await.refused(&["keyward.db", "Read-only file system"]);
        disk.show_writable();
        serve_on(&disk, &site).await.terminate().await.ok();
    }

    /// What an operator does before moving a database elsewhere, and what a failover leaves behind: sessions that can
    /// only read, and stay so when that is over.
    #[tokio::test]
    async fn a_read_only_postgres_is_told_and_loses_nothing() {
        let url = Backend::Postgres.create(&PathBuf::new()).await;
        let (server, name) = url.rsplit_once('/').expect("a name");
        let admin = format!("{server}/postgres");
        let site = site_on(&url);
        let running = site.serve().await;
        let wire = Wire::to(&site);
        let stock = Stock::gather(&wire, "s6").await;
        execute(&admin, &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        execute(&admin, &end).await;
        stock.is_out_of_reach(&wire).await;
        execute(&admin, &format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
        // Each session that is left costs one more try.
        stock.is_as_it_was(&wire, true).await;
        running.terminate().await.ok();
    }

    /// That a session was used is noted now and then; where it cannot be, nobody is signed out for it.
    #[tokio::test]
    async fn whoever_is_signed_in_stays_so_while_nothing_can_be_written() {
        let provider = Provider::start(Backend::Postgres).await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let (server, name) = provider.database_url.rsplit_once('/').expect("a name");
        let admin = format!("{server}/postgres");
        execute(&admin, &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
        execute(&admin, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
            .await;
        provider.pass(Span::hours(1));
        let page = browser.get("/login").await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(!page.body.contains("id=\"login-submit\""), "still signed in: {}", page.body);
    }
}

/// The connection to PostgreSQL breaks in the middle of a commit: nobody knows whether it counted, and whoever asks
/// again neither loses nor gains by it.
mod lost_commit {
    use super::*;

    async fn provider_on_a_line() -> (Provider, Line) {
        let url = Backend::Postgres.create(&PathBuf::new()).await;
        let line = Line::to(&url).await;
        let dir = TempDir::new().expect("a directory");
        let provider = Provider::start_on(dir, line.url(&url), "https://id.test", "").await;
        (provider, line)
    }

    #[tokio::test]
    async fn a_code_is_redeemed_at_most_once() {
        let (provider, line) = provider_on_a_line().await;
        for (cut, again) in [(Cut::Before, 200), (Cut::After, 400)] {
            let code = provider.code(&mut provider.browser(), &provider.authorize_url("")).await;
            line.cut(cut);
            let lost = provider.redeem(&code).await;
            assert_eq!((lost.status, lost.error()), (503, "temporarily_unavailable"), "{cut:?}");
            assert!(line.was_cut());
            assert_eq!(provider.redeem(&code).await.status, again, "{cut:?}");
            let more = provider.redeem(&code).await;
            assert_eq!((more.status, more.error()), (400, "invalid_grant"), "{cut:?}");
        }
    }

    #[tokio::test]
    async fn a_refresh_token_has_one_successor() {
        let (provider, line) = provider_on_a_line().await;
        let redirect_uri = "https://spa.test/cb";
        for cut in [Cut::Before, Cut::After] {
            let url = provider.authorize_url_for("spa", &format!("redirect_uri={redirect_uri}&{}", challenge()));
            let code = provider.code(&mut provider.browser(), &url).await;
            let fields = [("code", code.as_str()), ("redirect_uri", redirect_uri), ("code_verifier", VERIFIER)];
            let fields = [&[("grant_type", "authorization_code")], &fields[..]].concat();
            let parent = provider.token("spa", &fields).await.text("refresh_token");
            line.cut(cut);
            let lost = provider.refresh("spa", &parent).await;
            assert_eq!((lost.status, lost.error()), (503, "temporarily_unavailable"), "{cut:?}");
            assert!(line.was_cut());
            let successor = provider.refresh("spa", &parent).await.text("refresh_token");
            assert_ne!(successor, parent);
            assert_eq!(provider.refresh("spa", &parent).await.text("refresh_token"), successor, "{cut:?}");
            assert_eq!(provider.refresh("spa", &successor).await.status, 200);
            assert_eq!(provider.refresh("spa", &parent).await.error(), "invalid_grant", "reuse");
        }
    }

    #[tokio::test]
    async fn a_revocation_can_be_asked_for_again() {
        let (provider, line) = provider_on_a_line().await;
        for cut in [Cut::Before, Cut::After] {
            let tokens = provider.tokens("openid").await;
            let fields = [("token", tokens.text("refresh_token"))];
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            line.cut(cut);
            let lost = provider.call("first", "/revoke", &fields).await;
            assert_eq!((lost.status, lost.error()), (503, "temporarily_unavailable"), "{cut:?}");
            assert!(line.was_cut());
            assert_eq!(provider.call("first", "/revoke", &fields).await.status, 200);
            assert_eq!(provider.userinfo(&tokens.text("access_token")).await.status, 401, "{cut:?}");
        }
    }
}
