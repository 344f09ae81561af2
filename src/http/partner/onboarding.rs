//! How far people got, and another try for those who got stuck.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::Caller;
use crate::account::partner::onboarding::{self, RetryError};
use crate::http::api::openapi::Problems;
use crate::http::api::paging::{Asked, List, Page, moment_cursor};
use crate::http::extract::params::ApiQuery;
use crate::http::extract::path::PathId;
use crate::http::problem::Problem;
use crate::http::{Shared, respond};
use crate::protocol::ids::OnboardingId;
use crate::protocol::partner::OnboardingState;
use crate::store::onboardings::{Onboarding, Which};

/// Somebody's way in, as a registration names it.
#[derive(Serialize, ToSchema)]
pub struct OnboardingRef {
    id: String,
    #[schema(example = "mail_queued")]
    state: &'static str,
}

impl OnboardingRef {
    pub fn of(onboarding: &Onboarding) -> Self {
        Self { id: onboarding.id.as_str().to_owned(), state: onboarding.state.as_str() }
    }
}

/// Where somebody is on their way in.
#[derive(Serialize, ToSchema)]
pub struct OnboardingView {
    id: String,
    /// `null` where they could not be made.
    user_id: Option<String>,
    external_id: String,
    /// `received`, `user_created`, `key_issued`, `mail_queued`, `mail_sent`, `first_auth` or `failed`.
    #[schema(example = "first_auth")]
    state: &'static str,
    /// A code for what went wrong.
    reason: Option<String>,
    #[schema(format = DateTime)]
    updated_at: String,
}

impl OnboardingView {
    fn of(onboarding: &Onboarding) -> Self {
        Self {
            id: onboarding.id.as_str().to_owned(),
            user_id: onboarding.user_id.as_ref().map(|id| id.as_str().to_owned()),
            external_id: onboarding.external_id.clone(),
            state: onboarding.state.as_str(),
            reason: onboarding.reason.clone(),
            updated_at: onboarding.updated_at.rfc3339(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct OnboardingAnswer {
    onboarding: OnboardingView,
}

/// Every state but the last: who never got going.
const WAITING: &str = "waiting";

/// Which of them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read from the query by `list`.
pub struct Filter {
    /// Those in this state; `waiting`: all who have not used their account.
    state: Option<String>,
}

/// How far your people got, in the order in which they began.
#[utoipa::path(get, path = "/v1/partner/onboarding", tag = "partner", params(Filter, Page), security(("bearer" = [])),
    responses((status = 200, body = List<OnboardingView>), Problems))]
pub async fn list(
    State(web): State<Shared>,
    Caller(partner): Caller,
    ApiQuery(query): ApiQuery,
) -> Result<Response, Problem> {
    let page = Asked::of(&query)?;
    let which = match query.get("state") {
        None => Which::All,
        Some(WAITING) => Which::Waiting,
        Some(state) => Which::In(state.parse().map_err(|()| {
            let states: Vec<&str> = OnboardingState::ALL.iter().map(|state| state.as_str()).collect();
            Problem::invalid_request(format!("state is {WAITING} or one of {}", states.join(", ")))
        })?),
    };
    let after = page.moment()?.map(|(at, id)| (at, OnboardingId::new(id)));
    let found = web.app.store.onboardings(&partner.id, which, after, page.to_read()).await?;
    let cursor = |last: &Onboarding| moment_cursor(last.created_at, last.id.as_str());
    Ok(respond::json(StatusCode::OK, &page.list(found, cursor, OnboardingView::of)))
}

/// Try again what failed: to make somebody, or to send their mail.
#[utoipa::path(post, path = "/v1/partner/onboarding/{id}/retry", tag = "partner", security(("bearer" = [])),
    params(("id" = String, Path, description = "The onboarding's `id`.")),
    responses((status = 200, body = OnboardingAnswer), Problems))]
pub async fn retry(
    State(web): State<Shared>,
    Caller(partner): Caller,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let retried = onboarding::retry(&web.app, &partner, &OnboardingId::new(id)).await;
    let onboarding = retried.map_err(|error| match error {
        RetryError::NotThere => Problem::not_found("there is no such onboarding"),
        RetryError::NotFailed => Problem::conflict("onboarding_not_failed", "nothing failed here"),
        RetryError::Register(error) => error.into(),
        RetryError::Store(error) => error.into(),
    })?;
    Ok(respond::json(StatusCode::OK, &OnboardingAnswer { onboarding: OnboardingView::of(&onboarding) }))
}
