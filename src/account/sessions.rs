//! Browser sessions: what opens one, and what ends it, each with the audit event that tells of it.

use std::net::IpAddr;

use super::audit::{self, About};
use super::password::Verified;
use crate::ambient::random_token;
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
use crate::store::events::{Event, EventKind};
use crate::store::sessions::{NewSession, Proof, Replaced};
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
    let id = same.map_or_else(|| SessionId::from_random(app.rng.id()), |session| session.id.clone());
    let session = NewSession {
        id,
        token_hash: sha256(token.as_bytes()),
        user_id: user_id.clone(),
        proof: Proof::Password(verified.set_at),
        authentication: Authentication {
            auth_time: Some(now),
            acr: ACR_PASSWORD.to_owned(),
            amr: vec!["pwd".to_owned()],
        },
        expires_at: now + app.config.sessions.absolute,
    };
    let replaced = replaced.map(|session| replaced_by(app, session, address));
    let event = signed_in(app, metrics::PASSWORD, &session, address);
    let began = app.store.begin_session(session, replaced, event, now).await?;
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
    let (proof, authentication) = (Proof::ApiKey(kid.clone(), Box::new(reach)), Authentication::of_api_key());
    let lent = lend(app, user, proof, authentication, expires_at);
    let replaced = replaced.map(|session| replaced_by(app, session, address));
    let event = signed_in(app, metrics::API_KEY, &lent.session, address).with("key_id", kid.as_str());
    let began = begin_lent_session(app, lent, replaced, event).await?;
    metrics::sign_in(metrics::API_KEY, metrics::SignIn::of(began.is_some()));
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
    let reach = KeySession { kid: None, scope, audiences: Vec::new(), origin: None, partner: Some(partner.clone()) };
    let expires_at = app.now() + app.config.sessions.absolute;
    let (proof, authentication) = (Proof::HandOff(link, Box::new(reach)), Authentication::of_handoff());
    let lent = lend(app, user, proof, authentication, expires_at);
    let replaced = replaced.map(|session| replaced_by(app, session, address));
    let event = signed_in(app, metrics::HANDOFF, &lent.session, address).of_client(&partner);
    let began = begin_lent_session(app, lent, replaced, event).await?;
    metrics::sign_in(metrics::HANDOFF, metrics::SignIn::of(began.is_some()));
    Ok(began)
}

/// A session that somebody else's credential opens, with the secret of its cookie.
struct Lent {
    session: NewSession,
    token: String,
}

/// Always a new one.
fn lend(app: &App, user: &User, proof: Proof, authentication: Authentication, expires_at: Timestamp) -> Lent {
    let token = random_token::<32>(app.rng.as_ref());
    let session = NewSession {
        id: SessionId::from_random(app.rng.id()),
        token_hash: sha256(token.as_bytes()),
        user_id: user.id.clone(),
        proof,
        authentication,
        expires_at,
    };
    Lent { session, token }
}

async fn begin_lent_session(
    app: &App,
    lent: Lent,
    replaced: Option<Replaced>,
    event: Event,
) -> Result<Option<(Secret<String>, Span)>> {
    let (now, expires_at) = (app.now(), lent.session.expires_at);
    let began = app.store.begin_session(lent.session, replaced, event, now).await?;
    Ok(began.then(|| (Secret::new(lent.token), expires_at - now)))
}

fn signed_in(app: &App, method: &'static str, session: &NewSession, address: Option<IpAddr>) -> Event {
    let event = audit::person(app, address).event(EventKind::SignedIn, app.now()).of_user(&session.user_id);
    event.with("method", method).with("sid", session.id.as_str())
}

/// Somebody signs in where this session was: whoever that is, it is not known to be its person.
fn replaced_by(app: &App, session: &Session, address: Option<IpAddr>) -> Replaced {
    let about = About { user_id: Some(&session.user_id), address, ..About::default() };
    let event = audit::event(app, EventKind::SignedOut, about).with("reason", "replaced");
    Replaced { id: session.id.clone(), event: event.with("sid", session.id.as_str()) }
}

/// Ends the session with its online grants.
pub async fn sign_out(app: &App, session: &Session, address: Option<IpAddr>) -> Result<()> {
    let event = audit::person(app, address).event(EventKind::SignedOut, app.now()).of_user(&session.user_id);
    let event = event.with("sid", session.id.as_str());
    app.store.end_session(session.id.clone(), event, app.now()).await
}

/// Ends a session from outside, with its online grants; `false` where there is none.
pub async fn end_session(app: &App, id: SessionId) -> Result<bool> {
    let event = audit::operator(app).event(EventKind::SignedOut, app.now()).with("sid", id.as_str());
    Ok(app.store.revoke_session(id, event, app.now()).await?.is_some())
}

/// Ends all sessions of a person from outside, with their online grants; how many there were.
pub async fn end_sessions_of(app: &App, user_id: &UserId) -> Result<usize> {
    let event = audit::operator(app).event(EventKind::SignedOut, app.now()).of_user(user_id);
    app.store.revoke_sessions_of_user(user_id.clone(), event, app.now()).await
}
