//! The one identifier in a path of the JSON API.

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use crate::http::problem::Problem;

/// As it stands in the path, decoded. One that is no text names nothing.
pub struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let id = params.ok().and_then(|params| params.iter().next().map(|(_, id)| id.to_owned()));
        id.filter(|id| !id.contains('\0')).map(Self).ok_or_else(|| Problem::not_found("there is no such thing"))
    }
}
