//! Whether a credential that was presented is alive: a token signed by us, in time, and its grant, API key, person and
//! client still standing; an API key that was given out and counts. Asked wherever we answer to a credential ourselves.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::app::App;
use crate::crypto::api_key::ApiKey;
use crate::crypto::jws::TYP_ACCESS_TOKEN;
use crate::crypto::refresh::RefreshToken;
use crate::protocol::api_key::{ApiKeyRecord, KeySession, Kind, Owner};
use crate::protocol::claims::{GRANT_ID, KEY_ID, audience};
use crate::protocol::grant::GrantRecord;
use crate::protocol::ids::{ApiKeyId, ClientId, GrantId};
use crate::protocol::scope::ScopeSet;
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;
use crate::store::Result;
use crate::store::api_keys::StoredApiKey;
use crate::store::clients::ClientRecord;
use crate::store::grants::StoredGrant;
use crate::store::standing::Standing;

/// An access token of ours whose signature and issuer are right; it may have been revoked.
#[derive(Clone, Debug)]
pub struct SignedToken {
    pub claims: Arc<Map<String, Value>>,
    pub client_id: ClientId,
    pub jti: String,
    pub grant_id: Option<GrantId>,
    pub key_id: Option<ApiKeyId>,
    pub expires_at: Timestamp,
}

/// An access token that is alive.
pub struct LiveToken {
    pub token: SignedToken,
    /// As far as its person may still have it.
    pub scope: ScopeSet,
    standing: Arc<Standing>,
    key: Option<Arc<StoredApiKey>>,
}

impl LiveToken {
    /// The grant that it belongs to; neither a client-credentials token has one, nor one from a key that cannot be
    /// refreshed.
    pub fn grant(&self) -> Option<&GrantRecord> {
        self.standing.grant.as_ref().map(|stored| &stored.grant)
    }

    /// Whom it is about; `None` for a client's own.
    pub fn user(&self) -> Option<&User> {
        let of_grant = self.standing.grant.as_ref().map(|stored| &stored.user);
        of_grant.or_else(|| self.key.as_ref().and_then(|key| key.user.as_ref()))
    }

    /// The resources that it is for.
    pub fn resources(&self) -> Vec<String> {
        let issuer = self.token.claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        audience(&self.token.claims).into_iter().filter(|uri| *uri != issuer).map(str::to_owned).collect()
    }

    /// The API key that it was made from.
    pub fn key(&self) -> Option<&ApiKeyRecord> {
        self.key.as_ref().map(|key| &key.record)
    }
}

/// Reads an access token without asking the store; `None` for whatever is not one of ours or is expired.
pub fn signed_access_token(app: &App, token: &str, now: Timestamp) -> Option<SignedToken> {
    authentic_access_token(app, token).filter(|token| now < token.expires_at)
}

/// Whether a text is an access token of ours whose time is over.
pub fn has_expired(app: &App, token: &str, now: Timestamp) -> bool {
    authentic_access_token(app, token).is_some_and(|token| now >= token.expires_at)
}

/// Reads an access token of ours, in time or not.
pub fn authentic_access_token(app: &App, token: &str) -> Option<SignedToken> {
    let claims = app.keys.current().verify(token, TYP_ACCESS_TOKEN).ok()?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let expires_at = Timestamp::from_millis(claims.get("exp")?.as_i64()?.checked_mul(1000)?);
    if text("iss")? != app.metadata.issuer {
        return None;
    }
    Some(SignedToken {
        client_id: ClientId::new(text("client_id")?),
        jti: text("jti")?.to_owned(),
        grant_id: text(GRANT_ID).map(GrantId::new),
        key_id: text(KEY_ID).map(ApiKeyId::new),
        expires_at,
        claims,
    })
}

/// The token if it is alive in every respect.
pub async fn access_token(app: &App, token: &str, now: Timestamp) -> Result<Option<LiveToken>> {
    let Some(token) = signed_access_token(app, token, now) else { return Ok(None) };
    if !is_enabled(app, &token.client_id).await? {
        return Ok(None);
    }
    let key = match &token.key_id {
        None => None,
        Some(kid) => match app.store.api_key(kid).await? {
            Some(key) if stands(app, &key, now).await? => Some(key),
            _ => return Ok(None),
        },
    };
    let standing = app.store.standing(&token.jti, token.grant_id.as_ref()).await?;
    if standing.revoked || !grant_stands(token.grant_id.as_ref(), &standing) {
        return Ok(None);
    }
    let scope = token.claims.get("scope").and_then(Value::as_str).and_then(|scope| scope.parse().ok());
    let mut live = LiveToken { token, scope: scope.unwrap_or_default(), standing, key };
    let Some(user) = live.user() else { return Ok(Some(live)) };
    if !partner_stands(app, user).await? {
        return Ok(None);
    }
    live.scope = app.metadata.allowed(&live.scope, user);
    Ok(Some(live))
}

/// Whether there is such a client, and it is switched on.
pub async fn is_enabled(app: &App, client: &ClientId) -> Result<bool> {
    Ok(app.store.client(client).await?.is_some_and(|record| record.client.is_enabled()))
}

