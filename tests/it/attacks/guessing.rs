//! Guessing passwords through the sign-in APIs: what the sixth try is told, by whatever address and door it comes; a
//! botnet; what a guess costs us.

#![allow(clippy::disallowed_methods)] // How long somebody waits is real time.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use keyward::protocol::time::Span;
use serde_json::{Value, json};

use crate::first_party::{elsewhere, let_rs_introspect, post, post_from, registered, signed_up};
use crate::login::seconds_to_wait;
use crate::on_both_databases;
use crate::support::{Browser, Page, Provider, json as call};

const PASSWORD: &str = "correct horse";
const WRONG: &str = "wrong";

/// One try for an account by each of the doors.
#[derive(Clone, Copy)]
enum Door {
    PageByName,
    PageByEmail,
    Study,
    Game,
}

impl Door {
    const ALL: [Self; 4] = [Self::PageByName, Self::PageByEmail, Self::Study, Self::Game];

    /// Tries a password of alice's.
    async fn tries(self, provider: &Provider, browser: &mut Browser, password: &str) -> Page {
        match self {
            Self::PageByName => provider.sign_in_as(browser, "alice", password).await,
            Self::PageByEmail => provider.sign_in_as(browser, "Alice@Example.com", password).await,
            Self::Study => study(browser, "alice", password).await,
            Self::Game => game(browser, "alice@example.com", password).await,
        }
    }

    /// How the right password is answered.
    const fn lets_in(self) -> StatusCode {
        match self {
            Self::PageByName | Self::PageByEmail => StatusCode::SEE_OTHER,
            Self::Study | Self::Game => StatusCode::OK,
        }
    }
}

async fn study(browser: &mut Browser, name: &str, password: &str) -> Page {
    post(browser, "/api/auth/login", json!({ "username": name, "password": password })).await
}

async fn game(browser: &mut Browser, email: &str, password: &str) -> Page {
    post(browser, "/auth/login", json!({ "email": email, "password": password })).await
}

/// An answer without what differs between any two: its id, and how many seconds are left.
fn shape(page: &Page) -> (u16, String, Vec<String>) {
    let passing = ["x-request-id", "retry-after", "ratelimit-reset", "ratelimit"];
    let headers = page.headers.iter().map(|(name, value)| match name.as_str() {
        name if passing.contains(&name) => name.to_owned(),
        name => format!("{name}: {value:?}"),
    });
    (page.status.as_u16(), page.body.clone(), headers.collect())
}

