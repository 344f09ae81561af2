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
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::Instrument as _;

use super::error::{Fault, body_refused};
use super::extract::peer::{self, ClientAddress};
use super::pages::{self, error::PageError};
use super::partner;
use super::problem::Problem;
use super::serve::{BodyFate, BodyProblem};
use super::{Shared, Web, api, cors, first_party};
use crate::ambient::{Stopwatch, random_token};
use crate::protocol::first_party::Api;
use crate::telemetry::{metrics, traces};

/// Largest body we read. The largest thing anybody sends us is a hint or two.
pub const BODY_LIMIT: usize = 64 * 1024;
/// How long a request may take. A write that was queued goes on all the same.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest id that we take from a proxy.
const LONGEST_ID: usize = 64;
/// Bytes of a path that are told.
const LOGGED_PATH: usize = 256;

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
    let trusted = &web.app.config.trusted_proxies;
    let from_proxy = peer::is_from_proxy(&request, trusted);
    let given = if from_proxy { given_id(&request) } else { None };
    let id = given.unwrap_or_else(|| random_token::<12>(web.app.rng.as_ref()));
    let address = peer::client_address(&request, trusted);
    if from_proxy && web.app.config.forwarded_authorization {
        peer::take_forwarded_authorization(request.headers_mut());
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(ClientAddress(address));
    let seen = Seen::of(&request);
    let form = Form::of(&web, &request);
    let trace = traces::ServerSpan::begin(&traces::Request {
        method: seen.known_method,
        scheme: if web.secure { "https" } else { "http" },
        path: &seen.path,
        route: seen.route(),
        // Whoever may name a parent also decides whether we record.
        parent: trace_parent(&request).filter(|_| from_proxy),
    });
    // At the highest level, so that every line that is logged inside bears the id, however little is logged.
    let span = tracing::error_span!("request", request_id = %id, trace_id = tracing::field::Empty);
    if let Some(trace_id) = trace.as_ref().and_then(traces::ServerSpan::trace_id) {
        span.record("trace_id", tracing::field::display(trace_id));
    }

    let fate = BodyFate::of(&mut request);
    let running = AssertUnwindSafe(tokio::time::timeout(TIMEOUT, run(request, next, &fate))).catch_unwind();
    let running = running.instrument(span.clone());
    let outcome = match &trace {
        Some(trace) => trace.around(running).await,
        None => running.await,
    };
    let _inside = span.enter();
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => failed(Fault::transient("the request took too long"), form),
        Err(_) => failed(Fault::new("a handler panicked"), form),
    };
    if let Some(problem) = fate.problem() {
        // Whatever the handler made of a body that broke off, this is why.
        response = cors::carry_over(&response, refused(problem, form));
    }
    let mut detail = None;
    if let Some(page) = response.extensions_mut().remove::<PageError>() {
        detail = page.detail().map(str::to_owned);
        response = page.render(&web, &id);
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        detail = Some(problem.code().to_owned());
        let stand_in = std::mem::take(response.headers_mut());
        response = problem.render(&id, stand_in);
    }
    harden(response.headers_mut(), web.secure);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let micros = watch.elapsed_micros();
    seen.tell(&response, detail.as_deref(), micros);
    let status = response.status().as_u16();
    metrics::http_request(seen.known_method, seen.route(), status, micros);
    if let Some(trace) = trace {
        trace.end(status);
    }
    response
}

/// What of a request may be told: its path only, since queries carry codes, tickets and hints.
struct Seen {
    method: Method,
    /// For metrics and traces, where a client must not make new names.
    known_method: &'static str,
    route: Option<MatchedPath>,
    path: String,
}

impl Seen {
    fn of(request: &Request) -> Self {
        let path = request.uri().path();
        Self {
            method: request.method().clone(),
            known_method: metrics::known_method(request.method().as_str()),
            route: request.extensions().get::<MatchedPath>().cloned(),
            path: shortened(path),
        }
    }

