//! Many registrations at once.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Caller;
use super::register::NewUser;
use super::users::UserView;
use crate::account::partner::imports;
use crate::http::api::openapi::Problems;
use crate::http::extract::json;
use crate::http::extract::lines::Lines;
use crate::http::extract::path::PathId;
use crate::http::problem::Problem;
use crate::http::{Shared, respond};
use crate::protocol::ids::ImportId;
use crate::protocol::partner::{MAX_IMPORT_LINES, Registration};
use crate::store::imports::{Import, ImportState, LineResult};

pub const PATH: &str = "/v1/partner/imports";
/// Bytes of an import: that of its lines that are as long as they reasonably can be.
pub const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// An import that was taken in.
#[derive(Serialize, ToSchema)]
pub struct ImportAnswer {
    id: String,
    /// `queued`, `running`, `completed` or `failed`.
    #[schema(example = "queued")]
    state: &'static str,
}

/// Where an import is.
#[derive(Serialize, ToSchema)]
pub struct ImportView {
    id: String,
    /// `queued`, `running`, `completed` or `failed`.
    #[schema(example = "completed")]
    state: &'static str,
    /// Why it was given up: a code.
    reason: Option<String>,
    /// Lines that have a result.
    done: i64,
    total: i64,
    /// One for each line that is done, in their order.
    results: Vec<ResultView>,
}

/// What became of a line: somebody, or what stood in the way.
#[derive(Serialize, ToSchema)]
pub struct ResultView {
    /// From 1; empty lines do not count.
    line: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<LineError>,
}

#[derive(Serialize, ToSchema)]
pub struct LineError {
    #[schema(example = "email_in_use_by_partner_user")]
    code: String,
}

/// Register many people: one JSON object a line, each as for one registration but without `api_key`.
///
/// They get no keys; those are asked for one by one, when somebody needs theirs.
#[utoipa::path(post, path = "/v1/partner/imports", tag = "partner", security(("bearer" = [])),
    request_body(content = String, content_type = "application/x-ndjson",
        example = "{\"external_id\":\"user-42\",\"email\":\"ada@example.com\"}\n"),
    responses((status = 202, body = ImportAnswer), Problems))]
pub async fn create(State(web): State<Shared>, Caller(partner): Caller, lines: Lines) -> Result<Response, Problem> {
    let count = lines.iter().take(MAX_IMPORT_LINES + 1).count();
    if !(1..=MAX_IMPORT_LINES).contains(&count) {
        return Err(Problem::invalid_request(format!("an import has 1 to {MAX_IMPORT_LINES} lines")));
    }
    let lines = lines.iter().map(read).collect();
    let id = imports::accept(&web.app, &partner, lines).await?;
    let answer = ImportAnswer { id: id.as_str().to_owned(), state: ImportState::Queued.as_str() };
    Ok(respond::json(StatusCode::ACCEPTED, &answer))
}

/// What a line asks for, or the code of what is wrong with it.
fn read(line: &[u8]) -> Result<Registration, &'static str> {
    let user: NewUser = json::parse(line).map_err(|bad| Problem::from(bad).code())?;
    match user.read() {
        Ok((registration, None)) => Ok(registration),
        Ok((_, Some(_))) => Err("api_key_not_possible"),
        Err(unacceptable) => Err(Problem::from(unacceptable).code()),
    }
}

/// Where an import is, with what became of each line; kept for 7 days.
#[utoipa::path(get, path = "/v1/partner/imports/{id}", tag = "partner", security(("bearer" = [])),
    params(("id" = String, Path, description = "The import's `id`.")),
    responses((status = 200, body = ImportView), Problems))]
pub async fn show(State(web): State<Shared>, Caller(partner): Caller, PathId(id): PathId) -> Result<Response, Problem> {
    let store = &web.app.store;
    let found = store.import(&partner.id, &ImportId::new(id)).await?;
    let import = found.ok_or_else(|| Problem::not_found("there is no such import"))?;
    let results = store.import_results(&import.id).await?;
    Ok(respond::json(StatusCode::OK, &view(&import, results)))
}

fn view(import: &Import, results: Vec<(i64, LineResult)>) -> ImportView {
    let result = |(line, result)| match result {
        LineResult::User(user) => ResultView { line, user: Some(UserView::of(&user)), error: None },
        LineResult::Error(code) => ResultView { line, user: None, error: Some(LineError { code }) },
    };
    ImportView {
        id: import.id.as_str().to_owned(),
        state: import.state.as_str(),
        reason: import.reason.clone(),
        done: i64::try_from(results.len()).unwrap_or(i64::MAX),
        total: import.total,
        results: results.into_iter().map(result).collect(),
    }
}
