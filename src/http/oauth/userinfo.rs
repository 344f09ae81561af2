//! The UserInfo endpoint (OpenID Connect Core §5.3) for bearer tokens in the header or, by POST, in the body
//! (RFC 6750 §2.1, §2.2). Never in the query, where they end up in logs, and never by cookie.

use axum::extract::State;
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use crate::http::Web;
use crate::http::error::BearerError;
use crate::http::extract::bearer::{self, Bearer};
use crate::http::extract::params::{FormParams, QueryParams};
use crate::http::extract::peer::ClientAddress;
use crate::http::{Shared, respond};
use crate::protocol::claims::ClaimsRequest;
use crate::protocol::error::{Error, ErrorCode};
use crate::protocol::params::Params;
use crate::protocol::{claims, scope};

pub async fn get(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    QueryParams(query): QueryParams,
) -> Result<Response, BearerError> {
    let token = presented(&headers, &query?, None)?;
    answer(&web, address, &token).await
}

pub async fn post(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    QueryParams(query): QueryParams,
    FormParams(form): FormParams,
) -> Result<Response, BearerError> {
    // A POST that carries its token in the header need not have a form at all.
    let form = if headers.contains_key(AUTHORIZATION) { form.ok() } else { Some(form?) };
    let token = presented(&headers, &query?, form.as_ref())?;
    answer(&web, address, &token).await
}

/// The one token of a request (RFC 6750 §2: exactly one method).
fn presented(headers: &HeaderMap, query: &Params, form: Option<&Params>) -> Result<String, BearerError> {
    if query.get("access_token").is_some() {
        return Err(Error::invalid_request("an access token must not be sent in the URL").into());
    }
    let in_body = form.and_then(|form| form.get("access_token"));
    if form.is_some_and(|form| form.is_repeated("access_token")) {
        return Err(Error::invalid_request("more than one access token").into());
    }
    match in_body {
        Some(_) if headers.contains_key(AUTHORIZATION) => {
            Err(Error::invalid_request("the access token came in the header and in the body").into())
        }
        Some(token) => Ok(token.to_owned()),
        None => bearer::of_header(headers),
    }
}

async fn answer(web: &Web, address: ClientAddress, token: &str) -> Result<Response, BearerError> {
    let bearer = Bearer::find(&web.app, token, address).await?;
    let scope = bearer.scope();
    let Some(user) = bearer.user().filter(|_| scope.contains(scope::OPENID)) else {
        let error = Error::new(ErrorCode::InsufficientScope, "the access token lacks the scope openid");
        return Err(error.into());
    };
    let none = ClaimsRequest::default();
    let request = bearer.grant().map_or(&none, |grant| &grant.claims);
    Ok(respond::json(StatusCode::OK, &claims::userinfo(user, scope, request)))
}
