//! Several processes of the program on one PostgreSQL, with one issuer, each with a directory of its own: to people and
//! apps they are one provider.

mod outage;

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use keyward::ambient::{SystemRng, random_bytes};

use crate::attacks::races::{
    End, Granted, assert_dead, many_redemptions_of_one_code, many_refreshes_of_one_rotating_token, redemption_against,
    refreshes_against,
};
use crate::authorize::{code_at_app, hidden, is_consent, is_sign_in, type_password};
use crate::support::process::{Running, Site, over_the_wire};
use crate::support::{Backend, CALLBACK, CONFIG, Doors, PASSWORDS, Page};

/// The processes, by the doors they are reached at.
pub struct Cluster {
    pub sites: Vec<Site>,
    pub running: Vec<Running>,
    pub doors: Doors,
}

impl Cluster {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::on(&Backend::Postgres.create(dir.path()).await, 2, "").await
    }

    /// Starts all of them at once, on a database that may be empty.
    async fn on(database_url: &str, many: usize, more: &str) -> Self {
        let mut sites: Vec<Site> = (0..many).map(|_| Site::empty()).collect();
        let issuer = sites[0].issuer.clone();
        let master_key = URL_SAFE_NO_PAD.encode(random_bytes::<32>(&SystemRng));
        for site in &mut sites {
            site.issuer = issuer.clone();
            copy_of_the_key(&site.path("keys"), &master_key);
            let head = format!("issuer = \"{issuer}\"\nlisten = \"127.0.0.1:{}\"\n", site.port);
            site.configure(&format!("{head}{CONFIG}\n{PASSWORDS}[database]\nurl = \"{database_url}\"\n{more}"));
        }
        let mut running: Vec<Running> = sites.iter().map(|site| Running::start(site.command(&["serve"]), "")).collect();
        for (site, running) in sites.iter().zip(&mut running) {
            site.answers(running).await;
        }
        let doors = Doors::new(sites.iter().map(|site| over_the_wire(&site.base())).collect(), &issuer);
        Self { sites, running, doors }
    }

    /// A command of the operator, at one of the hosts.
    pub async fn operate(&self, host: usize, args: &[&str]) {
        self.sites[host].run(args).await.ok();
    }

    /// What holds at every door, within a second from now.
    pub async fn within_a_second(&self, what: &str, mut holds: impl AsyncFnMut(usize) -> bool) {
        let doors = self.sites.len();
        self.sites[0]
            .within_a_second(what, async || {
                for door in 0..doors {
                    if !holds(door).await {
                        return false;
                    }
                }
                true
            })
            .await;
    }

    async fn sign_in(&self, door: usize, username: &str, password: &str) -> Page {
        let mut browser = self.doors.browser(door);
        let page = browser.get("/login").await;
        browser.submit(&page, &[("username", username), ("password", password)]).await
    }
}

/// The master key as an operator carries it to another host.
fn copy_of_the_key(dir: &Path, key: &str) {
    std::fs::create_dir(dir).expect("a directory");
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(dir.join("master.key")).expect("a file");
    writeln!(file, "{key}").expect("written");
}

#[tokio::test]
async fn processes_that_start_at_once_on_an_empty_database_are_one_provider() {
    for _ in 0..3 {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::on(&Backend::Postgres.create(dir.path()).await, 4, "").await;
        let jwks = cluster.doors.browser(0).get("/jwks").await.body;
        for door in 1..4 {
            assert_eq!(cluster.doors.browser(door).get("/jwks").await.body, jwks);
            let page = cluster.sign_in(door, "bob", "battery staple").await;
            assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
        }
        let people = cluster.sites[3].json(&["user", "list"]).await;
        assert_eq!(people.as_array().expect("a list").len(), 2, "{people}");
    }
}

