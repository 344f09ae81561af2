//! Token introspection (RFC 7662) for authenticated clients.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::app::App;
use crate::crypto::api_key::ApiKey;
use crate::crypto::refresh;
use crate::http::error::TokenError;
use crate::http::extract::client::Caller;
use crate::http::extract::peer::ClientAddress;
use crate::http::{Shared, respond};
use crate::live::{self, Look};
use crate::protocol::client::{Client, IntrospectionRight};
use crate::protocol::error::Error;
use crate::protocol::grant::refresh_token::live_state;
use crate::protocol::introspection;
use crate::store::Result as StoreResult;

pub async fn introspect(
    State(web): State<Shared>,
    address: ClientAddress,
    caller: Caller,
) -> Result<Response, TokenError> {
    let client = caller.client();
    // RFC 7662 §2.1: the endpoint is protected, and anybody can name a public client.
    if client.metadata.is_public() {
        return Err(Error::invalid_client("introspection needs a client that authenticates").into());
    }
    let token = caller.params.get("token").ok_or_else(|| Error::invalid_request("token is missing"))?;
    // `token_type_hint` would only order the look-ups, and what a token is shows in how it begins.
    let app = &web.app;
    let answer = if ApiKey::claims(token) {
        describe_api_key(app, client, address, token).await?
    } else if token.starts_with(refresh::PREFIX) {
        describe_refresh_token(app, client, token).await?
    } else {
        describe_access_token(app, client, token).await?
    };
    Ok(respond::json(StatusCode::OK, &answer.unwrap_or_else(introspection::inactive)))
}

/// What the client may know about a live access token.
async fn describe_access_token(app: &App, client: &Client, token: &str) -> StoreResult<Option<Map<String, Value>>> {
    let live = live::access_token(app, token, app.now()).await?;
    let Some(live) = live.filter(|live| introspection::may_introspect(client, &live.token.claims, &app.metadata))
    else {
        return Ok(None);
    };
    let username = live.user().and_then(|user| user.username.as_deref());
    Ok(Some(introspection::access_token(&live.token.claims, &live.scope, username)))
}

/// The same about a key that is used directly. Who asks is the server that it was shown to, and stands for the network
/// that it was used from: whoever must know better takes tokens.
async fn describe_api_key(
    app: &App,
    client: &Client,
    address: ClientAddress,
    token: &str,
) -> StoreResult<Option<Map<String, Value>>> {
    let now = app.now();
    let Some(key) = live::api_key(app, token, address.0, now).await? else { return Ok(None) };
    let Some(user) = key.user.as_ref().filter(|_| !key.record.exchange_only) else { return Ok(None) };
    let answer = introspection::api_key(client, &key.record, user, &app.metadata);
    if answer.is_some() {
        app.store.note_key_use(&key, None, now);
    }
    Ok(answer)
}

/// The same about the newest refresh token of a grant.
async fn describe_refresh_token(app: &App, client: &Client, token: &str) -> StoreResult<Option<Map<String, Value>>> {
    let now = app.now();
    let Some((stored, generation)) = live::refresh_token(app, token, Look::Database).await? else { return Ok(None) };
    let (grant, user) = (stored.grant, stored.user);
    let mine = grant.client_id == client.id || client.metadata.introspection == IntrospectionRight::Any;
    let record = app.store.client(&grant.client_id).await?;
    let Some(owner) = record.as_ref().map(|record| &record.client).filter(|owner| owner.is_enabled()) else {
        return Ok(None);
    };
    let Some(state) = live_state(&grant, owner, now).filter(|state| state.generation == generation) else {
        return Ok(None);
    };
    let key = live::key_of_grant(app, &grant, now).await?;
    let key_stands = grant.api_key_id.is_none() || key.is_some();
    if !mine || !user.is_active() || !key_stands || !live::partner_stands(app, &user).await? {
        return Ok(None);
    }
    let expires_at = key.map_or(state.expires_at, |key| key.expires_at.min(state.expires_at));
    let scope = app.metadata.allowed(&grant.scope, &user);
    Ok(Some(introspection::refresh_token(&grant, &scope, &app.metadata.issuer, expires_at)))
}