/// Whether a key counts, with its person and their partner.
async fn stands(app: &App, key: &StoredApiKey, now: Timestamp) -> Result<bool> {
    if !key.record.is_live(now) || key.user.as_ref().is_some_and(|user| !user.is_active()) {
        return Ok(false);
    }
    match &key.user {
        None => Ok(true),
        Some(user) => partner_stands(app, user).await,
    }
}

/// Whether the person's partner is switched on, where they have one.
pub async fn partner_stands(app: &App, user: &User) -> Result<bool> {
    match &user.partner {
        None => Ok(true),
        Some(partner) => is_enabled(app, partner).await,
    }
}

/// The key that a text is, if it was ever given out. Without the right checksum nobody is asked.
pub async fn known_api_key(app: &App, text: &str) -> Result<Option<Arc<StoredApiKey>>> {
    let Some(key) = ApiKey::parse(text) else { return Ok(None) };
    let stored = app.store.api_key(&key.kid).await?;
    let genuine = |stored: &Arc<StoredApiKey>| {
        app.keys.server.pepper(stored.pepper).is_some_and(|pepper| key.matches(pepper, &stored.mac))
    };
    Ok(stored.filter(genuine))
}

/// The same, if it is a person's, counts, and may be used from there.
pub async fn api_key(app: &App, text: &str, from: Option<IpAddr>, now: Timestamp) -> Result<Option<Arc<StoredApiKey>>> {
    let Some(key) = known_api_key(app, text).await? else { return Ok(None) };
    let usable = key.kind() == Kind::User && key.record.admits(from) && stands(app, &key, now).await?;
    Ok(usable.then_some(key))
}

/// The key that a text is, if it is a partner's own, counts, and may be used from there; with the partner.
pub async fn partner_key(
    app: &App,
    text: &str,
    from: Option<IpAddr>,
    now: Timestamp,
) -> Result<Option<(Arc<StoredApiKey>, Arc<ClientRecord>)>> {
    let Some(key) = known_api_key(app, text).await? else { return Ok(None) };
    let Owner::Partner(partner) = &key.record.owner else { return Ok(None) };
    if !key.record.admits(from) || !key.record.is_live(now) {
        return Ok(None);
    }
    let partner = partner_client(app, partner).await?;
    Ok(partner.map(|partner| (key, partner)))
}

/// The client, if it is a partner and switched on.
pub async fn partner_client(app: &App, id: &ClientId) -> Result<Option<Arc<ClientRecord>>> {
    let record = app.store.client(id).await?;
    Ok(record.filter(|record| record.client.is_enabled() && record.client.metadata.partner))
}

/// Whether what a session from a key leans on stands: the key, and the token that it was begun by.
pub async fn key_session(app: &App, session: &KeySession, now: Timestamp) -> Result<bool> {
    if let Some(kid) = &session.kid {
        match app.store.api_key(kid).await? {
            Some(key) if stands(app, &key, now).await? => {}
            _ => return Ok(false),
        }
    }
    let Some(origin) = &session.origin else { return Ok(true) };
    let standing = app.store.standing(&origin.jti, origin.grant_id.as_ref()).await?;
    Ok(!standing.revoked && grant_stands(origin.grant_id.as_ref(), &standing))
}

/// Whether the grant that is named is there and was not revoked.
fn grant_stands(named: Option<&GrantId>, standing: &Standing) -> bool {
    match (named, &standing.grant) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(_), Some(stored)) => stored.grant.revoked_at.is_none() && stored.user.is_active(),
    }
}

/// Where to look for the grant of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Database,
    /// The same, and it is remembered: the token is about to rotate.
    DatabaseToRotate,
    /// Only where it was remembered. Nothing but a rotation may follow from it.
    Memory,
}

/// The grant that an authentic refresh token of any generation belongs to, with the generation.
pub async fn refresh_token(app: &App, token: &str, look: Look) -> Result<Option<(StoredGrant, u32)>> {
    let Some(token) = RefreshToken::parse(token) else { return Ok(None) };
    let id = GrantId::new(token.grant_id.clone());
    let stored = match look {
        Look::Database => app.store.grant(&id).await?,
        Look::DatabaseToRotate => app.store.grant_to_rotate(&id).await?,
        Look::Memory => app.store.remembered_grant(&id),
    };
    let authentic = stored.filter(|stored| token.is_authentic(&app.keys.server.refresh, &stored.refresh_seed));
    Ok(authentic.map(|stored| (stored, token.generation)))
}

/// The key that a grant came from, as far as it and its partner stand.
pub async fn key_of_grant(app: &App, grant: &GrantRecord, now: Timestamp) -> Result<Option<ApiKeyRecord>> {
    let Some(kid) = &grant.api_key_id else { return Ok(None) };
    match app.store.api_key(kid).await? {
        Some(key) if stands(app, &key, now).await? => Ok(Some(key.record.clone())),
        _ => Ok(None),
    }
}
