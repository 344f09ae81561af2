//! What no app would send: each call says clearly what is wrong, in its API's own form, and nothing has changed.

use axum::body::{Body, Bytes};
use http::{Method, StatusCode};
use serde_json::json;

use super::{JSON, game_error, post, registered, send_raw, study_error, text};
use crate::on_both_databases;
use crate::support::{Page, Provider};

/// Every call that takes a body, with the API that it is of and a body that would do.
const CALLS: [(&str, &str, &str); 6] = [
    ("POST", "/api/auth/signup", r#"{"username":"new","password":"engine","confirmPassword":"engine"}"#),
    ("POST", "/api/auth/login", r#"{"username":"alice","password":"correct horse"}"#),
    ("POST", "/auth/register", r#"{"email":"new@b.test","password":"s3cur3pass","deviceId":"new"}"#),
    ("POST", "/auth/login", r#"{"email":"alice@example.com","password":"correct horse"}"#),
    ("POST", "/auth/refresh", r#"{"refresh_token":"x"}"#),
    ("PATCH", "/auth/me", r#"{"pseudo":"x"}"#),
];

fn is_of_study(path: &str) -> bool {
    path.starts_with("/api/auth/")
}

/// The status of a refusal, after it was seen to have the form of its API.
#[track_caller]
fn refused(path: &str, page: &Page) -> u16 {
    if is_of_study(path) { study_error(page).0 } else { game_error(page).0 }
}

/// A player's `Authorization`, for the call that needs one.
async fn bearer(provider: &Provider) -> String {
    let page = registered(&mut provider.browser(), "a@b.test", "s3cur3pass", "device-1").await;
    format!("Bearer {}", text(&page, "/data/access_token"))
}

/// A body that does not say how long it is.
fn endless(bytes: usize) -> Body {
    let piece = Bytes::from(vec![b' '; 64 * 1024]);
    let pieces = (0..bytes / piece.len()).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    Body::from_stream(futures_util::stream::iter(pieces))
}

on_both_databases! {
    async fn a_body_of_another_kind_is_refused(provider: Provider) {
        let bearer = bearer(&provider).await;
        let before = provider.row_counts().await;
        for (method, path, good) in CALLS {
            for kind in [
                None,
                Some("text/plain"),
                Some("application/x-www-form-urlencoded"),
                Some("multipart/form-data; boundary=x"),
                Some("application/json; charset=utf-7"),
                Some("application/json; charset=utf-16"),
                Some("application/jsonp"),
                Some("application/json, text/plain"),
                Some("application/xml"),
            ] {
                let mut headers = vec![("authorization", bearer.as_str())];
                headers.extend(kind.map(|kind| ("content-type", kind)));
                let page = send_raw(&provider, method.parse().expect("a method"), path, &headers, good.into()).await;
                assert_eq!(refused(path, &page), 415, "{path} {kind:?}");
            }
            let twice = [("authorization", bearer.as_str()), JSON, ("content-type", "text/plain")];
            let page = send_raw(&provider, method.parse().expect("a method"), path, &twice, good.into()).await;
            assert_eq!(refused(path, &page), 415, "{path} twice");
        }
        assert_eq!(provider.row_counts().await, before);
        // Each way to write the right one.
        for kind in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
            let page = send_raw(&provider, Method::PATCH, "/auth/me", &headers, "{}".into()).await;
            assert_eq!(page.status, StatusCode::OK, "{kind}");
        }
    }

    async fn a_body_that_is_no_object_of_json_is_refused(provider: Provider) {
        let bearer = bearer(&provider).await;
        let before = provider.row_counts().await;
        let deep = format!("{{\"username\":{}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
        for (method, path, good) in CALLS {
            let name = good.split('"').nth(1).expect("a member");
            let cases: Vec<(&str, Vec<u8>)> = vec![
                ("nothing", Vec::new()),
                ("half", good.as_bytes()[..good.len() - 1].to_vec()),
                ("more behind it", format!("{good}{good}").into()),
                ("a list", format!("[{good}]").into()),
                ("a text", format!("{good:?}").into()),
                ("a number", b"7".to_vec()),
                ("null", b"null".to_vec()),
                ("a form", b"username=alice&password=correct+horse".to_vec()),
                ("a member twice", format!("{{\"{name}\":\"x\",{}", &good[1..]).into()),
                ("a member twice, once spelled otherwise", format!("{{\"\\u{:04x}{}\":\"x\",{}", name.as_bytes()[0], &name[1..], &good[1..]).into()),
                ("no UTF-8", [b"{\"x\":\"".as_slice(), b"\xff\xfe\"}"].concat()),
                ("no UTF-8 in a member's name", b"{\"\xc0\xaf\":1}".to_vec()),
                ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect()),
                ("a byte order mark", [b"\xef\xbb\xbf".as_slice(), good.as_bytes()].concat()),
                ("U+0000", good.replacen("\":\"", "\":\"\\u0000", 1).into()),
                ("U+0000 as it is", good.replacen("\":\"", "\":\"\0", 1).into()),
                ("U+0000 in a member that nobody reads", format!("{{\"x\":\"\\u0000\",{}", &good[1..]).into()),
                ("half a surrogate", good.replacen("\":\"", "\":\"\\ud800", 1).into()),
                ("the other half", good.replacen("\":\"", "\":\"\\udc00", 1).into()),
                ("a comment", format!("/* */{good}").into()),
                ("NaN", b"{\"total_games_completed\":NaN}".to_vec()),
                ("a number beyond all numbers", b"{\"total_games_completed\":1e999}".to_vec()),
                ("depth", deep.clone().into()),
            ];
            for (what, body) in cases {
                let headers = [("authorization", bearer.as_str()), JSON];
                let page = send_raw(&provider, method.parse().expect("a method"), path, &headers, body.into()).await;
                assert_eq!(refused(path, &page), 400, "{path} {what}: {}", page.body);
            }
        }
        assert_eq!(provider.row_counts().await, before);
    }

    /// Nothing but U+0000 itself: a password may well hold the six characters that spell it.
    async fn what_only_looks_like_it_is_none(provider: Provider) {
        let password = "engine \\u0000";
        let body = json!({ "username": "ada", "password": password, "confirmPassword": password });
        let page = post(&mut provider.browser(), "/api/auth/signup", body).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let body = json!({ "username": "ada", "password": password });
        assert_eq!(post(&mut provider.browser(), "/api/auth/login", body).await.status, StatusCode::OK);
    }

    async fn a_huge_body_is_refused_whether_it_says_so_or_not(provider: Provider) {
        let bearer = bearer(&provider).await;
        let before = provider.row_counts().await;
        for (method, path, good) in CALLS {
            let padded = format!("{}{good}", " ".repeat(10 << 20));
            for body in [Body::from(padded), endless(10 << 20)] {
                let headers = [("authorization", bearer.as_str()), JSON];
                let page = send_raw(&provider, method.parse().expect("a method"), path, &headers, body).await;
                assert_eq!(refused(path, &page), 413, "{path}");
            }
        }
        assert_eq!(provider.row_counts().await, before);
        let padded = format!("{{\"pseudo\":\"x\"{}}}", " ".repeat(60_000));
        let headers = [("authorization", bearer.as_str()), JSON];
        let page = send_raw(&provider, Method::PATCH, "/auth/me", &headers, padded.into()).await;
        assert_eq!(page.status, StatusCode::OK, "one of 60 kB is read");
    }

    async fn what_there_is_not_is_told_in_the_form_of_the_api(provider: Provider) {
        let before = provider.row_counts().await;
        for (method, path, status, allowed) in [
            ("GET", "/api/auth", 404, None),
            ("GET", "/api/auth/", 404, None),
            ("POST", "/api/auth/refresh", 404, None),
            ("POST", "/api/auth/login/more", 404, None),
            ("POST", "/api/auth/Login", 404, None),
            ("GET", "/auth", 404, None),
            ("GET", "/auth/register/1", 404, None),
            ("POST", "/auth/%00", 404, None),
            ("GET", "/api/auth/signup", 405, Some("POST")),
            ("DELETE", "/api/auth/login", 405, Some("POST")),
            ("GET", "/api/auth/logout", 405, Some("POST")),
            ("POST", "/api/auth/me", 405, Some("GET,HEAD")),
            ("BREW", "/api/auth/me", 405, Some("GET,HEAD")),
            ("GET", "/auth/register", 405, Some("POST")),
            ("PUT", "/auth/login", 405, Some("POST")),
            ("OPTIONS", "/auth/refresh", 405, Some("POST")),
            ("GET", "/auth/me", 405, Some("PATCH")),
        ] {
            let page = send_raw(&provider, method.parse().expect("a method"), path, &[], Body::empty()).await;
            assert_eq!((refused(path_of(path), &page), page.header("allow")), (status, allowed), "{method} {path}");
        }
        assert_eq!(provider.row_counts().await, before);
    }

    async fn an_api_whose_client_is_switched_off_is_not_there(provider: Provider) {
        for client in ["study", "game"] {
            provider.set_client_disabled(client, true).await;
        }
        let before = provider.row_counts().await;
        for (method, path, good) in CALLS.into_iter().filter(|(method, ..)| *method == "POST") {
            let page = send_raw(&provider, method.parse().expect("a method"), path, &[JSON], good.into()).await;
            assert_eq!(refused(path, &page), 404, "{path}");
        }
        assert_eq!(provider.row_counts().await, before);
    }
}

/// `/api/auth` itself is of the API as well.
fn path_of(path: &str) -> &str {
    if path == "/api/auth" { "/api/auth/" } else { path }
}
