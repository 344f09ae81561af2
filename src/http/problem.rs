//! Errors of the JSON API (RFC 9457): `application/problem+json` with a `code` for programs. Which request it was, the
//! outermost layer adds.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{BearerError, CHALLENGE, Fault, TokenError, with_retry_after};
use super::rate_limit::with_throttle;
use super::respond;
use super::serve::BodyProblem;
use crate::limit::Throttled;
use crate::protocol::error::ErrorCode;
use crate::protocol::time::Span;

/// The body of every error.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body<'a> {
    /// What kind of problem it is; `about:blank` as long as `code` says it.
    #[schema(example = "about:blank")]
    r#type: &'a str,
    /// The status in words.
    title: &'a str,
    status: u16,
    /// For programs.
    #[schema(example = "invalid_request")]
    code: &'a str,
    /// For developers.
    detail: &'a str,
    /// The request, as the log has it.
    request_id: &'a str,
}

/// One error of the JSON API.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    challenge: bool,
    retry_after: Option<Span>,
    /// Boxed: it is rare, and large.
    throttled: Option<Box<Throttled>>,
    fault: Option<Fault>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self { status, code, detail, challenge: false, retry_after: None, throttled: None, fault: None }
    }

    pub const fn code(&self) -> &'static str {
        self.code
    }

    pub fn invalid_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 401, with the challenge that RFC 9110 §15.5.2 wants.
    pub fn unauthorized(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { challenge: true, ..Self::new(StatusCode::UNAUTHORIZED, code, detail) }
    }

    pub fn forbidden(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// A call with somebody's cookie from another site.
    pub fn foreign() -> Self {
        Self::forbidden("foreign_origin", "a call with a cookie must come from this site itself")
    }

    pub fn throttled(throttled: Throttled) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", throttled.message);
        Self { throttled: Some(Box::new(throttled)), ..problem }
    }

    /// What a bad key is told, whatever is wrong with it.
    pub fn invalid_api_key() -> Self {
        Self::unauthorized("invalid_api_key", crate::protocol::grant::api_key::BAD_KEY)
    }

    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this method does nothing here")
    }

    /// The error of a grant; `refused` is what a refused credential is called here.
    pub fn of_grant(error: &TokenError, refused: impl FnOnce() -> Self) -> Self {
        match (error.fault(), error.code(), error.throttle()) {
            (Some(fault), ..) => fault.clone().into(),
            (None, _, Some(throttled)) => Self::throttled(throttled),
            (None, ErrorCode::InvalidGrant, None) => refused(),
            (None, ErrorCode::InvalidScope, None) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_scope", error.description().to_owned())
            }
            (None, ErrorCode::InvalidTarget, None) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_target", error.description().to_owned())
            }
            (None, ..) => Self::invalid_request(error.description().to_owned()),
        }
    }

    /// The answer, once it is known which request it was, with what inner layers have set on its stand-in.
    pub fn render(self, request_id: &str, stand_in: HeaderMap) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            request_id,
        };
        let mut response = respond::json(self.status, &body);
        let headers = response.headers_mut();
        for (name, value) in &stand_in {
            headers.append(name, value.clone());
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.challenge {
            headers.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(retry_after) = self.retry_after {
            response = with_retry_after(response, retry_after);
        }
        if let Some(throttled) = self.throttled {
            response = with_throttle(response, &throttled);
        }
        if let Some(fault) = self.fault {
            response.extensions_mut().insert(fault);
        }
        response
    }
}

impl<F: Into<Fault>> From<F> for Problem {
    fn from(fault: F) -> Self {
        let fault = fault.into();
        let (code, detail) = if fault.transient {
            ("temporarily_unavailable", "try again in a moment")
        } else {
            ("server_error", "this is our fault; the log has the request id")
        };
        let retry_after = fault.transient.then_some(super::error::RETRY_SOON);
        Self { retry_after, fault: Some(fault.clone()), ..Self::new(fault.status(), code, detail) }
    }
}

impl From<BearerError> for Problem {
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Missing => Self::unauthorized("unauthorized", "this call needs a key, a token or a session"),
            BearerError::Throttled(throttled) => Self::throttled(throttled),
            BearerError::Fault(fault) => fault.into(),
            BearerError::Refused(error) => {
                let detail = error.description().to_owned();
                match error.code {
                    ErrorCode::InvalidRequest => Self::invalid_request(detail),
                    ErrorCode::InsufficientScope => Self::forbidden("insufficient_scope", detail),
                    _ => Self::unauthorized("invalid_token", detail),
                }
            }
        }
    }
}

impl From<BodyProblem> for Problem {
    fn from(problem: BodyProblem) -> Self {
        let (code, detail) = match problem {
            BodyProblem::TooSlow => ("request_timeout", "the body did not come in time"),
            BodyProblem::TooLarge => ("payload_too_large", "the body is too large"),
        };
        Self::new(problem.status(), code, detail)
    }
}

/// Waits in the answer for the layer that knows the request's id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
