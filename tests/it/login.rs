//! Signing in, the session that comes of it, and what every answer bears.

use http::{Method, StatusCode};
use keyward::account::declared::{self, Profile};
use keyward::crypto::secret::Secret;
use keyward::protocol::ids::UserId;
use keyward::protocol::time::Span;

use crate::authorize::{code_at_app, hidden, is_sign_in, open, type_password};
use crate::on_both_databases;
use crate::support::audit::{an_operator, told};
use crate::support::{Backend, Browser, CALLBACK, Page, Provider, claims_of, text_of};

pub const SESSION: &str = "__Host-keyward_session";

/// Another provider, at `issuer`, on the kind of database that `provider` has.
pub async fn provider_at(provider: &Provider, issuer: &str) -> Provider {
    let sqlite = provider.database_url.starts_with("sqlite:");
    Provider::start_with(if sqlite { Backend::Sqlite } else { Backend::Postgres }, issuer, "").await
}

/// `Set-Cookie` lines of an answer.
pub fn cookies_of(page: &Page) -> Vec<String> {
    page.headers.get_all("set-cookie").iter().map(|line| line.to_str().expect("text").to_owned()).collect()
}

/// Whether this browser is signed in, asked as an app would.
pub async fn is_signed_in(provider: &Provider, browser: &mut Browser) -> bool {
    let page = browser.get(&provider.authorize_url("prompt=none")).await;
    match page.location_params().get("error") {
        None => true,
        Some(error) => {
            assert_eq!(error, "login_required");
            false
        }
    }
}

/// An answer without what differs between any two: the request id, the form token, the name that was typed.
fn without_accidents(page: &Page, typed: &str) -> String {
    let csrf = hidden(page, "csrf");
    let body = page.body.replace(&csrf, "CSRF").replace(&format!("value=\"{typed}\""), "value=\"TYPED\"");
    let headers = page.headers.iter().filter(|(name, _)| *name != "x-request-id" && *name != "content-length");
    let headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {value:?}")).collect();
    format!("{} {headers:?} {body}", page.status)
}

/// The `sub` of alice.
async fn alice(provider: &Provider) -> UserId {
    UserId::new(claims_of(&provider.tokens("openid").await.text("id_token"))["sub"].as_str().expect("a sub"))
}

#[track_caller]
pub fn seconds_to_wait(page: &Page) -> i64 {
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "{}", text_of(&page.body));
    page.header("retry-after").expect("Retry-After").parse().expect("seconds")
}

