//! Apps in browsers call from pages of their own: of the origins that their client has, and of no others.

use axum::body::Body;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{send_raw, text};
use crate::on_both_databases;
use crate::support::{Browser, Page, json as call};

const OWN: &str = "https://study.test";

/// What a browser would let the page see: nothing, or everything that is asked for.
#[track_caller]
fn is_readable(page: &Page) -> bool {
    let allowed = page.header("access-control-allow-origin");
    assert_eq!(page.header("access-control-allow-credentials"), None, "never with cookies");
    let varies =
        page.headers.get_all("vary").iter().any(|value| value.to_str().is_ok_and(|value| value.contains("Origin")));
    assert!(varies, "{:?}", page.headers);
    assert!(allowed.is_none_or(|origin| origin == OWN), "{allowed:?}");
    allowed.is_some()
}

async fn preflight(browser: &mut Browser, path: &str, origin: &str, method: &str) -> Page {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    browser.send(Method::OPTIONS, path, None, &headers).await
}

on_both_databases! {
    async fn a_page_of_the_app_may_call_and_read_whatever_comes_back(provider: Provider) {
        let mut browser = provider.browser();
        for (path, method) in [("signup", "POST"), ("login", "POST"), ("me", "GET"), ("logout", "POST")] {
            let page = preflight(&mut browser, &format!("/api/auth/{path}"), OWN, method).await;
            assert_eq!((page.status, is_readable(&page)), (StatusCode::NO_CONTENT, true), "{path}");
            assert!(page.header("access-control-allow-methods").is_some_and(|methods| methods.contains(method)));
            assert_eq!(page.header("access-control-allow-headers"), Some("authorization, content-type"));
        }
        let body = json!({ "username": "ada", "password": "engine", "confirmPassword": "engine" });
        let origin = [("origin", OWN)];
        let made = call(&mut browser, "POST", "/api/auth/signup", body.clone(), &origin).await;
        let token = text(&made, "/token");
        let mut answers = vec![(200, made)];
        let bearer = format!("Bearer {token}");
        let with_token = [("origin", OWN), ("authorization", bearer.as_str())];
        answers.push((200, call(&mut browser, "GET", "/api/auth/me", Value::Null, &with_token).await));
        answers.push((200, call(&mut browser, "POST", "/api/auth/logout", Value::Null, &with_token).await));
        answers.push((401, call(&mut browser, "GET", "/api/auth/me", Value::Null, &with_token).await));
        answers.push((401, call(&mut browser, "GET", "/api/auth/me", Value::Null, &origin).await));
        answers.push((400, call(&mut browser, "POST", "/api/auth/signup", body.clone(), &origin).await));
        let wrong = json!({ "username": "ada", "password": "wrong" });
        for status in [401, 401, 401, 429] {
            answers.push((status, call(&mut browser, "POST", "/api/auth/login", wrong.clone(), &origin).await));
        }
        answers.push((405, browser.send(Method::DELETE, "/api/auth/me", None, &origin).await));
        answers.push((404, browser.send(Method::GET, "/api/auth/nothing", None, &origin).await));
        let headers = [("origin", OWN), ("content-type", "application/json")];
        for path in ["/api/auth/login", "/api/auth/nothing"] {
            let body = Body::from(" ".repeat(70_000));
            answers.push((413, send_raw(&provider, Method::POST, path, &headers, body).await));
        }
        for (n, (status, page)) in answers.iter().enumerate() {
            assert_eq!(page.status, *status, "{n}: {}", page.body);
            assert!(is_readable(page), "{n}: {status} {:?}", page.headers);
        }
        let throttled = answers.iter().find(|(status, _)| *status == 429).expect("one");
        let exposed = throttled.1.header("access-control-expose-headers").expect("a list");
        assert!(exposed.contains("retry-after") && exposed.contains("ratelimit-reset"), "{exposed}");
    }

    /// Its calls may come, as they could from anywhere; a page in a browser learns nothing of what was answered.
    async fn a_page_of_anybody_else_learns_nothing(provider: Provider) {
        let mut browser = provider.browser();
        for origin in ["https://evil.test", "https://study.test.evil.test", "http://study.test", "https://study.test:444", "https://app.test", "null"] {
            let page = preflight(&mut browser, "/api/auth/login", origin, "POST").await;
            assert!(!is_readable(&page) && page.header("access-control-allow-methods").is_none(), "{origin}");
            let page = call(&mut browser, "GET", "/api/auth/me", Value::Null, &[("origin", origin)]).await;
            assert!(page.status == 401 && !is_readable(&page), "{origin}");
        }
        // The game has no pages, and the study app's are not its.
        for (path, method) in [("register", "POST"), ("login", "POST"), ("refresh", "POST"), ("me", "PATCH")] {
            let page = preflight(&mut browser, &format!("/auth/{path}"), OWN, method).await;
            assert!(!is_readable(&page), "{path}");
        }
        assert!(is_readable(&preflight(&mut browser, "/api/auth/login", OWN, "POST").await));
        provider.set_client_disabled("study", true).await;
        assert!(!is_readable(&preflight(&mut browser, "/api/auth/login", OWN, "POST").await), "a client that is switched off");
    }
}
