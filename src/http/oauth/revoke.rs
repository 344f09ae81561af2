//! Token revocation (RFC 7009): a refresh token ends its grant with all tokens of it, an access token only itself.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use crate::account::api_keys;
use crate::account::audit::{self, About};
use crate::crypto::api_key::ApiKey;
use crate::http::error::TokenError;
use crate::http::extract::client::Caller;
use crate::http::extract::peer::ClientAddress;
use crate::http::{Shared, respond};
use crate::issue::ROW_MARGIN;
use crate::live;
use crate::protocol::error::Error;
use crate::protocol::revocation::check_owner;
use crate::store::events::EventKind;

pub async fn revoke(State(web): State<Shared>, address: ClientAddress, caller: Caller) -> Result<Response, TokenError> {
    let client = caller.client();
    let token = caller.params.get("token").ok_or_else(|| Error::invalid_request("token is missing"))?;
    let app = &web.app;
    if ApiKey::claims(token) {
        // Whoever holds a key may end it: there is no other way for the one who finds a lost key.
        if let Some(key) = live::known_api_key(app, token).await? {
            api_keys::revoke(app, &key.record, "revoked_by_client", address.0).await?;
        }
    } else if let Some((stored, _)) = live::refresh_token(app, token).await? {
        check_owner(client, stored.grant.client_id.as_str())?;
        if app.store.revoke_grant(stored.grant.id.clone(), "revoked_by_client", app.now()).await? {
            let detail = [("reason", "revoked_by_client"), ("grant_id", stored.grant.id.as_str())];
            let about = About {
                user_id: Some(&stored.grant.user_id),
                client_id: Some(&client.id),
                detail: &detail,
                ..About::default()
            };
            audit::record(app, EventKind::GrantRevoked, about).await?;
        }
    } else if let Some(token) = live::signed_access_token(app, token, app.now()) {
        check_owner(client, token.client_id.as_str())?;
        app.store.revoke_access_token(token.jti, token.expires_at + ROW_MARGIN).await?;
    }
    // RFC 7009 §2.2: a token that is unknown is as good as revoked.
    Ok(respond::empty(StatusCode::OK))
}
