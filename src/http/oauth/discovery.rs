//! The documents that relying parties read first: OpenID Connect Discovery §4, RFC 8414 §3, RFC 7517 §5. Rendered
//! once, cacheable, with an `ETag`.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::crypto::digest::{base64url, sha256};
use crate::http::Shared;
use crate::protocol::metadata::JWKS_LIFETIME;

/// A document, rendered.
#[derive(Clone)]
pub struct Document {
    body: Bytes,
    etag: HeaderValue,
    media_type: &'static str,
}

impl Document {
    pub fn json(value: &serde_json::Value) -> Self {
        let body = Bytes::from(value.to_string());
        let tag = base64url(&sha256(&body)[..12]);
        Self::new(body, &tag, "application/json")
    }

    /// `tag` changes with `body` and is of characters that a header may hold.
    fn new(body: Bytes, tag: &str, media_type: &'static str) -> Self {
        let etag = HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { body, etag, media_type }
    }

    pub fn answer(self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(IF_NONE_MATCH).iter();
        let mut known = known.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim);
        // RFC 9110 §13.1.2: weakly, and `*` is any.
        let unchanged =
            known.any(|known| known == "*" || known.trim_start_matches("W/").as_bytes() == self.etag.as_bytes());
        let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { self.body.into_response() };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
        headers.insert(ETAG, self.etag);
        response
    }
}

/// How long relying parties may keep the documents.
const CACHE: &str = "public, max-age=300";
const _: () = assert!(JWKS_LIFETIME.secs() == 300);

pub async fn openid_configuration(State(web): State<Shared>, headers: HeaderMap) -> Response {
    web.openid_configuration.clone().answer(&headers)
}

pub async fn oauth_metadata(State(web): State<Shared>, headers: HeaderMap) -> Response {
    web.oauth_metadata.clone().answer(&headers)
}

pub async fn jwks(State(web): State<Shared>, headers: HeaderMap) -> Response {
    let keys = web.app.keys.current();
    Document::new(keys.jwks.clone(), &keys.jwks_tag, "application/jwk-set+json").answer(&headers)
}