/// Behind a load balancer that sends every request to another process than the one before.
#[tokio::test]
async fn a_sign_in_goes_on_at_any_process() {
    let mut cluster = Cluster::start().await;
    let doors = cluster.doors.clone();
    for first in 0..2 {
        // One small enough for a URL, and one that waits in the database.
        for state in ["xyz".to_owned(), "s".repeat(2000)] {
            let mut browser = doors.wandering(first);
            let more = format!("scope=openid+email+offline_access&prompt=consent&state={state}");
            let page = browser.get(&doors.authorize_url_for("web", &more)).await;
            let sign_in = browser.follow(page).await;
            assert!(is_sign_in(&sign_in), "{}", sign_in.body);
            // The form's token, made by the one, counts at the other; a wrong one at neither.
            let forged = browser.submit(&sign_in, &[("username", "alice"), ("password", "x"), ("csrf", "x")]).await;
            assert_eq!(forged.status, StatusCode::FORBIDDEN);
            let consent = type_password(&mut browser, &sign_in).await;
            assert!(is_consent(&consent), "{}", consent.body);
            assert_ne!(hidden(&consent, "csrf"), hidden(&sign_in, "csrf"));
            let page = browser.submit(&consent, &[("decision", "allow")]).await;
            let page = browser.follow(page).await;
            assert_eq!(page.location_params()["state"], state);
            let code = code_at_app(&page);
            // The sign-in is over, at whichever door somebody tries again.
            let again = browser.submit(&consent, &[("decision", "allow")]).await;
            assert_eq!(browser.follow(again).await.status, StatusCode::BAD_REQUEST);

            let mut tokens = doors.redeem(first + 1, "web", &code).await;
            assert_eq!(tokens.status, 200, "{}", tokens.body);
            for door in 0..4 {
                assert_eq!(
                    doors.userinfo(door, &tokens.text("access_token")).await.json()["email"],
                    "alice@example.com"
                );
                tokens = doors.refresh(door + 1, "web", &tokens.text("refresh_token")).await;
                assert_eq!(tokens.status, 200, "{}", tokens.body);
            }
            // The session that began behind both is known at each, and ends at both.
            let mut there = doors.moved(&browser, first);
            assert!(doors.is_signed_in(&mut there).await);
            let confirm = browser.get("/logout").await;
            let page = browser.submit(&confirm, &[("action", "logout")]).await;
            assert!(page.body.contains("signed out"), "{}", page.body);
            for door in 0..2 {
                assert!(!doors.is_signed_in(&mut doors.moved(&there, door)).await, "at door {door}");
            }
            assert_eq!(
                doors.refresh(0, "web", &tokens.text("refresh_token")).await.status,
                200,
                "offline access stays"
            );
        }
    }

    // A rotating token, refreshed here and there; and then one of the processes is gone without a word.
    let mut browser = doors.browser(0);
    let code = doors.code_for(&mut browser, "spa", "openid+offline_access").await;
    let mut tokens = doors.redeem(1, "spa", &code).await;
    for door in 0..5 {
        let next = doors.refresh(door, "spa", &tokens.text("refresh_token")).await;
        assert_eq!(next.status, 200, "{}", next.body);
        let retried = doors.refresh(door + 1, "spa", &tokens.text("refresh_token")).await;
        assert_eq!(retried.text("refresh_token"), next.text("refresh_token"), "one successor at both");
        tokens = next;
    }
    let begun = browser.get(&doors.authorize_url_for("web", "prompt=login+consent")).await;
    let begun = browser.follow(begun).await;
    let gone = cluster.running.remove(0);
    gone.signal("KILL");
    gone.wait().await;
    assert_eq!(doors.userinfo(1, &tokens.text("access_token")).await.status, 200);
    assert_eq!(doors.refresh(1, "spa", &tokens.text("refresh_token")).await.status, 200);
    let mut browser = doors.moved(&browser, 1);
    assert!(doors.is_signed_in(&mut browser).await);
    assert!(is_consent(&type_password(&mut browser, &begun).await));
}

