//! Signing in with an API key by plain calls: for tokens, and for a browser's session.

use axum::extract::State;
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::openapi::Problems;
use crate::account::sessions;
use crate::crypto::api_key::ApiKey;
use crate::http::extract::bearer::{self, Bearer};
use crate::http::extract::csrf::is_own_call;
use crate::http::extract::json::{Json, OptionalJson};
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session;
use crate::http::oauth::token;
use crate::http::problem::Problem;
use crate::http::{Shared, Web, respond};
use crate::issue::Tokens;
use crate::protocol::client::{Client, RefreshTokenRotation};
use crate::protocol::grant::TokenRequest;
use crate::protocol::grant::api_key::ApiKeyGrant;
use crate::protocol::grant::refresh_token::{Door, RefreshToken};
use crate::protocol::scope::ScopeSet;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyLogin {
    #[schema(example = "kw_uk_…")]
    api_key: String,
    /// Scopes, separated by spaces; what the key and the platform have in common of them is granted.
    #[schema(example = "openid profile")]
    scope: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    #[schema(example = "kw_rt_…")]
    refresh_token: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionLogin {
    #[schema(example = "kw_uk_…")]
    api_key: String,
}

/// Tokens made from a key.
#[derive(Serialize, ToSchema)]
pub struct TokenAnswer {
    access_token: String,
    /// Always the same while it lives: whoever keeps the first one can go on using it.
    refresh_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 604_800)]
    expires_in: i64,
    /// Seconds.
    #[schema(example = 2_592_000)]
    refresh_expires_in: i64,
    #[schema(example = "openid profile")]
    scope: String,
}

/// Sign in with an API key, for tokens.
#[utoipa::path(post, path = "/v1/auth/api-key/login", tag = "auth", request_body = ApiKeyLogin,
    responses((status = 200, body = TokenAnswer), Problems))]
pub async fn api_key_login(
    State(web): State<Shared>,
    address: ClientAddress,
    Json(body): Json<ApiKeyLogin>,
) -> Result<Response, Problem> {
    let client = client(&web).await?;
    let scope = body.scope.as_deref().map(str::parse::<ScopeSet>).transpose();
    let scope =
        scope.map_err(|malformed| Problem::new(StatusCode::BAD_REQUEST, "invalid_scope", malformed.to_string()))?;
    let request = || Ok(TokenRequest::ApiKey(ApiKeyGrant::facade(body.api_key.clone(), scope.clone())));
    let tokens = token::tokens(&web.app, &client, address, request).await;
    answer(tokens.map_err(|error| Problem::of_grant(&error, Problem::invalid_api_key))?)
}

/// New access token for a refresh token of such a sign-in.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", request_body = Refresh,
    responses((status = 200, body = TokenAnswer), Problems))]
pub async fn refresh(
    State(web): State<Shared>,
    address: ClientAddress,
    Json(body): Json<Refresh>,
) -> Result<Response, Problem> {
    let client = client(&web).await?;
    let refused = || {
        let detail = "the refresh token is unknown, expired or revoked; sign in with the API key again";
        Problem::unauthorized("invalid_refresh_token", detail)
    };
    let request = || Ok(TokenRequest::RefreshToken(RefreshToken::by_call(body.refresh_token.clone(), Door::ApiKey)));
    let tokens = token::tokens(&web.app, &client, address, request).await;
    answer(tokens.map_err(|error| Problem::of_grant(&error, refused))?)
}

/// The client that these calls act as. Its refresh tokens stay what they are: apps of this kind keep their first.
async fn client(web: &Web) -> Result<Client, Problem> {
    let off = || Problem::not_found("sign-in with API keys is not switched on here");
    let id = web.app.config.sign_in_apis.api_key.as_ref().ok_or_else(off)?;
    let record = web.app.store.client(id).await?;
    let mut client = record.filter(|record| record.client.is_enabled()).ok_or_else(off)?.client.clone();
    client.metadata.refresh_token_rotation = Some(RefreshTokenRotation::Never);
    Ok(client)
}

fn answer(tokens: Tokens) -> Result<Response, Problem> {
    let missing = || crate::http::error::Fault::new("a sign-in with a key made no refresh token");
    let body = TokenAnswer {
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token.ok_or_else(missing)?,
        token_type: "Bearer",
        expires_in: tokens.expires_in.secs(),
        refresh_expires_in: tokens.refresh_expires_in.ok_or_else(missing)?.secs(),
        scope: tokens.scope.to_string(),
    };
    Ok(respond::json(StatusCode::OK, &body))
}

/// Give this browser a session for an API key, or for a token that was made from one.
#[utoipa::path(post, path = "/v1/auth/session", tag = "auth", request_body = Option<SessionLogin>,
    security(("bearer" = []), ()),
    responses((status = 204, description = "The session's cookie was set."), Problems))]
pub async fn begin_session(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    OptionalJson(body): OptionalJson<SessionLogin>,
) -> Result<Response, Problem> {
    // Else a stranger's page could sign people in as somebody else.
    if !is_own_call(&web, &headers) {
        return Err(Problem::foreign());
    }
    let in_header = headers.contains_key(AUTHORIZATION);
    let text = match body {
        Some(_) if in_header => {
            return Err(Problem::invalid_request("the key came in the header and in the body"));
        }
        Some(body) if !ApiKey::claims(&body.api_key) => return Err(Problem::invalid_api_key()),
        Some(body) => body.api_key,
        None => bearer::of_header(&headers)?,
    };
    let bearer = match Bearer::find(&web.app, &text, address).await.map_err(Problem::from) {
        Err(problem) if !in_header && problem.code() == "invalid_token" => return Err(Problem::invalid_api_key()),
        other => other?,
    };
    let (Some(key), Some(user)) = (bearer.key(), bearer.user()) else {
        let detail = "a session comes from an API key, or from a token that was made from one";
        return Err(Problem::forbidden("insufficient_scope", detail));
    };
    let replaced = session::current(&web, &headers).await?;
    let replaced = replaced.map(|signed_in| signed_in.session);
    let reach = bearer.reach(key);
    let expires_at = bearer.expires_at().min(key.expires_at);
    let began = sessions::begin_key_session(&web.app, user, reach, expires_at, replaced.as_ref(), address.0).await?;
    let Some((secret, lifetime)) = began else { return Err(Problem::invalid_api_key()) };
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    session::set_cookies(&web, response.headers_mut(), &secret, lifetime)?;
    Ok(response)
}

/// Sign this browser out.
#[utoipa::path(delete, path = "/v1/auth/session", tag = "auth", security(("session" = []), ()),
    responses((status = 204, description = "Nobody is signed in here any more."), Problems))]
pub async fn end_session(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
) -> Result<Response, Problem> {
    if !is_own_call(&web, &headers) {
        return Err(Problem::foreign());
    }
    if let Some(signed_in) = session::current(&web, &headers).await? {
        sessions::sign_out(&web.app, &signed_in.session, address.0).await?;
    }
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    session::remove_cookies(&web, response.headers_mut());
    Ok(response)
}
