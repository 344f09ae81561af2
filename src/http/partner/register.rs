//! Registering somebody, once however often it is asked for.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Caller;
use super::onboarding::OnboardingRef;
use super::users::UserView;
use crate::account::partner::idempotency::Idempotent;
use crate::account::partner::register::{self, Fresh, RegisterError, Registered, Request};
use crate::http::api::api_keys::{MintedKey, NewKey};
use crate::http::api::openapi::Problems;
use crate::http::error::Fault;
use crate::http::extract::json::{Json, optional_object};
use crate::http::problem::Problem;
use crate::http::{Shared, respond};
use crate::protocol::api_key::Wish;
use crate::protocol::partner::{self, MAX_IDEMPOTENCY_KEY, Registration, Unacceptable};

/// What the key of somebody new is called where nobody said.
const KEY_NAME: &str = "default";
/// Where the key to ask again with stands.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WelcomeEmail {
    Send,
    Suppress,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    /// Answer 200 with who is there, without a key.
    Return,
    /// Answer 409 `user_exists`.
    Error,
}

/// Somebody to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Your own id for them.
    #[schema(example = "user-42", min_length = 1, max_length = 255)]
    external_id: String,
    #[schema(example = "ada@example.com")]
    email: String,
    #[serde(default)]
    #[schema(example = "Ada Lovelace")]
    name: Option<String>,
    /// A language tag (BCP 47).
    #[serde(default)]
    #[schema(example = "en-GB")]
    locale: Option<String>,
    #[serde(default)]
    welcome_email: Option<WelcomeEmail>,
    #[serde(default)]
    on_existing: Option<OnExisting>,
    /// How their key is to be; they always get one.
    #[serde(default, deserialize_with = "optional_object")]
    api_key: Option<NewKey>,
}

impl NewUser {
    /// What is asked for, and the key where one is described.
    pub fn read(self) -> Result<(Registration, Option<NewKey>), Unacceptable> {
        let registration = Registration {
            external_id: self.external_id,
            email: self.email,
            name: self.name,
            locale: self.locale,
            welcome_email: match self.welcome_email {
                None | Some(WelcomeEmail::Send) => partner::WelcomeEmail::Send,
                Some(WelcomeEmail::Suppress) => partner::WelcomeEmail::Suppress,
            },
            on_existing: match self.on_existing {
                None | Some(OnExisting::Return) => partner::OnExisting::Return,
                Some(OnExisting::Error) => partner::OnExisting::Error,
            },
        };
        Ok((registration.checked()?, self.api_key))
    }
}

/// Somebody who is registered.
#[derive(Serialize, ToSchema)]
pub struct RegistrationAnswer {
    user: UserView,
    /// Only where they were made just now: nobody sees it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<MintedKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    onboarding: Option<OnboardingRef>,
}

impl RegistrationAnswer {
    fn of(fresh: &Fresh) -> Self {
        Self {
            user: UserView::of(&fresh.person.user),
            api_key: fresh.key.as_ref().map(MintedKey::of),
            onboarding: Some(OnboardingRef::of(&fresh.onboarding)),
        }
    }
}

/// Register somebody, with a key of their own.
///
/// With an `Idempotency-Key` the same request within 24 hours gets the same answer, the key in it included.
#[utoipa::path(post, path = "/v1/partner/users", tag = "partner", request_body = NewUser, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Anything that is new for each registration.")),
    responses(
        (status = 201, description = "They were made.", body = RegistrationAnswer),
        (status = 200, description = "They were there already.", body = RegistrationAnswer),
        Problems))]
pub async fn register(
    State(web): State<Shared>,
    Caller(partner): Caller,
    headers: HeaderMap,
    Json(body): Json<NewUser>,
) -> Result<Response, Problem> {
    let app = &web.app;
    let idempotency_key = idempotency_key(&headers)?;
    let (registration, key) = body.read()?;
    let key = match key {
        Some(key) => key.wish(Some(KEY_NAME))?,
        None => Wish { name: KEY_NAME.to_owned(), ..Wish::default() },
    };
    // By what it means: with whatever was left out, and in one spelling.
    let request = serde_json::to_vec(&(&registration, &key)).map_err(Fault::new)?;
    let idempotent = idempotency_key.map(|key| Idempotent::new(app, &partner, key, &request));
    let external_id = registration.external_id.clone();
    let render = |fresh: &Fresh| serde_json::to_vec(&RegistrationAnswer::of(fresh)).unwrap_or_default();
    let request = Request {
        registration,
        key: Some(key),
        idempotent: idempotent.as_ref().map(|idempotent| (idempotent, &render as register::Render<'_>)),
        line: None,
        onboarding: None,
    };
    match register::register(app, &partner, request).await? {
        Registered::Created(fresh) => Ok(created(render(&fresh))),
        Registered::Answered(answer) => Ok(created(answer)),
        Registered::Existing(user) => {
            let onboarding = app.store.onboarding_of(&partner.id, &external_id).await?;
            let answer = RegistrationAnswer {
                user: UserView::of(&user),
                api_key: None,
                onboarding: onboarding.as_ref().map(OnboardingRef::of),
            };
            Ok(respond::json(StatusCode::OK, &answer))
        }
        Registered::LineDone => Err(Fault::new("a registration was taken for a line of an import").into()),
    }
}

fn created(body: Vec<u8>) -> Response {
    let body = (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], body);
    respond::no_store(body.into_response())
}

/// The `Idempotency-Key` header, if there is one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let key = line.to_str().ok().filter(|key| (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()));
    match (key, lines.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(Problem::invalid_request(format!(
            "Idempotency-Key stands once, with 1 to {MAX_IDEMPOTENCY_KEY} visible characters"
        ))),
    }
}

impl From<RegisterError> for Problem {
    fn from(error: RegisterError) -> Self {
        let detail = error.to_string();
        match error {
            RegisterError::Store(error) => error.into(),
            RegisterError::Conflict(conflict) => Self::conflict(conflict.code(), detail),
            RegisterError::Key(unacceptable) => crate::account::api_keys::MintError::from(unacceptable).into(),
            RegisterError::IdempotencyMismatch => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch", detail)
            }
        }
    }
}
