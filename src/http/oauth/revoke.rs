//! Token revocation (RFC 7009): a refresh token ends its grant with all tokens of it, an access token only itself.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use crate::account::{api_keys, audit};
use crate::crypto::api_key::ApiKey;
use crate::http::error::TokenError;
use crate::http::extract::client::Caller;
use crate::http::extract::peer::ClientAddress;
use crate::http::{Shared, respond};
use crate::issue::ROW_MARGIN;
use crate::live::{self, Look};
use crate::protocol::error::Error;
use crate::protocol::ids::UserId;
use crate::protocol::revocation::check_owner;
use crate::store::events::EventKind;

pub async fn revoke(State(web): State<Shared>, address: ClientAddress, caller: Caller) -> Result<Response, TokenError> {
    let client = caller.client();
    let token = caller.params.get("token").ok_or_else(|| Error::invalid_request("token is missing"))?;
    let app = &web.app;
    let author = audit::client(app, &client.id, address.0);
    if ApiKey::claims(token) {
        // Whoever holds a key may end it: there is no other way for the one who finds a lost key.
        if let Some(key) = live::known_api_key(app, token).await? {
            api_keys::revoke(app, &key.record, &author).await?;
        }
    } else if let Some((stored, _)) = live::refresh_token(app, token, Look::Database).await? {
        check_owner(client, stored.grant.client_id.as_str())?;
        let now = app.now();
        let event = author.event(EventKind::GrantRevoked, now);
        app.store.revoke_grant(stored.grant.id, "revoked_by_client", event, now).await?;
    } else if let Some(token) = live::signed_access_token(app, token, app.now()) {
        check_owner(client, token.client_id.as_str())?;
        let event = author.event(EventKind::AccessTokenRevoked, app.now());
        // A client's own token is about nobody else.
        let person = token.claims.get("sub").and_then(Value::as_str).filter(|sub| *sub != client.id.as_str());
        let event = match person {
            Some(id) => event.of_user(&UserId::new(id)),
            None => event,
        };
        app.store.revoke_access_token(token.jti, token.expires_at + ROW_MARGIN, event).await?;
    }
    // RFC 7009 §2.2: a token that is unknown is as good as revoked.
    Ok(respond::empty(StatusCode::OK))
}
