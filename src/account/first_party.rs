//! Sign-up and sign-in by plain calls of an app of our own: the password's rules and limits are those of the pages, what
//! it opens is tokens.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Map;

use super::audit::{self, About};
use super::password::{self, Attempt, Outcome};
use crate::ambient::random_bytes;
use crate::app::App;
use crate::crypto::secret::Secret;
use crate::issue::{self, IssueError, NotOpened, Tokens};
use crate::limit::{Action, Place, Quota, Throttled};
use crate::live::SignedToken;
use crate::protocol::client::Client;
use crate::protocol::first_party::Api;
use crate::protocol::ids::{GrantId, UserId};
use crate::protocol::time::Span;
use crate::protocol::user::{LoginName, User};
use crate::store::events::{Event, EventKind};
use crate::store::first_party::Opening;
use crate::store::users::{Created, NewUser};
use crate::store::{Result, StoreError};

/// One API, as a call meets it.
pub struct Caller<'a> {
    pub api: Api,
    /// That of [`Api::client`].
    pub client: &'a Client,
    pub address: Option<IpAddr>,
}

/// Somebody who signed up or in just now.
pub struct SignedIn {
    pub user: User,
    pub tokens: Tokens,
}

/// What a sign-in came to.
pub enum SignIn {
    Yes(Box<SignedIn>),
    Refused(Quota),
    Throttled(Throttled),
    /// Too many at once; this one was not counted.
    Overloaded {
        retry_after: Span,
    },
}

/// What a sign-up came to.
pub enum SignUp {
    Yes(Box<SignedIn>),
    Taken(Created),
    Throttled(Throttled),
    Overloaded { retry_after: Span },
}

/// Somebody who is to have an account.
pub struct Newcomer {
    pub id: UserId,
    pub username: Option<String>,
    /// Canonical.
    pub email: Option<String>,
    pub password: Secret<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum FirstPartyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("a password could not be hashed: {0}")]
    Hash(#[from] crate::crypto::password::PasswordError),
}

/// Counts a call of the username API, whatever will come of it. The last one before a pause is told.
pub async fn count(app: &App, caller: &Caller<'_>) -> Result<std::result::Result<Place, Throttled>> {
    let taken = app.limits.reserve(Action::UsernameApi { from: caller.address }, app.now()).await?;
    let place = match taken {
        Ok(place) if place.quota.left == 0 => place,
        other => return Ok(other),
    };
    let detail = [("limit", place.quota.name)];
    let client_id = Some(&caller.client.id);
    let about = About { client_id, address: caller.address, detail: &detail, ..About::default() };
    if let Err(error) = audit::record(app, EventKind::SignInThrottled, about).await {
        give_back(app, place).await;
        return Err(error);
    }
    Ok(Ok(place))
}

/// Checks a password and opens what it opens.
pub async fn sign_in(
    app: &Arc<App>,
    caller: &Caller<'_>,
    name: std::result::Result<LoginName, String>,
    password: Secret<String>,
) -> std::result::Result<SignIn, FirstPartyError> {
    let client = Some(caller.client.id.clone());
    let attempt = Attempt { name, password, address: caller.address, device: None, client };
    let (user, set_at, quota) = match password::check(app, attempt).await? {
        Outcome::SignedIn(verified) => (verified.user, verified.set_at, verified.quota),
        Outcome::Refused(quota) => return Ok(SignIn::Refused(quota)),
        Outcome::Throttled(throttled) => return Ok(SignIn::Throttled(throttled)),
        Outcome::Overloaded { retry_after } => return Ok(SignIn::Overloaded { retry_after }),
    };
    Ok(match open(app, caller, user, Opening::Password(set_at), EventKind::SignedIn).await? {
        Ok(signed_in) => SignIn::Yes(Box::new(signed_in)),
        // The password is another by now.
        Err(_) => SignIn::Refused(quota),
    })
}

/// Makes an account and opens what its password opens, both or neither. The database decides whose a name is.
pub async fn sign_up(app: &App, caller: &Caller<'_>, new: Newcomer) -> std::result::Result<SignUp, FirstPartyError> {
    let place = match sign_up_place(app, caller).await? {
        Ok(place) => place,
        Err(throttled) => return Ok(SignUp::Throttled(throttled)),
    };
    let made = make_account(app, caller, new).await;
    if let (Err(_) | Ok(SignUp::Overloaded { .. }), Some(place)) = (&made, place) {
        give_back(app, place).await;
    }
    made
}

/// Where it was our fault that nothing came of a call. Whoever hears of that need not hear that this failed as well.
pub async fn give_back(app: &App, place: Place) {
    if let Err(error) = app.limits.refund(place).await {
        tracing::warn!(%error, "a place could not be given back");
    }
}

async fn make_account(app: &App, caller: &Caller<'_>, new: Newcomer) -> std::result::Result<SignUp, FirstPartyError> {
    let hash = match app.passwords.hash(new.password, random_bytes(app.rng.as_ref())).await {
        Ok(hash) => hash?,
        Err(overloaded) => return Ok(SignUp::Overloaded { retry_after: overloaded.retry_after }),
    };
    let account = NewUser {
        id: new.id,
        of_partner: None,
        username: new.username,
        email: new.email,
        email_verified: false,
        claims: Map::new(),
        roles: Vec::new(),
        groups: Vec::new(),
        password_hash: Some(hash),
        disabled_at: None,
    };
    let user = account.as_user(app.now());
    Ok(match open(app, caller, user, Opening::SignUp(Box::new(account)), EventKind::SignedUp).await? {
        Ok(signed_in) => SignUp::Yes(Box::new(signed_in)),
        Err(NotOpened::Taken(what)) => SignUp::Taken(what),
        Err(NotOpened::Ended) => return Err(StoreError::Refused("a new account had ended").into()),
    })
}

/// The username API counts all its calls itself, and more strictly.
async fn sign_up_place(app: &App, caller: &Caller<'_>) -> Result<std::result::Result<Option<Place>, Throttled>> {
    match caller.api {
        Api::Username => Ok(Ok(None)),
        Api::Device => Ok(app.limits.reserve(Action::SignUp { from: caller.address }, app.now()).await?.map(Some)),
    }
}

async fn open(
    app: &App,
    caller: &Caller<'_>,
    user: User,
    by: Opening,
    kind: EventKind,
) -> std::result::Result<std::result::Result<SignedIn, NotOpened>, IssueError> {
    let now = app.now();
    let id = GrantId::from_random(app.rng.id());
    let event = event(app, caller, kind, &user.id, &id).with("method", "password");
    let issuance = caller.api.opens(caller.client, &app.metadata, user.clone(), id, now);
    let tokens = issue::open(app, caller.client, &issuance, by, event, now).await?;
    Ok(tokens.map(|tokens| SignedIn { user, tokens }))
}

/// Ends the sign-in that a token came from.
pub async fn sign_out(app: &App, caller: &Caller<'_>, user: &User, token: &SignedToken) -> Result<()> {
    let Some(grant_id) = &token.grant_id else { return Ok(()) };
    let event = event(app, caller, EventKind::SignedOut, &user.id, grant_id);
    app.store.sign_out_of_grant(grant_id.clone(), event, app.now()).await?;
    Ok(())
}

/// What somebody did by the API, with the grant that it opened or ended.
fn event(app: &App, caller: &Caller<'_>, kind: EventKind, user_id: &UserId, grant_id: &GrantId) -> Event {
    let person = audit::person(app, caller.address).as_client(&caller.client.id);
    person.event(kind, app.now()).of_user(user_id).with("grant_id", grant_id.as_str())
}