on_both_databases! {
    /// Also with the right password, and whether or not there is such an account.
    async fn attack_148_the_sixth_call_is_not_looked_at_either(provider: Provider) {
        let mut told = Vec::new();
        for (network, known) in [(1, true), (2, false)] {
            let (name, email) = if known { ("alice", "alice@example.com") } else { ("nobody", "nobody@example.com") };
            let (mut at_study, mut at_game) = (elsewhere(&provider, network), elsewhere(&provider, network + 10));
            let mut answers = Vec::new();
            for _ in 0..5 {
                answers.push(study(&mut at_study, name, WRONG).await);
                answers.push(game(&mut at_game, email, WRONG).await);
            }
            assert!(answers.iter().all(|page| page.status == 401));
            let before = provider.row_counts().await;
            answers.push(study(&mut at_study, name, PASSWORD).await);
            answers.push(game(&mut at_game, email, PASSWORD).await);
            assert_eq!(provider.row_counts().await, before, "whoever goes on leaves no trace");
            for page in &answers[10..] {
                assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
                let wait = page.header("retry-after").and_then(|wait| wait.parse::<i64>().ok()).expect("seconds");
                assert!((880..=900).contains(&wait), "{wait}");
            }
            told.push(answers.iter().map(shape).collect::<Vec<_>>());
        }
        assert_eq!(told[0], told[1]);
        assert_eq!(study(&mut elsewhere(&provider, 3), "alice", PASSWORD).await.status, StatusCode::OK);
        assert_eq!(game(&mut elsewhere(&provider, 4), "alice@example.com", PASSWORD).await.status, StatusCode::OK);
        provider.pass(Span::minutes(15));
        assert_eq!(study(&mut elsewhere(&provider, 1), "alice", PASSWORD).await.status, StatusCode::OK);
        assert_eq!(game(&mut elsewhere(&provider, 11), "alice@example.com", PASSWORD).await.status, StatusCode::OK);
    }

    async fn attack_149_no_header_makes_a_caller_somebody_else(provider: Provider) {
        for (path, body) in [
            ("/api/auth/login", json!({ "username": "alice", "password": WRONG })),
            ("/auth/login", json!({ "email": "alice@example.com", "password": WRONG })),
        ] {
            let addresses = ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:ffff::9"];
            let mapped = ["192.0.2.7", "::ffff:192.0.2.7", "64:ff9b::c000:207"];
            for network in [addresses, mapped] {
                let mut statuses = Vec::new();
                for turn in 0..7 {
                    let (listed, forwarded) = (format!("198.51.100.{turn}"), format!("for=198.51.100.{turn}"));
                    let headers = [
                        ("x-forwarded-for", listed.as_str()), ("forwarded", forwarded.as_str()), ("x-real-ip", listed.as_str()),
                        ("x-client-ip", listed.as_str()), ("cf-connecting-ip", listed.as_str()),
                    ];
                    let mut browser = provider.browser_from(network[turn % 3]);
                    statuses.push(call(&mut browser, "POST", path, body.clone(), &headers).await.status.as_u16());
                }
                assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429], "{path} {network:?}");
            }
            provider.pass(Span::minutes(15));
        }
        let mut neighbour = provider.browser_from("2001:db8:1:3::1");
        assert_eq!(study(&mut neighbour, "alice", PASSWORD).await.status, StatusCode::OK);
        assert_eq!(game(&mut neighbour, "alice@example.com", PASSWORD).await.status, StatusCode::OK);
    }

    /// Pages and both APIs, user name and address: one account, one budget in a network.
    async fn attack_150_another_door_gives_no_further_tries(provider: Provider) {
        let mut browser = provider.browser();
        for door in Door::ALL.into_iter().chain([Door::Game]) {
            let page = door.tries(&provider, &mut browser, WRONG).await;
            assert!([StatusCode::OK, StatusCode::UNAUTHORIZED].contains(&page.status), "{}", page.body);
        }
        for door in Door::ALL {
            let page = door.tries(&provider, &mut browser, PASSWORD).await;
            assert!(seconds_to_wait(&page) > 800);
            let elsewhere = door.tries(&provider, &mut elsewhere(&provider, 1), PASSWORD).await;
            assert_eq!(elsewhere.status, door.lets_in());
        }
        // Tokens are not concerned: what is open stays open, and is refreshed.
        let page = game(&mut elsewhere(&provider, 2), "alice@example.com", PASSWORD).await;
        let token = json!({ "refresh_token": page.json()["data"]["refresh_token"] });
        assert_eq!(post(&mut browser, "/auth/refresh", token).await.status, StatusCode::OK);
    }

    /// One password over many names.
    async fn attack_150_a_network_that_calls_with_many_names_is_stopped(provider: Provider) {
        registered(&mut elsewhere(&provider, 1), "a@b.test", "s3cur3pass", "device-1").await;
        let mut browser = provider.browser();
        for turn in 0..50 {
            // Those who know their password cost their network nothing.
            if turn % 10 == 0 {
                assert_eq!(game(&mut browser, "a@b.test", "s3cur3pass").await.status, StatusCode::OK, "{turn}");
            }
            assert_eq!(game(&mut browser, &format!("name-{turn}@b.test"), "123456").await.status, 401, "{turn}");
        }
        let before = provider.row_counts().await;
        seconds_to_wait(&game(&mut browser, "a@b.test", "s3cur3pass").await);
        seconds_to_wait(&provider.sign_in_as(&mut browser, "bob", "battery staple").await);
        assert_eq!(provider.row_counts().await, before);
        seconds_to_wait(&study(&mut browser, "bob", "battery staple").await);
        assert_eq!(game(&mut elsewhere(&provider, 2), "a@b.test", "s3cur3pass").await.status, StatusCode::OK);
    }

    /// Accounts without end: forty times as many as tries, for whole classes sign up at once.
    async fn attack_150_a_network_that_makes_account_after_account_is_stopped(provider: Provider) {
        let more = "[rate_limits]\nlogin = { attempts = 1, window = \"15m\" }\n";
        let provider = Provider::start_with(provider.backend(), "https://id.test", more).await;
        let mut maker = provider.browser();
        for turn in 0..40 {
            registered(&mut maker, &format!("new-{turn}@b.test"), "s3cur3pass", &format!("new-{turn}")).await;
        }
        let body = json!({ "email": "new@b.test", "password": "s3cur3pass", "deviceId": "new" });
        let before = provider.row_counts().await;
        seconds_to_wait(&post(&mut maker, "/auth/register", body.clone()).await);
        assert_eq!(provider.row_counts().await, before);
        // Who is there already signs in, also from there.
        assert_eq!(game(&mut maker, "new-0@b.test", "s3cur3pass").await.status, StatusCode::OK);
        assert_eq!(post_from(&provider, 1, "/auth/register", body).await.status, StatusCode::CREATED);
    }

    /// A botnet makes strangers wait, and locks nobody out: not them, and least of all who was here before.
    async fn attack_150_a_password_that_is_tried_from_everywhere_is_tried_slowly(provider: Provider) {
        let mut at_home = provider.browser_from("192.0.2.1");
        assert_eq!(provider.sign_in(&mut at_home).await.status, StatusCode::SEE_OTHER);
        at_home.cookies.retain(|name, _| name.ends_with("keyward_device"));
        for network in 0..20 {
            for _ in 0..5 {
                let page = game(&mut elsewhere(&provider, network), "alice@example.com", WRONG).await;
                assert_eq!(page.status, StatusCode::UNAUTHORIZED);
            }
        }
        let begun = Instant::now();
        let strangers: Vec<_> = Door::ALL.into_iter().enumerate().map(|(n, door)| {
            let mut browser = elsewhere(&provider, 100 + n);
            let provider = &provider;
            async move {
                let page = door.tries(provider, &mut browser, PASSWORD).await;
                (page.status, door.lets_in(), begun.elapsed())
            }
        })
        .collect();
        let known = async {
            let page = provider.sign_in(&mut at_home).await;
            (page.status, begun.elapsed())
        };
        let (strangers, (status, waited)) = tokio::join!(futures_util::future::join_all(strangers), known);
        assert_eq!(status, StatusCode::SEE_OTHER);
        assert!(waited < Duration::from_millis(2500), "{waited:?}");
        for (status, lets_in, waited) in strangers {
            assert_eq!(status, lets_in, "the right password gets in");
            assert!(waited >= Duration::from_secs(3), "{waited:?}");
        }
        // Others are not concerned, nor is she herself after an hour.
        let begun = Instant::now();
        let page = provider.sign_in_as(&mut elsewhere(&provider, 200), "bob", "battery staple").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        provider.pass(Span::hours(1));
        assert_eq!(study(&mut elsewhere(&provider, 201), "alice", PASSWORD).await.status, StatusCode::OK);
        assert!(begun.elapsed() < Duration::from_millis(2500));
    }

    /// Attempts are rows: every process counts the same, and the next one goes on where this one ended.
    async fn attack_150_neither_another_process_nor_a_restart_forgets(provider: Provider) {
        let (_, there) = provider.second().await;
        let mut browsers = [provider.browser(), Browser::new(there, &provider.issuer)];
        for turn in 0..5 {
            let browser = &mut browsers[turn % 2];
            assert_eq!(study(browser, "alice", WRONG).await.status, StatusCode::UNAUTHORIZED);
            assert_eq!(game(browser, "bob@example.com", WRONG).await.status, StatusCode::UNAUTHORIZED);
        }
        for browser in &mut browsers {
            seconds_to_wait(&study(browser, "alice", PASSWORD).await);
            seconds_to_wait(&game(browser, "bob@example.com", PASSWORD).await);
        }
        drop(browsers);
        let Provider { dir, database_url, app, router, .. } = provider;
        drop((app, router));
        let provider = Provider::start_on(dir, database_url, "https://id.test", "").await;
        seconds_to_wait(&study(&mut provider.browser(), "alice", PASSWORD).await);
        seconds_to_wait(&game(&mut provider.browser(), "bob@example.com", PASSWORD).await);
        assert_eq!(study(&mut elsewhere(&provider, 1), "alice", PASSWORD).await.status, StatusCode::OK);
        provider.pass(Span::minutes(15));
        assert_eq!(study(&mut provider.browser(), "alice", PASSWORD).await.status, StatusCode::OK);
    }

    /// Lockout is for passwords: whoever is throttled keeps their tokens, and may ask about them.
    async fn attack_148_a_pause_ends_nothing_that_is_open(provider: Provider) {
        let_rs_introspect(&provider).await;
        let mut browser = provider.browser();
        let token = crate::first_party::text(&signed_up(&mut browser, "ada", "engine").await, "/token");
        for _ in 0..4 {
            assert_eq!(study(&mut browser, "ada", WRONG).await.status, StatusCode::UNAUTHORIZED);
        }
        seconds_to_wait(&study(&mut browser, "ada", "engine").await);
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        assert_eq!(browser.send(Method::GET, "/api/auth/me", None, &headers).await.status, StatusCode::OK);
        assert_eq!(provider.introspect("rs", &token).await["active"], true);
        let out = call(&mut browser, "POST", "/api/auth/logout", Value::Null, &headers).await;
        assert_eq!(out.status, StatusCode::OK);
        assert_eq!(provider.introspect("rs", &token).await["active"], false);
    }
}
