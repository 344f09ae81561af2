//! Bodies of one JSON value a line (NDJSON).

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::StatusCode;

use super::json;
use super::params::is_media_type;
use crate::http::problem::Problem;

/// What such a body may call itself.
const MEDIA_TYPES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// The whole body, whose lines nobody has read yet.
pub struct Lines(Bytes);

impl Lines {
    /// The lines that are not empty.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
    }
}

impl<S: Send + Sync> FromRequest<S> for Lines {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !MEDIA_TYPES.iter().any(|media_type| is_media_type(request.headers(), media_type)) {
            let detail = "the body must be one JSON object a line, with content-type application/x-ndjson";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        Ok(Self(json::read(request, state).await?))
    }
}
