//! The second seed system's page, authentication, walked from its top to its end over plain HTTP: each test is a
//! section.

use http::Method;
use keyward::protocol::client::{AuthMethod, GrantType};
use keyward::protocol::client_auth::StoredSecret;
use keyward::protocol::time::Span;
use serde_json::{Value, json};

use crate::first_party::{
    Operator, elsewhere, let_rs_introspect, post, post_from, rows_of, send_raw, signed_up, study_error, text,
    with_token,
};
use crate::login::{is_signed_in, seconds_to_wait};
use crate::on_both_databases;
use crate::support::process::within_a_second;
use crate::support::{Browser, Page, Provider, at_once, claims_of, header_of};

const SIGN_UP: &str = "/api/auth/signup";
const LOGIN: &str = "/api/auth/login";
const LOGOUT: &str = "/api/auth/logout";
const ME: &str = "/api/auth/me";

const WEEK: i64 = 7 * 24 * 3600;

async fn me(browser: &mut Browser, token: &str) -> Page {
    with_token(browser, "GET", ME, token, Value::Null).await
}

/// What a route behind a gateway is told about the token, in the modes public, optional and required.
async fn at_gateway(browser: &mut Browser, token: &str) -> [String; 3] {
    let mut told = Vec::new();
    for mode in ["public", "optional", "required"] {
        let page = with_token(browser, "GET", &format!("/forward-auth/{mode}"), token, Value::Null).await;
        let header = |name: &str| page.header(name).unwrap_or_default();
        told.push(format!("{} {} {}", page.status.as_u16(), header("x-auth-status"), header("x-auth-error")));
    }
    told.try_into().expect("three")
}

/// What a bad token is at a gateway.
fn turned_away(why: &str) -> [String; 3] {
    ["200 guest ".to_owned(), format!("200 guest {why}"), format!("401 guest {why}")]
}

/// A sign-up from a network of its own.
async fn try_sign_up(provider: &Provider, network: usize, body: Value) -> (u16, String) {
    let page = post_from(provider, network, SIGN_UP, body).await;
    if page.status == 200 { (200, text(&page, "/user/username")) } else { study_error(&page) }
}

/// `xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx`
fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let digits = text.chars().all(|c| c == '-' || matches!(c, '0'..='9' | 'a'..='f'));
    lengths == [8, 4, 4, 4, 12] && digits && text.as_bytes()[14] == b'4' && b"89ab".contains(&text.as_bytes()[19])
}

