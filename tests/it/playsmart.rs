//! The third seed system's page, register and log in, walked from its top to its end over plain HTTP: each test is a
//! section.

use keyward::protocol::time::Span;
use serde_json::{Value, json};

use crate::first_party::{
    Operator, bad_fields, elsewhere, game_error, let_rs_introspect, post, post_from, registered, rows_of, signed_up,
    text, with_token,
};
use crate::login::is_signed_in;
use crate::on_both_databases;
use crate::support::{Browser, Page, Provider, at_once, claims_of, json as call};

const REGISTER: &str = "/auth/register";
const LOGIN: &str = "/auth/login";
const REFRESH: &str = "/auth/refresh";
const ME: &str = "/auth/me";

const EMAIL: &str = "player@example.com";
const PASSWORD: &str = "s3cur3pass";
const DEVICE: &str = "device-abc-123";

async fn register_on_page(browser: &mut Browser) -> Page {
    registered(browser, EMAIL, PASSWORD, DEVICE).await
}

async fn login(browser: &mut Browser, password: &str) -> Page {
    post(browser, LOGIN, json!({ "email": EMAIL, "password": password })).await
}

async fn refresh(browser: &mut Browser, token: &str) -> Page {
    post(browser, REFRESH, json!({ "refresh_token": token })).await
}

/// A refresh that goes well; both tokens.
async fn refreshed(browser: &mut Browser, token: &str) -> (String, String) {
    let page = refresh(browser, token).await;
    assert_eq!(page.status, 200, "{}", page.body);
    (text(&page, "/data/access_token"), text(&page, "/data/refresh_token"))
}

async fn change(browser: &mut Browser, token: &str, body: Value) -> Page {
    with_token(browser, "PATCH", ME, token, body).await
}

/// Whether an access token opens what a protected call would.
async fn opens(provider: &Provider, token: &str) -> bool {
    let own = change(&mut provider.browser(), token, json!({})).await.status;
    let at_gateway = provider.bearer("GET", "/forward-auth/required", token).await.status;
    assert_eq!(own, at_gateway);
    own == 200
}

/// All fifty at once, each from a network of its own; the one who got in, and what the others were told.
async fn fifty_register(provider: &Provider, make: impl Fn(usize) -> (String, String)) -> (Page, Vec<(u16, String)>) {
    let browsers: Vec<Browser> = (0..50).map(|network| elsewhere(provider, network)).collect();
    let before = provider.row_counts().await;
    let answers = at_once(50, |n| {
        let (mut browser, (email, device)) = (browsers[n].clone(), make(n));
        let body = json!({ "email": email, "password": PASSWORD, "deviceId": device });
        async move { post(&mut browser, REGISTER, body).await }
    })
    .await;
    let (mut won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|page| page.status == 201);
    assert_eq!((won.len(), lost.len()), (1, 49), "{lost:?}");
    let after = provider.row_counts().await;
    for table in ["subjects", "users", "identifiers", "passwords", "grants"] {
        assert_eq!(rows_of(&after, table) - rows_of(&before, table), 1, "{table}");
    }
    (won.remove(0), lost.iter().map(game_error).collect())
}

