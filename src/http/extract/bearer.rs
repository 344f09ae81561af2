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
use crate::store::Result;
use crate::store::api_keys::StoredApiKey;

/// The credential of the `Authorization` header (RFC 6750 §2.1).
///
/// # Errors
/// `Missing` where there is none of the scheme `Bearer`; `invalid_request` where there are two. What is of the scheme and
/// no token is a bad one.
pub fn of_header(headers: &HeaderMap) -> std::result::Result<String, BearerError> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let header = lines.next().ok_or(BearerError::Missing)?;
    if lines.next().is_some() {
        return Err(Error::invalid_request("more than one access token").into());
    }
    let header = String::from_utf8_lossy(header.as_bytes());
    let (scheme, token) = header.split_once([' ', '\t']).unwrap_or((header.as_ref(), ""));
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim().to_owned()) } else { Err(BearerError::Missing) }
}

/// What a bad credential is told, whatever is wrong with it.
pub fn refused() -> Error {
    Error::invalid_token("the access token is unknown, expired or revoked, or not for this issuer")
}

/// A bearer credential that is alive.
pub enum Bearer {
    Token(Box<LiveToken>),
    /// With the scopes that it yields now.
    Key(Arc<StoredApiKey>, ScopeSet),
}

impl Bearer {
    /// One that is meant for this issuer.
    ///
    /// # Errors
    /// `invalid_token` for whatever is not alive, and for a key that is good for tokens only; one text for all.
    pub async fn find(app: &App, text: &str, address: ClientAddress) -> std::result::Result<Self, BearerError> {
        let for_us = |key: &ApiKeyRecord, user: &User| {
            let scope = key.scope_for(user, &app.metadata);
            app.metadata.audience(&key.audiences, &scope).contains(&app.metadata.issuer)
        };
        match Self::look_up(app, text, address, for_us).await? {
            Ok(Self::Token(live)) if !claims::audience(&live.token.claims).contains(&app.metadata.issuer.as_str()) => {}
            Ok(bearer) => return Ok(bearer),
            Err(Rejected::Throttled(throttled)) => return Err(BearerError::Throttled(throttled)),
            Err(Rejected::Bad) => {}
        }
        Err(refused().into())
    }

    /// One that is alive, whatever it is meant for. Keys that are good for tokens only are none here, and neither are
    /// those that `opens` turns away.
    pub async fn look_up(
        app: &App,
        text: &str,
        address: ClientAddress,
        opens: impl Fn(&ApiKeyRecord, &User) -> bool,
    ) -> Result<std::result::Result<Self, Rejected>> {
        if !ApiKey::claims(text) {
            let live = live::access_token(app, text, app.now()).await?;
            return Ok(live.map(|live| Self::Token(Box::new(live))).ok_or(Rejected::Bad));
        }
        let opens = |key: &ApiKeyRecord, user: &User| !key.exchange_only && opens(key, user);
        let found = api_keys::check(app, text, address.0, opens).await?;
        Ok(found.map(|key| {
            let scope = key.user.as_ref().map(|user| key.record.scope_for(user, &app.metadata));
            Self::Key(key, scope.unwrap_or_default())
        }))
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
