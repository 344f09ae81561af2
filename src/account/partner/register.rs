//! Registering somebody for a partner: looked up first, decided by the rules, written with their key, their way in and
//! the answer in one transaction. Whoever took one of the names meanwhile is found at the next look.

use super::Partner;
use super::idempotency::{Before, Idempotent};
use crate::account::api_keys::{Minted, draw_for_user};
use crate::app::App;
use crate::protocol::api_key::{Unacceptable, Wish};
use crate::protocol::ids::{OnboardingId, UserId, random_id};
use crate::protocol::partner::{Conflict, OnboardingState, Registration, Verdict, WelcomeEmail, first_state, judge};
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;
use crate::store::StoreError;
use crate::store::events::EventKind;
use crate::store::idempotency::NewAnswer;
use crate::store::imports::LineId;
use crate::store::onboardings::Onboarding;
use crate::store::outbox::{Mail, NewMail};
use crate::store::partners::{self, NewPartnerUser, PartnerUser};
use crate::store::users::NewUser;
use crate::telemetry::metrics;

/// How often somebody else may be faster before we give up.
const LOOKS: usize = 10;

/// Makes the answer to a registration.
pub type Render<'a> = &'a (dyn Fn(&Fresh) -> Vec<u8> + Sync);

/// A registration with what comes beside it.
pub struct Request<'a> {
    pub registration: Registration,
    /// The key to make; `None` makes none.
    pub key: Option<Wish>,
    /// Where the answer may be asked for again, and how to make it.
    pub idempotent: Option<(&'a Idempotent, Render<'a>)>,
    /// The line of an import that this is.
    pub line: Option<LineId>,
    /// The way in that goes on with this, where one has begun.
    pub onboarding: Option<OnboardingId>,
}

/// Somebody who was just made.
pub struct Fresh {
    pub person: PartnerUser,
    pub key: Option<Minted>,
    pub onboarding: Onboarding,
}

