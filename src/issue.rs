//! The only mint: turns an [`Issuance`] into signed tokens and commits it. Everything is signed before the commit,
//! and nothing leaves before the commit, so a crash in between costs a retry and never a token.

use serde_json::{Map, Value};

use crate::ambient::random_token;
use crate::app::App;
use crate::crypto::jws::{TYP_ACCESS_TOKEN, TYP_ID_TOKEN};
use crate::crypto::refresh;
use crate::keys::KeyError;
use crate::protocol::claims::{AccessToken, IdToken};
use crate::protocol::client::{Client, IdTokenClaims, SigningAlg};
use crate::protocol::grant::{Commit, GrantRecord, Issuance, Subject};
use crate::protocol::interaction::SIGN_IN_LIFETIME;
use crate::protocol::scope::{self, ScopeSet};
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::User;
use crate::store::StoreError;
use crate::telemetry::traces;

/// How long a row outlives the last token that leans on it: clocks of processes differ a little.
pub const ROW_MARGIN: Span = Span::minutes(5);

/// Tokens that may leave.
pub struct Tokens {
    pub access_token: String,
    pub expires_in: Span,
    pub scope: ScopeSet,
    pub refresh_token: Option<String>,
    pub id_token: Option<String>,
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
}

/// Signs and commits. `refresh_seed` is that of the issuance's grant; empty where it has none.
pub async fn mint(
    app: &App,
    client: &Client,
    issuance: Issuance,
    refresh_seed: &[u8],
    now: Timestamp,
) -> Result<Minted, IssueError> {
    let expires_in = access_token_ttl(app, client);
    let access_token = sign_access_token(app, client, &issuance, now)?;
    let id_token = match (&issuance.subject, &issuance.grant) {
        (Subject::User(user), Some(grant)) if issuance.scope.contains(scope::OPENID) => {
            Some(sign_id_token(app, client, &issuance, grant, user, &access_token, now)?)
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
    if !commit(app, &issuance, expires_in, now).await? {
        return Ok(Minted::Overtaken);
    }
    Ok(Minted::Tokens(Box::new(Tokens { access_token, expires_in, scope: issuance.scope, refresh_token, id_token })))
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

async fn commit(app: &App, issuance: &Issuance, expires_in: Span, now: Timestamp) -> Result<bool, StoreError> {
    let Some(grant) = &issuance.grant else { return Ok(true) };
    let id = grant.id.clone();
    match issuance.commit {
        Commit::Nothing => Ok(true),
        Commit::RedeemCode { refresh_expires_at } => {
            // The last refresh may be answered just before its end, and that answer's token lives on.
            let last_token = refresh_expires_at.unwrap_or(now) + expires_in;
            app.store.redeem_code(id, refresh_expires_at, row_expiry(now, last_token), now).await
        }
        Commit::Rotate { from } => app.store.rotate_refresh(id, from, now).await,
        Commit::Touch => app.store.touch_refresh(id, now).await,
    }
}

fn sign_access_token(app: &App, client: &Client, issuance: &Issuance, now: Timestamp) -> Result<String, KeyError> {
    let subject = match &issuance.subject {
        Subject::User(user) => user.id.as_str(),
        Subject::Client => client.id.as_str(),
    };
    let grant = issuance.grant.as_ref();
    let claims = AccessToken {
        issuer: &app.metadata.issuer,
        subject,
        client_id: client.id.as_str(),
        audience: &app.metadata.audience(&issuance.resources, &issuance.scope),
        scope: &issuance.scope,
        issued_at: now,
        expires_at: now + access_token_ttl(app, client),
        jti: &random_token::<16>(app.rng.as_ref()),
        grant_id: grant.map(|grant| grant.id.as_str()),
        authentication: grant.map(|grant| &grant.authentication),
    };
    let alg = app.metadata.access_token_alg(&issuance.resources, client.metadata.access_token_signed_response_alg);
    let _step = traces::step("sign");
    app.keys.current().sign(alg, TYP_ACCESS_TOKEN, &claims.body(), now)
}

fn sign_id_token(
    app: &App,
    client: &Client,
    issuance: &Issuance,
    grant: &GrantRecord,
    user: &User,
    access_token: &str,
    now: Timestamp,
) -> Result<String, KeyError> {
    let no_scopes = ScopeSet::default();
    let alg = client.metadata.id_token_signed_response_alg.unwrap_or(SigningAlg::Rs256);
    let claims = IdToken {
        issuer: &app.metadata.issuer,
        client_id: client.id.as_str(),
        issued_at: now,
        expires_at: now + client.metadata.id_token_ttl.unwrap_or(app.metadata.tokens.id_token_ttl),
        authentication: &grant.authentication,
        nonce: issuance.nonce.as_deref(),
        sid: grant.session_id.as_ref().map(|sid| sid.as_str()),
        access_token,
        alg,
        scope_claims: match client.metadata.id_token_claims {
            IdTokenClaims::Userinfo => &no_scopes,
            IdTokenClaims::Scopes => &issuance.scope,
        },
        claims: &grant.claims,
    };
    let body: Map<String, Value> = claims.body(user);
    let _step = traces::step("sign");
    app.keys.current().sign(alg, TYP_ID_TOKEN, &body, now)
}
