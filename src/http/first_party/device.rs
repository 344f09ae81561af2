//! `/auth/*`: register and sign in on a device (PlaySmart). Answers are `{"data": …}`, errors
//! `{"error": {"code", "message", "details"?}}`.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use http::StatusCode;
use http::request::Parts;
use serde_json::{Map, Value, json};

use super::{Hints, Presented, presented};
use crate::account::first_party::{self, Caller, Newcomer, SignIn, SignUp};
use crate::http::error::{Fault, RETRY_SOON, TokenError};
use crate::http::extract::authenticated::{Authenticated, Required};
use crate::http::extract::json::{self, BadBody};
use crate::http::extract::peer::ClientAddress;
use crate::http::oauth::token;
use crate::http::serve::BodyProblem;
use crate::http::{Shared, Web, respond};
use crate::issue::Tokens;
use crate::limit::{Quota, Throttled};
use crate::live;
use crate::protocol::client::Client;
use crate::protocol::error::ErrorCode;
use crate::protocol::first_party::Api;
use crate::protocol::first_party::device::{
    Changes, Details, Login, Player, Profile, Refusal, Registration, refresh_token,
};
use crate::protocol::grant::TokenRequest;
use crate::protocol::grant::refresh_token::{Door, RefreshToken};
use crate::protocol::ids::UserId;
use crate::protocol::time::Span;
use crate::protocol::user::{LoginName, User};
use crate::store::StoreError;
use crate::store::users::Created;

const API: Api = Api::Device;

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/auth/register", post(register))
        .route("/auth/login", post(login))
        .route("/auth/refresh", post(refresh))
        .route("/auth/me", patch(change))
        .method_not_allowed_fallback(async || Refused::plain(StatusCode::METHOD_NOT_ALLOWED))
        .route("/auth", axum::routing::any(not_found))
        .route("/auth/", axum::routing::any(not_found))
        .route("/auth/{*rest}", axum::routing::any(not_found))
}

async fn not_found() -> Refused {
    Refused::plain(StatusCode::NOT_FOUND)
}

async fn client(web: &Web) -> Result<Client, Refused> {
    super::client(web, API).await.map_err(Fault::from)?.ok_or_else(|| Refused::plain(StatusCode::NOT_FOUND))
}

async fn body(web: &Shared, request: Request) -> Result<Map<String, Value>, Refused> {
    Ok(json::members(request, web).await?)
}

async fn register(State(web): State<Shared>, address: ClientAddress, request: Request) -> Result<Response, Refused> {
    let client = client(&web).await?;
    let Registration { email, password, device_id } =
        Registration::parse(&body(&web, request).await?, web.app.config.passwords.min_length)?;
    let newcomer = Newcomer { id: device_id, username: None, email: Some(email), password };
    let caller = Caller { api: API, client: &client, address: address.0 };
    match first_party::sign_up(&web.app, &caller, newcomer).await.map_err(Fault::from)? {
        SignUp::Yes(new) => welcome(StatusCode::CREATED, new.tokens, &new.user, &Profile::default()),
        SignUp::Taken(Created::IdTaken) => Err(Refusal::DeviceTaken.into()),
        SignUp::Taken(_) => Err(Refusal::EmailTaken.into()),
        SignUp::Throttled(throttled) => Err(Refused::throttled(throttled)),
        SignUp::Overloaded { retry_after } => Err(Refused::overloaded(retry_after)),
    }
}

async fn login(State(web): State<Shared>, address: ClientAddress, request: Request) -> Result<Response, Refused> {
    let client = client(&web).await?;
    let Login { email, password } = Login::parse(&body(&web, request).await?)?;
    let caller = Caller { api: API, client: &client, address: address.0 };
    let name = Ok(LoginName::Email(email));
    match first_party::sign_in(&web.app, &caller, name, password).await.map_err(Fault::from)? {
        SignIn::Yes(signed_in) => {
            let profile = web.app.store.player(&signed_in.user.id).await.map_err(Fault::from)?;
            welcome(StatusCode::OK, signed_in.tokens, &signed_in.user, &profile)
        }
        SignIn::Refused(quota) => Err(Refused::from(Refusal::Credentials).with(quota)),
        SignIn::Throttled(throttled) => Err(Refused::throttled(throttled)),
        SignIn::Overloaded { retry_after } => Err(Refused::overloaded(retry_after)),
    }
}

async fn refresh(State(web): State<Shared>, address: ClientAddress, request: Request) -> Result<Response, Refused> {
    let client = client(&web).await?;
    let text = refresh_token(&body(&web, request).await?)?;
    let request = || Ok(TokenRequest::RefreshToken(RefreshToken::by_call(text.clone(), Door::FirstParty)));
    let tokens = token::tokens(&web.app, &client, address, request).await?;
    let signed = live::signed_access_token(&web.app, &tokens.access_token, web.app.now());
    let sub = signed.as_ref().and_then(|token| token.claims.get("sub")).and_then(Value::as_str).unwrap_or_default();
    let user = web.app.store.user(&UserId::new(sub)).await.map_err(Fault::from)?.ok_or(Refusal::Token)?;
    let profile = web.app.store.player(&user.id).await.map_err(Fault::from)?;
    welcome(StatusCode::OK, tokens, &user, &profile)
}