    fn route(&self) -> Option<&str> {
        self.route.as_ref().map(MatchedPath::as_str)
    }

    /// One line for each request, inside its span.
    fn tell(&self, response: &Response, detail: Option<&str>, micros: u64) {
        let Self { method, path, .. } = self;
        let route = self.route().unwrap_or("-");
        let status = response.status().as_u16();
        #[allow(clippy::cast_precision_loss)] // Exact for 285 years.
        let duration_ms = micros as f64 / 1000.0;
        match (response.extensions().get::<Fault>(), detail) {
            (Some(fault), _) => {
                tracing::error!(%method, path, route, status, duration_ms, %fault, "request failed")
            }
            (None, Some(detail)) => {
                tracing::warn!(%method, path, route, status, duration_ms, detail, "request refused")
            }
            (None, None) => tracing::info!(%method, path, route, status, duration_ms, "request"),
        }
    }
}

/// Nothing of ours is longer, and a flood of long paths should not fill the disk.
fn shortened(path: &str) -> String {
    if path.len() <= LOGGED_PATH {
        path.to_owned()
    } else {
        format!("{}…", &path[..path.floor_char_boundary(LOGGED_PATH)])
    }
}

/// The id that a proxy gave the request, if it is one that can stand anywhere.
fn given_id(request: &Request) -> Option<String> {
    let mut given = request.headers().get_all(REQUEST_ID).iter();
    let (Some(id), None) = (given.next()?.to_str().ok(), given.next()) else { return None };
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    ((1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(safe)).then(|| id.to_owned())
}

/// W3C Trace Context.
fn trace_parent(request: &Request) -> Option<traces::Parent<'_>> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    Some(traces::Parent { traceparent: header("traceparent")?, tracestate: header("tracestate") })
}

/// A body that is announced as too large is refused before anybody waits for it.
async fn run(request: Request, next: Next, fate: &BodyFate) -> Response {
    if request.body().size_hint().lower() > body_limit(request.uri().path()) as u64 {
        fate.set_too_large();
        return match cors::preflight_of(&request) {
            // The page that sent it may read that it was refused, if it may read anything.
            Some(preflight) => next.run(preflight).await,
            None => Response::default(),
        };
    }
    next.run(request).await
}

/// One kind of body may be larger than all others; who sends it is known before it is read.
fn body_limit(path: &str) -> usize {
    if path.ends_with(partner::imports::PATH) { partner::imports::BODY_LIMIT } else { BODY_LIMIT }
}

/// How an answer looks that no handler gave.
#[derive(Clone, Copy)]
enum Form {
    /// For people.
    Page,
    /// For apps, as the protocol endpoints answer.
    OAuth,
    /// For callers of the JSON API.
    Problem,
    /// For apps of a sign-in API.
    FirstParty(Api),
}

impl Form {
    fn of(web: &Web, request: &Request) -> Self {
        let below_issuer = request.uri().path().strip_prefix(web.app.config.issuer.path());
        if let Some(api) = below_issuer.and_then(|path| first_party::api_of(web, path)) {
            return Self::FirstParty(api);
        }
        let rest = below_issuer.and_then(|path| path.strip_prefix(api::PREFIX));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            Self::Problem
        } else if pages::wants_html(request.headers()) {
            Self::Page
        } else {
            Self::OAuth
        }
    }
}

fn refused(problem: BodyProblem, form: Form) -> Response {
    match form {
        Form::Page => PageError::from(problem).into_response(),
        Form::OAuth => body_refused(problem),
        Form::Problem => Problem::from(problem).into_response(),
        Form::FirstParty(api) => first_party::body_refused(api, problem),
    }
}

fn failed(fault: Fault, form: Form) -> Response {
    match form {
        Form::Page => PageError::from(fault).into_response(),
        Form::OAuth => fault.into_response(),
        Form::Problem => Problem::from(fault).into_response(),
        Form::FirstParty(api) => first_party::failed(api, fault),
    }
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
