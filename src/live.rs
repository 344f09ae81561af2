//! Whether a token that was presented is alive: signed by us, in time, and its grant, person and client still
//! standing. Asked wherever we answer to a token ourselves.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::app::App;
use crate::crypto::jws::TYP_ACCESS_TOKEN;
use crate::crypto::refresh::RefreshToken;
use crate::protocol::claims::GRANT_ID;
use crate::protocol::grant::GrantRecord;
use crate::protocol::ids::{ClientId, GrantId};
use crate::protocol::scope::ScopeSet;
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;
use crate::store::Result;
use crate::store::grants::StoredGrant;
use crate::store::standing::Standing;

/// An access token of ours whose signature, time and issuer are right; it may have been revoked.
#[derive(Clone, Debug)]
pub struct SignedToken {
    pub claims: Arc<Map<String, Value>>,
    pub client_id: ClientId,
    pub jti: String,
    pub grant_id: Option<GrantId>,
    pub expires_at: Timestamp,
}

/// An access token that is alive.
pub struct LiveToken {
    pub token: SignedToken,
    pub scope: ScopeSet,
    standing: Arc<Standing>,
}

impl LiveToken {
    /// The grant and its person; a client-credentials token has neither.
    pub fn grant(&self) -> Option<(&GrantRecord, &User)> {
        self.standing.grant.as_ref().map(|stored| (&stored.grant, &stored.user))
    }
}

/// Reads an access token without asking the store; `None` for whatever is not one of ours or is expired.
pub fn signed_access_token(app: &App, token: &str, now: Timestamp) -> Option<SignedToken> {
    let claims = app.keys.current().verify(token, TYP_ACCESS_TOKEN).ok()?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let expires_at = Timestamp::from_millis(claims.get("exp")?.as_i64()?.checked_mul(1000)?);
    if text("iss")? != app.metadata.issuer || now >= expires_at {
        return None;
    }
    Some(SignedToken {
        client_id: ClientId::new(text("client_id")?),
        jti: text("jti")?.to_owned(),
        grant_id: text(GRANT_ID).map(GrantId::new),
        expires_at,
        claims,
    })
}

/// The token if it is alive in every respect.
pub async fn access_token(app: &App, token: &str, now: Timestamp) -> Result<Option<LiveToken>> {
    let Some(token) = signed_access_token(app, token, now) else { return Ok(None) };
    let client = app.store.client(&token.client_id).await?;
    if !client.is_some_and(|record| record.client.is_enabled()) {
        return Ok(None);
    }
    let standing = app.store.standing(&token.jti, token.grant_id.as_ref()).await?;
    let grant_stands = match (&token.grant_id, &standing.grant) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(_), Some(stored)) => stored.grant.revoked_at.is_none() && stored.user.is_active(),
    };
    if standing.revoked || !grant_stands {
        return Ok(None);
    }
    let scope = token.claims.get("scope").and_then(Value::as_str).and_then(|scope| scope.parse().ok());
    Ok(Some(LiveToken { token, scope: scope.unwrap_or_default(), standing }))
}

/// The grant that an authentic refresh token of any generation belongs to, with the generation.
pub async fn refresh_token(app: &App, token: &str) -> Result<Option<(StoredGrant, u32)>> {
    let Some(token) = RefreshToken::parse(token) else { return Ok(None) };
    let stored = app.store.grant(&GrantId::new(token.grant_id.clone())).await?;
    let authentic = stored.filter(|stored| token.is_authentic(&app.keys.server.refresh, &stored.refresh_seed));
    Ok(authentic.map(|stored| (stored, token.generation)))
}
