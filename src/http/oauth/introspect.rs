//! Token introspection (RFC 7662) for authenticated clients.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::app::App;
use crate::http::error::TokenError;
use crate::http::extract::client::Caller;
use crate::http::{Shared, respond};
use crate::live;
use crate::protocol::client::{Client, IntrospectionRight};
use crate::protocol::error::Error;
use crate::protocol::grant::refresh_token::live_state;
use crate::protocol::introspection;
use crate::store::Result as StoreResult;

pub async fn introspect(State(web): State<Shared>, caller: Caller) -> Result<Response, TokenError> {
    let client = caller.client();
    // RFC 7662 §2.1: the endpoint is protected, and anybody can name a public client.
    if client.metadata.is_public() {
        return Err(Error::invalid_client("introspection needs a client that authenticates").into());
    }
    let token = caller.params.get("token").ok_or_else(|| Error::invalid_request("token is missing"))?;
    // `token_type_hint` would only order the look-ups, and the kinds of tokens tell themselves apart.
    let answer = describe(&web.app, client, token).await?;
    Ok(respond::json(StatusCode::OK, &answer.unwrap_or_else(introspection::inactive)))
}

/// What the client may know about a live token.
async fn describe(app: &App, client: &Client, token: &str) -> StoreResult<Option<Map<String, Value>>> {
    let now = app.now();
    if let Some(live) = live::access_token(app, token, now).await? {
        if !introspection::may_introspect(client, &live.token.claims, &app.metadata) {
            return Ok(None);
        }
        let username = live.grant().and_then(|(_, user)| user.username.as_deref());
        return Ok(Some(introspection::access_token(&live.token.claims, username)));
    }
    let Some((stored, generation)) = live::refresh_token(app, token).await? else { return Ok(None) };
    let (grant, user) = (stored.grant, stored.user);
    let mine = grant.client_id == client.id || client.metadata.introspection == IntrospectionRight::Any;
    let record = app.store.client(&grant.client_id).await?;
    let Some(owner) = record.as_ref().map(|record| &record.client).filter(|owner| owner.is_enabled()) else {
        return Ok(None);
    };
    let Some(state) = live_state(&grant, owner, now).filter(|state| state.generation == generation) else {
        return Ok(None);
    };
    if !mine || !user.is_active() {
        return Ok(None);
    }
    Ok(Some(introspection::refresh_token(&grant, &app.metadata.issuer, state.expires_at)))
}
