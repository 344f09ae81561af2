//! The demo relying party of `keyward dev`: a small app on the `openidconnect` crate that signs in with the code flow
//! (OpenID Connect Core 1.0 §3.1), checks everything a relying party must check and shows what it received.
//!
//! It is a client like any other: it knows the provider by its issuer alone and shares no state with it. Running it
//! (the listener) is the `dev` command's business.

mod page;
mod provider;
mod received;
mod session;
mod sign_in;
mod sign_out;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tokio::sync::RwLock;

use crate::crypto::secret::Secret;
use page::{Home, Trouble};
use provider::{Http, Metadata};
use received::Received;
use session::{Session, Sessions};

/// What the demo must know about itself; everything about the provider is discovered.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// The provider, byte for byte as in its `iss` (OpenID Connect Discovery 1.0 §4.3).
    pub issuer: String,
    /// Where browsers find this app, without a trailing slash: `http://localhost:8081`. `/callback` and `/signed-out`
    /// below it must be registered as redirect_uri and post_logout_redirect_uri.
    pub base_url: String,
    pub client_id: String,
    pub client_secret: Secret<String>,
    /// What to ask for; `offline_access` is what brings a refresh token. `openid` is always asked for.
    pub scopes: Vec<String>,
}

/// What every handler sees.
struct Demo {
    config: DemoConfig,
    http: Http,
    /// The last discovery document with its keys; empty until the first use, because the demo may start before the
    /// provider listens.
    metadata: RwLock<Option<Arc<Metadata>>>,
    sessions: Sessions,
}

/// The whole app. Never fails: what is wrong with the configuration or the provider is shown as a page at first use.
pub fn router(config: DemoConfig) -> Router {
    let http = Http::new(&config.issuer);
    let sessions = Sessions::new(config.base_url.starts_with("https://"));
    let demo = Arc::new(Demo { config, http, metadata: RwLock::new(None), sessions });
    Router::new()
        .route("/", get(home))
        .route("/sign-in", get(sign_in::start))
        .route("/callback", get(sign_in::callback_query).post(sign_in::callback_form))
        .route("/refresh", post(refresh))
        .route("/sign-out", post(sign_out::start))
        .route("/signed-out", get(sign_out::finished))
        .route("/demo.css", get(stylesheet))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .fallback(not_found)
        .layer(map_response(harden))
        .with_state(demo)
}

async fn home(State(demo): State<Arc<Demo>>, headers: HeaderMap) -> Response {
    let home = demo.sessions.of(&headers, |session| Home::new(&demo.config, Some(session)));
    home.unwrap_or_else(|| Home::new(&demo.config, None)).into_response()
}

/// The refresh grant (RFC 6749 §6), on the button.
async fn refresh(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Trouble> {
    checked_session(&demo, &headers, body, |_| ())?;
    let Some(before) = demo.sessions.of(&headers, |session| session.signed_in.clone()).flatten() else {
        return Ok(Redirect::to("/").into_response());
    };
    let after = demo.refreshed(&before).await?;
    demo.sessions.of(&headers, |session| match &mut session.signed_in {
        // Meanwhile another request may have refreshed, signed out or signed in anew: then its outcome stands.
        Some(current) if current.same_refresh_token(&before) => *current = after,
        _ => (),
    });
    Ok(Redirect::to("/").into_response())
}

/// Runs `f` on the browser's session if the form carries that session's CSRF token. A form without a session is not
/// an attack but an old page: it gets the same words.
fn checked_session<T>(
    demo: &Demo,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    f: impl FnOnce(&mut Session) -> T,
) -> Result<T, Trouble> {
    let csrf = Received::form(body)?.one("csrf")?.unwrap_or_default();
    let checked = demo.sessions.of(headers, |session| session.takes_csrf(&csrf).then(|| f(session)));
    checked.flatten().ok_or_else(|| {
        Trouble::new(
            StatusCode::FORBIDDEN,
            "This form is out of date",
            "The demo keeps its sessions in memory, so they end when it restarts. Go back to the start and try again.",
        )
    })
}

async fn stylesheet() -> impl IntoResponse {
    const CSS: &str = include_str!("../../../templates/demo/demo.css");
    ([(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "max-age=60")], CSS)
}

async fn not_found() -> Trouble {
    Trouble::new(StatusCode::NOT_FOUND, "There is no such page", "Everything this demo does begins at the start page.")
}

/// Pages show tokens: no script, no frame, no cache, and no code of a callback URL in a `Referer`. There is no
/// `form-action`: browsers apply it to every hop of a redirect, and signing out ends at the provider.
async fn harden(mut response: Response) -> Response {
    const CSP: &str = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'";
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
