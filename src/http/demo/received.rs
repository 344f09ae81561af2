//! What a request brings, as `application/x-www-form-urlencoded` pairs from its query or its body. The demo reads them
//! itself rather than through the provider's extractors: it is an app of its own, and a rejection is one of its pages.

use axum::body::Bytes;
use axum::extract::RawQuery;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;

use super::page::Trouble;

/// Unverified, in the order in which they came.
pub(super) struct Received(Vec<(String, String)>);

impl Received {
    pub fn query(RawQuery(query): &RawQuery) -> Self {
        Self::parse(query.as_deref().unwrap_or_default().as_bytes())
    }

    pub fn form(body: Result<Bytes, BytesRejection>) -> Result<Self, Trouble> {
        body.map(|body| Self::parse(&body)).map_err(|rejection| unreadable(&rejection.body_text()))
    }

    fn parse(pairs: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(pairs).into_owned().collect())
    }

    /// The parameter's value; one that is empty counts as absent, one that comes twice is an error (RFC 6749 §3.1).
    pub fn one(&self, name: &str) -> Result<Option<String>, Trouble> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let value = values.next();
        if values.next().is_some() {
            return Err(unreadable(&format!("The parameter {name} comes more than once.")));
        }
        Ok(value.filter(|value| !value.is_empty()).cloned())
    }
}

pub(super) fn unreadable(cause: &str) -> Trouble {
    Trouble::new(
        StatusCode::BAD_REQUEST,
        "The demo cannot read this",
        "Go back to the start page and sign in from there.",
    )
    .detail("Cause", cause)
}
