//! Pages for people, rendered on the server, one file a page. They need no script; `view.rs` has what they show.

pub mod assets;
pub mod chrome;
pub mod colour;
pub mod consent;
pub mod error;
pub mod form_post;
pub mod handoff;
pub mod login;
pub mod logout;
pub mod view;

use askama::Template;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::error::Fault;
use super::extract::csrf::Browser;
use super::respond::{self, no_store};
use crate::http::Web;
use crate::http::extract::cookie::BROWSER;
use error::PageError;
use view::{AccountView, ClientView};

use crate::protocol::client::Client;
use crate::protocol::error::{Error, ErrorCode};
use crate::protocol::user::User;

/// Where a page's forms may lead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Forms {
    /// There are none.
    None,
    /// Back to us.
    OwnOnly,
    /// Through us to an app, whose address may have any scheme. Chromium checks `form-action` at every hop of the
    /// redirect that follows, so such a page cannot name any.
    MayLeave,
}

/// An HTML answer under the strictest policy that its forms allow.
pub fn html(status: StatusCode, page: &impl Template, forms: Forms) -> Response {
    let form_action = match forms {
        Forms::None => "; form-action 'none'",
        Forms::OwnOnly => "; form-action 'self'",
        Forms::MayLeave => "",
    };
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self' https: data:; frame-ancestors 'none'; base-uri 'none'{form_action}"
    );
    html_with_policy(status, page, &policy)
}

pub fn html_with_policy(status: StatusCode, page: &impl Template, policy: &str) -> Response {
    let body = match page.render() {
        Ok(body) => body,
        Err(error) => return Fault::new(error).into_response(),
    };
    let mut response = no_store((status, body).into_response());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Sends along the cookie that forms are bound to, where the browser has none.
pub fn with_browser_cookie(web: &Web, browser: &Browser, mut response: Response) -> Response {
    let cookie = BROWSER.set(browser.id(), None, web.secure).filter(|_| browser.is_new);
    if let Some(cookie) = cookie {
        response.headers_mut().append(http::header::SET_COOKIE, cookie);
    }
    response
}

/// A client as pages show it. `host` lives in the caller, since it is computed.
pub fn client_view<'a>(client: &'a Client, host: Option<&'a str>) -> ClientView<'a> {
    ClientView {
        name: client.display_name(),
        host,
        logo_uri: client.metadata.logo_uri.as_deref(),
        policy_uri: client.metadata.policy_uri.as_deref(),
        tos_uri: client.metadata.tos_uri.as_deref(),
    }
}

/// The host that an address leads to, for people to judge; none for a private-use scheme.
pub fn web_host(uri: &str) -> Option<String> {
    let url = url::Url::parse(uri).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
    url.host_str().map(str::to_owned)
}

pub fn account_view(user: &User) -> AccountView<'_> {
    let name = user.display_name();
    let detail = user.email.as_deref().or(user.username.as_deref()).filter(|detail| *detail != name);
    AccountView { name, detail }
}

/// A browser gets a page, everything else JSON.
pub fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

pub async fn not_found(headers: HeaderMap) -> Response {
    if wants_html(&headers) {
        return PageError::not_found().into_response();
    }
    let error = serde_json::json!({ "error": "not_found", "error_description": "there is nothing at this address" });
    respond::json(StatusCode::NOT_FOUND, &error)
}

pub async fn method_not_allowed(method: Method) -> Response {
    let error = Error::new(ErrorCode::InvalidRequest, format!("the method {method} is not allowed here"));
    let body = serde_json::json!({ "error": error.code, "error_description": error.description() });
    respond::json(StatusCode::METHOD_NOT_ALLOWED, &body)
}
