//! What gateways ask before they hand a request on: nginx's `auth_request`, Traefik's `forwardAuth`, Caddy's
//! `forward_auth`, Envoy's `ext_authz`. Any method, and no body is read. Which answer follows from what is
//! `protocol/gateway`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{ORIGIN, VARY, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::error::{Fault, with_retry_after};
use super::extract::credential::Credential;
use super::extract::peer::{self, ClientAddress};
use super::{Shared, Web, respond};
use crate::protocol::gateway::{
    HEADERS, Misconfigured, Mode, Requirement, Trouble, Verdict, decide, headers, is_own_origin, is_safe, site_origin,
};

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What an answer depends on beside the route.
const VARIES_BY: HeaderValue = HeaderValue::from_static(
    "Authorization, Cookie, Origin, X-Forwarded-Authorization, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Method, X-Forwarded-Proto, \
     X-Original-Method",
);

/// `/forward-auth/{mode}`.
pub async fn check(State(web): State<Shared>, address: ClientAddress, request: Request) -> Response {
    let from_proxy = peer::is_from_proxy(&request, &web.app.config.trusted_proxies);
    let (parts, _unread) = request.into_parts();
    match route(&parts) {
        Err(mistake) => misconfigured(mistake),
        Ok((mode, requirement)) => answer(&web, &parts, address, from_proxy, mode, &requirement)
            .await
            .unwrap_or_else(|fault| fault.into_response()),
    }
}

/// What the gateway's configuration says of the route.
fn route(parts: &Parts) -> Result<(Mode, Requirement), Misconfigured> {
    let mode = parts.uri.path().rsplit('/').next().and_then(|mode| mode.parse().ok()).ok_or(Misconfigured::Mode)?;
    Ok((mode, Requirement::parse(parts.uri.query().unwrap_or_default())?))
}

async fn answer(
    web: &Web,
    parts: &Parts,
    address: ClientAddress,
    from_proxy: bool,
    mode: Mode,
    requirement: &Requirement,
) -> Result<Response, Fault> {
    let presented = match mode {
        Mode::Public => Ok(None),
        Mode::Optional | Mode::Required => {
            Credential::of(web, &parts.headers, address, may_use_cookie(web, parts, from_proxy)).await?
        }
    };
    let issuer = web.app.metadata.issuer.as_str();
    let holder = match &presented {
        Ok(credential) => Ok(credential.as_ref().map(|credential| credential.holder(issuer))),
        Err(trouble) => Err(*trouble),
    };
    Ok(write(&decide(mode, holder, requirement, issuer), requirement))
}

/// Whether no other site can have made the browser send this request with its cookies, as far as that matters. That
/// the visitor's method changes something is believed whoever says so; where their page belongs, only from a proxy
/// that is known to set these headers itself.
fn may_use_cookie(web: &Web, parts: &Parts, from_proxy: bool) -> bool {
    let said = [FORWARDED_METHOD, ORIGINAL_METHOD];
    let said = said.iter().flat_map(|name| parts.headers.get_all(name)).map(|value| value.to_str().unwrap_or_default());
    if is_safe(said.chain([parts.method.as_str()])) {
        return true;
    }
    let known = |name| from_proxy.then(|| only(&parts.headers, name)).flatten();
    let site = known(&FORWARDED_PROTO).zip(known(&FORWARDED_HOST)).and_then(|(scheme, host)| site_origin(scheme, host));
    is_own_origin(only(&parts.headers, &ORIGIN), web.app.config.issuer.origin(), site.as_deref())
}

/// The value of a header that stands there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    line.to_str().ok()
}

fn write(verdict: &Verdict<'_>, requirement: &Requirement) -> Response {
    let mut response = match verdict {
        Verdict::User(_) | Verdict::Guest(_) => respond::empty(StatusCode::OK),
        Verdict::Unauthorized(trouble) => refusal(StatusCode::UNAUTHORIZED, *trouble, requirement),
        Verdict::Forbidden(trouble) => refusal(StatusCode::FORBIDDEN, Some(*trouble), requirement),
    };
    let own = response.headers_mut();
    own.insert(VARY, VARIES_BY);
    for (name, value) in HEADERS.into_iter().zip(headers(verdict)) {
        match HeaderValue::from_str(&value) {
            Ok(value) => own.insert(HeaderName::from_static(name), value),
            Err(error) => return Fault::new(format!("{name}: {error}")).into_response(),
        };
    }
    response
}

/// 401 or 403 with the challenge of RFC 6750 §3.
fn refusal(status: StatusCode, trouble: Option<Trouble>, requirement: &Requirement) -> Response {
    let mut response = match trouble {
        None => respond::empty(status),
        Some(trouble) => {
            respond::json(status, &json!({ "error": trouble.code(), "error_description": trouble.description() }))
        }
    };
    let mut challenge = "Bearer realm=\"keyward\"".to_owned();
    if let Some((trouble, code)) = trouble.and_then(|trouble| Some((trouble, trouble.challenge()?))) {
        challenge.push_str(&format!(", error=\"{code}\", error_description=\"{}\"", trouble.description()));
        if trouble == Trouble::InsufficientScope {
            challenge.push_str(&format!(", scope=\"{}\"", requirement.scope));
        }
    }
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    match trouble {
        Some(Trouble::TooManyAttempts { retry_after }) => with_retry_after(response, retry_after),
        _ => response,
    }
}

/// A mistake of the gateway's configuration, which opens nothing in any mode.
fn misconfigured(mistake: Misconfigured) -> Response {
    let code = "misconfigured";
    let body = json!({ "error": code, "error_description": mistake.to_string() });
    let mut response = respond::json(StatusCode::FORBIDDEN, &body);
    for name in HEADERS {
        let value = match name {
            "x-auth-status" => "guest",
            "x-auth-error" => code,
            _ => "",
        };
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
