//! What a password costs: as many hashes for nobody as for somebody, and a flood that takes no more than its share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use http::StatusCode;
use keyward::ambient::{SystemRng, random_bytes};
use keyward::crypto::password::{self, Cost};
use keyward::crypto::secret::Secret;
use keyward::protocol::ids::UserId;
use keyward::store::users::NewUser;
use serde_json::{Map, Value, json};
use sqlx::Row as _;

use crate::first_party::{APIS, elsewhere, post};
use crate::on_both_databases;
use crate::support::audit::told;
use crate::support::process::{Running, SITE_PASSWORD, Site, free_port, over_the_wire, wait_for};
use crate::support::prometheus::Metrics;
use crate::support::{Backend, Browser, Page, Provider, at_once, json as call};

/// Hashes that may run at once.
fn permits() -> usize {
    available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

/// Somebody whose password takes about a second to check, as one of another system may.
async fn slow_person(provider: &Provider) {
    let cost = Cost { memory_kib: 64 * 1024, iterations: 24 };
    let hash = password::hash("slow but right", &random_bytes(&SystemRng), cost).expect("a hash");
    let user = NewUser {
        id: UserId::new("slow-1"),
        of_partner: None,
        username: Some("slow".to_owned()),
        email: Some("slow@example.com".to_owned()),
        email_verified: false,
        claims: Map::new(),
        roles: Vec::new(),
        groups: Vec::new(),
        password_hash: Some(Secret::new(hash)),
        disabled_at: None,
    };
    provider.app.store.create_user(user, told(), provider.app.now()).await.expect("created");
}

/// A wrong password for the slow person, by one API or the other.
async fn slow_attempt(mut browser: Browser, n: usize) -> (usize, Page) {
    let page = if n.is_multiple_of(2) {
        post(&mut browser, "/auth/login", json!({ "email": "slow@example.com", "password": "wrong" })).await
    } else {
        post(&mut browser, "/api/auth/login", json!({ "username": "slow", "password": "wrong" })).await
    };
    (n, page)
}

/// Attempts that are counted in the buckets of an action.
async fn counted(provider: &Provider, action: &str) -> i64 {
    let sql = "SELECT CAST(COALESCE(SUM(LENGTH(attempts)), 0) AS BIGINT) AS n FROM limits WHERE bucket LIKE $1";
    let mut conn = provider.connection().await;
    let row = sqlx::query(sql).bind(format!("{action}.%")).fetch_one(&mut conn).await.expect("a count");
    row.get::<i64, _>("n") / 8
}

on_both_databases! {
    /// Eight times as many at once as may run: whoever cannot be heard in time is told so, and has lost nothing.
    async fn attack_154_a_flood_of_passwords_is_heard_told_to_wait_or_told_to_come_back(provider: Provider) {
        let brief = "[passwords]\nqueue_timeout = \"2s\"";
        let provider = Provider::start_with(provider.backend(), "https://id.test", brief).await;
        slow_person(&provider).await;
        let many = 8 * permits();
        let browsers: Vec<Browser> = (0..many).map(|n| elsewhere(&provider, n)).collect();
        let answers = at_once(many, |n| slow_attempt(browsers[n].clone(), n)).await;
        let (heard, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, page)| page.status == 401);
        assert!(!heard.is_empty() && !refused.is_empty(), "{} heard, {} refused", heard.len(), refused.len());
        for (n, page) in &refused {
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.body);
            let wait: u64 = page.header("retry-after").expect("Retry-After").parse().expect("seconds");
            assert!((1..=10).contains(&wait), "{wait}");
            let expected = if n.is_multiple_of(2) {
                json!({ "error": { "code": "UNAVAILABLE", "message": "overloaded" } })
            } else {
                json!({ "error": "Service busy", "message": "Please try again in a moment" })
            };
            assert_eq!(page.json(), expected);
        }
        // Of the refused none was counted, in no bucket.
        let expected = i64::try_from(heard.len()).expect("a few");
        for action in ["sign_in", "sign_in_from", "sign_in_to"] {
            assert_eq!(counted(&provider, action).await, expected, "{action}");
        }
        let by_study = heard.iter().filter(|(n, _)| !n.is_multiple_of(2)).count();
        assert_eq!(counted(&provider, "username_api").await, i64::try_from(by_study).expect("a few"));
        // And when it is over, everybody is heard again.
        let (n, _) = refused[0];
        let page = post(&mut elsewhere(&provider, n), "/api/auth/login", json!({ "username": "alice", "password": "correct horse" })).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    }

    /// A hash that was begun is finished, and holds its place until then.
    async fn attack_154_callers_who_hang_up_free_nothing_early(provider: Provider) {
        slow_person(&provider).await;
        let running = |provider: &Provider| provider.app.passwords.load().0;
        let calls: Vec<_> = (0..permits()).map(|n| tokio::spawn(slow_attempt(elsewhere(&provider, n), n))).collect();
        wait_for("all hashes to run", async || (running(&provider) == permits()).then_some(())).await;
        for call in calls {
            call.abort();
            assert!(call.await.is_err_and(|error| error.is_cancelled()));
        }
        assert_eq!(running(&provider), permits(), "who hung up is still being worked for");
        wait_for("the hashes to end", async || (running(&provider) == 0).then_some(())).await;
        // The answer was never given, but the password was tried.
        assert_eq!(counted(&provider, "sign_in").await, i64::try_from(permits()).expect("a few"));
    }

    /// By the counter of the real program: a guess costs one hash, whoever it is about; a pause and what could not be a
    /// password cost none.
    async fn attack_151_nobody_costs_as_many_hashes_as_somebody(provider: Provider) {
        let watched = Watched::start(provider.backend()).await;
        watched.site.run(&["user", "create", "--username", "passwordless", "--email", "p@example.com"]).await.ok();
        watched.site.run_with(&["user", "create", "--username", "gone", "--email", "gone@example.com", "--password-stdin"], "a long horse\n").await.ok();
        watched.site.run(&["user", "disable", "gone"]).await.ok();
        let long = "x".repeat(1025);
        for (case, name, email, password, hashes) in [
            ("a wrong password", "alice", "alice@example.com", "wrong", 1),
            ("the right password", "alice", "alice@example.com", SITE_PASSWORD, 1),
            ("an unknown name", "nobody", "nobody@example.com", "wrong", 1),
            ("no name at all", "no body", "no.body@b.test", "wrong", 1),
            ("an account without a password", "passwordless", "p@example.com", "wrong", 1),
            ("a disabled account, wrong", "gone", "gone@example.com", "wrong", 1),
            ("a disabled account, right", "gone", "gone@example.com", "a long horse", 1),
            ("too long for anybody", "alice", "alice@example.com", &long, 0),
            ("too long for nobody", "nobody", "nobody@example.com", &long, 0),
        ] {
            assert_eq!(watched.hashes_of("/api/auth/login", json!({ "username": name, "password": password })).await, hashes, "{case}");
            assert_eq!(watched.hashes_of("/auth/login", json!({ "email": email, "password": password })).await, hashes, "{case}");
        }
        for email in ["alice@example.com", "nobody@example.com"] {
            let body = json!({ "email": email, "password": SITE_PASSWORD });
            let mut browser = watched.site.browser();
            let mut costs = Vec::new();
            for _ in 0..7 {
                let before = watched.hashes().await;
                let wrong = json!({ "email": email, "password": "wrong" });
                post(&mut browser, "/auth/login", if costs.len() < 5 { wrong } else { body.clone() }).await;
                costs.push(watched.hashes().await - before);
            }
            assert_eq!(costs, [1, 1, 1, 1, 1, 0, 0], "{email}");
        }
        // A sign-up costs one as well, whether or not the name is free.
        for (case, name) in [("a new name", "ada"), ("a name that is taken", "ada")] {
            let body = json!({ "username": name, "password": "engine", "confirmPassword": "engine" });
            assert_eq!(watched.hashes_of("/api/auth/signup", body).await, 1, "{case}");
        }
    }
}

