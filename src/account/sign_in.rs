//! Signing in with a password: limits first, then the hash, then the session. An unknown name, a disabled account
//! and a wrong password cost the same and read the same.

use std::net::IpAddr;

use super::audit::{self, About};
use crate::ambient::{random_bytes, random_token};
use crate::app::App;
use crate::crypto::digest::sha256;
use crate::crypto::password::MAX_PASSWORD_BYTES;
use crate::crypto::secret::Secret;
use crate::limit::{Action, Place};
use crate::protocol::claims::Authentication;
use crate::protocol::ids::{SessionId, UserId};
use crate::protocol::interaction::Session;
use crate::protocol::metadata::ACR_PASSWORD;
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::{LoginName, User};
use crate::store::events::EventKind;
use crate::store::sessions::NewSession;
use crate::store::users::REALM_DIRECT;
use crate::store::{Result, StoreError};

/// What somebody typed, and from where.
pub struct Attempt {
    pub username: String,
    pub password: Secret<String>,
    pub address: Option<IpAddr>,
}

/// What the attempt came to.
pub enum Outcome {
    SignedIn(Box<User>),
    /// `left` more attempts before a pause.
    Refused {
        left: usize,
    },
    Throttled {
        retry_after: Span,
    },
    /// Too many at once; this one was not counted.
    Overloaded {
        retry_after: Span,
    },
}

/// Checks a name and a password.
pub async fn check_password(app: &App, attempt: Attempt) -> Result<Outcome> {
    let name = LoginName::parse(&attempt.username).ok();
    let known = match &name {
        Some(name) => app.store.user_by_login(REALM_DIRECT, name).await?,
        None => None,
    };
    // One budget for a person, whichever of their names is typed. Names of nobody are counted too, as they are.
    let account = match (&known, &name) {
        (Some((user, _)), _) => user.id.as_str().to_owned(),
        (None, Some(name)) => name.identifier().1.to_owned(),
        (None, None) => attempt.username.chars().take(255).collect(),
    };
    let about = About { address: attempt.address, ..About::default() };
    let action = Action::SignIn { account: &account, from: attempt.address };
    let place = match app.limits.reserve(action, app.now()).await? {
        Ok(place) => place,
        Err(throttled) => {
            audit::record(app, EventKind::SignInThrottled, about).await?;
            return Ok(Outcome::Throttled { retry_after: throttled.retry_after });
        }
    };
    let (user, hash) = known.map_or((None, None), |(user, hash)| (Some(user), hash));
    let matched = if attempt.password.expose().len() > MAX_PASSWORD_BYTES {
        false
    } else {
        match app.passwords.verify(attempt.password.clone(), hash.clone()).await {
            Ok(matched) => matched,
            Err(overloaded) => {
                app.limits.refund(place).await?;
                return Ok(Outcome::Overloaded { retry_after: overloaded.retry_after });
            }
        }
    };
    let user_id = user.as_ref().map(|user| user.id.clone());
    let Some(user) = user.filter(|user| matched && user.is_active()) else {
        let left = place.left;
        audit::record(app, EventKind::SignInFailed, About { user_id: user_id.as_ref(), ..about }).await?;
        return Ok(Outcome::Refused { left });
    };
    welcome(app, &user, hash, attempt.password, place).await?;
    audit::record(app, EventKind::SignedIn, About { user_id: Some(&user.id), ..about }).await?;
    Ok(Outcome::SignedIn(Box::new(user)))
}

/// After the right password: earlier attempts are forgiven, and an old hash is made anew.
async fn welcome(
    app: &App,
    user: &User,
    hash: Option<Secret<String>>,
    password: Secret<String>,
    place: Place,
) -> Result<()> {
    app.limits.forgive(place).await?;
    let Some(old) = hash.filter(|hash| app.passwords.needs_rehash(hash.expose())) else { return Ok(()) };
    // Under load the old hash does for another while.
    if let Ok(Ok(new)) = app.passwords.hash(password, random_bytes(app.rng.as_ref())).await {
        app.store.upgrade_password_hash(user.id.clone(), old, new).await?;
    }
    Ok(())
}

/// Begins a session for somebody who just proved who they are, in place of the one this browser had. Returns the
/// secret for the cookie.
pub async fn begin_session(app: &App, user_id: &UserId, replaced: Option<&Session>) -> Result<Secret<String>> {
    let now: Timestamp = app.now();
    let token = random_token::<32>(app.rng.as_ref());
    // The same person keeps the `sid` that apps know; its secret is always a new one (session fixation).
    let same = replaced.filter(|session| session.user_id == *user_id);
    let id = same.map_or_else(|| SessionId::from_random(random_bytes(app.rng.as_ref())), |session| session.id.clone());
    let session = NewSession {
        id,
        token_hash: sha256(token.as_bytes()),
        user_id: user_id.clone(),
        authentication: Authentication { auth_time: now, acr: ACR_PASSWORD.to_owned(), amr: vec!["pwd".to_owned()] },
        expires_at: now + app.config.sessions.absolute,
    };
    app.store.begin_session(session, replaced.map(|session| session.id.clone()), now).await?;
    Ok(Secret::new(token))
}

/// Ends the session with its online grants.
pub async fn sign_out(app: &App, session: &Session, address: Option<IpAddr>) -> std::result::Result<(), StoreError> {
    app.store.end_session(session.id.clone(), app.now()).await?;
    let about = About { user_id: Some(&session.user_id), address, ..About::default() };
    audit::record(app, EventKind::SignedOut, about).await
}