on_both_databases! {
    /// "Overview", "Getting a token", "Token structure", "Get current user", "Logout": a whole life with a token.
    async fn somebody_signs_up_studies_signs_out_and_in_again(provider: Provider) {
        let_rs_introspect(&provider).await;
        let mut browser = provider.browser();
        let before = provider.app.now();
        let page = signed_up(&mut browser, "ada_L-1", "engine").await;
        let (id, token) = (text(&page, "/user/id"), text(&page, "/token"));
        assert_eq!(page.json(), json!({ "user": { "id": id, "username": "ada_L-1" }, "token": token }));
        assert!(is_uuid(&id), "{id}");

        // Its claims, and all that makes it a token of this issuer.
        let claims = claims_of(&token);
        for (name, expected) in
            [("sub", json!(id)), ("userId", json!(id)), ("username", json!("ada_L-1")), ("iss", json!("https://id.test")),
             ("aud", json!("https://id.test")), ("client_id", json!("study"))] {
            assert_eq!(claims[name], expected, "{name}");
        }
        let (iat, exp) = (claims["iat"].as_i64().expect("a time"), claims["exp"].as_i64().expect("a time"));
        assert!((before.numeric_date()..before.numeric_date() + 60).contains(&iat) && exp == iat + WEEK, "{claims}");
        assert_eq!((&header_of(&token)["alg"], &header_of(&token)["typ"]), (&json!("RS256"), &json!("at+jwt")));

        // "Include the token in subsequent requests."
        let seen = me(&mut browser, &token).await;
        assert_eq!((seen.status.as_u16(), seen.json()), (200, json!({ "user": { "id": id, "username": "ada_L-1" } })));
        assert_eq!(at_gateway(&mut browser, &token).await, ["200 guest ", "200 user ", "200 user "]);
        let required = with_token(&mut browser, "GET", "/forward-auth/required", &token, Value::Null).await;
        assert_eq!((required.header("x-auth-subject"), required.header("x-auth-username")), (Some(id.as_str()), Some("ada_L-1")));
        assert_eq!(provider.introspect("rs", &token).await["active"], true);
        assert_eq!(provider.userinfo(&token).await.json()["sub"], id.as_str());

        // Another device; then the first signs out, and its token really is dead, here and in every other process.
        let second = post(&mut browser, LOGIN, json!({ "username": "ada_L-1", "password": "engine" })).await;
        assert_eq!((second.status.as_u16(), text(&second, "/user/id")), (200, id.clone()));
        let other = text(&second, "/token");
        let (_, there) = provider.second().await;
        let mut there = Browser::new(there, &provider.issuer);
        assert_eq!(me(&mut there, &token).await.status, 200);
        let out = with_token(&mut browser, "POST", LOGOUT, &token, Value::Null).await;
        assert_eq!((out.status.as_u16(), out.json()), (200, json!({ "message": "Logged out successfully" })));
        assert_eq!(study_error(&me(&mut browser, &token).await), (401, "Invalid token".to_owned()));
        assert_eq!(at_gateway(&mut browser, &token).await, turned_away("invalid_token"));
        assert_eq!(provider.introspect("rs", &token).await, json!({ "active": false }));
        assert_eq!(provider.userinfo(&token).await.status, 401);
        within_a_second("it is dead in the other process", async || {
            me(&mut there, &token).await.status == 401 && at_gateway(&mut there, &token).await == turned_away("invalid_token")
        })
        .await;
        assert_eq!(me(&mut browser, &other).await.status, 200, "the other device goes on");
        let again = post(&mut browser, LOGIN, json!({ "username": "ada_L-1", "password": "engine" })).await;
        assert_eq!(me(&mut browser, &text(&again, "/token")).await.json(), seen.json());
    }

    /// "Logout … exists for consistency": nobody is told that they could not sign out.
    async fn signing_out_is_answered_alike_with_and_without_a_token(provider: Provider) {
        let mut browser = provider.browser();
        let token = text(&signed_up(&mut browser, "ada", "engine").await, "/token");
        let done = json!({ "message": "Logged out successfully" });
        for credential in [&token, &token, "nonsense", ""] {
            let page = with_token(&mut browser, "POST", LOGOUT, credential, json!({})).await;
            assert_eq!((page.status.as_u16(), page.json()), (200, done.clone()), "{credential}");
        }
        let page = browser.send(Method::POST, LOGOUT, None, &[]).await;
        assert_eq!((page.status.as_u16(), page.json()), (200, done));
    }

    /// "Token refresh: currently no token refresh endpoint. Log in again."
    async fn a_token_lasts_a_week_and_then_another_is_asked_for(provider: Provider) {
        let mut browser = provider.browser();
        let token = text(&signed_up(&mut browser, "ada", "engine").await, "/token");
        provider.pass(Span::days(7) - Span::minutes(1));
        assert_eq!(me(&mut browser, &token).await.status, 200);
        provider.pass(Span::minutes(1));
        assert_eq!(study_error(&me(&mut browser, &token).await), (401, "Token expired".to_owned()));
        assert_eq!(at_gateway(&mut browser, &token).await, turned_away("token_expired"));
        let page = post(&mut browser, LOGIN, json!({ "username": "ada", "password": "engine" })).await;
        assert!(page.json().get("refresh_token").is_none());
        assert_eq!(me(&mut browser, &text(&page, "/token")).await.status, 200);
    }

    /// "Sign up": every row of its table, and which is told where several hold.
    async fn a_sign_up_that_fails_says_why_in_the_order_of_the_page(provider: Provider) {
        signed_up(&mut provider.browser(), "taken", "engine").await;
        const MISSING: &str = "Username and password are required";
        const FORMAT: &str = "Username can only contain letters, numbers, underscores, and hyphens";
        const LENGTH: &str = "Username must be between 3 and 50 characters";
        const MISMATCH: &str = "Passwords do not match";
        const SHORT: &str = "Password must be at least 6 characters";
        let (longest, too_long) = ("x".repeat(50), "x".repeat(51));
        let before = provider.row_counts().await;
        let refused = [
            (json!({}), MISSING),
            (json!({ "username": "ada", "confirmPassword": "engine" }), MISSING),
            (json!({ "username": "", "password": "engine", "confirmPassword": "engine" }), MISSING),
            (json!({ "username": "a b", "password": "", "confirmPassword": "x" }), MISSING),
            (json!({ "username": null, "password": "engine", "confirmPassword": "engine" }), MISSING),
            (json!({ "username": ["ada"], "password": { "a": 1 }, "confirmPassword": "engine" }), MISSING),
            (json!({ "username": "a b", "password": "abc", "confirmPassword": "x" }), FORMAT),
            (json!({ "username": "a@b.test", "password": "engine", "confirmPassword": "engine" }), FORMAT),
            (json!({ "username": "zoë", "password": "engine", "confirmPassword": "engine" }), FORMAT),
            (json!({ "username": " ada", "password": "engine", "confirmPassword": "engine" }), FORMAT),
            (json!({ "username": "ad", "password": "abc", "confirmPassword": "x" }), LENGTH),
            (json!({ "username": too_long, "password": "engine", "confirmPassword": "engine" }), LENGTH),
            (json!({ "username": "taken", "password": "abc", "confirmPassword": "x" }), MISMATCH),
            (json!({ "username": "ada", "password": "engine", "confirmPassword": "Engine" }), MISMATCH),
            (json!({ "username": "ada", "password": "engine" }), MISMATCH),
            (json!({ "username": "taken", "password": "abcde", "confirmPassword": "abcde" }), SHORT),
            (json!({ "username": "taken", "password": "engine", "confirmPassword": "engine" }), "Username already exists"),
            // Somebody who came by another door has the name all the same.
            (json!({ "username": "alice", "password": "engine", "confirmPassword": "engine" }), "Username already exists"),
        ];
        let calls = i64::try_from(refused.len()).expect("a few");
        for (network, (body, expected)) in refused.into_iter().enumerate() {
            assert_eq!(try_sign_up(&provider, network, body.clone()).await, (400, expected.to_owned()), "{body}");
        }
        let after = provider.row_counts().await;
        for ((table, before), (_, after)) in before.iter().zip(&after) {
            let counted = if table == "limits" { calls } else { 0 };
            assert_eq!(after - before, counted, "{table}");
        }
        for (network, name) in [(100, "ada"), (101, longest.as_str()), (102, "Taken"), (103, "-_-"), (104, "007")] {
            let body = json!({ "username": name, "password": "sécret", "confirmPassword": "sécret" });
            assert_eq!(try_sign_up(&provider, network, body).await, (200, name.to_owned()));
        }
    }

    /// "Log in": every row of its table. "The username is case-sensitive."
    async fn a_login_that_fails_does_not_say_whether_there_is_such_a_name(provider: Provider) {
        let sub = text(&signed_up(&mut provider.browser(), "ada", "engine").await, "/user/id");
        Operator::Disables.acts(&provider, &provider.user_id("bob").await.to_string()).await;
        const WRONG: (u16, &str) = (401, "Invalid username or password");
        const MISSING: (u16, &str) = (400, "Username and password are required");
        for (network, (name, password, expected)) in [
            (json!("ada"), json!("Engine"), WRONG),
            (json!("Ada"), json!("engine"), WRONG),
            (json!("nobody"), json!("engine"), WRONG),
            (json!("no body"), json!("engine"), WRONG),
            (json!("ada@example.com"), json!("engine"), WRONG),
            (json!("bob"), json!("battery staple"), WRONG),
            (json!("ada"), json!("x".repeat(1025)), WRONG),
            (json!("ada"), json!(null), MISSING),
            (json!(""), json!("engine"), MISSING),
            (json!(7), json!(true), MISSING),
        ]
        .into_iter()
        .enumerate()
        {
            let page = post_from(&provider, network, LOGIN, json!({ "username": name, "password": password })).await;
            assert_eq!(study_error(&page), (expected.0, expected.1.to_owned()), "{name} {password}");
        }
        let page = post_from(&provider, 50, LOGIN, json!({ "username": "ada", "password": "engine" })).await;
        assert_eq!((page.status.as_u16(), text(&page, "/user/id")), (200, sub));
        // People who came by another door sign in here as well.
        let page = post_from(&provider, 51, LOGIN, json!({ "username": "alice", "password": "correct horse" })).await;
        assert_eq!(text(&page, "/user/username"), "alice");
    }
}