/// The program with both APIs and its metrics, behind a proxy that is believed.
struct Watched {
    site: Site,
    admin: Browser,
    calls: AtomicUsize,
    _running: Running,
}

impl Watched {
    async fn start(backend: Backend) -> Self {
        let site = Site::empty();
        let url = backend.create(site.dir.path()).await;
        let admin = format!("127.0.0.1:{}", free_port());
        let more = format!("{}\n[database]\nurl = \"{url}\"\n[proxy]\ntrusted = [\"127.0.0.1\"]\n", APIS);
        site.configure(&site.default_config(&more));
        let running = site.serve_with(&[("KEYWARD_ADMIN_LISTEN", &admin)]).await;
        let url = format!("http://{admin}");
        let admin = Browser::new(over_the_wire(&url), &url);
        Self { site, admin, calls: AtomicUsize::new(0), _running: running }
    }

    async fn hashes(&self) -> i64 {
        let page = self.admin.clone().get("/metrics").await;
        #[allow(clippy::cast_possible_truncation)] // A count.
        let count = Metrics::parse(&page.body).value("keyward_password_hash_seconds_count", &[]) as i64;
        count
    }

    /// What one call costs, from a network of its own.
    async fn hashes_of(&self, path: &str, body: Value) -> i64 {
        let before = self.hashes().await;
        let n = self.calls.fetch_add(1, Ordering::SeqCst);
        let from = format!("10.7.{}.{}", n / 250, n % 250 + 1);
        let headers = [("x-forwarded-for", from.as_str())];
        let page = call(&mut self.site.browser(), "POST", path, body, &headers).await;
        assert!(page.status != 429 && !page.status.is_server_error(), "{path}: {}", page.body);
        self.hashes().await - before
    }
}
