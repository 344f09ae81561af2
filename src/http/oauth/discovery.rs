//! The documents that relying parties read first: OpenID Connect Discovery §4, RFC 8414 §3, RFC 7517 §5. Rendered
//! once, cacheable, with an `ETag`.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::crypto::digest::{base64url, sha256};
use crate::http::Shared;

/// How long relying parties may keep the documents.
const CACHE: &str = "public, max-age=300";

pub async fn openid_configuration(State(web): State<Shared>, headers: HeaderMap) -> Response {
    document(web.openid_configuration.clone(), "application/json", &headers)
}

pub async fn oauth_metadata(State(web): State<Shared>, headers: HeaderMap) -> Response {
    document(web.oauth_metadata.clone(), "application/json", &headers)
}

pub async fn jwks(State(web): State<Shared>, headers: HeaderMap) -> Response {
    let jwks = web.app.keys.current().jwks.clone();
    document(jwks.into(), "application/jwk-set+json", &headers)
}

fn document(body: Bytes, media_type: &'static str, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", base64url(&sha256(&body)[..12]));
    let known =
        headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    // RFC 9110 §13.1.2: weakly, and `*` is any.
    let unchanged = known.map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag);
    let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { body.into_response() };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    response
}
