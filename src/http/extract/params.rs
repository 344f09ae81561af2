//! Parameters from a query or a form body.

use std::convert::Infallible;

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use crate::http::problem::Problem;
use crate::http::serve::BodyFate;
use crate::protocol::error::Error;
use crate::protocol::params::Params;

/// The query. A handler turns the error into its own kind of answer.
pub struct QueryParams(pub Result<Params, Error>);

/// The query of a call of the JSON API, in which nothing stands twice.
pub struct ApiQuery(pub Params);

impl<S: Send + Sync> FromRequestParts<S> for ApiQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parse(parts.uri.query().unwrap_or_default().as_bytes());
        let query = query.map_err(|error| Problem::invalid_request(error.description().to_owned()))?;
        match query.repeated() {
            Some(name) => Err(Problem::invalid_request(format!("{name} stands in the query twice"))),
            None => Ok(Self(query)),
        }
    }
}

/// A body of `application/x-www-form-urlencoded`. Parameters in the query of such a request do not count.
pub struct FormParams(pub Result<Params, Error>);

impl<S: Send + Sync> FromRequestParts<S> for QueryParams {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parse(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

impl<S: Send + Sync> FromRequest<S> for FormParams {
    type Rejection = Infallible;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Infallible> {
        if !is_form(request.headers()) {
            let text = "the body must be application/x-www-form-urlencoded in UTF-8";
            return Ok(Self(Err(Error::invalid_request(text))));
        }
        let fate = BodyFate::of(&mut request);
        let params = match Bytes::from_request(request, state).await {
            Ok(body) => parse(&body),
            Err(rejection) => {
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    fate.set_too_large();
                }
                Err(Error::invalid_request("the body is too large or broke off"))
            }
        };
        Ok(Self(params))
    }
}

fn parse(encoded: &[u8]) -> Result<Params, Error> {
    Params::parse(encoded).map_err(|malformed| Error::invalid_request(malformed.description()))
}

fn is_form(headers: &HeaderMap) -> bool {
    is_media_type(headers, "application/x-www-form-urlencoded")
}

/// Whether a body is of this type, in UTF-8.
pub(super) fn is_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next().and_then(|value| value.to_str().ok()), values.next()) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    media_type.eq_ignore_ascii_case(expected) && parts.all(utf8)
}
