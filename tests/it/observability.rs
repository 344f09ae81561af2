//! What an operator sees of the built program: health, metrics, log lines and traces. That none of it holds a secret
//! is in `process.rs`, where everything is as loud as it goes.

#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::support::collector::{Collector, contains};
use crate::support::process::{Ran, Running, SITE_PASSWORD, SITE_SECRET, Site, free_port, over_the_wire, wait_for};
use crate::support::prometheus::Metrics;
use crate::support::{Backend, Browser, Page};

/// A provider with an admin listener.
struct Watched {
    site: Site,
    running: Running,
    admin: Browser,
    admin_port: u16,
}

impl Watched {
    async fn start(site: Site, env: &[(&str, &str)]) -> Self {
        let admin_port = free_port();
        let address = format!("127.0.0.1:{admin_port}");
        let env: Vec<_> = env.iter().copied().chain([("KEYWARD_ADMIN_LISTEN", address.as_str())]).collect();
        let running = site.serve_with(&env).await;
        let url = format!("http://{address}");
        Self { site, running, admin: Browser::new(over_the_wire(&url), &url), admin_port }
    }

    async fn metrics(&mut self) -> Metrics {
        let page = self.admin.get("/metrics").await;
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Metrics::parse(&page.body)
    }

    async fn ready(&mut self) -> (StatusCode, Value) {
        let page = self.admin.get("/health/ready").await;
        assert_eq!(page.header("cache-control"), Some("no-store"));
        (page.status, page.json())
    }

    /// Asks until it is ready, or until it is not; the answer.
    async fn until_ready(&mut self, ready: bool) -> Value {
        wait_for("a change of readiness", async || {
            let (status, body) = self.ready().await;
            let expected = if ready { "ready" } else { "unready" };
            assert_eq!(status == StatusCode::OK, body["status"] == "ready", "{status} {body}");
            (body["status"] == expected).then_some(body)
        })
        .await
    }

    async fn token(&self, secret: &str, grant_type: &str) -> u16 {
        self.site.call("web", secret, "/token", &[("grant_type", grant_type)]).await.status
    }
}

mod health {
    use super::*;

    #[tokio::test]
    async fn a_sound_process_is_live_and_ready() {
        for backend in Backend::BOTH {
            let site = Site::empty();
            let url = backend.create(site.dir.path()).await;
            site.configure(&site.default_config(&format!("[database]\nurl = \"{url}\"\n")));
            let mut watched = Watched::start(site, &[]).await;
            assert_eq!(watched.admin.get("/health/live").await.status, StatusCode::OK);
            let body = json!({
                "status": "ready",
                "checks": { "database": "ok", "migrations": "ok", "signing_keys": "ok" },
            });
            assert_eq!(watched.ready().await, (StatusCode::OK, body), "{backend:?}");
        }
    }

    /// A PostgreSQL of its own name, with a connection beside the process.
    async fn on_postgres() -> (Watched, PgConnection, String) {
        let site = Site::empty();
        let url = Backend::Postgres.create(site.dir.path()).await;
        site.configure(&site.default_config(&format!("[database]\nurl = \"{url}\"\n")));
        let (server, name) = url.rsplit_once('/').expect("a database");
        let other = PgConnection::connect(&format!("{server}/postgres")).await.expect("the server");
        (Watched::start(site, &[]).await, other, name.to_owned())
    }

    async fn execute(conn: &mut PgConnection, sql: String) {
        sqlx::query(AssertSqlSafe(sql)).execute(conn).await.expect("done");
    }