/// What a registration came to.
pub enum Registered {
    Created(Box<Fresh>),
    /// They were there already.
    Existing(Box<User>),
    /// The answer of an earlier request with the same `Idempotency-Key`.
    Answered(Vec<u8>),
    /// The line of the import was done meanwhile.
    LineDone,
}

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("{0}")]
    Conflict(Conflict),
    #[error(transparent)]
    Key(#[from] Unacceptable),
    #[error("this Idempotency-Key came with another request before")]
    IdempotencyMismatch,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Registers somebody, once however often it is asked for.
pub async fn register(app: &App, partner: &Partner, request: Request<'_>) -> Result<Registered, RegisterError> {
    for _ in 0..LOOKS {
        let wish = &request.registration;
        let claimants = app.store.claimants(&partner.id, &wish.external_id, &wish.email).await?;
        // After the look, so that whoever stands in the way by an earlier request like this one is its answer.
        if let Some((idempotent, _)) = &request.idempotent {
            match idempotent.before(app).await? {
                Before::Nothing => {}
                Before::Answered(answer) => return Ok(Registered::Answered(answer)),
                Before::Mismatch => return Err(RegisterError::IdempotencyMismatch),
            }
        }
        match judge(wish, claimants) {
            Verdict::Create => {}
            Verdict::Existing(user) => {
                metrics::onboarding(partner.id.as_str(), "existing");
                return Ok(Registered::Existing(user));
            }
            Verdict::Refused(conflict) => return Err(refuse(app, partner, &request, conflict).await?),
        }
        let (fresh, new) = draw(app, partner, &request)?;
        match app.store.register(new, fresh.person.created_at).await? {
            partners::Registered::Yes => {
                metrics::onboarding(partner.id.as_str(), "registered");
                return Ok(Registered::Created(Box::new(fresh)));
            }
            partners::Registered::LineDone => return Ok(Registered::LineDone),
            partners::Registered::NameTaken | partners::Registered::Answered => {}
        }
    }
    Err(StoreError::Refused("the names of a registration changed hands too often").into())
}

/// Notes a registration that cannot be, where nobody bears its id: its way in ends here until it is tried again.
async fn refuse(
    app: &App,
    partner: &Partner,
    request: &Request<'_>,
    conflict: Conflict,
) -> Result<RegisterError, StoreError> {
    metrics::onboarding(partner.id.as_str(), conflict.code());
    if matches!(conflict, Conflict::EmailInUse { .. }) {
        let now = app.now();
        let failed = Onboarding {
            id: onboarding_id(app, request),
            partner: partner.id.clone(),
            external_id: request.registration.external_id.clone(),
            user_id: None,
            state: OnboardingState::Failed,
            reason: Some(conflict.code().to_owned()),
            wish: Some(request.registration.clone()),
            created_at: now,
            updated_at: now,
        };
        app.store.note_failed_registration(failed).await?;
    }
    Ok(RegisterError::Conflict(conflict))
}

fn onboarding_id(app: &App, request: &Request<'_>) -> OnboardingId {
    let fresh = || OnboardingId::from_random(app.rng.id());
    request.onboarding.clone().unwrap_or_else(fresh)
}

/// Somebody with all that is theirs, and what is to be written of it.
fn draw(app: &App, partner: &Partner, request: &Request<'_>) -> Result<(Fresh, NewPartnerUser), RegisterError> {
    let now = app.now();
    let author = partner.author(app);
    let (user, new_user) = draw_user(app, partner, &request.registration, now);
    let (key, new_key) =
        request.key.clone().map(|wish| draw_for_user(app, &user, wish, &author, now)).transpose()?.unzip();
    let onboarding = Onboarding {
        id: onboarding_id(app, request),
        partner: partner.id.clone(),
        external_id: request.registration.external_id.clone(),
        user_id: Some(user.id.clone()),
        state: first_state(key.is_some(), request.registration.welcome_email == WelcomeEmail::Send),
        reason: None,
        wish: None,
        created_at: now,
        updated_at: now,
    };
    let (new_key, key_event) = new_key.unzip();
    let mut events = vec![author.event(EventKind::UserCreated, now).of_user(&user.id)];
    events.extend(key_event);
    let fresh = Fresh { person: PartnerUser { user, created_at: now }, key, onboarding };
    let answer = remember(app, request, &fresh)?;
    let onboarding = fresh.onboarding.clone();
    let wanted = request.registration.welcome_email == WelcomeEmail::Send;
    let mail = wanted.then(|| welcome_mail(app, partner, &onboarding.id, &request.registration.email));
    let line = request.line.clone();
    let new = NewPartnerUser { user: new_user, key: new_key, onboarding, mail, events, answer, line };
    Ok((fresh, new))
}

/// The letter that welcomes somebody.
pub(super) fn welcome_mail(app: &App, partner: &Partner, onboarding: &OnboardingId, to: &str) -> NewMail {
    NewMail {
        id: random_id(app.rng.id()),
        to: to.to_owned(),
        mail: Mail::Welcome { partner_name: partner.name.clone() },
        partner: Some(partner.id.clone()),
        onboarding: Some(onboarding.as_str().to_owned()),
    }
}

fn remember(app: &App, request: &Request<'_>, fresh: &Fresh) -> Result<Option<NewAnswer>, StoreError> {
    let Some((idempotent, render)) = &request.idempotent else { return Ok(None) };
    idempotent.remember(app, &render(fresh)).map(Some)
}

/// The person as they will be, and as they are written.
fn draw_user(app: &App, partner: &Partner, registration: &Registration, now: Timestamp) -> (User, NewUser) {
    let mut claims = serde_json::Map::new();
    for (name, value) in [("name", &registration.name), ("locale", &registration.locale)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value.as_str().into());
        }
    }
    let user = User {
        id: UserId::from_random(app.rng.id()),
        username: None,
        email: Some(registration.email.clone()),
        // A partner's word is no proof.
        email_verified: false,
        claims,
        roles: Vec::new(),
        groups: Vec::new(),
        partner: Some(partner.id.clone()),
        external_id: Some(registration.external_id.clone()),
        disabled_at: None,
        updated_at: now,
    };
    let new = NewUser {
        id: user.id.clone(),
        of_partner: Some((partner.id.clone(), registration.external_id.clone())),
        username: None,
        email: user.email.clone(),
        email_verified: user.email_verified,
        claims: user.claims.clone(),
        roles: Vec::new(),
        groups: Vec::new(),
        password_hash: None,
        disabled_at: None,
    };
    (user, new)
}
