//! The one credential that a request comes with, whatever its kind: a key or a token in the `Authorization` header, or
//! else a browser's cookie. The header wins, since somebody put it there on purpose and the cookie came by itself; what
//! is wrong with the header is not made good by a cookie.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;

use super::bearer::{self, Bearer};
use super::peer::ClientAddress;
use super::session::{self, Shown};
use crate::account::api_keys::Rejected;
use crate::app::App;
use crate::crypto::api_key::ApiKey;
use crate::http::Web;
use crate::http::error::BearerError;
use crate::live;
use crate::protocol::claims;
use crate::protocol::gateway::{Holder, Method, Trouble};
use crate::protocol::ids::ApiKeyId;
use crate::protocol::scope::ScopeSet;
use crate::store::Result;
use crate::store::clients::ClientRecord;
use crate::store::standing::KnownSession;

/// A credential that is alive; what it is for is not looked at.
pub enum Credential {
    /// With the client whose own token it is, where it is about no person.
    Bearer(Bearer, Option<Arc<ClientRecord>>),
    /// With the scopes that the session has.
    Cookie(Arc<KnownSession>, ScopeSet),
}

impl Credential {
    /// The credential of a request; `None` where it has none. `may_use_cookie`: the request is not one that another
    /// site could have made a browser send.
    pub async fn of(
        web: &Web,
        headers: &HeaderMap,
        address: ClientAddress,
        may_use_cookie: bool,
    ) -> Result<std::result::Result<Option<Self>, Trouble>> {
        match bearer::of_header(headers) {
            Ok(text) => Ok(Self::of_bearer(&web.app, &text, address).await?.map(Some)),
            // A scheme that is not ours is for whoever stands behind the gateway.
            Err(BearerError::Missing) => Self::of_cookie(web, headers, may_use_cookie).await,
            Err(_) => Ok(Err(Trouble::InvalidRequest)),
        }
    }

    async fn of_bearer(app: &App, text: &str, address: ClientAddress) -> Result<std::result::Result<Self, Trouble>> {
        let bearer = match Bearer::look_up(app, text, address, |_, _| true).await? {
            Ok(bearer) => bearer,
            Err(Rejected::Throttled(throttled)) => {
                return Ok(Err(Trouble::TooManyAttempts { retry_after: throttled.retry_after }));
            }
            Err(Rejected::Bad) if ApiKey::claims(text) => return Ok(Err(Trouble::InvalidApiKey)),
            Err(Rejected::Bad) if live::has_expired(app, text, app.now()) => return Ok(Err(Trouble::TokenExpired)),
            Err(Rejected::Bad) => return Ok(Err(Trouble::InvalidToken)),
        };
        let client = match &bearer {
            Bearer::Token(live) if live.user().is_none() => app.store.client(&live.token.client_id).await?,
            _ => None,
        };
        Ok(Ok(Self::Bearer(bearer, client)))
    }

    async fn of_cookie(
        web: &Web,
        headers: &HeaderMap,
        may_use_cookie: bool,
    ) -> Result<std::result::Result<Option<Self>, Trouble>> {
        let known = match session::at_gateway(web, headers).await? {
            Shown::Nothing => return Ok(Ok(None)),
            Shown::Dead => return Ok(Err(Trouble::InvalidSession)),
            Shown::Live(_) if !may_use_cookie => return Ok(Err(Trouble::ForeignOrigin)),
            Shown::Live(known) => known,
        };
        let (session, user) = (&known.signed_in.session, &known.signed_in.user);
        let scope = match &session.key {
            None => web.app.metadata.scopes_of(user),
            Some(key) => web.app.metadata.allowed(&key.scope, user),
        };
        Ok(Ok(Some(Self::Cookie(known, scope))))
    }

    /// Who it is, as the rules see them.
    pub fn holder<'a>(&'a self, issuer: &'a str) -> Holder<'a> {
        match self {
            Self::Bearer(bearer, client) => of_bearer(bearer, client.as_deref()),
            Self::Cookie(known, scope) => of_session(known, scope, issuer),
        }
    }
}

/// The list of a key's audiences; an empty one binds to nothing.
fn bound(audiences: &[String]) -> Option<Vec<&str>> {
    (!audiences.is_empty()).then(|| audiences.iter().map(String::as_str).collect())
}

fn of_bearer<'a>(bearer: &'a Bearer, client: Option<&'a ClientRecord>) -> Holder<'a> {
    let user = bearer.user();
    let (method, audience, sub, client_id) = match bearer {
        Bearer::Key(key, _) => (Method::ApiKey, bound(&key.record.audiences), None, None),
        Bearer::Token(live) => {
            let sub = live.token.claims.get("sub").and_then(serde_json::Value::as_str);
            let audience = claims::audience(&live.token.claims);
            (Method::Token, Some(audience), sub, Some(live.token.client_id.as_str()))
        }
    };
    let of_user = user.and_then(|user| user.partner.as_ref());
    let partner = of_user.or_else(|| client.and_then(|record| record.client.partner()));
    Holder {
        method,
        subject: user.map(|user| user.id.as_str()).or(sub).unwrap_or_default(),
        user,
        scope: Cow::Borrowed(bearer.scope()),
        audience,
        client: client_id,
        partner: partner.map(|partner| partner.as_str()),
        key_id: bearer.key().map(|key| key.kid.as_str()),
    }
}

fn of_session<'a>(known: &'a KnownSession, scope: &'a ScopeSet, issuer: &'a str) -> Holder<'a> {
    let (session, user) = (&known.signed_in.session, &known.signed_in.user);
    let audience = session.key.as_ref().and_then(|key| match bound(&key.audiences) {
        // A token for us began it, and it reaches no further than that token.
        None if key.origin.is_some() => Some(vec![issuer]),
        audience => audience,
    });
    Holder {
        method: Method::Cookie,
        subject: user.id.as_str(),
        user: Some(user),
        scope: Cow::Borrowed(scope),
        audience,
        client: None,
        partner: user.partner.as_ref().map(|partner| partner.as_str()),
        key_id: session.key.as_ref().and_then(|key| key.kid.as_ref()).map(ApiKeyId::as_str),
    }
}
