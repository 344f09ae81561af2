//! Checking a password, for whatever door it came through: limits first, then the hash. An unknown name, a disabled
//! account and a wrong password cost the same and read the same. What the right one opens is for `sessions.rs` and
//! `first_party.rs`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::audit::{self, About};
use crate::ambient::random_bytes;
use crate::app::App;
use crate::crypto::device_cookie;
use crate::crypto::password::MAX_PASSWORD_BYTES;
use crate::crypto::secret::Secret;
use crate::limit::{Account, Quota, SignInPlaces, Throttled};
use crate::protocol::ids::ClientId;
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::{LoginName, User};
use crate::store::events::EventKind;
use crate::store::users::REALM_DIRECT;
use crate::store::{Result, StoreError};
use crate::telemetry::{metrics, traces};

/// How long strangers wait for each password while somebody's is being tried from everywhere.
const STRANGERS_WAIT: Duration = Duration::from_secs(3);
/// Characters of a text that cannot be a name, as far as it is told from others.
const LONGEST_NAME: usize = 255;

/// What somebody typed, and from where.
pub struct Attempt {
    /// The name as it is looked up; else the text that cannot be one.
    pub name: std::result::Result<LoginName, String>,
    pub password: Secret<String>,
    pub address: Option<IpAddr>,
    /// The cookie that says who signed in with this browser before.
    pub device: Option<String>,
    /// The client whose sign-in API it is; `None` for our own pages.
    pub client: Option<ClientId>,
}

/// What the attempt came to.
pub enum Outcome {
    SignedIn(Box<Verified>),
    /// With the tries that are left before a pause.
    Refused(Quota),
    Throttled(Throttled),
    /// Too many at once; this one was not counted.
    Overloaded {
        retry_after: Span,
    },
}

/// Somebody whose password was right a moment ago.
pub struct Verified {
    pub user: User,
    /// What names the password that was right.
    pub(super) set_at: Timestamp,
    /// Where the account stood with its tries.
    pub(super) quota: Quota,
}

/// Checks a name and a password. A task of its own: whoever hangs up has tried all the same, and the trail says so.
pub async fn check(app: &Arc<App>, attempt: Attempt) -> Result<Outcome> {
    let app = Arc::clone(app);
    let work = async move { attempt_password(&app, attempt).await };
    let task = tokio::spawn(traces::of_this_request(work));
    let outcome = task.await.map_err(|_| StoreError::WriterStopped)??;
    let result = match &outcome {
        Outcome::SignedIn(_) => metrics::SignIn::Success,
        Outcome::Refused(_) => metrics::SignIn::Refused,
        Outcome::Throttled(_) => metrics::SignIn::Throttled,
        Outcome::Overloaded { .. } => metrics::SignIn::Overloaded,
    };
    metrics::sign_in(metrics::PASSWORD, result);
    Ok(outcome)
}

async fn attempt_password(app: &App, attempt: Attempt) -> Result<Outcome> {
    let known = match &attempt.name {
        Ok(name) => app.store.user_by_login(REALM_DIRECT, name).await?,
        Err(_) => None,
    };
    let (user, stored) = known.map_or((None, None), |(user, password)| (Some(user), password));
    let places = match reserve(app, &attempt, user.as_ref()).await? {
        Ok(places) => places,
        // Counted nowhere but in the log: whoever goes on trying writes nothing.
        Err(throttled) => {
            tracing::warn!(address = ?attempt.address, "a sign-in was throttled");
            return Ok(Outcome::Throttled(throttled));
        }
    };
    if places.everywhere.is_none() && !is_at_home(app, &attempt, user.as_ref()) {
        tokio::time::sleep(STRANGERS_WAIT).await;
    }
    let matched = if attempt.password.expose().len() > MAX_PASSWORD_BYTES {
        false
    } else {
        let hash = stored.as_ref().map(|stored| stored.hash.clone());
        match app.passwords.verify(attempt.password.clone(), hash).await {
            Ok(matched) => matched,
            Err(overloaded) => {
                app.limits.refund_sign_in(places).await?;
                return Ok(Outcome::Overloaded { retry_after: overloaded.retry_after });
            }
        }
    };
    match (user, stored) {
        (Some(user), Some(stored)) if matched && user.is_active() => {
            let (quota, set_at) = (places.own.quota, stored.set_at);
            welcome(app, &user, stored.hash, attempt.password, places).await?;
            Ok(Outcome::SignedIn(Box::new(Verified { user, set_at, quota })))
        }
        (user, _) => {
            record_failure(app, &attempt, user.as_ref(), &places).await?;
            Ok(Outcome::Refused(places.own.quota))
        }
    }
}

/// The last place is where the pause begins.
async fn record_failure(app: &App, attempt: &Attempt, user: Option<&User>, places: &SignInPlaces) -> Result<()> {
    let used_up = [&places.own, &places.network].into_iter().find(|place| place.quota.left == 0);
    let (kind, detail) = match used_up {
        None => (EventKind::SignInFailed, None),
        Some(place) => (EventKind::SignInThrottled, Some(("limit", place.quota.name))),
    };
    let about = About {
        user_id: user.map(|user| &user.id),
        client_id: attempt.client.as_ref(),
        address: attempt.address,
        detail: detail.as_slice(),
    };
    audit::record(app, kind, about).await
}

/// Takes the places before the hash is computed.
async fn reserve(
    app: &App,
    attempt: &Attempt,
    user: Option<&User>,
) -> Result<std::result::Result<SignInPlaces, Throttled>> {
    let typed: String;
    let account = match (user, &attempt.name) {
        (Some(user), _) => Account::Known(user.id.as_str()),
        (None, Ok(name)) => Account::Unknown(name.identifier().1),
        (None, Err(text)) => {
            typed = text.chars().take(LONGEST_NAME).collect();
            Account::Unknown(&typed)
        }
    };
    app.limits.reserve_sign_in(account, attempt.address, app.now()).await
}

/// Whether the person signed in with this browser before.
fn is_at_home(app: &App, attempt: &Attempt, user: Option<&User>) -> bool {
    let cookie = attempt.device.as_deref();
    let knows =
        |(user, cookie): (&User, &str)| device_cookie::knows(&app.keys.server.devices, &user.id, cookie, app.now());
    user.zip(cookie).is_some_and(knows)
}

/// After the right password: earlier attempts for the account are forgiven, the other places are given back, and an
/// old hash is made anew.
async fn welcome(
    app: &App,
    user: &User,
    hash: Secret<String>,
    password: Secret<String>,
    places: SignInPlaces,
) -> Result<()> {
    app.limits.forgive(places).await?;
    if !app.passwords.needs_rehash(hash.expose()) {
        return Ok(());
    }
    // Under load the old hash does for another while.
    if let Ok(Ok(new)) = app.passwords.hash(password, random_bytes(app.rng.as_ref())).await {
        app.store.upgrade_password_hash(user.id.clone(), hash, new).await?;
    }
    Ok(())
}
