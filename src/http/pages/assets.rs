//! Files that pages refer to. Their names hold a hash of their content, so browsers may keep them for ever.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Uri};

use super::error::PageError;
use crate::http::Shared;

pub const PREFIX: &str = "/assets/";

pub async fn asset(State(web): State<Shared>, uri: Uri) -> Result<Response, PageError> {
    let branding = &web.branding;
    if uri.path().rsplit('/').next() != Some(&branding.stylesheet_name) {
        return Err(PageError::not_found());
    }
    let mut response = branding.stylesheet.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    Ok(response)
}
