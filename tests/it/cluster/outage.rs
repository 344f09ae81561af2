//! The database goes away under two processes and comes back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use tokio::sync::Mutex;

use super::Cluster;
use crate::attacks::races::Granted;
use crate::support::process::wait_for;
use crate::support::{Browser, CALLBACK, Doors, Page};

/// A PostgreSQL of this test's own, which it can stop and start.
struct OwnPostgres {
    server: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    url: String,
}

impl OwnPostgres {
    fn start() -> Self {
        let script = "echo \"$KEYWARD_TEST_POSTGRES\"
            while read -r order; do $KEYWARD_TEST_POSTGRES_CONTROL $order >/dev/null 2>&1; echo $?; done";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres");
        let mut command = Command::new(path);
        command.args(["sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.spawn().expect("tests/postgres");
        let orders = server.stdin.take();
        let mut answers = BufReader::new(server.stdout.take().expect("its output"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("its address");
        Self { server, orders, answers, url: format!("{}/postgres", line.trim_end()) }
    }

    /// Gives `pg_ctl` an order and waits until it is carried out.
    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_ref().expect("open"), "{order}").expect("written");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        assert_eq!(line.trim_end(), "0", "{order}");
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // Without its orders the script ends, and with it the server.
        drop(self.orders.take());
        let _ = self.server.wait();
    }
}

/// What an app and a person with good credentials do. Each step says whether it came through; one that did not was
/// told to come again, and nothing else.
struct Regulars {
    doors: Doors,
    access: String,
    refresh: String,
    rotating: Mutex<String>,
    browser: Browser,
}

fn came_through(page: &Page, success: StatusCode) -> bool {
    if page.status == success {
        return true;
    }
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{:?} {}", page.headers, page.body);
    let wait: u32 = page.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("set-cookie"), None);
    false
}

impl Regulars {
    async fn new(doors: &Doors) -> Self {
        let granted = Granted::tokens(doors, "first", "openid").await;
        let rotating = Granted::tokens(doors, "spa", "openid+offline_access").await.tokens.text("refresh_token");
        let (access, refresh) = (granted.tokens.text("access_token"), granted.tokens.text("refresh_token"));
        Self { doors: doors.clone(), access, refresh, rotating: Mutex::new(rotating), browser: granted.browser }
    }

    async fn call(&self, door: usize, client_id: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let basic = format!("Basic {}", STANDARD.encode(format!("{client_id}:{client_id}-secret")));
        let headers = [("authorization", basic.as_str())];
        let headers = if client_id == "spa" { &[][..] } else { &headers };
        let fields = if client_id == "spa" { [fields, &[("client_id", "spa")]].concat() } else { fields.to_vec() };
        self.doors.browser(door).send(Method::POST, path, Some(&fields), headers).await
    }

    async fn client_credentials(&self, door: usize) -> bool {
        let page = self.call(door, "machine", "/token", &[("grant_type", "client_credentials")]).await;
        came_through(&page, StatusCode::OK)
    }

    async fn introspect(&self, door: usize) -> bool {
        let page = self.call(door, "first", "/introspect", &[("token", &self.access)]).await;
        let through = came_through(&page, StatusCode::OK);
        assert!(!through || page.json()["active"] == true, "{}", page.body);
        through
    }

    async fn userinfo(&self, door: usize) -> bool {
        came_through(&self.doors.userinfo(door, &self.access).await, StatusCode::OK)
    }

    async fn refresh(&self, door: usize) -> bool {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", self.refresh.as_str())];
        came_through(&self.call(door, "first", "/token", &fields).await, StatusCode::OK)
    }

    /// One whose answer may be lost after the rotation: then the next try gets the successor.
    async fn rotate(&self, door: usize) -> bool {
        let mut token = self.rotating.lock().await;
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        let page = self.call(door, "spa", "/token", &fields).await;
        let through = came_through(&page, StatusCode::OK);
        if through {
            *token = page.json()["refresh_token"].as_str().expect("a token").to_owned();
        }
        through
    }

    async fn session(&self, door: usize) -> bool {
        let mut browser = self.doors.moved(&self.browser, door);
        let page = browser.get(&self.doors.authorize_url_for("first", "prompt=none")).await;
        let through = came_through(&page, StatusCode::SEE_OTHER);
        assert!(!through || page.location_params().contains_key("code"), "{}", page.location());
        through
    }

    async fn sign_in(&self, door: usize) -> bool {
        let mut browser = self.doors.browser(door);
        let form = browser.get("/login").await;
        if !came_through(&form, StatusCode::OK) {
            return false;
        }
        let page = browser.submit(&form, &[("username", "alice"), ("password", "correct horse")]).await;
        came_through(&page, StatusCode::SEE_OTHER)
    }