on_both_databases! {
    /// Steps 1 to 4 of the page: register, store both tokens, come back, call.
    async fn a_player_registers_plays_and_comes_back(provider: Provider) {
        let_rs_introspect(&provider).await;
        let mut browser = provider.browser();
        let page = register_on_page(&mut browser).await;
        let (access, refresh) = (text(&page, "/data/access_token"), text(&page, "/data/refresh_token"));
        let player = json!({ "id": DEVICE, "email": EMAIL, "pseudo": "", "total_games_completed": 0 });
        let expected = json!({ "data": { "access_token": access, "refresh_token": refresh, "user": player } });
        assert_eq!(page.json(), expected);
        let claims = claims_of(&access);
        assert_eq!(claims["sub"], DEVICE);
        assert_eq!(claims["exp"].as_i64().expect("a time") - claims["iat"].as_i64().expect("a time"), 30 * 24 * 3600);
        assert_eq!((&claims["iss"], &claims["aud"], &claims["client_id"]), (&json!("https://id.test"), &json!("https://id.test"), &json!("game")));

        // "Include this in the Authorization header on every authenticated request."
        let required = provider.bearer("GET", "/forward-auth/required", &access).await;
        assert_eq!((required.header("x-auth-subject"), required.header("x-auth-email")), (Some(DEVICE), Some(EMAIL)));
        assert_eq!(provider.introspect("rs", &access).await["sub"], DEVICE);
        assert_eq!(provider.userinfo(&access).await.json()["sub"], DEVICE);

        let changes = json!({ "pseudo": "CoolPlayer99" });
        let page = change(&mut browser, &access, changes).await;
        let player = json!({ "id": DEVICE, "email": EMAIL, "pseudo": "CoolPlayer99", "total_games_completed": 0 });
        assert_eq!((page.status.as_u16(), page.json()), (200, json!({ "data": { "user": player } })));

        // "Log in returning players … no deviceId is needed here."
        for email in [EMAIL, "Player@Example.COM"] {
            let page = post(&mut browser, LOGIN, json!({ "email": email, "password": PASSWORD })).await;
            assert_eq!((page.status.as_u16(), &page.json()["data"]["user"]), (200, &player));
            assert!(opens(&provider, &text(&page, "/data/access_token")).await);
        }
        assert!(opens(&provider, &access).await, "the first device goes on");

        // The same account on our pages.
        let mut own = provider.browser();
        provider.sign_in_as(&mut own, EMAIL, PASSWORD).await;
        assert!(is_signed_in(&provider, &mut own).await);
    }

    /// "access_token: valid for 30 days. refresh_token: valid for 180 days", counted from the login.
    async fn tokens_last_as_long_as_the_page_says(provider: Provider) {
        let mut browser = provider.browser();
        let page = register_on_page(&mut browser).await;
        let (access, mut token) = (text(&page, "/data/access_token"), text(&page, "/data/refresh_token"));
        provider.pass(Span::days(30) - Span::minutes(1));
        assert!(opens(&provider, &access).await);
        provider.pass(Span::minutes(1));
        let page = change(&mut browser, &access, json!({})).await;
        assert_eq!(game_error(&page), (401, "UNAUTHORIZED invalid_token".to_owned()));
        for days in [0, 70, 79] {
            provider.pass(Span::days(days));
            let (access, next) = refreshed(&mut browser, &token).await;
            assert!(next != token && opens(&provider, &access).await, "after {days} days more");
            token = next;
        }
        // That was the 179th day. However often it was refreshed, the 180th is the last.
        provider.pass(Span::days(2));
        assert_eq!(game_error(&refresh(&mut browser, &token).await), (401, "UNAUTHORIZED invalid_token".to_owned()));
        assert_eq!(login(&mut browser, PASSWORD).await.status, 200);
    }

    async fn a_lost_answer_is_repeated_and_an_old_token_ends_the_sign_in(provider: Provider) {
        let mut browser = provider.browser();
        let page = register_on_page(&mut browser).await;
        let first = text(&page, "/data/refresh_token");
        let page = refresh(&mut browser, &first).await;
        let second = text(&page, "/data/refresh_token");
        let expected = json!({ "id": DEVICE, "email": EMAIL, "pseudo": "", "total_games_completed": 0 });
        assert_eq!(page.json()["data"]["user"], expected, "the shape of a login");
        assert_eq!(page.json()["data"].as_object().expect("an object").len(), 3);
        assert_eq!(refreshed(&mut browser, &first).await.1, second, "the same successor");
        let other = text(&login(&mut browser, PASSWORD).await, "/data/refresh_token");
        let (access, third) = refreshed(&mut browser, &second).await;
        assert!(opens(&provider, &access).await);

        // Somebody has kept the first: whoever it is, this sign-in is over.
        let refused = (401, "UNAUTHORIZED invalid_token".to_owned());
        assert_eq!(game_error(&refresh(&mut browser, &first).await), refused);
        assert_eq!(game_error(&refresh(&mut browser, &third).await), refused);
        assert!(!opens(&provider, &access).await);
        refreshed(&mut browser, &other).await;
    }

    /// A refresh token is of the place that it came from, and a refusal uses nothing up.
    async fn tokens_of_other_doors_refresh_nothing_here_and_ours_nothing_there(provider: Provider) {
        let mut browser = provider.browser();
        let page = register_on_page(&mut browser).await;
        let (access, token) = (text(&page, "/data/access_token"), text(&page, "/data/refresh_token"));
        let key = provider.api_key("alice", "openid offline_access").await;
        let login = post(&mut browser, "/v1/auth/api-key/login", json!({ "api_key": key.expose() })).await;
        let of_key = text(&login, "/refresh_token");
        let of_spa = provider.spa_tokens().await.text("refresh_token");
        for foreign in [&of_key, &of_spa, &access, key.expose(), "nonsense", &format!("{token}x"), &token[1..]] {
            let page = refresh(&mut browser, foreign).await;
            assert_eq!(game_error(&page), (401, "UNAUTHORIZED invalid_token".to_owned()), "{foreign}");
        }
        assert_eq!(post(&mut browser, "/v1/auth/refresh", json!({ "refresh_token": of_key })).await.status, 200);
        assert_eq!(provider.refresh("spa", &of_spa).await.status, 200);

        let fields = [("grant_type", "refresh_token"), ("refresh_token", token.as_str()), ("client_id", "game")];
        let page = browser.post("/token", &fields).await;
        assert_eq!((page.status.as_u16(), page.json().get("access_token")), (400, None), "{}", page.body);
        let page = post(&mut browser, "/v1/auth/refresh", json!({ "refresh_token": token })).await;
        assert_eq!((page.status.as_u16(), text(&page, "/code").as_str()), (401, "invalid_refresh_token"));
        refreshed(&mut browser, &token).await;
    }

    /// A game's own save file, as it is: both members, one of them, and their bounds.
    async fn a_player_changes_their_name_and_their_count(provider: Provider) {
        let mut browser = provider.browser();
        let access = text(&register_on_page(&mut browser).await, "/data/access_token");
        let most = 9_007_199_254_740_991_i64;
        let longest = "é".repeat(64);
        for (body, pseudo, games) in [
            (json!({}), "", 0),
            (json!({ "pseudo": "CoolPlayer99", "total_games_completed": 7 }), "CoolPlayer99", 7),
            (json!({ "total_games_completed": 8 }), "CoolPlayer99", 8),
            (json!({ "pseudo": longest }), longest.as_str(), 8),
            (json!({ "pseudo": "", "total_games_completed": most }), "", most),
            (json!({ "total_games_completed": 0 }), "", 0),
            // Nobody names an account anew here.
            (json!({ "id": "x", "email": "x@y.test", "pseudo": "🎮 <b>" }), "🎮 <b>", 0),
        ] {
            let page = change(&mut browser, &access, body.clone()).await;
            let player = json!({ "id": DEVICE, "email": EMAIL, "pseudo": pseudo, "total_games_completed": games });
            assert_eq!((page.status.as_u16(), page.json()), (200, json!({ "data": { "user": player } })), "{body}");
        }
        let both = vec!["pseudo", "total_games_completed"];
        for (body, bad) in [
            (json!({ "pseudo": "x".repeat(65), "total_games_completed": most + 1 }), both.clone()),
            (json!({ "pseudo": null, "total_games_completed": -1 }), both.clone()),
            (json!({ "pseudo": 7, "total_games_completed": "7" }), both),
            (json!({ "pseudo": "a\nb" }), vec!["pseudo"]),
            (json!({ "pseudo": "fine", "total_games_completed": 1.5 }), vec!["total_games_completed"]),
            (json!({ "total_games_completed": 1e300 }), vec!["total_games_completed"]),
        ] {
            assert_eq!(bad_fields(&change(&mut browser, &access, body.clone()).await), bad, "{body}");
        }
        let player = login(&mut browser, PASSWORD).await.json()["data"]["user"].clone();
        assert_eq!((&player["pseudo"], &player["total_games_completed"]), (&json!("🎮 <b>"), &json!(0)), "none of it was taken");
    }
}

