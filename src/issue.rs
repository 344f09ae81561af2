//! The only mint: turns an [`Issuance`] into signed tokens and commits it. Everything is signed before the commit,
//! and nothing leaves before the commit, so a crash in between costs a retry and never a token.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::ambient::{random_bytes, random_token};
use crate::app::App;
use crate::crypto::jws::{TYP_ACCESS_TOKEN, TYP_ID_TOKEN};
use crate::crypto::refresh;
use crate::keys::KeyError;
use crate::protocol::claims::{AccessToken, Authentication, ClaimsRequest, IdToken};
use crate::protocol::client::{Client, IdTokenClaims, SigningAlg};
use crate::protocol::grant::{Commit, GrantRecord, Issuance, Subject};
use crate::protocol::ids::{ClientId, SessionId};
use crate::protocol::interaction::SIGN_IN_LIFETIME;
use crate::protocol::scope::{self, ScopeSet};
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::User;
use crate::store::StoreError;
use crate::store::events::{Author, By, Event, EventKind};
use crate::store::first_party::{Opened, Opening};
use crate::store::grants::{GrantCreation, NewGrant};
use crate::store::users::Created;
use crate::telemetry::traces;

/// How long a row outlives the last token that leans on it: clocks of processes differ a little.
pub const ROW_MARGIN: Span = Span::minutes(5);

/// Tokens that may leave.
pub struct Tokens {
    pub access_token: String,
    pub expires_in: Span,
    pub scope: ScopeSet,
    pub refresh_token: Option<String>,
    /// How long the refresh token can be used at most.
    pub refresh_expires_in: Option<Span>,
    pub id_token: Option<String>,
}

/// Why a grant was not opened, and nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    Taken(Created),
    /// The password was changed or the account disabled since it was checked.
    Ended,
}

/// What minting came to.
pub enum Minted {
    Tokens(Box<Tokens>),
    /// Another request changed the grant first; load it again and decide again.
    Overtaken,
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("a grant has an id that is not ours")]
    ForeignGrant,
    #[error("an issuance about a person says neither by what grant nor by what key")]
    Unfounded,
}

/// Signs and commits. `refresh_seed` is that of the issuance's grant; empty where it has none.
pub async fn mint(
    app: &App,
    client: &Client,
    issuance: Issuance,
    refresh_seed: &[u8],
    from: Option<IpAddr>,
    now: Timestamp,
) -> Result<Minted, IssueError> {
    let tokens = sign(app, client, &issuance, refresh_seed, now)?;
    let committed = commit(app, client, &issuance, refresh_seed, tokens.expires_in, from, now).await?;
    Ok(if committed { Minted::Tokens(Box::new(tokens)) } else { Minted::Overtaken })
}

/// Signs, and commits the issuance's new grant by what opens it, with the event that tells of it.
pub async fn open(
    app: &App,
    client: &Client,
    issuance: &Issuance,
    by: Opening,
    event: Event,
    now: Timestamp,
) -> Result<std::result::Result<Tokens, NotOpened>, IssueError> {
    let seed: [u8; 32] = random_bytes(app.rng.as_ref());
    let tokens = sign(app, client, issuance, &seed, now)?;
    let grant = new_grant(issuance.grant.as_ref().ok_or(IssueError::Unfounded)?, seed, tokens.expires_in, now);
    Ok(match app.store.open_grant(by, grant, event, now).await? {
        Opened::Yes => Ok(tokens),
        Opened::Taken(what) => Err(NotOpened::Taken(what)),
        Opened::Ended => Err(NotOpened::Ended),
    })
}