    async fn documents(&self, door: usize) {
        for path in ["/.well-known/openid-configuration", "/jwks"] {
            assert_eq!(self.doors.browser(door).get(path).await.status, StatusCode::OK, "{path}");
        }
    }

    /// All of them once, at both doors; how many came through of how many.
    async fn all(&self) -> (usize, usize) {
        let mut outcomes = Vec::new();
        for door in 0..2 {
            let (a, b, c, d, e, f, g, ()) = tokio::join!(
                self.client_credentials(door),
                self.introspect(door),
                self.userinfo(door),
                self.refresh(door),
                self.rotate(door),
                self.session(door),
                self.sign_in(door),
                self.documents(door),
            );
            outcomes.extend([a, b, c, d, e, f, g]);
        }
        (outcomes.iter().filter(|through| **through).count(), outcomes.len())
    }

    /// Goes on with all of them until it is told to stop; how often each came through and how often not.
    async fn insist(&self, stop: &AtomicBool) -> Vec<(usize, usize)> {
        let kinds = 0..7_usize;
        join_all(kinds.map(async |kind| {
            let (mut through, mut away) = (0, 0);
            for turn in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let outcome = match kind {
                    0 => self.client_credentials(turn).await,
                    1 => self.introspect(turn).await,
                    2 => self.userinfo(turn).await,
                    3 => self.refresh(turn).await,
                    4 => self.rotate(turn).await,
                    5 => self.session(turn).await,
                    _ => self.sign_in(turn).await,
                };
                self.documents(turn).await;
                *(if outcome { &mut through } else { &mut away }) += 1;
            }
            (through, away)
        }))
        .await
    }
}

/// The database goes away, cleanly and by a crash, for a moment and for longer. Nobody with good credentials hears that
/// they are bad, and afterwards everything goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_of_the_database_is_survived_without_a_wrong_answer() {
    let mut postgres = tokio::task::spawn_blocking(OwnPostgres::start).await.expect("started");
    // A busy machine may take long over all this; what is good is to be good to its end.
    let patient = "[tokens]\nauthorization_code_ttl = \"10m\"\nrefresh_retry_window = \"10m\"\n";
    let cluster = Cluster::on(&postgres.url, 2, patient).await;
    let doors = &cluster.doors;
    let regulars = Regulars::new(doors).await;
    assert_eq!(regulars.all().await, (14, 14));
    let codes = [
        doors.code_for(&mut doors.browser(0), "first", "openid").await,
        doors.code_for(&mut doors.browser(1), "first", "openid").await,
    ];

    // While it is away.
    postgres.order("stop -m fast");
    let redeem = async |door: usize, code: &str| {
        let fields = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK)];
        came_through(&regulars.call(door, "first", "/token", &fields).await, StatusCode::OK)
    };
    // A client that was just seen is believed for up to a second, and its own tokens cost no row.
    for door in 0..2 {
        wait_for("nothing to be believed from memory", async || {
            (!regulars.client_credentials(door).await).then_some(())
        })
        .await;
    }
    let ((through, _), first, second) = tokio::join!(regulars.all(), redeem(0, &codes[0]), redeem(1, &codes[1]));
    assert_eq!((through, first, second), (0, false, false), "the database was there");
    let revoked = regulars.call(0, "first", "/revoke", &[("token", &regulars.refresh)]).await;
    assert!(!came_through(&revoked, StatusCode::OK), "a revocation that was not written was promised");
    postgres.order("start");

    // Nothing was used up, not by half.
    assert!(redeem(0, &codes[0]).await && redeem(1, &codes[1]).await);
    assert_eq!(regulars.all().await, (14, 14));

    // In the middle of everything, again and again.
    let stop = Arc::new(AtomicBool::new(false));
    let orders = tokio::task::spawn_blocking({
        let stop = Arc::clone(&stop);
        move || {
            for order in ["restart -m fast", "restart -m immediate", "restart -m fast", "stop -m immediate", "start"] {
                postgres.order(order);
                // Long enough for somebody to notice, whichever way it is.
                std::thread::sleep(Duration::from_millis(1500));
            }
            stop.store(true, Ordering::SeqCst);
            postgres
        }
    });
    let outcomes = regulars.insist(&stop).await;
    let _postgres = orders.await.expect("all orders were carried out");
    for (kind, (through, away)) in outcomes.iter().enumerate() {
        assert!(*through > 0, "kind {kind}: {through} and {away}");
    }
    // Whoever comes afterwards notices nothing.
    for _ in 0..3 {
        assert_eq!(regulars.all().await, (14, 14));
    }
    let revoked = regulars.call(0, "first", "/revoke", &[("token", &regulars.refresh)]).await;
    assert!(came_through(&revoked, StatusCode::OK));
    assert_eq!(doors.userinfo(1, &regulars.access).await.status, 401);
    for running in cluster.running {
        let ran = running.terminate().await.ok();
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
}
