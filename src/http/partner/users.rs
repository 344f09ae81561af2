//! A partner's people: found, changed, switched off and on, forgotten.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{Caller, no_such_user};
use crate::account::partner::Partner;
use crate::account::partner::people::{self, Switched};
use crate::http::api::openapi::Problems;
use crate::http::api::paging::{Asked, List, Page, moment_cursor};
use crate::http::extract::json::Json;
use crate::http::extract::params::ApiQuery;
use crate::http::extract::path::PathId;
use crate::http::problem::Problem;
use crate::http::{Shared, Web, respond};
use crate::protocol::ids::UserId;
use crate::protocol::partner::{Change, Changes, EMAIL_IN_USE, Unacceptable};
use crate::protocol::user::{User, canonical_email};
use crate::store::partners::{Changed, Filter, PartnerUser};

/// One of a partner's people.
#[derive(Serialize, ToSchema)]
pub struct UserView {
    /// The `sub` of tokens.
    #[schema(example = "QFtX0rqsTvmkQ4n1Yf4OJw")]
    id: String,
    /// The partner's own id for them.
    #[schema(example = "user-42")]
    external_id: String,
    #[schema(example = "ada@example.com")]
    email: String,
    /// A partner's word is no proof.
    email_verified: bool,
    name: Option<String>,
    locale: Option<String>,
    /// `active` or `disabled`.
    #[schema(example = "active")]
    status: &'static str,
}

impl UserView {
    pub fn of(user: &User) -> Self {
        let claim = |name: &str| user.claims.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            id: user.id.as_str().to_owned(),
            external_id: user.external_id.clone().unwrap_or_default(),
            email: user.email.clone().unwrap_or_default(),
            email_verified: user.email_verified,
            name: claim("name"),
            locale: claim("locale"),
            status: if user.is_active() { "active" } else { "disabled" },
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct UserAnswer {
    user: UserView,
}

/// Which people.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read from the query by `list`.
pub struct Which {
    /// The one with this id of yours.
    external_id: Option<String>,
    /// The one with this address.
    email: Option<String>,
}

/// What to change; a member that is left out stays as it is, `null` takes it away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    name: Change,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "de-AT")]
    locale: Change,
    /// A new address; an account always has one.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "ada@example.com")]
    email: Change,
}

/// A member that is there, be it `null`.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Change, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl From<Unacceptable> for Problem {
    fn from(unacceptable: Unacceptable) -> Self {
        Self::invalid_request(unacceptable.to_string())
    }
}

/// Your people, in the order in which they were registered.
#[utoipa::path(get, path = "/v1/partner/users", tag = "partner", params(Which, Page), security(("bearer" = [])),
    responses((status = 200, body = List<UserView>), Problems))]
pub async fn list(
    State(web): State<Shared>,
    Caller(partner): Caller,
    ApiQuery(query): ApiQuery,
) -> Result<Response, Problem> {
    let page = Asked::of(&query)?;
    let after = page.moment()?.map(|(at, id)| (at, UserId::new(id)));
    // What cannot be an address is nobody's.
    let email = query.get("email").map(|email| canonical_email(email).unwrap_or_else(|_| "?".to_owned()));
    let filter = Filter { external_id: query.get("external_id").map(str::to_owned), email };
    let found = web.app.store.partner_users(&partner.id, filter, after, page.to_read()).await?;
    let cursor = |last: &PartnerUser| moment_cursor(last.created_at, last.user.id.as_str());
    Ok(respond::json(StatusCode::OK, &page.list(found, cursor, |person| UserView::of(&person.user))))
}

/// One of your people.
#[utoipa::path(get, path = "/v1/partner/users/{id}", tag = "partner", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user's `id`.")),
    responses((status = 200, body = UserAnswer), Problems))]
pub async fn show(State(web): State<Shared>, Caller(partner): Caller, PathId(id): PathId) -> Result<Response, Problem> {
    let found = web.app.store.partner_user(&partner.id, &UserId::new(id)).await?;
    answer(found)
}

fn answer(person: Option<PartnerUser>) -> Result<Response, Problem> {
    let person = person.ok_or_else(no_such_user)?;
    Ok(respond::json(StatusCode::OK, &UserAnswer { user: UserView::of(&person.user) }))
}

/// Change what is known of somebody.
#[utoipa::path(patch, path = "/v1/partner/users/{id}", tag = "partner", request_body = UserChange,
    security(("bearer" = [])), params(("id" = String, Path, description = "The user's `id`.")),
    responses((status = 200, body = UserAnswer), Problems))]
pub async fn change(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(id): PathId,
    Json(body): Json<UserChange>,
) -> Result<Response, Problem> {
    let email = match body.email {
        None => None,
        Some(None) => return Err(Unacceptable::Email.into()),
        Some(Some(email)) => Some(email),
    };
    let changes = Changes { name: body.name, locale: body.locale, email }.checked()?;
    let id = UserId::new(id);
    match people::change(&web.app, &partner, &id, changes).await? {
        Changed::Yes | Changed::Same => answer(web.app.store.partner_user(&partner.id, &id).await?),
        Changed::NotThere => Err(no_such_user()),
        Changed::EmailTaken => Err(Problem::conflict(EMAIL_IN_USE, "somebody else of your people has this address")),
    }
}

/// Switch somebody's account off: keys, tokens and sessions stop at once, and come back only where they are switched
/// on again (sessions and refresh tokens do not).
#[utoipa::path(post, path = "/v1/partner/users/{id}/disable", tag = "partner", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user's `id`.")),
    responses((status = 200, body = UserAnswer), Problems))]
pub async fn disable(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    switch(&web, &partner, id, false).await
}

/// Switch somebody's account on again; 409 `disabled_by_operator` where ours switched it off.
#[utoipa::path(post, path = "/v1/partner/users/{id}/enable", tag = "partner", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user's `id`.")),
    responses((status = 200, body = UserAnswer), Problems))]
pub async fn enable(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    switch(&web, &partner, id, true).await
}

async fn switch(web: &Web, partner: &Partner, id: String, enabled: bool) -> Result<Response, Problem> {
    match people::set_enabled(&web.app, partner, &UserId::new(id), enabled).await? {
        Switched::Done(person) => answer(Some(*person)),
        Switched::NotThere => Err(no_such_user()),
        Switched::ByOperator => Err(Problem::conflict(
            "disabled_by_operator",
            "the account was switched off by an operator of this provider",
        )),
    }
}

/// Forget somebody with everything that is theirs. Their `external_id` and address are free again, their `id` is not.
#[utoipa::path(delete, path = "/v1/partner/users/{id}", tag = "partner", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user's `id`.")),
    responses((status = 204, description = "They are forgotten."), Problems))]
pub async fn delete(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    if people::delete(&web.app, &partner, &UserId::new(id)).await? {
        Ok(respond::empty(StatusCode::NO_CONTENT))
    } else {
        Err(no_such_user())
    }
}

/// Somebody of this partner's.
pub(super) async fn find(
    web: &Web,
    partner: &crate::account::partner::Partner,
    id: &str,
) -> Result<PartnerUser, Problem> {
    web.app.store.partner_user(&partner.id, &UserId::new(id)).await?.ok_or_else(no_such_user)
}