/// Everything that leaves, before it may.
fn sign(
    app: &App,
    client: &Client,
    issuance: &Issuance,
    refresh_seed: &[u8],
    now: Timestamp,
) -> Result<Tokens, IssueError> {
    let lifetime = access_token_ttl(app, client);
    // What a key opened closes with it.
    let expires_in = issuance.key.as_ref().map_or(lifetime, |key| lifetime.min(key.expires_at - now));
    let access_token = sign_access_token(app, client, issuance, now + expires_in, now)?;
    let id_token = match &issuance.subject {
        Subject::User(user) if issuance.scope.contains(scope::OPENID) => {
            Some(sign_id_token(app, client, issuance, user, &access_token, now)?)
        }
        _ => None,
    };
    let refresh_token = match (&issuance.grant, issuance.refresh) {
        (Some(grant), Some(generation)) => {
            let token = refresh::make(&app.keys.server.refresh, refresh_seed, grant.id.as_str(), generation);
            Some(token.ok_or(IssueError::ForeignGrant)?)
        }
        _ => None,
    };
    let refresh_expires_in = refresh_token.as_ref().and_then(|_| refresh_expires_in(issuance, now));
    let scope = issuance.scope.clone();
    Ok(Tokens { access_token, expires_in, scope, refresh_token, refresh_expires_in, id_token })
}

fn refresh_expires_in(issuance: &Issuance, now: Timestamp) -> Option<Span> {
    let expires_at = match issuance.commit {
        Commit::RedeemCode { refresh_expires_at } => refresh_expires_at,
        _ => issuance.grant.as_ref()?.refresh.map(|refresh| refresh.expires_at),
    };
    // A rotated key ends sooner than when its tokens were made.
    let of_key = issuance.key.as_ref().map(|key| key.expires_at);
    Some(expires_at?.min(of_key.unwrap_or(expires_at?)) - now)
}

fn access_token_ttl(app: &App, client: &Client) -> Span {
    client.metadata.access_token_ttl.unwrap_or(app.metadata.tokens.access_token_ttl)
}

/// When a grant's row may go that was made now, before its code is redeemed.
pub fn unredeemed_row_expiry(app: &App, now: Timestamp) -> Timestamp {
    row_expiry(now, now + app.metadata.tokens.authorization_code_ttl)
}

/// A row outlives the last token that leans on it, and also the sign-in it came from: while that could be resumed,
/// the row is what keeps it from giving a second code.
fn row_expiry(now: Timestamp, last_token: Timestamp) -> Timestamp {
    last_token.max(now + SIGN_IN_LIFETIME) + ROW_MARGIN
}

async fn commit(
    app: &App,
    client: &Client,
    issuance: &Issuance,
    refresh_seed: &[u8],
    expires_in: Span,
    from: Option<IpAddr>,
    now: Timestamp,
) -> Result<bool, IssueError> {
    let Some(grant) = &issuance.grant else { return Ok(true) };
    let id = grant.id.clone();
    match issuance.commit {
        Commit::Nothing => Ok(true),
        Commit::RedeemCode { refresh_expires_at } => {
            // The last refresh may be answered just before its end, and that answer's token lives on.
            let last_token = refresh_expires_at.unwrap_or(now) + expires_in;
            Ok(app.store.redeem_code(id, refresh_expires_at, row_expiry(now, last_token), now).await?)
        }
        Commit::Rotate { from } => Ok(app.store.rotate_refresh(id, from, now).await?),
        Commit::Touch => Ok(app.store.touch_refresh(id, now).await?),
        Commit::Create => {
            let seed = refresh_seed.try_into().map_err(|_| IssueError::Unfounded)?;
            let event = grant.facade.then(|| signed_in(app, client, grant, from, now));
            let new = NewGrant { event, ..new_grant(grant, seed, expires_in, now) };
            // The key was revoked meanwhile: deciding again will say so.
            Ok(app.store.create_grant(new, now).await? == GrantCreation::Created)
        }
    }
}

/// A grant that never had a code.
fn new_grant(grant: &GrantRecord, refresh_seed: [u8; 32], expires_in: Span, now: Timestamp) -> NewGrant {
    let last_token = grant.refresh.map_or(now, |refresh| refresh.expires_at) + expires_in;
    NewGrant {
        grant: grant.clone(),
        code_hash: None,
        refresh_seed,
        expires_at: row_expiry(now, last_token),
        event: None,
    }
}

