//! Handing a person's browser over from the partner's pages to ours.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Caller;
use super::users::find;
use crate::account::partner::handoff;
use crate::http::api::openapi::Problems;
use crate::http::extract::path::PathId;
use crate::http::problem::Problem;
use crate::http::{Shared, respond};
use crate::protocol::metadata::path;
use crate::protocol::partner::HANDOFF_TTL;
use crate::protocol::redirect_uri::with_query;

/// Where to send the browser.
#[derive(Serialize, ToSchema)]
pub struct HandOffAnswer {
    url: String,
    /// Seconds.
    #[schema(example = 60)]
    expires_in: i64,
}

/// Sign your person's browser in: send it to `url`, where they confirm. It is good for a minute, and once.
///
/// The session reaches your own apps: `client_id` of yours, and clients that belong to you.
#[utoipa::path(post, path = "/v1/partner/users/{id}/browser-handoff", tag = "partner", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user's `id`.")),
    responses((status = 201, body = HandOffAnswer), Problems))]
pub async fn create(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let person = find(&web, &partner, &id).await?;
    if !person.user.is_active() {
        return Err(Problem::conflict("user_disabled", "the account is switched off; enable it first"));
    }
    let token = handoff::offer(&web.app, &person.user.id).await?;
    let url = with_query(&web.url(path::HANDOFF), &[("token", token.expose().clone())]);
    Ok(respond::json(StatusCode::CREATED, &HandOffAnswer { url, expires_in: HANDOFF_TTL.secs() }))
}
