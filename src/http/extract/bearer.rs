//! Who a bearer credential stands for: an access token of ours (RFC 6750) or a person's API key used directly. Keys are
//! told from tokens by how they begin, so that neither is ever tried as the other.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::account::api_keys::{self, Rejected};
use crate::app::App;
use crate::crypto::api_key::ApiKey;
use crate::http::error::BearerError;
use crate::http::extract::peer::ClientAddress;
use crate::live::{self, LiveToken};
use crate::protocol::api_key::{ApiKeyRecord, KeySession, Origin};
use crate::protocol::claims;
use crate::protocol::error::Error;
use crate::protocol::grant::GrantRecord;
use crate::protocol::scope::ScopeSet;
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;
use crate::store::api_keys::StoredApiKey;

/// The credential of the `Authorization` header (RFC 6750 §2.1).
///
/// # Errors
/// `Missing` where there is none of the scheme `Bearer`; `invalid_request` where there are two.
pub fn of_header(headers: &HeaderMap) -> Result<String, BearerError> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let header = lines.next().map(|line| line.to_str().unwrap_or_default()).ok_or(BearerError::Missing)?;
    if lines.next().is_some() {
        return Err(Error::invalid_request("more than one access token").into());
    }
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim().to_owned()),
        _ => Err(BearerError::Missing),
    }
}

/// What a bad credential is told, whatever is wrong with it.
pub fn refused() -> Error {
    Error::invalid_token("the access token is unknown, expired or revoked, or not for this issuer")
}

/// A credential that is alive and meant for this issuer.
pub enum Bearer {
    Token(Box<LiveToken>),
    /// With the scopes that it yields now.
    Key(Arc<StoredApiKey>, ScopeSet),
}

impl Bearer {
    /// # Errors
    /// `invalid_token` for whatever is not alive, and for a key that is good for tokens only; one text for all.
    pub async fn find(app: &App, text: &str, address: ClientAddress) -> Result<Self, BearerError> {
        if ApiKey::claims(text) {
            let opens = |key: &ApiKeyRecord, user: &User| {
                let scope = key.scope_for(user, &app.metadata);
                !key.exchange_only && app.metadata.audience(&key.audiences, &scope).contains(&app.metadata.issuer)
            };
            let key = match api_keys::check(app, text, address.0, opens).await? {
                Ok(key) => key,
                Err(Rejected::Bad) => return Err(refused().into()),
                Err(Rejected::Throttled { retry_after }) => return Err(BearerError::Throttled { retry_after }),
            };
            let scope = key.user.as_ref().map(|user| key.record.scope_for(user, &app.metadata));
            return Ok(Self::Key(key, scope.unwrap_or_default()));
        }
        let live = live::access_token(app, text, app.now()).await?.ok_or_else(refused)?;
        if !claims::audience(&live.token.claims).contains(&app.metadata.issuer.as_str()) {
            return Err(refused().into());
        }
        Ok(Self::Token(Box::new(live)))
    }

    /// As far as its person may still have it.
    pub fn scope(&self) -> &ScopeSet {
        match self {
            Self::Token(live) => &live.scope,
            Self::Key(_, scope) => scope,
        }
    }

    /// `None` for a client's own token.
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::Token(live) => live.user(),
            Self::Key(key, _) => key.user.as_ref(),
        }
    }

    pub fn grant(&self) -> Option<&GrantRecord> {
        match self {
            Self::Token(live) => live.grant(),
            Self::Key(..) => None,
        }
    }

    /// How far a session reaches that is begun by this key or token of it.
    pub fn reach(&self, key: &ApiKeyRecord) -> KeySession {
        let (audiences, origin) = match self {
            Self::Key(..) => (key.audiences.clone(), None),
            Self::Token(live) => {
                (live.resources(), Some(Origin { jti: live.token.jti.clone(), grant_id: live.token.grant_id.clone() }))
            }
        };
        let partner = self.user().and_then(|user| user.partner.clone());
        KeySession { kid: Some(key.kid.clone()), scope: self.scope().clone(), audiences, origin, partner }
    }

    /// When it ends by itself.
    pub fn expires_at(&self) -> Timestamp {
        match self {
            Self::Token(live) => live.token.expires_at,
            Self::Key(key, _) => key.record.expires_at,
        }
    }

    /// The key that it is or came from.
    pub fn key(&self) -> Option<&ApiKeyRecord> {
        match self {
            Self::Token(live) => live.key(),
            Self::Key(key, _) => Some(&key.record),
        }
    }
}
