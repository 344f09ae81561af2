//! What both sign-in APIs have in common: who may read their answers, whose word is taken for a credential, and what
//! is made of input that no app would send. Each API's own page is walked in `inspir.rs` and `playsmart.rs`.

mod cors;
mod forwarded;
mod inputs;
pub mod process;

pub use process::APIS;

use std::net::Ipv4Addr;

use axum::body::{Body, to_bytes};
use http::{Method, Request};
use keyward::account::declared;
use keyward::crypto::secret::Secret;
use keyward::protocol::client::IntrospectionRight;
use keyward::protocol::ids::UserId;
use serde_json::{Map, Value};
use tower::ServiceExt as _;

use crate::support::audit::told;
use crate::support::{Browser, Page, Provider, json as call};

/// What is posted from this browser.
pub async fn post(browser: &mut Browser, path: &str, body: Value) -> Page {
    call(browser, "POST", path, body, &[]).await
}

/// The same from a network that nobody else calls from.
pub async fn post_from(provider: &Provider, network: usize, path: &str, body: Value) -> Page {
    post(&mut elsewhere(provider, network), path, body).await
}

/// A browser in the network of this number.
pub fn elsewhere(provider: &Provider, network: usize) -> Browser {
    let number = u32::try_from(network).expect("a small number");
    provider.browser_from(&(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + number)).to_string())
}

/// A body as it is, without anything being made of it.
pub async fn send_raw(provider: &Provider, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Page {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).expect("a request");
    let (parts, body) = provider.router.clone().oneshot(request).await.expect("an answer").into_parts();
    let bytes = to_bytes(body, 1 << 20).await.expect("a body");
    Page { status: parts.status, headers: parts.headers, body: String::from_utf8(bytes.to_vec()).expect("text") }
}

/// Status, `error` and `message` of the username API, after the answer's form was looked at.
#[track_caller]
pub fn study_error(page: &Page) -> (u16, String) {
    let body = members(page);
    let known = |name: &str| ["error", "message"].contains(&name);
    assert!(body.keys().all(|name| known(name)), "{body:?}");
    (page.status.as_u16(), body["error"].as_str().expect("a text").to_owned())
}

/// Status and `CODE message` of the device API, after the answer's form was looked at.
#[track_caller]
pub fn game_error(page: &Page) -> (u16, String) {
    let body = members(page);
    assert_eq!(body.len(), 1, "{body:?}");
    let error = body["error"].as_object().expect("an object");
    let known = |name: &str| ["code", "message", "details"].contains(&name);
    assert!(error.keys().all(|name| known(name)), "{error:?}");
    assert_eq!(error.contains_key("details"), error["message"] == "invalid_payload", "{error:?}");
    let text = |name: &str| error[name].as_str().expect("a text");
    (page.status.as_u16(), format!("{} {}", text("code"), text("message")))
}

/// The names in `details`, sorted; each has a reason.
#[track_caller]
pub fn bad_fields(page: &Page) -> Vec<String> {
    assert_eq!(game_error(page), (400, "BAD_REQUEST invalid_payload".to_owned()));
    let details = page.json()["error"]["details"].as_object().expect("an object").clone();
    assert!(details.values().all(|why| why.as_str().is_some_and(|why| !why.is_empty())), "{details:?}");
    details.keys().cloned().collect()
}

#[track_caller]
fn members(page: &Page) -> Map<String, Value> {
    assert_eq!(page.header("content-type"), Some("application/json"), "{}", page.body);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!((page.status == 401) == page.headers.contains_key("www-authenticate"), "{:?}", page.headers);
    page.json().as_object().expect("an object").clone()
}

/// The text of a member, by its JSON pointer.
#[track_caller]
pub fn text(page: &Page, pointer: &str) -> String {
    let body = page.json();
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {body}")).to_owned()
}

/// A sign-up by the username API that goes well.
#[track_caller]
pub fn signed_up(browser: &mut Browser, username: &str, password: &str) -> impl Future<Output = Page> {
    let body = serde_json::json!({ "username": username, "password": password, "confirmPassword": password });
    async move {
        let page = post(browser, "/api/auth/signup", body).await;
        assert_eq!(page.status, 200, "{}", page.body);
        page
    }
}

/// A player who registers, and it goes well.
pub async fn registered(browser: &mut Browser, email: &str, password: &str, device: &str) -> Page {
    let body = serde_json::json!({ "email": email, "password": password, "deviceId": device });
    let page = post(browser, "/auth/register", body).await;
    assert_eq!(page.status, 201, "{}", page.body);
    page
}

/// A call with a bearer token.
pub async fn with_token(browser: &mut Browser, method: &str, path: &str, token: &str, body: Value) -> Page {
    call(browser, method, path, body, &[("authorization", &format!("Bearer {token}"))]).await
}

/// Lets `rs` introspect every token.
pub async fn let_rs_introspect(provider: &Provider) {
    provider.change_client("rs", |record| record.client.metadata.introspection = IntrospectionRight::Any).await;
}

/// What an operator does to somebody.
pub enum Operator {
    Disables,
    Enables,
    Deletes,
    SetsPassword(&'static str),
}

impl Operator {
    pub async fn acts(self, provider: &Provider, sub: &str) {
        let (app, id) = (&provider.app, UserId::new(sub));
        let now = app.now();
        let done = match self {
            Self::Disables => app.store.set_user_disabled(id, Some(now), told(), now).await,
            Self::Enables => app.store.set_user_disabled(id, None, told(), now).await,
            Self::Deletes => app.store.delete_user(id, told()).await,
            Self::SetsPassword(password) => {
                let hash = declared::hash_new_password(app, Secret::new(password.to_owned())).await.expect("a hash");
                app.store.set_password(id, hash, told(), now).await
            }
        };
        assert!(done.expect("an answer"), "nobody has the sub {sub}");
    }
}

/// Rows of one table.
pub fn rows_of(counts: &[(String, i64)], table: &str) -> i64 {
    counts.iter().find(|(name, _)| name == table).expect("a table").1
}

/// Headers of a JSON body.
pub const JSON: (&str, &str) = ("content-type", "application/json");