    #[tokio::test]
    async fn without_its_database_it_is_live_but_not_ready_until_the_database_is_back() {
        let (mut watched, mut server, name) = on_postgres().await;
        watched.until_ready(true).await;
        execute(&mut server, format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
        let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        execute(&mut server, kill).await;
        let body = watched.until_ready(false).await;
        assert_ne!(body["checks"]["database"], "ok", "{body}");
        assert_eq!(body["checks"]["signing_keys"], "ok", "{body}");
        assert!(!body.to_string().contains(&name), "no details for strangers: {body}");
        assert_eq!(watched.admin.get("/health/live").await.status, StatusCode::OK);
        execute(&mut server, format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
        watched.until_ready(true).await;
        let ran = watched.running.terminate().await.ok();
        assert!(ran.stderr.contains("not ready") && ran.stderr.contains("ready again"), "{}", ran.stderr);
    }

    /// A database that takes questions and does not answer: probes of impatient balancers must not heap up on it.
    #[tokio::test]
    async fn probes_do_not_pile_up_on_a_database_that_hangs() {
        let (mut watched, _server, name) = on_postgres().await;
        watched.until_ready(true).await;
        let server = std::env::var("KEYWARD_TEST_POSTGRES").expect("a server");
        let mut locking = PgConnection::connect(&format!("{server}/{name}")).await.expect("the database");
        execute(&mut locking, "BEGIN".to_owned()).await;
        execute(&mut locking, "LOCK TABLE _sqlx_migrations IN ACCESS EXCLUSIVE MODE".to_owned()).await;
        // Whoever asked a moment before the lock is heard no longer.
        watched.until_ready(false).await;
        let ask = |patience| {
            let (mut admin, patience) = (watched.admin.clone(), Duration::from_millis(patience));
            async move { tokio::time::timeout(patience, admin.get("/health/ready")).await.ok() }
        };
        // Forty who give up soon, and forty who wait for the word.
        futures_util::future::join_all((0..40).map(|_| ask(100))).await;
        let patient = futures_util::future::join_all((0..40).map(|_| ask(30_000))).await;
        for page in patient {
            let page = page.expect("an answer");
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.body);
            assert_eq!(page.json()["checks"]["database"], "does not answer in time");
        }
        let sql =
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(sql).fetch_one(&mut locking).await.expect("a number");
        assert!((1..=3).contains(&waiting), "{waiting} probes wait in the database");
        execute(&mut locking, "ROLLBACK".to_owned()).await;
        watched.until_ready(true).await;
    }

    #[tokio::test]
    async fn it_is_not_ready_for_tables_of_an_older_release_and_ready_for_those_of_a_newer_one() {
        let mut watched = Watched::start(Site::new(""), &[]).await;
        watched.until_ready(true).await;
        let file = watched.site.path("data/keyward.db");
        let mut conn = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.expect("the database");
        let set = "UPDATE _sqlx_migrations SET version = version + $1
                   WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
        for (step, ready) in [(1_000_000_i64, true), (-2_000_000, false), (1_000_000, true)] {
            sqlx::query(set).bind(step).execute(&mut conn).await.expect("done");
            // A newer one must not even look unready for a moment.
            if step > 0 && ready {
                watched.until_ready(true).await;
            }
            let body = watched.until_ready(ready).await;
            let told = body["checks"]["migrations"].as_str().expect("a word");
            assert_eq!(told == "ok", ready, "{body}");
            assert!(ready || told.contains("keyward migrate"), "{body}");
        }
    }

    /// A balancer learns that no more should come while what is in flight is still being answered.
    #[tokio::test]
    async fn it_is_not_ready_once_it_was_told_to_stop() {
        let mut watched = Watched::start(Site::new(""), &[]).await;
        let mut slow = TcpStream::connect(("127.0.0.1", watched.site.port)).expect("a connection");
        slow.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
        let body = format!("grant_type=client_credentials&client_id=web&client_secret={SITE_SECRET}");
        let head = "POST /token HTTP/1.1\r\nHost: id\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let head = format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
        slow.write_all(head.as_bytes()).expect("written");
        let mut interim = [0; 1024];
        assert!(slow.read(&mut interim).expect("an interim answer") > 0);
        watched.running.signal("TERM");
        let told = watched.until_ready(false).await;
        assert_eq!(told["checks"]["process"], "is stopping", "{told}");
        assert_eq!(told["checks"]["database"], "ok", "{told}");
        assert_eq!(watched.admin.get("/health/live").await.status, StatusCode::OK);
        slow.write_all(body.as_bytes()).expect("written");
        let mut answer = String::new();
        slow.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(watched.running.wait().await.code, Some(0));
    }
}

mod admin_listener {
    use super::*;

