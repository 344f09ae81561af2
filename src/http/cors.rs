//! Cross-origin reads (Fetch standard): documents that everybody may read, and endpoints that browser apps of
//! registered origins may call. Never with cookies: no answer carries `Access-Control-Allow-Credentials`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderValue, Method, StatusCode};

use super::Shared;
use super::error::Fault;
use super::problem::Problem;
use super::respond;
use crate::protocol::ids::ClientId;

/// For documents that are the same for everybody.
pub async fn any_origin(request: Request, next: Next) -> Response {
    let response =
        if is_preflight(&request) { respond::empty(StatusCode::NO_CONTENT) } else { next.run(request).await };
    allow(response, HeaderValue::from_static("*"))
}

/// For endpoints that browser apps call: the origins of registered redirect URIs, and `allowed_origins`.
pub async fn registered_origins(State(web): State<Shared>, request: Request, next: Next) -> Response {
    of_registered_origins(&web, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

/// The same for the JSON API, whose errors look otherwise.
pub async fn registered_origins_of_api(State(web): State<Shared>, request: Request, next: Next) -> Response {
    let answered = of_registered_origins(&web, request, next).await;
    answered.unwrap_or_else(|fault| Problem::from(fault).into_response())
}

/// For a sign-in API: the `allowed_origins` of the client that its calls act as.
pub async fn origins_of_client(
    State((web, client)): State<(Shared, ClientId)>,
    request: Request,
    next: Next,
) -> Response {
    let known = match origin_of(&request) {
        None => false,
        Some(origin) => match web.app.store.client(&client).await {
            Ok(record) => record.is_some_and(|record| {
                record.client.is_enabled() && record.client.metadata.allowed_origins.contains(&origin)
            }),
            // The call itself will meet it as well, and say so in its own form.
            Err(_) => false,
        },
    };
    answer(known, request, next).await
}

async fn of_registered_origins(web: &Shared, request: Request, next: Next) -> Result<Response, Fault> {
    let known = match origin_of(&request) {
        None => false,
        Some(origin) => web.app.store.is_registered_origin(&origin).await?,
    };
    Ok(answer(known, request, next).await)
}

fn origin_of(request: &Request) -> Option<String> {
    request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned)
}

/// The answer, readable for the page that asked where its origin is `known`.
async fn answer(known: bool, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let preflight = is_preflight(&request);
    let mut response = if preflight { respond::empty(StatusCode::NO_CONTENT) } else { next.run(request).await };
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    match origin {
        Some(origin) if known => allow(response, origin),
        _ => response,
    }
}

/// An answer in place of another, readable for the same page.
pub fn carry_over(replaced: &Response, mut response: Response) -> Response {
    let ours = [
        VARY,
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE,
    ];
    for name in ours {
        for value in replaced.headers().get_all(&name) {
            response.headers_mut().append(&name, value.clone());
        }
    }
    response
}

/// What pages may read of an answer beside its body.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "www-authenticate, retry-after, ratelimit, ratelimit-policy, ratelimit-limit, ratelimit-remaining, \
     ratelimit-reset, x-request-id",
);

/// The preflight of a page's request, which tells what the page may read and does nothing.
pub fn preflight_of(request: &Request) -> Option<Request> {
    let origin = request.headers().get(ORIGIN)?.clone();
    let mut preflight = Request::new(Body::empty());
    *preflight.method_mut() = Method::OPTIONS;
    *preflight.uri_mut() = request.uri().clone();
    *preflight.extensions_mut() = request.extensions().clone();
    preflight.headers_mut().insert(ORIGIN, origin);
    let method = HeaderValue::from_str(request.method().as_str()).ok()?;
    preflight.headers_mut().insert(ACCESS_CONTROL_REQUEST_METHOD, method);
    Some(preflight)
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn allow(mut response: Response, origin: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PATCH"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}
