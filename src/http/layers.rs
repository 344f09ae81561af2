//! What every request passes: an id, the client's address, limits of size and time, a log line, and headers that
//! every answer bears.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Shared;
use super::error::{Fault, body_refused};
use super::extract::peer::{self, ClientAddress};
use super::pages::{self, error::PageError};
use super::serve::{BodyFate, BodyProblem};
use crate::ambient::{Stopwatch, random_token};

/// Largest body we read. The largest thing anybody sends us is a hint or two.
pub const BODY_LIMIT: usize = 64 * 1024;
/// How long a request may take. A write that was queued goes on all the same.
const TIMEOUT: Duration = Duration::from_secs(30);

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names one request in answers and in the log.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

pub fn wrap(routes: Router, web: &Shared) -> Router {
    routes.layer(DefaultBodyLimit::max(BODY_LIMIT)).layer(from_fn_with_state(Arc::clone(web), around))
}

/// The outermost layer.
async fn around(State(web): State<Shared>, mut request: Request, next: Next) -> Response {
    let watch = Stopwatch::start();
    let id = random_token::<12>(web.app.rng.as_ref());
    let address = peer::client_address(&request, &web.app.config.trusted_proxies);
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(ClientAddress(address));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // The path only: queries carry codes, tickets and hints.
    let path = request.uri().path().to_owned();

    let for_people = pages::wants_html(request.headers());
    let fate = BodyFate::of(&mut request);

    let running = AssertUnwindSafe(tokio::time::timeout(TIMEOUT, run(request, next, &fate))).catch_unwind();
    let mut response = match running.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => failed(Fault::transient("the request took too long"), for_people),
        Err(_) => failed(Fault::new("a handler panicked"), for_people),
    };
    if let Some(problem) = fate.problem() {
        // Whatever the handler made of a body that broke off, this is why.
        response = refused(problem, for_people);
    }
    let mut detail = None;
    if let Some(page) = response.extensions_mut().remove::<PageError>() {
        detail = page.detail().map(str::to_owned);
        response = page.render(&web, &id);
    }
    harden(response.headers_mut(), web.secure);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let micros = watch.elapsed_micros();
    let fault = response.extensions().get::<Fault>();
    let route = route.as_deref().unwrap_or("-");
    match (fault, detail) {
        (Some(fault), _) => {
            tracing::error!(request_id = %id, %method, path, route, status, micros, %fault, "request failed")
        }
        (None, Some(detail)) => {
            tracing::warn!(request_id = %id, %method, path, route, status, micros, detail, "request refused")
        }
        (None, None) => tracing::info!(request_id = %id, %method, path, route, status, micros, "request"),
    }
    response
}

/// A body that is announced as too large is refused before anybody waits for it.
async fn run(request: Request, next: Next, fate: &BodyFate) -> Response {
    if request.body().size_hint().lower() > BODY_LIMIT as u64 {
        fate.set_too_large();
        return Response::default();
    }
    next.run(request).await
}

fn refused(problem: BodyProblem, for_people: bool) -> Response {
    if for_people { PageError::from(problem).into_response() } else { body_refused(problem) }
}

fn failed(fault: Fault, for_people: bool) -> Response {
    if for_people { PageError::from(fault).into_response() } else { fault.into_response() }
}

/// Headers of every answer, unless the handler set a policy of its own.
fn harden(headers: &mut HeaderMap, https: bool) {
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(REFERRER_POLICY, "no-referrer");
    default(X_FRAME_OPTIONS, "DENY");
    default(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; base-uri 'none'");
    // No Cross-Origin-Opener-Policy: apps that sign in through a popup wait for a word from it.
    if https {
        default(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
}