    #[tokio::test]
    async fn what_is_for_operators_and_what_is_for_the_world_do_not_mix() {
        let mut watched = Watched::start(Site::new(""), &[]).await;
        let mut public = watched.site.browser();
        for path in ["/metrics", "/health/live", "/health/ready"] {
            assert_eq!(watched.admin.get(path).await.status, StatusCode::OK, "{path}");
            assert_eq!(public.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        }
        for path in ["/jwks", "/.well-known/openid-configuration", "/login"] {
            assert_eq!(public.get(path).await.status, StatusCode::OK, "{path}");
            assert_eq!(watched.admin.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        }
        for path in ["/metrics", "/health/ready"] {
            let page = watched.admin.send(Method::POST, path, Some(&[]), &[]).await;
            assert_eq!(page.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_with_the_setting_to_change() {
        let watched = Watched::start(Site::new(""), &[]).await;
        let other = Site::new("");
        let address = format!("127.0.0.1:{}", watched.admin_port);
        let mut command = other.command(&["serve"]);
        command.env("KEYWARD_ADMIN_LISTEN", &address);
        let ran = Running::start(command, "").wait().await;
        ran.refused(&["admin_listen", "cannot listen on", &address, "in use"]);
    }

    #[tokio::test]
    async fn it_may_be_a_unix_socket_and_serve_dev_as_well() {
        let site = Site::empty();
        let (port, demo_port) = (free_port().to_string(), free_port().to_string());
        let mut command = site.command(&["dev", "--dir", ".", "--port", &port, "--demo-port", &demo_port]);
        command.env("KEYWARD_ADMIN_LISTEN", "unix:admin.sock");
        let running = Running::start(command, "");
        let answer = wait_for("the socket", async || {
            let mut socket = std::os::unix::net::UnixStream::connect(site.path("admin.sock")).ok()?;
            socket.write_all(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(answer)
        })
        .await;
        assert!(answer.ends_with(r#""signing_keys":"ok"}}"#), "{answer}");
        running.terminate().await.ok();
    }
}

mod metrics {
    use super::*;

    const TOKENS: &str = "keyward_token_requests_total";
    const SIGN_INS: &str = "keyward_sign_ins_total";
    const REQUESTS: &str = "http_server_request_duration_seconds_count";

    #[tokio::test]
    async fn counters_move_by_what_was_done() {
        let mut watched = Watched::start(Site::new("[rate_limits]\nlogin = { attempts = 2 }\n"), &[]).await;
        let before = watched.metrics().await;
        assert_eq!(watched.token(SITE_SECRET, "client_credentials").await, 200);
        assert_eq!(watched.token(SITE_SECRET, "client_credentials").await, 200);
        assert_eq!(watched.token("wrong", "client_credentials").await, 401);
        assert_eq!(watched.token(SITE_SECRET, "refresh_token").await, 400);
        assert_eq!(watched.token(SITE_SECRET, "urn:something:else").await, 400);
        let mut browser = watched.site.browser();
        let (site, good) = (&watched.site, SITE_PASSWORD);
        site.sign_in(&mut browser, "alice", "wrong").await;
        site.sign_in(&mut browser, "alice", good).await;
        for _ in 0..4 {
            site.sign_in(&mut watched.site.browser(), "bob", "wrong").await;
        }
        let after = watched.metrics().await;
        let grant = |grant, result| [("grant_type", grant), ("result", result)];
        let password = |result| [("method", "password"), ("result", result)];
        let request = |route, status| [("method", "POST"), ("route", route), ("status", status)];
        for (name, labels, expected) in [
            (TOKENS, &grant("client_credentials", "success")[..], 2.0),
            (TOKENS, &grant("client_credentials", "invalid_client"), 1.0),
            (TOKENS, &grant("refresh_token", "invalid_request"), 1.0),
            (TOKENS, &grant("unsupported", "unsupported_grant_type"), 1.0),
            (SIGN_INS, &password("success"), 1.0),
            (SIGN_INS, &password("refused"), 3.0),
            (SIGN_INS, &password("throttled"), 2.0),
            ("keyward_rate_limited_total", &[("action", "sign_in")], 2.0),
            ("keyward_password_hash_seconds_count", &[], 4.0),
            (REQUESTS, &request("/token", "200"), 2.0),
            (REQUESTS, &request("/token", "400"), 2.0),
            (REQUESTS, &request("/token", "401"), 1.0),
            (REQUESTS, &request("/login", "303"), 1.0),
            (REQUESTS, &request("/login", "429"), 2.0),
            ("keyward_log_lines_dropped_total", &[], 0.0),
        ] {
            let moved = after.value(name, labels) - before.value(name, labels);
            assert_eq!(moved, expected, "{name}{labels:?}");
        }
        // What is wanted in an alert has a series before it first happens.
        for result in ["success", "refused", "throttled", "overloaded"] {
            assert!(before.label_values(SIGN_INS, "result").contains(result), "{result}");
        }
    }

    #[tokio::test]
    async fn the_levels_are_those_of_the_process() {
        for backend in Backend::BOTH {
            let site = Site::empty();
            let url = backend.create(site.dir.path()).await;
            site.configure(&site.default_config(&format!("[database]\nurl = \"{url}\"\n")));
            let mut watched = Watched::start(site, &[]).await;
            watched.site.sign_in(&mut watched.site.browser(), "alice", SITE_PASSWORD).await;
            let found = watched.metrics().await;
            let name = if backend == Backend::Sqlite { "sqlite" } else { "postgres" };
            let labels = [("version", env!("CARGO_PKG_VERSION")), ("database", name)];
            assert_eq!(found.value("keyward_build_info", &labels), 1.0);
            for alg in ["RS256", "ES256"] {
                let age = found.value("keyward_signing_key_age_seconds", &[("alg", alg)]);
                assert!(age > 0.0 && age < 3600.0, "{alg}: {age}");
            }
            let started = found.value("process_start_time_seconds", &[]);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs_f64();
            assert!(started > now - 3600.0 && started <= now, "{started} {now}");
            assert!(found.value("process_resident_memory_bytes", &[]) > 1e6);
            assert!(found.value("process_open_fds", &[]) > 3.0);
            let pool = |state| found.value("keyward_db_pool_connections", &[("state", state)]);
            let most = found.value("keyward_db_pool_max_connections", &[]);
            assert!(pool("idle") + pool("in_use") >= 1.0 && pool("idle") + pool("in_use") <= most, "{backend:?}");
            for state in ["running", "waiting"] {
                assert_eq!(found.value("keyward_password_hashes", &[("state", state)]), 0.0);
            }
            assert!(found.value("keyward_db_read_seconds_count", &[]) > 0.0);
            assert!(found.value("keyward_db_write_seconds_count", &[]) > 0.0);
            let batches = found.value("keyward_db_commit_batch_size_count", &[]);
            assert_eq!(batches > 0.0, backend == Backend::Sqlite, "only SQLite commits in groups");
        }
    }

    /// Whoever sends made-up paths, methods, grants and headers must not fill the memory of whoever stores metrics.
    #[tokio::test]
    async fn a_flood_of_random_requests_makes_no_new_series() {
        let mut watched = Watched::start(Site::new(""), &[]).await;
        let flood = async |watched: &Watched, range: std::ops::Range<u32>| {
            for n in range {
                let mut browser = watched.site.browser();
                browser.get(&format!("/nowhere/{n}")).await;
                browser.get(&format!("/assets/{n}")).await;
                browser.get(&format!("/login?ticket={n}")).await;
                let method = Method::from_bytes(format!("FETCH{n}").as_bytes()).expect("a method");
                browser.send(method.clone(), "/token", None, &[]).await;
                browser.send(method, &format!("/{n}"), None, &[("host", &format!("h{n}.test"))]).await;
                watched.token(SITE_SECRET, &format!("grant-{n}")).await;
                watched.site.call(&format!("client-{n}"), "x", "/token", &[("grant_type", "refresh_token")]).await;
            }
        };
        flood(&watched, 0..1).await;
        let before = watched.metrics().await;
        flood(&watched, 1..40).await;
        let after = watched.metrics().await;
        let names = |metrics: &Metrics| metrics.values.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&before), names(&after));
        let other = [("method", "_OTHER"), ("route", "unmatched"), ("status", "404")];
        assert_eq!(after.value(REQUESTS, &other) - before.value(REQUESTS, &other), 39.0, "all were counted");
        let routes = after.label_values(REQUESTS, "route");
        for expected in ["/assets/{name}", "/token", "/login", "unmatched"] {
            assert!(routes.contains(expected), "{expected} in {routes:?}");
        }
        assert!(after.label_values(REQUESTS, "method").contains("_OTHER"));
    }
}

mod logs {
    use super::*;

    /// The lines of a log, each of which has to be a JSON object.
    fn lines(ran: &Ran) -> Vec<Value> {
        let parsed = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        ran.stderr.lines().map(parsed).collect()
    }

    fn request_id(page: &Page) -> String {
        page.header("x-request-id").expect("an id").to_owned()
    }

    const JSON: &str = "[log]\nformat = \"json\"\n[rate_limits]\nlogin = { attempts = 1 }\n";

    #[tokio::test]
    async fn every_line_is_json_and_bears_the_id_of_its_request() {
        let site = Site::new(JSON);
        let running = site.serve().await;
        let mut browser = site.browser();
        let mut answered = Vec::new();
        for path in ["/jwks", "/nowhere/%22%7D%0a?code=c-1", "/assets/style.css?v=1", "/login"] {
            let page = browser.get(path).await;
            answered.push((request_id(&page), path.split('?').next().expect("a path"), page.status));
        }
        let mut throttled = None;
        for _ in 0..3 {
            let page = browser.get("/login").await;
            let page = browser.submit(&page, &[("username", "alice"), ("password", "wrong")]).await;
            throttled = (page.status == StatusCode::TOO_MANY_REQUESTS).then(|| request_id(&page)).or(throttled);
        }
        let throttled = throttled.expect("a pause");
        let ran = running.terminate().await.ok();
        let lines = lines(&ran);
        for line in &lines {
            let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}"));
            assert!(["ERROR", "WARN", "INFO"].contains(&text("level")), "{line}");
            assert!(text("timestamp").ends_with('Z') && !text("message").is_empty(), "{line}");
            assert!(text("target").starts_with("keyward"), "{line}");
        }
        let of = |id: &str| lines.iter().filter(|line| line["request_id"] == id).collect::<Vec<_>>();
        for (id, path, status) in answered {
            let [line] = of(&id)[..] else { panic!("{id}: {:?}", of(&id)) };
            assert_eq!((&line["path"], &line["method"]), (&json!(path), &json!("GET")), "{line}");
            assert_eq!(line["status"], status.as_u16(), "{line}");
            assert!(line["duration_ms"].as_f64().is_some_and(|taken| taken > 0.0), "{line}");
        }
        let routes: BTreeSet<_> = lines.iter().filter_map(|line| line["route"].as_str()).collect();
        assert!(routes.is_superset(&["/jwks", "/assets/{name}", "/login", "-"].into()), "{routes:?}");
        // What is logged in the middle of a request bears its id as well.
        let messages: Vec<_> = of(&throttled).iter().map(|line| line["message"].as_str().expect("a text")).collect();
        assert_eq!(messages, ["a sign-in was throttled", "request"]);
        assert_eq!(lines.last().expect("a line")["message"], "stopping", "nothing is lost at the end");
    }

    #[tokio::test]
    async fn a_quiet_log_still_says_which_request_it_speaks_of() {
        for format in ["json", "pretty"] {
            let site = Site::new(&format!("[log]\nformat = \"{format}\"\n"));
            let running = site.serve_with(&[("KEYWARD_LOG", "warn")]).await;
            let mut browser = site.browser();
            let good = request_id(&browser.get("/jwks").await);
            let evil = "/authorize?client_id=web&response_type=code&redirect_uri=https://evil.test/cb";
            let refused = request_id(&browser.get(evil).await);
            let ran = running.terminate().await.ok();
            assert!(ran.stderr.contains(&refused) && !ran.stderr.contains(&good), "{}", ran.stderr);
        }
    }

    /// An id of a proxy ties its log to ours. One that anybody may choose could pass for another request's.
    #[tokio::test]
    async fn the_id_of_a_request_is_taken_from_a_trusted_proxy_alone() {
        let long = "a".repeat(65);
        for (trusted, given, taken) in [
            ("[\"127.0.0.1\"]", "req-1.A_b", true),
            ("[\"127.0.0.1\"]", &long[..64], true),
            ("[]", "req-1.A_b", false),
            ("[\"127.0.0.1\"]", &long, false),
            ("[\"127.0.0.1\"]", "", false),
            ("[\"127.0.0.1\"]", "x\" level=\"ERROR", false),
            ("[\"127.0.0.1\"]", "a b", false),
            ("[\"127.0.0.1\"]", "\u{e9}", false),
        ] {
            let site = Site::new(&format!("[proxy]\ntrusted = {trusted}\n"));
            let running = site.serve().await;
            let page = site.browser().send(Method::GET, "/jwks", None, &[("x-request-id", given)]).await;
            let id = request_id(&page);
            assert_eq!(id == given, taken, "{trusted} {given}");
            let ran = running.terminate().await.ok();
            assert!(ran.stderr.contains(&id) && (taken || given.is_empty() || !ran.stderr.contains(given)), "{given}");
        }
    }

    /// A path can be long; a flood of long ones should not fill the disk.
    #[tokio::test]
    async fn a_long_path_is_cut_off() {
        let site = Site::new("");
        let running = site.serve().await;
        for letter in ["a", "\u{e9}"] {
            let mut client = TcpStream::connect(("127.0.0.1", site.port)).expect("a connection");
            let request = format!("GET /x{} HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n", letter.repeat(4000));
            client.write_all(request.as_bytes()).expect("written");
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        }
        let ran = running.terminate().await.ok();
        for letter in ["a", "\u{e9}"] {
            assert!(ran.stderr.contains(&letter.repeat(100)) && !ran.stderr.contains(&letter.repeat(300)), "{letter}");
        }
    }

    /// Whoever reads the log has stopped doing so: people sign in all the same, and the process ends when told to.
    #[tokio::test]
    async fn a_log_that_nobody_reads_holds_up_nobody() {
        use std::process::Stdio;
        let site = Site::new("");
        let mut command = site.command(&["serve"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut unread = child.stderr.take().expect("its log");
        let mut browser = site.browser();
        wait_for("the port", async || TcpStream::connect(("127.0.0.1", site.port)).ok()).await;
        // A pipe holds 64 KiB, which these outgrow by far.
        let long = format!("/{}", "a".repeat(300));
        for _ in 0..400 {
            assert_eq!(browser.get(&long).await.status, StatusCode::NOT_FOUND);
        }
        let page = site.sign_in(&mut browser, "alice", SITE_PASSWORD).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(site.is_signed_in(&mut browser).await);
        let told = std::process::Command::new("sh").arg("-c").arg(format!("kill -TERM {}", child.id())).status();
        assert!(told.expect("a shell").success());
        let status = wait_for("its end", async || child.try_wait().expect("its state")).await;
        assert_eq!(status.code(), Some(0));
        let mut held = String::new();
        unread.read_to_string(&mut held).expect("what the pipe held");
        assert!(held.matches(&"a".repeat(200)).count() < 400, "the pipe was never full, so nothing was tested");
    }
}

mod traces {
    use super::*;

    const SOON: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");
    /// What a caller in front of us sends (W3C Trace Context).
    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn raw_trace_id() -> Vec<u8> {
        (0..16).map(|n| u8::from_str_radix(&TRACE_ID[2 * n..2 * n + 2], 16).expect("hex")).collect()
    }

    #[tokio::test]
    async fn a_request_and_its_steps_reach_the_collector() {
        let collector = Collector::start().await;
        let site = Site::new("[log]\nformat = \"json\"\n");
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-secret");
        let running = site.serve_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint), headers]).await;
        site.tokens(&mut site.browser(), "alice", SITE_PASSWORD).await;
        site.browser().get("/nowhere/at-all").await;
        let ran = running.terminate().await.ok();
        // What was not sent yet is sent at the end.
        for expected in [
            "service.name",
            "keyward",
            "service.version",
            env!("CARGO_PKG_VERSION"),
            "POST /token",
            "POST /login",
            "GET /authorize/resume",
            "http.request.method",
            "http.route",
            "http.response.status_code",
            "url.path",
            "/nowhere/at-all",
            "password hash",
            "database read",
            "database write",
            "sign",
        ] {
            assert!(collector.has(expected), "{expected}");
        }
        assert!(!collector.has("url.query") && !collector.has("response_type"), "paths only");
        assert_eq!(collector.authorization().as_deref(), Some("Bearer collector-secret"));
        // The log leads to the trace.
        let token = ran.stderr.lines().find(|line| line.contains("\"route\":\"/token\"")).expect("its line");
        let line: Value = serde_json::from_str(token).expect("JSON");
        let id = line["trace_id"].as_str().expect("a trace id");
        let raw: Vec<u8> = (0..16).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).expect("hex")).collect();
        assert!(contains(&collector.bytes(), &raw), "{line}");
    }

    #[tokio::test]
    async fn its_name_and_its_sampler_come_from_the_environment() {
        let collector = Collector::start().await;
        let endpoint = format!("{}/v1/traces", collector.endpoint);
        let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str());
        let site = Site::new("");
        let name = ("OTEL_SERVICE_NAME", "northwind-id");
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging");
        let running = site.serve_with(&[endpoint, name, attributes]).await;
        running.terminate().await.ok();
        assert!(collector.has("northwind-id") && collector.has("staging"));
        let received = collector.bytes().len();
        let running = site.serve_with(&[endpoint, ("OTEL_TRACES_SAMPLER", "always_off")]).await;
        let ran = running.terminate().await.ok();
        assert_eq!(collector.bytes().len(), received, "nothing is sampled");
        assert!(!ran.stderr.contains("trace_id"), "an id that leads nowhere: {}", ran.stderr);
    }

    #[tokio::test]
    async fn nothing_is_sent_unless_the_environment_asks_for_it() {
        let collector = Collector::start().await;
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str());
        let site = Site::new("");
        for (variables, warned) in [
            (&[][..], false),
            (&[endpoint, ("OTEL_SDK_DISABLED", "true")], false),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], false),
            (&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], true),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@ no url")], true),
        ] {
            let running = site.serve_with(variables).await;
            assert!(site.is_accepted("web", SITE_SECRET).await);
            let ran = running.terminate().await.ok();
            assert_eq!(ran.stderr.contains("no traces will be sent"), warned, "{variables:?}: {}", ran.stderr);
            assert!(!ran.stderr.contains("hunter2") && !ran.stderr.contains("trace_id"), "{}", ran.stderr);
        }
        assert!(collector.bytes().is_empty());
    }

    /// Whoever names a parent decides what is recorded, and under which id: only a trusted proxy may.
    #[tokio::test]
    async fn a_parent_counts_from_a_trusted_proxy_alone() {
        for (trusted, joined) in [("[\"127.0.0.1\"]", true), ("[]", false)] {
            let collector = Collector::start().await;
            let site = Site::new(&format!("[proxy]\ntrusted = {trusted}\n[log]\nformat = \"json\"\n"));
            let running = site.serve_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)]).await;
            let headers = [("traceparent", PARENT), ("tracestate", "vendor=1")];
            let page = site.browser().send(Method::GET, "/jwks", None, &headers).await;
            assert_eq!(page.status, StatusCode::OK);
            let broken = [("traceparent", "00-nonsense")];
            assert_eq!(site.browser().send(Method::GET, "/jwks", None, &broken).await.status, StatusCode::OK);
            let ran = running.terminate().await.ok();
            assert!(collector.has("GET /jwks"));
            assert_eq!(contains(&collector.bytes(), &raw_trace_id()), joined, "{trusted}");
            assert_eq!(ran.stderr.contains(TRACE_ID), joined, "{trusted}: {}", ran.stderr);
        }
    }

    #[tokio::test]
    async fn a_collector_that_is_away_disturbs_nobody_and_is_told_once() {
        let site = Site::new("");
        let endpoint = format!("http://127.0.0.1:{}", free_port());
        // The retries of one batch end after this time.
        let timeout = ("OTEL_EXPORTER_OTLP_TIMEOUT", "100");
        let running = site.serve_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), SOON, timeout]).await;
        let mut browser = site.browser();
        site.tokens(&mut browser, "alice", SITE_PASSWORD).await;
        let told = "traces do not reach the collector";
        wait_for("a warning", async || running.stderr().contains(told).then_some(())).await;
        for _ in 0..50 {
            assert_eq!(browser.get("/jwks").await.status, StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let ran = running.terminate().await.ok();
        assert_eq!(ran.stderr.matches(told).count(), 1, "{}", ran.stderr);
    }

    #[tokio::test]
    async fn a_collector_that_never_answers_does_not_keep_it_from_ending() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
        let site = Site::new("");
        let running = site.serve_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), SOON]).await;
        site.tokens(&mut site.browser(), "alice", SITE_PASSWORD).await;
        let mut taken = Vec::new();
        taken.push(silent.accept().await.expect("a batch"));
        assert!(site.is_accepted("web", SITE_SECRET).await);
        running.terminate().await.ok();
    }
}