#[tokio::test]
async fn what_ends_at_one_process_has_ended_at_all_within_a_second() {
    let cluster = Cluster::start().await;
    let doors = &cluster.doors;
    let fresh = async |door: usize| Granted::tokens(doors, ["first", "spa"][door % 2], "openid").await;
    for door in 0..2 {
        // A token, a grant, a session: not a moment later.
        let granted = fresh(door).await;
        let tokens = granted.tokens.clone();
        let access = tokens.text("access_token");
        let revoked = doors.call(door, granted.client_id, "/revoke", &[("token", &access)]).await;
        assert_eq!(revoked.status, 200);
        assert_eq!(doors.userinfo(door + 1, &access).await.status, 401);
        let client_id = granted.client_id;
        granted.revoke(doors, door).await;
        assert_dead(doors, client_id, &tokens).await;
        let granted = fresh(door).await;
        let (tokens, browser) = (granted.tokens.clone(), granted.browser.clone());
        assert!(doors.is_signed_in(&mut doors.moved(&browser, door + 1)).await);
        granted.sign_out(doors, door).await;
        assert!(!doors.is_signed_in(&mut doors.moved(&browser, door + 1)).await);
        assert_dead(doors, client_id, &tokens).await;

        // What an operator does at one host.
        for change in ["disable", "set-password"] {
            let granted = fresh(door).await;
            let access = granted.tokens.text("access_token");
            let site = &cluster.sites[door];
            site.run_with(&["user", change, "alice"], "correct horse\n").await.ok();
            cluster
                .within_a_second("the token dies", async |door| doors.userinfo(door, &access).await.status == 401)
                .await;
            assert_dead(doors, granted.client_id, &granted.tokens).await;
            for door in 0..2 {
                assert!(!doors.is_signed_in(&mut doors.moved(&granted.browser, door)).await);
                let page = cluster.sign_in(door, "alice", "correct horse").await;
                assert_eq!(page.status == StatusCode::SEE_OTHER, change != "disable", "{change}");
            }
            cluster.operate(door, &["user", "enable", "alice"]).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_is_changed_at_one_process_is_changed_at_all_within_a_second() {
    let cluster = Cluster::start().await;
    let doors = &cluster.doors;
    let create = ["client", "create", "--client-id", "app", "--redirect-uri", CALLBACK, "--scope", "openid"];
    let more = ["--first-party", "true", "--grant-type", "client_credentials", "--grant-type", "authorization_code"];
    let made = cluster.sites[0].json(&[&create[..], &more].concat()).await;
    let first = made["client_secret"].as_str().expect("a secret").to_owned();
    let accepted = async |door: usize, secret: &str| cluster.sites[door].is_accepted("app", secret).await;
    cluster.within_a_second("it is known", async |door| accepted(door, &first).await).await;
    for (host, door) in [(0, 1), (1, 0)] {
        let code = doors.code(&mut doors.browser(door), &doors.authorize_url_for("app", "scope=openid")).await;
        let redeem = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let secret = if host == 0 { first.clone() } else { rotated(&cluster, 0).await };
        if host == 1 {
            cluster.within_a_second("the new secret works", async |door| accepted(door, &secret).await).await;
            cluster.within_a_second("the old one does not", async |door| !accepted(door, &first).await).await;
        }
        let tokens = cluster.sites[door].call("app", &secret, "/token", &redeem).await;
        let access = tokens.text("access_token");
        assert_eq!(doors.userinfo(host, &access).await.status, 200);

        cluster.operate(host, &["client", "update", "app", "--disabled", "true"]).await;
        cluster.within_a_second("it is refused", async |door| !accepted(door, &secret).await).await;
        for door in 0..2 {
            assert_eq!(doors.userinfo(door, &access).await.status, 401);
            let page = doors.browser(door).get(&doors.authorize_url_for("app", "")).await;
            assert_eq!(page.status, StatusCode::BAD_REQUEST);
        }
        cluster.operate(door, &["client", "update", "app", "--disabled", "false"]).await;
        cluster.within_a_second("it is back", async |door| accepted(door, &secret).await).await;
    }
}

/// A new secret that replaces the old one at once.
async fn rotated(cluster: &Cluster, host: usize) -> String {
    let made = cluster.sites[host].json(&["client", "rotate-secret", "app", "--overlap", "0s"]).await;
    made["client_secret"].as_str().expect("a secret").to_owned()
}

#[tokio::test]
async fn tries_are_counted_over_all_processes() {
    let cluster = Cluster::start().await;
    for (turn, left) in
        ["4 tries left", "3 tries left", "2 tries left", "1 try left", "No tries left"].iter().enumerate()
    {
        let page = cluster.sign_in(turn, "bob", "wrong").await;
        assert!(page.body.contains(left), "{turn}: {}", page.body);
    }
    for door in 0..2 {
        let page = cluster.sign_in(door, "bob", "battery staple").await;
        assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "at door {door}");
        let page = cluster.sign_in(door, "alice", "correct horse").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "at door {door}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn races_between_processes_have_one_winner() {
    let cluster = Cluster::start().await;
    let doors = &cluster.doors;
    for client_id in ["first", "spa"] {
        for _ in 0..3 {
            many_redemptions_of_one_code(doors, client_id).await;
        }
    }
    for _ in 0..2 {
        many_refreshes_of_one_rotating_token(doors).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_lives_at_one_process_after_the_other_has_ended_it() {
    let cluster = Cluster::start().await;
    let doors = &cluster.doors;
    let revoke = |granted: Granted| -> End<'_> { Box::new(move || Box::pin(granted.revoke(doors, 0))) };
    refreshes_against(doors, 24, revoke, async || ()).await;
    let sign_out = |granted: Granted| -> End<'_> { Box::new(move || Box::pin(granted.sign_out(doors, 1))) };
    refreshes_against(doors, 12, sign_out, async || ()).await;
    redemption_against(doors, 16, sign_out, async || ()).await;
    // By an operator, whose command is a third process.
    let disable = |_: Granted| -> End<'_> {
        let cluster = &cluster;
        Box::new(move || Box::pin(cluster.operate(0, &["user", "disable", "alice"])))
    };
    let enable = async || cluster.operate(1, &["user", "enable", "alice"]).await;
    refreshes_against(doors, 4, disable, enable).await;
    redemption_against(doors, 4, disable, enable).await;
}
