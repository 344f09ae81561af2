//! The UserInfo endpoint (OpenID Connect Core §5.3) for bearer tokens in the header or, by POST, in the body
//! (RFC 6750 §2.1, §2.2). Never in the query, where they end up in logs, and never by cookie.

use axum::extract::State;
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use crate::http::Web;
use crate::http::error::BearerError;
use crate::http::extract::params::{FormParams, QueryParams};
use crate::http::{Shared, respond};
use crate::live;
use crate::protocol::error::{Error, ErrorCode};
use crate::protocol::params::Params;
use crate::protocol::{claims, scope};

pub async fn get(
    State(web): State<Shared>,
    headers: HeaderMap,
    QueryParams(query): QueryParams,
) -> Result<Response, BearerError> {
    let token = presented(&headers, &query?, None)?;
    answer(&web, &token).await
}

pub async fn post(
    State(web): State<Shared>,
    headers: HeaderMap,
    QueryParams(query): QueryParams,
    FormParams(form): FormParams,
) -> Result<Response, BearerError> {
    // A POST that carries its token in the header need not have a form at all.
    let form = if headers.contains_key(AUTHORIZATION) { form.ok() } else { Some(form?) };
    let token = presented(&headers, &query?, form.as_ref())?;
    answer(&web, &token).await
}

/// The one token of a request (RFC 6750 §2: exactly one method).
fn presented(headers: &HeaderMap, query: &Params, form: Option<&Params>) -> Result<String, BearerError> {
    if query.get("access_token").is_some() {
        return Err(Error::invalid_request("an access token must not be sent in the URL").into());
    }
    let in_body = form.and_then(|form| form.get("access_token"));
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let header = lines.next().map(|line| line.to_str().unwrap_or_default());
    let twice = lines.next().is_some() || form.is_some_and(|form| form.is_repeated("access_token"));
    match (header, in_body) {
        _ if twice => Err(Error::invalid_request("more than one access token").into()),
        (Some(_), Some(_)) => Err(Error::invalid_request("the access token came in the header and in the body").into()),
        (None, Some(token)) => Ok(token.to_owned()),
        (Some(header), None) => match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim().to_owned()),
            _ => Err(BearerError::Missing),
        },
        (None, None) => Err(BearerError::Missing),
    }
}

async fn answer(web: &Web, token: &str) -> Result<Response, BearerError> {
    let app = &web.app;
    let refused = || Error::invalid_token("the access token is unknown, expired or revoked, or not for this issuer");
    let live = live::access_token(app, token, app.now()).await?.ok_or_else(refused)?;
    if !claims::audience(&live.token.claims).contains(&app.metadata.issuer.as_str()) {
        return Err(refused().into());
    }
    let Some((grant, user)) = live.grant().filter(|_| live.scope.contains(scope::OPENID)) else {
        let error = Error::new(ErrorCode::InsufficientScope, "the access token lacks the scope openid");
        return Err(error.into());
    };
    Ok(respond::json(StatusCode::OK, &claims::userinfo(user, &live.scope, &grant.claims)))
}