/// A key for tokens by the call where no client authenticates.
fn signed_in(app: &App, client: &Client, grant: &GrantRecord, from: Option<IpAddr>, now: Timestamp) -> Event {
    let author = Author::new(Arc::clone(&app.rng), By::Person).at(from).as_client(&client.id);
    let event = author.event(EventKind::SignedIn, now).of_user(&grant.user_id).with("method", "api_key");
    let event = event.with("grant_id", grant.id.as_str());
    match &grant.api_key_id {
        Some(kid) => event.with("key_id", kid.as_str()),
        None => event,
    }
}

fn sign_access_token(
    app: &App,
    client: &Client,
    issuance: &Issuance,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<String, KeyError> {
    let subject = match &issuance.subject {
        Subject::User(user) => user.id.as_str(),
        Subject::Client => client.id.as_str(),
    };
    let grant = issuance.grant.as_ref();
    let of_key = issuance.key.as_ref().map(|_| Authentication::of_api_key());
    let claims = AccessToken {
        issuer: &app.metadata.issuer,
        subject,
        client_id: client.id.as_str(),
        audience: &app.metadata.audience(&issuance.resources, &issuance.scope),
        scope: &issuance.scope,
        issued_at: now,
        expires_at,
        jti: &random_token::<16>(app.rng.as_ref()),
        grant_id: grant.map(|grant| grant.id.as_str()),
        key_id: issuance.key.as_ref().map(|key| key.kid.as_str()),
        actor: issuance.key.as_ref().and_then(|key| key.actor.as_ref()).map(ClientId::as_str),
        authentication: of_key.as_ref().or(grant.map(|grant| &grant.authentication)),
        person: match &issuance.subject {
            Subject::User(user) if names_person(app, client) => Some(user),
            _ => None,
        },
    };
    let alg = app.metadata.access_token_alg(&issuance.resources, client.metadata.access_token_signed_response_alg);
    let _step = traces::step("sign");
    app.keys.current().sign(alg, TYP_ACCESS_TOKEN, &claims.body(), now)
}

/// Whether the client's apps read from its access tokens who somebody is.
fn names_person(app: &App, client: &Client) -> bool {
    app.config.sign_in_apis.username.as_ref().is_some_and(|api| api.client_id == client.id)
}

fn sign_id_token(
    app: &App,
    client: &Client,
    issuance: &Issuance,
    user: &User,
    access_token: &str,
    now: Timestamp,
) -> Result<String, IssueError> {
    let no_scopes = ScopeSet::default();
    let (no_claims, grant) = (ClaimsRequest::default(), issuance.grant.as_ref());
    let of_key = issuance.key.as_ref().map(|_| Authentication::of_api_key());
    let authentication = of_key.as_ref().or(grant.map(|grant| &grant.authentication)).ok_or(IssueError::Unfounded)?;
    let alg = client.metadata.id_token_signed_response_alg.unwrap_or(SigningAlg::Rs256);
    let by_itself = now + client.metadata.id_token_ttl.unwrap_or(app.metadata.tokens.id_token_ttl);
    let claims = IdToken {
        issuer: &app.metadata.issuer,
        client_id: client.id.as_str(),
        issued_at: now,
        expires_at: issuance.key.as_ref().map_or(by_itself, |key| by_itself.min(key.expires_at)),
        authentication,
        nonce: issuance.nonce.as_deref(),
        sid: grant.and_then(|grant| grant.session_id.as_ref()).map(SessionId::as_str),
        key_id: issuance.key.as_ref().map(|key| key.kid.as_str()),
        actor: issuance.key.as_ref().and_then(|key| key.actor.as_ref()).map(ClientId::as_str),
        access_token,
        alg,
        scope_claims: match client.metadata.id_token_claims {
            IdTokenClaims::Userinfo => &no_scopes,
            IdTokenClaims::Scopes => &issuance.scope,
        },
        claims: grant.map_or(&no_claims, |grant| &grant.claims),
    };
    let body: Map<String, Value> = claims.body(user);
    let _step = traces::step("sign");
    Ok(app.keys.current().sign(alg, TYP_ID_TOKEN, &body, now)?)
}