fn welcome(status: StatusCode, tokens: Tokens, user: &User, profile: &Profile) -> Result<Response, Refused> {
    let refresh_token = tokens.refresh_token.ok_or_else(|| Fault::new("a sign-in made no refresh token"))?;
    let user = Player::of(user, profile);
    let data = json!({ "access_token": tokens.access_token, "refresh_token": refresh_token, "user": user });
    Ok(respond::json(status, &json!({ "data": data })))
}

/// Somebody with a token of this API.
struct Account(User);

impl Authenticated for Account {
    type Rejection = Refused;

    async fn authenticate(web: &Shared, parts: &Parts) -> Result<Result<Self, Refused>, Fault> {
        Ok(match presented(web, &parts.headers, API).await? {
            Presented::Live(live) => Ok(Self(live.1)),
            Presented::Nothing => Err(Refusal::NoToken.into()),
            _ => Err(Refusal::Token.into()),
        })
    }
}

async fn change(
    State(web): State<Shared>,
    Required(Account(user)): Required<Account>,
    request: Request,
) -> Result<Response, Refused> {
    let changes = Changes::parse(&body(&web, request).await?)?;
    let profile = match web.app.store.change_player(user.id.clone(), changes).await {
        // Deleted in this moment.
        Err(StoreError::Conflict(_)) => return Err(Refusal::Token.into()),
        other => other.map_err(Fault::from)?,
    };
    Ok(respond::json(StatusCode::OK, &json!({ "data": { "user": Player::of(&user, &profile) } })))
}

/// One error of this API.
#[derive(Debug)]
pub struct Refused(Box<Content>);

#[derive(Debug)]
struct Content {
    status: StatusCode,
    code: String,
    message: String,
    details: Option<Details>,
    hints: Hints,
}

impl Refused {
    fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Content {
            status,
            code: code.into(),
            message: message.into(),
            details: None,
            hints: Hints::default(),
        }))
    }

    /// One that the status says whole: `NOT_FOUND` and `not_found`.
    fn plain(status: StatusCode) -> Self {
        let words = status.canonical_reason().unwrap_or("error").replace([' ', '-'], "_");
        Self::new(status, words.to_uppercase(), words.to_lowercase())
    }

    fn with(mut self, quota: Quota) -> Self {
        self.0.hints.quota = Some(quota);
        self
    }

    fn throttled(throttled: Throttled) -> Self {
        let mut refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", "too_many_attempts");
        refused.0.hints.throttled = Some(throttled);
        refused
    }

    fn overloaded(retry_after: Span) -> Self {
        let mut refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "overloaded");
        refused.0.hints.retry_after = Some(retry_after);
        refused
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Payload(_) => StatusCode::BAD_REQUEST,
            Refusal::EmailTaken | Refusal::DeviceTaken => StatusCode::CONFLICT,
            Refusal::Credentials | Refusal::NoToken | Refusal::Token => StatusCode::UNAUTHORIZED,
        };
        let mut refused = Self::new(status, refusal.code(), refusal.to_string());
        if let Refusal::Payload(details) = refusal {
            refused.0.details = Some(details);
        }
        refused
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let mut refused =
            if fault.transient { Self::overloaded(RETRY_SOON) } else { Self::plain(StatusCode::INTERNAL_SERVER_ERROR) };
        refused.0.hints.fault = Some(fault);
        refused
    }
}

/// Of a refresh: whatever is wrong with the token reads alike.
impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        match (error.fault(), error.throttle(), error.code()) {
            (Some(fault), ..) => fault.clone().into(),
            (None, Some(throttled), _) => Self::throttled(throttled),
            (None, None, ErrorCode::InvalidGrant | ErrorCode::InvalidScope) => Refusal::Token.into(),
            (None, None, _) => {
                let wrong = Details::from([("refresh_token", error.description().to_owned())]);
                Refusal::Payload(wrong).into()
            }
        }
    }
}

impl From<BadBody> for Refused {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::MediaType => Self::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            BadBody::Malformed(why) => Refusal::Payload(Details::from([("body", why.into_owned())])).into(),
        }
    }
}

impl From<BodyProblem> for Refused {
    fn from(problem: BodyProblem) -> Self {
        Self::plain(problem.status())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Content { status, code, message, details, hints } = *self.0;
        let mut error = json!({ "code": code, "message": message });
        if let Some(details) = details {
            error["details"] = json!(details);
        }
        let response = respond::json(status, &json!({ "error": error }));
        hints.dress(response)
    }
}