on_both_databases! {
    /// "Authentication errors": every row of the table of `me`.
    async fn a_token_that_does_not_count_is_told_why(provider: Provider) {
        let mut browser = provider.browser();
        let page = signed_up(&mut browser, "ada", "engine").await;
        let (sub, token) = (text(&page, "/user/id"), text(&page, "/token"));
        let said = async |headers: &[(&str, &str)]| {
            study_error(&provider.browser().send(Method::GET, ME, None, headers).await)
        };
        let no_token = (401, "No authorization token provided".to_owned());
        let bad = (401, "Invalid token".to_owned());
        assert_eq!(said(&[]).await, no_token);
        assert_eq!(said(&[("authorization", &token)]).await, no_token, "without its scheme it is none");
        assert_eq!(said(&[("authorization", "Basic YTpi")]).await, no_token);
        let broken = format!("Bearer {}x", token);
        let (header, rest) = token.split_once('.').expect("a JWT");
        let unsigned = format!("Bearer {header}.{}.", rest.split('.').next().expect("a payload"));
        for credential in ["Bearer", "Bearer ", "Bearer a.b.c", "Bearer eyJhbGciOiJub25lIn0.e30.", &broken, &unsigned] {
            assert_eq!(said(&[("authorization", credential)]).await, bad, "{credential}");
        }
        let good = format!("Bearer {token}");
        assert_eq!(said(&[("authorization", &good), ("authorization", &good)]).await, bad, "two of them");

        // Tokens and keys of others are real, and yet none of this API.
        let page = crate::first_party::registered(&mut browser, "a@b.test", "s3cur3pass", "device-1").await;
        let key = provider.api_key("alice", "openid profile").await;
        for foreign in [
            text(&page, "/data/access_token"),
            provider.tokens("openid profile").await.text("access_token"),
            provider.tokens("openid profile").await.text("id_token"),
            key.expose().clone(),
        ] {
            assert_eq!(study_error(&me(&mut browser, &foreign).await), bad);
        }

        // A token of the app itself is about nobody.
        let secret = StoredSecret::of("study-secret", provider.app.now());
        provider
            .change_client("study", |record| {
                record.secrets = vec![secret];
                record.client.metadata.token_endpoint_auth_method = Some(AuthMethod::ClientSecretPost);
                record.client.metadata.grant_types.push(GrantType::ClientCredentials);
            })
            .await;
        let fields = [
            ("grant_type", "client_credentials"), ("client_id", "study"), ("client_secret", "study-secret"), ("scope", "quiz.read"),
        ];
        let own = provider.browser().post("/token", &fields).await.json();
        let own = own["access_token"].as_str().unwrap_or_else(|| panic!("{own}"));
        let claims = claims_of(own);
        assert_eq!((&claims["sub"], &claims["aud"]), (&json!("study"), &json!("https://id.test")));
        assert_eq!(study_error(&me(&mut browser, own).await), (401, "Not authenticated".to_owned()));

        // "Queries database to ensure user still exists."
        assert_eq!(me(&mut browser, &token).await.status, 200);
        Operator::Disables.acts(&provider, &sub).await;
        let gone = (401, "Invalid or expired token".to_owned());
        assert_eq!(study_error(&me(&mut browser, &token).await), gone);
        Operator::Enables.acts(&provider, &sub).await;
        assert_eq!(study_error(&me(&mut browser, &token).await), bad, "what had ended stays ended");
        let token = text(&post(&mut browser, LOGIN, json!({ "username": "ada", "password": "engine" })).await, "/token");
        assert_eq!(me(&mut browser, &token).await.status, 200);
        Operator::Deletes.acts(&provider, &sub).await;
        assert_eq!(study_error(&me(&mut browser, &token).await), gone);
        assert_eq!(at_gateway(&mut browser, &token).await, turned_away("invalid_token"));
    }

    /// A new password ends what the old one opened.
    async fn a_new_password_is_the_only_one(provider: Provider) {
        let mut browser = provider.browser();
        let page = signed_up(&mut browser, "ada", "engine").await;
        Operator::SetsPassword("difference").acts(&provider, &text(&page, "/user/id")).await;
        assert_eq!(study_error(&me(&mut browser, &text(&page, "/token")).await), (401, "Invalid token".to_owned()));
        for (password, status) in [("engine", 401), ("difference", 200)] {
            let page = post(&mut browser, LOGIN, json!({ "username": "ada", "password": password })).await;
            assert_eq!(page.status, status, "{password}");
        }
    }

    /// "Rate limit exceeded (5 attempts per 15 minutes)": of whatever outcome, and one budget for both calls.
    async fn the_sixth_attempt_of_a_network_waits_whatever_came_of_the_others(provider: Provider) {
        let mut browser = provider.browser();
        let good = json!({ "username": "ada", "password": "engine", "confirmPassword": "engine" });
        for (turn, (path, body, status)) in [
            (SIGN_UP, good.clone(), 200),
            (LOGIN, good.clone(), 200),
            (LOGIN, json!({ "username": "ada", "password": "wrong" }), 401),
            (SIGN_UP, json!({}), 400),
            (LOGIN, good.clone(), 200),
        ]
        .into_iter()
        .enumerate()
        {
            if turn > 0 {
                provider.pass(Span::minutes(1));
            }
            // A body that is no JSON was never an attempt, and a question about a token is none.
            let broken = send_raw(&provider, Method::POST, path, &[crate::first_party::JSON], "{".into()).await;
            assert_eq!(broken.status, 400);
            assert_eq!(me(&mut browser, "nonsense").await.status, 401);
            let page = post(&mut browser, path, body).await;
            assert_eq!(page.status, status, "{turn}: {}", page.body);
            let header = |name: &str| page.header(name).unwrap_or_else(|| panic!("no {name}")).to_owned();
            assert_eq!((header("ratelimit-limit"), header("ratelimit-remaining")), ("5".to_owned(), (4 - turn).to_string()));
            assert_eq!(header("ratelimit-policy"), "\"username_api\";q=5;w=900");
            let reset = header("ratelimit-reset").parse::<i64>().expect("seconds") + 60 * i64::try_from(turn).expect("a few");
            assert!((895..=900).contains(&reset), "{turn}: {reset}");
        }
        let before = provider.row_counts().await;
        for path in [LOGIN, SIGN_UP, LOGIN] {
            let page = post(&mut browser, path, good.clone()).await;
            assert_eq!(study_error(&page), (429, "Too many authentication attempts".to_owned()));
            assert_eq!(page.json()["message"], "Please try again in 15 minutes");
            let wait: i64 = page.header("retry-after").expect("Retry-After").parse().expect("seconds");
            assert!((655..=660).contains(&wait), "until the first of the five is fifteen minutes old: {wait}");
            assert_eq!(page.header("ratelimit-remaining"), Some("0"));
            assert_eq!(page.header("ratelimit-reset"), page.header("retry-after"));
        }
        assert_eq!(provider.row_counts().await, before);
        // Others are not concerned, and neither are tokens.
        assert_eq!(post_from(&provider, 1, LOGIN, good.clone()).await.status, 200);
        // It slides: one is let in when the first has left the window, and then nobody for another minute.
        provider.pass(Span::from_secs(660));
        assert_eq!(post(&mut browser, LOGIN, good.clone()).await.status, 200);
        let wait = seconds_to_wait(&post(&mut browser, LOGIN, good.clone()).await);
        assert!((55..=60).contains(&wait), "{wait}");
        provider.pass(Span::minutes(15));
        for _ in 0..5 {
            assert_eq!(post(&mut browser, LOGIN, good.clone()).await.status, 200);
        }
    }

    /// An IPv6 customer has a whole /64.
    async fn one_network_is_one_client_however_its_address_is_written(provider: Provider) {
        for (first, same, neighbour) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ] {
            for _ in 0..5 {
                assert_eq!(post(&mut provider.browser_from(first), LOGIN, json!({})).await.status, 400);
            }
            assert_eq!(post(&mut provider.browser_from(same), LOGIN, json!({})).await.status, 429, "{same}");
            assert_eq!(post(&mut provider.browser_from(neighbour), LOGIN, json!({})).await.status, 400, "{neighbour}");
        }
    }

    /// The database decides whose a name is, not a look before.
    async fn of_fifty_who_want_one_name_at_once_one_gets_it(provider: Provider) {
        let before = provider.row_counts().await;
        let browsers: Vec<Browser> = (0..50).map(|network| elsewhere(&provider, network)).collect();
        let answers = at_once(50, |n| {
            let mut browser = browsers[n].clone();
            async move {
                let password = format!("engine-{n}");
                let body = json!({ "username": "ada", "password": password, "confirmPassword": password });
                (n, post(&mut browser, SIGN_UP, body).await)
            }
        })
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, page)| page.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 49), "{lost:?}");
        for (_, page) in &lost {
            assert_eq!(study_error(page), (400, "Username already exists".to_owned()));
        }
        let after = provider.row_counts().await;
        for table in ["subjects", "users", "identifiers", "passwords", "grants"] {
            assert_eq!(rows_of(&after, table) - rows_of(&before, table), 1, "{table}");
        }
        let (winner, page) = &won[0];
        assert_eq!(me(&mut provider.browser(), &text(page, "/token")).await.status, 200);
        for n in [*winner, (winner + 1) % 50] {
            let body = json!({ "username": "ada", "password": format!("engine-{n}") });
            assert_eq!(post(&mut elsewhere(&provider, n), LOGIN, body).await.status == 200, n == *winner, "{n}");
        }
    }

    /// One account: who signed up by the app signs in on our pages, and goes on to another app.
    async fn the_account_is_one_on_our_pages_too(provider: Provider) {
        let page = signed_up(&mut provider.browser(), "ada", "engine").await;
        let mut browser = provider.browser();
        provider.sign_in_as(&mut browser, "ada", "engine").await;
        assert!(is_signed_in(&provider, &mut browser).await);
        let code = provider.code(&mut browser, &provider.authorize_url("scope=openid")).await;
        let tokens = provider.redeem(&code).await;
        assert_eq!(claims_of(&tokens.text("id_token"))["sub"], text(&page, "/user/id"));
        // Signing out of the app leaves the browser's session be, which is another sign-in.
        with_token(&mut provider.browser(), "POST", LOGOUT, &text(&page, "/token"), Value::Null).await;
        assert!(is_signed_in(&provider, &mut browser).await);
    }
}
