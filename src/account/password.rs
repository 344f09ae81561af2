//! Checking a password: limits first, then the hash. An unknown name, a disabled account and a wrong password cost the
//! same and read the same. What the right one opens is for `sessions.rs`.

use std::net::IpAddr;

use super::audit::{self, About};
use crate::ambient::random_bytes;
use crate::app::App;
use crate::crypto::password::MAX_PASSWORD_BYTES;
use crate::crypto::secret::Secret;
use crate::limit::{Action, Place, Throttled};
use crate::protocol::time::Span;
use crate::protocol::user::{LoginName, User};
use crate::store::Result;
use crate::store::events::EventKind;
use crate::store::users::REALM_DIRECT;
use crate::telemetry::metrics;

/// What somebody typed, and from where.
pub struct Attempt {
    pub username: String,
    pub password: Secret<String>,
    pub address: Option<IpAddr>,
}

/// What the attempt came to.
pub enum Outcome {
    SignedIn(Box<Verified>),
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

/// Somebody whose password was right a moment ago.
pub struct Verified {
    pub user: User,
    /// The hash that stands for the password now.
    pub(super) hash: Secret<String>,
}

/// Places that an attempt took: one of the name's, one of the network's.
struct Places {
    name: Place,
    network: Place,
}

/// Checks a name and a password.
pub async fn check_password(app: &App, attempt: Attempt) -> Result<Outcome> {
    let outcome = attempt_password(app, attempt).await?;
    let result = match &outcome {
        Outcome::SignedIn(_) => metrics::SignIn::Success,
        Outcome::Refused { .. } => metrics::SignIn::Refused,
        Outcome::Throttled { .. } => metrics::SignIn::Throttled,
        Outcome::Overloaded { .. } => metrics::SignIn::Overloaded,
    };
    metrics::sign_in(metrics::PASSWORD, result);
    Ok(outcome)
}

async fn attempt_password(app: &App, attempt: Attempt) -> Result<Outcome> {
    let name = LoginName::parse(&attempt.username).ok();
    let places = match reserve(app, &attempt, name.as_ref()).await? {
        Ok(places) => places,
        // Counted nowhere but in the log: whoever goes on trying writes nothing.
        Err(Throttled { retry_after }) => {
            tracing::warn!(address = ?attempt.address, "a sign-in was throttled");
            return Ok(Outcome::Throttled { retry_after });
        }
    };
    let known = match &name {
        Some(name) => app.store.user_by_login(REALM_DIRECT, name).await?,
        None => None,
    };
    let (user, hash) = known.map_or((None, None), |(user, hash)| (Some(user), hash));
    let matched = if attempt.password.expose().len() > MAX_PASSWORD_BYTES {
        false
    } else {
        match app.passwords.verify(attempt.password.clone(), hash.clone()).await {
            Ok(matched) => matched,
            Err(overloaded) => {
                app.limits.refund(places.name).await?;
                app.limits.refund(places.network).await?;
                return Ok(Outcome::Overloaded { retry_after: overloaded.retry_after });
            }
        }
    };
    let about = About { user_id: user.as_ref().map(|user| &user.id), address: attempt.address, ..About::default() };
    match (user.as_ref(), hash) {
        (Some(user), Some(hash)) if matched && user.is_active() => {
            let hash = welcome(app, user, hash, attempt.password, places).await?;
            Ok(Outcome::SignedIn(Box::new(Verified { user: user.clone(), hash })))
        }
        _ => {
            let left = places.name.left;
            // The last place is where the pause begins.
            let kind = if left == 0 { EventKind::SignInThrottled } else { EventKind::SignInFailed };
            audit::record(app, kind, about).await?;
            Ok(Outcome::Refused { left })
        }
    }
}

/// Takes the places before the hash is computed. The network's comes first, so that one which has used up its own
/// leaves no trace of the names it goes on trying.
async fn reserve(
    app: &App,
    attempt: &Attempt,
    name: Option<&LoginName>,
) -> Result<std::result::Result<Places, Throttled>> {
    // What cannot be a name is counted as it was typed.
    let typed: String = attempt.username.chars().take(255).collect();
    let name = name.map_or(typed.as_str(), |name| name.identifier().1);
    let network = match app.limits.reserve(Action::SignInFrom { from: attempt.address }, app.now()).await? {
        Ok(place) => place,
        Err(throttled) => return Ok(Err(throttled)),
    };
    match app.limits.reserve(Action::SignIn { name, from: attempt.address }, app.now()).await? {
        Ok(name) => Ok(Ok(Places { name, network })),
        Err(throttled) => {
            app.limits.refund(network).await?;
            Ok(Err(throttled))
        }
    }
}

/// After the right password: earlier attempts for the name are forgiven, the network gets its place back, and an old
/// hash is made anew. Returns the hash that stands now.
async fn welcome(
    app: &App,
    user: &User,
    hash: Secret<String>,
    password: Secret<String>,
    places: Places,
) -> Result<Secret<String>> {
    app.limits.forgive(places.name).await?;
    app.limits.refund(places.network).await?;
    if !app.passwords.needs_rehash(hash.expose()) {
        return Ok(hash);
    }
    // Under load the old hash does for another while.
    match app.passwords.hash(password, random_bytes(app.rng.as_ref())).await {
        Ok(Ok(new)) => {
            app.store.upgrade_password_hash(user.id.clone(), hash, new.clone()).await?;
            Ok(new)
        }
        _ => Ok(hash),
    }
}