on_both_databases! {
    /// "Error handling": every row of the table, with all that is wrong in one answer.
    async fn what_fails_is_told_by_code_message_and_field(provider: Provider) {
        let mut browser = provider.browser();
        let page = register_on_page(&mut browser).await;
        let all = vec!["deviceId", "email", "password"];
        for (body, bad) in [
            (json!({}), all.clone()),
            (json!({ "email": null, "password": 8, "deviceId": ["x"] }), all.clone()),
            (json!({ "email": "player", "password": "1234567", "deviceId": "a b" }), all),
            (json!({ "email": "a@b@c", "password": PASSWORD, "deviceId": "d" }), vec!["email"]),
            (json!({ "email": "a@b.test", "password": "1234567", "deviceId": "d" }), vec!["password"]),
            (json!({ "email": "a@b.test", "password": "x".repeat(1025), "deviceId": "d" }), vec!["password"]),
            (json!({ "email": "a@b.test", "password": PASSWORD, "deviceId": "" }), vec!["deviceId"]),
            (json!({ "email": "a@b.test", "password": PASSWORD, "deviceId": "~".repeat(256) }), vec!["deviceId"]),
            // Who is there already is told only to whoever sent something whole.
            (json!({ "email": EMAIL, "password": "1234567", "deviceId": DEVICE }), vec!["password"]),
        ] {
            assert_eq!(bad_fields(&post(&mut browser, REGISTER, body.clone()).await), bad, "{body}");
        }
        assert_eq!(bad_fields(&post(&mut browser, LOGIN, json!({})).await), ["email", "password"]);
        assert_eq!(bad_fields(&post(&mut browser, LOGIN, json!({ "email": "x", "password": "y" })).await), ["email"]);
        assert_eq!(bad_fields(&post(&mut browser, REFRESH, json!({})).await), ["refresh_token"]);
        assert_eq!(bad_fields(&post(&mut browser, REFRESH, json!({ "refresh_token": 7 })).await), ["refresh_token"]);

        let conflict = |what: &str| (409, format!("CONFLICT {what}_already_registered"));
        for (email, device, taken) in [
            (EMAIL, "device-2", "email"),
            ("Player@EXAMPLE.com", "device-2", "email"),
            ("alice@example.com", "device-2", "email"),
            ("other@example.com", DEVICE, "device"),
            // What is a client's id or anybody's `sub` can be nobody else's.
            ("other@example.com", "web", "device"),
            ("other@example.com", provider.user_id("alice").await.as_str(), "device"),
            (EMAIL, DEVICE, "email"),
            (EMAIL, "web", "email"),
        ] {
            let before = provider.row_counts().await;
            let page = post(&mut browser, REGISTER, json!({ "email": email, "password": PASSWORD, "deviceId": device })).await;
            assert_eq!(game_error(&page), conflict(taken), "{email} {device}");
            let after = provider.row_counts().await;
            for table in ["subjects", "users", "identifiers", "passwords", "grants"] {
                assert_eq!(rows_of(&after, table), rows_of(&before, table), "{table}");
            }
        }

        let unauthorized = |what: &str| (401, format!("UNAUTHORIZED {what}"));
        assert_eq!(game_error(&login(&mut browser, "wrong").await), unauthorized("invalid_credentials"));
        let nobody = post(&mut browser, LOGIN, json!({ "email": "nobody@example.com", "password": PASSWORD })).await;
        assert_eq!(game_error(&nobody), unauthorized("invalid_credentials"));

        let me = async |headers: &[(&str, &str)]| {
            game_error(&call(&mut provider.browser(), "PATCH", ME, json!({}), headers).await)
        };
        assert_eq!(me(&[]).await, unauthorized("missing_bearer_token"));
        assert_eq!(me(&[("authorization", "Basic YTpi")]).await, unauthorized("missing_bearer_token"));
        let study = text(&signed_up(&mut browser, "ada", "engine").await, "/token");
        let first = provider.tokens("openid").await.text("access_token");
        let refresh_token = text(&page, "/data/refresh_token");
        for foreign in ["nonsense", &study, &first, &refresh_token, provider.api_key("alice", "openid").await.expose()] {
            assert_eq!(me(&[("authorization", &format!("Bearer {foreign}"))]).await, unauthorized("invalid_token"), "{foreign}");
        }

        // Wrong ones again and again: "Too many".
        let mut last = login(&mut browser, "wrong").await;
        for _ in 0..4 {
            last = login(&mut browser, "wrong").await;
        }
        assert_eq!(game_error(&last), (429, "TOO_MANY_REQUESTS too_many_attempts".to_owned()));
        assert!(last.header("retry-after").is_some_and(|wait| (1..=900).contains(&wait.parse::<i64>().expect("seconds"))));
        assert_eq!((last.header("ratelimit-limit"), last.header("ratelimit-remaining")), (Some("5"), Some("0")));
        assert_eq!(login(&mut elsewhere(&provider, 1), PASSWORD).await.status, 200);
    }

    async fn of_fifty_who_want_one_device_at_once_one_gets_it(provider: Provider) {
        let (won, lost) =
            fifty_register(&provider, |n| (format!("player-{n}@example.com"), DEVICE.to_owned())).await;
        assert!(lost.iter().all(|error| *error == (409, "CONFLICT device_already_registered".to_owned())), "{lost:?}");
        assert_eq!(text(&won, "/data/user/id"), DEVICE);
        assert!(opens(&provider, &text(&won, "/data/access_token")).await);
        // The address of whoever came too late is free for another device.
        let email = if text(&won, "/data/user/email") == "player-0@example.com" { "player-1@example.com" } else { "player-0@example.com" };
        registered(&mut provider.browser(), email, PASSWORD, "device-2").await;
    }

    async fn of_fifty_who_want_one_address_at_once_one_gets_it(provider: Provider) {
        let (won, lost) = fifty_register(&provider, |n| (EMAIL.to_owned(), format!("device-{n}"))).await;
        assert!(lost.iter().all(|error| *error == (409, "CONFLICT email_already_registered".to_owned())), "{lost:?}");
        assert_eq!(text(&won, "/data/user/email"), EMAIL);
        // So is the id of a device that came too late.
        let device = if text(&won, "/data/user/id") == "device-0" { "device-1" } else { "device-0" };
        registered(&mut provider.browser(), "other@example.com", PASSWORD, device).await;
    }

    /// A game that sends its registration fifty times: where both conflicts hold, the address is named.
    async fn of_fifty_registrations_of_one_player_one_counts(provider: Provider) {
        let (won, lost) = fifty_register(&provider, |_| (EMAIL.to_owned(), DEVICE.to_owned())).await;
        assert!(lost.iter().all(|error| *error == (409, "CONFLICT email_already_registered".to_owned())), "{lost:?}");
        let player = login(&mut provider.browser(), PASSWORD).await;
        assert_eq!(player.json()["data"]["user"], won.json()["data"]["user"]);
    }

    /// What an operator does to a player ends what they have, and a deleted one's device is nobody else's.
    async fn an_operator_ends_what_a_player_has(provider: Provider) {
        let mut browser = provider.browser();
        let mut page = register_on_page(&mut browser).await;
        for (what, password) in [(Operator::SetsPassword("another pass"), "another pass"), (Operator::Disables, "another pass")] {
            let (access, token) = (text(&page, "/data/access_token"), text(&page, "/data/refresh_token"));
            assert!(opens(&provider, &access).await);
            what.acts(&provider, DEVICE).await;
            assert!(!opens(&provider, &access).await);
            assert_eq!(game_error(&refresh(&mut browser, &token).await), (401, "UNAUTHORIZED invalid_token".to_owned()));
            assert_eq!(game_error(&login(&mut browser, PASSWORD).await), (401, "UNAUTHORIZED invalid_credentials".to_owned()));
            page = login(&mut browser, password).await;
        }
        assert_eq!(game_error(&page), (401, "UNAUTHORIZED invalid_credentials".to_owned()), "disabled");
        Operator::Enables.acts(&provider, DEVICE).await;
        let page = login(&mut browser, "another pass").await;
        assert!(opens(&provider, &text(&page, "/data/access_token")).await);
        Operator::Deletes.acts(&provider, DEVICE).await;
        assert!(!opens(&provider, &text(&page, "/data/access_token")).await);
        let body = json!({ "email": EMAIL, "password": PASSWORD, "deviceId": DEVICE });
        assert_eq!(game_error(&post_from(&provider, 1, REGISTER, body).await), (409, "CONFLICT device_already_registered".to_owned()));
        registered(&mut browser, EMAIL, PASSWORD, "device-2").await;
    }
}
