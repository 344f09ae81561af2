//! The JSON API for apps, partners' backends and programs. Each handler carries its own description; the document at
//! `/v1/openapi.json` is made of them.

pub mod api_keys;
pub mod auth;
pub mod me;
pub mod openapi;
pub mod paging;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::{Shared, cors, partner};

/// Below this path everything is JSON, errors included.
pub const PREFIX: &str = "/v1";

/// The routes, with the document that describes them.
pub fn router(web: &Shared) -> Router<Shared> {
    let described = OpenApiRouter::with_openapi(openapi::head(web))
        .routes(routes!(auth::api_key_login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::begin_session, auth::end_session))
        .routes(routes!(me::me))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::rotate))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(api_keys::self_revoke))
        .merge(partner::routes());
    let (routes, document) = described.split_for_parts();
    let document = openapi::document(&document);
    routes
        .route("/v1/openapi.json", get(move |headers| openapi::serve(document.clone(), headers)))
        // Before the layer, so that the layer sees a preflight, which no route answers.
        .method_not_allowed_fallback(method_not_allowed)
        .route(PREFIX, axum::routing::any(not_found))
        .route("/v1/{*rest}", axum::routing::any(not_found))
        .layer(from_fn_with_state(Arc::clone(web), cors::registered_origins_of_api))
}

async fn not_found() -> Problem {
    Problem::not_found("there is nothing here; /v1/openapi.json describes what is")
}

async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}