on_both_databases! {
    async fn people_sign_in_with_a_username_or_an_email_in_any_case(provider: Provider) {
        for name in ["alice", " alice ", "alice@example.com", "Alice@Example.COM", "ＡＬＩＣＥ@example.com"] {
            let mut browser = provider.browser();
            let page = provider.sign_in_as(&mut browser, name, "correct horse").await;
            let page = browser.follow(page).await;
            assert!(text_of(&page.body).contains("You are signed in as Alice Archer"), "{name}");
        }
        for (name, password) in [
            ("Alice", "correct horse"),
            ("alice", "Correct horse"),
            ("alice", "correct horse "),
            ("alice@example.com.evil", "correct horse"),
            ("bob", "correct horse"),
            ("bob@example.com", "battery staple"),
        ] {
            let mut browser = provider.browser();
            let page = provider.sign_in_as(&mut browser, name, password).await;
            assert!(is_sign_in(&page), "{name} {password}");
            assert!(text_of(&page.body).contains("That name and password don’t match"));
            assert!(!is_signed_in(&provider, &mut browser).await);
        }
    }

    async fn a_wrong_password_an_unknown_name_and_a_disabled_account_read_alike(provider: Provider) {
        let id = alice(&provider).await;
        let mut answers = Vec::new();
        for (name, password) in [("bob", "wrong"), ("nobody", "wrong"), ("nobody@example.com", "wrong"), ("a b", "wrong")] {
            let page = provider.sign_in_as(&mut provider.browser(), name, password).await;
            answers.push(without_accidents(&page, name));
        }
        assert!(provider.app.store.set_user_disabled(id, Some(provider.app.now()), told(), provider.app.now()).await.unwrap());
        for password in ["wrong", "correct horse"] {
            // Each in a network of its own, so that the tries left are the same.
            let mut browser = provider.browser_from(if password == "wrong" { "192.0.2.1" } else { "192.0.2.2" });
            let page = provider.sign_in_as(&mut browser, "alice", password).await;
            answers.push(without_accidents(&page, "alice"));
        }
        assert!(answers[0].contains("4 tries left"), "{}", answers[0]);
        for answer in &answers {
            assert_eq!(*answer, answers[0]);
        }
    }

    async fn a_throttled_answer_is_the_same_for_a_name_that_does_not_exist(provider: Provider) {
        let mut answers = Vec::new();
        for name in ["alice", "nobody"] {
            let start = provider.app.now();
            for _ in 0..5 {
                provider.sign_in_as(&mut provider.browser(), name, "wrong").await;
            }
            // Both at the same distance from their first try.
            provider.pass(start + Span::minutes(5) - provider.app.now());
            let page = provider.sign_in_as(&mut provider.browser(), name, "wrong").await;
            assert!(seconds_to_wait(&page) <= 600);
            answers.push(without_accidents(&page, name));
        }
        assert_eq!(answers[0], answers[1]);
    }

    async fn the_right_password_forgives_the_wrong_ones(provider: Provider) {
        for _ in 0..3 {
            for _ in 0..4 {
                let page = provider.sign_in_as(&mut provider.browser(), "alice", "wrong").await;
                assert!(is_sign_in(&page));
            }
            let page = provider.sign_in_as(&mut provider.browser(), "alice", "correct horse").await;
            assert_eq!(page.status, StatusCode::SEE_OTHER);
        }
    }

    /// Sliding, so that nobody gets ten guesses around the edge of a window.
    async fn the_window_of_tries_slides(provider: Provider) {
        for _ in 0..5 {
            provider.sign_in_as(&mut provider.browser(), "alice", "wrong").await;
            provider.pass(Span::minutes(2));
        }
        let page = provider.sign_in_as(&mut provider.browser(), "alice", "wrong").await;
        let wait = seconds_to_wait(&page);
        assert!((295..=300).contains(&wait), "{wait}");
        provider.pass(Span::from_secs(wait));
        let page = provider.sign_in_as(&mut provider.browser(), "alice", "wrong").await;
        assert!(text_of(&page.body).contains("No tries left"));
        seconds_to_wait(&provider.sign_in_as(&mut provider.browser(), "alice", "correct horse").await);
    }

    async fn one_address_is_one_network_however_it_is_written(provider: Provider) {
        for address in ["192.0.2.7", "::ffff:192.0.2.7", "64:ff9b::c000:207", "192.0.2.7", "::ffff:192.0.2.7"] {
            let page = provider.sign_in_as(&mut provider.browser_from(address), "alice", "wrong").await;
            assert_eq!(page.status, StatusCode::OK);
        }
        let page = provider.sign_in_as(&mut provider.browser_from("192.0.2.7"), "alice", "correct horse").await;
        seconds_to_wait(&page);
    }

    async fn a_disabled_person_is_out_at_once(provider: Provider) {
        let id = alice(&provider).await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        assert!(is_signed_in(&provider, &mut browser).await);
        let now = provider.app.now();
        provider.app.store.set_user_disabled(id.clone(), Some(now), told(), now).await.unwrap();
        assert!(!is_signed_in(&provider, &mut browser).await);
        let page = provider.sign_in(&mut browser).await;
        assert!(is_sign_in(&page));

        provider.app.store.set_user_disabled(id, None, told(), provider.app.now()).await.unwrap();
        assert!(!is_signed_in(&provider, &mut browser).await, "the old session does not come back");
        provider.sign_in(&mut browser).await;
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    async fn passwords_of_more_than_1024_bytes_are_refused(provider: Provider) {
        let longest = "p".repeat(1024);
        let operator = an_operator();
        let create = |password: String, name: &str| {
            let profile = Profile { username: Some(name.to_owned()), ..Profile::default() };
            declared::create_user(&provider.app, profile, Some(Secret::new(password)), &operator)
        };
        create(longest.clone(), "carol").await.expect("1024 bytes");
        assert!(create(format!("{longest}p"), "dave").await.is_err());

        let page = provider.sign_in_as(&mut provider.browser(), "carol", &format!("{longest}p")).await;
        assert!(text_of(&page.body).contains("That name and password don’t match"));
        let page = provider.sign_in_as(&mut provider.browser(), "carol", &longest).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
    }

    async fn a_form_without_a_name_or_a_password_says_so_and_costs_no_try(provider: Provider) {
        for (name, password) in [("", "correct horse"), ("alice", ""), ("", "")] {
            for _ in 0..3 {
                let page = provider.sign_in_as(&mut provider.browser(), name, password).await;
                assert_eq!(page.status, StatusCode::BAD_REQUEST);
                assert!(is_sign_in(&page) && text_of(&page.body).contains("Type your name and your password"));
            }
        }
        let page = provider.sign_in_as(&mut provider.browser(), "alice", "wrong").await;
        assert!(text_of(&page.body).contains("4 tries left"));
    }

    async fn a_name_that_was_refused_stands_in_the_field_and_a_password_never(provider: Provider) {
        let page = provider.sign_in_as(&mut provider.browser(), "x\" onfocus=\"alert(1)", "s3cret<word>").await;
        assert!(page.body.contains("value=\"x&#34; onfocus=&#34;alert(1)\""), "{}", page.body);
        assert!(!page.body.contains("s3cret"));
    }
}

on_both_databases! {
    async fn on_http_localhost_cookies_do_without_https(provider: Provider) {
        let provider = provider_at(&provider, "http://localhost:8080").await;
        let mut browser = provider.browser();
        let page = browser.get("/login").await;
        assert!(cookies_of(&page)[0].starts_with("keyward_browser="));
        assert_eq!(page.header("strict-transport-security"), None);
        let page = provider.sign_in(&mut browser).await;
        let planted = cookies_of(&page);
        assert!(planted[0].starts_with("keyward_session="), "{planted:?}");
        assert!(planted[0].ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000"), "{planted:?}");
        let page = browser.get(&provider.authorize_url("")).await;
        assert_eq!(page.location_params()["iss"], "http://localhost:8080");
        assert!(page.location_params().contains_key("code"));
    }

    async fn a_session_rests_for_twelve_hours(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        provider.pass(Span::minutes(11 * 60 + 59));
        assert!(is_signed_in(&provider, &mut browser).await);
        // That was a use, so the twelve hours begin anew.
        provider.pass(Span::minutes(11 * 60 + 59));
        assert!(is_signed_in(&provider, &mut browser).await);
        provider.pass(Span::hours(12));
        assert!(!is_signed_in(&provider, &mut browser).await);
        assert!(is_sign_in(&browser.get("/login").await));
    }

    async fn a_session_lives_for_thirty_days_however_busy(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let last_hours = provider.app.now() + Span::days(30) - Span::hours(10);
        while provider.app.now() < last_hours {
            provider.pass(Span::hours(10));
            assert!(is_signed_in(&provider, &mut browser).await);
        }
        provider.pass(Span::hours(10));
        assert!(!is_signed_in(&provider, &mut browser).await);
        provider.sign_in(&mut browser).await;
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    async fn bob_who_signs_in_after_alice_ends_her_session_here(provider: Provider) {
        let mut browser = provider.browser();
        let code = provider.code(&mut browser, &provider.authorize_url("scope=openid")).await;
        let tokens = provider.redeem(&code).await;
        let hers = browser.cookies[SESSION].clone();
        let page = open(&mut browser, &provider.authorize_url("prompt=login")).await;
        let page = browser.submit(&page, &[("username", "bob"), ("password", "battery staple")]).await;
        code_at_app(&browser.follow(page).await);
        let mut old = provider.browser();
        old.cookies.insert(SESSION.to_owned(), hers);
        assert!(!is_signed_in(&provider, &mut old).await);
        assert_eq!(provider.userinfo(&tokens.text("access_token")).await.status, 401);
        assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.error(), "invalid_grant");
    }
}

on_both_databases! {
    async fn a_page_refers_to_a_stylesheet_that_exists(provider: Provider) {
        let mut browser = provider.browser();
        let page = browser.get("/login").await;
        let href = page.body.split("<link rel=\"stylesheet\" href=\"").nth(1).and_then(|rest| rest.split('"').next());
        let sheet = browser.get(href.expect("a stylesheet")).await;
        assert_eq!((sheet.status, sheet.header("content-type")), (StatusCode::OK, Some("text/css; charset=utf-8")));
        assert!(sheet.header("cache-control").is_some_and(|value| value.contains("immutable")));
        assert_eq!(browser.get("/assets/keyward.other.css").await.status, StatusCode::NOT_FOUND);
        assert_eq!(browser.get("/assets/..%2f..%2fetc%2fpasswd").await.status, StatusCode::NOT_FOUND);
    }

    async fn without_an_app_a_sign_in_ends_on_a_page_that_says_who_is_signed_in(provider: Provider) {
        let mut browser = provider.browser();
        let page = open(&mut browser, "/").await;
        assert!(is_sign_in(&page) && text_of(&page.body).contains("Northwind ID"));
        let page = type_password(&mut browser, &page).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(text_of(&page.body).contains("You are signed in as Alice Archer"));
        assert!(page.body.contains("/logout\""), "a way out");
        assert_eq!(open(&mut browser, "/login").await.body, page.body);
    }

    async fn an_issuer_with_a_path_works_whole(provider: Provider) {
        let issuer = "https://id.test/realms/a";
        let provider = provider_at(&provider, issuer).await;
        let mut browser = provider.browser();
        let document = browser.get("/realms/a/.well-known/openid-configuration").await.json();
        assert_eq!(document["issuer"], issuer);
        for name in ["authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "end_session_endpoint"] {
            assert!(document[name].as_str().is_some_and(|url| url.starts_with(&format!("{issuer}/"))), "{name}");
        }
        let inserted = browser.get("/.well-known/oauth-authorization-server/realms/a").await.json();
        assert_eq!(inserted, browser.get("/realms/a/.well-known/oauth-authorization-server").await.json());
        assert_eq!(inserted["issuer"], issuer);
        assert!(browser.get("/realms/a/jwks").await.json()["keys"].is_array());
        for path in ["/.well-known/openid-configuration", "/jwks", "/login", "/realms/b/login", "/realms/a/nowhere"] {
            assert_eq!(browser.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        }
        assert!(is_sign_in(&open(&mut browser, "/realms/a").await));

        let url = provider.authorize_url_for("web", "scope=openid+email");
        let page = browser.get(&url).await;
        assert!(page.location().starts_with("https://id.test/realms/a/login?ticket="), "{}", page.location());
        let sign_in = browser.follow(page).await;
        let sheet = sign_in.body.split("<link rel=\"stylesheet\" href=\"").nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(browser.get(sheet.expect("a stylesheet")).await.status, StatusCode::OK);
        let consent = type_password(&mut browser, &sign_in).await;
        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        let page = browser.follow(page).await;
        let params = page.location_params();
        assert_eq!(params["iss"], issuer);
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", params["code"].as_str()),
            ("redirect_uri", CALLBACK),
            ("client_id", "web"),
            ("client_secret", "web-secret"),
        ];
        let answer = browser.post(&format!("{issuer}/token"), &fields).await.json();
        let id_token = answer["id_token"].as_str().expect("an ID token");
        assert_eq!(claims_of(id_token)["iss"], issuer);
        let bearer = format!("Bearer {}", answer["access_token"].as_str().expect("a token"));
        let headers = [("authorization", bearer.as_str())];
        let userinfo = browser.send(Method::GET, &format!("{issuer}/userinfo"), None, &headers).await.json();
        assert_eq!(userinfo["email"], "alice@example.com");
        let bye = "post_logout_redirect_uri=https://app.test/bye";
        let page = browser.get(&format!("{issuer}/logout?id_token_hint={id_token}&{bye}")).await;
        assert_eq!(page.location(), "https://app.test/bye");
        assert!(is_sign_in(&open(&mut browser, "/realms/a/login").await));
    }

    async fn an_address_without_anything_is_not_found_and_a_wrong_method_not_allowed(provider: Provider) {
        let mut browser = provider.browser();
        let page = browser.send(Method::GET, "/nowhere", None, &[("accept", "text/html,*/*")]).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND);
        assert!(text_of(&page.body).contains("There is nothing at this address"));
        let page = browser.get("/nowhere").await;
        assert_eq!((page.status, page.header("content-type")), (StatusCode::NOT_FOUND, Some("application/json")));
        assert_eq!(page.json()["error"], "not_found");

        for (method, path, allowed) in [
            (Method::GET, "/token", &["POST"][..]),
            (Method::GET, "/introspect", &["POST"]),
            (Method::GET, "/revoke", &["POST"]),
            (Method::POST, "/jwks", &["GET", "HEAD"]),
            (Method::POST, "/.well-known/openid-configuration", &["GET", "HEAD"]),
            (Method::DELETE, "/authorize", &["GET", "HEAD", "POST"]),
            (Method::PUT, "/userinfo", &["GET", "HEAD", "POST"]),
            (Method::POST, "/authorize/resume", &["GET", "HEAD"]),
        ] {
            let page = browser.send(method.clone(), path, None, &[]).await;
            assert_eq!(page.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(page.json()["error"], "invalid_request");
            // RFC 9110 §15.5.6: the answer says which methods there are.
            let mut listed: Vec<&str> = page.header("allow").expect("Allow").split(',').map(str::trim).collect();
            listed.sort_unstable();
            assert_eq!(listed, allowed, "{method} {path}");
        }
    }

    async fn the_request_id_on_a_page_is_the_one_in_the_log(provider: Provider) {
        let mut browser = provider.browser();
        let mut seen = Vec::new();
        for url in ["/authorize", "/login?ticket=nonsense", "/authorize?client_id=nobody", "/consent"] {
            let page = browser.send(Method::GET, url, None, &[("x-request-id", "chosen-by-the-client")]).await;
            let id = page.header("x-request-id").expect("an id").to_owned();
            assert!(text_of(&page.body).contains(&format!("Request id{id}")), "{}", text_of(&page.body));
            assert!(!seen.contains(&id) && id != "chosen-by-the-client");
            seen.push(id);
        }
    }
}
