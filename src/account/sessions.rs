//! Browser sessions: what opens one, and what ends it. Each is written with the audit event that tells of it.

use std::net::IpAddr;

use super::audit::{self, About};
use super::password::Verified;
use crate::ambient::{random_bytes, random_token};
use crate::app::App;
use crate::crypto::digest::sha256;
use crate::crypto::secret::Secret;
use crate::protocol::api_key::{KeySession, ceiling_of};
use crate::protocol::claims::Authentication;
use crate::protocol::ids::{SessionId, UserId};
use crate::protocol::interaction::Session;
use crate::protocol::metadata::ACR_PASSWORD;
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::User;
use crate::store::Result;
use crate::store::events::EventKind;
use crate::store::sessions::{NewSession, Proof};
use crate::telemetry::metrics;

/// Begins a session for somebody who just proved who they are, in place of the one this browser had. Returns the
/// secret for the cookie; `None` where the password was changed or the account disabled meanwhile.
pub async fn begin_session(
    app: &App,
    verified: &Verified,
    replaced: Option<&Session>,
    address: Option<IpAddr>,
) -> Result<Option<Secret<String>>> {
    let now = app.now();
    let user_id = &verified.user.id;
    let token = random_token::<32>(app.rng.as_ref());
    // The same person keeps the `sid` that apps know; its secret is always a new one (session fixation).
    // Not from a session that an API key began: what was opened there stays within the key.
    let same = replaced.filter(|session| session.user_id == *user_id && session.key.is_none());
    let id = same.map_or_else(|| SessionId::from_random(random_bytes(app.rng.as_ref())), |session| session.id.clone());
    let session = NewSession {
        id,
        token_hash: sha256(token.as_bytes()),
        user_id: user_id.clone(),
        proof: Proof::Password(verified.hash.clone()),
        authentication: Authentication {
            auth_time: Some(now),
            acr: ACR_PASSWORD.to_owned(),
            amr: vec!["pwd".to_owned()],
        },
        expires_at: now + app.config.sessions.absolute,
    };
    let began = app.store.begin_session(session, replaced.map(|session| session.id.clone()), now).await?;
    if began {
        record_sign_in(app, &verified.user, address, &[]).await;
    }
    Ok(began.then(|| Secret::new(token)))
}

/// Begins a session for the person whose API key was presented, as far as it reaches and until then, in place of the
/// one this browser had. Returns the secret for the cookie with its life; `None` where the key was revoked or the
/// account disabled meanwhile.
pub async fn begin_key_session(
    app: &App,
    user: &User,
    reach: KeySession,
    until: Timestamp,
    replaced: Option<&Session>,
    address: Option<IpAddr>,
) -> Result<Option<(Secret<String>, Span)>> {
    let Some(kid) = reach.kid.clone() else { return Ok(None) };
    let expires_at = until.min(app.now() + app.config.sessions.absolute);
    let detail = [("key_id", kid.as_str())];
    let authentication = Authentication::of_api_key();
    let proof = Proof::ApiKey(kid.clone(), Box::new(reach));
    let began = begin_lent_session(app, user, proof, authentication, expires_at, replaced).await?;
    metrics::sign_in(metrics::API_KEY, metrics::SignIn::of(began.is_some()));
    if began.is_some() {
        record_sign_in(app, user, address, &detail).await;
    }
    Ok(began)
}

/// Begins a session for the person that a partner's link is about, in place of the one this browser had. Returns the
/// secret for the cookie with its life; `None` where the link was used or the account disabled meanwhile.
pub async fn begin_handed_over_session(
    app: &App,
    user: &User,
    link: [u8; 32],
    replaced: Option<&Session>,
    address: Option<IpAddr>,
) -> Result<Option<(Secret<String>, Span)>> {
    let Some(partner) = user.partner.clone() else { return Ok(None) };
    let ceiling = ceiling_of(user, &app.metadata);
    let scope = app.metadata.all_scopes().filter(|token| ceiling(token)).map(str::to_owned).collect();
    let detail = [("by", "partner"), ("partner", partner.as_str())];
    let reach = KeySession { kid: None, scope, audiences: Vec::new(), origin: None, partner: Some(partner.clone()) };
    let expires_at = app.now() + app.config.sessions.absolute;
    let (proof, authentication) = (Proof::HandOff(link, Box::new(reach)), Authentication::of_handoff());
    let began = begin_lent_session(app, user, proof, authentication, expires_at, replaced).await?;
    metrics::sign_in(metrics::HANDOFF, metrics::SignIn::of(began.is_some()));
    if began.is_some() {
        record_sign_in(app, user, address, &detail).await;
    }
    Ok(began)
}

/// A session that somebody else's credential opens: always a new one.
async fn begin_lent_session(
    app: &App,
    user: &User,
    proof: Proof,
    authentication: Authentication,
    expires_at: Timestamp,
    replaced: Option<&Session>,
) -> Result<Option<(Secret<String>, Span)>> {
    let now = app.now();
    let token = random_token::<32>(app.rng.as_ref());
    let session = NewSession {
        id: SessionId::from_random(random_bytes(app.rng.as_ref())),
        token_hash: sha256(token.as_bytes()),
        user_id: user.id.clone(),
        proof,
        authentication,
        expires_at,
    };
    let began = app.store.begin_session(session, replaced.map(|session| session.id.clone()), now).await?;
    Ok(began.then(|| (Secret::new(token), expires_at - now)))
}

/// The session has begun, and its secret must not get lost.
async fn record_sign_in(app: &App, user: &User, address: Option<IpAddr>, detail: &[(&'static str, &str)]) {
    let about = About { user_id: Some(&user.id), address, detail, ..About::default() };
    audit::record_or_log(app, audit::event(app, EventKind::SignedIn, about)).await;
}

/// Ends the session with its online grants.
pub async fn sign_out(app: &App, session: &Session, address: Option<IpAddr>) -> Result<()> {
    app.store.end_session(session.id.clone(), app.now()).await?;
    let about = About { user_id: Some(&session.user_id), address, ..About::default() };
    audit::record(app, EventKind::SignedOut, about).await
}

/// Ends a session from outside, with its online grants; `false` where there is none.
pub async fn end_session(app: &App, id: SessionId) -> Result<bool> {
    let Some(user_id) = app.store.revoke_session(id, app.now()).await? else { return Ok(false) };
    record_operators_sign_out(app, &user_id).await?;
    Ok(true)
}

/// Ends all sessions of a person from outside, with their online grants; how many there were.
pub async fn end_sessions_of(app: &App, user_id: &UserId) -> Result<usize> {
    let ended = app.store.revoke_sessions_of_user(user_id.clone(), app.now()).await?;
    if ended > 0 {
        record_operators_sign_out(app, user_id).await?;
    }
    Ok(ended)
}

async fn record_operators_sign_out(app: &App, user_id: &UserId) -> Result<()> {
    let about = About { user_id: Some(user_id), detail: &[("by", "operator")], ..About::default() };
    audit::record(app, EventKind::SignedOut, about).await
}
