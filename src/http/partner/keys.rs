//! The keys of a partner's people.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::Caller;
use super::users::find;
use crate::account::partner::people;
use crate::http::api::api_keys::{KeyAnswer, MintedAnswer, NewKey, Rotation, keys_of};
use crate::http::api::openapi::Problems;
use crate::http::api::paging::{List, Page};
use crate::http::extract::json::{Json, OptionalJson};
use crate::http::extract::params::ApiQuery;
use crate::http::extract::path::PathId;
use crate::http::problem::Problem;
use crate::http::{Shared, respond};
use crate::protocol::api_key::Owner;

/// Somebody's keys, the newest first.
#[utoipa::path(get, path = "/v1/partner/users/{id}/api-keys", tag = "partner", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user's `id`."), Page),
    responses((status = 200, body = List<KeyAnswer>), Problems))]
pub async fn list(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(id): PathId,
    ApiQuery(query): ApiQuery,
) -> Result<Response, Problem> {
    let person = find(&web, &partner, &id).await?;
    Ok(respond::json(StatusCode::OK, &keys_of(&web, &Owner::User(person.user.id), &query).await?))
}

/// Make somebody another key. It is shown this once.
#[utoipa::path(post, path = "/v1/partner/users/{id}/api-keys", tag = "partner", request_body = NewKey,
    security(("bearer" = [])), params(("id" = String, Path, description = "The user's `id`.")),
    responses((status = 201, body = MintedAnswer), Problems))]
pub async fn create(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(id): PathId,
    Json(body): Json<NewKey>,
) -> Result<Response, Problem> {
    let person = find(&web, &partner, &id).await?;
    if !person.user.is_active() {
        return Err(Problem::conflict("user_disabled", "the account is switched off; enable it first"));
    }
    let minted = people::mint(&web.app, &partner, &person, body.wish(None)?).await?;
    Ok(respond::json(StatusCode::CREATED, &MintedAnswer::of(&minted)))
}

/// Put a new key in the place of one, which goes on for a while.
#[utoipa::path(post, path = "/v1/partner/api-keys/{kid}/rotate", tag = "partner", request_body = Option<Rotation>,
    security(("bearer" = [])), params(("kid" = String, Path, description = "The key's id.")),
    responses((status = 201, body = MintedAnswer), Problems))]
pub async fn rotate(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(kid): PathId,
    OptionalJson(body): OptionalJson<Rotation>,
) -> Result<Response, Problem> {
    let overlap = Rotation::overlap(body)?;
    let key = people::key(&web.app, &partner, &kid).await?.ok_or_else(no_such_key)?;
    let minted = people::rotate(&web.app, &partner, &key, overlap).await?;
    Ok(respond::json(StatusCode::CREATED, &MintedAnswer::of(&minted)))
}

/// End a key, with all tokens and sessions that were made from it.
#[utoipa::path(delete, path = "/v1/partner/api-keys/{kid}", tag = "partner", security(("bearer" = [])),
    params(("kid" = String, Path, description = "The key's id.")),
    responses((status = 204, description = "It has ended."), Problems))]
pub async fn revoke(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(kid): PathId,
) -> Result<Response, Problem> {
    let key = people::key(&web.app, &partner, &kid).await?.ok_or_else(no_such_key)?;
    people::revoke(&web.app, &partner, &key).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

fn no_such_key() -> Problem {
    Problem::not_found("there is no such key")
}
