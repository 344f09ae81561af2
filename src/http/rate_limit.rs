//! What clients are told of the limits they are under: `Retry-After` (RFC 9110 §10.2.3) where they came too often, and
//! where they stand, in both spellings that libraries read (draft-ietf-httpapi-ratelimit-headers, and the three headers
//! of before it).

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::error::with_retry_after;
use crate::limit::{Quota, Throttled};

pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const QUOTA: HeaderName = HeaderName::from_static("ratelimit");
pub const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
pub const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
pub const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Tells where the client stands.
pub fn with_quota(mut response: Response, quota: &Quota) -> Response {
    let Quota { name, places, window, left, frees_in } = *quota;
    let (window, reset) = (window.secs(), frees_in.secs_up().max(0));
    let headers = response.headers_mut();
    set(headers, POLICY, &format!("\"{name}\";q={places};w={window}"));
    set(headers, QUOTA, &format!("\"{name}\";r={left};t={reset}"));
    set(headers, LIMIT, &places.to_string());
    set(headers, REMAINING, &left.to_string());
    set(headers, RESET, &reset.to_string());
    response
}

/// The same for whoever came too often, with when to come again.
pub fn with_throttle(response: Response, throttled: &Throttled) -> Response {
    with_retry_after(with_quota(response, &throttled.quota), throttled.retry_after)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
