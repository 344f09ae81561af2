//! How errors leave: JSON at the token, introspection and revocation endpoints (RFC 6749 §5.2), a challenge at
//! UserInfo (RFC 6750 §3), a page for people. Each has a public text; its private cause is a [`Fault`], which the
//! logging layer writes once, beside the request id that the person sees.

use std::fmt;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::rate_limit::with_throttle;
use super::respond;
use super::serve::BodyProblem;
use crate::account::first_party::FirstPartyError;
use crate::issue::IssueError;
use crate::limit::Throttled;
use crate::protocol::error::{Error, ErrorCode};
use crate::protocol::time::Span;
use crate::store::StoreError;

/// What went wrong on our side. Travels with the answer as far as the log, and no further.
#[derive(Clone, Debug)]
pub struct Fault {
    cause: Arc<str>,
    /// It may work in a moment: 503 and not 500.
    pub transient: bool,
}

impl Fault {
    pub fn new(cause: impl fmt::Display) -> Self {
        Self { cause: cause.to_string().into(), transient: false }
    }

    /// One that may be gone in a moment.
    pub fn transient(cause: impl fmt::Display) -> Self {
        Self { transient: true, ..Self::new(cause) }
    }

    pub fn status(&self) -> StatusCode {
        if self.transient { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let transient =
            matches!(error, StoreError::Unavailable(_) | StoreError::RolledBack(_) | StoreError::WriterStopped);
        Self { transient, ..Self::new(error) }
    }
}

impl From<FirstPartyError> for Fault {
    fn from(error: FirstPartyError) -> Self {
        match error {
            FirstPartyError::Store(error) => error.into(),
            FirstPartyError::Issue(error) => error.into(),
            FirstPartyError::Hash(error) => Self::new(error),
        }
    }
}

impl From<IssueError> for Fault {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Store(error) => error.into(),
            other => Self::new(other),
        }
    }
}

/// `WWW-Authenticate` of an answer to a call without a credential (RFC 6750 §3).
pub const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"keyward\"");

/// How long a client waits after a transient fault.
pub const RETRY_SOON: Span = Span::from_secs(2);

pub fn with_retry_after(mut response: Response, wait: Span) -> Response {
    let seconds = wait.secs_up().max(1);
    if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// A fault where nothing better can be said: the JSON of `server_error`.
impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        TokenError::from(self).into_response()
    }
}

/// An error of an endpoint that apps call with client authentication.
pub struct TokenError {
    error: Error,
    fault: Option<Fault>,
    /// The client used the `Authorization` header, so a 401 answers with a challenge (RFC 6749 §5.2). Without one,
    /// many clients would report the challenge in place of the error.
    challenge: bool,
    /// When to try again after a fault.
    retry_after: Option<Span>,
    /// Too many of these; when the next is taken.
    throttled: Option<Throttled>,
}

impl TokenError {
    /// 429: never `invalid_grant` or `invalid_client`, at which clients throw their tokens away.
    pub fn throttled(throttled: Throttled) -> Self {
        let error = Error::new(ErrorCode::TemporarilyUnavailable, throttled.message);
        Self { throttled: Some(throttled), ..Self::from(error) }
    }

    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub fn throttle(&self) -> Option<Throttled> {
        self.throttled
    }

    pub fn description(&self) -> &str {
        self.error.description()
    }

    pub fn code(&self) -> ErrorCode {
        self.error.code
    }

    /// The same error as answer to a request with an `Authorization` header.
    pub fn challenged(self, challenge: bool) -> Self {
        Self { challenge, ..self }
    }
}

/// A request whose body was not read to its end, in the form of the same endpoints.
pub fn body_refused(problem: BodyProblem) -> Response {
    let description = match problem {
        BodyProblem::TooSlow => "the body did not come in time",
        BodyProblem::TooLarge => "the body is too large",
    };
    let body = json!({ "error": ErrorCode::InvalidRequest, "error_description": description });
    respond::json(problem.status(), &body)
}

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        Self { error, fault: None, challenge: false, retry_after: None, throttled: None }
    }
}

impl<F: Into<Fault>> From<F> for TokenError {
    fn from(fault: F) -> Self {
        let fault = fault.into();
        let error = if fault.transient {
            Error::new(ErrorCode::TemporarilyUnavailable, "try again in a moment")
        } else {
            Error::new(ErrorCode::ServerError, "this is our fault; the log has the request id")
        };
        let retry_after = fault.transient.then_some(RETRY_SOON);
        Self { error, fault: Some(fault), challenge: false, retry_after, throttled: None }
    }
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let status = match (&self.fault, self.error.code) {
            (Some(fault), _) => fault.status(),
            (None, _) if self.throttled.is_some() => StatusCode::TOO_MANY_REQUESTS,
            (None, ErrorCode::InvalidClient) => StatusCode::UNAUTHORIZED,
            (None, _) => StatusCode::BAD_REQUEST,
        };
        let body = json!({ "error": self.error.code, "error_description": self.error.description() });
        let mut response = respond::json(status, &body);
        if status == StatusCode::UNAUTHORIZED && self.challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"keyward\""));
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

/// An error of a resource that takes a bearer token (RFC 6750 §3).
pub enum BearerError {
    /// No token at all: the bare challenge, without an error code.
    Missing,
    Refused(Error),
    /// Too many bad credentials from this network.
    Throttled(Throttled),
    Fault(Fault),
}

impl From<Error> for BearerError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl<F: Into<Fault>> From<F> for BearerError {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

impl IntoResponse for BearerError {
    fn into_response(self) -> Response {
        let (status, challenge, body) = match self {
            Self::Fault(fault) => return TokenError::from(fault).into_response(),
            Self::Throttled(throttled) => return TokenError::throttled(throttled).into_response(),
            Self::Missing => (StatusCode::UNAUTHORIZED, "Bearer realm=\"keyward\"".to_owned(), None),
            Self::Refused(error) => {
                let status = match error.code {
                    ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
                    ErrorCode::InsufficientScope => StatusCode::FORBIDDEN,
                    _ => StatusCode::UNAUTHORIZED,
                };
                // Descriptions keep to characters that need no escape in a quoted string.
                let description = error.description();
                let challenge =
                    format!("Bearer realm=\"keyward\", error=\"{}\", error_description=\"{description}\"", error.code);
                (status, challenge, Some(json!({ "error": error.code, "error_description": description })))
            }
        };
        let mut response = match body {
            Some(body) => respond::json(status, &body),
            None => respond::empty(status),
        };
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response
    }
}
